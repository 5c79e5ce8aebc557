//! Where the image is kept. `local` (embedded, default); ZooKeeper joins it with the cluster.
//!
//! On disk, under `<first log dir>/corelane-metadata/`:
//! - `cluster.json`: the cluster id
//! - `topics/<name>.json`: one topic each
//! - `topics/<topic id>.deleted`: a topic whose partitions' directories are still to be removed
//! - `directories.json`: the data directories by id, where each was last, and the
//!   number of the broker's run
//! - `leader-epochs.json`: starts that raised the leader epochs (`epoch_store`)
//! - `producer-ids.json` and `producer-ids.copy.json`: the first producer id not yet given away
//! - `broker-options.json` and `broker-options.default.json`: options set while the broker runs,
//!   its own and the default
//! - `group-options.json`: options of single groups (`group_store`)
//! - `client-quotas.json`: client quotas (`quota_store`)
//! - `lock`: empty; held while producer ids are reserved
//!
//! Each `.json` file is one line of JSON and one line with its CRC32C, and is replaced as a whole:
//! written beside under a `.tmp` name, synced, renamed, the directory synced. What ends in `.tmp`
//! is the rest of a write that did not get that far, and was never acknowledged.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::directory_id::DirectoryId;
use super::image::{BrokerImage, EndpointImage, MetadataImage, PartitionHome, PartitionImage, TopicImage};
use super::quotas::ClientQuotas;
use crate::config::{Advertised, DynamicOptions, GroupOptions, ListenerConfig, ServerConfig, TopicConfig};
use crate::model::{BrokerId, LeaderEpoch, encode_id};
use crate::runtime::faults;

/// The embedded store: one small synced file per topic under `<first log dir>/corelane-metadata/`,
/// each replaced atomically. All calls block; shards run them off their event loop.
#[derive(Clone, Debug)]
pub struct LocalStore {
    pub(crate) directory: PathBuf,
    /// Starts that raised the leader epochs; see `epoch_store`.
    pub(super) epochs_raised: i32,
}

/// Both copies of the counter of producer ids, in the order in which they are written.
const PRODUCER_ID_FILES: [&str; 2] = ["producer-ids.json", "producer-ids.copy.json"];

/// Ending of the folder of topics that a cluster has taken over.
const ADOPTED: &str = "adopted";

/// Ids left out where it is not known how many were given away: more than a
/// broker gives away in its life.
const LOST_IDS: i64 = 1 << 32;

/// Raised when the files change in a way an older broker would misread.
pub(super) const FORMAT: u32 = 1;

#[derive(Serialize, Deserialize)]
struct ClusterRecord {
    format: u32,
    cluster_id: String,
    /// The cluster's topics are in a store that brokers share.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    shared: bool,
}

#[derive(Serialize, Deserialize)]
struct DirectoriesRecord {
    format: u32,
    run: u64,
    directories: Vec<DirectoryRecord>,
}

#[derive(Serialize, Deserialize)]
struct DirectoryRecord {
    id: String,
    path: PathBuf,
}

#[derive(Serialize, Deserialize)]
struct ProducerIdRecord {
    format: u32,
    next: i64,
}

#[derive(Serialize, Deserialize)]
struct OptionsRecord {
    format: u32,
    options: BTreeMap<String, String>,
}

/// Whom dynamic options are of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OptionsOf {
    Broker,
    AllBrokers,
}

#[derive(Serialize, Deserialize)]
struct TopicRecord {
    format: u32,
    name: String,
    id: String,
    overrides: BTreeMap<String, String>,
    partitions: Vec<PartitionRecord>,
    /// As of when the leader epochs hold; see `epoch_store`.
    #[serde(default)]
    epochs_raised: i32,
}

#[derive(Serialize, Deserialize)]
struct PartitionRecord {
    leader: Option<i32>,
    leader_epoch: i32,
    replicas: Vec<i32>,
    isr: Vec<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    directory: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since_run: Option<u64>,
}

/// A data directory that this broker has used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownDirectory {
    pub id: DirectoryId,
    /// Where it was last.
    pub path: PathBuf,
}

/// Data directories that this start finds others than the last one, where brokers share the
/// metadata and nobody notes which replica is in which.
#[derive(Clone, Debug, Default)]
pub struct OtherDirectories {
    /// Those that were there before and are not any more: `log.dirs` does not name them, or
    /// something else is in their place, such as the empty mount point of a disk.
    pub gone: Vec<KnownDirectory>,
    /// None holds anything: the broker is new, or has lost all.
    pub all_fresh: bool,
    /// The list of those before was in one that is gone.
    pub list_lost: bool,
}

