//! The controller's rules, pure: an image and a request give the changed topics or Kafka's error.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};

use uuid::Uuid;

use super::image::{MetadataImage, PartitionImage, TopicImage};
use crate::config::{
    ConfigEntry, GroupOptions, Kind, OptionsOfGroup, ServerConfig, TopicConfig, check_group, describe_broker,
    describe_group, describe_topic,
};
use crate::model::{BrokerId, ErrorCode, LeaderEpoch};
use crate::storage::NAME_MAX;

/// Most partitions of one topic. Kafka refuses more than 10,000 a request; here a request
/// creates topics one by one, so the bound is on the topic: it keeps a mistyped count from
/// filling memory and the data directory.
pub const MAX_PARTITIONS_PER_TOPIC: i32 = 100_000;

/// Where groups and committed offsets are kept.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// Where transactions are kept.
pub const TRANSACTION_TOPIC: &str = "__transaction_state";

/// Longest topic name: with `-<partition>` after it, it must fit into a file name (Kafka's
/// `Topic.MAX_NAME_LENGTH`).
pub const MAX_TOPIC_NAME: usize = 249;
const _: () = assert!(MAX_TOPIC_NAME + 2 + (MAX_PARTITIONS_PER_TOPIC - 1).ilog10() as usize <= NAME_MAX);

/// Longest value of an option: what a string of the protocol holds.
const MAX_CONFIG_VALUE: usize = i16::MAX as usize;

/// Most bytes of all options that a topic has for itself: each given once takes less than half of
/// it. Kafka has no such bound.
const MAX_OVERRIDES: usize = 4096;

/// Most groups with options of their own. Kafka has no such bound.
const MAX_GROUPS_WITH_OPTIONS: usize = 10_000;

/// Kafka's error and the sentence that goes with it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ControlError {
    pub code: ErrorCode,
    pub message: String,
}

impl ControlError {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> ControlError {
        ControlError { code, message: message.into() }
    }
}

/// One topic of a CreateTopics request.
#[derive(Clone, Debug, Default)]
pub struct CreateTopic {
    pub name: String,
    /// -1: the broker's default
    pub num_partitions: i32,
    /// -1: the broker's default
    pub replication_factor: i16,
    /// partition index -> broker ids; empty: the controller chooses
    pub assignments: BTreeMap<i32, Vec<i32>>,
    pub configs: Vec<(String, Option<String>)>,
}

/// One topic of a CreatePartitions request.
#[derive(Clone, Debug, Default)]
pub struct GrowTopic {
    pub name: String,
    /// The new total.
    pub count: i32,
    /// broker ids of each new partition; `None`: the controller chooses
    pub assignments: Option<Vec<Vec<i32>>>,
}

/// One topic of an AlterConfigs or IncrementalAlterConfigs request.
#[derive(Clone, Debug, Default)]
pub struct AlterTopic {
    pub name: String,
    /// Options that `set` does not name go back to the broker's values.
    pub replace: bool,
    /// By option name, carried out in this order.
    pub set: Vec<(String, ConfigOp)>,
}

/// One broker, or all of them, of an AlterConfigs or IncrementalAlterConfigs request.
#[derive(Clone, Debug, Default)]
pub struct AlterBroker {
    /// `None`: the default of all brokers.
    pub broker: Option<BrokerId>,
    /// Options that `set` does not name are no longer set.
    pub replace: bool,
    /// By option name, carried out in this order.
    pub set: Vec<(String, ConfigOp)>,
}

/// One group of an AlterConfigs or IncrementalAlterConfigs request.
#[derive(Clone, Debug, Default)]
pub struct AlterGroup {
    pub name: String,
    /// Options that `set` does not name are no longer set.
    pub replace: bool,
    /// By option name, carried out in this order.
    pub set: Vec<(String, ConfigOp)>,
}

/// Change of one option of a resource (KIP-339).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigOp {
    Set(String),
    /// Back to the value that holds without it.
    Delete,
    /// Adds elements to a list, those that it does not have.
    Append(String),
    /// Takes elements out of a list.
    Subtract(String),
}

