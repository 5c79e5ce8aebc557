//! JoinGroup: who is taken in, and what each is told.

use super::fixture::*;
use crate::groups::api::{JoinReply, JoinRequest};
use crate::model::ErrorCode;

#[test]
fn members_that_come_together_begin_one_generation_and_only_the_leader_is_told_who_they_are() {
    let mut world = World::default();
    let first = world.ask(join("g", ""));
    let second = world.ask(join("g", ""));
    assert_eq!((world.joined(first), world.state("g")), (None, "PreparingRebalance"));
    let replies = world.all_joined(&[first, second]);
    let [first, second] = &replies[..] else { panic!() };
    assert_eq!((first.error, first.generation, first.protocol.as_deref()), (ErrorCode::None, 1, Some("range")));
    assert_eq!((first.protocol_type.as_deref(), first.skip_assignment), (Some("consumer"), false));
    assert!(first.member_id.starts_with("client-") && first.member_id.len() == "client-".len() + 36);
    assert_eq!((&first.leader, &second.leader), (&first.member_id, &first.member_id));
    let members: Vec<&str> = first.members.iter().map(|member| member.member_id.as_str()).collect();
    assert_eq!(members, [first.member_id.as_str(), second.member_id.as_str()]);
    assert_eq!(first.members[0].metadata, subscription(&["t"]));
    assert!(second.members.is_empty());
    assert_eq!(world.state("g"), "CompletingRebalance");
}

#[test]
fn a_new_dynamic_member_comes_back_with_the_id_that_it_is_given() {
    let mut world = World::default();
    let ask = |id: &str| JoinRequest { requires_known_member: true, ..join("g", id) };
    let told = world.call(ask(""));
    assert_eq!((told.error, told.generation, told.leader.as_str()), (ErrorCode::MemberIdRequired, -1, ""));
    assert_eq!(world.state("g"), "Empty");
    let ticket = world.ask(ask(&told.member_id));
    world.pass(3000);
    let reply = world.joined(ticket).unwrap();
    assert_eq!((reply.error, &reply.member_id, reply.generation), (ErrorCode::None, &told.member_id, 1));
    // Static members have a name already.
    let ticket = world.ask(JoinRequest { instance_id: Some("i".into()), ..ask("") });
    assert!(world.joined(ticket).is_none());
}

#[test]
fn who_does_not_come_back_in_time_is_forgotten_and_no_longer_waited_for() {
    let mut world = World::default();
    let (generation, ids) = world.stable("g", vec![join("g", "")]);
    let told = world.call(JoinRequest { requires_known_member: true, ..join("g", "") });
    let leader = world.ask(join("g", &ids[0]));
    assert!(world.joined(leader).is_none(), "the one to come is waited for");
    world.pass(SESSION_MS as u64 - 1);
    assert!(world.joined(leader).is_none());
    world.pass(1);
    assert_eq!(world.joined(leader).map(|reply| reply.generation), Some(generation + 1));
    let late = world.call(join("g", &told.member_id));
    assert_eq!((late.error, late.member_id), (ErrorCode::UnknownMemberId, told.member_id));
}

#[test]
fn joins_that_cannot_be_are_turned_away() {
    let mut world = World::default();
    let (_, ids) = world.stable("g", vec![join("g", "")]);
    let cases: Vec<(JoinRequest, ErrorCode, &str)> = vec![
        (join("", "x"), ErrorCode::InvalidGroupId, "x"),
        (JoinRequest { session_timeout_ms: 5999, ..join("g", "x") }, ErrorCode::InvalidSessionTimeout, "x"),
        (JoinRequest { session_timeout_ms: 1_800_001, ..join("g", "") }, ErrorCode::InvalidSessionTimeout, ""),
        (join("unknown group", "x"), ErrorCode::UnknownMemberId, "x"),
        (join("g", "x"), ErrorCode::UnknownMemberId, "x"),
        (JoinRequest { protocol_type: "connect".into(), ..join("g", "") }, ErrorCode::InconsistentGroupProtocol, ""),
        (offering(join("g", ""), &["other"]), ErrorCode::InconsistentGroupProtocol, ""),
        (offering(join("g", &ids[0]), &["other"]), ErrorCode::InconsistentGroupProtocol, &ids[0]),
        (offering(join("new", ""), &[]), ErrorCode::InconsistentGroupProtocol, ""),
        (JoinRequest { protocol_type: "".into(), ..join("new", "") }, ErrorCode::InconsistentGroupProtocol, ""),
        (join_static("g", &ids[0], "i"), ErrorCode::UnknownMemberId, &ids[0]),
    ];
    for (request, error, member_id) in cases {
        let shown = format!("{request:?}");
        assert_eq!(world.call(request), JoinReply::refused(error, member_id), "{shown}");
    }
    assert_eq!((world.state("new"), world.state("g")), ("none", "Stable"), "nothing came of it");
}

