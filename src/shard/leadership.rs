//! Roles of this shard's replicas, as the metadata image gives them.
//!
//! The image of a broker that takes no part at present does not show it as leader, so its replicas
//! follow or have no role then. Without a cluster every replica is alone.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use super::state::Shard;
use crate::cluster::store::Phase;
use crate::cluster::{MetadataImage, PartitionImage};
use crate::config::ReplicaSelector;
use crate::model::{BrokerId, LeaderEpoch, PartitionId};
use crate::observe::client_line;
use crate::partition::{Change, Membership, PartitionView, Proposal, Replica, ReplicaView};
use crate::runtime::{clock, spawn_local};

/// Between two tries to have a leader epoch raised.
const RENEWAL_PAUSE: Duration = Duration::from_millis(50);

/// This broker in its cluster, as one shard knows it.
#[derive(Default)]
pub(super) struct Roles {
    /// High watermarks as last noted, of replicas that are not open.
    noted: RefCell<BTreeMap<PartitionId, i64>>,
    /// Leaderships that were refused, each said once.
    refused: RefCell<BTreeMap<PartitionId, LeaderEpoch>>,
    /// Leaders that were opened anew while the broker runs: the epoch that is over thereby, and
    /// whether a new one is asked for.
    reopened: RefCell<BTreeMap<PartitionId, (LeaderEpoch, bool)>>,
}

/// The role of a broker's replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Assigned {
    Lead(PartitionView),
    Follow(BrokerId, LeaderEpoch),
    None,
}

/// The clock of the rules, ms.
fn clock_ms() -> i64 {
    i64::try_from(clock::mono_ms()).unwrap_or(i64::MAX)
}

impl Shard {
    /// `None`: this broker has no cluster.
    pub(super) fn membership(&self) -> Option<Membership> {
        let (me, lag_time_max_ms) = (self.broker(), self.config.replica_lag_time_max_ms);
        let followers_serve = self.config.replica_selector != ReplicaSelector::Leader;
        self.config.in_cluster().then_some(Membership { me, lag_time_max_ms, followers_serve, clock: clock_ms })
    }

    /// Notes the high watermark of a replica that is opened later.
    pub(super) fn note_high_watermark(&self, id: PartitionId, high_watermark: i64) {
        self.roles.noted.borrow_mut().insert(id, high_watermark);
    }

    /// 0: none is noted.
    pub(super) fn noted_high_watermark(&self, id: PartitionId) -> i64 {
        self.roles.noted.borrow_mut().remove(&id).unwrap_or(0)
    }

    /// Gives a replica the role that the image says. Where its log is being moved by another
    /// replica's word, it has none until that is over.
    pub(super) fn assign_role(self: &Rc<Self>, replica: &Rc<Replica>) {
        let Some(membership) = self.membership() else { return };
        let assigned = assigned(&self.image.borrow(), replica.id, membership.me);
        if !is_role(replica, &assigned)
            && let Some(moves_end) = replica.moves_end()
        {
            replica.leave();
            self.coordinate(replica);
            self.fetchers.look_at(replica);
            let (shard, replica) = (self.clone(), replica.clone());
            spawn_local(async move {
                moves_end.await;
                if shard.replica(replica.id).is_some_and(|current| Rc::ptr_eq(&current, &replica)) {
                    shard.assign_role(&replica);
                }
            });
            return;
        }
        match assigned {
            Assigned::Lead(view) => self.lead(replica, view),
            Assigned::Follow(leader, epoch) => replica.follow(leader, epoch),
            Assigned::None => replica.leave(),
        }
        self.coordinate(replica);
        self.fetchers.look_at(replica);
    }

    fn lead(self: &Rc<Self>, replica: &Rc<Replica>, view: PartitionView) {
        let epoch = view.leader_epoch;
        let refused = replica.lead(view);
        let (mut known, mut reopened) = (self.roles.refused.borrow_mut(), self.roles.reopened.borrow_mut());
        let Err(why) = refused else {
            known.remove(&replica.id);
            if reopened.get(&replica.id).is_some_and(|(over, _)| *over < epoch) {
                reopened.remove(&replica.id);
            }
            return;
        };
        if let Some((_, asked)) = reopened.get_mut(&replica.id).filter(|(over, _)| *over == epoch) {
            if !std::mem::replace(asked, true) {
                spawn_local(self.clone().renew_leadership(replica.clone()));
            }
            return;
        }
        if known.insert(replica.id, epoch) != Some(epoch) {
            client_line!(error, topic = %replica.topic, partition = %replica.id.index, epoch = epoch.0, "not led: {why}");
        }
    }

