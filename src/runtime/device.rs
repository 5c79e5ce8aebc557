//! An open file: the kernel's, by this shard's ring, or in the simulator a simulated disk's.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::rc::Rc;

use bytes::Bytes;

use super::direct::{Blocks, pass_cache_by};
use super::disk::{ALIGNMENT, OpenMode, PIECE_BYTES};
use super::dma::{DiskBuf, FrozenBuf};
use super::executor::spawn_blocking;
use super::pieces::Piece;
use super::ring;
#[cfg(any(test, feature = "simulator"))]
use super::sim;
use super::sparse;

/// Linux 6.17; not in libc yet.
const FALLOC_FL_WRITE_ZEROES: i32 = 0x80;

/// Memory that a write may be made from, in one slice or several: no byte of it
/// changes while a clone is held.
pub(super) trait Memory: Clone + 'static {
    fn slices(&self) -> impl Iterator<Item = &[u8]>;

    fn bytes(&self) -> usize {
        self.slices().map(<[u8]>::len).sum()
    }
}

impl Memory for FrozenBuf {
    fn slices(&self) -> impl Iterator<Item = &[u8]> {
        std::iter::once(self.as_bytes())
    }
}

impl Memory for Rc<[Bytes]> {
    fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.iter().map(|bytes| &bytes[..])
    }
}

/// The rest of `slices` behind their first `done` bytes, for the kernel.
fn behind<'a>(slices: impl Iterator<Item = &'a [u8]>, mut done: usize) -> Vec<libc::iovec> {
    let rest = slices.filter_map(|slice| {
        let skipped = done.min(slice.len());
        done -= skipped;
        let rest = &slice[skipped..];
        let vector = libc::iovec { iov_base: rest.as_ptr().cast_mut().cast(), iov_len: rest.len() };
        (!rest.is_empty()).then_some(vector)
    });
    rest.collect()
}

/// An open file that is on no shard yet. Its operations block.
pub(super) enum Handle {
    Kernel(File),
    #[cfg(any(test, feature = "simulator"))]
    Simulated(sim::DirectFile),
}

impl Handle {
    /// The longest read.
    pub(super) const READ_BYTES: usize = 4 * ALIGNMENT as usize;

    /// Opens an existing file for reads and writes.
    pub(super) fn open(path: &Path) -> io::Result<Handle> {
        #[cfg(any(test, feature = "simulator"))]
        if sim::is_current() {
            return Ok(Handle::Simulated(sim::DirectFile::open_now(path)?));
        }
        Ok(Handle::Kernel(open_directly(path, OpenMode::ReadWrite)?))
    }

    /// Up to `len` bytes at an aligned `position`, at most [`READ_BYTES`](Self::READ_BYTES).
    pub(super) fn read(&self, position: u64, len: usize) -> io::Result<Vec<u8>> {
        match self {
            Handle::Kernel(file) => {
                let mut blocks = Blocks::zeroed(len);
                let read = file.read_at(blocks.as_mut_slice(), position)?;
                Ok(blocks.as_slice()[..read].to_vec())
            }
            #[cfg(any(test, feature = "simulator"))]
            Handle::Simulated(file) => file.read_now(position, len),
        }
    }

    /// The place from which on nothing but zeros is known to follow; `None`: it cannot be told.
    pub(super) fn zeros_from(&self, position: u64) -> Option<u64> {
        match self {
            Handle::Kernel(file) => sparse::zeros_from(file, position),
            #[cfg(any(test, feature = "simulator"))]
            Handle::Simulated(_) => None,
        }
    }
}

/// Opens a file whose reads and writes pass the page cache by, where the file system can do that.
fn open_directly(path: &Path, mode: OpenMode) -> io::Result<File> {
    let new = mode == OpenMode::CreateNew;
    let file = OpenOptions::new().read(true).write(mode != OpenMode::Read).create_new(new).open(path)?;
    match pass_cache_by(&file) {
        Ok(()) => Ok(file),
        Err(error) => {
            if new {
                // Or the next try would find it there. It is empty, and nobody else has it.
                let _ = std::fs::remove_file(path);
            }
            Err(error)
        }
    }
}

/// Shared, so that one operation can outlive a borrow of its file. Errors are the system's own.
#[derive(Clone)]
pub(super) enum Device {
    Kernel(Rc<File>),
    #[cfg(any(test, feature = "simulator"))]
    Simulated(Rc<sim::DirectFile>),
}

impl From<Handle> for Device {
    fn from(handle: Handle) -> Device {
        match handle {
            Handle::Kernel(file) => Device::Kernel(Rc::new(file)),
            #[cfg(any(test, feature = "simulator"))]
            Handle::Simulated(file) => Device::Simulated(Rc::new(file)),
        }
    }
}

impl Device {
    pub(super) async fn open(path: &Path, mode: OpenMode) -> io::Result<Device> {
        #[cfg(any(test, feature = "simulator"))]
        if sim::is_current() {
            return Ok(Device::Simulated(Rc::new(sim::DirectFile::open(path, mode).await?)));
        }
        let owned = path.to_path_buf();
        let opened = spawn_blocking(move || open_directly(&owned, mode));
        Ok(Device::Kernel(Rc::new(opened.await?)))
    }

