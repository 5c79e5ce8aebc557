//! Which replicas go where, so that brokers have equally many and lead equally many partitions.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use crate::cli::report::{are, counted};
use crate::cli::topic::Place;

/// A partition and its replicas, the preferred leader first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub topic: String,
    pub partition: i32,
    pub replicas: Vec<i32>,
}

/// A partition whose replicas shall be others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Planned<'a> {
    pub before: &'a Placed,
    pub replicas: Vec<i32>,
}

impl Planned<'_> {
    /// Replicas that are to be copied; without any only their order is another.
    pub fn copies(&self) -> usize {
        self.replicas.iter().filter(|broker| !self.before.replicas.contains(broker)).count()
    }
}

/// The partitions whose replicas shall be others.
///
/// Replicas on brokers that are not among `brokers` go to some that are. Then brokers with more
/// replicas than others give some to those with fewer, one move for each replica too many, and no
/// partition is in fewer racks afterwards. Last the order of replicas changes, which moves nothing,
/// until brokers are preferred leaders equally often.
///
/// `cordoned`: those of `brokers` that take no new replicas. A reassignment to replicas of which
/// one stays there is refused too, so a partition that has one moves away from them or not at all.
pub(super) fn plan<'a>(
    partitions: &'a [Placed],
    brokers: &[Place],
    cordoned: &BTreeSet<i32>,
) -> Result<Vec<Planned<'a>>, String> {
    let mut planning = Planning::new(partitions, brokers, cordoned);
    planning.drain()?;
    planning.even_replicas();
    planning.even_leaders();
    let planned = partitions.iter().zip(planning.replicas).map(|(before, replicas)| Planned { before, replicas });
    Ok(planned.filter(|planned| planned.before.replicas != planned.replicas).collect())
}

struct Planning<'a> {
    partitions: &'a [Placed],
    replicas: Vec<Vec<i32>>,
    racks: BTreeMap<i32, Option<&'a str>>,
    has_racks: bool,
    cordoned: &'a BTreeSet<i32>,
    /// Places in `replicas`, by broker.
    held: BTreeMap<i32, Vec<usize>>,
    /// Replicas of a topic that a broker has.
    of_topic: HashMap<(&'a str, i32), usize>,
}

