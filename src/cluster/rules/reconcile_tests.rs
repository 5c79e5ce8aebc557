use super::*;
use crate::cluster::rules::random::Random;
use crate::cluster::rules::test_store::{TestStore, name, random_assignment, random_state};
use crate::cluster::rules::transition::check;
use crate::cluster::store::{Commit, Phase};
use crate::model::LeaderEpoch;

const ME: BrokerId = BrokerId(0);
const SETTLED: Moment = Moment { grace_is_over: true, rebalance: false };
const AT_START: Moment = Moment { grace_is_over: false, rebalance: false };
const REBALANCE: Moment = Moment { grace_is_over: true, rebalance: true };

fn ids(list: &[i32]) -> Vec<BrokerId> {
    list.iter().copied().map(BrokerId).collect()
}

fn assigned(replicas: &[i32]) -> Assignment {
    Assignment { replicas: ids(replicas), ..Assignment::default() }
}

fn state(isr: &[i32], elr: &[i32], leader: i32) -> PartitionState {
    PartitionState {
        leader: (leader >= 0).then_some(BrokerId(leader)),
        leader_epoch: LeaderEpoch(5),
        controller_epoch: 1,
        isr: ids(isr),
        elr: ids(elr),
        elr_min: if elr.is_empty() { 0 } else { 2 },
        last_leader: None,
        emptied: Vec::new(),
        leader_broker_epoch: None,
    }
}

/// Brokers 0, 1, 2 are active, 0 in office, and topic `t` with one partition on all of them;
/// minimum 2.
fn cluster(state: PartitionState) -> TestStore {
    let mut store = TestStore::default();
    store.office(0);
    (0..3).for_each(|broker| store.broker(broker, Phase::Active, true));
    store.topic("t", vec![assigned(&[0, 1, 2])]);
    store.partition("t", 0, state);
    store
}

fn phase(store: &mut TestStore, broker: i32, phase: Phase, trusted: bool) {
    let key = Key::Incarnation(BrokerId(broker));
    let Record::Incarnation(mut incarnation) = store.nodes[&key].record.clone() else { panic!("another kind") };
    (incarnation.phase, incarnation.trusted) = (phase, trusted);
    store.set(&key, Record::Incarnation(incarnation));
}

/// Carries out rounds until nothing is left to do; returns the number of commits.
fn settle(store: &mut TestStore, moment: Moment) -> usize {
    let mut commits = 0;
    for _ in 0..20 {
        let batches = reconcile(&store.view(), ME, moment, &Options::default()).batches();
        if batches.is_empty() {
            return commits;
        }
        for batch in batches {
            store.commit(&batch.commit).unwrap();
            commits += 1;
        }
    }
    panic!("no end: {:?}", reconcile(&store.view(), ME, moment, &Options::default()));
}

fn result(store: &TestStore) -> PartitionState {
    store.view().state("t", 0).unwrap().value.clone()
}

/// Leader (-1: none), ISR, ELR.
fn sets(store: &TestStore) -> (i32, Vec<i32>, Vec<i32>) {
    let state = result(store);
    let plain = |list: &[BrokerId]| list.iter().map(|broker| broker.0).collect();
    (state.leader.map_or(-1, |leader| leader.0), plain(&state.isr), plain(&state.elr))
}

#[test]
fn a_cluster_at_rest_needs_nothing_and_only_the_controller_acts() {
    let store = cluster(state(&[0, 1, 2], &[], 0));
    assert!(reconcile(&store.view(), ME, SETTLED, &Options::default()).is_empty());
    let mut store = cluster(state(&[0, 1, 2], &[], 1));
    store.delete(&Key::Broker(BrokerId(1)));
    assert!(!reconcile(&store.view(), ME, SETTLED, &Options::default()).is_empty());
    assert!(reconcile(&store.view(), BrokerId(2), SETTLED, &Options::default()).is_empty());
    store.delete(&Key::Controller);
    assert!(reconcile(&store.view(), ME, SETTLED, &Options::default()).is_empty());
}

