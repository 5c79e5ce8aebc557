//! Contact of brokers with each other: the connections by which brokers watch each other's
//! processes, as hosts and networks let them stand, and how long a leader has heard of nobody.

use std::collections::BTreeMap;

use super::checker::Mark;
use super::setup::SESSION_MS;
use super::world::World;
use crate::model::BrokerId;

/// Refused connections that prove a process dead, and the time in which they have to be.
const REFUSALS: usize = 3;
const REFUSALS_WITHIN_MS: i64 = 300;
/// A broker knows what it has not heard of this much later: its ticks, and those of the
/// connection to the store.
const NOTICES_MS: i64 = 400;

/// What became of a try to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tried {
    /// To the process of this life.
    Open(u32),
    Refused,
    /// Says nothing of the process.
    Other,
}

#[derive(Debug, Default)]
pub struct Contacts {
    /// Connections by which the first watches the second: life of the process that it leads to.
    watched: BTreeMap<(usize, usize), u32>,
    refusals: BTreeMap<(usize, usize), Vec<i64>>,
    /// By broker: its process refuses connections of others until then.
    pub deaf_until: BTreeMap<usize, i64>,
    /// By broker: the last time that it was connected to the store.
    linked: BTreeMap<usize, i64>,
    /// By leader, partition and replica: the replica's last fetch.
    fetched: BTreeMap<(usize, usize, usize), i64>,
    /// By broker: it stood still until then.
    woken: BTreeMap<usize, i64>,
}

impl Contacts {
    pub fn linked(&mut self, broker: usize, now: i64) {
        self.linked.insert(broker, now);
    }

    pub fn fetched(&mut self, leader: usize, partition: usize, replica: usize, now: i64) {
        self.fetched.insert((leader, partition, replica), now);
    }

    /// The process begins, or goes on after it stood still.
    pub fn woken(&mut self, broker: usize, now: i64) {
        self.woken.insert(broker, now);
    }

    /// For longer than a session lasts the leader has heard of neither the store nor a replica,
    /// and could have noticed it.
    pub fn is_apart(&self, leader: usize, partition: usize, now: i64) -> bool {
        let before = |at: Option<&i64>, ms: i64| at.is_none_or(|at| now - at > ms);
        let silent = SESSION_MS + NOTICES_MS;
        let of_leader = (leader, partition, 0)..=(leader, partition, usize::MAX);
        before(self.linked.get(&leader), silent)
            && before(self.woken.get(&leader), silent)
            && self.fetched.range(of_leader).all(|(_, at)| before(Some(at), silent))
    }
}

impl World {
    /// Watches those that the broker's node names, as the broker's sockets would.
    pub fn watch(&mut self, at: usize) {
        let watched = self.brokers[at].node.watched();
        self.contacts.watched.retain(|(from, to), _| *from != at || watched.contains(&BrokerId(*to as i32)));
        for broker in watched {
            let to = broker.0 as usize;
            let tried = self.tries(at, to);
            match (self.contacts.watched.get(&(at, to)).copied(), tried) {
                (Some(life), Tried::Open(now)) if life == now => {}
                // Nothing tells that a host has gone, until it is back.
                (Some(_), Tried::Other) if !self.io.rng.chance(3) => {}
                (Some(_), _) => {
                    self.contacts.watched.remove(&(at, to));
                    self.brokers[at].node.disconnected(broker);
                }
                (None, Tried::Open(life)) => {
                    self.contacts.watched.insert((at, to), life);
                    self.brokers[at].node.connected(broker);
                }
                (None, Tried::Refused) => self.refused(at, broker),
                (None, Tried::Other) => {}
            }
        }
    }

    fn tries(&self, from: usize, to: usize) -> Tried {
        let now = self.io.now;
        let is_cut = |way| self.cuts.get(&way).is_some_and(|until| now < *until);
        let of = &self.brokers[to];
        let is_deaf = self.contacts.deaf_until.get(&to).is_some_and(|until| now < *until);
        match of.running {
            _ if is_cut((from, to)) || is_cut((to, from)) || !of.powered => Tried::Other,
            true if !is_deaf => Tried::Open(of.life),
            _ => Tried::Refused,
        }
    }

    fn refused(&mut self, at: usize, broker: BrokerId) {
        let (now, to) = (self.io.now, broker.0 as usize);
        let refusals = self.contacts.refusals.entry((at, to)).or_default();
        refusals.push(now);
        refusals.retain(|refused| now - refused <= REFUSALS_WITHIN_MS);
        let count = refusals.len();
        if !self.brokers[at].node.refused(broker, now) {
            return;
        }
        self.io.note(|| format!("broker {at}: the process of broker {to} is gone"));
        self.io.checker.mark(if self.brokers[to].running { Mark::EvictedAlive } else { Mark::Evicted });
        if count < REFUSALS {
            self.io
                .checker
                .broken("a broker is evicted too soon", format!("broker {to} by {at}, refused {count} times"));
        }
    }
}
