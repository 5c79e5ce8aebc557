//! Inputs of every call of a coordinator, and its effects.

use std::collections::BTreeSet;

use super::api::{Producer, Reply, TopicPartition, TransactionalId};
use super::record::Record;
use crate::config::TransactionConfig;
use crate::coordinator::Ticket;

/// The world at one moment, and what the coordinator wants done to it.
pub struct Env<'a> {
    /// Milliseconds since the epoch: what goes into records, and what timeouts are counted by.
    pub wall_ms: i64,
    /// Milliseconds of a clock that never goes back: what timers are set by.
    pub mono_ms: u64,
    pub config: &'a TransactionConfig,
    /// Bytes by which all transactional ids may grow.
    pub room: usize,
    /// The same for ids that are new.
    pub room_for_new: usize,
    pub out: Effects,
}

/// Effects of a call.
#[derive(Debug, Default)]
pub struct Effects {
    /// To be appended in this order, all of one call together.
    pub records: Vec<Record>,
    /// To be sent once `records` and all before them are committed.
    pub replies: Vec<(Ticket, Reply)>,
    /// To be done once `records` and all before them are committed.
    pub deeds: Vec<Deed>,
}

/// Work to be done outside of the coordinator.
#[derive(Clone, Debug, PartialEq)]
pub enum Deed {
    /// Write the markers; [`Coordinator::complete`](super::Coordinator::complete) when all are.
    Write(Markers),
    /// Get a producer id that nobody had, for
    /// [`Coordinator::time_out`](super::Coordinator::time_out).
    TimeOut(TransactionalId),
}

/// The end of a transaction: a marker for each of its partitions.
#[derive(Clone, Debug, PartialEq)]
pub struct Markers {
    pub id: TransactionalId,
    pub producer: Producer,
    pub commit: bool,
    /// `transaction.version` that the transaction ends by: in 2 the markers have a
    /// higher epoch than its records.
    pub version: i16,
    pub partitions: BTreeSet<TopicPartition>,
}
