//! Requests of the classic protocol in a consumer group: members that still use it live on
//! there during a migration.
//!
//! Such a member's generation is its member epoch. It never leads: SyncGroup gives it what the
//! coordinator assigned. When it is to do something, its heartbeat tells it that the group
//! rebalances, and it joins again with what it has.

use std::collections::HashSet;

use uuid::Uuid;

use super::embedded::{Subscription, read_subscription, write_assignment};
use super::group::ConsumerGroup;
use super::heartbeat::Found;
use super::member::{Member, MemberState};
use super::migrate::by_id;
use super::step::Step;
use super::timer::What;
use crate::coordinator::Ticket;
use crate::groups::api::{
    HeartbeatReply, HeartbeatRequest, JoinReply, JoinRequest, LeaveReply, LeaveRequest, LeavingMember, LeftMember,
    SyncReply, SyncRequest,
};
use crate::groups::classic::{CONSUMERS, own_protocols};
use crate::groups::coordinator::Coordinator;
use crate::groups::env::Env;
use crate::groups::record::{ClassicMember, MemberId, MemberValue};
use crate::model::ErrorCode;

impl Coordinator {
    pub(in crate::groups) fn classic_join_in_consumer_group(
        &mut self,
        ticket: Ticket,
        request: JoinRequest,
        env: &mut Env,
    ) {
        let group = request.group.clone();
        let Some(mut step) = self.consumer_step(&group, env) else {
            return env.reply(ticket, JoinReply::refused(ErrorCode::UnknownMemberId, &request.member_id));
        };
        let (reply, downgrade) = match step.join_classic(&request) {
            Ok((reply, downgrade)) => (reply, downgrade),
            Err((error, member_id)) => (JoinReply::refused(error, &member_id), None),
        };
        if let Some(rebalance) = downgrade {
            self.downgrade(&group, &[], rebalance, env);
        }
        env.reply(ticket, reply);
    }

    pub(in crate::groups) fn classic_sync_in_consumer_group(
        &mut self,
        ticket: Ticket,
        request: SyncRequest,
        env: &mut Env,
    ) {
        let done = match self.consumer_step(&request.group, env) {
            Some(mut step) => step.sync_classic(&request),
            None => Err(ErrorCode::UnknownMemberId),
        };
        env.reply(ticket, done.unwrap_or_else(SyncReply::refused));
    }

    pub(in crate::groups) fn classic_heartbeat_in_consumer_group(
        &mut self,
        ticket: Ticket,
        request: HeartbeatRequest,
        env: &mut Env,
    ) {
        let done = match self.consumer_step(&request.group, env) {
            Some(mut step) => step.heartbeat_classic(&request),
            None => Err(ErrorCode::UnknownMemberId),
        };
        env.reply(ticket, HeartbeatReply { error: done.err().unwrap_or(ErrorCode::None) });
    }

    /// Members of either protocol may leave so: this is also how an operator removes one.
    pub(in crate::groups) fn classic_leave_in_consumer_group(
        &mut self,
        ticket: Ticket,
        request: LeaveRequest,
        env: &mut Env,
    ) {
        let mut leaving: Vec<MemberId> = Vec::new();
        let mut left = Vec::new();
        for named in request.members {
            let found = match self.consumer_step(&request.group, env) {
                Some(step) => step.group.named(&named),
                None => Err(ErrorCode::UnknownMemberId),
            };
            let error = found.as_ref().err().copied().unwrap_or(ErrorCode::None);
            leaving.extend(found.ok().filter(|id| !leaving.contains(id)));
            left.push(LeftMember { member_id: named.member_id, instance_id: named.instance_id, error });
        }
        self.put_out(&request.group, &leaving, env);
        env.reply(ticket, LeaveReply { error: ErrorCode::None, members: left });
    }
}

impl ConsumerGroup {
    fn named(&self, leaving: &LeavingMember) -> Result<MemberId, ErrorCode> {
        match &leaving.instance_id {
            // Without a member id, the member with the instance id.
            Some(instance) if leaving.member_id.is_empty() => {
                self.static_member(instance).map(|member| member.id.clone()).ok_or(ErrorCode::UnknownMemberId)
            }
            instance => self.claimed(&leaving.member_id, instance.as_deref()).map(|member| member.id.clone()),
        }
    }

    /// The member that a request says it is from.
    fn claimed(&self, member_id: &str, instance_id: Option<&str>) -> Result<&Member, ErrorCode> {
        match instance_id {
            Some(instance) => self.own_static_member(instance, member_id),
            None => self.member(member_id),
        }
        .map_err(|refusal| refusal.error)
    }

