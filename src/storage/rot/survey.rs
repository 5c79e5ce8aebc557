//! Sound and damaged stretches of a segment's file.
//!
//! A batch is sound when its framing, its CRC and its place among the offsets are right. The base
//! offset lies outside the CRC, so it is held against the batches around it. Behind damage the next
//! sound batch is searched for: first where the damaged batch's own length says that it ends, then
//! byte by byte.

use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::config;
use crate::model::record_batch::{BatchHeader, CRC_START, HEADER_BYTES};

/// Bytes read at a time.
const CHUNK: usize = 1 << 20;
/// No batch is larger: a longer length field is not a batch's.
pub const MAX_BATCH_BYTES: u64 = config::MAX_BATCH_BYTES as u64;
/// Bytes of candidates whose CRC may turn out wrong while one segment is searched: records may hold
/// bytes made to look like headers.
const MAX_WASTED_BYTES: u64 = 4 << 30;

/// Bounds of a survey.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Bytes of the file that count.
    pub size: u64,
    /// The offset of the batch at the survey's start, or a later one.
    pub from_offset: i64,
    /// No record of the segment has this offset or a later one.
    pub end_offset: i64,
    /// True if the segment did reach that far.
    pub end_known: bool,
    /// True if offsets may be missing before the last batch, which no later batch confirms.
    pub gap_at_end: bool,
    /// True if the file may end in zeros that were reserved ahead; otherwise they are damage.
    pub reserved: bool,
}

/// Adjoining bytes of a segment that are all sound, or all damaged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    pub sound: bool,
    pub bytes: Range<u64>,
    /// Offsets of the records in it; of a damaged stretch, those that are missing.
    pub offsets: Range<i64>,
}

/// A sound batch: its header and its length.
type Sound = (BatchHeader, u64);

/// The file through a window.
struct Window<'a> {
    file: &'a dyn FileExt,
    size: u64,
    start: u64,
    bytes: Vec<u8>,
    wasted: u64,
}

impl Window<'_> {
    /// Up to `wanted` bytes from `position` on; fewer at the end of the file.
    fn at(&mut self, position: u64, wanted: usize) -> io::Result<&[u8]> {
        let wanted = wanted.min(usize::try_from(self.size.saturating_sub(position)).unwrap_or(usize::MAX));
        let held = self.start..self.start + self.bytes.len() as u64;
        if position < held.start || position + wanted as u64 > held.end {
            let length = wanted.max(CHUNK).min(usize::try_from(self.size - position).unwrap_or(CHUNK));
            self.bytes.resize(length, 0);
            self.start = position;
            let read = read_full(self.file, &mut self.bytes, position)?;
            self.bytes.truncate(read);
        }
        let from = (position - self.start) as usize;
        Ok(&self.bytes[from.min(self.bytes.len())..(from + wanted).min(self.bytes.len())])
    }

    /// Bytes in memory from `position` on, a header's at least where there are so many.
    fn from(&mut self, position: u64) -> io::Result<&[u8]> {
        let held = self.start..self.start + self.bytes.len() as u64;
        if held.contains(&position) && position + HEADER_BYTES as u64 <= held.end {
            return Ok(&self.bytes[(position - held.start) as usize..]);
        }
        self.at(position, CHUNK)
    }

    /// The batch at `position`, if it is whole and its CRC right; offsets are not looked at.
    fn whole(&mut self, position: u64) -> io::Result<Option<Sound>> {
        let left = self.size.saturating_sub(position);
        let head = self.at(position, HEADER_BYTES)?;
        let Some(header) = BatchHeader::peek(head).copied() else { return Ok(None) };
        let Some(total) = plausible(&header, left) else { return Ok(None) };
        if self.wasted > MAX_WASTED_BYTES {
            return Ok(None);
        }
        if header.codec().is_some() && self.crc(position + CRC_START as u64..position + total)? == header.crc.get() {
            return Ok(Some((header, total)));
        }
        self.wasted += total;
        Ok(None)
    }

    /// CRC-32C of these bytes, of which no more than a chunk is held at a time: a length field may
    /// be wrong.
    fn crc(&mut self, bytes: Range<u64>) -> io::Result<u32> {
        let (mut position, mut crc) = (bytes.start, 0);
        while position < bytes.end {
            let part = self.at(position, (bytes.end - position).min(CHUNK as u64) as usize)?;
            if part.is_empty() {
                break;
            }
            crc = crc32c::crc32c_append(crc, part);
            position += part.len() as u64;
        }
        Ok(crc)
    }

    /// True if only zeros follow.
    fn ends_at(&mut self, mut position: u64) -> io::Result<bool> {
        while position < self.size {
            let part = self.at(position, CHUNK)?;
            if part.is_empty() {
                break;
            }
            if part.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            position += part.len() as u64;
        }
        Ok(true)
    }
}

