//! Outcomes of transactions as the observer sees them. A transaction is its producer's id and
//! epoch, for the epoch rises with each end. Its outcome is what the first committed record of its
//! end in the log of `__transaction_state` says: no marker, no reader of committed records and no
//! client may be told another one.

use std::collections::{BTreeMap, BTreeSet};

use super::checker::Checker;
use super::disk::Batch;
use super::place::{OFFSETS, TRANSACTIONS, partition_at};
use crate::model::{Marker, MarkerKind};
use crate::transactions::State;
use crate::transactions::api::Producer;
use crate::transactions::record::Record;

/// Producer id, and the epoch of the records.
type Transaction = (i64, i16);

#[derive(Clone, Debug)]
struct Decision {
    of: Transaction,
    commit: bool,
    partitions: Vec<usize>,
}

#[derive(Debug, Default)]
pub struct Outcomes {
    /// By batch of the coordinators' log.
    written: BTreeMap<u64, Vec<Decision>>,
    /// Those that are committed.
    decided: BTreeMap<Transaction, Decision>,
    /// Markers that are committed, by partition.
    marked: BTreeSet<(usize, Transaction)>,
}

/// The transaction that an end with this epoch is of.
fn ended_by(id: i64, epoch: i16) -> Transaction {
    (id, epoch - 1)
}

impl Checker {
    /// No record of a transaction's outcome was lost.
    pub fn knows_outcomes(&self) -> bool {
        !self.has_lost(TRANSACTIONS)
    }

    fn outcome(&self, of: Transaction) -> Option<bool> {
        self.outcomes.decided.get(&of).map(|decision| decision.commit)
    }

    /// The transaction is committed, or nobody knows its outcome any more.
    pub fn may_be_committed(&self, of: Transaction) -> bool {
        self.outcome(of) == Some(true) || !self.knows_outcomes()
    }

    /// A coordinator appends these.
    pub fn transactions_written(&mut self, batch: &Batch, records: &[Record]) {
        for record in records {
            let Some(value) = &record.value else { continue };
            let of = ended_by(value.producer.id, value.producer.epoch);
            if value.state.is_ending() {
                let partitions = value.partitions.iter().map(|(topic, number)| partition_at(topic, *number)).collect();
                let decision = Decision { of, commit: value.state == State::PrepareCommit, partitions };
                self.outcomes.written.entry(batch.id).or_default().push(decision);
            }
            if matches!(value.state, State::CompleteCommit | State::CompleteAbort) {
                self.completes(of);
            }
        }
    }

    /// A coordinator takes a transaction for ended everywhere.
    fn completes(&mut self, of: Transaction) {
        let partitions = self.outcomes.decided.get(&of).map_or(&[][..], |decision| &decision.partitions);
        let is_open = |at: &&usize| !self.has_lost(**at) && !self.outcomes.marked.contains(&(**at, of));
        if let Some(at) = partitions.iter().find(is_open).filter(|_| self.knows_outcomes()) {
            let what = format!("{of:?} has no marker in partition {at}");
            self.broken("a transaction is complete without its markers", what);
        }
    }

    /// A batch stands in the canonical row now.
    pub(super) fn became_canonical(&mut self, partition: usize, batch: &Batch) {
        if partition == TRANSACTIONS {
            for decision in self.outcomes.written.get(&batch.id).cloned().unwrap_or_default() {
                let before = self.outcomes.decided.insert(decision.of, decision.clone());
                if before.is_some_and(|before| before.commit != decision.commit) && self.knows_outcomes() {
                    self.broken("a transaction has two outcomes", format!("{decision:?}"));
                }
            }
        }
        if let (Some(end), Some((id, epoch, _))) = (batch.marker, batch.producer) {
            let of = ended_by(id, epoch);
            self.outcomes.marked.insert((partition, of));
            if partition == OFFSETS && end.kind == MarkerKind::Commit {
                self.offsets_end(of, batch.epoch);
            }
        }
    }

    /// A leader takes a marker.
    pub fn ends(&mut self, partition: usize, marker: &Marker) {
        let of = ended_by(marker.producer_id, marker.producer_epoch);
        let outcome = self.outcome(of);
        if outcome != Some(marker.kind == MarkerKind::Commit) && self.knows_outcomes() {
            let what = format!("partition {partition}: {marker:?}, decided is {outcome:?}");
            self.broken("a marker says what is not decided", what);
        }
    }

    /// A reader of committed records is given a batch, and takes it for part of an aborted
    /// transaction or `shown` it to its user.
    pub fn read_committed(&mut self, partition: usize, batch: &Batch, shown: bool) {
        let Some((id, epoch, _)) = batch.producer.filter(|_| batch.in_txn && batch.marker.is_none()) else { return };
        let outcome = self.outcome((id, epoch));
        if outcome != Some(shown) && self.knows_outcomes() && !self.has_lost(partition) {
            let what = format!("partition {partition}: {batch:?} shown: {shown}, decided to commit: {outcome:?}");
            self.broken("a reader of committed records sees another outcome", what);
        }
    }

