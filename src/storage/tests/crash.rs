//! A log on a simulated disk, with a fault at every file operation: kills, power cuts, errors.
//! Whatever happens, what was promised is there, nothing else is, and the log can be gone on with.
//!
//! `CORELANE_CRASH_SEEDS` sets how many orders of tasks are tried.

mod aborts;
mod cleaning;
mod history;
mod ledger;

use std::cell::RefCell;
use std::path::PathBuf;
use std::rc::Rc;

use history::{Acknowledged, Failed, Opened, Shared, moving};
use ledger::{Ledger, State, answers, look};

use crate::runtime::fs;
use crate::runtime::sim::{Disk, Fault, Journal, Simulation, Stopped};
use crate::storage::AbortedTxn;

/// The history of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Everything but cleaning.
    Log,
    /// The same behind an arena.
    Held,
    Cleaning,
    /// A log behind an arena that is moved to another data directory.
    Moving,
}

const KINDS: [Kind; 4] = [Kind::Log, Kind::Held, Kind::Cleaning, Kind::Moving];

/// Notes of a history about its log.
#[derive(Clone)]
enum Notes {
    Log(Shared, Kind),
    Cleaning(cleaning::Shared),
}

impl Notes {
    fn new(kind: Kind, disk: &Disk) -> Notes {
        match kind {
            Kind::Log | Kind::Held | Kind::Moving => Notes::Log(Rc::new(RefCell::new(Ledger::new(disk))), kind),
            Kind::Cleaning => Notes::Cleaning(Rc::new(RefCell::new(cleaning::Book::new()))),
        }
    }

    fn step(&self) -> &'static str {
        match self {
            Notes::Log(ledger, _) => ledger.borrow().step,
            Notes::Cleaning(book) => book.borrow().step,
        }
    }

    async fn run(self, boot: u64) -> Result<(), String> {
        match self {
            Notes::Log(ledger, kind) => {
                let (shared, acknowledged) = (ledger.clone(), acknowledged(kind, boot));
                let ended = match kind {
                    Kind::Moving => moving::run(shared, acknowledged).await,
                    _ => history::run(shared, acknowledged).await,
                };
                match ended {
                    // Acknowledged records stay readable.
                    Err(Failed(Some(log))) => still_read(&log, &ledger).await,
                    Ok(_) | Err(Failed(None)) => Ok(()),
                }
            }
            Notes::Cleaning(book) => {
                // It ends where the log fails.
                let _ = cleaning::run(book).await;
                Ok(())
            }
        }
    }

    /// Opens what is left, judges it, and goes on with it; whether damage was met.
    async fn judge(self, fault: Fault, boot: u64) -> Result<bool, String> {
        match self {
            Notes::Log(ledger, kind) => judge_log(ledger, fault, (kind, boot)).await,
            Notes::Cleaning(book) => cleaning::judge(book, fault).await,
        }
    }
}

fn acknowledged(kind: Kind, boot: u64) -> Acknowledged {
    match kind {
        Kind::Held | Kind::Moving => Acknowledged::Held { boot },
        Kind::Log | Kind::Cleaning => Acknowledged::Written,
    }
}

/// Where a start finds the log.
async fn find(kind: Kind) -> Result<PathBuf, String> {
    match kind {
        Kind::Moving => moving::settle().await.map_err(|error| format!("ending a move: {error}")),
        _ => Ok(history::DIR.into()),
    }
}

/// Faults of one case.
#[derive(Clone, Copy, Debug)]
struct Plan {
    kind: Kind,
    seed: u64,
    journal: Journal,
    /// At the operation of this number, in the history.
    at: u64,
    fault: Fault,
    /// How the process ends if the fault does not end it.
    end: Fault,
    /// A second end, at the operation of this number of the next start.
    again: Option<(u64, Fault)>,
}

