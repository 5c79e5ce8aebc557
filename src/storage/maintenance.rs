//! Upkeep of a log: checkpoints, retention, closing, removal. Never on the append path.

use std::cmp::Reverse;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

use super::checkpoint::{Checkpoint, SegmentEntry};
use super::files::{retry_on_fd_exhaustion, sync_dir};
use super::log::{Log, StorageError};
use super::paths::{DELETED_SUFFIX, PARTITION_METADATA, SEGMENT_FILES, aside_name};
use super::segment::Segment;
use crate::observe::client_line;
use crate::runtime::disk::write_small;
use crate::runtime::{fs, spawn_blocking};

/// Names that are tried for a directory put away.
const NAMES_TRIED: u128 = 100;

fn not_sealed(segment: &Segment) -> StorageError {
    StorageError::Full(format!("{} is not sealed", segment.path("log").display()).into())
}

impl Log {
    /// Syncs everything appended so far and remembers it with `sidecar`'s result (taken at the
    /// same point of the log), so that recovery after a crash begins there. Cheap when nothing
    /// has changed. [`StorageError::Full`]: there is no room for it now, and recovery begins
    /// at the last one meanwhile.
    pub async fn checkpoint(self: &Rc<Self>, sidecar: impl FnOnce() -> Vec<u8>) -> Result<(), StorageError> {
        let _one = self.maintenance.acquire(1).await;
        self.checkpoint_held(sidecar).await
    }

    async fn checkpoint_held(self: &Rc<Self>, sidecar: impl FnOnce() -> Vec<u8>) -> Result<(), StorageError> {
        let (offset, start) = (self.next_offset(), self.start_offset());
        let covered = self.to_recover.get();
        if self.checkpointed.get() == (offset, start) && !self.checkpoint_stale.get() {
            return Ok(());
        }
        let mut checkpoint =
            Checkpoint { recovery_point: offset, log_start: start, segments: None, sidecar: sidecar() };
        // Appends go on meanwhile, and may roll the segment.
        let active = self.active();
        let entry = active.entry();
        self.wait_written(offset).await?;
        let sealed = self.seal_waiting().await;
        self.wait_sealed().await?;
        self.sync_written().await?;
        sealed?;
        if let Some(waiting) = self.segments.borrow().values().find(|s| s.seal_waits.get()) {
            return Err(not_sealed(waiting));
        }
        self.checkpoint_stale.set(false);
        let stored = async {
            self.save_beside(&active).await?;
            let mut segments: Vec<_> = self.segments.borrow().range(..entry.base).map(|(_, s)| s.entry()).collect();
            // Without appends it has no file: a start finds the log's end in the one before.
            if entry.bytes > 0 || active.is_on_disk() || segments.is_empty() {
                segments.push(SegmentEntry { index: active.index_sums(), ..entry });
            }
            checkpoint.segments = Some(segments);
            self.store(checkpoint).await.map_err(|error| self.put_off("a checkpoint", &error))
        };
        stored.await.inspect_err(|_| self.checkpoint_stale.set(true))?;
        self.failure().map_or(Ok(()), Err)?;
        self.checkpointed.set((offset, start));
        self.to_recover.cover(covered);
        Ok(())
    }

    /// Writes the files beside the segment that was active when a checkpoint began.
    async fn save_beside(self: &Rc<Self>, segment: &Rc<Segment>) -> Result<(), StorageError> {
        let is_active = || Rc::ptr_eq(segment, &self.active());
        if segment.is_on_disk() && !segment.sealed.get() && is_active() {
            let saved = async {
                segment.write_index_files(false).await?;
                segment.save_aborted().await
            };
            saved.await.map_err(|error| self.put_off("a checkpoint", &error))?;
        }
        if is_active() {
            return Ok(());
        }
        // Rolled meanwhile: sealing writes them, and a start takes the aborted transactions before
        // the checkpoint from there.
        self.wait_sealed().await?;
        if segment.seal_waits.get() { Err(not_sealed(segment)) } else { Ok(()) }
    }

