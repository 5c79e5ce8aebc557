//! Opening a log: sealed segments that are as the checkpoint knows them are taken as they are, what
//! follows the recovery point is read and checked, and so is every segment that is not what it was.
//! Indexes of what was read are rebuilt.
//!
//! Bytes that are not a whole, sound batch are a torn tail or rot ([`rot`](super::rot) tells them
//! apart). A torn tail is cut off: acknowledged records lie before it, since a group is
//! acknowledged only after every group before it has landed. Rot is set aside and named, and what
//! is sound behind it stays. Offsets below the recovery point were given away and are not given
//! again, also where their records are gone.

mod look;
mod mend;
mod scan;

use std::collections::VecDeque;
use std::io;
use std::ops::{Deref, Range};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
pub use look::Looked;
use look::{LogEnd, last_time_entry};
use scan::Scan;

use super::aborted::AbortedTxn;
use super::checkpoint::SegmentEntry;
use super::context::StorageContext;
use super::dir::LogDir;
use super::index::SegmentIndex;
use super::log::Log;
use super::segment::Segment;
use crate::config::TopicConfig;
use crate::model::EndMarker;
use crate::model::record_batch::BatchHeader;
use crate::runtime::disk::{ALIGNMENT, File, MAX_IO_BYTES, align_down, align_up, is_full};
use crate::runtime::spawn_blocking;

/// A batch read during recovery, at or after the recovery point.
pub struct RecoveredBatch<'a> {
    header: &'a BatchHeader,
    /// A transaction ends here.
    pub marker: Option<EndMarker>,
    aborted: &'a mut Option<AbortedTxn>,
}

impl RecoveredBatch<'_> {
    /// The marker has aborted this transaction.
    pub fn note_aborted(&mut self, txn: AbortedTxn) {
        *self.aborted = Some(txn);
    }
}

impl Deref for RecoveredBatch<'_> {
    type Target = BatchHeader;

    fn deref(&self) -> &BatchHeader {
        self.header
    }
}

/// An opened log and how much of it had to be read.
pub struct Recovered {
    pub log: Rc<Log>,
    /// Bytes read and checked.
    pub scanned_bytes: u64,
    /// Damaged bytes were set aside, or records are missing: the next start must not look for them
    /// again, so a checkpoint is due at once.
    pub damaged: bool,
    pub last_stop: LastStop,
}

/// The end of a log's last use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastStop {
    /// By a broker that closed it.
    Clean,
    /// By a broker that ended on the way, or its checkpoint is gone: what was at the log's end may
    /// be gone too.
    Unclean,
    /// This broker has had it in use before, or makes it.
    Running,
}

