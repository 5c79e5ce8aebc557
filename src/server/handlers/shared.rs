//! Conversions and checks that several handlers share.

use std::time::Duration;

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use kafka_protocol::messages::{
    BrokerId as WireBrokerId, GroupId as WireGroupId, TopicName, TransactionalId as WireTransactionalId,
};
use kafka_protocol::protocol::StrBytes;

use crate::cluster::controller::{
    ControlError, MAX_PARTITIONS_PER_TOPIC, OFFSETS_TOPIC, TRANSACTION_TOPIC, check_topic_name,
};
use crate::cluster::{MetadataImage, TopicImage};
use crate::groups::api::GroupId;
use crate::model::{BrokerId, ErrorCode, LeaderEpoch, PartitionId};
use crate::protocol::TopicKey;
use crate::server::session::Session;

/// The reason for SECURITY_DISABLED in answers about ACLs.
pub const NO_AUTHORIZER: &str = "No Authorizer is configured.";

pub fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

/// Longest error message sent, bytes. A message may repeat what the client sent, and a string of
/// the protocol ends at 32,767: one more, and versions without compact strings could not be
/// encoded, and clients would not read the others.
const MAX_MESSAGE_BYTES: usize = 1024;

/// An error message as it is sent: cut where it is too long.
pub fn error_message(mut message: String) -> Option<StrBytes> {
    if message.len() > MAX_MESSAGE_BYTES {
        message.truncate(message.floor_char_boundary(MAX_MESSAGE_BYTES));
        message.push_str("...");
    }
    Some(StrBytes::from_string(message))
}

/// The error of a change that has no time: a timeout of 0 or less has passed when the request
/// comes, and nothing is done, as in Kafka.
pub fn no_time(timeout_ms: i32) -> Option<ControlError> {
    (timeout_ms <= 0).then(|| control_error(ErrorCode::RequestTimedOut, "timeout_ms is not above 0: nothing was done"))
}

/// Takes out of `wanted` what the client's quota for creations and deletions has no room for
/// (KIP-599), which is then to be answered with [`throttled`]. `strict`: the version of the request
/// knows that answer; older ones are carried out, and their client waits. `partitions`: how many a
/// change is about; `None`: it will be refused for something else.
pub fn over_quota<T>(
    session: &Session,
    strict: bool,
    wanted: &mut Vec<T>,
    partitions: impl Fn(&T) -> Option<usize>,
) -> Vec<T> {
    let Some(call) = session.quota.as_ref().filter(|call| call.limits_mutations()) else { return Vec::new() };
    let has_room = |change: &T| partitions(change).is_none_or(|partitions| call.mutate(partitions, strict));
    let (kept, over) = std::mem::take(wanted).into_iter().partition(has_room);
    *wanted = kept;
    over
}

pub fn throttled() -> ControlError {
    control_error(ErrorCode::ThrottlingQuotaExceeded, "The throttling quota has been exceeded.")
}

/// Time that a client gives a change of metadata.
pub fn patience(timeout_ms: i32) -> Duration {
    const LONGEST: Duration = Duration::from_secs(300);
    Duration::from_millis(u64::try_from(timeout_ms).unwrap_or(0)).min(LONGEST)
}

pub fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

pub fn broker_id(id: BrokerId) -> WireBrokerId {
    WireBrokerId(id.0)
}

/// The error of a topic that the image does not have, by its name: one that no
/// topic can have is told apart.
pub fn unknown_name(name: &str) -> ErrorCode {
    match check_topic_name(name) {
        Ok(()) => ErrorCode::UnknownTopicOrPartition,
        Err(_) => ErrorCode::InvalidTopicException,
    }
}

/// The topic a request of the data path names. Here a name that no topic can have is one
/// that none has, as in Kafka.
pub fn find_topic<'a>(image: &'a MetadataImage, key: &TopicKey) -> Result<&'a Arc<TopicImage>, ErrorCode> {
    match key {
        TopicKey::Id(id) => image.topic_by_id(*id).ok_or(ErrorCode::UnknownTopicId),
        TopicKey::Name(_) => image.find_topic(key.as_str().unwrap_or_default()),
    }
}

/// The partition `index` of `topic`, if there is one.
pub fn find_partition(topic: &TopicImage, index: i32) -> Result<PartitionId, ErrorCode> {
    match usize::try_from(index) {
        Ok(position) if position < topic.partitions.len() => Ok(PartitionId::new(topic.id, index)),
        _ => Err(ErrorCode::UnknownTopicOrPartition),
    }
}

