//! Steps of the controller, and the commits that carry them out.

use super::transition::Election;
use super::view::PartitionKey;
use crate::cluster::store::{Check, Commit, Write};
use crate::model::BrokerId;

/// A change that happens as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub commit: Commit,
    /// Writes that a commit with this step may have; `None`: it goes alone.
    most: Option<usize>,
}

impl Step {
    /// A change of one node that may go with others.
    pub fn one(checks: Vec<Check>, write: Write, most: usize) -> Step {
        Step { commit: Commit { checks, writes: vec![write] }, most: Some(most) }
    }

    /// Changes that belong together.
    pub fn whole(checks: Vec<Check>, writes: Vec<Write>) -> Step {
        Step::alone(Commit { checks, writes })
    }

    pub fn alone(commit: Commit) -> Step {
        Step { commit, most: None }
    }
}

/// An election that may have lost committed records; for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RiskyElection {
    pub partition: PartitionKey,
    pub leader: BrokerId,
    pub election: Election,
}

/// All steps of a round, in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub risky: Vec<RiskyElection>,
}

/// One commit for several steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    pub commit: Commit,
    /// The same, a commit for each step: to be sent where the one for all meets a conflict, so that
    /// the others get through.
    pub singles: Vec<Commit>,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The steps in as few commits as may be, in their order.
    pub fn batches(self) -> Vec<Batch> {
        let mut batches: Vec<(Batch, Option<usize>)> = Vec::new();
        for Step { commit, most } in self.steps {
            match batches.last_mut() {
                Some((batch, last)) if most.is_some() && *last == most && Some(batch.commit.writes.len()) < most => {
                    let new = commit.checks.iter().filter(|check| !batch.commit.checks.contains(check));
                    let new: Vec<Check> = new.cloned().collect();
                    batch.commit.checks.extend(new);
                    batch.commit.writes.extend(commit.writes.iter().cloned());
                    batch.singles.push(commit);
                }
                _ => batches.push((Batch { commit: commit.clone(), singles: vec![commit] }, most)),
            }
        }
        batches.into_iter().map(|(batch, _)| batch).collect()
    }
}
