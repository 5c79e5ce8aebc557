//! JoinGroup.

use super::group::{ClassicGroup, State};
use super::member::{Member, MemberId, OVERHEAD_BYTES, cost_of, own_protocols};
use super::turn::Turn;
use crate::config::GroupConfig;
use crate::coordinator::Ticket;
use crate::groups::api::{JoinReply, JoinRequest, JoinedMember};
use crate::groups::coordinator::Timer;
use crate::groups::env::Env;
use crate::model::ErrorCode;

/// How long a new member's join may wait. Such a member cannot send heartbeats yet; if its
/// client is gone, it goes too.
const NEW_MEMBER_JOIN_TIMEOUT_MS: i64 = 5 * 60 * 1000;
/// Ids go into records, whose strings end here.
const MAX_MEMBER_ID_BYTES: usize = i16::MAX as usize;
const UUID_BYTES: usize = 36;

impl ClassicGroup {
    /// Why a join must be turned away before anything else is looked at.
    pub(in crate::groups) fn refusal(&self, request: &JoinRequest, env: &Env) -> Option<(ErrorCode, String)> {
        if !self.has_room_for(self.former_self(request), env.config) || !self.can_afford(request, env) {
            return Some((ErrorCode::GroupMaxSizeReached, String::new()));
        }
        if !self.supports(&request.protocol_type, &request.protocols) {
            return Some((ErrorCode::InconsistentGroupProtocol, request.member_id.clone()));
        }
        None
    }

    /// The id that the joining member has in the group, or that it takes the place of.
    fn former_self<'a>(&'a self, request: &'a JoinRequest) -> &'a str {
        match request.instance_id.as_ref().and_then(|instance| self.statics.get(instance)) {
            Some(id) if request.member_id.is_empty() => id,
            _ => &request.member_id,
        }
    }

    /// `group.max.size`. While the members join again, those that did so first stay.
    fn has_room_for(&self, member: &str, config: &GroupConfig) -> bool {
        let known = self.members.get(member);
        match self.state {
            State::Empty => true,
            State::PreparingRebalance => {
                known.is_some_and(|member| member.join.is_some()) || self.waiting_joins < config.max_size
            }
            State::CompletingRebalance | State::Stable => known.is_some() || self.members.len() < config.max_size,
        }
    }

    /// `corelane.group.max.bytes`, and what all groups leave of `corelane.group.memory.bytes`.
    /// Members that were given an id to join with count too: this is what bounds their number. A
    /// member that does not grow stays, also where the limit was lowered meanwhile.
    fn can_afford(&self, request: &JoinRequest, env: &Env) -> bool {
        let (freed, names) = match self.members.get(self.former_self(request)) {
            Some(member) => (cost_of(&member.protocols), 0),
            None => {
                let caller = 2 * request.caller.client_id.len() + request.caller.client_host.len();
                let instance = request.instance_id.as_ref().map_or(0, String::len);
                (0, OVERHEAD_BYTES + caller + 2 * instance + UUID_BYTES + 1)
            }
        };
        let added = cost_of(&request.protocols) + names;
        added <= freed || self.bytes() + added <= env.most_group_bytes(self.bytes()) + freed
    }

    pub(in crate::groups) fn join(&mut self, ticket: Ticket, request: JoinRequest, turn: &mut Turn) {
        if let Some((error, member_id)) = self.refusal(&request, turn.env) {
            if error == ErrorCode::GroupMaxSizeReached {
                self.turn_away(&request.member_id, turn);
            }
            turn.env.reply(ticket, JoinReply::refused(error, &member_id));
        } else if request.member_id.is_empty() {
            self.join_as_new(ticket, request, turn);
        } else if self.pending_joins.contains(request.member_id.as_str()) && request.instance_id.is_none() {
            let id = MemberId::from(request.member_id.as_str());
            self.admit(id, ticket, &request, turn);
        } else {
            self.join_again(ticket, request, turn);
        }
    }

    /// Removes a member that is one too many: the id that it was given, and its place among those
    /// who have yet to join again.
    fn turn_away(&mut self, id: &str, turn: &mut Turn) {
        if self.members.get(id).is_some_and(|member| member.join.is_some()) {
            return;
        }
        self.drop_pending(id, turn);
        if self.state == State::PreparingRebalance {
            self.drop_member(id, ErrorCode::GroupMaxSizeReached, turn);
            self.maybe_complete_join(turn);
        }
    }

    fn join_as_new(&mut self, ticket: Ticket, request: JoinRequest, turn: &mut Turn) {
        let named = request.instance_id.as_ref().unwrap_or(&request.caller.client_id);
        let named = &named[..named.floor_char_boundary(MAX_MEMBER_ID_BYTES - UUID_BYTES - 1)];
        let id = MemberId::from(format!("{named}-{}", (turn.env.new_id)()));
        let known = request.instance_id.as_ref().and_then(|instance| self.statics.get(instance)).cloned();
        match known {
            Some(old) => self.come_back(&old, id, ticket, &request, turn),
            None if request.requires_known_member && request.instance_id.is_none() => {
                self.add_pending(id.clone());
                let session = Timer::ClassicSession(self.id.clone(), id.clone());
                turn.set(session, i64::from(request.session_timeout_ms));
                turn.env.reply(ticket, JoinReply::refused(ErrorCode::MemberIdRequired, &id));
            }
            None => self.admit(id, ticket, &request, turn),
        }
    }

