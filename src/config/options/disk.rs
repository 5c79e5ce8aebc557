//! Options for full and slow disks.

use super::{Access, OptionSpec, TIB, broker};
use crate::config::value::{Bounds, Kind};
use Bounds::Between;
use Kind::Long;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

pub(super) const DISK: &[OptionSpec] = &[
    broker(
        "corelane.disk.reserve.bytes",
        Long,
        "67108864",
        Between(0, TIB),
        integer!(Server disk_reserve_bytes),
        "Free space of each log directory's file system that records of ordinary topics leave alone, at most a twentieth of it: metadata, committed offsets, \
         checkpoints and retention go on there when the disk is full. Below it, producers get KAFKA_STORAGE_ERROR, which clients retry, until there is more.",
    ),
    broker(
        "corelane.shutdown.timeout.ms",
        Long,
        "30000",
        Between(0, DAY_MS),
        integer!(Server shutdown_timeout_ms),
        "How long the logs may take to be written and closed on SIGTERM. Past it the broker ends without its mark of a clean stop: nothing acknowledged is lost, \
         and the next start reads what was not synced.",
    ),
];
