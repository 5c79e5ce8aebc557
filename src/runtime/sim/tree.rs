//! Files and names of a simulated disk, twice: as the kernel has them, and as a power
//! cut leaves them at least.
//!
//! Between the two stand changes of names and sizes (the file system's journal, in order) and bytes
//! that were written and not synced. A sync makes a file's bytes safe, and the journal up to the
//! last change of that file. A power cut keeps a first part of the journal, and of the unsynced
//! bytes whatever blocks it likes: an older write to a block may be there where a newer one is not,
//! and bytes may be missing where the size says that there are some.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};

use super::random::Random;

/// Number of a file or directory, never used twice.
pub(super) type Ino = u64;

pub(super) const ROOT: Ino = 1;

/// Bytes that a device writes in one piece.
const SECTOR: u64 = 512;
const BLOCK: u64 = 4096;

/// How much of the journal a power cut keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Journal {
    /// A first part of it, as ext4 and XFS do.
    Ordered,
    /// A first part of the changes of each directory and of each file by themselves, which is
    /// all that POSIX promises.
    Loose,
}

#[derive(Clone, Debug)]
enum Change {
    Link { dir: Ino, name: OsString, ino: Ino },
    Unlink { dir: Ino, name: OsString },
    Rename { from: (Ino, OsString), to: (Ino, OsString), ino: Ino },
    Size { ino: Ino, len: u64 },
}

impl Change {
    /// True if a sync of `wanted` asks for it: where the journal is loose, a file's sync
    /// does not ask for its name.
    fn concerns(&self, wanted: Ino, journal: Journal) -> bool {
        let named = |ino: Ino| journal == Journal::Ordered && ino == wanted;
        match self {
            Change::Link { dir, ino, .. } => *dir == wanted || named(*ino),
            Change::Unlink { dir, .. } => *dir == wanted,
            Change::Rename { from, to, ino } => [from.0, to.0].contains(&wanted) || named(*ino),
            Change::Size { ino, .. } => *ino == wanted,
        }
    }

    /// The directory or file whose changes stay in order, whatever the journal is.
    fn key(&self) -> Ino {
        match self {
            Change::Link { dir, .. } | Change::Unlink { dir, .. } => *dir,
            Change::Rename { from, .. } => from.0,
            Change::Size { ino, .. } => *ino,
        }
    }
}

/// Bytes written and not synced.
#[derive(Debug)]
struct Write {
    at: u64,
    ino: Ino,
    position: u64,
    bytes: Vec<u8>,
}

#[derive(Clone, Debug, Default)]
struct Image {
    dirs: BTreeMap<Ino, BTreeMap<OsString, Ino>>,
    files: BTreeMap<Ino, Vec<u8>>,
}

/// As `Vec::resize` with zeros, which sets them one by one in a build for tests.
fn resize(bytes: &mut Vec<u8>, len: usize) {
    if len <= bytes.len() {
        return bytes.truncate(len);
    }
    let mut longer = vec![0; len];
    longer[..bytes.len()].copy_from_slice(bytes);
    *bytes = longer;
}

impl Image {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Link { dir, name, ino } => {
                self.dirs.entry(*dir).or_default().insert(name.clone(), *ino);
            }
            Change::Unlink { dir, name } => {
                self.dirs.entry(*dir).or_default().remove(name);
            }
            Change::Rename { from, to, ino } => {
                self.dirs.entry(from.0).or_default().remove(&from.1);
                self.dirs.entry(to.0).or_default().insert(to.1.clone(), *ino);
            }
            Change::Size { ino, len } => resize(self.files.entry(*ino).or_default(), *len as usize),
        }
    }

    fn put(&mut self, ino: Ino, position: u64, bytes: &[u8]) {
        let Some(file) = self.files.get_mut(&ino) else { return };
        let begin = (position as usize).min(file.len());
        let end = (begin + bytes.len()).min(file.len());
        file[begin..end].copy_from_slice(&bytes[..end - begin]);
    }

    /// Drops what no name leads to.
    fn sweep(&mut self) {
        let (mut reached, mut open) = (vec![ROOT], vec![ROOT]);
        while let Some(dir) = open.pop() {
            for ino in self.dirs.get(&dir).into_iter().flat_map(BTreeMap::values) {
                reached.push(*ino);
                if self.dirs.contains_key(ino) {
                    open.push(*ino);
                }
            }
        }
        self.dirs.retain(|ino, _| reached.contains(ino));
        self.files.retain(|ino, _| reached.contains(ino));
    }
}

pub(super) struct Tree {
    live: Image,
    safe: Image,
    journal: Vec<(u64, Change)>,
    unsynced: Vec<Write>,
    next: Ino,
    time: u64,
    /// Changes of each file's bytes and size so far.
    changes: BTreeMap<Ino, u64>,
}

impl Tree {
    pub(super) fn new() -> Tree {
        let mut live = Image::default();
        live.dirs.insert(ROOT, BTreeMap::new());
        Tree {
            safe: live.clone(),
            live,
            journal: Vec::new(),
            unsynced: Vec::new(),
            next: ROOT + 1,
            time: 0,
            changes: BTreeMap::new(),
        }
    }

    fn change(&mut self, change: Change) {
        self.time += 1;
        self.live.apply(&change);
        self.journal.push((self.time, change));
    }

    fn number(&mut self) -> Ino {
        self.next += 1;
        self.next - 1
    }

    pub(super) fn lookup(&self, dir: Ino, name: &OsStr) -> Option<Ino> {
        self.live.dirs.get(&dir)?.get(name).copied()
    }

    pub(super) fn is_dir(&self, ino: Ino) -> bool {
        self.live.dirs.contains_key(&ino)
    }

