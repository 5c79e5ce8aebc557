use std::sync::Arc;

use uuid::Uuid;

use super::*;
use crate::cluster::homes::Homes;
use crate::cluster::image::{EndpointImage, MetadataImage, PartitionHome};
use crate::cluster::placement::Placement;
use crate::cluster::quotas::QuotaEntity;
use crate::cluster::store::{
    Assignment, Check, Incarnation, Lifetime, Model, ModelClient, PartitionState, Record, TopicRecord, Write,
};
use crate::cluster::{DirectoryId, decode_id};
use crate::config::{ServerConfig, TopicConfig};
use crate::model::LeaderEpoch;
use crate::partition::{Change, Proposal};

mod starts;

/// Nodes 1 to N on one store, where everything arrives at once.
struct Cluster {
    model: Model,
    nodes: Vec<Node<ModelClient>>,
    now_ms: i64,
}

fn start(broker: i32, boot: u128) -> Start {
    let directories = BTreeSet::from([DirectoryId(Uuid::from_u128(1000 + broker.unsigned_abs() as u128))]);
    Start { clean_stop: false, boot: Uuid::from_u128(boot), directories }
}

fn node(model: &Model, broker: i32, start: Start) -> Node<ModelClient> {
    let endpoint = EndpointImage { listener: "PLAINTEXT".into(), host: "h".into(), port: 9000 };
    let settings = Settings {
        me: BrokerId(broker),
        cluster_id: None,
        record: BrokerRecord::new(vec![endpoint], None),
        start,
        options: Options::default(),
        defaults: TopicDefaults { min_insync_replicas: 1, unclean_election: false },
    };
    Node::new(model.client(), settings, 0)
}

impl Cluster {
    fn of(count: i32) -> Cluster {
        let model = Model::new();
        let nodes = (1..=count).map(|broker| node(&model, broker, start(broker, 1))).collect();
        let mut cluster = Cluster { model, nodes, now_ms: 0 };
        (0..cluster.nodes.len()).for_each(|at| cluster.connect(at));
        cluster.settle();
        cluster
    }

    fn connect(&self, at: usize) {
        self.model.connect(self.nodes[at].store().id(), self.model.revision());
    }

    /// Until nothing happens any more; what each node was told.
    fn settle(&mut self) -> Vec<Vec<News>> {
        self.settle_but(usize::MAX)
    }

    /// The same, while the node at `still` does nothing.
    fn settle_but(&mut self, still: usize) -> Vec<Vec<News>> {
        let mut told: Vec<Vec<News>> = self.nodes.iter().map(|_| Vec::new()).collect();
        for _ in 0..200 {
            self.now_ms += 100;
            self.model.settle();
            for (at, (node, told)) in self.nodes.iter_mut().zip(&mut told).enumerate() {
                if at == still {
                    continue;
                }
                let news = node.poll(self.now_ms);
                if news.any {
                    told.push(news);
                }
                node.act(self.now_ms);
            }
        }
        told
    }

    fn write(&self, write: Write) {
        let mut admin = self.model.client();
        self.model.connect(admin.id(), self.model.revision());
        admin.commit(Commit { checks: Vec::<Check>::new(), writes: vec![write] });
        // Before anything that is on its way from the nodes.
        assert!(self.model.serve(admin.id(), self.model.revision()) && self.model.answer(admin.id()));
        let outcomes = std::iter::from_fn(|| admin.poll()).filter_map(|event| match event {
            Event::Settled { outcome, .. } => Some(outcome),
            _ => None,
        });
        assert_eq!(outcomes.collect::<Vec<_>>(), [Outcome::Done]);
        self.model.expire(admin.id());
    }

    fn make_topic(&mut self, replicas: &[&[i32]]) {
        let record =
            TopicRecord { id: Uuid::from_u128(77), assignments: replicas.iter().map(|r| assigned(r)).collect() };
        self.write(Write::Create(Key::Topic("t".into()), Record::Topic(record), Lifetime::Persistent));
        self.settle();
    }

    fn state(&self, partition: i32) -> PartitionState {
        match self.model.node(&Key::Partition("t".into(), partition)).map(|node| node.record) {
            Some(Record::Partition(state)) => state,
            other => panic!("no state: {other:?}"),
        }
    }

    fn leaders(&self, count: i32) -> Vec<i32> {
        (0..count).map(|partition| self.state(partition).leader.map_or(0, |leader| leader.0)).collect()
    }

    fn incarnation(&self, broker: i32) -> Incarnation {
        match self.model.node(&Key::Incarnation(BrokerId(broker))).map(|node| node.record) {
            Some(Record::Incarnation(incarnation)) => incarnation,
            other => panic!("none: {other:?}"),
        }
    }
}

fn assigned(replicas: &[i32]) -> Assignment {
    Assignment { replicas: replicas.iter().copied().map(BrokerId).collect(), ..Assignment::default() }
}

fn key(partition: i32) -> PartitionKey {
    ("t".into(), partition)
}

