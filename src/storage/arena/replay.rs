//! Replay: a start writes the batches that a killed broker has left in its arenas into the segments, before any log is
//! opened. Blocks.
//!
//! Only an arena of this boot, cluster and directory is taken over: another boot's newest bytes are in no order. Every batch is
//! checked before a byte of it is written; what does not check ends its partition's replay, is reported, and keeps the file
//! under another name. Writing what is there already changes nothing, so that a replay may be interrupted and begun again.
//! An arena is removed before anything new is appended: it would undo it.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::layout::{Entry, Identity, PartitionKey, Plan, Slot, Unfit, decode_head, decode_slot};
use super::{EXTENSION, FOLDER};
use crate::model::record_batch::{self, BatchHeader};
use crate::runtime::disk::ALIGNMENT;
use crate::runtime::mapping::{PAGE_BYTES, SLOT_BODY_BYTES, SLOT_BYTES};
use crate::storage::paths::segment_file;

/// Marks an arena that could not be taken over as a whole.
const DAMAGED: &str = "damaged";

/// Batches that a start has taken over from the arenas of one data directory.
#[derive(Debug, Default)]
pub struct Replayed {
    pub partitions: usize,
    pub batches: u64,
    pub bytes: u64,
    /// Directories of partitions whose acknowledged records could not be written, and why. They must not be appended to before
    /// a start that can.
    pub failed: Vec<(PathBuf, String)>,
}

/// One partition's part of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TakenOver {
    pub batches: u64,
    pub bytes: u64,
}

/// The arenas in `folder` by number, oldest first; none where there is no such folder.
pub(super) fn arena_files(folder: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == EXTENSION)
            && let Some(number) = path.file_stem().and_then(|stem| stem.to_str()?.rsplit_once('.')?.1.parse().ok())
        {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Takes over what the arenas of the data directory at `root` hold; `find` knows the directory of a partition that is served. An error: an arena cannot be read, and nothing may be served from this directory.
pub fn replay(
    root: &Path,
    identity: &Identity,
    find: &dyn Fn(PartitionKey) -> Option<PathBuf>,
) -> io::Result<Replayed> {
    let mut replayed = Replayed::default();
    for (_, path) in arena_files(&root.join(FOLDER))? {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        replay_file(&path, identity, find, &mut replayed).map_err(named)?;
    }
    Ok(replayed)
}

fn replay_file(
    path: &Path,
    identity: &Identity,
    find: &dyn Fn(PartitionKey) -> Option<PathBuf>,
    replayed: &mut Replayed,
) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let (head, file_bytes) = read_head(&file)?;
    let plan = match decode_head(&head, file_bytes) {
        Ok((found, _, _)) if (&found.cluster, found.directory) != (&identity.cluster, identity.directory) => {
            tracing::error!(
                file = %path.display(), cluster = %found.cluster, directory = %found.directory,
                "an arena of another cluster or data directory is left as it is: remove it, or move it to where it belongs"
            );
            return Ok(());
        }
        Ok((found, _, _)) if found.boot != identity.boot => {
            tracing::info!(
                file = %path.display(),
                "removing the arena of an earlier boot: what had not been written when the kernel ended is gone"
            );
            return fs::remove_file(path);
        }
        Ok((_, _, plan)) => plan,
        // All zeros: the broker was killed before it had written its head, and acknowledged nothing.
        Err(_) if head.iter().all(|byte| *byte == 0) => return fs::remove_file(path),
        Err(unfit @ Unfit::Version(_)) => return Err(io::Error::new(io::ErrorKind::Unsupported, unfit.to_string())),
        Err(unfit) => {
            tracing::error!(
                file = %path.display(),
                "{unfit}: nothing of it is taken over, and records acknowledged just before the broker was killed may be missing; it \
                 is kept as .{DAMAGED}"
            );
            return set_aside(path);
        }
    };
    let (held, mut damaged) = read_table(&file, path, plan)?;
    let mut left = false;
    for (key, chunks) in held {
        let Some(dir) = find(key) else {
            // Nothing is appended to it in this run: it is offline, withheld, or was being deleted.
            left = true;
            tracing::warn!(
                topic = %key.topic, partition = key.partition, file = %path.display(),
                "the arena holds records of a partition that is not served now: they stay there for a start that serves it, while the \
                 machine runs"
            );
            continue;
        };
        match take_over(&file, plan, &dir, &chunks) {
            Ok((taken, damage)) => {
                tracing::debug!(dir = %dir.display(), batches = taken.batches, bytes = taken.bytes, "taken over from the arena");
                replayed.partitions += 1;
                replayed.batches += taken.batches;
                replayed.bytes += taken.bytes;
                if let Some(why) = damage {
                    damaged = true;
                    tracing::error!(
                        dir = %dir.display(), file = %path.display(),
                        "the arena holds acknowledged records of the partition that cannot be taken over: {why}"
                    );
                }
                for chunk in &chunks {
                    let word = plan.table_entry(chunk.index) + SLOT_BODY_BYTES as u64;
                    file.write_all_at(&[0; 8], word)?;
                }
            }
            Err(error) => {
                left = true;
                let why = format!(
                    "its last acknowledged records are in {} and could not be written: {error}; they are tried again at the next start",
                    path.display()
                );
                tracing::error!(dir = %dir.display(), "the partition is offline: {why}");
                replayed.failed.push((dir, why));
            }
        }
    }
    match (left, damaged) {
        (true, _) => file.sync_all(),
        (false, true) => set_aside(path),
        (false, false) => fs::remove_file(path),
    }
}

