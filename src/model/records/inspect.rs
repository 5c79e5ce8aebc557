//! The walk over a produced batch: the structure of every record, down to its headers, and none of
//! its contents. It does not allocate where the batch is not compressed.

use super::decompress::{self, check_lz4_frame};
use super::walk::{RecordError, Records};
use crate::model::record_batch::{self, BatchError, Codec, HEADER_BYTES};
use crate::model::varint::{self, unzigzag};

/// The facts of a record that its acceptance depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// Its place in the batch, from 0.
    pub index: i32,
    /// Milliseconds after the batch's base timestamp.
    pub timestamp_delta: i64,
    pub offset_delta: i32,
    pub has_key: bool,
}

/// A record of a batch that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadRecord {
    /// Its place in the batch, from 0.
    pub index: i32,
    /// A sentence for the client.
    pub message: String,
}

/// Shows `visit` every record of one whole checked batch and checks what a consumer depends on: as
/// many records as the header counts and nothing behind them, lengths that fit, headers with keys.
/// Gives the bytes that the records take uncompressed; gives up past `limit` decompressed ones.
pub fn inspect(batch: &[u8], limit: u64, visit: &mut impl FnMut(&Inspected)) -> Result<u64, RecordError> {
    let (header, total) = record_batch::frame(batch)?;
    let codec = header.codec().ok_or(BatchError::BadCodec(header.attributes.get()))?;
    let count = header.record_count.get();
    if count < 0 {
        return Err(RecordError::NegativeCount(count));
    }
    let payload = &batch[HEADER_BYTES..total];
    if codec == Codec::None {
        inspect_plain(payload, count, visit)?;
        return Ok(payload.len() as u64);
    }
    let failed = |source| RecordError::Decompress { codec, source };
    if codec == Codec::Lz4 {
        check_lz4_frame(payload).map_err(failed)?;
    }
    let mut records = Records::new(decompress::open(codec, payload).map_err(failed)?, codec, count, limit);
    for index in 0..count {
        records.index = index;
        visit(&records.inspect()?);
    }
    if records.fill()?.is_empty() { Ok(records.taken) } else { Err(RecordError::Trailing { count }) }
}

fn inspect_plain(payload: &[u8], count: i32, visit: &mut impl FnMut(&Inspected)) -> Result<(), RecordError> {
    let mut cursor = Cursor { rest: payload };
    for index in 0..count {
        match cursor.record(index) {
            Ok(record) => visit(&record),
            Err(Flaw::CutOff) => return Err(RecordError::Truncated { index, count }),
            Err(Flaw::Is(what)) => return Err(RecordError::Malformed { index, what }),
        }
    }
    if cursor.rest.is_empty() { Ok(()) } else { Err(RecordError::Trailing { count }) }
}

/// A copy of an uncompressed batch that was inspected, with offset deltas that count from 0.
/// Its header is as before.
pub fn renumbered(batch: &[u8]) -> Result<Vec<u8>, RecordError> {
    let (header, total) = record_batch::frame(batch)?;
    let count = header.record_count.get();
    let mut out = batch[..HEADER_BYTES].to_vec();
    out.reserve(total);
    let mut cursor = Cursor { rest: &batch[HEADER_BYTES..total] };
    let mut body = Vec::new();
    for index in 0..count {
        let cut_off = |_| RecordError::Truncated { index, count };
        let length = usize::try_from(cursor.varint().map_err(cut_off)?).unwrap_or(usize::MAX);
        let record = cursor.rest.get(..length).ok_or(RecordError::Truncated { index, count })?;
        let mut parts = Cursor { rest: record };
        parts.skip(1).and_then(|()| parts.varlong()).map_err(cut_off)?;
        let offset_at = length - parts.rest.len();
        parts.varint().map_err(cut_off)?;
        body.clear();
        body.extend_from_slice(&record[..offset_at]);
        varint::put_signed(&mut body, i64::from(index));
        body.extend_from_slice(parts.rest);
        varint::put_signed(&mut out, body.len() as i64);
        out.extend_from_slice(&body);
        cursor.rest = &cursor.rest[length..];
    }
    Ok(out)
}

/// The record at the start of `bytes`, and the bytes it takes; `None` where `bytes`
/// end before the record does.
pub(super) fn first_record(bytes: &[u8], index: i32) -> Result<Option<(Inspected, usize)>, RecordError> {
    let mut cursor = Cursor { rest: bytes };
    match cursor.record(index) {
        Ok(record) => Ok(Some((record, bytes.len() - cursor.rest.len()))),
        Err(Flaw::CutOff) => Ok(None),
        Err(Flaw::Is(what)) => Err(RecordError::Malformed { index, what }),
    }
}

