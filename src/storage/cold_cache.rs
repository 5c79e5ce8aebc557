//! Chunks of segments read back from disk, shared by all readers of a shard, with
//! read-ahead for sequential ones.
//!
//! Nothing written is evicted for a cold reader: this memory is its own. Loads run as
//! tasks, so a reader never waits for a chunk nobody asked for, and several readers of one
//! chunk wait for one read.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::io;
use std::rc::Rc;

use bytes::Bytes;

use super::slices::Slices;
use crate::observe::metrics::Cause;
use crate::runtime::disk::{File, PIECE_BYTES, align_up};
use crate::runtime::sync::Notify;
use crate::runtime::{spawn_local, waits};

/// Bytes per chunk and read.
pub const CHUNK_BYTES: u64 = PIECE_BYTES as u64;
/// Chunks read ahead of a sequential reader, at most.
const READ_AHEAD: u64 = 4;

/// Names a chunk: log number, segment number, chunk index.
pub type ChunkKey = (u64, u64, u64);

/// A read on its way; its waiters keep it, so the outcome reaches them even if the cache
/// drops the chunk at once.
#[derive(Default)]
struct Reading {
    done: Notify,
    outcome: RefCell<Option<Result<Chunk, Rc<io::Error>>>>,
}

/// A chunk's bytes, right up to position `valid` of the segment (which may have grown since).
#[derive(Clone)]
struct Chunk {
    bytes: Bytes,
    valid: u64,
}

#[derive(Clone)]
enum Load {
    Reading(Rc<Reading>),
    Ready(Chunk),
}

struct Held {
    load: Load,
    /// Bytes charged to the budget.
    bytes: usize,
}

struct Inner {
    chunks: RefCell<HashMap<ChunkKey, Held>>,
    order: RefCell<VecDeque<ChunkKey>>,
    used: Cell<usize>,
    total: usize,
    /// Chunks that a reader wanted and that were there, or had to be waited for.
    hits: Cell<u64>,
    misses: Cell<u64>,
}

/// One shard's cold chunks.
#[derive(Clone)]
pub struct ColdCache(Rc<Inner>);

/// The part of a segment that a reader may see.
#[derive(Clone, Copy)]
pub struct Visible<'a> {
    pub log: u64,
    /// Its number, not its base offset: a cleaned segment has other bytes at the same places.
    pub segment: u64,
    pub file: &'a Rc<File>,
    /// Bytes of the segment that are written.
    pub written: u64,
}

impl ColdCache {
    pub fn new(total: usize) -> ColdCache {
        ColdCache(Rc::new(Inner {
            chunks: RefCell::new(HashMap::new()),
            order: RefCell::new(VecDeque::new()),
            used: Cell::new(0),
            total,
            hits: Cell::new(0),
            misses: Cell::new(0),
        }))
    }

    /// Bytes held, and the bound.
    pub fn bytes(&self) -> (usize, usize) {
        (self.0.used.get(), self.0.total)
    }

    /// Chunks that readers found here, and that they had to wait for.
    pub fn reads(&self) -> (u64, u64) {
        (self.0.hits.get(), self.0.misses.get())
    }

    /// Appends the slices of `[start, end)` to `out`; `end <= source.written`. Reads ahead when the
    /// chunk before `start`'s is held too: the mark of a sequential reader.
    pub async fn collect(&self, source: Visible<'_>, start: u64, end: u64, out: &mut Slices) -> io::Result<()> {
        let mut position = start;
        let sequential = start / CHUNK_BYTES > 0 && self.holds((source.log, source.segment, start / CHUNK_BYTES - 1));
        let last = (end - 1) / CHUNK_BYTES;
        let ahead = if sequential || last > start / CHUNK_BYTES { READ_AHEAD } else { 0 };
        // All chunks of the range are asked for before the first is waited for.
        for chunk in start / CHUNK_BYTES..=last + ahead {
            let wanted = chunk <= last;
            if chunk * CHUNK_BYTES < source.written && (wanted || self.room_for_read_ahead()) {
                let load = self.start_load(source, chunk, if wanted { end.min((chunk + 1) * CHUNK_BYTES) } else { 0 });
                let count = if matches!(load, Load::Ready(_)) { &self.0.hits } else { &self.0.misses };
                count.set(count.get() + u64::from(wanted));
            }
        }
        while position < end {
            let chunk = position / CHUNK_BYTES;
            let chunk_start = chunk * CHUNK_BYTES;
            let upto = end.min(chunk_start + CHUNK_BYTES);
            let bytes = self.chunk(source, chunk, upto).await?;
            out.push(&bytes, (position - chunk_start) as usize..(upto - chunk_start) as usize);
            position = upto;
        }
        Ok(())
    }

    /// Forgets a log's chunks (its directory goes).
    pub fn forget_log(&self, log: u64) {
        self.forget(|key| key.0 == log);
    }

