//! Messages between brokers and clients, and what every part of the simulated world may use.

use std::collections::BTreeMap;

use super::checker::Checker;
use super::coordinator::OwnRecords;
use super::disk::Batch;
use super::rng::Rng;
use crate::groups::api::CommitRequest;
use crate::model::{ErrorCode, LeaderEpoch, Marker};
use crate::partition::{FollowerFetch, LeaderAnswer};
use crate::{groups, transactions};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    Broker(usize),
    Producer(usize),
    Consumer(usize),
    Transactor(usize),
}

#[derive(Clone, Debug)]
pub struct Message {
    pub from: Address,
    pub to: Address,
    pub partition: usize,
    /// Of the request; its answer has the same.
    pub number: u64,
    pub payload: Payload,
}

#[derive(Clone, Debug)]
pub enum Payload {
    Fetch(FollowerFetch),
    Fetched {
        /// Epoch of the fetch.
        epoch: LeaderEpoch,
        answer: LeaderAnswer,
        batches: Vec<Batch>,
        /// Digest of everything before the first batch, or before the leader's start.
        origin: u64,
    },
    Produce(Produce),
    /// Base offset, or why not, in this leader epoch.
    Produced(Result<i64, ErrorCode>, LeaderEpoch),
    Consume(Consume),
    Consumed(Result<Records, ErrorCode>),
    /// For the group coordinator.
    Group(Box<groups::Request>),
    /// The same of offsets in a transaction of this transactional id.
    GroupInTransaction(Box<CommitRequest>, usize),
    /// Of the coordinator of this epoch.
    Grouped(Box<Result<groups::Reply, ErrorCode>>, LeaderEpoch),
    /// For the transaction coordinator.
    Transact(Box<transactions::Request>),
    Transacted(Box<Result<transactions::Reply, ErrorCode>>),
    /// Of a transaction coordinator: a transaction ends.
    WriteMarker(Marker),
    MarkerWritten(Result<(), ErrorCode>),
}

/// One batch as a producer sends it.
#[derive(Clone, Copy, Debug)]
pub struct Produce {
    pub id: u64,
    pub count: i32,
    pub producer: Option<(i64, i16, i32)>,
    /// `acks=all`; otherwise `acks=1`.
    pub all: bool,
    /// Number of the transactional id, in whose transaction it is.
    pub transactor: Option<usize>,
}

/// A consumer's request.
#[derive(Clone, Copy, Debug)]
pub struct Consume {
    /// From this offset on.
    pub offset: i64,
    /// Of the leader of this epoch or a later one.
    pub epoch: LeaderEpoch,
    /// `read_committed`
    pub committed: bool,
}

/// The answer to a consumer.
#[derive(Clone, Debug, Default)]
pub struct Records {
    pub batches: Vec<Batch>,
    /// Aborted transactions among them, for `read_committed`: producer and first offset.
    pub aborted: Vec<(i64, i64)>,
}

/// Time, chance, the way out and the observer.
#[derive(Debug)]
pub struct Io {
    pub now: i64,
    pub rng: Rng,
    pub checker: Checker,
    pub trace: Trace,
    pub out: Vec<Message>,
    /// Partitions that have changed since the observer looked.
    pub touched: Vec<usize>,
    /// Records of the batches that coordinators have written, by the batch's id.
    pub own_records: BTreeMap<u64, OwnRecords>,
    numbers: u64,
}

impl Io {
    pub fn new(rng: Rng, checker: Checker, trace: Trace) -> Io {
        Io {
            now: 0,
            rng,
            checker,
            trace,
            out: Vec::new(),
            touched: Vec::new(),
            own_records: BTreeMap::new(),
            numbers: 0,
        }
    }

    /// A number that no other message has.
    pub fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub fn send(&mut self, from: Address, to: Address, partition: usize, number: u64, payload: Payload) {
        self.out.push(Message { from, to, partition, number, payload });
    }

    pub fn note(&mut self, line: impl FnOnce() -> String) {
        let now = self.now;
        self.trace.note(now, line);
    }

    pub fn touch(&mut self, partition: usize) {
        if !self.touched.contains(&partition) {
            self.touched.push(partition);
        }
    }
}

/// Lines of a run; kept only where somebody is to read them.
#[derive(Debug, Default)]
pub struct Trace {
    lines: Option<Vec<String>>,
}

impl Trace {
    pub fn kept() -> Trace {
        Trace { lines: Some(Vec::new()) }
    }

    fn note(&mut self, now: i64, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{now:>6} {}", line()));
        }
    }

    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or(&[])
    }
}
