//! Made-up hosts: what is read from their /proc and /sys, what is found, which profile fits,
//! and the files of `tuning/`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::*;
use crate::config::{ServerConfig, properties};

/// Options of the shipped profiles that the broker is about to get. Empty once it has them.
const UPCOMING: &[&str] = &[];

/// A root directory with made-up texts below it.
struct Tree(tempfile::TempDir);

impl Tree {
    fn empty() -> Tree {
        Tree(tempfile::tempdir().unwrap())
    }

    /// A host on which nothing is off, with its data on `device` (`major:minor source`).
    fn sound(device: &str, file_system: &str) -> Tree {
        let (number, source) = device.split_once(' ').unwrap();
        Tree::empty()
            .with(
                "proc/self/mountinfo",
                &format!("27 1 {number} / / rw,relatime shared:1 - {file_system} {source} rw\n"),
            )
            .with("proc/self/limits", LIMITS)
            .with("proc/self/status", "Name:\tx\nCapEff:\t0000000000000000\n")
            .with("proc/meminfo", "MemTotal: 1 kB\nSwapTotal:       1048572 kB\n")
            .with("proc/sys/kernel/osrelease", "6.1.0-18-amd64\n")
            .with("proc/sys/kernel/io_uring_disabled", "0\n")
            .with("proc/sys/vm/swappiness", "1\n")
            .with("proc/sys/net/core/somaxconn", "4096\n")
            .with("proc/sys/net/ipv4/tcp_congestion_control", "cubic\n")
            .with("proc/sys/net/ipv4/tcp_available_congestion_control", "reno cubic\n")
            .with("proc/sys/net/ipv4/tcp_rmem", "4096\t131072\t6291456\n")
            .with("proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t4194304\n")
            .with("proc/sys/net/ipv4/tcp_slow_start_after_idle", "0\n")
            .with("sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never\n")
            .with("sys/devices/system/cpu/online", "0-3\n")
            .with("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "performance\n")
    }

    fn with(self, path: &str, text: &str) -> Tree {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn without(self, path: &str) -> Tree {
        fs::remove_file(self.0.path().join(path)).unwrap();
        self
    }

    /// A link at `path` to another path of the tree.
    fn link(self, path: &str, to: &str) -> Tree {
        let (path, to) = (self.0.path().join(path), self.0.path().join(to));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::create_dir_all(&to).unwrap();
        symlink(to, path).unwrap();
        self
    }

    fn queue(self, node: &str, rotational: &str, scheduler: &str) -> Tree {
        let file = |name: &str| format!("{node}/queue/{name}");
        self.with(&file("rotational"), rotational)
            .with(&file("scheduler"), scheduler)
            .with(&file("nr_requests"), "64\n")
            .with(&file("write_cache"), "write back\n")
            .with(&file("read_ahead_kb"), "128\n")
            .with(&file("rq_affinity"), "1\n")
            .with(&file("max_sectors_kb"), "1280\n")
            .with(&file("max_hw_sectors_kb"), "32767\n")
            .with(&file("logical_block_size"), "512\n")
    }

    fn read(&self) -> Host {
        Host::read(self.0.path(), Path::new("/srv/data"))
    }

    fn ids(&self, measured: Option<&Measured>) -> (Class, Vec<String>) {
        let host = self.read();
        let class = fit(&host, measured).class;
        (class, findings(&host, class).into_iter().map(|finding| finding.id).collect())
    }
}

const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units
Max open files            1024                 1048576              files
Max locked memory         unlimited            unlimited            bytes
";

const NVME: &str = "sys/devices/pci0000:00/0000:00:1d.0/0000:03:00.0/nvme/nvme0/nvme0n1";
const SATA: &str = "sys/devices/pci0000:00/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda";
const SECOND: &str = "sys/devices/pci0000:00/0000:00:17.0/ata2/host1/target1:0:0/1:0:0:0/block/sdb";
const VIRTIO: &str = "sys/devices/pci0000:00/0000:00:02.0/virtio1/block/vda";

fn nvme() -> Tree {
    Tree::sound("259:2 /dev/nvme0n1p2", "ext4")
        .queue(NVME, "0\n", "[none] mq-deadline kyber\n")
        .with(&format!("{NVME}/nvme0n1p2/partition"), "2\n")
        .with(&format!("{NVME}/device/model"), "Example SSD 990   \n")
        .link("sys/dev/block/259:2", &format!("{NVME}/nvme0n1p2"))
        .with("proc/interrupts", INTERRUPTS)
        .with("proc/irq/40/effective_affinity_list", "0\n")
        .with("proc/irq/41/effective_affinity_list", "0\n")
        .with("proc/irq/42/effective_affinity_list", "1\n")
        .with("proc/irq/42/smp_affinity_list", "0-1\n")
}

const INTERRUPTS: &str = "            CPU0       CPU1
 36:          0    2732481 PCI-MSIX-0000:00:02.0   1-edge      virtio1-req.0
 37:          5          0 PCI-MSIX-0000:00:02.0   2-edge      virtio1-req.1
 38:          0          1 PCI-MSI-0000:00:17.0   0-edge      ahci[0000:00:17.0]
 40:          1          0 PCI-MSIX-0000:03:00.0   0-edge      nvme0q0
 41:        100          0 PCI-MSIX-0000:03:00.0   1-edge      nvme0q1
 42:          0        100 PCI-MSIX-0000:03:00.0   2-edge      nvme0q2
 43:          0        100 PCI-MSIX-0000:04:00.0   2-edge      nvme01q2
NMI:          0          0   Non-maskable interrupts
";

fn sata(rotational: &str, scheduler: &str) -> Tree {
    Tree::sound("8:1 /dev/sda1", "xfs")
        .queue(SATA, rotational, scheduler)
        .with(&format!("{SATA}/sda1/partition"), "1\n")
        .with(&format!("{SATA}/device/queue_depth"), "32\n")
        .link("sys/dev/block/8:1", &format!("{SATA}/sda1"))
        .with("proc/interrupts", INTERRUPTS)
}

fn virtio() -> Tree {
    Tree::sound("254:0 /dev/vda", "ext4")
        .queue(VIRTIO, "1\n", "none [mq-deadline] kyber bfq\n")
        .link("sys/dev/block/254:0", VIRTIO)
        .with("proc/interrupts", INTERRUPTS)
}

fn measured(mb_per_s: f64, sync_p50_us: u64) -> Measured {
    let all = WRITE_SIZES.iter().flat_map(|size| WRITE_DEPTHS.iter().map(move |depth| (*size, *depth)));
    let writes = all.map(|(size, depth)| Throughput { size, depth, rewritten: false, mb_per_s }).collect();
    Measured { writes, read_mb_per_s: Some(mb_per_s), sync_p50_us: Some(sync_p50_us), sync_p99_us: Some(sync_p50_us) }
}

// ---- hosts

#[test]
fn an_nvme_drive_behind_a_partition() {
    let tree = nvme();
    let host = tree.read();
    let [disk] = host.disks.as_slice() else { panic!("{:?}", host.disks) };
    assert_eq!((disk.name.as_str(), disk.rotational), ("nvme0n1", Some(false)));
    assert_eq!((disk.scheduler.as_deref(), disk.model.as_deref()), (Some("none"), Some("Example SSD 990")));
    let irqs: Vec<_> = disk.irqs.iter().map(|irq| (irq.number, irq.name.as_str())).collect();
    assert_eq!(irqs, [(40, "nvme0q0"), (41, "nvme0q1"), (42, "nvme0q2")]);
    assert_eq!(disk.irqs[2].allowed, Some(vec![0, 1]));
    assert_eq!(host.open_files, Some((1024, 1_048_576)));
    assert_eq!(tree.ids(None), (Class::Nvme, vec![]));
    let other = nvme().with(&format!("{NVME}/queue/scheduler"), "none [mq-deadline] kyber\n");
    assert_eq!(other.ids(None).1, ["scheduler:nvme0n1"]);
    let crowded = nvme().with("proc/irq/42/effective_affinity_list", "0\n");
    assert_eq!(crowded.ids(None).1, ["irq:nvme0n1"]);
}

#[test]
fn a_sata_ssd_and_a_hard_disk() {
    assert_eq!(sata("0\n", "none [mq-deadline] bfq\n").ids(None), (Class::SataSsd, vec![]));
    assert_eq!(sata("0\n", "[none] mq-deadline bfq\n").ids(None), (Class::SataSsd, vec![]));
    assert_eq!(sata("0\n", "none mq-deadline [bfq]\n").ids(None).1, ["scheduler:sda"]);
    assert_eq!(sata("1\n", "none [mq-deadline] bfq\n").ids(None), (Class::Hdd, vec![]));
    assert_eq!(sata("1\n", "[none] mq-deadline bfq\n").ids(None), (Class::Hdd, vec!["scheduler:sda".into()]));
    // A scheduler that the kernel has not cannot be chosen.
    assert_eq!(sata("1\n", "[none]\n").ids(None), (Class::Hdd, vec![]));
    let host = sata("0\n", "[none]\n").read();
    assert_eq!(host.disks[0].irqs[0].name, "ahci[0000:00:17.0]");
    assert_eq!(host.disks[0].queue_depth, Some(32));
}

#[test]
fn a_virtual_disk_is_what_was_measured() {
    let tree = virtio();
    assert_eq!(tree.read().disks[0].bus, block::Bus::Virtual);
    assert_eq!(tree.ids(None), (Class::SataSsd, vec![]));
    assert_eq!(tree.ids(Some(&measured(1500.0, 200))).0, Class::Nvme);
    assert_eq!(tree.ids(Some(&measured(450.0, 2000))).0, Class::SataSsd);
    assert_eq!(tree.ids(Some(&measured(150.0, 8000))).0, Class::Hdd);
    assert!(fit(&tree.read(), None).why.contains("not measured"));
}

#[test]
fn the_slowest_disk_of_an_array_decides() {
    let tree = Tree::sound("253:0 /dev/mapper/data", "xfs")
        .queue(SATA, "0\n", "[none]\n")
        .queue(SECOND, "1\n", "[none] mq-deadline\n")
        .with(&format!("{SATA}/sda1/partition"), "1\n")
        .queue("sys/devices/virtual/block/dm-0", "0\n", "none\n")
        .link("sys/dev/block/253:0", "sys/devices/virtual/block/dm-0")
        .link("sys/devices/virtual/block/dm-0/slaves/md0", "sys/devices/virtual/block/md0")
        .link("sys/devices/virtual/block/md0/slaves/sda1", &format!("{SATA}/sda1"))
        .link("sys/devices/virtual/block/md0/slaves/sdb", SECOND);
    let names: Vec<_> = tree.read().disks.into_iter().map(|disk| disk.name).collect();
    assert_eq!(names, ["sda", "sdb"]);
    assert_eq!(tree.ids(None), (Class::Hdd, vec!["scheduler:sdb".into()]));
}

#[test]
fn a_stack_that_bites_its_tail_ends() {
    let tree = Tree::sound("253:0 /dev/mapper/data", "xfs")
        .link("sys/dev/block/253:0", "sys/devices/virtual/block/dm-0")
        .link("sys/devices/virtual/block/dm-0/slaves/dm-0", "sys/devices/virtual/block/dm-0");
    assert_eq!(tree.read().disks.len(), 1);
}

#[test]
fn an_anonymous_device_is_found_by_its_name() {
    let tree = Tree::sound("0:41 /dev/sda1", "btrfs")
        .queue(SATA, "0\n", "[none]\n")
        .with(&format!("{SATA}/sda1/partition"), "1\n")
        .link("sys/class/block/sda1", &format!("{SATA}/sda1"));
    assert_eq!(tree.ids(None), (Class::SataSsd, vec!["file-system".into()]));
}

#[test]
fn what_is_missing_is_unknown_and_no_finding() {
    let bare = Tree::empty();
    assert_eq!(bare.read(), Host::default());
    assert_eq!(bare.ids(None), (Class::SataSsd, vec![]));
    assert_eq!(fit(&bare.read(), Some(&measured(2000.0, 90))).class, Class::Nvme);
    // A container: its own layer, no block devices, half of /proc/sys hidden.
    let container = Tree::sound("0:55 overlay", "overlay")
        .without("proc/sys/net/ipv4/tcp_rmem")
        .without("proc/sys/vm/swappiness")
        .without("proc/self/limits")
        .without("sys/kernel/mm/transparent_hugepage/enabled")
        .without("sys/devices/system/cpu/online");
    assert_eq!(container.ids(None), (Class::SataSsd, vec!["file-system".into()]));
    let report = report_of(&container.read(), None);
    assert!(report.text().contains("unknown"), "{}", report.text());
}

#[test]
fn odd_texts_are_unknown() {
    let odd = nvme()
        .with("proc/self/limits", "Max open files\nMax locked memory  a few\n")
        .with("proc/sys/vm/swappiness", "sixty\n")
        .with("proc/sys/net/ipv4/tcp_rmem", "1 2\n")
        .with("proc/interrupts", "x\n:\n 1:\n 2: nvme0q1\n")
        .with("sys/devices/system/cpu/online", "9-1\n")
        .with(&format!("{NVME}/queue/rotational"), "7\n")
        .with(&format!("{NVME}/queue/scheduler"), "\n")
        .with(&format!("{NVME}/queue/nr_requests"), "-1\n")
        .with("proc/self/status", "CapEff: xyz\n");
    let host = odd.read();
    assert_eq!((host.open_files, host.memory.swappiness, host.tcp_rmem, host.cpus.clone()), (None, None, None, None));
    assert_eq!((host.disks[0].rotational, host.disks[0].nr_requests), (None, None));
    assert_eq!(odd.ids(None), (Class::Nvme, vec![]));
}

// ---- rules

/// One text of a sound host made bad gives exactly this finding.
#[test]
fn each_rule_finds_its_own() {
    let cases = [
        ("proc/sys/kernel/io_uring_disabled", "1", "io_uring", "sudo sysctl -w kernel.io_uring_disabled=0"),
        ("proc/sys/kernel/osrelease", "5.4.0-150-generic", "kernel", "sudo apt"),
        ("proc/sys/vm/swappiness", "60", "swappiness", "sudo sysctl -w vm.swappiness=1"),
        ("proc/sys/net/core/somaxconn", "128", "somaxconn", "sudo sysctl -w net.core.somaxconn=4096"),
        ("proc/sys/net/ipv4/tcp_congestion_control", "bbr", "congestion-control", "=cubic"),
        ("proc/sys/net/ipv4/tcp_rmem", "4096 87380 212992", "tcp_rmem", "net.ipv4.tcp_rmem='4096 87380 16777216'"),
        ("proc/sys/net/ipv4/tcp_wmem", "4096 16384 65536", "tcp_wmem", "net.ipv4.tcp_wmem='4096 16384 16777216'"),
        ("proc/sys/net/ipv4/tcp_slow_start_after_idle", "1", "slow-start-after-idle", "after_idle=0"),
        (
            "sys/kernel/mm/transparent_hugepage/enabled",
            "[always] madvise never",
            "transparent-huge-pages",
            "echo madvise",
        ),
        ("sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "powersave", "governor", "cpupower"),
        ("proc/self/limits", "Max open files 1024 4096 files\n", "open-files", "limits-corelane.conf"),
        ("proc/self/limits", "Max locked memory 8388608 8388608 bytes\n", "locked-memory", "LimitMEMLOCK"),
    ];
    for (path, text, id, command) in cases {
        let host = nvme().with(path, text).read();
        let found = findings(&host, Class::Nvme);
        let [one] = found.as_slice() else { panic!("{path}: {found:?}") };
        assert_eq!(one.id, id);
        assert!(one.mend.to_string().contains(command), "{}", one.mend);
    }
    let queue = [
        ("read_ahead_kb", "8192", "read-ahead:sda"),
        ("nr_requests", "4", "nr_requests:sda"),
        ("rq_affinity", "0", "rq_affinity:sda"),
        ("max_sectors_kb", "128", "max_sectors_kb:sda"),
        ("logical_block_size", "16384", "block-size:sda"),
    ];
    for (file, text, id) in queue {
        let tree = sata("0\n", "[none]\n").with(&format!("{SATA}/queue/{file}"), text);
        assert_eq!(tree.ids(None).1, [id]);
    }
    for (options, ids) in [
        ("rw,discard", vec!["mount:discard"]),
        ("rw,nobarrier", vec!["mount:nobarrier"]),
        ("rw,barrier=0,data=journal", vec!["mount:barrier=0", "mount:data=journal"]),
        ("rw,sync", vec!["mount:sync"]),
    ] {
        let table = format!("27 1 259:2 / / rw,relatime - ext4 /dev/nvme0n1p2 {options}\n");
        assert_eq!(nvme().with("proc/self/mountinfo", &table).ids(None).1, ids);
    }
}

#[test]
fn what_does_no_harm_is_no_finding() {
    let no_swap = nvme().with("proc/sys/vm/swappiness", "60").with("proc/meminfo", "SwapTotal: 0 kB\n");
    assert_eq!(no_swap.ids(None).1, [""; 0]);
    let unknown_swap = nvme().with("proc/sys/vm/swappiness", "60").with("proc/meminfo", "MemTotal: 5 kB\n");
    assert_eq!(unknown_swap.ids(None).1, [""; 0]);
    let privileged = nvme()
        .with("proc/self/limits", "Max locked memory 65536 65536 bytes\n")
        .with("proc/self/status", "CapEff:\t000001ffffffffff\n");
    assert_eq!(privileged.ids(None).1, [""; 0]);
    let nothing_else = nvme()
        .with("proc/sys/net/ipv4/tcp_congestion_control", "bbr")
        .with("proc/sys/net/ipv4/tcp_available_congestion_control", "bbr");
    assert_eq!(nothing_else.ids(None).1, [""; 0]);
    let memory = Tree::sound("0:30 tmpfs", "tmpfs");
    assert_eq!(memory.ids(None).1, ["file-system"]);
    let mut refused = nvme().read();
    refused.io_uring_refused = Some("forbidden".into());
    assert_eq!(findings(&refused, Class::Nvme)[0].id, "io_uring");
    assert!(findings(&refused, Class::Nvme)[0].mend.to_string().contains("seccomp"));
    refused.io_uring_refused = Some("set LimitMEMLOCK=1216K".into());
    assert!(findings(&refused, Class::Nvme)[0].mend.to_string().contains("limits-corelane.conf"));
}

#[test]
fn every_mend_below_proc_and_sys_mends_its_finding() {
    let tree = sata("1\n", "[none] mq-deadline\n")
        .with("proc/sys/vm/swappiness", "60")
        .with("proc/sys/net/ipv4/tcp_wmem", "4096 16384 65536")
        .with("proc/sys/net/ipv4/tcp_slow_start_after_idle", "1")
        .with(&format!("{SATA}/queue/read_ahead_kb"), "8192")
        .link("sys/block/sda", SATA);
    let before = findings(&tree.read(), Class::Hdd);
    assert_eq!(before.len(), 5, "{before:?}");
    for finding in &before {
        // The kernel replaces the whole value; a made-up file has to be emptied first.
        if let Mend::Sysctl { key, .. } = &finding.mend {
            fs::write(tree.0.path().join("proc/sys").join(key.replace('.', "/")), "").unwrap();
        }
        if let Mend::Sys { path, .. } = &finding.mend {
            fs::write(tree.0.path().join(path.strip_prefix("/").unwrap()), "").unwrap();
        }
        finding.mend.apply(tree.0.path()).unwrap().unwrap();
    }
    assert_eq!(findings(&tree.read(), Class::Hdd), []);
}

// ---- profiles

fn report_of(host: &Host, measured: Option<Measured>) -> Report {
    let fit = fit(host, measured.as_ref());
    let findings = findings(host, fit.class);
    let profile = Profile::fitted(fit.class, measured.as_ref());
    Report { directory: "/srv/data".into(), host: host.clone(), measured, fit, findings, profile }
}

fn value(profile: &Profile, key: &str) -> String {
    profile.settings.iter().find(|setting| setting.key == key).map(|setting| setting.value.clone()).unwrap_or_default()
}

#[test]
fn values_come_from_the_measurement() {
    let mut grows = measured(1000.0, 6200);
    for write in &mut grows.writes {
        write.mb_per_s = [200.0, 800.0, 850.0][WRITE_DEPTHS.iter().position(|depth| *depth == write.depth).unwrap()];
    }
    let profile = Profile::fitted(Class::Nvme, Some(&grows));
    assert_eq!(value(&profile, "corelane.write.queue.depth"), "4");
    assert_eq!(value(&profile, "corelane.write.max.bytes"), "524288");
    assert_eq!(value(&profile, "corelane.flush.delay.ms"), "4");
    for write in &mut grows.writes {
        write.mb_per_s = if write.size == WRITE_SIZES[0] { 500.0 } else { 300.0 };
    }
    grows.sync_p50_us = Some(999);
    let profile = Profile::fitted(Class::Hdd, Some(&grows));
    assert_eq!(value(&profile, "corelane.write.max.bytes"), "65536");
    assert_eq!(value(&profile, "corelane.write.queue.depth"), "2");
    assert_eq!(value(&profile, "corelane.flush.delay.ms"), "0");
    grows.sync_p50_us = Some(90_000);
    assert_eq!(value(&Profile::fitted(Class::Hdd, Some(&grows)), "corelane.flush.delay.ms"), "10");
    assert_eq!(Profile::fitted(Class::Hdd, Some(&Measured::default())), Profile::shipped(Class::Hdd));
}

#[test]
fn a_written_profile_loads_without_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    for class in Class::ALL {
        for measured in [None, Some(measured(700.0, 3000))] {
            let profile = Profile::fitted(class, measured.as_ref());
            let fit = Fit { class, why: "made\nup=1".into() };
            let text = profile.text(&fit, "/srv/odd\nnode.id=7", measured.as_ref());
            let path = dir.path().join("tuned.properties");
            fs::write(&path, &text).unwrap();
            let (config, warnings) = ServerConfig::load(Some(&path), &[]).unwrap();
            assert_eq!(warnings, [], "{text}");
            assert_eq!(config.broker_id, 0, "a line break in a name became an option");
            let tail: u64 = value(&profile, "corelane.tail.cache.bytes").parse().unwrap();
            assert_eq!(config.tail_cache_bytes as u64, tail);
            for line in text.lines() {
                assert!(line.is_empty() || line.starts_with(['#', 'c']), "{line}");
            }
        }
    }
}

#[test]
fn the_report_is_whole_in_both_forms() {
    let host = sata("1\n", "[none] mq-deadline\n").read();
    let report = report_of(&host, Some(measured(150.0, 8000)));
    let text = report.text();
    for part in [
        "profile hdd",
        "sda",
        "scheduler:sda",
        "because ",
        "echo mq-deadline | sudo tee /sys/block/sda/queue/scheduler",
        "8.00 ms",
    ] {
        assert!(text.contains(part), "{part} is not in:\n{text}");
    }
    let value = json(&report, Some("out"), &[("do".into(), Some("denied".into()))]);
    assert_eq!(value["version"], 1);
    assert_eq!(value["profile"]["class"], "hdd");
    assert_eq!(value["profile"]["producer"]["compression.type"], "zstd");
    assert_eq!(value["findings"][0]["command"], "echo mq-deadline | sudo tee /sys/block/sda/queue/scheduler");
    assert_eq!(value["findings"][0]["applicable"], true);
    assert_eq!(value["host"]["disks"][0]["rotational"], true);
    assert_eq!(value["applied"][0]["error"], "denied");
}

// ---- the files of tuning/

fn tuning(name: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("tuning").join(name);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn shipped_profiles_load_and_are_whole() {
    for class in Class::ALL {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tuning/{}.properties", class.name()));
        let (_, warnings) = ServerConfig::load(Some(&path), &[]).unwrap();
        let unknown: Vec<_> = warnings.iter().filter(|w| !UPCOMING.contains(&w.option.as_str())).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
        let profile = Profile::shipped(class);
        let keys: Vec<&str> = profile.settings.iter().map(|setting| setting.key.as_str()).collect();
        assert_eq!(keys, WHOLE, "{}", class.name());
        for setting in &profile.settings {
            assert!(setting.why.len() > 40, "{} has no reason: {:?}", setting.key, setting.why);
        }
        let producer: Vec<&str> = profile.producer.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(producer, ["batch.size", "linger.ms", "compression.type"]);
        let file = properties::parse(&tuning(&format!("producer-{}.properties", class.name()))).unwrap();
        let file: Vec<_> = file.into_iter().map(|property| (property.key, property.value)).collect();
        assert_eq!(file, profile.producer, "producer-{}.properties", class.name());
    }
}

const WHOLE: &[&str] = &[
    "corelane.write.max.bytes",
    "corelane.write.queue.depth",
    "corelane.append.linger.us",
    "corelane.write.behind.max.ms",
    "corelane.arena.bytes",
    "corelane.flush.delay.ms",
    "corelane.preallocate.max.bytes",
    "corelane.checkpoint.bytes",
    "corelane.tail.cache.bytes",
    "corelane.cache.bytes",
    "corelane.cold.cache.bytes",
    "corelane.index.cache.bytes",
];

/// Lines that are neither empty nor comments, each of which must come right below a comment.
fn reasoned(name: &str, mark: char) -> Vec<String> {
    let text = tuning(name);
    let (mut reason, mut lines) = (false, Vec::new());
    for line in text.lines() {
        if line.trim().is_empty() {
            reason = false;
        } else if line.starts_with(mark) {
            reason = true;
        } else {
            assert!(reason, "{name}: no reason above {line}");
            lines.push(line.to_owned());
        }
    }
    lines
}

#[test]
fn sysctl_keys_are_well_formed() {
    let lines = reasoned("99-corelane.conf", '#');
    let mut keys = Vec::new();
    for line in &lines {
        let (key, value) = line.split_once('=').unwrap_or_else(|| panic!("{line}"));
        // A leading - passes over keys that the kernel has not.
        let (key, value) = (key.trim().trim_start_matches('-'), value.trim());
        assert!(["vm.", "net.core.", "net.ipv4.", "kernel."].iter().any(|start| key.starts_with(start)), "{key}");
        assert!(key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._".contains(&b)), "{key}");
        assert!(!value.is_empty() && !value.contains('#'), "{line}");
        // Where this kernel has the key, it takes as many values.
        if let Ok(now) = fs::read_to_string(Path::new("/proc/sys").join(key.replace('.', "/"))) {
            assert_eq!(now.split_whitespace().count(), value.split_whitespace().count(), "{key}: {now}");
        }
        assert!(!keys.contains(&key.to_owned()), "{key} twice");
        keys.push(key.to_owned());
    }
    for wanted in ["vm.swappiness", "net.core.somaxconn", "net.ipv4.tcp_rmem", "net.ipv4.tcp_congestion_control"] {
        assert!(keys.iter().any(|key| key == wanted), "{wanted} is missing");
    }
}

#[test]
fn limits_are_well_formed() {
    let lines = reasoned("limits-corelane.conf", '#');
    let mut items = Vec::new();
    for line in &lines {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [who, kind, item, value] = fields.as_slice() else { panic!("{line}") };
        assert_eq!(*who, "corelane");
        assert!(
            ["soft", "hard", "-"].contains(kind) && (*value == "unlimited" || value.parse::<u64>().is_ok()),
            "{line}"
        );
        items.push((*item).to_owned());
    }
    assert_eq!(items, ["nofile", "memlock"]);
}

#[test]
fn scheduler_rules_cover_the_three_kinds() {
    let lines = reasoned("60-corelane-scheduler.rules", '#');
    let all = lines.join("\n");
    for line in &lines {
        assert!(line.starts_with("ACTION==\"add|change\", SUBSYSTEM==\"block\""), "{line}");
        assert_eq!(line.matches('"').count() % 2, 0, "{line}");
        assert!(line.contains("ATTR{queue/") && !line.ends_with(','), "{line}");
    }
    for part in [
        "nvme[0-9]*n[0-9]*",
        "queue/rotational}==\"0\"",
        "queue/rotational}==\"1\"",
        "queue/scheduler}=\"none\"",
        "queue/scheduler}=\"mq-deadline\"",
    ] {
        assert!(all.contains(part), "{part} is missing");
    }
}

#[test]
fn the_unit_has_its_directives() {
    let lines = reasoned("corelane.service", '#');
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    for section in ["[Unit]", "[Service]", "[Install]"] {
        assert_eq!(lines.iter().filter(|line| **line == section).count(), 1, "{section}");
    }
    for line in &lines {
        let is_directive = line.split_once('=').is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_alphanumeric()));
        assert!(is_directive || line.starts_with('['), "{line}");
    }
    for wanted in [
        "LimitNOFILE=1048576",
        "LimitMEMLOCK=infinity",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "ReadWritePaths=/var/lib/corelane",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
        "SystemCallFilter=@system-service io_uring_setup io_uring_enter io_uring_register",
        "User=corelane",
        "KillSignal=SIGTERM",
    ] {
        assert!(lines.contains(&wanted), "{wanted} is missing");
    }
}
