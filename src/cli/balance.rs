//! `corelane cluster balance`: brokers get equally many replicas, and lead equally many partitions.

mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use clap::{ArgGroup, Args};
use serde_json::{Value, json};

use self::plan::{Placed, Planned, plan};
use super::connect::Connect;
use super::progress::Progress;
use super::report::{Report, are, have, list, table};
use super::topic::{Place, unknown_topic, waits_for};
use crate::client::ClusterClient;
use crate::runtime::clock;

/// Time between two looks at replicas that move.
const LOOK: Duration = Duration::from_millis(500);

#[derive(Args)]
pub(super) struct BalanceArguments {
    #[command(flatten)]
    pub connect: Connect,
    #[command(flatten)]
    pub command: Balance,
}

#[derive(Args, Clone)]
#[command(group(ArgGroup::new("how").args(["plan", "execute"])))]
pub(super) struct Balance {
    /// Print what would move, and change nothing (so it is without --execute too)
    #[arg(long)]
    plan: bool,
    /// Move it, and wait until all has moved
    #[arg(long)]
    execute: bool,
    /// Only these topics; the replicas of others count nothing
    #[arg(long = "topic", value_name = "TOPIC", value_delimiter = ',')]
    topics: Vec<String>,
    /// Only these brokers get replicas, and others lose theirs (default: all
    /// brokers that are there)
    #[arg(long, value_name = "BROKER[,BROKER...]", value_delimiter = ',')]
    broker_list: Vec<i32>,
    /// Partitions that are copied at the same time
    #[arg(long, value_name = "PARTITIONS", default_value = "5", value_parser = clap::value_parser!(u16).range(1..))]
    at_once: u16,
}

pub(super) async fn balance(mut client: ClusterClient, command: Balance) -> Result<Report, String> {
    let before = placed(&mut client, &command.topics).await?;
    let brokers = brokers(&mut client, &command.broker_list, &before).await?;
    let moving = client.reassignments(None).await.map_err(|e| e.to_string())?;
    if let Some(first) = moving.first() {
        let (topic, partition) = (&first.topic, first.partition);
        return Err(format!(
            "{} on the move already ({topic}-{partition} is one): wait for them, or end them by \
             kafka-reassign-partitions --cancel",
            are(moving.len(), "partition")
        ));
    }
    let cordoned = cordoned(&mut client, &brokers).await;
    let planned = plan(&before, &brokers, &cordoned)?;
    let mut report = Report { json: reassignment(&planned, &cordoned), ..Report::default() };
    for broker in &cordoned {
        report.text.push_str(&format!("broker {broker} gets no replicas: all its data directories are cordoned\n"));
    }
    if planned.is_empty() {
        report.text.push_str(match cordoned.is_empty() {
            true => "the brokers have equally many replicas and preferred leaderships\n",
            false => {
                "nothing moves: the brokers have as equally many replicas and preferred leaderships as that allows\n"
            }
        });
        return Ok(report);
    }
    report.text.push_str(&summary(&before, &planned, &brokers));
    if command.execute {
        execute(&mut client, &planned, usize::from(command.at_once), &mut report).await?;
    } else {
        report.text.push_str("nothing has been changed; --execute moves them\n");
    }
    Ok(report)
}

/// All partitions that are to be looked at.
async fn placed(client: &mut ClusterClient, topics: &[String]) -> Result<Vec<Placed>, String> {
    let named = (!topics.is_empty()).then_some(topics);
    let mut placed = Vec::new();
    for topic in client.topics(named).await.map_err(|e| e.to_string())? {
        if topic.is_unknown() {
            return Err(unknown_topic(client, &topic.name).await?);
        }
        if let Some(refusal) = &topic.refusal {
            return Err(format!("topic {}: {refusal}", topic.name));
        }
        let one = |partition: crate::client::cluster_client::Partition| Placed {
            topic: topic.name.clone(),
            partition: partition.index,
            replicas: partition.replicas,
        };
        placed.extend(topic.partitions.into_iter().map(one));
    }
    Ok(placed)
}

/// The brokers that are to have replicas. One that is away for a while is not emptied unasked.
async fn brokers(client: &mut ClusterClient, named: &[i32], placed: &[Placed]) -> Result<Vec<Place>, String> {
    client.learn().await.map_err(|e| e.to_string())?;
    let all: Vec<Place> =
        client.nodes().map(|node| Place { broker: node.id, rack: client.rack(node.id).map(str::to_owned) }).collect();
    let is_there = |broker: &i32| all.iter().any(|place| place.broker == *broker);
    let ids = || list(&all.iter().map(|place| place.broker).collect::<Vec<_>>());
    if let Some(broker) = named.iter().find(|broker| !is_there(broker)) {
        return Err(format!("there is no broker {broker}; there are {}", ids()));
    }
    if named.is_empty() {
        let away = placed.iter().flat_map(|placed| &placed.replicas).find(|broker| !is_there(broker));
        if let Some(broker) = away {
            return Err(format!(
                "broker {broker} has replicas and is not there: start it, or name the brokers that are to have them by \
                 --broker-list {}",
                ids()
            ));
        }
        return Ok(all);
    }
    Ok(all.into_iter().filter(|place| named.contains(&place.broker)).collect())
}

/// Those of the brokers all of whose data directories are cordoned (KIP-1066), as far as they tell:
/// they take no new replicas.
async fn cordoned(client: &mut ClusterClient, brokers: &[Place]) -> BTreeSet<i32> {
    let mut cordoned = BTreeSet::new();
    for place in brokers {
        let dirs = client.log_dirs(place.broker).await.unwrap_or_default();
        let mut usable = dirs.iter().filter(|dir| dir.refusal.is_none()).peekable();
        if usable.peek().is_some() && usable.all(|dir| dir.cordoned) {
            cordoned.insert(place.broker);
        }
    }
    cordoned
}

