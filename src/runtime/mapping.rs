//! Memory that outlives the process: a file mapped shared. Stores reach the page cache at once, so
//! that a kill leaves them there for the next process; a kernel crash does not.

use std::cell::Cell;
use std::fs;
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;

#[cfg(any(test, feature = "simulator"))]
use super::sim;

/// Unit in which a mapping is handed out, bytes.
pub const PAGE_BYTES: usize = 4096;

/// A mapped file. Its pages are handed out as areas that never overlap while they are in use.
pub struct Mapping {
    base: *mut u8,
    len: usize,
    path: PathBuf,
    /// Pages of areas in use.
    taken: Vec<AtomicBool>,
    /// Bytes of the areas that [`Area::bytes`] keeps alive.
    lent: AtomicUsize,
    /// `None`: the file is a real one.
    #[cfg(any(test, feature = "simulator"))]
    simulated: Option<sim::MappedFile>,
}

// SAFETY: the memory is reached through areas only, each of which has one writer, and readers of
// what no longer changes; everything else in here is atomic or constant.
#[allow(unsafe_code)]
unsafe impl Send for Mapping {}
#[allow(unsafe_code)]
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Makes the file at `path`, which must not be there, reserves its blocks and maps it: later
    /// stores then need no room on the disk. `len` must be a multiple of [`PAGE_BYTES`]. Blocks.
    pub fn create(path: &Path, len: usize) -> io::Result<Arc<Mapping>> {
        #[cfg(any(test, feature = "simulator"))]
        if sim::is_current() {
            return Mapping::create_simulated(path, len);
        }
        let file = fs::OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        let made = Mapping::map(&file, path, len);
        if made.is_err() {
            let _ = fs::remove_file(path);
        }
        made
    }

    fn map(file: &fs::File, path: &Path, len: usize) -> io::Result<Arc<Mapping>> {
        check_length(len)?;
        let bytes = libc::off_t::try_from(len).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
        // SAFETY: plain system calls on a descriptor that is open; the mapping
        // stays when it is closed.
        #[allow(unsafe_code)]
        let base = unsafe {
            let code = libc::posix_fallocate(file.as_raw_fd(), 0, bytes);
            if code != 0 {
                return Err(io::Error::from_raw_os_error(code));
            }
            let access = libc::PROT_READ | libc::PROT_WRITE;
            libc::mmap(std::ptr::null_mut(), len, access, libc::MAP_SHARED, file.as_raw_fd(), 0)
        };
        Ok(Arc::new(Mapping::at(base, path, len)?))
    }

    /// A mapping at the address that `mmap` returned.
    fn at(base: *mut libc::c_void, path: &Path, len: usize) -> io::Result<Mapping> {
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mut taken = Vec::new();
        taken.resize_with(len / PAGE_BYTES, AtomicBool::default);
        Ok(Mapping {
            base: base.cast(),
            len,
            path: path.to_path_buf(),
            taken,
            lent: AtomicUsize::new(0),
            #[cfg(any(test, feature = "simulator"))]
            simulated: None,
        })
    }

    /// Memory of this process that the simulated disk takes for the file's
    /// bytes whenever it needs them.
    #[cfg(any(test, feature = "simulator"))]
    fn create_simulated(path: &Path, len: usize) -> io::Result<Arc<Mapping>> {
        check_length(len)?;
        let file = sim::MappedFile::create(path, len)?;
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a plain system call for memory that nobody has yet.
        #[allow(unsafe_code)]
        let base = unsafe { libc::mmap(std::ptr::null_mut(), len, access, kind, -1, 0) };
        let mut mapping = Mapping::at(base, path, len)?;
        mapping.simulated = Some(file);
        let mapping = Arc::new(mapping);
        file.is_at(&mapping);
        Ok(mapping)
    }

    /// All its bytes as they are now.
    #[cfg(any(test, feature = "simulator"))]
    pub(super) fn image(&self) -> Vec<u8> {
        // SAFETY: the range is the mapping's; simulated shards and their disk share one thread, so
        // that nobody stores meanwhile.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts(self.base, self.len).to_vec()
        }
    }

    /// Every store comes by here, before it is made.
    fn before_store(&self, position: usize, bytes: &[u8]) {
        #[cfg(any(test, feature = "simulator"))]
        if let Some(file) = &self.simulated {
            file.before_store(position, bytes);
        }
        #[cfg(not(any(test, feature = "simulator")))]
        let _ = (position, bytes);
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the areas that readers keep alive; one that several readers have counts for each.
    pub fn lent_bytes(&self) -> usize {
        self.lent.load(Ordering::Relaxed)
    }

    /// The pages from byte `start` on as an area to fill; `None` while anybody has one of them.
    pub fn take(self: &Arc<Self>, start: usize, len: usize) -> Option<Area> {
        self.hold(start, len).map(|hold| Area { hold: Arc::new(hold), filled: Cell::new(0) })
    }

    /// The pages from byte `start` on as slots of 64 bytes; `None` while anybody has one of them.
    pub fn take_slots(self: &Arc<Self>, start: usize, len: usize) -> Option<Slots> {
        self.hold(start, len).map(|hold| Slots { hold, one_thread: PhantomData })
    }

    fn hold(self: &Arc<Self>, start: usize, len: usize) -> Option<Hold> {
        let end = start.checked_add(len)?;
        if len == 0 || end > self.len || !start.is_multiple_of(PAGE_BYTES) || !len.is_multiple_of(PAGE_BYTES) {
            return None;
        }
        let pages = &self.taken[start / PAGE_BYTES..end / PAGE_BYTES];
        for (done, page) in pages.iter().enumerate() {
            if page.swap(true, Ordering::Acquire) {
                pages[..done].iter().for_each(|page| page.store(false, Ordering::Release));
                return None;
            }
        }
        Some(Hold { mapping: self.clone(), start, len })
    }
}

