//! The topics, and their partitions counted through: the only one of `__consumer_offsets` first,
//! that of `__transaction_state`, then those of the topic that clients use.

use std::sync::Arc;

use uuid::Uuid;

use crate::model::PartitionId;

/// The partition of `__consumer_offsets`.
pub const OFFSETS: usize = 0;
/// The partition of `__transaction_state`.
pub const TRANSACTIONS: usize = 1;
/// The first partition of the clients' topic.
pub const FIRST: usize = 2;
/// The clients' topic.
pub const TOPIC: &str = "t";

pub const TOPICS: [&str; 3] = ["__consumer_offsets", "__transaction_state", TOPIC];

/// Place of the partition's topic in [`TOPICS`].
fn topic_at(partition: usize) -> usize {
    partition.min(FIRST)
}

pub fn topic_of(partition: usize) -> &'static str {
    TOPICS[topic_at(partition)]
}

/// Number of the partition within its topic.
pub fn number_of(partition: usize) -> i32 {
    partition.saturating_sub(FIRST) as i32
}

/// Id of a topic, by its place in [`TOPICS`].
pub fn topic_id(topic: usize) -> Uuid {
    Uuid::from_u128(1 + topic as u128)
}

pub fn id_of(partition: usize) -> PartitionId {
    PartitionId::new(topic_id(topic_at(partition)), number_of(partition))
}

/// Topic and number, as the metadata store has them.
pub fn place_of(partition: usize) -> (Arc<str>, i32) {
    (Arc::from(topic_of(partition)), number_of(partition))
}

/// The partition that has this place.
pub fn partition_at(topic: &str, number: i32) -> usize {
    let internal = [OFFSETS, TRANSACTIONS].into_iter().find(|at| topic == TOPICS[*at]);
    internal.unwrap_or_else(|| FIRST + usize::try_from(number).unwrap_or(0))
}
