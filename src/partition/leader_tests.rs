//! The leader's rules by example, and against random followers.

use super::epochs::EpochHistory;
use super::leader::*;
use super::watermarks::{Ends, Watermarks};
use crate::model::{BrokerId, ErrorCode, LeaderEpoch};

const LAG_MS: i64 = 10_000;
const ME: BrokerId = BrokerId(1);

fn brokers(ids: &[i32]) -> Vec<BrokerId> {
    ids.iter().copied().map(BrokerId).collect()
}

/// Three replicas, broker N with broker epoch 10 N and incarnation N.
fn view(version: i32, epoch: i32, isr: &[i32], min_isr: i32) -> PartitionView {
    let replica = |id: i32| ReplicaView {
        broker: BrokerId(id),
        broker_epoch: Some(i64::from(id) * 10),
        active: true,
        incarnation: id,
    };
    PartitionView {
        version,
        leader_epoch: LeaderEpoch(epoch),
        isr: brokers(isr),
        elr_min: 0,
        replicas: [1, 2, 3].map(replica).to_vec(),
        min_isr,
    }
}

struct Bench {
    leader: Leader,
    history: EpochHistory,
    marks: Watermarks,
    now: i64,
}

impl Bench {
    /// Leads epoch 5 from offset 100 on, with the high watermark at 90.
    fn new(isr: &[i32], min_isr: i32) -> Bench {
        let mut history = EpochHistory::default();
        history.begin(3, 0);
        history.begin(4, 40);
        let marks = Watermarks::opened(Ends::synced(0, 100), 90).unwrap();
        let leader = Leader::take_over(ME, view(7, 5, isr, min_isr), LAG_MS, &mut history, 100, 0).unwrap();
        Bench { leader, history, marks, now: 0 }
    }

    fn append(&mut self, end: i64) {
        self.marks.observe(Ends::synced(0, end)).unwrap();
    }

    fn fetch_of(&self, broker: i32, offset: i64) -> FollowerFetch {
        FollowerFetch {
            broker: BrokerId(broker),
            broker_epoch: i64::from(broker) * 10,
            leader_epoch: self.leader.epoch(),
            offset,
            last_epoch: (offset > 0).then(|| self.history.epoch_of(offset - 1).unwrap()),
        }
    }

    fn send(&mut self, fetch: FollowerFetch) -> FetchAnswer {
        let answer = self.leader.fetched(&fetch, self.marks.ends(), &self.history, self.now);
        self.leader.advance(&mut self.marks, self.now).unwrap();
        answer
    }

    fn fetch(&mut self, broker: i32, offset: i64) -> FetchAnswer {
        self.send(self.fetch_of(broker, offset))
    }

    fn see(&mut self, view: PartitionView) {
        let end = self.marks.ends().appended;
        self.leader.update(view, &mut self.history, end, self.now).unwrap();
        self.leader.advance(&mut self.marks, self.now).unwrap();
    }

    fn propose(&mut self) -> Option<Change> {
        self.leader.propose(&self.marks, self.now).map(|proposal| proposal.change)
    }

    fn hw(&self) -> i64 {
        self.marks.high_watermark()
    }
}

#[test]
fn a_new_leader_commits_once_every_member_has_fetched() {
    let mut bench = Bench::new(&[1, 2, 3], 2);
    assert_eq!(bench.history.end_of(4, 100), Some((4, 100)));
    assert_eq!(bench.leader.latest_offset(bench.hw()), Err(ErrorCode::OffsetNotAvailable));
    bench.append(110);
    assert_eq!(bench.fetch(2, 100), FetchAnswer::Serve { up_to: 110 });
    assert_eq!(bench.hw(), 90, "nothing is known of 3");
    bench.fetch(3, 95);
    assert_eq!(bench.hw(), 95);
    assert_eq!(bench.leader.latest_offset(bench.hw()), Err(ErrorCode::OffsetNotAvailable));
    bench.fetch(3, 105);
    assert_eq!((bench.hw(), bench.leader.latest_offset(bench.hw())), (100, Ok(100)));
    bench.fetch(2, 110);
    assert_eq!(bench.hw(), 105);
}

