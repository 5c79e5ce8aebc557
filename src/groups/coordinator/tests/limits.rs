//! `group.max.size` and `corelane.group.max.bytes`.

use bytes::Bytes;

use super::fixture::*;
use crate::config::GroupConfig;
use crate::groups::api::{JoinRequest, SyncRequest};
use crate::model::ErrorCode;

#[test]
fn a_group_takes_as_many_members_as_it_may() {
    let mut world = World::with(GroupConfig { max_size: 2, ..GroupConfig::default() });
    let tickets = [world.ask(join("g", "")), world.ask(join("g", ""))];
    assert_eq!(world.call(join("g", "")).error, ErrorCode::GroupMaxSizeReached);
    let ids: Vec<String> = world.all_joined(&tickets).into_iter().map(|reply| reply.member_id).collect();
    assert_eq!(world.call(join("g", "")).error, ErrorCode::GroupMaxSizeReached);
    world.call(assign("g", 1, &ids[0], &[]));
    assert_eq!(world.call(join("g", "")).error, ErrorCode::GroupMaxSizeReached);
    assert_eq!(world.call(join("g", &ids[1])).error, ErrorCode::None, "a member stays one");
}

#[test]
fn a_static_member_comes_back_to_a_full_group() {
    let mut world = World::with(GroupConfig { max_size: 1, ..GroupConfig::default() });
    let (generation, _) = world.stable("g", vec![join_static("g", "", "i")]);
    assert_eq!(world.call(join_static("g", "", "i")).generation, generation);
    assert_eq!(world.call(join_static("g", "", "j")).error, ErrorCode::GroupMaxSizeReached);
}

#[test]
fn those_who_were_given_an_id_are_turned_away_too_when_others_were_faster() {
    let mut world = World::with(GroupConfig { max_size: 1, ..GroupConfig::default() });
    let ask = |id: &str| JoinRequest { requires_known_member: true, ..join("g", id) };
    let ids = [(); 2].map(|()| world.call(ask("")).member_id);
    let first = world.ask(ask(&ids[0]));
    assert_eq!(world.call(ask(&ids[1])).error, ErrorCode::GroupMaxSizeReached);
    assert_eq!(world.all_joined(&[first])[0].error, ErrorCode::None);
    world.call(assign("g", 1, &ids[0], &[]));
    let again = world.ask(ask(&ids[0]));
    assert_eq!(world.joined(again).map(|reply| reply.generation), Some(2), "nobody waits for the one turned away");
    assert_eq!(world.call(ask(&ids[1])).error, ErrorCode::GroupMaxSizeReached);
}

#[test]
fn when_the_limit_was_lowered_those_that_join_again_first_stay() {
    let mut world = World::default();
    let (generation, ids) = world.stable("g", vec![join("g", ""), join("g", ""), join("g", "")]);
    world.config.max_size = 2;
    world.reload();
    assert_eq!(world.state("g"), "PreparingRebalance");
    let stay = [world.ask(join("g", &ids[2])), world.ask(join("g", &ids[1]))];
    assert_eq!(world.call(join("g", &ids[0])).error, ErrorCode::GroupMaxSizeReached);
    let replies = world.all_joined(&stay);
    assert!(replies.iter().all(|reply| reply.generation == generation + 1));
    assert_eq!(world.heartbeat("g", generation + 1, &ids[0]), ErrorCode::UnknownMemberId);
}

fn heavy(id: &str, bytes: usize) -> JoinRequest {
    JoinRequest { protocols: vec![("range".into(), Bytes::from(vec![0; bytes]))], ..join("g", id) }
}

#[test]
fn what_members_bring_is_bounded() {
    let mut world = World::with(GroupConfig { max_group_bytes: 10_000, ..GroupConfig::default() });
    assert_eq!(world.call(heavy("", 10_000)).error, ErrorCode::GroupMaxSizeReached);
    assert_eq!(world.state("g"), "none");
    let (_, ids) = world.stable("g", vec![heavy("", 4000), heavy("", 4000)]);
    assert_eq!(world.call(heavy("", 2000)).error, ErrorCode::GroupMaxSizeReached);
    assert_eq!(world.call(heavy(&ids[1], 6000)).error, ErrorCode::GroupMaxSizeReached);
    assert_eq!(world.state("g"), "Stable", "nothing came of it");
    // Its former metadata does not count twice.
    let changed = world.ask(heavy(&ids[1], 4500));
    let leader = world.ask(heavy(&ids[0], 4000));
    assert_eq!(world.all_joined(&[changed, leader])[0].error, ErrorCode::None);
}

