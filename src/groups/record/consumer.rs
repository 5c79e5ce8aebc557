//! Kinds 3 to 8 and 16 (KIP-848).

use super::BadRecord;
use crate::groups::api::GroupId;

/// One record of a consumer group.
#[derive(Clone, Debug, PartialEq)]
pub enum ConsumerRecord {
    /// Kind 3: `ConsumerGroupMetadata`; `None`: a tombstone.
    Group { group: GroupId, epoch: Option<i32> },
}

impl ConsumerRecord {
    pub fn group(&self) -> &GroupId {
        match self {
            ConsumerRecord::Group { group, .. } => group,
        }
    }
}

pub(super) fn encode(_: &ConsumerRecord) -> (Vec<u8>, Option<Vec<u8>>) {
    (Vec::new(), None)
}

pub(super) fn decode(_: i16, _: &[u8], _: Option<&[u8]>) -> Result<ConsumerRecord, BadRecord> {
    Err(BadRecord(String::new()))
}
