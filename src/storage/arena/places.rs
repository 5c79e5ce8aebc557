//! Places of a data directory's arenas: its own folder, and `<corelane.arena.dir>/<directory id>`
//! where that option is given.
//!
//! A note in the data directory names the places outside of it and the kernel's boot. It is on the
//! device before the first arena is made there, and goes when the last one has gone, so that a
//! start finds what the last run left wherever it is, and knows when it cannot be found. Each place
//! is locked by its broker. Blocks.

use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::FOLDER;
use super::layout::Identity;
use super::replay::arena_files;

/// Name of the note, in the folder of arenas of the data directory.
const NOTE: &str = "places.json";
const VERSION: u32 = 1;

/// Contents of the note.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    version: u32,
    boot: String,
    places: Vec<PathBuf>,
}

/// A folder outside of the data directory, locked while this lives.
#[derive(Debug)]
struct Place {
    folder: PathBuf,
    _lock: File,
}

/// Places of the arenas of one data directory.
#[derive(Debug)]
pub struct Places {
    root: PathBuf,
    identity: Identity,
    places: Vec<Place>,
    /// The note as it stands on the disk.
    noted: Option<Note>,
}

impl Places {
    /// Finds and locks the places that the note of the data directory at `root` names, and its
    /// place in `configured` where there is one. An error: a place of this boot is away, and
    /// acknowledged records with it.
    pub fn find(root: &Path, identity: Identity, configured: Option<&Path>) -> io::Result<Places> {
        let noted = read_note(root)?;
        let mut found = Places { root: root.to_path_buf(), identity, places: Vec::new(), noted };
        for folder in found.noted.iter().flat_map(|note| note.places.clone()).collect::<Vec<_>>() {
            match hold(&folder) {
                Ok(Some(place)) => found.places.push(place),
                Ok(None) => return Err(found.in_use(&folder)),
                Err(error) if found.is_of_this_boot() => return Err(found.away(&folder, &error)),
                Err(error) => tracing::info!(
                    "{}: its arenas of an earlier boot in {} are gone, with what had not been written when the kernel ended: {error}",
                    root.display(),
                    folder.display()
                ),
            }
        }
        // A note may have been removed, but not what it named. What cannot be opened there
        // is told when it is wanted.
        if let Some(folder) = configured.and_then(|dir| found.place_in(dir).canonicalize().ok())
            && !found.has(&folder)
        {
            match hold(&folder) {
                Ok(Some(place)) => found.places.push(place),
                Ok(None) => return Err(found.in_use(&folder)),
                Err(_) => {}
            }
        }
        Ok(found)
    }

    /// Folders that may hold arenas.
    pub fn folders(&self) -> Vec<PathBuf> {
        let others = self.places.iter().map(|place| place.folder.clone());
        std::iter::once(self.root.join(FOLDER)).chain(others).collect()
    }

    /// Makes and notes the data directory's place in `dir`; returns its folder.
    pub fn make(&mut self, dir: &Path) -> io::Result<PathBuf> {
        let folder = self.place_in(dir);
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", folder.display()));
        fs::create_dir_all(&folder).map_err(named)?;
        let folder = folder.canonicalize().map_err(named)?;
        let added = !self.has(&folder);
        if added {
            self.places.push(hold(&folder).map_err(named)?.ok_or_else(|| self.in_use(&folder))?);
        }
        let outcome = try_out(&folder).map_err(named).and_then(|()| self.write_note());
        if outcome.is_err() && added {
            self.places.pop();
        }
        outcome.map(|()| folder)
    }

    /// Forgets the places without arenas, in the note too.
    pub fn forget_empty(&mut self) -> io::Result<()> {
        let empty = |place: &Place| arena_files(&place.folder).is_ok_and(|files| files.is_empty());
        let (gone, kept) = std::mem::take(&mut self.places).into_iter().partition(empty);
        self.places = kept;
        if let Err(error) = self.write_note() {
            // A noted place must be there at the next start.
            self.places.extend::<Vec<Place>>(gone);
            return Err(error);
        }
        for place in gone {
            // Something else may be in it: an arena that was damaged.
            let _ = fs::remove_dir(&place.folder);
        }
        Ok(())
    }

    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    fn place_in(&self, dir: &Path) -> PathBuf {
        dir.join(self.identity.directory.to_string())
    }