    /// The member that a request of a generation is from, with what it joined with.
    fn classic_member(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(&Member, &ClassicMember), ErrorCode> {
        let member = self.claimed(member_id, instance_id)?;
        let classic = member.said.classic.as_ref().ok_or(ErrorCode::UnknownMemberId)?;
        if member.current.epoch == generation { Ok((member, classic)) } else { Err(ErrorCode::IllegalGeneration) }
    }

    /// A protocol of the newcomer that all members of the classic protocol have.
    fn supports(&self, request: &JoinRequest) -> bool {
        let mut common: HashSet<&str> = request.protocols.iter().map(|(name, _)| name.as_str()).collect();
        for classic in self.members.values().filter_map(|member| member.said.classic.as_ref()) {
            let known: HashSet<&str> = classic.protocols.iter().map(|(name, _)| name.as_str()).collect();
            common.retain(|name| known.contains(name));
        }
        request.protocol_type == CONSUMERS && !common.is_empty()
    }

    fn find_classic(&self, request: &JoinRequest, id: &str) -> Result<Found, ErrorCode> {
        let Some(instance) = &request.instance_id else {
            return Ok(if self.members.contains_key(id) { Found::Known } else { Found::New });
        };
        if !request.member_id.is_empty() {
            return self.claimed(id, Some(instance)).map(|_| Found::Known);
        }
        Ok(self.static_member(instance).map_or(Found::New, |member| Found::Replaces(member.id.clone())))
    }

    /// True if a partition that the member is to have is still another's.
    fn waits_for_others(&self, member: &Member) -> bool {
        let target = self.target.get(&member.id).into_iter().flatten();
        let missing = |topic: &Uuid, partition: &i32| {
            !member.current.assigned.get(topic).is_some_and(|assigned| assigned.contains_key(partition))
        };
        target.into_iter().any(|(topic, partitions)| {
            partitions.iter().any(|partition| missing(topic, partition) && self.is_held(*topic, *partition))
        })
    }
}

impl Step<'_, '_> {
    /// The reply, and whether the group is to become a classic one now (and to rebalance then).
    fn join_classic(&mut self, request: &JoinRequest) -> Result<(JoinReply, Option<bool>), (ErrorCode, String)> {
        let config = self.env.config;
        let refused = |error| (error, request.member_id.clone());
        if !config.consumer_upgrade && !config.consumer_downgrade {
            return Err(refused(ErrorCode::InconsistentGroupProtocol));
        }
        let id: MemberId = match request.member_id.as_str() {
            "" => (self.env.new_id)().to_string().into(),
            id => id.into(),
        };
        let instance = request.instance_id.as_deref();
        let room = self.group.check_room(config.consumer_max_size, &request.member_id, instance);
        room.map_err(|refusal| refused(refusal.error))?;
        if !self.group.supports(request) || id.len() > i16::MAX as usize {
            return Err(refused(ErrorCode::InconsistentGroupProtocol));
        }
        if request.member_id.is_empty() && request.requires_known_member && instance.is_none() {
            return Err((ErrorCode::MemberIdRequired, id.as_ref().to_owned()));
        }
        let found = self.group.find_classic(request, &id).map_err(refused)?;
        let first = request.protocols.first().map(|(_, metadata)| metadata.as_ref()).unwrap_or_default();
        let subscription = read_subscription(first).ok_or(refused(ErrorCode::InconsistentGroupProtocol))?;
        let former = match &found {
            Found::Replaces(former) => former.clone(),
            Found::Known | Found::New => id.clone(),
        };
        let before = self.group.members.get(&former);
        let known = before.map(|member| member.said.clone()).unwrap_or_default();
        let said = said_classic(&known, request, &subscription);
        let most = self.env.most_group_bytes(self.group.bytes());
        let room = self.group.check_bytes(most, before, &id, &said);
        room.map_err(|refusal| refused(refusal.error))?;

        let replaces_other = before.is_some_and(|member| member.said.instance_id.is_some() && !member.is_classic());
        let downgrades = replaces_other && self.group.downgrades_by_replacing(&former, config);
        let (names, regex) = (said.topics != known.topics, said.regex() != known.regex());
        let changed = said != known;
        self.take_in(&id, found, said, changed);
        let changed = self.subscribe(names, regex);
        // A classic group made of members that are not all at their targets has
        // to bring them there.
        let target_epoch = self.group.target_epoch;
        let mut others = self.group.members.values().filter(|member| member.id != id);
        let rebalance = target_epoch < self.group.epoch || !others.all(|other| other.is_reconciled_to(target_epoch));
        let owned = by_id(&subscription.owned, self.env.topics);
        if !downgrades {
            self.update_target();
        }
        if !downgrades || !rebalance {
            self.reconcile(&id, changed, Some(&owned));
        }
        self.cancel(What::Rebalance, &id);
        self.cancel(What::Join, &id);
        self.set_timer(What::Session, &id, request.session_timeout_ms);
        self.set_timer(What::Sync, &id, request.rebalance_timeout_ms);
        let generation = self.group.members.get(&id).map_or(-1, |member| member.current.epoch);
        let reply = JoinReply {
            error: ErrorCode::None,
            generation,
            protocol_type: Some(CONSUMERS.to_owned()),
            protocol: request.protocols.first().map(|(name, _)| name.clone()),
            leader: String::new(),
            skip_assignment: false,
            member_id: id.as_ref().to_owned(),
            members: Vec::new(),
        };
        Ok((reply, downgrades.then_some(rebalance)))
    }

