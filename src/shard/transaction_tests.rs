//! Transactions on a shard of their own: what leaders and followers let readers see.

use std::cell::RefCell;
use std::rc::Rc;

use bytes::Bytes;
use futures_lite::future::poll_once;

use super::leadership::tests::{State, fetch, on_member, publish};
use super::*;
use crate::model::record_batch::BatchHeader;
use crate::model::{BrokerId, ErrorCode, LeaderEpoch, Marker, MarkerKind, PartitionId, testing};
use crate::partition::{FollowerFetch, Replica};
use crate::runtime::{PATIENCE, SendRoom, clock};

const PRODUCER: i64 = 7;
const NOW_MS: i64 = 5_000;

fn batch(producer_id: i64, sequence: i32) -> Bytes {
    let mut header = testing::header(1, NOW_MS);
    header.attributes.set(0x10);
    header.producer_id.set(producer_id);
    header.producer_epoch.set(0);
    header.base_sequence.set(sequence);
    testing::batch(header, &testing::records(1, 10, || 3))
}

fn marker(producer_id: i64, kind: MarkerKind) -> Marker {
    Marker { producer_id, producer_epoch: 0, kind, coordinator_epoch: 4, transaction_version: 0 }
}

async fn produce(shard: &Rc<Shard>, id: PartitionId, producer_id: i64, sequence: i32) -> ErrorCode {
    let part = ProducePart { partition: id, records: batch(producer_id, sequence) };
    shard.produce(vec![part], false, None).await.written().await.outcomes().await[0].error
}

async fn read(shard: &Rc<Shard>, id: PartitionId, reader: Reader, offset: i64, max_wait_ms: u32) -> FetchOutcome {
    let part = FetchPart { partition: id, offset, max_bytes: 1 << 20, current_leader_epoch: None, reader, rack: None };
    let plan = FetchPlan {
        parts: vec![part],
        max_bytes: 1 << 20,
        min_bytes: 1,
        max_wait_ms,
        begun: clock::Moment::now(),
        room: SendRoom::default(),
    };
    shard.fetch(plan).await.0.remove(0)
}

async fn committed(shard: &Rc<Shard>, id: PartitionId, offset: i64, max_wait_ms: u32) -> FetchOutcome {
    read(shard, id, Reader::CommittedConsumer, offset, max_wait_ms).await
}

/// The batch as a leader in epoch 3 has it.
fn as_is(mut batch: Vec<u8>, offset: i64) -> Bytes {
    batch[..8].copy_from_slice(&offset.to_be_bytes());
    batch[12..16].copy_from_slice(&3_i32.to_be_bytes());
    batch.into()
}

fn ends(replica: &Replica) -> (i64, i64) {
    (replica.high_watermark(), replica.last_stable_offset())
}

/// A leader whose only follower has what the test says.
#[test]
fn a_marker_counts_once_it_is_committed() {
    on_member(State::led(), |shard, replica| async move {
        let id = replica.id;
        assert_eq!(produce(&shard, id, PRODUCER, 0).await, ErrorCode::None);
        assert_eq!(produce(&shard, id, PRODUCER + 1, 0).await, ErrorCode::None);
        let (begun, own) = (clock::now(), shard.clone());
        let abort = MarkerPart { partition: id, marker: marker(PRODUCER, MarkerKind::Abort) };
        let mut aborting = Box::pin(async move { own.write_markers(vec![abort]).await });
        assert!(poll_once(&mut aborting).await.is_none(), "the follower does not have it");
        replica.fetched(&fetch(0, None), true);
        replica.fetched(&fetch(2, Some(3)), true);
        assert_eq!(ends(&replica), (2, 0), "records, and not the marker");
        assert!(committed(&shard, id, 0, 0).await.records.is_empty());
        let mut waiting = Box::pin(committed(&shard, id, 0, 60_000));
        assert!(poll_once(&mut waiting).await.is_none());
        replica.fetched(&fetch(3, Some(3)), true);
        assert_eq!(aborting.await, [ErrorCode::None]);
        assert_eq!(ends(&replica), (3, 1));
        let outcome = waiting.await;
        assert_eq!((outcome.last_stable_offset, outcome.aborted), (1, Some(vec![(PRODUCER, 0)])));
        assert_eq!(BatchHeader::peek(&outcome.records.concat()).unwrap().producer_id.get(), PRODUCER);
        assert!(begun.elapsed() < PATIENCE);
        assert_eq!(read(&shard, id, Reader::Consumer, 0, 0).await.aborted, None);
    });
}