#[test]
fn brokers_register_and_are_let_in() {
    let mut cluster = Cluster::of(3);
    for node in &cluster.nodes {
        assert!(node.is_active() && node.may_mark_clean());
        let own = cluster.model.node(&Key::Broker(node.me())).map(|node| node.created);
        assert_eq!(node.broker_epoch(), own);
    }
    assert_eq!(cluster.nodes.iter().filter(|node| node.holds_office()).count(), 1);
    let revision = cluster.model.revision();
    cluster.settle();
    assert_eq!(cluster.model.revision(), revision, "nothing is written where nothing changes");
}

#[test]
fn a_process_that_was_never_let_in_says_nothing_of_its_logs() {
    let model = Model::new();
    let mut node = node(&model, 1, start(1, 1));
    model.connect(node.store().id(), Revision(0));
    assert!(!node.may_mark_clean());
    for now_ms in 0..20 {
        model.settle();
        node.poll(now_ms * 100);
        node.act(now_ms * 100);
    }
    assert!(node.is_active() && node.may_mark_clean());
    let clean = Start { clean_stop: true, ..start(2, 1) };
    assert!(self::node(&model, 2, clean).may_mark_clean(), "the one before had stopped well");
}

#[test]
fn leaders_of_a_dead_broker_move_and_it_comes_back_as_another_incarnation() {
    let mut cluster = Cluster::of(3);
    cluster.make_topic(&[&[1, 2, 3], &[2, 3, 1], &[1, 3, 2]]);
    assert_eq!(cluster.leaders(3), [1, 2, 1]);
    let dead = cluster.nodes[0].store().id();
    cluster.model.expire(dead);
    cluster.nodes[0] = node(&cluster.model, 1, start(1, 1));
    cluster.settle();
    assert_eq!(cluster.leaders(3), [2, 2, 3]);
    assert!((0..3).all(|partition| !cluster.state(partition).isr.contains(&BrokerId(1))));
    let before = cluster.model.node(&Key::Incarnation(BrokerId(1))).unwrap().version;
    cluster.connect(0);
    cluster.settle();
    assert!(cluster.nodes[0].is_active() && cluster.incarnation(1).trusted, "the same boot of the host");
    assert!(cluster.model.node(&Key::Incarnation(BrokerId(1))).unwrap().version > before);
    assert_eq!(cluster.leaders(3), [2, 2, 3], "it has to catch up first");
}

/// The registration of an earlier life stands still when the broker is back.
#[test]
fn a_registration_of_an_earlier_life_is_replaced() {
    let mut cluster = Cluster::of(2);
    cluster.make_topic(&[&[1, 2]]);
    let old = cluster.nodes[0].broker_epoch().unwrap();
    cluster.model.disconnect(cluster.nodes[0].store().id());
    cluster.nodes[0] = node(&cluster.model, 1, start(1, 2));
    cluster.connect(0);
    cluster.settle();
    let new = cluster.nodes[0].broker_epoch().unwrap();
    assert!(new > old && cluster.nodes[0].is_active());
    let state = cluster.state(0);
    assert_eq!((state.leader, state.isr), (Some(BrokerId(2)), vec![BrokerId(2)]), "another boot: not trusted");
    assert!(state.leader_epoch > LeaderEpoch(0));
}

#[test]
fn another_machine_with_the_same_number_waits() {
    let mut cluster = Cluster::of(1);
    cluster.nodes.push(node(&cluster.model, 1, start(9, 5)));
    cluster.connect(1);
    cluster.model.settle();
    cluster.nodes[1].poll(cluster.now_ms);
    cluster.model.settle();
    cluster.nodes[1].poll(cluster.now_ms);
    let acted = cluster.nodes[1].act(cluster.now_ms);
    assert_eq!(acted.refused, Some(RegisterError::Taken(BrokerId(1))));
    cluster.settle();
    assert!(cluster.nodes[0].is_active() && cluster.nodes[1].broker_epoch().is_none());
}

#[test]
fn an_expired_session_ends_the_part_at_once() {
    let mut cluster = Cluster::of(2);
    cluster.make_topic(&[&[1, 2]]);
    let id = cluster.nodes[0].store().id();
    cluster.model.expire(id);
    assert!(cluster.nodes[0].is_active(), "while nobody says so, it serves on");
    let news = cluster.nodes[0].poll(cluster.now_ms);
    assert_eq!((news.sessions, news.part), (vec![Session::Suspended], None));
    assert!(cluster.nodes[0].is_active());
    cluster.connect(0);
    let news = cluster.nodes[0].poll(cluster.now_ms);
    assert_eq!((news.sessions, news.part), (vec![Session::Expired], Some(false)));
    assert!(!cluster.nodes[0].is_active());
    cluster.connect(0);
    let told = cluster.settle();
    assert!(told[0].iter().any(|news| news.part == Some(true)));
    assert_eq!(cluster.state(0).leader, Some(BrokerId(2)));
}

