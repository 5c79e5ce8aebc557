//! Commits of a broker's way into the cluster and out of it: registration, activation, a controlled
//! stop, eviction, and the controller's office.
//!
//! A broker leads, follows and counts only while it is active in its present incarnation; each
//! registration begins a new one. The controller lets it in once it leads nothing by an earlier
//! one, so no leader epoch gets two histories, and, if its logs may have lost records, once it is
//! in no ISR and no ELR. All of that is committed before it is active.

use std::collections::BTreeSet;

use thiserror::Error;
use uuid::Uuid;

use super::view::View;
use crate::cluster::DirectoryId;
use crate::cluster::store::{
    BrokerRecord, Check, Commit, Incarnation, Key, Lifetime, PartitionState, Phase, Record, Write,
};
use crate::model::BrokerId;
use crate::model::planted::{Planted, planted};

/// Refused connections that prove a process dead, and the time in which they have to be.
pub const REFUSALS: usize = 3;
pub const REFUSALS_WITHIN_MS: i64 = 300;
const BETWEEN_EVICTIONS_MS: i64 = 60_000;

/// A start of a broker, as it finds its host and its directories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The last run closed its logs.
    pub clean_stop: bool,
    /// Boot of the host.
    pub boot: Uuid,
    pub directories: BTreeSet<DirectoryId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RegisterError {
    #[error(
        "broker.id {0} is taken: a live broker with other data directories is registered by it. Stop that one, or give this \
         one another broker.id"
    )]
    Taken(BrokerId),
    #[error(
        "this broker is of cluster {own}, and ZooKeeper now has {}: its data was lost or replaced while this broker ran. Nothing \
         on this broker's disks was changed. Restore ZooKeeper's data, or see that zookeeper.connect leads to the right \
         servers, and start the broker again",
        .found.as_ref().map_or("no cluster's metadata".to_owned(), |found| format!("cluster {found}"))
    )]
    OtherCluster { own: String, found: Option<String> },
}

/// True if the logs have all that they had when the broker last took part. What a direct write
/// completed, or what stood in an arena, outlives a killed process, but not a boot. Flushing each
/// message does not count: topics have settings of their own, and those of this run say nothing of
/// what the last one left to a power cut.
///
/// Never with other directories than before. And never after an incarnation that was not trusted
/// and not let in either: it may still be in an ISR, and by now the boot is the same.
pub fn is_trusted(before: Option<&Incarnation>, start: &Start) -> bool {
    let Some(before) = before else { return false };
    let was_let_in = before.trusted || before.phase != Phase::Joining;
    let keeps = start.clean_stop || before.boot == start.boot;
    was_let_in && keeps && before.directories == start.directories
}

/// Registers `me` as joining. An older registration from one of our directories is dead, as the
/// lock on the directory proves: it goes in the same commit, and with it the office that it may
/// have held.
pub fn register(view: &View, me: BrokerId, record: BrokerRecord, start: &Start) -> Result<Commit, RegisterError> {
    let before = view.incarnation(me);
    let incarnation = Incarnation {
        phase: Phase::Joining,
        trusted: is_trusted(before.map(|before| &before.value), start),
        boot: start.boot,
        directories: start.directories.clone(),
    };
    let mut writes = Vec::new();
    if let Some(old) = view.registrations().get(&me) {
        let ours = before.is_some_and(|before| !before.value.directories.is_disjoint(&start.directories));
        if !ours {
            return Err(RegisterError::Taken(me));
        }
        writes.push(Write::Delete(Key::Broker(me), Some(old.version)));
        writes.extend(leave_office(view, me));
    }
    let key = Key::Incarnation(me);
    // Its version tells incarnations apart, also where nothing else in it changes.
    writes.push(match before {
        Some(before) => Write::Set(key, Record::Incarnation(incarnation), before.version),
        None => Write::Create(key, Record::Incarnation(incarnation), Lifetime::Persistent),
    });
    writes.push(Write::Create(Key::Broker(me), Record::Broker(record), Lifetime::Ephemeral));
    Ok(Commit { checks: Vec::new(), writes })
}

/// Lets a joining broker in, once nothing stands against it. The controller adds the check of its
/// epoch.
pub fn activation(view: &View, broker: BrokerId) -> Option<Commit> {
    let before = view.incarnation(broker).filter(|before| before.value.phase == Phase::Joining)?;
    let keeps_sets = before.value.trusted || planted(Planted::UntrustedStaysInIsr);
    let broker_epoch = view.registrations().get(&broker)?.broker_epoch;
    let stands_against = |state: &PartitionState| {
        let leads = leads_of_old(state, broker, broker_epoch) && !planted(Planted::ActiveBeforeEpoch);
        leads || !keeps_sets && (state.isr.contains(&broker) || state.elr.contains(&broker))
    };
    let early = planted(Planted::ActiveBeforeEpoch) || planted(Planted::UntrustedStaysInIsr);
    if !early && states_of(view, broker).any(stands_against) {
        return None;
    }
    set_phase(view, broker, Phase::Active)
}

