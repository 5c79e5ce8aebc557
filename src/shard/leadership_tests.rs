//! Roles of replicas on a shard of their own.

use std::collections::BTreeMap as Map;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_lite::future::poll_once;
use uuid::Uuid;

use super::*;
use crate::cluster::image_diff::ImageUpdate;
use crate::cluster::metadata_store::LocalStore;
use crate::cluster::{BrokerImage, TopicImage};
use crate::config::{ServerConfig, TopicConfig};
use crate::model::{ErrorCode, ShardId, records};
use crate::partition::{FetchAnswer, FollowerFetch};
use crate::runtime::mailbox::{Mesh, mesh};
use crate::runtime::{SendRoom, disk, on_shard, scratch};
use crate::shard::hosting::Claim;
use crate::shard::{FetchPart, FetchPlan, OffsetQuery, ProducePart};

const ME: BrokerId = BrokerId(0);
const OTHER: BrokerId = BrokerId(1);
const ME_EPOCH: i64 = 70;
const OTHER_EPOCH: i64 = 71;

pub(in crate::shard) fn batch(value: u8) -> Bytes {
    records::build(&[(b"k".to_vec(), Some(vec![value; 40]))], clock::wall_ms()).into()
}

fn broker(id: BrokerId, epoch: i64, phase: Phase) -> BrokerImage {
    BrokerImage { epoch, phase, incarnation: 5, ..BrokerImage::alone(id, Vec::new(), None) }
}

fn id() -> PartitionId {
    PartitionId::new(Uuid::from_u128(1), 0)
}

/// The state of the only partition.
#[derive(Clone)]
pub(in crate::shard) struct State {
    pub leader: Option<BrokerId>,
    pub epoch: i32,
    pub version: i32,
    pub isr: Vec<BrokerId>,
    pub min_insync: u32,
}

impl State {
    /// Broker 0 leads in epoch 3; both are in the ISR.
    pub fn led() -> State {
        let isr = vec![ME, OTHER];
        State { leader: Some(ME), epoch: 3, version: 1, isr, min_insync: 1 }
    }

    fn next(&self) -> State {
        State { version: self.version + 1, ..self.clone() }
    }

    fn led_by(&self, leader: Option<BrokerId>) -> State {
        State { leader, epoch: self.epoch + 1, ..self.next() }
    }

    fn image(&self) -> MetadataImage {
        let mut image = MetadataImage::default();
        image.brokers = vec![broker(ME, ME_EPOCH, Phase::Active), broker(OTHER, OTHER_EPOCH, Phase::Active)];
        let partition = PartitionImage {
            version: self.version,
            leader: self.leader,
            leader_epoch: LeaderEpoch(self.epoch),
            replicas: vec![ME, OTHER],
            isr: self.isr.clone(),
            ..PartitionImage::default()
        };
        image.put_topic(TopicImage {
            name: "t".into(),
            id: id().topic,
            partitions: vec![partition],
            overrides: Map::new(),
            config: Arc::new(TopicConfig { min_insync_replicas: self.min_insync, ..TopicConfig::default() }),
        });
        image
    }
}

/// A shard of a broker in a cluster that shows `state`.
pub(in crate::shard) async fn member(root: &Path, state: &State) -> (Rc<Shard>, Rc<Replica>) {
    disk::prime_device(root).await.unwrap();
    let zookeeper_connect = "nowhere:2181".to_owned();
    let config = ServerConfig { log_dirs: vec![root.to_path_buf()], zookeeper_connect, ..ServerConfig::default() };
    let mesh = Mesh::connect(mesh::<Shard>(1, 16).unwrap().pop().unwrap()).unwrap();
    let store = LocalStore::open(root).unwrap();
    let image = Arc::new(state.image());
    let shard = Shard::new((ShardId(0), 1), Arc::new(config), Default::default(), mesh.clone(), image.clone(), store);
    mesh.serve(shard.clone());
    shard.host(image.topics().cloned().collect(), Claim::New).await.unwrap();
    assert!(shard.all_recovered().await);
    let replica = shard.replica(id()).unwrap();
    (shard, replica)
}

pub(in crate::shard) async fn show(shard: &Rc<Shard>, state: &State) {
    let before = shard.image();
    shard.publish(ImageUpdate::between(&before, Arc::new(state.image()), &["t".into()])).await;
}

/// The other broker's fetch in epoch 3.
pub(in crate::shard) fn fetch(offset: i64, last_epoch: Option<i32>) -> FollowerFetch {
    FollowerFetch { broker: OTHER, broker_epoch: OTHER_EPOCH, leader_epoch: LeaderEpoch(3), offset, last_epoch }
}

