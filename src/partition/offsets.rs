//! Offsets by question: the ends, by timestamp, by leader epoch.

use std::rc::Rc;

use super::replica::Replica;
use crate::model::{ErrorCode, LeaderEpoch};

/// A record found by time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedOffset {
    pub timestamp_ms: i64,
    pub offset: i64,
    /// The epoch it was written in; -1: unknown.
    pub leader_epoch: i32,
}

impl Replica {
    /// The first record before `end` whose timestamp is `timestamp_ms` or later.
    pub async fn offset_by_time(
        self: &Rc<Self>,
        timestamp_ms: i64,
        end: i64,
    ) -> Result<Option<TimedOffset>, ErrorCode> {
        let found = self.log.find_by_time(timestamp_ms, end).await.map_err(|e| self.read_error(e))?;
        Ok(found.map(|record| self.timed(record)))
    }

    /// The record before `end` with the largest timestamp (KIP-734).
    pub async fn offset_of_max_time(self: &Rc<Self>, end: i64) -> Result<Option<TimedOffset>, ErrorCode> {
        let found = self.log.find_max_time(end).await.map_err(|e| self.read_error(e))?;
        Ok(found.map(|record| self.timed(record)))
    }

    fn timed(&self, (offset, timestamp_ms): (i64, i64)) -> TimedOffset {
        TimedOffset { timestamp_ms, offset, leader_epoch: self.epoch_of(offset) }
    }

    /// The leader epoch of the record at `offset`; -1: unknown.
    pub fn epoch_of(&self, offset: i64) -> i32 {
        self.epochs.borrow().epoch_of(offset).unwrap_or(-1)
    }

    /// For OffsetForLeaderEpoch; `None`: nothing is known of such an epoch.
    pub fn epoch_end(&self, asked: LeaderEpoch) -> Option<(i32, i64)> {
        // A follower's end is measured against the whole log.
        let end = if self.is_alone() { self.high_watermark() } else { self.log.next_offset() };
        self.epochs.borrow().end_of(asked.0, end)
    }
}
