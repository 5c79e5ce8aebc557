//! State of a coordinator after it has been loaded.

use bytes::Bytes;

use super::fixture::*;
use crate::groups::api::JoinRequest;
use crate::groups::coordinator::Coordinator;
use crate::groups::record::{ClassicGroupValue, ClassicMemberValue, Record};
use crate::model::ErrorCode;

#[test]
fn members_go_on_as_if_nothing_had_happened_and_their_sessions_begin_anew() {
    let mut world = World::default();
    let (generation, ids) = world.stable("g", vec![join_static("g", "", "i"), join("g", "")]);
    world.call(commit("g", generation, &ids[0], &[("t", 0, 42)]));
    world.pass(SESSION_MS as u64 - 1);
    world.reload();
    assert_eq!((world.state("g"), world.offset("g", "t", 0)), ("Stable", 42));
    world.pass(SESSION_MS as u64 - 1);
    for id in &ids {
        assert_eq!(world.heartbeat("g", generation, id), ErrorCode::None);
    }
    assert_eq!(world.call(sync("g", generation, &ids[1])).assignment, format!("for {}", ids[1]));
    assert_eq!(world.call(join("g", &ids[1])).generation, generation);
    assert_eq!(world.call(join_static("g", "", "i")).generation, generation);
    world.pass(2 * SESSION_MS as u64);
    assert_eq!(world.state("g"), "Empty");
}

#[test]
fn members_that_did_not_survive_the_old_owner_go_after_their_session() {
    let mut world = World::default();
    world.stable("g", vec![join("g", "")]);
    world.reload();
    world.pass(SESSION_MS as u64 - 1);
    assert_eq!(world.state("g"), "Stable");
    world.pass(1);
    assert_eq!(world.state("g"), "Empty");
}

#[test]
fn a_generation_that_nobody_was_assigned_in_is_forgotten() {
    let mut world = World::default();
    let (generation, ids) = world.stable("g", vec![join("g", "")]);
    let ticket = world.ask(join("g", &ids[0]));
    assert_eq!(world.joined(ticket).unwrap().generation, generation + 1);
    world.reload();
    assert_eq!(world.call(sync("g", generation + 1, &ids[0])).error, ErrorCode::IllegalGeneration);
    assert_eq!(world.heartbeat("g", generation, &ids[0]), ErrorCode::None);
}

#[test]
fn a_group_that_was_only_begun_is_there_and_empty() {
    let mut world = World::default();
    let ticket = world.ask(join("g", ""));
    assert!(world.joined(ticket).is_none());
    world.reload();
    assert_eq!(world.state("g"), "Empty");
    let ticket = world.ask(join("g", ""));
    assert_eq!(world.all_joined(&[ticket])[0].generation, 1);
}

fn value(members: Vec<ClassicMemberValue>) -> ClassicGroupValue {
    ClassicGroupValue {
        protocol_type: "consumer".into(),
        generation: 5,
        protocol: Some("range".into()),
        leader: Some("b".into()),
        state_since_ms: 1,
        members,
    }
}

fn member(id: &str, instance: Option<&str>) -> ClassicMemberValue {
    ClassicMemberValue {
        member_id: id.into(),
        instance_id: instance.map(str::to_owned),
        client_id: "c".into(),
        client_host: "/h".into(),
        rebalance_timeout_ms: -1,
        session_timeout_ms: SESSION_MS,
        subscription: subscription(&["t"]),
        assignment: Bytes::from(format!("for {id}")),
    }
}

fn load(world: &mut World, value: ClassicGroupValue) {
    let (key, value) = Record::Classic { group: group_id("g"), value: Some(value) }.encode();
    world.log.push((key, value));
    world.reload();
}

#[test]
fn a_group_of_another_broker_is_taken_over() {
    let mut world = World::default();
    load(&mut world, value(vec![member("a", None), member("b", Some("i"))]));
    assert_eq!(world.heartbeat("g", 5, "a"), ErrorCode::None);
    let reply = world.call(join_static("g", "", "i"));
    assert_eq!((reply.leader == reply.member_id, reply.members.len()), (true, 2));
    // Without a rebalance timeout of its own, a member has its session's time.
    let ticket = world.ask(JoinRequest { instance_id: Some("i".into()), ..join("g", &reply.member_id) });
    world.pass(SESSION_MS as u64);
    assert_eq!(world.all_joined(&[ticket])[0].members.len(), 1);
}

#[test]
fn what_does_not_add_up_in_a_record_does_no_harm() {
    let twice = vec![member("a", Some("i")), member("a", None), member("b", Some("i")), member("c", None)];
    for value in [
        ClassicGroupValue { leader: Some("nobody".into()), ..value(twice.clone()) },
        ClassicGroupValue { leader: None, protocol: None, ..value(twice) },
    ] {
        let mut world = World::default();
        load(&mut world, value);
        assert_eq!(world.state("g"), "Stable");
        assert_eq!(world.heartbeat("g", 5, "b"), ErrorCode::UnknownMemberId);
        let request = offering(join("g", "c"), &["range", ""]);
        let ticket = world.ask(request);
        let other = world.ask(offering(join_static("g", "a", "i"), &["range", ""]));
        let replies = world.all_joined(&[ticket, other]);
        assert_eq!((replies[0].generation, replies[0].leader.as_str()), (6, "a"));
    }
}

#[test]
fn a_record_that_cannot_be_read_leaves_everything_as_it_was() {
    let mut coordinator = Coordinator::default();
    assert!(coordinator.replay(&[], None).is_err());
    assert!(coordinator.replay(&[0, 2, 0, 9, b'g'], None).is_err());
    let (key, value) = Record::Classic { group: group_id("g"), value: Some(value(vec![member("a", None)])) }.encode();
    let value = value.unwrap();
    assert!(coordinator.replay(&key, Some(&value[..value.len() - 1])).is_err());
    assert!(coordinator.groups.is_empty());
    // Kinds of later versions are none of ours.
    assert!(coordinator.replay(&[0, 99, 1, 2, 3], Some(&[1])).is_ok());
}
