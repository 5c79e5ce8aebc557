//! What a partition remembers of its idempotent producers (KIP-98): the newest five batches of each. Pure.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use super::producer_pool::{Batch, Batches, Keep, PoolShare, Producer, ProducerPool, WINDOW};
use crate::model::ErrorCode;
use crate::model::record_batch::{BatchHeader, sequence_plus};

/// Idleness of a producer whose newest batch is read back from the log and has an old timestamp, ms.
const LONGEST_IDLE_MS: i64 = 10 * 60 * 1000;

/// How a batch relates to what its producer sent before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceCheck {
    /// The expected next one, or the producer is not known.
    Next,
    /// Written before: answer with where it was.
    Duplicate { base_offset: i64, next_offset: i64 },
    /// A gap, or a reused sequence that is no longer remembered.
    Refused(ErrorCode),
}

/// The producers of one partition.
#[derive(Debug)]
pub struct ProducerStates(PoolShare);

/// The bytes are not those of stored producers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damaged;

impl ProducerStates {
    /// No producers yet; they will be charged to `pool`.
    pub fn new(pool: &Rc<ProducerPool>) -> ProducerStates {
        ProducerStates(pool.share())
    }

    /// Kafka's rules: an older epoch is fenced; a new epoch starts at sequence 0; within one, sequences have no gap.
    /// A producer that is not known may begin with any sequence.
    pub fn check(&self, header: &BatchHeader) -> SequenceCheck {
        let known = self.0.with(header.producer_id.get(), |producer| check(producer, header));
        known.unwrap_or(SequenceCheck::Next)
    }

    /// Remembers an accepted batch that was given `base_offset`.
    pub fn note(&mut self, header: &BatchHeader, base_offset: i64, now_ms: i64) {
        self.0.put(header.producer_id.get(), |known| noted(known, header, base_offset, now_ms));
    }

    /// Remembers a batch that is read back from the log. Logs are read one after the other, so its timestamp says how long
    /// the producer has been idle beside others. A producer of old records is not taken for one that was idle for long.
    pub fn note_stored(&mut self, header: &BatchHeader, now_ms: i64) {
        let last_ms = header.max_timestamp.get().clamp(now_ms.saturating_sub(LONGEST_IDLE_MS), now_ms);
        self.0.restore(header.producer_id.get(), |known| noted(known, header, header.base(), last_ms));
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where each producer's newest batch ends: its last offset. Cleaning keeps these batches, for the sequences in them.
    pub fn last_offsets(&self) -> HashMap<i64, i64> {
        let mut offsets = HashMap::with_capacity(self.len());
        self.0.newest_first(|producer| {
            offsets.insert(producer.id, producer.batches.newest().next_offset() - 1);
        });
        offsets
    }

    /// Calls `look` with each producer's id, epoch, last sequence and the time of its newest batch, the newest first.
    pub fn each(&self, mut look: impl FnMut(i64, i16, i32, i64)) {
        self.0.newest_first(|producer| {
            let newest = producer.batches.newest();
            look(producer.id, producer.epoch, sequence_plus(newest.first_sequence, newest.delta), producer.last_ms);
        });
    }

    /// Forgets the producers that have batches at or after `end`; their ids.
    pub fn forget_after(&mut self, end: i64) -> BTreeSet<i64> {
        let mut forgotten = BTreeSet::new();
        self.0.retain(|producer| match producer.batches.newest().next_offset() <= end {
            true => Keep::Whole,
            false => {
                forgotten.insert(producer.id);
                Keep::Until(i64::MIN)
            }
        });
        forgotten
    }

    pub fn forget(&mut self, ids: &BTreeSet<i64>) {
        self.0.retain(|producer| if ids.contains(&producer.id) { Keep::Until(i64::MIN) } else { Keep::Whole });
    }

    pub fn forget_all(&mut self) {
        self.0.retain(|_| Keep::Until(i64::MIN));
    }

    /// Forgets producers idle for `limit_ms` (`producer.id.expiration.ms`).
    pub fn expire(&mut self, now_ms: i64, limit_ms: i64) {
        self.0.retain(|producer| match now_ms.saturating_sub(producer.last_ms) < limit_ms {
            true => Keep::Whole,
            false => Keep::Until(i64::MIN),
        });
    }

    /// For the checkpoint. Little-endian: count u32, then per producer, newest first, id i64, epoch i16, last ms i64,
    /// batches u8, and per batch first and last sequence i32, base and next offset i64.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 + self.len() * 64);
        out.extend_from_slice(&(self.len() as u32).to_le_bytes());
        self.0.newest_first(|producer| {
            out.extend_from_slice(&producer.id.to_le_bytes());
            out.extend_from_slice(&producer.epoch.to_le_bytes());
            out.extend_from_slice(&producer.last_ms.to_le_bytes());
            out.push(producer.batches.len() as u8);
            for batch in producer.batches.iter() {
                out.extend_from_slice(&batch.first_sequence.to_le_bytes());
                out.extend_from_slice(&sequence_plus(batch.first_sequence, batch.delta).to_le_bytes());
                out.extend_from_slice(&batch.base_offset.to_le_bytes());
                out.extend_from_slice(&batch.next_offset().to_le_bytes());
            }
        });
        out
    }

