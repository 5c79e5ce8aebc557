use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, FetchRequest as CrateRequest, FetchResponse, fetch_request, fetch_response};
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::Random;
use crate::model::ErrorCode;
use crate::protocol::fetch::{self, FetchPartition, FetchPartitionResponse, FetchRequest, FetchTopic, ForgottenTopic};
use crate::protocol::{TopicKey, respond};

/// A request as the crate encodes it, and as ours must decode it.
fn request(version: i16, random: &mut Random) -> (Bytes, FetchRequest) {
    let flexible = version >= 12;
    let mut theirs = CrateRequest::default()
        .with_max_wait_ms(random.next() as i32)
        .with_min_bytes(random.next() as i32)
        .with_max_bytes(random.next() as i32)
        .with_isolation_level(random.next() as i8)
        .with_unknown_tagged_fields(random.tags(flexible));
    let mut ours = FetchRequest {
        max_wait_ms: theirs.max_wait_ms,
        min_bytes: theirs.min_bytes,
        max_bytes: theirs.max_bytes,
        isolation_level: theirs.isolation_level,
        session_id: 0,
        session_epoch: -1,
        topics: Vec::new(),
        forgotten: Vec::new(),
        rack_id: None,
        replica_id: random.next() as i32,
        replica_epoch: -1,
    };
    if version >= 15 {
        if random.chance(3) {
            ours.replica_id = -1; // the default: the field is left out
        } else {
            ours.replica_epoch = random.next() as i64;
            theirs.replica_state = fetch_request::ReplicaState::default()
                .with_replica_id(ours.replica_id.into())
                .with_replica_epoch(ours.replica_epoch)
                .with_unknown_tagged_fields(random.tags(true));
        }
    } else {
        theirs.replica_id = ours.replica_id.into();
    }
    if flexible && random.chance(2) {
        theirs.cluster_id = Some(random.str_bytes());
    }
    if version >= 7 {
        (ours.session_id, ours.session_epoch) = (random.next() as i32, random.next() as i32);
        (theirs.session_id, theirs.session_epoch) = (ours.session_id, ours.session_epoch);
        for _ in 0..random.below(3) {
            let (topic, forgotten) = forgotten(version, random);
            theirs.forgotten_topics_data.push(topic);
            ours.forgotten.push(forgotten);
        }
    }
    if version >= 11 {
        let rack = random.text();
        theirs.rack_id = StrBytes::from_string(rack.clone());
        ours.rack_id = Some(rack);
    }
    for _ in 0..random.below(4) {
        let (name, id) = (random.str_bytes(), random.uuid());
        let mut topic = fetch_request::FetchTopic::default().with_unknown_tagged_fields(random.tags(flexible));
        let mut partitions = Vec::new();
        for _ in 0..random.below(4) {
            let (theirs, ours) = partition(version, random);
            topic.partitions.push(theirs);
            partitions.push(ours);
        }
        let key = if version >= 13 {
            topic.topic_id = id;
            TopicKey::Id(id)
        } else {
            topic.topic = name.clone().into();
            TopicKey::Name(name.into_bytes())
        };
        theirs.topics.push(topic);
        ours.topics.push(FetchTopic { topic: key, partitions });
    }
    let mut body = BytesMut::new();
    theirs.encode(&mut body, version).unwrap();
    (body.freeze(), ours)
}

fn forgotten(version: i16, random: &mut Random) -> (fetch_request::ForgottenTopic, ForgottenTopic) {
    let (name, id) = (random.str_bytes(), random.uuid());
    let partitions: Vec<i32> = (0..random.below(4)).map(|_| random.next() as i32).collect();
    let mut theirs = fetch_request::ForgottenTopic::default()
        .with_partitions(partitions.clone())
        .with_unknown_tagged_fields(random.tags(version >= 12));
    let topic = if version >= 13 {
        theirs.topic_id = id;
        TopicKey::Id(id)
    } else {
        theirs.topic = name.clone().into();
        TopicKey::Name(name.into_bytes())
    };
    (theirs, ForgottenTopic { topic, partitions })
}

fn partition(version: i16, random: &mut Random) -> (fetch_request::FetchPartition, FetchPartition) {
    let ours = FetchPartition {
        index: random.next() as i32,
        current_leader_epoch: if version >= 9 { random.next() as i32 } else { -1 },
        fetch_offset: random.next() as i64,
        last_fetched_epoch: if version >= 12 { random.next() as i32 } else { -1 },
        log_start_offset: if version >= 5 { random.next() as i64 } else { -1 },
        max_bytes: random.next() as i32,
    };
    let mut theirs = fetch_request::FetchPartition::default()
        .with_partition(ours.index)
        .with_current_leader_epoch(ours.current_leader_epoch)
        .with_fetch_offset(ours.fetch_offset)
        .with_last_fetched_epoch(ours.last_fetched_epoch)
        .with_log_start_offset(ours.log_start_offset)
        .with_partition_max_bytes(ours.max_bytes)
        .with_unknown_tagged_fields(random.tags(version >= 12));
    if version >= 17 && random.chance(2) {
        theirs.replica_directory_id = random.uuid();
    }
    if version >= 18 && random.chance(2) {
        theirs.high_watermark = random.next() as i64;
    }
    (theirs, ours)
}

