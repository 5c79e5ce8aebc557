//! Files of blocking code that pass the page cache by, and the memory that this takes.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::disk::ALIGNMENT;

#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C, align(4096))]
struct Block([u8; ALIGNMENT as usize]);

/// Whole blocks of memory, aligned for direct I/O.
pub struct Blocks(Vec<Block>);

impl Blocks {
    /// Zeros, of at least so many bytes.
    pub fn zeroed(bytes: usize) -> Blocks {
        Blocks(vec![Block::new_zeroed(); bytes.div_ceil(ALIGNMENT as usize)])
    }

    pub fn as_slice(&self) -> &[u8] {
        self.0.as_bytes()
    }

    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.0.as_mut_bytes()
    }
}

/// From now on reads and writes of `file` go to the device itself, where the file system can do
/// that: with memory, positions and lengths that are aligned.
pub fn pass_cache_by(file: &File) -> io::Result<()> {
    // SAFETY: plain system call on a descriptor that is open.
    #[allow(unsafe_code)]
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, libc::O_DIRECT) };
    let error = io::Error::last_os_error();
    if result == 0 || error.raw_os_error() == Some(libc::EINVAL) { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::runtime::scratch;

    #[test]
    fn blocks_are_written_and_read_past_the_cache() {
        let dir = scratch();
        let file = File::create_new(dir.path().join("a")).unwrap();
        pass_cache_by(&file).unwrap();
        let mut blocks = Blocks::zeroed(5000);
        assert_eq!(blocks.as_slice(), [0; 8192]);
        blocks.as_mut_slice()[4000..5000].fill(7);
        file.write_all_at(blocks.as_slice(), 4096).unwrap();
        let mut read = Blocks::zeroed(16384);
        let file = File::open(dir.path().join("a")).unwrap();
        pass_cache_by(&file).unwrap();
        assert_eq!(file.read_at(read.as_mut_slice(), 0).unwrap(), 12288);
        assert_eq!(read.as_slice()[4096..12288], *blocks.as_slice());
    }
}