    /// The checkpoint as it was last stored.
    pub async fn stored_checkpoint(&self) -> io::Result<Option<Checkpoint>> {
        let (dir, limit) = (self.dir.to_path_buf(), self.context.limits.sidecar_max_bytes);
        let _visit = self.dir.visit()?;
        spawn_blocking(move || Checkpoint::load(&dir, limit)).await
    }

    pub(super) async fn store(&self, checkpoint: Checkpoint) -> io::Result<()> {
        let checkpoint = Arc::new(checkpoint);
        retry_on_fd_exhaustion(async || {
            let (checkpoint, dir) = (checkpoint.clone(), self.dir.to_path_buf());
            write_small(&Checkpoint::path(&self.dir), move || checkpoint.store(&dir)).await
        })
        .await
    }

    /// Removes sealed segments before the offset `upto` that the topic's limits no longer keep or
    /// that lie before the log start, and rolls an active one whose every record is too old.
    /// Returns true if the start offset moved. Works on a full disk too, whose room it makes.
    pub async fn enforce_retention(
        self: &Rc<Self>,
        now_ms: i64,
        upto: i64,
        sidecar: impl Fn() -> Vec<u8>,
    ) -> Result<bool, StorageError> {
        let _one = self.maintenance.acquire(1).await;
        let full = self.failure().is_some_and(|failure| failure.is_full());
        if self.failure().is_some() && !full {
            return Ok(false);
        }
        if !full {
            self.roll_if_expired(now_ms, upto);
        }
        let doomed = self.beyond_retention(now_ms, upto);
        let Some(last) = doomed.last() else { return Ok(false) };
        let start = self.segment_after(last.base_offset).map_or(self.next_offset(), |s| s.base_offset);
        let start = start.max(self.start_offset());
        client_line!(
            info, dir = %self.dir.display(), segments = doomed.len(), bytes = doomed.iter().map(|s| s.size.get()).sum::<u64>(),
            start_offset = start, "retention removes segments"
        );
        self.start_offset.set(start);
        self.drop_front(doomed, &sidecar).await?;
        Ok(true)
    }

    /// Removes `doomed`, the oldest segments, all of whose records lie before the log
    /// start. `false`: there is no room yet to store the new start, and a crash takes the
    /// log back to its first segment.
    pub(super) async fn drop_front(
        self: &Rc<Self>,
        mut doomed: Vec<Rc<Segment>>,
        sidecar: &impl Fn() -> Vec<u8>,
    ) -> Result<bool, StorageError> {
        // The checkpoint must outlast the files: with no segment left it alone
        // knows the next offset.
        let mut noted = self.note_start(sidecar).await?;
        let Some(last) = doomed.last() else { return Ok(noted) };
        let kept = self.segment_after(last.base_offset).map_or(self.next_offset(), |s| s.base_offset);
        if !noted && let Err(error) = self.keep_place(kept).await {
            if !error.is_full() || doomed.len() < 2 {
                return Err(error);
            }
            // The newest of them keeps the place, and goes the next time.
            doomed.pop();
        }
        for segment in doomed {
            self.segments.borrow_mut().remove(&segment.base_offset);
            segment.forget_file();
            // Without room for the checkpoint the files go at once.
            let removed = if noted { self.discard(&segment).await } else { remove_files(&segment).await };
            if let Err(error) = removed {
                tracing::error!(path = %segment.path("log").display(), %error, "removing a segment failed; it goes at the next start");
            }
            // Each file that goes makes room.
            noted = noted || self.note_start(sidecar).await?;
        }
        Ok(noted)
    }

