use std::fs;
use std::path::Path;

use super::*;
use crate::cluster::PartitionHome;
use crate::cluster::directory_id::DirectoryId;
use crate::cluster::store::commit::Lifetime;
use crate::cluster::store::conformance::{self, Bench, partition_key, partition_state, topic_key, whole_topic};
use crate::cluster::store::conformance::{no_topic, topic_record};
use crate::cluster::store::records::Assignment;
use crate::config::ServerConfig;
use crate::model::{BrokerId, LeaderEpoch};
use crate::runtime::faults;

const THIS: i32 = 1;

fn config() -> ServerConfig {
    ServerConfig { broker_id: THIS, ..ServerConfig::default() }
}

fn image(dir: &Path) -> MetadataImage {
    LocalStore::open(dir).unwrap().load(&config()).unwrap().image
}

fn engine(dir: &Path) -> LocalEngine {
    LocalEngine::new(LocalStore::open(dir).unwrap(), &image(dir), TopicConfig::default(), 1)
}

struct Alone {
    dir: tempfile::TempDir,
    taken: bool,
}

impl Bench for Alone {
    type Client = LocalEngine;

    fn client(&mut self) -> Option<LocalEngine> {
        (!std::mem::replace(&mut self.taken, true)).then(|| engine(self.dir.path()))
    }

    fn settle(&mut self) {}
}

#[test]
fn the_engine_passes_the_suite() {
    conformance::all(|| Alone { dir: tempfile::tempdir().unwrap(), taken: false });
}

fn events(engine: &mut LocalEngine) -> Vec<Event> {
    std::iter::from_fn(|| engine.poll()).collect()
}

fn outcomes(engine: &mut LocalEngine, commits: impl IntoIterator<Item = Vec<Write>>) -> Vec<Outcome> {
    for writes in commits {
        engine.commit(Commit { checks: vec![], writes });
    }
    let settled = events(engine).into_iter().filter_map(|event| match event {
        Event::Settled { outcome, .. } => Some(outcome),
        _ => None,
    });
    settled.collect()
}

fn commit(engine: &mut LocalEngine, writes: Vec<Write>) -> Outcome {
    outcomes(engine, [writes]).pop().unwrap()
}

fn failure(engine: &mut LocalEngine, writes: Vec<Write>) -> String {
    let before = engine.nodes.all().clone();
    let outcome = commit(engine, writes);
    assert_eq!(*engine.nodes.all(), before);
    let Outcome::Failed(why) = outcome else { unreachable!("{outcome:?}") };
    why
}

fn create(key: Key, record: Record) -> Write {
    Write::Create(key, record, Lifetime::Persistent)
}

/// The writes that take topic `name` from one number of partitions to another;
/// `version` is its record's.
fn resized(name: &str, id: u128, (before, after): (i32, i32), version: i32) -> Vec<Write> {
    let topic = Write::Set(topic_key(name), topic_record(id, after as usize), version);
    let more = (before..after).map(|index| create(partition_key(name, index), partition_state(0)));
    let less = (after..before).map(|index| Write::Delete(partition_key(name, index), None));
    std::iter::once(topic).chain(more).chain(less).collect()
}

