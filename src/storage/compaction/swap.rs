//! A cleaned segment takes the place of the ones it was made of, on disk. Blocking steps that a crash may end anywhere.
//!
//! Names are Kafka's. A cleaned segment is written as `<base>.{log,index,timeindex}.cleaned` and synced. *Commit*: the three are
//! renamed to `.swap`, the log last, and the directory is synced; from then on the old segments are done for. *Replace*: the
//! old logs but the one of the same base are renamed to `.deleted`, then the `.swap` files take their final names, the log
//! last, over the old one. *Remove*: what is left of the old ones goes. A start finds one of these states and
//! - without `<base>.log.swap`, clears away `.cleaned`, `.swap` and `.deleted`: either nothing or everything was replaced;
//! - with it, goes on from the commit: which segments it stands for is told by the offsets in it, because a cleaned segment
//!   keeps the end of its last batch.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use super::files::named;
use crate::model::record_batch::{BatchHeader, HEADER_BYTES};
use crate::storage::index::SegmentIndex;
use crate::storage::paths::{parse_segment_file, segment_file};

const CLEANED: [&str; 3] = ["index.cleaned", "timeindex.cleaned", "log.cleaned"];
const SWAP: [&str; 3] = ["index.swap", "timeindex.swap", "log.swap"];
/// In the order in which they are taken: the log decides.
const FINAL: [&str; 3] = ["index", "timeindex", "log"];

/// One change of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Rename(PathBuf, PathBuf),
    /// What is not there is no error.
    Remove(PathBuf),
    Sync,
}

/// The replacement of the segments at `old` (base offsets, the first of which is `base`) by the cleaned one at `base`.
#[derive(Clone)]
pub struct Swap {
    pub dir: PathBuf,
    pub base: i64,
    pub old: Vec<i64>,
}

impl Swap {
    fn file(&self, base: i64, extension: &str) -> PathBuf {
        segment_file(&self.dir, base, extension)
    }

    fn renames(&self, from: [&str; 3], to: [&str; 3]) -> impl Iterator<Item = Step> {
        let pairs = from.into_iter().zip(to);
        pairs
            .map(|(from, to)| Step::Rename(self.file(self.base, from), self.file(self.base, to)))
            .collect::<Vec<_>>()
            .into_iter()
    }

    /// After these the cleaned segment will be there, whatever happens.
    pub fn commit(&self) -> Vec<Step> {
        self.renames(CLEANED, SWAP).chain([Step::Sync]).collect()
    }

    /// Takes back a commit that failed on its way, or a cleaned segment that is not wanted.
    pub fn withdraw(&self) -> Vec<Step> {
        SWAP.iter().rev().chain(&CLEANED).map(|extension| Step::Remove(self.file(self.base, extension))).collect()
    }

    /// Only after the commit.
    pub fn replace(&self) -> Vec<Step> {
        let others = self.old.iter().filter(|old| **old != self.base);
        let put_away = others.map(|old| Step::Rename(self.file(*old, "log"), self.file(*old, "log.deleted")));
        put_away.chain(self.renames(SWAP, FINAL)).collect()
    }

    pub fn remove(&self) -> Vec<Step> {
        let others = self.old.iter().filter(|old| **old != self.base);
        others
            .flat_map(|old| {
                ["index", "timeindex", "log.deleted"].map(|extension| Step::Remove(self.file(*old, extension)))
            })
            .collect()
    }
}

impl Step {
    pub fn run(&self, dir: &Path) -> io::Result<()> {
        match self {
            Step::Rename(from, to) => fs::rename(from, to).map_err(|e| named("rename", from, e)),
            Step::Remove(path) => match fs::remove_file(path) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => Err(named("remove", path, e)),
                _ => Ok(()),
            },
            Step::Sync => fs::File::open(dir).and_then(|dir| dir.sync_all()).map_err(|e| named("sync", dir, e)),
        }
    }
}

