//! Data directories that fail while the broker runs. A partition whose disk fails tells of itself
//! only; its directory is then tried out, and if it fails too, all partitions in it go offline at
//! once, as Kafka takes a failed log directory out of service. New partitions go elsewhere. A start
//! tries the directory again.

use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::state::Shard;
use crate::cluster::Placement;
use crate::runtime::disk::{is_full, write_small};
use crate::runtime::probe;

impl Shard {
    /// Tries out the directories in which something has failed since the last call.
    pub(super) async fn try_out_suspects(self: &Rc<Self>) {
        let mut suspects = self.take_suspects();
        let failed = self.all_replicas().into_iter().filter(|replica| replica.offline_reason().is_some());
        suspects.extend(failed.filter_map(|replica| replica.log().dir().parent().map(Path::to_path_buf)));
        for root in suspects {
            let placement = self.placement();
            let known = placement.directories.iter().find(|(_, path)| *path == root);
            if known.is_none_or(|(id, _)| self.has_failed(*id)) {
                continue;
            }
            let (path, user) = (root.clone(), self.id.0);
            match write_small(&root.join(".probe"), move || probe::try_out(&path, user)).await {
                Err(error) if !is_full(&error) => self.take_directory_offline(root, error.to_string()).await,
                _ => {}
            }
        }
    }

    async fn take_directory_offline(self: &Rc<Self>, root: PathBuf, error: String) {
        let shown = root.display();
        let why: Arc<str> =
            format!("the data directory {shown} has failed: {error}; mend or replace its disk and start again").into();
        let mut partitions = 0;
        for shard in self.all_shards() {
            let (root, why) = (root.clone(), why.clone());
            let lost = self.on_shard(shard, move |shard| async move { shard.lose_directory(&root, &why) }).await;
            // A shard that has stopped serves nothing.
            partitions += lost.unwrap_or(0);
        }
        let metadata = match self.store.is_in(&root) {
            true => "; topics cannot be changed, as the metadata is in this directory",
            false => "",
        };
        tracing::error!(
            "{why}. {partitions} partition(s) in it are offline{metadata}; those in other directories are served as before"
        );
    }

    /// Takes this shard's partitions in the directory offline; returns how many.
    fn lose_directory(&self, root: &Path, why: &str) -> usize {
        let placement = self.placement();
        let (lost, left): (Vec<_>, Vec<_>) = placement.directories.iter().cloned().partition(|(_, path)| path == root);
        lost.into_iter().for_each(|(id, _)| self.directory_failed(id, why.to_owned()));
        // Without any directory left, making a partition tells why it fails.
        if !left.is_empty() {
            self.set_placement(Arc::new(Placement { directories: left, ..Placement::clone(&placement) }));
        }
        let here = self.all_replicas().into_iter().filter(|replica| replica.log().dir().parent() == Some(root));
        here.inspect(|replica| replica.log().lose(why)).count()
    }
}
