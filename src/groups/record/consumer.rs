//! Kinds 3 to 8 and 16 (KIP-848). Keys are of a non-flexible version, values of a flexible one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use crate::coordinator::wire::{BadRecord, Reader, read_value, write_key, write_value};
use crate::groups::api::GroupId;
use crate::model::wire::Writer;

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
    /// Kind 4: `ConsumerGroupPartitionMetadata`, which Kafka wrote before 4.1. It is
    /// only read, and taken back.
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

/// The classic part of a member that joined by the classic protocol.
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
    let mut key = write_key(kind, 4 + record.group().len() + more.map_or(0, str::len));
    key.string(record.group());
    if let Some(more) = more {
        key.string(more);
    }
    (key.out, encode_value(record))
}

fn encode_value(record: &ConsumerRecord) -> Option<Vec<u8>> {
    let mut out = write_value(0, true, 32);
    match record {
        ConsumerRecord::Group { value, .. } => {
            let value = (*value)?;
            out.int32(value.epoch);
            write_tagged_int64(&mut out, value.metadata_hash);
        }
        ConsumerRecord::PartitionMetadata { present, .. } => {
            present.then_some(())?;
            out.count(0);
            out.no_tagged_fields();
        }
        ConsumerRecord::Member { value, .. } => write_member(&mut out, value.as_ref()?),
        ConsumerRecord::TargetMetadata { value, .. } => {
            let value = (*value)?;
            out.int32(value.epoch);
            write_tagged_int64(&mut out, value.assigned_ms);
        }
        ConsumerRecord::Target { value, .. } => {
            let value = value.as_ref()?;
            out.count(value.len());
            for (topic, partitions) in value {
                out.uuid(*topic);
                out.count(partitions.len());
                partitions.iter().for_each(|partition| out.int32(*partition));
                out.no_tagged_fields();
            }
            out.no_tagged_fields();
        }
        ConsumerRecord::Current { value, .. } => {
            let value = value.as_ref()?;
            out.int32(value.epoch);
            out.int32(value.previous_epoch);
            out.int8(value.state);
            write_owned(&mut out, &value.assigned);
            write_owned(&mut out, &value.revoking);
            out.no_tagged_fields();
        }
        ConsumerRecord::Regex { value, .. } => {
            let value = value.as_ref()?;
            out.count(value.topics.len());
            value.topics.iter().for_each(|topic| out.string(topic));
            out.int64(value.version);
            out.int64(value.resolved_ms);
            out.no_tagged_fields();
        }
    }
    Some(out.out)
}

/// The only tagged field of a value, which is left out when it has its default.
fn write_tagged_int64(out: &mut Writer, value: i64) {
    let bytes = value.to_be_bytes();
    out.tagged_fields((value != 0).then_some((0, &bytes[..])).as_slice());
}

fn write_member(out: &mut Writer, value: &MemberValue) {
    out.nullable_string(value.instance_id.as_deref());
    out.nullable_string(value.rack_id.as_deref());
    out.string(&value.client_id);
    out.string(&value.client_host);
    out.count(value.topics.len());
    value.topics.iter().for_each(|topic| out.string(topic));
    out.nullable_string(value.regex.as_deref());
    out.int32(value.rebalance_timeout_ms);
    out.nullable_string(value.assignor.as_deref());
    let classic = value.classic.as_ref().map(|classic| {
        let mut field = Writer::new(true, 0);
        // A nullable structure begins with a byte that says whether it is there.
        field.int8(1);
        field.int32(classic.session_timeout_ms);
        field.count(classic.protocols.len());
        for (name, metadata) in &classic.protocols {
            field.string(name);
            field.bytes(metadata);
            field.no_tagged_fields();
        }
        field.no_tagged_fields();
        field.out
    });
    out.tagged_fields(classic.as_deref().map(|classic| (0, classic)).as_slice());
}

fn write_owned(out: &mut Writer, owned: &OwnedPartitions) {
    out.count(owned.len());
    for (topic, partitions) in owned {
        out.uuid(*topic);
        out.count(partitions.len());
        partitions.keys().for_each(|partition| out.int32(*partition));
        let mut epochs = Writer::new(true, 0);
        epochs.count(partitions.len());
        partitions.values().for_each(|epoch| epochs.int32(*epoch));
        out.tagged_fields(&[(0, &epochs.out)]);
    }
}

pub(super) fn decode(kind: i16, key: &[u8], value: Option<&[u8]>) -> Result<ConsumerRecord, BadRecord> {
    let mut key = Reader::new(key, false);
    let group: GroupId = key.text("a group id")?.into();
    let mut member = || key.text("a member id").map(MemberId::from);
    Ok(match kind {
        3 => ConsumerRecord::Group { group, value: read(value, "ConsumerGroupMetadataValue", read_group)? },
        4 => {
            let value = read(value, "ConsumerGroupPartitionMetadataValue", |_| Ok(()))?;
            ConsumerRecord::PartitionMetadata { group, present: value.is_some() }
        }
        5 => {
            let value = read(value, "ConsumerGroupMemberMetadataValue", read_member)?;
            ConsumerRecord::Member { group, member: member()?, value }
        }
        6 => {
            let value = read(value, "ConsumerGroupTargetAssignmentMetadataValue", read_target_metadata)?;
            ConsumerRecord::TargetMetadata { group, value }
        }
        7 => {
            let value = read(value, "ConsumerGroupTargetAssignmentMemberValue", read_target)?;
            ConsumerRecord::Target { group, member: member()?, value }
        }
        8 => {
            let value = read(value, "ConsumerGroupCurrentMemberAssignmentValue", read_current)?;
            ConsumerRecord::Current { group, member: member()?, value }
        }
        16 => {
            let regex = key.text("a regular expression")?.to_owned();
            let value = read(value, "ConsumerGroupRegularExpressionValue", read_regex)?;
            ConsumerRecord::Regex { group, regex, value }
        }
        other => return Err(BadRecord(format!("kind {other} is not of a consumer group"))),
    })
}

