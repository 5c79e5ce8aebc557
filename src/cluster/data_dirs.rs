//! The data directories at a start: looked at, judged, opened and locked, and only then written to.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::directory_id::DirectoryId;
use super::image::MetadataImage;
use super::judge::{Home, LEFT, OfflineDir, State, Usable, Verdict, check_home, find_home, judge};
use super::look::{CLEAN_MARK, Contents, MovedPartition, Seen, SeenPartition, look};
use super::meta_properties::MetaProperties;
use super::metadata_store::{KnownDirectory, LocalStore, OtherDirectories, Stored, new_cluster_id};
use super::placement::{Assignment, Opened, Placement, Promotion, Stray, assign, unclaimed_line};
use crate::config::ServerConfig;
use crate::model::{BrokerId, PartitionId};
use crate::runtime::probe::{DataDir, OpenError, open_data_dir};
use crate::storage::{DELETED_SUFFIX, FUTURE_SUFFIX, MOVED_SUFFIX, aside_name};

/// A data directory in use.
#[derive(Debug)]
pub struct HeldDir {
    pub id: DirectoryId,
    /// As configured.
    pub path: PathBuf,
    /// Nothing was in it before this start.
    pub fresh: bool,
    /// Holds the lock.
    pub held: DataDir,
}

/// Findings that a start goes on with.
#[derive(Debug)]
pub struct DataDirs {
    pub held: Vec<HeldDir>,
    pub store: LocalStore,
    pub image: MetadataImage,
    pub placement: Placement,
    /// Directories of replicas that this broker has no longer, where brokers share the metadata.
    pub strays: Vec<Stray>,
    /// Every directory of `log.dirs` is in use.
    pub all: bool,
}

/// Opens the directories of `log.dirs`. One that fails stays offline with its partitions; the start
/// ends where the directory with the metadata fails, or where one belongs to somebody else.
/// `shared`: the metadata that brokers share; without it the first directory has it. With it
/// another directory takes the place of one that fails. Blocks.
pub fn open(config: &ServerConfig, shared: Option<MetadataImage>) -> Result<DataDirs, String> {
    let mut seen = look(&config.log_dirs);
    loop {
        match open_seen(config, &seen, shared.clone()) {
            Ok(dirs) => return Ok(dirs),
            Err(Failed::Start(why)) => return Err(why),
            Err(Failed::Home(at, why)) => {
                let others = seen.iter().enumerate().any(|(other, dir)| other != at && dir.used().is_some());
                let Some(dir) = seen.get_mut(at).filter(|_| shared.is_some() && others) else { return Err(why) };
                dir.contents = Contents::Failed(why);
            }
        }
    }
}

/// Why directories are not opened.
enum Failed {
    Start(String),
    /// The directory with the metadata, at this place, cannot be used.
    Home(usize, String),
}

impl From<String> for Failed {
    fn from(why: String) -> Failed {
        Failed::Start(why)
    }
}

