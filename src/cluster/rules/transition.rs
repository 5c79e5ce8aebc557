//! Transitions of one partition's state, shared by leaders and the controller.
//!
//! Each takes the state as it was read and gives the new one, or `None` where nothing changes;
//! the caller writes the new one at the version of the old. What holds of every state that comes
//! out of here is in [`check`].
//!
//! The ELR (KIP-966) has replicas that left the ISR while the high watermark could not move without
//! them: a state with an ELR has an ISR smaller than `elr_min`, and no leader moves the high
//! watermark while that is so. Its members therefore hold all that is committed, however old or new
//! the `min.insync.replicas` is that a leader goes by.
//!
//! The leader epoch rises with every change of leader, to none as well, and where a reassignment
//! takes replicas away (they are fenced by it, as in Kafka). It does not rise when ISR or ELR
//! change alone: Kafka raised it on a shrink for a while, to get around a defect of its own
//! (KAFKA-15021).

use std::fmt;

use crate::cluster::store::{Assignment, PartitionState};
use crate::model::{BrokerId, LeaderEpoch};

/// Assignment, minimum and controller that a transition goes by.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// Assignment order: the first is preferred.
    pub replicas: &'a [BrokerId],
    /// As [`effective_min`] gives it.
    pub min_isr: i32,
    /// Epoch of the controller in office; written down with each change.
    pub controller_epoch: i32,
}

/// `min.insync.replicas` as it binds one partition: at most its replication factor, at least 1.
/// Replicas that a reassignment is adding do not count until it is complete, so that growing the
/// factor refuses nobody meanwhile.
pub fn effective_min(min_insync_replicas: i32, assignment: &Assignment) -> i32 {
    let factor = assignment.replicas.iter().filter(|broker| !assignment.adding.contains(broker)).count();
    min_insync_replicas.min(i32::try_from(factor).unwrap_or(i32::MAX)).max(1)
}

/// Origin of an elected leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Election {
    InSync,
    Eligible,
    /// The last leader, when ISR and ELR are empty. It may have lost committed records.
    LastLeader,
    /// Any active replica (`unclean.leader.election.enable`). Committed records may be lost.
    Unclean,
    /// Any active replica, where all are known to have lost their records.
    Emptied,
}

impl Election {
    /// No committed record is lost.
    pub fn is_clean(self) -> bool {
        matches!(self, Election::InSync | Election::Eligible)
    }
}

/// A rule that a partition's state breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    Duplicate,
    NotAReplica,
    InBoth,
    LeaderNotInSync,
    /// An ELR without its bound, a bound without an ELR, or an ISR that reaches it.
    ElrBound,
    /// A last leader beside a leader, or outside of the replicas.
    LastLeader,
    /// An emptied replica that counts, is named twice, or is none.
    Emptied,
    NegativeEpoch,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Broken::Duplicate => "a broker is named twice in ISR or ELR",
            Broken::NotAReplica => "ISR or ELR has a broker that is no replica",
            Broken::InBoth => "a broker is in ISR and ELR",
            Broken::LeaderNotInSync => "the leader is not in the ISR",
            Broken::ElrBound => "elr_min does not fit ISR and ELR",
            Broken::LastLeader => "last_leader is given beside a leader, or is no replica",
            Broken::Emptied => "emptied names a broker twice, one of ISR or ELR, or no replica",
            Broken::NegativeEpoch => "the leader epoch is negative",
        })
    }
}

/// Holds a state to its rules.
pub fn check(state: &PartitionState, replicas: &[BrokerId]) -> Result<(), Broken> {
    let PartitionState { leader, leader_epoch, isr, elr, elr_min, last_leader, emptied, .. } = state;
    let twice = |list: &[BrokerId]| list.iter().enumerate().any(|(at, broker)| list[..at].contains(broker));
    let fails = [
        (twice(isr) || twice(elr), Broken::Duplicate),
        (isr.iter().chain(elr).any(|broker| !replicas.contains(broker)), Broken::NotAReplica),
        (isr.iter().any(|broker| elr.contains(broker)), Broken::InBoth),
        (leader.is_some_and(|leader| !isr.contains(&leader)), Broken::LeaderNotInSync),
        (if elr.is_empty() { *elr_min != 0 } else { *elr_min <= count(isr) }, Broken::ElrBound),
        (last_leader.is_some_and(|last| leader.is_some() || !replicas.contains(&last)), Broken::LastLeader),
        (
            twice(emptied) || emptied.iter().any(|b| !replicas.contains(b) || isr.contains(b) || elr.contains(b)),
            Broken::Emptied,
        ),
        (leader_epoch.0 < 0, Broken::NegativeEpoch),
    ];
    fails.iter().find(|(fails, _)| *fails).map_or(Ok(()), |(_, broken)| Err(*broken))
}

