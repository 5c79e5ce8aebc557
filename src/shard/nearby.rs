//! Reads from a replica in the consumer's own rack (KIP-392): the leader names it, and it serves
//! what it knows to be committed.

use std::cmp::Reverse;

use super::api::FetchPart;
use super::state::Shard;
use crate::cluster::store::Phase;
use crate::config::ReplicaSelector;
use crate::model::BrokerId;
use crate::partition::Replica;

impl Shard {
    /// The replica that the consumer of `part` should read from instead of this leader:
    /// one in its rack, in sync, that has what is asked for, and of several the one that
    /// has most. `None`: this one.
    pub(super) fn nearer_replica(&self, replica: &Replica, part: &FetchPart) -> Option<BrokerId> {
        let rack = part.rack.as_deref().filter(|_| self.config.replica_selector == ReplicaSelector::RackAware)?;
        let image = self.image.borrow();
        let is_near = |broker: BrokerId| {
            let known = image.brokers.iter().find(|known| known.id == broker && known.phase == Phase::Active);
            known.is_some_and(|known| known.rack.as_deref() == Some(rack))
        };
        if is_near(self.broker()) {
            return None;
        }
        let others = replica.in_sync_from(part.offset).into_iter().filter(|(broker, _)| is_near(*broker));
        others.max_by_key(|(broker, end)| (*end, Reverse(*broker))).map(|(broker, _)| broker)
    }
}
