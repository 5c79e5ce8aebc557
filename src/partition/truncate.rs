//! The log of another replica taken over: its batches as they are, and cuts
//! where the own log has others.

use std::collections::BTreeSet;
use std::io;
use std::rc::Rc;

use bytes::Bytes;

use super::epochs::EpochHistory;
use super::replica::{Replica, split_sidecar};
use crate::model::{EndMarker, record_batch};
use crate::storage::{ReadError, ReplicateError, StorageError, TruncateError};

/// Knowledge of a log beside its records, as it was before a truncation.
struct Before {
    epochs: EpochHistory,
    producers: Vec<u8>,
}

impl Replica {
    /// Appends the leader's batches as they are, back to back in `records`; returns the log's
    /// end. Epochs and producers are noted from their headers. On an error the batches before the
    /// bad one have been appended.
    pub async fn append_as_is(&self, mut records: Bytes, now_ms: i64) -> Result<i64, ReplicateError> {
        let _moving = self.begin_move();
        while !records.is_empty() {
            let end = self.log.ends().appended;
            let framed = record_batch::frame(&records).map(|(header, total)| (*header, total));
            let (header, total) = framed.map_err(|why| ReplicateError::NotSound { end, why })?;
            let batch = records.split_to(total);
            let marker = header.is_control().then(|| batch.clone());
            let appended = self.log.append_as_is(batch, now_ms).await?;
            if self.epochs.borrow_mut().assign(header.partition_leader_epoch.get(), appended.base_offset) {
                self.epochs_unsaved.set(true);
            }
            if header.is_idempotent() {
                let end = marker.as_deref().and_then(EndMarker::of);
                self.note_as_is(&header, end, appended.base_offset, now_ms)?;
            }
        }
        Ok(self.log.ends().appended)
    }

    /// Cuts the log to the last batch boundary at or before `end`; returns that, the log's new end.
    /// Epochs and producers are then what they would be if the rest had never been there. Kafka's
    /// `truncateTo`. On an error nothing has changed, or the partition is offline.
    pub async fn truncate_to(self: &Rc<Self>, end: i64, now_ms: i64) -> Result<i64, TruncateError> {
        if end < self.start_offset() {
            return self.truncate_fully_and_start_at(end).await.map(|()| end).map_err(TruncateError::from);
        }
        let _moving = self.begin_move();
        let before = self.before();
        let state = async |end| {
            self.forget_after(end, now_ms).await?;
            self.save_epochs().await;
            Ok(self.sidecar())
        };
        match self.log.truncate_to(end, state).await {
            Ok(end) => {
                self.was_cut(end);
                Ok(end)
            }
            Err(error) => {
                self.restore(before);
                self.save_epochs().await;
                Err(error)
            }
        }
    }

    /// Removes all records and has the log begin at `begin`. Kafka's `truncateFullyAndStartAt`. On
    /// an error nothing has changed, or the partition is offline.
    pub async fn truncate_fully_and_start_at(self: &Rc<Self>, begin: i64) -> Result<(), StorageError> {
        let _moving = self.begin_move();
        let before = self.before();
        self.epochs.take();
        self.producers.borrow_mut().forget_all();
        self.save_epochs().await;
        if let Err(error) = self.log.truncate_fully_and_start_at(begin, self.sidecar()).await {
            self.restore(before);
            self.save_epochs().await;
            return Err(error);
        }
        self.was_begun_at(begin);
        Ok(())
    }

    fn before(&self) -> Before {
        Before { epochs: self.epochs.borrow().clone(), producers: self.producers.borrow().encode() }
    }

    fn restore(&self, before: Before) {
        *self.epochs.borrow_mut() = before.epochs;
        let mut producers = self.producers.borrow_mut();
        producers.forget_all();
        // Just encoded: sound.
        let _ = producers.restore(&before.producers);
        drop(producers);
        self.transactions_cut(i64::MAX);
    }

    /// Has epochs and producers be as if the log ended at `end`. Producers that wrote nothing
    /// behind it stay as they are; the others are made anew from the checkpoint, where it lies
    /// before, and the batches.
    async fn forget_after(&self, end: i64, now_ms: i64) -> Result<(), ReadError> {
        self.epochs.borrow_mut().truncate(end);
        let cut = self.producers.borrow_mut().forget_after(end);
        if cut.is_empty() {
            return Ok(());
        }
        let from = self.restore_some(end, &cut).await?.unwrap_or_else(|| self.start_offset());
        self.log
            .walk_headers(from, end, &mut |header, marker| {
                if header.is_idempotent() && cut.contains(&header.producer_id.get()) {
                    let mut producers = self.producers.borrow_mut();
                    match marker {
                        Some(end) => drop(producers.note_stored_marker(header, end, now_ms)),
                        None if header.is_control() => {}
                        None => drop(producers.note_stored(header, now_ms)),
                    }
                }
            })
            .await
    }

    /// Restores these producers from the checkpoint if it lies at or before `end`; where it lies.
    async fn restore_some(&self, end: i64, ids: &BTreeSet<i64>) -> io::Result<Option<i64>> {
        let stored = self.log.stored_checkpoint().await?;
        let Some(checkpoint) = stored.filter(|checkpoint| checkpoint.recovery_point <= end) else { return Ok(None) };
        let (_, states) = split_sidecar(&checkpoint.sidecar);
        let mut producers = self.producers.borrow_mut();
        if states.is_empty() || producers.restore_only(states, |id| ids.contains(&id)).is_ok() {
            return Ok(Some(checkpoint.recovery_point));
        }
        producers.forget(ids);
        Ok(None)
    }

    /// The file of epochs as they are now, before the checkpoint has a copy and before the records
    /// go: epochs that are missing in the file are found in the checkpoint and the batches, those
    /// that it has too many are believed. Without room for it, the next checkpoint tries again.
    pub(super) async fn save_epochs(&self) {
        let text = || {
            // One may begin while the file is written.
            self.epochs_unsaved.set(false);
            self.epochs.borrow().format()
        };
        if self.epochs_file.replace(&self.log.dir(), EpochHistory::FILE, text).await.is_err() {
            self.epochs_unsaved.set(true);
        }
    }
}

/// For tests of other layers, which hold a replica to another one.
#[cfg(test)]
impl Replica {
    pub fn known_epochs(&self) -> EpochHistory {
        self.epochs.borrow().clone()
    }

    pub fn check_sequence(&self, header: &record_batch::BatchHeader) -> super::SequenceCheck {
        self.producers.borrow().check(header)
    }
}
