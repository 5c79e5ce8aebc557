//! Checks before the first shard starts; each failure is one line that says what is wrong and how
//! to mend it.

mod data_dir;

use std::ffi::CStr;
use std::fs;
use std::io;

use uuid::Uuid;

pub use data_dir::{DataDir, OpenError, check_direct_io, free_bytes, open_data_dir, space, try_out};

/// The oldest kernel with everything used here: multishot polls.
const OLDEST_KERNEL: (u32, u32) = (5, 13);

/// glommio refuses to start below this limit of locked memory, whatever the capabilities, bytes.
const SMALLEST_MEMLOCK: u64 = 512 * 1024;

/// Bytes that glommio makes of any smaller request.
const SMALLEST_IO_MEMORY: u64 = 65536;

/// Locked memory per shard for the rings themselves, bytes.
const RINGS_MEMLOCK: u64 = 1024 * 1024;

/// glommio registers the same memory with each of its three rings.
const RINGS: u64 = 3;

/// One line: what is wrong, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ProbeError(pub String);

/// io_uring can be used here (kernel version, kernel.io_uring_disabled, seccomp), and
/// RLIMIT_MEMLOCK lets every shard register `io_memory_bytes` three times (or the
/// process has CAP_IPC_LOCK).
pub fn check_io_uring(shards: u16, io_memory_bytes: usize) -> Result<(), ProbeError> {
    if let Some(complaint) = kernel_complaint(&kernel_release()) {
        return Err(ProbeError(complaint));
    }
    // The second kind is for devices that are polled; glommio makes both.
    for flags in [0, IORING_SETUP_IOPOLL] {
        if let Err(error) = try_ring(flags) {
            let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled").ok();
            return Err(ProbeError(ring_complaint(&error, disabled.as_deref().map(str::trim))));
        }
    }
    let (limit, _) = limit_of(libc::RLIMIT_MEMLOCK).map_err(|error| {
        ProbeError(format!("cannot read the limit of locked memory (RLIMIT_MEMLOCK): {error}; allow getrlimit"))
    })?;
    match memlock_complaint(limit, may_lock_memory(), shards, io_memory_bytes as u64) {
        Some(complaint) => Err(ProbeError(complaint)),
        None => Ok(()),
    }
}

/// The kernel's boot: a new one each time that the machine starts.
pub fn boot_id() -> io::Result<Uuid> {
    const FILE: &str = "/proc/sys/kernel/random/boot_id";
    let text = fs::read_to_string(FILE).map_err(|e| io::Error::new(e.kind(), format!("{FILE}: {e}")))?;
    let id = Uuid::parse_str(text.trim());
    id.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("{FILE} does not hold an id: {e}")))
}

fn kernel_release() -> String {
    // SAFETY: all-zero is a valid `utsname`; `uname` fills its arrays with NUL-terminated text.
    #[allow(unsafe_code)]
    unsafe {
        let mut name: libc::utsname = std::mem::zeroed();
        if libc::uname(&mut name) != 0 {
            return String::new();
        }
        CStr::from_ptr(name.release.as_ptr()).to_string_lossy().into_owned()
    }
}

fn kernel_complaint(release: &str) -> Option<String> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next()?, numbers.next().unwrap_or(0));
    let (major, minor) = OLDEST_KERNEL;
    (version < OLDEST_KERNEL).then(|| {
        format!("the kernel ({release}) is too old for io_uring as used here: Linux {major}.{minor} or newer is needed")
    })
}

const IORING_SETUP_IOPOLL: u32 = 1;

/// Makes a ring of one entry and gives it back.
fn try_ring(flags: u32) -> io::Result<()> {
    // `struct io_uring_params`: 30 words, of which only the third, the flags, is input here.
    let mut parameters = [0u32; 30];
    parameters[2] = flags;
    // SAFETY: the kernel reads and writes the 120 bytes of the parameters; the descriptor it
    // returns is closed at once.
    #[allow(unsafe_code)]
    unsafe {
        let ring = libc::syscall(libc::SYS_io_uring_setup, 1u32, parameters.as_mut_ptr());
        if ring < 0 {
            return Err(io::Error::last_os_error());
        }
        libc::close(ring as libc::c_int);
    }
    Ok(())
}

