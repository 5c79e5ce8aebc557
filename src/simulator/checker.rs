//! The omniscient observer: sees every replica's disk and every change of the metadata store, and
//! says which promise is broken.
//!
//! Batches that any leader has shown below its high watermark are *canonical*: a row that no clean
//! election may take back. Only an unclean election, or crashes that left no copy, may shorten it;
//! what goes then is excused.

use std::collections::{BTreeMap, BTreeSet};

use super::disk::{Batch, Disk};
use super::offsets::Offsets;
use super::outcomes::Outcomes;
use super::place::TRANSACTIONS;
use crate::cluster::store::PartitionState;
use crate::model::{BrokerId, LeaderEpoch};

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub at_ms: i64,
    pub rule: &'static str,
    pub what: String,
}

/// Situations that a run should meet; counted over all seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    Truncation,
    ElrElection,
    UncleanElection,
    DivergingEpoch,
    LateCommit,
    UnknownCommit,
    Reassignment,
    /// A reassignment is complete.
    Reassigned,
    /// A member of the ISR took over from another one that stays in it.
    LeaderMoved,
    MinimumChanged,
    LostRecords,
    Resignation,
    BelowMinimum,
    SessionExpired,
    Duplicate,
    /// A batch was acknowledged after the leadership that accepted it.
    AckedAfterwards,
    /// A follower began its log anew at the leader's start.
    Reset,
    /// A coordinator loaded what another one wrote.
    CoordinatorLoads,
    /// Some of that was not committed yet.
    LoadsUncommitted,
    /// Replies of a coordinator were held when its epoch ended.
    NotCoordinator,
    /// A replica follows while its broker takes no part.
    FollowsApart,
    /// A replica was told to follow in an epoch below the one that it knew.
    OlderMetadata,
    /// The registration of a process that is gone was deleted, and that of one that lives.
    Evicted,
    EvictedAlive,
    /// A leader that has heard of nobody for a session's time refused records.
    RefusesApart,
    /// A leader was told of an epoch that there is not.
    Slandered,
    /// One that was told of a later epoch was confirmed in its own.
    Confirmed,
    /// A leader led on after its restart.
    LedOn,
    /// All brokers were on their way out together.
    AllLeft,
    /// A partition waited for a replica that had records.
    Emptied,
    /// An operator asked for its leader.
    AskedFor,
    /// A transaction has its outcome.
    Committed,
    Aborted,
    /// One took too long, and its coordinator aborted it.
    TransactionTimedOut,
    /// A coordinator went on with the markers of one that was gone.
    EndsTakenOver,
    /// A producer that another one had taken the place of was refused.
    ZombieFenced,
    /// Records were refused because their transaction had ended.
    VerificationRefused,
    /// Offsets of a transaction that was open were asked for.
    UnstableOffsets,
}

/// One partition as the observer sees it.
#[derive(Debug, Default)]
struct Seen {
    canonical: Vec<Batch>,
    /// Digest of each batch by epoch and base offset (I3).
    known: BTreeMap<(i32, i64), u64>,
    /// Broker and life that wrote an epoch (I4).
    writers: BTreeMap<i32, (usize, u32)>,
    /// The committed state.
    state: Option<PartitionState>,
    /// Epoch of an unclean election whose leader has not begun yet.
    unclean_pending: Option<i32>,
    /// Leaders of epochs before this one have lost an unclean election.
    unclean_epoch: i32,
    /// Batches that were acknowledged with `acks=all`: base offset.
    acked: BTreeMap<u64, i64>,
    excused: BTreeSet<u64>,
    /// Brokers that have lost acknowledged records. True once they have registered since: from then
    /// on they must be in neither ISR nor ELR before they are active, and are sound again when they
    /// are in none.
    damaged: BTreeMap<usize, bool>,
    /// Replicas by assignment.
    replicas: Vec<usize>,
    /// Those assigned later, until they are in the ISR: what they hold is of an earlier time.
    newcomers: BTreeSet<usize>,
    /// Brokers that have lost their disk, and have not been taken into the ISR since. True once
    /// they have registered since.
    wiped: BTreeMap<usize, bool>,
    /// The last canonical batch of each producer.
    newest: BTreeMap<i64, Batch>,
    /// Times that canonical batches were lost.
    losses: u32,
    /// Records before this were deleted.
    trimmed: i64,
}

