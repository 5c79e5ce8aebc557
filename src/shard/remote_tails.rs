//! The tails of other shards' partitions as this shard knows them, so that consumers who
//! wait there cost no calls.
//!
//! An owner that answers a read from another shard with "nothing new" subscribes that shard to the
//! next movement, once. Until the notification comes, the asking shard answers further reads at
//! that tail by itself and lets them wait here. Answers and notifications take the same way between
//! two shards and arrive in order; a notification that overtakes its answer's reader marks the
//! [`RemoteTail`] that was taken before the question, so the reader sees it.

use std::cell::Cell;
use std::rc::Rc;

use super::api::{FetchOutcome, FetchPart, Reader};
use super::state::Shard;
use crate::model::{PartitionId, ShardId};
use crate::partition::{DataWaiter, DataWaiters};

/// The tail of another shard's partition.
#[derive(Default)]
pub(super) struct RemoteTail {
    known: Cell<Option<Known>>,
    /// The notification has come: what is known is no longer so.
    moved: Cell<bool>,
    waiters: DataWaiters,
}

#[derive(Clone, Copy)]
struct Known {
    high_watermark: i64,
    last_stable_offset: i64,
    log_start_offset: i64,
    leader_epoch: Option<i32>,
}

impl RemoteTail {
    /// The outcome of reading `part`, if it is known that there is nothing new.
    pub fn answer(&self, part: &FetchPart) -> Option<FetchOutcome> {
        let known = self.known.get()?;
        let same_epoch = part.current_leader_epoch.map(|e| e.0) == known.leader_epoch;
        let committed = part.reader == Reader::CommittedConsumer;
        let end = if committed { known.last_stable_offset } else { known.high_watermark };
        (part.offset == end && same_epoch).then(|| FetchOutcome {
            last_stable_offset: known.last_stable_offset,
            aborted: committed.then(Vec::new),
            ..FetchOutcome::quiet(known.high_watermark, known.log_start_offset)
        })
    }

    /// Takes note of the owner's answer to a question that was asked after this tail was taken.
    pub fn note(&self, part: &FetchPart, outcome: &FetchOutcome) {
        if is_quiet(outcome) && !self.moved.get() {
            self.known.set(Some(Known {
                high_watermark: outcome.high_watermark,
                last_stable_offset: outcome.last_stable_offset,
                log_start_offset: outcome.log_start_offset,
                leader_epoch: part.current_leader_epoch.map(|e| e.0),
            }));
        }
    }
}

impl Shard {
    /// The tail of a partition, if it is another shard's. Taken before its owner is asked: a
    /// notification that comes from then on shows in it.
    pub(super) fn remote_tail(&self, partition: PartitionId) -> Option<Rc<RemoteTail>> {
        let elsewhere = self.owner(partition) != self.id;
        elsewhere.then(|| self.remote_tails.borrow_mut().entry(partition).or_default().clone())
    }

    /// Fires `waiter` when the notification comes; at once where there is no subscription.
    pub(super) fn expect_remote_data(&self, partition: PartitionId, waiter: &Rc<DataWaiter>) {
        match self.remote_tails.borrow().get(&partition) {
            Some(tail) if tail.known.get().is_some() => tail.waiters.add(waiter),
            _ => waiter.fire(),
        }
    }

    /// On the owner: subscribes `origin` to the next movement of each partition that had nothing
    /// new. One that has moved since it was read (others were read meanwhile) has more now.
    pub(super) fn subscribe_once(self: &Rc<Self>, origin: ShardId, parts: &[FetchPart], outcomes: &mut [FetchOutcome]) {
        let quiet = |(part, outcome): &(&FetchPart, &mut FetchOutcome)| part.is_consumers() && is_quiet(outcome);
        for (part, outcome) in parts.iter().zip(outcomes).filter(quiet) {
            let (partition, key) = (part.partition, (origin, part.partition));
            let Some(replica) = self.replica(partition) else { continue };
            // Whatever moves the last stable offset fires those who wait for data.
            outcome.more = replica.high_watermark() != outcome.high_watermark
                || replica.last_stable_offset() != outcome.last_stable_offset;
            if outcome.more {
                continue;
            }
            if self.subscriptions.borrow().contains_key(&key) {
                continue;
            }
            let shard = Rc::downgrade(self);
            let notify = move || {
                if let Some(shard) = shard.upgrade() {
                    shard.subscriptions.borrow_mut().remove(&key);
                    shard.mesh.tell(origin, move |home| home.remote_tail_moved(partition));
                }
            };
            let waiter = DataWaiter::new(Some(Box::new(notify)));
            self.subscriptions.borrow_mut().insert(key, waiter.clone());
            replica.expect_data(outcome.high_watermark, &waiter);
        }
    }

    fn remote_tail_moved(&self, partition: PartitionId) {
        let tail = self.remote_tails.borrow_mut().remove(&partition);
        if let Some(tail) = tail {
            tail.moved.set(true);
            tail.waiters.fire();
        }
    }
}

fn is_quiet(outcome: &FetchOutcome) -> bool {
    outcome.records.is_empty() && !outcome.has_news()
}
