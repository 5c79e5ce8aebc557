//! A shard's life: what the start-up sequence hands to each thread, recovery, serving, the end.

use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Duration;

use uuid::Uuid;

use super::hosting::Claim;
use super::member::Joining;
use super::state::Shard;
use super::survey::SurveyDesk;
use super::throttle::Throttles;
use crate::cluster::metadata_store::LocalStore;
use crate::cluster::rules::Kept;
use crate::cluster::{MetadataImage, Placement};
use crate::config::{Acknowledge, ServerConfig};
use crate::model::ShardId;
use crate::observe::metrics::ShardMetrics;
use crate::partition::Replica;
use crate::runtime::mailbox::{Mesh, MeshSeat};
use crate::runtime::net::Listeners;
use crate::runtime::process::StopFlag;
use crate::runtime::watchdog::Heart;
use crate::runtime::{count_in, disk, gather_before_waking, probe, spawn_blocking, spawn_local, spin_before_sleep};
use crate::storage::{ARENA_FOLDER, Arena, Identity};

/// Parts that one shard starts with. Made on the main thread, used up on the shard's.
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
    pub placement: Arc<Placement>,
    pub stop: StopFlag,
    /// Of all shards.
    pub throttles: Arc<Throttles>,
    /// Of the controller's shard, where the broker is one of a cluster.
    pub joining: Option<Joining>,
    pub metrics: Arc<ShardMetrics>,
    /// Where the metrics ask for what is not counted.
    pub desk: Arc<SurveyDesk>,
    /// Told exactly once: recovered and listening, or why not. Dropping it
    /// untold counts as failure.
    pub ready: Sender<Result<ShardReady, String>>,
    /// Told once at the end: the directories of the partitions that were not closed in good order.
    pub closed: Sender<Vec<PathBuf>>,
}

/// Figures of a shard's recovery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShardReady {
    pub index: u16,
    pub partitions: usize,
    /// Bytes scanned because they were not yet synced when the broker last stopped.
    pub scanned_bytes: u64,
}

fn let_requests_gather(microseconds: u64, shard: u16) {
    match gather_before_waking(Duration::from_micros(microseconds)) {
        Ok(true) => {}
        Ok(false) if shard > 0 => {}
        Ok(false) => {
            tracing::warn!("corelane.gather.us={microseconds} has no effect: the kernel is older than Linux 6.12")
        }
        Err(error) => tracing::warn!(shard, %error, "corelane.gather.us={microseconds} has no effect"),
    }
}

/// Runs one shard until the stop flag is set: recovers its partitions, reports, serves by
/// `serve`, closes its logs.
pub async fn run<S, F>(start: ShardStart, serve: S)
where
    S: FnOnce(Rc<Shard>, Listeners) -> F,
    F: Future<Output = ()>,
{
    let ready = start.ready.clone();
    count_in(start.metrics);
    match start.config.gather_us {
        0 => spin_before_sleep(Duration::from_micros(start.config.idle_spin_us)),
        gather_us => let_requests_gather(gather_us, start.index),
    }
    spawn_local(start.heart.beat());
    let mesh = match Mesh::connect(start.seat) {
        Ok(mesh) => mesh,
        Err(error) => {
            let _ = ready.send(Err(format!("the shard's mailbox cannot be opened: {error}")));
            return;
        }
    };
    let identity = (ShardId(start.index), start.shards);
    let shard = Shard::new(identity, start.config, start.stop, mesh.clone(), start.image, start.store);
    shard.set_placement(start.placement);
    shard.throttles.replace(start.throttles);
    shard.verify_by_coordinators();
    mesh.serve(shard.clone());
    match shard.recover().await {
        Ok((listeners, recovered)) => {
            if shard.all_recovered().await {
                shard.publish_offline().await;
                let _ = ready.send(Ok(recovered));
                if let Some(joining) = start.joining {
                    shard.join_as_found(joining).await;
                }
                shard.start_upkeep(start.desk);
                serve(shard.clone(), listeners).await;
            }
            let unwell = shard.close_all().await;
            shard.remove_arenas();
            let _ = start.closed.send(unwell);
            shard.leave().await;
        }
        Err(error) => {
            let _ = ready.send(Err(error.to_string()));
        }
    }
}