/// The first page of an arena, and the file's length.
pub(super) fn read_head(file: &File) -> io::Result<(Vec<u8>, u64)> {
    let bytes = file.metadata()?.len();
    let mut head = vec![0; PAGE_BYTES.min(usize::try_from(bytes).unwrap_or(PAGE_BYTES))];
    file.read_exact_at(&mut head, 0)?;
    Ok((head, bytes))
}

/// The slots of an arena's table that are not empty, by number.
pub(super) fn read_slots(file: &File, plan: Plan) -> io::Result<Vec<(usize, Slot)>> {
    let mut table = vec![0; plan.table_bytes()];
    file.read_exact_at(&mut table, PAGE_BYTES as u64)?;
    let (slots, _) = table.as_chunks::<SLOT_BYTES>();
    let decoded =
        slots.iter().take(plan.pages).enumerate().map(|(index, slot)| (index, decode_slot(slot, index, plan)));
    Ok(decoded.filter(|(_, slot)| *slot != Slot::Empty).collect())
}

fn set_aside(path: &Path) -> io::Result<()> {
    fs::rename(path, path.with_extension(DAMAGED))
}

/// A chunk that holds something.
struct HeldChunk {
    index: usize,
    entry: Entry,
    held: u32,
}

/// The chunks that hold something, by partition; `true`: there are damaged entries.
fn read_table(file: &File, path: &Path, plan: Plan) -> io::Result<(BTreeMap<PartitionKey, Vec<HeldChunk>>, bool)> {
    let (mut held, mut damaged): (BTreeMap<PartitionKey, Vec<HeldChunk>>, bool) = (BTreeMap::new(), false);
    for (index, slot) in read_slots(file, plan)? {
        match slot {
            Slot::Empty => {}
            Slot::Held(entry, bytes) => {
                held.entry(entry.partition).or_default().push(HeldChunk { index, entry, held: bytes });
            }
            Slot::Damaged(why) => {
                damaged = true;
                tracing::error!(
                    file = %path.display(), entry = index,
                    "an entry of the arena is damaged: {why}; what it held of some partition, if anything, is not taken over"
                );
            }
        }
    }
    for chunks in held.values_mut() {
        chunks.sort_by_key(|chunk| (chunk.entry.segment, chunk.entry.position));
    }
    Ok((held, damaged))
}

