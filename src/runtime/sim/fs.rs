//! The face of `std::fs` over the simulated disk of the current shard; elsewhere `std::fs` itself.

use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use super::disk::{State, os};
pub use super::names::*;
use super::shard::{on_disk, with_disk};
use super::tree::Ino;

/// Runs `simulated` on the disk of the current shard, or `real` where there is none.
pub(super) fn either<T>(
    simulated: impl FnOnce(&mut State) -> io::Result<T>,
    real: impl FnOnce() -> io::Result<T>,
) -> io::Result<T> {
    with_disk(simulated).unwrap_or_else(real)
}

/// An open file or directory of a simulated disk. It may travel, and is used on
/// its disk's shards only.
#[derive(Debug)]
pub struct SimFile {
    ino: Ino,
    path: PathBuf,
    append: bool,
    position: AtomicU64,
}

#[derive(Debug)]
pub enum File {
    Real(std::fs::File),
    Simulated(SimFile),
}

impl File {
    pub fn open(path: impl AsRef<Path>) -> io::Result<File> {
        OpenOptions::new().read(true).open(path)
    }

    pub fn create(path: impl AsRef<Path>) -> io::Result<File> {
        OpenOptions::new().write(true).create(true).truncate(true).open(path)
    }

    pub fn create_new(path: impl AsRef<Path>) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create_new(true).open(path)
    }

    pub fn sync_all(&self) -> io::Result<()> {
        match self {
            File::Real(file) => file.sync_all(),
            File::Simulated(file) => on_disk(|disk| {
                let go = disk.begin("sync", &file.path)?;
                disk.sync(&go, file.ino)
            }),
        }
    }

    pub fn sync_data(&self) -> io::Result<()> {
        match self {
            File::Real(file) => file.sync_data(),
            File::Simulated(_) => self.sync_all(),
        }
    }

    pub fn set_len(&self, len: u64) -> io::Result<()> {
        match self {
            File::Real(file) => file.set_len(len),
            File::Simulated(file) => on_disk(|disk| {
                disk.simple("truncate", &file.path)?;
                disk.room_for(disk.len(file.ino), len)?;
                disk.tree.resize(file.ino, len);
                Ok(())
            }),
        }
    }

    pub fn set_modified(&self, time: SystemTime) -> io::Result<()> {
        match self {
            File::Real(file) => file.set_modified(time),
            // Times of files are not kept.
            File::Simulated(file) => on_disk(|disk| disk.simple("date", &file.path)),
        }
    }

    pub fn metadata(&self) -> io::Result<Metadata> {
        match self {
            File::Real(file) => file.metadata().map(Metadata::Real),
            File::Simulated(file) => on_disk(|disk| {
                disk.simple("look at", &file.path)?;
                Ok(Metadata::of(disk, file.ino))
            }),
        }
    }
}

impl FileExt for File {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        match self {
            File::Real(file) => file.read_at(buf, offset),
            File::Simulated(file) => on_disk(|disk| {
                let go = disk.begin("read", &file.path)?;
                let len = if go.short { buf.len().div_ceil(2) } else { buf.len() };
                let read = disk.read(file.ino, offset, len);
                buf[..read.len()].copy_from_slice(read);
                go.outcome(read.len())
            }),
        }
    }

    fn write_at(&self, buf: &[u8], offset: u64) -> io::Result<usize> {
        match self {
            File::Real(file) => file.write_at(buf, offset),
            File::Simulated(file) => on_disk(|disk| {
                let go = disk.begin("write", &file.path)?;
                disk.write(&go, file.ino, offset, buf)
            }),
        }
    }
}

impl Read for File {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let position = match self {
            File::Real(file) => return file.read(buf),
            File::Simulated(file) => file.position.load(Ordering::Relaxed),
        };
        let read = self.read_at(buf, position)?;
        self.seek(SeekFrom::Start(position + read as u64))?;
        Ok(read)
    }
}

impl Write for File {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let position = match self {
            File::Real(file) => return file.write(buf),
            File::Simulated(file) if file.append => on_disk(|disk| Ok(disk.len(file.ino)))?,
            File::Simulated(file) => file.position.load(Ordering::Relaxed),
        };
        let written = self.write_at(buf, position)?;
        self.seek(SeekFrom::Start(position + written as u64))?;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            File::Real(file) => file.flush(),
            File::Simulated(_) => Ok(()),
        }
    }
}

impl Seek for File {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let file = match self {
            File::Real(file) => return file.seek(to),
            File::Simulated(file) => file,
        };
        let position = match to {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(by) => on_disk(|disk| Ok(disk.len(file.ino)))?.checked_add_signed(by),
            SeekFrom::Current(by) => file.position.get_mut().checked_add_signed(by),
        };
        let position = position.ok_or_else(|| os(libc::EINVAL))?;
        *file.position.get_mut() = position;
        Ok(position)
    }
}

