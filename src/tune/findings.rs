//! The rules: from the facts to what is off. Pure; what is unknown is no finding.

use serde::{Serialize, Serializer};

use super::block::{Bus, Disk};
use super::class::Class;
use super::host::Host;
use super::mend::Mend;

/// One thing that is off, and what mends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Short and stable, for scripts: `swappiness`, `scheduler:sda`.
    pub id: String,
    pub is: String,
    pub should: String,
    pub why: &'static str,
    #[serde(rename = "command", serialize_with = "as_text")]
    pub mend: Mend,
}

fn as_text<S: Serializer>(mend: &Mend, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(mend)
}

fn finding(
    id: impl Into<String>,
    is: impl Into<String>,
    should: impl Into<String>,
    why: &'static str,
    mend: Mend,
) -> Finding {
    Finding { id: id.into(), is: is.into(), should: should.into(), why, mend }
}

/// Everything that is off, in the order in which to mend it.
pub fn findings(host: &Host, class: Class) -> Vec<Finding> {
    let mut all = Vec::new();
    all.extend(io_uring(host));
    all.extend(kernel(host));
    all.extend(file_system(host));
    all.extend(mount_options(host));
    all.extend(open_files(host));
    all.extend(locked_memory(host));
    all.extend(memory(host));
    all.extend(network(host));
    all.extend(governor(host));
    for disk in &host.disks {
        all.extend(device(disk, class));
        all.extend(irqs(disk, host));
    }
    all
}

fn io_uring(host: &Host) -> Option<Finding> {
    const WHY: &str = "the broker does all its I/O through io_uring and does not start without it";
    if let Some(disabled @ 1..) = host.io_uring_disabled {
        let is = match disabled {
            1 => "kernel.io_uring_disabled=1: only for root and the group kernel.io_uring_group".to_owned(),
            other => format!("kernel.io_uring_disabled={other}: for nobody"),
        };
        return Some(finding("io_uring", is, "0", WHY, Mend::sysctl("kernel.io_uring_disabled", "0")));
    }
    let refused = host.io_uring_refused.as_ref()?;
    let command = if refused.contains("LimitMEMLOCK") {
        RAISE_LOCKED
    } else {
        "docker run --security-opt seccomp=PROFILE.json ... (with the three io_uring calls allowed; or what is named above)"
    };
    let mend = Mend::by_hand(command);
    Some(finding("io_uring", refused, "a ring can be made", WHY, mend))
}

const OLDEST_KERNEL: (u32, u32) = (5, 13);

fn kernel(host: &Host) -> Option<Finding> {
    let release = host.kernel.as_ref()?;
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next()?, numbers.next()?);
    (version < OLDEST_KERNEL).then(|| {
        let why = "older ones lack io_uring operations that the broker uses";
        finding(
            "kernel",
            release,
            "5.13 or newer",
            why,
            Mend::by_hand("sudo apt install linux-image-amd64 && sudo reboot"),
        )
    })
}

fn file_system(host: &Host) -> Option<Finding> {
    let mount = host.mount.as_ref()?;
    let kind = mount.file_system.as_str();
    let why = match kind {
        "ext4" | "xfs" => return None,
        _ if mount.is_memory() => "memory has no direct I/O and is empty after a restart",
        "overlay" => {
            "this is a container's own layer: it is gone with the container, and each first write copies a file"
        }
        "btrfs" | "zfs" | "bcachefs" => {
            "it copies on write: each block that a log rewrites lands elsewhere, and direct writes are slow or buffered"
        }
        _ => "the broker's direct writes and reserved blocks are tested on ext4 and XFS only",
    };
    let is = format!("{} is {kind}", mount.point);
    let command = "sudo mkfs.xfs DEVICE && sudo mount -o noatime DEVICE DIRECTORY (then log.dirs=DIRECTORY; in a container, a volume)";
    Some(finding("file-system", is, "ext4 or XFS", why, Mend::by_hand(command)))
}

