//! Images of the metadata as a node knows it. Pure.
//!
//! While the broker takes no part its images do not show it as leader: it leads nothing. It follows
//! the leaders that it knows, for that needs no session; but a process that was never registered
//! follows nobody. Nor do they take a replica away then: before the own registration is shown, the
//! metadata may be older than what an earlier life saw.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Node;
use crate::cluster::homes::Homes;
use crate::cluster::image::{BrokerImage, MetadataImage, PartitionHome, TopicImage};
use crate::cluster::image_diff::ImageUpdate;
use crate::cluster::placement::Placement;
use crate::cluster::rules::View;
use crate::cluster::store::{Key, Mirror, Phase, Store};
use crate::cluster::topic_nodes::{shared_topic_of, with_states};
use crate::config::ServerConfig;
use crate::model::{BrokerId, PartitionId};

/// Part of a topic that may be other than in the last image.
enum Changed {
    All,
    /// The states of these partitions. With thousands of them in a topic an
    /// image costs what has changed.
    States(BTreeSet<i32>),
}

/// Makes one image after the other.
pub struct Images {
    me: BrokerId,
    /// The settings that the broker was started with.
    started: Arc<ServerConfig>,
    homes: Homes,
    /// Topics that may not be as the last image shows them.
    names: BTreeMap<Arc<str>, Changed>,
    /// Topics that are not shown because what the store has of them is damaged, or another topic's.
    withheld: BTreeSet<Arc<str>>,
    brokers: bool,
    /// Options that are set while brokers run may be others.
    options: bool,
    /// Client quotas may be others.
    quotas: bool,
    /// Options of groups may be others.
    groups: bool,
}

/// The image of a start, without homes: `me` takes no part yet.
pub fn first_image(
    mirror: &Mirror,
    view: &View,
    me: BrokerId,
    cluster_id: &str,
    started: &ServerConfig,
) -> MetadataImage {
    let mut image = MetadataImage::default();
    image.cluster_id = cluster_id.to_owned();
    image.version = mirror.revision();
    image.this = Some(me);
    (image.brokers, image.controller) = brokers(view, me);
    image.settings = settings(mirror, me, started);
    image.quotas = Arc::new(mirror.quotas());
    image.groups = Arc::new(mirror.groups());
    let defaults = &image.settings.as_deref().unwrap_or(started).topic_defaults.clone();
    for name in view.topics().keys() {
        if let Some(why) = view.withheld(name) {
            image.withhold(name, why);
        } else if let Some(mut topic) = shared_topic_of(name, |key| mirror.node(key), defaults) {
            silence(&mut topic, me, false);
            image.put_topic(topic);
        }
    }
    image
}

impl Images {
    /// Images that follow `first`, which names the homes that were found.
    /// `unclaimed`: homes of replicas whose topics are not in it, and may come.
    pub fn new(
        me: BrokerId,
        started: Arc<ServerConfig>,
        first: &MetadataImage,
        unclaimed: &[(PartitionId, PartitionHome)],
    ) -> Images {
        let withheld = first.all_withheld().keys().map(|name| name.as_str().into()).collect();
        let mut homes = Homes::of(first);
        unclaimed.iter().for_each(|(partition, home)| homes.insert(*partition, *home));
        let (brokers, options, quotas, groups) = (false, false, false, false);
        Images { me, started, homes, names: BTreeMap::new(), withheld, brokers, options, quotas, groups }
    }

    /// A replica has been moved to another data directory.
    pub fn move_home(&mut self, partition: PartitionId, home: PartitionHome) {
        self.homes.change(partition, home);
    }

    /// Notes nodes that are not as before.
    pub fn note(&mut self, changed: &BTreeSet<Key>) {
        for key in changed {
            match key {
                Key::Broker(_) | Key::Incarnation(_) | Key::Controller => self.brokers = true,
                Key::DefaultConfig => self.options = true,
                Key::Quota(_) => self.quotas = true,
                Key::Group(_) => self.groups = true,
                Key::BrokerConfig(broker) => self.options |= *broker == self.me,
                Key::Partition(name, index) => {
                    let states = || Changed::States(BTreeSet::new());
                    if let Changed::States(states) = self.names.entry(name.clone()).or_insert_with(states) {
                        states.insert(*index);
                    }
                }
                Key::Deletion(name) => self.note_all([name.clone()]),
                // It may have kept others from being shown.
                Key::Topic(name) => self.note_all(self.withheld.iter().chain([name]).cloned().collect::<Vec<_>>()),
                key => self.note_all(key.topic().cloned()),
            }
        }
    }

