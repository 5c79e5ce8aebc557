//! A topic as nodes of the metadata store, and as the image shows it. Pure.

use std::collections::{BTreeMap, BTreeSet};
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
            emptied: Vec::new(),
            leader_broker_epoch: None,
        };
        nodes.push((Key::Partition(name(), index), Record::Partition(state)));
        nodes.extend(partition.home.map(|home| (Key::Home(name(), index), Record::Home(home))));
    }
    if !topic.overrides.is_empty() {
        nodes.push((Key::TopicConfig(name()), Record::Config(topic.overrides.clone())));
    }
    nodes
}

/// The topic that nodes hold; `None`: there is none of this name. `node` finds them. The error says
/// what is wrong with them.
pub fn topic_of<'a>(
    name: &Arc<str>,
    node: impl Fn(&Key) -> Option<&'a Node>,
    defaults: &TopicConfig,
) -> Result<Option<TopicImage>, String> {
    let Some(Record::Topic(topic)) = record(&node, &Key::Topic(name.clone())) else { return Ok(None) };
    let partitions = topic.assignments.iter().zip(0..).map(|(assignment, index)| {
        let partition = partition_of(name, index, assignment, &node);
        partition.ok_or_else(|| format!("partition {index} of topic {name} has no state"))
    });
    let partitions = partitions.collect::<Result<_, String>>()?;
    let overrides = overrides_of(name, &node);
    let pairs = overrides.iter().map(|(option, value)| (option.as_str(), value.as_str()));
    let config = defaults.with_overrides(pairs).map_err(|why| format!("options of topic {name}: {why}"))?;
    Ok(Some(TopicImage { name: name.clone(), id: topic.id, partitions, overrides, config: config.into() }))
}

/// `before` with the states of these partitions as they are now; `None`: more of the
/// topic has changed than that.
pub fn with_states<'a>(
    before: &TopicImage,
    partitions: &BTreeSet<i32>,
    node: impl Fn(&Key) -> Option<&'a Node>,
) -> Option<TopicImage> {
    let mut topic = before.clone();
    for index in partitions {
        let known = topic.partitions.get_mut(usize::try_from(*index).ok()?)?;
        let assignment = Assignment {
            replicas: std::mem::take(&mut known.replicas),
            adding: std::mem::take(&mut known.adding),
            removing: std::mem::take(&mut known.removing),
        };
        let home = known.home;
        *known = PartitionImage { home, ..partition_of(&before.name, *index, &assignment, &node)? };
    }
    Some(topic)
}

/// The topic of a store that others write to as well. A partition without a state has no leader
/// yet; an option that this broker does not know, or whose value it does not take, has no effect
/// here; a topic whose deletion was begun is none.
pub fn shared_topic_of<'a>(
    name: &Arc<str>,
    node: impl Fn(&Key) -> Option<&'a Node>,
    defaults: &TopicConfig,
) -> Option<TopicImage> {
    let Some(Record::Topic(topic)) = record(&node, &Key::Topic(name.clone())) else { return None };
    if node(&Key::Deletion(name.clone())).is_some() {
        return None;
    }
    let stateless = |assignment: &Assignment| PartitionImage {
        version: -1,
        replicas: assignment.replicas.clone(),
        adding: assignment.adding.clone(),
        removing: assignment.removing.clone(),
        ..PartitionImage::default()
    };
    let partitions = topic.assignments.iter().zip(0..).map(|(assignment, index)| {
        partition_of(name, index, assignment, &node).unwrap_or_else(|| stateless(assignment))
    });
    let (partitions, overrides) = (partitions.collect(), overrides_of(name, &node));
    let config = defaults.with_known(&overrides);
    Some(TopicImage { name: name.clone(), id: topic.id, partitions, overrides, config: config.into() })
}

fn record<'a>(node: &impl Fn(&Key) -> Option<&'a Node>, key: &Key) -> Option<&'a Record> {
    node(key).map(|node| &node.record)
}

/// `None`: it has no state.
fn partition_of<'a>(
    name: &Arc<str>,
    index: i32,
    assignment: &Assignment,
    node: &impl Fn(&Key) -> Option<&'a Node>,
) -> Option<PartitionImage> {
    let Some(Node { record: Record::Partition(state), version, .. }) = node(&Key::Partition(name.clone(), index))
    else {
        return None;
    };
    let home = match record(node, &Key::Home(name.clone(), index)) {
        Some(Record::Home(home)) => Some(*home),
        _ => None,
    };
    Some(PartitionImage {
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
    })
}

fn overrides_of<'a>(name: &Arc<str>, node: &impl Fn(&Key) -> Option<&'a Node>) -> BTreeMap<String, String> {
    match record(node, &Key::TopicConfig(name.clone())) {
        Some(Record::Config(overrides)) => overrides.clone(),
        _ => BTreeMap::new(),
    }
}
