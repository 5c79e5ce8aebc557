//! `corelane cluster adopt`: a broker that was alone becomes the first of a cluster.
//!
//! Its metadata goes to ZooKeeper, node by node, and the cluster's id last: until that is there,
//! doing it again goes on. Its own files of topics are put aside only then, so at any moment one of
//! the two places is whole.

use std::collections::BTreeSet;
use std::io::{self, Write as _};
use std::process::ExitCode;

use clap::Subcommand;

use super::balance::{BalanceArguments, balance};
use super::command::ServerArguments;
use super::report::counted;
use super::session::Session;
use crate::cluster::data_dirs::{self, DataDirs};
use crate::cluster::store::{Commit, Incarnation, Key, Lifetime, Outcome, Phase, Record, Write};
use crate::cluster::{CLEAN_MARK, META_FILE, TopicImage, nodes_of};
use crate::config::ServerConfig;
use crate::model::BrokerId;
use crate::observe;
use crate::runtime::probe;

/// Nodes made by one commit: far below what a ZooKeeper server takes.
const NODES: usize = 100;

#[derive(Subcommand)]
pub(super) enum ClusterCommand {
    /// Write the metadata of a broker that was alone into ZooKeeper, so that it goes on
    /// as the first of a cluster
    ///
    /// The broker has to be stopped, in good order; the file is the one that it will be started
    /// with, with zookeeper.connect.
    Adopt(ServerArguments),
    /// Spread replicas and leaderships evenly over the brokers, as after a new one
    /// has come or before one goes
    #[command(after_help = "Examples:
  corelane cluster balance                                     (what would move)
  corelane cluster balance --execute --at-once 20
  corelane cluster balance --broker-list 1,2,3 --execute       (empties the others)
  corelane cluster balance --format json > plan.json
  kafka-reassign-partitions.sh --bootstrap-server a:9092 --reassignment-json-file plan.json --execute

Works with any Kafka cluster. As few replicas as possible are copied, and no partition is in fewer racks than before.
Replicas are counted, not their bytes. Ended by Ctrl-C it begins nothing more; run again, it goes on.")]
    Balance(BalanceArguments),
}

/// Exit code 0, or 1 with one line on stderr.
pub(super) fn main(command: ClusterCommand) -> ExitCode {
    let arguments = match command {
        ClusterCommand::Adopt(arguments) => arguments,
        ClusterCommand::Balance(arguments) => return arguments.connect.run(arguments.command, balance),
    };
    match adopt(&arguments) {
        Ok(told) => {
            let _ = writeln!(io::stdout(), "{told}");
            ExitCode::SUCCESS
        }
        Err(message) => {
            let _ = writeln!(io::stderr(), "corelane: {message}");
            ExitCode::FAILURE
        }
    }
}

