//! Topics and where their replicas are.

use std::collections::BTreeMap;

use kafka_protocol::messages::alter_partition_reassignments_request::{ReassignablePartition, ReassignableTopic};
use kafka_protocol::messages::create_partitions_request::{CreatePartitionsAssignment, CreatePartitionsTopic};
use kafka_protocol::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use kafka_protocol::messages::elect_leaders_request::TopicPartitions;
use kafka_protocol::messages::list_partition_reassignments_request::ListPartitionReassignmentsTopics;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::{
    AlterPartitionReassignmentsRequest, ApiKey, BrokerId, CreatePartitionsRequest, CreateTopicsRequest,
    DeleteTopicsRequest, DescribeTopicPartitionsRequest, ElectLeadersRequest, ListPartitionReassignmentsRequest,
    MetadataRequest, TopicName,
};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::route::{ClusterClient, To, will_pass};
use crate::client::error::{ClientError, Refusal};
use crate::model::ErrorCode;

/// Partitions that one answer of DescribeTopicPartitions may have.
const PAGE: i32 = 2000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    pub index: i32,
    /// -1: none.
    pub leader: i32,
    /// -1: not told.
    pub leader_epoch: i32,
    pub replicas: Vec<i32>,
    pub isr: Vec<i32>,
    pub offline: Vec<i32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    pub name: String,
    /// Nil: not told.
    pub id: Uuid,
    pub internal: bool,
    /// By index.
    pub partitions: Vec<Partition>,
    /// Why nothing more is known.
    pub refusal: Option<Refusal>,
}

impl Topic {
    pub fn is_unknown(&self) -> bool {
        self.refusal.as_ref().is_some_and(|refusal| refusal.code == ErrorCode::UnknownTopicOrPartition.code())
    }
}

/// A topic to be made. Without numbers or an assignment the broker's defaults hold.
#[derive(Clone, Debug, Default)]
pub struct NewTopic {
    pub name: String,
    pub partitions: Option<i32>,
    pub replication_factor: Option<i16>,
    /// Replicas by partition; then the two numbers are not given.
    pub assignment: Vec<Vec<i32>>,
    pub configs: Vec<(String, String)>,
}

/// A partition whose replicas move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reassigned {
    pub topic: String,
    pub partition: i32,
    pub replicas: Vec<i32>,
    pub adding: Vec<i32>,
    pub removing: Vec<i32>,
}

pub(super) fn topic_name(name: &str) -> TopicName {
    TopicName(text(name))
}

pub(in crate::client) fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn ids(brokers: &[BrokerId]) -> Vec<i32> {
    brokers.iter().map(|id| id.0).collect()
}

