//! Logs on a full disk. What can wait (checkpoints, index files, seals) waits for room and is
//! tried again; a log whose records found none takes no more of them until it is opened anew, cut
//! back to what was acknowledged.

use std::cell::Cell;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::behind::Behind;
use super::commit::Commits;
use super::log::{Log, StorageError};
use super::maintenance::remove_files;
use super::paths::segment_file;
use crate::runtime::disk::{self, align_down, is_full};
use crate::runtime::{clock, fs, spawn_blocking};

/// Time between two looks whether the operations of a log have ended.
const ENDING_PAUSE: Duration = Duration::from_millis(5);
/// Time between two log lines about the same trouble of a shard.
const LINE_INTERVAL: Duration = Duration::from_secs(30);

/// Holds log lines that may come by the thousand to one an interval.
#[derive(Default)]
pub struct LineLimit {
    next: Cell<Option<Instant>>,
    unsaid: Cell<u64>,
}

impl LineLimit {
    /// The number of lines left out since the last one, if a line is due at `now`.
    pub fn due(&self, now: Instant) -> Option<u64> {
        if self.next.get().is_some_and(|next| now < next) {
            self.unsaid.set(self.unsaid.get() + 1);
            return None;
        }
        self.next.set(Some(now + LINE_INTERVAL));
        Some(self.unsaid.replace(0))
    }
}

/// A reserve is no larger than this part of the file system.
const RESERVE_PART: u64 = 20;
/// One reservation of blocks takes no more than this part of the room there is.
const STEP_PART: u64 = 8;
/// Least free space beyond the reserve, bytes, before records are taken again.
const LEAST_ROOM: u64 = 1 << 20;

/// With less free space than this, bytes, what waits to be removed does not wait for its time.
const SHORT: u64 = 16 << 20;

/// The file system of one data directory, as its shard last saw it. It is looked at whenever a log
/// reserves blocks, and while records are refused.
pub struct Disk {
    pub root: PathBuf,
    /// `corelane.disk.reserve.bytes`
    wanted: u64,
    free: Cell<u64>,
    reserve: Cell<u64>,
    low: Cell<bool>,
    pub(super) commits: Commits,
}

impl Disk {
    pub fn new(root: PathBuf, wanted: u64) -> Disk {
        Disk {
            root,
            wanted,
            free: Cell::new(u64::MAX),
            reserve: Cell::new(0),
            low: Cell::new(false),
            commits: Commits::default(),
        }
    }

    /// Records of ordinary topics are refused: less than the reserve is free.
    pub fn is_low(&self) -> bool {
        self.low.get()
    }

    /// Twice as much is free as `bytes`.
    pub fn has_twice(&self, bytes: u64) -> bool {
        self.free.get() / 2 >= bytes
    }

    /// As much is free as `bytes`.
    pub(super) fn has_free(&self, bytes: u64) -> bool {
        self.free.get() >= bytes
    }

    /// Bytes that may be used, by the last look.
    pub fn room(&self, uses_reserve: bool) -> u64 {
        self.free.get().saturating_sub(if uses_reserve { 0 } else { self.reserve.get() })
    }

    /// There is room for a log that found none to be opened anew.
    pub fn has_room(&self, uses_reserve: bool) -> bool {
        self.free.get() >= LEAST_ROOM && (uses_reserve || !self.low.get())
    }

    /// Records of some topics are refused: what waits to be removed should go now.
    pub fn is_short(&self) -> bool {
        self.is_low() || self.free.get() < SHORT
    }

    /// Asks the file system.
    pub async fn look(&self) -> io::Result<()> {
        let (free, total) = disk::space(&self.root).await?;
        self.note(free, total);
        Ok(())
    }

    fn note(&self, free: u64, total: u64) {
        let reserve = self.wanted.min(total / RESERVE_PART);
        let enough = if self.low.get() { reserve + (reserve / 4).max(LEAST_ROOM) } else { reserve };
        self.free.set(free);
        self.reserve.set(reserve);
        let low = free < enough;
        if self.low.replace(low) == low {
            return;
        }
        let root = self.root.display();
        if low {
            tracing::error!(
                "{root}: {free} bytes are free, less than the reserve of {reserve} (corelane.disk.reserve.bytes): records are refused until \
                 there is more; metadata and committed offsets go on"
            );
        } else {
            tracing::info!("{root}: {free} bytes are free: records are taken again");
        }
    }