#[test]
fn many_protocols_cost_what_they_take_and_no_time() {
    let mut world = World::default();
    let many = |count: u32| JoinRequest {
        protocols: (0..count).map(|name| (name.to_string(), Bytes::new())).collect(),
        ..join("g", "")
    };
    assert_eq!(world.call(many(200_000)).error, ErrorCode::GroupMaxSizeReached, "25 MB at least");
    let ticket = world.ask(many(100_000));
    assert_eq!(world.all_joined(&[ticket])[0].error, ErrorCode::None);
}

#[test]
fn a_member_that_grows_too_much_while_all_join_is_not_waited_for() {
    let mut world = World::with(GroupConfig { max_group_bytes: 10_000, ..GroupConfig::default() });
    let (generation, ids) = world.stable("g", vec![heavy("", 4000), heavy("", 4000)]);
    let leader = world.ask(heavy(&ids[0], 4000));
    assert_eq!(world.call(heavy(&ids[1], 6000)).error, ErrorCode::GroupMaxSizeReached);
    assert_eq!(world.joined(leader).unwrap().members.len(), 1);
    assert_eq!(world.heartbeat("g", generation + 1, &ids[1]), ErrorCode::UnknownMemberId);
}

#[test]
fn what_the_leader_assigns_is_bounded() {
    let mut world = World::with(GroupConfig { max_group_bytes: 10_000, ..GroupConfig::default() });
    let tickets = [world.ask(join("g", "")), world.ask(join("g", ""))];
    let ids: Vec<String> = world.all_joined(&tickets).into_iter().map(|reply| reply.member_id).collect();
    let follower = world.ask(sync("g", 1, &ids[1]));
    let assignments = vec![(ids[1].clone(), Bytes::from(vec![0; 10_000]))];
    let leader = world.call(SyncRequest { assignments, ..sync("g", 1, &ids[0]) });
    assert_eq!(leader.error, ErrorCode::UnknownServerError);
    assert_eq!(world.synced(follower).unwrap().error, ErrorCode::UnknownServerError);
    assert_eq!((world.state("g"), world.records.len()), ("PreparingRebalance", 0));
    // Assignments to strangers are not kept and do not count.
    let tickets = ids.iter().map(|id| world.ask(join("g", id))).collect::<Vec<_>>();
    world.all_joined(&tickets);
    let assignments = vec![("stranger".into(), Bytes::from(vec![0; 10_000]))];
    let leader = world.call(SyncRequest { assignments, ..sync("g", 2, &ids[0]) });
    assert_eq!(leader.error, ErrorCode::None);
}

#[test]
fn ids_that_nobody_comes_back_with_are_bounded_and_their_room_is_given_back() {
    let mut world = World::with(GroupConfig { max_group_bytes: 100_000, ..GroupConfig::default() });
    let ask = || JoinRequest { requires_known_member: true, ..join("g", "") };
    let mut given = 0;
    while world.call(ask()).error == ErrorCode::MemberIdRequired {
        given += 1;
        assert!(given < 1000);
    }
    assert!(given > 100, "{given}");
    world.pass(SESSION_MS as u64);
    assert_eq!(world.call(ask()).error, ErrorCode::MemberIdRequired);
}

/// Commits of groups that clients make up, each with a name of its own.
fn flood(world: &mut World, from: usize) -> usize {
    (from..)
        .take_while(|n| {
            error_of(&world.call(commit(&format!("made-up-{n}"), -1, "", &[("t", 0, 1)]))) == ErrorCode::None
        })
        .count()
}

