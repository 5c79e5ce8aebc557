//! Files through the shard's ring with direct I/O, and the aligned buffers they need.
//!
//! Lives on one shard; only [`Bytes`] made here may travel to other shards.

use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;

/// Alignment of positions, lengths and memory for direct I/O, bytes.
pub const ALIGNMENT: u64 = 4096;

/// The largest single read or write, bytes.
pub const MAX_IO_BYTES: usize = 1024 * 1024;

/// Rounds up to [`ALIGNMENT`].
pub fn align_up(value: u64) -> u64 {
    value.next_multiple_of(ALIGNMENT)
}

/// Rounds down to [`ALIGNMENT`].
pub fn align_down(value: u64) -> u64 {
    value / ALIGNMENT * ALIGNMENT
}

/// A writable aligned buffer. Its contents are arbitrary until written.
pub struct DiskBuf {
    pub(crate) _private: (),
}

impl DiskBuf {
    /// `len` must be a multiple of [`ALIGNMENT`], at most [`MAX_IO_BYTES`]. Call on a shard.
    pub fn alloc(len: usize) -> DiskBuf {
        let _ = len;
        todo!()
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        todo!()
    }

    /// Ends writing: the buffer can be written to a file and read by anyone, and never changes again.
    pub fn freeze(self) -> FrozenBuf {
        todo!()
    }
}

/// An aligned buffer that no longer changes.
#[derive(Clone)]
pub struct FrozenBuf {
    pub(crate) _private: (),
}

impl FrozenBuf {
    /// The whole buffer as shared bytes that may cross shards; the memory goes back to its own shard when the last
    /// holder lets go.
    pub fn bytes(&self) -> Bytes {
        todo!()
    }

    pub fn len(&self) -> usize {
        todo!()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How to open a [`File`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Existing file, reads only.
    Read,
    /// Existing file, reads and writes.
    ReadWrite,
    /// Made new for reads and writes; an existing one is an error.
    CreateNew,
}

/// A file open for direct I/O on this shard.
pub struct File {
    pub(crate) _private: (),
}

impl File {
    /// Errors name the path.
    pub async fn open(path: &Path, mode: OpenMode) -> io::Result<File> {
        let _ = (path, mode);
        todo!()
    }

    pub fn path(&self) -> PathBuf {
        todo!()
    }

    /// Writes the whole buffer at an aligned `position`; a short write is an error (`WriteZero`).
    pub async fn write_at(&self, buf: &FrozenBuf, position: u64) -> io::Result<()> {
        let _ = (buf, position);
        todo!()
    }

    /// Reads up to `len` bytes (a multiple of [`ALIGNMENT`], at most [`MAX_IO_BYTES`]) at an aligned `position`;
    /// fewer come back only at the end of the file.
    pub async fn read_at(&self, position: u64, len: usize) -> io::Result<Bytes> {
        let _ = (position, len);
        todo!()
    }

    /// The data, and what is needed to find it, is on the device afterwards.
    pub async fn fdatasync(&self) -> io::Result<()> {
        todo!()
    }

    /// Reserves blocks for `[position, position + len)` and extends the file's size over them; they read as zeros.
    pub async fn preallocate(&self, position: u64, len: u64) -> io::Result<()> {
        let _ = (position, len);
        todo!()
    }

    /// Cuts or extends to `len` bytes.
    pub async fn truncate(&self, len: u64) -> io::Result<()> {
        let _ = len;
        todo!()
    }

    /// Current size, bytes (by descriptor, not by path).
    pub async fn size(&self) -> io::Result<u64> {
        todo!()
    }

    pub async fn close(self) -> io::Result<()> {
        todo!()
    }
}

/// Once per shard and device before the first [`File::open`]: glommio decides from the first file opened on a device
/// whether it can be polled, and decides wrongly on an empty one. Writes, syncs and opens a 4 KiB file in `directory`.
pub async fn prime_device(directory: &Path) -> io::Result<()> {
    let _ = directory;
    todo!()
}
