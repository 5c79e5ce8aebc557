//! OffsetFetch.

use std::sync::Arc;

use super::Committed;
use crate::groups::api::{FetchOffsetsReply, FetchOffsetsRequest, FetchedOffset};
use crate::groups::coordinator::{Coordinator, Group};
use crate::model::ErrorCode;

impl Coordinator {
    /// With `require_stable` an offset that a transaction is about to replace is an
    /// error of its partition: the client asks again. A group that is not known has no
    /// offsets, and that is no error.
    pub(in crate::groups) fn fetch_offsets(&self, request: FetchOffsetsRequest) -> FetchOffsetsReply {
        if let Some(Group::Consumer(group)) = self.groups.get(&request.group)
            && let Err(error) = group.check_fetch(request.member.as_ref())
        {
            return FetchOffsetsReply { error, topics: Vec::new() };
        }
        let topics = match request.topics {
            None => self.all_offsets(&request.group, request.require_stable),
            Some(topics) => {
                let topics = topics.into_iter().map(|(topic, partitions)| {
                    let get = |index| match request.require_stable
                        && self.offsets.is_pending(&request.group, &topic, index)
                    {
                        true => unstable(index),
                        false => fetched(index, self.offsets.get(&request.group, &topic, index)),
                    };
                    let partitions = partitions.into_iter().map(get).collect();
                    (topic, partitions)
                });
                topics.collect()
            }
        };
        FetchOffsetsReply { error: ErrorCode::None, topics }
    }

    fn all_offsets(&self, group: &str, require_stable: bool) -> Vec<(Arc<str>, Vec<FetchedOffset>)> {
        let of_group = self.offsets.of_group(group);
        let topics = of_group.map(|(topic, partitions)| {
            let get = |(index, committed): &(i32, Committed)| match require_stable
                && self.offsets.is_pending(group, topic, *index)
            {
                true => unstable(*index),
                false => fetched(*index, Some(committed)),
            };
            let partitions = partitions.iter().map(get);
            (topic.clone(), partitions.collect())
        });
        let mut topics: Vec<(Arc<str>, Vec<FetchedOffset>)> = topics.collect();
        topics.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        topics
    }
}

fn unstable(index: i32) -> FetchedOffset {
    FetchedOffset { error: ErrorCode::UnstableOffsetCommit, ..fetched(index, None) }
}

fn fetched(index: i32, committed: Option<&Committed>) -> FetchedOffset {
    FetchedOffset {
        index,
        offset: committed.map_or(-1, |committed| committed.offset),
        leader_epoch: committed.map_or(-1, |committed| committed.leader_epoch),
        metadata: committed.map(|committed| committed.metadata.to_string()).unwrap_or_default(),
        error: ErrorCode::None,
        topic_id: committed.map(|committed| committed.topic_id).unwrap_or_default(),
    }
}