impl<'a> Planning<'a> {
    fn new(partitions: &'a [Placed], brokers: &'a [Place], cordoned: &'a BTreeSet<i32>) -> Planning<'a> {
        let mut held: BTreeMap<i32, Vec<usize>> = brokers.iter().map(|place| (place.broker, Vec::new())).collect();
        let mut of_topic = HashMap::new();
        for (place, partition) in partitions.iter().enumerate() {
            for broker in &partition.replicas {
                held.entry(*broker).or_default().push(place);
                *of_topic.entry((partition.topic.as_str(), *broker)).or_insert(0) += 1;
            }
        }
        Planning {
            partitions,
            replicas: partitions.iter().map(|partition| partition.replicas.clone()).collect(),
            has_racks: brokers.iter().any(|place| place.rack.is_some()),
            cordoned,
            racks: brokers.iter().map(|place| (place.broker, place.rack.as_deref())).collect(),
            held,
            of_topic,
        }
    }

    fn load(&self, broker: i32) -> usize {
        self.held.get(&broker).map_or(0, Vec::len)
    }

    fn load_of_topic(&self, place: usize, broker: i32) -> usize {
        self.of_topic.get(&(self.partitions[place].topic.as_str(), broker)).copied().unwrap_or(0)
    }

    /// In how many racks the partition would be; a broker without one is a rack of its own.
    fn spread(&self, replicas: impl Iterator<Item = i32>) -> usize {
        let mut racks: Vec<Result<&str, i32>> =
            replicas.map(|broker| self.racks.get(&broker).copied().flatten().ok_or(broker)).collect();
        racks.sort_unstable();
        racks.dedup();
        racks.len()
    }

    fn spread_after(&self, place: usize, from: i32, to: i32) -> usize {
        self.spread(self.replicas[place].iter().map(|broker| if *broker == from { to } else { *broker }))
    }

    fn move_replica(&mut self, place: usize, from: i32, to: i32) {
        let topic = self.partitions[place].topic.as_str();
        self.replicas[place].iter_mut().filter(|broker| **broker == from).for_each(|broker| *broker = to);
        if let Some(held) = self.held.get_mut(&from) {
            held.retain(|held| *held != place);
        }
        self.held.entry(to).or_default().push(place);
        self.of_topic.entry((topic, from)).and_modify(|count| *count = count.saturating_sub(1));
        *self.of_topic.entry((topic, to)).or_insert(0) += 1;
    }

    /// Takes replicas from brokers that shall have none.
    fn drain(&mut self) -> Result<(), String> {
        let leaving: Vec<i32> = self.held.keys().copied().filter(|broker| !self.racks.contains_key(broker)).collect();
        for from in leaving {
            for place in self.held.remove(&from).unwrap_or_default() {
                let may = |broker: &i32| !self.cordoned.contains(broker) && !self.replicas[place].contains(broker);
                let free = self.racks.keys().copied().filter(may);
                let cost = |broker: &i32| {
                    let lost = usize::MAX - self.spread_after(place, from, *broker);
                    (lost, self.load(*broker), self.load_of_topic(place, *broker), *broker)
                };
                let Some(to) = free.min_by_key(cost) else {
                    let Placed { topic, partition, replicas } = &self.partitions[place];
                    let has = self.racks.keys().filter(|id| !self.cordoned.contains(id)).count();
                    let (needs, has) = (counted(replicas.len(), "replica"), are(has, "broker"));
                    return Err(format!("{topic}-{partition} has {needs}, and {has} left for them"));
                };
                self.move_replica(place, from, to);
            }
        }
        Ok(())
    }

    /// One replica at a time from a broker with many to one with few.
    fn even_replicas(&mut self) {
        while let Some((place, from, to)) = self.next_move() {
            self.move_replica(place, from, to);
        }
    }

    fn next_move(&self) -> Option<(usize, i32, i32)> {
        let mut brokers: Vec<i32> = self.racks.keys().copied().collect();
        brokers.sort_by_key(|broker| (self.load(*broker), *broker));
        for from in brokers.iter().rev() {
            let fewer = brokers.iter().take_while(|to| self.load(**to) + 2 <= self.load(*from));
            for to in fewer.filter(|to| !self.cordoned.contains(to)) {
                if let Some(place) = self.best_to_move(*from, *to) {
                    return Some((place, *from, *to));
                }
            }
        }
        None
    }

    /// A replica that moves anyway costs nothing more; then one of a topic of which `from` has many
    /// and `to` few; then one that is not the preferred leader.
    fn best_to_move(&self, from: i32, to: i32) -> Option<usize> {
        let may = |place: &usize| {
            let replicas = &self.replicas[*place];
            let spread = || self.spread_after(*place, from, to) >= self.spread(replicas.iter().copied());
            let stays_cordoned = replicas.iter().any(|broker| *broker != from && self.cordoned.contains(broker));
            !replicas.contains(&to) && !stays_cordoned && (!self.has_racks || spread())
        };
        let cost = |place: &usize| {
            let stays = self.partitions[*place].replicas.contains(&from);
            let surplus = self.load_of_topic(*place, from).saturating_sub(self.load_of_topic(*place, to));
            (stays, usize::MAX - surplus, self.replicas[*place].first() == Some(&from), *place)
        };
        self.held.get(&from)?.iter().copied().filter(may).min_by_key(cost)
    }

    /// Along paths from brokers that are preferred leaders often to those that are seldom: each on
    /// the path hands one partition on to the next.
    fn even_leaders(&mut self) {
        while let Some(path) = self.leader_path() {
            for (place, to) in path {
                if let Some(at) = self.replicas[place].iter().position(|broker| *broker == to) {
                    self.replicas[place].swap(0, at);
                }
            }
        }
    }

    /// Partitions, each with its next preferred leader, that take one from a broker with at
    /// least two more than the last.
    fn leader_path(&self) -> Option<Vec<(usize, i32)>> {
        let mut led: BTreeMap<i32, Vec<usize>> = self.racks.keys().map(|broker| (*broker, Vec::new())).collect();
        let mut counts: BTreeMap<i32, usize> = BTreeMap::new();
        for (place, replicas) in self.replicas.iter().enumerate() {
            let Some(leader) = replicas.first() else { continue };
            *counts.entry(*leader).or_default() += 1;
            if !replicas.iter().any(|broker| self.cordoned.contains(broker)) {
                led.entry(*leader).or_default().push(place);
            }
        }
        let count = |broker: i32| counts.get(&broker).copied().unwrap_or(0);
        let mut by_count: Vec<i32> = led.keys().copied().collect();
        by_count.sort_by_key(|broker| std::cmp::Reverse(count(*broker)));
        by_count.into_iter().find_map(|from| {
            let mut reached: BTreeMap<i32, Option<(usize, i32)>> = BTreeMap::from([(from, None)]);
            let mut open = VecDeque::from([from]);
            while let Some(broker) = open.pop_front() {
                if count(broker) + 2 <= count(from) {
                    return Some(path_to(broker, &reached));
                }
                for place in led.get(&broker).into_iter().flatten() {
                    for next in &self.replicas[*place][1..] {
                        if !reached.contains_key(next) {
                            reached.insert(*next, Some((*place, broker)));
                            open.push_back(*next);
                        }
                    }
                }
            }
            None
        })
    }
}

/// `reached`: by broker, the partition by which it was reached, and from whom.
fn path_to(broker: i32, reached: &BTreeMap<i32, Option<(usize, i32)>>) -> Vec<(usize, i32)> {
    let (mut path, mut at) = (Vec::new(), broker);
    while let Some(Some((place, before))) = reached.get(&at) {
        path.push((*place, at));
        at = *before;
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(racks: &[(i32, &str)]) -> Vec<Place> {
        let rack = |rack: &str| (!rack.is_empty()).then(|| rack.to_owned());
        racks.iter().map(|(broker, name)| Place { broker: *broker, rack: rack(name) }).collect()
    }

    fn topic(name: &str, replicas: &[impl AsRef<[i32]>]) -> Vec<Placed> {
        let one = |(partition, replicas): (i32, &_)| Placed {
            topic: name.to_owned(),
            partition,
            replicas: AsRef::<[i32]>::as_ref(replicas).to_vec(),
        };
        (0..).zip(replicas).map(one).collect()
    }

    fn apply(before: &[Placed], planned: &[Planned]) -> Vec<Placed> {
        let after = |placed: &Placed| {
            let new = planned.iter().find(|planned| planned.before == placed);
            Placed { replicas: new.map_or(&placed.replicas, |new| &new.replicas).clone(), ..placed.clone() }
        };
        before.iter().map(after).collect()
    }

    fn loads(partitions: &[Placed]) -> (BTreeMap<i32, usize>, BTreeMap<i32, usize>) {
        let (mut replicas, mut leaders) = (BTreeMap::new(), BTreeMap::new());
        for placed in partitions {
            placed.replicas.iter().for_each(|broker| *replicas.entry(*broker).or_default() += 1);
            *leaders.entry(placed.replicas[0]).or_default() += 1;
        }
        (replicas, leaders)
    }

    fn copies(planned: &[Planned]) -> usize {
        planned.iter().map(Planned::copies).sum()
    }

    fn plan<'a>(partitions: &'a [Placed], brokers: &[Place]) -> Result<Vec<Planned<'a>>, String> {
        super::plan(partitions, brokers, &BTreeSet::new())
    }