    /// Writes what follows the first `done` bytes of the memory, which belongs at
    /// `position`; how much was written. `held` is dropped when the write has ended, also
    /// where nobody waits for it any more.
    pub(super) async fn write<M: Memory>(
        &self,
        memory: &M,
        done: usize,
        position: u64,
        held: impl Sized + 'static,
    ) -> io::Result<usize> {
        let position = position + done as u64;
        let kept = Box::new((memory.clone(), self.clone(), held));
        let file = match self {
            Device::Kernel(file) => file.as_raw_fd(),
            #[cfg(any(test, feature = "simulator"))]
            Device::Simulated(file) => {
                let bytes = memory.slices().collect::<Vec<_>>().concat().split_off(done);
                return file.write(bytes, position, kept).await;
            }
        };
        let mut rest = behind(memory.slices(), done);
        // SAFETY: `Memory` never changes, and `kept` holds it; nor does the file
        // close before `kept` goes.
        #[allow(unsafe_code)]
        unsafe {
            match (rest.pop(), rest.is_empty()) {
                (Some(only), true) => {
                    ring::write(file, only.iov_base as *const u8, only.iov_len as u32, position, kept).await
                }
                (Some(last), false) => {
                    rest.push(last);
                    ring::write_vectored(file, rest, position, kept).await
                }
                (None, _) => Ok(0),
            }
        }
    }

    pub(super) async fn read(&self, position: u64, len: usize) -> io::Result<Bytes> {
        match self {
            Device::Kernel(file) if len == PIECE_BYTES => read_piece(file, position).await,
            Device::Kernel(file) => read_buf(file, position, len).await,
            #[cfg(any(test, feature = "simulator"))]
            Device::Simulated(file) => file.read(position, len).await,
        }
    }

    pub(super) async fn fdatasync(&self) -> io::Result<()> {
        match self {
            Device::Kernel(file) => ring::fdatasync(file.as_raw_fd(), Box::new(file.clone())).await,
            #[cfg(any(test, feature = "simulator"))]
            Device::Simulated(file) => file.sync().await,
        }
    }

    /// fallocate(2), on the shard's helper thread.
    pub(super) async fn reserve(&self, position: u64, len: u64) -> io::Result<()> {
        match self {
            Device::Kernel(file) => fallocate(file, 0, position, len).await,
            #[cfg(any(test, feature = "simulator"))]
            Device::Simulated(file) => file.reserve(position, len).await,
        }
    }

    /// Zeros that the device writes by itself; EOPNOTSUPP or EINVAL where it cannot.
    pub(super) async fn write_zeroes(&self, position: u64, len: u64) -> io::Result<()> {
        match self {
            Device::Kernel(file) => fallocate(file, FALLOC_FL_WRITE_ZEROES, position, len).await,
            #[cfg(any(test, feature = "simulator"))]
            Device::Simulated(_) => Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
        }
    }

    pub(super) async fn truncate(&self, len: u64) -> io::Result<()> {
        match self {
            Device::Kernel(file) => {
                // A descriptor of its own: the file may be closed before the
                // helper thread comes to it.
                let descriptor = file.try_clone()?;
                spawn_blocking(move || descriptor.set_len(len)).await
            }
            #[cfg(any(test, feature = "simulator"))]
            Device::Simulated(file) => file.truncate(len).await,
        }
    }

    /// Bytes of the file, and the number of its file system.
    pub(super) fn stat(&self) -> io::Result<(u64, u64)> {
        match self {
            Device::Kernel(file) => file.metadata().map(|found| (found.len(), found.dev())),
            #[cfg(any(test, feature = "simulator"))]
            Device::Simulated(file) => Ok((file.size()?, 0)),
        }
    }

    pub(super) async fn close(self) -> io::Result<()> {
        match self {
            Device::Kernel(file) => {
                // A write that nobody waits for any more holds it, and closes it when it has ended.
                if let Ok(file) = Rc::try_unwrap(file) {
                    spawn_blocking(move || drop(file)).await;
                }
                Ok(())
            }
            #[cfg(any(test, feature = "simulator"))]
            Device::Simulated(file) => {
                file.close().await;
                Ok(())
            }
        }
    }
}

async fn read_piece(file: &Rc<File>, position: u64) -> io::Result<Bytes> {
    let piece = Piece::take()?;
    let memory = Box::new((piece.clone(), file.clone()));
    let address = piece.address();
    // SAFETY: `memory` holds the piece and the file; nobody has the piece's bytes before the end.
    #[allow(unsafe_code)]
    let read = unsafe { ring::read(file.as_raw_fd(), address, PIECE_BYTES as u32, position, memory).await? };
    Ok(piece.bytes(read))
}

async fn read_buf(file: &Rc<File>, position: u64, len: usize) -> io::Result<Bytes> {
    let mut buf = DiskBuf::alloc(len);
    let address = buf.as_mut_slice().as_mut_ptr();
    let buf = buf.freeze();
    let memory = Box::new((buf.clone(), file.clone()));
    // SAFETY: `memory` holds the buffer, of at most MAX_IO_BYTES, and the file; nobody has the
    // buffer's bytes before the end.
    #[allow(unsafe_code)]
    let read = unsafe { ring::read(file.as_raw_fd(), address, len as u32, position, memory).await? };
    Ok(buf.bytes().slice(..read))
}

async fn fallocate(file: &File, mode: i32, position: u64, len: u64) -> io::Result<()> {
    let too_far = |_| io::Error::from_raw_os_error(libc::EFBIG);
    let start = libc::off_t::try_from(position).map_err(too_far)?;
    let bytes = libc::off_t::try_from(len).map_err(too_far)?;
    // A descriptor of its own: the file may be closed before the helper thread comes to it.
    let descriptor = file.try_clone()?;
    spawn_blocking(move || {
        loop {
            // SAFETY: plain system call on a descriptor that is open until the closure ends.
            #[allow(unsafe_code)]
            let result = unsafe { libc::fallocate(descriptor.as_raw_fd(), mode, start, bytes) };
            if result == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    })
    .await
}
