//! Fetch: reads from every owner, and a wait for any of the partitions to move. Nobody polls.
//!
//! A response holds what the limits let through, in the request's order; only the first batch of
//! the whole response may exceed them (KIP-74). Owners read side by side, each within its part of
//! the limit, and report first batches that did not fit; a second reading fetches those of them
//! that do fit, or come first.

use std::rc::Rc;
use std::time::Duration;

use super::answer_memory::Share;
use super::api::{FetchOutcome, FetchPart, FetchPlan, Reader};
use super::remote_tails::RemoteTail;
use super::state::Shard;
use crate::model::ErrorCode;
use crate::observe::metrics::Cause;
use crate::partition::DataWaiter;
use crate::runtime::clock::{self, Moment};
use crate::runtime::{Yielder, waits};

/// A wait that finds nothing ends up to this part of its length later, so that many of them end
/// together. Kafka's own waits end some milliseconds late.
const WAIT_GRID: u32 = 50;
const MAX_WAIT_GRID_MS: u32 = 10;

/// A fetch waits so long for memory at least, whatever its client would wait for data.
const MEMORY_PATIENCE: Duration = Duration::from_secs(2);

/// Result of one reading of a plan.
enum Reading {
    Done(Vec<FetchOutcome>, Option<Share>),
    /// The first batch needs so much memory.
    Needs(usize),
}

impl Shard {
    /// Reads, waiting up to `max_wait_ms` for `min_bytes`; outcomes in the order of
    /// `parts`, with the memory that they are charged. An error in any part, or a partition
    /// on its way out, ends the wait.
    pub async fn fetch(self: &Rc<Self>, mut plan: FetchPlan) -> (Vec<FetchOutcome>, Option<Share>) {
        let deadline = plan.begun.after(Duration::from_millis(u64::from(plan.max_wait_ms)));
        let memory_until = deadline.max(plan.begun.after(MEMORY_PATIENCE));
        let mut yielder = Yielder;
        let mut least = 0;
        loop {
            let (outcomes, share) = match self.read_within_memory(&plan, least, memory_until).await {
                Reading::Done(outcomes, share) => (outcomes, share),
                Reading::Needs(bytes) => {
                    least = bytes;
                    plan.parts.iter_mut().for_each(FetchPart::has_arrived);
                    yielder.pass().await;
                    continue;
                }
            };
            plan.parts.iter_mut().for_each(FetchPart::has_arrived);
            if is_enough(&outcomes, plan.min_bytes) || self.stop.is_set() || Moment::now() >= deadline {
                return (outcomes, share);
            }
            let grid_ms = (plan.max_wait_ms / WAIT_GRID).clamp(1, MAX_WAIT_GRID_MS);
            let wait_until = deadline.round_up(Duration::from_millis(u64::from(grid_ms)));
            let waiter = self.watch(&plan.parts, &outcomes, wait_until);
            // Nothing is held on to while waiting; without anything read there
            // is nothing to let go of.
            let quiet = outcomes.iter().all(|o| o.records.is_empty()).then_some(outcomes);
            drop(share);
            let moved = waits::waiting(Cause::Records, clock::by(wait_until, waiter.fired())).await;
            match (moved, quiet) {
                (None, Some(outcomes)) => return (outcomes, None),
                _ => yielder.pass().await,
            }
        }
    }

    /// One reading, within the memory that there is for it, which is `least` at least. Without
    /// memory until `deadline` nothing is read, and the client asks again.
    async fn read_within_memory(self: &Rc<Self>, plan: &FetchPlan, least: usize, deadline: Moment) -> Reading {
        let asked: usize = plan.parts.iter().map(|part| part.max_bytes as usize).sum();
        let wanted = (plan.max_bytes as usize).min(asked);
        let Some(share) = self.answers.fetch_share(wanted, least, deadline, &plan.room).await else {
            return Reading::Done(self.look_everywhere(&plan.parts).await, None);
        };
        let room = (share.bytes() / 2).max(least);
        let limit = (plan.max_bytes as usize).min(room);
        let mut outcomes = self.read_everywhere(&plan.parts, Some(limit)).await;
        let again = second_reading(&plan.parts, &mut outcomes, limit);
        if let Some(needed) = again.first().map(|i| outcomes[*i].needed_bytes).filter(|needed| *needed > room) {
            return Reading::Needs(needed);
        }
        if !again.is_empty() {
            let parts: Vec<FetchPart> = again.iter().map(|i| exactly(&plan.parts[*i], &outcomes[*i])).collect();
            let total = parts.iter().map(|part| part.max_bytes as usize).sum();
            for (i, outcome) in again.into_iter().zip(self.read_everywhere(&parts, Some(total)).await) {
                outcomes[i] = outcome;
            }
        }
        let share = settle(&mut outcomes, share);
        Reading::Done(outcomes, share)
    }