fn check_length(len: usize) -> io::Result<()> {
    if len == 0 || !len.is_multiple_of(PAGE_BYTES) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("a mapping of {len} bytes")));
    }
    Ok(())
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `map`, and unmapped here only; every area holds the mapping.
        #[allow(unsafe_code)]
        unsafe {
            libc::munmap(self.base.cast(), self.len);
        }
    }
}

/// Pages in use; they are free when it goes, on whichever thread.
struct Hold {
    mapping: Arc<Mapping>,
    start: usize,
    len: usize,
}

impl Hold {
    fn before_store(&self, place: usize, bytes: &[u8]) {
        self.mapping.before_store(self.start + place, bytes);
    }

    fn address(&self) -> *mut u8 {
        // SAFETY: `hold` has checked that the pages lie within the mapping.
        #[allow(unsafe_code)]
        unsafe {
            self.mapping.base.add(self.start)
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let pages = self.start / PAGE_BYTES..(self.start + self.len) / PAGE_BYTES;
        self.mapping.taken[pages].iter().for_each(|page| page.store(false, Ordering::Release));
    }
}

/// Memory that its owner fills from the front. What is filled never changes.
pub struct Area {
    hold: Arc<Hold>,
    filled: Cell<usize>,
}

impl Area {
    pub fn capacity(&self) -> usize {
        self.hold.len
    }

    pub fn filled(&self) -> usize {
        self.filled.get()
    }

    pub fn room(&self) -> usize {
        self.capacity() - self.filled()
    }

    /// Appends the bytes; they must fit into [`room`](Self::room).
    pub fn append(&self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "{} bytes for a room of {}", bytes.len(), self.room());
        self.hold.before_store(self.filled.get(), bytes);
        // SAFETY: the range lies within the area and behind everything filled, so that nobody reads
        // it; `Cell` keeps the one writer on one thread.
        #[allow(unsafe_code)]
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.hold.address().add(self.filled.get()), bytes.len());
        }
        self.filled.set(self.filled.get() + bytes.len());
    }

    /// Filled bytes as shared ones that may travel; the pages stay taken until
    /// the last holder lets go.
    pub fn bytes(&self, range: std::ops::Range<usize>) -> Bytes {
        assert!(range.start <= range.end && range.end <= self.filled(), "{range:?} of {} bytes", self.filled());
        if range.is_empty() {
            return Bytes::new();
        }
        self.hold.mapping.lent.fetch_add(self.hold.len, Ordering::Relaxed);
        Bytes::from_owner(Lent { hold: self.hold.clone(), range })
    }

    /// The filled bytes, for as long as the area itself is held.
    pub fn as_slice(&self) -> &[u8] {
        // SAFETY: filled bytes never change while the area is held.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts(self.hold.address(), self.filled())
        }
    }
}

/// Owner of the memory behind lent bytes.
struct Lent {
    hold: Arc<Hold>,
    range: std::ops::Range<usize>,
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `Area::bytes` lends filled bytes only, which never change
        // while the pages are held.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts(self.hold.address().add(self.range.start), self.range.len())
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        self.hold.mapping.lent.fetch_sub(self.hold.len, Ordering::Relaxed);
    }
}

/// Bytes of a slot, of which the last eight are its word.
pub const SLOT_BYTES: usize = 64;
/// Bytes of a slot before its word.
pub const SLOT_BODY_BYTES: usize = SLOT_BYTES - 8;

/// Slots that the next process reads: a body, and a word that is stored in one piece after it.
pub struct Slots {
    hold: Hold,
    one_thread: PhantomData<Cell<()>>,
}

impl Slots {
    pub fn count(&self) -> usize {
        self.hold.len / SLOT_BYTES
    }

    fn slot(&self, index: usize) -> *mut u8 {
        assert!(index < self.count(), "slot {index} of {}", self.count());
        // SAFETY: within the held pages, as just checked.
        #[allow(unsafe_code)]
        unsafe {
            self.hold.address().add(index * SLOT_BYTES)
        }
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        // SAFETY: pages are aligned, slots too, and the word of a slot is only
        // reached through here.
        #[allow(unsafe_code, clippy::cast_ptr_alignment)]
        unsafe {
            &*self.slot(index).add(SLOT_BODY_BYTES).cast::<AtomicU64>()
        }
    }

