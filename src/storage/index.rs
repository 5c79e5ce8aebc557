//! The sparse indexes of one segment, in Kafka's formats: `.index` (offset to position) and
//! `.timeindex` (timestamp to offset). Pure; offsets are relative to the segment's base offset.

use super::aborted::AbortedTxn;
use crate::model::record_batch::BatchHeader;

/// One entry of `.index`: the batch at `position` ends with record `last_offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OffsetEntry {
    pub last_offset: u32,
    pub position: u32,
}

/// One entry of `.timeindex`: no record up to `offset` is younger than `timestamp_ms`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeEntry {
    pub timestamp_ms: i64,
    pub offset: u32,
}

/// Bytes of an entry of `.index`.
pub const OFFSET_ENTRY_BYTES: usize = 8;
/// Bytes of an entry of `.timeindex`.
pub const TIME_ENTRY_BYTES: usize = 12;

/// Both indexes of a segment, and the aborted transactions whose markers it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentIndex {
    offsets: Vec<OffsetEntry>,
    times: Vec<TimeEntry>,
    /// By rising offset of the marker; kept in a file of its own.
    aborted: Vec<AbortedTxn>,
}

impl SegmentIndex {
    /// Notes a batch start. Entries come in rising order of both fields.
    pub fn push(&mut self, last_offset: u32, position: u32) {
        self.offsets.push(OffsetEntry { last_offset, position });
    }

    /// Notes the largest timestamp so far; ignored unless it is larger than the last one noted.
    pub fn push_time(&mut self, timestamp_ms: i64, offset: u32) {
        if timestamp_ms < 0 || self.times.last().is_some_and(|last| timestamp_ms <= last.timestamp_ms) {
            return;
        }
        self.times.push(TimeEntry { timestamp_ms, offset });
    }

    /// By rising offset of the marker.
    pub fn aborted(&self) -> &[AbortedTxn] {
        &self.aborted
    }

    /// Notes a transaction whose marker follows those that are noted.
    pub fn push_aborted(&mut self, txn: AbortedTxn) {
        self.aborted.push(txn);
    }

    pub fn set_aborted(&mut self, aborted: Vec<AbortedTxn>) {
        self.aborted = aborted;
    }

    /// Forgets the aborted transactions whose markers lie at or after `end`.
    /// True if there were any.
    pub fn cut_aborted(&mut self, end: i64) -> bool {
        let kept = self.aborted.partition_point(|txn| txn.last_offset < end);
        let cut = kept < self.aborted.len();
        self.aborted.truncate(kept);
        cut
    }

    pub fn offset_entries(&self) -> usize {
        self.offsets.len()
    }

    /// Memory held, bytes.
    pub fn memory_bytes(&self) -> usize {
        self.offsets.capacity() * size_of::<OffsetEntry>()
            + self.times.capacity() * size_of::<TimeEntry>()
            + self.aborted.capacity() * size_of::<AbortedTxn>()
    }

    /// A batch start at or before the batch that holds `offset`; 0: the segment's start.
    pub fn position_before_offset(&self, offset: u32) -> u32 {
        match self.offsets.partition_point(|e| e.last_offset <= offset) {
            0 => 0,
            n => self.offsets[n - 1].position,
        }
    }

    /// The last noted batch start at or before `position`; 0: the segment's start.
    pub fn position_at_or_before(&self, position: u32) -> u32 {
        match self.offsets.partition_point(|e| e.position <= position) {
            0 => 0,
            n => self.offsets[n - 1].position,
        }
    }

    /// An offset before which every record is older than `timestamp_ms`; 0: the segment's start.
    pub fn offset_before_time(&self, timestamp_ms: i64) -> u32 {
        match self.times.partition_point(|e| e.timestamp_ms < timestamp_ms) {
            0 => 0,
            n => self.times[n - 1].offset,
        }
    }

    pub fn last_time(&self) -> Option<TimeEntry> {
        self.times.last().copied()
    }

    /// Forgets entries at or after `position` / `offset`.
    pub fn truncate(&mut self, position: u32, offset: u32) {
        self.offsets.retain(|e| e.position < position && e.last_offset < offset);
        self.times.retain(|e| e.offset < offset);
    }

    /// Forgets entries at or after `position`, and timestamps that were noted without a
    /// batch start: those of a seal.
    pub fn reopen_at(&mut self, position: u32) {
        self.offsets.retain(|e| e.position < position);
        let last = self.offsets.last().map(|e| e.last_offset);
        self.times.retain(|e| last.is_some_and(|last| e.offset <= last));
    }

