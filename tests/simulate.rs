//! The simulator's command line: `scripts/test simulate` runs it.
//!
//! ```text
//! simulate --seeds A..B             seeds A up to B; fails when one breaks a promise
//! simulate --planted [--seeds A..B] plants each bug; fails when one is not found
//! simulate --explain SEED [--bug NAME] [--lines N]
//!                           the smallest set of faults, and the trace that leads to the violation
//! ```

use std::ops::Range;
use std::process::ExitCode;

use corelane::model::planted::{Planted, plant};
use corelane::simulator::{LINES, explain, simulate, simulate_planted};

enum Run {
    Seeds(Range<u64>),
    Planted(Range<u64>),
    Explain(u64, Option<Planted>, usize),
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let run = match parse(&arguments) {
        Ok(run) => run,
        Err(why) => {
            eprintln!(
                "simulate: {why}\nusage: simulate --seeds A..B | --planted [--seeds A..B] | --explain SEED [--bug NAME] [--lines N]"
            );
            return ExitCode::from(2);
        }
    };
    let found_nothing = match run {
        Run::Seeds(seeds) => simulate(seeds).is_empty(),
        Run::Planted(seeds) => simulate_planted(seeds).is_empty(),
        Run::Explain(seed, bug, lines) => {
            plant(bug);
            explain(seed, lines);
            true
        }
    };
    if found_nothing { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn parse(arguments: &[String]) -> Result<Run, String> {
    let (mut seeds, mut planted, mut explained, mut bug, mut lines) = (None, false, None, None, LINES);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let mut value = || rest.next().ok_or_else(|| format!("{argument} lacks its value"));
        match argument.as_str() {
            "--planted" => planted = true,
            "--seeds" => seeds = Some(range(value()?)?),
            "--explain" => explained = Some(number(value()?)?),
            "--lines" => lines = usize::try_from(number(value()?)?).unwrap_or(usize::MAX),
            "--bug" => bug = Some(named(value()?)?),
            _ => return Err(format!("unknown argument {argument}")),
        }
    }
    Ok(match (explained, planted) {
        (Some(seed), _) => Run::Explain(seed, bug, lines),
        (None, true) => Run::Planted(seeds.unwrap_or(0..2_000)),
        (None, false) => Run::Seeds(seeds.unwrap_or(0..300)),
    })
}

fn range(text: &str) -> Result<Range<u64>, String> {
    let (from, to) = text.split_once("..").ok_or_else(|| format!("{text} is not of the form A..B"))?;
    Ok(number(from)?..number(to)?)
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text} is not a number"))
}

fn named(text: &str) -> Result<Planted, String> {
    let bug = Planted::ALL.into_iter().find(|bug| format!("{bug:?}") == text);
    bug.ok_or_else(|| format!("there is no bug {text}; there are {:?}", Planted::ALL))
}