/// A follower comes to its leader's state by its fetches; a cut opens transactions again whose
/// markers go.
#[test]
fn a_follower_knows_what_its_leader_knows() {
    on_member(State { leader: Some(BrokerId(1)), ..State::led() }, |_shard, replica| async move {
        let records = [
            as_is(batch(PRODUCER, 0).to_vec(), 0),
            as_is(batch(PRODUCER + 1, 0).to_vec(), 1),
            as_is(marker(PRODUCER, MarkerKind::Abort).batch(NOW_MS), 2),
            as_is(batch(PRODUCER, 1).to_vec(), 3),
            as_is(marker(PRODUCER + 1, MarkerKind::Commit).batch(NOW_MS), 4),
        ];
        replica.append_as_is(records.concat().into(), NOW_MS).await.unwrap();
        replica.settled().await;
        replica.heed(LeaderEpoch(3), 5, 0);
        assert_eq!(ends(&replica), (5, 3));
        let (read, aborted) = replica.read_decided(0, 1 << 20).await.unwrap();
        assert_eq!(read.end_offset(), Some(3));
        let txns: Vec<_> = aborted.iter().map(|txn| (txn.producer_id, txn.first_offset, txn.last_offset)).collect();
        assert_eq!((txns, aborted[0].last_stable_offset), (vec![(PRODUCER, 0, 2)], 1));
        replica.heed(LeaderEpoch(3), 1, 0);
        replica.checkpoint().await.unwrap();
        replica.truncate_to(4, NOW_MS).await.unwrap();
        assert_eq!(replica.last_stable_offset(), 1, "the second is open again");
        replica.truncate_to(2, NOW_MS).await.unwrap();
        assert_eq!(replica.last_stable_offset(), 0, "and the first");
        assert!(!replica.log().may_have_aborted(0));
        replica.append_as_is(as_is(marker(PRODUCER, MarkerKind::Commit).batch(NOW_MS), 2), NOW_MS).await.unwrap();
        let mut seen = Vec::new();
        replica.each_producer(|known| seen.push((known.id, known.coordinator_epoch, known.txn_start_offset)));
        seen.sort_unstable();
        assert_eq!(seen, [(PRODUCER, 4, -1), (PRODUCER + 1, -1, 1)]);
    });
}

/// Decisions of a leader's markers hold where a follower becomes the leader, and a marker may be
/// committed by a later one.
#[test]
fn transactions_outlast_their_leaders() {
    on_member(State { leader: Some(BrokerId(1)), ..State::led() }, |shard, replica| async move {
        let (begun, led) = (clock::now(), |epoch| State { epoch, version: epoch, ..State::led() });
        let id = replica.id;
        let records = [
            as_is(batch(PRODUCER, 0).to_vec(), 0),
            as_is(batch(PRODUCER + 1, 0).to_vec(), 1),
            as_is(marker(PRODUCER, MarkerKind::Abort).batch(NOW_MS), 2),
        ];
        replica.append_as_is(records.concat().into(), NOW_MS).await.unwrap();
        replica.settled().await;
        replica.heed(LeaderEpoch(3), 1, 0);
        publish(&shard, &led(4)).await;
        assert_eq!(ends(&replica), (1, 0), "the marker is not committed");
        let other = |epoch, offset, last| FollowerFetch { leader_epoch: LeaderEpoch(epoch), ..fetch(offset, last) };
        replica.fetched(&other(4, 3, Some(3)), true);
        assert_eq!(ends(&replica), (3, 1));
        let commit = MarkerPart { partition: id, marker: marker(PRODUCER + 1, MarkerKind::Commit) };
        let own = shard.clone();
        let mut committing = Box::pin(async move { own.write_markers(vec![commit]).await });
        let mut waiting = Box::pin(committed(&shard, id, 1, 60_000));
        assert!(poll_once(&mut committing).await.is_none() && poll_once(&mut waiting).await.is_none());
        publish(&shard, &State { leader: None, ..led(5) }).await;
        assert_eq!(committing.await, [ErrorCode::NotLeaderOrFollower]);
        assert_eq!(waiting.await.error, ErrorCode::NotLeaderOrFollower);
        assert_eq!(ends(&replica), (3, 1));
        publish(&shard, &led(6)).await;
        replica.settled().await;
        replica.fetched(&other(6, 4, Some(4)), true);
        assert_eq!(ends(&replica), (4, 4), "the next leadership commits it");
        assert_eq!(committed(&shard, id, 0, 0).await.aborted, Some(vec![(PRODUCER, 0)]));
        // Its coordinator has it written once more.
        let own = shard.clone();
        let mut again = Box::pin(async move { own.write_markers(vec![commit]).await });
        assert!(poll_once(&mut again).await.is_none());
        replica.settled().await;
        replica.fetched(&other(6, 5, Some(6)), true);
        assert_eq!((again.await, ends(&replica)), (vec![ErrorCode::None], (5, 5)));
        assert!(begun.elapsed() < PATIENCE);
    });
}