#[derive(Debug)]
pub struct Checker {
    now_ms: i64,
    partitions: Vec<Seen>,
    pub offsets: Offsets,
    pub outcomes: Outcomes,
    pub marks: BTreeSet<Mark>,
    violation: Option<Violation>,
}

impl Checker {
    pub fn new(partitions: usize) -> Checker {
        Checker {
            now_ms: 0,
            partitions: (0..partitions).map(|_| Seen::default()).collect(),
            offsets: Offsets::default(),
            outcomes: Outcomes::default(),
            marks: BTreeSet::new(),
            violation: None,
        }
    }

    pub fn at(&mut self, now_ms: i64) {
        self.now_ms = now_ms;
    }

    pub fn mark(&mut self, mark: Mark) {
        self.marks.insert(mark);
    }

    /// The first broken promise; later ones may follow from it.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    pub fn broken(&mut self, rule: &'static str, what: String) {
        if self.violation.is_none() {
            self.violation = Some(Violation { at_ms: self.now_ms, rule, what });
        }
    }

    /// The partition has had an unclean election, or lost every copy of some records.
    pub fn has_lost(&self, partition: usize) -> bool {
        let seen = &self.partitions[partition];
        seen.losses > 0 || seen.unclean_pending.is_some() || seen.unclean_epoch > 0
    }

    /// The store says that this is the partition's leader epoch.
    pub fn is_current(&self, partition: usize, epoch: LeaderEpoch) -> bool {
        self.partitions[partition].state.as_ref().is_some_and(|state| state.leader_epoch == epoch)
    }

    pub fn canonical_end(&self, partition: usize) -> i64 {
        self.partitions[partition].canonical.last().map_or(0, Batch::next)
    }

    /// The batch stands in the canonical row.
    pub fn is_canonical(&self, partition: usize, base: i64, id: u64) -> bool {
        let canonical = &self.partitions[partition].canonical;
        canonical.binary_search_by_key(&base, |batch| batch.base).is_ok_and(|at| canonical[at].id == id)
    }

    // ---- logs

    /// A batch now stands in a log.
    pub fn appended(&mut self, partition: usize, broker: usize, batch: &Batch) {
        let seen = &mut self.partitions[partition];
        let known = *seen.known.entry((batch.epoch, batch.base)).or_insert(batch.chain);
        if known != batch.chain {
            let what = format!("partition {partition}, broker {broker}: epoch {} offset {}", batch.epoch, batch.base);
            self.broken("I3: one epoch and offset, two histories", what);
        }
    }

    /// A leader appends in its epoch.
    pub fn wrote(&mut self, partition: usize, broker: usize, life: u32, epoch: i32) {
        let writer = *self.partitions[partition].writers.entry(epoch).or_insert((broker, life));
        if writer != (broker, life) {
            let what = format!("partition {partition} epoch {epoch}: {writer:?} and {:?}", (broker, life));
            self.broken("I4: one writer an epoch", what);
        }
    }

    /// A broker takes over leadership.
    pub fn led(&mut self, partition: usize, broker: usize, epoch: i32, disk: &Disk) {
        let seen = &mut self.partitions[partition];
        if seen.unclean_pending.is_some_and(|unclean| epoch >= unclean) {
            seen.unclean_pending = None;
            seen.unclean_epoch = epoch;
            let kept = |batch: &&Batch| holds(disk, batch) && batch.next() <= disk.ends.acknowledged;
            let common = seen.canonical.iter().take_while(kept).count();
            seen.lose_after(common);
        }
        // One that learns late of an election that is over commits nothing.
        let is_current = seen.state.as_ref().is_some_and(|state| state.leader_epoch.0 == epoch);
        if !is_current || seen.unclean_pending.is_some() || seen.damaged.contains_key(&broker) {
            return;
        }
        if let Some(batch) = seen.canonical.last().filter(|batch| !holds(disk, batch)) {
            let what = format!("partition {partition}: broker {broker} leads epoch {epoch} without {batch:?}");
            self.broken("I2: a leader has all that was committed", what);
        }
    }

    /// A leader's high watermark has reached `to`.
    pub fn committed(&mut self, partition: usize, broker: usize, epoch: i32, disk: &Disk, to: i64) {
        let now = self.canonical_end(partition);
        let seen = &mut self.partitions[partition];
        if epoch < seen.unclean_epoch || seen.unclean_pending.is_some() {
            return;
        }
        let (mut broken, mut ends) = (None, Vec::new());
        if let Some(batch) = seen.canonical.iter().rev().find(|batch| batch.next() <= to)
            && !holds(disk, batch)
        {
            broken = Some(("I2: what was committed is taken back", format!("{batch:?}")));
        }
        for batch in disk.read(now, to, usize::MAX) {
            if let Some((id, ..)) = batch.producer {
                let before = seen.newest.insert(id, batch);
                // A log that begins behind all batches of a producer does not know it: it takes
                // the next one, whatever its sequence. Nor does it have any of them twice.
                let is_there = |before: &Batch| before.next() > disk.ends.start;
                // Batches without a sequence (markers, offsets) may come more than once.
                let is_plain = batch.producer.is_some_and(|(.., sequence)| sequence < 0);
                let is_next =
                    |before: Batch| before.producer < batch.producer || is_plain && before.producer == batch.producer;
                if before.filter(is_there).is_some_and(|before| !is_next(before)) {
                    broken = Some(("I7: a duplicate, or out of order", format!("{batch:?} after {before:?}")));
                }
            }
            seen.canonical.push(batch);
            if batch.marker.is_some() || partition == TRANSACTIONS {
                ends.push(batch);
            }
        }
        ends.iter().for_each(|batch| self.became_canonical(partition, batch));
        if let Some((rule, what)) = broken {
            self.broken(rule, format!("partition {partition}, broker {broker} epoch {epoch} to {to}: {what}"));
        }
    }

    /// A produce with `acks=all` is acknowledged by the leader of `epoch`.
    pub fn acked(&mut self, partition: usize, epoch: i32, id: u64, base: i64) {
        let is_there = self.is_canonical(partition, base, id);
        let seen = &mut self.partitions[partition];
        if epoch < seen.unclean_epoch || seen.unclean_pending.is_some() {
            seen.excused.insert(id);
            return;
        }
        seen.acked.insert(id, base);
        if !is_there && !seen.excused.contains(&id) {
            let what = format!("partition {partition} epoch {epoch}: id {id} at {base}");
            self.broken("an acknowledged record is not committed", what);
        }
    }

    /// A consumer is given these by the leader of `epoch`.
    pub fn served(&mut self, partition: usize, epoch: i32, batches: &[Batch]) {
        let seen = &self.partitions[partition];
        if epoch < seen.unclean_epoch || seen.unclean_pending.is_some() {
            return;
        }
        let strange = batches.iter().find(|batch| {
            let at = seen.canonical.binary_search_by_key(&batch.base, |known| known.base);
            // A copy that was on its way when the last one on a disk was lost may turn up again.
            at.map_or(true, |at| seen.canonical[at].chain != batch.chain) && !seen.excused.contains(&batch.id)
        });
        if let Some(batch) = strange {
            let what = format!("partition {partition} epoch {epoch}: {batch:?}");
            self.broken("a consumer sees what is not committed", what);
        }
    }

    /// Records before `start` were deleted on purpose.
    pub fn trimmed(&mut self, partition: usize, start: i64) {
        let trimmed = &mut self.partitions[partition].trimmed;
        *trimmed = start.max(*trimmed);
    }

    /// Records of the partition before this were deleted.
    pub fn start(&self, partition: usize) -> i64 {
        self.partitions[partition].trimmed
    }

    /// The consumer may find the records at `offset` deleted.
    pub fn is_trimmed(&self, partition: usize, offset: i64) -> bool {
        offset < self.partitions[partition].trimmed
    }

    /// A follower cuts below its own high watermark.
    pub fn cut_committed(&mut self, partition: usize, broker: usize, to: i64, committed: i64) {
        let seen = &self.partitions[partition];
        if seen.losses == 0
            && seen.unclean_epoch == 0
            && seen.unclean_pending.is_none()
            && !seen.damaged.contains_key(&broker)
        {
            let what = format!("partition {partition}, broker {broker}: cut to {to}, high watermark {committed}");
            self.broken("I6: the high watermark falls", what);
        }
    }

    // ---- crashes

    /// A crash took acknowledged records of a replica. `disks`: all copies of the partition that
    /// are left.
    pub fn damaged<'a>(&mut self, partition: usize, broker: usize, disks: impl Iterator<Item = &'a Disk>) {
        let seen = &mut self.partitions[partition];
        seen.damaged.insert(broker, false);
        let kept =
            disks.map(|disk| seen.canonical.iter().take_while(|batch| holds(disk, batch)).count()).max().unwrap_or(0);
        seen.lose_after(kept);
        if self.partitions[partition].losses > 0 {
            self.mark(Mark::LostRecords);
        }
    }

    // ---- metadata

    /// The store has a new state of a partition.
    /// `disk_of`: a broker's copy.
    pub fn changed<'a>(
        &mut self,
        partition: usize,
        state: Option<&PartitionState>,
        disk_of: impl Fn(usize) -> &'a Disk,
    ) {
        let seen = &mut self.partitions[partition];
        let before = std::mem::replace(&mut seen.state, state.cloned());
        let Some(state) = state else { return };
        seen.mend();
        if state.leader.is_none() && state.isr.is_empty() && state.elr.is_empty() && !state.emptied.is_empty() {
            self.marks.insert(Mark::Emptied);
        }
        let Some((before, leader)) = before.zip(state.leader) else { return };
        let joins = state.isr.iter().filter(|broker| !before.isr.contains(broker)).map(|broker| broker.0 as usize);
        let joins: Vec<usize> = joins.collect();
        if before.leader_epoch == state.leader_epoch {
            seen.refill(&joins);
            return;
        }
        if before.leader.is_some_and(|old| old != leader && state.isr.contains(&old)) {
            self.mark(Mark::LeaderMoved);
        }
        if before.leader == state.leader && before.leader_broker_epoch != state.leader_broker_epoch {
            self.mark(Mark::LedOn);
        }
        if before.elr.contains(&leader) {
            self.mark(Mark::ElrElection);
        } else if !before.isr.contains(&leader) {
            self.partitions[partition].unclean_pending = Some(state.leader_epoch.0);
            self.mark(Mark::UncleanElection);
            self.elected(partition, leader.0 as usize, disk_of);
        }
        self.partitions[partition].refill(&joins);
    }

    /// A broker is elected that has been in neither ISR nor ELR. One whose disk is known to be lost
    /// is not, while another replica has records.
    fn elected<'a>(&mut self, partition: usize, leader: usize, disk_of: impl Fn(usize) -> &'a Disk) {
        let seen = &self.partitions[partition];
        let keeps = |broker: &&usize| {
            let has = |batch: &Batch| batch.next() > disk_of(**broker).ends.start && holds(disk_of(**broker), batch);
            !seen.wiped.contains_key(*broker) && !seen.newcomers.contains(*broker) && seen.canonical.iter().any(has)
        };
        if seen.wiped.get(&leader) != Some(&true) {
            return;
        }
        if let Some(other) = seen.replicas.iter().find(keeps) {
            let what = format!("partition {partition}: broker {leader}, and {other} has records; {:?}", seen.state);
            self.broken("an emptied replica is elected", what);
        }
    }

    /// A broker has lost its disk.
    pub fn wiped(&mut self, broker: usize) {
        for seen in self.partitions.iter_mut().filter(|seen| seen.replicas.contains(&broker)) {
            seen.wiped.insert(broker, false);
        }
    }

    /// Replicas of a partition are these.
    pub fn assigned(&mut self, partition: usize, replicas: Vec<usize>) {
        let seen = &mut self.partitions[partition];
        seen.wiped.retain(|broker, _| replicas.contains(broker));
        seen.newcomers.retain(|broker| replicas.contains(broker));
        if !seen.replicas.is_empty() {
            seen.newcomers.extend(replicas.iter().filter(|broker| !seen.replicas.contains(broker)));
        }
        seen.replicas = replicas;
    }

    /// Every member of the ISR and of the ELR has all that is committed (I1, I2). `disk_of`: a
    /// broker's copy.
    pub fn members<'a>(&mut self, partition: usize, disk_of: impl Fn(usize) -> &'a Disk) {
        let seen = &self.partitions[partition];
        let (Some(state), Some(last)) = (&seen.state, seen.canonical.last()) else { return };
        if seen.unclean_pending.is_some() {
            return;
        }
        for member in state.isr.iter().chain(&state.elr) {
            let broker = member.0 as usize;
            let disk = disk_of(broker);
            let has_all = holds(disk, last) && last.next() <= disk.ends.acknowledged;
            if !has_all && !seen.damaged.contains_key(&broker) {
                let what = format!(
                    "partition {partition}: broker {broker} of isr {:?} elr {:?} lacks {last:?}; its log ends at {:?}",
                    state.isr, state.elr, disk.ends
                );
                return self.broken("I1: every member of ISR and ELR has all that is committed", what);
            }
        }
    }

    /// A broker has registered: the metadata can tell that its records are not what they were.
    pub fn registered(&mut self, broker: usize) {
        for seen in &mut self.partitions {
            seen.damaged.entry(broker).and_modify(|declared| *declared = true);
            seen.wiped.entry(broker).and_modify(|declared| *declared = true);
            seen.mend();
        }
    }

    /// A broker is active. Records that it may have lost must not be counted on any more (I5).
    pub fn activated(&mut self, broker: usize) {
        let counted = |seen: &Seen| seen.damaged.get(&broker) == Some(&true) && seen.counts_on(broker);
        if let Some(partition) = self.partitions.iter().position(counted) {
            let what = format!("partition {partition}: broker {broker} in {:?}", self.partitions[partition].state);
            self.broken("I5: a stale incarnation counts", what);
        }
    }

    /// At the end: everything acknowledged is there, unless it is excused.
    pub fn finish(&mut self) {
        for partition in 0..self.partitions.len() {
            let seen = &self.partitions[partition];
            let there: BTreeSet<u64> = seen.canonical.iter().map(|batch| batch.id).collect();
            let lost = seen.acked.iter().find(|(id, _)| !there.contains(*id) && !seen.excused.contains(*id));
            if let Some((id, base)) = lost {
                let what = format!("partition {partition}: id {id} at {base}");
                return self.broken("an acknowledged record is lost", what);
            }
        }
    }
}