#[test]
fn made_up_groups_take_no_more_than_all_groups_may() {
    let mut world = World::limited(1 << 20);
    world.call(commit("well-behaved", -1, "", &[("t", 0, 1)]));
    let made = flood(&mut world, 0);
    assert!((100..1500).contains(&made), "{made}");
    assert!(world.coordinator.bytes() <= 1 << 20);
    assert_eq!(world.state(&format!("made-up-{made}")), "none", "nothing is left of a group that was refused");
    // Groups that exist are served on, also with more offsets: there is a reserve.
    let more: Vec<(&str, i32, i64)> = (0..50).map(|index| ("t", index, 7)).collect();
    assert_eq!(error_of(&world.call(commit("well-behaved", -1, "", &more))), ErrorCode::None);
    assert_eq!(world.call(join("fresh", "")).error, ErrorCode::GroupMaxSizeReached);
    let member = world.ask(join("well-behaved", ""));
    assert_eq!(world.all_joined(&[member])[0].error, ErrorCode::None);
    assert_eq!((world.offset("well-behaved", "t", 49), world.offset("made-up-0", "t", 0)), (7, 1));
}

#[test]
fn offsets_are_refused_one_by_one_where_none_fits_and_moved_where_they_are() {
    let mut world = World::limited(100_000);
    let all: Vec<(&str, i32, i64)> = (0..1000).map(|index| ("t", index, 1)).collect();
    let reply = world.call(commit("g", -1, "", &all));
    let taken = reply.topics.iter().flat_map(|topic| &topic.partitions).filter(|(_, error)| *error == ErrorCode::None);
    let taken = taken.count() as i32;
    assert!((100..1000).contains(&taken), "{taken}");
    assert_eq!(reply.topics[taken as usize].partitions[0].1, ErrorCode::GroupMaxSizeReached);
    assert_eq!((world.offset("g", "t", taken - 1), world.offset("g", "t", taken)), (1, -1));
    assert!(world.coordinator.bytes() <= 100_000);
    let again: Vec<(&str, i32, i64)> = (0..taken).map(|index| ("t", index, 2)).collect();
    assert_eq!(error_of(&world.call(commit("g", -1, "", &again))), ErrorCode::None);
}

#[test]
fn what_a_larger_bound_let_in_is_loaded_and_served() {
    let mut world = World::default();
    for n in 0..1000 {
        world.call(commit(&format!("g{n}"), -1, "", &[("t", 0, 5)]));
    }
    let (_, ids) = world.stable("members", vec![join("members", ""), join("members", "")]);
    world.limit_bytes = 100_000;
    world.reload();
    assert!(world.coordinator.bytes() > world.limit_bytes);
    assert_eq!(world.offset("g999", "t", 0), 5);
    assert_eq!(error_of(&world.call(commit("g999", -1, "", &[("t", 0, 6)]))), ErrorCode::None);
    assert_eq!(error_of(&world.call(commit("g999", -1, "", &[("t", 1, 6)]))), ErrorCode::GroupMaxSizeReached);
    assert_eq!(world.heartbeat("members", 1, &ids[1]), ErrorCode::None);
    let again: Vec<_> = ids.iter().map(|id| world.ask(join("members", id))).collect();
    assert!(world.all_joined(&again).iter().all(|reply| reply.error == ErrorCode::None));
}

/// Joins that nobody comes back for leave groups without anything in them.
#[test]
fn groups_that_nothing_is_left_of_make_room_soon() {
    let mut world = World::limited(1 << 20);
    let ask = |n: usize| JoinRequest { requires_known_member: true, ..join(&format!("g{n}"), "") };
    let made = (0..).take_while(|n| world.call(ask(*n)).error == ErrorCode::MemberIdRequired).count();
    assert!(made > 100, "{made}");
    // Their members-to-be go, and others take the room.
    world.pass(SESSION_MS as u64);
    let more = (made..).take_while(|n| world.call(ask(*n)).error == ErrorCode::MemberIdRequired).count();
    world.pass(2000);
    assert!(world.coordinator.groups.len() <= more, "the first {made} are still there");
    assert_eq!(world.call(ask(0)).error, ErrorCode::MemberIdRequired);
}
