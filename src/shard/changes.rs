//! A batch of changes to topics, on the controller's shard. Each topic has its own outcome; the syncs, the calls to the
//! owners and the new image are shared.
//!
//! Order and crashes: a topic is created once its file is in its place, and its partitions' directories are made after that
//! (also by the next start); it is deleted once its file is gone, and its directories go after that (also at the next
//! start). So a crash leaves each topic of a batch whole or not at all.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use uuid::Uuid;

use super::api::TopicRef;
use super::control::{control_error, stopping};
use super::groups::OFFSETS_TOPIC;
use super::hosting::Claim;
use super::state::Shard;
use crate::cluster::controller::{self, AlterTopic, ControlError, CreateTopic, GrowTopic};
use crate::cluster::{MetadataImage, Placement, TopicImage};
use crate::model::{ErrorCode, PartitionId, ShardId};
use crate::observe::client_line;
use crate::runtime::spawn_blocking;

/// A topic as it is to be, or why it is not.
type Outcome = Result<Arc<TopicImage>, ControlError>;
/// Topics with which something went wrong.
type Failures = HashMap<Uuid, ControlError>;

/// Gives the topic's new partitions their data directories and adds it to the planned image.
fn settle(mut topic: TopicImage, placement: &Placement, planned: &mut MetadataImage) -> Arc<TopicImage> {
    placement.settle(planned, &mut topic);
    let topic = Arc::new(topic);
    planned.put_topic(topic.clone());
    topic
}

impl Shard {
    pub(super) async fn create_batch(self: &Rc<Self>, requests: Vec<CreateTopic>, validate_only: bool) -> Vec<Outcome> {
        let (mut planned, placement) = (MetadataImage::clone(&self.image()), self.placement());
        let plan = |request: &CreateTopic| {
            let topic = controller::create_topic(&planned, &self.config, request, Uuid::new_v4())?;
            Ok(settle(topic, &placement, &mut planned))
        };
        let mut outcomes: Vec<Outcome> = requests.iter().map(plan).collect();
        if validate_only {
            return outcomes;
        }
        let failures = self.keep(good(&outcomes)).await;
        refuse(&mut outcomes, &failures);
        let mut failures = self.host_everywhere(good(&outcomes)).await;
        if !failures.is_empty() {
            // A topic without its directories must not stay: it would be half there at the next start.
            let failed: Vec<_> = good(&outcomes).into_iter().filter(|t| failures.contains_key(&t.id)).collect();
            let ids = failed.iter().map(|topic| topic.id).collect();
            failures.extend(self.forget(failed).await);
            self.drop_everywhere(ids).await;
            refuse(&mut outcomes, &failures);
        }
        let made = good(&outcomes);
        for topic in &made {
            client_line!(info, topic = %topic.name, id = %topic.id, partitions = topic.partitions.len(), "created topic");
        }
        self.show_topics(made).await;
        outcomes
    }

    pub(super) async fn grow_batch(
        self: &Rc<Self>,
        requests: Vec<GrowTopic>,
        validate_only: bool,
    ) -> Vec<Result<(), ControlError>> {
        let (mut planned, placement) = (MetadataImage::clone(&self.image()), self.placement());
        let plan = |request: &GrowTopic| {
            if request.name == OFFSETS_TOPIC {
                return Err(fixed_offsets_topic());
            }
            let topic = controller::grow_topic(&planned, &self.config, request)?;
            Ok(settle(topic, &placement, &mut planned))
        };
        let mut outcomes: Vec<Outcome> = requests.iter().map(plan).collect();
        if validate_only {
            return outcomes.into_iter().map(|outcome| outcome.map(drop)).collect();
        }
        let wanted = good(&outcomes);
        let (store, growing) = (self.store.clone(), wanted.clone());
        let stored = spawn_blocking(move || store.grow_topics(&growing)).await;
        let mut failed = failures(wanted.clone(), stored);
        refuse(&mut outcomes, &failed);
        failed.extend(self.host_everywhere(good(&outcomes)).await);
        refuse(&mut outcomes, &failed);
        let image = self.image();
        let before: Vec<_> = failed.keys().filter_map(|id| image.topic_by_id(*id).cloned()).collect();
        self.drop_growth(&before).await;
        let (store, taken_back) = (self.store.clone(), before.clone());
        let restored = spawn_blocking(move || store.settle_grown(&wanted, &taken_back)).await;
        failures(before, restored);
        let grown = good(&outcomes);
        for topic in &grown {
            client_line!(info, topic = %topic.name, partitions = topic.partitions.len(), "added partitions");
        }
        self.show_topics(grown).await;
        outcomes.into_iter().map(|outcome| outcome.map(drop)).collect()
    }

