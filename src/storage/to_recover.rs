//! Bytes that a start after a crash would have to read.
//!
//! Counted from the checkpoint, not from the last sync: a commit of the journal syncs the log that
//! was written last (see `commit`), and a start reads it from its recovery point all the same.

use std::cell::Cell;
use std::rc::Rc;

/// Bytes of one log behind its recovery point, and a share in the sum over its shard's logs.
pub(super) struct ToRecover {
    bytes: Cell<u64>,
    sum: Rc<Cell<u64>>,
}

impl ToRecover {
    pub fn new(sum: Rc<Cell<u64>>) -> ToRecover {
        ToRecover { bytes: Cell::new(0), sum }
    }

    pub fn get(&self) -> u64 {
        self.bytes.get()
    }

    /// `bytes` are appended, or were found behind the recovery point.
    pub fn add(&self, bytes: u64) {
        self.bytes.set(self.bytes.get() + bytes);
        self.sum.set(self.sum.get() + bytes);
    }

    /// A checkpoint covers so many of them.
    pub fn cover(&self, bytes: u64) {
        let covered = bytes.min(self.bytes.get());
        self.bytes.set(self.bytes.get() - covered);
        self.sum.set(self.sum.get() - covered);
    }

    /// A checkpoint covers everything, or the log is gone.
    pub fn clear(&self) {
        self.cover(u64::MAX);
    }
}

impl Drop for ToRecover {
    fn drop(&mut self) {
        self.clear();
    }
}