impl Seen {
    fn counts_on(&self, broker: usize) -> bool {
        let id = BrokerId(broker as i32);
        self.state.as_ref().is_some_and(|state| state.isr.contains(&id) || state.elr.contains(&id))
    }

    /// Brokers have caught up. A commit of before their disks were lost may be
    /// late, and says nothing.
    fn refill(&mut self, joined: &[usize]) {
        self.wiped.retain(|broker, declared| !*declared || !joined.contains(broker));
        self.newcomers.retain(|broker| !joined.contains(broker));
    }

    /// Forgets the damage of brokers that nothing depends on any more.
    fn mend(&mut self) {
        let damaged = std::mem::take(&mut self.damaged);
        self.damaged = damaged.into_iter().filter(|(broker, declared)| !declared || self.counts_on(*broker)).collect();
    }

    /// Canonical batches after the first `kept` are gone, and that is excused.
    fn lose_after(&mut self, kept: usize) {
        if kept == self.canonical.len() {
            return;
        }
        self.losses += 1;
        let lost: Vec<u64> = self.canonical.drain(kept..).map(|batch| batch.id).collect();
        self.excused.extend(lost);
        let of_producer = |batch: &Batch| batch.producer.map(|(id, ..)| (id, *batch));
        self.newest = self.canonical.iter().filter_map(of_producer).collect();
    }
}

