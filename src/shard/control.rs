//! Changes of metadata. They run on the controller's shard, one after the other: checked against the image, made durable,
//! carried out by the owners, then shown to every shard.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use uuid::Uuid;

use super::api::TopicRef;
use super::groups::OFFSETS_TOPIC;
use super::hosting::Claim;
use super::state::{CONTROLLER, Shard};
use crate::cluster::controller::{self, AlterTopic, ControlError, CreateTopic, GrowTopic};
use crate::cluster::{MetadataImage, TopicImage};
use crate::model::{ErrorCode, LeaderEpoch, PartitionId, ShardId};
use crate::observe::client_line;
use crate::runtime::spawn_blocking;

/// Producer ids reserved on disk at a time.
const PRODUCER_ID_BLOCK: u32 = 1000;

impl Shard {
    /// Creates topics one by one; each is on disk and visible on every shard when its result is there.
    pub async fn create_topics(
        self: &Rc<Self>,
        topics: Vec<CreateTopic>,
        validate_only: bool,
    ) -> Vec<Result<Arc<TopicImage>, ControlError>> {
        let count = topics.len();
        self.each_on_controller(count, move |shard| async move {
            let mut results = Vec::with_capacity(topics.len());
            for topic in topics {
                results.push(shard.create_topic(topic, validate_only).await);
            }
            results
        })
        .await
    }

    /// Returns the deleted topics.
    pub async fn delete_topics(self: &Rc<Self>, topics: Vec<TopicRef>) -> Vec<Result<Arc<TopicImage>, ControlError>> {
        let count = topics.len();
        self.each_on_controller(count, move |shard| async move {
            let mut results = Vec::with_capacity(topics.len());
            for topic in topics {
                results.push(shard.delete_topic(topic).await);
            }
            results
        })
        .await
    }

    pub async fn create_partitions(
        self: &Rc<Self>,
        topics: Vec<GrowTopic>,
        validate_only: bool,
    ) -> Vec<Result<(), ControlError>> {
        let count = topics.len();
        self.each_on_controller(count, move |shard| async move {
            let mut results = Vec::with_capacity(topics.len());
            for topic in topics {
                results.push(shard.grow_topic(topic, validate_only).await);
            }
            results
        })
        .await
    }

    pub async fn alter_topics(
        self: &Rc<Self>,
        changes: Vec<AlterTopic>,
        validate_only: bool,
    ) -> Vec<Result<(), ControlError>> {
        let count = changes.len();
        self.each_on_controller(count, move |shard| async move {
            let mut results = Vec::with_capacity(changes.len());
            for change in changes {
                results.push(shard.alter_topic(change, validate_only).await);
            }
            results
        })
        .await
    }

    /// A producer id no one ever got before.
    pub async fn new_producer_id(self: &Rc<Self>) -> Result<i64, ControlError> {
        let given = self.on_shard(CONTROLLER, |shard| async move { shard.take_producer_id().await }).await;
        given.unwrap_or_else(|_| Err(stopping()))
    }

    async fn each_on_controller<R, W, F>(self: &Rc<Self>, count: usize, work: W) -> Vec<Result<R, ControlError>>
    where
        W: FnOnce(Rc<Shard>) -> F + Send + 'static,
        F: Future<Output = Vec<Result<R, ControlError>>> + 'static,
        R: Send + 'static,
    {
        match self.on_shard(CONTROLLER, work).await {
            Ok(results) => results,
            Err(_) => std::iter::repeat_with(|| Err(stopping())).take(count).collect(),
        }
    }

    async fn create_topic(
        self: &Rc<Self>,
        request: CreateTopic,
        validate_only: bool,
    ) -> Result<Arc<TopicImage>, ControlError> {
        let _one = self.control.acquire(1).await;
        let topic = controller::create_topic(&self.image(), &self.config, &request, Uuid::new_v4())?;
        if validate_only {
            return Ok(Arc::new(topic));
        }
        let topic = self.keep(topic).await?;
        if let Err(error) = self.host_everywhere(&topic).await {
            // A topic without its directories must not stay: it would be half there at the next start.
            self.forget(&topic).await?;
            self.drop_everywhere(topic.id).await;
            return Err(error);
        }
        self.show(|image| image.put_topic((*topic).clone())).await;
        client_line!(info, topic = %topic.name, id = %topic.id, partitions = topic.partitions.len(), "created topic");
        Ok(topic)
    }

