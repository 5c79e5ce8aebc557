//! Committed offsets as the observer sees them: an acknowledged one is never lost nor goes back,
//! and none is shown that a clean election can take back.

use std::collections::BTreeMap;

use super::checker::Checker;
use super::disk::Batch;
use super::place::OFFSETS;
use crate::groups::record::Record;

/// Group and partition number.
pub type Key = (String, i32);

/// One commit of a consumer, as a coordinator wrote it. Its metadata is a number that no other
/// commit has.
#[derive(Clone, Copy, Debug)]
struct Written {
    /// Of the batch.
    id: u64,
    base: i64,
    epoch: i32,
    /// Transaction (producer id and epoch) in which it was committed.
    of: Option<(i64, i16)>,
}

#[derive(Debug, Default)]
pub struct Offsets {
    /// By number.
    written: BTreeMap<u64, Written>,
    /// By batch.
    batches: BTreeMap<u64, (Written, Vec<(Key, i64)>)>,
    /// By key, in the order of the acknowledgements.
    acked: BTreeMap<Key, Vec<Written>>,
}

impl Checker {
    /// A coordinator appends these.
    pub fn offsets_written(&mut self, batch: &Batch, records: &[Record]) {
        let of = batch.producer.map(|(id, epoch, _)| (id, epoch));
        let written = Written { id: batch.id, base: batch.base, epoch: batch.epoch, of };
        for record in records {
            if let Record::Offset { group, partition, value: Some(value), .. } = record
                && let Ok(number) = value.metadata.parse()
            {
                self.offsets.written.insert(number, written);
                let (_, offsets) = self.offsets.batches.entry(batch.id).or_insert((written, Vec::new()));
                offsets.push(((group.to_string(), *partition), value.offset));
            }
        }
    }

    /// The commit that a batch has is acknowledged.
    pub fn offsets_acked(&mut self, id: u64) {
        let batch = self.offsets.batches.get(&id).cloned();
        // Offsets committed in a transaction count when that has ended.
        if let Some((written, offsets)) = batch.filter(|(written, _)| written.of.is_none()) {
            self.offsets_count(written, &offsets);
        }
    }

    fn offsets_count(&mut self, written: Written, offsets: &[(Key, i64)]) {
        for (key, _) in offsets {
            self.offsets.acked.entry(key.clone()).or_default().push(written);
        }
    }

    /// A transaction is committed, and its marker in the log of `__consumer_offsets`
    /// of the leader of `epoch`.
    pub(super) fn offsets_end(&mut self, of: (i64, i16), epoch: i32) {
        let of_it = |(written, _): &&(Written, Vec<(Key, i64)>)| written.of == Some(of);
        let ended: Vec<_> = self.offsets.batches.values().filter(of_it).cloned().collect();
        for (written, offsets) in ended {
            if self.is_canonical(OFFSETS, written.base, written.id) {
                self.offsets_count(Written { epoch, ..written }, &offsets);
            }
        }
    }

    /// Acknowledgements of a key so far: what a read that begins now may not miss.
    pub fn offsets_acknowledged(&self, key: &Key) -> usize {
        self.offsets.acked.get(key).map_or(0, Vec::len)
    }

    /// A coordinator of `epoch` answers with an offset and its commit's number.
    pub fn offset_shown(&mut self, epoch: i32, metadata: &str, offset: i64) {
        let written = metadata.parse().ok().and_then(|number: u64| self.offsets.written.get(&number).copied());
        let is_there = written.is_some_and(|written| self.is_canonical(OFFSETS, written.base, written.id));
        if !is_there && !self.has_lost(OFFSETS) {
            let what = format!("epoch {epoch}: offset {offset} of commit {metadata}, {written:?}");
            self.broken("an offset is shown that is not committed", what);
        }
        let of = written.and_then(|written| written.of);
        if of.is_some_and(|of| !self.may_be_committed(of)) && !self.has_lost(OFFSETS) {
            let what = format!("epoch {epoch}: offset {offset} of commit {metadata}, {written:?}");
            self.broken("an offset is shown whose transaction is not committed", what);
        }
    }

