//! `corelane broker`.

mod move_replicas;

use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use self::move_replicas::{MoveReplicas, move_replicas};
use super::connect::Connect;
use super::report::{Report, or_dash, table, with_outcome};
use crate::client::ClusterClient;
use crate::client::cluster_client::{ConfigResource, LogDir, ResourceKind, To, Topic};

/// Kafka's number for a value that is the default.
const DEFAULT: i8 = 5;

#[derive(Args)]
pub(super) struct BrokerArguments {
    #[command(flatten)]
    connect: Connect,
    #[command(subcommand)]
    command: BrokerCommand,
}

#[derive(Subcommand, Clone)]
enum BrokerCommand {
    /// Show which brokers there are and what they lead
    #[command(after_help = "Example:
  corelane broker list --bootstrap-server a:9092,b:9092")]
    List,
    /// Show brokers with the options that they do not have from the defaults
    #[command(after_help = "Example:
  corelane broker describe 1")]
    Describe(Which),
    /// Show the data directories of brokers, and how large the partitions in them are
    #[command(after_help = "Examples:
  corelane broker log-dirs
  corelane broker log-dirs 1 --partitions --topic orders")]
    LogDirs(LogDirs),
    /// Move replicas from one data directory of a broker to another while they are served
    #[command(after_help = "Examples:
  corelane broker move-replicas 1 --from /data/old --to /data/new
  corelane broker move-replicas 1 --from /data/old --to /data/new --topic orders --execute")]
    MoveReplicas(MoveReplicas),
}

#[derive(Args, Clone)]
struct Which {
    /// All if none is given
    #[arg(value_name = "BROKER")]
    brokers: Vec<i32>,
}

#[derive(Args, Clone)]
struct LogDirs {
    #[command(flatten)]
    which: Which,
    /// With each partition
    #[arg(long)]
    partitions: bool,
    /// Only the partitions of these topics
    #[arg(long = "topic", value_name = "TOPIC", value_delimiter = ',')]
    topics: Vec<String>,
}

pub(super) fn main(arguments: BrokerArguments) -> ExitCode {
    let BrokerArguments { connect, command } = arguments;
    match command {
        BrokerCommand::List => connect.run((), list),
        BrokerCommand::Describe(command) => connect.run(command, describe),
        BrokerCommand::LogDirs(command) => connect.run(command, log_dirs),
        BrokerCommand::MoveReplicas(command) => connect.run(command, move_replicas),
    }
}

/// A broker as the cluster's metadata show it.
struct Seen {
    id: i32,
    address: String,
    rack: Option<String>,
    controller: bool,
    leads: usize,
    replicas: usize,
    /// Its replicas that are not in sync.
    behind: usize,
}

async fn seen(client: &mut ClusterClient) -> Result<Vec<Seen>, String> {
    client.learn().await.map_err(|e| e.to_string())?;
    let topics = client.topics(None).await.map_err(|e| e.to_string())?;
    let partitions = || topics.iter().flat_map(|topic: &Topic| &topic.partitions);
    let one = |node: &crate::client::admin::Node| {
        let own = || partitions().filter(|partition| partition.replicas.contains(&node.id));
        Seen {
            id: node.id,
            address: format!("{}:{}", node.host, node.port),
            rack: client.rack(node.id).map(str::to_owned),
            controller: client.controller() == Some(node.id),
            leads: partitions().filter(|partition| partition.leader == node.id).count(),
            replicas: own().count(),
            behind: own().filter(|partition| !partition.isr.contains(&node.id)).count(),
        }
    };
    Ok(client.nodes().map(one).collect())
}

impl Seen {
    fn item(&self) -> Value {
        json!({
            "broker": self.id, "address": self.address, "rack": self.rack, "controller": self.controller,
            "leader_partitions": self.leads, "replica_partitions": self.replicas,
            "out_of_sync_partitions": self.behind,
        })
    }

    fn row(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.address.clone(),
            or_dash(self.rack.clone()),
            self.leads.to_string(),
            self.replicas.to_string(),
            self.behind.to_string(),
            if self.controller { "controller" } else { "" }.to_owned(),
        ]
    }
}

const HEADS: [&str; 7] = ["BROKER", "ADDRESS", "RACK", "LEADS", "REPLICAS", "OUT-OF-SYNC", ""];

async fn list(mut client: ClusterClient, (): ()) -> Result<Report, String> {
    let seen = seen(&mut client).await?;
    let text = table(&HEADS, seen.iter().map(Seen::row).collect());
    Ok(Report { text, json: Value::Array(seen.iter().map(Seen::item).collect()), failed: Vec::new() })
}

/// The brokers that are meant, each of which there must be.
fn chosen(all: &[i32], which: &Which) -> Result<Vec<i32>, String> {
    if which.brokers.is_empty() {
        return Ok(all.to_vec());
    }
    if let Some(id) = which.brokers.iter().find(|id| !all.contains(id)) {
        let known: Vec<String> = all.iter().map(i32::to_string).collect();
        return Err(format!("there is no broker {id}; there are {}", known.join(", ")));
    }
    Ok(which.brokers.clone())
}

