//! Requests between transaction coordinators and leaders of partitions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use kafka_protocol::messages::add_partitions_to_txn_request::{AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction};
use kafka_protocol::messages::{AddPartitionsToTxnRequest, ApiKey, ProducerId, TopicName, TransactionalId};
use kafka_protocol::protocol::StrBytes;

use super::connection::Connection;
use super::error::ClientError;
use crate::model::Marker;
use crate::protocol::markers;

const CLIENT_ID: &str = "corelane";
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// A partition by its topic's name, and the code of its outcome.
pub type Outcome = ((Arc<str>, i32), i16);

/// WriteTxnMarkers, one marker.
pub async fn write_markers<'a>(
    connection: &mut Connection,
    marker: &Marker,
    partitions: impl Iterator<Item = &'a (Arc<str>, i32)>,
) -> Result<Vec<Outcome>, ClientError> {
    let topics: Vec<(&str, Vec<i32>)> = by_topic(partitions).into_iter().collect();
    let version = connection.versions().pick(ApiKey::WriteTxnMarkers, (markers::MIN_VERSION, markers::MAX_VERSION))?;
    let make = |id| markers::encode_request(version, id, CLIENT_ID, marker, &topics);
    let frame = connection.exchange(ANSWER_WITHIN, "WriteTxnMarkers", make).await?;
    let mut outcomes = Vec::new();
    markers::read_response(version, frame, |topic, index, code| outcomes.push(((topic.into(), index), code)))?;
    Ok(outcomes)
}

/// AddPartitionsToTxn of one transaction, as brokers ask it.
pub async fn add_partitions<'a>(
    connection: &mut Connection,
    (transactional_id, producer_id, producer_epoch): (&str, i64, i16),
    partitions: impl Iterator<Item = &'a (Arc<str>, i32)>,
    verify_only: bool,
) -> Result<Vec<Outcome>, ClientError> {
    let topics = by_topic(partitions)
        .into_iter()
        .map(|(name, indexes)| AddPartitionsToTxnTopic::default().with_name(topic_name(name)).with_partitions(indexes));
    let transaction = AddPartitionsToTxnTransaction::default()
        .with_transactional_id(TransactionalId(StrBytes::from_string(transactional_id.to_owned())))
        .with_producer_id(ProducerId(producer_id))
        .with_producer_epoch(producer_epoch)
        .with_verify_only(verify_only)
        .with_topics(topics.collect());
    let version = connection.versions().pick(ApiKey::AddPartitionsToTxn, (4, 5))?;
    let request = AddPartitionsToTxnRequest::default().with_transactions(vec![transaction]);
    let answer = connection.call(version, &request).await?;
    if answer.error_code != 0 {
        return Err(ClientError::Broker { what: "AddPartitionsToTxn".into(), code: answer.error_code });
    }
    let topics = answer.results_by_transaction.into_iter().flat_map(|transaction| transaction.topic_results);
    let outcomes = topics.flat_map(|topic| {
        let name: Arc<str> = topic.name.0.as_str().into();
        let results = topic.results_by_partition.into_iter();
        results.map(move |result| ((name.clone(), result.partition_index), result.partition_error_code))
    });
    Ok(outcomes.collect())
}

fn by_topic<'a>(partitions: impl Iterator<Item = &'a (Arc<str>, i32)>) -> BTreeMap<&'a str, Vec<i32>> {
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, index) in partitions {
        topics.entry(topic).or_default().push(*index);
    }
    topics
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}
