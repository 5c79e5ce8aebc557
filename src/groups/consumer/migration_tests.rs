//! Groups between the two protocols. Requests go the way that all requests go.

use bytes::Bytes;

use super::embedded::{Named, Subscription, read_assignment, write_subscription};
use super::fakes::{World, beat, join};
use crate::groups::api::{
    Caller, ConsumerHeartbeatRequest, HeartbeatRequest, JoinReply, JoinRequest, LeaveRequest, LeavingMember, Reply,
    SyncReply, SyncRequest,
};
use crate::groups::coordinator::Group;
use crate::groups::record::Record;
use crate::model::ErrorCode;

fn subscription(topics: &[&str], owned: &[i32]) -> Bytes {
    let owned = if owned.is_empty() { Named::new() } else { vec![("t".to_owned(), owned.to_vec())] };
    let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
    write_subscription(1, &Subscription { topics, owned, rack_id: None })
}

fn classic_join(member: &str, owned: &[i32]) -> JoinRequest {
    JoinRequest {
        group: "g".into(),
        caller: Caller { client_id: "classic".into(), client_host: "/127.0.0.1".into() },
        member_id: member.into(),
        instance_id: None,
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 60_000,
        protocol_type: "consumer".into(),
        protocols: vec![
            ("cooperative-sticky".into(), subscription(&["t"], owned)),
            ("range".into(), subscription(&["t"], owned)),
        ],
        requires_known_member: false,
        supports_skipping_assignment: false,
        reason: None,
    }
}

fn sync(member: &str, generation: i32) -> SyncRequest {
    SyncRequest {
        group: "g".into(),
        generation,
        member_id: member.into(),
        instance_id: None,
        protocol_type: Some("consumer".into()),
        protocol: Some("cooperative-sticky".into()),
        assignments: Vec::new(),
    }
}

fn classic_beat(world: &mut World, member: &str, generation: i32) -> ErrorCode {
    let request = HeartbeatRequest { group: "g".into(), generation, member_id: member.into(), instance_id: None };
    world.ask(request).error
}

fn assigned(reply: &SyncReply) -> Vec<i32> {
    assert_eq!(reply.error, ErrorCode::None, "{reply:?}");
    read_assignment(&reply.assignment).unwrap().partitions.into_iter().flat_map(|(_, partitions)| partitions).collect()
}

fn given(assignment: Option<Vec<(uuid::Uuid, Vec<i32>)>>) -> Vec<i32> {
    assignment.into_iter().flatten().flat_map(|(_, partitions)| partitions).collect()
}

fn reply_to_join(world: &mut World, ticket: crate::coordinator::Ticket) -> JoinReply {
    match world.reply(ticket) {
        Reply::Join(reply) => reply,
        other => panic!("{other:?}"),
    }
}

/// A stable classic group of one member, which has all four partitions; its id and generation.
fn classic_group() -> (World, String, i32) {
    let mut world = World::of(&[("t", 4)]);
    let ticket = world.send(classic_join("", &[]));
    world.pass(3000);
    let joined = reply_to_join(&mut world, ticket);
    let (member, generation) = (joined.member_id, joined.generation);
    let all = super::embedded::write_assignment(&subscription(&["t"], &[]), [("t", vec![0, 1, 2, 3])].into_iter());
    let request = SyncRequest { assignments: vec![(member.clone(), all)], ..sync(&member, generation) };
    assert_eq!(assigned(&world.ask(request)), [0, 1, 2, 3]);
    (world, member, generation)
}

fn is_consumer_group(world: &World) -> bool {
    matches!(world.coordinator.groups["g"], Group::Consumer(_))
}

fn check_replay(world: &mut World) {
    let live = world.coordinator.list();
    let replayed = world.reloaded();
    assert_eq!(replayed.list(), live);
    if let (Group::Consumer(live), Group::Consumer(replayed)) = (&world.coordinator.groups["g"], &replayed.groups["g"])
    {
        assert_eq!(replayed.as_logged(), live.as_logged());
    }
}

