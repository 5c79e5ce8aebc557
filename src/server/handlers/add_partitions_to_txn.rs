//! AddPartitionsToTxn: partitions become part of a transaction (KIP-98); between brokers, of many,
//! or only verified (KIP-890).

use std::collections::{BTreeMap, BTreeSet};

use kafka_protocol::messages::add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction};
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse, ApiKey};

use super::shared::{fenced_before, find_partition, topic_name, transactional_id};
use crate::cluster::MetadataImage;
use crate::model::ErrorCode;
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};
use crate::transactions::api::{AddPartitionsRequest, Producer, TopicPartition};

pub const API: ApiSpec = ApiSpec::new(ApiKey::AddPartitionsToTxn, 0, 5);

/// Several transactions from here on: only brokers send these.
const BATCHED_FROM: i16 = 4;
/// PRODUCER_FENCED is known from here on.
const FENCED_FROM: i16 = 2;

/// A partition and its outcome.
type Outcome = (TopicPartition, ErrorCode);

pub async fn handle(
    session: &Session,
    Call { version, request }: Call<AddPartitionsToTxnRequest>,
) -> AddPartitionsToTxnResponse {
    if version < BATCHED_FROM {
        let transaction = AddPartitionsToTxnTransaction::default()
            .with_transactional_id(request.v3_and_below_transactional_id)
            .with_producer_id(request.v3_and_below_producer_id)
            .with_producer_epoch(request.v3_and_below_producer_epoch)
            .with_topics(request.v3_and_below_topics);
        let outcomes = add(session, version, &transaction).await;
        return AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(by_topic(outcomes));
    }
    let mut results = Vec::with_capacity(request.transactions.len());
    for transaction in request.transactions {
        let outcomes = add(session, version, &transaction).await;
        results.push(
            AddPartitionsToTxnResult::default()
                .with_transactional_id(transaction.transactional_id)
                .with_topic_results(by_topic(outcomes)),
        );
    }
    AddPartitionsToTxnResponse::default().with_results_by_transaction(results)
}

async fn add(session: &Session, version: i16, transaction: &AddPartitionsToTxnTransaction) -> Vec<Outcome> {
    let partitions = match split_request(&session.shard().image(), &transaction.topics) {
        Ok(partitions) => partitions,
        Err(refused) => return refused,
    };
    let all = |code| partitions.iter().map(|partition| (partition.clone(), code)).collect();
    let id = match transactional_id(&transaction.transactional_id) {
        Ok(id) => id,
        Err(code) => return all(code),
    };
    let request = AddPartitionsRequest {
        id,
        producer: Producer { id: transaction.producer_id.0, epoch: transaction.producer_epoch },
        partitions: partitions.clone(),
        verify_only: transaction.verify_only,
        version: if version >= BATCHED_FROM { 2 } else { 0 },
    };
    match session.shard().add_partitions(request).await {
        Ok(outcomes) => outcomes,
        Err(code) => all(fenced_before(FENCED_FROM, version, code)),
    }
}

/// The partitions, each once; if one of them does not exist, nothing is done with the others.
fn split_request(
    image: &MetadataImage,
    topics: &[AddPartitionsToTxnTopic],
) -> Result<BTreeSet<TopicPartition>, Vec<Outcome>> {
    let mut outcomes: BTreeMap<TopicPartition, ErrorCode> = BTreeMap::new();
    for topic in topics {
        let found = image.find_topic(&topic.name.0);
        let name = match found {
            Ok(found) => found.name.clone(),
            Err(_) => topic.name.0.as_str().into(),
        };
        for index in &topic.partitions {
            let checked = found.and_then(|topic| find_partition(topic, *index));
            outcomes.insert((name.clone(), *index), checked.err().unwrap_or(ErrorCode::None));
        }
    }
    if outcomes.values().all(|code| *code == ErrorCode::None) {
        return Ok(outcomes.into_keys().collect());
    }
    let refuse = |(partition, code)| match code {
        ErrorCode::None => (partition, ErrorCode::OperationNotAttempted),
        code => (partition, code),
    };
    Err(outcomes.into_iter().map(refuse).collect())
}

/// Outcomes are in the order of their topics.
fn by_topic(outcomes: Vec<Outcome>) -> Vec<AddPartitionsToTxnTopicResult> {
    let mut topics: Vec<AddPartitionsToTxnTopicResult> = Vec::new();
    for ((topic, index), code) in outcomes {
        let result = AddPartitionsToTxnPartitionResult::default()
            .with_partition_index(index)
            .with_partition_error_code(code.code());
        match topics.last_mut() {
            Some(last) if *last.name.0 == *topic => last.results_by_partition.push(result),
            _ => topics.push(
                AddPartitionsToTxnTopicResult::default()
                    .with_name(topic_name(&topic))
                    .with_results_by_partition(vec![result]),
            ),
        }
    }
    topics
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::{image, through_the_wire};
    use super::*;

    fn topic(name: &str, partitions: &[i32]) -> AddPartitionsToTxnTopic {
        AddPartitionsToTxnTopic::default().with_name(topic_name(name)).with_partitions(partitions.to_vec())
    }

    #[test]
    fn all_partitions_are_added_or_none() {
        let image = image(&[("a", 1, 3), ("b", 2, 1)]);
        let good = split_request(&image, &[topic("a", &[2, 0, 2]), topic("b", &[0])]).unwrap();
        let expected = [("a".into(), 0), ("a".into(), 2), ("b".into(), 0)];
        assert_eq!(good, BTreeSet::from(expected));
        let bad = split_request(&image, &[topic("a", &[2, 3]), topic("zz", &[0])]).unwrap_err();
        let rows: Vec<_> = bad.iter().map(|((topic, index), code)| (&**topic, *index, code.code())).collect();
        assert_eq!(rows, [("a", 2, 55), ("a", 3, 3), ("zz", 0, 3)]);
    }

    #[test]
    fn outcomes_go_to_their_topics_in_every_version() {
        let outcomes = || {
            let outcome = |topic: &str, index, code| ((topic.into(), index), code);
            vec![
                outcome("a", 0, ErrorCode::None),
                outcome("a", 1, ErrorCode::ConcurrentTransactions),
                outcome("b", 5, ErrorCode::None),
            ]
        };
        for version in API.min..=API.max {
            let response = match version {
                0..4 => AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(by_topic(outcomes())),
                _ => AddPartitionsToTxnResponse::default().with_results_by_transaction(vec![
                    AddPartitionsToTxnResult::default().with_topic_results(by_topic(outcomes())),
                ]),
            };
            let seen = through_the_wire(API.key, version, &response);
            let topics = match version {
                0..4 => &seen.results_by_topic_v3_and_below,
                _ => &seen.results_by_transaction[0].topic_results,
            };
            let rows: Vec<_> = topics
                .iter()
                .flat_map(|topic| {
                    let results = topic.results_by_partition.iter();
                    results.map(|result| (&*topic.name.0, result.partition_index, result.partition_error_code))
                })
                .collect();
            assert_eq!(rows, [("a", 0, 0), ("a", 1, 51), ("b", 5, 0)], "v{version}");
        }
    }
}
