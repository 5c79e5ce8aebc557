use std::collections::BTreeMap;

use super::*;
use crate::cluster::rules::random::Random;
use crate::cluster::rules::test_store::{TestStore, directory, name, record};
use crate::cluster::rules::transition::{Terms, expand, shrink};
use crate::cluster::rules::view::PartitionKey;
use crate::cluster::rules::{Moment, Options, isr_commit, reconcile};
use crate::cluster::store::Assignment;
use crate::model::LeaderEpoch;
use crate::model::planted::plant;

const ME: BrokerId = BrokerId(1);
const BOOT: Uuid = Uuid::from_u128(1);

fn start(boot: u128, directories: &[i32]) -> Start {
    Start {
        clean_stop: false,
        boot: Uuid::from_u128(boot),
        directories: directories.iter().copied().map(directory).collect(),
    }
}

fn before(phase: Phase, trusted: bool, directories: &[i32]) -> Incarnation {
    Incarnation { phase, trusted, boot: BOOT, directories: directories.iter().copied().map(directory).collect() }
}

#[test]
fn logs_are_trusted_where_nothing_can_have_been_lost() {
    let active = before(Phase::Active, true, &[1, 2]);
    let same_boot = start(1, &[1, 2]);
    let other_boot = start(2, &[1, 2]);
    let clean = Start { clean_stop: true, ..other_boot.clone() };
    assert!(is_trusted(Some(&active), &same_boot));
    assert!(is_trusted(Some(&active), &clean));
    assert!(!is_trusted(Some(&active), &other_boot), "the power may have gone");
    assert!(!is_trusted(None, &clean), "nothing is known of it");
    for directories in [&[1][..], &[1, 2, 3], &[1, 3], &[]] {
        for start in [&same_boot, &clean] {
            let start = Start { directories: directories.iter().copied().map(directory).collect(), ..start.clone() };
            assert!(!is_trusted(Some(&active), &start), "{directories:?}");
        }
    }
}

#[test]
fn a_second_start_does_not_hide_what_the_first_lost() {
    // After a power cut: registered untrusted, killed before the controller took it out of the ISR,
    // started again.
    let first = before(Phase::Joining, false, &[1]);
    let again = Start { clean_stop: true, ..start(1, &[1]) };
    assert!(!is_trusted(Some(&first), &again));
    assert!(is_trusted(Some(&before(Phase::Joining, true, &[1])), &again));
    assert!(is_trusted(Some(&before(Phase::Active, false, &[1])), &again), "it was let in, and in no ISR by then");
    assert!(is_trusted(Some(&before(Phase::Draining, false, &[1])), &again));
}

fn incarnation(store: &TestStore, broker: i32) -> Incarnation {
    store.view().incarnation(BrokerId(broker)).unwrap().value.clone()
}

#[test]
fn a_registration_begins_an_incarnation() {
    let mut store = TestStore::default();
    let commit = register(&store.view(), ME, record(), &start(1, &[1])).unwrap();
    store.commit(&commit).unwrap();
    assert_eq!(incarnation(&store, 1), before(Phase::Joining, false, &[1]), "new");
    assert!(store.commit(&commit).is_err(), "once");
    // Its session is over: it registers anew, from the same process.
    store.set(&Key::Incarnation(ME), Record::Incarnation(before(Phase::Active, false, &[1])));
    store.delete(&Key::Broker(ME));
    let version = store.view().incarnation(ME).unwrap().version;
    store.commit(&register(&store.view(), ME, record(), &start(1, &[1])).unwrap()).unwrap();
    assert_eq!(incarnation(&store, 1), before(Phase::Joining, true, &[1]));
    assert_eq!(store.view().incarnation(ME).unwrap().version, version + 1);
}

#[test]
fn an_older_registration_goes_if_its_directories_are_ours() {
    let mut store = TestStore::default();
    store.broker(1, Phase::Active, true);
    store.office(1);
    let epoch = store.view().registrations()[&ME].broker_epoch;
    let taken = register(&store.view(), ME, record(), &start(1, &[7])).unwrap_err();
    assert_eq!(taken, RegisterError::Taken(ME));
    assert!(taken.to_string().contains("broker.id 1 is taken"), "{taken}");
    let commit = register(&store.view(), ME, record(), &start(1, &[1, 7])).unwrap();
    store.commit(&commit).unwrap();
    let view = store.view();
    assert!(view.registrations()[&ME].broker_epoch > epoch, "a new broker epoch");
    assert_eq!(view.controller(), None, "the dead process held the office");
    assert_eq!(incarnation(&store, 1).phase, Phase::Joining);
    assert!(!incarnation(&store, 1).trusted, "a directory is new");
}

