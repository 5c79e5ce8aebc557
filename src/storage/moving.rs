//! Moving of a log to another data directory. Files are copied while the log goes on: first the
//! segments that take no more appends, then, once the log is closed, all that has changed. Bytes go
//! through the page cache, a step at a time on a helper thread. Then the copy takes the log's name.
//!
//! Names on disk: the copy is `<name>.<tag>-future`, which a start removes. Once it is whole it is
//! `<name>.<tag>-moved`; the original becomes `<name>.<tag>-delete`, and the copy `<name>`. So
//! there is one log at any moment: where the original has its name it is that, and a start removes
//! the copy; otherwise it is the copy, to which a start gives the name.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::log::{Log, StorageError};
use super::maintenance::remove_dir;
use super::paths::{DELETED_SUFFIX, FUTURE_SUFFIX, MOVED_SUFFIX, SEGMENT_FILES};
use crate::runtime::fs::{self, Stamp};
use crate::runtime::{clock, spawn_blocking};

/// Bytes of one step.
const STEP_BYTES: usize = 4 << 20;
/// Time between two looks whether a cleaning has ended.
const ENDING_PAUSE: Duration = Duration::from_millis(5);
/// A file that was changed less long ago may change once more and show the same time:
/// clocks of file systems tick.
const CLOCK_TICK: Duration = Duration::from_millis(50);
/// Files that are of no use in a copy: on their way out, or not in use yet.
const PASSING: [&str; 4] = ["deleted", "cleaned", "swap", "tmp"];

impl Log {
    /// Segments that take no more appends and are synced: base offset and bytes, oldest first.
    pub fn sealed_segments(&self) -> Vec<(i64, u64)> {
        let segments = self.segments.borrow();
        let sealed = segments.values().take_while(|segment| segment.sealed.get() && segment.is_on_disk());
        sealed.map(|segment| (segment.base_offset, segment.size.get())).collect()
    }

    /// Has the active segment sealed, if there is anything in it, and waits for it.
    pub async fn seal_active(self: &Rc<Self>) -> Result<(), StorageError> {
        let _one = self.maintenance.acquire(1).await;
        self.check_open()?;
        let active = self.active();
        if active.size.get() > 0 {
            self.roll(&active);
        }
        self.wait_sealed().await
    }

    /// Closes the log cleanly; nobody gets at its directory by path any more.
    pub async fn close_to_move(self: &Rc<Self>, sidecar: impl FnOnce() -> Vec<u8>) -> Result<(), StorageError> {
        self.closing.set(true);
        // A cleaning sees that and ends.
        while self.clean.is_running() {
            clock::sleep(ENDING_PAUSE).await;
        }
        if let Err(error) = self.close(sidecar).await {
            if error.is_full() {
                // It is closed by half: it goes on once it is opened anew.
                self.fail("closing the log", &io::ErrorKind::StorageFull.into());
            }
            return Err(error);
        }
        self.dir.retire().await;
        self.context.cold.forget_log(self.number);
        Ok(())
    }
}

/// Any later change shows.
fn is_settled(stamp: &Stamp) -> bool {
    let since_epoch = stamp.modified.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    clock::wall_ms() - i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX) > CLOCK_TICK.as_millis() as i64
}

/// The copy of a log's directory in another one, which it makes.
pub struct DirCopy {
    from: PathBuf,
    to: PathBuf,
    copied: HashMap<OsString, Stamp>,
}

impl DirCopy {
    /// Makes the directory `to`.
    pub async fn begin(from: PathBuf, to: PathBuf) -> io::Result<DirCopy> {
        let (source, dir) = (from.clone(), to.clone());
        let made = move || {
            for name in names_in(&source)? {
                let path = source.join(name);
                // A file may have gone meanwhile.
                if fs::metadata(&path).is_ok_and(|metadata| metadata.is_dir()) {
                    let why = format!("{} is a directory, and none of a partition's files", path.display());
                    return Err(io::Error::new(io::ErrorKind::IsADirectory, why));
                }
            }
            fs::create_dir(dir)
        };
        spawn_blocking(made).await?;
        Ok(DirCopy { from, to, copied: HashMap::new() })
    }

    /// Waits until later changes of the files would show.
    pub async fn settle() {
        clock::sleep(CLOCK_TICK * 2).await;
    }

