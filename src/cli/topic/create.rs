//! Topics that come, grow and go.

use serde_json::{Value, json};

use super::arguments::{AddPartitions, Create, Delete};
use super::show::{known, unknown_topic};
use crate::cli::report::{Report, with_outcome};
use crate::client::cluster_client::NewTopic;
use crate::client::{ClusterClient, Refusal};
use crate::model::ErrorCode;

const AFTER_SILENCE: &str = "; an earlier try of this command got no answer and may have done it";

pub(super) async fn create(mut client: ClusterClient, command: Create) -> Result<Report, String> {
    let topics: Vec<NewTopic> = command
        .topics
        .iter()
        .map(|name| NewTopic {
            name: name.clone(),
            partitions: command.partitions,
            replication_factor: command.replication_factor,
            assignment: command.replica_assignment.clone().unwrap_or_default().0,
            configs: command.configs.clone(),
        })
        .collect();
    let outcomes = client.create_topics(&topics, command.dry_run).await.map_err(|e| e.to_string())?;
    let done = if command.dry_run { "would create" } else { "created" };
    let mut sum = Sum::default();
    for (topic, outcome) in outcomes {
        let exists = outcome.as_ref().is_err_and(|r| r.code == ErrorCode::TopicAlreadyExists.code());
        match outcome {
            Err(_) if exists && command.if_not_exists => sum.done(&topic, "exists"),
            Err(refusal) => {
                let hint = if exists && client.was_unanswered() { AFTER_SILENCE } else { "" };
                sum.refused(&topic, &refusal, hint);
            }
            Ok(()) => sum.done(&topic, done),
        }
    }
    Ok(sum.report())
}

pub(super) async fn add_partitions(mut client: ClusterClient, command: AddPartitions) -> Result<Report, String> {
    let topic = known(&mut client, std::slice::from_ref(&command.topic)).await?;
    let has = topic.first().map_or(0, |topic| topic.partitions.len());
    let assignment = command.replica_assignment.unwrap_or_default().0;
    let grown = client.add_partitions(&command.topic, command.partitions, &assignment, command.dry_run).await;
    let mut sum = Sum::default();
    match grown.map_err(|e| e.to_string())? {
        Ok(()) => {
            let done = if command.dry_run { "would grow" } else { "grown" };
            sum.done(&command.topic, &format!("{done} from {has} to {} partitions:", command.partitions));
        }
        Err(refusal) => {
            let hint = if client.was_unanswered() { AFTER_SILENCE } else { "" };
            sum.refused(&command.topic, &refusal, hint);
        }
    }
    Ok(sum.report())
}

pub(super) async fn delete(mut client: ClusterClient, command: Delete) -> Result<Report, String> {
    let outcomes = client.delete_topics(&command.topics).await.map_err(|e| e.to_string())?;
    let silent = client.was_unanswered();
    let mut sum = Sum::default();
    for (topic, outcome) in outcomes {
        let absent = outcome.as_ref().is_err_and(|r| r.code == ErrorCode::UnknownTopicOrPartition.code());
        match outcome {
            Err(_) if absent && command.if_exists => sum.done(&topic, "not there:"),
            Err(refusal) if absent => {
                let mut line = unknown_topic(&mut client, &topic).await?;
                line.push_str(if silent { AFTER_SILENCE } else { "" });
                sum.failed(&topic, &refusal, line);
            }
            Err(refusal) => sum.refused(&topic, &refusal, ""),
            Ok(()) => sum.done(&topic, "deleted"),
        }
    }
    Ok(sum.report())
}

/// The outcomes of a command, topic by topic.
#[derive(Default)]
struct Sum {
    text: String,
    json: Vec<Value>,
    failed: Vec<String>,
}

impl Sum {
    fn done(&mut self, topic: &str, what: &str) {
        self.text.push_str(&format!("{what} {topic}\n"));
        self.json.push(with_outcome(json!({ "topic": topic }), None));
    }

    fn refused(&mut self, topic: &str, refusal: &Refusal, hint: &str) {
        self.failed(topic, refusal, format!("topic {topic}: {refusal}{hint}"));
    }

    fn failed(&mut self, topic: &str, refusal: &Refusal, line: String) {
        self.json.push(with_outcome(json!({ "topic": topic }), Some(refusal)));
        self.failed.push(line);
    }

    fn report(self) -> Report {
        Report { text: self.text, json: Value::Array(self.json), failed: self.failed }
    }
}