#[test]
fn metadata_from_the_past_gives_no_leadership() {
    let mut history = EpochHistory::default();
    history.begin(6, 0);
    for epoch in [5, 6] {
        let refused = Leader::take_over(ME, view(7, epoch, &[1], 1), LAG_MS, &mut history, 9, 0).unwrap_err();
        assert_eq!(refused, RefusedLead::MetadataWentBack { given: epoch, known: 6 });
    }
    let outside = Leader::take_over(ME, view(7, 7, &[2], 1), LAG_MS, &mut history, 9, 0).unwrap_err();
    assert_eq!(outside, RefusedLead::NotInSync);
    assert_eq!(history.latest(), Some(6));
    let leader = Leader::take_over(ME, view(7, 7, &[1], 1), LAG_MS, &mut history, 9, 0).unwrap();
    assert_eq!((leader.epoch_start(), history.latest()), (9, Some(7)));
}

#[test]
fn below_the_minimum_nothing_is_committed_and_nothing_taken() {
    let mut bench = Bench::new(&[1, 2], 2);
    bench.append(110);
    assert_eq!(bench.leader.may_append_for_all(), Ok(()));
    bench.fetch(2, 105);
    assert_eq!(bench.hw(), 105);
    bench.see(view(8, 5, &[1], 2));
    assert_eq!(bench.hw(), 105);
    assert_eq!(bench.leader.may_append_for_all(), Err(ErrorCode::NotEnoughReplicas));
    assert_eq!(bench.leader.ack_all(105, 105), AckAll::Refused(ErrorCode::NotEnoughReplicasAfterAppend));
    assert_eq!(bench.leader.ack_all(106, 105), AckAll::Pending);
    // The minimum falls. 2 has fetched since it left, was caught up a moment ago, and may join
    // again: it is waited for.
    bench.fetch(2, 105);
    bench.see(view(10, 5, &[1], 1));
    assert_eq!(bench.hw(), 105);
    bench.now += LAG_MS + 1;
    bench.leader.advance(&mut bench.marks, bench.now).unwrap();
    assert_eq!(bench.hw(), 110);
    assert_eq!(bench.leader.ack_all(110, 110), AckAll::Committed);
}

#[test]
fn while_an_elr_stands_its_bound_holds() {
    let mut bench = Bench::new(&[1, 2], 2);
    bench.append(110);
    bench.see(PartitionView { elr_min: 2, ..view(8, 5, &[1], 1) });
    assert_eq!(bench.hw(), 90);
    assert_eq!(bench.leader.may_append_for_all(), Err(ErrorCode::NotEnoughReplicas));
    bench.see(view(9, 5, &[1], 1));
    assert_eq!(bench.hw(), 110);
}

#[test]
fn fetches_are_fenced_by_leader_epoch_membership_and_incarnation() {
    let mut bench = Bench::new(&[1, 2, 3], 1);
    let fetch = bench.fetch_of(2, 100);
    let refuse = FetchAnswer::Refuse;
    let old = FollowerFetch { leader_epoch: LeaderEpoch(4), ..fetch };
    assert_eq!(bench.send(old), refuse(ErrorCode::FencedLeaderEpoch));
    for stranger in [BrokerId(4), ME] {
        assert_eq!(bench.send(FollowerFetch { broker: stranger, ..fetch }), refuse(ErrorCode::NotLeaderOrFollower));
    }
    assert_eq!(bench.send(FollowerFetch { broker_epoch: 19, ..fetch }), refuse(ErrorCode::NotLeaderOrFollower));
    // Not known yet: served, but it counts for nothing.
    bench.fetch(3, 100);
    assert_eq!(bench.send(FollowerFetch { broker_epoch: 21, ..fetch }), FetchAnswer::Serve { up_to: 100 });
    assert_eq!(bench.hw(), 90);
    let mut known = view(7, 5, &[1, 2, 3], 1);
    known.replicas[1].broker_epoch = Some(21);
    bench.see(known);
    bench.send(FollowerFetch { broker_epoch: 21, ..fetch });
    assert_eq!(bench.hw(), 100);
    assert!(!bench.leader.is_deposed());
}

