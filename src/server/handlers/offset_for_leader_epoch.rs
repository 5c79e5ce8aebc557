//! OffsetForLeaderEpoch: where a leader epoch ended, so that a client can see whether the log it
//! read from was cut off (KIP-101, KIP-320).

use kafka_protocol::messages::offset_for_leader_epoch_response::{EpochEndOffset, OffsetForLeaderTopicResult};
use kafka_protocol::messages::{ApiKey, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use crate::cluster::MetadataImage;
use crate::model::{ErrorCode, LeaderEpoch, PartitionId};
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};
use crate::shard::EpochEndOutcome;

use super::shared::{find_partition, merge_outcomes, stated_epoch};

pub const API: ApiSpec = ApiSpec::new(ApiKey::OffsetForLeaderEpoch, 2, 4);

type Part = (PartitionId, Option<LeaderEpoch>, LeaderEpoch);

pub async fn handle(
    session: &Session,
    Call { request, .. }: Call<OffsetForLeaderEpochRequest>,
) -> OffsetForLeaderEpochResponse {
    let (mut topics, parts) = split_request(&session.shard().image(), request);
    if !parts.is_empty() {
        take_outcomes(&mut topics, session.shard().epoch_ends(parts).await);
    }
    OffsetForLeaderEpochResponse::default().with_topics(topics)
}

fn split_request(
    image: &MetadataImage,
    request: OffsetForLeaderEpochRequest,
) -> (Vec<OffsetForLeaderTopicResult>, Vec<Part>) {
    let mut parts = Vec::new();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let found = image.find_topic(&topic.topic.0);
        let places = topic.partitions.into_iter().map(|partition| {
            let error = match found.and_then(|topic| find_partition(topic, partition.partition)) {
                Ok(id) => {
                    let asked = LeaderEpoch(partition.leader_epoch);
                    parts.push((id, stated_epoch(partition.current_leader_epoch), asked));
                    ErrorCode::None
                }
                Err(code) => code,
            };
            EpochEndOffset::default()
                .with_partition(partition.partition)
                .with_error_code(error.code())
                .with_leader_epoch(-1)
                .with_end_offset(-1)
        });
        let places = places.collect();
        topics.push(OffsetForLeaderTopicResult::default().with_topic(topic.topic).with_partitions(places));
    }
    (topics, parts)
}

fn take_outcomes(topics: &mut [OffsetForLeaderTopicResult], outcomes: Vec<EpochEndOutcome>) {
    let places = topics.iter_mut().flat_map(|topic| &mut topic.partitions);
    merge_outcomes(
        places,
        |place| &mut place.error_code,
        outcomes,
        |place, outcome| {
            place.error_code = outcome.error.code();
            place.leader_epoch = outcome.leader_epoch;
            place.end_offset = outcome.end_offset;
        },
    );
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::image;
    use super::super::shared::topic_name;
    use super::*;
    use kafka_protocol::messages::offset_for_leader_epoch_request::{OffsetForLeaderPartition, OffsetForLeaderTopic};

    #[test]
    fn outcomes_find_their_places_among_errors() {
        let partition = |index: i32, current: i32| {
            OffsetForLeaderPartition::default()
                .with_partition(index)
                .with_current_leader_epoch(current)
                .with_leader_epoch(3)
        };
        let topic = OffsetForLeaderTopic::default()
            .with_topic(topic_name("a"))
            .with_partitions(vec![partition(5, -1), partition(1, 4)]);
        let request = OffsetForLeaderEpochRequest::default().with_topics(vec![topic]);
        let (mut topics, parts) = split_request(&image(&[("a", 1, 2)]), request);
        assert_eq!(parts.len(), 1);
        assert_eq!((parts[0].0.index.0, parts[0].1, parts[0].2), (1, Some(LeaderEpoch(4)), LeaderEpoch(3)));
        take_outcomes(&mut topics, vec![EpochEndOutcome { error: ErrorCode::None, leader_epoch: 2, end_offset: 50 }]);
        let rows: Vec<_> =
            topics[0].partitions.iter().map(|p| (p.partition, p.error_code, p.leader_epoch, p.end_offset)).collect();
        assert_eq!(rows, [(5, 3, -1, -1), (1, 0, 2, 50)]);
    }
}
