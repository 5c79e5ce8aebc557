//! One rule of KIP-848 a test. The members are played by hand; `simulation` plays many at once.

use super::fakes::{World, beat, join};
use super::group::ConsumerGroup;
use crate::groups::api::{
    CommitPartition, CommitRequest, CommitTopic, ConsumerDescribeReply, ConsumerDescribeRequest,
    ConsumerHeartbeatReply, ConsumerHeartbeatRequest,
};
use crate::groups::coordinator::Group;
use crate::groups::record::{ConsumerRecord, Record};
use crate::model::ErrorCode;

fn group(world: &World) -> &ConsumerGroup {
    match &world.coordinator.groups["g"] {
        Group::Consumer(group) => group,
        other => panic!("{other:?}"),
    }
}

const NONE: [i32; 0] = [];

/// Partitions of the only topic in a reply.
fn given(reply: &ConsumerHeartbeatReply) -> Vec<i32> {
    assert_eq!(reply.error, ErrorCode::None, "{reply:?}");
    reply.assignment.iter().flatten().flat_map(|(_, partitions)| partitions.clone()).collect()
}

fn with_owned(world: &World, member: &str, epoch: i32, partitions: &[i32]) -> ConsumerHeartbeatRequest {
    let owned = if partitions.is_empty() { vec![] } else { vec![(world.topics.id("t"), partitions.to_vec())] };
    ConsumerHeartbeatRequest { owned: Some(owned), ..beat(member, epoch) }
}

fn describe(world: &mut World) -> ConsumerDescribeReply {
    world.ask(ConsumerDescribeRequest { group: "g".into() })
}

fn is_static(instance: &str, request: ConsumerHeartbeatRequest) -> ConsumerHeartbeatRequest {
    ConsumerHeartbeatRequest { instance_id: Some(instance.into()), ..request }
}

#[test]
fn the_first_member_is_given_everything() {
    let mut world = World::of(&[("t", 3)]);
    let reply = world.heartbeat(join("a", &["t"]));
    assert_eq!((reply.member_epoch, reply.heartbeat_interval_ms, reply.member_id.as_deref()), (2, 5000, Some("a")));
    assert_eq!(given(&reply), [0, 1, 2]);
    assert_eq!(group(&world).state_name(), "Stable");
    let kinds: Vec<i16> = world.log.iter().map(|record| i16::from(record.encode().0[1])).collect();
    assert_eq!(kinds, [5, 3, 7, 6, 8]);
    // Nothing new: nothing said, nothing written.
    let written = world.log.len();
    let reply = world.heartbeat(beat("a", 2));
    assert_eq!((reply.member_epoch, reply.assignment.clone(), world.log.len()), (2, None, written));
    // A full heartbeat is answered in full.
    let full = ConsumerHeartbeatRequest { member_epoch: 2, ..join("a", &["t"]) };
    assert_eq!(given(&world.heartbeat(full)), [0, 1, 2]);
}

#[test]
fn a_member_without_an_id_is_given_one() {
    let mut world = World::of(&[("t", 1)]);
    let reply = world.heartbeat(join("", &["t"]));
    assert!(!reply.member_id.unwrap().is_empty());
}

/// The second member gets what the first has let go of, not before.
#[test]
fn partitions_are_revoked_before_they_are_given() {
    let mut world = World::of(&[("t", 4)]);
    world.heartbeat(join("a", &["t"]));
    let reply = world.heartbeat(join("b", &["t"]));
    assert_eq!((reply.member_epoch, given(&reply)), (3, vec![]));
    assert_eq!(group(&world).state_name(), "Reconciling");
    // a is told, and stays at its epoch until it says that it has let go.
    let reply = world.heartbeat(beat("a", 2));
    assert_eq!((reply.member_epoch, given(&reply)), (2, vec![0, 1]));
    let reply = world.heartbeat(with_owned(&world, "a", 2, &[0, 1, 2, 3]));
    assert_eq!((reply.member_epoch, reply.assignment), (2, None));
    assert_eq!(given(&world.heartbeat(beat("b", 3))), NONE);
    let reply = world.heartbeat(with_owned(&world, "a", 2, &[0, 1]));
    assert_eq!((reply.member_epoch, reply.assignment), (3, None));
    let reply = world.heartbeat(beat("b", 3));
    assert_eq!((reply.member_epoch, given(&reply)), (3, vec![2, 3]));
    assert_eq!(group(&world).state_name(), "Stable");
    // a leaves: b is given all at once.
    assert_eq!(world.heartbeat(beat("a", -1)).member_epoch, -1);
    assert_eq!(group(&world).state_name(), "Assigning");
    let reply = world.heartbeat(beat("b", 3));
    assert_eq!((reply.member_epoch, given(&reply)), (4, vec![0, 1, 2, 3]));
    world.heartbeat(beat("b", -1));
    assert_eq!((group(&world).state_name(), group(&world).is_empty()), ("Empty", true));
}