/// The log start may pass the first records of an open transaction; it is ended as any other.
#[test]
fn records_of_an_open_transaction_may_be_deleted() {
    on_member(State::led(), |shard, replica| async move {
        let (id, begun) = (replica.id, clock::now());
        for (producer_id, sequence) in [(PRODUCER, 0), (PRODUCER + 1, 0), (PRODUCER, 1)] {
            assert_eq!(produce(&shard, id, producer_id, sequence).await, ErrorCode::None);
        }
        replica.fetched(&fetch(0, None), true);
        replica.fetched(&fetch(3, Some(3)), true);
        assert_eq!(ends(&replica), (3, 0));
        let mut waiting = Box::pin(committed(&shard, id, 0, 60_000));
        assert!(poll_once(&mut waiting).await.is_none());
        assert_eq!(replica.delete_records(Some(1)).await, Ok(1));
        assert_eq!(waiting.await.error, ErrorCode::OffsetOutOfRange);
        assert_eq!(ends(&replica), (3, 1));
        assert_eq!(replica.delete_records(Some(2)).await, Ok(2));
        assert_eq!(ends(&replica), (3, 2));
        replica.checkpoint().await.unwrap();
        let part = |producer_id, kind| MarkerPart { partition: id, marker: marker(producer_id, kind) };
        let parts = vec![part(PRODUCER + 1, MarkerKind::Commit), part(PRODUCER, MarkerKind::Abort)];
        let own = shard.clone();
        let mut ending = Box::pin(async move { own.write_markers(parts).await });
        assert!(poll_once(&mut ending).await.is_none());
        replica.settled().await;
        replica.fetched(&fetch(5, Some(3)), true);
        assert_eq!((ending.await, ends(&replica)), (vec![ErrorCode::None; 2], (5, 5)));
        assert_eq!(committed(&shard, id, 2, 0).await.aborted, Some(vec![(PRODUCER, 0)]));
        assert!(begun.elapsed() < PATIENCE);
    });
}

/// The coordinator's answers, in turn.
fn coordinator(answers: Vec<ErrorCode>) -> (Rc<RefCell<Vec<i64>>>, Verifier) {
    let (asked, answers) = (Rc::new(RefCell::new(Vec::new())), Rc::new(RefCell::new(answers)));
    let noted = asked.clone();
    let verifier = move |questions: Vec<Verify>| {
        noted.borrow_mut().extend(questions.iter().map(|verify| verify.producer_id));
        let codes: Vec<ErrorCode> = questions.iter().map(|_| answers.borrow_mut().remove(0)).collect();
        Box::pin(async move { codes }) as std::pin::Pin<Box<dyn Future<Output = Vec<ErrorCode>>>>
    };
    (asked, Rc::new(verifier))
}

#[test]
fn a_transaction_begins_only_where_its_coordinator_says_so() {
    on_member(State::led(), |shard, replica| async move {
        let id = replica.id;
        let (asked, verifier) = coordinator(vec![
            ErrorCode::InvalidTxnState,
            ErrorCode::CoordinatorLoadInProgress,
            ErrorCode::None,
            ErrorCode::InvalidTxnState,
        ]);
        shard.set_verifier(verifier);
        let produce = async |sequence| {
            let part = ProducePart { partition: id, records: batch(PRODUCER, sequence) };
            let transaction = RequestTransaction { id: "tx".into(), adds: false, knows_abortable: true };
            shard.produce(vec![part], false, Some(transaction)).await.written().await.outcomes().await[0].error
        };
        assert_eq!(produce(0).await, ErrorCode::InvalidTxnState);
        assert_eq!(produce(0).await, ErrorCode::NotEnoughReplicas, "to be sent again");
        assert_eq!(replica.log().next_offset(), 0);
        assert_eq!(produce(0).await, ErrorCode::None);
        assert_eq!(produce(1).await, ErrorCode::None, "it is open: nobody is asked");
        assert_eq!(produce(1).await, ErrorCode::None, "the same batch again");
        replica.append_marker(&marker(PRODUCER, MarkerKind::Commit), NOW_MS).unwrap();
        assert_eq!(produce(2).await, ErrorCode::InvalidTxnState, "late");
        assert_eq!((replica.log().next_offset(), asked.borrow().len()), (3, 4));
    });
}
