use super::*;
use crate::cluster::rules::random::Random;
use crate::cluster::rules::test_store::TestStore;
use crate::cluster::store::{Assignment, BrokerRecord, Key, Phase, Record};

/// Active brokers, each in a rack or in none (0), and the replicas of the partitions of one topic.
fn cluster(racks: &[i32], partitions: &[Vec<i32>]) -> TestStore {
    let mut store = TestStore::default();
    for (broker, rack) in (0..).zip(racks) {
        store.incarnation(broker, Phase::Active, true);
        let rack = (*rack > 0).then(|| rack.to_string());
        store.create(Key::Broker(BrokerId(broker)), Record::Broker(BrokerRecord::new(Vec::new(), rack)));
    }
    let assignment = |replicas: &Vec<i32>| Assignment {
        replicas: replicas.iter().copied().map(BrokerId).collect(),
        ..Assignment::default()
    };
    store.topic("t", partitions.iter().map(assignment).collect());
    store
}

fn apply(partitions: &[Vec<i32>], plan: &[Rebalanced]) -> Vec<Vec<i32>> {
    let mut after = partitions.to_vec();
    for Rebalanced { partition, before, after: new } in plan {
        let place = &mut after[partition.1 as usize];
        assert_eq!(place.iter().copied().map(BrokerId).collect::<Vec<_>>(), *before);
        *place = new.iter().map(|broker| broker.0).collect();
    }
    after
}

fn loads(brokers: usize, partitions: &[Vec<i32>], of: impl Fn(&[i32], i32) -> bool) -> Vec<usize> {
    (0..brokers as i32).map(|broker| partitions.iter().filter(|replicas| of(replicas, broker)).count()).collect()
}

fn holds(replicas: &[i32], broker: i32) -> bool {
    replicas.contains(&broker)
}

fn moves(plan: &[Rebalanced]) -> usize {
    plan.iter().map(|one| one.after.iter().filter(|broker| !one.before.contains(broker)).count()).sum()
}

#[test]
fn a_new_broker_takes_its_share_and_no_more() {
    let partitions: Vec<Vec<i32>> = (0..12).map(|at| vec![at % 3, (at + 1) % 3]).collect();
    let store = cluster(&[0, 0, 0, 0], &partitions);
    let plan = balance(&store.view());
    assert_eq!(moves(&plan), 6, "24 replicas on 4 brokers");
    let after = apply(&partitions, &plan);
    assert_eq!(loads(4, &after, holds), [6, 6, 6, 6]);
    let led = loads(4, &after, |replicas, broker| replicas[0] == broker);
    assert!(led.iter().all(|led| (2..=4).contains(led)), "{led:?}");
    assert!(balance(&cluster(&[0, 0, 0, 0], &after).view()).is_empty());
}

#[test]
fn racks_are_kept() {
    // Broker 2 shares its rack with 0: it can take over from 0 only.
    let partitions: Vec<Vec<i32>> = (0..4).map(|_| vec![0, 1]).collect();
    let plan = balance(&cluster(&[1, 2, 1], &partitions).view());
    assert_eq!(loads(3, &apply(&partitions, &plan), holds), [2, 4, 2]);
}

#[test]
fn brokers_that_are_away_keep_theirs() {
    let partitions = vec![vec![7, 0], vec![7, 0], vec![7, 0], vec![7, 0]];
    let plan = balance(&cluster(&[0, 0], &partitions).view());
    let after = apply(&partitions, &plan);
    assert!(after.iter().all(|replicas| replicas.contains(&7)));
    assert_eq!(loads(2, &after, holds), [2, 2]);
}

#[test]
fn any_cluster_is_evened_out_with_the_fewest_moves() {
    let mut moved = 0;
    for seed in 0..1_000 {
        let mut random = Random::of(seed);
        let brokers = 2 + random.below(6);
        let with_racks = random.chance(2);
        let racks: Vec<i32> = (0..brokers).map(|_| if with_racks { 1 + random.below(3) as i32 } else { 0 }).collect();
        let all: Vec<i32> = (0..brokers as i32).collect();
        let used = &all[..1 + random.below(brokers)];
        let partitions: Vec<Vec<i32>> = (0..random.below(30))
            .map(|_| random.shuffled(used)[..1 + random.below(used.len().min(3))].to_vec())
            .collect();
        let plan = balance(&cluster(&racks, &partitions).view());
        let after = apply(&partitions, &plan);
        let spread =
            |replicas: &[i32]| replicas.iter().map(|broker| racks[*broker as usize]).collect::<BTreeSet<_>>().len();
        for (before, after) in partitions.iter().zip(&after) {
            assert_eq!(before.len(), after.iter().collect::<BTreeSet<_>>().len(), "seed {seed}: {before:?} {after:?}");
            assert!(spread(after) >= spread(before), "seed {seed}: {before:?} {after:?}");
        }
        assert!(balance(&cluster(&racks, &after).view()).is_empty(), "seed {seed}: not at rest");
        moved += moves(&plan);
        if !with_racks {
            let (before, after) = (loads(brokers, &partitions, holds), loads(brokers, &after, holds));
            let (least, most) = (after.iter().min().unwrap(), after.iter().max().unwrap());
            assert!(most - least <= 1, "seed {seed}: {after:?}");
            let all: usize = before.iter().sum();
            let (floor, ceiling) = (all / brokers, all.div_ceil(brokers));
            let over: usize = before.iter().map(|load| load.saturating_sub(ceiling)).sum();
            let under: usize = before.iter().map(|load| floor.saturating_sub(*load)).sum();
            assert_eq!(moves(&plan), over.max(under), "seed {seed}: {before:?}");
        }
    }
    assert!(moved > 3_000, "{moved}");
}