/// The whole way there and back, with a cooperative consumer in between.
#[test]
fn a_group_is_upgraded_and_downgraded() {
    let (mut world, classic, generation) = classic_group();
    let reply = world.heartbeat(join("new", &["t"]));
    assert_eq!((reply.error, reply.member_epoch, given(reply.assignment)), (ErrorCode::None, generation + 1, vec![]));
    assert!(is_consumer_group(&world));
    check_replay(&mut world);
    // The classic member is told to join again, lets go, and joins again once more.
    assert_eq!(classic_beat(&mut world, &classic, generation), ErrorCode::RebalanceInProgress);
    let joined = world.ask(classic_join(&classic, &[0, 1, 2, 3]));
    assert_eq!((joined.error, joined.generation, joined.leader.as_str()), (ErrorCode::None, generation, ""));
    let kept = assigned(&world.ask(sync(&classic, generation)));
    assert_eq!(kept.len(), 2);
    assert_eq!(given(world.heartbeat(beat("new", generation + 1)).assignment), [] as [i32; 0]);
    assert_eq!(
        classic_beat(&mut world, &classic, generation),
        ErrorCode::RebalanceInProgress,
        "it has to say that it let go"
    );
    let joined = world.ask(classic_join(&classic, &kept));
    assert_eq!(joined.generation, generation + 1);
    assert_eq!(assigned(&world.ask(sync(&classic, generation + 1))), kept);
    assert_eq!(classic_beat(&mut world, &classic, generation + 1), ErrorCode::None);
    assert_eq!(given(world.heartbeat(beat("new", generation + 1)).assignment).len(), 2);
    check_replay(&mut world);
    // The last who uses the consumer protocol leaves.
    assert_eq!(world.heartbeat(beat("new", -1)).error, ErrorCode::None);
    assert!(!is_consumer_group(&world));
    assert!(world.reloaded().list().iter().all(|group| group.kind == "classic"));
    assert_eq!(classic_beat(&mut world, &classic, generation + 1), ErrorCode::RebalanceInProgress);
    let ticket = world.send(classic_join(&classic, &kept));
    world.pass(3000);
    let joined = reply_to_join(&mut world, ticket);
    assert_eq!((joined.error, joined.generation, joined.leader), (ErrorCode::None, generation + 2, classic));
}

#[test]
fn classic_members_wait_for_what_others_have() {
    let (mut world, classic, generation) = classic_group();
    world.heartbeat(join("new", &["t"]));
    world.ask(classic_join(&classic, &[0, 1, 2, 3]));
    world.ask(classic_join(&classic, &[0, 1]));
    let epoch = generation + 1;
    world.heartbeat(beat("new", epoch));
    // A second classic member: it is given nothing until others have let go,
    // and is told when they have.
    let joined = world.ask(classic_join("", &[]));
    let (second, its) = (joined.member_id, joined.generation);
    assert_eq!(its, epoch + 1);
    assert_eq!(assigned(&world.ask(sync(&second, its))), [] as [i32; 0]);
    assert_eq!(classic_beat(&mut world, &second, its), ErrorCode::None);
    let request =
        ConsumerHeartbeatRequest { owned: Some(vec![(world.topics.id("t"), vec![2, 3])]), ..beat("new", epoch) };
    let kept = given(world.heartbeat(request).assignment);
    if !kept.is_empty() {
        let owned = vec![(world.topics.id("t"), kept)];
        world.heartbeat(ConsumerHeartbeatRequest { owned: Some(owned), ..beat("new", epoch) });
    }
    // Of whichever member was to give it a partition.
    let joined = world.ask(classic_join(&classic, &[0, 1]));
    let kept = assigned(&world.ask(sync(&classic, joined.generation)));
    world.ask(classic_join(&classic, &kept));
    assert_eq!(classic_beat(&mut world, &second, its), ErrorCode::RebalanceInProgress);
    let joined = world.ask(classic_join(&second, &[]));
    assert_eq!(assigned(&world.ask(sync(&second, joined.generation))).len(), 1);
    check_replay(&mut world);
}

#[test]
fn silent_classic_members_are_put_out() {
    let (mut world, classic, generation) = classic_group();
    world.heartbeat(join("new", &["t"]));
    assert_eq!(classic_beat(&mut world, &classic, generation), ErrorCode::RebalanceInProgress);
    for _ in 0..5 {
        world.pass(5000);
        world.heartbeat(beat("new", generation + 1));
    }
    assert_eq!(classic_beat(&mut world, &classic, generation), ErrorCode::RebalanceInProgress);
    // Its own session timeout counts; and the time to join again runs from when it was told first.
    for _ in 0..6 {
        world.pass(6000);
        classic_beat(&mut world, &classic, generation);
        world.heartbeat(beat("new", generation + 1));
    }
    assert_eq!(classic_beat(&mut world, &classic, generation), ErrorCode::UnknownMemberId);
    let reply = world.heartbeat(beat("new", generation + 2));
    let now = given(reply.assignment).len() + given(world.heartbeat(beat("new", reply.member_epoch)).assignment).len();
    let Group::Consumer(group) = &world.coordinator.groups["g"] else { panic!("downgraded") };
    assert_eq!(
        (group.members.len(), group.members["new"].current.assigned.values().map(|all| all.len()).sum::<usize>()),
        (1, 4),
        "{now}"
    );
}