    /// Names in a directory, in order; `None`: it is none.
    pub(super) fn names(&self, dir: Ino) -> Option<Vec<OsString>> {
        self.live.dirs.get(&dir).map(|names| names.keys().cloned().collect())
    }

    /// A file's bytes; of one without a name as well, for those who have it open.
    pub(super) fn bytes(&self, ino: Ino) -> Option<&[u8]> {
        self.live.files.get(&ino).map(Vec::as_slice)
    }

    pub(super) fn create(&mut self, dir: Ino, name: &OsStr) -> Ino {
        let ino = self.number();
        self.live.files.insert(ino, Vec::new());
        self.safe.files.insert(ino, Vec::new());
        self.change(Change::Link { dir, name: name.to_owned(), ino });
        ino
    }

    pub(super) fn make_dir(&mut self, dir: Ino, name: &OsStr) -> Ino {
        let ino = self.number();
        self.live.dirs.insert(ino, BTreeMap::new());
        self.safe.dirs.insert(ino, BTreeMap::new());
        self.change(Change::Link { dir, name: name.to_owned(), ino });
        ino
    }

    pub(super) fn unlink(&mut self, dir: Ino, name: &OsStr) {
        self.change(Change::Unlink { dir, name: name.to_owned() });
    }

    pub(super) fn rename(&mut self, from: (Ino, &OsStr), to: (Ino, &OsStr), ino: Ino) {
        let (from, to) = ((from.0, from.1.to_owned()), (to.0, to.1.to_owned()));
        self.change(Change::Rename { from, to, ino });
    }

    /// How often a file's bytes or size have been changed.
    pub(super) fn changes(&self, ino: Ino) -> u64 {
        self.changes.get(&ino).copied().unwrap_or(0)
    }

    pub(super) fn resize(&mut self, ino: Ino, len: u64) {
        *self.changes.entry(ino).or_default() += 1;
        self.change(Change::Size { ino, len });
    }

    pub(super) fn write(&mut self, ino: Ino, position: u64, bytes: &[u8]) {
        let end = position + bytes.len() as u64;
        if self.bytes(ino).is_some_and(|file| end > file.len() as u64) {
            self.resize(ino, end);
        }
        *self.changes.entry(ino).or_default() += 1;
        self.live.put(ino, position, bytes);
        self.unsynced.push(Write { at: self.time, ino, position, bytes: bytes.to_vec() });
    }

    /// Bytes of files that have names.
    pub(super) fn used(&self) -> u64 {
        let mut named = self.live.clone();
        named.sweep();
        named.files.values().map(|file| (file.len() as u64).next_multiple_of(BLOCK)).sum()
    }

    /// Makes a file or directory safe.
    pub(super) fn sync(&mut self, ino: Ino, journal: Journal) {
        let concerned = self.journal.iter().rposition(|(_, change)| change.concerns(ino, journal));
        let upto = concerned.map_or(0, |at| at + 1);
        let early: Vec<_> = self.journal.drain(..upto).collect();
        let mut left = Vec::new();
        for (at, change) in early {
            if journal == Journal::Ordered || change.concerns(ino, journal) {
                self.make_safe(at, &change);
            } else {
                left.push((at, change));
            }
        }
        self.journal.splice(..0, left);
        if let Some(bytes) = self.live.files.get(&ino) {
            self.safe.files.insert(ino, bytes.clone());
            self.unsynced.retain(|write| write.ino != ino);
        }
    }

    fn make_safe(&mut self, at: u64, change: &Change) {
        self.safe.apply(change);
        let Change::Size { ino, len } = change else { return };
        // Bytes written before a cut that lay behind it are gone.
        for write in self.unsynced.iter_mut().filter(|write| write.ino == *ino && write.at < at) {
            write.bytes.truncate(len.saturating_sub(write.position) as usize);
        }
    }

    /// Takes away whatever was not safe, or leaves some of it, as `random` has it.
    pub(super) fn cut_power(&mut self, random: &mut Random, journal: Journal) {
        let mut kept: BTreeMap<Ino, usize> = BTreeMap::new();
        let changes = std::mem::take(&mut self.journal);
        let all = random.index(changes.len() + 1);
        let mut seen: BTreeMap<Ino, usize> = BTreeMap::new();
        for (_, change) in &changes {
            *seen.entry(change.key()).or_default() += 1;
        }
        for (key, count) in &seen {
            kept.insert(*key, random.index(count + 1));
        }
        for (number, (at, change)) in changes.iter().enumerate() {
            let left = kept.entry(change.key()).or_default();
            let keep = match journal {
                Journal::Ordered => number < all,
                Journal::Loose => *left > 0,
            };
            *left = left.saturating_sub(1);
            if keep {
                self.make_safe(*at, change);
            }
        }
        self.keep_some_bytes(random);
        self.safe.sweep();
        self.live = self.safe.clone();
    }

    fn keep_some_bytes(&mut self, random: &mut Random) {
        let mut ways: BTreeMap<Ino, u64> = BTreeMap::new();
        for write in std::mem::take(&mut self.unsynced) {
            let way = *ways.entry(write.ino).or_insert_with(|| random.below(4));
            let unit = if way == 3 { SECTOR } else { BLOCK };
            let (mut position, mut rest) = (write.position, &write.bytes[..]);
            while !rest.is_empty() {
                let len = ((unit - position % unit) as usize).min(rest.len());
                let keep = match way {
                    0 => false,
                    1 => true,
                    _ => random.coin(),
                };
                if keep {
                    self.safe.put(write.ino, position, &rest[..len]);
                }
                (position, rest) = (position + len as u64, &rest[len..]);
            }
        }
    }
}
