//! ConsumerGroupHeartbeat: join, stay, leave.

use std::sync::Arc;

use uuid::Uuid;

use super::group::ConsumerGroup;
use super::member::{LEAVES_FOR_A_WHILE, Member, MemberState, said_bytes};
use super::refusal::Refusal;
use super::regex::Pattern;
use super::step::Step;
use super::timer::What;
use crate::config::GroupConfig;
use crate::groups::api::{ConsumerHeartbeatReply, ConsumerHeartbeatRequest};
use crate::groups::record::{ConsumerRecord, CurrentValue, MemberId, MemberValue, OwnedPartitions, Partitions};
use crate::model::ErrorCode;

type Owned = [(Uuid, Vec<i32>)];

/// Different regular expressions that the members of one group may subscribe by.
const MOST_REGEXES: usize = 100;

/// Refuses what is wrong by itself, whatever the group is like.
pub(super) fn check(request: &ConsumerHeartbeatRequest, config: &GroupConfig) -> Result<(), Refusal> {
    let invalid = |why: &str| Err(Refusal::new(ErrorCode::InvalidRequest, why));
    if !config.consumer_protocol {
        let why = "group.coordinator.rebalance.protocols does not contain consumer";
        return Err(Refusal::new(ErrorCode::UnsupportedVersion, why));
    }
    request.check(false).or_else(invalid)?;
    // Strings of records have 16 bits for their length in keys.
    let said = [request.instance_id.as_deref(), request.rack_id.as_deref(), request.subscribed_regex.as_deref()];
    let names = request.subscribed_topics.iter().flatten().map(String::as_str);
    let mut strings = [&*request.group, &*request.member_id].into_iter().chain(said.into_iter().flatten()).chain(names);
    if strings.any(|string| string.len() > i16::MAX as usize) {
        return invalid("A string has more than 32767 bytes.");
    }
    match &request.assignor {
        Some(name) if !config.consumer_assignors.contains(name) => {
            let known = config.consumer_assignors.join(", ");
            let why = format!("ServerAssignor {name} is not one of group.consumer.assignors: {known}.");
            Err(Refusal::new(ErrorCode::UnsupportedAssignor, why))
        }
        _ => Ok(()),
    }
}

/// Which member of the group a request comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    Known,
    New,
    /// A static member is back under another member id.
    Replaces(MemberId),
}

impl ConsumerGroup {
    pub(super) fn member(&self, id: &str) -> Result<&Member, Refusal> {
        self.members
            .get(id)
            .ok_or_else(|| Refusal::new(ErrorCode::UnknownMemberId, format!("Group {} has no member {id}.", self.id)))
    }

    /// A place for one more, unless the member has one.
    pub(super) fn check_room(&self, max: usize, member_id: &str, instance_id: Option<&str>) -> Result<(), Refusal> {
        let has_place = self.members.contains_key(member_id)
            || instance_id.is_some_and(|instance| self.static_member(instance).is_some());
        if has_place || self.members.len() < max {
            return Ok(());
        }
        let why = format!("Group {} has as many members as it may have: {max}.", self.id);
        Err(Refusal::new(ErrorCode::GroupMaxSizeReached, why))
    }

    /// The member behind an instance id, which must be the one that asks.
    pub(super) fn own_static_member(&self, instance: &str, member_id: &str) -> Result<&Member, Refusal> {
        let Some(member) = self.static_member(instance) else {
            let why = format!("Group {} has no static member {instance}.", self.id);
            return Err(Refusal::new(ErrorCode::UnknownMemberId, why));
        };
        if &*member.id != member_id {
            let why = format!("Static member {instance} is {} now; {member_id} is fenced.", member.id);
            return Err(Refusal::new(ErrorCode::FencedInstanceId, why));
        }
        Ok(member)
    }

    fn find(&self, request: &ConsumerHeartbeatRequest, member_id: &str) -> Result<Found, Refusal> {
        let owned = request.owned.as_deref();
        let joins = request.member_epoch == 0;
        let Some(instance) = &request.instance_id else {
            if joins && !self.members.contains_key(member_id) {
                return Ok(Found::New);
            }
            let member = self.member(member_id)?;
            return check_epoch(member, request.member_epoch, owned).map(|()| Found::Known);
        };
        if !joins {
            let member = self.own_static_member(instance, member_id)?;
            return check_epoch(member, request.member_epoch, owned).map(|()| Found::Known);
        }
        match self.static_member(instance) {
            Some(member) if &*member.id == member_id => Ok(Found::Known),
            Some(member) if !member.is_classic() && member.current.epoch != LEAVES_FOR_A_WHILE => {
                let why = format!("Static member {instance} is {}, which has not left.", member.id);
                Err(Refusal::new(ErrorCode::UnreleasedInstanceId, why))
            }
            Some(member) => Ok(Found::Replaces(member.id.clone())),
            None if self.members.contains_key(member_id) => Ok(Found::Known),
            None => Ok(Found::New),
        }
    }

