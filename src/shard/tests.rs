//! Fetches on a shard of its own.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use uuid::Uuid;
use zerocopy::{FromZeros, IntoBytes};

use super::api::*;
use super::state::Shard;
use crate::cluster::metadata_store::LocalStore;
use crate::cluster::{MetadataImage, PartitionImage, TopicImage};
use crate::config::{ServerConfig, TopicConfig};
use crate::model::record_batch::{BatchHeader, CRC_START, HEADER_BYTES, LENGTH_PREFIX_BYTES};
use crate::model::{BrokerId, ErrorCode, LeaderEpoch, PartitionId, ShardId};
use crate::runtime::mailbox::{Mesh, mesh};
use crate::runtime::sync::{LocalMutex, Notify};
use crate::runtime::{clock, disk, faults, on_shard, spawn_local};
use crate::storage::{StorageContext, StorageLimits};

fn batch(payload: usize) -> Bytes {
    let mut header = BatchHeader::new_zeroed();
    header.batch_length.set((HEADER_BYTES - LENGTH_PREFIX_BYTES + payload) as i32);
    header.magic = 2;
    header.record_count.set(1);
    header.base_timestamp.set(clock::wall_ms());
    header.max_timestamp.set(clock::wall_ms());
    header.producer_id.set(-1);
    let mut bytes = header.as_bytes().to_vec();
    bytes.resize(HEADER_BYTES + payload, 7);
    let crc = crc32c::crc32c(&bytes[CRC_START..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    Bytes::from(bytes)
}

async fn shard(root: &Path) -> (Rc<Shard>, PartitionId) {
    disk::prime_device(root).await.unwrap();
    let config = ServerConfig { log_dirs: vec![root.to_path_buf()], ..ServerConfig::default() };
    let seat = mesh::<Shard>(1, 16).pop().unwrap();
    let mesh = Mesh::connect(seat).await;
    let shard = Rc::new(Shard {
        id: ShardId(0),
        config: Arc::new(config),
        stop: Default::default(),
        shards: 1,
        mesh: mesh.clone(),
        image: RefCell::new(Arc::new(MetadataImage::default())),
        store: LocalStore::open(root).unwrap(),
        storage: StorageContext::new(StorageLimits::default()),
        replicas: RefCell::new(HashMap::new()),
        control: LocalMutex::new(1),
        producer_id_turn: LocalMutex::new(1),
        producer_ids: Cell::new((0, 0)),
        far_ends: RefCell::new(HashMap::new()),
        promises: RefCell::new(HashMap::new()),
        recovered: Cell::new(true),
        on_recovered: Notify::new(),
    });
    mesh.serve(shard.clone());
    let topic = TopicImage {
        name: "t".into(),
        id: Uuid::from_u128(1),
        partitions: vec![PartitionImage {
            leader: Some(BrokerId(1)),
            leader_epoch: LeaderEpoch(0),
            replicas: vec![],
            isr: vec![],
        }],
        overrides: BTreeMap::new(),
        config: Arc::new(TopicConfig::default()),
    };
    let id = PartitionId::new(topic.id, 0);
    shard.host(vec![Arc::new(topic)]).await.unwrap();
    (shard, id)
}

fn disk_dir() -> tempfile::TempDir {
    let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("target");
    tempfile::tempdir_in(base).unwrap()
}

fn plan(partition: PartitionId, offset: i64, max_bytes: u32, min_bytes: u32, max_wait_ms: u32) -> FetchPlan {
    let part = FetchPart { partition, offset, max_bytes, current_leader_epoch: None };
    FetchPlan { parts: vec![part], max_bytes: 50 << 20, min_bytes, max_wait_ms }
}

/// A consumer at the end of a partition that went offline must not stop the whole shard.
#[test]
fn a_fetch_from_a_failed_partition_lets_the_shard_go_on() {
    let root = disk_dir();
    let path = root.path().to_path_buf();
    on_shard(move || {
        let path = path.clone();
        async move {
            let (shard, id) = shard(&path).await;
            faults::inject(faults::Op::Write, "t-0", 0, faults::Fault::Os(5));
            let part = ProducePart { partition: id, records: batch(100) };
            let outcomes = shard.produce(vec![part]).await.await;
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
            let outcomes = shard.fetch(plan(id, 0, 1 << 20, 1, 1000)).await;
            let took = began.elapsed().as_millis();
            let ran = ticks.get() - before;
            assert!(took < 100 || ran > 50, "{:?}: {ran} turns for others in {took} ms", outcomes[0].error);
        }
    });
}

/// Nothing more can come into this response: waiting for min_bytes is waiting for nothing.
#[test]
fn a_fetch_that_is_full_does_not_wait_for_min_bytes() {
    let root = disk_dir();
    let path = root.path().to_path_buf();
    on_shard(move || {
        let path = path.clone();
        async move {
            let (shard, id) = shard(&path).await;
            for _ in 0..10 {
                let part = ProducePart { partition: id, records: batch(300_000) };
                let outcomes = shard.produce(vec![part]).await.await;
                assert_eq!(outcomes[0].error, ErrorCode::None);
            }
            let began = clock::now();
            let outcomes = shard.fetch(plan(id, 0, 1 << 20, 1 << 20, 1000)).await;
            assert_eq!(outcomes[0].bytes(), 3 * 300_061);
            let took = began.elapsed().as_millis();
            assert!(took < 500, "3 MB lie there, the response holds all it can, and it took {took} ms");
        }
    });
}
