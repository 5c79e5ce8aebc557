//! The difference of two images, and what it asks of one broker. Pure.
//!
//! The maker of the next image knows which topics it changes, and says so: nothing here walks over
//! topics that stay as they are.

use std::sync::Arc;

use super::image::{BrokerImage, MetadataImage, PartitionImage, TopicImage};
use super::quotas::ClientQuotas;
use super::store::Revision;
use crate::config::{GroupOptions, ServerConfig};
use crate::model::{BrokerId, LeaderEpoch, PartitionId};

/// One topic as it was and as it is to be. `None`: it is not there.
#[derive(Clone, Debug)]
pub struct TopicChange {
    pub before: Option<Arc<TopicImage>>,
    pub after: Option<Arc<TopicImage>>,
}

/// The next image, and how it differs from the one before it.
#[derive(Clone, Debug)]
pub struct ImageUpdate {
    pub image: Arc<MetadataImage>,
    /// In name order; no name twice.
    pub topics: Vec<TopicChange>,
    /// Brokers that have come, gone, or registered anew, and those in another phase.
    pub brokers: Vec<BrokerId>,
}

/// Step of a broker for one of its partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The broker has become a replica; the role follows.
    Open,
    /// The broker leads in this epoch.
    Lead(LeaderEpoch),
    /// Another broker leads in this epoch, or none does.
    Follow(Option<BrokerId>, LeaderEpoch),
    /// The topic's options are others, by its own or by the broker's.
    Configure,
    /// The broker is no replica any more.
    Close(Closing),
}

/// Why a replica is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closing {
    /// Its topic is deleted.
    Deleted,
    /// The topic has no such partition, or not here.
    Elsewhere,
}

impl ImageUpdate {
    /// `before` with these topics put in and those taken out, as of `version`; names of `removed`
    /// that are in `put` too are put.
    pub fn new(
        before: &MetadataImage,
        put: Vec<Arc<TopicImage>>,
        removed: &[Arc<str>],
        version: Revision,
    ) -> ImageUpdate {
        let mut image = before.clone();
        image.version = version;
        removed.iter().for_each(|name| drop(image.remove_topic(name)));
        let mut names: Vec<Arc<str>> =
            put.iter().map(|topic| topic.name.clone()).chain(removed.iter().cloned()).collect();
        for topic in put {
            // Under another id before, it would be found by that still.
            image.remove_topic(&topic.name);
            image.put_topic(topic);
        }
        names.sort();
        names.dedup();
        ImageUpdate::between(before, Arc::new(image), &names)
    }

    /// `before` with these settings, as of `version`.
    pub fn configured(before: &MetadataImage, settings: Arc<ServerConfig>, version: Revision) -> ImageUpdate {
        let mut image = before.clone();
        image.version = version;
        let names = image.configure(settings);
        ImageUpdate::between(before, Arc::new(image), &names)
    }

    /// `before` with these quotas, as of `version`.
    pub fn limited(before: &MetadataImage, quotas: Arc<ClientQuotas>, version: Revision) -> ImageUpdate {
        let mut image = before.clone();
        (image.quotas, image.version) = (quotas, version);
        ImageUpdate::between(before, Arc::new(image), &[])
    }

    /// `before` with these options of groups, as of `version`.
    pub fn grouped(before: &MetadataImage, groups: Arc<GroupOptions>, version: Revision) -> ImageUpdate {
        let mut image = before.clone();
        (image.groups, image.version) = (groups, version);
        ImageUpdate::between(before, Arc::new(image), &[])
    }

    /// The update from one image to another that differs from it in `names` at most.
    pub fn between(before: &MetadataImage, image: Arc<MetadataImage>, names: &[Arc<str>]) -> ImageUpdate {
        let change = |name: &Arc<str>| {
            let change = TopicChange { before: before.topic(name).cloned(), after: image.topic(name).cloned() };
            (!change.is_none()).then_some(change)
        };
        let topics = names.iter().filter_map(change).collect();
        let brokers = changed_brokers(before, &image);
        ImageUpdate { image, topics, brokers }
    }

    /// Broker `this` has to open a partition.
    pub fn opens(&self, this: BrokerId) -> bool {
        self.topics.iter().any(|change| change.steps(this).iter().any(|(_, step)| *step == Step::Open))
    }
}

