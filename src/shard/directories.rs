//! Where this shard's partitions are on disk, and directories on their way out.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::state::{CONTROLLER, Shard};
use crate::cluster::{DirectoryId, Placement, TopicImage};
use crate::model::PartitionId;
use crate::runtime::sync::LocalMutex;
use crate::runtime::{clock, spawn_blocking};
use crate::storage::{is_deleted_dir, partition_dir, put_away, remove_dir};

/// Time until the record of a deleted topic goes, whose directories have been put away: by then the
/// file systems have the new names for good.
const FORGET_AFTER: Duration = Duration::from_secs(60);

/// Directories as one shard knows them.
pub(super) struct Directories {
    placement: RefCell<Arc<Placement>>,
    /// Data directories that failed this shard at its start, and why.
    failed: RefCell<HashMap<DirectoryId, String>>,
    /// Data directories in which something failed since they were tried out last.
    suspects: RefCell<BTreeSet<PathBuf>>,
    /// Of partitions that are offline, though their data directory is there.
    unopened: RefCell<HashMap<PartitionId, PathBuf>>,
    /// Put away, by the time they are to be removed.
    doomed: RefCell<VecDeque<(Instant, PathBuf)>>,
    /// Held while something is removed: a helper thread must not outlive the shard.
    removing: Rc<LocalMutex>,
    /// Records of deleted topics, by the time they are to be removed.
    deleted: RefCell<VecDeque<(Instant, Uuid)>>,
}

impl Default for Directories {
    fn default() -> Directories {
        Directories {
            placement: RefCell::default(),
            failed: RefCell::default(),
            suspects: RefCell::default(),
            unopened: RefCell::default(),
            doomed: RefCell::default(),
            removing: LocalMutex::new(1),
            deleted: RefCell::default(),
        }
    }
}

impl Shard {
    pub(super) fn placement(&self) -> Arc<Placement> {
        self.directories.placement.borrow().clone()
    }

    /// Once, before any partition is opened.
    pub(super) fn set_placement(&self, placement: Arc<Placement>) {
        *self.directories.placement.borrow_mut() = placement;
    }

    pub(super) fn directory_failed(&self, id: DirectoryId, why: String) {
        self.directories.failed.borrow_mut().insert(id, why);
    }

    /// A file in this directory could not be made.
    pub(super) fn suspect_directory(&self, root: &Path) {
        self.directories.suspects.borrow_mut().insert(root.to_path_buf());
    }

    pub(super) fn take_suspects(&self) -> BTreeSet<PathBuf> {
        self.directories.suspects.take()
    }

    pub(super) fn has_suspects(&self) -> bool {
        !self.directories.suspects.borrow().is_empty()
    }

    pub(super) fn has_failed(&self, id: DirectoryId) -> bool {
        self.directories.failed.borrow().contains_key(&id)
    }

    /// The directory of a partition, or why it is offline.
    pub(super) fn place(&self, topic: &TopicImage, id: PartitionId) -> Result<PathBuf, Arc<str>> {
        let placement = self.placement();
        if let Some(why) = placement.offline.get(&id) {
            return Err(why.clone());
        }
        let home = topic.partitions.get(id.index.0 as usize).and_then(|partition| partition.home);
        if let Some(why) = home.and_then(|home| self.directories.failed.borrow().get(&home.directory).cloned()) {
            return Err(why.into());
        }
        match (placement.dir(topic, id.index.0), self.config.log_dirs.first()) {
            (Some(dir), _) => Ok(dir),
            // Nothing is placed where there is nothing to choose from.
            (None, Some(root)) if placement.directories.is_empty() => Ok(partition_dir(root, &topic.name, id.index.0)),
            _ => Err("its data directory is not in use".into()),
        }
    }

    /// The directory of a partition that could not be opened; it goes with its topic.
    pub(super) fn note_unopened(&self, id: PartitionId, dir: &Path) {
        self.directories.unopened.borrow_mut().insert(id, dir.to_path_buf());
    }

    /// Directories of partitions that could not be opened.
    pub(super) fn unopened_dirs(&self) -> Vec<PathBuf> {
        self.directories.unopened.borrow().values().cloned().collect()
    }

