//! Replay: a start writes the batches that a killed broker has left in its arenas into the
//! segments, before any log is opened. Blocks.
//!
//! Only an arena of this boot, cluster and directory is taken over: another boot's newest bytes are
//! in no order. Every batch is checked before a byte of it is written; what does not check ends its
//! partition's replay, is reported, and keeps the file under another name. Writing what is there
//! already changes nothing, so that a replay may be interrupted and begun again. An arena is
//! removed before anything new is appended: it would undo it.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::EXTENSION;
use super::layout::{Entry, Identity, PartitionKey, Plan, Slot, Unfit, decode_head, decode_slot};
use crate::config::Untaken;
use crate::model::record_batch::{self, BatchHeader};
use crate::runtime::disk::ALIGNMENT;
use crate::runtime::file_systems::{FileSystems, sync_file};
use crate::runtime::fs::{self, File, OpenOptions};
use crate::runtime::mapping::{PAGE_BYTES, SLOT_BODY_BYTES, SLOT_BYTES};
use crate::runtime::side_by_side;
use crate::storage::as_is::begins_beyond;
use crate::storage::compaction::named;
use crate::storage::paths::segment_file;

/// Marks an arena that could not be taken over as a whole.
const DAMAGED: &str = "damaged";

/// So many files are no longer synced one by one: each takes a commit of the journal, while a sync
/// of the whole file system also writes what other programs have left to the kernel.
pub(in crate::storage) const MANY_FILES: usize = 64;

/// Threads that write to many files: most of the time each waits for a block that it goes on with.
const WRITERS: usize = 16;

/// Batches that a start has taken over from the arenas of one data directory.
#[derive(Debug, Default)]
pub struct Replayed {
    pub partitions: usize,
    pub batches: u64,
    pub bytes: u64,
    pub failed: Vec<Untaken>,
}

