//! How far groups have read, and how much there is yet to read.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal};

use serde_json::{Value, json};

use super::arguments::Lag;
use super::show::unknown_group;
use crate::cli::connect::Format;
use crate::cli::report::{Report, or_dash, out, say, table};
use crate::client::ClusterClient;
use crate::client::cluster_client::Standing;
use crate::runtime::clock;

/// Moves the cursor home and clears what is below.
pub(in crate::cli) const CLEAR: &str = "\x1b[H\x1b[J";

/// A partition's fields as the command's JSON has them.
pub(super) fn item(standing: &Standing) -> Value {
    json!({
        "topic": standing.place.0, "partition": standing.place.1, "current_offset": standing.committed,
        "log_end_offset": standing.end, "lag": standing.lag(), "consumer_id": standing.member,
    })
}

/// A group's lag in one topic.
pub(in crate::cli) struct Sum {
    pub group: String,
    pub state: String,
    pub topic: String,
    pub partitions: usize,
    pub lag: i64,
    /// The largest of a partition.
    pub worst: i64,
    /// Partitions of which the lag is not known.
    pub unknown: usize,
}

pub(super) async fn lag(mut client: ClusterClient, command: Lag) -> Result<Report, String> {
    if !command.watch {
        let (sums, failed) = lag_of(&mut client, &command.groups).await?;
        return Ok(Report {
            text: sums_table(&sums),
            json: Value::Array(sums.iter().map(Sum::item).collect()),
            failed,
        });
    }
    let (json, clear) = (command.format == Format::Json, io::stdout().is_terminal());
    let mut done = 0;
    loop {
        client.restart();
        let failed = match lag_of(&mut client, &command.groups).await {
            Ok((sums, lines)) => {
                let at = clock::wall_ms();
                let text = match json {
                    true => sums.iter().map(|sum| format!("{}\n", sum.item_at(at))).collect(),
                    false if clear => format!("{CLEAR}{}", sums_table(&sums)),
                    false => sums_table(&sums),
                };
                out(&text)?;
                lines
            }
            // The cluster may be back at the next look.
            Err(error) => vec![error],
        };
        done += 1;
        if command.count.is_some_and(|count| done >= count) {
            return Ok(Report { failed, json: Value::Null, ..Report::default() });
        }
        failed.iter().for_each(|line| say(line));
        clock::sleep(command.interval).await;
    }
}

/// The lag of these groups, or of all, topic by topic; and what is not known.
pub(in crate::cli) async fn lag_of(
    client: &mut ClusterClient,
    names: &[String],
) -> Result<(Vec<Sum>, Vec<String>), String> {
    let all = names.is_empty();
    let (names, mut failed) = match all {
        false => (names.to_vec(), Vec::new()),
        true => {
            let (mut listed, failed) = client.groups().await.map_err(|e| e.to_string())?;
            // Others (share and streams groups) commit no offsets of this kind.
            listed.retain(|listed| matches!(listed.kind.as_str(), "" | "Classic" | "Consumer"));
            (listed.into_iter().map(|listed| listed.group).collect(), failed)
        }
    };
    let mut sums = Vec::new();
    for name in &names {
        let group = match client.group(name).await {
            Ok(Some(group)) => group,
            // It has gone since it was listed.
            Ok(None) if all => continue,
            Ok(None) => {
                failed.push(unknown_group(client, name).await?);
                continue;
            }
            Err(error) => {
                failed.push(format!("group {name}: {error}"));
                continue;
            }
        };
        let standings = match client.standings(&group).await {
            Ok(standings) => standings,
            Err(error) => {
                failed.push(format!("group {name}: {error}"));
                continue;
            }
        };
        let mut topics: BTreeMap<&str, Sum> = BTreeMap::new();
        for standing in &standings {
            let (topic, index) = &standing.place;
            let sum = topics.entry(topic).or_insert_with(|| Sum {
                group: group.group.clone(),
                state: group.state.clone(),
                topic: topic.clone(),
                partitions: 0,
                lag: 0,
                worst: 0,
                unknown: 0,
            });
            sum.partitions += 1;
            match standing.lag() {
                Some(lag) => (sum.lag, sum.worst) = (sum.lag + lag, sum.worst.max(lag)),
                None => sum.unknown += 1,
            }
            if let Some(refusal) = &standing.refusal {
                failed.push(format!("group {name}, {topic}-{index}: {refusal}"));
            }
        }
        sums.extend(topics.into_values());
    }
    Ok((sums, failed))
}

impl Sum {
    pub fn item(&self) -> Value {
        json!({
            "group": self.group, "state": self.state, "topic": self.topic, "partitions": self.partitions,
            "lag": self.lag, "max_partition_lag": self.worst, "unknown_partitions": self.unknown,
        })
    }

    fn item_at(&self, at_ms: i64) -> Value {
        let mut item = self.item();
        item["timestamp_ms"] = json!(at_ms);
        item
    }
}

fn sums_table(sums: &[Sum]) -> String {
    let row = |sum: &Sum| {
        vec![
            sum.group.clone(),
            sum.state.clone(),
            sum.topic.clone(),
            sum.partitions.to_string(),
            sum.lag.to_string(),
            sum.worst.to_string(),
            or_dash((sum.unknown > 0).then_some(sum.unknown)),
        ]
    };
    let heads = ["GROUP", "STATE", "TOPIC", "PARTITIONS", "LAG", "MAX-LAG", "UNKNOWN"];
    table(&heads, sums.iter().map(row).collect())
}
