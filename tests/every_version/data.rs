//! Produce and Fetch.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic, ForgottenTopic};
use kafka_protocol::messages::fetch_response::PartitionData;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::{
    ApiKey, FetchRequest, FetchResponse, InitProducerIdRequest, ProduceRequest, ProduceResponse,
};
use uuid::Uuid;

use crate::support::client::Client;
use crate::support::world::*;

/// Topics are named by id from here on, in both APIs.
const BY_ID: i16 = 13;
/// Named in ApiVersions for old clients' sake and refused.
const PRODUCE_REFUSED: i16 = 2;

pub fn produce(world: &mut World, version: i16) {
    if version <= PRODUCE_REFUSED {
        let mut client = Client::connect(world.port);
        client.send_body(ApiKey::Produce as i16, version, 1, &[0, 1, 0, 0, 0, 9, 0, 0, 0, 0]);
        assert!(client.is_closed_by_peer(), "Produce v{version} is answered");
        return;
    }
    let topic = world.create(&format!("produced-{version}"), 2);
    produce_good(world, version, &topic);
    produce_bad(world, version, &topic);
    produce_idempotent(world, version, &topic);
    produce_unheard(world, version, &topic);
}

/// (partition, records)
type Sent = (i32, Option<Bytes>);

fn produce_request(version: i16, acks: i16, topics: &[(&str, Uuid, Vec<Sent>)]) -> ProduceRequest {
    let topics = topics.iter().map(|(name, id, partitions)| {
        let partitions = partitions
            .iter()
            .map(|(index, records)| PartitionProduceData::default().with_index(*index).with_records(records.clone()));
        let topic = TopicProduceData::default().with_partition_data(partitions.collect());
        if version >= BY_ID { topic.with_topic_id(*id) } else { topic.with_name(topic_name(name)) }
    });
    ProduceRequest::default().with_acks(acks).with_timeout_ms(10_000).with_topic_data(topics.collect())
}

/// Topic by topic: index, error and base offset of its partitions.
fn produced(response: &ProduceResponse) -> Vec<Vec<(i32, i16, i64)>> {
    let topics = response.responses.iter();
    topics.map(|t| t.partition_responses.iter().map(|p| (p.index, p.error_code, p.base_offset)).collect()).collect()
}

fn produce_good(world: &mut World, version: i16, topic: &Topic) {
    let time = world.stock_time;
    let first = [(time, "a".to_owned()), (time + 1, "b".to_owned())];
    let second = [(time + 2, "c".to_owned())];
    for (acks, base) in [(-1, 0), (1, 2)] {
        let parts = vec![(0, Some(batch_of(&first))), (1, Some(batch_of(&second)))];
        let request = produce_request(version, acks, &[(&topic.name, topic.id, parts)]);
        let response = world.client.call(version, &request);
        assert_eq!(produced(&response), [[(0, 0, base), (1, 0, base / 2)]], "acks={acks}");
        let answered = &response.responses[0];
        if version >= BY_ID {
            assert_eq!(answered.topic_id, topic.id);
        } else {
            assert_eq!(&*answered.name.0, topic.name);
        }
        for place in &answered.partition_responses {
            let start = if version >= 5 { 0 } else { -1 };
            assert_eq!((place.log_append_time_ms, place.log_start_offset), (-1, start));
            assert!(place.record_errors.is_empty() && place.error_message.is_none(), "{place:?}");
        }
    }
    let read = world.read(topic, 0, 1);
    assert_eq!(read, [(1, "b".to_owned()), (2, "a".to_owned()), (3, "b".to_owned())]);
}

