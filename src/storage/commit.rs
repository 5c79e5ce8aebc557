//! Commits of the file system's journal.
//!
//! A direct write into reserved blocks has completed when its bytes are on the device; that they
//! are no longer zeros stands in the journal, which ext4 commits every 5 s and XFS every 30 s. An
//! fdatasync of the file that was written last commits all that was noted before it, of every file
//! (ext4 and XFS have one journal, in order). So one a data directory and interval bounds what a
//! crash of the kernel takes.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::behind::Behind;
use super::log::Log;
use crate::runtime::{clock, spawn_local};

/// From a write to the commit that covers it, at least.
const INTERVAL: Duration = Duration::from_millis(400);

/// Part of the time that batches may wait for their write which goes to the commit instead, where
/// that is longer than [`INTERVAL`].
const COMMIT_PART: u32 = 4;

/// Time until a batch leaves for the device, and from there to the commit, for logs whose
/// batches may wait for `most`.
///
/// A commit writes each block of metadata that has changed and flushes the device: a hard disk does
/// nothing else for a fifth of a second.
pub(super) fn delays(most: Duration) -> (Duration, Duration) {
    let commit = INTERVAL.max(most / COMMIT_PART);
    (most + INTERVAL - commit, commit)
}

/// The next commit in one data directory.
#[derive(Default)]
pub struct Commits {
    /// The log that was written last.
    newest: RefCell<Weak<Log>>,
    timed: Cell<bool>,
    #[cfg(test)]
    pub made: Cell<u64>,
}

impl Log {
    /// Has a write that has completed be committed soon.
    pub(super) fn commit_soon(self: &Rc<Self>) {
        let commits = &self.disk.commits;
        commits.newest.replace(Rc::downgrade(self));
        if commits.timed.replace(true) {
            return;
        }
        let disk = self.disk.clone();
        let interval = self.behind.get().map_or(INTERVAL, Behind::commit_delay);
        spawn_local(async move {
            clock::sleep(interval).await;
            disk.commits.timed.set(false);
            let newest = disk.commits.newest.take().upgrade();
            if let Some(log) = newest {
                // A log whose sync fails goes offline by itself.
                let _ = log.sync_written().await;
                #[cfg(test)]
                disk.commits.made.set(disk.commits.made.get() + 1);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn write_and_commit_share_the_time_that_batches_may_wait() {
        for (most, leave, commit) in [(0, 0, 400), (500, 500, 400), (1600, 1600, 400), (5000, 4150, 1250)] {
            let expected = (Duration::from_millis(leave), Duration::from_millis(commit));
            assert_eq!(delays(Duration::from_millis(most)), expected, "{most} ms");
        }
    }
}
