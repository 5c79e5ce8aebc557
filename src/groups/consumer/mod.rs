//! The protocol of KIP-848: the coordinator assigns.
//!
//! Members say by heartbeats what they subscribe to and what they have; the replies say what they
//! are to have. A change of members, subscriptions or topics moves the *group epoch* on; the next
//! heartbeat computes a *target* for that epoch; each member then goes from what it has to its
//! target, at its own pace, and takes the epoch when it gave up what is not its own any more.
//! Reading order: [`group`] (the state and its records), `heartbeat`, `step`, `reconcile`,
//! `assignor`, `entry` (what the coordinator calls).

mod assignor;
mod classic_member;
mod describe;
mod embedded;
mod entry;
mod group;
mod heartbeat;
mod member;
mod migrate;
mod offsets;
mod reconcile;
mod refusal;
mod regex;
mod step;
mod target;
mod timer;

#[cfg(test)]
mod fakes;
#[cfg(test)]
mod migration_tests;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

pub use group::ConsumerGroup;
pub use timer::ConsumerTimer;