/// `disabled`: the text of kernel.io_uring_disabled, where the kernel has it.
fn ring_complaint(error: &io::Error, disabled: Option<&str>) -> String {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => {
            "this kernel has no io_uring (io_uring_setup: ENOSYS); use a kernel built with CONFIG_IO_URING, or allow the \
             call in the container's seccomp profile"
                .to_owned()
        }
        Some(libc::EPERM | libc::EACCES) => match disabled {
            Some("2") => "io_uring is switched off for everybody (kernel.io_uring_disabled=2); run `sysctl -w \
                          kernel.io_uring_disabled=0`"
                .to_owned(),
            Some("1") => "io_uring is switched off for this user (kernel.io_uring_disabled=1); run `sysctl -w \
                          kernel.io_uring_disabled=0`, or put the user into the group kernel.io_uring_group"
                .to_owned(),
            _ => "io_uring is forbidden here although the kernel has it (io_uring_setup: EPERM); a seccomp profile forbids \
                  it: allow io_uring_setup, io_uring_enter and io_uring_register in the container's profile"
                .to_owned(),
        },
        Some(libc::ENOMEM) => "no memory for an io_uring ring (io_uring_setup: ENOMEM); raise the limit of locked memory \
                               (`ulimit -l unlimited`, or LimitMEMLOCK=infinity in the service)"
            .to_owned(),
        Some(libc::EMFILE | libc::ENFILE) => {
            format!("no descriptor for an io_uring ring: {error}; raise the limit of open files (`ulimit -n`)")
        }
        _ => format!("io_uring cannot be used: io_uring_setup: {error}; see `dmesg` and the container's seccomp profile"),
    }
}

/// As much of `wanted` as the limit of locked memory lets every shard register; `wanted` itself
/// where there is no limit. Less only costs a little CPU a write.
pub fn fitting_io_memory(shards: u16, wanted: usize) -> usize {
    match limit_of(libc::RLIMIT_MEMLOCK) {
        Ok((limit, _)) if !may_lock_memory() => fit_memlock(limit, shards, wanted as u64) as usize,
        _ => wanted,
    }
}

fn fit_memlock(limit: u64, shards: u16, wanted: u64) -> u64 {
    let share = (limit / u64::from(shards.max(1))).saturating_sub(RINGS_MEMLOCK) / RINGS;
    wanted.min(share / 4096 * 4096).max(SMALLEST_IO_MEMORY.min(wanted))
}

fn memlock_complaint(limit: u64, privileged: bool, shards: u16, io_memory_bytes: u64) -> Option<String> {
    let wanted = (RINGS * io_memory_bytes + RINGS_MEMLOCK) * u64::from(shards);
    let needed = if privileged { SMALLEST_MEMLOCK } else { wanted.max(SMALLEST_MEMLOCK) };
    if limit >= needed {
        return None;
    }
    let kib = needed.div_ceil(1024);
    Some(format!(
        "the limit of locked memory is {} KiB, but {shards} shards with {} KiB of I/O memory need {kib} KiB (three rings \
         each); set LimitMEMLOCK={kib}K in the service (or `ulimit -l {kib}`; root may raise the hard limit), or lower \
         corelane.io.memory.bytes or corelane.shards",
        limit / 1024,
        io_memory_bytes / 1024,
    ))
}

/// True if the process has CAP_IPC_LOCK, which lifts the limit of locked memory.
fn may_lock_memory() -> bool {
    const CAP_IPC_LOCK: u64 = 14;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).is_some_and(|set| set >> CAP_IPC_LOCK & 1 == 1)
}

/// The soft and the hard limit.
fn limit_of(resource: libc::__rlimit_resource_t) -> io::Result<(u64, u64)> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: fills the struct it is given.
    #[allow(unsafe_code)]
    let result = unsafe { libc::getrlimit(resource, &mut limit) };
    if result == 0 { Ok((limit.rlim_cur, limit.rlim_max)) } else { Err(io::Error::last_os_error()) }
}

