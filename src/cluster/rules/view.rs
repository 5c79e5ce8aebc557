//! The cluster as the rules see it: the store's nodes by what they mean, with the versions that
//! commits are based on.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::transition::{Terms, effective_min};
use crate::cluster::store::{
    Assignment, BrokerRecord, Incarnation, Key, Node, PartitionState, Phase, Record, TopicRecord,
};
use crate::model::BrokerId;

const MIN_INSYNC_REPLICAS: &str = "min.insync.replicas";
const UNCLEAN_ELECTION: &str = "unclean.leader.election.enable";

/// Topic and partition index.
pub type PartitionKey = (Arc<str>, i32);

/// A value and the version of the node that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned<T> {
    pub value: T,
    pub version: i32,
}

/// A live broker's registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    pub record: BrokerRecord,
    pub broker_epoch: i64,
    pub version: i32,
}

/// Defaults of topics that neither the topic nor the cluster overrides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicDefaults {
    pub min_insync_replicas: i32,
    pub unclean_election: bool,
}

/// A broker's part in the cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// May lead and follow.
    Active,
    /// Stops soon: gives its leaderships away.
    Draining,
    /// Registered, but not let in yet.
    Joining { trusted: bool },
    /// Not registered.
    Gone,
    /// Not registered, and not seen since this view was built.
    NeverSeen,
}

/// Nodes of one topic.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TopicView {
    pub record: Option<Versioned<TopicRecord>>,
    /// States by partition index, with those of partitions that are in no assignment.
    pub states: BTreeMap<i32, Versioned<PartitionState>>,
    /// Partitions whose data directory the store has: they go with the topic.
    pub homes: BTreeSet<i32>,
    pub config: Option<Versioned<BTreeMap<String, String>>>,
    /// Version of the mark that its deletion was begun.
    pub deletion: Option<i32>,
    /// Nodes that cannot be read, and why. Nothing is decided about such a topic but its deletion.
    pub damaged: BTreeMap<Key, String>,
}

impl TopicView {
    pub fn assignment(&self, index: i32) -> Option<&Assignment> {
        self.record.as_ref()?.value.assignments.get(usize::try_from(index).ok()?)
    }

    fn is_empty(&self) -> bool {
        let no_children = self.states.is_empty() && self.homes.is_empty();
        let is_sound = self.damaged.is_empty();
        self.record.is_none() && no_children && self.config.is_none() && self.deletion.is_none() && is_sound
    }

    /// The rules may decide about its partitions.
    pub fn is_kept(&self) -> bool {
        self.deletion.is_none() && self.damaged.is_empty()
    }

    /// Some node of it cannot be read, and it is not being deleted.
    pub fn is_damaged(&self) -> bool {
        self.deletion.is_none() && !self.damaged.is_empty()
    }
}

/// Changes that the rules have to look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    pub partitions: BTreeSet<PartitionKey>,
    pub topics: BTreeSet<Arc<str>>,
}

impl Dirty {
    pub fn is_empty(&self) -> bool {
        self.partitions.is_empty() && self.topics.is_empty()
    }

    pub fn extend(&mut self, other: Dirty) {
        self.partitions.extend(other.partitions);
        self.topics.extend(other.topics);
    }
}

/// The whole cluster.
#[derive(Clone, Debug)]
pub struct View {
    defaults: TopicDefaults,
    registrations: BTreeMap<BrokerId, Registration>,
    incarnations: BTreeMap<BrokerId, Versioned<Incarnation>>,
    topics: BTreeMap<Arc<str>, TopicView>,
    controller: Option<Versioned<BrokerId>>,
    controller_epoch: Option<Versioned<i32>>,
    cluster_config: BTreeMap<String, String>,
    /// Brokers that were registered at some time since the view was built.
    seen: BTreeSet<BrokerId>,
    /// Partitions that name a broker in assignment or state.
    named: BTreeMap<BrokerId, BTreeSet<PartitionKey>>,
    /// Topics by id, the oldest first.
    by_id: BTreeMap<Uuid, BTreeSet<(i64, Arc<str>)>>,
}

impl View {
    pub fn of(nodes: &BTreeMap<Key, Node>, defaults: TopicDefaults) -> View {
        let mut view = View {
            defaults,
            registrations: BTreeMap::new(),
            incarnations: BTreeMap::new(),
            topics: BTreeMap::new(),
            controller: None,
            controller_epoch: None,
            cluster_config: BTreeMap::new(),
            seen: BTreeSet::new(),
            named: BTreeMap::new(),
            by_id: BTreeMap::new(),
        };
        nodes.iter().for_each(|(key, node)| view.put(key, Some(node)));
        view
    }

