//! Offsets of partitions, asked of their leaders, and those that groups have committed.

use std::collections::BTreeMap;

use kafka_protocol::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestGroup;
use kafka_protocol::messages::{
    BrokerId, DeleteRecordsRequest, GroupId, ListOffsetsRequest, OffsetCommitRequest, OffsetCommitResponse,
    OffsetFetchRequest, OffsetFetchResponse,
};

use super::route::{ClusterClient, To, will_pass};
use super::topics::{text, topic_name};
use crate::client::error::{ClientError, Refusal};
use crate::model::ErrorCode;

/// A topic's name and a partition's index.
pub type Place = (String, i32);

/// Where in a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spot {
    Earliest,
    Latest,
    /// The end for those who read committed records: what is behind the first transaction that is
    /// still open is not there for them.
    LastStable,
    /// The first record that is not older, in milliseconds since 1970 UTC.
    Time(i64),
}

/// A group's offset of a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    pub offset: i64,
    pub metadata: String,
}

/// A question that only a partition's leader answers.
#[derive(Clone, Copy)]
enum Question {
    Offset(Spot),
    /// Deletes the records before this offset; -1: all.
    Delete(i64),
}

type Answers = Vec<(Place, Result<i64, Refusal>)>;

impl ClusterClient {
    /// The offsets of these spots, -1 for a time after the last record. `patient`: waits for
    /// partitions without a leader.
    pub async fn offsets(&mut self, wanted: &[(Place, Spot)], patient: bool) -> Result<Answers, ClientError> {
        let questions = wanted.iter().map(|(place, spot)| (place.clone(), Question::Offset(*spot))).collect();
        self.at_leaders(questions, patient).await
    }

    /// Deletes the records before these offsets, -1 for all; where each
    /// partition begins afterwards.
    pub async fn delete_records(&mut self, before: &[(Place, i64)]) -> Result<Answers, ClientError> {
        let questions = before.iter().map(|(place, offset)| (place.clone(), Question::Delete(*offset))).collect();
        self.at_leaders(questions, true).await
    }

    /// The answers in the order of the questions.
    async fn at_leaders(&mut self, questions: Vec<(Place, Question)>, patient: bool) -> Result<Answers, ClientError> {
        let mut answers: BTreeMap<Place, Result<i64, Refusal>> = BTreeMap::new();
        let mut open = questions.clone();
        while !open.is_empty() {
            let mut names: Vec<String> = open.iter().map(|((topic, _), _)| topic.clone()).collect();
            names.sort();
            names.dedup();
            let mut leaders = BTreeMap::new();
            for topic in self.topics(Some(&names)).await? {
                match &topic.refusal {
                    Some(refusal) => {
                        for (place, _) in open.iter().filter(|(place, _)| place.0 == topic.name) {
                            answers.insert(place.clone(), Err(refusal.clone()));
                        }
                    }
                    None => leaders.extend(topic.partitions.iter().map(|p| ((topic.name.clone(), p.index), p.leader))),
                }
            }
            let mut by_leader: BTreeMap<i32, Vec<(Place, Question)>> = BTreeMap::new();
            for (place, question) in &open {
                match leaders.get(place) {
                    Some(-1) => {
                        let code = ErrorCode::LeaderNotAvailable.code();
                        let message = Some("the partition has no leader at present".to_owned());
                        answers.insert(place.clone(), Err(Refusal { code, message }));
                    }
                    Some(leader) => by_leader.entry(*leader).or_default().push((place.clone(), *question)),
                    None => {
                        let code = ErrorCode::UnknownTopicOrPartition.code();
                        answers.entry(place.clone()).or_insert(Err(Refusal { code, message: None }));
                    }
                }
            }
            for (leader, asked) in by_leader {
                match self.at_leader(leader, &asked).await {
                    Ok(told) => answers.extend(told),
                    // The leader may be another by now.
                    Err(error) => {
                        let code = ErrorCode::NotLeaderOrFollower.code();
                        let refusal = Refusal { code, message: Some(error.to_string()) };
                        answers.extend(asked.into_iter().map(|(place, _)| (place, Err(refusal.clone()))));
                    }
                }
            }
            open.retain(|(place, _)| {
                let refused = answers.get(place).and_then(|answer| answer.as_ref().err());
                refused
                    .is_some_and(|r| will_pass(r.code) && (patient || r.code != ErrorCode::LeaderNotAvailable.code()))
            });
            if open.is_empty() || !self.may_try_again().await {
                break;
            }
        }
        let answered =
            questions.into_iter().filter_map(|(place, _)| answers.remove(&place).map(|answer| (place, answer)));
        Ok(answered.collect())
    }