/// The leader epoch that the client believes in; `None`: it does not say (-1 on the wire).
pub fn stated_epoch(epoch: i32) -> Option<LeaderEpoch> {
    (epoch >= 0).then_some(LeaderEpoch(epoch))
}

/// Operations allowed on a topic (KIP-430): a bit for each `AclOperation` by its code, all that
/// apply to the resource.
/// READ, WRITE, CREATE, DELETE, ALTER, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS.
pub const TOPIC_OPERATIONS: i32 = 1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;
/// The same of the cluster: CREATE, ALTER, DESCRIBE, CLUSTER_ACTION, DESCRIBE_CONFIGS,
/// ALTER_CONFIGS, IDEMPOTENT_WRITE.
pub const CLUSTER_OPERATIONS: i32 = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;

/// The same of a group: READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS.
pub const GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

/// True if a topic is one of Kafka's own, which clients read but do not write.
pub fn is_internal(topic: &str) -> bool {
    matches!(topic, OFFSETS_TOPIC | TRANSACTION_TOPIC | "__share_group_state")
}

/// The log of Kafka's controllers; tools take a topic of that name for it, so there is none.
pub const CLUSTER_METADATA: &str = "__cluster_metadata";

/// A group's id, copied out of the request.
pub fn group_id(id: &WireGroupId) -> GroupId {
    GroupId::from(id.0.as_str())
}

pub fn wire_group_id(id: &str) -> WireGroupId {
    WireGroupId(text(id))
}

/// A group's id where one is needed.
pub fn named_group(id: &WireGroupId) -> Result<GroupId, ErrorCode> {
    if id.0.is_empty() { Err(ErrorCode::InvalidGroupId) } else { Ok(group_id(id)) }
}

/// A transactional id, copied out of the request; an empty one is none.
pub fn transactional_id(id: &WireTransactionalId) -> Result<Arc<str>, ErrorCode> {
    if id.0.is_empty() { Err(ErrorCode::InvalidRequest) } else { Ok(id.0.as_str().into()) }
}

/// PRODUCER_FENCED, which clients know from version `known_from` of a request on,
/// as those before know it.
pub fn fenced_before(known_from: i16, version: i16, code: ErrorCode) -> ErrorCode {
    match code {
        ErrorCode::ProducerFenced if version < known_from => ErrorCode::InvalidProducerEpoch,
        code => code,
    }
}

/// The groups of a request, each once: a group id of a byte or two must not buy an answer of some
/// kilobytes again and again.
pub fn each_group_once(ids: &[WireGroupId]) -> Vec<GroupId> {
    let mut seen = HashSet::with_capacity(ids.len());
    ids.iter().filter(|id| seen.insert(*id)).map(group_id).collect()
}

/// Longest `group.instance.id`. Kafka's clients have no longer ones than topic names, and a broker
/// makes member ids of them, which go into the answers to others: they must fit there.
const MAX_INSTANCE_ID_BYTES: usize = 1024;

/// Copies a `group.instance.id` out of the request.
pub fn instance_id(id: Option<StrBytes>) -> Result<Option<String>, ErrorCode> {
    match id {
        Some(id) if id.len() > MAX_INSTANCE_ID_BYTES => Err(ErrorCode::InvalidRequest),
        id => Ok(owned(id)),
    }
}

pub fn owned(value: Option<StrBytes>) -> Option<String> {
    value.map(|value| value.to_string())
}

/// For the wire, without copying.
pub fn sent(value: Option<String>) -> Option<StrBytes> {
    value.map(StrBytes::from_string)
}

/// Most partitions that one request creates: what a few bytes ask for must not fill
/// memory. Kafka's is 10,000.
pub const MAX_PARTITIONS_PER_REQUEST: i32 = MAX_PARTITIONS_PER_TOPIC;

pub fn too_many_partitions() -> ControlError {
    let message = format!(
        "Excessively large number of partitions per request: at most {MAX_PARTITIONS_PER_REQUEST} are created."
    );
    control_error(ErrorCode::PolicyViolation, message)
}

pub fn control_error(code: ErrorCode, message: impl Into<String>) -> ControlError {
    ControlError { code, message: message.into() }
}