fn open_seen(config: &ServerConfig, seen: &[Seen], shared: Option<MetadataImage>) -> Result<DataDirs, Failed> {
    let sharing = shared.as_ref().map(|shared| (config.broker_id, shared.cluster_id.as_str()));
    let home = find_home(seen, sharing)?;
    let at = match home {
        Home::Held(at) | Home::Anew(at) => at,
        Home::First => 0,
    };
    let lost = |error: io::Error| match error.kind() {
        // A person has to look at what stands there.
        io::ErrorKind::InvalidData => Failed::Start(error.to_string()),
        _ => Failed::Home(at, error.to_string()),
    };
    let home_dir = seen.get(at).ok_or_else(|| "log.dirs names no directory".to_owned())?;
    check_home(home_dir, config.broker_id)?;
    let home_path = home_dir.path.clone();
    let mut store = LocalStore::at(&home_path);
    store.read_epochs_raised().map_err(lost)?;
    store.check_producer_id_files()?;
    let mut stored = match home {
        Home::Held(_) => store.load(config).map_err(lost)?,
        Home::First | Home::Anew(_) => store.nothing(config),
    };
    let is_new = !matches!(home, Home::Held(_));
    match shared {
        Some(shared) => share(&mut stored, &home_path, shared, config.broker_id, is_new)?,
        None if store.is_shared() => {
            return Err(Failed::Start(format!(
                "log.dirs: {} belongs to a broker of a cluster, whose metadata is in ZooKeeper: set zookeeper.connect, or name \
                 empty directories for a broker that is alone. {LEFT}",
                home_path.display()
            )));
        }
        None => {}
    }
    let verdict = judge(seen, home, &stored, config.broker_id, &mut DirectoryId::random)?;
    if let Some(why) = stored.cluster_lost.as_ref().filter(|_| !is_new) {
        tracing::warn!("the cluster's id is taken from meta.properties: {why}");
    }
    if stored.shared_by.is_none() {
        stored.image.cluster_id = verdict.cluster_id.clone().unwrap_or_else(new_cluster_id);
    }
    let cluster = (stored.image.cluster_id.as_str(), stored.shared_by.is_some());
    let taken = take(&verdict, &home_path, &store, cluster, config.broker_id);
    let (held, offline) = taken.map_err(|why| match why {
        NotTaken::Home(why) => Failed::Home(at, why),
        NotTaken::Refused(why) => Failed::Start(why),
    })?;
    if let Home::Anew(_) = home {
        tracing::warn!(
            "{}: the directory with this broker's corelane-metadata is not there: it is made anew here, as the cluster's metadata is in \
             ZooKeeper",
            home_path.display()
        );
    }
    if is_new {
        store.begin_producer_ids().map_err(|e| e.to_string())?;
    }
    if let Err(error) = store.keep_epochs_file() {
        tracing::warn!("a start after a crash will need room to raise leader epochs: {error}");
    }
    if stored.shared_by.is_some() {
        stored.others = other_directories(&stored.directories, &held, &offline);
    }
    note_directories(&mut stored, &held, &offline);
    let settings = stored.image.settings.clone();
    let settings = settings.as_deref().unwrap_or(config);
    let assignment = settle(&mut stored, settings, seen, &held, &offline, &store);
    let (all, strays) = (offline.is_empty(), assignment.strays);
    Ok(DataDirs { held, store, image: stored.image, placement: assignment.placement, strays, all })
}

/// Puts the shared metadata in the place of the stored.
fn share(stored: &mut Stored, home: &Path, shared: MetadataImage, node_id: i32, is_first: bool) -> Result<(), String> {
    let (ours, theirs) = (&stored.image.cluster_id, &shared.cluster_id);
    let knows = !is_first && stored.cluster_lost.is_none();
    if stored.image.topics().next().is_some() || !stored.image.all_withheld().is_empty() {
        return Err(format!(
            "log.dirs: {} holds the metadata of a broker that is alone, with topics: run `corelane cluster adopt FILE` first \
             if it is to become the first of a cluster, leave zookeeper.connect out, or name empty directories for another \
             broker of the cluster. {LEFT}",
            home.display()
        ));
    }
    if knows && ours != theirs {
        return Err(format!(
            "log.dirs: {} belongs to cluster {ours}, and the cluster of zookeeper.connect is {theirs}: see that \
             zookeeper.connect names the right servers and the right chroot. {LEFT}",
            home.display()
        ));
    }
    stored.image = shared;
    stored.cluster_lost = None;
    stored.shared_by = Some(BrokerId(node_id));
    Ok(())
}

/// Why directories are not taken.
enum NotTaken {
    Refused(String),
    /// The one with the metadata cannot be used.
    Home(String),
}

/// Locks and tries out each usable directory, then writes what it needs to be known by.
fn take(
    verdict: &Verdict,
    home: &Path,
    store: &LocalStore,
    (cluster_id, shared): (&str, bool),
    node_id: i32,
) -> Result<(Vec<HeldDir>, Vec<OfflineDir>), NotTaken> {
    let mut offline = verdict.offline.clone();
    let mut held = Vec::new();
    let mut lose = |usable: &Usable, reason: String| {
        if usable.path == home {
            return Err(NotTaken::Home(format!(
                "{reason} (the broker's metadata is in this directory: nothing can be served without it)"
            )));
        }
        offline.push(OfflineDir { path: usable.path.clone(), id: Some(usable.id), reason });
        Ok(())
    };
    // Every lock first: with one that is held by another broker nothing is written anywhere.
    for usable in &verdict.usable {
        match open_data_dir(&usable.path) {
            Ok(dir) => held.push((usable, dir)),
            Err(OpenError::Refused(error)) => return Err(NotTaken::Refused(error.to_string())),
            Err(OpenError::Failed(error)) => lose(usable, error.to_string())?,
        }
    }
    store.prepare(cluster_id, shared).map_err(|e| NotTaken::Home(e.to_string()))?;
    let mut ready = Vec::new();
    for (usable, dir) in held {
        if let State::Mend(why) = &usable.state {
            tracing::info!("{}: meta.properties is written anew: {why}", usable.path.display());
        }
        if usable.state != State::Sound {
            let directory_id = Some(usable.id);
            let properties = MetaProperties { node_id, cluster_id: cluster_id.to_owned(), directory_id };
            if let Err(error) = properties.write(&usable.path) {
                lose(usable, error.to_string())?;
                continue;
            }
        }
        let fresh = usable.state == State::Fresh;
        ready.push(HeldDir { id: usable.id, path: usable.path.clone(), fresh, held: dir });
    }
    Ok((ready, offline))
}

