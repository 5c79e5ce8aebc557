//! Report of the findings, for people and for programs.

use std::fmt::Write;

use serde::Serialize;
use serde_json::{Value, json};

use super::class::Fit;
use super::findings::Finding;
use super::host::Host;
use super::measure::{Measured, WRITE_DEPTHS, WRITE_SIZES};
use super::profile::Profile;

#[derive(Clone, Debug)]
pub struct Report {
    pub directory: String,
    pub host: Host,
    pub measured: Option<Measured>,
    pub fit: Fit,
    pub findings: Vec<Finding>,
    pub profile: Profile,
}

impl Report {
    pub fn text(&self) -> String {
        let mut out = String::new();
        let mut line = |text: String| {
            let _ = writeln!(out, "{}", text.trim_end());
        };
        line(format!("{}: profile {}: {}", self.directory, self.fit.class.name(), self.fit.why));
        line(host_line(&self.host));
        for disk in &self.host.disks {
            line(disk_line(disk));
        }
        for measurement in self.measured.as_ref().map(measured_lines).unwrap_or_default() {
            line(measurement);
        }
        line(String::new());
        if self.findings.is_empty() {
            line("Nothing is off.".to_owned());
        }
        for (finding, number) in self.findings.iter().zip(1..) {
            line(format!("{number}. {}: {}; should be {}", finding.id, finding.is, finding.should));
            line(format!("   because {}", finding.why));
            line(format!("   {}", finding.mend));
        }
        out
    }
}

fn shown<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "unknown".to_owned(), |value| value.to_string())
}

fn host_line(host: &Host) -> String {
    let mount = host.mount.as_ref().map(|mount| format!("{} on {}", mount.file_system, mount.source));
    let ring = match &host.io_uring_refused {
        Some(_) => "refused",
        None => "available",
    };
    format!(
        "kernel {}, {} CPU(s), {}, io_uring {ring}, congestion control {}, huge pages {}",
        shown(host.kernel.as_ref()),
        shown(host.cpus.as_ref().map(Vec::len)),
        mount.unwrap_or_else(|| "file system unknown".to_owned()),
        shown(host.congestion.control.as_ref()),
        shown(host.memory.transparent_huge_pages.as_ref()),
    )
}

fn disk_line(disk: &super::block::Disk) -> String {
    let irqs: Vec<String> = disk
        .irqs
        .iter()
        .filter_map(|irq| Some(irq.effective.as_ref()?.iter().map(ToString::to_string).collect::<Vec<_>>().join("+")))
        .collect();
    format!(
        "{}{}: rotational {}, scheduler {}, nr_requests {}, write cache {}, read-ahead {} KiB, interrupts on CPU {}",
        disk.name,
        disk.model.as_ref().map(|model| format!(" ({model})")).unwrap_or_default(),
        shown(disk.rotational.map(|turns| if turns { "yes" } else { "no" })),
        shown(disk.scheduler.as_ref()),
        shown(disk.nr_requests),
        shown(disk.write_cache.as_ref()),
        shown(disk.read_ahead_kb),
        if irqs.is_empty() { "unknown".to_owned() } else { irqs.join(", ") },
    )
}

/// The figures, a line for each kind.
pub(super) fn measured_lines(measured: &Measured) -> Vec<String> {
    let mut lines = Vec::new();
    for size in WRITE_SIZES {
        for (rewritten, blocks) in [(false, "reserved"), (true, "written")] {
            let figures: Vec<String> = WRITE_DEPTHS
                .iter()
                .filter_map(|depth| Some(format!("{:.0} at depth {depth}", measured.write(size, *depth, rewritten)?)))
                .collect();
            lines.push(format!("{} KiB writes into {blocks} blocks, MB/s: {}", size >> 10, figures.join(", ")));
        }
    }
    if let Some(read) = measured.read_mb_per_s {
        lines.push(format!("256 KiB reads, four in flight: {read:.0} MB/s"));
    }
    if let (Some(p50), Some(p99)) = (measured.sync_p50_us, measured.sync_p99_us) {
        let (p50, p99) = (p50 as f64 / 1e3, p99 as f64 / 1e3);
        lines.push(format!("4 KiB write with fdatasync: median {p50:.2} ms, p99 {p99:.2} ms"));
    }
    lines
}

/// The report as one object. `written`: the profile's file; `applied`: what was done, with
/// the error where it failed.
pub fn json(report: &Report, written: Option<&str>, applied: &[(String, Option<String>)]) -> Value {
    #[derive(Serialize)]
    struct Shown<'a> {
        #[serde(flatten)]
        finding: &'a Finding,
        applicable: bool,
    }
    let shown = |finding| Shown { finding, applicable: finding.mend.is_applicable() };
    let producer: serde_json::Map<String, Value> =
        report.profile.producer.iter().map(|(key, value)| (key.clone(), Value::from(value.as_str()))).collect();
    let applied: Vec<Value> =
        applied.iter().map(|(command, error)| json!({ "command": command, "error": error })).collect();
    json!({
        "version": 1,
        "data": report.directory,
        "host": report.host,
        "measured": report.measured,
        "profile": {
            "class": report.fit.class,
            "why": report.fit.why,
            "file": written,
            "settings": report.profile.settings,
            "producer": producer,
        },
        "findings": report.findings.iter().map(shown).collect::<Vec<_>>(),
        "applied": applied,
    })
}
