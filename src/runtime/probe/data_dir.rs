//! A data directory: made, tried out, locked, and what it lives on.

use std::ffi::CString;
use std::fs;
use std::io::{self, Read, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::ProbeError;
use crate::runtime::disk::{ALIGNMENT, is_full};

/// A data directory held by this process: made if absent, writable, with O_DIRECT, and locked
/// against a second broker.
#[derive(Debug)]
pub struct DataDir {
    pub path: PathBuf,
    pub device: Device,
    /// The lock is the open file's: it ends with it.
    pub(crate) _lock: fs::File,
}

/// The device of a directory.
#[derive(Debug)]
pub struct Device {
    /// For the banner: "nvme0n1 (NVMe)", "sda (SSD)", "sdb (rotational)", ...
    pub description: String,
    /// It is known to be a hard disk.
    pub is_hard_disk: bool,
}

/// Why a data directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A mistake of the setup: another broker holds it, no direct I/O, memory instead of a disk.
    #[error(transparent)]
    Refused(ProbeError),
    /// The disk or its permissions: other directories may be fine.
    #[error(transparent)]
    Failed(ProbeError),
}

impl From<ProbeError> for OpenError {
    fn from(error: ProbeError) -> OpenError {
        OpenError::Refused(error)
    }
}

/// Makes, checks and locks a data directory.
pub fn open_data_dir(path: &Path) -> Result<DataDir, OpenError> {
    let shown = path.display();
    let failed = |what: &str, error: io::Error, mend: &str| {
        OpenError::Failed(ProbeError(format!("{what} {shown}: {error}; {mend}")))
    };
    fs::create_dir_all(path)
        .map_err(|e| failed("cannot make the data directory", e, "make it for this user, or change log.dirs"))?;
    let absolute = fs::canonicalize(path)
        .map_err(|e| failed("cannot resolve the data directory", e, "check the path in log.dirs"))?;
    let memory = is_memory(&absolute)
        .map_err(|e| failed("cannot look at the filesystem of the data directory", e, "check its mount"))?;
    if memory {
        return Err(OpenError::Refused(ProbeError(format!(
            "the data directory {shown} is on tmpfs, which is memory: it has no direct I/O and loses everything at a \
             restart; set log.dirs to a directory on a disk (ext4, XFS)"
        ))));
    }
    let lock = lock(&absolute)?;
    match try_direct(&absolute) {
        // Records can be read all the same, and topics deleted.
        Err(error) if is_full(&error) => {
            check_direct_open(&absolute.join(".lock"))?;
            tracing::warn!("no space left in {shown}: records are read, and taken once there is room");
        }
        outcome => outcome.map_err(|error| direct_complaint(&absolute, error))?,
    }
    let device = device_of(&absolute);
    Ok(DataDir { path: absolute, device, _lock: lock })
}

/// Direct I/O works in an existing directory: one block is written, read and removed.
pub fn check_direct_io(directory: &Path) -> Result<(), ProbeError> {
    try_direct(directory).map_err(|error| match direct_complaint(directory, error) {
        OpenError::Refused(error) | OpenError::Failed(error) => error,
    })
}

/// Direct I/O is known to the file system of an existing file; nothing is written.
fn check_direct_open(path: &Path) -> Result<(), OpenError> {
    let opened = fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path);
    opened.map(drop).map_err(|error| direct_complaint(path, error))
}

fn direct_complaint(directory: &Path, error: io::Error) -> OpenError {
    let shown = directory.display();
    let wrong = |what: &str, error: io::Error, mend: &str| ProbeError(format!("{what} {shown}: {error}; {mend}"));
    match error.raw_os_error() {
        Some(libc::EINVAL | libc::EOPNOTSUPP) => OpenError::Refused(wrong(
            "direct I/O (O_DIRECT) does not work in the data directory",
            error,
            "put it on a filesystem that has it (ext4, XFS) and a device with blocks of at most 4096 bytes",
        )),
        Some(libc::ENOSPC | libc::EDQUOT) => {
            OpenError::Refused(wrong("no space left in the data directory", error, "free some, or change log.dirs"))
        }
        _ => OpenError::Failed(wrong(
            "cannot write to the data directory",
            error,
            "mend the disk or let this user write there, or change log.dirs",
        )),
    }
}

/// Bytes that this user may still write on the file system of a directory.
pub fn free_bytes(directory: &Path) -> io::Result<u64> {
    Ok(space(directory)?.0)
}