    /// Adds the producers that [`encode`](Self::encode) stored. The bytes may end anywhere: what a
    /// larger bound let in is read only as far as the present one has room for.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), Damaged> {
        self.restore_only(bytes, |_| true)
    }

    /// As [`restore`](Self::restore), but only those whose ids are `wanted`.
    pub fn restore_only(&mut self, bytes: &[u8], wanted: impl Fn(i64) -> bool) -> Result<(), Damaged> {
        let mut input = Input(bytes);
        let count = u32::from_le_bytes(input.take().ok_or(Damaged)?);
        for _ in 0..count {
            match input.producer()? {
                Some(producer) if wanted(producer.id) => self.0.restore(producer.id, |_| Some(producer)),
                Some(_) => {}
                None => return Ok(()),
            }
        }
        if input.0.is_empty() { Ok(()) } else { Err(Damaged) }
    }
}

/// Adds the batch to a known producer, or gives a new one that replaces an older epoch.
fn noted(known: Option<&mut Producer>, header: &BatchHeader, base_offset: i64, last_ms: i64) -> Option<Producer> {
    let (id, epoch) = (header.producer_id.get(), header.producer_epoch.get());
    let delta = header.last_offset_delta.get();
    let batch = Batch { base_offset, first_sequence: header.base_sequence.get(), delta };
    match known {
        Some(producer) if producer.epoch == epoch => {
            producer.last_ms = last_ms;
            producer.batches.push(batch);
            None
        }
        _ => Some(Producer { id, epoch, last_ms, batches: Batches::new(batch) }),
    }
}

