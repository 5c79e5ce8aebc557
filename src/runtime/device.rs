//! An open file: the kernel's, by this shard's ring and glommio, or in the simulator a simulated disk's.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::Bytes;
use glommio::GlommioError;
use glommio::io::{DmaFile, OpenOptions};

use super::disk::{OpenMode, PIECE_BYTES};
use super::dma::{DiskBuf, FrozenBuf};
use super::executor::spawn_blocking;
use super::pieces::Piece;
use super::ring;
#[cfg(any(test, feature = "simulator"))]
use super::sim;
use super::turn::Foreign;

/// Linux 6.17; not in libc yet.
const FALLOC_FL_WRITE_ZEROES: i32 = 0x80;

/// Memory that a write may be made from, in one slice or several: no byte of it changes while a clone is held.
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

fn cause_of(error: GlommioError<()>) -> io::Error {
    match error.raw_os_error() {
        Some(code) => io::Error::from_raw_os_error(code),
        None => error.into(),
    }
}

/// Shared, so that one operation can outlive a borrow of its file. Errors are the system's own.
#[derive(Clone)]
pub(super) enum Device {
    Kernel(Rc<DmaFile>),
    #[cfg(any(test, feature = "simulator"))]
    Simulated(Rc<sim::DirectFile>),
}

impl Device {
    pub(super) async fn open(path: &Path, mode: OpenMode) -> io::Result<Device> {
        #[cfg(any(test, feature = "simulator"))]
        if sim::is_current() {
            return Ok(Device::Simulated(Rc::new(sim::DirectFile::open(path, mode).await?)));
        }
        // glommio looks the name up again after opening and panics when it has gone by then. So the file is opened here, and
        // glommio opens it once more by its descriptor, which cannot be renamed or removed.
        let (owned, writes) = (path.to_path_buf(), mode != OpenMode::Read);
        let opened = spawn_blocking(move || {
            let mut options = std::fs::OpenOptions::new();
            options.read(true).write(writes).create_new(mode == OpenMode::CreateNew).open(owned)
        });
        let held = opened.await?;
        let by_descriptor = PathBuf::from(format!("/proc/self/fd/{}", held.as_raw_fd()));
        let mut options = OpenOptions::new();
        options.read(true).write(writes);
        let _foreign = Foreign::begin();
        match options.dma_open(&by_descriptor).await {
            Ok(file) => Ok(Device::Kernel(Rc::new(file))),
            Err(error) => {
                if mode == OpenMode::CreateNew {
                    // Or the next try would find it there. It is empty, and nobody else has it.
                    let made = path.to_path_buf();
                    let _ = spawn_blocking(move || std::fs::remove_file(made)).await;
                }
                Err(cause_of(error))
            }
        }
    }

    /// Writes what follows the first `done` bytes of the memory, which belongs at `position`; how much was written. `held`
    /// is dropped when the write has ended, also where nobody waits for it any more.
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
        // SAFETY: `Memory` never changes, and `kept` holds it; nor does the file close before `kept` goes.
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

    /// fallocate(2), on the shard's helper thread: glommio's own call can only reserve from the file's start.
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
                let _foreign = Foreign::begin();
                file.truncate(len).await.map_err(cause_of)
            }
            #[cfg(any(test, feature = "simulator"))]
            Device::Simulated(file) => file.truncate(len).await,
        }
    }

    /// Bytes of the file, and the number of its file system.
    pub(super) fn stat(&self) -> io::Result<(u64, u64)> {
        match self {
            Device::Kernel(file) => stat(file),
            #[cfg(any(test, feature = "simulator"))]
            Device::Simulated(file) => Ok((file.size()?, 0)),
        }
    }

    pub(super) async fn close(self) -> io::Result<()> {
        match self {
            Device::Kernel(file) => {
                let _foreign = Foreign::begin();
                match Rc::try_unwrap(file) {
                    Ok(file) => file.close().await.map_err(cause_of),
                    // A write that nobody waits for any more holds it, and closes it when it has ended.
                    Err(_) => Ok(()),
                }
            }
            #[cfg(any(test, feature = "simulator"))]
            Device::Simulated(file) => {
                file.close().await;
                Ok(())
            }
        }
    }
}

fn stat(file: &DmaFile) -> io::Result<(u64, u64)> {
    let mut stat = std::mem::MaybeUninit::<libc::stat>::uninit();
    // SAFETY: `fstat` fills the struct, which is read only after it reported success; the descriptor is open.
    #[allow(unsafe_code)]
    let stat = unsafe {
        if libc::fstat(file.as_raw_fd(), stat.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        stat.assume_init()
    };
    Ok((u64::try_from(stat.st_size).unwrap_or(0), stat.st_dev))
}

async fn read_piece(file: &Rc<DmaFile>, position: u64) -> io::Result<Bytes> {
    let piece = Piece::take()?;
    let memory = Box::new((piece.clone(), file.clone()));
    let address = piece.address();
    // SAFETY: `memory` holds the piece and the file; nobody has the piece's bytes before the end.
    #[allow(unsafe_code)]
    let read = unsafe { ring::read(file.as_raw_fd(), address, PIECE_BYTES as u32, position, memory).await? };
    Ok(piece.bytes(read))
}

async fn read_buf(file: &Rc<DmaFile>, position: u64, len: usize) -> io::Result<Bytes> {
    let mut buf = DiskBuf::alloc(len);
    let address = buf.as_mut_slice().as_mut_ptr();
    let buf = buf.freeze();
    let memory = Box::new((buf.clone(), file.clone()));
    // SAFETY: `memory` holds the buffer, of at most MAX_IO_BYTES, and the file; nobody has the buffer's bytes
    // before the end.
    #[allow(unsafe_code)]
    let read = unsafe { ring::read(file.as_raw_fd(), address, len as u32, position, memory).await? };
    Ok(buf.bytes().slice(..read))
}

async fn fallocate(file: &DmaFile, mode: i32, position: u64, len: u64) -> io::Result<()> {
    let too_far = |_| io::Error::from_raw_os_error(libc::EFBIG);
    let start = libc::off_t::try_from(position).map_err(too_far)?;
    let bytes = libc::off_t::try_from(len).map_err(too_far)?;
    // A descriptor of its own: the file may be closed before the helper thread comes to it.
    let descriptor = duplicate(file)?;
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

fn duplicate(file: &DmaFile) -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is open for as long as `file` lives, and only borrowed for this call.
    #[allow(unsafe_code)]
    let descriptor = unsafe { BorrowedFd::borrow_raw(file.as_raw_fd()) };
    descriptor.try_clone_to_owned()
}