    async fn look_everywhere(self: &Rc<Self>, parts: &[FetchPart]) -> Vec<FetchOutcome> {
        self.read_everywhere(parts, None).await
    }

    /// Reads up to `max_bytes`; `None`: no records, only where the partitions stand.
    async fn read_everywhere(self: &Rc<Self>, parts: &[FetchPart], max_bytes: Option<usize>) -> Vec<FetchOutcome> {
        if parts.iter().all(|p| self.owner(p.partition) == self.id) {
            return self.read_here(parts, max_bytes).await;
        }
        // A partition that is known to have nothing new needs no call.
        let remote_tail = |part: &FetchPart| if part.is_consumers() { self.remote_tail(part.partition) } else { None };
        let tails: Vec<Option<Rc<RemoteTail>>> = parts.iter().map(remote_tail).collect();
        let known = parts.iter().zip(&tails).map(|(part, tail)| tail.as_ref()?.answer(part));
        let mut outcomes: Vec<Option<FetchOutcome>> = known.collect();
        let asked: Vec<usize> = (0..outcomes.len()).filter(|i| outcomes[*i].is_none()).collect();
        // Each owner gets its share of the response, by its share of the partitions.
        let (total, origin) = (asked.len().max(1), self.id);
        let answers = self
            .scatter(
                asked.iter().map(|i| parts[*i].clone()).collect(),
                |p| p.partition,
                move |shard, parts| async move {
                    let share = max_bytes.map(|max| max / total * parts.len() + max % total);
                    let mut outcomes = shard.read_here(&parts, share).await;
                    if origin != shard.id {
                        shard.subscribe_once(origin, &parts, &mut outcomes);
                    }
                    outcomes
                },
            )
            .await;
        for (i, answer) in asked.into_iter().zip(answers) {
            let answer = answer.unwrap_or_else(|| FetchOutcome::failed(ErrorCode::NotLeaderOrFollower));
            if let Some(tail) = &tails[i] {
                tail.note(&parts[i], &answer);
            }
            outcomes[i] = Some(answer);
        }
        let missing = || FetchOutcome::failed(ErrorCode::UnknownServerError);
        outcomes.into_iter().map(|o| o.unwrap_or_else(missing)).collect()
    }

    /// A waiter that fires when any of the partitions moves on from what `outcomes` saw of it.
    fn watch(self: &Rc<Self>, parts: &[FetchPart], outcomes: &[FetchOutcome], until: Moment) -> Rc<DataWaiter> {
        let waiter = DataWaiter::new(None);
        if parts.iter().any(|part| !part.is_consumers()) {
            self.watch_sent(parts, &waiter, until);
        }
        for (part, outcome) in parts.iter().zip(outcomes).filter(|(part, _)| part.is_consumers()) {
            if self.owner(part.partition) != self.id {
                self.expect_remote_data(part.partition, &waiter);
                continue;
            }
            match self.replica(part.partition) {
                Some(replica) if part.reader == Reader::CommittedConsumer => {
                    replica.expect_decided(outcome.last_stable_offset, &waiter);
                }
                Some(replica) => replica.expect_data(outcome.high_watermark, &waiter),
                None => waiter.fire(),
            }
        }
        waiter
    }

