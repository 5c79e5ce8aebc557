//! Names and directories, as `std::fs` has them; see [`fs`](super::fs).

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use super::disk::{State, os};
use super::fs::{Metadata, either, metadata};
use super::shard;

pub fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> io::Result<()> {
    let (from, to) = (from.as_ref(), to.as_ref());
    let simulated = |disk: &mut State| {
        disk.simple("rename", from)?;
        let ino = disk.find(from)?;
        let (source, target) = (disk.place(from)?, disk.place(to)?);
        disk.tree.rename((source.0, &source.1), (target.0, &target.1), ino);
        Ok(())
    };
    either(simulated, || std::fs::rename(from, to))
}

pub fn remove_file(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    let simulated = |disk: &mut State| {
        disk.simple("remove", path)?;
        if disk.tree.is_dir(disk.find(path)?) {
            return Err(os(libc::EISDIR));
        }
        let (dir, name) = disk.place(path)?;
        disk.tree.unlink(dir, &name);
        Ok(())
    };
    either(simulated, || std::fs::remove_file(path))
}

pub fn remove_dir(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    let simulated = |disk: &mut State| {
        disk.simple("remove", path)?;
        let ino = disk.find(path)?;
        if !disk.tree.names(ino).ok_or_else(|| os(libc::ENOTDIR))?.is_empty() {
            return Err(os(libc::ENOTEMPTY));
        }
        let (dir, name) = disk.place(path)?;
        disk.tree.unlink(dir, &name);
        Ok(())
    };
    either(simulated, || std::fs::remove_dir(path))
}

pub fn create_dir(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    let simulated = |disk: &mut State| {
        disk.simple("make", path)?;
        let (dir, name) = disk.place(path)?;
        if disk.tree.lookup(dir, &name).is_some() {
            return Err(os(libc::EEXIST));
        }
        disk.tree.make_dir(dir, &name);
        Ok(())
    };
    either(simulated, || std::fs::create_dir(path))
}

pub fn create_dir_all(path: impl AsRef<Path>) -> io::Result<()> {
    let path = path.as_ref();
    if shard::with_disk(|_| ()).is_none() {
        return std::fs::create_dir_all(path);
    }
    let mut missing: Vec<&Path> = Vec::new();
    for dir in path.ancestors().filter(|dir| dir.file_name().is_some()) {
        if metadata(dir).is_ok_and(|found| found.is_dir()) {
            break;
        }
        missing.push(dir);
    }
    missing.into_iter().rev().try_for_each(create_dir)
}

#[derive(Debug)]
pub enum DirEntry {
    Real(std::fs::DirEntry),
    Simulated { dir: PathBuf, name: OsString },
}

impl DirEntry {
    pub fn path(&self) -> PathBuf {
        match self {
            DirEntry::Real(entry) => entry.path(),
            DirEntry::Simulated { dir, name } => dir.join(name),
        }
    }

    pub fn file_name(&self) -> OsString {
        match self {
            DirEntry::Real(entry) => entry.file_name(),
            DirEntry::Simulated { name, .. } => name.clone(),
        }
    }

    pub fn metadata(&self) -> io::Result<Metadata> {
        match self {
            DirEntry::Real(entry) => entry.metadata().map(Metadata::Real),
            DirEntry::Simulated { .. } => metadata(self.path()),
        }
    }
}

pub type ReadDir = Box<dyn Iterator<Item = io::Result<DirEntry>> + Send>;

pub fn read_dir(path: impl AsRef<Path>) -> io::Result<ReadDir> {
    let path = path.as_ref();
    let simulated = |disk: &mut State| -> io::Result<ReadDir> {
        disk.simple("list", path)?;
        let names = disk.tree.names(disk.find(path)?).ok_or_else(|| os(libc::ENOTDIR))?;
        let dir = path.to_path_buf();
        let entry = move |name| Ok(DirEntry::Simulated { dir: dir.clone(), name });
        Ok(Box::new(names.into_iter().map(entry)))
    };
    let real =
        || -> io::Result<ReadDir> { Ok(Box::new(std::fs::read_dir(path)?.map(|entry| entry.map(DirEntry::Real)))) };
    either(simulated, real)
}
