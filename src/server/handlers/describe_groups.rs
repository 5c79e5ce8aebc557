//! DescribeGroups: classic groups and their members.

use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::{ApiKey, DescribeGroupsRequest, DescribeGroupsResponse};
use kafka_protocol::protocol::StrBytes;

use crate::groups::api::{DescribeReply, DescribeRequest, DescribedMember, GroupId};
use crate::model::ErrorCode;
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};

use super::shared::{GROUP_OPERATIONS, each_group_once, error_message, sent, wire_group_id};

pub const API: ApiSpec = ApiSpec::new(ApiKey::DescribeGroups, 0, 6).in_line();

/// Authorized operations are told from here on (KIP-430).
const OPERATIONS_FROM: i16 = 3;
/// A group that there is not is an error from here on; before, it was a group in the
/// state [`DEAD`] (KIP-1043).
const NOT_FOUND_FROM: i16 = 6;
const DEAD: &str = "Dead";

pub async fn handle(
    session: &Session,
    Call { version, request }: Call<DescribeGroupsRequest>,
) -> DescribeGroupsResponse {
    let groups = each_group_once(&request.groups);
    let requests = groups.iter().map(|group| DescribeRequest { group: group.clone() }).collect();
    let replies = session.ask_each(requests, bytes).await;
    respond(version, request.include_authorized_operations, groups, replies)
}

/// Bytes that a reply takes, about.
fn bytes(reply: &DescribeReply) -> usize {
    let members = reply.members.iter().map(|member: &DescribedMember| {
        let caller = &member.caller;
        let texts = member.member_id.len() + caller.client_id.len() + caller.client_host.len();
        size_of::<DescribedGroupMember>() + texts + member.metadata.len() + member.assignment.len()
    });
    members.sum::<usize>() + size_of::<DescribedGroup>()
}

fn respond(
    version: i16,
    tell_operations: bool,
    groups: Vec<GroupId>,
    replies: Vec<Result<DescribeReply, ErrorCode>>,
) -> DescribeGroupsResponse {
    let groups = groups.into_iter().zip(replies).map(|(id, reply)| {
        let group = match reply {
            Ok(reply) => describe(version, &id, reply),
            Err(code) => DescribedGroup::default().with_error_code(code.code()),
        };
        let tells = version >= OPERATIONS_FROM && tell_operations && group.error_code == 0;
        let group = if tells { group.with_authorized_operations(GROUP_OPERATIONS) } else { group };
        group.with_group_id(wire_group_id(&id))
    });
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

fn describe(version: i16, id: &str, reply: DescribeReply) -> DescribedGroup {
    let mut group = DescribedGroup::default();
    match reply.error {
        ErrorCode::None => {}
        ErrorCode::GroupIdNotFound if version < NOT_FOUND_FROM => {
            return group.with_group_state(StrBytes::from_static_str(DEAD));
        }
        code => {
            let not_found = code == ErrorCode::GroupIdNotFound;
            let message = reply.message.or_else(|| not_found.then(|| format!("Group {id} not found.")));
            group.error_code = code.code();
            group.group_state = StrBytes::from_static_str(if not_found { DEAD } else { "" });
            if version >= NOT_FOUND_FROM {
                group.error_message = message.and_then(error_message);
            }
            return group;
        }
    }
    let members = reply.members.into_iter().map(|member| {
        DescribedGroupMember::default()
            .with_member_id(StrBytes::from_string(member.member_id))
            .with_group_instance_id(sent(member.instance_id))
            .with_client_id(StrBytes::from_string(member.caller.client_id))
            .with_client_host(StrBytes::from_string(member.caller.client_host))
            .with_member_metadata(member.metadata)
            .with_member_assignment(member.assignment)
    });
    group
        .with_group_state(StrBytes::from_string(reply.state))
        .with_protocol_type(StrBytes::from_string(reply.protocol_type))
        .with_protocol_data(StrBytes::from_string(reply.protocol))
        .with_members(members.collect())
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::through_the_wire;
    use super::*;
    use crate::groups::api::Caller;
    use bytes::Bytes;

    fn reply(error: ErrorCode) -> DescribeReply {
        let member = DescribedMember {
            member_id: "m".into(),
            instance_id: Some("i".into()),
            caller: Caller { client_id: "me".into(), client_host: "/127.0.0.1".into() },
            metadata: Bytes::from_static(b"topics"),
            assignment: Bytes::from_static(b"all"),
        };
        DescribeReply {
            error,
            message: None,
            state: "Stable".into(),
            protocol_type: "consumer".into(),
            protocol: "range".into(),
            members: vec![member],
        }
    }

    fn groups(ids: &[&str]) -> Vec<GroupId> {
        ids.iter().map(|id| GroupId::from(*id)).collect()
    }

    #[test]
    fn a_group_and_its_members_in_every_version() {
        for version in API.min..=API.max {
            for asked in [false, true] {
                let response = respond(version, asked, groups(&["g"]), vec![Ok(reply(ErrorCode::None))]);
                let group = through_the_wire(API.key, version, &response).groups.remove(0);
                assert_eq!((group.error_code, &*group.group_id.0, &*group.group_state), (0, "g", "Stable"));
                assert_eq!((&*group.protocol_type, &*group.protocol_data), ("consumer", "range"));
                let operations = if asked && version >= 3 { 3400 } else { i32::MIN };
                assert_eq!(group.authorized_operations, operations, "v{version}");
                let member = &group.members[0];
                assert_eq!((&*member.member_id, &*member.client_id, &*member.client_host), ("m", "me", "/127.0.0.1"));
                assert_eq!((&member.member_metadata[..], &member.member_assignment[..]), (&b"topics"[..], &b"all"[..]));
                assert_eq!(member.group_instance_id.as_deref(), (version >= 4).then_some("i"));
            }
        }
    }

    #[test]
    fn a_group_that_there_is_not_was_dead_once() {
        for version in API.min..=API.max {
            let replies = vec![Ok(reply(ErrorCode::GroupIdNotFound)), Err(ErrorCode::NotCoordinator)];
            let seen = through_the_wire(API.key, version, &respond(version, true, groups(&["g", "h"]), replies)).groups;
            let told = seen.iter().map(|g| (g.error_code, &*g.group_state, g.authorized_operations, g.members.len()));
            let told: Vec<_> = told.collect();
            let refused = (16, "", i32::MIN, 0);
            match version {
                6 => assert_eq!(told, [(69, "Dead", i32::MIN, 0), refused]),
                3.. => assert_eq!(told, [(0, "Dead", 3400, 0), refused]),
                _ => assert_eq!(told, [(0, "Dead", i32::MIN, 0), refused]),
            }
            assert_eq!(seen[0].error_message.as_deref(), (version >= 6).then_some("Group g not found."));
        }
    }

    #[test]
    fn groups_are_described_once() {
        let ids: Vec<_> = ["g", "h", "g", "", ""].iter().map(|id| wire_group_id(id)).collect();
        assert_eq!(each_group_once(&ids), groups(&["g", "h", ""]));
        assert!(bytes(&reply(ErrorCode::None)) > "topics".len() + "all".len());
    }
}
