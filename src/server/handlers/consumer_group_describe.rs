//! ConsumerGroupDescribe: groups of the protocol of KIP-848 and their members.

use kafka_protocol::messages::consumer_group_describe_response::{Assignment, DescribedGroup, Member, TopicPartitions};
use kafka_protocol::messages::{ApiKey, ConsumerGroupDescribeRequest, ConsumerGroupDescribeResponse};
use kafka_protocol::protocol::StrBytes;

use crate::groups::api::{AssignedTopic, ConsumerDescribeReply, ConsumerDescribeRequest, ConsumerMember, GroupId};
use crate::model::ErrorCode;
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};

use super::shared::{GROUP_OPERATIONS, each_group_once, error_message, sent, text, topic_name, wire_group_id};

pub const API: ApiSpec = ApiSpec::new(ApiKey::ConsumerGroupDescribe, 0, 1).in_line();

/// A member's kind, classic or not, is told from here on (KIP-1099).
const KIND_FROM: i16 = 1;

pub async fn handle(
    session: &Session,
    Call { version, request }: Call<ConsumerGroupDescribeRequest>,
) -> ConsumerGroupDescribeResponse {
    let (nameless, groups): (Vec<GroupId>, Vec<GroupId>) =
        each_group_once(&request.group_ids).into_iter().partition(|group| group.is_empty());
    let requests = groups.iter().map(|group| ConsumerDescribeRequest { group: group.clone() }).collect();
    let mut replies = session.ask_each(requests, bytes).await;
    replies.extend(nameless.iter().map(|_| Err(ErrorCode::InvalidGroupId)));
    respond(version, request.include_authorized_operations, [groups, nameless].concat(), replies)
}

/// Bytes that a reply takes, about.
fn bytes(reply: &ConsumerDescribeReply) -> usize {
    let of_topics = |topics: &[AssignedTopic]| {
        let bytes =
            |topic: &AssignedTopic| size_of::<TopicPartitions>() + topic.name.len() + 4 * topic.partitions.len();
        topics.iter().map(bytes).sum::<usize>()
    };
    let members = reply.members.iter().map(|member: &ConsumerMember| {
        let names = member.subscribed_topics.iter().map(|name| size_of::<StrBytes>() + name.len()).sum::<usize>();
        size_of::<Member>() + names + of_topics(&member.assignment) + of_topics(&member.target)
    });
    members.sum::<usize>() + size_of::<DescribedGroup>()
}

fn respond(
    version: i16,
    tell_operations: bool,
    groups: Vec<GroupId>,
    replies: Vec<Result<ConsumerDescribeReply, ErrorCode>>,
) -> ConsumerGroupDescribeResponse {
    let groups = groups.into_iter().zip(replies).map(|(id, reply)| {
        let group = match reply {
            Ok(reply) => describe(version, reply),
            Err(code) => DescribedGroup::default().with_error_code(code.code()),
        };
        let tells = tell_operations && group.error_code == 0;
        let group = if tells { group.with_authorized_operations(GROUP_OPERATIONS) } else { group };
        group.with_group_id(wire_group_id(&id))
    });
    ConsumerGroupDescribeResponse::default().with_groups(groups.collect())
}

fn describe(version: i16, reply: ConsumerDescribeReply) -> DescribedGroup {
    if reply.error != ErrorCode::None {
        return DescribedGroup::default()
            .with_error_code(reply.error.code())
            .with_error_message(reply.message.and_then(error_message));
    }
    DescribedGroup::default()
        .with_group_state(StrBytes::from_string(reply.state))
        .with_group_epoch(reply.group_epoch)
        .with_assignment_epoch(reply.assignment_epoch)
        .with_assignor_name(StrBytes::from_string(reply.assignor))
        .with_members(reply.members.into_iter().map(|member| describe_member(version, member)).collect())
}

fn describe_member(version: i16, member: ConsumerMember) -> Member {
    let described = Member::default()
        .with_member_id(StrBytes::from_string(member.member_id))
        .with_instance_id(sent(member.instance_id))
        .with_rack_id(sent(member.rack_id))
        .with_member_epoch(member.member_epoch)
        .with_client_id(StrBytes::from_string(member.caller.client_id))
        .with_client_host(StrBytes::from_string(member.caller.client_host))
        .with_subscribed_topic_names(member.subscribed_topics.iter().map(|name| topic_name(name)).collect())
        .with_subscribed_topic_regex(sent(member.subscribed_regex))
        .with_assignment(assignment(member.assignment))
        .with_target_assignment(assignment(member.target));
    if version >= KIND_FROM { described.with_member_type(member.kind) } else { described }
}