/// Gives the places of a response that have no error yet their outcomes, which come in the
/// same order. A place without an outcome gets UNKNOWN_SERVER_ERROR: nothing is
/// acknowledged unless a shard did it.
pub fn merge_outcomes<'a, P: 'a, C: PartialEq + From<ErrorCode>, O>(
    places: impl Iterator<Item = &'a mut P>,
    code: impl Fn(&mut P) -> &mut C,
    outcomes: Vec<O>,
    take: impl Fn(&mut P, O),
) {
    let mut outcomes = outcomes.into_iter();
    for place in places {
        if *code(place) != C::from(ErrorCode::None) {
            continue;
        }
        match outcomes.next() {
            Some(outcome) => take(place, outcome),
            None => *code(place) = ErrorCode::UnknownServerError.into(),
        }
    }
}

/// Those of `keys` that occur more than once.
pub fn repeated<K: Eq + Hash>(keys: impl Iterator<Item = K>) -> HashSet<K> {
    let mut seen = HashSet::new();
    let mut twice = HashSet::new();
    for key in keys {
        if seen.contains(&key) {
            twice.insert(key);
        } else {
            seen.insert(key);
        }
    }
    twice
}

#[cfg(test)]
pub mod testing {
    //! Images to answer from, and how answers are read.

    use std::sync::Arc;

    use bytes::Buf;
    use kafka_protocol::messages::ApiKey;
    use kafka_protocol::protocol::{Decodable, Encodable};
    use uuid::Uuid;

    use crate::cluster::{BrokerImage, EndpointImage, MetadataImage, PartitionImage, TopicImage};
    use crate::config::TopicConfig;
    use crate::model::{BrokerId, LeaderEpoch};
    use crate::protocol::respond;

    /// A response as a client decodes it.
    pub fn through_the_wire<T: Encodable + Decodable>(key: ApiKey, version: i16, response: &T) -> T {
        let mut frame = respond::encode(key, version, 1, response).unwrap();
        frame.advance(if key.response_header_version(version) >= 1 { 9 } else { 8 });
        let seen = T::decode(&mut frame, version).unwrap();
        assert!(frame.is_empty(), "{key:?} v{version}: {} bytes are left over", frame.len());
        seen
    }

    pub fn id_of(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    /// One broker (7), and topics by name, id and number of partitions.
    pub fn image(topics: &[(&str, u128, usize)]) -> MetadataImage {
        let mut image = MetadataImage::default();
        image.cluster_id = "the-cluster".into();
        image.controller = Some(BrokerId(7));
        let endpoint =
            |listener: &str, host: &str, port| EndpointImage { listener: listener.into(), host: host.into(), port };
        let endpoints = vec![endpoint("PLAINTEXT", "host", 9092), endpoint("EXTERNAL", "outside", 19092)];
        image.brokers = vec![BrokerImage::alone(BrokerId(7), endpoints, None)];
        for (name, id, partitions) in topics {
            image.put_topic(topic(name, *id, *partitions));
        }
        image
    }

    pub fn topic(name: &str, id: u128, partitions: usize) -> TopicImage {
        let partition = PartitionImage {
            leader: Some(BrokerId(7)),
            leader_epoch: LeaderEpoch(4),
            replicas: vec![BrokerId(7)],
            isr: vec![BrokerId(7)],
            ..PartitionImage::default()
        };
        TopicImage {
            name: name.into(),
            id: id_of(id),
            partitions: vec![partition; partitions],
            overrides: Default::default(),
            config: Arc::new(TopicConfig::default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_found_within_the_topic_only() {
        let image = testing::image(&[("t", 5, 2)]);
        let topic = find_topic(&image, &TopicKey::Id(testing::id_of(5))).unwrap();
        assert_eq!(find_partition(topic, 1), Ok(PartitionId::new(testing::id_of(5), 1)));
        for index in [-1, 2, i32::MAX, i32::MIN] {
            assert_eq!(find_partition(topic, index), Err(ErrorCode::UnknownTopicOrPartition));
        }
        let unknown = TopicKey::Id(testing::id_of(6));
        assert_eq!(find_topic(&image, &unknown).err(), Some(ErrorCode::UnknownTopicId));
    }

    #[test]
    fn messages_are_cut_between_characters() {
        let cut = |text: String| error_message(text).map(|message| message.to_string());
        assert_eq!(cut("short".into()), Some("short".into()));
        assert_eq!(cut("x".repeat(MAX_MESSAGE_BYTES)), Some("x".repeat(MAX_MESSAGE_BYTES)));
        assert_eq!(cut(format!("x{}", "ä".repeat(40_000))), Some(format!("x{}...", "ä".repeat(511))));
    }

    #[test]
    fn repeated_finds_each_once() {
        assert_eq!(repeated([1, 2, 1, 3, 1, 3].into_iter()), HashSet::from([1, 3]));
    }
}