/// `std::fs::OpenOptions`, kept so that it can be asked what it was told.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    real: std::fs::OpenOptions,
    append: bool,
    truncate: bool,
    create: bool,
    create_new: bool,
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        OpenOptions::new()
    }
}

impl OpenOptions {
    pub fn new() -> OpenOptions {
        let real = std::fs::OpenOptions::new();
        OpenOptions { real, append: false, truncate: false, create: false, create_new: false }
    }

    pub fn read(&mut self, on: bool) -> &mut OpenOptions {
        self.real.read(on);
        self
    }

    pub fn write(&mut self, on: bool) -> &mut OpenOptions {
        self.real.write(on);
        self
    }

    pub fn append(&mut self, on: bool) -> &mut OpenOptions {
        self.real.append(on);
        self.append = on;
        self
    }

    pub fn truncate(&mut self, on: bool) -> &mut OpenOptions {
        self.real.truncate(on);
        self.truncate = on;
        self
    }

    pub fn create(&mut self, on: bool) -> &mut OpenOptions {
        self.real.create(on);
        self.create = on;
        self
    }

    pub fn create_new(&mut self, on: bool) -> &mut OpenOptions {
        self.real.create_new(on);
        self.create_new = on;
        self
    }

    pub fn open(&self, path: impl AsRef<Path>) -> io::Result<File> {
        let path = path.as_ref();
        let simulated = |disk: &mut State| {
            disk.simple(if self.create || self.create_new { "create" } else { "open" }, path)?;
            let ino = match disk.find(path) {
                // Directories are opened to be synced.
                Ok(ino) if disk.tree.is_dir(ino) => ino,
                _ => disk.open(path, self.create, self.create_new)?,
            };
            if self.truncate && disk.len(ino) > 0 {
                disk.tree.resize(ino, 0);
            }
            let position = AtomicU64::new(0);
            Ok(File::Simulated(SimFile { ino, path: path.to_path_buf(), append: self.append, position }))
        };
        either(simulated, || self.real.open(path).map(File::Real))
    }
}

#[derive(Debug)]
pub enum Metadata {
    Real(std::fs::Metadata),
    Simulated { dir: bool, len: u64, ino: Ino, changes: u64 },
}

impl Metadata {
    fn of(disk: &State, ino: Ino) -> Metadata {
        let (dir, len, changes) = (disk.tree.is_dir(ino), disk.len(ino), disk.tree.changes(ino));
        Metadata::Simulated { dir, len, ino, changes }
    }

    pub fn is_dir(&self) -> bool {
        match self {
            Metadata::Real(metadata) => metadata.is_dir(),
            Metadata::Simulated { dir, .. } => *dir,
        }
    }

    pub fn is_file(&self) -> bool {
        match self {
            Metadata::Real(metadata) => metadata.is_file(),
            Metadata::Simulated { dir, .. } => !dir,
        }
    }

    #[allow(clippy::len_without_is_empty, reason = "as std::fs::Metadata")]
    pub fn len(&self) -> u64 {
        match self {
            Metadata::Real(metadata) => metadata.len(),
            Metadata::Simulated { len, .. } => *len,
        }
    }

    pub(in crate::runtime) fn inode(&self) -> u64 {
        match self {
            Metadata::Real(metadata) => std::os::unix::fs::MetadataExt::ino(metadata),
            Metadata::Simulated { ino, .. } => *ino,
        }
    }

    /// Simulated files are all of the same time, but that each change of one shows.
    pub fn modified(&self) -> io::Result<SystemTime> {
        match self {
            Metadata::Real(metadata) => metadata.modified(),
            Metadata::Simulated { changes, .. } => {
                Ok(SystemTime::UNIX_EPOCH + Duration::from_secs(1) + Duration::from_nanos(*changes))
            }
        }
    }
}

pub fn metadata(path: impl AsRef<Path>) -> io::Result<Metadata> {
    let path = path.as_ref();
    let simulated = |disk: &mut State| {
        disk.simple("look at", path)?;
        disk.find(path).map(|ino| Metadata::of(disk, ino))
    };
    either(simulated, || std::fs::metadata(path).map(Metadata::Real))
}

pub fn read(path: impl AsRef<Path>) -> io::Result<Vec<u8>> {
    let path = path.as_ref();
    let simulated = |disk: &mut State| {
        disk.simple("read", path)?;
        let ino = disk.find(path)?;
        Ok(disk.read(ino, 0, usize::MAX / 2).to_vec())
    };
    either(simulated, || std::fs::read(path))
}

pub fn write(path: impl AsRef<Path>, contents: impl AsRef<[u8]>) -> io::Result<()> {
    File::create(path)?.write_all(contents.as_ref())
}
