//! One segment: a `.log` file of batches back to back, and its sparse index.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use super::ahead::Ahead;
use super::checkpoint::SegmentEntry;
use super::dir::{CountedSegment, LogDir};
use super::files::{read_small, retry_on_fd_exhaustion};
use super::index::{self, EntryMaker, IndexSums, OFFSET_ENTRY_BYTES, SegmentIndex};
use super::paths::segment_file;
use crate::model::record_batch::BatchHeader;
use crate::runtime::disk::{File, OpenMode, is_out_of_descriptors, write_small};
use crate::runtime::{clock, fs, spawn_blocking};

/// Between two looks whether files are still being opened.
const OPENING_PAUSE: Duration = Duration::from_micros(200);

/// A segment as its log sees it. Positions are bytes from the start of the `.log` file.
pub struct Segment {
    pub base_offset: i64,
    /// Unique in its log; a cleaned segment has the base offset of one it
    /// replaced, but not its number.
    pub number: u64,
    dir: Rc<LogDir>,
    /// Where the next batch goes; the file's length once sealed.
    pub size: Cell<u64>,
    /// Everything before this has reached the device.
    pub written: Cell<u64>,
    /// Everything before this is synced.
    pub synced: Cell<u64>,
    /// The file's length on disk while blocks are reserved ahead.
    pub allocated: Cell<u64>,
    /// True while a reservation is on its way.
    pub allocating: Cell<bool>,
    pub ahead: Ahead,
    /// No more appends; index files are on disk.
    pub sealed: Cell<bool>,
    /// Takes no more appends, but sealing it found no room: the next checkpoint tries again.
    pub seal_waits: Cell<bool>,
    /// True if the next field is valid: not after a start that found no sound time index, until the
    /// index is made again.
    pub times_known: Cell<bool>,
    /// Largest timestamp of a record, and the last offset of the batch that holds it; (-1,
    /// base) while there is none.
    pub max_timestamp: Cell<i64>,
    pub offset_of_max_timestamp: Cell<i64>,
    /// Timestamp of the first batch, for rolling by age.
    pub first_timestamp: Cell<Option<i64>>,
    /// Wall time of the last append, ms: stands in where no record has a timestamp.
    pub last_append_ms: Cell<i64>,
    /// True once the directory entry of the `.log` file is synced.
    pub entry_synced: Cell<bool>,
    since_index_entry: Cell<u64>,
    index: RefCell<Option<Rc<RefCell<SegmentIndex>>>>,
    /// Of the index files as they were last written; `None`: unknown, they are
    /// then taken as they are.
    index_sums: Cell<Option<IndexSums>>,
    /// A file of aborted transactions may be there.
    pub(super) aborted_file: Cell<bool>,
    /// It cannot be read, and the index in memory has no part of it.
    pub(super) aborted_lost: Cell<bool>,
    /// It is not what the index in memory says.
    pub(super) aborted_unsaved: Cell<bool>,
    file: RefCell<Option<Rc<File>>>,
    /// True once the `.log` file exists.
    on_disk: Cell<bool>,
    /// Made by cleaning: none of its bytes were appended here.
    cleaned: bool,
    /// A cleaned segment takes its place: its files can no longer be opened by name.
    replaced: Cell<bool>,
    /// Files of it being opened by name.
    opening: Cell<usize>,
    _counted: CountedSegment,
}

/// A segment's file being opened by name.
struct Opening<'a>(&'a Segment);

impl Drop for Opening<'_> {
    fn drop(&mut self) {
        self.0.opening.set(self.0.opening.get() - 1);
    }
}

impl Segment {
    /// An empty segment whose file is made when the first bytes are written.
    pub fn new(dir: Rc<LogDir>, base_offset: i64) -> Rc<Segment> {
        Rc::new(Segment::with(dir, base_offset, 0, false, false))
    }

    /// A segment found on disk with `size` bytes of whole batches.
    pub fn found(dir: Rc<LogDir>, base_offset: i64, size: u64) -> Segment {
        Segment::with(dir, base_offset, size, true, false)
    }

    /// A segment made by cleaning, of `size` bytes, whose files have their final names.
    pub fn cleaned(dir: Rc<LogDir>, base_offset: i64, size: u64) -> Segment {
        let segment = Segment::with(dir, base_offset, size, true, true);
        segment.sealed.set(true);
        segment
    }

