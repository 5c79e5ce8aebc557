//! Plans, the copy of the tree and the settings.

use std::collections::BTreeMap;

use crate::cluster::quotas::QuotaEntity;
use crate::cluster::store::commit::{Check, Commit, Lifetime, Outcome, Write};
use crate::cluster::store::conformance::{
    Die, no_topic, partition_key, partition_state, topic_key, topic_record, whole_topic,
};
use crate::cluster::store::records::{Key, Record};
use crate::cluster::store::znodes::{self, Writer};
use crate::cluster::store::zookeeper::ConnectString;
use crate::cluster::store::zookeeper::plan::{Plan, Refusal, Step, plan};
use crate::cluster::store::zookeeper::tree::{Read, Tree, What, Znode};
use crate::model::BrokerId;

const WRITER: Writer = Writer { broker: BrokerId(1), now_ms: 7 };

#[test]
fn connect_strings_are_servers_and_a_chroot() {
    let parse = |text: &str| ConnectString::parse(text).map(|c| (c.servers().to_owned(), c.chroot().to_owned()));
    let good = [
        ("host", "host", ""),
        ("a:1,b:2", "a:1,b:2", ""),
        ("a:1, b:2/x/y", "a:1,b:2", "/x/y"),
        ("a:1/", "a:1", ""),
        ("[::1]:2181/kafka", "[::1]:2181", "/kafka"),
    ];
    for (text, servers, chroot) in good {
        assert_eq!(parse(text), Ok((servers.to_owned(), chroot.to_owned())), "{text}");
    }
    let tries = ConnectString::parse("a:1,b:2,c:3/x").map(|connect| connect.tries()).unwrap_or_default();
    assert_eq!(tries.split(',').count(), 21);
    assert!(tries.starts_with("a:1,b:2,c:3,a:1,b:2,"), "{tries}");
    for text in ["", ",", "a:0", "a:x", "a:70000", ":2181", "a:1,", "a:1//x", "a:1/x/", "a:1/../x", "a:1/x,b:2/x"] {
        let error = parse(text).expect_err(text).to_string();
        assert!(error.starts_with(&format!("zookeeper.connect={text:?}: ")), "{error}");
    }
}

fn znode(bytes: &[u8], version: i32, created: i64, modified: i64) -> Znode {
    Znode { bytes: bytes.to_vec(), version, created, modified, children_modified: created }
}

fn record_znode(record: &Record, version: i32, created: i64, modified: i64) -> Znode {
    znode(&znodes::encode(record, WRITER, None).expect("it can be kept"), version, created, modified)
}

fn read(path: &str, what: What) -> Read {
    Read { path: path.to_owned(), what }
}

fn steps(writes: Vec<Write>, tree: &Tree, settled: bool) -> Vec<String> {
    let plan = plan(&Commit { checks: vec![], writes }, tree, settled, WRITER).expect("a plan");
    let text = |(step, _): &(Step, Key)| match step {
        Step::Check(path, version) => format!("check {path} {version}"),
        Step::Create(path, ..) => format!("create {path}"),
        Step::Set(path, _, version) => format!("set {path} {version}"),
        Step::Delete(path, version) => format!("delete {path} {}", version.unwrap_or(-1)),
    };
    plan.0.iter().map(text).collect()
}

#[test]
fn a_topic_is_made_and_removed_with_the_znodes_around_it() {
    let (tree, root) = (Tree::default(), "/brokers/topics/a");
    let made = [
        format!("create {root}"),
        format!("create {root}/partitions"),
        format!("create {root}/partitions/0"),
        format!("create {root}/partitions/0/state"),
    ];
    assert_eq!(steps(whole_topic("a", 1, 1), &tree, true), made);
    let removed = [
        format!("delete {root}/partitions/0/state -1"),
        format!("delete {root}/partitions/0 -1"),
        format!("delete {root}/partitions -1"),
        format!("delete {root} -1"),
    ];
    assert_eq!(steps(no_topic("a", 1), &tree, true), removed);
}

