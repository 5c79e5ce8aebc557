//! Members with a `group.instance.id` (KIP-345), and leaders that need not assign again (KIP-814).

use super::fixture::*;
use crate::groups::api::{HeartbeatRequest, JoinRequest};
use crate::groups::record::Record;
use crate::model::ErrorCode;

fn beat(member: &str, instance: &str, generation: i32) -> HeartbeatRequest {
    HeartbeatRequest { group: "g".into(), generation, member_id: member.into(), instance_id: Some(instance.into()) }
}

#[test]
fn a_static_member_comes_back_without_a_rebalance_and_its_former_self_is_fenced() {
    // Member that comes back, whether its client can skip assigning; then: members told, told to
    // skip.
    let cases = [(0, true, 2, true), (0, false, 0, false), (1, true, 0, false), (1, false, 0, false)];
    for (who, supports_skipping_assignment, members, skips) in cases {
        let mut world = World::default();
        let (generation, ids) = world.stable("g", vec![join_static("g", "", "i"), join_static("g", "", "j")]);
        let instance = ["i", "j"][who];
        let reply = world.call(JoinRequest { supports_skipping_assignment, ..join_static("g", "", instance) });
        assert_eq!((reply.error, reply.generation), (ErrorCode::None, generation));
        assert_eq!(
            (reply.members.len(), reply.skip_assignment),
            (members, skips),
            "{who} {supports_skipping_assignment}"
        );
        assert!(reply.member_id.starts_with(&format!("{instance}-")) && reply.member_id != ids[who]);
        let [Record::Classic { value: Some(value), .. }] = &world.records[..] else { panic!("{:?}", world.records) };
        assert!(value.members.iter().any(|member| member.member_id == reply.member_id));
        // A leader whose client cannot skip is told that another one leads; else it would assign.
        let leader = if who == 0 && skips { &reply.member_id } else { &ids[0] };
        assert_eq!(&reply.leader, leader);
        assert_eq!(world.state("g"), "Stable");
        let synced = world.call(sync("g", generation, &reply.member_id));
        assert_eq!(synced.assignment, format!("for {}", ids[who]), "what the former self had");
        assert_eq!(world.call(beat(&ids[who], instance, generation)).error, ErrorCode::FencedInstanceId);
        assert_eq!(world.heartbeat("g", generation, &ids[who]), ErrorCode::UnknownMemberId);
        assert_eq!(world.call(beat(&reply.member_id, instance, generation)).error, ErrorCode::None);
        let refused = world.call(join_static("g", &ids[who], instance));
        assert_eq!(refused.error, ErrorCode::FencedInstanceId);
    }
}

#[test]
fn the_session_goes_on_under_the_new_id() {
    let mut world = World::default();
    let (generation, _) = world.stable("g", vec![join_static("g", "", "i")]);
    world.pass(SESSION_MS as u64 / 2);
    let id = world.call(join_static("g", "", "i")).member_id;
    world.pass(SESSION_MS as u64 - 1);
    assert_eq!(world.call(beat(&id, "i", generation)).error, ErrorCode::None);
    world.pass(SESSION_MS as u64);
    assert_eq!((world.call(beat(&id, "i", generation)).error, world.state("g")), (ErrorCode::UnknownMemberId, "Empty"));
}

#[test]
fn one_that_comes_back_with_another_protocol_begins_a_rebalance() {
    let mut world = World::default();
    let both = |instance| offering(join_static("g", "", instance), &["a", "b"]);
    let (generation, ids) = world.stable("g", vec![both("i"), both("j")]);
    let back = world.ask(offering(join_static("g", "", "j"), &["b"]));
    assert_eq!((world.joined(back), world.state("g")), (None, "PreparingRebalance"));
    let first = world.ask(offering(join_static("g", &ids[0], "i"), &["a", "b"]));
    assert_eq!(world.joined(first).unwrap().protocol.as_deref(), Some("b"));
    assert_eq!(world.joined(back).unwrap().generation, generation + 1);
}

#[test]
fn one_that_comes_back_while_the_leader_assigns_begins_a_rebalance() {
    let mut world = World::default();
    let tickets = [world.ask(join_static("g", "", "i")), world.ask(join_static("g", "", "j"))];
    let ids: Vec<String> = world.all_joined(&tickets).into_iter().map(|reply| reply.member_id).collect();
    let fenced = world.ask(sync("g", 1, &ids[1]));
    let back = world.ask(join_static("g", "", "j"));
    assert_eq!(world.synced(fenced).unwrap().error, ErrorCode::FencedInstanceId);
    assert_eq!((world.joined(back), world.state("g")), (None, "PreparingRebalance"));
}

#[test]
fn one_that_comes_back_while_all_join_fences_the_join_that_waits() {
    let mut world = World::default();
    let first = world.ask(join_static("g", "", "i"));
    let second = world.ask(join_static("g", "", "i"));
    let fenced = world.joined(first).unwrap();
    assert_eq!(fenced.error, ErrorCode::FencedInstanceId);
    assert_eq!(world.all_joined(&[second])[0].members.len(), 1);
}

#[test]
fn a_static_member_that_is_away_stays_until_its_session_or_the_sync_ends() {
    let mut world = World::default();
    let mut away = join_static("g", "", "i");
    away.session_timeout_ms = 1_000_000;
    let (generation, ids) =
        world.stable("g", vec![JoinRequest { session_timeout_ms: 1_000_000, ..join("g", "") }, away]);
    let leader = world.ask(JoinRequest { session_timeout_ms: 1_000_000, ..join("g", &ids[0]) });
    let reply = &world.all_joined(&[leader])[0];
    assert_eq!((reply.generation, reply.members.len()), (generation + 1, 2), "the one that is away is assigned to");
    world.call(assign("g", generation + 1, &ids[0], &[&ids[0], &ids[1]]));
    assert_eq!(world.call(beat(&ids[1], "i", generation + 1)).error, ErrorCode::None);
    world.pass(REBALANCE_MS as u64);
    assert_eq!(world.call(beat(&ids[1], "i", generation + 1)).error, ErrorCode::UnknownMemberId);
}

#[test]
fn if_none_but_absent_static_members_are_there_the_rebalance_waits_for_them() {
    let mut world = World::default();
    let impatient = |instance| JoinRequest { rebalance_timeout_ms: 1, ..join_static("g", "", instance) };
    let (generation, ids) = world.stable("g", vec![impatient("i"), impatient("j"), impatient("k")]);
    world.call(leave("g", &[(&ids[2], None)]));
    world.pass(5000);
    assert_eq!(world.state("g"), "PreparingRebalance");
    let back = world.ask(impatient("j"));
    let replies = world.all_joined(&[back]);
    assert_eq!((replies[0].generation, &replies[0].leader), (generation + 1, &replies[0].member_id));
}
