//! Groups of both protocols, and what is told of them.

use bytes::Bytes;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::{
    ConsumerGroupDescribeRequest, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse, DeleteGroupsRequest,
    DescribeGroupsRequest, FindCoordinatorRequest, GroupId, HeartbeatRequest, JoinGroupRequest, JoinGroupResponse,
    LeaveGroupRequest, ListGroupsRequest, MetadataRequest, SyncGroupRequest, SyncGroupResponse,
};

use crate::support::world::*;

const NO_SUCH_GROUP: &str = "no-such-group";
const NO_SUCH_MEMBER: &str = "no-such-member";
/// A subscription to stock as Kafka's consumers write it; brokers read it, and
/// theirs fail when they cannot.
const SUBSCRIPTION: &[u8] = b"\0\0\0\0\0\x01\0\x05stock\xff\xff\xff\xff";
/// READ, DELETE, DESCRIBE, DESCRIBE_CONFIGS, ALTER_CONFIGS.
const OPERATIONS: i32 = 3400;

pub fn group(id: &str) -> GroupId {
    GroupId(text(id))
}

/// The first to look for a coordinator has the topic of committed offsets made.
pub fn find_coordinator(world: &mut World) {
    let asked = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g"), text("")]);
    let found = world.client.call(6, &asked).coordinators;
    let rows: Vec<_> = found.iter().map(|c| (&*c.key, c.error_code, c.node_id.0)).collect();
    assert_eq!(rows, [("g", 0, BROKER_ID), ("", 0, BROKER_ID)]);
    let all = world.client.call(13, &MetadataRequest::default().with_topics(None)).topics;
    let internal: Vec<_> = all.iter().filter(|topic| topic.is_internal).collect();
    assert_eq!((internal.len(), internal[0].partitions.len()), (1, 50));
    assert_eq!(internal[0].name.as_ref().map(|name| &*name.0), Some("__consumer_offsets"));
    // Clients do not write to it.
    let offsets = Topic { name: "__consumer_offsets".into(), id: internal[0].topic_id };
    let records = batch_of(&[(world.stock_time, "mine".into())]);
    assert_eq!(world.try_produce(&offsets, 0, &records), (code::INVALID_TOPIC_EXCEPTION, -1));
}

pub fn join(version: i16, id: &str, member: &str, protocol: &str) -> JoinGroupRequest {
    let protocol =
        JoinGroupRequestProtocol::default().with_name(text(protocol)).with_metadata(Bytes::from_static(SUBSCRIPTION));
    let request = JoinGroupRequest::default()
        .with_group_id(group(id))
        .with_member_id(text(member))
        .with_session_timeout_ms(30_000)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    if version >= 1 { request.with_rebalance_timeout_ms(30_000) } else { request }
}

/// Joins as the only member, whatever that takes.
fn join_alone(world: &mut World, version: i16, id: &str) -> JoinGroupResponse {
    let first = world.client.call(version, &join(version, id, "", "range"));
    if version < 4 {
        return first;
    }
    assert_eq!((first.error_code, first.generation_id), (code::MEMBER_ID_REQUIRED, -1));
    assert!(!first.member_id.is_empty() && first.leader.is_empty() && first.members.is_empty());
    assert_eq!(first.protocol_name.as_deref(), (version < 7).then_some(""));
    world.client.call(version, &join(version, id, &first.member_id, "range"))
}

/// A stable group of one member: its id and the generation.
pub fn stable(world: &mut World, id: &str) -> (String, i32) {
    let joined = join_alone(world, 5, id);
    assert_eq!(joined.error_code, 0);
    let synced = sync(world, 4, id, (&joined.member_id, joined.generation_id), "range");
    assert_eq!(synced.error_code, 0);
    (joined.member_id.to_string(), joined.generation_id)
}

fn sync(
    world: &mut World,
    version: i16,
    id: &str,
    (member, generation): (&str, i32),
    protocol: &str,
) -> SyncGroupResponse {
    let part =
        SyncGroupRequestAssignment::default().with_member_id(text(member)).with_assignment(Bytes::from_static(b"all"));
    let named = |value: &str| (version >= 5).then(|| text(value));
    let request = SyncGroupRequest::default()
        .with_group_id(group(id))
        .with_member_id(text(member))
        .with_generation_id(generation)
        .with_protocol_type(named("consumer"))
        .with_protocol_name(named(protocol))
        .with_assignments(vec![part]);
    world.client.call(version, &request)
}

