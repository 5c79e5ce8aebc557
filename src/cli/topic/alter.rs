//! Options of a topic, and the brokers that have its replicas.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::arguments::Alter;
use super::plan::{Place, plan};
use super::show::known;
use crate::cli::parse::Assignment;
use crate::cli::progress::Progress;
use crate::cli::report::{self, Report, are, counted, table, with_outcome};
use crate::client::cluster_client::{Change, ConfigResource, Reassigned, Topic};
use crate::client::{ClusterClient, Refusal};
use crate::runtime::clock;

/// Time between two looks at replicas that move.
const LOOK: Duration = Duration::from_secs(1);
/// A partition gets its next leader within this time.
const ELECTION: Duration = Duration::from_secs(10);

pub(super) async fn alter(mut client: ClusterClient, command: Alter) -> Result<Report, String> {
    let topics = known(&mut client, std::slice::from_ref(&command.topic)).await?;
    let topic = topics.into_iter().next().ok_or_else(|| format!("the cluster says nothing of {}", command.topic))?;
    // Before anything is changed.
    let moves = moves(&mut client, &command, &topic).await?;
    let mut report = Report::default();
    let mut changed = Value::Null;
    let changes: Vec<Change> = command
        .configs
        .iter()
        .map(|(name, value)| Change::Set(name.clone(), value.clone()))
        .chain(command.delete_configs.iter().cloned().map(Change::Unset))
        .collect();
    if !changes.is_empty() {
        let resource = ConfigResource::topic(&topic.name);
        let outcome = client.alter_configs(&resource, &changes, command.dry_run).await.map_err(|e| e.to_string())?;
        for change in &changes {
            let (key, told) = match change {
                Change::Set(name, value) => (name, format!("{name}={value}")),
                Change::Unset(name) => (name, format!("{name} unset")),
            };
            match &outcome {
                Ok(()) if command.dry_run => report.text.push_str(&format!("would alter {}: {told}\n", topic.name)),
                Ok(()) => report.text.push_str(&format!("altered {}: {told}\n", topic.name)),
                Err(_) => report.text.push_str(&format!("not altered {}: {key}\n", topic.name)),
            }
        }
        if let Err(refusal) = &outcome {
            report.failed.push(format!("the options of topic {}: {refusal}", topic.name));
        }
        changed = with_outcome(json!({ "configs": told(&changes) }), outcome.as_ref().err());
    }
    let mut moved = Vec::new();
    if !moves.is_empty() && report.failed.is_empty() {
        moved = reassign(&mut client, &command, &topic, &moves, &mut report).await?;
    } else if moves.is_empty() && (command.replication_factor.is_some() || command.replica_assignment.is_some()) {
        report.text.push_str(&format!("the replicas of {} are so already\n", topic.name));
    }
    report.json = json!({
        "topic": topic.name,
        "dry_run": command.dry_run,
        "options": changed,
        "reassignments": moved,
    });
    Ok(report)
}

/// Options by name, null for one that is unset.
fn told(changes: &[Change]) -> Value {
    let pair = |change: &Change| match change {
        Change::Set(name, value) => (name.clone(), json!(value)),
        Change::Unset(name) => (name.clone(), Value::Null),
    };
    Value::Object(changes.iter().map(pair).collect())
}

/// The partitions whose replicas shall be others.
async fn moves(client: &mut ClusterClient, command: &Alter, topic: &Topic) -> Result<BTreeMap<i32, Vec<i32>>, String> {
    if let Some(factor) = command.replication_factor {
        client.learn().await.map_err(|e| e.to_string())?;
        let brokers: Vec<Place> = client
            .nodes()
            .map(|node| Place { broker: node.id, rack: client.rack(node.id).map(str::to_owned) })
            .collect();
        return plan(&topic.partitions, usize::from(factor), &brokers);
    }
    let Some(Assignment(assignment)) = &command.replica_assignment else { return Ok(BTreeMap::new()) };
    let (given, has) = (assignment.len(), topic.partitions.len());
    if given != has {
        let given = counted(given, "partition");
        return Err(format!("--replica-assignment names {given}, topic {} has {has}", topic.name));
    }
    let pairs = topic.partitions.iter().zip(assignment);
    let others = pairs.filter(|(partition, replicas)| partition.replicas != **replicas);
    Ok(others.map(|(partition, replicas)| (partition.index, replicas.clone())).collect())
}