    async fn grow_topic(self: &Rc<Self>, request: GrowTopic, validate_only: bool) -> Result<(), ControlError> {
        let _one = self.control.acquire(1).await;
        if request.name == OFFSETS_TOPIC {
            let message = "Groups find their partition of this topic by the number of partitions: with another number they would \
                           lose what they have committed. It is fixed when the topic is made (offsets.topic.num.partitions).";
            return Err(control_error(ErrorCode::InvalidPartitions, message));
        }
        let topic = controller::grow_topic(&self.image(), &self.config, &request)?;
        if validate_only {
            return Ok(());
        }
        let before = self.image().topic(&request.name).cloned();
        let topic = self.keep(topic).await?;
        if let Err(error) = self.host_everywhere(&topic).await {
            // Partitions that were made already are not in the image; the next start sets their directories aside.
            if let Some(before) = before {
                self.keep((*before).clone()).await?;
            }
            return Err(error);
        }
        self.show(|image| image.put_topic((*topic).clone())).await;
        client_line!(info, topic = %topic.name, partitions = topic.partitions.len(), "added partitions");
        Ok(())
    }

    async fn alter_topic(self: &Rc<Self>, request: AlterTopic, validate_only: bool) -> Result<(), ControlError> {
        let _one = self.control.acquire(1).await;
        let topic = controller::alter_topic(&self.image(), &self.config, &request)?;
        if validate_only {
            return Ok(());
        }
        let topic = self.keep(topic).await?;
        self.show(|image| image.put_topic((*topic).clone())).await;
        client_line!(info, topic = %topic.name, options = ?topic.overrides, "altered options");
        Ok(())
    }

    async fn delete_topic(self: &Rc<Self>, wanted: TopicRef) -> Result<Arc<TopicImage>, ControlError> {
        let _one = self.control.acquire(1).await;
        let image = self.image();
        let (found, code) = match &wanted {
            TopicRef::Name(name) => (image.topic(name), ErrorCode::UnknownTopicOrPartition),
            TopicRef::Id(id) => (image.topic_by_id(*id), ErrorCode::UnknownTopicId),
        };
        let topic = found.cloned().ok_or_else(|| control_error(code, "there is no such topic"))?;
        self.forget(&topic).await?;
        self.show(|image| {
            image.remove_topic(&topic.name);
        })
        .await;
        self.drop_everywhere(topic.id).await;
        client_line!(info, topic = %topic.name, id = %topic.id, "deleted topic");
        Ok(topic)
    }

    async fn take_producer_id(self: Rc<Self>) -> Result<i64, ControlError> {
        let _one = self.producer_id_turn.acquire(1).await;
        let (mut next, mut end) = self.producer_ids.get();
        if next >= end {
            let store = self.store.clone();
            next = spawn_blocking(move || store.reserve_producer_ids(PRODUCER_ID_BLOCK)).await.map_err(|error| {
                client_line!(error, %error, "reserving producer ids failed");
                control_error(ErrorCode::KafkaStorageError, format!("reserving producer ids: {error}"))
            })?;
            end = next + i64::from(PRODUCER_ID_BLOCK);
        }
        self.producer_ids.set((next + 1, end));
        Ok(next)
    }

    async fn keep(&self, mut topic: TopicImage) -> Result<Arc<TopicImage>, ControlError> {
        self.placement().settle(&self.image(), &mut topic);
        let (topic, store) = (Arc::new(topic), self.store.clone());
        let kept = topic.clone();
        spawn_blocking(move || store.put_topic(&kept)).await.map_err(metadata_error)?;
        Ok(topic)
    }

    async fn forget(&self, topic: &Arc<TopicImage>) -> Result<(), ControlError> {
        let (topic, store) = (topic.clone(), self.store.clone());
        spawn_blocking(move || store.remove_topic(&topic.name, topic.id)).await.map_err(metadata_error)
    }

