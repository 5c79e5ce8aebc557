//! Receive buffers: recycled, so that a busy connection does not touch fresh memory for every request.

use bytes::Bytes;

/// A growable byte buffer that a connection receives into.
pub struct RecvBuf {
    pub(crate) _private: (),
}

impl RecvBuf {
    /// Takes one of at least `capacity` bytes from this shard's pool.
    pub fn take(capacity: usize) -> RecvBuf {
        let _ = capacity;
        todo!()
    }

    pub fn capacity(&self) -> usize {
        todo!()
    }

    /// The unfilled rest, to receive into (initialised memory).
    pub fn unfilled(&mut self) -> &mut [u8] {
        todo!()
    }

    /// Marks `n` more bytes as filled.
    pub fn advance(&mut self, n: usize) {
        let _ = n;
        todo!()
    }

    pub fn filled(&self) -> &[u8] {
        todo!()
    }

    /// The filled part as shared bytes; the memory returns to its pool when the last holder lets go, from any shard.
    pub fn freeze(self) -> Bytes {
        todo!()
    }
}
