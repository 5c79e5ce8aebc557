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
use crate::config::{ReplicaSelector, ServerConfig, TopicConfig};
use crate::model::{ErrorCode, ShardId, records};
use crate::partition::{FetchAnswer, FollowerFetch, LeaderAnswer};
use crate::runtime::clock::Moment;
use crate::runtime::mailbox::{Mesh, mesh};
use crate::runtime::{PATIENCE, SendRoom, disk, on_shard, scratch};
use crate::shard::hosting::Claim;
use crate::shard::{FetchPart, FetchPlan, OffsetQuery, ProducePart, Reader};

const ME: BrokerId = BrokerId(0);
const OTHER: BrokerId = BrokerId(1);
const ME_EPOCH: i64 = 70;
const OTHER_EPOCH: i64 = 71;

pub(in crate::shard) fn batch(value: u8) -> Bytes {
    records::build(&[(b"k".to_vec(), Some(vec![value; 40]))], clock::wall_ms()).into()
}

fn broker(id: BrokerId, epoch: i64, phase: Phase) -> BrokerImage {
    let rack = if id == ME { "a" } else { "b" };
    BrokerImage { epoch, phase, incarnation: 5, ..BrokerImage::alone(id, Vec::new(), Some(rack.to_owned())) }
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
    member_with(root, state, ReplicaSelector::Leader).await
}

async fn member_with(root: &Path, state: &State, replica_selector: ReplicaSelector) -> (Rc<Shard>, Rc<Replica>) {
    disk::prime_device(root).await.unwrap();
    let (log_dirs, zookeeper_connect) = (vec![root.to_path_buf()], "nowhere:2181".to_owned());
    let config = ServerConfig { log_dirs, zookeeper_connect, replica_selector, ..ServerConfig::default() };
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

pub(in crate::shard) async fn publish(shard: &Rc<Shard>, state: &State) {
    let before = shard.image();
    shard.publish(ImageUpdate::between(&before, Arc::new(state.image()), &["t".into()])).await;
}

/// The other broker's fetch in epoch 3.
pub(in crate::shard) fn fetch(offset: i64, last_epoch: Option<i32>) -> FollowerFetch {
    FollowerFetch { broker: OTHER, broker_epoch: OTHER_EPOCH, leader_epoch: LeaderEpoch(3), offset, last_epoch }
}

async fn produce(shard: &Rc<Shard>) -> (ErrorCode, i64) {
    produce_for(shard, true).await
}

/// With acks=all, or acks=1.
async fn produce_for(shard: &Rc<Shard>, all: bool) -> (ErrorCode, i64) {
    let parts = vec![ProducePart { partition: id(), records: batch(1) }];
    let outcomes = shard.produce(parts, all, None).await.written().await.outcomes().await;
    (outcomes[0].error, outcomes[0].base_offset)
}

/// A produce for the whole ISR that this broker has and no other.
async fn pending(shard: &Rc<Shard>, replica: &Replica) -> std::pin::Pin<Box<dyn Future<Output = (ErrorCode, i64)>>> {
    let (shard, end) = (shard.clone(), replica.acknowledged() + 1);
    let mut produced = Box::pin(async move { produce(&shard).await });
    while replica.acknowledged() < end {
        assert!(poll_once(&mut produced).await.is_none());
        clock::sleep(Duration::from_millis(1)).await;
    }
    produced
}

/// The other broker's fetch over the shard: error, high watermark, bytes of records, divergence.
async fn replicate(
    shard: &Rc<Shard>,
    fetch: FollowerFetch,
    max_wait_ms: u32,
) -> (ErrorCode, i64, usize, Option<(i32, i64)>) {
    let FollowerFetch { broker, broker_epoch, leader_epoch, offset, last_epoch } = fetch;
    read(
        shard,
        offset,
        Some(leader_epoch),
        Reader::Follower { broker, broker_epoch, last_epoch, arrives: true },
        max_wait_ms,
    )
    .await
}

async fn read(
    shard: &Rc<Shard>,
    offset: i64,
    current_leader_epoch: Option<LeaderEpoch>,
    reader: Reader,
    max_wait_ms: u32,
) -> (ErrorCode, i64, usize, Option<(i32, i64)>) {
    let part = FetchPart { partition: id(), offset, max_bytes: 1 << 20, current_leader_epoch, reader, rack: None };
    let plan = FetchPlan {
        parts: vec![part],
        max_bytes: 1 << 20,
        min_bytes: 1,
        max_wait_ms,
        begun: Moment::now(),
        room: SendRoom::default(),
    };
    let outcome = &shard.fetch(plan).await.0[0];
    (outcome.error, outcome.high_watermark, outcome.bytes(), outcome.diverging)
}

async fn consume(shard: &Rc<Shard>, offset: i64, max_wait_ms: u32) -> (ErrorCode, i64) {
    let part = FetchPart {
        partition: id(),
        offset,
        max_bytes: 1 << 20,
        current_leader_epoch: None,
        reader: Reader::Consumer,
        rack: None,
    };
    let plan = FetchPlan {
        parts: vec![part],
        max_bytes: 1 << 20,
        min_bytes: 1,
        max_wait_ms,
        begun: Moment::now(),
        room: SendRoom::default(),
    };
    let outcome = &shard.fetch(plan).await.0[0];
    (outcome.error, outcome.high_watermark)
}

async fn latest(shard: &Rc<Shard>) -> (ErrorCode, i64) {
    let outcome = shard.list_offsets(vec![(id(), OffsetQuery::Latest, None)], false).await[0];
    (outcome.error, outcome.offset)
}

/// Runs `test` on a shard of a broker in a cluster that shows `state`.
pub(in crate::shard) fn on_member<F: Future<Output = ()> + 'static>(
    state: State,
    test: fn(Rc<Shard>, Rc<Replica>) -> F,
) {
    on_member_with(state, ReplicaSelector::Leader, test);
}