    /// Reads partitions of this shard, in order, until `max_bytes` are full.
    async fn read_here(self: &Rc<Self>, parts: &[FetchPart], max_bytes: Option<usize>) -> Vec<FetchOutcome> {
        let mut outcomes = Vec::with_capacity(parts.len());
        let mut left = max_bytes;
        let mut nothing_yet = true;
        for part in parts {
            let limit = left.map(|left| left.min(part.max_bytes as usize));
            // A limit of nothing still has to tell the size of the first batch.
            let limit = limit.filter(|limit| *limit > 0 || nothing_yet);
            let outcome = self.read_one(part, limit).await;
            let bytes = outcome.bytes();
            nothing_yet &= bytes == 0;
            left = left.map(|left| left.saturating_sub(bytes));
            outcomes.push(outcome);
        }
        outcomes
    }

    async fn read_one(self: &Rc<Self>, part: &FetchPart, limit: Option<usize>) -> FetchOutcome {
        let replica = match self.online(part.partition) {
            Ok(replica) => replica,
            Err(code) => return FetchOutcome::failed(code),
        };
        if !part.is_consumers() {
            return self.read_for_replica(&replica, part, limit).await;
        }
        if let Err(code) = replica.check_reader(part.current_leader_epoch, part.rack.is_some()) {
            return FetchOutcome::failed(code);
        }
        if let Some(nearer) = self.nearer_replica(&replica, part) {
            let outcome = FetchOutcome::quiet(replica.high_watermark(), replica.start_offset());
            let last_stable_offset = replica.last_stable_offset();
            return FetchOutcome { preferred_replica: Some(nearer), last_stable_offset, ..outcome };
        }
        // Taken before the read: a later wait then starts from what the read could see.
        let ends = FetchOutcome {
            last_stable_offset: replica.last_stable_offset(),
            ..FetchOutcome::quiet(replica.high_watermark(), replica.start_offset())
        };
        let committed = part.reader == Reader::CommittedConsumer;
        let end = if committed { ends.last_stable_offset } else { ends.high_watermark };
        // Most fetches of idle consumers: nothing to look for.
        let at_the_end = part.offset == end && replica.failure().is_none_or(|failure| failure.is_full());
        let read = match limit {
            Some(limit) if !at_the_end && committed => replica.read_decided(part.offset, limit).await,
            Some(limit) if !at_the_end => replica.read(part.offset, limit, false).await.map(|read| (read, Vec::new())),
            _ => replica.look(part.offset, end).map(|read| (read, Vec::new())),
        };
        match read {
            Ok((read, aborted)) => FetchOutcome {
                traffic: (!read.records.is_empty()).then(|| replica.traffic.clone()),
                records: read.records,
                more: read.more,
                held_bytes: read.held_bytes,
                needed_bytes: read.needed_bytes,
                aborted: committed.then(|| aborted.iter().map(|txn| (txn.producer_id, txn.first_offset)).collect()),
                ..ends
            },
            Err(code) => FetchOutcome::failed(code),
        }
    }
}

/// The parts to read again, for first batches that their first reading had no room for: the first
/// one with data in any case, the others as far as they fit. What has been read makes way for the
/// first, the last of it first.
fn second_reading(parts: &[FetchPart], outcomes: &mut [FetchOutcome], max_bytes: usize) -> Vec<usize> {
    let mut again = Vec::new();
    if outcomes.iter().all(|outcome| outcome.needed_bytes == 0) {
        return again;
    }
    let mut taken: usize = outcomes.iter().map(FetchOutcome::bytes).sum();
    let with_data = outcomes.iter().position(|outcome| outcome.needed_bytes > 0 || !outcome.records.is_empty());
    let mut rest = 0;
    if let Some(first) = with_data.filter(|first| outcomes[*first].needed_bytes > 0) {
        let needed = outcomes[first].needed_bytes;
        for outcome in outcomes[first + 1..].iter_mut().rev() {
            if taken == 0 || taken + needed <= max_bytes {
                break;
            }
            taken -= outcome.bytes();
            outcome.put_off();
        }
        taken += needed;
        again.push(first);
        rest = first + 1;
    }
    for (i, (part, outcome)) in parts.iter().zip(&*outcomes).enumerate().skip(rest) {
        let needed = outcome.needed_bytes;
        if needed > 0 && needed <= part.max_bytes as usize && taken + needed <= max_bytes {
            taken += needed;
            again.push(i);
        }
    }
    again
}