fn one_partition(isr: &[i32], elr: &[i32], leader: Option<i32>) -> TestStore {
    let ids = |list: &[i32]| list.iter().copied().map(BrokerId).collect::<Vec<_>>();
    let mut store = TestStore::default();
    store.office(0);
    store.topic("t", vec![Assignment { replicas: ids(&[0, 1, 2]), ..Assignment::default() }]);
    let state = PartitionState {
        leader: leader.map(BrokerId),
        leader_epoch: LeaderEpoch(3),
        controller_epoch: 1,
        isr: ids(isr),
        elr: ids(elr),
        elr_min: if elr.is_empty() { 0 } else { 2 },
        last_leader: None,
        emptied: Vec::new(),
        leader_broker_epoch: None,
    };
    store.partition("t", 0, state);
    store
}

#[test]
fn a_broker_is_let_in_when_nothing_stands_against_it() {
    let lets_in = |isr: &[i32], elr: &[i32], leader: Option<i32>, trusted: bool| {
        let mut store = one_partition(isr, elr, leader);
        store.broker(1, Phase::Joining, trusted);
        let commit = activation(&store.view(), ME);
        if let Some(commit) = &commit {
            store.commit(commit).unwrap();
            assert_eq!(incarnation(&store, 1).phase, Phase::Active);
            assert_eq!(incarnation(&store, 1).trusted, trusted);
            assert_eq!(activation(&store.view(), ME), None, "it is in");
        }
        commit.is_some()
    };
    assert!(lets_in(&[0], &[2], Some(0), false));
    assert!(!lets_in(&[0, 1], &[], Some(0), false), "in the ISR");
    assert!(!lets_in(&[0], &[1], Some(0), false), "in the ELR");
    assert!(lets_in(&[0, 1], &[], Some(0), true));
    assert!(lets_in(&[0], &[1], Some(0), true));
    assert!(!lets_in(&[1], &[], Some(1), true), "it leads, in an epoch of an earlier incarnation");
    let mut store = one_partition(&[1], &[], Some(1));
    store.broker(1, Phase::Joining, true);
    let broker_epoch = store.view().registrations()[&ME].broker_epoch;
    let mut state = store.view().state("t", 0).unwrap().value.clone();
    for (of, is_let_in) in [(broker_epoch - 1, false), (broker_epoch, true)] {
        state.leader_broker_epoch = Some(of);
        store.set(&Key::Partition(name("t"), 0), Record::Partition(state.clone()));
        assert_eq!(activation(&store.view(), ME).is_some(), is_let_in, "it leads on by {of}");
    }
    let mut store = TestStore::default();
    store.incarnation(1, Phase::Joining, true);
    assert_eq!(activation(&store.view(), ME), None, "not registered");
}

#[test]
fn a_controlled_stop_is_announced_by_who_is_in() {
    let mut store = one_partition(&[1, 2], &[], Some(1));
    store.broker(1, Phase::Active, true);
    assert!(!leads_nothing(&store.view(), ME));
    assert!(leads_nothing(&store.view(), BrokerId(2)));
    let commit = drain(&store.view(), ME).unwrap();
    store.commit(&commit).unwrap();
    assert_eq!(incarnation(&store, 1).phase, Phase::Draining);
    assert_eq!(drain(&store.view(), ME), None);
    assert!(leads_nothing(&store.view(), ME), "nobody is there to lead instead");
    store.broker(2, Phase::Joining, true);
    assert!(!leads_nothing(&store.view(), ME));
    let mut joining = TestStore::default();
    joining.broker(1, Phase::Joining, false);
    assert_eq!(drain(&joining.view(), ME), None, "that would hide that it was not trusted");
}

