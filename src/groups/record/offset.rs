//! Kinds 0 and 1: `OffsetCommitKey`, `OffsetCommitValue`.

use std::sync::Arc;

use super::{BadRecord, Record};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetValue {
    pub offset: i64,
    /// -1: none.
    pub leader_epoch: i32,
    pub metadata: Arc<str>,
    pub commit_ms: i64,
    /// Only from clients that gave a retention time (value version 1).
    pub expire_ms: Option<i64>,
}

pub(super) fn encode(_: &str, _: &str, _: i32, _: Option<&OffsetValue>) -> (Vec<u8>, Option<Vec<u8>>) {
    (Vec::new(), None)
}

pub(super) fn decode(_: &[u8], _: Option<&[u8]>) -> Result<Record, BadRecord> {
    Err(BadRecord(String::new()))
}
