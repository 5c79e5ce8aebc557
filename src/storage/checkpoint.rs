//! A partition's `checkpoint` file: up to where the log is synced and what need not be read again after a crash.
//!
//! Layout, little-endian: magic `CLCP`, version u32 = 1, CRC-32C u32 of the rest, recovery point i64, log start offset i64,
//! then the sidecar (opaque here; the partition layer keeps its producer state in it). Replaced atomically.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::files::drop_leftover;

const FILE: &str = "checkpoint";
const MAGIC: &[u8; 4] = b"CLCP";
const VERSION: u32 = 1;
const PREFIX_BYTES: usize = 12;
const FIXED_BYTES: usize = PREFIX_BYTES + 16;
/// Bytes read at a time.
const READ_BYTES: usize = 256 << 10;

/// What a [`Log`](super::Log) remembers across restarts beside the records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checkpoint {
    /// Every record before this offset is synced and indexed.
    pub recovery_point: i64,
    /// The first offset that readers may ask for.
    pub log_start: i64,
    /// State of the layer above as of `recovery_point`.
    pub sidecar: Vec<u8>,
}

impl Checkpoint {
    /// `<dir>/checkpoint`
    pub fn path(dir: &Path) -> PathBuf {
        dir.join(FILE)
    }

    /// Blocks. `Ok(None)`: there is none, or it is damaged (the whole log is read again then; nothing is lost). Of the
    /// sidecar no more than `sidecar_limit` bytes come back, however large it was when it was stored.
    pub fn load(dir: &Path, sidecar_limit: usize) -> io::Result<Option<Checkpoint>> {
        match fs::File::open(dir.join(FILE)) {
            Ok(file) => read_bounded(file, FIXED_BYTES.saturating_add(sidecar_limit)),
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

    /// Blocks. The contents are synced, the exchange of old for new is not: after a power cut it may be the old one, whose
    /// recovery point lies further back.
    pub fn store(&self, dir: &Path) -> io::Result<()> {
        replace_file(dir, FILE, &self.encode())
    }

    /// Blocks; synced when it returns.
    pub fn remove(dir: &Path) -> io::Result<()> {
        fs::remove_file(dir.join(FILE))?;
        fs::File::open(dir)?.sync_all()
    }

    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(FIXED_BYTES + self.sidecar.len());
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.recovery_point.to_le_bytes());
        out.extend_from_slice(&self.log_start.to_le_bytes());
        out.extend_from_slice(&self.sidecar);
        let crc = crc32c::crc32c(&out[PREFIX_BYTES..]);
        out[8..PREFIX_BYTES].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// `crc`: that of the whole file behind the prefix, of which `bytes` may be only the beginning.
    fn decode(mut bytes: Vec<u8>, crc: u32) -> Option<Checkpoint> {
        if bytes.len() < FIXED_BYTES || &bytes[..4] != MAGIC || bytes[4..8] != VERSION.to_le_bytes() {
            return None;
        }
        if bytes[8..PREFIX_BYTES] != crc.to_le_bytes() {
            return None;
        }
        let number = |at: usize| Some(i64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let (recovery_point, log_start) = (number(PREFIX_BYTES)?, number(PREFIX_BYTES + 8)?);
        bytes.drain(..FIXED_BYTES);
        Some(Checkpoint { recovery_point, log_start, sidecar: bytes })
    }
}

/// Reads and checks a whole checkpoint, and keeps the first `limit` bytes. Blocks.
fn read_bounded(mut file: impl Read, limit: usize) -> io::Result<Option<Checkpoint>> {
    let (mut kept, mut crc, mut chunk) = (Vec::new(), 0, vec![0; READ_BYTES]);
    (&mut file).take(PREFIX_BYTES as u64).read_to_end(&mut kept)?;
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(Checkpoint::decode(kept, crc)),
            Ok(count) => {
                crc = crc32c::crc32c_append(crc, &chunk[..count]);
                let room = limit.saturating_sub(kept.len());
                kept.extend_from_slice(&chunk[..count.min(room)]);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Writes `<dir>/<name>` by way of a synced temporary file, so that a crash leaves the old or the new one. Blocks.
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
    use super::*;

    #[test]
    fn round_trip_and_damage() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Checkpoint::load(dir.path(), 100).unwrap(), None);
        let checkpoint = Checkpoint { recovery_point: 1234, log_start: 7, sidecar: b"state".to_vec() };
        checkpoint.store(dir.path()).unwrap();
        assert_eq!(Checkpoint::load(dir.path(), 100).unwrap(), Some(checkpoint.clone()));
        let good = checkpoint.encode();
        for position in 0..good.len() {
            let mut bad = good.clone();
            bad[position] ^= 1;
            assert_eq!(read_bounded(&bad[..], 100).unwrap(), None, "byte {position}");
        }
        assert_eq!(read_bounded(&good[..20], 100).unwrap(), None);
        assert_eq!(read_bounded(&good[..0], 100).unwrap(), None);
    }

    #[test]
    fn a_large_sidecar_is_checked_whole_and_kept_in_part() {
        let sidecar: Vec<u8> = (0..READ_BYTES * 3).map(|i| (i % 251) as u8).collect();
        let checkpoint = Checkpoint { recovery_point: 5, log_start: 1, sidecar: sidecar.clone() };
        let mut bytes = checkpoint.encode();
        let read = read_bounded(&bytes[..], FIXED_BYTES + 1000).unwrap().unwrap();
        assert_eq!((read.recovery_point, read.log_start), (5, 1));
        assert_eq!(read.sidecar, sidecar[..1000]);
        assert!(read.sidecar.capacity() < READ_BYTES);
        if let Some(last) = bytes.last_mut() {
            *last ^= 1;
        }
        assert_eq!(read_bounded(&bytes[..], FIXED_BYTES + 1000).unwrap(), None, "damage beyond what is kept");
    }
}
