//! Changes of a partition's state that its leader, or a replica that gives up, wants. Those that
//! come together share a commit: after a start thousands do, and each commit costs a round of the
//! ensemble. One that meets a conflict is sent again, a commit for each partition.

use super::{Node, Purpose, Ticket};
use crate::cluster::rules::{self, PartitionKey};
use crate::cluster::store::{Commit, Store};
use crate::model::BrokerId;
use crate::model::planted::{Planted, planted};
use crate::partition::{Change, Proposal};

/// States that are changed in one commit.
const TOGETHER: usize = 64;
/// Commits of proposals under way. What comes meanwhile waits, and shares the next one.
const UNDER_WAY: usize = 16;

/// A proposal that waits for a commit.
pub(super) struct Proposed {
    pub ticket: Ticket,
    pub purpose: Purpose,
    commit: Commit,
}

impl<S: Store> Node<S> {
    /// Takes a leader's proposal, which leaves with the next [`act`](Node::act). `None`: it has
    /// been overtaken, and does not take effect.
    pub fn propose(&mut self, partition: &PartitionKey, proposal: &Proposal) -> Option<Ticket> {
        let commit = self.proposed(partition, proposal)?;
        let purpose = Purpose::Isr { partition: partition.clone(), based_on: proposal.based_on };
        let ticket = self.ticket();
        self.proposed.push(Proposed { ticket, purpose, commit });
        Some(ticket)
    }

    /// Sends proposals that wait, as many as may be on their way.
    pub(super) fn send_proposals(&mut self) {
        while !self.proposed.is_empty() {
            let of_isr = |asked: &&Vec<_>| matches!(asked.first(), Some((_, Purpose::Isr { .. })));
            if self.commits.values().filter(of_isr).count() >= UNDER_WAY {
                return;
            }
            let next = self.proposed.len().min(TOGETHER);
            let (mut asked, mut singles) = (Vec::with_capacity(next), Vec::with_capacity(next));
            for Proposed { ticket, purpose, commit } in self.proposed.drain(..next) {
                asked.push((ticket, purpose));
                singles.push(commit);
            }
            let id = self.send(together(&singles), asked);
            if singles.len() > 1 {
                self.singles.insert(id, singles);
            }
        }
    }

    /// A replica that does not lead, and whose log has failed, gives up its places. `None`: it has
    /// none, or is on its way already.
    pub fn resign(&mut self, partition: &PartitionKey) -> Option<Ticket> {
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
        let moved;
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
            Change::HandOver => {
                let heirs = |broker: BrokerId| broker != self.me() && self.view.has_room(broker);
                let after = rules::hand_over(&state.value, &terms, heirs)?;
                let heir = after.leader?;
                moved = [(heir, self.view.incarnation(heir)?.version)];
                checked = &moved;
                after
            }
            Change::Renew => rules::renew(&state.value, &terms, self.me())?,
            Change::Resign => rules::resign(&state.value, &terms, self.me(), |broker| self.view.is_active(broker))?,
        };
        rules::isr_commit(&self.view, self.me(), partition, state.version, after, checked)
    }
}

/// One commit that does what these do.
fn together(singles: &[Commit]) -> Commit {
    let mut all = Commit { checks: Vec::new(), writes: Vec::with_capacity(singles.len()) };
    for single in singles {
        let new = single.checks.iter().filter(|check| !all.checks.contains(check));
        let new: Vec<_> = new.cloned().collect();
        all.checks.extend(new);
        all.writes.extend(single.writes.iter().cloned());
    }
    all
}
