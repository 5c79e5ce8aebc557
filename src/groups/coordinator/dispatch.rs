//! Which group a request is for, and what the coordinator's owner calls.

use std::collections::HashMap;
use std::sync::Arc;

use crate::coordinator::Ticket;
use crate::coordinator::Timers;
use crate::groups::api::{GroupId, ListedGroup, Request};
use crate::groups::classic::{ClassicGroup, MemberId, Turn};
use crate::groups::consumer::{ConsumerGroup, ConsumerTimer};
use crate::groups::env::Env;
use crate::groups::offsets::Offsets;

/// The groups of one partition of `__consumer_offsets`.
#[derive(Debug, Default)]
pub struct Coordinator {
    pub(in crate::groups) groups: HashMap<GroupId, Group>,
    /// A group that has any is in `groups`.
    pub(in crate::groups) offsets: Offsets,
    pub(in crate::groups) timers: Timers<Timer>,
    /// Groups whose offsets are still to be looked at in the present round of expiry.
    pub(in crate::groups) to_expire: Vec<GroupId>,
    /// Memory charged for `groups`.
    pub(in crate::groups) group_bytes: usize,
    /// Topics whose offsets are still to go, the next one last.
    pub(in crate::groups) removed_topics: Vec<Arc<str>>,
}

/// Memory charged per group, besides its members and offsets.
const GROUP_BYTES: usize = 768;

fn bytes_of_id(id: &GroupId) -> usize {
    GROUP_BYTES + id.len()
}

/// One group, by the protocol it uses now.
#[derive(Debug)]
pub enum Group {
    Classic(Box<ClassicGroup>),
    Consumer(Box<ConsumerGroup>),
}

/// Purpose of a deadline.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Timer {
    /// Look for offsets that are too old, and for groups that are dead.
    Expiry,
    /// Go on with the offsets of topics that are no more.
    RemovedTopics,
    /// The time that a classic group's members have to join (again).
    ClassicJoin(GroupId),
    /// The time that a classic group's members have to ask for their assignment.
    ClassicSync(GroupId),
    /// The time that a member may be silent, or may take to join with the id that it was given.
    ClassicSession(GroupId, MemberId),
    /// A member of a consumer group is late.
    Consumer(ConsumerTimer),
}

impl Coordinator {
    /// Takes a request. Its reply comes out of this call or of a later one, exactly once.
    pub fn handle(&mut self, ticket: Ticket, request: Request, env: &mut Env) {
        let group = request.group().clone();
        if env.room.is_tight() {
            self.hurry_expiry(env);
        }
        if !self.groups.contains_key(&group) {
            env.room.left = env.room.left.saturating_sub(env.room.reserve.saturating_add(bytes_of_id(&group)));
        }
        self.counted(&group, |coordinator| coordinator.dispatch(ticket, request, env));
    }

    fn dispatch(&mut self, ticket: Ticket, request: Request, env: &mut Env) {
        match request {
            Request::Join(request) => self.join(ticket, request, env),
            Request::Sync(request) => self.sync(ticket, request, env),
            Request::Heartbeat(request) => self.heartbeat(ticket, request, env),
            Request::Leave(request) => self.leave(ticket, request, env),
            Request::CommitOffsets(request) => self.commit_offsets(ticket, request, env),
            Request::FetchOffsets(request) => {
                let reply = self.fetch_offsets(request);
                env.reply(ticket, reply);
            }
            Request::DeleteOffsets(request) => {
                let reply = self.delete_offsets(request, env);
                env.reply(ticket, reply);
            }
            Request::Describe(request) => {
                let reply = self.describe(&request.group);
                env.reply(ticket, reply);
            }
            Request::Delete(request) => {
                let reply = self.delete(&request.group, env);
                env.reply(ticket, reply);
            }
            Request::ConsumerHeartbeat(request) => self.consumer_heartbeat(ticket, request, env),
            Request::ConsumerDescribe(request) => self.consumer_describe(ticket, request, env),
        }
    }

    /// Every group.
    pub fn list(&self) -> Vec<ListedGroup> {
        self.groups.iter().map(|(id, group)| group.listed(id)).collect()
    }

    /// When [`tick`](Self::tick) is due next, by the clock that never goes back.
    pub fn next_deadline(&self) -> Option<u64> {
        self.timers.next()
    }

    /// Does what is due.
    pub fn tick(&mut self, env: &mut Env) {
        while let Some(timer) = self.timers.pop_due(env.mono_ms) {
            let group = match &timer {
                Timer::Expiry => {
                    self.expire(env);
                    continue;
                }
                Timer::RemovedTopics => {
                    self.drop_offsets_of_removed(env);
                    continue;
                }
                Timer::ClassicJoin(group) | Timer::ClassicSync(group) | Timer::ClassicSession(group, _) => {
                    group.clone()
                }
                Timer::Consumer(timer) => timer.group().clone(),
            };
            self.counted(&group, |coordinator| coordinator.group_timer(timer, env));
        }
    }

    fn group_timer(&mut self, timer: Timer, env: &mut Env) {
        match timer {
            Timer::ClassicJoin(group) => self.with_classic(&group, env, ClassicGroup::join_timed_out),
            Timer::ClassicSync(group) => self.with_classic(&group, env, ClassicGroup::sync_timed_out),
            Timer::ClassicSession(group, member) => {
                self.with_classic(&group, env, |group, turn| group.session_timed_out(&member, turn));
            }
            Timer::Consumer(timer) => self.consumer_timer(timer, env),
            Timer::Expiry | Timer::RemovedTopics => {}
        }
    }

    /// Memory charged for all groups and their offsets.
    pub fn bytes(&self) -> usize {
        self.group_bytes + self.offsets.bytes()
    }

    /// Does something to one group, and charges for what it is then.
    pub(in crate::groups) fn counted<R>(&mut self, id: &GroupId, act: impl FnOnce(&mut Coordinator) -> R) -> R {
        let before = self.bytes_of(id);
        let done = act(self);
        self.group_bytes = self.group_bytes + self.bytes_of(id) - before;
        done
    }

    fn bytes_of(&self, id: &GroupId) -> usize {
        match self.groups.get(id) {
            Some(Group::Classic(group)) => bytes_of_id(id) + group.bytes(),
            Some(Group::Consumer(group)) => bytes_of_id(id) + group.memory_bytes(),
            None => 0,
        }
    }

    #[cfg(test)]
    pub(in crate::groups) fn assert_counted(&self) {
        let groups: usize = self.groups.keys().map(|id| self.bytes_of(id)).sum();
        assert_eq!(self.group_bytes, groups, "what groups take is charged");
    }

    /// Charges for all groups anew.
    pub(super) fn count_groups(&mut self) {
        self.group_bytes = self.groups.keys().map(|id| self.bytes_of(id)).sum();
    }

    /// Topics were made, removed or grown. Offsets of those in `removed` go, many of them in later
    /// ticks; consumer groups see the rest at their next heartbeat, by `Topics::version`.
    pub fn topics_changed(&mut self, removed: &[Arc<str>], env: &mut Env) {
        self.removed_topics.extend_from_slice(removed);
        self.drop_offsets_of_removed(env);
    }

    /// Does something with a group if it is a classic one.
    pub(in crate::groups) fn with_classic(
        &mut self,
        group: &GroupId,
        env: &mut Env,
        act: impl FnOnce(&mut ClassicGroup, &mut Turn),
    ) {
        if let Some(Group::Classic(group)) = self.groups.get_mut(group) {
            act(group, &mut Turn { timers: &mut self.timers, env });
        }
    }
}
