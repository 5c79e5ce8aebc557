//! `corelane broker move-replicas`: from one data directory of a broker to another.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use clap::{ArgGroup, Args};
use serde_json::{Value, json};

use super::{Which, chosen};
use crate::cli::progress::Progress;
use crate::cli::report::{Report, counted, have, table};
use crate::client::ClusterClient;
use crate::client::cluster_client::{DirTopic, LogDir};
use crate::runtime::clock;

/// Time between two looks at replicas that move.
const LOOK: Duration = Duration::from_millis(500);
/// So many looks in a row that find a replica where it was, and not on the move, are believed.
const SURE: u32 = 3;

#[derive(Args, Clone)]
#[command(group(ArgGroup::new("how").args(["plan", "execute"])))]
pub(super) struct MoveReplicas {
    /// The broker that has them
    broker: i32,
    /// The data directory that they leave, as `broker log-dirs` shows it
    #[arg(long, value_name = "DIR")]
    from: String,
    /// The data directory that they move to
    #[arg(long, value_name = "DIR")]
    to: String,
    /// Only the partitions of these topics
    #[arg(long = "topic", value_name = "TOPIC", value_delimiter = ',')]
    topics: Vec<String>,
    /// Print what would move, and change nothing (so it is without --execute too)
    #[arg(long)]
    plan: bool,
    /// Move them, and wait until all have moved; the broker goes on with it if this is interrupted
    #[arg(long)]
    execute: bool,
}

pub(super) async fn move_replicas(mut client: ClusterClient, command: MoveReplicas) -> Result<Report, String> {
    client.learn().await.map_err(|e| e.to_string())?;
    let all: Vec<i32> = client.nodes().map(|node| node.id).collect();
    chosen(&all, &Which { brokers: vec![command.broker] })?;
    let dirs = client.log_dirs(command.broker).await.map_err(|e| e.to_string())?;
    let leaving = leaving(&dirs, &command)?;
    let mut report = Report { json: item(&command, &leaving), ..Report::default() };
    if leaving.is_empty() {
        let which = if command.topics.is_empty() { "replica" } else { "replica of these topics" };
        report.text = format!("nothing to move: there is no {which} in {}\n", command.from);
        return Ok(report);
    }
    let row =
        |replica: &DirTopic| vec![replica.topic.clone(), replica.partition.to_string(), replica.bytes.to_string()];
    report.text = table(&["TOPIC", "PARTITION", "BYTES"], leaving.iter().map(row).collect());
    if command.execute {
        execute(&mut client, &command, &leaving, &mut report).await?;
    } else {
        report.text.push_str("nothing has been changed; --execute moves them\n");
    }
    Ok(report)
}

/// The replicas that are to move. The error: they cannot.
fn leaving(dirs: &[LogDir], command: &MoveReplicas) -> Result<Vec<DirTopic>, String> {
    let find = |path: &str| {
        dirs.iter().find(|dir| dir.path == path).ok_or_else(|| {
            let known: Vec<&str> = dirs.iter().map(|dir| dir.path.as_str()).collect();
            format!("broker {} has no data directory {path}; it has {}", command.broker, known.join(", "))
        })
    };
    let (from, to) = (find(&command.from)?, find(&command.to)?);
    if from.path == to.path {
        return Err("--from and --to are the same data directory".into());
    }
    for dir in [from, to] {
        if let Some(refusal) = &dir.refusal {
            return Err(format!("broker {}, {}: {refusal}", command.broker, dir.path));
        }
    }
    let is_meant =
        |replica: &&DirTopic| !replica.future && (command.topics.is_empty() || command.topics.contains(&replica.topic));
    let leaving: Vec<DirTopic> = from.partitions.iter().filter(is_meant).cloned().collect();
    let bytes = leaving.iter().fold(0, |sum: i64, replica| sum.saturating_add(replica.bytes));
    if to.usable_bytes >= 0 && bytes > to.usable_bytes {
        return Err(format!(
            "the replicas take {bytes} bytes, and {} has {} left: name some of their topics by --topic",
            to.path, to.usable_bytes
        ));
    }
    Ok(leaving)
}

fn item(command: &MoveReplicas, leaving: &[DirTopic]) -> Value {
    let told =
        |replica: &DirTopic| json!({ "topic": replica.topic, "partition": replica.partition, "bytes": replica.bytes });
    let partitions: Vec<Value> = leaving.iter().map(told).collect();
    json!({ "broker": command.broker, "from": command.from, "to": command.to, "partitions": partitions })
}