async fn produce(shard: &Rc<Shard>) -> (ErrorCode, i64) {
    let outcomes = shard.produce(vec![ProducePart { partition: id(), records: batch(1) }]).await.await;
    (outcomes[0].error, outcomes[0].base_offset)
}

async fn consume(shard: &Rc<Shard>, offset: i64, max_wait_ms: u32) -> (ErrorCode, i64) {
    let part = FetchPart { partition: id(), offset, max_bytes: 1 << 20, current_leader_epoch: None };
    let plan =
        FetchPlan { parts: vec![part], max_bytes: 1 << 20, min_bytes: 1, max_wait_ms, room: SendRoom::default() };
    let outcome = &shard.fetch(plan).await.0[0];
    (outcome.error, outcome.high_watermark)
}

async fn latest(shard: &Rc<Shard>) -> (ErrorCode, i64) {
    let outcome = shard.list_offsets(vec![(id(), OffsetQuery::Latest, None)]).await[0];
    (outcome.error, outcome.offset)
}

fn on_member<F: Future<Output = ()> + 'static>(state: State, test: fn(Rc<Shard>, Rc<Replica>) -> F) {
    let root = scratch();
    let path = root.path().to_path_buf();
    on_shard(move || {
        let (path, state) = (path.clone(), state.clone());
        async move {
            let (shard, replica) = member(&path, &state).await;
            test(shard, replica).await;
        }
    });
}

#[test]
fn the_view_of_a_partition_is_the_images() {
    let mut image = State { min_insync: 3, ..State::led() }.image();
    let view = partition_view(&image, id()).unwrap();
    assert_eq!((view.version, view.leader_epoch, view.min_isr), (1, LeaderEpoch(3), 2), "no more than there are");
    let other = ReplicaView { broker: OTHER, broker_epoch: Some(OTHER_EPOCH), active: true, incarnation: 5 };
    assert_eq!(view.replicas[1], other);
    // A replica that is being added does not raise the minimum yet; nor is one known that is not registered.
    let mut topic = TopicImage::clone(image.topic("t").unwrap());
    topic.partitions[0].replicas.push(BrokerId(2));
    topic.partitions[0].adding = vec![BrokerId(2)];
    image.put_topic(topic);
    image.brokers[1].phase = Phase::Draining;
    let view = partition_view(&image, id()).unwrap();
    assert_eq!((view.min_isr, view.replicas[1].active), (2, false));
    let gone = ReplicaView { broker: BrokerId(2), broker_epoch: None, active: false, incarnation: -1 };
    assert_eq!(view.replicas[2], gone);
    assert_eq!(partition_view(&image, PartitionId::new(id().topic, 1)), None);
    assert_eq!(assigned(&image, id(), BrokerId(9)), Assigned::None);
    assert_eq!(assigned(&image, id(), OTHER), Assigned::Follow(ME, LeaderEpoch(3)));
}

#[test]
fn what_is_committed_waits_for_the_follower() {
    on_member(State::led(), |shard, replica| async move {
        assert_eq!(replica.led_epoch(), Some(LeaderEpoch(3)));
        let mut produced = Box::pin(produce(&shard));
        while replica.acknowledged() < 1 {
            assert!(poll_once(&mut produced).await.is_none());
            clock::sleep(Duration::from_millis(1)).await;
        }
        assert!(poll_once(&mut produced).await.is_none());
        assert_eq!(consume(&shard, 0, 0).await, (ErrorCode::None, 0), "not committed, so not shown");
        assert_eq!(replica.fetched(&fetch(0, None)), FetchAnswer::Serve { up_to: 1 });
        assert!(poll_once(&mut produced).await.is_none());
        assert_eq!(replica.fetched(&fetch(1, Some(3))), FetchAnswer::Serve { up_to: 1 });
        assert_eq!(produced.await, (ErrorCode::None, 0));
        assert_eq!(latest(&shard).await, (ErrorCode::None, 1));
    });
}

