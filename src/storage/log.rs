//! The facade of one partition's log: its segments, its offsets, and what has
//! become of them on the device.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;

use super::appender::{Appender, Pending};
use super::behind::Behind;
use super::compaction::CleanState;
use super::context::StorageContext;
use super::delays::Reasons;
use super::dir::LogDir;
use super::ends::{EndPositions, LogPosition};
use super::reader::Hints;
use super::readers::Readers;
use super::room::Disk;
use super::segment::{RollRules, Segment};
use super::sync::SyncState;
use super::tail_cache::Tail;
use super::to_recover::ToRecover;
use crate::config::TopicConfig;
use crate::model::record_batch::{BatchHeader, HEADER_BYTES};
use crate::observe::client_line;
use crate::runtime::clock;
use crate::runtime::disk::{File, is_full};
use crate::runtime::sync::Notify;

/// The names of the broker's own topics begin so.
const OWN_TOPICS: &str = "__";

/// Why a log no longer takes appends.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StorageError {
    /// Sticky until the broker is restarted: what follows a failed write is unknown.
    #[error("{0}")]
    Failed(Arc<str>),
    /// The disk was full. Nothing is unknown about what was written before: the log is opened
    /// anew once there is room.
    #[error("there is no room on the disk, records are taken again once there is: {0}")]
    Full(Arc<str>),
    #[error("the log is closed")]
    Closed,
}

impl StorageError {
    /// There is no room on the disk: it passes.
    pub fn is_full(&self) -> bool {
        matches!(self, StorageError::Full(_))
    }
}

/// Place of a batch that [`Log::append`] has fixed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    pub base_offset: i64,
    /// The end of the log behind the batch.
    pub next_offset: i64,
}

/// One partition's log. Lives on one shard.
pub struct Log {
    /// Unique on this shard; names the log in shared caches.
    pub(super) number: u64,
    pub(super) context: Rc<StorageContext>,
    pub(super) dir: Rc<LogDir>,
    pub(super) config: RefCell<Arc<TopicConfig>>,
    /// By base offset; the last one takes appends. Never empty.
    pub(super) segments: RefCell<BTreeMap<i64, Rc<Segment>>>,
    pub(super) start_offset: Cell<i64>,
    pub(super) next_offset: Cell<i64>,
    pub(super) positions: RefCell<EndPositions>,
    pub(super) appender: Appender,
    /// The way of appends through an arena; without one they go through `appender`.
    pub(super) behind: OnceCell<Behind>,
    pub(super) sync: SyncState,
    pub(super) delays: Reasons,
    pub(super) tail: Rc<Tail>,
    pub(super) hints: Hints,
    pub(super) readers: Readers,
    pub(super) failure: RefCell<Option<StorageError>>,
    /// Notified when an end moves, a sync ends, or the log fails.
    pub(super) progress: Notify,
    /// Called when an end moves or the log fails.
    pub(super) on_move: RefCell<Option<Box<dyn Fn()>>>,
    /// Asked when damage is met.
    pub(super) on_damage: RefCell<Option<Box<dyn Fn() -> bool>>>,
    /// Takes no more appends: it is being closed or removed.
    pub(super) closing: Cell<bool>,
    /// Takes no appends: it is being truncated.
    pub(super) truncating: Cell<bool>,
    /// Offsets may be missing between batches; a file beside the log says so.
    pub(super) gaps: Cell<bool>,
    /// One checkpoint, retention pass or close at a time.
    pub(super) maintenance: Rc<crate::runtime::sync::LocalMutex>,
    pub(super) checkpointed: Cell<(i64, i64)>,
    pub(super) to_recover: ToRecover,
    /// Segments are others than the last checkpoint knows.
    pub(super) checkpoint_stale: Cell<bool>,
    pub(super) clean: CleanState,
    /// Some segment has, or has had, aborted transactions.
    pub(super) knows_aborts: Cell<bool>,
    /// Segments being sealed.
    pub(super) sealing: Cell<usize>,
    /// One segment is mended at a time.
    pub(super) mending: Rc<crate::runtime::sync::LocalMutex>,
    /// The file system that it is on.
    pub(super) disk: Rc<Disk>,
    /// One of the broker's own topics, whose records may use `corelane.disk.reserve.bytes`.
    pub(super) uses_reserve: bool,
}

