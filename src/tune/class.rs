//! Which kind of device the data directory is on: from what the disks say, or from what was
//! measured where they cannot know.

use serde::Serialize;

use super::block::{Bus, Disk};
use super::host::Host;
use super::measure::Measured;

/// The kinds there are profiles for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    Nvme,
    SataSsd,
    Hdd,
}

impl Class {
    pub const ALL: [Class; 3] = [Class::Nvme, Class::SataSsd, Class::Hdd];

    pub fn name(self) -> &'static str {
        match self {
            Class::Nvme => "nvme",
            Class::SataSsd => "sata-ssd",
            Class::Hdd => "hdd",
        }
    }
}

/// A decision and its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fit {
    pub class: Class,
    pub why: String,
}

/// Most that SATA carries, MB/s.
const SATA_LIMIT: f64 = 600.0;
/// Rate that no hard disk reaches, MB/s.
const HDD_LIMIT: f64 = 300.0;
/// Half a turn at 7200 rpm, microseconds: what a sync costs a hard disk at least, on average.
const HALF_A_TURN_US: u64 = 4000;

/// The slowest disk of several decides.
pub fn fit(host: &Host, measured: Option<&Measured>) -> Fit {
    let known: Vec<(Class, String)> = host.disks.iter().filter_map(by_itself).collect();
    let slowest = known.iter().max_by_key(|(class, _)| *class).cloned();
    match slowest {
        Some((class, why)) if known.len() == host.disks.len() => Fit { class, why },
        _ => by_measure(host, measured),
    }
}

/// By what the disk says of itself.
fn by_itself(disk: &Disk) -> Option<(Class, String)> {
    let name = &disk.name;
    match (disk.bus, disk.rotational) {
        (Bus::Nvme, _) => Some((Class::Nvme, format!("{name} is an NVMe drive"))),
        (Bus::Scsi, Some(true)) => Some((Class::Hdd, format!("{name} says that it rotates"))),
        (Bus::Scsi, Some(false)) => {
            Some((Class::SataSsd, format!("{name} is attached as SATA or SAS and does not rotate")))
        }
        _ => None,
    }
}

fn by_measure(host: &Host, measured: Option<&Measured>) -> Fit {
    let names: Vec<&str> = host.disks.iter().map(|disk| disk.name.as_str()).collect();
    let whose = if names.is_empty() { "the device".to_owned() } else { names.join(", ") };
    let Some(measured) = measured else {
        let why = format!(
            "what {whose} is cannot be read here and was not measured; this profile is the middle of the three"
        );
        return Fit { class: Class::SataSsd, why };
    };
    let fastest = measured.fastest();
    if fastest > SATA_LIMIT {
        let why = format!("{whose} moved {fastest:.0} MB/s, which is more than SATA carries ({SATA_LIMIT:.0})");
        return Fit { class: Class::Nvme, why };
    }
    match measured.sync_p50_us {
        Some(sync) if fastest < HDD_LIMIT && sync >= HALF_A_TURN_US => Fit {
            class: Class::Hdd,
            why: format!(
                "{whose} moved {fastest:.0} MB/s at most and needs {:.1} ms for a sync, as a disk that turns",
                sync as f64 / 1e3
            ),
        },
        _ => Fit {
            class: Class::SataSsd,
            why: format!(
                "{whose} moved {fastest:.0} MB/s at most, which SATA carries, and syncs faster than a disk that turns"
            ),
        },
    }
}