/// `part`, with the limit that its first batch needs.
fn exactly(part: &FetchPart, outcome: &FetchOutcome) -> FetchPart {
    FetchPart { max_bytes: u32::try_from(outcome.needed_bytes).unwrap_or(u32::MAX), ..part.clone() }
}

/// Charges what the records keep alive; where there is no room for that, they are copied and
/// keep alive nothing else.
fn settle(outcomes: &mut [FetchOutcome], mut share: Share) -> Option<Share> {
    let held: usize = outcomes.iter().map(|outcome| outcome.held_bytes).sum();
    if held == 0 {
        return None;
    }
    if !share.resize(held) {
        outcomes.iter_mut().for_each(FetchOutcome::detach);
        // One that is beyond all there is has all of it.
        share.resize(outcomes.iter().map(FetchOutcome::bytes).sum());
    }
    Some(share)
}

/// True if there is no reason to wait: enough bytes, an error to tell, or more at hand
/// than the limits let through.
fn is_enough(outcomes: &[FetchOutcome], min_bytes: u32) -> bool {
    let bytes: usize = outcomes.iter().map(FetchOutcome::bytes).sum();
    bytes >= min_bytes as usize || outcomes.iter().any(FetchOutcome::has_news)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::PartitionId;
    use bytes::Bytes;
    use uuid::Uuid;

    fn parts(max_bytes: &[u32]) -> Vec<FetchPart> {
        let part = |(i, max_bytes): (usize, &u32)| FetchPart {
            partition: PartitionId::new(Uuid::from_u128(1), i as i32),
            offset: 0,
            max_bytes: *max_bytes,
            current_leader_epoch: None,
            reader: Reader::Consumer,
            rack: None,
        };
        max_bytes.iter().enumerate().map(part).collect()
    }

    /// Of outcomes that have read so many bytes, or (negative) need so many: the parts to read
    /// again, and what is left of those that were read.
    fn chosen(read: &[i64], part_max: u32, max_bytes: usize) -> (Vec<usize>, Vec<usize>) {
        let mut outcomes: Vec<FetchOutcome> = read
            .iter()
            .map(|bytes| FetchOutcome {
                records: if *bytes > 0 { vec![Bytes::from(vec![0; *bytes as usize])] } else { Vec::new() },
                needed_bytes: if *bytes < 0 { -bytes as usize } else { 0 },
                more: *bytes < 0,
                ..FetchOutcome::quiet(9, 0)
            })
            .collect();
        let again = second_reading(&parts(&vec![part_max; read.len()]), &mut outcomes, max_bytes);
        (again, outcomes.iter().map(FetchOutcome::bytes).collect())
    }

    #[test]
    fn only_the_first_batch_of_the_response_may_exceed_the_limit() {
        assert_eq!(chosen(&[-921, -921], 1048, 1000), (vec![0], vec![0, 0]), "one of two shards");
        assert_eq!(chosen(&[-921, -921], 1048, 2000), (vec![0, 1], vec![0, 0]));
        assert_eq!(chosen(&[-3000, -10], 1048, 1000), (vec![0], vec![0, 0]), "beyond the limit, and then nothing");
        assert_eq!(chosen(&[0, 500, -600, -400], 1048, 1000), (vec![3], vec![0, 500, 0, 0]));
        assert_eq!(
            chosen(&[500, -400], 300, 1000),
            (vec![], vec![500, 0]),
            "a partition's limit holds behind the first"
        );
        assert_eq!(chosen(&[-400, 500], 300, 1000), (vec![0], vec![0, 500]));
    }

    #[test]
    fn what_was_read_makes_way_for_the_first_batch() {
        assert_eq!(chosen(&[-900, 90, 20, 300], 1048, 1000), (vec![0], vec![0, 90, 0, 0]));
        assert_eq!(chosen(&[-5000, 90, 20], 1048, 1000), (vec![0], vec![0, 0, 0]));
        assert_eq!(chosen(&[10, 20], 1048, 1000), (vec![], vec![10, 20]));
        assert_eq!(chosen(&[-1, 0], 0, 0), (vec![0], vec![0, 0]), "a limit of 0 still lets one batch through");
    }
}