    pub(super) async fn alter_batch(
        self: &Rc<Self>,
        requests: Vec<AlterTopic>,
        validate_only: bool,
    ) -> Vec<Result<(), ControlError>> {
        let (mut planned, placement) = (MetadataImage::clone(&self.image()), self.placement());
        let plan = |request: &AlterTopic| {
            let mut topic = controller::alter_topic(&planned, &self.config, request)?;
            placement.settle(&planned, &mut topic);
            let topic = Arc::new(topic);
            planned.put_topic(topic.clone());
            Ok(topic)
        };
        let mut outcomes: Vec<Outcome> = requests.iter().map(plan).collect();
        if !validate_only {
            let failures = self.keep(good(&outcomes)).await;
            refuse(&mut outcomes, &failures);
            let altered = good(&outcomes);
            for topic in &altered {
                client_line!(info, topic = %topic.name, options = ?topic.overrides, "altered options");
            }
            self.show_topics(altered).await;
        }
        outcomes.into_iter().map(|outcome| outcome.map(drop)).collect()
    }

    pub(super) async fn delete_batch(self: &Rc<Self>, wanted: Vec<TopicRef>) -> Vec<Outcome> {
        let mut planned = MetadataImage::clone(&self.image());
        let plan = |wanted: &TopicRef| {
            let (found, code) = match wanted {
                TopicRef::Name(name) => (planned.topic(name), ErrorCode::UnknownTopicOrPartition),
                TopicRef::Id(id) => (planned.topic_by_id(*id), ErrorCode::UnknownTopicId),
            };
            let topic = found.cloned().ok_or_else(|| control_error(code, "there is no such topic"))?;
            planned.remove_topic(&topic.name);
            Ok(topic)
        };
        let mut outcomes: Vec<Outcome> = wanted.iter().map(plan).collect();
        let failures = self.forget(good(&outcomes)).await;
        refuse(&mut outcomes, &failures);
        let gone = good(&outcomes);
        if !gone.is_empty() {
            self.show(|image| gone.iter().for_each(|topic| drop(image.remove_topic(&topic.name)))).await;
            self.drop_everywhere(gone.iter().map(|topic| topic.id).collect()).await;
        }
        for topic in gone {
            client_line!(info, topic = %topic.name, id = %topic.id, "deleted topic");
        }
        outcomes
    }

    /// Stores topics as they are to be.
    pub(super) async fn keep(&self, topics: Vec<Arc<TopicImage>>) -> Failures {
        let (store, kept) = (self.store.clone(), topics.clone());
        let stored = spawn_blocking(move || store.put_topics(&kept)).await;
        failures(topics, stored)
    }

    async fn forget(&self, topics: Vec<Arc<TopicImage>>) -> Failures {
        let (store, gone) = (self.store.clone(), topics.clone());
        let removed = spawn_blocking(move || {
            let gone: Vec<_> = gone.iter().map(|topic| (&*topic.name, topic.id)).collect();
            store.remove_topics(&gone)
        })
        .await;
        failures(topics, removed)
    }

