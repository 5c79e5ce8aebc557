//! Proposals of leaders for the state of their partitions, on their way to the metadata store.

use std::rc::Rc;
use std::time::Duration;

use super::state::{CONTROLLER, Shard};
use crate::model::PartitionId;
use crate::observe::client_line;
use crate::partition::{Change, Decision, Proposal, RETRY_MS, Replica};
use crate::runtime::sync::{OneshotReceiver, oneshot};
use crate::runtime::{clock, spawn_local};

/// Time after which a proposal that was not committed is looked at again: the rules may propose
/// anew.
const AGAIN: Duration = Duration::from_millis(510);
const _: () = assert!(AGAIN.as_millis() > RETRY_MS as u128);
/// Places that are given up at the same time.
const RESIGNED: usize = 1_000;

impl Shard {
    /// Looks at every leader twice in `replica.lag.time.max.ms`: a follower that has stopped
    /// is seen by nothing else.
    pub(super) async fn keep_isr(self: Rc<Self>) {
        let interval =
            Duration::from_millis(u64::try_from(self.config.replica_lag_time_max_ms / 2).unwrap_or(1).max(1));
        while !self.stop.is_set() {
            self.pause(interval).await;
            self.all_replicas().iter().for_each(|replica| self.look_at_isr(replica));
        }
    }

    /// Proposes the change of the ISR that is due, if one is.
    pub(super) fn look_at_isr(self: &Rc<Self>, replica: &Rc<Replica>) {
        let Some(proposal) = replica.propose() else { return };
        let (shard, replica) = (self.clone(), replica.clone());
        spawn_local(async move {
            let based_on = proposal.based_on;
            let change = match &proposal.change {
                Change::Expand(joined) => {
                    let brokers: Vec<i32> = joined.iter().map(|(broker, _)| broker.0).collect();
                    Some((&shard.metrics.isr_expands, brokers, "replicas have joined the ISR"))
                }
                Change::Shrink(left) => {
                    let brokers: Vec<i32> = left.iter().map(|broker| broker.0).collect();
                    Some((&shard.metrics.isr_shrinks, brokers, "replicas have left the ISR"))
                }
                Change::Confirm | Change::Resign | Change::HandOver | Change::Renew => None,
            };
            let hands_over = proposal.change == Change::HandOver;
            let decision = shard.propose(replica.id, proposal).await;
            replica.decided(based_on, decision);
            if let (Decision::Committed, Some((count, brokers, what))) = (decision, change) {
                count.add(1);
                client_line!(info, topic = %replica.topic, partition = %replica.id.index, ?brokers, "{what}");
            }
            if decision == Decision::Committed && hands_over {
                client_line!(
                    warn, topic = %replica.topic, partition = %replica.id.index,
                    "another replica leads: less than corelane.disk.reserve.bytes is free here"
                );
            }
            if shard.replica(replica.id).is_some_and(|current| Rc::ptr_eq(&current, &replica)) {
                // It may lead again.
                shard.coordinate(&replica);
            }
            if decision != Decision::Committed {
                clock::sleep(AGAIN).await;
                shard.look_at_isr(&replica);
            }
        });
    }

    /// Commits a leader's proposal. It is carried out on the state that it is
    /// based on, or not at all.
    pub(super) async fn propose(self: &Rc<Self>, partition: PartitionId, proposal: Proposal) -> Decision {
        let decided = self.on_shard(CONTROLLER, move |shard| async move { shard.decide(partition, &proposal).await });
        // Of a commit of a broker on its way out nothing is known.
        decided.await.unwrap_or(Decision::Unknown)
    }