/// Everything stored, as read at a start.
#[derive(Clone, Debug, Default)]
pub struct Stored {
    pub image: MetadataImage,
    /// Why the store does not know the cluster's id; `None`: it does, in the image.
    pub cluster_lost: Option<String>,
    pub directories: Vec<KnownDirectory>,
    /// Number of the last run; 0: there was none.
    pub run: u64,
    /// Topics that are deleted, but whose partitions' directories may still be there.
    pub deleted: Vec<TopicImage>,
    /// The broker, where it shares the topics with others.
    pub shared_by: Option<BrokerId>,
    pub others: OtherDirectories,
}

impl Stored {
    /// This broker has a replica of the partition.
    pub fn is_here(&self, partition: &PartitionImage) -> bool {
        self.shared_by.is_none_or(|me| partition.replicas.contains(&me))
    }

    /// True while partitions of topics, or topics of which that is not known, are
    /// recorded in a directory.
    pub fn holds(&self, id: DirectoryId) -> bool {
        let homes = |topic: &TopicImage| topic.partitions.iter().any(|p| p.home.is_some_and(|h| h.directory == id));
        self.image.topics().any(|topic| homes(topic)) || !self.image.all_withheld().is_empty()
    }

    pub fn knows_topic(&self, id: Uuid) -> bool {
        self.image.topic_by_id(id).is_some() || self.deleted.iter().any(|topic| topic.id == id)
    }
}

impl LocalStore {
    /// The store in a data directory. Touches nothing.
    pub fn at(log_dir: &Path) -> LocalStore {
        LocalStore { directory: log_dir.join(super::look::METADATA_DIR), epochs_raised: 0 }
    }

    /// The store is in this data directory.
    pub fn is_in(&self, log_dir: &Path) -> bool {
        self.directory.parent() == Some(log_dir)
    }

    /// Makes the directory on first use, with a cluster id.
    #[cfg(test)]
    pub fn open(log_dir: &Path) -> io::Result<LocalStore> {
        let mut store = LocalStore::at(log_dir);
        let cluster_id = store.cluster_id().unwrap_or_else(|_| new_cluster_id());
        store.prepare(&cluster_id, false)?;
        store.read_epochs_raised()?;
        Ok(store)
    }

    /// Makes what is missing and clears what a cut-off write has left; changes no sound file.
    pub fn prepare(&self, cluster_id: &str, shared: bool) -> io::Result<()> {
        let topics = self.topics();
        fs::create_dir_all(&topics).map_err(|e| at(&topics, "cannot be made", e))?;
        for directory in [&self.directory, &topics] {
            remove_leftovers(directory)?;
            sync_directory(directory)?;
        }
        if let Some(log_dir) = self.directory.parent() {
            sync_directory(log_dir)?;
        }
        if self.cluster().is_ok_and(|stored| stored.cluster_id == cluster_id && stored.shared == shared) {
            return Ok(());
        }
        let record = ClusterRecord { format: FORMAT, cluster_id: cluster_id.to_owned(), shared };
        replace(&self.cluster_file(), "cluster", &record)
    }

    /// 22 characters, as Kafka makes them.
    pub fn cluster_id(&self) -> io::Result<String> {
        self.cluster().map(|record| record.cluster_id)
    }

    /// The directory is that of one of several brokers, as far as it can be told.
    pub fn is_shared(&self) -> bool {
        self.cluster().is_ok_and(|record| record.shared)
    }

    fn cluster(&self) -> io::Result<ClusterRecord> {
        let file = self.cluster_file();
        let record: ClusterRecord = read(&file)?;
        check_format(&file, record.format)?;
        Ok(record)
    }

