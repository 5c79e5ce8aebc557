//! From a batch's bytes to one [`RecordMeta`] per record.

use std::cmp::Ordering;
use std::io::{self, BufRead};
use std::ops::ControlFlow;

use super::decompress::{self, MAX_BLOCK_BYTES};
use super::inspect::{self, Inspected};
use crate::model::record_batch::{self, BatchError, BatchHeader, Codec, HEADER_BYTES};
use crate::model::varint::unzigzag;

/// The most a batch may decompress to before its walk is given up: what keeps a thread busy for a
/// fraction of a second, not for several.
pub const MAX_OUTPUT_BYTES: u64 = 128 << 20;
const _: () = assert!(MAX_BLOCK_BYTES as u64 <= MAX_OUTPUT_BYTES);

/// Attributes, timestamp, offset, key, value and headers: a byte each at least.
const MIN_RECORD_BYTES: u64 = 6;
const MAX_VARINT_BYTES: usize = 5;
const MAX_VARLONG_BYTES: usize = 10;

/// Facts of a record, without its contents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordMeta {
    pub offset: i64,
    /// Milliseconds since the epoch, by the clock that the batch names (the producer's, or the
    /// broker's under message.timestamp.type=LogAppendTime); -1 for none.
    pub timestamp_ms: i64,
    /// Bytes; -1 for a null key.
    pub key_len: i32,
    /// Bytes; -1 for a null value.
    pub value_len: i32,
}

/// A record with its contents, for as long as it is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordView<'a> {
    pub meta: RecordMeta,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    /// As they stand in the batch, their count included; not looked into.
    pub headers: &'a [u8],
}

/// Why a batch's records cannot be read. Every kind means that the producer wrote it so: the
/// batch itself passed its CRC.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error("the batch counts {0} records")]
    NegativeCount(i32),
    #[error("the batch's {codec:?} data cannot be decompressed: {source}")]
    Decompress { codec: Codec, source: io::Error },
    #[error("the batch decompresses to more than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("the batch ends within record {index} of {count}")]
    Truncated { index: i32, count: i32 },
    #[error("the batch goes on after the {count} records that it counts")]
    Trailing { count: i32 },
    #[error("record {index} of the batch {what}")]
    Malformed { index: i32, what: &'static str },
}

/// The first record of one whole checked batch, from offset `from` on, whose timestamp is
/// `timestamp_ms` or later (ListOffsets by timestamp). Timestamps need not rise within a batch, so
/// later records may be older.
pub fn first_at_or_after(batch: &[u8], timestamp_ms: i64, from: i64) -> Result<Option<RecordMeta>, RecordError> {
    let (header, _) = record_batch::frame(batch)?;
    if header.is_log_append_time() && header.max_timestamp.get() < timestamp_ms {
        return Ok(None);
    }
    let mut found = None;
    walk(batch, &mut |record| {
        if record.timestamp_ms < timestamp_ms || record.offset < from {
            return ControlFlow::Continue(());
        }
        found = Some(*record);
        ControlFlow::Break(())
    })?;
    Ok(found)
}