    fn with(dir: Rc<LogDir>, base_offset: i64, size: u64, on_disk: bool, cleaned: bool) -> Segment {
        Segment {
            base_offset,
            number: dir.take_segment_number(),
            _counted: dir.count_segment(),
            dir,
            size: Cell::new(size),
            written: Cell::new(size),
            synced: Cell::new(size),
            allocated: Cell::new(size),
            allocating: Cell::new(false),
            ahead: Ahead::default(),
            sealed: Cell::new(false),
            seal_waits: Cell::new(false),
            times_known: Cell::new(true),
            max_timestamp: Cell::new(-1),
            offset_of_max_timestamp: Cell::new(base_offset),
            first_timestamp: Cell::new(None),
            last_append_ms: Cell::new(-1),
            entry_synced: Cell::new(on_disk),
            since_index_entry: Cell::new(0),
            index: RefCell::new((!on_disk).then(Rc::default)),
            index_sums: Cell::new(None),
            aborted_file: Cell::new(on_disk),
            aborted_lost: Cell::new(false),
            aborted_unsaved: Cell::new(false),
            file: RefCell::new(None),
            on_disk: Cell::new(on_disk),
            cleaned,
            replaced: Cell::new(false),
            opening: Cell::new(0),
        }
    }

    pub fn is_cleaned(&self) -> bool {
        self.cleaned
    }

    pub fn is_replaced(&self) -> bool {
        self.replaced.get()
    }

    /// No more files of the segment are opened by name once this returns. Those
    /// that are open stay so.
    pub async fn begin_replacement(&self) {
        self.replaced.set(true);
        while self.opening.get() > 0 {
            clock::sleep(OPENING_PAUSE).await;
        }
    }

