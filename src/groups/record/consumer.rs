//! Kinds 3 to 8 and 16 (KIP-848). Keys are of a non-flexible version, values of a flexible one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::BadRecord;
use super::compact::{Reader, Writer};
use crate::groups::api::GroupId;

pub type MemberId = Arc<str>;

/// Partitions by topic id. No topic is without partitions.
pub type Partitions = BTreeMap<Uuid, BTreeSet<i32>>;

/// Partitions by topic id, each with the epoch at which the member was given it.
pub type OwnedPartitions = BTreeMap<Uuid, BTreeMap<i32, i32>>;

/// One record of a consumer group; a value of `None` is a tombstone.
#[derive(Clone, Debug, PartialEq)]
pub enum ConsumerRecord {
    /// Kind 3: `ConsumerGroupMetadata`.
    Group { group: GroupId, value: Option<GroupValue> },
    /// Kind 4: `ConsumerGroupPartitionMetadata`, which Kafka wrote before 4.1. It is only read, and taken back.
    PartitionMetadata { group: GroupId, present: bool },
    /// Kind 5: `ConsumerGroupMemberMetadata`.
    Member { group: GroupId, member: MemberId, value: Option<MemberValue> },
    /// Kind 6: `ConsumerGroupTargetAssignmentMetadata`.
    TargetMetadata { group: GroupId, value: Option<TargetMetadataValue> },
    /// Kind 7: `ConsumerGroupTargetAssignmentMember`.
    Target { group: GroupId, member: MemberId, value: Option<Partitions> },
    /// Kind 8: `ConsumerGroupCurrentMemberAssignment`.
    Current { group: GroupId, member: MemberId, value: Option<CurrentValue> },
    /// Kind 16: `ConsumerGroupRegularExpression`.
    Regex { group: GroupId, regex: String, value: Option<RegexValue> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupValue {
    pub epoch: i32,
    /// Of all topics that the group subscribes to (KIP-1101); 0: of none.
    pub metadata_hash: i64,
}

#[derive(Clone, Debug, PartialEq, Default)]
pub struct MemberValue {
    pub instance_id: Option<String>,
    pub rack_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    /// Sorted, each once.
    pub topics: Vec<String>,
    /// Empty or `None`: does not subscribe by regular expression.
    pub regex: Option<String>,
    pub rebalance_timeout_ms: i32,
    pub assignor: Option<String>,
    /// `None`: the member uses the consumer protocol.
    pub classic: Option<ClassicMember>,
}

/// What a member that uses the classic protocol joined with.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct ClassicMember {
    pub session_timeout_ms: i32,
    /// Name and metadata, by preference.
    pub protocols: Vec<(String, Bytes)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetMetadataValue {
    pub epoch: i32,
    /// When it was computed; 0: not known.
    pub assigned_ms: i64,
}

#[derive(Clone, Debug, PartialEq, Default)]
pub struct CurrentValue {
    pub epoch: i32,
    pub previous_epoch: i32,
    /// Kafka's number of the member's state.
    pub state: i8,
    pub assigned: OwnedPartitions,
    pub revoking: OwnedPartitions,
}

#[derive(Clone, Debug, PartialEq, Default)]
pub struct RegexValue {
    pub topics: BTreeSet<String>,
    /// Of the topics at the time of resolving.
    pub version: i64,
    pub resolved_ms: i64,
}

impl ConsumerRecord {
    pub fn group(&self) -> &GroupId {
        match self {
            ConsumerRecord::Group { group, .. }
            | ConsumerRecord::PartitionMetadata { group, .. }
            | ConsumerRecord::Member { group, .. }
            | ConsumerRecord::TargetMetadata { group, .. }
            | ConsumerRecord::Target { group, .. }
            | ConsumerRecord::Current { group, .. }
            | ConsumerRecord::Regex { group, .. } => group,
        }
    }

    pub fn is_tombstone(&self) -> bool {
        match self {
            ConsumerRecord::Group { value, .. } => value.is_none(),
            ConsumerRecord::PartitionMetadata { present, .. } => !present,
            ConsumerRecord::Member { value, .. } => value.is_none(),
            ConsumerRecord::TargetMetadata { value, .. } => value.is_none(),
            ConsumerRecord::Target { value, .. } => value.is_none(),
            ConsumerRecord::Current { value, .. } => value.is_none(),
            ConsumerRecord::Regex { value, .. } => value.is_none(),
        }
    }

    /// The kind and what follows the group id in the key.
    fn key_parts(&self) -> (i16, Option<&str>) {
        match self {
            ConsumerRecord::Group { .. } => (3, None),
            ConsumerRecord::PartitionMetadata { .. } => (4, None),
            ConsumerRecord::Member { member, .. } => (5, Some(member)),
            ConsumerRecord::TargetMetadata { .. } => (6, None),
            ConsumerRecord::Target { member, .. } => (7, Some(member)),
            ConsumerRecord::Current { member, .. } => (8, Some(member)),
            ConsumerRecord::Regex { regex, .. } => (16, Some(regex)),
        }
    }
}

pub(super) fn encode(record: &ConsumerRecord) -> (Vec<u8>, Option<Vec<u8>>) {
    let (kind, more) = record.key_parts();
    let mut key = Writer::starting_with(kind);
    key.plain_string(record.group());
    if let Some(more) = more {
        key.plain_string(more);
    }
    (key.out, encode_value(record))
}

fn encode_value(record: &ConsumerRecord) -> Option<Vec<u8>> {
    let mut out = Writer::starting_with(0);
    match record {
        ConsumerRecord::Group { value, .. } => {
            let value = (*value)?;
            out.i32(value.epoch);
            out.tag(0, unless_zero(value.metadata_hash));
        }
        ConsumerRecord::PartitionMetadata { present, .. } => {
            present.then_some(())?;
            out.length(0);
            out.no_tags();
        }
        ConsumerRecord::Member { value, .. } => write_member(&mut out, value.as_ref()?),
        ConsumerRecord::TargetMetadata { value, .. } => {
            let value = (*value)?;
            out.i32(value.epoch);
            out.tag(0, unless_zero(value.assigned_ms));
        }
        ConsumerRecord::Target { value, .. } => {
            let value = value.as_ref()?;
            out.length(value.len());
            for (topic, partitions) in value {
                out.uuid(*topic);
                out.length(partitions.len());
                partitions.iter().for_each(|partition| out.i32(*partition));
                out.no_tags();
            }
            out.no_tags();
        }
        ConsumerRecord::Current { value, .. } => {
            let value = value.as_ref()?;
            out.i32(value.epoch);
            out.i32(value.previous_epoch);
            out.i8(value.state);
            write_owned(&mut out, &value.assigned);
            write_owned(&mut out, &value.revoking);
            out.no_tags();
        }
        ConsumerRecord::Regex { value, .. } => {
            let value = value.as_ref()?;
            out.length(value.topics.len());
            value.topics.iter().for_each(|topic| out.string(topic));
            out.i64(value.version);
            out.i64(value.resolved_ms);
            out.no_tags();
        }
    }
    Some(out.out)
}

/// A tagged field is left out when it has its default.
fn unless_zero(value: i64) -> Option<Writer> {
    let mut field = Writer::default();
    field.i64(value);
    (value != 0).then_some(field)
}

fn write_member(out: &mut Writer, value: &MemberValue) {
    out.opt_string(value.instance_id.as_deref());
    out.opt_string(value.rack_id.as_deref());
    out.string(&value.client_id);
    out.string(&value.client_host);
    out.length(value.topics.len());
    value.topics.iter().for_each(|topic| out.string(topic));
    out.opt_string(value.regex.as_deref());
    out.i32(value.rebalance_timeout_ms);
    out.opt_string(value.assignor.as_deref());
    let classic = value.classic.as_ref().map(|classic| {
        let mut field = Writer::default();
        // A nullable structure begins with a byte that says whether it is there.
        field.i8(1);
        field.i32(classic.session_timeout_ms);
        field.length(classic.protocols.len());
        for (name, metadata) in &classic.protocols {
            field.string(name);
            field.bytes(metadata);
            field.no_tags();
        }
        field.no_tags();
        field
    });
    out.tag(0, classic);
}

fn write_owned(out: &mut Writer, owned: &OwnedPartitions) {
    out.length(owned.len());
    for (topic, partitions) in owned {
        out.uuid(*topic);
        out.length(partitions.len());
        partitions.keys().for_each(|partition| out.i32(*partition));
        let mut epochs = Writer::default();
        epochs.length(partitions.len());
        partitions.values().for_each(|epoch| epochs.i32(*epoch));
        out.tag(0, Some(epochs));
    }
}

pub(super) fn decode(kind: i16, key: &[u8], value: Option<&[u8]>) -> Result<ConsumerRecord, BadRecord> {
    let mut key = Reader::new(key, "the key of a record of a consumer group");
    let group: GroupId = key.plain_string()?.into();
    let value = value.map(|value| after_version(kind, value)).transpose()?;
    Ok(match kind {
        3 => ConsumerRecord::Group { group, value: value.map(read_group).transpose()? },
        4 => ConsumerRecord::PartitionMetadata { group, present: value.is_some() },
        5 => {
            let member = key.plain_string()?.into();
            ConsumerRecord::Member { group, member, value: value.map(read_member).transpose()? }
        }
        6 => ConsumerRecord::TargetMetadata { group, value: value.map(read_target_metadata).transpose()? },
        7 => {
            let member = key.plain_string()?.into();
            ConsumerRecord::Target { group, member, value: value.map(read_target).transpose()? }
        }
        8 => {
            let member = key.plain_string()?.into();
            ConsumerRecord::Current { group, member, value: value.map(read_current).transpose()? }
        }
        16 => {
            let regex = key.plain_string()?.to_owned();
            ConsumerRecord::Regex { group, regex, value: value.map(read_regex).transpose()? }
        }
        other => return Err(BadRecord(format!("kind {other} is not of a consumer group"))),
    })
}

fn after_version(kind: i16, value: &[u8]) -> Result<Reader<'_>, BadRecord> {
    let what = match kind {
        3 => "ConsumerGroupMetadataValue",
        4 => "ConsumerGroupPartitionMetadataValue",
        5 => "ConsumerGroupMemberMetadataValue",
        6 => "ConsumerGroupTargetAssignmentMetadataValue",
        7 => "ConsumerGroupTargetAssignmentMemberValue",
        8 => "ConsumerGroupCurrentMemberAssignmentValue",
        _ => "ConsumerGroupRegularExpressionValue",
    };
    let mut reader = Reader::new(value, what);
    match reader.i16()? {
        0 => Ok(reader),
        version => Err(BadRecord(format!("{what}: version {version} is not known; it is of a newer broker"))),
    }
}

fn read_group(mut value: Reader) -> Result<GroupValue, BadRecord> {
    let epoch = value.i32()?;
    let metadata_hash = value.tag(0)?.map(|mut field| field.i64()).transpose()?.unwrap_or(0);
    Ok(GroupValue { epoch, metadata_hash })
}

fn read_target_metadata(mut value: Reader) -> Result<TargetMetadataValue, BadRecord> {
    let epoch = value.i32()?;
    let assigned_ms = value.tag(0)?.map(|mut field| field.i64()).transpose()?.unwrap_or(0);
    Ok(TargetMetadataValue { epoch, assigned_ms })
}

fn read_member(mut value: Reader) -> Result<MemberValue, BadRecord> {
    let mut member = MemberValue {
        instance_id: value.opt_string()?.map(str::to_owned),
        rack_id: value.opt_string()?.map(str::to_owned),
        client_id: value.string()?.to_owned(),
        client_host: value.string()?.to_owned(),
        ..MemberValue::default()
    };
    for _ in 0..value.length()? {
        member.topics.push(value.string()?.to_owned());
    }
    member.topics.sort_unstable();
    member.topics.dedup();
    member.regex = value.opt_string()?.map(str::to_owned);
    member.rebalance_timeout_ms = value.i32()?;
    member.assignor = value.opt_string()?.map(str::to_owned);
    if let Some(mut field) = value.tag(0)? {
        member.classic = read_classic(&mut field)?;
    }
    Ok(member)
}

fn read_classic(field: &mut Reader) -> Result<Option<ClassicMember>, BadRecord> {
    if field.i8()? < 0 {
        return Ok(None);
    }
    let mut classic = ClassicMember { session_timeout_ms: field.i32()?, protocols: Vec::new() };
    for _ in 0..field.length()? {
        classic.protocols.push((field.string()?.to_owned(), field.bytes()?));
        field.skip_tags()?;
    }
    Ok(Some(classic))
}

fn read_target(mut value: Reader) -> Result<Partitions, BadRecord> {
    let mut target = Partitions::new();
    for _ in 0..value.length()? {
        let topic = value.uuid()?;
        let mut partitions = BTreeSet::new();
        for _ in 0..value.length()? {
            partitions.insert(value.i32()?);
        }
        value.skip_tags()?;
        if !partitions.is_empty() {
            target.insert(topic, partitions);
        }
    }
    value.skip_tags()?;
    Ok(target)
}

fn read_current(mut value: Reader) -> Result<CurrentValue, BadRecord> {
    let (epoch, previous_epoch, state) = (value.i32()?, value.i32()?, value.i8()?);
    let assigned = read_owned(&mut value, epoch)?;
    let revoking = read_owned(&mut value, epoch)?;
    value.skip_tags()?;
    Ok(CurrentValue { epoch, previous_epoch, state, assigned, revoking })
}

/// Where the epochs are missing (before Kafka 4.3), the member's stands for them.
fn read_owned(value: &mut Reader, member_epoch: i32) -> Result<OwnedPartitions, BadRecord> {
    let mut owned = OwnedPartitions::new();
    for _ in 0..value.length()? {
        let topic = value.uuid()?;
        let mut partitions = Vec::new();
        for _ in 0..value.length()? {
            partitions.push(value.i32()?);
        }
        let mut epochs = Vec::new();
        if let Some(mut field) = value.tag(0)? {
            for _ in 0..field.opt_length()?.unwrap_or(0) {
                epochs.push(field.i32()?);
            }
        }
        if epochs.len() != partitions.len() {
            epochs = vec![member_epoch.max(0); partitions.len()];
        }
        if !partitions.is_empty() {
            owned.insert(topic, partitions.into_iter().zip(epochs).collect());
        }
    }
    Ok(owned)
}

fn read_regex(mut value: Reader) -> Result<RegexValue, BadRecord> {
    let mut topics = BTreeSet::new();
    for _ in 0..value.length()? {
        topics.insert(value.string()?.to_owned());
    }
    let (version, resolved_ms) = (value.i64()?, value.i64()?);
    value.skip_tags()?;
    Ok(RegexValue { topics, version, resolved_ms })
}

#[cfg(test)]
#[path = "consumer_tests.rs"]
mod tests;