#[test]
fn a_classic_member_is_wrong_in_the_usual_ways() {
    let (mut world, classic, generation) = classic_group();
    world.heartbeat(join("new", &["t"]));
    let epoch = generation + 1;
    let mut other = classic_join("", &[]);
    other.protocols = vec![("sticky".into(), subscription(&["t"], &[]))];
    assert_eq!(world.ask(other).error, ErrorCode::InconsistentGroupProtocol, "not known to the other classic member");
    let connect = JoinRequest { protocol_type: "connect".into(), ..classic_join("", &[]) };
    assert_eq!(world.ask(connect).error, ErrorCode::InconsistentGroupProtocol);
    let mut garbled = classic_join("", &[]);
    garbled.protocols[0].1 = Bytes::from_static(b"\0");
    assert_eq!(world.ask(garbled).error, ErrorCode::InconsistentGroupProtocol);
    let told = world.ask(JoinRequest { requires_known_member: true, ..classic_join("", &[]) });
    assert_eq!((told.error, told.member_id.is_empty()), (ErrorCode::MemberIdRequired, false));
    assert_eq!(world.ask(sync(&classic, generation)).error, ErrorCode::RebalanceInProgress);
    assert_eq!(world.ask(sync(&classic, generation + 7)).error, ErrorCode::IllegalGeneration);
    assert_eq!(world.ask(sync("x", generation)).error, ErrorCode::UnknownMemberId);
    assert_eq!(world.ask(sync("new", epoch)).error, ErrorCode::UnknownMemberId, "it uses the other protocol");
    assert_eq!(classic_beat(&mut world, &classic, generation - 1), ErrorCode::IllegalGeneration);
    assert_eq!(classic_beat(&mut world, "new", epoch), ErrorCode::UnknownMemberId);
    let joined = world.ask(classic_join(&classic, &[]));
    let other = SyncRequest { protocol: Some("range".into()), ..sync(&classic, joined.generation) };
    assert_eq!(world.ask(other).error, ErrorCode::InconsistentGroupProtocol);
    let other = SyncRequest { protocol_type: Some("connect".into()), ..sync(&classic, joined.generation) };
    assert_eq!(world.ask(other).error, ErrorCode::InconsistentGroupProtocol);
    world.config.consumer_max_size = 2;
    assert_eq!(world.ask(classic_join("", &[])).error, ErrorCode::GroupMaxSizeReached);
    (world.config.consumer_upgrade, world.config.consumer_downgrade) = (false, false);
    assert_eq!(world.ask(classic_join(&classic, &[])).error, ErrorCode::InconsistentGroupProtocol);
}

#[test]
fn leave_group_takes_any_member_out() {
    let (mut world, classic, generation) = classic_group();
    let fixed = ConsumerHeartbeatRequest { instance_id: Some("i".into()), ..join("new", &["t"]) };
    world.heartbeat(fixed);
    let leaving = |member: &str, instance: Option<&str>| LeavingMember {
        member_id: member.into(),
        instance_id: instance.map(str::to_owned),
        reason: None,
    };
    let members = vec![
        leaving("x", None),
        leaving("x", Some("i")),
        leaving("", Some("j")),
        leaving("", Some("i")),
        leaving(&classic, None),
    ];
    let reply = world.ask(LeaveRequest { group: "g".into(), members });
    let errors: Vec<ErrorCode> = reply.members.iter().map(|member| member.error).collect();
    let unknown = ErrorCode::UnknownMemberId;
    assert_eq!(errors, [unknown, ErrorCode::FencedInstanceId, unknown, ErrorCode::None, ErrorCode::None]);
    assert!(is_consumer_group(&world), "nobody is left to be downgraded for");
    assert_eq!(world.coordinator.list()[0].state, "Empty");
    let _ = generation;
    check_replay(&mut world);
}