fn on_member_with<F: Future<Output = ()> + 'static>(
    state: State,
    selector: ReplicaSelector,
    test: fn(Rc<Shard>, Rc<Replica>) -> F,
) {
    let root = scratch();
    let path = root.path().to_path_buf();
    on_shard(move || {
        let (path, state) = (path.clone(), state.clone());
        async move {
            let (shard, replica) = member_with(&path, &state, selector).await;
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
    // A replica that is being added does not raise the minimum yet; nor is one
    // known that is not registered.
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
        assert_eq!(replica.fetched(&fetch(0, None), true), FetchAnswer::Serve { up_to: 1 });
        assert!(poll_once(&mut produced).await.is_none());
        assert_eq!(replica.fetched(&fetch(1, Some(3)), true), FetchAnswer::Serve { up_to: 1 });
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
        publish(&shard, &State::led().led_by(Some(OTHER))).await;
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
        // Elected again, it knows nothing of followers, and of its own end no
        // more than it had committed.
        publish(&shard, &State::led().led_by(Some(OTHER)).led_by(Some(ME))).await;
        assert_eq!(replica.led_epoch(), Some(LeaderEpoch(5)));
        assert_eq!(latest(&shard).await.0, ErrorCode::OffsetNotAvailable, "KIP-207");
        let again = FollowerFetch { leader_epoch: LeaderEpoch(5), ..fetch(1, Some(3)) };
        replica.fetched(&again, true);
        assert_eq!(latest(&shard).await, (ErrorCode::None, 1));
    });
}

/// Told that this is not the leader, a producer would take the batch for not written.
#[test]
fn a_batch_outlives_the_leadership_that_accepted_it() {
    on_member(State::led(), |shard, replica| async move {
        let began = clock::now();
        let taken_over = State::led().led_by(None).led_by(Some(ME));
        let mut kept = pending(&shard, &replica).await;
        publish(&shard, &State::led().led_by(None)).await;
        assert!(poll_once(&mut kept).await.is_none());
        publish(&shard, &taken_over).await;
        assert!(poll_once(&mut kept).await.is_none());
        replica.fetched(&FollowerFetch { leader_epoch: LeaderEpoch(5), ..fetch(1, Some(3)) }, true);
        assert_eq!(kept.await, (ErrorCode::None, 0), "the next leadership commits it");

        let mut followed = pending(&shard, &replica).await;
        let gone = pending(&shard, &replica).await;
        publish(&shard, &taken_over.led_by(Some(OTHER))).await;
        replica.truncate_to(2, clock::wall_ms()).await.unwrap();
        assert_eq!(gone.await.0, ErrorCode::NotLeaderOrFollower, "it is cut off");
        assert!(poll_once(&mut followed).await.is_none());
        let answer = LeaderAnswer::Records { first: None, high_watermark: 2, start: 0 };
        replica.carry_out(LeaderEpoch(6), answer, Bytes::new(), clock::wall_ms()).await;
        assert_eq!(followed.await, (ErrorCode::None, 1), "the next leader commits it");
        assert!(began.elapsed() < crate::shard::produce::AFTERMATH, "nobody waited for its end");
    });
}

#[test]
fn one_acknowledgement_waits_for_nobody_else_and_all_of_them_for_a_minimum() {
    let state = State { isr: vec![ME], min_insync: 2, ..State::led() };
    on_member(state, |shard, replica| async move {
        assert_eq!(produce_for(&shard, false).await, (ErrorCode::None, 0));
        assert_eq!(produce_for(&shard, true).await.0, ErrorCode::NotEnoughReplicas);
        assert_eq!(
            (replica.acknowledged(), replica.high_watermark()),
            (1, 0),
            "nothing was written, nothing is committed"
        );
        // Enough of them, and then too few again.
        let both = State { isr: vec![ME, OTHER], min_insync: 2, ..State::led().next() };
        publish(&shard, &both).await;
        let mut produced = Box::pin(produce_for(&shard, true));
        while replica.acknowledged() < 2 {
            assert!(poll_once(&mut produced).await.is_none());
            clock::sleep(Duration::from_millis(1)).await;
        }
        replica.fetched(&fetch(2, Some(3)), true);
        publish(&shard, &State { isr: vec![ME], ..both.next() }).await;
        assert_eq!(produced.await.0, ErrorCode::NotEnoughReplicasAfterAppend);
    });
}

/// The request's memory is free when this broker has the batch.
#[test]
fn a_batch_is_written_before_it_is_committed() {
    on_member(State::led(), |shard, replica| async move {
        let parts = vec![ProducePart { partition: id(), records: batch(1) }];
        let written = shard.produce(parts, true, None).await.written().await;
        assert_eq!((replica.acknowledged(), replica.high_watermark()), (1, 0));
        let mut outcomes = Box::pin(written.outcomes());
        assert!(poll_once(&mut outcomes).await.is_none());
        replica.fetched(&fetch(1, Some(3)), true);
        assert_eq!(outcomes.await[0].error, ErrorCode::None);
    });
}

#[test]
fn a_followers_fetch_waits_for_records_and_moves_the_high_watermark() {
    on_member(State::led(), |shard, replica| async move {
        let wait_ms = crate::shard::tests::WAIT_MS;
        let mut replicated = Box::pin(replicate(&shard, fetch(0, None), wait_ms));
        assert!(poll_once(&mut replicated).await.is_none());
        let mut produced = Box::pin(produce(&shard));
        assert!(poll_once(&mut produced).await.is_none());
        // It gets what is not committed; a consumer does not, and a reader of any replica does.
        let (error, high_watermark, bytes, _) = replicated.await;
        assert_eq!((error, high_watermark), (ErrorCode::None, 0));
        assert!(bytes > 0);
        assert_eq!(read(&shard, 0, None, Reader::Consumer, 0).await, (ErrorCode::None, 0, 0, None));
        assert_eq!(read(&shard, 0, None, Reader::Verifier, 0).await, (ErrorCode::None, 0, bytes, None));
        assert!(poll_once(&mut produced).await.is_none());
        // The next fetch acknowledges, and waits.
        let mut next = Box::pin(replicate(&shard, fetch(1, Some(3)), wait_ms));
        assert!(poll_once(&mut next).await.is_none());
        assert_eq!(produced.await, (ErrorCode::None, 0));
        let began = clock::now();
        publish(&shard, &State::led().led_by(Some(OTHER))).await;
        assert_eq!(next.await.0, ErrorCode::NotLeaderOrFollower, "its leader leads no more");
        assert!(began.elapsed() < Duration::from_millis(u64::from(wait_ms / 2)));
        assert!(replica.led_epoch().is_none());
        assert_eq!(read(&shard, 0, None, Reader::Verifier, 0).await.2, bytes, "a follower's log is read by it as well");
    });
}

#[test]
fn what_a_follower_says_is_judged() {
    on_member(State::led(), |shard, _| async move {
        assert_eq!(produce_for(&shard, false).await, (ErrorCode::None, 0));
        // It has records of epochs before all of ours only: it begins at our start.
        assert_eq!(replicate(&shard, fetch(7, Some(2)), 0).await.0, ErrorCode::OffsetOutOfRange);
        assert_eq!(replicate(&shard, fetch(0, Some(9)), 0).await.0, ErrorCode::UnknownLeaderEpoch);
        publish(&shard, &State::led().led_by(Some(ME))).await;
        let now = |fetch| FollowerFetch { leader_epoch: LeaderEpoch(4), ..fetch };
        assert_eq!(produce_for(&shard, false).await, (ErrorCode::None, 1));
        assert_eq!(replicate(&shard, now(fetch(5, Some(3))), 0).await, (ErrorCode::None, 0, 0, Some((3, 1))));
        assert_eq!(replicate(&shard, fetch(0, None), 0).await.0, ErrorCode::FencedLeaderEpoch);
        let stale = FollowerFetch { broker_epoch: OTHER_EPOCH - 1, ..now(fetch(1, Some(3))) };
        assert_eq!(replicate(&shard, stale, 0).await.0, ErrorCode::NotLeaderOrFollower);
        let stranger = FollowerFetch { broker: BrokerId(9), ..now(fetch(1, Some(3))) };
        assert_eq!(replicate(&shard, stranger, 0).await.0, ErrorCode::NotLeaderOrFollower);
        let (error, high_watermark, ..) = replicate(&shard, now(fetch(9, None)), 0).await;
        assert_eq!((error, high_watermark), (ErrorCode::OffsetOutOfRange, 0), "it has to know where to begin");
    });
}

/// The image of a broker that takes no part shows no leader.
#[test]
fn a_broker_that_takes_no_part_has_no_role() {
    on_member(State::led(), |shard, replica| async move {
        publish(&shard, &State { leader: None, ..State::led() }).await;
        assert_eq!((replica.led_epoch(), replica.followed()), (None, None));
        assert_eq!(produce(&shard).await.0, ErrorCode::NotLeaderOrFollower);
        publish(&shard, &State::led().led_by(Some(ME))).await;
        assert_eq!(replica.led_epoch(), Some(LeaderEpoch(4)));
    });
}

/// A broker has changed, no topic: who has registered anew is not who fetched before.
#[test]
fn leaders_look_at_brokers_that_have_changed() {
    on_member(State::led(), |shard, replica| async move {
        replica.fetched(&fetch(0, None), true);
        let before = shard.image();
        let mut image = State::led().image();
        image.brokers[1].epoch += 1;
        shard.publish(ImageUpdate::between(&before, Arc::new(image), &[])).await;
        assert_eq!(replica.fetched(&fetch(0, None), true), FetchAnswer::Refuse(ErrorCode::NotLeaderOrFollower));
    });
}

/// A follower's log that is being moved gets no other role until that is over.
#[test]
fn a_role_waits_for_moves_of_the_log() {
    on_member(State::led().led_by(Some(OTHER)), |shard, replica| async move {
        let moving = replica.begin_move();
        let next = State::led().led_by(Some(OTHER)).led_by(Some(ME));
        publish(&shard, &next).await;
        assert_eq!((replica.led_epoch(), replica.followed()), (None, None));
        drop(moving);
        crate::runtime::eventually("it leads", || replica.led_epoch() == Some(LeaderEpoch(5))).await;
    });
}

#[test]
fn metadata_from_before_the_log_is_not_led_by() {
    on_member(State::led(), |shard, replica| async move {
        replica.leave();
        publish(&shard, &State { epoch: 2, ..State::led().next() }).await;
        assert_eq!(replica.led_epoch(), None);
        assert_eq!(produce(&shard).await.0, ErrorCode::NotLeaderOrFollower);
    });
}

/// A new session may see metadata from before what the last one saw: a leader of then would
/// have the log cut to its own.
#[test]
fn metadata_from_before_the_last_role_is_not_followed_by() {
    on_member(State::led(), |shard, replica| async move {
        let older = State { leader: Some(OTHER), epoch: 2, ..State::led().next() };
        publish(&shard, &older).await;
        assert_eq!((replica.led_epoch(), replica.followed()), (None, None));
        publish(&shard, &State { epoch: 4, ..older.next() }).await;
        assert_eq!(replica.followed().map(|follows| follows.epoch), Some(LeaderEpoch(4)));
        publish(&shard, &State { epoch: 3, ..older.next().next() }).await;
        assert_eq!(replica.followed(), None);
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
            publish(&shard, &State { leader: None, ..alone }).await;
            shard.host(shard.image().topics().cloned().collect(), Claim::Known).await.unwrap();
            let replica = shard.replica(id()).unwrap();
            assert_eq!((replica.high_watermark(), replica.acknowledged()), (2, 3));
            assert_eq!((replica.epoch_of(2), replica.epoch_end(LeaderEpoch(3))), (3, Some((3, 3))));
        }
    });
}

