//! Questions about offsets, asked of the owners.

use std::rc::Rc;

use super::api::{EpochEndOutcome, OffsetOutcome, OffsetQuery};
use super::state::Shard;
use crate::model::{ErrorCode, KnownProducer, LeaderEpoch, PartitionId};
use crate::partition::Replica;

type OffsetPart = (PartitionId, OffsetQuery, Option<LeaderEpoch>);
/// Of transactions only what is decided counts (`isolation.level=read_committed`).
type Committed = bool;
type EpochPart = (PartitionId, Option<LeaderEpoch>, LeaderEpoch);

impl Shard {
    pub async fn list_offsets(self: &Rc<Self>, parts: Vec<OffsetPart>, committed: Committed) -> Vec<OffsetOutcome> {
        let answers = self
            .scatter(
                parts,
                |p| p.0,
                move |shard, parts| async move {
                    let mut outcomes = Vec::with_capacity(parts.len());
                    for (partition, query, believed) in parts {
                        let outcome = match shard.asked(partition, believed) {
                            Ok(replica) => offset_of(&replica, query, committed).await,
                            Err(code) => no_offset(code),
                        };
                        outcomes.push(outcome);
                    }
                    outcomes
                },
            )
            .await;
        answers.into_iter().map(|a| a.unwrap_or_else(|| no_offset(ErrorCode::NotLeaderOrFollower))).collect()
    }

    /// `(partition, current leader epoch if stated, asked epoch)`
    pub async fn epoch_ends(self: &Rc<Self>, parts: Vec<EpochPart>) -> Vec<EpochEndOutcome> {
        let answers = self
            .scatter(
                parts,
                |p| p.0,
                |shard, parts| async move { parts.into_iter().map(|part| shard.epoch_end(part)).collect() },
            )
            .await;
        answers.into_iter().map(|a| a.unwrap_or_else(|| no_epoch(ErrorCode::NotLeaderOrFollower))).collect()
    }

    /// The idempotent producers of partitions, each the one with the newest batch first.
    pub async fn active_producers(
        self: &Rc<Self>,
        parts: Vec<PartitionId>,
    ) -> Vec<Result<Vec<KnownProducer>, ErrorCode>> {
        let look = |shard: Rc<Shard>, parts: Vec<PartitionId>| async move {
            let producers = |id| shard.online(id).map(|replica| active_producers(&replica));
            parts.into_iter().map(producers).collect()
        };
        let answers = self.scatter(parts, |part| *part, look).await;
        answers.into_iter().map(|answer| answer.unwrap_or(Err(ErrorCode::NotLeaderOrFollower))).collect()
    }

    fn epoch_end(&self, (partition, believed, asked): EpochPart) -> EpochEndOutcome {
        match self.asked(partition, believed) {
            Ok(replica) => match replica.epoch_end(asked) {
                Some((leader_epoch, end_offset)) => {
                    EpochEndOutcome { error: ErrorCode::None, leader_epoch, end_offset }
                }
                None => no_epoch(ErrorCode::None),
            },
            Err(code) => no_epoch(code),
        }
    }

    fn asked(&self, partition: PartitionId, believed: Option<LeaderEpoch>) -> Result<Rc<Replica>, ErrorCode> {
        let replica = self.online(partition)?;
        replica.check_epoch(believed)?;
        Ok(replica)
    }
}

fn active_producers(replica: &Replica) -> Vec<KnownProducer> {
    let mut producers = Vec::new();
    replica.each_producer(|producer| producers.push(producer));
    producers
}

async fn offset_of(replica: &Rc<Replica>, query: OffsetQuery, committed: Committed) -> OffsetOutcome {
    let end = if committed { replica.last_stable_offset() } else { replica.high_watermark() };
    let at = |offset: i64| OffsetOutcome {
        error: ErrorCode::None,
        timestamp_ms: -1,
        offset,
        leader_epoch: replica.epoch_of(offset),
    };
    let found = match query {
        OffsetQuery::Latest => return replica.latest_offset().map_or_else(no_offset, |_| at(end)),
        OffsetQuery::Earliest | OffsetQuery::EarliestLocal => return at(replica.start_offset()),
        OffsetQuery::LatestTiered => return no_offset(ErrorCode::None),
        OffsetQuery::MaxTimestamp => replica.offset_of_max_time(end).await,
        OffsetQuery::Timestamp(ms) => replica.offset_by_time(ms, end).await,
    };
    match found {
        Ok(Some(found)) => OffsetOutcome {
            error: ErrorCode::None,
            timestamp_ms: found.timestamp_ms,
            offset: found.offset,
            leader_epoch: found.leader_epoch,
        },
        Ok(None) => no_offset(ErrorCode::None),
        Err(code) => no_offset(code),
    }
}

fn no_offset(error: ErrorCode) -> OffsetOutcome {
    OffsetOutcome { error, timestamp_ms: -1, offset: -1, leader_epoch: -1 }
}

fn no_epoch(error: ErrorCode) -> EpochEndOutcome {
    EpochEndOutcome { error, leader_epoch: -1, end_offset: -1 }
}
