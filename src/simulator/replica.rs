//! One simulated replica: the rules of leader and follower over a model of the disk.

use std::rc::Rc;

use super::checker::Mark;
use super::coordinator::Hosted;
use super::disk::{Acknowledge, Batch, Crash, Disk};
use super::net::{Address, Consume, Io, Payload, Produce};
use super::stable::{Stable, header_of, note};
use crate::model::planted::{Planted, planted};
use crate::model::{BrokerId, ErrorCode, LeaderEpoch};
use crate::partition::{
    AckAll, Cuts, EpochHistory, FetchAnswer, Follower, FollowerFetch, Leader, LeaderAnswer, PartitionView,
    ProducerPool, ProducerStates, SequenceCheck, Step, Verified, Watermarks,
};
use crate::{groups, transactions};

/// Longest wait of a fetch that finds nothing, ms.
const WAIT_MS: i64 = 300;
/// A fetch without an answer is sent again after this, ms.
const TIMEOUT_MS: i64 = 900;
const PAUSE_MS: i64 = 50;
/// Batches of an answer.
const MOST: usize = 4;
/// Time between two notes of the high watermark, ms.
const CHECKPOINT_MS: i64 = 1_000;
/// Time in which a produce is answered after its leadership: as many waits of a
/// fetch as in a broker.
const AFTERMATH_MS: i64 = 4 * WAIT_MS;

pub enum Role {
    None,
    Leader(Box<Leader>),
    Follower(Follower),
}

/// A produce, or a marker, that waits for its acknowledgement.
pub struct Waiting {
    pub client: Address,
    pub number: u64,
    pub id: u64,
    pub base: i64,
    pub next: i64,
    pub all: bool,
    pub in_txn: bool,
    pub is_marker: bool,
    /// Cuts of the log before it was accepted.
    pub cuts: u32,
}

/// A batch for the whole ISR that was not committed when its leadership ended:
/// the next one may commit it.
struct Orphan {
    waits: Waiting,
    epoch: LeaderEpoch,
    until: i64,
}

/// A fetch that waits for records.
struct Parked {
    from: Address,
    number: u64,
    fetch: FollowerFetch,
    until: i64,
}

pub struct Replica {
    pub broker: usize,
    pub partition: usize,
    pub life: u32,
    pub disk: Disk,
    pub marks: Watermarks,
    pub history: EpochHistory,
    pub producers: ProducerStates,
    /// Its transactions.
    pub stable: Stable,
    pub role: Role,
    /// Of the last role.
    epoch: LeaderEpoch,
    /// Of groups, where the partition is that of `__consumer_offsets` and is led here.
    pub groups: Option<Box<Hosted<groups::Coordinator>>>,
    /// The same of transactions and `__transaction_state`.
    pub transactions: Option<Box<Hosted<transactions::Coordinator>>>,
    pub waiting: Vec<Waiting>,
    orphans: Vec<Orphan>,
    pub cuts: Cuts,
    parked: Vec<Parked>,
    /// The fetch under way and when it left.
    fetching: Option<(u64, i64)>,
    fetch_at: i64,
    leaders_high_watermark: i64,
    leaders_start: i64,
    noted_at: i64,
    /// Refused to lead this epoch; said once.
    refused: Option<LeaderEpoch>,
}

impl Replica {
    pub fn new(broker: usize, partition: usize, acknowledge: Acknowledge, pool: &Rc<ProducerPool>) -> Replica {
        let disk = Disk::new(acknowledge);
        Replica {
            broker,
            partition,
            life: 0,
            marks: marks_of(&disk),
            disk,
            history: EpochHistory::default(),
            producers: ProducerStates::new(pool),
            stable: Stable::default(),
            role: Role::None,
            epoch: LeaderEpoch(-1),
            groups: None,
            transactions: None,
            waiting: Vec::new(),
            orphans: Vec::new(),
            cuts: Cuts::default(),
            parked: Vec::new(),
            fetching: None,
            fetch_at: 0,
            leaders_high_watermark: 0,
            leaders_start: 0,
            noted_at: 0,
            refused: None,
        }
    }

    pub fn me(&self) -> Address {
        Address::Broker(self.broker)
    }

