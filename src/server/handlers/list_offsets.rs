//! ListOffsets: offsets by time, and the ends of the log.

use std::collections::HashSet;

use kafka_protocol::messages::list_offsets_response::{ListOffsetsPartitionResponse, ListOffsetsTopicResponse};
use kafka_protocol::messages::{ApiKey, ListOffsetsRequest, ListOffsetsResponse, TopicName};

use crate::cluster::MetadataImage;
use crate::model::{ErrorCode, LeaderEpoch, PartitionId};
use crate::protocol::{ApiSpec, Newer};
use crate::server::session::{Call, Session};
use crate::shard::{OffsetOutcome, OffsetQuery};

use super::shared::{find_partition, merge_outcomes, repeated, stated_epoch};

pub const API: ApiSpec = ApiSpec::new(ApiKey::ListOffsets, 1, 11);

/// The response has the leader epoch from here on (KIP-320).
const EPOCH_FROM: i16 = 4;

type Part = (PartitionId, OffsetQuery, Option<LeaderEpoch>);

/// The isolation level (KIP-98) under which nothing counts that lies behind the last stable offset.
const READ_COMMITTED: i8 = 1;

pub async fn handle(
    session: &Session,
    Call { version, request: Newer(request) }: Call<Newer<ListOffsetsRequest>>,
) -> Newer<ListOffsetsResponse> {
    let committed = request.isolation_level == READ_COMMITTED;
    let (mut topics, parts) = split_request(&session.shard().image(), version, request);
    if !parts.is_empty() {
        take_outcomes(&mut topics, version, session.shard().list_offsets(parts, committed).await);
    }
    Newer(ListOffsetsResponse::default().with_topics(topics))
}

/// The questions to the shard, and the response with places for the outcomes: those without an
/// error, in the same order. A partition named twice is refused in every place, as in Kafka.
fn split_request(
    image: &MetadataImage,
    version: i16,
    request: ListOffsetsRequest,
) -> (Vec<ListOffsetsTopicResponse>, Vec<Part>) {
    let mut parts = Vec::new();
    let asked =
        request.topics.iter().flat_map(|topic| topic.partitions.iter().map(|p| (&topic.name, p.partition_index)));
    let twice: HashSet<(TopicName, i32)> =
        repeated(asked).into_iter().map(|(name, index)| (name.clone(), index)).collect();
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let found = image.find_topic(&topic.name.0);
        let mut places = Vec::with_capacity(topic.partitions.len());
        for partition in topic.partitions {
            let index = partition.partition_index;
            let is_repeated = !twice.is_empty() && twice.contains(&(topic.name.clone(), index));
            let checked = if is_repeated { Err(ErrorCode::InvalidRequest) } else { Ok(()) }
                .and(found)
                .and_then(|topic| find_partition(topic, index))
                .and_then(|id| Ok((id, query(version, partition.timestamp)?)));
            let error = match checked {
                Ok((id, query)) => {
                    parts.push((id, query, stated_epoch(partition.current_leader_epoch)));
                    ErrorCode::None
                }
                Err(code) => code,
            };
            places.push(
                ListOffsetsPartitionResponse::default().with_partition_index(index).with_error_code(error.code()),
            );
        }
        topics.push(ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(places));
    }
    (topics, parts)
}

/// The query that a timestamp stands for; those below zero have a meaning from some version on.
fn query(version: i16, timestamp: i64) -> Result<OffsetQuery, ErrorCode> {
    match timestamp {
        0.. => Ok(OffsetQuery::Timestamp(timestamp)),
        -1 => Ok(OffsetQuery::Latest),
        -2 => Ok(OffsetQuery::Earliest),
        -3 if version >= 7 => Ok(OffsetQuery::MaxTimestamp),
        -4 if version >= 8 => Ok(OffsetQuery::EarliestLocal),
        // The end of what tiered storage has, and the start of what it has yet to get
        // (KIP-1023): there is none.
        -5 if version >= 9 => Ok(OffsetQuery::LatestTiered),
        -6 if version >= 11 => Ok(OffsetQuery::LatestTiered),
        _ => Err(ErrorCode::UnsupportedVersion),
    }
}