/// The very batch stands in the log, with the same history before it, or was deleted on purpose.
fn holds(disk: &Disk, batch: &Batch) -> bool {
    if batch.next() <= disk.ends.start {
        return true;
    }
    let at = disk.batches.binary_search_by_key(&batch.base, |own| own.base);
    at.is_ok_and(|at| disk.batches[at].chain == batch.chain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::disk::Acknowledge;

    /// One partition and the log of its leader.
    struct Led {
        checker: Checker,
        disk: Disk,
    }

    impl Led {
        /// Sequences 0 to 2 of one producer, committed.
        fn new() -> Led {
            let mut led = Led { checker: Checker::new(1), disk: Disk::new(Acknowledge::Held) };
            (0..3).for_each(|sequence| led.append(1, sequence));
            led.commit();
            assert_eq!(led.checker.violation(), None);
            led
        }

        fn append(&mut self, producer: i64, sequence: i32) {
            let (base, id) = (self.disk.ends.appended, sequence.unsigned_abs().into());
            let producer = Some((producer, 0, sequence));
            self.disk.append(Batch { base, count: 1, epoch: 0, id, producer, ..Batch::default() });
            self.disk.ends = crate::partition::Ends::synced(self.disk.ends.start, base + 1);
        }

        fn commit(&mut self) {
            self.checker.committed(0, 0, 0, &self.disk, self.disk.ends.appended);
        }

        /// The rule that a commit of the producer's sequence breaks.
        fn commits(mut self, sequence: i32) -> Option<&'static str> {
            self.append(1, sequence);
            self.commit();
            self.checker.violation().map(|violation| violation.rule)
        }

        /// The leader deletes records.
        fn trim(&mut self, start: i64) {
            self.disk.trim(start);
            self.checker.trimmed(0, start);
        }
    }

    const DUPLICATE: Option<&str> = Some("I7: a duplicate, or out of order");

    #[test]
    fn a_log_that_begins_behind_all_batches_of_a_producer_takes_any() {
        let mut led = Led::new();
        led.append(2, 0);
        led.commit();
        led.trim(3);
        assert_eq!(led.commits(2), None);
    }

    #[test]
    fn what_others_have_deleted_excuses_no_duplicate() {
        assert_eq!(Led::new().commits(2), DUPLICATE);
        assert_eq!(Led::new().commits(0), DUPLICATE, "an older one");
        assert_eq!(Led::new().commits(3), None, "the next one");
        let mut led = Led::new();
        led.trim(2);
        assert_eq!(led.commits(2), DUPLICATE, "the last one is still there");
        // Another replica has deleted all of them.
        let mut led = Led::new();
        led.checker.trimmed(0, 3);
        assert_eq!(led.commits(2), DUPLICATE);
    }

    /// Batches that are lost and written anew stand below a start of before.
    #[test]
    fn a_start_of_before_a_loss_excuses_no_duplicate() {
        let mut led = Led::new();
        led.checker.trimmed(0, 3);
        // The leader had deleted them; of the copies that are left one has the first only.
        led.disk.cut(1);
        let left = led.disk.clone();
        led.checker.damaged(0, 1, std::iter::once(&left));
        led.append(1, 1);
        led.commit();
        assert_eq!(led.checker.violation(), None, "it was lost");
        assert_eq!(led.commits(1), DUPLICATE);
    }
}
