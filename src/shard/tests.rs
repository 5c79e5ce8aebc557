//! Fetches on a shard of its own.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;

use super::api::*;
use super::hosting::Claim;
use super::state::Shard;
use crate::cluster::image_diff::ImageUpdate;
use crate::cluster::metadata_store::LocalStore;
use crate::cluster::store::Revision;
use crate::cluster::{DirectoryId, MetadataImage, PartitionImage, Placement, TopicImage};
use crate::config::{ServerConfig, TopicConfig};
use crate::model::record_batch::{BatchHeader, HEADER_BYTES};
use crate::model::{BrokerId, ErrorCode, LeaderEpoch, PartitionId, ShardId, records, testing};
use crate::partition::Replica;
use crate::runtime::clock::Moment;
use crate::runtime::mailbox::{Mesh, MeshSeat, mesh};
use crate::runtime::{SendRoom, clock, disk, eventually, faults, on_shard, on_shards, scratch, spawn_local};
use crate::storage::endure_broken_invariants;

/// A batch of one record, with `payload` bytes behind its header.
fn batch(payload: usize) -> Bytes {
    let sizes = payload.saturating_sub(20)..payload;
    let batches = sizes.map(|size| records::build(&[(b"k".to_vec(), Some(vec![7; size]))], clock::wall_ms()));
    Bytes::from(batches.into_iter().find(|batch| batch.len() == HEADER_BYTES + payload).unwrap())
}

/// A one-partition topic and its partition.
fn topic(number: u128) -> (Arc<TopicImage>, PartitionId) {
    let partition = PartitionImage {
        leader: Some(BrokerId(1)),
        leader_epoch: LeaderEpoch(0),
        replicas: vec![],
        isr: vec![],
        ..PartitionImage::default()
    };
    let topic = TopicImage {
        name: format!("t{number}").into(),
        id: Uuid::from_u128(number),
        partitions: vec![partition],
        overrides: BTreeMap::new(),
        config: Arc::new(TopicConfig::default()),
    };
    let id = PartitionId::new(topic.id, 0);
    (Arc::new(topic), id)
}

/// A shard that holds its share of `topics` topics.
async fn shard_of(root: &Path, seat: MeshSeat<Shard>, identity: (ShardId, u16), topics: u128) -> Rc<Shard> {
    shard_of_config(root, seat, identity, topics, ServerConfig::default()).await
}

async fn shard_of_config(
    root: &Path,
    seat: MeshSeat<Shard>,
    identity: (ShardId, u16),
    topics: u128,
    config: ServerConfig,
) -> Rc<Shard> {
    disk::prime_device(root).await.unwrap();
    let config = ServerConfig { log_dirs: vec![root.to_path_buf()], ..config };
    let mesh = Mesh::connect(seat).unwrap();
    let store = LocalStore::open(root).unwrap();
    let mut image = MetadataImage::default();
    (0..topics).for_each(|n| image.put_topic((*topic(n).0).clone()));
    let shard = Shard::new(identity, Arc::new(config), Default::default(), mesh.clone(), Arc::new(image), store);
    mesh.serve(shard.clone());
    let topics: Vec<_> = (0..topics).map(|n| topic(n).0).collect();
    let mut image = MetadataImage::default();
    topics.iter().for_each(|topic| image.put_topic(TopicImage::clone(topic)));
    shard.image.replace(Arc::new(image));
    shard.host(topics, Claim::New).await.unwrap();
    assert!(shard.all_recovered().await);
    shard
}

async fn shard(root: &Path) -> (Rc<Shard>, PartitionId) {
    let seat = mesh::<Shard>(1, 16).unwrap().pop().unwrap();
    (shard_of(root, seat, (ShardId(0), 1), 1).await, topic(0).1)
}

async fn shard_with(root: &Path, config: ServerConfig) -> (Rc<Shard>, PartitionId) {
    let seat = mesh::<Shard>(1, 16).unwrap().pop().unwrap();
    (shard_of_config(root, seat, (ShardId(0), 1), 1, config).await, topic(0).1)
}

fn plan(partition: PartitionId, offset: i64, max_bytes: u32, min_bytes: u32, max_wait_ms: u32) -> FetchPlan {
    let part =
        FetchPart { partition, offset, max_bytes, current_leader_epoch: None, reader: Reader::Consumer, rack: None };
    FetchPlan {
        parts: vec![part],
        max_bytes: 50 << 20,
        min_bytes,
        max_wait_ms,
        begun: Moment::now(),
        room: SendRoom::default(),
    }
}