#[test]
fn a_higher_epoch_of_a_replica_deposes_until_the_metadata_is_newer() {
    let mut bench = Bench::new(&[1, 2], 1);
    assert_eq!(bench.leader.check_epoch(Some(LeaderEpoch(6))), Err(ErrorCode::UnknownLeaderEpoch));
    assert_eq!(bench.leader.check_epoch(None), Ok(()), "a client deposes nobody");
    let newer = FollowerFetch { leader_epoch: LeaderEpoch(6), ..bench.fetch_of(2, 100) };
    assert_eq!(bench.send(newer), FetchAnswer::Refuse(ErrorCode::UnknownLeaderEpoch));
    assert!(bench.leader.is_deposed());
    assert_eq!(bench.leader.check_epoch(None), Err(ErrorCode::NotLeaderOrFollower));
    assert_eq!(bench.leader.may_append_for_all(), Err(ErrorCode::NotLeaderOrFollower));
    assert_eq!(bench.fetch(2, 100), FetchAnswer::Refuse(ErrorCode::NotLeaderOrFollower));
    assert_eq!(bench.hw(), 90);
    bench.see(view(8, 5, &[1, 2], 1));
    assert!(bench.leader.is_deposed(), "the same epoch");
    bench.see(view(9, 7, &[1, 2], 1));
    assert!(!bench.leader.is_deposed());
    assert_eq!(bench.fetch(2, 100), FetchAnswer::Serve { up_to: 100 });
}

#[test]
fn a_higher_epoch_that_the_metadata_does_not_know_deposes_until_it_says_so() {
    let mut bench = Bench::new(&[1, 2], 1);
    let newer = FollowerFetch { leader_epoch: LeaderEpoch(6), ..bench.fetch_of(2, 100) };
    bench.send(newer);
    assert_eq!(bench.propose(), Some(Change::Confirm), "it is committed only while the metadata has epoch 5");
    assert_eq!(bench.propose(), None, "one at a time");
    for outcome in [Decision::Unknown, Decision::Refused] {
        bench.leader.decided(7, outcome, bench.now);
        assert!(bench.leader.is_deposed());
        bench.now += 1_000;
        assert_eq!(bench.propose(), Some(Change::Confirm));
    }
    bench.send(newer);
    bench.leader.decided(7, Decision::Committed, bench.now);
    assert!(bench.leader.is_deposed(), "the replica has said so again since the metadata was asked");
    bench.see(view(8, 5, &[1, 2], 1));
    bench.now += 1_000;
    assert_eq!(bench.propose(), Some(Change::Confirm));
    bench.see(view(9, 5, &[1, 2], 1));
    bench.leader.decided(8, Decision::Committed, bench.now);
    assert!(!bench.leader.is_deposed(), "also when its result was seen first");
    assert_eq!(bench.leader.check_epoch(None), Ok(()));
    assert_eq!(bench.fetch(2, 100), FetchAnswer::Serve { up_to: 100 });
    assert_eq!((bench.hw(), bench.propose()), (100, None));
}

#[test]
fn a_change_proposed_before_says_nothing_of_the_epoch() {
    let mut bench = Bench::new(&[1, 2], 1);
    bench.fetch(3, 100);
    assert!(matches!(bench.propose(), Some(Change::Expand(_))));
    bench.send(FollowerFetch { leader_epoch: LeaderEpoch(6), ..bench.fetch_of(2, 100) });
    bench.leader.decided(7, Decision::Committed, bench.now);
    assert!(bench.leader.is_deposed());
}

#[test]
fn a_log_that_is_another_is_told_where_and_counts_for_nothing() {
    let mut bench = Bench::new(&[1, 2], 1);
    let mut fetch = bench.fetch_of(2, 60);
    fetch.last_epoch = Some(3);
    assert_eq!(bench.send(fetch), FetchAnswer::Diverging { epoch: 3, end: 40 });
    assert_eq!(bench.hw(), 90);
    fetch.offset = 40;
    assert_eq!(bench.send(fetch), FetchAnswer::Serve { up_to: 100 });
    // Longer than the leader's log, in the leader's last epoch before its own.
    let longer = FollowerFetch { offset: 120, last_epoch: Some(4), ..fetch };
    assert_eq!(bench.send(longer), FetchAnswer::Diverging { epoch: 4, end: 100 });
    let emptied = FollowerFetch { offset: 120, last_epoch: None, ..fetch };
    assert_eq!(bench.send(emptied), FetchAnswer::Refuse(ErrorCode::OffsetOutOfRange));
}