fn adopt(arguments: &ServerArguments) -> Result<String, String> {
    let (config, _) = ServerConfig::load(arguments.file.as_deref(), &arguments.overrides).map_err(|e| e.to_string())?;
    // The client library tells of every connection.
    let level = match config.log_level.as_str() {
        "info" => "info,zookeeper_client=warn",
        level => level,
    };
    observe::init_logging(level, config.log_format)?;
    if !config.in_cluster() {
        return Err("zookeeper.connect is missing: it names the ensemble and the chroot that take the metadata".into());
    }
    if !config.log_dirs.iter().any(|dir| dir.join(META_FILE).exists()) {
        return Err("log.dirs names no directory of a broker: there is nothing to adopt".into());
    }
    // Locked until this ends.
    let DataDirs { held, store, image, all, .. } = data_dirs::open(&config, None)?;
    if !all {
        return Err("a directory of log.dirs is not in use: adopt takes all of a broker's partitions or none".into());
    }
    if let Some(dir) = held.iter().find(|dir| !dir.fresh && !dir.path.join(CLEAN_MARK).exists()) {
        return Err(format!(
            "{}: the last stop was not orderly: start the broker once more without zookeeper.connect, and stop it by SIGTERM",
            dir.path.display()
        ));
    }
    if let Some((topic, why)) = image.all_withheld().first_key_value() {
        return Err(format!("the metadata of topic {topic} is damaged or lost ({why}): mend or remove it first"));
    }
    let me = BrokerId(config.broker_id);
    let mut nodes = vec![(
        Key::Incarnation(me),
        Record::Incarnation(Incarnation {
            phase: Phase::Active,
            trusted: true,
            boot: probe::boot_id().map_err(|e| format!("the boot of the host: {e}"))?,
            directories: held.iter().map(|dir| dir.id).collect::<BTreeSet<_>>(),
        }),
    )];
    for topic in image.topics() {
        nodes.extend(shared_nodes(topic, me)?);
    }
    nodes.extend(store.stored_producer_ids().map(|next| (Key::ProducerIds, Record::ProducerIds(next))));
    nodes.push((Key::ClusterId, Record::ClusterId(image.cluster_id.clone())));

    let mut session = Session::open(&config, Box::new(|| {}))?;
    for part in missing(&session, nodes)?.chunks(NODES) {
        match session.commit(Commit { checks: Vec::new(), writes: part.to_vec() })? {
            Outcome::Done => {}
            Outcome::Conflict(key) => {
                return Err(format!("{key:?} was made by somebody else meanwhile; nothing is lost here"));
            }
            Outcome::Failed(why) => return Err(why),
            Outcome::Unknown => return Err("the connection to ZooKeeper was lost: do it again".into()),
        }
    }
    drop(session);
    let aside = store.put_topics_aside().map_err(|e| e.to_string())?;
    store.prepare(&image.cluster_id, true).map_err(|e| e.to_string())?;
    let (topics, id) = (image.topics().count(), &image.cluster_id);
    let aside = aside.map_or(String::new(), |aside| format!("; their files are now in {}", aside.display()));
    let (topics, are) = (counted(topics, "topic"), if topics == 1 { "is" } else { "are" });
    Ok(format!("{topics} of cluster {id} {are} in {}{aside}", config.zookeeper_connect))
}

/// The topic's nodes that brokers share.
fn shared_nodes(topic: &TopicImage, me: BrokerId) -> Result<Vec<(Key, Record)>, String> {
    if let Some(other) = topic.partitions.iter().find(|partition| partition.replicas != [me]) {
        return Err(format!(
            "broker.id={me}, but topic {} has its replicas on {:?}: adopt with the broker.id that it had",
            topic.name, other.replicas
        ));
    }
    Ok(nodes_of(topic).into_iter().filter(|(key, _)| !matches!(key, Key::Home(..))).collect())
}

/// Writes of the nodes that are not there yet. Others than these may not be there; but a broker
/// that was refused may have given the place an id.
fn missing(session: &Session, nodes: Vec<(Key, Record)>) -> Result<Vec<Write>, String> {
    let there = session.mirror().nodes();
    if let Some((Key::Broker(broker), _)) = there.iter().find(|(key, _)| matches!(key, Key::Broker(_))) {
        return Err(format!("broker {broker} is registered there: stop it first"));
    }
    let ours: BTreeSet<&Key> = nodes.iter().map(|(key, _)| key).collect();
    let is_used = there.keys().any(|key| !ours.contains(key) && *key != Key::ControllerEpoch);
    let mut missing = Vec::new();
    for (key, record) in nodes {
        match (there.get(&key), &key) {
            (None, _) => missing.push(Write::Create(key, record, Lifetime::Persistent)),
            (Some(node), _) if node.record == record => {}
            (Some(_), Key::Incarnation(_)) => {}
            (Some(node), Key::ClusterId) if !is_used => missing.push(Write::Set(key, record, node.version)),
            (Some(_), Key::ClusterId) => {
                return Err("zookeeper.connect is the place of another cluster already: name another chroot".into());
            }
            (Some(_), _) => {
                return Err(format!("zookeeper.connect holds another {key:?} already: name another chroot"));
            }
        }
    }
    Ok(missing)
}