/// The topic as it would be created, with `id` as its identity.
pub fn create_topic(
    image: &MetadataImage,
    config: &ServerConfig,
    request: &CreateTopic,
    id: Uuid,
) -> Result<TopicImage, ControlError> {
    check_topic_name(&request.name)?;
    if image.topic(&request.name).is_some() {
        let message = format!("Topic '{}' already exists.", request.name);
        return Err(ControlError::new(ErrorCode::TopicAlreadyExists, message));
    }
    if let Some(why) = image.withheld(&request.name) {
        let message = format!("There are records under this name that cannot be served: {why}");
        return Err(ControlError::new(ErrorCode::KafkaStorageError, message));
    }
    check_collision(image, &request.name)?;
    let overrides = overrides_of(request)?;
    let topic_config = with_overrides(config, &overrides)?;
    let partitions = if request.assignments.is_empty() {
        placed_partitions(image, config, request, id)?
    } else {
        assigned_partitions(image, request)?
    };
    if !is_of_coordinators(config, request) {
        check_total(image, config, partitions.len())?;
    }
    Ok(TopicImage { name: request.name.as_str().into(), id, partitions, overrides, config: topic_config.into() })
}

/// The topic with its new partitions.
pub fn grow_topic(
    image: &MetadataImage,
    config: &ServerConfig,
    request: &GrowTopic,
) -> Result<TopicImage, ControlError> {
    let Some(topic) = image.topic(&request.name) else {
        let message = format!("The topic '{}' does not exist.", request.name);
        return Err(ControlError::new(ErrorCode::UnknownTopicOrPartition, message));
    };
    let existing = topic.partitions.len() as i32;
    if request.count == existing {
        let message = format!("Topic already has {existing} partition(s).");
        return Err(ControlError::new(ErrorCode::InvalidPartitions, message));
    }
    if request.count < existing {
        let message = format!(
            "The topic {} currently has {existing} partition(s); {} would not be an increase.",
            request.name, request.count
        );
        return Err(ControlError::new(ErrorCode::InvalidPartitions, message));
    }
    check_partition_count(request.count)?;
    let additional = (request.count - existing) as usize;
    check_total(image, config, additional)?;
    let replication = topic.partitions.first().map_or(1, |partition| partition.replicas.len());
    let mut grown = TopicImage::clone(topic);
    match &request.assignments {
        Some(assignments) if assignments.len() != additional => {
            let message = format!(
                "Attempted to add {additional} additional partition(s), but {} assignment(s) were specified.",
                assignments.len()
            );
            return Err(ControlError::new(ErrorCode::InvalidReplicaAssignment, message));
        }
        Some(assignments) => {
            for replicas in assignments {
                grown.partitions.push(manual_partition(image, replicas, Some(replication), &[])?);
            }
        }
        None => {
            check_replication(image, replication)?;
            let ring = ring(image);
            let new = (existing..request.count).map(|index| placed_partition(&ring, topic.id, index, replication));
            grown.partitions.extend(new);
        }
    }
    Ok(grown)
}

/// The topic with its changed options; all of them or, with an error, none.
pub fn alter_topic(
    image: &MetadataImage,
    config: &ServerConfig,
    request: &AlterTopic,
) -> Result<TopicImage, ControlError> {
    check_topic_name(&request.name)?;
    let Some(topic) = image.topic(&request.name) else {
        let message = format!("The topic '{}' does not exist.", request.name);
        return Err(ControlError::new(ErrorCode::UnknownTopicOrPartition, message));
    };
    let before = if request.replace { BTreeMap::new() } else { topic.overrides.clone() };
    let overrides = changed(before, &request.set, |overrides| describe_topic(config, overrides))?;
    let topic_config = with_overrides(config, &overrides)?;
    Ok(TopicImage { overrides, config: topic_config.into(), ..TopicImage::clone(topic) })
}