/// The leader's records of epoch 2 and before were deleted. Those of a follower that has no later
/// ones may be another leader's, wherever they end.
#[test]
fn a_log_of_deleted_epochs_begins_anew() {
    let mut bench = Bench::new(&[1, 2], 1);
    for offset in [1, 60, 90, 100, 120] {
        let fetch = FollowerFetch { last_epoch: Some(2), ..bench.fetch_of(3, 0) };
        let answer = bench.send(FollowerFetch { offset, ..fetch });
        assert_eq!(answer, FetchAnswer::Refuse(ErrorCode::OffsetOutOfRange), "{offset}");
    }
    bench.fetch(2, 100);
    assert_eq!(bench.propose(), None, "nor does it join");
}

#[test]
fn who_lags_leaves_and_who_has_caught_up_joins() {
    let mut bench = Bench::new(&[1, 2], 1);
    bench.append(110);
    bench.fetch(2, 110);
    assert_eq!(bench.propose(), None);
    bench.fetch(3, 100);
    assert_eq!(bench.propose(), None, "3 has not reached the high watermark");
    bench.fetch(3, 110);
    assert_eq!(bench.propose(), Some(Change::Expand(vec![(BrokerId(3), 3)])));
    assert_eq!(bench.propose(), None, "one at a time");
    // It counts from the proposal on.
    bench.append(120);
    bench.fetch(2, 120);
    assert_eq!(bench.hw(), 110);
    bench.leader.decided(7, Decision::Committed, bench.now);
    assert_eq!(bench.propose(), None, "the metadata has yet to show it");
    bench.see(view(8, 5, &[1, 2, 3], 1));
    bench.now = LAG_MS;
    bench.fetch(2, 120);
    assert_eq!((bench.hw(), bench.propose()), (110, None));
    bench.now += 1;
    bench.append(121);
    assert_eq!(bench.propose(), Some(Change::Shrink(brokers(&[3]))));
    bench.fetch(2, 121);
    assert_eq!(bench.hw(), 110, "a removal counts once it is committed");
    bench.see(view(9, 5, &[1, 2], 1));
    assert_eq!(bench.hw(), 121);
}

/// Kafka's measure: who had at a fetch all that was there at its fetch before was caught up then.
#[test]
fn a_follower_that_keeps_pace_with_a_busy_leader_is_in_sync() {
    let mut bench = Bench::new(&[1, 2], 1);
    let mut end = 100;
    for _ in 0..100 {
        bench.now += 400;
        bench.fetch(2, end);
        end += 10;
        bench.append(end);
        bench.fetch(2, end - 10);
        assert_eq!(bench.propose(), None);
    }
    for _ in 0..26 {
        bench.now += 400;
        end += 10;
        bench.append(end);
        // One record a fetch: further behind each time.
        bench.fetch(2, 1091);
    }
    assert_eq!(bench.propose(), Some(Change::Shrink(brokers(&[2]))));
}

#[test]
fn only_active_incarnations_that_are_known_join() {
    let mut bench = Bench::new(&[1], 1);
    let mut draining = view(8, 5, &[1], 1);
    draining.replicas[1].active = false;
    draining.replicas[2].broker_epoch = None;
    bench.see(draining);
    bench.fetch(2, 100);
    bench.fetch(3, 100);
    assert_eq!(bench.propose(), None);
    bench.see(view(9, 5, &[1], 1));
    assert_eq!(bench.propose(), Some(Change::Expand(vec![(BrokerId(2), 2)])), "3 has to fetch again");
}

