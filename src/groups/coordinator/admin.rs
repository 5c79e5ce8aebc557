//! Requests of operators: ListGroups, DescribeGroups, DeleteGroups.

use std::sync::Arc;

use super::dispatch::{Coordinator, Group};
use crate::groups::api::{DeleteReply, DescribeReply, DescribedMember, GroupId, ListedGroup};
use crate::groups::classic::{ClassicGroup, State, Turn};
use crate::groups::env::Env;
use crate::model::ErrorCode;

/// A group as the metrics tell of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SurveyedGroup {
    pub group: GroupId,
    /// As Kafka writes it ("PreparingRebalance", "Stable", ...).
    pub state: &'static str,
    pub members: usize,
    /// Topic, partition and committed offset.
    pub offsets: Vec<(Arc<str>, i32, i64)>,
}

impl Coordinator {
    /// Classic groups only, as Kafka does.
    pub(super) fn describe(&self, id: &GroupId) -> DescribeReply {
        let message = match self.groups.get(id) {
            Some(Group::Classic(group)) => return describe(group),
            Some(Group::Consumer(_)) => format!("Group {id} is not a classic group."),
            None => format!("Group {id} not found."),
        };
        DescribeReply {
            error: ErrorCode::GroupIdNotFound,
            message: Some(message),
            state: "Dead".into(),
            protocol_type: String::new(),
            protocol: String::new(),
            members: Vec::new(),
        }
    }

    /// Every group, its members and offsets.
    pub fn survey(&self) -> Vec<SurveyedGroup> {
        let offsets_of = |id: &GroupId| {
            let topics = self.offsets.of_group(id);
            let each = topics.flat_map(|(topic, partitions)| {
                partitions.iter().map(|(partition, committed)| (topic.clone(), *partition, committed.offset))
            });
            each.collect()
        };
        let survey = |(id, group): (&GroupId, &Group)| {
            let (state, members) = match group {
                Group::Classic(group) => (group.state().name(), group.members().len()),
                Group::Consumer(group) => (group.state_name(), group.size()),
            };
            SurveyedGroup { group: id.clone(), state, members, offsets: offsets_of(id) }
        };
        self.groups.iter().map(survey).collect()
    }

    /// A group that nobody is in goes with its offsets.
    pub(super) fn delete(&mut self, id: &GroupId, env: &mut Env) -> DeleteReply {
        let error = match self.groups.get(id) {
            None => ErrorCode::GroupIdNotFound,
            Some(group) if !group.is_empty() => ErrorCode::NonEmptyGroup,
            Some(_) => {
                self.drop_all_offsets(id, env);
                self.remove_empty(id, env);
                ErrorCode::None
            }
        };
        DeleteReply { error }
    }

    /// Forgets a group that nobody is in and that has no offsets.
    pub(in crate::groups) fn remove_empty(&mut self, id: &GroupId, env: &mut Env) {
        match self.groups.remove(id) {
            Some(Group::Classic(mut group)) => {
                group.dissolve(ErrorCode::UnknownMemberId, &mut Turn { timers: &mut self.timers, env });
                env.append(group.tombstone());
            }
            Some(Group::Consumer(group)) => env.out.records.extend(group.tombstones()),
            None => {}
        }
    }
}

fn describe(group: &ClassicGroup) -> DescribeReply {
    let stable = group.state() == State::Stable;
    // The chosen protocol and what the members gave for it stand only in a stable group.
    let protocol = group.protocol().filter(|_| stable).unwrap_or_default();
    let members = group.members().iter().map(|(id, member)| DescribedMember {
        member_id: id.to_string(),
        instance_id: member.instance_id.clone(),
        caller: member.caller.clone(),
        metadata: if stable { member.metadata(protocol) } else { Default::default() },
        assignment: member.assignment.clone(),
    });
    DescribeReply {
        error: ErrorCode::None,
        message: None,
        state: group.state().name().into(),
        protocol_type: group.protocol_type().unwrap_or_default().into(),
        protocol: protocol.into(),
        members: members.collect(),
    }
}

impl Group {
    /// True if nobody is in it.
    pub(in crate::groups) fn is_empty(&self) -> bool {
        match self {
            Group::Classic(group) => group.is_empty(),
            Group::Consumer(group) => group.is_empty(),
        }
    }

    pub(super) fn listed(&self, id: &GroupId) -> ListedGroup {
        let (protocol_type, state, kind) = match self {
            Group::Classic(group) => (group.protocol_type().unwrap_or_default(), group.state().name(), "classic"),
            Group::Consumer(group) => ("consumer", group.state_name(), "consumer"),
        };
        ListedGroup { group: id.clone(), protocol_type: protocol_type.into(), state: state.into(), kind: kind.into() }
    }
}
