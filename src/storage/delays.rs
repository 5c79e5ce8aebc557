//! Time that a log's appends could not go on for, by reason: a waiter for an end of the
//! log looks before and after.

use std::cell::Cell;

use super::log::Log;
use crate::runtime::clock::Moment;

/// Time for one reason, also while it goes on.
#[derive(Default)]
pub(super) struct Spent {
    ended_ns: Cell<u64>,
    since: Cell<Option<Moment>>,
    running: Cell<u32>,
}

impl Spent {
    /// Counts until the result is dropped.
    pub fn count(&self) -> Counting<'_> {
        self.begin();
        Counting(self)
    }

    pub fn begin(&self) {
        if self.running.replace(self.running.get() + 1) == 0 {
            self.since.set(Some(Moment::now()));
        }
    }

    pub fn end(&self) {
        self.running.set(self.running.get().saturating_sub(1));
        if self.running.get() == 0 {
            self.ended_ns.set(self.ns());
            self.since.set(None);
        }
    }

    /// True if it goes on.
    pub fn is_running(&self) -> bool {
        self.running.get() > 0
    }

    fn ns(&self) -> u64 {
        self.ended_ns.get() + self.since.get().map_or(0, |since| Moment::now().ns_since(since))
    }
}

pub(super) struct Counting<'a>(&'a Spent);

impl Drop for Counting<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Of one log.
#[derive(Default)]
pub(super) struct Reasons {
    /// Its file is being made or extended.
    pub blocks: Spent,
    /// Batches wait for room in the arena.
    pub arena: Spent,
    pub sync: Spent,
}

/// Times since the log was opened, ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delays {
    /// Making or extending the log's file.
    pub blocks: u64,
    /// Waiting for room in the arena.
    pub arena: u64,
    /// `fdatasync`.
    pub sync: u64,
}

impl Delays {
    /// Delays that were added since `earlier`.
    pub fn since(&self, earlier: &Delays) -> Delays {
        Delays {
            blocks: self.blocks.saturating_sub(earlier.blocks),
            arena: self.arena.saturating_sub(earlier.arena),
            sync: self.sync.saturating_sub(earlier.sync),
        }
    }

    /// The longer of both for each reason: waits for several logs go on at the same time.
    pub fn max(&self, other: &Delays) -> Delays {
        Delays {
            blocks: self.blocks.max(other.blocks),
            arena: self.arena.max(other.arena),
            sync: self.sync.max(other.sync),
        }
    }
}

impl Log {
    pub fn delays(&self) -> Delays {
        let Reasons { blocks, arena, sync } = &self.delays;
        Delays { blocks: blocks.ns(), arena: arena.ns(), sync: sync.ns() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn spans_that_overlap_count_once() {
        let spent = Spent::default();
        assert_eq!(spent.ns(), 0);
        let (one, two) = (spent.count(), spent.count());
        std::thread::sleep(Duration::from_millis(10));
        assert!(spent.ns() >= 10_000_000, "while it goes on");
        drop(one);
        assert!(spent.is_running());
        drop(two);
        let ended = spent.ns();
        assert!((10_000_000..20_000_000).contains(&ended), "{ended}");
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!((spent.ns(), spent.is_running()), (ended, false));
    }
}