    /// How far a file of `allocated` bytes may be extended towards `target`; it needs to reach
    /// `end`. Small steps where there is little room, so that one log does not take what others
    /// need. An error: no room for `end` itself.
    fn step(&self, allocated: u64, end: u64, target: u64, uses_reserve: bool) -> io::Result<u64> {
        let (free, reserve) = (self.free.get(), if uses_reserve { 0 } else { self.reserve.get() });
        let needed = end.saturating_sub(allocated);
        // Batches queued when the reserve was reached may take half of it.
        if reserve > 0 && needed > 0 && needed > free.saturating_sub(reserve / 2) {
            let message =
                format!("{}: only {free} bytes are free, which corelane.disk.reserve.bytes keeps", self.root.display());
            return Err(io::Error::new(io::ErrorKind::StorageFull, message));
        }
        let step = free.saturating_sub(reserve) / STEP_PART;
        Ok(target.min(align_down(allocated.saturating_add(step))).max(end).max(allocated))
    }
}

impl Log {
    /// Why records are refused although the log is in order.
    pub(super) fn refusal(&self) -> Option<StorageError> {
        if self.uses_reserve || !self.disk.is_low() {
            return None;
        }
        let why = format!("less than corelane.disk.reserve.bytes is free in {}", self.disk.root.display());
        Some(StorageError::Full(why.into()))
    }

    /// True for topics that may use the reserve: the broker's own.
    pub fn uses_reserve(&self) -> bool {
        self.uses_reserve
    }

    pub fn disk(&self) -> Rc<Disk> {
        self.disk.clone()
    }

    /// How far `segment` may be extended towards `target` on this disk.
    pub(super) async fn within_room(&self, allocated: u64, end: u64, target: u64) -> io::Result<u64> {
        match self.disk.look().await {
            Ok(()) => self.disk.step(allocated, end, target, self.uses_reserve),
            // Whatever is wrong there, the write will tell.
            Err(_) => Ok(target),
        }
    }

    /// Housekeeping failed. For want of room it is put off, and the log goes on; any other
    /// failure takes the log offline.
    pub(super) fn put_off(&self, doing: &str, error: &io::Error) -> StorageError {
        if is_full(error) {
            if let Some(unsaid) = self.context.put_off_lines.due(clock::now()) {
                tracing::warn!(
                    dir = %self.dir.display(), unsaid,
                    "no room for {doing}: it is tried again; until then a start after a crash reads more: {error}"
                );
            }
            return StorageError::Full(error.to_string().into());
        }
        self.fail(doing, error);
        self.failure().unwrap_or(StorageError::Closed)
    }

    /// Tries again to seal the segments that found no room.
    pub(super) async fn seal_waiting(self: &Rc<Self>) -> Result<(), StorageError> {
        let waiting: Vec<_> = self.segments.borrow().values().filter(|s| s.seal_waits.get()).cloned().collect();
        for segment in waiting {
            segment.seal_waits.set(false);
            if let Err(error) = self.seal(&segment).await {
                segment.seal_waits.set(is_full(&error));
                return Err(self.put_off("sealing a segment", &error));
            }
        }
        Ok(())
    }

    /// Ends a log that found no room, so that its directory can be opened anew: waits for
    /// everything under way, admits no more, and cuts the files back to the offset `end`, at which
    /// the directory's next log must end then.
    pub async fn cut_back(self: &Rc<Self>, end: i64) -> io::Result<()> {
        // A cleaning under way may want its turn of maintenance; one that begins
        // later ends before it does.
        while self.clean.is_running() {
            clock::sleep(ENDING_PAUSE).await;
        }
        let _one = self.maintenance.acquire(1).await;
        while self.is_busy() {
            clock::sleep(ENDING_PAUSE).await;
        }
        let end = self.place_of(end).await.map_err(io::Error::other)?;
        self.dir.retire().await;
        self.context.cold.forget_log(self.number);
        self.write_what_is_held().await?;
        let segments: Vec<_> = self.segments.borrow().values().cloned().collect();
        let mut kept = false;
        for segment in segments {
            if segment.base_offset > end.offset {
                remove_files(&segment).await?;
            } else if segment.is_on_disk() {
                let holds_end = Rc::ptr_eq(&segment, &end.segment);
                let begins_there = segment.base_offset == end.offset && !holds_end;
                let position = if begins_there { 0 } else { end.position };
                if holds_end || begins_there {
                    let path = segment.path("log");
                    spawn_blocking(move || cut(&path, position)).await?;
                }
                kept = true;
            }
        }
        if !kept {
            // Without any segment only the checkpoint would know the next
            // offset, and it may be older.
            let path = segment_file(&self.dir, end.offset, "log");
            spawn_blocking(move || fs::OpenOptions::new().create(true).append(true).open(path)?.sync_all()).await?;
        }
        Ok(())
    }

