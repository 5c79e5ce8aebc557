//! One fetcher: the connection to the broker that leads, and the partitions of this shard
//! that are fetched over it.
//!
//! The next fetch of a partition leaves when what came before is written, so the offset that it
//! names is an acknowledgement. A fetch that finds nothing waits at the leader; nothing polls.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use futures_lite::future::{or, poll_once};

use super::all::{Host, Settings};
use super::plan::{FetchPlan, Mismatch, Taken, Work};
use crate::client::ClientError;
use crate::client::leader::{LeaderConnection, PartitionAnswer, Received, Receiving, ReplicaPlace};
use crate::model::record_batch::BatchHeader;
use crate::model::{BrokerId, ErrorCode, LeaderEpoch, PartitionId};
use crate::observe::client_line;
use crate::partition::{Followed, LeaderAnswer, Replica};
use crate::runtime::sync::{Notify, Permit};
use crate::runtime::{Yielder, clock, spawn_local};

/// First pause between two tries to reach a leader; it doubles.
const FIRST_BACKOFF: Duration = Duration::from_millis(20);
/// A request that has waited for so long at the leader is given up for
/// partitions that are not in it.
const OVERTAKING: Duration = Duration::from_millis(20);
/// A throttled partition is looked at so often.
const THROTTLED_MS: u64 = 200;
/// Pauses of a partition, in a row, before it is said that it is not fetched.
const SAID_AFTER: u32 = 8;

/// Failed tries in a row, and what was said of them.
#[derive(Default)]
struct Failures {
    count: u32,
    said: bool,
}

pub(super) struct Fetcher {
    leader: BrokerId,
    host: Rc<dyn Host>,
    settings: Settings,
    receiving: Receiving,
    plan: RefCell<FetchPlan>,
    changed: Notify,
    /// Cuts below the own high watermark.
    committed_cuts: Rc<Cell<u64>>,
}

/// End of one request.
enum Exchanged {
    Answered(Box<Received>),
    /// Partitions that were not in it are due; or none is left.
    Given,
}

