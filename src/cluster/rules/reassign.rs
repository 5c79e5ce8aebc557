//! Reassignment of one partition (KIP-455): begun and cancelled by an admin request, completed by
//! the controller.
//!
//! While one is under way the replicas are those wanted, then those that are to go. Whoever writes
//! an outcome writes assignment and state in one commit.

use thiserror::Error;

use super::transition::{Terms, Transition, effective_min};
use crate::cluster::store::{Assignment, PartitionState};
use crate::model::BrokerId;

/// Refusal of a request. Kafka's code is NO_REASSIGNMENT_IN_PROGRESS for the first,
/// INVALID_REPLICATION_FACTOR for the second, INVALID_REPLICA_ASSIGNMENT for the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ReassignError {
    #[error("no reassignment of this partition is under way")]
    NotInProgress,
    /// KIP-860.
    #[error("The replication factor is changed from {from} to {to}, and the request does not allow that.")]
    FactorChanged { from: usize, to: usize },
    #[error("an assignment has at least one replica")]
    Empty,
    #[error("broker {0} is named twice among the replicas")]
    Duplicate(BrokerId),
    /// KIP-966: neither completion nor cancelling leaves fewer in the ISR than the minimum.
    #[error(
        "replicas that would be dropped hold committed records, and without them the ISR is below min.insync.replicas: \
         try again once the others are back in the ISR"
    )]
    BelowMinimum,
}

/// A change of an assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reassigned {
    pub assignment: Assignment,
    /// `None`: the state stays as it is.
    pub state: Option<PartitionState>,
}

/// One partition of a reassignment, as it was read.
#[derive(Clone, Copy, Debug)]
pub struct Partition<'a> {
    pub assignment: &'a Assignment,
    pub state: &'a PartitionState,
    /// As configured.
    pub min_insync_replicas: i32,
    pub controller_epoch: i32,
}

/// Replicas are to be `target`. One that is under way is replaced, and ends where this one wants
/// what was there before it. `Ok(None)`: they are so already.
pub fn begin_reassignment(
    partition: Partition,
    target: &[BrokerId],
    may_lead: &dyn Fn(BrokerId) -> bool,
) -> Result<Option<Reassigned>, ReassignError> {
    if target.is_empty() {
        return Err(ReassignError::Empty);
    }
    if let Some((_, broker)) = target.iter().enumerate().find(|(at, broker)| target[..*at].contains(broker)) {
        return Err(ReassignError::Duplicate(*broker));
    }
    let original = without(&partition.assignment.replicas, &partition.assignment.adding);
    let removing = without(&original, target);
    let assignment = Assignment {
        replicas: target.iter().chain(&removing).copied().collect(),
        adding: without(target, &original),
        removing,
    };
    if assignment == *partition.assignment {
        return Ok(None);
    }
    move_to(partition, assignment, may_lead).map(Some)
}

/// Refuses a `target` of more or fewer replicas than the partition has, or will have once the
/// reassignment under way is complete (KIP-860).
pub fn keeps_factor(assignment: &Assignment, target: &[BrokerId]) -> Result<(), ReassignError> {
    let (from, to) = (assignment.replicas.len().saturating_sub(assignment.removing.len()), target.len());
    if from == to { Ok(()) } else { Err(ReassignError::FactorChanged { from, to }) }
}

/// Replicas are those of before the reassignment.
pub fn cancel_reassignment(
    partition: Partition,
    may_lead: &dyn Fn(BrokerId) -> bool,
) -> Result<Reassigned, ReassignError> {
    if !is_under_way(partition.assignment) {
        return Err(ReassignError::NotInProgress);
    }
    let replicas = without(&partition.assignment.replicas, &partition.assignment.adding);
    if replicas.is_empty() {
        return Err(ReassignError::Empty);
    }
    move_to(partition, Assignment { replicas, ..Assignment::default() }, may_lead)
}

/// Completes the reassignment once all replicas that are to be are in the ISR and one of them can
/// lead.
pub fn complete_reassignment(partition: Partition, may_lead: &dyn Fn(BrokerId) -> bool) -> Option<Reassigned> {
    if !is_under_way(partition.assignment) {
        return None;
    }
    let target = without(&partition.assignment.replicas, &partition.assignment.removing);
    let in_sync = target.iter().all(|broker| partition.state.isr.contains(broker));
    if !in_sync || !target.iter().any(|broker| may_lead(*broker)) {
        return None;
    }
    move_to(partition, Assignment { replicas: target, ..Assignment::default() }, may_lead).ok()
}

pub fn is_under_way(assignment: &Assignment) -> bool {
    !assignment.adding.is_empty() || !assignment.removing.is_empty()
}

/// Confines the state to the assignment's replicas, with a leader among them and, where a replica
/// goes, a new leader epoch.
fn move_to(
    partition: Partition,
    assignment: Assignment,
    may_lead: &dyn Fn(BrokerId) -> bool,
) -> Result<Reassigned, ReassignError> {
    let Partition { assignment: old, state, min_insync_replicas, controller_epoch } = partition;
    let min_isr = effective_min(min_insync_replicas, &assignment);
    let terms = Terms { replicas: &assignment.replicas, min_isr, controller_epoch };
    let dropped = without(&old.replicas, &assignment.replicas);
    let mut change = Transition::of(state, &terms);
    let holds_records = |broker: &BrokerId| state.isr.contains(broker) || state.elr.contains(broker);
    let too_few = i32::try_from(change.isr().len()).unwrap_or(i32::MAX) < min_isr;
    if too_few && dropped.iter().any(holds_records) {
        return Err(ReassignError::BelowMinimum);
    }
    if state.leader.is_some() && change.leader().is_none() {
        change.elect(may_lead, false);
    }
    if !dropped.is_empty() {
        change.fence();
    }
    let state = change.finish();
    Ok(Reassigned { assignment, state })
}

fn without(list: &[BrokerId], others: &[BrokerId]) -> Vec<BrokerId> {
    list.iter().copied().filter(|broker| !others.contains(broker)).collect()
}

#[cfg(test)]
#[path = "reassign_tests.rs"]
mod tests;
