//! Where offsets are kept: by group, topic and partition.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use uuid::Uuid;

use super::pending::{PendingOffsets, pending_bytes};
use crate::groups::api::GroupId;
use crate::groups::record::OffsetValue;

/// A committed offset.
pub type Committed = OffsetValue;

/// The offsets of one group and topic, by partition. A sorted list: most have a
/// few, committed in order.
type ByPartition = Vec<(i32, Committed)>;

/// All offsets of one coordinator. A topic's name is kept once, however many groups read it.
#[derive(Debug)]
pub struct Offsets {
    /// No group is without topics, no topic without partitions.
    groups: HashMap<GroupId, HashMap<Arc<str>, ByPartition>>,
    names: HashSet<Arc<str>>,
    /// Of transactions that have not ended.
    pending: PendingOffsets,
    no_metadata: Arc<str>,
    count: usize,
    /// Memory charged.
    bytes: usize,
}

/// Memory charged per offset, besides its metadata.
const OFFSET_BYTES: usize = 112;
/// Memory charged per topic of a group that has offsets of it.
const TOPIC_BYTES: usize = 320;

fn bytes_of(committed: &Committed) -> usize {
    OFFSET_BYTES + committed.metadata.len()
}

impl Default for Offsets {
    fn default() -> Offsets {
        Offsets {
            groups: HashMap::new(),
            names: HashSet::new(),
            pending: PendingOffsets::default(),
            no_metadata: Arc::from(""),
            count: 0,
            bytes: 0,
        }
    }
}

impl Offsets {
    pub fn get(&self, group: &str, topic: &str, partition: i32) -> Option<&Committed> {
        let partitions = self.groups.get(group)?.get(topic)?;
        let at = partitions.binary_search_by_key(&partition, |(index, _)| *index).ok()?;
        partitions.get(at).map(|(_, committed)| committed)
    }

    /// The topics of a group, in no order; partitions by number.
    pub fn of_group(&self, group: &str) -> impl Iterator<Item = (&Arc<str>, &[(i32, Committed)])> {
        let topics = self.groups.get(group).into_iter().flatten();
        topics.map(|(topic, partitions)| (topic, partitions.as_slice()))
    }

    /// The groups that have offsets, in no order.
    pub fn groups(&self) -> impl Iterator<Item = &GroupId> {
        self.groups.keys()
    }

    /// True if the group has any, those of transactions that have not ended included.
    pub fn has_any(&self, group: &str) -> bool {
        self.groups.contains_key(group) || self.pending.has_any(group)
    }

    /// Memory charged for all of them.
    pub fn bytes(&self) -> usize {
        self.bytes + self.pending.bytes()
    }

    /// Memory that an offset in a transaction would take.
    pub fn pending_growth(metadata: &str) -> usize {
        pending_bytes(metadata)
    }

    /// True if a transaction that has not ended has an offset for the partition.
    pub fn is_pending(&self, group: &str, topic: &Arc<str>, partition: i32) -> bool {
        self.pending.contains(group, topic, partition)
    }

    /// Topics and partitions that transactions which have not ended have offsets for.
    pub fn pending_of_group(&self, group: &str) -> impl Iterator<Item = (&Arc<str>, i32)> {
        self.pending.of_group(group)
    }

    /// Keeps an offset until the transaction of the producer ends.
    pub fn put_pending(
        &mut self,
        producer_id: i64,
        group: &GroupId,
        topic: &Arc<str>,
        partition: i32,
        mut committed: Committed,
    ) {
        if committed.metadata.is_empty() {
            committed.metadata = self.no_metadata.clone();
        }
        let name = self.name(topic);
        self.pending.put(producer_id, (group.clone(), name, partition), committed);
    }

    /// The transaction of a producer ends: what is pending of it counts from now on, unless a later
    /// offset does, or is dropped. The groups that have new offsets.
    pub fn end_transaction(&mut self, producer_id: i64, commit: bool) -> Vec<GroupId> {
        let mut groups = Vec::new();
        for (place, pending) in self.pending.take(producer_id) {
            if commit && !pending.overtaken {
                self.pending.overtake(&place, Some(pending.stamp));
                let (group, topic, partition) = place;
                self.store(&group, &topic, partition, pending.committed);
                groups.push(group);
            }
        }
        groups
    }

    /// The topic's name as it is kept.
    fn name(&mut self, topic: &Arc<str>) -> Arc<str> {
        match self.names.get(topic) {
            Some(name) => name.clone(),
            None => {
                self.names.insert(topic.clone());
                topic.clone()
            }
        }
    }