fn read_full(file: &dyn FileExt, buffer: &mut [u8], position: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], position + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(filled)
}

/// The batch's length, if the header can be one's of which `left` bytes are there.
fn plausible(header: &BatchHeader, left: u64) -> Option<u64> {
    let total = u64::try_from(header.total_bytes()).ok()?;
    let framed = header.magic == 2 && (HEADER_BYTES as u64..=MAX_BATCH_BYTES).contains(&total) && total <= left;
    let counted = header.last_offset_delta.get() >= 0 && header.record_count.get() >= 0 && header.base() >= 0;
    (framed && counted).then_some(total)
}

/// The batch at `position` of `file`, if it is sound and its offsets lie within `bounds`.
pub fn batch_at(file: &dyn FileExt, position: u64, bounds: Bounds) -> io::Result<Option<BatchHeader>> {
    let mut window = Window { file, size: bounds.size, start: 0, bytes: Vec::new(), wasted: 0 };
    let found = window.whole(position)?;
    Ok(found.map(|(header, _)| header).filter(|header| fits(header, bounds.from_offset, bounds)))
}

fn fits(header: &BatchHeader, expected: i64, bounds: Bounds) -> bool {
    header.base() >= expected && header.next_offset() <= bounds.end_offset && header.base() < bounds.end_offset
}

/// Tells the sound stretches from the damaged ones, from `position` to the end. Reserved zeros at
/// the end are neither.
pub fn survey(file: &dyn FileExt, mut position: u64, bounds: Bounds) -> io::Result<Vec<Stretch>> {
    let mut window = Window { file, size: bounds.size, start: 0, bytes: Vec::new(), wasted: 0 };
    let mut stretches: Vec<Stretch> = Vec::new();
    let mut expected = bounds.from_offset;
    while position < bounds.size {
        if let Some((header, total)) = sound_at(&mut window, position, expected, bounds)? {
            add_sound(&mut stretches, position, &header, total);
            (position, expected) = (position + total, header.next_offset());
            continue;
        }
        let Some((next, header)) = next_sound(&mut window, position, expected, bounds)? else {
            let end = if bounds.reserved { end_of_data(&mut window, position)? } else { bounds.size };
            if end > position {
                let missing = missing_at_end(&mut window, position, expected, bounds)?;
                stretches.push(Stretch { sound: false, bytes: position..end, offsets: expected..missing });
            }
            break;
        };
        stretches.push(Stretch { sound: false, bytes: position..next, offsets: expected..header.base() });
        let total = u64::try_from(header.total_bytes()).unwrap_or(bounds.size);
        add_sound(&mut stretches, next, &header, total);
        (position, expected) = (next + total, header.next_offset());
    }
    Ok(stretches)
}

fn add_sound(stretches: &mut Vec<Stretch>, position: u64, header: &BatchHeader, total: u64) {
    match stretches.last_mut() {
        Some(last) if last.sound => {
            last.bytes.end = position + total;
            last.offsets.end = header.next_offset();
        }
        _ => stretches.push(Stretch {
            sound: true,
            bytes: position..position + total,
            offsets: header.base()..header.next_offset(),
        }),
    }
}

