//! `corelane config`: options of topics, brokers and groups.

use std::collections::BTreeSet;
use std::process::ExitCode;

use clap::{ArgGroup, Args, Subcommand};
use serde_json::{Map, Value, json};

use super::connect::Connect;
use super::nearest::did_you_mean;
use super::parse::option;
use super::report::{self, Report, or_dash, table, with_outcome};
use super::topic::known;
use crate::client::cluster_client::{Change, ConfigEntry, ConfigResource, ResourceKind};
use crate::client::{ClusterClient, Refusal};
use crate::config::{Explanation, explain, option_names};
use crate::model::ErrorCode;

#[derive(Args)]
pub(super) struct ConfigArguments {
    #[command(flatten)]
    connect: Connect,
    #[command(subcommand)]
    command: ConfigCommand,
}

#[derive(Subcommand, Clone)]
enum ConfigCommand {
    /// Show options and where their values come from
    #[command(after_help = "Examples:
  corelane config get --topic orders                           (what is set for this topic)
  corelane config get --topic orders retention.ms segment.bytes
  corelane config get --broker 1 --all --format json
  corelane config get --group billing --all")]
    Get(Get),
    /// Set options while the brokers run: all of them, or none
    #[command(after_help = "Examples:
  corelane config set --topic orders retention.ms=86400000 cleanup.policy=compact,delete
  corelane config set --group billing consumer.session.timeout.ms=60000")]
    Set(Set),
    /// Have options go back to the broker's value, or to the default
    #[command(after_help = "Example:
  corelane config unset --topic orders retention.ms")]
    Unset(Unset),
    /// Say what an option does; needs no broker, unless a topic, broker or group is named
    /// whose value is wanted too
    #[command(after_help = "Examples:
  corelane config explain retention.ms
  corelane config explain retention.ms --topic orders")]
    Explain(Explain),
}

#[derive(Args, Clone)]
#[command(group = ArgGroup::new("of").required(true).args(["topic", "broker", "broker_defaults", "group"]))]
struct Of {
    /// Options of this topic
    #[arg(long, value_name = "TOPIC")]
    topic: Option<String>,
    /// Options of this broker
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i32).range(0..))]
    broker: Option<i32>,
    /// What is set for all brokers of the cluster together
    #[arg(long)]
    broker_defaults: bool,
    /// Options of this group, whether it has members yet or not
    #[arg(long, value_name = "GROUP", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    group: Option<String>,
}

impl Of {
    /// Resource that the options belong to; a topic there must be.
    async fn resource(&self, client: &mut ClusterClient) -> Result<ConfigResource, String> {
        let (kind, name) = match (&self.topic, self.broker, &self.group) {
            (Some(topic), ..) => {
                known(client, std::slice::from_ref(topic)).await?;
                (ResourceKind::Topic, topic.clone())
            }
            (None, Some(id), _) => (ResourceKind::Broker, id.to_string()),
            (None, None, Some(group)) => (ResourceKind::Group, group.clone()),
            (None, None, None) => (ResourceKind::Broker, String::new()),
        };
        Ok(ConfigResource { kind, name })
    }
}

#[derive(Args, Clone)]
struct Get {
    #[command(flatten)]
    of: Of,
    /// Only these
    #[arg(value_name = "OPTION")]
    options: Vec<String>,
    /// Also those that are nowhere set
    #[arg(long)]
    all: bool,
}

#[derive(Args, Clone)]
struct Set {
    #[command(flatten)]
    of: Of,
    #[arg(value_name = "OPTION=VALUE", required = true, value_parser = option)]
    options: Vec<(String, String)>,
    /// Only ask the broker whether it would
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args, Clone)]
struct Unset {
    #[command(flatten)]
    of: Of,
    #[arg(value_name = "OPTION", required = true)]
    options: Vec<String>,
    /// Only ask the broker whether it would
    #[arg(long)]
    dry_run: bool,
}

#[derive(Args, Clone)]
struct Explain {
    #[arg(value_name = "OPTION", required = true)]
    options: Vec<String>,
    /// With the value for this topic
    #[arg(long, value_name = "TOPIC", conflicts_with_all = ["broker", "group"])]
    topic: Option<String>,
    /// With the value at this broker
    #[arg(long, value_name = "ID", value_parser = clap::value_parser!(i32).range(0..), conflicts_with = "group")]
    broker: Option<i32>,
    /// With the value for this group
    #[arg(long, value_name = "GROUP", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    group: Option<String>,
}

pub(super) fn main(arguments: ConfigArguments) -> ExitCode {
    let ConfigArguments { connect, command } = arguments;
    match command {
        ConfigCommand::Get(command) => connect.run(command, get),
        ConfigCommand::Set(Set { of, options, dry_run }) => {
            let changes = options.into_iter().map(|(name, value)| Change::Set(name, value)).collect();
            connect.run((of, changes, dry_run), alter)
        }
        ConfigCommand::Unset(Unset { of, options, dry_run }) => {
            connect.run((of, options.into_iter().map(Change::Unset).collect(), dry_run), alter)
        }
        ConfigCommand::Explain(command)
            if command.topic.is_none() && command.broker.is_none() && command.group.is_none() =>
        {
            let explained = explanations(&command.options, &[]);
            report::finish(explained, connect.format)
        }
        ConfigCommand::Explain(command) => connect.run(command, explain_with_values),
    }
}

