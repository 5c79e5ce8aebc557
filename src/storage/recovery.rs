//! Opening a log: sealed segments are taken as they are, only what follows the recovery point is read and checked.
//!
//! Everything from the first byte that is not a whole, sound batch on is cut off: acknowledged records lie before it, since
//! a group is acknowledged only after every group before it has landed. Indexes of what was read are rebuilt.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::UNIX_EPOCH;

use super::checkpoint::Checkpoint;
use super::context::StorageContext;
use super::dir::LogDir;
use super::index::SegmentIndex;
use super::log::Log;
use super::paths::parse_segment_file;
use super::segment::Segment;
use crate::config::TopicConfig;
use crate::model::record_batch::{self, BatchHeader};
use crate::runtime::disk::{MAX_IO_BYTES, align_down, is_full};
use crate::runtime::spawn_blocking;

/// No batch is larger: a longer length field is not a batch's.
const MAX_BATCH_BYTES: u64 = 256 << 20;

/// A batch read during recovery, at or after the recovery point.
pub type RecoveredBatch = BatchHeader;

/// An opened log and how much of it had to be read.
pub struct Recovered {
    pub log: Rc<Log>,
    /// Bytes read and checked.
    pub scanned_bytes: u64,
    /// Bytes after the last sound batch that were not zeros ahead of the tail: a torn write.
    pub torn: bool,
    /// The log ends before its checkpoint; the sidecar knows of records that are no longer there.
    pub checkpoint_ahead: bool,
}

/// What a directory holds.
struct Found {
    /// By base offset.
    segments: Vec<FoundSegment>,
    checkpoint: Option<Checkpoint>,
}