    /// The process ends. True if records are gone that were acknowledged.
    pub fn crash(&mut self, crash: Crash, clean: bool, rng: &mut crate::simulator::rng::Rng) -> bool {
        self.role = Role::None;
        self.groups = None;
        self.transactions = None;
        self.waiting.clear();
        self.orphans.clear();
        self.parked.clear();
        self.fetching = None;
        if clean {
            // Everything is synced and noted.
            self.disk.checkpoint = self.marks.high_watermark();
            if !self.disk.failed {
                self.disk.ends.held = self.disk.ends.appended;
                self.disk.crash(Crash::Kill, rng);
                return false;
            }
        }
        let acknowledged = self.disk.ends.acknowledged;
        self.disk.crash(crash, rng) < acknowledged
    }

    /// The log is opened by a new process.
    pub fn open(&mut self, pool: &Rc<ProducerPool>) {
        self.history = self.disk.epochs();
        self.producers = ProducerStates::new(pool);
        self.stable = Stable::default();
        for batch in self.disk.of_producers() {
            self.stable.note(batch, &mut self.producers);
        }
        self.marks = marks_of(&self.disk);
        self.leaders_high_watermark = 0;
        self.leaders_start = 0;
        self.refused = None;
        self.epoch = LeaderEpoch(-1);
    }

    /// The partition is no longer assigned here.
    pub fn remove(&mut self) {
        self.disk.reset(0, 0);
        self.cuts.cut_to(None);
        self.history = EpochHistory::default();
        self.producers.forget_all();
        self.stable.cut(0, &self.producers);
        self.marks = marks_of(&self.disk);
    }

    // ---- roles

    pub fn lead(&mut self, me: BrokerId, life: u32, view: PartitionView, lag_ms: i64, io: &mut Io) {
        self.life = life;
        let (end, epoch) = (self.disk.ends.appended, view.leader_epoch);
        let before = match &self.role {
            Role::Leader(leader) => Some(leader.epoch()),
            _ => None,
        };
        let led = match &mut self.role {
            Role::Leader(leader) => leader.update(view, &mut self.history, end, io.now),
            _ => Leader::take_over(me, view, lag_ms, &mut self.history, end, io.now).map(|leader| {
                self.role = Role::Leader(Box::new(leader));
                self.fetching = None;
            }),
        };
        match led {
            Ok(()) => {
                self.epoch = epoch;
                if before != Some(epoch) {
                    io.note(|| format!("broker {}: leads {} in epoch {epoch} from {end}", self.broker, self.partition));
                    io.checker.led(self.partition, self.broker, epoch.0, &self.disk);
                    // After an election that has lost records it may know more
                    // than anybody has seen.
                    let known = self.marks.high_watermark();
                    io.checker.committed(self.partition, self.broker, epoch.0, &self.disk, known);
                    self.answer_parked(true, io);
                }
                self.moved(io);
            }
            Err(why) => {
                if self.refused != Some(epoch) {
                    io.note(|| format!("broker {}: does not lead {}: {why}", self.broker, self.partition));
                }
                self.refused = Some(epoch);
                self.leave(io);
            }
        }
    }

    /// Tells a leader how long the metadata store has been away.
    pub fn set_apart(&mut self, apart_ms: Option<i64>) {
        if let Role::Leader(leader) = &mut self.role {
            leader.set_apart(apart_ms);
        }
    }

    pub fn follow(&mut self, leader: BrokerId, epoch: LeaderEpoch, io: &mut Io) {
        if matches!(&self.role, Role::Follower(current) if *current == Follower { leader, epoch }) {
            return;
        }
        self.leave(io);
        let (end, follower) = (self.disk.ends.appended, Follower { leader, epoch });
        if !follower.begin(self.epoch, &mut self.history, end) {
            io.checker.mark(Mark::OlderMetadata);
            return;
        }
        self.epoch = epoch;
        self.role = Role::Follower(follower);
        self.fetch_at = io.now;
        self.leaders_high_watermark = 0;
        self.leaders_start = 0;
    }

    /// Ends the role: whoever waits is told.
    pub fn leave(&mut self, io: &mut Io) {
        if let Role::Leader(leader) = &self.role {
            let epoch = leader.epoch();
            io.note(|| format!("broker {}: leads {} no longer", self.broker, self.partition));
            let until = io.now + AFTERMATH_MS;
            for waits in std::mem::take(&mut self.waiting) {
                if planted(Planted::AckWithoutLeadership) {
                    self.settled(&waits, Ok(waits.base), epoch, io);
                } else if waits.all && !waits.is_marker {
                    self.orphans.push(Orphan { waits, epoch, until });
                } else {
                    self.settled(&waits, Err(ErrorCode::NotLeaderOrFollower), epoch, io);
                }
            }
        }
        self.role = Role::None;
        self.fetching = None;
        self.answer_parked(true, io);
        self.coordinate(io);
    }

