//! A shard as its fetchers see it.

use std::rc::{Rc, Weak};

use super::all::Host;
use crate::model::{BrokerId, PartitionId};
use crate::partition::Replica;
use crate::shard::state::Shard;

struct OnShard(Weak<Shard>);

/// The host of a shard's fetchers, which does not keep it.
pub fn host(shard: Weak<Shard>) -> Rc<dyn Host> {
    Rc::new(OnShard(shard))
}

impl Host for OnShard {
    fn replica(&self, id: PartitionId) -> Option<Rc<Replica>> {
        self.0.upgrade()?.replica(id)
    }

    fn address(&self, broker: BrokerId) -> Option<(String, u16)> {
        self.0.upgrade()?.address_of(broker)
    }

    fn broker_epoch(&self) -> i64 {
        self.0.upgrade().and_then(|shard| shard.image().follower_epoch).unwrap_or(-1)
    }

    fn is_stopping(&self) -> bool {
        self.0.upgrade().is_none_or(|shard| shard.stop.is_set())
    }

    fn fetched(&self, replica: &Replica, bytes: usize) {
        if let Some(shard) = self.0.upgrade() {
            shard.count_fetched(replica, bytes);
        }
    }

    fn is_counted_on(&self, replica: &Replica) -> bool {
        self.0.upgrade().is_some_and(|shard| shard.counted_on(replica.id).is_some())
    }

    fn later(&self, replica: &Replica) -> Option<u64> {
        self.0.upgrade()?.fetch_later(replica)
    }
}
