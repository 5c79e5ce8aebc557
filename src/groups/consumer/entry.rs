//! Where the consumer protocol is entered. Stand-ins that answer as if it were switched off.

use super::ConsumerGroup;
use crate::groups::api::*;
use crate::groups::coordinator::Coordinator;
use crate::groups::env::{Env, Ticket};
use crate::groups::record::{ConsumerRecord, Record};
use crate::model::ErrorCode;

/// A deadline of a consumer group.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ConsumerTimer {}

impl Coordinator {
    pub(in crate::groups) fn consumer_heartbeat(&mut self, ticket: Ticket, _: ConsumerHeartbeatRequest, env: &mut Env) {
        let reply = ConsumerHeartbeatReply {
            error: ErrorCode::UnsupportedVersion,
            message: None,
            member_id: None,
            member_epoch: 0,
            heartbeat_interval_ms: 0,
            assignment: None,
        };
        env.reply(ticket, reply);
    }

    pub(in crate::groups) fn consumer_describe(&mut self, ticket: Ticket, _: ConsumerDescribeRequest, env: &mut Env) {
        let reply = ConsumerDescribeReply {
            error: ErrorCode::UnsupportedVersion,
            message: None,
            state: String::new(),
            group_epoch: 0,
            assignment_epoch: 0,
            assignor: String::new(),
            members: Vec::new(),
        };
        env.reply(ticket, reply);
    }

    pub(in crate::groups) fn consumer_replay(&mut self, _: ConsumerRecord) {}

    pub(in crate::groups) fn consumer_loaded(&mut self, _: &mut Env) {}

    pub(in crate::groups) fn consumer_timer(&mut self, timer: ConsumerTimer, _: &mut Env) {
        match timer {}
    }

    pub(in crate::groups) fn consumer_topics_changed(&mut self, _: &mut Env) {}

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

impl ConsumerGroup {
    pub(in crate::groups) fn state_name(&self) -> &'static str {
        "Empty"
    }

    pub(in crate::groups) fn is_empty(&self) -> bool {
        true
    }

    pub(in crate::groups) fn check_commit(&self, _: &CommitRequest) -> Result<(), ErrorCode> {
        Ok(())
    }

    pub(in crate::groups) fn check_fetch(&self, _: Option<&(String, i32)>) -> Result<(), ErrorCode> {
        Ok(())
    }

    pub(in crate::groups) fn is_subscribed_to(&self, _: &str) -> bool {
        false
    }

    pub(in crate::groups) fn tombstones(&self) -> Vec<Record> {
        Vec::new()
    }
}
