//! One step of a member from what it has towards what it is to have.
//!
//! A partition that goes to another member is first revoked, and the member says that it let go of
//! it; only then does the member move to the new epoch. One that comes from another member is given
//! once that one has let go of it. So no partition is two members' at a time.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::member::MemberState;
use crate::groups::record::{CurrentValue, OwnedPartitions, Partitions};

/// Inputs of a step.
pub(super) struct Towards<'a> {
    pub epoch: i32,
    pub target: &'a Partitions,
    /// The member changed what it subscribes to just now.
    pub subscription_changed: bool,
    /// Partitions that the member says it has; `None`: nothing about it.
    pub owned: Option<&'a [(Uuid, Vec<i32>)]>,
    pub is_subscribed: &'a dyn Fn(Uuid) -> bool,
    /// True if a partition is some member's.
    pub is_held: &'a dyn Fn(Uuid, i32) -> bool,
}

impl Towards<'_> {
    /// The member's next standing, or its present one where it must wait.
    pub(super) fn step(&self, current: &CurrentValue) -> CurrentValue {
        match MemberState::of(current.state) {
            MemberState::Stable if current.epoch != self.epoch => self.reconcile(current, current.epoch),
            MemberState::Stable if self.subscription_changed => self.drop_unsubscribed(current),
            MemberState::Stable => current.clone(),
            MemberState::UnrevokedPartitions if !self.still_has(&current.revoking) => {
                self.reconcile(current, current.epoch)
            }
            MemberState::UnrevokedPartitions if self.subscription_changed => self.drop_unsubscribed(current),
            MemberState::UnrevokedPartitions => current.clone(),
            MemberState::UnreleasedPartitions => self.reconcile(current, current.epoch),
            MemberState::Unknown => self.reconcile(current, self.epoch),
        }
    }

    /// A member that does not say what it has is taken to have it still.
    fn still_has(&self, revoked: &OwnedPartitions) -> bool {
        let Some(owned) = self.owned else { return true };
        owned.iter().any(|(topic, partitions)| {
            let revoked = revoked.get(topic);
            partitions.iter().any(|partition| revoked.is_some_and(|revoked| revoked.contains_key(partition)))
        })
    }

    /// Revokes what the member no longer subscribes to, without waiting for a new target.
    fn drop_unsubscribed(&self, current: &CurrentValue) -> CurrentValue {
        let (assigned, dropped): (OwnedPartitions, OwnedPartitions) =
            current.assigned.clone().into_iter().partition(|(topic, _)| (self.is_subscribed)(*topic));
        if dropped.is_empty() {
            return current.clone();
        }
        let mut revoking = current.revoking.clone();
        for (topic, partitions) in dropped {
            revoking.entry(topic).or_default().extend(partitions);
        }
        let previous_epoch = current.epoch;
        if self.still_has(&revoking) {
            let state = MemberState::UnrevokedPartitions.number();
            CurrentValue { previous_epoch, state, assigned, revoking, ..current.clone() }
        } else {
            CurrentValue { previous_epoch, assigned, ..current.clone() }
        }
    }

    fn reconcile(&self, current: &CurrentValue, epoch: i32) -> CurrentValue {
        let mut assigned = OwnedPartitions::new();
        let mut revoking = OwnedPartitions::new();
        let mut coming = Vec::new();
        let mut waits = false;
        let none = BTreeSet::new();
        let topics: BTreeSet<Uuid> = self.target.keys().chain(current.assigned.keys()).copied().collect();
        for topic in topics {
            let target = self.target.get(&topic).filter(|_| (self.is_subscribed)(topic)).unwrap_or(&none);
            let has = current.assigned.get(&topic);
            for (partition, given) in has.into_iter().flatten() {
                let into = if target.contains(partition) { &mut assigned } else { &mut revoking };
                into.entry(topic).or_default().insert(*partition, *given);
            }
            for partition in target.iter().filter(|partition| !has.is_some_and(|has| has.contains_key(partition))) {
                // Partitions that the member itself was letting go of belong to no other.
                let own = current.revoking.get(&topic).is_some_and(|own| own.contains_key(partition));
                if (self.is_held)(topic, *partition) && !own {
                    waits = true;
                } else {
                    coming.push((topic, *partition));
                }
            }
        }
        let previous_epoch = current.epoch;
        if !revoking.is_empty() && self.still_has(&revoking) {
            let state = MemberState::UnrevokedPartitions.number();
            return CurrentValue { epoch, previous_epoch, state, assigned, revoking };
        }
        for (topic, partition) in coming {
            assigned.entry(topic).or_default().insert(partition, self.epoch);
        }
        let state = if waits { MemberState::UnreleasedPartitions } else { MemberState::Stable }.number();
        CurrentValue { epoch: self.epoch, previous_epoch, state, assigned, revoking: OwnedPartitions::new() }
    }
}