/// Has replicas move; one item a partition.
async fn reassign(
    client: &mut ClusterClient,
    command: &Alter,
    topic: &Topic,
    moves: &BTreeMap<i32, Vec<i32>>,
    report: &mut Report,
) -> Result<Vec<Value>, String> {
    let mut outcomes: BTreeMap<i32, Result<(), Refusal>> = BTreeMap::new();
    if !command.dry_run {
        outcomes.extend(client.reassign(&topic.name, moves).await.map_err(|e| e.to_string())?);
    }
    let (mut rows, mut items) = (Vec::new(), Vec::new());
    for partition in &topic.partitions {
        let Some(replicas) = moves.get(&partition.index) else { continue };
        let refusal = outcomes.get(&partition.index).and_then(|outcome| outcome.as_ref().err());
        let state = match refusal {
            Some(_) => "refused",
            None if command.dry_run => "would move",
            None => "moving",
        };
        rows.push(vec![
            partition.index.to_string(),
            report::list(&partition.replicas),
            report::list(replicas),
            state.to_owned(),
        ]);
        if let Some(refusal) = refusal {
            report.failed.push(format!("the replicas of {}-{}: {refusal}", topic.name, partition.index));
        }
        let item = json!({
            "partition": partition.index, "replicas_before": partition.replicas, "replicas": replicas,
        });
        items.push(with_outcome(item, refusal));
    }
    report.text.push_str(&table(&["PARTITION", "REPLICAS", "NEW-REPLICAS", "STATE"], rows));
    let begun: Vec<i32> = outcomes.iter().filter(|(_, outcome)| outcome.is_ok()).map(|(index, _)| *index).collect();
    if command.wait && !begun.is_empty() {
        wait(client, &topic.name, &begun).await?;
        let moved = if begun.len() == outcomes.len() { "all have moved\n" } else { "the others have moved\n" };
        report.text.push_str(moved);
    } else if !begun.is_empty() {
        let name = &topic.name;
        report
            .text
            .push_str(&format!("the brokers copy now; `corelane topic describe {name}` shows how far they are\n"));
    }
    Ok(items)
}

/// Until none of these partitions is on the move. Those without a leader do not move.
async fn wait(client: &mut ClusterClient, topic: &str, partitions: &[i32]) -> Result<(), String> {
    let progress = Progress::new(false, None);
    let mut led_at = clock::now();
    for second in 1.. {
        client.restart();
        let on_the_move = client.reassignments(Some((topic, partitions))).await.map_err(|e| e.to_string())?;
        if on_the_move.is_empty() {
            break;
        }
        let moving: Vec<i32> = on_the_move.iter().map(|moving| moving.partition).collect();
        let stuck = leaderless(client, topic, &moving).await?;
        let now = clock::now();
        if stuck.is_empty() {
            led_at = now;
        } else if now >= led_at + ELECTION {
            progress.end();
            return Err(format!(
                "without a leader, whose records the new replicas copy: {}. Their reassignment stays, and goes on once they have one \
                 (`corelane topic describe {topic}` shows it; kafka-reassign-partitions --cancel takes it back)",
                stuck.join(", ")
            ));
        }
        let (moving, missing) = (moving.len(), waits_for(client, &on_the_move));
        progress.second(second, &format!("{moving} of {} moving{missing}", are(partitions.len(), "partition")));
        clock::sleep(LOOK).await;
    }
    progress.end();
    Ok(())
}

/// The brokers among those that get replicas that are not there: the moves wait for them.
pub(in crate::cli) fn waits_for(client: &ClusterClient, moving: &[Reassigned]) -> String {
    let there: BTreeSet<i32> = client.nodes().map(|node| node.id).collect();
    let added: BTreeSet<i32> = moving.iter().flat_map(|moving| &moving.adding).copied().collect();
    match added.difference(&there).copied().collect::<Vec<i32>>().as_slice() {
        [] => String::new(),
        [broker] => format!("; waiting for broker {broker}, which is not there"),
        brokers => format!("; waiting for brokers {}, which are not there", report::list(brokers)),
    }
}

/// Those of these partitions that have no leader.
async fn leaderless(client: &mut ClusterClient, topic: &str, moving: &[i32]) -> Result<Vec<String>, String> {
    let topics = client.topics(Some(&[topic.to_owned()])).await.map_err(|e| e.to_string())?;
    let partitions = topics.iter().flat_map(|topic| &topic.partitions);
    let stuck = partitions.filter(|partition| partition.leader < 0 && moving.contains(&partition.index));
    Ok(stuck.map(|partition| format!("{topic}-{}", partition.index)).collect())
}
