//! `corelane quota`: what clients may use.

use std::process::ExitCode;

use clap::{ArgGroup, Args, Subcommand};
use serde_json::{Map, Value, json};

use super::connect::Connect;
use super::nearest::did_you_mean;
use super::report::{Report, table, with_outcome};
use crate::client::ClusterClient;
use crate::client::cluster_client::QuotaEntity;

/// Entity types in the order of columns.
const TYPES: [&str; 3] = ["user", "client-id", "ip"];
const KEYS: [&str; 5] = [
    "producer_byte_rate",
    "consumer_byte_rate",
    "request_percentage",
    "controller_mutation_rate",
    "connection_creation_rate",
];
const DEFAULT: &str = "<default>";

#[derive(Args)]
pub(super) struct QuotaArguments {
    #[command(flatten)]
    connect: Connect,
    #[command(subcommand)]
    command: QuotaCommand,
}

#[derive(Subcommand, Clone)]
enum QuotaCommand {
    /// Show the quotas that are set, of all or of some
    #[command(after_help = "Examples:
  corelane quota list
  corelane quota list --user alice       (with those of her client ids)
  corelane quota list --client-id-default --format json")]
    List(List),
    /// Set quotas of a user, a client id, a user's client id, or an address: all of them, or none
    #[command(after_help = "Quotas of users and client ids, of each broker:
  producer_byte_rate        bytes a second of Produce requests
  consumer_byte_rate        bytes a second of answers to Fetch requests
  request_percentage        time for requests, in percent of one thread (Corelane: one shard)
  controller_mutation_rate  partitions created and deleted a second
Of addresses:
  connection_creation_rate  connections a second

The most specific holds: user and client id, then user, then client id; one by name before the default.

Examples:
  corelane quota set --user alice producer_byte_rate=10485760 consumer_byte_rate=20971520
  corelane quota set --user-default --client-id batch request_percentage=50
  corelane quota set --ip 10.0.0.7 connection_creation_rate=20")]
    Set(Set),
    /// Remove quotas: the next less specific ones hold then
    #[command(after_help = "Example:
  corelane quota unset --user alice producer_byte_rate")]
    Unset(Unset),
}

#[derive(Args, Clone)]
#[command(group = ArgGroup::new("a-user").args(["user", "user_default"]))]
#[command(group = ArgGroup::new("a-client").args(["client_id", "client_id_default"]))]
#[command(group = ArgGroup::new("an-ip").args(["ip", "ip_default"]).conflicts_with_all(["a-user", "a-client"]))]
struct Of {
    /// A user; without authentication every client is ANONYMOUS
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Users that have no quota by name
    #[arg(long)]
    user_default: bool,
    /// A client id; with a user: of that user
    #[arg(long, value_name = "NAME")]
    client_id: Option<String>,
    /// Client ids that have no quota by name
    #[arg(long)]
    client_id_default: bool,
    /// An address
    #[arg(long, value_name = "ADDRESS")]
    ip: Option<String>,
    /// Addresses that have no quota of their own
    #[arg(long)]
    ip_default: bool,
}

impl Of {
    fn entity(&self) -> QuotaEntity {
        let named = [
            ("user", &self.user, self.user_default),
            ("client-id", &self.client_id, self.client_id_default),
            ("ip", &self.ip, self.ip_default),
        ];
        let given = named.into_iter().filter(|(_, name, default)| name.is_some() || *default);
        given.map(|(kind, name, _)| (kind.to_owned(), name.clone())).collect()
    }
}

#[derive(Args, Clone)]
struct List {
    #[command(flatten)]
    of: Of,
}

#[derive(Args, Clone)]
struct Set {
    #[command(flatten)]
    of: Of,
    #[arg(value_name = "QUOTA=VALUE", required = true, value_parser = quota)]
    quotas: Vec<(String, f64)>,
    /// Only ask the broker whether it would
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args, Clone)]
struct Unset {
    #[command(flatten)]
    of: Of,
    #[arg(value_name = "QUOTA", required = true)]
    quotas: Vec<String>,
    /// Only ask the broker whether it would
    #[arg(long)]
    dry_run: bool,
}

fn quota(text: &str) -> Result<(String, f64), String> {
    let (key, value) = super::parse::option(text)?;
    match value.parse() {
        Ok(number) => Ok((key, number)),
        Err(_) => Err(format!("'{value}' is no number")),
    }
}

/// Changes of an entity's quotas; `None` removes one.
type Changes = Vec<(String, Option<f64>)>;

pub(super) fn main(arguments: QuotaArguments) -> ExitCode {
    let QuotaArguments { connect, command } = arguments;
    match command {
        QuotaCommand::List(command) => connect.run(command, list),
        QuotaCommand::Set(Set { of, quotas, dry_run }) => {
            let changes: Changes = quotas.into_iter().map(|(key, value)| (key, Some(value))).collect();
            connect.run((of, changes, dry_run), alter)
        }
        QuotaCommand::Unset(Unset { of, quotas, dry_run }) => {
            let changes: Changes = quotas.into_iter().map(|key| (key, None)).collect();
            connect.run((of, changes, dry_run), alter)
        }
    }
}

async fn list(mut client: ClusterClient, command: List) -> Result<Report, String> {
    let told = client.quotas(&command.of.entity()).await.map_err(|e| e.to_string())?;
    let found = told.map_err(|refusal| refusal.to_string())?;
    let (mut rows, mut items) = (Vec::new(), Vec::new());
    for quotas in found {
        let name = |kind: &str| match quotas.entity.get(kind) {
            Some(name) => name.clone().unwrap_or_else(|| DEFAULT.to_owned()),
            None => "-".to_owned(),
        };
        for (key, value) in &quotas.values {
            let mut row: Vec<String> = TYPES.map(name).into();
            row.extend([key.clone(), value.to_string()]);
            rows.push(row);
        }
        items.push(json!({ "entity": quotas.entity, "quotas": quotas.values }));
    }
    let text = table(&["USER", "CLIENT-ID", "IP", "QUOTA", "VALUE"], rows);
    Ok(Report { text, json: Value::Array(items), failed: Vec::new() })
}

async fn alter(mut client: ClusterClient, (of, changes, dry_run): (Of, Changes, bool)) -> Result<Report, String> {
    let entity = of.entity();
    if entity.is_empty() {
        return Err(
            "say whose quotas: --user, --client-id (or both), or --ip; each also as --user-default and so on".into()
        );
    }
    let outcome = client.alter_quotas(&entity, &changes, dry_run).await.map_err(|e| e.to_string())?;
    let whose: Vec<String> =
        entity.iter().map(|(kind, name)| format!("{kind} {}", name.as_deref().unwrap_or(DEFAULT))).collect();
    let whose = whose.join(", ");
    let mut quotas = Map::new();
    let mut report = Report::default();
    for (key, value) in &changes {
        quotas.insert(key.clone(), json!(value));
        let told = value.map_or_else(|| format!("{key} unset"), |value| format!("{key}={value}"));
        match &outcome {
            Ok(()) => report.text.push_str(&format!("{whose}: {}{told}\n", if dry_run { "would be " } else { "" })),
            Err(_) if !KEYS.contains(&key.as_str()) => {
                report.failed.push(format!("there is no quota {key}{}", did_you_mean(key, KEYS)));
            }
            Err(_) => {}
        }
    }
    if let Err(refusal) = &outcome {
        report.failed.insert(0, format!("{whose}: {refusal}"));
    }
    let item = json!({ "entity": entity, "quotas": quotas, "dry_run": dry_run });
    report.json = with_outcome(item, outcome.as_ref().err());
    Ok(report)
}
