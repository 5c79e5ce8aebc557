//! Truncation: a log is cut to a batch boundary, or emptied and begun at an offset. Afterwards it
//! is as if the rest had never been there: bytes, indexes, checkpoint, arena.
//!
//! A crash in between leaves the log as it was or with a part of the rest, always up to a batch
//! boundary: the checkpoint goes first, so that no start takes what is missing for damage; then the
//! segments, newest first; then the end of the one that stays. Everything appended is written
//! before, so that no arena brings the rest back.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::checkpoint::{Checkpoint, SegmentEntry};
use super::ends::{EndPositions, LogPosition};
use super::files::sync_dir;
use super::log::{Log, StorageError};
use super::maintenance::remove_files;
use super::reader::ReadError;
use super::segment::Segment;
use crate::model::EndMarker;
use crate::model::record_batch::BatchHeader;
use crate::runtime::disk::{ALIGNMENT, align_down};
use crate::runtime::{Yielder, clock};

/// Between two looks whether work on the log has ended.
const PAUSE: Duration = Duration::from_millis(1);

/// Why a log was not truncated. Unless it has failed, it is as it was.
#[derive(Debug, thiserror::Error)]
pub enum TruncateError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error("finding the place to cut at: {0}")]
    Read(#[from] ReadError),
}

/// Sets a flag while something lasts.
struct While<'a>(&'a Cell<bool>);

impl While<'_> {
    fn set(flag: &Cell<bool>) -> While<'_> {
        flag.set(true);
        While(flag)
    }
}

impl Drop for While<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

/// The end that a cut leaves of a log.
struct Rest {
    /// The segment that takes appends from then on.
    segment: Rc<Segment>,
    /// Segments from this base offset on go, but for the bytes of `segment`.
    from: i64,
    /// The end of its last batch, and of the log.
    end: i64,
}

impl Log {
    /// Cuts the log to the last batch boundary at or before `end` and returns that (Kafka's
    /// `truncateTo`); an `end` behind the log's own changes nothing. Nothing can be
    /// appended meanwhile. `sidecar` is called once nothing is appended any more, and gives
    /// the state of the layer above as of the boundary. To be driven to its end: a log that
    /// is half cut cannot go on.
    pub async fn truncate_to(
        self: &Rc<Self>,
        end: i64,
        sidecar: impl AsyncFnOnce(i64) -> Result<Vec<u8>, ReadError>,
    ) -> Result<i64, TruncateError> {
        if end >= self.next_offset() {
            return Ok(self.next_offset());
        }
        let _no_appends = While::set(&self.truncating);
        self.wait_settled().await?;
        let end = end.max(self.start_offset());
        // Damage on the way is mended now; later nothing else may touch the segments.
        let end = self.through_exchanges(async |_| self.rest_before(end).await).await?.end;
        let sidecar = sidecar(end).await?;
        while self.clean.running.replace(true) {
            clock::sleep(PAUSE).await;
        }
        let _no_cleaning = While(&self.clean.running);
        let _one = self.maintenance.acquire(1).await;
        self.wait_settled().await?;
        let rest = self.rest_before(end).await?;
        self.sync_written().await?;
        let doomed = self.behind(&rest);
        self.keep_in_checkpoint(&rest, sidecar).await?;
        let cut = async {
            let _visit = self.dir.visit()?;
            self.withdraw_from_readers(rest.from).await;
            for segment in doomed.iter().rev() {
                remove_files(segment).await?;
            }
            let last_block = shorten(&rest.segment).await?;
            sync_dir(self.dir.to_path_buf()).await?;
            io::Result::Ok(last_block)
        };
        let last_block = match cut.await {
            Ok(last_block) => last_block,
            Err(error) => {
                self.fail("truncating the log", &error);
                return Err(self.failure().unwrap_or(StorageError::Closed).into());
            }
        };
        let gone = self.segments.borrow_mut().split_off(&rest.from);
        self.go_on_at(rest, gone, &last_block);
        Ok(self.next_offset())
    }

