use std::collections::BTreeSet;

use super::*;
use crate::cluster::rules::random::Random;

fn ids(list: &[i32]) -> Vec<BrokerId> {
    list.iter().copied().map(BrokerId).collect()
}

/// ISR, ELR, `elr_min`, leader (-1: none); epoch 5.
fn state(isr: &[i32], elr: &[i32], elr_min: i32, leader: i32) -> PartitionState {
    PartitionState {
        leader: (leader >= 0).then_some(BrokerId(leader)),
        leader_epoch: LeaderEpoch(5),
        controller_epoch: 1,
        isr: ids(isr),
        elr: ids(elr),
        elr_min,
        last_leader: None,
        emptied: Vec::new(),
        leader_broker_epoch: None,
    }
}

fn raised(mut state: PartitionState, last_leader: Option<i32>) -> PartitionState {
    state.leader_epoch.0 += 1;
    state.last_leader = last_leader.map(BrokerId);
    state
}

const REPLICAS: &[BrokerId] = &[BrokerId(0), BrokerId(1), BrokerId(2)];

fn terms(min_isr: i32) -> Terms<'static> {
    Terms { replicas: REPLICAS, min_isr, controller_epoch: 1 }
}

fn only(active: &[i32]) -> impl Fn(BrokerId) -> bool {
    move |broker| active.contains(&broker.0)
}

#[test]
fn the_last_replica_standing_does_not_take_committed_records_with_it() {
    // KIP-966, motivation: minimum 2 of replicas 0, 1, 2.
    let t0 = gone(&state(&[0, 1, 2], &[], 0, 1), &terms(2), BrokerId(0)).unwrap();
    assert_eq!(t0, state(&[1, 2], &[], 0, 1), "still at the minimum: who leaves may fall behind");
    let t1 = gone(&t0, &terms(2), BrokerId(1)).unwrap();
    assert_eq!(t1, raised(state(&[2], &[1], 2, -1), Some(1)));
    let t1 = elect(&t1, &terms(2), only(&[2]), false).unwrap();
    assert_eq!((t1.leader, t1.leader_epoch, t1.last_leader), (Some(BrokerId(2)), LeaderEpoch(7), None));
    // Broker 2 loses a part of its log. Kafka before the KIP: the ISR stays (2), and 2 leads again.
    let t2 = untrusted(&t1, &terms(2), BrokerId(2)).unwrap();
    assert_eq!((&t2.isr, &t2.elr, t2.leader), (&ids(&[]), &ids(&[1]), None));
    // All are back; 1 has what was committed.
    let t3 = elect(&t2, &terms(2), only(&[0, 1, 2]), false).unwrap();
    assert_eq!((&t3.isr, &t3.elr, t3.leader), (&ids(&[1]), &ids(&[]), Some(BrokerId(1))));
    assert_eq!(t3.elr_min, 0);
}

#[test]
fn the_elr_has_who_left_below_the_minimum_until_the_isr_is_back_at_it() {
    struct Case {
        before: PartitionState,
        leaves: i32,
        min: i32,
        after: PartitionState,
    }
    let cases = [
        Case { before: state(&[0, 1, 2], &[], 0, 0), leaves: 1, min: 2, after: state(&[0, 2], &[], 0, 0) },
        Case { before: state(&[0, 1, 2], &[], 0, 0), leaves: 1, min: 3, after: state(&[0, 2], &[1], 3, 0) },
        Case { before: state(&[0, 2], &[1], 3, 0), leaves: 2, min: 3, after: state(&[0], &[1, 2], 3, 0) },
        Case { before: state(&[0, 2], &[], 0, 0), leaves: 2, min: 1, after: state(&[0], &[], 0, 0) },
        // The minimum was raised meanwhile: the ISR is below both.
        Case { before: state(&[0, 2], &[1], 3, 0), leaves: 2, min: 2, after: state(&[0], &[1, 2], 2, 0) },
        Case { before: state(&[0], &[1], 2, 0), leaves: 0, min: 3, after: raised(state(&[], &[1, 0], 2, -1), Some(0)) },
        // Even an ISR of one leaves somebody who can lead.
        Case { before: state(&[0], &[], 0, 0), leaves: 0, min: 1, after: raised(state(&[], &[0], 1, -1), Some(0)) },
    ];
    for Case { before, leaves, min, after } in cases {
        assert_eq!(gone(&before, &terms(min), BrokerId(leaves)), Some(after), "{before:?}, {leaves} leaves, {min}");
    }
    let below = state(&[0], &[1, 2], 2, 0);
    assert_eq!(
        expand(&below, &terms(2), &ids(&[2])),
        Some(state(&[0, 2], &[], 0, 0)),
        "1 may fall behind from here on"
    );
    assert_eq!(expand(&below, &terms(3), &ids(&[2])), Some(state(&[0, 2], &[1], 3, 0)), "the old bound is reached");
    assert_eq!(expand(&below, &terms(3), &ids(&[1, 2])), Some(state(&[0, 1, 2], &[], 0, 0)));
}