fn assignment(topics: Vec<AssignedTopic>) -> Assignment {
    let topics = topics.into_iter().map(|topic| {
        TopicPartitions::default()
            .with_topic_id(topic.id)
            .with_topic_name(text(&topic.name).into())
            .with_partitions(topic.partitions)
    });
    Assignment::default().with_topic_partitions(topics.collect())
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::{id_of, through_the_wire};
    use super::*;
    use crate::groups::api::Caller;

    fn reply() -> ConsumerDescribeReply {
        let topics = |partitions: &[i32]| {
            vec![AssignedTopic { id: id_of(5), name: "a".into(), partitions: partitions.to_vec() }]
        };
        let member = ConsumerMember {
            member_id: "m".into(),
            instance_id: Some("i".into()),
            rack_id: Some("north".into()),
            member_epoch: 7,
            caller: Caller { client_id: "me".into(), client_host: "/127.0.0.1".into() },
            subscribed_topics: vec!["a".into(), "b".into()],
            subscribed_regex: Some("c.*".into()),
            assignment: topics(&[0]),
            target: topics(&[0, 1]),
            kind: 1,
        };
        ConsumerDescribeReply {
            error: ErrorCode::None,
            message: None,
            state: "Reconciling".into(),
            group_epoch: 9,
            assignment_epoch: 8,
            assignor: "uniform".into(),
            members: vec![member],
        }
    }

    #[test]
    fn a_group_and_its_members_in_every_version() {
        for version in API.min..=API.max {
            for (asked, operations) in [(false, i32::MIN), (true, 3400)] {
                let response = respond(version, asked, vec!["g".into()], vec![Ok(reply())]);
                let group = through_the_wire(API.key, version, &response).groups.remove(0);
                assert_eq!((group.error_code, &*group.group_id.0, &*group.group_state), (0, "g", "Reconciling"));
                assert_eq!((group.group_epoch, group.assignment_epoch, &*group.assignor_name), (9, 8, "uniform"));
                assert_eq!((group.authorized_operations, group.members.len()), (operations, 1));
                let member = &group.members[0];
                assert_eq!((&*member.member_id, member.member_epoch), ("m", 7));
                assert_eq!((member.instance_id.as_deref(), member.rack_id.as_deref()), (Some("i"), Some("north")));
                assert_eq!((&*member.client_id, &*member.client_host), ("me", "/127.0.0.1"));
                let names: Vec<_> = member.subscribed_topic_names.iter().map(|name| &*name.0).collect();
                assert_eq!((names, member.subscribed_topic_regex.as_deref()), (vec!["a", "b"], Some("c.*")));
                let topics = |of: &Assignment| {
                    let topic = &of.topic_partitions[0];
                    (topic.topic_id, topic.topic_name.0.to_string(), topic.partitions.clone())
                };
                assert_eq!(topics(&member.assignment), (id_of(5), "a".to_owned(), vec![0]));
                assert_eq!(topics(&member.target_assignment), (id_of(5), "a".to_owned(), vec![0, 1]));
                assert_eq!(member.member_type, if version >= 1 { 1 } else { -1 });
            }
        }
    }

    #[test]
    fn errors_come_without_members() {
        let not_found = ConsumerDescribeReply {
            error: ErrorCode::GroupIdNotFound,
            message: Some("Group g is not a consumer group.".into()),
            ..reply()
        };
        for version in API.min..=API.max {
            let replies = vec![Ok(not_found.clone()), Err(ErrorCode::InvalidGroupId)];
            let response = respond(version, true, vec!["g".into(), "".into()], replies);
            let seen = through_the_wire(API.key, version, &response).groups;
            let rows: Vec<_> =
                seen.iter().map(|g| (g.error_code, g.error_message.as_deref(), g.authorized_operations)).collect();
            assert_eq!(rows, [(69, Some("Group g is not a consumer group."), i32::MIN), (24, None, i32::MIN)]);
            assert!(seen.iter().all(|group| group.members.is_empty()));
        }
    }
}