    /// Everything stored, with the image of a one-broker cluster. Reads only. A
    /// damaged topic is withheld, and the others are served; what else is damaged is
    /// said and made good by the start.
    pub fn load(&self, config: &ServerConfig) -> io::Result<Stored> {
        let this = BrokerId(config.broker_id);
        let mut stored = self.nothing(config);
        match self.cluster_id() {
            Ok(id) => stored.image.cluster_id = id,
            Err(e) if matches!(e.kind(), ErrorKind::InvalidData | ErrorKind::NotFound) => {
                stored.cluster_lost = Some(e.to_string());
            }
            Err(e) => return Err(e),
        }
        self.load_directories(&mut stored);
        let dynamic = DynamicOptions {
            cluster: self.stored_options(OptionsOf::AllBrokers)?,
            broker: self.stored_options(OptionsOf::Broker)?,
        };
        let settings = (!dynamic.is_empty()).then(|| config.following(dynamic));
        let defaults = settings.as_ref().map_or(&config.topic_defaults, |settings| &settings.topic_defaults).clone();
        stored.image.settings = settings;
        stored.image.quotas = Arc::new(ClientQuotas::new(&self.stored_quotas()?));
        stored.image.groups = Arc::new(GroupOptions::new(self.stored_groups()?));
        let topics = self.topics();
        let entries = match fs::read_dir(&topics) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(stored),
            entries => entries.map_err(|e| at(&topics, "cannot be read", e))?,
        };
        let mut paths = entries.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
        paths.sort();
        for path in paths {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("json") => take_topic(self, &mut stored, &path, &defaults, this)?,
                Some("deleted") => match load_topic(self, &path, &defaults) {
                    Ok(topic) => stored.deleted.push(topic),
                    Err(error) => tracing::warn!("directories of a deleted topic may stay: {error}"),
                },
                _ => {}
            }
        }
        let newest =
            stored.image.topics().flat_map(|t| &t.partitions).filter_map(|p| p.home).map(|h| h.since_run).max();
        stored.run = stored.run.max(newest.unwrap_or(0));
        Ok(stored)
    }

    /// State that a first start goes on with.
    pub fn nothing(&self, config: &ServerConfig) -> Stored {
        let this = BrokerId(config.broker_id);
        let endpoint = |listener: &ListenerConfig| {
            let Advertised { host, port } = listener.advertised.clone()?;
            Some(EndpointImage { listener: listener.name.clone(), host, port })
        };
        let endpoints = config.listeners.iter().filter_map(endpoint).collect();
        let broker = BrokerImage::alone(this, endpoints, config.broker_rack.clone());
        let mut stored = Stored::default();
        stored.image.controller = Some(this);
        stored.image.brokers = vec![broker];
        stored
    }

    /// Without the file, directories are known by their `meta.properties` alone.
    fn load_directories(&self, stored: &mut Stored) {
        let file = self.directories_file();
        let record: io::Result<DirectoriesRecord> = read(&file);
        match record.and_then(|record| check_format(&file, record.format).map(|()| record)) {
            Ok(record) => {
                stored.run = record.run;
                let known = |d: DirectoryRecord| Some(KnownDirectory { id: DirectoryId::parse(&d.id)?, path: d.path });
                stored.directories = record.directories.into_iter().filter_map(known).collect();
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => tracing::warn!("written anew from the directories that are there: {e}"),
        }
    }

    /// Durable when it returns.
    pub fn put_directories(&self, run: u64, directories: &[KnownDirectory]) -> io::Result<()> {
        let record = |known: &KnownDirectory| DirectoryRecord { id: known.id.to_string(), path: known.path.clone() };
        let directories = directories.iter().map(record).collect();
        replace(&self.directories_file(), "directories", &DirectoriesRecord { format: FORMAT, run, directories })
    }

    /// Without the file there are none. A damaged one is an error: what it kept
    /// from deletion would go.
    fn stored_options(&self, of: OptionsOf) -> io::Result<BTreeMap<String, String>> {
        let file = self.options_file(of);
        let record: OptionsRecord = match read(&file) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(e) if e.kind() == ErrorKind::InvalidData => {
                let advice = "or move it away to go on with the options of the broker's file alone";
                return Err(io::Error::new(ErrorKind::InvalidData, format!("{e}; {advice}")));
            }
            record => record?,
        };
        check_format(&file, record.format)?;
        Ok(record.options)
    }

    /// Durable when it returns.
    pub(super) fn put_options(&self, of: OptionsOf, options: &BTreeMap<String, String>) -> io::Result<()> {
        let record = OptionsRecord { format: FORMAT, options: options.clone() };
        replace(&self.options_file(of), "broker-options", &record)
    }

    fn options_file(&self, of: OptionsOf) -> PathBuf {
        self.directory.join(match of {
            OptionsOf::Broker => "broker-options.json",
            OptionsOf::AllBrokers => "broker-options.default.json",
        })
    }

    /// Durable when it returns.
    pub fn put_topic(&self, topic: &TopicImage) -> io::Result<()> {
        self.put_topics(&[topic]).into_iter().collect()
    }

    /// Writes the topic's file, synced, but not in its place yet.
    pub(super) fn stage_topic(&self, topic: &TopicImage) -> io::Result<Staged> {
        let ids = |brokers: &[BrokerId]| brokers.iter().map(|broker| broker.0).collect();
        let partition = |partition: &PartitionImage| PartitionRecord {
            leader: partition.leader.map(|leader| leader.0),
            leader_epoch: partition.leader_epoch.0,
            replicas: ids(&partition.replicas),
            isr: ids(&partition.isr),
            directory: partition.home.map(|home| home.directory.to_string()),
            since_run: partition.home.map(|home| home.since_run),
        };
        let record = TopicRecord {
            format: FORMAT,
            name: topic.name.to_string(),
            id: topic.id.to_string(),
            overrides: topic.overrides.clone(),
            partitions: topic.partitions.iter().map(partition).collect(),
            epochs_raised: self.epochs_raised,
        };
        // Topic names can fill a file name up to the suffix, so the temporary one goes by id.
        stage(&self.topic_file(&topic.name)?, &topic.id.to_string(), &record)
    }

    /// Turns the topic into a deleted one, whose record stays until
    /// [`forget_deleted`](Self::forget_deleted): a start then tells its directories from those of a
    /// topic whose file is lost. Durable when it returns; a topic that is not there is no error.
    pub fn remove_topic(&self, name: &str, id: Uuid) -> io::Result<()> {
        self.remove_topics(&[(name, id)]).into_iter().collect()
    }

    /// Marks the topic as deleted. Not durable before the directory is synced.
    pub(super) fn mark_deleted(&self, name: &str, id: Uuid) -> io::Result<()> {
        let file = self.topic_file(name)?;
        match fs::rename(&file, self.deleted_file(id)) {
            Ok(()) => Ok(()),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(()),
            Err(e) => Err(at(&file, "cannot be marked as deleted", e)),
        }
    }

    /// Every directory of the deleted topic is gone, or on its way out under a name that says so.
    /// Not synced: a record too many is cleared at the next start.
    pub fn forget_deleted(&self, id: Uuid) -> io::Result<()> {
        let file = self.deleted_file(id);
        match fs::remove_file(&file) {
            Err(e) if e.kind() != ErrorKind::NotFound => Err(at(&file, "cannot be removed", e)),
            _ => Ok(()),
        }
    }

    /// Reserves `count` producer ids that no one ever got before, also across restarts;
    /// returns the first. `seen` is the largest id known from the logs, -1 for none: where
    /// both copies of the counter are lost, or older than that, ids go on far behind it.
    /// Shards may call this at the same time.
    pub fn reserve_producer_ids(&self, count: u32, seen: i64) -> io::Result<i64> {
        let lock_file = self.directory.join("lock");
        let lock = File::create(&lock_file).map_err(|e| at(&lock_file, "cannot be opened", e))?;
        // Two openings of the file exclude each other, also within a process; closing it lets go.
        lock.lock().map_err(|e| at(&lock_file, "cannot be locked", e))?;
        let copies = PRODUCER_ID_FILES.map(|name| read_producer_ids(&self.directory.join(name)));
        let first = next_producer_id(copies, seen);
        let next =
            first.checked_add(i64::from(count)).ok_or_else(|| io::Error::other("there are no producer ids left"))?;
        self.put_producer_ids(next)?;
        Ok(first)
    }

    /// The first producer id not given away, as far as a copy of the count can be read.
    pub fn stored_producer_ids(&self) -> Option<i64> {
        PRODUCER_ID_FILES.iter().filter_map(|name| read_producer_ids(&self.directory.join(name)).ok()).max()
    }

    /// Nothing is given away before both copies are written.
    pub(super) fn put_producer_ids(&self, next: i64) -> io::Result<()> {
        PRODUCER_ID_FILES.iter().try_for_each(|name| {
            replace(&self.directory.join(name), "producer-ids", &ProducerIdRecord { format: FORMAT, next })
        })
    }

    /// Nothing could be given away with something in their place that cannot be replaced.
    pub fn check_producer_id_files(&self) -> Result<(), String> {
        let directory = PRODUCER_ID_FILES.iter().map(|name| self.directory.join(name)).find(|path| path.is_dir());
        directory.map_or(Ok(()), |path| {
            Err(format!("{} is a directory where a file belongs: move it away and start again", path.display()))
        })
    }

    /// Begins the count on a first start, so that a missing file is known to be lost.
    pub fn begin_producer_ids(&self) -> io::Result<()> {
        self.put_producer_ids(0)
    }

    /// Puts the files of all topics aside, once they are kept elsewhere. Returns where they are
    /// now; `None`: there were none. Durable when it returns.
    pub fn put_topics_aside(&self) -> io::Result<Option<PathBuf>> {
        let (topics, aside) = (self.topics(), self.directory.join(format!("topics.{ADOPTED}")));
        if !topics.exists() {
            return Ok(None);
        }
        fs::rename(&topics, &aside)
            .map_err(|e| at(&topics, &format!("cannot be renamed to {}", aside.display()), e))?;
        File::open(&self.directory)
            .and_then(|dir| dir.sync_all())
            .map_err(|e| at(&self.directory, "cannot be synced", e))?;
        Ok(Some(aside))
    }

    pub(super) fn topics(&self) -> PathBuf {
        self.directory.join("topics")
    }

    fn deleted_file(&self, id: Uuid) -> PathBuf {
        self.topics().join(format!("{id}.deleted"))
    }

    fn directories_file(&self) -> PathBuf {
        self.directory.join("directories.json")
    }

    fn cluster_file(&self) -> PathBuf {
        self.directory.join("cluster.json")
    }

    /// A name that is no topic's never becomes part of a path.
    fn topic_file(&self, name: &str) -> io::Result<PathBuf> {
        super::controller::check_topic_name(name).map_err(|e| io::Error::new(ErrorKind::InvalidInput, e.message))?;
        Ok(self.topics().join(format!("{name}.json")))
    }
}

