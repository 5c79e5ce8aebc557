//! The filter of one batch: the records that cleaning leaves. Pure; the rules are those of Kafka's
//! cleaner.

use std::collections::HashMap;
use std::io;
use std::ops::ControlFlow;

use super::map::OffsetMap;
use super::txns::Txns;
use crate::model::EndMarker;
use crate::model::record_batch::{self, BatchHeader, CRC_START, Codec, HEADER_BYTES, LENGTH_PREFIX_BYTES};
use crate::model::records::{self, BatchWriter, RecordView};
use zerocopy::IntoBytes;

/// Where each producer's newest batch ends: (producer id) -> its last offset.
pub type LastOffsets = HashMap<i64, i64>;

/// Facts that one cleaning goes by.
pub struct Filter<'a> {
    pub map: &'a OffsetMap,
    pub producers: &'a LastOffsets,
    pub now_ms: i64,
    /// `delete.retention.ms`
    pub delete_retention_ms: i64,
}

/// Outcome of filtering a batch.
#[derive(Debug, PartialEq, Eq)]
pub enum Kept {
    /// It stays as it is.
    Whole,
    /// These bytes take its place.
    Rewritten(Vec<u8>),
    Nothing,
}

/// Notes the batch's keys in `map`, all of them or (an error says why) none. `false`: the map is
/// full; what came before the record that found no place is noted.
pub fn note_keys(
    map: &mut OffsetMap,
    batch: &[u8],
    from_offset: i64,
    txns: &mut Txns,
) -> Result<bool, records::RecordError> {
    let (header, _) = record_batch::frame(batch)?;
    let last = header.next_offset() - 1;
    // Records that were aborted have no part in it.
    if header.is_control() || header.is_transactional() && txns.is_aborted(header) {
        if let Some(end) = EndMarker::of(batch) {
            txns.is_empty(header, end);
        }
        map.advance(last);
        return Ok(true);
    }
    // A batch that cannot be read to its end stays whole, and none of its
    // records may outrank another.
    let mut keys = Vec::new();
    records::read(batch, &mut |record| {
        if let (Some(key), true) = (record.key, record.meta.offset >= from_offset) {
            keys.push((map.hash(key), record.meta.offset));
        }
        ControlFlow::Continue(())
    })?;
    for (hash, offset) in keys {
        if !map.put(hash, offset) {
            return Ok(false);
        }
    }
    map.advance(last);
    Ok(true)
}

