//! Transactions: the APIs of their coordinator, but for InitProducerId.

use std::time::{Duration, Instant};

use kafka_protocol::messages::add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction};
use kafka_protocol::messages::add_partitions_to_txn_response::AddPartitionsToTxnTopicResult;
use kafka_protocol::messages::txn_offset_commit_request::{
    TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddPartitionsToTxnRequest, DescribeTransactionsRequest, EndTxnRequest,
    InitProducerIdRequest, ListTransactionsRequest, ProducerId, TransactionalId, TxnOffsetCommitRequest,
};

use crate::committed::fetched;
use crate::groups::group;
use crate::support::world::*;

const OPERATION_NOT_ATTEMPTED: i16 = 55;
const INVALID_PRODUCER_EPOCH: i16 = 47;
const INVALID_PRODUCER_ID_MAPPING: i16 = 49;
const UNSTABLE_OFFSET_COMMIT: i16 = 88;
const PRODUCER_FENCED: i16 = 90;
const TRANSACTIONAL_ID_NOT_FOUND: i16 = 105;
const TRANSACTION_ABORTABLE: i16 = 120;
const INVALID_REGULAR_EXPRESSION: i16 = 128;
/// The coordinator is being made or loaded, or has the last transaction to end.
const PASSING: [i16; 4] = [14, 15, 16, 51];
const PATIENCE: Duration = Duration::from_secs(30);

/// Id and epoch of a producer.
pub type Producer = (i64, i16);

pub fn transactional_id(id: &str) -> TransactionalId {
    TransactionalId(text(id))
}

/// Asks until the coordinator has an answer: the error, and the producer of the transactional id.
pub fn initialized(world: &mut World, version: i16, id: &str) -> (i16, Producer) {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(transactional_id(id)))
        .with_transaction_timeout_ms(60_000);
    eventually(|| {
        let response = world.client.call(version, &request);
        let answer = (response.error_code, (response.producer_id.0, response.producer_epoch));
        Some(answer).filter(|(error, _)| !PASSING.contains(error))
    })
}

