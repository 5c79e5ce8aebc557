//! The two long parts of a cleaning, in steps that each read a bounded amount. Blocking; handed to a helper thread and back.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::files::{Cleaned, Output, Source};
use super::filter::{Filter, Kept, LastOffsets, note_keys};
use super::map::OffsetMap;
use crate::model::record_batch;

/// A segment to read: its file, and how many bytes of it are batches.
#[derive(Clone, Debug)]
pub struct Input {
    pub path: PathBuf,
    pub size: u64,
}

/// What a step did.
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
    /// When the newest input was written.
    modified: Option<SystemTime>,
}

impl Reading {
    fn new(inputs: Vec<Input>, chunk: usize) -> Reading {
        Reading { left: inputs.into(), open: None, chunk, modified: None }
    }

    /// Shows the next batch, and whether it is the last of all; `None` at the end.
    fn next<R>(&mut self, show: impl FnOnce(&[u8], bool) -> R) -> io::Result<Option<R>> {
        loop {
            if self.open.as_ref().is_some_and(|source| !source.at_end()) {
                break;
            }
            let Some(input) = self.left.pop_front() else { return Ok(None) };
            let source = Source::open(&input.path, input.size, self.chunk)?;
            self.modified = source.modified().ok().max(self.modified);
            self.open = Some(source);
        }
        let last_input = self.left.iter().all(|input| input.size == 0);
        let Some(source) = &mut self.open else { return Ok(None) };
        let last = last_input && source.ends_after_next()?;
        Ok(source.next()?.map(|batch| show(batch, last)))
    }
}

/// Notes the newest offset of every key in the dirty segments.
pub struct Mapping {
    pub map: OffsetMap,
    /// The map was full before the end.
    pub full: bool,
    reading: Reading,
    from_offset: i64,
}

impl Mapping {
    pub fn new(map: OffsetMap, inputs: Vec<Input>, from_offset: i64, chunk: usize) -> Mapping {
        Mapping { map, full: false, reading: Reading::new(inputs, chunk), from_offset }
    }

    /// Reads about `bytes` more.
    pub fn step(&mut self, bytes: u64) -> io::Result<Progress> {
        let mut progress = Progress::default();
        while progress.bytes < bytes {
            let (map, from) = (&mut self.map, self.from_offset);
            let noted = self.reading.next(|batch, _| {
                let header = record_batch::frame(batch).map(|(header, _)| header.next_offset());
                match header {
                    Ok(next) if next > from => (note_keys(map, batch, from), next, batch.len()),
                    _ => (Ok(true), from, batch.len()),
                }
            })?;
            match noted {
                Some((Ok(true), _, read)) => progress.bytes += read as u64,
                // It cannot be read, so it stays as it is: nothing in it is known to be newer or older.
                Some((Err(_), next, read)) => {
                    self.map.advance(next - 1);
                    progress.bytes += read as u64;
                }
                Some((Ok(false), ..)) => {
                    self.full = true;
                    return Ok(Progress { done: true, ..progress });
                }
                None => return Ok(Progress { done: true, ..progress }),
            }
        }
        Ok(progress)
    }
}

/// Writes what stays of a group of segments into one.
pub struct Rewriting {
    reading: Reading,
    output: Output,
    map: Arc<OffsetMap>,
    producers: Arc<LastOffsets>,
    now_ms: i64,
    delete_retention_ms: i64,
    /// Whether anything was dropped or changed.
    changed: bool,
}

impl Rewriting {
    pub fn new(
        inputs: Vec<Input>,
        output: Output,
        (map, producers): (Arc<OffsetMap>, Arc<LastOffsets>),
        (now_ms, delete_retention_ms): (i64, i64),
        chunk: usize,
    ) -> Rewriting {
        let reading = Reading::new(inputs, chunk);
        Rewriting { reading, output, map, producers, now_ms, delete_retention_ms, changed: false }
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
            let (output, changed) = (&mut self.output, &mut self.changed);
            let taken = self.reading.next(|batch, last| {
                let kept = filter.apply(batch, last)?;
                *changed |= kept != Kept::Whole;
                let written = match &kept {
                    Kept::Whole => batch,
                    Kept::Rewritten(bytes) => bytes,
                    Kept::Nothing => return Ok(batch.len()),
                };
                output.append(written)?;
                Ok::<usize, io::Error>(batch.len() + written.len())
            })?;
            match taken {
                Some(bytes) => progress.bytes += bytes? as u64,
                None => return Ok(Progress { done: true, ..progress }),
            }
        }
        Ok(progress)
    }

    /// The finished segment, under its `.cleaned` names; whether it differs from what it was made of.
    pub fn finish(self) -> io::Result<(Cleaned, bool)> {
        Ok((self.output.finish(self.reading.modified)?, self.changed))
    }
}