impl Log {
    /// A log over `segments`, all of whose bytes are written and synced. Use
    /// [`recovery`](super::recovery) to get them.
    pub(super) fn assemble(
        context: Rc<StorageContext>,
        dir: Rc<LogDir>,
        config: Arc<TopicConfig>,
        segments: VecDeque<Rc<Segment>>,
        start_offset: i64,
        next_offset: i64,
    ) -> Rc<Log> {
        let segments: BTreeMap<i64, Rc<Segment>> = segments.into_iter().map(|s| (s.base_offset, s)).collect();
        let knows_aborts = segments.values().any(|segment| segment.has_aborted());
        let active = match segments.last_key_value() {
            Some((_, segment)) => segment.clone(),
            None => Segment::new(dir.clone(), next_offset),
        };
        let end = LogPosition { offset: next_offset, position: active.size.get(), segment: active.clone() };
        let appender = Appender::new(&context.limits);
        let uses_reserve = dir.file_name().is_some_and(|name| name.to_string_lossy().starts_with(OWN_TOPICS));
        let disk = context.disk(dir.parent().unwrap_or(&dir));
        let to_recover = ToRecover::new(context.to_recover.clone());
        let log = Log {
            disk,
            uses_reserve,
            number: context.take_log_number(),
            tail: Tail::new(context.tail.clone()),
            context,
            dir,
            config: RefCell::new(config),
            segments: RefCell::new(segments),
            start_offset: Cell::new(start_offset),
            next_offset: Cell::new(next_offset),
            positions: RefCell::new(EndPositions::all_at(end)),
            appender,
            behind: OnceCell::new(),
            sync: SyncState::default(),
            delays: Reasons::default(),
            hints: Hints::default(),
            readers: Readers::default(),
            failure: RefCell::new(None),
            progress: Notify::new(),
            on_move: RefCell::new(None),
            on_damage: RefCell::new(None),
            closing: Cell::new(false),
            truncating: Cell::new(false),
            gaps: Cell::new(false),
            maintenance: crate::runtime::sync::LocalMutex::new(1),
            checkpointed: Cell::new((-1, -1)),
            to_recover,
            checkpoint_stale: Cell::new(false),
            clean: CleanState::default(),
            knows_aborts: Cell::new(knows_aborts),
            sealing: Cell::new(0),
            mending: crate::runtime::sync::LocalMutex::new(1),
        };
        log.segments.borrow_mut().entry(active.base_offset).or_insert(active);
        Rc::new(log)
    }

    /// The first offset that readers may ask for.
    pub fn start_offset(&self) -> i64 {
        self.start_offset.get()
    }

    /// The offset the next append will get.
    pub fn next_offset(&self) -> i64 {
        self.next_offset.get()
    }

    /// Bytes that a start after a crash would have to read.
    pub fn bytes_to_recover(&self) -> u64 {
        self.to_recover.get()
    }

    pub fn failure(&self) -> Option<StorageError> {
        self.failure.borrow().clone()
    }

    pub fn dir(&self) -> PathBuf {
        self.dir.to_path_buf()
    }

    pub fn config(&self) -> Arc<TopicConfig> {
        self.config.borrow().clone()
    }

    /// The open file of a segment that is written to.
    pub(super) async fn file_of(&self, segment: &Segment) -> io::Result<Rc<File>> {
        let _counting = (!segment.has_open_file()).then(|| self.delays.blocks.count());
        segment.file().await
    }

    /// New settings take effect with the next append, read or retention pass.
    pub fn set_config(&self, config: Arc<TopicConfig>) {
        *self.config.borrow_mut() = config;
    }

    /// Unique on its shard.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Bytes of all segments.
    pub fn size_bytes(&self) -> u64 {
        self.segments.borrow().values().map(|s| s.size.get()).sum()
    }

    /// Bytes that are not yet both written and synced.
    pub fn unsettled_bytes(&self) -> u64 {
        self.segments.borrow().values().map(|s| s.size.get().saturating_sub(s.synced.get())).sum()
    }

