//! SyncGroup: the leader of a classic group says who gets what, and each member is told its part.

use bytes::Bytes;
use kafka_protocol::messages::{ApiKey, SyncGroupRequest, SyncGroupResponse};

use crate::groups::api::{SyncReply, SyncRequest};
use crate::model::ErrorCode;
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};

use super::shared::{instance_id, named_group, owned, sent};

pub const API: ApiSpec = ApiSpec::new(ApiKey::SyncGroup, 0, 5).in_line();

/// The protocol has to be named from here on (KIP-559).
const PROTOCOL_FROM: i16 = 5;

pub async fn handle(session: &Session, Call { version, request }: Call<SyncGroupRequest>) -> SyncGroupResponse {
    let reply = match convert(version, request) {
        Ok(request) => session.ask_and_wait(request).await,
        Err(code) => Err(code),
    };
    respond(reply.unwrap_or_else(failed))
}

fn convert(version: i16, request: SyncGroupRequest) -> Result<SyncRequest, ErrorCode> {
    if version >= PROTOCOL_FROM && (request.protocol_type.is_none() || request.protocol_name.is_none()) {
        return Err(ErrorCode::InconsistentGroupProtocol);
    }
    Ok(SyncRequest {
        group: named_group(&request.group_id)?,
        generation: request.generation_id,
        member_id: request.member_id.to_string(),
        instance_id: instance_id(request.group_instance_id)?,
        protocol_type: owned(request.protocol_type),
        protocol: owned(request.protocol_name),
        assignments: request
            .assignments
            .into_iter()
            .map(|given| (given.member_id.to_string(), Bytes::copy_from_slice(&given.assignment)))
            .collect(),
    })
}

fn failed(error: ErrorCode) -> SyncReply {
    SyncReply { error, protocol_type: None, protocol: None, assignment: Bytes::new() }
}

fn respond(reply: SyncReply) -> SyncGroupResponse {
    SyncGroupResponse::default()
        .with_error_code(reply.error.code())
        .with_protocol_type(sent(reply.protocol_type))
        .with_protocol_name(sent(reply.protocol))
        .with_assignment(reply.assignment)
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::through_the_wire;
    use super::super::shared::{text, wire_group_id};
    use super::*;
    use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;

    fn request(version: i16) -> SyncGroupRequest {
        let given =
            SyncGroupRequestAssignment::default().with_member_id(text("m")).with_assignment(Bytes::from_static(b"all"));
        let named = |value: &str| (version >= 5).then(|| text(value));
        SyncGroupRequest::default()
            .with_group_id(wire_group_id("g"))
            .with_generation_id(3)
            .with_member_id(text("m"))
            .with_group_instance_id((version >= 3).then(|| text("i")))
            .with_protocol_type(named("consumer"))
            .with_protocol_name(named("range"))
            .with_assignments(vec![given])
    }

    #[test]
    fn a_request_is_understood_in_every_version() {
        for version in API.min..=API.max {
            let asked = convert(version, request(version)).unwrap();
            assert_eq!((&*asked.group, asked.generation, &*asked.member_id), ("g", 3, "m"));
            assert_eq!(asked.instance_id.as_deref(), (version >= 3).then_some("i"));
            assert_eq!(asked.protocol_type.as_deref(), (version >= 5).then_some("consumer"));
            assert_eq!(asked.protocol.as_deref(), (version >= 5).then_some("range"));
            assert_eq!(asked.assignments, [("m".to_owned(), Bytes::from_static(b"all"))]);
        }
    }

    #[test]
    fn the_protocol_must_be_named_since_there_is_a_place_for_it() {
        let refused = Some(ErrorCode::InconsistentGroupProtocol);
        assert_eq!(convert(5, request(5).with_protocol_type(None)).err(), refused);
        assert_eq!(convert(5, request(5).with_protocol_name(None)).err(), refused);
        let nameless = request(5).with_group_id(wire_group_id(""));
        assert_eq!(convert(5, nameless).err(), Some(ErrorCode::InvalidGroupId));
    }

    #[test]
    fn a_member_is_told_its_part_in_every_version() {
        let reply = SyncReply {
            protocol_type: Some("consumer".into()),
            protocol: Some("range".into()),
            assignment: Bytes::from_static(b"all"),
            ..failed(ErrorCode::None)
        };
        for version in API.min..=API.max {
            let seen = through_the_wire(API.key, version, &respond(reply.clone()));
            assert_eq!((seen.error_code, &seen.assignment[..]), (0, &b"all"[..]));
            assert_eq!(seen.protocol_type.as_deref(), (version >= 5).then_some("consumer"));
            assert_eq!(seen.protocol_name.as_deref(), (version >= 5).then_some("range"));
            let refused = respond(failed(ErrorCode::RebalanceInProgress));
            assert_eq!(through_the_wire(API.key, version, &refused).error_code, 27);
        }
    }
}