/// The record with the largest timestamp of one whole checked batch, the first of several
/// (ListOffsets by maximum timestamp, KIP-734). The header's maximum is not believed: in older logs
/// it is the producer's word.
pub fn latest(batch: &[u8]) -> Result<Option<RecordMeta>, RecordError> {
    let (header, _) = record_batch::frame(batch)?;
    let all_alike = header.is_log_append_time();
    let mut best: Option<RecordMeta> = None;
    walk(batch, &mut |record| {
        if best.is_none_or(|best| record.timestamp_ms > best.timestamp_ms) {
            best = Some(*record);
        }
        if all_alike { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    Ok(best)
}

/// Shows `visit` every record of one whole checked batch in order, until it breaks. The last record
/// is shown only when nothing follows it, as in Kafka; an error may come after records were shown.
pub fn walk(batch: &[u8], visit: &mut dyn FnMut(&RecordMeta) -> ControlFlow<()>) -> Result<(), RecordError> {
    walk_within(batch, MAX_OUTPUT_BYTES, visit)
}

/// [`walk`] with the records' contents. One record at a time is held in memory beside the batch.
pub fn read(batch: &[u8], visit: &mut dyn FnMut(&RecordView<'_>) -> ControlFlow<()>) -> Result<(), RecordError> {
    read_within(batch, MAX_OUTPUT_BYTES, visit)
}

pub(super) fn walk_within(
    batch: &[u8],
    limit: u64,
    visit: &mut dyn FnMut(&RecordMeta) -> ControlFlow<()>,
) -> Result<(), RecordError> {
    each(batch, limit, false, &mut |record, _| visit(&record.meta))
}

pub(super) fn read_within(
    batch: &[u8],
    limit: u64,
    visit: &mut dyn FnMut(&RecordView<'_>) -> ControlFlow<()>,
) -> Result<(), RecordError> {
    each(batch, limit, true, &mut |record, body| {
        let field = |start: usize, length: i32| usize::try_from(length).ok().and_then(|n| body.get(start..start + n));
        visit(&RecordView {
            meta: record.meta,
            key: field(record.key_start, record.meta.key_len),
            value: field(record.value_start, record.meta.value_len),
            headers: body.get(record.headers_start..).unwrap_or_default(),
        })
    })
}

/// Shows every record and, with `keep`, its bytes.
fn each(
    batch: &[u8],
    limit: u64,
    keep: bool,
    visit: &mut dyn FnMut(&Placed, &[u8]) -> ControlFlow<()>,
) -> Result<(), RecordError> {
    let (header, total) = record_batch::frame(batch)?;
    let codec = header.codec().ok_or(BatchError::BadCodec(header.attributes.get()))?;
    let count = header.record_count.get();
    if count < 0 {
        return Err(RecordError::NegativeCount(count));
    }
    // Left by compaction of a batch to remember its producer; no codec is asked about its empty
    // payload.
    if count == 0 {
        return Ok(());
    }
    let input = decompress::open(codec, &batch[HEADER_BYTES..total])
        .map_err(|source| RecordError::Decompress { codec, source })?;
    let mut records = Records::new(input, codec, count, limit);
    records.kept = keep.then(Vec::new);
    for index in 0..count {
        records.index = index;
        let record = records.next(header)?;
        if index == count - 1 && !records.fill()?.is_empty() {
            return Err(RecordError::Trailing { count });
        }
        if visit(&record, records.kept.as_deref().unwrap_or_default()).is_break() {
            break;
        }
    }
    Ok(())
}

/// A record and where its parts begin, in bytes after the record's length field.
struct Placed {
    meta: RecordMeta,
    key_start: usize,
    value_start: usize,
    headers_start: usize,
}

/// The decompressed stream, and where in it the walk is.
pub(super) struct Records<'a> {
    input: Box<dyn BufRead + 'a>,
    codec: Codec,
    /// Bytes of output read so far, and the most there may be; `taken` never passes `limit`.
    pub(super) taken: u64,
    limit: u64,
    /// The record being read, for the errors.
    pub(super) index: i32,
    count: i32,
    /// The bytes of the record being read, where they are wanted; it grows with what comes,
    /// not with what is announced.
    kept: Option<Vec<u8>>,
}

impl<'a> Records<'a> {
    pub(super) fn new(input: Box<dyn BufRead + 'a>, codec: Codec, count: i32, limit: u64) -> Records<'a> {
        Records { input, codec, taken: 0, limit, index: 0, count, kept: None }
    }

    /// Reads one record down to its headers. One that is in the decoder's buffer
    /// as a whole is read there.
    pub(super) fn inspect(&mut self) -> Result<Inspected, RecordError> {
        let index = self.index;
        if let Some((record, bytes)) = inspect::first_record(self.fill()?, index)? {
            self.consume(bytes);
            return Ok(record);
        }
        let length = self.varint()?;
        let length = u64::try_from(length).map_err(|_| self.malformed("has a negative length"))?;
        let end = self.taken + length;
        self.skip(1)?;
        let timestamp_delta = self.varlong()?;
        let offset_delta = self.varint()?;
        let has_key = self.skip_field(end, inspect::LONGER)? >= 0;
        self.skip_field(end, inspect::LONGER)?;
        let headers = self.varint()?;
        if headers < 0 {
            return Err(self.malformed(inspect::NEGATIVE_HEADERS));
        }
        for _ in 0..headers {
            if self.skip_field(end, inspect::LONGER)? < 0 {
                return Err(self.malformed(inspect::NULL_HEADER_KEY));
            }
            self.skip_field(end, inspect::LONGER)?;
        }
        match self.taken.cmp(&end) {
            Ordering::Equal => Ok(Inspected { index, timestamp_delta, offset_delta, has_key }),
            Ordering::Less => Err(self.malformed(inspect::SHORTER)),
            Ordering::Greater => Err(self.malformed(inspect::LONGER)),
        }
    }

    /// Reads one record; its headers are stepped over unseen.
    fn next(&mut self, header: &BatchHeader) -> Result<Placed, RecordError> {
        let length = self.varint()?;
        let length = u64::try_from(length).map_err(|_| self.malformed("has a negative length"))?;
        if length < MIN_RECORD_BYTES {
            return Err(self.malformed("is shorter than any record"));
        }
        if let Some(kept) = &mut self.kept {
            kept.clear();
        }
        let body = self.taken;
        let end = body + length;

        self.skip(1)?; // The record's attributes, of which Kafka uses none.
        let timestamp_delta = self.varlong()?;
        let offset_delta = self.varint()?;
        if offset_delta < 0 || offset_delta > header.last_offset_delta.get() {
            return Err(self.malformed("has an offset outside its batch"));
        }
        let key_len = self.skip_field(end, "has a key longer than itself")?;
        let key_start = self.taken - body - u64::try_from(key_len).unwrap_or(0);
        let value_len = self.skip_field(end, "has a value longer than itself")?;
        let headers_start = self.taken - body;
        let value_start = headers_start - u64::try_from(value_len).unwrap_or(0);
        // At least the header count is left.
        if self.taken >= end {
            return Err(self.malformed(inspect::LONGER));
        }
        self.skip(end - self.taken)?;

        let timestamp_ms = if header.is_log_append_time() {
            header.max_timestamp.get()
        } else {
            // As every client reads it: a sum beyond 64 bits wraps.
            header.base_timestamp.get().wrapping_add(timestamp_delta)
        };
        let offset = header
            .base()
            .checked_add(i64::from(offset_delta))
            .ok_or_else(|| self.malformed("has an offset beyond 64 bits"))?;
        Ok(Placed {
            meta: RecordMeta { offset, timestamp_ms, key_len, value_len },
            // Within the walk's limit, so far below 2^32.
            key_start: key_start as usize,
            value_start: value_start as usize,
            headers_start: headers_start as usize,
        })
    }

    /// Steps over a length and as many bytes, which must not pass `end`; -1 is null and has none.
    fn skip_field(&mut self, end: u64, too_long: &'static str) -> Result<i32, RecordError> {
        let length = self.varint()?;
        if length < -1 {
            return Err(self.malformed(inspect::NEGATIVE_FIELD));
        }
        let bytes = u64::try_from(length).unwrap_or(0);
        if self.taken + bytes > end {
            return Err(self.malformed(too_long));
        }
        self.skip(bytes)?;
        Ok(length)
    }

    fn varint(&mut self) -> Result<i32, RecordError> {
        let raw = self.unsigned(MAX_VARINT_BYTES)?;
        let raw = u32::try_from(raw).map_err(|_| self.malformed("has a varint beyond 32 bits"))?;
        Ok(unzigzag(u64::from(raw)) as i32)
    }

    fn varlong(&mut self) -> Result<i64, RecordError> {
        Ok(unzigzag(self.unsigned(MAX_VARLONG_BYTES)?))
    }

    fn unsigned(&mut self, max_bytes: usize) -> Result<u64, RecordError> {
        let mut raw = 0;
        let mut read = 0;
        loop {
            let filled = self.fill()?;
            if filled.is_empty() {
                return Err(RecordError::Truncated { index: self.index, count: self.count });
            }
            let mut used = 0;
            let mut ended = false;
            for &byte in filled.iter().take(max_bytes - read) {
                let bits = u64::from(byte & 0x7f);
                // The tenth byte of a varlong has room for one bit.
                if read == MAX_VARLONG_BYTES - 1 && bits > 1 {
                    return Err(self.malformed("has a varint beyond 64 bits"));
                }
                raw |= bits << (7 * read);
                read += 1;
                used += 1;
                if byte < 0x80 {
                    ended = true;
                    break;
                }
            }
            self.consume(used);
            if ended {
                return Ok(raw);
            }
            if read == max_bytes {
                return Err(self.malformed("has a varint without end"));
            }
        }
    }

    fn skip(&mut self, mut bytes: u64) -> Result<(), RecordError> {
        while bytes > 0 {
            let available = self.fill()?.len();
            if available == 0 {
                return Err(RecordError::Truncated { index: self.index, count: self.count });
            }
            let step = usize::try_from(bytes).unwrap_or(usize::MAX).min(available);
            self.consume(step);
            bytes -= step as u64;
        }
        Ok(())
    }

    /// The next bytes to read, within the limit; empty at the end.
    pub(super) fn fill(&mut self) -> Result<&[u8], RecordError> {
        let filled = self.input.fill_buf().map_err(|source| RecordError::Decompress { codec: self.codec, source })?;
        let room = usize::try_from(self.limit - self.taken).unwrap_or(usize::MAX);
        if room == 0 && !filled.is_empty() {
            return Err(RecordError::TooLarge { limit: self.limit });
        }
        Ok(&filled[..filled.len().min(room)])
    }

    /// Steps over bytes that [`fill`](Self::fill) has shown.
    fn consume(&mut self, bytes: usize) {
        if let (Some(kept), Ok(filled)) = (&mut self.kept, self.input.fill_buf()) {
            kept.extend_from_slice(&filled[..bytes.min(filled.len())]);
        }
        self.input.consume(bytes);
        self.taken += bytes as u64;
    }

    fn malformed(&self, what: &'static str) -> RecordError {
        RecordError::Malformed { index: self.index, what }
    }
}
