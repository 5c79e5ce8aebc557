//! Memory for large reads, and for what caches copy: pieces of one size, cut from huge pages. A
//! direct read pins its memory page by page, which for small pages costs a fifth of the read.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use bytes::Bytes;
use crossbeam_queue::SegQueue;

use super::context;

/// Bytes of a piece; a read of so many is made to one.
pub const PIECE_BYTES: usize = 256 << 10;
/// Bytes that are got from the kernel at a time: a huge page.
const REGION_BYTES: usize = 2 << 20;
const _: () = assert!(REGION_BYTES.is_multiple_of(PIECE_BYTES));
/// Regions that are given back together: the shard stands still for a few milliseconds.
const REGIONS_AT_ONCE: usize = 64;

/// Start of a piece that nobody uses.
struct Free(*mut u8);

// SAFETY: an address; who pops it from the queue is the only one that has it.
#[allow(unsafe_code)]
unsafe impl Send for Free {}

/// Pieces of one shard. Regions stay until the shard and all readers are done with them, or until
/// none of their pieces is in use and somebody asks ([`give_back`]).
#[derive(Default)]
pub(super) struct Pool {
    free: SegQueue<Free>,
    regions: Mutex<Vec<Free>>,
}

impl Pool {
    /// Gets another region and cuts it.
    fn grow(&self) -> io::Result<()> {
        // More than a region, so that one lies in it on a boundary of its size; the
        // rest is given back. SAFETY: plain system calls over a mapping that is made
        // here and known to nobody else.
        #[allow(unsafe_code)]
        let start = unsafe {
            let access = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let mapped = libc::mmap(std::ptr::null_mut(), 2 * REGION_BYTES, access, flags, -1, 0);
            if mapped == libc::MAP_FAILED {
                return Err(io::Error::last_os_error());
            }
            let before = mapped.align_offset(REGION_BYTES);
            let start = mapped.cast::<u8>().add(before);
            if before > 0 {
                libc::munmap(mapped, before);
            }
            libc::munmap(start.add(REGION_BYTES).cast(), REGION_BYTES - before);
            libc::madvise(start.cast(), REGION_BYTES, libc::MADV_HUGEPAGE);
            start
        };
        self.regions.lock().unwrap_or_else(PoisonError::into_inner).push(Free(start));
        // The order of the addresses: pieces that are used one after another come back together.
        for at in (0..REGION_BYTES).step_by(PIECE_BYTES) {
            self.free.push(Free(start.wrapping_add(at)));
        }
        Ok(())
    }

    /// Gives the memory of free pieces back to the kernel: regions whose pieces are all free, and
    /// of others what the kernel can take out of a huge page. `true`: there is more, for another
    /// time.
    fn give_back(&self) -> bool {
        let (mut left, mut more) = (REGIONS_AT_ONCE, false);
        let mut free: HashMap<usize, Vec<Free>> = HashMap::new();
        while let Some(piece) = self.free.pop() {
            free.entry(piece.0 as usize / REGION_BYTES).or_default().push(piece);
        }
        let mut regions = self.regions.lock().unwrap_or_else(PoisonError::into_inner);
        for (region, pieces) in free {
            let is_whole = pieces.len() == REGION_BYTES / PIECE_BYTES;
            if is_whole && left > 0 {
                left -= 1;
                regions.extract_if(.., |start| start.0 as usize / REGION_BYTES == region).for_each(unmap);
            } else if is_whole {
                more = true;
                pieces.into_iter().for_each(|piece| self.free.push(piece));
            } else {
                for Free(start) in pieces {
                    // SAFETY: it is mapped, and nobody has it; its contents are arbitrary.
                    #[allow(unsafe_code)]
                    unsafe {
                        libc::madvise(start.cast(), PIECE_BYTES, libc::MADV_DONTNEED);
                    }
                    self.free.push(Free(start));
                }
            }
        }
        more
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        // Every piece holds the pool, so none is in use.
        self.regions.get_mut().unwrap_or_else(PoisonError::into_inner).drain(..).for_each(unmap);
    }
}

/// Gives a region back to the kernel, none of whose pieces is in use or in the queue.
fn unmap(Free(start): Free) {
    // SAFETY: mapped by `grow`, and nobody has any of it.
    #[allow(unsafe_code)]
    unsafe {
        libc::munmap(start.cast(), REGION_BYTES);
    }
}

/// Gives memory of this shard's pieces that are free back to the kernel; `true`: there is more.
pub fn give_back() -> bool {
    context::with(|shard| shard.pieces.clone()).give_back()
}

/// A piece in use. It goes back to its pool, from whichever thread.
pub(super) struct Piece {
    start: *mut u8,
    pool: Arc<Pool>,
}

// SAFETY: the memory is written by the kernel or by `Copies`, before anybody reads it (`bytes`),
// and never while it is read.
#[allow(unsafe_code)]
unsafe impl Send for Piece {}
#[allow(unsafe_code)]
unsafe impl Sync for Piece {}

impl Piece {
    /// A piece of this shard's memory, with arbitrary contents.
    pub fn take() -> io::Result<Arc<Piece>> {
        let pool = context::with(|shard| shard.pieces.clone());
        loop {
            if let Some(Free(start)) = pool.free.pop() {
                return Ok(Arc::new(Piece { start, pool }));
            }
            pool.grow()?;
        }
    }