#[test]
fn an_unknown_expansion_counts_until_the_version_moves() {
    let mut bench = Bench::new(&[1], 1);
    bench.fetch(2, 100);
    assert_eq!((bench.hw(), bench.propose()), (100, Some(Change::Expand(vec![(BrokerId(2), 2)]))));
    bench.leader.decided(7, Decision::Unknown, bench.now);
    // 2 has gone; it may be in the ISR all the same.
    let mut gone = view(7, 5, &[1], 1);
    gone.replicas[1].broker_epoch = None;
    bench.see(gone.clone());
    bench.append(110);
    bench.leader.advance(&mut bench.marks, bench.now).unwrap();
    assert_eq!((bench.hw(), bench.propose()), (100, Some(Change::Confirm)));
    for _ in 0..3 {
        bench.leader.decided(7, Decision::Unknown, bench.now);
        assert_eq!(bench.propose(), None, "not at once");
        bench.now += 1000;
        assert_eq!(bench.propose(), Some(Change::Confirm));
    }
    bench.leader.decided(7, Decision::Refused, bench.now);
    assert_eq!(bench.hw(), 100);
    bench.see(PartitionView { version: 8, ..gone });
    assert_eq!((bench.hw(), bench.propose()), (110, None));
}

#[test]
fn a_refused_proposal_no_longer_counts_and_is_made_again_later() {
    let mut bench = Bench::new(&[1], 1);
    bench.fetch(2, 100);
    assert!(bench.propose().is_some());
    bench.append(110);
    bench.leader.decided(6, Decision::Refused, bench.now);
    bench.leader.advance(&mut bench.marks, bench.now).unwrap();
    assert_eq!(bench.hw(), 100, "the end of an older one");
    bench.leader.decided(7, Decision::Refused, bench.now);
    assert_eq!(bench.propose(), None);
    bench.now += 1000;
    assert_eq!(bench.propose(), None, "it has not fetched since");
    bench.fetch(2, 100);
    assert!(bench.propose().is_some());
}

/// Below the minimum the high watermark stands still, so a replica that has left had reached it.
#[test]
fn who_has_stopped_does_not_join_by_what_it_had() {
    let mut bench = Bench::new(&[1, 2], 2);
    bench.append(110);
    bench.fetch(2, 100);
    bench.now = LAG_MS + 1;
    assert_eq!(bench.propose(), Some(Change::Shrink(brokers(&[2]))));
    bench.see(view(8, 5, &[1], 2));
    assert_eq!(bench.propose(), None);
    bench.fetch(2, 100);
    assert_eq!(bench.propose(), Some(Change::Expand(vec![(BrokerId(2), 2)])));
}

/// A follower whose log has failed takes itself out of the ISR, and fetches no more.
#[test]
fn who_gave_its_place_up_is_neither_waited_for_nor_taken_back() {
    let mut bench = Bench::new(&[1, 2, 3], 2);
    bench.append(110);
    bench.fetch(2, 110);
    bench.fetch(3, 110);
    bench.see(view(8, 5, &[1, 2], 2));
    assert_eq!(bench.propose(), None);
    bench.append(120);
    bench.fetch(2, 120);
    assert_eq!(bench.hw(), 120);
    bench.fetch(3, 120);
    assert_eq!(bench.propose(), Some(Change::Expand(vec![(BrokerId(3), 3)])), "it fetches again");
}

#[test]
fn a_failed_log_is_given_up() {
    let mut bench = Bench::new(&[1, 2], 1);
    bench.leader.log_failed();
    assert_eq!(bench.fetch(2, 100), FetchAnswer::Refuse(ErrorCode::KafkaStorageError));
    assert_eq!(bench.hw(), 90);
    assert_eq!(bench.leader.may_append_for_all(), Err(ErrorCode::KafkaStorageError));
    assert_eq!(bench.leader.ack_all(95, 90), AckAll::Refused(ErrorCode::KafkaStorageError));
    assert_eq!(bench.propose(), Some(Change::Resign));
}

#[test]
fn a_place_is_given_up_once_nothing_else_is_due_and_others_are_in_sync() {
    let mut bench = Bench::new(&[1, 2], 1);
    bench.leader.want(Some(Change::Resign));
    assert_eq!(bench.propose(), Some(Change::Resign));
    assert_eq!(bench.leader.may_append_for_all(), Ok(()), "it leads on until then");
    bench.leader.want(Some(Change::HandOver));
    assert_eq!(bench.leader.wanted(), Some(&Change::HandOver));
    let mut alone = Bench::new(&[1], 1);
    alone.leader.want(Some(Change::Resign));
    assert_eq!(alone.propose(), None);
}

