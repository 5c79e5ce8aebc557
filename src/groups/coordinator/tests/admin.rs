//! DescribeGroups, ListGroups, DeleteGroups.

use super::fixture::*;
use crate::groups::api::*;
use crate::groups::record::Record;
use crate::model::ErrorCode;

fn describe(world: &mut World, group: &str) -> DescribeReply {
    world.call(DescribeRequest { group: group.into() })
}

fn delete(world: &mut World, group: &str) -> ErrorCode {
    world.call(DeleteRequest { group: group.into() }).error
}

#[test]
fn a_group_is_described_in_each_of_its_states() {
    let mut world = World::default();
    let unknown = describe(&mut world, "g");
    assert_eq!((unknown.error, unknown.state.as_str()), (ErrorCode::GroupIdNotFound, "Dead"));
    assert_eq!(unknown.message.as_deref(), Some("Group g not found."));

    let tickets = [world.ask(join_static("g", "", "i")), world.ask(join("g", ""))];
    let preparing = describe(&mut world, "g");
    assert_eq!((preparing.state.as_str(), preparing.protocol_type.as_str()), ("PreparingRebalance", "consumer"));
    assert_eq!((preparing.protocol.as_str(), preparing.members.len()), ("", 2));
    let ids: Vec<String> = world.all_joined(&tickets).into_iter().map(|reply| reply.member_id).collect();
    let completing = describe(&mut world, "g");
    assert_eq!((completing.state.as_str(), completing.protocol.as_str()), ("CompletingRebalance", ""));
    assert!(completing.members.iter().all(|member| member.metadata.is_empty() && member.assignment.is_empty()));

    world.call(assign("g", 1, &ids[0], &[&ids[0], &ids[1]]));
    let stable = describe(&mut world, "g");
    assert_eq!((stable.error, stable.state.as_str(), stable.protocol.as_str()), (ErrorCode::None, "Stable", "range"));
    let member = stable.members.iter().find(|member| member.member_id == ids[0]).unwrap();
    assert_eq!(member.instance_id.as_deref(), Some("i"));
    assert_eq!((member.caller.client_id.as_str(), member.caller.client_host.as_str()), ("client", "/127.0.0.1"));
    assert_eq!(
        (&member.metadata[..], &member.assignment[..]),
        (&subscription(&["t"])[..], format!("for {}", ids[0]).as_bytes())
    );

    world.call(leave("g", &[(&ids[0], None), (&ids[1], None)]));
    let empty = describe(&mut world, "g");
    assert_eq!((empty.state.as_str(), empty.protocol_type.as_str(), empty.members.len()), ("Empty", "consumer", 0));
}

#[test]
fn groups_are_listed_with_state_and_type() {
    let mut world = World::default();
    world.stable("stable", vec![join("stable", "")]);
    world.call(commit("simple", -1, "", &[("t", 0, 1)]));
    let listed = |group: &str, state: &str, protocol_type: &str| ListedGroup {
        group: group.into(),
        protocol_type: protocol_type.into(),
        state: state.into(),
        kind: "classic".into(),
    };
    let mut groups = world.coordinator.list();
    groups.sort_by(|left, right| left.group.cmp(&right.group));
    assert_eq!(groups, [listed("simple", "Empty", ""), listed("stable", "Stable", "consumer")]);
}

#[test]
fn groups_are_deleted_with_their_offsets_when_nobody_is_in_them() {
    let mut world = World::default();
    assert_eq!(delete(&mut world, "g"), ErrorCode::GroupIdNotFound);
    let (generation, ids) = world.stable("g", vec![join("g", "")]);
    world.call(commit("g", generation, &ids[0], &[("t", 0, 1), ("u", 2, 1)]));
    assert_eq!(delete(&mut world, "g"), ErrorCode::NonEmptyGroup);
    let again = world.ask(join("g", &ids[0]));
    world.joined(again);
    assert_eq!(delete(&mut world, "g"), ErrorCode::NonEmptyGroup);
    world.call(leave("g", &[(&ids[0], None)]));
    assert_eq!(delete(&mut world, "g"), ErrorCode::None);
    let [Record::Offset { value: None, .. }, Record::Offset { value: None, .. }, last] = &world.records[..] else {
        panic!("{:?}", world.records)
    };
    assert_eq!(last, &Record::Classic { group: group_id("g"), value: None });
    assert_eq!((world.state("g"), world.offset("g", "t", 0)), ("none", -1));
    assert_eq!(delete(&mut world, "g"), ErrorCode::GroupIdNotFound);
    assert!(replayed(&world.log).groups.is_empty());
}

#[test]
fn nothing_of_a_deleted_group_comes_back_with_its_name() {
    let mut world = World::default();
    let pending = world.call(JoinRequest { requires_known_member: true, ..join("g", "") }).member_id;
    assert_eq!(delete(&mut world, "g"), ErrorCode::None);
    assert_eq!(world.call(join("g", &pending)).error, ErrorCode::UnknownMemberId);
    world.pass(SESSION_MS as u64 / 2);
    let ticket = world.ask(join("g", ""));
    assert_eq!(world.all_joined(&[ticket])[0].generation, 1);
}
