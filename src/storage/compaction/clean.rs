//! One log's cleaning, from its shard: long work in steps on helper threads, the
//! exchange of segments in between.

use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use super::files::{Cleaned, MAX_SEGMENT_BYTES, Output, damaged_segment, first_timestamp};
use super::filter::LastOffsets;
use super::map::OffsetMap;
use super::pace::Pace;
use super::plan::{Bounds, Facts, Rules, Survey, survey};
use super::swap::{self, Swap};
use super::txns::Txns;
use super::work::{Input, Mapping, Progress, Rewriting, Rewritten};
use crate::model::record_batch::HEADER_BYTES;
use crate::runtime::{clock, spawn_blocking};
use crate::storage::aborted::{AbortedTxn, write_aborted};
use crate::storage::files;
use crate::storage::index::OFFSET_ENTRY_BYTES;
use crate::storage::log::{Log, StorageError};
use crate::storage::paths::parse_partition_dir;
use crate::storage::reader::ReadError;
use crate::storage::segment::Segment;

/// Kafka's name and format, but one file in each partition's directory where Kafka has one in each
/// data directory: only the partition's shard writes it, and it goes with the partition. It is not
/// synced: without it everything is dirty again.
const CHECKPOINT: &str = "cleaner-offset-checkpoint";
/// Read by one step of work: milliseconds of a helper thread.
const STEP_BYTES: u64 = 1 << 20;
/// How long a log rests whose cleaning failed; doubles each time, up to the second.
const FIRST_RETRY_MS: i64 = 15_000;
const LAST_RETRY_MS: i64 = 600_000;

/// Limits of the cleaner of one shard.
#[derive(Clone, Debug)]
pub struct CleanerLimits {
    /// This shard's share of `log.cleaner.dedupe.buffer.size`; taken only while a log is cleaned.
    pub dedupe_buffer_bytes: usize,
    /// `log.cleaner.io.buffer.load.factor`
    pub load_factor: f64,
    /// `log.cleaner.io.buffer.size`: read, and written, at a time
    pub io_buffer_bytes: usize,
    /// This shard's share of `log.cleaner.io.max.bytes.per.second`
    pub max_bytes_per_second: f64,
}

/// The cleaner of one shard: its limits, and the I/O that its cleanings were charged so far.
pub struct Cleaner {
    limits: CleanerLimits,
    pace: Pace,
}

impl Cleaner {
    pub fn new(limits: CleanerLimits) -> Cleaner {
        let pace = Pace::new(limits.max_bytes_per_second);
        Cleaner { limits, pace }
    }
}

/// The log's memory of its cleaning.
#[derive(Default)]
pub struct CleanState {
    /// From the checkpoint; `None`: not read yet.
    first_dirty: Cell<Option<i64>>,
    /// Segments are being written anew: by a cleaning, or to take damage out of one.
    pub(in crate::storage) running: Cell<bool>,
    failures: Cell<u32>,
    retry_at_ms: Cell<i64>,
    /// The last try found no room: free bytes with which the next one need not wait for its time.
    room_wanted: Cell<Option<u64>>,
    /// Times that aborted transactions were forgotten.
    pub(in crate::storage) forgotten: Cell<u64>,
}

impl CleanState {
    pub fn is_running(&self) -> bool {
        self.running.get()
    }
}

/// Figures of one cleaning.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CleanStats {
    /// Bytes of the segments that were looked at, before and after.
    pub bytes_before: u64,
    pub bytes_after: u64,
    pub keys: usize,
    /// Cleaned up to here.
    pub end: i64,
}

/// Why a cleaning did not come to its end; the log is as it was, or cleaned in part.
#[derive(Debug, thiserror::Error)]
pub enum CleanError {
    /// The log or the broker goes, or retention took what was being cleaned.
    #[error("the log went on without it")]
    Ended,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Facts of a round: the newest offset of each key, and the batches that producers are remembered
/// by.
type Known = (Arc<OffsetMap>, Arc<LastOffsets>);

/// One cleaning of a log: its limits and pace, its time, and whether to leave off.
struct Round<'a> {
    cleaner: &'a Cleaner,
    now_ms: i64,
    ended: &'a dyn Fn() -> bool,
}

