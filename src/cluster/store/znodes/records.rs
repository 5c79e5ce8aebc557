//! Records as the bytes of their znodes.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::json::{Fields, Object, ZnodeError, damaged, object_of};
use super::{brokers, paths, topics};
use crate::cluster::store::records::{Key, Record};
use crate::model::BrokerId;

const CLUSTER_ID_VERSION: i64 = 1;
const CONFIG_VERSION: i64 = 1;
const PRODUCER_IDS_VERSION: i64 = 1;

/// The broker that writes, and when.
#[derive(Clone, Copy, Debug)]
pub struct Writer {
    pub broker: BrokerId,
    pub now_ms: i64,
}

/// Bytes of a znode. `previous`: the bytes that they replace, whose unknown fields stay.
pub fn encode(record: &Record, writer: Writer, previous: Option<&[u8]>) -> Result<Vec<u8>, ZnodeError> {
    Ok(match record {
        Record::ClusterId(id) => {
            let object = Object::new(previous).field("version", CLUSTER_ID_VERSION.to_string());
            object.field("id", id.as_str()).into_bytes()
        }
        Record::ProducerIds(next) => encode_producer_ids(*next, writer, previous),
        Record::Controller(broker) => brokers::encode_controller(*broker, writer.now_ms, previous),
        Record::ControllerEpoch(epoch) => epoch.to_string().into_bytes(),
        Record::Broker(record) => brokers::encode_registration(record, writer.now_ms, previous),
        Record::Incarnation(record) => brokers::encode_incarnation(record, previous),
        Record::Topic(record) => topics::encode_topic(record, previous),
        Record::Partition(state) => topics::encode_state(state, previous),
        Record::Config(config) => {
            let config = config.iter().map(|(name, value)| (name.clone(), json!(value).to_string()));
            Object::new(previous).field("version", CONFIG_VERSION).raw("config", &object_of(config)).into_bytes()
        }
        Record::Deletion => Vec::new(),
        Record::Damaged(why) => return Err(ZnodeError::Unsupported(format!("a record that is damaged ({why})"))),
        Record::Home(_) => return Err(ZnodeError::Unsupported("the data directory of a replica".to_owned())),
    })
}

/// The record of the znode of `key`.
pub fn decode(key: &Key, bytes: &[u8]) -> Result<Record, ZnodeError> {
    let path = paths::path(key).ok_or_else(|| ZnodeError::Unsupported(format!("{key:?}")))?;
    Ok(match key {
        Key::ClusterId => {
            let fields = Fields::parse(&path, bytes)?;
            fields.version(CLUSTER_ID_VERSION)?;
            Record::ClusterId(fields.text("id")?.to_owned())
        }
        Key::ProducerIds => Record::ProducerIds(decode_producer_ids(&path, bytes)?),
        Key::Controller => Record::Controller(brokers::decode_controller(&path, bytes)?),
        Key::ControllerEpoch => {
            let number = std::str::from_utf8(bytes).ok().and_then(|text| text.parse().ok());
            Record::ControllerEpoch(number.ok_or_else(|| damaged(&path, "not a number"))?)
        }
        Key::Broker(_) => Record::Broker(brokers::decode_registration(&path, bytes)?),
        Key::Incarnation(_) => Record::Incarnation(brokers::decode_incarnation(&path, bytes)?),
        Key::Topic(_) => Record::Topic(topics::decode_topic(&path, bytes)?),
        Key::Partition(..) => Record::Partition(topics::decode_state(&path, bytes)?),
        Key::TopicConfig(_) | Key::BrokerConfig(_) | Key::DefaultConfig | Key::Quota(_) | Key::Group(_) => {
            decode_config(&path, bytes)?
        }
        Key::Deletion(_) => Record::Deletion,
        Key::Home(..) => return Err(ZnodeError::Unsupported(format!("{key:?}"))),
    })
}

/// Kafka names the block that was given away last, from its first to its last id.
fn encode_producer_ids(next: i64, writer: Writer, previous: Option<&[u8]>) -> Vec<u8> {
    let object = Object::new(previous);
    let last = object.previous("block_end").and_then(Value::as_str).and_then(|text| text.parse::<i64>().ok());
    let start = last.and_then(|last| last.checked_add(1)).filter(|start| *start <= next).unwrap_or(0);
    object
        .field("version", PRODUCER_IDS_VERSION)
        .field("broker", writer.broker.0)
        .field("block_start", start.to_string())
        .field("block_end", next.saturating_sub(1).to_string())
        .into_bytes()
}

fn decode_producer_ids(path: &str, bytes: &[u8]) -> Result<i64, ZnodeError> {
    if bytes.is_empty() {
        // Kafka makes it so, and no id was given away.
        return Ok(0);
    }
    let fields = Fields::parse(path, bytes)?;
    fields.version(PRODUCER_IDS_VERSION)?;
    let next = fields.number_in_text("block_end")?.checked_add(1).filter(|next| *next >= 0);
    next.ok_or_else(|| fields.damaged("\"block_end\" is not the last of a block"))
}

fn decode_config(path: &str, bytes: &[u8]) -> Result<Record, ZnodeError> {
    if bytes.is_empty() {
        return Ok(Record::Config(BTreeMap::new()));
    }
    let fields = Fields::parse(path, bytes)?;
    fields.version(CONFIG_VERSION)?;
    let config = fields.object("config")?.ok_or_else(|| fields.damaged("it has no \"config\""))?;
    let entry = |(name, value): (&String, &Value)| {
        let value = value.as_str().ok_or_else(|| fields.damaged(format!("the value of {name:?} is not a text")))?;
        Ok((name.clone(), value.to_owned()))
    };
    Ok(Record::Config(config.iter().map(entry).collect::<Result<_, ZnodeError>>()?))
}