impl Log {
    /// Opens (or makes) the log in `dir`. `sidecar` gets the checkpoint's opaque part, if there is one; then `batch` gets
    /// the header of every batch at or after the checkpoint's recovery point, in order.
    pub async fn open(
        context: Rc<StorageContext>,
        dir: &Path,
        config: Arc<TopicConfig>,
        sidecar: &mut dyn FnMut(&[u8]),
        batch: &mut dyn FnMut(&RecoveredBatch),
    ) -> io::Result<Recovered> {
        let owned = dir.to_path_buf();
        let sidecar_limit = context.limits.sidecar_max_bytes;
        let found = spawn_blocking(move || look(&owned, sidecar_limit)).await?;
        let checkpoint = found.checkpoint.unwrap_or_default();
        if !checkpoint.sidecar.is_empty() {
            sidecar(&checkpoint.sidecar);
        }
        let mut recovery = Recovery {
            dir: LogDir::new(dir),
            config: config.clone(),
            recovery_point: checkpoint.recovery_point,
            segments: VecDeque::new(),
            next_offset: checkpoint.log_start.max(0),
            scanned_bytes: 0,
            torn: false,
            last_block: Vec::new(),
        };
        recovery.run(&found.segments, checkpoint.log_start, batch).await?;
        let checkpoint_ahead = recovery.next_offset < checkpoint.recovery_point;
        if checkpoint_ahead {
            tracing::warn!(
                dir = %dir.display(), end = recovery.next_offset, recovery_point = checkpoint.recovery_point,
                "the log ends before its checkpoint: synced records are missing or damaged"
            );
            let owned = dir.to_path_buf();
            spawn_blocking(move || Checkpoint::remove(&owned)).await?;
        }
        let recovered = recovery.finish(context, config, checkpoint.log_start, checkpoint_ahead)?;
        if !checkpoint_ahead {
            recovered.log.checkpointed.set((checkpoint.recovery_point, checkpoint.log_start));
        }
        Ok(recovered)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct FoundSegment {
    base: i64,
    bytes: u64,
    /// Wall time of the last write, ms: stands in where no record has a timestamp.
    modified_ms: i64,
}

struct Recovery {
    dir: Rc<LogDir>,
    config: Arc<TopicConfig>,
    recovery_point: i64,
    segments: VecDeque<Rc<Segment>>,
    next_offset: i64,
    scanned_bytes: u64,
    torn: bool,
    last_block: Vec<u8>,
}

impl Recovery {
    async fn run(
        &mut self,
        found: &[FoundSegment],
        log_start: i64,
        batch: &mut dyn FnMut(&RecoveredBatch),
    ) -> io::Result<()> {
        for (i, &FoundSegment { base, bytes, modified_ms }) in found.iter().enumerate() {
            let next = found.get(i + 1).map(|n| n.base);
            if next.is_some_and(|next| next <= log_start) {
                self.remove(base).await?;
                continue;
            }
            let segment = Segment::found(self.dir.clone(), base, bytes);
            segment.last_append_ms.set(modified_ms);
            if next.is_some_and(|next| next <= self.recovery_point) {
                self.trust(segment, next.unwrap_or(base)).await?;
                continue;
            }
            self.scan(Rc::new(segment), bytes, batch).await?;
            // A segment that was rolled but not yet cut ends in reserved zeros: only a gap before the next one counts.
            if next.is_some_and(|next| next != self.next_offset) {
                return self.drop_rest(&found[i + 1..]).await;
            }
            if let (Some(_), Some(segment)) = (next, self.segments.back()) {
                match segment.write_index_files(true).await {
                    Ok(()) => {
                        segment.sealed.set(true);
                        segment.forget_file();
                    }
                    Err(error) if is_full(&error) => segment.seal_waits.set(true),
                    Err(error) => return Err(error),
                }
            }
        }
        Ok(())
    }

    /// Takes a sealed segment as it is; only its largest timestamp is read, from the end of its time index.
    async fn trust(&mut self, segment: Segment, next: i64) -> io::Result<()> {
        let path = segment.path("timeindex");
        let last = spawn_blocking(move || last_time_entry(&path)).await?;
        match last {
            Some((timestamp, relative)) => {
                segment.max_timestamp.set(timestamp);
                segment.offset_of_max_timestamp.set(segment.base_offset + i64::from(relative));
            }
            None => segment.times_known.set(false),
        }
        segment.sealed.set(true);
        self.next_offset = next;
        self.segments.push_back(Rc::new(segment));
        Ok(())
    }

    /// Reads a segment from the recovery point's place on, checks every batch, and cuts the file after the last sound one.
    async fn scan(
        &mut self,
        segment: Rc<Segment>,
        bytes: u64,
        batch: &mut dyn FnMut(&RecoveredBatch),
    ) -> io::Result<()> {
        let start = self.scan_start(&segment, bytes).await?;
        let mut scan = self.scan_from(&segment, start, bytes, batch).await?;
        if start > 0 && scan.position == start {
            tracing::warn!(path = %segment.path("index").display(), "the index names a place without a batch: reading the whole segment");
            segment.set_index(SegmentIndex::default());
            scan = self.scan_from(&segment, 0, bytes, batch).await?;
        }
        self.settle(segment, scan, bytes).await
    }

    async fn scan_from(
        &mut self,
        segment: &Rc<Segment>,
        start: u64,
        bytes: u64,
        batch: &mut dyn FnMut(&RecoveredBatch),
    ) -> io::Result<Scan> {
        let file = segment.file().await?;
        let mut scan = Scan { position: start, next_offset: segment.base_offset, window: Vec::new(), stopped: false };
        let mut read_at = align_down(start);
        let mut skip = (start - read_at) as usize;
        while read_at < bytes && !scan.stopped {
            let part = file.read_at(read_at, MAX_IO_BYTES).await?;
            if part.is_empty() {
                break;
            }
            read_at += part.len() as u64;
            self.scanned_bytes += part.len() as u64;
            scan.window.extend_from_slice(&part[skip.min(part.len())..]);
            skip = 0;
            scan.take(bytes, &mut |header, position| {
                segment.note_batch(header, header.next_offset() - 1, position, self.config.index_interval_bytes);
                if header.base() >= self.recovery_point {
                    batch(header);
                }
            });
        }
        Ok(scan)
    }

    /// Cuts the file where the scan ended and takes over what it found.
    async fn settle(&mut self, segment: Rc<Segment>, scan: Scan, bytes: u64) -> io::Result<()> {
        let file = segment.file().await?;
        let end = scan.position;
        let whole = end == bytes;
        self.torn |= !whole && scan.window.iter().any(|b| *b != 0);
        segment.size.set(end);
        if !whole {
            file.truncate(end).await?;
        }
        file.fdatasync().await?;
        for cell in [&segment.written, &segment.synced, &segment.allocated] {
            cell.set(end);
        }
        self.next_offset = scan.next_offset.max(segment.base_offset);
        self.last_block = match end - align_down(end) {
            0 => Vec::new(),
            rest => {
                let block = file.read_at(align_down(end), crate::runtime::disk::ALIGNMENT as usize).await?;
                block[..(rest as usize).min(block.len())].to_vec()
            }
        };
        self.segments.push_back(segment);
        Ok(())
    }

    /// Where reading must begin: the index entry before the recovery point. Leaves the segment's index with the entries
    /// before that place.
    async fn scan_start(&self, segment: &Segment, bytes: u64) -> io::Result<u64> {
        let mut start = 0;
        if self.recovery_point > segment.base_offset
            && let Some(mut index) = segment.read_index_files(bytes).await?
        {
            let relative = segment.relative(self.recovery_point - 1);
            start = index.position_before_offset(relative);
            let floor = index.last_offset_at(start).unwrap_or(0);
            index.truncate(start, floor);
            if start > 0 {
                let file = segment.file().await?;
                let head = file.read_at(0, crate::runtime::disk::ALIGNMENT as usize).await?;
                segment.first_timestamp.set(BatchHeader::peek(&head).map(|h| h.max_timestamp.get()));
                segment.expect_index_entry();
            }
            if let Some(last) = index.last_time() {
                segment.max_timestamp.set(last.timestamp_ms);
                segment.offset_of_max_timestamp.set(segment.base_offset + i64::from(last.offset));
            }
            segment.set_index(index);
        } else {
            segment.set_index(SegmentIndex::default());
        }
        Ok(u64::from(start))
    }

    /// Segments after a cut cannot be reached by acknowledged records; they go.
    async fn drop_rest(&mut self, rest: &[FoundSegment]) -> io::Result<()> {
        for &FoundSegment { base, bytes, .. } in rest {
            tracing::warn!(dir = %self.dir.display(), base, bytes, "removing a segment that lies after a torn one");
            self.remove(base).await?;
        }
        Ok(())
    }

    async fn remove(&self, base: i64) -> io::Result<()> {
        let segment = Segment::found(self.dir.clone(), base, 0);
        super::maintenance::remove_files(&segment).await
    }

    fn finish(
        self,
        context: Rc<StorageContext>,
        config: Arc<TopicConfig>,
        log_start: i64,
        checkpoint_ahead: bool,
    ) -> io::Result<Recovered> {
        let first = self.segments.front().map_or(self.next_offset, |s| s.base_offset);
        let start = log_start.max(first).min(self.next_offset);
        let active = self.segments.back().map(|s| (s.base_offset, s.size.get(), s.sealed.get()));
        let log = Log::assemble(context, self.dir, config, self.segments, start, self.next_offset);
        if let Some((base, end, false)) = active {
            log.appender.resume(base, end, &self.last_block);
        }
        Ok(Recovered { log, scanned_bytes: self.scanned_bytes, torn: self.torn, checkpoint_ahead })
    }
}

/// The state of one segment's scan: `window` holds the bytes from `position` on.
struct Scan {
    position: u64,
    next_offset: i64,
    window: Vec<u8>,
    stopped: bool,
}

impl Scan {
    /// Takes whole sound batches off the window's front; stops at what is not one.
    fn take(&mut self, file_bytes: u64, sound: &mut dyn FnMut(&BatchHeader, u64)) {
        let mut used = 0;
        loop {
            let rest = &self.window[used..];
            let Some(header) = BatchHeader::peek(rest) else { break };
            let total = header.total_bytes();
            let fits =
                header.magic == 2 && total >= record_batch::HEADER_BYTES as i64 && total as u64 <= MAX_BATCH_BYTES;
            let position = self.position + used as u64;
            if !fits || position + total as u64 > file_bytes {
                self.stopped = true;
                break;
            }
            if rest.len() < total as usize {
                break;
            }
            let batch = &rest[..total as usize];
            match record_batch::check(batch) {
                Ok(header) if header.base() >= self.next_offset => {
                    sound(header, position);
                    self.next_offset = header.next_offset();
                }
                _ => {
                    self.stopped = true;
                    break;
                }
            }
            used += total as usize;
        }
        self.position += used as u64;
        self.window.drain(..used);
    }
}

/// Lists a partition directory, clearing leftovers of torn replacements. Blocks.
fn look(dir: &Path, sidecar_limit: usize) -> io::Result<Found> {
    fs::create_dir_all(dir)?;
    super::compaction::recover(dir)?;
    let (mut segments, mut indexes) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        let index = ["index", "timeindex"].iter().find_map(|extension| parse_segment_file(name, extension));
        if let Some(base) = index {
            indexes.push((base, entry.path()));
        } else if name.ends_with(".tmp") || name.ends_with(".deleted") {
            fs::remove_file(entry.path())?;
        } else if let Some(base) = parse_segment_file(name, "log") {
            let metadata = entry.metadata()?;
            let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
            let modified_ms = i64::try_from(modified.as_millis()).unwrap_or(i64::MAX);
            segments.push(FoundSegment { base, bytes: metadata.len(), modified_ms });
        }
    }
    segments.sort_unstable();
    for (base, path) in indexes {
        // What a removal was cut short at. Without its log it says nothing.
        if segments.binary_search_by_key(&base, |segment| segment.base).is_err() {
            fs::remove_file(path)?;
        }
    }
    Ok(Found { segments, checkpoint: Checkpoint::load(dir, sidecar_limit)? })
}

/// The last entry of a `.timeindex` file. Blocks.
fn last_time_entry(path: &Path) -> io::Result<Option<(i64, u32)>> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = match fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let len = file.metadata()?.len();
    if len < 12 || len % 12 != 0 {
        return Ok(None);
    }
    let mut entry = [0; 12];
    file.seek(SeekFrom::End(-12))?;
    file.read_exact(&mut entry)?;
    let (timestamp, offset) = entry.split_at(8);
    Ok(timestamp
        .try_into()
        .ok()
        .zip(offset.try_into().ok())
        .map(|(t, o)| (i64::from_be_bytes(t), u32::from_be_bytes(o))))
}