/// [`free_bytes`], and the size of the file system.
pub fn space(directory: &Path) -> io::Result<(u64, u64)> {
    let name = CString::new(directory.as_os_str().as_bytes())?;
    // SAFETY: all-zero is a valid `statvfs`; the call fills it and reads the NUL-terminated name.
    #[allow(unsafe_code)]
    let answer = unsafe {
        let mut answer: libc::statvfs = std::mem::zeroed();
        if libc::statvfs(name.as_ptr(), &mut answer) != 0 {
            return Err(io::Error::last_os_error());
        }
        answer
    };
    let bytes = |blocks: u64| blocks.saturating_mul(answer.f_frsize);
    Ok((bytes(answer.f_bavail), bytes(answer.f_blocks)))
}

fn is_memory(path: &Path) -> io::Result<bool> {
    let name = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: all-zero is a valid `statfs`; the call fills it and reads the NUL-terminated name.
    #[allow(unsafe_code)]
    let kind = unsafe {
        let mut answer: libc::statfs = std::mem::zeroed();
        if libc::statfs(name.as_ptr(), &mut answer) != 0 {
            return Err(io::Error::last_os_error());
        }
        answer.f_type
    };
    Ok(kind == libc::TMPFS_MAGIC)
}

/// Locks `.lock`. A record lock on the open file, so that Kafka's brokers (Java's FileLock) and
/// ours keep each other out.
fn lock(directory: &Path) -> Result<fs::File, OpenError> {
    let path = directory.join(".lock");
    let wrong = |what: &str, error: io::Error| {
        let mend = "mend the disk or let this user write there, or change log.dirs";
        OpenError::Failed(ProbeError(format!("cannot {what} {}: {error}; {mend}", path.display())))
    };
    let mut file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .open(&path)
        .map_err(|e| wrong("open the lock file", e))?;
    // SAFETY: all-zero is a valid `flock` (the whole file, pid 0 as F_OFD_SETLK wants
    // it); the call only reads it.
    #[allow(unsafe_code)]
    let result = unsafe {
        let mut range: libc::flock = std::mem::zeroed();
        range.l_type = libc::F_WRLCK as libc::c_short;
        range.l_whence = libc::SEEK_SET as libc::c_short;
        libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &range)
    };
    if result != 0 {
        let error = io::Error::last_os_error();
        if !matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) {
            return Err(wrong("lock", error));
        }
        let mut holder = String::new();
        let _ = file.take(32).read_to_string(&mut holder);
        let holder = match holder.trim().parse::<u32>() {
            Ok(pid) => format!("process {pid}"),
            Err(_) => "another process".to_owned(),
        };
        return Err(OpenError::Refused(ProbeError(format!(
            "the data directory {} is in use by {holder} (it holds the lock on .lock); stop that broker first, or give \
             this one its own log.dirs",
            directory.display()
        ))));
    }
    let noted = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| file.write_all(format!("{}\n", std::process::id()).as_bytes()));
    match noted {
        // The number is for people only; the lock holds without.
        Err(error) if !is_full(&error) => Err(wrong("write to", error)),
        _ => Ok(file),
    }
}

/// Writes, syncs and reads a block in a directory in use, as `user` of several that may
/// do so at a time. Blocks.
pub fn try_out(directory: &Path, user: u16) -> io::Result<()> {
    try_file(&directory.join(format!(".probe-{}-{user}", std::process::id())))
}

/// Writes and reads one block as the log will.
fn try_direct(directory: &Path) -> io::Result<()> {
    try_file(&directory.join(format!(".probe-{}", std::process::id())))
}

fn try_file(path: &Path) -> io::Result<()> {
    const BLOCK: usize = ALIGNMENT as usize;
    let _ = fs::remove_file(path);
    let outcome = (|| {
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o644)
            .custom_flags(libc::O_DIRECT)
            .open(path)?;
        let mut memory = vec![0u8; 2 * BLOCK];
        let start = memory.as_ptr().align_offset(BLOCK);
        let block = &mut memory[start..start + BLOCK];
        block.fill(0xa5);
        file.write_all_at(block, 0)?;
        file.sync_data()?;
        block.fill(0);
        file.read_exact_at(block, 0)?;
        if block.iter().any(|&byte| byte != 0xa5) {
            return Err(io::Error::other("a block that was written reads differently"));
        }
        Ok(())
    })();
    let removed = fs::remove_file(path);
    outcome?;
    removed
}