    /// Copies a sealed segment's files, unless they are there as they are now. `next`: asked before
    /// each step, with its bytes, whether to go on. `false`: no, or the segment has gone meanwhile.
    pub async fn segment(&mut self, base_offset: i64, next: &impl AsyncFn(usize) -> bool) -> io::Result<bool> {
        for extension in SEGMENT_FILES {
            let name = OsString::from(format!("{base_offset:020}.{extension}"));
            match self.file(&name, next).await {
                Ok(true) => {}
                Ok(false) => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::NotFound && extension != "log" => {}
                // Taken away, or cut back.
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => {
                    return Ok(false);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Bytes of those segments that have been replaced since they were copied, or were not copied.
    pub async fn outdated(&self, segments: Vec<(i64, u64)>) -> u64 {
        let (from, copied) = (self.from.clone(), self.copied.clone());
        let is_copied = move |base_offset: i64| {
            SEGMENT_FILES.iter().all(|extension| {
                let name = OsString::from(format!("{base_offset:020}.{extension}"));
                let now = fs::metadata(from.join(&name)).and_then(|metadata| Stamp::of(&metadata)).ok();
                now.is_none_or(|now| copied.get(&name) == Some(&now))
            })
        };
        let look = move || segments.iter().filter(|(base, _)| !is_copied(*base)).map(|(_, bytes)| bytes).sum();
        spawn_blocking(look).await
    }

    /// Makes the copy that of a log which is closed: copies what is not there as it is, removes
    /// what is not in the log's directory, and syncs the copy. `false`: `next` said no.
    pub async fn finish(&mut self, next: &impl AsyncFn(usize) -> bool) -> io::Result<bool> {
        let from = self.from.clone();
        let names = spawn_blocking(move || names_in(&from)).await?;
        let passing = |name: &OsString| {
            Path::new(name).extension().and_then(OsStr::to_str).is_some_and(|extension| PASSING.contains(&extension))
        };
        let wanted: Vec<OsString> = names.into_iter().filter(|name| !passing(name)).collect();
        let to = self.to.clone();
        for name in spawn_blocking(move || names_in(&to)).await? {
            if !wanted.contains(&name) {
                let path = self.to.join(&name);
                spawn_blocking(move || fs::remove_file(path)).await?;
            }
        }
        for name in &wanted {
            if !self.file(name, next).await? {
                return Ok(false);
            }
        }
        let to = self.to.clone();
        spawn_blocking(move || fs::File::open(to)?.sync_all()).await?;
        Ok(true)
    }

    async fn file(&mut self, name: &OsStr, next: &impl AsyncFn(usize) -> bool) -> io::Result<bool> {
        let (from, to) = (self.from.join(name), self.to.join(name));
        let known = self.copied.get(name).copied();
        let opened = spawn_blocking(move || {
            let source = fs::File::open(from)?;
            let stamp = Stamp::of(&source.metadata()?)?;
            if known == Some(stamp) {
                return Ok(None);
            }
            let target = fs::OpenOptions::new().write(true).create(true).truncate(true).open(to)?;
            io::Result::Ok(Some((source, target, stamp)))
        });
        let Some((source, target, stamp)) = opened.await? else { return Ok(true) };
        self.copied.remove(name);
        let settled = is_settled(&stamp);
        let (source, target) = (Arc::new(source), Arc::new(target));
        let mut at = 0;
        while at < stamp.bytes {
            let bytes = usize::try_from(stamp.bytes - at).unwrap_or(usize::MAX).min(STEP_BYTES);
            if !next(bytes).await {
                return Ok(false);
            }
            let (source, target) = (source.clone(), target.clone());
            spawn_blocking(move || {
                let mut buffer = vec![0; bytes];
                source.read_exact_at(&mut buffer, at)?;
                target.write_all_at(&buffer, at)
            })
            .await?;
            at += bytes as u64;
        }
        spawn_blocking(move || target.sync_all()).await?;
        if settled {
            self.copied.insert(name.to_owned(), stamp);
        }
        Ok(true)
    }
}

/// How a copy did not take the place of its original.
#[derive(Debug)]
pub enum NotExchanged {
    /// The original has its name.
    Kept(io::Error),
    /// Which of the two a start will find is not certain; both hold the same.
    Unknown(io::Error),
}

/// Has a whole copy take the place of its original, whose log is closed. `sync` syncs a data
/// directory. Returns the copy's directory, and that of the original, which is to be removed.
pub async fn exchange(
    from: &Path,
    future: &Path,
    sync: impl AsyncFn(&Path) -> io::Result<()>,
) -> Result<(PathBuf, PathBuf), NotExchanged> {
    let named = |suffix: &str| {
        let name = future.file_name().unwrap_or_default().to_string_lossy();
        format!("{}{suffix}", name.strip_suffix(FUTURE_SUFFIX).unwrap_or(&name))
    };
    let moved = future.with_file_name(named(MOVED_SUFFIX));
    let doomed = from.with_file_name(named(DELETED_SUFFIX));
    let dir = future.with_file_name(from.file_name().unwrap_or_default());
    let (old_root, new_root) = (from.parent().unwrap_or(from), future.parent().unwrap_or(future));
    let offered = async {
        vacant(&dir).await?;
        rename(future, &moved).await?;
        sync(new_root).await?;
        rename(from, &doomed).await
    };
    if let Err(error) = offered.await {
        withdraw(&moved, future).await;
        return Err(NotExchanged::Kept(error));
    }
    let placed = async {
        sync(old_root).await?;
        rename(&moved, &dir).await
    };
    if let Err(error) = placed.await {
        // The copy keeps its name until the original has its own on the device.
        let back = async {
            rename(&doomed, from).await?;
            sync(old_root).await
        };
        if let Err(second) = back.await {
            return Err(NotExchanged::Unknown(io::Error::new(error.kind(), format!("{error}; and then: {second}"))));
        }
        withdraw(&moved, future).await;
        return Err(NotExchanged::Kept(error));
    }
    // From here on the copy is the log, whatever fails: a start that finds it under its
    // former name gives it this one.
    if let Err(error) = sync(new_root).await {
        tracing::warn!(dir = %new_root.display(), %error, "the move is not synced");
    }
    Ok((dir, doomed))
}

/// Takes a copy back whose original goes on: no start may take it for the log.
async fn withdraw(moved: &Path, future: &Path) {
    let outcome = match rename(moved, future).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => remove_dir(moved).await,
        _ => return,
    };
    if let Err(error) = outcome {
        tracing::warn!(dir = %moved.display(), %error, "a copy that is not needed stays until the next start");
    }
}

async fn vacant(path: &Path) -> io::Result<()> {
    let looked = path.to_path_buf();
    match spawn_blocking(move || fs::metadata(looked).map(drop)).await {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} is there already", path.display()))),
    }
}

async fn rename(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (from.to_path_buf(), to.to_path_buf());
    spawn_blocking(move || fs::rename(from, to)).await
}

/// Blocks.
fn names_in(dir: &Path) -> io::Result<Vec<OsString>> {
    fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name())).collect()
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::fs;

