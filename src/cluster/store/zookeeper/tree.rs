//! Copy of the store's znodes, kept by reads that events ask for. Pure.
//!
//! A server sends the event of a change before any answer that shows it. So when an answer has
//! been taken over and no event is left whose znode was not read since, the copy is what the
//! server had when it answered.

use std::collections::{BTreeMap, BTreeSet};

use crate::cluster::quotas::QuotaEntity;
use crate::cluster::store::commit::Node;
use crate::cluster::store::engine::{Changes, Revision, Snapshot};
use crate::cluster::store::records::{Key, Record};
use crate::cluster::store::znodes::{self, CONTAINERS, Place, SINGLE_NODES, ZnodeError, place};

/// A znode as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Znode {
    pub bytes: Vec<u8>,
    pub version: i32,
    /// Number of the change that made it, that changed it last, and that changed its children last.
    pub created: i64,
    pub modified: i64,
    pub children_modified: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    Data,
    Children,
}

/// One read of a znode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    pub path: String,
    pub what: What,
}

#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// By path, and the reading of everything in which it was seen last.
    znodes: BTreeMap<String, (Znode, u64)>,
    nodes: BTreeMap<Key, Node>,
    /// Znodes that cannot be read. Their nodes stay as they were. Those never read stay out, but
    /// for those of topics, which are known to be damaged.
    damaged: BTreeMap<Key, ZnodeError>,
    changed: BTreeSet<Key>,
    dirty: BTreeSet<String>,
    /// Newest change known.
    newest: i64,
    reading: u64,
}

impl Tree {
    /// An event on `path`.
    pub fn note(&mut self, path: &str, gone: bool) {
        if place(path) == Place::Foreign {
            return;
        }
        self.dirty.insert(path.to_owned());
        // The number of the change that took a znode away is kept by those above it.
        let mut above = path;
        while let Some((parent, _)) = above.rsplit_once('/').filter(|_| gone && above != "/") {
            above = if parent.is_empty() { "/" } else { parent };
            self.dirty.insert(above.to_owned());
        }
    }

    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Reads of everything that events were about.
    pub fn take_dirty(&mut self) -> Vec<Read> {
        std::mem::take(&mut self.dirty).into_iter().map(|path| Read { path, what: What::Data }).collect()
    }

    /// Begins to read everything; these come first.
    pub fn begin_reading(&mut self) -> Vec<Read> {
        self.reading += 1;
        self.dirty.clear();
        let data = |path: &str| Read { path: path.to_owned(), what: What::Data };
        let children = |path: &&str| Read { path: (*path).to_owned(), what: What::Children };
        let single = SINGLE_NODES.iter().filter_map(znodes::path).map(|path| data(&path));
        let containers = CONTAINERS.iter();
        let top = std::iter::once(data("/")).chain(single);
        top.chain(containers.clone().map(|path| data(path))).chain(containers.map(children)).collect()
    }

    /// Everything was read: what was not met is not there.
    pub fn end_reading(&mut self) {
        let missed = self.znodes.iter().filter(|(_, (_, seen))| *seen != self.reading).map(|(path, _)| path.clone());
        for path in missed.collect::<Vec<_>>() {
            self.take(&path, None);
        }
    }

    /// Takes over what a read has found. The error of a znode that cannot be read is returned once.
    pub fn take(&mut self, path: &str, found: Option<Znode>) -> Option<ZnodeError> {
        if let Some(znode) = &found {
            self.newest = self.newest.max(znode.created).max(znode.modified).max(znode.children_modified);
        }
        let damage = match place(path) {
            Place::Node(key) => self.decode(key, found.as_ref()),
            Place::Structure | Place::Foreign => None,
        };
        match found {
            Some(znode) => drop(self.znodes.insert(path.to_owned(), (znode, self.reading))),
            None => drop(self.znodes.remove(path)),
        }
        damage
    }

    fn decode(&mut self, key: Key, found: Option<&Znode>) -> Option<ZnodeError> {
        let node = match found.map(|znode| (znode, znodes::decode(&key, &znode.bytes))) {
            None => None,
            Some((znode, Ok(record))) => Some(Node { record, version: znode.version, created: znode.created }),
            Some((znode, Err(error))) => {
                let news = self.damaged.insert(key.clone(), error.clone()).as_ref() != Some(&error);
                let was_sound = self.nodes.get(&key).is_some_and(|node| !matches!(node.record, Record::Damaged(_)));
                if key.topic().is_some() && !was_sound {
                    let record = Record::Damaged(error.to_string());
                    self.put(key, Some(Node { record, version: znode.version, created: znode.created }));
                }
                return news.then_some(error);
            }
        };
        self.damaged.remove(&key);
        self.put(key, node);
        None
    }

