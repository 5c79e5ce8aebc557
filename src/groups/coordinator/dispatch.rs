//! Which group a request is for, and what the coordinator's owner calls.

use std::collections::HashMap;

use crate::groups::api::{GroupId, ListedGroup, Request};
use crate::groups::classic::ClassicGroup;
use crate::groups::consumer::{ConsumerGroup, ConsumerTimer};
use crate::groups::env::{Env, Ticket};
use crate::groups::record::BadRecord;
use crate::groups::timers::Timers;

/// The groups of one partition of `__consumer_offsets`.
#[derive(Debug, Default)]
pub struct Coordinator {
    pub(in crate::groups) groups: HashMap<GroupId, Group>,
    pub(in crate::groups) timers: Timers<Timer>,
}

/// One group, by the protocol it uses now.
#[derive(Debug)]
pub enum Group {
    Classic(ClassicGroup),
    Consumer(Box<ConsumerGroup>),
}

/// What a deadline is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Timer {
    /// Look for offsets that are too old, and for groups that are dead.
    Expiry,
    /// Put a member out of its consumer group.
    Consumer(ConsumerTimer),
}

impl Coordinator {
    /// One record of the log, in order, while the coordinator is being loaded. An error leaves the state as it was.
    pub fn replay(&mut self, _key: &[u8], _value: Option<&[u8]>) -> Result<(), BadRecord> {
        Ok(())
    }

    /// All of the log has been replayed: members' sessions begin now.
    pub fn loaded(&mut self, _env: &mut Env) {}

    /// Takes a request. Its reply comes out of this call or of a later one, exactly once.
    pub fn handle(&mut self, _ticket: Ticket, _request: Request, _env: &mut Env) {}

    /// Every group.
    pub fn list(&self) -> Vec<ListedGroup> {
        Vec::new()
    }

    /// When [`tick`](Self::tick) is due next, by the clock that never goes back.
    pub fn next_deadline(&self) -> Option<u64> {
        self.timers.next()
    }

    /// Does what is due.
    pub fn tick(&mut self, _env: &mut Env) {}

    /// Topics were made, removed or grown. Offsets of those in `removed` go (KIP-848 groups see the rest by `Topics::version`).
    pub fn topics_changed(&mut self, _removed: &[std::sync::Arc<str>], _env: &mut Env) {}
}