/// Writes the sound batches of a partition's chunks into its segments. The inner `Some`: why it ended before the last chunk's
/// end, other than by a batch that was still being appended.
fn take_over(file: &File, plan: Plan, dir: &Path, chunks: &[HeldChunk]) -> io::Result<(TakenOver, Option<String>)> {
    let mut taken = TakenOver::default();
    let mut next_offset = None;
    for run in chunks.chunk_by(|a, b| a.entry.segment == b.entry.segment) {
        let first = &run[0].entry;
        if next_offset.is_some_and(|next| next != first.segment) {
            return Ok((taken, Some(format!("the segment {} does not follow", first.segment))));
        }
        let follows = |pair: &[HeldChunk]| {
            let (a, b) = (&pair[0], &pair[1]);
            a.held == a.entry.capacity
                && b.entry.carried == 0
                && a.entry.position + a.entry.capacity == b.entry.position
        };
        if !run.windows(2).all(follows) {
            return Ok((taken, Some(format!("the chunks of segment {} do not follow each other", first.segment))));
        }
        let segment = segment_file(dir, first.segment, "log");
        let target = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(segment)?;
        end_direct_io(&target)?;
        let begin = u64::from(first.position) + u64::from(first.carried);
        let (mut bytes, before) = (Vec::new(), begin - u64::from(first.begins));
        // All before the first chunk has been written; a file that ends before lacks some of it.
        if before > 0 && target.metadata()?.len() < begin {
            return Ok((taken, Some(format!("segment {} ends before the arena goes on with it", first.segment))));
        }
        bytes.resize(before as usize, 0);
        target.read_exact_at(&mut bytes, u64::from(first.begins))?;
        for chunk in run {
            let (carried, held) = (chunk.entry.carried as usize, chunk.held as usize);
            let at = bytes.len();
            bytes.resize(at + held - carried, 0);
            file.read_exact_at(&mut bytes[at..], (plan.chunk(chunk.index) + carried) as u64)?;
        }
        let walk = walk(&bytes, first.first_offset, |place, header| {
            let begins = |chunk: &&HeldChunk| u64::from(chunk.entry.begins) == u64::from(first.begins) + place as u64;
            let mut named = run.iter().filter(begins).map(|chunk| &chunk.entry);
            named.all(|entry| entry.first_offset == header.base() && entry.first_crc == header.crc.get() as u16)
        });
        if walk.end > before as usize {
            let new = &bytes[before as usize..walk.end];
            target.write_all_at(new, begin)?;
            target.sync_data()?;
            taken.bytes += new.len() as u64;
            taken.batches += walk.batches;
        }
        let last = &run[run.len() - 1];
        // A batch goes on in another chunk only where one is full.
        let torn = walk.torn && last.held == last.entry.capacity;
        if walk.end < bytes.len() {
            let place = u64::from(first.begins) + walk.end as u64;
            let why = format!("no sound batch at position {place} of segment {}", first.segment);
            return Ok((taken, (!torn).then_some(why)));
        }
        next_offset = Some(walk.next_offset);
    }
    Ok((taken, None))
}

/// Waits for direct writes of the process before, which may end after it: cutting a file does.
fn end_direct_io(file: &File) -> io::Result<()> {
    let bytes = file.metadata()?.len();
    file.set_len(bytes + ALIGNMENT)?;
    file.set_len(bytes)
}

struct Walk {
    /// End of the last sound batch.
    end: usize,
    batches: u64,
    next_offset: i64,
    /// The bytes end within a batch whose header is sound as far as it is there.
    torn: bool,
}

/// Walks over batches that follow each other from `offset` on, as long as `expected` knows the one at a place.
fn walk(bytes: &[u8], offset: i64, expected: impl Fn(usize, &BatchHeader) -> bool) -> Walk {
    let mut walk = Walk { end: 0, batches: 0, next_offset: offset, torn: false };
    while walk.end < bytes.len() {
        let rest = &bytes[walk.end..];
        let Some(header) = BatchHeader::peek(rest) else {
            walk.torn = true;
            break;
        };
        let total = header.total_bytes();
        let follows = header.magic == 2 && header.base() == walk.next_offset && expected(walk.end, header);
        let possible = follows && total >= record_batch::HEADER_BYTES as i64;
        if possible && total > rest.len() as i64 {
            walk.torn = true;
            break;
        }
        if !possible || record_batch::check(&rest[..total as usize]).is_err() {
            break;
        }
        walk.next_offset = header.next_offset();
        walk.end += total as usize;
        walk.batches += 1;
    }
    walk
}