    /// Stores a checkpoint with the new start, so that the files before it may go; `false`:
    /// there is no room for it.
    async fn note_start(self: &Rc<Self>, sidecar: &impl Fn() -> Vec<u8>) -> Result<bool, StorageError> {
        match self.checkpoint_held(sidecar).await {
            Err(error) if error.is_full() => {
                if !self.move_checkpointed_start().await? {
                    return Ok(false);
                }
            }
            outcome => outcome?,
        }
        match sync_dir(self.dir.to_path_buf()).await {
            Ok(()) => Ok(true),
            Err(error) => match self.put_off("syncing the directory", &error) {
                error if error.is_full() => Ok(false),
                error => Err(error),
            },
        }
    }

    /// Stores the last checkpoint once more, with the new start: where there is no room for what is
    /// newer than it, or the log has found none and writes nothing any more. `false`: there is
    /// none, or no room for this one either.
    async fn move_checkpointed_start(&self) -> Result<bool, StorageError> {
        let start = self.start_offset();
        let moved = async {
            let Some(mut checkpoint) = self.stored_checkpoint().await? else { return Ok(false) };
            checkpoint.log_start = start;
            // Of what is removed nothing can be read again.
            checkpoint.recovery_point = checkpoint.recovery_point.max(start);
            self.store(checkpoint).await.map(|()| true)
        };
        match moved.await.map_err(|error| self.put_off("a checkpoint", &error)) {
            Err(error) if error.is_full() => Ok(false),
            outcome => outcome,
        }
    }

    /// Sees to it that a segment at or behind `start` has a file: where the checkpoint is older,
    /// its name tells a start where the log goes on. An empty file takes no block.
    async fn keep_place(self: &Rc<Self>, start: i64) -> Result<(), StorageError> {
        let kept: Vec<Rc<Segment>> =
            self.segments.borrow().range(start..).map(|(_, segment)| segment.clone()).collect();
        if kept.iter().any(|segment| segment.is_on_disk()) {
            return Ok(());
        }
        let Some(active) = kept.last() else {
            return Err(StorageError::Full("no segment is left to keep the log's place".into()));
        };
        active.file().await.map(drop).map_err(|error| self.put_off("the file of a new segment", &error))
    }

    fn roll_if_expired(self: &Rc<Self>, now_ms: i64, upto: i64) {
        let active = self.active();
        let newest = active.newest_ms();
        let config = self.config();
        let limit = config.retention_ms.filter(|_| config.cleanup_delete);
        let expired = limit.is_some_and(|ms| newest >= 0 && now_ms - newest > ms);
        if expired && active.size.get() > 0 && upto == self.next_offset() {
            self.roll(&active);
        }
    }

    /// The oldest sealed segments that are too old or too many, or lie before the log start.
    fn beyond_retention(&self, now_ms: i64, upto: i64) -> Vec<Rc<Segment>> {
        let config = self.config();
        let (limit_ms, limit_bytes) = match config.cleanup_delete {
            true => (config.retention_ms, config.retention_bytes),
            false => (None, None),
        };
        let mut surplus = limit_bytes.map_or(0, |limit| self.size_bytes().saturating_sub(limit));
        let active = self.active();
        let mut doomed = Vec::new();
        for segment in self.segments.borrow().values() {
            // A segment is removed whole, and only once all of it can have been read.
            let next = self.segment_after(segment.base_offset).map_or(i64::MAX, |s| s.base_offset);
            let unwritten = segment.written.get() < segment.size.get();
            if Rc::ptr_eq(segment, &active) || next > upto || unwritten {
                break;
            }
            let newest = segment.newest_ms();
            let too_old = limit_ms.is_some_and(|ms| newest >= 0 && now_ms - newest > ms);
            let too_many = surplus >= segment.size.get() && surplus > 0;
            if !too_old && !too_many && next > self.start_offset() {
                break;
            }
            surplus = surplus.saturating_sub(segment.size.get());
            doomed.push(segment.clone());
        }
        doomed
    }

