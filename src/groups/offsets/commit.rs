//! OffsetCommit and TxnOffsetCommit, and the end of a transaction.

use std::sync::Arc;

use uuid::Uuid;

use super::{Committed, Offsets};
use crate::coordinator::Ticket;
use crate::groups::api::{CommitPartition, CommitReply, CommitRequest, GroupId, TopicErrors};
use crate::groups::classic::{ClassicGroup, Turn};
use crate::groups::coordinator::{Coordinator, Group};
use crate::groups::env::Env;
use crate::groups::record::Record;
use crate::model::ErrorCode;
use crate::model::planted::{Planted, planted};

impl Coordinator {
    pub(in crate::groups) fn commit_offsets(&mut self, ticket: Ticket, request: CommitRequest, env: &mut Env) {
        let is_new = !self.groups.contains_key(&request.group);
        if let Err(error) = self.check_commit(&request, env) {
            // Clients do not know the newer error there (KIP-1319).
            let old = request.producer.is_some() && error == ErrorCode::StaleMemberEpoch;
            return env.reply(ticket, refused(&request, if old { ErrorCode::IllegalGeneration } else { error }));
        }
        let expire_ms = request.retention_ms.filter(|retention_ms| *retention_ms >= 0);
        let expire_ms = expire_ms.map(|retention_ms| env.wall_ms.saturating_add(retention_ms));
        let mut topics = Vec::with_capacity(request.topics.len());
        let mut left = env.room.left;
        for topic in request.topics {
            let mut partitions = Vec::with_capacity(topic.partitions.len());
            for partition in topic.partitions {
                let index = partition.index;
                if is_too_long(&partition.metadata, env.config.offset_metadata_max_bytes) {
                    partitions.push((index, ErrorCode::OffsetMetadataTooLarge));
                    continue;
                }
                let growth = match request.producer {
                    Some(_) => Offsets::pending_growth(&partition.metadata),
                    None => self.offsets.growth(&request.group, &topic.name, index, &partition.metadata),
                };
                let Some(rest) = left.checked_sub(growth) else {
                    partitions.push((index, ErrorCode::GroupMaxSizeReached));
                    continue;
                };
                left = rest;
                let metadata = self.offsets.metadata(&partition.metadata);
                let committed = committed(&partition, metadata, topic.id, env.wall_ms, expire_ms);
                let group = request.group.clone();
                env.append(Record::Offset {
                    group,
                    topic: topic.name.clone(),
                    partition: index,
                    value: Some(committed.clone()),
                });
                match request.producer.filter(|_| !planted(Planted::PendingOffsetsCount)) {
                    Some((id, _)) => self.offsets.put_pending(id, &request.group, &topic.name, index, committed),
                    None => self.offsets.put(&request.group, &topic.name, index, committed),
                }
                partitions.push((index, ErrorCode::None));
            }
            topics.push(TopicErrors { name: topic.name, partitions });
        }
        self.forget_unused(&request.group, is_new);
        env.out.producer = request.producer;
        env.reply(ticket, CommitReply { topics });
    }

    /// The transaction of a producer has ended: its offsets count from now on, or are dropped.
    /// Comes in the order of the log.
    pub fn end_transaction(&mut self, producer_id: i64, commit: bool) {
        for group in self.offsets.end_transaction(producer_id, commit) {
            if !self.groups.contains_key(&group) {
                let simple = ClassicGroup::new(group.clone(), -1);
                self.counted(&group.clone(), |coordinator| {
                    coordinator.groups.insert(group, Group::Classic(Box::new(simple)));
                });
            }
        }
    }

    /// A simple group made for a commit of which nothing was taken was never written.
    fn forget_unused(&mut self, group: &GroupId, is_new: bool) {
        if is_new && !self.offsets.has_any(group) {
            self.groups.remove(group);
        }
    }

    /// Makes a simple group where there is none and no member commits.
    fn check_commit(&mut self, request: &CommitRequest, env: &mut Env) -> Result<(), ErrorCode> {
        match self.groups.get(&request.group) {
            Some(Group::Consumer(group)) => group.check_commit(request),
            Some(Group::Classic(group)) => group.check_commit(request, &mut Turn { timers: &mut self.timers, env }),
            None if request.generation < 0 => {
                let group = ClassicGroup::new(request.group.clone(), env.wall_ms);
                self.groups.insert(request.group.clone(), Group::Classic(Box::new(group)));
                Ok(())
            }
            None if request.knows_member_epochs && request.producer.is_none() => Err(ErrorCode::GroupIdNotFound),
            None => Err(ErrorCode::IllegalGeneration),
        }
    }
}

/// Kafka counts a string's length as Java does, in UTF-16.
fn is_too_long(metadata: &str, limit: usize) -> bool {
    metadata.len() > limit && metadata.encode_utf16().count() > limit
}

/// The commit as its record can say it: one that expires at a time of its own has neither leader
/// epoch nor topic id.
fn committed(
    partition: &CommitPartition,
    metadata: Arc<str>,
    topic_id: Uuid,
    commit_ms: i64,
    expire_ms: Option<i64>,
) -> Committed {
    let (leader_epoch, topic_id) = match expire_ms {
        None => (partition.leader_epoch, topic_id),
        Some(_) => (-1, Uuid::nil()),
    };
    Committed { offset: partition.offset, leader_epoch, metadata, commit_ms, expire_ms, topic_id }
}

fn refused(request: &CommitRequest, error: ErrorCode) -> CommitReply {
    let topics = request.topics.iter().map(|topic| TopicErrors {
        name: topic.name.clone(),
        partitions: topic.partitions.iter().map(|partition| (partition.index, error)).collect(),
    });
    CommitReply { topics: topics.collect() }
}
