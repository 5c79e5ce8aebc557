//! LeaveGroup: members of a classic group go, several at a time from v3 on (KIP-345).

use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{ApiKey, LeaveGroupRequest, LeaveGroupResponse};
use kafka_protocol::protocol::StrBytes;

use crate::groups::api::{LeaveReply, LeaveRequest, LeavingMember};
use crate::model::ErrorCode;
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};

use super::shared::{instance_id, named_group, owned, sent};

pub const API: ApiSpec = ApiSpec::new(ApiKey::LeaveGroup, 0, 5).in_line();

const SEVERAL_FROM: i16 = 3;

pub async fn handle(session: &Session, Call { version, request }: Call<LeaveGroupRequest>) -> LeaveGroupResponse {
    let reply = match convert(version, request) {
        Ok(request) => session.ask(request).await,
        Err(code) => Err(code),
    };
    respond(version, reply.unwrap_or_else(|error| LeaveReply { error, members: Vec::new() }))
}

fn convert(version: i16, request: LeaveGroupRequest) -> Result<LeaveRequest, ErrorCode> {
    let group = named_group(&request.group_id)?;
    let members = if version >= SEVERAL_FROM {
        let members = request.members.into_iter().map(|member| {
            Ok(LeavingMember {
                member_id: member.member_id.to_string(),
                instance_id: instance_id(member.group_instance_id)?,
                reason: owned(member.reason),
            })
        });
        members.collect::<Result<_, ErrorCode>>()?
    } else {
        vec![LeavingMember { member_id: request.member_id.to_string(), instance_id: None, reason: None }]
    };
    Ok(LeaveRequest { group, members })
}

/// Before [`SEVERAL_FROM`] the one member's error is the response's.
fn respond(version: i16, reply: LeaveReply) -> LeaveGroupResponse {
    if version < SEVERAL_FROM {
        let of_member = reply.members.first().map_or(ErrorCode::None, |member| member.error);
        let code = if reply.error == ErrorCode::None { of_member } else { reply.error };
        return LeaveGroupResponse::default().with_error_code(code.code());
    }
    let members = reply.members.into_iter().map(|member| {
        MemberResponse::default()
            .with_member_id(StrBytes::from_string(member.member_id))
            .with_group_instance_id(sent(member.instance_id))
            .with_error_code(member.error.code())
    });
    LeaveGroupResponse::default().with_error_code(reply.error.code()).with_members(members.collect())
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::through_the_wire;
    use super::super::shared::{text, wire_group_id};
    use super::*;
    use crate::groups::api::LeftMember;
    use kafka_protocol::messages::leave_group_request::MemberIdentity;

    fn request(version: i16) -> LeaveGroupRequest {
        let request = LeaveGroupRequest::default().with_group_id(wire_group_id("g"));
        if version < 3 {
            return request.with_member_id(text("a"));
        }
        let member = |id: &str, instance: Option<&str>| {
            MemberIdentity::default()
                .with_member_id(text(id))
                .with_group_instance_id(instance.map(text))
                .with_reason((version >= 5).then(|| text("enough")))
        };
        request.with_members(vec![member("a", None), member("", Some("i"))])
    }

    #[test]
    fn one_or_several_leave() {
        for version in API.min..=API.max {
            let asked = convert(version, request(version)).unwrap();
            let members: Vec<_> =
                asked.members.iter().map(|m| (&*m.member_id, m.instance_id.as_deref(), m.reason.as_deref())).collect();
            let reason = (version >= 5).then_some("enough");
            let all = [("a", None, reason), ("", Some("i"), reason)];
            assert_eq!((&*asked.group, &members[..]), ("g", if version >= 3 { &all[..] } else { &all[..1] }));
            let nameless = request(version).with_group_id(wire_group_id(""));
            assert_eq!(convert(version, nameless).err(), Some(ErrorCode::InvalidGroupId));
        }
    }

    #[test]
    fn each_is_told_in_every_version() {
        let left = |id: &str, instance: Option<&str>, error| LeftMember {
            member_id: id.into(),
            instance_id: instance.map(str::to_owned),
            error,
        };
        for version in API.min..=API.max {
            let mut members = vec![left("a", None, ErrorCode::UnknownMemberId)];
            if version >= 3 {
                members.push(left("", Some("i"), ErrorCode::None));
            }
            let response = respond(version, LeaveReply { error: ErrorCode::None, members });
            let seen = through_the_wire(API.key, version, &response);
            let rows: Vec<_> = seen.members.iter().map(|m| (m.group_instance_id.as_deref(), m.error_code)).collect();
            if version >= 3 {
                assert_eq!((seen.error_code, rows), (0, vec![(None, 25), (Some("i"), 0)]));
            } else {
                assert_eq!((seen.error_code, rows), (25, vec![]));
            }
            let failed = respond(version, LeaveReply { error: ErrorCode::NotCoordinator, members: Vec::new() });
            assert_eq!(through_the_wire(API.key, version, &failed).error_code, 16);
        }
    }
}
