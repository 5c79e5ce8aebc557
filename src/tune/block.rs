//! The disks behind a mount, from /sys/block: through partitions, device mapper and md
//! to the devices themselves.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::mounts::Mount;
use super::text;

/// How a disk is attached, as far as its place in /sys tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bus {
    Nvme,
    /// Paravirtual (virtio, Xen): what is behind it, the guest cannot know.
    Virtual,
    /// Behind the SCSI layer: SATA, SAS.
    Scsi,
    Other,
}

/// One disk. `None` is unknown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Disk {
    pub name: String,
    pub bus: Bus,
    pub model: Option<String>,
    pub rotational: Option<bool>,
    pub scheduler: Option<String>,
    pub schedulers: Vec<String>,
    pub nr_requests: Option<u64>,
    /// Commands the device itself takes at a time.
    pub queue_depth: Option<u64>,
    /// "write back" (a volatile cache: a sync has to empty it) or "write through".
    pub write_cache: Option<String>,
    pub read_ahead_kb: Option<u64>,
    pub rq_affinity: Option<u64>,
    pub max_sectors_kb: Option<u64>,
    pub max_hw_sectors_kb: Option<u64>,
    pub logical_block_size: Option<u64>,
    pub irqs: Vec<Irq>,
}

/// An interrupt of a disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Irq {
    pub number: u32,
    pub name: String,
    /// The CPUs it may be served by.
    pub allowed: Option<Vec<usize>>,
    /// The CPUs it is served by.
    pub effective: Option<Vec<usize>>,
}

/// Deeper stacks of device mapper and md are not followed.
const DEEPEST: usize = 8;

/// The disks that a mount's bytes lie on, by name; none when that cannot be told.
pub(super) fn disks_of(root: &Path, mount: &Mount) -> Vec<Disk> {
    let by_number = fs::canonicalize(root.join("sys/dev/block").join(&mount.device)).ok();
    let Some(node) = by_number.or_else(|| node_of_source(root, &mount.source)) else { return Vec::new() };
    let mut nodes = Vec::new();
    collect(node, 0, &mut nodes);
    nodes.sort();
    nodes.dedup();
    let interrupts = text::read(&root.join("proc/interrupts")).unwrap_or_default();
    nodes.iter().filter_map(|node| disk(root, node, &interrupts)).collect()
}

/// For file systems with an anonymous device number (btrfs): by the name of what is mounted.
fn node_of_source(root: &Path, source: &str) -> Option<PathBuf> {
    let name = source.strip_prefix("/dev/")?;
    // /dev/mapper/x is a link to ../dm-N.
    let device = fs::canonicalize(root.join("dev").join(name)).ok();
    let name = device.as_deref().and_then(Path::file_name).unwrap_or_else(|| Path::new(name).as_os_str());
    fs::canonicalize(root.join("sys/class/block").join(name)).ok()
}

fn collect(mut node: PathBuf, depth: usize, nodes: &mut Vec<PathBuf>) {
    if node.join("partition").exists() {
        node.pop();
    }
    let below: Vec<PathBuf> = match fs::read_dir(node.join("slaves")) {
        Ok(entries) if depth < DEEPEST => {
            entries.flatten().filter_map(|entry| fs::canonicalize(entry.path()).ok()).collect()
        }
        _ => Vec::new(),
    };
    if below.is_empty() {
        nodes.push(node);
        return;
    }
    for node in below {
        collect(node, depth + 1, nodes);
    }
}

fn disk(root: &Path, node: &Path, interrupts: &str) -> Option<Disk> {
    let name = node.file_name()?.to_str()?.to_owned();
    let queue = node.join("queue");
    let number = |key: &str| text::number(&queue.join(key));
    let schedulers = text::read(&queue.join("scheduler"));
    Some(Disk {
        bus: bus(&name, node),
        model: text::read(&node.join("device/model")),
        rotational: number("rotational").and_then(|value| (value <= 1).then_some(value == 1)),
        scheduler: schedulers.as_deref().and_then(text::chosen),
        schedulers: schedulers.as_deref().map(text::choices).unwrap_or_default(),
        nr_requests: number("nr_requests"),
        queue_depth: text::number(&node.join("device/queue_depth")),
        write_cache: text::read(&queue.join("write_cache")),
        read_ahead_kb: number("read_ahead_kb"),
        rq_affinity: number("rq_affinity"),
        max_sectors_kb: number("max_sectors_kb"),
        max_hw_sectors_kb: number("max_hw_sectors_kb"),
        logical_block_size: number("logical_block_size"),
        irqs: irqs(root, &name, node, interrupts),
        name,
    })
}

fn bus(name: &str, node: &Path) -> Bus {
    let has = |what: fn(&str) -> bool| node.components().filter_map(|part| part.as_os_str().to_str()).any(what);
    if name.starts_with("nvme") {
        Bus::Nvme
    } else if name.starts_with("vd") || name.starts_with("xvd") || has(|part| part.starts_with("virtio")) {
        Bus::Virtual
    } else if has(|part| part.starts_with("ata") || part.starts_with("host")) {
        Bus::Scsi
    } else {
        Bus::Other
    }
}

/// The disk's lines of /proc/interrupts: an NVMe controller's and a virtio disk's queues have its
/// name, a SATA controller's line has its PCI address.
fn irqs(root: &Path, name: &str, node: &Path, interrupts: &str) -> Vec<Irq> {
    let parts: Vec<&str> = node.components().filter_map(|part| part.as_os_str().to_str()).collect();
    let controller = name.strip_prefix("nvme").map(|rest| {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        format!("nvme{}q", &rest[..digits])
    });
    let virtio = parts.iter().find(|part| part.starts_with("virtio")).map(|part| format!("{part}-req"));
    let address = parts.iter().rev().find(|part| is_pci_address(part)).map(|part| (*part).to_owned());
    let is_its = |word: &str| match (&controller, &virtio, &address) {
        (Some(queue), _, _) | (None, Some(queue), _) => word.starts_with(queue.as_str()),
        (None, None, Some(address)) => word.contains('[') && word.contains(address.as_str()),
        _ => false,
    };
    let lines = interrupts.lines().filter_map(|line| {
        let (number, rest) = line.trim_start().split_once(':')?;
        // The device's name follows the counts and the controller; "nvme0q0, nvme0q1"
        // where one line is shared.
        let words = rest.split([' ', ',']).filter(|word| !word.is_empty());
        let its = words.skip_while(|word| word.bytes().all(|b| b.is_ascii_digit())).find(|word| is_its(word))?;
        Some((number.parse().ok()?, its.to_owned()))
    });
    let affinity = |number: u32, key: &str| {
        text::read(&root.join(format!("proc/irq/{number}/{key}"))).as_deref().and_then(text::cpu_list)
    };
    lines
        .map(|(number, name)| Irq {
            number,
            name,
            allowed: affinity(number, "smp_affinity_list"),
            effective: affinity(number, "effective_affinity_list"),
        })
        .collect()
}

/// `0000:00:1f.2`
fn is_pci_address(part: &str) -> bool {
    let Some((bus, function)) = part.rsplit_once('.') else { return false };
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    hex(function) && bus.split(':').count() == 3 && bus.split(':').all(hex)
}
