//! What must hold before the first shard starts; each failure is one line that says what is wrong and how to mend it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// One line: what is wrong, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ProbeError(pub String);

/// io_uring can be used here (kernel version, kernel.io_uring_disabled, seccomp), and RLIMIT_MEMLOCK lets every shard
/// register `io_memory_bytes` three times (or the process has CAP_IPC_LOCK).
pub fn check_io_uring(shards: u16, io_memory_bytes: usize) -> Result<(), ProbeError> {
    let _ = (shards, io_memory_bytes);
    todo!()
}

/// A data directory held by this process: made if absent, writable, with O_DIRECT, and locked against a second broker.
pub struct DataDir {
    pub path: PathBuf,
    /// What the directory lives on, for the banner: "nvme0n1 (NVMe)", "sda (SATA SSD)", "sdb (rotational)", ...
    pub device: String,
    pub(crate) _lock: fs::File,
}

/// Makes, checks and locks a data directory.
pub fn open_data_dir(path: &Path) -> Result<DataDir, ProbeError> {
    let _ = path;
    todo!()
}

/// Raises the soft limit of open files to the hard one; returns the limit in force.
pub fn raise_open_files() -> io::Result<u64> {
    todo!()
}