    /// Each expression keeps the names that it matches, and all are matched against all
    /// topics when those change.
    fn check_regexes(&self, regex: &str, before: Option<&str>) -> Result<(), Refusal> {
        let others =
            self.subscribed_regexes().filter(|known| *known != regex && Some(known.as_str()) != before).count();
        if others < MOST_REGEXES {
            return Ok(());
        }
        let why = format!("Group {} has {MOST_REGEXES} regular expressions already; use one of them.", self.id);
        Err(Refusal::new(ErrorCode::GroupMaxSizeReached, why))
    }

    /// Refuses what would bring the members' memory over its bound.
    pub(super) fn check_bytes(
        &self,
        max: usize,
        before: Option<&Member>,
        id: &str,
        said: &MemberValue,
    ) -> Result<(), Refusal> {
        let bytes = self.bytes() - before.map_or(0, Member::bytes) + said_bytes(id, said);
        if bytes <= max || before.is_some_and(|before| before.bytes() >= said_bytes(id, said)) {
            return Ok(());
        }
        let why = format!(
            "The subscriptions of group {} would take more than {max} bytes, which corelane.group.max.bytes and corelane.group.memory.bytes allow.",
            self.id
        );
        Err(Refusal::new(ErrorCode::GroupMaxSizeReached, why))
    }
}

fn check_epoch(member: &Member, epoch: i32, owned: Option<&Owned>) -> Result<(), Refusal> {
    let current = &member.current;
    // The reply that told of the new epoch may have been lost.
    let lost_reply =
        || epoch == current.previous_epoch && owned.is_some_and(|owned| is_subset(owned, &current.assigned));
    if epoch == 0 || epoch == current.epoch || epoch < current.epoch && lost_reply() {
        return Ok(());
    }
    let why = format!(
        "Member {} is at epoch {} and says {epoch}. It must give up its partitions and join again.",
        member.id, current.epoch
    );
    Err(Refusal::new(ErrorCode::FencedMemberEpoch, why))
}

fn is_subset(owned: &Owned, assigned: &OwnedPartitions) -> bool {
    owned.iter().all(|(topic, partitions)| {
        let assigned = assigned.get(topic);
        assigned.is_some_and(|assigned| partitions.iter().all(|partition| assigned.contains_key(partition)))
    })
}

/// The member's facts so far, with those that it says anew.
fn said_now(before: &MemberValue, request: &ConsumerHeartbeatRequest) -> MemberValue {
    let mut topics = request.subscribed_topics.clone().unwrap_or_else(|| before.topics.clone());
    topics.sort_unstable();
    topics.dedup();
    MemberValue {
        instance_id: request.instance_id.clone().or_else(|| before.instance_id.clone()),
        rack_id: request.rack_id.clone().or_else(|| before.rack_id.clone()),
        client_id: request.caller.client_id.clone(),
        client_host: request.caller.client_host.clone(),
        topics,
        regex: request.subscribed_regex.clone().or_else(|| before.regex.clone()),
        rebalance_timeout_ms: match request.rebalance_timeout_ms {
            -1 => before.rebalance_timeout_ms,
            said => said,
        },
        assignor: request.assignor.clone().or_else(|| before.assignor.clone()),
        classic: None,
    }
}