#[test]
fn the_office_goes_to_one_and_each_has_a_higher_epoch() {
    let mut store = TestStore::default();
    assert_eq!(become_controller(&store.view(), ME), None, "not registered");
    store.broker(1, Phase::Joining, true);
    store.broker(2, Phase::Joining, true);
    let (first, second) = (become_controller(&store.view(), ME), become_controller(&store.view(), BrokerId(2)));
    store.commit(&first.unwrap()).unwrap();
    assert_eq!(store.commit(&second.unwrap()), Err(Key::Controller));
    let view = store.view();
    assert_eq!((view.controller().unwrap().value, view.controller_epoch().unwrap().value), (ME, 1));
    assert_eq!(become_controller(&view, BrokerId(2)), None, "taken");
    store.delete(&Key::Controller);
    store.commit(&become_controller(&store.view(), BrokerId(2)).unwrap()).unwrap();
    assert_eq!(store.view().controller_epoch().unwrap().value, 2);
    // Somebody has written the last one.
    store.set(&Key::ControllerEpoch, Record::ControllerEpoch(i32::MAX));
    store.delete(&Key::Controller);
    store.commit(&become_controller(&store.view(), ME).unwrap()).unwrap();
    assert_eq!(store.view().controller_epoch().unwrap().value, 1);
}

#[test]
fn an_eviction_is_fenced() {
    let mut store = TestStore::default();
    store.office(0);
    (0..3).for_each(|broker| store.broker(broker, Phase::Active, true));
    let view = store.view();
    assert_eq!(evict(&view, BrokerId(1), BrokerId(2)), None, "that is the controller's");
    assert_eq!(evict(&view, BrokerId(0), BrokerId(0)), None);
    assert_eq!(evict(&view, BrokerId(0), BrokerId(7)), None, "not registered");
    let commit = evict(&view, BrokerId(0), BrokerId(2)).unwrap();
    let mut again = store.clone();
    again.set(&Key::Incarnation(BrokerId(2)), Record::Incarnation(before(Phase::Joining, true, &[2])));
    assert_eq!(again.commit(&commit), Err(Key::Incarnation(BrokerId(2))), "it has registered anew");
    let mut successor = store.clone();
    successor.set(&Key::ControllerEpoch, Record::ControllerEpoch(8));
    assert_eq!(successor.commit(&commit), Err(Key::ControllerEpoch));
    store.commit(&commit).unwrap();
    assert!(!store.view().registrations().contains_key(&BrokerId(2)));
    // Anybody evicts the controller, with its office.
    store.commit(&evict(&store.view(), BrokerId(1), BrokerId(0)).unwrap()).unwrap();
    assert_eq!(store.view().controller(), None);
    assert_eq!(store.view().registrations().keys().collect::<Vec<_>>(), [&BrokerId(1)]);
}

#[test]
fn three_refusals_within_300_ms_of_one_another_are_proof() {
    let mut suspect = Suspect::default();
    assert_eq!([0, 10, 20].map(|at| suspect.refused(at)), [false; 3], "no connection broke");
    suspect.broke();
    assert_eq!([1_000, 1_100, 1_301, 1_400].map(|at| suspect.refused(at)), [false, false, false, true]);
    assert_eq!([1_401, 1_402, 1_403].map(|at| suspect.refused(at)), [false; 3], "once a minute");
    suspect.connected();
    suspect.broke();
    assert_eq!([61_399, 61_400].map(|at| suspect.refused(at)), [false, false]);
    assert!(suspect.refused(61_401), "a minute later");
    suspect.broke();
    assert_eq!([130_000, 130_001].map(|at| suspect.refused(at)), [false; 2]);
    suspect.connected();
    suspect.broke();
    assert!(!suspect.refused(130_002), "it answered in between");
}

/// Brokers that a commit takes into an ISR, with the broker epochs that were meant.
type Joining = (PartitionKey, Vec<(BrokerId, i64)>);
type Sent = (Commit, Option<Joining>);

/// Brokers, a controller and leaders that act by old views, with commits that arrive late and in
/// any order.
struct Chaos {
    store: TestStore,
    /// Views of the last changes, the newest last.
    views: Vec<View>,
    in_flight: Vec<Sent>,
    /// Number of registrations of each broker.
    lives: BTreeMap<BrokerId, u32>,
    /// The life that led an epoch.
    led: BTreeMap<(PartitionKey, i32), (BrokerId, u32)>,
    /// Untrusted lives, and since when a member of ISR or ELR is in it by its present life.
    joined: BTreeMap<(PartitionKey, BrokerId), u32>,
    activations: usize,
}

