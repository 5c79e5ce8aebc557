//! Arenas at a start: what the last broker has left in them is taken over, then the places
//! of the new ones are made.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::cluster::{MetadataImage, Placement, TopicImage};
use crate::config::{Acknowledge, ServerConfig};
use crate::model::BrokerId;
use crate::runtime::probe;
use crate::storage::{self, Home, Identity, PartitionKey, Places};

/// systemd removes what a user has left there.
const SHARED_MEMORY: &str = "/dev/shm";

/// Writes what a killed broker had acknowledged from memory into the logs, before they are
/// opened, and makes the places for the arenas of `shards` shards. An error: acknowledged
/// records cannot be reached.
pub(super) fn take_over_arenas(
    config: &mut ServerConfig,
    shards: u16,
    image: &MetadataImage,
    placement: &Placement,
) -> Result<Vec<Places>, String> {
    // Without a boot id no arena is made, and none can be of this boot.
    let boot = probe::boot_id().unwrap_or_default();
    let configured = (!config.arena_dir.as_os_str().is_empty()).then(|| config.arena_dir.clone());
    let mut found = Vec::new();
    // All are found before anything is written.
    for (id, root) in &placement.directories {
        let identity = Identity { boot, cluster: image.cluster_id.clone(), directory: id.0 };
        let places = Places::find(root, identity, configured.as_deref()).map_err(|error| {
            tracing::error!("{error}");
            error.to_string()
        })?;
        found.push((root, places));
    }
    for (root, places) in &mut found {
        take_over(config, root, places, image, placement)?;
        forget_empty(places);
    }
    if let Some(dir) = configured.filter(|_| config.acknowledge == Acknowledge::Held) {
        make_places(config, &dir, shards, &mut found);
    }
    Ok(found.into_iter().map(|(_, places)| places).collect())
}

fn take_over(
    config: &mut ServerConfig,
    root: &Path,
    places: &Places,
    image: &MetadataImage,
    placement: &Placement,
) -> Result<(), String> {
    let node_id = config.broker_id;
    let find = |key: PartitionKey| match image.topic_by_id(key.topic) {
        // The replica has gone to another broker.
        Some(topic) if !is_here(topic, key.partition, BrokerId(node_id)) => Home::Gone,
        Some(topic) => placement.dir(topic, key.partition).map_or(Home::Away, Home::Here),
        // The topic of a damaged file has no id here.
        None if !image.all_withheld().is_empty() => Home::Away,
        None => Home::Gone,
    };
    for folder in places.folders() {
        let replayed = storage::replay(&folder, places.identity(), &find).map_err(|error| {
            format!(
                "{error} (it may hold records that the last broker acknowledged just before it was killed; where they do not matter, \
                 remove the file)"
            )
        })?;
        if replayed.batches > 0 {
            tracing::info!(
                "{}: the last broker was killed: {} batch(es), {} bytes of {} partition(s) taken over from its arena in {}",
                root.display(),
                replayed.batches,
                replayed.bytes,
                replayed.partitions,
                folder.display()
            );
        }
        config.not_taken_over.extend(replayed.failed);
    }
    Ok(())
}

fn is_here(topic: &TopicImage, index: i32, broker: BrokerId) -> bool {
    let partition = usize::try_from(index).ok().and_then(|index| topic.partitions.get(index));
    partition.is_some_and(|partition| partition.replicas.contains(&broker))
}

/// Makes a place in `dir` for the arenas of each data directory. Where that fails, batches are
/// acknowledged when they are written.
fn make_places(config: &mut ServerConfig, dir: &Path, shards: u16, found: &mut [(&PathBuf, Places)]) {
    let bytes = (config.arena_bytes as u64).saturating_mul(u64::from(shards)).saturating_mul(found.len() as u64);
    for (root, places) in found.iter_mut() {
        let made = probe::boot_id().and_then(|_| places.make(dir)).and_then(|folder| {
            let free = probe::free_bytes(&folder)?;
            let why = || std::io::Error::other(format!("{} has {free} bytes free", dir.display()));
            (free >= bytes).then_some(folder).ok_or_else(why)
        });
        match made {
            Ok(folder) => {
                if let Some(line) = perishable(&folder) {
                    tracing::warn!("{line}");
                }
                config.arena_folders.insert(root.to_path_buf(), folder);
            }
            Err(error) => {
                config.arena_folders.clear();
                tracing::warn!(
                    "corelane.arena.dir = {}: no arena is made there, so batches are acknowledged when they are written \
                     (corelane.acknowledge=written): {error}; the arenas of all shards and data directories take {bytes} bytes \
                     (corelane.arena.bytes)",
                    dir.display()
                );
                break;
            }
        }
    }
    if config.arena_folders.is_empty() {
        // None that was made is of use.
        found.iter_mut().for_each(|(_, places)| forget_empty(places));
    }
}

/// Forgets the places without arenas.
pub(super) fn forget_empty(places: &mut Places) {
    if let Err(error) = places.forget_empty() {
        tracing::warn!("the note of the places of arenas stays as it was: {error}");
    }
}

/// A warning where systemd may remove the arenas while the machine runs.
fn perishable(folder: &Path) -> Option<String> {
    const ROOT: u32 = 0;
    let owner = folder.metadata().map_or(ROOT, |folder| folder.uid());
    (folder.starts_with(SHARED_MEMORY) && owner != ROOT).then(|| {
        format!(
            "corelane.arena.dir is in {SHARED_MEMORY}, where systemd removes the files of a user that logs out and of a service that ends \
             (RemoveIPC=yes), and with them records acknowledged before a kill: take a directory below /run (RuntimeDirectory= with \
             RuntimeDirectoryPreserve=yes)"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_memory_is_warned_of_where_it_may_go() {
        let (own, other) = (tempfile::tempdir_in(SHARED_MEMORY).unwrap(), tempfile::tempdir().unwrap());
        assert_eq!(perishable(own.path()).is_some(), own.path().metadata().unwrap().uid() != 0);
        assert_eq!(perishable(other.path()), None);
    }
}
