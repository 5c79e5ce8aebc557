//! Blocking work on small files, as `std::fs` has it. Where the simulator is built in, files of a
//! simulated shard are those of its disk.

use std::io;
use std::time::SystemTime;

#[cfg(any(test, feature = "simulator"))]
pub use super::sim::fs::*;
#[cfg(not(any(test, feature = "simulator")))]
pub use std::fs::*;

/// Which file it is, and how it was: a later change of it changes one of these, but for one within
/// the same tick of the file system's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    inode: u64,
    pub bytes: u64,
    pub modified: SystemTime,
}

impl Stamp {
    pub fn of(metadata: &Metadata) -> io::Result<Stamp> {
        #[cfg(any(test, feature = "simulator"))]
        let inode = metadata.inode();
        #[cfg(not(any(test, feature = "simulator")))]
        let inode = std::os::unix::fs::MetadataExt::ino(metadata);
        Ok(Stamp { inode, bytes: metadata.len(), modified: metadata.modified()? })
    }
}
