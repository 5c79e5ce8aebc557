//! Produce: stage one gives every batch its place, stage two waits until they are acknowledged.

use std::pin::Pin;
use std::rc::Rc;

use super::api::{ProduceOutcome, ProducePart};
use super::check::{CheckedPart, not_served};
use super::state::{Group, Groups, Shard};
use crate::model::ErrorCode;
use crate::partition::{Accepted, AckWait, Rejected, Replica};
use crate::runtime::clock;

/// Stage two of a produce.
pub type ProduceOutcomes = Pin<Box<dyn Future<Output = Vec<ProduceOutcome>>>>;

impl Shard {
    /// Stage one of a produce: when this returns, the batches are checked, and their order against later requests is fixed. Stage two
    /// is the returned future: the outcomes, in the order of `parts`, once every batch is acknowledged or refused. It is not
    /// bounded in time: whoever holds the budget of the request's memory must know when the disk has it, also when nobody
    /// waits for the answer any more.
    pub async fn produce(self: &Rc<Self>, parts: Vec<ProducePart>) -> ProduceOutcomes {
        let parts = self.check_all(parts).await;
        let groups = Groups::split(parts, |p| self.owner(p.partition));
        if let [group] = &groups.by_owner[..]
            && group.owner == self.id
        {
            let parts = groups.by_owner.into_iter().flat_map(|g| g.parts).collect();
            return Box::pin(self.append_all(parts).outcomes());
        }
        let mut results = Vec::new();
        results.resize_with(groups.total, outcome_of_stopped_shard);
        let mut running: Vec<(Vec<usize>, ProduceOutcomes)> = Vec::new();
        for Group { owner, places, parts } in groups.by_owner {
            if owner == self.id {
                running.push((places, Box::pin(self.append_all(parts).outcomes())));
                continue;
            }
            // The closure appends when it arrives, in the order of arrival; its future only waits.
            let call = self.mesh.call(owner, move |shard| shard.append_all(parts).outcomes()).await;
            if let Ok(answer) = call {
                running.push((places, Box::pin(async move { answer.await.unwrap_or_default() })));
            }
        }
        Box::pin(async move {
            for (places, outcomes) in running {
                for (place, outcome) in places.into_iter().zip(outcomes.await) {
                    results[place] = outcome;
                }
            }
            results
        })
    }

    /// Gives every batch its place or refuses it, without waiting.
    fn append_all(&self, parts: Vec<CheckedPart>) -> Appends {
        let (wait, now_ms) = (Rc::new(AckWait::default()), clock::wall_ms());
        let mut appends = Vec::with_capacity(parts.len());
        for part in parts {
            appends.push(self.online(part.partition).map_err(not_served).and_then(|replica| {
                let accepted = replica.append(part.batch?, true, now_ms)?;
                replica.expect_commit(accepted.next_offset, accepted.term, &wait);
                Ok((replica, accepted))
            }));
        }
        Appends { wait, appends }
    }
}

/// Batches that have their places, on one shard.
struct Appends {
    wait: Rc<AckWait>,
    appends: Vec<Result<(Rc<Replica>, Accepted), Rejected>>,
}

impl Appends {
    async fn outcomes(self) -> Vec<ProduceOutcome> {
        self.wait.settled().await;
        self.appends.into_iter().map(outcome).collect()
    }
}

fn outcome(append: Result<(Rc<Replica>, Accepted), Rejected>) -> ProduceOutcome {
    let settled = append.and_then(|(replica, accepted)| {
        replica.commit_outcome(accepted.next_offset, accepted.term)?;
        Ok((replica.start_offset(), accepted))
    });
    match settled {
        Ok((log_start_offset, accepted)) => ProduceOutcome {
            error: ErrorCode::None,
            message: None,
            bad_records: Vec::new(),
            base_offset: accepted.base_offset,
            log_append_time_ms: accepted.log_append_time_ms,
            log_start_offset,
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
