//! A partition's `checkpoint` file: up to where the log is synced and what need not be
//! read again after a crash.
//!
//! Layout, little-endian: magic `CLCP`, version u32 = 3, CRC-32C u32 of the directory's name and
//! the rest, recovery point i64, log start offset i64, number of segments u32, then each segment
//! in order, and the sidecar (opaque here; the partition layer keeps its producer state in it).
//! A segment is base offset i64, bytes before the recovery point u64, largest timestamp i64 and
//! the last offset of its batch i64 (both -1: unknown), and length and CRC-32C of its index
//! files, u32 each (all ones: unknown). Version 2 had no name in its CRC, version 1 no segments
//! either. Replaced atomically.
//!
//! The name is in the CRC because another partition's checkpoint is sound in itself, and its log
//! start offset would have segments of this one removed.
//!
//! The segments are what a start holds the directory against: one that is missing, or
//! longer or shorter than it was, is read and checked whole; index files that are not what
//! they were are made anew.

use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use super::files::drop_leftover;

use super::index::IndexSums;
use crate::model::wire::take;
use crate::runtime::fs;

const FILE: &str = "checkpoint";
const MAGIC: &[u8; 4] = b"CLCP";
const VERSION: u32 = 3;
/// Without the directory's name in the CRC.
const NAMELESS_VERSION: u32 = 2;
/// Without segments.
const FIRST_VERSION: u32 = 1;
const PREFIX_BYTES: usize = 12;
const FIXED_BYTES: usize = PREFIX_BYTES + 16;
/// Bytes read at a time.
const READ_BYTES: usize = 256 << 10;
const SEGMENT_BYTES: usize = 48;

const UNKNOWN_INDEX: IndexSums =
    IndexSums { offset_bytes: u32::MAX, offset_crc: u32::MAX, time_bytes: u32::MAX, time_crc: u32::MAX };

/// A segment as of the recovery point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentEntry {
    pub base: i64,
    /// Where the recovery point lies in it, or its end.
    pub bytes: u64,
    /// Largest timestamp of a record and the last offset of its batch; `None`: unknown.
    pub newest: Option<(i64, i64)>,
    pub index: Option<IndexSums>,
}

/// Facts that a [`Log`](super::Log) remembers across restarts beside the records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Every record before this offset is synced and indexed.
    pub recovery_point: i64,
    /// The first offset that readers may ask for.
    pub log_start: i64,
    /// By base offset; `None`: not known.
    pub segments: Option<Vec<SegmentEntry>>,
    /// State of the layer above as of `recovery_point`.
    pub sidecar: Vec<u8>,
}

impl Checkpoint {
    /// `<dir>/checkpoint`
    pub fn path(dir: &Path) -> PathBuf {
        dir.join(FILE)
    }