fn mount_options(host: &Host) -> Vec<Finding> {
    let Some(mount) = &host.mount else { return Vec::new() };
    let remount =
        |options: &str| Mend::by_hand(format!("sudo mount -o remount,{options} {}, and in /etc/fstab", mount.point));
    let mut all = Vec::new();
    let mut off = |option: &str, should: &str, why: &'static str, mend: Mend| {
        if mount.has(option) {
            all.push(finding(
                format!("mount:{option}"),
                format!("{} is mounted with {option}", mount.point),
                should,
                why,
                mend,
            ));
        }
    };
    const BARRIERS: &str =
        "a sync does not reach past the drive's volatile cache: a power cut loses what was acknowledged as synced";
    off("nobarrier", "barrier", BARRIERS, remount("barrier"));
    off("barrier=0", "barrier=1", BARRIERS, remount("barrier=1"));
    off("sync", "async", "each write waits for a sync, whatever the broker's flush options say", remount("async"));
    let journal = "every byte is written twice, and direct I/O is done through the page cache";
    off(
        "data=journal",
        "data=ordered",
        journal,
        Mend::by_hand(format!("mount {} anew without data=journal (/etc/fstab)", mount.point)),
    );
    let discard =
        "each removed segment is trimmed at once, beside the writes; the kernel's XFS page advises against it";
    off(
        "discard",
        "fstrim once a week",
        discard,
        Mend::by_hand(format!(
            "sudo mount -o remount,nodiscard {} && sudo systemctl enable --now fstrim.timer, and in /etc/fstab",
            mount.point
        )),
    );
    all
}

const ENOUGH_FILES: u64 = 65_536;

fn open_files(host: &Host) -> Option<Finding> {
    // The broker raises its soft limit to the hard one by itself.
    let (_, hard) = host.open_files?;
    (hard < ENOUGH_FILES).then(|| {
        let why = "half of the descriptors are for segments, half for connections (seen from this shell; a service has its own limit)";
        let command = "sudo cp tuning/limits-corelane.conf /etc/security/limits.d/ (for the user corelane: name your own in it, and log in anew), or LimitNOFILE=1048576 in the service";
        finding("open-files", format!("ulimit -Hn is {hard}"), format!("{ENOUGH_FILES} or more"), why, Mend::by_hand(command))
    })
}

const RAISE_LOCKED: &str = "sudo cp tuning/limits-corelane.conf /etc/security/limits.d/ (for the user corelane: name your own in it, and log in anew), or LimitMEMLOCK=infinity in the service";

/// Memory that each shard registers: 8 MiB with each of three rings, and the rings.
const LOCKED_PER_SHARD: u64 = 25 << 20;

fn locked_memory(host: &Host) -> Option<Finding> {
    let (limit, cpus) = (host.locked_memory?, host.cpus.as_ref()?.len() as u64);
    if host.may_lock_memory? || limit >= cpus * LOCKED_PER_SHARD {
        return None;
    }
    let why = "the rings' buffers are registered, which saves the kernel from mapping them for each I/O; with less, the broker takes \
               less and says so (seen from this shell; a service has its own limit)";
    let should = format!("{} KiB (25 MiB for each of {cpus} CPUs) or unlimited", cpus * LOCKED_PER_SHARD / 1024);
    Some(finding(
        "locked-memory",
        format!("ulimit -l is {} KiB", limit / 1024),
        should,
        why,
        Mend::by_hand(RAISE_LOCKED),
    ))
}

fn memory(host: &Host) -> Vec<Finding> {
    let mut all = Vec::new();
    if host.memory.transparent_huge_pages.as_deref() == Some("always") {
        let why =
            "buffers that come and go are rounded up to 2 MiB pages: more memory, and pauses while the kernel compacts";
        let mend = Mend::sys("/sys/kernel/mm/transparent_hugepage/enabled", "madvise");
        all.push(finding("transparent-huge-pages", "always", "madvise", why, mend));
    }
    if let (Some(swappiness @ 11..), Some(1..)) = (host.memory.swappiness, host.memory.swap_kib) {
        let why =
            "the caches are the broker's own memory: swapped out, a cache hit is a disk read that stops the event loop";
        let mend = Mend::sysctl("vm.swappiness", "1");
        all.push(finding("swappiness", format!("vm.swappiness={swappiness}, and there is swap"), "1", why, mend));
    }
    all
}

