//! Whole batches in memory, in slices that end anywhere. Pure.

use bytes::Bytes;
use zerocopy::FromZeros;
use zerocopy::IntoBytes;

use crate::model::record_batch::{BatchHeader, CRC_START, HEADER_BYTES};

/// Checks batches that lie back to back in `slices` and whose offsets are in `[begin, end)`:
/// framing, order, CRC. The error is where the first damaged one begins.
pub fn check_batches(slices: &[Bytes], begin: i64, end: i64) -> Result<(), u64> {
    let mut rest = Rest { slices, taken: 0 };
    let (mut position, mut expected) = (0, begin);
    let mut header = BatchHeader::new_zeroed();
    while !rest.is_empty() {
        let damaged = Err(position);
        let mut crc = 0;
        let mut filled = 0;
        // The header's own part of the CRC is taken from the copy.
        while filled < HEADER_BYTES {
            let Some(part) = rest.take(HEADER_BYTES - filled) else { return damaged };
            header.as_mut_bytes()[filled..filled + part.len()].copy_from_slice(part);
            filled += part.len();
        }
        crc = crc32c::crc32c_append(crc, &header.as_bytes()[CRC_START..]);
        let total = header.total_bytes();
        let ordered = header.base() >= expected && header.last_offset_delta.get() >= 0 && header.next_offset() <= end;
        if header.magic != 2 || total < HEADER_BYTES as i64 || !ordered {
            return damaged;
        }
        let mut left = usize::try_from(total).unwrap_or(HEADER_BYTES) - HEADER_BYTES;
        while left > 0 {
            let Some(part) = rest.take(left) else { return damaged };
            crc = crc32c::crc32c_append(crc, part);
            left -= part.len();
        }
        if crc != header.crc.get() {
            return damaged;
        }
        position += u64::try_from(total).unwrap_or(0);
        expected = header.next_offset();
    }
    Ok(())
}

/// Slices of which the front is used up.
struct Rest<'a> {
    slices: &'a [Bytes],
    /// Bytes of the first one.
    taken: usize,
}

impl<'a> Rest<'a> {
    fn is_empty(&mut self) -> bool {
        while self.slices.first().is_some_and(|slice| self.taken >= slice.len()) {
            (self.slices, self.taken) = (&self.slices[1..], 0);
        }
        self.slices.is_empty()
    }

    /// At most `wanted` bytes of one slice; `None` at the end.
    fn take(&mut self, wanted: usize) -> Option<&'a [u8]> {
        if self.is_empty() {
            return None;
        }
        let slice = self.slices.first()?.get(self.taken..)?;
        let part = &slice[..wanted.min(slice.len())];
        self.taken += part.len();
        Some(part)
    }
}