    /// Notes that the broker takes part from here on, or no longer.
    pub fn note_part<S: Store>(&mut self, before: &MetadataImage, node: &Node<S>) {
        self.brokers = true;
        let own = |topic: &&Arc<TopicImage>| topic.partitions.iter().any(|p| p.replicas.contains(&self.me));
        let held: Vec<_> = before.topics().filter(own).map(|topic| topic.name.clone()).collect();
        self.note_all(held);
        self.note_all(node.view().partitions_of(self.me).map(|(name, _)| name.clone()));
    }

    fn note_all(&mut self, names: impl IntoIterator<Item = Arc<str>>) {
        self.names.extend(names.into_iter().map(|name| (name, Changed::All)));
    }

    /// The next update from `before`, the last image, to what the node knows
    /// now. `None`: it is the same.
    ///
    /// A topic that was deleted and made anew is taken out by one update and put in by the
    /// next: both have the same directories, and those of the first have to be put away before
    /// those of the second are made.
    pub fn next<S: Store>(
        &mut self,
        before: &MetadataImage,
        node: &Node<S>,
        placement: &Placement,
    ) -> Option<ImageUpdate> {
        let mut image = before.clone();
        image.version = node.mirror().revision();
        let mut is_other = false;
        if std::mem::take(&mut self.brokers) {
            let known = brokers(node.view(), self.me);
            // Where nobody is registered, the last ones are shown on: clients that are told of
            // topics, but of no broker, may never come back.
            if !known.0.is_empty() {
                (image.brokers, image.controller) = known;
            }
            image.follower_epoch = node.follower_epoch();
            is_other = (&image.brokers, image.controller) != (&before.brokers, before.controller);
            is_other |= image.follower_epoch != before.follower_epoch;
        }
        let mut names = Vec::new();
        if std::mem::take(&mut self.options) {
            let settings = settings(node.mirror(), self.me, &self.started).unwrap_or_else(|| self.started.clone());
            names = image.configure(settings);
            is_other = true;
        }
        if std::mem::take(&mut self.quotas) {
            image.quotas = Arc::new(node.mirror().quotas());
            is_other |= image.quotas != before.quotas;
        }
        if std::mem::take(&mut self.groups) {
            image.groups = Arc::new(node.mirror().groups());
            is_other |= image.groups != before.groups;
        }
        for (name, changed) in std::mem::take(&mut self.names) {
            if self.put(&name, &changed, before, &mut image, node, placement) {
                names.push(name);
            }
        }
        names.sort();
        names.dedup();
        is_other |= image.all_withheld() != before.all_withheld();
        (is_other || !names.is_empty()).then(|| ImageUpdate::between(before, Arc::new(image), &names))
    }