pub fn beat(world: &mut World, version: i16, id: &str, (member, generation): (&str, i32)) -> i16 {
    let request = HeartbeatRequest::default()
        .with_group_id(group(id))
        .with_member_id(text(member))
        .with_generation_id(generation);
    world.client.call(version, &request).error_code
}

fn leave(world: &mut World, id: &str, member: &str) {
    let member = MemberIdentity::default().with_member_id(text(member));
    let request = LeaveGroupRequest::default().with_group_id(group(id)).with_members(vec![member]);
    let response = world.client.call(3, &request);
    assert_eq!((response.error_code, response.members[0].error_code), (0, 0));
}

pub fn join_group(world: &mut World, version: i16) {
    let id = format!("join-{version}");
    let joined = join_alone(world, version, &id);
    assert_eq!((joined.error_code, joined.throttle_time_ms, joined.generation_id), (0, 0, 1));
    assert_eq!(joined.protocol_name.as_deref(), Some("range"));
    assert_eq!(joined.protocol_type.as_deref(), (version >= 7).then_some("consumer"));
    assert_eq!((&joined.leader, joined.skip_assignment), (&joined.member_id, false));
    let members: Vec<_> =
        joined.members.iter().map(|m| (&m.member_id, &m.group_instance_id, &m.metadata[..])).collect();
    assert_eq!(members, [(&joined.member_id, &None, SUBSCRIPTION)]);
    assert!(joined.member_id.starts_with("every-version-"), "{}", &*joined.member_id);

    let short = join(version, &id, "mine", "range").with_session_timeout_ms(1);
    for (request, expected, member) in [
        (join(version, "", "mine", "range"), code::INVALID_GROUP_ID, "mine"),
        (short, code::INVALID_SESSION_TIMEOUT, "mine"),
        (join(version, &id, NO_SUCH_MEMBER, "range"), code::UNKNOWN_MEMBER_ID, NO_SUCH_MEMBER),
        (join(version, &id, "", "another"), code::INCONSISTENT_GROUP_PROTOCOL, ""),
    ] {
        let refused = world.client.call(version, &request);
        assert_eq!((refused.error_code, refused.generation_id, &*refused.member_id), (expected, -1, member));
        assert_eq!(refused.protocol_name.as_deref(), (version < 7).then_some(""));
        assert!(refused.members.is_empty());
    }
    leave(world, &id, &joined.member_id);
}

pub fn sync_group(world: &mut World, version: i16) {
    let id = format!("sync-{version}");
    let joined = join_alone(world, 9, &id);
    let member = (&*joined.member_id, joined.generation_id);
    for (id, member, protocol, expected) in [
        ("", member, "range", code::INVALID_GROUP_ID),
        (&*id, (NO_SUCH_MEMBER, 1), "range", code::UNKNOWN_MEMBER_ID),
        (&*id, (member.0, 7), "range", code::ILLEGAL_GENERATION),
        (NO_SUCH_GROUP, member, "range", code::UNKNOWN_MEMBER_ID),
    ] {
        let refused = sync(world, version, id, member, protocol);
        assert_eq!((refused.error_code, refused.assignment.len()), (expected, 0), "{id} {member:?}");
    }
    if version >= 5 {
        let other = sync(world, version, &id, member, "another").error_code;
        assert_eq!(other, code::INCONSISTENT_GROUP_PROTOCOL);
        let unsaid = SyncGroupRequest::default().with_group_id(group(&id)).with_member_id(text(member.0));
        assert_eq!(world.client.call(version, &unsaid).error_code, code::INCONSISTENT_GROUP_PROTOCOL);
    }
    // Twice: the second time it is known already.
    for _ in 0..2 {
        let synced = sync(world, version, &id, member, "range");
        assert_eq!((synced.error_code, synced.throttle_time_ms, &synced.assignment[..]), (0, 0, &b"all"[..]));
        assert_eq!(synced.protocol_type.as_deref(), (version >= 5).then_some("consumer"));
        assert_eq!(synced.protocol_name.as_deref(), (version >= 5).then_some("range"));
    }
    leave(world, &id, member.0);
}

