//! Options of acknowledgements: what a batch must have survived, where it waits for its write, and
//! which followers it waits for.

use std::path::PathBuf;

use super::{Access, MIB, OptionSpec, TIB, broker};
use crate::config::server::Acknowledge;
use crate::config::value::{Bounds, Kind};

pub(super) const ACKNOWLEDGE: &[OptionSpec] = &[
    broker(
        "corelane.acknowledge",
        Kind::String,
        "held",
        Bounds::OneOf(&["held", "written"]),
        Access::Server {
            set: |config, value| {
                config.acknowledge = match value.text() {
                    "held" => Acknowledge::Held,
                    _ => Acknowledge::Written,
                };
                Ok(())
            },
            get: |config| match config.acknowledge {
                Acknowledge::Held => "held".to_owned(),
                Acknowledge::Written => "written".to_owned(),
            },
        },
        "What a batch has survived when it is acknowledged, where no flush is asked for. held: the end of the broker's process, as in Kafka; it stands in \
         memory that outlives the process and is written behind. written: its write has completed. A crash of the kernel or the power takes a second and a half \
         of records at most, or half a second; flush.messages=1 waits for the sync in either case, and nothing is lost (docs/DURABILITY.md).",
    ),
    broker(
        "corelane.arena.bytes",
        Kind::Long,
        "67108864",
        Bounds::Between(2 * MIB, TIB),
        integer!(Server arena_bytes),
        "With corelane.acknowledge=held, memory per shard and data directory between acknowledgement and write, which serves consumers at the tail as well. It is \
         a file below corelane-arena/ in the data directory, or in corelane.arena.dir, which a start takes over.",
    ),
    broker(
        "corelane.arena.dir",
        Kind::String,
        "",
        Bounds::Any,
        Access::Server {
            set: |config, value| {
                config.arena_dir = PathBuf::from(value.text());
                Ok(())
            },
            get: |config| config.arena_dir.to_string_lossy().into_owned(),
        },
        "With corelane.acknowledge=held, a directory outside of the data directories for the arenas of all of them, each in a folder of its own: a tmpfs, say, whose \
         files outlive the process (systemd: RuntimeDirectory= with RuntimeDirectoryPreserve=yes). A note in the data directory names it, so that a \
         start finds the arenas of the last run after a change too. Where it is lost while the machine runs, records that were acknowledged last are \
         lost, and the start is refused with a line that says so. Empty: each data directory holds its own.",
    ),
    broker(
        "corelane.write.behind.max.ms",
        Kind::Int,
        "500",
        Bounds::Between(1, 10_000),
        integer!(Server write_behind_max_ms),
        "With corelane.acknowledge=held, the longest time before the whole blocks of a partition are written (above 1.6 s: and the file system's journal is \
         committed, which takes a quarter of it); its unfinished last block follows within half a second. They are written earlier once they fill a write of 1 MiB, or while half of the arena waits to be written, oldest first.",
    ),
    broker(
        "corelane.gather.us",
        Kind::Int,
        "0",
        Bounds::Between(0, 10_000),
        integer!(Server gather_us),
        "How long a shard that has gone to sleep lets requests gather before it wakes; microseconds. Answers come later by up to that, and take less processor \
         time: many small requests are handled together. It wakes earlier where a longer sleep brings no more, since clients wait for answers before they send on. \
         Needs Linux 6.12.",
    ),
    broker(
        "replica.lag.time.max.ms",
        Kind::Long,
        "30000",
        Bounds::AtLeast(1),
        integer!(Server replica_lag_time_max_ms),
        "A follower that has not caught up with its leader for so long leaves the ISR.",
    ),
];
