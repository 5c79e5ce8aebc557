//! Registration, a clean stop, and the controller's duty of a simulated broker.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::broker::{Broker, Purpose};
use super::disk::Acknowledge;
use super::net::Io;
use crate::cluster::rules::{self, Start};
use crate::cluster::store::{BrokerRecord, Commit, CommitId, Outcome};
use crate::cluster::{DirectoryId, EndpointImage};

/// Time between two attempts to register, ms.
const AGAIN_MS: i64 = 300;

impl Broker {
    /// Registers where it is not registered.
    pub fn register(&mut self, io: &mut Io) {
        let waits = self.registered.is_some() || self.is_waiting_for(Purpose::Register);
        if waits || !self.mirror.is_whole() || io.now < self.ask_at || self.stopping.is_some() {
            return;
        }
        self.ask_at = io.now + AGAIN_MS;
        self.registrations += 1;
        self.asked = self.registrations;
        let endpoint = EndpointImage { listener: "A".to_owned(), host: "b".to_owned(), port: self.asked };
        let record = BrokerRecord { endpoints: vec![endpoint], rack: None };
        match rules::register(&self.view, self.id(), record, &self.start_of()) {
            Ok(commit) => {
                io.note(|| format!("broker {}: registers as {}", self.index, self.asked));
                self.commit(commit, Purpose::Register);
            }
            Err(why) => io.note(|| format!("broker {}: {why}", self.index)),
        }
    }

    fn start_of(&self) -> Start {
        let directory = u128::from(self.directory) << 64 | (1000 + self.index as u128);
        Start {
            clean_stop: self.clean,
            boot: Uuid::from_u128(u128::from(self.boot) << 64 | self.index as u128),
            flushes_each_message: self.acknowledge == Acknowledge::Synced,
            directories: BTreeSet::from([DirectoryId(Uuid::from_u128(directory))]),
        }
    }

    /// Becomes controller where there is none, and does what is due where it is.
    pub fn control(&mut self, io: &mut Io) {
        if self.registered.is_none() || !self.mirror.is_whole() {
            return;
        }
        let claims = !self.is_waiting_for(Purpose::Claim);
        if let Some(commit) = rules::become_controller(&self.view, self.id()).filter(|_| claims) {
            self.commit(commit, Purpose::Claim);
        }
        if self.is_waiting_for(Purpose::Control) {
            return;
        }
        let (moment, _) = self.timers.tick(io.now);
        let plan = rules::reconcile(&self.view, self.id(), moment, &self.options);
        for risky in &plan.risky {
            io.note(|| format!("broker {}: {risky:?}", self.index));
        }
        for batch in plan.batches() {
            let id = self.commit(batch.commit, Purpose::Control);
            if batch.singles.len() > 1 {
                self.singles.insert(id, batch.singles);
            }
        }
    }

    /// Steps that shared a commit with one that met a conflict are sent again, each for itself.
    pub fn separate(&mut self, id: CommitId, outcome: &Outcome) {
        let singles: Vec<Commit> = self.singles.remove(&id).unwrap_or_default();
        if matches!(outcome, Outcome::Conflict(_)) {
            for commit in singles {
                self.commit(commit, Purpose::Control);
            }
        }
    }

    /// A clean stop begins with the wish to lead nothing.
    pub fn drain(&mut self, io: &mut Io) {
        if self.stopping.is_none() || self.registered.is_none() || self.is_waiting_for(Purpose::Drain) {
            return;
        }
        if let Some(commit) = rules::drain(&self.view, self.id()) {
            io.note(|| format!("broker {}: drains", self.index));
            self.commit(commit, Purpose::Drain);
        }
    }

    /// A clean stop may end the process.
    pub fn may_stop(&self) -> bool {
        !self.view.is_active(self.id()) && rules::leads_nothing(&self.view, self.id())
    }
}