    /// Blocks. `Ok(None)`: there is none, or it is damaged (the whole log is read again then;
    /// nothing is lost). Of the sidecar no more than `sidecar_limit` bytes come back, however large
    /// it was when it was stored.
    pub fn load(dir: &Path, sidecar_limit: usize) -> io::Result<Option<Checkpoint>> {
        match fs::File::open(dir.join(FILE)) {
            Ok(file) => {
                // Most are small, and a start reads all of them.
                let bytes = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
                let chunk = bytes.saturating_add(1).clamp(PREFIX_BYTES, READ_BYTES);
                let file = BufReader::with_capacity(chunk, file);
                let checkpoint = read_bounded(file, name_crc(dir), sidecar_limit, chunk)?;
                if checkpoint.is_none() {
                    tracing::error!(
                        file = %dir.join(FILE).display(),
                        "the checkpoint is damaged, or another partition's: the whole log is read and checked, and the state of its producers made anew \
                         from it"
                    );
                }
                Ok(checkpoint)
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Bytes of the stored checkpoint; 0: there is none. Blocks.
    pub fn size(dir: &Path) -> io::Result<u64> {
        match fs::metadata(dir.join(FILE)) {
            Ok(metadata) => Ok(metadata.len()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(0),
            Err(e) => Err(e),
        }
    }

    /// Blocks. The contents are synced, the exchange of old for new is not: after a power cut it
    /// may be the old one, whose recovery point lies further back.
    pub fn store(&self, dir: &Path) -> io::Result<()> {
        replace_file(dir, FILE, &self.encode(name_crc(dir)))
    }

    /// `name`: the CRC of the directory's name.
    fn encode(&self, name: u32) -> Vec<u8> {
        let segments = self.segments.as_deref().unwrap_or_default();
        let version = if self.segments.is_some() { VERSION } else { FIRST_VERSION };
        let mut out = Vec::with_capacity(FIXED_BYTES + 4 + segments.len() * SEGMENT_BYTES + self.sidecar.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&version.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.recovery_point.to_le_bytes());
        out.extend_from_slice(&self.log_start.to_le_bytes());
        if self.segments.is_some() {
            out.extend_from_slice(&u32::try_from(segments.len()).unwrap_or(u32::MAX).to_le_bytes());
        }
        for segment in segments {
            let (timestamp, offset) = segment.newest.unwrap_or((-1, -1));
            let sums = segment.index.unwrap_or(UNKNOWN_INDEX);
            out.extend_from_slice(&segment.base.to_le_bytes());
            out.extend_from_slice(&segment.bytes.to_le_bytes());
            out.extend_from_slice(&timestamp.to_le_bytes());
            out.extend_from_slice(&offset.to_le_bytes());
            for number in [sums.offset_bytes, sums.offset_crc, sums.time_bytes, sums.time_crc] {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        out.extend_from_slice(&self.sidecar);
        let crc = crc32c::crc32c_append(seed(version, name), &out[PREFIX_BYTES..]);
        out[8..PREFIX_BYTES].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// `crc`: that of the whole file behind the prefix, of which `bytes` may lack the end.
    fn decode(bytes: &[u8], crc: u32) -> Option<Checkpoint> {
        let rest = &mut &*bytes;
        if &take::<4>(rest)? != MAGIC {
            return None;
        }
        let version = u32::from_le_bytes(take(rest)?);
        if u32::from_le_bytes(take(rest)?) != crc {
            return None;
        }
        let recovery_point = i64::from_le_bytes(take(rest)?);
        let log_start = i64::from_le_bytes(take(rest)?);
        let segments = match version {
            FIRST_VERSION => None,
            VERSION | NAMELESS_VERSION => {
                let count = u32::from_le_bytes(take(rest)?);
                Some((0..count).map(|_| segment(rest)).collect::<Option<Vec<_>>>()?)
            }
            _ => return None,
        };
        Some(Checkpoint { recovery_point, log_start, segments, sidecar: rest.to_vec() })
    }
}

/// CRC-32C of the name of the partition's directory.
fn name_crc(dir: &Path) -> u32 {
    crc32c::crc32c(dir.file_name().unwrap_or_default().as_encoded_bytes())
}

/// Start value of the CRC of a file of `version`.
fn seed(version: u32, name: u32) -> u32 {
    if version >= VERSION { name } else { 0 }
}

/// Reads and checks a whole checkpoint, `chunk` bytes at a time, and keeps the first
/// `sidecar_limit` bytes of its sidecar. Blocks.
fn read_bounded(mut file: impl Read, name: u32, sidecar_limit: usize, chunk: usize) -> io::Result<Option<Checkpoint>> {
    let (mut kept, mut chunk) = (Vec::new(), vec![0; chunk]);
    (&mut file).take(PREFIX_BYTES as u64).read_to_end(&mut kept)?;
    let mut crc = seed(number(&kept, 4).unwrap_or(0), name);
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(Checkpoint::decode(&kept, crc)),
            Ok(count) => {
                crc = crc32c::crc32c_append(crc, &chunk[..count]);
                // Until the number of segments is there, everything is kept.
                let room = before_sidecar(&kept).unwrap_or(usize::MAX).saturating_add(sidecar_limit);
                let room = room.saturating_sub(kept.len());
                kept.extend_from_slice(&chunk[..count.min(room)]);
                let limit = before_sidecar(&kept).unwrap_or(usize::MAX).saturating_add(sidecar_limit);
                kept.truncate(limit);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Bytes before the sidecar; `None` while too little has been read to tell.
fn before_sidecar(bytes: &[u8]) -> Option<usize> {
    if number(bytes, 4)? == FIRST_VERSION {
        return Some(FIXED_BYTES);
    }
    let segments = usize::try_from(number(bytes, FIXED_BYTES)?).ok()?;
    Some(segments.saturating_mul(SEGMENT_BYTES).saturating_add(FIXED_BYTES + 4))
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn segment(rest: &mut &[u8]) -> Option<SegmentEntry> {
    let base = i64::from_le_bytes(take(rest)?);
    let bytes = u64::from_le_bytes(take(rest)?);
    let (timestamp, offset) = (i64::from_le_bytes(take(rest)?), i64::from_le_bytes(take(rest)?));
    let sums = IndexSums {
        offset_bytes: u32::from_le_bytes(take(rest)?),
        offset_crc: u32::from_le_bytes(take(rest)?),
        time_bytes: u32::from_le_bytes(take(rest)?),
        time_crc: u32::from_le_bytes(take(rest)?),
    };
    let newest = (offset != -1).then_some((timestamp, offset));
    Some(SegmentEntry { base, bytes, newest, index: (sums != UNKNOWN_INDEX).then_some(sums) })
}

/// Writes `<dir>/<name>` by way of a synced temporary file, so that a crash leaves the
/// old or the new one. Blocks.
fn replace_file(dir: &Path, name: &str, contents: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.tmp"));
    let replaced = fs::File::create(&temporary).and_then(|mut file| {
        file.write_all(contents)?;
        file.sync_data()?;
        fs::rename(&temporary, dir.join(name))
    });
    replaced.inspect_err(|_| drop_leftover(&temporary))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn round_trip_and_damage() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Checkpoint::load(dir.path(), 100).unwrap(), None);
        let sums = IndexSums::of(b"offsets", b"times");
        let entry = |base, index| SegmentEntry { base, bytes: 300, newest: Some((5, base + 1)), index };
        let segments = Some(vec![entry(7, Some(sums)), SegmentEntry { newest: None, ..entry(9, None) }]);
        let checkpoint = Checkpoint { recovery_point: 1234, log_start: 7, segments, sidecar: b"state".to_vec() };
        checkpoint.store(dir.path()).unwrap();
        assert_eq!(Checkpoint::load(dir.path(), 100).unwrap(), Some(checkpoint.clone()));
        let good = checkpoint.encode(7);
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 1;
            assert_eq!(read_bounded(&bad[..], 7, 100, READ_BYTES).unwrap(), None, "byte {position}");
        }
        assert_eq!(read_bounded(&good[..20], 7, 100, READ_BYTES).unwrap(), None);
        assert_eq!(read_bounded(&good[..0], 7, 100, READ_BYTES).unwrap(), None);
        let first = Checkpoint { segments: None, ..checkpoint };
        assert_eq!(
            read_bounded(&first.encode(7)[..], 7, 100, READ_BYTES).unwrap(),
            Some(first),
            "the first version has no segments"
        );
    }

    /// Sound in itself, it would have other segments removed than its own.
    #[test]
    fn another_partitions_checkpoint_is_not_believed() {
        let root = tempfile::tempdir().unwrap();
        let (own, other) = (root.path().join("t-0"), root.path().join("t-1"));
        let checkpoint = Checkpoint { recovery_point: 900, log_start: 800, segments: Some(vec![]), sidecar: vec![] };
        for dir in [&own, &other] {
            fs::create_dir(dir).unwrap();
            checkpoint.store(dir).unwrap();
        }
        assert_eq!(Checkpoint::load(&own, 100).unwrap(), Some(checkpoint.clone()));
        fs::copy(other.join(FILE), own.join(FILE)).unwrap();
        assert_eq!(Checkpoint::load(&own, 100).unwrap(), None);
        // Those that older releases have left are.
        let mut before = checkpoint.encode(0);
        before[4..8].copy_from_slice(&NAMELESS_VERSION.to_le_bytes());
        fs::write(own.join(FILE), before).unwrap();
        assert_eq!(Checkpoint::load(&own, 100).unwrap(), Some(checkpoint));
    }

    #[test]
    fn a_large_sidecar_is_checked_whole_and_kept_in_part() {
        let sidecar: Vec<u8> = (0..READ_BYTES * 3).map(|i| (i % 251) as u8).collect();
        let entry = SegmentEntry { base: 1, bytes: 9, newest: None, index: None };
        let segments = Some(vec![entry; 10_000]);
        let checkpoint = Checkpoint { recovery_point: 5, log_start: 1, segments, sidecar: sidecar.clone() };
        let mut bytes = checkpoint.encode(7);
        let read = read_bounded(&bytes[..], 7, 1000, READ_BYTES).unwrap().unwrap();
        assert_eq!((read.recovery_point, read.log_start, read.segments.unwrap().len()), (5, 1, 10_000));
        assert_eq!(read.sidecar, sidecar[..1000]);
        assert!(read.sidecar.capacity() < READ_BYTES);
        if let Some(last) = bytes.last_mut() {
            *last ^= 1;
        }
        assert_eq!(read_bounded(&bytes[..], 7, 1000, READ_BYTES).unwrap(), None, "damage beyond what is kept");
    }
}