/// Brokers whose part in the cluster is not the same in both images.
fn changed_brokers(before: &MetadataImage, after: &MetadataImage) -> Vec<BrokerId> {
    let part = |broker: &BrokerImage| (broker.id, broker.epoch, broker.phase, broker.incarnation);
    let other = |broker: &&BrokerImage, image: &MetadataImage| !image.brokers.iter().any(|b| part(b) == part(broker));
    let gone = before.brokers.iter().filter(|broker| other(broker, after));
    let new = after.brokers.iter().filter(|broker| other(broker, before));
    let mut ids: Vec<BrokerId> = gone.chain(new).map(|broker| broker.id).collect();
    ids.sort();
    ids.dedup();
    ids
}

/// Names of topics that are not the same in both images. Walks over all of them, comparing
/// pointers: for an image whose maker does not tell.
pub fn changed_names(before: &MetadataImage, after: &MetadataImage) -> Vec<Arc<str>> {
    let same = |topic: &Arc<TopicImage>, other: Option<&Arc<TopicImage>>| other.is_some_and(|o| Arc::ptr_eq(topic, o));
    let gone = before.topics().filter(|topic| after.topic(&topic.name).is_none());
    let other = after.topics().filter(|topic| !same(topic, before.topic(&topic.name)));
    let mut names: Vec<Arc<str>> = gone.chain(other).map(|topic| topic.name.clone()).collect();
    names.sort();
    names
}

impl TopicChange {
    fn is_none(&self) -> bool {
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => Arc::ptr_eq(before, after),
            (before, after) => before.is_none() && after.is_none(),
        }
    }

    /// The topic is gone, or another has its name.
    pub fn is_deletion(&self) -> bool {
        let (before, after) = (self.before.as_ref(), self.after.as_ref());
        before.is_some_and(|before| after.is_none_or(|after| after.id != before.id))
    }

    /// Replicas of broker `this` that may have another role, or lead by other terms, than before.
    pub fn partitions(&self, this: BrokerId) -> impl Iterator<Item = PartitionId> {
        let before = |after: &TopicImage| {
            let same = |before: &&Arc<TopicImage>| before.id == after.id && !is_configured(before, after);
            self.before.as_ref().filter(same)
        };
        self.after.iter().flat_map(move |after| {
            let before = before(after);
            let then = move |id: PartitionId| before?.partitions.get(usize::try_from(id.index.0).ok()?);
            own(after, this).filter(move |(id, now)| then(*id) != Some(*now)).map(|(id, _)| id)
        })
    }

    /// Steps of broker `this`, by partition; those of one partition in the order
    /// in which they are taken.
    pub fn steps(&self, this: BrokerId) -> Vec<(PartitionId, Step)> {
        let mut steps = Vec::new();
        if self.is_deletion() {
            let gone = self.before.iter().flat_map(|topic| own(topic, this));
            steps.extend(gone.map(|(id, _)| (id, Step::Close(Closing::Deleted))));
        }
        let Some(after) = &self.after else { return steps };
        let before = self.before.as_ref().filter(|before| before.id == after.id);
        let then = |id: PartitionId| {
            let partition = before?.partitions.get(usize::try_from(id.index.0).ok()?)?;
            partition.replicas.contains(&this).then_some(partition)
        };
        let configured = before.is_some_and(|before| is_configured(before, after));
        for (id, now) in own(after, this) {
            let then = then(id);
            if then.is_none() {
                steps.push((id, Step::Open));
            } else if configured {
                steps.push((id, Step::Configure));
            }
            if then.is_none_or(|then| (then.leader, then.leader_epoch) != (now.leader, now.leader_epoch)) {
                steps.push((id, role(now, this)));
            }
        }
        let is_here = |id: PartitionId| {
            let partition = usize::try_from(id.index.0).ok().and_then(|index| after.partitions.get(index));
            partition.is_some_and(|partition| partition.replicas.contains(&this))
        };
        let elsewhere = before.into_iter().flat_map(|before| own(before, this)).filter(|(id, _)| !is_here(*id));
        steps.extend(elsewhere.map(|(id, _)| (id, Step::Close(Closing::Elsewhere))));
        steps
    }
}

/// Its options are others, by its own or by the broker's.
fn is_configured(before: &TopicImage, after: &TopicImage) -> bool {
    before.overrides != after.overrides || before.config != after.config
}

