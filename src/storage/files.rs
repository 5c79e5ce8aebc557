//! Small files beside the log, read and replaced whole, off the event loop; and what to do
//! while no file can be opened.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

pub use crate::runtime::disk::is_full;
use crate::runtime::disk::{is_out_of_descriptors, write_small};
use crate::runtime::sync::LocalMutex;
use crate::runtime::{clock, fs, spawn_blocking};

/// How long a step waits for descriptors.
const PAUSE: Duration = Duration::from_millis(50);
const TRIES: u32 = 200;

/// Runs a step that opens files, and again for ten seconds while there are no descriptors: a flood
/// of connections passes, and giving up would take the partition offline.
pub async fn retry_on_fd_exhaustion<T>(mut step: impl AsyncFnMut() -> io::Result<T>) -> io::Result<T> {
    let mut tries = 0;
    loop {
        match step().await {
            Err(error) if is_out_of_descriptors(&error) && tries < TRIES => {
                tries += 1;
                clock::sleep(PAUSE).await;
            }
            outcome => return outcome,
        }
    }
}

/// The directory's entries are on the device afterwards.
pub async fn sync_dir(dir: PathBuf) -> io::Result<()> {
    retry_on_fd_exhaustion(async || {
        let dir = dir.clone();
        spawn_blocking(move || fs::File::open(dir)?.sync_all()).await
    })
    .await
}

/// The text of `<dir>/<name>`; `None`: there is none. What is not UTF-8 comes as replacement
/// characters, which no format here takes for its own.
pub async fn read(dir: &Path, name: &str) -> io::Result<Option<String>> {
    let path = dir.join(name);
    spawn_blocking(move || read_text(&path)).await
}

/// [`read`] of the file at `path`. Blocks.
pub(super) fn read_text(path: &Path) -> io::Result<Option<String>> {
    match read_small(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(super::compaction::named("read", path, e)),
    }
}

/// The contents of a file that is small as a rule, in as few system calls as that takes. Blocks.
pub fn read_small(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = fs::File::open(path)?;
    let (mut contents, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(contents),
            Ok(count) => contents.extend_from_slice(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

/// Removes what a failed write has left: on a full disk it holds the room that
/// the next try needs. Blocks.
pub(super) fn drop_leftover(temporary: &Path) {
    let _ = fs::remove_file(temporary);
}

/// A small file that several may replace: one does at a time.
pub struct Replaced(Rc<LocalMutex>);

impl Default for Replaced {
    fn default() -> Replaced {
        Replaced(LocalMutex::new(1))
    }
}

impl Replaced {
    /// [`replace`] by the `text` of when the turn comes.
    pub async fn replace(&self, dir: &Path, name: &str, text: impl FnOnce() -> String) -> io::Result<()> {
        let _one = self.0.acquire(1).await;
        replace(dir, name, text()).await
    }
}

/// Replaces `<dir>/<name>`: after a crash of the process it is the old or the new one. Not synced:
/// only for what can be made again.
pub async fn replace(dir: &Path, name: &str, text: String) -> io::Result<()> {
    let (temporary, path) = (dir.join(format!("{name}.tmp")), dir.join(name));
    let target = path.clone();
    write_small(&target, move || {
        let replaced = fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, path));
        replaced.inspect_err(|_| drop_leftover(&temporary))
    })
    .await
}
