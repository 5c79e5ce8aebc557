//! The profiles of the folder `tuning/`, which are part of the program.

use super::class::Class;

pub(super) fn text(class: Class) -> &'static str {
    match class {
        Class::Nvme => include_str!("../../tuning/nvme.properties"),
        Class::SataSsd => include_str!("../../tuning/sata-ssd.properties"),
        Class::Hdd => include_str!("../../tuning/hdd.properties"),
    }
}
