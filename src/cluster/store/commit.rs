//! A change of the metadata store: all of its writes happen, or none.

use super::records::{Key, Record};

/// A node as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub record: Record,
    /// Number of changes since the node was made, 0 at first.
    pub version: i32,
    /// Number of the store's change that made the node; unique, and rising over the whole store.
    pub created: i64,
}

/// A condition on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// The node exists, at whatever version.
    Exists(Key),
    Absent(Key),
    Version(Key, i32),
}

/// Lifetime of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    Persistent,
    /// Goes with the session that made it.
    Ephemeral,
}

/// A change of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Conflicts with a node that is there, and with a parent that is not ([`Key::parent`]).
    Create(Key, Record, Lifetime),
    /// Conflicts with any other version than this one.
    Set(Key, Record, i32),
    /// Conflicts with any other version than this one; `None`: any will do, but there must be one.
    /// Conflicts also with children.
    Delete(Key, Option<i32>),
}

/// Checks and writes, carried out in one step: the checks first, then the writes,
/// each upon those before it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    pub checks: Vec<Check>,
    pub writes: Vec<Write>,
}

/// The end of a commit as its caller learns it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything was written.
    Done,
    /// Nothing was written: this node is not as the commit says.
    Conflict(Key),
    /// The connection was lost meanwhile: the commit has happened, will happen, or never will. Read
    /// again, compare, decide anew.
    Unknown,
    /// The store cannot carry the commit out: it asks for something that this store does not keep,
    /// or the disk under it has failed or has no room. Why, for the log and for the caller. Other
    /// commits see nothing of it; after a failed sync a later run may.
    Failed(String),
}
