//! Requests of members that have joined: SyncGroup, Heartbeat, LeaveGroup, OffsetCommit.

use std::collections::HashMap;

use bytes::Bytes;

use super::group::{ClassicGroup, State};
use super::member::MemberId;
use super::turn::Turn;
use crate::coordinator::Ticket;
use crate::groups::api::{
    CommitRequest, HeartbeatReply, HeartbeatRequest, LeaveReply, LeaveRequest, LeavingMember, LeftMember, SyncReply,
    SyncRequest,
};
use crate::groups::coordinator::Timer;
use crate::model::ErrorCode;

impl ClassicGroup {
    // ---- SyncGroup

    pub(in crate::groups) fn sync(&mut self, ticket: Ticket, request: SyncRequest, turn: &mut Turn) {
        if let Err(error) = self.check_sync(&request) {
            return turn.env.reply(ticket, SyncReply::refused(error));
        }
        let id = request.member_id.as_str();
        self.pending_syncs.remove(id);
        if self.pending_syncs.is_empty() {
            turn.cancel(&Timer::ClassicSync(self.id.clone()));
        }
        if self.state == State::Stable {
            let reply = self.synced(id);
            return turn.env.reply(ticket, reply);
        }
        let before = self.change(id, |member| member.sync.replace(ticket)).flatten();
        if let Some(before) = before {
            turn.env.reply(before, SyncReply::refused(ErrorCode::RebalanceInProgress));
        }
        if self.is_leader(id) {
            self.assign(request.assignments, turn);
        }
    }

