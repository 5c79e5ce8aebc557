//! Requests of the classic protocol, whatever kind of group they meet.

use super::dispatch::{Coordinator, Group};
use crate::coordinator::Ticket;
use crate::groups::api::{
    GroupId, HeartbeatReply, HeartbeatRequest, JoinReply, JoinRequest, LeaveReply, LeaveRequest, LeftMember, SyncReply,
    SyncRequest,
};
use crate::groups::classic::{ClassicGroup, Turn};
use crate::groups::env::Env;
use crate::model::ErrorCode;

impl Coordinator {
    pub(super) fn join(&mut self, ticket: Ticket, mut request: JoinRequest, env: &mut Env) {
        // In a record, -1 would mean that there is none.
        request.rebalance_timeout_ms = request.rebalance_timeout_ms.max(0);
        let sessions = env.config.min_session_timeout_ms..=env.config.max_session_timeout_ms;
        if request.group.is_empty() {
            return env.reply(ticket, JoinReply::refused(ErrorCode::InvalidGroupId, &request.member_id));
        }
        if !sessions.contains(&request.session_timeout_ms) {
            return env.reply(ticket, JoinReply::refused(ErrorCode::InvalidSessionTimeout, &request.member_id));
        }
        let before = match self.groups.get_mut(&request.group) {
            Some(Group::Classic(group)) => {
                return group.join(ticket, request, &mut Turn { timers: &mut self.timers, env });
            }
            Some(Group::Consumer(group)) if !group.is_empty() => {
                return self.classic_join_in_consumer_group(ticket, request, env);
            }
            Some(Group::Consumer(group)) => group.tombstones(),
            None => Vec::new(),
        };
        // A member of a group that is no more, or of another kind.
        if !request.member_id.is_empty() {
            return env.reply(ticket, JoinReply::refused(ErrorCode::UnknownMemberId, &request.member_id));
        }
        let mut group = Box::new(ClassicGroup::new(request.group.clone(), env.wall_ms));
        if let Some((error, member_id)) = group.refusal(&request, env) {
            return env.reply(ticket, JoinReply::refused(error, &member_id));
        }
        env.out.records.extend(before);
        env.append(group.record());
        let id = request.group.clone();
        group.join(ticket, request, &mut Turn { timers: &mut self.timers, env });
        self.groups.insert(id, Group::Classic(group));
    }

    pub(super) fn sync(&mut self, ticket: Ticket, request: SyncRequest, env: &mut Env) {
        let error = match self.groups.get_mut(&request.group) {
            _ if request.group.is_empty() => ErrorCode::InvalidGroupId,
            Some(Group::Classic(group)) if !group.is_empty() => {
                return group.sync(ticket, request, &mut Turn { timers: &mut self.timers, env });
            }
            Some(Group::Consumer(group)) if !group.is_empty() => {
                return self.classic_sync_in_consumer_group(ticket, request, env);
            }
            Some(_) | None => ErrorCode::UnknownMemberId,
        };
        env.reply(ticket, SyncReply::refused(error));
    }

    pub(super) fn heartbeat(&mut self, ticket: Ticket, request: HeartbeatRequest, env: &mut Env) {
        let error = match self.groups.get_mut(&request.group) {
            _ if request.group.is_empty() => ErrorCode::InvalidGroupId,
            Some(Group::Classic(group)) => {
                return group.heartbeat(ticket, request, &mut Turn { timers: &mut self.timers, env });
            }
            Some(Group::Consumer(_)) => return self.classic_heartbeat_in_consumer_group(ticket, request, env),
            None => ErrorCode::UnknownMemberId,
        };
        env.reply(ticket, HeartbeatReply { error });
    }

    pub(super) fn leave(&mut self, ticket: Ticket, request: LeaveRequest, env: &mut Env) {
        let reply = match self.groups.get_mut(&request.group) {
            _ if request.group.is_empty() => LeaveReply { error: ErrorCode::InvalidGroupId, members: Vec::new() },
            Some(Group::Classic(group)) => {
                return group.leave(ticket, request, &mut Turn { timers: &mut self.timers, env });
            }
            Some(Group::Consumer(_)) => return self.classic_leave_in_consumer_group(ticket, request, env),
            None => {
                let members = request.members.into_iter().map(|member| LeftMember {
                    member_id: member.member_id,
                    instance_id: member.instance_id,
                    error: ErrorCode::UnknownMemberId,
                });
                LeaveReply { error: ErrorCode::None, members: members.collect() }
            }
        };
        env.reply(ticket, reply);
    }

    /// Takes a classic group away because it becomes a consumer group: what waits is told to join
    /// again, and its record goes. Its offsets stay.
    pub fn take_classic(&mut self, id: &GroupId, env: &mut Env) -> Option<Box<ClassicGroup>> {
        match self.groups.remove(id)? {
            Group::Classic(mut group) => {
                group.dissolve(ErrorCode::RebalanceInProgress, &mut Turn { timers: &mut self.timers, env });
                env.append(group.tombstone());
                Some(group)
            }
            other => {
                self.groups.insert(id.clone(), other);
                None
            }
        }
    }

    /// Puts a classic group in the place of a consumer group that it was. Sessions begin now.
    pub fn put_classic(&mut self, mut group: Box<ClassicGroup>, rebalance: bool, env: &mut Env) {
        env.append(group.record());
        let mut turn = Turn { timers: &mut self.timers, env };
        group.renew_sessions(&mut turn);
        if rebalance {
            group.prepare_rebalance("it was a consumer group", &mut turn);
        }
        self.groups.insert(group.id().clone(), Group::Classic(group));
    }
}
