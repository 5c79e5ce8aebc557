//! Kind 2: `GroupMetadataKey`, `GroupMetadataValue`.

use bytes::Bytes;

use super::{BadRecord, Record};

#[derive(Clone, Debug, PartialEq)]
pub struct ClassicGroupValue {
    pub protocol_type: String,
    pub generation: i32,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    /// When the group took its present state.
    pub state_since_ms: i64,
    pub members: Vec<ClassicMemberValue>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ClassicMemberValue {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    /// Metadata of the chosen protocol.
    pub subscription: Bytes,
    pub assignment: Bytes,
}

pub(super) fn encode(_: &str, _: Option<&ClassicGroupValue>) -> (Vec<u8>, Option<Vec<u8>>) {
    (Vec::new(), None)
}

pub(super) fn decode(_: &[u8], _: Option<&[u8]>) -> Result<Record, BadRecord> {
    Err(BadRecord(String::new()))
}
