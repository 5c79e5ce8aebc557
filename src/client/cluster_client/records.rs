//! Records, read from a partition's leader.

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::{BrokerId, FetchRequest};

use super::offsets::Place;
use super::route::{ClusterClient, To, will_pass};
use super::topics::{silent, topic_name};
use crate::client::error::{ClientError, Refusal};
use crate::model::ErrorCode;

/// A leader's records from an offset on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fetched {
    pub high_watermark: i64,
    /// Whole batches, the last one possibly cut off; the first may begin before the offset.
    pub batches: Bytes,
}

impl ClusterClient {
    /// Up to `max_bytes` of batches from `offset` on, or one larger batch; without waiting for any.
    pub async fn fetch(
        &mut self,
        place: &Place,
        offset: i64,
        max_bytes: i32,
    ) -> Result<Result<Fetched, Refusal>, ClientError> {
        loop {
            let outcome = self.fetch_once(place, offset, max_bytes).await?;
            match &outcome {
                Err(refusal) if will_pass(refusal.code) && self.may_try_again().await => {}
                _ => return Ok(outcome),
            }
        }
    }

    async fn fetch_once(
        &mut self,
        place: &Place,
        offset: i64,
        max_bytes: i32,
    ) -> Result<Result<Fetched, Refusal>, ClientError> {
        let refused = |code: ErrorCode| Ok(Err(Refusal { code: code.code(), message: None }));
        let topics = self.topics(Some(std::slice::from_ref(&place.0))).await?;
        let topic = topics.into_iter().next().ok_or_else(|| silent("Metadata", &place.0))?;
        if let Some(refusal) = topic.refusal {
            return Ok(Err(refusal));
        }
        let leader = match topic.partitions.iter().find(|partition| partition.index == place.1) {
            None => return refused(ErrorCode::UnknownTopicOrPartition),
            Some(partition) if partition.leader < 0 => return refused(ErrorCode::LeaderNotAvailable),
            Some(partition) => partition.leader,
        };
        let make = |_| {
            let partition = FetchPartition::default().with_partition(place.1).with_fetch_offset(offset);
            let partition = partition.with_partition_max_bytes(max_bytes).with_current_leader_epoch(-1);
            let topic = FetchTopic::default().with_topic(topic_name(&place.0)).with_partitions(vec![partition]);
            let request = FetchRequest::default().with_replica_id(BrokerId(-1)).with_max_wait_ms(0).with_min_bytes(0);
            request.with_max_bytes(max_bytes).with_session_epoch(-1).with_topics(vec![topic])
        };
        let answer = self.ask_once(To::Broker(leader), make).await?;
        if let Some(refusal) = Refusal::of(answer.error_code, None) {
            return Ok(Err(refusal));
        }
        let mut partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
        let told = partitions.next().ok_or_else(|| silent("Fetch", &place.0))?;
        let fetched =
            Fetched { high_watermark: told.high_watermark, batches: told.records.clone().unwrap_or_default() };
        Ok(Refusal::check(told.error_code, None).map(|()| fetched))
    }
}
