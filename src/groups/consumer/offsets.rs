//! Whether a member may commit or read offsets, and what deletes a group.

use super::group::ConsumerGroup;
use super::member::Member;
use crate::groups::api::CommitRequest;
use crate::groups::record::{ConsumerRecord, Record};
use crate::model::ErrorCode;

impl ConsumerGroup {
    /// A member commits at its epoch, or at an older one for partitions that it has had since
    /// then: it may not have heard of the new epoch yet. Without members anybody may commit
    /// who says that it is none.
    pub(in crate::groups) fn check_commit(&self, request: &CommitRequest) -> Result<(), ErrorCode> {
        if request.generation < 0 && self.members.is_empty() {
            return Ok(());
        }
        let by_nobody = request.generation < 0 && request.member_id.is_empty() && request.instance_id.is_none();
        if by_nobody && request.producer.is_some() {
            return Ok(());
        }
        let member = self.members.get(request.member_id.as_str()).ok_or(ErrorCode::UnknownMemberId)?;
        if !member.is_classic() && !request.knows_member_epochs {
            return Err(ErrorCode::UnsupportedVersion);
        }
        if request.generation == member.current.epoch {
            return Ok(());
        }
        let had_since = |topic, partition| {
            member.assignment_epoch(topic, partition).is_some_and(|since| request.generation >= since)
        };
        let all_had_since = || {
            let mut topics = request.topics.iter();
            topics.all(|topic| topic.partitions.iter().all(|partition| had_since(topic.id, partition.index)))
        };
        if request.generation < member.current.epoch && all_had_since() {
            return Ok(());
        }
        Err(wrong_epoch(member))
    }

    /// `None`: nobody says to be a member.
    pub(in crate::groups) fn check_fetch(&self, member: Option<&(String, i32)>) -> Result<(), ErrorCode> {
        let Some((id, epoch)) = member else { return Ok(()) };
        let member = self.members.get(id.as_str()).ok_or(ErrorCode::UnknownMemberId)?;
        if member.current.epoch == *epoch { Ok(()) } else { Err(wrong_epoch(member)) }
    }

    /// Tombstones of all records of the group, in the order that Kafka's loader insists on.
    pub(in crate::groups) fn tombstones(&self) -> Vec<Record> {
        let group = || self.id.clone();
        let members = || self.members.keys().cloned();
        let mut records = Vec::new();
        records.extend(members().map(|member| ConsumerRecord::Current { group: group(), member, value: None }));
        let targets = self.target.keys().cloned();
        records.extend(targets.map(|member| ConsumerRecord::Target { group: group(), member, value: None }));
        records.push(ConsumerRecord::TargetMetadata { group: group(), value: None });
        records.extend(members().map(|member| ConsumerRecord::Member { group: group(), member, value: None }));
        let regexes = self.regexes.keys().cloned();
        records.extend(regexes.map(|regex| ConsumerRecord::Regex { group: group(), regex, value: None }));
        if self.has_partition_metadata {
            records.push(ConsumerRecord::PartitionMetadata { group: group(), present: false });
        }
        records.push(ConsumerRecord::Group { group: group(), value: None });
        records.into_iter().map(Record::Consumer).collect()
    }
}

/// In the words of the protocol that the member uses.
fn wrong_epoch(member: &Member) -> ErrorCode {
    if member.is_classic() { ErrorCode::IllegalGeneration } else { ErrorCode::StaleMemberEpoch }
}
