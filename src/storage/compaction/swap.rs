//! A cleaned segment takes the place of the ones it was made of, on disk. Blocking steps that
//! a crash may end anywhere.
//!
//! Names are Kafka's. A cleaned segment is written as `<base>.{log,index,timeindex}.cleaned` and
//! synced. *Commit*: the three are renamed to `.swap`, the log last, and the directory is synced;
//! from then on the old segments are done for. *Replace*: the old logs but the one of the same base
//! are renamed to `.deleted`, then the `.swap` files take their final names, the log last, over the
//! old one. *Remove*: what is left of the old ones goes. Before the commit, the first segment's
//! index of aborted transactions gets those of all of them; readers pass over what belongs to other
//! segments. A start finds one of these states and
//! - without `<base>.log.swap`, clears away `.cleaned`, `.swap` and `.deleted`: either nothing or
//!   everything was replaced;
//! - with it, goes on from the commit: which segments it stands for is told by the offsets in it,
//!   because a cleaned segment keeps the end of its last batch;
//! - with a damaged one, goes back to before it, as long as the old segments are there.

use std::io;
use std::path::{Path, PathBuf};

use super::files::named;
use crate::runtime::fs;
use crate::storage::paths::{parse_segment_file, segment_file};
use crate::storage::rot::{self, Bounds};

const CLEANED: [&str; 3] = ["index.cleaned", "timeindex.cleaned", "log.cleaned"];
const SWAP: [&str; 3] = ["index.swap", "timeindex.swap", "log.swap"];
const FINAL: [&str; 3] = ["index", "timeindex", "log"];

/// One change of the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Rename(PathBuf, PathBuf),
    /// A file that is not there is no error.
    Remove(PathBuf),
    Sync,
}

/// The replacement of the segments at `old` (base offsets, the first of which is `base`) by
/// the cleaned one at `base`.
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
                ["index", "timeindex", "txnindex", "log.deleted"]
                    .map(|extension| Step::Remove(self.file(*old, extension)))
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

/// Finishes what was committed and clears away the rest; before the directory's
/// segments are looked at.
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
        Step::Remove(dir.join(name)).run(dir)?;
    }
    for base in &committed {
        let end = match end_of(dir, *base)? {
            // It ends where the next segment begins. A base offset lies outside the CRC; a wrong
            // one must not take away more.
            Some(end) if logs.contains(&end) || !logs.contains(base) => end,
            _ if logs.contains(base) => {
                undo(dir, *base, &names, &logs)?;
                continue;
            }
            // There is nothing else: what is sound of it is found when its segment is read.
            _ => *base,
        };
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

/// The offset after the last batch of `<base>.log.swap`; `None`: it is damaged.
fn end_of(dir: &Path, base: i64) -> io::Result<Option<i64>> {
    let path = segment_file(dir, base, "log.swap");
    let file = fs::File::open(&path).map_err(|e| named("open", &path, e))?;
    let size = file.metadata()?.len();
    let bounds =
        Bounds { size, from_offset: base, end_offset: i64::MAX, end_known: false, gap_at_end: true, reserved: false };
    let stretches = rot::survey(&file, 0, bounds).map_err(|e| named("read", &path, e))?;
    let read = stretches.last().map_or(0, |stretch| stretch.bytes.end);
    let sound = read == size && stretches.iter().all(|stretch| stretch.sound);
    Ok(sound.then(|| stretches.last().map_or(base, |stretch| stretch.offsets.end)))
}

/// Takes back the exchange of a cleaned segment that is damaged: the segments it was made of are
/// still there, those but the first perhaps under another name.
fn undo(dir: &Path, base: i64, names: &[String], logs: &[i64]) -> io::Result<()> {
    tracing::error!(
        dir = %dir.display(), segment = %segment_file(dir, base, "log.swap").display(),
        "a cleaned segment that was about to take its place is damaged: the segments it was made of stay, and are cleaned again"
    );
    // The cleaned segments before and behind this one were not made of the same.
    let next = logs.iter().copied().filter(|log| *log > base).min().unwrap_or(i64::MAX);
    let put_away = names.iter().filter_map(|name| parse_segment_file(name, "log.deleted"));
    for old in put_away.filter(|old| *old > base) {
        if old < next || !logs.contains(&old) {
            fs::rename(segment_file(dir, old, "log.deleted"), segment_file(dir, old, "log"))?;
        }
    }
    // The index may be the cleaned segment's already; it is made anew from the log.
    for extension in SWAP.iter().rev().chain(&["index", "timeindex"]) {
        Step::Remove(segment_file(dir, base, extension)).run(dir)?;
    }
    Step::Sync.run(dir)
}
