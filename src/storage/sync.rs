//! The way from `written` to `synced`: a grouped fdatasync, by `flush.messages`, `flush.ms`, or
//! when somebody asks for one.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::ends::LogPosition;
use super::files::sync_dir;
use super::log::{Log, StorageError};
use super::segment::Segment;
use crate::runtime::{clock, spawn_local};

/// One log's unsynced segments and running sync.
#[derive(Default)]
pub struct SyncState {
    running: Cell<bool>,
    timer: Cell<bool>,
    /// A sync that `flush.messages` asks for is put off.
    put_off: Cell<bool>,
    /// Segments with bytes written since their last sync, oldest first.
    dirty: RefCell<Vec<Rc<Segment>>>,
}

impl SyncState {
    pub fn is_running(&self) -> bool {
        self.running.get()
    }
}

impl Log {
    /// The written end has moved: sync it where the topic asks for that.
    pub(super) fn after_write(self: &Rc<Self>) {
        let at = self.positions.borrow().written.clone();
        self.note_dirty(&at);
        self.commit_soon();
        self.announce();
        let flush_ms = self.config.borrow().flush_ms;
        if self.flush_is_due(at.offset) {
            self.start_sync_soon();
        } else if let Some(ms) = flush_ms
            && !self.sync.timer.replace(true)
        {
            let log = Rc::downgrade(self);
            spawn_local(async move {
                clock::sleep(Duration::from_millis(ms.max(1) as u64)).await;
                if let Some(log) = log.upgrade() {
                    log.sync.timer.set(false);
                    log.start_sync();
                }
            });
        }
    }

    /// True if `flush.messages` or `flush.ms` ask for a sync once everything
    /// before `offset` is written.
    pub(super) fn flush_is_due(&self, offset: i64) -> bool {
        let config = self.config.borrow();
        let unsynced = offset - self.positions.borrow().synced.offset;
        unsynced as u64 >= config.flush_messages || config.flush_ms == Some(0)
    }

    /// Each batch is acknowledged once it is synced.
    pub(super) fn syncs_each_batch(&self) -> bool {
        let config = self.config.borrow();
        config.flush_messages <= 1 || config.flush_ms == Some(0)
    }

    /// Bytes written and not synced.
    #[cfg(test)]
    pub fn unsynced_bytes(&self) -> u64 {
        self.sync.dirty.borrow().iter().map(|s| s.written.get().saturating_sub(s.synced.get())).sum()
    }

    fn note_dirty(&self, at: &LogPosition) {
        // Every segment up to the position's that has unsynced bytes; rolls may
        // have passed several at once.
        let mut dirty = self.sync.dirty.borrow_mut();
        let first = dirty.last().map_or(self.positions.borrow().synced.segment.base_offset, |s| s.base_offset);
        for segment in self.segments.borrow().range(first..=at.segment.base_offset.max(first)).map(|(_, s)| s) {
            let listed = dirty.iter().any(|s| Rc::ptr_eq(s, segment));
            if !listed && segment.written.get() > segment.synced.get() {
                dirty.push(segment.clone());
            }
        }
    }

    /// Records behind `offset`, at `position` of the active segment, were found by a start and may
    /// not be synced: the next sync takes them along, and the journal is committed as after a
    /// write.
    pub(super) fn leave_unsynced(self: &Rc<Self>, offset: i64, position: u64) {
        let segment = self.active();
        let end = segment.written.get();
        segment.synced.set(position);
        let unsynced = &self.context.unsynced_bytes;
        unsynced.set(unsynced.get() + (end - position));
        let written = {
            let mut positions = self.positions.borrow_mut();
            positions.synced = LogPosition { offset, segment, position };
            positions.written.clone()
        };
        self.note_dirty(&written);
        self.commit_soon();
    }

    /// Syncs after `corelane.flush.delay.ms`. A sync that runs meanwhile looks again when it ends.
    fn start_sync_soon(self: &Rc<Self>) {
        let delay = self.context.limits.flush_delay;
        if delay.is_zero() {
            return self.start_sync();
        }
        if self.sync.running.get() || self.sync.put_off.replace(true) {
            return;
        }
        let log = Rc::downgrade(self);
        spawn_local(async move {
            clock::sleep(delay).await;
            if let Some(log) = log.upgrade() {
                log.sync.put_off.set(false);
                log.start_sync();
            }
        });
    }

    /// Syncs in the background unless that happens already; a running sync
    /// looks again when it ends.
    fn start_sync(self: &Rc<Self>) {
        if self.failure.borrow().is_some() || self.sync.running.replace(true) {
            return;
        }
        let log = self.clone();
        spawn_local(async move {
            // A failure is handled where it happens: the log goes offline.
            let _ = log.run_sync().await;
        });
    }

    /// Makes everything written so far survive a power cut.
    pub(super) async fn sync_written(self: &Rc<Self>) -> Result<(), StorageError> {
        while self.sync.running.get() {
            self.progress.notified().await;
        }
        self.sync.running.set(true);
        self.run_sync().await
    }

    /// The sync itself; the caller has set `running`. Failing takes the log offline: after a failed
    /// sync the kernel may have dropped the bytes, and a second try would succeed and lie. So a log
    /// that has failed never counts as synced again.
    async fn run_sync(self: &Rc<Self>) -> Result<(), StorageError> {
        let target = self.positions.borrow().written.clone();
        let outcome = match self.failure() {
            None => {
                let _counting = self.delays.sync.count();
                self.sync_dirty().await
            }
            Some(_) => Ok(()),
        };
        self.sync.running.set(false);
        if let Err(error) = &outcome {
            self.fail("an fdatasync", error);
        }
        self.progress.notify_all();
        if let Some(failure) = self.failure() {
            return Err(failure);
        }
        self.note_synced(target);
        self.after_sync();
        Ok(())
    }

    async fn sync_dirty(&self) -> io::Result<()> {
        let dirty = self.sync.dirty.borrow().clone();
        for segment in dirty {
            let upto = segment.written.get();
            self.sync_segment(&segment).await?;
            // More may have been written meanwhile: then it stays listed.
            if segment.written.get() == upto {
                self.sync.dirty.borrow_mut().retain(|s| !Rc::ptr_eq(s, &segment));
            }
        }
        Ok(())
    }

    /// Tells of the synced end, and looks whether what was written meanwhile is
    /// to be synced as well.
    fn after_sync(self: &Rc<Self>) {
        self.announce();
        let ends = self.ends();
        if ends.written > ends.synced {
            self.after_write();
        }
    }

    /// Syncs one segment's file.
    pub(super) async fn sync_segment(&self, segment: &Rc<Segment>) -> io::Result<()> {
        let upto = segment.written.get();
        if upto <= segment.synced.get() {
            return Ok(());
        }
        segment.file().await?.fdatasync().await?;
        if !segment.entry_synced.get() {
            sync_dir(segment.dir()).await?;
            segment.entry_synced.set(true);
        }
        let gained = upto - segment.synced.get().min(upto);
        segment.synced.set(segment.synced.get().max(upto));
        let unsynced = &self.context.unsynced_bytes;
        unsynced.set(unsynced.get().saturating_sub(gained));
        Ok(())
    }
}
