//! Transactions in a partition's log (KIP-98): their batches and markers appended, and what readers
//! of committed records see.

use std::rc::Rc;

use bytes::Bytes;
use zerocopy::FromZeros;

use super::producer_state::ProducerStates;
use super::replica::{Accepted, Rejected, Replica, storage_error};
use super::transactions::Transactions;
use super::verification::Verified;
use super::waiters::DataWaiter;
use crate::model::record_batch::BatchHeader;
use crate::model::{EndMarker, ErrorCode, Marker, MarkerKind};
use crate::storage::{AbortedTxn, LogRead, RecoveredBatch, StorageError};

/// Takes note of a batch with a producer id that recovery has read.
pub(super) fn recover(
    producers: &mut ProducerStates,
    transactions: &mut Transactions,
    batch: &mut RecoveredBatch<'_>,
    now_ms: i64,
) {
    let (producer_id, offset) = (batch.producer_id.get(), batch.base());
    match batch.marker {
        Some(end) => {
            if let Some(first) = producers.note_stored_marker(batch, end, now_ms) {
                if end.kind == MarkerKind::Abort {
                    batch.note_aborted(aborted(transactions, producer_id, first, offset));
                }
                transactions.end(first, offset);
            }
        }
        None if batch.is_control() => {}
        None => {
            if producers.note_stored(batch, now_ms) {
                transactions.begin(offset, producer_id);
            }
        }
    }
}

/// The open transaction that begins at `first_offset`, aborted by a marker at `last_offset`.
fn aborted(transactions: &Transactions, producer_id: i64, first_offset: i64, last_offset: i64) -> AbortedTxn {
    let last_stable_offset = transactions.stable_after(first_offset, last_offset);
    AbortedTxn { producer_id, first_offset, last_offset, last_stable_offset }
}

/// Facts known beforehand of a batch in a transaction that the broker makes: it has no sequence.
fn own(producer_id: i64, producer_epoch: i16) -> BatchHeader {
    let mut header = BatchHeader::new_zeroed();
    header.producer_id.set(producer_id);
    header.producer_epoch.set(producer_epoch);
    header.base_sequence.set(-1);
    header
}

// ---- writing

impl Replica {
    /// Has a transaction end here: checks the marker and appends it. As [`append`](Self::append).
    pub fn append_marker(&self, marker: &Marker, now_ms: i64) -> Result<Accepted, Rejected> {
        self.may_append(true)?;
        if let Err(code) = self.producers.borrow().check_marker(marker) {
            let message = format!("{code}: {marker:?} in {}-{}", self.topic, self.id.index);
            return Err(Rejected::new(code, message));
        }
        let batch = Bytes::from(marker.batch(now_ms));
        let header = BatchHeader::peek(&batch).copied();
        let Some(header) = header else { return Err(storage_error(StorageError::Closed)) };
        let appended = self.log.append(batch, self.leader_epoch().0, now_ms).map_err(storage_error)?;
        self.note_received(&header);
        let end = EndMarker { kind: marker.kind, coordinator_epoch: marker.coordinator_epoch };
        self.note_marker(&header, end, appended.base_offset, now_ms).map_err(storage_error)?;
        let (base_offset, next_offset) = (appended.base_offset, appended.next_offset);
        let (term, cuts) = (self.term(), self.standing.cuts.get().count());
        Ok(Accepted { base_offset, next_offset, log_append_time_ms: -1, term, cuts })
    }

    /// The verification that the batch needs before it may be appended. `begins_at_zero`: the
    /// transaction is of `transaction.version` 2.
    pub fn begin_verification(
        &self,
        header: &BatchHeader,
        begins_at_zero: bool,
        now_ms: i64,
    ) -> Result<Verified, Rejected> {
        let producers = self.producers.borrow();
        let asked = self.verifications.borrow_mut().ask(header, begins_at_zero, &producers, now_ms);
        asked.map_err(|code| match code {
            ErrorCode::NotEnoughReplicas => Rejected::new(code, "too many transactions begin"),
            code => self.refused_sequence(code, header),
        })
    }

    /// The coordinator has refused the verification for good.
    pub fn verification_refused(&self, producer_id: i64, verified: Verified) {
        if let Verified::By(guard) = verified {
            self.verifications.borrow_mut().refused(producer_id, guard);
        }
    }

    /// Refuses a batch whose transaction is not open, and that its coordinator does
    /// not know to be part of one.
    pub(super) fn is_verified(&self, header: &BatchHeader, verified: Verified) -> Result<(), Rejected> {
        let admitted = self.verifications.borrow().admit(header, verified, &self.producers.borrow());
        admitted.map_err(|code| match code {
            ErrorCode::InvalidTxnState => Rejected::new(code, "the transaction has ended meanwhile"),
            code => self.refused_sequence(code, header),
        })
    }

