//! The ends of transactions, written to the partitions that they have records in.

use std::rc::Rc;

use super::check::not_served;
use super::state::Shard;
use crate::cluster::controller::OFFSETS_TOPIC;
use crate::model::{ErrorCode, Marker, MarkerKind, PartitionId};
use crate::observe::client_line;
use crate::observe::metrics::Cause;
use crate::partition::{AckWait, Rejected};
use crate::runtime::{clock, waits};

/// A marker for one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MarkerPart {
    pub partition: PartitionId,
    pub marker: Marker,
}

impl Shard {
    /// Has transactions end in partitions of this broker. A marker that fences or is fenced out
    /// aside, each is appended and waits until it is committed; not bounded in time. Outcomes
    /// in the order of `parts`.
    pub async fn write_markers(self: &Rc<Self>, parts: Vec<MarkerPart>) -> Vec<ErrorCode> {
        let write = |shard: Rc<Shard>, parts: Vec<MarkerPart>| async move { shard.write_own_markers(parts).await };
        let answers = self.scatter(parts, |part| part.partition, write).await;
        answers.into_iter().map(|answer| answer.unwrap_or(ErrorCode::NotLeaderOrFollower)).collect()
    }

    /// On the owner. All markers have their places before the first is waited for.
    async fn write_own_markers(self: &Rc<Self>, parts: Vec<MarkerPart>) -> Vec<ErrorCode> {
        let (wait, now_ms) = (Rc::new(AckWait::default()), clock::wall_ms());
        let append = |part: &MarkerPart| {
            let replica = self.online(part.partition).map_err(not_served)?;
            // The groups' coordinator is told in the order of the log.
            let of_groups = &*replica.topic == OFFSETS_TOPIC;
            if of_groups {
                self.may_end_offsets(part.partition).map_err(not_served)?;
            }
            let accepted = replica.append_marker(&part.marker, now_ms)?;
            if of_groups {
                let commit = part.marker.kind == MarkerKind::Commit;
                self.offsets_ended(part.partition, part.marker.producer_id, commit, accepted.next_offset);
            }
            replica.expect_commit(accepted.next_offset, accepted.term, &wait);
            Ok((replica, accepted))
        };
        let appended: Vec<Result<_, Rejected>> = parts.iter().map(append).collect();
        waits::waiting(Cause::Followers, wait.settled()).await;
        let outcomes = parts.iter().zip(appended).map(|(part, appended)| {
            let committed =
                appended.and_then(|(replica, accepted)| replica.commit_outcome(accepted.next_offset, accepted.term));
            committed.map_or_else(
                |rejected| {
                    client_line!(info, partition = ?part.partition, "a transaction's end was not written: {rejected}");
                    rejected.code
                },
                |()| ErrorCode::None,
            )
        });
        outcomes.collect()
    }
}
