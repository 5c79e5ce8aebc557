use std::collections::BTreeMap;

use bytes::Bytes;
use uuid::Uuid;

use super::plan::*;
use crate::client::leader::{PartitionAnswer, ReplicaAnswer, ReplicaFetch, ReplicaPlace};
use crate::model::{BrokerId, ErrorCode, LeaderEpoch, PartitionId};

const ME: (BrokerId, i64) = (BrokerId(3), 9);
const LIMITS: Limits =
    Limits { max_wait_ms: 500, min_bytes: 1, max_bytes: 10_000, partition_max_bytes: 1_000, backoff_ms: 1_000 };

fn id(index: i32) -> PartitionId {
    PartitionId::new(Uuid::from_u128(1), index)
}

fn place(index: i32, epoch: i32, offset: i64) -> ReplicaPlace {
    let partition = id(index);
    ReplicaPlace { partition, leader_epoch: epoch, offset, last_epoch: None, log_start: 0, max_bytes: 1_000 }
}

fn part(index: i32, records: &'static [u8]) -> PartitionAnswer {
    PartitionAnswer {
        partition: id(index),
        error: ErrorCode::None,
        high_watermark: 0,
        log_start: 0,
        diverging: None,
        current_leader: None,
        records: Bytes::from_static(records),
    }
}

fn answer(session_id: i32, partitions: Vec<PartitionAnswer>) -> ReplicaAnswer {
    ReplicaAnswer { error: ErrorCode::None, session_id, partitions }
}

/// The plan's steps for whatever the partition is busy with in an epoch.
trait ByEpoch {
    fn ready_in(&mut self, place: ReplicaPlace);
    fn pause_in(&mut self, id: PartitionId, epoch: LeaderEpoch, now: u64);
    fn stop_in(&mut self, id: PartitionId, epoch: LeaderEpoch);
    fn served_in(&mut self, id: PartitionId, epoch: LeaderEpoch);
}

impl ByEpoch for FetchPlan {
    fn ready_in(&mut self, place: ReplicaPlace) {
        self.ready(self.work(place.partition, LeaderEpoch(place.leader_epoch)), place);
    }

    fn pause_in(&mut self, id: PartitionId, epoch: LeaderEpoch, now: u64) {
        self.pause(self.work(id, epoch), now);
    }

    fn stop_in(&mut self, id: PartitionId, epoch: LeaderEpoch) {
        self.stop(self.work(id, epoch));
    }

    fn served_in(&mut self, id: PartitionId, epoch: LeaderEpoch) {
        self.served(self.work(id, epoch));
    }
}

/// So many partitions in epoch 1, in session 7 of the leader, each from offset 0; the
/// next request has epoch 1.
fn in_session(count: i32) -> FetchPlan {
    let mut plan = FetchPlan::new(LIMITS);
    for index in 0..count {
        plan.assign(id(index), LeaderEpoch(1));
        plan.ready_in(place(index, 1, 0));
    }
    let first = plan.next_request(ME, 100).unwrap();
    assert_eq!((first.session_id, first.session_epoch, first.partitions.len()), (0, 0, count as usize));
    assert_eq!(plan.answered(answer(7, Vec::new()), 110).unwrap(), Taken::Parts(Vec::new()));
    plan
}

fn indexes(request: &ReplicaFetch) -> (Vec<i32>, Vec<i32>) {
    let named = request.partitions.iter().map(|place| place.partition.index.0).collect();
    (named, request.forgotten.iter().map(|id| id.index.0).collect())
}

fn taken(plan: &mut FetchPlan, parts: Vec<PartitionAnswer>, now: u64) -> Vec<i32> {
    match plan.answered(answer(7, parts), now).unwrap() {
        Taken::Parts(parts) => parts.iter().map(|(part, _)| part.partition.index.0).collect(),
        lost => panic!("{lost:?}"),
    }
}

#[test]
fn a_request_names_what_has_changed_and_waits_until_it_is_written() {
    let mut plan = in_session(1_000);
    let idle = plan.next_request(ME, 110).unwrap();
    assert_eq!((idle.session_id, idle.session_epoch, indexes(&idle)), (7, 1, (vec![], vec![])));
    assert_eq!((idle.replica, idle.broker_epoch, idle.max_wait_ms, idle.max_bytes), (ME.0, ME.1, 500, 10_000));
    assert_eq!(plan.next_request(ME, 120), None, "one is under way");
    assert_eq!(taken(&mut plan, vec![part(5, b"r"), part(9, b"r")], 130), [5, 9]);
    assert_eq!(plan.next_request(ME, 131), None, "two are being written");
    plan.ready_in(place(9, 1, 4));
    assert_eq!((plan.next_request(ME, 132), plan.wake_at()), (None, Some(130 + PATIENCE_MS)));
    plan.ready_in(place(5, 1, 2));
    let next = plan.next_request(ME, 133).unwrap();
    assert_eq!((next.session_epoch, next.max_wait_ms), (2, 500));
    assert_eq!(next.partitions, [place(5, 1, 2), place(9, 1, 4)]);
    // Word of a high watermark alone changes no place.
    assert_eq!(taken(&mut plan, vec![part(5, b"")], 140), [5]);
    plan.ready_in(place(5, 1, 2));
    assert_eq!(indexes(&plan.next_request(ME, 141).unwrap()), (vec![], vec![]));
}

