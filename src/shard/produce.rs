//! Produce: stage one gives every batch its place, stage two waits until they are acknowledged.
//!
//! Stage two has two parts. First this broker has the batches, and the request's memory is free;
//! with `acks=all` the whole ISR has them next. On a broker without a cluster both are one.

use std::pin::Pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::api::{ProduceOutcome, ProducePart};
use super::check::{CheckedPart, not_served};
use super::state::{Group, Groups, Shard};
use super::verify::RequestTransaction;
use crate::model::{ErrorCode, PartitionId};
use crate::observe::metrics::Cause;
use crate::partition::{Accepted, AckAll, AckWait, Rejected, Replica};
use crate::runtime::clock::{self, Moment};
use crate::runtime::waits;
use crate::storage::Delays;

/// Time in which the next leader commits what the last one had accepted, or another
/// history shows: a few fetches.
pub(super) const AFTERMATH: Duration = Duration::from_secs(2);

/// Stage two of a produce, up to where this broker has the batches.
pub enum ProduceWrites {
    /// It has them already: with an arena, once they have their places.
    AtHand(Written),
    Later(Pin<Box<dyn Future<Output = Written>>>),
}

impl ProduceWrites {
    pub async fn written(self) -> Written {
        match self {
            ProduceWrites::AtHand(written) => written,
            ProduceWrites::Later(written) => written.await,
        }
    }
}

/// Batches that this broker has or has refused.
pub struct Written {
    shard: Rc<Shard>,
    writes: Writes,
}

impl Written {
    /// The outcomes, in the order of the parts, if nothing more is waited for.
    pub fn at_hand(self) -> Result<Vec<ProduceOutcome>, Written> {
        if self.writes.pledges.is_empty() { Ok(self.writes.outcomes) } else { Err(self) }
    }

    /// The outcomes, in the order of the parts, once the ISR has what it is to have.
    pub async fn outcomes(self) -> Vec<ProduceOutcome> {
        let Writes { mut outcomes, pledges } = self.writes;
        if pledges.is_empty() {
            return outcomes;
        }
        let (places, pledges): (Vec<usize>, Vec<Pledge>) = pledges.into_iter().unzip();
        let committed =
            self.shard.scatter(pledges, |pledge| pledge.partition, |shard, pledges| shard.committed(pledges)).await;
        for (place, outcome) in places.into_iter().zip(committed) {
            outcomes[place] = outcome.unwrap_or_else(outcome_of_stopped_shard);
        }
        outcomes
    }
}

/// The same of one shard.
#[derive(Default)]
struct Writes {
    outcomes: Vec<ProduceOutcome>,
    /// Batches that wait for the ISR, and their places in `outcomes`.
    pledges: Vec<(usize, Pledge)>,
}

type OwnersWrites = Pin<Box<dyn Future<Output = Writes>>>;

/// A batch that waits for the ISR.
#[derive(Clone, Copy)]
struct Pledge {
    partition: PartitionId,
    accepted: Accepted,
}

impl Shard {
    /// Stage one of a produce: when this returns, the batches are checked, and their order against
    /// later requests is fixed. `for_all`: the whole ISR is to acknowledge them. Stage two is the
    /// returned future. It is not bounded in time: whoever holds the budget of the request's memory
    /// must know when the disk has it, also when nobody waits for the answer any more.
    /// `transaction`: the one that the request names.
    pub async fn produce(
        self: &Rc<Self>,
        parts: Vec<ProducePart>,
        for_all: bool,
        transaction: Option<RequestTransaction>,
    ) -> ProduceWrites {
        let mut parts = self.check_all(parts).await;
        if let Some(transaction) = transaction {
            parts = self.verify_all(parts, &transaction).await;
        }
        let shard = self.clone();
        if parts.iter().all(|part| self.owner(part.partition) == self.id) {
            let appends = self.append_all(parts, for_all);
            return match appends.wait {
                None => ProduceWrites::AtHand(Written { shard, writes: appends.settled() }),
                Some(_) => {
                    ProduceWrites::Later(Box::pin(async move { Written { shard, writes: appends.written().await } }))
                }
            };
        }
        let groups = Groups::split(parts, |p| self.owner(p.partition));
        let mut outcomes = Vec::new();
        outcomes.resize_with(groups.total, outcome_of_stopped_shard);
        let mut running: Vec<(Vec<usize>, OwnersWrites)> = Vec::new();
        for Group { owner, places, parts } in groups.by_owner {
            if owner == self.id {
                running.push((places, Box::pin(self.append_all(parts, for_all).written())));
                continue;
            }
            // The closure appends when it arrives, in the order of arrival; its future only waits.
            let call = self.mesh.call(owner, move |shard| shard.append_all(parts, for_all).written()).await;
            if let Ok(answer) = call {
                running.push((places, Box::pin(async move { answer.await.unwrap_or_default() })));
            }
        }
        ProduceWrites::Later(Box::pin(async move {
            let mut pledges = Vec::new();
            for (places, writes) in running {
                let writes = writes.await;
                pledges.extend(writes.pledges.into_iter().map(|(at, pledge)| (places[at], pledge)));
                for (place, outcome) in places.into_iter().zip(writes.outcomes) {
                    outcomes[place] = outcome;
                }
            }
            Written { shard, writes: Writes { outcomes, pledges } }
        }))
    }