/// Has all of them move, and waits for it.
async fn execute(
    client: &mut ClusterClient,
    command: &MoveReplicas,
    leaving: &[DirTopic],
    report: &mut Report,
) -> Result<(), String> {
    let mut asked: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for replica in leaving {
        asked.entry(replica.topic.clone()).or_default().push(replica.partition);
    }
    // With how many looks in a row have found it not on the move.
    let mut left: BTreeMap<(String, i32), u32> = BTreeMap::new();
    let outcomes = client.move_replicas(command.broker, &command.to, &asked).await.map_err(|e| e.to_string())?;
    for (topic, partition, outcome) in outcomes {
        match outcome {
            Ok(()) => drop(left.insert((topic, partition), 0)),
            Err(refusal) => report.failed.push(format!("{topic}-{partition}: {refusal}")),
        }
    }
    let (progress, begun_at) = (Progress::new(false, None), clock::now());
    let (mut moved, begun) = (0, left.len());
    loop {
        client.restart();
        let dirs = client.log_dirs(command.broker).await.map_err(|e| e.to_string())?;
        let (here, coming) = (held(&dirs, &command.from, false), held(&dirs, &command.to, true));
        left.retain(|(topic, partition), looks| {
            let replica = (topic.as_str(), *partition);
            if !here.contains(&replica) {
                moved += 1;
                return false;
            }
            *looks = if coming.contains(&replica) { 0 } else { *looks + 1 };
            if *looks >= SURE {
                report.failed.push(format!(
                    "{topic}-{partition} has not moved: the move has failed, which the broker's log tells of, or was called off"
                ));
            }
            *looks < SURE
        });
        if left.is_empty() {
            break;
        }
        let text = format!("{} of {} left", left.len(), counted(begun, "partition"));
        progress.second((clock::now() - begun_at).as_secs(), &text);
        clock::sleep(LOOK).await;
    }
    progress.end();
    report.text.push_str(&format!("{} moved\n", have(moved, "partition")));
    Ok(())
}

/// The replicas in the directory at `path`, or the copies that are being made there.
fn held<'a>(dirs: &'a [LogDir], path: &str, future: bool) -> HashSet<(&'a str, i32)> {
    let replicas = dirs.iter().filter(|dir| dir.path == path).flat_map(|dir| &dir.partitions);
    replicas
        .filter(|replica| replica.future == future)
        .map(|replica| (replica.topic.as_str(), replica.partition))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica(topic: &str, bytes: i64, future: bool) -> DirTopic {
        DirTopic { topic: topic.to_owned(), partition: 0, bytes, offset_lag: 0, future }
    }

    fn dir(path: &str, usable_bytes: i64, partitions: Vec<DirTopic>) -> LogDir {
        LogDir { path: path.to_owned(), refusal: None, total_bytes: -1, usable_bytes, cordoned: false, partitions }
    }

    fn command(from: &str, to: &str, topics: &[&str]) -> MoveReplicas {
        let topics = topics.iter().map(|topic| (*topic).to_owned()).collect();
        MoveReplicas { broker: 1, from: from.into(), to: to.into(), topics, plan: false, execute: true }
    }

    #[test]
    fn replicas_leave_if_there_is_room_for_them() {
        let held = vec![replica("a", 60, false), replica("b", 50, false), replica("c", 5, true)];
        let dirs = [dir("/old", 10, held), dir("/new", 100, Vec::new()), dir("/untold", -1, Vec::new())];
        let left = |to: &str, topics: &[&str]| {
            let leaving = leaving(&dirs, &command("/old", to, topics))?;
            Ok::<_, String>(leaving.into_iter().map(|replica| replica.topic).collect::<Vec<_>>())
        };
        assert_eq!(left("/new", &["b"]).unwrap(), ["b"]);
        assert_eq!(left("/untold", &[]).unwrap(), ["a", "b"]);
        assert_eq!(left("/new", &["d"]).unwrap(), [""; 0]);
        let told = left("/new", &[]).unwrap_err();
        assert_eq!(told, "the replicas take 110 bytes, and /new has 100 left: name some of their topics by --topic");
        assert_eq!(left("/old", &[]).unwrap_err(), "--from and --to are the same data directory");
        let told = left("/gone", &[]).unwrap_err();
        assert_eq!(told, "broker 1 has no data directory /gone; it has /old, /new, /untold");
    }
}
