//! Segments read from outside of a broker: their batches one by one, and whether log and indexes
//! are sound. Changes nothing. Blocks.
//!
//! The formats are Kafka's, so directories that Kafka wrote are read as well.

use std::collections::BTreeMap;
use std::io;
use std::ops::{ControlFlow, Range};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::index::{OFFSET_ENTRY_BYTES, TIME_ENTRY_BYTES};
use super::paths::{PARTITION_METADATA, parse_partition_dir, parse_segment_file, segment_file};
use super::rot::{Bounds, MAX_BATCH_BYTES, Stretch, survey};
use crate::model::record_batch::{self, BatchHeader, HEADER_BYTES};
use crate::model::records::{self, RecordError};
use crate::runtime::fs::{self, File};

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;

/// A partition's directory, or one of its segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionFiles {
    pub dir: PathBuf,
    /// Base offsets of the segments to look at, rising.
    pub segments: Vec<i64>,
    /// Base offsets of all segments of the directory.
    all: Vec<i64>,
    /// Files of damaged bytes that starts have set aside.
    pub set_aside: Vec<PathBuf>,
    /// Why the directory cannot be read.
    pub unread: Option<String>,
    /// It has a segment, or the file that tells whose partition it is.
    is_one: bool,
}

fn unread(dir: &Path, error: &io::Error) -> PartitionFiles {
    let unread = Some(error.to_string());
    let dir = dir.to_path_buf();
    PartitionFiles { dir, segments: Vec::new(), all: Vec::new(), set_aside: Vec::new(), unread, is_one: true }
}

/// The partitions that `path` names: a segment's `.log` file, a partition's directory, or a
/// directory with partitions.
pub fn find_partitions(path: &Path) -> io::Result<Vec<PartitionFiles>> {
    if !fs::metadata(path)?.is_dir() {
        return one_segment(path).map(|found| vec![found]);
    }
    let here = partition_files(path)?;
    if here.is_one {
        return Ok(vec![here]);
    }
    let mut found = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let is_partition = entry.file_name().to_str().is_some_and(|name| parse_partition_dir(name).is_some());
        // Through a link, too.
        if is_partition && fs::metadata(entry.path()).is_ok_and(|found| found.is_dir()) {
            let files = partition_files(&entry.path()).unwrap_or_else(|error| unread(&entry.path(), &error));
            found.extend(files.is_one.then_some(files));
        }
    }
    found.sort_by_key(|files| by_partition(&files.dir));
    Ok(found)
}

fn by_partition(dir: &Path) -> (String, i32) {
    let name = dir.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    parse_partition_dir(name).map_or((name.to_owned(), 0), |(topic, partition)| (topic.to_owned(), partition))
}

fn one_segment(path: &Path) -> io::Result<PartitionFiles> {
    let base = path.file_name().and_then(|name| parse_segment_file(name.to_str()?, "log"));
    let base = base.ok_or_else(|| {
        let why = "it is no segment: a segment's file is named by its base offset, such as 00000000000000000000.log";
        io::Error::new(io::ErrorKind::InvalidInput, why)
    })?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok(PartitionFiles { segments: vec![base], set_aside: Vec::new(), ..partition_files(dir)? })
}

fn partition_files(dir: &Path) -> io::Result<PartitionFiles> {
    let (mut all, mut set_aside, mut is_named) = (Vec::new(), Vec::new(), false);
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if let Some(base) = parse_segment_file(name, "log") {
            all.push(base);
        } else if name.ends_with(".rot") {
            set_aside.push(entry.path());
        } else if name == PARTITION_METADATA {
            is_named = true;
        }
    }
    all.sort_unstable();
    set_aside.sort();
    let is_one = is_named || !all.is_empty();
    Ok(PartitionFiles { dir: dir.to_path_buf(), segments: all.clone(), all, set_aside, unread: None, is_one })
}

