//! Verification of transactions (KIP-890): the first records of a transaction are appended only
//! once its coordinator has said that the partition takes part in it. Without that, records that
//! come late would open a transaction which nobody ends. Pure.
//!
//! A verification that was begun has a number. It counts only until the producer's next batch or
//! marker, so that an answer of before cannot let records into a later transaction.

use std::collections::HashMap;

use super::producer_state::{ProducerStates, SequenceCheck};
use crate::model::ErrorCode;
use crate::model::planted::{Planted, planted};
use crate::model::record_batch::BatchHeader;

/// Producers whose verification is under way, or has failed in a way that passes.
const MAX_PENDING: usize = 1000;
/// A verification that was begun before gives way to others.
const PATIENCE_MS: i64 = 60_000;

/// The number of a verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Guard(u64);

/// A batch's verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    /// Verification is off, or the batch needs none.
    Unasked,
    /// Its transaction was open when it was asked for.
    Open,
    /// The coordinator has said so.
    By(Guard),
}

#[derive(Clone, Copy, Debug)]
struct Pending {
    guard: Guard,
    /// The lowest sequence that was asked for: a batch behind one that is to be sent again would
    /// have that refused for ever.
    lowest_sequence: i32,
    epoch: i16,
    /// The transaction is of `transaction.version` 2: a producer that is not known begins at 0.
    begins_at_zero: bool,
    begun_ms: i64,
}

/// A coordinator's answer that says that the producer has no such transaction:
/// asking again changes nothing.
pub fn is_final(code: ErrorCode) -> bool {
    matches!(
        code,
        ErrorCode::InvalidProducerIdMapping
            | ErrorCode::InvalidProducerEpoch
            | ErrorCode::ProducerFenced
            | ErrorCode::InvalidTxnState
            | ErrorCode::TransactionAbortable
            | ErrorCode::UnknownTopicOrPartition
    )
}

/// The verifications of one partition, by producer.
#[derive(Debug, Default)]
pub struct Verifications {
    pending: HashMap<i64, Pending>,
    count: u64,
}

impl Verifications {
    /// The verification that a batch in a transaction needs before it may be appended. The error is
    /// one of sequences, or NOT_ENOUGH_REPLICAS: too many transactions begin.
    pub fn ask(
        &mut self,
        header: &BatchHeader,
        begins_at_zero: bool,
        producers: &ProducerStates,
        now_ms: i64,
    ) -> Result<Verified, ErrorCode> {
        producers.check_epoch(header)?;
        if producers.has_open(header) {
            return Ok(Verified::Open);
        }
        if planted(Planted::TransactionUnverified) {
            return Ok(Verified::Unasked);
        }
        self.begin(header, begins_at_zero, now_ms).map(Verified::By)
    }

    /// Refuses a batch whose transaction is not open, and that its coordinator does
    /// not know to be part of one.
    pub fn admit(&self, header: &BatchHeader, verified: Verified, producers: &ProducerStates) -> Result<(), ErrorCode> {
        let guard = match verified {
            Verified::Unasked => return Ok(()),
            Verified::Open | Verified::By(_) if producers.has_open(header) => return Ok(()),
            Verified::Open => None,
            Verified::By(guard) => Some(guard),
        };
        match self.check(header, guard, producers.knows(header.producer_id.get())) {
            SequenceCheck::Refused(code) => Err(code),
            SequenceCheck::Next | SequenceCheck::Duplicate { .. } => Ok(()),
        }
    }

    /// A batch is to begin a transaction. Goes on with the verification that is
    /// under way for its producer.
    pub fn begin(&mut self, header: &BatchHeader, begins_at_zero: bool, now_ms: i64) -> Result<Guard, ErrorCode> {
        let (id, epoch, sequence) = (header.producer_id.get(), header.producer_epoch.get(), header.base_sequence.get());
        if let Some(pending) = self.pending.get_mut(&id) {
            let next_epoch = epoch > pending.epoch;
            if next_epoch || epoch == pending.epoch && sequence < pending.lowest_sequence {
                (pending.epoch, pending.lowest_sequence) = (epoch, sequence);
            }
            return Ok(pending.guard);
        }
        if self.pending.len() >= MAX_PENDING {
            self.pending.retain(|_, pending| now_ms.saturating_sub(pending.begun_ms) < PATIENCE_MS);
        }
        if self.pending.len() >= MAX_PENDING {
            return Err(ErrorCode::NotEnoughReplicas);
        }
        self.count += 1;
        let guard = Guard(self.count);
        let pending = Pending { guard, lowest_sequence: sequence, epoch, begins_at_zero, begun_ms: now_ms };
        self.pending.insert(id, pending);
        Ok(guard)
    }

