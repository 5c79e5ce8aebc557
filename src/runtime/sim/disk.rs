//! A simulated disk: a [`Tree`] whose every operation has a number, at which
//! something can go wrong.
//!
//! Its shards reach it through their context, so that what they hand to helper threads holds no
//! more than numbers and paths.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path};
use std::rc::Rc;
use std::time::Duration;

use super::memory::Mapped;
use super::random::Random;
use super::tree::{Ino, Journal, ROOT, Tree};

/// Alignment of what a write that is cut short leaves behind.
const BLOCK: usize = 4096;

/// Fault of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The process is killed before it: what the kernel has stays.
    Kill,
    /// The power goes before it: what was not synced may go, whole or in part.
    PowerCut,
    /// It fails with this errno. A write may have reached the disk in part or in whole, a
    /// sync may have done its work.
    Error(i32),
    /// A write or read ends half way, without an error. Other operations are done.
    Short,
    /// It takes so much longer.
    Slow(Duration),
}

/// A simulated disk. Clones are the same one.
#[derive(Clone)]
pub struct Disk(pub(super) Rc<RefCell<State>>);

pub(super) struct State {
    pub tree: Tree,
    journal: Journal,
    pub mapped: Vec<Mapped>,
    /// Operations so far, those that failed included.
    operations: u64,
    faults: BTreeMap<u64, Fault>,
    down: Option<Fault>,
    /// Direct writes that were sent and have not ended.
    in_flight: BTreeMap<u64, (Ino, u64, Vec<u8>)>,
    capacity: Option<u64>,
    pub random: Random,
    power_cuts: u64,
    /// Operations of this run, for the reader of a failure.
    trace: Vec<String>,
}

/// Course of an operation that has its number.
pub(super) struct Go {
    pub number: u64,
    pub short: bool,
    pub slow: Duration,
    /// It fails with this errno, whatever it does.
    pub error: Option<i32>,
}

impl Go {
    pub(super) fn outcome<T>(&self, value: T) -> io::Result<T> {
        self.error.map_or(Ok(value), |code| Err(os(code)))
    }
}

pub(super) fn os(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl Disk {
    /// An empty one. `seed` decides what is left of what nobody has promised.
    pub fn new(seed: u64, journal: Journal) -> Disk {
        Disk(Rc::new(RefCell::new(State {
            tree: Tree::new(),
            journal,
            mapped: Vec::new(),
            operations: 0,
            faults: BTreeMap::new(),
            down: None,
            in_flight: BTreeMap::new(),
            capacity: None,
            random: Random::new(seed),
            power_cuts: 0,
            trace: Vec::new(),
        })))
    }

    /// Number of the next operation.
    pub fn operations(&self) -> u64 {
        self.0.borrow().operations
    }

    /// Operations so far, one a line.
    pub fn trace(&self) -> Vec<String> {
        self.0.borrow().trace.clone()
    }

    /// Has the operation `number` meet `fault`.
    pub fn fail_at(&self, number: u64, fault: Fault) {
        self.0.borrow_mut().faults.insert(number, fault);
    }

    /// Bytes that files may have together.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.0.borrow_mut().capacity = bytes;
    }

    /// The process was killed or the power cut, and nothing has been started since.
    pub fn is_down(&self) -> bool {
        self.0.borrow().down.is_some()
    }

    /// Has it happen now, between two operations.
    pub fn stop(&self, fault: Fault) {
        self.0.borrow_mut().go_down(fault);
    }

    /// Times that the power has been cut so far.
    pub fn power_cuts(&self) -> u64 {
        self.0.borrow().power_cuts
    }

    /// Leaves the disk as the next process finds it. Writes that were in flight have ended by then,
    /// each in whole, in part or not at all.
    pub fn restart(&self) {
        let mut state = self.0.borrow_mut();
        let state = &mut *state;
        for (ino, position, bytes) in std::mem::take(&mut state.in_flight).into_values() {
            let upto = match state.random.below(3) {
                0 => 0,
                1 => bytes.len(),
                _ => state.random.index(bytes.len() / BLOCK + 1) * BLOCK,
            };
            if upto > 0 {
                state.tree.write(ino, position, &bytes[..upto]);
            }
        }
        if state.down.take() == Some(Fault::PowerCut) {
            state.tree.cut_power(&mut state.random, state.journal);
        }
        state.faults.clear();
    }
}

impl State {
    /// Gives the next operation its number, and what becomes of it.
    pub(super) fn begin(&mut self, operation: &str, path: &Path) -> io::Result<Go> {
        if self.down.is_some() {
            return Err(io::Error::other("the simulated process has ended"));
        }
        let number = self.operations;
        self.operations += 1;
        let fault = self.faults.remove(&number);
        let met = fault.map(|fault| format!(" {fault:?}")).unwrap_or_default();
        self.trace.push(format!("{number} {operation} {}{met}", path.display()));
        let mut go = Go { number, short: false, slow: Duration::ZERO, error: None };
        match fault {
            Some(fault @ (Fault::Kill | Fault::PowerCut)) => {
                self.go_down(fault);
                return Err(io::Error::other("the simulated process ends here"));
            }
            Some(Fault::Error(code)) => go.error = Some(code),
            Some(Fault::Short) => go.short = true,
            Some(Fault::Slow(time)) => go.slow = time,
            None => {}
        }
        Ok(go)
    }