    /// Fixes the place of one checked batch and queues it for the device; `leader_epoch` and the
    /// offset are patched in, outside the CRC. Returns at once; the [`ends`](Self::ends) tell how
    /// safe it is. What waits here is bounded by the memory that connections may receive into.
    pub fn append(self: &Rc<Self>, batch: Bytes, leader_epoch: i32, now_ms: i64) -> Result<Appended, StorageError> {
        self.check_open()?;
        let Some(header) = BatchHeader::peek(&batch).copied() else {
            return Err(StorageError::Failed(
                format!("a batch of {} bytes has no {HEADER_BYTES}-byte header", batch.len()).into(),
            ));
        };
        let base_offset = self.next_offset.get();
        let next_offset = base_offset + i64::from(header.last_offset_delta.get()) + 1;
        Ok(self.place(batch, &header, (base_offset, next_offset), leader_epoch, now_ms))
    }

    /// Why nothing can be appended now.
    pub(super) fn check_open(&self) -> Result<(), StorageError> {
        if let Some(failure) = self.failure.borrow().as_ref() {
            return Err(failure.clone());
        }
        if self.closing.get() || self.truncating.get() {
            return Err(StorageError::Closed);
        }
        self.refusal().map_or(Ok(()), Err)
    }

    /// Gives a batch of the `offsets` its place and queues it for the device.
    pub(super) fn place(
        self: &Rc<Self>,
        batch: Bytes,
        header: &BatchHeader,
        offsets: (i64, i64),
        leader_epoch: i32,
        now_ms: i64,
    ) -> Appended {
        let (base_offset, next_offset) = offsets;
        let segment = self.segment_for(header, offsets, now_ms);
        let position = segment.size.get();
        let interval = self.config.borrow().index_interval_bytes;
        segment.note_batch(header, next_offset - 1, position, interval);
        segment.last_append_ms.set(now_ms);
        self.next_offset.set(next_offset);
        self.to_recover.add(header.total_bytes() as u64);
        let pending = Pending::new(batch, offsets, leader_epoch, position, segment);
        match self.behind.get() {
            Some(behind) => self.hold(behind, pending),
            None => {
                self.appender.push(pending);
                self.wake_appender();
            }
        }
        Appended { base_offset, next_offset }
    }

    /// The segment that takes the batch: the active one, or a new one when it must roll.
    fn segment_for(self: &Rc<Self>, header: &BatchHeader, offsets: (i64, i64), now_ms: i64) -> Rc<Segment> {
        let active = self.active();
        let (base_offset, next_offset) = offsets;
        let timestamp = header.max_timestamp.get();
        let newest = if timestamp >= 0 { timestamp } else { now_ms };
        if base_offset > self.next_offset.get() {
            // A fresh segment would begin at the end of the log.
            let begin = if active.size.get() == 0 { active.base_offset } else { self.next_offset.get() };
            if next_offset - 1 - begin > i64::from(i32::MAX) {
                return self.roll_beyond(&active, base_offset);
            }
        }
        if !active.must_roll(header.total_bytes() as u64, next_offset, &self.roll_rules(), newest) {
            return active;
        }
        self.roll(&active)
    }

    /// Starts a new segment at the end of the log and seals `active` in the background.
    pub(super) fn roll(self: &Rc<Self>, active: &Rc<Segment>) -> Rc<Segment> {
        self.roll_at(active, self.next_offset.get())
    }

    /// Starts a new segment behind a gap that is wider than the offsets of one segment may span.
    fn roll_beyond(self: &Rc<Self>, active: &Rc<Segment>, base_offset: i64) -> Rc<Segment> {
        if active.size.get() == 0 && !active.is_on_disk() {
            self.segments.borrow_mut().remove(&active.base_offset);
            let fresh = Segment::new(self.dir.clone(), base_offset);
            self.segments.borrow_mut().insert(base_offset, fresh.clone());
            return fresh;
        }
        self.roll_at(active, base_offset)
    }

    fn roll_at(self: &Rc<Self>, active: &Rc<Segment>, base_offset: i64) -> Rc<Segment> {
        let fresh = Segment::new(self.dir.clone(), base_offset);
        fresh.ahead.continue_from(&active.ahead);
        self.segments.borrow_mut().insert(fresh.base_offset, fresh.clone());
        // It has the index files of a segment that takes appends.
        self.checkpoint_stale.set(true);
        self.seal_later(active.clone());
        client_line!(
            info, dir = %self.dir.display(), offset = base_offset, closed = active.base_offset, bytes = active.size.get(),
            "rolled a new segment"
        );
        fresh
    }