    /// Sets the word to 0, then the body.
    pub fn write(&self, index: usize, body: &[u8; SLOT_BODY_BYTES]) {
        self.store(index, 0, Ordering::SeqCst);
        self.hold.before_store(index * SLOT_BYTES, body);
        // SAFETY: within the held pages, and nobody in this process reads
        // bodies; one thread writes them.
        #[allow(unsafe_code)]
        unsafe {
            std::ptr::copy_nonoverlapping(body.as_ptr(), self.slot(index), SLOT_BODY_BYTES);
        }
    }

    /// Stores the word after everything that was stored before, in this and other areas.
    pub fn publish(&self, index: usize, word: u64) {
        self.store(index, word, Ordering::Release);
    }

    fn store(&self, index: usize, word: u64, order: Ordering) {
        self.hold.before_store(index * SLOT_BYTES + SLOT_BODY_BYTES, &word.to_le_bytes());
        self.word(index).store(word.to_le(), order);
    }

    /// Fills the slots from the front with `bytes`, which must fit; no word of
    /// theirs is in use yet.
    pub fn fill(&self, bytes: &[u8]) {
        assert!(bytes.len() <= self.hold.len, "{} bytes for {}", bytes.len(), self.hold.len);
        self.hold.before_store(0, bytes);
        // SAFETY: within the held pages; one thread writes them.
        #[allow(unsafe_code)]
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.hold.address(), bytes.len());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(pages: usize) -> (tempfile::TempDir, Arc<Mapping>) {
        let dir = tempfile::tempdir().unwrap();
        let mapping = Mapping::create(&dir.path().join("m"), pages * PAGE_BYTES).unwrap();
        (dir, mapping)
    }

    #[test]
    fn stores_are_in_the_file_at_once() {
        let (dir, mapping) = mapping(4);
        let area = mapping.take(2 * PAGE_BYTES, PAGE_BYTES).unwrap();
        area.append(b"hello, ");
        area.append(b"world");
        let slots = mapping.take_slots(0, PAGE_BYTES).unwrap();
        slots.write(3, &[7; SLOT_BODY_BYTES]);
        slots.publish(3, 0x0102);
        let file = fs::read(dir.path().join("m")).unwrap();
        assert_eq!(file.len(), 4 * PAGE_BYTES);
        assert_eq!(&file[2 * PAGE_BYTES..2 * PAGE_BYTES + 12], b"hello, world");
        assert_eq!(file[3 * SLOT_BYTES..3 * SLOT_BYTES + 58], [&[7; 56][..], &[2, 1]].concat());
        slots.write(3, &[8; SLOT_BODY_BYTES]);
        let file = fs::read(dir.path().join("m")).unwrap();
        assert_eq!(file[3 * SLOT_BYTES + 56..4 * SLOT_BYTES], [0; 8], "a new body takes the word back");
        assert_eq!((area.as_slice(), area.filled(), area.room()), (&b"hello, world"[..], 12, PAGE_BYTES - 12));
    }

    #[test]
    fn pages_are_had_by_one_at_a_time_until_the_last_reader_lets_go() {
        let (_dir, mapping) = mapping(8);
        for (start, len) in [(0, 0), (100, PAGE_BYTES), (0, 100), (8 * PAGE_BYTES, PAGE_BYTES), (0, 9 * PAGE_BYTES)] {
            assert!(mapping.take(start, len).is_none(), "{start} {len}");
        }
        let area = mapping.take(PAGE_BYTES, 2 * PAGE_BYTES).unwrap();
        assert!(mapping.take(2 * PAGE_BYTES, 4 * PAGE_BYTES).is_none(), "overlaps");
        assert!(mapping.take(3 * PAGE_BYTES, 4 * PAGE_BYTES).is_some(), "a refusal leaves nothing taken");
        area.append(&[9; 5000]);
        let (bytes, empty) = (area.bytes(4000..5000), area.bytes(7..7));
        assert_eq!((mapping.lent_bytes(), empty.len()), (2 * PAGE_BYTES, 0));
        drop(area);
        assert!(mapping.take(PAGE_BYTES, PAGE_BYTES).is_none(), "a reader has it");
        std::thread::spawn(move || assert_eq!(bytes, vec![9; 1000])).join().unwrap();
        assert!(mapping.take(PAGE_BYTES, 2 * PAGE_BYTES).is_some());
        assert_eq!(mapping.lent_bytes(), 0);
    }

    #[test]
    fn a_file_that_is_there_is_not_taken() {
        let (dir, _mapping) = mapping(1);
        let again = Mapping::create(&dir.path().join("m"), PAGE_BYTES);
        assert_eq!(again.err().unwrap().kind(), io::ErrorKind::AlreadyExists);
        assert!(Mapping::create(&dir.path().join("n"), 100).is_err());
        assert!(!dir.path().join("n").exists());
    }
}
