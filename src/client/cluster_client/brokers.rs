//! Brokers: their data directories.

use std::collections::BTreeMap;

use kafka_protocol::messages::alter_replica_log_dirs_request::{AlterReplicaLogDir, AlterReplicaLogDirTopic};
use kafka_protocol::messages::{AlterReplicaLogDirsRequest, DescribeLogDirsRequest};

use super::route::{ClusterClient, To};
use super::topics::{text, topic_name};
use crate::client::error::{ClientError, Refusal};
use crate::protocol::is_cordoned;

/// A partition in a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirTopic {
    pub topic: String,
    pub partition: i32,
    pub bytes: i64,
    /// Behind the log's end, or of a copy that is being made behind the log that it will replace.
    pub offset_lag: i64,
    /// A copy that is being made.
    pub future: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogDir {
    pub path: String,
    pub refusal: Option<Refusal>,
    /// Of the file system; -1: not told.
    pub total_bytes: i64,
    pub usable_bytes: i64,
    /// It gets no new partitions (KIP-1066); false also where the broker does not tell.
    pub cordoned: bool,
    /// By topic and partition.
    pub partitions: Vec<DirTopic>,
}

impl ClusterClient {
    /// The broker's data directories, by path.
    pub async fn log_dirs(&mut self, broker: i32) -> Result<Vec<LogDir>, ClientError> {
        let make = |_| DescribeLogDirsRequest::default().with_topics(None);
        let answer = self.ask_once(To::Broker(broker), make).await?;
        if let Some(refusal) = Refusal::of(answer.error_code, None) {
            return Err(ClientError::Other(format!("the data directories of broker {broker}: {refusal}")));
        }
        let mut dirs: Vec<LogDir> = Vec::new();
        for told in &answer.results {
            let mut partitions = Vec::new();
            for topic in &told.topics {
                partitions.extend(topic.partitions.iter().map(|partition| DirTopic {
                    topic: topic.name.0.to_string(),
                    partition: partition.partition_index,
                    bytes: partition.partition_size,
                    offset_lag: partition.offset_lag,
                    future: partition.is_future_key,
                }));
            }
            partitions.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
            dirs.push(LogDir {
                path: told.log_dir.to_string(),
                refusal: Refusal::of(told.error_code, None),
                total_bytes: told.total_bytes,
                usable_bytes: told.usable_bytes,
                cordoned: is_cordoned(told),
                partitions,
            });
        }
        dirs.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(dirs)
    }

    /// Has replicas of the broker, partitions by topic, move to its data directory at `path`; the
    /// outcome of each. They have begun to move when this returns.
    pub async fn move_replicas(
        &mut self,
        broker: i32,
        path: &str,
        replicas: &BTreeMap<String, Vec<i32>>,
    ) -> Result<Vec<(String, i32, Result<(), Refusal>)>, ClientError> {
        let make = |_| {
            let topics = replicas.iter().map(|(topic, partitions)| {
                AlterReplicaLogDirTopic::default().with_name(topic_name(topic)).with_partitions(partitions.clone())
            });
            let dir = AlterReplicaLogDir::default().with_path(text(path)).with_topics(topics.collect());
            AlterReplicaLogDirsRequest::default().with_dirs(vec![dir])
        };
        let answer = self.ask_once(To::Broker(broker), make).await?;
        let mut outcomes = Vec::new();
        for topic in &answer.results {
            outcomes.extend(topic.partitions.iter().map(|partition| {
                let outcome = Refusal::check(partition.error_code, None);
                (topic.topic_name.0.to_string(), partition.partition_index, outcome)
            }));
        }
        Ok(outcomes)
    }
}
