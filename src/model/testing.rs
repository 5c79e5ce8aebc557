//! Batches for tests, made by hand.

use bytes::Bytes;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::record_batch::{BatchHeader, CRC_START, HEADER_BYTES, LENGTH_PREFIX_BYTES};
use super::varint::put_signed;

/// The header of a batch without a producer.
pub fn header(count: i32, timestamp: i64) -> BatchHeader {
    let mut header = BatchHeader::new_zeroed();
    header.magic = 2;
    header.last_offset_delta.set(count - 1);
    header.record_count.set(count);
    header.base_timestamp.set(timestamp);
    header.max_timestamp.set(timestamp);
    header.producer_id.set(-1);
    header
}

/// The batch of a header and whatever stands for its records: its length and its CRC are right.
pub fn batch(mut header: BatchHeader, records: &[u8]) -> Bytes {
    header.batch_length.set((HEADER_BYTES - LENGTH_PREFIX_BYTES + records.len()) as i32);
    let mut bytes = [header.as_bytes(), records].concat();
    seal(&mut bytes);
    bytes.into()
}

/// Puts the CRC of a batch right whose bytes were changed.
pub fn seal(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[CRC_START..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// A batch with another header, and the CRC that goes with it.
pub fn edited(batch: &[u8], change: impl FnOnce(&mut BatchHeader)) -> Vec<u8> {
    let mut bytes = batch.to_vec();
    change(BatchHeader::mut_from_prefix(&mut bytes).unwrap().0);
    seal(&mut bytes);
    bytes
}

/// Records without keys, the first with a value of `payload` bytes, the others
/// with one of a single byte.
pub fn records(count: i32, payload: usize, mut byte: impl FnMut() -> u8) -> Vec<u8> {
    let mut out = Vec::new();
    for delta in 0..count {
        let value: Vec<u8> = (0..if delta == 0 { payload } else { 1 }).map(|_| byte()).collect();
        let mut record = vec![0, 0];
        put_signed(&mut record, i64::from(delta));
        put_signed(&mut record, -1);
        put_signed(&mut record, value.len() as i64);
        record.extend_from_slice(&value);
        record.push(0);
        put_signed(&mut out, record.len() as i64);
        out.extend_from_slice(&record);
    }
    out
}