#[test]
fn who_waits_is_told_when_the_leadership_ends() {
    on_member(State::led(), |shard, replica| async move {
        let (mut produced, mut consumed) =
            (Box::pin(produce(&shard)), Box::pin(consume(&shard, 0, crate::shard::tests::WAIT_MS)));
        while replica.acknowledged() < 1 {
            assert!(poll_once(&mut produced).await.is_none() && poll_once(&mut consumed).await.is_none());
            clock::sleep(Duration::from_millis(1)).await;
        }
        let began = clock::now();
        show(&shard, &State::led().led_by(Some(OTHER))).await;
        assert_eq!(produced.await.0, ErrorCode::NotLeaderOrFollower);
        assert_eq!(consumed.await.0, ErrorCode::NotLeaderOrFollower);
        assert!(began.elapsed() < Duration::from_millis(u64::from(crate::shard::tests::WAIT_MS / 2)));
        assert_eq!(replica.followed().map(|follows| (follows.leader, follows.epoch)), Some((OTHER, LeaderEpoch(4))));
        for refused in [produce(&shard).await.0, consume(&shard, 0, 0).await.0, latest(&shard).await.0] {
            assert_eq!(refused, ErrorCode::NotLeaderOrFollower);
        }
        assert_eq!(shard.delete_records(vec![(id(), None)]).await, [Err(ErrorCode::NotLeaderOrFollower)]);
        let nowhere = PartitionId::new(Uuid::from_u128(99), 0);
        assert_eq!(shard.delete_records(vec![(nowhere, None)]).await, [Err(ErrorCode::UnknownTopicOrPartition)]);
        // Elected again, it knows nothing of followers, and of its own end no more than it had committed.
        show(&shard, &State::led().led_by(Some(OTHER)).led_by(Some(ME))).await;
        assert_eq!(replica.led_epoch(), Some(LeaderEpoch(5)));
        assert_eq!(latest(&shard).await.0, ErrorCode::OffsetNotAvailable, "KIP-207");
        let again = FollowerFetch { leader_epoch: LeaderEpoch(5), ..fetch(1, Some(3)) };
        replica.fetched(&again);
        assert_eq!(latest(&shard).await, (ErrorCode::None, 1));
    });
}

/// The image of a broker that takes no part shows no leader.
#[test]
fn a_broker_that_takes_no_part_has_no_role() {
    on_member(State::led(), |shard, replica| async move {
        show(&shard, &State { leader: None, ..State::led() }).await;
        assert_eq!((replica.led_epoch(), replica.followed()), (None, None));
        assert_eq!(produce(&shard).await.0, ErrorCode::NotLeaderOrFollower);
        show(&shard, &State::led().led_by(Some(ME))).await;
        assert_eq!(replica.led_epoch(), Some(LeaderEpoch(4)));
    });
}

/// A broker has changed, no topic: who has registered anew is not who fetched before.
#[test]
fn leaders_look_at_brokers_that_have_changed() {
    on_member(State::led(), |shard, replica| async move {
        replica.fetched(&fetch(0, None));
        let before = shard.image();
        let mut image = State::led().image();
        image.brokers[1].epoch += 1;
        shard.publish(ImageUpdate::between(&before, Arc::new(image), &[])).await;
        assert_eq!(replica.fetched(&fetch(0, None)), FetchAnswer::Refuse(ErrorCode::NotLeaderOrFollower));
    });
}

/// A follower's log that is being moved gets no other role until that is over.
#[test]
fn a_role_waits_for_moves_of_the_log() {
    on_member(State::led().led_by(Some(OTHER)), |shard, replica| async move {
        let moving = replica.begin_move();
        let next = State::led().led_by(Some(OTHER)).led_by(Some(ME));
        show(&shard, &next).await;
        assert_eq!((replica.led_epoch(), replica.followed()), (None, None));
        drop(moving);
        crate::runtime::eventually("it leads", || replica.led_epoch() == Some(LeaderEpoch(5))).await;
    });
}

#[test]
fn metadata_from_before_the_log_is_not_led_by() {
    on_member(State::led(), |shard, replica| async move {
        replica.leave();
        show(&shard, &State { epoch: 2, ..State::led().next() }).await;
        assert_eq!(replica.led_epoch(), None);
        assert_eq!(produce(&shard).await.0, ErrorCode::NotLeaderOrFollower);
    });
}

#[test]
fn a_replica_believes_no_more_than_was_noted() {
    let root = scratch();
    let path = root.path().to_path_buf();
    on_shard(move || {
        let path = path.clone();
        async move {
            let alone = State { isr: vec![ME], ..State::led() };
            let (shard, replica) = member(&path, &alone).await;
            for offset in 0..3 {
                assert_eq!(produce(&shard).await, (ErrorCode::None, offset));
            }
            replica.close().await.unwrap();
            shard.replicas.borrow_mut().clear();
            shard.note_high_watermark(id(), 2);
            show(&shard, &State { leader: None, ..alone }).await;
            shard.host(shard.image().topics().cloned().collect(), Claim::Known).await.unwrap();
            let replica = shard.replica(id()).unwrap();
            assert_eq!((replica.high_watermark(), replica.acknowledged()), (2, 3));
            assert_eq!((replica.epoch_of(2), replica.epoch_end(LeaderEpoch(3))), (3, Some((3, 3))));
        }
    });
}
