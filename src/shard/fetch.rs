//! Fetch: reads from every owner, and a wait for any of the partitions to move. Nobody polls.

use std::rc::Rc;
use std::time::Duration;

use super::api::{FetchOutcome, FetchPart, FetchPlan};
use super::state::{Groups, Shard};
use crate::model::{ErrorCode, PartitionId, ShardId};
use crate::partition::DataWaiter;
use crate::runtime::{Breather, clock};

impl Shard {
    /// Reads, waiting up to `max_wait_ms` for `min_bytes`; outcomes in the order of `parts`. An error in any part, or a
    /// partition on its way out, ends the wait.
    pub async fn fetch(self: &Rc<Self>, plan: FetchPlan) -> Vec<FetchOutcome> {
        let deadline = clock::now() + Duration::from_millis(u64::from(plan.max_wait_ms));
        let mut breather = Breather::default();
        loop {
            let outcomes = self.read_everywhere(&plan).await;
            if is_enough(&outcomes, plan.min_bytes) || self.stop.is_set() || clock::now() >= deadline {
                return outcomes;
            }
            let seen = outcomes.iter().map(|o| o.high_watermark);
            let watched = plan.parts.iter().map(|p| p.partition).zip(seen).collect();
            drop(outcomes);
            let wait = self.watch(watched);
            clock::until(deadline, wait.waiter.fired()).await;
            breather.pass().await;
        }
    }

    async fn read_everywhere(self: &Rc<Self>, plan: &FetchPlan) -> Vec<FetchOutcome> {
        if plan.parts.iter().all(|p| self.owner(p.partition) == self.id) {
            return self.read_here(&plan.parts, plan.max_bytes as usize).await;
        }
        // Each owner gets its share of the response, by its share of the partitions.
        let total = plan.parts.len().max(1);
        let max_bytes = plan.max_bytes as usize;
        let outcomes = self
            .scatter(
                plan.parts.clone(),
                |p| p.partition,
                move |shard, parts| async move {
                    let share = max_bytes / total * parts.len() + max_bytes % total;
                    shard.read_here(&parts, share).await
                },
            )
            .await;
        outcomes.into_iter().map(|o| o.unwrap_or_else(|| failed(ErrorCode::NotLeaderOrFollower))).collect()
    }

    /// Reads partitions of this shard, in order, until `max_bytes` are full. The first batch found comes even if it alone
    /// is larger (KIP-74).
    async fn read_here(self: &Rc<Self>, parts: &[FetchPart], max_bytes: usize) -> Vec<FetchOutcome> {
        let mut outcomes = Vec::with_capacity(parts.len());
        let mut left = max_bytes;
        let mut nothing_yet = true;
        for part in parts {
            let outcome = self.read_one(part, left, nothing_yet).await;
            let bytes = outcome.bytes();
            nothing_yet &= bytes == 0;
            left = left.saturating_sub(bytes);
            outcomes.push(outcome);
        }
        outcomes
    }

    async fn read_one(self: &Rc<Self>, part: &FetchPart, left: usize, at_least_one: bool) -> FetchOutcome {
        let Some(replica) = self.replica(part.partition) else {
            return failed(ErrorCode::UnknownTopicOrPartition);
        };
        if let Err(code) = replica.check_epoch(part.current_leader_epoch) {
            return failed(code);
        }
        // Taken before the read: a later wait then starts from what the read could see.
        let (high_watermark, log_start_offset) = (replica.high_watermark(), replica.start_offset());
        let max_bytes = (part.max_bytes as usize).min(left);
        let read = match max_bytes == 0 && !at_least_one {
            true => replica.look(part.offset),
            false => replica.read(part.offset, max_bytes, at_least_one).await,
        };
        match read {
            Ok(read) => FetchOutcome {
                error: ErrorCode::None,
                high_watermark,
                last_stable_offset: high_watermark,
                log_start_offset,
                records: read.records,
                more: read.more,
            },
            Err(code) => failed(code),
        }
    }

    /// Watches partitions, wherever they live, from what was seen of them.
    fn watch(self: &Rc<Self>, parts: Vec<(PartitionId, i64)>) -> Watch {
        let waiter = DataWaiter::new(None);
        let groups = Groups::split(parts, |p| self.owner(p.0));
        let mut watch = Watch { shard: self.clone(), number: None, waiter: waiter.clone(), elsewhere: Vec::new() };
        for group in groups.by_owner {
            if group.owner == self.id {
                self.expect_data(&group.parts, &waiter);
                continue;
            }
            let number = *watch.number.get_or_insert_with(|| self.next_wait.replace(self.next_wait.get() + 1));
            self.own_waits.borrow_mut().insert(number, Rc::downgrade(&waiter));
            let (origin, parts) = (self.id, group.parts);
            self.mesh.tell(group.owner, move |shard| shard.watch_for(origin, number, parts));
            watch.elsewhere.push(group.owner);
        }
        watch
    }

    fn expect_data(&self, parts: &[(PartitionId, i64)], waiter: &Rc<DataWaiter>) {
        for (partition, seen) in parts {
            match self.replica(*partition) {
                Some(replica) => replica.expect_data(*seen, waiter),
                None => waiter.fire(),
            }
        }
    }

    /// Watches partitions of this shard for a fetch on `origin`, and sends word when one moves.
    fn watch_for(self: &Rc<Self>, origin: ShardId, number: u64, parts: Vec<(PartitionId, i64)>) {
        let shard = Rc::downgrade(self);
        let word = move || {
            if let Some(shard) = shard.upgrade() {
                shard.foreign_waits.borrow_mut().remove(&(origin, number));
                shard.mesh.tell(origin, move |home| home.wake_fetch(number));
            }
        };
        let waiter = DataWaiter::new(Some(Box::new(word)));
        self.foreign_waits.borrow_mut().insert((origin, number), waiter.clone());
        self.expect_data(&parts, &waiter);
    }

    fn wake_fetch(&self, number: u64) {
        if let Some(waiter) = self.own_waits.borrow_mut().remove(&number).and_then(|w| w.upgrade()) {
            waiter.fire();
        }
    }
}

/// A watch under way; ends everywhere when dropped.
struct Watch {
    shard: Rc<Shard>,
    number: Option<u64>,
    waiter: Rc<DataWaiter>,
    elsewhere: Vec<ShardId>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let Some(number) = self.number else { return };
        self.shard.own_waits.borrow_mut().remove(&number);
        let origin = self.shard.id;
        for owner in self.elsewhere.drain(..) {
            self.shard.mesh.tell(owner, move |shard| {
                shard.foreign_waits.borrow_mut().remove(&(origin, number));
            });
        }
    }
}

/// Whether there is no reason to wait: enough bytes, an error to tell, or more at hand than the limits let through.
fn is_enough(outcomes: &[FetchOutcome], min_bytes: u32) -> bool {
    let bytes: usize = outcomes.iter().map(FetchOutcome::bytes).sum();
    bytes >= min_bytes as usize || outcomes.iter().any(|o| o.error != ErrorCode::None || o.more)
}

fn failed(error: ErrorCode) -> FetchOutcome {
    let records = Vec::new();
    FetchOutcome { error, high_watermark: -1, last_stable_offset: -1, log_start_offset: -1, records, more: false }
}
