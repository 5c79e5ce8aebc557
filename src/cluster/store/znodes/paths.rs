//! Paths of the znodes, below the chroot.

use std::sync::Arc;

use crate::cluster::controller::MAX_TOPIC_NAME;
use crate::cluster::quotas::{EntityName, QuotaEntity};
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
    "/config/users",
    "/config/clients",
    "/config/ips",
    "/config/groups",
    "/admin",
    "/admin/delete_topics",
    "/corelane",
    "/corelane/brokers",
];

/// Keys that exist at most once.
pub const SINGLE_NODES: &[Key] = &[Key::ClusterId, Key::ProducerIds, Key::Controller, Key::ControllerEpoch];

/// Entity name of defaults: of broker configs, and of quotas.
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
        Key::Quota(QuotaEntity::User(user)) => format!("/config/users/{}", entity_segment(user)),
        Key::Quota(QuotaEntity::Client(client)) => format!("/config/clients/{}", entity_segment(client)),
        Key::Quota(QuotaEntity::UserClient(user, client)) => {
            format!("/config/users/{}/clients/{}", entity_segment(user), entity_segment(client))
        }
        Key::Quota(QuotaEntity::Ip(ip)) => format!("/config/ips/{}", entity_segment(ip)),
        Key::Group(group) => format!("/config/groups/{}", entity_segment(&Some(group.clone()))),
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
        ["config", "users", user] => node(entity(user).map(|user| Key::Quota(QuotaEntity::User(user)))),
        ["config", "users", user, "clients"] if entity(user).is_some() => Place::Structure,
        ["config", "users", user, "clients", client] => {
            let both = entity(user).zip(entity(client));
            node(both.map(|(user, client)| Key::Quota(QuotaEntity::UserClient(user, client))))
        }
        ["config", "clients", client] => node(entity(client).map(|client| Key::Quota(QuotaEntity::Client(client)))),
        ["config", "ips", ip] => node(entity(ip).map(|ip| Key::Quota(QuotaEntity::Ip(ip)))),
        // Groups have no default.
        ["config", "groups", group] => node(entity(group).flatten().map(Key::Group)),
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

/// Name of an entity as Kafka writes it (`Sanitizer.sanitize`): all but letters, digits and
/// `.-_` in percent-encoding.
fn entity_segment(name: &EntityName) -> String {
    let Some(name) = name else { return DEFAULT.to_owned() };
    let mut segment = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'.' | b'-' | b'_' => segment.push(char::from(byte)),
            other => segment.push_str(&format!("%{other:02X}")),
        }
    }
    segment
}

/// The name that is written as `segment`; `None`: none is.
fn entity(segment: &str) -> Option<EntityName> {
    if segment == DEFAULT {
        return Some(None);
    }
    // ZooKeeper has no such nodes.
    if ["", ".", ".."].contains(&segment) {
        return None;
    }
    let (mut bytes, mut rest) = (Vec::with_capacity(segment.len()), segment.as_bytes());
    while let [first, after @ ..] = rest {
        (bytes, rest) = match (first, after) {
            (b'%', [high, low, after @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                bytes.push(u8::try_from(digit(high)? * 16 + digit(low)?).ok()?);
                (bytes, after)
            }
            (b'%', _) => return None,
            (byte, after) => {
                bytes.push(*byte);
                (bytes, after)
            }
        };
    }
    let name = Some(Arc::from(String::from_utf8(bytes).ok()?));
    // One that is written otherwise is another broker's business.
    (entity_segment(&name) == segment).then_some(name)
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
    let legal = (1..=MAX_TOPIC_NAME).contains(&segment.len()) && segment.bytes().all(is_legal);
    (legal && segment != "." && segment != "..").then(|| segment.into())
}