    /// Removes everything and has the log begin at `begin` (Kafka's `truncateFullyAndStartAt`).
    /// `sidecar`: the state of the layer above of a log without records.
    pub async fn truncate_fully_and_start_at(
        self: &Rc<Self>,
        begin: i64,
        sidecar: Vec<u8>,
    ) -> Result<(), StorageError> {
        let _no_appends = While::set(&self.truncating);
        while self.clean.running.replace(true) {
            clock::sleep(PAUSE).await;
        }
        let _no_cleaning = While(&self.clean.running);
        let _one = self.maintenance.acquire(1).await;
        self.wait_settled().await?;
        self.sync_written().await?;
        let start = self.start_offset();
        // It vouches for nothing: a start reads what is still there.
        let segments = Some(Vec::new());
        let nothing = Checkpoint { recovery_point: start, log_start: start, segments, sidecar: Vec::new() };
        self.replace_checkpoint(nothing).await?;
        let segments: Vec<_> = self.segments.borrow().values().cloned().collect();
        let emptied = async {
            let _visit = self.dir.visit()?;
            self.withdraw_from_readers(i64::MIN).await;
            self.forget_cleaning_after(-1).await?;
            for segment in segments.iter().rev() {
                remove_files(segment).await?;
            }
            sync_dir(self.dir.to_path_buf()).await
        };
        let emptied = emptied.await;
        let rest = self.nothing_from(begin);
        let stored = match emptied {
            Ok(()) => {
                let segments = Some(vec![rest.segment.entry()]);
                let checkpoint = Checkpoint { recovery_point: begin, log_start: begin, segments, sidecar };
                self.store_for_good(checkpoint).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = stored {
            self.fail("emptying the log", &error);
            return Err(self.failure().unwrap_or(StorageError::Closed));
        }
        self.start_offset.set(begin);
        self.checkpointed.set((begin, begin));
        self.to_recover.clear();
        let gone = self.segments.take();
        self.go_on_at(rest, gone, &[]);
        Ok(())
    }

    /// Shows `batch` the headers of all batches from the one that holds `from` up to `upto`, in
    /// order, and the markers among them.
    pub async fn walk_headers(
        self: &Rc<Self>,
        from: i64,
        upto: i64,
        batch: &mut dyn FnMut(&BatchHeader, Option<EndMarker>),
    ) -> Result<(), ReadError> {
        let (next, batch) = (Cell::new(from.max(self.start_offset())), RefCell::new(batch));
        // Begun anew where a segment is exchanged meanwhile, from the batch that was not shown yet.
        self.through_exchanges(async |segments| {
            let limit = self.search_place_of(upto).await?;
            for segment in segments {
                let size = limit.within(segment);
                if size == 0 || self.end_of_segment(segment) <= next.get() {
                    continue;
                }
                let from = next.get().max(segment.base_offset);
                let mut found = self.find_offset(segment, from, size).await?;
                let mut yielder = Yielder;
                while let Some(shown) = found {
                    let marker = match shown.header.is_control() {
                        true => self.marker_at(segment, shown.position, shown.end() - shown.position).await?,
                        false => None,
                    };
                    batch.borrow_mut()(&shown.header, marker);
                    next.set(shown.header.next_offset());
                    yielder.pass().await;
                    found = self.scan(segment, shown.end(), size, |_| true).await?;
                }
            }
            Ok(())
        })
        .await
    }

    /// Waits until everything appended is written, and no file of the log is being
    /// reserved, zeroed or sealed.
    async fn wait_settled(self: &Rc<Self>) -> Result<(), StorageError> {
        if self.has_ended() {
            return Err(self.failure().unwrap_or(StorageError::Closed));
        }
        self.wait_written(self.next_offset()).await?;
        self.settle(&self.active()).await?;
        while self.sealing.get() > 0 {
            clock::sleep(PAUSE).await;
        }
        self.failure().map_or(Ok(()), Err)
    }

    /// A log without a batch that begins at `begin`.
    fn nothing_from(&self, begin: i64) -> Rest {
        Rest { segment: Segment::new(self.dir.clone(), begin), from: i64::MIN, end: begin }
    }

    /// The segments that go with their files.
    fn behind(&self, rest: &Rest) -> Vec<Rc<Segment>> {
        let stays = |base: i64| base == rest.from;
        let segments = self.segments.borrow();
        segments.range(rest.from..).filter(|(base, _)| !stays(**base)).map(|(_, segment)| segment.clone()).collect()
    }

    /// The segment that a cut at `end` leaves last, as it would be if nothing had followed.
    async fn rest_before(self: &Rc<Self>, end: i64) -> Result<Rest, ReadError> {
        let start = self.start_offset();
        let LogPosition { segment: mut old, mut position, .. } = self.search_place_of(end).await?;
        // A segment begins with a batch.
        while position == 0
            && let Some(before) = self.segment_at(old.base_offset - 1)
        {
            (position, old) = (before.size.get(), before);
        }
        if position == 0 {
            return Ok(self.nothing_from(start));
        }
        let mut index = self.index_of(&old).await?.borrow().clone();
        index.reopen_at(u32::try_from(position).unwrap_or(u32::MAX));
        let from = u64::from(index.position_at_or_before(u32::MAX));
        let fresh = Rc::new(Segment::found(self.dir.clone(), old.base_offset, position));
        if let Some(newest) = index.last_time() {
            fresh.max_timestamp.set(newest.timestamp_ms);
            fresh.offset_of_max_timestamp.set(old.base_offset + i64::from(newest.offset));
        }
        fresh.set_index(index);
        fresh.last_append_ms.set(old.last_append_ms.get());
        let interval = self.config.borrow().index_interval_bytes;
        let mut end = old.base_offset;
        let mut at = from;
        while at < position {
            let Some(found) = self.scan(&old, at, position, |_| true).await? else { break };
            end = found.header.next_offset();
            fresh.note_batch(&found.header, end - 1, at, interval);
            at = found.end();
        }
        if from > 0 {
            let first = self.scan(&old, 0, position, |header| header.record_count.get() > 0).await?;
            fresh.first_timestamp.set(first.map(|found| found.header.max_timestamp.get()));
        }
        let (end, index) = (end.max(start), fresh.loaded_index());
        fresh.aborted_file.set(old.aborted_file.get());
        fresh.aborted_lost.set(old.aborted_lost.get());
        // Written with the next checkpoint, when the markers themselves are gone.
        let cut = index.is_some_and(|index| index.borrow_mut().cut_aborted(end));
        fresh.aborted_unsaved.set(cut || old.aborted_unsaved.get());
        Ok(Rest { from: old.base_offset, segment: fresh, end })
    }

    /// Has a start know of nothing behind `rest`.
    async fn keep_in_checkpoint(self: &Rc<Self>, rest: &Rest, sidecar: Vec<u8>) -> Result<(), StorageError> {
        if let Err(error) = self.forget_cleaning_after(rest.end).await {
            return Err(self.put_off("the cleaner's checkpoint", &error));
        }
        if rest.segment.is_on_disk()
            && let Err(error) = rest.segment.write_index_files(false).await
        {
            return Err(self.put_off("index files", &error));
        }
        // As they are before the cut: a start takes what lies before the end, and no
        // entry may be missing there.
        let stay: Vec<_> = self.segments.borrow().range(..=rest.from).map(|(_, segment)| segment.clone()).collect();
        for segment in stay {
            if let Err(error) = segment.save_aborted().await {
                return Err(self.put_off("aborted transactions", &error));
            }
        }
        let start = self.start_offset();
        let mut segments: Vec<SegmentEntry> =
            self.segments.borrow().range(..rest.from).map(|(_, segment)| segment.entry()).collect();
        segments.push(rest.segment.entry());
        let checkpoint = Checkpoint { recovery_point: rest.end, log_start: start, segments: Some(segments), sidecar };
        self.replace_checkpoint(checkpoint).await?;
        self.checkpointed.set((rest.end, start));
        self.to_recover.clear();
        Ok(())
    }

    async fn replace_checkpoint(&self, checkpoint: Checkpoint) -> Result<(), StorageError> {
        self.checkpoint_stale.set(true);
        self.store_for_good(checkpoint).await.map_err(|error| self.put_off("a checkpoint", &error))
    }

    /// Replaces the checkpoint; a power cut does not bring the old one back.
    async fn store_for_good(&self, checkpoint: Checkpoint) -> io::Result<()> {
        self.store(checkpoint).await?;
        sync_dir(self.dir.to_path_buf()).await
    }

    /// Readers that meet the end of the segments from `base` on look for their place
    /// anew, once others are there.
    async fn withdraw_from_readers(&self, base: i64) {
        let segments: Vec<_> = self.segments.borrow().range(base..).map(|(_, segment)| segment.clone()).collect();
        for segment in segments {
            segment.begin_replacement().await;
        }
    }

    /// Has the log end with `rest` in the place of the segments `gone`; `last_block`: the bytes of
    /// its unfinished last block.
    fn go_on_at(self: &Rc<Self>, rest: Rest, gone: BTreeMap<i64, Rc<Segment>>, last_block: &[u8]) {
        let Rest { segment, end, .. } = rest;
        let (base, position) = (segment.base_offset, segment.size.get());
        self.segments.borrow_mut().insert(base, segment.clone());
        for old in gone.values() {
            old.forget_file();
            self.context.cold.forget_segment(self.number, old.number);
        }
        self.hints.clear();
        self.readers.clear();
        self.tail.forget();
        self.resume_at(base, position, last_block);
        *self.positions.borrow_mut() = EndPositions::all_at(LogPosition { offset: end, segment, position });
        self.next_offset.set(end);
        self.checkpoint_stale.set(false);
        self.progress.notify_all();
    }
}

/// Cuts the segment's file to its size, for good, and reads its unfinished last block.
async fn shorten(segment: &Segment) -> io::Result<Vec<u8>> {
    if !segment.is_on_disk() {
        return Ok(Vec::new());
    }
    let (file, size) = (segment.file().await?, segment.size.get());
    file.truncate(size).await?;
    file.fdatasync().await?;
    let unfinished = (size - align_down(size)) as usize;
    if unfinished == 0 {
        return Ok(Vec::new());
    }
    let block = file.read_at(align_down(size), ALIGNMENT as usize).await?;
    match block.get(..unfinished) {
        Some(block) => Ok(block.to_vec()),
        None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the last block ends before the log does")),
    }
}