    fn open_by_name(&self) -> io::Result<Opening<'_>> {
        if self.replaced.get() {
            let message = format!("{}: being replaced by a cleaned segment", self.path("log").display());
            return Err(io::Error::new(io::ErrorKind::NotFound, message));
        }
        self.opening.set(self.opening.get() + 1);
        Ok(Opening(self))
    }

    /// `<dir>/<base offset>.<extension>`
    pub fn path(&self, extension: &str) -> PathBuf {
        segment_file(&self.dir, self.base_offset, extension)
    }

    /// When the newest record was made, or written where none has a timestamp; -1: unknown.
    pub fn newest_ms(&self) -> i64 {
        match self.max_timestamp.get() {
            -1 => self.last_append_ms.get(),
            newest => newest,
        }
    }

    /// The directory that holds the files.
    pub fn dir(&self) -> PathBuf {
        self.dir.to_path_buf()
    }

    /// The open `.log` file, made on first use by the appender.
    pub async fn file(&self) -> io::Result<Rc<File>> {
        if let Some(file) = self.file.borrow().as_ref() {
            return Ok(file.clone());
        }
        let mode = match (self.on_disk.get(), self.sealed.get()) {
            (false, _) => OpenMode::CreateNew,
            (true, false) => OpenMode::ReadWrite,
            (true, true) => OpenMode::Read,
        };
        let (visit, opening) = (self.dir.visit()?, self.open_by_name()?);
        let path = self.path("log");
        let file = Rc::new(retry_on_fd_exhaustion(async || File::open(&path, mode).await).await?);
        if mode == OpenMode::CreateNew {
            self.mark_begun().await;
        }
        drop((visit, opening));
        self.on_disk.set(true);
        Ok(self.file.borrow_mut().get_or_insert(file).clone())
    }

    /// Makes an empty offset index, as Kafka does: should the newest `.log` get lost before a
    /// checkpoint knows of it, this tells the next start. Without room there is none.
    async fn mark_begun(&self) {
        let path = self.path("index");
        let made = spawn_blocking(move || fs::OpenOptions::new().create(true).append(true).open(path).map(drop)).await;
        if let Err(error) = made {
            tracing::debug!(segment = %self.path("log").display(), %error, "no index file for a new segment yet");
        }
    }

    /// Lets go of the descriptor; readers in flight keep theirs.
    pub fn forget_file(&self) {
        self.file.take();
    }

    pub fn has_open_file(&self) -> bool {
        self.file.borrow().is_some()
    }

    pub fn is_on_disk(&self) -> bool {
        self.on_disk.get()
    }

    /// Takes note of a batch at `position`: size, timestamps, index entry. Order of
    /// positions is the caller's.
    pub fn note_batch(&self, header: &BatchHeader, last_offset: i64, position: u64, index_interval_bytes: u32) {
        let mut maker = EntryMaker {
            since_entry: self.since_index_entry.get(),
            max_timestamp: self.max_timestamp.get(),
            offset_of_max_timestamp: self.offset_of_max_timestamp.get(),
            first_timestamp: self.first_timestamp.get(),
        };
        let (offsets, loaded) = ((self.base_offset, last_offset), self.index.borrow());
        let mut index = loaded.as_ref().map(|index| index.borrow_mut());
        maker.note(header, offsets, position, index_interval_bytes, index.as_deref_mut());
        self.since_index_entry.set(maker.since_entry);
        self.max_timestamp.set(maker.max_timestamp);
        self.offset_of_max_timestamp.set(maker.offset_of_max_timestamp);
        self.first_timestamp.set(maker.first_timestamp);
        self.size.set(position + header.total_bytes() as u64);
    }

    /// The next batch noted lies `bytes` behind the last index entry.
    pub fn set_since_index_entry(&self, bytes: u64) {
        self.since_index_entry.set(bytes);
    }

    /// The segment as a checkpoint keeps it.
    pub fn entry(&self) -> SegmentEntry {
        let newest = (self.max_timestamp.get(), self.offset_of_max_timestamp.get());
        SegmentEntry {
            base: self.base_offset,
            bytes: self.size.get(),
            newest: self.times_known.get().then_some(newest),
            index: self.index_sums.get(),
        }
    }

    pub fn index_sums(&self) -> Option<IndexSums> {
        self.index_sums.get()
    }

    pub fn set_index_sums(&self, sums: Option<IndexSums>) {
        self.index_sums.set(sums);
    }

    /// `offset` as the index files count it.
    pub fn relative(&self, offset: i64) -> u32 {
        index::relative(self.base_offset, offset)
    }

    /// The index in memory; only while it is there.
    pub fn loaded_index(&self) -> Option<Rc<RefCell<SegmentIndex>>> {
        self.index.borrow().clone()
    }

    pub fn set_index(&self, index: SegmentIndex) -> Rc<RefCell<SegmentIndex>> {
        let index = Rc::new(RefCell::new(index));
        *self.index.borrow_mut() = Some(index.clone());
        index
    }

    /// Reads the index files, off the event loop. `None`: absent, not what was written, or
    /// not right for this segment.
    pub async fn read_index_files(&self, log_bytes: u64) -> io::Result<Option<SegmentIndex>> {
        let dir = self.dir();
        let _held = (self.dir.visit()?, self.open_by_name()?);
        let (base, sums) = (self.base_offset, self.index_sums.get());
        spawn_blocking(move || read_index_files(&dir, base, sums, log_bytes)).await
    }

    /// Goes on with a `.log` file that is open already.
    pub fn take_file(&self, file: File) {
        self.file.replace(Some(Rc::new(file)));
    }

    /// Writes both index files, off the event loop. With `seal`, the segment's largest timestamp is
    /// noted in full, as Kafka does, and the files are synced; before that a power cut may damage
    /// them, and recovery makes them again.
    pub async fn write_index_files(&self, seal: bool) -> io::Result<()> {
        let Some(index) = self.loaded_index() else { return Ok(()) };
        if seal {
            let relative = self.relative(self.offset_of_max_timestamp.get());
            index.borrow_mut().push_time(self.max_timestamp.get(), relative);
        }
        let (offsets, times) = (index.borrow().encode_offsets(), index.borrow().encode_times());
        let sums = IndexSums::of(&offsets, &times);
        let files = Arc::new([(self.path("index"), offsets), (self.path("timeindex"), times)]);
        let _visit = self.dir.visit()?;
        retry_on_fd_exhaustion(async || {
            let work = files.clone();
            write_small(&files[0].0, move || {
                work.iter().try_for_each(|(path, bytes)| write_index_file(path, bytes, seal))
            })
            .await
        })
        .await?;
        self.index_sums.set(Some(sums));
        Ok(())
    }

    /// Takes appends again, if its index is there to go on with.
    pub fn reopen(&self) {
        if let Some(index) = self.loaded_index() {
            index.borrow_mut().reopen_at(u32::try_from(self.size.get()).unwrap_or(u32::MAX));
            self.index_sums.set(None);
            self.sealed.set(false);
            self.seal_waits.set(false);
        }
    }

    /// True if rolling is due before a batch of `bytes` ending `next_offset` is
    /// appended (Kafka's conditions).
    pub fn must_roll(&self, bytes: u64, next_offset: i64, rules: &RollRules, newest_timestamp: i64) -> bool {
        if self.size.get() == 0 {
            return false;
        }
        let full = self.size.get() + bytes > rules.segment_bytes;
        let far = next_offset - 1 - self.base_offset > i64::from(i32::MAX);
        let old = self.first_timestamp.get().is_some_and(|t| t >= 0 && newest_timestamp - t > rules.segment_ms);
        let index_full =
            self.index.borrow().as_ref().is_some_and(|i| {
                i.borrow().offset_entries() >= rules.segment_index_bytes as usize / OFFSET_ENTRY_BYTES
            });
        full || far || (rules.by_age_and_index && (old || index_full))
    }
}

