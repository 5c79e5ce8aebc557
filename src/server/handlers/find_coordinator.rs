//! FindCoordinator: this broker, for every group and transactional id.

use std::collections::HashSet;
use std::rc::Rc;

use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{ApiKey, BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use crate::config::ServerConfig;
use crate::model::ErrorCode;
use crate::protocol::ApiSpec;
use crate::server::context::ServerContext;

use super::shared::text;

pub const API: ApiSpec = ApiSpec::new(ApiKey::FindCoordinator, 0, 6);

/// Several keys in one request from here on (KIP-699); one that is repeated is answered once.
const BATCHED_FROM: i16 = 4;
const GROUP: i8 = 0;
/// Answered although transactions are refused: by InitProducerId, with an error that ends the client's attempts.
const TRANSACTION: i8 = 1;

pub async fn handle(
    context: &Rc<ServerContext>,
    version: i16,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    respond(&context.shard.config, version, request)
}

fn respond(config: &ServerConfig, version: i16, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let known = matches!(request.key_type, GROUP | TRANSACTION);
    let (code, message) = if known {
        (ErrorCode::None, None)
    } else {
        let message = format!("there is no coordinator for keys of type {}", request.key_type);
        (ErrorCode::InvalidRequest, Some(StrBytes::from_string(message)))
    };
    let (node, host, port) = if known {
        (config.broker_id, text(&config.advertised_host), i32::from(config.advertised_port))
    } else {
        (-1, StrBytes::new(), -1)
    };
    if version >= BATCHED_FROM {
        // A key of a byte or two must not buy an answer of a hundred again and again.
        let mut answered = HashSet::new();
        let keys = request.coordinator_keys.into_iter().filter(|key| answered.insert(key.clone()));
        let coordinators = keys.map(|key| {
            Coordinator::default()
                .with_key(key)
                .with_node_id(BrokerId(node))
                .with_host(host.clone())
                .with_port(port)
                .with_error_code(code.code())
                .with_error_message(message.clone())
        });
        return FindCoordinatorResponse::default().with_coordinators(coordinators.collect());
    }
    FindCoordinatorResponse::default()
        .with_error_code(code.code())
        .with_error_message(message)
        .with_node_id(BrokerId(node))
        .with_host(host)
        .with_port(port)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::respond::encode;

    #[test]
    fn this_broker_for_groups_and_transactions_in_every_version() {
        let config =
            ServerConfig { broker_id: 7, advertised_host: "h".into(), advertised_port: 9, ..Default::default() };
        for version in API.min..=API.max {
            for (key_type, code, node) in [(GROUP, 0, 7), (TRANSACTION, 0, 7), (2, 42, -1), (9, 42, -1)] {
                let request = FindCoordinatorRequest::default()
                    .with_key(text("g"))
                    .with_key_type(key_type)
                    .with_coordinator_keys(vec![text("g"), text("h"), text("g")]);
                let response = respond(&config, version, request);
                if version >= BATCHED_FROM {
                    let rows: Vec<_> =
                        response.coordinators.iter().map(|c| (&*c.key, c.error_code, c.node_id.0)).collect();
                    assert_eq!(rows, [("g", code, node), ("h", code, node)]);
                } else {
                    assert_eq!((response.error_code, response.node_id.0), (code, node));
                }
                assert!(encode(ApiKey::FindCoordinator, version, 1, &response).is_ok(), "v{version}");
            }
        }
    }
}
