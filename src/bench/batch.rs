//! Record batches as a producer writes them: magic 2, records without key or headers.

use std::io;

use bytes::Bytes;
use zerocopy::{FromZeros, IntoBytes};

use crate::model::record_batch::{BatchHeader, CRC_START, Codec, HEADER_BYTES, LENGTH_PREFIX_BYTES, frame};
use crate::model::{records, varint};

const CRC_AT: usize = 17;

/// Builds one batch. Every record has the batch's timestamp.
pub struct BatchBuilder {
    bytes: Vec<u8>,
    records: i32,
    timestamp_ms: i64,
}

impl BatchBuilder {
    pub fn new(timestamp_ms: i64, capacity: usize) -> BatchBuilder {
        let mut bytes = Vec::with_capacity(capacity.max(HEADER_BYTES));
        bytes.resize(HEADER_BYTES, 0);
        BatchBuilder { bytes, records: 0, timestamp_ms }
    }

    pub fn push(&mut self, value: &[u8]) {
        let length = record_length(self.records, value.len());
        varint::put_signed(&mut self.bytes, length as i64);
        self.bytes.push(0); // attributes
        varint::put_signed(&mut self.bytes, 0); // timestamp delta
        varint::put_signed(&mut self.bytes, i64::from(self.records));
        varint::put_signed(&mut self.bytes, -1); // no key
        varint::put_signed(&mut self.bytes, value.len() as i64);
        self.bytes.extend_from_slice(value);
        varint::put_signed(&mut self.bytes, 0); // headers
        self.records += 1;
    }

    /// Bytes of the batch once a value of `len` bytes is added.
    pub fn bytes_with(&self, len: usize) -> usize {
        let length = record_length(self.records, len);
        self.bytes.len() + varint::signed_bytes(length as i64) + length
    }

    /// Bytes of the batch as it is, uncompressed.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn records(&self) -> i32 {
        self.records
    }

    /// At least one record must have been pushed.
    pub fn finish(self) -> Bytes {
        self.framed(Codec::None)
    }

    /// As [`finish`](Self::finish), with the records compressed.
    pub fn finish_compressed(mut self, codec: Codec) -> io::Result<Bytes> {
        if codec != Codec::None {
            let mut compressed = Vec::new();
            records::compress(codec, &self.bytes[HEADER_BYTES..], &mut compressed)?;
            self.bytes.truncate(HEADER_BYTES);
            self.bytes.extend_from_slice(&compressed);
        }
        Ok(self.framed(codec))
    }

    fn framed(mut self, codec: Codec) -> Bytes {
        let mut header = BatchHeader::new_zeroed();
        header.attributes.set(codec as i16);
        header.batch_length.set((self.bytes.len() - LENGTH_PREFIX_BYTES) as i32);
        header.partition_leader_epoch.set(-1);
        header.magic = 2;
        header.last_offset_delta.set(self.records - 1);
        header.base_timestamp.set(self.timestamp_ms);
        header.max_timestamp.set(self.timestamp_ms);
        header.producer_id.set(-1);
        header.producer_epoch.set(-1);
        header.base_sequence.set(-1);
        header.record_count.set(self.records);
        self.bytes[..HEADER_BYTES].copy_from_slice(header.as_bytes());
        let crc = crc32c::crc32c(&self.bytes[CRC_START..]);
        self.bytes[CRC_AT..CRC_START].copy_from_slice(&crc.to_be_bytes());
        Bytes::from(self.bytes)
    }
}

fn record_length(index: i32, value_len: usize) -> usize {
    // Attributes, timestamp delta, null key and header count take a byte each.
    4 + varint::signed_bytes(i64::from(index)) + varint::signed_bytes(value_len as i64) + value_len
}

/// Shows `each` the value of every record of one whole uncompressed batch; `None`: it is
/// compressed or malformed.
pub fn values(batch: &[u8], mut each: impl FnMut(&[u8])) -> Option<()> {
    let (header, total) = frame(batch).ok()?;
    if header.codec() != Some(Codec::None) {
        return None;
    }
    let mut rest = &batch[HEADER_BYTES..total];
    for _ in 0..header.record_count.get() {
        let length = usize::try_from(varint::take_signed(&mut rest, 64).ok()?).ok()?;
        let (mut record, after) = rest.split_at_checked(length)?;
        rest = after;
        record = record.get(1..)?;
        varint::take_signed(&mut record, 64).ok()?;
        varint::take_signed(&mut record, 64).ok()?;
        let key = varint::take_signed(&mut record, 64).ok()?.max(0);
        record = record.get(usize::try_from(key).ok()?..)?;
        let value = varint::take_signed(&mut record, 64).ok()?.max(0);
        each(record.get(..usize::try_from(value).ok()?)?);
    }
    Some(())
}

