//! A record of any kind.

use std::sync::Arc;

use super::{ClassicGroupValue, ConsumerRecord, OffsetValue, classic, consumer, offset};
use crate::coordinator::wire::BadRecord;
use crate::groups::api::GroupId;

/// One record; a value of `None` is a tombstone.
#[derive(Clone, Debug, PartialEq)]
pub enum Record {
    /// Kinds 0 and 1: a committed offset.
    Offset { group: GroupId, topic: Arc<str>, partition: i32, value: Option<OffsetValue> },
    /// Kind 2: a classic group.
    Classic { group: GroupId, value: Option<ClassicGroupValue> },
    /// Kinds 3 to 8 and 16: a consumer group (KIP-848).
    Consumer(ConsumerRecord),
}

impl Record {
    /// The group that it is about.
    pub fn group(&self) -> &GroupId {
        match self {
            Record::Offset { group, .. } | Record::Classic { group, .. } => group,
            Record::Consumer(record) => record.group(),
        }
    }

    /// Key and value as they are written.
    pub fn encode(&self) -> (Vec<u8>, Option<Vec<u8>>) {
        match self {
            Record::Offset { group, topic, partition, value } => {
                offset::encode(group, topic, *partition, value.as_ref())
            }
            Record::Classic { group, value } => classic::encode(group, value.as_ref()),
            Record::Consumer(record) => consumer::encode(record),
        }
    }

    /// `Ok(None)`: a kind that this version does not know (share and streams
    /// groups); it is passed over.
    pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Option<Record>, BadRecord> {
        let Some(kind) = key.first_chunk::<2>().map(|kind| i16::from_be_bytes(*kind)) else {
            return Err(BadRecord(format!("a key of {} bytes names no kind", key.len())));
        };
        match kind {
            0 | 1 => offset::decode(&key[2..], value).map(Some),
            2 => classic::decode(&key[2..], value).map(Some),
            3..=8 | 16 => consumer::decode(kind, &key[2..], value).map(|record| Some(Record::Consumer(record))),
            _ => Ok(None),
        }
    }
}