/// So long that an answer within half of it did not wait, on whatever machine.
pub(super) const WAIT_MS: u32 = 60_000;

/// A consumer at the end of a partition that went offline must not stop the whole shard.
#[test]
fn a_fetch_from_a_failed_partition_lets_the_shard_go_on() {
    let root = scratch();
    let path = root.path().to_path_buf();
    on_shard(move || {
        let path = path.clone();
        async move {
            let (shard, id) = shard(&path).await;
            faults::inject(faults::Op::Write, "t0-0", 0, faults::Fault::Os(5));
            let part = ProducePart { partition: id, records: batch(100) };
            let outcomes = shard.produce(vec![part], true, None).await.written().await.outcomes().await;
            faults::clear();
            assert_eq!(outcomes[0].error, ErrorCode::KafkaStorageError);
            let ticks = Rc::new(Cell::new(0));
            let counted = ticks.clone();
            spawn_local(async move {
                loop {
                    clock::sleep(Duration::from_millis(5)).await;
                    counted.set(counted.get() + 1);
                }
            });
            clock::sleep(Duration::from_millis(20)).await;
            let before = ticks.get();
            let began = clock::now();
            let (outcomes, _) = shard.fetch(plan(id, 0, 1 << 20, 1, WAIT_MS)).await;
            let took = began.elapsed().as_millis();
            let ran = ticks.get() - before;
            let at_once = took < u128::from(WAIT_MS / 2);
            assert!(at_once || ran > 50, "{:?}: {ran} turns for others in {took} ms", outcomes[0].error);
        }
    });
}

/// Clients learn of it from the metadata; a partition that was never opened
/// counts as one that failed.
#[test]
fn a_partition_that_fails_or_cannot_be_opened_is_offline_in_the_image() {
    let root = scratch();
    let path = root.path().to_path_buf();
    on_shard(move || {
        let path = path.clone();
        async move {
            let (shard, id) = shard(&path).await;
            shard.publish_offline().await;
            assert!(shard.image().offline().is_empty());
            faults::inject(faults::Op::Write, "t0-0", 0, faults::Fault::Os(5));
            let part = ProducePart { partition: id, records: batch(100) };
            assert_eq!(
                shard.produce(vec![part], true, None).await.written().await.outcomes().await[0].error,
                ErrorCode::KafkaStorageError
            );
            faults::clear();
            let absent = topic(9).1;
            shard.set_offline(absent, "its directory is not mounted");
            shard.publish_offline().await;
            let image = shard.image();
            assert!(image.is_offline(id) && image.is_offline(absent), "{:?}", image.offline());
            assert!(image.offline()[&id].contains("t0-0"), "{:?}", image.offline());
            let part = ProducePart { partition: absent, records: batch(100) };
            assert_eq!(
                shard.produce(vec![part], true, None).await.written().await.outcomes().await[0].error,
                ErrorCode::KafkaStorageError
            );
            assert_eq!(shard.fetch(plan(absent, 0, 1 << 20, 1, 1000)).await.0[0].error, ErrorCode::KafkaStorageError);
            let asked = shard.list_offsets(vec![(absent, OffsetQuery::Latest, None)], false).await;
            assert_eq!(asked[0].error, ErrorCode::KafkaStorageError);
            // Added partitions do not bring back one that is offline: it would begin anew.
            shard.host(vec![topic(9).0], Claim::New).await.unwrap();
            assert!(shard.replica(absent).is_none());
            shard.host(vec![topic(9).0], Claim::Known).await.unwrap();
            shard.publish_offline().await;
            assert!(!shard.image().is_offline(absent) && shard.image().is_offline(id));
        }
    });
}

#[test]
fn a_broken_invariant_takes_one_partition_offline_and_no_other() {
    let root = scratch();
    let path = root.path().to_path_buf();
    on_shard(move || {
        let path = path.clone();
        async move {
            let seat = mesh::<Shard>(1, 16).unwrap().pop().unwrap();
            let shard = shard_of(&path, seat, (ShardId(0), 1), 2).await;
            let (broken, whole) = (topic(0).1, topic(1).1);
            for id in [broken, whole] {
                assert_eq!(produce(&shard, id, batch(100)).await, (ErrorCode::None, 0));
            }
            endure_broken_invariants();
            // Of one record.
            let trimmed = shard.replica(broken).unwrap().log().trim(2, Vec::new).await;
            let why = trimmed.unwrap_err().to_string();
            assert!(why.contains("broken invariant at src/storage/trim.rs:"), "{why}");
            shard.publish_offline().await;
            let image = shard.image();
            assert!(image.is_offline(broken) && !image.is_offline(whole), "{:?}", image.offline());
            assert_eq!(produce(&shard, broken, batch(100)).await, (ErrorCode::KafkaStorageError, -1));
            assert_eq!(produce(&shard, whole, batch(100)).await, (ErrorCode::None, 1));
            let (outcomes, _) = shard.fetch(plan(whole, 0, 1 << 20, 1, 0)).await;
            assert_eq!((outcomes[0].error, outcomes[0].high_watermark), (ErrorCode::None, 2));
        }
    });
}