#[test]
fn a_slow_write_holds_up_the_others_for_a_moment_only() {
    let mut plan = in_session(3);
    plan.next_request(ME, 110).unwrap();
    taken(&mut plan, vec![part(0, b"r"), part(1, b"r")], 120);
    plan.ready_in(place(0, 1, 1));
    assert_eq!(plan.next_request(ME, 120 + PATIENCE_MS - 1), None);
    let next = plan.next_request(ME, 120 + PATIENCE_MS).unwrap();
    assert_eq!((indexes(&next), u64::from(next.max_wait_ms)), ((vec![0], vec![1]), PATIENCE_MS));
    plan.ready_in(place(1, 1, 1));
    assert_eq!(plan.is_overtaken(), Some(120 + PATIENCE_MS));
    assert_eq!(taken(&mut plan, vec![], 200), [0; 0]);
    assert_eq!(indexes(&plan.next_request(ME, 200).unwrap()), (vec![1], vec![]));
}

#[test]
fn a_refused_partition_pauses_longer_each_time() {
    let mut plan = in_session(2);
    let (mut now, mut pauses) = (200, Vec::new());
    for _ in 0..8 {
        let request = plan.next_request(ME, now).unwrap();
        assert_eq!(request.max_wait_ms, 500);
        assert_eq!(taken(&mut plan, vec![part(1, b"")], now), [1]);
        plan.pause_in(id(1), LeaderEpoch(1), now);
        let without = plan.next_request(ME, now).unwrap();
        assert_eq!(indexes(&without).1, [1]);
        let until = plan.wake_at().unwrap();
        assert_eq!(u64::from(without.max_wait_ms), (until - now).min(500), "the others do not hold it up");
        assert_eq!(plan.rested(until - 1), []);
        assert_eq!(plan.rested(until), [plan.work(id(1), LeaderEpoch(1))]);
        plan.ready_in(place(1, 1, 0));
        taken(&mut plan, vec![], until);
        pauses.push(until - now);
        now = until;
    }
    assert_eq!(pauses, [20, 40, 80, 160, 320, 640, 1_000, 1_000]);
    plan.next_request(ME, now).unwrap();
    taken(&mut plan, vec![part(1, b"")], now);
    plan.served_in(id(1), LeaderEpoch(1));
    plan.pause_in(id(1), LeaderEpoch(1), now);
    assert_eq!(plan.wake_at(), Some(now + 20));
}

#[test]
fn an_answer_for_another_epoch_or_a_partition_that_went_is_dropped() {
    let mut plan = in_session(3);
    plan.next_request(ME, 110).unwrap();
    plan.assign(id(0), LeaderEpoch(2));
    plan.ready_in(place(0, 2, 0));
    plan.remove(id(1));
    assert_eq!(taken(&mut plan, vec![part(0, b"old"), part(1, b"old"), part(2, b"r")], 120), [2]);
    // A step that was begun for the old epoch ends without effect.
    plan.ready_in(place(0, 1, 3));
    plan.pause_in(id(0), LeaderEpoch(1), 120);
    plan.ready_in(place(2, 1, 3));
    let next = plan.next_request(ME, 121).unwrap();
    assert_eq!((next.partitions, next.forgotten), (vec![place(0, 2, 0), place(2, 1, 3)], vec![id(1)]));
    assert_eq!((plan.epoch(id(0)), plan.epoch(id(1))), (Some(LeaderEpoch(2)), None));
}

/// Assigned again in the same epoch: what the first assignment has begun may end while an answer
/// is being carried out. It would have the partition fetched again, and the next answer be
/// carried out beside this one.
#[test]
fn work_of_an_earlier_assignment_changes_nothing() {
    let mut plan = FetchPlan::new(LIMITS);
    let first = plan.assign(id(0), LeaderEpoch(1));
    plan.remove(id(0));
    let second = plan.assign(id(0), LeaderEpoch(1));
    plan.ready(first, place(0, 1, 0));
    assert!(!plan.is_due(id(0)));
    plan.ready(second, place(0, 1, 0));
    plan.next_request(ME, 100).unwrap();
    let Ok(Taken::Parts(parts)) = plan.answered(answer(7, vec![part(0, b"r")]), 110) else { panic!("not taken") };
    for over in [first, second] {
        plan.ready(over, place(0, 1, 0));
        plan.stop(over);
        assert_eq!(plan.pause(over, 110), 0);
        assert!(!plan.is_due(id(0)) && plan.is_current(parts[0].1));
    }
    plan.ready(parts[0].1, place(0, 1, 1));
    assert!(plan.is_due(id(0)));
}