#[test]
fn all_that_leave_at_once_are_eligible() {
    let before = state(&[0, 1, 2], &[], 0, 0);
    let terms = terms(2);
    let mut change = Transition::of(&before, &terms);
    REPLICAS.iter().for_each(|broker| change.leave(*broker));
    assert_eq!(change.finish(), Some(raised(state(&[], &[0, 1, 2], 2, -1), Some(0))));
}

#[test]
fn a_lowered_minimum_clears_the_elr_only_where_the_isr_reaches_it() {
    let before = state(&[0], &[1, 2], 2, 0);
    assert_eq!(lower_minimum(&before, &terms(1)), Some(state(&[0], &[], 0, 0)), "no new epoch");
    assert_eq!(lower_minimum(&before, &terms(2)), None);
    assert_eq!(lower_minimum(&before, &terms(3)), None);
    let nobody = state(&[], &[1, 2], 2, -1);
    assert_eq!(lower_minimum(&nobody, &terms(1)), None, "they are the last copies");
    assert_eq!(
        elect(&nobody, &terms(1), only(&[2]), false),
        Some(raised(state(&[2], &[], 0, 2), None)),
        "an ISR of one is at the minimum now"
    );
}

#[test]
fn election_goes_by_isr_then_elr_then_last_leader_then_option() {
    let with_last =
        |isr: &[i32], elr: &[i32], min| PartitionState { last_leader: Some(BrokerId(2)), ..state(isr, elr, min, -1) };
    let in_sync = with_last(&[2, 1], &[0], 3);
    let eligible = with_last(&[], &[2, 1], 2);
    let nobody = with_last(&[], &[], 0);
    // active, unclean, leader, ISR, ELR, how
    type Wanted<'a> = Option<(i32, &'a [i32], &'a [i32], Election)>;
    let cases: &[(&PartitionState, &[i32], bool, Wanted)] = &[
        (&in_sync, &[0, 1, 2], false, Some((1, &[2, 1], &[0], Election::InSync))),
        (&in_sync, &[0, 2], false, Some((2, &[2, 1], &[0], Election::InSync))),
        (&in_sync, &[0], false, None),
        (&in_sync, &[0], true, Some((0, &[0], &[], Election::Unclean))),
        (&eligible, &[0, 1, 2], false, Some((1, &[1], &[2], Election::Eligible))),
        (&eligible, &[0, 1, 2], true, Some((1, &[1], &[2], Election::Eligible))),
        (&eligible, &[0], false, None),
        (&eligible, &[0], true, Some((0, &[0], &[], Election::Unclean))),
        (&nobody, &[0, 1, 2], false, Some((2, &[2], &[], Election::LastLeader))),
        (&nobody, &[0, 1], false, None),
        (&nobody, &[0, 1], true, Some((0, &[0], &[], Election::Unclean))),
        (&nobody, &[], true, None),
    ];
    for (before, active, unclean, wanted) in cases {
        let terms = terms(3);
        let mut change = Transition::of(before, &terms);
        let election = change.elect(&only(active), *unclean);
        let after = change.finish();
        match wanted {
            Some((leader, isr, elr, how)) => {
                let after = after.unwrap();
                assert_eq!(election, Some(*how), "{before:?} {active:?}");
                assert_eq!((after.leader, &after.isr, &after.elr), (Some(BrokerId(*leader)), &ids(isr), &ids(elr)));
                assert_eq!((after.leader_epoch, after.last_leader), (LeaderEpoch(6), None));
            }
            None => assert_eq!((election, after), (None, None), "{before:?} {active:?}"),
        }
    }
}

#[test]
fn a_leader_stays_while_it_is_active_and_none_is_better_than_a_dead_one() {
    let before = state(&[1, 0], &[], 0, 1);
    assert_eq!(elect(&before, &terms(1), only(&[0, 1]), false), None);
    assert_eq!(elect(&before, &terms(1), only(&[0]), false), Some(raised(state(&[1, 0], &[], 0, 0), None)));
    assert_eq!(elect(&before, &terms(1), only(&[2]), false), Some(raised(state(&[1, 0], &[], 0, -1), Some(1))));
    assert_eq!(prefer(&before, &terms(1), BrokerId(0)), Some(raised(state(&[1, 0], &[], 0, 0), None)));
    assert_eq!(prefer(&before, &terms(1), BrokerId(1)), None);
    assert_eq!(prefer(&before, &terms(1), BrokerId(2)), None, "not in the ISR");
}