/// Buffer that carries 10 Gbit/s over 3 ms.
const ENOUGH_TCP_BUFFER: u64 = 4 << 20;
const TCP_BUFFER: u64 = 16 << 20;
const ENOUGH_BACKLOG: u64 = 1024;

fn network(host: &Host) -> Vec<Finding> {
    let mut all = Vec::new();
    let congestion = &host.congestion;
    let other = ["cubic", "reno"].into_iter().find(|name| congestion.available.iter().any(|there| there == name));
    if let (Some(control), Some(other)) = (&congestion.control, other)
        && control.starts_with("bbr")
    {
        let why = "bbr paces each connection by timers: measured on loopback about three times slower, and a LAN has no need of it";
        let is = format!("net.ipv4.tcp_congestion_control={control}");
        all.push(finding("congestion-control", is, other, why, Mend::sysctl("net.ipv4.tcp_congestion_control", other)));
    }
    if let Some(backlog) = host.somaxconn.filter(|backlog| *backlog < ENOUGH_BACKLOG) {
        let why = "the kernel cuts each listener's queue to this; when all clients come back at once, what does not fit waits a second and more";
        let is = format!("net.core.somaxconn={backlog}");
        all.push(finding("somaxconn", is, "4096", why, Mend::sysctl("net.core.somaxconn", "4096")));
    }
    for (name, values) in [("tcp_rmem", host.tcp_rmem), ("tcp_wmem", host.tcp_wmem)] {
        let Some([smallest, first, largest]) = values.filter(|[_, _, largest]| *largest < ENOUGH_TCP_BUFFER) else {
            continue;
        };
        let why = "the largest window of a connection: 4 MiB carry 10 Gbit/s over 3 ms, less caps a fast producer or consumer";
        let mend = Mend::sysctl(&format!("net.ipv4.{name}"), format!("{smallest} {first} {TCP_BUFFER}"));
        all.push(finding(name, format!("at most {largest} bytes"), format!("{TCP_BUFFER}"), why, mend));
    }
    if host.tcp_slow_start_after_idle == Some(1) {
        let why =
            "a connection that was quiet for a fifth of a second begins slowly again: each burst pays round trips";
        let mend = Mend::sysctl("net.ipv4.tcp_slow_start_after_idle", "0");
        all.push(finding("slow-start-after-idle", "net.ipv4.tcp_slow_start_after_idle=1", "0", why, mend));
    }
    all
}

fn governor(host: &Host) -> Option<Finding> {
    let slow = host.governors.iter().find(|name| matches!(name.as_str(), "powersave" | "conservative" | "ondemand"))?;
    let why = "the clock rises only after load was seen: requests that come one by one find a slow core";
    let mend = Mend::by_hand("sudo cpupower frequency-set -g performance");
    Some(finding("governor", format!("scaling_governor is {slow}"), "performance", why, mend))
}

const MOST_READ_AHEAD_KB: u64 = 1024;
const FEWEST_REQUESTS: u64 = 32;
const LARGE_WRITE_KB: u64 = 512;

