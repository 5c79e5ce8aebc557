//! High watermarks as a start finds them: noted for each data directory while the broker runs, read
//! back before its partitions are opened. Of a member of a cluster only: a replica that is alone
//! has all that its log has.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use super::state::Shard;
use crate::cluster::{DirectoryId, PartitionHome};
use crate::model::PartitionId;
use crate::observe::client_line;
use crate::partition::HighWatermarks;

/// By data directory.
type Noted = BTreeMap<PathBuf, HighWatermarks>;

impl Shard {
    /// Reads what the last run has noted. A directory that cannot be read has noted nothing.
    pub(super) async fn recall_high_watermarks(&self) {
        if !self.config.in_cluster() {
            return;
        }
        let directories = self.placement().directories.clone();
        for (id, root) in directories {
            match HighWatermarks::load(&root).await {
                Ok(noted) => self.recall(id, &noted),
                Err(error) => {
                    let file = root.join(HighWatermarks::FILE);
                    client_line!(error, file = %file.display(), %error, "cannot be read: high watermarks are learned anew");
                }
            }
        }
    }

    /// Takes the marks of partitions that are in `directory`; of those that have left
    /// it, it may have old ones.
    fn recall(&self, directory: DirectoryId, noted: &HighWatermarks) {
        for topic in self.image().topics() {
            let here = |home: Option<PartitionHome>| home.is_none_or(|home| home.directory == directory);
            for (index, _) in (0..).zip(&topic.partitions).filter(|(_, partition)| here(partition.home)) {
                let (id, mark) = (PartitionId::new(topic.id, index), noted.of(&topic.name, index));
                if mark > 0 && self.owner(id) == self.id {
                    self.note_high_watermark(id, mark);
                }
            }
        }
    }

    /// On the controller's shard: notes those of all shards, each directory's together; the last
    /// time when the broker stops.
    pub(super) async fn keep_high_watermarks(self: Rc<Self>) {
        let interval = Duration::from_millis(self.config.replica_high_watermark_checkpoint_interval_ms);
        let mut stored = Noted::new();
        while !self.stop.is_set() {
            self.pause(interval).await;
            let mut now = Noted::new();
            for shard in self.all_shards() {
                let marks = self.on_shard(shard, |shard| async move { shard.own_high_watermarks() }).await;
                for (root, topic, index, mark) in marks.unwrap_or_default() {
                    now.entry(root).or_default().set(&topic, index, mark);
                }
            }
            for (root, marks) in now {
                if stored.get(&root) == Some(&marks) {
                    continue;
                }
                match marks.store(&root).await {
                    Ok(()) => drop(stored.insert(root, marks)),
                    Err(error) => {
                        client_line!(warn, directory = %root.display(), %error, "noting high watermarks failed; tried again");
                    }
                }
            }
        }
    }

    fn own_high_watermarks(&self) -> Vec<(PathBuf, String, i32, i64)> {
        let replicas = self.all_replicas();
        let mark = |replica: &Rc<crate::partition::Replica>| {
            let root = replica.log().dir().parent().map(Path::to_path_buf)?;
            Some((root, replica.topic.to_string(), replica.id.index.0, replica.high_watermark()))
        };
        replicas.iter().filter_map(mark).collect()
    }
}