fn read_producer_ids(path: &Path) -> Result<i64, String> {
    let record: ProducerIdRecord = read(path).map_err(|e| e.to_string())?;
    check_format(path, record.format).map_err(|e| e.to_string())?;
    if record.next < 0 {
        return Err(damaged(path, &format!("it says that {} is the next producer id", record.next)).to_string());
    }
    Ok(record.next)
}

/// The first id to give away next, from both copies of the counter and the largest id in the logs.
fn next_producer_id(copies: [Result<i64, String>; 2], seen: i64) -> i64 {
    let stored = copies.iter().flatten().copied().max();
    match stored {
        Some(next) if next > seen => {
            // Older releases kept one copy.
            if let [Err(why), Ok(_)] = &copies {
                tracing::warn!("producer ids go on at {next}, by the copy of their count: {why}");
            }
            next
        }
        _ => {
            let next = seen.max(stored.unwrap_or(0)).max(0) + LOST_IDS;
            let why: Vec<_> = copies.iter().filter_map(|copy| copy.as_ref().err().map(String::as_str)).collect();
            let why = if why.is_empty() { "the count is older than the logs".to_owned() } else { why.join("; ") };
            tracing::error!("producer ids go on at {next}, beyond any that can have been given away: {why}");
            next
        }
    }
}

