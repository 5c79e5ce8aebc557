//! The log behind the null broker's Fetch: one batch over and over, without end.

use bytes::{BufMut, Bytes, BytesMut};

use crate::bench::batch::{BatchBuilder, Filler};
use crate::runtime::clock;

/// Batches in one partition's answer, whatever its limits allow.
const MAX_BATCHES: usize = 16 << 10;
/// Every so many batches one is spoilt, if any.
const SPOILT_EVERY: i64 = 100;
const BASE_OFFSET_BYTES: usize = 8;

/// Fault of a batch now and then, to see a verifying consumer fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoil {
    /// A byte of a record is not what the checksum says.
    Crc,
    /// A batch is left out.
    Gap,
    /// A batch comes twice.
    Repeat,
}

pub struct EndlessLog {
    /// From after the base offset on.
    rest: Bytes,
    /// The same, spoilt.
    bent: Bytes,
    records: i64,
    spoil: Option<Spoil>,
}

impl EndlessLog {
    /// Records of `record_size` fill batches up to `batch_bytes`.
    pub fn new(record_size: usize, batch_bytes: usize, spoil: Option<Spoil>) -> EndlessLog {
        let mut builder = BatchBuilder::new(clock::wall_ms(), batch_bytes);
        let (mut filler, mut value) = (Filler::new(1, 0), vec![0; record_size]);
        while builder.records() == 0 || builder.bytes_with(record_size) <= batch_bytes {
            filler.fill(&mut value);
            builder.push(&value);
        }
        let records = i64::from(builder.records());
        let rest = builder.finish().slice(BASE_OFFSET_BYTES..);
        let mut bent = rest.to_vec();
        if let Some(last) = bent.last_mut() {
            *last ^= 1;
        }
        EndlessLog { rest, bent: bent.into(), records, spoil }
    }

    /// So far away that nobody reads up to it.
    pub fn end(&self) -> i64 {
        (1 << 60) / self.records * self.records
    }

    fn batch_bytes(&self) -> usize {
        BASE_OFFSET_BYTES + self.rest.len()
    }

    /// Batches from the one with `offset` on, as many as go into `max_bytes`; with
    /// `at_least_one`, one in any case.
    pub fn read(&self, offset: i64, max_bytes: usize, at_least_one: bool) -> Vec<Bytes> {
        let first = offset.clamp(0, i64::MAX / 4) / self.records;
        let count = (max_bytes / self.batch_bytes()).max(usize::from(at_least_one)).min(MAX_BATCHES);
        // The base offsets have one buffer together.
        let mut bases = BytesMut::with_capacity(count * BASE_OFFSET_BYTES);
        let mut out = Vec::with_capacity(count * 2);
        for number in (first..).take(count) {
            let spoilt = self.spoil.filter(|_| number % SPOILT_EVERY == SPOILT_EVERY - 1);
            let (number, rest) = match spoilt {
                None => (number, &self.rest),
                Some(Spoil::Crc) => (number, &self.bent),
                // The one behind it takes its place.
                Some(Spoil::Gap) => (number + 1, &self.rest),
                Some(Spoil::Repeat) => (number - 1, &self.rest),
            };
            bases.put_i64(number * self.records);
            out.push(bases.split().freeze());
            out.push(rest.clone());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::record_batch::{check, frame};

    /// The base offsets of what is read, every checksum looked at.
    fn bases(log: &EndlessLog, offset: i64, max_bytes: usize) -> Vec<i64> {
        let bytes = log.read(offset, max_bytes, true).concat();
        let (mut rest, mut found) = (&bytes[..], Vec::new());
        while !rest.is_empty() {
            let (header, total) = frame(rest).unwrap();
            found.push(if check(rest).is_ok() { header.base() } else { -1 });
            rest = &rest[total..];
        }
        found
    }

    #[test]
    fn the_log_goes_on_wherever_it_is_read() {
        let log = EndlessLog::new(100, 1000, None);
        assert_eq!((log.records, log.batch_bytes() <= 1000), (8, true));
        assert_eq!(bases(&log, 0, 3000), [0, 8, 16]);
        assert_eq!(bases(&log, 17, 2500), [16, 24]);
        assert_eq!(bases(&log, 8, 0), [8]);
        assert_eq!(bases(&log, log.end(), 1000), [log.end()]);
        assert!(log.read(0, 0, false).is_empty());
        // Whatever a client asks for.
        assert_eq!(bases(&log, i64::MIN, 1), [0]);
        assert_eq!(bases(&log, i64::MAX, 1).len(), 1);
        assert_eq!(log.read(0, usize::MAX, true).len(), 2 * MAX_BATCHES);
    }

    #[test]
    fn a_spoilt_log_is_spoilt() {
        let read = |spoil| bases(&EndlessLog::new(10, 0, Some(spoil)), 98, 3 * 90);
        assert_eq!(read(Spoil::Crc), [98, -1, 100]);
        assert_eq!(read(Spoil::Gap), [98, 100, 100]);
        assert_eq!(read(Spoil::Repeat), [98, 98, 100]);
    }
}