#[test]
fn a_step_is_bound_to_the_office_and_to_the_incarnation_it_elects() {
    let mut store = cluster(state(&[0, 1, 2], &[], 0));
    store.delete(&Key::Broker(ME));
    let plan = reconcile(&store.view(), ME, SETTLED, &Options::default());
    let [step] = plan.steps.as_slice() else { panic!("{plan:?}") };
    let mut successor = store.clone();
    successor.set(&Key::ControllerEpoch, Record::ControllerEpoch(8));
    assert_eq!(successor.commit(&step.commit), Err(Key::ControllerEpoch));
    let mut again = store.clone();
    phase(&mut again, 1, Phase::Joining, true);
    assert_eq!(again.commit(&step.commit), Err(Key::Incarnation(BrokerId(1))));
    store.commit(&step.commit).unwrap();
    assert_eq!(sets(&store), (1, vec![1, 2], vec![]));
    assert_eq!((result(&store).leader_epoch.0, result(&store).controller_epoch), (6, 7), "one epoch in one commit");
}

#[test]
fn dead_brokers_leave_and_come_back_by_the_elr() {
    let mut store = cluster(state(&[0, 1, 2], &[], 1));
    store.delete(&Key::Broker(BrokerId(1)));
    settle(&mut store, SETTLED);
    assert_eq!(sets(&store), (0, vec![0, 2], vec![]));
    store.delete(&Key::Broker(BrokerId(0)));
    settle(&mut store, SETTLED);
    assert_eq!(sets(&store), (2, vec![2], vec![0]));
    store.delete(&Key::Broker(BrokerId(2)));
    settle(&mut store, SETTLED);
    assert_eq!(sets(&store), (2, vec![2], vec![0]), "there is nobody to decide for");
    // 1 left the ISR at the minimum: it may lack what was committed since.
    let back = |store: &mut TestStore, broker: i32, trusted| {
        phase(store, broker, Phase::Joining, trusted);
        store.create(Key::Broker(BrokerId(broker)), Record::Broker(crate::cluster::rules::test_store::record()));
        settle(store, SETTLED);
    };
    back(&mut store, 1, true);
    assert_eq!(sets(&store), (-1, vec![], vec![0, 2]));
    back(&mut store, 0, false);
    assert_eq!(sets(&store), (-1, vec![], vec![2]), "it may have lost records");
    back(&mut store, 2, true);
    assert_eq!(sets(&store), (2, vec![2], vec![]));
}

#[test]
fn the_last_leader_is_elected_when_nobody_else_is_left_and_it_is_said() {
    let mut store = cluster(state(&[1], &[], 1));
    phase(&mut store, 1, Phase::Joining, false);
    settle(&mut store, SETTLED);
    assert_eq!(sets(&store), (1, vec![1], vec![]));
    assert_eq!(result(&store).leader_epoch, LeaderEpoch(7), "to none, and back");
    let last = PartitionState { last_leader: Some(BrokerId(1)), ..state(&[], &[], -1) };
    let risky = reconcile(&cluster(last).view(), ME, SETTLED, &Options::default()).risky;
    let expected = RiskyElection { partition: (name("t"), 0), leader: BrokerId(1), election: Election::LastLeader };
    assert_eq!(risky, [expected]);
}

#[test]
fn an_unclean_leader_is_elected_by_option_only_and_not_while_a_holder_may_come() {
    let mut store = cluster(state(&[1], &[], 1));
    store.delete(&Key::Broker(BrokerId(1)));
    let mut with_option = store.clone();
    with_option.config("t", "unclean.leader.election.enable", "true");
    settle(&mut store, SETTLED);
    assert_eq!(sets(&store), (-1, vec![], vec![1]));
    let mut early = with_option.clone();
    settle(&mut early, AT_START);
    assert_eq!(sets(&early), (1, vec![1], vec![]), "never seen: nothing is done yet");
    let risky = reconcile(&with_option.view(), ME, SETTLED, &Options::default()).risky;
    assert_eq!(risky.iter().map(|risky| (risky.leader, risky.election)).collect::<Vec<_>>(), [(ME, Election::Unclean)]);
    settle(&mut with_option, SETTLED);
    assert_eq!(sets(&with_option), (0, vec![0], vec![]));
    // On its way back.
    let mut store = cluster(state(&[1], &[], 1));
    store.config("t", "unclean.leader.election.enable", "true");
    phase(&mut store, 1, Phase::Joining, true);
    settle(&mut store, SETTLED);
    assert_eq!(sets(&store), (1, vec![1], vec![]));
}