/// A disk with a data directory on it.
fn new_disk(plan: &Plan) -> Disk {
    let disk = Disk::new(plan.seed.wrapping_mul(1_000_003) ^ plan.at, plan.journal);
    let simulation = Simulation::new(0);
    let made = simulation.run(&simulation.shard(&disk), async {
        fs::create_dir_all(history::DIR)?;
        fs::create_dir_all(history::OTHER_ROOT)?;
        ["/", "/data"].into_iter().try_for_each(|dir| fs::File::open(dir)?.sync_all())
    });
    assert!(matches!(made, Ok(Ok(()))), "{made:?}");
    disk
}

/// Runs the history up to its fault; the first of its operations, and how it went.
fn run_history(disk: &Disk, plan: &Plan, notes: &Notes) -> (u64, Result<(), String>) {
    let first = disk.operations();
    disk.fail_at(first + plan.at, plan.fault);
    let simulation = Simulation::new(plan.seed);
    let shard = simulation.shard(disk);
    let outcome = match simulation.run(&shard, notes.clone().run(disk.power_cuts())) {
        Ok(outcome) => outcome,
        Err(Stopped::Down) => Ok(()),
        Err(Stopped::Stalled) => Err(format!("stalled in {}", notes.step())),
    };
    (first, outcome)
}

async fn still_read(log: &Rc<crate::storage::Log>, ledger: &Shared) -> Result<(), String> {
    let state = ledger.borrow_mut().now().clone();
    if ledger.borrow().states.len() > 1 || state.start.start() != state.start.end() {
        // It failed half cut.
        return Ok(());
    }
    let upto = log.ends().held;
    let mut from = log.start_offset();
    while from < upto {
        let read = history::read_some(log, from, upto).await.map_err(|error| format!("failed log: {error}"))?;
        let bytes = read.records.concat();
        let expected = state.batches.iter().find(|batch| batch.next > from);
        let Some(expected) = expected.filter(|batch| bytes.starts_with(&batch.bytes)) else {
            return Err(format!("a failed log does not give what it acknowledged at {from} of {upto}"));
        };
        from = expected.next;
    }
    Ok(())
}

async fn judge_log(ledger: Shared, fault: Fault, (kind, boot): (Kind, u64)) -> Result<bool, String> {
    let (acknowledged, dir) = (acknowledged(kind, boot), find(kind).await?);
    let opened = history::open(acknowledged, &dir).await?;
    let (log, damaged) = (&opened.log, opened.damaged);
    let seen = look(log, log.next_offset()).await?;
    ledger.borrow().judge(&seen, fault, damaged)?;
    answers(log, &seen).await?;
    aborts::judge(log, &aborted(&seen), damaged).await?;
    let synced = seen.end;
    let found = State { start: seen.start..=seen.start, batches: seen.batches, held: synced, synced, cap: i64::MAX };
    ledger.borrow_mut().states = vec![found];
    opened.close(b"").await?;
    if history::go_on(ledger.clone(), acknowledged, &dir).await.is_err() {
        return Err("it cannot be gone on with".to_owned());
    }
    let Opened { log, damaged: again, .. } = history::open(acknowledged, &dir).await?;
    let seen = look(&log, log.next_offset()).await?;
    ledger.borrow().judge(&seen, Fault::PowerCut, again).map_err(|error| format!("after it went on: {error}"))?;
    answers(&log, &seen).await?;
    aborts::judge(&log, &aborted(&seen), damaged).await?;
    if again { Err("damage after a clean stop".to_owned()) } else { Ok(damaged) }
}

fn aborted(seen: &ledger::Seen) -> Vec<AbortedTxn> {
    seen.batches.iter().filter_map(|batch| aborts::of(&batch.bytes)).collect()
}

