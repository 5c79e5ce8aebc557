//! Options of the log cleaner, which keeps the newest record of each key where
//! `cleanup.policy` says compact.

use super::{Access, NEVER, OptionSpec, broker};
use crate::config::value::{Bounds, Kind};
use Bounds::{Any, AtLeast, Between, Fraction};
use Kind::{Boolean, Double, Int, Long};

/// The largest double, as Kafka writes it.
const UNLIMITED: &str = "1.7976931348623157E308";

macro_rules! double {
    ($side:ident $field:ident) => {
        Access::$side {
            set: |config, value| {
                config.$field = value.double();
                Ok(())
            },
            get: |config| if config.$field == f64::MAX { UNLIMITED.to_owned() } else { config.$field.to_string() },
        }
    };
}

const fn both(
    name: &'static str,
    topic: &'static str,
    kind: Kind,
    default: &'static str,
    bounds: Bounds,
    access: Access,
    doc: &'static str,
) -> OptionSpec {
    OptionSpec { name, aliases: &[], topic: Some((topic, bounds)), kind, default, bounds, doc, access }
}

pub(super) const CLEANER: &[OptionSpec] = &[
    broker(
        "log.cleaner.enable",
        Boolean,
        "true",
        Any,
        Access::Server {
            set: |config, value| {
                config.log_cleaner_enable = value.boolean();
                Ok(())
            },
            get: |config| config.log_cleaner_enable.to_string(),
        },
        "Whether logs are cleaned at all. Without, topics with cleanup.policy=compact grow for ever, __consumer_offsets among them.",
    ),
    broker(
        "log.cleaner.backoff.ms",
        Long,
        "15000",
        AtLeast(0),
        integer!(Server log_cleaner_backoff_ms),
        "How long a shard waits before it looks for logs to clean again, when there was none.",
    ),
    broker(
        "log.cleaner.dedupe.buffer.size",
        Long,
        "134217728",
        AtLeast(1 << 20),
        integer!(Server log_cleaner_dedupe_buffer_size),
        "Memory of all shards together for the newest offset of each key, 24 bytes a key; each shard has an equal share, but 1 MiB at least, and \
         takes it while it cleans. A log with more keys is cleaned in several rounds.",
    ),
    broker(
        "log.cleaner.io.buffer.load.factor",
        Double,
        "0.9",
        Fraction(0.1, 0.99),
        double!(Server log_cleaner_io_buffer_load_factor),
        "How full that memory gets before a round ends there. Kafka has no bounds.",
    ),
    broker(
        "log.cleaner.io.buffer.size",
        Int,
        "524288",
        Between(4096, 64 << 20),
        integer!(Server log_cleaner_io_buffer_size),
        "Bytes that a shard's cleaner reads, and writes, at a time; one larger batch is held whole. Kafka shares it among its threads.",
    ),
    broker(
        "log.cleaner.io.max.bytes.per.second",
        Double,
        UNLIMITED,
        Any,
        double!(Server log_cleaner_io_max_bytes_per_second),
        "Bytes a second that the cleaners of all shards together may read and write; each shard has an equal share.",
    ),
    both(
        "log.cleaner.min.cleanable.ratio",
        "min.cleanable.dirty.ratio",
        Double,
        "0.5",
        Fraction(0.0, 1.0),
        double!(Topic min_cleanable_dirty_ratio),
        "A log is cleaned when more than this part of it was written since the last cleaning.",
    ),
    both(
        "log.cleaner.min.compaction.lag.ms",
        "min.compaction.lag.ms",
        Long,
        "0",
        AtLeast(0),
        integer!(Topic min_compaction_lag_ms),
        "Records stay at least this long before cleaning may take them.",
    ),
    both(
        "log.cleaner.max.compaction.lag.ms",
        "max.compaction.lag.ms",
        Long,
        "9223372036854775807",
        Between(1, NEVER),
        integer!(Topic max_compaction_lag_ms),
        "A log with a record that has waited for longer is cleaned whatever its ratio; the segment that records are written to is closed for it.",
    ),
    both(
        "log.cleaner.delete.retention.ms",
        "delete.retention.ms",
        Long,
        "86400000",
        AtLeast(0),
        integer!(Topic delete_retention_ms),
        "How long a tombstone is still there after everything before it of its key is gone: the time a reader has for the whole log.",
    ),
];
