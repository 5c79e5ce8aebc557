//! Aborted transactions of a log, by the segment that holds their marker: Kafka's
//! `.txnindex` files (KIP-98).
//!
//! The list of a segment that still grows is in memory, and its file lags behind: a checkpoint and
//! sealing write it. A start takes from the file what lies before the recovery point and gets the
//! rest from the batches, so the file may have entries too many, but none too few. Files are
//! replaced whole and synced, only where a transaction was aborted.

use std::collections::HashMap;
use std::io::{self, Write};
use std::path::Path;
use std::rc::Rc;

use super::files::{drop_leftover, read_small, retry_on_fd_exhaustion};
use super::log::{Log, StorageError};
use super::paths::segment_file;
use super::reader::ReadError;
use super::segment::Segment;
use crate::model::record_batch::HEADER_BYTES;
use crate::model::{EndMarker, MarkerKind};
use crate::runtime::disk::{is_out_of_descriptors, write_small};
use crate::runtime::{fs, spawn_blocking};

/// Of a `.txnindex` file.
const EXTENSION: &str = "txnindex";
/// Version of its entries.
const VERSION: i16 = 0;
/// Bytes of an entry: version i16, producer id, first, last and last stable
/// offset i64 each, big-endian.
pub const ENTRY_BYTES: usize = 34;
/// The largest batch that is read to see whether it is a marker.
const MARKER_BYTES: u64 = 4096;

/// One aborted transaction in one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AbortedTxn {
    pub producer_id: i64,
    /// Of its first record.
    pub first_offset: i64,
    /// Of its marker.
    pub last_offset: i64,
    /// The last stable offset when the marker was written, if it had been committed by then:
    /// transactions that end later begin at or after it.
    pub last_stable_offset: i64,
}

/// The contents of a file.
pub fn encode(aborted: &[AbortedTxn]) -> Vec<u8> {
    let mut out = Vec::with_capacity(aborted.len() * ENTRY_BYTES);
    for txn in aborted {
        out.extend_from_slice(&VERSION.to_be_bytes());
        for number in [txn.producer_id, txn.first_offset, txn.last_offset, txn.last_stable_offset] {
            out.extend_from_slice(&number.to_be_bytes());
        }
    }
    out
}

/// The entries of a file of the segment that begins at `base`; `None`: it is damaged. What is not a
/// whole entry at its end was never finished.
pub fn decode(bytes: &[u8], base: i64) -> Option<Vec<AbortedTxn>> {
    let mut aborted: Vec<AbortedTxn> = Vec::with_capacity(bytes.len() / ENTRY_BYTES);
    for entry in bytes.chunks_exact(ENTRY_BYTES) {
        let (version, numbers) = entry.split_first_chunk::<2>()?;
        let mut numbers = numbers.as_chunks::<8>().0.iter().map(|bytes| i64::from_be_bytes(*bytes));
        let txn = AbortedTxn {
            producer_id: numbers.next()?,
            first_offset: numbers.next()?,
            last_offset: numbers.next()?,
            last_stable_offset: numbers.next()?,
        };
        let follows = aborted.last().is_none_or(|before| before.last_offset < txn.last_offset);
        let sound = txn.last_offset >= base && (0..=txn.last_offset).contains(&txn.first_offset);
        if i16::from_be_bytes(*version) != VERSION || !follows || !sound {
            return None;
        }
        aborted.push(txn);
    }
    Some(aborted)
}

/// The entries of a segment's file, and whether there is one. Blocks.
pub fn read_file(dir: &Path, base: i64) -> io::Result<(Vec<AbortedTxn>, bool)> {
    let path = segment_file(dir, base, EXTENSION);
    match read_small(&path) {
        Ok(bytes) => match decode(&bytes, base) {
            Some(aborted) => Ok((aborted, true)),
            None => Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{}: the index of aborted transactions is damaged", path.display()),
            )),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok((Vec::new(), false)),
        Err(error) => Err(super::compaction::named("read", &path, error)),
    }
}

/// Replaces a segment's file, for good; without entries there is none. Blocks.
fn replace_file(dir: &Path, base: i64, aborted: &[AbortedTxn]) -> io::Result<()> {
    let path = segment_file(dir, base, EXTENSION);
    if aborted.is_empty() {
        return match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
    }
    let temporary = path.with_extension("txnindex.tmp");
    let replaced = fs::File::create(&temporary).and_then(|mut file| {
        file.write_all(&encode(aborted))?;
        file.sync_data()?;
        fs::rename(&temporary, &path)
    });
    replaced.inspect_err(|_| drop_leftover(&temporary)).map_err(|error| super::compaction::named("write", &path, error))
}

