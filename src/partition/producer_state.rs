//! What a partition remembers of its idempotent producers (KIP-98): the newest five batches of each. Pure.

use std::collections::{HashMap, VecDeque};

use crate::model::ErrorCode;
use crate::model::record_batch::{BatchHeader, sequence_plus};

/// Batches remembered per producer: as many as a client may have in flight.
const WINDOW: usize = 5;
/// Producers remembered per partition; beyond that the longest idle ones are forgotten.
const MAX_PRODUCERS: usize = 16_384;

/// One remembered batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Batch {
    first_sequence: i32,
    last_sequence: i32,
    base_offset: i64,
    next_offset: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Producer {
    epoch: i16,
    /// Wall time of the newest batch, ms.
    last_ms: i64,
    batches: VecDeque<Batch>,
}

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
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProducerStates {
    producers: HashMap<i64, Producer>,
}

impl ProducerStates {
    /// Kafka's rules: an older epoch is fenced; a new epoch starts at sequence 0; within one, sequences have no gap.
    pub fn check(&self, header: &BatchHeader) -> SequenceCheck {
        let Some(producer) = self.producers.get(&header.producer_id.get()) else { return SequenceCheck::Next };
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
        let last = header.last_sequence();
        if let Some(batch) = producer.batches.iter().find(|b| b.first_sequence == first && b.last_sequence == last) {
            return SequenceCheck::Duplicate { base_offset: batch.base_offset, next_offset: batch.next_offset };
        }
        match producer.batches.back() {
            Some(newest) if sequence_plus(newest.last_sequence, 1) != first => {
                SequenceCheck::Refused(ErrorCode::OutOfOrderSequenceNumber)
            }
            _ => SequenceCheck::Next,
        }
    }

    /// Remembers an accepted (or recovered) batch that was given `base_offset`.
    pub fn note(&mut self, header: &BatchHeader, base_offset: i64, now_ms: i64) {
        if self.producers.len() >= MAX_PRODUCERS && !self.producers.contains_key(&header.producer_id.get()) {
            self.forget_longest_idle();
        }
        let epoch = header.producer_epoch.get();
        let producer = self.producers.entry(header.producer_id.get()).or_insert_with(|| Producer {
            epoch,
            last_ms: now_ms,
            batches: VecDeque::with_capacity(WINDOW),
        });
        if epoch != producer.epoch {
            producer.epoch = epoch;
            producer.batches.clear();
        }
        if producer.batches.len() == WINDOW {
            producer.batches.pop_front();
        }
        producer.last_ms = now_ms;
        producer.batches.push_back(Batch {
            first_sequence: header.base_sequence.get(),
            last_sequence: header.last_sequence(),
            base_offset,
            next_offset: base_offset + i64::from(header.last_offset_delta.get()) + 1,
        });
    }

    /// Where each producer's newest batch ends: its last offset. Cleaning keeps these batches, for the sequences in them.
    pub fn last_offsets(&self) -> HashMap<i64, i64> {
        let newest =
            self.producers.iter().filter_map(|(id, p)| p.batches.back().map(|batch| (*id, batch.next_offset - 1)));
        newest.collect()
    }

    /// Forgets batches at or after `end`: the log no longer holds them.
    pub fn truncate(&mut self, end: i64) {
        for producer in self.producers.values_mut() {
            producer.batches.retain(|batch| batch.next_offset <= end);
        }
        self.producers.retain(|_, producer| !producer.batches.is_empty());
    }

    /// Forgets producers idle for `limit_ms` (`producer.id.expiration.ms`).
    pub fn expire(&mut self, now_ms: i64, limit_ms: i64) {
        self.producers.retain(|_, p| now_ms.saturating_sub(p.last_ms) < limit_ms);
    }

    fn forget_longest_idle(&mut self) {
        let mut ages: Vec<i64> = self.producers.values().map(|p| p.last_ms).collect();
        let eighth = ages.len() / 8;
        let (_, limit, _) = ages.select_nth_unstable(eighth);
        let limit = *limit;
        let mut spare = eighth + 1;
        self.producers.retain(|_, p| {
            let go = p.last_ms <= limit && spare > 0;
            spare -= usize::from(go);
            !go
        });
    }