/// Kafka's name of a source by its number.
fn source_name(source: i8) -> &'static str {
    match source {
        1 => "DYNAMIC_TOPIC_CONFIG",
        2 => "DYNAMIC_BROKER_CONFIG",
        3 => "DYNAMIC_DEFAULT_BROKER_CONFIG",
        4 => "STATIC_BROKER_CONFIG",
        5 => "DEFAULT_CONFIG",
        6 => "DYNAMIC_BROKER_LOGGER_CONFIG",
        7 => "DYNAMIC_CLIENT_METRICS_CONFIG",
        8 => "DYNAMIC_GROUP_CONFIG",
        _ => "UNKNOWN",
    }
}

/// Set for this topic, broker or group, not by a file or a default.
fn is_dynamic(entry: &ConfigEntry) -> bool {
    !matches!(entry.source, 4 | 5)
}

async fn entries(client: &mut ClusterClient, resource: &ConfigResource) -> Result<Vec<ConfigEntry>, String> {
    let told = client.configs(std::slice::from_ref(resource)).await.map_err(|e| e.to_string())?;
    let (_, outcome) = told.into_iter().next().ok_or("the broker says nothing of the options")?;
    outcome.map_err(|refusal| refusal.to_string())
}

async fn get(mut client: ClusterClient, command: Get) -> Result<Report, String> {
    let resource = command.of.resource(&mut client).await?;
    let entries = entries(&mut client, &resource).await?;
    let failed = command.options.iter().filter(|name| entries.iter().all(|entry| entry.name != **name)).map(|name| {
        let meant = did_you_mean(name, entries.iter().map(|entry| entry.name.as_str()));
        format!("there is no option {name} here{meant}")
    });
    let failed: Vec<String> = failed.collect();
    let wanted: BTreeSet<&str> = command.options.iter().map(String::as_str).collect();
    // A broker's file says what the broker is; a topic's values from there are the broker's.
    let shown = |entry: &&ConfigEntry| match wanted.is_empty() {
        false => wanted.contains(entry.name.as_str()),
        true => command.all || is_dynamic(entry) || (command.of.broker.is_some() && entry.source != 5),
    };
    let (mut rows, mut items) = (Vec::new(), Vec::new());
    for entry in entries.iter().filter(shown) {
        let value = if entry.sensitive { Some("(hidden)".to_owned()) } else { entry.value.clone() };
        rows.push(vec![entry.name.clone(), or_dash(value), source_name(entry.source).to_owned()]);
        items.push(entry_item(entry));
    }
    Ok(Report { text: table(&["OPTION", "VALUE", "SOURCE"], rows), json: Value::Array(items), failed })
}

fn entry_item(entry: &ConfigEntry) -> Value {
    let synonyms: Vec<Value> = entry
        .synonyms
        .iter()
        .map(|synonym| json!({ "name": synonym.name, "value": synonym.value, "source": source_name(synonym.source) }))
        .collect();
    json!({
        "name": entry.name, "value": entry.value, "source": source_name(entry.source),
        "read_only": entry.read_only, "sensitive": entry.sensitive, "synonyms": synonyms,
    })
}

async fn alter(mut client: ClusterClient, (of, changes, dry_run): (Of, Vec<Change>, bool)) -> Result<Report, String> {
    let resource = of.resource(&mut client).await?;
    let outcome = match unknown(&mut client, &resource, &changes).await? {
        Some(unknown) => Err(unknown),
        None => client.alter_configs(&resource, &changes, dry_run).await.map_err(|e| e.to_string())?,
    };
    let whose = match (resource.kind, resource.name.as_str()) {
        (ResourceKind::Topic, name) => format!("topic {name}"),
        (ResourceKind::Group, name) => format!("group {name}"),
        (ResourceKind::Broker, "") => "all brokers".to_owned(),
        (ResourceKind::Broker, id) => format!("broker {id}"),
    };
    // The broker says what it does not know; what was meant is for us to say.
    let known = match (&outcome, resource.kind) {
        (Err(_), ResourceKind::Group) => {
            entries(&mut client, &resource).await?.into_iter().map(|entry| entry.name).collect()
        }
        (Err(_), _) => option_names().map(str::to_owned).collect(),
        (Ok(()), _) => BTreeSet::new(),
    };
    let mut options = Map::new();
    let mut report = Report::default();
    for change in &changes {
        let (name, told) = match change {
            Change::Set(name, value) => {
                options.insert(name.clone(), json!(value));
                (name, format!("{name}={value}"))
            }
            Change::Unset(name) => {
                options.insert(name.clone(), Value::Null);
                (name, format!("{name} unset"))
            }
        };
        match &outcome {
            Ok(()) => report.text.push_str(&format!("{whose}: {}{told}\n", if dry_run { "would be " } else { "" })),
            Err(_) if !known.contains(name) && matches!(change, Change::Set(..)) => {
                let meant = did_you_mean(name, known.iter().map(String::as_str));
                if !meant.is_empty() {
                    report.failed.push(format!("there is no option {name}{meant}"));
                }
            }
            Err(_) => {}
        }
    }
    if let Err(refusal) = &outcome {
        report.failed.insert(0, format!("{whose}: {refusal}"));
    }
    let item = json!({
        "topic": of.topic, "broker": of.broker, "group": of.group, "options": options, "dry_run": dry_run,
    });
    report.json = with_outcome(item, outcome.as_ref().err());
    Ok(report)
}