impl PartitionFiles {
    /// Bounds of a segment of so many bytes. What offsets cleaning has taken is not known here.
    fn bounds(&self, base: i64, size: u64) -> Bounds {
        let next = self.all.iter().copied().find(|other| *other > base);
        Bounds {
            size,
            from_offset: base,
            end_offset: next.unwrap_or(i64::MAX),
            end_known: next.is_some(),
            gap_at_end: true,
            reserved: true,
        }
    }

    /// Shows `visit` the batches and the damaged stretches of a segment in their order.
    pub fn walk(&self, base: i64, visit: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>) -> io::Result<()> {
        let path = segment_file(&self.dir, base, "log");
        check_regular(&path)?;
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        for stretch in survey(&file, 0, self.bounds(base, size))? {
            if !stretch.sound {
                let why = complaint(&file, &stretch, size)?;
                if visit(Piece::Damage { bytes: stretch.bytes, offsets: stretch.offsets, why }).is_break() {
                    return Ok(());
                }
            } else if walk_batches(&file, stretch.bytes, visit)?.is_break() {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Checks a segment's log and indexes; with `deep`, the records of its batches too.
    pub fn verify(&self, base: i64, deep: bool) -> io::Result<SegmentReport> {
        let path = segment_file(&self.dir, base, "log");
        let file_bytes = fs::metadata(&path)?.len();
        let mut report = SegmentReport { path, file_bytes, next_offset: base, ..SegmentReport::default() };
        let mut starts = Starts::default();
        self.walk(base, &mut |piece| {
            report.note(&piece, deep);
            if let Piece::Batch { position, header, .. } = piece {
                starts.note(position, header);
            }
            ControlFlow::Continue(())
        })?;
        if report.damage.is_empty() {
            for (extension, check) in [("index", Starts::check_offsets as Check), ("timeindex", Starts::check_times)] {
                let path = segment_file(&self.dir, base, extension);
                match check_regular(&path).and_then(|()| fs::read(&path)) {
                    Ok(bytes) => report.note_index(path, check(&starts, base, &bytes)),
                    // A segment that is still written to may have none.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
                }
            }
        }
        Ok(report)
    }
}

/// Reading a pipe or a device has no end.
fn check_regular(path: &Path) -> io::Result<()> {
    if fs::metadata(path)?.is_file() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"))
}

/// One piece of a segment, as a walk over it meets them.
pub enum Piece<'a> {
    Batch { position: u64, header: &'a BatchHeader, bytes: &'a [u8] },
    Damage { bytes: Range<u64>, offsets: Range<i64>, why: String },
}

/// Reads the sound batches in `range`.
fn walk_batches(
    file: &File,
    range: Range<u64>,
    visit: &mut dyn FnMut(Piece<'_>) -> ControlFlow<()>,
) -> io::Result<ControlFlow<()>> {
    let (mut position, mut held): (u64, Vec<u8>) = (range.start, Vec::new());
    let mut used = 0;
    while position < range.end {
        let left = range.end - position;
        let wanted = match BatchHeader::peek(&held[used..]) {
            Some(header) => u64::try_from(header.total_bytes()).unwrap_or(0),
            None => HEADER_BYTES as u64,
        };
        if (held.len() - used) as u64 >= wanted.max(HEADER_BYTES as u64) {
            let bytes = &held[used..used + wanted as usize];
            let Some(header) = BatchHeader::peek(bytes) else { return Err(changed()) };
            if visit(Piece::Batch { position, header, bytes }).is_break() {
                return Ok(ControlFlow::Break(()));
            }
            (position, used) = (position + wanted, used + wanted as usize);
            continue;
        }
        // The survey has found whole batches here: one that is longer than the rest is another one.
        if wanted > left {
            return Err(changed());
        }
        held.clear();
        held.resize(left.min(wanted.max(CHUNK as u64)) as usize, 0);
        used = 0;
        file.read_exact_at(&mut held, position)?;
    }
    Ok(ControlFlow::Continue(()))
}

fn changed() -> io::Error {
    io::Error::other("it has changed while it was read: end the broker first")
}

/// The first complaint about a damaged stretch. It may end in zeros, which the stretch leaves out
/// at the file's end.
fn complaint(file: &File, stretch: &Stretch, size: u64) -> io::Result<String> {
    let start = stretch.bytes.start;
    let read = |bytes: u64| {
        let mut read = vec![0; bytes.min(size - start) as usize];
        file.read_exact_at(&mut read, start).map(|()| read)
    };
    let head = read(HEADER_BYTES as u64)?;
    if head.iter().all(|byte| *byte == 0) {
        return Ok("zeros, where a batch was never written or is gone".to_owned());
    }
    let total = BatchHeader::peek(&head).and_then(|header| u64::try_from(header.total_bytes()).ok()).unwrap_or(0);
    let bytes = if total <= MAX_BATCH_BYTES { read(total.max(HEADER_BYTES as u64))? } else { head };
    Ok(match record_batch::check(&bytes) {
        Err(error) => error.to_string(),
        Ok(header) if header.record_count.get() < 0 || header.last_offset_delta.get() < 0 => {
            format!(
                "a batch that counts {} records and a last offset delta of {}",
                header.record_count, header.last_offset_delta
            )
        }
        Ok(header) => format!("a batch of offset {}, which does not follow here", header.base()),
    })
}

/// Damaged bytes of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    pub path: PathBuf,
    pub bytes: Range<u64>,
    /// Records that are missing; none where it is known that none is.
    pub offsets: Range<i64>,
    pub why: String,
    /// The next start makes it anew.
    pub rebuilt: bool,
}

/// A segment as it was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SegmentReport {
    pub path: PathBuf,
    pub file_bytes: u64,
    pub batches: u64,
    pub records: u64,
    /// Of the first batch; `None`: there is none.
    pub first_offset: Option<i64>,
    /// After the last record.
    pub next_offset: i64,
    pub damage: Vec<Damage>,
}

impl SegmentReport {
    fn note(&mut self, piece: &Piece, deep: bool) {
        match piece {
            Piece::Damage { bytes, offsets, why } => self.damage.push(Damage {
                path: self.path.clone(),
                bytes: bytes.clone(),
                offsets: offsets.clone(),
                why: why.clone(),
                rebuilt: false,
            }),
            Piece::Batch { position, header, bytes } => {
                self.batches += 1;
                self.records += u64::try_from(header.record_count.get()).unwrap_or(0);
                self.first_offset.get_or_insert(header.base());
                self.next_offset = header.next_offset();
                if deep && let Some(error) = unreadable(bytes) {
                    self.damage.push(Damage {
                        path: self.path.clone(),
                        bytes: *position..position + bytes.len() as u64,
                        offsets: header.base()..header.next_offset(),
                        why: format!("its CRC is right, and its records cannot be read: {error}"),
                        rebuilt: false,
                    });
                }
            }
        }
    }

