//! The two long parts of a cleaning, in steps that each read a bounded amount. Blocking; handed to
//! a helper thread and back.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::files::{Cleaned, Output, Source};
use super::filter::{Filter, Kept, LastOffsets, note_keys};
use super::map::OffsetMap;
use super::plan::{Bounds, Facts};
use super::txns::Txns;
use crate::model::record_batch;
use crate::storage::aborted::AbortedTxn;

/// A segment to read.
#[derive(Clone, Debug)]
pub struct Input {
    pub path: PathBuf,
    pub facts: Facts,
}

/// Work that a step did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Read and written.
    pub bytes: u64,
    pub done: bool,
}

/// The inputs one after the other.
struct Reading {
    left: VecDeque<Input>,
    open: Option<Source>,
    chunk: usize,
    /// Inputs begun.
    taken: usize,
    /// When the newest of them was written.
    modified: Option<SystemTime>,
}

impl Reading {
    fn new(inputs: Vec<Input>, chunk: usize) -> Reading {
        Reading { left: inputs.into(), open: None, chunk, taken: 0, modified: None }
    }

    /// The input that the next batch is in, opened if it is not; `None` at the end.
    fn current(&mut self) -> io::Result<Option<&mut Source>> {
        while self.open.as_ref().is_none_or(Source::at_end) {
            let Some(input) = self.left.pop_front() else { return Ok(None) };
            self.taken += 1;
            let source = Source::open(&input.path, input.facts.bytes, self.chunk)?;
            self.modified = source.modified().ok().max(self.modified);
            self.open = Some(source);
        }
        Ok(self.open.as_mut())
    }
}

/// Notes the newest offset of every key in the dirty segments.
pub struct Mapping {
    pub map: OffsetMap,
    /// The map was full before the end.
    pub full: bool,
    reading: Reading,
    from_offset: i64,
    txns: Txns,
}

impl Mapping {
    pub fn new(map: OffsetMap, inputs: Vec<Input>, from_offset: i64, txns: Txns, chunk: usize) -> Mapping {
        Mapping { map, full: false, reading: Reading::new(inputs, chunk), from_offset, txns }
    }

    /// Reads about `bytes` more.
    pub fn step(&mut self, bytes: u64) -> io::Result<Progress> {
        let mut progress = Progress::default();
        while progress.bytes < bytes {
            let Some(batch) = self.reading.current()?.map(Source::next).transpose()?.flatten() else {
                return Ok(Progress { done: true, ..progress });
            };
            progress.bytes += batch.len() as u64;
            let next = record_batch::frame(batch).map_err(io::Error::other)?.0.next_offset();
            if next <= self.from_offset {
                continue;
            }
            match note_keys(&mut self.map, batch, self.from_offset, &mut self.txns) {
                Ok(true) => {}
                Ok(false) => {
                    self.full = true;
                    return Ok(Progress { done: true, ..progress });
                }
                // It cannot be read, so it stays as it is: nothing in it is
                // known to be newer or older.
                Err(_) => self.map.advance(next - 1),
            }
        }
        Ok(progress)
    }
}

/// Writes what stays of the first segments into one, as many of them as it holds.
pub struct Rewriting {
    reading: Reading,
    output: Output,
    bounds: Bounds,
    map: Arc<OffsetMap>,
    producers: Arc<LastOffsets>,
    now_ms: i64,
    delete_retention_ms: i64,
    txns: Txns,
    /// True if anything was dropped or changed.
    changed: bool,
}

impl Rewriting {
    pub fn new(
        inputs: Vec<Input>,
        output: Output,
        bounds: Bounds,
        (map, producers): (Arc<OffsetMap>, Arc<LastOffsets>),
        (now_ms, delete_retention_ms): (i64, i64),
        txns: Txns,
        chunk: usize,
    ) -> Rewriting {
        let reading = Reading::new(inputs, chunk);
        Rewriting { reading, output, bounds, map, producers, now_ms, delete_retention_ms, txns, changed: false }
    }

    /// Reads about `bytes` more.
    pub fn step(&mut self, bytes: u64) -> io::Result<Progress> {
        let filter = Filter {
            map: &self.map,
            producers: &self.producers,
            now_ms: self.now_ms,
            delete_retention_ms: self.delete_retention_ms,
        };
        let mut progress = Progress::default();
        while progress.bytes < bytes {
            let Some(source) = self.reading.current()? else { return Ok(Progress { done: true, ..progress }) };
            // The last batch of all is told from the last of one input by
            // whether another one joins.
            let ending = source.ends_with_next()?;
            let last = match ending {
                Some(length) => {
                    let gathered = self.output.gathered(length, self.reading.taken);
                    // An input without a batch cannot end the segment.
                    let next = self.reading.left.iter().find(|input| input.facts.bytes > 0);
                    !next.is_some_and(|next| self.bounds.admit(&gathered, &next.facts))
                }
                None => false,
            };
            if last {
                self.reading.left.clear();
            }
            let Some(batch) = self.reading.current()?.map(Source::next).transpose()?.flatten() else {
                return Ok(Progress { done: true, ..progress });
            };
            let kept = filter.apply(batch, last, &mut self.txns)?;
            self.changed |= kept != Kept::Whole;
            let written = match &kept {
                Kept::Whole => batch,
                Kept::Rewritten(bytes) => bytes,
                Kept::Nothing => &[],
            };
            if !written.is_empty() {
                self.output.append(written)?;
            }
            progress.bytes += (batch.len() + written.len()) as u64;
        }
        Ok(progress)
    }

    /// The finished segment, under its `.cleaned` names.
    pub fn finish(mut self) -> io::Result<Rewritten> {
        let cleaned = self.output.finish(self.reading.modified)?;
        let aborted = self.txns.take_kept();
        Ok(Rewritten { cleaned, segments: self.reading.taken, changed: self.changed, aborted, txns: self.txns })
    }
}

/// A segment as cleaning leaves it.
pub struct Rewritten {
    pub cleaned: Cleaned,
    /// How many old ones are in it.
    pub segments: usize,
    /// True if anything was dropped or changed.
    pub changed: bool,
    /// The aborted transactions whose markers it holds and that readers have to know of.
    pub aborted: Vec<AbortedTxn>,
    /// As of the batch that follows.
    pub txns: Txns,
}
