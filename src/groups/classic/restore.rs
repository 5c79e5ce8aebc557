//! A group as a record, and back.

use bytes::Bytes;

use super::group::{CONSUMERS, ClassicGroup, State};
use super::member::{Member, MemberId};
use crate::groups::api::{Caller, GroupId};
use crate::groups::record::{ClassicGroupValue, ClassicMemberValue, Record};

impl ClassicGroup {
    /// The group's record: written when a generation has its assignments, when it changes without a
    /// new one, and when no member is left.
    pub(in crate::groups) fn record(&self) -> Record {
        let protocol = self.protocol.as_deref().unwrap_or_default();
        let members = self.members.iter().map(|(id, member)| ClassicMemberValue {
            member_id: id.to_string(),
            instance_id: member.instance_id.clone(),
            client_id: member.caller.client_id.clone(),
            client_host: member.caller.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            subscription: member.metadata(protocol),
            assignment: member.assignment.clone(),
        });
        let value = ClassicGroupValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.as_deref().map(str::to_owned),
            state_since_ms: self.since_ms,
            members: members.collect(),
        };
        Record::Classic { group: self.id.clone(), value: Some(value) }
    }

    pub(in crate::groups) fn tombstone(&self) -> Record {
        Record::Classic { group: self.id.clone(), value: None }
    }

    /// The group that wrote `value`: stable, or empty if it had no members.
    pub(in crate::groups) fn restore(id: GroupId, value: ClassicGroupValue) -> ClassicGroup {
        let mut group = ClassicGroup::new(id, value.state_since_ms);
        let protocol = value.protocol.clone().unwrap_or_default();
        for member in value.members {
            let id = MemberId::from(member.member_id.as_str());
            let of_another = member.instance_id.as_ref().is_some_and(|instance| group.statics.contains_key(instance));
            if group.members.contains_key(&id) || of_another {
                continue;
            }
            let caller = Caller { client_id: member.client_id, client_host: member.client_host };
            let restored = Member {
                // Before there were rebalance timeouts, the session's was it.
                rebalance_timeout_ms: match member.rebalance_timeout_ms {
                    -1 => member.session_timeout_ms,
                    timeout_ms => timeout_ms,
                },
                session_timeout_ms: member.session_timeout_ms,
                assignment: member.assignment,
                ..Member::restored(member.instance_id, caller, vec![(protocol.clone(), member.subscription)])
            };
            group.add(id, restored, &value.protocol_type);
        }
        if let Some(leader) = value.leader.as_deref().and_then(|id| group.members.get_key_value(id)) {
            group.leader = Some(leader.0.clone());
        }
        group.state = if group.members.is_empty() { State::Empty } else { State::Stable };
        group.generation = value.generation;
        group.protocol_type = Some(value.protocol_type).filter(|protocol_type| !protocol_type.is_empty());
        group.protocol = value.protocol;
        group
    }

    /// A stable group of consumers that used to be a consumer group (online
    /// downgrade). The assignments follow.
    pub fn migrated(id: GroupId, generation: i32, wall_ms: i64, members: Vec<(MemberId, Member)>) -> ClassicGroup {
        let mut group = ClassicGroup::new(id, wall_ms);
        for (id, member) in members {
            group.add(id, member, CONSUMERS);
        }
        group.state = if group.members.is_empty() { State::Empty } else { State::Stable };
        group.generation = generation;
        group.protocol_type = Some(CONSUMERS.to_owned());
        group.protocol = group.vote();
        group
    }

    pub fn set_assignment(&mut self, id: &str, assignment: Bytes) {
        self.change(id, |member| member.assignment = assignment);
    }
}
