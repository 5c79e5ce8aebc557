//! Topics and their partitions.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::cache::{Cache, Sizes};
use super::question::{PAGE, PARTITIONS, Part, Problem, of_page};
use crate::client::ClusterClient;
use crate::client::cluster_client::{ConfigResource, Partition, Place, Spot, Topic};
use crate::model::encode_id;

/// Partitions of a page of topics whose offsets are asked for; topics behind them are shown
/// without a number of records.
const MOST_OFFSETS: usize = 2000;
/// Kafka's number for a value that the topic has for itself (`ConfigSource`).
const DYNAMIC_TOPIC: i8 = 1;

type Ends = HashMap<Place, (Option<i64>, Option<i64>)>;

/// Where each partition begins and ends, as far as their leaders tell.
async fn ends(client: &mut ClusterClient, places: &[Place]) -> Result<Ends, Problem> {
    let mut ends = Ends::new();
    for (spot, first) in [(Spot::Earliest, true), (Spot::Latest, false)] {
        let wanted: Vec<(Place, Spot)> = places.iter().map(|place| (place.clone(), spot)).collect();
        for (place, offset) in client.offsets(&wanted, false).await? {
            let (start, end) = ends.entry(place).or_default();
            *(if first { start } else { end }) = offset.ok();
        }
    }
    Ok(ends)
}

fn size(sizes: &Sizes, topic: &Topic, partition: &Partition) -> Option<i64> {
    sizes.get(&topic.name)?.get(&(partition.leader, partition.index)).copied()
}

/// All of them, or `None` if one is not known.
fn sum(mut values: impl Iterator<Item = Option<i64>>) -> Option<i64> {
    values.try_fold(0i64, |sum, value| sum.checked_add(value?))
}

pub(super) async fn list(client: &mut ClusterClient, cache: &Cache, part: &Part) -> Result<Value, Problem> {
    let all = cache.topics(client).await?;
    let matching = || all.iter().filter(|topic| part.matches(&topic.name));
    let shown: Vec<&Topic> = of_page(matching(), part.page, PAGE);
    let mut places: Vec<Place> = Vec::new();
    for topic in &shown {
        if places.len() + topic.partitions.len() > MOST_OFFSETS {
            break;
        }
        places.extend(topic.partitions.iter().map(|partition| (topic.name.clone(), partition.index)));
    }
    let ends = ends(client, &places).await?;
    let sizes = cache.sizes(client).await?;
    let row = |topic: &&Topic| {
        let records = topic.partitions.iter().map(|partition| {
            let (start, end) = ends.get(&(topic.name.clone(), partition.index))?;
            Some((*end)? - (*start)?)
        });
        json!({
            "topic": topic.name,
            "internal": topic.internal,
            "partitions": topic.partitions.len(),
            "replication_factor": topic.partitions.first().map_or(0, |partition| partition.replicas.len()),
            "under_replicated_partitions": topic.partitions.iter().filter(|p| p.isr.len() < p.replicas.len()).count(),
            "offline_partitions": topic.partitions.iter().filter(|p| p.leader < 0).count(),
            "records": sum(records),
            "bytes": sum(topic.partitions.iter().map(|partition| size(&sizes, topic, partition))),
            "error": topic.refusal.as_ref().map(ToString::to_string),
        })
    };
    Ok(json!({
        "total": all.len(), "matching": matching().count(), "page": part.page, "page_size": PAGE,
        "topics": shown.iter().map(row).collect::<Vec<_>>(),
    }))
}

pub(super) async fn show(client: &mut ClusterClient, cache: &Cache, name: &str, page: usize) -> Result<Value, Problem> {
    let found = client.topics(Some(&[name.to_owned()])).await?;
    let topic = match found.into_iter().next() {
        Some(topic) if topic.refusal.is_none() => topic,
        Some(topic) if !topic.is_unknown() => {
            let why = topic.refusal.map_or_else(String::new, |refusal| refusal.to_string());
            return Err(Problem::Failed(format!("topic {name}: {why}")));
        }
        _ => return Err(Problem::NotFound(format!("there is no topic {name}"))),
    };
    let shown: Vec<&Partition> = of_page(topic.partitions.iter(), page, PARTITIONS);
    let places: Vec<Place> = shown.iter().map(|partition| (topic.name.clone(), partition.index)).collect();
    let ends = ends(client, &places).await?;
    let sizes = cache.sizes(client).await?;
    let row = |partition: &&Partition| {
        let place = (topic.name.clone(), partition.index);
        let (start, end) = ends.get(&place).copied().unwrap_or_default();
        json!({
            "partition": partition.index,
            "leader": (partition.leader >= 0).then_some(partition.leader),
            "leader_epoch": (partition.leader_epoch >= 0).then_some(partition.leader_epoch),
            "replicas": partition.replicas,
            "isr": partition.isr,
            "offline_replicas": partition.offline,
            "start_offset": start,
            "end_offset": end,
            "bytes": size(&sizes, &topic, partition),
        })
    };
    let mut configs = Vec::new();
    for (_, told) in client.configs(&[ConfigResource::topic(name)]).await? {
        let entries = told.map_err(|refusal| Problem::Failed(format!("the options of {name}: {refusal}")))?;
        let own = entries.into_iter().filter(|entry| entry.source == DYNAMIC_TOPIC);
        configs.extend(own.map(|entry| json!({ "name": entry.name, "value": entry.value })));
    }
    Ok(json!({
        "topic": topic.name,
        "topic_id": (!topic.id.is_nil()).then(|| encode_id(topic.id)),
        "internal": topic.internal,
        "configs": configs,
        "partition_count": topic.partitions.len(),
        "page": page, "page_size": PARTITIONS,
        "partitions": shown.iter().map(row).collect::<Vec<_>>(),
    }))
}
