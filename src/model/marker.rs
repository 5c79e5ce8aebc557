//! The end of a transaction in a partition (KIP-98): a control batch of one record, which says
//! whether what its producer wrote before counts.

use std::ops::ControlFlow;

use zerocopy::FromZeros;

use super::record_batch::BatchHeader;
use super::records::{self, BatchWriter};

/// Version of the key and of the value of a marker's record.
const VERSION: i16 = 0;
/// A record without headers.
const NO_HEADERS: &[u8] = &[0];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkerKind {
    Abort = 0,
    Commit = 1,
}

/// A marker as a coordinator has it written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Marker {
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub kind: MarkerKind,
    pub coordinator_epoch: i32,
    /// `transaction.version` of the transaction. From 2 on the marker's epoch is above that
    /// of the records (KIP-1228).
    pub transaction_version: i8,
}

impl Marker {
    /// The control batch, at offset 0.
    pub fn batch(&self, now_ms: i64) -> Vec<u8> {
        let key = [VERSION.to_be_bytes(), (self.kind as i16).to_be_bytes()].concat();
        let value = [&VERSION.to_be_bytes()[..], &self.coordinator_epoch.to_be_bytes()].concat();
        let mut writer = BatchWriter::new(0, now_ms);
        writer.push(0, now_ms, Some(&key), Some(&value), NO_HEADERS);
        let mut header = BatchHeader::new_zeroed();
        header.magic = 2;
        header.set_control();
        header.producer_id.set(self.producer_id);
        header.producer_epoch.set(self.producer_epoch);
        header.base_sequence.set(-1);
        header.base_timestamp.set(now_ms);
        header.max_timestamp.set(now_ms);
        writer.finish_plain(header)
    }
}

/// The contents of a marker in a log; producer and epoch are in its batch's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndMarker {
    pub kind: MarkerKind,
    pub coordinator_epoch: i32,
}

impl EndMarker {
    /// `None`: `batch` is not a marker, or one that cleaning has emptied.
    pub fn of(batch: &[u8]) -> Option<EndMarker> {
        BatchHeader::peek(batch).filter(|header| header.is_control() && header.is_transactional())?;
        let mut found = None;
        let read = records::read(batch, &mut |record| {
            found = record.key.and_then(kind_of).zip(record.value.and_then(epoch_of));
            ControlFlow::Break(())
        });
        let (kind, coordinator_epoch) = found.filter(|_| read.is_ok())?;
        Some(EndMarker { kind, coordinator_epoch })
    }
}

/// Kafka reads later versions as the first.
fn kind_of(key: &[u8]) -> Option<MarkerKind> {
    let kind = i16::from_be_bytes(key.get(2..4)?.try_into().ok()?);
    match kind {
        0 => Some(MarkerKind::Abort),
        1 => Some(MarkerKind::Commit),
        _ => None,
    }
}

fn epoch_of(value: &[u8]) -> Option<i32> {
    Some(i32::from_be_bytes(value.get(2..6)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::record_batch;

    const MARKER: Marker = Marker {
        producer_id: 7,
        producer_epoch: 3,
        kind: MarkerKind::Commit,
        coordinator_epoch: 12,
        transaction_version: 2,
    };

    #[test]
    fn a_marker_is_a_sound_control_batch_of_its_producer() {
        let batch = MARKER.batch(1000);
        let header = record_batch::check(&batch).unwrap();
        assert!(header.is_control() && header.is_transactional() && header.is_idempotent());
        assert_eq!((header.producer_id.get(), header.producer_epoch.get(), header.base_sequence.get()), (7, 3, -1));
        assert_eq!((header.record_count.get(), header.next_offset(), header.max_timestamp.get()), (1, 1, 1000));
        // Kafka 4.3 writes 78 bytes.
        assert_eq!(batch.len(), 78);
        assert_eq!(EndMarker::of(&batch), Some(EndMarker { kind: MarkerKind::Commit, coordinator_epoch: 12 }));
        let abort = Marker { kind: MarkerKind::Abort, ..MARKER }.batch(1000);
        assert_eq!(EndMarker::of(&abort).unwrap().kind, MarkerKind::Abort);
    }

    #[test]
    fn nothing_else_is_taken_for_a_marker() {
        let good = MARKER.batch(1000);
        for cut in 0..good.len() {
            assert_eq!(EndMarker::of(&good[..cut]), None, "cut at {cut}");
        }
        let data = records::build(&[(b"\0\0\0\x01".to_vec(), Some(vec![0; 6]))], 5);
        assert_eq!(EndMarker::of(&data), None);
        let mut unknown = good;
        let key = unknown.len() - 1 - 6 - 1 - 1;
        unknown[key] = 9;
        assert_eq!(EndMarker::of(&unknown), None);
    }
}
