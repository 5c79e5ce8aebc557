//! Coordinators on a shard of their own, over real files.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::{Arc, Mutex};

use uuid::Uuid;

use crate::cluster::controller::OFFSETS_TOPIC;
use crate::cluster::metadata_store::LocalStore;
use crate::cluster::{BrokerImage, MetadataImage, TopicImage};
use crate::config::ServerConfig;
use crate::groups::api::*;
use crate::model::{BrokerId, ErrorCode, ShardId, record_batch};
use crate::runtime::mailbox::{Mesh, mesh};
use crate::runtime::{clock, disk, faults, on_shard, scratch, spawn_local};
use crate::shard::PATIENCE;
use crate::shard::hosting::Claim;
use crate::shard::{Shard, TopicRef};

const GROUPS: [&str; 4] = ["a", "orders", "größe", "z-9"];

async fn shard(root: &Path, topic: Option<Arc<TopicImage>>) -> Rc<Shard> {
    disk::prime_device(root).await.unwrap();
    let config =
        ServerConfig { log_dirs: vec![root.to_path_buf()], offsets_topic_num_partitions: 3, ..ServerConfig::default() };
    let mut image = MetadataImage::default();
    image.brokers = vec![BrokerImage::alone(BrokerId(0), Vec::new(), None)];
    if let Some(topic) = &topic {
        image.put_topic(TopicImage::clone(topic));
    }
    let mesh = Mesh::connect(mesh::<Shard>(1, 16).unwrap().pop().unwrap()).unwrap();
    let store = LocalStore::open(root).unwrap();
    let shard = Shard::new((ShardId(0), 1), Arc::new(config), Default::default(), mesh.clone(), Arc::new(image), store);
    mesh.serve(shard.clone());
    shard.host(topic.into_iter().collect(), Claim::Known).await.unwrap();
    assert!(shard.all_recovered().await);
    shard
}

fn commit(group: &str, offset: i64) -> CommitRequest {
    let partition = CommitPartition { index: 0, offset, leader_epoch: -1, metadata: String::new() };
    CommitRequest {
        group: group.into(),
        generation: -1,
        member_id: String::new(),
        instance_id: None,
        retention_ms: None,
        knows_member_epochs: true,
        producer: None,
        topics: vec![CommitTopic { name: "t".into(), id: Uuid::nil(), partitions: vec![partition] }],
    }
}

/// The committed offset once the coordinator has loaded.
async fn committed(shard: &Rc<Shard>, group: &str) -> i64 {
    loop {
        let request = FetchOffsetsRequest {
            group: group.into(),
            member: None,
            topics: Some(vec![("t".into(), vec![0])]),
            require_stable: false,
        };
        match shard.ask_group(request).await {
            Ok(reply) => return reply.topics[0].1[0].offset,
            Err(ErrorCode::CoordinatorLoadInProgress) => clock::next_tick().await,
            Err(code) => panic!("{code}"),
        }
    }
}

async fn commit_until_served(shard: &Rc<Shard>, group: &str, offset: i64) -> Result<CommitReply, ErrorCode> {
    loop {
        match shard.ask_group(commit(group, offset)).await {
            Err(ErrorCode::CoordinatorLoadInProgress) => clock::next_tick().await,
            answer => return answer,
        }
    }
}

/// Runs `first` on a shard and `second` on another one over the same files.
fn restarted<F1, F2>(first: fn(Rc<Shard>) -> F1, second: fn(Rc<Shard>) -> F2)
where
    F1: Future<Output = ()> + 'static,
    F2: Future<Output = ()> + 'static,
{
    let root = scratch();
    let path: PathBuf = root.path().to_path_buf();
    let kept: Arc<Mutex<Option<Arc<TopicImage>>>> = Arc::default();
    let (at, keep) = (path.clone(), kept.clone());
    on_shard(move || {
        let (at, keep) = (at.clone(), keep.clone());
        async move {
            let shard = shard(&at, None).await;
            *keep.lock().unwrap() = Some(shard.offsets_topic().await.unwrap());
            first(shard.clone()).await;
            faults::clear();
        }
    });
    on_shard(move || {
        let (at, kept) = (path.clone(), kept.clone());
        async move {
            let topic = kept.lock().unwrap().take();
            second(shard(&at, topic).await).await;
        }
    });
}

