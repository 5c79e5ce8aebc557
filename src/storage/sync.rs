//! When what is written may be acknowledged: at once, or after a grouped fdatasync (`flush.messages`, `flush.ms`).

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::log::{Log, Mark};
use super::segment::Segment;
use crate::runtime::{clock, spawn_local};

/// One log's unsynced segments and running sync.
#[derive(Default)]
pub struct SyncState {
    running: Cell<bool>,
    timer: Cell<bool>,
    /// Segments with bytes written since their last sync, oldest first.
    dirty: RefCell<Vec<Rc<Segment>>>,
}

impl Log {
    /// The written point has moved: acknowledge it, or sync first.
    pub(super) fn after_write(self: &Rc<Self>) {
        let mark = self.written.borrow().clone();
        self.note_dirty(&mark);
        let unsynced = mark.offset - self.synced.borrow().offset;
        let (flush_messages, flush_ms) = {
            let config = self.config.borrow();
            (config.flush_messages, config.flush_ms)
        };
        let before_ack = unsynced as u64 >= flush_messages || flush_ms == Some(0);
        if !before_ack {
            self.make_visible(mark);
        }
        if before_ack {
            self.start_sync();
        } else if let Some(ms) = flush_ms
            && !self.sync.timer.replace(true)
        {
            let log = self.clone();
            spawn_local(async move {
                clock::sleep(Duration::from_millis(ms.max(1) as u64)).await;
                log.sync.timer.set(false);
                log.start_sync();
            });
        }
        self.progress.notify_all();
    }

    fn note_dirty(&self, mark: &Mark) {
        // Every segment up to the mark's that has unsynced bytes; rolls may have passed several at once.
        let mut dirty = self.sync.dirty.borrow_mut();
        let first = dirty.last().map_or(self.synced.borrow().segment.base_offset, |s| s.base_offset);
        for segment in self.segments.borrow().range(first..=mark.segment.base_offset.max(first)).map(|(_, s)| s) {
            let listed = dirty.iter().any(|s| Rc::ptr_eq(s, segment));
            if !listed && segment.written.get() > segment.synced.get() {
                dirty.push(segment.clone());
            }
        }
    }

    /// Syncs in the background unless that happens already; a running sync looks again when it ends.
    fn start_sync(self: &Rc<Self>) {
        if self.sync.running.get() || self.failure.borrow().is_some() {
            return;
        }
        let log = self.clone();
        spawn_local(async move {
            // A failure is handled where it happens: the log goes offline.
            let _ = log.sync_written().await;
        });
    }

    /// Acknowledges what was synced and starts the next sync where acknowledgements wait for one.
    fn after_sync(self: &Rc<Self>) {
        let synced = self.synced.borrow().clone();
        self.make_visible(synced);
        if self.written.borrow().offset > self.synced.borrow().offset {
            self.after_write();
        }
    }

    /// Makes everything written so far survive a power cut. Failing takes the log offline: after a failed sync the
    /// kernel may have dropped the bytes, and a second try would lie.
    pub(super) async fn sync_written(self: &Rc<Self>) -> io::Result<()> {
        while self.sync.running.get() {
            self.progress.notified().await;
        }
        self.sync.running.set(true);
        let target = self.written.borrow().clone();
        let dirty = self.sync.dirty.borrow().clone();
        let mut outcome = Ok(());
        for segment in dirty {
            let upto = segment.written.get();
            outcome = self.sync_segment(&segment).await;
            if outcome.is_err() {
                break;
            }
            // More may have been written meanwhile: then it stays listed.
            if segment.written.get() == upto {
                self.sync.dirty.borrow_mut().retain(|s| !Rc::ptr_eq(s, &segment));
            }
        }
        self.sync.running.set(false);
        match &outcome {
            Ok(()) => {
                if target.offset > self.synced.borrow().offset {
                    *self.synced.borrow_mut() = target;
                }
                self.after_sync();
                self.progress.notify_all();
            }
            Err(error) => self.fail("an fdatasync", error),
        }
        outcome
    }

    /// Syncs one segment's file.
    pub(super) async fn sync_segment(&self, segment: &Rc<Segment>) -> io::Result<()> {
        let upto = segment.written.get();
        if upto <= segment.synced.get() {
            return Ok(());
        }
        segment.file().await?.fdatasync().await?;
        let gained = upto - segment.synced.get().min(upto);
        segment.synced.set(segment.synced.get().max(upto));
        let unsynced = &self.context.unsynced_bytes;
        unsynced.set(unsynced.get().saturating_sub(gained));
        Ok(())
    }
}
