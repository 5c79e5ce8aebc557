//! A partition's memory of its idempotent producers (KIP-98): the newest five batches of each, and
//! the transactions that they have open. Pure.

use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

use super::producer_pool::{Batch, Batches, Keep, PoolShare, Producer, ProducerPool, Txn, WINDOW};
use crate::model::record_batch::{BatchHeader, sequence_plus};
use crate::model::wire::take;
use crate::model::{EndMarker, ErrorCode, KnownProducer, Marker};

/// Idleness of a producer whose newest batch is read back from the log and has
/// an old timestamp, ms.
const LONGEST_IDLE_MS: i64 = 10 * 60 * 1000;

/// In the number of a stored producer's batches: there is more behind them.
const TXN_MARK: u8 = 0x80;
const _: () = assert!(WINDOW < TXN_MARK as usize);

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

    /// Kafka's rules: an older epoch is fenced; a new epoch starts at sequence 0; within one,
    /// sequences have no gap. A producer that is not known may begin with any sequence.
    pub fn check(&self, header: &BatchHeader) -> SequenceCheck {
        let known = self.0.with(header.producer_id.get(), |producer| check(producer, header));
        known.unwrap_or(SequenceCheck::Next)
    }

    /// The producer has a transaction open in the epoch of the batch.
    pub fn has_open(&self, header: &BatchHeader) -> bool {
        let epoch = header.producer_epoch.get();
        let open = |producer: &Producer| producer.epoch == epoch && producer.open().is_some();
        self.0.with(header.producer_id.get(), open).unwrap_or(false)
    }

    /// The rule for a batch without a sequence, which the broker has made: its epoch is not
    /// older than the producer's.
    pub fn check_epoch(&self, header: &BatchHeader) -> Result<(), ErrorCode> {
        let epoch = self.0.with(header.producer_id.get(), |producer| producer.epoch);
        match epoch.is_some_and(|epoch| header.producer_epoch.get() < epoch) {
            true => Err(ErrorCode::InvalidProducerEpoch),
            false => Ok(()),
        }
    }

    pub fn knows(&self, producer_id: i64) -> bool {
        self.0.with(producer_id, |_| ()).is_some()
    }

    /// There is memory for one more transaction.
    pub fn has_room_for_transaction(&self) -> bool {
        self.0.has_room_for_transaction()
    }

    /// Kafka's rules for the end of a transaction. The epoch must not be older than the producer's;
    /// from `transaction.version` 2 on it is a new one, unless the marker is written once more.
    pub fn check_marker(&self, marker: &Marker) -> Result<(), ErrorCode> {
        self.0.with(marker.producer_id, |producer| check_marker(producer, marker)).unwrap_or(Ok(()))
    }

    /// Remembers an accepted batch that was given `base_offset`. True if a
    /// transaction begins with it.
    pub fn note(&mut self, header: &BatchHeader, base_offset: i64, now_ms: i64) -> bool {
        let mut begun = false;
        self.0.put(header.producer_id.get(), |known| noted(known, header, base_offset, now_ms, &mut begun));
        begun
    }

    /// Remembers a marker at `offset`. Returns the first offset of the transaction that it ends.
    pub fn note_marker(&mut self, header: &BatchHeader, end: EndMarker, offset: i64, now_ms: i64) -> Option<i64> {
        let mut ended = None;
        self.0.put(header.producer_id.get(), |known| marked(known, header, end, (offset, now_ms), &mut ended));
        ended
    }

    /// [`note_marker`](Self::note_marker) of a marker that is read back from the log.
    pub fn note_stored_marker(&mut self, header: &BatchHeader, end: EndMarker, now_ms: i64) -> Option<i64> {
        let (mut ended, last_ms) = (None, stored_ms(header, now_ms));
        self.0.restore(header.producer_id.get(), |known| {
            marked(known, header, end, (header.base(), last_ms), &mut ended)
        });
        ended
    }

    /// The open transactions: first offset and producer.
    pub fn open_transactions(&self) -> Vec<(i64, i64)> {
        let mut open = Vec::new();
        self.0.newest_first(|producer| open.extend(producer.open().map(|first| (first, producer.id))));
        open
    }

    /// Remembers a batch that is read back from the log. Logs are read one after the other, so its
    /// timestamp says how long the producer has been idle beside others. A producer of old records
    /// is not taken for one that was idle for long. True if a transaction begins with it.
    pub fn note_stored(&mut self, header: &BatchHeader, now_ms: i64) -> bool {
        let (mut begun, last_ms) = (false, stored_ms(header, now_ms));
        self.0.restore(header.producer_id.get(), |known| noted(known, header, header.base(), last_ms, &mut begun));
        begun
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where each producer's newest batch ends: its last offset. Cleaning keeps these batches,
    /// for the sequences in them.
    pub fn last_offsets(&self) -> HashMap<i64, i64> {
        let mut offsets = HashMap::with_capacity(self.len());
        self.0.newest_first(|producer| {
            offsets.extend(producer.batches.newest().map(|newest| (producer.id, newest.next_offset() - 1)));
        });
        offsets
    }

    /// Shows `look` each producer, the one with the newest batch first.
    pub fn each(&self, mut look: impl FnMut(KnownProducer)) {
        self.0.newest_first(|producer| {
            let last_sequence = |newest: &Batch| sequence_plus(newest.first_sequence, newest.delta);
            let txn = producer.txn.as_deref().copied().unwrap_or_default();
            look(KnownProducer {
                id: producer.id,
                epoch: producer.epoch,
                last_sequence: producer.batches.newest().map_or(-1, last_sequence),
                last_ms: producer.last_ms,
                coordinator_epoch: txn.coordinator_epoch,
                txn_start_offset: txn.first_offset,
            });
        });
    }

    /// Forgets the producers that have batches or markers at or after `end`; their ids.
    pub fn forget_after(&mut self, end: i64) -> BTreeSet<i64> {
        let mut forgotten = BTreeSet::new();
        let batches_stay =
            |producer: &Producer| producer.batches.newest().is_none_or(|newest| newest.next_offset() <= end);
        let markers_stay = |producer: &Producer| producer.txn.as_ref().is_none_or(|txn| txn.last_offset < end);
        self.0.retain(|producer| match batches_stay(producer) && markers_stay(producer) {
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

    /// Forgets producers idle for `limit_ms` (`producer.id.expiration.ms`), but for those
    /// with an open transaction.
    pub fn expire(&mut self, now_ms: i64, limit_ms: i64) {
        let is_idle = |producer: &Producer| now_ms.saturating_sub(producer.last_ms) >= limit_ms;
        self.0.retain(|producer| match producer.open().is_some() || !is_idle(producer) {
            true => Keep::Whole,
            false => Keep::Until(i64::MIN),
        });
    }

    /// For the checkpoint. Little-endian: count u32, then per producer, those with an open
    /// transaction and the newest first, id i64, epoch i16, last ms i64, batches u8, and per batch
    /// first and last sequence i32, base and next offset i64. The highest bit of the number of
    /// batches says that the producer has taken part in transactions: then follow the first offset
    /// of the open one i64, the offset of the newest marker i64, and its coordinator epoch i32.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&(self.len() as u32).to_le_bytes());
        let mut others = Vec::with_capacity(self.len() * 64);
        self.0
            .newest_first(|producer| encode(producer, if producer.open().is_some() { &mut out } else { &mut others }));
        out.append(&mut others);
        out
    }

    /// Adds the producers that [`encode`](Self::encode) stored. The bytes may end anywhere behind
    /// those with open transactions: what a larger bound let in is read only as far as the
    /// present one has room for.
    pub fn restore(&mut self, bytes: &[u8]) -> Result<(), Damaged> {
        self.restore_only(bytes, |_| true)
    }

    /// As [`restore`](Self::restore), but only those whose ids are `wanted`.
    pub fn restore_only(&mut self, bytes: &[u8], wanted: impl Fn(i64) -> bool) -> Result<(), Damaged> {
        let rest = &mut &*bytes;
        let count = u32::from_le_bytes(take(rest).ok_or(Damaged)?);
        let mut all_open_seen = false;
        for _ in 0..count {
            let producer = match read_producer(rest)? {
                Some(producer) => producer,
                None if all_open_seen => return Ok(()),
                // More of them may have stood behind.
                None => return Err(Damaged),
            };
            all_open_seen |= producer.open().is_none();
            if wanted(producer.id) {
                self.0.restore(producer.id, |_| Some(producer));
            }
        }
        if rest.is_empty() { Ok(()) } else { Err(Damaged) }
    }
}

fn encode(producer: &Producer, out: &mut Vec<u8>) {
    out.extend_from_slice(&producer.id.to_le_bytes());
    out.extend_from_slice(&producer.epoch.to_le_bytes());
    out.extend_from_slice(&producer.last_ms.to_le_bytes());
    let mark = if producer.txn.is_some() { TXN_MARK } else { 0 };
    out.push(producer.batches.len() as u8 | mark);
    for batch in producer.batches.iter() {
        out.extend_from_slice(&batch.first_sequence.to_le_bytes());
        out.extend_from_slice(&sequence_plus(batch.first_sequence, batch.delta).to_le_bytes());
        out.extend_from_slice(&batch.base_offset.to_le_bytes());
        out.extend_from_slice(&batch.next_offset().to_le_bytes());
    }
    if let Some(txn) = &producer.txn {
        out.extend_from_slice(&txn.first_offset.to_le_bytes());
        out.extend_from_slice(&txn.last_offset.to_le_bytes());
        out.extend_from_slice(&txn.coordinator_epoch.to_le_bytes());
    }
}

/// When a batch that is read back was written, as far as its timestamp is believed.
fn stored_ms(header: &BatchHeader, now_ms: i64) -> i64 {
    header.max_timestamp.get().clamp(now_ms.saturating_sub(LONGEST_IDLE_MS), now_ms)
}

/// Adds the batch to a known producer, or gives a new one that replaces an older epoch. `begun`:
/// set if a transaction begins.
fn noted(
    known: Option<&mut Producer>,
    header: &BatchHeader,
    base_offset: i64,
    last_ms: i64,
    begun: &mut bool,
) -> Option<Producer> {
    let (id, epoch) = (header.producer_id.get(), header.producer_epoch.get());
    let delta = header.last_offset_delta.get();
    let batch = Batch { base_offset, first_sequence: header.base_sequence.get(), delta };
    let Some(producer) = known else {
        let mut producer = Producer { id, epoch, last_ms, batches: Batches::none(), txn: None };
        add(&mut producer, header, batch, begun);
        return Some(producer);
    };
    producer.last_ms = last_ms;
    if producer.epoch != epoch {
        (producer.epoch, producer.batches) = (epoch, Batches::none());
    }
    add(producer, header, batch, begun);
    None
}

fn add(producer: &mut Producer, header: &BatchHeader, batch: Batch, begun: &mut bool) {
    let has_sequence = batch.first_sequence >= 0;
    if has_sequence {
        producer.batches.push(batch);
    }
    if header.is_transactional() {
        let txn = producer.txn.get_or_insert_default();
        if txn.first_offset < 0 {
            (txn.first_offset, *begun) = (batch.base_offset, true);
        }
        if !has_sequence {
            txn.last_offset = batch.next_offset() - 1;
        }
    }
}

/// Ends the transaction of a known producer, or gives a new one. `ended`: its first offset.
fn marked(
    known: Option<&mut Producer>,
    header: &BatchHeader,
    end: EndMarker,
    (offset, last_ms): (i64, i64),
    ended: &mut Option<i64>,
) -> Option<Producer> {
    let (id, epoch) = (header.producer_id.get(), header.producer_epoch.get());
    let txn = Txn { first_offset: -1, last_offset: offset, coordinator_epoch: end.coordinator_epoch };
    let Some(producer) = known else {
        return Some(Producer { id, epoch, last_ms, batches: Batches::none(), txn: Some(Box::new(txn)) });
    };
    *ended = producer.open();
    producer.last_ms = last_ms;
    if producer.epoch != epoch {
        (producer.epoch, producer.batches) = (epoch, Batches::none());
    }
    **producer.txn.get_or_insert_default() = txn;
    None
}

fn check_marker(producer: &Producer, marker: &Marker) -> Result<(), ErrorCode> {
    let (epoch, new_epochs) = (marker.producer_epoch, marker.transaction_version >= 2);
    let is_old = if new_epochs { epoch <= producer.epoch } else { epoch < producer.epoch };
    // The transaction has ended already: the marker is written anew, as after a lost answer. An
    // epoch that cannot rise any more is let through.
    let again = new_epochs && epoch == producer.epoch && (producer.open().is_none() || epoch == i16::MAX);
    if is_old && !again {
        return Err(ErrorCode::InvalidProducerEpoch);
    }
    match producer.txn.as_ref().is_some_and(|txn| txn.coordinator_epoch > marker.coordinator_epoch) {
        true => Err(ErrorCode::TransactionCoordinatorFenced),
        false => Ok(()),
    }
}

fn check(producer: &Producer, header: &BatchHeader) -> SequenceCheck {
    match check_sequence(producer, header) {
        // A batch of it would be taken for a part of the transaction.
        SequenceCheck::Next if producer.open().is_some() && !header.is_transactional() => {
            SequenceCheck::Refused(ErrorCode::InvalidTxnState)
        }
        checked => checked,
    }
}

fn check_sequence(producer: &Producer, header: &BatchHeader) -> SequenceCheck {
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
    let next = newest.map_or(0, |newest| sequence_plus(sequence_plus(newest.first_sequence, newest.delta), 1));
    match next == first {
        true => SequenceCheck::Next,
        false => SequenceCheck::Refused(ErrorCode::OutOfOrderSequenceNumber),
    }
}

/// `None`: the bytes end within it.
fn read_producer(rest: &mut &[u8]) -> Result<Option<Producer>, Damaged> {
    let Some((id, epoch, last_ms, count)) = read_head(rest) else { return Ok(None) };
    let (count, has_txn) = (count & !TXN_MARK, count & TXN_MARK != 0);
    if count == 0 && !has_txn || usize::from(count) > WINDOW {
        return Err(Damaged);
    }
    let mut batches = Batches::none();
    for _ in 0..count {
        let Some(batch) = read_batch(rest) else { return Ok(None) };
        batches.push(batch?);
    }
    let txn = match has_txn {
        false => None,
        true => match read_txn(rest) {
            Some(txn) => Some(Box::new(txn)),
            None => return Ok(None),
        },
    };
    Ok(Some(Producer { id, epoch, last_ms, batches, txn }))
}

fn read_head(rest: &mut &[u8]) -> Option<(i64, i16, i64, u8)> {
    let id = i64::from_le_bytes(take(rest)?);
    let epoch = i16::from_le_bytes(take(rest)?);
    let last_ms = i64::from_le_bytes(take(rest)?);
    let [count] = take(rest)?;
    Some((id, epoch, last_ms, count))
}

fn read_batch(rest: &mut &[u8]) -> Option<Result<Batch, Damaged>> {
    let first_sequence = i32::from_le_bytes(take(rest)?);
    let _last_sequence: [u8; 4] = take(rest)?;
    let base_offset = i64::from_le_bytes(take(rest)?);
    let next_offset = i64::from_le_bytes(take(rest)?);
    let last_offset = next_offset.checked_sub(1);
    let delta = last_offset.and_then(|last| i32::try_from(last.checked_sub(base_offset)?).ok());
    let batch = delta.filter(|delta| *delta >= 0).map(|delta| Batch { base_offset, first_sequence, delta });
    Some(batch.ok_or(Damaged))
}

fn read_txn(rest: &mut &[u8]) -> Option<Txn> {
    let first_offset = i64::from_le_bytes(take(rest)?);
    let last_offset = i64::from_le_bytes(take(rest)?);
    let coordinator_epoch = i32::from_le_bytes(take(rest)?);
    Some(Txn { first_offset, last_offset, coordinator_epoch })
}

#[cfg(test)]
mod tests;