#[test]
fn a_topic_is_in_its_file_when_its_commit_is_done() {
    let dir = tempfile::tempdir().unwrap();
    let mut first = engine(dir.path());
    let home = PartitionHome { directory: DirectoryId::random(), since_run: 3 };
    let options = BTreeMap::from([("retention.ms".to_owned(), "77".to_owned())]);
    let mut writes = whole_topic("a", 1, 2);
    writes.push(create(Key::Home("a".into(), 1), Record::Home(home)));
    writes.push(create(Key::TopicConfig("a".into()), Record::Config(options.clone())));
    assert_eq!(commit(&mut first, writes), Outcome::Done);
    let stored = image(dir.path());
    let topic = stored.topic("a").unwrap();
    assert_eq!((topic.id, &topic.overrides, topic.partitions.len()), (Uuid::from_u128(1), &options, 2));
    assert_eq!((topic.partitions[0].home, topic.partitions[1].home), (None, Some(home)));
    let changed = vec![
        Write::Set(partition_key("a", 1), partition_state(5), 0),
        Write::Delete(Key::TopicConfig("a".into()), Some(0)),
    ];
    assert_eq!(commit(&mut first, changed), Outcome::Done);
    let topic = image(dir.path()).topic("a").cloned().unwrap();
    assert_eq!((topic.overrides.len(), topic.partitions[1].leader_epoch), (0, LeaderEpoch(5)));
    // The next run goes on with the same nodes, in later revisions.
    let second = LocalEngine::new(LocalStore::open(dir.path()).unwrap(), &image(dir.path()), TopicConfig::default(), 2);
    let records = |engine: &LocalEngine| {
        engine.nodes.all().iter().map(|(key, node)| (key.clone(), node.record.clone())).collect::<Vec<_>>()
    };
    assert_eq!(records(&second), records(&first));
    let newest = first.nodes.all().values().map(|node| node.created).max().unwrap();
    assert!(second.nodes.all().values().all(|node| node.created > newest && node.version == 0));
    // A deleted topic leaves its record, by which a start knows its directories.
    let mut writes = no_topic("a", 2);
    writes.insert(0, Write::Delete(Key::Home("a".into(), 1), None));
    assert_eq!(commit(&mut first, writes), Outcome::Done);
    let stored = LocalStore::open(dir.path()).unwrap().load(&config()).unwrap();
    assert!(stored.image.topic("a").is_none());
    assert_eq!(stored.deleted.iter().map(|topic| topic.id).collect::<Vec<_>>(), [Uuid::from_u128(1)]);
}

#[test]
fn what_fails_on_the_disk_changes_nothing_and_holds_up_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = engine(dir.path());
    events(&mut engine);
    let topics = dir.path().join("corelane-metadata/topics");
    fs::create_dir_all(topics.join("t7.json/x")).unwrap();
    let made = (0..40u128).map(|n| whole_topic(&format!("t{n}"), n, 2));
    let mut made = outcomes(&mut engine, made);
    assert!(matches!(made.remove(7), Outcome::Failed(why) if why.contains("t7.json")));
    assert!(made.iter().all(|outcome| *outcome == Outcome::Done), "{made:?}");
    assert!(!engine.nodes.all().contains_key(&topic_key("t7")));
    fs::remove_dir_all(topics.join("t7.json")).unwrap();
    assert_eq!(image(dir.path()).topics().count(), 39);
    assert_eq!(commit(&mut engine, whole_topic("t7", 7, 1)), Outcome::Done);
    faults::inject(faults::Op::Small, "t8.json", 0, faults::Fault::Os(28));
    let why = failure(&mut engine, vec![Write::Set(partition_key("t8", 0), partition_state(1), 0)]);
    faults::clear();
    assert!(why.contains("t8") || why.contains(&Uuid::from_u128(8).to_string()), "{why}");
    let state = vec![Write::Set(partition_key("t8", 0), partition_state(2), 0)];
    assert_eq!(commit(&mut engine, state), Outcome::Done);
}

