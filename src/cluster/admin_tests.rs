use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::*;
use crate::cluster::image::PartitionImage;
use crate::cluster::rules::TopicDefaults;
use crate::cluster::store::{BrokerRecord, Incarnation, Node, Phase};
use crate::config::TopicConfig;
use crate::model::LeaderEpoch;

/// Nodes by key, each written once; brokers 1 to 3, of which the third is joining.
struct Shown(BTreeMap<Key, Node>);

fn brokers(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

fn state(leader: i32, isr: &[i32]) -> PartitionState {
    PartitionState {
        leader: (leader != 0).then_some(BrokerId(leader)),
        leader_epoch: LeaderEpoch(4),
        controller_epoch: 1,
        isr: brokers(isr),
        elr: Vec::new(),
        elr_min: 0,
        last_leader: None,
        emptied: Vec::new(),
        leader_broker_epoch: None,
    }
}

impl Shown {
    fn new() -> Shown {
        let mut shown = Shown(BTreeMap::new());
        for id in 1..=3 {
            let phase = if id == 3 { Phase::Joining } else { Phase::Active };
            let incarnation = Incarnation { phase, trusted: true, boot: Uuid::nil(), directories: Default::default() };
            shown.put(Key::Incarnation(BrokerId(id)), Record::Incarnation(incarnation), 10 + id);
            shown.put(Key::Broker(BrokerId(id)), Record::Broker(BrokerRecord::new(Vec::new(), None)), 0);
        }
        shown.put(Key::ControllerEpoch, Record::ControllerEpoch(7), 7);
        shown
    }

    fn put(&mut self, key: Key, record: Record, version: i32) {
        self.0.insert(key, Node { record, version, created: 1 });
    }

    fn topic(&mut self, replicas: &[&[i32]]) {
        let assignments = replicas.iter().map(|ids| Assignment { replicas: brokers(ids), ..Assignment::default() });
        let record = TopicRecord { id: Uuid::from_u128(9), assignments: assignments.collect() };
        self.put(Key::Topic("t".into()), Record::Topic(record), 5);
    }

    fn view(&self) -> View {
        View::of(&self.0, TopicDefaults { min_insync_replicas: 1, unclean_election: false })
    }
}

fn topic(replicas: &[&[i32]], options: &[(&str, &str)]) -> TopicImage {
    let partition = |ids: &&[i32]| PartitionImage { replicas: brokers(ids), ..PartitionImage::default() };
    TopicImage {
        name: "t".into(),
        id: Uuid::from_u128(9),
        partitions: replicas.iter().map(partition).collect(),
        overrides: options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        config: Arc::new(TopicConfig::default()),
    }
}

fn key(index: i32) -> Key {
    Key::Partition("t".into(), index)
}

/// Keys that a commit writes.
fn written(commit: &Commit) -> Vec<Key> {
    let key = |write: &Write| match write {
        Write::Create(key, ..) | Write::Set(key, ..) | Write::Delete(key, _) => key.clone(),
    };
    commit.writes.iter().map(key).collect()
}

#[test]
fn a_topic_is_made_with_leaders_that_are_active_still() {
    let mut shown = Shown::new();
    let wanted = topic(&[&[3, 1], &[2, 3], &[3]], &[("retention.ms", "5")]);
    let commit = create(&shown.view(), &wanted).unwrap();
    let name: Arc<str> = "t".into();
    // The last one has no active replica: the controller waits for it.
    assert_eq!(written(&commit), [Key::Topic(name.clone()), Key::TopicConfig(name.clone()), key(0), key(1)]);
    let leads = |index: usize| match &commit.writes[index] {
        Write::Create(_, Record::Partition(state), _) => (state.leader, state.isr.clone(), state.controller_epoch),
        other => panic!("{other:?}"),
    };
    assert_eq!(leads(2), (Some(BrokerId(1)), brokers(&[1]), 7));
    assert_eq!(leads(3), (Some(BrokerId(2)), brokers(&[2]), 7));
    let bound = |broker| Check::Version(Key::Incarnation(BrokerId(broker)), 10 + broker);
    assert_eq!(commit.checks, [Check::Absent(Key::Deletion(name.clone())), bound(1), bound(2)]);

    let many: Vec<&[i32]> = (0..201).map(|_| &[1][..]).collect();
    assert_eq!(written(&create(&shown.view(), &topic(&many, &[])).unwrap()), [Key::Topic(name.clone())]);
    // Options that a deletion has left.
    shown.put(Key::TopicConfig(name.clone()), Record::Config(BTreeMap::new()), 3);
    let commit = create(&shown.view(), &topic(&[&[1]], &[])).unwrap();
    assert!(commit.writes.contains(&Write::Delete(Key::TopicConfig(name.clone()), Some(3))));
    shown.put(Key::Deletion(name), Record::Deletion, 0);
    assert_eq!(create(&shown.view(), &wanted), Err(Stale), "until the deletion is done");
}

#[test]
fn growth_leaves_the_states_there_are_alone() {
    let mut shown = Shown::new();
    shown.topic(&[&[1, 2]]);
    shown.put(key(0), Record::Partition(state(1, &[1, 2])), 8);
    let (before, grown) = (topic(&[&[1, 2]], &[]), topic(&[&[1, 2], &[2, 1]], &[]));
    let commit = grow(&shown.view(), &before, &grown).unwrap();
    assert_eq!(written(&commit), [Key::Topic("t".into()), key(1)]);
    assert!(matches!(&commit.writes[0], Write::Set(_, Record::Topic(after), 5) if after.assignments.len() == 2));
    assert_eq!(grow(&shown.view(), &grown, &grown), Err(Stale), "it has fewer than the request was checked against");
    let other = TopicImage { id: Uuid::from_u128(1), ..before.clone() };
    assert_eq!(grow(&shown.view(), &other, &grown), Err(Stale), "another topic of the name");
}

#[test]
fn a_deletion_is_a_mark_on_the_topic_that_was_meant() {
    let mut shown = Shown::new();
    shown.topic(&[&[1]]);
    let meant = topic(&[&[1]], &[]);
    let commit = delete(&shown.view(), &meant).unwrap().unwrap();
    assert_eq!(commit.checks, [Check::Version(Key::Topic("t".into()), 5)]);
    assert_eq!(written(&commit), [Key::Deletion("t".into())]);
    assert_eq!(delete(&shown.view(), &TopicImage { id: Uuid::from_u128(1), ..meant.clone() }), Err(Stale));
    shown.put(Key::Deletion("t".into()), Record::Deletion, 0);
    assert_eq!(delete(&shown.view(), &meant), Ok(None));
}

#[test]
fn options_are_replaced_as_they_were_seen() {
    let mut shown = Shown::new();
    shown.topic(&[&[1]]);
    let plain = topic(&[&[1]], &[]);
    let options = |pairs| topic(&[&[1]], pairs).overrides;
    let key = Key::TopicConfig("t".into());
    let made = configure(&shown.view(), &plain, &options(&[("a", "1")])).unwrap().unwrap();
    assert!(matches!(made.writes.as_slice(), [Write::Create(created, ..)] if *created == key));
    assert_eq!(configure(&shown.view(), &plain, &options(&[])), Ok(None));
    shown.put(key.clone(), Record::Config(options(&[("a", "1")])), 6);
    assert_eq!(configure(&shown.view(), &plain, &options(&[("b", "1")])), Err(Stale), "somebody else has set one");
    let set = topic(&[&[1]], &[("a", "1")]);
    let gone = configure(&shown.view(), &set, &options(&[])).unwrap().unwrap();
    assert_eq!(gone.writes, [Write::Delete(key.clone(), Some(6))]);
    let other = configure(&shown.view(), &set, &options(&[("a", "2")])).unwrap().unwrap();
    assert_eq!(other.writes, [Write::Set(key, Record::Config(options(&[("a", "2")])), 6)]);
}

#[test]
fn a_reassignment_writes_the_assignment_and_only_a_state_that_changes() {
    let mut shown = Shown::new();
    shown.topic(&[&[1, 2]]);
    shown.put(key(0), Record::Partition(state(1, &[1, 2])), 8);
    let known = topic(&[&[1, 2]], &[]);
    let moved = reassign(&shown.view(), &known, 0, Some(&brokers(&[2, 3])), true).unwrap().unwrap().unwrap();
    assert_eq!(written(&moved), [Key::Topic("t".into())]);
    assert_eq!(moved.checks, [Check::Version(key(0), 8)]);
    match &moved.writes[0] {
        Write::Set(_, Record::Topic(after), 5) => {
            let Assignment { replicas, adding, removing } = &after.assignments[0];
            assert_eq!((replicas, adding, removing), (&brokers(&[2, 3, 1]), &brokers(&[3]), &brokers(&[1])));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(reassign(&shown.view(), &known, 0, Some(&brokers(&[1, 2])), true), Ok(Ok(None)), "they are there");
    assert_eq!(reassign(&shown.view(), &known, 0, None, true), Ok(Err(ReassignError::NotInProgress)));
    assert_eq!(reassign(&shown.view(), &known, 0, Some(&[]), true), Ok(Err(ReassignError::Empty)));
    assert_eq!(reassign(&shown.view(), &known, 1, None, true), Err(Stale));
    let keeping = |ids: &[i32]| reassign(&shown.view(), &known, 0, Some(&brokers(ids)), false);
    assert!(matches!(keeping(&[2, 3]), Ok(Ok(Some(_)))));
    for (ids, to) in [(&[1][..], 1), (&[1, 2, 3], 3), (&[], 0)] {
        assert_eq!(keeping(ids), Ok(Err(ReassignError::FactorChanged { from: 2, to })));
    }
}

#[test]
fn preferred_leaders_are_active_and_in_sync() {
    let mut shown = Shown::new();
    shown.topic(&[&[1, 2], &[3, 1], &[2, 1], &[1, 2]]);
    for (index, known) in [state(2, &[2, 1]), state(1, &[1, 3]), state(2, &[2]), state(2, &[2])].into_iter().enumerate()
    {
        shown.put(key(index as i32), Record::Partition(known), 8);
    }
    let known = topic(&[&[1, 2], &[3, 1], &[2, 1], &[1, 2]], &[]);
    let elected = elect(&shown.view(), &known, 0, false).unwrap().unwrap();
    assert_eq!(elected.checks, [Check::Version(Key::Incarnation(BrokerId(1)), 11)]);
    assert!(matches!(
        elected.writes.as_slice(),
        [Write::Set(_, Record::Partition(after), 8)] if after.leader == Some(BrokerId(1)) && after.leader_epoch.0 == 5
    ));
    let view = shown.view();
    let refused = |index, unclean| elect(&view, &known, index, unclean).unwrap().unwrap_err();
    assert_eq!(refused(1, false), NotElected::PreferredNotAvailable, "it has not joined yet");
    assert_eq!(refused(2, false), NotElected::NotNeeded);
    assert_eq!(refused(3, false), NotElected::PreferredNotAvailable, "it is not in sync");
    assert_eq!(refused(0, true), NotElected::NotNeeded, "there is a leader");
}

#[test]
fn an_unclean_election_takes_whoever_is_left() {
    let mut shown = Shown::new();
    shown.topic(&[&[3, 2], &[3]]);
    shown.put(key(0), Record::Partition(PartitionState { last_leader: Some(BrokerId(3)), ..state(0, &[]) }), 8);
    shown.put(key(1), Record::Partition(PartitionState { last_leader: Some(BrokerId(3)), ..state(0, &[]) }), 8);
    let known = topic(&[&[3, 2], &[3]], &[]);
    let elected = elect(&shown.view(), &known, 0, true).unwrap().unwrap();
    assert!(matches!(
        elected.writes.as_slice(),
        [Write::Set(_, Record::Partition(after), 8)] if after.leader == Some(BrokerId(2)) && after.isr == brokers(&[2])
    ));
    assert_eq!(elect(&shown.view(), &known, 1, true), Ok(Err(NotElected::NoneEligible)));
}

#[test]
fn producer_ids_are_given_away_once() {
    let (first, commit) = take_producer_ids(None, 1000).unwrap();
    assert_eq!(first, 0);
    assert!(matches!(commit.writes.as_slice(), [Write::Create(Key::ProducerIds, Record::ProducerIds(1000), _)]));
    let (first, commit) = take_producer_ids(Some((1000, 3)), 1000).unwrap();
    assert_eq!((first, commit.writes), (1000, vec![Write::Set(Key::ProducerIds, Record::ProducerIds(2000), 3)]));
    assert!(take_producer_ids(Some((i64::MAX - 5, 3)), 1000).is_none());
}

#[test]
fn a_topic_that_its_znode_has_no_room_for_is_refused() {
    let shown = Shown::new();
    let many = |count: usize| {
        let replicas: Vec<&[i32]> = vec![&[1, 2, 3]; count];
        create(&shown.view(), &topic(&replicas, &[])).expect("as the metadata has it")
    };
    assert_eq!(oversized(&many(20_000)), None);
    let why = oversized(&many(40_000)).expect("more than fits");
    assert!(why.contains("40000 partitions of topic t") && why.contains("524288"), "{why}");
}
