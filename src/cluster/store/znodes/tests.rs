use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::*;
use crate::cluster::directory_id::DirectoryId;
use crate::cluster::image::EndpointImage;
use crate::cluster::quotas::QuotaEntity;
use crate::cluster::store::conformance::Die;
use crate::cluster::store::records::{
    Assignment, BrokerRecord, Incarnation, Key, OfflineReplicas, PartitionState, Phase, Record, TopicRecord,
};
use crate::model::{BrokerId, LeaderEpoch};

/// Znodes that two brokers of Apache Kafka 3.9.1 wrote through ZooKeeper 3.9.3.
mod kafka {
    pub const CLUSTER_ID: &str = r#"{"version":"1","id":"2tdXmk6vS1aMwnLo2_v_Mg"}"#;
    pub const PRODUCER_IDS: &str = r#"{"version":1,"broker":1,"block_start":"1000","block_end":"1999"}"#;
    pub const BROKER_1: &str = r#"{"features":{},"listener_security_protocol_map":{"PLAINTEXT":"PLAINTEXT","INTERNAL":"PLAINTEXT"},"endpoints":["PLAINTEXT://127.0.0.1:29091","INTERNAL://127.0.0.1:29191"],"rack":"rack-a","jmx_port":-1,"port":29091,"host":"127.0.0.1","version":5,"timestamp":"1795884756748"}"#;
    pub const BROKER_2: &str = r#"{"features":{},"listener_security_protocol_map":{"PLAINTEXT":"PLAINTEXT","INTERNAL":"PLAINTEXT"},"endpoints":["PLAINTEXT://127.0.0.1:29092","INTERNAL://127.0.0.1:29192"],"jmx_port":-1,"port":29092,"host":"127.0.0.1","version":5,"timestamp":"1795884756978"}"#;
    pub const TOPIC: &str = r#"{"partitions":{"0":[2],"1":[2,1],"2":[2,1]},"topic_id":"okVbsouLRuulD7fkNHyOeA","adding_replicas":{},"removing_replicas":{},"version":3}"#;
    pub const TOPIC_REASSIGNED: &str = r#"{"partitions":{"0":[1,2],"1":[2,1],"2":[2,1]},"topic_id":"okVbsouLRuulD7fkNHyOeA","adding_replicas":{"0":[1]},"removing_replicas":{"0":[2]},"version":3}"#;
    pub const STATE: &str = r#"{"controller_epoch":2,"leader":2,"version":1,"leader_epoch":3,"isr":[2]}"#;
    pub const STATE_WITHOUT_LEADER: &str =
        r#"{"controller_epoch":2,"leader":-1,"version":1,"leader_epoch":4,"isr":[2]}"#;
    pub const CONTROLLER: &str = r#"{"version":2,"brokerid":1,"timestamp":"1795884757229","kraftControllerEpoch":-1}"#;
    pub const CONTROLLER_EPOCH: &str = "2";
    pub const TOPIC_CONFIG: &str =
        r#"{"version":1,"config":{"cleanup.policy":"compact,delete","retention.ms":"60000"}}"#;
    pub const BROKER_CONFIG: &str = r#"{"version":1,"config":{"log.cleaner.threads":"2"}}"#;
    pub const DEFAULT_CONFIG: &str = r#"{"version":1,"config":{"log.retention.ms":"1234567"}}"#;
}

