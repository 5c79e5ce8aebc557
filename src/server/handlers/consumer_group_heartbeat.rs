//! ConsumerGroupHeartbeat: a member of a group says what it wants and has, and is told what
//! it shall have (KIP-848).

use kafka_protocol::messages::consumer_group_heartbeat_request::TopicPartitions as OwnedTopic;
use kafka_protocol::messages::consumer_group_heartbeat_response::{Assignment, TopicPartitions};
use kafka_protocol::messages::{
    ApiKey, ConsumerGroupHeartbeatRequest, ConsumerGroupHeartbeatResponse as Response, TopicName,
};

use crate::cluster::controller::ControlError;
use crate::groups::api::{Caller, ConsumerHeartbeatReply, ConsumerHeartbeatRequest};
use crate::model::ErrorCode;
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};

use super::shared::{control_error, error_message, group_id, instance_id, owned, sent};

pub const API: ApiSpec = ApiSpec::new(ApiKey::ConsumerGroupHeartbeat, 0, 1).in_line();

/// Members make their own ids from here on (KIP-1082).
const OWN_ID_FROM: i16 = 1;

pub async fn handle(session: &Session, Call { version, request }: Call<ConsumerGroupHeartbeatRequest>) -> Response {
    match convert(version, session.caller(), request) {
        Ok(request) => match session.ask(request).await {
            Ok(reply) => respond(reply),
            Err(code) => Response::default().with_error_code(code.code()),
        },
        Err(error) => {
            Response::default().with_error_code(error.code.code()).with_error_message(error_message(error.message))
        }
    }
}

fn convert(
    version: i16,
    caller: Caller,
    request: ConsumerGroupHeartbeatRequest,
) -> Result<ConsumerHeartbeatRequest, ControlError> {
    let instance_id =
        instance_id(request.instance_id).map_err(|code| control_error(code, "InstanceId is too long."))?;
    let names = |names: Vec<TopicName>| names.iter().map(|name| name.0.to_string()).collect();
    let partitions = |topics: Vec<OwnedTopic>| topics.into_iter().map(|t| (t.topic_id, t.partitions)).collect();
    let request = ConsumerHeartbeatRequest {
        group: group_id(&request.group_id),
        caller,
        member_id: request.member_id.to_string(),
        member_epoch: request.member_epoch,
        instance_id,
        rack_id: owned(request.rack_id),
        rebalance_timeout_ms: request.rebalance_timeout_ms,
        subscribed_topics: request.subscribed_topic_names.map(names),
        subscribed_regex: owned(request.subscribed_topic_regex),
        assignor: owned(request.server_assignor),
        owned: request.topic_partitions.map(partitions),
    };
    let checked = request.check(version >= OWN_ID_FROM);
    checked.map(|()| request).map_err(|message| control_error(ErrorCode::InvalidRequest, message))
}

