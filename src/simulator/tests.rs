//! The simulator itself: the same seed is the same run, sound code passes, planted bugs do not.

use super::checker::Mark;
use super::disk::Crash;
use super::net::Trace;
use super::world::World;
use super::{Setup, find, run};
use crate::cluster::rules::Start;
use crate::cluster::store::{Incarnation, Key, PartitionState, Phase, Record};
use crate::model::planted::{Planted, plant};
use crate::model::{BrokerId, LeaderEpoch};

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in 0..3 {
        let (one, two) = (run(Setup::of(seed)), run(Setup::of(seed)));
        assert!(one.result.is_ok(), "seed {seed}: {:?}", one.result);
        assert_eq!((one.result, one.marks), (two.result, two.marks), "seed {seed}");
    }
}

#[test]
fn other_seeds_are_other_runs() {
    let digests: Vec<_> = (0..4).map(|seed| run(Setup::of(seed)).result.ok()).collect();
    assert!(digests.iter().all(|digest| digest.is_some()));
    assert!((1..4).all(|at| !digests[..at].contains(&digests[at])));
}

/// The commonest of the planted bugs; `--planted` looks for all of them.
#[test]
fn a_planted_bug_is_found_and_gone_again() {
    for bug in [Planted::ShrinkBeforeCommit, Planted::HighWatermarkCountsSent, Planted::CoordinatorAnswersEarly] {
        assert!(find(bug, 0..100).is_some(), "{bug:?}");
    }
    plant(None);
    assert!(run(Setup::of(0)).result.is_ok());
}

/// Coordinators change, load what others wrote, committed or not, and leave replies unanswered.
#[test]
fn coordinators_meet_what_ends_them() {
    let marks: Vec<Mark> = (0..20).flat_map(|seed| run(Setup::of(seed)).marks).collect();
    for mark in [Mark::CoordinatorLoads, Mark::LoadsUncommitted, Mark::NotCoordinator] {
        assert!(marks.contains(&mark), "{mark:?}");
    }
}

/// Transactions end both ways, are timed out, change their coordinator while they end, and meet
/// producers that woke late.
#[test]
fn transactions_meet_what_ends_them() {
    let marks: Vec<Mark> = (0..20).flat_map(|seed| run(Setup::of(seed)).marks).collect();
    for mark in [
        Mark::Committed,
        Mark::Aborted,
        Mark::TransactionTimedOut,
        Mark::EndsTakenOver,
        Mark::ZombieFenced,
        Mark::VerificationRefused,
        Mark::UnstableOffsets,
    ] {
        assert!(marks.contains(&mark), "{mark:?}");
    }
}

/// A registration that was under way when its process ended lands late: what a wiped directory took
/// with it only the next one tells.
#[test]
fn a_registration_tells_of_what_was_lost_before_it() {
    for is_late in [true, false] {
        let mut world = World::new(Setup::of(0), Trace::default());
        let before = world.brokers[1].identity.start();
        world.brokers[1].end(Crash::Wipe, false, &mut world.io);
        world.io.checker.damaged(0, 1, std::iter::empty());
        let state = PartitionState {
            leader: Some(BrokerId(0)),
            leader_epoch: LeaderEpoch(0),
            controller_epoch: 0,
            isr: vec![BrokerId(0), BrokerId(1)],
            elr: Vec::new(),
            elr_min: 0,
            last_leader: None,
            emptied: Vec::new(),
            leader_broker_epoch: None,
        };
        let disk = world.brokers[0].replicas[0].disk.clone();
        world.io.checker.changed(0, Some(&state), |_| &disk);
        let Start { boot, directories, .. } = if is_late { before } else { world.brokers[1].identity.start() };
        for phase in [Phase::Joining, Phase::Active] {
            let incarnation = Incarnation { phase, trusted: true, boot, directories: directories.clone() };
            world.observe_node(&Key::Incarnation(BrokerId(1)), Some(&Record::Incarnation(incarnation)));
        }
        let broken = world.io.checker.violation().map(|violation| violation.rule);
        assert_eq!(broken, (!is_late).then_some("I5: a stale incarnation counts"));
    }
}
