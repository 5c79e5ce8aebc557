//! Brokers whose process may be dead: the controller watches all others, and they watch the
//! controller, by a connection that stays open. One that breaks, and is refused three times
//! at once, is a process that is gone: no pause, load or lost packet does that. The session
//! need not be waited for then.

use std::collections::BTreeMap;

use super::{Node, Purpose};
use crate::cluster::rules::{self, Suspect};
use crate::cluster::store::Store;
use crate::model::BrokerId;

/// Suspicions by broker, each with the broker epoch of the registration that it is about.
#[derive(Debug, Default)]
pub(super) struct Suspects(BTreeMap<BrokerId, (i64, Suspect)>);

impl<S: Store> Node<S> {
    /// The broker epoch of a broker that this one holds a connection to; `None`: it holds none.
    pub fn watches(&self, broker: BrokerId) -> Option<i64> {
        let is_controller = || self.view.controller().is_some_and(|controller| controller.value == broker);
        let wanted = self.is_active() && broker != self.me() && (self.holds_office() || is_controller());
        let registration = self.view.registrations().get(&broker).filter(|_| wanted)?;
        Some(registration.broker_epoch)
    }

    /// Brokers that this one holds a connection to.
    pub fn watched(&self) -> Vec<BrokerId> {
        self.view.registrations().keys().copied().filter(|broker| self.watches(*broker).is_some()).collect()
    }

    /// A connection to a watched broker stands.
    pub fn connected(&mut self, broker: BrokerId) {
        if let Some(suspect) = self.suspect(broker) {
            suspect.connected();
        }
    }

    /// The connection to it has broken.
    pub fn disconnected(&mut self, broker: BrokerId) {
        if let Some(suspect) = self.suspect(broker) {
            suspect.broke();
        }
    }

    /// A new connection was refused by its host. True: the broker counts as dead, and the commit
    /// that deletes its registration is on its way.
    pub fn refused(&mut self, broker: BrokerId, now_ms: i64) -> bool {
        let is_dead = self.suspect(broker).is_some_and(|suspect| suspect.refused(now_ms));
        match rules::evict(&self.view, self.me(), broker).filter(|_| is_dead) {
            Some(commit) => {
                self.commit(commit, Purpose::Evict);
                true
            }
            None => false,
        }
    }

    fn suspect(&mut self, broker: BrokerId) -> Option<&mut Suspect> {
        let epoch = self.watches(broker)?;
        let (of, suspect) = self.suspects.0.entry(broker).or_default();
        if *of != epoch {
            // Another process: nothing of it has broken.
            *of = epoch;
            suspect.connected();
        }
        Some(suspect)
    }
}