async fn describe(mut client: ClusterClient, command: Which) -> Result<Report, String> {
    let seen = seen(&mut client).await?;
    let all: Vec<i32> = seen.iter().map(|broker| broker.id).collect();
    let chosen = chosen(&all, &command)?;
    let cluster = client.cluster_id().map(str::to_owned);
    let (mut text, mut items, mut failed) = (String::new(), Vec::new(), Vec::new());
    for broker in seen.iter().filter(|broker| chosen.contains(&broker.id)) {
        let gap = if text.is_empty() { "" } else { "\n" };
        text.push_str(&format!("{gap}Broker: {}  Cluster: {}\n", broker.id, or_dash(cluster.clone())));
        text.push_str(&table(&HEADS, vec![broker.row()]));
        let mut item = broker.item();
        item["cluster_id"] = json!(cluster);
        match details(&mut client, broker.id).await {
            Ok((apis, options)) => {
                item["apis"] = json!(apis);
                item["configs"] = Value::Object(options.iter().map(|(n, v)| (n.clone(), json!(v))).collect());
                let rows = options.into_iter().map(|(name, value)| vec![name, value.unwrap_or_default()]).collect();
                text.push('\n');
                text.push_str(&table(&["OPTION", "VALUE"], rows));
            }
            Err(error) => failed.push(format!("broker {}: {error}", broker.id)),
        }
        items.push(item);
    }
    Ok(Report { text, json: Value::Array(items), failed })
}

/// How many APIs it serves, and its options that are not the defaults.
async fn details(client: &mut ClusterClient, id: i32) -> Result<(usize, Vec<(String, Option<String>)>), String> {
    let apis = client.api_count(To::Broker(id)).await.map_err(|e| e.to_string())?;
    let resource = ConfigResource { kind: ResourceKind::Broker, name: id.to_string() };
    let mut options = Vec::new();
    for (_, outcome) in client.configs(&[resource]).await.map_err(|e| e.to_string())? {
        let entries = outcome.map_err(|refusal| refusal.to_string())?;
        let own = entries.into_iter().filter(|entry| entry.source != DEFAULT);
        options.extend(own.map(|entry| (entry.name, entry.value)));
    }
    Ok((apis, options))
}

async fn log_dirs(mut client: ClusterClient, command: LogDirs) -> Result<Report, String> {
    client.learn().await.map_err(|e| e.to_string())?;
    let all: Vec<i32> = client.nodes().map(|node| node.id).collect();
    let (mut rows, mut places, mut items, mut failed) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for broker in chosen(&all, &command.which)? {
        let dirs = match client.log_dirs(broker).await {
            Ok(dirs) => dirs,
            Err(error) => {
                failed.push(error.to_string());
                continue;
            }
        };
        for mut dir in dirs {
            dir.partitions.retain(|place| command.topics.is_empty() || command.topics.contains(&place.topic));
            if let Some(refusal) = &dir.refusal {
                failed.push(format!("broker {broker}, {}: {refusal}", dir.path));
            }
            rows.push(dir_row(broker, &dir));
            for place in &dir.partitions {
                let state = if place.future { "future" } else { "" };
                places.push(vec![
                    broker.to_string(),
                    dir.path.clone(),
                    place.topic.clone(),
                    place.partition.to_string(),
                    place.bytes.to_string(),
                    place.offset_lag.to_string(),
                    state.to_owned(),
                ]);
            }
            items.push(dir_item(broker, &dir));
        }
    }
    let text = match command.partitions || !command.topics.is_empty() {
        false => table(&["BROKER", "LOG-DIR", "PARTITIONS", "BYTES", "USABLE-BYTES", "TOTAL-BYTES", "STATE"], rows),
        true => table(&["BROKER", "LOG-DIR", "TOPIC", "PARTITION", "BYTES", "OFFSET-LAG", ""], places),
    };
    Ok(Report { text, json: Value::Array(items), failed })
}

fn bytes_of(dir: &LogDir) -> i64 {
    dir.partitions.iter().fold(0, |sum, place| place.bytes.saturating_add(sum))
}

fn state(dir: &LogDir) -> &'static str {
    match dir {
        LogDir { refusal: Some(_), .. } => "failed",
        LogDir { cordoned: true, .. } => "cordoned",
        _ => "online",
    }
}

fn told(bytes: i64) -> Option<i64> {
    (bytes >= 0).then_some(bytes)
}

fn dir_row(broker: i32, dir: &LogDir) -> Vec<String> {
    vec![
        broker.to_string(),
        dir.path.clone(),
        dir.partitions.len().to_string(),
        bytes_of(dir).to_string(),
        or_dash(told(dir.usable_bytes)),
        or_dash(told(dir.total_bytes)),
        state(dir).to_owned(),
    ]
}

fn dir_item(broker: i32, dir: &LogDir) -> Value {
    let partitions: Vec<Value> = dir
        .partitions
        .iter()
        .map(|place| {
            json!({
                "topic": place.topic, "partition": place.partition, "bytes": place.bytes,
                "offset_lag": place.offset_lag, "future": place.future,
            })
        })
        .collect();
    let item = json!({
        "broker": broker, "log_dir": dir.path, "bytes": bytes_of(dir), "usable_bytes": told(dir.usable_bytes),
        "total_bytes": told(dir.total_bytes), "cordoned": dir.cordoned, "partitions": partitions,
    });
    with_outcome(item, dir.refusal.as_ref())
}