impl Log {
    /// The dirty part of the log before the offset `upto`, if it should be cleaned now. Rolls an
    /// active segment whose first record has waited for longer than `max.compaction.lag.ms`.
    /// `None`: the topic is not compacted, nothing is dirty, or the last try failed just now.
    pub async fn survey(self: &Rc<Self>, now_ms: i64, upto: i64) -> Option<Survey> {
        let config = self.config();
        if !config.cleanup_compact || self.has_ended() {
            return None;
        }
        if now_ms < self.clean.retry_at_ms.get() && !self.has_room_to_clean().await {
            return None;
        }
        let rules = Rules {
            min_dirty_ratio: config.min_cleanable_dirty_ratio,
            min_lag_ms: config.min_compaction_lag_ms,
            max_lag_ms: config.max_compaction_lag_ms,
        };
        self.roll_if_waiting(now_ms, rules.max_lag_ms, upto);
        let surveyed = async {
            let first_dirty = self.first_dirty().await?;
            let segments = self.cleanable_segments(upto);
            let facts = self.facts(&segments, first_dirty, rules.max_lag_ms < i64::MAX).await?;
            Ok(survey(&facts, first_dirty, &rules, now_ms))
        };
        match surveyed.await {
            Ok(found) => found,
            Err(error) => {
                self.clean_failed(&error, now_ms).await;
                None
            }
        }
    }

    /// Cleans what `survey` found. Only what lies before the last checkpoint is touched: recovery
    /// then never reads a cleaned segment, and the producers' newest sequences are known from the
    /// checkpoint. `ended`: whether to leave off.
    pub async fn clean(
        self: &Rc<Self>,
        found: Survey,
        producers: LastOffsets,
        cleaner: &Cleaner,
        now_ms: i64,
        ended: &dyn Fn() -> bool,
    ) -> Result<CleanStats, CleanError> {
        if self.clean.running.replace(true) {
            return Err(CleanError::Ended);
        }
        let ended = || ended() || self.has_ended() || !self.config.borrow().cleanup_compact;
        let start = self.start_offset();
        let outcome = self.clean_all(found, producers, &Round { cleaner, now_ms, ended: &ended }).await;
        self.clean.running.set(false);
        if let Err(CleanError::Io(error)) = &outcome
            && let Some(base) = damaged_segment(error)
        {
            self.mend_after_cleaning(base).await;
        }
        let outcome = match outcome {
            Err(CleanError::Ended) if !ended() && self.start_offset() == start => {
                Err(io::Error::new(io::ErrorKind::NotFound, "a segment's file is gone").into())
            }
            outcome => outcome,
        };
        match &outcome {
            Ok(_) => {
                self.clean.failures.set(0);
                self.clean.retry_at_ms.set(0);
                self.clean.room_wanted.set(None);
            }
            Err(CleanError::Io(error)) if !self.has_ended() => self.clean_failed(error, now_ms).await,
            // Told where it happened, or no failure.
            Err(_) => {}
        }
        outcome
    }

