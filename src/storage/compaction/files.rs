//! A segment's batches read one after the other, and the cleaned ones written.
//! Blocking; runs on helper threads.

use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::plan::Gathered;
use crate::config::MAX_BATCH_BYTES;
use crate::model::record_batch::{self, BatchHeader};
use crate::runtime::fs;
use crate::storage::index::{IndexNotes, OFFSET_ENTRY_BYTES, SegmentIndex};
use crate::storage::paths::{parse_segment_file, segment_file};

/// Positions in an index have 32 bits, of which Kafka uses 31.
pub const MAX_SEGMENT_BYTES: u64 = i32::MAX as u64;
const _: () = assert!(MAX_BATCH_BYTES as u64 <= MAX_SEGMENT_BYTES);

/// A sealed segment's file, read from its start.
pub struct Source {
    file: fs::File,
    path: PathBuf,
    /// Bytes of batches in it.
    size: u64,
    /// Where the next batch begins.
    position: u64,
    /// Bytes read and not yet taken: `window[used..]` begins at `position`.
    window: Vec<u8>,
    used: usize,
    /// Bytes asked for at a time.
    chunk: usize,
}

impl Source {
    pub fn open(path: &Path, size: u64, chunk: usize) -> io::Result<Source> {
        let file = fs::File::open(path).map_err(|e| named("open", path, e))?;
        let chunk = chunk.max(4096);
        Ok(Source { file, path: path.to_path_buf(), size, position: 0, window: Vec::new(), used: 0, chunk })
    }

    /// True if every batch has been taken.
    pub fn at_end(&self) -> bool {
        self.position >= self.size
    }

    pub fn modified(&self) -> io::Result<SystemTime> {
        self.file.metadata()?.modified()
    }

    /// The length of the next batch, if it is the last.
    pub fn ends_with_next(&mut self) -> io::Result<Option<u64>> {
        let total = self.next_bytes()?;
        Ok(total.filter(|total| self.position + total >= self.size))
    }

    /// The length of the next batch.
    fn next_bytes(&mut self) -> io::Result<Option<u64>> {
        if self.at_end() {
            return Ok(None);
        }
        self.fill(record_batch::HEADER_BYTES)?;
        let header =
            BatchHeader::peek(&self.window[self.used..]).ok_or_else(|| self.damaged("ends within a header"))?;
        let total = u64::try_from(header.total_bytes()).unwrap_or(0);
        if header.magic != 2 || total < record_batch::HEADER_BYTES as u64 || self.position + total > self.size {
            return Err(self.damaged("is no batch"));
        }
        Ok(Some(total))
    }

    /// The next batch, whole and checked; `None` at the end. What is not sound is an error:
    /// cleaning must not give damaged bytes a right CRC.
    pub fn next(&mut self) -> io::Result<Option<&[u8]>> {
        let Some(total) = self.next_bytes()? else { return Ok(None) };
        let total = total as usize;
        self.fill(total)?;
        let start = self.used;
        if let Err(error) = record_batch::check(&self.window[start..start + total]) {
            return Err(self.damaged(&error.to_string()));
        }
        self.used += total;
        self.position += total as u64;
        Ok(Some(&self.window[start..start + total]))
    }

    /// Has at least `wanted` bytes from `position` on in the window.
    fn fill(&mut self, wanted: usize) -> io::Result<()> {
        let held = self.window.len() - self.used;
        if held >= wanted {
            return Ok(());
        }
        self.window.drain(..self.used);
        self.used = 0;
        let start = self.position + held as u64;
        let upto = (start + self.chunk as u64).max(self.position + wanted as u64).min(self.size);
        self.window.resize(held + usize::try_from(upto.saturating_sub(start)).unwrap_or(0), 0);
        self.file.read_exact_at(&mut self.window[held..], start).map_err(|e| named("read", &self.path, e))?;
        if self.window.len() < wanted {
            return Err(self.damaged("is cut off"));
        }
        Ok(())
    }

    fn damaged(&self, what: &str) -> io::Error {
        let damage = Damage { path: self.path.clone(), position: self.position, what: what.to_owned() };
        io::Error::new(io::ErrorKind::InvalidData, damage)
    }
}

/// Bytes of a segment that are not a sound batch.
#[derive(Debug, thiserror::Error)]
#[error("{}: what stands at position {position} {what}: the file is damaged", path.display())]
struct Damage {
    path: PathBuf,
    position: u64,
    what: String,
}

