//! The data directories at a start: looked at, judged, opened and locked, and only then written to.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::directory_id::DirectoryId;
use super::image::MetadataImage;
use super::judge::{Home, LEFT, OfflineDir, State, Usable, Verdict, check_home, find_home, judge};
use super::look::{CLEAN_MARK, Contents, Seen, SeenPartition, look};
use super::meta_properties::MetaProperties;
use super::metadata_store::{KnownDirectory, LocalStore, Stored, new_cluster_id};
use super::placement::{Assignment, Opened, Placement, Stray, assign, unclaimed_line};
use crate::config::ServerConfig;
use crate::model::BrokerId;
use crate::runtime::probe::{DataDir, OpenError, open_data_dir};
use crate::storage::{DELETED_SUFFIX, aside_name};

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

/// Opens the directories of `log.dirs`. One that fails stays offline with its partitions; the start ends where the
/// directory with the metadata fails, or where one belongs to somebody else. `shared`: the metadata that brokers share;
/// without it the first directory has it. Blocks.
pub fn open(config: &ServerConfig, shared: Option<MetadataImage>) -> Result<DataDirs, String> {
    let seen = look(&config.log_dirs);
    let home = find_home(&seen)?;
    let at = match home {
        Home::Held(at) => at,
        Home::First => 0,
    };
    let home_dir = seen.get(at).ok_or("log.dirs names no directory")?;
    check_home(home_dir, config.broker_id)?;
    let home_path = home_dir.path.clone();
    let mut store = LocalStore::at(&home_path);
    store.read_epochs_raised().map_err(|e| e.to_string())?;
    store.check_producer_id_files()?;
    let mut stored = match home {
        Home::Held(_) => store.load(config).map_err(|e| e.to_string())?,
        Home::First => store.nothing(config),
    };
    match shared {
        Some(shared) => share(&mut stored, &home_path, shared, config.broker_id, home == Home::First)?,
        None if store.is_shared() => {
            return Err(format!(
                "log.dirs: {} belongs to a broker of a cluster, whose metadata is in ZooKeeper: set zookeeper.connect, or name \
                 empty directories for a broker that is alone. {LEFT}",
                home_path.display()
            ));
        }
        None => {}
    }
    let first_start = home == Home::First;
    let verdict = judge(&seen, home, &stored, config.broker_id, &mut DirectoryId::random)?;
    if let Some(why) = stored.cluster_lost.as_ref().filter(|_| !first_start) {
        tracing::warn!("the cluster's id is taken from meta.properties: {why}");
    }
    if stored.shared_by.is_none() {
        stored.image.cluster_id = verdict.cluster_id.clone().unwrap_or_else(new_cluster_id);
    }
    let cluster = (stored.image.cluster_id.as_str(), stored.shared_by.is_some());
    let (held, offline) = take(&verdict, &home_path, &store, cluster, config.broker_id)?;
    if first_start {
        store.begin_producer_ids().map_err(|e| e.to_string())?;
    }
    if let Err(error) = store.keep_epochs_file() {
        tracing::warn!("a start after a crash will need room to raise leader epochs: {error}");
    }
    note_directories(&mut stored, &held, &offline);
    let assignment = settle(&mut stored, &seen, &held, &offline, &store);
    let (all, strays) = (offline.is_empty(), assignment.strays);
    Ok(DataDirs { held, store, image: stored.image, placement: assignment.placement, strays, all })
}

/// Puts the shared metadata in the place of the stored.
fn share(stored: &mut Stored, home: &Path, shared: MetadataImage, node_id: i32, is_first: bool) -> Result<(), String> {
    let (ours, theirs) = (&stored.image.cluster_id, &shared.cluster_id);
    let knows = !is_first && stored.cluster_lost.is_none();
    if stored.image.topics().next().is_some() || !stored.image.all_withheld().is_empty() {
        return Err(format!(
            "log.dirs: {} holds the metadata of a broker that is alone, with topics: leave zookeeper.connect out, or name \
             empty directories for a broker of the cluster. {LEFT}",
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

/// Locks and tries out each usable directory, then writes what it needs to be known by.
fn take(
    verdict: &Verdict,
    home: &Path,
    store: &LocalStore,
    (cluster_id, shared): (&str, bool),
    node_id: i32,
) -> Result<(Vec<HeldDir>, Vec<OfflineDir>), String> {
    let mut offline = verdict.offline.clone();
    let mut held = Vec::new();
    let mut lose = |usable: &Usable, reason: String| {
        if usable.path == home {
            return Err(format!(
                "{reason} (the broker's metadata is in this directory: nothing can be served without it)"
            ));
        }
        offline.push(OfflineDir { path: usable.path.clone(), id: Some(usable.id), reason });
        Ok(())
    };
    // Every lock first: with one that is held by another broker nothing is written anywhere.
    for usable in &verdict.usable {
        match open_data_dir(&usable.path) {
            Ok(dir) => held.push((usable, dir)),
            Err(OpenError::Refused(error)) => return Err(error.to_string()),
            Err(OpenError::Failed(error)) => lose(usable, error.to_string())?,
        }
    }
    store.prepare(cluster_id, shared).map_err(|e| e.to_string())?;
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

/// Notes where each directory is now; one whose place another has taken is forgotten once no partition is in it.
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
                clean: dir.path.join(CLEAN_MARK).exists(),
            })
            .collect();
        assign(stored, &opened, offline)
    };
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

/// One line for each directory that is offline, with its partitions, and for each other reason why partitions are.
fn offline_lines(image: &MetadataImage, placement: &Placement, dirs: &[OfflineDir]) -> Vec<String> {
    let mut by_reason: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (partition, why) in &placement.offline {
        let topic = image.topic_by_id(partition.topic).map_or("?", |topic| &topic.name);
        by_reason.entry(why).or_default().push(format!("{topic}-{}", partition.index));
    }
    let partitions = |names: &[String]| {
        let more = if names.len() > NAMED { ", ..." } else { "" };
        let named = names.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
        format!("{} partition(s) ({named}{more})", names.len())
    };
    let mut lines = Vec::new();
    for dir in dirs {
        lines.push(match by_reason.remove(dir.reason.as_str()) {
            Some(names) => format!("a data directory is offline with {}: {}", partitions(&names), dir.reason),
            None => format!("a data directory is offline: {}", dir.reason),
        });
    }
    lines.extend(by_reason.iter().map(|(why, names)| format!("{} stay offline: {why}", partitions(names))));
    lines
}

/// A line about directories that earlier starts have set aside; nobody else would tell of them again.
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

/// Renames the directory of a deleted topic to a name under which it is removed.
fn put_away(dir: &Path) {
    let name = dir.file_name().unwrap_or_default().to_string_lossy();
    let tag = uuid::Uuid::new_v4().simple().to_string();
    let to = dir.with_file_name(aside_name(&name, &tag, DELETED_SUFFIX));
    match fs::rename(dir, &to) {
        Ok(()) => tracing::info!("{}: its topic was deleted: to be removed", dir.display()),
        Err(error) => tracing::warn!("{}: its topic was deleted, but it cannot be put away: {error}", dir.display()),
    }
}

#[cfg(test)]
#[path = "data_dirs_tests.rs"]
mod tests;