    /// Follows the store: `changed` are the keys that are not as before, `nodes` the nodes as they
    /// are now. Returns what the rules may decide otherwise than before.
    pub fn update<'a>(&mut self, nodes: &BTreeMap<Key, Node>, changed: impl IntoIterator<Item = &'a Key>) -> Dirty {
        let mut dirty = Dirty::default();
        let all_left = self.all_leave();
        for key in changed {
            self.mark(key, &mut dirty);
            self.put(key, nodes.get(key));
            self.mark(key, &mut dirty);
        }
        if all_left != self.all_leave() {
            // Nothing was decided meanwhile.
            self.mark(&Key::DefaultConfig, &mut dirty);
        }
        dirty
    }

    // ---- brokers

    pub fn registrations(&self) -> &BTreeMap<BrokerId, Registration> {
        &self.registrations
    }

    pub fn incarnation(&self, broker: BrokerId) -> Option<&Versioned<Incarnation>> {
        self.incarnations.get(&broker)
    }

    pub fn standing(&self, broker: BrokerId) -> Standing {
        if !self.registrations.contains_key(&broker) {
            return if self.seen.contains(&broker) { Standing::Gone } else { Standing::NeverSeen };
        }
        match self.incarnations.get(&broker).map(|incarnation| &incarnation.value) {
            Some(Incarnation { phase: Phase::Active, .. }) => Standing::Active,
            Some(Incarnation { phase: Phase::Draining, .. }) => Standing::Draining,
            Some(Incarnation { phase: Phase::Joining, trusted, .. }) => Standing::Joining { trusted: *trusted },
            // Registration writes both in one commit; without an incarnation nothing is known of
            // its logs.
            None => Standing::Joining { trusted: false },
        }
    }

    pub fn is_active(&self, broker: BrokerId) -> bool {
        self.standing(broker) == Standing::Active
    }

    /// The broker is active, and takes records.
    pub fn has_room(&self, broker: BrokerId) -> bool {
        self.is_active(broker) && self.registrations.get(&broker).is_some_and(|own| !own.record.short_of_room)
    }

    /// All brokers are on their way out, or gone. Nobody can be elected then, and who was in sync
    /// stays so: the next start goes on from there.
    pub fn all_leave(&self) -> bool {
        let stays = |broker: &BrokerId| matches!(self.standing(*broker), Standing::Active | Standing::Joining { .. });
        !self.registrations.keys().any(stays)
    }

    // ---- controller

    pub fn controller(&self) -> Option<&Versioned<BrokerId>> {
        self.controller.as_ref()
    }

    pub fn controller_epoch(&self) -> Option<&Versioned<i32>> {
        self.controller_epoch.as_ref()
    }

    // ---- topics

    pub fn topics(&self) -> &BTreeMap<Arc<str>, TopicView> {
        &self.topics
    }

    pub fn topic(&self, name: &str) -> Option<&TopicView> {
        self.topics.get(name)
    }

    pub fn state(&self, topic: &str, index: i32) -> Option<&Versioned<PartitionState>> {
        self.topics.get(topic)?.states.get(&index)
    }

    /// Why a topic is not served, nor its name free.
    pub fn withheld(&self, name: &str) -> Option<String> {
        let topic = self.topics.get(name)?;
        if let Some(why) = topic.damaged.values().next() {
            return Some(why.clone());
        }
        let id = topic.record.as_ref()?.value.id;
        let (_, first) = self.by_id.get(&id)?.first()?;
        (**first != *name).then(|| {
            format!(
                "topics {first} and {name} have the same id in ZooKeeper, and {first} had it before: delete the znode /brokers/topics/{name} with zookeeper-shell"
            )
        })
    }

    /// Partitions with an assignment, of topics that are not being deleted.
    pub fn partitions(&self) -> impl Iterator<Item = (&Arc<str>, &TopicView, i32, &Assignment)> {
        let kept = self.topics.iter().filter(|(_, topic)| topic.is_kept());
        kept.filter_map(|(name, topic)| Some((name, topic, topic.record.as_ref()?))).flat_map(
            |(name, topic, record)| {
                (0..).zip(&record.value.assignments).map(move |(index, assignment)| (name, topic, index, assignment))
            },
        )
    }

    /// Partitions that name the broker in assignment or state.
    pub fn partitions_of(&self, broker: BrokerId) -> impl Iterator<Item = &PartitionKey> {
        self.named.get(&broker).into_iter().flatten()
    }

    /// Partitions with a state, of damaged topics that are not being deleted.
    pub fn damaged_partitions(&self) -> impl Iterator<Item = (&Arc<str>, &TopicView, i32)> {
        let damaged = self.topics.iter().filter(|(_, topic)| topic.is_damaged());
        damaged.flat_map(|(name, topic)| topic.states.keys().map(move |index| (name, topic, *index)))
    }

    /// `min.insync.replicas` as it is configured for a topic.
    pub fn min_insync_replicas(&self, topic: &TopicView) -> i32 {
        let configured =
            self.configured(topic, MIN_INSYNC_REPLICAS, |text| text.trim().parse::<i32>().ok().filter(|n| *n >= 1));
        configured.unwrap_or(self.defaults.min_insync_replicas)
    }

    /// `unclean.leader.election.enable` as it is configured for a topic.
    pub fn unclean_election(&self, topic: &TopicView) -> bool {
        let parse = |text: &str| match text.trim() {
            text if text.eq_ignore_ascii_case("true") => Some(true),
            text if text.eq_ignore_ascii_case("false") => Some(false),
            _ => None,
        };
        self.configured(topic, UNCLEAN_ELECTION, parse).unwrap_or(self.defaults.unclean_election)
    }

    /// The topic's own value, or that of the whole cluster. One that is not valid counts as not
    /// given.
    fn configured<T>(&self, topic: &TopicView, name: &str, parse: impl Fn(&str) -> Option<T>) -> Option<T> {
        let own = topic.config.as_ref().map(|config| &config.value);
        let configs = own.into_iter().chain([&self.cluster_config]);
        configs.filter_map(|config| config.get(name)).find_map(|text| parse(text))
    }

    /// Terms for a transition of one partition, as of this view.
    pub fn terms<'a>(&self, topic: &TopicView, assignment: &'a Assignment) -> Terms<'a> {
        Terms {
            replicas: &assignment.replicas,
            min_isr: effective_min(self.min_insync_replicas(topic), assignment),
            controller_epoch: self.controller_epoch.as_ref().map_or(0, |epoch| epoch.value),
        }
    }

    // ---- from the store

    /// A record of another kind than its key says counts as no node.
    fn put(&mut self, key: &Key, node: Option<&Node>) {
        let version = node.map_or(0, |node| node.version);
        let record = node.map(|node| &node.record);
        match key {
            Key::Controller => {
                let broker = if let Some(Record::Controller(broker)) = record { Some(*broker) } else { None };
                self.controller = broker.map(|value| Versioned { value, version });
            }
            Key::ControllerEpoch => {
                let epoch = if let Some(Record::ControllerEpoch(epoch)) = record { Some(*epoch) } else { None };
                self.controller_epoch = epoch.map(|value| Versioned { value, version });
            }
            Key::Broker(broker) => {
                self.registrations.remove(broker);
                if let (Some(Record::Broker(record)), Some(node)) = (record, node) {
                    let registration =
                        Registration { record: record.clone(), broker_epoch: node.created, version: node.version };
                    self.registrations.insert(*broker, registration);
                    self.seen.insert(*broker);
                }
            }
            Key::Incarnation(broker) => {
                self.incarnations.remove(broker);
                if let Some(Record::Incarnation(value)) = record {
                    self.incarnations.insert(*broker, Versioned { value: value.clone(), version });
                }
            }
            Key::DefaultConfig => {
                self.cluster_config =
                    if let Some(Record::Config(config)) = record { config.clone() } else { BTreeMap::new() };
            }
            Key::Topic(name)
            | Key::Partition(name, _)
            | Key::Home(name, _)
            | Key::TopicConfig(name)
            | Key::Deletion(name) => {
                self.put_topic(name, key, node);
            }
            // Nothing that the rules go by.
            _ => {}
        }
    }

    fn put_topic(&mut self, name: &Arc<str>, key: &Key, node: Option<&Node>) {
        let (record, version) = (node.map(|node| &node.record), node.map_or(0, |node| node.version));
        let mut touched = self.touched(key);
        touched.iter().for_each(|partition| self.unname(partition));
        if let Key::Topic(_) = key {
            self.put_id(name, node);
        }
        let topic = self.topics.entry(name.clone()).or_default();
        match record {
            Some(Record::Damaged(why)) => drop(topic.damaged.insert(key.clone(), why.clone())),
            _ => drop(topic.damaged.remove(key)),
        }
        match (key, record) {
            (Key::Topic(_), Some(Record::Topic(value))) => {
                topic.record = Some(Versioned { value: value.clone(), version });
            }
            (Key::Topic(_), _) => topic.record = None,
            (Key::Partition(_, index), Some(Record::Partition(value))) => {
                topic.states.insert(*index, Versioned { value: value.clone(), version });
            }
            (Key::Partition(_, index), _) => drop(topic.states.remove(index)),
            (Key::Home(_, index), Some(Record::Home(_))) => drop(topic.homes.insert(*index)),
            (Key::Home(_, index), _) => drop(topic.homes.remove(index)),
            (Key::TopicConfig(_), Some(Record::Config(value))) => {
                topic.config = Some(Versioned { value: value.clone(), version });
            }
            (Key::TopicConfig(_), _) => topic.config = None,
            (_, Some(Record::Deletion)) => topic.deletion = Some(version),
            _ => topic.deletion = None,
        }
        if topic.is_empty() {
            self.topics.remove(name);
        }
        // Partitions without an assignment any more may have a state still.
        touched.extend(self.touched(key));
        touched.iter().for_each(|partition| self.name(partition));
    }

    fn put_id(&mut self, name: &Arc<str>, node: Option<&Node>) {
        let before = self.topics.get(name).and_then(|topic| topic.record.as_ref()).map(|record| record.value.id);
        if let Some(id) = before
            && let Some(topics) = self.by_id.get_mut(&id)
        {
            topics.retain(|(_, topic)| topic != name);
            if topics.is_empty() {
                self.by_id.remove(&id);
            }
        }
        if let Some(Node { record: Record::Topic(record), created, .. }) = node {
            self.by_id.entry(record.id).or_default().insert((*created, name.clone()));
        }
    }

    /// Partitions whose assignment or state the node holds, as the view has it.
    fn touched(&self, key: &Key) -> Vec<PartitionKey> {
        match key {
            Key::Partition(name, index) => vec![(name.clone(), *index)],
            Key::Topic(name) => {
                let record = self.topics.get(name).and_then(|topic| topic.record.as_ref());
                let assignments = record.map_or(0, |record| record.value.assignments.len());
                (0..).take(assignments).map(|index| (name.clone(), index)).collect()
            }
            _ => Vec::new(),
        }
    }

    fn brokers_named(&self, (name, index): &PartitionKey) -> BTreeSet<BrokerId> {
        let Some(topic) = self.topics.get(name) else { return BTreeSet::new() };
        let assigned = topic.assignment(*index).map(|assignment| &assignment.replicas);
        let state = topic.states.get(index).map(|state| &state.value);
        let members = state.into_iter().flat_map(|s| s.isr.iter().chain(&s.elr).chain(&s.leader).chain(&s.last_leader));
        assigned.into_iter().flatten().chain(members).copied().collect()
    }

    fn unname(&mut self, partition: &PartitionKey) {
        for broker in self.brokers_named(partition) {
            if let Some(named) = self.named.get_mut(&broker) {
                named.remove(partition);
                if named.is_empty() {
                    self.named.remove(&broker);
                }
            }
        }
    }

    fn name(&mut self, partition: &PartitionKey) {
        for broker in self.brokers_named(partition) {
            self.named.entry(broker).or_default().insert(partition.clone());
        }
    }

    /// Adds what the rules look at when this node changes, as the view has it.
    fn mark(&self, key: &Key, dirty: &mut Dirty) {
        let all_of = |name: &Arc<str>| {
            let topic = self.topics.get(name);
            let record = topic.and_then(|topic| topic.record.as_ref());
            let count = record.map_or(0, |record| record.value.assignments.len());
            let states =
                topic.into_iter().filter(|topic| topic.is_damaged()).flat_map(|topic| topic.states.keys().copied());
            (0..).take(count).chain(states).map(|index| (name.clone(), index)).collect::<Vec<_>>()
        };
        match key {
            Key::Broker(broker) | Key::Incarnation(broker) => {
                dirty.partitions.extend(self.partitions_of(*broker).cloned());
            }
            Key::Partition(name, index) => {
                dirty.partitions.insert((name.clone(), *index));
                dirty.topics.insert(name.clone());
            }
            Key::Home(name, _) => drop(dirty.topics.insert(name.clone())),
            Key::Topic(name) | Key::TopicConfig(name) | Key::Deletion(name) => {
                dirty.partitions.extend(all_of(name));
                dirty.topics.insert(name.clone());
            }
            Key::DefaultConfig => self.topics.keys().for_each(|name| dirty.partitions.extend(all_of(name))),
            _ => {}
        }
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
