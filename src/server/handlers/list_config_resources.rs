//! ListConfigResources: names of what has options (KIP-1142); before version 1
//! ListClientMetricsResources.

use std::collections::BTreeSet;

use kafka_protocol::messages::list_config_resources_response::ConfigResource;
use kafka_protocol::messages::{ApiKey, ListConfigResourcesRequest, ListConfigResourcesResponse};
use kafka_protocol::protocol::StrBytes;

use crate::cluster::MetadataImage;
use crate::model::ErrorCode;
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};

use super::shared::text;

pub const API: ApiSpec = ApiSpec::new(ApiKey::ListConfigResources, 0, 1);

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
/// There are no subscriptions to client metrics.
const CLIENT_METRICS: i8 = 16;
/// Those with options of their own.
const GROUP: i8 = 32;

const ALL: [i8; 5] = [TOPIC, BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP];

pub async fn handle(
    session: &Session,
    Call { version, request }: Call<ListConfigResourcesRequest>,
) -> ListConfigResourcesResponse {
    respond(&session.shard().image(), version, request)
}

fn respond(image: &MetadataImage, version: i16, request: ListConfigResourcesRequest) -> ListConfigResourcesResponse {
    let kinds: BTreeSet<i8> = match version {
        0 => BTreeSet::from([CLIENT_METRICS]),
        _ if request.resource_types.is_empty() => BTreeSet::from(ALL),
        _ => request.resource_types.into_iter().collect(),
    };
    if kinds.iter().any(|kind| !ALL.contains(kind)) {
        return ListConfigResourcesResponse::default().with_error_code(ErrorCode::UnsupportedVersion.code());
    }
    let mut resources = Vec::new();
    for kind in kinds {
        let resource = |name: StrBytes| ConfigResource::default().with_resource_type(kind).with_resource_name(name);
        match kind {
            TOPIC => resources.extend(image.topics().map(|topic| resource(text(&topic.name)))),
            BROKER | BROKER_LOGGER => {
                let ids = image.brokers.iter().map(|broker| StrBytes::from_string(broker.id.0.to_string()));
                resources.extend(ids.map(resource));
            }
            GROUP => resources.extend(image.groups.names().map(|group| resource(text(group)))),
            _ => {}
        }
    }
    ListConfigResourcesResponse::default().with_config_resources(resources)
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::{image, through_the_wire};
    use super::*;

    fn ask(version: i16, kinds: &[i8]) -> (i16, Vec<(i8, String)>) {
        let image = image(&[("b", 1, 1), ("a", 2, 1)]);
        let request = ListConfigResourcesRequest::default().with_resource_types(kinds.to_vec());
        let seen = respond(&image, version, request);
        let seen = through_the_wire(ApiKey::ListConfigResources, version, &seen);
        let rows = seen.config_resources.iter().map(|r| (r.resource_type, r.resource_name.to_string()));
        (seen.error_code, rows.collect())
    }

    #[test]
    fn resources_are_listed_by_kind() {
        let row = |kind, name: &str| (kind, name.to_owned());
        let all = vec![row(2, "a"), row(2, "b"), row(4, "7"), row(8, "7")];
        assert_eq!(ask(1, &[]), (0, all));
        assert_eq!(ask(1, &[4, 4, 16, 32]), (0, vec![row(4, "7")]));
        assert_eq!(ask(0, &[]), (0, vec![]), "client metrics alone");
        for unknown in [0, 1, 99, -1] {
            assert_eq!(ask(1, &[2, unknown]), (35, vec![]));
        }
    }
}
