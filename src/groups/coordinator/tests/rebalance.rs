//! From generation to generation: how long is waited, and for whom.

use super::fixture::*;
use crate::groups::api::JoinRequest;
use crate::groups::record::Record;
use crate::model::ErrorCode;

#[test]
fn the_first_generation_waits_longer_as_long_as_members_come_up_to_the_rebalance_timeout() {
    // When members come, and when the generation begins, in seconds.
    let cases: [(&[u64], u64); 4] = [
        (&[0], 3),
        (&[0, 2], 6),
        (&[0, 2, 5], 9),
        // The last one may wait 10 s in all.
        (&[0, 2, 5, 8, 9], 10),
    ];
    for (comes_at, begins_at) in cases {
        let mut world = World::default();
        let mut tickets = Vec::new();
        for at in comes_at {
            let ms = at * 1000 - world.mono_ms;
            world.pass(ms);
            tickets.push(world.ask(JoinRequest { rebalance_timeout_ms: 10_000, ..join("g", "") }));
        }
        let ms = begins_at * 1000 - 1 - world.mono_ms;
        world.pass(ms);
        assert_eq!(world.state("g"), "PreparingRebalance", "{comes_at:?}");
        world.pass(1);
        assert_eq!(world.state("g"), "CompletingRebalance", "{comes_at:?}");
        assert!(tickets.into_iter().all(|ticket| world.joined(ticket).unwrap().error == ErrorCode::None));
    }
}

#[test]
fn without_an_initial_delay_the_first_generation_begins_at_once() {
    let mut config = World::default().config;
    config.initial_rebalance_delay_ms = 0;
    let mut world = World::with(config);
    let ticket = world.ask(join("g", ""));
    world.pass(0);
    assert_eq!(world.joined(ticket).unwrap().generation, 1);
}

#[test]
fn who_does_not_join_again_in_time_is_left_behind() {
    let mut world = World::default();
    let mut patient = join("g", "");
    patient.session_timeout_ms = 1_000_000;
    let (generation, ids) = world.stable("g", vec![patient.clone(), patient.clone(), patient.clone()]);
    let second = world.ask(JoinRequest { member_id: ids[1].clone(), ..offering(patient.clone(), &["range"]) });
    world.pass(REBALANCE_MS as u64 - 1);
    assert!(world.joined(second).is_none());
    world.pass(1);
    let reply = world.joined(second).unwrap();
    assert_eq!((reply.generation, reply.leader, reply.members.len()), (generation + 1, ids[1].clone(), 1));
    for gone in [&ids[0], &ids[2]] {
        assert_eq!(world.heartbeat("g", generation, gone), ErrorCode::UnknownMemberId);
    }
}

#[test]
fn the_leader_stays_if_it_joins_again() {
    let mut world = World::default();
    let (_, ids) = world.stable("g", vec![join("g", ""), join("g", "")]);
    let second = world.ask(offering(join("g", &ids[1]), &["range"]));
    let first = world.ask(join("g", &ids[0]));
    assert_eq!(world.joined(second).unwrap().leader, ids[0]);
    assert_eq!(world.joined(first).unwrap().leader, ids[0]);
}

#[test]
fn members_that_do_not_ask_for_their_assignment_are_left_behind() {
    for leader_syncs in [false, true] {
        let mut world = World::default();
        let mut patient = join("g", "");
        patient.session_timeout_ms = 1_000_000;
        let tickets = [world.ask(patient.clone()), world.ask(patient.clone())];
        let replies = world.all_joined(&tickets);
        let (leader, follower) = (replies[0].member_id.as_str(), replies[1].member_id.as_str());
        let syncing = if leader_syncs {
            world.ask(assign("g", 1, leader, &[leader, follower]))
        } else {
            world.ask(sync("g", 1, follower))
        };
        world.pass(REBALANCE_MS as u64);
        assert_eq!(world.state("g"), "PreparingRebalance", "leader syncs: {leader_syncs}");
        let (stays, goes) = if leader_syncs { (leader, follower) } else { (follower, leader) };
        let expected = if leader_syncs { ErrorCode::None } else { ErrorCode::RebalanceInProgress };
        assert_eq!(world.synced(syncing).unwrap().error, expected);
        assert_eq!(world.heartbeat("g", 1, stays), ErrorCode::RebalanceInProgress);
        assert_eq!(world.heartbeat("g", 1, goes), ErrorCode::UnknownMemberId);
    }
}

#[test]
fn who_comes_while_the_leader_assigns_interrupts_it() {
    let mut world = World::default();
    let tickets = [world.ask(join("g", "")), world.ask(join("g", ""))];
    let ids: Vec<String> = world.all_joined(&tickets).into_iter().map(|reply| reply.member_id).collect();
    let follower = world.ask(sync("g", 1, &ids[1]));
    let newcomer = world.ask(join("g", ""));
    assert_eq!(world.synced(follower).unwrap().error, ErrorCode::RebalanceInProgress);
    let late = world.call(assign("g", 1, &ids[0], &[&ids[0], &ids[1]]));
    assert_eq!(late.error, ErrorCode::RebalanceInProgress);
    for id in &ids {
        world.ask(join("g", id));
    }
    assert_eq!(world.joined(newcomer).unwrap().generation, 2);
    let stale = world.call(assign("g", 1, &ids[0], &[&ids[0]]));
    assert_eq!(stale.error, ErrorCode::IllegalGeneration);
}

#[test]
fn the_last_one_to_leave_empties_the_group_and_that_is_written() {
    let mut world = World::default();
    let (generation, ids) = world.stable("g", vec![join("g", "")]);
    world.call(leave("g", &[(&ids[0], None)]));
    let Some(Record::Classic { value: Some(value), .. }) = world.records.first() else { panic!("{:?}", world.records) };
    assert_eq!((value.generation, value.members.len(), value.leader.as_ref()), (generation + 1, 0, None));
    assert_eq!((value.protocol_type.as_str(), value.protocol.as_ref()), ("consumer", None));
    assert_eq!(world.state("g"), "Empty");
    // The next generation waits for company again.
    let ticket = world.ask(join("g", ""));
    world.pass(2999);
    assert!(world.joined(ticket).is_none());
    world.pass(1);
    assert_eq!(world.joined(ticket).unwrap().generation, generation + 2);
}

#[test]
fn a_group_whose_first_members_all_leave_while_they_wait_becomes_empty() {
    let mut world = World::default();
    let ticket = world.ask(join_static("g", "", "i"));
    world.call(leave("g", &[("", Some("i"))]));
    assert_eq!(world.joined(ticket).unwrap().error, ErrorCode::UnknownMemberId);
    world.pass(60_000);
    assert_eq!(world.state("g"), "Empty");
}

#[test]
fn a_new_member_whose_client_is_gone_does_not_wait_for_ever() {
    let mut world = World::default();
    let mut patient = join("g", "");
    (patient.session_timeout_ms, patient.rebalance_timeout_ms) = (1_000_000, 1_000_000);
    let (_, ids) = world.stable("g", vec![patient.clone()]);
    let newcomer = world.ask(join("g", ""));
    world.pass(299_999);
    assert!(world.joined(newcomer).is_none());
    world.pass(1);
    assert_eq!(world.joined(newcomer).unwrap().error, ErrorCode::UnknownMemberId);
    let leader = world.ask(JoinRequest { member_id: ids[0].clone(), ..patient });
    assert_eq!(world.joined(leader).unwrap().members.len(), 1);
}