    // ---- the log moves

    /// The disk gets further.
    pub fn progress(&mut self, io: &mut Io) {
        let before = self.disk.ends;
        self.disk.progress(&mut io.rng);
        if self.disk.ends != before {
            self.moved(io);
        }
    }

    /// Takes over the log's ends, and whatever follows from them.
    pub fn moved(&mut self, io: &mut Io) {
        let observed = self.marks.observe(self.disk.ends);
        if let Err(error) = observed {
            io.checker.broken("the ends of a log", format!("broker {}: {error}", self.broker));
        }
        let mut epoch = LeaderEpoch(-1);
        let advanced = match &mut self.role {
            Role::Leader(leader) => {
                if self.disk.failed {
                    leader.log_failed();
                }
                epoch = leader.epoch();
                leader.advance(&mut self.marks, io.now)
            }
            Role::Follower(follower) => {
                let moved = self.marks.follow(self.leaders_high_watermark);
                if let Some(start) = follower.next_start(self.leaders_start, &self.marks) {
                    self.disk.trim(start);
                }
                Ok(moved)
            }
            Role::None => Ok(false),
        };
        match advanced {
            Ok(true) if epoch.0 >= 0 => {
                let to = self.marks.high_watermark();
                io.note(|| format!("broker {}: partition {} is committed up to {to}", self.broker, self.partition));
                io.checker.committed(self.partition, self.broker, epoch.0, &self.disk, to);
            }
            Ok(_) => {}
            Err(error) => io.checker.broken("the ends of a log", format!("broker {}: {error}", self.broker)),
        }
        if io.now - self.noted_at > CHECKPOINT_MS && !self.disk.failed {
            self.noted_at = io.now;
            self.disk.checkpoint = self.marks.high_watermark();
        }
        self.stable.committed(self.marks.high_watermark());
        self.settle(io);
        self.coordinate(io);
        self.answer_parked(false, io);
        io.touch(self.partition);
    }

    fn settled(&self, waits: &Waiting, result: Result<i64, ErrorCode>, epoch: LeaderEpoch, io: &mut Io) {
        // A coordinator that has lost records gives epochs twice: a batch may be
        // taken for one of before.
        let may_be_another = waits.in_txn && !waits.is_marker && !io.checker.knows_outcomes();
        if result.is_ok() && waits.all && !may_be_another {
            io.checker.acked(self.partition, epoch.0, waits.id, waits.base);
        }
        let payload = match waits.is_marker {
            true => Payload::MarkerWritten(result.map(drop)),
            false => Payload::Produced(result, epoch),
        };
        io.send(self.me(), waits.client, self.partition, waits.number, payload);
    }

    /// Answers produces of earlier leaderships whose fate is known, or is not to be known in time.
    fn settle_orphans(&mut self, io: &mut Io) {
        let hw = self.marks.high_watermark();
        for orphan in std::mem::take(&mut self.orphans) {
            let spared = self.cuts.spared(orphan.waits.cuts, orphan.waits.next);
            let result = match (io.now >= orphan.until || !spared, hw >= orphan.waits.next) {
                (true, _) => Err(ErrorCode::NotLeaderOrFollower),
                (_, true) => {
                    io.checker.mark(Mark::AckedAfterwards);
                    Ok(orphan.waits.base)
                }
                _ if self.disk.failed => Err(ErrorCode::KafkaStorageError),
                _ => {
                    self.orphans.push(orphan);
                    continue;
                }
            };
            self.settled(&orphan.waits, result, orphan.epoch, io);
        }
    }

    /// Answers produces whose wait is over.
    fn settle(&mut self, io: &mut Io) {
        self.settle_orphans(io);
        let Role::Leader(leader) = &self.role else { return };
        let epoch = leader.epoch();
        let (hw, acknowledged) = (self.marks.high_watermark(), self.marks.ends().acknowledged);
        let (mut still, mut settled) = (Vec::new(), Vec::new());
        for waits in std::mem::take(&mut self.waiting) {
            let state = match waits.all {
                true if waits.is_marker && planted(Planted::MarkerAckedEarly) => AckAll::Committed,
                true => leader.ack_all(waits.next, hw),
                false if acknowledged >= waits.next => AckAll::Committed,
                false if self.disk.failed => AckAll::Refused(ErrorCode::KafkaStorageError),
                false => AckAll::Pending,
            };
            let result = match state {
                AckAll::Pending => {
                    still.push(waits);
                    continue;
                }
                AckAll::Committed => Ok(waits.base),
                AckAll::Refused(code) => Err(code),
            };
            settled.push((waits, result));
        }
        self.waiting = still;
        for (waits, result) in settled {
            self.settled(&waits, result, epoch, io);
        }
    }

