//! A partition's directory as a start finds it. Blocking.

use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use super::FoundSegment;
use crate::runtime::fs;
use crate::storage::as_is::GAPS_FILE;
use crate::storage::checkpoint::Checkpoint;
use crate::storage::compaction::named;
use crate::storage::paths::parse_segment_file;

/// The contents of a partition's directory.
pub struct Found {
    /// By base offset.
    pub segments: Vec<FoundSegment>,
    pub checkpoint: Option<Checkpoint>,
    /// The first offset of a segment behind all of these whose log file is gone.
    pub lost_segment: Option<i64>,
    /// Damaged bytes lie beside the log.
    pub has_rot: bool,
    /// Offsets may be missing between batches.
    pub has_gaps: bool,
}

/// Lists a partition directory, clearing leftovers of torn replacements. Blocks.
pub fn look(dir: &Path, sidecar_limit: usize) -> io::Result<Found> {
    let mut names = list(dir)?;
    if names.iter().any(|name| name.ends_with(".cleaned") || name.ends_with(".swap")) {
        crate::storage::compaction::recover(dir)?;
        names = list(dir)?;
    }
    let (mut segments, mut indexes, mut has_rot, mut has_gaps) = (Vec::new(), Vec::new(), false, false);
    for name in &names {
        let index = |extension| parse_segment_file(name, extension).map(|base| (base, extension));
        if let Some((base, extension)) = index("index").or_else(|| index("timeindex")) {
            indexes.push((base, extension, dir.join(name)));
        } else if name.ends_with(".tmp") || name.ends_with(".deleted") {
            remove(&dir.join(name))?;
        } else if name.ends_with(".rot") {
            has_rot = true;
        } else if name.as_str() == GAPS_FILE {
            has_gaps = true;
        } else if let Some(base) = parse_segment_file(name, "log") {
            let path = dir.join(name);
            // Of a link, what it leads to.
            let metadata = fs::metadata(&path).map_err(|e| named("open", &path, e))?;
            if metadata.is_dir() {
                let what = "is a directory where a segment belongs: move it away and start again";
                return Err(io::Error::new(io::ErrorKind::IsADirectory, format!("{} {what}", path.display())));
            }
            let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
            let modified_ms = i64::try_from(modified.as_millis()).unwrap_or(i64::MAX);
            segments.push(FoundSegment { base, bytes: metadata.len(), has_index: false, modified_ms });
        }
    }
    segments.sort_unstable();
    let mut lost_segment = None;
    for (base, extension, path) in indexes {
        match segments.binary_search_by_key(&base, |segment| segment.base) {
            // A segment begins with an empty offset index.
            Ok(at) => segments[at].has_index |= extension == "timeindex",
            // Left by a removal that was cut short; but behind all segments none ends so.
            Err(at) => {
                if at == segments.len() {
                    lost_segment = Some(lost_segment.map_or(base, |lost: i64| lost.min(base)));
                }
                remove(&path)?;
            }
        }
    }
    let checkpoint = Checkpoint::load(dir, sidecar_limit).map_err(|e| named("read", &Checkpoint::path(dir), e))?;
    Ok(Found { segments, checkpoint, lost_segment, has_rot, has_gaps })
}

/// The names in the directory, which is made if there is none. Those that are not UTF-8 are none of ours.
fn list(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            fs::create_dir_all(dir)?;
            fs::read_dir(dir)?
        }
        entries => entries?,
    };
    let names = entries.map(|entry| Ok(entry?.file_name().into_string().ok()));
    names.filter_map(io::Result::transpose).collect()
}

fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path).map_err(|e| named("remove", path, e))
}

/// The last entry of a `.timeindex` file. Blocks.
pub fn last_time_entry(path: &Path) -> io::Result<Option<(i64, u32)>> {
    use std::io::{Read, Seek, SeekFrom};
    let mut file = match fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    let len = file.metadata()?.len();
    if len < 12 || len % 12 != 0 {
        return Ok(None);
    }
    let mut entry = [0; 12];
    file.seek(SeekFrom::End(-12))?;
    file.read_exact(&mut entry)?;
    let (timestamp, offset) = entry.split_at(8);
    Ok(timestamp
        .try_into()
        .ok()
        .zip(offset.try_into().ok())
        .map(|(t, o)| (i64::from_be_bytes(t), u32::from_be_bytes(o))))
}
