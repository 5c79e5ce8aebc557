//! The state of a consumer group: what its records say, and what follows from them.

use std::collections::{BTreeMap, HashMap};

use uuid::Uuid;

use super::member::{LEAVES, Member};
use crate::groups::api::GroupId;
use crate::groups::env::{TopicFacts, Topics};
use crate::groups::record::{ConsumerRecord, CurrentValue, GroupValue, MemberId, MemberValue, Partitions, RegexValue};

/// Memory charged per partition that a member has: in the target, with the
/// member, and who holds it.
const HELD_PARTITION_BYTES: usize = 96;
/// Memory charged per topic that the group subscribes to.
const SUBSCRIBED_TOPIC_BYTES: usize = 128;

/// One consumer group. Everything but what this process last saw of the topics
/// comes from its records alone.
#[derive(Clone, Debug, PartialEq)]
pub struct ConsumerGroup {
    pub(super) id: GroupId,
    /// Moves on whenever the target must be computed anew.
    pub(super) epoch: i32,
    pub(super) metadata_hash: i64,
    pub(super) members: BTreeMap<MemberId, Member>,
    /// The group epoch that `target` is for.
    pub(super) target_epoch: i32,
    pub(super) assigned_ms: i64,
    pub(super) target: BTreeMap<MemberId, Partitions>,
    pub(super) regexes: BTreeMap<String, RegexValue>,
    /// The log still has a record of kind 4, to be taken back.
    pub(super) has_partition_metadata: bool,

    /// Whose a partition is now.
    holders: HashMap<(Uuid, i32), MemberId>,
    statics: HashMap<String, MemberId>,
    /// How many members name a topic, and how many regular expressions stand for it.
    subscribed: HashMap<String, usize>,
    regex_members: HashMap<String, usize>,
    bytes: usize,

    /// `Topics::version` at the last look at the topics.
    pub(super) seen_topics: Option<u64>,
    /// The same of the last time that all regular expressions were resolved.
    pub(super) regexes_seen: Option<u64>,
    /// When all regular expressions were last resolved, by the clock that never goes back.
    pub(super) regexes_refreshed_ms: Option<u64>,
}

impl ConsumerGroup {
    /// Before its first record. Kafka's epochs begin at 1.
    pub(in crate::groups) fn new(id: GroupId) -> ConsumerGroup {
        ConsumerGroup {
            id,
            epoch: 1,
            metadata_hash: 0,
            members: BTreeMap::new(),
            target_epoch: 1,
            assigned_ms: 0,
            target: BTreeMap::new(),
            regexes: BTreeMap::new(),
            has_partition_metadata: false,
            holders: HashMap::new(),
            statics: HashMap::new(),
            subscribed: HashMap::new(),
            regex_members: HashMap::new(),
            bytes: 0,
            seen_topics: None,
            regexes_seen: None,
            regexes_refreshed_ms: None,
        }
    }

    /// Takes in one of its records, a fresh one or one of the log. The tombstone of the group
    /// itself is its owner's affair.
    pub(super) fn apply(&mut self, record: &ConsumerRecord) {
        match record {
            ConsumerRecord::Group { value: Some(GroupValue { epoch, metadata_hash }), .. } => {
                (self.epoch, self.metadata_hash) = (*epoch, *metadata_hash);
            }
            ConsumerRecord::Group { value: None, .. } => {}
            ConsumerRecord::PartitionMetadata { present, .. } => self.has_partition_metadata = *present,
            ConsumerRecord::Member { member, value: Some(value), .. } => {
                self.change(member, |it| it.said = value.clone())
            }
            ConsumerRecord::Member { member, value: None, .. } => {
                if let Some(gone) = self.members.remove(member) {
                    self.forget(&gone);
                }
            }
            ConsumerRecord::TargetMetadata { value, .. } => {
                (self.target_epoch, self.assigned_ms) = value.map_or((-1, 0), |value| (value.epoch, value.assigned_ms));
            }
            ConsumerRecord::Target { member, value: Some(target), .. } => {
                self.target.insert(member.clone(), target.clone());
            }
            ConsumerRecord::Target { member, value: None, .. } => {
                self.target.remove(member);
            }
            ConsumerRecord::Current { member, value: Some(value), .. } => {
                self.change(member, |it| it.current = value.clone());
            }
            ConsumerRecord::Current { member, value: None, .. } => {
                if self.members.contains_key(member) {
                    let gone = CurrentValue { epoch: LEAVES, previous_epoch: LEAVES, ..CurrentValue::default() };
                    self.change(member, |it| it.current = gone);
                }
            }
            ConsumerRecord::Regex { regex, value, .. } => {
                let before = match value {
                    Some(value) => self.regexes.insert(regex.clone(), value.clone()),
                    None => self.regexes.remove(regex),
                };
                before.iter().flat_map(|before| &before.topics).for_each(|topic| less(&mut self.subscribed, topic));
                value.iter().flat_map(|value| &value.topics).for_each(|topic| more(&mut self.subscribed, topic));
            }
        }
    }