    fn note_index(&mut self, path: PathBuf, outcome: Result<(), Wrong>) {
        if let Err((bytes, why)) = outcome {
            self.damage.push(Damage { path, bytes, offsets: 0..0, why, rebuilt: true });
        }
    }
}

/// Bytes of an index that cannot be right, and why.
type Wrong = (Range<u64>, String);

/// Why a batch's records cannot be read. One that decompresses to more than is
/// looked at may be sound.
fn unreadable(batch: &[u8]) -> Option<RecordError> {
    let inspected = records::inspect(batch, records::MAX_OUTPUT_BYTES, &mut |_| {}).map(drop);
    let read = inspected.and_then(|()| records::walk(batch, &mut |_| ControlFlow::Continue(())));
    read.err().filter(|error| !matches!(error, RecordError::TooLarge { .. }))
}

type Check = fn(&Starts, i64, &[u8]) -> Result<(), Wrong>;

/// Batches by their position, for checks of indexes.
#[derive(Default)]
struct Starts {
    /// Position: the offsets of the batch there, and the last one before it.
    batches: BTreeMap<u64, (Range<i64>, i64)>,
    /// Next offset: the largest timestamp of all batches up to it.
    times: BTreeMap<i64, i64>,
    last: Option<i64>,
    largest: i64,
}

impl Starts {
    fn note(&mut self, position: u64, header: &BatchHeader) {
        let before = self.last.replace(header.next_offset() - 1).unwrap_or(-1);
        self.batches.insert(position, (header.base()..header.next_offset(), before));
        if header.record_count.get() > 0 {
            self.largest = self.largest.max(header.max_timestamp.get());
        }
        self.times.insert(header.next_offset(), self.largest);
    }