/// It need not be known if a registration took effect.
#[test]
fn a_registration_that_nothing_is_known_of_is_made_again() {
    for lands in [false, true] {
        let mut cluster = Cluster::of(1);
        cluster.nodes.push(node(&cluster.model, 2, start(2, 1)));
        let id = cluster.nodes[1].store().id();
        cluster.connect(1);
        cluster.nodes[1].poll(0);
        cluster.model.settle();
        cluster.nodes[1].poll(0);
        assert!(cluster.nodes[1].act(cluster.now_ms + 1000).registers);
        cluster.model.disconnect(id);
        cluster.now_ms += 2000;
        if lands {
            assert!(cluster.model.land(id));
        }
        cluster.connect(1);
        cluster.settle();
        let own = cluster.model.node(&Key::Broker(BrokerId(2))).unwrap();
        assert_eq!(cluster.nodes[1].broker_epoch(), Some(own.created));
        assert!(cluster.nodes[1].is_active());
        cluster.model.land(id);
        cluster.settle();
        let same = cluster.model.node(&Key::Broker(BrokerId(2))).unwrap();
        assert_eq!(same.created, own.created, "what is late does nothing");
    }
}

fn decisions(told: &[News], of: Ticket) -> Vec<Decision> {
    let settled = told.iter().flat_map(|news| &news.settled).filter(|settled| settled.ticket == of);
    settled.map(Settled::decision).collect()
}

#[test]
fn proposals_of_leaders_are_committed_refused_or_overtaken() {
    let mut cluster = Cluster::of(3);
    cluster.make_topic(&[&[1, 2, 3]]);
    let version = |cluster: &Cluster| cluster.nodes[0].view().state("t", 0).unwrap().version;
    let shrink = |cluster: &Cluster, broker| Proposal {
        based_on: version(cluster),
        change: Change::Shrink(vec![BrokerId(broker)]),
    };
    let proposal = shrink(&cluster, 3);
    let id = cluster.nodes[0].propose(&key(0), &proposal).unwrap();
    let told = cluster.settle();
    assert_eq!(decisions(&told[0], id), [Decision::Committed]);
    assert_eq!(cluster.state(0).isr, [BrokerId(1), BrokerId(2)]);
    assert_eq!(cluster.nodes[0].propose(&key(0), &proposal), None, "overtaken");
    // The incarnation whose fetches were counted is over.
    let stale =
        Change::Expand(vec![(BrokerId(3), cluster.nodes[0].view().incarnation(BrokerId(3)).unwrap().version - 1)]);
    let proposal = Proposal { based_on: version(&cluster), change: stale };
    let id = cluster.nodes[0].propose(&key(0), &proposal).unwrap();
    assert_eq!(decisions(&cluster.settle()[0], id), [Decision::Refused]);
    let proposal = shrink(&cluster, 2);
    let id = cluster.nodes[0].propose(&key(0), &proposal).unwrap();
    cluster.nodes[0].act(cluster.now_ms);
    cluster.model.disconnect(cluster.nodes[0].store().id());
    assert_eq!(decisions(&[cluster.nodes[0].poll(cluster.now_ms)], id), [Decision::Unknown]);
    cluster.connect(0);
    cluster.settle();
    let id = cluster.nodes[1].resign(&key(0)).unwrap();
    assert_eq!(cluster.nodes[1].resign(&key(0)), None, "it is on its way");
    assert_eq!(decisions(&cluster.settle()[1], id), [Decision::Committed]);
    assert_eq!(cluster.state(0).isr, [BrokerId(1)]);
}

/// Thousands come together when replicas catch up after a start.
#[test]
fn proposals_share_commits_and_get_through_beside_one_that_meets_a_conflict() {
    let mut cluster = Cluster::of(3);
    let all: Vec<&[i32]> = (0..70).map(|_| &[1, 2, 3][..]).collect();
    cluster.make_topic(&all);
    let shrink = |cluster: &mut Cluster, broker| -> Vec<Ticket> {
        let node = &mut cluster.nodes[0];
        let version = |node: &Node<_>, index| node.view().state("t", index).unwrap().version;
        let change = Change::Shrink(vec![BrokerId(broker)]);
        let proposal = |node: &Node<_>, index| Proposal { based_on: version(node, index), change: change.clone() };
        let mut propose = |index| {
            let proposal = proposal(node, index);
            node.propose(&key(index), &proposal).unwrap()
        };
        (0..70).map(&mut propose).collect()
    };
    let before = cluster.model.revision();
    let tickets = shrink(&mut cluster, 3);
    let told = cluster.settle();
    assert!(tickets.iter().all(|ticket| decisions(&told[0], *ticket) == [Decision::Committed]));
    assert_eq!(cluster.model.revision().0 - before.0, 2, "commits");

    let tickets = shrink(&mut cluster, 2);
    let moved = Key::Partition("t".into(), 3);
    let node = cluster.model.node(&moved).unwrap();
    cluster.write(Write::Set(moved, node.record, node.version));
    let told = cluster.settle();
    for (index, ticket) in (0..70).zip(tickets) {
        let (decided, isr) = if index == 3 { (Decision::Refused, 2) } else { (Decision::Committed, 1) };
        assert_eq!((decisions(&told[0], ticket), cluster.state(index).isr.len()), (vec![decided], isr), "{index}");
    }

    // With the session everything ends that has not left.
    let based_on = cluster.nodes[0].view().state("t", 3).unwrap().version;
    let proposal = Proposal { based_on, change: Change::Shrink(vec![BrokerId(2)]) };
    let ticket = cluster.nodes[0].propose(&key(3), &proposal).unwrap();
    cluster.model.expire(cluster.nodes[0].store().id());
    cluster.connect(0);
    let told: Vec<News> = (0..2).map(|_| cluster.nodes[0].poll(cluster.now_ms)).collect();
    assert_eq!(decisions(&told, ticket), [Decision::Refused]);
}

