//! Where the image is kept. `local` (embedded, default); ZooKeeper joins it with the cluster.
//!
//! On disk, under `<first log dir>/corelane-metadata/`:
//! - `cluster.json`: the cluster id
//! - `topics/<name>.json`: one topic each
//! - `producer-ids.json`: the first producer id not yet given away
//! - `lock`: empty; held while producer ids are reserved
//!
//! Each `.json` file is one line of JSON and one line with its CRC32C, and is replaced as a whole: written beside under a
//! `.tmp` name, synced, renamed, the directory synced. What ends in `.tmp` is the rest of a write that did not get that
//! far, and was never acknowledged.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::image::{BrokerImage, EndpointImage, MetadataImage, PartitionImage, TopicImage};
use crate::config::{Advertised, ListenerConfig, ServerConfig, TopicConfig};
use crate::model::{BrokerId, LeaderEpoch};

/// The embedded store: one small synced file per topic under `<first log dir>/corelane-metadata/`, each replaced
/// atomically. All calls block; shards run them off their event loop.
#[derive(Clone, Debug)]
pub struct LocalStore {
    pub(crate) directory: PathBuf,
}

/// Raised when the files change in a way an older broker would misread.
const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct ClusterRecord {
    format: u32,
    cluster_id: String,
}

#[derive(Serialize, Deserialize)]
struct ProducerIdRecord {
    format: u32,
    next: i64,
}

#[derive(Serialize, Deserialize)]
struct TopicRecord {
    format: u32,
    name: String,
    id: String,
    overrides: BTreeMap<String, String>,
    partitions: Vec<PartitionRecord>,
}

#[derive(Serialize, Deserialize)]
struct PartitionRecord {
    leader: Option<i32>,
    leader_epoch: i32,
    replicas: Vec<i32>,
    isr: Vec<i32>,
}

impl LocalStore {
    /// Makes the directory on first use, with a cluster id.
    pub fn open(log_dir: &Path) -> io::Result<LocalStore> {
        let store = LocalStore { directory: log_dir.join("corelane-metadata") };
        let topics = store.topics();
        fs::create_dir_all(&topics).map_err(|e| at(&topics, "cannot be made", e))?;
        for directory in [&store.directory, &topics] {
            remove_leftovers(directory)?;
            sync_directory(directory)?;
        }
        sync_directory(log_dir)?;
        if !store.cluster_file().try_exists()? {
            store.refuse_topics_without_cluster()?;
            let record = ClusterRecord { format: FORMAT, cluster_id: new_cluster_id() };
            replace(&store.cluster_file(), "cluster", &record)?;
        }
        Ok(store)
    }

    /// 22 characters, as Kafka makes them.
    pub fn cluster_id(&self) -> io::Result<String> {
        let file = self.cluster_file();
        let record: ClusterRecord = read(&file)?;
        check_format(&file, record.format)?;
        Ok(record.cluster_id)
    }

