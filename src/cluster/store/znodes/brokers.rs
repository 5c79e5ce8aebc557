//! Znodes of brokers and of the controller.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::json::{Fields, Object, ZnodeError, object_of};
use crate::cluster::directory_id::DirectoryId;
use crate::cluster::image::EndpointImage;
use crate::cluster::store::records::{BrokerRecord, Incarnation, OfflineReplicas, Phase};
use crate::model::BrokerId;

const REGISTRATION_VERSION: i64 = 5;
const CONTROLLER_VERSION: i64 = 2;
const INCARNATION_VERSION: i64 = 1;

pub fn encode_registration(record: &BrokerRecord, now_ms: i64, previous: Option<&[u8]>) -> Vec<u8> {
    let object = Object::new(previous);
    // Of a listener's protocol nothing is known but what the replaced znode says.
    let protocols = object.previous("listener_security_protocol_map").cloned().unwrap_or_default();
    let protocol = |listener: &str| protocols.get(listener).cloned().unwrap_or_else(|| json!("PLAINTEXT"));
    let listeners = record.endpoints.iter().map(|endpoint| &endpoint.listener);
    let map = object_of(listeners.map(|listener| (listener.clone(), protocol(listener).to_string())));
    let plain = record.endpoints.iter().find(|endpoint| protocol(&endpoint.listener) == "PLAINTEXT");
    let endpoints: Vec<String> = record.endpoints.iter().map(endpoint_text).collect();
    object
        .kept("features", json!({}))
        .raw("listener_security_protocol_map", &map)
        .field("endpoints", endpoints)
        .optional("rack", record.rack.as_deref())
        .optional("short_of_room", record.short_of_room.then_some(true))
        .optional("cordoned", record.cordoned.then_some(true))
        .optional("offline", (!record.offline.is_empty()).then(|| offline_json(&record.offline)))
        .kept("jmx_port", -1)
        .field("port", plain.map_or(-1, |endpoint| i32::from(endpoint.port)))
        .field("host", plain.map(|endpoint| endpoint.host.as_str()))
        .field("version", REGISTRATION_VERSION)
        .field("timestamp", now_ms.to_string())
        .into_bytes()
}

pub fn decode_registration(path: &str, bytes: &[u8]) -> Result<BrokerRecord, ZnodeError> {
    let fields = Fields::parse(path, bytes)?;
    fields.version(REGISTRATION_VERSION)?;
    let endpoints = fields.list("endpoints")?.ok_or_else(|| fields.damaged("it has no \"endpoints\""))?;
    let endpoint = |value: &Value| {
        let parsed = value.as_str().and_then(parse_endpoint);
        parsed.ok_or_else(|| fields.damaged(format!("{value} is not an endpoint LISTENER://HOST:PORT")))
    };
    let endpoints = endpoints.iter().map(endpoint).collect::<Result<Vec<_>, _>>()?;
    let rack = fields.get("rack").map(|_| fields.text("rack")).transpose()?.map(str::to_owned);
    let is_set = |name: &str| fields.get(name).is_some_and(|value| *value == json!(true));
    Ok(BrokerRecord {
        endpoints,
        rack,
        short_of_room: is_set("short_of_room"),
        cordoned: is_set("cordoned"),
        offline: Arc::new(fields.get("offline").map(offline).unwrap_or_default()),
    })
}

fn offline_json(offline: &OfflineReplicas) -> Value {
    offline.iter().map(|(topic, partitions)| (topic.to_string(), json!(partitions))).collect()
}

/// Of entries that are none nothing is known.
fn offline(value: &Value) -> OfflineReplicas {
    let index = |value: &Value| i32::try_from(value.as_i64()?).ok();
    let indexes = |value: &Value| value.as_array().into_iter().flatten().filter_map(index).collect();
    value.as_object().into_iter().flatten().map(|(topic, value)| (topic.as_str().into(), indexes(value))).collect()
}

fn endpoint_text(endpoint: &EndpointImage) -> String {
    let EndpointImage { listener, host, port } = endpoint;
    match host.contains(':') {
        true => format!("{listener}://[{host}]:{port}"),
        false => format!("{listener}://{host}:{port}"),
    }
}

fn parse_endpoint(text: &str) -> Option<EndpointImage> {
    let (listener, address) = text.split_once("://")?;
    let (host, port) = address.rsplit_once(':')?;
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = port.parse().ok()?;
    (!listener.is_empty()).then(|| EndpointImage { listener: listener.to_uppercase(), host: host.to_owned(), port })
}

pub fn encode_controller(broker: BrokerId, now_ms: i64, previous: Option<&[u8]>) -> Vec<u8> {
    Object::new(previous)
        .field("version", CONTROLLER_VERSION)
        .field("brokerid", broker.0)
        .field("timestamp", now_ms.to_string())
        .kept("kraftControllerEpoch", -1)
        .into_bytes()
}

pub fn decode_controller(path: &str, bytes: &[u8]) -> Result<BrokerId, ZnodeError> {
    let fields = Fields::parse(path, bytes)?;
    fields.version(CONTROLLER_VERSION)?;
    match fields.number("brokerid")? {
        id @ 0.. => Ok(BrokerId(id)),
        _ => Err(fields.damaged("\"brokerid\" is negative")),
    }
}

pub fn encode_incarnation(record: &Incarnation, previous: Option<&[u8]>) -> Vec<u8> {
    let phase = match record.phase {
        Phase::Joining => "joining",
        Phase::Active => "active",
        Phase::Draining => "draining",
    };
    let directories: Vec<String> = record.directories.iter().map(DirectoryId::to_string).collect();
    Object::new(previous)
        .field("version", INCARNATION_VERSION)
        .field("phase", phase)
        .field("trusted", record.trusted)
        .field("boot_id", record.boot.to_string())
        .field("directories", directories)
        .into_bytes()
}

pub fn decode_incarnation(path: &str, bytes: &[u8]) -> Result<Incarnation, ZnodeError> {
    let fields = Fields::parse(path, bytes)?;
    fields.version(INCARNATION_VERSION)?;
    let phase = match fields.text("phase")? {
        "joining" => Phase::Joining,
        "active" => Phase::Active,
        "draining" => Phase::Draining,
        other => return Err(fields.damaged(format!("{other:?} is no phase"))),
    };
    let boot = Uuid::parse_str(fields.text("boot_id")?).map_err(|_| fields.damaged("\"boot_id\" is not a UUID"))?;
    let directory = |value: &Value| {
        let id = value.as_str().and_then(DirectoryId::parse);
        id.ok_or_else(|| fields.damaged(format!("{value} is not a directory id")))
    };
    let directories = fields.list("directories")?.into_iter().flatten().map(directory);
    let directories = directories.collect::<Result<BTreeSet<_>, _>>()?;
    Ok(Incarnation { phase, trusted: fields.flag("trusted")?, boot, directories })
}
