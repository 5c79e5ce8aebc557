//! The record batch, magic 2: the unit that producers send, the log stores and consumers fetch.
//!
//! The layout is Kafka's (documentation, "Record Batch"); everything is big-endian. The CRC
//! covers the bytes from `attributes` on, so a broker can set `base_offset` and
//! `partition_leader_epoch` without touching it.

use zerocopy::big_endian::{I16, I32, I64, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of [`BatchHeader`].
pub const HEADER_BYTES: usize = 61;
/// `base_offset` and `batch_length`, which `batch_length` itself does not count.
pub const LENGTH_PREFIX_BYTES: usize = 12;
/// Where the bytes covered by the CRC begin.
pub const CRC_START: usize = 21;

const COMPRESSION_MASK: i16 = 0x07;
const TIMESTAMP_TYPE_MASK: i16 = 0x08;
const TRANSACTIONAL_MASK: i16 = 0x10;
const CONTROL_MASK: i16 = 0x20;
const DELETE_HORIZON_MASK: i16 = 0x40;

/// The fixed part of every batch.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct BatchHeader {
    pub base_offset: I64,
    /// Bytes that follow this field.
    pub batch_length: I32,
    pub partition_leader_epoch: I32,
    pub magic: i8,
    pub crc: U32,
    pub attributes: I16,
    pub last_offset_delta: I32,
    pub base_timestamp: I64,
    pub max_timestamp: I64,
    pub producer_id: I64,
    pub producer_epoch: I16,
    pub base_sequence: I32,
    pub record_count: I32,
}

const _: () = assert!(size_of::<BatchHeader>() == HEADER_BYTES);

/// Compression codec, attribute bits 0-2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    None = 0,
    Gzip = 1,
    Snappy = 2,
    Lz4 = 3,
    Zstd = 4,
}

impl BatchHeader {
    /// The header at the start of `bytes`; `None` when fewer than [`HEADER_BYTES`] are there.
    pub fn peek(bytes: &[u8]) -> Option<&BatchHeader> {
        BatchHeader::ref_from_prefix(bytes).ok().map(|(header, _)| header)
    }

    /// Bytes of the whole batch, header included; nonsense when the header is.
    pub fn total_bytes(&self) -> i64 {
        i64::from(self.batch_length.get()) + LENGTH_PREFIX_BYTES as i64
    }

    pub fn base(&self) -> i64 {
        self.base_offset.get()
    }

    /// The offset after the batch's last record; nonsense when the header is.
    pub fn next_offset(&self) -> i64 {
        self.base_offset.get().saturating_add(i64::from(self.last_offset_delta.get())).saturating_add(1)
    }

    /// `None`: bits that stand for no codec.
    pub fn codec(&self) -> Option<Codec> {
        match self.attributes.get() & COMPRESSION_MASK {
            0 => Some(Codec::None),
            1 => Some(Codec::Gzip),
            2 => Some(Codec::Snappy),
            3 => Some(Codec::Lz4),
            4 => Some(Codec::Zstd),
            _ => None,
        }
    }

    pub fn is_log_append_time(&self) -> bool {
        self.attributes.get() & TIMESTAMP_TYPE_MASK != 0
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes.get() & TRANSACTIONAL_MASK != 0
    }

    pub fn is_control(&self) -> bool {
        self.attributes.get() & CONTROL_MASK != 0
    }

    /// Makes it a batch in a transaction. The CRC must be recomputed.
    pub fn set_transactional(&mut self) {
        self.attributes.set(self.attributes.get() | TRANSACTIONAL_MASK);
    }

    /// Makes it a control batch of a transaction. The CRC must be recomputed.
    pub fn set_control(&mut self) {
        self.attributes.set(self.attributes.get() | TRANSACTIONAL_MASK | CONTROL_MASK);
    }

    /// From when on cleaning may drop the batch's tombstones, ms since the epoch; the
    /// base timestamp stands for it then (KIP-534). `None`: the first cleaning that
    /// meets them has yet to say.
    pub fn delete_horizon_ms(&self) -> Option<i64> {
        (self.attributes.get() & DELETE_HORIZON_MASK != 0).then(|| self.base_timestamp.get())
    }

    /// Sets the mark of a delete horizon, which is then the base timestamp, or takes it away.
    /// The CRC must be recomputed.
    pub fn set_delete_horizon(&mut self, horizon_ms: Option<i64>) {
        match horizon_ms {
            Some(horizon_ms) => {
                self.attributes.set(self.attributes.get() | DELETE_HORIZON_MASK);
                self.base_timestamp.set(horizon_ms);
            }
            None => self.attributes.set(self.attributes.get() & !DELETE_HORIZON_MASK),
        }
    }

    /// Says how the records are compressed. The CRC must be recomputed.
    pub fn set_codec(&mut self, codec: Codec) {
        self.attributes.set((self.attributes.get() & !COMPRESSION_MASK) | codec as i16);
    }

    /// Says that the records are not compressed. The CRC must be recomputed.
    pub fn clear_codec(&mut self) {
        self.attributes.set(self.attributes.get() & !COMPRESSION_MASK);
    }

    /// True if the batch carries a producer id and sequence (KIP-98).
    pub fn is_idempotent(&self) -> bool {
        self.producer_id.get() >= 0
    }

