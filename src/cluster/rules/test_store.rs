//! A store for tests: nodes, and commits on them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::random::Random;
use super::transition::{Transition, effective_min, initial};
use super::{Terms, TopicDefaults, View};
use crate::cluster::store::{
    Assignment, BrokerRecord, Check, Commit, Incarnation, Key, Node, PartitionState, Phase, Record, TopicRecord, Write,
};
use crate::cluster::{DirectoryId, PartitionHome};
use crate::model::BrokerId;

pub const DEFAULTS: TopicDefaults = TopicDefaults { min_insync_replicas: 2, unclean_election: false };

#[derive(Clone, Debug, Default)]
pub struct TestStore {
    pub nodes: BTreeMap<Key, Node>,
    revision: i64,
}

impl TestStore {
    /// Carries the commit out and returns the keys that it changed; the error is the key that it
    /// conflicts with.
    pub fn commit(&mut self, commit: &Commit) -> Result<Vec<Key>, Key> {
        for check in &commit.checks {
            let (key, holds) = match check {
                Check::Exists(key) => (key, self.nodes.contains_key(key)),
                Check::Absent(key) => (key, !self.nodes.contains_key(key)),
                Check::Version(key, version) => (key, self.nodes.get(key).is_some_and(|node| node.version == *version)),
            };
            if !holds {
                return Err(key.clone());
            }
        }
        let mut before = Vec::new();
        for write in &commit.writes {
            let (Write::Create(key, ..) | Write::Set(key, ..) | Write::Delete(key, _)) = write;
            let old = self.nodes.remove(key);
            before.push((key.clone(), old.clone()));
            let new = match (write, old) {
                (Write::Create(_, record, _), None) => {
                    Some(Node { record: record.clone(), version: 0, created: self.revision + 1 })
                }
                (Write::Set(_, record, version), Some(old)) if old.version == *version => {
                    Some(Node { record: record.clone(), version: version + 1, ..old })
                }
                (Write::Delete(_, version), Some(old))
                    if version.is_none_or(|version| version == old.version) && !self.has_children(key) =>
                {
                    None
                }
                _ => {
                    for (key, old) in before.into_iter().rev() {
                        self.nodes.remove(&key);
                        self.nodes.extend(old.map(|old| (key, old)));
                    }
                    return Err(key.clone());
                }
            };
            self.nodes.extend(new.map(|new| (key.clone(), new)));
        }
        self.revision += 1;
        Ok(before.into_iter().map(|(key, _)| key).collect())
    }

    fn has_children(&self, key: &Key) -> bool {
        key.children().into_iter().flatten().any(|range| self.nodes.range(range).next().is_some())
    }

    pub fn create(&mut self, key: Key, record: Record) {
        self.revision += 1;
        let before = self.nodes.insert(key, Node { record, version: 0, created: self.revision });
        assert_eq!(before, None);
    }

    pub fn set(&mut self, key: &Key, record: Record) {
        let version = self.nodes[key].version;
        let write = Write::Set(key.clone(), record, version);
        self.commit(&Commit { checks: Vec::new(), writes: vec![write] }).unwrap();
    }

    pub fn delete(&mut self, key: &Key) {
        let write = Write::Delete(key.clone(), None);
        self.commit(&Commit { checks: Vec::new(), writes: vec![write] }).unwrap();
    }

    pub fn broker(&mut self, broker: i32, phase: Phase, trusted: bool) {
        self.incarnation(broker, phase, trusted);
        self.create(Key::Broker(BrokerId(broker)), Record::Broker(record()));
    }

    pub fn incarnation(&mut self, broker: i32, phase: Phase, trusted: bool) {
        let directories = BTreeSet::from([directory(broker)]);
        let incarnation = Incarnation { phase, trusted, boot: Uuid::from_u128(1), directories };
        self.create(Key::Incarnation(BrokerId(broker)), Record::Incarnation(incarnation));
    }

    pub fn office(&mut self, broker: i32) {
        self.create(Key::Controller, Record::Controller(BrokerId(broker)));
        self.create(Key::ControllerEpoch, Record::ControllerEpoch(7));
    }

    pub fn topic(&mut self, name: &str, assignments: Vec<Assignment>) {
        self.create(Key::Topic(name.into()), Record::Topic(TopicRecord { id: Uuid::from_u128(9), assignments }));
    }