#[test]
fn a_topic_that_kafka_left_half_made_is_finished_or_removed() {
    let mut tree = Tree::default();
    assert_eq!(tree.take("/brokers/topics/a", Some(record_znode(&topic_record(1, 2), 0, 5, 5))), None);
    let state = || Write::Create(partition_key("a", 0), partition_state(0), Lifetime::Persistent);
    let removal = || vec![Write::Delete(topic_key("a"), Some(0))];
    let partitions = "/brokers/topics/a/partitions";
    assert_eq!(steps(vec![state()], &tree, true)[0], format!("create {partitions}"));
    assert_eq!(steps(removal(), &tree, true), ["delete /brokers/topics/a 0"]);
    // It may be that the rest is just being read.
    assert_eq!(steps(vec![state()], &tree, false)[0], format!("create {partitions}/0"));
    assert_eq!(steps(removal(), &tree, false).len(), 2);
    tree.take(partitions, Some(znode(b"", 0, 5, 5)));
    tree.take(&format!("{partitions}/0"), Some(znode(b"", 0, 5, 5)));
    assert_eq!(steps(vec![state()], &tree, true), [format!("create {partitions}/0/state")]);
    // Removed and made in one commit.
    let anew: Vec<Write> = no_topic("a", 1).into_iter().chain(whole_topic("a", 2, 1)).collect();
    assert_eq!(steps(anew, &tree, true).len(), 8);
}

#[test]
fn refusals_name_the_node_they_are_about() {
    let plan_of = |writes| plan(&Commit { checks: vec![], writes }, &Tree::default(), true, WRITER).expect("a plan");
    let orphan = plan_of(vec![Write::Create(partition_key("a", 0), partition_state(0), Lifetime::Persistent)]);
    assert_eq!(orphan.conflict(0, Refusal::Missing), Outcome::Conflict(topic_key("a")));
    assert_eq!(orphan.conflict(0, Refusal::Exists), Outcome::Conflict(partition_key("a", 0)));
    let removal = plan_of(vec![Write::Delete(topic_key("a"), None)]);
    assert_eq!(removal.conflict(0, Refusal::HasChildren), Outcome::Conflict(topic_key("a")));
    assert!(matches!(Plan::default().conflict(0, Refusal::Missing), Outcome::Failed(_)));
    let lost = plan_of(vec![Write::Create(Key::ControllerEpoch, Record::ControllerEpoch(1), Lifetime::Persistent)]);
    assert!(matches!(lost.conflict(0, Refusal::Missing), Outcome::Failed(_)));
}

#[test]
fn commits_that_cannot_be_carried_out_are_not_sent() {
    let refused = |checks: Vec<Check>, writes: Vec<Write>| {
        plan(&Commit { checks, writes }, &Tree::default(), true, WRITER).expect_err("not to be sent")
    };
    // To ZooKeeper it would be any version.
    let key = partition_key("a", 0);
    assert_eq!(refused(vec![Check::Version(key.clone(), -1)], vec![]), Outcome::Conflict(key.clone()));
    assert_eq!(refused(vec![], vec![Write::Set(key.clone(), partition_state(1), -1)]), Outcome::Conflict(key.clone()));
    let odd = Key::Topic("a/b".into());
    assert!(matches!(refused(vec![Check::Exists(odd)], vec![]), Outcome::Failed(_)));
    assert!(matches!(refused(vec![], vec![Write::Set(key, Record::Deletion, 0)]), Outcome::Failed(_)));
    let large = BTreeMap::from([("x".to_owned(), "y".repeat(1 << 20))]);
    let large = Write::Create(Key::DefaultConfig, Record::Config(large), Lifetime::Persistent);
    let Outcome::Failed(why) = refused(vec![], vec![large]) else { unreachable!("it is too large") };
    assert!(why.contains("jute.maxbuffer"), "{why}");
}

