//! The store as the broker's own changes go through it: topics in, commits against the versions
//! that were seen, topics out. Blocks as its engine does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::image::TopicImage;
use super::quota_requests::{self, AlterQuotas, Planned};
use super::quotas::ClientQuotas;
use super::store::{Commit, CommitId, Event, Key, Lifetime, Mirror, Outcome, Record, Revision, Session, Store, Write};
use super::topic_nodes::{nodes_of, topic_of};
use crate::config::{GroupOptions, OptionsOfGroup, TopicConfig};

/// Change of one topic.
#[derive(Clone, Debug)]
pub enum Edit {
    /// The topic as it is to be, new or not.
    Put(Arc<TopicImage>),
    Remove(Arc<str>),
}

/// Topics as edits have left them.
#[derive(Debug, Default)]
pub struct Edited {
    /// One for each edit: why it was not carried out.
    pub outcomes: Vec<Result<(), String>>,
    /// Topics that were changed; `None`: it is gone. By name.
    pub topics: BTreeMap<Arc<str>, Option<Arc<TopicImage>>>,
    /// Revision that shows them.
    pub revision: Revision,
}

/// Outcomes of a request for client quotas, and the quotas with the revision that shows
/// them where they are others.
pub type Limited = (Planned, Option<(ClientQuotas, Revision)>);

/// A client of the store, and its copy of the store.
#[derive(Debug)]
pub struct Keeper<S> {
    store: S,
    mirror: Mirror,
    defaults: TopicConfig,
    outcomes: BTreeMap<CommitId, Outcome>,
    changed: BTreeSet<Arc<str>>,
}

impl<S: Store> Keeper<S> {
    /// Reads everything.
    pub fn new(store: S, defaults: TopicConfig) -> Keeper<S> {
        let mut keeper =
            Keeper { store, mirror: Mirror::default(), defaults, outcomes: BTreeMap::new(), changed: BTreeSet::new() };
        keeper.take_events();
        keeper.changed.clear();
        keeper
    }

    fn take_events(&mut self) {
        while let Some(event) = self.store.poll() {
            let names = self.mirror.take(&event).into_iter().filter_map(|key| key.topic().cloned());
            self.changed.extend(names);
            match event {
                Event::Session(Session::Connected) => self.store.load(),
                Event::Session(Session::Expired) => self.store.renew(),
                Event::Settled { id, outcome, .. } => drop(self.outcomes.insert(id, outcome)),
                Event::Session(Session::Suspended) | Event::Loaded(_) | Event::Changed(_) => {}
            }
        }
    }

    /// Carries out the edits, each by a commit of its own; no two of one topic.
    pub fn edit(&mut self, edits: &[Edit]) -> Edited {
        let commits: Vec<Vec<CommitId>> = edits.iter().map(|edit| self.begin(edit)).collect();
        self.take_events();
        let outcomes = commits.into_iter().map(|ids| ids.into_iter().try_for_each(|id| self.outcome(id))).collect();
        self.outcomes.clear();
        let mut topics = BTreeMap::new();
        for name in std::mem::take(&mut self.changed) {
            match topic_of(&name, |key| self.mirror.node(key), &self.defaults) {
                Ok(topic) => drop(topics.insert(name, topic.map(Arc::new))),
                Err(why) => tracing::error!("the metadata shows topic {name} as it was before: {why}"),
            }
        }
        Edited { outcomes, topics, revision: self.mirror.revision() }
    }

    /// Stores options that are set while brokers run; all topics follow `defaults` from then on.
    /// Returns the revision that shows them.
    pub fn configure(&mut self, key: Key, options: Record, defaults: TopicConfig) -> Result<Revision, String> {
        if let Some(write) = self.mirror.write(key, options) {
            let id = self.store.commit(Commit { checks: Vec::new(), writes: vec![write] });
            self.take_events();
            self.outcome(id)?;
        }
        self.defaults = defaults;
        Ok(self.mirror.revision())
    }