    /// Puts away the directories of a deleted topic's partitions that were never opened. `false`:
    /// some are not in reach, and the topic's record has to stay until they are.
    pub(super) async fn put_away_unopened(self: &Rc<Self>, topic: Uuid) -> bool {
        let offline: Vec<_> = self.unopened().into_keys().filter(|id| id.topic == topic).collect();
        let mut all = true;
        for id in offline {
            self.clear_offline(id);
            let Some(dir) = self.directories.unopened.borrow_mut().remove(&id) else {
                all = false;
                continue;
            };
            match put_away(&dir, &topic.simple().to_string()).await {
                Ok(put_away) => put_away.into_iter().for_each(|dir| self.remove_later(dir)),
                Err(error) => {
                    all = false;
                    tracing::warn!(dir = %dir.display(), %error, "a deleted partition's directory stays until the next start");
                }
            }
        }
        all
    }

    /// Removes a directory that was put away, `log.segment.delete.delay.ms` from now. A stop
    /// leaves it to the next start.
    pub(super) fn remove_later(&self, dir: PathBuf) {
        let due = clock::now() + Duration::from_millis(self.settings().topic_defaults.file_delete_delay_ms);
        self.directories.doomed.borrow_mut().push_back((due, dir));
    }

    /// All directories of the deleted topic were put away: its record goes.
    pub(super) fn forget_deleted_later(&self, topic: Uuid) {
        self.directories.deleted.borrow_mut().push_back((clock::now() + FORGET_AFTER, topic));
    }

    /// A directory that is due; where the disk is short of room, also one that is not.
    fn take_doomed(&self) -> Option<PathBuf> {
        take_due(&self.directories.doomed).or_else(|| {
            let mut doomed = self.directories.doomed.borrow_mut();
            let is_short = |dir: &PathBuf| dir.parent().is_some_and(|root| self.storage.disk(root).is_short());
            let at = doomed.iter().position(|(_, dir)| is_short(dir))?;
            doomed.remove(at).map(|(_, dir)| dir)
        })
    }

    /// Removes what is due, one after the other.
    pub(super) async fn keep_removing(self: Rc<Self>) {
        if self.id == CONTROLLER {
            let _one = self.directories.removing.acquire(1).await;
            self.find_doomed().await;
        }
        while !self.stop.is_set() {
            clock::next_tick().await;
            let _one = self.directories.removing.acquire(1).await;
            if !self.stop.is_set() {
                self.remove_due().await;
            }
        }
    }

    /// Waits for the removal under way; none begins once the stop flag is set.
    pub(super) async fn end_removing(&self) {
        let _one = self.directories.removing.acquire(1).await;
    }

    async fn remove_due(&self) {
        self.storage.remove_discarded().await;
        while let Some(dir) = self.take_doomed() {
            if let Err(error) = remove_dir(&dir).await {
                tracing::error!(dir = %dir.display(), %error, "removing a deleted partition's files failed; they go at the next start");
            }
            if self.stop.is_set() {
                return;
            }
        }
        while let Some(topic) = take_due(&self.directories.deleted) {
            let store = self.store.clone();
            if let Err(error) = spawn_blocking(move || store.forget_deleted(topic)).await {
                tracing::warn!("{error}");
            }
        }
    }

    /// Directories that earlier runs put away and did not remove.
    async fn find_doomed(&self) {
        for (_, root) in &self.placement().directories {
            let owned = root.clone();
            match spawn_blocking(move || deleted_dirs(&owned)).await {
                Ok(dirs) => dirs.into_iter().for_each(|dir| self.remove_later(dir)),
                Err(error) => tracing::warn!(
                    dir = %root.display(), %error,
                    "directories of deleted partitions cannot be looked for; the next start tries again"
                ),
            }
        }
    }
}

fn take_due<T>(queue: &RefCell<VecDeque<(Instant, T)>>) -> Option<T> {
    let mut queue = queue.borrow_mut();
    let due = queue.front().is_some_and(|(due, _)| *due <= clock::now());
    if due { queue.pop_front().map(|(_, item)| item) } else { None }
}

/// Directories in `root` that a deletion has put away. Blocks.
fn deleted_dirs(root: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut dirs = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(is_deleted_dir) && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            dirs.push(entry.path());
        }
    }
    Ok(dirs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::scratch;

    #[test]
    fn only_directories_that_a_deletion_put_away_are_removed() {
        let root = scratch();
        let name = "gone-0.0123456789abcdef0123456789abcdef-delete";
        for name in [name, "to-delete", "kept-0", "kept-0.0123456789abcdef0123456789abcdef-stray"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        fs::write(root.path().join("file-0.0123456789abcdef0123456789abcdef-delete"), "x").unwrap();
        assert_eq!(deleted_dirs(root.path()).unwrap(), [root.path().join(name)]);
    }
}