#[test]
fn the_last_leader_is_remembered_until_there_is_one_again() {
    let sole = state(&[0], &[], 0, 0);
    let lost = untrusted(&sole, &terms(1), BrokerId(0)).unwrap();
    assert_eq!(lost, raised(state(&[], &[], 0, -1), Some(0)));
    assert_eq!(elect(&lost, &terms(1), only(&[1, 2]), false), None, "the others have less");
    let back = elect(&lost, &terms(1), only(&[0, 1, 2]), false).unwrap();
    assert_eq!((back.leader, &back.isr, back.last_leader), (Some(BrokerId(0)), &ids(&[0]), None));
    // A member of the ELR that goes while there is no leader was not the last one.
    let eligible = PartitionState { last_leader: Some(BrokerId(2)), ..state(&[], &[1], 2, -1) };
    assert_eq!(untrusted(&eligible, &terms(2), BrokerId(1)).unwrap().last_leader, Some(BrokerId(2)));
}

#[test]
fn a_leader_opened_anew_leads_on_in_a_new_epoch() {
    let before = state(&[0, 2], &[1], 3, 0);
    assert_eq!(renew(&before, &terms(3), BrokerId(0)), Some(raised(before.clone(), None)));
    assert_eq!(renew(&before, &terms(3), BrokerId(2)), None, "it follows");
    assert_eq!(renew(&state(&[], &[0], 1, -1), &terms(1), BrokerId(0)), None, "nobody leads");
}

#[test]
fn who_resigns_leaves_both_sets_if_somebody_can_lead() {
    let before = state(&[0, 1], &[], 0, 0);
    assert_eq!(
        resign(&before, &terms(2), BrokerId(0), only(&[0, 1])),
        Some(raised(state(&[1], &[], 0, -1), Some(0))),
        "not into the ELR"
    );
    assert_eq!(resign(&before, &terms(2), BrokerId(0), only(&[0])), None, "its records are better than none");
    assert_eq!(resign(&before, &terms(2), BrokerId(1), only(&[0, 1])), Some(state(&[0], &[], 0, 0)));
    let eligible = state(&[0], &[1], 2, 0);
    assert_eq!(resign(&eligible, &terms(2), BrokerId(1), only(&[0])), Some(state(&[0], &[], 0, 0)));
    assert!(resign(&eligible, &terms(2), BrokerId(0), only(&[1])).is_some_and(|after| after.elr == ids(&[1])));
    assert_eq!(resign(&before, &terms(2), BrokerId(2), only(&[0, 1])), None, "in neither");
}

#[test]
fn requests_that_make_no_sense_change_nothing() {
    let before = state(&[0, 1], &[], 0, 0);
    assert_eq!(expand(&before, &terms(2), &ids(&[7])), None, "no replica");
    assert_eq!(expand(&before, &terms(2), &ids(&[1])), None, "in the ISR already");
    assert_eq!(shrink(&before, &terms(2), &ids(&[0])), None, "the leader stays");
    assert_eq!(shrink(&before, &terms(2), &ids(&[0, 1])), Some(state(&[0], &[1], 2, 0)));
    assert_eq!(expand(&state(&[0], &[], 0, -1), &terms(2), &ids(&[1])), None, "nobody to have caught up with");
    assert_eq!(gone(&before, &terms(2), BrokerId(2)), None);
    let last = PartitionState { leader_epoch: LeaderEpoch(i32::MAX), ..before };
    assert_eq!(gone(&last, &terms(2), BrokerId(0)), None, "no epoch is left");
}

#[test]
fn a_state_that_breaks_the_rules_is_put_right() {
    let broken = [
        (state(&[0, 7], &[], 0, 7), Broken::NotAReplica),
        (state(&[0, 0], &[], 0, 0), Broken::Duplicate),
        (state(&[0], &[0], 2, 0), Broken::InBoth),
        (state(&[0], &[], 0, 1), Broken::LeaderNotInSync),
        (state(&[0], &[1], 1, 0), Broken::ElrBound),
        (state(&[0], &[], 1, 0), Broken::ElrBound),
        (PartitionState { last_leader: Some(BrokerId(1)), ..state(&[0], &[], 0, 0) }, Broken::LastLeader),
    ];
    for (before, how) in broken {
        assert_eq!(check(&before, REPLICAS), Err(how));
        let after = elect(&before, &terms(2), only(&[0, 1, 2]), false).unwrap();
        assert_eq!(check(&after, REPLICAS), Ok(()), "{before:?}");
        assert_eq!(after.leader, Some(BrokerId(0)));
        assert_eq!(after.leader_epoch.0, if before.leader == after.leader { 5 } else { 6 });
    }
}