    /// A consumer is told `offset` of the commit that `metadata` names; -1: there is none. `epoch`:
    /// of the coordinator. `acknowledged`: as it was when the consumer asked.
    pub fn offset_read(&mut self, key: &Key, epoch: i32, acknowledged: usize, metadata: &str, offset: i64) {
        if self.has_lost(OFFSETS) {
            return;
        }
        // A coordinator that is deposed without knowing it cannot know what a later one has
        // acknowledged.
        let known = self.offsets.acked.get(key).into_iter().flatten().take(acknowledged);
        let newest = known.filter(|written| written.epoch <= epoch).map(|written| written.base).max();
        let written = metadata.parse().ok().and_then(|number: u64| self.offsets.written.get(&number).copied());
        let read = written.filter(|_| offset >= 0).map(|written| written.base);
        if read < newest {
            let what =
                format!("{key:?} epoch {epoch}: offset {offset} written at {read:?}, acknowledged at {newest:?}");
            return self.broken("a committed offset is lost or goes back", what);
        }
        let is_same = |written: Written| {
            let batch = self.offsets.batches.get(&written.id);
            batch.is_some_and(|(_, offsets)| offsets.iter().any(|(of, committed)| of == key && *committed == offset))
        };
        if offset >= 0 && !written.is_some_and(is_same) {
            self.broken(
                "an offset is read that nobody committed",
                format!("{key:?} epoch {epoch}: {offset}, {metadata}"),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::groups::record::OffsetValue;
    use crate::simulator::disk::{Acknowledge, Disk};

    /// A coordinator's log that takes one commit a batch, numbered from 1 on.
    struct Log {
        checker: Checker,
        disk: Disk,
    }

    impl Log {
        fn new() -> Log {
            Log { checker: Checker::new(1), disk: Disk::new(Acknowledge::Held) }
        }

        fn write(&mut self, number: u64, epoch: i32, offset: i64) {
            let base = self.disk.ends.appended;
            let batch =
                self.disk.append(Batch { base, count: 1, epoch, id: number, producer: None, ..Batch::default() });
            let metadata = number.to_string().into();
            let value = OffsetValue {
                offset,
                leader_epoch: -1,
                metadata,
                commit_ms: 0,
                expire_ms: None,
                topic_id: Default::default(),
            };
            let record = Record::Offset { group: "g".into(), topic: "t".into(), partition: 0, value: Some(value) };
            self.checker.offsets_written(&batch, &[record]);
        }

        fn commit(&mut self, epoch: i32) {
            self.checker.committed(OFFSETS, 0, epoch, &self.disk, self.disk.ends.appended);
        }

        fn read(&mut self, epoch: i32, acknowledged: usize, number: &str, offset: i64) -> bool {
            self.checker.offset_read(&("g".to_owned(), 0), epoch, acknowledged, number, offset);
            self.checker.violation().is_none()
        }
    }

    fn acknowledged() -> Log {
        let mut log = Log::new();
        log.write(1, 0, 10);
        log.write(2, 2, 20);
        log.commit(2);
        log.checker.offsets_acked(1);
        log.checker.offsets_acked(2);
        assert_eq!(log.checker.offsets_acknowledged(&("g".to_owned(), 0)), 2);
        log
    }

    #[test]
    fn a_read_sees_what_was_acknowledged_before_it() {
        assert!(acknowledged().read(2, 2, "2", 20));
        assert!(!acknowledged().read(2, 2, "1", 10), "it goes back");
        assert!(!acknowledged().read(2, 2, "", -1), "it is lost");
        assert!(acknowledged().read(2, 1, "1", 10), "the second one was acknowledged meanwhile");
        assert!(acknowledged().read(2, 0, "", -1), "so were both");
        assert!(acknowledged().read(1, 2, "1", 10), "a coordinator of an older epoch knows of none in newer ones");
        assert!(!acknowledged().read(1, 2, "", -1), "but of those in its own and before");
        assert!(!acknowledged().read(2, 2, "2", 21), "nobody committed that");
    }

    #[test]
    fn nothing_is_shown_before_it_is_committed() {
        let mut log = acknowledged();
        log.write(3, 2, 30);
        log.checker.offset_shown(2, "2", 20);
        assert_eq!(log.checker.violation(), None);
        log.checker.offset_shown(2, "3", 30);
        assert!(log.checker.violation().is_some());
        let mut log = acknowledged();
        log.write(3, 2, 30);
        log.commit(2);
        log.checker.offset_shown(2, "3", 30);
        assert_eq!(log.checker.violation(), None);
    }
}