    /// Everything stored, as the image of a one-broker cluster. A damaged file is an error that names it.
    pub fn load(&self, config: &ServerConfig) -> io::Result<MetadataImage> {
        let this = BrokerId(config.broker_id);
        let endpoint = |listener: &ListenerConfig| {
            let Advertised { host, port } = listener.advertised.clone()?;
            Some(EndpointImage { listener: listener.name.clone(), host, port })
        };
        let endpoints = config.listeners.iter().filter_map(endpoint).collect();
        let broker = BrokerImage { id: this, endpoints, rack: config.broker_rack.clone() };
        let mut image = MetadataImage::default();
        image.cluster_id = self.cluster_id()?;
        image.controller = Some(this);
        image.brokers = vec![broker];
        for entry in fs::read_dir(self.topics()).map_err(|e| at(&self.topics(), "cannot be read", e))? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let topic = load_topic(&path, &config.topic_defaults)?;
            if let Some(other) = image.topic_by_id(topic.id) {
                return Err(damaged(&path, &format!("its topic id is also that of topic {}", other.name)));
            }
            if topic.partitions.iter().any(|partition| !partition.replicas.contains(&this)) {
                let what =
                    format!("its partitions are not all on broker {this}; start with the node.id it was written under");
                return Err(io::Error::new(ErrorKind::InvalidData, format!("{}: {what}", path.display())));
            }
            image.put_topic(topic);
        }
        Ok(image)
    }

    /// Durable when it returns.
    pub fn put_topic(&self, topic: &TopicImage) -> io::Result<()> {
        let ids = |brokers: &[BrokerId]| brokers.iter().map(|broker| broker.0).collect();
        let partition = |partition: &PartitionImage| PartitionRecord {
            leader: partition.leader.map(|leader| leader.0),
            leader_epoch: partition.leader_epoch.0,
            replicas: ids(&partition.replicas),
            isr: ids(&partition.isr),
        };
        let record = TopicRecord {
            format: FORMAT,
            name: topic.name.to_string(),
            id: topic.id.to_string(),
            overrides: topic.overrides.clone(),
            partitions: topic.partitions.iter().map(partition).collect(),
        };
        // Topic names can fill a file name up to the suffix, so the temporary one goes by id.
        replace(&self.topic_file(&topic.name)?, &topic.id.to_string(), &record)
    }

    /// Durable when it returns; a topic that is not there is no error.
    pub fn remove_topic(&self, name: &str) -> io::Result<()> {
        let file = self.topic_file(name)?;
        match fs::remove_file(&file) {
            Ok(()) => sync_directory(&self.topics()),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            Err(e) => Err(at(&file, "cannot be removed", e)),
        }
    }

    /// Reserves `count` producer ids that no one ever got before, also across restarts; returns the first.
    /// Shards may call this at the same time.
    pub fn reserve_producer_ids(&self, count: u32) -> io::Result<i64> {
        let lock_file = self.directory.join("lock");
        let lock = File::create(&lock_file).map_err(|e| at(&lock_file, "cannot be opened", e))?;
        // Two openings of the file exclude each other, also within a process; closing it lets go.
        lock.lock().map_err(|e| at(&lock_file, "cannot be locked", e))?;
        let file = self.directory.join("producer-ids.json");
        let first = if file.try_exists()? {
            let record: ProducerIdRecord = read(&file)?;
            check_format(&file, record.format)?;
            record.next
        } else {
            0
        };
        let next = first.checked_add(i64::from(count)).filter(|_| first >= 0);
        let next = next.ok_or_else(|| damaged(&file, &format!("it says that {first} is the next producer id")))?;
        replace(&file, "producer-ids", &ProducerIdRecord { format: FORMAT, next })?;
        Ok(first)
    }

    fn topics(&self) -> PathBuf {
        self.directory.join("topics")
    }

    fn cluster_file(&self) -> PathBuf {
        self.directory.join("cluster.json")
    }

    /// A name that is no topic's never becomes part of a path.
    fn topic_file(&self, name: &str) -> io::Result<PathBuf> {
        super::controller::check_topic_name(name).map_err(|e| io::Error::new(ErrorKind::InvalidInput, e.message))?;
        Ok(self.topics().join(format!("{name}.json")))
    }

    /// A lost cluster file must not turn the topics into those of another cluster.
    fn refuse_topics_without_cluster(&self) -> io::Result<()> {
        if fs::read_dir(self.topics())?.next().is_none() {
            return Ok(());
        }
        Err(damaged(&self.cluster_file(), "it is missing although there are topics"))
    }
}

fn load_topic(path: &Path, defaults: &TopicConfig) -> io::Result<TopicImage> {
    let record: TopicRecord = read(path)?;
    check_format(path, record.format)?;
    if path.file_stem().is_none_or(|stem| *stem != *record.name) || record.partitions.is_empty() {
        return Err(damaged(
            path,
            &format!("it describes topic '{}' with {} partitions", record.name, record.partitions.len()),
        ));
    }
    let id = Uuid::parse_str(&record.id).map_err(|e| damaged(path, &format!("its id: {e}")))?;
    let pairs = record.overrides.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let config = defaults.with_overrides(pairs).map_err(|e| damaged(path, &e))?;
    let ids = |ids: Vec<i32>| ids.into_iter().map(BrokerId).collect();
    let partition = |partition: PartitionRecord| PartitionImage {
        leader: partition.leader.map(BrokerId),
        leader_epoch: LeaderEpoch(partition.leader_epoch),
        replicas: ids(partition.replicas),
        isr: ids(partition.isr),
    };
    Ok(TopicImage {
        name: record.name.into(),
        id,
        partitions: record.partitions.into_iter().map(partition).collect(),
        overrides: record.overrides,
        config: config.into(),
    })
}

/// Writes `record` to `path` so that a crash leaves either the old file or the new one.
fn replace(path: &Path, temporary: &str, record: &impl Serialize) -> io::Result<()> {
    let Some(directory) = path.parent() else {
        return Err(io::Error::new(ErrorKind::InvalidInput, format!("{}: has no directory", path.display())));
    };
    let mut text = serde_json::to_string(record).map_err(io::Error::other)?;
    text.push_str(&format!("\n{:08x}\n", crc32c::crc32c(text.as_bytes())));
    replace_bytes(path, &directory.join(format!("{temporary}.tmp")), text.as_bytes())?;
    sync_directory(directory)
}

