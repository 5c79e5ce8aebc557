//! Proposals of leaders for the state of their partitions, on their way to the metadata store.

use std::rc::Rc;
use std::time::Duration;

use super::state::{CONTROLLER, Shard};
use crate::cluster::PartitionImage;
use crate::model::PartitionId;
use crate::partition::{Change, Decision, Proposal, Replica};
use crate::runtime::{clock, spawn_local};

/// What was not committed is looked at again after this, when the rules may propose anew.
const AGAIN: Duration = Duration::from_millis(510);

impl Shard {
    /// Looks at every leader twice in `replica.lag.time.max.ms`: a follower that has stopped is seen by nothing else.
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
            let counts = match &proposal.change {
                Change::Expand(_) => Some(&shard.metrics.isr_expands),
                Change::Shrink(_) => Some(&shard.metrics.isr_shrinks),
                Change::Confirm | Change::Resign => None,
            };
            let decision = shard.propose(replica.id, proposal).await;
            replica.decided(based_on, decision);
            if let (Decision::Committed, Some(count)) = (decision, counts) {
                count.add(1);
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

    /// Commits a leader's proposal. It is carried out on the state that it is based on, or not at all.
    pub(super) async fn propose(self: &Rc<Self>, partition: PartitionId, proposal: Proposal) -> Decision {
        let decided = self.on_shard(CONTROLLER, move |shard| async move { shard.decide(partition, &proposal).await });
        // Of a commit of a broker on its way out nothing is known.
        decided.await.unwrap_or(Decision::Unknown)
    }

    /// Gives up the places of replicas whose logs have failed, or could not be opened: somebody else is to lead, and the
    /// others go on without them.
    pub(super) async fn keep_resigning(self: Rc<Self>) {
        while !self.stop.is_set() {
            clock::next_tick().await;
            for partition in self.offline_replicas() {
                let image = self.image();
                let shown = image
                    .topic_by_id(partition.topic)
                    .and_then(|topic| topic.partitions.get(usize::try_from(partition.index.0).ok()?));
                let me = self.broker();
                let holds = |shown: &&PartitionImage| shown.isr.contains(&me) || shown.elr.contains(&me);
                if let Some(shown) = shown.filter(holds) {
                    let proposal = Proposal { based_on: shown.version, change: Change::Resign };
                    if self.propose(partition, proposal).await == Decision::Committed {
                        tracing::warn!(topic = %partition.topic, partition = %partition.index, "gave up the places of a replica that is offline");
                    }
                }
            }
        }
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