/// Adds the topic in `path` to the image, or its name to those withheld.
fn take_topic(
    store: &LocalStore,
    stored: &mut Stored,
    path: &Path,
    defaults: &TopicConfig,
    this: BrokerId,
) -> io::Result<()> {
    let loaded = load_topic(store, path, defaults).and_then(|topic| match stored.image.topic_by_id(topic.id) {
        Some(other) => Err(damaged(path, &format!("its topic id is also that of topic {}", other.name))),
        None => Ok(topic),
    });
    match loaded {
        Ok(topic) if topic.partitions.iter().any(|partition| !partition.replicas.contains(&this)) => {
            let what = "its partitions are not all on broker";
            let mend = "start with the node.id it was written under";
            Err(io::Error::new(ErrorKind::InvalidData, format!("{}: {what} {this}; {mend}", path.display())))
        }
        Ok(topic) => {
            stored.image.put_topic(topic);
            Ok(())
        }
        Err(error) => {
            let name = path.file_stem().unwrap_or_default().to_string_lossy();
            tracing::error!("topic {name} is withheld and its records stay where they are: {error}");
            stored.image.withhold(&name, error.to_string());
            Ok(())
        }
    }
}

fn load_topic(store: &LocalStore, path: &Path, defaults: &TopicConfig) -> io::Result<TopicImage> {
    let record: TopicRecord = read(path)?;
    check_format(path, record.format)?;
    let stem = path.file_stem().unwrap_or_default();
    // The file of a deleted topic goes by its id.
    if (stem != record.name.as_str() && stem != record.id.as_str()) || record.partitions.is_empty() {
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
        leader_epoch: LeaderEpoch(store.current_epoch(partition.leader_epoch, record.epochs_raised)),
        replicas: ids(partition.replicas),
        isr: ids(partition.isr),
        home: partition
            .directory
            .as_deref()
            .and_then(DirectoryId::parse)
            .map(|directory| PartitionHome { directory, since_run: partition.since_run.unwrap_or(0) }),
        ..PartitionImage::default()
    };
    Ok(TopicImage {
        name: record.name.into(),
        id,
        partitions: record.partitions.into_iter().map(partition).collect(),
        overrides: record.overrides,
        config: config.into(),
    })
}

