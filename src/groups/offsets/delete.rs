//! OffsetDelete, and what goes with a group or a topic.

use std::sync::Arc;

use crate::groups::api::{DeleteOffsetsReply, DeleteOffsetsRequest, GroupId, TopicErrors};
use crate::groups::coordinator::{Coordinator, Group, Timer};
use crate::groups::env::Env;
use crate::groups::record::Record;
use crate::model::ErrorCode;

/// How many records one look at offsets that must go may write before others have their turn.
pub(super) const MOST_RECORDS_AT_ONCE: usize = 1000;

/// Pause between two such looks.
pub(super) const STEP_PAUSE_MS: u64 = 100;

impl Coordinator {
    pub(in crate::groups) fn delete_offsets(
        &mut self,
        request: DeleteOffsetsRequest,
        env: &mut Env,
    ) -> DeleteOffsetsReply {
        let refused = |error| DeleteOffsetsReply { error, topics: Vec::new() };
        if request.group.is_empty() {
            return refused(ErrorCode::InvalidGroupId);
        }
        let Some(group) = self.groups.get(&request.group) else { return refused(ErrorCode::GroupIdNotFound) };
        if let Group::Classic(group) = group
            && !group.is_empty()
            && !group.has_consumers()
        {
            return refused(ErrorCode::NonEmptyGroup);
        }
        let unread = group.unsubscribed(request.topics.iter().map(|(topic, _)| topic.clone()).collect());
        let mut topics = Vec::with_capacity(request.topics.len());
        for (name, partitions) in request.topics {
            let error = if unread.contains(&name) { ErrorCode::None } else { ErrorCode::GroupSubscribedToTopic };
            if error == ErrorCode::None {
                for index in &partitions {
                    self.drop_offset(&request.group, &name, *index, env);
                }
            }
            topics.push(TopicErrors { name, partitions: partitions.into_iter().map(|index| (index, error)).collect() });
        }
        DeleteOffsetsReply { error: ErrorCode::None, topics }
    }

    /// Takes an offset back, if there is one.
    pub(in crate::groups) fn drop_offset(&mut self, group: &GroupId, topic: &Arc<str>, partition: i32, env: &mut Env) {
        if self.offsets.remove(group, topic, partition) {
            env.append(Record::Offset { group: group.clone(), topic: topic.clone(), partition, value: None });
        }
    }

    pub(in crate::groups) fn drop_all_offsets(&mut self, group: &GroupId, env: &mut Env) {
        let of_group = self.offsets.of_group(group);
        let all = of_group.flat_map(|(topic, partitions)| partitions.iter().map(|(index, _)| (topic.clone(), *index)));
        let pending = self.offsets.pending_of_group(group).map(|(topic, index)| (topic.clone(), index));
        let all: Vec<(Arc<str>, i32)> = all.chain(pending).collect();
        for (topic, partition) in all {
            self.drop_offset(group, &topic, partition, env);
        }
    }

    /// Offsets of topics that are gone go too, in steps; not those of a new topic that has
    /// the name of a removed one.
    pub(in crate::groups) fn drop_offsets_of_removed(&mut self, env: &mut Env) {
        let mut room = MOST_RECORDS_AT_ONCE;
        while let Some(topic) = self.removed_topics.last().cloned() {
            if room == 0 {
                return self.timers.set(Timer::RemovedTopics, env.mono_ms.saturating_add(STEP_PAUSE_MS));
            }
            if !self.offsets.knows(&topic) {
                self.removed_topics.pop();
                continue;
            }
            let successor = env.topics.by_name(&topic).map(|topic| topic.id);
            let stale = self.offsets.of_topic(&topic, successor, room);
            if stale.len() < room {
                self.removed_topics.pop();
            }
            room -= stale.len();
            for (group, partition) in stale {
                self.drop_offset(&group, &topic, partition, env);
            }
        }
        self.offsets.forget_names();
    }
}
