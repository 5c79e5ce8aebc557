//! State that the logs of one shard share: caches, budgets, and the count of unsynced bytes.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use super::ahead::Zeros;
use super::arena::{Arena, take_over_later};
use super::cold_cache::ColdCache;
use super::discard::Discarded;
use super::kept::Kept;
use super::room::{Disk, LineLimit};
use super::segment::IndexBudget;
use super::tail_cache::TailBudget;
use crate::config::{ServerConfig, Untaken};
use crate::observe::metrics::{Resource, ShardMetrics};
use crate::runtime::memory::HostMemory;
use crate::runtime::{probe, spawn_blocking};

/// Bounds of one shard's storage; each is an option in the configuration table.
#[derive(Clone, Debug)]
pub struct StorageLimits {
    /// `corelane.tail.cache.bytes`
    pub tail_cache_bytes: usize,
    /// This shard's share of `corelane.cache.bytes`
    pub cache_bytes: usize,
    /// `corelane.cold.cache.bytes`
    pub cold_cache_bytes: usize,
    /// `corelane.index.cache.bytes`
    pub index_cache_bytes: usize,
    /// `corelane.preallocate.max.bytes`
    pub preallocate_max_bytes: u64,
    /// `corelane.write.ahead.bytes`: largest step of zeros ahead of small groups; 0: none
    pub write_ahead_bytes: u64,
    /// `corelane.write.ahead.group.bytes`: groups of this mean size or more get no zeros
    pub write_ahead_group_bytes: u64,
    /// `corelane.write.max.bytes`: largest group; aligned
    pub write_max_bytes: usize,
    /// `corelane.write.queue.depth`: groups of one log in flight together
    pub write_queue_depth: usize,
    /// `corelane.append.linger.us`
    pub append_linger: Duration,
    /// `corelane.flush.delay.ms`
    pub flush_delay: Duration,
    /// Segments of all logs past which segments roll by size only: this shard's share
    /// of `corelane.max.segments`
    pub max_segments: usize,
    /// `corelane.disk.reserve.bytes`
    pub disk_reserve_bytes: u64,
    /// Damage that a start finds is noted: other replicas may have the records.
    pub notes_damage: bool,
    /// Largest part of a checkpoint's sidecar that is read.
    pub sidecar_max_bytes: usize,
    /// Files of older segments that stay open; a share of the descriptors the process may have.
    pub open_sealed_files: usize,
    /// Data directories in which the last broker stopped cleanly.
    pub clean_dirs: Vec<PathBuf>,
    /// Logs whose acknowledged records an arena still holds.
    pub not_taken_over: Vec<Untaken>,
}

/// Producers with open transactions come first in a checkpoint, and have to be read whatever the
/// bound on producers was before: with fewer shards, or a larger option.
const LEAST_SIDECAR_BYTES: usize = 64 << 20;

impl StorageLimits {
    /// One shard's part of the broker's.
    pub fn of(config: &ServerConfig) -> StorageLimits {
        let (open_files, shards) = (probe::open_files().unwrap_or(1024), config.shards.max(1));
        StorageLimits {
            tail_cache_bytes: config.tail_cache_bytes,
            cache_bytes: usize::try_from(config.cache_bytes).unwrap_or(0) / usize::from(shards),
            cold_cache_bytes: config.cold_cache_bytes,
            index_cache_bytes: config.index_cache_bytes,
            preallocate_max_bytes: config.preallocate_max_bytes,
            write_ahead_bytes: config.write_ahead_bytes,
            write_ahead_group_bytes: config.write_ahead_group_bytes,
            write_max_bytes: config.write_max_bytes,
            write_queue_depth: config.write_queue_depth,
            append_linger: Duration::from_micros(config.append_linger_us),
            flush_delay: Duration::from_millis(config.flush_delay_ms),
            max_segments: config.max_segments / usize::from(shards),
            disk_reserve_bytes: config.disk_reserve_bytes,
            notes_damage: config.in_cluster(),
            // A stored producer takes less than one in memory.
            sidecar_max_bytes: config.producer_state_max_bytes.max(LEAST_SIDECAR_BYTES),
            // An eighth of the descriptors for all shards together; connections have half,
            // open partitions the rest.
            open_sealed_files: (open_files / 8 / u64::from(shards)).clamp(8, 1024) as usize,
            clean_dirs: config.clean_dirs.clone(),
            not_taken_over: config.not_taken_over.clone(),
        }
    }
}