    /// Has the owners make the new partitions of `topics`.
    async fn host_everywhere(self: &Rc<Self>, topics: Vec<Arc<TopicImage>>) -> Failures {
        // One part for each owner of a topic's partitions.
        let parts = topics.iter().flat_map(|topic| {
            let mut owners: HashSet<ShardId> = HashSet::new();
            let ids = (0..topic.partitions.len() as i32).map(|index| PartitionId::new(topic.id, index));
            ids.filter(|id| owners.insert(self.owner(*id))).map(|id| (topic.clone(), id)).collect::<Vec<_>>()
        });
        let parts: Vec<(Arc<TopicImage>, PartitionId)> = parts.collect();
        let ids: Vec<Uuid> = parts.iter().map(|(topic, _)| topic.id).collect();
        let host = |shard: Rc<Shard>, parts: Vec<(Arc<TopicImage>, PartitionId)>| async move {
            let ids: Vec<Uuid> = parts.iter().map(|(topic, _)| topic.id).collect();
            let hosted = shard.host(parts.into_iter().map(|(topic, _)| topic).collect(), Claim::New).await;
            let hosted = hosted.map_err(|error| error.to_string());
            ids.iter()
                .map(|id| hosted.as_ref().map_or_else(|e| Some(e.clone()), |h| h.failed.get(id).cloned()))
                .collect()
        };
        let hosted = self.scatter(parts, |(_, id)| *id, host).await;
        let mut failures = Failures::new();
        for (id, outcome) in ids.into_iter().zip(hosted) {
            match outcome {
                Some(None) => {}
                Some(Some(message)) => {
                    client_line!(error, %message, "making a partition failed");
                    failures.insert(id, control_error(ErrorCode::KafkaStorageError, message));
                }
                None => drop(failures.insert(id, stopping())),
            }
        }
        failures
    }

    async fn drop_everywhere(self: &Rc<Self>, topics: HashSet<Uuid>) {
        let (topics, mut left) = (Arc::new(topics), HashSet::new());
        for shard in self.all_shards() {
            let dropping = topics.clone();
            let dropped = self.on_shard(shard, move |shard| async move { shard.drop_topics(&dropping).await }).await;
            // The next start clears the directories of a shard that has stopped.
            left.extend(dropped.unwrap_or_else(|_| HashSet::clone(&topics)));
        }
        topics.difference(&left).for_each(|topic| self.forget_deleted_later(*topic));
    }

    /// Has the owners remove partitions that were made for topics whose growth has failed.
    async fn drop_growth(self: &Rc<Self>, before: &[Arc<TopicImage>]) {
        let sizes: HashMap<Uuid, usize> = before.iter().map(|topic| (topic.id, topic.partitions.len())).collect();
        if sizes.is_empty() {
            return;
        }
        for shard in self.all_shards() {
            let sizes = sizes.clone();
            let _ = self.on_shard(shard, move |shard| async move { shard.drop_partitions_beyond(&sizes).await }).await;
        }
    }

    async fn show_topics(self: &Rc<Self>, topics: Vec<Arc<TopicImage>>) {
        if !topics.is_empty() {
            self.show(|image| topics.into_iter().for_each(|topic| image.put_topic(topic))).await;
        }
    }
}

/// The topics that are fine so far; of one that the batch changes twice, as it is to be in the end.
fn good(outcomes: &[Outcome]) -> Vec<Arc<TopicImage>> {
    let mut seen = HashSet::new();
    let newest_first = outcomes.iter().rev().flatten().filter(|topic| seen.insert(topic.id));
    let mut topics: Vec<_> = newest_first.cloned().collect();
    topics.reverse();
    topics
}

fn refuse(outcomes: &mut [Outcome], failures: &Failures) {
    for outcome in outcomes {
        if let Ok(topic) = outcome
            && let Some(error) = failures.get(&topic.id)
        {
            *outcome = Err(error.clone());
        }
    }
}

fn failures(topics: Vec<Arc<TopicImage>>, stored: Vec<std::io::Result<()>>) -> Failures {
    let failed = topics.into_iter().zip(stored).filter_map(|(topic, outcome)| Some((topic, outcome.err()?)));
    let failed: Vec<_> = failed.collect();
    if let Some((topic, error)) = failed.first() {
        client_line!(error, topic = %topic.name, topics = failed.len(), %error, "writing metadata failed");
    }
    let told =
        |error: std::io::Error| control_error(ErrorCode::KafkaStorageError, format!("writing metadata: {error}"));
    failed.into_iter().map(|(topic, error)| (topic.id, told(error))).collect()
}

fn fixed_offsets_topic() -> ControlError {
    let message = "Groups find their partition of this topic by the number of partitions: with another number they would \
                   lose what they have committed. It is fixed when the topic is made (offsets.topic.num.partitions).";
    control_error(ErrorCode::InvalidPartitions, message)
}