fn idempotent(sequence: i32) -> Bytes {
    let by = |header: &mut BatchHeader| {
        header.producer_id.set(7);
        header.producer_epoch.set(0);
        header.base_sequence.set(sequence);
    };
    testing::edited(&batch(100), by).into()
}

async fn produce(shard: &Rc<Shard>, partition: PartitionId, records: Bytes) -> (ErrorCode, i64) {
    let outcome = shard
        .produce(vec![ProducePart { partition, records }], true, None)
        .await
        .written()
        .await
        .outcomes()
        .await
        .pop()
        .unwrap();
    (outcome.error, outcome.base_offset)
}

/// ENOSPC leaves nothing unknown: the partition is read meanwhile, and comes
/// back by itself with room.
#[test]
fn a_partition_that_found_no_room_comes_back_by_itself() {
    let root = scratch();
    let path = root.path().to_path_buf();
    on_shard(move || {
        let path = path.clone();
        async move {
            let (shard, id) = shard(&path).await;
            spawn_local(shard.clone().keep_reopening());
            for sequence in 0..3 {
                assert_eq!(produce(&shard, id, idempotent(sequence)).await, (ErrorCode::None, i64::from(sequence)));
            }
            let full = faults::Fault::Os(28);
            faults::inject(faults::Op::Space, "", 0, full);
            faults::inject(faults::Op::Write, "t0-0", 0, full);
            for _ in 0..3 {
                assert_eq!(produce(&shard, id, idempotent(3)).await, (ErrorCode::KafkaStorageError, -1));
            }
            shard.publish_offline().await;
            assert!(!shard.image().is_offline(id), "it still has its leader");
            // Its records are there, and a consumer at its end waits.
            assert_eq!(shard.fetch(plan(id, 0, 1 << 20, 1, 0)).await.0[0].error, ErrorCode::None);
            let (outcomes, _) = shard.fetch(plan(id, 3, 1 << 20, 1, 300)).await;
            assert_eq!((outcomes[0].error, outcomes[0].high_watermark, outcomes[0].bytes()), (ErrorCode::None, 3, 0));
            let (waiting, woken) = (shard.clone(), Rc::new(Cell::new(0)));
            let told = woken.clone();
            spawn_local(async move {
                let (outcomes, _) = waiting.fetch(plan(id, 3, 1 << 20, 1, 60_000)).await;
                assert_eq!(outcomes[0].error, ErrorCode::None);
                told.set(outcomes[0].bytes());
            });
            clock::sleep(Duration::from_millis(600)).await;
            assert!(shard.replica(id).unwrap().is_full(), "there is no room yet");
            faults::clear();
            eventually("records are taken again", || !shard.replica(id).unwrap().is_full()).await;
            // A refused batch sent again is no repetition, an acknowledged one is.
            assert_eq!(produce(&shard, id, idempotent(3)).await, (ErrorCode::None, 3));
            assert_eq!(produce(&shard, id, idempotent(2)).await, (ErrorCode::None, 2));
            assert_eq!(produce(&shard, id, idempotent(4)).await, (ErrorCode::None, 4));
            eventually("the waiting consumer has it", || woken.get() > 0).await;
            assert_eq!(shard.list_offsets(vec![(id, OffsetQuery::Latest, None)], false).await[0].offset, 5);
        }
    });
}

/// A topic that is deleted while its partition waits for room does not come back with it.
#[test]
fn a_deleted_partition_is_not_opened_anew() {
    let root = scratch();
    let path = root.path().to_path_buf();
    on_shard(move || {
        let path = path.clone();
        async move {
            let (shard, id) = shard(&path).await;
            faults::inject(faults::Op::Write, "t0-0", 0, faults::Fault::Os(28));
            assert_eq!(produce(&shard, id, batch(100)).await.0, ErrorCode::KafkaStorageError);
            faults::clear();
            let full = shard.replica(id).unwrap();
            let dir = full.log().dir();
            let (dropping, dropped) = (shard.clone(), Rc::new(Cell::new(false)));
            let told = dropped.clone();
            spawn_local(async move {
                dropping.drop_topics(&[id.topic].into()).await;
                told.set(true);
            });
            let _ = shard.reopen(&full).await;
            eventually("the topic is gone", || dropped.get()).await;
            assert!(!shard.reopen(&full).await);
            assert!(shard.replica(id).is_none() && !dir.exists());
        }
    });
}

