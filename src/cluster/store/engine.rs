//! One client's way to the metadata store, the same for all engines.
//!
//! The calls never wait. A load or a commit is begun, and its end is an [`Event`] like
//! a change that somebody else made: one stream tells a client everything, in the
//! order in which it learns it.
//! - The simulator drives all clients from one thread and decides between two polls what arrives.
//! - An engine over files does its work in [`Store::poll`], which then blocks; it is polled off the
//!   event loop. Commits that were begun before the poll are carried out together and share syncs.
//! - An engine over a network runs on a thread of its own, behind two queues; the thread rings a
//!   bell of the broker's when there is something to poll.
//!
//! Futures would bind the rules above to an executor and hide in which order things were learned.
//!
//! A client follows three rules:
//! 1. Every [`Session::Connected`] is followed by a [`Store::load`]: changes may
//!    have been lost before it.
//! 2. An image is taken from the events only between [`Event::Loaded`] and the next
//!    [`Session::Suspended`] (see [`Mirror`](super::Mirror)).
//! 3. After [`Outcome::Unknown`] nothing is known of a commit, also after the next load: it
//!    may take effect later. What it was based on has a version, and that has to move
//!    before it is ruled out.
//!
//! A registration is a commit that creates an ephemeral node; it needs no call of its own.

use std::collections::BTreeMap;

use super::commit::{Commit, Node, Outcome};
use super::records::Key;

/// Number of a change of the store. Each is larger than those before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub i64);

/// Number of a commit among those of its client, from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitId(pub u64);

/// State of a client's session, as far as the client knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Session {
    Connected,
    /// No server is in reach, or none yet. The session may live on, and its
    /// ephemeral nodes with it.
    Suspended,
    /// A server says that the session has ended; its ephemeral nodes are gone.
    Expired,
}

/// All nodes as of one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    pub revision: Revision,
    pub nodes: BTreeMap<Key, Node>,
}

/// Nodes that have changed since the revision that the client knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// With these changes, the client knows everything up to here.
    pub revision: Revision,
    /// `None`: the node is gone. No key twice; a node that was replaced has another
    /// [`created`](Node::created).
    pub nodes: Vec<(Key, Option<Node>)>,
}

/// News for one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    Session(Session),
    /// The end of a load. Changes after its revision follow.
    Loaded(Snapshot),
    /// One or more revisions together; the revisions rise.
    Changed(Changes),
    /// The end of a commit. Before or after the changes that it made.
    Settled {
        id: CommitId,
        outcome: Outcome,
        /// Revision whose nodes show the outcome: what was written, or what it conflicts with.
        /// `None` where that is not known.
        revision: Option<Revision>,
    },
}

/// A client of the metadata store.
pub trait Store {
    /// State of the session as of the last event polled.
    fn session(&self) -> Session;

    /// Begins to read everything; ends with [`Event::Loaded`], or without an event when the
    /// connection is lost meanwhile.
    fn load(&mut self);

    /// Begins a commit. Exactly one [`Event::Settled`] with this number follows; where there is no
    /// connection, at once.
    fn commit(&mut self, commit: Commit) -> CommitId;

    /// The next event; `None`: nothing new.
    fn poll(&mut self) -> Option<Event>;

    /// Begins a new session after [`Session::Expired`]; [`Session::Connected`] follows.
    /// Otherwise without effect.
    fn renew(&mut self);

    /// Ends the session now, so that its ephemeral nodes need not wait for it to expire. Commits
    /// that were begun before are carried out first. [`Session::Expired`] follows.
    fn close(&mut self);
}