#[test]
fn a_clean_stop_gives_leaderships_away_first() {
    let mut cluster = Cluster::of(3);
    cluster.make_topic(&[&[1, 2, 3], &[1, 3, 2], &[2, 1, 3]]);
    assert!(!cluster.nodes[0].may_stop());
    cluster.nodes[0].begin_drain();
    cluster.settle();
    assert!(cluster.nodes[0].may_stop());
    assert_eq!(cluster.leaders(3), [2, 3, 2]);
    assert!((0..3).all(|partition| !cluster.state(partition).isr.contains(&BrokerId(1))));
    cluster.nodes[0].close();
    cluster.settle();
    assert!(cluster.model.node(&Key::Broker(BrokerId(1))).is_none(), "it registers no more");
    assert_eq!(cluster.nodes[1..].iter().filter(|node| node.holds_office()).count(), 1);
}

/// Many partitions change together; one of them has moved meanwhile.
#[test]
fn steps_get_through_beside_one_that_meets_a_conflict() {
    let mut cluster = Cluster::of(3);
    let all: Vec<&[i32]> = (0..70).map(|_| &[1, 2, 3][..]).collect();
    cluster.make_topic(&all);
    assert!(cluster.leaders(70).iter().all(|leader| *leader == 1));
    cluster.model.expire(cluster.nodes[0].store().id());
    cluster.nodes[0] = node(&cluster.model, 1, start(1, 1));
    // The controller decides on what it knows; then a state moves.
    for _ in 0..20 {
        let holder =
            cluster.nodes.iter().position(|node| node.holds_office() && node.is_waiting_for(&Purpose::Control));
        if holder.is_some() {
            break;
        }
        cluster.now_ms += 100;
        cluster.model.settle();
        for node in &mut cluster.nodes {
            node.poll(cluster.now_ms);
            node.act(cluster.now_ms);
        }
    }
    let key = Key::Partition("t".into(), 3);
    let before = cluster.model.node(&key).unwrap();
    cluster.write(Write::Set(key, before.record, before.version));
    cluster.settle();
    assert!(cluster.leaders(70).iter().all(|leader| *leader == 2));
}

#[test]
fn a_broker_takes_no_part_in_another_clusters_metadata_or_in_none() {
    let mut cluster = Cluster::of(0);
    let mut own = node(&cluster.model, 1, start(1, 1));
    own.settings.cluster_id = Some("ours".to_owned());
    cluster.nodes.push(own);
    cluster.connect(0);
    cluster.settle();
    let refused = |cluster: &mut Cluster| {
        cluster.now_ms += AGAIN_MS;
        let now_ms = cluster.now_ms;
        (cluster.nodes[0].act(now_ms).refused, cluster.nodes[0].broker_epoch())
    };
    let other =
        |found: Option<&str>| RegisterError::OtherCluster { own: "ours".to_owned(), found: found.map(str::to_owned) };
    assert_eq!(refused(&mut cluster), (Some(other(None)), None));
    assert!(other(None).to_string().contains("no cluster's metadata"));
    cluster.write(Write::Create(Key::ClusterId, Record::ClusterId("theirs".into()), Lifetime::Persistent));
    cluster.settle();
    assert_eq!(refused(&mut cluster), (Some(other(Some("theirs"))), None));
    let version = cluster.model.node(&Key::ClusterId).unwrap().version;
    cluster.write(Write::Set(Key::ClusterId, Record::ClusterId("ours".into()), version));
    cluster.settle();
    assert!(cluster.nodes[0].is_active());
}

#[test]
fn a_broker_whose_incarnation_was_deleted_registers_anew() {
    let mut cluster = Cluster::of(2);
    cluster.make_topic(&[&[1, 2]]);
    let before = cluster.nodes[0].broker_epoch();
    cluster.write(Write::Delete(Key::Incarnation(BrokerId(1)), None));
    cluster.settle();
    assert!(cluster.nodes[0].is_active() && cluster.nodes[0].broker_epoch() > before);
    assert!(!cluster.incarnation(1).trusted);
    assert_eq!(cluster.leaders(1), [2]);
}

// ---- images

fn placement() -> Placement {
    let id = DirectoryId(decode_id("AAAAAAAAAAAAAAAAq83vAA").unwrap());
    Placement { directories: vec![(id, "/d".into())], run: 3, ..Placement::default() }
}

fn leaders_shown(image: &MetadataImage) -> Vec<i32> {
    let topic = image.topic("t").unwrap();
    topic.partitions.iter().map(|partition| partition.leader.map_or(0, |leader| leader.0)).collect()
}

