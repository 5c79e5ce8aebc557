//! The two topics, and their partitions counted through: the only one of `__consumer_offsets`
//! first, then those of the topic that clients use.

use std::sync::Arc;

/// The partition of `__consumer_offsets`.
pub const OFFSETS: usize = 0;
/// The first partition of the clients' topic.
pub const FIRST: usize = 1;
/// The clients' topic.
pub const TOPIC: &str = "t";

pub const TOPICS: [&str; 2] = ["__consumer_offsets", TOPIC];

pub fn topic_of(partition: usize) -> &'static str {
    if partition == OFFSETS { TOPICS[0] } else { TOPIC }
}

/// Number of the partition within its topic.
pub fn number_of(partition: usize) -> i32 {
    partition.saturating_sub(FIRST) as i32
}

/// Topic and number, as the metadata store has them.
pub fn place_of(partition: usize) -> (Arc<str>, i32) {
    (Arc::from(topic_of(partition)), number_of(partition))
}

/// The partition that has this place.
pub fn partition_at(topic: &str, number: i32) -> usize {
    if topic == TOPICS[0] { OFFSETS } else { FIRST + usize::try_from(number).unwrap_or(0) }
}
