//! Batches as they fill, and as they wait for their acknowledgement.

use std::io;
use std::ops::ControlFlow;
use std::time::Instant;

use bytes::Bytes;
use zerocopy::{FromZeros, IntoBytes};

use crate::model::record_batch::{BatchHeader, CRC_START, Codec, HEADER_BYTES};
use crate::model::records::{self, BatchWriter, RecordError};

/// Varints, attributes and counts of a record, at most.
const RECORD_OVERHEAD_BYTES: usize = 40;

/// A record to be produced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// `None`: by the key.
    pub partition: Option<i32>,
    /// Milliseconds since 1970 UTC; `None`: the time at which it is taken.
    pub timestamp_ms: Option<i64>,
}

impl Record {
    /// In a batch, at most.
    pub fn bytes(&self) -> usize {
        let length = |field: &Option<Vec<u8>>| field.as_ref().map_or(0, Vec::len);
        let headers = self.headers.iter().map(|(key, value)| key.len() + length(value) + 10).sum::<usize>();
        length(&self.key) + length(&self.value) + headers + RECORD_OVERHEAD_BYTES
    }
}

/// A batch that takes records.
pub(super) struct Filling {
    writer: BatchWriter,
    /// When its first record came.
    pub since: Instant,
    headers: Vec<u8>,
}

impl Filling {
    pub fn new(timestamp_ms: i64, since: Instant) -> Filling {
        Filling { writer: BatchWriter::new(0, timestamp_ms), since, headers: Vec::new() }
    }

    pub fn bytes(&self) -> usize {
        self.writer.bytes()
    }

    pub fn push(&mut self, record: &Record, timestamp_ms: i64) {
        self.headers.clear();
        let headers = record.headers.iter().map(|(key, value)| (key.as_slice(), value.as_deref()));
        records::put_headers(&mut self.headers, headers);
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        self.writer.push(i64::from(self.writer.count()), timestamp_ms, key, value, &self.headers);
    }

    pub fn seal(self, codec: Codec) -> io::Result<Sealed> {
        seal(self.writer, codec)
    }
}

fn seal(writer: BatchWriter, codec: Codec) -> io::Result<Sealed> {
    let records = writer.count();
    let mut header = BatchHeader::new_zeroed();
    header.magic = 2;
    header.set_codec(codec);
    header.partition_leader_epoch.set(-1);
    header.last_offset_delta.set(records - 1);
    header.base_timestamp.set(writer.base_timestamp_ms());
    header.max_timestamp.set(writer.max_timestamp_ms());
    header.producer_id.set(-1);
    header.producer_epoch.set(-1);
    header.base_sequence.set(-1);
    let bytes = Bytes::from(writer.finish(header)?);
    Ok(Sealed { bytes, records, sequenced: false, unanswered: false, deadline: None, last: String::new() })
}

/// A batch that waits for its acknowledgement.
pub(super) struct Sealed {
    pub bytes: Bytes,
    pub records: i32,
    /// It carries a producer id and a sequence.
    pub sequenced: bool,
    /// It was sent and got no answer: it may have been written.
    pub unanswered: bool,
    /// Set once it is the partition's next.
    pub deadline: Option<Instant>,
    /// The last try's error.
    pub last: String,
}

impl Sealed {
    /// Gives it a producer id with its epoch, and the sequence of its first record (KIP-98).
    pub fn sequence(&mut self, (producer_id, epoch): (i64, i16), sequence: i32) {
        let mut bytes = self.bytes.to_vec();
        if let Some(mut header) = BatchHeader::peek(&bytes).copied() {
            header.producer_id.set(producer_id);
            header.producer_epoch.set(epoch);
            header.base_sequence.set(sequence);
            bytes[..HEADER_BYTES].copy_from_slice(header.as_bytes());
            header.crc.set(crc32c::crc32c(&bytes[CRC_START..]));
            bytes[..HEADER_BYTES].copy_from_slice(header.as_bytes());
        }
        self.bytes = bytes.into();
        self.sequenced = true;
    }

    /// Two batches with half of the records each; of one record: the same again, alone.
    pub fn halves(&self, codec: Codec) -> Result<Vec<Sealed>, RecordError> {
        let half = i64::from(self.records / 2);
        let mut writers: Vec<BatchWriter> = Vec::new();
        records::read(&self.bytes, &mut |record| {
            let meta = record.meta;
            if writers.is_empty() || (meta.offset == half && half > 0) {
                writers.push(BatchWriter::new(0, meta.timestamp_ms));
            }
            if let Some(writer) = writers.last_mut() {
                let offset = i64::from(writer.count());
                writer.push(offset, meta.timestamp_ms, record.key, record.value, record.headers);
            }
            ControlFlow::Continue(())
        })?;
        let failed = |source| RecordError::Decompress { codec, source };
        writers.into_iter().map(|writer| seal(writer, codec).map_err(failed)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::record_batch::{check, check_produced};
    use crate::runtime::clock;

    fn record(number: usize) -> Record {
        Record {
            key: (!number.is_multiple_of(3)).then(|| format!("key-{number}").into_bytes()),
            value: (!number.is_multiple_of(5)).then(|| vec![number as u8; number * 10]),
            headers: (0..number % 4).map(|n| (vec![b'h'; n], (n > 0).then(|| vec![n as u8; n]))).collect(),
            partition: None,
            timestamp_ms: None,
        }
    }

    fn filled(count: usize) -> Filling {
        let mut filling = Filling::new(1_700_000_000_000, clock::now());
        for number in 0..count {
            let before = filling.bytes();
            filling.push(&record(number), 1_700_000_000_000 + number as i64 * 7 - 3);
            assert!(filling.bytes() - before <= record(number).bytes());
        }
        filling
    }

    /// The records of batches, one behind the other.
    fn read(batches: &[Sealed]) -> Vec<(i64, Record)> {
        let mut found = Vec::new();
        for batch in batches {
            let header = check(&batch.bytes).unwrap();
            check_produced(header).unwrap();
            assert_eq!(header.record_count.get(), batch.records);
            records::read(&batch.bytes, &mut |view| {
                let headers = records::headers(view.headers).unwrap().into_iter();
                let headers = headers.map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec))).collect();
                let (key, value) = (view.key.map(<[u8]>::to_vec), view.value.map(<[u8]>::to_vec));
                found.push((view.meta.timestamp_ms, Record { key, value, headers, ..Record::default() }));
                ControlFlow::Continue(())
            })
            .unwrap();
        }
        found
    }

    #[test]
    fn batches_and_their_halves_hold_what_was_pushed() {
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let pushed: Vec<(i64, Record)> =
                (0..21).map(|n| (1_700_000_000_000 + n as i64 * 7 - 3, record(n))).collect();
            let mut whole = filled(21).seal(codec).unwrap();
            whole.sequence((7, 1), 30);
            assert_eq!(read(std::slice::from_ref(&whole)), pushed, "{codec:?}");
            let header = check(&whole.bytes).unwrap();
            assert_eq!((header.producer_id.get(), header.producer_epoch.get(), header.base_sequence.get()), (7, 1, 30));
            assert_eq!((header.codec(), header.last_sequence()), (Some(codec), 50));
            let halves = whole.halves(codec).unwrap();
            assert_eq!(halves.iter().map(|half| half.records).collect::<Vec<_>>(), [10, 11]);
            assert_eq!(read(&halves), pushed, "{codec:?}");
            assert!(halves.iter().all(|half| !half.sequenced));
        }
        assert_eq!(filled(1).seal(Codec::None).unwrap().halves(Codec::None).unwrap().len(), 1);
    }
}