/// The place of a partition that an arena names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Home {
    /// Its directory, from which it is to be served.
    Here(PathBuf),
    /// It is offline or withheld: nothing is appended to it in this run.
    Away,
    /// Its topic has been deleted.
    Gone,
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
        if fs::metadata(&path).is_ok_and(|found| found.is_dir()) {
            continue;
        }
        if path.extension().is_some_and(|extension| extension == EXTENSION)
            && let Some(number) = path.file_stem().and_then(|stem| stem.to_str()?.rsplit_once('.')?.1.parse().ok())
        {
            found.push((number, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Takes over what the arenas in `folder` hold of the data directory that `identity` names. An
/// error: an arena cannot be read, and nothing may be served from this directory.
pub fn replay(folder: &Path, identity: &Identity, find: &dyn Fn(PartitionKey) -> Home) -> io::Result<Replayed> {
    let mut replayed = Replayed::default();
    for (_, path) in arena_files(folder)? {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        replay_file(&path, identity, find, &mut replayed).map_err(named)?;
    }
    Ok(replayed)
}

fn replay_file(
    path: &Path,
    identity: &Identity,
    find: &dyn Fn(PartitionKey) -> Home,
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
        Err(_) if is_unused(&file, &head, file_bytes)? => {
            tracing::warn!(
                file = %path.display(),
                "removing an arena that was never in use: the broker was killed while it made it, or the file has been emptied since"
            );
            return fs::remove_file(path);
        }
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
    let (mut left, mut gone, mut homes) = (false, 0, Vec::new());
    for (key, chunks) in held {
        match find(key) {
            Home::Here(dir) => homes.push((key, dir, chunks)),
            Home::Gone => {
                gone += 1;
                forget(&file, plan, &chunks)?;
            }
            Home::Away => {
                left = true;
                tracing::warn!(
                    topic = %key.topic, partition = key.partition, file = %path.display(),
                    "the arena holds records of a partition that is not served now: they stay there for a start that serves it, while the \
                     machine runs"
                );
            }
        }
    }
    let outcomes = take_all_over(&file, plan, &homes);
    for ((key, dir, chunks), outcome) in homes.into_iter().zip(outcomes) {
        match outcome {
            Ok((taken, damage)) => {
                tracing::debug!(dir = %dir.display(), batches = taken.batches, bytes = taken.bytes, "taken over from the arena");
                replayed.partitions += 1;
                replayed.batches += taken.batches;
                replayed.bytes += taken.bytes;
                if let Some(why) = damage {
                    damaged = true;
                    tell_damage(&dir, path, &why);
                }
                forget(&file, plan, &chunks)?;
            }
            Err(error) => {
                left = true;
                let why = format!("its last acknowledged records are in {} and could not be written", path.display());
                tracing::error!(
                    dir = %dir.display(),
                    "the partition is offline: {why}: {error}. They are tried again when there is room, and at the next start"
                );
                let PartitionKey { topic, partition } = key;
                replayed.failed.push(Untaken { dir, topic, partition, arena: path.to_path_buf(), why });
            }
        }
    }
    if gone > 0 {
        tracing::info!(file = %path.display(), "the arena held records of {gone} partition(s) whose topics have been deleted");
    }
    match (left, damaged) {
        (true, _) => file.sync_all(),
        (false, true) => set_aside(path),
        (false, false) => fs::remove_file(path),
    }
}

/// Tries again what a start could not take over, before the log is opened. Blocks.
pub fn take_over_later(untaken: &Untaken) -> io::Result<()> {
    let failed = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", untaken.why));
    match OpenOptions::new().read(true).write(true).open(&untaken.arena) {
        // Removed by somebody who did not want them.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        opened => opened.and_then(|file| take_over_from(&file, untaken)).map_err(failed),
    }
}

fn take_over_from(file: &File, untaken: &Untaken) -> io::Result<()> {
    let Untaken { dir, topic, partition, arena, .. } = untaken;
    let (head, bytes) = read_head(file)?;
    let (_, _, plan) = decode_head(&head, bytes).map_err(|unfit| io::Error::other(unfit.to_string()))?;
    let (mut held, damaged) = read_table(file, arena, plan)?;
    let key = PartitionKey { topic: *topic, partition: *partition };
    let Some(chunks) = held.remove(&key) else { return Ok(()) };
    let (taken, damage) = take_over(file, plan, dir, &chunks, Syncs::Each)?;
    if let Some(why) = &damage {
        tell_damage(dir, arena, why);
    }
    tracing::info!(
        dir = %dir.display(), batches = taken.batches, bytes = taken.bytes,
        "the partition's last acknowledged records have been taken over from the arena"
    );
    forget(file, plan, &chunks)?;
    match held.is_empty() && !damaged && damage.is_none() {
        true => fs::remove_file(arena),
        false => Ok(()),
    }
}

fn tell_damage(dir: &Path, arena: &Path, why: &str) {
    tracing::error!(
        dir = %dir.display(), file = %arena.display(),
        "the arena holds acknowledged records of the partition that cannot be taken over: {why}"
    );
}

/// Has later starts pass these chunks over.
fn forget(file: &File, plan: Plan, chunks: &[HeldChunk]) -> io::Result<()> {
    let words = chunks.iter().map(|chunk| plan.table_entry(chunk.index) + SLOT_BODY_BYTES as u64);
    words.into_iter().try_for_each(|word| file.write_all_at(&[0; 8], word))
}

/// Neither its head nor its table was ever written: nothing was acknowledged from it.
fn is_unused(file: &File, head: &[u8], bytes: u64) -> io::Result<bool> {
    if head.iter().any(|byte| *byte != 0) {
        return Ok(false);
    }
    let Some(plan) = usize::try_from(bytes).ok().and_then(Plan::of) else { return Ok(true) };
    let mut table = vec![0; plan.table_bytes()];
    file.read_exact_at(&mut table, PAGE_BYTES as u64)?;
    Ok(table.iter().all(|byte| *byte == 0))
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

/// The inner `Some`: why the replay of a partition ended before the last chunk's end, other than by
/// a batch that was still being appended.
type Outcome = io::Result<(TakenOver, Option<String>)>;

/// The way in which what was written is made to survive a power cut.
#[derive(Clone, Copy)]
enum Syncs<'a> {
    /// Each file by itself.
    Each,
    /// These, by the caller, once all is written.
    Together(&'a FileSystems),
}

/// Takes over what an arena holds of each of these partitions; the outcomes in
/// their order. All is synced.
fn take_all_over(file: &File, plan: Plan, homes: &[(PartitionKey, PathBuf, Vec<HeldChunk>)]) -> Vec<Outcome> {
    let each = |syncs| homes.iter().map(|(_, dir, chunks)| take_over(file, plan, dir, chunks, syncs)).collect();
    if homes.iter().map(|(_, _, chunks)| runs(chunks).count()).sum::<usize>() < MANY_FILES {
        return each(Syncs::Each);
    }
    let systems = FileSystems::default();
    let outcomes =
        side_by_side(homes, WRITERS, |(_, dir, chunks)| take_over(file, plan, dir, chunks, Syncs::Together(&systems)));
    match systems.sync() {
        Ok(()) => outcomes,
        Err(error) => {
            tracing::warn!(
                "{error}: what the arena holds is written again, and synced file by file, to see what has failed"
            );
            each(Syncs::Each)
        }
    }
}

/// The chunks of each segment.
fn runs(chunks: &[HeldChunk]) -> impl Iterator<Item = &[HeldChunk]> {
    chunks.chunk_by(|a, b| a.entry.segment == b.entry.segment)
}

/// Writes the sound batches of a partition's chunks into its segments.
fn take_over(file: &File, plan: Plan, dir: &Path, chunks: &[HeldChunk], syncs: Syncs) -> Outcome {
    let mut taken = TakenOver::default();
    let mut last_run: Option<(i64, i64)> = None;
    for run in runs(chunks) {
        let first = &run[0].entry;
        let gaps = run.iter().all(|chunk| chunk.entry.gaps);
        let beyond = |base| gaps && begins_beyond(base, first.segment);
        if last_run.is_some_and(|(base, next)| next != first.segment && !(next < first.segment && beyond(base))) {
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
        let failed = |error| named("write", &segment, error);
        let begin = u64::from(first.position) + u64::from(first.carried);
        let (target, new) = match open_segment(&segment, begin == 0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && begin > 0 => {
                return Ok((taken, Some(format!("segment {} is missing", first.segment))));
            }
            opened => opened.map_err(failed)?,
        };
        let synced_later = match syncs {
            Syncs::Together(systems) => systems.note(&target, &segment).map_err(failed)?,
            Syncs::Each => false,
        };
        end_direct_io(&target).map_err(failed)?;
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
        let walk = walk(&bytes, first.first_offset, gaps, |place, header| {
            let begins = |chunk: &&HeldChunk| u64::from(chunk.entry.begins) == u64::from(first.begins) + place as u64;
            let mut named = run.iter().filter(begins).map(|chunk| &chunk.entry);
            named.all(|entry| entry.first_offset == header.base() && entry.first_crc == header.crc.get() as u16)
        });
        if walk.end > before as usize {
            let new = &bytes[before as usize..walk.end];
            target.write_all_at(new, begin).map_err(failed)?;
            if !synced_later {
                sync_file(&target, &segment).map_err(failed)?;
            }
            taken.bytes += new.len() as u64;
            taken.batches += walk.batches;
        }
        if new && !synced_later {
            File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed)?;
        }
        let last = &run[run.len() - 1];
        // A batch goes on in another chunk only where one is full.
        let torn = walk.torn && last.held == last.entry.capacity;
        if walk.end < bytes.len() {
            let place = u64::from(first.begins) + walk.end as u64;
            let why = format!("no sound batch at position {place} of segment {}", first.segment);
            return Ok((taken, (!torn).then_some(why)));
        }
        last_run = Some((first.segment, walk.next_offset));
    }
    Ok((taken, None))
}

/// Opens a segment's file; whether it is a new one. `make`: makes it, where there is none. One that
/// is a link to nothing is left so: recovery names it.
fn open_segment(path: &Path, make: bool) -> io::Result<(File, bool)> {
    let mut options = OpenOptions::new();
    match options.read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && make => {
            options.create_new(true).open(path).map(|file| (file, true))
        }
        opened => opened.map(|file| (file, false)),
    }
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

/// Walks over batches that follow each other from `offset` on, with `gaps` also where offsets are
/// missing between them, as long as `expected` knows the one at a place.
fn walk(bytes: &[u8], offset: i64, gaps: bool, expected: impl Fn(usize, &BatchHeader) -> bool) -> Walk {
    let mut walk = Walk { end: 0, batches: 0, next_offset: offset, torn: false };
    while walk.end < bytes.len() {
        let rest = &bytes[walk.end..];
        let Some(header) = BatchHeader::peek(rest) else {
            walk.torn = true;
            break;
        };
        let total = header.total_bytes();
        let in_order = header.base() == walk.next_offset || (gaps && header.base() > walk.next_offset);
        let follows = header.magic == 2 && in_order && expected(walk.end, header);
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
