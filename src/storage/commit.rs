//! Commits of the file system's journal.
//!
//! A direct write into reserved blocks has completed when its bytes are on the device; that they are no longer zeros stands in
//! the journal, which ext4 commits every 5 s and XFS every 30 s. An fdatasync of the file that was written last commits all
//! that was noted before it, of every file (ext4 and XFS have one journal, in order). So one a data directory and interval
//! bounds what a crash of the kernel takes.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::log::Log;
use crate::runtime::{clock, spawn_local};

/// From a write to the commit that covers it.
const INTERVAL: Duration = Duration::from_millis(400);

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
        spawn_local(async move {
            clock::sleep(INTERVAL).await;
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
