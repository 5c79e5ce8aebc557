//! Which topics there are, and where.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::arguments::{Describe, List};
use crate::cli::nearest::did_you_mean;
use crate::cli::report::{self, Report, or_dash, table};
use crate::client::ClusterClient;
use crate::client::cluster_client::{ConfigEntry, ConfigResource, Partition, Place, Spot, Topic};
use crate::model::encode_id;

/// Kafka's number for a value that the topic has for itself.
const DYNAMIC_TOPIC: i8 = 1;
const MIN_ISR: &str = "min.insync.replicas";

/// That there is no such topic, and what may have been meant.
pub(in crate::cli) async fn unknown_topic(client: &mut ClusterClient, topic: &str) -> Result<String, String> {
    let all = client.topics(None).await.map_err(|e| e.to_string())?;
    let meant = did_you_mean(topic, all.iter().map(|topic| topic.name.as_str()));
    let meant = if meant.is_empty() { "; `corelane topic list` shows all".to_owned() } else { meant };
    Ok(format!("there is no topic {topic}{meant}"))
}

/// A topic whose records are to be written or read. Without it: what may have been
/// meant, or how to create it.
pub(in crate::cli) async fn one_to_use(client: &mut ClusterClient, name: &str) -> Result<Topic, String> {
    let told = client.topics(Some(std::slice::from_ref(&name.to_owned()))).await.map_err(|e| e.to_string())?;
    let topic = told.into_iter().next().ok_or_else(|| format!("the cluster says nothing of topic {name}"))?;
    match &topic.refusal {
        None if topic.partitions.is_empty() => Err(format!("topic {name} has no partitions yet; try again")),
        None => Ok(topic),
        Some(_) if topic.is_unknown() => {
            let all = client.topics(None).await.map_err(|e| e.to_string())?;
            let meant = did_you_mean(name, all.iter().map(|topic| topic.name.as_str()));
            let gap = if meant.is_empty() { "; " } else { " " };
            Err(format!("there is no topic {name}{meant}{gap}`corelane topic create {name}` makes it"))
        }
        Some(refusal) => Err(format!("topic {name}: {refusal}")),
    }
}

/// These topics, all of which there must be.
pub(in crate::cli) async fn known(client: &mut ClusterClient, names: &[String]) -> Result<Vec<Topic>, String> {
    let (topics, failed) = found(client, names).await?;
    match failed.is_empty() {
        true => Ok(topics),
        false => Err(failed.join("\ncorelane: ")),
    }
}

/// Those of these topics that there are; a line about each of the others.
async fn found(client: &mut ClusterClient, names: &[String]) -> Result<(Vec<Topic>, Vec<String>), String> {
    let (mut topics, mut failed) = (Vec::new(), Vec::new());
    for topic in client.topics(Some(names)).await.map_err(|e| e.to_string())? {
        match &topic.refusal {
            None => topics.push(topic),
            Some(_) if topic.is_unknown() => failed.push(unknown_topic(client, &topic.name).await?),
            Some(refusal) => failed.push(format!("topic {}: {refusal}", topic.name)),
        }
    }
    Ok((topics, failed))
}

fn is_short(partition: &Partition) -> bool {
    partition.isr.len() < partition.replicas.len()
}

fn replication_factor(topic: &Topic) -> usize {
    topic.partitions.first().map_or(0, |partition| partition.replicas.len())
}