/// The options that are set while brokers run, with a change of them; all of it or, with
/// an error, none. `started`: the settings that this broker was started with, `config`:
/// those that it follows now.
pub fn alter_broker(
    started: &ServerConfig,
    config: &ServerConfig,
    request: &AlterBroker,
) -> Result<ServerConfig, ControlError> {
    let mut dynamic = config.dynamic.clone();
    let options = if request.broker.is_some() { &mut dynamic.broker } else { &mut dynamic.cluster };
    let before = if request.replace { BTreeMap::new() } else { options.clone() };
    // Kafka calls a wrong option of a broker a wrong request.
    let wrong = |error| ControlError { code: ErrorCode::InvalidRequest, ..error };
    *options = changed(before, &request.set, |_| describe_broker(config)).map_err(wrong)?;
    check_size(options, "The dynamic options").map_err(wrong)?;
    started.with_checked(dynamic).map_err(|message| ControlError::new(ErrorCode::InvalidRequest, message))
}

/// The options of a group after a change of them; `groups`: those of all before it.
pub fn alter_group(
    config: &ServerConfig,
    groups: &GroupOptions,
    request: &AlterGroup,
) -> Result<OptionsOfGroup, ControlError> {
    let before = if request.replace { OptionsOfGroup::new() } else { groups.of(&request.name) };
    let options = changed(before, &request.set, |options| describe_group(config, options))?;
    check_size(&options, "The group's own options")?;
    check_group(&options, &config.group).map_err(|message| ControlError::new(ErrorCode::InvalidConfig, message))?;
    if !options.is_empty() && groups.of(&request.name).is_empty() && groups.len() >= MAX_GROUPS_WITH_OPTIONS {
        let message = format!("{MAX_GROUPS_WITH_OPTIONS} groups have options of their own, which is the most.");
        return Err(ControlError::new(ErrorCode::PolicyViolation, message));
    }
    Ok(options)
}

/// The options after these operations. `describe`: all options with their values, of
/// which lists are changed.
fn changed(
    mut options: BTreeMap<String, String>,
    set: &[(String, ConfigOp)],
    describe: impl Fn(&BTreeMap<String, String>) -> Vec<ConfigEntry>,
) -> Result<BTreeMap<String, String>, ControlError> {
    for (name, op) in set {
        let value = match op {
            ConfigOp::Delete => {
                options.remove(name);
                continue;
            }
            ConfigOp::Set(value) => value.clone(),
            ConfigOp::Append(value) => changed_list(describe(&options), name, "APPEND", |list| {
                for element in value.split(',').map(str::trim) {
                    if list.iter().all(|known| known != element) {
                        list.push(element.to_owned());
                    }
                }
            })?,
            ConfigOp::Subtract(value) => changed_list(describe(&options), name, "SUBTRACT", |list| {
                list.retain(|known| value.split(',').all(|element| element.trim() != known));
            })?,
        };
        if value.len() > MAX_CONFIG_VALUE {
            let message = format!("The value of {name} would be longer than {MAX_CONFIG_VALUE} bytes.");
            return Err(ControlError::new(ErrorCode::InvalidConfig, message));
        }
        options.insert(name.clone(), value);
    }
    Ok(options)
}

/// The value of the list `name` after `change`.
fn changed_list(
    options: Vec<ConfigEntry>,
    name: &str,
    operation: &str,
    change: impl FnOnce(&mut Vec<String>),
) -> Result<String, ControlError> {
    let Some(option) = options.into_iter().find(|option| option.name == name && option.kind == Kind::List) else {
        let message = format!("Can't {operation} to key {name} because its type is not LIST.");
        return Err(ControlError::new(ErrorCode::InvalidConfig, message));
    };
    let value = option.value.unwrap_or_default();
    let mut list = value.split(',').map(|element| element.trim().to_owned()).filter(|e| !e.is_empty()).collect();
    change(&mut list);
    Ok(list.join(","))
}

fn check_size(options: &BTreeMap<String, String>, what: &str) -> Result<(), ControlError> {
    let bytes = options.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>();
    if bytes > MAX_OVERRIDES {
        let message = format!("{what} would take {bytes} bytes; they may take {MAX_OVERRIDES}.");
        return Err(ControlError::new(ErrorCode::InvalidConfig, message));
    }
    Ok(())
}