fn check(producer: &Producer, header: &BatchHeader) -> SequenceCheck {
    let (epoch, first) = (header.producer_epoch.get(), header.base_sequence.get());
    if epoch < producer.epoch {
        return SequenceCheck::Refused(ErrorCode::InvalidProducerEpoch);
    }
    if epoch > producer.epoch {
        return match first {
            0 => SequenceCheck::Next,
            _ => SequenceCheck::Refused(ErrorCode::OutOfOrderSequenceNumber),
        };
    }
    let delta = header.last_offset_delta.get();
    if let Some(batch) = producer.batches.iter().find(|b| b.first_sequence == first && b.delta == delta) {
        return SequenceCheck::Duplicate { base_offset: batch.base_offset, next_offset: batch.next_offset() };
    }
    let newest = producer.batches.newest();
    let last = sequence_plus(newest.first_sequence, newest.delta);
    match sequence_plus(last, 1) == first {
        true => SequenceCheck::Next,
        false => SequenceCheck::Refused(ErrorCode::OutOfOrderSequenceNumber),
    }
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    /// `None`: the input ends within it.
    fn producer(&mut self) -> Result<Option<Producer>, Damaged> {
        let Some((id, epoch, last_ms, count)) = self.head() else { return Ok(None) };
        let mut batches: Option<Batches> = None;
        if count == 0 || usize::from(count) > WINDOW {
            return Err(Damaged);
        }
        for _ in 0..count {
            let Some(batch) = self.batch() else { return Ok(None) };
            let batch = batch?;
            match &mut batches {
                Some(batches) => batches.push(batch),
                None => batches = Some(Batches::new(batch)),
            }
        }
        Ok(batches.map(|batches| Producer { id, epoch, last_ms, batches }))
    }

    fn head(&mut self) -> Option<(i64, i16, i64, u8)> {
        let id = i64::from_le_bytes(self.take()?);
        let epoch = i16::from_le_bytes(self.take()?);
        let last_ms = i64::from_le_bytes(self.take()?);
        let [count] = self.take()?;
        Some((id, epoch, last_ms, count))
    }

    fn batch(&mut self) -> Option<Result<Batch, Damaged>> {
        let first_sequence = i32::from_le_bytes(self.take()?);
        let _last_sequence: [u8; 4] = self.take()?;
        let base_offset = i64::from_le_bytes(self.take()?);
        let next_offset = i64::from_le_bytes(self.take()?);
        let last_offset = next_offset.checked_sub(1);
        let delta = last_offset.and_then(|last| i32::try_from(last.checked_sub(base_offset)?).ok());
        let batch = delta.filter(|delta| *delta >= 0).map(|delta| Batch { base_offset, first_sequence, delta });
        Some(batch.ok_or(Damaged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zerocopy::FromZeros;

    fn batch(epoch: i16, sequence: i32, count: i32) -> BatchHeader {
        let mut header = BatchHeader::new_zeroed();
        header.producer_id.set(7);
        header.producer_epoch.set(epoch);
        header.base_sequence.set(sequence);
        header.last_offset_delta.set(count - 1);
        header
    }

    fn states(limit_bytes: usize) -> ProducerStates {
        ProducerStates::new(&ProducerPool::new(limit_bytes))
    }

    fn of(id: i64, sequence: i32) -> BatchHeader {
        let mut header = batch(0, sequence, 1);
        header.producer_id.set(id);
        header
    }

    fn knows(states: &ProducerStates, id: i64) -> bool {
        states.check(&of(id, 0)) != SequenceCheck::Next
    }

    fn written(batches: &[(i32, i32)]) -> ProducerStates {
        let mut states = states(1 << 20);
        let mut offset = 100;
        for &(sequence, count) in batches {
            let header = batch(0, sequence, count);
            assert_eq!(states.check(&header), SequenceCheck::Next);
            states.note(&header, offset, 1);
            offset += i64::from(count);
        }
        states
    }

    #[test]
    fn the_last_five_are_recognised_and_older_ones_refused() {
        let states = written(&[(0, 1), (1, 2), (3, 3), (6, 1), (7, 1), (8, 2)]);
        assert_eq!(states.check(&batch(0, 1, 2)), SequenceCheck::Duplicate { base_offset: 101, next_offset: 103 });
        assert_eq!(states.check(&batch(0, 8, 2)), SequenceCheck::Duplicate { base_offset: 108, next_offset: 110 });
        let refused = SequenceCheck::Refused(ErrorCode::OutOfOrderSequenceNumber);
        assert_eq!(states.check(&batch(0, 0, 1)), refused, "fallen out of the window");
        assert_eq!(states.check(&batch(0, 1, 1)), refused, "same first, other last");
        assert_eq!(states.check(&batch(0, 11, 1)), refused, "a gap");
        assert_eq!(states.check(&batch(0, 10, 1)), SequenceCheck::Next);
    }

    #[test]
    fn epochs_fence_and_start_at_zero() {
        let mut states = written(&[(0, 5)]);
        assert_eq!(states.check(&batch(1, 3, 1)), SequenceCheck::Refused(ErrorCode::OutOfOrderSequenceNumber));
        assert_eq!(states.check(&batch(1, 0, 1)), SequenceCheck::Next);
        states.note(&batch(1, 0, 1), 105, 2);
        assert_eq!(states.check(&batch(0, 5, 1)), SequenceCheck::Refused(ErrorCode::InvalidProducerEpoch));
    }

    #[test]
    fn a_cut_forgets_the_producers_that_wrote_behind_it() {
        let mut states = written(&[(0, 1), (1, 2), (3, 3)]);
        states.note(&of(8, 0), 90, 1);
        let stored = states.encode();
        assert_eq!(states.forget_after(106), BTreeSet::new());
        assert_eq!(states.forget_after(105), BTreeSet::from([7]));
        assert!(!knows(&states, 7) && knows(&states, 8));
        states.forget_all();
        states.restore_only(&stored, |id| id == 7).unwrap();
        assert!(knows(&states, 7) && !knows(&states, 8));
        states.forget(&BTreeSet::from([7]));
        assert!(states.is_empty());
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let mut states = states(1 << 20);
        states.note(&batch(0, i32::MAX - 1, 2), 0, 1);
        assert_eq!(states.check(&batch(0, 0, 1)), SequenceCheck::Next);
        assert_eq!(states.check(&batch(0, 1, 1)), SequenceCheck::Refused(ErrorCode::OutOfOrderSequenceNumber));
    }

    #[test]
    fn snapshots_round_trip_and_damage_is_noticed() {
        let mut written = written(&[(0, 1), (1, 2), (3, 1), (4, 1), (5, 1)]);
        written.note(&of(8, 3), 110, 2);
        let bytes = written.encode();
        let mut restored = states(1 << 20);
        assert_eq!(restored.restore(&bytes), Ok(()));
        assert_eq!(restored.encode(), bytes);
        assert_eq!(states(1 << 20).restore(&[bytes.clone(), vec![0]].concat()), Err(Damaged));
        assert_eq!(states(1 << 20).restore(&bytes[..3]), Err(Damaged));
        let mut no_batches = bytes.clone();
        no_batches[4 + 18] = 0;
        assert_eq!(states(1 << 20).restore(&no_batches), Err(Damaged));
    }

    #[test]
    fn a_snapshot_that_is_cut_gives_the_newest_producers() {
        let mut written = states(1 << 20);
        for id in 0..100 {
            written.note(&of(id, 0), id, id);
        }
        let bytes = written.encode();
        let mut restored = states(1 << 20);
        assert_eq!(restored.restore(&bytes[..bytes.len() / 2]), Ok(()));
        assert_eq!(restored.len(), 49);
        assert!((51..100).all(|id| knows(&restored, id)));
    }

    #[test]
    fn idle_producers_expire() {
        let mut states = written(&[(0, 1)]);
        states.expire(1000, 1000);
        assert_eq!(states.len(), 1);
        states.expire(1001, 1000);
        assert!(states.is_empty());
    }

    /// Room for so many producers of one batch each.
    const ROOM: i64 = 1000;

    fn pool() -> Rc<ProducerPool> {
        let probe = ProducerPool::new(usize::MAX);
        let mut states = ProducerStates::new(&probe);
        states.note(&of(0, 0), 0, 0);
        ProducerPool::new(probe.bytes() * ROOM as usize)
    }

    #[test]
    fn the_longest_idle_producer_of_all_partitions_gives_way() {
        let pool = pool();
        let mut partitions: Vec<_> = (0..3).map(|_| ProducerStates::new(&pool)).collect();
        for id in 0..ROOM {
            partitions[id as usize % 3].note(&of(id, 0), 0, id);
        }
        assert_eq!(pool.take_forgotten(), 0);
        // It is active again, so the next one is the longest idle.
        partitions[0].note(&of(0, 1), 1, ROOM);
        assert_eq!(pool.take_forgotten(), 1, "a second batch takes room as well");
        partitions[2].note(&of(ROOM, 0), 0, ROOM + 1);
        let known: Vec<i64> = (0..=ROOM).filter(|id| knows(&partitions[*id as usize % 3], *id)).collect();
        assert!(known.contains(&0) && !known.contains(&1) && !known.contains(&2));
        assert!(partitions[2].check(&of(ROOM, 0)) != SequenceCheck::Next);
        assert!(known.len() as i64 >= ROOM - 3, "{}", known.len());
    }

    #[test]
    fn a_forgotten_producer_may_go_on_with_any_sequence() {
        let mut states = ProducerStates::new(&pool());
        states.note(&of(7, 0), 0, 0);
        for id in 0..ROOM {
            states.note(&of(1000 + id, 0), id, 1);
        }
        assert_eq!(states.check(&of(7, 1)), SequenceCheck::Next);
        assert_eq!(states.check(&of(7, 41)), SequenceCheck::Next);
    }

    #[test]
    fn a_flood_over_partitions_stays_within_the_bound() {
        let pool = pool();
        let mut partitions: Vec<_> = (0..50).map(|_| ProducerStates::new(&pool)).collect();
        let bound = pool.bytes() + 104 * ROOM as usize;
        for round in 0..5 {
            for states in &mut partitions {
                for id in 0..ROOM {
                    states.note(&of(id, round), i64::from(round), i64::from(round));
                    assert!(pool.bytes() <= bound);
                }
            }
        }
        let known: usize = partitions.iter().map(ProducerStates::len).sum();
        assert!(known as i64 <= ROOM);
        partitions.clear();
        assert_eq!(pool.bytes(), 0);
    }

    #[test]
    fn what_a_larger_bound_stored_is_restored_as_far_as_it_fits() {
        let large = ProducerPool::new(usize::MAX);
        let mut stored = Vec::new();
        for partition in 0..10 {
            let mut states = ProducerStates::new(&large);
            for id in 0..ROOM {
                // Idle for longest in the last partition.
                states.note(&of(id, 0), id, 1_000_000 - partition * ROOM + id);
            }
            stored.push(states.encode());
        }
        let pool = pool();
        let mut partitions = Vec::new();
        for bytes in &stored {
            let mut states = ProducerStates::new(&pool);
            assert_eq!(states.restore(bytes), Ok(()));
            partitions.push(states);
        }
        let known: usize = partitions.iter().map(ProducerStates::len).sum();
        assert!(known as i64 <= ROOM && known as i64 >= ROOM / 2, "{known}");
        assert!(knows(&partitions[0], ROOM - 1), "the least idle of all is kept");
        assert!(partitions[9].len() < partitions[0].len());
        // A batch produced now is newer than all that was restored.
        partitions[9].note(&of(1 << 40, 0), 0, 2_000_000);
        assert!(knows(&partitions[9], 1 << 40));
    }

    #[test]
    fn batches_read_back_log_by_log_leave_the_least_idle_producers_known() {
        let pool = pool();
        let now = 1_000_000_000;
        let stored = |id: i64, at: i64| {
            let mut header = of(id, 0);
            header.max_timestamp.set(at);
            header
        };
        let mut partitions: Vec<_> = (0..4).map(|_| ProducerStates::new(&pool)).collect();
        // The first log to be read has the producer that wrote last of all.
        partitions[0].note_stored(&stored(7, now - 10), now);
        for partition in &mut partitions[1..] {
            for id in 0..ROOM {
                partition.note_stored(&stored(1000 + id, now - 2000 + id), now);
            }
        }
        assert!(knows(&partitions[0], 7), "logs read later had it forgotten");
        assert!(pool.take_forgotten() > 0);
    }

    #[test]
    fn a_producer_of_old_records_has_not_been_idle_since_then() {
        let mut states = states(1 << 20);
        let (now, day) = (1_000_000_000_000, 86_400_000);
        states.note_stored(&of(8, 0), now);
        states.expire(now, day);
        assert!(knows(&states, 8));
        states.expire(now + day, day);
        assert!(!knows(&states, 8));
    }
}
