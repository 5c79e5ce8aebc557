//! Groups: which there are, their members, their end.

use std::collections::BTreeSet;

use kafka_protocol::messages::{
    ApiKey, ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse, DeleteGroupsRequest, DeleteGroupsResponse,
    DescribeGroupsRequest, DescribeGroupsResponse, GroupId, ListGroupsRequest,
};

use super::offsets::Place;
use super::route::{ClusterClient, To, will_pass};
use super::topics::{silent, text};
use crate::client::consumer_protocol::assigned;
use crate::client::error::{ClientError, Refusal};

const GROUP_ID_NOT_FOUND: i16 = 69;
const UNSUPPORTED_VERSION: i16 = 35;
/// The state in which the older protocol describes a group that there is not.
const DEAD: &str = "Dead";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupKind {
    Classic,
    Consumer,
}

impl GroupKind {
    /// Kafka's word.
    pub fn name(self) -> &'static str {
        match self {
            GroupKind::Classic => "Classic",
            GroupKind::Consumer => "Consumer",
        }
    }
}

/// A group as a broker lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    pub group: String,
    /// Empty: not told.
    pub kind: String,
    pub state: String,
    pub protocol_type: String,
    /// The broker that listed it.
    pub coordinator: i32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: String,
    pub instance: Option<String>,
    pub client_id: String,
    pub host: String,
    pub assigned: BTreeSet<Place>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub group: String,
    pub kind: GroupKind,
    pub state: String,
    pub protocol_type: String,
    /// Empty: none chosen.
    pub assignor: String,
    /// Of the newer protocol.
    pub epoch: Option<i32>,
    pub coordinator: i32,
    pub members: Vec<Member>,
}

impl ClusterClient {
    /// The groups of all brokers, by name; and what went wrong with some.
    pub async fn groups(&mut self) -> Result<(Vec<ListedGroup>, Vec<String>), ClientError> {
        self.learn().await?;
        let mut open: BTreeSet<i32> = self.nodes().map(|node| node.id).collect();
        let mut found = Vec::new();
        loop {
            let mut failed = Vec::new();
            for broker in open.clone() {
                match self.groups_of(broker).await {
                    Ok(listed) => {
                        found.extend(listed);
                        open.remove(&broker);
                    }
                    Err(error) => failed.push(format!("the groups of broker {broker}: {error}")),
                }
            }
            if open.is_empty() || !self.may_try_again().await {
                found.sort_by(|a: &ListedGroup, b: &ListedGroup| a.group.cmp(&b.group));
                return Ok((found, failed));
            }
            // The groups of one that has left are with others now.
            self.learn().await?;
            let there: BTreeSet<i32> = self.nodes().map(|node| node.id).collect();
            if !open.is_subset(&there) {
                (found, open) = (Vec::new(), there);
            }
        }
    }

    async fn groups_of(&mut self, broker: i32) -> Result<Vec<ListedGroup>, ClientError> {
        let answer = self.ask_once(To::Broker(broker), |_| ListGroupsRequest::default()).await?;
        if let Some(refusal) = Refusal::of(answer.error_code, None) {
            return Err(ClientError::Other(refusal.to_string()));
        }
        let listed = answer.groups.iter().map(|listed| ListedGroup {
            group: listed.group_id.0.to_string(),
            kind: capitalized(&listed.group_type),
            state: listed.group_state.to_string(),
            protocol_type: listed.protocol_type.to_string(),
            coordinator: broker,
        });
        Ok(listed.collect())
    }

    /// `None`: there is no such group.
    pub async fn group(&mut self, group: &str) -> Result<Option<Group>, ClientError> {
        let newer = ApiKey::ConsumerGroupDescribe;
        // Offsets may be committed without a group id (KIP-289); only the classic
        // protocol describes that group.
        if !group.is_empty()
            && self.serves(To::Coordinator(group), newer).await?
            && let Some(found) = self.consumer_group(group).await?
        {
            return Ok(Some(found));
        }
        self.classic_group(group).await
    }