    /// Ends the log in good order; the next start reads (almost) nothing.
    pub async fn close(self: &Rc<Self>, sidecar: impl FnOnce() -> Vec<u8>) -> Result<(), StorageError> {
        self.closing.set(true);
        let _one = self.maintenance.acquire(1).await;
        self.wait_written(self.next_offset()).await?;
        // Cutting off what was reserved makes room for the rest.
        self.settle_active().await?;
        self.checkpoint_held(sidecar).await?;
        self.end(StorageError::Closed);
        self.drop_chunks(false);
        Ok(())
    }

    /// Ends the log as it is: begins no more writes, and no end moves any more.
    pub fn abandon(&self) {
        self.closing.set(true);
        self.end(StorageError::Closed);
    }

    /// Takes the log out of service and [puts its directory away](put_away).
    pub async fn retire(self: &Rc<Self>, tag: &str) -> io::Result<Option<PathBuf>> {
        self.closing.set(true);
        self.end(StorageError::Closed);
        self.drop_chunks(true);
        let _one = self.maintenance.acquire(1).await;
        self.dir.retire().await;
        self.context.cold.forget_log(self.number);
        for segment in self.segments.borrow().values() {
            segment.forget_file();
        }
        put_away(&self.dir, tag).await
    }
}

/// Renames the directory of a deleted partition to `<dir>.<tag>-delete` ([`aside_name`]) and
/// returns the new path, for [`remove_dir`] at a later time. `tag`: 32 hex digits; where that name
/// is taken, by a replica that was here before and is not removed yet, the next. Where renaming
/// fails (a full disk may have no room for the name), removes it at once: `None`.
pub async fn put_away(dir: &Path, tag: &str) -> io::Result<Option<PathBuf>> {
    let number = u128::from_str_radix(tag, 16).unwrap_or_default();
    let from = dir.to_path_buf();
    let renamed = spawn_blocking(move || {
        let name = from.file_name().unwrap_or_default().to_string_lossy();
        let mut failed = io::Error::from(io::ErrorKind::AlreadyExists);
        for next in 0..NAMES_TRIED {
            let tag = format!("{:032x}", number.wrapping_add(next));
            let to = from.with_file_name(aside_name(&name, &tag, DELETED_SUFFIX));
            match fs::rename(&from, &to) {
                Ok(()) => return Ok(to),
                Err(error) => failed = error,
            }
            if !matches!(failed.kind(), io::ErrorKind::DirectoryNotEmpty | io::ErrorKind::AlreadyExists) {
                break;
            }
        }
        Err(failed)
    });
    match renamed.await {
        Ok(to) => Ok(Some(to)),
        Err(error) => match remove_dir(dir).await {
            Ok(()) => Ok(None),
            Err(_) => Err(error),
        },
    }
}

/// Removes a retired directory file by file, so that other small work comes in between. A kill
/// leaves a directory that tells whose it is, with a log that is whole up to a shorter end.
pub async fn remove_dir(dir: &Path) -> io::Result<()> {
    let owned = dir.to_path_buf();
    let list = move || fs::read_dir(owned)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>();
    let mut paths = spawn_blocking(list).await?;
    paths.sort_by_cached_key(|path| removal_order(path));
    for path in paths {
        spawn_blocking(move || fs::remove_file(path)).await?;
    }
    let owned = dir.to_path_buf();
    spawn_blocking(move || fs::remove_dir(owned)).await
}

/// Place of a file in the removal of its directory: what tells of segments, these from the newest
/// on, what says whose they are.
pub(super) fn removal_order(path: &Path) -> (u8, Reverse<OsString>) {
    let name = path.file_name().unwrap_or_default();
    let last = u8::from(path.extension().is_some_and(|extension| extension == "log"));
    let rank = if name == PARTITION_METADATA { 2 } else { last };
    (rank, Reverse(name.to_owned()))
}

/// Removes a segment's files. The log file goes last: an index behind the log's end says
/// that its log is missing.
pub async fn remove_files(segment: &Segment) -> io::Result<()> {
    let paths = SEGMENT_FILES.map(|extension| segment.path(extension));
    spawn_blocking(move || {
        for path in paths {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
        }
        Ok(())
    })
    .await
}