pub(super) async fn list(mut client: ClusterClient, command: List) -> Result<Report, String> {
    let mut topics = client.topics(None).await.map_err(|e| e.to_string())?;
    topics.retain(|topic| !(command.exclude_internal && topic.internal));
    let (mut rows, mut items, mut failed) = (Vec::new(), Vec::new(), Vec::new());
    for topic in &topics {
        if let Some(refusal) = &topic.refusal {
            failed.push(format!("topic {}: {refusal}", topic.name));
            continue;
        }
        let short = topic.partitions.iter().filter(|partition| is_short(partition)).count();
        let offline = topic.partitions.iter().filter(|partition| partition.leader < 0).count();
        rows.push(vec![
            topic.name.clone(),
            topic.partitions.len().to_string(),
            replication_factor(topic).to_string(),
            short.to_string(),
            offline.to_string(),
            if topic.internal { "internal" } else { "" }.to_owned(),
        ]);
        items.push(json!({
            "topic": topic.name,
            "topic_id": id(topic),
            "internal": topic.internal,
            "partition_count": topic.partitions.len(),
            "replication_factor": replication_factor(topic),
            "under_replicated_partitions": short,
            "unavailable_partitions": offline,
        }));
    }
    let heads = ["TOPIC", "PARTITIONS", "REPLICATION-FACTOR", "UNDER-REPLICATED", "UNAVAILABLE", ""];
    Ok(Report { text: table(&heads, rows), json: Value::Array(items), failed })
}

/// As Kafka spells it; null where the broker does not tell.
fn id(topic: &Topic) -> Value {
    if topic.id.is_nil() { Value::Null } else { json!(encode_id(topic.id)) }
}

pub(super) async fn describe(mut client: ClusterClient, command: Describe) -> Result<Report, String> {
    let (topics, mut failed) = match command.topics.is_empty() {
        true => (client.topics(None).await.map_err(|e| e.to_string())?, Vec::new()),
        false => found(&mut client, &command.topics).await?,
    };
    let mut topics = topics;
    topics.retain(|topic| topic.refusal.is_none() && !(command.exclude_internal && topic.internal));
    let names: Vec<String> = topics.iter().map(|topic| topic.name.clone()).collect();
    let configs = configs(&mut client, &names, &mut failed).await?;
    let mut eligible = client.eligible_leaders(&names).await.map_err(|e| e.to_string())?;
    let mut text = String::new();
    let mut items = Vec::new();
    for topic in &mut topics {
        let options = configs.get(&topic.name).map(Vec::as_slice).unwrap_or_default();
        let own: Vec<&ConfigEntry> = options.iter().filter(|entry| entry.source == DYNAMIC_TOPIC).collect();
        if command.topics_with_overrides && own.is_empty() {
            continue;
        }
        let factor = replication_factor(topic);
        let count = topic.partitions.len();
        let min_isr = options.iter().find(|entry| entry.name == MIN_ISR).and_then(|entry| entry.value.as_ref());
        let min_isr: usize = min_isr.and_then(|value| value.parse().ok()).unwrap_or(0);
        let filters: [(bool, Filter); 3] = [
            (command.under_replicated_partitions, &is_short),
            (command.unavailable_partitions, &|partition| partition.leader < 0),
            (command.under_min_isr_partitions, &|partition| partition.isr.len() < min_isr),
        ];
        let filters: Vec<_> = filters.into_iter().filter(|(asked, _)| *asked).map(|(_, holds)| holds).collect();
        topic.partitions.retain(|partition| filters.is_empty() || filters.iter().any(|holds| holds(partition)));
        if !filters.is_empty() && topic.partitions.is_empty() {
            continue;
        }
        let ends = match command.offsets {
            true => ends(&mut client, topic, &mut failed).await?,
            false => BTreeMap::new(),
        };
        let told: Vec<String> =
            own.iter().map(|entry| format!("{}={}", entry.name, entry.value.as_deref().unwrap_or(""))).collect();
        let id_text = if topic.id.is_nil() { "-".to_owned() } else { encode_id(topic.id) };
        let mut facts = format!("TopicId: {id_text}  PartitionCount: {count}  ReplicationFactor: {factor}");
        if !told.is_empty() {
            facts.push_str(&format!("  Configs: {}", told.join(",")));
        }
        let gap = if text.is_empty() { "" } else { "\n" };
        text.push_str(&format!("{gap}Topic: {}  {facts}\n", topic.name));
        text.push_str(&partitions_table(topic, &eligible, command.offsets.then_some(&ends)));
        let mut own_configs = Map::new();
        for entry in own {
            own_configs.insert(entry.name.clone(), json!(entry.value));
        }
        let mut partitions = Vec::new();
        for partition in &topic.partitions {
            let place = (topic.name.clone(), partition.index);
            let (start, end) = ends.get(&partition.index).copied().unwrap_or_default();
            partitions.push(json!({
                "partition": partition.index,
                "leader": (partition.leader >= 0).then_some(partition.leader),
                "leader_epoch": (partition.leader_epoch >= 0).then_some(partition.leader_epoch),
                "replicas": partition.replicas,
                "isr": partition.isr,
                "elr": eligible.remove(&place),
                "offline": partition.offline,
                "start_offset": start,
                "end_offset": end,
            }));
        }
        items.push(json!({
            "topic": topic.name,
            "topic_id": id(topic),
            "internal": topic.internal,
            "partition_count": count,
            "replication_factor": factor,
            "configs": own_configs,
            "partitions": partitions,
        }));
    }
    Ok(Report { text, json: Value::Array(items), failed })
}

