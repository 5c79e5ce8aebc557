//! A client's copy of the store, kept by its events.

use std::collections::{BTreeMap, BTreeSet};

use super::commit::{Lifetime, Node, Write};
use super::engine::{Event, Revision, Session, Snapshot};
use super::records::{Key, Record};
use crate::cluster::quota_requests::Planned;
use crate::cluster::quotas::{ClientQuotas, QuotaEntity};
use crate::config::{DynamicOptions, GroupOptions, OptionsOfGroup};
use crate::model::BrokerId;

/// All nodes as one client knows them.
#[derive(Clone, Debug, Default)]
pub struct Mirror {
    known: Snapshot,
    /// Nothing is missing up to the known revision; what comes next follows it.
    whole: bool,
}

impl Mirror {
    /// Takes an event over. Returns the nodes that are not as before.
    ///
    /// Changes that arrive between the loss of a connection and the next load are passed over:
    /// others before them may be lost, and a picture without those has never been.
    pub fn take(&mut self, event: &Event) -> BTreeSet<Key> {
        match event {
            Event::Session(Session::Connected | Session::Suspended | Session::Expired) => {
                self.whole = false;
                BTreeSet::new()
            }
            Event::Loaded(snapshot) => {
                let changed = difference(&self.known.nodes, &snapshot.nodes);
                self.known = snapshot.clone();
                self.whole = true;
                changed
            }
            Event::Changed(changes) if self.whole => {
                debug_assert!(changes.revision > self.known.revision, "revisions rise");
                self.known.revision = changes.revision;
                for (key, node) in &changes.nodes {
                    match node {
                        Some(node) => drop(self.known.nodes.insert(key.clone(), node.clone())),
                        None => drop(self.known.nodes.remove(key)),
                    }
                }
                changes.nodes.iter().map(|(key, _)| key.clone()).collect()
            }
            Event::Changed(_) | Event::Settled { .. } => BTreeSet::new(),
        }
    }

    pub fn nodes(&self) -> &BTreeMap<Key, Node> {
        &self.known.nodes
    }

    pub fn node(&self, key: &Key) -> Option<&Node> {
        self.known.nodes.get(key)
    }

    /// The write that makes a lasting node hold `record`; `None`: it does.
    pub fn write(&self, key: Key, record: Record) -> Option<Write> {
        match self.node(&key) {
            None => Some(Write::Create(key, record, Lifetime::Persistent)),
            Some(node) if node.record == record => None,
            Some(node) => Some(Write::Set(key, record, node.version)),
        }
    }

    /// Options that are set while brokers run, as `broker` follows them.
    pub fn dynamic_options(&self, broker: BrokerId) -> DynamicOptions {
        let options = |key| match self.node(&key).map(|node| &node.record) {
            Some(Record::Config(options)) => options.clone(),
            _ => BTreeMap::new(),
        };
        DynamicOptions { cluster: options(Key::DefaultConfig), broker: options(Key::BrokerConfig(broker)) }
    }

    /// Options of an entity with quotas, empty where there are none.
    pub fn quota_options(&self, entity: &QuotaEntity) -> BTreeMap<String, String> {
        match self.node(&Key::Quota(entity.clone())).map(|node| &node.record) {
            Some(Record::Config(options)) => options.clone(),
            _ => BTreeMap::new(),
        }
    }

    /// The writes of an AlterClientQuotas request.
    pub fn quota_writes(&self, planned: &Planned) -> Vec<Write> {
        let write = |(entity, options): (&QuotaEntity, &BTreeMap<String, String>)| {
            self.write(Key::Quota(entity.clone()), Record::Config(options.clone()))
        };
        planned.writes.iter().filter_map(write).collect()
    }

    pub fn quotas(&self) -> ClientQuotas {
        let stored = self.nodes().range(Key::Quota(QuotaEntity::FIRST)..).map_while(|(key, node)| {
            let (Key::Quota(entity), Record::Config(options)) = (key, &node.record) else { return None };
            Some((entity, options))
        });
        ClientQuotas::new(stored)
    }

    pub fn groups(&self) -> GroupOptions {
        let stored = self.nodes().range(Key::Group("".into())..).map_while(|(key, node)| {
            let (Key::Group(group), Record::Config(options)) = (key, &node.record) else { return None };
            Some((group.to_string(), options.clone()))
        });
        GroupOptions::new(stored.filter(|(_, options)| !options.is_empty()).collect())
    }

    /// The write that leaves a group with these options; `None`: it has them.
    pub fn group_write(&self, group: &str, options: OptionsOfGroup) -> Option<Write> {
        let key = Key::Group(group.into());
        match self.node(&key) {
            Some(node) if options.is_empty() => Some(Write::Delete(key, Some(node.version))),
            None if options.is_empty() => None,
            _ => self.write(key, Record::Config(options)),
        }
    }

    /// Everything up to here is known.
    pub fn revision(&self) -> Revision {
        self.known.revision
    }

    /// False from the loss of a connection to the end of the next load: the
    /// nodes stay as they were.
    pub fn is_whole(&self) -> bool {
        self.whole
    }
}

fn difference(before: &BTreeMap<Key, Node>, after: &BTreeMap<Key, Node>) -> BTreeSet<Key> {
    let gone = before.keys().filter(|key| !after.contains_key(key));
    let other = after.iter().filter(|(key, node)| before.get(key) != Some(node)).map(|(key, _)| key);
    gone.chain(other).cloned().collect()
}
