use super::*;
use crate::cluster::rules::random::Random;
use crate::cluster::rules::test_store::{TestStore, name, random_assignment, random_state};
use crate::model::LeaderEpoch;

fn assigned(replicas: &[i32]) -> Assignment {
    Assignment { replicas: replicas.iter().copied().map(BrokerId).collect(), ..Assignment::default() }
}

#[test]
fn a_broker_stands_as_registration_and_incarnation_say() {
    let mut store = TestStore::default();
    store.broker(0, Phase::Active, false);
    store.broker(1, Phase::Draining, true);
    store.broker(2, Phase::Joining, true);
    store.broker(3, Phase::Joining, false);
    store.incarnation(4, Phase::Active, true);
    let mut view = store.view();
    let of = |view: &View| (0..5).map(|broker| view.standing(BrokerId(broker))).collect::<Vec<_>>();
    let never = [
        Standing::Active,
        Standing::Draining,
        Standing::Joining { trusted: true },
        Standing::Joining { trusted: false },
        Standing::NeverSeen,
    ];
    assert_eq!(of(&view), never);
    let broker_0 = Key::Broker(BrokerId(0));
    store.delete(&broker_0);
    view.update(&store.nodes, [&broker_0]);
    assert_eq!(view.standing(BrokerId(0)), Standing::Gone, "it was seen");
    assert_eq!(view.registrations().len(), 3);
}

#[test]
fn a_topic_has_its_own_options_or_those_of_the_cluster_or_the_defaults() {
    let mut store = TestStore::default();
    store.topic("t", vec![assigned(&[0, 1, 2])]);
    let minimum = |store: &TestStore| {
        let view = store.view();
        let topic = view.topic("t").unwrap();
        (view.min_insync_replicas(topic), view.terms(topic, topic.assignment(0).unwrap()).min_isr)
    };
    assert_eq!(minimum(&store), (2, 2));
    let config = |value: &str| Record::Config(BTreeMap::from([(MIN_INSYNC_REPLICAS.to_owned(), value.to_owned())]));
    store.create(Key::DefaultConfig, config("3"));
    assert_eq!(minimum(&store), (3, 3));
    store.create(Key::TopicConfig(name("t")), config("5"));
    assert_eq!(minimum(&store), (5, 3), "no more than it has replicas");
    for invalid in ["0", "x", ""] {
        store.set(&Key::TopicConfig(name("t")), config(invalid));
        assert_eq!(minimum(&store), (3, 3), "{invalid:?} is not valid");
    }
    let unclean = |store: &TestStore| store.view().unclean_election(store.view().topic("t").unwrap());
    assert!(!unclean(&store));
    let config = |value: &str| Record::Config(BTreeMap::from([(UNCLEAN_ELECTION.to_owned(), value.to_owned())]));
    store.set(&Key::TopicConfig(name("t")), config("TRUE"));
    assert!(unclean(&store));
}

#[test]
fn a_change_marks_the_partitions_it_concerns() {
    let mut store = TestStore::default();
    store.broker(1, Phase::Active, true);
    store.broker(9, Phase::Active, true);
    store.topic("a", vec![assigned(&[1, 2]), assigned(&[2, 3])]);
    store.topic("b", vec![assigned(&[3])]);
    let mut state = random_state(&assigned(&[3]), &mut Random::of(0));
    state.leader_epoch = LeaderEpoch(1);
    store.partition("b", 0, state.clone());
    let mut view = store.view();
    let marked = |view: &mut View, store: &TestStore, key: Key| {
        let dirty = view.update(&store.nodes, [&key]);
        dirty.partitions.into_iter().map(|(name, index)| format!("{name}{index}")).collect::<Vec<_>>().join(" ")
    };
    store.delete(&Key::Broker(BrokerId(1)));
    assert_eq!(marked(&mut view, &store, Key::Broker(BrokerId(1))), "a0");
    // Named by a state, though it is no replica.
    state.elr = vec![BrokerId(1)];
    store.set(&Key::Partition(name("b"), 0), Record::Partition(state));
    assert_eq!(marked(&mut view, &store, Key::Partition(name("b"), 0)), "b0");
    assert_eq!(marked(&mut view, &store, Key::Incarnation(BrokerId(1))), "a0 b0");
    store.config("a", "retention.ms", "1");
    assert_eq!(marked(&mut view, &store, Key::TopicConfig(name("a"))), "a0 a1");
    assert_eq!(marked(&mut view, &store, Key::DefaultConfig), "a0 a1 b0");
    // With the last broker nobody is there to be elected; with the next one somebody is.
    let last = Key::Broker(BrokerId(9));
    store.delete(&last);
    assert_eq!(marked(&mut view, &store, last.clone()), "a0 a1 b0");
    assert!(view.all_leave());
    store.create(last.clone(), Record::Broker(crate::cluster::rules::test_store::record()));
    assert_eq!(marked(&mut view, &store, last), "a0 a1 b0");
    assert!(!view.all_leave());
    store.delete(&Key::Topic(name("a")));
    assert_eq!(marked(&mut view, &store, Key::Topic(name("a"))), "a0 a1", "as it was before");
    assert_eq!(view.partitions_of(BrokerId(2)).count(), 0);
    assert!(view.update(&store.nodes, [&Key::Controller]).is_empty());
}

#[test]
fn a_view_that_follows_is_the_one_built_anew() {
    for seed in 0..300 {
        let mut random = Random::of(seed);
        let mut store = TestStore::random(&mut random);
        let mut view = store.view();
        for _ in 0..20 {
            let other = TestStore::random(&mut random);
            let keys: Vec<Key> = store.nodes.keys().chain(other.nodes.keys()).cloned().collect();
            let changed: Vec<Key> = (0..1 + random.below(4)).map(|_| keys[random.below(keys.len())].clone()).collect();
            for key in &changed {
                match other.nodes.get(key) {
                    Some(node) => drop(store.nodes.insert(key.clone(), node.clone())),
                    None => drop(store.nodes.remove(key)),
                }
            }
            view.update(&store.nodes, &changed);
            let anew = store.view();
            assert_eq!(view.registrations, anew.registrations, "seed {seed}");
            assert_eq!(view.incarnations, anew.incarnations, "seed {seed}");
            assert_eq!(view.topics, anew.topics, "seed {seed}");
            assert_eq!(view.named, anew.named, "seed {seed}");
            assert_eq!((&view.controller, &view.controller_epoch), (&anew.controller, &anew.controller_epoch));
            assert_eq!(view.cluster_config, anew.cluster_config);
            assert!(view.seen.is_superset(&anew.seen));
        }
    }
    // Both sorts of random assignments occur.
    let mut random = Random::of(1);
    let moving = (0..100).filter(|_| !random_assignment(&mut random).adding.is_empty()).count();
    assert!((5..60).contains(&moving));
}
