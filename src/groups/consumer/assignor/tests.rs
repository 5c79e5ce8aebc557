use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::*;
use crate::groups::record::Partitions;

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end.max(1)
    }

    fn one_in_ten(&mut self) -> bool {
        self.below(10) == 0
    }
}

/// Members with what they subscribe to and what they had.
#[derive(Clone, Debug, Default)]
struct Case {
    topics: Vec<SpecTopic>,
    members: BTreeMap<String, (Vec<usize>, Partitions)>,
}

impl Case {
    fn topic(number: usize, partitions: i32) -> SpecTopic {
        SpecTopic { id: Uuid::from_u64_pair(1, number as u64), partitions }
    }

    fn run(&self, assignor: Assignor) -> Vec<Partitions> {
        let members = self.members.iter().map(|(id, (topics, target))| SpecMember {
            id,
            instance_id: id.strip_prefix("static-"),
            topics: topics.clone(),
            target,
        });
        assignor.assign(&Spec { topics: self.topics.clone(), members: members.collect() })
    }

    /// Runs it, checks that it is valid, and makes the outcome the members' present.
    fn go_on(&mut self, assignor: Assignor) -> Vec<Partitions> {
        let shares = self.run(assignor);
        self.check_valid(&shares);
        for ((_, target), share) in self.members.values_mut().zip(&shares) {
            *target = share.clone();
        }
        shares
    }

    fn check_valid(&self, shares: &[Partitions]) {
        assert_eq!(shares.len(), self.members.len());
        let mut seen = BTreeSet::new();
        for ((topics, _), share) in self.members.values().zip(shares) {
            for (topic, partitions) in share {
                let index = topic.as_u64_pair().1 as usize;
                assert!(topics.contains(&index), "given what it does not subscribe to");
                assert!(!partitions.is_empty());
                for partition in partitions {
                    assert!((0..self.topics[index].partitions).contains(partition));
                    assert!(seen.insert((index, *partition)), "given twice");
                }
            }
        }
        let subscribed: BTreeSet<usize> = self.members.values().flat_map(|(topics, _)| topics.clone()).collect();
        for (index, topic) in self.topics.iter().enumerate() {
            let wanted = subscribed.contains(&index);
            let given = seen.range((index, i32::MIN)..=(index, i32::MAX)).count();
            assert_eq!(given, if wanted { topic.partitions as usize } else { 0 });
        }
    }
}

fn size(share: &Partitions) -> usize {
    share.values().map(BTreeSet::len).sum()
}

fn moved(before: &BTreeMap<String, Partitions>, case: &Case) -> usize {
    let places = |share: &Partitions| -> BTreeSet<(Uuid, i32)> {
        share.iter().flat_map(|(topic, partitions)| partitions.iter().map(|partition| (*topic, *partition))).collect()
    };
    let kept = |(id, (_, now)): (&String, &(Vec<usize>, Partitions))| {
        before.get(id).map_or(0, |had| places(had).difference(&places(now)).count())
    };
    case.members.iter().map(kept).sum()
}

fn targets(case: &Case) -> BTreeMap<String, Partitions> {
    case.members.iter().map(|(id, (_, target))| (id.clone(), target.clone())).collect()
}

#[test]
fn uniform_is_balanced_and_moves_no_more_than_it_must() {
    let mut random = Random(42);
    for _ in 0..300 {
        let topics: Vec<SpecTopic> =
            (0..1 + random.below(4)).map(|number| Case::topic(number, 1 + random.below(12) as i32)).collect();
        let all: Vec<usize> = (0..topics.len()).collect();
        let total: usize = topics.iter().map(|topic| topic.partitions as usize).sum();
        let mut case = Case { topics, members: BTreeMap::new() };
        for step in 0..8 {
            let joins = case.members.len() < 2 || random.below(2) == 0;
            if joins {
                case.members.insert(format!("m{:02}-{step}", random.below(100)), (all.clone(), Partitions::new()));
            } else {
                let gone = case.members.keys().nth(random.below(case.members.len())).unwrap().clone();
                case.members.remove(&gone);
            }
            let before = targets(&case);
            let shares = case.go_on(Assignor::Uniform);
            let sizes: Vec<usize> = shares.iter().map(size).collect();
            let (least, most) = (sizes.iter().min().unwrap(), sizes.iter().max().unwrap());
            assert!(most - least <= 1, "{sizes:?}");
            // A member that stays gives away no more than what is above the new share.
            let members = case.members.len();
            let quota = total / members;
            let over: usize = before.values().map(|had| size(had).saturating_sub(quota)).sum();
            let must = over.saturating_sub(total % members);
            let may = if joins { must + total % members } else { 0 };
            assert!(moved(&before, &case) <= may, "{} moved, {may} had to", moved(&before, &case));
        }
    }
}

#[test]
fn uniform_leaves_alone_what_is_balanced() {
    let mut case = Case { topics: vec![Case::topic(0, 7), Case::topic(1, 5)], members: BTreeMap::new() };
    for member in ["a", "b", "c", "d", "e"] {
        case.members.insert(member.into(), (vec![0, 1], Partitions::new()));
    }
    let first = case.go_on(Assignor::Uniform);
    assert_eq!(case.go_on(Assignor::Uniform), first);
    // A topic's partitions are spread, not piled up with one member.
    let topic = case.topics[0].id;
    assert!(first.iter().all(|share| share.get(&topic).map_or(0, BTreeSet::len) <= 2), "{first:?}");
}

