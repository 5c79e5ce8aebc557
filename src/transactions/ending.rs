//! The markers of a transaction that has its outcome, on their way to its partitions.

use super::env::Markers;
use crate::model::{ErrorCode, Marker, MarkerKind};

/// Consequence of a partition's answer to a marker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is written, or the partition needs none: it knows the producer in a later epoch, so
    /// nothing of this transaction is open there. That does not speak for other partitions. Kafka
    /// gives up all markers of the transaction then, and its id stays as it is for good.
    Done,
    /// It is to be written again.
    Again,
    /// Another coordinator has taken over: its markers are the last word, in every partition.
    Over,
}

impl Written {
    /// `code`: Kafka's number.
    pub fn of(code: i16) -> Written {
        let is = |of: ErrorCode| of.code() == code;
        match (is(ErrorCode::None) || is(ErrorCode::InvalidProducerEpoch), is(ErrorCode::TransactionCoordinatorFenced))
        {
            (true, _) => Written::Done,
            (_, true) => Written::Over,
            _ => Written::Again,
        }
    }
}

impl Markers {
    /// The marker for each partition. `coordinator_epoch`: the leader epoch of the
    /// coordinator's partition.
    pub fn marker(&self, coordinator_epoch: i32) -> Marker {
        Marker {
            producer_id: self.producer.id,
            producer_epoch: self.producer.epoch,
            kind: if self.commit { MarkerKind::Commit } else { MarkerKind::Abort },
            coordinator_epoch,
            transaction_version: i8::try_from(self.version).unwrap_or(i8::MAX),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A coordinator whose log has lost records is behind its producers. A partition that
    /// refuses the marker of an older epoch must not keep the others from theirs, nor the
    /// transaction from its end.
    #[test]
    fn a_partition_that_is_past_the_transaction_needs_no_marker() {
        assert_eq!(Written::of(ErrorCode::InvalidProducerEpoch.code()), Written::Done);
        assert_eq!(Written::of(ErrorCode::None.code()), Written::Done);
    }

    #[test]
    fn only_another_coordinator_ends_the_writing() {
        assert_eq!(Written::of(ErrorCode::TransactionCoordinatorFenced.code()), Written::Over);
        let passing =
            [ErrorCode::NotLeaderOrFollower, ErrorCode::NotEnoughReplicas, ErrorCode::UnknownTopicOrPartition];
        assert!(passing.into_iter().all(|code| Written::of(code.code()) == Written::Again));
    }
}