    /// The `.index` file: absolute offsets are `base + last_offset`.
    pub fn encode_offsets(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.offsets.len() * OFFSET_ENTRY_BYTES);
        for entry in &self.offsets {
            out.extend_from_slice(&entry.last_offset.to_be_bytes());
            out.extend_from_slice(&entry.position.to_be_bytes());
        }
        out
    }

    /// The `.timeindex` file.
    pub fn encode_times(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.times.len() * TIME_ENTRY_BYTES);
        for entry in &self.times {
            out.extend_from_slice(&entry.timestamp_ms.to_be_bytes());
            out.extend_from_slice(&entry.offset.to_be_bytes());
        }
        out
    }

    /// Checksums of both files as they would be written now.
    pub fn sums(&self) -> IndexSums {
        IndexSums::of(&self.encode_offsets(), &self.encode_times())
    }

    /// Both files; `None` when they cannot be right for a log file of `log_bytes` (odd length,
    /// entries out of order or beyond the file): the index is rebuilt from the log then.
    pub fn decode(offsets: &[u8], times: &[u8], log_bytes: u64) -> Option<SegmentIndex> {
        if !offsets.len().is_multiple_of(OFFSET_ENTRY_BYTES) || !times.len().is_multiple_of(TIME_ENTRY_BYTES) {
            return None;
        }
        let mut index = SegmentIndex::default();
        for entry in offsets.chunks_exact(OFFSET_ENTRY_BYTES) {
            let (offset, position) = entry.split_at(4);
            let last_offset = u32::from_be_bytes(offset.try_into().ok()?);
            let position = u32::from_be_bytes(position.try_into().ok()?);
            let rises = index.offsets.last().is_none_or(|l| last_offset > l.last_offset && position > l.position);
            if !rises || u64::from(position) >= log_bytes {
                return None;
            }
            index.offsets.push(OffsetEntry { last_offset, position });
        }
        for entry in times.chunks_exact(TIME_ENTRY_BYTES) {
            let (timestamp, offset) = entry.split_at(8);
            let timestamp_ms = i64::from_be_bytes(timestamp.try_into().ok()?);
            let offset = u32::from_be_bytes(offset.try_into().ok()?);
            if index.times.last().is_some_and(|l| timestamp_ms <= l.timestamp_ms || offset < l.offset) {
                return None;
            }
            index.times.push(TimeEntry { timestamp_ms, offset });
        }
        Some(index)
    }
}

/// Lengths and CRC-32C of a segment's index files. Kafka's formats have no room for them;
/// the checkpoint keeps them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IndexSums {
    pub offset_bytes: u32,
    pub offset_crc: u32,
    pub time_bytes: u32,
    pub time_crc: u32,
}

impl IndexSums {
    pub fn of(offsets: &[u8], times: &[u8]) -> IndexSums {
        let length = |bytes: &[u8]| u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        IndexSums {
            offset_bytes: length(offsets),
            offset_crc: crc32c::crc32c(offsets),
            time_bytes: length(times),
            time_crc: crc32c::crc32c(times),
        }
    }

    /// The files' beginnings that were there when the sums were made; `None` if they are no longer
    /// what they were. Files of a segment that still grows may have got longer since.
    pub fn check<'a>(&self, offsets: &'a [u8], times: &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
        let offsets = offsets.get(..self.offset_bytes as usize)?;
        let times = times.get(..self.time_bytes as usize)?;
        (IndexSums::of(offsets, times) == *self).then_some((offsets, times))
    }
}

/// State from which the index entries of a segment are made, batch by batch.
#[derive(Clone, Copy, Debug)]
pub struct EntryMaker {
    /// Bytes of batches since the last entry.
    pub since_entry: u64,
    /// Largest timestamp of a record, and the last offset of the batch that holds it;
    /// (-1, base): there is none.
    pub max_timestamp: i64,
    pub offset_of_max_timestamp: i64,
    /// Timestamp of the first batch with records.
    pub first_timestamp: Option<i64>,
}

impl EntryMaker {
    pub fn new(base_offset: i64) -> EntryMaker {
        EntryMaker { since_entry: 0, max_timestamp: -1, offset_of_max_timestamp: base_offset, first_timestamp: None }
    }