    async fn consumer_group(&mut self, group: &str) -> Result<Option<Group>, ClientError> {
        let make = |_| ConsumerGroupDescribeRequest::default().with_group_ids(vec![GroupId(text(group))]);
        let passes =
            |answer: &ConsumerGroupDescribeResponse| answer.groups.iter().any(|group| will_pass(group.error_code));
        let answer = self.ask(To::Coordinator(group), make, passes).await?;
        let told = answer.groups.into_iter().next().ok_or_else(|| silent("ConsumerGroupDescribe", group))?;
        if matches!(told.error_code, GROUP_ID_NOT_FOUND | UNSUPPORTED_VERSION) {
            return Ok(None);
        }
        if let Some(refusal) = Refusal::of(told.error_code, told.error_message.as_deref()) {
            return Err(ClientError::Other(refusal.to_string()));
        }
        let members = told.members.iter().map(|member| {
            let topics = member.assignment.topic_partitions.iter();
            let assigned = topics.flat_map(|topic| {
                let name = topic.topic_name.0.to_string();
                topic.partitions.iter().map(move |index| (name.clone(), *index))
            });
            Member {
                id: member.member_id.to_string(),
                instance: member.instance_id.as_ref().map(|id| id.to_string()),
                client_id: member.client_id.to_string(),
                host: member.client_host.to_string(),
                assigned: assigned.collect(),
            }
        });
        Ok(Some(Group {
            group: group.to_owned(),
            kind: GroupKind::Consumer,
            state: told.group_state.to_string(),
            protocol_type: "consumer".into(),
            assignor: told.assignor_name.to_string(),
            epoch: Some(told.group_epoch),
            coordinator: self.coordinator(group).await?,
            members: members.collect(),
        }))
    }

    async fn classic_group(&mut self, group: &str) -> Result<Option<Group>, ClientError> {
        let make = |_| DescribeGroupsRequest::default().with_groups(vec![GroupId(text(group))]);
        let passes = |answer: &DescribeGroupsResponse| answer.groups.iter().any(|group| will_pass(group.error_code));
        let answer = self.ask(To::Coordinator(group), make, passes).await?;
        let told = answer.groups.into_iter().next().ok_or_else(|| silent("DescribeGroups", group))?;
        if told.error_code == GROUP_ID_NOT_FOUND || (told.error_code == 0 && *told.group_state == *DEAD) {
            return Ok(None);
        }
        if let Some(refusal) = Refusal::of(told.error_code, told.error_message.as_deref()) {
            return Err(ClientError::Other(refusal.to_string()));
        }
        let members = told.members.iter().map(|member| Member {
            id: member.member_id.to_string(),
            instance: member.group_instance_id.as_ref().map(|id| id.to_string()),
            client_id: member.client_id.to_string(),
            host: member.client_host.to_string(),
            assigned: match &*told.protocol_type {
                "consumer" => assigned(&member.member_assignment).unwrap_or_default(),
                _ => BTreeSet::new(),
            },
        });
        Ok(Some(Group {
            group: group.to_owned(),
            kind: GroupKind::Classic,
            state: told.group_state.to_string(),
            protocol_type: told.protocol_type.to_string(),
            assignor: told.protocol_data.to_string(),
            epoch: None,
            coordinator: self.coordinator(group).await?,
            members: members.collect(),
        }))
    }

    pub async fn delete_group(&mut self, group: &str) -> Result<Result<(), Refusal>, ClientError> {
        let make = |_| DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text(group))]);
        let passes = |answer: &DeleteGroupsResponse| answer.results.iter().any(|group| will_pass(group.error_code));
        let answer = self.ask(To::Coordinator(group), make, passes).await?;
        let told = answer.results.first().ok_or_else(|| silent("DeleteGroups", group))?;
        Ok(Refusal::check(told.error_code, None))
    }
}

/// `Consumer` for `consumer`, as Kafka's tools write it.
fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or(String::new(), |first| first.to_uppercase().chain(letters).collect())
}
