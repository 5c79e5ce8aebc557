//! Aborted transactions of the histories: a marker names as its coordinator's epoch how far back
//! its transaction began, so that the entry in the index follows from the marker alone.

use std::ops::ControlFlow;
use std::rc::Rc;

use bytes::Bytes;

use super::history::NOW_MS;
use crate::model::record_batch::BatchHeader;
use crate::model::records::{self, BatchWriter};
use crate::model::{EndMarker, Marker, MarkerKind, testing};
use crate::storage::{AbortedTxn, Log, RecoveredBatch};

const PRODUCER: i64 = 9;

/// The marker of a transaction that began `distance` offsets before it.
pub fn marker(distance: i32, time_ms: i64) -> Bytes {
    let marker = Marker {
        producer_id: PRODUCER,
        producer_epoch: 0,
        kind: MarkerKind::Abort,
        coordinator_epoch: distance,
        transaction_version: 0,
    };
    marker.batch(time_ms).into()
}

/// Appends a marker, and notes its transaction; the batch, and where it is.
pub fn append(log: &Rc<Log>, distance: i32, time_ms: i64, epoch: i32) -> Option<(Bytes, i64)> {
    let distance = distance.min(i32::try_from(log.next_offset()).unwrap_or(i32::MAX));
    let batch = marker(distance, time_ms);
    let appended = log.append(batch.clone(), epoch, NOW_MS).ok()?;
    log.note_aborted(txn(appended.base_offset, distance)).ok()?;
    Some((batch, appended.base_offset))
}

fn txn(offset: i64, distance: i32) -> AbortedTxn {
    AbortedTxn {
        producer_id: PRODUCER,
        first_offset: offset - i64::from(distance),
        last_offset: offset,
        last_stable_offset: offset + 1,
    }
}

/// Notes the aborted transactions of a batch that a start reads.
pub fn recover(batch: &mut RecoveredBatch<'_>) {
    if let Some(end) = batch.marker {
        batch.note_aborted(txn(batch.base(), end.coordinator_epoch));
    }
}

/// The transaction that the batch ends.
pub fn of(batch: &[u8]) -> Option<AbortedTxn> {
    let header = BatchHeader::peek(batch)?;
    Some(txn(header.base(), EndMarker::of(batch)?.coordinator_epoch))
}

/// The marker's only record, as a reader sees it.
pub fn value(batch: &[u8]) -> Vec<u8> {
    let mut found = Vec::new();
    let _ = records::read(batch, &mut |record| {
        found = record.value.unwrap_or_default().to_vec();
        ControlFlow::Break(())
    });
    found
}

/// A value that is at this offset only.
pub fn value_at(offset: i64) -> Vec<u8> {
    format!("aborted at {offset}").into_bytes()
}

/// A batch of one record of the transaction.
pub fn record(key: &[u8], value: &[u8]) -> Bytes {
    let mut writer = BatchWriter::new(0, NOW_MS);
    writer.push(0, NOW_MS, Some(key), Some(value), &[0]);
    let mut header = testing::header(1, NOW_MS);
    header.attributes.set(0x10);
    header.producer_id.set(PRODUCER);
    writer.finish_plain(header).into()
}

/// Whether the log's index has the transactions whose markers are there, and no others. `lost`:
/// batches are gone, and their entries may have stayed.
pub async fn judge(log: &Rc<Log>, there: &[AbortedTxn], lost: bool) -> Result<(), String> {
    let (start, end) = (log.start_offset(), log.next_offset());
    let found = log.aborted_within(start, end).await.map_err(|error| format!("aborted transactions: {error}"))?;
    let right = match lost {
        true => there.iter().all(|txn| found.contains(txn)),
        false => found == there,
    };
    let ends = |txns: &[AbortedTxn]| txns.iter().map(|txn| txn.last_offset).collect::<Vec<_>>();
    if right { Ok(()) } else { Err(format!("aborted transactions end at {:?}, not {:?}", ends(&found), ends(there))) }
}