/// Bytes that no compressor and no deduplicating device makes smaller: xorshift64*.
pub struct Noise(u64);

impl Noise {
    pub fn new(seed: u64) -> Noise {
        Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn fill(&mut self, out: &mut [u8]) {
        for chunk in out.chunks_mut(8) {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let word = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}

/// Bytes that compressors make small, as text would be.
const TEXT: &[u8] = b"every record of this topic says much the same thing in much the same words, as records do; ";

/// Fills values, a part of each with text.
pub struct Filler {
    noise: Noise,
    text_percent: usize,
}

impl Filler {
    /// `text_percent`: of each value's bytes, 0 to 100.
    pub fn new(seed: u64, text_percent: u8) -> Filler {
        Filler { noise: Noise::new(seed), text_percent: usize::from(text_percent.min(100)) }
    }

    pub fn fill(&mut self, value: &mut [u8]) {
        let text_bytes = value.len() * self.text_percent / 100;
        let (text, noise) = value.split_at_mut(text_bytes);
        for chunk in text.chunks_mut(TEXT.len()) {
            chunk.copy_from_slice(&TEXT[..chunk.len()]);
        }
        self.noise.fill(noise);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::record_batch::{check, check_produced};
    use crate::model::records::walk;

    fn built(sizes: &[usize]) -> (Bytes, Vec<Vec<u8>>) {
        let mut noise = Noise::new(7);
        let mut builder = BatchBuilder::new(1_700_000_000_000, 0);
        let mut all = Vec::new();
        for size in sizes {
            let mut value = vec![0; *size];
            noise.fill(&mut value);
            let expected = builder.bytes_with(*size);
            builder.push(&value);
            assert_eq!(builder.bytes.len(), expected);
            all.push(value);
        }
        (builder.finish(), all)
    }

    #[test]
    fn batches_pass_the_brokers_checks_and_hold_what_was_pushed() {
        for sizes in [vec![0], vec![100; 300], vec![63, 64, 8191, 8192, 100_000, 1]] {
            let (batch, pushed) = built(&sizes);
            let header = check(&batch).unwrap();
            check_produced(header).unwrap();
            assert_eq!((header.total_bytes() as usize, header.next_offset()), (batch.len(), sizes.len() as i64));
            assert_eq!((header.is_idempotent(), header.codec()), (false, Some(Codec::None)));
            let mut lengths = Vec::new();
            walk(&batch, &mut |record| {
                assert_eq!((record.timestamp_ms, record.key_len), (1_700_000_000_000, -1));
                lengths.push(record.value_len as usize);
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
            assert_eq!(lengths, sizes);
            let mut read = Vec::new();
            values(&batch, |value| read.push(value.to_vec())).unwrap();
            assert_eq!(read, pushed);
        }
    }

    #[test]
    fn compressed_batches_pass_the_brokers_checks_and_hold_what_was_pushed() {
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let mut filler = Filler::new(7, 50);
            let mut builder = BatchBuilder::new(1_700_000_000_000, 0);
            let mut value = vec![0; 500];
            for _ in 0..100 {
                filler.fill(&mut value);
                builder.push(&value);
            }
            let raw = builder.bytes();
            let batch = builder.finish_compressed(codec).unwrap();
            let header = check(&batch).unwrap();
            check_produced(header).unwrap();
            assert_eq!((header.codec(), header.record_count.get()), (Some(codec), 100));
            assert!(codec == Codec::None || batch.len() < raw * 3 / 4, "{codec:?}: {} of {raw}", batch.len());
            let mut count = 0;
            walk(&batch, &mut |record| {
                count += i32::from(record.value_len == 500);
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
            assert_eq!(count, 100, "{codec:?}");
        }
    }

    #[test]
    fn cut_or_compressed_batches_have_no_values() {
        let (batch, _) = built(&[10, 20]);
        assert!(values(&batch[..batch.len() - 1], |_| ()).is_none());
        let mut compressed = batch.to_vec();
        compressed[22] = 4;
        assert!(values(&compressed, |_| ()).is_none());
        for position in HEADER_BYTES..batch.len() {
            let mut bent = batch.to_vec();
            bent[position] = 0xff;
            // Any outcome but a panic.
            let _ = values(&bent, |_| ());
        }
    }
}
