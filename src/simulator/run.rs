//! Runs of many seeds: what they found, the shortest way to a violation, and the bugs that were
//! planted.

use std::collections::BTreeMap;
use std::ops::Range;

use super::checker::{Mark, Violation};
use super::net::Trace;
use super::setup::Setup;
use super::world::World;
use crate::model::planted::{Planted, plant};

/// Lines of a trace that are printed, unless more are asked for.
pub const LINES: usize = 150;

/// The end of one seed.
#[derive(Debug)]
pub struct Report {
    pub result: Result<u64, Violation>,
    pub marks: Vec<Mark>,
}

/// Runs one setup.
pub fn run(setup: Setup) -> Report {
    let mut world = World::new(setup, Trace::default());
    let result = world.run();
    Report { result, marks: world.io.checker.marks.iter().copied().collect() }
}

/// Runs all seeds without a planted bug. Returns the seeds that failed, and prints what happened.
pub fn simulate(seeds: Range<u64>) -> Vec<u64> {
    plant(None);
    let mut failed = Vec::new();
    let mut marks: BTreeMap<Mark, u64> = BTreeMap::new();
    let mut digest = 0;
    for seed in seeds.clone() {
        let report = run(Setup::of(seed));
        for mark in report.marks {
            *marks.entry(mark).or_default() += 1;
        }
        match report.result {
            Ok(hash) => digest = super::rng::fold(digest, hash),
            Err(violation) => {
                println!("seed {seed}: {} at {} ms: {}", violation.rule, violation.at_ms, violation.what);
                if failed.is_empty() {
                    explain(seed, LINES);
                }
                failed.push(seed);
            }
        }
    }
    let count = seeds.end.saturating_sub(seeds.start);
    println!("{count} seeds, {} failed, digest {digest:016x}", failed.len());
    for (mark, hits) in marks {
        println!("  {mark:?}: {hits} seeds");
    }
    failed
}

/// Prints the smallest set of faults that still breaks a promise, and the last lines of its trace.
pub fn explain(seed: u64, most: usize) {
    let setup = shrink(Setup::of(seed));
    let mut world = World::new(setup.clone(), Trace::kept());
    let result = world.run();
    println!("seed {seed}, with as few faults as break it:\n{setup:#?}");
    let lines = world.io.trace.lines();
    for line in &lines[lines.len().saturating_sub(most)..] {
        println!("  {line}");
    }
    println!("  {result:?}");
}

/// Leaves out one fault after the other as long as a promise is still broken.
fn shrink(mut setup: Setup) -> Setup {
    let breaks = |setup: &Setup| run(setup.clone()).result.is_err();
    if !breaks(&setup) {
        return setup;
    }
    let mut at = 0;
    while at < setup.faults.len() {
        let mut fewer = setup.clone();
        fewer.faults.remove(at);
        if breaks(&fewer) {
            setup = fewer;
        } else {
            at += 1;
        }
    }
    setup
}

/// The first seed of `seeds` that finds the bug: it breaks a promise with it, and none without it.
pub fn find(bug: Planted, seeds: Range<u64>) -> Option<(u64, Violation)> {
    let found = first_due(bug, seeds, |bug, seed| {
        plant(bug);
        run(Setup::of(seed)).result.err()
    });
    plant(None);
    found
}

/// The first seed whose violation is due to the bug. `run`: one seed, with the bug or without one.
fn first_due<T>(
    bug: Planted,
    mut seeds: Range<u64>,
    run: impl Fn(Option<Planted>, u64) -> Option<T>,
) -> Option<(u64, T)> {
    seeds.find_map(|seed| {
        let violation = run(Some(bug), seed)?;
        run(None, seed).is_none().then_some((seed, violation))
    })
}

/// Plants each bug and looks for it. Returns those that were not found.
pub fn simulate_planted(seeds: Range<u64>) -> Vec<Planted> {
    let mut missed = Vec::new();
    for bug in Planted::ALL {
        match find(bug, seeds.clone()) {
            Some((seed, violation)) => println!("{bug:?}: seed {seed}, {}: {}", violation.rule, violation.what),
            None => {
                println!("{bug:?}: not found");
                missed.push(bug);
            }
        }
    }
    missed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_that_fails_without_the_bug_does_not_find_it() {
        let broken = |bug: Option<Planted>, seed: u64| match (seed, bug) {
            (3, _) | (5 | 7, Some(_)) => Some(seed * 10),
            _ => None,
        };
        assert_eq!(first_due(Planted::ProducersNotCut, 0..10, broken), Some((5, 50)));
        assert_eq!(first_due(Planted::ProducersNotCut, 6..10, broken), Some((7, 70)));
        assert_eq!(first_due(Planted::ProducersNotCut, 0..5, broken), None);
    }
}
