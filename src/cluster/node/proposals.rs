//! Changes of a partition's state that its leader, or a replica that gives up, wants.

use super::{Node, Purpose};
use crate::cluster::rules::{self, PartitionKey};
use crate::cluster::store::{Commit, CommitId, Store};
use crate::model::BrokerId;
use crate::model::planted::{Planted, planted};
use crate::partition::{Change, Proposal};

impl<S: Store> Node<S> {
    /// Begins the commit of a leader's proposal. `None`: it has been overtaken, and does not take effect.
    pub fn propose(&mut self, partition: &PartitionKey, proposal: &Proposal) -> Option<CommitId> {
        let commit = self.proposed(partition, proposal)?;
        let purpose = Purpose::Isr { partition: partition.clone(), based_on: proposal.based_on };
        Some(self.commit(commit, purpose))
    }

    /// A replica that does not lead, and whose log has failed, gives up its places. `None`: it has none, or
    /// is on its way already.
    pub fn resign(&mut self, partition: &PartitionKey) -> Option<CommitId> {
        let purpose = Purpose::Resign { partition: partition.clone() };
        // Without a registration of its own, the one that the metadata shows is of an earlier life.
        if self.broker_epoch().is_none() || self.is_waiting_for(&purpose) {
            return None;
        }
        let based_on = self.view.state(&partition.0, partition.1)?.version;
        let commit = self.proposed(partition, &Proposal { based_on, change: Change::Resign })?;
        Some(self.commit(commit, purpose))
    }

    fn proposed(&self, partition: &PartitionKey, proposal: &Proposal) -> Option<Commit> {
        let (name, index) = partition;
        let topic = self.view.topic(name)?;
        let (state, terms) = (topic.states.get(index)?, self.view.terms(topic, topic.assignment(*index)?));
        if state.version != proposal.based_on {
            return None;
        }
        let mut checked: &[(BrokerId, i32)] = &[];
        let after = match &proposal.change {
            Change::Expand(joining) => {
                if !planted(Planted::ExpandWithoutIncarnation) {
                    checked = joining;
                }
                let brokers: Vec<BrokerId> = joining.iter().map(|(broker, _)| *broker).collect();
                rules::expand(&state.value, &terms, &brokers)?
            }
            Change::Shrink(leaving) => rules::shrink(&state.value, &terms, leaving)?,
            Change::Confirm => state.value.clone(),
            Change::Resign => rules::resign(&state.value, &terms, self.me(), |broker| self.view.is_active(broker))?,
        };
        rules::isr_commit(&self.view, self.me(), partition, state.version, after, checked)
    }
}