fn read<'a, T>(
    value: Option<&'a [u8]>,
    kind: &str,
    fields: impl FnOnce(&mut Reader<'a>) -> Result<T, BadRecord>,
) -> Result<Option<T>, BadRecord> {
    let Some(value) = value else { return Ok(None) };
    let (_, mut reader) = read_value(value, 0, 0, kind)?;
    fields(&mut reader).map(Some)
}

/// The tagged field 0 at the end of a structure.
fn tagged<'a>(value: &mut Reader<'a>) -> Result<Option<Reader<'a>>, BadRecord> {
    let mut found = None;
    value.tagged_fields(|tag, bytes| {
        if tag == 0 {
            found = Some(Reader::new(bytes, true));
        }
        Ok(())
    })?;
    Ok(found)
}

fn tagged_int64(value: &mut Reader, what: &str) -> Result<i64, BadRecord> {
    tagged(value)?.map_or(Ok(0), |mut field| field.int64(what))
}

fn read_group(value: &mut Reader) -> Result<GroupValue, BadRecord> {
    Ok(GroupValue { epoch: value.int32("the epoch")?, metadata_hash: tagged_int64(value, "the metadata hash")? })
}

fn read_target_metadata(value: &mut Reader) -> Result<TargetMetadataValue, BadRecord> {
    let epoch = value.int32("the assignment epoch")?;
    Ok(TargetMetadataValue { epoch, assigned_ms: tagged_int64(value, "the assignment timestamp")? })
}

fn read_member(value: &mut Reader) -> Result<MemberValue, BadRecord> {
    let mut member = MemberValue {
        instance_id: value.nullable_text("the instance id")?.map(str::to_owned),
        rack_id: value.nullable_text("the rack id")?.map(str::to_owned),
        client_id: value.text("the client id")?.to_owned(),
        client_host: value.text("the client host")?.to_owned(),
        ..MemberValue::default()
    };
    for _ in 0..value.array(1, "the subscribed topics")? {
        member.topics.push(value.text("a subscribed topic")?.to_owned());
    }
    member.topics.sort_unstable();
    member.topics.dedup();
    member.regex = value.nullable_text("the regular expression")?.map(str::to_owned);
    member.rebalance_timeout_ms = value.int32("the rebalance timeout")?;
    member.assignor = value.nullable_text("the assignor")?.map(str::to_owned);
    if let Some(mut field) = tagged(value)? {
        member.classic = read_classic(&mut field)?;
    }
    Ok(member)
}

fn read_classic(field: &mut Reader) -> Result<Option<ClassicMember>, BadRecord> {
    if field.int8("the classic member's metadata")? < 0 {
        return Ok(None);
    }
    let mut classic = ClassicMember { session_timeout_ms: field.int32("the session timeout")?, protocols: Vec::new() };
    for _ in 0..field.array(3, "the protocols")? {
        let name = field.text("a protocol")?.to_owned();
        classic.protocols.push((name, Bytes::copy_from_slice(field.bytes("a protocol's metadata")?)));
        tagged(field)?;
    }
    Ok(Some(classic))
}

fn read_target(value: &mut Reader) -> Result<Partitions, BadRecord> {
    let mut target = Partitions::new();
    for _ in 0..value.array(18, "the topics")? {
        let topic = value.uuid("a topic id")?;
        let mut partitions = BTreeSet::new();
        for _ in 0..value.array(4, "the partitions")? {
            partitions.insert(value.int32("a partition")?);
        }
        tagged(value)?;
        if !partitions.is_empty() {
            target.insert(topic, partitions);
        }
    }
    tagged(value)?;
    Ok(target)
}

fn read_current(value: &mut Reader) -> Result<CurrentValue, BadRecord> {
    let epoch = value.int32("the member epoch")?;
    let previous_epoch = value.int32("the previous member epoch")?;
    let state = value.int8("the state")?;
    let assigned = read_owned(value, epoch)?;
    let revoking = read_owned(value, epoch)?;
    tagged(value)?;
    Ok(CurrentValue { epoch, previous_epoch, state, assigned, revoking })
}

/// Where the epochs are missing (before Kafka 4.3), the member's stands for them.
fn read_owned(value: &mut Reader, member_epoch: i32) -> Result<OwnedPartitions, BadRecord> {
    let mut owned = OwnedPartitions::new();
    for _ in 0..value.array(18, "the topics")? {
        let topic = value.uuid("a topic id")?;
        let mut partitions = Vec::new();
        for _ in 0..value.array(4, "the partitions")? {
            partitions.push(value.int32("a partition")?);
        }
        let mut epochs = Vec::new();
        // An array of null is not written: that is its default.
        if let Some(mut field) = tagged(value)? {
            for _ in 0..field.array(4, "the assignment epochs")? {
                epochs.push(field.int32("an assignment epoch")?);
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

fn read_regex(value: &mut Reader) -> Result<RegexValue, BadRecord> {
    let mut topics = BTreeSet::new();
    for _ in 0..value.array(1, "the topics")? {
        topics.insert(value.text("a topic")?.to_owned());
    }
    let (version, resolved_ms) = (value.int64("the version")?, value.int64("the timestamp")?);
    tagged(value)?;
    Ok(RegexValue { topics, version, resolved_ms })
}

#[cfg(test)]
#[path = "consumer_tests.rs"]
mod tests;