/// A consumer's fetch: error, bytes of records, the replica that it is sent to.
async fn consume_from(shard: &Rc<Shard>, rack: Option<&str>) -> (ErrorCode, bool, Option<BrokerId>) {
    let part = FetchPart {
        partition: id(),
        offset: 0,
        max_bytes: 1 << 20,
        current_leader_epoch: None,
        reader: Reader::Consumer,
        rack: rack.map(Arc::from),
    };
    let parts = vec![part];
    let plan = FetchPlan {
        parts,
        max_bytes: 1 << 20,
        min_bytes: 1,
        max_wait_ms: 0,
        begun: Moment::now(),
        room: SendRoom::default(),
    };
    let outcome = &shard.fetch(plan).await.0[0];
    (outcome.error, outcome.bytes() > 0, outcome.preferred_replica)
}

#[test]
fn consumers_are_sent_to_the_replica_in_their_rack() {
    on_member_with(State::led(), ReplicaSelector::RackAware, |shard, replica| async move {
        produce_for(&shard, false).await;
        assert_eq!(consume_from(&shard, Some("b")).await.2, None, "it is not known to have anything");
        replicate(&shard, fetch(1, Some(3)), 0).await;
        assert_eq!(replica.high_watermark(), 1);
        let (served, sent) = ((ErrorCode::None, true, None), (ErrorCode::None, false, Some(OTHER)));
        assert_eq!(consume_from(&shard, Some("b")).await, sent);
        for rack in [Some("a"), Some("c"), None] {
            assert_eq!(consume_from(&shard, rack).await, served, "{rack:?}");
        }
        // As a follower it serves those that were sent to it.
        publish(&shard, &State::led().led_by(Some(OTHER))).await;
        assert_eq!(consume_from(&shard, Some("a")).await, served);
        assert_eq!(consume_from(&shard, None).await, (ErrorCode::NotLeaderOrFollower, false, None));
        // Out of sync, nobody is sent there.
        let alone = State { isr: vec![ME], epoch: 5, version: 3, ..State::led() };
        publish(&shard, &alone).await;
        assert_eq!(consume_from(&shard, Some("b")).await, served);
    });
}

#[test]
fn by_default_every_consumer_reads_from_the_leader() {
    on_member(State::led(), |shard, _| async move {
        produce_for(&shard, false).await;
        replicate(&shard, fetch(1, Some(3)), 0).await;
        assert_eq!(consume_from(&shard, Some("b")).await, (ErrorCode::None, true, None));
    });
}

#[test]
fn followers_that_serve_consumers_are_told_of_what_is_committed_at_once() {
    on_member_with(State::led(), ReplicaSelector::RackAware, |shard, _| async move {
        produce_for(&shard, false).await;
        let told = clock::until(clock::now() + PATIENCE, replicate(&shard, fetch(1, Some(3)), 600_000)).await;
        assert_eq!(
            told.map(|(error, high_watermark, bytes, _)| (error, high_watermark, bytes)),
            Some((ErrorCode::None, 1, 0))
        );
        // It knows: the next fetch waits for news.
        let waits =
            clock::until(clock::now() + Duration::from_millis(50), replicate(&shard, fetch(1, Some(3)), 600_000));
        assert!(waits.await.is_none());
    });
}
