//! The slices of a read, and how much memory they hold on to.

use std::ops::Range;

use bytes::Bytes;

/// A slice smaller than this part of its buffer is copied: it would hold on to the whole.
const COPY_BELOW: usize = 16;

/// Slices in order.
#[derive(Default)]
pub struct Slices {
    pub list: Vec<Bytes>,
    /// Bytes of the buffers (and copies) that the slices keep alive.
    pub held_bytes: usize,
}

impl Slices {
    pub fn push(&mut self, buffer: &Bytes, range: Range<usize>) {
        self.push_part(buffer, buffer.len(), range);
    }

    /// The same for a part of a buffer of `keeps` bytes.
    pub fn push_part(&mut self, part: &Bytes, keeps: usize, range: Range<usize>) {
        if range.len() < Slices::copied_below(keeps) {
            self.push_copy(&part[range]);
        } else {
            self.held_bytes += keeps;
            self.list.push(part.slice(range));
        }
    }

    /// Slices of a buffer of `bytes` that are smaller than this are copied.
    pub fn copied_below(bytes: usize) -> usize {
        bytes / COPY_BELOW
    }

    pub fn push_copy(&mut self, slice: &[u8]) {
        self.held_bytes += slice.len();
        self.list.push(Bytes::copy_from_slice(slice));
    }

    /// Adds bytes of memory that is bounded elsewhere.
    pub fn push_lent(&mut self, bytes: Bytes) {
        self.held_bytes += bytes.len();
        self.list.push(bytes);
    }

    /// Appends what follows.
    pub fn extend(&mut self, rest: Slices) {
        self.list.extend(rest.list);
        self.held_bytes += rest.held_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_slices_let_go_of_their_buffer() {
        let buffer = Bytes::from(vec![7; 4096]);
        let mut slices = Slices::default();
        slices.push(&buffer, 0..100);
        assert_eq!(slices.held_bytes, 100);
        assert_ne!(slices.list[0].as_ptr(), buffer.as_ptr());
        slices.push(&buffer, 0..1000);
        assert_eq!(slices.held_bytes, 100 + 4096);
        assert_eq!(slices.list[1].as_ptr(), buffer.as_ptr());
    }
}
