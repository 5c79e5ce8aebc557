//! The transactional ids of one partition of `__transaction_state`: from a
//! request to the id it is for.

use std::collections::{BTreeSet, HashMap};

use super::State;
use super::api::{
    AddPartitionsRequest, Description, EndRequest, InitializeRequest, Producer, Refusal, Reply, Request,
    TransactionalId,
};
use super::env::{Deed, Env, Markers};
use super::record::Record;
use super::transaction::{End, Transaction};
use crate::coordinator::wire::BadRecord;
use crate::coordinator::{Ticket, Timers};
use crate::model::ErrorCode;

/// Memory charged per transactional id, besides its name and partitions.
const ID_BYTES: usize = 512;
/// Memory charged per partition of a transaction.
const PARTITION_BYTES: usize = 64;
/// How many ids one search for expired ones may look at before others have their turn.
const MOST_IDS_AT_ONCE: usize = 1000;
/// Pause between two such searches.
const STEP_PAUSE_MS: u64 = 100;

/// Purpose of a deadline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Timer {
    /// Look for transactions that took too long.
    TimeOut,
    /// Look for ids that nobody has used for long.
    Expiry,
}

/// The transactional ids of one partition of `__transaction_state`.
#[derive(Debug, Default)]
pub struct Coordinator {
    transactions: HashMap<TransactionalId, Transaction>,
    /// Ongoing transactions by when they are to be aborted, ms since the epoch.
    deadlines: BTreeSet<(i64, TransactionalId)>,
    timers: Timers<Timer>,
    /// Ids still to be looked at in the present round of expiry.
    to_expire: Vec<TransactionalId>,
    bytes: usize,
}

fn bytes_of(id: &TransactionalId, transaction: &Transaction) -> usize {
    ID_BYTES + id.len() + PARTITION_BYTES * transaction.partitions.len()
}

impl Coordinator {
    /// Takes a request. Its reply comes out of this call.
    pub fn handle(&mut self, ticket: Ticket, request: Request, env: &mut Env) {
        let reply = match request {
            Request::Initialize(request) => Reply::Producer(self.initialize(request, env)),
            Request::AddPartitions(request) => Reply::Partitions(self.add_partitions(request, env)),
            Request::End(request) => Reply::Producer(self.end(request, env)),
            Request::Describe(id) => Reply::Description(self.describe(id)),
        };
        env.out.replies.push((ticket, reply));
    }

