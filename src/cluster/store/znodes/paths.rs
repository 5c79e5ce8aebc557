//! Paths of the znodes, below the chroot.

use std::sync::Arc;

use crate::cluster::store::records::Key;
use crate::model::BrokerId;

/// Znodes that hold others and nothing else, each behind its parent.
pub const CONTAINERS: &[&str] = &[
    "/cluster",
    "/brokers",
    "/brokers/ids",
    "/brokers/topics",
    "/config",
    "/config/topics",
    "/config/brokers",
    "/admin",
    "/admin/delete_topics",
    "/corelane",
    "/corelane/brokers",
];

/// Keys that exist at most once.
pub const SINGLE_NODES: &[Key] = &[Key::ClusterId, Key::ProducerIds, Key::Controller, Key::ControllerEpoch];

/// Kafka's limit for a topic's name.
const LONGEST_TOPIC: usize = 249;
/// Entity name of the cluster-wide default of broker configs.
const DEFAULT: &str = "<default>";

/// Meaning of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    Node(Key),
    /// Holds nodes of the store below it.
    Structure,
    /// Neither read nor written: Kafka has more than the store keeps.
    Foreign,
}

/// Path of a node; `None`: it cannot be kept in ZooKeeper.
pub fn path(key: &Key) -> Option<String> {
    let path = match key {
        Key::ClusterId => "/cluster/id".to_owned(),
        Key::ProducerIds => "/latest_producer_id_block".to_owned(),
        Key::Controller => "/controller".to_owned(),
        Key::ControllerEpoch => "/controller_epoch".to_owned(),
        Key::Broker(BrokerId(id)) => format!("/brokers/ids/{id}"),
        Key::Incarnation(BrokerId(id)) => format!("/corelane/brokers/{id}"),
        Key::Topic(topic) => format!("/brokers/topics/{topic}"),
        Key::Partition(topic, index) => format!("/brokers/topics/{topic}/partitions/{index}/state"),
        Key::TopicConfig(topic) => format!("/config/topics/{topic}"),
        Key::BrokerConfig(BrokerId(id)) => format!("/config/brokers/{id}"),
        Key::DefaultConfig => format!("/config/brokers/{DEFAULT}"),
        Key::Deletion(topic) => format!("/admin/delete_topics/{topic}"),
        Key::Home(..) => return None,
    };
    // A name that is none of a topic, or a negative number, leads somewhere else.
    (place(&path) == Place::Node(key.clone())).then_some(path)
}

/// Meaning of a path below the chroot.
pub fn place(path: &str) -> Place {
    let Some(inner) = path.strip_prefix('/') else { return Place::Foreign };
    let segments: Vec<&str> = inner.split('/').collect();
    let node = |key: Option<Key>| key.map_or(Place::Foreign, Place::Node);
    match segments.as_slice() {
        ["cluster", "id"] => Place::Node(Key::ClusterId),
        ["latest_producer_id_block"] => Place::Node(Key::ProducerIds),
        ["controller"] => Place::Node(Key::Controller),
        ["controller_epoch"] => Place::Node(Key::ControllerEpoch),
        ["brokers", "ids", id] => node(broker(id).map(Key::Broker)),
        ["corelane", "brokers", id] => node(broker(id).map(Key::Incarnation)),
        ["config", "brokers", DEFAULT] => Place::Node(Key::DefaultConfig),
        ["config", "brokers", id] => node(broker(id).map(Key::BrokerConfig)),
        ["config", "topics", name] => node(topic(name).map(Key::TopicConfig)),
        ["admin", "delete_topics", name] => node(topic(name).map(Key::Deletion)),
        ["brokers", "topics", name] => node(topic(name).map(Key::Topic)),
        ["brokers", "topics", name, "partitions"] if topic(name).is_some() => Place::Structure,
        ["brokers", "topics", name, "partitions", index] if topic(name).is_some() && number(index).is_some() => {
            Place::Structure
        }
        ["brokers", "topics", name, "partitions", index, "state"] => {
            node(topic(name).zip(number(index)).map(|(topic, index)| Key::Partition(topic, index)))
        }
        _ if CONTAINERS.contains(&path) => Place::Structure,
        _ => Place::Foreign,
    }
}

fn broker(segment: &str) -> Option<BrokerId> {
    number(segment).map(BrokerId)
}

/// A number as it is written: without sign and leading zeros.
fn number(segment: &str) -> Option<i32> {
    segment.parse().ok().filter(|number: &i32| *number >= 0 && number.to_string() == segment)
}

fn topic(segment: &str) -> Option<Arc<str>> {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let legal = (1..=LONGEST_TOPIC).contains(&segment.len()) && segment.bytes().all(is_legal);
    (legal && segment != "." && segment != "..").then(|| segment.into())
}