/// The first state of a new partition; `None` while no replica is active. Nothing was written yet,
/// so each active replica is in sync.
pub fn initial(
    replicas: &[BrokerId],
    is_active: impl Fn(BrokerId) -> bool,
    controller_epoch: i32,
) -> Option<PartitionState> {
    let isr: Vec<_> = replicas.iter().copied().filter(|broker| is_active(*broker)).collect();
    Some(PartitionState {
        leader: Some(*isr.first()?),
        leader_epoch: LeaderEpoch(0),
        controller_epoch,
        isr,
        elr: Vec::new(),
        elr_min: 0,
        last_leader: None,
        emptied: Vec::new(),
        leader_broker_epoch: None,
    })
}

/// By the leader: replicas that have caught up enter the ISR. Nothing changes without a leader.
pub fn expand(state: &PartitionState, terms: &Terms, caught_up: &[BrokerId]) -> Option<PartitionState> {
    state.leader?;
    let mut change = Transition::of(state, terms);
    caught_up.iter().for_each(|broker| change.join(*broker));
    change.finish()
}

/// By the leader: replicas that lag leave the ISR. The leader itself stays.
pub fn shrink(state: &PartitionState, terms: &Terms, lagging: &[BrokerId]) -> Option<PartitionState> {
    let mut change = Transition::of(state, terms);
    lagging.iter().filter(|broker| state.leader != Some(**broker)).for_each(|broker| change.leave(*broker));
    change.finish()
}

/// A broker is not registered: it leaves the ISR, and leads no longer.
pub fn gone(state: &PartitionState, terms: &Terms, broker: BrokerId) -> Option<PartitionState> {
    let mut change = Transition::of(state, terms);
    change.leave(broker);
    change.finish()
}

/// A broker may have lost records: it leaves ISR and ELR, and leads no longer.
pub fn untrusted(state: &PartitionState, terms: &Terms, broker: BrokerId) -> Option<PartitionState> {
    let mut change = Transition::of(state, terms);
    change.lose(broker);
    change.finish()
}

/// A broker has lost all records of the partition: it leaves ISR and ELR, and is not elected while
/// there is a replica that may have some.
pub fn emptied(state: &PartitionState, terms: &Terms, broker: BrokerId) -> Option<PartitionState> {
    let mut change = Transition::of(state, terms);
    change.empty(broker);
    change.finish()
}

/// A broker has found its records again.
pub fn refilled(state: &PartitionState, terms: &Terms, broker: BrokerId) -> Option<PartitionState> {
    let mut change = Transition::of(state, terms);
    change.emptied.retain(|replica| *replica != broker);
    change.finish()
}

/// By a replica whose log failed, or whose shard is stuck: it leaves ISR and ELR if an active
/// broker can lead without it. If none can, nothing changes: the records that it still serves are
/// better than none, and after its restart its registration decides.
pub fn resign(
    state: &PartitionState,
    terms: &Terms,
    broker: BrokerId,
    is_active: impl Fn(BrokerId) -> bool,
) -> Option<PartitionState> {
    let mut change = Transition::of(state, terms);
    change.lose(broker);
    let heirs = if change.isr.is_empty() { &change.elr } else { &change.isr };
    heirs.iter().any(|heir| is_active(*heir)).then(|| change.finish())?
}

/// A leader for a partition whose leader is missing or not active; without a candidate it has none.
pub fn elect(
    state: &PartitionState,
    terms: &Terms,
    is_active: impl Fn(BrokerId) -> bool,
    unclean: bool,
) -> Option<PartitionState> {
    let mut change = Transition::of(state, terms);
    if !change.leader().is_some_and(&is_active) {
        change.elect(&is_active, unclean);
    }
    change.finish()
}

/// A leader that somebody asked for, for a partition without one: an unclean one if need be, and
/// one that is known to have lost its records if no other is active.
pub fn elect_asked(
    state: &PartitionState,
    terms: &Terms,
    is_active: impl Fn(BrokerId) -> bool,
) -> Option<PartitionState> {
    let mut change = Transition::of(state, terms);
    if change.leader().is_none() && change.elect(&is_active, true).is_none() {
        let leader = terms.replicas.iter().copied().find(|broker| is_active(*broker))?;
        change.begin_anew(leader);
    }
    change.finish()
}

/// Leadership moves to a member of the ISR.
pub fn prefer(state: &PartitionState, terms: &Terms, broker: BrokerId) -> Option<PartitionState> {
    let mut change = Transition::of(state, terms);
    change.lead(broker);
    change.finish()
}

