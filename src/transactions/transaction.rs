//! One transactional id: its producer, its transaction, and what each request makes of them.

use std::collections::BTreeSet;

use super::State;
use super::api::{AddPartitionsRequest, EndRequest, InitializeRequest, Producer, Refusal, TopicPartition};
use crate::model::ErrorCode;
use crate::model::planted::{Planted, planted};

/// `transaction.version` of this coordinator: epochs rise with each end (KIP-890).
pub const VERSION: i16 = 2;

/// From this version on epochs rise with each end of a transaction.
const EPOCH_RISES_FROM: i16 = 2;

/// No client is given this epoch: it is left for fencing the one below.
const LAST_EPOCH: i16 = i16::MAX;

/// No epoch is left for another client.
fn is_exhausted(epoch: i16) -> bool {
    epoch >= LAST_EPOCH - 1
}

/// State of a transactional id, as its record has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Transaction {
    /// An epoch of -1: none was given yet.
    pub producer: Producer,
    /// Producer id before the last change; -1: none.
    pub previous_id: i64,
    /// Producer id that takes the place of an exhausted one when the markers are written; -1: none.
    pub next_id: i64,
    /// Epoch of the same producer before its last rise; -1: none, or not known since
    /// the coordinator was loaded.
    pub last_epoch: i16,
    /// The transaction is aborted when it has taken so long.
    pub timeout_ms: i32,
    pub state: State,
    /// Those whose markers are still to be written, as far as the coordinator knows.
    pub partitions: BTreeSet<TopicPartition>,
    /// -1: no transaction yet.
    pub started_ms: i64,
    pub updated_ms: i64,
    /// `transaction.version` that the transaction goes by.
    pub version: i16,
}

/// An EndTxn that is in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It has been carried out before.
    Repeated,
    /// The transaction is to be ended. `empty`: there is none, and only the epoch rises.
    New { empty: bool },
}

impl Transaction {
    /// A transactional id that nobody has used yet.
    pub fn new(producer_id: i64, timeout_ms: i32, now_ms: i64) -> Transaction {
        Transaction {
            producer: Producer { id: producer_id, epoch: -1 },
            previous_id: -1,
            next_id: -1,
            last_epoch: -1,
            timeout_ms,
            state: State::Empty,
            partitions: BTreeSet::new(),
            started_ms: -1,
            updated_ms: now_ms,
            version: 0,
        }
    }

    /// InitProducerId. `Ok(false)`: a transaction is still open, and is to be fenced off
    /// ([`fence`](Self::fence)) first.
    pub fn initialize(&mut self, request: &InitializeRequest, now_ms: i64) -> Result<bool, Refusal> {
        if !request.expected.is_none_or(|expected| self.may_go_on(expected)) {
            return Err(ErrorCode::ProducerFenced.into());
        }
        match self.state {
            State::PrepareCommit | State::PrepareAbort => return Err(ErrorCode::ConcurrentTransactions.into()),
            State::Ongoing => return Ok(false),
            State::Empty | State::CompleteCommit | State::CompleteAbort => {}
        }
        let (producer, last_epoch) = self.successor(request)?;
        self.set_producer(producer);
        self.last_epoch = last_epoch;
        self.timeout_ms = request.timeout_ms;
        self.state = State::Empty;
        self.next_id = -1;
        self.partitions.clear();
        self.started_ms = -1;
        self.updated_ms = now_ms;
        Ok(true)
    }

    /// A producer that names itself is the one that there is, or the one before it whose epochs
    /// were exhausted, and which has not heard of the answer.
    fn may_go_on(&self, expected: Producer) -> bool {
        self.producer.epoch == -1
            || expected.id == self.producer.id
            || (expected.id == self.previous_id && is_exhausted(expected.epoch))
    }

