//! The facts about a host that matter to the broker. Everything is read below a root directory, so
//! that tests can make one up.

use std::path::Path;

use serde::Serialize;

use super::block::{self, Disk};
use super::mounts::{self, Mount};
use super::text;

/// Facts about the host; `None`, or an empty list, is unknown.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Host {
    pub kernel: Option<String>,
    pub cpus: Option<Vec<usize>>,
    pub mount: Option<Mount>,
    pub disks: Vec<Disk>,
    pub memory: MemoryUse,
    /// Limit of open files: soft and hard.
    pub open_files: Option<(u64, u64)>,
    /// Limit of locked memory, bytes, soft.
    pub locked_memory: Option<u64>,
    /// True if this process is above that limit (CAP_IPC_LOCK).
    pub may_lock_memory: Option<bool>,
    pub congestion: Congestion,
    pub somaxconn: Option<u64>,
    /// Smallest, first and largest receive and send buffer of a TCP socket, bytes.
    pub tcp_rmem: Option<[u64; 3]>,
    pub tcp_wmem: Option<[u64; 3]>,
    pub tcp_slow_start_after_idle: Option<u64>,
    /// kernel.io_uring_disabled, where the kernel has it.
    pub io_uring_disabled: Option<u64>,
    /// Why a ring cannot be made here; empty: it can. Not read from files: the caller tries it out.
    pub io_uring_refused: Option<String>,
    /// The different CPU frequency governors.
    pub governors: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryUse {
    pub transparent_huge_pages: Option<String>,
    pub swappiness: Option<u64>,
    /// Swap there is, KiB.
    pub swap_kib: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Congestion {
    pub control: Option<String>,
    pub available: Vec<String>,
}

impl Host {
    /// Reads below `root` ("/" but in tests) what concerns a broker with its data in `directory`
    /// (absolute, links resolved).
    pub fn read(root: &Path, directory: &Path) -> Host {
        let proc = |path: &str| text::read(&root.join("proc").join(path));
        let sysctl = |path: &str| text::number(&root.join("proc/sys").join(path));
        let mount = proc("self/mountinfo").and_then(|table| mounts::mount_of(&table, directory));
        let limits = proc("self/limits").unwrap_or_default();
        let congestion = Congestion {
            control: proc("sys/net/ipv4/tcp_congestion_control"),
            available: proc("sys/net/ipv4/tcp_available_congestion_control")
                .map(|t| text::choices(&t))
                .unwrap_or_default(),
        };
        let sys = root.join("sys");
        Host {
            kernel: proc("sys/kernel/osrelease"),
            cpus: text::read(&sys.join("devices/system/cpu/online")).as_deref().and_then(text::cpu_list),
            disks: mount.as_ref().map(|mount| block::disks_of(root, mount)).unwrap_or_default(),
            mount,
            memory: MemoryUse {
                transparent_huge_pages: text::read(&sys.join("kernel/mm/transparent_hugepage/enabled"))
                    .as_deref()
                    .and_then(text::chosen),
                swappiness: sysctl("vm/swappiness"),
                swap_kib: proc("meminfo").as_deref().and_then(|table| kib(table, "SwapTotal")),
            },
            open_files: limit(&limits, "Max open files"),
            locked_memory: limit(&limits, "Max locked memory").map(|(soft, _)| soft),
            may_lock_memory: proc("self/status").as_deref().and_then(may_lock_memory),
            congestion,
            somaxconn: sysctl("net/core/somaxconn"),
            tcp_rmem: proc("sys/net/ipv4/tcp_rmem").as_deref().and_then(triple),
            tcp_wmem: proc("sys/net/ipv4/tcp_wmem").as_deref().and_then(triple),
            tcp_slow_start_after_idle: sysctl("net/ipv4/tcp_slow_start_after_idle"),
            io_uring_disabled: sysctl("kernel/io_uring_disabled"),
            io_uring_refused: None,
            governors: governors(&sys),
        }
    }
}

/// A line of /proc/self/limits: soft and hard.
fn limit(table: &str, name: &str) -> Option<(u64, u64)> {
    let mut values = table.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace();
    let mut value = || match values.next()? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    };
    Some((value()?, value()?))
}

fn may_lock_memory(status: &str) -> Option<bool> {
    const CAP_IPC_LOCK: u64 = 14;
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(effective.trim(), 16).ok().map(|set| set >> CAP_IPC_LOCK & 1 == 1)
}

fn kib(meminfo: &str, name: &str) -> Option<u64> {
    let rest = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    rest.split_whitespace().next()?.parse().ok()
}

fn triple(text: &str) -> Option<[u64; 3]> {
    text::numbers(text)?.try_into().ok()
}

fn governors(sys: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(sys.join("devices/system/cpu")) else { return Vec::new() };
    let governor = |entry: std::fs::DirEntry| text::read(&entry.path().join("cpufreq/scaling_governor"));
    let mut governors: Vec<String> = entries.flatten().filter_map(governor).collect();
    governors.sort();
    governors.dedup();
    governors
}