#[test]
fn what_was_committed_is_there_after_a_restart() {
    restarted(
        |shard| async move {
            for (group, offset) in GROUPS.iter().zip(10..) {
                assert_eq!(committed(&shard, group).await, -1);
                for step in [1, 100] {
                    let reply = commit_until_served(&shard, group, offset * step).await.unwrap();
                    assert_eq!(reply.topics[0].partitions, [(0, ErrorCode::None)]);
                    assert_eq!(committed(&shard, group).await, offset * step);
                }
            }
            assert_eq!(shard.list_groups().await.1.len(), GROUPS.len());
        },
        |shard| async move {
            for (group, offset) in GROUPS.iter().zip(10..) {
                assert_eq!(committed(&shard, group).await, offset * 100);
            }
        },
    );
}

/// The offset must not be seen, although the coordinator had it in memory
/// before it was to be written.
#[test]
fn a_commit_that_cannot_be_written_is_neither_confirmed_nor_shown() {
    restarted(
        |shard| async move {
            commit_until_served(&shard, "a", 1).await.unwrap();
            faults::inject(faults::Op::Write, OFFSETS_TOPIC, 0, faults::Fault::Os(5));
            assert_eq!(commit_until_served(&shard, "a", 2).await, Err(ErrorCode::NotCoordinator));
            assert_eq!(shard.ask_group(commit("a", 3)).await, Err(ErrorCode::NotCoordinator));
        },
        |shard| async move { assert_eq!(committed(&shard, "a").await, 1) },
    );
}

/// A full disk passes: the coordinator comes back with its partition, and with
/// what was confirmed before.
#[test]
fn groups_are_served_again_when_there_is_room_again() {
    restarted(
        |shard| async move {
            spawn_local(shard.clone().keep_reopening());
            commit_until_served(&shard, "a", 1).await.unwrap();
            faults::inject(faults::Op::Write, OFFSETS_TOPIC, 0, faults::Fault::Os(28));
            assert_eq!(commit_until_served(&shard, "a", 2).await, Err(ErrorCode::NotCoordinator));
            faults::clear();
            let mut served = Err(ErrorCode::NotCoordinator);
            while served.is_err() {
                clock::next_tick().await;
                served = commit_until_served(&shard, "a", 3).await;
            }
            assert_eq!(committed(&shard, "a").await, 3);
        },
        |shard| async move { assert_eq!(committed(&shard, "a").await, 3) },
    );
}

/// A checkpoint that finds no room takes neither the partition nor its groups out of service.
#[test]
fn groups_go_on_when_a_checkpoint_finds_no_room() {
    restarted(
        |shard| async move {
            commit_until_served(&shard, "a", 1).await.unwrap();
            faults::inject(faults::Op::Small, OFFSETS_TOPIC, 0, faults::Fault::Os(28));
            for replica in shard.all_replicas() {
                let _ = replica.checkpoint().await;
            }
            assert!(commit_until_served(&shard, "a", 2).await.is_ok());
        },
        |shard| async move { assert_eq!(committed(&shard, "a").await, 2) },
    );
}

/// A restart after a bit has tipped over in the middle of what groups have written.
#[test]
fn groups_beside_a_damaged_batch_are_served() {
    restarted(
        |shard| async move {
            for offset in 0..50 {
                for group in GROUPS {
                    commit_until_served(&shard, group, offset).await.unwrap();
                }
            }
            for replica in shard.all_replicas() {
                replica.close().await.unwrap();
                let path = replica.log().dir().join("00000000000000000000.log");
                let Ok(mut bytes) = std::fs::read(&path) else { continue }; // No group has this partition.
                let mut at = 0;
                while at < bytes.len() / 2 {
                    at += record_batch::frame(&bytes[at..]).unwrap().1;
                }
                // The last byte of a batch.
                bytes[at - 1] ^= 1;
                std::fs::write(path, bytes).unwrap();
            }
        },
        |shard| async move {
            for group in GROUPS {
                // In one partition a commit in the middle is lost, and the later ones hold.
                assert_eq!(committed(&shard, group).await, 49);
                commit_until_served(&shard, group, 77).await.unwrap();
                assert_eq!(committed(&shard, group).await, 77);
            }
        },
    );
}

#[test]
fn a_group_has_no_coordinator_once_its_topic_is_gone() {
    let root = scratch();
    let path = root.path().to_path_buf();
    on_shard(move || {
        let path = path.clone();
        async move {
            let shard = shard(&path, None).await;
            shard.offsets_topic().await.unwrap();
            commit_until_served(&shard, "a", 1).await.unwrap();
            let deleted = shard.delete_topics(vec![TopicRef::Name(OFFSETS_TOPIC.into())], PATIENCE).await;
            assert!(deleted[0].is_ok());
            assert_eq!(shard.ask_group(commit("a", 2)).await, Err(ErrorCode::NotCoordinator));
            shard.offsets_topic().await.unwrap();
            assert_eq!(committed(&shard, "a").await, -1, "a new topic has new groups");
        }
    });
}
