//! One partition's bytes on disk: segments in Kafka's own file formats, group-commit appends, tail
//! and cold reads, recovery.
//!
//! The contract: [`Log::append`] fixes offset and order at once and returns without waiting; the
//! [`Ends`] say how far the bytes have come since: held in an [`Arena`], written, synced.
//! [`Log::read`] reads up to the bound that its caller states: who may see what, and what counts as
//! acknowledged, is decided above. A log lives on one shard. What the shard's logs share (caches,
//! budgets) is [`StorageContext`].
//!
//! Reading order: [`log`] (the facade), `appender` and `behind` (how bytes get to the device),
//! `reader` (how they get out), `recovery`.

mod aborted;
mod ahead;
mod appender;
mod arena;
mod as_is;
mod behind;
mod checkpoint;
mod cold_cache;
mod commit;
mod compaction;
mod context;
mod damage;
mod delays;
mod dir;
mod discard;
mod ends;
pub mod files;
mod index;
mod invariant;
mod kept;
mod log;
mod maintenance;
mod mend;
mod moving;
mod offline;
mod paths;
mod reader;
mod readers;
mod recovery;
mod room;
mod rot;
mod seal;
mod segment;
mod slices;
mod sync;
mod tail_cache;
mod timestamps;
mod to_recover;
mod trim;
mod truncate;

#[cfg(test)]
mod tests;

/// Readers of untrusted bytes, for the fuzz targets.
#[doc(hidden)]
pub use {
    compaction::{parse_checkpoint as parse_cleaner_checkpoint, recover as recover_swaps},
    index::SegmentIndex,
    rot::{Bounds, Stretch, survey},
};

pub use aborted::AbortedTxn;
pub use arena::{
    Arena, ArenaListing, FOLDER as ARENA_FOLDER, Home, Identity, Listings, PartitionKey, Places, Replayed, TakenOver,
    list_arenas, replay,
};
pub use as_is::ReplicateError;
pub use checkpoint::Checkpoint;
pub use compaction::{CleanError, CleanStats, Cleaner, CleanerLimits, LastOffsets, Survey};
pub use context::{StorageContext, StorageLimits};
pub use delays::Delays;
pub use ends::Ends;
#[cfg(test)]
pub(crate) use invariant::endure_broken_invariants;
pub use log::{Appended, Log, StorageError};
pub use maintenance::{put_away, remove_dir};
pub use moving::{DirCopy, NotExchanged, exchange};
pub use offline::{Damage, PartitionFiles, Piece, SegmentReport, find_partitions};
pub use paths::{
    DELETED_SUFFIX, FUTURE_SUFFIX, MOVED_SUFFIX, NAME_MAX, PARTITION_METADATA, STRAY_SUFFIX, aside_name, future_name,
    is_deleted_dir, is_future_dir, parse_moved_dir, parse_partition_dir, partition_dir,
};
pub use reader::{LogRead, ReadError};
pub use recovery::{LastStop, Looked, Recovered, RecoveredBatch};
pub use truncate::TruncateError;