    /// One record of the log, in order, while the coordinator is being loaded. An error
    /// leaves the state as it was.
    pub fn replay(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<(), BadRecord> {
        if let Some(Record { id, value }) = Record::decode(key, value)? {
            self.put(&id, value);
        }
        Ok(())
    }

    /// All of the log has been replayed. Transactions that were decided are brought to their end.
    pub fn loaded(&mut self, env: &mut Env) {
        let decided = self.transactions.iter().filter(|(_, transaction)| transaction.state.is_ending());
        env.out.deeds.extend(decided.map(|(id, transaction)| Deed::Write(markers(id, transaction))));
        self.timers.set(Timer::Expiry, env.mono_ms.saturating_add(env.config.expiry_interval_ms));
        self.watch(env);
    }

    /// When [`tick`](Self::tick) is due next, by the clock that never goes back.
    pub fn next_deadline(&self) -> Option<u64> {
        self.timers.next()
    }

    /// Does what is due.
    pub fn tick(&mut self, env: &mut Env) {
        while let Some(timer) = self.timers.pop_due(env.mono_ms) {
            match timer {
                Timer::TimeOut => self.time_all_out(env),
                Timer::Expiry => self.expire(env),
            }
        }
    }

    /// Memory charged for all ids.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Every id, in no order.
    pub fn list(&self) -> Vec<Description> {
        self.transactions.iter().map(|(id, transaction)| description(id, transaction)).collect()
    }

    /// All markers of a transaction are written.
    pub fn complete(&mut self, id: &TransactionalId, producer: Producer, env: &mut Env) {
        let ending = self.transactions.get(id).filter(|known| known.state.is_ending() && known.producer == producer);
        if let Some(mut transaction) = ending.cloned() {
            transaction.complete(env.wall_ms);
            self.write(id, transaction, env);
        }
    }

    /// Aborts a transaction that took too long, if it is still there. `fresh_id`: a
    /// producer id that nobody had.
    pub fn time_out(&mut self, id: &TransactionalId, fresh_id: Option<i64>, env: &mut Env) {
        let late = self.transactions.get(id);
        let late = late.filter(|known| known.deadline_ms().is_some_and(|deadline_ms| deadline_ms < env.wall_ms));
        let Some(mut transaction) = late.cloned() else { return };
        match transaction.fence(fresh_id, env.wall_ms) {
            Ok(()) => {
                let (producer_id, timeout_ms) = (transaction.producer.id, transaction.timeout_ms);
                tracing::info!(
                    transactional_id = &**id,
                    producer_id,
                    timeout_ms,
                    "a transaction takes too long: it is aborted"
                );
                self.decide(id, transaction, env);
            }
            Err(_) => env.out.deeds.push(Deed::TimeOut(id.clone())),
        }
    }

    fn initialize(&mut self, request: InitializeRequest, env: &mut Env) -> Result<Producer, Refusal> {
        if !(1..=env.config.max_timeout_ms).contains(&request.timeout_ms) {
            return Err(ErrorCode::InvalidTransactionTimeout.into());
        }
        let mut transaction = match self.transactions.get(&request.id) {
            Some(known) => known.clone(),
            None => {
                let fresh_id = request.fresh_id.ok_or(Refusal::NeedsProducerId)?;
                let transaction = Transaction::new(fresh_id, request.timeout_ms, env.wall_ms);
                if bytes_of(&request.id, &transaction) > env.room_for_new {
                    return Err(ErrorCode::CoordinatorNotAvailable.into());
                }
                transaction
            }
        };
        if transaction.initialize(&request, env.wall_ms)? {
            let producer = transaction.producer;
            self.write(&request.id, transaction, env);
            return Ok(producer);
        }
        // The client asks again until the markers are written.
        transaction.fence(request.fresh_id, env.wall_ms)?;
        self.decide(&request.id, transaction, env);
        Err(ErrorCode::ConcurrentTransactions.into())
    }

    fn add_partitions(
        &mut self,
        request: AddPartitionsRequest,
        env: &mut Env,
    ) -> Result<Vec<(super::api::TopicPartition, ErrorCode)>, ErrorCode> {
        let known = self.transactions.get(&request.id).ok_or(ErrorCode::InvalidProducerIdMapping)?;
        if request.verify_only {
            return known.verify(&request);
        }
        if PARTITION_BYTES * request.partitions.len() > env.room {
            return Err(ErrorCode::CoordinatorNotAvailable);
        }
        let mut transaction = known.clone();
        if transaction.add(&request, env.wall_ms)? {
            self.write(&request.id, transaction, env);
            self.watch(env);
        }
        Ok(request.partitions.into_iter().map(|partition| (partition, ErrorCode::None)).collect())
    }

    fn end(&mut self, request: EndRequest, env: &mut Env) -> Result<Producer, Refusal> {
        let known = self.transactions.get(&request.id).ok_or(ErrorCode::InvalidProducerIdMapping)?;
        match known.check_end(&request)? {
            End::Repeated => Ok(known.producer),
            End::New { empty } => {
                let mut transaction = known.clone();
                transaction.end(&request, empty, env.wall_ms)?;
                let next = transaction.next_producer();
                self.decide(&request.id, transaction, env);
                Ok(next)
            }
        }
    }

    fn describe(&self, id: TransactionalId) -> Result<Description, ErrorCode> {
        let transaction = self.transactions.get(&id).ok_or(ErrorCode::TransactionalIdNotFound)?;
        Ok(description(&id, transaction))
    }

    /// A transaction has its outcome.
    fn decide(&mut self, id: &TransactionalId, transaction: Transaction, env: &mut Env) {
        env.out.deeds.push(Deed::Write(markers(id, &transaction)));
        self.write(id, transaction, env);
    }

    fn write(&mut self, id: &TransactionalId, transaction: Transaction, env: &mut Env) {
        env.out.records.push(Record { id: id.clone(), value: Some(transaction.clone()) });
        self.put(id, Some(transaction));
    }

    fn put(&mut self, id: &TransactionalId, value: Option<Transaction>) {
        let (deadline_ms, bytes) = match &value {
            Some(transaction) => (transaction.deadline_ms(), bytes_of(id, transaction)),
            None => (None, 0),
        };
        let before = match value {
            Some(transaction) => self.transactions.insert(id.clone(), transaction),
            None => self.transactions.remove(id),
        };
        self.bytes += bytes;
        if let Some(before) = before {
            self.bytes -= bytes_of(id, &before);
            if let Some(deadline_ms) = before.deadline_ms() {
                self.deadlines.remove(&(deadline_ms, id.clone()));
            }
        }
        if let Some(deadline_ms) = deadline_ms {
            self.deadlines.insert((deadline_ms, id.clone()));
        }
    }

    /// Looks for transactions that take too long as long as there are any.
    fn watch(&mut self, env: &Env) {
        if !self.deadlines.is_empty() && !self.timers.is_set(&Timer::TimeOut) {
            self.timers.set(Timer::TimeOut, env.mono_ms.saturating_add(env.config.time_out_interval_ms));
        }
    }

    fn time_all_out(&mut self, env: &mut Env) {
        let late = self.deadlines.iter().take_while(|(deadline_ms, _)| *deadline_ms < env.wall_ms);
        let late: Vec<TransactionalId> = late.map(|(_, id)| id.clone()).collect();
        for id in late {
            self.time_out(&id, None, env);
        }
        self.watch(env);
    }

    /// Goes over the ids in steps, all once every
    /// `transaction.remove.expired.transaction.cleanup.interval.ms`.
    fn expire(&mut self, env: &mut Env) {
        if self.to_expire.is_empty() {
            self.to_expire = self.transactions.keys().cloned().collect();
        }
        let rest = self.to_expire.len().saturating_sub(MOST_IDS_AT_ONCE);
        for id in self.to_expire.split_off(rest) {
            let is_old = |known: &Transaction| {
                let idle_ms = env.wall_ms.saturating_sub(known.updated_ms);
                known.state.is_idle() && idle_ms >= env.config.id_expiration_ms
            };
            if self.transactions.get(&id).is_some_and(is_old) {
                self.put(&id, None);
                env.out.records.push(Record { id, value: None });
            }
        }
        let pause_ms = if self.to_expire.is_empty() { env.config.expiry_interval_ms } else { STEP_PAUSE_MS };
        self.timers.set(Timer::Expiry, env.mono_ms.saturating_add(pause_ms));
    }

    #[cfg(test)]
    pub(super) fn get(&self, id: &str) -> Option<&Transaction> {
        self.transactions.get(id)
    }

    #[cfg(test)]
    pub(super) fn assert_counted(&self) {
        let bytes: usize = self.transactions.iter().map(|(id, transaction)| bytes_of(id, transaction)).sum();
        assert_eq!(self.bytes, bytes, "what ids take is charged");
        let deadlines = self.transactions.iter().filter_map(|(id, known)| Some((known.deadline_ms()?, id.clone())));
        assert_eq!(self.deadlines, deadlines.collect());
    }
}

fn markers(id: &TransactionalId, transaction: &Transaction) -> Markers {
    Markers {
        id: id.clone(),
        producer: transaction.producer,
        commit: transaction.state == State::PrepareCommit,
        version: transaction.version,
        partitions: transaction.partitions.clone(),
    }
}

fn description(id: &TransactionalId, transaction: &Transaction) -> Description {
    Description {
        id: id.clone(),
        producer: transaction.producer,
        state: transaction.state,
        timeout_ms: transaction.timeout_ms,
        started_ms: transaction.started_ms,
        partitions: transaction.partitions.clone(),
    }
}