    async fn clean_all(
        self: &Rc<Self>,
        found: Survey,
        producers: LastOffsets,
        round: &Round<'_>,
    ) -> Result<CleanStats, CleanError> {
        let limits = &round.cleaner.limits;
        let end = found.end.min(self.checkpointed.get().0);
        let segments = self.cleanable_segments(end);
        let facts = self.facts(&segments, found.first_dirty, false).await?;
        let inputs: Vec<Input> =
            segments.iter().zip(facts).map(|(segment, facts)| Input { path: segment.path("log"), facts }).collect();
        let dirty: Vec<Input> = inputs.iter().filter(|i| i.facts.next > found.first_dirty).cloned().collect();
        if dirty.is_empty() {
            return Ok(CleanStats { end: found.first_dirty, ..CleanStats::default() });
        }
        let map = OffsetMap::new(limits.dedupe_buffer_bytes, limits.load_factor);
        let last_segment_end = segments.last().map_or(found.first_dirty, |s| self.end_of(s));
        let aborted = self.aborted_within(found.first_dirty, last_segment_end).await.map_err(io::Error::other)?;
        let mapping = Mapping::new(map, dirty, found.first_dirty, Txns::new(aborted), limits.io_buffer_bytes);
        let mapping = self.work_off(mapping, |mapping| mapping.step(STEP_BYTES), round).await?;
        // Records that the map does not know stay dirty.
        let end = if mapping.full { mapping.map.latest() + 1 } else { last_segment_end };
        let known = (Arc::new(mapping.map), Arc::new(producers));
        let mut stats = CleanStats { keys: known.0.len(), end, ..CleanStats::default() };
        let mut left = inputs.iter().take_while(|input| input.facts.base < end).count();
        let mut at = 0;
        let first = segments.first().map_or(end, |segment| segment.base_offset);
        // Also what is aborted behind the map's end, in the last segment that is written anew.
        let mut txns = Txns::new(self.aborted_within(first, last_segment_end).await.map_err(io::Error::other)?);
        while left > 0 {
            let (segments, inputs) = (&segments[at..at + left], inputs[at..at + left].to_vec());
            let (taken, bytes) = self.clean_first(segments, inputs, &known, &mut txns, round).await?;
            stats.bytes_before += segments[..taken].iter().map(|s| s.size.get()).sum::<u64>();
            stats.bytes_after += bytes;
            (at, left) = (at + taken, left - taken);
        }
        self.note_cleaned(end).await?;
        Ok(stats)
    }

    /// Puts a cleaned segment into the place of the first of `segments`, as many as it holds:
    /// how many, and its bytes.
    async fn clean_first(
        self: &Rc<Self>,
        segments: &[Rc<Segment>],
        inputs: Vec<Input>,
        known: &Known,
        txns: &mut Txns,
        round: &Round<'_>,
    ) -> Result<(usize, u64), CleanError> {
        let Some(base) = segments.first().map(|segment| segment.base_offset) else { return Err(CleanError::Ended) };
        let mut swap = Swap { dir: self.dir(), base, old: vec![base] };
        let Rewritten { cleaned, segments: taken, changed, aborted, txns: next } =
            match self.rewrite(base, inputs, known, std::mem::take(txns), round).await {
                Ok(rewritten) => rewritten,
                Err(error) => {
                    let _ = self.withdraw(swap).await;
                    return Err(error);
                }
            };
        *txns = next;
        let (taken, bytes) = (taken.clamp(1, segments.len()), cleaned.size);
        if changed || taken > 1 {
            swap.old = segments[..taken].iter().map(|segment| segment.base_offset).collect();
            self.exchange(&segments[..taken], cleaned, swap).await?;
        } else {
            self.withdraw(swap).await?;
        }
        self.keep_aborted(base, aborted).await?;
        Ok((taken, bytes))
    }

    /// Has the cleaned segment at `base` forget aborted transactions but those that
    /// readers have to know of.
    async fn keep_aborted(self: &Rc<Self>, base: i64, aborted: Vec<AbortedTxn>) -> Result<(), CleanError> {
        let segment = self.segments.borrow().get(&base).cloned();
        let Some(segment) = segment.filter(|segment| segment.has_aborted()) else { return Ok(()) };
        let index = self.index_of(&segment).await.map_err(io::Error::other)?;
        let _one = self.maintenance.acquire(1).await;
        let held = self.segments.borrow().get(&base).is_some_and(|held| Rc::ptr_eq(held, &segment));
        let outdated = held && index.borrow().aborted() != aborted;
        if outdated {
            let _visit = self.dir.visit().map_err(|_| CleanError::Ended)?;
            // The file first: what a failure leaves there is known here.
            write_aborted(&segment, aborted.clone()).await?;
            segment.aborted_file.set(!aborted.is_empty());
            index.borrow_mut().set_aborted(aborted);
            self.clean.forgotten.set(self.clean.forgotten.get() + 1);
        }
        Ok(())
    }