    #[test]
    fn cordoned_brokers_give_and_do_not_take() {
        let all = places(&[(1, ""), (2, ""), (3, ""), (4, "")]);
        let before = topic("t", &[[1, 2]; 6]);
        let planned = super::plan(&before, &all, &BTreeSet::from([3])).unwrap();
        let (replicas, leaders) = loads(&apply(&before, &planned));
        assert_eq!(replicas, [(1, 4), (2, 4), (4, 4)].into());
        assert_eq!(leaders, [(1, 2), (2, 2), (4, 2)].into());
        // It gives until it has no more than others; the rest of its partitions stay.
        let planned = super::plan(&before, &all, &BTreeSet::from([1])).unwrap();
        assert!(planned.iter().all(|planned| !planned.replicas.contains(&1)), "{planned:?}");
        assert!(loads(&apply(&before, &planned)).0[&1] < 6);
        let why = super::plan(&before, &places(&[(1, ""), (3, "")]), &BTreeSet::from([3])).unwrap_err();
        assert!(why.contains("1 broker is left"), "{why}");
    }

    #[test]
    fn a_new_broker_gets_its_share_and_no_more_is_copied() {
        let before = topic("t", &[[1, 2]; 6]);
        let planned = plan(&before, &places(&[(1, ""), (2, ""), (3, "")])).unwrap();
        let after = apply(&before, &planned);
        let (replicas, leaders) = loads(&after);
        assert_eq!(replicas, BTreeMap::from([(1, 4), (2, 4), (3, 4)]));
        assert_eq!(leaders, BTreeMap::from([(1, 2), (2, 2), (3, 2)]));
        assert_eq!(copies(&planned), 4);
        assert_eq!(plan(&after, &places(&[(1, ""), (2, ""), (3, "")])), Ok(Vec::new()), "it is even");
    }

