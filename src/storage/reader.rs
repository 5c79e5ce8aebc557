//! How records get out: whole batches as slices of the buffers the log holds,
//! from the tail or from disk.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use zerocopy::FromBytes;

use super::cold_cache::Visible;
use super::ends::LogPosition;
use super::index::{IndexNotes, SegmentIndex};
use super::log::Log;
use super::rot;
use super::segment::Segment;
use super::slices::Slices;
use crate::model::record_batch::{self, BatchHeader, HEADER_BYTES};
use crate::observe::client_line;
use crate::observe::metrics::Cause;
use crate::runtime::{Yielder, clock, waits};

/// Batches without a record that go before others in one response, at the most; bytes.
const EMPTY_BYTES: usize = 64 * 1024;

/// Records that a read found, and how they lie.
#[derive(Clone, Debug, Default)]
pub struct LogRead {
    /// Whole batches back to back; the first may begin before the asked offset.
    /// Empty: nothing to read yet.
    pub records: Vec<Bytes>,
    /// There is more to read right now: this read ended at its limit or at a segment's end.
    pub more: bool,
    /// Bytes of the buffers that `records` keep alive.
    pub held_bytes: usize,
    /// Smallest `max_bytes` that would give records, where the limit gave none; otherwise 0.
    pub needed_bytes: usize,
}

impl LogRead {
    /// The offset after the last of the batches; `None`: there are none.
    pub fn end_offset(&self) -> Option<i64> {
        let total: usize = self.records.iter().map(Bytes::len).sum();
        let (mut position, mut end) = (0, None);
        let mut slices = self.records.iter();
        let (mut slice, mut before) = (slices.next()?, 0);
        while position + HEADER_BYTES <= total {
            while position >= before + slice.len() {
                before += slice.len();
                slice = slices.next()?;
            }
            // A header may reach over the end of its slice.
            let rest = &slice[position - before..];
            let mut head = [0; HEADER_BYTES];
            let header = match rest.get(..HEADER_BYTES) {
                Some(bytes) => BatchHeader::peek(bytes).copied(),
                None => {
                    head[..rest.len()].copy_from_slice(rest);
                    let mut filled = rest.len();
                    for bytes in slices.clone() {
                        let part = bytes.len().min(HEADER_BYTES - filled);
                        head[filled..filled + part].copy_from_slice(&bytes[..part]);
                        filled += part;
                    }
                    BatchHeader::peek(&head).copied()
                }
            }?;
            end = Some(header.next_offset());
            position += usize::try_from(header.total_bytes()).ok().filter(|bytes| *bytes >= HEADER_BYTES)?;
        }
        end
    }
}

/// End of a read of one segment.
enum ReadEnd {
    /// Position after the last whole batch within the limit.
    At(u64),
    /// The first batch alone exceeds the limit; its size in bytes.
    TooLarge(u64),
}

/// Why a read gave nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Before the log's start or after its end.
    #[error("offset {offset} is outside [{start}, {end}]")]
    OutOfRange { offset: i64, start: i64, end: i64 },
    #[error("reading the log: {0}")]
    Io(#[from] io::Error),
    /// Bytes that were checked when they were written no longer are what they were.
    #[error("{path}: no batch at position {position}: the file is damaged")]
    Damaged { path: String, position: u64, base: i64 },
}

/// Where recent reads ended (offset, segment number, position): a consumer comes back for the next
/// offset, and finds its place without the index.
#[derive(Default)]
pub struct Hints(RefCell<VecDeque<(i64, u64, u64)>>);

const HINTS: usize = 16;

impl Hints {
    /// Segment number and position of a batch boundary with all records below `offset`
    /// before it, none of the others.
    pub fn find(&self, offset: i64) -> Option<(u64, u64)> {
        self.0.borrow().iter().find(|h| h.0 == offset).map(|h| (h.1, h.2))
    }

    pub fn clear(&self) {
        self.0.borrow_mut().clear();
    }