fn other_directories(known: &[KnownDirectory], held: &[HeldDir], offline: &[OfflineDir]) -> OtherDirectories {
    let is_there = |known: &&KnownDirectory| {
        held.iter().any(|dir| dir.id == known.id)
            || offline.iter().any(|dir| dir.id == Some(known.id) || dir.path == known.path)
    };
    let all_fresh = held.iter().all(|dir| dir.fresh);
    OtherDirectories {
        gone: known.iter().filter(|known| !is_there(known)).cloned().collect(),
        all_fresh,
        list_lost: known.is_empty() && !all_fresh,
    }
}

/// Notes where each directory is now; one whose place another has taken is forgotten
/// once no partition is in it.
fn note_directories(stored: &mut Stored, held: &[HeldDir], offline: &[OfflineDir]) {
    let mut known: Vec<KnownDirectory> =
        held.iter().map(|dir| KnownDirectory { id: dir.id, path: dir.held.path.clone() }).collect();
    for before in &stored.directories {
        let id = before.id;
        let replaced = known.iter().any(|now| now.path == before.path);
        let waits = offline.iter().any(|dir| dir.id == Some(id));
        let deleted = stored.deleted.iter().flat_map(|topic| &topic.partitions);
        let needed =
            waits || stored.holds(id) || !replaced && deleted.filter_map(|p| p.home).any(|h| h.directory == id);
        if needed && known.iter().all(|now| now.id != id) {
            known.push(before.clone());
        }
    }
    stored.directories = known;
}

/// Finds every partition's place, makes durable what has changed, and says what is amiss.
fn settle(
    stored: &mut Stored,
    settings: &ServerConfig,
    seen: &[Seen],
    held: &[HeldDir],
    offline: &[OfflineDir],
    store: &LocalStore,
) -> Assignment {
    let mut assignment = {
        let opened: Vec<Opened> = held
            .iter()
            .map(|dir| Opened {
                id: dir.id,
                path: dir.path.clone(),
                partitions: partitions(seen, &dir.path),
                moved: copies(seen, &dir.path).0,
                future: copies(seen, &dir.path).1,
                clean: dir.path.join(CLEAN_MARK).exists(),
            })
            .collect();
        assign(stored, &opened, offline, settings)
    };
    for copy in std::mem::take(&mut assignment.promoted) {
        if let Err(error) = promote(&copy) {
            let why = format!("{}: its copy {} cannot take its name: {error}", copy.to.display(), copy.from.display());
            assignment.placement.offline.insert(copy.partition, why.into());
        }
    }
    if assignment.waits_for_gone {
        let known: Vec<DirectoryId> = stored.directories.iter().map(|dir| dir.id).collect();
        let gone = std::mem::take(&mut stored.others.gone);
        stored.directories.extend(gone.into_iter().filter(|dir| !known.contains(&dir.id)));
    }
    // A file that cannot be written now is made again at the next start.
    if let Err(error) = store.put_directories(assignment.placement.run, &stored.directories) {
        tracing::warn!("the list of data directories stays as it was: {error}");
    }
    for topic in std::mem::take(&mut assignment.changed) {
        if stored.shared_by.is_none()
            && let Err(error) = store.put_topic(&topic)
        {
            tracing::warn!(topic = %topic.name, "the data directories of its partitions are not noted: {error}");
        }
        stored.image.put_topic(topic);
    }
    for line in offline_lines(&stored.image, &assignment.placement, offline) {
        tracing::error!("{line}");
    }
    if !assignment.emptied.is_empty() {
        let names: Vec<String> = assignment.emptied.iter().map(|id| partition_name(&stored.image, *id)).collect();
        tracing::error!(
            "{} have their only replica here, and all data directories are new: they come back empty once this broker takes part",
            counted(&names)
        );
    }
    for line in seen.iter().filter_map(set_aside_line) {
        tracing::warn!("{line}");
    }
    for remark in &assignment.remarks {
        tracing::warn!("{remark}");
    }
    for dir in &assignment.doomed {
        put_away(dir);
    }
    for id in &assignment.forgotten {
        if let Err(error) = store.forget_deleted(*id) {
            tracing::warn!("{error}");
        }
    }
    if stored.shared_by.is_some() {
        return assignment;
    }
    for (topic, example) in &assignment.unclaimed {
        let line = unclaimed_line(&stored.image, topic, example);
        if stored.image.withheld(topic).is_none() {
            tracing::error!("{line}");
        }
        if stored.image.topic(topic).is_none() {
            stored.image.withhold(topic, line);
        }
    }
    assignment
}

