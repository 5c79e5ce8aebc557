//! Files through the shard's ring with direct I/O, and the aligned buffers they need.
//!
//! Lives on one shard; only [`Bytes`] made here may travel to other shards.
//!
//! A future of this module that is dropped before its end leaves the operation's outcome open:
//! await writes to their end.

use std::cell::Cell;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;

use super::clock;
use super::context;
use super::device::{Device, Handle, Memory};
pub use super::dma::{DiskBuf, FrozenBuf, drain_returns};
use super::executor::spawn_blocking;
use super::faults::{self, Fault, Op};
pub use super::pieces::PIECE_BYTES;
use super::probe;
#[cfg(any(test, feature = "simulator"))]
use super::sim;
use super::sync::Notify;

/// Alignment of positions, lengths and memory for direct I/O, bytes.
pub const ALIGNMENT: u64 = 4096;

/// The largest single read or write, bytes.
pub const MAX_IO_BYTES: usize = 1024 * 1024;
const _: () = assert!((MAX_IO_BYTES as u64).is_multiple_of(ALIGNMENT));

/// Rounds up to [`ALIGNMENT`].
pub fn align_up(value: u64) -> u64 {
    value.next_multiple_of(ALIGNMENT)
}

/// Rounds down to [`ALIGNMENT`].
pub fn align_down(value: u64) -> u64 {
    value / ALIGNMENT * ALIGNMENT
}

/// The operation that failed, and its file. Inside the `io::Error`s of this module; its kind is the
/// cause's.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}: {cause}", path.display())]
struct FileError {
    operation: &'static str,
    path: PathBuf,
    cause: io::Error,
}

/// The operating system's error code behind an error of this module, or behind a plain one.
pub fn os_code(error: &io::Error) -> Option<i32> {
    error.raw_os_error().or_else(|| {
        let inner = error.get_ref()?.downcast_ref::<FileError>()?;
        inner.cause.raw_os_error()
    })
}

/// True if an error says that the process or the system has no descriptors left.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(os_code(error), Some(libc::EMFILE | libc::ENFILE))
}

/// True if an error says that the device, or the quota on it, is full: the one failure of a disk
/// that passes by itself. Goes by the kind, which errors keep when a path is added to them.
pub fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Runs blocking `work` that writes the small file at `path`, off the event loop. Injected faults
/// know it as [`Op::Small`].
pub async fn write_small<T: Send + 'static>(
    path: &Path,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    faults::load();
    match faults::check(Op::Small, path) {
        None => {}
        Some(Fault::Slow(ms)) => clock::sleep(Duration::from_millis(ms)).await,
        Some(fault) => return Err(file_error("write", path, fault.error())),
    }
    spawn_blocking(work).await
}

/// Bytes that this user may still write to the file system of `directory`, and its size.
pub async fn space(directory: &Path) -> io::Result<(u64, u64)> {
    faults::load();
    let none_left = matches!(faults::check(Op::Space, directory), Some(Fault::Os(_)));
    #[cfg(any(test, feature = "simulator"))]
    if let Some((free, total)) = sim::space() {
        return Ok((if none_left { 0 } else { free }, total));
    }
    let owned = directory.to_path_buf();
    let (free, total) = spawn_blocking(move || probe::space(&owned)).await?;
    Ok((if none_left { 0 } else { free }, total))
}

fn file_error(operation: &'static str, path: &Path, cause: io::Error) -> io::Error {
    io::Error::new(cause.kind(), FileError { operation, path: path.to_owned(), cause })
}

/// How to open a [`File`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// Existing file, reads only.
    Read,
    /// Existing file, reads and writes.
    ReadWrite,
    /// Made new for reads and writes; an existing one is an error.
    CreateNew,
}

/// A file open for direct I/O on this shard.
pub struct File {
    device: Device,
    path: Rc<Path>,
    writes: Rc<Writes>,
}

/// Writes of one file that the kernel has not ended.
#[derive(Default)]
struct Writes {
    in_flight: Cell<usize>,
    ended: Notify,
}

impl Writes {
    fn begin(self: &Rc<Self>) -> Writing {
        self.in_flight.set(self.in_flight.get() + 1);
        Writing(self.clone())
    }

