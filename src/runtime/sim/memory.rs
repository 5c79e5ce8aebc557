//! A file of a simulated disk that is mapped: memory of the process, of which the disk takes note
//! when the process ends or when somebody opens the file. Every store is an operation of the disk,
//! before which the process may be killed.

use std::io;
use std::path::Path;
use std::sync::Arc;

use super::disk::State;
use super::shard::{on_disk, with_disk};
use super::tree::Ino;
use crate::runtime::mapping::{Mapping, PAGE_BYTES};

/// A word is stored in one piece.
const WORD_BYTES: usize = 8;

/// A file that the process has mapped, until it ends.
pub(super) struct Mapped {
    ino: Ino,
    memory: Arc<Mapping>,
}

/// A mapping's file.
#[derive(Clone, Copy)]
pub(in crate::runtime) struct MappedFile(Ino);

impl MappedFile {
    /// Makes the file, and reserves its blocks.
    pub(in crate::runtime) fn create(path: &Path, len: usize) -> io::Result<MappedFile> {
        on_disk(|disk| {
            disk.simple("map", path)?;
            disk.room_for(0, len as u64)?;
            let ino = disk.open(path, true, true)?;
            disk.tree.resize(ino, len as u64);
            Ok(MappedFile(ino))
        })
    }

    /// Its bytes are in this memory from now on.
    pub(in crate::runtime) fn is_at(self, memory: &Arc<Mapping>) {
        with_disk(|disk| disk.mapped.push(Mapped { ino: self.0, memory: memory.clone() }));
    }

    pub(in crate::runtime) fn before_store(self, position: usize, bytes: &[u8]) {
        with_disk(|disk| disk.store(self.0, position as u64, bytes));
    }
}

impl State {
    /// A store into mapped memory. Where the process is killed in it, a first part of it is made.
    fn store(&mut self, ino: Ino, position: u64, bytes: &[u8]) {
        let Some(path) =
            self.mapped.iter().find(|mapped| mapped.ino == ino).map(|mapped| mapped.memory.path().to_owned())
        else {
            return;
        };
        // Memory knows no errors.
        if self.begin("store", &path).is_ok() {
            return;
        }
        let upto = self.random.index(bytes.len() + 1);
        let upto = if bytes.len() == WORD_BYTES { upto / WORD_BYTES * WORD_BYTES } else { upto };
        if upto > 0 {
            self.tree.write(ino, position, &bytes[..upto]);
        }
    }

    /// Has a file be what its memory is, if it is mapped.
    pub(super) fn take_note_of(&mut self, ino: Ino) {
        let memory = self.mapped.iter().find(|mapped| mapped.ino == ino).map(|mapped| mapped.memory.clone());
        if let Some(memory) = memory {
            self.take_note(ino, &memory);
        }
    }

    fn take_note(&mut self, ino: Ino, memory: &Mapping) {
        let image = memory.image();
        let before = self.tree.bytes(ino).unwrap_or_default();
        let pages = image.chunks(PAGE_BYTES).zip(before.chunks(PAGE_BYTES)).enumerate();
        let changed: Vec<usize> = pages.filter(|(_, (now, then))| now != then).map(|(page, _)| page).collect();
        for page in changed {
            let start = page * PAGE_BYTES;
            self.tree.write(ino, start as u64, &image[start..start + PAGE_BYTES]);
        }
    }

    /// The process ends: what it goes on to store is never seen.
    pub(super) fn unmap_all(&mut self) {
        for Mapped { ino, memory } in std::mem::take(&mut self.mapped) {
            self.take_note(ino, &memory);
        }
    }
}
