//! DescribeCluster: the brokers, for administration clients (KIP-700).

use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{ApiKey, DescribeClusterRequest, DescribeClusterResponse};

use crate::cluster::MetadataImage;
use crate::model::{BrokerId, ErrorCode};
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};

use super::shared::{CLUSTER_OPERATIONS, broker_id, text};

pub const API: ApiSpec = ApiSpec::new(ApiKey::DescribeCluster, 0, 2);

const BROKERS: i8 = 1;
const CONTROLLERS: i8 = 2;

pub async fn handle(
    session: &Session,
    Call { version, request }: Call<DescribeClusterRequest>,
) -> DescribeClusterResponse {
    respond(&session.shard().image(), &session.client.listener, version, &request)
}

fn respond(
    image: &MetadataImage,
    listener: &str,
    version: i16,
    request: &DescribeClusterRequest,
) -> DescribeClusterResponse {
    // Before v1 the field is not there and stands at its default, brokers.
    let refused = match request.endpoint_type {
        BROKERS => None,
        _ if version < 1 => None,
        CONTROLLERS => Some((ErrorCode::MismatchedEndpointType, "This endpoint is a broker, not a controller.")),
        _ => Some((ErrorCode::UnsupportedEndpointType, "The endpoint type is not known.")),
    };
    if let Some((code, message)) = refused {
        return DescribeClusterResponse::default().with_error_code(code.code()).with_error_message(Some(text(message)));
    }
    let operations = if request.include_cluster_authorized_operations { CLUSTER_OPERATIONS } else { i32::MIN };
    let brokers = image.reachable(listener).map(|(broker, endpoint)| {
        DescribeClusterBroker::default()
            .with_broker_id(broker_id(broker.id))
            .with_host(text(&endpoint.host))
            .with_port(i32::from(endpoint.port))
            .with_rack(broker.rack.as_deref().map(text))
    });
    DescribeClusterResponse::default()
        .with_endpoint_type(BROKERS)
        .with_cluster_id(text(&image.cluster_id))
        .with_controller_id(broker_id(image.controller.unwrap_or(BrokerId(-1))))
        .with_brokers(brokers.collect())
        .with_cluster_authorized_operations(operations)
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::image;
    use super::*;
    use crate::protocol::respond::encode;

    #[test]
    fn operations_are_told_to_those_who_ask() {
        for (asked, told) in [(true, 8096), (false, i32::MIN)] {
            let request = DescribeClusterRequest::default().with_include_cluster_authorized_operations(asked);
            assert_eq!(respond(&image(&[]), "PLAINTEXT", 2, &request).cluster_authorized_operations, told);
        }
    }

    #[test]
    fn brokers_are_told_by_the_listener_that_the_client_came_by() {
        let request = DescribeClusterRequest::default();
        for (listener, address) in
            [("PLAINTEXT", Some(("host", 9092))), ("EXTERNAL", Some(("outside", 19092))), ("X", None)]
        {
            let response = respond(&image(&[]), listener, 2, &request);
            let told = response.brokers.first().map(|broker| (&*broker.host, broker.port));
            assert_eq!((response.error_code, told), (0, address), "{listener}");
        }
    }

    #[test]
    fn brokers_are_told_and_other_endpoints_refused() {
        for version in API.min..=API.max {
            for (endpoint, code) in [(1, 0), (2, 114), (3, 115)] {
                let code = if version == 0 { 0 } else { code };
                let request = DescribeClusterRequest::default().with_endpoint_type(endpoint);
                let response = respond(&image(&[]), "PLAINTEXT", version, &request);
                assert_eq!((response.error_code, response.brokers.len()), (code, usize::from(code == 0)));
                assert!(encode(ApiKey::DescribeCluster, version, 1, &response).is_ok(), "v{version} {endpoint}");
            }
        }
    }
}
