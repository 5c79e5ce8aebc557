//! Fetches of other replicas: up to what can be read here, committed or not,
//! and a wait for more of it.

use std::rc::Rc;

use super::api::{FetchOutcome, FetchPart, Reader};
use super::state::{Groups, Shard};
use super::throttle::fire_at;
use crate::model::{BrokerId, ErrorCode, LeaderEpoch};
use crate::partition::{DataWaiter, FetchAnswer, FollowerFetch, Replica};
use crate::runtime::clock::{self, Moment};
use crate::runtime::spawn_local;
use crate::storage::LogRead;

impl FetchPart {
    pub(super) fn is_consumers(&self) -> bool {
        matches!(self.reader, Reader::Consumer | Reader::CommittedConsumer)
    }

    /// The fetch has been noted as a follower's progress; later readings are none.
    pub(super) fn has_arrived(&mut self) {
        if let Reader::Follower { arrives, .. } = &mut self.reader {
            *arrives = false;
        }
    }

    fn follower(&self) -> Option<BrokerId> {
        match self.reader {
            Reader::Follower { broker, .. } => Some(broker),
            Reader::Consumer | Reader::CommittedConsumer | Reader::Verifier => None,
        }
    }

    /// The follower's fetch; `None`: it is no follower's.
    fn of_follower(&self, current: LeaderEpoch) -> Option<(FollowerFetch, bool)> {
        let Reader::Follower { broker, broker_epoch, last_epoch, arrives } = self.reader else { return None };
        let leader_epoch = self.current_leader_epoch.unwrap_or(current);
        Some((FollowerFetch { broker, broker_epoch, leader_epoch, offset: self.offset, last_epoch }, arrives))
    }
}

impl Shard {
    pub(super) async fn read_for_replica(
        self: &Rc<Self>,
        replica: &Rc<Replica>,
        part: &FetchPart,
        limit: Option<usize>,
    ) -> FetchOutcome {
        let mut is_news = false;
        let up_to = match part.of_follower(replica.leader_epoch()) {
            Some((fetch, arrives)) => {
                let answer = replica.fetched(&fetch, arrives);
                self.look_at_isr(replica);
                if replica.led_epoch().is_none() {
                    self.coordinate(replica);
                }
                is_news = replica.tell_high_watermark(fetch.broker);
                match answer {
                    FetchAnswer::Serve { up_to } => up_to,
                    FetchAnswer::Diverging { epoch, end } => {
                        return FetchOutcome { diverging: Some((epoch, end)), ..ends_of(replica) };
                    }
                    // It has to know where the log begins now.
                    FetchAnswer::Refuse(ErrorCode::OffsetOutOfRange) => {
                        return FetchOutcome { error: ErrorCode::OffsetOutOfRange, ..ends_of(replica) };
                    }
                    FetchAnswer::Refuse(code) => return FetchOutcome::failed(code),
                }
            }
            None => replica.sent(),
        };
        let outcome = ends_of(replica);
        if part.follower().and_then(|follower| self.send_later(replica, follower)).is_some() {
            return FetchOutcome { more: is_news, ..outcome };
        }
        let read = match limit {
            Some(limit) if part.offset < up_to => replica.read_up_to(part.offset, up_to, limit).await,
            _ => Ok(LogRead { more: part.offset < up_to, ..LogRead::default() }),
        };
        match read {
            Ok(read) => {
                let outcome = FetchOutcome {
                    traffic: (!read.records.is_empty()).then(|| replica.traffic.clone()),
                    records: read.records,
                    more: read.more || is_news,
                    held_bytes: read.held_bytes,
                    needed_bytes: read.needed_bytes,
                    ..outcome
                };
                if part.follower().is_some() {
                    self.count_sent(replica, outcome.bytes());
                }
                outcome
            }
            Err(code) => FetchOutcome::failed(code),
        }
    }

    /// Fires `waiter` when there is more for a replica to read behind one of its
    /// parts, wherever that lives.
    pub(super) fn watch_sent(self: &Rc<Self>, parts: &[FetchPart], waiter: &Rc<DataWaiter>, until: Moment) {
        let replicas: Vec<FetchPart> = parts.iter().filter(|part| !part.is_consumers()).cloned().collect();
        for group in Groups::split(replicas, |part| self.owner(part.partition)).by_owner {
            if group.owner == self.id {
                self.expect_sent(&group.parts, waiter);
                continue;
            }
            let (shard, waiter, parts) = (self.clone(), Rc::downgrade(waiter), group.parts);
            spawn_local(async move {
                let moved = move |owner: Rc<Shard>| async move {
                    let waiter = DataWaiter::new(None);
                    owner.expect_sent(&parts, &waiter);
                    let _ = clock::by(until, waiter.fired()).await;
                };
                if let Ok(moved) = shard.mesh.call(group.owner, moved).await {
                    let _ = moved.await;
                }
                if let Some(waiter) = waiter.upgrade() {
                    waiter.fire();
                }
            });
        }
    }

    /// On the owner.
    fn expect_sent(&self, parts: &[FetchPart], waiter: &Rc<DataWaiter>) {
        for part in parts {
            match self.replica(part.partition) {
                Some(replica) => match part.follower().and_then(|follower| self.send_later(&replica, follower)) {
                    Some(until) => fire_at(until, waiter),
                    None => replica.expect_sent(part.offset, part.follower(), waiter),
                },
                None => waiter.fire(),
            }
        }
    }
}

/// Where the replica stands, without records.
fn ends_of(replica: &Replica) -> FetchOutcome {
    let last_stable_offset = replica.last_stable_offset();
    FetchOutcome { last_stable_offset, ..FetchOutcome::quiet(replica.high_watermark(), replica.start_offset()) }
}
