//! A model of one partition's storage: batches, the four ends, and what each kind of crash leaves.

use std::collections::BTreeMap;

use super::rng::{Rng, fold};
use crate::model::EndMarker;
use crate::partition::{Ends, EpochHistory};

/// One batch. Retries of a produce share its `id`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    pub base: i64,
    pub count: i32,
    pub epoch: i32,
    pub id: u64,
    /// Producer id, producer epoch and first sequence; -1 of a marker.
    pub producer: Option<(i64, i16, i32)>,
    /// It is part of its producer's transaction, or a marker.
    pub in_txn: bool,
    /// It ends its producer's transaction.
    pub marker: Option<EndMarker>,
    /// Digest of this batch and of all before it.
    pub chain: u64,
}

impl Batch {
    pub fn next(&self) -> i64 {
        self.base + i64::from(self.count)
    }

    /// The digest that follows `before`.
    pub fn link(&self, before: u64) -> u64 {
        let place = fold(fold(before, self.base.unsigned_abs()), u64::from(self.epoch.unsigned_abs()));
        let records = fold(fold(place, self.id), u64::from(self.count.unsigned_abs()));
        match self.marker {
            Some(EndMarker { kind, coordinator_epoch }) => {
                fold(fold(records, kind as u64), u64::from(coordinator_epoch.unsigned_abs()))
            }
            None => fold(records, u64::from(self.in_txn)),
        }
    }
}

/// The end at which a log acknowledges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Acknowledge {
    Held,
    Written,
    Synced,
}

/// The end of a process or of its host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Crash {
    /// The process: what is held stays.
    Kill,
    /// The host: what is synced stays, and of what is written nobody knows how much.
    Power,
    /// The data directory is lost.
    Wipe,
}

#[derive(Clone, Debug)]
pub struct Disk {
    pub batches: Vec<Batch>,
    pub ends: Ends,
    acknowledge: Acknowledge,
    /// High watermark as it was noted last.
    pub checkpoint: i64,
    /// Every write fails from now on.
    pub failed: bool,
    /// Digest of all before the first batch.
    origin: u64,
    /// Batches that were deleted, by producer: a checkpoint keeps what is known of producers
    /// and of their transactions.
    deleted: BTreeMap<i64, Vec<Batch>>,
}

impl Disk {
    pub fn new(acknowledge: Acknowledge) -> Disk {
        Disk {
            batches: Vec::new(),
            ends: Ends::synced(0, 0),
            acknowledge,
            checkpoint: 0,
            failed: false,
            origin: 0,
            deleted: BTreeMap::new(),
        }
    }

    /// Sets the end at which the log acknowledges, between two processes.
    pub fn configure(&mut self, acknowledge: Acknowledge) {
        self.acknowledge = acknowledge;
    }

    /// Digest of everything in the log.
    pub fn chain(&self) -> u64 {
        self.batches.last().map_or(self.origin, |batch| batch.chain)
    }

    /// Digest of everything before `offset`, which is the end of a batch.
    pub fn chain_before(&self, offset: i64) -> u64 {
        let after = self.batches.partition_point(|batch| batch.next() <= offset);
        after.checked_sub(1).map_or(self.origin, |at| self.batches[at].chain)
    }

    /// The batch goes behind the last one; its digest is set here.
    pub fn append(&mut self, mut batch: Batch) -> Batch {
        batch.chain = batch.link(self.chain());
        self.batches.push(batch);
        self.ends.appended = batch.next();
        if self.acknowledge != Acknowledge::Held {
            // A group leaves for the disk at once.
            self.ends.sent = self.ends.appended;
        }
        batch
    }

    /// Batches from `offset` up to `end`, a few at a time.
    pub fn read(&self, offset: i64, end: i64, most: usize) -> Vec<Batch> {
        let from = self.batches.partition_point(|batch| batch.next() <= offset);
        self.batches[from..].iter().take_while(|batch| batch.next() <= end).take(most).copied().collect()
    }

    pub fn is_settled(&self) -> bool {
        self.failed || self.ends.synced == self.ends.appended
    }