impl Log {
    /// Opens (or makes) the log in `dir`. `sidecar` gets the checkpoint's opaque part, if there is
    /// one; then `batch` gets the header of every batch at or after the checkpoint's recovery
    /// point, in order.
    pub async fn open(
        context: Rc<StorageContext>,
        dir: &Path,
        config: Arc<TopicConfig>,
        sidecar: &mut dyn FnMut(&[u8]),
        batch: &mut dyn FnMut(&mut RecoveredBatch<'_>),
    ) -> io::Result<Recovered> {
        let looked = Looked::find(&context, dir, None).await?;
        Log::open_looked(context, dir, looked, config, sidecar, batch).await
    }

    /// [`open`](Self::open) of a log whose directory has been looked at. Nothing may
    /// have changed there since.
    pub async fn open_looked(
        context: Rc<StorageContext>,
        dir: &Path,
        looked: Looked,
        config: Arc<TopicConfig>,
        sidecar: &mut dyn FnMut(&[u8]),
        batch: &mut dyn FnMut(&mut RecoveredBatch<'_>),
    ) -> io::Result<Recovered> {
        let (found, end) = (looked.found, looked.end);
        // An empty log may have been closed without one.
        let checkpointed = found.checkpoint.is_some() || found.segments.is_empty();
        let checkpoint = found.checkpoint.unwrap_or_default();
        if !checkpoint.sidecar.is_empty() {
            sidecar(&checkpoint.sidecar);
        }
        let clean_stop = context.stopped_clean(dir);
        let last_stop = match (context.is_starting(), clean_stop && checkpointed) {
            (false, _) => LastStop::Running,
            (true, true) => LastStop::Clean,
            (true, false) => LastStop::Unclean,
        };
        let limits = &context.limits;
        let mut recovery = Recovery {
            dir: LogDir::new(dir, context.segments.clone()),
            config: config.clone(),
            clean_stop,
            end,
            in_flight: limits.write_max_bytes as u64 * limits.write_queue_depth.max(1) as u64,
            recovery_point: checkpoint.recovery_point,
            log_start: checkpoint.log_start,
            known: checkpoint.segments,
            set_aside_before: found.has_rot,
            gaps: found.has_gaps,
            segments: VecDeque::new(),
            next_offset: checkpoint.log_start.max(0),
            delivered: checkpoint.recovery_point,
            reserved: checkpoint.recovery_point,
            scanned_bytes: 0,
            damaged: limits.notes_damage && found.is_damaged,
            notes_damage: limits.notes_damage && !found.is_damaged,
            last_block: Vec::new(),
            syncs_wait: context.is_starting() && config.flush_messages == u64::MAX && config.flush_ms != Some(0),
            unsynced: None,
            aborted: Vec::new(),
        };
        recovery.run(&found.segments, batch).await?;
        recovery.keep_given_offsets();
        recovery.note_lost_segment(found.lost_segment);
        if recovery.damaged {
            recovery.note_damage().await?;
        }
        let damaged = recovery.damaged;
        let to_recover = if recovery.next_offset > checkpoint.recovery_point { recovery.scanned_bytes } else { 0 };
        let recovered = recovery.finish(context, config, checkpoint.log_start, last_stop)?;
        recovered.log.checkpointed.set((checkpoint.recovery_point, checkpoint.log_start));
        recovered.log.checkpoint_stale.set(damaged);
        recovered.log.to_recover.add(to_recover);
        recovered.log.gaps.set(found.has_gaps);
        Ok(recovered)
    }
}

/// Reads of one segment, of which the first may have been made with the directory.
struct Read {
    end: Option<LogEnd>,
    file_bytes: u64,
}

impl Read {
    /// The place from which on the file has nothing but zeros, or where it ends.
    fn zeros_from(&self) -> u64 {
        self.end.as_ref().map_or(self.file_bytes, |end| end.zeros_from)
    }

    /// Bytes at an aligned `position`: `len` or fewer.
    async fn at(&mut self, file: &File, position: u64, len: usize) -> io::Result<Bytes> {
        match self.end.as_mut().and_then(|end| end.take_block(position, self.file_bytes)) {
            Some(block) => Ok(block),
            None => file.read_at(position, len).await,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct FoundSegment {
    base: i64,
    bytes: u64,
    /// Its time index was written when it was sealed, or by a checkpoint: either way everything in
    /// the segments before it had landed.
    has_index: bool,
    /// There is a file of aborted transactions.
    has_aborted: bool,
    /// Wall time of the last write, ms: stands in where no record has a timestamp.
    modified_ms: i64,
}

struct Recovery {
    dir: Rc<LogDir>,
    config: Arc<TopicConfig>,
    clean_stop: bool,
    /// The last segment as it was read with the directory, until it is taken.
    end: Option<LogEnd>,
    /// All writes of a log in flight together, bytes.
    in_flight: u64,
    recovery_point: i64,
    log_start: i64,
    /// The segments as of the checkpoint; `None`: not known.
    known: Option<Vec<SegmentEntry>>,
    /// Damage was set aside at an earlier start: gaps in the offsets are nothing new.
    set_aside_before: bool,
    /// The log's batches are as another replica has them, gaps and all.
    gaps: bool,
    segments: VecDeque<Rc<Segment>>,
    next_offset: i64,
    /// Batches before this were handed on, or need not be.
    delivered: i64,
    /// Offsets before this were given away.
    reserved: i64,
    scanned_bytes: u64,
    damaged: bool,
    /// Damage is to be noted, and is not yet.
    notes_damage: bool,
    last_block: Vec<u8>,
    /// The sync of what was read may be left to the running log: nothing is acknowledged by it.
    syncs_wait: bool,
    /// The place up to which the last segment is synced, where its sync was left so.
    unsynced: Option<(i64, u64)>,
    /// Transactions that were aborted at or after the recovery point.
    aborted: Vec<AbortedTxn>,
}

impl Recovery {
    async fn run(&mut self, found: &[FoundSegment], batch: &mut dyn FnMut(&mut RecoveredBatch<'_>)) -> io::Result<()> {
        for (i, segment) in found.iter().enumerate() {
            let rest = &found[i + 1..];
            let next = rest.first().map(|next| next.base);
            if next.is_some_and(|next| next <= self.log_start) {
                self.remove(segment.base).await?;
                continue;
            }
            if segment.base < self.next_offset && !self.segments.is_empty() {
                self.set_aside_overlap(segment).await?;
                continue;
            }
            if self.segments.is_empty() {
                // The log start may lie amid its first segment.
                self.next_offset = self.next_offset.min(segment.base);
            }
            if let Some(next) = next
                && let Some(entry) = self.trusted(segment, next)
            {
                self.note_gap(self.next_offset, segment.base);
                self.trust(segment, entry, next).await?;
            } else if !self.read_segment(segment, rest, batch).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The checkpoint's entry of a segment that is what it was; the inner `None`: the checkpoint is
    /// of a version without them.
    fn trusted(&self, segment: &FoundSegment, next: i64) -> Option<Option<SegmentEntry>> {
        if next > self.recovery_point || segment.base < self.next_offset {
            return None;
        }
        let Some(known) = &self.known else { return Some(None) };
        let at = known.binary_search_by_key(&segment.base, |entry| entry.base).ok()?;
        // The last one took appends still: its index files may not be those of a sealed segment.
        let ends = known.get(at + 1)?.base;
        let entry = known[at];
        (entry.bytes == segment.bytes && ends == next).then_some(Some(entry))
    }

    /// Takes a sealed segment as it is. Its largest timestamp is in the checkpoint, or else at the
    /// end of its time index.
    async fn trust(&mut self, found: &FoundSegment, entry: Option<SegmentEntry>, next: i64) -> io::Result<()> {
        let segment = Segment::found(self.dir.clone(), found.base, found.bytes);
        segment.aborted_file.set(found.has_aborted);
        segment.last_append_ms.set(found.modified_ms);
        let newest = match entry {
            Some(entry) => entry.newest,
            None => {
                let path = segment.path("timeindex");
                let last = spawn_blocking(move || last_time_entry(&path)).await?;
                last.map(|(timestamp, relative)| (timestamp, segment.base_offset + i64::from(relative)))
            }
        };
        match newest {
            Some((timestamp, offset)) => {
                segment.max_timestamp.set(timestamp);
                segment.offset_of_max_timestamp.set(offset);
            }
            None => segment.times_known.set(false),
        }
        segment.set_index_sums(entry.and_then(|entry| entry.index));
        segment.sealed.set(true);
        self.next_offset = next;
        self.segments.push_back(Rc::new(segment));
        Ok(())
    }

    /// Reads and checks what the start cannot take on trust, mending what is damaged. `false`: the
    /// log ends in this segment, those behind it are gone.
    async fn read_segment(
        &mut self,
        found: &FoundSegment,
        rest: &[FoundSegment],
        batch: &mut dyn FnMut(&mut RecoveredBatch<'_>),
    ) -> io::Result<bool> {
        let next_sound = self.next_sound_segment(rest).await?;
        let (end, before) = (self.next_offset, self.next_offset.max(found.base));
        let mut bytes = found.bytes;
        // Once as it is, and once more when damage was taken out of it.
        for mended in [false, true] {
            self.next_offset = before;
            let segment = Rc::new(Segment::found(self.dir.clone(), found.base, bytes));
            segment.aborted_file.set(found.has_aborted);
            segment.last_append_ms.set(found.modified_ms);
            let mut read = Read { end: self.end.take_if(|end| end.base == found.base && !mended), file_bytes: bytes };
            let mut bounds = self.bounds(&segment, bytes, next_sound);
            // The remaining segments were looked at as a whole, gaps and all.
            bounds.gap_at_end |= mended;
            let scan = self.scan(&segment, &mut read, bounds, mended, batch).await?;
            let outcome = self.examine(&segment, &scan, bounds, rest, next_sound).await?;
            let stays = !matches!(outcome, mend::Outcome::Rewritten(_));
            let torn = matches!(outcome, mend::Outcome::Ends);
            let nothing_landed = stays && scan.position == 0;
            if nothing_landed && end < found.base && self.is_unproven(end..found.base, torn, next_sound) {
                // Its name is no end of the log.
                self.next_offset = end;
                self.drop_rest(rest).await?;
                self.remove(found.base).await?;
                // The log goes on in the one before; one that was taken on trust stays sealed.
                if let Some(last) = self.segments.back() {
                    last.reopen();
                }
                return Ok(false);
            }
            if stays {
                self.note_gap(end, found.base);
            }
            match outcome {
                mend::Outcome::Rewritten(smaller) if !mended => bytes = smaller,
                mend::Outcome::Rewritten(_) => break,
                mend::Outcome::Sound => {
                    self.settle(segment.clone(), scan, bytes, rest.is_empty()).await?;
                    if !rest.is_empty() {
                        let written = match segment.write_index_files(true).await {
                            Ok(()) => segment.save_aborted().await,
                            failed => failed,
                        };
                        match written {
                            Ok(()) => {
                                segment.sealed.set(true);
                                segment.forget_file();
                            }
                            Err(error) if is_full(&error) => segment.seal_waits.set(true),
                            Err(error) => return Err(error),
                        }
                    }
                    return Ok(true);
                }
                mend::Outcome::Ends => {
                    self.settle(segment, scan, bytes, false).await?;
                    self.drop_rest(rest).await?;
                    return Ok(false);
                }
            }
        }
        let path = Segment::found(self.dir.clone(), found.base, bytes).path("log");
        let text = format!("{}: still damaged after its damage was set aside: check the disk", path.display());
        Err(io::Error::new(io::ErrorKind::InvalidData, text))
    }

    /// True if the offsets `gap` were given, but nothing says that their records were synced: the
    /// power went before that. A gap would not be filled again, on a follower least of all. `torn`:
    /// the log ends in the segment behind it.
    fn is_unproven(&self, gap: Range<i64>, torn: bool, next_sound: Option<i64>) -> bool {
        let follows = !self.segments.is_empty() || self.gaps;
        let nothing_behind = next_sound.is_none() || (torn && self.gaps);
        let unproven = follows && nothing_behind && gap.end > self.recovery_point;
        if unproven {
            tracing::warn!(
                dir = %self.dir.display(), end = gap.start, base = gap.end,
                "records before a new segment were not synced and are gone: the log ends where they began"
            );
        }
        unproven
    }

    /// Reads a segment from the recovery point's place on and checks every batch, up to the first
    /// that is not sound.
    async fn scan(
        &mut self,
        segment: &Rc<Segment>,
        read: &mut Read,
        bounds: super::rot::Bounds,
        whole: bool,
        batch: &mut dyn FnMut(&mut RecoveredBatch<'_>),
    ) -> io::Result<Scan> {
        if let Some(end) = &mut read.end {
            end.hand_over(segment);
        }
        let start = if whole { None } else { self.scan_start(segment, read, bounds.size).await? };
        let (position, next_offset) = start.unwrap_or_else(|| {
            segment.set_index(SegmentIndex::default());
            (0, bounds.from_offset)
        });
        self.scan_from(segment, read, Scan::new(position, next_offset, bounds), batch).await
    }

    async fn scan_from(
        &mut self,
        segment: &Rc<Segment>,
        read: &mut Read,
        mut scan: Scan,
        batch: &mut dyn FnMut(&mut RecoveredBatch<'_>),
    ) -> io::Result<Scan> {
        let file = segment.file().await?;
        let bytes = scan.bounds.size;
        let zeros_from = read.zeros_from();
        let mut read_at = align_down(scan.position);
        let mut skip = (scan.position - read_at) as usize;
        segment.size.set(scan.position);
        while read_at < bytes && !scan.stopped {
            if read_at >= zeros_from && scan.is_at_zeros() {
                break;
            }
            // Zeros are read only where a batch reaches into them.
            let to = if read_at < zeros_from { zeros_from } else { bytes };
            // No longer than the file is: the kernel would write zeros over the rest of the buffer.
            let part = read.at(&file, read_at, align_up(to - read_at).min(MAX_IO_BYTES as u64) as usize).await?;
            if part.is_empty() {
                break;
            }
            if read_at == 0 && skip > 0 {
                segment.first_timestamp.set(BatchHeader::peek(&part).map(|h| h.max_timestamp.get()));
            }
            scan.newest = Some((read_at, part.clone()));
            read_at += part.len() as u64;
            self.scanned_bytes += part.len() as u64;
            scan.window.extend_from_slice(&part[skip.min(part.len())..]);
            skip = 0;
            scan.take(read_at >= bytes, &mut |header, batch_bytes, position| {
                segment.note_batch(header, header.next_offset() - 1, position, self.config.index_interval_bytes);
                if header.base() >= self.delivered {
                    self.delivered = header.next_offset();
                    let marker = if header.is_control() { EndMarker::of(batch_bytes) } else { None };
                    let mut aborted = None;
                    batch(&mut RecoveredBatch { header, marker, aborted: &mut aborted });
                    self.aborted.extend(aborted);
                }
            });
        }
        scan.only_zeros_follow = read_at >= zeros_from && scan.is_at_zeros();
        Ok(scan)
    }

    /// Cuts the file where the scan ended and takes over what it found. `may_wait`: nothing but
    /// zeros is cut off, and no segment follows, so its sync may be left to the running log.
    async fn settle(&mut self, segment: Rc<Segment>, scan: Scan, bytes: u64, may_wait: bool) -> io::Result<()> {
        let file = segment.file().await?;
        let end = scan.position;
        segment.size.set(end);
        if end == bytes && !self.clean_stop {
            // Cutting waits for direct writes of the process before, which may end after it: none
            // may fall on what is written from here on.
            file.truncate(end + ALIGNMENT).await?;
        }
        if end != bytes || !self.clean_stop {
            file.truncate(end).await?;
        }
        for cell in [&segment.written, &segment.synced, &segment.allocated] {
            cell.set(end);
        }
        self.next_offset = scan.next_offset.max(segment.base_offset);
        self.index_aborted(&segment).await?;
        match self.synced_before(&segment, end) {
            // That zeros are cut off need not last: the next start would cut them off again.
            Some(at) if may_wait && self.syncs_wait && !self.damaged => self.unsynced = (at.1 < end).then_some(at),
            Some((_, position)) if position == end && end == bytes => {}
            _ => file.fdatasync().await?,
        }
        let unfinished = align_down(end);
        self.last_block = match &scan.newest {
            _ if unfinished == end => Vec::new(),
            Some((at, part)) if *at <= unfinished && end <= at + part.len() as u64 => {
                part[(unfinished - at) as usize..(end - at) as usize].to_vec()
            }
            _ => {
                let block = file.read_at(unfinished, ALIGNMENT as usize).await?;
                block[..((end - unfinished) as usize).min(block.len())].to_vec()
            }
        };
        self.segments.push_back(segment);
        Ok(())
    }

    /// Notes the aborted transactions whose markers are in a segment that was read: those before
    /// the recovery point are in its file, the others have been met.
    async fn index_aborted(&self, segment: &Segment) -> io::Result<()> {
        let mut aborted = segment.read_aborted().await?;
        let noted = aborted.len();
        aborted.retain(|txn| txn.last_offset < self.recovery_point.min(self.next_offset));
        let before = aborted.len();
        let offsets = segment.base_offset..self.next_offset;
        aborted.extend(self.aborted.iter().filter(|txn| offsets.contains(&txn.last_offset)));
        if let Some(index) = segment.loaded_index() {
            segment.aborted_unsaved.set(noted > before || aborted.len() > before);
            index.borrow_mut().set_aborted(aborted);
        }
        Ok(())
    }

    /// The place in a scanned segment up to which the checkpoint knows it to be synced: offset and
    /// position. `None`: not known.
    fn synced_before(&self, segment: &Segment, end: u64) -> Option<(i64, u64)> {
        let checkpointed = self.known.as_ref().and_then(|known| known.last());
        match checkpointed.filter(|entry| entry.base == segment.base_offset) {
            Some(entry) => {
                let offsets = segment.base_offset..=self.next_offset;
                (entry.bytes <= end && offsets.contains(&self.recovery_point))
                    .then_some((self.recovery_point, entry.bytes))
            }
            None => (segment.base_offset >= self.log_start).then_some((segment.base_offset, 0)),
        }
    }

    /// Where reading begins: at the recovery point, whose place is in the checkpoint. Leaves the
    /// segment with the index of what lies before it. `None`: from the start, because the place or
    /// the index is not known.
    async fn scan_start(&self, segment: &Segment, read: &mut Read, bytes: u64) -> io::Result<Option<(u64, i64)>> {
        let Some(entry) = self.known.as_ref().and_then(|known| known.last()) else { return Ok(None) };
        if entry.base != segment.base_offset || entry.bytes > bytes || self.recovery_point < entry.base {
            return Ok(None);
        }
        segment.set_index_sums(entry.index);
        let index = match read.end.as_mut().and_then(|end| end.index.take()) {
            None => segment.read_index_files(bytes).await?,
            index => index,
        };
        let (Some(mut index), Some((timestamp, offset))) = (index, entry.newest) else {
            tracing::warn!(
                path = %segment.path("index").display(),
                "index files are missing or damaged: reading the whole segment to make them anew"
            );
            segment.set_index_sums(None);
            return Ok(None);
        };
        let position = u32::try_from(entry.bytes).unwrap_or(u32::MAX);
        index.truncate(position, segment.relative(self.recovery_point));
        segment.set_since_index_entry(entry.bytes - u64::from(index.position_at_or_before(u32::MAX)));
        segment.max_timestamp.set(timestamp);
        segment.offset_of_max_timestamp.set(offset);
        // Otherwise it is in the block that reading begins with.
        if align_down(entry.bytes) > 0 {
            let file = segment.file().await?;
            let head = read.at(&file, 0, ALIGNMENT as usize).await?;
            segment.first_timestamp.set(BatchHeader::peek(&head).map(|h| h.max_timestamp.get()));
        }
        segment.set_index(index);
        Ok(Some((entry.bytes, self.recovery_point)))
    }

    async fn remove(&self, base: i64) -> io::Result<()> {
        let segment = Segment::found(self.dir.clone(), base, 0);
        super::maintenance::remove_files(&segment).await
    }

    fn finish(
        mut self,
        context: Rc<StorageContext>,
        config: Arc<TopicConfig>,
        log_start: i64,
        last_stop: LastStop,
    ) -> io::Result<Recovered> {
        let first = match self.gaps {
            // The gap may be wider than the offsets of one segment span.
            true => log_start,
            false => self.segments.front().map_or(self.next_offset, |s| s.base_offset),
        };
        let start = log_start.max(first).min(self.next_offset);
        if self.segments.back().is_some_and(|last| last.sealed.get() && last.base_offset < self.next_offset) {
            self.segments.push_back(Segment::new(self.dir.clone(), self.next_offset));
        }
        let active = self.segments.back().map(|s| (s.base_offset, s.size.get(), s.sealed.get()));
        let log = Log::assemble(context, self.dir, config, self.segments, start, self.next_offset);
        if let Some((base, end, false)) = active {
            log.appender.resume(base, end, &self.last_block);
        }
        if let Some((offset, position)) = self.unsynced {
            log.leave_unsynced(offset, position);
        }
        Ok(Recovered { log, scanned_bytes: self.scanned_bytes, damaged: self.damaged, last_stop })
    }
}
