//! Appending batches as another replica has them: offsets and leader epochs stay as they are.
//!
//! Cleaning leaves gaps between the offsets of its batches. Base offsets lie outside the CRC, so a
//! start takes a gap before the last batch for damage, unless a file beside the log says that there
//! are some; the arena's entries say so too.

use std::io;
use std::rc::Rc;

use bytes::Bytes;

use super::files::{retry_on_fd_exhaustion, sync_dir};
use super::log::{Appended, Log, StorageError};
use super::rot::MAX_BATCH_BYTES;
use crate::model::record_batch::{self, BatchError};
use crate::runtime::disk::write_small;
use crate::runtime::fs;

/// Says that offsets may be missing between the batches of the log, which is nothing new then.
pub(super) const GAPS_FILE: &str = "offset-gaps";

/// True if a segment that begins at `base` is so far behind the one that begins at `before` that it
/// may lie behind a gap which none of the two could hold: everywhere else a segment's name is the
/// end of the one before it, gaps or not.
pub(super) fn begins_beyond(before: i64, base: i64) -> bool {
    base.saturating_sub(before) > i64::from(i32::MAX) + 1
}

/// Why a batch of another replica was not appended; the log is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ReplicateError {
    #[error("the batch for offset {end} is not sound: {why}")]
    NotSound { end: i64, why: BatchError },
    #[error("a batch of {bytes} bytes with offsets [{base}, {next}) cannot follow offset {end}")]
    DoesNotFollow { base: i64, next: i64, bytes: usize, end: i64 },
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl Log {
    /// Appends one batch as it is: at its own base offset, which is the end of the log or above it,
    /// in its own leader epoch. Its CRC is checked, nothing else; no size is refused.
    pub async fn append_as_is(self: &Rc<Self>, batch: Bytes, now_ms: i64) -> Result<Appended, ReplicateError> {
        let end = self.next_offset();
        let header = *record_batch::check(&batch).map_err(|why| ReplicateError::NotSound { end, why })?;
        let (base, delta) = (header.base(), header.last_offset_delta.get());
        let fits = header.total_bytes() as u64 == batch.len() as u64 && batch.len() as u64 <= MAX_BATCH_BYTES;
        let next = base.checked_add(i64::from(delta) + 1).filter(|next| *next > base);
        let Some(next_offset) = next.filter(|_| base >= end && fits) else {
            let next = base.saturating_add(i64::from(delta)).saturating_add(1);
            return Err(ReplicateError::DoesNotFollow { base, next, bytes: batch.len(), end });
        };
        if base > end && !self.gaps.get() {
            self.admit_gaps().await?;
        }
        if base > end && next_offset.saturating_sub(self.active().base_offset) > i64::from(i32::MAX) {
            // It may begin a segment that does not say by its name where the one before ends:
            // nothing of that may be lost.
            self.wait_written(end).await?;
            self.sync_written().await?;
        }
        self.check_open()?;
        Ok(self.place(batch, &header, (base, next_offset), header.partition_leader_epoch.get(), now_ms))
    }

    /// Has starts take gaps between offsets for what they are.
    async fn admit_gaps(self: &Rc<Self>) -> Result<(), StorageError> {
        let path = self.dir.join(GAPS_FILE);
        let noted = retry_on_fd_exhaustion(async || {
            let (_visit, file) = (self.dir.visit()?, path.clone());
            write_small(&path, move || fs::File::create(file)?.sync_all()).await?;
            sync_dir(self.dir.to_path_buf()).await
        });
        noted.await.map_err(|error: io::Error| self.put_off("a note of gaps between offsets", &error))?;
        // Chunks that do not say so must not go on.
        self.wait_written(self.next_offset()).await?;
        while self.drop_oldest_chunk() {}
        self.gaps.set(true);
        Ok(())
    }
}