/// Raises the soft limit of open files to the hard one; returns the limit in force.
pub fn raise_open_files() -> io::Result<u64> {
    let (soft, hard) = limit_of(libc::RLIMIT_NOFILE)?;
    if soft == hard {
        return Ok(soft);
    }
    let limit = libc::rlimit { rlim_cur: hard, rlim_max: hard };
    // SAFETY: reads the struct it is given.
    #[allow(unsafe_code)]
    let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    // Where raising is refused, the old limit stays in force.
    Ok(if result == 0 { hard } else { soft })
}

/// Raises the limit of open files to `wanted` at least, the hard limit too where this process may;
/// returns the limit in force.
pub fn raise_open_files_to(wanted: u64) -> io::Result<u64> {
    let raised = raise_open_files()?;
    if raised >= wanted {
        return Ok(raised);
    }
    let limit = libc::rlimit { rlim_cur: wanted, rlim_max: wanted };
    // SAFETY: reads the struct it is given.
    #[allow(unsafe_code)]
    let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) };
    Ok(if result == 0 { wanted } else { raised })
}

/// The limit of open files in force.
pub fn open_files() -> io::Result<u64> {
    limit_of(libc::RLIMIT_NOFILE).map(|(soft, _)| soft)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_can_run_shards() {
        check_io_uring(1, 65536).unwrap();
        assert!(raise_open_files().unwrap() >= 256);
    }

    #[test]
    fn io_memory_fits_the_limit_of_locked_memory() {
        for shards in [1, 2, 4] {
            let fit = fit_memlock(8 << 20, shards, 8 << 20);
            assert!(fit >= SMALLEST_IO_MEMORY && fit.is_multiple_of(4096), "{fit}");
            assert_eq!(memlock_complaint(8 << 20, false, shards, fit), None);
        }
        assert_eq!(fit_memlock(1 << 30, 2, 8 << 20), 8 << 20);
    }

    #[test]
    fn kernels_are_compared_by_number() {
        assert!(kernel_complaint("5.14.0-427.el9.x86_64").is_none());
        assert!(kernel_complaint("5.10.0-23-amd64").is_some());
        assert!(kernel_complaint("6.18.44-generic").is_none());
        assert!(kernel_complaint("5.13").is_none());
        assert!(kernel_complaint("4.18.0-553.el8").unwrap().contains("5.13"));
        assert!(kernel_complaint("5.7.19").is_some());
        assert!(kernel_complaint("").is_none(), "an unknown version is left to the other probes");
    }

    #[test]
    fn each_refusal_of_a_ring_has_its_own_mend() {
        let complaint = |code, disabled| ring_complaint(&io::Error::from_raw_os_error(code), disabled);
        assert!(complaint(libc::ENOSYS, None).contains("CONFIG_IO_URING"));
        assert!(complaint(libc::EPERM, Some("2")).contains("io_uring_disabled=2"));
        assert!(complaint(libc::EPERM, Some("1")).contains("io_uring_group"));
        assert!(complaint(libc::EPERM, Some("0")).contains("seccomp"));
        assert!(complaint(libc::EPERM, None).contains("seccomp"));
        assert!(complaint(libc::ENOMEM, None).contains("LimitMEMLOCK"));
        assert!(complaint(libc::EIO, None).contains("Input/output"));
    }

    #[test]
    fn locked_memory_is_counted_three_times() {
        const MIB: u64 = 1 << 20;
        assert!(memlock_complaint(2 * 97 * MIB, false, 2, 32 * MIB).is_none());
        let complaint = memlock_complaint(2 * 97 * MIB - 1, false, 2, 32 * MIB).unwrap();
        assert!(complaint.contains("ulimit -l 198656"), "{complaint}");
        assert!(complaint.contains("LimitMEMLOCK=198656K"), "{complaint}");
        assert!(memlock_complaint(8 * MIB, true, 2, 32 * MIB).is_none(), "CAP_IPC_LOCK lifts the limit");
        assert!(memlock_complaint(64 * 1024, true, 1, MIB).is_some(), "but not glommio's own");
        assert!(memlock_complaint(libc::RLIM_INFINITY, false, 1024, 64 * MIB).is_none());
    }
}