#[test]
fn brokers_that_were_never_seen_have_time_to_register() {
    let mut store = cluster(state(&[0, 1, 2], &[], 1));
    let before = store.view();
    store.delete(&Key::Broker(BrokerId(1)));
    assert!(reconcile(&store.view(), ME, AT_START, &Options::default()).is_empty());
    assert!(!reconcile(&store.view(), ME, SETTLED, &Options::default()).is_empty());
    // One that was there before is dead at once.
    let mut seen = before;
    seen.update(&store.nodes, [&Key::Broker(BrokerId(1))]);
    assert!(!reconcile(&seen, ME, AT_START, &Options::default()).is_empty());
    let mut timers = Timers::new(Options::default(), 1_000);
    assert_eq!(timers.due_ms(), Some(4_000));
    assert_eq!(timers.tick(3_999), (AT_START, false));
    assert_eq!(timers.tick(4_000), (SETTLED, true), "the end of the grace concerns everything");
    assert_eq!(timers.tick(4_001), (SETTLED, false));
    assert_eq!(timers.due_ms(), Some(301_000));
    assert_eq!(timers.tick(301_000), (REBALANCE, true));
    assert_eq!((timers.tick(301_001), timers.due_ms()), ((SETTLED, false), Some(601_000)));
}

#[test]
fn a_restarted_leader_gets_a_new_epoch_before_it_is_let_in() {
    let mut store = cluster(state(&[0, 1, 2], &[], 1));
    phase(&mut store, 1, Phase::Joining, true);
    let plan = reconcile(&store.view(), ME, SETTLED, &Options::default());
    assert_eq!(plan.steps.len(), 1, "it leads still: no activation yet");
    let mut again = store.clone();
    phase(&mut again, 1, Phase::Joining, true);
    assert_eq!(again.commit(&plan.steps[0].commit), Err(Key::Incarnation(BrokerId(1))), "it was restarted once more");
    store.commit(&plan.steps[0].commit).unwrap();
    assert_eq!(sets(&store), (1, vec![0, 1, 2], vec![]), "trusted: it stays in the ISR, and leads on");
    let registered = store.view().registrations()[&BrokerId(1)].broker_epoch;
    assert_eq!((result(&store).leader_epoch, result(&store).leader_broker_epoch), (LeaderEpoch(6), Some(registered)));
    assert!(!store.view().is_active(BrokerId(1)));
    assert_eq!(settle(&mut store, SETTLED), 1);
    assert!(store.view().is_active(BrokerId(1)) && result(&store).leader_epoch == LeaderEpoch(6));
    // The next restart: the epoch is an earlier registration's.
    store.delete(&Key::Broker(BrokerId(1)));
    phase(&mut store, 1, Phase::Joining, true);
    store.create(Key::Broker(BrokerId(1)), Record::Broker(crate::cluster::rules::test_store::record()));
    assert_eq!(settle(&mut store, SETTLED), 2);
    assert_eq!((sets(&store).0, result(&store).leader_epoch), (1, LeaderEpoch(7)));
    // Another leader does not keep what was said of this one.
    phase(&mut store, 1, Phase::Joining, false);
    settle(&mut store, SETTLED);
    assert_eq!((sets(&store), result(&store).leader_broker_epoch), ((0, vec![0, 2], vec![]), None));
}