    pub fn partition(&mut self, name: &str, index: i32, state: PartitionState) {
        self.create(Key::Partition(name.into(), index), Record::Partition(state));
    }

    pub fn home(&mut self, name: &str, index: i32) {
        let home = PartitionHome { directory: directory(0), since_run: 1 };
        self.create(Key::Home(name.into(), index), Record::Home(home));
    }

    pub fn config(&mut self, name: &str, option: &str, value: &str) {
        let config = BTreeMap::from([(option.to_owned(), value.to_owned())]);
        self.create(Key::TopicConfig(name.into()), Record::Config(config));
    }

    pub fn view(&self) -> View {
        View::of(&self.nodes, DEFAULTS)
    }

    /// Any valid cluster of up to 6 brokers, with broker 0 in office.
    pub fn random(random: &mut Random) -> TestStore {
        let mut store = TestStore::default();
        store.office(0);
        let phases = [Phase::Active, Phase::Active, Phase::Active, Phase::Joining, Phase::Draining];
        for broker in 0..6 {
            let trusted = random.chance(2);
            match random.below(6) {
                0 => {}
                1 => store.incarnation(broker, Phase::Active, trusted),
                _ => store.broker(broker, random.one_of(&phases), trusted),
            }
        }
        for topic in 0..random.below(5) {
            store.random_topic(&format!("t{topic}"), random);
        }
        if random.chance(4) {
            let config = BTreeMap::from([("min.insync.replicas".to_owned(), (1 + random.below(3)).to_string())]);
            store.create(Key::DefaultConfig, Record::Config(config));
        }
        store
    }

    fn random_topic(&mut self, name: &str, random: &mut Random) {
        let partitions = if random.chance(60) { 410 } else { 1 + random.below(4) };
        let assignments: Vec<_> = (0..partitions).map(|_| random_assignment(random)).collect();
        for (index, assignment) in (0..).zip(&assignments) {
            if !random.chance(6) {
                self.partition(name, index, random_state(assignment, random));
            }
            if random.chance(6) {
                self.home(name, index);
            }
        }
        self.topic(name, assignments);
        if random.chance(3) {
            let option = random.one_of(&["min.insync.replicas", "unclean.leader.election.enable", "retention.ms"]);
            let value = random.one_of(&["1", "2", "3", "true", "false", "?"]);
            self.config(name, option, value);
        }
        if random.chance(5) {
            self.create(Key::Deletion(name.into()), Record::Deletion);
        }
    }
}

pub fn record() -> BrokerRecord {
    BrokerRecord::new(Vec::new(), None)
}

pub fn directory(number: i32) -> DirectoryId {
    DirectoryId(Uuid::from_u128(1_000 + number as u128))
}

pub fn random_assignment(random: &mut Random) -> Assignment {
    let all = [0, 1, 2, 3, 4, 5].map(BrokerId);
    let replicas = random.shuffled(&all)[..1 + random.below(4)].to_vec();
    if replicas.len() == 1 || !random.chance(4) {
        return Assignment { replicas, ..Assignment::default() };
    }
    let at = 1 + random.below(replicas.len() - 1);
    let adding = replicas[..at].to_vec();
    let removing = if random.chance(2) { replicas[at..].to_vec() } else { Vec::new() };
    Assignment { replicas, adding, removing }
}

pub fn random_state(assignment: &Assignment, random: &mut Random) -> PartitionState {
    let replicas = &assignment.replicas;
    let mut state = initial(replicas, |_| true, 1).unwrap();
    for _ in 0..random.below(8) {
        let min_isr = effective_min(1 + random.below(3) as i32, assignment);
        let broker = random.one_of(replicas);
        let some = random.some_of(replicas);
        let mut change = Transition::of(&state, &Terms { replicas, min_isr, controller_epoch: 1 });
        match random.below(6) {
            0 => some.iter().for_each(|broker| change.leave(*broker)),
            1 => change.lose(broker),
            2 => _ = change.elect(&|broker| some.contains(&broker), random.chance(5)),
            3 => change.lead(broker),
            4 => change.empty(broker),
            _ => some.iter().for_each(|broker| change.join(*broker)),
        }
        state = change.finish().unwrap_or(state);
    }
    state
}

pub fn name(text: &str) -> Arc<str> {
    text.into()
}