#[test]
fn requests_are_read_as_the_crate_writes_them() {
    let mut random = Random(21);
    for version in fetch::MIN_VERSION..=fetch::MAX_VERSION {
        for _ in 0..100 {
            let (body, expected) = request(version, &mut random);
            assert_eq!(fetch::decode(version, body).unwrap(), expected, "v{version}");
        }
    }
}

#[test]
fn cut_extended_and_damaged_requests_are_errors_and_never_panics() {
    let mut random = Random(22);
    for version in fetch::MIN_VERSION..=fetch::MAX_VERSION {
        for _ in 0..30 {
            let (body, _) = request(version, &mut random);
            for cut in 0..body.len() {
                assert!(fetch::decode(version, body.slice(..cut)).is_err(), "v{version} cut at {cut}");
            }
            assert_eq!(fetch::decode(version, [&body[..], &[0]].concat().into()), fetch::decode(version, body.clone()));
            for _ in 0..100 {
                let _ = fetch::decode(version, random.damage(&body).into());
            }
        }
    }
    assert!(fetch::decode(3, Bytes::new()).is_err() && fetch::decode(18, Bytes::new()).is_err());
}

/// The least that our decoder supposes a topic and a partition to take must not
/// be more than they take.
#[test]
fn the_smallest_topics_and_partitions_are_read() {
    for version in fetch::MIN_VERSION..=fetch::MAX_VERSION {
        // Many, so that one byte too many for each is more than the fields after them.
        for (topics, partitions) in [(0, 0), (1, 0), (1, 1), (60, 0), (1, 60), (60, 1)] {
            let mut topic = fetch_request::FetchTopic::default();
            topic.partitions = vec![Default::default(); partitions];
            let mut request = CrateRequest::default();
            request.topics = vec![topic; topics];
            let mut body = BytesMut::new();
            request.encode(&mut body, version).unwrap();
            let decoded = fetch::decode(version, body.freeze()).unwrap();
            assert_eq!(decoded.topics.len(), topics);
            assert!(decoded.topics.iter().all(|topic| topic.partitions.len() == partitions));
        }
    }
}

#[test]
fn a_replica_state_cut_short_is_refused() {
    let mut request = CrateRequest::default();
    request.replica_state.replica_id = 3.into();
    let mut body = BytesMut::new();
    request.encode(&mut body, 15).unwrap();
    // One tagged field: count 1, tag 1, size 13, four bytes of id, eight of epoch, no further tags.
    let at = body.len() - 16;
    assert_eq!(body[at..at + 3], [1, 1, 13]);
    assert_eq!(fetch::decode(15, body.clone().freeze()).unwrap().replica_id, 3);
    body.truncate(body.len() - 1);
    body[at + 2] = 12;
    let error = fetch::decode(15, body.freeze()).unwrap_err().to_string();
    assert!(error.contains("replica_state"), "{error}");
}