    pub fn note(&self, offset: i64, segment: u64, position: u64) {
        let mut hints = self.0.borrow_mut();
        if hints.iter().any(|h| (h.0, h.1) == (offset, segment)) {
            return;
        }
        // Cleaning has put another segment there.
        hints.retain(|h| h.0 != offset);
        if hints.len() >= HINTS {
            hints.pop_front();
        }
        hints.push_back((offset, segment, position));
    }
}

/// The offset after whole batches that hold no record at all; `None`: one of them
/// does, or there are none.
fn end_of_empty(slices: &[Bytes]) -> Option<i64> {
    let first = BatchHeader::peek(slices.first()?);
    if first.is_some_and(|header| header.record_count.get() > 0) {
        return None;
    }
    if slices.iter().map(Bytes::len).sum::<usize>() > EMPTY_BYTES {
        return None;
    }
    let bytes = slices.concat();
    let (mut rest, mut end) = (&bytes[..], None);
    while !rest.is_empty() {
        let (header, total) = record_batch::frame(rest).ok().filter(|(header, _)| header.record_count.get() == 0)?;
        end = Some(header.next_offset());
        rest = &rest[total..];
    }
    end
}

fn damaged(segment: &Segment, position: u64) -> ReadError {
    ReadError::Damaged { path: segment.path("log").display().to_string(), position, base: segment.base_offset }
}

/// A batch found by a scan: its header and where it lies.
#[derive(Clone, Copy)]
pub(super) struct Found {
    pub header: BatchHeader,
    pub position: u64,
}

impl Found {
    pub fn end(&self) -> u64 {
        self.position + self.header.total_bytes() as u64
    }
}

