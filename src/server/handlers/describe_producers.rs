//! DescribeProducers: the idempotent and transactional producers that partitions know (KIP-664).

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::describe_producers_response::{PartitionResponse, ProducerState, TopicResponse};
use kafka_protocol::messages::{ApiKey, DescribeProducersRequest, DescribeProducersResponse};

use crate::cluster::MetadataImage;
use crate::model::{ErrorCode, KnownProducer, PartitionId};
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};

use super::shared::{error_message, find_partition, merge_outcomes, topic_name, unknown_name};

pub const API: ApiSpec = ApiSpec::new(ApiKey::DescribeProducers, 0, 0);

pub async fn handle(
    session: &Session,
    Call { request, .. }: Call<DescribeProducersRequest>,
) -> DescribeProducersResponse {
    let (mut topics, parts) = split_request(&session.shard().image(), request.topics);
    if !parts.is_empty() {
        take_outcomes(&mut topics, session.shard().active_producers(parts).await);
    }
    DescribeProducersResponse::default().with_topics(topics)
}

/// The partitions that go to the shards, each once, and the response with places for them: those
/// without an error, in the same order.
fn split_request(image: &MetadataImage, asked: Vec<TopicRequest>) -> (Vec<TopicResponse>, Vec<PartitionId>) {
    let mut wanted: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
    for topic in asked {
        wanted.entry(topic.name.0.to_string()).or_default().extend(topic.partition_indexes);
    }
    let mut parts = Vec::new();
    let mut topics = Vec::with_capacity(wanted.len());
    for (name, indexes) in wanted {
        let found = image.find_topic(&name).map_err(|code| match code {
            ErrorCode::UnknownTopicOrPartition => unknown_name(&name),
            code => code,
        });
        let places = indexes.into_iter().map(|index| match found.and_then(|topic| find_partition(topic, index)) {
            Ok(id) => {
                parts.push(id);
                place(index, ErrorCode::None)
            }
            Err(code) => place(index, code),
        });
        let places = places.collect();
        topics.push(TopicResponse::default().with_name(topic_name(&name)).with_partitions(places));
    }
    (topics, parts)
}

fn place(index: i32, code: ErrorCode) -> PartitionResponse {
    let message = (code != ErrorCode::None).then(|| error_message(code.to_string())).flatten();
    PartitionResponse::default().with_partition_index(index).with_error_code(code.code()).with_error_message(message)
}

fn take_outcomes(topics: &mut [TopicResponse], outcomes: Vec<Result<Vec<KnownProducer>, ErrorCode>>) {
    let places = topics.iter_mut().flat_map(|topic| &mut topic.partitions);
    merge_outcomes(
        places,
        |slot| &mut slot.error_code,
        outcomes,
        |slot, outcome| match outcome {
            Ok(producers) => slot.active_producers = producers.into_iter().map(told).collect(),
            Err(code) => *slot = place(slot.partition_index, code),
        },
    );
}

fn told(producer: KnownProducer) -> ProducerState {
    ProducerState::default()
        .with_producer_id(producer.id.into())
        .with_producer_epoch(i32::from(producer.epoch))
        .with_last_sequence(producer.last_sequence)
        .with_last_timestamp(producer.last_ms)
        .with_coordinator_epoch(producer.coordinator_epoch)
        .with_current_txn_start_offset(producer.txn_start_offset)
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::{id_of, image, through_the_wire};
    use super::*;

    #[test]
    fn producers_find_their_places_among_refusals() {
        let image = image(&[("a", 1, 2)]);
        let asked = |name: &str, indexes: &[i32]| {
            TopicRequest::default().with_name(topic_name(name)).with_partition_indexes(indexes.to_vec())
        };
        let (mut topics, parts) = split_request(
            &image,
            vec![asked("a", &[1, 0, 9]), asked("no", &[0]), asked("a/b", &[0]), asked("a", &[1])],
        );
        assert_eq!(parts, [0, 1].map(|index| PartitionId::new(id_of(1), index)));
        let producer =
            KnownProducer { id: 5, epoch: 2, last_sequence: 7, last_ms: 9, coordinator_epoch: 4, txn_start_offset: 30 };
        take_outcomes(&mut topics, vec![Err(ErrorCode::KafkaStorageError), Ok(vec![producer])]);
        let sent = DescribeProducersResponse::default().with_topics(topics);
        let seen = through_the_wire(ApiKey::DescribeProducers, 0, &sent);
        let rows: Vec<_> = seen
            .topics
            .iter()
            .flat_map(|t| t.partitions.iter().map(|p| (&*t.name.0, p.partition_index, p.error_code)))
            .collect();
        assert_eq!(rows, [("a", 0, 56), ("a", 1, 0), ("a", 9, 3), ("a/b", 0, 17), ("no", 0, 3)]);
        let told = &seen.topics[0].partitions[1].active_producers[0];
        assert_eq!((told.producer_id.0, told.producer_epoch, told.last_sequence, told.last_timestamp), (5, 2, 7, 9));
        assert_eq!((told.coordinator_epoch, told.current_txn_start_offset), (4, 30));
    }
}
