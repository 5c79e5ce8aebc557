//! Topics: where they are, making them, their offsets.

use std::collections::HashMap;
use std::time::Duration;

use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    ApiKey, BrokerId, CreateTopicsRequest, ListOffsetsRequest, MetadataRequest, MetadataResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use super::connection::Connection;
use super::error::ClientError;
use crate::model::ErrorCode;
use crate::runtime::clock;

// The versions whose responses `protocol::guard` can check; every broker since
// Kafka 2.1 serves them.
const METADATA: i16 = 4;
const CREATE_TOPICS: i16 = 4;
const LIST_OFFSETS: i16 = 1;

const CREATE_WITHIN: Duration = Duration::from_secs(30);
const LEADERS_PAUSE: Duration = Duration::from_millis(50);

/// A broker as the cluster knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub id: i32,
    pub host: String,
    pub port: i32,
}

/// Where a topic's partitions are; the leader of partition `i` is at `leaders[i]`, -1 for none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicLayout {
    pub nodes: Vec<Node>,
    pub leaders: Vec<i32>,
}

/// Which end of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Earliest,
    Latest,
}

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

async fn metadata(connection: &mut Connection, topics: &[&str]) -> Result<MetadataResponse, ClientError> {
    let version = connection.versions().pick(ApiKey::Metadata, (METADATA, METADATA))?;
    let topics = topics.iter().map(|name| MetadataRequestTopic::default().with_name(Some(topic_name(name)))).collect();
    let request = MetadataRequest::default().with_topics(Some(topics)).with_allow_auto_topic_creation(false);
    connection.call(version, &request).await
}

/// `None`: there is no such topic.
pub async fn layout(connection: &mut Connection, topic: &str) -> Result<Option<TopicLayout>, ClientError> {
    let answer = metadata(connection, &[topic]).await?;
    let nodes = answer.brokers.iter();
    let nodes = nodes.map(|b| Node { id: b.node_id.0, host: b.host.to_string(), port: b.port }).collect();
    let Some(found) = answer.topics.first() else { return Ok(None) };
    match found.error_code {
        0 => {}
        code if code == ErrorCode::LeaderNotAvailable.code() => {}
        code if code == ErrorCode::UnknownTopicOrPartition.code() => return Ok(None),
        code => return Err(ClientError::Broker { what: format!("Metadata of {topic}"), code }),
    }
    let mut leaders = vec![-1; found.partitions.len()];
    for partition in &found.partitions {
        let place = usize::try_from(partition.partition_index).ok().and_then(|index| leaders.get_mut(index));
        if let (Some(place), 0) = (place, partition.error_code) {
            *place = partition.leader_id.0;
        }
    }
    Ok(Some(TopicLayout { nodes, leaders }))
}

/// Makes the topic with the broker's default replication factor; that it exists is no error.
/// `connection`: to the controller, or to any broker that passes requests on to it.
pub async fn create_topic(connection: &mut Connection, topic: &str, partitions: i32) -> Result<(), ClientError> {
    let version = connection.versions().pick(ApiKey::CreateTopics, (CREATE_TOPICS, CREATE_TOPICS))?;
    let new = CreatableTopic::default()
        .with_name(topic_name(topic))
        .with_num_partitions(partitions)
        .with_replication_factor(-1);
    let timeout_ms = i32::try_from(CREATE_WITHIN.as_millis()).unwrap_or(i32::MAX);
    let request = CreateTopicsRequest::default().with_topics(vec![new]).with_timeout_ms(timeout_ms);
    let answer = connection.call(version, &request).await?;
    match answer.topics.first().map_or(ErrorCode::UnknownServerError.code(), |result| result.error_code) {
        0 => Ok(()),
        code if code == ErrorCode::TopicAlreadyExists.code() => Ok(()),
        code => Err(ClientError::Broker { what: format!("creating the topic {topic}"), code }),
    }
}

/// The layout once every partition has a leader.
pub async fn await_leaders(connection: &mut Connection, topic: &str) -> Result<TopicLayout, ClientError> {
    let deadline = clock::now() + CREATE_WITHIN;
    loop {
        if let Some(layout) = layout(connection, topic).await?
            && !layout.leaders.is_empty()
            && !layout.leaders.contains(&-1)
        {
            return Ok(layout);
        }
        if clock::now() > deadline {
            let seconds = CREATE_WITHIN.as_secs();
            return Err(ClientError::Other(format!("topic {topic}: some partitions have no leader after {seconds} s")));
        }
        clock::sleep(LEADERS_PAUSE).await;
    }
}

/// [`offsets`] once the broker leads all of them: the metadata name it as leader before it has
/// heard of that itself, and until then it refuses what is produced too.
pub async fn await_offsets(
    connection: &mut Connection,
    topic: &str,
    partitions: &[i32],
    end: End,
) -> Result<HashMap<i32, i64>, ClientError> {
    const OFFSET_NOT_AVAILABLE: i16 = 78;
    let passing = [
        ErrorCode::UnknownTopicOrPartition.code(),
        ErrorCode::LeaderNotAvailable.code(),
        ErrorCode::NotLeaderOrFollower.code(),
        OFFSET_NOT_AVAILABLE,
    ];
    let deadline = clock::now() + CREATE_WITHIN;
    loop {
        match offsets(connection, topic, partitions, end).await {
            Err(ClientError::Broker { code, .. }) if passing.contains(&code) && clock::now() < deadline => {}
            outcome => return outcome,
        }
        clock::sleep(LEADERS_PAUSE).await;
    }
}

/// The offsets at one end of partitions that the connection's broker leads, by partition.
pub async fn offsets(
    connection: &mut Connection,
    topic: &str,
    partitions: &[i32],
    end: End,
) -> Result<HashMap<i32, i64>, ClientError> {
    let version = connection.versions().pick(ApiKey::ListOffsets, (LIST_OFFSETS, LIST_OFFSETS))?;
    let timestamp = match end {
        End::Earliest => -2,
        End::Latest => -1,
    };
    let asked = partitions.iter();
    let asked = asked
        .map(|index| ListOffsetsPartition::default().with_partition_index(*index).with_timestamp(timestamp))
        .collect();
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(vec![ListOffsetsTopic::default().with_name(topic_name(topic)).with_partitions(asked)]);
    let answer = connection.call(version, &request).await?;
    let mut found = HashMap::new();
    for partition in answer.topics.iter().flat_map(|topic| &topic.partitions) {
        if partition.error_code != 0 {
            let what = format!("ListOffsets of {topic}-{}", partition.partition_index);
            return Err(ClientError::Broker { what, code: partition.error_code });
        }
        found.insert(partition.partition_index, partition.offset);
    }
    match partitions.iter().find(|index| !found.contains_key(index)) {
        Some(index) => Err(ClientError::Other(format!("ListOffsets says nothing of {topic}-{index}"))),
        None => Ok(found),
    }
}
