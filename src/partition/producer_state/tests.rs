use super::super::producer_pool::ENTRY_BYTES;
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

fn in_txn(id: i64, epoch: i16, sequence: i32) -> BatchHeader {
    let mut header = of(id, sequence);
    header.producer_epoch.set(epoch);
    header.attributes.set(0x10);
    header
}

fn marker(id: i64, epoch: i16, coordinator_epoch: i32, transaction_version: i8) -> Marker {
    let kind = crate::model::MarkerKind::Commit;
    Marker { producer_id: id, producer_epoch: epoch, kind, coordinator_epoch, transaction_version }
}

#[test]
fn a_snapshot_that_is_cut_gives_all_open_transactions() {
    let mut written = states(1 << 20);
    for id in 0..4 {
        written.note(&in_txn(id, 0, 0), id, id);
    }
    for id in 4..100 {
        written.note(&of(id, 0), id, id);
    }
    let bytes = written.encode();
    let mut restored = states(1 << 20);
    assert_eq!(restored.restore(&bytes[..bytes.len() / 4]), Ok(()));
    assert_eq!(restored.open_transactions().len(), 4);
    assert_eq!(states(1 << 20).restore(&bytes[..150]), Err(Damaged), "cut amid them");
}

/// Checks and notes; the first offset of the transaction that ends.
fn mark(states: &mut ProducerStates, marker: Marker, offset: i64) -> Result<Option<i64>, ErrorCode> {
    states.check_marker(&marker)?;
    let batch = marker.batch(5);
    let end = EndMarker::of(&batch).unwrap();
    Ok(states.note_marker(BatchHeader::peek(&batch).unwrap(), end, offset, 5))
}

#[test]
fn a_transaction_begins_with_a_batch_and_ends_with_a_marker() {
    let mut states = states(1 << 20);
    assert!(states.note(&in_txn(7, 3, 0), 10, 1));
    assert!(!states.note(&in_txn(7, 3, 1), 11, 1), "it goes on");
    assert!(states.has_open(&in_txn(7, 3, 2)) && !states.has_open(&in_txn(7, 4, 0)));
    assert_eq!(
        states.check(&{
            let mut plain = of(7, 2);
            plain.producer_epoch.set(3);
            plain
        }),
        SequenceCheck::Refused(ErrorCode::InvalidTxnState)
    );
    assert_eq!(states.open_transactions(), [(10, 7)]);
    states.expire(1 << 40, 1);
    assert_eq!(mark(&mut states, marker(7, 3, 5, 1), 12), Ok(Some(10)));
    assert_eq!(states.open_transactions(), []);
    assert_eq!(states.check(&in_txn(7, 3, 2)), SequenceCheck::Next);
    // A marker without a transaction changes epochs only.
    assert_eq!(mark(&mut states, marker(7, 3, 6, 1), 13), Ok(None));
    assert_eq!(mark(&mut states, marker(8, 0, 6, 1), 14), Ok(None));
    assert_eq!(states.check(&in_txn(8, 0, 0)), SequenceCheck::Next);
    assert_eq!(states.check(&in_txn(8, 0, 3)), SequenceCheck::Refused(ErrorCode::OutOfOrderSequenceNumber));
    states.expire(1 << 40, 1);
    assert!(states.is_empty());
}

#[test]
fn markers_of_older_epochs_and_coordinators_are_fenced() {
    let mut states = states(1 << 20);
    states.note(&in_txn(7, 3, 0), 10, 1);
    let fenced = Err(ErrorCode::InvalidProducerEpoch);
    assert_eq!(mark(&mut states, marker(7, 2, 5, 1), 11), fenced);
    assert_eq!(mark(&mut states, marker(7, 3, 5, 2), 11), fenced, "the epoch of the transaction's records");
    assert_eq!(mark(&mut states, marker(7, 4, 5, 2), 11), Ok(Some(10)));
    assert_eq!(states.check(&in_txn(7, 3, 1)), SequenceCheck::Refused(ErrorCode::InvalidProducerEpoch));
    assert_eq!(states.check(&in_txn(7, 4, 0)), SequenceCheck::Next, "sequences begin anew");
    assert_eq!(mark(&mut states, marker(7, 4, 5, 2), 12), Ok(None), "written once more");
    states.note(&in_txn(7, 4, 0), 13, 1);
    assert_eq!(mark(&mut states, marker(7, 4, 5, 2), 14), fenced, "a late one does not end the next transaction");
    assert_eq!(mark(&mut states, marker(7, 5, 4, 2), 14), Err(ErrorCode::TransactionCoordinatorFenced));
    assert_eq!(mark(&mut states, marker(7, 5, 5, 2), 14), Ok(Some(13)));
}

#[test]
fn transactions_are_stored_and_cut_with_the_log() {
    let mut written = states(1 << 20);
    written.note(&in_txn(7, 3, 0), 10, 1);
    written.note(&in_txn(8, 0, 0), 11, 2);
    mark(&mut written, marker(8, 1, 4, 2), 12).unwrap();
    written.note(&of(9, 0), 13, 9);
    let bytes = written.encode();
    let mut restored = states(1 << 20);
    assert_eq!(restored.restore(&bytes), Ok(()));
    assert_eq!(restored.encode(), bytes);
    assert_eq!(restored.open_transactions(), [(10, 7)]);
    let mut seen = Vec::new();
    restored.each(|known| {
        seen.push((known.id, known.epoch, known.last_sequence, known.coordinator_epoch, known.txn_start_offset))
    });
    seen.sort_unstable();
    assert_eq!(seen, [(7, 3, 0, -1, 10), (8, 1, -1, 4, -1), (9, 0, 0, -1, -1)]);
    assert_eq!(restored.forget_after(13), BTreeSet::from([9]));
    assert_eq!(restored.forget_after(12), BTreeSet::from([8]), "its marker goes");
    assert_eq!(restored.forget_after(10), BTreeSet::from([7]));
}

#[test]
fn open_transactions_outlast_a_flood_and_have_a_bound() {
    let mut states = ProducerStates::new(&pool());
    states.note(&in_txn(7, 0, 0), 1, 0);
    for id in 0..2 * ROOM {
        states.note(&of(1000 + id, 0), id, 1);
    }
    assert_eq!(states.open_transactions(), [(1, 7)]);
    let mut open = 1;
    while states.has_room_for_transaction() {
        assert!(states.note(&in_txn(100 + open, 0, 0), 1 + open, 1));
        open += 1;
    }
    assert!((ROOM / 4..ROOM / 2).contains(&open), "{open}");
    for first in 1..=open {
        let id = if first == 1 { 7 } else { 99 + first };
        assert_eq!(mark(&mut states, marker(id, 0, 1, 1), 1 << 20), Ok(Some(first)));
    }
    assert!(states.has_room_for_transaction());
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
    let bound = pool.bytes() + ENTRY_BYTES * ROOM as usize;
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