#[test]
fn wrong_epochs_are_fenced() {
    let mut world = World::of(&[("t", 2)]);
    let error = |world: &mut World, request| world.heartbeat(request).error;
    assert_eq!(error(&mut world, beat("a", 2)), ErrorCode::GroupIdNotFound);
    assert_eq!(error(&mut world, beat("a", -1)), ErrorCode::GroupIdNotFound);
    world.heartbeat(join("a", &["t"]));
    assert_eq!(error(&mut world, beat("x", 2)), ErrorCode::UnknownMemberId);
    assert_eq!(error(&mut world, beat("x", -1)), ErrorCode::UnknownMemberId);
    assert_eq!(error(&mut world, beat("a", 3)), ErrorCode::FencedMemberEpoch);
    assert_eq!(error(&mut world, beat("a", 1)), ErrorCode::FencedMemberEpoch);
    // The epoch before, with nothing that it must not have: the reply was lost.
    world.heartbeat(join("b", &["t"]));
    world.heartbeat(beat("a", 2));
    let request = with_owned(&world, "a", 2, &[0]);
    assert_eq!(world.heartbeat(request.clone()).member_epoch, 3);
    assert_eq!(world.heartbeat(request).member_epoch, 3);
    let request = with_owned(&world, "a", 2, &[0, 1]);
    assert_eq!(error(&mut world, request), ErrorCode::FencedMemberEpoch);
    assert_eq!(error(&mut world, beat("a", 2)), ErrorCode::FencedMemberEpoch);
    // It may always begin again, and is told what it has.
    let reply = world.heartbeat(join("a", &["t"]));
    assert_eq!((reply.member_epoch, given(&reply)), (3, vec![0]));
}

#[test]
fn requests_that_are_wrong_by_themselves() {
    let mut world = World::of(&[("t", 2)]);
    let cases = [
        (ConsumerHeartbeatRequest { group: "".into(), ..join("a", &["t"]) }, ErrorCode::InvalidRequest),
        (beat("", 1), ErrorCode::InvalidRequest),
        (beat("", -1), ErrorCode::InvalidRequest),
        (is_static("", join("a", &["t"])), ErrorCode::InvalidRequest),
        (ConsumerHeartbeatRequest { rack_id: Some(String::new()), ..join("a", &["t"]) }, ErrorCode::InvalidRequest),
        (ConsumerHeartbeatRequest { rebalance_timeout_ms: -1, ..join("a", &["t"]) }, ErrorCode::InvalidRequest),
        (ConsumerHeartbeatRequest { owned: None, ..join("a", &["t"]) }, ErrorCode::InvalidRequest),
        (with_owned(&world, "a", 0, &[1]), ErrorCode::InvalidRequest),
        (ConsumerHeartbeatRequest { subscribed_topics: None, ..join("a", &["t"]) }, ErrorCode::InvalidRequest),
        (beat("a", -2), ErrorCode::InvalidRequest),
        (beat("a", -3), ErrorCode::InvalidRequest),
        (join(&"a".repeat(40_000), &["t"]), ErrorCode::InvalidRequest),
        (ConsumerHeartbeatRequest { assignor: Some("x".into()), ..join("a", &["t"]) }, ErrorCode::UnsupportedAssignor),
        (
            ConsumerHeartbeatRequest { subscribed_regex: Some("(".into()), ..join("a", &["t"]) },
            ErrorCode::InvalidRegularExpression,
        ),
    ];
    for (request, error) in cases {
        let reply = world.heartbeat(request.clone());
        assert_eq!(reply.error, error, "{request:?}");
        assert!(reply.message.is_some_and(|message| !message.is_empty()));
    }
    assert!(world.log.is_empty() && world.coordinator.groups.is_empty() && world.coordinator.next_deadline().is_none());
    world.config.consumer_protocol = false;
    assert_eq!(world.heartbeat(join("a", &["t"])).error, ErrorCode::UnsupportedVersion);
}