    /// Memory that putting an offset would take beyond what is taken now.
    pub fn growth(&self, group: &str, topic: &str, partition: i32, metadata: &str) -> usize {
        let after = OFFSET_BYTES + metadata.len();
        match (self.get(group, topic, partition), self.groups.get(group).is_some_and(|of| of.contains_key(topic))) {
            (Some(before), _) => after.saturating_sub(bytes_of(before)),
            (None, true) => after,
            (None, false) => after + TOPIC_BYTES,
        }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Metadata as it is kept: that of most is empty, and takes no memory of its own.
    pub fn metadata(&self, text: &str) -> Arc<str> {
        if text.is_empty() { self.no_metadata.clone() } else { Arc::from(text) }
    }

    pub fn put(&mut self, group: &GroupId, topic: &Arc<str>, partition: i32, committed: Committed) {
        self.pending.overtake(&(group.clone(), topic.clone(), partition), None);
        self.store(group, topic, partition, committed);
    }

    fn store(&mut self, group: &GroupId, topic: &Arc<str>, partition: i32, mut committed: Committed) {
        let name = self.name(topic);
        if committed.metadata.is_empty() {
            committed.metadata = self.no_metadata.clone();
        }
        if !self.groups.contains_key(group) {
            self.groups.insert(group.clone(), HashMap::new());
        }
        let Some(topics) = self.groups.get_mut(group) else { return };
        let partitions = match topics.get_mut(topic) {
            Some(partitions) => partitions,
            None => {
                self.bytes += TOPIC_BYTES;
                topics.entry(name).or_default()
            }
        };
        self.bytes += bytes_of(&committed);
        match partitions.binary_search_by_key(&partition, |(index, _)| *index) {
            Ok(at) => {
                let before = std::mem::replace(&mut partitions[at].1, committed);
                self.bytes -= bytes_of(&before);
            }
            Err(at) => {
                partitions.insert(at, (partition, committed));
                self.count += 1;
            }
        }
    }

    /// Forgets an offset, and what is pending for it; whether there was anything.
    pub fn remove(&mut self, group: &GroupId, topic: &Arc<str>, partition: i32) -> bool {
        let was_pending = self.pending.remove(&(group.clone(), topic.clone(), partition));
        self.remove_committed(group, topic, partition) || was_pending
    }

    fn remove_committed(&mut self, group: &str, topic: &str, partition: i32) -> bool {
        let Some(topics) = self.groups.get_mut(group) else { return false };
        let Some(partitions) = topics.get_mut(topic) else { return false };
        let Ok(at) = partitions.binary_search_by_key(&partition, |(index, _)| *index) else { return false };
        let (_, gone) = partitions.remove(at);
        self.count -= 1;
        self.bytes -= bytes_of(&gone);
        if partitions.is_empty() {
            topics.remove(topic);
            self.bytes -= TOPIC_BYTES;
        }
        if topics.is_empty() {
            self.groups.remove(group);
        }
        true
    }

    /// True if some group has (or had a moment ago) offsets of the topic.
    pub fn knows(&self, topic: &str) -> bool {
        self.names.contains(topic)
    }

    /// Offsets of a topic, `limit` at most, in no order, pending ones too; not those whose topic
    /// is the one of id `except`.
    pub fn of_topic(&self, topic: &str, except: Option<Uuid>, limit: usize) -> Vec<(GroupId, i32)> {
        let of_groups = self.groups.iter().filter_map(|(group, topics)| Some((group, topics.get(topic)?)));
        let offsets = of_groups.flat_map(|(group, partitions)| {
            let stale = partitions.iter().filter(|(_, committed)| Some(committed.topic_id) != except);
            stale.map(|(index, _)| (group.clone(), *index))
        });
        let stale = self.pending.of_topic(topic).filter(|(_, _, committed)| Some(committed.topic_id) != except);
        offsets.chain(stale.map(|(group, index, _)| (group.clone(), index))).take(limit).collect()
    }

    /// Forgets names of topics that no group has offsets of any more.
    pub fn forget_names(&mut self) {
        self.names.retain(|name| Arc::strong_count(name) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn committed(offset: i64) -> Committed {
        let (metadata, topic_id) = (Arc::from(""), Uuid::nil());
        Committed { offset, leader_epoch: -1, metadata, commit_ms: 0, expire_ms: None, topic_id }
    }

    #[test]
    fn names_are_kept_once_and_go_with_the_last_offset() {
        let mut offsets = Offsets::default();
        let (g, h): (GroupId, GroupId) = (Arc::from("g"), Arc::from("h"));
        for (group, partition) in [(&g, 3), (&g, 1), (&h, 2), (&g, 1)] {
            offsets.put(group, &Arc::from("t"), partition, committed(i64::from(partition)));
        }
        assert_eq!((offsets.len(), offsets.names.len()), (3, 1));
        let partitions: Vec<i32> = offsets.of_group("g").flat_map(|(_, p)| p.iter().map(|(index, _)| *index)).collect();
        assert_eq!(partitions, [1, 3]);
        assert!(Arc::ptr_eq(offsets.of_group("g").next().unwrap().0, offsets.of_group("h").next().unwrap().0));

        let mut remove = |group: &GroupId, partition| offsets.remove(group, &Arc::from("t"), partition);
        assert!(remove(&h, 2) && !remove(&h, 2));
        assert!(!offsets.has_any("h"));
        offsets.forget_names();
        assert_eq!(offsets.names.len(), 1);
        let mut remove = |partition| offsets.remove(&g, &Arc::from("t"), partition);
        assert!(remove(1) && remove(3));
        offsets.forget_names();
        assert_eq!((offsets.names.len(), offsets.is_empty(), offsets.bytes()), (0, true, 0));
    }

    #[test]
    fn growth_is_what_putting_takes() {
        let mut offsets = Offsets::default();
        let group: GroupId = Arc::from("g");
        for (topic, partition, metadata) in
            [("t", 0, "abc"), ("t", 1, ""), ("t", 0, "abcdef"), ("t", 0, ""), ("u", 0, "x")]
        {
            let (before, growth) = (offsets.bytes(), offsets.growth("g", topic, partition, metadata));
            offsets.put(&group, &Arc::from(topic), partition, Committed { metadata: metadata.into(), ..committed(1) });
            assert_eq!(offsets.bytes().saturating_sub(before), growth, "{topic} {partition} {metadata}");
        }
    }
}
