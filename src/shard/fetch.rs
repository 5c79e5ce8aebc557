//! Fetch: reads from every owner, and a wait for any of the partitions to move. Nobody polls.

use std::rc::Rc;
use std::time::Duration;

use super::api::{FetchOutcome, FetchPart, FetchPlan};
use super::far_ends::FarEnd;
use super::state::Shard;
use crate::model::ErrorCode;
use crate::partition::DataWaiter;
use crate::runtime::{Breather, clock};

/// A wait that finds nothing ends up to this part of its length later, so that many of them end together. Kafka's own
/// waits end some milliseconds late.
const WAIT_GRID: u32 = 50;
const MAX_WAIT_GRID_MS: u32 = 10;

impl Shard {
    /// Reads, waiting up to `max_wait_ms` for `min_bytes`; outcomes in the order of `parts`. An error in any part, or a
    /// partition on its way out, ends the wait.
    pub async fn fetch(self: &Rc<Self>, plan: FetchPlan) -> Vec<FetchOutcome> {
        let deadline = clock::now() + Duration::from_millis(u64::from(plan.max_wait_ms));
        let grid_ms = (plan.max_wait_ms / WAIT_GRID).min(MAX_WAIT_GRID_MS);
        let wait_until = clock::round_up(deadline, Duration::from_millis(u64::from(grid_ms.max(1))));
        let mut breather = Breather;
        loop {
            let outcomes = self.read_everywhere(&plan).await;
            if is_enough(&outcomes, plan.min_bytes) || self.stop.is_set() || clock::now() >= deadline {
                return outcomes;
            }
            let waiter = self.watch(&plan.parts, &outcomes);
            // Nothing is held on to while waiting; without anything read there is nothing to let go of.
            let quiet = outcomes.iter().all(|o| o.records.is_empty()).then_some(outcomes);
            match (clock::until(wait_until, waiter.fired()).await, quiet) {
                (None, Some(outcomes)) => return outcomes,
                _ => breather.pass().await,
            }
        }
    }

    async fn read_everywhere(self: &Rc<Self>, plan: &FetchPlan) -> Vec<FetchOutcome> {
        let max_bytes = plan.max_bytes as usize;
        if plan.parts.iter().all(|p| self.owner(p.partition) == self.id) {
            return self.read_here(&plan.parts, max_bytes).await;
        }
        // What is known to have nothing new needs no call.
        let ends: Vec<Option<Rc<FarEnd>>> = plan.parts.iter().map(|p| self.far_end(p.partition)).collect();
        let known = plan.parts.iter().zip(&ends).map(|(part, end)| end.as_ref()?.answer(part));
        let mut outcomes: Vec<Option<FetchOutcome>> = known.collect();
        let asked: Vec<usize> = (0..outcomes.len()).filter(|i| outcomes[*i].is_none()).collect();
        // Each owner gets its share of the response, by its share of the partitions.
        let (total, origin) = (asked.len().max(1), self.id);
        let answers = self
            .scatter(
                asked.iter().map(|i| plan.parts[*i].clone()).collect(),
                |p| p.partition,
                move |shard, parts| async move {
                    let share = max_bytes / total * parts.len() + max_bytes % total;
                    let mut outcomes = shard.read_here(&parts, share).await;
                    if origin != shard.id {
                        shard.promise_word(origin, &parts, &mut outcomes);
                    }
                    outcomes
                },
            )
            .await;
        for (i, answer) in asked.into_iter().zip(answers) {
            let answer = answer.unwrap_or_else(|| failed(ErrorCode::NotLeaderOrFollower));
            if let Some(end) = &ends[i] {
                end.note(&plan.parts[i], &answer);
            }
            outcomes[i] = Some(answer);
        }
        outcomes.into_iter().map(|o| o.unwrap_or_else(|| failed(ErrorCode::UnknownServerError))).collect()
    }

    /// A waiter that fires when any of the partitions moves on from what `outcomes` saw of it.
    fn watch(&self, parts: &[FetchPart], outcomes: &[FetchOutcome]) -> Rc<DataWaiter> {
        let waiter = DataWaiter::new(None);
        for (part, outcome) in parts.iter().zip(outcomes) {
            if self.owner(part.partition) != self.id {
                self.expect_far_data(part.partition, &waiter);
                continue;
            }
            match self.replica(part.partition) {
                Some(replica) => replica.expect_data(outcome.high_watermark, &waiter),
                None => waiter.fire(),
            }
        }
        waiter
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
        let replica = match self.online(part.partition) {
            Ok(replica) => replica,
            Err(code) => return failed(code),
        };
        if let Err(code) = replica.check_epoch(part.current_leader_epoch) {
            return failed(code);
        }
        // Taken before the read: a later wait then starts from what the read could see.
        let (high_watermark, log_start_offset) = (replica.high_watermark(), replica.start_offset());
        let max_bytes = (part.max_bytes as usize).min(left);
        // While slow readers hold all the memory for responses, one partition a response has to do.
        let only_look = !at_least_one && (max_bytes == 0 || self.storage.fetch_memory_full());
        // Most fetches of idle consumers: nothing to look for.
        let at_the_end = part.offset == high_watermark && replica.failure().is_none_or(|failure| failure.is_full());
        let read = match only_look || at_the_end {
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