    /// File systems hold changes of a file's blocks back until its direct writes have ended. On
    /// a slow device that takes seconds, and a helper thread that waits so long is missed by
    /// other files; a task may wait.
    async fn ended(&self) {
        while self.in_flight.get() > 0 {
            self.ended.notified().await;
        }
    }
}

/// One write; the ring holds it for as long as the kernel has the memory.
struct Writing(Rc<Writes>);

impl Drop for Writing {
    fn drop(&mut self) {
        let left = self.0.in_flight.get() - 1;
        self.0.in_flight.set(left);
        if left == 0 {
            self.0.ended.notify_all();
        }
    }
}

/// An existing file that blocking code has opened for reads and writes, on its way to a shard.
pub struct OpenedFile {
    handle: Handle,
    path: PathBuf,
}

impl OpenedFile {
    /// The longest read.
    pub const READ_BYTES: usize = Handle::READ_BYTES;

    /// Blocks. Faults of a shard are not met here: see [`meets_faults`].
    pub fn open(path: &Path) -> io::Result<OpenedFile> {
        Ok(OpenedFile { handle: Handle::open(path)?, path: path.to_path_buf() })
    }

    /// Up to `len` bytes (a multiple of [`ALIGNMENT`], at most [`READ_BYTES`](Self::READ_BYTES)) at
    /// an aligned `position`. Blocks.
    pub fn read_at(&self, position: u64, len: usize) -> io::Result<Vec<u8>> {
        self.handle.read(position, len)
    }

    /// The place from which on, at `position` or behind it, nothing but zeros is known to follow,
    /// without reading it. `None`: nothing is known.
    pub fn zeros_from(&self, position: u64) -> Option<u64> {
        self.handle.zeros_from(position)
    }
}

/// True if faults are injected into operations of this shard, which blocking code would not meet.
pub fn meets_faults() -> bool {
    faults::load();
    context::with(|shard| shard.faults.are_active())
}

impl File {
    /// Takes over a file that blocking code has opened.
    pub fn of(opened: OpenedFile) -> File {
        let OpenedFile { handle, path } = opened;
        File { device: handle.into(), path: path.into(), writes: Rc::default() }
    }

    /// Errors name the path.
    pub async fn open(path: &Path, mode: OpenMode) -> io::Result<File> {
        faults::load();
        drain_returns();
        let operation = if mode == OpenMode::CreateNew { "create" } else { "open" };
        let failed = |cause| file_error(operation, path, cause);
        if let Some(fault) = faults::check(Op::Open, path) {
            return Err(failed(fault.error()));
        }
        let device = Device::open(path, mode).await.map_err(failed)?;
        Ok(File { device, path: path.into(), writes: Rc::default() })
    }

    pub fn path(&self) -> PathBuf {
        self.path.to_path_buf()
    }

    fn failed(&self, operation: &'static str, cause: io::Error) -> io::Error {
        file_error(operation, &self.path, cause)
    }

    fn fault(&self, op: Op, operation: &'static str) -> io::Result<()> {
        match faults::check(op, &self.path) {
            Some(Fault::Slow(_)) | None => Ok(()),
            Some(fault) => Err(self.failed(operation, fault.error())),
        }
    }

    /// As [`fault`](Self::fault), of an operation that may be slowed down.
    async fn fault_or_delay(&self, op: Op, operation: &'static str) -> io::Result<()> {
        match faults::check(op, &self.path) {
            None => Ok(()),
            Some(Fault::Slow(ms)) => {
                clock::sleep(Duration::from_millis(ms)).await;
                Ok(())
            }
            Some(fault) => Err(self.failed(operation, fault.error())),
        }
    }

    /// Writes the whole buffer at an aligned `position`; a short write is an error (`WriteZero`).
    pub async fn write_at(&self, buf: &FrozenBuf, position: u64) -> io::Result<()> {
        self.write_as(Op::Write, buf, position).await
    }

    /// [`write_at`](Self::write_at) for zeros ahead of the data: injected faults know it by a name
    /// of its own, so that rules which count writes count what was appended.
    pub async fn write_ahead(&self, zeros: &FrozenBuf, position: u64) -> io::Result<()> {
        self.write_as(Op::Ahead, zeros, position).await
    }