    // ---- clients

    /// `apart`: it has heard of neither the store nor a replica for longer than a session lasts.
    pub fn produce(&mut self, from: Address, number: u64, produce: Produce, apart: bool, io: &mut Io) {
        let verified = match self.verify(from, number, &produce, io) {
            Ok(Some(verified)) => Ok(verified),
            Ok(None) => return,
            Err(code) => Err(code),
        };
        self.take(from, number, produce, verified, apart, io);
    }

    /// As [`produce`](Self::produce), once the batch is verified, or refused.
    pub fn take(
        &mut self,
        from: Address,
        number: u64,
        produce: Produce,
        verified: Result<Verified, ErrorCode>,
        apart: bool,
        io: &mut Io,
    ) {
        let before = self.disk.ends.appended;
        let accepted = verified.and_then(|verified| self.accept(from, number, produce, verified, io));
        let has_others = matches!(&self.role, Role::Leader(leader) if leader.has_others_in_sync());
        if apart && has_others && self.disk.ends.appended > before {
            let what = format!("partition {}, broker {}: offset {before}", self.partition, self.broker);
            io.checker.broken("a leader that is cut off takes records", what);
        }
        if let Err(code) = accepted {
            let epoch = match &self.role {
                Role::Leader(leader) => leader.epoch(),
                _ => LeaderEpoch(-1),
            };
            io.send(self.me(), from, self.partition, number, Payload::Produced(Err(code), epoch));
        }
    }

    /// Epoch that records are taken in now; `all`: the whole ISR is to acknowledge them.
    pub fn may_append(&self, all: bool, io: &mut Io) -> Result<LeaderEpoch, ErrorCode> {
        let Role::Leader(leader) = &self.role else { return Err(ErrorCode::NotLeaderOrFollower) };
        leader.check_epoch(None)?;
        if self.disk.failed {
            return Err(ErrorCode::KafkaStorageError);
        }
        if leader.is_apart() && leader.may_be_replaced(io.now) {
            io.checker.mark(Mark::RefusesApart);
            return Err(ErrorCode::NotLeaderOrFollower);
        }
        if all && let Err(code) = leader.may_append_for_all() {
            io.checker.mark(Mark::BelowMinimum);
            return Err(code);
        }
        Ok(leader.epoch())
    }

    /// Appends a batch of a leader in its epoch.
    pub fn append(&mut self, batch: Batch, io: &mut Io) -> Batch {
        let batch = self.disk.append(batch);
        io.note(|| format!("broker {}: partition {} appends {batch:?}", self.broker, self.partition));
        io.checker.wrote(self.partition, self.broker, self.life, batch.epoch);
        io.checker.appended(self.partition, self.broker, &batch);
        self.stable.note(&batch, &mut self.producers);
        batch
    }

    fn accept(
        &mut self,
        client: Address,
        number: u64,
        produce: Produce,
        verified: Verified,
        io: &mut Io,
    ) -> Result<(), ErrorCode> {
        let epoch = self.may_append(produce.all, io)?.0;
        let Produce { id, count, producer, all, transactor } = produce;
        let base = self.disk.ends.appended;
        let batch = Batch { base, count, epoch, id, producer, in_txn: transactor.is_some(), ..Batch::default() };
        let header = header_of(&batch);
        let (mut base, mut next) = (batch.base, batch.next());
        match header.as_ref().map_or(SequenceCheck::Next, |header| self.producers.check(header)) {
            SequenceCheck::Next => {
                if let Some(header) = header.filter(|_| batch.in_txn) {
                    self.stable.verifications.admit(&header, verified, &self.producers)?;
                }
                self.append(batch, io);
            }
            SequenceCheck::Duplicate { base_offset, next_offset } => {
                io.checker.mark(Mark::Duplicate);
                (base, next) = (base_offset, next_offset);
            }
            SequenceCheck::Refused(code) => return Err(code),
        }
        let cuts = self.cuts.count();
        self.waiting.push(Waiting {
            client,
            number,
            id,
            base,
            next,
            all,
            in_txn: batch.in_txn,
            is_marker: false,
            cuts,
        });
        self.moved(io);
        Ok(())
    }