impl Filter<'_> {
    /// `keeps_the_end`: the batch is the last of a segment; it is kept, if need be without records,
    /// so that the segment ends where the next one begins.
    pub fn apply(&self, batch: &[u8], keeps_the_end: bool, txns: &mut Txns) -> io::Result<Kept> {
        let (header, _) = record_batch::frame(batch).map_err(io::Error::other)?;
        let last = header.next_offset() - 1;
        if header.is_control() {
            return self.apply_to_marker(batch, header, keeps_the_end, txns);
        }
        if header.is_transactional() && txns.is_aborted(header) && last <= self.map.latest() {
            return Ok(self.without_records(header, keeps_the_end));
        }
        let (stays, tombstones) = match self.survivors(batch) {
            Ok(found) => found,
            // It cannot be read; consumers are told when they come to it, as before.
            Err(_) => return Ok(Kept::Whole),
        };
        if !stays.contains(&true) {
            return Ok(self.without_records(header, keeps_the_end));
        }
        // Readers must have had the time to see a tombstone from the moment that
        // everything before it is cleaned.
        let begins_horizon = tombstones && header.delete_horizon_ms().is_none() && last <= self.map.latest();
        if stays.iter().all(|stays| *stays) && !begins_horizon {
            return Ok(Kept::Whole);
        }
        let horizon = match begins_horizon {
            true => Some(self.now_ms.saturating_add(self.delete_retention_ms)),
            false => header.delete_horizon_ms(),
        };
        rewrite(batch, header, &stays, horizon).map(Kept::Rewritten)
    }

    /// A batch of which no record stays.
    fn without_records(&self, header: &BatchHeader, keeps_the_end: bool) -> Kept {
        let last = header.next_offset() - 1;
        let remembers = header.is_idempotent() && self.producers.get(&header.producer_id.get()) == Some(&last);
        match (keeps_the_end || remembers, header.record_count.get()) {
            (false, _) => Kept::Nothing,
            (true, 0) => Kept::Whole,
            (true, _) => Kept::Rewritten(empty(header)),
        }
    }

    /// A marker stays while there is anything of its transaction, and then as long as a tombstone.
    fn apply_to_marker(
        &self,
        batch: &[u8],
        header: &BatchHeader,
        keeps_the_end: bool,
        txns: &mut Txns,
    ) -> io::Result<Kept> {
        let is_empty = match EndMarker::of(batch) {
            Some(end) => txns.is_empty(header, end),
            // Emptied before; what else is a control batch is none of a transaction.
            None if header.record_count.get() == 0 => return Ok(self.without_records(header, keeps_the_end)),
            None => false,
        };
        if !is_empty || header.next_offset() - 1 > self.map.latest() {
            return Ok(Kept::Whole);
        }
        match header.delete_horizon_ms() {
            Some(horizon) if self.now_ms >= horizon => Ok(self.without_records(header, keeps_the_end)),
            Some(_) => Ok(Kept::Whole),
            None => {
                let horizon = self.now_ms.saturating_add(self.delete_retention_ms);
                rewrite(batch, header, &[true], Some(horizon)).map(Kept::Rewritten)
            }
        }
    }

    /// Which of the batch's records stay, in order, and whether a tombstone is among those.
    fn survivors(&self, batch: &[u8]) -> Result<(Vec<bool>, bool), records::RecordError> {
        let (header, _) = record_batch::frame(batch)?;
        let horizon_passed = header.delete_horizon_ms().is_some_and(|horizon| self.now_ms >= horizon);
        let (mut stays, mut tombstones) = (Vec::new(), false);
        records::read(batch, &mut |record| {
            let stay = self.stays(record, horizon_passed);
            tombstones |= stay && record.value.is_none();
            stays.push(stay);
            ControlFlow::Continue(())
        })?;
        Ok((stays, tombstones))
    }

    fn stays(&self, record: &RecordView<'_>, horizon_passed: bool) -> bool {
        if record.meta.offset > self.map.latest() {
            return true;
        }
        let Some(key) = record.key else { return false };
        let newest = self.map.get(self.map.hash(key)).is_none_or(|newest| record.meta.offset >= newest);
        newest && (record.value.is_some() || !horizon_passed)
    }
}

/// The batch with the records that stay. Offsets, producer and codec are kept,
/// and where the batch ends.
fn rewrite(batch: &[u8], header: &BatchHeader, stays: &[bool], horizon: Option<i64>) -> io::Result<Vec<u8>> {
    let mut stays = stays.iter();
    let mut writer: Option<BatchWriter> = None;
    records::read(batch, &mut |record| {
        if stays.next() == Some(&true) {
            let base_timestamp = horizon.unwrap_or(record.meta.timestamp_ms);
            let writer = writer.get_or_insert_with(|| BatchWriter::new(header.base(), base_timestamp));
            writer.push(record.meta.offset, record.meta.timestamp_ms, record.key, record.value, record.headers);
        }
        ControlFlow::Continue(())
    })
    .map_err(io::Error::other)?;
    let writer = writer.ok_or_else(|| io::Error::other("no record stays of a batch that has some to keep"))?;
    let mut header = *header;
    header.set_delete_horizon(horizon);
    header.base_timestamp.set(writer.base_timestamp_ms());
    header.max_timestamp.set(writer.max_timestamp_ms());
    let rewritten = writer.finish(header)?;
    check_rewritten(&rewritten, header.codec())?;
    Ok(rewritten)
}

/// It is to take the place of the only copy: what a compressor has made is read once before.
fn check_rewritten(batch: &[u8], codec: Option<Codec>) -> io::Result<()> {
    if codec == Some(Codec::None) {
        return Ok(());
    }
    records::walk(batch, &mut |_| ControlFlow::Continue(()))
        .map_err(|error| io::Error::other(format!("a batch compressed anew cannot be read: {error}")))
}

/// The batch without records, which still tells where it ended and what its
/// producer's last sequence was.
fn empty(header: &BatchHeader) -> Vec<u8> {
    let mut empty = *header;
    empty.clear_codec();
    empty.set_delete_horizon(None);
    empty.base_timestamp.set(header.max_timestamp.get());
    empty.batch_length.set((HEADER_BYTES - LENGTH_PREFIX_BYTES) as i32);
    empty.record_count.set(0);
    empty.crc.set(crc32c::crc32c(&empty.as_bytes()[CRC_START..]));
    empty.as_bytes().to_vec()
}