impl Chaos {
    fn new(random: &mut Random) -> Chaos {
        let mut store = TestStore::default();
        store.create(Key::ControllerEpoch, Record::ControllerEpoch(0));
        let ids = |list: &[i32]| list.iter().copied().map(BrokerId).collect::<Vec<_>>();
        let orders = [ids(&[0, 1, 2]), ids(&[1, 2, 0]), ids(&[2, 0])];
        let assignments = orders.map(|replicas| Assignment { replicas, ..Assignment::default() }).to_vec();
        store.topic("t", assignments);
        if random.chance(3) {
            store.config("t", "min.insync.replicas", random.one_of(&["1", "3"]));
        }
        let views = vec![store.view()];
        let (lives, led, joined) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Chaos { store, views, in_flight: Vec::new(), lives, led, joined, activations: 0 }
    }

    fn some_view(&self, random: &mut Random) -> View {
        let back = if random.chance(2) { 0 } else { random.below(self.views.len()) };
        self.views[self.views.len() - 1 - back].clone()
    }

    fn apply(&mut self, commit: &Commit, joining: Option<Joining>) -> bool {
        let before = self.store.view();
        if self.store.commit(commit).is_err() {
            return false;
        }
        let after = self.store.view();
        for broker in after.registrations().keys() {
            let epoch = |view: &View| view.registrations().get(broker).map(|registration| registration.broker_epoch);
            *self.lives.entry(*broker).or_default() += u32::from(epoch(&before) != epoch(&after));
            self.activations += usize::from(!before.is_active(*broker) && after.is_active(*broker));
        }
        if let Some((partition, joining)) = joining {
            for (broker, meant) in joining {
                let epoch = after.registrations().get(&broker).map(|registration| registration.broker_epoch);
                assert_eq!(epoch, Some(meant), "{broker} joins {partition:?} by an incarnation that is over");
                self.note_joined(&partition, broker);
            }
        }
        let states = |view: &View| -> BTreeMap<PartitionKey, PartitionState> {
            let topic = view.topic("t").unwrap();
            topic.states.iter().map(|(index, state)| ((name("t"), *index), state.value.clone())).collect()
        };
        for (partition, state) in states(&after) {
            let old = states(&before).remove(&partition);
            if let Some(leader) = state.leader.filter(|leader| old.and_then(|old| old.leader) != Some(*leader)) {
                self.note_joined(&partition, leader);
            }
        }
        // A new partition has nothing to lose.
        for (partition, state) in states(&after).into_iter().filter(|(key, _)| !states(&before).contains_key(key)) {
            state.isr.iter().for_each(|broker| self.note_joined(&partition, *broker));
        }
        self.check(&after, &states(&after));
        self.views.push(after);
        if self.views.len() > 6 {
            self.views.remove(0);
        }
        true
    }

    fn note_joined(&mut self, partition: &PartitionKey, broker: BrokerId) {
        let life = self.lives.get(&broker).copied().unwrap_or_default();
        self.joined.insert((partition.clone(), broker), life);
    }

    fn check(&mut self, view: &View, states: &BTreeMap<PartitionKey, PartitionState>) {
        let replicas = |key: &PartitionKey| view.topic(&key.0).unwrap().assignment(key.1).unwrap().replicas.clone();
        for (key, state) in states {
            assert_eq!(crate::cluster::rules::check(state, &replicas(key)), Ok(()));
            if let Some(leader) = state.leader.filter(|leader| view.is_active(*leader)) {
                let life = self.lives[&leader];
                let first = *self.led.entry((key.clone(), state.leader_epoch.0)).or_insert((leader, life));
                assert_eq!(first, (leader, life), "{key:?}: two histories in epoch {}", state.leader_epoch);
            }
            for broker in state.isr.iter().chain(&state.elr).copied().filter(|broker| view.is_active(*broker)) {
                let trusted = view.incarnation(broker).unwrap().value.trusted;
                let since = self.joined.get(&(key.clone(), broker)).copied();
                assert!(trusted || since == Some(self.lives[&broker]), "{key:?}: {broker} is in by an earlier life");
            }
        }
    }

