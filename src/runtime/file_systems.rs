//! Syncs of files written by blocking code: one by one, or, where they are
//! many, by whole file systems.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::faults::{self, Op};
use super::fs;

/// Kinds of file system whose `syncfs` tells of writes that have failed: of overlays it does not.
const TELLING: [i64; 2] = [libc::EXT4_SUPER_MAGIC, libc::XFS_SUPER_MAGIC];

/// Makes what was written to one file survive a power cut. Blocks.
pub fn sync_file(file: &fs::File, path: &Path) -> io::Result<()> {
    meet(Op::Fdatasync, path)?;
    file.sync_data()
}

fn meet(op: Op, path: &Path) -> io::Result<()> {
    faults::load();
    match faults::check(op, path) {
        Some(fault @ (faults::Fault::Os(_) | faults::Fault::Short)) => Err(fault.error()),
        None | Some(faults::Fault::Slow(_)) => Ok(()),
    }
}

/// The file systems of files that are written, to be synced together. Threads may share it.
#[derive(Default)]
pub struct FileSystems(Mutex<BTreeMap<u64, (File, PathBuf)>>);

impl FileSystems {
    /// Notes the one of `file`, which has not been written to yet. `false`: its sync cannot be
    /// relied on, and the file is to be synced by itself.
    pub fn note(&self, file: &fs::File, path: &Path) -> io::Result<bool> {
        #[cfg(any(test, feature = "simulator"))]
        let fs::File::Real(file) = file else { return Ok(false) };
        let device = file.metadata()?.dev();
        let mut noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.contains_key(&device) {
            return Ok(true);
        }
        if !TELLING.contains(&kind(file)?) {
            return Ok(false);
        }
        // The kernel tells of what has failed since this description of the file was opened.
        noted.insert(device, (file.try_clone()?, path.to_owned()));
        Ok(true)
    }

    /// Makes everything written to them survive a power cut, also what other programs have
    /// written. An error: some write since they were noted may have failed, of whichever
    /// file (Linux 5.8). Blocks.
    pub fn sync(&self) -> io::Result<()> {
        let noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.values().try_for_each(|(file, path)| {
            let failed =
                |error: io::Error| io::Error::new(error.kind(), format!("syncfs, {}: {error}", path.display()));
            meet(Op::SyncFs, path).and_then(|()| syncfs(file)).map_err(failed)
        })
    }
}

fn syncfs(file: &File) -> io::Result<()> {
    // SAFETY: a plain system call on a descriptor that is open.
    #[allow(unsafe_code)]
    let result = unsafe { libc::syncfs(file.as_raw_fd()) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn kind(file: &File) -> io::Result<i64> {
    let mut found = MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: `fstatfs` fills the struct, which is read only after it reported
    // success; the descriptor is open.
    #[allow(unsafe_code)]
    let found = unsafe {
        if libc::fstatfs(file.as_raw_fd(), found.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        found.assume_init()
    };
    Ok(found.f_type as i64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::scratch;

    fn real(file: &fs::File) -> &File {
        let fs::File::Real(file) = file else { panic!("a simulated file") };
        file
    }

    #[test]
    fn file_systems_that_tell_of_failed_writes_are_synced() {
        let dir = scratch();
        let path = dir.path().join("a");
        let file = fs::File::Real(File::create(&path).unwrap());
        let systems = FileSystems::default();
        let telling = TELLING.contains(&kind(real(&file)).unwrap());
        assert_eq!((0..2).map(|_| systems.note(&file, &path).unwrap()).collect::<Vec<_>>(), [telling; 2]);
        let memory = fs::File::Real(tempfile::tempfile_in("/dev/shm").unwrap());
        assert!(!systems.note(&memory, Path::new("/dev/shm")).unwrap(), "nothing in memory survives the power");
        systems.sync().unwrap();
        faults::inject(Op::SyncFs, "/a", 0, faults::Fault::Os(libc::EIO));
        assert_eq!(systems.sync().is_err(), telling);
        faults::clear();
    }
}
