//! Logs on a full disk. What can wait (checkpoints, index files, seals) waits for room and is tried again; a log whose records
//! found none takes no more of them until it is opened anew, cut back to what was acknowledged.

use std::cell::Cell;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::log::{Log, StorageError};
use super::maintenance::remove_files;
use super::paths::segment_file;
use crate::runtime::disk::is_full;
use crate::runtime::{clock, spawn_blocking};

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

impl Log {
    /// Housekeeping failed. For want of room it is put off, and the log goes on; any other failure takes the log offline.
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

    /// Ends a log that found no room, so that its directory can be opened anew: waits for everything under way, admits no
    /// more, and cuts the files back to what was acknowledged. Producers were told that the rest is not there. Returns the
    /// acknowledged offset, at which the directory's next log must end.
    pub async fn cut_back(self: &Rc<Self>) -> io::Result<i64> {
        // A cleaning under way may want its turn of maintenance; one that begins later ends before it does.
        while self.clean.is_running() {
            clock::sleep(ENDING_PAUSE).await;
        }
        let _one = self.maintenance.acquire(1).await;
        while self.is_busy() {
            clock::sleep(ENDING_PAUSE).await;
        }
        self.dir.retire().await;
        self.context.cold.forget_log(self.number);
        let visible = self.visible.borrow().clone();
        let segments: Vec<_> = self.segments.borrow().values().cloned().collect();
        let mut kept = false;
        for segment in segments {
            if segment.base_offset > visible.offset {
                remove_files(&segment).await?;
            } else if segment.is_on_disk() {
                let holds_end = Rc::ptr_eq(&segment, &visible.segment);
                let begins_there = segment.base_offset == visible.offset && !holds_end;
                let end = if begins_there { 0 } else { visible.position };
                if holds_end || begins_there {
                    let path = segment.path("log");
                    spawn_blocking(move || cut(&path, end)).await?;
                }
                kept = true;
            }
        }
        if !kept {
            // Without any segment only the checkpoint would know the next offset, and it may be older.
            let path = segment_file(&self.dir, visible.offset, "log");
            spawn_blocking(move || fs::OpenOptions::new().create(true).append(true).open(path)?.sync_all()).await?;
        }
        Ok(visible.offset)
    }

    /// Operations on its files are under way. A failed log begins no new ones.
    fn is_busy(&self) -> bool {
        let busy = |s: &Rc<super::segment::Segment>| s.allocating.get() || s.ahead.is_running();
        self.appender.is_busy()
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
    fn one_line_an_interval_that_counts_the_others() {
        let (lines, begin) = (LineLimit::default(), clock::now());
        assert_eq!(lines.due(begin), Some(0));
        assert_eq!((lines.due(begin), lines.due(begin + LINE_INTERVAL / 2)), (None, None));
        assert_eq!(lines.due(begin + LINE_INTERVAL), Some(2));
        assert_eq!(lines.due(begin + LINE_INTERVAL * 3), Some(0));
    }
}
