//! Memory that the process may have: of the machine, and of the control groups that it is in.

use std::fs;
use std::io;
use std::path::Path;

/// Tasks that have waited for memory for more than this part of the last ten seconds, in per cent.
const SHORT_PERCENT: f64 = 5.0;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostMemory {
    pub total: u64,
    /// Without swapping, bytes.
    pub available: u64,
    /// Others wait for memory (/proc/pressure/memory).
    pub is_short: bool,
}

impl HostMemory {
    /// As it is now. Reads files of the kernel that never wait for a device.
    pub fn now() -> io::Result<HostMemory> {
        HostMemory::read(Path::new("/"))
    }

    fn read(root: &Path) -> io::Result<HostMemory> {
        let path = root.join("proc/meminfo");
        let text =
            fs::read_to_string(&path).map_err(|e| io::Error::new(e.kind(), format!("{}: {e}", path.display())))?;
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
            let kib = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
            let missing = || io::Error::new(io::ErrorKind::InvalidData, format!("{}: no {name}", path.display()));
            kib.map(|kib| kib.saturating_mul(1024)).ok_or_else(missing)
        };
        let mut memory = HostMemory { total: value("MemTotal")?, available: value("MemAvailable")?, is_short: false };
        memory.is_short = is_short(&root.join("proc/pressure/memory"));
        let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
        for (files, own) in groups.lines().filter_map(Files::of) {
            for group in own.ancestors() {
                memory.bound_by(files, &root.join(files.mount).join(group));
            }
        }
        Ok(memory)
    }

    /// Takes the limit of a control group into account, if it has one.
    fn bound_by(&mut self, files: &Files, group: &Path) {
        let number = |name: &str| fs::read_to_string(group.join(name)).ok()?.trim().parse::<u64>().ok();
        if let (Some(most), Some(used)) = (number(files.most), number(files.used)) {
            // Page cache that the group gives up before it runs short.
            let stat = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
            let cache = stat.lines().find_map(|line| line.strip_prefix(files.cache)?.trim().parse().ok()).unwrap_or(0);
            self.total = self.total.min(most);
            self.available = self.available.min(most.saturating_sub(used.saturating_sub(cache)));
            self.is_short |= is_short(&group.join("memory.pressure"));
        }
    }
}

/// Names of the files of a control group.
struct Files {
    mount: &'static str,
    most: &'static str,
    used: &'static str,
    /// A line of `memory.stat`.
    cache: &'static str,
}

const VERSION_1: Files = Files {
    mount: "sys/fs/cgroup/memory",
    most: "memory.limit_in_bytes",
    used: "memory.usage_in_bytes",
    cache: "total_inactive_file ",
};
const VERSION_2: Files =
    Files { mount: "sys/fs/cgroup", most: "memory.max", used: "memory.current", cache: "inactive_file " };

impl Files {
    /// Of a line of /proc/self/cgroup that names the group for memory, below its mount.
    fn of(line: &str) -> Option<(&'static Files, &Path)> {
        let (number, rest) = line.split_once(':')?;
        let (controllers, group) = rest.split_once(":/")?;
        let files = match number {
            "0" => &VERSION_2,
            _ if controllers.split(',').any(|controller| controller == "memory") => &VERSION_1,
            _ => return None,
        };
        Some((files, Path::new(group)))
    }
}

fn is_short(pressure: &Path) -> bool {
    let text = fs::read_to_string(pressure).unwrap_or_default();
    let some = text.lines().find_map(|line| line.strip_prefix("some "));
    let percent = some.and_then(|rest| rest.split_whitespace().next()?.strip_prefix("avg10=")?.parse::<f64>().ok());
    percent.is_some_and(|percent| percent > SHORT_PERCENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_and_the_groups_bound_it() {
        let root = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        assert!(HostMemory::read(root.path()).unwrap_err().to_string().contains("proc/meminfo"));
        write("proc/meminfo", "MemTotal:       1000 kB\n");
        assert!(HostMemory::read(root.path()).unwrap_err().to_string().ends_with("no MemAvailable"));
        write("proc/meminfo", "MemTotal:       1000 kB\nMemFree: 1 kB\nMemAvailable:    600 kB\n");
        let machine = HostMemory { total: 1_024_000, available: 614_400, is_short: false };
        assert_eq!(HostMemory::read(root.path()).unwrap(), machine);
        write("proc/pressure/memory", "some avg10=5.10 avg60=0.00 avg300=0.00 total=1\nfull avg10=0.00\n");
        assert_eq!(HostMemory::read(root.path()).unwrap(), HostMemory { is_short: true, ..machine.clone() });
        write("proc/pressure/memory", "some avg10=4.00 avg60=9.00 avg300=9.00 total=1\n");
        write("proc/self/cgroup", "0::/system.slice/corelane.service\n");
        write("sys/fs/cgroup/system.slice/memory.max", "max\n");
        write("sys/fs/cgroup/system.slice/memory.current", "99999999\n");
        assert_eq!(HostMemory::read(root.path()).unwrap(), machine);
        write("sys/fs/cgroup/system.slice/corelane.service/memory.max", "500000\n");
        write("sys/fs/cgroup/system.slice/corelane.service/memory.current", "450000\n");
        write("sys/fs/cgroup/system.slice/corelane.service/memory.stat", "anon 7\ninactive_file 50000\n");
        let bound = HostMemory { total: 500_000, available: 100_000, is_short: false };
        assert_eq!(HostMemory::read(root.path()).unwrap(), bound);
        // Version 1, of a container: its group is the root of what it sees.
        write("proc/self/cgroup", "9:cpu,cpuacct:/x\n4:memory:/docker/1\n0::/\n");
        write("sys/fs/cgroup/memory/memory.limit_in_bytes", "300000\n");
        write("sys/fs/cgroup/memory/memory.usage_in_bytes", "100000\n");
        write("sys/fs/cgroup/memory/memory.stat", "inactive_file 1\ntotal_inactive_file 20000\n");
        assert_eq!(HostMemory::read(root.path()).unwrap(), HostMemory { total: 300_000, available: 220_000, ..bound });
    }

    #[test]
    fn this_machine_tells() {
        let memory = HostMemory::now().unwrap();
        assert!(memory.available <= memory.total && memory.total > 64 << 20, "{memory:?}");
    }
}