fn produce_bad(world: &mut World, version: i16, topic: &Topic) {
    let good = batch_of(&[(world.stock_time, "good".to_owned())]);
    let mut torn = good.to_vec();
    *torn.last_mut().unwrap() ^= 1;
    let mut old = good.to_vec();
    old[16] = 1;
    let two = [&good[..], &good[..]].concat();
    for (records, expected) in [
        (Some(Bytes::from(torn)), code::CORRUPT_MESSAGE),
        (Some(Bytes::from(old)), code::INVALID_RECORD),
        (Some(Bytes::from(two)), code::INVALID_RECORD),
        (Some(Bytes::new()), code::INVALID_RECORD),
        (None, code::INVALID_RECORD),
        // Control batches are the broker's own.
        (Some(with_attributes(&good, 0x20)), code::INVALID_RECORD),
    ] {
        let request = produce_request(version, -1, &[(&topic.name, topic.id, vec![(1, records)])]);
        let response = world.client.call(version, &request);
        assert_eq!(produced(&response), [[(1, expected, -1)]]);
        let told = response.responses[0].partition_responses[0].error_message.is_some();
        assert_eq!(told, version >= 8, "an error message");
    }
    if version < 7 {
        let zstd = with_attributes(&good, 4);
        let request = produce_request(version, -1, &[(&topic.name, topic.id, vec![(1, Some(zstd))])]);
        let response = world.client.call(version, &request);
        assert_eq!(produced(&response), [[(1, code::UNSUPPORTED_COMPRESSION_TYPE, -1)]]);
    }
    // What is wrong with one partition does not touch the next.
    let longest = longest();
    let unknown = if version >= BY_ID { code::UNKNOWN_TOPIC_ID } else { code::UNKNOWN_TOPIC_OR_PARTITION };
    let part = |index| (index, Some(good.clone()));
    let topics = [
        (NO_SUCH_TOPIC, NO_SUCH_ID, vec![part(0)]),
        (&*topic.name, topic.id, vec![part(2), part(1), part(-1)]),
        (&*longest, Uuid::from_u128(1), vec![part(0)]),
        (INVALID_NAME, Uuid::nil(), vec![part(0)]),
    ];
    let before = world.latest(topic, 1);
    let response = world.client.call(version, &produce_request(version, 1, &topics));
    let no_partition = code::UNKNOWN_TOPIC_OR_PARTITION;
    let expected = [
        vec![(0, unknown, -1)],
        vec![(2, no_partition, -1), (1, 0, before), (-1, no_partition, -1)],
        vec![(0, unknown, -1)],
        vec![(0, unknown, -1)],
    ];
    assert_eq!(produced(&response), expected);
    let response = world.client.call(version, &produce_request(version, 7, &topics[1..2]));
    assert_eq!(produced(&response), [[2, 1, -1].map(|index| (index, code::INVALID_REQUIRED_ACKS, -1))]);
}

fn produce_idempotent(world: &mut World, version: i16, topic: &Topic) {
    let id = world.client.call(5, &InitProducerIdRequest::default().with_transactional_id(None)).producer_id.0;
    let base = world.latest(topic, 1);
    let records = [(world.stock_time, "x".to_owned()), (world.stock_time, "y".to_owned())];
    // The second is what a client sends that did not get the first answer; the last leaves a gap.
    let gap = code::OUT_OF_ORDER_SEQUENCE_NUMBER;
    for (sequence, expected) in [(0, (1, 0, base)), (0, (1, 0, base)), (2, (1, 0, base + 2)), (9, (1, gap, -1))] {
        let batch = batch_from((id, 0, sequence), &records);
        let request = produce_request(version, -1, &[(&topic.name, topic.id, vec![(1, Some(batch))])]);
        assert_eq!(produced(&world.client.call(version, &request)), [[expected]], "sequence {sequence}");
    }
}

/// With acks=0 there is no response, and the next request's is the next.
fn produce_unheard(world: &mut World, version: i16, topic: &Topic) {
    let before = world.latest(topic, 0);
    let batch = batch_of(&[(world.stock_time, "unheard".to_owned())]);
    world.client.send(version, &produce_request(version, 0, &[(&topic.name, topic.id, vec![(0, Some(batch))])]));
    let begun = Instant::now();
    while world.latest(topic, 0) != before + 1 {
        assert!(begun.elapsed() < Duration::from_secs(60), "acks=0: not written");
    }
}

pub fn fetch(world: &mut World, version: i16) {
    fetch_good(world, version);
    fetch_bad(world, version);
    fetch_waits(world, version);
    if version >= 7 {
        fetch_in_a_session(world, version);
    }
}

