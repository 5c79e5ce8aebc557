use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiKey, ProduceRequest as CrateRequest, ProduceResponse, produce_request, produce_response,
};
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::Random;
use crate::model::ErrorCode;
use crate::model::records::BadRecord;
use crate::protocol::produce::{self, ProducePartition, ProducePartitionResponse, ProduceRequest, ProduceTopic};
use crate::protocol::{TopicKey, respond};

/// A request as the crate encodes it, and as ours must decode it.
fn request(version: i16, random: &mut Random) -> (Bytes, ProduceRequest) {
    let flexible = version >= 9;
    let mut theirs = CrateRequest::default()
        .with_transactional_id(random.chance(2).then(|| random.str_bytes().into()))
        .with_acks(random.next() as i16)
        .with_timeout_ms(random.next() as i32)
        .with_unknown_tagged_fields(random.tags(flexible));
    let mut ours = ProduceRequest {
        transactional_id: theirs.transactional_id.as_ref().map(|id| id.to_string()),
        acks: theirs.acks,
        timeout_ms: theirs.timeout_ms,
        topics: Vec::new(),
    };
    for _ in 0..random.below(4) {
        let (name, id) = (random.str_bytes(), random.uuid());
        let key = if version >= 13 { TopicKey::Id(id) } else { TopicKey::Name(name.clone().into_bytes()) };
        let mut topic = produce_request::TopicProduceData::default().with_unknown_tagged_fields(random.tags(flexible));
        if version >= 13 {
            topic.topic_id = id;
        } else {
            topic.name = name.into();
        }
        let mut partitions = Vec::new();
        for _ in 0..random.below(4) {
            let index = random.next() as i32;
            let records = (!random.chance(4)).then(|| random.bytes(300));
            partitions.push(ProducePartition { index, records: records.clone() });
            let partition = produce_request::PartitionProduceData::default().with_index(index).with_records(records);
            topic.partition_data.push(partition.with_unknown_tagged_fields(random.tags(flexible)));
        }
        theirs.topic_data.push(topic);
        ours.topics.push(ProduceTopic { topic: key, partitions });
    }
    let mut body = BytesMut::new();
    theirs.encode(&mut body, version).unwrap();
    (body.freeze(), ours)
}

#[test]
fn requests_are_read_as_the_crate_writes_them() {
    let mut random = Random(11);
    for version in produce::MIN_VERSION..=produce::MAX_VERSION {
        for _ in 0..100 {
            let (body, expected) = request(version, &mut random);
            assert_eq!(produce::decode(version, body).unwrap(), expected, "v{version}");
        }
    }
}

/// The least that our decoder supposes a topic and a partition to take must not
/// be more than they take.
#[test]
fn the_smallest_topics_and_partitions_are_read() {
    for version in produce::MIN_VERSION..=produce::MAX_VERSION {
        // Many, so that one byte too many for each is more than the fields after them.
        for (topics, partitions) in [(0, 0), (1, 0), (1, 1), (60, 0), (1, 60), (60, 1)] {
            let mut topic = produce_request::TopicProduceData::default();
            topic.partition_data = vec![Default::default(); partitions];
            let mut request = CrateRequest::default();
            request.topic_data = vec![topic; topics];
            let mut body = BytesMut::new();
            request.encode(&mut body, version).unwrap();
            let decoded = produce::decode(version, body.freeze()).unwrap();
            assert_eq!(decoded.topics.len(), topics);
            assert!(decoded.topics.iter().all(|topic| topic.partitions.len() == partitions));
        }
    }
}

#[test]
fn records_are_slices_of_the_frame() {
    let mut random = Random(12);
    for version in [3, 9, 13] {
        for _ in 0..50 {
            let (body, _) = request(version, &mut random);
            let frame = body.as_ptr_range();
            let decoded = produce::decode(version, body.clone()).unwrap();
            for records in decoded.topics.iter().flat_map(|t| &t.partitions).filter_map(|p| p.records.as_ref()) {
                let records = records.as_ptr_range();
                // An empty slice points nowhere in particular.
                assert!(records.is_empty() || frame.start <= records.start && records.end <= frame.end);
            }
        }
    }
}

#[test]
fn cut_extended_and_damaged_requests_are_errors_and_never_panics() {
    let mut random = Random(13);
    for version in produce::MIN_VERSION..=produce::MAX_VERSION {
        for _ in 0..30 {
            let (body, _) = request(version, &mut random);
            for cut in 0..body.len() {
                assert!(produce::decode(version, body.slice(..cut)).is_err(), "v{version} cut at {cut}");
            }
            assert_eq!(
                produce::decode(version, [&body[..], &[0]].concat().into()),
                produce::decode(version, body.clone())
            );
            for _ in 0..100 {
                let _ = produce::decode(version, random.damage(&body).into());
            }
        }
    }
}