impl Step<'_, '_> {
    /// A heartbeat of a member that joins or stays. The request has passed [`check`].
    pub(super) fn heartbeat(&mut self, request: &ConsumerHeartbeatRequest) -> Result<ConsumerHeartbeatReply, Refusal> {
        let config = self.env.config;
        self.group.check_room(config.consumer_max_size, &request.member_id, request.instance_id.as_deref())?;
        let id: MemberId = match request.member_id.as_str() {
            "" => Arc::from((self.env.new_id)().to_string()),
            id => id.into(),
        };
        let found = self.group.find(request, &id)?;
        let before = match &found {
            Found::Known => self.group.members.get(&id),
            Found::New => None,
            Found::Replaces(other) => self.group.members.get(other),
        };
        let nothing = Member::new(id.clone());
        let known = before.unwrap_or(&nothing);
        if known.state() == MemberState::Unknown && request.owned.as_ref().is_none_or(|owned| !owned.is_empty()) {
            let why = "The member's state is of a newer broker. It must give up its partitions and join again.";
            return Err(Refusal::new(ErrorCode::FencedMemberEpoch, why));
        }
        let said = said_now(&known.said, request);
        if said.regex() != known.said.regex()
            && let Some(regex) = said.regex().filter(|regex| !self.group.regexes.contains_key(*regex))
        {
            self.group.check_regexes(regex, known.said.regex())?;
            Pattern::compile(regex)?;
        }
        self.group.check_bytes(self.env.most_group_bytes(self.group.bytes()), before, &id, &said)?;

        let names_changed = said.topics != known.said.topics;
        let regex_changed = said.regex() != known.said.regex();
        let was_classic = known.is_classic();
        let changed = said != known.said;
        self.take_in(&id, found, said, changed);
        let changed = self.subscribe(names_changed, regex_changed);
        self.update_target();
        let reassigned = self.reconcile(&id, changed, request.owned.as_deref());
        let session_ms = self.env.own.session_timeout_ms(&self.group.id, config);
        self.set_timer(What::Session, &id, session_ms);
        if was_classic {
            self.cancel(What::Join, &id);
            self.cancel(What::Sync, &id);
        }

        let full = request.rebalance_timeout_ms != -1
            && (request.subscribed_topics.is_some() || request.subscribed_regex.is_some())
            && request.owned.is_some();
        let current = &self.member(&id)?.current;
        let tell = request.member_epoch == 0 || full || reassigned;
        Ok(ConsumerHeartbeatReply {
            error: ErrorCode::None,
            message: None,
            member_id: Some(id.as_ref().to_owned()),
            member_epoch: current.epoch,
            heartbeat_interval_ms: self.env.own.heartbeat_interval_ms(&self.group.id, config),
            assignment: tell.then(|| listed(&current.assigned)),
        })
    }

    /// Writes down who the member is now.
    pub(super) fn take_in(&mut self, id: &MemberId, found: Found, said: MemberValue, changed: bool) {
        let Found::Replaces(other) = found else {
            if changed || found == Found::New {
                self.emit_member(id, said);
            }
            return;
        };
        let target = self.group.target.get(&other).cloned().unwrap_or_else(Partitions::new);
        let current = self.group.members.get(&other).map(|other| other.current.clone()).unwrap_or_default();
        self.remove_member(&other);
        self.emit_member(id, said);
        let (group, member) = (self.group_id(), id.clone());
        self.emit(ConsumerRecord::Target { group: group.clone(), member: member.clone(), value: Some(target) });
        let current = CurrentValue { epoch: 0, previous_epoch: 0, ..current };
        self.emit(ConsumerRecord::Current { group, member, value: Some(current) });
    }

    /// After a member's subscription was written down: brings the regular expressions and the
    /// group's epoch up to date. True if the subscription is another one.
    pub(super) fn subscribe(&mut self, names_changed: bool, regex_changed: bool) -> bool {
        if regex_changed {
            self.drop_unused_regexes();
        }
        let resolved = self.resolve_regexes();
        self.look_at_topics(names_changed || regex_changed || resolved);
        names_changed || regex_changed
    }

    /// A member leaves, for good.
    pub(super) fn leaving(&self, request: &ConsumerHeartbeatRequest) -> Result<MemberId, Refusal> {
        match &request.instance_id {
            None => self.group.member(&request.member_id),
            Some(instance) => self.group.own_static_member(instance, &request.member_id),
        }
        .map(|member| member.id.clone())
    }

    /// A static member leaves and keeps its partitions until it is back or its session ends.
    pub(super) fn leave_for_a_while(&mut self, member: &MemberId) {
        let Some(current) = self.group.members.get(member).map(|member| member.current.clone()) else { return };
        let mut current = CurrentValue { epoch: LEAVES_FOR_A_WHILE, revoking: OwnedPartitions::new(), ..current };
        // The member that comes back is given them from the beginning: commits of the next id count
        // from any epoch.
        current.assigned.values_mut().flat_map(|partitions| partitions.values_mut()).for_each(|epoch| *epoch = 0);
        self.emit(ConsumerRecord::Current { group: self.group_id(), member: member.clone(), value: Some(current) });
        self.cancel(What::Rebalance, member);
    }
}

/// As replies list partitions.
pub(super) fn listed(owned: &OwnedPartitions) -> Vec<(Uuid, Vec<i32>)> {
    owned.iter().map(|(topic, partitions)| (*topic, partitions.keys().copied().collect())).collect()
}