#[test]
fn a_stopped_partition_is_left_out_until_it_is_assigned_again() {
    let mut plan = in_session(2);
    plan.next_request(ME, 110).unwrap();
    taken(&mut plan, vec![part(1, b"r")], 120);
    plan.stop_in(id(1), LeaderEpoch(1));
    plan.ready_in(place(1, 1, 5));
    assert_eq!(indexes(&plan.next_request(ME, 120).unwrap()), (vec![], vec![1]));
    assert_eq!(plan.wake_at(), None);
    plan.assign(id(1), LeaderEpoch(1));
    plan.ready_in(place(1, 1, 5));
    taken(&mut plan, vec![], 130);
    assert_eq!(plan.next_request(ME, 130).unwrap().partitions, [place(1, 1, 5)]);
    // Nothing to ask for, nothing is sent.
    let mut plan = in_session(1);
    plan.next_request(ME, 110).unwrap();
    taken(&mut plan, vec![part(0, b"r")], 120);
    plan.stop_in(id(0), LeaderEpoch(1));
    assert_eq!((plan.next_request(ME, 1_000), plan.wake_at()), (None, None));
}

#[test]
fn a_lost_session_and_a_lost_connection_begin_anew() {
    let mut plan = in_session(3);
    plan.next_request(ME, 110).unwrap();
    let lost = ReplicaAnswer { error: ErrorCode::FetchSessionIdNotFound, ..answer(0, Vec::new()) };
    assert_eq!(plan.answered(lost, 120), Ok(Taken::SessionLost(ErrorCode::FetchSessionIdNotFound)));
    let anew = plan.next_request(ME, 120).unwrap();
    assert_eq!((anew.session_id, anew.session_epoch, indexes(&anew)), (0, 0, (vec![0, 1, 2], vec![])));
    plan.disconnected();
    plan.remove(id(1));
    let anew = plan.next_request(ME, 130).unwrap();
    assert_eq!((anew.session_id, anew.session_epoch, indexes(&anew)), (0, 0, (vec![0, 2], vec![])));
    assert_eq!(taken(&mut plan, vec![part(2, b"r")], 140), [2]);
}

#[test]
fn a_leader_that_keeps_no_session_is_asked_for_everything_each_time() {
    let mut plan = FetchPlan::new(LIMITS);
    for index in 0..2 {
        plan.assign(id(index), LeaderEpoch(1));
        plan.ready_in(place(index, 1, 0));
    }
    for _ in 0..3 {
        let request = plan.next_request(ME, 100).unwrap();
        assert_eq!((request.session_id, request.session_epoch, request.partitions.len()), (0, 0, 2));
        assert!(
            matches!(plan.answered(answer(0, vec![part(0, b"")]), 110), Ok(Taken::Parts(parts)) if parts.len() == 1)
        );
        plan.ready_in(place(0, 1, 0));
    }
    // And one that ends it: the answer counts still.
    let mut plan = in_session(2);
    plan.next_request(ME, 110).unwrap();
    assert!(matches!(plan.answered(answer(0, vec![part(0, b"r")]), 110), Ok(Taken::Parts(parts)) if parts.len() == 1));
    plan.ready_in(place(0, 1, 1));
    assert_eq!(plan.next_request(ME, 120).unwrap().partitions, [place(0, 1, 1), place(1, 1, 0)]);
}

#[test]
fn what_was_not_asked_is_no_answer() {
    let asked = || {
        let mut plan = in_session(2);
        plan.next_request(ME, 110).unwrap();
        plan
    };
    // Nothing of it is taken: the others are asked for again.
    let mut plan = asked();
    assert_eq!(plan.answered(answer(7, vec![part(0, b"r"), part(5, b"r")]), 120), Err(Mismatch::NotAsked(id(5))));
    plan.disconnected();
    assert_eq!(indexes(&plan.next_request(ME, 130).unwrap()).0, [0, 1]);
    assert_eq!(asked().answered(answer(7, vec![part(1, b"r"), part(1, b"r")]), 120), Err(Mismatch::NotAsked(id(1))));
    let other = asked().answered(answer(8, Vec::new()), 120);
    assert_eq!(other, Err(Mismatch::OtherSession { found: 8, wanted: 7 }));
    let failed = ReplicaAnswer { error: ErrorCode::UnknownServerError, ..answer(7, Vec::new()) };
    assert_eq!(asked().answered(failed, 120), Err(Mismatch::Refused(ErrorCode::UnknownServerError)));
}