    fn step(&mut self, random: &mut Random) {
        let broker = BrokerId(random.below(3) as i32);
        let view = self.some_view(random);
        let mut sent: Vec<Sent> = Vec::new();
        let alone = |commit: Commit| (commit, None);
        match random.below(24) {
            0 => {
                // A new process, of this boot or the next; it reads the store before it registers.
                let start = Start { clean_stop: random.chance(3), ..start(random.below(3) as u128, &[broker.0]) };
                let commit = register(&self.store.view(), broker, record(), &start).unwrap();
                self.apply(&commit, None);
            }
            1 => {
                let mut writes = Vec::new();
                let now = self.store.view();
                writes.extend(now.registrations().get(&broker).map(|_| Write::Delete(Key::Broker(broker), None)));
                writes.extend(leave_office(&now, broker));
                self.apply(&Commit { checks: Vec::new(), writes }, None);
            }
            2 | 15 | 16 => sent.extend(become_controller(&view, broker).map(alone)),
            3 => sent.extend(drain(&view, broker).map(alone)),
            4 => sent.extend(evict(&view, broker, BrokerId(random.below(3) as i32)).map(alone)),
            5..=14 => {
                let broker = view.controller().map_or(broker, |controller| controller.value);
                let moment = Moment { grace_is_over: random.chance(2), rebalance: random.chance(3) };
                for batch in reconcile(&view, broker, moment, &Options::default()).batches() {
                    let commits = if random.chance(2) { vec![batch.commit] } else { batch.singles };
                    sent.extend(commits.into_iter().map(alone));
                }
            }
            _ => sent.extend(self.isr_change(&view, random)),
        }
        for one in sent {
            if random.chance(3) { self.in_flight.push(one) } else { _ = self.apply(&one.0, one.1) }
        }
        while self.in_flight.len() > random.below(6) {
            let (commit, joining) = self.in_flight.swap_remove(random.below(self.in_flight.len()));
            self.apply(&commit, joining);
        }
    }

    /// A leader takes who may be in sync into the ISR, or somebody out.
    fn isr_change(&self, view: &View, random: &mut Random) -> Option<Sent> {
        let key = (name("t"), random.below(3) as i32);
        let topic = view.topic("t")?;
        let assignment = topic.assignment(key.1)?;
        let state = topic.states.get(&key.1)?;
        let leader = state.value.leader.filter(|leader| view.is_active(*leader))?;
        let terms: Terms = view.terms(topic, assignment);
        let some = random.some_of(&assignment.replicas);
        let active = some.iter().filter(|broker| view.is_active(**broker) && !state.value.isr.contains(broker));
        let joining: Vec<_> = active.map(|broker| (*broker, view.incarnation(*broker).unwrap().version)).collect();
        let brokers: Vec<_> = joining.iter().map(|(broker, _)| *broker).collect();
        let meant = brokers.iter().map(|broker| (*broker, view.registrations()[broker].broker_epoch)).collect();
        if random.chance(3) {
            let after = shrink(&state.value, &terms, &some)?;
            return Some((isr_commit(view, leader, &key, state.version, after, &[])?, None));
        }
        let after = expand(&state.value, &terms, &brokers)?;
        Some((isr_commit(view, leader, &key, state.version, after, &joining)?, Some((key, meant))))
    }
}

fn chaos(seed: u64) -> Chaos {
    let mut random = Random::of(seed);
    let mut chaos = Chaos::new(&mut random);
    (0..120).for_each(|_| chaos.step(&mut random));
    chaos
}

#[test]
fn no_epoch_gets_two_histories_and_no_stale_incarnation_counts() {
    let (mut activations, mut epochs) = (0, 0);
    for seed in 0..1_000 {
        let chaos = chaos(seed);
        activations += chaos.activations;
        epochs += chaos.led.len();
    }
    assert!(activations > 2_000 && epochs > 2_500, "{activations} {epochs}");
}

#[test]
fn the_same_chaos_finds_each_planted_bug() {
    let bugs = [
        Planted::ActiveBeforeEpoch,
        Planted::UntrustedStaysInIsr,
        Planted::ExpandWithoutIncarnation,
        Planted::RenewedOnce,
    ];
    for bug in bugs {
        // Of this thread only.
        plant(Some(bug));
        let found = (0..1_000).find(|seed| std::panic::catch_unwind(|| chaos(*seed)).is_err());
        plant(None);
        assert!(found.is_some(), "{bug:?} is not found");
    }
}
