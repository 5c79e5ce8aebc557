//! Parts of files that were reserved and never written to: they read as zeros, and need
//! not be read to know that.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// Reads in a row of data and holes that are followed; a log has one, and a copy of one few.
const STRETCHES: usize = 64;

/// The first place from `position` on that may hold something else than zeros; `None`: there is
/// none up to the file's end. The file's own position moves.
fn next_data(file: &File, position: u64) -> Option<u64> {
    match seek(file, position, libc::SEEK_DATA) {
        Ok(data) => Some(data),
        Err(error) if error.raw_os_error() == Some(libc::ENXIO) => None,
        // The file system cannot tell.
        Err(_) => Some(position),
    }
}

/// The place from which on, at `position` or behind it, only zeros follow up to the file's end;
/// `None`: it cannot be told. The file's own position moves.
pub fn zeros_from(file: &File, position: u64) -> Option<u64> {
    let mut from = position;
    for _ in 0..STRETCHES {
        // From the file's end on this fails.
        let hole = seek(file, from, libc::SEEK_HOLE).ok()?;
        match next_data(file, hole) {
            None => return Some(hole),
            Some(data) if data > hole => from = data,
            Some(_) => return None,
        }
    }
    None
}

fn seek(file: &File, position: u64, whence: i32) -> io::Result<u64> {
    let position = libc::off_t::try_from(position).map_err(|_| io::Error::from_raw_os_error(libc::EFBIG))?;
    // SAFETY: a plain system call on a descriptor that is open.
    #[allow(unsafe_code)]
    let found = unsafe { libc::lseek(file.as_raw_fd(), position, whence) };
    u64::try_from(found).map_err(|_| io::Error::last_os_error())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;
    use crate::runtime::scratch;

    const BLOCK: u64 = 1 << 16;

    #[test]
    fn all_that_was_written_lies_before_the_zeros() {
        let dir = scratch();
        let file = File::create_new(dir.path().join("a")).unwrap();
        file.set_len(8 * BLOCK).unwrap();
        assert_eq!(next_data(&file, 0).unwrap_or(0), 0);
        file.write_all_at(&[1; 5000], 0).unwrap();
        file.write_all_at(&[1; 5000], 3 * BLOCK).unwrap();
        file.sync_all().unwrap();
        assert_eq!(next_data(&file, 0), Some(0));
        let holes_are_known = next_data(&file, 4 * BLOCK).is_none();
        for position in [0, 4096, 2 * BLOCK, 3 * BLOCK] {
            let zeros = zeros_from(&file, position);
            assert!(zeros.is_none_or(|zeros| (3 * BLOCK + 5000..=4 * BLOCK).contains(&zeros)), "{zeros:?}");
            assert_eq!(zeros.is_some(), holes_are_known);
        }
        assert!(zeros_from(&file, 5 * BLOCK).is_none_or(|zeros| zeros == 5 * BLOCK));
        assert_eq!(zeros_from(&file, 8 * BLOCK), None, "nothing follows the end");
        // Not synced, not even on its way to the disk.
        file.write_all_at(&[1], 6 * BLOCK + 100).unwrap();
        assert!(zeros_from(&file, 0).is_none_or(|zeros| zeros > 6 * BLOCK + 100));
        assert!(next_data(&file, 4 * BLOCK).is_some_and(|data| data <= 6 * BLOCK + 100));
    }
}