    /// The sequence number of the batch's last record; sequences wrap from `i32::MAX` to 0.
    pub fn last_sequence(&self) -> i32 {
        sequence_plus(self.base_sequence.get(), self.last_offset_delta.get())
    }

    /// Marks the batch as stamped by the broker at `now_ms` (message.timestamp.type=LogAppendTime).
    /// The CRC must be recomputed afterwards.
    pub fn set_log_append_time(&mut self, now_ms: i64) {
        self.set_timestamps(true, now_ms);
    }

    /// Sets the timestamp type and the largest timestamp. The CRC must be recomputed
    /// if that changes anything.
    pub fn set_timestamps(&mut self, log_append_time: bool, max_timestamp_ms: i64) {
        let others = self.attributes.get() & !TIMESTAMP_TYPE_MASK;
        self.attributes.set(if log_append_time { others | TIMESTAMP_TYPE_MASK } else { others });
        self.max_timestamp.set(max_timestamp_ms);
    }
}

/// `sequence` plus `delta`, wrapping as Kafka's sequences do.
pub fn sequence_plus(sequence: i32, delta: i32) -> i32 {
    let sum = i64::from(sequence) + i64::from(delta);
    let limit = i64::from(i32::MAX) + 1;
    (sum % limit) as i32
}

/// Error of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("the batch is cut off: {have} bytes of {want}")]
    Truncated { have: u64, want: u64 },
    #[error("the batch's length field is {0}, smaller than its header")]
    BadLength(i32),
    #[error("the batch has magic {0}; only 2 is accepted")]
    BadMagic(i8),
    #[error("the batch's CRC is {found:08x}, computed {computed:08x}")]
    BadCrc { found: u32, computed: u32 },
    #[error("the batch counts {count} records and a last offset delta of {delta}")]
    BadCount { count: i32, delta: i32 },
    #[error("the batch has unknown compression bits in attributes {0:#06x}")]
    BadCodec(i16),
}

/// The first batch of `bytes`, checked for framing only (length, magic): what a scan needs
/// to step to the next one.
pub fn frame(bytes: &[u8]) -> Result<(&BatchHeader, usize), BatchError> {
    let have = bytes.len() as u64;
    let Some(header) = BatchHeader::peek(bytes) else {
        return Err(BatchError::Truncated { have, want: HEADER_BYTES as u64 });
    };
    // The magic byte sits at the same place in every version, so it tells more
    // than a wrong length does.
    if header.magic != 2 {
        return Err(BatchError::BadMagic(header.magic));
    }
    let length = header.batch_length.get();
    if length < (HEADER_BYTES - LENGTH_PREFIX_BYTES) as i32 {
        return Err(BatchError::BadLength(length));
    }
    let total = length as usize + LENGTH_PREFIX_BYTES;
    if bytes.len() < total {
        return Err(BatchError::Truncated { have, want: total as u64 });
    }
    Ok((header, total))
}

/// Checks one whole batch (exactly `bytes`): framing, codec, record count, CRC.
pub fn check(bytes: &[u8]) -> Result<&BatchHeader, BatchError> {
    let (header, total) = frame(bytes)?;
    let batch = &bytes[..total];
    if header.codec().is_none() {
        return Err(BatchError::BadCodec(header.attributes.get()));
    }
    let computed = crc32c::crc32c(&batch[CRC_START..]);
    if computed != header.crc.get() {
        return Err(BatchError::BadCrc { found: header.crc.get(), computed });
    }
    Ok(header)
}

/// Checks what only a producer's batch must satisfy: at least one record, and offsets without gaps.
pub fn check_produced(header: &BatchHeader) -> Result<(), BatchError> {
    let (count, delta) = (header.record_count.get(), header.last_offset_delta.get());
    if count < 1 || delta != count - 1 {
        return Err(BatchError::BadCount { count, delta });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing;

    fn batch(payload: &[u8]) -> Vec<u8> {
        testing::batch(testing::header(1, 0), payload).to_vec()
    }

    #[test]
    fn a_sound_batch_passes_and_offset_and_epoch_are_outside_the_crc() {
        let mut bytes = batch(b"hello");
        assert!(check(&bytes).is_ok());
        bytes[..8].copy_from_slice(&77i64.to_be_bytes());
        bytes[12..16].copy_from_slice(&5i32.to_be_bytes());
        let header = check(&bytes).unwrap();
        assert_eq!((header.base(), header.next_offset(), header.partition_leader_epoch.get()), (77, 78, 5));
    }

    #[test]
    fn every_flipped_byte_is_noticed() {
        let good = batch(b"payload");
        for position in 8..good.len() {
            if (12..16).contains(&position) {
                continue;
            }
            let mut bad = good.clone();
            bad[position] ^= 0x55;
            assert!(check(&bad).is_err(), "byte {position}");
        }
        for cut in 0..good.len() {
            assert!(matches!(check(&good[..cut]), Err(BatchError::Truncated { .. })), "cut at {cut}");
        }
    }

    #[test]
    fn sequences_wrap() {
        assert_eq!(sequence_plus(i32::MAX, 1), 0);
        assert_eq!(sequence_plus(i32::MAX - 2, 5), 2);
        assert_eq!(sequence_plus(3, 4), 7);
    }
}