/// A response in our words, and in the crate's.
fn response(version: i16, random: &mut Random) -> (Vec<(TopicKey, Vec<FetchPartitionResponse>)>, FetchResponse) {
    let (mut ours, mut theirs) = (Vec::new(), FetchResponse::default());
    for _ in 0..random.below(4) {
        let (name, id) = (random.str_bytes(), random.uuid());
        let mut topic = fetch_response::FetchableTopicResponse::default();
        let mut partitions = Vec::new();
        for _ in 0..random.below(5) {
            let partition = FetchPartitionResponse {
                index: random.next() as i32,
                error: if random.chance(2) { ErrorCode::None } else { ErrorCode::OffsetOutOfRange },
                high_watermark: random.next() as i64,
                last_stable_offset: random.next() as i64,
                log_start_offset: random.next() as i64,
                aborted: random
                    .chance(2)
                    .then(|| (0..random.below(3)).map(|_| (random.next() as i64, random.next() as i64)).collect()),
                records: (0..random.below(4)).map(|_| random.bytes(200)).collect(),
                diverging: random.chance(3).then(|| (random.next() as i32, random.next() as i64)),
                preferred_replica: random.chance(3).then(|| random.next() as i32),
            };
            let mut expected = fetch_response::PartitionData::default()
                .with_partition_index(partition.index)
                .with_error_code(partition.error.code())
                .with_high_watermark(partition.high_watermark)
                .with_last_stable_offset(partition.last_stable_offset)
                .with_aborted_transactions(partition.aborted.as_ref().map(|aborted| {
                    let txn = |(id, first): &(i64, i64)| {
                        let txn = fetch_response::AbortedTransaction::default();
                        txn.with_producer_id((*id).into()).with_first_offset(*first)
                    };
                    aborted.iter().map(txn).collect()
                }))
                .with_records(Some(partition.records.concat().into()));
            if version >= 5 {
                expected.log_start_offset = partition.log_start_offset;
            }
            if let Some(preferred) = partition.preferred_replica.filter(|_| version >= 11) {
                expected.preferred_read_replica = preferred.into();
            }
            if let Some((epoch, end)) = partition.diverging.filter(|_| version >= 12) {
                expected.diverging_epoch =
                    fetch_response::EpochEndOffset::default().with_epoch(epoch).with_end_offset(end);
            }
            topic.partitions.push(expected);
            partitions.push(partition);
        }
        let key = if version >= 13 {
            topic.topic_id = id;
            TopicKey::Id(id)
        } else {
            topic.topic = name.clone().into();
            TopicKey::Name(name.into_bytes())
        };
        theirs.responses.push(topic);
        ours.push((key, partitions));
    }
    (ours, theirs)
}

#[test]
fn responses_are_written_as_the_crate_writes_them() {
    let mut random = Random(23);
    for version in fetch::MIN_VERSION..=fetch::MAX_VERSION {
        for _ in 0..100 {
            let (ours, mut theirs) = response(version, &mut random);
            let (correlation_id, session_id) = (random.next() as i32, random.next() as i32);
            let error = if random.chance(2) { ErrorCode::None } else { ErrorCode::FetchSessionIdNotFound };
            if version >= 7 {
                (theirs.error_code, theirs.session_id) = (error.code(), session_id);
            }
            let slices = fetch::encode_response(version, correlation_id, 0, error, session_id, ours);
            assert!(slices.iter().all(|slice| !slice.is_empty()));
            let frame = Bytes::from(slices.concat());
            let expected = respond::encode(ApiKey::Fetch, version, correlation_id, &theirs).unwrap();
            assert_eq!(frame, expected, "v{version}");
            assert_eq!(super::decode_response::<FetchResponse>(ApiKey::Fetch, version, frame), theirs, "v{version}");
        }
    }
}

#[test]
fn records_are_passed_on_uncopied() {
    let records = [Bytes::from(vec![1; 50]), Bytes::new(), Bytes::from(vec![2; 70])];
    let partition = |index, records: &[Bytes]| FetchPartitionResponse {
        index,
        error: ErrorCode::None,
        high_watermark: 9,
        last_stable_offset: 9,
        log_start_offset: 0,
        aborted: None,
        records: records.to_vec(),
        diverging: None,
        preferred_replica: None,
    };
    let partitions = vec![partition(0, &records), partition(1, &[]), partition(2, &records[2..])];
    let topics = vec![(TopicKey::Name(Bytes::from_static(b"t")), partitions)];
    let slices = fetch::encode_response(12, 1, 0, ErrorCode::None, 0, topics);
    // fields, two batches, fields (with all of the empty partition), one batch, fields
    assert_eq!(slices.len(), 6);
    assert_eq!(slices[1].as_ptr(), records[0].as_ptr());
    assert_eq!(slices[2].as_ptr(), records[2].as_ptr());
    assert_eq!(slices[4].as_ptr(), records[2].as_ptr());
    let sent: usize = slices.iter().map(Bytes::len).sum();
    assert_eq!(slices[0][..4], (sent as i32 - 4).to_be_bytes());
}

#[test]
fn what_a_frame_cannot_hold_is_left_for_the_next_fetch() {
    // One gigabyte that is shared three times, never copied.
    let gigabyte = Bytes::from(vec![0; 1 << 30]);
    let partition = |index| FetchPartitionResponse {
        index,
        error: ErrorCode::None,
        high_watermark: 9,
        last_stable_offset: 9,
        log_start_offset: 0,
        aborted: None,
        records: vec![gigabyte.clone()],
        diverging: None,
        preferred_replica: None,
    };
    let topics = vec![(TopicKey::Id(uuid::Uuid::nil()), vec![partition(0), partition(1), partition(2)])];
    let slices = fetch::encode_response(13, 1, 0, ErrorCode::None, 0, topics);
    let sent: usize = slices.iter().map(Bytes::len).sum();
    assert_eq!(slices[0][..4], (sent as i32 - 4).to_be_bytes());
    assert_eq!(slices.iter().filter(|slice| slice.len() == gigabyte.len()).count(), 1);
}