/// The batch at `position`, if it is sound and its base offset agrees with what comes before and
/// behind.
fn sound_at(window: &mut Window, position: u64, expected: i64, bounds: Bounds) -> io::Result<Option<Sound>> {
    let Some((header, total)) = window.whole(position)?.filter(|(header, _)| fits(header, expected, bounds)) else {
        return Ok(None);
    };
    if header.base() == expected {
        return Ok(Some((header, total)));
    }
    // Offsets are missing before it: cleaning or damage has taken them, or its base offset is
    // wrong.
    let after = match window.whole(position + total)? {
        Some((after, _)) => Some(after),
        // Damaged as well: the next one behind it tells.
        None => next_sound(window, position + total, expected, bounds)?.map(|(_, after)| after),
    };
    let agrees = match after {
        Some(after) => after.base() >= header.next_offset() && after.next_offset() <= bounds.end_offset,
        None => bounds.gap_at_end,
    };
    Ok(agrees.then_some((header, total)))
}

/// The first sound batch behind the damage at `position`.
fn next_sound(
    window: &mut Window,
    position: u64,
    expected: i64,
    bounds: Bounds,
) -> io::Result<Option<(u64, BatchHeader)>> {
    let left = bounds.size - position;
    let head = BatchHeader::peek(window.at(position, HEADER_BYTES)?).copied();
    if let Some(next) = head.and_then(|header| plausible(&header, left)).map(|total| position + total)
        && let Some((header, _)) = behind(window, position, next, expected, bounds)?
    {
        return Ok(Some((next, header)));
    }
    let mut at = position + 1;
    while at + HEADER_BYTES as u64 <= bounds.size {
        let part = window.from(at)?;
        if part.len() < HEADER_BYTES {
            break;
        }
        let tried = part.len() - HEADER_BYTES + 1;
        let candidate = (0..tried).find(|i| {
            let bytes = &part[*i..];
            // The magic byte first: nearly all places fail it.
            bytes[16] == 2
                && BatchHeader::peek(bytes).is_some_and(|header| {
                    fits(header, expected, bounds) && plausible(header, bounds.size - at - *i as u64).is_some()
                })
        });
        let Some(candidate) = candidate.map(|i| at + i as u64) else {
            at += tried as u64;
            continue;
        };
        if let Some((header, _)) = behind(window, position, candidate, expected, bounds)? {
            return Ok(Some((candidate, header)));
        }
        at = candidate + 1;
    }
    Ok(None)
}

/// The batch at `next`, if it goes on with the log behind damage that began at `position`. Records
/// may hold whole batches, of other logs for example: one that neither the next batch nor the
/// number of missing bytes speaks for is not the log's.
fn behind(window: &mut Window, position: u64, next: u64, expected: i64, bounds: Bounds) -> io::Result<Option<Sound>> {
    let Some((header, total)) = window.whole(next)?.filter(|(header, _)| fits(header, expected, bounds)) else {
        return Ok(None);
    };
    let after = next + total;
    let missing = header.base().saturating_sub(expected);
    let near = u64::try_from(missing).is_ok_and(|missing| missing <= next - position);
    let agrees = match window.whole(after)? {
        Some((later, _)) => later.base() >= header.next_offset() && later.next_offset() <= bounds.end_offset,
        None => near || window.ends_at(after)?,
    };
    Ok(agrees.then_some((header, total)))
}

/// Where the zeros at the end begin, but not before `position`.
fn end_of_data(window: &mut Window, position: u64) -> io::Result<u64> {
    let (mut at, mut end) = (position, position);
    while at < window.size {
        let part = window.at(at, CHUNK)?;
        if part.is_empty() {
            break;
        }
        if let Some(last) = part.iter().rposition(|byte| *byte != 0) {
            end = at + last as u64 + 1;
        }
        at += part.len() as u64;
    }
    Ok(end)
}

/// The offset after the records that damage at the end has taken, as far as that is known, or its
/// header tells.
fn missing_at_end(window: &mut Window, position: u64, expected: i64, bounds: Bounds) -> io::Result<i64> {
    if bounds.end_known {
        return Ok(bounds.end_offset.max(expected));
    }
    let head = BatchHeader::peek(window.at(position, HEADER_BYTES)?).copied();
    let told = head.filter(|h| h.magic == 2 && h.base() == expected && h.last_offset_delta.get() >= 0);
    let told = told.filter(|h| h.record_count.get() == h.last_offset_delta.get().saturating_add(1));
    Ok(told.map_or(expected, |header| header.next_offset().min(bounds.end_offset)))
}
