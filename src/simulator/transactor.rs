//! Transactional producers, of `transaction.version` 2. One transactional id has one instance after
//! the other: one that stands still is replaced, and goes on when it wakes up, not knowing of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::checker::Mark;
use super::clients::{Leaders, TIMEOUT_MS};
use super::net::{Address, Io, Payload, Produce};
use super::place::{FIRST, OFFSETS, TOPIC, TRANSACTIONS, number_of};
use crate::groups;
use crate::groups::api::{CommitPartition, CommitRequest, CommitTopic, FetchOffsetsRequest};
use crate::model::{ErrorCode, LeaderEpoch};
use crate::partition::is_final;
use crate::transactions::api::{EndRequest, InitializeRequest, Producer, Refusal, TransactionalId};
use crate::transactions::{Reply, Request, VERSION};

/// Instances that stand still, at most.
const ZOMBIES: usize = 2;
/// Batch ids of transactors; those of other producers are smaller.
const OWN_BATCH: u64 = 1 << 48;

/// `transactional.id`
pub fn transactional_id(index: usize) -> TransactionalId {
    Arc::from(format!("x{index}"))
}

#[derive(Clone, Debug)]
enum Doing {
    Initializing,
    /// Asking where its group was: with acknowledgements that the answer may
    /// not miss, by partition.
    Fetching(Vec<usize>),
    Between,
    Writing(Writing),
    /// Committing, or aborting.
    Ending(bool),
    Over,
}

/// A transaction.
#[derive(Clone, Debug)]
struct Writing {
    /// Batches still to be written.
    left: i64,
    commit: bool,
    /// The next sequence, by partition.
    sequences: BTreeMap<usize, i32>,
    /// The batch on its way.
    sending: Option<(usize, Produce)>,
    /// Offsets of a group are still to be committed in it: partition and offset.
    offsets: Option<(usize, i64)>,
}

#[derive(Clone, Debug)]
struct Instance {
    producer: Producer,
    doing: Doing,
    /// Number of the request on its way; 0: there is none.
    asked: u64,
    /// It does nothing before, or gives the request up then.
    until: i64,
    /// Another one has taken its place.
    is_zombie: bool,
    /// It stands still until then, and hears nothing.
    wakes_at: i64,
}

pub struct Transactor {
    index: usize,
    current: Instance,
    /// Instances that another one has taken the place of.
    zombies: Vec<Instance>,
    /// The current instance is the last one.
    last: bool,
    timeout_ms: i32,
    sent: u64,
}

/// State that the instances of one transactional id share.
struct Shared<'a> {
    index: usize,
    timeout_ms: i32,
    sent: &'a mut u64,
}

impl Transactor {
    pub fn new(index: usize, io: &mut Io) -> Transactor {
        let timeout_ms = io.rng.between(400, 3_000) as i32;
        Transactor { index, current: Instance::new(0), zombies: Vec::new(), last: false, timeout_ms, sent: 0 }
    }

    pub fn is_idle(&self) -> bool {
        self.last && self.zombies.is_empty() && matches!(self.current.doing, Doing::Between)
    }

    /// `more`: new transactions are wanted. Once they are not, the last instance starts.
    pub fn tick(&mut self, leaders: &Leaders, more: bool, io: &mut Io) {
        if !more && !self.last {
            self.last = true;
            self.replace(io);
        } else if more && self.zombies.len() < ZOMBIES && io.rng.below(1_000) < 4 {
            self.replace(io);
        }
        let mut shared = Shared { index: self.index, timeout_ms: self.timeout_ms, sent: &mut self.sent };
        for instance in self.zombies.iter_mut().chain([&mut self.current]) {
            instance.tick(leaders, more, &mut shared, io);
        }
        self.bury(io);
    }

    /// The instance stands still, and another one starts.
    fn replace(&mut self, io: &mut Io) {
        let before = std::mem::replace(&mut self.current, Instance::new(io.now));
        let wakes_at = io.now + io.rng.between(10, 4_000);
        self.zombies.push(Instance { wakes_at, is_zombie: true, ..before });
    }