#[test]
fn images_show_no_leadership_while_the_broker_takes_no_part() {
    let mut cluster = Cluster::of(3);
    cluster.make_topic(&[&[1, 2], &[2, 3], &[2, 1]]);
    let (me, started) = (BrokerId(1), Arc::new(ServerConfig::default()));
    let first = first_image(cluster.nodes[0].mirror(), cluster.nodes[0].view(), me, "c", &started);
    assert_eq!(leaders_shown(&first), [0, 2, 0], "of partitions with a replica here");
    assert_eq!(first.follower_epoch, None);
    let mut images = Images::new(me, started, &first, &[]);
    assert!(images.next(&first, &cluster.nodes[0], &placement()).is_none());
    images.note_part(&first, &cluster.nodes[0]);
    let update = images.next(&first, &cluster.nodes[0], &placement()).unwrap();
    assert_eq!(leaders_shown(&update.image), [1, 2, 2]);
    assert_eq!(update.image.follower_epoch, cluster.nodes[0].broker_epoch());
    let homes: Vec<Option<PartitionHome>> =
        update.image.topic("t").unwrap().partitions.iter().map(|partition| partition.home).collect();
    assert!(homes[0].is_some() && homes[1].is_none() && homes[2].is_some(), "only own replicas have a home");
    assert!(Homes::of(&update.image).get(crate::model::PartitionId::new(Uuid::from_u128(77), 0)).is_some());
    let shown: Vec<(i32, Phase)> = update.image.brokers.iter().map(|broker| (broker.id.0, broker.phase)).collect();
    assert_eq!(shown, [(1, Phase::Active), (2, Phase::Active), (3, Phase::Active)]);

    // Its session ends, and meanwhile its replicas go elsewhere.
    cluster.model.expire(cluster.nodes[0].store().id());
    let topic = cluster.model.node(&Key::Topic("t".into())).unwrap();
    let assignments = [&[2, 3][..], &[2, 3], &[2, 1]].into_iter().map(assigned).collect();
    let moved = Record::Topic(TopicRecord { id: Uuid::from_u128(77), assignments });
    cluster.write(Write::Set(Key::Topic("t".into()), moved, topic.version));
    cluster.connect(0);
    let news = cluster.nodes[0].poll(cluster.now_ms);
    assert_eq!(news.part, Some(false));
    let before = update.image;
    images.note_part(&before, &cluster.nodes[0]);
    cluster.connect(0);
    cluster.nodes[0].poll(cluster.now_ms);
    cluster.model.settle();
    images.note(&cluster.nodes[0].poll(cluster.now_ms).changed);
    let silent = images.next(&before, &cluster.nodes[0], &placement()).unwrap().image;
    assert_eq!(leaders_shown(&silent), [0, 2, 2], "it follows whom it knows");
    assert_eq!(silent.follower_epoch, before.follower_epoch, "by the registration that it had");
    assert!(silent.topic("t").unwrap().partitions[0].replicas.contains(&me), "nothing is taken away yet");
    for news in &cluster.settle()[0] {
        images.note(&news.changed);
        if news.part.is_some() {
            images.note_part(&silent, &cluster.nodes[0]);
        }
    }
    let back = images.next(&silent, &cluster.nodes[0], &placement()).unwrap();
    assert!(!back.image.topic("t").unwrap().partitions[0].replicas.contains(&me));
    assert_eq!(back.image.version, cluster.nodes[0].mirror().revision());
    assert!(back.image.follower_epoch > silent.follower_epoch);
}

#[test]
fn where_there_are_brokers_one_stands_for_the_controller() {
    let mut cluster = Cluster::of(3);
    let started = ServerConfig::default();
    let shown = |cluster: &Cluster, me: i32| {
        let node = &cluster.nodes[0];
        let image = first_image(node.mirror(), node.view(), BrokerId(me), "c", &started);
        (image.brokers.len(), image.controller)
    };
    assert_eq!(shown(&cluster, 1).0, 3);
    let key = |broker| Key::Incarnation(BrokerId(broker));
    for broker in 1..=3 {
        let node = cluster.model.node(&key(broker)).unwrap();
        let Record::Incarnation(incarnation) = node.record else { unreachable!() };
        let joining = Record::Incarnation(Incarnation { phase: Phase::Joining, ..incarnation });
        cluster.write(Write::Set(key(broker), joining, node.version));
    }
    cluster.model.settle();
    cluster.nodes[0].poll(cluster.now_ms);
    let view = cluster.nodes[0].view();
    assert_eq!(view.registrations().keys().filter(|id| view.is_active(**id)).count(), 0, "nobody is active");
    for (me, stands) in [(1, 1), (2, 2), (9, 1)] {
        assert_eq!(shown(&cluster, me), (3, Some(BrokerId(stands))), "as {me} shows it");
    }
}

