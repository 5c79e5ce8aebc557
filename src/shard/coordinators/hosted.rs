//! One coordinator over its partition, and all those of a shard.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::deadlines::Deadlines;
use crate::coordinator::wire::BadRecord;
use crate::coordinator::{Stage, Tenure, Ticket};
use crate::model::{ErrorCode, PartitionId, records};
use crate::observe::metrics::Cause;
use crate::partition::{AckWait, Rejected, Replica, Term};
use crate::runtime::sync::{Notify, OneshotReceiver, OneshotSender, oneshot};
use crate::runtime::{clock, spawn_local, waits};
use crate::{groups, transactions};

/// Records of one call go into batches of about so many bytes: most calls into one.
const BATCH_BYTES: usize = 256 << 10;

/// The rules of a coordinator, without I/O.
pub trait Core: Default + 'static {
    type Reply: 'static;
    /// Work outside, due once everything before it is committed.
    type Deed: 'static;
    /// Name of the topic of its partitions.
    const TOPIC: &'static str;
    /// Its contents, for the log.
    const KEEPS: &'static str;

    /// A record of the log, in order, while it is being loaded. `producer_id`: of a
    /// transaction that wrote it.
    fn replay(&mut self, producer_id: Option<i64>, key: &[u8], value: Option<&[u8]>) -> Result<(), BadRecord>;

    /// The end of a transaction in the log, in order with the records.
    fn replay_marker(&mut self, producer_id: i64, commit: bool);

    /// When it is due next, by the clock that never goes back.
    fn next_deadline(&self) -> Option<u64>;

    /// Memory charged for all that it keeps.
    fn bytes(&self) -> usize;
}

/// Result of a call of a coordinator.
pub struct Outcome<C: Core> {
    /// Keys and values to be appended, all of one call together; `None` is a tombstone.
    pub records: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// The producer (id and epoch) in whose transaction they are written.
    pub producer: Option<(i64, i16)>,
    pub replies: Vec<(Ticket, C::Reply)>,
    pub deeds: Vec<C::Deed>,
}

/// The coordinators of a shard.
#[derive(Default)]
pub struct Coordinators {
    pub groups: Hosts<groups::Coordinator>,
    pub transactions: Hosts<transactions::Coordinator>,
    /// Counts the images this shard has had.
    pub topics_version: Cell<u64>,
    pub deadlines: Rc<Deadlines>,
    pub memory: Rc<CoordinatorMemory>,
}

impl Coordinators {
    /// `memory_bytes`: this shard's share of `corelane.group.memory.bytes`.
    pub fn new(memory_bytes: usize) -> Coordinators {
        let memory = Rc::new(CoordinatorMemory { limit: memory_bytes, ..CoordinatorMemory::default() });
        Coordinators { memory, ..Coordinators::default() }
    }

    /// A coordinator over a partition of this shard; it is not served until it is inserted.
    pub fn host<C: Core>(&self, replica: Rc<Replica>) -> Rc<Hosted<C>> {
        Hosted::new(replica, self.deadlines.clone(), self.memory.clone())
    }
}

/// Coordinators of one kind, by their partition.
pub struct Hosts<C: Core>(RefCell<HashMap<PartitionId, Rc<Hosted<C>>>>);

impl<C: Core> Default for Hosts<C> {
    fn default() -> Hosts<C> {
        Hosts(RefCell::default())
    }
}

impl<C: Core> Hosts<C> {
    pub fn get(&self, partition: PartitionId) -> Option<Rc<Hosted<C>>> {
        self.0.borrow().get(&partition).cloned()
    }

    pub fn insert(&self, partition: PartitionId, hosted: Rc<Hosted<C>>) {
        self.0.borrow_mut().insert(partition, hosted);
    }

    /// Takes a coordinator out of service, if there is one.
    pub fn end(&self, partition: PartitionId) {
        let hosted = self.0.borrow_mut().remove(&partition);
        if let Some(hosted) = hosted {
            hosted.end();
        }
    }

    pub fn all(&self) -> Vec<Rc<Hosted<C>>> {
        self.0.borrow().values().cloned().collect()
    }
}

/// Memory that the coordinators of a shard may take, and take.
#[derive(Debug, Default)]
pub struct CoordinatorMemory {
    limit: usize,
    used: Cell<usize>,
}

impl CoordinatorMemory {
    /// Bytes taken, and the bound.
    pub fn bytes(&self) -> (usize, usize) {
        (self.used.get(), self.limit)
    }

    /// One coordinator's use changes.
    fn replace(&self, before: usize, after: usize) {
        self.used.set(self.used.get() + after - before);
    }
}

/// A reply or deed that waits until everything before it is committed. A reply goes to the task
/// that waits for it; dropped, it says that this is not the coordinator.
enum Held<C: Core> {
    Reply(OneshotSender<C::Reply>, C::Reply),
    Deed(C::Deed),
}

/// A question on its way.
pub type Asked<R> = Result<OneshotReceiver<R>, ErrorCode>;

