//! A consumer group's entry points, called by the coordinator.

use super::group::ConsumerGroup;
use super::heartbeat;
use super::member::{LEAVES, LEAVES_FOR_A_WHILE, MemberState};
use super::refusal::Refusal;
use super::step::Step;
use super::timer::{ConsumerTimer, What};
use crate::coordinator::Ticket;
use crate::groups::api::{
    ConsumerDescribeReply, ConsumerDescribeRequest, ConsumerHeartbeatReply, ConsumerHeartbeatRequest, GroupId,
};
use crate::groups::coordinator::{Coordinator, Group};
use crate::groups::env::Env;
use crate::groups::record::{ConsumerRecord, MemberId};
use crate::model::ErrorCode;
use crate::observe::client_line;

impl Coordinator {
    pub(in crate::groups) fn consumer_heartbeat(
        &mut self,
        ticket: Ticket,
        request: ConsumerHeartbeatRequest,
        env: &mut Env,
    ) {
        let done = heartbeat::check(&request, env.config).and_then(|()| match request.member_epoch {
            LEAVES | LEAVES_FOR_A_WHILE => self.consumer_leave(&request, env),
            _ => self.consumer_stay(&request, env),
        });
        let reply = done.unwrap_or_else(|refusal| ConsumerHeartbeatReply {
            error: refusal.error,
            message: Some(refusal.message),
            member_id: None,
            member_epoch: 0,
            heartbeat_interval_ms: 0,
            assignment: None,
        });
        env.reply(ticket, reply);
    }

    fn consumer_stay(
        &mut self,
        request: &ConsumerHeartbeatRequest,
        env: &mut Env,
    ) -> Result<ConsumerHeartbeatReply, Refusal> {
        if let Some(Group::Consumer(group)) = self.groups.get_mut(&request.group) {
            return Step { group, timers: &mut self.timers, env }.heartbeat(request);
        }
        if request.member_epoch != 0 {
            return Err(no_such_group(&request.group));
        }
        let (mut group, made_by) = self.upgraded(&request.group, env)?;
        let mark = env.out.records.len();
        let reply = Step { group: &mut group, timers: &mut self.timers, env }.heartbeat(request)?;
        self.upgrade(group, made_by, mark, env);
        Ok(reply)
    }

    fn consumer_leave(
        &mut self,
        request: &ConsumerHeartbeatRequest,
        env: &mut Env,
    ) -> Result<ConsumerHeartbeatReply, Refusal> {
        let mut step = self.consumer_step(&request.group, env).ok_or_else(|| no_such_group(&request.group))?;
        let member = step.leaving(request)?;
        if request.member_epoch == LEAVES_FOR_A_WHILE {
            step.leave_for_a_while(&member);
        } else {
            self.put_out(&request.group, &[member], env);
        }
        Ok(ConsumerHeartbeatReply {
            error: ErrorCode::None,
            message: None,
            member_id: Some(request.member_id.clone()),
            member_epoch: request.member_epoch,
            heartbeat_interval_ms: 0,
            assignment: None,
        })
    }

    /// Work on a group, if it is a consumer group.
    pub(super) fn consumer_step<'a, 'e>(&'a mut self, group: &GroupId, env: &'a mut Env<'e>) -> Option<Step<'a, 'e>> {
        match self.groups.get_mut(group) {
            Some(Group::Consumer(group)) => Some(Step { group, timers: &mut self.timers, env }),
            _ => None,
        }
    }

    /// Members leave, or are put out.
    pub(super) fn put_out(&mut self, group: &GroupId, members: &[MemberId], env: &mut Env) {
        let Some(mut step) = self.consumer_step(group, env).filter(|_| !members.is_empty()) else { return };
        if step.group.downgrades_without(members, step.env.config) {
            self.downgrade(group, members, true, env);
        } else {
            step.fence(members);
        }
    }

    pub(in crate::groups) fn consumer_describe(
        &mut self,
        ticket: Ticket,
        request: ConsumerDescribeRequest,
        env: &mut Env,
    ) {
        let reply = match self.groups.get(&request.group) {
            Some(Group::Consumer(group)) => group.describe(env.config, env.topics),
            _ => {
                let refusal = no_such_group(&request.group);
                ConsumerDescribeReply {
                    error: refusal.error,
                    message: Some(refusal.message),
                    state: String::new(),
                    group_epoch: 0,
                    assignment_epoch: 0,
                    assignor: String::new(),
                    members: Vec::new(),
                }
            }
        };
        env.reply(ticket, reply);
    }

    /// One record of the log.
    pub(in crate::groups) fn consumer_replay(&mut self, record: ConsumerRecord) {
        let id = record.group();
        if let ConsumerRecord::Group { value: None, .. } = record {
            if matches!(self.groups.get(id), Some(Group::Consumer(_))) {
                self.groups.remove(id);
            }
            return;
        }
        if !matches!(self.groups.get(id), Some(Group::Consumer(_))) {
            // Compaction may leave the tombstones of what it removed.
            if record.is_tombstone() {
                return;
            }
            let group = Box::new(ConsumerGroup::new(id.clone()));
            self.groups.insert(id.clone(), Group::Consumer(group));
        }
        if let Some(Group::Consumer(group)) = self.groups.get_mut(id) {
            group.apply(&record);
        }
    }

    /// All of the log has been replayed: sessions begin now.
    pub(in crate::groups) fn consumer_loaded(&mut self, env: &mut Env) {
        for group in self.groups.values_mut() {
            if let Group::Consumer(group) = group {
                Step { group, timers: &mut self.timers, env }.set_timers();
            }
        }
    }

    /// A deadline has passed.
    pub(in crate::groups) fn consumer_timer(&mut self, timer: ConsumerTimer, env: &mut Env) {
        let Some(Group::Consumer(group)) = self.groups.get(&timer.group) else { return };
        let Some(member) = group.members.get(&timer.member) else { return };
        if timer.what == What::Rebalance && member.state() != MemberState::UnrevokedPartitions {
            return;
        }
        client_line!(
            info,
            group = &*timer.group,
            member = &*timer.member,
            late = timer.what.name(),
            "member put out of its group"
        );
        self.put_out(&timer.group, &[timer.member], env);
    }
}

pub(super) fn no_such_group(group: &str) -> Refusal {
    Refusal::new(ErrorCode::GroupIdNotFound, format!("There is no consumer group {group}."))
}