    fn bury(&mut self, io: &mut Io) {
        self.zombies.retain(|zombie| !matches!(zombie.doing, Doing::Over));
        if matches!(self.current.doing, Doing::Over) {
            self.current = Instance::new(io.now + io.rng.between(20, 300));
        }
    }

    /// The instance that waits for this answer.
    fn asking(&mut self, number: u64) -> Option<&mut Instance> {
        self.zombies.iter_mut().chain([&mut self.current]).find(|instance| instance.asked == number)
    }

    pub fn answered(&mut self, number: u64, result: Result<i64, ErrorCode>, io: &mut Io) {
        if let Some(instance) = self.asking(number) {
            instance.answered(result, io);
        }
        self.bury(io);
    }

    /// The coordinator answers.
    pub fn told(&mut self, number: u64, result: Result<Reply, ErrorCode>, io: &mut Io) {
        if let Some(instance) = self.asking(number) {
            instance.told(result, io);
        }
        self.bury(io);
    }
}

impl Transactor {
    /// The coordinator of its group answers, in this epoch.
    pub fn grouped(&mut self, number: u64, epoch: LeaderEpoch, result: Result<groups::Reply, ErrorCode>, io: &mut Io) {
        let group = transactional_id(self.index);
        if let Some(instance) = self.asking(number) {
            instance.grouped(&group, epoch, result, io);
        }
    }
}

impl Instance {
    fn new(until: i64) -> Instance {
        Instance {
            producer: Producer::NONE,
            doing: Doing::Initializing,
            asked: 0,
            until,
            is_zombie: false,
            wakes_at: 0,
        }
    }

    fn tick(&mut self, leaders: &Leaders, more: bool, shared: &mut Shared, io: &mut Io) {
        if io.now < self.until.max(self.wakes_at) {
            return;
        }
        self.asked = 0;
        match &mut self.doing {
            Doing::Initializing => {
                let (id, timeout_ms) = (transactional_id(shared.index), shared.timeout_ms);
                let request = InitializeRequest { id, timeout_ms, expected: None, fresh_id: None };
                self.ask(Request::Initialize(request), leaders, shared, io);
            }
            Doing::Fetching(_) => self.fetch_offsets(leaders, shared, io),
            Doing::Between if more || self.is_zombie => {
                let (left, commit) = (io.rng.between(0, 4), io.rng.chance(75));
                // Nothing is committed of an empty transaction.
                let commit = commit && left > 0;
                let last = leaders.len() as i64 - 1;
                let at = io.rng.between(FIRST as i64, last) as usize;
                let offsets = (left > 0 && io.rng.chance(40)).then(|| (at, io.rng.between(0, 1_000)));
                self.doing =
                    Doing::Writing(Writing { left, commit, sequences: BTreeMap::new(), sending: None, offsets });
            }
            Doing::Writing(writing) => {
                let is_given_up = writing.sending.is_some() && io.rng.chance(12);
                let is_written = writing.sending.is_none() && writing.left == 0;
                match writing.offsets {
                    _ if is_given_up => self.doing = Doing::Ending(false),
                    Some(offset) if is_written => self.commit_offset(offset, leaders, shared, io),
                    None if is_written => self.doing = Doing::Ending(writing.commit),
                    _ => self.send(leaders, shared, io),
                }
            }
            Doing::Ending(commit) => {
                let (id, producer, commit) = (transactional_id(shared.index), self.producer, *commit);
                let request = EndRequest { id, producer, commit, version: VERSION, fresh_id: None };
                self.ask(Request::End(request), leaders, shared, io);
            }
            Doing::Between | Doing::Over => {}
        }
    }

    fn ask(&mut self, request: Request, leaders: &Leaders, shared: &Shared, io: &mut Io) {
        (self.asked, self.until) = (io.number(), io.now + TIMEOUT_MS);
        if let Some((coordinator, _)) = leaders[TRANSACTIONS] {
            let (from, to) = (Address::Transactor(shared.index), Address::Broker(coordinator));
            io.send(from, to, TRANSACTIONS, self.asked, Payload::Transact(Box::new(request)));
        }
    }