fn judge(disk: &Disk, plan: &Plan, notes: &Notes) -> Result<bool, String> {
    let cut = [Some(plan.fault), Some(plan.end), plan.again.map(|(_, fault)| fault)].contains(&Some(Fault::PowerCut));
    let fault = if cut { Fault::PowerCut } else { Fault::Kill };
    let simulation = Simulation::new(plan.seed + 1);
    match simulation.run(&simulation.shard(disk), notes.clone().judge(fault, disk.power_cuts())) {
        Ok(outcome) => outcome,
        Err(stopped) => Err(format!("the next start: {stopped:?}")),
    }
}

/// A start that ends on the way, and the one after it has the judging.
fn interrupted_start(disk: &Disk, plan: &Plan, at: u64, fault: Fault) {
    disk.fail_at(disk.operations() + at, fault);
    let simulation = Simulation::new(plan.seed + 2);
    let (kind, boot) = (plan.kind, disk.power_cuts());
    let _ = simulation.run(&simulation.shard(disk), async move {
        match kind {
            Kind::Log | Kind::Held | Kind::Moving => {
                let dir = find(kind).await?;
                history::open(acknowledged(kind, boot), &dir).await.map(drop)
            }
            Kind::Cleaning => cleaning::open().await.map(drop),
        }
    });
    if !disk.is_down() {
        disk.stop(fault);
    }
    drop(simulation);
    disk.restart();
}

/// Runs one case: whether damage was met, or a text about what went wrong.
fn run(plan: Plan) -> Result<bool, String> {
    let disk = new_disk(&plan);
    let notes = Notes::new(plan.kind, &disk);
    let (first, outcome) = run_history(&disk, &plan, &notes);
    let step = notes.step();
    let mut tale = disk.trace();
    if !disk.is_down() {
        disk.stop(plan.end);
    }
    disk.restart();
    if let Some((at, fault)) = plan.again {
        interrupted_start(&disk, &plan, at, fault);
    }
    outcome.and_then(|()| judge(&disk, &plan, &notes)).map_err(|complaint| {
        tale.drain(..tale.len().saturating_sub(12).max(first as usize));
        format!("{plan:?}\n  while: {step}\n  {complaint}\n  operations:\n    {}", tale.join("\n    "))
    })
}

/// Operations of a history in which nothing goes wrong.
fn operations(kind: Kind, seed: u64) -> u64 {
    let plan = Plan { kind, ..plan(seed, u64::MAX / 2, Fault::Kill) };
    let disk = new_disk(&plan);
    let notes = Notes::new(kind, &disk);
    let (first, outcome) = run_history(&disk, &plan, &notes);
    assert_eq!(outcome, Ok(()));
    disk.operations() - first
}