    /// A client is told that its transaction has ended so.
    pub fn told_of_end(&mut self, producer: Producer, commit: bool) {
        let outcome = self.outcome((producer.id, producer.epoch));
        if outcome != Some(commit) && self.knows_outcomes() {
            let what = format!("{producer:?} commit: {commit}, decided to commit: {outcome:?}");
            self.broken("a client is told of an outcome that is not decided", what);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::EndMarker;
    use crate::simulator::disk::{Acknowledge, Disk};
    use crate::simulator::place::{FIRST, TOPIC};
    use crate::transactions::Transaction as Value;

    const PRODUCER: Producer = Producer { id: 7, epoch: 3 };

    /// The coordinators' log and that of the clients' partition.
    struct Logs {
        checker: Checker,
        disks: [Disk; 2],
        ids: u64,
    }

    impl Logs {
        fn new() -> Logs {
            let disk = || Disk::new(Acknowledge::Held);
            Logs { checker: Checker::new(FIRST + 1), disks: [disk(), disk()], ids: 0 }
        }

        fn append(&mut self, partition: usize, batch: Batch) -> Batch {
            let disk = &mut self.disks[partition - TRANSACTIONS];
            self.ids += 1;
            disk.append(Batch { base: disk.ends.appended, count: 1, id: self.ids, ..batch })
        }

        fn commit(&mut self, partition: usize) {
            let disk = &self.disks[partition - TRANSACTIONS];
            self.checker.committed(partition, 0, 0, disk, disk.ends.appended);
        }

        /// A coordinator writes the state of a transaction whose records have
        /// the epoch of [`PRODUCER`].
        fn write(&mut self, state: State) {
            let mut value = Value::new(PRODUCER.id, 1_000, 0);
            (value.producer.epoch, value.state) = (PRODUCER.epoch + 1, state);
            value.partitions.insert((TOPIC.into(), 0));
            let batch = self.append(TRANSACTIONS, Batch::default());
            self.checker.transactions_written(&batch, &[Record { id: "x".into(), value: Some(value) }]);
        }

        fn decided(state: State) -> Logs {
            let mut logs = Logs::new();
            logs.write(state);
            logs.commit(TRANSACTIONS);
            logs
        }

        fn records(&mut self) -> Batch {
            self.append(
                FIRST,
                Batch { producer: Some((PRODUCER.id, PRODUCER.epoch, 0)), in_txn: true, ..Batch::default() },
            )
        }

        fn mark(&mut self, kind: MarkerKind) {
            let (producer_id, producer_epoch) = (PRODUCER.id, PRODUCER.epoch + 1);
            let (coordinator_epoch, transaction_version) = (0, 2);
            self.checker
                .ends(FIRST, &Marker { producer_id, producer_epoch, kind, coordinator_epoch, transaction_version });
            let (producer, marker) =
                (Some((producer_id, producer_epoch, -1)), Some(EndMarker { kind, coordinator_epoch }));
            self.append(FIRST, Batch { producer, in_txn: true, marker, ..Batch::default() });
        }

        fn rule(&self) -> Option<&'static str> {
            self.checker.violation().map(|violation| violation.rule)
        }
    }

    #[test]
    fn a_marker_follows_the_committed_record_of_its_outcome() {
        let mut logs = Logs::new();
        logs.write(State::PrepareCommit);
        logs.mark(MarkerKind::Commit);
        assert_eq!(logs.rule(), Some("a marker says what is not decided"), "it is not committed");
        let mut logs = Logs::decided(State::PrepareCommit);
        logs.mark(MarkerKind::Commit);
        assert_eq!(logs.rule(), None);
        logs.mark(MarkerKind::Abort);
        assert_eq!(logs.rule(), Some("a marker says what is not decided"));
    }

    #[test]
    fn a_transaction_is_complete_once_all_its_markers_are_committed() {
        let mut logs = Logs::decided(State::PrepareCommit);
        logs.mark(MarkerKind::Commit);
        logs.write(State::CompleteCommit);
        assert_eq!(logs.rule(), Some("a transaction is complete without its markers"));
        let mut logs = Logs::decided(State::PrepareCommit);
        logs.mark(MarkerKind::Commit);
        logs.commit(FIRST);
        logs.write(State::CompleteCommit);
        assert_eq!(logs.rule(), None);
    }

    #[test]
    fn the_first_outcome_is_the_last() {
        let mut logs = Logs::decided(State::PrepareAbort);
        logs.write(State::PrepareAbort);
        logs.commit(TRANSACTIONS);
        assert_eq!(logs.rule(), None);
        logs.write(State::PrepareCommit);
        logs.commit(TRANSACTIONS);
        assert_eq!(logs.rule(), Some("a transaction has two outcomes"));
    }

    #[test]
    fn readers_and_clients_see_the_outcome() {
        const READ: Option<&str> = Some("a reader of committed records sees another outcome");
        let seen = |decided: Option<State>, shown| {
            let mut logs = decided.map_or_else(Logs::new, Logs::decided);
            let batch = logs.records();
            logs.checker.read_committed(FIRST, &batch, shown);
            logs.rule()
        };
        assert_eq!((seen(Some(State::PrepareCommit), true), seen(Some(State::PrepareAbort), false)), (None, None));
        assert_eq!((seen(Some(State::PrepareCommit), false), seen(Some(State::PrepareAbort), true)), (READ, READ));
        assert_eq!(seen(None, true), READ, "it is open");
        let told = |commit| {
            let mut logs = Logs::decided(State::PrepareCommit);
            logs.checker.told_of_end(PRODUCER, commit);
            logs.rule()
        };
        assert_eq!((told(true), told(false)), (None, Some("a client is told of an outcome that is not decided")));
    }

    #[test]
    fn no_record_stands_behind_the_end_of_its_transaction() {
        let mut logs = Logs::decided(State::PrepareCommit);
        logs.records();
        logs.mark(MarkerKind::Commit);
        logs.mark(MarkerKind::Commit);
        logs.commit(FIRST);
        assert_eq!(logs.rule(), None, "a marker may be written more than once");
        logs.append(
            FIRST,
            Batch { producer: Some((PRODUCER.id, PRODUCER.epoch, 1)), in_txn: true, ..Batch::default() },
        );
        logs.commit(FIRST);
        assert_eq!(logs.rule(), Some("I7: a duplicate, or out of order"));
    }
}