/// The broker leads in an epoch that an earlier registration than this one may have led in.
pub fn leads_of_old(state: &PartitionState, broker: BrokerId, broker_epoch: i64) -> bool {
    let is_renewed = match state.leader_broker_epoch {
        Some(_) if planted(Planted::RenewedOnce) => true,
        renewed => renewed == Some(broker_epoch),
    };
    state.leader == Some(broker) && !is_renewed
}

/// A controlled stop begins: `me` gives its leaderships away. One that was not let in has none, and
/// stops at once.
pub fn drain(view: &View, me: BrokerId) -> Option<Commit> {
    if view.is_active(me) { set_phase(view, me, Phase::Draining) } else { None }
}

/// A controlled stop may close the broker: it leads nothing, or nobody is left
/// who could lead instead.
pub fn leads_nothing(view: &View, broker: BrokerId) -> bool {
    view.all_leave() || states_of(view, broker).all(|state| state.leader != Some(broker))
}

/// Takes the controller's office and raises its epoch. `None`: it is taken, or `me` is not
/// registered. After the last epoch comes the first: commits are fenced by the version of its node,
/// and no broker compares epochs.
pub fn become_controller(view: &View, me: BrokerId) -> Option<Commit> {
    if view.controller().is_some() || !view.registrations().contains_key(&me) {
        return None;
    }
    let epoch = match view.controller_epoch() {
        Some(epoch) => {
            let next = epoch.value.checked_add(1).unwrap_or(1);
            Write::Set(Key::ControllerEpoch, Record::ControllerEpoch(next), epoch.version)
        }
        None => Write::Create(Key::ControllerEpoch, Record::ControllerEpoch(1), Lifetime::Persistent),
    };
    let office = Write::Create(Key::Controller, Record::Controller(me), Lifetime::Ephemeral);
    Some(Commit { checks: vec![Check::Exists(Key::Broker(me))], writes: vec![office, epoch] })
}

/// Deletes the registration of a broker whose process is dead: the controller anybody's, and
/// anybody the controller's, with the office. Fenced by the controller's epoch and by the
/// incarnation that was found dead.
pub fn evict(view: &View, me: BrokerId, dead: BrokerId) -> Option<Commit> {
    let controller = view.controller()?.value;
    let registration = view.registrations().get(&dead)?;
    let incarnation = view.incarnation(dead)?;
    let may = dead != me && (controller == me || controller == dead) && view.registrations().contains_key(&me);
    if !may {
        return None;
    }
    let checks = vec![
        Check::Version(Key::ControllerEpoch, view.controller_epoch()?.version),
        Check::Version(Key::Incarnation(dead), incarnation.version),
        Check::Exists(Key::Broker(me)),
    ];
    let mut writes = vec![Write::Delete(Key::Broker(dead), Some(registration.version))];
    writes.extend(leave_office(view, dead));
    Some(Commit { checks, writes })
}

/// Suspicion that one broker's process is dead.
#[derive(Clone, Debug, Default)]
pub struct Suspect {
    is_broken: bool,
    refused_ms: Vec<i64>,
    evicted_ms: Option<i64>,
}

impl Suspect {
    /// A connection stands.
    pub fn connected(&mut self) {
        self.is_broken = false;
        self.refused_ms.clear();
    }

    /// The connection broke.
    pub fn broke(&mut self) {
        self.is_broken = true;
        self.refused_ms.clear();
    }

    /// A new connection was refused: nobody listens. True: evict the broker now.
    pub fn refused(&mut self, now_ms: i64) -> bool {
        self.refused_ms.retain(|at| now_ms.saturating_sub(*at) <= REFUSALS_WITHIN_MS);
        self.refused_ms.push(now_ms);
        let lately = self.evicted_ms.is_some_and(|at| now_ms.saturating_sub(at) < BETWEEN_EVICTIONS_MS);
        let enough = self.refused_ms.len() >= REFUSALS || planted(Planted::EvictsAtFirstRefusal);
        let is_dead = self.is_broken && enough && !lately;
        if is_dead {
            self.refused_ms.clear();
            self.evicted_ms = Some(now_ms);
        }
        is_dead
    }
}

/// States of partitions that are assigned, and name the broker.
fn states_of(view: &View, broker: BrokerId) -> impl Iterator<Item = &PartitionState> {
    view.partitions_of(broker).filter_map(|(name, index)| {
        let topic = view.topic(name)?;
        let counts = topic.is_damaged() || topic.assignment(*index).is_some();
        topic.states.get(index).filter(|_| counts).map(|state| &state.value)
    })
}

fn set_phase(view: &View, broker: BrokerId, phase: Phase) -> Option<Commit> {
    let before = view.incarnation(broker)?;
    let after = Record::Incarnation(Incarnation { phase, ..before.value.clone() });
    let writes = vec![Write::Set(Key::Incarnation(broker), after, before.version)];
    Some(Commit { checks: vec![Check::Exists(Key::Broker(broker))], writes })
}

fn leave_office(view: &View, broker: BrokerId) -> Option<Write> {
    let controller = view.controller().filter(|controller| controller.value == broker)?;
    Some(Write::Delete(Key::Controller, Some(controller.version)))
}

#[cfg(test)]
#[path = "registration_tests.rs"]
mod tests;
