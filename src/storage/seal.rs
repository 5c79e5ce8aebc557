//! Sealing of a segment that takes no more appends: cut to its length, indexes written, synced. In
//! the background.

use std::io;
use std::rc::Rc;

use super::log::{Log, StorageError};
use super::segment::Segment;
use crate::runtime::disk::is_full;
use crate::runtime::spawn_local;

impl Log {
    pub(super) fn seal_later(self: &Rc<Self>, segment: Rc<Segment>) {
        let log = self.clone();
        log.sealing.set(log.sealing.get() + 1);
        spawn_local(async move {
            if let Err(error) = log.seal(&segment).await {
                segment.seal_waits.set(is_full(&error));
                log.put_off("sealing a segment", &error);
                log.progress.notify_all();
            }
            log.sealing.set(log.sealing.get() - 1);
        });
    }

    /// Waits for the segment's last write, then makes it ready for Kafka's tools and for a
    /// start that need not read it.
    pub(super) async fn seal(self: &Rc<Self>, segment: &Rc<Segment>) -> io::Result<()> {
        if self.settle(segment).await.is_err() || segment.sealed.get() {
            // The log has failed; recovery will find what there is.
            return Ok(());
        }
        self.cut_to_size(segment).await?;
        segment.write_index_files(true).await?;
        segment.save_aborted().await?;
        self.sync_segment(segment).await?;
        segment.sealed.set(true);
        self.context.indexes.admit(segment);
        self.context.indexes.admit_file(segment);
        self.progress.notify_all();
        Ok(())
    }

    /// Waits until every segment but the active one is sealed, or waits for room.
    pub(super) async fn wait_sealed(&self) -> Result<(), StorageError> {
        loop {
            if let Some(failure) = self.failure() {
                return Err(failure);
            }
            let active = self.active();
            let waiting = self
                .segments
                .borrow()
                .values()
                .any(|s| !Rc::ptr_eq(s, &active) && !s.sealed.get() && !s.seal_waits.get());
            if !waiting {
                return Ok(());
            }
            self.progress.notified().await;
        }
    }

    /// Waits until nothing of `segment` is queued, in flight, being reserved, or being zeroed.
    pub(super) async fn settle(self: &Rc<Self>, segment: &Rc<Segment>) -> Result<(), StorageError> {
        let busy = || segment.allocating.get() || segment.ahead.is_running();
        while segment.written.get() < segment.size.get() || busy() {
            if let Some(failure) = self.failure() {
                return Err(failure);
            }
            self.write_everything();
            self.progress.notified().await;
        }
        self.failure().map_or(Ok(()), Err)
    }

    /// Drops reserved blocks and the padding of the last one. Nothing of the
    /// segment may be in flight.
    async fn cut_to_size(&self, segment: &Rc<Segment>) -> io::Result<()> {
        if !segment.is_on_disk() && segment.size.get() == 0 {
            return Ok(());
        }
        let file = segment.file().await?;
        let size = segment.size.get();
        if segment.allocated.get() != size {
            file.truncate(size).await?;
            segment.allocated.set(size);
        }
        Ok(())
    }

    /// Ends the log in good order: everything written and synced, files cut to their
    /// length, indexes on disk.
    pub(super) async fn settle_active(self: &Rc<Self>) -> Result<(), StorageError> {
        let active = self.active();
        self.settle(&active).await?;
        let cut = async {
            self.cut_to_size(&active).await?;
            if active.is_on_disk() {
                active.write_index_files(false).await?;
                active.save_aborted().await?;
            }
            io::Result::Ok(())
        };
        let cut = cut.await;
        self.sync_written().await?;
        cut.map_err(|error| self.put_off("closing the log", &error))
    }
}