/// Random fetches, appends, proposals with every outcome and metadata that follows: the high
/// watermark never passes an end that a member of any ISR which may be in force has told.
#[test]
fn the_high_watermark_stays_within_every_isr_that_may_be_in_force() {
    for seed in 1..400u64 {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut below = |bound: i64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state % u64::try_from(bound).unwrap()) as i64
        };
        let mut bench = Bench::new(&[1, 2, 3], 1);
        // The state as it truly is, commits that may still take effect, what followers told.
        let mut truth = (7, vec![1, 2, 3]);
        let mut strays: Vec<(i32, Vec<i32>)> = Vec::new();
        let mut told = [100; 4];
        for _ in 0..300 {
            bench.now += below(3000);
            match below(7) {
                0 => bench.append(bench.marks.ends().appended + below(5)),
                1 | 2 => {
                    let broker = 2 + below(2) as usize;
                    told[broker] += below(bench.marks.ends().sent - told[broker] + 1);
                    bench.fetch(broker as i32, told[broker]);
                }
                3 => bench.see(view(truth.0, 5, &truth.1.clone(), 1)),
                4 if !strays.is_empty() => {
                    let (based_on, isr) = strays.remove(below(strays.len() as i64) as usize);
                    if based_on == truth.0 {
                        truth = (based_on + 1, isr);
                    }
                }
                _ => {
                    let seen = truth.1.clone();
                    let Some(proposal) = bench.leader.propose(&bench.marks, bench.now) else { continue };
                    let current = proposal.based_on == truth.0;
                    let mut isr = seen;
                    match proposal.change {
                        Change::Expand(joining) => isr.extend(joining.iter().map(|(broker, _)| broker.0)),
                        Change::Shrink(leaving) => isr.retain(|id| !leaving.contains(&BrokerId(*id))),
                        Change::Confirm | Change::Resign | Change::HandOver | Change::Renew => {}
                    }
                    let decision = match (below(3), current) {
                        (0, _) => {
                            strays.extend(current.then_some((proposal.based_on, isr)));
                            Decision::Unknown
                        }
                        (_, true) => {
                            truth = (truth.0 + 1, isr);
                            Decision::Committed
                        }
                        (_, false) => Decision::Refused,
                    };
                    bench.leader.decided(proposal.based_on, decision, bench.now);
                }
            }
            bench.leader.advance(&mut bench.marks, bench.now).unwrap();
            let in_force = strays.iter().filter(|(version, _)| *version == truth.0).map(|(_, isr)| isr);
            for isr in in_force.chain([&truth.1]) {
                for id in isr.iter().filter(|id| **id != 1) {
                    assert!(bench.hw() <= told[*id as usize], "seed {seed}: {} {isr:?} {told:?}", bench.hw());
                }
            }
        }
    }
}

#[test]
fn a_leader_that_hears_of_nobody_may_have_been_replaced() {
    let mut bench = Bench::new(&[1, 2, 3], 2);
    bench.fetch(2, 100);
    bench.now += 20_000;
    bench.fetch(3, 100);
    assert!(!bench.leader.may_be_replaced(bench.now + 60_000), "the metadata store is there");
    bench.leader.set_apart(Some(18_000));
    assert!(!bench.leader.may_be_replaced(bench.now + 17_999), "3 still follows");
    assert!(bench.leader.may_be_replaced(bench.now + 18_000));
    bench.fetch(3, 100);
    bench.now += 20_000;
    bench.fetch(2, 100);
    assert!(!bench.leader.may_be_replaced(bench.now), "2 still follows");
    bench.leader.set_apart(None);
    assert!(!bench.leader.may_be_replaced(bench.now + 60_000));
    // Alone in sync: nobody else can be elected.
    let mut alone = Bench::new(&[1], 1);
    alone.leader.set_apart(Some(18_000));
    assert!(!alone.leader.may_be_replaced(alone.now + 60_000));
}