/// True if a partition is shown.
type Filter<'a> = &'a dyn Fn(&Partition) -> bool;

type Ends = BTreeMap<i32, (Option<i64>, Option<i64>)>;

fn partitions_table(topic: &Topic, eligible: &BTreeMap<Place, Vec<i32>>, ends: Option<&Ends>) -> String {
    let mut heads = vec!["PARTITION", "LEADER", "EPOCH", "REPLICAS", "ISR", "ELR", "OFFLINE"];
    if ends.is_some() {
        heads.extend(["START-OFFSET", "END-OFFSET"]);
    }
    let row = |partition: &Partition| {
        let elr = eligible.get(&(topic.name.clone(), partition.index)).map(Vec::as_slice).unwrap_or_default();
        let mut row = vec![
            partition.index.to_string(),
            if partition.leader < 0 { "none".to_owned() } else { partition.leader.to_string() },
            or_dash((partition.leader_epoch >= 0).then_some(partition.leader_epoch)),
            report::list(&partition.replicas),
            report::list(&partition.isr),
            report::list(elr),
            report::list(&partition.offline),
        ];
        if let Some(ends) = ends {
            let (start, end) = ends.get(&partition.index).copied().unwrap_or_default();
            row.extend([or_dash(start), or_dash(end)]);
        }
        row
    };
    table(&heads, topic.partitions.iter().map(row).collect())
}

/// The options of each topic.
async fn configs(
    client: &mut ClusterClient,
    names: &[String],
    failed: &mut Vec<String>,
) -> Result<BTreeMap<String, Vec<ConfigEntry>>, String> {
    let resources: Vec<ConfigResource> = names.iter().map(|name| ConfigResource::topic(name)).collect();
    let mut found = BTreeMap::new();
    for (resource, outcome) in client.configs(&resources).await.map_err(|e| e.to_string())? {
        match outcome {
            Ok(entries) => drop(found.insert(resource.name, entries)),
            Err(refusal) => failed.push(format!("the options of topic {}: {refusal}", resource.name)),
        }
    }
    Ok(found)
}

/// The first and the next offset of each partition that has a leader.
async fn ends(client: &mut ClusterClient, topic: &Topic, failed: &mut Vec<String>) -> Result<Ends, String> {
    let mut ends = Ends::new();
    for (spot, first) in [(Spot::Earliest, true), (Spot::Latest, false)] {
        let wanted: Vec<(Place, Spot)> =
            topic.partitions.iter().map(|partition| ((topic.name.clone(), partition.index), spot)).collect();
        for ((_, index), outcome) in client.offsets(&wanted, false).await.map_err(|e| e.to_string())? {
            match outcome {
                Ok(offset) if first => ends.entry(index).or_default().0 = Some(offset),
                Ok(offset) => ends.entry(index).or_default().1 = Some(offset),
                Err(refusal) if first => failed.push(format!("{}-{index}: {refusal}", topic.name)),
                Err(_) => {}
            }
        }
    }
    Ok(ends)
}
