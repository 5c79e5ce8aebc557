//! The next image on its way through the shards. Each shard is visited once: it opens the
//! partitions that are new to it, waits until all shards have opened theirs, publishes the image,
//! and closes what is no longer its own. So no client sees a partition that another shard could not
//! make, and a topic that could not be made whole was never there.
//!
//! Images are made on the controller's shard, one after the other (under [`Shard::control`]).

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use uuid::Uuid;

use super::control::{control_error, stopping};
use super::hosting::Claim;
use super::state::{CONTROLLER, Shard};
use crate::cluster::PartitionImage;
use crate::cluster::controller::ControlError;
use crate::cluster::image_diff::{Closing, ImageUpdate, Step, TopicChange};
use crate::model::{BrokerId, ErrorCode, PartitionId, ShardId};
use crate::observe::client_line;
use crate::runtime::mailbox::ShardStopped;
use crate::runtime::spawn_local;
use crate::runtime::sync::Notify;

/// Topics with which something went wrong.
pub(super) type Failures = HashMap<Uuid, ControlError>;

/// An update that the shards carry out, as the controller's shard follows it.
#[derive(Default)]
pub(super) struct Round {
    /// Shards that have opened their new partitions, or never will.
    opened: RefCell<BTreeSet<ShardId>>,
    /// Shards that are through with the update.
    ended: RefCell<BTreeSet<ShardId>>,
    failures: RefCell<Failures>,
    /// Deleted topics of which some directories could not be put away.
    left: RefCell<HashSet<Uuid>>,
    /// The update to publish, once it is known that it can be.
    published: RefCell<Option<Arc<ImageUpdate>>>,
    moved: Notify,
}

impl Round {
    fn publish(&self, update: Arc<ImageUpdate>) {
        *self.published.borrow_mut() = Some(update);
        self.moved.notify_all();
    }

    fn opened(&self, shard: ShardId, unopened: HashMap<Uuid, String>) {
        for (topic, message) in unopened {
            client_line!(error, %message, "making a partition failed");
            self.failures.borrow_mut().insert(topic, control_error(ErrorCode::KafkaStorageError, message));
        }
        self.opened.borrow_mut().insert(shard);
        self.moved.notify_all();
    }

    fn ended(&self, shard: ShardId, update: &ImageUpdate, outcome: Result<HashSet<Uuid>, ShardStopped>) {
        match outcome {
            Ok(left) => self.left.borrow_mut().extend(left),
            Err(_) => {
                // The next start clears its directories.
                let deleted = update.topics.iter().filter(|change| change.is_deletion());
                self.left.borrow_mut().extend(deleted.filter_map(|change| Some(change.before.as_ref()?.id)));
                if !self.opened.borrow().contains(&shard) {
                    let made = update.topics.iter().filter_map(|change| Some((change.after.as_ref()?.id, stopping())));
                    self.failures.borrow_mut().extend(made);
                }
            }
        }
        self.opened.borrow_mut().insert(shard);
        self.ended.borrow_mut().insert(shard);
        self.moved.notify_all();
    }

    async fn until(&self, shards: &RefCell<BTreeSet<ShardId>>, count: u16) {
        while shards.borrow().len() < usize::from(count) {
            self.moved.notified().await;
        }
    }
}

impl Shard {
    /// Shows `update` to every shard. Returns the deleted topics of which some
    /// directories could not be put away.
    pub(super) async fn publish(self: &Rc<Self>, update: ImageUpdate) -> HashSet<Uuid> {
        self.publish_or(update, async |proposed, _| proposed).await
    }

    /// As [`publish`](Self::publish). Where partitions cannot be opened, `settle` makes the
    /// update that is published instead, from the same image; what was opened for the first and
    /// is not in the second is closed.
    pub(super) async fn publish_or(
        self: &Rc<Self>,
        update: ImageUpdate,
        settle: impl AsyncFnOnce(Arc<ImageUpdate>, Failures) -> Arc<ImageUpdate>,
    ) -> HashSet<Uuid> {
        let (update, round) = (Arc::new(update), Rc::new(Round::default()));
        let opens = update.opens(self.broker());
        *self.round.borrow_mut() = Some(round.clone());
        for shard in self.all_shards() {
            let (controller, round, update) = (self.clone(), round.clone(), update.clone());
            spawn_local(async move {
                let carried = update.clone();
                let begun = controller.mesh.call(shard, move |shard| shard.carry_out(carried, opens)).await;
                let outcome = match begun {
                    Ok(running) => running.await,
                    Err(stopped) => Err(stopped),
                };
                round.ended(shard, &update, outcome);
            });
        }
        if opens {
            round.until(&round.opened, self.shards).await;
            let failures = round.failures.take();
            let published = if failures.is_empty() { update } else { settle(update, failures).await };
            round.publish(published);
        }
        round.until(&round.ended, self.shards).await;
        self.round.take();
        round.left.take()
    }

    /// On the controller's shard: `shard` has opened its new partitions but for those
    /// of these topics. Returns the update to publish, when all shards have; `None`:
    /// there is none on its way.
    async fn wait_for_all(self: Rc<Self>, shard: ShardId, unopened: HashMap<Uuid, String>) -> Option<Arc<ImageUpdate>> {
        let round = self.round.borrow().clone()?;
        round.opened(shard, unopened);
        loop {
            let published = round.published.borrow().clone();
            if published.is_some() {
                return published;
            }
            round.moved.notified().await;
        }
    }

