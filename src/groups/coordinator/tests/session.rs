//! SyncGroup, Heartbeat, LeaveGroup and sessions.

use super::fixture::*;
use crate::config::GroupConfig;
use crate::groups::api::*;
use crate::groups::record::Record;
use crate::model::ErrorCode;

#[test]
fn a_sync_waits_for_the_leader_and_the_generation_is_written_before_anybody_is_told() {
    let mut world = World::default();
    let tickets = [world.ask(join("g", "")), world.ask(join("g", ""))];
    let ids: Vec<String> = world.all_joined(&tickets).into_iter().map(|reply| reply.member_id).collect();
    let follower = world.ask(sync("g", 1, &ids[1]));
    assert_eq!((world.synced(follower), world.state("g")), (None, "CompletingRebalance"));
    let leader = world.call(assign("g", 1, &ids[0], &[&ids[1], "stranger"]));
    assert_eq!((leader.error, leader.assignment.len()), (ErrorCode::None, 0), "the leader left itself out");
    let [Record::Classic { value: Some(value), .. }] = &world.records[..] else { panic!("{:?}", world.records) };
    assert_eq!((value.generation, value.leader.as_ref()), (1, Some(&ids[0])));
    let given: Vec<usize> = value.members.iter().map(|member| member.assignment.len()).collect();
    assert_eq!((value.members.len(), given), (2, vec![0, "for ".len() + ids[1].len()]));
    assert_eq!(value.members[0].subscription, subscription(&["t"]));
    let follower = world.synced(follower).unwrap();
    assert_eq!(follower.assignment, format!("for {}", ids[1]));
    assert_eq!((follower.protocol_type.as_deref(), follower.protocol.as_deref()), (Some("consumer"), Some("range")));
    // A member that asks once more is told the same.
    assert_eq!(world.call(sync("g", 1, &ids[1])), follower);
}

#[test]
fn a_second_sync_of_one_member_takes_the_place_of_the_first() {
    let mut world = World::default();
    let tickets = [world.ask(join("g", "")), world.ask(join("g", ""))];
    let ids: Vec<String> = world.all_joined(&tickets).into_iter().map(|reply| reply.member_id).collect();
    let first = world.ask(sync("g", 1, &ids[1]));
    let second = world.ask(sync("g", 1, &ids[1]));
    assert_eq!(world.synced(first).unwrap().error, ErrorCode::RebalanceInProgress);
    world.call(assign("g", 1, &ids[0], &[&ids[1]]));
    assert_eq!(world.synced(second).unwrap().error, ErrorCode::None);
}

#[test]
fn syncs_and_heartbeats_are_checked() {
    let mut world = World::default();
    let (generation, ids) = world.stable("g", vec![join_static("g", "", "i"), join("g", "")]);
    let id = ids[0].as_str();
    let with = |instance: &str, request: SyncRequest| SyncRequest { instance_id: Some(instance.into()), ..request };
    let named = |name: &str| SyncRequest { protocol: Some(name.into()), ..sync("g", generation, id) };
    let typed = |name: &str| SyncRequest { protocol_type: Some(name.into()), ..sync("g", generation, id) };
    let cases = [
        (sync("", 1, id), ErrorCode::InvalidGroupId),
        (sync("unknown", 1, id), ErrorCode::UnknownMemberId),
        (sync("g", generation, "x"), ErrorCode::UnknownMemberId),
        (sync("g", generation - 1, id), ErrorCode::IllegalGeneration),
        (sync("g", generation + 1, id), ErrorCode::IllegalGeneration),
        (with("i", sync("g", generation, id)), ErrorCode::None),
        (with("i", sync("g", generation, &ids[1])), ErrorCode::FencedInstanceId),
        (with("j", sync("g", generation, id)), ErrorCode::UnknownMemberId),
        (named("range"), ErrorCode::None),
        (named("other"), ErrorCode::InconsistentGroupProtocol),
        (typed("consumer"), ErrorCode::None),
        (typed("connect"), ErrorCode::InconsistentGroupProtocol),
    ];
    for (request, error) in cases {
        let beat = HeartbeatRequest {
            group: request.group.clone(),
            generation: request.generation,
            member_id: request.member_id.clone(),
            instance_id: request.instance_id.clone(),
        };
        let shown = format!("{request:?}");
        assert_eq!(world.call(request).error, error, "{shown}");
        let expected = if error == ErrorCode::InconsistentGroupProtocol { ErrorCode::None } else { error };
        assert_eq!(world.call(beat).error, expected, "heartbeat as {shown}");
    }
}