    /// Every entry leads to a batch before which all offsets are smaller.
    fn check_offsets(&self, base: i64, bytes: &[u8]) -> Result<(), Wrong> {
        let mut last = None;
        for (place, entry) in entries::<OFFSET_ENTRY_BYTES>(bytes)? {
            let (offset, position) = (u32_at(entry, 0), u32_at(entry, 4));
            let offset = base + i64::from(offset);
            let wrong = |why: String| Err((place.clone(), why));
            if last.is_some_and(|last| (offset, position) <= last) {
                return wrong(format!("its entry of offset {offset} is out of order"));
            }
            last = Some((offset, position));
            match self.batches.get(&u64::from(position)) {
                None => {
                    return wrong(format!(
                        "its entry of offset {offset} leads to byte {position}, where no batch begins"
                    ));
                }
                Some((offsets, before)) if offset < offsets.start || *before >= offset => {
                    return wrong(format!(
                        "its entry of offset {offset} leads to the batch of {} to {}",
                        offsets.start,
                        offsets.end - 1
                    ));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// No record up to an entry's offset is younger than the entry says.
    fn check_times(&self, base: i64, bytes: &[u8]) -> Result<(), Wrong> {
        let mut last = None;
        for (place, entry) in entries::<TIME_ENTRY_BYTES>(bytes)? {
            let mut stamp = [0; 8];
            stamp.copy_from_slice(&entry[..8]);
            let (timestamp, offset) = (i64::from_be_bytes(stamp), base + i64::from(u32_at(entry, 8)));
            let wrong = |why: String| Err((place.clone(), why));
            if last.is_some_and(|(time, at)| timestamp < time || offset < at) {
                return wrong(format!("its entry of {timestamp} ms, offset {offset}, is out of order"));
            }
            last = Some((timestamp, offset));
            // Batches that end up to it: those of which it speaks as a whole.
            let younger = self.times.range(..=offset + 1).next_back().filter(|(_, largest)| **largest > timestamp);
            if let Some((_, largest)) = younger {
                return wrong(format!(
                    "its entry of {timestamp} ms passes over a record of {largest} ms before offset {offset}"
                ));
            }
        }
        Ok(())
    }
}

/// Its place in the file, and its bytes.
type Entry<'a, const N: usize> = (Range<u64>, &'a [u8; N]);

/// The entries of an index with their places. A broker reserves zeros at the end of an
/// index that it writes to.
fn entries<const N: usize>(bytes: &[u8]) -> Result<Vec<Entry<'_, N>>, Wrong> {
    let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| (last + 1).next_multiple_of(N));
    let (whole, rest) = bytes.as_chunks::<N>();
    if used > whole.len() * N || (!rest.is_empty() && used == 0) {
        let start = (whole.len() * N) as u64;
        return Err((start..bytes.len() as u64, format!("its length is no multiple of {N}")));
    }
    let place = |index: usize| (index * N) as u64..((index + 1) * N) as u64;
    Ok(whole[..used / N].iter().enumerate().map(|(index, entry)| (place(index), entry)).collect())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_be_bytes(word)
}

#[cfg(test)]
#[path = "offline_tests.rs"]
mod tests;