    fn sync_classic(&mut self, request: &SyncRequest) -> Result<SyncReply, ErrorCode> {
        let instance = request.instance_id.as_deref();
        let (member, classic) = self.group.classic_member(&request.member_id, instance, request.generation)?;
        let first = classic.protocols.first();
        let differs = |said: &Option<String>, is: Option<&str>| said.as_deref().is_some_and(|said| Some(said) != is);
        if differs(&request.protocol_type, Some(CONSUMERS))
            || differs(&request.protocol, first.map(|(name, _)| name.as_str()))
        {
            return Err(ErrorCode::InconsistentGroupProtocol);
        }
        let (id, session_ms) = (member.id.clone(), classic.session_timeout_ms);
        // One that revokes has joined for this target already; it joins again when it has let go.
        // There may be none but classic members left to compute the target: by joining again.
        if self.group.epoch > member.current.epoch && member.state() != MemberState::UnrevokedPartitions {
            let timeout_ms = member.said.rebalance_timeout_ms;
            self.expect_join(&id, timeout_ms);
            return Err(ErrorCode::RebalanceInProgress);
        }
        let assigned: Vec<_> = member
            .current
            .assigned
            .iter()
            .filter_map(|(topic, partitions)| {
                Some((self.env.topics.by_id(*topic)?.name, partitions.keys().copied().collect::<Vec<i32>>()))
            })
            .collect();
        let metadata = first.map(|(_, metadata)| metadata.as_ref()).unwrap_or_default();
        let named = assigned.iter().map(|(name, partitions)| (name.as_ref(), partitions.clone()));
        let assignment = write_assignment(metadata, named);
        self.cancel(What::Sync, &id);
        self.set_timer(What::Session, &id, session_ms);
        Ok(SyncReply {
            error: ErrorCode::None,
            protocol_type: request.protocol_type.clone(),
            protocol: request.protocol.clone(),
            assignment,
        })
    }

    fn heartbeat_classic(&mut self, request: &HeartbeatRequest) -> Result<(), ErrorCode> {
        let instance = request.instance_id.as_deref();
        let (member, classic) = self.group.classic_member(&request.member_id, instance, request.generation)?;
        let must_join = member.current.epoch < self.group.epoch
            || match member.state() {
                MemberState::UnrevokedPartitions => true,
                MemberState::UnreleasedPartitions => !self.group.waits_for_others(member),
                MemberState::Stable | MemberState::Unknown => false,
            };
        let (id, session_ms, join_ms) =
            (member.id.clone(), classic.session_timeout_ms, member.said.rebalance_timeout_ms);
        self.set_timer(What::Session, &id, session_ms);
        if !must_join {
            return Ok(());
        }
        self.expect_join(&id, join_ms);
        Err(ErrorCode::RebalanceInProgress)
    }

    /// The time to join again runs from the first time that the member was told to.
    fn expect_join(&mut self, member: &MemberId, after_ms: i32) {
        if !self.is_timer_set(What::Join, member) {
            self.set_timer(What::Join, member, after_ms);
        }
    }
}

impl ConsumerGroup {
    /// True if a static member's coming back with the classic protocol leaves
    /// nobody who uses the other one.
    fn downgrades_by_replacing(&self, member: &MemberId, config: &crate::config::GroupConfig) -> bool {
        let mut others = self.members.values().filter(|other| other.id != *member);
        config.consumer_downgrade && others.all(Member::is_classic) && self.members.len() <= config.max_size
    }
}

fn said_classic(before: &MemberValue, request: &JoinRequest, subscription: &Subscription) -> MemberValue {
    let mut topics = subscription.topics.clone();
    topics.sort_unstable();
    topics.dedup();
    let protocols = own_protocols(&request.protocols);
    MemberValue {
        instance_id: request.instance_id.clone().or_else(|| before.instance_id.clone()),
        rack_id: subscription.rack_id.clone().or_else(|| before.rack_id.clone()),
        client_id: request.caller.client_id.clone(),
        client_host: request.caller.client_host.clone(),
        topics,
        regex: Some(String::new()),
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        assignor: before.assignor.clone(),
        classic: Some(ClassicMember { session_timeout_ms: request.session_timeout_ms, protocols }),
    }
}