#[test]
fn the_protocol_is_the_one_that_most_prefer_of_those_that_all_support() {
    let mut world = World::default();
    let offers: [&[&str]; 3] = [&["a", "b", "c"], &["x", "b", "c"], &["c", "b"]];
    let tickets = offers.map(|offer| world.ask(offering(join("g", ""), offer)));
    let replies = world.all_joined(&tickets);
    assert!(replies.iter().all(|reply| reply.protocol.as_deref() == Some("b")));
    assert_eq!(replies[0].members[2].metadata, "as b");
    // A later member has to support what all the others do; "b" is still what most want.
    let refused = world.call(offering(join("g", ""), &["a"]));
    assert_eq!(refused.error, ErrorCode::InconsistentGroupProtocol);
}

#[test]
fn a_name_that_is_offered_twice_counts_once() {
    let mut world = World::default();
    let ticket = world.ask(offering(join("g", ""), &["a", "a"]));
    let other = world.ask(offering(join("g", ""), &["a"]));
    let replies = world.all_joined(&[ticket, other]);
    assert!(replies.iter().all(|reply| reply.protocol.as_deref() == Some("a")));
}

#[test]
fn joining_again_changes_nothing_for_a_follower_but_begins_a_rebalance_for_the_leader_and_for_news() {
    let mut world = World::default();
    let (generation, ids) = world.stable("g", vec![join("g", ""), join("g", "")]);
    let same = world.call(join("g", &ids[1]));
    assert_eq!((same.error, same.generation, same.members.len()), (ErrorCode::None, generation, 0));
    assert_eq!(world.state("g"), "Stable");

    let news = JoinRequest { protocols: vec![("range".into(), subscription(&["u"]))], ..join("g", &ids[1]) };
    let news = world.ask(news);
    assert_eq!(world.state("g"), "PreparingRebalance");
    assert_eq!(world.heartbeat("g", generation, &ids[0]), ErrorCode::RebalanceInProgress);
    let leader = world.ask(join("g", &ids[0]));
    let reply = world.joined(leader).unwrap();
    assert_eq!((reply.generation, reply.members.len()), (generation + 1, 2));
    assert_eq!(world.joined(news).unwrap().generation, generation + 1);

    // The answer was lost: before the leader has assigned, it is given again, to the
    // leader with the members.
    let again = world.call(join("g", &ids[0]));
    assert_eq!((again.generation, again.members.len()), (generation + 1, 2));
    assert_eq!(world.state("g"), "CompletingRebalance");

    world.call(assign("g", generation + 1, &ids[0], &[&ids[0], &ids[1]]));
    let leader = world.ask(join("g", &ids[0]));
    assert_eq!((world.joined(leader), world.state("g")), (None, "PreparingRebalance"));
}

#[test]
fn a_second_join_of_one_member_takes_the_place_of_the_first() {
    let mut world = World::default();
    let (_, ids) = world.stable("g", vec![join("g", ""), join("g", "")]);
    let first = world.ask(join("g", &ids[0]));
    let second = world.ask(join("g", &ids[0]));
    assert_eq!(world.joined(first).unwrap().error, ErrorCode::RebalanceInProgress);
    assert!(world.joined(second).is_none());
    let other = world.ask(join("g", &ids[1]));
    assert_eq!(world.joined(second).unwrap().error, ErrorCode::None);
    assert_eq!(world.joined(other).unwrap().error, ErrorCode::None);
}

#[test]
fn ids_fit_into_records_whatever_the_client_calls_itself() {
    let mut world = World::default();
    let mut request = join("g", "");
    request.caller.client_id = "ü".repeat(16_383);
    let ticket = world.ask(request);
    world.pass(3000);
    let id = world.joined(ticket).unwrap().member_id;
    assert!(id.len() <= i16::MAX as usize && id.starts_with("üü"));
    world.call(assign("g", 1, &id, &[&id]));
    assert_eq!(world.state("g"), "Stable");
}