    /// One round to one leader. All questions are of one kind.
    async fn at_leader(&mut self, leader: i32, asked: &[(Place, Question)]) -> Result<Answers, ClientError> {
        let mut offsets: BTreeMap<&str, Vec<ListOffsetsPartition>> = BTreeMap::new();
        let mut deletions: BTreeMap<&str, Vec<DeleteRecordsPartition>> = BTreeMap::new();
        for ((topic, index), question) in asked {
            match question {
                Question::Offset(spot) => {
                    let timestamp = match spot {
                        Spot::Earliest => -2,
                        Spot::Latest | Spot::LastStable => -1,
                        Spot::Time(ms) => *ms,
                    };
                    let partition = ListOffsetsPartition::default().with_partition_index(*index);
                    offsets.entry(topic).or_default().push(partition.with_timestamp(timestamp));
                }
                Question::Delete(offset) => {
                    let partition = DeleteRecordsPartition::default().with_partition_index(*index);
                    deletions.entry(topic).or_default().push(partition.with_offset(*offset));
                }
            }
        }
        let mut answers = Vec::new();
        if !offsets.is_empty() {
            let stable = asked.iter().any(|(_, question)| matches!(question, Question::Offset(Spot::LastStable)));
            let make = |_| {
                let topics = offsets.iter().map(|(name, partitions)| {
                    ListOffsetsTopic::default().with_name(topic_name(name)).with_partitions(partitions.clone())
                });
                let request = ListOffsetsRequest::default().with_replica_id(BrokerId(-1));
                request.with_isolation_level(i8::from(stable)).with_topics(topics.collect())
            };
            let answer = self.ask_once(To::Broker(leader), make).await?;
            for topic in &answer.topics {
                answers.extend(topic.partitions.iter().map(|p| {
                    let outcome = Refusal::check(p.error_code, None).map(|()| p.offset);
                    ((topic.name.0.to_string(), p.partition_index), outcome)
                }));
            }
        }
        if !deletions.is_empty() {
            let timeout_ms = self.timeout_ms();
            let make = |_| {
                let topics = deletions.iter().map(|(name, partitions)| {
                    DeleteRecordsTopic::default().with_name(topic_name(name)).with_partitions(partitions.clone())
                });
                DeleteRecordsRequest::default().with_topics(topics.collect()).with_timeout_ms(timeout_ms)
            };
            let answer = self.ask_once(To::Broker(leader), make).await?;
            for topic in &answer.topics {
                answers.extend(topic.partitions.iter().map(|p| {
                    let outcome = Refusal::check(p.error_code, None).map(|()| p.low_watermark);
                    ((topic.name.0.to_string(), p.partition_index), outcome)
                }));
            }
        }
        Ok(answers)
    }

    /// All offsets that the group has committed.
    pub async fn committed(&mut self, group: &str) -> Result<BTreeMap<Place, Committed>, ClientError> {
        let make = |version| match version {
            ..8 => OffsetFetchRequest::default().with_group_id(GroupId(text(group))).with_topics(None),
            _ => {
                let asked = OffsetFetchRequestGroup::default().with_group_id(GroupId(text(group))).with_topics(None);
                OffsetFetchRequest::default().with_groups(vec![asked])
            }
        };
        let code = |answer: &OffsetFetchResponse| answer.groups.first().map_or(answer.error_code, |g| g.error_code);
        let answer = self.ask(To::Coordinator(group), make, |answer| will_pass(code(answer))).await?;
        if let Some(refusal) = Refusal::of(code(&answer), None) {
            return Err(ClientError::Other(format!("the offsets of group {group}: {refusal}")));
        }
        let mut found = BTreeMap::new();
        let mut take = |topic: &str, index: i32, code: i16, offset: i64, metadata: Option<&str>| {
            if code == 0 && offset >= 0 {
                let metadata = metadata.unwrap_or_default().to_owned();
                found.insert((topic.to_owned(), index), Committed { offset, metadata });
            }
        };
        for topic in &answer.topics {
            for p in &topic.partitions {
                take(&topic.name.0, p.partition_index, p.error_code, p.committed_offset, p.metadata.as_deref());
            }
        }
        for topic in answer.groups.iter().flat_map(|group| &group.topics) {
            for p in &topic.partitions {
                take(&topic.name.0, p.partition_index, p.error_code, p.committed_offset, p.metadata.as_deref());
            }
        }
        Ok(found)
    }

    /// Commits offsets for a group without members.
    pub async fn commit(
        &mut self,
        group: &str,
        offsets: &[(Place, i64)],
    ) -> Result<Vec<(Place, Result<(), Refusal>)>, ClientError> {
        self.commit_as(group, ("", -1), offsets).await
    }

    /// Commits offsets for a member, in a generation of its group.
    pub async fn commit_as(
        &mut self,
        group: &str,
        (member, generation): (&str, i32),
        offsets: &[(Place, i64)],
    ) -> Result<Vec<(Place, Result<(), Refusal>)>, ClientError> {
        let make = |_| {
            let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
            for ((topic, index), offset) in offsets {
                let partition = OffsetCommitRequestPartition::default().with_partition_index(*index);
                let partition = partition.with_committed_offset(*offset).with_committed_metadata(Some(text("")));
                topics.entry(topic).or_default().push(partition);
            }
            let topics = topics.into_iter().map(|(name, partitions)| {
                OffsetCommitRequestTopic::default().with_name(topic_name(name)).with_partitions(partitions)
            });
            let request = OffsetCommitRequest::default().with_group_id(GroupId(text(group)));
            let request = request.with_member_id(text(member)).with_generation_id_or_member_epoch(generation);
            request.with_topics(topics.collect())
        };
        let passes = |answer: &OffsetCommitResponse| {
            let mut partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
            partitions.any(|partition| will_pass(partition.error_code))
        };
        let answer = self.ask(To::Coordinator(group), make, passes).await?;
        let mut outcomes = Vec::new();
        for topic in &answer.topics {
            outcomes.extend(
                topic
                    .partitions
                    .iter()
                    .map(|p| ((topic.name.0.to_string(), p.partition_index), Refusal::check(p.error_code, None))),
            );
        }
        Ok(outcomes)
    }
}