pub(super) const LONGER: &str = "is longer than its length says";
pub(super) const SHORTER: &str = "is shorter than its length says";
pub(super) const NEGATIVE_FIELD: &str = "has a field of negative length";
pub(super) const NEGATIVE_HEADERS: &str = "has a negative number of headers";
pub(super) const NULL_HEADER_KEY: &str = "has a header without a key";

#[inline]
fn read_body(body: &[u8], index: i32) -> Result<Inspected, Flaw> {
    let mut cursor = Cursor { rest: body };
    cursor.skip(1)?; // The record's attributes, of which Kafka uses none.
    let timestamp_delta = cursor.varlong()?;
    let offset_delta = cursor.varint()?;
    let has_key = cursor.field()? >= 0;
    cursor.field()?;
    let headers = cursor.varint()?;
    if headers < 0 {
        return Err(Flaw::Is(NEGATIVE_HEADERS));
    }
    for _ in 0..headers {
        if cursor.field()? < 0 {
            return Err(Flaw::Is(NULL_HEADER_KEY));
        }
        cursor.field()?;
    }
    if !cursor.rest.is_empty() {
        return Err(Flaw::Is(SHORTER));
    }
    Ok(Inspected { index, timestamp_delta, offset_delta, has_key })
}

enum Flaw {
    CutOff,
    Is(&'static str),
}

/// Reads a record that lies in memory as a whole.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl Cursor<'_> {
    /// Steps over a record; [`Flaw::CutOff`]: the bytes end before it does.
    #[inline]
    fn record(&mut self, index: i32) -> Result<Inspected, Flaw> {
        let length = usize::try_from(self.varint()?).map_err(|_| Flaw::Is("has a negative length"))?;
        let (body, rest) = self.rest.split_at_checked(length).ok_or(Flaw::CutOff)?;
        self.rest = rest;
        read_body(body, index).map_err(|flaw| match flaw {
            Flaw::CutOff => Flaw::Is(LONGER),
            flaw => flaw,
        })
    }

    #[inline]
    fn skip(&mut self, bytes: usize) -> Result<(), Flaw> {
        self.rest = self.rest.get(bytes..).ok_or(Flaw::CutOff)?;
        Ok(())
    }

    /// Steps over a length and as many bytes; -1 is null and has none.
    #[inline]
    fn field(&mut self) -> Result<i32, Flaw> {
        let length = self.varint()?;
        if length < -1 {
            return Err(Flaw::Is(NEGATIVE_FIELD));
        }
        self.skip(usize::try_from(length).unwrap_or(0))?;
        Ok(length)
    }

    #[inline]
    fn varint(&mut self) -> Result<i32, Flaw> {
        match self.short() {
            Some(raw) => Ok(unzigzag(raw) as i32),
            None => self.long_varint(),
        }
    }

    #[inline]
    fn varlong(&mut self) -> Result<i64, Flaw> {
        match self.short() {
            Some(raw) => Ok(unzigzag(raw)),
            None => self.long_varlong(),
        }
    }

    /// Takes a varint of one or two bytes, as nearly all are. `None`: it is another, or cut off.
    #[inline]
    fn short(&mut self) -> Option<u64> {
        match *self.rest {
            [first, ref rest @ ..] if first < 0x80 => {
                self.rest = rest;
                Some(u64::from(first))
            }
            [first, second, ref rest @ ..] if second < 0x80 => {
                self.rest = rest;
                Some(u64::from(first & 0x7f) | u64::from(second) << 7)
            }
            _ => None,
        }
    }

    #[inline(never)]
    fn long_varint(&mut self) -> Result<i32, Flaw> {
        let mut raw = 0u64;
        for (n, &byte) in self.rest.iter().take(5).enumerate() {
            raw |= u64::from(byte & 0x7f) << (7 * n);
            if byte < 0x80 {
                self.rest = &self.rest[n + 1..];
                let raw = u32::try_from(raw).map_err(|_| Flaw::Is("has a varint beyond 32 bits"))?;
                return Ok(unzigzag(u64::from(raw)) as i32);
            }
        }
        Err(self.endless(5))
    }

    #[inline(never)]
    fn long_varlong(&mut self) -> Result<i64, Flaw> {
        let mut raw = 0u64;
        for (n, &byte) in self.rest.iter().take(10).enumerate() {
            let bits = u64::from(byte & 0x7f);
            if n == 9 && bits > 1 {
                return Err(Flaw::Is("has a varint beyond 64 bits"));
            }
            raw |= bits << (7 * n);
            if byte < 0x80 {
                self.rest = &self.rest[n + 1..];
                return Ok(unzigzag(raw));
            }
        }
        Err(self.endless(10))
    }

    fn endless(&self, max_bytes: usize) -> Flaw {
        if self.rest.len() < max_bytes { Flaw::CutOff } else { Flaw::Is("has a varint without end") }
    }
}
