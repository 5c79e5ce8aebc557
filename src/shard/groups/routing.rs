//! From a group's id to its coordinator.

use std::rc::Rc;
use std::sync::Arc;

use super::hosted::World;
use super::{Call, ListedGroup, Reply, Request};
use crate::cluster::TopicImage;
use crate::cluster::controller::CreateTopic;
use crate::model::{BrokerId, ErrorCode, PartitionId, ShardId};
use crate::observe::client_line;
use crate::shard::{PATIENCE, Shard};

pub use crate::cluster::controller::OFFSETS_TOPIC;

impl Shard {
    /// Asks the coordinator of the request's group, whichever shard it lives on. The error: COORDINATOR_LOAD_IN_PROGRESS or
    /// NOT_COORDINATOR (look for it again).
    pub async fn ask_group<C: Call + Send + 'static>(self: &Rc<Self>, request: C) -> Result<C::Reply, ErrorCode> {
        let partition = self.partition_of_group(request.group()).ok_or(ErrorCode::NotCoordinator)?;
        let request: Request = request.into();
        let reply = self.on_shard(self.owner(partition), move |shard| shard.ask_coordinator(partition, request)).await;
        // Replies are of their request's kind; any other is the coordinator's mistake.
        C::reply(reply.map_err(|_| ErrorCode::NotCoordinator)??).ok_or(ErrorCode::UnknownServerError)
    }

    /// Every group of this broker; with an error when some coordinators could not be asked.
    pub async fn list_groups(self: &Rc<Self>) -> (ErrorCode, Vec<ListedGroup>) {
        let (mut error, mut groups) = (ErrorCode::None, Vec::new());
        for shard in (0..self.shards).map(ShardId) {
            let lists = self.on_shard(shard, |shard| async move {
                shard.coordinators.all().iter().map(|hosted| hosted.list()).collect::<Vec<_>>()
            });
            for list in lists.await.unwrap_or_else(|_| vec![Err(ErrorCode::CoordinatorNotAvailable)]) {
                match list {
                    Ok(list) => groups.extend(list),
                    Err(code) => error = code,
                }
            }
        }
        (error, groups)
    }

    /// The topic of committed offsets, made when it is not there yet.
    pub async fn offsets_topic(self: &Rc<Self>) -> Result<Arc<TopicImage>, ErrorCode> {
        if let Some(topic) = self.image().topic(OFFSETS_TOPIC) {
            return Ok(topic.clone());
        }
        // Of a cluster, too few brokers are an error, as in Kafka: the topic would keep too few replicas for good.
        let most = if self.config.in_cluster() { i16::MAX } else { 1 };
        let config = |name: &str, value: String| (name.to_owned(), Some(value));
        let request = CreateTopic {
            name: OFFSETS_TOPIC.to_owned(),
            num_partitions: self.config.offsets_topic_num_partitions,
            replication_factor: self.config.offsets_topic_replication_factor.min(most),
            configs: vec![
                config("cleanup.policy", "compact".to_owned()),
                config("segment.bytes", self.config.offsets_topic_segment_bytes.to_string()),
                config("compression.type", "producer".to_owned()),
            ],
            ..CreateTopic::default()
        };
        match self.create_topics(vec![request], false, PATIENCE).await.pop() {
            Some(Ok(topic)) => Ok(topic),
            // Somebody else was faster.
            Some(Err(error)) if error.code == ErrorCode::TopicAlreadyExists => {
                self.image().topic(OFFSETS_TOPIC).cloned().ok_or(ErrorCode::CoordinatorNotAvailable)
            }
            Some(Err(error)) => {
                client_line!(error, code = %error.code, message = error.message, "making {OFFSETS_TOPIC} failed: groups cannot be served");
                Err(ErrorCode::CoordinatorNotAvailable)
            }
            None => Err(ErrorCode::CoordinatorNotAvailable),
        }
    }

    /// The broker that leads the group's partition.
    pub fn coordinator_of(&self, group: &str) -> Option<BrokerId> {
        let (image, partition) = (self.image(), self.partition_of_group(group)?);
        let topic = image.topic_by_id(partition.topic)?;
        topic.partitions.get(usize::try_from(partition.index.0).ok()?)?.leader
    }

    /// The shard of the group's partition; `None` where there is no such partition yet.
    pub fn owner_of_group(&self, group: &str) -> Option<ShardId> {
        self.partition_of_group(group).map(|partition| self.owner(partition))
    }

    fn partition_of_group(&self, group: &str) -> Option<PartitionId> {
        let image = self.image();
        let topic = image.topic(OFFSETS_TOPIC)?;
        let count = i32::try_from(topic.partitions.len()).ok().filter(|count| *count > 0)?;
        Some(PartitionId::new(topic.id, positive(java_hash(group)) % count))
    }

    /// On the owner.
    fn ask_coordinator(
        self: Rc<Self>,
        partition: PartitionId,
        request: Request,
    ) -> impl Future<Output = Result<Reply, ErrorCode>> {
        let hosted = self.coordinators.get(partition).filter(|hosted| hosted.is_in_office());
        let asked = hosted.map(|hosted| self.with_world(|world| hosted.ask(request, world)));
        async move { asked.ok_or(ErrorCode::NotCoordinator)?.await }
    }

    /// What coordinators are told of this shard's world.
    pub(super) fn with_world<R>(&self, call: impl FnOnce(&World<'_>) -> R) -> R {
        let image = self.image();
        let topics_version = self.coordinators.topics_version.get();
        call(&World { config: &self.config.group, image: &image, topics_version })
    }
}

/// Java's `String.hashCode`, by which Kafka chooses a group's partition.
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
    fn groups_are_where_kafka_looks_for_them() {
        // By jshell: "".hashCode(), "group".hashCode(), "größe-☃".hashCode(), "polygenelubricants".hashCode() (the least there is).
        assert_eq!(["", "group", "größe-☃"].map(java_hash), [0, 98_629_247, 421_259_591]);
        assert_eq!((java_hash("polygenelubricants"), positive(i32::MIN), positive(-3)), (i32::MIN, 0, 3));
    }
}