    /// Alters client quotas, in one commit; none, if that fails.
    pub fn limit(&mut self, requests: &[AlterQuotas], validate_only: bool) -> Result<Limited, String> {
        let mirror = &self.mirror;
        let planned = quota_requests::plan(requests, &mirror.quotas(), |entity| mirror.quota_options(entity));
        if validate_only || planned.writes.is_empty() {
            return Ok((planned, None));
        }
        let id = self.store.commit(Commit { checks: Vec::new(), writes: mirror.quota_writes(&planned) });
        self.take_events();
        self.outcome(id)?;
        Ok((planned, Some((self.mirror.quotas(), self.mirror.revision()))))
    }

    /// Stores the options of a group. Returns those of all groups, with the
    /// revision that shows them.
    pub fn group(&mut self, group: &str, options: OptionsOfGroup) -> Result<(GroupOptions, Revision), String> {
        if let Some(write) = self.mirror.group_write(group, options) {
            let id = self.store.commit(Commit { checks: Vec::new(), writes: vec![write] });
            self.take_events();
            self.outcome(id)?;
        }
        Ok((self.mirror.groups(), self.mirror.revision()))
    }

    /// A commit that is to be one with those before it of its edit.
    fn begin(&mut self, edit: &Edit) -> Vec<CommitId> {
        let commit = |writes| Commit { checks: Vec::new(), writes };
        match edit {
            Edit::Remove(name) => vec![self.store.commit(commit(self.removal(name)))],
            Edit::Put(topic) => {
                let known = self.mirror.node(&Key::Topic(topic.name.clone()));
                let other = known.is_some_and(|node| match &node.record {
                    Record::Topic(known) => known.id != topic.id,
                    _ => false,
                });
                if !other {
                    return vec![self.store.commit(commit(self.change(topic)))];
                }
                // Another topic of this name, whose removal has failed before.
                let creation = nodes_of(topic).into_iter().map(|(key, record)| create(key, record)).collect();
                vec![self.store.commit(commit(self.removal(&topic.name))), self.store.commit(commit(creation))]
            }
        }
    }

    fn outcome(&mut self, id: CommitId) -> Result<(), String> {
        match self.outcomes.remove(&id) {
            Some(Outcome::Done) => Ok(()),
            Some(Outcome::Failed(why)) => Err(why),
            Some(Outcome::Conflict(key)) => Err(format!("{key:?} was changed meanwhile; try again")),
            Some(Outcome::Unknown) | None => {
                Err("the connection to the metadata store was lost: it may have happened, or may yet".to_owned())
            }
        }
    }

    /// Keys of a topic's nodes, children first.
    fn known(&self, name: &Arc<str>) -> Vec<Key> {
        let key = Key::Topic(name.clone());
        let children = key.children().into_iter().flatten();
        let mut keys: Vec<Key> =
            children.flat_map(|range| self.mirror.nodes().range(range)).map(|(key, _)| key.clone()).collect();
        keys.extend([Key::TopicConfig(name.clone()), key].into_iter().filter(|key| self.mirror.node(key).is_some()));
        keys
    }

    fn removal(&self, name: &Arc<str>) -> Vec<Write> {
        self.known(name).into_iter().map(|key| self.delete(key)).collect()
    }

    fn delete(&self, key: Key) -> Write {
        let version = self.mirror.node(&key).map(|node| node.version);
        Write::Delete(key, version)
    }

    /// The writes that make the topic's nodes what they are to be.
    fn change(&self, topic: &TopicImage) -> Vec<Write> {
        let nodes = nodes_of(topic);
        let kept: BTreeSet<&Key> = nodes.iter().map(|(key, _)| key).collect();
        let gone: Vec<Key> = self.known(&topic.name).into_iter().filter(|key| !kept.contains(key)).collect();
        let mut writes: Vec<Write> =
            nodes.into_iter().filter_map(|(key, record)| self.mirror.write(key, record)).collect();
        writes.extend(gone.into_iter().map(|key| self.delete(key)));
        writes
    }
}