fn broker_ids(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

impl ClusterClient {
    /// These topics, in name order, those that there are not among them with a refusal; or all.
    pub async fn topics(&mut self, names: Option<&[String]>) -> Result<Vec<Topic>, ClientError> {
        if names.is_some_and(<[String]>::is_empty) {
            return Ok(Vec::new());
        }
        let make = |_| {
            let topics = names.map(|names| {
                let asked = names.iter().map(|name| MetadataRequestTopic::default().with_name(Some(topic_name(name))));
                asked.collect()
            });
            MetadataRequest::default().with_topics(topics).with_allow_auto_topic_creation(false)
        };
        let answer = self.ask(To::Any, make, |_| false).await?;
        self.note(&answer);
        let mut topics: Vec<Topic> = Vec::new();
        for topic in answer.topics {
            let code = topic.error_code;
            let code = if code == ErrorCode::LeaderNotAvailable.code() { 0 } else { code };
            let mut partitions: Vec<Partition> = topic
                .partitions
                .iter()
                .map(|p| Partition {
                    index: p.partition_index,
                    leader: p.leader_id.0,
                    leader_epoch: p.leader_epoch,
                    replicas: ids(&p.replica_nodes),
                    isr: ids(&p.isr_nodes),
                    offline: ids(&p.offline_replicas),
                })
                .collect();
            partitions.sort_by_key(|partition| partition.index);
            topics.push(Topic {
                name: topic.name.map(|name| name.0.to_string()).unwrap_or_default(),
                id: topic.topic_id,
                internal: topic.is_internal,
                partitions,
                refusal: Refusal::of(code, None),
            });
        }
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }

    /// Eligible leader replicas by topic and partition (KIP-966); empty where the
    /// broker does not tell them.
    pub async fn eligible_leaders(
        &mut self,
        names: &[String],
    ) -> Result<BTreeMap<(String, i32), Vec<i32>>, ClientError> {
        let mut found = BTreeMap::new();
        if names.is_empty() || !self.serves(To::Any, ApiKey::DescribeTopicPartitions).await? {
            return Ok(found);
        }
        let mut names = names.to_vec();
        names.sort();
        let mut cursor: Option<Cursor> = None;
        loop {
            let make = |_| {
                let topics = names.iter().map(|name| TopicRequest::default().with_name(topic_name(name))).collect();
                let request = DescribeTopicPartitionsRequest::default().with_topics(topics);
                request.with_response_partition_limit(PAGE).with_cursor(cursor.clone())
            };
            let answer = self.ask(To::Any, make, |_| false).await?;
            for topic in &answer.topics {
                let name = topic.name.as_ref().map(|name| name.0.to_string()).unwrap_or_default();
                for partition in &topic.partitions {
                    let eligible = partition.eligible_leader_replicas.as_deref().map(ids).unwrap_or_default();
                    found.insert((name.clone(), partition.partition_index), eligible);
                }
            }
            let Some(next) = answer.next_cursor else { return Ok(found) };
            let place = (next.topic_name, next.partition_index);
            // A broker that does not get on would be asked without end.
            if cursor.as_ref().is_some_and(|c| (&c.topic_name, c.partition_index) == (&place.0, place.1)) {
                return Ok(found);
            }
            cursor = Some(Cursor::default().with_topic_name(place.0).with_partition_index(place.1));
        }
    }

    /// Makes topics; the outcome of each.
    pub async fn create_topics(
        &mut self,
        topics: &[NewTopic],
        validate_only: bool,
    ) -> Result<Vec<(String, Result<(), Refusal>)>, ClientError> {
        let timeout_ms = self.timeout_ms();
        let make = |_| {
            let topics = topics.iter().map(creatable).collect();
            let request = CreateTopicsRequest::default().with_topics(topics).with_timeout_ms(timeout_ms);
            request.with_validate_only(validate_only)
        };
        let passes = |answer: &kafka_protocol::messages::CreateTopicsResponse| {
            answer.topics.iter().all(|topic| will_pass(topic.error_code))
        };
        let answer = self.ask(To::Controller, make, passes).await?;
        let outcome = |topic: &kafka_protocol::messages::create_topics_response::CreatableTopicResult| {
            (topic.name.0.to_string(), Refusal::check(topic.error_code, topic.error_message.as_deref()))
        };
        Ok(answer.topics.iter().map(outcome).collect())
    }

    pub async fn delete_topics(&mut self, names: &[String]) -> Result<Vec<(String, Result<(), Refusal>)>, ClientError> {
        let timeout_ms = self.timeout_ms();
        let make = |version| {
            let request = DeleteTopicsRequest::default().with_timeout_ms(timeout_ms);
            match version {
                ..6 => request.with_topic_names(names.iter().map(|name| topic_name(name)).collect()),
                _ => {
                    let state = |name: &String| DeleteTopicState::default().with_name(Some(topic_name(name)));
                    request.with_topics(names.iter().map(state).collect())
                }
            }
        };
        let passes = |answer: &kafka_protocol::messages::DeleteTopicsResponse| {
            answer.responses.iter().all(|topic| will_pass(topic.error_code))
        };
        let answer = self.ask(To::Controller, make, passes).await?;
        let outcomes = answer.responses.iter().map(|topic| {
            let name = topic.name.as_ref().map(|name| name.0.to_string()).unwrap_or_default();
            (name, Refusal::check(topic.error_code, topic.error_message.as_deref()))
        });
        Ok(outcomes.collect())
    }

    /// Raises the topic's number of partitions to `count`. `assignment`: the new
    /// partitions' replicas, or empty.
    pub async fn add_partitions(
        &mut self,
        topic: &str,
        count: i32,
        assignment: &[Vec<i32>],
        validate_only: bool,
    ) -> Result<Result<(), Refusal>, ClientError> {
        let timeout_ms = self.timeout_ms();
        let make = |_| {
            let replicas = |ids: &Vec<i32>| CreatePartitionsAssignment::default().with_broker_ids(broker_ids(ids));
            let assignments = (!assignment.is_empty()).then(|| assignment.iter().map(replicas).collect());
            let grown = CreatePartitionsTopic::default().with_name(topic_name(topic)).with_count(count);
            let request = CreatePartitionsRequest::default().with_topics(vec![grown.with_assignments(assignments)]);
            request.with_timeout_ms(timeout_ms).with_validate_only(validate_only)
        };
        let passes = |answer: &kafka_protocol::messages::CreatePartitionsResponse| {
            answer.results.iter().all(|topic| will_pass(topic.error_code))
        };
        let answer = self.ask(To::Controller, make, passes).await?;
        let result = answer.results.first().ok_or_else(|| silent("CreatePartitions", topic))?;
        Ok(Refusal::check(result.error_code, result.error_message.as_deref()))
    }

    /// Moves partitions of a topic to these replicas; the outcome of each.
    pub async fn reassign(
        &mut self,
        topic: &str,
        replicas: &BTreeMap<i32, Vec<i32>>,
    ) -> Result<Vec<(i32, Result<(), Refusal>)>, ClientError> {
        let timeout_ms = self.timeout_ms();
        let make = |_| {
            let partition = |(index, ids): (&i32, &Vec<i32>)| {
                let moved = ReassignablePartition::default().with_partition_index(*index);
                moved.with_replicas(Some(broker_ids(ids)))
            };
            let partitions = replicas.iter().map(partition).collect();
            let topics = vec![ReassignableTopic::default().with_name(topic_name(topic)).with_partitions(partitions)];
            AlterPartitionReassignmentsRequest::default().with_topics(topics).with_timeout_ms(timeout_ms)
        };
        let passes =
            |answer: &kafka_protocol::messages::AlterPartitionReassignmentsResponse| will_pass(answer.error_code);
        let answer = self.ask(To::Controller, make, passes).await?;
        if let Some(refusal) = Refusal::of(answer.error_code, answer.error_message.as_deref()) {
            return Err(ClientError::Other(format!("the reassignment of {topic}: {refusal}")));
        }
        let partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
        let outcome = partitions.map(|p| (p.partition_index, Refusal::check(p.error_code, p.error_message.as_deref())));
        Ok(outcome.collect())
    }

    /// Has the first replica of each of these partitions lead it; the outcome of each that was not
    /// led so already.
    pub async fn elect_preferred(
        &mut self,
        partitions: &BTreeMap<String, Vec<i32>>,
    ) -> Result<Vec<(String, i32, Result<(), Refusal>)>, ClientError> {
        let timeout_ms = self.timeout_ms();
        let make = |_| {
            let topic = |(topic, partitions): (&String, &Vec<i32>)| {
                TopicPartitions::default().with_topic(topic_name(topic)).with_partitions(partitions.clone())
            };
            let topics = partitions.iter().map(topic).collect();
            ElectLeadersRequest::default().with_topic_partitions(Some(topics)).with_timeout_ms(timeout_ms)
        };
        let passes = |answer: &kafka_protocol::messages::ElectLeadersResponse| will_pass(answer.error_code);
        let answer = self.ask(To::Controller, make, passes).await?;
        if let Some(refusal) = Refusal::of(answer.error_code, None) {
            return Err(ClientError::Other(format!("the election of preferred leaders: {refusal}")));
        }
        let mut outcomes = Vec::new();
        for topic in &answer.replica_election_results {
            for partition in &topic.partition_result {
                let outcome = Refusal::check(partition.error_code, partition.error_message.as_deref());
                let is_needed = partition.error_code != ErrorCode::ElectionNotNeeded.code();
                outcomes.extend(is_needed.then(|| (topic.topic.0.to_string(), partition.partition_id, outcome)));
            }
        }
        Ok(outcomes)
    }

    /// Partitions whose replicas are on the move: of these of a topic, or of all there are.
    pub async fn reassignments(&mut self, of: Option<(&str, &[i32])>) -> Result<Vec<Reassigned>, ClientError> {
        let timeout_ms = self.timeout_ms();
        let make = |_| {
            let topics = of.map(|(topic, partitions)| {
                let asked = ListPartitionReassignmentsTopics::default().with_name(topic_name(topic));
                vec![asked.with_partition_indexes(partitions.to_vec())]
            });
            ListPartitionReassignmentsRequest::default().with_topics(topics).with_timeout_ms(timeout_ms)
        };
        let passes =
            |answer: &kafka_protocol::messages::ListPartitionReassignmentsResponse| will_pass(answer.error_code);
        let answer = self.ask(To::Controller, make, passes).await?;
        if let Some(refusal) = Refusal::of(answer.error_code, answer.error_message.as_deref()) {
            return Err(ClientError::Other(format!("the reassignments: {refusal}")));
        }
        let mut found = Vec::new();
        for topic in &answer.topics {
            found.extend(topic.partitions.iter().map(|partition| Reassigned {
                topic: topic.name.0.to_string(),
                partition: partition.partition_index,
                replicas: ids(&partition.replicas),
                adding: ids(&partition.adding_replicas),
                removing: ids(&partition.removing_replicas),
            }));
        }
        Ok(found)
    }
}

fn creatable(topic: &NewTopic) -> CreatableTopic {
    let config = |(name, value): &(String, String)| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
    };
    let replicas = |(index, ids): (i32, &Vec<i32>)| {
        let assigned = CreatableReplicaAssignment::default().with_partition_index(index);
        assigned.with_broker_ids(broker_ids(ids))
    };
    CreatableTopic::default()
        .with_name(topic_name(&topic.name))
        .with_num_partitions(topic.partitions.unwrap_or(-1))
        .with_replication_factor(topic.replication_factor.unwrap_or(-1))
        .with_assignments((0..).zip(&topic.assignment).map(replicas).collect())
        .with_configs(topic.configs.iter().map(config).collect())
}

pub(super) fn silent(api: &str, about: &str) -> ClientError {
    ClientError::Other(format!("the answer to {api} says nothing of {about}"))
}