    /// Forgets a segment's chunks (another takes its place).
    pub fn forget_segment(&self, log: u64, segment: u64) {
        self.forget(|key| (key.0, key.1) == (log, segment));
    }

    fn forget(&self, which: impl Fn(&ChunkKey) -> bool) {
        let keys: Vec<ChunkKey> = self.0.chunks.borrow().keys().filter(|key| which(key)).copied().collect();
        for key in keys {
            self.0.remove(key);
        }
    }

    fn holds(&self, key: ChunkKey) -> bool {
        self.0.chunks.borrow().contains_key(&key)
    }

    fn room_for_read_ahead(&self) -> bool {
        self.0.total >= 2 * READ_AHEAD as usize * CHUNK_BYTES as usize
    }

    async fn chunk(&self, source: Visible<'_>, chunk: u64, upto: u64) -> io::Result<Bytes> {
        loop {
            let reading = match self.start_load(source, chunk, upto) {
                Load::Ready(chunk) => return Ok(chunk.bytes),
                Load::Reading(reading) => reading,
            };
            // `done` is notified after `outcome` is set, and nothing runs between
            // this check and the wait.
            while reading.outcome.borrow().is_none() {
                waits::waiting(Cause::Device, reading.done.notified()).await;
            }
            match reading.outcome.borrow().as_ref() {
                Some(Ok(chunk)) if chunk.valid >= upto => return Ok(chunk.bytes.clone()),
                Some(Err(error)) => return Err(io::Error::new(error.kind(), error.to_string())),
                // Read for an older end of the segment: once more.
                _ => {}
            }
        }
    }

    /// The chunk, valid up to `upto`, or the read that will bring it; starts
    /// one where there is none.
    fn start_load(&self, source: Visible<'_>, chunk: u64, upto: u64) -> Load {
        let key = (source.log, source.segment, chunk);
        match self.0.chunks.borrow().get(&key).map(|held| &held.load) {
            Some(Load::Reading(reading)) => return Load::Reading(reading.clone()),
            Some(Load::Ready(ready)) if ready.valid >= upto => return Load::Ready(ready.clone()),
            _ => {}
        }
        self.0.remove(key);
        let start = chunk * CHUNK_BYTES;
        let valid = source.written.min(start + CHUNK_BYTES);
        let len = align_up(valid - start) as usize;
        let reading = Rc::new(Reading::default());
        self.0.insert(key, Load::Reading(reading.clone()), len);
        let (inner, file, task) = (self.0.clone(), source.file.clone(), reading.clone());
        spawn_local(async move {
            let outcome = match file.read_at(start, len).await {
                Ok(bytes) if bytes.len() as u64 >= valid - start => Ok(Chunk { bytes, valid }),
                Ok(bytes) => Err(Rc::new(short_read(&file, start, bytes.len() as u64, valid - start))),
                Err(error) => Err(Rc::new(error)),
            };
            inner.settle(key, &task, &outcome);
            *task.outcome.borrow_mut() = Some(outcome);
            task.done.notify_all();
        });
        Load::Reading(reading)
    }
}

fn short_read(file: &File, start: u64, have: u64, want: u64) -> io::Error {
    let message = format!("{}: {have} bytes at {start} where {want} were written", file.path().display());
    io::Error::new(io::ErrorKind::UnexpectedEof, message)
}

impl Inner {
    /// Puts the outcome of `reading` in its place, unless the place was given to
    /// something else meanwhile.
    fn settle(&self, key: ChunkKey, reading: &Rc<Reading>, outcome: &Result<Chunk, Rc<io::Error>>) {
        let ours = matches!(self.chunks.borrow().get(&key), Some(Held { load: Load::Reading(r), .. }) if Rc::ptr_eq(r, reading));
        if !ours {
            return;
        }
        match outcome {
            Ok(chunk) => {
                if let Some(held) = self.chunks.borrow_mut().get_mut(&key) {
                    held.load = Load::Ready(chunk.clone());
                }
            }
            Err(_) => self.remove(key),
        }
    }

    fn insert(&self, key: ChunkKey, load: Load, bytes: usize) {
        self.chunks.borrow_mut().insert(key, Held { load, bytes });
        self.order.borrow_mut().push_back(key);
        self.used.set(self.used.get() + bytes);
        self.evict();
    }

    /// Drops the oldest chunks that are not being read while over budget.
    fn evict(&self) {
        let mut considered = self.order.borrow().len();
        while self.used.get() > self.total && considered > 1 {
            considered -= 1;
            let Some(key) = self.order.borrow_mut().pop_front() else { break };
            let reading = matches!(self.chunks.borrow().get(&key), Some(Held { load: Load::Reading(_), .. }));
            if reading {
                self.order.borrow_mut().push_back(key);
            } else {
                self.remove(key);
            }
        }
    }

    fn remove(&self, key: ChunkKey) {
        let Some(held) = self.chunks.borrow_mut().remove(&key) else { return };
        self.order.borrow_mut().retain(|k| *k != key);
        self.used.set(self.used.get() - held.bytes);
    }
}