impl Log {
    /// Reads whole batches from the one that holds `offset`, up to `max_bytes`, none that
    /// reaches beyond the offset `limit`. With `at_least_one`, the first batch comes even if it
    /// alone is larger (KIP-74).
    pub async fn read(
        self: &Rc<Self>,
        offset: i64,
        limit: i64,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<LogRead, ReadError> {
        let mut read = self.read_past_empty(offset, limit, max_bytes, at_least_one).await?;
        // Batches that cleaning has emptied do not leave alone: librdkafka takes a few responses
        // without a record for records that are too large for it.
        let mut empty = end_of_empty(&read.records);
        let mut yielder = Yielder;
        while let (Some(next), true) = (empty, read.more) {
            yielder.pass().await;
            let taken: usize = read.records.iter().map(Bytes::len).sum();
            let left = max_bytes.saturating_sub(taken);
            let Ok(more) = self.read_past_empty(next, limit, left, at_least_one).await else { break };
            if more.needed_bytes > 0 {
                let needed_bytes = taken + more.needed_bytes;
                return Ok(LogRead { more: true, needed_bytes, ..LogRead::default() });
            }
            if more.records.is_empty() {
                break;
            }
            empty = end_of_empty(&more.records);
            read.records.extend(more.records);
            read.more = more.more;
            read.held_bytes += more.held_bytes;
        }
        Ok(read)
    }

    /// Reads a batch that cleaning has emptied whatever the limit: what follows it decides.
    async fn read_past_empty(
        self: &Rc<Self>,
        offset: i64,
        limit: i64,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<LogRead, ReadError> {
        let read = self.read_once(offset, limit, max_bytes, at_least_one).await?;
        match read.needed_bytes {
            // A header and nothing else.
            HEADER_BYTES => self.read_once(offset, limit, HEADER_BYTES, true).await,
            _ => Ok(read),
        }
    }

    async fn read_once(
        self: &Rc<Self>,
        offset: i64,
        limit: i64,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<LogRead, ReadError> {
        loop {
            let (start, end) = (self.start_offset(), self.next_offset());
            if offset < start || offset > end {
                return Err(ReadError::OutOfRange { offset, start, end });
            }
            if offset >= limit {
                return Ok(LogRead::default());
            }
            let limit = match self.place_of(limit).await {
                Ok(limit) => limit,
                Err(_) if self.start_offset() > offset => continue,
                Err(error) => return Err(error),
            };
            // Before the first segment there may be a gap.
            let Some(mut segment) = self.segment_at(offset).or_else(|| self.segment_after(offset)) else {
                return Err(ReadError::OutOfRange { offset, start, end });
            };
            loop {
                let first = segment.base_offset.max(offset);
                match self.read_segment(&segment, first, &limit, max_bytes, at_least_one).await {
                    Ok(Some(read)) => return Ok(read),
                    // Past the segment's last batch: the next one begins at or after `offset`.
                    Ok(None) => match self.segment_after(segment.base_offset) {
                        Some(next) => segment = next,
                        None => return Ok(LogRead::default()),
                    },
                    // Retention took the segment while it was being read: look again.
                    Err(_) if self.start_offset() > offset => break,
                    Err(_) if segment.is_replaced() && self.failure().is_none() => {
                        self.until_exchanged(&segment).await;
                        break;
                    }
                    Err(error) if self.mend(&error).await => break,
                    Err(error) => return Err(error),
                }
            }
        }
    }

    /// The offset that no record of `segment` reaches.
    pub(super) fn end_of_segment(&self, segment: &Segment) -> i64 {
        self.segment_begin_after(segment.base_offset).unwrap_or_else(|| self.next_offset())
    }

    async fn read_segment(
        self: &Rc<Self>,
        segment: &Rc<Segment>,
        offset: i64,
        limit: &LogPosition,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<Option<LogRead>, ReadError> {
        let upto = limit.within(segment);
        let hinted = self.hints.find(offset).filter(|h| h.0 == segment.number && h.1 < upto);
        let start = match hinted {
            Some((_, position)) => position,
            None => match self.find_offset(segment, offset, upto).await? {
                Some(found) => found.position,
                None => return Ok(None),
            },
        };
        let end = match self.end_of_read(segment, start, upto, max_bytes as u64, at_least_one).await? {
            ReadEnd::At(end) => end,
            ReadEnd::TooLarge(bytes) => {
                let needed_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
                return Ok(Some(LogRead { more: true, needed_bytes, ..LogRead::default() }));
            }
        };
        let mut slices = Slices::default();
        let from_disk = self.slices(segment, start, end, &mut slices).await?;
        if from_disk {
            self.check_read(segment, start, &slices.list)?;
        }
        if self.context.kept.is_wanted() {
            self.note_reader(segment, start, end);
        }
        let at_the_end = limit.segment.base_offset == segment.base_offset && limit.position == end;
        if at_the_end {
            self.hints.note(limit.offset, segment.number, end);
        }
        let Slices { list: records, held_bytes } = slices;
        Ok(Some(LogRead { records, more: !at_the_end, held_bytes, needed_bytes: 0 }))
    }

    /// Notes that a consumer has read `[start, end)` of the segment.
    fn note_reader(&self, segment: &Segment, start: u64, end: u64) {
        let begin = (segment.base_offset, start);
        // A consumer that has read all of the segment before it goes on here.
        let before = (start == 0).then(|| self.segment_before(segment.base_offset)).flatten();
        let same = before.map_or(begin, |before| (before.base_offset, before.size.get()));
        self.readers.note([begin, same], (segment.base_offset, end), clock::now());
        self.drop_unwanted_copies();
    }

    /// Where a read that begins with the batch at `start` ends: after the last whole
    /// batch within `max_bytes`.
    async fn end_of_read(
        self: &Rc<Self>,
        segment: &Rc<Segment>,
        start: u64,
        upto: u64,
        max_bytes: u64,
        at_least_one: bool,
    ) -> Result<ReadEnd, ReadError> {
        if upto - start <= max_bytes {
            return Ok(ReadEnd::At(upto));
        }
        let limit = start + max_bytes;
        let index = self.index_of(segment).await?;
        let mut position =
            u64::from(index.borrow().position_at_or_before(u32::try_from(limit).unwrap_or(u32::MAX))).max(start);
        let mut end = position;
        let mut yielder = Yielder;
        while position < upto {
            yielder.pass().await;
            let batch = self.batch_at(segment, position, upto).await?;
            if batch.end() > limit {
                if position > start {
                    self.hints.note(batch.header.base(), segment.number, position);
                    break;
                }
                // Only the very first batch may be larger than asked for.
                return Ok(match at_least_one {
                    true => ReadEnd::At(batch.end()),
                    false => ReadEnd::TooLarge(batch.end() - start),
                });
            }
            position = batch.end();
            end = position;
        }
        Ok(ReadEnd::At(end))
    }

    /// The first batch of `segment` whose records reach `offset`; `None`: all
    /// of them lie before it.
    pub(super) async fn find_offset(
        self: &Rc<Self>,
        segment: &Rc<Segment>,
        offset: i64,
        upto: u64,
    ) -> Result<Option<Found>, ReadError> {
        let index = self.index_of(segment).await?;
        let from = index.borrow().position_before_offset(segment.relative(offset.max(segment.base_offset)));
        self.scan(segment, u64::from(from), upto, |header| header.next_offset() > offset).await
    }

    /// The first batch from `position` on that `wanted` accepts.
    pub(super) async fn scan(
        self: &Rc<Self>,
        segment: &Rc<Segment>,
        mut position: u64,
        upto: u64,
        wanted: impl Fn(&BatchHeader) -> bool,
    ) -> Result<Option<Found>, ReadError> {
        let mut yielder = Yielder;
        while position < upto {
            yielder.pass().await;
            let batch = self.batch_at(segment, position, upto).await?;
            if wanted(&batch.header) {
                return Ok(Some(batch));
            }
            position = batch.end();
        }
        Ok(None)
    }

    async fn batch_at(self: &Rc<Self>, segment: &Rc<Segment>, position: u64, upto: u64) -> Result<Found, ReadError> {
        let mut bytes = [0; HEADER_BYTES];
        let end = (position + HEADER_BYTES as u64).min(upto);
        let mut slices = Slices::default();
        self.slices(segment, position, end, &mut slices).await?;
        let mut filled = 0;
        for slice in &slices.list {
            bytes[filled..filled + slice.len()].copy_from_slice(slice);
            filled += slice.len();
        }
        let header = BatchHeader::read_from_bytes(&bytes).map_err(|_| damaged(segment, position))?;
        let end = position as i64 + header.total_bytes();
        let framed = header.magic == 2 && header.total_bytes() >= HEADER_BYTES as i64 && end <= upto as i64;
        // The base offset lies outside the CRC: a wrong one would hide records, also
        // from readers that check.
        let within = header.base() >= segment.base_offset
            && header.last_offset_delta.get() >= 0
            && header.next_offset() <= self.end_of_segment(segment);
        if filled < HEADER_BYTES || !framed || !within {
            return Err(damaged(segment, position));
        }
        Ok(Found { header, position })
    }

    /// Holds batches that were read from disk to their CRCs, and their offsets to each other: the
    /// base offset lies outside the CRC, and clients need not check that either. Damage is taken
    /// out before anybody gets it.
    fn check_read(&self, segment: &Segment, start: u64, slices: &[Bytes]) -> Result<(), ReadError> {
        let (begin, end) = (segment.base_offset, self.end_of_segment(segment));
        rot::check_batches(slices, begin, end).map_err(|place| damaged(segment, start + place))
    }

    /// Appends the slices of `[start, end)`: what the tail holds from there, the rest from disk.
    /// True if some are from disk.
    pub(super) async fn slices(
        self: &Rc<Self>,
        segment: &Rc<Segment>,
        start: u64,
        end: u64,
        out: &mut Slices,
    ) -> io::Result<bool> {
        let mut newest = Slices::default();
        // The tail holds bytes as appended; a cleaned segment of the same base offset has others.
        let from = match (segment.is_cleaned(), self.behind.get()) {
            (true, _) => end,
            (false, Some(behind)) => behind.collect(segment.base_offset, start, end, &mut newest),
            (false, None) => {
                // Bytes on their way may have left the tail already.
                let landed = segment.written.get().clamp(start, end);
                let from = self.tail.collect(segment.base_offset, start, landed, &mut newest);
                if landed < end {
                    self.appender.collect(segment.base_offset, landed, end, &mut newest);
                }
                from
            }
        };
        if from == start {
            self.context.reads.hits.set(self.context.reads.hits.get() + 1);
            out.extend(newest);
            return Ok(false);
        }
        self.context.reads.misses.set(self.context.reads.misses.get() + 1);
        let was_open = segment.has_open_file();
        let file = waits::waiting(Cause::Device, segment.file()).await?;
        if !was_open && segment.sealed.get() {
            self.context.indexes.admit_file(segment);
        }
        let source = Visible { log: self.number, segment: segment.number, file: &file, written: segment.written.get() };
        self.context.cold.collect(source, start, from, out).await?;
        out.extend(newest);
        Ok(true)
    }

    /// The segment's index, read from its files (or rebuilt from the log) when it is not in memory.
    pub(super) async fn index_of(
        self: &Rc<Self>,
        segment: &Rc<Segment>,
    ) -> Result<Rc<RefCell<SegmentIndex>>, ReadError> {
        if let Some(index) = segment.loaded_index() {
            return Ok(index);
        }
        let files = waits::waiting(Cause::Device, segment.read_index_files(segment.size.get())).await?;
        let (index, rebuilt) = match files {
            Some(index) => (index, false),
            None => (self.rebuild_index(segment).await?, true),
        };
        let index = self.with_aborted(segment, index).await?;
        self.context.indexes.admit(segment);
        if rebuilt
            && segment.sealed.get()
            && !segment.is_replaced()
            && let Err(error) = segment.write_index_files(true).await
        {
            client_line!(
                warn, segment = %segment.path("index").display(), %error,
                "index files cannot be written: they are made again when they are wanted next"
            );
        }
        Ok(index)
    }

    /// Completes an index that was read or made again, unless another reader was first.
    async fn with_aborted(
        self: &Rc<Self>,
        segment: &Rc<Segment>,
        mut index: SegmentIndex,
    ) -> Result<Rc<RefCell<SegmentIndex>>, ReadError> {
        let mut aborted = segment.read_aborted().await?;
        // Left there by an exchange of segments that was not carried out.
        let offsets = segment.base_offset..self.end_of_segment(segment);
        aborted.retain(|txn| offsets.contains(&txn.last_offset));
        index.set_aborted(aborted);
        Ok(segment.loaded_index().unwrap_or_else(|| segment.set_index(index)))
    }

    async fn rebuild_index(self: &Rc<Self>, segment: &Rc<Segment>) -> Result<SegmentIndex, ReadError> {
        client_line!(
            warn,
            segment = %segment.path("index").display(),
            "index files are missing or damaged: making them anew from the segment"
        );
        let interval = self.config.borrow().index_interval_bytes;
        let mut notes = IndexNotes::new(segment.base_offset, interval);
        let (mut position, size) = (0, segment.size.get());
        let mut yielder = Yielder;
        while position < size {
            yielder.pass().await;
            let batch = self.batch_at(segment, position, size).await?;
            notes.note(&batch.header);
            position = batch.end();
        }
        let (timestamp, offset) = notes.newest();
        segment.max_timestamp.set(timestamp);
        segment.offset_of_max_timestamp.set(offset);
        segment.times_known.set(true);
        Ok(notes.index())
    }
}