    async fn rewrite(
        self: &Rc<Self>,
        base: i64,
        inputs: Vec<Input>,
        known: &Known,
        txns: Txns,
        round: &Round<'_>,
    ) -> Result<Rewritten, CleanError> {
        let (dir, buffer, config) = (self.dir(), round.cleaner.limits.io_buffer_bytes, self.config());
        let visit = self.dir.visit().map_err(|_| CleanError::Ended)?;
        let interval = config.index_interval_bytes;
        let output = spawn_blocking(move || Output::create(&dir, base, interval, buffer, MAX_SEGMENT_BYTES)).await?;
        drop(visit);
        let bounds = Bounds { segment_bytes: config.segment_bytes, index_bytes: u64::from(config.segment_index_bytes) };
        let times = (round.now_ms, config.delete_retention_ms);
        let rewriting = Rewriting::new(inputs, output, bounds, known.clone(), times, txns, buffer);
        let rewriting = self.work_off(rewriting, |rewriting| rewriting.step(STEP_BYTES), round).await?;
        let _visit = self.dir.visit().map_err(|_| CleanError::Ended)?;
        Ok(spawn_blocking(move || rewriting.finish()).await?)
    }

    /// Takes steps of `work` until it is done, at the pace of the round.
    async fn work_off<W: Send + 'static>(
        &self,
        mut work: W,
        step: impl Fn(&mut W) -> io::Result<Progress> + Copy + Send + 'static,
        round: &Round<'_>,
    ) -> Result<W, CleanError> {
        loop {
            let begun = clock::now();
            let progress;
            (work, progress) = self.step(work, step).await?;
            round.cleaner.pace.spend(progress.bytes, begun, round.ended).await;
            if (round.ended)() {
                return Err(CleanError::Ended);
            }
            if progress.done {
                return Ok(work);
            }
        }
    }

    /// One step of work on a helper thread, which may open segments by path.
    async fn step<W: Send + 'static, R: Send + 'static>(
        &self,
        mut work: W,
        step: impl FnOnce(&mut W) -> io::Result<R> + Send + 'static,
    ) -> Result<(W, R), CleanError> {
        let _visit = self.dir.visit().map_err(|_| CleanError::Ended)?;
        let (work, outcome) = spawn_blocking(move || {
            let outcome = step(&mut work);
            (work, outcome)
        })
        .await;
        match outcome {
            Ok(outcome) => Ok((work, outcome)),
            // Retention was quicker.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(CleanError::Ended),
            Err(error) => Err(error.into()),
        }
    }

    async fn withdraw(&self, swap: Swap) -> Result<(), CleanError> {
        let _visit = self.dir.visit().map_err(|_| CleanError::Ended)?;
        Ok(spawn_blocking(move || swap::run(&swap.dir, &swap.withdraw())).await?)
    }

    /// Puts the cleaned segment into the place of `group`, on disk and here.
    pub(in crate::storage) async fn exchange(
        self: &Rc<Self>,
        group: &[Rc<Segment>],
        cleaned: Cleaned,
        swap: Swap,
    ) -> Result<(), CleanError> {
        let aborted = self.aborted_of(group).await.map_err(io::Error::other)?;
        let _one = self.maintenance.acquire(1).await;
        let held = |old: &Rc<Segment>| self.segments.borrow().get(&old.base_offset).is_some_and(|s| Rc::ptr_eq(s, old));
        if self.has_ended() || !group.iter().all(held) {
            self.withdraw(swap).await?;
            return Err(CleanError::Ended);
        }
        let _visit = self.dir.visit().map_err(|_| CleanError::Ended)?;
        if let (Some(first), false) = (group.first(), group.len() == 1 || aborted.is_empty()) {
            // Entries of the others are passed over until their segments are part of it.
            if let Err(error) = write_aborted(first, aborted.clone()).await {
                self.withdraw(swap).await?;
                return Err(error.into());
            }
        }
        let committing = swap.clone();
        let committed = spawn_blocking(move || swap::run(&committing.dir, &committing.commit())).await;
        if let Err(error) = committed {
            self.withdraw(swap).await?;
            return Err(error.into());
        }
        // From here to the end of the renames, readers that hold an open file go on with
        // it, and the others wait.
        for segment in group {
            segment.begin_replacement().await;
        }
        let replacing = swap.clone();
        let replaced = spawn_blocking(move || swap::run(&replacing.dir, &replacing.replace())).await;
        if let Err(error) = replaced {
            // The next start finishes what was committed; until then nobody
            // knows which file is which.
            self.fail("exchanging segments for cleaned ones", &error);
            return Err(self.failure().unwrap_or(StorageError::Closed).into());
        }
        self.take_over(group, cleaned, swap.base, aborted);
        let steps = self.remove_later(swap.remove());
        let removed = spawn_blocking(move || swap::run(&swap.dir, &steps)).await;
        if let Err(error) = removed {
            tracing::error!(dir = %self.dir.display(), %error, "removing files of cleaned segments failed; they go at the next start");
        }
        Ok(())
    }

    /// The aborted transactions whose markers are in these segments.
    async fn aborted_of(self: &Rc<Self>, group: &[Rc<Segment>]) -> Result<Vec<AbortedTxn>, ReadError> {
        let mut aborted = Vec::new();
        for segment in group.iter().filter(|segment| segment.has_aborted()) {
            aborted.extend_from_slice(self.index_of(segment).await?.borrow().aborted());
        }
        Ok(aborted)
    }

    fn take_over(self: &Rc<Self>, group: &[Rc<Segment>], mut cleaned: Cleaned, base: i64, aborted: Vec<AbortedTxn>) {
        let segment = Rc::new(Segment::cleaned(self.dir.clone(), base, cleaned.size));
        segment.max_timestamp.set(cleaned.max_timestamp);
        segment.offset_of_max_timestamp.set(cleaned.offset_of_max_timestamp);
        segment.first_timestamp.set(cleaned.first_timestamp);
        segment.last_append_ms.set(group.iter().map(|s| s.last_append_ms.get()).max().unwrap_or(-1));
        segment.set_index_sums(Some(cleaned.index.sums()));
        segment.aborted_file.set(!aborted.is_empty());
        segment.aborted_lost.set(group.iter().any(|old| old.aborted_lost.get()));
        cleaned.index.set_aborted(aborted);
        segment.set_index(cleaned.index);
        self.checkpoint_stale.set(true);
        {
            let mut segments = self.segments.borrow_mut();
            for old in group {
                segments.remove(&old.base_offset);
            }
            segments.insert(base, segment.clone());
        }
        for old in group {
            old.forget_file();
            self.context.cold.forget_segment(self.number, old.number);
        }
        self.context.indexes.admit(&segment);
        self.progress.notify_all();
    }

    /// Waits until an exchange that `segment` is part of has ended.
    pub(in crate::storage) async fn until_exchanged(&self, segment: &Rc<Segment>) {
        let held = || self.segments.borrow().get(&segment.base_offset).is_some_and(|s| Rc::ptr_eq(s, segment));
        while held() && self.failure().is_none() {
            self.progress.notified().await;
        }
    }

    /// The sealed segments from the start on that end at or before `end`.
    fn cleanable_segments(&self, end: i64) -> Vec<Rc<Segment>> {
        let active = self.active();
        let segments = self.segments.borrow();
        let sealed = segments.values().take_while(|s| !Rc::ptr_eq(s, &active) && s.sealed.get());
        sealed.take_while(|s| self.end_of(s) <= end).cloned().collect()
    }

    /// Where the segment after this one begins.
    fn end_of(&self, segment: &Rc<Segment>) -> i64 {
        self.segment_after(segment.base_offset).map_or(i64::MAX, |next| next.base_offset)
    }

    /// `with_first`: the first timestamps of dirty segments are wanted too;
    /// they may have to be read.
    async fn facts(
        self: &Rc<Self>,
        segments: &[Rc<Segment>],
        first_dirty: i64,
        with_first: bool,
    ) -> io::Result<Vec<Facts>> {
        let mut facts = Vec::with_capacity(segments.len());
        for segment in segments {
            let next = self.end_of(segment);
            if !segment.times_known.get() {
                self.index_of(segment).await.map_err(io::Error::other)?;
            }
            let wanted = with_first && next > first_dirty;
            if wanted && segment.first_timestamp.get().is_none() {
                let _visit = self.dir.visit()?;
                let path = segment.path("log");
                let first = spawn_blocking(move || first_timestamp(&path)).await?;
                segment.first_timestamp.set(first);
            }
            facts.push(Facts {
                base: segment.base_offset,
                next,
                bytes: segment.size.get(),
                index_bytes: self.index_bytes(segment),
                newest_ms: segment.newest_ms(),
                first_ms: segment.first_timestamp.get().filter(|_| wanted),
            });
        }
        Ok(facts)
    }

    /// Bytes of the segment's offset index, at the most while it is not in memory.
    fn index_bytes(&self, segment: &Segment) -> u64 {
        match segment.loaded_index() {
            Some(index) => (index.borrow().offset_entries() * OFFSET_ENTRY_BYTES) as u64,
            None => {
                let interval = self.config.borrow().index_interval_bytes.max(HEADER_BYTES as u32);
                segment.size.get() / u64::from(interval) * OFFSET_ENTRY_BYTES as u64
            }
        }
    }

    fn roll_if_waiting(self: &Rc<Self>, now_ms: i64, max_lag_ms: i64, upto: i64) {
        let active = self.active();
        let first = active.first_timestamp.get().filter(|first| *first >= 0);
        let waits = first.is_some_and(|first| first < now_ms.saturating_sub(max_lag_ms));
        if waits && active.size.get() > 0 && upto == self.next_offset() {
            self.roll(&active);
        }
    }

    pub(in crate::storage) fn has_ended(&self) -> bool {
        self.closing.get() || self.failure.borrow().is_some()
    }

    /// Where the next cleaning begins; the log's start when the checkpoint is of no use.
    async fn first_dirty(&self) -> io::Result<i64> {
        let noted = self.noted_clean().await?;
        let within = (self.start_offset()..=self.next_offset()).contains(&noted);
        Ok(if within { noted } else { self.start_offset() })
    }

    /// The offset in the checkpoint; -1: there is none that is sound.
    async fn noted_clean(&self) -> io::Result<i64> {
        if let Some(noted) = self.clean.first_dirty.get() {
            return Ok(noted);
        }
        let _visit = self.dir.visit()?;
        let text = files::read(&self.dir, CHECKPOINT).await?;
        let (topic, partition) = self.name();
        let noted = text.and_then(|text| parse_checkpoint(&text, &topic, partition)).unwrap_or(-1);
        self.clean.first_dirty.set(Some(noted));
        Ok(noted)
    }

    /// Has everything behind `end` count as dirty: it is cut off, and other
    /// records come in its place.
    pub(in crate::storage) async fn forget_cleaning_after(&self, end: i64) -> io::Result<()> {
        match self.noted_clean().await? > end {
            true => self.note_cleaned(end.max(0)).await,
            false => Ok(()),
        }
    }

    /// Topic and partition as its directory names them.
    fn name(&self) -> (String, i32) {
        let name = self.dir.file_name().unwrap_or_default().to_string_lossy();
        let (topic, partition) = parse_partition_dir(&name).unwrap_or((&name, 0));
        (topic.to_owned(), partition)
    }

    async fn note_cleaned(&self, end: i64) -> io::Result<()> {
        let _visit = self.dir.visit()?;
        let (topic, partition) = self.name();
        files::replace(&self.dir, CHECKPOINT, format!("0\n1\n{topic} {partition} {end}\n")).await?;
        self.clean.first_dirty.set(Some(end));
        Ok(())
    }

    /// Tells of a failure once, however often it is met, and has the next try wait: for its time,
    /// or on a full disk for room.
    async fn clean_failed(&self, error: &io::Error, now_ms: i64) {
        let failures = self.clean.failures.get();
        self.clean.failures.set(failures.saturating_add(1));
        let wait = FIRST_RETRY_MS.saturating_mul(1 << failures.min(10)).min(LAST_RETRY_MS);
        self.clean.retry_at_ms.set(now_ms.saturating_add(wait));
        let wanted = if files::is_full(error) { self.room_short_of(self.most_to_write()).await } else { None };
        self.clean.room_wanted.set(wanted);
        let dir = self.dir.display();
        match wanted {
            _ if failures > 0 => tracing::debug!(%dir, %error, failures, "cleaning failed again"),
            Some(bytes) => tracing::warn!(
                %dir, %error,
                "no room to clean: the log stays as it is and is served, and is cleaned once {bytes} bytes are free"
            ),
            None => tracing::error!(
                %dir, %error,
                "cleaning failed; the log stays as it is, and cleaning is tried again now and then"
            ),
        }
    }

    /// Bytes of the largest cleaned segment that the next cleaning may write, its indexes included.
    fn most_to_write(&self) -> u64 {
        let config = self.config.borrow();
        self.size_bytes().min(config.segment_bytes)
            + u64::from(config.segment_index_bytes).min(config.segment_bytes / 16)
    }

    /// `wanted`, if less is free. A quota, which free space knows nothing of, is no
    /// reason to try again early.
    async fn room_short_of(&self, wanted: u64) -> Option<u64> {
        let disk = self.disk();
        let looked = disk.look().await;
        (looked.is_ok() && !disk.has_free(wanted)).then_some(wanted)
    }

    /// The last cleaning found no room, and now there is some.
    async fn has_room_to_clean(&self) -> bool {
        let Some(wanted) = self.clean.room_wanted.get() else { return false };
        let disk = self.disk();
        disk.look().await.is_ok() && disk.has_free(wanted)
    }
}