#[test]
fn a_change_keeps_the_fields_of_others() {
    let mut tree = Tree::default();
    let path = "/config/brokers/<default>";
    tree.take(path, Some(znode(br#"{"version":1,"config":{},"later":3}"#, 4, 5, 6)));
    let write = Write::Set(Key::DefaultConfig, Record::Config(BTreeMap::new()), 4);
    let plan = plan(&Commit { checks: vec![], writes: vec![write] }, &tree, true, WRITER).expect("a plan");
    let wanted = Step::Set(path.into(), br#"{"version":1,"config":{},"later":3}"#.to_vec(), 4);
    assert_eq!(plan.0, [(wanted, Key::DefaultConfig)]);
}

#[test]
fn a_users_client_id_comes_with_the_znodes_above_it() {
    let quota = |entity| Write::Create(Key::Quota(entity), Record::Config(BTreeMap::new()), Lifetime::Persistent);
    let both = |client: &str| quota(QuotaEntity::UserClient(Some("u".into()), Some(client.into())));
    let user = quota(QuotaEntity::User(Some("u".into())));
    let (mut tree, path) = (Tree::default(), "/config/users/u");
    let made = |tree: &Tree, writes: Vec<Write>| -> Vec<String> {
        let steps = steps(writes, tree, true).into_iter();
        steps.map(|step| step.replace("create /config/users/u", "")).collect()
    };
    assert_eq!(made(&tree, vec![both("a"), both("b")]), ["", "/clients", "/clients/a", "/clients/b"]);
    assert_eq!(made(&tree, vec![user, both("a")]), ["", "/clients", "/clients/a"]);
    tree.take(path, Some(znode(b"", 0, 5, 5)));
    assert_eq!(made(&tree, vec![both("a")]), ["/clients", "/clients/a"]);
    tree.take(&format!("{path}/clients"), Some(znode(b"", 0, 5, 5)));
    assert_eq!(made(&tree, vec![both("a")]), ["/clients/a"]);
    let below = Tree::below("/config/users", &["u".into()]);
    let clients = "/config/users/u/clients";
    let wanted = [read(path, What::Data), read(clients, What::Data), read(clients, What::Children)];
    assert_eq!(below, wanted);
    assert_eq!(Tree::below(clients, &["a".into()]), [read(&format!("{clients}/a"), What::Data)]);
}

#[test]
fn the_copy_tells_what_has_changed() {
    let mut tree = Tree::default();
    let (key, path) = (topic_key("a"), "/brokers/topics/a");
    tree.take(path, Some(record_znode(&topic_record(1, 1), 0, 5, 5)));
    let changes = tree.changes().expect("a change");
    assert_eq!((changes.revision.0, changes.nodes.len()), (5, 1));
    assert_eq!(tree.changes(), None);
    tree.take(path, Some(record_znode(&topic_record(1, 1), 0, 5, 5)));
    assert_eq!(tree.changes(), None, "the same");
    tree.note(path, true);
    let reads = tree.take_dirty();
    let wanted = ["/", "/brokers", "/brokers/topics", path].map(|path| read(path, What::Data));
    assert_eq!(reads, wanted, "those above have the number of the change");
    tree.take(path, None);
    let above = Znode { children_modified: 9, ..znode(b"", 0, 1, 1) };
    tree.take("/brokers/topics", Some(above));
    let changes = tree.changes().expect("a change");
    assert_eq!((changes.revision.0, changes.nodes), (9, vec![(key, None)]));
    tree.note("/consumers/x", false);
    assert!(!tree.is_dirty(), "of no interest");
}

#[test]
fn damage_leaves_what_was_before() {
    let mut tree = Tree::default();
    let path = "/brokers/topics/a";
    tree.take(path, Some(record_znode(&topic_record(1, 1), 0, 5, 5)));
    let before = tree.snapshot().nodes;
    let error = tree.take(path, Some(znode(b"{", 1, 5, 6))).expect("damage");
    assert!(error.to_string().contains(path), "{error}");
    assert_eq!(tree.take(path, Some(znode(b"{", 1, 5, 6))), None, "said once");
    assert_eq!((tree.changes(), tree.is_withheld(path)), (None, false));
    assert_eq!(tree.snapshot().nodes, before);
    tree.take(path, Some(record_znode(&topic_record(2, 1), 2, 5, 7)));
    assert_eq!(tree.changes().map(|changes| changes.revision.0), Some(7));
}

/// A topic that is read for the first time may be damaged: it is not nothing, so that it is not
/// taken for deleted.
#[test]
fn a_topic_that_is_damaged_from_the_beginning_is_told_of() {
    let mut tree = Tree::default();
    for (path, key) in [
        ("/brokers/topics/b", Key::Topic("b".into())),
        ("/brokers/topics/b/partitions/0/state", Key::Partition("b".into(), 0)),
        ("/config/topics/b", Key::TopicConfig("b".into())),
    ] {
        let error = tree.take(path, Some(znode(b"[]", 3, 8, 8))).expect("damage");
        assert!(tree.is_withheld(path));
        let told =
            crate::cluster::store::commit::Node { record: Record::Damaged(error.to_string()), version: 3, created: 8 };
        assert_eq!(tree.changes().map(|changes| changes.nodes), Some(vec![(key, Some(told))]));
    }
    assert_eq!(tree.damage(), None, "other topics are served");
    tree.take("/brokers/topics/b", Some(record_znode(&topic_record(2, 1), 4, 8, 9)));
    let changes = tree.changes().expect("it is put right");
    assert!(!tree.is_withheld("/brokers/topics/b") && matches!(&changes.nodes[..], [(Key::Topic(_), Some(_))]));
    let error = tree.take("/controller_epoch", Some(znode(b"x", 0, 10, 10))).expect("damage");
    assert_eq!((tree.changes(), tree.damage()), (None, Some(&error)), "without this nobody is");
}

#[test]
fn what_a_reading_does_not_meet_is_gone() {
    let mut tree = Tree::default();
    for name in ["a", "b"] {
        tree.take(&format!("/brokers/topics/{name}"), Some(record_znode(&topic_record(1, 1), 0, 5, 5)));
    }
    tree.changes();
    let first = tree.begin_reading();
    assert!(
        first.contains(&read("/brokers/topics", What::Children)) && first.contains(&read("/controller", What::Data))
    );
    let below = Tree::below("/brokers/topics", &["b".into(), "x y".into()]);
    let wanted = ["/brokers/topics/b", "/brokers/topics/b/partitions"].map(|path| read(path, What::Data));
    assert_eq!(below[..2], wanted);
    assert_eq!(below[2..], [read("/brokers/topics/b/partitions", What::Children)]);
    let states = Tree::below("/brokers/topics/b/partitions", &["0".into()]);
    assert_eq!(states[0], read("/brokers/topics/b/partitions/0/state", What::Data));
    tree.take("/brokers/topics/b", Some(record_znode(&topic_record(1, 1), 0, 5, 5)));
    tree.end_reading();
    let gone = tree.changes().expect("a change").nodes;
    assert_eq!(gone, [(topic_key("a"), None)]);
}

#[test]
fn the_audit_finds_what_no_event_has_told_of() {
    let mut tree = Tree::default();
    let there = |version, modified| record_znode(&topic_record(1, 1), version, 5, modified);
    tree.take("/brokers/topics", Some(znode(b"", 0, 1, 1)));
    tree.take("/brokers/topics/a", Some(there(0, 5)));
    let reads = tree.audit("", 10);
    let wanted = [
        read("/brokers/topics", What::Data),
        read("/brokers/topics", What::Children),
        read("/brokers/topics/a", What::Data),
    ];
    assert_eq!(reads, wanted);
    assert_eq!(tree.audit("/brokers/topics", 10), wanted[2..]);
    let missed = |tree: &Tree, at: usize, data: Option<&Znode>, children: &[&str]| {
        tree.missed(&reads[at], data, &children.iter().map(|child| (*child).to_owned()).collect::<Vec<_>>())
    };
    assert!(missed(&tree, 2, Some(&there(0, 5)), &[]).is_empty());
    assert!(missed(&tree, 1, None, &["a", "x y"]).is_empty());
    assert_eq!(missed(&tree, 2, Some(&there(1, 6)), &[]), ["/brokers/topics/a"]);
    assert_eq!(missed(&tree, 2, None, &[]), ["/brokers/topics/a"]);
    assert_eq!(missed(&tree, 1, None, &["b"]), ["/brokers/topics/a", "/brokers/topics/b"]);
    tree.note("/brokers/topics/a", false);
    assert!(missed(&tree, 2, None, &[]).is_empty(), "an event has");
}

/// A server and its events: whenever an answer leaves nothing to be read, the
/// copy is what the server had.
#[test]
fn a_copy_without_marks_is_what_the_server_has() {
    let mut die = Die(15);
    let (mut server, mut tree): (BTreeMap<String, Znode>, Tree) = (BTreeMap::new(), Tree::default());
    let (mut zxid, mut clean) = (1, 0);
    for _ in 0..20_000 {
        // Any number of changes before the next read is carried out; their
        // events come before its answer.
        let reads = tree.take_dirty();
        let mut answers = Vec::new();
        for at in 0..=reads.len() {
            for _ in 0..die.below(12).saturating_sub(9) {
                zxid += 1;
                let path = format!("/config/brokers/{}", die.below(4));
                let (config, version) =
                    (Record::Config(BTreeMap::new()), server.get(&path).map_or(0, |z| z.version + 1));
                let gone = die.below(3) == 0;
                match gone {
                    true if server.remove(&path).is_none() => continue,
                    true => {}
                    false => drop(server.insert(path.clone(), record_znode(&config, version, zxid, zxid))),
                }
                tree.note(&path, gone);
            }
            answers.extend(reads.get(at).map(|read| (read.path.clone(), server.get(&read.path).cloned())));
        }
        for (path, found) in answers {
            tree.take(&path, found);
        }
        if !tree.is_dirty() {
            clean += 1;
            let keys = server.keys().filter(|path| matches!(znodes::place(path), znodes::Place::Node(_))).count();
            assert_eq!(tree.snapshot().nodes.len(), keys);
            assert!(server.iter().all(|(path, znode)| tree.znode(path) == Some(znode)));
        }
    }
    assert!(clean > 100, "{clean} times");
}
