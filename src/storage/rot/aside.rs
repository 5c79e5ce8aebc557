//! Damaged bytes leave a segment: copied beside it first, then the segment is written anew without
//! them and takes its own place, by the same renames as a cleaned one. A crash leaves the damaged
//! segment or the mended one.

use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::survey::Stretch;
use crate::model::record_batch::{BatchHeader, HEADER_BYTES};
use crate::runtime::fs;
use crate::storage::compaction::{Cleaned, Output, Swap, named, run_steps};
use crate::storage::paths::segment_file;

const CHUNK: usize = 1 << 20;
/// Bytes that a crash left behind the end of the log; replaced by the next crash's.
const TORN_FILE: &str = "torn-tail";
/// Copies of one place; more of them are not kept apart.
const MAX_COPIES: u32 = 100;

/// Copies the damaged stretches of segment `base` aside and takes them out of the segment. Returns
/// true if the segment was written anew. Otherwise it is left as it is, because all that is damaged
/// of it is what follows `sound_end`.
pub fn set_aside(
    dir: &Path,
    base: i64,
    stretches: &[Stretch],
    sound_end: u64,
    index_interval_bytes: u32,
) -> io::Result<bool> {
    let sound_before = |stretch: &Stretch| stretch.sound && stretch.bytes.end <= sound_end;
    if let Some((last, before)) = stretches.split_last()
        && !last.sound
        && last.bytes.start == sound_end
        && before.iter().all(sound_before)
    {
        copy_aside(dir, base, stretches)?;
        return Ok(false);
    }
    write_mended(dir, base, stretches, index_interval_bytes)?;
    let swap = Swap { dir: dir.to_path_buf(), base, old: vec![base] };
    for steps in [swap.commit(), swap.replace(), swap.remove()] {
        run_steps(dir, &steps)?;
    }
    fs::File::open(dir)?.sync_all()?;
    Ok(true)
}

/// Copies the damaged stretches of segment `base` aside, and writes the sound ones as a cleaned
/// segment, under its `.cleaned` names.
pub fn write_mended(dir: &Path, base: i64, stretches: &[Stretch], index_interval_bytes: u32) -> io::Result<Cleaned> {
    copy_aside(dir, base, stretches)?;
    let written = write_cleaned(dir, base, stretches, index_interval_bytes);
    if written.is_err() {
        // The cause is told; what cannot be removed now is cleared away by the next start.
        let swap = Swap { dir: dir.to_path_buf(), base, old: vec![base] };
        let _ = run_steps(dir, &swap.withdraw());
    }
    written
}

fn write_cleaned(dir: &Path, base: i64, stretches: &[Stretch], index_interval_bytes: u32) -> io::Result<Cleaned> {
    let path = segment_file(dir, base, "log");
    let file = fs::File::open(&path).map_err(|e| named("open", &path, e))?;
    let size = stretches.iter().filter(|s| s.sound).map(|s| s.bytes.end - s.bytes.start).sum();
    let mut output = Output::create(dir, base, index_interval_bytes, CHUNK, size)?;
    for stretch in stretches.iter().filter(|stretch| stretch.sound) {
        let mut position = stretch.bytes.start;
        while position < stretch.bytes.end {
            let mut batch = vec![0; HEADER_BYTES];
            file.read_exact_at(&mut batch, position).map_err(|e| named("read", &path, e))?;
            let total = BatchHeader::peek(&batch).map_or(0, BatchHeader::total_bytes);
            let left = stretch.bytes.end - position;
            let total = u64::try_from(total).ok().filter(|total| (HEADER_BYTES as u64..=left).contains(total));
            let Some(total) = total else {
                let text = format!("{}: the batch at {position} has changed while it was read", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidData, text));
            };
            batch.resize(usize::try_from(total).unwrap_or(HEADER_BYTES), 0);
            file.read_exact_at(&mut batch, position).map_err(|e| named("read", &path, e))?;
            output.append(&batch)?;
            position += total;
        }
    }
    output.finish(file.metadata()?.modified().ok())
}

/// Copies the damaged stretches of segment `base` to files of their own, and says so. Synced when
/// it returns.
fn copy_aside(dir: &Path, base: i64, stretches: &[Stretch]) -> io::Result<()> {
    let path = segment_file(dir, base, "log");
    let file = fs::File::open(&path).map_err(|e| named("open", &path, e))?;
    for stretch in stretches.iter().filter(|stretch| !stretch.sound) {
        let (mut copy, to) = create_copy(&path, stretch.bytes.start)?;
        copy_range(&file, &stretch.bytes, &mut copy)
            .and_then(|()| copy.sync_all())
            .map_err(|e| named("write", &to, e))?;
        let Range { start, end } = stretch.offsets;
        let lost = if start < end { format!("of offsets [{start}, {end})") } else { format!("from offset {start} on") };
        tracing::error!(
            file = %path.display(), position = stretch.bytes.start, bytes = stretch.bytes.end - stretch.bytes.start,
            kept_in = %to.display(),
            "damaged bytes in a segment: if there were records {lost} in them, they are lost. The bytes are set aside, what is \
             sound before and behind them is kept and served. Check the disk; restore the records from a copy if there is one"
        );
    }
    fs::File::open(dir)?.sync_all()
}

/// `<segment>.log.<position>.rot`, or with a number where that is there already.
fn create_copy(segment: &Path, position: u64) -> io::Result<(fs::File, PathBuf)> {
    let mut name = segment.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".{position}"));
    for number in 0..MAX_COPIES {
        let mut name = name.clone();
        name.push(if number == 0 { ".rot".to_owned() } else { format!(".{number}.rot") });
        let path = segment.with_file_name(name);
        match fs::File::create_new(&path) {
            Ok(file) => return Ok((file, path)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            Err(e) => return Err(named("create", &path, e)),
        }
    }
    let text = format!("{}: {MAX_COPIES} copies of damaged bytes at {position}: move them away", segment.display());
    Err(io::Error::new(io::ErrorKind::AlreadyExists, text))
}

/// Appends `bytes` of `from` to `to`.
fn copy_range(from: &fs::File, bytes: &Range<u64>, to: &mut fs::File) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    let mut position = bytes.start;
    while position < bytes.end {
        let wanted = (bytes.end - position).min(CHUNK as u64) as usize;
        let read = from.read_at(&mut buffer[..wanted], position)?;
        if read == 0 {
            break;
        }
        to.write_all(&buffer[..read])?;
        position += read as u64;
    }
    Ok(())
}

/// Keeps what lies behind the end of the log in one file, for who wants to look: `bytes` of each
/// segment, one after the other.
pub fn copy_tail(dir: &Path, parts: &[(i64, Range<u64>)]) -> io::Result<PathBuf> {
    let to = dir.join(TORN_FILE);
    let mut copy = fs::File::create(&to).map_err(|e| named("create", &to, e))?;
    for (base, bytes) in parts {
        let path = segment_file(dir, *base, "log");
        let file = fs::File::open(&path).map_err(|e| named("open", &path, e))?;
        copy_range(&file, bytes, &mut copy).map_err(|e| named("write", &to, e))?;
    }
    copy.sync_all().map_err(|e| named("sync", &to, e))?;
    Ok(to)
}