fn device(disk: &Disk, class: Class) -> Vec<Finding> {
    let name = &disk.name;
    let queue = |file: &str, value: &str| Mend::sys(format!("/sys/block/{name}/queue/{file}"), value);
    let mut all = scheduler(disk, class).into_iter().collect::<Vec<_>>();
    let mut off = |id: &str, is: String, should: &str, why: &'static str, mend: Mend| {
        all.push(finding(format!("{id}:{name}"), is, should, why, mend));
    };
    if let Some(requests) = disk.nr_requests.filter(|n| *n < FEWEST_REQUESTS && disk.bus != Bus::Nvme) {
        let why = "further writes wait for a request to come free in kernel threads, out of the scheduler's and the drive's sight";
        off("nr_requests", format!("{requests}"), "64", why, queue("nr_requests", "64"));
    }
    if let Some(ahead) = disk.read_ahead_kb.filter(|kb| *kb > MOST_READ_AHEAD_KB) {
        let why = "direct reads do not use it, but each buffered read does (index files, Kafka's tools, other programs) and takes the disk \
                   for that long";
        off("read-ahead", format!("{ahead} KiB"), "128 KiB", why, queue("read_ahead_kb", "128"));
    }
    if disk.rq_affinity == Some(0) {
        let why =
            "writes complete on whatever CPU the interrupt hits, not on the shard's, whose caches hold the request";
        off("rq_affinity", "0".to_owned(), "2", why, queue("rq_affinity", "2"));
    }
    if let (Some(now), Some(LARGE_WRITE_KB..)) = (disk.max_sectors_kb, disk.max_hw_sectors_kb)
        && now < LARGE_WRITE_KB
    {
        off(
            "max_sectors_kb",
            format!("{now}"),
            "512",
            "the broker's largest writes are split",
            queue("max_sectors_kb", "512"),
        );
    }
    if let Some(block) = disk.logical_block_size.filter(|bytes| *bytes > 4096) {
        let why = "direct I/O here is aligned to 4096 bytes, which such a device refuses";
        let mend = Mend::by_hand(
            "move the data directory to a device with blocks of at most 4096 bytes (nvme format --lbaf=N)",
        );
        off("block-size", format!("{block} bytes"), "at most 4096", why, mend);
    }
    all
}

fn scheduler(disk: &Disk, class: Class) -> Option<Finding> {
    let now = disk.scheduler.as_deref()?;
    let (good, why): (&[&str], _) = match (disk.bus, class) {
        (Bus::Nvme, _) => (
            &["none"],
            "the drive schedules by itself, on many queues; a scheduler in front costs CPU and one lock for all",
        ),
        (Bus::Scsi, Class::Hdd) => {
            (&["mq-deadline"], "it sorts by place, so the head moves less, and no read waits for ever behind writes")
        }
        _ => (
            &["none", "mq-deadline"],
            "bfq and kyber share a disk out among programs, at some CPU for each request; here one program has it",
        ),
    };
    let best = good.iter().find(|name| disk.schedulers.iter().any(|there| there == *name))?;
    if good.contains(&now) {
        return None;
    }
    let path = format!("/sys/block/{}/queue/scheduler", disk.name);
    Some(finding(format!("scheduler:{}", disk.name), now, good.join(" or "), why, Mend::sys(path, *best)))
}

/// Several queues whose interrupts all hit one CPU.
fn irqs(disk: &Disk, host: &Host) -> Option<Finding> {
    let cpus = host.cpus.as_ref().filter(|cpus| cpus.len() > 1)?;
    // An NVMe drive's queue 0 is for administration.
    let queues: Vec<_> =
        disk.irqs.iter().filter(|irq| !(irq.name.starts_with("nvme") && irq.name.ends_with("q0"))).collect();
    let served: Vec<&[usize]> = queues.iter().map(|irq| irq.effective.as_deref()).collect::<Option<_>>()?;
    let [first, rest @ ..] = served.as_slice() else { return None };
    let [only] = first else { return None };
    if rest.is_empty() || rest.iter().any(|other| other != first) {
        return None;
    }
    let spread: Vec<String> = queues
        .iter()
        .zip(cpus.iter().cycle())
        .map(|(irq, cpu)| format!("echo {cpu} | sudo tee /proc/irq/{}/smp_affinity_list", irq.number))
        .collect();
    let is = format!("all {} queues interrupt CPU {only}", queues.len());
    let why = "one shard pays for the I/O of all; irqbalance, or each queue on a CPU of its own, shares it out";
    Some(finding(format!("irq:{}", disk.name), is, "spread over the CPUs", why, Mend::by_hand(spread.join("; "))))
}
