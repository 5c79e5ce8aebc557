//! The simulator itself: the same seed is the same run, sound code passes, planted bugs do not.

use super::checker::Mark;
use super::{Setup, find, run};
use crate::model::planted::{Planted, plant};

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
