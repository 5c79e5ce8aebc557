//! Partitions of this shard that are not served: their directory could not be opened, or
//! their disk failed. The controller publishes them in the metadata image, so that clients
//! and tools see partitions without a leader, and logs them once a minute. Kafka does the
//! same for a failed log directory.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::state::{CONTROLLER, Shard};
use crate::cluster::image_diff::ImageUpdate;
use crate::cluster::{MetadataImage, OfflinePartitions};
use crate::model::{ErrorCode, PartitionId, ShardId};
use crate::partition::Replica;
use crate::runtime::{clock, spawn_local};

/// Time between two log lines about the same offline partitions.
const REMINDER: Duration = Duration::from_secs(60);
/// Partitions named in such a line; the rest are counted.
const NAMED: usize = 8;

/// The offline partitions of one shard.
#[derive(Default)]
pub(super) struct Offline {
    /// Partitions without a replica, and why.
    unopened: RefCell<OfflinePartitions>,
    /// Those of them whose opening found no room on the disk: it is tried again.
    no_room: RefCell<BTreeSet<PartitionId>>,
    /// Set when `unopened` changes.
    changed: Cell<bool>,
    /// Last value of `StorageContext::failures` looked at.
    failures_seen: Cell<u64>,
    /// Last value of `StorageContext::failures` after which directories were tried out.
    failures_tried: Cell<u64>,
    /// Directories are tried out.
    trying: Cell<bool>,
    /// Partitions published to the controller.
    published: RefCell<OfflinePartitions>,
}

impl Shard {
    /// Takes a partition that could not be opened offline. Its requests are answered with
    /// KAFKA_STORAGE_ERROR from now on.
    pub(super) fn set_offline(&self, partition: PartitionId, why: impl Into<Arc<str>>) {
        self.offline.unopened.borrow_mut().insert(partition, why.into());
        self.offline.changed.set(true);
    }

    /// A partition that is offline for want of room is opened once there is some.
    pub(super) fn open_later(&self, partition: PartitionId) {
        self.offline.no_room.borrow_mut().insert(partition);
    }

    /// The partitions to open once there is room; they are forgotten here.
    pub(super) fn take_no_room(&self) -> BTreeSet<PartitionId> {
        self.offline.no_room.take()
    }

    /// A partition was opened, or its topic deleted.
    pub(super) fn clear_offline(&self, partition: PartitionId) {
        self.offline.no_room.borrow_mut().remove(&partition);
        if self.offline.unopened.borrow_mut().remove(&partition).is_some() {
            self.offline.changed.set(true);
        }
    }

    /// The partitions that could not be opened, and why.
    pub(super) fn unopened(&self) -> OfflinePartitions {
        self.offline.unopened.borrow().clone()
    }

    pub(super) fn is_unopened(&self, partition: PartitionId) -> bool {
        self.offline.unopened.borrow().contains_key(&partition)
    }

    /// This shard's replica of `partition`, or the error that its clients get.
    pub(super) fn online(&self, partition: PartitionId) -> Result<Rc<Replica>, ErrorCode> {
        self.replica(partition).ok_or_else(|| match self.offline.unopened.borrow().contains_key(&partition) {
            true => ErrorCode::KafkaStorageError,
            false if self.is_elsewhere(partition) => ErrorCode::NotLeaderOrFollower,
            false => ErrorCode::UnknownTopicOrPartition,
        })
    }

    /// Partitions of this shard that were offline when that was last told.
    pub(super) fn offline_replicas(&self) -> Vec<PartitionId> {
        self.offline.published.borrow().keys().copied().collect()
    }

    /// As [`online`](Self::online), if this broker leads the partition.
    pub(super) fn led(&self, partition: PartitionId) -> Result<Rc<Replica>, ErrorCode> {
        let replica = self.online(partition)?;
        replica.check_epoch(None)?;
        Ok(replica)
    }

    /// Tells the controller which partitions of this shard are offline, if that has changed.
    pub(super) async fn publish_offline(self: &Rc<Self>) {
        let failures = self.storage.failures();
        if self.offline.failures_seen.get() == failures && !self.offline.changed.replace(false) {
            return;
        }
        self.offline.failures_seen.set(failures);
        let mut offline = self.unopened();
        for replica in self.all_replicas() {
            if let Some(why) = replica.offline_reason() {
                offline.insert(replica.id, why);
            }
        }
        if *self.offline.published.borrow() == offline {
            return;
        }
        // Whose log takes nothing must not go on telling its leader that it is in sync.
        offline.keys().for_each(|partition| self.fetchers.remove(*partition));
        let (from, told) = (self.id, offline.clone());
        let shown =
            self.on_shard(CONTROLLER, move |controller| async move { controller.show_offline(from, told).await });
        if shown.await.is_ok() {
            *self.offline.published.borrow_mut() = offline;
        }
    }