pub fn heartbeat(world: &mut World, version: i16) {
    let id = format!("heartbeat-{version}");
    let (member, generation) = stable(world, &id);
    for (id, member, generation, expected) in [
        (&*id, &*member, generation, 0),
        (&*id, &*member, generation + 1, code::ILLEGAL_GENERATION),
        (&*id, NO_SUCH_MEMBER, generation, code::UNKNOWN_MEMBER_ID),
        (NO_SUCH_GROUP, &*member, generation, code::UNKNOWN_MEMBER_ID),
        ("", &*member, generation, code::INVALID_GROUP_ID),
    ] {
        assert_eq!(beat(world, version, id, (member, generation)), expected, "{id} {member} {generation}");
    }
    leave(world, &id, &member);
}

pub fn leave_group(world: &mut World, version: i16) {
    let id = format!("leave-{version}");
    let (member, generation) = stable(world, &id);
    let ask = |world: &mut World, id: &str, member: &str| {
        let one =
            MemberIdentity::default().with_member_id(text(member)).with_reason((version >= 5).then(|| text("enough")));
        let request = LeaveGroupRequest::default().with_group_id(group(id));
        let request = if version >= 3 { request.with_members(vec![one]) } else { request.with_member_id(text(member)) };
        let response = world.client.call(version, &request);
        match &response.members[..] {
            [told] => {
                assert_eq!((response.error_code, &*told.member_id, &told.group_instance_id), (0, member, &None));
                told.error_code
            }
            _ => {
                assert!(version < 3 || response.error_code != 0, "{response:?}");
                response.error_code
            }
        }
    };
    assert_eq!(ask(world, &id, NO_SUCH_MEMBER), code::UNKNOWN_MEMBER_ID);
    assert_eq!(ask(world, NO_SUCH_GROUP, &member), code::UNKNOWN_MEMBER_ID);
    assert_eq!(ask(world, "", &member), code::INVALID_GROUP_ID);
    assert_eq!(beat(world, 4, &id, (&member, generation)), 0);
    assert_eq!(ask(world, &id, &member), 0);
    assert_eq!(beat(world, 4, &id, (&member, generation)), code::UNKNOWN_MEMBER_ID);
}

pub fn describe_groups(world: &mut World, version: i16) {
    let id = format!("describe-{version}");
    let (member, _) = stable(world, &id);
    let request = DescribeGroupsRequest::default()
        .with_groups(vec![group(&id), group(NO_SUCH_GROUP), group(&id)])
        .with_include_authorized_operations(version >= 3);
    let mut found = world.client.call(version, &request).groups;
    found.sort_by_key(|described| *described.group_id.0 == *NO_SUCH_GROUP);
    assert_eq!(found.len(), 2, "each is described once");
    let operations = if version >= 3 { OPERATIONS } else { i32::MIN };
    let [known, unknown] = &found[..] else { unreachable!() };
    assert_eq!((known.error_code, &*known.group_id.0, &*known.group_state), (0, &*id, "Stable"));
    assert_eq!((&*known.protocol_type, &*known.protocol_data), ("consumer", "range"));
    assert_eq!(known.authorized_operations, operations);
    let told = &known.members[0];
    assert_eq!((known.members.len(), &*told.member_id), (1, &*member));
    assert_eq!((&*told.client_id, &*told.client_host, &told.group_instance_id), ("every-version", "/127.0.0.1", &None));
    assert_eq!((&told.member_metadata[..], &told.member_assignment[..]), (SUBSCRIPTION, &b"all"[..]));

    assert_eq!((&*unknown.group_state, unknown.members.len()), ("Dead", 0));
    if version >= 6 {
        assert_eq!(unknown.error_code, code::GROUP_ID_NOT_FOUND);
        assert_eq!(unknown.error_message.as_deref(), Some("Group no-such-group not found."));
        assert_eq!(unknown.authorized_operations, i32::MIN);
    } else {
        assert_eq!((unknown.error_code, unknown.authorized_operations), (0, operations));
    }
    leave(world, &id, &member);
}

