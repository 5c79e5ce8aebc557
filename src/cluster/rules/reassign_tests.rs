use std::collections::BTreeSet;

use super::*;
use crate::cluster::rules::random::Random;
use crate::cluster::rules::transition::{check, initial};
use crate::model::LeaderEpoch;

fn ids(list: &[i32]) -> Vec<BrokerId> {
    list.iter().copied().map(BrokerId).collect()
}

fn assignment(replicas: &[i32], adding: &[i32], removing: &[i32]) -> Assignment {
    Assignment { replicas: ids(replicas), adding: ids(adding), removing: ids(removing) }
}

fn state(isr: &[i32], leader: i32) -> PartitionState {
    PartitionState {
        leader: Some(BrokerId(leader)),
        leader_epoch: LeaderEpoch(5),
        controller_epoch: 1,
        isr: ids(isr),
        elr: Vec::new(),
        elr_min: 0,
        last_leader: None,
        emptied: Vec::new(),
        leader_broker_epoch: None,
    }
}

fn partition<'a>(assignment: &'a Assignment, state: &'a PartitionState) -> Partition<'a> {
    Partition { assignment, state, min_insync_replicas: 2, controller_epoch: 1 }
}

const ALL: fn(BrokerId) -> bool = |_| true;

#[test]
fn a_reassignment_adds_what_is_wanted_and_keeps_what_is_to_go() {
    let cases = [
        (assignment(&[1, 2, 3], &[], &[]), &[4, 5, 6][..], assignment(&[4, 5, 6, 1, 2, 3], &[4, 5, 6], &[1, 2, 3])),
        (assignment(&[1], &[], &[]), &[1, 2, 3], assignment(&[1, 2, 3], &[2, 3], &[])),
        (assignment(&[1, 2, 3], &[], &[]), &[2, 1], assignment(&[2, 1, 3], &[], &[3])),
        (assignment(&[1, 2, 3], &[], &[]), &[3, 2, 1], assignment(&[3, 2, 1], &[], &[])),
        // Replaced while it was under way: 4 was not there before it.
        (assignment(&[4, 1, 2], &[4], &[1, 2]), &[5, 2], assignment(&[5, 2, 1], &[5], &[1])),
        // Back to what it was.
        (assignment(&[4, 1, 2], &[4], &[1, 2]), &[1, 2], assignment(&[1, 2], &[], &[])),
    ];
    for (before, target, after) in cases {
        let state = state(&[1, 2], 1);
        let done = begin_reassignment(partition(&before, &state), &ids(target), &ALL).unwrap().unwrap();
        assert_eq!(done.assignment, after, "{before:?} to {target:?}");
        let fenced = before.replicas.iter().any(|broker| !after.replicas.contains(broker));
        assert_eq!(done.state.map(|state| state.leader_epoch.0), fenced.then_some(6), "{before:?} to {target:?}");
    }
    let same = assignment(&[1, 2], &[], &[]);
    assert_eq!(begin_reassignment(partition(&same, &state(&[1], 1)), &ids(&[1, 2]), &ALL), Ok(None));
    let refused = |target: &[i32]| begin_reassignment(partition(&same, &state(&[1], 1)), &ids(target), &ALL);
    assert_eq!(refused(&[]), Err(ReassignError::Empty));
    assert_eq!(refused(&[3, 4, 3]), Err(ReassignError::Duplicate(BrokerId(3))));
}

#[test]
fn it_is_complete_when_all_that_are_wanted_are_in_sync() {
    let moving = assignment(&[4, 5, 1, 2], &[4, 5], &[1, 2]);
    let behind = state(&[1, 2, 4], 1);
    assert_eq!(complete_reassignment(partition(&moving, &behind), &ALL), None);
    let caught_up = state(&[1, 2, 4, 5], 1);
    assert_eq!(complete_reassignment(partition(&moving, &caught_up), &|broker| broker.0 < 4), None, "nobody can lead");
    let done = complete_reassignment(partition(&moving, &caught_up), &ALL).unwrap();
    assert_eq!(done.assignment, assignment(&[4, 5], &[], &[]));
    assert_eq!(done.state, Some(PartitionState { leader_epoch: LeaderEpoch(6), ..state(&[4, 5], 4) }));
    // The leader stays, and who went is fenced.
    let done = complete_reassignment(partition(&moving, &state(&[5, 1, 4], 5)), &ALL).unwrap();
    assert_eq!(done.state, Some(PartitionState { leader_epoch: LeaderEpoch(6), ..state(&[5, 4], 5) }));
    // No replica goes, so none has to be fenced.
    let growing = assignment(&[1, 2, 3], &[2, 3], &[]);
    let done = complete_reassignment(partition(&growing, &state(&[1, 3, 2], 1)), &ALL).unwrap();
    assert_eq!((done.assignment, done.state), (assignment(&[1, 2, 3], &[], &[]), None));
    assert_eq!(complete_reassignment(partition(&assignment(&[1], &[], &[]), &state(&[1], 1)), &ALL), None);
}