#[test]
fn what_cannot_be_upgraded_is_left_alone() {
    let refused = |change: &dyn Fn(&mut World, &str, i32)| {
        let (mut world, member, generation) = classic_group();
        change(&mut world, &member, generation);
        let written = world.log.len();
        assert_eq!(world.heartbeat(join("new", &["t"])).error, ErrorCode::GroupIdNotFound);
        assert!(!is_consumer_group(&world) && world.log.len() == written);
    };
    refused(&|world, _, _| world.config.consumer_upgrade = false);
    refused(&|world, _, _| world.config.consumer_max_size = 0);
    refused(&|world, member, generation| {
        // An assignor with data of its own.
        let ticket = world.send(JoinRequest { reason: Some("again".into()), ..classic_join(member, &[0]) });
        let joined = reply_to_join(world, ticket);
        assert_eq!(joined.generation, generation + 1);
        let with_data = Bytes::from_static(b"\0\0\0\0\0\0\0\0\0\x01x");
        world.ask(SyncRequest { assignments: vec![(member.to_owned(), with_data)], ..sync(member, joined.generation) });
    });
    // A request that is refused leaves the classic group as it is, too.
    let (mut world, member, generation) = classic_group();
    let written = world.log.len();
    let bad = ConsumerHeartbeatRequest { subscribed_regex: Some("(".into()), ..join("new", &["t"]) };
    assert_eq!(world.heartbeat(bad).error, ErrorCode::InvalidRegularExpression);
    assert!(!is_consumer_group(&world) && world.log.len() == written);
    assert_eq!(classic_beat(&mut world, &member, generation), ErrorCode::None);
}

#[test]
fn without_downgrade_the_group_stays() {
    let (mut world, classic, generation) = classic_group();
    world.config.consumer_downgrade = false;
    world.heartbeat(join("new", &["t"]));
    world.heartbeat(beat("new", -1));
    assert!(is_consumer_group(&world));
    world.pass(100);
    let joined = world.ask(classic_join(&classic, &[0, 1, 2, 3]));
    assert_eq!(joined.generation, generation + 2);
    assert_eq!(assigned(&world.ask(sync(&classic, generation + 2))), [0, 1, 2, 3]);
    check_replay(&mut world);
}

/// A static member comes back with the other protocol, both ways.
#[test]
fn a_static_member_changes_its_protocol() {
    let mut world = World::of(&[("t", 4)]);
    let fixed = |instance: &str, request| ConsumerHeartbeatRequest { instance_id: Some(instance.into()), ..request };
    let reply = world.heartbeat(fixed("i", join("new", &["t"])));
    assert_eq!(given(reply.assignment).len(), 4);
    // The only member: the group goes with it to the classic protocol.
    let back = JoinRequest { instance_id: Some("i".into()), ..classic_join("", &[]) };
    let joined = world.ask(back);
    assert_eq!(joined.error, ErrorCode::None);
    assert!(!is_consumer_group(&world));
    assert!(world.reloaded().list().iter().all(|group| group.kind == "classic"));
    let Group::Classic(classic) = &world.coordinator.groups["g"] else { panic!("a consumer group") };
    assert_eq!(classic.members().len(), 1);
    let had = read_assignment(&classic.members()[joined.member_id.as_str()].assignment).unwrap();
    assert_eq!(had.partitions, vec![("t".to_owned(), vec![0, 1, 2, 3])]);
    // And forth again, without having left.
    let reply = world.heartbeat(fixed("i", join("newer", &["t"])));
    assert_eq!((reply.error, given(reply.assignment)), (ErrorCode::None, vec![0, 1, 2, 3]));
    assert!(is_consumer_group(&world));
    check_replay(&mut world);
}

#[test]
fn empty_groups_take_the_protocol_of_who_joins() {
    let (mut world, classic, _) = classic_group();
    let leaving = LeavingMember { member_id: classic, instance_id: None, reason: None };
    world.ask(LeaveRequest { group: "g".into(), members: vec![leaving] });
    world.pass(100_000);
    assert_eq!(world.coordinator.list()[0].state, "Empty");
    let reply = world.heartbeat(join("new", &["t"]));
    assert_eq!((reply.error, given(reply.assignment).len()), (ErrorCode::None, 4));
    assert!(world.log.iter().any(|record| matches!(record, Record::Classic { value: None, .. })));
    check_replay(&mut world);
    world.heartbeat(beat("new", -1));
    let ticket = world.send(classic_join("", &[]));
    world.pass(3000);
    assert_eq!(reply_to_join(&mut world, ticket).error, ErrorCode::None);
    assert!(!is_consumer_group(&world));
    assert!(world.reloaded().list().iter().all(|group| group.kind == "classic"));
}