fn device_of(path: &Path) -> Device {
    let other = |description: String| Device { description, is_hard_disk: false };
    let Ok(number) = fs::metadata(path).map(|metadata| metadata.dev()) else {
        return other("an unknown device".to_owned());
    };
    let (major, minor) = (libc::major(number), libc::minor(number));
    let Ok(mut node) = fs::canonicalize(format!("/sys/dev/block/{major}:{minor}")) else {
        return other(mounted_from(&format!("{major}:{minor}")).unwrap_or_else(|| format!("device {major}:{minor}")));
    };
    if node.join("partition").exists() {
        node.pop();
    }
    let name = node.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let rotational = fs::read_to_string(node.join("queue/rotational")).is_ok_and(|text| text.trim() == "1");
    let kind = DeviceKind::of(&name, &node.to_string_lossy(), rotational);
    Device { description: format!("{name} ({})", kind.name()), is_hard_disk: kind == DeviceKind::HardDisk }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum DeviceKind {
    Nvme,
    /// Whether the disk behind it turns, the guest cannot know.
    Virtio,
    HardDisk,
    Ssd,
    Raid,
    DeviceMapper,
    Other,
}

impl DeviceKind {
    fn of(name: &str, node: &str, rotational: bool) -> DeviceKind {
        if name.starts_with("nvme") {
            DeviceKind::Nvme
        } else if node.contains("/virtio") {
            DeviceKind::Virtio
        } else if rotational {
            DeviceKind::HardDisk
        } else if name.starts_with("sd") {
            DeviceKind::Ssd
        } else if name.starts_with("md") {
            DeviceKind::Raid
        } else if name.starts_with("dm-") {
            DeviceKind::DeviceMapper
        } else {
            DeviceKind::Other
        }
    }

    fn name(self) -> &'static str {
        match self {
            DeviceKind::Nvme => "NVMe",
            DeviceKind::Virtio => "virtio",
            DeviceKind::HardDisk => "rotational",
            DeviceKind::Ssd => "SSD",
            DeviceKind::Raid => "RAID",
            DeviceKind::DeviceMapper => "device mapper",
            DeviceKind::Other => "not rotational",
        }
    }
}

/// For filesystems without a block device of their own (btrfs, overlay, NFS):
/// what is mounted there.
fn mounted_from(number: &str) -> Option<String> {
    let table = fs::read_to_string("/proc/self/mountinfo").ok()?;
    table.lines().find_map(|line| {
        let (mount, filesystem) = line.split_once(" - ")?;
        if mount.split(' ').nth(2)? != number {
            return None;
        }
        let mut fields = filesystem.split(' ');
        let kind = fields.next()?;
        Some(format!("{} ({kind})", fields.next()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::scratch;

    #[test]
    fn a_directory_is_made_tried_and_locked() {
        let dir = scratch();
        let path = dir.path().join("a/b");
        let held = open_data_dir(&path).unwrap();
        assert!(held.device.description.contains('('), "{:?}", held.device);
        assert_eq!(fs::read_dir(&path).unwrap().count(), 1, "only .lock stays");
        let refused = open_data_dir(&path).unwrap_err().to_string();
        assert!(
            refused.contains("in use by process") && refused.contains(&std::process::id().to_string()),
            "{refused}"
        );
        drop(held);
        open_data_dir(&path).unwrap();
    }

    #[test]
    fn memory_is_no_disk() {
        let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return };
        if is_memory(dir.path()).unwrap() {
            let refused = open_data_dir(dir.path()).unwrap_err().to_string();
            assert!(refused.contains("tmpfs") && refused.contains("log.dirs"), "{refused}");
        }
        assert!(!is_memory(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap());
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let dir = scratch();
        let path = dir.path().join("file");
        fs::write(&path, b"x").unwrap();
        let refused = open_data_dir(&path).unwrap_err().to_string();
        assert!(refused.contains("cannot make") && refused.contains("file"), "{refused}");
    }

    #[test]
    fn devices_are_told_apart() {
        assert_eq!(DeviceKind::of("nvme0n1", "/sys/devices/pci/nvme/nvme0/nvme0n1", false), DeviceKind::Nvme);
        assert_eq!(DeviceKind::of("vda", "/sys/devices/pci0000:00/virtio1/block/vda", true), DeviceKind::Virtio);
        assert_eq!(DeviceKind::of("sda", "/sys/devices/pci/ata1/block/sda", true), DeviceKind::HardDisk);
        assert_eq!(DeviceKind::of("sda", "/sys/devices/pci/ata1/block/sda", false), DeviceKind::Ssd);
    }
}