/// The base offset of the segment that an error of [`Source`] calls damaged.
pub fn damaged_segment(error: &io::Error) -> Option<i64> {
    let damage = error.get_ref()?.downcast_ref::<Damage>()?;
    parse_segment_file(damage.path.file_name()?.to_str()?, "log")
}

/// A segment being made beside the log.
pub struct Output {
    dir: PathBuf,
    base_offset: i64,
    path: PathBuf,
    file: io::BufWriter<fs::File>,
    notes: IndexNotes,
    max_bytes: u64,
}

/// A cleaned segment, on the device under its `.cleaned` names.
pub struct Cleaned {
    pub size: u64,
    pub index: SegmentIndex,
    pub max_timestamp: i64,
    pub offset_of_max_timestamp: i64,
    pub first_timestamp: Option<i64>,
}

impl Output {
    pub fn create(
        dir: &Path,
        base_offset: i64,
        interval_bytes: u32,
        buffer: usize,
        max_bytes: u64,
    ) -> io::Result<Output> {
        let path = segment_file(dir, base_offset, "log.cleaned");
        let file = fs::File::create(&path).map_err(|e| named("create", &path, e))?;
        Ok(Output {
            dir: dir.to_path_buf(),
            base_offset,
            path,
            file: io::BufWriter::with_capacity(buffer.max(4096), file),
            notes: IndexNotes::new(base_offset, interval_bytes),
            max_bytes,
        })
    }

    /// Sizes with `more` bytes of another batch, made of `segments` old segments.
    pub fn gathered(&self, more: u64, segments: usize) -> Gathered {
        let index_bytes = ((self.notes.entries() + 1) * OFFSET_ENTRY_BYTES) as u64;
        Gathered { base: self.base_offset, segments, bytes: self.notes.size() + more, index_bytes }
    }

    /// Appends a whole batch.
    pub fn append(&mut self, batch: &[u8]) -> io::Result<()> {
        let (header, total) = record_batch::frame(batch).map_err(io::Error::other)?;
        if self.notes.size() + total as u64 > self.max_bytes {
            let message = format!("{}: cleaning made more than {} bytes of it", self.path.display(), self.max_bytes);
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
        self.file.write_all(batch).map_err(|e| named("write to", &self.path, e))?;
        self.notes.note(header);
        Ok(())
    }

    /// Writes the index files and syncs everything. The file keeps the age of the records in it:
    /// retention of records without timestamps goes by that.
    pub fn finish(self, modified: Option<SystemTime>) -> io::Result<Cleaned> {
        let Output { dir, base_offset, path, file, notes, .. } = self;
        let file = file.into_inner().map_err(|e| named("write to", &path, e.into_error()))?;
        if let Some(modified) = modified {
            file.set_modified(modified).map_err(|e| named("date", &path, e))?;
        }
        file.sync_all().map_err(|e| named("sync", &path, e))?;
        let cleaned = notes.finish();
        let indexes =
            [("index.cleaned", cleaned.index.encode_offsets()), ("timeindex.cleaned", cleaned.index.encode_times())];
        for (extension, bytes) in indexes {
            let path = segment_file(&dir, base_offset, extension);
            let mut file = fs::File::create(&path).map_err(|e| named("create", &path, e))?;
            file.write_all(&bytes).and_then(|()| file.sync_all()).map_err(|e| named("write to", &path, e))?;
        }
        Ok(cleaned)
    }
}

impl IndexNotes {
    fn finish(self) -> Cleaned {
        let size = self.size();
        let (max_timestamp, offset_of_max_timestamp) = self.newest();
        Cleaned {
            size,
            max_timestamp,
            offset_of_max_timestamp,
            first_timestamp: self.first_timestamp(),
            index: self.seal(),
        }
    }
}

pub fn named(doing: &str, path: &Path, cause: io::Error) -> io::Error {
    match cause.raw_os_error() {
        // The kind is kept by which callers tell a full disk from a broken one.
        Some(_) => io::Error::new(cause.kind(), format!("cannot {doing} {}: {cause}", path.display())),
        None => cause,
    }
}

/// The largest timestamp of a segment's first batch; `None`: it holds none.
pub fn first_timestamp(path: &Path) -> io::Result<Option<i64>> {
    let mut bytes = [0; record_batch::HEADER_BYTES];
    let file = match fs::File::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    match file.read_exact_at(&mut bytes, 0) {
        Ok(()) => Ok(BatchHeader::peek(&bytes).map(|header| header.max_timestamp.get())),
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(e) => Err(e),
    }
}