fn create(key: Key, record: Record) -> Write {
    Write::Create(key, record, Lifetime::Persistent)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use uuid::Uuid;

    use super::*;
    use crate::cluster::controller::{
        AlterTopic, ConfigOp, CreateTopic, GrowTopic, alter_topic, create_topic, grow_topic,
    };
    use crate::cluster::image::MetadataImage;
    use crate::cluster::metadata_store::LocalStore;
    use crate::cluster::store::LocalEngine;
    use crate::config::ServerConfig;

    fn keeper(dir: &Path) -> (Keeper<LocalEngine>, MetadataImage) {
        let store = LocalStore::open(dir).unwrap();
        let (image, defaults) = (store.load(&ServerConfig::default()).unwrap().image, TopicConfig::default());
        (Keeper::new(LocalEngine::new(store, &image, defaults.clone(), 1), defaults), image)
    }

    fn topic(image: &MetadataImage, name: &str, id: u128) -> Arc<TopicImage> {
        let configs = vec![("retention.ms".into(), Some("77".into()))];
        let request =
            CreateTopic { name: name.into(), num_partitions: 2, replication_factor: 1, configs, ..Default::default() };
        Arc::new(create_topic(image, &ServerConfig::default(), &request, Uuid::from_u128(id)).unwrap())
    }

    fn same(a: &TopicImage, b: &TopicImage) -> bool {
        (a.id, &a.name, &a.partitions, &a.overrides) == (b.id, &b.name, &b.partitions, &b.overrides)
            && a.config.retention_ms == b.config.retention_ms
    }

    #[test]
    fn topics_come_out_as_they_were_put_in() {
        let dir = tempfile::tempdir().unwrap();
        let (mut keeper, mut image) = keeper(dir.path());
        let config = ServerConfig::default();
        let (a, b) = (topic(&image, "a", 1), topic(&image, "b", 2));
        let bad = Arc::new(TopicImage { name: "../c".into(), id: Uuid::from_u128(3), ..TopicImage::clone(&b) });
        let edits = [Edit::Put(a.clone()), Edit::Put(bad), Edit::Put(b.clone()), Edit::Remove("absent".into())];
        let edited = keeper.edit(&edits);
        let failed: Vec<bool> = edited.outcomes.iter().map(Result::is_err).collect();
        assert_eq!(failed, [false, true, false, false], "{:?}", edited.outcomes);
        let shown: Vec<&Arc<TopicImage>> = edited.topics.values().flatten().collect();
        assert!(shown.len() == 2 && same(shown[0], &a) && same(shown[1], &b));
        shown.into_iter().for_each(|topic| image.put_topic(topic.clone()));
        let request = GrowTopic { name: "a".into(), count: 5, assignments: None };
        let grown = Arc::new(grow_topic(&image, &config, &request).unwrap());
        let set = vec![("retention.ms".into(), ConfigOp::Delete)];
        let altered = Arc::new(
            alter_topic(&image, &config, &AlterTopic { name: "b".into(), set, ..Default::default() }).unwrap(),
        );
        let edited = keeper.edit(&[Edit::Put(grown.clone()), Edit::Put(altered.clone())]);
        assert!(edited.outcomes.iter().all(Result::is_ok));
        assert!(same(edited.topics["a"].as_ref().unwrap(), &grown));
        assert!(same(edited.topics["b"].as_ref().unwrap(), &altered));
        // Back to what it was, and gone.
        let edited = keeper.edit(&[Edit::Put(a.clone()), Edit::Remove("b".into())]);
        assert!(edited.outcomes.iter().all(Result::is_ok));
        assert!(same(edited.topics["a"].as_ref().unwrap(), &a) && edited.topics["b"].is_none());
        assert!(keeper.edit(&[Edit::Put(a.clone())]).topics.is_empty(), "nothing changes");
        let stored = LocalStore::open(dir.path()).unwrap().load(&config).unwrap().image;
        assert!(stored.topics().count() == 1 && same(stored.topic("a").unwrap(), &a));
        // A topic whose removal had failed makes room for another of its name.
        let mut others = stored;
        others.remove_topic("a");
        let anew = topic(&others, "a", 9);
        let edited = keeper.edit(&[Edit::Put(anew.clone())]);
        assert_eq!(edited.outcomes, [Ok(())]);
        assert!(same(edited.topics["a"].as_ref().unwrap(), &anew));
    }
}