    /// [`write_at`](Self::write_at) for memory of other kinds, one slice behind the
    /// other: their addresses and lengths must be multiples of [`ALIGNMENT`], their sum
    /// at most [`MAX_IO_BYTES`].
    pub async fn write_slices(&self, slices: Rc<[Bytes]>, position: u64) -> io::Result<()> {
        let aligned = |value: usize| value.is_multiple_of(ALIGNMENT as usize);
        let fit = slices.iter().all(|bytes| aligned(bytes.as_ptr() as usize) && aligned(bytes.len()));
        if !fit || slices.bytes() > MAX_IO_BYTES {
            let text = format!("{} bytes in {} slices cannot be written directly", slices.bytes(), slices.len());
            return Err(self.failed("write to", io::Error::new(io::ErrorKind::InvalidInput, text)));
        }
        self.write_as(Op::Write, &slices, position).await
    }

    async fn write_as<M: Memory>(&self, op: Op, memory: &M, position: u64) -> io::Result<()> {
        debug_assert!(position.is_multiple_of(ALIGNMENT), "a write at {position}");
        match faults::check(op, &self.path) {
            None => {}
            Some(Fault::Short) => return self.write_half(memory, position).await,
            Some(Fault::Slow(ms)) => clock::sleep(Duration::from_millis(ms)).await,
            Some(fault) => return Err(self.failed("write to", fault.error())),
        }
        self.write_checked(memory, position, memory.bytes()).await
    }

    async fn write_checked<M: Memory>(&self, memory: &M, position: u64, wanted: usize) -> io::Result<()> {
        let (mut done, bytes) = (0, memory.bytes());
        // A disk that fills up takes the first part of a write; only the rest,
        // written again, is told why.
        while done < bytes && done.is_multiple_of(ALIGNMENT as usize) {
            match self.device.write(memory, done, position, self.writes.begin()).await {
                Ok(0) => break,
                Ok(written) => done += written,
                Err(cause) => return Err(self.failed("write to", cause)),
            }
        }
        if done == wanted {
            return Ok(());
        }
        let text = format!("only {done} of {wanted} bytes at {position} were written");
        Err(self.failed("write to", io::Error::new(io::ErrorKind::WriteZero, text)))
    }

    /// The fault of a device that ends a write early.
    async fn write_half<M: Memory>(&self, memory: &M, position: u64) -> io::Result<()> {
        let bytes = memory.slices().collect::<Vec<_>>().concat();
        let half = align_down(bytes.len() as u64 / 2) as usize;
        if half == 0 {
            let cause = io::Error::new(io::ErrorKind::WriteZero, format!("nothing at {position} was written"));
            return Err(self.failed("write to", cause));
        }
        let mut part = DiskBuf::alloc(half);
        part.as_mut_slice().copy_from_slice(&bytes[..half]);
        self.write_checked(&part.freeze(), position, bytes.len()).await
    }

    /// Reads up to `len` bytes (a multiple of [`ALIGNMENT`], at most [`MAX_IO_BYTES`]) at an
    /// aligned `position`; fewer come back only at the end of the file.
    pub async fn read_at(&self, position: u64, len: usize) -> io::Result<Bytes> {
        debug_assert!(position.is_multiple_of(ALIGNMENT), "a read at {position}");
        debug_assert!(len <= MAX_IO_BYTES && len.is_multiple_of(ALIGNMENT as usize), "a read of {len} bytes");
        self.fault_or_delay(Op::Read, "read").await?;
        if len == 0 {
            return Ok(Bytes::new());
        }
        self.read_whole(position, len).await.map_err(|error| self.failed("read", error))
    }

    async fn read_whole(&self, position: u64, len: usize) -> io::Result<Bytes> {
        let first = self.device.read(position, len).await?;
        if first.len() == len || position + first.len() as u64 >= self.device.stat()?.0 {
            return Ok(first);
        }
        // Ended early, and not by the end of the file.
        let mut all = first.to_vec();
        loop {
            all.truncate(align_down(all.len() as u64) as usize);
            let (at, left) = (position + all.len() as u64, len - all.len());
            let more = self.device.read(at, left).await?;
            all.extend_from_slice(&more);
            if all.len() == len || at + more.len() as u64 >= self.device.stat()?.0 {
                return Ok(all.into());
            }
            if more.len() < ALIGNMENT as usize {
                let text = format!("{} of {left} bytes at {at}, before the end of the file", more.len());
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
            }
        }
    }

