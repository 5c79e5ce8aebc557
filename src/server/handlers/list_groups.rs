//! ListGroups: all groups of this broker, or those of some states and types (KIP-518, KIP-848).

use kafka_protocol::messages::list_groups_response::ListedGroup as WireGroup;
use kafka_protocol::messages::{ApiKey, ListGroupsRequest, ListGroupsResponse};
use kafka_protocol::protocol::StrBytes;

use crate::groups::api::ListedGroup;
use crate::model::ErrorCode;
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};

use super::shared::wire_group_id;

pub const API: ApiSpec = ApiSpec::new(ApiKey::ListGroups, 0, 5).in_line();

pub async fn handle(session: &Session, Call { request, .. }: Call<ListGroupsRequest>) -> ListGroupsResponse {
    let (error, groups) = match session.check() {
        Ok(()) => session.shard().list_groups().await,
        Err(code) => (code, Vec::new()),
    };
    respond(&Wanted::of(&request), error, groups)
}

/// States and types in lower case; empty: all. A name that Kafka does not know
/// is one that no group has.
struct Wanted {
    states: Vec<String>,
    types: Vec<String>,
}

impl Wanted {
    fn of(request: &ListGroupsRequest) -> Wanted {
        let mut states: Vec<String> = request.states_filter.iter().map(|state| state.trim().to_lowercase()).collect();
        let mut types: Vec<String> = request.types_filter.iter().map(|kind| kind.to_lowercase()).collect();
        // Repetitions would be compared with every group.
        for list in [&mut states, &mut types] {
            list.sort_unstable();
            list.dedup();
        }
        Wanted { states, types }
    }

    fn has(&self, group: &ListedGroup) -> bool {
        let among = |list: &[String], value: &str| list.is_empty() || list.binary_search(&value.to_lowercase()).is_ok();
        among(&self.states, &group.state) && among(&self.types, &group.kind)
    }
}

fn respond(wanted: &Wanted, error: ErrorCode, groups: Vec<ListedGroup>) -> ListGroupsResponse {
    let groups = groups.into_iter().filter(|group| wanted.has(group)).map(|group| {
        WireGroup::default()
            .with_group_id(wire_group_id(&group.group))
            .with_protocol_type(StrBytes::from_string(group.protocol_type))
            .with_group_state(StrBytes::from_string(group.state))
            .with_group_type(StrBytes::from_string(group.kind))
    });
    ListGroupsResponse::default().with_error_code(error.code()).with_groups(groups.collect())
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::through_the_wire;
    use super::super::shared::text;
    use super::*;

    fn groups() -> Vec<ListedGroup> {
        let group = |id: &str, state: &str, kind: &str| ListedGroup {
            group: id.into(),
            protocol_type: "consumer".into(),
            state: state.into(),
            kind: kind.into(),
        };
        vec![
            group("a", "Stable", "classic"),
            group("b", "PreparingRebalance", "classic"),
            group("c", "Stable", "consumer"),
            group("d", "Empty", "consumer"),
        ]
    }

    fn listed(states: &[&str], types: &[&str]) -> String {
        let list = |names: &[&str]| names.iter().map(|name| text(name)).collect::<Vec<_>>();
        let request = ListGroupsRequest::default().with_states_filter(list(states)).with_types_filter(list(types));
        let response = respond(&Wanted::of(&request), ErrorCode::None, groups());
        response.groups.iter().map(|group| group.group_id.0.to_string()).collect()
    }

    #[test]
    fn groups_are_chosen_by_state_and_type_whatever_the_case() {
        assert_eq!(listed(&[], &[]), "abcd");
        assert_eq!(listed(&["stable"], &[]), "ac");
        assert_eq!(listed(&[" EMPTY ", "preparingrebalance", "empty"], &[]), "bd");
        assert_eq!(listed(&["Stable", "Empty"], &["Consumer"]), "cd");
        assert_eq!(listed(&[], &["classic", "CONSUMER"]), "abcd");
    }

    #[test]
    fn a_name_that_nobody_has_lists_nothing() {
        assert_eq!(listed(&["Nonsense"], &[]), "");
        assert_eq!(listed(&[""], &[]), "");
        assert_eq!(listed(&[], &["share"]), "");
        // As in Kafka, only states are trimmed.
        assert_eq!(listed(&[], &[" classic"]), "");
    }

    #[test]
    fn every_version_tells_what_it_can() {
        for version in API.min..=API.max {
            let all = Wanted::of(&ListGroupsRequest::default());
            let response = respond(&all, ErrorCode::CoordinatorLoadInProgress, groups());
            let seen = through_the_wire(API.key, version, &response);
            assert_eq!((seen.error_code, seen.groups.len()), (14, 4));
            let group = &seen.groups[1];
            assert_eq!((&*group.group_id.0, &*group.protocol_type), ("b", "consumer"));
            assert_eq!(&*group.group_state, if version >= 4 { "PreparingRebalance" } else { "" });
            assert_eq!(&*group.group_type, if version >= 5 { "classic" } else { "" });
        }
    }
}
