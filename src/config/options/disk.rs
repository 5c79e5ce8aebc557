//! Options for data directories, and for full and slow disks.

use super::{Access, OptionSpec, TIB, broker};
use crate::config::value::{Bounds, Kind};
use Bounds::{Any, Between};
use Kind::{List, Long};

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

pub(super) const DISK: &[OptionSpec] = &[
    broker(
        "cordoned.log.dirs",
        List,
        "",
        Any,
        Access::Server {
            set: |config, value| {
                config.cordoned_log_dirs = value.list().to_vec();
                Ok(())
            },
            get: |config| config.cordoned_log_dirs.join(","),
        },
        "Directories of log.dirs, named as they are there or by their absolute path, that get no new partitions; * for all. Those that are in them stay and are served, and can \
         be moved away (AlterReplicaLogDirs). A broker whose directories are all cordoned gets no new replicas. Set for one broker at a time (KIP-1066).",
    ),
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