    fn admit(&mut self, id: MemberId, ticket: Ticket, request: &JoinRequest, turn: &mut Turn) {
        if let Some(initial) = &mut self.initial {
            initial.grew = true;
        }
        let member = Member { join: Some(ticket), ..Member::joining(request) };
        self.add(id.clone(), member, &request.protocol_type);
        turn.set(Timer::ClassicSession(self.id.clone(), id), NEW_MEMBER_JOIN_TIMEOUT_MS);
        self.rebalance_or_complete_join(reason(request, "a new member"), turn);
    }

    /// A member that has its id already.
    fn join_again(&mut self, ticket: Ticket, request: JoinRequest, turn: &mut Turn) {
        let id = request.member_id.as_str();
        if let Err(error) = self.check_member(id, request.instance_id.as_deref()) {
            return turn.env.reply(ticket, JoinReply::refused(error, id));
        }
        let same = self.members.get(id).is_some_and(|member| member.protocols == request.protocols);
        let keeps_generation = match self.state {
            // The answer to its first join was lost on the way.
            State::CompletingRebalance => same,
            // A leader that joins again wants to assign anew, for reasons that
            // its metadata does not show.
            State::Stable => same && !self.is_leader(id),
            State::Empty | State::PreparingRebalance => false,
        };
        if keeps_generation {
            let reply = self.joined(id, self.is_leader(id));
            return turn.env.reply(ticket, reply);
        }
        self.rejoin(id, ticket, &request, turn);
        self.rebalance_or_complete_join(reason(&request, "a member joined again"), turn);
    }

    /// The member's join waits from now on. One that waited before is answered: its client does
    /// not wait for it any more.
    fn rejoin(&mut self, id: &str, ticket: Ticket, request: &JoinRequest, turn: &mut Turn) {
        let before = self.change(id, |member| {
            member.protocols = own_protocols(&request.protocols);
            member.rebalance_timeout_ms = request.rebalance_timeout_ms;
            member.session_timeout_ms = request.session_timeout_ms;
            member.join.replace(ticket)
        });
        if let Some(before) = before.flatten() {
            turn.env.reply(before, JoinReply::refused(ErrorCode::RebalanceInProgress, id));
        }
    }

    /// A static member without an id takes its former place (KIP-345).
    fn come_back(&mut self, old: &MemberId, id: MemberId, ticket: Ticket, request: &JoinRequest, turn: &mut Turn) {
        let leader_before = self.leader.clone();
        self.replace_static(old, id.clone(), turn);
        self.renew_session(&id, turn);
        self.rejoin(&id, ticket, request, turn);
        match self.state {
            State::Stable if self.vote() == self.protocol => {
                self.answer_without_rebalance(&id, leader_before, request.supports_skipping_assignment, turn);
                let record = self.record();
                turn.env.append(record);
            }
            State::Stable => self.prepare_rebalance("a static member came back with other protocols", turn),
            // The leader may be assigning to the old id at this moment.
            State::CompletingRebalance => self.prepare_rebalance("a static member came back", turn),
            State::PreparingRebalance | State::Empty => self.maybe_complete_join(turn),
        }
    }

    /// The generation goes on with a static member that came back under a new id.
    fn answer_without_rebalance(
        &mut self,
        id: &MemberId,
        leader_before: Option<MemberId>,
        supports_skipping: bool,
        turn: &mut Turn,
    ) {
        let Some(ticket) = self.change(id, |member| member.join.take()).flatten() else { return };
        let mut reply = self.joined(id, supports_skipping && self.is_leader(id));
        if supports_skipping {
            reply.skip_assignment = self.is_leader(id);
        } else if let Some(leader) = leader_before {
            // A client that cannot skip must not take itself for the leader: it would assign anew.
            reply.leader = leader.to_string();
        }
        turn.env.reply(ticket, reply);
    }

    /// Reply to a member of the present generation; the leader's names all members.
    pub(super) fn joined(&self, id: &str, with_members: bool) -> JoinReply {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = self.members.iter().map(|(id, member)| JoinedMember {
            member_id: id.to_string(),
            instance_id: member.instance_id.clone(),
            metadata: member.metadata(protocol),
        });
        JoinReply {
            error: ErrorCode::None,
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone(),
            leader: self.leader.as_deref().unwrap_or_default().to_owned(),
            skip_assignment: false,
            member_id: id.to_owned(),
            members: if with_members { members.collect() } else { Vec::new() },
        }
    }
}

/// The reason that the client gives, or `otherwise`.
fn reason<'a>(request: &'a JoinRequest, otherwise: &'a str) -> &'a str {
    request.reason.as_deref().filter(|reason| !reason.is_empty()).unwrap_or(otherwise)
}
