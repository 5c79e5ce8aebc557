//! Requests read and answers written by Kafka's schema, as a leader does.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::fetch_response::{
    EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, PartitionData,
};
use kafka_protocol::messages::{FetchRequest, FetchResponse, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable};

use super::{PartitionAnswer, ReplicaAnswer, ReplicaFetch, ReplicaPlace, VERSION};
use crate::model::{BrokerId, PartitionId};
use crate::protocol::parse_header;

/// Reads a request's frame behind its length; its correlation id comes with it.
pub fn read_request(frame: &Bytes) -> (i32, ReplicaFetch) {
    let (header, start) = parse_header(frame, true).unwrap();
    assert_eq!((header.api_key, header.version), (1, VERSION));
    let mut body = frame.slice(start..);
    let read = FetchRequest::decode(&mut body, VERSION).unwrap();
    assert!(body.is_empty());
    assert_eq!(read.isolation_level, 0);
    let unsigned = |value: i32| u32::try_from(value).unwrap();
    let places = read.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(move |p| ReplicaPlace {
            partition: PartitionId::new(topic.topic_id, p.partition),
            leader_epoch: p.current_leader_epoch,
            offset: p.fetch_offset,
            last_epoch: (p.last_fetched_epoch >= 0).then_some(p.last_fetched_epoch),
            log_start: p.log_start_offset,
            max_bytes: unsigned(p.partition_max_bytes),
        })
    });
    let forgotten = read.forgotten_topics_data.iter();
    let forgotten = forgotten.flat_map(|t| t.partitions.iter().map(|index| PartitionId::new(t.topic_id, *index)));
    let request = ReplicaFetch {
        replica: BrokerId(read.replica_state.replica_id.0),
        broker_epoch: read.replica_state.replica_epoch,
        max_wait_ms: unsigned(read.max_wait_ms),
        min_bytes: unsigned(read.min_bytes),
        max_bytes: unsigned(read.max_bytes),
        session_id: read.session_id,
        session_epoch: read.session_epoch,
        partitions: places.collect(),
        forgotten: forgotten.collect(),
    };
    (header.correlation_id, request)
}

/// An answer's frame, with its length.
pub fn write_answer(correlation_id: i32, answer: &ReplicaAnswer) -> Bytes {
    let topics = answer.partitions.chunk_by(|a, b| a.partition.topic == b.partition.topic).map(|parts| {
        FetchableTopicResponse::default()
            .with_topic_id(parts[0].partition.topic)
            .with_partitions(parts.iter().map(data).collect())
    });
    let body = FetchResponse::default()
        .with_error_code(answer.error.code())
        .with_session_id(answer.session_id)
        .with_responses(topics.collect());
    let mut frame = BytesMut::zeroed(4);
    ResponseHeader::default().with_correlation_id(correlation_id).encode(&mut frame, 1).unwrap();
    body.encode(&mut frame, VERSION).unwrap();
    let length = (frame.len() - 4) as i32;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    frame.freeze()
}

fn data(part: &PartitionAnswer) -> PartitionData {
    let mut data = PartitionData::default()
        .with_partition_index(part.partition.index.0)
        .with_error_code(part.error.code())
        .with_high_watermark(part.high_watermark)
        .with_log_start_offset(part.log_start)
        .with_records(Some(part.records.clone()));
    if let Some((epoch, end)) = part.diverging {
        data = data.with_diverging_epoch(EpochEndOffset::default().with_epoch(epoch).with_end_offset(end));
    }
    if let Some((leader, epoch)) = part.current_leader {
        data = data
            .with_current_leader(LeaderIdAndEpoch::default().with_leader_id(leader.into()).with_leader_epoch(epoch));
    }
    data
}