/// Resolves to the reply, once everything that it rests on is written. Dropping the future forgoes
/// the reply, not the work.
pub async fn answer<R>(asked: Asked<R>) -> Result<R, ErrorCode> {
    waits::waiting(Cause::Group, asked?.recv()).await.ok_or(ErrorCode::NotCoordinator)
}

/// A coordinator over its partition.
pub struct Hosted<C: Core> {
    pub replica: Rc<Replica>,
    core: RefCell<C>,
    /// Those of all coordinators of the shard.
    deadlines: Rc<Deadlines>,
    memory: Rc<CoordinatorMemory>,
    /// Bytes that `core` is charged with in `memory`.
    charged: Cell<usize>,
    /// The leadership that it belongs to.
    term: Term,
    /// Its stage, and what waits until everything before it is acknowledged.
    tenure: RefCell<Tenure<Held<C>>>,
    next_ticket: Cell<u64>,
    /// Topics that were removed while it was loading.
    pub removed: RefCell<Vec<Arc<str>>>,
    /// Whose reply the core still owes.
    owed: RefCell<HashMap<Ticket, OneshotSender<C::Reply>>>,
    releasing: Cell<bool>,
    /// To be done now.
    deeds: RefCell<VecDeque<C::Deed>>,
    on_deed: Notify,
}

impl<C: Core> Hosted<C> {
    fn new(replica: Rc<Replica>, deadlines: Rc<Deadlines>, memory: Rc<CoordinatorMemory>) -> Rc<Hosted<C>> {
        Rc::new(Hosted {
            term: replica.term(),
            tenure: RefCell::new(Tenure::begin(replica.leader_epoch(), replica.log().next_offset())),
            replica,
            core: RefCell::default(),
            deadlines,
            memory,
            charged: Cell::new(0),
            next_ticket: Cell::new(0),
            removed: RefCell::default(),
            owed: RefCell::default(),
            releasing: Cell::new(false),
            deeds: RefCell::default(),
            on_deed: Notify::new(),
        })
    }

    pub fn stage(&self) -> Stage {
        self.tenure.borrow().stage()
    }

    /// The leadership that it belongs to goes on.
    pub fn is_in_office(&self) -> bool {
        self.replica.is_alone() || self.tenure.borrow().belongs_to(self.replica.led_epoch())
    }

    /// The leader epoch of its partition.
    pub fn epoch(&self) -> i32 {
        self.tenure.borrow().epoch().0
    }

    /// Every record before this is to be replayed.
    pub fn load_end(&self) -> i64 {
        self.tenure.borrow().load_end()
    }

    /// Shows the core something of the log, in order, while loading.
    pub fn replay<R>(&self, show: impl FnOnce(&mut C) -> R) -> R {
        show(&mut self.core.borrow_mut())
    }

    /// All of the log has been replayed. False if it has ended meanwhile, or serves already.
    pub fn serve(&self) -> bool {
        self.tenure.borrow_mut().serve()
    }

    /// Refuses what it cannot take at its stage.
    pub fn admit(&self) -> Result<(), ErrorCode> {
        self.tenure.borrow().admit()
    }

    /// Looks at the core; `None` unless it serves.
    pub fn look<R>(&self, look: impl FnOnce(&C) -> R) -> Option<R> {
        (self.stage() == Stage::Serving).then(|| look(&self.core.borrow()))
    }

    /// Runs a request through the core: `handle` is given its ticket.
    pub fn ask(self: &Rc<Self>, handle: impl FnOnce(&mut C, Ticket) -> Outcome<C>) -> Asked<C::Reply> {
        self.admit()?;
        let ticket = Ticket(self.next_ticket.get());
        self.next_ticket.set(ticket.0 + 1);
        let (sender, receiver) = oneshot();
        self.owed.borrow_mut().insert(ticket, sender);
        self.run(|core| handle(core, ticket));
        Ok(receiver)
    }

    /// True if its earliest deadline has come, and it serves; otherwise the deadline is noted anew.
    pub fn is_due(&self) -> bool {
        let due = self.core.borrow().next_deadline().is_some_and(|at| at <= clock::mono_ms());
        let due = due && self.stage() == Stage::Serving;
        if !due {
            self.note_deadline();
        }
        due
    }

    /// Takes the coordinator out of service; waiters are told that it is not the coordinator.
    pub fn end(&self) {
        drop(self.tenure.borrow_mut().end());
        self.owed.take();
        self.core.take();
        self.deeds.take();
        self.on_deed.notify_all();
        self.note_deadline();
        self.charge();
    }

    /// The next thing to be done outside; `None`: it has ended.
    pub async fn next_deed(&self) -> Option<C::Deed> {
        loop {
            if self.stage() == Stage::Ended {
                return None;
            }
            let (on_deed, deed) = (self.on_deed.notified(), self.deeds.borrow_mut().pop_front());
            match deed {
                Some(deed) => return Some(deed),
                None => on_deed.await,
            }
        }
    }