/// The topic's settings that decide when a segment rolls.
#[derive(Clone, Copy, Debug)]
pub struct RollRules {
    pub segment_bytes: u64,
    pub segment_ms: i64,
    pub segment_index_bytes: u32,
    /// Not where there are too many segments already: clients choose timestamps, and topics the
    /// other two limits, so that each batch might begin a segment.
    pub by_age_and_index: bool,
}

/// The index files of the segment that begins at `base`, as
/// [`Segment::read_index_files`] has them. Blocks.
pub fn read_index_files(
    dir: &Path,
    base: i64,
    sums: Option<IndexSums>,
    log_bytes: u64,
) -> io::Result<Option<SegmentIndex>> {
    // Whatever is in their place, or wrong with the disk there: they are made again from the log.
    let read = |extension| match read_small(&segment_file(dir, base, extension)) {
        Err(e) if is_out_of_descriptors(&e) => Err(e),
        outcome => Ok(outcome.ok()),
    };
    let (Some(offsets), Some(times)) = (read("index")?, read("timeindex")?) else { return Ok(None) };
    let checked = match sums {
        Some(sums) => sums.check(&offsets, &times),
        None => Some((&offsets[..], &times[..])),
    };
    Ok(checked.and_then(|(offsets, times)| SegmentIndex::decode(offsets, times, log_bytes)))
}

/// Names the file, but for want of descriptors, which is known by its code and passes.
fn write_index_file(path: &Path, bytes: &[u8], seal: bool) -> io::Result<()> {
    let named = |e| if is_out_of_descriptors(&e) { e } else { super::compaction::named("write", path, e) };
    write_file(path, bytes, seal).map_err(named)
}

fn write_file(path: &Path, contents: &[u8], synced: bool) -> io::Result<()> {
    use std::io::Write;
    let mut file = fs::File::create(path)?;
    file.write_all(contents)?;
    if synced { file.sync_data() } else { Ok(()) }
}

/// The shard-wide bound on indexes of sealed segments and on their open files: least
/// recently loaded out first.
pub struct IndexBudget {
    total: usize,
    used: Cell<usize>,
    order: RefCell<VecDeque<(Weak<Segment>, usize)>>,
    open_files: RefCell<VecDeque<Weak<Segment>>>,
    /// Sealed segments whose `.log` file stays open.
    max_open_files: usize,
}

impl IndexBudget {
    pub fn new(total: usize, max_open_files: usize) -> IndexBudget {
        IndexBudget {
            total,
            used: Cell::new(0),
            order: RefCell::new(VecDeque::new()),
            open_files: RefCell::new(VecDeque::new()),
            max_open_files,
        }
    }

    /// Counts a sealed segment's loaded index; indexes loaded long ago are dropped (and
    /// read again when needed).
    pub fn admit(&self, segment: &Rc<Segment>) {
        let Some(index) = segment.loaded_index() else { return };
        let bytes = index.borrow().memory_bytes() + 64;
        self.used.set(self.used.get() + bytes);
        let mut order = self.order.borrow_mut();
        order.push_back((Rc::downgrade(segment), bytes));
        while self.used.get() > self.total && order.len() > 1 {
            let Some((oldest, bytes)) = order.pop_front() else { break };
            self.used.set(self.used.get() - bytes);
            if let Some(segment) = oldest.upgrade() {
                segment.index.take();
            }
        }
    }

    /// Counts a sealed segment's open file.
    pub fn admit_file(&self, segment: &Rc<Segment>) {
        let mut open = self.open_files.borrow_mut();
        open.push_back(Rc::downgrade(segment));
        while open.len() > self.max_open_files {
            if let Some(segment) = open.pop_front().and_then(|oldest| oldest.upgrade())
                && segment.sealed.get()
            {
                segment.forget_file();
            }
        }
    }
}
