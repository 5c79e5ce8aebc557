//! The check of produced batches, on the shard of the connection that brought them: a batch
//! reaches its owner checked.
//!
//! The connection reads its next request only after this, so batches keep their order.

use std::sync::Arc;

use bytes::Bytes;

use super::api::ProducePart;
use super::state::Shard;
use crate::config::TopicConfig;
use crate::model::{ErrorCode, PartitionId};
use crate::observe::metrics::Cause;
use crate::partition::{CheckedBatch, Limits, Refusal, Rejected, Rules, Verified, validate};
use crate::runtime::{Yielder, clock, spawn_blocking, waits};

/// Larger batches go to a helper thread as they are, smaller ones when they need more work
/// than [`Limits::INLINE`].
const INLINE_BATCH_BYTES: usize = 4 << 20;
/// Bad records that the answer to one request names, over all of its partitions.
const MAX_NAMED_RECORDS: usize = 4096;

/// One partition's share of a produce request after its check.
pub(super) struct CheckedPart {
    pub partition: PartitionId,
    pub batch: Result<CheckedBatch, Rejected>,
    pub verified: Verified,
}

/// The answer for a partition that takes no batch.
pub(super) fn not_served(code: ErrorCode) -> Rejected {
    let why = match code {
        ErrorCode::KafkaStorageError => "the partition is offline; the broker's log says why",
        ErrorCode::NotLeaderOrFollower => "this broker has no replica of the partition",
        _ => "the partition is not on this broker",
    };
    Rejected::new(code, why)
}

impl Shard {
    /// Checks the batches in their order; others get their turn in between.
    pub(super) async fn check_all(&self, parts: Vec<ProducePart>) -> Vec<CheckedPart> {
        let now_ms = clock::wall_ms();
        let mut named_left = MAX_NAMED_RECORDS;
        let mut yielder = Yielder;
        let mut checked = Vec::with_capacity(parts.len());
        for ProducePart { partition, records } in parts {
            if !checked.is_empty() {
                yielder.pass().await;
            }
            let mut batch = self.check(partition, records, now_ms).await;
            if let Err(rejected) = &mut batch {
                rejected.records.truncate(named_left);
                named_left -= rejected.records.len();
            }
            checked.push(CheckedPart { partition, batch, verified: Verified::Unasked });
        }
        checked
    }

    async fn check(&self, partition: PartitionId, records: Bytes, now_ms: i64) -> Result<CheckedBatch, Rejected> {
        let (validation, partition_index) = (self.config.produce_validation, partition.index.0);
        let check = move |records: &Bytes, topic: &str, config: &TopicConfig, limits| {
            validate(records, &Rules { topic, partition: partition_index, config, validation, now_ms, limits })
        };
        if records.len() <= INLINE_BATCH_BYTES
            && let Some(topic) = self.image.borrow().topic_by_id(partition.topic)
        {
            match check(&records, &topic.name, &topic.config, Limits::INLINE) {
                Ok(batch) => return Ok(batch),
                Err(Refusal::Rejected(rejected)) => return Err(rejected),
                Err(Refusal::TooMuchWork) => {}
            }
        }
        let (topic, config) = self
            .topic_of(partition)
            .ok_or_else(|| not_served(self.online(partition).err().unwrap_or(ErrorCode::UnknownTopicOrPartition)))?;
        // One or two at a time: each decoder may take a window of 64 MiB, and the helper threads
        // also open files for everybody.
        let checked = Box::pin(waits::waiting(Cause::Helper, async {
            let _turn = self.heavy_checks.acquire(1).await;
            spawn_blocking(move || check(&records, &topic, &config, Limits::FULL)).await
        }));
        checked.await.map_err(Refusal::rejected)
    }

    /// The topic's name and settings, as far as metadata or the partition here tell.
    fn topic_of(&self, partition: PartitionId) -> Option<(Arc<str>, Arc<TopicConfig>)> {
        if let Some(topic) = self.image.borrow().topic_by_id(partition.topic) {
            return Some((topic.name.clone(), topic.config.clone()));
        }
        self.replica(partition).map(|replica| (replica.topic.clone(), replica.log().config()))
    }
}