    pub fn consume(&mut self, from: Address, number: u64, consume: Consume, io: &mut Io) {
        let result = match &self.role {
            Role::Leader(leader) => leader.check_epoch(Some(consume.epoch)).and_then(|()| {
                if !(self.disk.ends.start..=self.disk.ends.appended).contains(&consume.offset) {
                    return Err(ErrorCode::OffsetOutOfRange);
                }
                let records = self.read(&consume);
                io.checker.served(self.partition, leader.epoch().0, &records.batches);
                Ok(records)
            }),
            _ => Err(ErrorCode::NotLeaderOrFollower),
        };
        io.send(self.me(), from, self.partition, number, Payload::Consumed(result));
    }

    /// Deletes records below the high watermark, but for the last `keep` batches.
    pub fn trim(&mut self, keep: usize, io: &mut Io) {
        if !matches!(self.role, Role::Leader(_)) || self.disk.failed {
            return;
        }
        let hw = self.marks.high_watermark();
        let committed = self.disk.batches.partition_point(|batch| batch.next() <= hw);
        let Some(last) = committed.checked_sub(keep + 1).map(|at| self.disk.batches[at].next()) else { return };
        io.note(|| format!("broker {}: partition {} begins at {last}", self.broker, self.partition));
        self.disk.trim(last);
        io.checker.trimmed(self.partition, last);
        self.moved(io);
    }

    // ---- followers, as their leader

    pub fn fetch(&mut self, from: Address, number: u64, fetch: FollowerFetch, io: &mut Io) {
        let Role::Leader(leader) = &mut self.role else {
            return self.answer(from, number, &fetch, FetchAnswer::Refuse(ErrorCode::NotLeaderOrFollower), io);
        };
        let answer = leader.fetched(&fetch, self.marks.ends(), &self.history, io.now);
        match answer {
            FetchAnswer::Serve { up_to } if up_to <= fetch.offset => {
                self.parked.push(Parked { from, number, fetch, until: io.now + WAIT_MS });
            }
            FetchAnswer::Diverging { .. } => {
                io.checker.mark(Mark::DivergingEpoch);
                self.answer(from, number, &fetch, answer, io);
            }
            _ => self.answer(from, number, &fetch, answer, io),
        }
        self.moved(io);
    }

    /// Fetches that wait are answered when there is something for them, when they have waited long
    /// enough, or `all` of them.
    fn answer_parked(&mut self, all: bool, io: &mut Io) {
        for parked in std::mem::take(&mut self.parked) {
            let sent = self.marks.ends().sent;
            if !all && sent <= parked.fetch.offset && io.now < parked.until {
                self.parked.push(parked);
                continue;
            }
            let leads = matches!(&self.role, Role::Leader(leader)
                if leader.epoch() == parked.fetch.leader_epoch && !leader.is_deposed());
            let answer = match leads {
                true => FetchAnswer::Serve { up_to: sent },
                false => FetchAnswer::Refuse(ErrorCode::NotLeaderOrFollower),
            };
            self.answer(parked.from, parked.number, &parked.fetch, answer, io);
        }
    }

    fn answer(&self, to: Address, number: u64, fetch: &FollowerFetch, answer: FetchAnswer, io: &mut Io) {
        let (start, high_watermark) = (self.marks.ends().start, self.marks.high_watermark());
        let mut batches = Vec::new();
        let mut origin = self.disk.chain_before(start);
        let answer = match answer {
            FetchAnswer::Serve { up_to } => {
                batches = self.disk.read(fetch.offset, up_to, MOST);
                origin = self.disk.chain_before(fetch.offset);
                LeaderAnswer::Records { first: batches.first().map(|batch| batch.base), high_watermark, start }
            }
            FetchAnswer::Diverging { epoch, end } => LeaderAnswer::Diverging { epoch, end },
            FetchAnswer::Refuse(ErrorCode::OffsetOutOfRange) => LeaderAnswer::OutOfRange { start },
            FetchAnswer::Refuse(code) => LeaderAnswer::Refused(code),
        };
        let payload = Payload::Fetched { epoch: fetch.leader_epoch, answer, batches, origin };
        io.send(self.me(), to, self.partition, number, payload);
    }

    // ---- as a follower

    /// Periodic work.
    pub fn tick(&mut self, broker_epoch: i64, io: &mut Io) {
        if self.fetching.is_some_and(|(_, at)| io.now - at > TIMEOUT_MS) {
            self.fetching = None;
        }
        self.try_fetch(broker_epoch, io);
        self.tick_coordinators(io);
        self.give_up_verifications(io);
        self.moved(io);
    }

