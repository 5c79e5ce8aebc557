//! The fetchers of one shard, by the broker that leads.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::fetcher::Fetcher;
use super::plan::Limits;
use crate::client::core::MAX_RESPONSE_BYTES;
use crate::client::leader::Receiving;
use crate::config::{MAX_BATCH_BYTES, ServerConfig};
use crate::model::{BrokerId, LeaderEpoch, PartitionId, ShardId};
use crate::partition::Replica;
use crate::runtime::spawn_local;
use crate::runtime::sync::Budget;

/// Most bytes of records that are asked for: with one batch beyond them, and as much again for what
/// stands around the records, the answer is no longer than a client takes.
const MOST_ASKED: u32 = 128 << 20;
const _: () = assert!(2 * MOST_ASKED as usize + MAX_BATCH_BYTES as usize <= MAX_RESPONSE_BYTES);

/// The shard, as its fetchers need it.
pub trait Host {
    fn replica(&self, id: PartitionId) -> Option<Rc<Replica>>;
    /// Where to reach a broker; `None`: it is not known.
    fn address(&self, broker: BrokerId) -> Option<(String, u16)>;
    /// Number of this broker's registration.
    fn broker_epoch(&self) -> i64;
    fn is_stopping(&self) -> bool;
    /// Records came from the leader.
    fn fetched(&self, _replica: &Replica, _bytes: usize) {}
    /// This broker is in the partition's ISR or ELR.
    fn is_counted_on(&self, _replica: &Replica) -> bool {
        false
    }
    /// The replica is not to be fetched before then, ms.
    fn later(&self, _replica: &Replica) -> Option<u64> {
        None
    }
}

/// Settings of a shard's fetchers.
#[derive(Clone, Debug)]
pub struct Settings {
    /// This broker.
    pub this: BrokerId,
    pub client_id: String,
    pub limits: Limits,
    /// For connecting, and for an answer beyond its longest wait.
    pub timeout: Duration,
    /// Longest pause between two tries to reach a leader.
    pub backoff: Duration,
    /// Bytes of answers that are not written yet, of all leaders.
    pub memory: usize,
}

impl Settings {
    pub fn of(config: &ServerConfig, shard: ShardId) -> Settings {
        let memory = config.receive_memory_bytes;
        let most = u32::try_from(memory / 2).unwrap_or(u32::MAX).min(MOST_ASKED);
        let limits = Limits {
            max_wait_ms: config.replica_fetch_wait_max_ms,
            min_bytes: config.replica_fetch_min_bytes,
            max_bytes: config.replica_fetch_response_max_bytes.min(most),
            partition_max_bytes: config.replica_fetch_max_bytes.min(most),
            backoff_ms: u64::from(config.replica_fetch_backoff_ms),
        };
        Settings {
            this: BrokerId(config.broker_id),
            client_id: format!("broker-{}-fetcher-{shard}", config.broker_id),
            limits,
            timeout: Duration::from_millis(u64::from(config.replica_socket_timeout_ms)),
            backoff: Duration::from_millis(u64::from(config.replica_fetch_backoff_ms)),
            memory,
        }
    }
}

/// A partition's place among the fetchers: the leader, the epoch, and the
/// number of the replica's log.
type Assignment = (BrokerId, LeaderEpoch, u64);

/// All fetchers of a shard.
pub struct Fetchers {
    host: Rc<dyn Host>,
    settings: Settings,
    memory: Rc<Budget>,
    by_leader: RefCell<BTreeMap<BrokerId, Rc<Fetcher>>>,
    assigned: RefCell<BTreeMap<PartitionId, Assignment>>,
    committed_cuts: Rc<Cell<u64>>,
}

impl Fetchers {
    pub fn new(host: Rc<dyn Host>, settings: Settings) -> Rc<Fetchers> {
        Rc::new(Fetchers {
            host,
            memory: Budget::new(settings.memory),
            settings,
            by_leader: RefCell::default(),
            assigned: RefCell::default(),
            committed_cuts: Rc::default(),
        })
    }

    /// Fetches `replica`'s partition from the leader that it follows, and from no other. To be
    /// called whenever its role may have changed, and when another replica has taken its place.
    pub fn look_at(self: &Rc<Self>, replica: &Rc<Replica>) {
        let Some(follows) = replica.followed() else { return self.remove(replica.id) };
        let assignment = (follows.leader, follows.epoch, replica.log().number());
        let before = self.assigned.borrow_mut().insert(replica.id, assignment);
        if before == Some(assignment) {
            return;
        }
        if let Some((leader, ..)) = before.filter(|(leader, ..)| *leader != follows.leader) {
            self.leave(leader, replica.id);
        }
        self.assign(replica, follows.leader, follows.epoch);
    }

    /// Fetches the partition no more.
    pub fn remove(&self, id: PartitionId) {
        let before = self.assigned.borrow_mut().remove(&id);
        if let Some((leader, ..)) = before {
            self.leave(leader, id);
        }
    }

    /// Times that a log was cut below its own high watermark: records that were committed are gone.
    pub fn committed_cuts(&self) -> u64 {
        self.committed_cuts.get()
    }

    fn leave(&self, leader: BrokerId, id: PartitionId) {
        let fetcher = self.by_leader.borrow().get(&leader).cloned();
        if let Some(fetcher) = fetcher {
            fetcher.remove(id);
        }
    }

    fn assign(self: &Rc<Self>, replica: &Rc<Replica>, leader: BrokerId, epoch: LeaderEpoch) {
        let known = self.by_leader.borrow().get(&leader).cloned();
        if let Some(fetcher) = known {
            return fetcher.assign(replica, epoch);
        }
        let receiving = Receiving { max_frame: MAX_RESPONSE_BYTES, memory: self.memory.clone(), begun: Rc::default() };
        let (host, cuts) = (self.host.clone(), self.committed_cuts.clone());
        let fetcher = Fetcher::new(leader, host, self.settings.clone(), receiving, cuts);
        self.by_leader.borrow_mut().insert(leader, fetcher.clone());
        fetcher.assign(replica, epoch);
        let all = Rc::downgrade(self);
        // It may run at once.
        spawn_local(async move {
            fetcher.clone().run().await;
            if let Some(all) = all.upgrade() {
                all.ended(leader, &fetcher);
            }
        });
    }

    /// A fetcher has found itself without partitions.
    fn ended(&self, leader: BrokerId, fetcher: &Rc<Fetcher>) {
        let mut by_leader = self.by_leader.borrow_mut();
        if by_leader.get(&leader).is_some_and(|current| Rc::ptr_eq(current, fetcher)) {
            by_leader.remove(&leader);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_asked_for_that_makes_too_long_an_answer() {
        let config = ServerConfig {
            receive_memory_bytes: 8 << 30,
            replica_fetch_response_max_bytes: i32::MAX as u32,
            replica_fetch_max_bytes: i32::MAX as u32,
            ..ServerConfig::default()
        };
        let limits = Settings::of(&config, ShardId(0)).limits;
        for asked in [limits.max_bytes, limits.partition_max_bytes] {
            assert!(asked as usize + (MAX_BATCH_BYTES as usize) < MAX_RESPONSE_BYTES, "{asked}");
        }
    }
}
