//! Word of a broker on the replicas whose records it has lost with a data directory. Given before
//! it registers: nobody elects it then for what it had.

use std::collections::BTreeMap;

use super::registration::Start;
use super::transition;
use super::view::{PartitionKey, View};
use crate::cluster::store::{Check, Commit, Key, PartitionState, Record, Write};
use crate::model::planted::{Planted, planted};
use crate::model::{BrokerId, PartitionId};

/// States that are changed in one commit.
const TOGETHER: usize = 64;

/// Replicas as a start has found them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Directories of replicas that are counted on were not there.
    pub misses: bool,
    /// A data directory is out of reach: what is in it may come back.
    pub partial: bool,
    /// Of others nothing is known.
    pub replicas: BTreeMap<PartitionId, Kept>,
}

/// Records of a replica, as a start has found them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    Some,
    /// An empty log, which may have been so before.
    None,
    /// An empty log that had some: they are damaged.
    Lost,
}

/// Changes by which a broker says that it has lost records, or has them again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confession {
    pub commits: Vec<Commit>,
    /// Partitions without a replica in sync, which wait for another replica.
    pub waiting: Vec<PartitionKey>,
}

/// Changes to be made before `me` registers. Each is bound to the registration that it has now, if
/// any, and to its last incarnation.
///
/// A replica without records has lost them if a data directory of that incarnation is gone. One
/// that is alone is not spoken of: there is nobody to wait for.
pub fn confess(view: &View, me: BrokerId, start: &Start, found: &Found) -> Confession {
    let mut confession = Confession::default();
    let Some(before) = view.incarnation(me).filter(|_| !planted(Planted::EmptiedIsElected)) else { return confession };
    let (old, new) = (&before.value.directories, &start.directories);
    let lost = found.misses || !found.partial && !old.is_subset(new);
    let regained = !new.is_subset(old);
    let damaged = found.replicas.values().any(|kept| *kept == Kept::Lost);
    if !lost && !regained && !damaged {
        return confession;
    }
    let mut writes = Vec::new();
    for (key, version, state, after) in changes(view, me, found, (lost, regained)) {
        if after.isr.is_empty() && after.elr.is_empty() && state.emptied != after.emptied {
            let waits = after.emptied.contains(&me).then(|| key.clone());
            confession.waiting.extend(waits);
        }
        writes.push(Write::Set(Key::Partition(key.0, key.1), Record::Partition(after), version));
    }
    let registration = match view.registrations().get(&me) {
        Some(registration) => Check::Version(Key::Broker(me), registration.version),
        None => Check::Absent(Key::Broker(me)),
    };
    let checks = vec![registration, Check::Version(Key::Incarnation(me), before.version)];
    let commit = |writes: &[Write]| Commit { checks: checks.clone(), writes: writes.to_vec() };
    confession.commits = writes.chunks(TOGETHER).map(commit).collect();
    confession
}

type Changed<'a> = (PartitionKey, i32, &'a PartitionState, PartitionState);

fn changes<'a>(
    view: &'a View,
    me: BrokerId,
    found: &'a Found,
    (lost, regained): (bool, bool),
) -> impl Iterator<Item = Changed<'a>> {
    view.partitions_of(me).filter_map(move |key| {
        let topic = view.topic(&key.0).filter(|topic| topic.is_kept())?;
        let (record, assignment, state) = (topic.record.as_ref()?, topic.assignment(key.1)?, topic.states.get(&key.1)?);
        let kept = *found.replicas.get(&PartitionId::new(record.value.id, key.1))?;
        let terms = view.terms(topic, assignment);
        let others = assignment.replicas.iter().any(|replica| *replica != me);
        let after = match kept {
            Kept::Some if regained => transition::refilled(&state.value, &terms, me)?,
            Kept::None if lost && others => transition::emptied(&state.value, &terms, me)?,
            Kept::Lost if others => transition::emptied(&state.value, &terms, me)?,
            _ => return None,
        };
        Some((key.clone(), state.version, &state.value, after))
    })
}

#[cfg(test)]
#[path = "confession_tests.rs"]
mod tests;