    pub fn address(&self) -> *mut u8 {
        self.start
    }

    /// The first `len` bytes, which no longer change.
    pub fn bytes(self: Arc<Piece>, len: usize) -> Bytes {
        assert!(len <= PIECE_BYTES, "{len} bytes of a piece");
        if len == 0 { Bytes::new() } else { Bytes::from_owner(Filled { piece: self, len }) }
    }
}

/// Copies that follow one another in a piece, and then in another one.
#[derive(Default)]
pub struct Copies {
    /// Kept alive by what was copied into it.
    open: Option<(Weak<Piece>, usize)>,
}

/// A piece as it is after some bytes were copied into it.
pub struct Copied {
    /// All of them, and those before.
    pub bytes: Bytes,
    /// How many were copied.
    pub added: usize,
    /// There are none before them.
    pub is_new: bool,
}

impl Copies {
    /// Copies as much of `bytes` as fits into the open piece, at least one byte.
    pub fn copy_some(&mut self, bytes: &[u8]) -> io::Result<Copied> {
        let open = self.open.take().filter(|(_, filled)| *filled < PIECE_BYTES);
        let (piece, filled) = match open.and_then(|(piece, filled)| Some((piece.upgrade()?, filled))) {
            Some(open) => open,
            None => (Piece::take()?, 0),
        };
        let len = bytes.len().min(PIECE_BYTES - filled);
        // SAFETY: bytes from `filled` on are within the piece, and nobody else has them: `bytes`
        // is given what was copied before, and there is one `Copies` for an open piece.
        #[allow(unsafe_code)]
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), piece.start.add(filled), len);
        }
        self.open = Some((Arc::downgrade(&piece), filled + len));
        Ok(Copied { bytes: piece.bytes(filled + len), added: len, is_new: filled == 0 })
    }

    /// Lets go of the open piece.
    pub fn close(&mut self) {
        self.open = None;
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.pool.free.push(Free(self.start));
    }
}

/// Owner of the memory behind bytes.
struct Filled {
    piece: Arc<Piece>,
    len: usize,
}

impl AsRef<[u8]> for Filled {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: within the piece, which nobody writes any more.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts(self.piece.start, self.len)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_had_by_one_at_a_time_and_come_back_from_any_thread() {
        let taken: Vec<Arc<Piece>> = (0..20).map(|_| Piece::take().unwrap()).collect();
        let mut starts: Vec<usize> = taken.iter().map(|piece| piece.address() as usize).collect();
        starts.sort_unstable();
        assert!(starts.windows(2).all(|pair| pair[0] + PIECE_BYTES <= pair[1]), "overlap: {starts:?}");
        assert!(starts.iter().all(|start| start % PIECE_BYTES == 0));
        let regions = |piece: &Piece| piece.pool.regions.lock().unwrap().len();
        assert_eq!(regions(&taken[0]), 3);
        let bytes: Vec<Bytes> = taken.into_iter().map(|piece| piece.bytes(5000)).collect();
        std::thread::spawn(move || assert!(bytes.iter().all(|bytes| bytes.len() == 5000))).join().unwrap();
        let again: Vec<Arc<Piece>> = (0..24).map(|_| Piece::take().unwrap()).collect();
        assert_eq!(regions(&again[0]), 3, "the same memory");
    }

    #[test]
    fn copies_follow_one_another_and_their_memory_goes_back() {
        let mut copies = Copies::default();
        let text: Vec<u8> = (0..PIECE_BYTES * 20 + 5000).map(|at| (at % 251) as u8).collect();
        let (mut rest, mut parts) = (&text[..], Vec::<Bytes>::new());
        while !rest.is_empty() {
            let Copied { bytes, added, is_new } = copies.copy_some(&rest[..rest.len().min(100_000)]).unwrap();
            rest = &rest[added..];
            if !is_new {
                let before = parts.pop().unwrap();
                assert!(bytes.len() == before.len() + added && bytes.starts_with(&before));
            }
            parts.push(bytes);
        }
        assert_eq!(parts.len(), 21);
        assert_eq!(parts.concat(), text);
        let pool = context::with(|shard| shard.pieces.clone());
        let regions = || pool.regions.lock().unwrap().len();
        assert_eq!(regions(), 3);
        let last = parts.pop().unwrap();
        drop(parts);
        give_back();
        assert_eq!(regions(), 1, "the region of the open piece stays");
        copies.close();
        assert!(text.ends_with(&last), "a reader has it");
        drop(last);
        give_back();
        assert_eq!(regions(), 0);
        assert_eq!(copies.copy_some(b"again").unwrap().bytes, "again");
    }

    #[test]
    fn much_memory_goes_back_in_steps() {
        let per_region = REGION_BYTES / PIECE_BYTES;
        let taken: Vec<Arc<Piece>> = (0..(REGIONS_AT_ONCE + 6) * per_region).map(|_| Piece::take().unwrap()).collect();
        let pool = taken[0].pool.clone();
        drop(taken);
        assert!(give_back(), "there is more");
        assert_eq!(pool.regions.lock().unwrap().len(), 6);
        assert!(!give_back());
        assert!(pool.regions.lock().unwrap().is_empty());
    }
}
