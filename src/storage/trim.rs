//! The log start moved forward by request (DeleteRecords), to any offset: also amid a segment.

use std::rc::Rc;

use super::invariant::invariant;
use super::log::{Log, StorageError};
use super::segment::Segment;
use crate::observe::client_line;

impl Log {
    /// Moves the log start to `to`, which is no higher than the high watermark, and removes the
    /// sealed segments before it. Returns once the new start survives a crash.
    /// [`StorageError::Full`]: there is no room to store it, and a crash may take it back. A log
    /// that begins at or behind `to` stays as it is.
    pub async fn trim(self: &Rc<Self>, to: i64, sidecar: impl Fn() -> Vec<u8>) -> Result<(), StorageError> {
        let _one = self.maintenance.acquire(1).await;
        if let Some(failure) = self.failure().filter(|failure| !failure.is_full()) {
            return Err(failure);
        }
        let held = self.ends().held;
        if !invariant!(self, to <= held, "a log start at {to} takes records that nobody may read yet, from {held} on") {
            return Err(self.failure().unwrap_or(StorageError::Closed));
        }
        if to > self.start_offset() {
            self.start_offset.set(to);
            client_line!(info, dir = %self.dir.display(), start_offset = to, "deleted records");
        }
        // Another request may have moved it this far without room to store it.
        let (_, stored) = self.checkpointed.get();
        if stored >= to || self.drop_front(self.before_start(), &sidecar).await? {
            return Ok(());
        }
        Err(StorageError::Full("the new log start could not be stored".into()))
    }

    /// Sealed segments all of whose records lie before the log start.
    fn before_start(&self) -> Vec<Rc<Segment>> {
        let (active, start) = (self.active(), self.start_offset());
        let segments = self.segments.borrow();
        let before = |segment: &Rc<Segment>| {
            let next = self.segment_after(segment.base_offset);
            let written = segment.written.get() >= segment.size.get();
            !Rc::ptr_eq(segment, &active) && written && next.is_some_and(|next| next.base_offset <= start)
        };
        segments.values().take_while(|segment| before(segment)).cloned().collect()
    }
}