fn eventually<T>(mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn producer(world: &mut World, id: &str) -> Producer {
    let (error, producer) = initialized(world, 4, id);
    assert_eq!((error, producer.1), (0, 0));
    producer
}

/// The code by which clients of `version` know that a producer is fenced.
fn fenced(version: i16) -> i16 {
    if version >= 2 { PRODUCER_FENCED } else { INVALID_PRODUCER_EPOCH }
}

fn topics(named: &[(&str, &[i32])]) -> Vec<AddPartitionsToTxnTopic> {
    let topic = |(name, partitions): &(&str, &[i32])| {
        AddPartitionsToTxnTopic::default().with_name(topic_name(name)).with_partitions(partitions.to_vec())
    };
    named.iter().map(topic).collect()
}

fn rows(topics: &[AddPartitionsToTxnTopicResult]) -> Vec<(String, i32, i16)> {
    let row = |topic: &AddPartitionsToTxnTopicResult| {
        let name = topic.name.0.to_string();
        let row = |index, code| (name.clone(), index, code);
        topic.results_by_partition.iter().map(|p| row(p.partition_index, p.partition_error_code)).collect::<Vec<_>>()
    };
    let mut rows: Vec<_> = topics.iter().flat_map(row).collect();
    rows.sort();
    rows
}

/// Topic, partition and error.
fn added(
    world: &mut World,
    version: i16,
    id: &str,
    (producer, epoch): Producer,
    named: &[(&str, &[i32])],
) -> Vec<(String, i32, i16)> {
    if version < 4 {
        let request = AddPartitionsToTxnRequest::default()
            .with_v3_and_below_transactional_id(transactional_id(id))
            .with_v3_and_below_producer_id(ProducerId(producer))
            .with_v3_and_below_producer_epoch(epoch)
            .with_v3_and_below_topics(topics(named));
        return rows(&world.client.call(version, &request).results_by_topic_v3_and_below);
    }
    let transaction = |verify_only| {
        AddPartitionsToTxnTransaction::default()
            .with_transactional_id(transactional_id(id))
            .with_producer_id(ProducerId(producer))
            .with_producer_epoch(epoch)
            .with_verify_only(verify_only)
            .with_topics(topics(named))
    };
    // The second only asks what the first has done.
    let request = AddPartitionsToTxnRequest::default().with_transactions(vec![transaction(false), transaction(true)]);
    let response = world.client.call(version, &request);
    assert_eq!((response.error_code, response.results_by_transaction.len()), (0, 2));
    assert!(response.results_by_transaction.iter().all(|result| &*result.transactional_id.0 == id));
    let [first, second] = [0, 1].map(|at| rows(&response.results_by_transaction[at].topic_results));
    assert_eq!(first, second);
    first
}

pub fn add_partitions_to_txn(world: &mut World, version: i16) {
    let (id, topic) = (format!("add-{version}"), world.create(&format!("added-{version}"), 3).name);
    let (producer, epoch) = producer(world, &id);
    let row = |name: &str, index, code| (name.to_owned(), index, code);
    let unknown = code::UNKNOWN_TOPIC_OR_PARTITION;
    let bad = added(world, version, &id, (producer, epoch), &[(&topic, &[0, 9]), (NO_SUCH_TOPIC, &[0])]);
    let refused = [row(&topic, 0, OPERATION_NOT_ATTEMPTED), row(&topic, 9, unknown), row(NO_SUCH_TOPIC, 0, unknown)];
    assert_eq!(bad, refused);
    let good = added(world, version, &id, (producer, epoch), &[(&topic, &[1, 0])]);
    assert_eq!(good, [row(&topic, 0, 0), row(&topic, 1, 0)]);
    let mut refused = |id: &str, producer| added(world, version, id, producer, &[(&topic, &[0])])[0].2;
    assert_eq!(refused(&id, (producer, epoch + 1)), fenced(version));
    assert_eq!(refused(&id, (producer + 1000, epoch)), INVALID_PRODUCER_ID_MAPPING);
    assert_eq!(refused("never-heard-of", (producer, epoch)), INVALID_PRODUCER_ID_MAPPING);
    assert_eq!(refused("", (producer, epoch)), code::INVALID_REQUEST);
    if version >= 4 {
        let verify = AddPartitionsToTxnTransaction::default()
            .with_transactional_id(transactional_id(&id))
            .with_producer_id(ProducerId(producer))
            .with_producer_epoch(epoch)
            .with_verify_only(true)
            .with_topics(topics(&[(&topic, &[1, 2])]));
        let response =
            world.client.call(version, &AddPartitionsToTxnRequest::default().with_transactions(vec![verify]));
        let seen = rows(&response.results_by_transaction[0].topic_results);
        assert_eq!(seen, [row(&topic, 1, 0), row(&topic, 2, TRANSACTION_ABORTABLE)]);
    }
    assert_eq!(ended(world, 3, &id, (producer, epoch), false), (0, (-1, -1)));
}

fn add_offsets(world: &mut World, version: i16, id: &str, (producer, epoch): Producer, group_id: &str) -> i16 {
    let request = AddOffsetsToTxnRequest::default()
        .with_transactional_id(transactional_id(id))
        .with_producer_id(ProducerId(producer))
        .with_producer_epoch(epoch)
        .with_group_id(group(group_id));
    world.client.call(version, &request).error_code
}

pub fn add_offsets_to_txn(world: &mut World, version: i16) {
    let id = format!("add-offsets-{version}");
    let (producer, epoch) = producer(world, &id);
    assert_eq!(add_offsets(world, version, &id, (producer, epoch), "some"), 0);
    assert_eq!(add_offsets(world, version, &id, (producer, epoch + 1), "some"), fenced(version));
    assert_eq!(add_offsets(world, version, "", (producer, epoch), "some"), code::INVALID_REQUEST);
    assert_eq!(ended(world, 3, &id, (producer, epoch), false), (0, (-1, -1)));
}

/// The error, and the producer of the next transaction.
fn ended(world: &mut World, version: i16, id: &str, (producer, epoch): Producer, commit: bool) -> (i16, Producer) {
    let request = EndTxnRequest::default()
        .with_transactional_id(transactional_id(id))
        .with_producer_id(ProducerId(producer))
        .with_producer_epoch(epoch)
        .with_committed(commit);
    let response = world.client.call(version, &request);
    (response.error_code, (response.producer_id.0, response.producer_epoch))
}

pub fn end_txn(world: &mut World, version: i16) {
    let (id, topic) = (format!("end-{version}"), world.create(&format!("ended-{version}"), 1));
    let (producer, epoch) = producer(world, &id);
    let nobody = (-1, -1);
    assert_eq!(added(world, 3, &id, (producer, epoch), &[(&topic.name, &[0])])[0].2, 0);
    assert_eq!(ended(world, version, &id, (producer, epoch + 1), true), (fenced(version), nobody));
    assert_eq!(ended(world, version, "never-heard-of", (producer, epoch), true).0, INVALID_PRODUCER_ID_MAPPING);
    assert_eq!(ended(world, version, "", (producer, epoch), true), (code::INVALID_REQUEST, nobody));
    let next = if version >= 5 { (producer, epoch + 1) } else { nobody };
    assert_eq!(ended(world, version, &id, (producer, epoch), true), (0, next));
    eventually(|| (world.latest(&topic, 0) == 1).then_some(()));
}

pub fn txn_offset_commit(world: &mut World, version: i16) {
    let (id, group_id) = (format!("commit-offsets-{version}"), format!("txn-group-{version}"));
    let (producer, epoch) = producer(world, &id);
    // From then on it is added by the commit.
    if version < 5 {
        assert_eq!(add_offsets(world, 3, &id, (producer, epoch), &group_id), 0);
    }
    let topic = |name: &str, partition, offset| {
        let partition = TxnOffsetCommitRequestPartition::default()
            .with_partition_index(partition)
            .with_committed_offset(offset)
            .with_committed_metadata(Some(text("m")));
        TxnOffsetCommitRequestTopic::default().with_name(topic_name(name)).with_partitions(vec![partition])
    };
    let request = TxnOffsetCommitRequest::default()
        .with_transactional_id(transactional_id(&id))
        .with_group_id(group(&group_id))
        .with_producer_id(ProducerId(producer))
        .with_producer_epoch(epoch)
        .with_topics(vec![topic(&world.stock.name, 0, 3), topic(NO_SUCH_TOPIC, 0, 3)]);
    let response = world.client.call(version, &request);
    let rows: Vec<_> = response.topics.iter().map(|topic| (&*topic.name.0, topic.partitions[0].error_code)).collect();
    assert_eq!(rows, [("stock", 0), (NO_SUCH_TOPIC, code::UNKNOWN_TOPIC_OR_PARTITION)]);
    let offset = |world: &mut World| {
        let (error, rows) = fetched(world, 9, &group_id, Some(&[0]));
        assert_eq!(error, 0);
        (rows[0].1.0, rows[0].1.3)
    };
    assert_eq!(offset(world), (-1, UNSTABLE_OFFSET_COMMIT));
    assert_eq!(ended(world, 3, &id, (producer, epoch), true).0, 0);
    eventually(|| (offset(world) == (3, 0)).then_some(()));
}

pub fn describe_transactions(world: &mut World, version: i16) {
    let topic = world.create("described-in-txn", 2).name;
    let (producer, epoch) = producer(world, "described");
    assert_eq!(added(world, 3, "described", (producer, epoch), &[(&topic, &[1])])[0].2, 0);
    let ids = ["described", "never-heard-of"].map(transactional_id).to_vec();
    let response = world
        .client
        .call(version, &DescribeTransactionsRequest::default().with_transactional_ids(ids))
        .transaction_states;
    let [found, missing] = &response[..] else { panic!("{response:?}") };
    assert_eq!((found.error_code, &*found.transaction_state, found.transaction_timeout_ms), (0, "Ongoing", 60_000));
    assert_eq!((found.producer_id.0, found.producer_epoch), (producer, epoch));
    let topics: Vec<_> = found.topics.iter().map(|topic| (&*topic.topic.0, &topic.partitions[..])).collect();
    assert_eq!(topics, [(&*topic, &[1][..])]);
    assert_eq!((missing.error_code, &*missing.transactional_id.0), (TRANSACTIONAL_ID_NOT_FOUND, "never-heard-of"));
}

pub fn list_transactions(world: &mut World, version: i16) {
    let id = format!("listed-{version}");
    let (producer, _) = producer(world, &id);
    let mut listed = |request: ListTransactionsRequest| {
        let response = world.client.call(version, &request);
        let state = |id: &TransactionalId, state: &str| (id.0.to_string(), state.to_owned());
        let states: Vec<_> =
            response.transaction_states.iter().map(|s| state(&s.transactional_id, &s.transaction_state)).collect();
        (response.error_code, states, response.unknown_state_filters.len())
    };
    let of = || ListTransactionsRequest::default().with_producer_id_filters(vec![ProducerId(producer)]);
    let found = vec![(id.clone(), "Empty".to_owned())];
    assert_eq!(listed(of()), (0, found.clone(), 0));
    assert_eq!(listed(of().with_state_filters(vec![text("Empty"), text("Nothing")])), (0, found.clone(), 1));
    assert_eq!(listed(of().with_state_filters(vec![text("Ongoing")])), (0, vec![], 0));
    if version >= 2 {
        let like =
            |pattern: &str| ListTransactionsRequest::default().with_transactional_id_pattern(Some(text(pattern)));
        assert_eq!(listed(like(&format!("list..-{version}"))), (0, found, 0));
        assert_eq!(listed(like("isted")), (0, vec![], 0));
        assert_eq!(listed(like("(")).0, INVALID_REGULAR_EXPRESSION);
    }
}
