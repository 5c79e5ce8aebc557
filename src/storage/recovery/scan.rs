//! The batches of one segment, read in order from the device.

use bytes::Bytes;

use crate::model::record_batch::{self, BatchHeader};
use crate::storage::rot::{Bounds, MAX_BATCH_BYTES};

/// The state of one segment's scan: `window` holds the bytes from `position` on.
pub struct Scan {
    pub position: u64,
    pub next_offset: i64,
    pub bounds: Bounds,
    pub window: Vec<u8>,
    pub stopped: bool,
    /// Behind `position` the file has nothing but zeros.
    pub only_zeros_follow: bool,
    /// Block that was read last, and its position.
    pub newest: Option<(u64, Bytes)>,
}

impl Scan {
    pub fn new(position: u64, next_offset: i64, bounds: Bounds) -> Scan {
        let window = Vec::new();
        Scan { position, next_offset, bounds, window, stopped: false, only_zeros_follow: false, newest: None }
    }

    /// True if nothing that was read is left over, but for zeros.
    pub fn is_at_zeros(&self) -> bool {
        self.window.iter().all(|byte| *byte == 0)
    }

    /// Takes whole sound batches off the window's front; stops at what is not one. `ended`: nothing
    /// follows the window.
    pub fn take(&mut self, ended: bool, sound: &mut dyn FnMut(&BatchHeader, &[u8], u64)) {
        let mut used = 0;
        loop {
            let rest = &self.window[used..];
            let Some(header) = BatchHeader::peek(rest).copied() else { break };
            let position = self.position + used as u64;
            let total = header.total_bytes();
            let framed =
                header.magic == 2 && total >= record_batch::HEADER_BYTES as i64 && total as u64 <= MAX_BATCH_BYTES;
            if !framed || position + total as u64 > self.bounds.size {
                self.stopped = true;
                break;
            }
            let total = total as usize;
            if rest.len() < total {
                break;
            }
            // The base offset lies outside the CRC: where it leaves a gap, the next batch has to
            // agree.
            let gap = header.base() > self.next_offset && !self.bounds.gap_at_end;
            let after = BatchHeader::peek(&rest[total..]);
            if gap && after.is_none() && !ended {
                break;
            }
            let ordered = header.base() >= self.next_offset && header.next_offset() <= self.bounds.end_offset;
            let agreed = !gap || after.is_some_and(|after| after.magic == 2 && after.base() >= header.next_offset());
            if !ordered || !agreed || record_batch::check(&rest[..total]).is_err() {
                self.stopped = true;
                break;
            }
            sound(&header, &rest[..total], position);
            self.next_offset = header.next_offset();
            used += total;
        }
        self.position += used as u64;
        self.window.drain(..used);
    }
}
