//! OffsetFetch.

use std::sync::Arc;

use super::Committed;
use crate::groups::api::{FetchOffsetsReply, FetchOffsetsRequest, FetchedOffset};
use crate::groups::coordinator::{Coordinator, Group};
use crate::model::ErrorCode;

impl Coordinator {
    /// `require_stable` waits for transactions in Kafka; there are none here. A group that is not known has no offsets, and
    /// that is no error.
    pub(in crate::groups) fn fetch_offsets(&self, request: FetchOffsetsRequest) -> FetchOffsetsReply {
        if let Some(Group::Consumer(group)) = self.groups.get(&request.group)
            && let Err(error) = group.check_fetch(request.member.as_ref())
        {
            return FetchOffsetsReply { error, topics: Vec::new() };
        }
        let topics = match request.topics {
            None => self.all_offsets(&request.group),
            Some(topics) => {
                let topics = topics.into_iter().map(|(topic, partitions)| {
                    let get = |index| fetched(index, self.offsets.get(&request.group, &topic, index));
                    let partitions = partitions.into_iter().map(get).collect();
                    (topic, partitions)
                });
                topics.collect()
            }
        };
        FetchOffsetsReply { error: ErrorCode::None, topics }
    }

    fn all_offsets(&self, group: &str) -> Vec<(Arc<str>, Vec<FetchedOffset>)> {
        let of_group = self.offsets.of_group(group);
        let topics = of_group.map(|(topic, partitions)| {
            let partitions = partitions.iter().map(|(index, committed)| fetched(*index, Some(committed)));
            (topic.clone(), partitions.collect())
        });
        let mut topics: Vec<(Arc<str>, Vec<FetchedOffset>)> = topics.collect();
        topics.sort_unstable_by(|(left, _), (right, _)| left.cmp(right));
        topics
    }
}

fn fetched(index: i32, committed: Option<&Committed>) -> FetchedOffset {
    FetchedOffset {
        index,
        offset: committed.map_or(-1, |committed| committed.offset),
        leader_epoch: committed.map_or(-1, |committed| committed.leader_epoch),
        metadata: committed.map(|committed| committed.metadata.to_string()).unwrap_or_default(),
        error: ErrorCode::None,
    }
}
