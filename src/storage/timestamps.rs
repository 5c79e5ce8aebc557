//! Offsets by timestamp: the indexes and batch headers narrow it down to one batch, whose records are then walked.

use std::io;
use std::rc::Rc;

use bytes::Bytes;

use super::log::Log;
use super::reader::{Found, ReadError};
use super::segment::Segment;
use crate::model::records::{self, RecordMeta};
use crate::runtime::spawn_blocking;

impl Log {
    /// The first record whose timestamp is `timestamp_ms` or later: its offset and timestamp.
    pub async fn find_by_time(self: &Rc<Self>, timestamp_ms: i64) -> Result<Option<(i64, i64)>, ReadError> {
        let candidates: Vec<Rc<Segment>> =
            self.segments.borrow().values().filter(|s| s.max_timestamp.get() >= timestamp_ms).cloned().collect();
        for segment in candidates {
            let visible = self.visible_in(&segment);
            let relative = self.index_of(&segment).await?.borrow().offset_before_time(timestamp_ms);
            let from = (segment.base_offset + i64::from(relative)).max(self.start_offset());
            let Some(mut batch) = self.find_offset(&segment, from, visible).await? else { continue };
            loop {
                if batch.header.max_timestamp.get() >= timestamp_ms {
                    let wanted = move |bytes: &[u8]| records::first_at_or_after(bytes, timestamp_ms);
                    if let Some(record) = self.walk(&segment, &batch, wanted).await?
                        && record.offset >= self.start_offset()
                    {
                        return Ok(Some((record.offset, record.timestamp_ms)));
                    }
                }
                match self.scan(&segment, batch.end(), visible, |h| h.max_timestamp.get() >= timestamp_ms).await? {
                    Some(next) => batch = next,
                    None => break,
                }
            }
        }
        Ok(None)
    }

    /// The first record with the largest timestamp: its offset and timestamp.
    pub async fn find_max_time(self: &Rc<Self>) -> Result<Option<(i64, i64)>, ReadError> {
        let newest = self.segments.borrow().values().rev().max_by_key(|s| s.max_timestamp.get()).cloned();
        let Some(segment) = newest.filter(|s| s.max_timestamp.get() >= 0) else { return Ok(None) };
        let visible = self.visible_in(&segment);
        let Some(batch) = self.find_offset(&segment, segment.offset_of_max_timestamp.get(), visible).await? else {
            return Ok(None);
        };
        let record = self.walk(&segment, &batch, records::latest).await?;
        Ok(record.map(|r| (r.offset, r.timestamp_ms)))
    }

    /// Reads the batch and looks through its records off the event loop (it may have to be decompressed).
    async fn walk(
        self: &Rc<Self>,
        segment: &Rc<Segment>,
        batch: &Found,
        wanted: impl FnOnce(&[u8]) -> Result<Option<RecordMeta>, records::RecordError> + Send + 'static,
    ) -> Result<Option<RecordMeta>, ReadError> {
        let mut slices: Vec<Bytes> = Vec::new();
        self.slices(segment, batch.position, batch.end(), &mut slices).await?;
        let found = spawn_blocking(move || wanted(&slices.concat())).await;
        found.map_err(|error| ReadError::Io(io::Error::new(io::ErrorKind::InvalidData, error.to_string())))
    }
}
