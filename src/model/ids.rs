//! Newtypes for what Kafka counts with. Each is a plain integer on the wire and on disk.

use std::fmt;

use uuid::Uuid;

macro_rules! integer_id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

integer_id! {
    /// `broker.id` / `node.id`: unique in a cluster, 0 or more.
    BrokerId(i32)
}
integer_id! {
    /// One core's event loop, 0-based, dense.
    ShardId(u16)
}
integer_id! {
    /// A partition's index within its topic, 0-based, dense.
    PartitionIndex(i32)
}
integer_id! {
    /// A record's position in its partition, 0-based, 64-bit, never reused.
    Offset(i64)
}
integer_id! {
    /// Counts the leaders a partition has had (KIP-101). -1 in a request: the
    /// client does not know it.
    LeaderEpoch(i32)
}
integer_id! {
    /// Names an idempotent producer (KIP-98). -1: the batch is not idempotent.
    ProducerId(i64)
}
integer_id! {
    /// Fences older instances of one producer id. -1: none.
    ProducerEpoch(i16)
}

impl Offset {
    /// The offset `count` records later.
    pub fn plus(self, count: i64) -> Offset {
        Offset(self.0 + count)
    }
}

/// A partition by the topic's immortal id: stays right when a name is deleted and created again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId {
    pub topic: Uuid,
    pub index: PartitionIndex,
}

impl PartitionId {
    pub fn new(topic: Uuid, index: i32) -> PartitionId {
        PartitionId { topic, index: PartitionIndex(index) }
    }

    /// The shard that owns this partition when the broker runs `shards` of them. A pure
    /// function of the ids, so that every shard (and the next start, also with another shard
    /// count) agrees without asking: neighbours in one topic land on neighbouring shards,
    /// topics start at different ones.
    pub fn owner(self, shards: u16) -> ShardId {
        let (high, low) = self.topic.as_u64_pair();
        let start = (high ^ low) % u64::from(shards.max(1));
        let index = u64::from(self.index.0.unsigned_abs());
        ShardId(((start + index) % u64::from(shards.max(1))) as u16)
    }
}

/// A topic's or cluster's id as Kafka spells it.
pub fn encode_id(id: Uuid) -> String {
    base64url(id.as_bytes())
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let number = chunk.iter().fold(0u32, |number, byte| number << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            text.push(char::from(DIGITS[(number >> (18 - 6 * digit) & 63) as usize]));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_spelled_as_kafka_does() {
        assert_eq!(base64url(&[0; 16]), "A".repeat(22));
        assert_eq!(base64url(&[0xff; 16]), "_".repeat(21) + "w");
        assert_eq!(base64url(b"any carnal pleas"), "YW55IGNhcm5hbCBwbGVhcw");
    }
}