    fn roll_rules(&self) -> RollRules {
        let config = self.config.borrow();
        // Records that wait for cleaning must be sealed in time.
        let latest = if config.cleanup_compact { config.max_compaction_lag_ms } else { i64::MAX };
        RollRules {
            segment_bytes: config.segment_bytes,
            segment_ms: config.segment_ms.min(latest),
            segment_index_bytes: config.segment_index_bytes,
            by_age_and_index: self.context.segments.get() < self.context.limits.max_segments,
        }
    }

    /// The segment that takes appends.
    pub(super) fn active(&self) -> Rc<Segment> {
        match self.segments.borrow().last_key_value() {
            Some((_, segment)) => segment.clone(),
            // Never empty by construction; an empty stand-in keeps this total.
            None => Segment::new(self.dir.clone(), self.next_offset.get()),
        }
    }

    /// The newest segment that begins at or before `offset`.
    pub(super) fn segment_at(&self, offset: i64) -> Option<Rc<Segment>> {
        self.segments.borrow().range(..=offset).next_back().map(|(_, s)| s.clone())
    }

    /// The segment after `base_offset`'s.
    pub(super) fn segment_after(&self, base_offset: i64) -> Option<Rc<Segment>> {
        let next = (std::ops::Bound::Excluded(base_offset), std::ops::Bound::Unbounded);
        self.segments.borrow().range::<i64, _>(next).next().map(|(_, s)| s.clone())
    }

    /// The segment before `base_offset`'s.
    pub(super) fn segment_before(&self, base_offset: i64) -> Option<Rc<Segment>> {
        self.segments.borrow().range(..base_offset).next_back().map(|(_, s)| s.clone())
    }

    /// Where the segment after the one that holds `offset` begins, if there is one.
    pub fn segment_begin_after(&self, offset: i64) -> Option<i64> {
        let segments = self.segments.borrow();
        segments.range(offset.saturating_add(1)..).next().map(|(begin, _)| *begin)
    }

    /// Takes the log out of service: no end moves after this. A full disk does so until there is
    /// room again, everything else until the broker is restarted.
    pub(super) fn fail(&self, doing: &str, error: &io::Error) {
        if self.failure.borrow().is_some() {
            return;
        }
        if is_full(error) {
            if let Some(unsaid) = self.context.full_lines.due(clock::now()) {
                tracing::error!(
                    dir = %self.dir.display(), held = self.ends().held, unsaid,
                    "{doing} found no room on the disk: the partition takes no more records until there is room again: {error}"
                );
            }
            self.context.count_failure();
            return self.end(StorageError::Full(error.to_string().into()));
        }
        let message = format!(
            "{doing} failed, the partition is offline and takes no more records until the broker is restarted: {error}"
        );
        tracing::error!(dir = %self.dir.display(), held = self.ends().held, "{message}");
        self.context.count_failure();
        self.end(StorageError::Failed(message.into()));
    }

    /// Takes the log out of service because its data directory has failed, or an invariant is
    /// broken, which is logged by the caller.
    pub fn lose(&self, why: &str) {
        if self.failure.borrow().is_none() {
            self.context.count_failure();
            self.end(StorageError::Failed(why.into()));
        }
    }

    /// No more appends, no end moves any more; waiters are told.
    pub(super) fn end(&self, why: StorageError) {
        self.failure.borrow_mut().get_or_insert(why);
        self.appender.clear();
        if let Some(behind) = self.behind.get() {
            behind.drop_waiting();
            self.note_arena(behind);
        }
        for segment in self.segments.borrow().values() {
            let gap = segment.written.get() - segment.synced.replace(segment.written.get());
            self.context.unsynced_bytes.set(self.context.unsynced_bytes.get().saturating_sub(gap));
        }
        self.to_recover.clear();
        self.announce();
    }

    /// Waits until everything appended so far is written; the error when the log fails first.
    pub(super) async fn wait_written(self: &Rc<Self>, offset: i64) -> Result<(), StorageError> {
        loop {
            if let Some(failure) = self.failure() {
                return Err(failure);
            }
            if self.ends().written >= offset {
                return Ok(());
            }
            self.write_everything();
            self.progress.notified().await;
        }
    }
}
