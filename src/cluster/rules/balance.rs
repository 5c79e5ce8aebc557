//! A plan that gives all brokers their share of replicas and of preferred leaderships, with as few
//! replicas moved as may be. It is carried out by reassignments (KIP-455).

use std::collections::{BTreeMap, BTreeSet};

use super::view::{PartitionKey, View};
use crate::model::BrokerId;

/// A partition whose replicas are to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebalanced {
    pub partition: PartitionKey,
    pub before: Vec<BrokerId>,
    /// The first is preferred.
    pub after: Vec<BrokerId>,
}

/// The plan for the active brokers of a view. Partitions with a reassignment under way count, and
/// stay.
pub fn balance(view: &View) -> Vec<Rebalanced> {
    let active = view.registrations().iter().filter(|(broker, _)| view.is_active(**broker));
    let racks: BTreeMap<BrokerId, Option<String>> =
        active.map(|(broker, registration)| (*broker, registration.record.rack.clone())).collect();
    let mut balancing = Balancing::new(racks);
    for (name, _, index, assignment) in view.partitions() {
        let is_fixed = super::is_under_way(assignment);
        balancing.add((name.clone(), index), &assignment.replicas, is_fixed);
    }
    balancing.spread_replicas();
    balancing.spread_leaders();
    balancing.result()
}

struct Placed {
    key: PartitionKey,
    before: Vec<BrokerId>,
    now: Vec<BrokerId>,
    is_fixed: bool,
}

/// Replicas stay with brokers that are not active: those may come back.
struct Balancing {
    racks: BTreeMap<BrokerId, Option<String>>,
    partitions: Vec<Placed>,
    /// Places in `partitions` by active broker.
    held: BTreeMap<BrokerId, BTreeSet<usize>>,
    /// Partitions that prefer an active broker.
    led: BTreeMap<BrokerId, usize>,
}

impl Balancing {
    fn new(racks: BTreeMap<BrokerId, Option<String>>) -> Balancing {
        let held = racks.keys().map(|broker| (*broker, BTreeSet::new())).collect();
        let led = racks.keys().map(|broker| (*broker, 0)).collect();
        Balancing { racks, partitions: Vec::new(), held, led }
    }

    fn add(&mut self, key: PartitionKey, replicas: &[BrokerId], is_fixed: bool) {
        let place = self.partitions.len();
        for broker in replicas {
            self.held.entry(*broker).and_modify(|held| _ = held.insert(place));
        }
        self.count_leader(replicas, 1);
        self.partitions.push(Placed { key, before: replicas.to_vec(), now: replicas.to_vec(), is_fixed });
    }

    fn count_leader(&mut self, replicas: &[BrokerId], by: isize) {
        if let Some(led) = replicas.first().and_then(|leader| self.led.get_mut(leader)) {
            *led = led.saturating_add_signed(by);
        }
    }

    /// One replica at a time goes from who holds more to who holds fewer, for as long as somebody
    /// holds two more than another: each move is needed, so there are no more than have to be.
    fn spread_replicas(&mut self) {
        while let Some((place, from, to)) = self.next_move() {
            let now = self.partitions[place].now.clone();
            self.count_leader(&now, -1);
            let now: Vec<_> = now.into_iter().map(|broker| if broker == from { to } else { broker }).collect();
            self.count_leader(&now, 1);
            self.partitions[place].now = now;
            self.held.entry(from).and_modify(|held| _ = held.remove(&place));
            self.held.entry(to).and_modify(|held| _ = held.insert(place));
        }
    }

    fn next_move(&self) -> Option<(usize, BrokerId, BrokerId)> {
        let mut by_load: Vec<(usize, BrokerId)> =
            self.held.iter().map(|(broker, held)| (held.len(), *broker)).collect();
        by_load.sort();
        for (most, from) in by_load.iter().rev() {
            for (least, to) in by_load.iter().take_while(|(least, _)| least + 1 < *most) {
                debug_assert!(least < most);
                // Leaderships go along where that evens them out too.
                let leads_more = self.led[from] > self.led[to];
                let may = |place: &&usize| self.may_move(&self.partitions[**place], *from, *to);
                let candidates = || self.held[from].iter().filter(may);
                let fits = |place: &&usize| (self.partitions[**place].now.first() == Some(from)) == leads_more;
                if let Some(place) = candidates().find(fits).or_else(|| candidates().next()) {
                    return Some((*place, *from, *to));
                }
            }
        }
        None
    }

    fn may_move(&self, partition: &Placed, from: BrokerId, to: BrokerId) -> bool {
        let others = || partition.now.iter().filter(move |broker| **broker != from);
        let racks =
            |broker: BrokerId| others().copied().chain([broker]).map(|b| self.racks.get(&b)).collect::<BTreeSet<_>>();
        !partition.is_fixed && !partition.now.contains(&to) && racks(to).len() >= racks(from).len()
    }

    /// Another replica becomes the preferred one where its broker is that of fewer; no data moves.
    fn spread_leaders(&mut self) {
        loop {
            let swap = self.partitions.iter().enumerate().find_map(|(place, partition)| {
                let led = self.led.get(partition.now.first()?).filter(|_| !partition.is_fixed)?;
                let others = partition.now.iter().enumerate().skip(1);
                let (least, at) = others.filter_map(|(at, broker)| Some((self.led.get(broker)?, at))).min()?;
                (least + 1 < *led).then_some((place, at))
            });
            let Some((place, at)) = swap else { return };
            let now = self.partitions[place].now.clone();
            self.count_leader(&now, -1);
            self.partitions[place].now.swap(0, at);
            let now = self.partitions[place].now.clone();
            self.count_leader(&now, 1);
        }
    }

    fn result(self) -> Vec<Rebalanced> {
        let changed = self.partitions.into_iter().filter(|partition| partition.before != partition.now);
        changed.map(|Placed { key, before, now, .. }| Rebalanced { partition: key, before, after: now }).collect()
    }
}

#[cfg(test)]
#[path = "balance_tests.rs"]
mod tests;