impl Segment {
    /// [`read_file`] of this segment, off the event loop. What cannot be read is made anew when it
    /// is asked for: readers of all records need not know of it.
    pub(super) async fn read_aborted(&self) -> io::Result<Vec<AbortedTxn>> {
        if !self.aborted_file.get() {
            return Ok(Vec::new());
        }
        let (dir, base) = (self.dir(), self.base_offset);
        match spawn_blocking(move || read_file(&dir, base)).await {
            Ok((aborted, found)) => {
                self.aborted_file.set(found);
                Ok(aborted)
            }
            Err(error) if is_out_of_descriptors(&error) => Err(error),
            Err(error) => {
                tracing::error!(%error, "aborted transactions are looked for in the log again");
                self.aborted_lost.set(true);
                Ok(Vec::new())
            }
        }
    }

    /// The segment may hold markers of aborted transactions.
    pub(super) fn has_aborted(&self) -> bool {
        if self.aborted_lost.get() {
            return true;
        }
        match self.loaded_index() {
            Some(index) => !index.borrow().aborted().is_empty(),
            None => self.aborted_file.get(),
        }
    }

    /// Writes the file if it is not what is in memory, off the event loop.
    pub(super) async fn save_aborted(&self) -> io::Result<()> {
        let wanted = self.aborted_unsaved.get() && !self.aborted_lost.get();
        let Some(index) = self.loaded_index().filter(|_| wanted) else { return Ok(()) };
        self.aborted_unsaved.set(false);
        let aborted = index.borrow().aborted().to_vec();
        let written = write_aborted(self, aborted).await;
        self.aborted_unsaved.set(self.aborted_unsaved.get() || written.is_err());
        written
    }
}

/// Has `segment`'s file say `aborted`.
pub(super) async fn write_aborted(segment: &Segment, aborted: Vec<AbortedTxn>) -> io::Result<()> {
    let (dir, base, aborted) = (segment.dir(), segment.base_offset, Rc::new(aborted));
    segment.aborted_file.set(true);
    retry_on_fd_exhaustion(async || {
        let (dir, aborted) = (dir.clone(), aborted.to_vec());
        write_small(&segment.path(EXTENSION), move || replace_file(&dir, base, &aborted)).await
    })
    .await
}

impl Log {
    /// Notes an aborted transaction whose marker has been appended just now.
    pub fn note_aborted(&self, txn: AbortedTxn) -> Result<(), StorageError> {
        let segment = self.segment_at(txn.last_offset);
        let index = segment.as_ref().and_then(|segment| segment.loaded_index());
        match (segment, index) {
            (Some(segment), Some(index)) => {
                index.borrow_mut().push_aborted(txn);
                segment.aborted_unsaved.set(true);
                self.knows_aborts.set(true);
                Ok(())
            }
            // Readers would take the records for committed ones.
            _ => {
                self.broken(format_args!("the segment of a new marker has no index in memory"));
                Err(self.failure().unwrap_or(StorageError::Closed))
            }
        }
    }

    /// Changes whenever cleaning has forgotten aborted transactions, because their records are
    /// gone. Records that were read before may be theirs.
    pub fn forgotten_aborted(&self) -> u64 {
        self.clean.forgotten.get()
    }

    /// The aborted transactions that have records in `[from, upto)`, by the
    /// offsets of their markers.
    pub async fn aborted_within(self: &Rc<Self>, from: i64, upto: i64) -> Result<Vec<AbortedTxn>, ReadError> {
        let mut found = Vec::new();
        let mut next = self.segment_at(from).or_else(|| self.segment_after(from));
        while let Some(segment) = next {
            if segment.has_aborted() {
                let index = self.index_of(&segment).await?;
                if segment.aborted_lost.get() {
                    self.find_aborted_again(&segment).await?;
                }
                let index = index.borrow();
                // Markers in order: what lies before `from` is passed over.
                let aborted = index.aborted();
                let begin = aborted.partition_point(|txn| txn.last_offset < from);
                for txn in &aborted[begin..] {
                    if txn.first_offset < upto {
                        found.push(*txn);
                    }
                    if txn.last_stable_offset >= upto {
                        return Ok(found);
                    }
                }
            }
            next = self.segment_after(segment.base_offset);
        }
        Ok(found)
    }

