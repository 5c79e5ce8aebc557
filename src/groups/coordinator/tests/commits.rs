//! OffsetCommit, OffsetFetch, OffsetDelete.

use uuid::Uuid;

use super::fixture::*;
use crate::groups::api::*;
use crate::groups::record::Record;
use crate::model::ErrorCode;

fn commit_error(world: &mut World, request: CommitRequest) -> ErrorCode {
    error_of(&world.call(request))
}

#[test]
fn members_commit_with_their_generation_and_nobody_else_does() {
    let mut world = World::default();
    let (generation, ids) = world.stable("g", vec![join_static("g", "", "i"), join("g", "")]);
    let at = |generation, member: &str| commit("g", generation, member, &[("t", 0, 5)]);
    let by = |instance: &str, request: CommitRequest| CommitRequest { instance_id: Some(instance.into()), ..request };
    let cases = [
        (at(generation, &ids[0]), ErrorCode::None),
        (by("i", at(generation, &ids[0])), ErrorCode::None),
        (at(generation - 1, &ids[0]), ErrorCode::IllegalGeneration),
        (at(generation + 1, &ids[0]), ErrorCode::IllegalGeneration),
        (at(-1, &ids[0]), ErrorCode::IllegalGeneration),
        (at(generation, "x"), ErrorCode::UnknownMemberId),
        (at(generation, ""), ErrorCode::UnknownMemberId),
        (at(-1, ""), ErrorCode::UnknownMemberId),
        (by("i", at(generation, &ids[1])), ErrorCode::FencedInstanceId),
        (by("j", at(generation, &ids[1])), ErrorCode::UnknownMemberId),
        (commit("unknown", 1, "x", &[("t", 0, 5)]), ErrorCode::GroupIdNotFound),
    ];
    for (request, error) in cases {
        let shown = format!("{request:?}");
        assert_eq!(commit_error(&mut world, request), error, "{shown}");
        assert_eq!(world.records.is_empty(), error != ErrorCode::None, "{shown}");
    }
    let old = CommitRequest { knows_member_epochs: false, ..commit("unknown", 1, "x", &[("t", 0, 5)]) };
    assert_eq!(commit_error(&mut world, old), ErrorCode::IllegalGeneration);
    assert_eq!(world.state("unknown"), "none");
}

#[test]
fn in_each_state_of_the_group() {
    let mut world = World::default();
    let (generation, ids) = world.stable("g", vec![join("g", ""), join("g", "")]);
    let at = |generation, member: &str| commit("g", generation, member, &[("t", 0, 5)]);
    let leader = world.ask(join("g", &ids[0]));
    assert_eq!(world.state("g"), "PreparingRebalance");
    assert_eq!(
        commit_error(&mut world, at(generation, &ids[1])),
        ErrorCode::None,
        "what was read before the rebalance"
    );
    let follower = world.ask(join("g", &ids[1]));
    world.all_joined(&[leader, follower]);
    assert_eq!(commit_error(&mut world, at(generation + 1, &ids[1])), ErrorCode::RebalanceInProgress);
    assert_eq!(commit_error(&mut world, at(generation, &ids[1])), ErrorCode::IllegalGeneration);
    world.call(leave("g", &[(&ids[0], None), (&ids[1], None)]));
    assert_eq!(world.state("g"), "Empty");
    assert_eq!(commit_error(&mut world, at(generation + 1, &ids[1])), ErrorCode::UnknownMemberId);
    assert_eq!(commit_error(&mut world, at(-1, "")), ErrorCode::None, "an operator resets offsets");
}

#[test]
fn a_commit_counts_as_a_heartbeat() {
    let mut world = World::default();
    let (generation, ids) = world.stable("g", vec![join("g", "")]);
    for _ in 0..3 {
        world.pass(SESSION_MS as u64 - 1);
        assert_eq!(commit_error(&mut world, commit("g", generation, &ids[0], &[("t", 0, 5)])), ErrorCode::None);
    }
    world.pass(SESSION_MS as u64);
    assert_eq!(world.state("g"), "Empty");
}

#[test]
fn without_members_there_is_a_simple_group_and_any_name_will_do() {
    for group in ["g", ""] {
        let mut world = World::default();
        let reply = world.call(commit(group, -1, "", &[("t", 0, 5), ("t", 3, 6), ("u", 0, 7)]));
        assert_eq!((error_of(&reply), reply.topics.len()), (ErrorCode::None, 3));
        assert_eq!(world.records.len(), 3, "the group itself is not written");
        let listed = world.coordinator.list();
        assert_eq!((listed[0].state.as_str(), listed[0].protocol_type.as_str(), listed.len()), ("Empty", "", 1));
        assert_eq!(world.offset(group, "t", 3), 6);
        world.reload();
        assert_eq!((world.offset(group, "u", 0), world.state(group)), (7, "Empty"));
    }
}

#[test]
fn an_offset_is_fetched_as_it_was_committed() {
    let mut world = World::default();
    let mut request = commit("g", -1, "", &[("t", 1, 5), ("s", 0, 9)]);
    request.topics[0].id = Uuid::from_u128(7);
    request.topics[1].partitions[0].leader_epoch = -1;
    world.call(request);
    for reload in [false, true] {
        if reload {
            world.reload();
        }
        let fetch = |topics| FetchOffsetsRequest { group: "g".into(), member: None, topics, require_stable: false };
        let some = world.call(fetch(Some(vec![("t".into(), vec![0, 1]), ("unknown".into(), vec![4])])));
        let none = |index| FetchedOffset {
            index,
            offset: -1,
            leader_epoch: -1,
            metadata: "".into(),
            error: ErrorCode::None,
            topic_id: Uuid::nil(),
        };
        let five =
            FetchedOffset { offset: 5, leader_epoch: 7, metadata: "m".into(), topic_id: Uuid::from_u128(7), ..none(1) };
        let nine = FetchedOffset { offset: 9, metadata: "m".into(), ..none(0) };
        assert_eq!(some.topics, [("t".into(), vec![none(0), five.clone()]), ("unknown".into(), vec![none(4)])]);
        assert_eq!(world.call(fetch(None)).topics, [("s".into(), vec![nine]), ("t".into(), vec![five])]);
    }
    let unknown = FetchOffsetsRequest { group: "x".into(), member: None, topics: None, require_stable: true };
    assert_eq!(world.call(unknown), FetchOffsetsReply { error: ErrorCode::None, topics: Vec::new() });
    assert_eq!(world.offset("x", "t", 0), -1);
}