#[test]
fn the_last_brokers_are_shown_on_when_all_registrations_are_gone() {
    let mut cluster = Cluster::of(2);
    let (me, started) = (BrokerId(1), Arc::new(ServerConfig::default()));
    let first = first_image(cluster.nodes[0].mirror(), cluster.nodes[0].view(), me, "c", &started);
    assert_eq!(first.brokers.len(), 2);
    let mut images = Images::new(me, started, &first, &[]);
    let mut gone = |cluster: &mut Cluster, before: &MetadataImage, broker: i32| {
        cluster.write(Write::Delete(Key::Broker(BrokerId(broker)), None));
        cluster.model.settle();
        let news = cluster.nodes[0].poll(cluster.now_ms);
        images.note(&news.changed);
        let update = images.next(before, &cluster.nodes[0], &Placement::default());
        update.map_or_else(|| before.clone(), |update| (*update.image).clone())
    };
    let one = gone(&mut cluster, &first, 2);
    assert_eq!(one.brokers.iter().map(|broker| broker.id).collect::<Vec<_>>(), [me]);
    let none = gone(&mut cluster, &one, 1);
    assert!(cluster.nodes[0].view().registrations().is_empty());
    assert_eq!((none.brokers.len(), none.controller), (1, one.controller));
}

/// Another broker's own options are not this one's.
#[test]
fn images_follow_the_options_that_are_set_while_brokers_run() {
    let mut cluster = Cluster::of(2);
    cluster.make_topic(&[&[1, 2]]);
    let (me, started) = (BrokerId(1), Arc::new(ServerConfig::default()));
    let first = first_image(cluster.nodes[0].mirror(), cluster.nodes[0].view(), me, "c", &started);
    assert!(first.settings.is_none());
    let mut images = Images::new(me, started.clone(), &first, &[]);
    images.note_part(&first, &cluster.nodes[0]);
    let mut image = images.next(&first, &cluster.nodes[0], &placement()).unwrap().image;
    let retention = |image: &MetadataImage| image.topic("t").unwrap().config.retention_ms;
    let usual = retention(&image);
    for (key, value, wanted) in [
        (Key::DefaultConfig, "5000", Some(Some(5000))),
        (Key::BrokerConfig(BrokerId(2)), "7000", None),
        (Key::BrokerConfig(me), "6000", Some(Some(6000))),
    ] {
        let options = BTreeMap::from([("log.retention.ms".to_owned(), value.to_owned())]);
        cluster.write(Write::Create(key.clone(), Record::Config(options), Lifetime::Persistent));
        cluster.settle()[0].iter().for_each(|news| images.note(&news.changed));
        let update = images.next(&image, &cluster.nodes[0], &placement());
        assert_eq!(update.as_ref().map(|update| retention(&update.image)), wanted, "{key:?}");
        if let Some(update) = update {
            assert_eq!(update.topics.len(), 1);
            image = update.image;
        }
    }
    // A topic that comes later follows them too, and so does the image of a start.
    let again = first_image(cluster.nodes[0].mirror(), cluster.nodes[0].view(), me, "c", &started);
    assert_eq!(retention(&again), Some(6000));
    for key in [Key::BrokerConfig(me), Key::DefaultConfig] {
        cluster.write(Write::Delete(key, None));
        cluster.settle()[0].iter().for_each(|news| images.note(&news.changed));
        image = images.next(&image, &cluster.nodes[0], &placement()).unwrap().image;
    }
    assert_eq!(retention(&image), usual);
}

#[test]
fn images_follow_client_quotas() {
    let mut cluster = Cluster::of(2);
    let (me, started) = (BrokerId(1), Arc::new(ServerConfig::default()));
    let first = first_image(cluster.nodes[0].mirror(), cluster.nodes[0].view(), me, "c", &started);
    let mut images = Images::new(me, started.clone(), &first, &[]);
    images.note_part(&first, &cluster.nodes[0]);
    let mut image = images.next(&first, &cluster.nodes[0], &placement()).unwrap().image;
    assert!(image.quotas.is_empty());
    let (user, client) = (QuotaEntity::User(None), QuotaEntity::Client(Some("c".into())));
    for (entity, quota, counts) in [
        (&user, "producer_byte_rate", 1),
        (&client, "request_percentage", 2),
        (&QuotaEntity::User(Some("u".into())), "SCRAM-SHA-256", 2),
    ] {
        let options = BTreeMap::from([(quota.to_owned(), "5".to_owned())]);
        cluster.write(Write::Create(Key::Quota(entity.clone()), Record::Config(options), Lifetime::Persistent));
        cluster.settle()[0].iter().for_each(|news| images.note(&news.changed));
        match images.next(&image, &cluster.nodes[0], &placement()) {
            Some(update) => {
                assert!(update.topics.is_empty() && image.quotas.len() < counts);
                image = update.image;
            }
            None => assert_eq!(quota, "SCRAM-SHA-256", "nothing of it is shown"),
        }
        assert_eq!(image.quotas.len(), counts);
    }
    let again = first_image(cluster.nodes[0].mirror(), cluster.nodes[0].view(), me, "c", &started);
    assert_eq!(again.quotas, image.quotas);
    cluster.write(Write::Delete(Key::Quota(user), None));
    cluster.settle()[0].iter().for_each(|news| images.note(&news.changed));
    image = images.next(&image, &cluster.nodes[0], &placement()).unwrap().image;
    assert_eq!(image.quotas.all().map(|(entity, _)| entity).collect::<Vec<_>>(), [&client]);
}