    use super::*;
    use crate::runtime::{on_shard, scratch};

    #[test]
    fn a_copy_follows_what_has_changed() {
        let root = scratch();
        let (from, to) = (root.path().join("t-0"), root.path().join("copy"));
        fs::create_dir(&from).unwrap();
        let big = vec![7; STEP_BYTES * 2 + 5];
        let segment = "00000000000000000000.log";
        fs::write(from.join(segment), &big).unwrap();
        fs::write(from.join("checkpoint"), "old").unwrap();
        let all = move |dir: &Path| {
            let mut names = names_in(dir).unwrap();
            names.sort();
            names.into_iter().map(|name| (fs::read(dir.join(&name)).unwrap(), name)).collect::<Vec<_>>()
        };
        on_shard(move || {
            let (from, to, big) = (from.clone(), to.clone(), big.clone());
            async move {
                let mut copy = DirCopy::begin(from.clone(), to.clone()).await.unwrap();
                DirCopy::settle().await;
                let steps = Cell::new(0);
                let two_steps = async |_| steps.replace(steps.get() + 1) < 2;
                assert!(!copy.segment(0, &two_steps).await.unwrap(), "it was told to end");
                assert!(copy.segment(0, &async |_| true).await.unwrap());
                assert_eq!(fs::read(to.join(segment)).unwrap(), big);
                assert!(!copy.segment(9, &async |_| true).await.unwrap(), "there is no such segment");
                // Changed a moment ago: a change in the same tick would not
                // show, so it is copied again.
                let young = from.join("00000000000000000005.log");
                fs::write(&young, "one").unwrap();
                assert!(copy.segment(5, &async |_| true).await.unwrap());
                assert!(!copy.segment(5, &async |_| false).await.unwrap());
                fs::remove_file(young).unwrap();
                // Cut back while it is copied: it comes again with what is left.
                let shrinking = from.join("00000000000000000007.log");
                fs::write(&shrinking, &big).unwrap();
                let cut_back = async |_| {
                    fs::write(&shrinking, "seven").unwrap();
                    true
                };
                assert!(!copy.segment(7, &cut_back).await.unwrap());
                assert!(copy.segment(7, &async |_| true).await.unwrap());
                // Nothing has changed: not a step.
                assert!(copy.segment(0, &async |_| false).await.unwrap());
                // Written anew under its name, as cleaning does; a new one; and what is of no use.
                fs::write(from.join("new"), "cleaned").unwrap();
                fs::rename(from.join("new"), from.join(segment)).unwrap();
                fs::write(from.join("00000000000000000009.log"), "nine").unwrap();
                fs::write(from.join("00000000000000000009.log.deleted"), "nine").unwrap();
                fs::write(to.join("00000000000000000003.log"), "retention took it").unwrap();
                assert!(copy.finish(&async |_| true).await.unwrap());
                fs::remove_file(from.join("00000000000000000009.log.deleted")).unwrap();
                assert_eq!(all(&to), all(&from));
                assert!(DirCopy::begin(from.clone(), to).await.is_err(), "the copy is somebody's");
                fs::create_dir(from.join("mine")).unwrap();
                let refused = DirCopy::begin(from.clone(), from.with_file_name("c")).await.err().unwrap();
                assert!(refused.to_string().contains("mine is a directory"), "{refused}");
            }
        });
    }
}