    /// Brings a topic of the image up to date; `false`: it was.
    fn put<S: Store>(
        &mut self,
        name: &Arc<str>,
        changed: &Changed,
        before: &MetadataImage,
        image: &mut MetadataImage,
        node: &Node<S>,
        placement: &Placement,
    ) -> bool {
        let old = before.topic(name);
        if let Some(why) = node.view().withheld(name) {
            self.withheld.insert(name.clone());
            // One that was known before stays as it was.
            if old.is_none() {
                image.withhold(name, why);
            }
            return false;
        }
        if self.withheld.remove(name) {
            image.release(name);
        }
        if let (Some(old), Changed::States(states), true) = (old, changed, node.is_active())
            && let Some(new) = with_states(old, states, |key| node.mirror().node(key))
        {
            let is_other = new.partitions != old.partitions;
            if is_other {
                image.put_topic(new);
            }
            return is_other;
        }
        let defaults = &image.settings.as_ref().unwrap_or(&self.started).topic_defaults;
        let mut new = shared_topic_of(name, |key| node.mirror().node(key), defaults);
        if !node.is_active() {
            if old.is_some_and(|old| takes_away(old, new.as_ref(), self.me)) {
                // Until the broker takes part again.
                self.note_all([name.clone()]);
                new = old.map(|old| TopicImage::clone(old));
            }
            new.iter_mut().for_each(|topic| silence(topic, self.me, node.follower_epoch().is_some()));
        }
        if let (Some(old), Some(anew)) = (old, &new)
            && old.id != anew.id
        {
            self.note_all([name.clone()]);
            new = None;
        }
        if let Some(anew) = &new
            && before.topic_by_id(anew.id).is_some_and(|other| other.name != *name)
        {
            // Its id is still that of a topic that goes.
            self.note_all([name.clone()]);
            new = None;
        }
        let settings = image.settings.as_ref().unwrap_or(&self.started);
        self.homes.settle(self.me, placement, settings, old.map(|old| &**old), new.as_mut());
        match (old, new) {
            (None, None) => return false,
            (Some(old), Some(new)) if is_same(old, &new) => return false,
            (_, None) => drop(image.remove_topic(name)),
            (_, Some(new)) => {
                image.put_topic(new);
            }
        }
        true
    }
}

/// The settings of `me` with the options that were set while brokers run; `None`: there are none.
fn settings(mirror: &Mirror, me: BrokerId, started: &ServerConfig) -> Option<Arc<ServerConfig>> {
    let dynamic = mirror.dynamic_options(me);
    (!dynamic.is_empty()).then(|| started.following(dynamic))
}

/// Everybody that is registered, and one that stands for the controller, if possible an active one:
/// any of them does what a controller is asked for, once it takes part. Clients that are told of
/// brokers but of no controller may never ask again.
fn brokers(view: &View, me: BrokerId) -> (Vec<BrokerImage>, Option<BrokerId>) {
    let brokers: Vec<BrokerImage> = view
        .registrations()
        .iter()
        .map(|(id, registration)| {
            let incarnation = view.incarnation(*id);
            BrokerImage {
                id: *id,
                endpoints: registration.record.endpoints.clone(),
                rack: registration.record.rack.clone(),
                epoch: registration.broker_epoch,
                phase: incarnation.map_or(Phase::Joining, |incarnation| incarnation.value.phase),
                incarnation: incarnation.map_or(-1, |incarnation| incarnation.version),
                cordoned: registration.record.cordoned,
                offline: registration.record.offline.clone(),
            }
        })
        .collect();
    let holder = view.controller().map(|controller| controller.value).filter(|holder| view.is_active(*holder));
    let first =
        |wanted: &dyn Fn(&BrokerImage) -> bool| brokers.iter().find(|broker| wanted(broker)).map(|broker| broker.id);
    let active = || first(&|broker| broker.phase == Phase::Active);
    let controller = holder.or_else(active).or_else(|| first(&|broker| broker.id == me)).or_else(|| first(&|_| true));
    (brokers, controller)
}

/// Partitions with a replica here have no leader, unless it is another one and is `followed`.
fn silence(topic: &mut TopicImage, me: BrokerId, followed: bool) {
    for partition in topic.partitions.iter_mut().filter(|partition| partition.replicas.contains(&me)) {
        partition.leader = partition.leader.filter(|leader| followed && *leader != me);
    }
}

/// A replica of `me` that the old topic has is not in the new one.
fn takes_away(old: &TopicImage, new: Option<&TopicImage>, me: BrokerId) -> bool {
    let new = new.filter(|new| new.id == old.id);
    let mut own = old.partitions.iter().enumerate().filter(|(_, partition)| partition.replicas.contains(&me));
    own.any(|(index, _)| !new.and_then(|new| new.partitions.get(index)).is_some_and(|now| now.replicas.contains(&me)))
}

fn is_same(old: &TopicImage, new: &TopicImage) -> bool {
    (old.id, &old.partitions, &old.overrides) == (new.id, &new.partitions, &new.overrides)
}
