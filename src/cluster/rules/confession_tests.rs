use std::collections::BTreeSet;

use uuid::Uuid;

use super::*;
use crate::cluster::rules::test_store::{TestStore, directory, name};
use crate::cluster::store::{Assignment, Phase};
use crate::model::LeaderEpoch;

const ME: BrokerId = BrokerId(1);

fn ids(list: &[i32]) -> Vec<BrokerId> {
    list.iter().copied().map(BrokerId).collect()
}

fn state(isr: &[i32], leader: Option<i32>, last_leader: Option<i32>) -> PartitionState {
    PartitionState {
        leader: leader.map(BrokerId),
        leader_epoch: LeaderEpoch(3),
        controller_epoch: 7,
        isr: ids(isr),
        elr: Vec::new(),
        elr_min: 0,
        last_leader: last_leader.map(BrokerId),
        emptied: Vec::new(),
        leader_broker_epoch: None,
    }
}

/// Partitions of a topic that broker 1 led last, led, follows, had alone, and
/// has nothing to do with.
fn store() -> TestStore {
    let mut store = TestStore::default();
    store.office(0);
    store.incarnation(1, Phase::Active, true);
    let replicas: [&[i32]; 5] = [&[1, 2], &[1, 2], &[2, 1], &[1], &[2]];
    let assignments = replicas.iter().map(|list| Assignment { replicas: ids(list), ..Assignment::default() }).collect();
    store.topic("t", assignments);
    let states = [
        state(&[], None, Some(1)),
        state(&[1, 2], Some(1), None),
        state(&[2], Some(2), None),
        state(&[], None, Some(1)),
        state(&[2], Some(2), None),
    ];
    (0..).zip(states).for_each(|(index, state)| store.partition("t", index, state));
    store
}

fn start(directories: &[i32]) -> Start {
    let directories = directories.iter().copied().map(directory).collect::<BTreeSet<_>>();
    Start { clean_stop: true, boot: Uuid::from_u128(1), directories }
}

fn found(kept: Kept) -> Found {
    let replicas = (0..4).map(|index| (PartitionId::new(Uuid::from_u128(9), index), kept)).collect();
    Found { replicas, ..Found::default() }
}

/// Emptied replicas by partition, once all is said.
fn said(store: &mut TestStore, start: &Start, found: &Found) -> Vec<Vec<i32>> {
    let confession = confess(&store.view(), ME, start, found);
    confession.commits.iter().for_each(|commit| drop(store.commit(commit).unwrap()));
    assert_eq!(confess(&store.view(), ME, start, found), Confession::default(), "said once");
    let view = store.view();
    (0..5).map(|index| view.state("t", index).unwrap().value.emptied.iter().map(|b| b.0).collect()).collect()
}

#[test]
fn a_broker_whose_directory_is_gone_says_which_replicas_are_empty() {
    let mut store = store();
    let confession = confess(&store.view(), ME, &start(&[5]), &found(Kept::None));
    assert_eq!(confession.waiting, [(name("t"), 0)], "nobody else is in sync");
    assert_eq!(
        said(&mut store, &start(&[5]), &found(Kept::None)),
        [vec![1], vec![1], vec![1], vec![], vec![]],
        "not of the one that it has alone"
    );
    let view = store.view();
    let led = &view.state("t", 1).unwrap().value;
    assert_eq!((led.leader, &led.isr, led.leader_epoch), (None, &ids(&[2]), LeaderEpoch(4)));
}

#[test]
fn nothing_is_said_of_what_may_be_there_still() {
    let nothing = vec![Vec::<i32>::new(); 5];
    let same = start(&[1]);
    assert_eq!(said(&mut store(), &same, &found(Kept::None)), nothing, "empty before, as far as is known");
    assert_eq!(said(&mut store(), &start(&[5]), &found(Kept::Some)), nothing);
    assert_eq!(said(&mut store(), &start(&[5]), &Found::default()), nothing, "they are offline");
    let partial = Found { partial: true, ..found(Kept::None) };
    assert_eq!(said(&mut store(), &start(&[5]), &partial), nothing, "the directory may come back");
    let missed = Found { misses: true, ..found(Kept::None) };
    assert_ne!(said(&mut store(), &same, &missed), nothing, "a replica's own directory is gone");
    assert_ne!(said(&mut store(), &same, &found(Kept::Lost)), nothing, "its log is damaged");
}

#[test]
fn what_comes_back_counts_again() {
    let mut store = store();
    said(&mut store, &start(&[5]), &found(Kept::None));
    assert_eq!(said(&mut store, &start(&[1, 5]), &found(Kept::Some)), vec![Vec::<i32>::new(); 5]);
}

#[test]
fn a_registration_that_comes_meanwhile_makes_it_void() {
    let mut store = store();
    let confession = confess(&store.view(), ME, &start(&[5]), &found(Kept::None));
    store.create(Key::Broker(ME), Record::Broker(crate::cluster::rules::test_store::record()));
    assert!(confession.commits.iter().all(|commit| store.commit(commit).is_err()));
}