pub fn list_groups(world: &mut World, version: i16) {
    let id = format!("list-{version}");
    let (member, _) = stable(world, &id);
    let found = |world: &mut World, states: &[&str], types: &[&str]| {
        let names = |names: &[&str]| names.iter().map(|name| text(name)).collect::<Vec<_>>();
        let request = ListGroupsRequest::default().with_states_filter(names(states)).with_types_filter(names(types));
        let response = world.client.call(version, &request);
        assert_eq!((response.error_code, response.throttle_time_ms), (0, 0));
        response.groups.into_iter().find(|listed| *listed.group_id.0 == *id)
    };
    let listed = found(world, &[], &[]).expect("the group is listed");
    assert_eq!(&*listed.protocol_type, "consumer");
    assert_eq!(&*listed.group_state, if version >= 4 { "Stable" } else { "" });
    assert_eq!(&*listed.group_type, if version >= 5 { "classic" } else { "" });
    if version >= 4 {
        assert!(found(world, &["stable"], &[]).is_some());
        assert!(found(world, &["Empty", "STABLE"], &[]).is_some());
        assert!(found(world, &["Empty"], &[]).is_none());
        assert!(found(world, &["nonsense"], &[]).is_none());
    }
    if version >= 5 {
        assert!(found(world, &[], &["Classic", "consumer"]).is_some());
        assert!(found(world, &["Stable"], &["consumer"]).is_none());
        assert!(found(world, &[], &["nonsense"]).is_none());
    }
    leave(world, &id, &member);
}

pub fn delete_groups(world: &mut World, version: i16) {
    let (full, empty) = (format!("delete-full-{version}"), format!("delete-empty-{version}"));
    let (member, _) = stable(world, &full);
    let (left, _) = stable(world, &empty);
    leave(world, &empty, &left);
    let names = [&*full, &*empty, NO_SUCH_GROUP, &*empty].map(group).to_vec();
    let response = world.client.call(version, &DeleteGroupsRequest::default().with_groups_names(names));
    let mut rows: Vec<_> = response.results.iter().map(|r| (&*r.group_id.0, r.error_code)).collect();
    rows.sort_unstable();
    let expected = [(&*empty, 0), (&*full, code::NON_EMPTY_GROUP), (NO_SUCH_GROUP, code::GROUP_ID_NOT_FOUND)];
    assert_eq!(rows, expected);
    leave(world, &full, &member);
}

/// A member that joins with stock, by an id of its own from v1 on.
fn consumer(version: i16, id: &str, member: &str) -> ConsumerGroupHeartbeatRequest {
    ConsumerGroupHeartbeatRequest::default()
        .with_group_id(group(id))
        .with_member_id(text(if version >= 1 { member } else { "" }))
        .with_rebalance_timeout_ms(30_000)
        .with_subscribed_topic_names(Some(vec![topic_name("stock")]))
        .with_topic_partitions(Some(Vec::new()))
}

fn assigned(response: &ConsumerGroupHeartbeatResponse) -> Option<Vec<(uuid::Uuid, Vec<i32>)>> {
    let assignment = response.assignment.as_ref()?;
    Some(assignment.topic_partitions.iter().map(|topic| (topic.topic_id, topic.partitions.clone())).collect())
}

fn part(world: &mut World, id: &str, member: &str) {
    let leaving = ConsumerGroupHeartbeatRequest::default()
        .with_group_id(group(id))
        .with_member_id(text(member))
        .with_member_epoch(-1);
    let left = world.client.call(1, &leaving);
    assert_eq!((left.error_code, left.member_epoch), (0, -1));
}