#[test]
fn where_all_stop_each_leads_to_its_end_and_leads_on_at_the_next_start() {
    let mut store = cluster(state(&[0, 1, 2], &[], 1));
    (0..3).for_each(|broker| phase(&mut store, broker, Phase::Draining, true));
    assert_eq!(settle(&mut store, SETTLED), 0);
    assert!((0..3).all(|broker| crate::cluster::rules::leads_nothing(&store.view(), BrokerId(broker))));
    [1, 2].iter().for_each(|broker| store.delete(&Key::Broker(BrokerId(*broker))));
    assert_eq!(settle(&mut store, SETTLED), 0);
    // The first one is back, and the office is its own.
    phase(&mut store, 0, Phase::Joining, true);
    assert_eq!(settle(&mut store, AT_START), 1, "it is let in");
    phase(&mut store, 1, Phase::Joining, true);
    store.create(Key::Broker(BrokerId(1)), Record::Broker(crate::cluster::rules::test_store::record()));
    assert_eq!(settle(&mut store, AT_START), 2);
    assert_eq!((sets(&store), result(&store).leader_epoch), ((1, vec![0, 1, 2], vec![]), LeaderEpoch(6)));
}

#[test]
fn a_draining_broker_hands_over_and_waits_for_who_may_catch_up() {
    let mut store = cluster(state(&[0, 1, 2], &[], 1));
    phase(&mut store, 1, Phase::Draining, true);
    settle(&mut store, SETTLED);
    assert_eq!(sets(&store), (0, vec![0, 2], vec![]));
    let mut store = cluster(state(&[1], &[2], 1));
    phase(&mut store, 1, Phase::Draining, true);
    settle(&mut store, SETTLED);
    assert_eq!(sets(&store), (1, vec![1], vec![2]), "0 and 2 may catch up");
    phase(&mut store, 0, Phase::Draining, true);
    store.delete(&Key::Broker(BrokerId(2)));
    settle(&mut store, SETTLED);
    assert_eq!(sets(&store), (1, vec![1], vec![2]), "all are on their way out");
    // Others are there, and have no replica.
    store.broker(5, Phase::Active, true);
    settle(&mut store, SETTLED);
    assert_eq!(sets(&store), (-1, vec![], vec![2, 1]), "nobody is left to wait for");
}

#[test]
fn a_lowered_minimum_clears_the_elr() {
    let mut store = cluster(state(&[0], &[1, 2], 0));
    assert_eq!(settle(&mut store, SETTLED), 0);
    store.config("t", "min.insync.replicas", "1");
    settle(&mut store, SETTLED);
    assert_eq!((sets(&store), result(&store).elr_min), ((0, vec![0], vec![]), 0));
    assert_eq!(result(&store).leader_epoch, LeaderEpoch(5));
}

#[test]
fn new_partitions_begin_with_who_is_there() {
    let mut store = cluster(state(&[0, 1, 2], &[], 0));
    store.topic("new", (0..450).map(|_| assigned(&[2, 7, 1])).collect());
    store.topic("elsewhere", vec![assigned(&[7, 8])]);
    let batches = reconcile(&store.view(), ME, SETTLED, &Options::default()).batches();
    assert_eq!(batches.iter().map(|batch| batch.commit.writes.len()).collect::<Vec<_>>(), [200, 200, 50]);
    settle(&mut store, SETTLED);
    let view = store.view();
    let made = &view.state("new", 449).unwrap().value;
    assert_eq!((made.leader, &made.isr, made.leader_epoch), (Some(BrokerId(2)), &ids(&[2, 1]), LeaderEpoch(0)));
    assert_eq!(view.state("elsewhere", 0), None, "nobody is there yet");
}

#[test]
fn a_deletion_that_was_begun_is_finished_in_chunks() {
    let mut store = cluster(state(&[0, 1, 2], &[], 0));
    store.topic("old", (0..401).map(|_| assigned(&[0])).collect());
    (0..401).for_each(|index| store.partition("old", index, state(&[0], &[], 0)));
    store.config("old", "retention.ms", "1");
    store.create(Key::Deletion(name("old")), Record::Deletion);
    // The topic of this one is gone already.
    store.create(Key::Deletion(name("older")), Record::Deletion);
    let batches = reconcile(&store.view(), ME, SETTLED, &Options::default()).batches();
    assert_eq!(batches.iter().map(|batch| batch.commit.writes.len()).collect::<Vec<_>>(), [200, 200, 1, 1]);
    settle(&mut store, SETTLED);
    assert_eq!(store.view().topics().keys().map(|name| &**name).collect::<Vec<_>>(), ["t"]);
}