/// As `kafka-reassign-partitions --reassignment-json-file` reads it, and in
/// `partitions_before` the way back.
fn reassignment(planned: &[Planned], cordoned: &BTreeSet<i32>) -> Value {
    let told = |placed: &Placed, replicas: &[i32]| json!({ "topic": placed.topic, "partition": placed.partition, "replicas": replicas });
    let new: Vec<Value> = planned.iter().map(|planned| told(planned.before, &planned.replicas)).collect();
    let old: Vec<Value> = planned.iter().map(|planned| told(planned.before, &planned.before.replicas)).collect();
    json!({ "version": 1, "partitions": new, "partitions_before": old, "brokers_cordoned": cordoned })
}

/// Replicas and preferred leaderships of a broker.
#[derive(Clone, Copy, Default)]
struct Share {
    replicas: i64,
    leads: i64,
}

fn count(shares: &mut BTreeMap<i32, Share>, replicas: &[i32], by: i64) {
    for (place, broker) in replicas.iter().enumerate() {
        let share = shares.entry(*broker).or_default();
        share.replicas += by;
        share.leads += if place == 0 { by } else { 0 };
    }
}

fn summary(placed: &[Placed], planned: &[Planned], brokers: &[Place]) -> String {
    let row = |planned: &Planned| {
        let state = if planned.copies() > 0 { "copied" } else { "order only" };
        let Placed { topic, partition, replicas } = planned.before;
        vec![topic.clone(), partition.to_string(), list(replicas), list(&planned.replicas), state.to_owned()]
    };
    let rows = planned.iter().map(row).collect();
    let moves = table(&["TOPIC", "PARTITION", "REPLICAS", "NEW-REPLICAS", ""], rows);
    let mut before: BTreeMap<i32, Share> = brokers.iter().map(|place| (place.broker, Share::default())).collect();
    placed.iter().for_each(|placed| count(&mut before, &placed.replicas, 1));
    let mut after = before.clone();
    for planned in planned {
        count(&mut after, &planned.before.replicas, -1);
        count(&mut after, &planned.replicas, 1);
    }
    let rows = after.into_iter().map(|(broker, then)| {
        let now = before.get(&broker).copied().unwrap_or_default();
        [i64::from(broker), now.replicas, then.replicas, now.leads, then.leads]
            .map(|number| number.to_string())
            .to_vec()
    });
    let shares = table(&["BROKER", "REPLICAS", "THEN", "PREFERRED-LEADER", "THEN"], rows.collect());
    format!("{moves}\n{shares}")
}

/// Has some partitions move at a time, and waits for all.
async fn execute(
    client: &mut ClusterClient,
    planned: &[Planned<'_>],
    at_once: usize,
    report: &mut Report,
) -> Result<(), String> {
    let progress = Progress::new(false, None);
    let (begun_at, mut waiting) = (clock::now(), planned.iter());
    let (mut moving, mut refused) = (0, BTreeSet::new());
    loop {
        client.restart();
        let mut next: BTreeMap<&str, BTreeMap<i32, Vec<i32>>> = BTreeMap::new();
        for Planned { before, replicas } in waiting.by_ref().take(at_once.saturating_sub(moving)) {
            next.entry(&before.topic).or_default().insert(before.partition, replicas.clone());
        }
        for (topic, replicas) in next {
            for (partition, outcome) in client.reassign(topic, &replicas).await.map_err(|e| e.to_string())? {
                if let Err(refusal) = outcome {
                    refused.insert((topic.to_owned(), partition));
                    report.failed.push(format!("the replicas of {topic}-{partition}: {refusal}"));
                }
            }
        }
        let on_the_move = client.reassignments(None).await.map_err(|e| e.to_string())?;
        let left = waiting.len();
        moving = on_the_move.len();
        if moving == 0 && left == 0 {
            break;
        }
        client.learn().await.map_err(|e| e.to_string())?;
        let missing = waits_for(client, &on_the_move);
        let text = format!("{moving} of {} moving, {left} wait{missing}", are(planned.len(), "partition"));
        progress.second((clock::now() - begun_at).as_secs(), &text);
        if moving >= at_once || left == 0 {
            clock::sleep(LOOK).await;
        }
    }
    progress.end();
    let moved = planned.len() - refused.len();
    report.text.push_str(&format!("{} moved\n", have(moved, "partition")));
    elect(client, planned, &refused, report).await
}

/// Has the partitions led by their first replicas where these are others now.
async fn elect(
    client: &mut ClusterClient,
    planned: &[Planned<'_>],
    refused: &BTreeSet<(String, i32)>,
    report: &mut Report,
) -> Result<(), String> {
    let mut changed: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for Planned { before: Placed { topic, partition, replicas: old }, replicas } in planned {
        if old.first() != replicas.first() && !refused.contains(&(topic.clone(), *partition)) {
            changed.entry(topic.clone()).or_default().push(*partition);
        }
    }
    if changed.is_empty() {
        return Ok(());
    }
    client.restart();
    let mut led = 0;
    for (topic, partition, outcome) in client.elect_preferred(&changed).await.map_err(|e| e.to_string())? {
        match outcome {
            Ok(()) => led += 1,
            Err(refusal) => report.failed.push(format!("the election of the leader of {topic}-{partition}: {refusal}")),
        }
    }
    report.text.push_str(&format!("{} been handed to the new first replica\n", have(led, "leadership")));
    Ok(())
}