    /// Writes what stands in the arena alone into the files, where a log that has ended
    /// does not write it any more.
    async fn write_what_is_held(&self) -> io::Result<()> {
        for (segment, position, bytes) in self.unwritten_chunks() {
            let path = segment.path("log");
            spawn_blocking(move || {
                let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(path)?;
                file.write_all_at(&bytes, position)?;
                file.sync_data()
            })
            .await?;
        }
        self.drop_chunks(true);
        Ok(())
    }

    /// Operations on its files are under way. A failed log begins no new ones.
    fn is_busy(&self) -> bool {
        let busy = |s: &Rc<super::segment::Segment>| s.allocating.get() || s.ahead.is_running();
        self.appender.is_busy()
            || self.behind.get().is_some_and(Behind::is_busy)
            || self.sync.is_running()
            || self.sealing.get() > 0
            || self.clean.is_running()
            || self.segments.borrow().values().any(busy)
    }
}

/// Blocks.
fn cut(path: &PathBuf, end: u64) -> io::Result<()> {
    let file = fs::OpenOptions::new().write(true).open(path)?;
    if file.metadata()?.len() > end {
        file.set_len(end)?;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_has_a_bound_and_an_end_of_its_own() {
        const MIB: u64 = 1 << 20;
        let disk = Disk::new("d".into(), 64 * MIB);
        assert!(!disk.is_low(), "nothing is known yet");
        disk.note(65 * MIB, 10_000 * MIB);
        assert!(!disk.is_low() && disk.has_room(false));
        disk.note(63 * MIB, 10_000 * MIB);
        assert!(disk.is_low() && !disk.has_room(false) && disk.has_room(true));
        disk.note(70 * MIB, 10_000 * MIB);
        assert!(disk.is_low(), "a little more is not enough to begin again");
        disk.note(80 * MIB, 10_000 * MIB);
        assert!(!disk.is_low());
        disk.note(6 * MIB, 100 * MIB);
        assert!(!disk.is_low(), "at most a twentieth of the disk");
        disk.note(0, 100 * MIB);
        assert!(!disk.has_room(true));
        let none = Disk::new("d".into(), 0);
        none.note(0, 100 * MIB);
        assert!(!none.is_low());
    }

    #[test]
    fn blocks_are_reserved_in_smaller_steps_where_there_is_little_room() {
        const MIB: u64 = 1 << 20;
        let disk = Disk::new("d".into(), 10 * MIB);
        disk.note(10_000 * MIB, 10_000 * MIB);
        assert_eq!(disk.step(MIB, MIB, 65 * MIB, false).unwrap(), 65 * MIB);
        disk.note(26 * MIB, 10_000 * MIB);
        assert_eq!(
            disk.step(MIB, 2 * MIB, 65 * MIB, false).unwrap(),
            3 * MIB,
            "an eighth of what is beyond the reserve"
        );
        assert_eq!(disk.step(MIB, MIB, 2 * MIB, false).unwrap(), 2 * MIB, "no more than wanted");
        disk.note(9 * MIB, 10_000 * MIB);
        assert_eq!(disk.step(MIB, MIB, 65 * MIB, false).unwrap(), MIB, "nothing ahead of the writes");
        assert_eq!(disk.step(MIB, 4 * MIB, 65 * MIB, false).unwrap(), 4 * MIB, "what was queued still goes");
        assert!(is_full(&disk.step(MIB, 7 * MIB, 65 * MIB, false).unwrap_err()), "half of the reserve is for others");
        assert_eq!(disk.step(MIB, 7 * MIB, 65 * MIB, true).unwrap(), 7 * MIB);
        disk.note(0, 10_000 * MIB);
        assert_eq!(disk.step(MIB, 2 * MIB, 65 * MIB, true).unwrap(), 2 * MIB, "the write itself tells");
        assert_eq!(disk.step(MIB, MIB, 65 * MIB, false).unwrap(), MIB, "within what it has");
    }

    #[test]
    fn one_line_an_interval_that_counts_the_others() {
        let (lines, begin) = (LineLimit::default(), clock::now());
        assert_eq!(lines.due(begin), Some(0));
        assert_eq!((lines.due(begin), lines.due(begin + LINE_INTERVAL / 2)), (None, None));
        assert_eq!(lines.due(begin + LINE_INTERVAL), Some(2));
        assert_eq!(lines.due(begin + LINE_INTERVAL * 3), Some(0));
    }
}