#[derive(Debug, thiserror::Error)]
enum Unreached {
    #[error("the cluster's metadata has no address of it for the listener between brokers")]
    NoAddress,
    #[error(transparent)]
    Connection(#[from] ClientError),
    #[error(transparent)]
    Answer(#[from] Mismatch),
    #[error("the leader does not keep the session: {0}")]
    Session(ErrorCode),
}

impl Fetcher {
    pub fn new(
        leader: BrokerId,
        host: Rc<dyn Host>,
        settings: Settings,
        receiving: Receiving,
        committed_cuts: Rc<Cell<u64>>,
    ) -> Rc<Fetcher> {
        let plan = RefCell::new(FetchPlan::new(settings.limits));
        Rc::new(Fetcher { leader, host, settings, receiving, plan, changed: Notify::new(), committed_cuts })
    }

    /// Fetches `replica`'s partition in `epoch` from now on.
    pub fn assign(self: &Rc<Self>, replica: &Rc<Replica>, epoch: LeaderEpoch) {
        let work = self.plan.borrow_mut().assign(replica.id, epoch);
        self.prepare(work);
    }

    pub fn remove(&self, id: PartitionId) {
        self.plan.borrow_mut().remove(id);
        self.changed.notify_all();
    }

    pub fn is_over(&self) -> bool {
        self.plan.borrow().is_empty() || self.host.is_stopping()
    }

    /// Runs until no partition is left.
    pub async fn run(self: Rc<Self>) {
        let mut connection = None;
        let (mut failures, mut lost) = (Failures::default(), false);
        while !self.is_over() {
            let rested = self.plan.borrow_mut().rested(clock::mono_ms());
            rested.into_iter().for_each(|work| self.prepare(work));
            if !self.plan.borrow().wants_request(clock::mono_ms()) {
                self.wait().await;
                continue;
            }
            let outcome = match self.exchange(&mut connection).await {
                Ok(Exchanged::Answered(received)) => self.take(*received, &mut lost).await,
                Ok(Exchanged::Given) => {
                    connection = None;
                    self.plan.borrow_mut().disconnected();
                    continue;
                }
                Err(error) => Err(error),
            };
            match outcome {
                Ok(()) => self.reached(&mut failures),
                Err(error) => {
                    connection = None;
                    self.plan.borrow_mut().disconnected();
                    self.unreached(&mut failures, &error).await;
                }
            }
        }
    }

    /// Waits until there may be something to do.
    async fn wait(&self) {
        let changed = self.changed.notified();
        let wake_at = self.plan.borrow().wake_at();
        match wake_at {
            Some(at) => or(changed, clock::sleep_until_mono(at)).await,
            None => changed.await,
        }
    }

    /// Sends the next request and waits for its answer.
    async fn exchange(&self, connection: &mut Option<LeaderConnection>) -> Result<Exchanged, Unreached> {
        let connection = match connection {
            Some(connection) => connection,
            None => connection.insert(self.connect().await?),
        };
        let replica = (self.settings.this, self.host.broker_epoch());
        let Some(request) = self.plan.borrow_mut().next_request(replica, clock::mono_ms()) else {
            // Connecting took a while.
            return Ok(Exchanged::Given);
        };
        let waits = Duration::from_millis(u64::from(request.max_wait_ms));
        let deadline = clock::now() + waits + self.settings.timeout;
        let mut fetch = Box::pin(connection.fetch(&request, &self.receiving, deadline));
        loop {
            let news = self.changed.notified();
            let answered = or(async { Some(fetch.as_mut().await) }, async {
                news.await;
                None
            });
            if let Some(received) = answered.await {
                return Ok(Exchanged::Answered(Box::new(received?)));
            }
            if self.is_over() {
                return Ok(Exchanged::Given);
            }
            let Some(made) = self.plan.borrow().is_overtaken() else { continue };
            let waited = Duration::from_millis(clock::mono_ms().saturating_sub(made));
            let until = clock::now() + OVERTAKING.saturating_sub(waited);
            match clock::until(until, fetch.as_mut()).await {
                Some(received) => return Ok(Exchanged::Answered(Box::new(received?))),
                None if self.receiving.begun.get() => {}
                None => return Ok(Exchanged::Given),
            }
        }
    }

    async fn connect(&self) -> Result<LeaderConnection, Unreached> {
        let (host, port) = self.host.address(self.leader).ok_or(Unreached::NoAddress)?;
        let client_id = self.settings.client_id.clone();
        Ok(LeaderConnection::open((&host, port), client_id, self.settings.timeout).await?)
    }

    /// Hands the parts of an answer to their partitions.
    async fn take(self: &Rc<Self>, received: Received, lost: &mut bool) -> Result<(), Unreached> {
        let taken = self.plan.borrow_mut().answered(received.answer, clock::mono_ms())?;
        let parts = match taken {
            Taken::Parts(parts) => parts,
            // Once is what a leader's restart does, or another session that was larger.
            Taken::SessionLost(_) if !std::mem::replace(lost, true) => return Ok(()),
            Taken::SessionLost(error) => return Err(Unreached::Session(error)),
        };
        *lost = false;
        let memory = Rc::new(received.memory);
        let mut yielder = Yielder;
        for (part, work) in parts {
            // It may be followed anew by now.
            if !self.plan.borrow().is_current(work) {
                continue;
            }
            let mut carried = Box::pin(self.clone().carry_out(part, work, memory.clone()));
            // Mostly there is nothing to wait for.
            if poll_once(carried.as_mut()).await.is_none() {
                spawn_local(carried);
            }
            yielder.pass().await;
        }
        Ok(())
    }

    /// Carries out what the leader has answered for one partition, and prepares its next fetch.
    async fn carry_out(self: Rc<Self>, part: PartitionAnswer, work: Work, memory: Rc<Permit>) {
        let (id, epoch, error) = (work.partition, work.epoch, part.error);
        let Some(replica) = self.host.replica(id) else { return self.remove(id) };
        let answer = leader_answer(&part);
        self.host.fetched(&replica, part.records.len());
        match replica.carry_out(epoch, answer, part.records, clock::wall_ms()).await {
            Followed::Next => {
                self.plan.borrow_mut().served(work);
                self.settle(&replica, work).await;
            }
            Followed::Cut { committed } => {
                if committed {
                    self.committed_cuts.set(self.committed_cuts.get() + 1);
                }
                self.settle(&replica, work).await;
            }
            Followed::Later => {
                let pauses = self.plan.borrow_mut().pause(work, clock::mono_ms());
                // Records that were sent, and not taken here, are told of where they were refused.
                if pauses == SAID_AFTER && error != ErrorCode::None {
                    client_line!(
                        warn, topic = %replica.topic, partition = %id.index, leader = self.leader.0, epoch = epoch.0,
                        "the partition cannot be fetched from its leader, and is tried again: {error}"
                    );
                }
            }
            // The role is over, or the log takes nothing more: both are told elsewhere,
            // and end in an assignment.
            Followed::Over => self.plan.borrow_mut().stop(work),
        }
        drop(memory);
        self.changed.notify_all();
    }

    /// Has a partition fetched as soon as what it has is written.
    fn prepare(self: &Rc<Self>, work: Work) {
        let Some(replica) = self.host.replica(work.partition) else { return self.remove(work.partition) };
        let fetcher = self.clone();
        spawn_local(async move {
            fetcher.settle(&replica, work).await;
            fetcher.changed.notify_all();
        });
    }

    async fn settle(&self, replica: &Rc<Replica>, work: Work) {
        let mut yielder = Yielder;
        while self.plan.borrow().is_current(work) {
            let follows =
                replica.followed().is_some_and(|follows| (follows.leader, follows.epoch) == (self.leader, work.epoch));
            if !follows || replica.failure().is_some() {
                return self.plan.borrow_mut().stop(work);
            }
            // Its places are given up first.
            let waits = replica.is_damaged() && self.host.is_counted_on(replica);
            if waits || replica.mend_damage().await == Followed::Later {
                clock::sleep(self.settings.backoff).await;
                continue;
            }
            if let Some(next) = replica.fetch_due() {
                if let Some(until) = self.host.later(replica) {
                    // Its role may end meanwhile, or the throttle be lifted.
                    let soon = clock::mono_ms() + THROTTLED_MS;
                    clock::sleep_until_mono(until.min(soon)).await;
                    continue;
                }
                let place = ReplicaPlace {
                    partition: replica.id,
                    leader_epoch: next.leader_epoch.0,
                    offset: next.offset,
                    last_epoch: next.last_epoch,
                    log_start: replica.start_offset(),
                    max_bytes: self.settings.limits.partition_max_bytes,
                };
                return self.plan.borrow_mut().ready(work, place);
            }
            replica.settled().await;
            yielder.pass().await;
        }
    }

    fn reached(&self, failures: &mut Failures) {
        if std::mem::take(failures).said {
            tracing::info!(leader = self.leader.0, "partitions are fetched from broker {} again", self.leader);
        }
    }

    /// Says once that the leader cannot be reached, and waits before the next try.
    async fn unreached(&self, failures: &mut Failures, error: &Unreached) {
        if !std::mem::replace(&mut failures.said, true) {
            client_line!(
                warn,
                leader = self.leader.0,
                "partitions cannot be fetched from broker {}, which is tried again: {error}",
                self.leader
            );
        }
        let longest = self.settings.backoff;
        let wait = FIRST_BACKOFF.saturating_mul(1 << failures.count.min(16)).min(longest);
        failures.count = failures.count.saturating_add(1);
        let until: Instant = clock::now() + wait;
        while !self.is_over() && clock::until(until, self.changed.notified()).await.is_some() {}
    }
}

/// The answer as the follower's rules take it.
fn leader_answer(part: &PartitionAnswer) -> LeaderAnswer {
    match (part.error, part.diverging) {
        (ErrorCode::None, Some((epoch, end))) => LeaderAnswer::Diverging { epoch, end },
        (ErrorCode::None, None) => LeaderAnswer::Records {
            first: BatchHeader::peek(&part.records).map(BatchHeader::base),
            high_watermark: part.high_watermark,
            start: part.log_start,
        },
        (ErrorCode::OffsetOutOfRange, _) if part.log_start >= 0 => LeaderAnswer::OutOfRange { start: part.log_start },
        (error, _) => LeaderAnswer::Refused(error),
    }
}