fn with_overrides(config: &ServerConfig, overrides: &BTreeMap<String, String>) -> Result<TopicConfig, ControlError> {
    check_size(overrides, "The topic's own options")?;
    let pairs = overrides.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let merged = config.topic_defaults.with_overrides(pairs);
    let merged = merged.and_then(|config| config.check_together().map(|()| config));
    merged.map_err(|message| ControlError::new(ErrorCode::InvalidConfig, message))
}

/// Kafka's rules for topic names: 1 to 249 of `[a-zA-Z0-9._-]`, not `.` or `..`;
/// the error says which rule.
pub fn check_topic_name(name: &str) -> Result<(), ControlError> {
    let wrong =
        |rule: String| ControlError::new(ErrorCode::InvalidTopicException, format!("Topic name is invalid: {rule}"));
    if name.is_empty() {
        return Err(wrong("the empty string is not allowed".into()));
    }
    if name == "." || name == ".." {
        return Err(wrong(format!("'{name}' is not allowed")));
    }
    if name.len() > MAX_TOPIC_NAME {
        return Err(wrong(format!("its length of {} is more than the {MAX_TOPIC_NAME} allowed", name.len())));
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        let rule =
            format!("'{}' contains characters other than ASCII letters, digits, '.', '_' and '-'", name.escape_debug());
        return Err(wrong(rule));
    }
    Ok(())
}

/// The names that occur more than once: a request must not name a topic twice, and every such entry
/// is answered with INVALID_REQUEST.
pub fn repeated_names<'a>(names: impl IntoIterator<Item = &'a str>) -> BTreeSet<&'a str> {
    let mut seen = HashSet::new();
    names.into_iter().filter(|name| !seen.insert(*name)).collect()
}

/// Metric names made '.' and '_' the same, so Kafka refuses a name that differs from
/// a topic's in these only.
fn check_collision(image: &MetadataImage, name: &str) -> Result<(), ControlError> {
    if !name.contains(['.', '_']) {
        return Ok(());
    }
    let same = |a: u8, b: u8| a == b || (matches!(a, b'.' | b'_') && matches!(b, b'.' | b'_'));
    let collides = |other: &str| other.len() == name.len() && other.bytes().zip(name.bytes()).all(|(a, b)| same(a, b));
    match image.topics().find(|topic| collides(&topic.name)) {
        Some(other) => {
            let message = format!("Topic '{name}' collides with existing topic: {}", other.name);
            Err(ControlError::new(ErrorCode::InvalidTopicException, message))
        }
        None => Ok(()),
    }
}

fn overrides_of(request: &CreateTopic) -> Result<BTreeMap<String, String>, ControlError> {
    let mut overrides = BTreeMap::new();
    for (name, value) in &request.configs {
        let Some(value) = value else {
            let message = format!("Null value not supported for topic configs: {name}");
            return Err(ControlError::new(ErrorCode::InvalidConfig, message));
        };
        overrides.insert(name.clone(), value.clone());
    }
    Ok(overrides)
}

fn check_partition_count(count: i32) -> Result<(), ControlError> {
    if count <= MAX_PARTITIONS_PER_TOPIC {
        return Ok(());
    }
    let message =
        format!("Excessively large number of partitions: {count}; a topic has at most {MAX_PARTITIONS_PER_TOPIC}.");
    Err(ControlError::new(ErrorCode::PolicyViolation, message))
}

/// A coordinators' topic as the broker makes it: groups and transactions must be served also where
/// clients have created all the topics there may be.
fn is_of_coordinators(config: &ServerConfig, request: &CreateTopic) -> bool {
    match request.name.as_str() {
        OFFSETS_TOPIC => request.num_partitions == config.offsets_topic_num_partitions,
        TRANSACTION_TOPIC => request.num_partitions == config.transaction_topic_num_partitions,
        _ => false,
    }
}

/// Refuses to give a coordinators' topic more partitions.
pub fn check_may_grow(topic: &str) -> Result<(), ControlError> {
    let (whose, lost, option) = match topic {
        OFFSETS_TOPIC => ("Groups", "what they have committed", "offsets.topic.num.partitions"),
        TRANSACTION_TOPIC => ("Transactional ids", "their transactions", "transaction.state.log.num.partitions"),
        _ => return Ok(()),
    };
    let message = format!(
        "{whose} find their partition of this topic by the number of partitions: with another number they would lose {lost}. \
         It is fixed when the topic is made ({option})."
    );
    Err(ControlError::new(ErrorCode::InvalidPartitions, message))
}

