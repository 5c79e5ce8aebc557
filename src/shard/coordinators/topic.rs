//! The topics that coordinators keep their state in, and from a key to its partition.

use std::rc::Rc;
use std::sync::Arc;

use crate::cluster::TopicImage;
use crate::cluster::controller::CreateTopic;
use crate::model::{BrokerId, ErrorCode, PartitionId, ShardId};
use crate::observe::client_line;
use crate::shard::{PATIENCE, Shard};

/// A topic of coordinators, as it is made.
pub struct CoordinatorTopic {
    pub name: &'static str,
    pub num_partitions: i32,
    pub replication_factor: i16,
    /// The option that it is from.
    pub replication_factor_by: &'static str,
    pub configs: Vec<(&'static str, String)>,
}

/// List of one coordinator.
type Listed<T> = Result<Vec<T>, ErrorCode>;

impl Shard {
    /// The topic, made when it is not there yet.
    pub(in crate::shard) async fn coordinator_topic(
        self: &Rc<Self>,
        topic: CoordinatorTopic,
    ) -> Result<Arc<TopicImage>, ErrorCode> {
        let (name, option) = (topic.name, topic.replication_factor_by);
        if let Some(topic) = self.image().topic(name) {
            return Ok(topic.clone());
        }
        // Of a cluster, too few brokers are an error, as in Kafka: the topic would keep
        // too few replicas for good.
        let most = if self.config.in_cluster() { i16::MAX } else { 1 };
        let request = CreateTopic {
            name: name.to_owned(),
            num_partitions: topic.num_partitions,
            replication_factor: topic.replication_factor.min(most),
            configs: topic.configs.into_iter().map(|(name, value)| (name.to_owned(), Some(value))).collect(),
            ..CreateTopic::default()
        };
        match self.create_topics(vec![request], false, PATIENCE).await.pop() {
            Some(Ok(topic)) => Ok(topic),
            // Another request was faster.
            Some(Err(error)) if error.code == ErrorCode::TopicAlreadyExists => {
                self.image().topic(name).cloned().ok_or(ErrorCode::CoordinatorNotAvailable)
            }
            Some(Err(error)) => {
                client_line!(error, code = %error.code, why = error.message, "making {name} failed: its coordinators cannot be served ({option} is for fewer brokers)");
                Err(ErrorCode::CoordinatorNotAvailable)
            }
            None => Err(ErrorCode::CoordinatorNotAvailable),
        }
    }

    /// The partition of `topic` that the key is in; `None` where there is no such partition yet.
    pub(in crate::shard) fn coordinator_partition(&self, topic: &str, key: &str) -> Option<PartitionId> {
        let image = self.image();
        let topic = image.topic(topic)?;
        let count = i32::try_from(topic.partitions.len()).ok().filter(|count| *count > 0)?;
        Some(PartitionId::new(topic.id, positive(java_hash(key)) % count))
    }

    /// The broker that leads the partition of `topic` that the key is in.
    pub(in crate::shard) fn coordinator_broker(&self, topic: &str, key: &str) -> Option<BrokerId> {
        let (image, partition) = (self.image(), self.coordinator_partition(topic, key)?);
        let topic = image.topic_by_id(partition.topic)?;
        let leader = topic.partitions.get(usize::try_from(partition.index.0).ok()?)?.leader;
        leader.filter(|leader| !image.is_offline_at(*leader, topic, partition.index.0))
    }

    /// Asks every shard for what its coordinators list, in order; COORDINATOR_NOT_AVAILABLE of
    /// a shard that has stopped.
    pub(in crate::shard) async fn list_each<T: Send + 'static>(
        self: &Rc<Self>,
        list: fn(&Shard) -> Vec<Listed<T>>,
    ) -> (ErrorCode, Vec<T>) {
        let (mut error, mut all) = (ErrorCode::None, Vec::new());
        for shard in (0..self.shards).map(ShardId) {
            let lists = self.on_shard(shard, move |shard| async move { list(&shard) }).await;
            for list in lists.unwrap_or_else(|_| vec![Err(ErrorCode::CoordinatorNotAvailable)]) {
                match list {
                    Ok(list) => all.extend(list),
                    Err(code) => error = code,
                }
            }
        }
        (error, all)
    }
}

/// Java's `String.hashCode`, by which Kafka chooses the partition of a key.
fn java_hash(text: &str) -> i32 {
    text.encode_utf16().fold(0, |hash: i32, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)))
}

/// Kafka's `Utils.abs`.
fn positive(hash: i32) -> i32 {
    if hash == i32::MIN { 0 } else { hash.abs() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_where_kafka_looks_for_them() {
        // By jshell: "".hashCode(), "group".hashCode(), "größe-☃".hashCode(),
        // "polygenelubricants".hashCode() (the least there is).
        assert_eq!(["", "group", "größe-☃"].map(java_hash), [0, 98_629_247, 421_259_591]);
        assert_eq!((java_hash("polygenelubricants"), positive(i32::MIN), positive(-3)), (i32::MIN, 0, 3));
    }
}
