//! Commits as operations on znodes. Pure.
//!
//! Znodes that only hold others are made and removed with the node they stand for:
//! `partitions` with its topic, `partitions/P` with its partition. A user's znode and
//! `clients` in it are made with the first of the user's client ids. Where Kafka left a topic
//! half made the copy of the tree says so.

use std::collections::BTreeSet;

use super::tree::Tree;
use crate::cluster::admin::LARGEST_TOPIC;
use crate::cluster::quotas::QuotaEntity;
use crate::cluster::store::commit::{Check, Commit, Lifetime, Outcome, Write};
use crate::cluster::store::records::{Key, Record};
use crate::cluster::store::znodes::{self, Writer};

/// Servers take requests of less than a mebibyte (`jute.maxbuffer`).
const LARGEST_BYTES: usize = (1 << 20) - (16 << 10);
const _: () = assert!(LARGEST_TOPIC < LARGEST_BYTES);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// At any version: -1.
    Check(String, i32),
    Create(String, Vec<u8>, Lifetime),
    Set(String, Vec<u8>, i32),
    Delete(String, Option<i32>),
}

/// Operations of one commit, each with the node that it is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan(pub Vec<(Step, Key)>);

/// An operation that the servers have refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    Missing,
    Exists,
    OtherVersion,
    HasChildren,
}

impl Plan {
    /// The outcome when the operation at `index` was refused.
    pub fn conflict(&self, index: usize, refusal: Refusal) -> Outcome {
        match self.0.get(index) {
            Some((Step::Create(path, ..), key)) if refusal == Refusal::Missing => match key.parent() {
                Some(parent) => Outcome::Conflict(parent),
                None => Outcome::Failed(format!("the znode above {path} is missing; start the broker again")),
            },
            Some((_, key)) => Outcome::Conflict(key.clone()),
            None => Outcome::Failed("ZooKeeper has refused an operation that was not asked for".to_owned()),
        }
    }
}

struct Planner<'a> {
    tree: &'a Tree,
    /// The tree is whole; half-made topics in it are none that are just being read.
    settled: bool,
    writer: Writer,
    steps: Vec<(Step, Key)>,
    bytes: usize,
    /// Paths that the commit has made or removed so far.
    touched: BTreeSet<String>,
}

/// The operations of `commit`; or its outcome, where it need not be sent.
pub fn plan(commit: &Commit, tree: &Tree, settled: bool, writer: Writer) -> Result<Plan, Outcome> {
    let mut planner = Planner { tree, settled, writer, steps: Vec::new(), bytes: 0, touched: BTreeSet::new() };
    commit.checks.iter().try_for_each(|check| planner.check(check))?;
    commit.writes.iter().try_for_each(|write| planner.write(write))?;
    if planner.bytes > LARGEST_BYTES {
        let bytes = planner.bytes;
        let why = format!("the commit has {bytes} bytes, and ZooKeeper takes {LARGEST_BYTES} at most (jute.maxbuffer)");
        return Err(Outcome::Failed(why));
    }
    Ok(Plan(planner.steps))
}

