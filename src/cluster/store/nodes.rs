//! The nodes of a store, and commits on them. Pure; engines add where they are
//! kept and who learns of it.

use std::collections::BTreeMap;

use super::commit::{Check, Commit, Lifetime, Node, Write};
use super::engine::Revision;
use super::records::{Key, Record};

/// Number of a session among all of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// A node as a commit leaves it, and the session it goes with; `None`: it is gone.
pub type Changed = (Key, Option<(Node, Option<SessionId>)>);

/// All nodes at one revision.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    nodes: BTreeMap<Key, Node>,
    /// Sessions of the ephemeral nodes.
    owners: BTreeMap<Key, SessionId>,
}

/// A refused commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// This node is not as the commit says.
    Conflict(Key),
    /// The commit writes a record into a node of another kind.
    Kind(Key),
}

/// Nodes with the writes of a commit so far.
struct Overlay<'a> {
    below: &'a Nodes,
    written: BTreeMap<Key, Option<(Node, Option<SessionId>)>>,
}

impl Overlay<'_> {
    fn node(&self, key: &Key) -> Option<&Node> {
        match self.written.get(key) {
            Some(written) => written.as_ref().map(|(node, _)| node),
            None => self.below.nodes.get(key),
        }
    }

    fn owner(&self, key: &Key) -> Option<SessionId> {
        match self.written.get(key) {
            Some(written) => written.as_ref().and_then(|(_, owner)| *owner),
            None => self.below.owners.get(key).copied(),
        }
    }

    fn has_children(&self, key: &Key) -> bool {
        let Some(kinds) = key.children() else { return false };
        kinds.into_iter().any(|range| {
            let below = self.below.nodes.range(range.clone()).map(|(key, _)| key);
            below.chain(self.written.range(range).map(|(key, _)| key)).any(|key| self.node(key).is_some())
        })
    }

    fn check(&self, check: &Check) -> Result<(), Refused> {
        let (key, holds) = match check {
            Check::Exists(key) => (key, self.node(key).is_some()),
            Check::Absent(key) => (key, self.node(key).is_none()),
            Check::Version(key, version) => (key, self.node(key).is_some_and(|node| node.version == *version)),
        };
        if holds { Ok(()) } else { Err(Refused::Conflict(key.clone())) }
    }

    fn write(&mut self, write: &Write, revision: Revision, session: SessionId) -> Result<(), Refused> {
        match write {
            Write::Create(key, record, lifetime) => {
                fits(key, record)?;
                self.check(&Check::Absent(key.clone()))?;
                if let Some(parent) = key.parent() {
                    self.check(&Check::Exists(parent))?;
                }
                let node = Node { record: record.clone(), version: 0, created: revision.0 };
                let owner = (*lifetime == Lifetime::Ephemeral).then_some(session);
                self.written.insert(key.clone(), Some((node, owner)));
            }
            Write::Set(key, record, version) => {
                fits(key, record)?;
                let node = self.node(key).filter(|node| node.version == *version);
                let created = node.ok_or_else(|| Refused::Conflict(key.clone()))?.created;
                // As in ZooKeeper, where the number comes round.
                let node = Node { record: record.clone(), version: version.wrapping_add(1), created };
                let owner = self.owner(key);
                self.written.insert(key.clone(), Some((node, owner)));
            }
            Write::Delete(key, version) => {
                let node = self.node(key).filter(|node| version.is_none_or(|version| node.version == version));
                if node.is_none() || self.has_children(key) {
                    return Err(Refused::Conflict(key.clone()));
                }
                self.written.insert(key.clone(), None);
            }
        }
        Ok(())
    }
}

fn fits(key: &Key, record: &Record) -> Result<(), Refused> {
    if record.fits(key) { Ok(()) } else { Err(Refused::Kind(key.clone())) }
}

impl Nodes {
    pub fn all(&self) -> &BTreeMap<Key, Node> {
        &self.nodes
    }

    /// Nodes as `commit` of `session` would leave them, as `revision`; nothing is changed. Checks
    /// come first, then the writes in their order, each upon those before it.
    pub fn plan(&self, commit: &Commit, revision: Revision, session: SessionId) -> Result<Vec<Changed>, Refused> {
        let mut overlay = Overlay { below: self, written: BTreeMap::new() };
        commit.checks.iter().try_for_each(|check| overlay.check(check))?;
        commit.writes.iter().try_for_each(|write| overlay.write(write, revision, session))?;
        let below = &self.nodes;
        let unlike = |(key, node): &Changed| node.is_some() || below.contains_key(key);
        Ok(overlay.written.into_iter().filter(unlike).collect())
    }

    /// Carries out a plan that was made of these very nodes.
    pub fn apply(&mut self, changed: &[Changed]) {
        for (key, node) in changed {
            self.owners.remove(key);
            match node {
                Some((node, owner)) => {
                    self.nodes.insert(key.clone(), node.clone());
                    self.owners.extend(owner.map(|owner| (key.clone(), owner)));
                }
                None => drop(self.nodes.remove(key)),
            }
        }
    }

    /// The plan of a session's end: its nodes go.
    pub fn plan_end(&self, session: SessionId) -> Vec<Changed> {
        self.owners.iter().filter(|(_, owner)| **owner == session).map(|(key, _)| (key.clone(), None)).collect()
    }
}