    /// The producer after this one, and the last epoch to be remembered with it.
    fn successor(&self, request: &InitializeRequest) -> Result<(Producer, i16), Refusal> {
        let Producer { id, epoch } = self.producer;
        let expected = request.expected.map(|expected| expected.epoch);
        if is_exhausted(epoch) && expected.is_none_or(|expected| expected == epoch) {
            let id = request.fresh_id.ok_or(Refusal::NeedsProducerId)?;
            return Ok((Producer { id, epoch: 0 }, if expected.is_some() { epoch } else { -1 }));
        }
        match expected {
            // A repeated request: nobody else was initialized since, or the last
            // epoch would not be known.
            Some(expected) if epoch != -1 && expected != epoch => match expected == self.last_epoch {
                true => Ok((self.producer, self.last_epoch)),
                false => Err(ErrorCode::ProducerFenced.into()),
            },
            Some(_) => Ok((Producer { id, epoch: epoch + 1 }, epoch)),
            None if planted(Planted::EpochKeptAtTakeover) && epoch != -1 => Ok((self.producer, -1)),
            None => Ok((Producer { id, epoch: epoch + 1 }, -1)),
        }
    }

    /// AddPartitionsToTxn. `Ok(false)`: nothing changes.
    pub fn add(&mut self, request: &AddPartitionsRequest, now_ms: i64) -> Result<bool, ErrorCode> {
        self.check_open(request.producer)?;
        if self.state == State::Ongoing && request.partitions.is_subset(&self.partitions) {
            return Ok(false);
        }
        self.transit(State::Ongoing, now_ms);
        self.partitions.extend(request.partitions.iter().cloned());
        self.version = request.version;
        Ok(true)
    }

    /// AddPartitionsToTxn that only asks.
    pub fn verify(&self, request: &AddPartitionsRequest) -> Result<Vec<(TopicPartition, ErrorCode)>, ErrorCode> {
        self.check_open(request.producer)?;
        let verify = |partition: &TopicPartition| match self.partitions.contains(partition) {
            true => (partition.clone(), ErrorCode::None),
            false => (partition.clone(), ErrorCode::TransactionAbortable),
        };
        Ok(request.partitions.iter().map(verify).collect())
    }

    fn check_open(&self, producer: Producer) -> Result<(), ErrorCode> {
        if self.producer.id != producer.id {
            return Err(ErrorCode::InvalidProducerIdMapping);
        }
        if self.producer.epoch != producer.epoch {
            return Err(ErrorCode::ProducerFenced);
        }
        if self.state.is_ending() { Err(ErrorCode::ConcurrentTransactions) } else { Ok(()) }
    }

    /// The deed that an EndTxn asks for.
    pub fn check_end(&self, request: &EndRequest) -> Result<End, ErrorCode> {
        match request.version >= EPOCH_RISES_FROM {
            true => self.check_end_of_epoch(request),
            false => self.check_plain_end(request),
        }
    }

    /// Without a rise of the epoch a repeated request and one for the next transaction look alike.
    fn check_plain_end(&self, request: &EndRequest) -> Result<End, ErrorCode> {
        if self.producer.id != request.producer.id {
            return Err(ErrorCode::InvalidProducerIdMapping);
        }
        if self.producer.epoch != request.producer.epoch {
            return Err(ErrorCode::ProducerFenced);
        }
        match (self.state, request.commit) {
            (State::Ongoing, _) => Ok(End::New { empty: false }),
            (State::CompleteCommit, true) | (State::CompleteAbort, false) => Ok(End::Repeated),
            (State::PrepareCommit, true) | (State::PrepareAbort, false) => Err(ErrorCode::ConcurrentTransactions),
            _ => Err(ErrorCode::InvalidTxnState),
        }
    }

