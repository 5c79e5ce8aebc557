//! A partition's directory as a start finds it. Blocking.

use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use bytes::Bytes;

use super::FoundSegment;
use crate::runtime::disk::{self, ALIGNMENT, File, OpenedFile, align_down, align_up};
use crate::runtime::{fs, spawn_blocking};
use crate::storage::as_is::GAPS_FILE;
use crate::storage::checkpoint::{Checkpoint, SegmentEntry};
use crate::storage::compaction::named;
use crate::storage::context::StorageContext;
use crate::storage::damage::DAMAGED_FILE;
use crate::storage::files;
use crate::storage::index::SegmentIndex;
use crate::storage::paths::{parse_segment_file, segment_file};
use crate::storage::segment::{Segment, read_index_files};

/// A partition's directory as a start finds it, and a file of the caller's that lies in it.
pub struct Looked {
    pub(super) found: Found,
    pub(super) end: Option<LogEnd>,
    text: io::Result<Option<String>>,
}

impl Looked {
    /// Takes over what an arena still holds for the log in `dir`, and looks then. `text_file`: as
    /// [`at`](Self::at) has it.
    pub async fn find(context: &StorageContext, dir: &Path, text_file: Option<&'static str>) -> io::Result<Looked> {
        context.take_over(dir).await?;
        let (owned, limit, whole) = (dir.to_path_buf(), context.limits.sidecar_max_bytes, !disk::meets_faults());
        spawn_blocking(move || Looked::at(&owned, limit, text_file, whole)).await
    }

    /// Reads in one step what opening a log takes: a start has thousands of them. `text_file`: the
    /// name of the caller's file. With `whole` the last segment is opened, too. Blocks.
    pub fn at(dir: &Path, sidecar_limit: usize, text_file: Option<&str>, whole: bool) -> io::Result<Looked> {
        let found = look(dir, sidecar_limit)?;
        let end = if whole { LogEnd::open(dir, &found) } else { None };
        let text = text_file.map_or(Ok(None), |name| files::read_text(&dir.join(name)));
        Ok(Looked { found, end, text })
    }

    /// The text of the caller's file; `None`: there is none.
    pub fn take_text(&mut self) -> io::Result<Option<String>> {
        std::mem::replace(&mut self.text, Ok(None))
    }
}

/// The last segment, open, with what recovery reads of it first. It spares a step of its own for
/// each of these: recovery goes on without what failed here, and meets the error itself.
pub struct LogEnd {
    pub base: i64,
    file: Option<OpenedFile>,
    /// The index as the checkpoint knows it.
    pub index: Option<SegmentIndex>,
    /// Blocks of the file, by position.
    pub blocks: Vec<(u64, Bytes)>,
    /// From here on the file has nothing but zeros.
    pub zeros_from: u64,
}

impl LogEnd {
    fn open(dir: &Path, found: &Found) -> Option<LogEnd> {
        let last = found.segments.last()?;
        let file = OpenedFile::open(&segment_file(dir, last.base, "log")).ok()?;
        let entry = found.checkpointed_end().filter(|entry| entry.bytes <= last.bytes);
        let index = entry.and_then(|entry| read_index_files(dir, last.base, entry.index, last.bytes).ok()?);
        let position = entry.filter(|_| index.is_some()).map_or(0, |entry| align_down(entry.bytes));
        let zeros_from = file.zeros_from(position).unwrap_or(last.bytes).min(last.bytes);
        let mut end = LogEnd { base: last.base, file: Some(file), index, blocks: Vec::new(), zeros_from };
        if position > 0 {
            end.read(0, ALIGNMENT);
        }
        end.read(position, align_up(zeros_from.saturating_sub(position)).min(OpenedFile::READ_BYTES as u64));
        Some(end)
    }

    fn read(&mut self, position: u64, len: u64) {
        if len > 0
            && let Some(Ok(block)) = self.file.as_ref().map(|file| file.read_at(position, len as usize))
        {
            self.blocks.push((position, block.into()));
        }
    }

    /// Gives the segment its open file.
    pub fn hand_over(&mut self, segment: &Segment) {
        if let Some(file) = self.file.take() {
            segment.take_file(File::of(file));
        }
    }

    /// Takes the block that was read from `position` on of a file of `file_bytes`.
    pub fn take_block(&mut self, position: u64, file_bytes: u64) -> Option<Bytes> {
        let at = self.blocks.iter().position(|(begins, _)| *begins == position)?;
        let (_, block) = self.blocks.swap_remove(at);
        let end = position + block.len() as u64;
        // Otherwise the read ended early, and may have its reason.
        (!block.is_empty() && (end.is_multiple_of(ALIGNMENT) || end == file_bytes)).then_some(block)
    }
}

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
    /// An earlier start has found damage.
    pub is_damaged: bool,
}

impl Found {
    /// The last segment, as the checkpoint knows it.
    fn checkpointed_end(&self) -> Option<SegmentEntry> {
        let known = self.checkpoint.as_ref()?.segments.as_ref()?.last()?;
        self.segments.last().filter(|last| last.base == known.base).map(|_| *known)
    }
}

/// Lists a partition directory, clearing leftovers of torn replacements. Blocks.
pub fn look(dir: &Path, sidecar_limit: usize) -> io::Result<Found> {
    let mut names = list(dir)?;
    if names.iter().any(|name| name.ends_with(".cleaned") || name.ends_with(".swap")) {
        crate::storage::compaction::recover(dir)?;
        names = list(dir)?;
    }
    let (mut segments, mut indexes) = (Vec::new(), Vec::new());
    let (mut has_rot, mut has_gaps, mut is_damaged) = (false, false, false);
    for name in &names {
        let index = |extension| parse_segment_file(name, extension).map(|base| (base, extension));
        if let Some((base, extension)) = index("index").or_else(|| index("timeindex")).or_else(|| index("txnindex")) {
            indexes.push((base, extension, dir.join(name)));
        } else if name.ends_with(".tmp") || name.ends_with(".deleted") {
            remove(&dir.join(name))?;
        } else if name.ends_with(".rot") {
            has_rot = true;
        } else if name.as_str() == GAPS_FILE {
            has_gaps = true;
        } else if name.as_str() == DAMAGED_FILE {
            is_damaged = true;
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
            segments.push(FoundSegment {
                base,
                bytes: metadata.len(),
                has_index: false,
                has_aborted: false,
                modified_ms,
            });
        }
    }
    segments.sort_unstable();
    let mut lost_segment = None;
    for (base, extension, path) in indexes {
        match segments.binary_search_by_key(&base, |segment| segment.base) {
            // A segment begins with an empty offset index.
            Ok(at) => {
                segments[at].has_index |= extension == "timeindex";
                segments[at].has_aborted |= extension == "txnindex";
            }
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
    Ok(Found { segments, checkpoint, lost_segment, has_rot, has_gaps, is_damaged })
}

/// The names in the directory, which is made if there is none. Those that are
/// not UTF-8 are none of ours.
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