    fn go_down(&mut self, fault: Fault) {
        self.unmap_all();
        self.power_cuts += u64::from(fault == Fault::PowerCut);
        self.down = Some(fault);
    }

    /// A simple operation: it fails without a trace, or is done.
    pub(super) fn simple(&mut self, operation: &str, path: &Path) -> io::Result<()> {
        let go = self.begin(operation, path)?;
        go.outcome(())
    }

    /// The directory that `path` is in, and its name there.
    pub(super) fn place(&self, path: &Path) -> io::Result<(Ino, OsString)> {
        let name = path.file_name().ok_or_else(|| os(libc::EINVAL))?;
        let mut dir = ROOT;
        for component in path.parent().into_iter().flat_map(Path::components) {
            if let Component::Normal(name) = component {
                dir = self.tree.lookup(dir, name).ok_or_else(|| os(libc::ENOENT))?;
                if !self.tree.is_dir(dir) {
                    return Err(os(libc::ENOTDIR));
                }
            }
        }
        Ok((dir, name.to_owned()))
    }

    pub(super) fn find(&self, path: &Path) -> io::Result<Ino> {
        if path.parent().is_none() {
            return Ok(ROOT);
        }
        let (dir, name) = self.place(path)?;
        self.tree.lookup(dir, &name).ok_or_else(|| os(libc::ENOENT))
    }

    /// Makes the file where it may be made; whether it is new.
    pub(super) fn open(&mut self, path: &Path, create: bool, new: bool) -> io::Result<Ino> {
        let (dir, name) = self.place(path)?;
        match self.tree.lookup(dir, &name) {
            Some(_) if new => Err(os(libc::EEXIST)),
            Some(ino) => {
                self.take_note_of(ino);
                Ok(ino)
            }
            None if create || new => {
                self.room_for(0, 1)?;
                Ok(self.tree.create(dir, &name))
            }
            None => Err(os(libc::ENOENT)),
        }
    }

    /// Bytes that are free, and all.
    pub(super) fn space(&self) -> (u64, u64) {
        let all = self.capacity.unwrap_or(1 << 40);
        (all.saturating_sub(self.tree.used()), all)
    }

    /// An error if a file of `len` bytes cannot grow to `end`.
    pub(super) fn room_for(&self, len: u64, end: u64) -> io::Result<()> {
        let more = end.next_multiple_of(BLOCK as u64).saturating_sub(len.next_multiple_of(BLOCK as u64));
        if self.capacity.is_some() && more > 0 && more > self.space().0 {
            return Err(os(libc::ENOSPC));
        }
        Ok(())
    }

    pub(super) fn len(&self, ino: Ino) -> u64 {
        self.tree.bytes(ino).map_or(0, |bytes| bytes.len() as u64)
    }

    /// Writes what `go` lets through; how many bytes.
    pub(super) fn write(&mut self, go: &Go, ino: Ino, position: u64, bytes: &[u8]) -> io::Result<usize> {
        self.room_for(self.len(ino), position + bytes.len() as u64)?;
        let half = if bytes.len() > BLOCK { bytes.len() / 2 / BLOCK * BLOCK } else { bytes.len() / 2 };
        let upto = match (go.error, go.short) {
            (Some(_), _) => [0, half, bytes.len()][self.random.index(3)],
            (None, true) => half,
            (None, false) => bytes.len(),
        };
        if upto > 0 {
            self.tree.write(ino, position, &bytes[..upto]);
        }
        go.outcome(upto)
    }

    pub(super) fn sync(&mut self, go: &Go, ino: Ino) -> io::Result<()> {
        if go.error.is_none() || self.random.coin() {
            self.tree.sync(ino, self.journal);
        }
        go.outcome(())
    }

    pub(super) fn read(&self, ino: Ino, position: u64, len: usize) -> &[u8] {
        let bytes = self.tree.bytes(ino).unwrap_or_default();
        let begin = (position as usize).min(bytes.len());
        &bytes[begin..(begin + len).min(bytes.len())]
    }

    /// A direct write is on its way; it ends by [`land`](Self::land).
    pub(super) fn send(&mut self, number: u64, ino: Ino, position: u64, bytes: Vec<u8>) {
        self.in_flight.insert(number, (ino, position, bytes));
    }

    pub(super) fn land(&mut self, go: &Go) -> io::Result<usize> {
        match self.in_flight.remove(&go.number) {
            Some((ino, position, bytes)) => self.write(go, ino, position, &bytes),
            None => Err(io::Error::other("the simulated process has ended")),
        }
    }
}