    fn charge(&self) {
        let bytes = self.core.borrow().bytes();
        self.memory.replace(self.charged.replace(bytes), bytes);
    }

    fn note_deadline(&self) {
        let next = match self.stage() {
            Stage::Serving => self.core.borrow().next_deadline(),
            Stage::Loading | Stage::Ended => None,
        };
        self.deadlines.set(self.replica.id, next);
    }

    /// Calls the core, and carries out what that comes to.
    pub fn run(self: &Rc<Self>, call: impl FnOnce(&mut C) -> Outcome<C>) {
        let outcome = call(&mut self.core.borrow_mut());
        self.note_deadline();
        self.charge();
        self.carry_out(outcome);
    }

    /// Tells the core of what others have appended to its partition, up to `next_offset`.
    pub fn appended(&self, next_offset: i64, tell: impl FnOnce(&mut C)) {
        self.tenure.borrow_mut().appended(next_offset);
        tell(&mut self.core.borrow_mut());
        self.charge();
    }

    fn carry_out(self: &Rc<Self>, outcome: Outcome<C>) {
        if let Err(error) = self.append(&outcome) {
            if !self.is_in_office() || is_closed(&error) {
                return self.end();
            }
            tracing::error!(
                topic = C::TOPIC, partition = %self.replica.id.index, %error,
                "the coordinator cannot write to its partition and ends: its {} are served again with the partition", C::KEEPS
            );
            self.end();
            return;
        }
        let mut tenure = self.tenure.borrow_mut();
        for (ticket, reply) in outcome.replies {
            if let Some(sender) = self.owed.borrow_mut().remove(&ticket) {
                tenure.hold(Held::Reply(sender, reply));
            }
        }
        for deed in outcome.deeds {
            tenure.hold(Held::Deed(deed));
        }
        drop(tenure);
        self.release();
    }

    fn append(&self, outcome: &Outcome<C>) -> Result<(), Rejected> {
        let mut rest = &outcome.records[..];
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |(key, value): &(Vec<u8>, Option<Vec<u8>>)| {
                let fits = bytes < BATCH_BYTES;
                bytes += key.len() + value.as_ref().map_or(0, Vec::len);
                fits
            };
            let count = rest.iter().map(fits).take_while(|fits| *fits).count();
            let (batch, others) = rest.split_at(count);
            self.append_batch(batch, outcome.producer)?;
            rest = others;
        }
        Ok(())
    }

    fn append_batch(&self, batch: &[(Vec<u8>, Option<Vec<u8>>)], producer: Option<(i64, i16)>) -> Result<(), Rejected> {
        let now_ms = clock::wall_ms();
        let bytes = match producer {
            Some((id, epoch)) => records::build_in_transaction(batch, now_ms, id, epoch),
            None => records::build(batch, now_ms),
        };
        let next_offset = self.replica.append_own(Bytes::from(bytes), now_ms)?.next_offset;
        self.tenure.borrow_mut().appended(next_offset);
        Ok(())
    }

    /// Sends the replies whose time has come; a task sees to the others.
    fn release(self: &Rc<Self>) {
        self.send_acknowledged();
        if self.waits_for().is_none() || self.releasing.replace(true) {
            return;
        }
        let hosted = self.clone();
        spawn_local(async move {
            hosted.release_all().await;
            hosted.releasing.set(false);
        });
    }

    async fn release_all(&self) {
        loop {
            let Some(offset) = self.waits_for() else { return };
            let wait = Rc::new(AckWait::default());
            self.replica.expect_commit(offset, self.term, &wait);
            wait.settled().await;
            // A committed record is answered for, however few replicas are in sync by now.
            let committed = self.replica.high_watermark() >= offset;
            if !self.is_in_office() {
                return self.end();
            }
            if let Some(error) = self.replica.commit_outcome(offset, self.term).err().filter(|_| !committed) {
                if is_closed(&error) {
                    return self.end();
                }
                tracing::error!(
                    topic = C::TOPIC, partition = %self.replica.id.index, %error,
                    "what the coordinator wrote is not on disk: it ends, and its {} are served again with the partition", C::KEEPS
                );
                return self.end();
            }
            self.send_acknowledged();
        }
    }

    fn waits_for(&self) -> Option<i64> {
        self.tenure.borrow().waits_for()
    }

    fn send_acknowledged(&self) {
        let high_watermark = self.replica.high_watermark();
        let mut tenure = self.tenure.borrow_mut();
        while let Some(held) = tenure.release(high_watermark) {
            match held {
                Held::Reply(sender, reply) => sender.send(reply),
                Held::Deed(deed) => {
                    self.deeds.borrow_mut().push_back(deed);
                    self.on_deed.notify_all();
                }
            }
        }
    }
}

/// The partition is closed, to be opened anew or elsewhere: nothing is wrong.
fn is_closed(error: &Rejected) -> bool {
    error.code == ErrorCode::NotLeaderOrFollower
}