    fn ask_group(&mut self, payload: Payload, leaders: &Leaders, shared: &Shared, io: &mut Io) {
        (self.asked, self.until) = (io.number(), io.now + TIMEOUT_MS);
        if let Some((coordinator, _)) = leaders[OFFSETS] {
            let (from, to) = (Address::Transactor(shared.index), Address::Broker(coordinator));
            io.send(from, to, OFFSETS, self.asked, payload);
        }
    }

    /// Asks where its group was. Offsets of a transaction that is open are waited for.
    fn fetch_offsets(&mut self, leaders: &Leaders, shared: &Shared, io: &mut Io) {
        let group = transactional_id(shared.index);
        let partitions = FIRST..leaders.len();
        let seen = partitions.clone().map(|at| io.checker.offsets_acknowledged(&(group.to_string(), number_of(at))));
        self.doing = Doing::Fetching(seen.collect());
        let topics = vec![(Arc::from(TOPIC), partitions.map(number_of).collect())];
        let request = FetchOffsetsRequest { group, member: None, topics: Some(topics), require_stable: true };
        self.ask_group(Payload::Group(Box::new(request.into())), leaders, shared, io);
    }

    fn commit_offset(&mut self, (at, offset): (usize, i64), leaders: &Leaders, shared: &Shared, io: &mut Io) {
        let partition =
            CommitPartition { index: number_of(at), offset, leader_epoch: -1, metadata: io.number().to_string() };
        let request = CommitRequest {
            group: transactional_id(shared.index),
            generation: -1,
            member_id: String::new(),
            instance_id: None,
            retention_ms: None,
            knows_member_epochs: true,
            producer: Some((self.producer.id, self.producer.epoch)),
            topics: vec![CommitTopic { name: Arc::from(TOPIC), id: Uuid::nil(), partitions: vec![partition] }],
        };
        let payload = Payload::GroupInTransaction(Box::new(request), shared.index);
        self.ask_group(payload, leaders, shared, io);
    }

    /// The coordinator of its group answers, in this epoch.
    fn grouped(&mut self, group: &str, epoch: LeaderEpoch, result: Result<groups::Reply, ErrorCode>, io: &mut Io) {
        if io.now < self.wakes_at {
            return;
        }
        self.asked = 0;
        self.until = io.now + io.rng.between(20, 150);
        match (&mut self.doing, result) {
            (Doing::Fetching(seen), Ok(groups::Reply::FetchOffsets(reply))) => {
                let fetched: Vec<_> = reply.topics.into_iter().flat_map(|(_, fetched)| fetched).collect();
                let is_open = fetched.iter().any(|fetched| fetched.error == ErrorCode::UnstableOffsetCommit);
                // The record that ends the transaction may be lost.
                let may_stay_open = [OFFSETS, TRANSACTIONS].into_iter().any(|at| io.checker.has_lost(at));
                if is_open && !may_stay_open {
                    io.checker.mark(Mark::UnstableOffsets);
                    return;
                }
                for (fetched, seen) in fetched.into_iter().zip(seen) {
                    if fetched.error == ErrorCode::None {
                        let key = (group.to_owned(), fetched.index);
                        io.checker.offset_read(&key, epoch.0, *seen, &fetched.metadata, fetched.offset);
                    }
                }
                self.doing = Doing::Between;
            }
            (Doing::Writing(writing), Ok(groups::Reply::CommitOffsets(reply))) => {
                let mut codes = reply.topics.iter().flat_map(|topic| &topic.partitions);
                if let Some((_, code)) = codes.find(|(_, code)| *code != ErrorCode::None) {
                    return io.checker.broken("a commit is refused", format!("{group}: {code:?}"));
                }
                writing.offsets = None;
            }
            (Doing::Writing(_), Err(code)) if is_final(code) => self.doing = Doing::Ending(false),
            (Doing::Fetching(_) | Doing::Writing(_), Err(_)) => {}
            (doing, result) => {
                io.checker.broken("a coordinator answers something else", format!("{doing:?}: {result:?}"));
            }
        }
    }