/// (partition, offset, leader epoch the client believes in)
type Asked = (i32, i64, i32);

fn fetch_request(version: i16, topics: &[(&str, Uuid, Vec<Asked>)]) -> FetchRequest {
    let topics = topics.iter().map(|(name, id, partitions)| {
        let partitions = partitions.iter().map(|(partition, offset, epoch)| {
            let asked = FetchPartition::default()
                .with_partition(*partition)
                .with_fetch_offset(*offset)
                .with_current_leader_epoch(*epoch)
                .with_partition_max_bytes(1 << 20);
            if version >= 12 { asked.with_last_fetched_epoch(0) } else { asked }
        });
        let topic = FetchTopic::default().with_partitions(partitions.collect());
        if version >= BY_ID { topic.with_topic_id(*id) } else { topic.with_topic(topic_name(name)) }
    });
    FetchRequest::default()
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_isolation_level(1)
        .with_rack_id(text("north"))
        .with_topics(topics.collect())
}

fn session(request: FetchRequest, id: i32, epoch: i32) -> FetchRequest {
    request.with_session_id(id).with_session_epoch(epoch)
}

/// Topic by topic: index, error and high watermark of its partitions.
fn fetched(response: &FetchResponse) -> Vec<Vec<(i32, i16, i64)>> {
    let topics = response.responses.iter();
    let row = |p: &PartitionData| (p.partition_index, p.error_code, p.high_watermark);
    topics.map(|t| t.partitions.iter().map(row).collect()).collect()
}

fn fetch_good(world: &mut World, version: i16) {
    let all: Vec<(i64, String)> = (0..).zip(world.stock_records().into_iter().map(|(_, value)| value)).collect();
    let (name, id) = (world.stock.name.clone(), world.stock.id);
    for isolation in [0, 1] {
        let request =
            fetch_request(version, &[(&name, id, vec![(0, 2, 0), (1, 0, -1)])]).with_isolation_level(isolation);
        let response = world.client.call(version, &request);
        assert_eq!((response.error_code, response.session_id, response.throttle_time_ms), (0, 0, 0));
        assert_eq!(fetched(&response), [[(0, 0, 6), (1, 0, 0)]]);
        let answered = &response.responses[0];
        if version >= BY_ID {
            assert_eq!(answered.topic_id, id);
        } else {
            assert_eq!(&*answered.topic.0, name);
        }
        for (place, end) in answered.partitions.iter().zip([6, 0]) {
            let start = if version >= 5 { 0 } else { -1 };
            assert_eq!((place.last_stable_offset, place.log_start_offset), (end, start));
            assert_eq!(place.preferred_read_replica.0, -1);
            assert!(place.aborted_transactions.as_ref().is_none_or(Vec::is_empty), "{place:?}");
            assert!(place.records.is_some(), "no records are an empty set and not null");
        }
        assert_eq!(values(&answered.partitions[0].records), all[2..]);
        assert_eq!(values(&answered.partitions[1].records), []);
    }
}

fn fetch_bad(world: &mut World, version: i16) {
    let (name, id) = (world.stock.name.clone(), world.stock.id);
    let unknown = if version >= BY_ID { code::UNKNOWN_TOPIC_ID } else { code::UNKNOWN_TOPIC_OR_PARTITION };
    let longest = longest();
    let one = || vec![(0, 0, -1)];
    let topics = [
        (NO_SUCH_TOPIC, NO_SUCH_ID, one()),
        (&*name, id, vec![(7, 0, -1), (0, 0, -1), (1, 1, -1), (-1, 0, -1)]),
        (&*longest, Uuid::from_u128(1), one()),
        (INVALID_NAME, Uuid::from_u128(2), one()),
    ];
    let response = world.client.call(version, &fetch_request(version, &topics));
    assert_eq!(response.error_code, 0);
    let no_partition = code::UNKNOWN_TOPIC_OR_PARTITION;
    let expected = [
        vec![(0, unknown, -1)],
        vec![(7, no_partition, -1), (0, 0, 6), (1, code::OFFSET_OUT_OF_RANGE, -1), (-1, no_partition, -1)],
        vec![(0, unknown, -1)],
        vec![(0, unknown, -1)],
    ];
    assert_eq!(fetched(&response), expected);
    if version >= 9 {
        let response = world.client.call(version, &fetch_request(version, &[(&name, id, vec![(0, 0, 5)])]));
        assert_eq!(fetched(&response), [[(0, code::UNKNOWN_LEADER_EPOCH, -1)]]);
    }
}

