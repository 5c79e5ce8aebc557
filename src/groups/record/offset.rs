//! Kinds 0 and 1: `OffsetCommitKey`, `OffsetCommitValue`.

use std::sync::Arc;

use uuid::Uuid;

use super::Record;
use crate::coordinator::wire::{BadRecord, Reader, read_value, write_key, write_value};

const KIND: i16 = 1;
/// The version with `expire_ms`, and the newest one, without it. Kafka 4.3 writes these two.
const VERSION_THAT_EXPIRES: i16 = 1;
const NEWEST_VERSION: i16 = 4;
const FIRST_FLEXIBLE_VERSION: i16 = 4;
const TOPIC_ID_TAG: u32 = 0;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetValue {
    pub offset: i64,
    /// -1: none.
    pub leader_epoch: i32,
    pub metadata: Arc<str>,
    pub commit_ms: i64,
    /// Only from clients that gave a retention time (value version 1, which has neither
    /// leader epoch nor topic id).
    pub expire_ms: Option<i64>,
    /// Nil where it is not known.
    pub topic_id: Uuid,
}

pub(super) fn encode(
    group: &str,
    topic: &str,
    partition: i32,
    value: Option<&OffsetValue>,
) -> (Vec<u8>, Option<Vec<u8>>) {
    let mut key = write_key(KIND, 8 + group.len() + topic.len());
    key.string(group);
    key.string(topic);
    key.int32(partition);
    (key.out, value.map(encode_value))
}

fn encode_value(value: &OffsetValue) -> Vec<u8> {
    let capacity = 44 + value.metadata.len();
    if let Some(expire_ms) = value.expire_ms {
        let mut out = write_value(VERSION_THAT_EXPIRES, false, capacity);
        out.int64(value.offset);
        out.string(&value.metadata);
        out.int64(value.commit_ms);
        out.int64(expire_ms);
        return out.out;
    }
    let mut out = write_value(NEWEST_VERSION, true, capacity);
    out.int64(value.offset);
    out.int32(value.leader_epoch);
    out.string(&value.metadata);
    out.int64(value.commit_ms);
    let topic_id = (!value.topic_id.is_nil()).then_some((TOPIC_ID_TAG, value.topic_id.as_bytes().as_slice()));
    out.tagged_fields(topic_id.as_slice());
    out.out
}

pub(super) fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Record, BadRecord> {
    let mut key = Reader::new(key, false);
    let group = key.text("the group of an offset")?.into();
    let topic = key.text("the topic of an offset")?.into();
    let partition = key.int32("the partition of an offset")?;
    Ok(Record::Offset { group, topic, partition, value: value.map(decode_value).transpose()? })
}

fn decode_value(value: &[u8]) -> Result<OffsetValue, BadRecord> {
    let (version, mut value) = read_value(value, FIRST_FLEXIBLE_VERSION, NEWEST_VERSION, "an offset")?;
    let offset = value.int64("the offset")?;
    let leader_epoch = if version >= 3 { value.int32("the leader epoch")? } else { -1 };
    let metadata = value.text("the metadata of an offset")?.into();
    let commit_ms = value.int64("the commit time")?;
    let expire_ms = match version {
        VERSION_THAT_EXPIRES => Some(value.int64("the expiry time")?).filter(|at| *at != -1),
        _ => None,
    };
    let mut topic_id = Uuid::nil();
    value.tagged_fields(|tag, bytes| {
        if tag == TOPIC_ID_TAG {
            topic_id = Reader::new(bytes, true).uuid("the topic id")?;
        }
        Ok(())
    })?;
    Ok(OffsetValue { offset, leader_epoch, metadata, commit_ms, expire_ms, topic_id })
}