    /// The epoch tells a repeated request from one for the next transaction (KIP-890).
    fn check_end_of_epoch(&self, request: &EndRequest) -> Result<End, ErrorCode> {
        let Producer { id, epoch } = request.producer;
        let of_exhausted = self.previous_id == id && epoch == LAST_EPOCH - 1 && self.producer.epoch == 0;
        let repeated = of_exhausted || i32::from(self.producer.epoch) == i32::from(epoch) + 1;
        if self.producer.id != id && !of_exhausted {
            return Err(ErrorCode::InvalidProducerIdMapping);
        }
        let current = self.producer.epoch == epoch;
        let known = match self.state {
            State::Ongoing | State::Empty => current,
            State::PrepareCommit | State::PrepareAbort => repeated && !of_exhausted,
            State::CompleteCommit | State::CompleteAbort => repeated || current,
        };
        if !known {
            return Err(ErrorCode::ProducerFenced);
        }
        match (self.state, request.commit) {
            (State::Ongoing, _) => Ok(End::New { empty: false }),
            (State::PrepareCommit, true) | (State::PrepareAbort, false) => Err(ErrorCode::ConcurrentTransactions),
            (State::CompleteCommit, true) | (State::CompleteAbort, false) if repeated => Ok(End::Repeated),
            // A client that does not know whether it has begun anything aborts it.
            (State::Empty | State::CompleteCommit | State::CompleteAbort, false) if !repeated => {
                Ok(End::New { empty: true })
            }
            _ => Err(ErrorCode::InvalidTxnState),
        }
    }

    /// Decides the transaction: the next record is what it comes to. `empty`: it has no partitions,
    /// maybe not even a beginning.
    pub fn end(&mut self, request: &EndRequest, empty: bool, now_ms: i64) -> Result<(), Refusal> {
        let rises = request.version >= EPOCH_RISES_FROM;
        let next_id = match rises && is_exhausted(self.producer.epoch) {
            true => request.fresh_id.ok_or(Refusal::NeedsProducerId)?,
            false => -1,
        };
        self.transit(if request.commit { State::PrepareCommit } else { State::PrepareAbort }, now_ms);
        self.next_id = next_id;
        self.version = if rises { request.version } else { 0 };
        if rises {
            self.last_epoch = self.producer.epoch;
            // Only a log of an older version can have left the last epoch behind:
            // its transaction ends in it.
            self.producer.epoch = self.producer.epoch.checked_add(1).unwrap_or(LAST_EPOCH);
        }
        if empty {
            self.started_ms = now_ms;
        }
        Ok(())
    }

    /// Aborts a transaction that its producer is not to end any more: it took too long,
    /// or another one has come.
    pub fn fence(&mut self, fresh_id: Option<i64>, now_ms: i64) -> Result<(), Refusal> {
        let (id, producer) = ("".into(), self.producer);
        self.end(&EndRequest { id, producer, commit: false, version: VERSION, fresh_id }, false, now_ms)
    }

    /// All markers are written.
    pub fn complete(&mut self, now_ms: i64) {
        self.transit(
            if self.state == State::PrepareCommit { State::CompleteCommit } else { State::CompleteAbort },
            now_ms,
        );
        if self.next_id != -1 {
            self.set_producer(Producer { id: self.next_id, epoch: 0 });
            self.next_id = -1;
        }
        self.partitions.clear();
    }

    /// The producer that the next transaction is written as, once this one has ended.
    pub fn next_producer(&self) -> Producer {
        match self.next_id {
            -1 => self.producer,
            id => Producer { id, epoch: 0 },
        }
    }

    /// When the transaction is to be aborted, if there is one.
    pub fn deadline_ms(&self) -> Option<i64> {
        let ends = self.state == State::Ongoing && self.timeout_ms != i32::MAX;
        ends.then(|| self.started_ms.saturating_add(i64::from(self.timeout_ms)))
    }

    /// Takes up a state; a transaction begins with its first partition.
    fn transit(&mut self, state: State, now_ms: i64) {
        if state == State::Ongoing && self.state.is_idle() {
            self.started_ms = now_ms;
        }
        self.previous_id = self.producer.id;
        self.state = state;
        self.updated_ms = now_ms;
    }

    fn set_producer(&mut self, producer: Producer) {
        self.previous_id = self.producer.id;
        self.producer = producer;
    }
}