impl Planner<'_> {
    fn check(&mut self, check: &Check) -> Result<(), Outcome> {
        match check {
            Check::Exists(key) => self.push(Step::Check(path(key)?, -1), key),
            Check::Version(key, version) => {
                let step = Step::Check(path(key)?, numbered(*version, key)?);
                self.push(step, key);
            }
            // ZooKeeper has no such check: what can be made is not there.
            Check::Absent(key) => {
                let path = match key {
                    Key::Partition(topic, _) if self.znode(&path(&Key::Topic(topic.clone()))?) => {
                        let dir = directory(&path(key)?);
                        if self.znode(&dir) { path(key)? } else { dir }
                    }
                    Key::Partition(topic, _) => path(&Key::Topic(topic.clone()))?,
                    _ => path(key)?,
                };
                self.push(Step::Create(path.clone(), Vec::new(), Lifetime::Persistent), key);
                self.push(Step::Delete(path, None), key);
            }
        }
        Ok(())
    }

    fn write(&mut self, write: &Write) -> Result<(), Outcome> {
        match write {
            Write::Create(key, record, lifetime) => {
                let (path, bytes) = (path(key)?, self.bytes_of(key, record, None)?);
                match key {
                    Key::Topic(_) => {
                        let partitions = format!("{path}/partitions");
                        self.create(path, bytes, *lifetime, key);
                        self.create(partitions, Vec::new(), Lifetime::Persistent, key);
                    }
                    Key::Partition(topic, _) => {
                        let topic = path_of_topic(topic)?;
                        let partitions = format!("{topic}/partitions");
                        if self.settled && self.znode(&topic) && !self.znode(&partitions) {
                            self.create(partitions, Vec::new(), Lifetime::Persistent, key);
                        }
                        let directory = directory(&path);
                        if !(self.settled && self.znode(&directory) && !self.znode(&path)) {
                            self.create(directory, Vec::new(), Lifetime::Persistent, key);
                        }
                        self.create(path, bytes, *lifetime, key);
                    }
                    Key::Quota(QuotaEntity::UserClient(user, _)) => {
                        let user = self::path(&Key::Quota(QuotaEntity::User(user.clone())))?;
                        let clients = format!("{user}/clients");
                        for above in [user, clients].into_iter().filter(|above| !self.znode(above)).collect::<Vec<_>>()
                        {
                            self.create(above, Vec::new(), Lifetime::Persistent, key);
                        }
                        self.create(path, bytes, *lifetime, key);
                    }
                    _ => self.create(path, bytes, *lifetime, key),
                }
            }
            Write::Set(key, record, version) => {
                let path = path(key)?;
                let previous = self.tree.znode(&path).map(|znode| znode.bytes.clone());
                let bytes = self.bytes_of(key, record, previous.as_deref())?;
                self.push(Step::Set(path, bytes, numbered(*version, key)?), key);
            }
            Write::Delete(key, version) => {
                let version = version.map(|version| numbered(version, key)).transpose()?;
                let path = path(key)?;
                match key {
                    Key::Topic(_) => {
                        let partitions = format!("{path}/partitions");
                        if !(self.settled && self.znode(&path) && !self.znode(&partitions)) {
                            self.delete(partitions, None, key);
                        }
                        self.delete(path, version, key);
                    }
                    Key::Partition(..) => {
                        let directory = directory(&path);
                        self.delete(path, version, key);
                        self.delete(directory, None, key);
                    }
                    _ => self.delete(path, version, key),
                }
            }
        }
        Ok(())
    }

    /// The tree has it, or the commit has touched it.
    fn znode(&self, path: &str) -> bool {
        self.touched.contains(path) || self.tree.znode(path).is_some()
    }

    fn bytes_of(&self, key: &Key, record: &Record, previous: Option<&[u8]>) -> Result<Vec<u8>, Outcome> {
        if !record.fits(key) {
            return Err(Outcome::Failed(format!("{key:?} holds records of another kind")));
        }
        znodes::encode(record, self.writer, previous).map_err(|error| Outcome::Failed(error.to_string()))
    }

    fn create(&mut self, path: String, bytes: Vec<u8>, lifetime: Lifetime, key: &Key) {
        self.touched.insert(path.clone());
        self.push(Step::Create(path, bytes, lifetime), key);
    }

    fn delete(&mut self, path: String, version: Option<i32>, key: &Key) {
        self.touched.insert(path.clone());
        self.push(Step::Delete(path, version), key);
    }

    fn push(&mut self, step: Step, key: &Key) {
        // Headers, lengths and the ACL of an operation are less than this.
        self.bytes += 100;
        self.bytes += match &step {
            Step::Check(path, _) | Step::Delete(path, _) => path.len(),
            Step::Create(path, bytes, _) | Step::Set(path, bytes, _) => path.len() + bytes.len(),
        };
        self.steps.push((step, key.clone()));
    }
}

fn path(key: &Key) -> Result<String, Outcome> {
    znodes::path(key).ok_or_else(|| Outcome::Failed(format!("{key:?} cannot be kept in ZooKeeper")))
}

fn path_of_topic(topic: &std::sync::Arc<str>) -> Result<String, Outcome> {
    path(&Key::Topic(topic.clone()))
}

/// The znode around a partition's state.
fn directory(path: &str) -> String {
    path.strip_suffix("/state").unwrap_or(path).to_owned()
}

/// -1 would be any version to ZooKeeper.
fn numbered(version: i32, key: &Key) -> Result<i32, Outcome> {
    if version == -1 { Err(Outcome::Conflict(key.clone())) } else { Ok(version) }
}
