//! Znodes of topics and their partitions.

use serde_json::{Map, Value};

use super::json::{Fields, Object, ZnodeError, object_of};
use crate::cluster::directory_id::decode_id;
use crate::cluster::store::records::{Assignment, PartitionState, TopicRecord};
use crate::model::encode_id;
use crate::model::{BrokerId, LeaderEpoch};

const TOPIC_VERSION: i64 = 3;
const STATE_VERSION: i64 = 1;
/// No leader.
const NONE: i32 = -1;
/// No leader, because the topic is being deleted.
const DELETED: i32 = -2;

/// Size of a topic's znode, in bytes, without fields that others have added.
pub fn topic_bytes(record: &TopicRecord) -> usize {
    encode_topic(record, None).len()
}

pub fn encode_topic(record: &TopicRecord, previous: Option<&[u8]>) -> Vec<u8> {
    let lists = |brokers: fn(&Assignment) -> &Vec<BrokerId>, always: bool| {
        let all = record.assignments.iter().enumerate().map(|(index, assignment)| (index, brokers(assignment)));
        let some = all.filter(|(_, brokers)| always || !brokers.is_empty());
        object_of(some.map(|(index, brokers)| (index.to_string(), Value::from(numbers(brokers)).to_string())))
    };
    Object::new(previous)
        .raw("partitions", &lists(|assignment| &assignment.replicas, true))
        .field("topic_id", encode_id(record.id))
        .raw("adding_replicas", &lists(|assignment| &assignment.adding, false))
        .raw("removing_replicas", &lists(|assignment| &assignment.removing, false))
        .field("version", TOPIC_VERSION)
        .into_bytes()
}

pub fn decode_topic(path: &str, bytes: &[u8]) -> Result<TopicRecord, ZnodeError> {
    let fields = Fields::parse(path, bytes)?;
    fields.version(TOPIC_VERSION)?;
    if fields.get("topic_id").is_none() {
        return Err(fields.damaged("it has no \"topic_id\": Kafka writes one since version 2.8"));
    }
    let id = decode_id(fields.text("topic_id")?).ok_or_else(|| fields.damaged("\"topic_id\" is not an id"))?;
    let none = Map::new();
    let replicas = fields.object("partitions")?.ok_or_else(|| fields.damaged("it has no \"partitions\""))?;
    let adding = fields.object("adding_replicas")?.unwrap_or(&none);
    let removing = fields.object("removing_replicas")?.unwrap_or(&none);
    let list = |name: &str, of: &Map<String, Value>, index: usize| {
        of.get(&index.to_string()).map(|value| fields.ids(name, value)).transpose()
    };
    let assignment = |index: usize| {
        let replicas = list("partitions", replicas, index)?;
        let replicas = replicas.ok_or_else(|| fields.damaged(format!("\"partitions\" lacks number {index}")))?;
        let adding = list("adding_replicas", adding, index)?.unwrap_or_default();
        let removing = list("removing_replicas", removing, index)?.unwrap_or_default();
        Ok(Assignment { replicas: brokers(replicas), adding: brokers(adding), removing: brokers(removing) })
    };
    let assignments = (0..replicas.len()).map(assignment).collect::<Result<_, ZnodeError>>()?;
    Ok(TopicRecord { id, assignments })
}

pub fn encode_state(state: &PartitionState, previous: Option<&[u8]>) -> Vec<u8> {
    Object::new(previous)
        .field("controller_epoch", state.controller_epoch)
        .field("leader", state.leader.map_or(NONE, |leader| leader.0))
        .field("version", STATE_VERSION)
        .field("leader_epoch", state.leader_epoch.0)
        .field("isr", numbers(&state.isr))
        .optional("elr", (!state.elr.is_empty()).then(|| numbers(&state.elr)))
        .optional("elr_min", (state.elr_min != 0).then_some(state.elr_min))
        .optional("last_leader", state.last_leader.map(|leader| leader.0))
        .optional("emptied", (!state.emptied.is_empty()).then(|| numbers(&state.emptied)))
        .optional("leader_broker_epoch", state.leader_broker_epoch)
        .into_bytes()
}

pub fn decode_state(path: &str, bytes: &[u8]) -> Result<PartitionState, ZnodeError> {
    let fields = Fields::parse(path, bytes)?;
    fields.version(STATE_VERSION)?;
    let leader = match fields.number("leader")? {
        leader @ 0.. => Some(BrokerId(leader)),
        NONE | DELETED => None,
        other => return Err(fields.damaged(format!("{other} is no leader"))),
    };
    let list = |name: &str| fields.get(name).map(|value| fields.ids(name, value)).transpose();
    let isr = list("isr")?.ok_or_else(|| fields.damaged("it has no \"isr\""))?;
    let last_leader = match fields.number_or("last_leader", NONE)? {
        leader @ 0.. => Some(BrokerId(leader)),
        NONE => None,
        other => return Err(fields.damaged(format!("{other} is no \"last_leader\""))),
    };
    let leader_epoch = match fields.number("leader_epoch")? {
        epoch @ 0.. => LeaderEpoch(epoch),
        other => return Err(fields.damaged(format!("{other} is no \"leader_epoch\""))),
    };
    Ok(PartitionState {
        leader,
        leader_epoch,
        controller_epoch: fields.number("controller_epoch")?,
        isr: brokers(isr),
        elr: brokers(list("elr")?.unwrap_or_default()),
        elr_min: fields.number_or("elr_min", 0)?,
        last_leader,
        emptied: brokers(list("emptied")?.unwrap_or_default()),
        leader_broker_epoch: fields.long("leader_broker_epoch")?,
    })
}

fn numbers(brokers: &[BrokerId]) -> Vec<i32> {
    brokers.iter().map(|broker| broker.0).collect()
}

fn brokers(ids: Vec<i32>) -> Vec<BrokerId> {
    ids.into_iter().map(BrokerId).collect()
}