    /// For the checkpoint. Little-endian: count u32, then per producer id i64, epoch i16, last ms i64, batches u8, and
    /// per batch first and last sequence i32, base and next offset i64.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 + self.producers.len() * 64);
        out.extend_from_slice(&(self.producers.len() as u32).to_le_bytes());
        for (id, producer) in &self.producers {
            out.extend_from_slice(&id.to_le_bytes());
            out.extend_from_slice(&producer.epoch.to_le_bytes());
            out.extend_from_slice(&producer.last_ms.to_le_bytes());
            out.push(producer.batches.len() as u8);
            for batch in &producer.batches {
                out.extend_from_slice(&batch.first_sequence.to_le_bytes());
                out.extend_from_slice(&batch.last_sequence.to_le_bytes());
                out.extend_from_slice(&batch.base_offset.to_le_bytes());
                out.extend_from_slice(&batch.next_offset.to_le_bytes());
            }
        }
        out
    }

    /// `None`: not what [`encode`](Self::encode) writes.
    pub fn decode(bytes: &[u8]) -> Option<ProducerStates> {
        let mut input = Input(bytes);
        let count = u32::from_le_bytes(input.take()?);
        let mut producers = HashMap::new();
        for _ in 0..count {
            let id = i64::from_le_bytes(input.take()?);
            let epoch = i16::from_le_bytes(input.take()?);
            let last_ms = i64::from_le_bytes(input.take()?);
            let [batch_count] = input.take()?;
            let mut batches = VecDeque::with_capacity(WINDOW);
            for _ in 0..batch_count {
                batches.push_back(Batch {
                    first_sequence: i32::from_le_bytes(input.take()?),
                    last_sequence: i32::from_le_bytes(input.take()?),
                    base_offset: i64::from_le_bytes(input.take()?),
                    next_offset: i64::from_le_bytes(input.take()?),
                });
            }
            producers.insert(id, Producer { epoch, last_ms, batches });
        }
        input.0.is_empty().then_some(ProducerStates { producers })
    }
}

struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
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

    fn written(batches: &[(i32, i32)]) -> ProducerStates {
        let mut states = ProducerStates::default();
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
    fn truncation_forgets_what_is_gone() {
        let mut states = written(&[(0, 1), (1, 2), (3, 3)]);
        states.truncate(103);
        assert_eq!(states.check(&batch(0, 3, 3)), SequenceCheck::Next);
        states.truncate(100);
        assert!(states.producers.is_empty());
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let mut states = ProducerStates::default();
        states.note(&batch(0, i32::MAX - 1, 2), 0, 1);
        assert_eq!(states.check(&batch(0, 0, 1)), SequenceCheck::Next);
        assert_eq!(states.check(&batch(0, 1, 1)), SequenceCheck::Refused(ErrorCode::OutOfOrderSequenceNumber));
    }

    #[test]
    fn snapshots_round_trip_and_damage_is_noticed() {
        let states = written(&[(0, 1), (1, 2)]);
        let bytes = states.encode();
        assert_eq!(ProducerStates::decode(&bytes), Some(states));
        assert_eq!(ProducerStates::decode(&bytes[..bytes.len() - 1]), None);
        assert_eq!(ProducerStates::decode(&[bytes, vec![0]].concat()), None);
    }

    #[test]
    fn idle_producers_expire_and_the_number_is_bounded() {
        let mut states = written(&[(0, 1)]);
        states.expire(1000, 1000);
        assert_eq!(states.producers.len(), 1);
        states.expire(1001, 1000);
        assert!(states.producers.is_empty());
        let mut header = batch(0, 0, 1);
        for id in 0..=MAX_PRODUCERS as i64 {
            header.producer_id.set(id);
            states.note(&header, 0, id);
        }
        assert!(states.producers.len() <= MAX_PRODUCERS);
        assert!(!states.producers.contains_key(&0) && states.producers.contains_key(&(MAX_PRODUCERS as i64)));
    }
}