    /// Carries an update out on this shard; `opens`: some shard has partitions to open.
    async fn carry_out(self: Rc<Self>, update: Arc<ImageUpdate>, opens: bool) -> HashSet<Uuid> {
        if !opens {
            return self.install(&update).await;
        }
        let (from, unopened) = (self.id, self.open_new(&update).await);
        let waited = self.on_shard(CONTROLLER, move |shard| shard.wait_for_all(from, unopened)).await;
        // Without a controller the broker is on its way out, and nothing is published.
        let Ok(Some(published)) = waited else { return HashSet::new() };
        let mut left = self.install(&published).await;
        let undone = update.topics.iter().filter_map(|change| {
            let proposed = change.after.as_ref()?;
            let after = published.image.topic(&proposed.name);
            let is_as_proposed = after.is_some_and(|after| Arc::ptr_eq(after, proposed));
            (!is_as_proposed).then(|| TopicChange { before: Some(proposed.clone()), after: after.cloned() })
        });
        let undone: Vec<_> = undone.flat_map(|change| self.own_steps(&change)).collect();
        left.extend(self.close(undone).await);
        left
    }

    /// This broker's number.
    pub(super) fn broker(&self) -> BrokerId {
        BrokerId(self.config.broker_id)
    }

    /// This broker has a replica of the partition.
    pub(super) fn is_here(&self, partition: &PartitionImage) -> bool {
        !self.config.in_cluster() || partition.replicas.contains(&self.broker())
    }

    fn own_steps(&self, change: &TopicChange) -> Vec<(PartitionId, Step)> {
        let steps = change.steps(self.broker()).into_iter();
        steps.filter(|(partition, _)| self.owner(*partition) == self.id).collect()
    }

    /// Opens the partitions that are new to this shard. Returns the topics of which
    /// some could not be, and why.
    async fn open_new(self: &Rc<Self>, update: &ImageUpdate) -> HashMap<Uuid, String> {
        let new = update.topics.iter().flat_map(|change| {
            let steps = self.own_steps(change).into_iter().filter(|(_, step)| *step == Step::Open);
            steps.filter_map(|(id, _)| Some((change.after.clone()?, id))).collect::<Vec<_>>()
        });
        let new: Vec<_> = new.collect();
        let topics: HashSet<Uuid> = new.iter().map(|(topic, _)| topic.id).collect();
        let claim = if self.config.in_cluster() { Claim::Assigned } else { Claim::New };
        match self.host_partitions(new, claim).await {
            Ok(hosted) => hosted.failed,
            Err(error) => topics.into_iter().map(|topic| (topic, error.to_string())).collect(),
        }
    }

    /// Replaces this shard's image. Replicas take over what has changed, those that
    /// are no longer here close.
    async fn install(self: &Rc<Self>, update: &ImageUpdate) -> HashSet<Uuid> {
        let mut steps = Vec::new();
        for change in &update.topics {
            let own = self.own_steps(change);
            let opened: HashSet<PartitionId> =
                own.iter().filter(|(_, step)| *step == Step::Open).map(|(id, _)| *id).collect();
            for (id, step) in &own {
                if let (Step::Lead(_) | Step::Follow(..) | Step::Configure, false) = (step, opened.contains(id)) {
                    self.update_replica(change, *id);
                }
            }
            steps.extend(own);
        }
        let before = self.image.replace(update.image.clone());
        self.quota_flag.follow(&before, &update.image);
        self.hand_out_roles(update);
        self.let_in(&update.image);
        let deleted = update.topics.iter().filter(|change| change.is_deletion());
        self.tell_coordinators(&deleted.filter_map(|c| Some(c.before.as_ref()?.name.clone())).collect::<Vec<_>>());
        self.close(steps).await
    }

    /// Gives the replicas of partitions that have changed their roles; where a broker has changed,
    /// every leader looks anew.
    fn hand_out_roles(self: &Rc<Self>, update: &ImageUpdate) {
        let Some(membership) = self.membership() else { return };
        self.follow_brokers(&update.brokers);
        let changed = update.topics.iter().flat_map(|change| change.partitions(membership.me));
        changed.filter_map(|id| self.replica(id)).for_each(|replica| self.assign_role(&replica));
    }

    fn update_replica(&self, change: &TopicChange, id: PartitionId) {
        let Some(topic) = &change.after else { return };
        let partition = usize::try_from(id.index.0).ok().and_then(|index| topic.partitions.get(index));
        if let (Some(replica), Some(partition)) = (self.replica(id), partition) {
            replica.update(topic.config.clone(), partition.leader_epoch);
        }
    }

    /// Closes the replicas that `steps` say. Returns the deleted topics of which some
    /// directories could not be put away.
    async fn close(self: &Rc<Self>, steps: Vec<(PartitionId, Step)>) -> HashSet<Uuid> {
        let (mut deleted, mut elsewhere) = (HashSet::new(), HashSet::new());
        for (id, step) in steps {
            match step {
                Step::Close(Closing::Deleted) => drop(deleted.insert(id.topic)),
                Step::Close(Closing::Elsewhere) => drop(elsewhere.insert(id)),
                Step::Open | Step::Lead(_) | Step::Follow(..) | Step::Configure => {}
            }
        }
        if !elsewhere.is_empty() && self.config.in_cluster() {
            self.drop_replicas(&elsewhere).await;
        } else if !elsewhere.is_empty() {
            self.drop_unused(&elsewhere).await;
        }
        if deleted.is_empty() { deleted } else { self.drop_topics(&deleted).await }
    }
}
