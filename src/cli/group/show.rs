//! Which groups there are, who is in them, how far they have read; and their end.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};

use super::arguments::{Delete, Describe, List};
use super::lag::item;
use crate::cli::nearest::did_you_mean;
use crate::cli::report::{Report, or_dash, table, with_outcome};
use crate::client::ClusterClient;
use crate::client::cluster_client::{Group, Member, Place, Standing};

/// Kafka's error code for a group that there is not.
const GROUP_ID_NOT_FOUND: i16 = 69;

/// That there is no such group, and which may have been meant.
pub(super) async fn unknown_group(client: &mut ClusterClient, group: &str) -> Result<String, String> {
    let (all, _) = client.groups().await.map_err(|e| e.to_string())?;
    let meant = did_you_mean(group, all.iter().map(|listed| listed.group.as_str()));
    let meant = if meant.is_empty() { "; `corelane group list` shows all".to_owned() } else { meant };
    Ok(format!("there is no group {group}{meant}"))
}

pub(super) async fn list(mut client: ClusterClient, command: List) -> Result<Report, String> {
    let (groups, failed) = client.groups().await.map_err(|e| e.to_string())?;
    let among = |words: &[String], word: &str| words.is_empty() || words.iter().any(|w| w.eq_ignore_ascii_case(word));
    let (mut rows, mut items) = (Vec::new(), Vec::new());
    for listed in groups {
        if !among(&command.state, &listed.state) || !among(&command.kind, &listed.kind) {
            continue;
        }
        items.push(json!({
            "group": listed.group, "type": listed.kind, "state": listed.state,
            "protocol_type": listed.protocol_type, "coordinator": listed.coordinator,
        }));
        let coordinator = listed.coordinator.to_string();
        rows.push(vec![listed.group, listed.kind, listed.state, listed.protocol_type, coordinator]);
    }
    let heads = ["GROUP", "TYPE", "STATE", "PROTOCOL-TYPE", "COORDINATOR"];
    Ok(Report { text: table(&heads, rows), json: Value::Array(items), failed })
}

pub(super) async fn describe(mut client: ClusterClient, command: Describe) -> Result<Report, String> {
    let (mut text, mut items, mut failed) = (String::new(), Vec::new(), Vec::new());
    for name in &command.groups {
        let group = match client.group(name).await {
            Ok(Some(group)) => group,
            Ok(None) => {
                failed.push(unknown_group(&mut client, name).await?);
                continue;
            }
            Err(error) => {
                failed.push(format!("group {name}: {error}"));
                continue;
            }
        };
        let standings = match command.members {
            true => Vec::new(),
            false => client.standings(&group).await.map_err(|e| e.to_string())?,
        };
        let gap = if text.is_empty() { "" } else { "\n" };
        text.push_str(&format!("{gap}{}\n", facts(&group)));
        if !command.offsets {
            text.push_str(&members_table(&group));
        }
        if !command.members {
            if !command.offsets && !group.members.is_empty() && !standings.is_empty() {
                text.push('\n');
            }
            text.push_str(&offsets_table(&standings));
        }
        for standing in standings.iter().filter(|standing| standing.refusal.is_some()) {
            let (topic, index) = &standing.place;
            failed.push(format!("{topic}-{index}: {}", or_dash(standing.refusal.as_ref())));
        }
        items.push(json!({
            "group": group.group,
            "type": group.kind.name(),
            "state": group.state,
            "protocol_type": group.protocol_type,
            "assignor": group.assignor,
            "epoch": group.epoch,
            "coordinator": group.coordinator,
            "members": group.members.iter().map(member_item).collect::<Vec<_>>(),
            "offsets": standings.iter().map(item).collect::<Vec<_>>(),
        }));
    }
    Ok(Report { text, json: Value::Array(items), failed })
}

fn facts(group: &Group) -> String {
    let assignor = if group.assignor.is_empty() { "-" } else { &group.assignor };
    let mut facts = format!(
        "Group: {}  Type: {}  State: {}  Coordinator: {}  Assignor: {assignor}",
        group.group,
        group.kind.name(),
        group.state,
        group.coordinator
    );
    if let Some(epoch) = group.epoch {
        facts.push_str(&format!("  Epoch: {epoch}"));
    }
    facts + &format!("  Members: {}", group.members.len())
}

fn members_table(group: &Group) -> String {
    let row = |member: &Member| {
        vec![
            member.id.clone(),
            or_dash(member.instance.clone()),
            member.host.clone(),
            member.client_id.clone(),
            member.assigned.len().to_string(),
            assigned_text(&member.assigned),
        ]
    };
    let heads = ["CONSUMER-ID", "GROUP-INSTANCE-ID", "HOST", "CLIENT-ID", "#PARTITIONS", "ASSIGNMENT"];
    table(&heads, group.members.iter().map(row).collect())
}

/// `orders:0,1 views:3`.
fn assigned_text(assigned: &BTreeSet<Place>) -> String {
    let mut topics: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (topic, index) in assigned {
        topics.entry(topic).or_default().push(index.to_string());
    }
    let told: Vec<String> = topics.iter().map(|(topic, indexes)| format!("{topic}:{}", indexes.join(","))).collect();
    if told.is_empty() { "-".into() } else { told.join(" ") }
}

fn member_item(member: &Member) -> Value {
    let assigned = |(topic, index): &Place| json!({ "topic": topic, "partition": index });
    json!({
        "consumer_id": member.id,
        "group_instance_id": member.instance,
        "client_id": member.client_id,
        "host": member.host,
        "assignment": member.assigned.iter().map(assigned).collect::<Vec<_>>(),
    })
}

fn offsets_table(standings: &[Standing]) -> String {
    let row = |standing: &Standing| {
        vec![
            standing.place.0.clone(),
            standing.place.1.to_string(),
            or_dash(standing.committed),
            or_dash(standing.end),
            or_dash(standing.lag()),
            or_dash(standing.member.clone()),
        ]
    };
    let heads = ["TOPIC", "PARTITION", "CURRENT-OFFSET", "LOG-END-OFFSET", "LAG", "CONSUMER-ID"];
    table(&heads, standings.iter().map(row).collect())
}

pub(super) async fn delete(mut client: ClusterClient, command: Delete) -> Result<Report, String> {
    let (mut text, mut items, mut failed) = (String::new(), Vec::new(), Vec::new());
    for group in &command.groups {
        let item = json!({ "group": group });
        match client.delete_group(group).await {
            Ok(Ok(())) => {
                text.push_str(&format!("deleted {group}\n"));
                items.push(with_outcome(item, None));
            }
            Ok(Err(refusal)) => {
                let line = match refusal.code {
                    GROUP_ID_NOT_FOUND => unknown_group(&mut client, group).await?,
                    _ => format!("group {group}: {refusal}"),
                };
                failed.push(line);
                items.push(with_outcome(item, Some(&refusal)));
            }
            Err(error) => {
                failed.push(format!("group {group}: {error}"));
                items.push(json!({ "group": group, "error": "NOT_ANSWERED", "message": error.to_string() }));
            }
        }
    }
    Ok(Report { text, json: Value::Array(items), failed })
}