pub fn consumer_group_heartbeat(world: &mut World, version: i16) {
    let id = format!("consumer-{version}");
    let joined = world.client.call(version, &consumer(version, &id, "member-1"));
    assert_eq!((joined.error_code, &joined.error_message, joined.throttle_time_ms), (0, &None, 0));
    let epoch = joined.member_epoch;
    assert!(epoch >= 1 && joined.heartbeat_interval_ms == 5000, "{joined:?}");
    assert_eq!(assigned(&joined), Some(vec![(world.stock.id, vec![0, 1])]));
    let member = joined.member_id.clone().unwrap();
    assert!(!member.is_empty() && (version == 0 || &*member == "member-1"));

    let beat = |member: &str, epoch: i32| {
        ConsumerGroupHeartbeatRequest::default()
            .with_group_id(group(&id))
            .with_member_id(text(member))
            .with_member_epoch(epoch)
    };
    let known = world.client.call(version, &beat(&member, epoch));
    assert_eq!((known.error_code, known.member_epoch, assigned(&known)), (0, epoch, None));
    let nameless = consumer(version, "", "member-2");
    let mut refused = vec![
        (beat(NO_SUCH_MEMBER, 1), code::UNKNOWN_MEMBER_ID),
        (beat(&member, 1).with_group_id(group(NO_SUCH_GROUP)), code::GROUP_ID_NOT_FOUND),
        (consumer(version, &id, "member-3").with_server_assignor(Some(text("none"))), code::UNSUPPORTED_ASSIGNOR),
        (consumer(version, &id, "member-4").with_rebalance_timeout_ms(-1), code::INVALID_REQUEST),
        (beat("", 1), code::INVALID_REQUEST),
        (nameless, code::INVALID_REQUEST),
    ];
    if version >= 1 {
        refused.push((consumer(version, &id, ""), code::INVALID_REQUEST));
    }
    for (request, expected) in refused {
        let response = world.client.call(version, &request);
        assert_eq!((response.error_code, assigned(&response)), (expected, None), "{request:?}");
        assert!(response.error_message.is_some());
    }
    part(world, &id, &member);
}

pub fn consumer_group_describe(world: &mut World, version: i16) {
    let (id, classic) = (format!("consumer-describe-{version}"), format!("classic-{version}"));
    let joined = world.client.call(1, &consumer(1, &id, "member-1"));
    assert_eq!(joined.error_code, 0);
    let (member, _) = stable(world, &classic);
    let request = ConsumerGroupDescribeRequest::default()
        .with_group_ids([&*id, NO_SUCH_GROUP, "", &*classic].map(group).to_vec())
        .with_include_authorized_operations(true);
    let groups = world.client.call(version, &request).groups;
    let of = |id: &str| groups.iter().find(|found| &*found.group_id.0 == id).expect("every group is answered");
    assert_eq!(groups.len(), 4);
    for (id, expected) in
        [(NO_SUCH_GROUP, code::GROUP_ID_NOT_FOUND), (&*classic, code::GROUP_ID_NOT_FOUND), ("", code::INVALID_GROUP_ID)]
    {
        let refused = of(id);
        assert_eq!((refused.error_code, refused.members.len(), refused.authorized_operations), (expected, 0, i32::MIN));
    }
    let known = of(&id);
    assert_eq!((known.error_code, &known.error_message, &*known.group_state), (0, &None, "Stable"));
    let epoch = joined.member_epoch;
    assert_eq!((known.group_epoch, known.assignment_epoch, &*known.assignor_name), (epoch, epoch, "uniform"));
    assert_eq!((known.authorized_operations, known.members.len()), (OPERATIONS, 1));
    let told = &known.members[0];
    assert_eq!((&*told.member_id, told.member_epoch, &*told.client_id), ("member-1", epoch, "every-version"));
    assert_eq!((&*told.client_host, &told.rack_id, &told.instance_id), ("/127.0.0.1", &None, &None));
    assert_eq!(told.subscribed_topic_names, [topic_name("stock")]);
    for assignment in [&told.assignment, &told.target_assignment] {
        let topics: Vec<_> =
            assignment.topic_partitions.iter().map(|t| (t.topic_id, &*t.topic_name.0, &t.partitions[..])).collect();
        assert_eq!(topics, [(world.stock.id, "stock", &[0, 1][..])]);
    }
    assert_eq!(told.member_type, if version >= 1 { 1 } else { -1 });
    part(world, &id, "member-1");
    leave(world, &classic, &member);
}
