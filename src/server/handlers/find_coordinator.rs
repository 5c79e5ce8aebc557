//! FindCoordinator: the broker that leads the partition of a group or a transactional id in the
//! topic that their coordinators keep. The first to ask has that topic made. A broker that is alone
//! is the coordinator of everything.

use std::collections::HashSet;

use crate::cluster::MetadataImage;
use crate::cluster::controller::ControlError;
use crate::cluster::controller::{OFFSETS_TOPIC, TRANSACTION_TOPIC};
use crate::config::ServerConfig;
use crate::model::{BrokerId as Leader, ErrorCode};
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{ApiKey, BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use super::shared::{control_error, error_message, text};

pub const API: ApiSpec = ApiSpec::new(ApiKey::FindCoordinator, 0, 6);

/// Several keys in one request from here on (KIP-699); one that is repeated is answered once.
const BATCHED_FROM: i16 = 4;
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

pub async fn handle(
    session: &Session,
    Call { version, request }: Call<FindCoordinatorRequest>,
) -> FindCoordinatorResponse {
    let shard = session.shard();
    let made = |topic: &str, made: Result<_, ErrorCode>| match made {
        Ok(_) => Ok(()),
        Err(code) => {
            let message = format!("{topic} is not available: {code}");
            Err(control_error(ErrorCode::CoordinatorNotAvailable, message))
        }
    };
    let found = match request.key_type {
        // An empty group id has a coordinator like any other: old clients commit offsets under it.
        GROUP => made(OFFSETS_TOPIC, shard.offsets_topic().await),
        TRANSACTION => made(TRANSACTION_TOPIC, shard.transaction_topic().await),
        other => {
            let message = format!("there is no coordinator for keys of type {other}");
            Err(control_error(ErrorCode::InvalidRequest, message))
        }
    };
    if found.is_err() || !shard.config.in_cluster() {
        return respond(&shard.config, &session.client.listener, version, request, found);
    }
    let (image, kind) = (shard.image(), request.key_type);
    answer(version, request, |key| {
        let coordinator = match kind {
            GROUP => shard.coordinator_of(key),
            _ => shard.transaction_coordinator_of(key),
        };
        leader(&image, coordinator, &session.client.listener)
    })
}

/// Where a coordinator is.
#[derive(Clone)]
struct Place {
    node: i32,
    host: StrBytes,
    port: i32,
}

fn leader(image: &MetadataImage, leader: Option<Leader>, listener: &str) -> Result<Place, ControlError> {
    let missing = |message: &str| control_error(ErrorCode::CoordinatorNotAvailable, message);
    let leader = leader.ok_or_else(|| missing("the partition of the coordinator has no leader at present"))?;
    let broker = image.brokers.iter().find(|broker| broker.id == leader);
    let endpoint = broker.and_then(|broker| broker.endpoint(listener));
    let endpoint = endpoint.ok_or_else(|| missing("the coordinator has no address for clients of this listener"))?;
    Ok(Place { node: leader.0, host: text(&endpoint.host), port: i32::from(endpoint.port) })
}

fn respond(
    config: &ServerConfig,
    listener: &str,
    version: i16,
    request: FindCoordinatorRequest,
    found: Result<(), ControlError>,
) -> FindCoordinatorResponse {
    let own = || {
        let own = config.listeners.iter().find(|own| own.name == listener).and_then(|own| own.advertised.as_ref());
        let message = "this broker has no address for clients of this listener (advertised.listeners)";
        let own = own.ok_or_else(|| control_error(ErrorCode::CoordinatorNotAvailable, message))?;
        Ok(Place { node: config.broker_id, host: text(&own.host), port: i32::from(own.port) })
    };
    answer(version, request, |_| found.clone().and_then(|()| own()))
}

fn answer(
    version: i16,
    request: FindCoordinatorRequest,
    find: impl Fn(&str) -> Result<Place, ControlError>,
) -> FindCoordinatorResponse {
    let find = |key: &str| match find(key) {
        Ok(place) => (ErrorCode::None, None, place),
        Err(error) => (error.code, error_message(error.message), Place { node: -1, host: text(""), port: -1 }),
    };
    if version >= BATCHED_FROM {
        // A key of a byte or two must not buy an answer of a hundred again and again.
        let mut answered = HashSet::new();
        let keys = request.coordinator_keys.into_iter().filter(|key| answered.insert(key.clone()));
        let coordinators = keys.map(|key| {
            let (code, message, Place { node, host, port }) = find(&key);
            Coordinator::default()
                .with_key(key)
                .with_node_id(BrokerId(node))
                .with_host(host)
                .with_port(port)
                .with_error_code(code.code())
                .with_error_message(message)
        });
        return FindCoordinatorResponse::default().with_coordinators(coordinators.collect());
    }
    let (code, message, Place { node, host, port }) = find(&request.key);
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
    use crate::config::{Advertised, ListenerConfig};
    use crate::protocol::respond::encode;

    fn listeners() -> Vec<ListenerConfig> {
        let advertised = |host: &str, port| Some(Advertised { host: host.into(), port });
        let listener = |name: &str, advertised| ListenerConfig {
            name: name.into(),
            address: ([127, 0, 0, 1], 9092).into(),
            advertised,
        };
        vec![listener("PLAINTEXT", advertised("h", 9)), listener("EXTERNAL", advertised("e", 10)), listener("X", None)]
    }

    #[test]
    fn each_listener_tells_its_own_address() {
        let config = ServerConfig { broker_id: 7, listeners: listeners(), ..Default::default() };
        for (listener, code, node, host, port) in
            [("PLAINTEXT", 0, 7, "h", 9), ("EXTERNAL", 0, 7, "e", 10), ("X", 15, -1, "", -1)]
        {
            let request = || FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]);
            let old = respond(&config, listener, 3, request(), Ok(()));
            assert_eq!((old.error_code, old.node_id.0, &*old.host, old.port), (code, node, host, port), "{listener}");
            let new = &respond(&config, listener, 4, request(), Ok(())).coordinators[0];
            assert_eq!((new.error_code, new.node_id.0, &*new.host, new.port), (code, node, host, port), "{listener}");
        }
    }

    #[test]
    fn this_broker_or_why_not_in_every_version() {
        let config = ServerConfig { broker_id: 7, listeners: listeners(), ..Default::default() };
        for version in API.min..=API.max {
            for (code, node) in [(0, 7), (15, -1), (42, -1)] {
                let found = match code {
                    0 => Ok(()),
                    15 => Err(control_error(ErrorCode::CoordinatorNotAvailable, "why")),
                    _ => Err(control_error(ErrorCode::InvalidRequest, "why")),
                };
                let request = FindCoordinatorRequest::default().with_key(text("g")).with_coordinator_keys(vec![
                    text("g"),
                    text("h"),
                    text("g"),
                ]);
                let response = respond(&config, "PLAINTEXT", version, request, found);
                let told = |message: &Option<StrBytes>| message.as_deref() == (code != 0).then_some("why");
                if version >= BATCHED_FROM {
                    let rows: Vec<_> =
                        response.coordinators.iter().map(|c| (&*c.key, c.error_code, c.node_id.0)).collect();
                    assert_eq!(rows, [("g", code, node), ("h", code, node)]);
                    assert!(response.coordinators.iter().all(|c| told(&c.error_message)));
                } else {
                    assert_eq!((response.error_code, response.node_id.0), (code, node));
                    assert!(told(&response.error_message));
                }
                assert!(encode(ApiKey::FindCoordinator, version, 1, &response).is_ok(), "v{version}");
            }
        }
    }
}
