//! A file of a simulated disk, open for direct I/O.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;

use super::disk::{Go, os};
use super::shard::{later, on_disk, with_disk};
use super::tree::Ino;
use crate::runtime::disk::OpenMode;

pub(in crate::runtime) struct DirectFile {
    ino: Ino,
    path: PathBuf,
    read_only: bool,
}

/// The bytes that a file system of the current shard has free, and all; `None`: it is a real one.
pub(in crate::runtime) fn space() -> Option<(u64, u64)> {
    with_disk(|disk| disk.space())
}

impl DirectFile {
    pub(in crate::runtime) async fn open(path: &Path, mode: OpenMode) -> io::Result<DirectFile> {
        let owned = path.to_path_buf();
        let new = mode == OpenMode::CreateNew;
        let go = on_disk(|disk| disk.begin(if new { "create" } else { "open" }, path))?;
        let opened = later(go.slow, move || {
            on_disk(|disk| {
                go.outcome(())?;
                disk.open(&owned, new, new)
            })
        });
        Ok(DirectFile { ino: opened.await?, path: path.to_path_buf(), read_only: mode == OpenMode::Read })
    }

    /// [`open`](Self::open) of an existing file for blocking code.
    pub(in crate::runtime) fn open_now(path: &Path) -> io::Result<DirectFile> {
        let opened = on_disk(|disk| {
            disk.simple("open", path)?;
            disk.open(path, false, false)
        });
        Ok(DirectFile { ino: opened?, path: path.to_path_buf(), read_only: false })
    }

    /// [`read`](Self::read) for blocking code.
    pub(in crate::runtime) fn read_now(&self, position: u64, len: usize) -> io::Result<Vec<u8>> {
        let go = self.begin("read")?;
        let len = if go.short { len / 2 } else { len };
        on_disk(|disk| go.outcome(disk.read(self.ino, position, len).to_vec()))
    }

    fn begin(&self, operation: &str) -> io::Result<Go> {
        on_disk(|disk| disk.begin(operation, &self.path))
    }

    /// How much was written.
    pub(in crate::runtime) async fn write(
        &self,
        bytes: Vec<u8>,
        position: u64,
        held: impl Sized + 'static,
    ) -> io::Result<usize> {
        if self.read_only {
            return Err(os(libc::EBADF));
        }
        // Told apart in traces; batches are never all zeros.
        let operation = if bytes.iter().all(|byte| *byte == 0) { "write zeros" } else { "write" };
        let (go, ino) = (self.begin(operation)?, self.ino);
        on_disk(|disk| {
            disk.send(go.number, ino, position, bytes);
            Ok(())
        })?;
        later(go.slow, move || {
            let _held = held;
            on_disk(|disk| disk.land(&go))
        })
        .await
    }

    pub(in crate::runtime) async fn read(&self, position: u64, len: usize) -> io::Result<Bytes> {
        let (go, ino) = (self.begin("read")?, self.ino);
        later(go.slow, move || {
            on_disk(|disk| {
                let len = if go.short { len / 2 } else { len };
                go.outcome(Bytes::copy_from_slice(disk.read(ino, position, len)))
            })
        })
        .await
    }

    pub(in crate::runtime) async fn sync(&self) -> io::Result<()> {
        let (go, ino) = (self.begin("sync")?, self.ino);
        later(go.slow, move || on_disk(|disk| disk.sync(&go, ino))).await
    }

    /// Reserves blocks, and extends the file over them.
    pub(in crate::runtime) async fn reserve(&self, position: u64, len: u64) -> io::Result<()> {
        let (go, ino, end) = (self.begin("reserve")?, self.ino, position + len);
        later(go.slow, move || {
            on_disk(|disk| {
                go.outcome(())?;
                let before = disk.len(ino);
                disk.room_for(before, end)?;
                if end > before {
                    disk.tree.resize(ino, end);
                }
                Ok(())
            })
        })
        .await
    }

    pub(in crate::runtime) async fn truncate(&self, len: u64) -> io::Result<()> {
        let (go, ino) = (self.begin("truncate")?, self.ino);
        later(go.slow, move || {
            on_disk(|disk| {
                go.outcome(())?;
                disk.tree.resize(ino, len);
                Ok(())
            })
        })
        .await
    }

    pub(in crate::runtime) fn size(&self) -> io::Result<u64> {
        on_disk(|disk| Ok(disk.len(self.ino)))
    }

    pub(in crate::runtime) async fn close(&self) {
        later(Duration::ZERO, || ()).await;
    }
}