/// By a leader whose disk is short of room: the first member of the ISR that may lead instead does,
/// and the ISR stays as it is.
pub fn hand_over(state: &PartitionState, terms: &Terms, may_lead: impl Fn(BrokerId) -> bool) -> Option<PartitionState> {
    let mut change = Transition::of(state, terms);
    let heir = terms.replicas.iter().copied().find(|broker| change.isr.contains(broker) && may_lead(*broker))?;
    change.lead(heir);
    change.finish()
}

/// By a leader whose replica was opened anew while the broker runs: it leads on in a new epoch,
/// since one epoch is one stretch of leading.
pub fn renew(state: &PartitionState, terms: &Terms, broker: BrokerId) -> Option<PartitionState> {
    let mut change = Transition::of(state, terms);
    change.leader().filter(|leader| *leader == broker)?;
    change.fence();
    change.finish()
}

/// `min.insync.replicas` was lowered: an ISR that reaches it now clears the ELR, and only then may
/// the high watermark move by the new minimum.
pub fn lower_minimum(state: &PartitionState, terms: &Terms) -> Option<PartitionState> {
    Transition::of(state, terms).finish()
}

/// Several steps on one state that are written as one.
#[derive(Clone, Debug)]
pub struct Transition<'a> {
    before: &'a PartitionState,
    terms: Terms<'a>,
    leader: Option<BrokerId>,
    isr: Vec<BrokerId>,
    /// Candidates: the ISR's size decides in the end.
    elr: Vec<BrokerId>,
    emptied: Vec<BrokerId>,
    fences: bool,
    /// Registration by which the leader leads on.
    renewed: Option<i64>,
}

