//! Batches written by the broker itself: what coordinators append, and what cleaning leaves of a batch.

use std::io;

use zerocopy::{FromZeros, IntoBytes};

use super::compress;
use crate::model::record_batch::{BatchHeader, CRC_START, HEADER_BYTES, LENGTH_PREFIX_BYTES};

/// Headers of a record without any: a count of 0.
const NO_HEADERS: &[u8] = &[0];

/// One sound uncompressed batch of `records` (key and value; `None` is a tombstone) at offset 0, without a producer id.
/// All records get `timestamp_ms`. Without records it is an empty batch, which nobody may append.
pub fn build(records: &[(Vec<u8>, Option<Vec<u8>>)], timestamp_ms: i64) -> Vec<u8> {
    let mut writer = BatchWriter::new(0, timestamp_ms);
    for (offset, (key, value)) in (0..).zip(records) {
        writer.push(offset, timestamp_ms, Some(key), value.as_deref(), NO_HEADERS);
    }
    let mut header = BatchHeader::new_zeroed();
    header.magic = 2;
    header.producer_id.set(-1);
    header.producer_epoch.set(-1);
    header.base_sequence.set(-1);
    header.last_offset_delta.set(i32::try_from(records.len()).unwrap_or(i32::MAX) - 1);
    header.base_timestamp.set(timestamp_ms);
    header.max_timestamp.set(timestamp_ms);
    let batch = [&[0; HEADER_BYTES], &writer.payload[..]].concat();
    writer.seal(header, batch)
}

/// Lays records out one after the other as they stand in a batch.
pub struct BatchWriter {
    base_offset: i64,
    base_timestamp_ms: i64,
    payload: Vec<u8>,
    count: i32,
    max_timestamp_ms: i64,
}

impl BatchWriter {
    /// Offsets and timestamps are written as distances from these two.
    pub fn new(base_offset: i64, base_timestamp_ms: i64) -> BatchWriter {
        BatchWriter { base_offset, base_timestamp_ms, payload: Vec::new(), count: 0, max_timestamp_ms: -1 }
    }

    /// Appends a record. Its offset must lie within the batch; `headers` are bytes as a batch has them, their count included.
    pub fn push(&mut self, offset: i64, timestamp_ms: i64, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[u8]) {
        let timestamp_delta = timestamp_ms.wrapping_sub(self.base_timestamp_ms);
        let offset_delta = offset.wrapping_sub(self.base_offset);
        let bytes = 1
            + varint_bytes(timestamp_delta)
            + varint_bytes(offset_delta)
            + field_bytes(key)
            + field_bytes(value)
            + headers.len();
        put_varint(&mut self.payload, bytes as i64);
        // The record's attributes, of which Kafka uses none.
        self.payload.push(0);
        put_varint(&mut self.payload, timestamp_delta);
        put_varint(&mut self.payload, offset_delta);
        put_field(&mut self.payload, key);
        put_field(&mut self.payload, value);
        self.payload.extend_from_slice(headers);
        self.count += 1;
        self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
    }

    pub fn count(&self) -> i32 {
        self.count
    }

    pub fn base_timestamp_ms(&self) -> i64 {
        self.base_timestamp_ms
    }

    /// The largest timestamp of a record; -1: none has one.
    pub fn max_timestamp_ms(&self) -> i64 {
        self.max_timestamp_ms
    }

    /// The batch. `header` gives everything but length, base offset, record count and CRC; its codec compresses the records.
    pub fn finish(mut self, header: BatchHeader) -> io::Result<Vec<u8>> {
        let payload = std::mem::take(&mut self.payload);
        let mut batch = vec![0; HEADER_BYTES];
        match header.codec() {
            None => return Err(io::Error::new(io::ErrorKind::InvalidInput, "the header's bits stand for no codec")),
            Some(codec) => compress::append(codec, &payload, &mut batch)?,
        }
        Ok(self.seal(header, batch))
    }

    /// Completes `batch`, whose first [`HEADER_BYTES`] are still free.
    fn seal(&self, mut header: BatchHeader, mut batch: Vec<u8>) -> Vec<u8> {
        header.base_offset.set(self.base_offset);
        header.record_count.set(self.count);
        header.batch_length.set(i32::try_from(batch.len() - LENGTH_PREFIX_BYTES).unwrap_or(i32::MAX));
        batch[..HEADER_BYTES].copy_from_slice(header.as_bytes());
        header.crc.set(crc32c::crc32c(&batch[CRC_START..]));
        batch[..HEADER_BYTES].copy_from_slice(header.as_bytes());
        batch
    }
}

fn zigzag(value: i64) -> u64 {
    (value << 1) as u64 ^ (value >> 63) as u64
}

fn varint_bytes(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

pub fn put_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = zigzag(value);
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

fn field_bytes(field: Option<&[u8]>) -> usize {
    match field {
        Some(bytes) => varint_bytes(bytes.len() as i64) + bytes.len(),
        None => varint_bytes(-1),
    }
}

fn put_field(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        Some(bytes) => {
            put_varint(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
        None => put_varint(out, -1),
    }
}
