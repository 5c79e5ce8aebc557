//! The promises of a log, and the check that the log that is found keeps them.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::rc::Rc;

use crate::model::record_batch::{self, BatchHeader};
use crate::runtime::sim::{Disk, Fault};
use crate::storage::Log;

/// A batch as the log has it.
#[derive(Clone, PartialEq)]
pub struct Put {
    pub base: i64,
    pub next: i64,
    pub timestamp: i64,
    pub bytes: Vec<u8>,
}

/// One thing that a log may be.
#[derive(Clone)]
pub struct State {
    /// Where it may begin.
    pub start: RangeInclusive<i64>,
    pub batches: Vec<Put>,
    /// Promised to survive the process, and the power.
    pub held: i64,
    pub synced: i64,
    /// Nothing from here on is promised: it is being cut away.
    pub cap: i64,
}

impl State {
    pub fn empty(start: i64) -> State {
        State { start: start..=start, batches: Vec::new(), held: start, synced: start, cap: i64::MAX }
    }

    pub fn end(&self) -> i64 {
        self.batches.last().map_or(*self.start.end(), |last| last.next)
    }
}

/// States that the log may be in after a crash now: the last one if nothing goes wrong.
pub struct Ledger {
    pub states: Vec<State>,
    /// The step under way.
    pub step: &'static str,
    disk: Disk,
}

impl Ledger {
    pub fn new(disk: &Disk) -> Ledger {
        Ledger { states: vec![State::empty(0)], step: "", disk: disk.clone() }
    }

    pub fn now(&mut self) -> &mut State {
        self.states.last_mut().expect("never empty")
    }

    /// The ends have moved. What a process that has been killed goes on to say nobody hears.
    pub fn note(&mut self, log: &Log) {
        if self.disk.is_down() {
            return;
        }
        let ends = log.ends();
        let now = self.now();
        now.held = now.held.max(ends.held);
        now.synced = now.synced.max(ends.synced);
    }
}

/// A log as its readers see it.
pub struct Seen {
    pub start: i64,
    pub end: i64,
    pub batches: Vec<Put>,
}

fn split(mut bytes: &[u8]) -> Result<Vec<Put>, String> {
    let mut batches = Vec::new();
    while !bytes.is_empty() {
        let (header, total) = record_batch::frame(bytes).map_err(|error| format!("no whole batch: {error}"))?;
        record_batch::check(&bytes[..total]).map_err(|error| format!("batch {}: {error}", header.base()))?;
        let timestamp = header.max_timestamp.get();
        let (base, next) = (header.base(), header.next_offset());
        batches.push(Put { base, next, timestamp, bytes: bytes[..total].to_vec() });
        bytes = &bytes[total..];
    }
    Ok(batches)
}

/// Reads everything before `end`.
pub async fn look(log: &Rc<Log>, end: i64) -> Result<Seen, String> {
    let start = log.start_offset();
    let (mut from, mut batches) = (start, Vec::<Put>::new());
    while from < end {
        let read = log.read(from, end, 5_000, true).await.map_err(|error| format!("read at {from}: {error}"))?;
        let part = split(&read.records.concat())?;
        let Some(last) = part.last() else { break };
        if part[0].next <= from || part.windows(2).any(|pair| pair[0].next > pair[1].base) {
            return Err(format!("a read at {from} begins with {}, or is out of order", part[0].base));
        }
        from = last.next;
        batches.extend(part);
    }
    Ok(Seen { start, end, batches })
}

/// Checks that reads by offset and searches by time find what a walk finds.
pub async fn answers(log: &Rc<Log>, seen: &Seen) -> Result<(), String> {
    for batch in &seen.batches {
        for offset in [batch.base, (batch.base + batch.next) / 2, batch.next - 1] {
            if offset < seen.start {
                continue;
            }
            let read = log.read(offset, seen.end, 1, true).await.map_err(|error| format!("at {offset}: {error}"))?;
            if read.records.concat() != batch.bytes {
                return Err(format!("a read at {offset} gives something else"));
            }
        }
    }
    let times: BTreeSet<i64> = seen.batches.iter().flat_map(|batch| [batch.timestamp, batch.timestamp + 1]).collect();
    for time in times {
        let found = log.find_by_time(time, seen.end).await.map_err(|error| format!("time {time}: {error}"))?;
        let first = seen.batches.iter().find(|batch| batch.timestamp >= time);
        let expected = first.map(|batch| (batch.base.max(seen.start), batch.timestamp));
        if found != expected {
            return Err(format!("time {time} is at {found:?}, not {expected:?}"));
        }
    }
    Ok(())
}

impl Ledger {
    /// Checks that a log found after `fault` is one of those it may be. `damaged`: it was said that
    /// something is missing.
    pub fn judge(&self, seen: &Seen, fault: Fault, damaged: bool) -> Result<(), String> {
        let mut complaints = Vec::new();
        for state in &self.states {
            match state.judge(seen, fault, damaged) {
                Ok(()) => return Ok(()),
                Err(complaint) => complaints.push(complaint),
            }
        }
        Err(complaints.join("; or "))
    }
}

impl State {
    fn judge(&self, seen: &Seen, fault: Fault, damaged: bool) -> Result<(), String> {
        let promised = if fault == Fault::Kill { self.held } else { self.synced }.min(self.cap);
        if !self.start.contains(&seen.start) {
            return Err(format!("it begins at {}, not within {:?}", seen.start, self.start));
        }
        if seen.end < promised {
            return Err(format!("it ends at {}, {promised} was promised", seen.end));
        }
        let within = |batch: &&Put| batch.next > seen.start && batch.next <= seen.end;
        let found = |batch: &Put| seen.batches.iter().any(|found| found.base == batch.base);
        // Of what was not synced a power cut may leave what lies behind a hole,
        // and the hole is told.
        let may_lack = |batch: &Put| fault == Fault::PowerCut && damaged && batch.next > promised;
        // Deleted batches may be gone although their offsets are within the log again.
        let deleted = |batch: &Put| batch.next <= *self.start.end();
        let kept: Vec<&Put> =
            self.batches.iter().filter(within).filter(|batch| found(batch) || !deleted(batch)).collect();
        // The hole may be the last of it, before a segment that is still empty.
        let end = kept.last().map_or(seen.start, |last| last.next);
        let expected: Vec<&Put> = kept.into_iter().filter(|batch| found(batch) || !may_lack(batch)).collect();
        if seen.end != end {
            return Err(format!("it ends at {}, where its batches end at {end}", seen.end));
        }
        let bases = |batches: &[&Put]| batches.iter().map(|batch| batch.base).collect::<Vec<_>>();
        let found: Vec<&Put> = seen.batches.iter().collect();
        if bases(&found) != bases(&expected) {
            return Err(format!("it has batches {:?}, not {:?}", bases(&found), bases(&expected)));
        }
        match found.iter().zip(&expected).find(|(found, expected)| found != expected) {
            Some((found, _)) => Err(format!("batch {} is another one", found.base)),
            None => Ok(()),
        }
    }
}

/// The batch that the log has of one that was appended at `base` in `epoch`.
pub fn stored(batch: &[u8], base: i64, epoch: i32) -> Put {
    let mut bytes = batch.to_vec();
    bytes[..8].copy_from_slice(&base.to_be_bytes());
    bytes[12..16].copy_from_slice(&epoch.to_be_bytes());
    let header = BatchHeader::peek(&bytes).copied().expect("a whole header");
    Put { base, next: header.next_offset(), timestamp: header.max_timestamp.get(), bytes }
}
