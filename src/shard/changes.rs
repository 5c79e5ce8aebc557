//! A batch of changes to topics, on the controller's shard. Each topic has its own outcome; the
//! syncs and the new image are shared. A request is checked against the image, committed to the
//! store, and answered when every shard shows the image that the store has then
//! ([`apply`](super::apply)).
//!
//! Order and crashes: a topic is created once its file is in its place, and its partitions'
//! directories are made after that (also by the next start); it is deleted once its file is gone,
//! and its directories go after that (also at the next start). So a crash leaves each topic of a
//! batch whole or not at all.

use std::collections::HashSet;
use std::rc::Rc;
use std::sync::Arc;

use uuid::Uuid;

use super::api::TopicRef;
use super::apply::Failures;
use super::control::control_error;
use super::state::Shard;
use crate::cluster::controller::{self, AlterTopic, ControlError, CreateTopic, GrowTopic};
use crate::cluster::image_diff::{ImageUpdate, TopicChange};
use crate::cluster::keeper::{Edit, Edited, Keeper};
use crate::cluster::store::LocalEngine;
use crate::cluster::{MetadataImage, Placement, TopicImage};
use crate::config::ServerConfig;
use crate::model::{ErrorCode, encode_id};
use crate::observe::client_line;
use crate::runtime::spawn_blocking;

/// A topic as it is to be, or why it is not.
type Outcome = Result<Arc<TopicImage>, ControlError>;

/// Gives the topic's new partitions their data directories and adds it to the planned image.
fn settle(
    mut topic: TopicImage,
    placement: &Placement,
    settings: &ServerConfig,
    planned: &mut MetadataImage,
) -> Arc<TopicImage> {
    placement.settle(planned, settings, &mut topic);
    let topic = Arc::new(topic);
    planned.put_topic(topic.clone());
    topic
}

impl Shard {
    /// The image that requests for partitions are checked against, where this broker is alone.
    fn planning(&self) -> MetadataImage {
        let (mut planned, cordoned) = (MetadataImage::clone(&self.image()), self.all_cordoned());
        planned.brokers.iter_mut().for_each(|broker| broker.cordoned = cordoned);
        planned
    }

    pub(super) async fn create_batch(self: &Rc<Self>, requests: Vec<CreateTopic>, validate_only: bool) -> Vec<Outcome> {
        let (mut planned, placement, settings) = (self.planning(), self.placement(), self.settings());
        let plan = |request: &CreateTopic| {
            let topic = controller::create_topic(&planned, &settings, request, Uuid::new_v4())?;
            Ok(settle(topic, &placement, &settings, &mut planned))
        };
        let mut outcomes: Vec<Outcome> = requests.iter().map(plan).collect();
        if validate_only {
            return outcomes;
        }
        let failures = self.make(good(&outcomes)).await;
        refuse(&mut outcomes, &failures);
        for topic in good(&outcomes) {
            client_line!(info, topic = %topic.name, id = %encode_id(topic.id), partitions = topic.partitions.len(), "created topic");
        }
        outcomes
    }

    pub(super) async fn grow_batch(
        self: &Rc<Self>,
        requests: Vec<GrowTopic>,
        validate_only: bool,
    ) -> Vec<Result<(), ControlError>> {
        let (mut planned, placement, settings) = (self.planning(), self.placement(), self.settings());
        let plan = |request: &GrowTopic| {
            controller::check_may_grow(&request.name)?;
            let topic = controller::grow_topic(&planned, &settings, request)?;
            Ok(settle(topic, &placement, &settings, &mut planned))
        };
        let mut outcomes: Vec<Outcome> = requests.iter().map(plan).collect();
        if validate_only {
            return outcomes.into_iter().map(|outcome| outcome.map(drop)).collect();
        }
        let failures = self.make(good(&outcomes)).await;
        refuse(&mut outcomes, &failures);
        for topic in good(&outcomes) {
            client_line!(info, topic = %topic.name, partitions = topic.partitions.len(), "added partitions");
        }
        outcomes.into_iter().map(|outcome| outcome.map(drop)).collect()
    }

