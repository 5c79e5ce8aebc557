//! Records deleted by request, at the owners.

use std::rc::Rc;

use super::state::Shard;
use crate::model::{ErrorCode, PartitionId};

impl Shard {
    /// Moves the log starts of partitions to these offsets, or to the high watermark where there is
    /// none; each outcome is the new log start, which survives a crash.
    pub async fn delete_records(
        self: &Rc<Self>,
        parts: Vec<(PartitionId, Option<i64>)>,
    ) -> Vec<Result<i64, ErrorCode>> {
        let trim = |shard: Rc<Shard>, parts: Vec<(PartitionId, Option<i64>)>| async move {
            let mut outcomes = Vec::with_capacity(parts.len());
            for (partition, offset) in parts {
                outcomes.push(match shard.led(partition) {
                    Ok(replica) => replica.delete_records(offset).await,
                    Err(code) => Err(code),
                });
            }
            outcomes
        };
        let outcomes = self.scatter(parts, |part| part.0, trim).await;
        outcomes.into_iter().map(|outcome| outcome.unwrap_or(Err(ErrorCode::NotLeaderOrFollower))).collect()
    }
}
