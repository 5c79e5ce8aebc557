//! Small files beside the log, read and replaced whole, off the event loop.

use std::fs;
use std::io;
use std::path::Path;

use crate::runtime::spawn_blocking;

/// The text of `<dir>/<name>`; `None`: there is none. What is not UTF-8 comes as replacement characters, which no format here
/// takes for its own.
pub async fn read(dir: &Path, name: &str) -> io::Result<Option<String>> {
    let path = dir.join(name);
    spawn_blocking(move || match fs::read(path) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    })
    .await
}

/// Replaces `<dir>/<name>`: after a crash of the process it is the old or the new one. Not synced: only for what can be
/// made again.
pub async fn replace(dir: &Path, name: &str, text: String) -> io::Result<()> {
    let (temporary, path) = (dir.join(format!("{name}.tmp")), dir.join(name));
    spawn_blocking(move || {
        fs::write(&temporary, text)?;
        fs::rename(temporary, path)
    })
    .await
}
