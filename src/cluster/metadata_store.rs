//! Where the image is kept. `local` (embedded, default); ZooKeeper joins it with the cluster.

use std::io;
use std::path::{Path, PathBuf};

use super::image::{MetadataImage, TopicImage};
use crate::config::ServerConfig;

/// The embedded store: one small synced file per topic under `<first log dir>/corelane-metadata/`, each replaced
/// atomically. All calls block; shards run them off their event loop.
#[derive(Clone, Debug)]
pub struct LocalStore {
    pub(crate) directory: PathBuf,
}

impl LocalStore {
    /// Makes the directory on first use, with a cluster id.
    pub fn open(log_dir: &Path) -> io::Result<LocalStore> {
        let _ = log_dir;
        todo!()
    }

    /// Everything stored, as the image of a one-broker cluster. A damaged file is an error that names it.
    pub fn load(&self, config: &ServerConfig) -> io::Result<MetadataImage> {
        let _ = config;
        todo!()
    }

    /// Durable when it returns.
    pub fn put_topic(&self, topic: &TopicImage) -> io::Result<()> {
        let _ = topic;
        todo!()
    }

    /// Durable when it returns; a topic that is not there is no error.
    pub fn remove_topic(&self, name: &str) -> io::Result<()> {
        let _ = name;
        todo!()
    }

    /// Reserves `count` producer ids that no one ever got before, also across restarts; returns the first.
    pub fn reserve_producer_ids(&self, count: u32) -> io::Result<i64> {
        let _ = count;
        todo!()
    }
}