/// Runs all of them, or those before the first that fails.
pub fn run(dir: &Path, steps: &[Step]) -> io::Result<()> {
    steps.iter().try_for_each(|step| step.run(dir))
}

/// Finishes what was committed and clears away the rest; before the directory's segments are looked at.
pub fn recover(dir: &Path) -> io::Result<()> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        if let Some(name) = entry?.file_name().to_str() {
            names.push(name.to_owned());
        }
    }
    let bases =
        |extension: &str| -> Vec<i64> { names.iter().filter_map(|name| parse_segment_file(name, extension)).collect() };
    let (committed, logs) = (bases("log.swap"), bases("log"));
    for name in names.iter().filter(|name| name.ends_with(".cleaned")) {
        fs::remove_file(dir.join(name))?;
    }
    for base in &committed {
        let end = end_of(dir, *base)?;
        let old = logs.iter().copied().filter(|log| *log == *base || (*base..end).contains(log)).collect();
        let swap = Swap { dir: dir.to_path_buf(), base: *base, old };
        tracing::info!(dir = %dir.display(), base, end, "finishing the exchange of cleaned segments");
        for step in swap.replace() {
            match step.run(dir) {
                // The index files may have come to their place before.
                Err(e) if e.kind() == io::ErrorKind::NotFound && !names_a_log(&step) => {}
                done => done?,
            }
        }
        run(dir, &swap.remove())?;
    }
    // Without their log these belong to a commit that never was.
    for base in bases("index.swap").iter().chain(&bases("timeindex.swap")) {
        for extension in ["index.swap", "timeindex.swap"] {
            Step::Remove(segment_file(dir, *base, extension)).run(dir)?;
        }
    }
    if !committed.is_empty() {
        Step::Sync.run(dir)?;
    }
    Ok(())
}

fn names_a_log(step: &Step) -> bool {
    let is_log = |path: &Path| path.file_name().is_some_and(|name| name.to_string_lossy().ends_with(".log.swap"));
    matches!(step, Step::Rename(from, _) if is_log(from))
}

/// The offset after the last batch of `<base>.log.swap`.
fn end_of(dir: &Path, base: i64) -> io::Result<i64> {
    let path = segment_file(dir, base, "log.swap");
    let file = fs::File::open(&path).map_err(|e| named("open", &path, e))?;
    let size = file.metadata()?.len();
    // Its index has come to its own place already, or not.
    let read = |extension: &str| {
        let either = [format!("{extension}.swap"), extension.to_owned()];
        either.iter().find_map(|extension| fs::read(segment_file(dir, base, extension)).ok()).unwrap_or_default()
    };
    let index = SegmentIndex::decode(&read("index"), &read("timeindex"), size);
    let near_the_end = index.map_or(0, |index| index.position_at_or_before(u32::MAX));
    for start in [u64::from(near_the_end), 0] {
        if let Some(end) = walk(&file, start, size, base) {
            return Ok(end);
        }
    }
    let message = format!(
        "{}: a cleaned segment is damaged, and the segments it was made of may be gone: restore the file, or remove it if \
         {base:020}.log is there",
        path.display()
    );
    Err(io::Error::new(io::ErrorKind::InvalidData, message))
}

/// Steps from batch to batch; `None` when they do not end with the file.
fn walk(file: &fs::File, mut position: u64, size: u64, base: i64) -> Option<i64> {
    let mut end = base;
    while position < size {
        let mut bytes = [0; HEADER_BYTES];
        file.read_exact_at(&mut bytes, position).ok()?;
        let header = BatchHeader::peek(&bytes)?;
        let total = u64::try_from(header.total_bytes()).ok().filter(|total| *total >= HEADER_BYTES as u64)?;
        if header.magic != 2 || header.base() < end {
            return None;
        }
        end = header.next_offset();
        position += total;
    }
    (position == size).then_some(end)
}