impl<'a> Transition<'a> {
    /// Begins with the state as it was read. What breaks the rules of [`check`] in it is left out.
    pub fn of(before: &'a PartitionState, terms: &Terms<'a>) -> Transition<'a> {
        let mut isr: Vec<BrokerId> = Vec::with_capacity(before.isr.len());
        let mut elr: Vec<BrokerId> = Vec::with_capacity(before.elr.len());
        for (list, members) in [(&mut isr, &before.isr), (&mut elr, &before.elr)] {
            for member in members {
                if terms.replicas.contains(member) && !list.contains(member) {
                    list.push(*member);
                }
            }
        }
        elr.retain(|broker| !isr.contains(broker));
        // The high watermark may have moved without them.
        if before.elr_min <= count(&before.isr) {
            elr.clear();
        }
        let leader = before.leader.filter(|leader| isr.contains(leader));
        let mut change =
            Transition { before, terms: *terms, leader, isr, elr, emptied: Vec::new(), fences: false, renewed: None };
        before.emptied.iter().for_each(|broker| change.note_emptied(*broker));
        change
    }

    /// The state as it was read.
    pub fn before(&self) -> &PartitionState {
        self.before
    }

    pub fn leader(&self) -> Option<BrokerId> {
        self.leader
    }

    pub fn isr(&self) -> &[BrokerId] {
        &self.isr
    }

    /// Candidates for the ELR; all of them enter it if the ISR is empty in the end.
    pub fn elr(&self) -> &[BrokerId] {
        &self.elr
    }

    /// The leader before the partition had none.
    pub fn last_leader(&self) -> Option<BrokerId> {
        let last = self.before.leader.or(self.before.last_leader);
        last.filter(|last| self.leader.is_none() && self.terms.replicas.contains(last))
    }

    /// A replica that holds all committed records enters the ISR.
    pub fn join(&mut self, broker: BrokerId) {
        if self.terms.replicas.contains(&broker) && !self.isr.contains(&broker) {
            self.isr.push(broker);
            self.elr.retain(|member| *member != broker);
            self.emptied.retain(|replica| *replica != broker);
        }
    }

    /// A replica leaves the ISR, for the ELR if the rest is below the minimum.
    pub fn leave(&mut self, broker: BrokerId) {
        if self.isr.contains(&broker) {
            self.lose(broker);
            self.elr.push(broker);
        }
    }

    /// A replica leaves ISR and ELR.
    pub fn lose(&mut self, broker: BrokerId) {
        self.isr.retain(|member| *member != broker);
        self.elr.retain(|member| *member != broker);
        self.leader = self.leader.filter(|leader| *leader != broker);
    }

    /// A replica has no records any more: it leaves ISR and ELR, and that is
    /// noted until it has caught up.
    pub fn empty(&mut self, broker: BrokerId) {
        self.lose(broker);
        self.note_emptied(broker);
    }

    fn note_emptied(&mut self, broker: BrokerId) {
        let counts = self.isr.contains(&broker) || self.elr.contains(&broker);
        if self.terms.replicas.contains(&broker) && !counts && !self.emptied.contains(&broker) {
            self.emptied.push(broker);
        }
    }

    /// The replica is known to have lost its records.
    pub fn is_emptied(&self, broker: BrokerId) -> bool {
        self.emptied.contains(&broker)
    }

    /// A member of the ISR becomes leader; of anybody else nothing comes.
    pub fn lead(&mut self, broker: BrokerId) {
        if self.isr.contains(&broker) {
            self.leader = Some(broker);
        }
    }

    /// The leader epoch rises even if the leader stays.
    pub fn fence(&mut self) {
        self.fences = true;
    }

    /// The leader was restarted, and leads on by its new registration, in a new epoch.
    pub fn renew(&mut self, broker_epoch: i64) {
        (self.fences, self.renewed) = (true, Some(broker_epoch));
    }

    /// Elects the first replica in assignment order that may lead and is in the ISR; if the
    /// ISR is empty, in the ELR; if both are, the last leader; an unclean one only by
    /// option. One that is known to have lost its records is elected only where all replicas
    /// have. `None`: nobody leads.
    pub fn elect(&mut self, may_lead: &dyn Fn(BrokerId) -> bool, unclean: bool) -> Option<Election> {
        let (leader, election) = self.candidate(may_lead, unclean)?;
        match election {
            Election::InSync => {}
            Election::Eligible => self.join(leader),
            Election::LastLeader | Election::Unclean | Election::Emptied => self.begin_anew(leader),
        }
        self.leader = Some(leader);
        Some(election)
    }

    /// The partition goes on with what this replica has.
    fn begin_anew(&mut self, leader: BrokerId) {
        self.isr = vec![leader];
        self.elr.clear();
        self.emptied.retain(|replica| *replica != leader);
        self.leader = Some(leader);
    }

    fn candidate(&mut self, may_lead: &dyn Fn(BrokerId) -> bool, unclean: bool) -> Option<(BrokerId, Election)> {
        self.leader = None;
        let replicas = self.terms.replicas;
        let whole: Vec<BrokerId> = replicas.iter().copied().filter(|broker| !self.is_emptied(*broker)).collect();
        let first_of = |list: &[BrokerId]| replicas.iter().copied().find(|b| list.contains(b) && may_lead(*b));
        let clean = match (self.isr.is_empty(), self.elr.is_empty()) {
            (false, _) => first_of(&self.isr).map(|leader| (leader, Election::InSync)),
            (true, false) => first_of(&self.elr).map(|leader| (leader, Election::Eligible)),
            (true, true) => self
                .last_leader()
                .filter(|last| may_lead(*last) && (whole.is_empty() || whole.contains(last)))
                .map(|last| (last, Election::LastLeader)),
        };
        let others = || match (whole.is_empty(), unclean) {
            (true, _) => first_of(replicas).map(|leader| (leader, Election::Emptied)),
            (false, true) => first_of(&whole).map(|leader| (leader, Election::Unclean)),
            (false, false) => None,
        };
        clean.or_else(others)
    }

    /// The new state; `None`: it is the one that was read.
    pub fn finish(mut self) -> Option<PartitionState> {
        let Transition { before, terms, .. } = self;
        let size = count(&self.isr);
        if size >= terms.min_isr {
            self.elr.clear();
        }
        let elr_min = if self.elr.is_empty() {
            0
        } else if self.isr == before.isr && self.elr == before.elr {
            before.elr_min
        } else if before.elr_min > size {
            // The ISR is below both; the smaller one is reached sooner.
            before.elr_min.min(terms.min_isr)
        } else {
            terms.min_isr
        };
        // The partition stays as it is once no epoch is left.
        let raise = i32::from(self.leader != before.leader || self.fences);
        let leader_epoch = LeaderEpoch(before.leader_epoch.0.checked_add(raise)?);
        let last_leader = self.last_leader();
        let is_same = self.leader.is_some() && self.leader == before.leader;
        let leader_broker_epoch = self.renewed.or(before.leader_broker_epoch).filter(|_| is_same);
        let after = PartitionState {
            leader: self.leader,
            leader_epoch,
            controller_epoch: before.controller_epoch,
            isr: self.isr,
            elr: self.elr,
            elr_min,
            last_leader,
            emptied: self.emptied,
            leader_broker_epoch,
        };
        debug_assert_eq!(check(&after, terms.replicas), Ok(()), "from {before:?} by {terms:?} to {after:?}");
        (after != *before).then_some(PartitionState { controller_epoch: terms.controller_epoch, ..after })
    }
}

fn count(brokers: &[BrokerId]) -> i32 {
    i32::try_from(brokers.len()).unwrap_or(i32::MAX)
}

#[cfg(test)]
#[path = "transition_tests.rs"]
mod tests;