impl Shard {
    /// Joins the cluster. Where a log was found damaged, this broker's places in ISRs are not to be
    /// counted on: others have the records, and would cut theirs to what is left here.
    async fn join_as_found(self: &Rc<Self>, mut joining: Joining) {
        let mut damaged = 0;
        for shard in self.all_shards() {
            let found = self.on_shard(shard, |shard| async move {
                let replicas = shard.all_replicas();
                let kept = |replica: &Replica| match (replica.log().next_offset(), replica.is_damaged()) {
                    (0, true) => Kept::Lost,
                    (0, false) => Kept::None,
                    _ => Kept::Some,
                };
                let found = replicas.iter().map(|replica| (replica.id, kept(replica)));
                (replicas.iter().filter(|replica| replica.is_damaged()).count(), found.collect::<Vec<_>>())
            });
            // A shard that has stopped knows of nothing.
            let (harmed, found) = found.await.unwrap_or_default();
            damaged += harmed;
            joining.found.replicas.extend(found);
        }
        joining.node.note_found(std::mem::take(&mut joining.found));
        if damaged > 0 {
            tracing::warn!(
                "{damaged} log(s) of this broker were found damaged: it takes its places in ISRs again once it has caught up"
            );
            joining.node.distrust_start(Uuid::new_v4());
        }
        self.join(joining);
    }

    /// Makes the shard's arena in each data directory, where batches are acknowledged from one.
    async fn make_arenas(&self) {
        if self.config.acknowledge != Acknowledge::Held {
            return;
        }
        let delay = Duration::from_millis(self.config.write_behind_max_ms);
        for (id, directory) in &self.placement().directories {
            // Asked once now: a held batch must find room.
            let disk = self.storage.disk(directory);
            let _ = disk.look().await;
            let (shard, bytes) = (self.id.0, self.config.arena_bytes);
            let all = (bytes as u64).saturating_mul(u64::from(self.shards));
            let elsewhere = self.config.arena_folders.get(directory).cloned();
            if elsewhere.is_none() && !self.config.arena_dir.as_os_str().is_empty() {
                // Told once for all shards.
                continue;
            }
            if elsewhere.is_none() && !disk.has_twice(all) {
                // Trying would leave others without room for a moment.
                tracing::warn!(
                    shard = %self.id,
                    "{}: no arena is made, so batches are acknowledged when they are written (corelane.acknowledge=written): the arenas \
                     of all shards take {all} bytes (corelane.arena.bytes), and not twice as much is free",
                    directory.display()
                );
                continue;
            }
            let folder = elsewhere.unwrap_or_else(|| directory.join(ARENA_FOLDER));
            let (cluster, directory_id) = (self.image().cluster_id.clone(), id.0);
            let made = spawn_blocking(move || {
                let identity = Identity { boot: probe::boot_id()?, cluster, directory: directory_id };
                Arena::create(&folder, shard, &identity, bytes)
            });
            match made.await.map(|made| made.open(delay, self.shards)) {
                Ok(Some(arena)) => self.storage.add_arena(directory, arena),
                Ok(None) => {}
                Err(error) => tracing::warn!(
                    shard = %self.id,
                    "{}: no arena can be made, so batches are acknowledged when they are written (corelane.acknowledge=written): {error}",
                    directory.display()
                ),
            }
        }
    }

    /// Removes the arenas from which nothing needs to be taken over.
    fn remove_arenas(&self) {
        for arena in self.storage.take_arenas() {
            match arena.remove() {
                Ok(true) => {}
                Ok(false) => {
                    tracing::info!(file = %arena.path().display(), "acknowledged records are left for the next start to write")
                }
                Err(error) => {
                    tracing::warn!(file = %arena.path().display(), "the arena stays for the next start to remove: {error}")
                }
            }
        }
    }

    async fn recover(self: &Rc<Self>) -> io::Result<(Listeners, ShardReady)> {
        for (id, directory) in &self.placement().directories {
            if let Err(error) = disk::prime_device(directory).await {
                tracing::error!(shard = %self.id, "partitions of this shard in {} are offline: {error}", directory.display());
                self.directory_failed(*id, format!("{}: {error}", directory.display()));
            }
        }
        self.make_arenas().await;
        self.recall_high_watermarks().await;
        let topics = self.image().topics().cloned().collect();
        // In a cluster a directory of another topic may be left from a deletion
        // that this broker has missed.
        let claim = if self.config.in_cluster() { Claim::Assigned } else { Claim::Known };
        let scanned_bytes = self.host(topics, claim).await?.scanned_bytes;
        self.storage.end_start();
        if !self.config.in_cluster() {
            self.show_later_epochs().await;
        }
        let listeners = Listeners::bind(self.config.listeners.iter().map(|listener| listener.address))?;
        let partitions = self.replicas.borrow().len();
        Ok((listeners, ShardReady { index: self.id.0, partitions, scanned_bytes }))
    }
}