fn ids(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

fn writer(now_ms: i64) -> Writer {
    Writer { broker: BrokerId(1), now_ms }
}

fn endpoint(listener: &str, host: &str, port: u16) -> EndpointImage {
    EndpointImage { listener: listener.into(), host: host.into(), port }
}

fn registration(first: u16, rack: Option<&str>) -> Record {
    let endpoints = vec![endpoint("PLAINTEXT", "127.0.0.1", first), endpoint("INTERNAL", "127.0.0.1", first + 100)];
    Record::Broker(BrokerRecord::new(endpoints, rack.map(str::to_owned)))
}

fn assignment(replicas: &[i32], adding: &[i32], removing: &[i32]) -> Assignment {
    Assignment { replicas: ids(replicas), adding: ids(adding), removing: ids(removing) }
}

fn topic_of(first: Assignment) -> Record {
    let others = assignment(&[2, 1], &[], &[]);
    let id = Uuid::from_u128(0xa245_5bb2_8b8b_46eb_a50f_b7e4_347c_8e78);
    Record::Topic(TopicRecord { id, assignments: vec![first, others.clone(), others] })
}

fn state(leader: Option<i32>, epoch: i32) -> PartitionState {
    PartitionState {
        leader: leader.map(BrokerId),
        leader_epoch: LeaderEpoch(epoch),
        controller_epoch: 2,
        isr: ids(&[2]),
        elr: vec![],
        elr_min: 0,
        last_leader: None,
        emptied: Vec::new(),
        leader_broker_epoch: None,
    }
}

fn config(entries: &[(&str, &str)]) -> Record {
    Record::Config(entries.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect())
}

/// Bytes that Kafka wrote, their path, and their meaning.
fn written_by_kafka() -> Vec<(&'static str, &'static str, Record)> {
    let orders = "/brokers/topics/orders";
    let partition = "/brokers/topics/orders/partitions/0/state";
    vec![
        ("/cluster/id", kafka::CLUSTER_ID, Record::ClusterId("2tdXmk6vS1aMwnLo2_v_Mg".into())),
        ("/latest_producer_id_block", kafka::PRODUCER_IDS, Record::ProducerIds(2000)),
        ("/brokers/ids/1", kafka::BROKER_1, registration(29091, Some("rack-a"))),
        ("/brokers/ids/2", kafka::BROKER_2, registration(29092, None)),
        (orders, kafka::TOPIC, topic_of(assignment(&[2], &[], &[]))),
        (orders, kafka::TOPIC_REASSIGNED, topic_of(assignment(&[1, 2], &[1], &[2]))),
        (partition, kafka::STATE, Record::Partition(state(Some(2), 3))),
        (partition, kafka::STATE_WITHOUT_LEADER, Record::Partition(state(None, 4))),
        ("/controller", kafka::CONTROLLER, Record::Controller(BrokerId(1))),
        ("/controller_epoch", kafka::CONTROLLER_EPOCH, Record::ControllerEpoch(2)),
        (
            "/config/topics/orders",
            kafka::TOPIC_CONFIG,
            config(&[("cleanup.policy", "compact,delete"), ("retention.ms", "60000")]),
        ),
        ("/config/brokers/1", kafka::BROKER_CONFIG, config(&[("log.cleaner.threads", "2")])),
        ("/config/brokers/<default>", kafka::DEFAULT_CONFIG, config(&[("log.retention.ms", "1234567")])),
        ("/admin/delete_topics/orders", "", Record::Deletion),
    ]
}

fn key_at(path: &str) -> Key {
    match place(path) {
        Place::Node(key) => key,
        other => unreachable!("{path} is {other:?}"),
    }
}

#[test]
fn znodes_of_kafka_are_read() {
    for (at, bytes, record) in written_by_kafka() {
        let key = key_at(at);
        assert!(record.fits(&key));
        assert_eq!(path(&key).as_deref(), Some(at));
        assert_eq!(decode(&key, bytes.as_bytes()), Ok(record), "{at}");
    }
}

#[test]
fn any_group_but_the_default_has_a_path() {
    for (name, at) in [("g", "/config/groups/g"), ("a group/of ours", "/config/groups/a%20group%2Fof%20ours")] {
        let key = Key::Group(name.into());
        assert_eq!(path(&key).as_deref(), Some(at));
        assert_eq!(place(at), Place::Node(key));
    }
    assert_eq!(place("/config/groups/<default>"), Place::Foreign);
    assert_eq!(place("/config/groups"), Place::Structure);
}

#[test]
fn records_are_written_as_kafka_writes_them() {
    for (at, bytes, record) in written_by_kafka() {
        let now_ms = match at {
            "/brokers/ids/1" => 1_795_884_756_748,
            "/brokers/ids/2" => 1_795_884_756_978,
            _ => 1_795_884_757_229,
        };
        // The block before this one.
        let previous = (at == "/latest_producer_id_block").then_some(&br#"{"version":1,"block_end":"999"}"#[..]);
        let written = encode(&record, writer(now_ms), previous).expect("it can be kept");
        assert_eq!(String::from_utf8(written).as_deref(), Ok(bytes), "{at}");
    }
}

#[test]
fn what_only_corelane_has_is_beside_what_kafka_has() {
    let mut record = state(None, 7);
    record.isr = vec![];
    record.elr = ids(&[3, 1]);
    record.elr_min = 2;
    record.last_leader = Some(BrokerId(3));
    record.emptied = ids(&[2]);
    record.leader_broker_epoch = Some(1 << 33);
    let written = encode(&Record::Partition(record.clone()), writer(0), None).expect("it can be kept");
    let text = r#"{"controller_epoch":2,"leader":-1,"version":1,"leader_epoch":7,"isr":[],"elr":[3,1],"elr_min":2,"last_leader":3,"emptied":[2],"leader_broker_epoch":8589934592}"#;
    assert_eq!(String::from_utf8(written).as_deref(), Ok(text));
    let key = key_at("/brokers/topics/a/partitions/11/state");
    assert_eq!(decode(&key, text.as_bytes()), Ok(Record::Partition(record)));
    // They go when they are not so any more.
    let clear = encode(&Record::Partition(state(Some(2), 3)), writer(0), Some(text.as_bytes()));
    assert_eq!(clear.as_deref(), Ok(kafka::STATE.as_bytes()));
}

#[test]
fn unknown_fields_stay_and_mean_nothing() {
    for (at, bytes, record) in written_by_kafka() {
        let Some(inner) = bytes.strip_suffix('}') else { continue };
        let more = format!(r#"{inner},"of_later":{{"deep":[1,"x",null]}}}}"#);
        let key = key_at(at);
        assert_eq!(decode(&key, more.as_bytes()).as_ref(), Ok(&record), "{at}");
        let again = encode(&record, writer(5), Some(more.as_bytes())).expect("it can be kept");
        let again = String::from_utf8(again).expect("text");
        assert!(again.ends_with(r#","of_later":{"deep":[1,"x",null]}}"#), "{again}");
        assert_eq!(again.matches("of_later").count(), 1, "{again}");
        assert_eq!(again.matches("\"version\"").count(), 1, "{again}");
        assert_eq!(decode(&key, again.as_bytes()), Ok(record), "{at}");
    }
    let secure = kafka::BROKER_1.replace(r#""INTERNAL":"PLAINTEXT""#, r#""INTERNAL":"SSL""#).replace("-1", "9999");
    let again = encode(&registration(29091, Some("rack-a")), writer(1_795_884_756_748), Some(secure.as_bytes()));
    assert_eq!(again.as_deref(), Ok(secure.as_bytes()), "protocols and JMX port");
}

#[test]
fn newer_versions_are_refused_by_name() {
    for (at, bytes, _) in written_by_kafka() {
        let key = key_at(at);
        let Some(rest) = bytes.split_once("\"version\":") else { continue };
        let number = rest.1.trim_start_matches('"').split(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
        let newer: i64 = number.parse::<i64>().expect("a version") + 1;
        let text = bytes.replacen(&format!("\"version\":{number}"), &format!("\"version\":{newer}"), 1);
        let text = text.replacen(&format!("\"version\":\"{number}\""), &format!("\"version\":\"{newer}\""), 1);
        let error = decode(&key, text.as_bytes()).expect_err("it is newer");
        assert_eq!(error, ZnodeError::Newer { path: at.into(), found: newer, known: newer - 1 });
        assert!(error.to_string().contains(at), "{error}");
    }
}

#[test]
fn damage_names_its_znode() {
    for (at, bytes, _) in written_by_kafka() {
        if bytes.is_empty() {
            continue;
        }
        for broken in [&bytes[..bytes.len() - 1], "[]", "{}", "null", "\u{7f}"] {
            if at == "/controller_epoch" && broken.is_empty() {
                continue;
            }
            let error = decode(&key_at(at), broken.as_bytes()).expect_err(broken);
            assert!(matches!(&error, ZnodeError::Damaged { path, .. } if path == at), "{error:?}");
            assert!(error.to_string().contains(at), "{error}");
        }
    }
    let damaged = |at: &str, text: &str| match decode(&key_at(at), text.as_bytes()) {
        Err(ZnodeError::Damaged { why, .. }) => why,
        other => unreachable!("{text} is {other:?}"),
    };
    let topic = "/brokers/topics/orders";
    assert!(damaged(topic, &kafka::TOPIC.replace("\"1\":[2,1],", "")).contains("lacks number 1"));
    assert!(damaged(topic, &kafka::TOPIC.replace("\"1\":[2,1]", "\"1\":[2,2]")).contains("twice"));
    assert!(damaged(topic, &kafka::TOPIC.replace("topic_id", "name")).contains("2.8"));
    let partition = "/brokers/topics/orders/partitions/0/state";
    assert!(damaged(partition, &kafka::STATE.replace("\"leader\":2", "\"leader\":-3")).contains("-3"));
    assert!(damaged(partition, &kafka::STATE.replace("[2]", "[-2]")).contains("negative"));
    assert!(
        damaged(partition, &kafka::STATE.replace("\"leader_epoch\":", "\"leader_epoch\":-")).contains("leader_epoch")
    );
    assert!(damaged("/brokers/ids/1", &kafka::BROKER_1.replace(":29191\"", "\"")).contains("INTERNAL"));
}

#[test]
fn empty_znodes_of_kafka_have_a_meaning() {
    assert_eq!(decode(&Key::ProducerIds, b""), Ok(Record::ProducerIds(0)));
    assert_eq!(decode(&Key::DefaultConfig, b""), Ok(Record::Config(BTreeMap::new())));
    let deleted = kafka::STATE.replace("\"leader\":2", "\"leader\":-2");
    let record = decode(&key_at("/brokers/topics/a/partitions/0/state"), deleted.as_bytes());
    assert_eq!(record, Ok(Record::Partition(state(None, 3))), "while a topic is deleted");
}

#[test]
fn paths_are_places() {
    for path in CONTAINERS {
        assert_eq!(place(path), Place::Structure, "{path}");
    }
    for path in ["/brokers/topics/a/partitions", "/brokers/topics/a/partitions/0", "/config/users/a/clients"] {
        assert_eq!(place(path), Place::Structure);
    }
    let foreign = [
        "",
        "/",
        "controller",
        "/brokers/seqid",
        "/brokers/ids/01",
        "/brokers/ids/-1",
        "/brokers/ids/+1",
        "/brokers/ids/2147483648",
        "/brokers/ids/1/x",
        "/brokers/topics/a b",
        "/brokers/topics/..",
        "/brokers/topics/",
        "/brokers/topics/a/partitions/x",
        "/brokers/topics/a/partitions/0/other",
        "/config/users/a/groups",
        "/config/users/a/clients/b/c",
        "/config/users/..",
        "/config/users/a b",
        "/config/users/a%",
        "/config/users/%c3%bc",
        "/config/users/%FF",
        "/config/users/%41",
        "/config/clients/",
        "/config/changes/config_change_0000000000",
        "/corelane/format",
        "/consumers",
    ];
    for path in foreign {
        assert_eq!(place(path), Place::Foreign, "{path}");
    }
    let nowhere = [
        Key::Topic("a/b".into()),
        Key::Topic("".into()),
        Key::Topic("..".into()),
        Key::Topic("x".repeat(250).into()),
        Key::Partition("a".into(), -1),
        Key::Broker(BrokerId(-1)),
        Key::Home("a".into(), 0),
        Key::Quota(QuotaEntity::User(Some("..".into()))),
        Key::Quota(QuotaEntity::Client(Some("".into()))),
    ];
    for key in nowhere {
        assert_eq!(path(&key), None, "{key:?}");
    }
}

#[test]
fn names_of_entities_are_written_as_kafka_does() {
    let name = |text: &str| Some(text.into());
    for (entity, wanted) in [
        (QuotaEntity::User(None), "/config/users/<default>"),
        (QuotaEntity::User(name("<default>")), "/config/users/%3Cdefault%3E"),
        (QuotaEntity::User(name("CN=a b,O=*")), "/config/users/CN%3Da%20b%2CO%3D%2A"),
        (QuotaEntity::UserClient(name("\u{fc}"), None), "/config/users/%C3%BC/clients/<default>"),
        (QuotaEntity::UserClient(None, name("x.y-z_0")), "/config/users/<default>/clients/x.y-z_0"),
        (QuotaEntity::Client(name("a/b")), "/config/clients/a%2Fb"),
        (QuotaEntity::Ip(name("::1")), "/config/ips/%3A%3A1"),
    ] {
        let key = Key::Quota(entity);
        assert_eq!(path(&key).as_deref(), Some(wanted));
        assert_eq!(place(wanted), Place::Node(key));
    }
}

#[test]
fn a_format_for_newer_readers_is_refused() {
    assert_eq!(Format::decode(&Format::CURRENT.encode()), Ok(Format::CURRENT));
    assert_eq!(Format::CURRENT.encode(), br#"{"version":1,"oldest_reader":1}"#);
    let newer = Format { version: 9, oldest_reader: 1 };
    assert_eq!(Format::decode(&newer.encode()), Ok(newer), "a newer one that this version may read");
    let error = Format::decode(br#"{"version":9,"oldest_reader":2}"#).expect_err("for others");
    assert!(error.to_string().contains("/corelane/format is of version 2"), "{error}");
    assert!(Format::decode(br#"{"version":1,"oldest_reader":0}"#).is_err());
    assert!(Format::decode(b"").is_err());
}

/// Some text, with what JSON and addresses have to guard.
fn text(die: &mut Die) -> String {
    let letters = ["a", "Z", "9", ".", "_", "-", " ", "\"", "\\", "{", "\u{e9}", "\n", "/", ":"];
    (0..die.below(9)).map(|_| letters[die.below(letters.len())]).collect()
}

fn some_offline(die: &mut Die) -> OfflineReplicas {
    let topics = ["a", "b.c"][..die.below(3)].iter();
    topics.map(|name| (Arc::from(*name), (0..=die.below(3)).map(|_| die.below(2000) as i32).collect())).collect()
}

fn some_ids(die: &mut Die) -> Vec<BrokerId> {
    let set: BTreeSet<i32> = (0..die.below(5)).map(|_| die.below(2000) as i32).collect();
    let mut ids: Vec<i32> = set.into_iter().collect();
    if die.below(2) == 0 {
        ids.reverse();
    }
    ids.into_iter().map(BrokerId).collect()
}

fn some_broker(die: &mut Die) -> BrokerId {
    BrokerId(die.below(1 << 31) as i32)
}

fn some_node(die: &mut Die) -> (Key, Record) {
    let topic: Arc<str> = ["a", "orders", "__consumer_offsets", "x.y-z_0"][die.below(4)].into();
    let config = |die: &mut Die| (0..die.below(4)).map(|_| (text(die), text(die))).collect();
    let uuid = |die: &mut Die| Uuid::from_u128(u128::from(die.0) << 64 | die.below(usize::MAX) as u128);
    match die.below(12) {
        0 => (Key::ClusterId, Record::ClusterId(text(die))),
        1 => (Key::ProducerIds, Record::ProducerIds(die.below(1 << 62) as i64)),
        2 => (Key::Controller, Record::Controller(some_broker(die))),
        3 => (Key::ControllerEpoch, Record::ControllerEpoch(die.below(1 << 31) as i32)),
        4 => {
            let hosts = ["", "host", "::1", "10.0.0.1", "a-b.example"];
            let listeners = ["PLAINTEXT", "INTERNAL", "A_B"];
            let endpoints = listeners[..die.below(4)].iter();
            let endpoints = endpoints.map(|name| endpoint(name, hosts[die.below(5)], die.below(65_536) as u16));
            let record = BrokerRecord {
                endpoints: endpoints.collect(),
                rack: None,
                short_of_room: die.below(2) == 0,
                cordoned: die.below(2) == 0,
                offline: Arc::new(some_offline(die)),
            };
            let rack = (die.below(2) == 0).then(|| text(die));
            (Key::Broker(some_broker(die)), Record::Broker(BrokerRecord { rack, ..record }))
        }
        5 => {
            let phase = [Phase::Joining, Phase::Active, Phase::Draining][die.below(3)];
            let directories = (0..die.below(4)).map(|_| DirectoryId(uuid(die)));
            let directories = directories.filter(|id| id.0.as_u128() >= 100).collect();
            let record = Incarnation { phase, trusted: die.below(2) == 0, boot: uuid(die), directories };
            (Key::Incarnation(some_broker(die)), Record::Incarnation(record))
        }
        6 => {
            let one =
                |die: &mut Die| Assignment { replicas: some_ids(die), adding: some_ids(die), removing: some_ids(die) };
            let assignments = (0..die.below(13)).map(|_| one(die)).collect();
            (Key::Topic(topic), Record::Topic(TopicRecord { id: uuid(die), assignments }))
        }
        7 => {
            let record = PartitionState {
                leader: (die.below(2) == 0).then(|| some_broker(die)),
                leader_epoch: LeaderEpoch(die.below(1 << 31) as i32),
                controller_epoch: die.below(1 << 31) as i32,
                isr: some_ids(die),
                elr: some_ids(die),
                elr_min: die.below(4) as i32,
                last_leader: (die.below(2) == 0).then(|| some_broker(die)),
                emptied: some_ids(die),
                leader_broker_epoch: (die.below(2) == 0).then(|| die.below(1 << 40) as i64),
            };
            (Key::Partition(topic, die.below(10_000) as i32), Record::Partition(record))
        }
        8 => (Key::TopicConfig(topic), Record::Config(config(die))),
        9 => {
            let name = |die: &mut Die| Some(text(die)).filter(|text| !["", ".", ".."].contains(&text.as_str()));
            let (one, other) = (name(die).map(Into::into), name(die).map(Into::into));
            let entity = match die.below(4) {
                0 => QuotaEntity::User(one),
                1 => QuotaEntity::Client(one),
                2 => QuotaEntity::Ip(one),
                _ => QuotaEntity::UserClient(one, other),
            };
            (Key::Quota(entity), Record::Config(config(die)))
        }
        10 => (Key::DefaultConfig, Record::Config(config(die))),
        _ => (Key::Deletion(topic), Record::Deletion),
    }
}

#[test]
fn what_is_written_is_read_back() {
    let mut die = Die(13);
    let mut before: BTreeMap<Key, Vec<u8>> = BTreeMap::new();
    for round in 0..20_000 {
        let (key, record) = some_node(&mut die);
        assert_eq!(place(&path(&key).expect("a path")), Place::Node(key.clone()));
        let previous = before.get(&key).filter(|_| die.below(2) == 0);
        let bytes = encode(&record, writer(round), previous.map(Vec::as_slice)).expect("it can be kept");
        assert_eq!(decode(&key, &bytes), Ok(record), "{}", String::from_utf8_lossy(&bytes));
        before.insert(key, bytes);
    }
}

#[test]
fn no_bytes_are_too_odd_to_be_refused() {
    let mut die = Die(14);
    let mut refused = 0;
    for _ in 0..40_000 {
        let (key, record) = some_node(&mut die);
        let mut bytes = encode(&record, writer(1), None).expect("it can be kept");
        for _ in 0..1 + die.below(4) {
            let at = die.below(bytes.len().max(1));
            match die.below(4) {
                0 if !bytes.is_empty() => bytes[at] = die.below(256) as u8,
                1 if !bytes.is_empty() => drop(bytes.remove(at)),
                2 => bytes.truncate(at),
                _ => bytes.splice(at..at, [b'9'; 12]).for_each(drop),
            }
        }
        // Any end but a panic.
        refused += usize::from(decode(&key, &bytes).is_err());
        drop(encode(&record, writer(1), Some(&bytes)));
        drop(Format::decode(&bytes));
        drop(place(&String::from_utf8_lossy(&bytes)));
    }
    assert!(refused > 10_000, "{refused} of 40,000");
}