#[test]
fn a_topic_that_grew_is_taken_back_without_room() {
    let dir = tempfile::tempdir().unwrap();
    let mut engine = engine(dir.path());
    assert_eq!(outcomes(&mut engine, [whole_topic("a", 1, 1), whole_topic("b", 2, 2)]), [Outcome::Done, Outcome::Done]);
    let grown = [resized("a", 1, (1, 5), 0), resized("b", 2, (2, 6), 0)];
    assert_eq!(outcomes(&mut engine, grown), [Outcome::Done, Outcome::Done]);
    let partitions = || image(dir.path()).topics().map(|topic| topic.partitions.len()).collect::<Vec<_>>();
    faults::inject(faults::Op::Small, "", 0, faults::Fault::Os(28));
    let back = commit(&mut engine, resized("a", 1, (5, 1), 1));
    let without = commit(&mut engine, resized("b", 2, (6, 2), 1));
    faults::clear();
    assert_eq!(back, Outcome::Done);
    assert!(matches!(without, Outcome::Failed(_)), "only the next change of topics: {without:?}");
    assert_eq!(partitions(), [1, 6]);
    let left = fs::read_dir(dir.path().join("corelane-metadata/topics")).unwrap().count();
    assert_eq!(left, 2, "nothing of it stays");
}

#[test]
fn what_the_files_have_no_place_for_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("corelane-metadata/topics")).unwrap();
    fs::write(dir.path().join("corelane-metadata/topics/damaged.json"), "x").unwrap();
    let mut engine = engine(dir.path());
    events(&mut engine);
    assert_eq!(commit(&mut engine, whole_topic("a", 1, 2)), Outcome::Done);
    let mut refused = |writes: Vec<Write>, word: &str| {
        let why = failure(&mut engine, writes);
        assert!(why.contains(word), "{why}");
    };
    refused([whole_topic("b", 2, 1), whole_topic("c", 3, 1)].concat(), "at a time");
    refused(whole_topic("damaged", 2, 1), "damaged.json");
    refused(whole_topic("../b", 2, 1), "Topic name is invalid");
    refused(vec![create(topic_key("b"), topic_record(2, 0))], "no partitions");
    refused(vec![create(topic_key("b"), topic_record(2, 1))], "has no state");
    refused(vec![create(partition_key("a", 2), partition_state(0))], "belongs to no partition");
    refused(vec![Write::Delete(partition_key("a", 1), None)], "has no state");
    refused(vec![create(Key::TopicConfig("b".into()), Record::Config(BTreeMap::new()))], "belongs to no partition");
    let bad = BTreeMap::from([("retention.ms".to_owned(), "soon".to_owned())]);
    refused(vec![create(Key::TopicConfig("a".into()), Record::Config(bad))], "retention.ms");
    refused([no_topic("a", 2), whole_topic("a", 2, 2)].concat(), "made anew");
    refused(vec![create(Key::Deletion("a".into()), Record::Deletion)], "Deletion");
    refused(vec![Write::Create(topic_key("b"), topic_record(2, 1), Lifetime::Ephemeral)], "outlives");
    let Record::Partition(mut state) = partition_state(1) else { unreachable!() };
    state.elr = vec![BrokerId(2)];
    refused(vec![Write::Set(partition_key("a", 0), Record::Partition(state), 0)], "ELR");
    let Record::Topic(mut topic) = topic_record(1, 2) else { unreachable!() };
    topic.assignments[0] = Assignment { adding: vec![BrokerId(2)], ..topic.assignments[0].clone() };
    refused(vec![Write::Set(topic_key("a"), Record::Topic(topic), 0)], "reassignment");
    assert_eq!(image(dir.path()).topics().count(), 1);
}

#[test]
fn options_of_brokers_last() {
    let dir = tempfile::tempdir().unwrap();
    let options = |value: &str| BTreeMap::from([("log.retention.ms".to_owned(), value.to_owned())]);
    let own = || Key::BrokerConfig(BrokerId(THIS));
    let dynamic = || image(dir.path()).settings.map(|settings| settings.dynamic.clone()).unwrap_or_default();
    let mut first = engine(dir.path());
    assert!(dynamic().is_empty());
    assert_eq!(commit(&mut first, vec![create(Key::DefaultConfig, Record::Config(options("5")))]), Outcome::Done);
    assert_eq!(commit(&mut first, vec![create(own(), Record::Config(options("6")))]), Outcome::Done);
    assert_eq!((dynamic().cluster, dynamic().broker), (options("5"), options("6")));
    let mut second = engine(dir.path());
    events(&mut second);
    assert_eq!(commit(&mut second, vec![Write::Set(own(), Record::Config(options("7")), 0)]), Outcome::Done);
    assert_eq!(commit(&mut second, vec![Write::Delete(Key::DefaultConfig, Some(0))]), Outcome::Done);
    assert_eq!((dynamic().cluster, dynamic().broker), (BTreeMap::new(), options("7")));
    // Damage must not delete records that they keep.
    let file = dir.path().join("corelane-metadata/broker-options.json");
    fs::write(&file, "{}").unwrap();
    let why = LocalStore::open(dir.path()).unwrap().load(&config()).unwrap_err().to_string();
    assert!(why.contains("broker-options.json") && why.contains("move it away"), "{why}");
}

