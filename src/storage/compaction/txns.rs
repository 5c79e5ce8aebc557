//! Transactions that come by while a log is read in order: which records were aborted, and which
//! markers nothing is left of. Pure; the rules are those of Kafka's cleaner.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::model::record_batch::BatchHeader;
use crate::model::{EndMarker, MarkerKind};
use crate::storage::aborted::AbortedTxn;

/// A cleaning's knowledge of transactions, as of the batch that it has come to.
#[derive(Clone, Debug, Default)]
pub struct Txns {
    /// Aborted ones that have not begun, by first offset.
    to_come: VecDeque<AbortedTxn>,
    /// Aborted ones that have begun, by producer.
    aborted: HashMap<i64, Aborting>,
    /// Producers of which there are batches of a transaction that is not known as aborted.
    others: HashSet<i64>,
    /// Aborted ones of which there were records still: their markers have to be known.
    kept: Vec<AbortedTxn>,
}

#[derive(Clone, Copy, Debug)]
struct Aborting {
    txn: AbortedTxn,
    has_records: bool,
}

impl Txns {
    /// `aborted`: those with records, or a marker, from the first batch on.
    pub fn new(mut aborted: Vec<AbortedTxn>) -> Txns {
        aborted.sort_by_key(|txn| txn.first_offset);
        Txns { to_come: aborted.into(), ..Txns::default() }
    }

    fn begin_before(&mut self, last_offset: i64) {
        while let Some(txn) = self.to_come.pop_front_if(|txn| txn.first_offset <= last_offset) {
            self.aborted.insert(txn.producer_id, Aborting { txn, has_records: false });
        }
    }

    /// The next batch, of a transaction's records. True if it was aborted.
    pub fn is_aborted(&mut self, header: &BatchHeader) -> bool {
        self.begin_before(header.next_offset() - 1);
        let producer_id = header.producer_id.get();
        match self.aborted.get_mut(&producer_id) {
            Some(aborting) => {
                aborting.has_records |= header.record_count.get() > 0;
                true
            }
            None => {
                self.others.insert(producer_id);
                false
            }
        }
    }

    /// The next batch, a marker. True if nothing is left of its transaction, and
    /// nobody is told of it any more.
    pub fn is_empty(&mut self, header: &BatchHeader, end: EndMarker) -> bool {
        self.begin_before(header.base());
        let producer_id = header.producer_id.get();
        // Batches without records would open a transaction, too, where they are replicated.
        let has_batches = self.others.remove(&producer_id);
        match self.aborted.remove(&producer_id).filter(|_| end.kind == MarkerKind::Abort) {
            // The marker goes in a later cleaning than the entry: without it a reader would leave
            // out what the producer has written since.
            Some(aborting) => {
                self.kept.extend(aborting.has_records.then_some(aborting.txn));
                false
            }
            None => !has_batches,
        }
    }

    /// The aborted transactions whose markers have come by since the last call and that
    /// readers have to know of.
    pub fn take_kept(&mut self) -> Vec<AbortedTxn> {
        std::mem::take(&mut self.kept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::testing;

    fn header(producer_id: i64, offset: i64) -> BatchHeader {
        let mut header = testing::header(1, 0);
        header.base_offset.set(offset);
        header.producer_id.set(producer_id);
        header
    }

    fn txn(producer_id: i64, first_offset: i64, last_offset: i64) -> AbortedTxn {
        AbortedTxn { producer_id, first_offset, last_offset, last_stable_offset: last_offset + 1 }
    }

    fn end(kind: MarkerKind) -> EndMarker {
        EndMarker { kind, coordinator_epoch: 0 }
    }

    #[test]
    fn what_was_aborted_goes_and_its_marker_stays_until_nobody_is_told_of_it() {
        let aborted = vec![txn(7, 30, 34), txn(7, 3, 20), txn(8, 15, 21)];
        let mut txns = Txns::new(aborted.clone());
        assert!(!txns.is_aborted(&header(7, 1)), "of a transaction before");
        assert!(!txns.is_empty(&header(7, 2), end(MarkerKind::Commit)));
        assert!(txns.is_aborted(&header(7, 3)));
        assert!(!txns.is_aborted(&header(9, 4)));
        assert!(!txns.is_empty(&header(7, 20), end(MarkerKind::Abort)));
        assert!(!txns.is_empty(&header(8, 21), end(MarkerKind::Abort)), "cleaned before, and told of");
        assert_eq!(txns.take_kept(), [aborted[1]]);
        assert!(!txns.is_aborted(&header(7, 22)), "between two");
        assert!(!txns.is_empty(&header(9, 23), end(MarkerKind::Commit)));
        assert!(txns.is_empty(&header(9, 24), end(MarkerKind::Commit)), "nothing before it is left");
        let mut later = Txns::new(vec![]);
        assert!(later.is_empty(&header(8, 21), end(MarkerKind::Abort)));
        assert_eq!(later.take_kept(), []);
    }
}