#[test]
fn cancelling_goes_back_unless_committed_records_would_be_short_of_copies() {
    let moving = assignment(&[4, 5, 1, 2], &[4, 5], &[1, 2]);
    let done = cancel_reassignment(partition(&moving, &state(&[1, 2, 4], 4)), &ALL).unwrap();
    assert_eq!(done.assignment, assignment(&[1, 2], &[], &[]));
    assert_eq!(done.state, Some(PartitionState { leader_epoch: LeaderEpoch(6), ..state(&[1, 2], 1) }));
    let short = cancel_reassignment(partition(&moving, &state(&[1, 4, 5], 4)), &ALL);
    assert_eq!(short, Err(ReassignError::BelowMinimum));
    // The new ones hold nothing yet: there is nothing to be short of.
    assert!(cancel_reassignment(partition(&moving, &state(&[1], 1)), &ALL).is_ok());
    let still = assignment(&[1, 2], &[], &[]);
    assert_eq!(cancel_reassignment(partition(&still, &state(&[1], 1)), &ALL), Err(ReassignError::NotInProgress));
}

#[test]
fn any_row_of_reassignments_keeps_the_rules_and_the_last_copy() {
    let all = ids(&[0, 1, 2, 3, 4, 5]);
    let (mut completed, mut cancelled, mut refused) = (0, 0, 0);
    for seed in 0..3_000 {
        let mut random = Random::of(seed);
        let mut now =
            Assignment { replicas: random.shuffled(&all)[..1 + random.below(4)].to_vec(), ..Assignment::default() };
        let Some(mut state) = initial(&now.replicas, ALL, 1) else { panic!("no replica") };
        for _ in 0..30 {
            let active: BTreeSet<_> = random.some_of(&all).into_iter().collect();
            let may_lead = |broker: BrokerId| active.contains(&broker);
            let some = random.some_of(&now.replicas);
            let min_insync_replicas = 1 + random.below(3) as i32;
            let terms = Terms {
                replicas: &now.replicas,
                min_isr: effective_min(min_insync_replicas, &now),
                controller_epoch: 1,
            };
            let one = Partition { assignment: &now, state: &state, min_insync_replicas, controller_epoch: 1 };
            let reassigned = match random.below(8) {
                0 => {
                    let target = random.shuffled(&all)[..1 + random.below(4)].to_vec();
                    begin_reassignment(one, &target, &may_lead)
                }
                1 => cancel_reassignment(one, &may_lead).map(Some).inspect(|_| cancelled += 1),
                2 | 3 => Ok(complete_reassignment(one, &may_lead).inspect(|_| completed += 1)),
                step => {
                    let mut change = Transition::of(&state, &terms);
                    match step {
                        4 => some.iter().for_each(|broker| change.leave(*broker)),
                        5 => _ = change.elect(&may_lead, false),
                        _ => now.replicas.iter().for_each(|broker| change.join(*broker)),
                    }
                    state = change.finish().unwrap_or(state);
                    Ok(None)
                }
            };
            refused += usize::from(reassigned == Err(ReassignError::BelowMinimum));
            if let Ok(Some(Reassigned { assignment, state: new })) = reassigned {
                let dropped = now.replicas.iter().any(|broker| !assignment.replicas.contains(broker));
                let new = new.unwrap_or_else(|| state.clone());
                assert!(new.isr.len() + new.elr.len() > 0, "seed {seed}: {state:?} to {new:?}");
                assert!(!dropped || new.leader_epoch > state.leader_epoch, "seed {seed}: not fenced");
                let labels: BTreeSet<_> = assignment.adding.iter().chain(&assignment.removing).collect();
                assert!(labels.iter().all(|broker| assignment.replicas.contains(broker)));
                (now, state) = (assignment, new);
            }
            assert_eq!(check(&state, &now.replicas), Ok(()), "seed {seed}");
        }
    }
    assert!(completed > 1_000 && cancelled > 1_000 && refused > 100, "{completed} {cancelled} {refused}");
}

#[test]
fn the_factor_is_that_of_the_replicas_that_stay() {
    let (calm, moving) = (assignment(&[1, 2], &[], &[]), assignment(&[2, 3, 1], &[3], &[1]));
    for known in [calm, moving] {
        assert_eq!(keeps_factor(&known, &ids(&[3, 4])), Ok(()));
        for (target, to) in [(&[][..], 0), (&[1], 1), (&[1, 2, 3], 3)] {
            assert_eq!(keeps_factor(&known, &ids(target)), Err(ReassignError::FactorChanged { from: 2, to }));
        }
    }
}