/// The offset in the one line of Kafka's format; `None`: the file is damaged,
/// or another partition's.
pub fn parse_checkpoint(text: &str, topic: &str, partition: i32) -> Option<i64> {
    let mut lines = text.lines();
    if (lines.next()?, lines.next()?) != ("0", "1") {
        return None;
    }
    let mut fields = lines.next()?.rsplitn(3, ' ');
    let (offset, number, name) = (fields.next()?, fields.next()?, fields.next()?);
    let own = lines.next().is_none() && name == topic && number.parse() == Ok(partition);
    offset.parse().ok().filter(|offset: &i64| own && *offset >= 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checkpoint_is_this_partitions_or_of_no_use() {
        let parse = |text| parse_checkpoint(text, "a-b", 3);
        assert_eq!(parse("0\n1\na-b 3 120\n"), Some(120));
        for other in ["", "0\n1\n", "1\n1\na-b 3 120\n", "0\n1\na-b 4 120\n", "0\n1\na-c 3 120\n", "0\n1\na-b 3 -1\n"] {
            assert_eq!(parse(other), None, "{other:?}");
        }
        for damaged in ["0\n1\na-b 3 12x\n", "0\n1\na-b3 120\n", "0\n1\n120\n", "0\n1\na-b 3 120\nc 0 5\n"] {
            assert_eq!(parse(damaged), None, "{damaged:?}");
        }
    }
}