/// Complaint about options to be unset that nobody knows: brokers, Kafka's too,
/// unset them without a word.
async fn unknown(
    client: &mut ClusterClient,
    resource: &ConfigResource,
    changes: &[Change],
) -> Result<Option<Refusal>, String> {
    let unset = changes.iter().filter_map(|change| match change {
        Change::Unset(name) => Some(name.as_str()),
        Change::Set(..) => None,
    });
    let unset: Vec<&str> = unset.collect();
    if unset.is_empty() {
        return Ok(None);
    }
    let entries = entries(client, resource).await?;
    let is_told = |name: &str| entries.iter().any(|entry| entry.name == name);
    // Of all brokers together only what is set is told.
    let is_known = |name: &str| is_told(name) || (resource.name.is_empty() && explain(name).is_some());
    let mut names: Vec<&str> = entries.iter().map(|entry| entry.name.as_str()).collect();
    if resource.kind != ResourceKind::Group {
        option_names().for_each(|name| names.push(name));
    }
    let unknown = unset.into_iter().filter(|name| !is_known(name)).map(|name| {
        let meant = did_you_mean(name, names.iter().copied());
        format!("there is no option {name} here{meant}")
    });
    let unknown: Vec<String> = unknown.collect();
    let message = format!("{}; nothing was unset", unknown.join(", "));
    Ok((!unknown.is_empty()).then_some(Refusal { code: ErrorCode::InvalidConfig.code(), message: Some(message) }))
}

async fn explain_with_values(mut client: ClusterClient, command: Explain) -> Result<Report, String> {
    let of = Of { topic: command.topic, broker: command.broker, broker_defaults: false, group: command.group };
    let resource = of.resource(&mut client).await?;
    let entries = entries(&mut client, &resource).await?;
    Ok(explanations(&command.options, &entries))
}

/// Explanation of each option. `entries`: values that are in force.
fn explanations(options: &[String], entries: &[ConfigEntry]) -> Report {
    let mut report = Report::default();
    let mut items = Vec::new();
    for name in options {
        let Some(explanation) = explain(name) else {
            let meant = did_you_mean(name, option_names());
            report.failed.push(format!("there is no option {name}{meant}"));
            continue;
        };
        let entry = entries.iter().find(|entry| entry.name == *name);
        let gap = if report.text.is_empty() { "" } else { "\n" };
        report.text.push_str(&format!("{gap}{}", explained(&explanation, entry)));
        items.push(json!({
            "name": explanation.name,
            "broker_option": explanation.broker,
            "topic_option": explanation.topic,
            "group_option": explanation.group,
            "aliases": explanation.aliases,
            "type": explanation.kind,
            "unit": explanation.unit,
            "default": explanation.default,
            "accepted": explanation.accepted,
            "honoured": explanation.honoured,
            "documentation": explanation.doc,
            "value": entry.and_then(|entry| entry.value.clone()),
            "source": entry.map(|entry| source_name(entry.source)),
        }));
    }
    report.json = Value::Array(items);
    report
}

fn explained(option: &Explanation, entry: Option<&ConfigEntry>) -> String {
    let mut text = format!("{}\n    {}\n", option.name, option.doc);
    let mut fact = |name: &str, value: String| {
        if !value.is_empty() {
            text.push_str(&format!("    {name:<10} {value}\n"));
        }
    };
    let unit = option.unit.map_or(String::new(), |unit| format!(", in {unit}"));
    fact("type", if option.kind.is_empty() { String::new() } else { format!("{}{unit}", option.kind) });
    fact("default", option.default.unwrap_or_default().to_owned());
    fact("accepted", option.accepted.clone());
    fact("broker", option.broker.unwrap_or_default().to_owned());
    fact("topic", option.topic.unwrap_or_default().to_owned());
    fact("group", option.group.unwrap_or_default().to_owned());
    fact("aliases", option.aliases.join(", "));
    fact("honoured", if option.honoured { String::new() } else { "no, for the reason above".to_owned() });
    if let Some(entry) = entry {
        fact("value", format!("{} ({})", or_dash(entry.value.clone()), source_name(entry.source)));
    }
    text
}