    /// Gives up the places of replicas whose logs have failed, or could not be opened: somebody
    /// else is to lead, and the others go on without them. A disk takes many of them along, and a
    /// commit has room for several.
    pub(super) async fn keep_resigning(self: Rc<Self>) {
        while !self.stop.is_set() {
            clock::next_tick().await;
            self.look_at_room().await;
            for places in self.places_of_offline_replicas().chunks(RESIGNED) {
                let asked: Vec<_> = places.iter().map(|place| (place.0, self.resign(*place))).collect();
                let mut given_up = Vec::with_capacity(asked.len());
                for (partition, committed) in asked {
                    given_up.extend((committed.recv().await == Some(true)).then_some(partition));
                }
                if let Some(first) = given_up.first() {
                    let (topic, partition, replicas) = (&first.topic, &first.index, given_up.len());
                    tracing::warn!(%topic, %partition, replicas, "gave up the places of replicas that are offline, this one's among them");
                }
            }
        }
    }

    /// Gives leaderships away where records are refused for want of room, and tells the
    /// controller's shard of it.
    async fn look_at_room(self: &Rc<Self>) {
        let short = !self.storage.low_disks().is_empty();
        if !short && !self.short_of_room.get() {
            return;
        }
        // First, so that nobody hands leaderships back.
        if self.short_of_room.get() != short {
            let shard = self.id;
            let told = self.on_shard(CONTROLLER, move |controller| async move {
                let member = controller.member();
                member.inspect(|member| member.note_room(shard, short)).is_some()
            });
            if told.await.unwrap_or(false) {
                self.short_of_room.set(short);
            }
        }
        for replica in self.all_replicas() {
            let log = replica.log();
            replica.hand_over(log.disk().is_low() && !log.uses_reserve());
            self.look_at_isr(&replica);
        }
    }

    /// The replicas of this shard that are offline, or follow with a damaged log or without room,
    /// and are in an ISR or an ELR, and the version of the state that says so. Leaders with a
    /// damaged log have their proposal looked at.
    fn places_of_offline_replicas(self: &Rc<Self>) -> Vec<(PartitionId, i32)> {
        let wanted = |replica: &&Rc<Replica>| replica.is_damaged() || replica.is_starved();
        let replicas: Vec<_> = self.replicas.borrow().values().filter(wanted).cloned().collect();
        let damaged: Vec<_> = replicas.iter().filter(|replica| replica.is_damaged()).collect();
        damaged.iter().for_each(|replica| self.look_at_isr(replica));
        let follow = damaged.iter().filter(|replica| replica.followed().is_some()).map(|replica| replica.id);
        let starved = replicas.iter().filter(|replica| replica.is_starved()).map(|replica| replica.id);
        let held = |partition: PartitionId| Some((partition, self.counted_on(partition)?));
        self.offline_replicas().into_iter().chain(follow).chain(starved).filter_map(held).collect()
    }

    /// The version of the partition's state, where this broker is in its ISR or ELR.
    pub(super) fn counted_on(&self, partition: PartitionId) -> Option<i32> {
        let (image, me) = (self.image(), self.broker());
        let topic = image.topic_by_id(partition.topic)?;
        let shown = topic.partitions.get(usize::try_from(partition.index.0).ok()?)?;
        (shown.isr.contains(&me) || shown.elr.contains(&me)).then_some(shown.version)
    }

    /// Gives the leadership up; the receiver learns whether that was committed.
    fn resign(self: &Rc<Self>, (partition, based_on): (PartitionId, i32)) -> OneshotReceiver<bool> {
        let (shard, (sender, receiver)) = (self.clone(), oneshot());
        spawn_local(async move {
            let decision = shard.propose(partition, Proposal { based_on, change: Change::Resign }).await;
            sender.send(decision == Decision::Committed);
        });
        receiver
    }

    async fn decide(self: Rc<Self>, partition: PartitionId, proposal: &Proposal) -> Decision {
        let Some(member) = self.member() else { return Decision::Refused };
        let Some(topic) = self.image().topic_by_id(partition.topic).map(|topic| topic.name.clone()) else {
            return Decision::Refused;
        };
        let key = (topic, partition.index.0);
        match member.begin(|node| node.propose(&key, proposal)) {
            Some(settled) => settled.recv().await.map_or(Decision::Unknown, |settled| settled.decision()),
            // It has been overtaken.
            None => Decision::Refused,
        }
    }
}