    /// Shows everybody the epochs of partitions whose own files know later ones than the image, as after metadata was restored
    /// from an old copy. Before this shard serves.
    pub(super) async fn show_later_epochs(self: &Rc<Self>) {
        let image = self.image();
        let shown = |id: PartitionId| {
            let topic = image.topic_by_id(id.topic)?;
            topic.partitions.get(usize::try_from(id.index.0).ok()?).map(|partition| partition.leader_epoch)
        };
        let later: Vec<(PartitionId, LeaderEpoch)> =
            self.all_replicas().iter().map(|r| (r.id, r.leader_epoch())).collect();
        let later: Vec<_> =
            later.into_iter().filter(|(id, epoch)| shown(*id).is_some_and(|shown| shown < *epoch)).collect();
        if later.is_empty() {
            return;
        }
        tracing::warn!(
            partitions = later.len(),
            "the metadata is behind the leader epochs that partitions' own files know (an old copy?): going on from those"
        );
        let told = self.on_shard(CONTROLLER, |shard| async move { shard.take_later_epochs(later).await }).await;
        if let Ok(Err(error)) = told {
            tracing::error!(message = %error.message, "storing leader epochs failed; the next start finds them again");
        }
    }

    async fn take_later_epochs(self: Rc<Self>, later: Vec<(PartitionId, LeaderEpoch)>) -> Result<(), ControlError> {
        let _one = self.control.acquire(1).await;
        let mut changed: BTreeMap<Uuid, TopicImage> = BTreeMap::new();
        for (id, epoch) in later {
            let Some(topic) = self.image().topic_by_id(id.topic).cloned() else { continue };
            let topic = changed.entry(id.topic).or_insert_with(|| (*topic).clone());
            if let Some(partition) = usize::try_from(id.index.0).ok().and_then(|index| topic.partitions.get_mut(index))
            {
                partition.leader_epoch = partition.leader_epoch.max(epoch);
            }
        }
        let topics = changed.clone();
        self.show(move |image| topics.into_values().for_each(|topic| image.put_topic(topic))).await;
        for topic in changed.into_values() {
            self.keep(topic).await?;
        }
        Ok(())
    }

    fn all_shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.shards).map(ShardId)
    }

    async fn host_everywhere(self: &Rc<Self>, topic: &Arc<TopicImage>) -> Result<(), ControlError> {
        let owners = (0..topic.partitions.len() as i32).map(|i| self.owner(PartitionId::new(topic.id, i)));
        let owners: std::collections::BTreeSet<ShardId> = owners.collect();
        for owner in owners {
            let topic = topic.clone();
            let hosted = self
                .on_shard(owner, move |shard| async move {
                    shard.host(vec![topic], Claim::New).await.map_err(|e| e.to_string())
                })
                .await;
            match hosted {
                Ok(Ok(_)) => {}
                Ok(Err(message)) => {
                    client_line!(error, %message, "making a partition failed");
                    return Err(control_error(ErrorCode::KafkaStorageError, message));
                }
                Err(_) => return Err(stopping()),
            }
        }
        Ok(())
    }

    async fn drop_everywhere(self: &Rc<Self>, topic: Uuid) {
        let mut all_put_away = true;
        for shard in self.all_shards() {
            // The next start clears the directories of a shard that has stopped.
            let dropped = self.on_shard(shard, move |shard| async move { shard.drop_topic(topic).await }).await;
            all_put_away &= dropped.unwrap_or(false);
        }
        if all_put_away {
            self.forget_deleted_later(topic);
        }
    }

    /// Makes the next image and shows it to every shard before it returns.
    pub(super) async fn show(self: &Rc<Self>, change: impl FnOnce(&mut MetadataImage)) {
        let mut image = (*self.image()).clone();
        change(&mut image);
        let image = Arc::new(image);
        for shard in self.all_shards() {
            let image = image.clone();
            let _ = self.on_shard(shard, move |shard| async move { shard.take_image(image) }).await;
        }
    }

    /// Replaces this shard's image; replicas take over changed settings.
    fn take_image(&self, image: Arc<MetadataImage>) {
        for replica in self.all_replicas() {
            if let Some(topic) = image.topic_by_id(replica.id.topic)
                && let Some(partition) = topic.partitions.get(replica.id.index.0 as usize)
            {
                replica.update(topic.config.clone(), partition.leader_epoch);
            }
        }
        let before = self.image.replace(image);
        self.tell_coordinators(&before);
    }
}

fn control_error(code: ErrorCode, message: impl Into<String>) -> ControlError {
    ControlError { code, message: message.into() }
}

fn metadata_error(error: std::io::Error) -> ControlError {
    client_line!(error, %error, "writing metadata failed");
    control_error(ErrorCode::KafkaStorageError, format!("writing metadata: {error}"))
}

fn stopping() -> ControlError {
    control_error(ErrorCode::NotController, "the broker is shutting down")
}