fn seeds() -> u64 {
    std::env::var("CORELANE_CRASH_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1)
}

/// Runs the plans of every operation of each seed's history.
fn try_all(plans: impl Fn(u64, u64) -> Vec<Plan>) {
    let (mut cases, mut damaged, mut complaints) = (0u64, 0u64, Vec::new());
    for (seed, kind) in (1..=seeds()).flat_map(|seed| KINDS.map(|kind| (seed, kind))) {
        let count = operations(kind, seed);
        println!("seed {seed}, {kind:?}: {count} operations");
        for at in 0..count {
            for plan in plans(seed, at) {
                cases += 1;
                match run(Plan { kind, ..plan }) {
                    Ok(met) => damaged += u64::from(met),
                    Err(complaint) => complaints.push(complaint),
                }
            }
        }
    }
    println!("{cases} cases, {damaged} met damage, {} went wrong", complaints.len());
    let some: Vec<String> =
        complaints.chunks(complaints.len().div_ceil(12).max(1)).map(|some| some[0].clone()).collect();
    assert!(complaints.is_empty(), "{} of {cases} went wrong:\n{}", complaints.len(), some.join("\n"));
}

fn plan(seed: u64, at: u64, fault: Fault) -> Plan {
    let end = if at.is_multiple_of(2) { Fault::Kill } else { Fault::PowerCut };
    Plan { kind: Kind::Log, seed, journal: Journal::Ordered, at, fault, end, again: None }
}

#[test]
fn the_same_seed_makes_the_same_operations() {
    let trace = |seed| {
        let plan = plan(seed, u64::MAX / 2, Fault::Kill);
        let disk = new_disk(&plan);
        let (_, outcome) = run_history(&disk, &plan, &Notes::new(plan.kind, &disk));
        assert_eq!(outcome, Ok(()));
        disk.trace()
    };
    assert_eq!(trace(1), trace(1));
    assert_ne!(trace(1), trace(2));
}

#[test]
fn cleaning_takes_part() {
    let plan = Plan { kind: Kind::Cleaning, ..plan(1, u64::MAX / 2, Fault::Kill) };
    let (disk, book) = (new_disk(&plan), Rc::new(RefCell::new(cleaning::Book::new())));
    let (_, outcome) = run_history(&disk, &plan, &Notes::Cleaning(book.clone()));
    assert_eq!(outcome, Ok(()));
    let merged = disk.trace().iter().filter(|line| line.ends_with(".log.deleted")).count();
    assert!(book.borrow().cleaned > 3 && merged > 0, "{} segments, {merged} joined", book.borrow().cleaned);
}

#[test]
fn moves_take_part() {
    let plan = Plan { kind: Kind::Moving, ..plan(1, u64::MAX / 2, Fault::Kill) };
    let (disk, notes) = (new_disk(&plan), Notes::new(plan.kind, &Disk::new(1, Journal::Ordered)));
    let (_, outcome) = run_history(&disk, &plan, &notes);
    assert_eq!(outcome, Ok(()));
    let exchanged = disk.trace().iter().filter(|line| line.contains("rename") && line.ends_with("-moved")).count();
    assert_eq!(exchanged, 2, "{:?}", disk.trace());
}

#[test]
fn zeros_ahead_of_writes_take_part() {
    for kind in [Kind::Log, Kind::Held] {
        let plan = Plan { kind, ..plan(1, u64::MAX / 2, Fault::Kill) };
        let (disk, notes) = (new_disk(&plan), Notes::new(kind, &Disk::new(1, Journal::Ordered)));
        let (_, outcome) = run_history(&disk, &plan, &notes);
        assert_eq!(outcome, Ok(()));
        let zeros = disk.trace().iter().filter(|line| line.contains("write zeros")).count();
        assert!(zeros >= 2, "{kind:?}: {zeros}");
    }
}

#[test]
fn a_kill_at_any_operation_takes_nothing_that_was_written() {
    try_all(|seed, at| vec![Plan { end: Fault::Kill, ..plan(seed, at, Fault::Kill) }]);
}

#[test]
fn a_power_cut_at_any_operation_takes_nothing_that_was_synced() {
    try_all(|seed, at| {
        let cut = Plan { end: Fault::PowerCut, ..plan(seed, at, Fault::PowerCut) };
        vec![cut, Plan { journal: Journal::Loose, ..cut }]
    });
}

#[test]
fn an_error_at_any_operation_takes_nothing_that_was_promised() {
    try_all(|seed, at| [5, 28].map(|code| plan(seed, at, Fault::Error(code))).to_vec());
}

#[test]
fn short_and_slow_operations_change_nothing() {
    try_all(|seed, at| {
        let slow = Fault::Slow(std::time::Duration::from_secs(7));
        [Fault::Short, slow].map(|fault| plan(seed, at, fault)).to_vec()
    });
}

#[test]
fn a_start_after_a_crash_may_be_interrupted() {
    try_all(|seed, at| {
        let (second, fault) = (at * 7 % 29, [Fault::Kill, Fault::PowerCut][at as usize / 2 % 2]);
        let first = plan(seed, at, [Fault::Kill, Fault::PowerCut][at as usize % 2]);
        vec![Plan { again: Some((second, fault)), ..first }]
    });
}
