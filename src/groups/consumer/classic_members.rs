//! Requests of the classic protocol that meet a consumer group.

use crate::groups::api::*;
use crate::groups::coordinator::Coordinator;
use crate::groups::env::{Env, Ticket};
use crate::model::ErrorCode;

impl Coordinator {
    pub(in crate::groups) fn classic_join_in_consumer_group(&mut self, ticket: Ticket, _: JoinRequest, env: &mut Env) {
        env.reply(ticket, JoinReply::refused(ErrorCode::InconsistentGroupProtocol, ""));
    }

    pub(in crate::groups) fn classic_sync_in_consumer_group(&mut self, ticket: Ticket, _: SyncRequest, env: &mut Env) {
        env.reply(ticket, SyncReply::refused(ErrorCode::UnknownMemberId));
    }

    pub(in crate::groups) fn classic_heartbeat_in_consumer_group(
        &mut self,
        ticket: Ticket,
        _: HeartbeatRequest,
        env: &mut Env,
    ) {
        env.reply(ticket, HeartbeatReply { error: ErrorCode::UnknownMemberId });
    }

    pub(in crate::groups) fn classic_leave_in_consumer_group(
        &mut self,
        ticket: Ticket,
        _: LeaveRequest,
        env: &mut Env,
    ) {
        env.reply(ticket, LeaveReply { error: ErrorCode::UnknownMemberId, members: Vec::new() });
    }
}
