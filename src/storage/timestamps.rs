//! Offsets by timestamp: the indexes and batch headers narrow it down to one batch, whose
//! records are then walked.

use std::rc::Rc;

use super::log::Log;
use super::reader::{Found, ReadError};
use super::segment::Segment;
use super::slices::Slices;
use crate::model::record_batch::BatchHeader;
use crate::model::records::{self, RecordMeta};
use crate::runtime::spawn_blocking;

/// Batches whose headers turned out wrong that one search puts up with.
const MAX_LIES: u32 = 4;

impl Log {
    /// The first record before the offset `limit` whose timestamp is `timestamp_ms` or later:
    /// its offset and timestamp.
    pub async fn find_by_time(self: &Rc<Self>, timestamp_ms: i64, limit: i64) -> Result<Option<(i64, i64)>, ReadError> {
        self.through_exchanges(async |segments| self.first_at_or_after(segments, timestamp_ms, limit).await).await
    }

    /// Runs a search over the log's segments, once more where cleaning has taken
    /// one of them away meanwhile.
    pub(super) async fn through_exchanges<T>(
        self: &Rc<Self>,
        search: impl AsyncFn(&[Rc<Segment>]) -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        loop {
            let segments: Vec<Rc<Segment>> = self.segments.borrow().values().cloned().collect();
            let found = search(&segments).await;
            match (&found, segments.iter().find(|segment| segment.is_replaced())) {
                (Err(_), Some(replaced)) if self.failure().is_none() => self.until_exchanged(replaced).await,
                (Err(error), _) if self.mend(error).await => {}
                _ => return found,
            }
        }
    }

    async fn first_at_or_after(
        self: &Rc<Self>,
        candidates: &[Rc<Segment>],
        timestamp_ms: i64,
        limit: i64,
    ) -> Result<Option<(i64, i64)>, ReadError> {
        let limit = self.place_of(limit).await?;
        let reaches = |h: &BatchHeader| h.max_timestamp.get() >= timestamp_ms && h.record_count.get() > 0;
        let mut lies = 0;
        for segment in candidates {
            if !segment.times_known.get() {
                self.index_of(segment).await?;
            }
            if segment.times_known.get() && segment.max_timestamp.get() < timestamp_ms {
                continue;
            }
            let upto = limit.within(segment);
            let relative = self.index_of(segment).await?.borrow().offset_before_time(timestamp_ms);
            let from = (segment.base_offset + i64::from(relative)).max(self.start_offset());
            let Some(mut batch) = self.find_offset(segment, from, upto).await? else { continue };
            loop {
                if reaches(&batch.header) {
                    // The log may begin amid a batch.
                    let start = self.start_offset();
                    let wanted = move |bytes: &[u8]| records::first_at_or_after(bytes, timestamp_ms, start);
                    match self.walk(segment, &batch, wanted).await? {
                        Some(record) => return Ok(Some((record.offset, record.timestamp_ms))),
                        None if batch.header.base() < start => {}
                        // A header that promises what its records do not hold (or cannot be read):
                        // written by an older version, or unchecked
                        // (corelane.produce.validate=header). The search ends: earlier is safe.
                        None if lies >= MAX_LIES => {
                            return Ok(Some((batch.header.base(), batch.header.base_timestamp.get())));
                        }
                        None => lies += 1,
                    }
                }
                match self.scan(segment, batch.end(), upto, reaches).await? {
                    Some(next) => batch = next,
                    None => break,
                }
            }
        }
        Ok(None)
    }

    /// The first record with the largest timestamp: its offset and timestamp. `None` as well while
    /// that record is not before the offset `limit`.
    pub async fn find_max_time(self: &Rc<Self>, limit: i64) -> Result<Option<(i64, i64)>, ReadError> {
        self.through_exchanges(async |segments| self.newest_of(segments, limit).await).await
    }

    async fn newest_of(self: &Rc<Self>, segments: &[Rc<Segment>], limit: i64) -> Result<Option<(i64, i64)>, ReadError> {
        let limit = self.place_of(limit).await?;
        for segment in segments.iter().filter(|s| !s.times_known.get()) {
            self.index_of(segment).await?;
        }
        let newest = segments.iter().rev().max_by_key(|s| s.max_timestamp.get());
        let Some(segment) = newest.filter(|s| s.max_timestamp.get() >= 0) else { return Ok(None) };
        let upto = limit.within(segment);
        let Some(batch) = self.find_offset(segment, segment.offset_of_max_timestamp.get(), upto).await? else {
            return Ok(None);
        };
        let record = self.walk(segment, &batch, records::latest).await?;
        Ok(record.map(|r| (r.offset, r.timestamp_ms)))
    }

    /// Reads the batch and looks through its records off the event loop (it may
    /// have to be decompressed).
    async fn walk(
        self: &Rc<Self>,
        segment: &Rc<Segment>,
        batch: &Found,
        wanted: impl FnOnce(&[u8]) -> Result<Option<RecordMeta>, records::RecordError> + Send + 'static,
    ) -> Result<Option<RecordMeta>, ReadError> {
        let mut slices = Slices::default();
        self.slices(segment, batch.position, batch.end(), &mut slices).await?;
        let found = spawn_blocking(move || wanted(&slices.list.concat())).await;
        Ok(found.unwrap_or_else(|error| {
            tracing::debug!(segment = %segment.path("log").display(), position = batch.position, %error, "a batch cannot be read into");
            None
        }))
    }
}