#[test]
fn other_versions_and_bad_names_are_refused() {
    let (body, _) = request(9, &mut Random(14));
    assert!(produce::decode(2, body.clone()).is_err());
    assert!(produce::decode(14, body).is_err());
    // No transactional id, acks 1, timeout 0, one topic whose name is the byte ff, no partitions.
    let body = [0xff, 0xff, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1, 0xff, 0, 0, 0, 0];
    let error = produce::decode(3, Bytes::copy_from_slice(&body)).unwrap_err().to_string();
    assert!(error.starts_with("Produce v3 request") && error.contains("UTF-8"), "{error}");
}

fn record_error(bad: &BadRecord) -> produce_response::BatchIndexAndErrorMessage {
    produce_response::BatchIndexAndErrorMessage::default()
        .with_batch_index(bad.index)
        .with_batch_index_error_message(Some(StrBytes::from_string(bad.message.clone())))
}

#[test]
fn responses_are_written_as_the_crate_writes_them() {
    let mut random = Random(15);
    for version in produce::MIN_VERSION..=produce::MAX_VERSION {
        for _ in 0..100 {
            let (correlation_id, throttle_ms) = (random.next() as i32, random.next() as i32);
            let mut theirs = ProduceResponse::default().with_throttle_time_ms(throttle_ms);
            let mut ours = Vec::new();
            for _ in 0..random.below(4) {
                let (name, id) = (random.str_bytes(), random.uuid());
                let mut topic = produce_response::TopicProduceResponse::default();
                let mut partitions = Vec::new();
                for _ in 0..random.below(4) {
                    let partition = ProducePartitionResponse {
                        index: random.next() as i32,
                        error: if random.chance(2) { ErrorCode::None } else { ErrorCode::NotLeaderOrFollower },
                        base_offset: random.next() as i64,
                        log_append_time_ms: random.next() as i64,
                        log_start_offset: random.next() as i64,
                        record_errors: (0..random.below(3) as i32)
                            .map(|n| BadRecord { index: n * 7, message: random.text() })
                            .collect(),
                        error_message: random.chance(2).then(|| random.text()),
                    };
                    let mut expected = produce_response::PartitionProduceResponse::default()
                        .with_index(partition.index)
                        .with_error_code(partition.error.code())
                        .with_base_offset(partition.base_offset)
                        .with_log_append_time_ms(partition.log_append_time_ms);
                    if version >= 5 {
                        expected.log_start_offset = partition.log_start_offset;
                    }
                    if version >= 8 {
                        expected.error_message = partition.error_message.clone().map(StrBytes::from_string);
                        expected.record_errors = partition.record_errors.iter().map(record_error).collect();
                    }
                    topic.partition_responses.push(expected);
                    partitions.push(partition);
                }
                if version >= 13 {
                    topic.topic_id = id;
                    ours.push((TopicKey::Id(id), partitions));
                } else {
                    ours.push((TopicKey::Name(name.clone().into_bytes()), partitions));
                    topic.name = name.into();
                }
                theirs.responses.push(topic);
            }
            let frame = produce::encode_response(version, correlation_id, &ours, throttle_ms);
            let expected = respond::encode(ApiKey::Produce, version, correlation_id, &theirs).unwrap();
            assert_eq!(frame, expected, "v{version}");
            assert_eq!(
                super::decode_response::<ProduceResponse>(ApiKey::Produce, version, frame),
                theirs,
                "v{version}"
            );
        }
    }
}

#[test]
fn a_message_too_long_for_the_wire_is_cut() {
    let partition = ProducePartitionResponse {
        index: 0,
        error: ErrorCode::InvalidRecord,
        base_offset: -1,
        log_append_time_ms: -1,
        log_start_offset: -1,
        record_errors: Vec::new(),
        error_message: Some("é".repeat(20_000)),
    };
    for (version, key) in [(8, TopicKey::Name(Bytes::from_static(b"t"))), (13, TopicKey::Id(uuid::Uuid::nil()))] {
        let frame = produce::encode_response(version, 1, &[(key, vec![partition.clone()])], 0);
        let decoded: ProduceResponse = super::decode_response(ApiKey::Produce, version, frame);
        assert_eq!(decoded.responses[0].partition_responses[0].error_message.as_ref().unwrap().len(), 32766);
    }
}

#[test]
fn partitions_without_batches_are_bounded_by_the_requests_size() {
    let request = |partitions: usize, records: usize| {
        let partition = produce_request::PartitionProduceData::default()
            .with_records((records > 0).then(|| Bytes::from(vec![0; records])));
        let topic = produce_request::TopicProduceData::default()
            .with_name(StrBytes::from_static_str("t").into())
            .with_partition_data(vec![partition; partitions]);
        let mut body = BytesMut::new();
        CrateRequest::default().with_topic_data(vec![topic]).encode(&mut body, 7).unwrap();
        produce::decode(7, body.freeze()).is_ok()
    };
    assert!(request(60, 0) && request(100_000, 61));
    assert!(!request(1000, 0) && !request(100_000, 0));
}