fn fetch_waits(world: &mut World, version: i16) {
    let (name, id) = (world.stock.name.clone(), world.stock.id);
    let request = fetch_request(version, &[(&name, id, vec![(0, 6, -1)])]).with_max_wait_ms(30);
    let begun = Instant::now();
    let response = world.client.call(version, &request);
    assert_eq!(fetched(&response), [[(0, 0, 6)]]);
    assert_eq!(values(&response.responses[0].partitions[0].records), []);
    assert!(begun.elapsed() >= Duration::from_millis(30), "max.wait.ms: {:?}", begun.elapsed());
}

fn fetch_in_a_session(world: &mut World, version: i16) {
    let topic = world.create(&format!("session-{version}"), 2);
    let named = |asked: Vec<Asked>| fetch_request(version, &[(&topic.name, topic.id, asked)]);
    let batch = batch_of(&[(world.stock_time, "news".to_owned())]);

    let response = world.client.call(version, &session(named(vec![(0, 0, 0), (1, 0, -1)]), 0, 0));
    let id = response.session_id;
    assert!(response.error_code == 0 && id != 0, "{response:?}");
    assert_eq!(fetched(&response), [[(0, 0, 0), (1, 0, 0)]]);

    // Named are only the partitions with news.
    world.produce(&topic, 1, &batch);
    let response = world.client.call(version, &session(named(vec![]).with_topics(vec![]), id, 1));
    assert_eq!((response.error_code, response.session_id), (0, id));
    assert_eq!(fetched(&response), [[(1, 0, 1)]]);
    assert_eq!(values(&response.responses[0].partitions[0].records), [(0, "news".to_owned())]);

    // Partition 1 moves on to where nothing is, and is then forgotten; partition 0 gets a record.
    world.produce(&topic, 0, &batch);
    let response = world.client.call(version, &session(named(vec![(1, 1, -1)]), id, 2));
    assert_eq!(fetched(&response), [[(0, 0, 1)]]);
    world.produce(&topic, 1, &batch);
    let forgotten = ForgottenTopic::default().with_partitions(vec![1]);
    let forgotten = match version {
        BY_ID.. => forgotten.with_topic_id(topic.id),
        _ => forgotten.with_topic(topic_name(&topic.name)),
    };
    let request = named(vec![]).with_topics(vec![]).with_forgotten_topics_data(vec![forgotten]);
    let response = world.client.call(version, &session(request, id, 3));
    assert_eq!(fetched(&response), [[(0, 0, 1)]]);

    let refused = |response: FetchResponse| {
        assert_eq!((response.session_id, response.responses.len()), (0, 0));
        response.error_code
    };
    let empty = || named(vec![]).with_topics(vec![]);
    let response = world.client.call(version, &session(empty(), id, 3));
    assert_eq!(refused(response), code::INVALID_FETCH_SESSION_EPOCH);
    let response = world.client.call(version, &session(empty(), id ^ 0x1000_0000, 1));
    assert_eq!(refused(response), code::FETCH_SESSION_ID_NOT_FOUND);
    // One that was begun by name does not go on by id, nor the other way round.
    let other = if version >= BY_ID { BY_ID - 1 } else { BY_ID };
    let response = world.client.call(other, &session(empty(), id, 4));
    assert_eq!(refused(response), code::FETCH_SESSION_TOPIC_ID_ERROR);

    // Its end is a full answer outside any session.
    let response = world.client.call(version, &session(named(vec![(1, 0, -1)]), id, -1));
    assert_eq!((response.error_code, response.session_id), (0, 0));
    assert_eq!(fetched(&response), [[(1, 0, 2)]]);
    let response = world.client.call(version, &session(empty(), id, 4));
    assert_eq!(refused(response), code::FETCH_SESSION_ID_NOT_FOUND);
}
