//! `uniform`: members have as equal numbers of partitions as their subscriptions allow, and keep
//! what they had as far as that allows.

use std::collections::{BTreeSet, HashMap};

use super::Spec;
use crate::groups::record::Partitions;

/// Rounds of evening out in a group of different subscriptions. Each only makes the shares more
/// equal; the bound holds the time where load would have to pass through long chains of topics.
const MAX_ROUNDS: usize = 20;

pub(super) fn assign(spec: &Spec) -> Vec<Partitions> {
    let mut sharing = Sharing::keeping(spec);
    if spec.is_homogeneous() {
        sharing.fill_quotas();
    } else {
        let subscribers = sharing.subscribers();
        sharing.give_unowned(&subscribers);
        for _ in 0..MAX_ROUNDS {
            if !sharing.even_out(&subscribers) {
                break;
            }
        }
    }
    sharing.shares()
}

/// The assignment while it is worked out.
struct Sharing<'a> {
    spec: &'a Spec<'a>,
    /// By topic and partition: the member.
    owners: Vec<Vec<Option<usize>>>,
    /// By member: how many partitions it is to have.
    loads: Vec<usize>,
}

impl<'a> Sharing<'a> {
    /// Everybody keeps what exists and what they still subscribe to.
    fn keeping(spec: &'a Spec) -> Sharing<'a> {
        let indices = spec.indices();
        // A topic without subscribers has nobody to go to.
        let mut owners = vec![Vec::new(); spec.topics.len()];
        for topic in spec.members.iter().flat_map(|member| &member.topics) {
            owners[*topic].resize(usize::try_from(spec.topics[*topic].partitions).unwrap_or(0), None);
        }
        let mut loads = vec![0; spec.members.len()];
        for (index, member) in spec.members.iter().enumerate() {
            for (topic, partitions) in member.target {
                let Some(topic) = indices.get(topic).filter(|topic| member.topics.binary_search(topic).is_ok()) else {
                    continue;
                };
                for partition in partitions {
                    let place =
                        usize::try_from(*partition).ok().and_then(|partition| owners[*topic].get_mut(partition));
                    if let Some(owner @ None) = place {
                        *owner = Some(index);
                        loads[index] += 1;
                    }
                }
            }
        }
        Sharing { spec, owners, loads }
    }

    /// All subscribe to the same: everybody gets the same number, some one more, first of all
    /// those who have more already.
    fn fill_quotas(&mut self) {
        let members = self.loads.len();
        if members == 0 {
            return;
        }
        let total: usize = self.owners.iter().map(Vec::len).sum();
        let (quota, mut extra) = (total / members, total % members);
        let mut room = vec![quota; members];
        for has_more in [true, false] {
            for (room, load) in room.iter_mut().zip(&self.loads) {
                if extra > 0 && *room == quota && (*load > quota) == has_more {
                    *room += 1;
                    extra -= 1;
                }
            }
        }
        for owner in self.owners.iter_mut().flatten() {
            if let Some(member) = *owner {
                match room[member].checked_sub(1) {
                    Some(left) => room[member] = left,
                    None => *owner = None,
                }
            }
        }
        // Dealt around, so that each topic is spread over many.
        let mut dealt = (0..members).cycle();
        for owner in self.owners.iter_mut().flatten().filter(|owner| owner.is_none()) {
            if let Some(member) = dealt.by_ref().take(members).find(|member| room[*member] > 0) {
                room[member] -= 1;
                *owner = Some(member);
            }
        }
    }

    fn subscribers(&self) -> Vec<Vec<usize>> {
        let mut subscribers = vec![Vec::new(); self.spec.topics.len()];
        for (index, member) in self.spec.members.iter().enumerate() {
            for topic in &member.topics {
                subscribers[*topic].push(index);
            }
        }
        subscribers
    }

    /// Gives partitions without an owner to the subscriber with the least, the topics with few
    /// subscribers first: there is less choice.
    fn give_unowned(&mut self, subscribers: &[Vec<usize>]) {
        let mut topics: Vec<usize> = (0..subscribers.len()).collect();
        topics.sort_by_key(|topic| subscribers[*topic].len());
        for topic in topics {
            let mut by_load: BTreeSet<(usize, usize)> =
                subscribers[topic].iter().map(|member| (self.loads[*member], *member)).collect();
            for owner in self.owners[topic].iter_mut().filter(|owner| owner.is_none()) {
                let Some((load, member)) = by_load.pop_first() else { break };
                *owner = Some(member);
                self.loads[member] = load + 1;
                by_load.insert((load + 1, member));
            }
        }
    }

    /// Within each topic, partitions go from who has the most to who has the least of all
    /// partitions while the difference is two or more. Whether anything moved.
    fn even_out(&mut self, subscribers: &[Vec<usize>]) -> bool {
        let mut moved = false;
        for (topic, subscribers) in subscribers.iter().enumerate() {
            let Some(least) = subscribers.iter().map(|member| self.loads[*member]).min() else { continue };
            if self.owners[topic].iter().flatten().any(|owner| self.loads[*owner] > least + 1) {
                moved |= self.even_out_topic(topic, subscribers);
            }
        }
        moved
    }

    fn even_out_topic(&mut self, topic: usize, subscribers: &[usize]) -> bool {
        let by_load = |loads: &[usize], members: &mut dyn Iterator<Item = usize>| -> BTreeSet<(usize, usize)> {
            members.map(|member| (loads[member], member)).collect()
        };
        let mut held: HashMap<usize, Vec<usize>> = HashMap::new();
        for (partition, owner) in self.owners[topic].iter().enumerate() {
            if let Some(owner) = owner {
                held.entry(*owner).or_default().push(partition);
            }
        }
        let mut givers = by_load(&self.loads, &mut held.keys().copied());
        let mut takers = by_load(&self.loads, &mut subscribers.iter().copied());
        let mut moved = false;
        while let (Some((most, from)), Some((least, to))) = (givers.last().copied(), takers.first().copied()) {
            if most < least + 2 {
                break;
            }
            let Some(partition) = held.get_mut(&from).and_then(Vec::pop) else { break };
            held.entry(to).or_default().push(partition);
            self.owners[topic][partition] = Some(to);
            (self.loads[from], self.loads[to]) = (most - 1, least + 1);
            takers.remove(&(most, from));
            takers.insert((most - 1, from));
            takers.remove(&(least, to));
            takers.insert((least + 1, to));
            givers.remove(&(most, from));
            if held.get(&from).is_some_and(|held| !held.is_empty()) {
                givers.insert((most - 1, from));
            }
            givers.remove(&(least, to));
            givers.insert((least + 1, to));
            moved = true;
        }
        moved
    }

    fn shares(&self) -> Vec<Partitions> {
        let mut shares = vec![Partitions::new(); self.loads.len()];
        for (topic, owners) in self.spec.topics.iter().zip(&self.owners) {
            for (partition, owner) in (0..).zip(owners) {
                if let Some(owner) = owner {
                    shares[*owner].entry(topic.id).or_default().insert(partition);
                }
            }
        }
        shares
    }
}
