//! Receive buffers: recycled, so that a busy connection does not touch fresh
//! memory for every request.

use std::sync::Arc;

use bytes::Bytes;
use crossbeam_queue::ArrayQueue;

use super::context;

/// The smallest buffer, bytes.
const SMALLEST: usize = 4096;

/// Larger buffers are not kept: they are rare, and the allocator gives them back to the system.
const LARGEST_KEPT: usize = 2 * 1024 * 1024;

/// Memory kept per size and shard at most, bytes.
const KEPT_PER_CLASS: usize = 8 * 1024 * 1024;

/// But no more buffers than this per size.
const KEPT_BUFFERS: usize = 256;

const _: () = assert!(SMALLEST.is_power_of_two() && LARGEST_KEPT.is_power_of_two() && KEPT_PER_CLASS >= LARGEST_KEPT);

const CLASSES: usize = (LARGEST_KEPT / SMALLEST).ilog2() as usize + 1;

type Class = Arc<ArrayQueue<Box<[u8]>>>;

/// Buffers that one shard keeps, by size.
pub(super) struct Pool([Class; CLASSES]);

impl Default for Pool {
    fn default() -> Pool {
        let kept = |class: usize| (KEPT_PER_CLASS / (SMALLEST << class)).min(KEPT_BUFFERS);
        Pool(std::array::from_fn(|class| Arc::new(ArrayQueue::new(kept(class)))))
    }
}

/// Memory with the way back to its pool.
struct Lease {
    memory: Box<[u8]>,
    filled: usize,
    home: Option<Class>,
}

impl AsRef<[u8]> for Lease {
    fn as_ref(&self) -> &[u8] {
        &self.memory[..self.filled]
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let Some(home) = self.home.take() {
            // A full pool gives the buffer back to the allocator.
            let _ = home.push(std::mem::take(&mut self.memory));
        }
    }
}

/// A byte buffer of fixed capacity that a connection receives into.
pub struct RecvBuf(Lease);

impl RecvBuf {
    /// Takes one of at least `capacity` bytes from this shard's pool.
    pub fn take(capacity: usize) -> RecvBuf {
        if capacity > LARGEST_KEPT {
            let memory = vec![0; capacity].into_boxed_slice();
            return RecvBuf(Lease { memory, filled: 0, home: None });
        }
        let size = capacity.max(SMALLEST).next_power_of_two();
        let class = (size / SMALLEST).ilog2() as usize;
        let home = context::with(|shard| shard.receive.0[class].clone());
        let memory = home.pop().unwrap_or_else(|| vec![0; size].into_boxed_slice());
        RecvBuf(Lease { memory, filled: 0, home: Some(home) })
    }

    pub fn capacity(&self) -> usize {
        self.0.memory.len()
    }

    /// The unfilled rest, to receive into (initialised memory).
    pub fn unfilled(&mut self) -> &mut [u8] {
        &mut self.0.memory[self.0.filled..]
    }

    /// Marks `n` more bytes as filled; no more than [`unfilled`](Self::unfilled) has.
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.capacity() - self.0.filled, "advanced past the buffer's end");
        self.0.filled += n;
    }

    pub fn filled(&self) -> &[u8] {
        self.0.as_ref()
    }

    /// The filled part as shared bytes; the memory returns to its pool when the last holder
    /// lets go, from any shard.
    pub fn freeze(self) -> Bytes {
        if self.0.filled == 0 {
            return Bytes::new();
        }
        Bytes::from_owner(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_recycled_from_any_thread() {
        let mut buf = RecvBuf::take(5000);
        assert_eq!(buf.capacity(), 8192);
        buf.unfilled()[..5].copy_from_slice(b"hello");
        buf.advance(5);
        assert_eq!(buf.filled(), b"hello");
        let address = buf.filled().as_ptr() as usize;
        let bytes = buf.freeze();
        let part = bytes.slice(1..3);
        drop(bytes);
        assert_ne!(RecvBuf::take(8192).filled().as_ptr() as usize, address, "recycled while in use");
        std::thread::spawn(move || assert_eq!(&part[..], b"el")).join().unwrap();
        let mut seen = Vec::new();
        let buffers: Vec<_> = (0..2).map(|_| RecvBuf::take(8192)).collect();
        for buf in &buffers {
            seen.push(buf.filled().as_ptr() as usize);
            assert!(buf.filled().is_empty());
        }
        assert!(seen.contains(&address), "the buffer did not come back");
    }

    #[test]
    fn large_buffers_are_exact_and_not_kept() {
        let buf = RecvBuf::take(LARGEST_KEPT + 1);
        assert_eq!(buf.capacity(), LARGEST_KEPT + 1);
        assert!(buf.0.home.is_none());
        assert!(buf.freeze().is_empty());
    }

    #[test]
    fn the_pool_is_bounded() {
        let buffers: Vec<_> = (0..100).map(|_| RecvBuf::take(LARGEST_KEPT)).collect();
        drop(buffers);
        let kept = context::with(|shard| shard.receive.0[CLASSES - 1].len());
        assert_eq!(kept, KEPT_PER_CLASS / LARGEST_KEPT);
    }
}