#[cfg(test)]
impl Default for StorageLimits {
    fn default() -> StorageLimits {
        StorageLimits::of(&ServerConfig::default())
    }
}

/// Shared by all logs of a shard.
pub struct StorageContext {
    pub limits: StorageLimits,
    pub(super) tail: Rc<TailBudget>,
    pub(super) kept: Kept,
    pub(super) cold: ColdCache,
    pub(super) indexes: IndexBudget,
    pub(super) unsynced_bytes: Cell<u64>,
    /// Behind the recovery points of all logs.
    pub(super) to_recover: Rc<Cell<u64>>,
    pub(super) zeros: Zeros,
    /// Segments of all logs.
    pub(super) segments: Rc<Cell<usize>>,
    pub(super) discarded: Discarded,
    next_log: Cell<u64>,
    failures: Cell<u64>,
    disks: RefCell<HashMap<PathBuf, Rc<Disk>>>,
    /// By data directory.
    arenas: RefCell<HashMap<PathBuf, Rc<Arena>>>,
    /// Logs whose acknowledged records an arena of the last broker still holds.
    untaken: RefCell<Vec<Untaken>>,
    pub(super) put_off_lines: LineLimit,
    pub(super) full_lines: LineLimit,
    /// Logs are opened for the first time since the broker started.
    starting: Cell<bool>,
    pub(super) reads: Reads,
}

/// Reads of records that found all of it in the memory of what was just
/// written, and those that did not.
#[derive(Default)]
pub(super) struct Reads {
    pub hits: Cell<u64>,
    pub misses: Cell<u64>,
}

impl StorageContext {
    pub fn new(limits: StorageLimits) -> Rc<StorageContext> {
        Rc::new(StorageContext {
            tail: TailBudget::new(limits.tail_cache_bytes),
            kept: Kept::new(limits.cache_bytes),
            cold: ColdCache::new(limits.cold_cache_bytes),
            indexes: IndexBudget::new(limits.index_cache_bytes, limits.open_sealed_files),
            unsynced_bytes: Cell::new(0),
            to_recover: Rc::default(),
            zeros: Zeros::default(),
            segments: Rc::default(),
            discarded: Discarded::default(),
            next_log: Cell::new(0),
            failures: Cell::new(0),
            disks: RefCell::default(),
            arenas: RefCell::default(),
            untaken: RefCell::new(limits.not_taken_over.clone()),
            put_off_lines: LineLimit::default(),
            full_lines: LineLimit::default(),
            starting: Cell::new(true),
            reads: Reads::default(),
            limits,
        })
    }

    /// Written by this shard since the last syncs, at most.
    #[cfg(test)]
    pub fn unsynced_bytes(&self) -> u64 {
        self.unsynced_bytes.get()
    }

    /// Appended by this shard since the last checkpoints: what a start after a crash would have to
    /// read.
    pub fn bytes_to_recover(&self) -> u64 {
        self.to_recover.get()
    }

    /// Counts how often logs of this shard failed or found no room, so that a
    /// watcher need not look at each.
    pub fn failures(&self) -> u64 {
        self.failures.get()
    }

