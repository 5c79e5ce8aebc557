//! DeleteRecords: the log starts of partitions moved forward (KIP-107).

use std::collections::BTreeMap;

use kafka_protocol::messages::delete_records_request::DeleteRecordsTopic;
use kafka_protocol::messages::delete_records_response::{DeleteRecordsPartitionResult, DeleteRecordsTopicResult};
use kafka_protocol::messages::{ApiKey, DeleteRecordsRequest, DeleteRecordsResponse};

use crate::cluster::MetadataImage;
use crate::model::{ErrorCode, PartitionId};
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};

use super::shared::{find_partition, is_internal, merge_outcomes, topic_name};

pub const API: ApiSpec = ApiSpec::new(ApiKey::DeleteRecords, 0, 2);

/// Stands for the high watermark.
const HIGH_WATERMARK: i64 = -1;
const NO_LOW_WATERMARK: i64 = -1;

type Part = (PartitionId, Option<i64>);

/// `timeout_ms` bounds the wait for other replicas, of which there are none.
pub async fn handle(session: &Session, Call { request, .. }: Call<DeleteRecordsRequest>) -> DeleteRecordsResponse {
    let (mut topics, parts) = split_request(&session.shard().image(), request.topics);
    if !parts.is_empty() {
        take_outcomes(&mut topics, session.shard().delete_records(parts).await);
    }
    DeleteRecordsResponse::default().with_topics(topics)
}

/// The partitions that go to the shards, and the response with places for their
/// outcomes: those without an error, in the same order. Of a partition named twice the
/// last offset counts, as in Kafka.
fn split_request(image: &MetadataImage, asked: Vec<DeleteRecordsTopic>) -> (Vec<DeleteRecordsTopicResult>, Vec<Part>) {
    let mut wanted: BTreeMap<String, BTreeMap<i32, i64>> = BTreeMap::new();
    for topic in asked {
        let offsets = topic.partitions.into_iter().map(|partition| (partition.partition_index, partition.offset));
        wanted.entry(topic.name.0.to_string()).or_default().extend(offsets);
    }
    let mut parts = Vec::new();
    let topics = wanted.into_iter().map(|(name, offsets)| {
        let found = image.find_topic(&name);
        let places = offsets.into_iter().map(|(index, offset)| {
            let checked = found.and_then(|topic| find_partition(topic, index)).and_then(|id| part(&name, id, offset));
            let error = match checked {
                Ok(part) => {
                    parts.push(part);
                    ErrorCode::None
                }
                Err(code) => code,
            };
            DeleteRecordsPartitionResult::default()
                .with_partition_index(index)
                .with_low_watermark(NO_LOW_WATERMARK)
                .with_error_code(error.code())
        });
        let places = places.collect();
        DeleteRecordsTopicResult::default().with_name(topic_name(&name)).with_partitions(places)
    });
    let topics = topics.collect();
    (topics, parts)
}

/// The broker's own topics are not to be deleted from.
fn part(name: &str, id: PartitionId, offset: i64) -> Result<Part, ErrorCode> {
    match offset {
        _ if is_internal(name) => Err(ErrorCode::InvalidTopicException),
        HIGH_WATERMARK => Ok((id, None)),
        offset => Ok((id, Some(offset))),
    }
}

fn take_outcomes(topics: &mut [DeleteRecordsTopicResult], outcomes: Vec<Result<i64, ErrorCode>>) {
    let places = topics.iter_mut().flat_map(|topic| &mut topic.partitions);
    merge_outcomes(
        places,
        |place| &mut place.error_code,
        outcomes,
        |place, outcome| match outcome {
            Ok(low_watermark) => place.low_watermark = low_watermark,
            Err(code) => place.error_code = code.code(),
        },
    );
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::delete_records_request::DeleteRecordsPartition;

    use super::super::shared::testing::{id_of, image, through_the_wire};
    use super::*;

    fn asked(name: &str, offsets: &[(i32, i64)]) -> DeleteRecordsTopic {
        let partition = |(index, offset): &(i32, i64)| {
            DeleteRecordsPartition::default().with_partition_index(*index).with_offset(*offset)
        };
        let partitions = offsets.iter().map(partition).collect();
        DeleteRecordsTopic::default().with_name(topic_name(name)).with_partitions(partitions)
    }

    #[test]
    fn outcomes_find_their_places_among_refusals() {
        let image = image(&[("a", 1, 2), ("b", 2, 1), ("__consumer_offsets", 3, 1)]);
        let (mut topics, parts) = split_request(
            &image,
            vec![
                asked("b", &[(0, -1)]),
                asked("a", &[(1, 5), (0, -2), (2, 1)]),
                asked("nope", &[(0, 1)]),
                asked("a", &[(1, 7)]),
                asked("__consumer_offsets", &[(0, 1), (1, 1)]),
            ],
        );
        let expected = [
            (PartitionId::new(id_of(1), 0), Some(-2)),
            (PartitionId::new(id_of(1), 1), Some(7)),
            (PartitionId::new(id_of(2), 0), None),
        ];
        assert_eq!(parts, expected);
        take_outcomes(&mut topics, vec![Err(ErrorCode::OffsetOutOfRange), Ok(7)]);
        let rows: Vec<_> = topics
            .iter()
            .flat_map(|t| t.partitions.iter().map(|p| (&*t.name.0, p.partition_index, p.low_watermark, p.error_code)))
            .collect();
        let expected = [
            ("__consumer_offsets", 0, -1, 17),
            ("__consumer_offsets", 1, -1, 3),
            ("a", 0, -1, 1),
            ("a", 1, 7, 0),
            ("a", 2, -1, 3),
            ("b", 0, -1, -1),
            ("nope", 0, -1, 3),
        ];
        assert_eq!(rows, expected, "and what has no outcome is an error");
        let sent = DeleteRecordsResponse::default().with_topics(topics);
        for version in API.min..=API.max {
            assert_eq!(through_the_wire(ApiKey::DeleteRecords, version, &sent), sent, "v{version}");
        }
    }
}