    pub(super) async fn alter_batch(
        self: &Rc<Self>,
        requests: Vec<AlterTopic>,
        validate_only: bool,
    ) -> Vec<Result<(), ControlError>> {
        let (mut planned, placement, settings) =
            (MetadataImage::clone(&self.image()), self.placement(), self.settings());
        let plan = |request: &AlterTopic| {
            let mut topic = controller::alter_topic(&planned, &settings, request)?;
            placement.settle(&planned, &settings, &mut topic);
            let topic = Arc::new(topic);
            planned.put_topic(topic.clone());
            Ok(topic)
        };
        let mut outcomes: Vec<Outcome> = requests.iter().map(plan).collect();
        if !validate_only {
            let topics = good(&outcomes);
            let edited = self.edit(topics.iter().cloned().map(Edit::Put).collect()).await;
            let update = edited_update(&self.image(), &edited);
            refuse(&mut outcomes, &failures(topics, edited.outcomes));
            for topic in good(&outcomes) {
                client_line!(info, topic = %topic.name, options = ?topic.overrides, "altered options");
            }
            if !update.topics.is_empty() {
                self.publish(update).await;
            }
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
        let topics = good(&outcomes);
        let edited = self.edit(topics.iter().map(|topic| Edit::Remove(topic.name.clone())).collect()).await;
        let update = edited_update(&self.image(), &edited);
        refuse(&mut outcomes, &failures(topics, edited.outcomes));
        let left = if update.topics.is_empty() { HashSet::new() } else { self.publish(update).await };
        for topic in good(&outcomes) {
            client_line!(info, topic = %topic.name, id = %encode_id(topic.id), "deleted topic");
            if !left.contains(&topic.id) {
                self.forget_deleted_later(topic.id);
            }
        }
        outcomes
    }

    /// Makes topics that are new, or have new partitions: stores them, and has the shards open
    /// what is theirs. A topic that cannot be opened whole is taken back: it would be half
    /// there at the next start.
    async fn make(self: &Rc<Self>, topics: Vec<Arc<TopicImage>>) -> Failures {
        let before = self.image();
        let edited = self.edit(topics.iter().cloned().map(Edit::Put).collect()).await;
        let (proposed, mut failed) = (edited_update(&before, &edited), failures(topics, edited.outcomes));
        if proposed.topics.is_empty() {
            return failed;
        }
        let mut taken_back: Vec<Uuid> = Vec::new();
        let mut left = self
            .publish_or(proposed, async |proposed: Arc<ImageUpdate>, unopened: Failures| {
                let is_back =
                    |change: &&TopicChange| change.after.as_ref().is_some_and(|after| unopened.contains_key(&after.id));
                let (back, made): (Vec<_>, Vec<_>) = proposed.topics.iter().partition(is_back);
                let edits = back.iter().filter_map(|change| match &change.before {
                    Some(before) => Some(Edit::Put(before.clone())),
                    None => change.after.as_ref().map(|after| Edit::Remove(after.name.clone())),
                });
                let edited = self.edit(edits.collect()).await;
                let topics: Vec<_> = back.iter().filter_map(|change| change.after.clone()).collect();
                let made: Vec<_> = made.iter().filter_map(|change| change.after.clone()).collect();
                taken_back.extend(topics.iter().filter(|topic| before.topic(&topic.name).is_none()).map(|t| t.id));
                failed.extend(unopened.clone());
                failed.extend(failures(topics, edited.outcomes));
                Arc::new(ImageUpdate::new(&before, made, &[], edited.revision))
            })
            .await;
        taken_back.retain(|topic| !left.remove(topic));
        taken_back.into_iter().for_each(|topic| self.forget_deleted_later(topic));
        failed
    }

    /// Carries changes of topics out in the store, on a helper thread.
    pub(super) async fn edit(&self, edits: Vec<Edit>) -> Edited {
        self.with_keeper(move |keeper| keeper.edit(&edits)).await
    }

    /// Changes the store, on a helper thread.
    pub(super) async fn with_keeper<R: Send + 'static>(
        &self,
        change: impl FnOnce(&mut Keeper<LocalEngine>) -> R + Send + 'static,
    ) -> R {
        let (keeper, image, run) = (self.keeper.take(), self.image(), self.placement().run);
        let (files, defaults) = (self.store.clone(), self.settings().topic_defaults.clone());
        let work = move || {
            let new = || Keeper::new(LocalEngine::new(files, &image, defaults.clone(), run), defaults);
            let mut keeper = keeper.unwrap_or_else(new);
            let changed = change(&mut keeper);
            (keeper, changed)
        };
        let (keeper, changed) = spawn_blocking(work).await;
        self.keeper.replace(Some(keeper));
        changed
    }
}

/// The next image, with topics as the store has them.
pub(super) fn edited_update(before: &MetadataImage, edited: &Edited) -> ImageUpdate {
    let put = edited.topics.values().flatten().cloned().collect();
    let gone = edited.topics.iter().filter(|(_, topic)| topic.is_none());
    let removed: Vec<Arc<str>> = gone.map(|(name, _)| name.clone()).collect();
    ImageUpdate::new(before, put, &removed, edited.revision)
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

/// Edits of `topics` that were not carried out.
pub(super) fn failures(topics: Vec<Arc<TopicImage>>, outcomes: Vec<Result<(), String>>) -> Failures {
    let failed = topics.into_iter().zip(outcomes).filter_map(|(topic, outcome)| Some((topic, outcome.err()?)));
    let failed: Vec<_> = failed.collect();
    if let Some((topic, error)) = failed.first() {
        client_line!(error, topic = %topic.name, topics = failed.len(), %error, "writing metadata failed");
    }
    failed.into_iter().map(|(topic, why)| (topic.id, control_error(ErrorCode::KafkaStorageError, why))).collect()
}