#[test]
fn quotas_last() {
    let dir = tempfile::tempdir().unwrap();
    let options = |value: &str| BTreeMap::from([("producer_byte_rate".to_owned(), value.to_owned())]);
    let (user, client) = (QuotaEntity::User(Some("a/b".into())), QuotaEntity::UserClient(None, Some("c".into())));
    let key = |entity: &QuotaEntity| Key::Quota(entity.clone());
    let rate =
        |entity: &QuotaEntity| image(dir.path()).quotas.of(entity).and_then(|values| values.values().next().copied());
    let mut first = engine(dir.path());
    // In one commit, as one request comes.
    let both =
        vec![create(key(&user), Record::Config(options("5"))), create(key(&client), Record::Config(options("6")))];
    assert_eq!(commit(&mut first, both), Outcome::Done);
    assert_eq!((rate(&user), rate(&client)), (Some(5.0), Some(6.0)));
    let mut second = engine(dir.path());
    events(&mut second);
    let change = vec![
        Write::Set(key(&user), Record::Config(options("7")), 0),
        Write::Set(key(&client), Record::Config(BTreeMap::new()), 0),
    ];
    assert_eq!(commit(&mut second, change), Outcome::Done);
    assert_eq!((rate(&user), rate(&client)), (Some(7.0), None));
    assert_eq!(image(dir.path()).quotas.len(), 1);
    let beside = vec![Write::Delete(key(&user), None), create(Key::DefaultConfig, Record::Config(BTreeMap::new()))];
    assert!(failure(&mut second, beside).contains("at a time"));
    // Damage must not free clients.
    let file = dir.path().join("corelane-metadata/client-quotas.json");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replace("a/b", "x/y")).unwrap();
    let why = LocalStore::open(dir.path()).unwrap().load(&config()).unwrap_err().to_string();
    assert!(why.contains("client-quotas.json") && why.contains("move it away"), "{why}");
}

#[test]
fn producer_ids_go_into_both_copies() {
    let dir = tempfile::tempdir().unwrap();
    LocalStore::open(dir.path()).unwrap().begin_producer_ids().unwrap();
    let mut engine = engine(dir.path());
    assert_eq!(engine.nodes.all().get(&Key::ProducerIds).map(|node| &node.record), Some(&Record::ProducerIds(0)));
    let next = |next: i64, version| vec![Write::Set(Key::ProducerIds, Record::ProducerIds(next), version)];
    assert_eq!(commit(&mut engine, next(1000, 0)), Outcome::Done);
    assert_eq!(commit(&mut engine, next(1000, 0)), Outcome::Conflict(Key::ProducerIds));
    let why = failure(&mut engine, vec![Write::Delete(Key::ProducerIds, None)]);
    assert!(why.contains("for ever"), "{why}");
    for file in ["producer-ids.json", "producer-ids.copy.json"] {
        let path = dir.path().join("corelane-metadata").join(file);
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains("1000"), "{text}");
        fs::write(&path, "x").unwrap();
        assert_eq!(LocalStore::open(dir.path()).unwrap().stored_producer_ids(), (file.len() < 18).then_some(1000));
    }
}