fn respond(reply: ConsumerHeartbeatReply) -> Response {
    let assignment = reply.assignment.map(|topics| {
        let topics = topics
            .into_iter()
            .map(|(id, partitions)| TopicPartitions::default().with_topic_id(id).with_partitions(partitions));
        Assignment::default().with_topic_partitions(topics.collect())
    });
    Response::default()
        .with_error_code(reply.error.code())
        .with_error_message(reply.message.and_then(error_message))
        .with_member_id(sent(reply.member_id))
        .with_member_epoch(reply.member_epoch)
        .with_heartbeat_interval_ms(reply.heartbeat_interval_ms)
        .with_assignment(assignment)
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::{id_of, through_the_wire};
    use super::super::shared::{text, topic_name, wire_group_id};
    use super::*;

    fn joining(version: i16) -> ConsumerGroupHeartbeatRequest {
        ConsumerGroupHeartbeatRequest::default()
            .with_group_id(wire_group_id("g"))
            .with_member_id(text("m"))
            .with_instance_id(Some(text("i")))
            .with_rack_id(Some(text("north")))
            .with_rebalance_timeout_ms(60_000)
            .with_subscribed_topic_names(Some(vec![topic_name("a"), topic_name("b")]))
            .with_subscribed_topic_regex((version >= 1).then(|| text("c.*")))
            .with_server_assignor(Some(text("range")))
            .with_topic_partitions(Some(Vec::new()))
    }

    #[test]
    fn a_request_is_understood_in_every_version() {
        let caller = Caller { client_id: "me".into(), client_host: "/127.0.0.1".into() };
        for version in API.min..=API.max {
            let asked = convert(version, caller.clone(), joining(version)).unwrap();
            assert_eq!((&*asked.group, &asked.caller, &*asked.member_id, asked.member_epoch), ("g", &caller, "m", 0));
            assert_eq!((asked.instance_id.as_deref(), asked.rack_id.as_deref()), (Some("i"), Some("north")));
            assert_eq!((asked.rebalance_timeout_ms, asked.assignor.as_deref()), (60_000, Some("range")));
            assert_eq!(asked.subscribed_topics, Some(vec!["a".to_owned(), "b".to_owned()]));
            assert_eq!(asked.subscribed_regex.as_deref(), (version >= 1).then_some("c.*"));
            assert_eq!(asked.owned, Some(Vec::new()));

            let owned = OwnedTopic::default().with_topic_id(id_of(5)).with_partitions(vec![1, 2]);
            let next = ConsumerGroupHeartbeatRequest::default()
                .with_group_id(wire_group_id("g"))
                .with_member_id(text("m"))
                .with_member_epoch(4)
                .with_topic_partitions(Some(vec![owned]));
            let asked = convert(version, caller.clone(), next).unwrap();
            assert_eq!((asked.member_epoch, asked.rebalance_timeout_ms), (4, -1));
            assert_eq!((asked.subscribed_topics, asked.subscribed_regex, asked.assignor), (None, None, None));
            assert_eq!(asked.owned, Some(vec![(id_of(5), vec![1, 2])]));
        }
    }

    #[test]
    fn what_kafka_refuses_is_refused_in_its_words() {
        let said = |version: i16, request: ConsumerGroupHeartbeatRequest| {
            convert(version, Caller::default(), request).err().map_or(String::new(), |error| {
                assert_eq!(error.code, ErrorCode::InvalidRequest);
                error.message
            })
        };
        let nameless = |epoch: i32| joining(0).with_member_id(text("")).with_member_epoch(epoch);
        assert_eq!(said(0, nameless(0)), "", "the coordinator makes one");
        for (version, epoch) in [(1, 0), (0, 1), (0, -1)] {
            assert_eq!(said(version, nameless(epoch)), "MemberId can't be empty.");
        }
        for version in API.min..=API.max {
            let joining = || joining(version);
            assert_eq!(said(version, joining().with_group_id(wire_group_id(""))), "GroupId can't be empty.");
            assert_eq!(said(version, joining().with_instance_id(Some(text("")))), "InstanceId can't be empty.");
            assert_eq!(said(version, joining().with_rack_id(Some(text(" ")))), "RackId can't be empty.");
            let owned = Some(vec![OwnedTopic::default()]);
            for (request, problem) in [
                (joining().with_rebalance_timeout_ms(-1), "RebalanceTimeoutMs must be provided"),
                (joining().with_topic_partitions(None), "TopicPartitions must be empty"),
                (joining().with_topic_partitions(owned), "TopicPartitions must be empty"),
                (
                    joining().with_subscribed_topic_names(None).with_subscribed_topic_regex(None),
                    "Either SubscribedTopicNames or SubscribedTopicRegex",
                ),
                (joining().with_member_epoch(-2).with_instance_id(None), "InstanceId can't be null."),
                (joining().with_member_epoch(-3), "MemberEpoch is invalid."),
            ] {
                assert!(said(version, request).starts_with(problem), "v{version}: {problem}");
            }
            assert_eq!(said(version, joining().with_member_epoch(-2)), "");
            let long = said(version, joining().with_instance_id(Some(text(&"i".repeat(1025)))));
            assert_eq!(long, "InstanceId is too long.");
        }
    }

    #[test]
    fn a_member_is_told_in_every_version() {
        let reply = ConsumerHeartbeatReply {
            error: ErrorCode::None,
            message: None,
            member_id: Some("m".into()),
            member_epoch: 5,
            heartbeat_interval_ms: 3000,
            assignment: Some(vec![(id_of(5), vec![0, 2])]),
        };
        for version in API.min..=API.max {
            let seen = through_the_wire(API.key, version, &respond(reply.clone()));
            assert_eq!((seen.error_code, seen.member_epoch, seen.heartbeat_interval_ms), (0, 5, 3000));
            assert_eq!(seen.member_id.as_deref(), Some("m"));
            let topics = seen.assignment.unwrap().topic_partitions;
            assert_eq!((topics[0].topic_id, &topics[0].partitions[..]), (id_of(5), &[0, 2][..]));

            let nothing = ConsumerHeartbeatReply { assignment: None, ..reply.clone() };
            assert_eq!(through_the_wire(API.key, version, &respond(nothing)).assignment, None);
            let none = ConsumerHeartbeatReply { assignment: Some(Vec::new()), ..reply.clone() };
            let told = through_the_wire(API.key, version, &respond(none)).assignment.unwrap();
            assert!(told.topic_partitions.is_empty());
            let failed = ConsumerHeartbeatReply {
                error: ErrorCode::FencedMemberEpoch,
                message: Some("too old".into()),
                ..reply.clone()
            };
            let seen = through_the_wire(API.key, version, &respond(failed));
            assert_eq!((seen.error_code, seen.error_message.as_deref()), (110, Some("too old")));
        }
    }
}