#[test]
fn the_minimum_is_bounded_by_the_replication_factor() {
    let of = |replicas: &[i32], adding: &[i32]| Assignment {
        replicas: ids(replicas),
        adding: ids(adding),
        removing: Vec::new(),
    };
    assert_eq!(effective_min(2, &of(&[0], &[])), 1);
    assert_eq!(effective_min(2, &of(&[0, 1, 2], &[])), 2);
    assert_eq!(effective_min(0, &of(&[0, 1, 2], &[])), 1);
    assert_eq!(effective_min(2, &of(&[0, 1, 2], &[1, 2])), 1, "growing from one to three");
}

#[test]
fn a_new_partition_has_its_active_replicas_in_sync() {
    assert_eq!(initial(REPLICAS, only(&[]), 3), None);
    let first = initial(REPLICAS, only(&[2, 1]), 3).unwrap();
    assert_eq!((first.leader, &first.isr, first.leader_epoch), (Some(BrokerId(1)), &ids(&[1, 2]), LeaderEpoch(0)));
    assert_eq!((first.controller_epoch, check(&first, REPLICAS)), (3, Ok(())));
}

/// One partition, and by broker if it holds everything that was ever committed, in the worst case.
struct World {
    replicas: Vec<BrokerId>,
    state: PartitionState,
    holders: BTreeSet<BrokerId>,
}

impl World {
    fn random(random: &mut Random) -> World {
        let all = ids(&[0, 1, 2, 3, 4]);
        let replicas = random.shuffled(&all)[..1 + random.below(5)].to_vec();
        let state = initial(&replicas, |_| true, 1).unwrap();
        World { holders: replicas.iter().copied().collect(), replicas, state }
    }

    /// A leader commits records, whatever `min.insync.replicas` it goes by: nobody outside of the
    /// ISR has them.
    fn commit_records(&mut self, min_of_leader: i32) {
        if self.state.leader.is_some() && count(&self.state.isr) >= min_of_leader.max(self.state.elr_min) {
            self.holders = self.state.isr.iter().copied().collect();
        }
    }

    /// A random transition; true: an unclean election.
    fn step(&mut self, random: &mut Random) -> bool {
        let replicas = self.replicas.clone();
        let min_isr = 1 + random.below(replicas.len()) as i32;
        let terms = Terms { replicas: &replicas, min_isr, controller_epoch: 1 };
        let broker = random.one_of(&replicas);
        let active: BTreeSet<_> = random.some_of(&replicas).into_iter().collect();
        let some = random.some_of(&replicas);
        let before = self.state.clone();
        let (mut may_empty, mut renews) = (false, false);
        let mut election = None;
        let after = match random.below(11) {
            0 => gone(&before, &terms, broker),
            1 => shrink(&before, &terms, &some),
            2 => {
                let after = expand(&before, &terms, &some);
                if after.is_some() {
                    self.holders.extend(&some);
                }
                after
            }
            3 => {
                may_empty = true;
                self.holders.remove(&broker);
                untrusted(&before, &terms, broker)
            }
            4 => resign(&before, &terms, broker, |broker| active.contains(&broker)),
            5 => prefer(&before, &terms, broker),
            6 => lower_minimum(&before, &terms),
            7 => {
                may_empty = true;
                self.holders.remove(&broker);
                emptied(&before, &terms, broker)
            }
            8 => {
                renews = true;
                renew(&before, &terms, broker)
            }
            9 => {
                let mut change = Transition::of(&before, &terms);
                some.iter().for_each(|broker| change.leave(*broker));
                change.finish()
            }
            _ => {
                let mut change = Transition::of(&before, &terms);
                election = change.elect(&|broker| active.contains(&broker), random.chance(4));
                change.finish()
            }
        };
        let had = before.isr.len() + before.elr.len();
        if let Some(after) = after {
            assert_eq!(check(&after, &replicas), Ok(()));
            assert_ne!(after, before, "unchanged is None");
            let raise = i32::from(renews || after.leader != before.leader);
            assert_eq!(after.leader_epoch.0, before.leader_epoch.0 + raise);
            let has = after.isr.len() + after.elr.len();
            assert!(has > 0 || had == 0 || may_empty, "{before:?} to {after:?}");
            self.state = after;
        }
        election.is_some_and(|how| !how.is_clean())
    }
}

