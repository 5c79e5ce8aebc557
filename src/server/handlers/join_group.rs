//! JoinGroup: a member of a classic group takes part in its next generation, and waits
//! for the others to do so.

use bytes::Bytes;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{ApiKey, JoinGroupRequest, JoinGroupResponse};
use kafka_protocol::protocol::StrBytes;

use crate::groups::api::{Caller, JoinReply, JoinRequest};
use crate::model::ErrorCode;
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};

use super::shared::{instance_id, named_group, owned, sent};

pub const API: ApiSpec = ApiSpec::new(ApiKey::JoinGroup, 0, 9).in_line();

/// The rebalance timeout is told apart from the session timeout from here on.
const REBALANCE_TIMEOUT_FROM: i16 = 1;
/// New members are given an id first, and join with it then, from here on (KIP-394).
const KNOWN_MEMBER_FROM: i16 = 4;
/// A response without a protocol has null in its place from here on.
const NULL_PROTOCOL_FROM: i16 = 7;
/// A leader can be told to leave the assignment as it is from here on (KIP-814).
const SKIP_ASSIGNMENT_FROM: i16 = 9;

pub async fn handle(session: &Session, Call { version, request }: Call<JoinGroupRequest>) -> JoinGroupResponse {
    let member_id = request.member_id.to_string();
    let reply = match convert(version, session.caller(), request) {
        Ok(request) => session.ask_and_wait(request).await,
        Err(code) => Err(code),
    };
    respond(version, reply.unwrap_or_else(|code| failed(code, member_id)))
}

fn convert(version: i16, caller: Caller, request: JoinGroupRequest) -> Result<JoinRequest, ErrorCode> {
    let instance_id = instance_id(request.group_instance_id)?;
    let rebalance_timeout_ms =
        if version >= REBALANCE_TIMEOUT_FROM { request.rebalance_timeout_ms } else { request.session_timeout_ms };
    Ok(JoinRequest {
        group: named_group(&request.group_id)?,
        caller,
        requires_known_member: version >= KNOWN_MEMBER_FROM && instance_id.is_none() && request.member_id.is_empty(),
        member_id: request.member_id.to_string(),
        instance_id,
        session_timeout_ms: request.session_timeout_ms,
        rebalance_timeout_ms,
        protocol_type: request.protocol_type.to_string(),
        protocols: request
            .protocols
            .into_iter()
            .map(|protocol| (protocol.name.to_string(), Bytes::copy_from_slice(&protocol.metadata)))
            .collect(),
        supports_skipping_assignment: version >= SKIP_ASSIGNMENT_FROM,
        reason: owned(request.reason),
    })
}

fn failed(error: ErrorCode, member_id: String) -> JoinReply {
    JoinReply {
        error,
        generation: -1,
        protocol_type: None,
        protocol: None,
        leader: String::new(),
        skip_assignment: false,
        member_id,
        members: Vec::new(),
    }
}

