//! Writing behind: what was received goes to a file in large groups, after it was acknowledged.

use std::cell::{Cell, RefCell};
use std::io;
use std::path::Path;
use std::rc::Rc;

use crate::runtime::disk::{DiskBuf, File, MAX_IO_BYTES, OpenMode};
use crate::runtime::spawn_local;
use crate::runtime::sync::Notify;

/// The file is written from its start again once it is this long.
const FILE_BYTES: u64 = 1 << 30;
/// Groups on their way to the device; further bytes wait in the sockets.
const MAX_WRITES: usize = 32;

pub struct Behind {
    file: File,
    /// The group that is being filled, and how far.
    group: RefCell<DiskBuf>,
    filled: Cell<usize>,
    position: Cell<u64>,
    writes: Cell<usize>,
    ended: Notify,
    checksum: Cell<u32>,
    failed: RefCell<Option<io::Error>>,
}

impl Behind {
    /// On a file made new, with all its blocks reserved.
    pub async fn new(path: &Path) -> io::Result<Rc<Behind>> {
        let file = File::open(path, OpenMode::CreateNew).await?;
        file.preallocate(0, FILE_BYTES).await?;
        Ok(Rc::new(Behind {
            file,
            group: RefCell::new(DiskBuf::alloc(MAX_IO_BYTES)),
            filled: Cell::new(0),
            position: Cell::new(0),
            writes: Cell::new(0),
            ended: Notify::new(),
            checksum: Cell::new(0),
            failed: RefCell::default(),
        }))
    }

    /// Takes bytes: checksum, copy, and a write once the group is full.
    pub async fn take(self: &Rc<Behind>, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            if let Some(error) = self.failed.borrow_mut().take() {
                return Err(error);
            }
            let filled = self.filled.get();
            let (now, rest) = bytes.split_at(bytes.len().min(MAX_IO_BYTES - filled));
            self.checksum.set(crc32c::crc32c_append(self.checksum.get(), now));
            self.group.borrow_mut().as_mut_slice()[filled..filled + now.len()].copy_from_slice(now);
            self.filled.set(filled + now.len());
            bytes = rest;
            if self.filled.get() == MAX_IO_BYTES {
                self.write();
                while self.writes.get() >= MAX_WRITES {
                    self.ended.notified().await;
                }
            }
        }
        Ok(())
    }

    fn write(self: &Rc<Behind>) {
        let group = self.group.replace(DiskBuf::alloc(MAX_IO_BYTES)).freeze();
        let position = self.position.get();
        self.filled.set(0);
        self.position.set((position + MAX_IO_BYTES as u64) % FILE_BYTES);
        self.writes.set(self.writes.get() + 1);
        let behind = self.clone();
        spawn_local(async move {
            if let Err(error) = behind.file.write_at(&group, position).await {
                *behind.failed.borrow_mut() = Some(error);
            }
            behind.writes.set(behind.writes.get() - 1);
            behind.ended.notify_all();
        });
    }
}