    /// Some of what is under way gets further.
    pub fn progress(&mut self, rng: &mut Rng) {
        if self.failed {
            return;
        }
        let mut ends = self.ends;
        let held = self.acknowledge == Acknowledge::Held;
        if held && rng.chance(80) {
            // A chunk was found: all that waits is copied.
            ends.sent = ends.appended;
            ends.held = ends.appended;
        }
        if rng.chance(if held { 25 } else { 70 }) {
            ends.written = if held { self.ends.held } else { self.part(ends.written, ends.sent, rng) };
        }
        if !held {
            ends.held = ends.written;
        }
        if rng.chance(if self.acknowledge == Acknowledge::Synced { 60 } else { 10 }) {
            ends.synced = self.part(ends.synced, ends.written, rng);
        }
        ends.acknowledged = match self.acknowledge {
            Acknowledge::Held => ends.held,
            Acknowledge::Written => ends.written,
            Acknowledge::Synced => ends.synced,
        };
        self.ends = ends;
    }

    /// The end of a batch behind `from`, up to `to`.
    fn part(&self, from: i64, to: i64, rng: &mut Rng) -> i64 {
        if rng.chance(50) {
            return to;
        }
        let first = self.batches.partition_point(|batch| batch.next() <= from);
        let last = self.batches.partition_point(|batch| batch.next() <= to);
        let steps = rng.below((last - first) as u64 + 1);
        match usize::try_from(steps) {
            Ok(steps) if steps > 0 => self.batches[first + steps - 1].next(),
            _ => from,
        }
    }

    /// Nothing stands at or after `end` any more.
    pub fn cut(&mut self, end: i64) -> i64 {
        let kept = self.batches.partition_point(|batch| batch.next() <= end);
        self.batches.truncate(kept);
        let end = self.batches.last().map_or(self.ends.start, Batch::next);
        let Ends { start, appended, sent, held, written, synced, acknowledged } = self.ends;
        self.ends = Ends {
            start,
            appended: appended.min(end),
            sent: sent.min(end),
            held: held.min(end),
            written: written.min(end),
            synced: synced.min(end),
            acknowledged: acknowledged.min(end),
        };
        self.checkpoint = self.checkpoint.min(end);
        end
    }

    /// Batches that end at or before `start` are deleted.
    pub fn trim(&mut self, start: i64) {
        let gone = self.batches.partition_point(|batch| batch.next() <= start);
        for batch in self.batches.drain(..gone) {
            self.origin = batch.chain;
            self.ends.start = batch.next();
            if let Some((id, ..)) = batch.producer {
                let known = self.deleted.entry(id).or_default();
                if !batch.in_txn {
                    // Only the last one counts.
                    known.clear();
                }
                known.push(batch);
            }
        }
    }

    /// Empties the log; it begins at `begin`. `origin`: digest of what came before, as the leader
    /// has it.
    pub fn reset(&mut self, begin: i64, origin: u64) {
        self.batches.clear();
        self.deleted.clear();
        self.ends = Ends::synced(begin, begin);
        self.checkpoint = begin;
        self.origin = origin;
    }

    /// The log as a start finds it; returns the offset that it ends at.
    pub fn crash(&mut self, crash: Crash, rng: &mut Rng) -> i64 {
        match crash {
            Crash::Kill => {
                self.cut(self.ends.held);
            }
            Crash::Power => {
                let end = self.part(self.ends.synced, self.ends.written, rng);
                self.cut(end);
            }
            Crash::Wipe => *self = Disk::new(self.acknowledge),
        }
        self.ends = Ends::synced(self.ends.start, self.ends.appended);
        self.failed = false;
        self.ends.appended
    }

    /// Batches that say what is known of producers, in order.
    pub fn of_producers(&self) -> impl Iterator<Item = &Batch> {
        self.deleted.values().flatten().chain(&self.batches)
    }

    /// Leader epochs, from the batches.
    pub fn epochs(&self) -> EpochHistory {
        let mut history = EpochHistory::default();
        for batch in &self.batches {
            history.begin(batch.epoch, batch.base);
        }
        history
    }
}
