//! DeleteGroups: groups without members, and what they committed (KIP-229).

use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{ApiKey, DeleteGroupsRequest, DeleteGroupsResponse};

use crate::groups::api::{DeleteReply, DeleteRequest, GroupId};
use crate::model::ErrorCode;
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};

use super::shared::{each_group_once, wire_group_id};

pub const API: ApiSpec = ApiSpec::new(ApiKey::DeleteGroups, 0, 2).in_line();

pub async fn handle(session: &Session, Call { request, .. }: Call<DeleteGroupsRequest>) -> DeleteGroupsResponse {
    let groups = each_group_once(&request.groups_names);
    let requests = groups.iter().map(|group| DeleteRequest { group: group.clone() }).collect();
    // Whatever the answer takes: what has been deleted must be told.
    let replies = session.ask_each(requests, |_| 0).await;
    respond(groups, replies)
}

fn respond(groups: Vec<GroupId>, replies: Vec<Result<DeleteReply, ErrorCode>>) -> DeleteGroupsResponse {
    let results = groups.into_iter().zip(replies).map(|(group, reply)| {
        let code = reply.map_or_else(|code| code, |reply| reply.error);
        DeletableGroupResult::default().with_group_id(wire_group_id(&group)).with_error_code(code.code())
    });
    DeleteGroupsResponse::default().with_results(results.collect())
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::through_the_wire;
    use super::*;

    #[test]
    fn each_group_is_told_in_every_version() {
        for version in API.min..=API.max {
            let groups = ["a", "b", "c"].map(GroupId::from).to_vec();
            let replies = vec![
                Ok(DeleteReply { error: ErrorCode::None }),
                Ok(DeleteReply { error: ErrorCode::NonEmptyGroup }),
                Err(ErrorCode::NotCoordinator),
            ];
            let seen = through_the_wire(API.key, version, &respond(groups, replies));
            let rows: Vec<_> = seen.results.iter().map(|r| (&*r.group_id.0, r.error_code)).collect();
            assert_eq!(rows, [("a", 0), ("b", 68), ("c", 16)]);
        }
    }

    #[test]
    fn a_group_named_twice_is_deleted_once() {
        let ids = ["a", "b", "a"].map(wire_group_id);
        assert_eq!(each_group_once(&ids), ["a", "b"].map(GroupId::from));
    }
}