/// `corelane.max.partitions`, over all topics. More than that may exist already: they stay.
fn check_total(image: &MetadataImage, config: &ServerConfig, added: usize) -> Result<(), ControlError> {
    let limit = config.max_partitions as usize;
    let existing = image.topics().map(|topic| topic.partitions.len()).sum::<usize>();
    if limit == 0 || existing.saturating_add(added) <= limit {
        return Ok(());
    }
    let message = format!(
        "The broker has {existing} partition(s) and would have {} with {added} more; corelane.max.partitions allows {limit}.",
        existing.saturating_add(added)
    );
    Err(ControlError::new(ErrorCode::PolicyViolation, message))
}

fn check_replication(image: &MetadataImage, replication: usize) -> Result<(), ControlError> {
    let (brokers, cordoned) = (image.brokers.len(), image.brokers.iter().filter(|broker| broker.cordoned).count());
    if replication <= brokers - cordoned {
        return Ok(());
    }
    let why = match cordoned {
        0 => String::new(),
        _ => format!(", {cordoned} of which have all their log directories cordoned"),
    };
    let message = format!(
        "Unable to replicate the partition {replication} time(s): The target replication factor of {replication} cannot \
         be reached because only {brokers} broker(s) are registered{why}."
    );
    Err(ControlError::new(ErrorCode::InvalidReplicationFactor, message))
}

fn placed_partitions(
    image: &MetadataImage,
    config: &ServerConfig,
    request: &CreateTopic,
    id: Uuid,
) -> Result<Vec<PartitionImage>, ControlError> {
    if request.replication_factor < -1 || request.replication_factor == 0 {
        let message = "Replication factor must be larger than 0, or -1 to use the default value.";
        return Err(ControlError::new(ErrorCode::InvalidReplicationFactor, message));
    }
    if request.num_partitions < -1 || request.num_partitions == 0 {
        let message = "Number of partitions must be larger than 0, or -1 to use the default value.";
        return Err(ControlError::new(ErrorCode::InvalidPartitions, message));
    }
    let count = if request.num_partitions == -1 { config.num_partitions } else { request.num_partitions };
    check_partition_count(count)?;
    let wanted = request.replication_factor;
    let replication = if wanted == -1 { config.default_replication_factor } else { wanted };
    let replication = usize::try_from(replication).unwrap_or(1);
    check_replication(image, replication)?;
    let ring = ring(image);
    Ok((0..count).map(|index| placed_partition(&ring, id, index, replication)).collect())
}

/// Brokers in the order in which replicas go round, each with its rack: racks take turns
/// where every broker has one, and count for nothing otherwise. Those whose data
/// directories are cordoned get none.
fn ring(image: &MetadataImage) -> Vec<(BrokerId, Option<&str>)> {
    let usable = || image.brokers.iter().filter(|broker| !broker.cordoned);
    if usable().any(|broker| broker.rack.is_none()) {
        return usable().map(|broker| (broker.id, None)).collect();
    }
    let mut by_rack: BTreeMap<&str, VecDeque<BrokerId>> = BTreeMap::new();
    for broker in usable() {
        by_rack.entry(broker.rack.as_deref().unwrap_or_default()).or_default().push_back(broker.id);
    }
    let count = usable().count();
    let mut ring = Vec::with_capacity(count);
    while ring.len() < count {
        for (rack, brokers) in &mut by_rack {
            ring.extend(brokers.pop_front().map(|broker| (broker, Some(*rack))));
        }
    }
    ring
}