    /// Takes note of the batch at `position` that ends with `last_offset`; once more than
    /// `interval_bytes` lie behind the last entry, `index` gets one, if it is in memory.
    pub fn note(
        &mut self,
        header: &BatchHeader,
        (base_offset, last_offset): (i64, i64),
        position: u64,
        interval_bytes: u32,
        index: Option<&mut SegmentIndex>,
    ) {
        // A batch that cleaning has emptied has no record of its time.
        if header.record_count.get() > 0 {
            let timestamp = header.max_timestamp.get();
            self.first_timestamp.get_or_insert(timestamp);
            if timestamp > self.max_timestamp {
                self.max_timestamp = timestamp;
                self.offset_of_max_timestamp = last_offset;
            }
        }
        if self.since_entry > u64::from(interval_bytes) {
            if let Some(index) = index {
                index.push(relative(base_offset, last_offset), u32::try_from(position).unwrap_or(u32::MAX));
                index.push_time(self.max_timestamp, relative(base_offset, self.offset_of_max_timestamp));
            }
            self.since_entry = 0;
        }
        self.since_entry += u64::try_from(header.total_bytes()).unwrap_or(0);
    }
}

/// `offset` as the index files count it.
pub fn relative(base_offset: i64, offset: i64) -> u32 {
    u32::try_from(offset - base_offset).unwrap_or(u32::MAX)
}

/// The indexes of a segment whose batches come one after the other from its start.
pub struct IndexNotes {
    base_offset: i64,
    interval_bytes: u32,
    index: SegmentIndex,
    size: u64,
    maker: EntryMaker,
}

impl IndexNotes {
    pub fn new(base_offset: i64, interval_bytes: u32) -> IndexNotes {
        IndexNotes {
            base_offset,
            interval_bytes,
            index: SegmentIndex::default(),
            size: 0,
            maker: EntryMaker::new(base_offset),
        }
    }

    /// Takes note of the next batch.
    pub fn note(&mut self, header: &BatchHeader) {
        let offsets = (self.base_offset, header.next_offset() - 1);
        self.maker.note(header, offsets, self.size, self.interval_bytes, Some(&mut self.index));
        self.size += u64::try_from(header.total_bytes()).unwrap_or(0);
    }

    /// Entries of the offset index.
    pub fn entries(&self) -> usize {
        self.index.offset_entries()
    }

    /// Bytes of the batches noted.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The largest timestamp of a record, and the last offset of the batch that holds it;
    /// (-1, base): there is none.
    pub fn newest(&self) -> (i64, i64) {
        (self.maker.max_timestamp, self.maker.offset_of_max_timestamp)
    }

    /// The timestamp of the first batch with records.
    pub fn first_timestamp(&self) -> Option<i64> {
        self.maker.first_timestamp
    }

    /// The indexes of a segment that goes on.
    pub fn index(self) -> SegmentIndex {
        self.index
    }

    /// The indexes of a segment that takes no more: the largest timestamp is
    /// noted in full, as Kafka does.
    pub fn seal(mut self) -> SegmentIndex {
        let (timestamp, offset) = self.newest();
        self.index.push_time(timestamp, relative(self.base_offset, offset));
        self.index
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> SegmentIndex {
        let mut index = SegmentIndex::default();
        index.push(9, 4096);
        index.push(19, 8200);
        index.push(29, 13_000);
        index.push_time(1000, 9);
        index.push_time(900, 19);
        index.push_time(2000, 29);
        index
    }

    #[test]
    fn lookups_never_overshoot() {
        let index = sample();
        assert_eq!(index.position_before_offset(8), 0);
        assert_eq!(index.position_before_offset(9), 4096);
        assert_eq!(index.position_before_offset(25), 8200);
        assert_eq!(index.position_at_or_before(8199), 4096);
        assert_eq!(index.position_at_or_before(8200), 8200);
        assert_eq!(index.offset_before_time(1000), 0);
        assert_eq!(index.offset_before_time(1001), 9);
        assert_eq!(index.offset_before_time(9999), 29);
        assert_eq!(index.last_time(), Some(TimeEntry { timestamp_ms: 2000, offset: 29 }));
    }

    #[test]
    fn files_round_trip_and_damage_is_noticed() {
        let index = sample();
        let (offsets, times) = (index.encode_offsets(), index.encode_times());
        assert_eq!(SegmentIndex::decode(&offsets, &times, 20_000), Some(index));
        assert_eq!(SegmentIndex::decode(&offsets, &times, 13_000), None, "an entry beyond the log");
        assert_eq!(SegmentIndex::decode(&offsets[1..], &times, 20_000), None, "odd length");
        let mut swapped = offsets[8..].to_vec();
        swapped.extend_from_slice(&offsets[..8]);
        assert_eq!(SegmentIndex::decode(&swapped, &times, 20_000), None, "falling entries");
    }

    #[test]
    fn truncation_keeps_what_is_before() {
        let mut index = sample();
        index.truncate(13_000, 20);
        assert_eq!(index.offset_entries(), 2);
        assert_eq!(index.last_time(), Some(TimeEntry { timestamp_ms: 1000, offset: 9 }));
    }
}