/// Data directories are children of their topic, which cannot go before them.
#[test]
fn a_deletion_takes_the_data_directories_along() {
    let mut store = cluster(state(&[0, 1, 2], &[], 0));
    for (topic, partitions) in [("one", 1), ("many", 150)] {
        store.topic(topic, (0..partitions).map(|_| assigned(&[0])).collect());
        for index in 0..partitions {
            store.partition(topic, index, state(&[0], &[], 0));
            store.home(topic, index);
        }
        store.create(Key::Deletion(name(topic)), Record::Deletion);
    }
    // Only its directory is left of this one.
    store.home("rest", 3);
    store.create(Key::Deletion(name("rest")), Record::Deletion);
    let batches = reconcile(&store.view(), ME, SETTLED, &Options::default()).batches();
    assert_eq!(batches.iter().map(|batch| batch.commit.writes.len()).collect::<Vec<_>>(), [200, 100, 4, 2]);
    settle(&mut store, SETTLED);
    assert_eq!(store.view().topics().keys().map(|name| &**name).collect::<Vec<_>>(), ["t"]);
    assert!(!store.nodes.keys().any(|key| matches!(key, Key::Home(..))));
}

#[test]
fn finished_reassignments_are_written_with_their_topic() {
    let moving = Assignment { replicas: ids(&[1, 2, 0]), adding: ids(&[1]), removing: ids(&[0]) };
    let mut store = TestStore::default();
    store.office(0);
    (0..3).for_each(|broker| store.broker(broker, Phase::Active, true));
    store.topic("t", vec![moving.clone(), moving.clone(), assigned(&[0, 1])]);
    store.partition("t", 0, state(&[0, 2, 1], &[], 0));
    store.partition("t", 1, state(&[0, 2], &[], 0));
    store.partition("t", 2, state(&[0, 1], &[], 0));
    assert_eq!(settle(&mut store, SETTLED), 1);
    assert_eq!(sets(&store), (1, vec![2, 1], vec![]));
    let view = store.view();
    let assignments = &view.topic("t").unwrap().record.as_ref().unwrap().value.assignments;
    assert_eq!(assignments, &[assigned(&[1, 2]), moving, assigned(&[0, 1])]);
}

#[test]
fn preferred_leaders_come_back_above_the_percentage() {
    let mut store = cluster(state(&[0, 1, 2], &[], 1));
    assert_eq!(settle(&mut store, SETTLED), 0, "not due");
    settle(&mut store, REBALANCE);
    assert_eq!((sets(&store).0, result(&store).leader_epoch), (0, LeaderEpoch(6)));
    let mut store = cluster(state(&[1, 2], &[], 1));
    assert_eq!(settle(&mut store, REBALANCE), 0, "not in the ISR");
    let mut store = cluster(state(&[0, 1], &[], 1));
    store.topic("most", (0..9).map(|_| assigned(&[0, 1])).collect());
    (0..9).for_each(|index| store.partition("most", index, state(&[0, 1], &[], 0)));
    assert_eq!(settle(&mut store, REBALANCE), 0, "1 of 10 is not above 10 %");
}

#[test]
fn steps_share_commits_and_can_go_singly() {
    let mut store = TestStore::default();
    store.office(0);
    (0..3).for_each(|broker| store.broker(broker, Phase::Active, true));
    store.topic("t", (0..150).map(|_| assigned(&[1, 0, 2])).collect());
    (0..150).for_each(|index| store.partition("t", index, state(&[1, 0, 2], &[], 1)));
    store.delete(&Key::Broker(BrokerId(1)));
    let batches = reconcile(&store.view(), ME, SETTLED, &Options::default()).batches();
    assert_eq!(batches.iter().map(|batch| batch.commit.writes.len()).collect::<Vec<_>>(), [64, 64, 22]);
    assert_eq!(batches[0].commit.checks.len(), 2, "the office, and broker 0 active");
    // Partition 3 has changed meanwhile.
    let three = Key::Partition(name("t"), 3);
    store.set(&three, Record::Partition(state(&[1, 0], &[], 1)));
    assert_eq!(store.commit(&batches[0].commit), Err(three));
    let done = batches[0].singles.iter().filter(|single| store.commit(single).is_ok()).count();
    assert_eq!(done, 63);
}