#[test]
fn every_member_of_isr_and_elr_holds_what_was_committed() {
    let (mut unclean, mut by_elr, mut commits_with_elr) = (0, 0, 0);
    for seed in 0..3_000 {
        let mut random = Random::of(seed);
        let mut world = World::random(&mut random);
        for _ in 0..60 {
            if random.chance(2) {
                let min_of_leader = 1 + random.below(world.replicas.len()) as i32;
                commits_with_elr += usize::from(!world.state.elr.is_empty());
                world.commit_records(min_of_leader);
            }
            let no_isr = world.state.isr.is_empty() && !world.state.elr.is_empty();
            let lost = world.step(&mut random);
            by_elr += usize::from(no_isr && world.state.leader.is_some() && !lost);
            if lost {
                // A new history begins with what the new leader has.
                unclean += 1;
                world.holders = world.state.isr.iter().copied().collect();
            }
            let PartitionState { isr, elr, .. } = &world.state;
            for member in isr.iter().chain(elr) {
                assert!(world.holders.contains(member), "seed {seed}: {member} of {:?}", world.state);
            }
        }
    }
    assert!(unclean > 1_000 && by_elr > 1_000 && commits_with_elr > 1_000, "{unclean} {by_elr} {commits_with_elr}");
}

#[test]
fn an_emptied_replica_leads_only_where_no_other_may_have_records() {
    let sole = state(&[0], &[], 0, 0);
    let waits = emptied(&sole, &terms(1), BrokerId(0)).unwrap();
    let wanted = PartitionState { emptied: ids(&[0]), ..raised(state(&[], &[], 0, -1), Some(0)) };
    assert_eq!(waits, wanted);
    assert_eq!(elect(&waits, &terms(1), only(&[0, 1, 2]), false), None, "the others have what is left");
    let unclean = elect(&waits, &terms(1), only(&[0, 2]), true).unwrap();
    assert_eq!((unclean.leader, &unclean.isr, &unclean.emptied), (Some(BrokerId(2)), &ids(&[2]), &ids(&[0])));
    assert_eq!(elect(&waits, &terms(1), only(&[0]), true), None, "by the option it does not lead either");
    let asked = elect_asked(&waits, &terms(1), only(&[0, 2])).unwrap();
    assert_eq!(asked.leader, Some(BrokerId(2)));
    let asked = elect_asked(&waits, &terms(1), only(&[0])).unwrap();
    assert_eq!((asked.leader, &asked.isr, &asked.emptied), (Some(BrokerId(0)), &ids(&[0]), &ids(&[])));
    // It has caught up.
    let joined = expand(&unclean, &terms(1), &ids(&[0])).unwrap();
    assert_eq!((&joined.isr, &joined.emptied), (&ids(&[2, 0]), &ids(&[])));
    // Its directory is back.
    let back = refilled(&waits, &terms(1), BrokerId(0)).unwrap();
    assert_eq!(elect(&back, &terms(1), only(&[0]), false).unwrap().leader, Some(BrokerId(0)));
    // All have lost theirs.
    let all = PartitionState { emptied: ids(&[0, 1, 2]), ..waits };
    assert_eq!(elect(&all, &terms(1), only(&[0, 1]), false).unwrap().leader, Some(BrokerId(0)));
    let mut change = Transition::of(&all, &TERMS_OF_ONE);
    assert_eq!(change.elect(&only(&[2, 1]), false), Some(Election::Emptied));
    assert_eq!(change.finish().unwrap().emptied, ids(&[0, 2]));
    // In sync with another one it only leaves.
    let both = emptied(&state(&[0, 1], &[], 0, 1), &terms(1), BrokerId(0)).unwrap();
    assert_eq!(both, PartitionState { emptied: ids(&[0]), ..state(&[1], &[], 0, 1) });
}

const TERMS_OF_ONE: Terms = Terms { replicas: REPLICAS, min_isr: 1, controller_epoch: 1 };

#[test]
fn leadership_is_handed_over_within_the_isr() {
    let before = state(&[0, 2, 1], &[], 0, 0);
    let heirs = |list: &'static [i32]| move |broker: BrokerId| list.contains(&broker.0);
    assert_eq!(
        hand_over(&before, &terms(2), heirs(&[1, 2])),
        Some(raised(state(&[0, 2, 1], &[], 0, 1), None)),
        "the ISR stays"
    );
    assert_eq!(hand_over(&before, &terms(2), heirs(&[])), None);
    assert_eq!(hand_over(&state(&[0, 1], &[], 0, 0), &terms(2), heirs(&[2])), None, "not in sync");
}
