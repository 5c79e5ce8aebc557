//! The process as /proc shows it.

use std::fs;

use crate::runtime::process;

/// Ticks a second of the times in /proc: what the kernel tells programs, whatever its own clock is.
const TICKS: f64 = 100.0;

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ProcessFacts {
    pub resident_bytes: Option<u64>,
    pub virtual_bytes: Option<u64>,
    pub threads: Option<u64>,
    pub open_fds: Option<u64>,
    pub max_fds: Option<u64>,
    /// Seconds since 1970.
    pub started: Option<f64>,
    pub cpu_seconds: Option<f64>,
}

/// Constants of the process, looked up once.
pub(super) fn started() -> Option<f64> {
    let (stat, machine) = (fs::read_to_string("/proc/self/stat").ok()?, fs::read_to_string("/proc/stat").ok()?);
    started_of(&stat, &machine)
}

pub(super) fn look(started: Option<f64>) -> ProcessFacts {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let kib = |name| number_after(&status, name).map(|kib| kib * 1024);
    ProcessFacts {
        resident_bytes: kib("VmRSS:"),
        virtual_bytes: kib("VmSize:"),
        threads: number_after(&status, "Threads:"),
        open_fds: open_fds(),
        max_fds: number_after(&limits, "Max open files"),
        started,
        cpu_seconds: process::cpu_seconds(),
    }
}

/// Since Linux 6.2 the folder's size is how many there are, which spares looking through thousands.
fn open_fds() -> Option<u64> {
    match fs::metadata("/proc/self/fd").ok()?.len() {
        // With the one that lists them.
        0 => fs::read_dir("/proc/self/fd").ok().map(|dir| (dir.count() as u64).saturating_sub(1)),
        count => Some(count),
    }
}

fn number_after(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// `stat`: of the process; its name, in parentheses, may hold anything.
fn started_of(stat: &str, machine: &str) -> Option<f64> {
    let (_, rest) = stat.rsplit_once(')')?;
    // The fields from the third on; the 22nd is the start.
    let ticks: f64 = rest.split_whitespace().nth(19)?.parse().ok()?;
    Some(number_after(machine, "btime")? as f64 + ticks / TICKS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_is_found_behind_any_name() {
        let fields: Vec<String> =
            (4..=30).map(|field| if field == 22 { "250".into() } else { field.to_string() }).collect();
        let stat = format!("7 (a) (b) c) S {}", fields.join(" "));
        assert_eq!(started_of(&stat, "cpu 1 2\nbtime 1000\nprocesses 5\n"), Some(1002.5));
        assert_eq!(started_of("7 (x", "btime 1000"), None);
    }

    #[test]
    fn this_process_is_seen() {
        let facts = look(started());
        let now = crate::runtime::clock::wall_ms() as f64 / 1000.0;
        assert!(facts.started.is_some_and(|at| (now - 36_000.0..now + 5.0).contains(&at)), "{facts:?}, now {now}");
        assert!(facts.resident_bytes.is_some_and(|bytes| bytes > 1 << 20), "{facts:?}");
        assert!(facts.virtual_bytes > facts.resident_bytes && facts.threads >= Some(1), "{facts:?}");
        assert!(facts.open_fds.is_some_and(|open| (3..100_000).contains(&open)) && facts.max_fds > facts.open_fds);
        assert!(facts.cpu_seconds.is_some());
        let files: Vec<_> = (0..50).map(|_| fs::File::open("/proc/self/status").unwrap()).collect();
        assert!(open_fds().is_some_and(|open| open >= 50));
        drop(files);
    }
}