    /// Sends the batch on its way again, or the next one.
    fn send(&mut self, leaders: &Leaders, shared: &mut Shared, io: &mut Io) {
        let Doing::Writing(writing) = &mut self.doing else { return };
        let (partition, produce) = *writing.sending.get_or_insert_with(|| {
            let partition = io.rng.between(FIRST as i64, leaders.len() as i64 - 1) as usize;
            let count = io.rng.between(1, 3) as i32;
            *shared.sent += 1;
            writing.left -= 1;
            let sequence = writing.sequences.entry(partition).or_insert(0);
            let producer = Some((self.producer.id, self.producer.epoch, *sequence));
            *sequence += count;
            let id = OWN_BATCH | (shared.index as u64) << 32 | *shared.sent;
            (partition, Produce { id, count, producer, all: true, transactor: Some(shared.index) })
        });
        (self.asked, self.until) = (io.number(), io.now + TIMEOUT_MS);
        // Some are not waited for.
        if io.rng.chance(4) {
            self.until = io.now;
        }
        if let Some((leader, _)) = leaders[partition] {
            let (from, to) = (Address::Transactor(shared.index), Address::Broker(leader));
            io.send(from, to, partition, self.asked, Payload::Produce(produce));
        }
    }

    fn answered(&mut self, result: Result<i64, ErrorCode>, io: &mut Io) {
        if io.now < self.wakes_at {
            return;
        }
        let Doing::Writing(writing) = &mut self.doing else { return };
        self.asked = 0;
        self.until = io.now + io.rng.between(2, 60);
        match result {
            Ok(_) => writing.sending = None,
            Err(
                ErrorCode::InvalidProducerEpoch
                | ErrorCode::InvalidProducerIdMapping
                | ErrorCode::InvalidTxnState
                | ErrorCode::TransactionAbortable
                | ErrorCode::OutOfOrderSequenceNumber,
            ) => self.doing = Doing::Ending(false),
            Err(_) => self.until = io.now + io.rng.between(20, 150),
        }
    }

    fn told(&mut self, result: Result<Reply, ErrorCode>, io: &mut Io) {
        if io.now < self.wakes_at {
            return;
        }
        self.asked = 0;
        self.until = io.now + io.rng.between(2, 80);
        let result = match result {
            Ok(Reply::Producer(Ok(producer))) => Ok(producer),
            Ok(Reply::Producer(Err(Refusal::Error(code)))) | Err(code) => Err(code),
            other => return io.checker.broken("a coordinator answers something else", format!("{other:?}")),
        };
        match (&self.doing, result) {
            (Doing::Initializing, Ok(producer)) => {
                (self.producer, self.doing) = (producer, Doing::Fetching(Vec::new()))
            }
            (Doing::Ending(commit), Ok(producer)) => {
                io.checker.told_of_end(self.producer, *commit);
                self.producer = producer;
                self.doing = match self.is_zombie {
                    true => Doing::Over,
                    // Its markers may be on their way.
                    false if io.rng.chance(40) => Doing::Fetching(Vec::new()),
                    false => Doing::Between,
                };
            }
            (
                Doing::Initializing | Doing::Ending(_),
                Err(
                    ErrorCode::ConcurrentTransactions
                    | ErrorCode::NotCoordinator
                    | ErrorCode::CoordinatorLoadInProgress
                    | ErrorCode::CoordinatorNotAvailable,
                ),
            ) => self.until = io.now + io.rng.between(20, 150),
            (Doing::Ending(_), Err(code)) => {
                if self.is_zombie {
                    io.checker.mark(Mark::ZombieFenced);
                }
                io.note(|| format!("transactor: {:?} is over: {code}", self.producer));
                self.doing = Doing::Over;
            }
            (doing, result) => {
                let what = format!("{doing:?}: {result:?}");
                io.checker.broken("a coordinator refuses what is in order", what);
            }
        }
    }
}