#[test]
fn a_partition_that_joins_overtakes_a_request_that_waits() {
    let mut plan = in_session(1);
    plan.next_request(ME, 110).unwrap();
    plan.assign(id(4), LeaderEpoch(1));
    assert_eq!(plan.is_overtaken(), None, "its log is not ready");
    plan.ready_in(place(4, 1, 0));
    assert_eq!(plan.is_overtaken(), Some(110));
    plan.disconnected();
    assert_eq!(indexes(&plan.next_request(ME, 130).unwrap()).0, [0, 4]);
    assert_eq!(plan.is_overtaken(), None);
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// The leader's session, and what of it must be right.
#[derive(Default)]
struct Leader {
    epoch: i32,
    places: BTreeMap<PartitionId, ReplicaPlace>,
}

impl Leader {
    fn take(&mut self, request: &ReplicaFetch) {
        if request.session_epoch == 0 {
            *self = Leader::default();
        } else {
            assert_eq!(request.session_epoch, self.epoch);
        }
        self.epoch = request.session_epoch + 1;
        for place in &request.partitions {
            assert_ne!(self.places.insert(place.partition, *place), Some(*place), "a place named without need");
        }
        for id in &request.forgotten {
            assert!(self.places.remove(id).is_some(), "forgotten without need");
        }
        let ids: Vec<_> = request.partitions.iter().map(|place| place.partition).collect();
        assert!(ids.is_sorted(), "{ids:?}");
    }
}

/// Any sequence of events: the leader's session is always what the partitions that are due want,
/// each partition gets answers to its own place only, and none is left behind in the end.
#[test]
fn the_session_is_what_the_partitions_want() {
    const PARTITIONS: u64 = 6;
    for seed in 1..400_u64 {
        let mut random = Random(seed);
        let (mut plan, mut leader, mut now) = (FetchPlan::new(LIMITS), Leader::default(), 1_000);
        // Each partition as the driver has it: epoch, offset, and whether a step for it is under
        // way.
        let mut own: BTreeMap<PartitionId, (i32, i64, bool)> = BTreeMap::new();
        let mut asked = false;
        for step in 0..200 {
            let ending = step > 150;
            now += random.below(40);
            for Work { partition, .. } in plan.rested(now) {
                own.get_mut(&partition).unwrap().2 = true;
            }
            let index = random.below(PARTITIONS) as i32;
            match random.below(if ending { 3 } else { 7 }) {
                0 | 1 if asked => {
                    asked = false;
                    let parts = leader.places.keys().filter(|_| random.below(2) == 0);
                    let parts = parts.map(|id| part(id.index.0, b"r")).collect();
                    let Taken::Parts(parts) = plan.answered(answer(7, parts), now).unwrap() else { panic!("lost") };
                    for (part, _) in parts {
                        let (epoch, offset, busy) = own.get_mut(&part.partition).expect("it is followed");
                        assert!(!*busy);
                        let place = leader.places[&part.partition];
                        assert_eq!((place.leader_epoch, place.offset), (*epoch, *offset), "seed {seed}");
                        (*offset, *busy) = (*offset + 1, true);
                    }
                }
                0..=2 => {
                    let busy = own.iter_mut().filter(|(_, own)| own.2);
                    for (id, (epoch, offset, busy)) in busy {
                        *busy = false;
                        match random.below(8) {
                            0 if !ending => {
                                plan.pause_in(*id, LeaderEpoch(*epoch), now);
                            }
                            _ => plan.ready_in(place(id.index.0, *epoch, *offset)),
                        }
                    }
                }
                3 => {
                    let (epoch, offset, _) = own.get(&id(index)).copied().unwrap_or_default();
                    own.insert(id(index), (epoch + 1, offset, true));
                    plan.assign(id(index), LeaderEpoch(epoch + 1));
                }
                4 => {
                    own.remove(&id(index));
                    plan.remove(id(index));
                }
                _ if random.below(5) == 0 => {
                    plan.disconnected();
                    asked = false;
                }
                _ => {}
            }
            if let Some(request) = plan.next_request(ME, now) {
                assert!(!asked);
                asked = true;
                leader.take(&request);
                let due = own.iter().filter(|(_, own)| !own.2).map(|(id, own)| (*id, own.1));
                let known: Vec<_> = leader.places.iter().map(|(id, place)| (*id, place.offset)).collect();
                let due: Vec<_> = due.filter(|(id, _)| plan.is_due(*id)).collect();
                assert_eq!(known, due, "seed {seed}, step {step}");
            }
        }
    }
}