    /// Gives every batch its place or refuses it, without waiting.
    fn append_all(&self, parts: Vec<CheckedPart>, for_all: bool) -> Appends {
        let (mut wait, now_ms) = (None, clock::wall_ms());
        let mut appends = Vec::with_capacity(parts.len());
        for part in parts {
            appends.push(self.online(part.partition).map_err(not_served).and_then(|replica| {
                let accepted = replica.append(part.batch?, part.verified, for_all, now_ms)?;
                if replica.awaits_ack(accepted.next_offset) {
                    replica.expect_ack(accepted.next_offset, wait.get_or_insert_default());
                }
                Ok((replica, accepted))
            }));
        }
        Appends { wait, appends, for_all }
    }

    /// On the owner: the outcomes of batches, once they are committed or will not be.
    async fn committed(self: Rc<Self>, pledges: Vec<Pledge>) -> Vec<ProduceOutcome> {
        let find = |pledge: &Pledge| Some((self.replica(pledge.partition)?, pledge.accepted));
        let pledged: Vec<Option<(Rc<Replica>, Accepted)>> = pledges.iter().map(find).collect();
        waits::waiting(Cause::Followers, until_decided(&pledged)).await;
        let outcomes = pledged.into_iter().map(|pledged| {
            let (replica, accepted) = pledged.ok_or_else(|| not_served(ErrorCode::NotLeaderOrFollower))?;
            replica.fate_outcome(&accepted)?;
            Ok((replica, accepted))
        });
        outcomes.map(outcome).collect()
    }
}

/// Waits until the batches are committed or will not be, but not for long after their leadership. A
/// producer that was told "not the leader" takes the batch for not written; told so of one that is,
/// librdkafka may write it once more.
async fn until_decided(pledged: &[Option<(Rc<Replica>, Accepted)>]) {
    let mut over_at: Option<Instant> = None;
    loop {
        let (wait, mut led) = (Rc::new(AckWait::default()), true);
        for (replica, accepted) in pledged.iter().flatten() {
            if replica.fate(accepted) == AckAll::Pending {
                led &= replica.expect_fate(accepted, &wait);
            }
        }
        if wait.is_settled() {
            return;
        }
        if led {
            wait.settled().await;
            continue;
        }
        let over_at = *over_at.get_or_insert_with(|| clock::now() + AFTERMATH);
        if clock::until(over_at, wait.settled()).await.is_none() {
            return;
        }
    }
}

/// Batches that have their places, on one shard.
struct Appends {
    /// `None`: all of them are acknowledged, or refused.
    wait: Option<Rc<AckWait>>,
    appends: Vec<Result<(Rc<Replica>, Accepted), Rejected>>,
    for_all: bool,
}

impl Appends {
    /// Waits until every batch is acknowledged here, and notes why that took its time: what the
    /// logs themselves waited for, and else the device.
    async fn until_settled(&self, wait: Rc<AckWait>) {
        let logs = || self.appends.iter().flatten().map(|(replica, _)| replica.log());
        let (begun, before): (Moment, Vec<Delays>) = (Moment::now(), logs().map(|log| log.delays()).collect());
        wait.settled().await;
        let since = logs().zip(&before).map(|(log, before)| log.delays().since(before));
        let delays = since.fold(Delays::default(), |sum, delays| sum.max(&delays));
        let mut left = Moment::now().ns_since(begun);
        for (cause, ns) in [(Cause::Arena, delays.arena), (Cause::Blocks, delays.blocks), (Cause::Sync, delays.sync)] {
            let ns = ns.min(left);
            waits::note(cause, ns);
            left -= ns;
        }
        waits::note(Cause::Device, left);
    }

    async fn written(mut self) -> Writes {
        if let Some(wait) = self.wait.take() {
            // Apart, so that the future of batches that are there stays small.
            Box::pin(self.until_settled(wait)).await;
        }
        self.settled()
    }

    /// The outcomes of batches that nothing is waited for here any more.
    fn settled(self) -> Writes {
        let mut pledges = Vec::new();
        let settle = |(at, append): (usize, Result<(Rc<Replica>, Accepted), Rejected>)| {
            outcome(append.and_then(|(replica, accepted)| {
                replica.ack_outcome(&accepted)?;
                if self.for_all {
                    match replica.fate(&accepted) {
                        AckAll::Committed => {}
                        AckAll::Pending => pledges.push((at, Pledge { partition: replica.id, accepted })),
                        AckAll::Refused(_) => replica.fate_outcome(&accepted)?,
                    }
                }
                Ok((replica, accepted))
            }))
        };
        let outcomes = self.appends.into_iter().enumerate().map(settle).collect();
        Writes { outcomes, pledges }
    }
}

fn outcome(settled: Result<(Rc<Replica>, Accepted), Rejected>) -> ProduceOutcome {
    match settled {
        Ok((replica, accepted)) => ProduceOutcome {
            error: ErrorCode::None,
            message: None,
            bad_records: Vec::new(),
            base_offset: accepted.base_offset,
            log_append_time_ms: accepted.log_append_time_ms,
            log_start_offset: replica.start_offset(),
        },
        Err(rejected) => {
            ProduceOutcome { bad_records: rejected.records, ..refused(rejected.code, Some(rejected.message)) }
        }
    }
}

fn refused(error: ErrorCode, message: Option<String>) -> ProduceOutcome {
    ProduceOutcome {
        error,
        message,
        bad_records: Vec::new(),
        base_offset: -1,
        log_append_time_ms: -1,
        log_start_offset: -1,
    }
}

fn outcome_of_stopped_shard() -> ProduceOutcome {
    refused(ErrorCode::NotLeaderOrFollower, Some("the broker is shutting down".into()))
}
