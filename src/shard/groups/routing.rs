//! From a group's id to its coordinator.

use std::rc::Rc;
use std::sync::Arc;

use super::hosted::World;
use crate::cluster::TopicImage;
use crate::cluster::controller::OFFSETS_TOPIC;
use crate::groups::api::{Call, ListedGroup, Reply, Request};
use crate::model::{BrokerId, ErrorCode, PartitionId, ShardId};
use crate::shard::Shard;
use crate::shard::coordinators::{CoordinatorTopic, answer};

impl Shard {
    /// Asks the coordinator of the request's group, whichever shard it lives on. The error:
    /// COORDINATOR_LOAD_IN_PROGRESS or NOT_COORDINATOR (look for it again).
    pub async fn ask_group<C: Call + Send + 'static>(self: &Rc<Self>, request: C) -> Result<C::Reply, ErrorCode> {
        let partition = self.partition_of_group(request.group()).ok_or(ErrorCode::NotCoordinator)?;
        let request: Request = request.into();
        let reply = self.on_shard(self.owner(partition), move |shard| shard.ask_coordinator(partition, request)).await;
        // Replies are of their request's kind; any other is the coordinator's mistake.
        C::reply(reply.map_err(|_| ErrorCode::NotCoordinator)??).ok_or(ErrorCode::UnknownServerError)
    }

    /// Every group of this broker; with an error when some coordinators could not be asked.
    pub async fn list_groups(self: &Rc<Self>) -> (ErrorCode, Vec<ListedGroup>) {
        self.list_each(|shard| shard.coordinators.groups.all().iter().map(|hosted| hosted.list()).collect()).await
    }

    /// The topic of committed offsets, made when it is not there yet.
    pub async fn offsets_topic(self: &Rc<Self>) -> Result<Arc<TopicImage>, ErrorCode> {
        self.coordinator_topic(CoordinatorTopic {
            name: OFFSETS_TOPIC,
            num_partitions: self.config.offsets_topic_num_partitions,
            replication_factor: self.config.offsets_topic_replication_factor,
            replication_factor_by: "offsets.topic.replication.factor",
            configs: vec![
                ("cleanup.policy", "compact".to_owned()),
                ("segment.bytes", self.config.offsets_topic_segment_bytes.to_string()),
                ("compression.type", "producer".to_owned()),
            ],
        })
        .await
    }

    /// The broker that leads the group's partition.
    pub fn coordinator_of(&self, group: &str) -> Option<BrokerId> {
        self.coordinator_broker(OFFSETS_TOPIC, group)
    }

    /// The shard of the group's partition; `None` where there is no such partition yet.
    pub fn owner_of_group(&self, group: &str) -> Option<ShardId> {
        self.partition_of_group(group).map(|partition| self.owner(partition))
    }

    /// The partition of `__consumer_offsets` that the group is in; `None` where there is none yet.
    pub fn partition_of_group(&self, group: &str) -> Option<PartitionId> {
        self.coordinator_partition(OFFSETS_TOPIC, group)
    }

    /// On the owner.
    fn ask_coordinator(
        self: Rc<Self>,
        partition: PartitionId,
        request: Request,
    ) -> impl Future<Output = Result<Reply, ErrorCode>> {
        let hosted = self.coordinators.groups.get(partition).filter(|hosted| hosted.is_in_office());
        let asked = hosted.map(|hosted| self.with_world(|world| hosted.request(request, world)));
        answer(asked.unwrap_or(Err(ErrorCode::NotCoordinator)))
    }

    /// This shard's world as coordinators see it.
    pub(in crate::shard) fn with_world<R>(&self, call: impl FnOnce(&World<'_>) -> R) -> R {
        let (image, memory) = (self.image(), self.coordinators.memory.bytes());
        let topics_version = self.coordinators.topics_version.get();
        call(&World { config: &self.config.group, image: &image, topics_version, memory })
    }

    /// This shard's image has been replaced.
    pub(in crate::shard) fn tell_coordinators(&self, removed: &[Arc<str>]) {
        self.coordinators.topics_version.set(self.coordinators.topics_version.get() + 1);
        for hosted in self.coordinators.groups.all() {
            self.with_world(|world| hosted.topics_changed(removed, world));
        }
    }

    /// Refuses the end of a transaction for a partition of `__consumer_offsets` whose coordinator
    /// is not there to be told of it ([`offsets_ended`](Self::offsets_ended)). On the owner.
    pub(in crate::shard) fn may_end_offsets(&self, partition: PartitionId) -> Result<(), ErrorCode> {
        let hosted = self.coordinators.groups.get(partition).filter(|hosted| hosted.is_in_office());
        // Kafka's word for it: the transaction coordinator knows no errors of group coordinators.
        hosted.ok_or(ErrorCode::NotLeaderOrFollower)?.admit().map_err(|_| ErrorCode::NotLeaderOrFollower)
    }

    /// The end of a transaction was appended to a partition of `__consumer_offsets`, up to
    /// `next_offset`. On the owner.
    pub(in crate::shard) fn offsets_ended(
        &self,
        partition: PartitionId,
        producer_id: i64,
        commit: bool,
        next_offset: i64,
    ) {
        if let Some(hosted) = self.coordinators.groups.get(partition) {
            hosted.appended(next_offset, |core| core.end_transaction(producer_id, commit));
        }
    }
}