/// A file that is written and synced under its temporary name.
pub(super) struct Staged {
    temporary: PathBuf,
    path: PathBuf,
}

impl Staged {
    /// Puts it into its place, in one step; durable once the directory is synced.
    pub(super) fn place(&self) -> io::Result<()> {
        fs::rename(&self.temporary, &self.path).map_err(|e| at(&self.path, "cannot be replaced", e))
    }
}

/// Writes `record` to `path` so that a crash leaves either the old file or the new one.
pub(super) fn replace(path: &Path, temporary: &str, record: &impl Serialize) -> io::Result<()> {
    stage(path, temporary, record)?.place()?;
    path.parent().map_or(Ok(()), sync_directory)
}

fn stage(path: &Path, temporary: &str, record: &impl Serialize) -> io::Result<Staged> {
    let Some(directory) = path.parent() else {
        return Err(io::Error::new(ErrorKind::InvalidInput, format!("{}: has no directory", path.display())));
    };
    stage_bytes(path, &directory.join(format!("{temporary}.tmp")), encode(record)?.as_bytes())
}

/// The text of a file: one line of JSON and one with its checksum.
pub(super) fn encode(record: &impl Serialize) -> io::Result<String> {
    let mut text = serde_json::to_string(record).map_err(io::Error::other)?;
    text.push_str(&format!("\n{:08x}\n", crc32c::crc32c(text.as_bytes())));
    Ok(text)
}

fn stage_bytes(path: &Path, temporary: &Path, bytes: &[u8]) -> io::Result<Staged> {
    let written = faults::check_small(path).and_then(|()| File::create(temporary)).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    if written.is_err() {
        // On a full disk it holds the room that the next try needs.
        let _ = fs::remove_file(temporary);
    }
    written.map_err(|e| at(temporary, "cannot be written", e))?;
    Ok(Staged { temporary: temporary.to_path_buf(), path: path.to_path_buf() })
}

pub(super) fn replace_bytes(path: &Path, temporary: &Path, bytes: &[u8]) -> io::Result<()> {
    stage_bytes(path, temporary, bytes)?.place()
}

pub(super) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<T> {
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

pub(super) fn check_format(path: &Path, format: u32) -> io::Result<()> {
    if format == FORMAT {
        return Ok(());
    }
    let what = format!("{}: has format {format}; this version of Corelane reads {FORMAT}", path.display());
    Err(io::Error::new(ErrorKind::InvalidData, what))
}

pub(super) fn damaged(path: &Path, what: &str) -> io::Error {
    let advice = "restore it from a copy; what it describes stays as it is meanwhile";
    io::Error::new(ErrorKind::InvalidData, format!("{}: damaged: {what}; {advice}", path.display()))
}

pub(super) fn at(path: &Path, what: &str, error: io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{} {what}: {error}", path.display()))
}

pub(super) fn sync_directory(directory: &Path) -> io::Result<()> {
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

/// A random UUID in Kafka's spelling: URL-safe base64 without padding. A leading '-' would look
/// like an option on a command line, so Kafka never makes one.
pub fn new_cluster_id() -> String {
    loop {
        let id = encode_id(Uuid::new_v4());
        if !id.starts_with('-') {
            return id;
        }
    }
}

#[cfg(test)]
mod tests;
