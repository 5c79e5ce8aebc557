//! Records of a partition as they came.

use std::collections::HashSet;
use std::ops::ControlFlow;

use bytes::Bytes;

use crate::model::record_batch::{self, BatchHeader};
use crate::model::records::{self, RecordView};

/// Whole batches of one partition that follow each other.
#[derive(Clone, Debug)]
pub struct Chunk {
    pub partition: i32,
    /// Records before this offset were not asked for.
    pub from: i64,
    /// Records from here on were not asked for either.
    pub end: Option<i64>,
    /// The offset after the last batch.
    pub next: i64,
    pub records: Bytes,
    /// Aborted transactions that have records here: producer id and first offset.
    pub aborted: Vec<(i64, i64)>,
}

/// A record with what its batch says of it.
pub type RecordOf<'a, 'b> = (&'a RecordView<'b>, &'a BatchHeader);

impl Chunk {
    /// Shows every record that was asked for, without those of aborted transactions, until it
    /// breaks. The error: what is wrong with a batch, and where.
    pub fn each(&self, visit: &mut dyn FnMut(RecordOf<'_, '_>) -> ControlFlow<()>) -> Result<(), String> {
        let mut aborted = self.aborted.clone();
        aborted.sort_by_key(|(_, first)| *first);
        let mut aborted = aborted.into_iter().peekable();
        // Producers whose open transaction will be aborted.
        let mut aborting: HashSet<i64> = HashSet::new();
        let mut rest = &self.records[..];
        let mut ended = false;
        while !rest.is_empty() && !ended {
            let bad = |error: &dyn std::fmt::Display| format!("the batch at offset {}: {error}", base(rest));
            let (_, total) = record_batch::frame(rest).map_err(|e| bad(&e))?;
            let batch = &rest[..total];
            let header = record_batch::check(batch).map_err(|e| bad(&e))?;
            while let Some((producer, _)) = aborted.next_if(|(_, first)| *first < header.next_offset()) {
                aborting.insert(producer);
            }
            let producer = header.producer_id.get();
            if header.is_control() {
                if is_abort(batch) {
                    aborting.remove(&producer);
                }
            } else if !(header.is_transactional() && aborting.contains(&producer)) {
                let wanted = |offset: i64| offset >= self.from && self.end.is_none_or(|end| offset < end);
                let shown = records::read(batch, &mut |record| {
                    if wanted(record.meta.offset) && visit((record, header)).is_break() {
                        ended = true;
                        return ControlFlow::Break(());
                    }
                    ControlFlow::Continue(())
                });
                shown.map_err(|e| bad(&e))?;
            }
            rest = &rest[total..];
        }
        Ok(())
    }
}

fn base(bytes: &[u8]) -> i64 {
    BatchHeader::peek(bytes).map_or(-1, BatchHeader::base)
}

/// True if the marker ends a transaction by aborting it: its key is a version
/// and a type, 0 for abort.
fn is_abort(batch: &[u8]) -> bool {
    let mut abort = false;
    let outcome = records::read(batch, &mut |record| {
        abort = record.key.is_some_and(|key| key.get(2..4) == Some(&[0, 0]));
        ControlFlow::Break(())
    });
    outcome.is_ok() && abort
}

#[cfg(test)]
mod tests {
    use zerocopy::FromZeros;

    use super::*;
    use crate::model::records::BatchWriter;

    const TRANSACTIONAL: i16 = 0x10;
    const CONTROL: i16 = 0x20;

    fn batch(base: i64, producer: i64, attributes: i16, key: &[u8], values: &[&str]) -> Vec<u8> {
        let mut writer = BatchWriter::new(base, 0);
        for (offset, value) in (base..).zip(values) {
            writer.push(offset, 0, Some(key), Some(value.as_bytes()), &[0]);
        }
        let mut header = BatchHeader::new_zeroed();
        header.magic = 2;
        header.attributes.set(attributes);
        header.last_offset_delta.set(values.len() as i32 - 1);
        header.producer_id.set(producer);
        writer.finish(header).unwrap()
    }

    fn marker(base: i64, producer: i64, kind: u8) -> Vec<u8> {
        batch(base, producer, TRANSACTIONAL | CONTROL, &[0, 0, 0, kind], &["marker"])
    }

    fn shown(chunk: &Chunk) -> Vec<String> {
        let mut values = Vec::new();
        let all = chunk.each(&mut |(record, _)| {
            values.push(String::from_utf8(record.value.unwrap().to_vec()).unwrap());
            ControlFlow::Continue(())
        });
        all.unwrap();
        values
    }

    #[test]
    fn records_of_aborted_transactions_and_markers_are_left_out() {
        let batches = [
            batch(0, 1, TRANSACTIONAL, b"", &["aborted", "aborted"]),
            batch(2, 2, TRANSACTIONAL, b"", &["other"]),
            batch(3, -1, 0, b"", &["plain"]),
            marker(4, 1, 0),
            batch(5, 1, TRANSACTIONAL, b"", &["committed"]),
            marker(6, 1, 1),
            marker(7, 2, 1),
            batch(8, 2, TRANSACTIONAL, b"", &["aborted later"]),
        ];
        let records = Bytes::from(batches.concat());
        let mut chunk = Chunk { partition: 0, from: 0, end: None, next: 9, records, aborted: vec![(2, 8), (1, 0)] };
        assert_eq!(shown(&chunk), ["other", "plain", "committed"]);
        chunk.aborted.clear();
        assert_eq!(shown(&chunk).len(), 6);
        (chunk.from, chunk.end) = (1, Some(3));
        assert_eq!(shown(&chunk), ["aborted", "other"]);
    }

    #[test]
    fn damage_is_named_by_its_offset() {
        let mut bytes = [batch(0, -1, 0, b"", &["a"]), batch(1, -1, 0, b"", &["b"])].concat();
        *bytes.last_mut().unwrap() ^= 1;
        let chunk = Chunk { partition: 0, from: 0, end: None, next: 2, records: bytes.into(), aborted: Vec::new() };
        let mut count = 0;
        let outcome = chunk.each(&mut |_| {
            count += 1;
            ControlFlow::Continue(())
        });
        assert_eq!(count, 1);
        assert!(outcome.unwrap_err().starts_with("the batch at offset 1: the batch's CRC"));
    }
}