fn replace_bytes(path: &Path, temporary: &Path, bytes: &[u8]) -> io::Result<()> {
    let written = File::create(temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.map_err(|e| at(temporary, "cannot be written", e))?;
    fs::rename(temporary, path).map_err(|e| at(path, "cannot be replaced", e))
}

fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::InvalidData => return Err(damaged(path, "it is not text")),
        Err(e) => return Err(at(path, "cannot be read", e)),
    };
    let parts = text.strip_suffix('\n').and_then(|text| text.split_once('\n'));
    let (json, sum) = parts.ok_or_else(|| damaged(path, "it is cut off"))?;
    if sum != format!("{:08x}", crc32c::crc32c(json.as_bytes())) {
        return Err(damaged(path, "its checksum is wrong"));
    }
    serde_json::from_str(json).map_err(|e| damaged(path, &e.to_string()))
}

fn check_format(path: &Path, format: u32) -> io::Result<()> {
    if format == FORMAT {
        return Ok(());
    }
    let what = format!("{}: has format {format}; this version of Corelane reads {FORMAT}", path.display());
    Err(io::Error::new(ErrorKind::InvalidData, what))
}

fn damaged(path: &Path, what: &str) -> io::Error {
    let advice =
        "restore it from a copy, or move it away to start without it (a topic's records stay in the data directory)";
    io::Error::new(ErrorKind::InvalidData, format!("{}: damaged: {what}; {advice}", path.display()))
}

fn at(path: &Path, what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{} {what}: {error}", path.display()))
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory).and_then(|file| file.sync_all()).map_err(|e| at(directory, "cannot be synced", e))
}

fn remove_leftovers(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory).map_err(|e| at(directory, "cannot be read", e))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "tmp") {
            fs::remove_file(&path).map_err(|e| at(&path, "cannot be removed", e))?;
        }
    }
    Ok(())
}

/// A random UUID in Kafka's spelling: URL-safe base64 without padding. A leading '-' would look like an option on a
/// command line, so Kafka never makes one.
fn new_cluster_id() -> String {
    loop {
        let id = encode_id(Uuid::new_v4());
        if !id.starts_with('-') {
            return id;
        }
    }
}

/// A topic's or cluster's id as Kafka spells it.
pub fn encode_id(id: Uuid) -> String {
    base64url(id.as_bytes())
}

fn base64url(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let number = chunk.iter().fold(0u32, |number, byte| number << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for digit in 0..=chunk.len() {
            text.push(char::from(DIGITS[(number >> (18 - 6 * digit) & 63) as usize]));
        }
    }
    text
}

/// Ties a log directory to its broker and cluster by Kafka's `meta.properties`: written when absent; when it is there and
/// names another broker or cluster, an error, because the directory's partitions belong to that one.
pub fn check_meta_properties(directory: &Path, broker_id: i32, cluster_id: &str) -> io::Result<()> {
    let path = directory.join("meta.properties");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let text = format!("version=1\nbroker.id={broker_id}\ncluster.id={cluster_id}\n");
            replace_bytes(&path, &directory.join("meta.properties.tmp"), text.as_bytes())?;
            return sync_directory(directory);
        }
        Err(e) => return Err(at(&path, "cannot be read", e)),
    };
    let properties = crate::config::properties::parse(&text)
        .map_err(|e| damaged(&path, &format!("line {}: {}", e.line, e.message)))?;
    let find = |names: &[&str]| {
        properties
            .iter()
            .rev()
            .find(|property| names.contains(&property.key.as_str()))
            .map(|property| property.value.trim())
    };
    let expected_id = broker_id.to_string();
    let checks =
        [(&["broker.id", "node.id"][..], expected_id.as_str(), "node.id"), (&["cluster.id"], cluster_id, "cluster")];
    for (names, expected, what) in checks {
        match find(names) {
            Some(found) if found == expected => {}
            Some(found) => {
                let message = format!(
                    "{}: the directory belongs to {what} {found}, this broker is of {what} {expected}; use the log.dirs \
                     and node.id it was written with, or another directory",
                    path.display()
                );
                return Err(io::Error::new(ErrorKind::InvalidData, message));
            }
            None => return Err(damaged(&path, &format!("it has no {}", names[0]))),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
