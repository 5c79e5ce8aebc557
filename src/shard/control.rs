//! Changes of metadata. They run on the controller's shard, one batch after the other
//! ([`changes`](super::changes)): checked against the image, committed to the store, then carried
//! out by every shard as its image changes ([`apply`](super::apply)).

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::api::TopicRef;
use super::changes::failures;
use super::state::{CONTROLLER, Shard};
use crate::cluster::TopicImage;
use crate::cluster::controller::{AlterTopic, ControlError, CreateTopic, GrowTopic};
use crate::cluster::image_diff::ImageUpdate;
use crate::cluster::keeper::Edit;
use crate::model::{ErrorCode, LeaderEpoch, PartitionId, ShardId};
use crate::observe::client_line;
use crate::observe::metrics::Cause;
use crate::runtime::{spawn_blocking, waits};

/// Topics changed together: enough to share the syncs of the device, and few enough that other
/// changes come in between.
const BATCH: usize = 1000;

/// Producer ids reserved on disk at a time.
const PRODUCER_ID_BLOCK: u32 = 1000;

impl Shard {
    /// Creates topics; each is on disk and visible on every shard when its result is there.
    pub async fn create_topics(
        self: &Rc<Self>,
        topics: Vec<CreateTopic>,
        validate_only: bool,
        patience: Duration,
    ) -> Vec<Result<Arc<TopicImage>, ControlError>> {
        self.on_controller(topics, async move |shard: &Rc<Shard>, batch| match shard.member() {
            Some(member) => shard.create_shared(member, batch, validate_only, patience).await,
            None => shard.create_batch(batch, validate_only).await,
        })
        .await
    }

    /// Returns the deleted topics.
    pub async fn delete_topics(
        self: &Rc<Self>,
        topics: Vec<TopicRef>,
        patience: Duration,
    ) -> Vec<Result<Arc<TopicImage>, ControlError>> {
        self.on_controller(topics, async move |shard: &Rc<Shard>, batch| match shard.member() {
            Some(member) => shard.delete_shared(member, batch, patience).await,
            None => shard.delete_batch(batch).await,
        })
        .await
    }

    pub async fn create_partitions(
        self: &Rc<Self>,
        topics: Vec<GrowTopic>,
        validate_only: bool,
        patience: Duration,
    ) -> Vec<Result<(), ControlError>> {
        self.on_controller(topics, async move |shard: &Rc<Shard>, batch| match shard.member() {
            Some(member) => shard.grow_shared(member, batch, validate_only, patience).await,
            None => shard.grow_batch(batch, validate_only).await,
        })
        .await
    }

    pub async fn alter_topics(
        self: &Rc<Self>,
        changes: Vec<AlterTopic>,
        validate_only: bool,
    ) -> Vec<Result<(), ControlError>> {
        self.on_controller(changes, async move |shard: &Rc<Shard>, batch| match shard.member() {
            Some(member) => shard.alter_shared(member, batch, validate_only).await,
            None => shard.alter_batch(batch, validate_only).await,
        })
        .await
    }

    /// A producer id no one ever got before.
    pub async fn new_producer_id(self: &Rc<Self>) -> Result<i64, ControlError> {
        let given = self.on_shard(CONTROLLER, |shard| waits::waiting(Cause::Metadata, shard.take_producer_id())).await;
        given.unwrap_or_else(|_| Err(stopping()))
    }

    /// Runs `change` on the controller's shard with batches of `requests`, one after the other and
    /// with no other change in between; the results in the order of the requests.
    pub(super) async fn on_controller<P, R>(
        self: &Rc<Self>,
        requests: Vec<P>,
        change: impl AsyncFn(&Rc<Shard>, Vec<P>) -> Vec<Result<R, ControlError>> + Send + 'static,
    ) -> Vec<Result<R, ControlError>>
    where
        P: Send + 'static,
        R: Send + 'static,
    {
        let count = requests.len();
        let change_all = async move |shard: Rc<Shard>| {
            let (mut requests, mut results) = (requests.into_iter(), Vec::with_capacity(count));
            while results.len() < count {
                let batch = requests.by_ref().take(BATCH).collect();
                // Shared metadata changes while images are made of it.
                let alone = shard.member().is_none();
                let _one = if alone { Some(shard.control.acquire(1).await) } else { None };
                results.extend(change(&shard, batch).await);
            }
            results
        };
        let changed = self.on_shard(CONTROLLER, move |shard| waits::waiting(Cause::Metadata, change_all(shard)));
        match changed.await {
            Ok(results) => results,
            Err(_) => std::iter::repeat_with(|| Err(stopping())).take(count).collect(),
        }
    }

    async fn take_producer_id(self: Rc<Self>) -> Result<i64, ControlError> {
        let _one = self.producer_id_turn.acquire(1).await;
        let (mut next, mut end) = self.producer_ids.get();
        if next >= end {
            next = match self.member() {
                Some(member) => self.take_shared_producer_ids(&member, PRODUCER_ID_BLOCK).await?,
                None => self.take_own_producer_ids(end == 0).await?,
            };
            end = next + i64::from(PRODUCER_ID_BLOCK);
        }
        self.producer_ids.set((next + 1, end));
        Ok(next)
    }

    /// `first`: of this run.
    async fn take_own_producer_ids(self: &Rc<Self>, first: bool) -> Result<i64, ControlError> {
        // Later on the counter is known to be ahead of the logs.
        let seen = if first { self.largest_producer_id().await? } else { -1 };
        let store = self.store.clone();
        let reserve = move || store.reserve_producer_ids(PRODUCER_ID_BLOCK, seen);
        spawn_blocking(reserve).await.map_err(|error| {
            client_line!(error, %error, "reserving producer ids failed");
            control_error(ErrorCode::KafkaStorageError, format!("reserving producer ids: {error}"))
        })
    }

    /// The largest producer id in the logs and checkpoints of all shards.
    async fn largest_producer_id(self: &Rc<Self>) -> Result<i64, ControlError> {
        let mut largest = -1;
        for shard in self.all_shards() {
            let seen = self.on_shard(shard, |shard| async move { shard.shared().producers.largest_id() }).await;
            largest = largest.max(seen.map_err(|_| stopping())?);
        }
        Ok(largest)
    }

    /// Shows everybody the epochs of partitions whose own files know later ones than the image, as
    /// after metadata was restored from an old copy. Before this shard serves.
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
            tracing::error!(why = %error.message, "storing leader epochs failed; the next start finds them again");
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
        let changed: Vec<Arc<TopicImage>> = changed.into_values().map(Arc::new).collect();
        let edited = self.edit(changed.iter().cloned().map(Edit::Put).collect()).await;
        // Shown in any case: requests are held to the epochs that the partitions go by.
        self.publish(ImageUpdate::new(&self.image(), changed.clone(), &[], edited.revision)).await;
        failures(changed, edited.outcomes).into_values().next().map_or(Ok(()), Err)
    }

    pub(super) fn all_shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.shards).map(ShardId)
    }
}

pub(super) fn control_error(code: ErrorCode, message: impl Into<String>) -> ControlError {
    ControlError { code, message: message.into() }
}

pub(super) fn stopping() -> ControlError {
    control_error(ErrorCode::NotController, "the broker is shutting down")
}