    fn change(&mut self, id: &MemberId, change: impl FnOnce(&mut Member)) {
        let mut member = match self.members.remove(id) {
            Some(member) => {
                self.forget(&member);
                member
            }
            None => Member::new(id.clone()),
        };
        change(&mut member);
        self.remember(&member);
        self.members.insert(id.clone(), member);
    }

    /// Takes out what followed from a member.
    fn forget(&mut self, member: &Member) {
        for place in member.held() {
            // Another member may have taken it, where compaction left only the
            // newer record of the two.
            if self.holders.get(&place) == Some(&member.id) {
                self.holders.remove(&place);
            }
        }
        if let Some(instance) = &member.said.instance_id
            && self.statics.get(instance) == Some(&member.id)
        {
            self.statics.remove(instance);
        }
        member.said.topics.iter().for_each(|topic| less(&mut self.subscribed, topic));
        if let Some(regex) = member.said.regex() {
            less(&mut self.regex_members, regex);
        }
        self.bytes -= member.bytes();
    }

    fn remember(&mut self, member: &Member) {
        self.holders.extend(member.held().map(|place| (place, member.id.clone())));
        if let Some(instance) = &member.said.instance_id {
            self.statics.insert(instance.clone(), member.id.clone());
        }
        member.said.topics.iter().for_each(|topic| more(&mut self.subscribed, topic));
        if let Some(regex) = member.said.regex() {
            more(&mut self.regex_members, regex);
        }
        self.bytes += member.bytes();
    }

    pub(super) fn static_member(&self, instance_id: &str) -> Option<&Member> {
        self.members.get(self.statics.get(instance_id)?)
    }

    pub(super) fn is_held(&self, topic: Uuid, partition: i32) -> bool {
        self.holders.contains_key(&(topic, partition))
    }

    pub(super) fn members_by_regex(&self, regex: &str) -> usize {
        self.regex_members.get(regex).copied().unwrap_or(0)
    }

    pub(super) fn subscribed_regexes(&self) -> impl Iterator<Item = &String> {
        self.regex_members.keys()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Memory charged for the group: its members, and what was derived for them.
    pub(in crate::groups) fn memory_bytes(&self) -> usize {
        let matched = self.regexes.values().map(|value| value.topics.len()).sum::<usize>();
        let topics = self.subscribed.len() + matched;
        self.bytes + self.holders.len() * HELD_PARTITION_BYTES + topics * SUBSCRIBED_TOPIC_BYTES
    }

    /// True if somebody subscribes to the topic, by its name or by a regular expression.
    pub(in crate::groups) fn is_subscribed_to(&self, topic: &str) -> bool {
        self.subscribed.contains_key(topic)
    }

    pub(super) fn member_is_subscribed(&self, said: &MemberValue, topic: &str) -> bool {
        let by_regex =
            || said.regex().and_then(|regex| self.regexes.get(regex)).is_some_and(|it| it.topics.contains(topic));
        said.topics.binary_search_by(|name| name.as_str().cmp(topic)).is_ok() || by_regex()
    }

    /// The topics that somebody subscribes to and that exist, in name order.
    pub(super) fn subscribed_topics(&self, topics: &dyn Topics) -> Vec<TopicFacts> {
        let mut found: Vec<TopicFacts> = self.subscribed.keys().filter_map(|name| topics.by_name(name)).collect();
        found.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        found
    }

    /// Without what is not in the log.
    #[cfg(test)]
    pub(super) fn as_logged(&self) -> ConsumerGroup {
        ConsumerGroup { seen_topics: None, regexes_seen: None, regexes_refreshed_ms: None, ..self.clone() }
    }

    /// Kafka's name of the group's state.
    pub(in crate::groups) fn state_name(&self) -> &'static str {
        if self.members.is_empty() {
            "Empty"
        } else if self.epoch > self.target_epoch {
            "Assigning"
        } else if self.members.values().all(|member| member.is_reconciled_to(self.target_epoch)) {
            "Stable"
        } else {
            "Reconciling"
        }
    }

    /// Number of its members.
    pub(in crate::groups) fn size(&self) -> usize {
        self.members.len()
    }

    pub(in crate::groups) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }
}

fn more(counts: &mut HashMap<String, usize>, key: &str) {
    match counts.get_mut(key) {
        Some(count) => *count += 1,
        None => drop(counts.insert(key.to_owned(), 1)),
    }
}

fn less(counts: &mut HashMap<String, usize>, key: &str) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// Stands for the topics that a group subscribes to, so that a change of them shows: what is
/// made, removed, made anew or grown changes it. 0: none. The same topics give the same number
/// after a restart (FNV-1a).
pub(super) fn metadata_hash(topics: &[TopicFacts]) -> i64 {
    if topics.is_empty() {
        return 0;
    }
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    let mut add = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    };
    for topic in topics {
        add(topic.id.as_bytes());
        add(topic.name.as_bytes());
        add(&[0]);
        add(&topic.partitions.to_be_bytes());
    }
    hash.cast_signed()
}
