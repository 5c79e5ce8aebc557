//! How a shard is started: what the start-up sequence hands to each thread, and what it hears back.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use super::Shard;
use crate::cluster::MetadataImage;
use crate::cluster::metadata_store::LocalStore;
use crate::config::ServerConfig;
use crate::runtime::mailbox::MeshSeat;
use crate::runtime::process::StopFlag;
use crate::runtime::watchdog::Heart;

/// What one shard starts with. Made on the main thread, used up on the shard's.
pub struct ShardStart {
    /// 0-based, dense.
    pub index: u16,
    /// How many there are.
    pub shards: u16,
    pub config: Arc<ServerConfig>,
    pub seat: MeshSeat<Shard>,
    pub heart: Heart,
    pub store: LocalStore,
    pub image: Arc<MetadataImage>,
    pub stop: StopFlag,
    /// Told exactly once: recovered and listening, or why not. Dropping it untold counts as failure.
    pub ready: Sender<Result<ShardReady, String>>,
}

/// What a shard recovered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardReady {
    pub index: u16,
    pub partitions: usize,
    /// Bytes scanned because they were not yet synced when the broker last stopped.
    pub scanned_bytes: u64,
}

/// Runs one shard until the stop flag is set: recovers its partitions, reports, serves.
pub async fn run(start: ShardStart) {
    let _ = start.ready.send(Err(format!("shard {} cannot run: this build has no event loop yet", start.index)));
}