    #[test]
    fn topics_are_spread_as_well() {
        let before = [topic("a", &[[1]; 4]), topic("b", &[[1]; 4])].concat();
        let after = apply(&before, &plan(&before, &places(&[(1, ""), (2, "")])).unwrap());
        for topic in ["a", "b"] {
            let own: Vec<Placed> = after.iter().filter(|placed| placed.topic == topic).cloned().collect();
            assert_eq!(loads(&own).0, BTreeMap::from([(1, 2), (2, 2)]));
        }
    }

    #[test]
    fn racks_are_kept() {
        let racks = places(&[(1, "a"), (2, "a"), (3, "b"), (4, "b")]);
        let before = topic("t", &[[1, 3]; 8]);
        let after = apply(&before, &plan(&before, &racks).unwrap());
        assert!(after.iter().all(|placed| placed.replicas.iter().filter(|broker| **broker <= 2).count() == 1));
        assert_eq!(
            loads(&after),
            (BTreeMap::from_iter((1..=4).map(|b| (b, 4))), BTreeMap::from_iter((1..=4).map(|b| (b, 2))))
        );
        // Rather uneven than in one rack.
        let lopsided = places(&[(1, "a"), (3, "b"), (4, "b")]);
        let kept = apply(&before, &plan(&before, &lopsided).unwrap());
        assert_eq!(loads(&kept).0, BTreeMap::from([(1, 8), (3, 4), (4, 4)]));
    }

    #[test]
    fn brokers_are_emptied() {
        let before = topic("t", &[[1, 2], [2, 3], [3, 1]]);
        let planned = plan(&before, &places(&[(1, ""), (2, ""), (4, "")])).unwrap();
        let after = apply(&before, &planned);
        assert_eq!(loads(&after).0, BTreeMap::from([(1, 2), (2, 2), (4, 2)]));
        assert_eq!(copies(&planned), 2);
        let why = plan(&before, &places(&[(1, "")])).unwrap_err();
        assert_eq!(why, "t-0 has 2 replicas, and 1 broker is left for them");
    }

    #[test]
    fn leaders_are_handed_on_along_paths() {
        // 3 has no replica of what 1 leads: 2 hands one on.
        let before = topic("t", &[[1, 2], [1, 2], [1, 2], [2, 3], [3, 2]]);
        let planned = plan(&before, &places(&[(1, ""), (2, ""), (3, "")])).unwrap();
        let leaders = loads(&apply(&before, &planned)).1;
        assert!(leaders.values().all(|count| (1..=2).contains(count)), "{leaders:?}");
    }

    #[test]
    fn any_cluster_becomes_even() {
        let mut random = 88_172_645_463_325_252_u64;
        let mut below = |bound: usize| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random % bound as u64) as usize
        };
        for _ in 0..300 {
            let brokers: Vec<i32> = (1..=3 + below(5) as i32).collect();
            let factor = 1 + below(3);
            let partitions: Vec<Placed> = (0..below(60))
                .map(|n| {
                    let mut replicas: Vec<i32> = Vec::new();
                    while replicas.len() < factor {
                        let broker = brokers[below(if n % 2 == 0 { 3 } else { brokers.len() })];
                        if !replicas.contains(&broker) {
                            replicas.push(broker);
                        }
                    }
                    Placed { topic: format!("t{}", n % 4), partition: n as i32, replicas }
                })
                .collect();
            let all: Vec<Place> = brokers.iter().map(|broker| Place { broker: *broker, rack: None }).collect();
            let planned = plan(&partitions, &all).unwrap();
            let after = apply(&partitions, &planned);
            let ((replicas, leaders), (had, _)) = (loads(&after), loads(&partitions));
            let range = |counts: &BTreeMap<i32, usize>| {
                let of = |broker: &i32| counts.get(broker).copied().unwrap_or(0);
                brokers.iter().map(of).max().unwrap_or(0) - brokers.iter().map(of).min().unwrap_or(0)
            };
            assert!(range(&replicas) <= 1 && range(&leaders) <= 1, "{partitions:?}: {replicas:?}, {leaders:?}");
            assert!(after.iter().all(|p| (0..factor).all(|n| !p.replicas[..n].contains(&p.replicas[n]))));
            // Replicas above the ceiling have to leave; others only to lift brokers to the floor.
            let (floor, ceiling) =
                (partitions.len() * factor / brokers.len(), (partitions.len() * factor).div_ceil(brokers.len()));
            let of = |broker: &i32| had.get(broker).copied().unwrap_or(0);
            let above: usize = brokers.iter().map(|b| of(b).saturating_sub(ceiling)).sum();
            let under: usize = brokers.iter().map(|b| floor.saturating_sub(of(b))).sum();
            assert_eq!(copies(&planned), above.max(under), "{partitions:?}");
        }
    }
}