/// The rules that hold of a cluster at rest.
fn check_rest(store: &TestStore, context: &str) {
    let view = store.view();
    let all_leave = view.all_leave();
    for broker in view.registrations().keys() {
        let waits = matches!(view.standing(*broker), Standing::Joining { .. });
        assert!(!waits || view.incarnation(*broker).is_none(), "{context}: {broker} is not let in");
    }
    assert!(view.topics().values().all(|topic| topic.deletion.is_none()), "{context}: a deletion is not finished");
    let gone = |broker: &BrokerId| matches!(view.standing(*broker), Standing::Gone | Standing::NeverSeen);
    for (name, topic, index, assignment) in view.partitions() {
        let context = format!("{context}: {name}-{index} {assignment:?} {:?}", topic.states.get(&index));
        let active = |broker: &BrokerId| view.is_active(*broker);
        let Some(state) = topic.states.get(&index).map(|state| &state.value) else {
            assert!(!assignment.replicas.iter().any(active), "{context}: not made");
            continue;
        };
        assert_eq!(check(state, &assignment.replicas), Ok(()), "{context}");
        if all_leave {
            continue;
        }
        assert!(!state.isr.iter().any(gone), "{context}: a dead member");
        assert!(!state.isr.iter().any(active) || state.leader.is_some(), "{context}: no leader");
        assert!(!state.isr.is_empty() || !state.elr.iter().any(active), "{context}: nobody of the ELR");
        let draining = |broker: &BrokerId| view.standing(*broker) == Standing::Draining;
        if let Some(leader) = &state.leader {
            let others = assignment.replicas.iter().filter(|broker| *broker != leader);
            let waits = draining(leader) && !state.isr.iter().any(active) && others.clone().any(active);
            assert!(active(leader) || waits, "{context}: the leader is not active");
        }
        assert!(
            state.isr.iter().all(|broker| !draining(broker) || state.leader == Some(*broker)),
            "{context}: draining"
        );
        let minimum = view.terms(topic, assignment).min_isr;
        assert!(state.elr.is_empty() || (state.isr.len() as i32) < minimum, "{context}: the ELR is not cleared");
        let target = assignment.replicas.iter().filter(|broker| !assignment.removing.contains(broker));
        let done = target.clone().all(|broker| state.isr.contains(broker)) && target.clone().any(active);
        assert!(!is_under_way(assignment) || !done, "{context}: the reassignment is not completed");
    }
}

#[test]
fn any_cluster_comes_to_rest() {
    let (mut commits, mut topics) = (0, 0);
    for seed in 0..4_000 {
        let mut random = Random::of(seed);
        let mut store = TestStore::random(&mut random);
        topics += store.view().topics().len();
        commits += settle(&mut store, if random.chance(2) { REBALANCE } else { SETTLED });
        check_rest(&store, &format!("seed {seed}"));
    }
    assert!(commits > 4_000 && topics > 4_000, "{commits} {topics}");
}

/// A change that somebody else makes.
fn disturb(store: &mut TestStore, random: &mut Random) -> Vec<Key> {
    let broker = random.below(6) as i32;
    let registration = Key::Broker(BrokerId(broker));
    let incarnation = Key::Incarnation(BrokerId(broker));
    let phases = [Phase::Active, Phase::Joining, Phase::Draining];
    let topic = name(&format!("t{}", random.below(5)));
    let before = store.nodes.clone();
    match random.below(7) {
        0 | 1 if store.nodes.contains_key(&registration) => store.delete(&registration),
        0 | 1 => {
            store.nodes.remove(&incarnation);
            store.broker(broker, Phase::Joining, random.chance(2));
        }
        2 if store.nodes.contains_key(&incarnation) => {
            let new = random.one_of(&phases);
            phase(store, broker, new, random.chance(2));
        }
        3 => {
            store.nodes.remove(&Key::TopicConfig(topic.clone()));
            let option = random.one_of(&["min.insync.replicas", "unclean.leader.election.enable"]);
            store.config(&topic, option, random.one_of(&["1", "2", "3", "true"]));
        }
        4 if !store.nodes.contains_key(&Key::Deletion(topic.clone())) => {
            store.create(Key::Deletion(topic.clone()), Record::Deletion);
        }
        5 => {
            let Some((Key::Partition(topic, index), _)) =
                store.nodes.iter().rfind(|(key, _)| matches!(key, Key::Partition(..)))
            else {
                return Vec::new();
            };
            let (topic, index) = (topic.clone(), *index);
            let assignment = store.view().topic(&topic).unwrap().assignment(index).cloned();
            if let Some(assignment) = assignment {
                store.set(&Key::Partition(topic, index), Record::Partition(random_state(&assignment, random)));
            }
        }
        _ => {
            let Some(Record::Topic(record)) = store.nodes.get(&Key::Topic(topic.clone())).map(|node| &node.record)
            else {
                return Vec::new();
            };
            let mut record = record.clone();
            record.assignments.push(random_assignment(random));
            store.set(&Key::Topic(topic), Record::Topic(record));
        }
    }
    let keys = before.keys().chain(store.nodes.keys());
    keys.filter(|key| before.get(key) != store.nodes.get(key)).cloned().collect()
}