    /// The data, and what is needed to find it, is on the device afterwards.
    pub async fn fdatasync(&self) -> io::Result<()> {
        match faults::check(Op::Fdatasync, &self.path) {
            None => {}
            Some(Fault::Slow(ms)) => clock::sleep(Duration::from_millis(ms)).await,
            Some(fault) => return Err(self.failed("sync", fault.error())),
        }
        self.device.fdatasync().await.map_err(|cause| self.failed("sync", cause))
    }

    /// Reserves blocks for `[position, position + len)` and extends the file's size over
    /// them; they read as zeros.
    pub async fn preallocate(&self, position: u64, len: u64) -> io::Result<()> {
        const OPERATION: &str = "reserve space for";
        self.fault_or_delay(Op::Preallocate, OPERATION).await?;
        if len == 0 {
            return Ok(());
        }
        self.writes.ended().await;
        let reserved = self.device.reserve(position, len).await;
        reserved.map_err(|cause| self.failed(OPERATION, cause))
    }

    /// Has the device make `[position, position + len)` written blocks of zeros without sending
    /// them, where file system and device offer that; `false`: they do not, which is remembered per
    /// file system. The range must lie within the file.
    pub async fn write_zeroes_range(&self, position: u64, len: u64) -> io::Result<bool> {
        const OPERATION: &str = "write zeros to";
        let (_, device) = self.device.stat().map_err(|cause| self.failed(OPERATION, cause))?;
        if context::with(|shard| shard.zeroes_refused.borrow().contains(&device)) {
            return Ok(false);
        }
        self.fault(Op::Ahead, OPERATION)?;
        self.writes.ended().await;
        match self.device.write_zeroes(position, len).await {
            Ok(()) => Ok(true),
            Err(cause) if matches!(cause.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EINVAL)) => {
                context::with(|shard| shard.zeroes_refused.borrow_mut().push(device));
                Ok(false)
            }
            Err(cause) => Err(self.failed(OPERATION, cause)),
        }
    }

    /// Cuts or extends to `len` bytes.
    pub async fn truncate(&self, len: u64) -> io::Result<()> {
        self.fault(Op::Truncate, "truncate")?;
        self.writes.ended().await;
        self.device.truncate(len).await.map_err(|cause| self.failed("truncate", cause))
    }

    /// Current size, bytes (by descriptor, not by path).
    pub async fn size(&self) -> io::Result<u64> {
        self.device.stat().map(|(bytes, _)| bytes).map_err(|cause| self.failed("look at", cause))
    }

    pub async fn close(self) -> io::Result<()> {
        let File { device, path, .. } = self;
        device.close().await.map_err(|cause| file_error("close", &path, cause))
    }
}