    /// Makes the list of a segment's aborted transactions anew, from all batches up to its end.
    async fn find_aborted_again(self: &Rc<Self>, segment: &Rc<Segment>) -> Result<(), ReadError> {
        let (mut open, mut found) = (HashMap::new(), Vec::new());
        let segments: Vec<_> = self.segments.borrow().range(..=segment.base_offset).map(|(_, s)| s.clone()).collect();
        let mut end = segment.base_offset;
        for walked in segments {
            let (mut position, size) = (0, walked.size.get());
            while let Some(batch) = self.scan(&walked, position, size, |_| true).await? {
                let (header, begin) = (batch.header, position);
                (position, end) = (batch.end(), header.next_offset());
                let producer_id = header.producer_id.get();
                if !header.is_transactional() {
                    continue;
                }
                if !header.is_control() {
                    open.entry(producer_id).or_insert(header.base());
                    continue;
                }
                let marker = self.marker_at(&walked, begin, batch.end() - begin).await?;
                let ended = marker.and_then(|marker| Some((marker.kind, open.remove(&producer_id)?)));
                if let Some((MarkerKind::Abort, first_offset)) = ended
                    && header.base() >= segment.base_offset
                {
                    let (last_offset, others) = (header.base(), open.values().copied().min());
                    let last_stable_offset = others.unwrap_or(last_offset + 1);
                    found.push(AbortedTxn { producer_id, first_offset, last_offset, last_stable_offset });
                }
            }
        }
        let Some(index) = segment.loaded_index() else { return Ok(()) };
        let mut index = index.borrow_mut();
        // Noted meanwhile.
        found.extend(index.aborted().iter().filter(|txn| txn.last_offset >= end));
        index.set_aborted(found);
        segment.aborted_lost.set(false);
        segment.aborted_unsaved.set(true);
        Ok(())
    }

    /// Some segment from the one of `from` on may hold markers of aborted transactions.
    pub fn may_have_aborted(&self, from: i64) -> bool {
        if !self.knows_aborts.get() {
            return false;
        }
        let base = self.segment_at(from).map_or(from, |segment| segment.base_offset);
        self.segments.borrow().range(base..).any(|(_, segment)| segment.has_aborted())
    }

    /// The marker in the control batch that lies at `position` of `segment` and takes
    /// `bytes`; `None`: it is none.
    pub(super) async fn marker_at(
        self: &Rc<Self>,
        segment: &Rc<Segment>,
        position: u64,
        bytes: u64,
    ) -> io::Result<Option<EndMarker>> {
        if !(HEADER_BYTES as u64..=MARKER_BYTES).contains(&bytes) {
            return Ok(None);
        }
        let mut slices = super::slices::Slices::default();
        self.slices(segment, position, position + bytes, &mut slices).await?;
        Ok(EndMarker::of(&slices.list.concat()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn txn(producer_id: i64, first_offset: i64, last_offset: i64) -> AbortedTxn {
        AbortedTxn { producer_id, first_offset, last_offset, last_stable_offset: last_offset + 1 }
    }

    #[test]
    fn files_round_trip_and_damage_is_noticed() {
        let aborted = [txn(7, 3, 20), txn(8, 15, 21), txn(7, 30, 34)];
        let bytes = encode(&aborted);
        assert_eq!(bytes.len(), 3 * ENTRY_BYTES);
        assert_eq!(decode(&bytes, 20), Some(aborted.to_vec()));
        assert_eq!(decode(&bytes, 21), None, "a marker before the segment");
        assert_eq!(decode(&bytes[..ENTRY_BYTES + 5], 20), Some(vec![aborted[0]]), "an entry that was never finished");
        let mut version = bytes.clone();
        version[1] = 1;
        assert_eq!(decode(&version, 20), None);
        assert_eq!(decode(&encode(&[aborted[1], aborted[0]]), 20), None, "out of order");
        assert_eq!(decode(&encode(&[txn(7, 22, 21)]), 20), None, "it ends before it begins");
        assert_eq!(decode(&[], 20), Some(vec![]));
    }
}