/// Neighbouring partitions start at neighbouring brokers; topics start at different ones. The other
/// replicas are shifted each time round, so that the partitions of one leader have different
/// followers. No rack gets a second replica before each has one.
fn placed_partition(ring: &[(BrokerId, Option<&str>)], id: Uuid, index: i32, replication: usize) -> PartitionImage {
    let (count, index) = (ring.len().max(1), index.unsigned_abs() as usize);
    let first = ((id.as_u128() % count as u128) as usize + index) % count;
    let (others, shift) = (count - 1, index / count);
    let order = (0..others).map(|step| (first + 1 + (shift + step) % others) % count);
    let mut left: Vec<usize> = std::iter::once(first).chain(order).filter(|at| *at < ring.len()).collect();
    let (mut replicas, mut racks) = (Vec::with_capacity(replication), BTreeSet::new());
    while replicas.len() < replication && !left.is_empty() {
        let other_rack = |at: &usize| ring[*at].1.is_none_or(|rack| !racks.contains(rack));
        match left.iter().position(other_rack) {
            Some(place) => {
                let (broker, rack) = ring[left.remove(place)];
                replicas.push(broker);
                racks.extend(rack);
            }
            None => racks.clear(),
        }
    }
    new_partition(replicas)
}

fn new_partition(replicas: Vec<BrokerId>) -> PartitionImage {
    PartitionImage {
        leader: replicas.first().copied(),
        leader_epoch: LeaderEpoch(0),
        isr: replicas.clone(),
        replicas,
        ..PartitionImage::default()
    }
}

fn assigned_partitions(image: &MetadataImage, request: &CreateTopic) -> Result<Vec<PartitionImage>, ControlError> {
    if request.replication_factor != -1 {
        let message = "A manual partition assignment was specified, but replication factor was not set to -1.";
        return Err(ControlError::new(ErrorCode::InvalidRequest, message));
    }
    if request.num_partitions != -1 {
        let message = "A manual partition assignment was specified, but numPartitions was not set to -1.";
        return Err(ControlError::new(ErrorCode::InvalidRequest, message));
    }
    let mut partitions: Vec<PartitionImage> = Vec::with_capacity(request.assignments.len());
    for (expected, (index, replicas)) in (0..).zip(&request.assignments) {
        check_partition_count(expected + 1)?;
        if *index != expected {
            let message = format!(
                "partitions should be a consecutive 0-based integer sequence, but partition {expected} has no assignment \
                 and partition {index} has"
            );
            return Err(ControlError::new(ErrorCode::InvalidReplicaAssignment, message));
        }
        let replication = partitions.first().map(|first| first.replicas.len());
        partitions.push(manual_partition(image, replicas, replication, &[])?);
    }
    Ok(partitions)
}

/// Refuses an assignment that names no broker, an unknown one, one twice, or one whose data
/// directories are cordoned, unless it is among `before`: it gets no new replica then.
pub fn check_assignment(image: &MetadataImage, replicas: &[i32], before: &[BrokerId]) -> Result<(), ControlError> {
    manual_partition(image, replicas, None, before).map(drop)
}

fn manual_partition(
    image: &MetadataImage,
    replicas: &[i32],
    replication: Option<usize>,
    before: &[BrokerId],
) -> Result<PartitionImage, ControlError> {
    let wrong = |what: String| {
        let message = format!("The manual partition assignment includes {what}");
        Err(ControlError::new(ErrorCode::InvalidReplicaAssignment, message))
    };
    if replicas.is_empty() {
        return wrong("an empty replica list.".into());
    }
    let mut seen = BTreeSet::new();
    for id in replicas {
        match image.brokers.iter().find(|broker| broker.id.0 == *id) {
            None => return wrong(format!("broker {id}, but no such broker is registered.")),
            Some(broker) if broker.cordoned && !before.contains(&broker.id) => {
                return wrong(format!("broker {id}, but all its log directories are cordoned."));
            }
            Some(_) => {}
        }
        if !seen.insert(*id) {
            return wrong(format!("the broker {id} more than once."));
        }
    }
    if let Some(replication) = replication.filter(|count| *count != replicas.len()) {
        let count = replicas.len();
        return wrong(format!(
            "a partition with {count} replica(s), but this is not consistent with previous partitions, which have \
             {replication} replica(s)."
        ));
    }
    Ok(new_partition(replicas.iter().map(|id| BrokerId(*id)).collect()))
}

#[cfg(test)]
mod tests;
