//! The transactions of one partition that keep readers of committed records from
//! going on (KIP-98). Pure.
//!
//! *Open*: begun, and not ended by a marker. *Decided*: ended by a marker that is not committed
//! itself yet. The *last stable offset* is the high watermark, or the first record of the earliest
//! of these where that is lower.

use std::collections::BTreeMap;

use crate::model::planted::{Planted, planted};

/// Stands for "there is none".
pub const NONE: i64 = i64::MAX;

/// The last stable offset: everything before it is committed, and of transactions decided.
/// `start`: where the log begins.
pub fn last_stable_offset(high_watermark: i64, first_unstable: i64, start: i64) -> i64 {
    high_watermark.min(first_unstable.max(start))
}

/// Transactions by their first offset.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transactions {
    /// First offset to producer.
    open: BTreeMap<i64, i64>,
    /// First offset to that of the marker.
    decided: BTreeMap<i64, i64>,
}

impl Transactions {
    pub fn begin(&mut self, first_offset: i64, producer_id: i64) {
        self.open.insert(first_offset, producer_id);
    }

    /// A marker at `last_offset` ends the transaction.
    pub fn end(&mut self, first_offset: i64, last_offset: i64) {
        self.open.remove(&first_offset);
        self.decided.insert(first_offset, last_offset);
    }

    /// Everything before `high_watermark` is committed.
    pub fn committed(&mut self, high_watermark: i64) {
        self.decided.retain(|_, last_offset| *last_offset >= high_watermark);
    }

    /// How many have not ended.
    pub fn open(&self) -> usize {
        self.open.len()
    }

    /// The first record of the earliest transaction; [`NONE`]: there is none.
    pub fn first_unstable(&self) -> i64 {
        let first = |by_first: &BTreeMap<i64, i64>| by_first.first_key_value().map_or(NONE, |(first, _)| *first);
        first(&self.open).min(first(&self.decided))
    }

    /// The last stable offset once the open transaction at `first_offset` has been ended by a
    /// marker at `last_offset`, and all before that has been committed.
    pub fn stable_after(&self, first_offset: i64, last_offset: i64) -> i64 {
        self.open.keys().copied().find(|first| *first != first_offset).unwrap_or(last_offset + 1)
    }

    /// The log ends at `end`; `open` are the transactions that are open then.
    pub fn cut(&mut self, end: i64, open: impl Iterator<Item = (i64, i64)>) {
        self.decided.retain(|_, last_offset| *last_offset < end);
        self.open = if planted(Planted::OpenForgottenByCut) { BTreeMap::new() } else { open.collect() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_holds_readers_up_until_its_marker_is_committed() {
        let mut transactions = Transactions::default();
        assert_eq!(transactions.first_unstable(), NONE);
        transactions.begin(10, 1);
        transactions.begin(15, 2);
        assert_eq!((transactions.first_unstable(), transactions.stable_after(10, 20)), (10, 15));
        assert_eq!(transactions.open(), 2);
        transactions.end(10, 20);
        transactions.committed(20);
        assert_eq!(transactions.first_unstable(), 10, "the marker itself is not committed");
        assert_eq!(transactions.open(), 1);
        transactions.committed(21);
        assert_eq!((transactions.first_unstable(), transactions.stable_after(15, 30)), (15, 31));
        transactions.end(15, 30);
        transactions.committed(31);
        assert_eq!(transactions, Transactions::default());
    }

    #[test]
    fn a_cut_takes_markers_and_transactions_back() {
        let mut transactions = Transactions::default();
        transactions.begin(10, 1);
        transactions.begin(12, 2);
        transactions.end(10, 20);
        transactions.cut(20, [(10, 1), (12, 2)].into_iter());
        assert_eq!(transactions.first_unstable(), 10);
        transactions.end(12, 20);
        transactions.committed(21);
        assert_eq!(transactions.first_unstable(), 10, "which is open again");
    }
}