    fn put(&mut self, key: Key, node: Option<Node>) {
        if self.nodes.get(&key) != node.as_ref() {
            match node {
                Some(node) => drop(self.nodes.insert(key.clone(), node)),
                None => drop(self.nodes.remove(&key)),
            }
            self.changed.insert(key);
        }
    }

    /// Reads that follow from the children of `path`.
    pub fn below(path: &str, children: &[String]) -> Vec<Read> {
        let mut reads = Vec::new();
        let mut read = |path: String, what| reads.push(Read { path, what });
        for child in children {
            let child = format!("{}/{child}", path.trim_end_matches('/'));
            match place(&child) {
                Place::Node(Key::Topic(_)) => {
                    let partitions = format!("{child}/partitions");
                    read(child, What::Data);
                    read(partitions.clone(), What::Data);
                    read(partitions, What::Children);
                }
                Place::Node(Key::Quota(QuotaEntity::User(_))) => {
                    let clients = format!("{child}/clients");
                    read(child, What::Data);
                    read(clients.clone(), What::Data);
                    read(clients, What::Children);
                }
                Place::Node(_) => read(child, What::Data),
                // Those that stand for themselves were among the first.
                Place::Structure if !CONTAINERS.contains(&child.as_str()) => {
                    read(format!("{child}/state"), What::Data);
                    read(child, What::Data);
                }
                Place::Structure | Place::Foreign => {}
            }
        }
        reads
    }

    pub fn znode(&self, path: &str) -> Option<&Znode> {
        self.znodes.get(path).map(|(znode, _)| znode)
    }

    pub fn revision(&self) -> Revision {
        Revision(self.newest)
    }

    /// The first of the znodes that cannot be read and without which nothing can be served. A
    /// topic's is not one of them.
    pub fn damage(&self) -> Option<&ZnodeError> {
        self.damaged.iter().find(|(key, _)| key.topic().is_none()).map(|(_, error)| error)
    }

    /// The znode at `path` is damaged, and is known by nothing that it held before.
    pub fn is_withheld(&self, path: &str) -> bool {
        matches!(place(path), Place::Node(key) if self.nodes.get(&key).is_some_and(|node| matches!(node.record, Record::Damaged(_))))
    }

    /// The changes since the last ones.
    pub fn changes(&mut self) -> Option<Changes> {
        let changed = std::mem::take(&mut self.changed);
        let nodes: Vec<_> = changed.into_iter().map(|key| (key.clone(), self.nodes.get(&key).cloned())).collect();
        (!nodes.is_empty()).then(|| Changes { revision: self.revision(), nodes })
    }

    /// Everything; the next changes are those from here.
    pub fn snapshot(&mut self) -> Snapshot {
        self.changed.clear();
        Snapshot { revision: self.revision(), nodes: self.nodes.clone() }
    }

    /// The next reads of the audit behind `cursor`.
    pub fn audit(&self, cursor: &str, count: usize) -> Vec<Read> {
        let after = (std::ops::Bound::Excluded(cursor), std::ops::Bound::Unbounded);
        let mut reads = Vec::new();
        for (path, _) in self.znodes.range::<str, _>(after).take(count) {
            reads.push(Read { path: path.clone(), what: What::Data });
            if place(path) == Place::Structure {
                reads.push(Read { path: path.clone(), what: What::Children });
            }
        }
        reads
    }

    /// Znodes that a read of the audit found otherwise than they are here, and
    /// that no event was about.
    pub fn missed(&self, read: &Read, data: Option<&Znode>, children: &[String]) -> Vec<String> {
        let known = |path: &str| self.dirty.contains(path);
        match read.what {
            What::Data => {
                let same = match (self.znode(&read.path), data) {
                    (Some(a), Some(b)) => (a.created, a.modified) == (b.created, b.modified),
                    (a, b) => a.is_none() && b.is_none(),
                };
                if same || known(&read.path) { Vec::new() } else { vec![read.path.clone()] }
            }
            What::Children => {
                let prefix = format!("{}/", read.path);
                let there = children.iter().map(|child| format!("{prefix}{child}"));
                let there: BTreeSet<String> = there.filter(|path| place(path) != Place::Foreign).collect();
                let here = self.znodes.range(prefix.clone()..).map(|(path, _)| path);
                let here = here.take_while(|path| path.starts_with(&prefix));
                let here: BTreeSet<String> = here.filter(|path| !path[prefix.len()..].contains('/')).cloned().collect();
                there.symmetric_difference(&here).filter(|path| !known(path)).cloned().collect()
            }
        }
    }
}
