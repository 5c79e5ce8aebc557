//! The cluster's brokers, and their data directories.

use serde_json::{Value, json};

use super::cache::Cache;
use super::question::Problem;
use crate::client::ClusterClient;
use crate::client::cluster_client::LogDir;

/// Brokers, and sums over all topics.
pub(super) async fn cluster(client: &mut ClusterClient, cache: &Cache) -> Result<Value, Problem> {
    client.learn().await?;
    let topics = cache.topics(client).await?;
    let partitions = || topics.iter().flat_map(|topic| &topic.partitions);
    let brokers: Vec<Value> = client
        .nodes()
        .map(|node| json!({ "id": node.id, "host": node.host, "port": node.port, "rack": client.rack(node.id) }))
        .collect();
    Ok(json!({
        "cluster_id": client.cluster_id(),
        "controller": client.controller(),
        "brokers": brokers,
        "topics": topics.len(),
        "partitions": partitions().count(),
        "under_replicated_partitions": partitions().filter(|p| p.isr.len() < p.replicas.len()).count(),
        "offline_partitions": partitions().filter(|p| p.leader < 0).count(),
    }))
}

/// The data directories of all brokers; a broker that does not answer is shown with its error.
pub(super) async fn log_dirs(client: &mut ClusterClient) -> Result<Value, Problem> {
    client.learn().await?;
    let ids: Vec<i32> = client.nodes().map(|node| node.id).collect();
    let mut brokers = Vec::new();
    for id in ids {
        let (dirs, error) = match client.log_dirs(id).await {
            Ok(dirs) => (dirs.iter().map(shown).collect(), None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        brokers.push(json!({ "broker": id, "error": error, "log_dirs": dirs }));
    }
    Ok(json!({ "brokers": brokers }))
}

fn shown(dir: &LogDir) -> Value {
    let told = |bytes: i64| (bytes >= 0).then_some(bytes);
    json!({
        "path": dir.path,
        "error": dir.refusal.as_ref().map(ToString::to_string),
        "total_bytes": told(dir.total_bytes),
        "usable_bytes": told(dir.usable_bytes),
        "cordoned": dir.cordoned,
        "partitions": dir.partitions.len(),
        "log_bytes": dir.partitions.iter().map(|log| log.bytes).sum::<i64>(),
    })
}
