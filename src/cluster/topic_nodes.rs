//! A topic as nodes of the metadata store, and as the image shows it. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::image::{PartitionImage, TopicImage};
use super::store::{Assignment, Key, Node, PartitionState, Record, TopicRecord};
use crate::config::TopicConfig;

/// The nodes that hold `topic`.
pub fn nodes_of(topic: &TopicImage) -> Vec<(Key, Record)> {
    let name = || topic.name.clone();
    let assignment = |partition: &PartitionImage| Assignment {
        replicas: partition.replicas.clone(),
        adding: partition.adding.clone(),
        removing: partition.removing.clone(),
    };
    let assignments = topic.partitions.iter().map(assignment).collect();
    let mut nodes = vec![(Key::Topic(name()), Record::Topic(TopicRecord { id: topic.id, assignments }))];
    for (partition, index) in topic.partitions.iter().zip(0..) {
        let state = PartitionState {
            leader: partition.leader,
            leader_epoch: partition.leader_epoch,
            controller_epoch: 0,
            isr: partition.isr.clone(),
            elr: partition.elr.clone(),
            elr_min: partition.elr_min,
            last_leader: partition.last_leader,
        };
        nodes.push((Key::Partition(name(), index), Record::Partition(state)));
        nodes.extend(partition.home.map(|home| (Key::Home(name(), index), Record::Home(home))));
    }
    if !topic.overrides.is_empty() {
        nodes.push((Key::TopicConfig(name()), Record::Config(topic.overrides.clone())));
    }
    nodes
}

/// The topic that nodes hold; `None`: there is none of this name. `node` finds them. The error says what is
/// wrong with them.
pub fn topic_of<'a>(
    name: &Arc<str>,
    node: impl Fn(&Key) -> Option<&'a Node>,
    defaults: &TopicConfig,
) -> Result<Option<TopicImage>, String> {
    let record = |key: &Key| node(key).map(|node| &node.record);
    let Some(Record::Topic(topic)) = record(&Key::Topic(name.clone())) else { return Ok(None) };
    let mut partitions = Vec::with_capacity(topic.assignments.len());
    for (assignment, index) in topic.assignments.iter().zip(0..) {
        let Some(Node { record: Record::Partition(state), version, .. }) = node(&Key::Partition(name.clone(), index))
        else {
            return Err(format!("partition {index} of topic {name} has no state"));
        };
        let home = match record(&Key::Home(name.clone(), index)) {
            Some(Record::Home(home)) => Some(*home),
            _ => None,
        };
        partitions.push(PartitionImage {
            version: *version,
            leader: state.leader,
            leader_epoch: state.leader_epoch,
            replicas: assignment.replicas.clone(),
            adding: assignment.adding.clone(),
            removing: assignment.removing.clone(),
            isr: state.isr.clone(),
            elr: state.elr.clone(),
            elr_min: state.elr_min,
            last_leader: state.last_leader,
            home,
        });
    }
    let overrides = match record(&Key::TopicConfig(name.clone())) {
        Some(Record::Config(overrides)) => overrides.clone(),
        _ => BTreeMap::new(),
    };
    let pairs = overrides.iter().map(|(option, value)| (option.as_str(), value.as_str()));
    let config = defaults.with_overrides(pairs).map_err(|why| format!("options of topic {name}: {why}"))?;
    Ok(Some(TopicImage { name: name.clone(), id: topic.id, partitions, overrides, config: config.into() }))
}