/// Partitions named in a line about those that are offline.
const NAMED: usize = 8;

/// One line for each directory that is offline, with its partitions, and for each other
/// reason why partitions are.
fn offline_lines(image: &MetadataImage, placement: &Placement, dirs: &[OfflineDir]) -> Vec<String> {
    let mut by_reason: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (partition, why) in &placement.offline {
        by_reason.entry(why).or_default().push(partition_name(image, *partition));
    }
    let mut lines = Vec::new();
    for dir in dirs {
        lines.push(match by_reason.remove(dir.reason.as_str()) {
            Some(names) => format!("a data directory is offline with {}: {}", counted(&names), dir.reason),
            None => format!("a data directory is offline: {}", dir.reason),
        });
    }
    lines.extend(by_reason.iter().map(|(why, names)| format!("{} stay offline: {why}", counted(names))));
    lines
}

fn partition_name(image: &MetadataImage, partition: PartitionId) -> String {
    let topic = image.topic_by_id(partition.topic).map_or("?", |topic| &topic.name);
    format!("{topic}-{}", partition.index)
}

/// How many partitions these are, and the names of the first.
fn counted(names: &[String]) -> String {
    let more = if names.len() > NAMED { ", ..." } else { "" };
    let named = names.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
    format!("{} partition(s) ({named}{more})", names.len())
}

/// A line about directories that earlier starts have set aside; nobody else
/// would tell of them again.
fn set_aside_line(seen: &Seen) -> Option<String> {
    let Contents::Used(used) = &seen.contents else { return None };
    let mut names = used.set_aside.clone();
    names.sort();
    let first = names.first()?;
    let more = if names.len() > 1 { ", ..." } else { "" };
    Some(format!(
        "{}: {} director{} that no topic claims ({first}{more}), set aside by earlier starts: move them away, or remove them when \
         their records are not needed",
        seen.path.display(),
        names.len(),
        if names.len() > 1 { "ies" } else { "y" },
    ))
}

fn partitions<'a>(seen: &'a [Seen], path: &Path) -> &'a [SeenPartition] {
    let found = seen.iter().find(|dir| dir.path == path).map(|dir| &dir.contents);
    match found {
        Some(Contents::Used(used)) => &used.partitions,
        _ => &[],
    }
}

/// Copies of partitions: those that are whole, and those that are not.
fn copies<'a>(seen: &'a [Seen], path: &Path) -> (&'a [MovedPartition], &'a [String]) {
    match seen.iter().find(|dir| dir.path == path).map(|dir| &dir.contents) {
        Some(Contents::Used(used)) => (&used.moved, &used.future),
        _ => (&[], &[]),
    }
}

/// Gives a copy its partition's name.
fn promote(copy: &Promotion) -> io::Result<()> {
    fs::rename(&copy.from, &copy.to)?;
    fs::File::open(copy.to.parent().unwrap_or(&copy.to))?.sync_all()
}

/// Renames the directory of a deleted topic, or a copy that is not needed, to a name
/// under which it is removed.
fn put_away(dir: &Path) {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let tag = uuid::Uuid::new_v4().simple().to_string();
    let copy = name.strip_suffix(MOVED_SUFFIX).or_else(|| name.strip_suffix(FUTURE_SUFFIX));
    let (why, to) = match copy.and_then(|copy| copy.rsplit_once('.')) {
        Some((of, _)) => ("the partition is in another data directory", aside_name(of, &tag, DELETED_SUFFIX)),
        None => ("its topic was deleted", aside_name(&name, &tag, DELETED_SUFFIX)),
    };
    match fs::rename(dir, dir.with_file_name(to)) {
        Ok(()) => tracing::info!("{}: {why}: to be removed", dir.display()),
        Err(error) => tracing::warn!("{}: {why}, but it cannot be put away: {error}", dir.display()),
    }
}

#[cfg(test)]
#[path = "data_dirs_tests.rs"]
mod tests;