    /// The replica is about to end, and to be opened anew: if it leads, its
    /// leadership goes on in a new epoch.
    pub(super) fn end_to_reopen(&self, replica: &Replica) {
        let led = replica.led_epoch();
        self.end_coordinator(replica.id);
        replica.leave();
        if self.membership().is_some() {
            self.note_high_watermark(replica.id, replica.high_watermark());
            if let Some(epoch) = led {
                self.roles.reopened.borrow_mut().insert(replica.id, (epoch, false));
            }
        }
    }

    /// Has the leader epoch raised until the replica leads in it, or somebody else does.
    async fn renew_leadership(self: Rc<Self>, replica: Rc<Replica>) {
        let is_current = || self.replica(replica.id).is_some_and(|current| Rc::ptr_eq(&current, &replica));
        while !self.stop.is_set() && is_current() && replica.led_epoch().is_none() {
            let assigned = assigned(&self.image(), replica.id, self.broker());
            let Assigned::Lead(view) = assigned else { break };
            let proposal = Proposal { based_on: view.version, change: Change::Renew };
            self.propose(replica.id, proposal).await;
            // The image that shows it gives the replica its role.
            clock::sleep(RENEWAL_PAUSE).await;
        }
        if let Some((_, asked)) = self.roles.reopened.borrow_mut().get_mut(&replica.id) {
            *asked = false;
        }
    }

    /// The metadata knows the partition, and this broker has no part in it.
    pub(super) fn is_elsewhere(&self, id: PartitionId) -> bool {
        let Some(membership) = self.membership() else { return false };
        let image = self.image.borrow();
        partition(&image, id).is_some_and(|partition| !partition.replicas.contains(&membership.me))
    }

    /// Has every leader of this shard look at the brokers anew, where some of them have changed.
    pub(super) fn follow_brokers(self: &Rc<Self>, brokers: &[BrokerId]) {
        if self.membership().is_none() || brokers.is_empty() {
            return;
        }
        let leads = |replica: &&Rc<Replica>| replica.followed().is_none();
        self.all_replicas().iter().filter(leads).for_each(|replica| self.assign_role(replica));
    }
}

/// The replica has the role already, whatever else is new.
fn is_role(replica: &Replica, assigned: &Assigned) -> bool {
    match assigned {
        Assigned::Lead(view) => replica.led_epoch() == Some(view.leader_epoch),
        Assigned::Follow(leader, epoch) => {
            replica.followed().is_some_and(|follows| (follows.leader, follows.epoch) == (*leader, *epoch))
        }
        Assigned::None => false,
    }
}

fn partition(image: &MetadataImage, id: PartitionId) -> Option<&PartitionImage> {
    image.topic_by_id(id.topic)?.partitions.get(usize::try_from(id.index.0).ok()?)
}

/// The role of broker `me` in a partition.
pub(super) fn assigned(image: &MetadataImage, id: PartitionId, me: BrokerId) -> Assigned {
    let Some(partition) = partition(image, id).filter(|partition| partition.replicas.contains(&me)) else {
        return Assigned::None;
    };
    match partition.leader {
        Some(leader) if leader == me => partition_view(image, id).map_or(Assigned::None, Assigned::Lead),
        Some(leader) => Assigned::Follow(leader, partition.leader_epoch),
        None => Assigned::None,
    }
}

/// The partition as its leader has to see it; `None`: there is no such partition.
pub(super) fn partition_view(image: &MetadataImage, id: PartitionId) -> Option<PartitionView> {
    let topic = image.topic_by_id(id.topic)?;
    let partition = partition(image, id)?;
    // Replicas that a reassignment is adding do not count until it is complete.
    let factor = partition.replicas.iter().filter(|broker| !partition.adding.contains(broker)).count();
    let factor = i32::try_from(factor).unwrap_or(i32::MAX);
    let minimum = i32::try_from(topic.config.min_insync_replicas).unwrap_or(i32::MAX);
    let replica = |broker: &BrokerId| {
        let known = image.brokers.iter().find(|known| known.id == *broker);
        ReplicaView {
            broker: *broker,
            broker_epoch: known.map(|known| known.epoch),
            active: known.is_some_and(|known| known.phase == Phase::Active),
            incarnation: known.map_or(-1, |known| known.incarnation),
        }
    };
    Some(PartitionView {
        version: partition.version,
        leader_epoch: partition.leader_epoch,
        isr: partition.isr.clone(),
        elr_min: partition.elr_min,
        replicas: partition.replicas.iter().map(replica).collect(),
        min_isr: minimum.min(factor).max(1),
    })
}

#[cfg(test)]
#[path = "leadership_tests.rs"]
pub(super) mod tests;
