//! What a shard knows of the ends of other shards' partitions, so that consumers who wait there cost no calls.
//!
//! An owner that answers a read from another shard with "nothing new" promises that shard word of the next movement, once.
//! Until the word comes, the asking shard answers further reads at that end by itself and lets them wait here. Answers and
//! words take the same way between two shards and arrive in order; a word that overtakes its answer's reader marks the
//! [`FarEnd`] that was taken before the question, so the reader sees it.

use std::cell::Cell;
use std::rc::Rc;

use super::api::{FetchOutcome, FetchPart};
use super::state::Shard;
use crate::model::{PartitionId, ShardId};
use crate::partition::{DataWaiter, DataWaiters};

/// The end of another shard's partition.
#[derive(Default)]
pub(super) struct FarEnd {
    known: Cell<Option<Known>>,
    /// The promised word has come: what is known is no longer so.
    moved: Cell<bool>,
    waiters: DataWaiters,
}

#[derive(Clone, Copy)]
struct Known {
    high_watermark: i64,
    log_start_offset: i64,
    leader_epoch: Option<i32>,
}

impl FarEnd {
    /// The outcome of reading `part`, if it is known that there is nothing new.
    pub fn answer(&self, part: &FetchPart) -> Option<FetchOutcome> {
        let known = self.known.get()?;
        let same_epoch = part.current_leader_epoch.map(|e| e.0) == known.leader_epoch;
        (part.offset == known.high_watermark && same_epoch)
            .then(|| FetchOutcome::quiet(known.high_watermark, known.log_start_offset))
    }

    /// Takes note of the owner's answer to a question that was asked after this end was taken.
    pub fn note(&self, part: &FetchPart, outcome: &FetchOutcome) {
        if is_quiet(outcome) && !self.moved.get() {
            self.known.set(Some(Known {
                high_watermark: outcome.high_watermark,
                log_start_offset: outcome.log_start_offset,
                leader_epoch: part.current_leader_epoch.map(|e| e.0),
            }));
        }
    }
}

impl Shard {
    /// The end of a partition, if it is another shard's. Taken before its owner is asked: a word that comes from then on
    /// shows in it.
    pub(super) fn far_end(&self, partition: PartitionId) -> Option<Rc<FarEnd>> {
        let elsewhere = self.owner(partition) != self.id;
        elsewhere.then(|| self.far_ends.borrow_mut().entry(partition).or_default().clone())
    }

    /// Fires `waiter` when the promised word comes; at once where none is promised.
    pub(super) fn expect_far_data(&self, partition: PartitionId, waiter: &Rc<DataWaiter>) {
        match self.far_ends.borrow().get(&partition) {
            Some(end) if end.known.get().is_some() => end.waiters.add(waiter),
            _ => waiter.fire(),
        }
    }

    /// On the owner: sends `origin` word, once, when one of the partitions that had nothing new moves. One that has moved
    /// since it was read (others were read meanwhile) has more now.
    pub(super) fn promise_word(self: &Rc<Self>, origin: ShardId, parts: &[FetchPart], outcomes: &mut [FetchOutcome]) {
        let quiet = |(part, outcome): &(&FetchPart, &mut FetchOutcome)| part.is_consumers() && is_quiet(outcome);
        for (part, outcome) in parts.iter().zip(outcomes).filter(quiet) {
            let (partition, key) = (part.partition, (origin, part.partition));
            let Some(replica) = self.replica(partition) else { continue };
            outcome.more = replica.high_watermark() != outcome.high_watermark;
            if outcome.more {
                continue;
            }
            if self.promises.borrow().contains_key(&key) {
                continue;
            }
            let shard = Rc::downgrade(self);
            let word = move || {
                if let Some(shard) = shard.upgrade() {
                    shard.promises.borrow_mut().remove(&key);
                    shard.mesh.tell(origin, move |home| home.far_end_moved(partition));
                }
            };
            let waiter = DataWaiter::new(Some(Box::new(word)));
            self.promises.borrow_mut().insert(key, waiter.clone());
            replica.expect_data(outcome.high_watermark, &waiter);
        }
    }

    fn far_end_moved(&self, partition: PartitionId) {
        let end = self.far_ends.borrow_mut().remove(&partition);
        if let Some(end) = end {
            end.moved.set(true);
            end.waiters.fire();
        }
    }
}

fn is_quiet(outcome: &FetchOutcome) -> bool {
    outcome.records.is_empty() && !outcome.has_news()
}