    /// Refuses a batch that would begin a transaction for which there is no memory.
    pub(super) fn may_join_transaction(&self, header: &BatchHeader) -> Result<(), Rejected> {
        let producers = self.producers.borrow();
        if producers.has_open(header) || producers.has_room_for_transaction() {
            return Ok(());
        }
        let why =
            "too many transactions are open: half of corelane.producer.state.max.bytes is taken by their producers";
        Err(Rejected::new(ErrorCode::NotEnoughReplicas, why))
    }

    /// [`begin_verification`](Self::begin_verification) for [`append_own`](Self::append_own).
    pub fn begin_own(&self, producer_id: i64, producer_epoch: i16, now_ms: i64) -> Result<Verified, ErrorCode> {
        let begun = self.begin_verification(&own(producer_id, producer_epoch), false, now_ms);
        begun.map_err(|rejected| rejected.code)
    }

    /// Refuses a batch of the producer's transaction that [`append_own`](Self::append_own) would
    /// not take now.
    pub fn check_own(&self, producer_id: i64, producer_epoch: i16, verified: Verified) -> Result<(), ErrorCode> {
        let header = own(producer_id, producer_epoch);
        self.producers.borrow().check_epoch(&header)?;
        let verified = self.is_verified(&header, verified);
        verified.and_then(|()| self.may_join_transaction(&header)).map_err(|rejected| rejected.code)
    }

    /// A transaction begins with the batch that was appended at `offset`.
    pub(super) fn transaction_begins(&self, header: &BatchHeader, offset: i64) {
        self.verifications.borrow_mut().end(header.producer_id.get());
        self.standing.transactions.borrow_mut().begin(offset, header.producer_id.get());
        self.standing.transactions_moved();
    }

    /// A marker was appended at `offset`.
    fn note_marker(&self, header: &BatchHeader, end: EndMarker, offset: i64, now_ms: i64) -> Result<(), StorageError> {
        self.verifications.borrow_mut().end(header.producer_id.get());
        let ended = self.producers.borrow_mut().note_marker(header, end, offset, now_ms);
        let Some(first) = ended else { return Ok(()) };
        if end.kind == MarkerKind::Abort {
            let txn = aborted(&self.standing.transactions.borrow(), header.producer_id.get(), first, offset);
            self.log.note_aborted(txn)?;
        }
        self.standing.transactions.borrow_mut().end(first, offset);
        self.standing.transactions_moved();
        Ok(())
    }

    /// A leader's batch with a producer id was appended as it is, at `offset`.
    /// `end`: it is a marker.
    pub(super) fn note_as_is(
        &self,
        header: &BatchHeader,
        end: Option<EndMarker>,
        offset: i64,
        now_ms: i64,
    ) -> Result<(), StorageError> {
        match end {
            Some(end) => self.note_marker(header, end, offset, now_ms),
            None if header.is_control() => Ok(()),
            None => {
                let begun = self.producers.borrow_mut().note(header, offset, now_ms);
                if begun {
                    self.transaction_begins(header, offset);
                }
                Ok(())
            }
        }
    }

    /// The log ends at `end`, and the producers are as they are then.
    pub(super) fn transactions_cut(&self, end: i64) {
        let open = self.producers.borrow().open_transactions();
        self.standing.transactions.borrow_mut().cut(end, open.into_iter());
        self.standing.transactions_moved();
        self.standing.high_watermark_moved(true);
    }
}

// ---- reading

impl Replica {
    /// Everything before this is committed, and of transactions decided.
    pub fn last_stable_offset(&self) -> i64 {
        self.standing.last_stable_offset(self.start_offset())
    }

    /// Transactions with records here that have not ended.
    pub fn open_transactions(&self) -> usize {
        self.standing.transactions.borrow().open()
    }

    /// Whole batches from `offset` on, up to the last stable offset, and the transactions with
    /// records among them that were aborted. Otherwise as [`read`](Self::read).
    pub async fn read_decided(&self, offset: i64, max_bytes: usize) -> Result<(LogRead, Vec<AbortedTxn>), ErrorCode> {
        let limit = self.last_stable_offset();
        loop {
            let forgotten = self.log.forgotten_aborted();
            let read = self.read_visible(offset, limit, max_bytes, false).await?;
            let aborted = match read.records.is_empty() || !self.log.may_have_aborted(offset) {
                true => Vec::new(),
                false => {
                    let end = read.end_offset().unwrap_or(limit).min(limit);
                    self.log.aborted_within(offset, end).await.map_err(|error| self.read_error(error))?
                }
            };
            if self.log.forgotten_aborted() == forgotten {
                return Ok((read, aborted));
            }
        }
    }

    /// Fires `waiter` when the last stable offset moves past `seen`; otherwise as
    /// [`expect_data`](Self::expect_data).
    pub fn expect_decided(&self, seen: i64, waiter: &Rc<DataWaiter>) {
        if self.last_stable_offset() > seen
            || self.led_epoch().is_none()
            || self.failure().is_some_and(|failure| !failure.is_full())
        {
            waiter.fire();
        } else {
            self.standing.waiters.stable.add(waiter);
        }
    }
}
