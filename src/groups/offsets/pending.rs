//! Offsets that were committed in transactions which have not ended yet (TxnOffsetCommit).

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use super::Committed;
use crate::groups::api::GroupId;

/// Memory charged per offset, besides its metadata.
const PENDING_BYTES: usize = 256;

pub(super) fn pending_bytes(metadata: &str) -> usize {
    PENDING_BYTES + metadata.len()
}

/// Whose offset it is: group, topic, partition.
type Place = (GroupId, Arc<str>, i32);

/// An offset in a transaction.
#[derive(Debug)]
pub(super) struct Pending {
    pub committed: Committed,
    /// Rises with each that is put, in the order of the log.
    pub stamp: u64,
    /// An offset that lies behind it in the log counts already: the end of the
    /// transaction changes nothing.
    pub overtaken: bool,
}

/// All of one coordinator, by the producer whose transaction they are in.
#[derive(Debug, Default)]
pub(super) struct PendingOffsets {
    by_producer: HashMap<i64, BTreeMap<Place, Pending>>,
    /// Topic, partition and producer of each.
    by_group: HashMap<GroupId, BTreeSet<(Arc<str>, i32, i64)>>,
    stamps: u64,
    bytes: usize,
}

impl PendingOffsets {
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    pub fn put(&mut self, producer_id: i64, (group, topic, partition): Place, committed: Committed) {
        self.bytes += pending_bytes(&committed.metadata);
        self.stamps += 1;
        let pending = Pending { committed, stamp: self.stamps, overtaken: false };
        self.by_group.entry(group.clone()).or_default().insert((topic.clone(), partition, producer_id));
        let of_producer = self.by_producer.entry(producer_id).or_default();
        if let Some(before) = of_producer.insert((group, topic, partition), pending) {
            self.bytes -= pending_bytes(&before.committed.metadata);
        }
    }

    pub fn has_any(&self, group: &str) -> bool {
        self.by_group.contains_key(group)
    }

    pub fn contains(&self, group: &str, topic: &Arc<str>, partition: i32) -> bool {
        !self.producers(group, topic, partition).is_empty()
    }

    /// Topics and partitions of a group; those in several transactions several times.
    pub fn of_group(&self, group: &str) -> impl Iterator<Item = (&Arc<str>, i32)> {
        let places = self.by_group.get(group).into_iter().flatten();
        places.map(|(topic, partition, _)| (topic, *partition))
    }

    /// Those of a topic.
    pub fn of_topic<'a>(&'a self, topic: &'a str) -> impl Iterator<Item = (&'a GroupId, i32, &'a Committed)> {
        let all = self.by_producer.values().flatten();
        let of_topic = all.filter(move |((_, of, _), _)| &**of == topic);
        of_topic.map(|((group, _, partition), pending)| (group, *partition, &pending.committed))
    }

    /// An offset counts that lies in the log behind all that are pending for it, or
    /// behind those before `stamp`.
    pub fn overtake(&mut self, (group, topic, partition): &Place, stamp: Option<u64>) {
        for producer_id in self.producers(group, topic, *partition) {
            let place = (group.clone(), topic.clone(), *partition);
            let pending = self.by_producer.get_mut(&producer_id).and_then(|of_producer| of_producer.get_mut(&place));
            if let Some(pending) = pending.filter(|pending| stamp.is_none_or(|stamp| pending.stamp < stamp)) {
                pending.overtaken = true;
            }
        }
    }

    /// Forgets what is pending for an offset; whether there was any.
    pub fn remove(&mut self, (group, topic, partition): &Place) -> bool {
        let producers = self.producers(group, topic, *partition);
        for producer_id in &producers {
            let place = (group.clone(), topic.clone(), *partition);
            if let Some(of_producer) = self.by_producer.get_mut(producer_id) {
                if let Some(gone) = of_producer.remove(&place) {
                    self.bytes -= pending_bytes(&gone.committed.metadata);
                }
                if of_producer.is_empty() {
                    self.by_producer.remove(producer_id);
                }
            }
            self.forget_place(&place, *producer_id);
        }
        !producers.is_empty()
    }

    /// Takes what a producer's transaction has, which ends.
    pub fn take(&mut self, producer_id: i64) -> BTreeMap<Place, Pending> {
        let taken = self.by_producer.remove(&producer_id).unwrap_or_default();
        for (place, pending) in &taken {
            self.bytes -= pending_bytes(&pending.committed.metadata);
            self.forget_place(place, producer_id);
        }
        taken
    }

    fn forget_place(&mut self, (group, topic, partition): &Place, producer_id: i64) {
        if let Some(places) = self.by_group.get_mut(group) {
            places.remove(&(topic.clone(), *partition, producer_id));
            if places.is_empty() {
                self.by_group.remove(group);
            }
        }
    }

    fn producers(&self, group: &str, topic: &Arc<str>, partition: i32) -> Vec<i64> {
        let Some(places) = self.by_group.get(group) else { return Vec::new() };
        let of_partition = (topic.clone(), partition, i64::MIN)..=(topic.clone(), partition, i64::MAX);
        places.range(of_partition).map(|(_, _, producer_id)| *producer_id).collect()
    }
}