    /// Tells the metrics of caches, arenas and segments.
    pub fn publish(&self, metrics: &ShardMetrics) {
        let arenas = self.arenas.borrow();
        let sum = |bytes: fn(&Arena) -> usize| arenas.values().map(|arena| bytes(arena)).sum();
        metrics.resources.set(Resource::Arena, sum(Arena::used_bytes), sum(Arena::chunk_bytes));
        let (used, total) = self.tail.bytes();
        metrics.resources.set(Resource::TailCache, used, total);
        let (used, total) = self.kept.bytes();
        metrics.resources.set(Resource::Cache, used, total);
        let (used, total) = self.cold.bytes();
        metrics.resources.set(Resource::ColdCache, used, total);
        metrics.tail_hits.set(self.reads.hits.get());
        metrics.tail_misses.set(self.reads.misses.get());
        let (hits, misses) = self.cold.reads();
        metrics.cold_hits.set(hits);
        metrics.cold_misses.set(misses);
        metrics.unsynced_bytes.set(self.unsynced_bytes.get());
        metrics.segments.set(self.segments.get() as u64);
        metrics.storage_failures.set(self.failures.get());
    }

    /// Copies for consumers that lag are held.
    pub fn holds_copies(&self) -> bool {
        self.kept.bytes().0 > 0
    }

    /// No copies for consumers that lag are held, nor is their memory short.
    pub fn cache_is_at_rest(&self) -> bool {
        self.kept.is_at_rest()
    }

    /// Fits the bound of such copies to the memory that there is, for all of `shards` together.
    pub fn fit_cache(&self, memory: &HostMemory, shards: u16) {
        self.kept.fit(memory, shards);
    }

    /// State of the file system under a data directory.
    pub fn disk(&self, root: &Path) -> Rc<Disk> {
        let wanted = self.limits.disk_reserve_bytes;
        let made = || Rc::new(Disk::new(root.to_path_buf(), wanted));
        self.disks.borrow_mut().entry(root.to_path_buf()).or_insert_with(made).clone()
    }

    /// Has the logs of a data directory that are opened from now on append through `arena`.
    pub fn add_arena(&self, root: &Path, arena: Rc<Arena>) {
        self.arenas.borrow_mut().insert(root.to_path_buf(), arena);
    }

    /// The arena for a log in `dir`; `None`: it is acknowledged when it is written.
    pub fn arena_of(&self, dir: &Path) -> Option<Rc<Arena>> {
        self.arenas.borrow().get(dir.parent()?).cloned()
    }

    /// Gives the arenas up, after the logs.
    pub fn take_arenas(&self) -> Vec<Rc<Arena>> {
        self.arenas.take().into_values().collect()
    }

    /// Takes over what an arena holds for the log in `dir`, where the start could not. An error:
    /// the log must not be opened.
    pub(super) async fn take_over(&self, dir: &Path) -> io::Result<()> {
        let untaken = self.untaken.borrow().iter().find(|untaken| untaken.dir == dir).cloned();
        if let Some(untaken) = untaken {
            spawn_blocking(move || take_over_later(&untaken)).await?;
            self.untaken.borrow_mut().retain(|untaken| untaken.dir != dir);
        }
        Ok(())
    }

    /// False where an arena of the last broker may hold records for the log in `dir`, which
    /// are to be taken over first.
    pub fn is_taken_over(&self, dir: &Path) -> bool {
        self.untaken.borrow().iter().all(|untaken| untaken.dir != dir)
    }

    /// Data directories in which records are refused for want of room.
    pub fn low_disks(&self) -> Vec<Rc<Disk>> {
        self.disks.borrow().values().filter(|disk| disk.is_low()).cloned().collect()
    }

    pub(super) fn count_failure(&self) {
        self.failures.set(self.failures.get() + 1);
    }

    /// Logs opened from now on were in use before, or are new.
    pub fn end_start(&self) {
        self.starting.set(false);
    }

    pub fn is_starting(&self) -> bool {
        self.starting.get()
    }

    /// True if the log in `dir` was closed cleanly by the last broker and has
    /// not been opened since.
    pub(super) fn stopped_clean(&self, dir: &Path) -> bool {
        self.starting.get() && dir.parent().is_some_and(|root| self.limits.clean_dirs.iter().any(|clean| clean == root))
    }

    pub(super) fn take_log_number(&self) -> u64 {
        self.next_log.replace(self.next_log.get() + 1)
    }
}