fn respond(version: i16, reply: JoinReply) -> JoinGroupResponse {
    let protocol = sent(reply.protocol.filter(|protocol| !protocol.is_empty()));
    let protocol = if version >= NULL_PROTOCOL_FROM { protocol } else { Some(protocol.unwrap_or_default()) };
    let members = reply.members.into_iter().map(|member| {
        JoinGroupResponseMember::default()
            .with_member_id(StrBytes::from_string(member.member_id))
            .with_group_instance_id(sent(member.instance_id))
            .with_metadata(member.metadata)
    });
    JoinGroupResponse::default()
        .with_error_code(reply.error.code())
        .with_generation_id(reply.generation)
        .with_protocol_type(sent(reply.protocol_type))
        .with_protocol_name(protocol)
        .with_leader(StrBytes::from_string(reply.leader))
        .with_skip_assignment(reply.skip_assignment && version >= SKIP_ASSIGNMENT_FROM)
        .with_member_id(StrBytes::from_string(reply.member_id))
        .with_members(members.collect())
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::through_the_wire;
    use super::super::shared::{text, wire_group_id};
    use super::*;
    use crate::groups::api::JoinedMember;
    use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;

    fn caller() -> Caller {
        Caller { client_id: "me".into(), client_host: "/127.0.0.1".into() }
    }

    fn request(version: i16) -> JoinGroupRequest {
        let protocol = |name: &'static str| {
            JoinGroupRequestProtocol::default()
                .with_name(StrBytes::from_static_str(name))
                .with_metadata(Bytes::from_static(b"topics"))
        };
        JoinGroupRequest::default()
            .with_group_id(wire_group_id("g"))
            .with_session_timeout_ms(10_000)
            .with_rebalance_timeout_ms(if version >= 1 { 60_000 } else { -1 })
            .with_group_instance_id((version >= 5).then(|| text("i")))
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol("range"), protocol("sticky")])
            .with_reason((version >= 8).then(|| text("because")))
    }

    #[test]
    fn a_request_is_understood_in_every_version() {
        for version in API.min..=API.max {
            let asked = convert(version, caller(), request(version)).unwrap();
            assert_eq!((&*asked.group, &asked.caller, &*asked.protocol_type), ("g", &caller(), "consumer"));
            let timeouts = (asked.session_timeout_ms, asked.rebalance_timeout_ms);
            assert_eq!(timeouts, (10_000, if version >= 1 { 60_000 } else { 10_000 }));
            assert_eq!(asked.instance_id.as_deref(), (version >= 5).then_some("i"));
            assert_eq!(asked.reason.as_deref(), (version >= 8).then_some("because"));
            assert_eq!(asked.supports_skipping_assignment, version >= 9);
            let topics = Bytes::from_static(b"topics");
            assert_eq!(asked.protocols, [("range".to_owned(), topics.clone()), ("sticky".to_owned(), topics)]);
        }
    }

    #[test]
    fn only_new_dynamic_members_are_told_their_id_first() {
        for version in API.min..=API.max {
            let asked = |member: &str, instance: Option<&str>| {
                let request = request(version).with_member_id(text(member)).with_group_instance_id(instance.map(text));
                convert(version, caller(), request).unwrap().requires_known_member
            };
            assert_eq!(asked("", None), version >= 4);
            assert!(!asked("", Some("i")) && !asked("m", None));
        }
    }

    #[test]
    fn what_cannot_be_is_refused_with_the_member_id_given_back() {
        let nameless = request(9).with_group_id(wire_group_id(""));
        assert_eq!(convert(9, caller(), nameless).err(), Some(ErrorCode::InvalidGroupId));
        let long = request(9).with_group_instance_id(Some(text(&"i".repeat(1025))));
        assert_eq!(convert(9, caller(), long).err(), Some(ErrorCode::InvalidRequest));
        for version in API.min..=API.max {
            let response = respond(version, failed(ErrorCode::InvalidGroupId, "m".into()));
            let seen = through_the_wire(API.key, version, &response);
            assert_eq!((seen.error_code, seen.generation_id, &*seen.member_id, &*seen.leader), (24, -1, "m", ""));
            assert_eq!(seen.protocol_name.as_deref(), (version < 7).then_some(""));
        }
    }

    #[test]
    fn a_leader_is_told_of_all_in_every_version() {
        let member = JoinedMember {
            member_id: "m".into(),
            instance_id: Some("i".into()),
            metadata: Bytes::from_static(b"topics"),
        };
        let reply = JoinReply {
            generation: 4,
            protocol_type: Some("consumer".into()),
            protocol: Some("range".into()),
            leader: "m".into(),
            skip_assignment: true,
            members: vec![member],
            ..failed(ErrorCode::None, "m".into())
        };
        for version in API.min..=API.max {
            let seen = through_the_wire(API.key, version, &respond(version, reply.clone()));
            assert_eq!((seen.error_code, seen.generation_id, &*seen.leader), (0, 4, "m"));
            assert_eq!(seen.protocol_name.as_deref(), Some("range"));
            assert_eq!(seen.protocol_type.as_deref(), (version >= 7).then_some("consumer"));
            assert_eq!(seen.skip_assignment, version >= 9);
            let member = &seen.members[0];
            assert_eq!((&*member.member_id, &member.metadata[..]), ("m", &b"topics"[..]));
            assert_eq!(member.group_instance_id.as_deref(), (version >= 5).then_some("i"));
        }
    }
}