/// A disk that takes its time must not hold up the end for longer than the limit.
#[test]
fn closing_has_a_limit_and_loses_nothing_acknowledged() {
    let root = scratch();
    let path = root.path().to_path_buf();
    on_shard(move || {
        let path = path.clone();
        async move {
            let (shard, id) = shard_with(&path, ServerConfig { shutdown_timeout_ms: 100, ..Default::default() }).await;
            assert_eq!(produce(&shard, id, batch(100)).await, (ErrorCode::None, 0));
            faults::inject(faults::Op::Fdatasync, "t0-0", 0, faults::Fault::Slow(3_600_000));
            assert_eq!(shard.close_all().await, [path.join("t0-0")], "it cannot have been closed cleanly");
            assert_eq!(produce(&shard, id, batch(100)).await.0, ErrorCode::NotLeaderOrFollower);
            faults::clear();
            let copy = path.join("copy-0");
            std::fs::create_dir(&copy).unwrap();
            for entry in std::fs::read_dir(path.join("t0-0")).unwrap() {
                let entry = entry.unwrap();
                std::fs::copy(entry.path(), copy.join(entry.file_name())).unwrap();
            }
            let topic = topic(0).0;
            let opened =
                Replica::open(shard.shared(), &copy, id, topic.name.clone(), LeaderEpoch(0), topic.config.clone(), 0);
            let opened = opened.await.unwrap();
            assert_eq!(opened.replica.high_watermark(), 1);
        }
    });
}

#[test]
fn closing_without_trouble_is_clean() {
    let root = scratch();
    let path = root.path().to_path_buf();
    on_shard(move || {
        let path = path.clone();
        async move {
            let (shard, id) = shard(&path).await;
            assert_eq!(produce(&shard, id, batch(100)).await, (ErrorCode::None, 0));
            assert!(shard.close_all().await.is_empty());
        }
    });
}

/// As at a start on a full disk.
#[test]
fn a_partition_whose_opening_found_no_room_is_opened_later() {
    let root = scratch();
    let path = root.path().to_path_buf();
    on_shard(move || {
        let path = path.clone();
        async move {
            let (shard, _) = shard(&path).await;
            let (other, id) = topic(5);
            shard.publish(ImageUpdate::new(&shard.image(), vec![other.clone()], &[], Revision(1))).await;
            // A new segment's file cannot be made, nor read.
            std::fs::create_dir(path.join("t5-0")).unwrap();
            std::fs::write(path.join("t5-0/00000000000000000000.log"), [0; 100]).unwrap();
            faults::inject(faults::Op::Open, "t5-0", 0, faults::Fault::Os(28));
            shard.host(vec![other], Claim::Known).await.unwrap();
            assert_eq!(produce(&shard, id, batch(100)).await.0, ErrorCode::KafkaStorageError);
            faults::clear();
            spawn_local(shard.clone().keep_reopening());
            eventually("it is opened", || shard.replica(id).is_some()).await;
            assert_eq!(produce(&shard, id, batch(100)).await, (ErrorCode::None, 0));
        }
    });
}

/// Nothing more can come into this response: waiting for min_bytes is waiting for nothing.
#[test]
fn a_fetch_that_is_full_does_not_wait_for_min_bytes() {
    let root = scratch();
    let path = root.path().to_path_buf();
    on_shard(move || {
        let path = path.clone();
        async move {
            let (shard, id) = shard(&path).await;
            for _ in 0..10 {
                let part = ProducePart { partition: id, records: batch(300_000) };
                let outcomes = shard.produce(vec![part], true, None).await.written().await.outcomes().await;
                assert_eq!(outcomes[0].error, ErrorCode::None);
            }
            let began = clock::now();
            let (outcomes, _) = shard.fetch(plan(id, 0, 1 << 20, 1 << 20, WAIT_MS)).await;
            assert_eq!(outcomes[0].bytes(), 3 * 300_061);
            let took = began.elapsed().as_millis();
            assert!(
                took < u128::from(WAIT_MS / 2),
                "3 MB lie there, the response holds all it can, and it took {took} ms"
            );
        }
    });
}