#[test]
fn a_member_is_kept_by_its_heartbeats_and_goes_when_they_end() {
    let mut world = World::default();
    let (generation, ids) = world.stable("g", vec![join("g", ""), join("g", "")]);
    for _ in 0..5 {
        world.pass(SESSION_MS as u64 - 1);
        for id in &ids {
            assert_eq!(world.heartbeat("g", generation, id), ErrorCode::None);
        }
    }
    world.pass(SESSION_MS as u64 - 1);
    assert_eq!(world.heartbeat("g", generation, &ids[0]), ErrorCode::None);
    world.pass(1);
    assert_eq!(world.heartbeat("g", generation, &ids[1]), ErrorCode::UnknownMemberId);
    assert_eq!(world.heartbeat("g", generation, &ids[0]), ErrorCode::RebalanceInProgress);
    let left = world.ask(join("g", &ids[0]));
    assert_eq!(world.joined(left).unwrap().members.len(), 1);
}

#[test]
fn who_waits_needs_no_heartbeats() {
    let mut world = World::default();
    let mut patient = join("g", "");
    patient.session_timeout_ms = 1_000_000;
    let (generation, ids) = world.stable("g", vec![join("g", ""), patient]);
    let leader = world.ask(join("g", &ids[0]));
    world.pass(2 * SESSION_MS as u64);
    assert_eq!(world.heartbeat("g", generation, &ids[1]), ErrorCode::RebalanceInProgress);
    world.ask(JoinRequest { session_timeout_ms: 1_000_000, ..join("g", &ids[1]) });
    assert_eq!(world.joined(leader).unwrap().members.len(), 2);
    let leader_sync = world.ask(sync("g", generation + 1, &ids[1]));
    assert!(world.synced(leader_sync).is_none());
}

#[test]
fn leaving_is_answered_member_by_member() {
    let mut world = World::default();
    let (generation, ids) = world.stable("g", vec![join("g", ""), join("g", ""), join_static("g", "", "i")]);
    let pending = world.call(JoinRequest { requires_known_member: true, ..join("g", "") }).member_id;
    let request = leave(
        "g",
        &[
            (&ids[1], None),
            (&ids[1], None),
            ("", Some("i")),
            ("", Some("j")),
            ("", None),
            (&ids[0], Some("i")),
            (&pending, None),
        ],
    );
    let reply = world.call(request);
    assert_eq!(reply.error, ErrorCode::None);
    let errors: Vec<ErrorCode> = reply.members.iter().map(|member| member.error).collect();
    let (ok, unknown) = (ErrorCode::None, ErrorCode::UnknownMemberId);
    assert_eq!(errors, [ok, unknown, ok, unknown, unknown, unknown, ok]);
    assert_eq!(reply.members[2].instance_id.as_deref(), Some("i"));
    assert_eq!(world.heartbeat("g", generation, &ids[0]), ErrorCode::RebalanceInProgress);
    let left = world.ask(join("g", &ids[0]));
    assert_eq!(world.joined(left).unwrap().members.len(), 1);

    let reply = world.call(leave("unknown", &[("a", None), ("", Some("i"))]));
    assert_eq!((reply.error, reply.members.len()), (ErrorCode::None, 2));
    assert!(reply.members.iter().all(|member| member.error == ErrorCode::UnknownMemberId));
    assert_eq!(world.call(leave("", &[])).error, ErrorCode::InvalidGroupId);
}

