//! A classic group: its members, what they agree on, and the memory that takes.

use std::collections::{BTreeMap, BTreeSet};

use super::Turn;
use super::member::{Member, MemberId, OVERHEAD_BYTES};
use super::subscription::each_topic;
use crate::coordinator::Ticket;
use crate::groups::api::{GroupId, JoinReply, SyncReply};
use crate::groups::coordinator::Timer;
use crate::model::ErrorCode;

/// The protocol type of consumers, whose metadata says what they subscribe to.
pub(in crate::groups) const CONSUMERS: &str = "consumer";

/// Kafka's states of a classic group but Dead: a dead group is not here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Without members. There may be offsets, and members that were given an id to join with.
    Empty,
    /// Waiting for the members to join again.
    PreparingRebalance,
    /// The generation has begun; waiting for the leader to say who gets what.
    CompletingRebalance,
    Stable,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Empty => "Empty",
            State::PreparingRebalance => "PreparingRebalance",
            State::CompletingRebalance => "CompletingRebalance",
            State::Stable => "Stable",
        }
    }
}

/// The wait before the first generation (`group.initial.rebalance.delay.ms`).
#[derive(Clone, Copy, Debug)]
pub(super) struct InitialWait {
    pub delay_ms: i64,
    /// By how much it may still be extended.
    pub remaining_ms: i64,
    /// A member came since it began or was extended last.
    pub grew: bool,
}

/// One classic group.
#[derive(Debug)]
pub struct ClassicGroup {
    pub(super) id: GroupId,
    pub(super) state: State,
    /// Wall clock; -1: not known.
    pub(super) since_ms: i64,
    pub(super) generation: i32,
    /// `None`: never had a member ("simple": only offsets).
    pub(super) protocol_type: Option<String>,
    /// Protocol that the members chose; none while the group is empty.
    pub(super) protocol: Option<String>,
    /// Always a member; `None` if there are none.
    pub(super) leader: Option<MemberId>,
    pub(super) members: BTreeMap<MemberId, Member>,
    /// `group.instance.id` to the member that has it.
    pub(super) statics: BTreeMap<String, MemberId>,
    /// Were given an id and have not joined with it yet (KIP-394). None of them is a member.
    pub(super) pending_joins: BTreeSet<MemberId>,
    /// Members that have not asked for this generation's assignment yet.
    pub(super) pending_syncs: BTreeSet<MemberId>,
    /// How many members have a join waiting.
    pub(super) waiting_joins: usize,
    /// How many members offer each protocol.
    supporters: BTreeMap<String, usize>,
    /// Only while preparing the first generation after the group was empty.
    pub(super) initial: Option<InitialWait>,
    /// Memory charged for all members, and those to come.
    bytes: usize,
}

impl ClassicGroup {
    pub fn new(id: GroupId, wall_ms: i64) -> ClassicGroup {
        ClassicGroup {
            id,
            state: State::Empty,
            since_ms: wall_ms,
            generation: 0,
            protocol_type: None,
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            statics: BTreeMap::new(),
            pending_joins: BTreeSet::new(),
            pending_syncs: BTreeSet::new(),
            waiting_joins: 0,
            supporters: BTreeMap::new(),
            initial: None,
            bytes: 0,
        }
    }

    pub fn id(&self) -> &GroupId {
        &self.id
    }

    pub fn state(&self) -> State {
        self.state
    }

    pub fn generation(&self) -> i32 {
        self.generation
    }

    pub fn protocol_type(&self) -> Option<&str> {
        self.protocol_type.as_deref()
    }

    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    pub fn members(&self) -> &BTreeMap<MemberId, Member> {
        &self.members
    }

    /// In state Empty, as Kafka means it: during the first rebalance it no longer is.
    pub fn is_empty(&self) -> bool {
        self.state == State::Empty
    }

    /// True if it has no members and none were told to come.
    pub(in crate::groups) fn is_forsaken(&self) -> bool {
        self.is_empty() && self.pending_joins.is_empty()
    }

    /// Memory that its members and those to come take.
    pub(in crate::groups) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(in crate::groups) fn has_consumers(&self) -> bool {
        self.protocol_type.as_deref() == Some(CONSUMERS)
    }