/// Batches on two shards that do not fit into one response together: it holds the first, whole.
#[test]
fn one_batch_at_most_exceeds_the_limit_of_a_fetch_over_shards() {
    let root = scratch();
    let path = root.path().to_path_buf();
    LocalStore::open(&path).unwrap();
    let seats: Vec<_> = mesh::<Shard>(2, 64).unwrap().into_iter().map(Some).collect();
    let seats = Arc::new(Mutex::new(seats));
    on_shards(2, move |spec| {
        let (path, seats) = (path.clone(), seats.clone());
        async move {
            let seat = seats.lock().unwrap()[usize::from(spec.index)].take().unwrap();
            let shard = shard_of(&path, seat, (ShardId(spec.index), 2), 4).await;
            if shard.id == ShardId(0) {
                let ids: Vec<PartitionId> = (0..4).map(|n| topic(n).1).collect();
                for id in &ids {
                    for size in [921_611, 100] {
                        let part = ProducePart { partition: *id, records: batch(size) };
                        assert_eq!(
                            shard.produce(vec![part], true, None).await.written().await.outcomes().await[0].error,
                            ErrorCode::None
                        );
                    }
                }
                let fetch = async |max_bytes: u32, part_max: u32| {
                    let part = |id: &PartitionId| FetchPart {
                        partition: *id,
                        offset: 0,
                        max_bytes: part_max,
                        current_leader_epoch: None,
                        reader: Reader::Consumer,
                        rack: None,
                    };
                    let parts = ids.iter().map(part).collect();
                    let (outcomes, _) = shard
                        .fetch(FetchPlan {
                            parts,
                            max_bytes,
                            min_bytes: 1,
                            max_wait_ms: 0,
                            begun: Moment::now(),
                            room: SendRoom::default(),
                        })
                        .await;
                    assert!(outcomes.iter().all(|o| o.error == ErrorCode::None && o.high_watermark == 2));
                    outcomes.iter().map(FetchOutcome::bytes).collect::<Vec<_>>()
                };
                assert_eq!(fetch(1_000_000, 1 << 20).await, [921_672, 0, 0, 0]);
                assert_eq!(fetch(900_000, 1 << 20).await, [921_672, 0, 0, 0], "larger than all of the limit");
                assert_eq!(fetch(2_000_000, 1 << 20).await.iter().sum::<usize>(), 2 * 921_833);
                assert_eq!(fetch(8 << 20, 900_000).await, [921_672, 0, 0, 0], "larger than a partition's limit");
                assert_eq!(fetch(8 << 20, 1 << 20).await, [921_833; 4]);
                assert_eq!(fetch(0, 0).await, [921_672, 0, 0, 0]);
            }
            shard.on_shard(ShardId(1 - shard.id.0), |_| async {}).await.unwrap();
            clock::sleep(Duration::from_millis(1500)).await;
        }
    });
}

