//! ConsumerGroupDescribe.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::group::ConsumerGroup;
use super::member::Member;
use crate::config::GroupConfig;
use crate::groups::api::{AssignedTopic, Caller, ConsumerDescribeReply, ConsumerMember};
use crate::groups::env::Topics;
use crate::model::ErrorCode;

impl ConsumerGroup {
    pub(super) fn describe(&self, config: &GroupConfig, topics: &dyn Topics) -> ConsumerDescribeReply {
        ConsumerDescribeReply {
            error: ErrorCode::None,
            message: None,
            state: self.state_name().to_owned(),
            group_epoch: self.epoch,
            assignment_epoch: self.target_epoch,
            assignor: self.assignor_name(config).to_owned(),
            members: self.members.values().map(|member| self.describe_member(member, topics)).collect(),
        }
    }

    fn describe_member(&self, member: &Member, topics: &dyn Topics) -> ConsumerMember {
        // Partitions that it has yet to let go of are its own.
        let mut held: BTreeMap<Uuid, Vec<i32>> = BTreeMap::new();
        for (topic, partition) in member.held() {
            held.entry(topic).or_default().push(partition);
        }
        let target = self.target.get(&member.id).into_iter().flatten();
        ConsumerMember {
            member_id: member.id.as_ref().to_owned(),
            instance_id: member.said.instance_id.clone(),
            rack_id: member.said.rack_id.clone(),
            member_epoch: member.current.epoch,
            caller: Caller { client_id: member.said.client_id.clone(), client_host: member.said.client_host.clone() },
            subscribed_topics: member.said.topics.clone(),
            subscribed_regex: member.said.regex.clone(),
            assignment: named(held, topics),
            target: named(target.map(|(topic, partitions)| (*topic, partitions.iter().copied().collect())), topics),
            kind: if member.is_classic() { 0 } else { 1 },
        }
    }
}

/// Topics that are gone are left out.
fn named(partitions: impl IntoIterator<Item = (Uuid, Vec<i32>)>, topics: &dyn Topics) -> Vec<AssignedTopic> {
    let named = partitions.into_iter().filter_map(|(id, mut partitions)| {
        partitions.sort_unstable();
        Some(AssignedTopic { id, name: topics.by_id(id)?.name, partitions })
    });
    named.collect()
}