#[test]
fn metadata_that_is_too_long_costs_its_partition_only() {
    let mut world = World::default();
    let cases =
        [(4096, "a", ErrorCode::None), (4097, "a", ErrorCode::OffsetMetadataTooLarge), (4096, "ü", ErrorCode::None)];
    for (index, (length, text, error)) in cases.into_iter().enumerate() {
        let mut request = commit("g", -1, "", &[("t", 100, 1), ("t", index as i32, 5)]);
        request.topics[1].partitions[0].metadata = text.repeat(length);
        let reply = world.call(request);
        assert_eq!(reply.topics[0].partitions, [(100, ErrorCode::None)]);
        assert_eq!(reply.topics[1].partitions, [(index as i32, error)]);
        assert_eq!(world.offset("g", "t", index as i32), if error == ErrorCode::None { 5 } else { -1 });
    }
}

#[test]
fn offsets_are_deleted_but_not_those_of_topics_that_are_read() {
    let mut world = World::default();
    let (generation, ids) = world.stable("g", vec![join("g", "")]);
    world.call(commit("g", generation, &ids[0], &[("t", 0, 1), ("u", 0, 1), ("u", 1, 1)]));
    let delete = |group: &str| DeleteOffsetsRequest {
        group: group.into(),
        topics: vec![("t".into(), vec![0]), ("u".into(), vec![1, 2])],
    };
    let reply = world.call(delete("g"));
    assert_eq!(reply.error, ErrorCode::None);
    assert_eq!(reply.topics[0].partitions, [(0, ErrorCode::GroupSubscribedToTopic)]);
    assert_eq!(reply.topics[1].partitions, [(1, ErrorCode::None), (2, ErrorCode::None)]);
    let [Record::Offset { partition: 1, value: None, .. }] = &world.records[..] else { panic!("{:?}", world.records) };
    assert_eq!([("t", 0), ("u", 0), ("u", 1)].map(|(topic, index)| world.offset("g", topic, index)), [1, 1, -1]);

    world.call(leave("g", &[(&ids[0], None)]));
    assert_eq!(world.call(delete("g")).topics[0].partitions, [(0, ErrorCode::None)]);
    assert_eq!(world.call(delete("unknown")), DeleteOffsetsReply { error: ErrorCode::GroupIdNotFound, topics: vec![] });
    assert_eq!(world.call(delete("")).error, ErrorCode::InvalidGroupId);
}

#[test]
fn where_it_is_not_known_what_is_read_nothing_is_deleted() {
    let delete = || DeleteOffsetsRequest { group: "g".into(), topics: vec![("t".into(), vec![0])] };
    let mut world = World::default();
    world.stable("g", vec![JoinRequest { protocol_type: "connect".into(), ..join("g", "") }]);
    assert_eq!(world.call(delete()).error, ErrorCode::NonEmptyGroup);

    let mut world = World::default();
    world.stable("g", vec![offering(join("g", ""), &["whose metadata is no subscription"])]);
    assert_eq!(world.call(delete()).topics[0].partitions, [(0, ErrorCode::GroupSubscribedToTopic)]);
}

#[test]
fn many_offsets_of_removed_topics_go_in_steps() {
    let mut world = World::default();
    for group in 0..25 {
        let offsets: Vec<(&str, i32, i64)> = (0..100).map(|index| (["t", "u"][index % 2], index as i32, 1)).collect();
        world.call(commit(&format!("g{group}"), -1, "", &offsets));
    }
    world.call(commit("other", -1, "", &[("v", 0, 1)]));
    world.act(|coordinator, env| coordinator.topics_changed(&["t".into(), "u".into()], env));
    assert_eq!((world.records.len(), world.coordinator.offsets.len()), (1000, 1501));
    world.pass(1000);
    assert_eq!((world.coordinator.offsets.len(), world.offset("other", "v", 0)), (1, 1));
}

#[test]
fn offsets_of_removed_topics_go_but_not_those_of_their_successors() {
    let mut world = World::default();
    let with_id = |group: &str, id: u128| {
        let mut request = commit(group, -1, "", &[("t", 0, 1), ("u", 0, 1)]);
        request.topics[0].id = Uuid::from_u128(id);
        request
    };
    world.call(with_id("old", 1));
    world.call(with_id("new", 2));
    world.call(with_id("unknown", 0));
    world.topics.0.insert("t".into(), Uuid::from_u128(2));
    world.act(|coordinator, env| coordinator.topics_changed(&["t".into()], env));
    assert_eq!(world.records.len(), 2);
    assert_eq!(["old", "new", "unknown"].map(|group| world.offset(group, "t", 0)), [-1, 1, -1]);
    world.topics.0.clear();
    world.act(|coordinator, env| coordinator.topics_changed(&["t".into(), "none".into()], env));
    assert_eq!(["old", "new"].map(|group| world.offset(group, "t", 0)), [-1, -1]);
    assert_eq!(["old", "new"].map(|group| world.offset(group, "u", 0)), [1, 1]);
}