/// Consumers on both shards follow partitions of both; a wait of a minute that a batch does not
/// end soon is a lost wake-up.
#[test]
fn consumers_hear_of_every_batch_on_whichever_shard_it_lands() {
    const TOPICS: u128 = 4;
    const BATCHES: i64 = 300;
    let root = scratch();
    let path = root.path().to_path_buf();
    // Made by one thread, as at a start; the shards find it there.
    LocalStore::open(&path).unwrap();
    let seats: Vec<_> = mesh::<Shard>(2, 64).unwrap().into_iter().map(Some).collect();
    let (seats, ended) = (Arc::new(Mutex::new(seats)), Arc::new(AtomicUsize::new(0)));
    on_shards(2, move |spec| {
        let (path, seats, ended) = (path.clone(), seats.clone(), ended.clone());
        async move {
            let seat = seats.lock().unwrap()[usize::from(spec.index)].take().unwrap();
            let shard = shard_of(&path, seat, (ShardId(spec.index), 2), TOPICS).await;
            let owned = (0..TOPICS).filter(|n| topic(*n).1.owner(2) == shard.id).count();
            assert_eq!(owned, 2, "the topics are spread over both shards");
            let producing = shard.clone();
            spawn_local(async move {
                for round in 0..BATCHES {
                    // This shard produces to every topic: half of it reaches the
                    // other shard by message.
                    for n in (0..TOPICS).filter(|n| n % 2 == u128::from(producing.id.0)) {
                        let part = ProducePart { partition: topic(n).1, records: batch(50) };
                        let outcomes = producing.produce(vec![part], true, None).await.written().await.outcomes().await;
                        assert_eq!(outcomes[0].error, ErrorCode::None);
                    }
                    let pause = [0, 50, 400, 3000][round as usize % 4];
                    clock::sleep(Duration::from_micros(pause)).await;
                }
            });
            let mut offsets = [0i64; TOPICS as usize];
            while offsets.iter().any(|o| *o < BATCHES) {
                let part = |(n, offset): (usize, &i64)| FetchPart {
                    partition: topic(n as u128).1,
                    offset: *offset,
                    max_bytes: 1 << 20,
                    current_leader_epoch: None,
                    reader: Reader::Consumer,
                    rack: None,
                };
                let parts = offsets.iter().enumerate().map(part).collect();
                let plan = FetchPlan {
                    parts,
                    max_bytes: 50 << 20,
                    min_bytes: 1,
                    max_wait_ms: WAIT_MS,
                    begun: Moment::now(),
                    room: SendRoom::default(),
                };
                let asked = clock::now();
                let (outcomes, _) = shard.fetch(plan).await;
                let waited = asked.elapsed().as_millis();
                assert!(waited < u128::from(WAIT_MS / 2), "woken only by the end of the wait, at {offsets:?}");
                for (offset, outcome) in offsets.iter_mut().zip(outcomes) {
                    assert_eq!(outcome.error, ErrorCode::None);
                    *offset += outcome.bytes() as i64 / (HEADER_BYTES + 50) as i64;
                }
            }
            // The other shard may still need this one's partitions.
            ended.fetch_add(1, Ordering::SeqCst);
            eventually("the other shard's consumers have all", || ended.load(Ordering::SeqCst) == 2).await;
        }
    });
}

/// A data directory that fails while the broker runs takes all its partitions offline; one
/// partition's own fault does not.
#[test]
fn a_directory_that_fails_goes_offline_as_a_whole() {
    let root = scratch();
    let path = root.path().to_path_buf();
    on_shard(move || {
        let path = path.clone();
        async move {
            let seat = mesh::<Shard>(1, 16).unwrap().pop().unwrap();
            let shard = shard_of(&path, seat, (ShardId(0), 1), 3).await;
            let other = DirectoryId(Uuid::from_u128(2));
            let directories = vec![(DirectoryId(Uuid::from_u128(1)), path.clone()), (other, path.join("other"))];
            shard.set_placement(Arc::new(Placement { directories, ..Placement::default() }));
            let produce = async |number: u128| {
                let part = ProducePart { partition: topic(number).1, records: batch(100) };
                shard.produce(vec![part], true, None).await.written().await.outcomes().await[0].error
            };
            faults::inject(faults::Op::Write, "t0-0", 0, faults::Fault::Os(5));
            assert_eq!(produce(0).await, ErrorCode::KafkaStorageError);
            shard.try_out_suspects().await;
            assert_eq!(produce(1).await, ErrorCode::None, "the directory is in order");
            faults::inject(faults::Op::Small, ".probe", 0, faults::Fault::Os(5));
            shard.try_out_suspects().await;
            faults::clear();
            for number in 1..3 {
                let replica = shard.replica(topic(number).1).unwrap();
                let why = replica.offline_reason().expect("offline");
                assert!(why.contains(&*path.to_string_lossy()) && why.contains("mend or replace its disk"), "{why}");
                assert_eq!(produce(number).await, ErrorCode::KafkaStorageError);
            }
            let left: Vec<_> = shard.placement().directories.iter().map(|(id, _)| *id).collect();
            assert_eq!(left, [other], "new partitions go elsewhere");
        }
    });
}

/// On a full disk nothing of a partition that could not be made may stay: it takes
/// room, and no topic claims it.
#[test]
fn a_partition_that_cannot_be_made_leaves_nothing() {
    let root = scratch();
    let path = root.path().to_path_buf();
    on_shard(move || {
        let path = path.clone();
        async move {
            let (shard, _) = shard(&path).await;
            faults::inject(faults::Op::Small, "leader-epoch-checkpoint", 0, faults::Fault::Os(5));
            let hosted = shard.host(vec![topic(7).0], Claim::New).await.unwrap();
            faults::clear();
            assert_eq!(hosted.failed.len(), 1);
            assert!(!path.join("t7-0").exists());
            assert!(shard.host(vec![topic(7).0], Claim::New).await.unwrap().failed.is_empty());
            assert!(path.join("t7-0").is_dir());
        }
    });
}