#[test]
fn a_topic_made_anew_is_taken_out_before_it_is_put_in() {
    let mut cluster = Cluster::of(2);
    cluster.make_topic(&[&[1, 2]]);
    let (me, started) = (BrokerId(1), Arc::new(ServerConfig::default()));
    let first = first_image(cluster.nodes[0].mirror(), cluster.nodes[0].view(), me, "c", &started);
    let mut images = Images::new(me, started, &first, &[]);
    images.note_part(&first, &cluster.nodes[0]);
    let before = images.next(&first, &cluster.nodes[0], &placement()).unwrap().image;
    cluster.write(Write::Delete(Key::Partition("t".into(), 0), None));
    cluster.write(Write::Delete(Key::Topic("t".into()), None));
    let record = TopicRecord { id: Uuid::from_u128(78), assignments: vec![assigned(&[1, 2])] };
    cluster.write(Write::Create(Key::Topic("t".into()), Record::Topic(record), Lifetime::Persistent));
    for news in &cluster.settle()[0] {
        images.note(&news.changed);
    }
    let gone = images.next(&before, &cluster.nodes[0], &placement()).unwrap();
    assert!(gone.topics[0].is_deletion() && gone.image.topic("t").is_none());
    assert!(gone.image.topic_by_id(Uuid::from_u128(77)).is_none());
    let made = images.next(&gone.image, &cluster.nodes[0], &placement()).unwrap();
    assert!(made.topics[0].before.is_none());
    assert_eq!(made.image.topic("t").unwrap().id, Uuid::from_u128(78));
    assert!(made.image.topic("t").unwrap().partitions[0].home.is_some());
    assert!(images.next(&made.image, &cluster.nodes[0], &placement()).is_none());
}

/// A topic that cannot be read is not taken for a deleted one, and nothing is decided about it
/// until it is put right.
#[test]
fn a_damaged_topic_is_withheld_and_the_others_are_served() {
    let mut cluster = Cluster::of(2);
    cluster.make_topic(&[&[1, 2]]);
    let record = TopicRecord { id: Uuid::from_u128(5), assignments: vec![assigned(&[1, 2]); 2] };
    cluster.write(Write::Create(Key::Topic("u".into()), Record::Topic(record), Lifetime::Persistent));
    let damaged = Record::Damaged("znode x is damaged".to_owned());
    cluster.write(Write::Create(Key::Partition("u".into(), 1), damaged, Lifetime::Persistent));
    cluster.settle();
    assert!(cluster.model.node(&Key::Partition("u".into(), 0)).is_none(), "the controller leaves it alone");
    let (me, started) = (BrokerId(1), Arc::new(ServerConfig::default()));
    let first = first_image(cluster.nodes[0].mirror(), cluster.nodes[0].view(), me, "c", &started);
    assert!(first.topic("t").is_some() && first.topic("u").is_none());
    assert_eq!(first.withheld("u"), Some("znode x is damaged"));
    // Its directory was found, and is where it is to be once the topic is known.
    let found = PartitionHome { directory: DirectoryId(Uuid::from_u128(9)), since_run: 0 };
    let unclaimed = [(crate::model::PartitionId::new(Uuid::from_u128(5), 0), found)];
    let mut images = Images::new(me, started, &first, &unclaimed);
    let key = Key::Partition("u".into(), 1);
    let version = cluster.model.node(&key).unwrap().version;
    cluster.write(Write::Delete(key, Some(version)));
    for news in &cluster.settle()[0] {
        images.note(&news.changed);
    }
    let image = images.next(&first, &cluster.nodes[0], &placement()).unwrap().image;
    assert_eq!((image.withheld("u"), image.topic("u").unwrap().partitions[0].home), (None, Some(found)));
    // Of one that is served already what was known stays.
    let damaged = Record::Damaged("znode y is damaged".to_owned());
    cluster.write(Write::Create(Key::TopicConfig("u".into()), damaged, Lifetime::Persistent));
    for news in &cluster.settle()[0] {
        images.note(&news.changed);
    }
    assert!(images.next(&image, &cluster.nodes[0], &placement()).is_none());
}