#[test]
fn uniform_with_different_subscriptions_is_balanced_as_far_as_they_allow() {
    let mut random = Random(7);
    for _ in 0..300 {
        let count = 1 + random.below(5);
        let topics: Vec<SpecTopic> = (0..count).map(|number| Case::topic(number, 1 + random.below(9) as i32)).collect();
        let mut case = Case { topics, members: BTreeMap::new() };
        for step in 0..8 {
            let subscribed: Vec<usize> = (0..count).filter(|_| random.below(2) == 0).collect();
            let name = format!("m{}", random.below(8));
            match random.below(3) {
                0 => drop(case.members.remove(&name)),
                _ => case.members.entry(name).or_default().0 = subscribed,
            }
            if case.members.is_empty() {
                continue;
            }
            let shares = case.go_on(Assignor::Uniform);
            // No member could give a partition to a subscriber that has two less.
            for ((_, _), from) in case.members.values().zip(&shares) {
                for topic in from.keys() {
                    let index = case.topics.iter().position(|it| it.id == *topic).unwrap();
                    for ((subscribed, _), to) in case.members.values().zip(&shares) {
                        assert!(!subscribed.contains(&index) || size(from) <= size(to) + 1, "step {step}: {shares:?}");
                    }
                }
            }
            assert_eq!(case.run(Assignor::Uniform), shares, "balanced, and moved all the same");
        }
    }
}

#[test]
fn range_cuts_topics_alike() {
    let mut case =
        Case { topics: vec![Case::topic(0, 7), Case::topic(1, 7), Case::topic(2, 2)], members: BTreeMap::new() };
    for member in ["b", "a", "static-x"] {
        case.members.insert(member.into(), (vec![0, 1, 2], Partitions::new()));
    }
    let shares = case.go_on(Assignor::Range);
    let of = |member: usize, topic: usize| -> Vec<i32> {
        shares[member].get(&case.topics[topic].id).into_iter().flatten().copied().collect()
    };
    // In the order of ids: a, b, static-x; static members are served first.
    assert_eq!((of(2, 0), of(0, 0), of(1, 0)), (vec![0, 1, 2], vec![3, 4], vec![5, 6]));
    assert_eq!((of(2, 2), of(0, 2), of(1, 2)), (vec![0], vec![1], vec![]));
    for member in 0..3 {
        assert_eq!(of(member, 0), of(member, 1));
    }
    // Only who subscribes counts.
    case.members.insert("b".into(), (vec![1], Partitions::new()));
    let shares = case.go_on(Assignor::Range);
    assert_eq!(shares[0][&case.topics[0].id], BTreeSet::from([4, 5, 6]));
}

#[test]
fn range_is_valid() {
    let mut random = Random(3);
    for _ in 0..300 {
        let count = 1 + random.below(4);
        let topics = (0..count).map(|number| Case::topic(number, random.below(9) as i32)).collect();
        let mut case = Case { topics, members: BTreeMap::new() };
        for number in 0..1 + random.below(6) {
            let subscribed = (0..count).filter(|_| random.below(3) > 0).collect();
            let id = if random.below(3) == 0 { format!("static-{number}") } else { format!("m{number}") };
            case.members.insert(id, (subscribed, Partitions::new()));
        }
        case.go_on(Assignor::Range);
    }
}

#[test]
fn nobody_and_nothing() {
    for assignor in [Assignor::Uniform, Assignor::Range] {
        assert_eq!(Case::default().run(assignor), Vec::<Partitions>::new());
        let mut case = Case { topics: vec![Case::topic(0, 3)], ..Case::default() };
        case.members.insert("a".into(), (Vec::new(), Partitions::from([(Uuid::nil(), BTreeSet::from([1]))])));
        assert_eq!(case.go_on(assignor), [Partitions::new()]);
    }
}

/// A corrupted past (a partition with two members, partitions that do not exist) does not matter.
#[test]
fn a_bad_past_is_put_right() {
    let topics = vec![Case::topic(0, 4)];
    let had = Partitions::from([(topics[0].id, BTreeSet::from([-1, 0, 1, 9]))]);
    let mut case = Case { topics, members: BTreeMap::new() };
    case.members.insert("a".into(), (vec![0], had.clone()));
    case.members.insert("b".into(), (vec![0], had));
    case.go_on(Assignor::Uniform);
    case.members.insert("c".into(), (Vec::new(), Partitions::new()));
    case.go_on(Assignor::Uniform);
}

/// A thousand members with a thousand topics, every second subscription another one.
#[test]
fn large_groups_are_done_in_time() {
    let mut random = Random(11);
    let topics: Vec<SpecTopic> = (0..1000).map(|number| Case::topic(number, 10)).collect();
    let mut case = Case { topics, members: BTreeMap::new() };
    for number in 0..1000 {
        let all = number % 2 == 0;
        let subscribed = (0..1000).filter(|_| all || random.one_in_ten()).collect();
        case.members.insert(format!("m{number:04}"), (subscribed, Partitions::new()));
    }
    for _ in 0..2 {
        let shares = case.go_on(Assignor::Uniform);
        assert!(shares.iter().all(|share| (9..=11).contains(&size(share))));
        case.members.pop_first();
    }
}