    /// Sends the next fetch if it is due.
    pub fn try_fetch(&mut self, broker_epoch: i64, io: &mut Io) {
        let Role::Follower(follower) = &self.role else { return };
        if self.fetching.is_some() || io.now < self.fetch_at || self.disk.failed {
            return;
        }
        let Some(next) = follower.next_fetch(&self.marks, &self.history) else { return };
        let fetch = FollowerFetch {
            broker: BrokerId(self.broker as i32),
            broker_epoch,
            leader_epoch: next.leader_epoch,
            offset: next.offset,
            last_epoch: next.last_epoch,
        };
        let (to, number) = (Address::Broker(follower.leader.0 as usize), io.number());
        self.fetching = Some((number, io.now));
        io.send(self.me(), to, self.partition, number, Payload::Fetch(fetch));
    }

    pub fn fetched(
        &mut self,
        number: u64,
        epoch: LeaderEpoch,
        answer: LeaderAnswer,
        batches: &[Batch],
        origin: u64,
        io: &mut Io,
    ) {
        let Role::Follower(follower) = &self.role else { return };
        if self.fetching.map(|(number, _)| number) != Some(number) || follower.epoch != epoch || self.disk.failed {
            return;
        }
        self.fetching = None;
        let step = follower.answered(&answer, &self.marks, &self.history);
        match step {
            Step::Append { begin, high_watermark, start } => {
                if let Some(begin) = begin {
                    self.begin_at(begin, origin);
                }
                self.append_as_is(batches, origin, io);
                self.leaders_high_watermark = high_watermark;
                self.leaders_start = start;
            }
            Step::Cut { to, committed } => {
                io.note(|| format!("broker {}: cuts {} to {to}, {answer:?}", self.broker, self.partition));
                io.checker.mark(Mark::Truncation);
                if let Some(committed) = committed {
                    io.checker.cut_committed(self.partition, self.broker, to, committed);
                }
                self.cut(to);
            }
            Step::Reset { begin } => {
                io.note(|| format!("broker {}: begins {} at {begin}", self.broker, self.partition));
                io.checker.mark(Mark::Reset);
                self.begin_at(begin, origin);
            }
            Step::Retry => self.fetch_at = io.now + PAUSE_MS,
            Step::Wait => self.fetch_at = io.now + 4 * PAUSE_MS,
            Step::Refuse { first, end } => {
                let what = format!("broker {} ends at {end}, records from {first}", self.broker);
                io.checker.broken("records behind the end of a follower", what);
            }
        }
        self.moved(io);
    }

    /// Has the log be empty, and begin there.
    fn begin_at(&mut self, begin: i64, origin: u64) {
        self.disk.reset(begin, origin);
        self.cuts.cut_to(None);
        self.marks.reset(begin);
        self.history = EpochHistory::default();
        self.producers.forget_all();
        self.stable.cut(begin, &self.producers);
    }

    fn append_as_is(&mut self, batches: &[Batch], origin: u64, io: &mut Io) {
        if self.disk.batches.is_empty() && self.disk.ends.appended > 0 {
            self.disk.reset(self.disk.ends.appended, origin);
        }
        for batch in batches {
            self.history.assign(batch.epoch, batch.base);
            let batch = self.disk.append(*batch);
            io.checker.appended(self.partition, self.broker, &batch);
            self.stable.note(&batch, &mut self.producers);
        }
    }

    fn cut(&mut self, to: i64) {
        let end = self.disk.cut(to);
        self.cuts.cut_to(Some(end));
        self.marks.cut(end);
        self.history.truncate(end);
        // An epoch that begins at the end has nothing left.
        if !planted(Planted::ProducersNotCut) {
            let cut = self.producers.forget_after(end);
            for batch in self.disk.of_producers() {
                if batch.producer.is_some_and(|(id, ..)| cut.contains(&id)) {
                    note(batch, &mut self.producers);
                }
            }
        }
        self.stable.cut(end, &self.producers);
    }
}

fn marks_of(disk: &Disk) -> Watermarks {
    let checkpoint = disk.checkpoint.clamp(disk.ends.start, disk.ends.acknowledged);
    let ends = crate::partition::Ends::synced(disk.ends.start, disk.ends.appended);
    // A log that was opened is synced: its ends are in order.
    match Watermarks::opened(ends, checkpoint) {
        Ok(marks) => marks,
        Err(error) => unreachable!("{error}"),
    }
}
