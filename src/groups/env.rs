//! Inputs of every call of a coordinator, and its effects.

use std::sync::Arc;

use uuid::Uuid;

use super::api::Reply;
use super::record::Record;
use crate::config::{GroupConfig, GroupOptions};
use crate::coordinator::Ticket;

/// A topic as far as groups need it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFacts {
    pub name: Arc<str>,
    pub id: Uuid,
    pub partitions: i32,
}

/// The topics there are.
pub trait Topics {
    fn by_name(&self, name: &str) -> Option<TopicFacts>;
    fn by_id(&self, id: Uuid) -> Option<TopicFacts>;
    /// Every topic, in name order, internal ones too.
    fn all(&self) -> Vec<TopicFacts>;
    /// Changes whenever a topic is made, removed or grown.
    fn version(&self) -> u64;
}

/// Memory that a shard has left for its groups (`corelane.group.memory.bytes`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes left.
    pub left: usize,
    /// Bytes of them that only groups may use that exist already.
    pub reserve: usize,
}

impl Room {
    pub const UNLIMITED: Room = Room { left: usize::MAX, reserve: 0 };

    /// `used` bytes of `limit` are taken. A quarter is the reserve.
    pub fn of(limit: usize, used: usize) -> Room {
        Room { left: limit.saturating_sub(used), reserve: limit / 4 }
    }

    /// Little more than the reserve is left.
    pub fn is_tight(&self) -> bool {
        self.left <= self.reserve.saturating_add(self.reserve / 4)
    }
}

/// The world at one moment, and what the coordinator wants done to it.
pub struct Env<'a> {
    /// Milliseconds since the epoch: what goes into records.
    pub wall_ms: i64,
    /// Milliseconds of a clock that never goes back: what timers are set by.
    pub mono_ms: u64,
    pub config: &'a GroupConfig,
    /// Options of single groups.
    pub own: &'a GroupOptions,
    pub topics: &'a dyn Topics,
    /// Bytes by which the groups of the call may grow.
    pub room: Room,
    /// A random id.
    pub new_id: &'a mut dyn FnMut() -> Uuid,
    pub out: Effects,
}

/// Effects of a call.
#[derive(Debug, Default)]
pub struct Effects {
    /// To be appended in this order, all of one call together.
    pub records: Vec<Record>,
    /// The producer (id and epoch) in whose transaction the records are written.
    pub producer: Option<(i64, i16)>,
    /// To be sent once `records` and all before them are written.
    pub replies: Vec<(Ticket, Reply)>,
}

impl Env<'_> {
    /// Most bytes for the members of a group that take `now` bytes at present.
    pub fn most_group_bytes(&self, now: usize) -> usize {
        self.config.max_group_bytes.min(now.saturating_add(self.room.left))
    }

    pub fn append(&mut self, record: Record) {
        self.out.records.push(record);
    }

    pub fn reply(&mut self, ticket: Ticket, reply: impl Into<Reply>) {
        self.out.replies.push((ticket, reply.into()));
    }
}