    /// On the controller's shard: `from` has exactly these partitions offline.
    async fn show_offline(self: Rc<Self>, from: ShardId, offline: OfflinePartitions) {
        let _one = self.control.acquire(1).await;
        let mut all: OfflinePartitions = self.image().offline().clone();
        all.retain(|partition, _| self.owner(*partition) != from);
        all.extend(offline);
        let before = self.image();
        let mut image = MetadataImage::clone(&before);
        image.set_offline(all);
        let image = Arc::new(image);
        if let Some(member) = self.member() {
            member.tell_offline(&image);
        }
        self.publish(ImageUpdate::between(&before, image, &[])).await;
    }

    /// Has the directories of partitions that failed since the last look tried out, beside
    /// everything else: a disk that hangs must not hold up what is published.
    fn look_at_failures(self: &Rc<Self>) {
        let failures = self.storage.failures();
        let new = self.offline.failures_tried.get() != failures || self.has_suspects();
        if new && !self.offline.trying.replace(true) {
            self.offline.failures_tried.set(failures);
            let shard = self.clone();
            spawn_local(async move {
                shard.try_out_suspects().await;
                shard.offline.trying.set(false);
            });
        }
    }

    /// Publishes changes within a tick; the controller's shard logs what is offline once a minute.
    pub(super) async fn keep_offline_published(self: Rc<Self>) {
        let (image, placement) = (self.image(), self.placement());
        // The start has said it.
        let said = !placement.offline.is_empty() || !image.offline().is_empty() || !image.all_withheld().is_empty();
        let mut remind_at = clock::now() + if said { REMINDER } else { Duration::ZERO };
        while !self.stop.is_set() {
            clock::next_tick().await;
            self.publish_offline().await;
            self.look_at_failures();
            let image = self.image();
            if self.id != CONTROLLER
                || clock::now() < remind_at
                || (image.offline().is_empty() && image.all_withheld().is_empty())
            {
                continue;
            }
            remind_at = clock::now() + REMINDER;
            if !image.offline().is_empty() {
                tracing::warn!("{}", summary(&image));
            }
            for (name, why) in image.all_withheld().iter().take(NAMED) {
                tracing::warn!("topic {name} is withheld: {why}");
            }
        }
    }
}

/// One line for all offline partitions, grouped by what happened to them.
fn summary(image: &MetadataImage) -> String {
    let offline = image.offline();
    let mut by_reason: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (partition, why) in offline {
        let topic =
            image.topic_by_id(partition.topic).map_or_else(|| partition.topic.to_string(), |t| t.name.to_string());
        by_reason.entry(why).or_default().push(format!("{topic}-{}", partition.index));
    }
    let mut left = NAMED;
    let reasons: Vec<String> = by_reason
        .iter()
        .map_while(|(why, names)| {
            let shown = names.len().min(left);
            left -= shown;
            (shown > 0).then(|| format!("{}: {why}", names[..shown].join(", ")))
        })
        .collect();
    let more = match offline.len() - (NAMED - left) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    format!("{} partition(s) are offline: {}{more}", offline.len(), reasons.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn one_line_names_a_few_partitions_and_counts_the_rest() {
        let mut image = MetadataImage::default();
        let id = |index| PartitionId::new(Uuid::nil(), index);
        let why: Arc<str> = "a write failed".into();
        image.set_offline([(id(1), why.clone()), (id(0), "no directory".into())].into());
        let nil = Uuid::nil();
        assert_eq!(
            summary(&image),
            format!("2 partition(s) are offline: {nil}-1: a write failed; {nil}-0: no directory")
        );
        image.set_offline((0..20).map(|index| (id(index), why.clone())).collect());
        let line = summary(&image);
        assert!(line.starts_with("20 partition(s) are offline: ") && line.ends_with("; and 12 more"), "{line}");
        assert_eq!(line.matches("a write failed").count(), 1);
    }
}