/// Tries a directory out before files are opened there: writes, syncs and reads a 4 KiB file.
/// Without room for it nothing is tried.
pub async fn prime_device(directory: &Path) -> io::Result<()> {
    #[cfg(any(test, feature = "simulator"))]
    if sim::is_current() {
        return Ok(());
    }
    let thread = format!("{:?}", std::thread::current().id());
    let number: String = thread.chars().filter(char::is_ascii_digit).collect();
    let path = directory.join(format!(".prime-{}-{number}", std::process::id()));
    let written = path.clone();
    let made = spawn_blocking(move || {
        use std::io::Write;
        let made = std::fs::File::create(&written).and_then(|mut file| {
            file.write_all(&[0; ALIGNMENT as usize])?;
            file.sync_all()
        });
        made.inspect_err(|_| drop(std::fs::remove_file(&written)))
    });
    faults::load();
    let made = match faults::check(Op::Small, &path) {
        Some(fault @ Fault::Os(_)) => Err(fault.error()),
        _ => made.await,
    };
    match made {
        Err(cause) if is_full(&cause) => return Ok(()),
        made => made.map_err(|cause| file_error("write", &path, cause))?,
    }
    let outcome = async {
        let file = File::open(&path, OpenMode::ReadWrite).await?;
        let read = file.read_at(0, ALIGNMENT as usize).await?.len();
        file.close().await?;
        if read == ALIGNMENT as usize {
            return Ok(());
        }
        let text = format!("direct I/O returned {read} of {ALIGNMENT} bytes");
        Err(file_error("read", &path, io::Error::new(io::ErrorKind::UnexpectedEof, text)))
    };
    let outcome = outcome.await;
    let removed = path.clone();
    let removed = spawn_blocking(move || std::fs::remove_file(removed)).await;
    outcome?;
    removed.map_err(|cause| file_error("remove", &path, cause))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::runtime::executor::tests::on_shard;

    /// A directory on the disk that the build is on: `/tmp` may be memory.
    pub(crate) fn scratch() -> tempfile::TempDir {
        let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/test-data");
        std::fs::create_dir_all(&base).unwrap();
        tempfile::tempdir_in(base).unwrap()
    }

    fn filled(len: usize, value: u8) -> FrozenBuf {
        let mut buf = DiskBuf::alloc(len);
        buf.as_mut_slice().fill(value);
        buf.freeze()
    }

    #[test]
    fn files_write_read_reserve_and_cut() {
        on_shard(|| async {
            let dir = scratch();
            prime_device(dir.path()).await.unwrap();
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "prime_device left something");
            let path = dir.path().join("a.log");
            let file = File::open(&path, OpenMode::CreateNew).await.unwrap();
            file.preallocate(0, 1 << 20).await.unwrap();
            assert_eq!(file.size().await.unwrap(), 1 << 20);
            file.preallocate(1 << 20, 1 << 20).await.unwrap();
            assert_eq!(file.size().await.unwrap(), 2 << 20);
            file.write_at(&filled(MAX_IO_BYTES, 1), 0).await.unwrap();
            file.write_at(&filled(8192, 2), 4096).await.unwrap();
            file.fdatasync().await.unwrap();
            let read = file.read_at(0, 65536).await.unwrap();
            assert_eq!(read.len(), 65536);
            assert!(read[..4096].iter().all(|&b| b == 1));
            assert!(read[4096..12288].iter().all(|&b| b == 2));
            assert!(read[12288..].iter().all(|&b| b == 1));
            assert!(file.read_at(1 << 20, 4096).await.unwrap().iter().all(|&b| b == 0), "reserved space is not zero");
            // Whether the device offers it or not: the rest stays, and the
            // second answer is the first.
            let offered = file.write_zeroes_range(8192, 65536).await.unwrap();
            assert_eq!(file.write_zeroes_range(8192, 65536).await.unwrap(), offered);
            let read_again = file.read_at(4096, 8192).await.unwrap();
            assert_eq!((read_again[0], read_again[4096]), (2, if offered { 0 } else { 2 }));
            assert_eq!(file.size().await.unwrap(), 2 << 20);
            file.truncate(4096 + 100).await.unwrap();
            assert_eq!(file.size().await.unwrap(), 4196);
            assert_eq!(file.read_at(4096, 8192).await.unwrap().len(), 100);
            assert_eq!(file.read_at(8192, 4096).await.unwrap().len(), 0);
            file.close().await.unwrap();
            // Reads do not end with the file.
            assert!(read[4096..12288].iter().all(|&b| b == 2));
            assert_eq!(std::fs::metadata(&path).unwrap().len(), 4196);
        });
    }

    /// Its files are read as before.
    #[test]
    fn a_full_disk_is_not_a_failed_one() {
        on_shard(|| async {
            let dir = scratch();
            faults::inject(Op::Small, ".prime", 0, Fault::Os(libc::ENOSPC));
            prime_device(dir.path()).await.unwrap();
            faults::clear();
            faults::inject(Op::Small, ".prime", 0, Fault::Os(libc::EIO));
            assert_eq!(os_code(&prime_device(dir.path()).await.unwrap_err()), Some(libc::EIO));
            faults::clear();
        });
    }

    #[test]
    fn errors_name_the_operation_the_path_and_the_code() {
        on_shard(|| async {
            let dir = scratch();
            let path = dir.path().join("b.log");
            let missing = File::open(&path, OpenMode::Read).await.err().unwrap();
            assert_eq!(missing.kind(), io::ErrorKind::NotFound);
            assert_eq!(os_code(&missing), Some(libc::ENOENT));
            assert!(missing.to_string().contains("cannot open") && missing.to_string().contains("b.log"), "{missing}");
            let file = File::open(&path, OpenMode::CreateNew).await.unwrap();
            let twice = File::open(&path, OpenMode::CreateNew).await.err().unwrap();
            assert_eq!(os_code(&twice), Some(libc::EEXIST));
            file.close().await.unwrap();
            let file = File::open(&path, OpenMode::Read).await.unwrap();
            let refused = file.write_at(&filled(4096, 1), 0).await.err().unwrap();
            assert_eq!(os_code(&refused), Some(libc::EBADF));
            file.close().await.unwrap();
        });
    }

    #[test]
    fn injected_faults_reach_the_caller() {
        on_shard(|| async {
            let dir = scratch();
            prime_device(dir.path()).await.unwrap();
            let file = File::open(&dir.path().join("faulty.log"), OpenMode::CreateNew).await.unwrap();
            faults::inject(Op::Write, "faulty", 1, Fault::Os(libc::ENOSPC));
            faults::inject(Op::Fdatasync, "faulty", 0, Fault::Os(libc::EIO));
            file.write_at(&filled(8192, 1), 0).await.unwrap();
            let full = file.write_at(&filled(8192, 2), 0).await.err().unwrap();
            assert!(os_code(&full) == Some(libc::ENOSPC) && full.kind() == io::ErrorKind::StorageFull, "{full}");
            assert_eq!(os_code(&file.fdatasync().await.err().unwrap()), Some(libc::EIO));
            faults::clear();
            faults::inject(Op::Write, "faulty", 0, Fault::Short);
            let short = file.write_at(&filled(8192, 3), 0).await.err().unwrap();
            assert_eq!(short.kind(), io::ErrorKind::WriteZero);
            faults::clear();
            let read = file.read_at(0, 8192).await.unwrap();
            assert_eq!((read[0], read[4095], read[4096]), (3, 3, 1), "half of the short write is there");
            file.fdatasync().await.unwrap();
            file.close().await.unwrap();
        });
    }

    #[test]
    fn blocks_are_reserved_once_the_writes_of_the_file_have_ended() {
        use futures_lite::future::poll_once;
        on_shard(|| async {
            let dir = scratch();
            prime_device(dir.path()).await.unwrap();
            let file = File::open(&dir.path().join("d.log"), OpenMode::CreateNew).await.unwrap();
            let other = File::open(&dir.path().join("e.log"), OpenMode::CreateNew).await.unwrap();
            let slow = file.writes.begin();
            // More than there are helper threads.
            let mut waiting: Vec<_> = (0..16).map(|i| Box::pin(file.preallocate(i << 20, 1 << 20))).collect();
            for reservation in &mut waiting {
                assert!(poll_once(reservation).await.is_none());
            }
            let mut cut = Box::pin(file.truncate(4096));
            assert!(poll_once(&mut cut).await.is_none());
            other.preallocate(0, 1 << 20).await.unwrap();
            for reservation in &mut waiting {
                assert!(poll_once(reservation).await.is_none(), "a write is under way");
            }
            assert_eq!(file.size().await.unwrap(), 0);
            drop(slow);
            for reservation in waiting {
                reservation.await.unwrap();
            }
            assert_eq!(file.size().await.unwrap(), 16 << 20);
            cut.await.unwrap();
            // A write that nobody waits for any more is under way until the kernel has ended it.
            let block = filled(8192, 1);
            assert!(poll_once(Box::pin(file.write_at(&block, 0))).await.is_none());
            assert_eq!(file.writes.in_flight.get(), 1);
            file.preallocate(1 << 20, 4096).await.unwrap();
            assert_eq!(file.writes.in_flight.get(), 0);
        });
    }

    #[test]
    fn many_reads_and_writes_in_flight() {
        on_shard(|| async {
            let dir = scratch();
            prime_device(dir.path()).await.unwrap();
            let file = Rc::new(File::open(&dir.path().join("c.log"), OpenMode::CreateNew).await.unwrap());
            file.preallocate(0, 32 << 20).await.unwrap();
            let mut writes = Vec::new();
            for i in 0..64u64 {
                let file = file.clone();
                writes.push(crate::runtime::executor::spawn_joined(async move {
                    file.write_at(&filled(65536, i as u8), i * 65536).await
                }));
            }
            for write in writes {
                write.await.unwrap();
            }
            let mut held = Vec::new();
            for i in 0..64u64 {
                held.push(file.read_at(i * 65536, 65536).await.unwrap());
            }
            for (i, bytes) in held.into_iter().enumerate() {
                assert!(bytes.iter().all(|&b| b == i as u8), "block {i}");
            }
        });
    }
}