fn role(partition: &PartitionImage, this: BrokerId) -> Step {
    match partition.leader {
        Some(leader) if leader == this => Step::Lead(partition.leader_epoch),
        leader => Step::Follow(leader, partition.leader_epoch),
    }
}

/// Partitions of which `this` is a replica.
fn own(topic: &TopicImage, this: BrokerId) -> impl Iterator<Item = (PartitionId, &PartitionImage)> {
    let own = topic.partitions.iter().zip(0..).filter(move |(partition, _)| partition.replicas.contains(&this));
    own.map(|(partition, index)| (PartitionId::new(topic.id, index), partition))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use uuid::Uuid;

    use super::*;
    use crate::cluster::store::conformance::Die;
    use crate::config::TopicConfig;

    const THIS: BrokerId = BrokerId(1);

    /// A partition with its leader (0: none), epoch and replicas.
    fn partition((leader, epoch): (i32, i32), replicas: &[i32]) -> PartitionImage {
        let replicas: Vec<BrokerId> = replicas.iter().copied().map(BrokerId).collect();
        PartitionImage {
            leader: (leader != 0).then_some(BrokerId(leader)),
            leader_epoch: LeaderEpoch(epoch),
            isr: replicas.clone(),
            replicas,
            ..PartitionImage::default()
        }
    }

    fn topic(name: &str, id: u128, partitions: Vec<PartitionImage>) -> Arc<TopicImage> {
        Arc::new(TopicImage {
            name: name.into(),
            id: Uuid::from_u128(id),
            partitions,
            overrides: BTreeMap::new(),
            config: Arc::new(TopicConfig::default()),
        })
    }

    #[test]
    fn settings_reach_the_topics_that_do_not_override_them() {
        let mut before = MetadataImage::default();
        let plain = topic("plain", 1, vec![partition((1, 0), &[1])]);
        let own = with_option(&topic("own", 2, vec![partition((1, 0), &[1])]), "5");
        let config = TopicConfig::default().with_known(&own.overrides);
        before.put_topic(plain);
        before.put_topic(TopicImage { config: config.into(), ..TopicImage::clone(&own) });
        let mut settings = ServerConfig::default();
        settings.topic_defaults.retention_ms = Some(77);
        let update = ImageUpdate::configured(&before, Arc::new(settings), Revision(9));
        let names: Vec<_> = update.topics.iter().map(|change| change.after.as_ref().unwrap().name.clone()).collect();
        assert_eq!(names, ["plain".into()]);
        assert_eq!(update.topics[0].steps(THIS), [(PartitionId::new(Uuid::from_u128(1), 0), Step::Configure)]);
        let retention = |name: &str| update.image.topic(name).unwrap().config.retention_ms;
        assert_eq!((retention("plain"), retention("own")), (Some(77), Some(5)));
        assert_eq!(update.image.version, Revision(9));
    }

    fn with_option(topic: &TopicImage, value: &str) -> Arc<TopicImage> {
        let overrides = BTreeMap::from([("retention.ms".to_owned(), value.to_owned())]);
        Arc::new(TopicImage { overrides, ..topic.clone() })
    }

    fn steps(before: Option<&Arc<TopicImage>>, after: Option<&Arc<TopicImage>>) -> Vec<(i32, Step)> {
        let change = TopicChange { before: before.cloned(), after: after.cloned() };
        change.steps(THIS).into_iter().map(|(id, step)| (id.index.0, step)).collect()
    }

    /// With thousands of partitions in a topic an update costs what has changed.
    #[test]
    fn roles_are_handed_out_where_something_has_changed() {
        let both = || vec![partition((1, 0), &[1, 2]), partition((2, 3), &[2, 1]), partition((2, 0), &[2, 3])];
        let before = topic("a", 1, both());
        let changed = |before: Option<&Arc<TopicImage>>, after: &Arc<TopicImage>| -> Vec<i32> {
            let change = TopicChange { before: before.cloned(), after: Some(after.clone()) };
            change.partitions(THIS).map(|id| id.index.0).collect()
        };
        assert_eq!(changed(None, &before), [0, 1]);
        let mut partitions = both();
        partitions[1].isr.pop();
        partitions[2].isr.pop();
        assert_eq!(changed(Some(&before), &topic("a", 1, partitions)), [1]);
        assert!(changed(Some(&before), &topic("a", 1, both())).is_empty());
        assert_eq!(changed(Some(&before), &with_option(&before, "5")), [0, 1], "by other terms");
        assert_eq!(changed(Some(&before), &topic("a", 2, both())), [0, 1], "another topic");
    }

    #[test]
    fn a_new_topic_is_opened_and_its_roles_are_taken() {
        let made =
            topic("a", 1, vec![partition((1, 0), &[1, 2]), partition((2, 3), &[2, 1]), partition((2, 0), &[2, 3])]);
        let wanted = vec![
            (0, Step::Open),
            (0, Step::Lead(LeaderEpoch(0))),
            (1, Step::Open),
            (1, Step::Follow(Some(BrokerId(2)), LeaderEpoch(3))),
        ];
        assert_eq!(steps(None, Some(&made)), wanted);
        let close = |index| (index, Step::Close(Closing::Deleted));
        assert_eq!(steps(Some(&made), None), [close(0), close(1)]);
        assert_eq!(steps(Some(&made), Some(&made)), []);
    }

    #[test]
    fn a_topic_made_anew_is_another() {
        let (old, new) = (topic("a", 1, vec![partition((1, 4), &[1])]), topic("a", 2, vec![partition((1, 0), &[1])]));
        let change = TopicChange { before: Some(old.clone()), after: Some(new.clone()) };
        assert!(change.is_deletion());
        let wanted = vec![
            (PartitionId::new(old.id, 0), Step::Close(Closing::Deleted)),
            (PartitionId::new(new.id, 0), Step::Open),
            (PartitionId::new(new.id, 0), Step::Lead(LeaderEpoch(0))),
        ];
        assert_eq!(change.steps(THIS), wanted);
    }

    #[test]
    fn growth_opens_only_what_is_new_and_its_undoing_closes_that() {
        let small = topic("a", 1, vec![partition((1, 4), &[1])]);
        let large = topic("a", 1, vec![partition((1, 4), &[1]), partition((1, 0), &[1])]);
        assert_eq!(steps(Some(&small), Some(&large)), [(1, Step::Open), (1, Step::Lead(LeaderEpoch(0)))]);
        assert_eq!(steps(Some(&large), Some(&small)), [(1, Step::Close(Closing::Elsewhere))]);
    }

    #[test]
    fn replicas_come_and_go() {
        let with = topic("a", 1, vec![partition((2, 5), &[2, 1])]);
        let without = topic("a", 1, vec![partition((2, 5), &[2, 3])]);
        assert_eq!(steps(Some(&with), Some(&without)), [(0, Step::Close(Closing::Elsewhere))]);
        let wanted = [(0, Step::Open), (0, Step::Follow(Some(BrokerId(2)), LeaderEpoch(5)))];
        assert_eq!(steps(Some(&without), Some(&with)), wanted);
        // Its ISR alone asks nothing of a replica's files.
        let mut shrunk = partition((2, 5), &[2, 1]);
        shrunk.isr.pop();
        assert_eq!(steps(Some(&with), Some(&topic("a", 1, vec![shrunk]))), []);
    }

    #[test]
    fn leaders_change_and_options_with_them() {
        let of = |leader, epoch| topic("a", 1, vec![partition((leader, epoch), &[1, 2])]);
        assert_eq!(steps(Some(&of(2, 1)), Some(&of(1, 2))), [(0, Step::Lead(LeaderEpoch(2)))]);
        assert_eq!(steps(Some(&of(1, 2)), Some(&of(1, 3))), [(0, Step::Lead(LeaderEpoch(3)))]);
        assert_eq!(steps(Some(&of(1, 2)), Some(&of(0, 3))), [(0, Step::Follow(None, LeaderEpoch(3)))]);
        let (plain, changed) = (of(1, 2), with_option(&of(1, 2), "5"));
        assert_eq!(steps(Some(&plain), Some(&changed)), [(0, Step::Configure)]);
        let both = with_option(&of(2, 3), "5");
        let wanted = [(0, Step::Configure), (0, Step::Follow(Some(BrokerId(2)), LeaderEpoch(3)))];
        assert_eq!(steps(Some(&plain), Some(&both)), wanted);
    }

    #[test]
    fn an_update_shows_what_it_names_and_nothing_else() {
        let mut before = MetadataImage::default();
        for (name, id) in [("a", 1), ("b", 2), ("c", 3)] {
            before.put_topic(topic(name, id, vec![partition((1, 0), &[1])]));
        }
        let (anew, grown) =
            (topic("a", 9, vec![partition((1, 0), &[1])]), topic("d", 4, vec![partition((1, 0), &[1])]));
        let update = ImageUpdate::new(&before, vec![grown, anew], &["c".into(), "absent".into()], Revision(5));
        let names: Vec<&str> = update.image.topics().map(|topic| &*topic.name).collect();
        assert_eq!((names, update.image.version), (vec!["a", "b", "d"], Revision(5)));
        assert!(update.image.topic_by_id(Uuid::from_u128(1)).is_none(), "not found by its old id");
        assert!(update.image.topic_by_id(Uuid::from_u128(9)).is_some());
        let changed: Vec<Option<&str>> =
            update.topics.iter().map(|change| Some(&*change.before.as_ref().or(change.after.as_ref())?.name)).collect();
        assert_eq!(changed, [Some("a"), Some("c"), Some("d")]);
        assert_eq!(changed_names(&before, &update.image), ["a".into(), "c".into(), "d".into()] as [Arc<str>; 3]);
        assert!(update.opens(THIS));
        let gone = ImageUpdate::new(&before, vec![], &["a".into()], Revision(6));
        assert!(!gone.opens(THIS) && gone.topics.len() == 1);
        let altered = ImageUpdate::new(&before, vec![with_option(before.topic("b").unwrap(), "5")], &[], Revision(6));
        assert!(!altered.opens(THIS));
    }

    /// Steps, carried out on what a broker has, lead from one image to the next.
    #[test]
    fn steps_lead_from_one_image_to_the_next() {
        let mut random = Die(3);
        let any_topic = |random: &mut Die| {
            let count = random.below(4);
            let any = |random: &mut Die| {
                let replicas: Vec<i32> = (1..4).filter(|_| random.below(2) == 0).collect();
                partition((random.below(4) as i32, random.below(3) as i32), &replicas)
            };
            let partitions = (0..=count).map(|_| any(random)).collect();
            let made = topic("a", 1 + random.below(2) as u128, partitions);
            if random.below(2) == 0 { made } else { with_option(&made, &random.below(2).to_string()) }
        };
        // Of each replica: its leader, epoch and option.
        type Held = BTreeMap<PartitionId, (Option<BrokerId>, LeaderEpoch, Option<String>)>;
        let option = |topic: &TopicImage| topic.overrides.get("retention.ms").cloned();
        let held = |topic: Option<&Arc<TopicImage>>| -> Held {
            let all = topic.into_iter().flat_map(|topic| own(topic, THIS).map(move |(id, p)| (id, p, option(topic))));
            all.map(|(id, p, option)| (id, (p.leader, p.leader_epoch, option))).collect()
        };
        for _ in 0..5000 {
            let ends = [(); 2].map(|()| (random.below(5) > 0).then(|| any_topic(&mut random)));
            let [before, after] = &ends;
            let (mut state, change) =
                (held(before.as_ref()), TopicChange { before: before.clone(), after: after.clone() });
            let now = after.as_ref().and_then(|topic| option(topic));
            let mut opened = BTreeSet::new();
            for (id, step) in change.steps(THIS) {
                let known = state.contains_key(&id);
                match step {
                    Step::Open => {
                        assert!(!known && opened.insert(id));
                        state.insert(id, (None, LeaderEpoch(-1), now.clone()));
                    }
                    Step::Close(_) => assert!(state.remove(&id).is_some() && !opened.contains(&id)),
                    Step::Lead(epoch) => {
                        state.entry(id).and_modify(|held| (held.0, held.1) = (Some(THIS), epoch));
                    }
                    Step::Follow(leader, epoch) => {
                        assert_ne!(leader, Some(THIS));
                        state.entry(id).and_modify(|held| (held.0, held.1) = (leader, epoch));
                    }
                    Step::Configure => {
                        state.entry(id).and_modify(|held| held.2 = now.clone());
                    }
                }
            }
            assert_eq!(state, held(after.as_ref()), "{before:?} -> {after:?}");
        }
    }
}
