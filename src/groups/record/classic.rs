//! Kind 2: `GroupMetadataKey`, `GroupMetadataValue`.

use bytes::Bytes;

use super::Record;
use crate::coordinator::wire::{BadRecord, Reader, read_value, write_key, write_value};

const KIND: i16 = 2;
/// The version that Kafka 4.3 writes; it reads one more.
const VERSION: i16 = 3;
const NEWEST_VERSION: i16 = 4;
const FIRST_FLEXIBLE_VERSION: i16 = 4;
/// The least that one member takes: six compact lengths, a session timeout, and an
/// empty set of tagged fields.
const LEAST_MEMBER_BYTES: usize = 10;

#[derive(Clone, Debug, PartialEq)]
pub struct ClassicGroupValue {
    /// Empty: none yet.
    pub protocol_type: String,
    pub generation: i32,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    /// When the group took its present state; -1: not known.
    pub state_since_ms: i64,
    pub members: Vec<ClassicMemberValue>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ClassicMemberValue {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    /// -1: not known.
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    /// Metadata of the chosen protocol.
    pub subscription: Bytes,
    pub assignment: Bytes,
}

pub(super) fn encode(group: &str, value: Option<&ClassicGroupValue>) -> (Vec<u8>, Option<Vec<u8>>) {
    let mut key = write_key(KIND, 2 + group.len());
    key.string(group);
    (key.out, value.map(encode_value))
}

fn encode_value(value: &ClassicGroupValue) -> Vec<u8> {
    let members = value.members.iter().map(|member| 128 + member.subscription.len() + member.assignment.len());
    let mut out = write_value(VERSION, false, 128 + members.sum::<usize>());
    out.string(&value.protocol_type);
    out.int32(value.generation);
    out.nullable_string(value.protocol.as_deref());
    out.nullable_string(value.leader.as_deref());
    out.int64(value.state_since_ms);
    out.int32(value.members.len() as i32);
    for member in &value.members {
        out.string(&member.member_id);
        out.nullable_string(member.instance_id.as_deref());
        out.string(&member.client_id);
        out.string(&member.client_host);
        out.int32(member.rebalance_timeout_ms);
        out.int32(member.session_timeout_ms);
        out.bytes(&member.subscription);
        out.bytes(&member.assignment);
    }
    out.out
}

pub(super) fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Record, BadRecord> {
    let group = Reader::new(key, false).text("the id of a group")?.into();
    Ok(Record::Classic { group, value: value.map(decode_value).transpose()? })
}

fn decode_value(value: &[u8]) -> Result<ClassicGroupValue, BadRecord> {
    let (version, mut value) = read_value(value, FIRST_FLEXIBLE_VERSION, NEWEST_VERSION, "a group")?;
    let protocol_type = value.text("the protocol type")?.to_owned();
    let generation = value.int32("the generation")?;
    let protocol = value.nullable_text("the protocol")?.map(str::to_owned);
    let leader = value.nullable_text("the leader")?.map(str::to_owned);
    let state_since_ms = if version >= 2 { value.int64("the time of the state")? } else { -1 };
    let count = value.array(LEAST_MEMBER_BYTES, "the members")?;
    let mut members = Vec::new();
    for _ in 0..count {
        members.push(decode_member(version, &mut value)?);
    }
    value.skip_tagged_fields()?;
    Ok(ClassicGroupValue { protocol_type, generation, protocol, leader, state_since_ms, members })
}

fn decode_member(version: i16, value: &mut Reader) -> Result<ClassicMemberValue, BadRecord> {
    let member_id = value.text("a member's id")?.to_owned();
    let instance_id = match version {
        0..=2 => None,
        _ => value.nullable_text("a member's group.instance.id")?.map(str::to_owned),
    };
    let client_id = value.text("a member's client.id")?.to_owned();
    let client_host = value.text("a member's host")?.to_owned();
    let rebalance_timeout_ms = if version >= 1 { value.int32("a member's rebalance timeout")? } else { -1 };
    let session_timeout_ms = value.int32("a member's session timeout")?;
    let subscription = Bytes::copy_from_slice(value.bytes("a member's subscription")?);
    let assignment = Bytes::copy_from_slice(value.bytes("a member's assignment")?);
    value.skip_tagged_fields()?;
    Ok(ClassicMemberValue {
        member_id,
        instance_id,
        client_id,
        client_host,
        rebalance_timeout_ms,
        session_timeout_ms,
        subscription,
        assignment,
    })
}