#[test]
fn the_name_of_another_is_no_way_to_make_it_leave() {
    let mut world = World::default();
    let (generation, ids) = world.stable("g", vec![join_static("g", "", "i"), join("g", "")]);
    let reply = world.call(leave("g", &[(&ids[1], Some("i"))]));
    assert_eq!(reply.members[0].error, ErrorCode::FencedInstanceId);
    assert_eq!(world.heartbeat("g", generation, &ids[0]), ErrorCode::None);
}

#[test]
fn who_was_only_told_to_come_leaves_without_a_rebalance() {
    let mut world = World::default();
    world.stable("g", vec![join("g", "")]);
    let pending = world.call(JoinRequest { requires_known_member: true, ..join("g", "") }).member_id;
    world.call(leave("g", &[(&pending, None)]));
    assert_eq!(world.state("g"), "Stable");
}

#[test]
fn who_leaves_is_not_owed_anything_any_more() {
    let mut world = World::default();
    let tickets = [world.ask(join("g", "")), world.ask(join("g", ""))];
    let ids: Vec<String> = world.all_joined(&tickets).into_iter().map(|reply| reply.member_id).collect();
    let waiting = world.ask(sync("g", 1, &ids[1]));
    world.call(leave("g", &[(&ids[1], None)]));
    assert_eq!(world.synced(waiting).unwrap().error, ErrorCode::UnknownMemberId);

    let waiting = world.ask(join("h", ""));
    world.call(leave("h", &[("client-00000000-0000-0000-0000-000000000003", None)]));
    assert_eq!(world.joined(waiting).unwrap(), JoinReply::refused(ErrorCode::UnknownMemberId, ""));
}

#[test]
fn a_session_that_ended_while_the_sync_waited_begins_anew_with_its_answer() {
    for leader_assigns in [true, false] {
        let mut world = World::default();
        let patient = JoinRequest { session_timeout_ms: 1_000_000, ..join("g", "") };
        let tickets = [world.ask(patient), world.ask(join("g", ""))];
        let ids: Vec<String> = world.all_joined(&tickets).into_iter().map(|reply| reply.member_id).collect();
        let follower = world.ask(sync("g", 1, &ids[1]));
        world.pass(2 * SESSION_MS as u64);
        assert!(world.synced(follower).is_none());
        if leader_assigns {
            world.call(assign("g", 1, &ids[0], &[]));
        } else {
            world.ask(join("g", ""));
        }
        assert!(world.synced(follower).is_some());
        world.pass(SESSION_MS as u64 - 1);
        assert!(world.has_member("g", &ids[1]), "{leader_assigns}");
        world.pass(1);
        assert!(!world.has_member("g", &ids[1]), "{leader_assigns}");
    }
}

/// Not a grid of some hundred milliseconds: what the shard sleeps until is exactly the deadline.
#[test]
fn a_session_ends_at_its_millisecond() {
    let mut world = World::default();
    let (generation, ids) = world.stable("g", vec![join("g", ""), join("g", "")]);
    world.pass(1_234);
    world.heartbeat("g", generation, &ids[0]);
    world.pass(17);
    world.heartbeat("g", generation, &ids[1]);
    let first = world.mono_ms - 17 + SESSION_MS as u64;
    assert_eq!(world.coordinator.next_deadline(), Some(first));
    world.pass(first - 1 - world.mono_ms);
    assert!(world.has_member("g", &ids[0]));
    world.pass(1);
    assert!(!world.has_member("g", &ids[0]) && world.has_member("g", &ids[1]));
    assert_eq!((world.mono_ms, world.state("g")), (first, "PreparingRebalance"));
}

#[test]
fn without_an_initial_delay_the_first_join_is_due_at_once() {
    let mut world = World::with(GroupConfig { initial_rebalance_delay_ms: 0, ..GroupConfig::default() });
    world.pass(77);
    let ticket = world.ask(join("g", ""));
    if world.owed.contains(&ticket) {
        assert_eq!(world.coordinator.next_deadline(), Some(77));
        world.pass(0);
    }
    assert_eq!(world.joined(ticket).map(|reply| reply.generation), Some(1));
}