#[test]
fn a_round_over_what_changed_finds_all_that_a_full_one_finds() {
    let mut steps = 0;
    for seed in 0..800 {
        let mut random = Random::of(seed);
        let mut store = TestStore::random(&mut random);
        settle(&mut store, SETTLED);
        let mut view = store.view();
        for wave in 0..6 {
            let mut dirty = Dirty::default();
            for _ in 0..1 + random.below(3) {
                let changed = disturb(&mut store, &mut random);
                dirty.extend(view.update(&store.nodes, &changed));
            }
            for round in 0.. {
                let full = reconcile(&view, ME, SETTLED, &Options::default());
                let limited = reconcile_changed(&view, ME, SETTLED, &Options::default(), &dirty);
                assert_eq!(limited, full, "seed {seed}, wave {wave}, round {round}");
                if full.is_empty() {
                    break;
                }
                assert!(round < 20, "seed {seed}, wave {wave}: no end");
                // Some get through, as under conflicts.
                let batches = full.batches();
                let commits: Vec<&Commit> = batches.iter().flat_map(|batch| &batch.singles).collect();
                steps += commits.len();
                for commit in commits {
                    if round > 3 || !random.chance(4) {
                        let changed = store.commit(commit).unwrap();
                        dirty.extend(view.update(&store.nodes, &changed));
                    }
                }
            }
            check_rest(&store, &format!("seed {seed}, wave {wave}"));
        }
    }
    assert!(steps > 4_000, "{steps}");
}

#[test]
fn the_states_of_a_damaged_topic_follow_its_brokers() {
    for damaged in [Key::Topic(name("t")), Key::TopicConfig(name("t"))] {
        let mut store = cluster(state(&[0, 1, 2], &[], 1));
        store.create(Key::TopicConfig(name("t")), Record::Config(BTreeMap::default()));
        let right = store.nodes[&damaged].record.clone();
        store.set(&damaged, Record::Damaged("no JSON".to_owned()));
        phase(&mut store, 1, Phase::Joining, true);
        assert_eq!(settle(&mut store, SETTLED), 2, "{damaged:?}: a new epoch, and then it is let in");
        assert!(store.view().is_active(BrokerId(1)));
        assert_eq!((sets(&store), result(&store).leader_epoch), ((1, vec![0, 1, 2], vec![]), LeaderEpoch(6)));
        phase(&mut store, 2, Phase::Joining, false);
        settle(&mut store, SETTLED);
        assert_eq!(sets(&store), (1, vec![0, 1], vec![]), "what it lacks is not known");
        phase(&mut store, 1, Phase::Draining, true);
        settle(&mut store, SETTLED);
        assert_eq!((sets(&store).0, result(&store).leader_epoch), (0, LeaderEpoch(7)));
        assert!(crate::cluster::rules::leads_nothing(&store.view(), BrokerId(1)));
        store.set(&damaged, right);
        assert_eq!(settle(&mut store, SETTLED), 0, "{damaged:?}: nothing is left to do when it is put right");
    }
}
