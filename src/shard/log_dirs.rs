//! The data directories of the broker, and the bytes of each partition in them.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::rc::Rc;

use super::api::LogDirOutcome;
use super::moving::FutureReplica;
use super::state::Shard;
use crate::model::PartitionId;
use crate::runtime::{probe, spawn_blocking};

/// One shard's part.
struct Held {
    failed: BTreeSet<PathBuf>,
    partitions: Vec<(PathBuf, PartitionId, u64)>,
    future: Vec<FutureReplica>,
}

impl Shard {
    /// Every directory of `log.dirs`, in that order.
    pub async fn log_dirs(self: &Rc<Self>) -> Vec<LogDirOutcome> {
        let mut failed: BTreeSet<PathBuf> = BTreeSet::new();
        let mut by_dir: HashMap<PathBuf, Vec<(PartitionId, u64)>> = HashMap::new();
        let mut future_by_dir: HashMap<PathBuf, Vec<(PartitionId, u64, i64)>> = HashMap::new();
        for shard in self.all_shards() {
            // Partitions of a shard that has stopped are not told: the broker is on its way out.
            let Ok(held) = self.on_shard(shard, |shard| async move { shard.held_in_log_dirs() }).await else {
                continue;
            };
            failed.extend(held.failed);
            for (dir, partition, bytes) in held.partitions {
                by_dir.entry(dir).or_default().push((partition, bytes));
            }
            for FutureReplica { root, partition, bytes, lag } in held.future {
                future_by_dir.entry(root).or_default().push((partition, bytes, lag));
            }
        }
        let settings = self.settings();
        let mut outcomes = Vec::with_capacity(self.config.log_dirs.len());
        for path in &self.config.log_dirs {
            let probed = path.clone();
            let space = match failed.contains(path) {
                true => None,
                false => spawn_blocking(move || probe::space(&probed)).await.ok(),
            };
            let mut partitions = by_dir.remove(path).filter(|_| space.is_some()).unwrap_or_default();
            partitions.sort_unstable();
            let mut future = future_by_dir.remove(path).filter(|_| space.is_some()).unwrap_or_default();
            future.sort_unstable();
            let cordoned = settings.is_cordoned(path);
            outcomes.push(LogDirOutcome { path: path.clone(), space, cordoned, partitions, future });
        }
        outcomes
    }

    /// Every data directory in use is cordoned: no new replica is to be placed on this broker.
    pub(super) fn all_cordoned(&self) -> bool {
        let (settings, placement) = (self.settings(), self.placement());
        let mut dirs = placement.directories.iter();
        !placement.directories.is_empty() && dirs.all(|(_, path)| settings.is_cordoned(path))
    }

    fn held_in_log_dirs(&self) -> Held {
        let placement = self.placement();
        let in_use = |path: &PathBuf| {
            let known = placement.directories.iter().find(|(_, known)| known == path);
            known.is_some_and(|(id, _)| !self.has_failed(*id))
        };
        let failed = self.config.log_dirs.iter().filter(|path| !in_use(path)).cloned().collect();
        let held = self.all_replicas().into_iter().filter_map(|replica| {
            let dir = replica.log().dir().parent()?.to_path_buf();
            Some((dir, replica.id, replica.log().size_bytes()))
        });
        Held { failed, partitions: held.collect(), future: self.future_replicas() }
    }
}