#[test]
fn groups_have_bounds() {
    let mut world = World::of(&[("t", 2)]);
    world.config.consumer_max_size = 1;
    world.heartbeat(is_static("i", join("a", &["t"])));
    assert_eq!(world.heartbeat(join("b", &["t"])).error, ErrorCode::GroupMaxSizeReached);
    assert_eq!(world.heartbeat(join("", &["t"])).error, ErrorCode::GroupMaxSizeReached);
    assert_eq!(world.heartbeat(is_static("i", beat("a", 2))).error, ErrorCode::None);
    world.heartbeat(is_static("i", beat("a", -2)));
    assert_eq!(world.heartbeat(is_static("i", join("b", &["t"]))).error, ErrorCode::None, "it takes the other's place");
    world.config.consumer_max_size = 10;
    world.config.max_group_bytes = 2000;
    let written = world.log.len();
    let many: Vec<String> = (0..100).map(|number| format!("topic-{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(world.heartbeat(join("c", &many)).error, ErrorCode::GroupMaxSizeReached);
    assert_eq!(world.log.len(), written);
}

#[test]
fn silent_members_are_put_out() {
    let mut world = World::of(&[("t", 2)]);
    world.heartbeat(join("a", &["t"]));
    world.heartbeat(join("b", &["t"]));
    for _ in 0..8 {
        world.pass(5000);
        world.heartbeat(beat("b", 3));
    }
    assert_eq!(group(&world).members.len(), 2);
    world.pass(5000);
    assert_eq!(group(&world).members.len(), 1);
    let reply = world.heartbeat(beat("b", 3));
    assert_eq!((reply.member_epoch, given(&reply)), (4, vec![0, 1]));
    assert_eq!(world.heartbeat(beat("a", 2)).error, ErrorCode::UnknownMemberId);
}

#[test]
fn who_does_not_let_go_in_time_is_put_out() {
    let mut world = World::of(&[("t", 2)]);
    world.heartbeat(ConsumerHeartbeatRequest { rebalance_timeout_ms: 12_000, ..join("a", &["t"]) });
    world.heartbeat(join("b", &["t"]));
    for expected in [2, 2, 1] {
        let request = with_owned(&world, "a", 2, &[0, 1]);
        world.heartbeat(request);
        world.heartbeat(beat("b", 3));
        world.pass(5000);
        assert_eq!(group(&world).members.len(), expected);
    }
    assert_eq!(given(&world.heartbeat(beat("b", 3))), [0, 1]);
}

#[test]
fn topics_that_appear_grow_and_vanish_are_seen() {
    let mut world = World::of(&[("other", 1)]);
    let reply = world.heartbeat(join("a", &["t"]));
    assert_eq!(given(&reply), NONE);
    world.topics.set("t", 2);
    let reply = world.heartbeat(beat("a", reply.member_epoch));
    assert_eq!(given(&reply), [0, 1]);
    world.topics.set("t", 3);
    let reply = world.heartbeat(beat("a", reply.member_epoch));
    assert_eq!(given(&reply), [0, 1, 2]);
    // Another topic changes nothing.
    let written = world.log.len();
    world.topics.set("another", 5);
    assert_eq!(world.heartbeat(beat("a", reply.member_epoch)).member_epoch, reply.member_epoch);
    assert_eq!(world.log.len(), written);
    let request = with_owned(&world, "a", reply.member_epoch, &[0, 1, 2]);
    world.topics.remove("t");
    // It is told to let go, and says that it did.
    let reply = world.heartbeat(request);
    assert_eq!(given(&reply), NONE);
    assert_eq!(reply.assignment, Some(vec![]));
    world.topics.set("t", 1);
    let empty = ConsumerHeartbeatRequest { owned: Some(Vec::new()), ..beat("a", reply.member_epoch) };
    assert_eq!(given(&world.heartbeat(empty)), [0]);
}

#[test]
fn subscriptions_change() {
    let mut world = World::of(&[("t", 2), ("u", 2)]);
    let reply = world.heartbeat(join("a", &["t"]));
    let change = ConsumerHeartbeatRequest {
        subscribed_topics: Some(vec!["u".into()]),
        ..with_owned(&world, "a", reply.member_epoch, &[0, 1])
    };
    let reply = world.heartbeat(change);
    assert_eq!(reply.assignment, Some(vec![]), "t must go first");
    let reply = world.heartbeat(ConsumerHeartbeatRequest { owned: Some(vec![]), ..beat("a", reply.member_epoch) });
    assert_eq!(reply.assignment, Some(vec![(world.topics.id("u"), vec![0, 1])]));
    // The same in another order and twice is the same.
    let written = world.log.len();
    let same = ConsumerHeartbeatRequest {
        subscribed_topics: Some(vec!["u".into(), "u".into()]),
        ..beat("a", reply.member_epoch)
    };
    assert_eq!(world.heartbeat(same).member_epoch, reply.member_epoch);
    assert_eq!(world.log.len(), written);
}

#[test]
fn regular_expressions_are_resolved_and_kept_up() {
    let mut world = World::of(&[("t1", 1), ("t2", 1), ("u", 1)]);
    let by_regex = |regex: &str, request| ConsumerHeartbeatRequest {
        subscribed_regex: Some(regex.into()),
        subscribed_topics: None,
        ..request
    };
    let reply = world.heartbeat(by_regex("t.*", join("a", &[])));
    assert_eq!(reply.assignment.as_ref().map(Vec::len), Some(2));
    assert!(group(&world).is_subscribed_to("t1") && !group(&world).is_subscribed_to("u"));
    world.topics.set("t3", 1);
    let reply = world.heartbeat(beat("a", reply.member_epoch));
    assert_eq!(reply.assignment.as_ref().map(Vec::len), Some(3));
    // Not again within ten seconds.
    world.topics.set("t4", 1);
    assert_eq!(world.heartbeat(beat("a", reply.member_epoch)).assignment, None);
    world.pass(10_000);
    let reply = world.heartbeat(beat("a", reply.member_epoch));
    assert_eq!(reply.assignment.as_ref().map(Vec::len), Some(4));
    assert_eq!(
        world.heartbeat(by_regex("[", beat("a", reply.member_epoch))).error,
        ErrorCode::InvalidRegularExpression
    );
    // The last who subscribes by it takes it along.
    let last = |world: &World| {
        let regexes = world.log.iter().filter_map(|record| match record {
            Record::Consumer(ConsumerRecord::Regex { value, .. }) => Some(value.is_some()),
            _ => None,
        });
        regexes.fold(None, |_, last| Some(last))
    };
    assert_eq!(last(&world), Some(true));
    let owned = ConsumerHeartbeatRequest { owned: Some(vec![]), ..beat("a", reply.member_epoch) };
    let reply = world.heartbeat(by_regex("", owned));
    assert_eq!((reply.assignment, last(&world)), (Some(vec![]), Some(false)));
    let mut second = join("b", &["u"]);
    second.subscribed_regex = Some("t1".into());
    assert_eq!(world.heartbeat(second).assignment.map(|all| all.len()), Some(2), "names and an expression at once");
    world.heartbeat(beat("b", -1));
    assert_eq!(last(&world), Some(false));
    assert!(!group(&world).is_subscribed_to("t1"));
}

#[test]
fn static_members_come_back() {
    let mut world = World::of(&[("t", 4)]);
    world.heartbeat(is_static("i", join("a", &["t"])));
    let second = world.heartbeat(is_static("j", join("b", &["t"])));
    world.heartbeat(is_static("i", beat("a", 2)));
    let request = is_static("i", with_owned(&world, "a", 2, &[0, 1]));
    world.heartbeat(request);
    world.heartbeat(is_static("j", beat("b", second.member_epoch)));
    assert_eq!(world.heartbeat(is_static("i", join("c", &["t"]))).error, ErrorCode::UnreleasedInstanceId);
    assert_eq!(world.heartbeat(is_static("i", beat("c", 3))).error, ErrorCode::FencedInstanceId);
    assert_eq!(world.heartbeat(is_static("i", beat("c", -2))).error, ErrorCode::FencedInstanceId);
    assert_eq!(world.heartbeat(is_static("x", beat("c", -2))).error, ErrorCode::UnknownMemberId);
    let reply = world.heartbeat(is_static("i", beat("a", -2)));
    assert_eq!((reply.error, reply.member_epoch), (ErrorCode::None, -2));
    // Its partitions go to no other member meanwhile.
    let epoch = group(&world).epoch;
    assert_eq!(world.heartbeat(is_static("j", beat("b", 3))).assignment, None);
    let reply = world.heartbeat(is_static("i", join("c", &["t"])));
    assert_eq!((reply.member_epoch, given(&reply), group(&world).epoch), (3, vec![0, 1], epoch));
    assert_eq!(world.heartbeat(is_static("i", beat("a", 3))).error, ErrorCode::FencedInstanceId);
    // One that stays away is put out when its session ends.
    world.heartbeat(is_static("i", beat("c", -2)));
    for _ in 0..10 {
        world.pass(5000);
        world.heartbeat(is_static("j", beat("b", group(&world).members["b"].current.epoch)));
    }
    assert_eq!(group(&world).members["b"].current.assigned[&world.topics.id("t")].len(), 4);
    assert_eq!(group(&world).members.len(), 1);
}

#[test]
fn the_assignor_is_voted_for() {
    let mut world = World::of(&[("t", 2), ("u", 2)]);
    let with = |name: &str, request| ConsumerHeartbeatRequest { assignor: Some(name.into()), ..request };
    world.heartbeat(with("range", join("a", &["t", "u"])));
    assert_eq!(describe(&mut world).assignor, "range");
    world.heartbeat(with("uniform", join("b", &["t", "u"])));
    assert_eq!(describe(&mut world).assignor, "uniform", "as many votes: the broker's first");
    world.heartbeat(with("range", join("c", &["t", "u"])));
    assert_eq!(describe(&mut world).assignor, "range");
}

#[test]
fn groups_are_described() {
    let mut world = World::of(&[("t", 2)]);
    world.heartbeat(join("a", &["t"]));
    world.heartbeat(ConsumerHeartbeatRequest { rack_id: Some("r".into()), ..is_static("i", join("b", &["t"])) });
    world.heartbeat(beat("a", 2));
    let reply = describe(&mut world);
    assert_eq!((reply.state.as_str(), reply.group_epoch, reply.assignment_epoch), ("Reconciling", 3, 3));
    let partitions = |topics: &[crate::groups::api::AssignedTopic]| -> Vec<i32> {
        topics.iter().flat_map(|topic| topic.partitions.clone()).collect()
    };
    let (a, b) = (&reply.members[0], &reply.members[1]);
    // It has what it is still to let go of.
    assert_eq!((partitions(&a.assignment), partitions(&a.target), a.member_epoch), (vec![0, 1], vec![0], 2));
    assert_eq!((partitions(&b.assignment), partitions(&b.target), b.member_epoch), (vec![], vec![1], 3));
    assert_eq!((b.instance_id.as_deref(), b.rack_id.as_deref(), b.kind), (Some("i"), Some("r"), 1));
    assert_eq!((&*a.target[0].name, a.subscribed_topics.clone()), ("t", vec!["t".to_owned()]));
    let mut empty = World::of(&[]);
    assert_eq!(describe(&mut empty).error, ErrorCode::GroupIdNotFound);
}

#[test]
fn commits_are_checked() {
    let mut world = World::of(&[("t", 2)]);
    world.heartbeat(join("a", &["t"]));
    world.heartbeat(join("b", &["t"]));
    world.heartbeat(beat("a", 2));
    let request = with_owned(&world, "a", 2, &[0]);
    world.heartbeat(request);
    let topic = world.topics.id("t");
    let commit = |member: &str, generation: i32, knows: bool, partition: i32| {
        let partition = CommitPartition { index: partition, offset: 1, leader_epoch: -1, metadata: String::new() };
        let topic = CommitTopic { name: "t".into(), id: topic, partitions: vec![partition] };
        let request = CommitRequest {
            group: "g".into(),
            generation,
            member_id: member.into(),
            instance_id: None,
            retention_ms: None,
            knows_member_epochs: knows,
            producer: None,
            topics: vec![topic],
        };
        group(&world).check_commit(&request)
    };
    assert_eq!(commit("a", 3, true, 0), Ok(()));
    assert_eq!(commit("a", 2, true, 0), Ok(()), "it has had it since then");
    assert_eq!(commit("a", 2, true, 1), Err(ErrorCode::StaleMemberEpoch), "it is not its own any more");
    assert_eq!(commit("a", 1, true, 0), Err(ErrorCode::StaleMemberEpoch));
    assert_eq!(commit("a", 4, true, 0), Err(ErrorCode::StaleMemberEpoch));
    assert_eq!(commit("a", 3, false, 0), Err(ErrorCode::UnsupportedVersion));
    assert_eq!(commit("x", 3, true, 0), Err(ErrorCode::UnknownMemberId));
    assert_eq!(commit("", -1, true, 0), Err(ErrorCode::UnknownMemberId), "there are members");
    let fetch = |member: &str, epoch| group(&world).check_fetch(Some(&(member.to_owned(), epoch)));
    assert_eq!((fetch("a", 3), fetch("a", 2)), (Ok(()), Err(ErrorCode::StaleMemberEpoch)));
    assert_eq!((fetch("x", 3), group(&world).check_fetch(None)), (Err(ErrorCode::UnknownMemberId), Ok(())));
    assert_eq!(ConsumerGroup::new("g".into()).check_fetch(None), Ok(()));
}

#[test]
fn tombstones_take_everything_back() {
    let mut world = World::of(&[("t", 2)]);
    world.heartbeat(ConsumerHeartbeatRequest { subscribed_regex: Some("t".into()), ..join("a", &["t"]) });
    world.heartbeat(join("b", &["t"]));
    let tombstones = group(&world).tombstones();
    let written: std::collections::HashSet<Vec<u8>> = world.log.iter().map(|record| record.encode().0).collect();
    let taken: std::collections::HashSet<Vec<u8>> = tombstones.iter().map(|record| record.encode().0).collect();
    assert!(written.is_subset(&taken));
    assert!(tombstones.iter().all(|record| record.encode().1.is_none()));
    world.log.extend(tombstones);
    assert!(world.reloaded().groups.is_empty());
}

/// The old record of subscribed topics' partitions, which Kafka wrote before 4.1, is taken back.
#[test]
fn partition_metadata_of_older_brokers_goes() {
    let mut world = World::of(&[("t", 2)]);
    world.heartbeat(join("a", &["t"]));
    let old = ConsumerRecord::PartitionMetadata { group: "g".into(), present: true };
    world.log.push(Record::Consumer(old));
    world.restart();
    world.heartbeat(beat("a", 2));
    let last = world.log.last().unwrap();
    assert_eq!(*last, Record::Consumer(ConsumerRecord::PartitionMetadata { group: "g".into(), present: false }));
}

/// A member whose state this broker does not know begins again.
#[test]
fn an_unknown_state_is_fenced() {
    let mut world = World::of(&[("t", 2)]);
    world.heartbeat(join("a", &["t"]));
    for record in &mut world.log {
        if let Record::Consumer(ConsumerRecord::Current { value: Some(value), .. }) = record {
            value.state = 55;
        }
    }
    world.coordinator = world.reloaded();
    assert_eq!(world.heartbeat(beat("a", 2)).error, ErrorCode::FencedMemberEpoch);
    assert_eq!(given(&world.heartbeat(join("a", &["t"]))), [0, 1]);
}

#[test]
fn sessions_begin_anew_after_loading() {
    let mut world = World::of(&[("t", 2)]);
    world.heartbeat(ConsumerHeartbeatRequest { rebalance_timeout_ms: 10_000, ..join("a", &["t"]) });
    world.heartbeat(join("b", &["t"]));
    world.heartbeat(beat("a", 2));
    world.restart();
    world.pass(9_999);
    assert_eq!(group(&world).members.len(), 2);
    world.pass(1);
    assert_eq!(group(&world).members.len(), 1, "a did not let go");
    world.pass(45_000);
    assert!(group(&world).is_empty());
}