    /// The rules for a batch whose transaction is not open, beside those of sequences. `is_known`:
    /// the partition knows its producer.
    pub fn check(&self, header: &BatchHeader, guard: Option<Guard>, is_known: bool) -> SequenceCheck {
        let pending = self.pending.get(&header.producer_id.get());
        let Some(pending) = pending.filter(|pending| Some(pending.guard) == guard) else {
            return SequenceCheck::Refused(ErrorCode::InvalidTxnState);
        };
        let sequence = header.base_sequence.get();
        let begins_late = pending.begins_at_zero && sequence != 0 && !is_known;
        match begins_late || sequence > pending.lowest_sequence {
            true => SequenceCheck::Refused(ErrorCode::OutOfOrderSequenceNumber),
            false => SequenceCheck::Next,
        }
    }

    /// The coordinator has refused for good: a made-up producer takes no place.
    pub fn refused(&mut self, producer_id: i64, guard: Guard) {
        if self.pending.get(&producer_id).is_some_and(|pending| pending.guard == guard) {
            self.pending.remove(&producer_id);
        }
    }

    /// The producer has written a batch, or its transaction has ended.
    pub fn end(&mut self, producer_id: i64) {
        if !self.pending.is_empty() {
            self.pending.remove(&producer_id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing;

    const REFUSED: SequenceCheck = SequenceCheck::Refused(ErrorCode::InvalidTxnState);
    const OUT_OF_ORDER: SequenceCheck = SequenceCheck::Refused(ErrorCode::OutOfOrderSequenceNumber);

    fn batch(producer_id: i64, epoch: i16, sequence: i32) -> BatchHeader {
        let mut header = testing::header(1, 0);
        header.producer_id.set(producer_id);
        header.producer_epoch.set(epoch);
        header.base_sequence.set(sequence);
        header
    }

    #[test]
    fn an_answer_counts_for_the_transaction_that_it_was_asked_for() {
        let mut verifications = Verifications::default();
        let first = batch(7, 0, 0);
        assert_eq!(verifications.check(&first, None, false), REFUSED);
        let guard = verifications.begin(&first, false, 0).unwrap();
        assert_eq!(verifications.begin(&first, false, 0), Ok(guard), "asked twice");
        assert_eq!(verifications.check(&first, None, false), REFUSED);
        assert_eq!(verifications.check(&first, Some(guard), false), SequenceCheck::Next);
        // A marker comes before the answer.
        verifications.end(7);
        assert_eq!(verifications.check(&first, Some(guard), false), REFUSED);
        let next = verifications.begin(&first, false, 0).unwrap();
        assert_ne!(next, guard);
        assert_eq!(verifications.check(&first, Some(guard), false), REFUSED, "of the transaction before");
    }

    #[test]
    fn a_batch_behind_one_that_is_sent_again_waits() {
        let mut verifications = Verifications::default();
        let guard = verifications.begin(&batch(7, 0, 5), false, 0).unwrap();
        assert_eq!(verifications.begin(&batch(7, 0, 3), false, 0), Ok(guard));
        let check =
            |verifications: &Verifications, sequence| verifications.check(&batch(7, 0, sequence), Some(guard), true);
        assert_eq!((check(&verifications, 5), check(&verifications, 3)), (OUT_OF_ORDER, SequenceCheck::Next));
        assert_eq!(verifications.begin(&batch(7, 1, 4), false, 0), Ok(guard));
        assert_eq!(check(&verifications, 4), SequenceCheck::Next, "a new epoch has sequences of its own");
        let guard = verifications.begin(&batch(8, 0, 4), true, 0).unwrap();
        assert_eq!(verifications.check(&batch(8, 0, 4), Some(guard), false), OUT_OF_ORDER);
        assert_eq!(verifications.check(&batch(8, 0, 4), Some(guard), true), SequenceCheck::Next);
    }

    #[test]
    fn so_many_at_a_time() {
        let mut verifications = Verifications::default();
        for id in 0..MAX_PENDING as i64 {
            verifications.begin(&batch(id, 0, 0), false, id).unwrap();
        }
        assert_eq!(verifications.begin(&batch(-5, 0, 0), false, 100), Err(ErrorCode::NotEnoughReplicas));
        assert!(verifications.begin(&batch(-5, 0, 0), false, PATIENCE_MS).is_ok(), "the oldest has given up");
    }

    #[test]
    fn who_is_refused_for_good_takes_no_place() {
        let mut verifications = Verifications::default();
        for id in 0..2 * MAX_PENDING as i64 {
            let guard = verifications.begin(&batch(id, 0, 0), false, 0).unwrap();
            verifications.refused(id, guard);
        }
        let before = verifications.begin(&batch(7, 0, 0), false, 0).unwrap();
        verifications.end(7);
        let guard = verifications.begin(&batch(7, 0, 0), false, 0).unwrap();
        verifications.refused(7, before);
        assert_eq!(verifications.check(&batch(7, 0, 0), Some(guard), false), SequenceCheck::Next, "of the one before");
    }
}