/// Partitions are told apart by the id of their topic: of two with one id only
/// the first can be served.
#[test]
fn of_two_topics_with_one_id_the_later_one_is_withheld() {
    let mut cluster = Cluster::of(1);
    let record = |id| Record::Topic(TopicRecord { id: Uuid::from_u128(id), assignments: vec![assigned(&[1])] });
    for (name, id) in [("b", 5), ("a", 5), ("c", 6)] {
        cluster.write(Write::Create(Key::Topic(name.into()), record(id), Lifetime::Persistent));
    }
    cluster.settle();
    let (me, started) = (BrokerId(1), Arc::new(ServerConfig::default()));
    let first = first_image(cluster.nodes[0].mirror(), cluster.nodes[0].view(), me, "c", &started);
    let names: Vec<&str> = first.topics().map(|topic| &*topic.name).collect();
    assert_eq!(names, ["b", "c"]);
    assert!(first.withheld("a").unwrap().contains("/brokers/topics/a"), "{:?}", first.withheld("a"));
    assert_eq!(&*first.topic_by_id(Uuid::from_u128(5)).unwrap().name, "b");
    let mut images = Images::new(me, started, &first, &[]);
    cluster.write(Write::Delete(Key::Partition("b".into(), 0), None));
    cluster.write(Write::Delete(Key::Topic("b".into()), None));
    for news in &cluster.settle()[0] {
        images.note(&news.changed);
    }
    let mut image = Arc::new(first);
    while let Some(update) = images.next(&image, &cluster.nodes[0], &placement()) {
        image = update.image;
    }
    assert_eq!(&*image.topic_by_id(Uuid::from_u128(5)).unwrap().name, "a");
    assert_eq!((image.withheld("a"), image.topic("b").is_some()), (None, false));
}

#[test]
fn a_topic_without_states_has_no_leaders_and_a_marked_one_is_none() {
    let cluster = Cluster::of(1);
    let record = TopicRecord { id: Uuid::from_u128(5), assignments: vec![assigned(&[1])] };
    cluster.write(Write::Create(Key::Topic("u".into()), Record::Topic(record), Lifetime::Persistent));
    let options = BTreeMap::from([("retention.ms".to_owned(), "5".to_owned()), ("strange".to_owned(), "1".to_owned())]);
    cluster.write(Write::Create(Key::TopicConfig("u".into()), Record::Config(options), Lifetime::Persistent));
    let nodes = cluster.model.nodes();
    let name: Arc<str> = "u".into();
    let shown =
        crate::cluster::topic_nodes::shared_topic_of(&name, |key| nodes.get(key), &TopicConfig::default()).unwrap();
    assert_eq!((shown.partitions[0].leader, shown.partitions[0].version), (None, -1));
    assert_eq!((shown.config.retention_ms, shown.overrides.len()), (Some(5), 2), "what is not known has no effect");
    cluster.write(Write::Create(Key::Deletion("u".into()), Record::Deletion, Lifetime::Persistent));
    let nodes = cluster.model.nodes();
    let shown = crate::cluster::topic_nodes::shared_topic_of(&name, |key| nodes.get(key), &TopicConfig::default());
    assert!(shown.is_none());
}

#[path = "suspects_tests.rs"]
mod suspects;

#[test]
fn a_leader_short_of_room_hands_over_and_leadership_stays_away() {
    let mut cluster = Cluster::of(3);
    cluster.make_topic(&[&[1, 2, 3], &[2, 1, 3]]);
    assert_eq!(cluster.leaders(2), [1, 2]);
    let propose = |cluster: &mut Cluster, at: usize, partition: i32| {
        let based_on = cluster.nodes[at].view().state("t", partition).unwrap().version;
        let proposal = Proposal { based_on, change: Change::HandOver };
        let asked = cluster.nodes[at].propose(&("t".into(), partition), &proposal).is_some();
        cluster.settle();
        asked
    };
    cluster.nodes[0].set_short_of_room(true);
    assert!(propose(&mut cluster, 0, 0));
    let state = cluster.state(0);
    assert_eq!((state.leader, state.isr.len()), (Some(BrokerId(2)), 3), "the ISR stays");
    // Longer than the interval of preferred leaders.
    cluster.now_ms += 700_000;
    cluster.settle();
    assert_eq!(cluster.leaders(2), [2, 2]);
    // Another one that is short gives nothing to the first.
    cluster.nodes[1].set_short_of_room(true);
    cluster.settle();
    assert!(propose(&mut cluster, 1, 1));
    assert_eq!(cluster.leaders(2), [2, 3]);
    cluster.nodes[2].set_short_of_room(true);
    cluster.settle();
    assert!(!propose(&mut cluster, 1, 0), "nobody has room");
    // There is room again.
    cluster.nodes.iter_mut().for_each(|node| node.set_short_of_room(false));
    cluster.settle();
    cluster.now_ms += 700_000;
    cluster.settle();
    assert_eq!(cluster.leaders(2), [1, 2]);
}

#[test]
fn a_broker_tells_that_its_data_directories_are_cordoned() {
    let mut cluster = Cluster::of(2);
    let told = |cluster: &Cluster| {
        let registrations = cluster.nodes[1].view().registrations();
        registrations.values().map(|own| (own.record.cordoned, own.broker_epoch)).collect::<Vec<_>>()
    };
    let [first, second] = told(&cluster)[..] else { panic!("two brokers") };
    assert!(!first.0 && !second.0);
    cluster.nodes[0].set_cordoned(true);
    cluster.settle();
    assert_eq!(told(&cluster), [(true, first.1), second], "by the same registration");
    cluster.nodes[0].set_cordoned(false);
    cluster.settle();
    assert_eq!(told(&cluster), [first, second]);
}