    fn has(&self, folder: &Path) -> bool {
        self.places.iter().any(|place| place.folder == folder)
    }

    fn is_of_this_boot(&self) -> bool {
        self.noted.as_ref().is_some_and(|note| note.boot == self.identity.boot.to_string())
    }

    /// Has the note name the places, or removes it where there are none; it is on the
    /// device when this returns.
    fn write_note(&mut self) -> io::Result<()> {
        let places: Vec<PathBuf> = self.places.iter().map(|place| place.folder.clone()).collect();
        let wanted =
            (!places.is_empty()).then_some(Note { version: VERSION, boot: self.identity.boot.to_string(), places });
        if wanted == self.noted {
            return Ok(());
        }
        let path = note_file(&self.root);
        let written = match &wanted {
            Some(note) => replace(&self.root, note),
            None => fs::remove_file(&path).and_then(|()| sync(&self.root.join(FOLDER))),
        };
        written.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        self.noted = wanted;
        Ok(())
    }

    fn away(&self, folder: &Path, error: &io::Error) -> io::Error {
        let message = format!(
            "{}: its arenas are in {}, which cannot be opened: {error}. They may hold records that the last broker acknowledged just before it \
             was killed, and the machine has not been started anew since: mount that directory, or make it readable, and start again. Where \
             it is lost, or its records do not matter, remove {} and start again: the partitions then end before those records",
            self.root.display(),
            folder.display(),
            note_file(&self.root).display()
        );
        io::Error::new(error.kind(), message)
    }

    fn in_use(&self, folder: &Path) -> io::Error {
        let message = format!(
            "{}: its arenas in {} are in use by another process: another broker serves a data directory with the same directory.id, of \
             which one is a copy; end that broker, or remove directory.id from meta.properties of the copy",
            self.root.display(),
            folder.display()
        );
        io::Error::new(io::ErrorKind::ResourceBusy, message)
    }
}

/// The places outside of the data directory at `root` that its note names.
pub(super) fn noted_places(root: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(read_note(root)?.map(|note| note.places).unwrap_or_default())
}

fn note_file(root: &Path) -> PathBuf {
    root.join(FOLDER).join(NOTE)
}

fn read_note(root: &Path) -> io::Result<Option<Note>> {
    let path = note_file(root);
    let refused = |kind, why: String| {
        let message = format!(
            "{}: {why}. It names the directory with the arenas of the last broker, which may hold acknowledged records; where they do not \
             matter, remove it",
            path.display()
        );
        io::Error::new(kind, message)
    };
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(refused(error.kind(), error.to_string())),
    };
    match serde_json::from_slice::<Note>(&bytes) {
        Ok(note) if note.version == VERSION => Ok(Some(note)),
        Ok(note) => {
            let why = format!("it is of version {}, which this broker does not know", note.version);
            Err(refused(io::ErrorKind::Unsupported, why))
        }
        Err(error) => Err(refused(io::ErrorKind::InvalidData, format!("it is damaged: {error}"))),
    }
}

fn replace(root: &Path, note: &Note) -> io::Result<()> {
    let folder = root.join(FOLDER);
    if !folder.is_dir() {
        fs::create_dir(&folder)?;
        sync(root)?;
    }
    let (path, temporary) = (note_file(root), folder.join(format!("{NOTE}.tmp")));
    let text = serde_json::to_vec(note).map_err(io::Error::other)?;
    let written = File::create(&temporary)
        .and_then(|mut file| file.write_all(&text).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    written.inspect_err(|_| drop(fs::remove_file(&temporary)))?;
    sync(&folder)
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Opens and locks a place; `None`: somebody else has it.
fn hold(folder: &Path) -> io::Result<Option<Place>> {
    // Its arenas can be listed.
    arena_files(folder)?;
    let lock = File::open(folder)?;
    if !lock.metadata()?.is_dir() {
        return Err(io::Error::from(io::ErrorKind::NotADirectory));
    }
    match lock.try_lock() {
        Ok(()) => Ok(Some(Place { folder: folder.to_path_buf(), _lock: lock })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Files can be made in `folder`.
fn try_out(folder: &Path) -> io::Result<()> {
    let path = folder.join(".try");
    File::create(&path).and_then(|_| fs::remove_file(&path))
}

#[cfg(test)]
#[path = "places_tests.rs"]
mod tests;