    /// When the group became empty; `None`: not known, or it never had a member.
    pub(in crate::groups) fn since_ms(&self) -> Option<i64> {
        Some(self.since_ms).filter(|since_ms| *since_ms != -1)
    }

    pub(super) fn is_leader(&self, member: &str) -> bool {
        self.leader.as_deref() == Some(member)
    }

    pub(super) fn enter(&mut self, state: State, turn: &Turn) {
        self.state = state;
        self.since_ms = turn.env.wall_ms;
    }

    pub(super) fn have_all_joined(&self) -> bool {
        self.waiting_joins == self.members.len() && self.pending_joins.is_empty()
    }

    /// The longest that a member may take to join again.
    pub(super) fn rebalance_timeout_ms(&self) -> i64 {
        i64::from(self.members.values().map(|member| member.rebalance_timeout_ms).max().unwrap_or(0).max(0))
    }

    /// Refuses a request whose member is not the one that it says.
    pub(super) fn check_member(&self, member: &str, instance_id: Option<&str>) -> Result<(), ErrorCode> {
        if let Some(instance_id) = instance_id {
            match self.statics.get(instance_id) {
                None => return Err(ErrorCode::UnknownMemberId),
                Some(current) if **current != *member => return Err(ErrorCode::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member) { Ok(()) } else { Err(ErrorCode::UnknownMemberId) }
    }

    // ---- who is in it

    pub(super) fn add_pending(&mut self, id: MemberId) {
        self.bytes += OVERHEAD_BYTES + id.len();
        self.pending_joins.insert(id);
    }

    pub(super) fn remove_pending(&mut self, id: &str) {
        if self.pending_joins.remove(id) {
            self.bytes -= OVERHEAD_BYTES + id.len();
        }
    }

    /// Takes a member in. Its id and its instance id are new to the group.
    pub(super) fn add(&mut self, id: MemberId, member: Member, protocol_type: &str) {
        self.remove_pending(&id);
        if self.members.is_empty() {
            self.protocol_type = Some(protocol_type.to_owned());
        }
        if let Some(instance_id) = &member.instance_id {
            self.statics.insert(instance_id.clone(), id.clone());
        }
        self.leader.get_or_insert_with(|| id.clone());
        self.count_in(&id, &member);
        self.members.insert(id, member);
    }

    /// Lets a member go. The caller answers what waits.
    fn remove(&mut self, id: &str) -> Option<Member> {
        let member = self.members.remove(id)?;
        self.count_out(id, &member);
        self.pending_syncs.remove(id);
        if let Some(instance_id) = &member.instance_id {
            self.statics.remove(instance_id);
        }
        if self.is_leader(id) {
            self.leader = self.members.keys().next().cloned();
        }
        Some(member)
    }

    /// Lets a member go; what waits of it is answered with `error`.
    pub(super) fn drop_member(&mut self, id: &str, error: ErrorCode, turn: &mut Turn) {
        let Some((id, _)) = self.members.get_key_value(id) else { return };
        let id = id.clone();
        let Some(member) = self.remove(&id) else { return };
        turn.cancel(&Timer::ClassicSession(self.id.clone(), id));
        answer_waiting(&member, error, "", turn);
    }

    pub(super) fn drop_pending(&mut self, id: &str, turn: &mut Turn) {
        if let Some(id) = self.pending_joins.get(id).cloned() {
            self.remove_pending(&id);
            turn.cancel(&Timer::ClassicSession(self.id.clone(), id));
        }
    }

    /// A static member came back: it takes the old one's place under a new id,
    /// and the old one is fenced.
    pub(super) fn replace_static(&mut self, old: &MemberId, new: MemberId, turn: &mut Turn) {
        let was_leader = self.is_leader(old);
        let Some(mut member) = self.remove(old) else { return };
        turn.cancel(&Timer::ClassicSession(self.id.clone(), old.clone()));
        answer_waiting(&member, ErrorCode::FencedInstanceId, old, turn);
        (member.join, member.sync, member.is_new) = (None, None, false);
        if let Some(instance_id) = &member.instance_id {
            self.statics.insert(instance_id.clone(), new.clone());
        }
        if was_leader {
            self.leader = Some(new.clone());
        }
        self.count_in(&new, &member);
        self.members.insert(new, member);
    }

    /// Changes a member; what it costs and supports follows.
    pub(super) fn change<T>(&mut self, id: &str, change: impl FnOnce(&mut Member) -> T) -> Option<T> {
        let (key, mut member) = self.members.remove_entry(id)?;
        self.count_out(&key, &member);
        let result = change(&mut member);
        self.count_in(&key, &member);
        self.members.insert(key, member);
        Some(result)
    }

    /// Cancels all timers and answers all that waits.
    pub(in crate::groups) fn dissolve(&mut self, error: ErrorCode, turn: &mut Turn) {
        turn.cancel(&Timer::ClassicJoin(self.id.clone()));
        turn.cancel(&Timer::ClassicSync(self.id.clone()));
        for id in self.pending_joins.iter().chain(self.members.keys()) {
            turn.timers.cancel(&Timer::ClassicSession(self.id.clone(), id.clone()));
        }
        for (id, member) in &mut self.members {
            answer_waiting(member, error, id, turn);
            (member.join, member.sync) = (None, None);
        }
        self.waiting_joins = 0;
    }

    fn count_in(&mut self, id: &str, member: &Member) {
        self.bytes += member.cost(id);
        self.waiting_joins += usize::from(member.join.is_some());
        for (name, _) in &member.protocols {
            *self.supporters.entry(name.clone()).or_default() += 1;
        }
    }

    fn count_out(&mut self, id: &str, member: &Member) {
        self.bytes -= member.cost(id);
        self.waiting_joins -= usize::from(member.join.is_some());
        for (name, _) in &member.protocols {
            if let Some(count) = self.supporters.get_mut(name) {
                *count -= 1;
                if *count == 0 {
                    self.supporters.remove(name);
                }
            }
        }
    }

    // ---- what they agree on

    /// True if a member with these protocols has one in common with all others.
    pub(super) fn supports(&self, protocol_type: &str, protocols: &[(String, bytes::Bytes)]) -> bool {
        if self.state == State::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        let by_all = |name: &str| self.supporters.get(name).copied().unwrap_or(0) == self.members.len();
        self.protocol_type.as_deref() == Some(protocol_type) && protocols.iter().any(|(name, _)| by_all(name))
    }

    /// The protocol that most members prefer among those that all support; of
    /// equals the first by name.
    pub(super) fn vote(&self) -> Option<String> {
        let by_all = |name: &str| self.supporters.get(name).copied() == Some(self.members.len());
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            if let Some((name, _)) = member.protocols.iter().find(|(name, _)| by_all(name)) {
                *votes.entry(name).or_default() += 1;
            }
        }
        let most = votes.values().copied().max()?;
        votes.into_iter().find(|(_, count)| *count == most).map(|(name, _)| name.to_owned())
    }

    /// Calls `each` with the topics that the members subscribe to, one or more times.
    /// `false`: that is not known.
    pub(in crate::groups) fn each_subscription<'a>(&'a self, mut each: impl FnMut(&'a str)) -> bool {
        if !self.has_consumers() {
            return true;
        }
        let Some(protocol) = &self.protocol else { return self.members.is_empty() };
        self.members.values().all(|member| {
            let metadata = member.protocols.iter().find(|(name, _)| name == protocol);
            metadata.is_some_and(|(_, metadata)| each_topic(metadata, &mut each))
        })
    }
}

/// Answers a member's waiting join and sync, which are then no longer owed an answer.
fn answer_waiting(member: &Member, error: ErrorCode, named: &str, turn: &mut Turn) {
    let waiting: (Option<Ticket>, Option<Ticket>) = (member.join, member.sync);
    if let Some(ticket) = waiting.0 {
        turn.env.reply(ticket, JoinReply::refused(error, named));
    }
    if let Some(ticket) = waiting.1 {
        turn.env.reply(ticket, SyncReply::refused(error));
    }
}