    fn check_sync(&self, request: &SyncRequest) -> Result<(), ErrorCode> {
        self.check_member(&request.member_id, request.instance_id.as_deref())?;
        if request.generation != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        let differs = |said: &Option<String>, is: &Option<String>| said.is_some() && is.is_some() && said != is;
        if differs(&request.protocol_type, &self.protocol_type) || differs(&request.protocol, &self.protocol) {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        match self.state {
            State::CompletingRebalance | State::Stable => Ok(()),
            State::PreparingRebalance | State::Empty => Err(ErrorCode::RebalanceInProgress),
        }
    }

    /// The leader has spoken. Members that it left out get nothing; what it gave
    /// to others is passed over.
    fn assign(&mut self, assignments: Vec<(String, Bytes)>, turn: &mut Turn) {
        let mut assignments: HashMap<String, Bytes> = assignments.into_iter().collect();
        let before = self.members.values().map(|member| member.assignment.len()).sum::<usize>();
        let after = self.members.keys().filter_map(|id| assignments.get(&**id)).map(Bytes::len).sum::<usize>();
        if self.bytes() - before + after > turn.env.most_group_bytes(self.bytes()) {
            self.interrupt_syncs(ErrorCode::UnknownServerError, turn);
            return self.prepare_rebalance(
                "the assignments are larger than corelane.group.max.bytes or corelane.group.memory.bytes allow",
                turn,
            );
        }
        self.enter(State::Stable, turn);
        let ids: Vec<MemberId> = self.members.keys().cloned().collect();
        let mut waiting = Vec::new();
        for id in ids {
            let assignment = assignments.remove(&*id).unwrap_or_default();
            let ticket = self.change(&id, |member| {
                // A copy: the request's bytes are larger than this member's part.
                member.assignment = Bytes::copy_from_slice(&assignment);
                member.sync.take()
            });
            waiting.extend(ticket.flatten().map(|ticket| (id, ticket)));
        }
        let record = self.record();
        turn.env.append(record);
        for (id, ticket) in waiting {
            let reply = self.synced(&id);
            turn.env.reply(ticket, reply);
            // A session that ran out while the sync waited has no timer left.
            self.renew_session(&id, turn);
        }
    }

    fn synced(&self, id: &str) -> SyncReply {
        SyncReply {
            error: ErrorCode::None,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            assignment: self.members.get(id).map(|member| member.assignment.clone()).unwrap_or_default(),
        }
    }

    // ---- Heartbeat

    pub(in crate::groups) fn heartbeat(&mut self, ticket: Ticket, request: HeartbeatRequest, turn: &mut Turn) {
        let error = match self.check_generation(&request) {
            Err(error) => error,
            Ok(()) => {
                self.renew_session_of(&request.member_id, turn);
                match self.state {
                    State::PreparingRebalance => ErrorCode::RebalanceInProgress,
                    State::CompletingRebalance | State::Stable | State::Empty => ErrorCode::None,
                }
            }
        };
        turn.env.reply(ticket, HeartbeatReply { error });
    }

    fn check_generation(&self, request: &HeartbeatRequest) -> Result<(), ErrorCode> {
        self.check_member(&request.member_id, request.instance_id.as_deref())?;
        if request.generation == self.generation { Ok(()) } else { Err(ErrorCode::IllegalGeneration) }
    }

    fn renew_session_of(&self, id: &str, turn: &mut Turn) {
        if let Some((id, _)) = self.members.get_key_value(id) {
            self.renew_session(id, turn);
        }
    }

    // ---- LeaveGroup

    pub(in crate::groups) fn leave(&mut self, ticket: Ticket, request: LeaveRequest, turn: &mut Turn) {
        let members_before = self.members.len();
        let mut left = Vec::with_capacity(request.members.len());
        for leaving in request.members {
            let error = self.let_go(&leaving, turn).err().unwrap_or(ErrorCode::None);
            left.push(LeftMember { member_id: leaving.member_id, instance_id: leaving.instance_id, error });
        }
        turn.env.reply(ticket, LeaveReply { error: ErrorCode::None, members: left });
        match self.state {
            State::Stable | State::CompletingRebalance if self.members.len() < members_before => {
                self.prepare_rebalance("members left", turn);
            }
            State::PreparingRebalance => self.maybe_complete_join(turn),
            State::Stable | State::CompletingRebalance | State::Empty => {}
        }
    }

    /// Without a member id, an operator removes the member with the instance id.
    fn let_go(&mut self, leaving: &LeavingMember, turn: &mut Turn) -> Result<(), ErrorCode> {
        let instance_id = leaving.instance_id.as_deref();
        if leaving.member_id.is_empty() {
            let id = instance_id.and_then(|id| self.statics.get(id)).cloned().ok_or(ErrorCode::UnknownMemberId)?;
            self.drop_member(&id, ErrorCode::UnknownMemberId, turn);
        } else if self.pending_joins.contains(leaving.member_id.as_str()) {
            self.drop_pending(&leaving.member_id, turn);
        } else {
            self.check_member(&leaving.member_id, instance_id)?;
            self.drop_member(&leaving.member_id, ErrorCode::UnknownMemberId, turn);
        }
        Ok(())
    }

    // ---- OffsetCommit

    /// Refuses a commit that its sender may not make. A member that commits is alive.
    pub(in crate::groups) fn check_commit(&self, request: &CommitRequest, turn: &mut Turn) -> Result<(), ErrorCode> {
        let by_nobody = request.generation < 0 && request.member_id.is_empty() && request.instance_id.is_none();
        if self.state == State::Empty && request.generation < 0 {
            return Ok(());
        }
        let in_transaction = request.producer.is_some();
        if by_nobody {
            // Old versions of TxnOffsetCommit name no member.
            return if in_transaction { Ok(()) } else { Err(ErrorCode::UnknownMemberId) };
        }
        self.check_member(&request.member_id, request.instance_id.as_deref())?;
        if request.generation != self.generation {
            return Err(ErrorCode::IllegalGeneration);
        }
        if self.state == State::CompletingRebalance && !in_transaction {
            return Err(ErrorCode::RebalanceInProgress);
        }
        self.renew_session_of(&request.member_id, turn);
        Ok(())
    }
}