fn take_outcomes(topics: &mut [ListOffsetsTopicResponse], version: i16, outcomes: Vec<OffsetOutcome>) {
    let places = topics.iter_mut().flat_map(|topic| &mut topic.partitions);
    merge_outcomes(
        places,
        |place| &mut place.error_code,
        outcomes,
        |place, outcome| {
            place.error_code = outcome.error.code();
            place.timestamp = outcome.timestamp_ms;
            place.offset = outcome.offset;
            if version >= EPOCH_FROM {
                place.leader_epoch = outcome.leader_epoch;
            }
        },
    );
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::image;
    use super::super::shared::topic_name;
    use super::*;
    use crate::protocol::respond::encode;
    use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};

    fn request(partitions: &[(i32, i64)]) -> ListOffsetsRequest {
        let partitions = partitions.iter().map(|(index, timestamp)| {
            ListOffsetsPartition::default().with_partition_index(*index).with_timestamp(*timestamp)
        });
        let topic = ListOffsetsTopic::default().with_name(topic_name("a")).with_partitions(partitions.collect());
        ListOffsetsRequest::default().with_topics(vec![topic])
    }

    #[test]
    fn outcomes_find_their_places_among_errors() {
        let image = image(&[("a", 1, 3)]);
        let (mut topics, parts) = split_request(&image, 10, request(&[(0, -1), (9, -1), (1, 77), (2, -6)]));
        let queries: Vec<_> = parts.iter().map(|(id, query, epoch)| (id.index.0, *query, *epoch)).collect();
        assert_eq!(queries, [(0, OffsetQuery::Latest, None), (1, OffsetQuery::Timestamp(77), None)]);
        let outcome = |offset: i64| OffsetOutcome { error: ErrorCode::None, timestamp_ms: 5, offset, leader_epoch: 3 };
        take_outcomes(&mut topics, 10, vec![outcome(100), outcome(200)]);
        let rows: Vec<_> =
            topics[0].partitions.iter().map(|p| (p.partition_index, p.error_code, p.offset, p.timestamp)).collect();
        assert_eq!(rows, [(0, 0, 100, 5), (9, 3, -1, -1), (1, 0, 200, 5), (2, 35, -1, -1)]);
    }

    #[test]
    fn a_partition_named_twice_is_refused_in_both_places() {
        let asked = request(&[(0, -1), (1, -1), (0, -2), (8, -1), (8, -1)]);
        let (topics, parts) = split_request(&image(&[("a", 1, 3)]), 10, asked);
        let errors: Vec<_> = topics[0].partitions.iter().map(|p| p.error_code).collect();
        assert_eq!((errors, parts.len()), (vec![42, 0, 42, 42, 42], 1));
    }

    #[test]
    fn every_version_can_be_encoded() {
        for version in API.min..=API.max {
            let (mut topics, _) = split_request(&image(&[("a", 1, 1)]), version, request(&[(0, -1)]));
            let outcome = OffsetOutcome { error: ErrorCode::None, timestamp_ms: -1, offset: 7, leader_epoch: 3 };
            take_outcomes(&mut topics, version, vec![outcome]);
            assert_eq!(topics[0].partitions[0].leader_epoch, if version >= EPOCH_FROM { 3 } else { -1 });
            let response = Newer(ListOffsetsResponse::default().with_topics(topics));
            assert!(encode(ApiKey::ListOffsets, version, 1, &response).is_ok(), "v{version}");
        }
    }

    #[test]
    fn special_timestamps_came_with_their_versions() {
        for (timestamp, since) in [(-3, 7), (-4, 8), (-5, 9)] {
            assert_eq!(query(since - 1, timestamp), Err(ErrorCode::UnsupportedVersion));
            assert!(query(since, timestamp).is_ok());
        }
        assert_eq!(query(10, i64::MIN), Err(ErrorCode::UnsupportedVersion));
        assert_eq!(query(1, 0), Ok(OffsetQuery::Timestamp(0)));
    }
}
