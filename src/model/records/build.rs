//! Batches written by the broker itself: what coordinators append, and what
//! cleaning leaves of a batch.

use std::io;

use zerocopy::{FromZeros, IntoBytes};

use super::compress;
use crate::model::record_batch::{BatchHeader, CRC_START, HEADER_BYTES, LENGTH_PREFIX_BYTES};
use crate::model::varint;

/// Headers of a record without any: a count of 0.
const NO_HEADERS: &[u8] = &[0];

/// One sound uncompressed batch of `records` (key and value; `None` is a tombstone) at offset 0,
/// without a producer id. All records get `timestamp_ms`. Without records it is an empty batch,
/// which nobody may append.
pub fn build(records: &[(Vec<u8>, Option<Vec<u8>>)], timestamp_ms: i64) -> Vec<u8> {
    let mut writer = BatchWriter::new(0, timestamp_ms);
    for (offset, (key, value)) in (0..).zip(records) {
        writer.push(offset, timestamp_ms, Some(key), value.as_deref(), NO_HEADERS);
    }
    writer.finish_plain(header_of(records.len(), timestamp_ms))
}

/// As [`build`], in the transaction of a producer; without a sequence, as coordinators write.
pub fn build_in_transaction(
    records: &[(Vec<u8>, Option<Vec<u8>>)],
    timestamp_ms: i64,
    producer_id: i64,
    producer_epoch: i16,
) -> Vec<u8> {
    let mut writer = BatchWriter::new(0, timestamp_ms);
    for (offset, (key, value)) in (0..).zip(records) {
        writer.push(offset, timestamp_ms, Some(key), value.as_deref(), NO_HEADERS);
    }
    let mut header = header_of(records.len(), timestamp_ms);
    header.set_transactional();
    header.producer_id.set(producer_id);
    header.producer_epoch.set(producer_epoch);
    writer.finish_plain(header)
}

/// Header of a batch of `count` records at one time, without a producer.
fn header_of(count: usize, timestamp_ms: i64) -> BatchHeader {
    let mut header = BatchHeader::new_zeroed();
    header.magic = 2;
    header.producer_id.set(-1);
    header.producer_epoch.set(-1);
    header.base_sequence.set(-1);
    header.last_offset_delta.set(i32::try_from(count).unwrap_or(i32::MAX) - 1);
    header.base_timestamp.set(timestamp_ms);
    header.max_timestamp.set(timestamp_ms);
    header
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

    /// Appends a record. Its offset must lie within the batch; `headers` are bytes as a batch has
    /// them, their count included.
    pub fn push(&mut self, offset: i64, timestamp_ms: i64, key: Option<&[u8]>, value: Option<&[u8]>, headers: &[u8]) {
        let timestamp_delta = timestamp_ms.wrapping_sub(self.base_timestamp_ms);
        let offset_delta = offset.wrapping_sub(self.base_offset);
        let bytes = 1
            + varint::signed_bytes(timestamp_delta)
            + varint::signed_bytes(offset_delta)
            + field_bytes(key)
            + field_bytes(value)
            + headers.len();
        varint::put_signed(&mut self.payload, bytes as i64);
        // The record's attributes, of which Kafka uses none.
        self.payload.push(0);
        varint::put_signed(&mut self.payload, timestamp_delta);
        varint::put_signed(&mut self.payload, offset_delta);
        put_field(&mut self.payload, key);
        put_field(&mut self.payload, value);
        self.payload.extend_from_slice(headers);
        self.count += 1;
        self.max_timestamp_ms = self.max_timestamp_ms.max(timestamp_ms);
    }

    pub fn count(&self) -> i32 {
        self.count
    }

    /// Of the batch as it is, uncompressed.
    pub fn bytes(&self) -> usize {
        HEADER_BYTES + self.payload.len()
    }

    pub fn base_timestamp_ms(&self) -> i64 {
        self.base_timestamp_ms
    }

    /// The largest timestamp of a record; -1: none has one.
    pub fn max_timestamp_ms(&self) -> i64 {
        self.max_timestamp_ms
    }

    /// The batch. `header` gives everything but length, base offset, record count and CRC; its
    /// codec compresses the records.
    pub fn finish(mut self, header: BatchHeader) -> io::Result<Vec<u8>> {
        let payload = std::mem::take(&mut self.payload);
        let mut batch = vec![0; HEADER_BYTES];
        match header.codec() {
            None => return Err(io::Error::new(io::ErrorKind::InvalidInput, "the header's bits stand for no codec")),
            Some(codec) => compress::append(codec, &payload, &mut batch)?,
        }
        Ok(self.seal(header, batch))
    }

    /// [`finish`](Self::finish) of a header whose codec is none.
    pub fn finish_plain(self, header: BatchHeader) -> Vec<u8> {
        let batch = [&[0; HEADER_BYTES], &self.payload[..]].concat();
        self.seal(header, batch)
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

fn field_bytes(field: Option<&[u8]>) -> usize {
    match field {
        Some(bytes) => varint::signed_bytes(bytes.len() as i64) + bytes.len(),
        None => varint::signed_bytes(-1),
    }
}

pub(super) fn put_field(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        Some(bytes) => {
            varint::put_signed(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
        None => varint::put_signed(out, -1),
    }
}
