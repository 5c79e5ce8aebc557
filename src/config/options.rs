//! The table: every option Corelane honours, with Kafka's (4.x) names, types, defaults and bounds
//! where Kafka has it. `docs/CONFIGURATION.md` is generated from here, and a test compares.

use std::path::PathBuf;

use super::value::Value;
use super::{Bounds, Kind, MAX_SHARDS, ServerConfig, TopicConfig, listener};
use Bounds::{Any, AtLeast, AtLeastOr, AtLeastOrNegative, Between, NotEmpty, OneOf};
use Kind::{Boolean, Int, List, Long, String as Text};

/// One option.
#[derive(Clone, Copy)]
pub struct OptionSpec {
    /// The broker's name for it; where Kafka has several, the one that wins over the others.
    pub name: &'static str,
    /// Other names, used when `name` is not given; earlier ones win.
    pub aliases: &'static [Alias],
    /// The topic's name for it and the bounds there, for options that can be set per topic.
    pub topic: Option<(&'static str, Bounds)>,
    pub kind: Kind,
    /// As it would be written in the file; empty: none.
    pub default: &'static str,
    pub bounds: Bounds,
    pub doc: &'static str,
    pub(super) access: Access,
}

/// Another name for an option.
pub struct Alias {
    pub name: &'static str,
    /// Multiplies the alias's value (hours into milliseconds); 1: the same unit.
    pub factor: i64,
    /// What Kafka reports for it when it is not given.
    pub default: Option<&'static str>,
    /// Two values given for both names must be equal.
    pub must_agree: bool,
}

const fn same(name: &'static str) -> Alias {
    Alias { name, factor: 1, default: None, must_agree: false }
}

const fn unit(name: &'static str, factor: i64, default: Option<&'static str>) -> Alias {
    Alias { name, factor, default, must_agree: false }
}

/// How an option gets into the settings, and back out as text.
#[derive(Clone, Copy)]
pub(super) enum Access {
    Server { set: fn(&mut ServerConfig, &Value) -> Result<(), String>, get: fn(&ServerConfig) -> String },
    Topic { set: fn(&mut TopicConfig, &Value) -> Result<(), String>, get: fn(&TopicConfig) -> String },
}

impl OptionSpec {
    /// The value in force, as text; `None`: nothing is set.
    pub fn value(&self, config: &ServerConfig) -> Option<String> {
        let text = match &self.access {
            Access::Server { get, .. } => get(config),
            Access::Topic { get, .. } => get(&config.topic_defaults),
        };
        (!text.is_empty()).then_some(text)
    }
}

/// An integer field; negative values never reach unsigned ones, because the bounds exclude them.
macro_rules! integer {
    ($side:ident $field:ident) => {
        Access::$side {
            set: |config, value| {
                config.$field = value.integer().try_into().map_err(|_| "does not fit".to_owned())?;
                Ok(())
            },
            get: |config| config.$field.to_string(),
        }
    };
}

macro_rules! boolean {
    ($side:ident $field:ident) => {
        Access::$side {
            set: |config, value| {
                config.$field = value.boolean();
                Ok(())
            },
            get: |config| config.$field.to_string(),
        }
    };
}

/// Unsigned, where Kafka's `$special` stands for the largest value (never, no limit).
macro_rules! unlimited {
    ($side:ident $field:ident, $special:expr) => {
        Access::$side {
            set: |config, value| {
                config.$field =
                    u64::try_from(value.integer()).ok().filter(|n| *n != $special as u64).unwrap_or(u64::MAX);
                Ok(())
            },
            get: |config| i64::try_from(config.$field).unwrap_or($special).to_string(),
        }
    };
}

/// An `Option`, `None` for Kafka's `$special`.
macro_rules! optional {
    ($side:ident $field:ident, $special:expr) => {
        Access::$side {
            set: |config, value| {
                let number = value.integer();
                config.$field = if number < 0 || number == $special { None } else { number.try_into().ok() };
                Ok(())
            },
            get: |config| config.$field.map_or($special.to_string(), |number| number.to_string()),
        }
    };
}

// Behind the macros, which they use.
mod acknowledge;
mod cleaner;
mod cluster;
mod connections;
mod disk;
mod groups;
mod monitoring;
mod quotas;
mod records;
mod replication;
mod stores;
mod transactions;

/// An option of the broker alone, with one name.
const fn broker(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    bounds: Bounds,
    access: Access,
    doc: &'static str,
) -> OptionSpec {
    OptionSpec { name, aliases: &[], topic: None, kind, default, bounds, doc, access }
}

const MIB: i64 = 1 << 20;
const TIB: i64 = 1 << 40;
const NEVER: i64 = i64::MAX;
/// Recovery takes no longer length for a batch's, so what is accepted is found again after a crash.
pub const MAX_BATCH_BYTES: i64 = 256 * MIB;
const NO_LIMIT: i64 = -1;

/// All of them, in the order of the documentation.
pub static OPTIONS: &[OptionSpec] = &joined::<
    {
        BROKER.len()
            + cluster::CLUSTER.len()
            + connections::CONNECTIONS.len()
            + quotas::QUOTAS.len()
            + cleaner::CLEANER.len()
            + groups::GROUPS.len()
            + transactions::TRANSACTIONS.len()
            + stores::STORES.len()
            + records::RECORDS.len()
            + acknowledge::ACKNOWLEDGE.len()
            + disk::DISK.len()
            + replication::REPLICATION.len()
            + monitoring::MONITORING.len()
    },
>([
    BROKER,
    cluster::CLUSTER,
    connections::CONNECTIONS,
    quotas::QUOTAS,
    cleaner::CLEANER,
    groups::GROUPS,
    transactions::TRANSACTIONS,
    stores::STORES,
    records::RECORDS,
    acknowledge::ACKNOWLEDGE,
    disk::DISK,
    replication::REPLICATION,
    monitoring::MONITORING,
]);

const fn joined<const N: usize>(tables: [&[OptionSpec]; 13]) -> [OptionSpec; N] {
    let mut all = [tables[0][0]; N];
    let (mut table, mut at) = (0, 0);
    while table < tables.len() {
        let mut row = 0;
        while row < tables[table].len() {
            all[at] = tables[table][row];
            (row, at) = (row + 1, at + 1);
        }
        table += 1;
    }
    all
}

const BROKER: &[OptionSpec] = &[
    OptionSpec {
        name: "node.id",
        aliases: &[Alias { name: "broker.id", factor: 1, default: None, must_agree: true }],
        topic: None,
        kind: Int,
        default: "0",
        bounds: AtLeast(0),
        doc: "This broker's id, unique in the cluster. Kafka has no default; a data directory keeps the id it was first used with.",
        access: integer!(Server broker_id),
    },
    // Before the listeners, which it is used for: what is wrong in it is said first.
    OptionSpec {
        name: "listener.security.protocol.map",
        aliases: &[],
        topic: None,
        kind: Text,
        default: "PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL",
        bounds: Any,
        doc: "The security protocol of each listener by its name: NAME:PROTOCOL,.... Once given, it must have every listener. PLAINTEXT is the only protocol that can be \
              listened with; the others may stand in the map.",
        access: Access::Server {
            set: |c, v| {
                listener::parse_map(v.text())?;
                c.listener_security_protocol_map = v.text().to_owned();
                Ok(())
            },
            get: |c| c.listener_security_protocol_map.clone(),
        },
    },
    OptionSpec {
        name: "listeners",
        aliases: &[],
        topic: None,
        kind: List,
        default: "PLAINTEXT://127.0.0.1:9092",
        bounds: NotEmpty,
        doc: "Where to listen: NAME://host:port, one or several with names and ports of their own. An empty host means all IPv4 interfaces (0.0.0.0). Two may share \
              a port if one has an IPv4 and the other an IPv6 address. Kafka's default listens on all interfaces; Corelane's on loopback only, because it has no authentication yet.",
        access: Access::Server { set: |c, v| listener::set(c, v.list()), get: listener::urls },
    },
    OptionSpec {
        name: "advertised.listeners",
        aliases: &[],
        topic: None,
        kind: List,
        default: "",
        bounds: Any,
        doc: "What clients are told to connect to: NAME://host:port for each listener they come by; an empty host means the machine's host name. A listener that is not \
              named here tells its clients of no broker. Not given: the listeners, with the machine's host name in place of 0.0.0.0.",
        access: Access::Server { set: |c, v| listener::set_advertised(c, v.list()), get: listener::advertised_urls },
    },
    OptionSpec {
        name: "inter.broker.listener.name",
        aliases: &[],
        topic: None,
        kind: Text,
        default: "",
        bounds: Any,
        doc: "The advertised listener that other brokers connect to. Not given: the one called PLAINTEXT. A broker that is alone does not use it.",
        access: Access::Server {
            set: |c, v| listener::set_inter_broker(c, v.text()),
            get: |c| c.inter_broker_listener_name.clone(),
        },
    },
    OptionSpec {
        name: "broker.rack",
        aliases: &[],
        topic: None,
        kind: Text,
        default: "",
        bounds: Any,
        doc: "The rack this broker is in, told to clients in Metadata. Replicas of a partition are spread over racks where every broker has one.",
        access: Access::Server {
            set: |c, v| {
                c.broker_rack = Some(v.text().to_owned()).filter(|rack| !rack.is_empty());
                Ok(())
            },
            get: |c| c.broker_rack.clone().unwrap_or_default(),
        },
    },
    OptionSpec {
        name: "log.dirs",
        aliases: &[same("log.dir")],
        topic: None,
        kind: List,
        default: "./data",
        bounds: NotEmpty,
        doc: "Data directories, on file systems with direct I/O. One of them, the first of a new broker, also holds the metadata (corelane-metadata), without which a broker that is alone does not start; another one that is missing leaves its partitions offline. New partitions go where there are fewest. Kafka's default is /tmp/kafka-logs.",
        access: Access::Server { set: set_log_dirs, get: get_log_dirs },
    },
    OptionSpec {
        name: "num.partitions",
        aliases: &[],
        topic: None,
        kind: Int,
        default: "1",
        bounds: Between(1, 100_000),
        doc: "Partitions of a topic created without a number (also by auto.create.topics.enable).",
        access: integer!(Server num_partitions),
    },
    OptionSpec {
        name: "default.replication.factor",
        aliases: &[],
        topic: None,
        kind: Int,
        default: "1",
        bounds: Between(1, 32_767),
        doc: "Replicas of a topic created without a number. A broker that is alone takes 1 only.",
        access: integer!(Server default_replication_factor),
    },
    OptionSpec {
        name: "auto.create.topics.enable",
        aliases: &[],
        topic: None,
        kind: Boolean,
        default: "true",
        bounds: Any,
        doc: "Whether a Metadata request for an unknown topic creates it, when the client allows it.",
        access: boolean!(Server auto_create_topics_enable),
    },
    OptionSpec {
        name: "delete.topic.enable",
        aliases: &[],
        topic: None,
        kind: Boolean,
        default: "true",
        bounds: Any,
        doc: "Whether topics can be deleted.",
        access: boolean!(Server delete_topic_enable),
    },
    OptionSpec {
        name: "log.segment.bytes",
        aliases: &[],
        topic: Some(("segment.bytes", Between(MIB, i32::MAX as i64))),
        kind: Int,
        default: "1073741824",
        bounds: Between(MIB, i32::MAX as i64),
        doc: "Largest segment of a partition's log.",
        access: integer!(Topic segment_bytes),
    },
    OptionSpec {
        name: "log.roll.ms",
        aliases: &[unit("log.roll.hours", 3_600_000, Some("168"))],
        topic: Some(("segment.ms", AtLeast(1))),
        kind: Long,
        default: "604800000",
        bounds: AtLeast(1),
        doc: "Age after which a segment is closed although it is not full.",
        access: integer!(Topic segment_ms),
    },
    OptionSpec {
        name: "log.retention.ms",
        aliases: &[unit("log.retention.minutes", 60_000, None), unit("log.retention.hours", 3_600_000, Some("168"))],
        topic: Some(("retention.ms", AtLeast(-1))),
        kind: Long,
        default: "604800000",
        bounds: AtLeastOrNegative(1),
        doc: "Age after which segments are deleted; -1: never.",
        access: optional!(Topic retention_ms, NO_LIMIT),
    },
    OptionSpec {
        name: "log.retention.bytes",
        aliases: &[],
        topic: Some(("retention.bytes", Any)),
        kind: Long,
        default: "-1",
        bounds: Any,
        doc: "Size of a partition above which its oldest segments are deleted; -1: no limit.",
        access: optional!(Topic retention_bytes, NO_LIMIT),
    },
    OptionSpec {
        name: "log.retention.check.interval.ms",
        aliases: &[],
        topic: None,
        kind: Long,
        default: "300000",
        bounds: AtLeast(1),
        doc: "Time between two searches for segments to delete.",
        access: integer!(Server log_retention_check_interval_ms),
    },
    OptionSpec {
        name: "log.segment.delete.delay.ms",
        aliases: &[],
        topic: Some(("file.delete.delay.ms", AtLeast(0))),
        kind: Long,
        default: "60000",
        bounds: AtLeast(0),
        doc: "Time between a segment leaving the log and its files being removed.",
        access: integer!(Topic file_delete_delay_ms),
    },
    OptionSpec {
        name: "log.cleanup.policy",
        aliases: &[],
        topic: Some(("cleanup.policy", OneOf(&["compact", "delete"]))),
        kind: List,
        default: "delete",
        bounds: OneOf(&["compact", "delete"]),
        doc: "What happens to old segments: delete (retention.ms, retention.bytes), compact (only the newest record of each key stays), both, or, left empty, nothing.",
        access: Access::Topic { set: set_cleanup_policy, get: get_cleanup_policy },
    },
    OptionSpec {
        name: "message.max.bytes",
        aliases: &[],
        topic: Some(("max.message.bytes", Between(0, MAX_BATCH_BYTES))),
        kind: Int,
        default: "1048588",
        bounds: Between(0, MAX_BATCH_BYTES),
        doc: "Largest record batch accepted. The upper bound is 256 MiB (Kafka has none): recovery takes no larger batch for one that was written.",
        access: integer!(Topic max_message_bytes),
    },
    OptionSpec {
        name: "log.message.timestamp.type",
        aliases: &[],
        topic: Some(("message.timestamp.type", OneOf(&["CreateTime", "LogAppendTime"]))),
        kind: Text,
        default: "CreateTime",
        bounds: OneOf(&["CreateTime", "LogAppendTime"]),
        doc: "Whether records keep the producer's timestamp or get the broker's.",
        access: Access::Topic {
            set: |c, v| {
                c.log_append_time = v.text() == "LogAppendTime";
                Ok(())
            },
            get: |c| if c.log_append_time { "LogAppendTime" } else { "CreateTime" }.to_owned(),
        },
    },
    OptionSpec {
        name: "log.message.timestamp.before.max.ms",
        aliases: &[],
        topic: Some(("message.timestamp.before.max.ms", AtLeast(0))),
        kind: Long,
        default: "9223372036854775807",
        bounds: AtLeast(0),
        doc: "How far a CreateTime timestamp may lie before the broker's clock.",
        access: integer!(Topic timestamp_before_max_ms),
    },
    OptionSpec {
        name: "log.message.timestamp.after.max.ms",
        aliases: &[],
        topic: Some(("message.timestamp.after.max.ms", AtLeast(0))),
        kind: Long,
        default: "3600000",
        bounds: AtLeast(0),
        doc: "How far a CreateTime timestamp may lie after the broker's clock.",
        access: integer!(Topic timestamp_after_max_ms),
    },
    OptionSpec {
        name: "log.flush.interval.messages",
        aliases: &[],
        topic: Some(("flush.messages", AtLeast(1))),
        kind: Long,
        default: "9223372036854775807",
        bounds: AtLeast(1),
        doc: "Unsynced records of a partition after which the next acknowledgement waits for a sync; 1: every acknowledgement does.",
        access: unlimited!(Topic flush_messages, NEVER),
    },
    OptionSpec {
        name: "log.flush.interval.ms",
        aliases: &[same("log.flush.scheduler.interval.ms")],
        topic: Some(("flush.ms", AtLeast(0))),
        kind: Long,
        default: "9223372036854775807",
        bounds: AtLeast(0),
        doc: "Longest time an appended record stays unsynced. Not given: log.flush.scheduler.interval.ms.",
        access: optional!(Topic flush_ms, NEVER),
    },
    OptionSpec {
        name: "log.flush.scheduler.interval.ms",
        aliases: &[],
        topic: None,
        kind: Long,
        default: "9223372036854775807",
        bounds: AtLeast(1),
        doc: "Time between two searches for logs to sync.",
        access: unlimited!(Server log_flush_scheduler_interval_ms, NEVER),
    },
    OptionSpec {
        name: "log.flush.offset.checkpoint.interval.ms",
        aliases: &[],
        topic: None,
        kind: Int,
        default: "60000",
        bounds: AtLeast(0),
        doc: "Time between two updates of the recovery points.",
        access: integer!(Server log_flush_offset_checkpoint_interval_ms),
    },
    OptionSpec {
        name: "log.index.interval.bytes",
        aliases: &[],
        topic: Some(("index.interval.bytes", AtLeast(0))),
        kind: Int,
        default: "4096",
        bounds: AtLeast(0),
        doc: "Bytes of log between two entries of the offset index.",
        access: integer!(Topic index_interval_bytes),
    },
    OptionSpec {
        name: "log.index.size.max.bytes",
        aliases: &[],
        topic: Some(("segment.index.bytes", AtLeast(4))),
        kind: Int,
        default: "10485760",
        bounds: AtLeast(4),
        doc: "Largest offset index of a segment.",
        access: integer!(Topic segment_index_bytes),
    },
    OptionSpec {
        name: "min.insync.replicas",
        aliases: &[],
        topic: Some(("min.insync.replicas", AtLeast(1))),
        kind: Int,
        default: "1",
        bounds: AtLeast(1),
        doc: "In-sync replicas needed to accept a batch produced with acks=all; more than the partition has replicas counts as all of them.",
        access: integer!(Topic min_insync_replicas),
    },
    OptionSpec {
        name: "socket.request.max.bytes",
        aliases: &[],
        topic: None,
        kind: Int,
        default: "104857600",
        bounds: Between(1024, MAX_BATCH_BYTES),
        doc: "Largest Produce request; a connection that announces more is closed. The upper bound is that of message.max.bytes; Kafka's lower bound is 1. \
              Requests other than Produce are at most 4 MiB, whatever is set here, because they cost several times their size.",
        access: integer!(Server socket_request_max_bytes),
    },
    OptionSpec {
        name: "fetch.max.bytes",
        aliases: &[],
        topic: None,
        kind: Int,
        default: "57671680",
        bounds: AtLeast(1024),
        doc: "Largest fetch response, whatever the client asks for (one larger batch is sent whole).",
        access: integer!(Server fetch_max_bytes),
    },
    OptionSpec {
        name: "corelane.shards",
        aliases: &[],
        topic: None,
        kind: Int,
        default: "0",
        bounds: Between(0, MAX_SHARDS),
        doc: "Event loops, one per core; 0: one for every CPU the process may use. With more than that, some share a CPU, which costs.",
        access: integer!(Server shards),
    },
    OptionSpec {
        name: "corelane.io.memory.bytes",
        aliases: &[],
        topic: None,
        kind: Long,
        default: "8388608",
        bounds: Between(2 * MIB, TIB),
        doc: "Memory per shard registered with its ring for direct I/O; counts three times against RLIMIT_MEMLOCK.",
        access: integer!(Server io_memory_bytes),
    },
    OptionSpec {
        name: "corelane.receive.memory.bytes",
        aliases: &[],
        topic: None,
        kind: Long,
        default: "67108864",
        bounds: Between(MIB, TIB),
        doc: "Request bytes held per shard, charged as they arrive; connections are not read from while it is used up. A quarter of it is kept for requests of \
              up to 64 KiB. An eighth is for frames that cannot arrive within the rest, for half a second or for their size, to finish in; one larger than that is read alone, and may exceed the whole. As much again, and a quarter of it for small ones, is for what requests other than Produce are made into \
              while they are answered, counted as 64 times their size (512 times for DescribeConfigs and CreateTopics), for large fetches that wait, and for large requests to groups that wait behind others of their connection.",
        access: integer!(Server receive_memory_bytes),
    },
    OptionSpec {
        name: "corelane.tail.cache.bytes",
        aliases: &[],
        topic: None,
        kind: Long,
        default: "33554432",
        bounds: Between(MIB, TIB),
        doc: "With corelane.acknowledge=written, written batches kept per shard for consumers at the tail. Otherwise the arena serves them (corelane.arena.bytes).",
        access: integer!(Server tail_cache_bytes),
    },
    OptionSpec {
        name: "corelane.cold.cache.bytes",
        aliases: &[],
        topic: None,
        kind: Long,
        default: "33554432",
        bounds: Between(MIB, TIB),
        doc: "Read-ahead kept per shard for consumers behind the tail.",
        access: integer!(Server cold_cache_bytes),
    },
    OptionSpec {
        name: "corelane.connection.pipeline",
        aliases: &[],
        topic: None,
        kind: Int,
        default: "64",
        bounds: Between(1, 10_000),
        doc: "Requests of one connection worked on at the same time; further ones stay in the socket.",
        access: integer!(Server connection_pipeline),
    },
    OptionSpec {
        name: "corelane.index.cache.bytes",
        aliases: &[],
        topic: None,
        kind: Long,
        default: "16777216",
        bounds: Between(MIB, TIB),
        doc: "Offset and time indexes of older segments kept in memory, per shard.",
        access: integer!(Server index_cache_bytes),
    },
    OptionSpec {
        name: "corelane.response.memory.bytes",
        aliases: &[same("corelane.fetch.memory.bytes")],
        topic: None,
        kind: Long,
        default: "134217728",
        bounds: Between(MIB, TIB),
        doc: "Answers that clients have not taken yet, per shard, by the size of the buffers they keep alive; half of it for Fetch, a quarter for answers of up to 64 KiB that the connection's send queue has room for. \
              An answer is charged before it is made. Where nothing is left, fetches read less, requests wait, and connections whose clients take nothing are closed.",
        access: integer!(Server response_memory_bytes),
    },
    OptionSpec {
        name: "corelane.connection.response.bytes",
        aliases: &[],
        topic: None,
        kind: Int,
        default: "1048576",
        bounds: Between(4096, 1 << 30),
        doc: "Answers gathered for one connection; once its client has not taken so much, or one larger answer, none of its requests is answered until it has.",
        access: integer!(Server connection_response_bytes),
    },
    OptionSpec {
        name: "corelane.mailbox.capacity",
        aliases: &[],
        topic: None,
        kind: Int,
        default: "1024",
        bounds: Between(16, 65_536),
        doc: "Calls queued from one shard to another; further ones wait.",
        access: integer!(Server mailbox_capacity),
    },
    OptionSpec {
        name: "corelane.checkpoint.bytes",
        aliases: &[],
        topic: None,
        kind: Long,
        default: "268435456",
        bounds: Between(MIB, TIB),
        doc: "Bytes appended to a shard since its last checkpoints that start new ones; recovery after a crash scans about as much. Spread over so \
              many partitions that none has a 64th of it, it may be 16 times as much: a checkpoint costs the same for a few bytes.",
        access: integer!(Server checkpoint_bytes),
    },
    OptionSpec {
        name: "corelane.preallocate.max.bytes",
        aliases: &[],
        topic: None,
        kind: Long,
        default: "67108864",
        bounds: Between(MIB, i32::MAX as i64),
        doc: "Largest step in which a segment's file is extended ahead of its writes.",
        access: integer!(Server preallocate_max_bytes),
    },
    OptionSpec {
        name: "corelane.write.ahead.bytes",
        aliases: &[],
        topic: None,
        kind: Long,
        default: "4194304",
        bounds: AtLeastOr { min: 65_536, or: 0 },
        doc: "Largest step in which zeros are written ahead of small writes, and of those that are synced one by one (flush.messages=1), so that they fall into blocks that the \
              file system need not convert; 0: never. A log whose writes are 256 KiB or more on average gets none; behind corelane.acknowledge=held only one with such syncs does.",
        access: integer!(Server write_ahead_bytes),
    },
    OptionSpec {
        name: "corelane.write.ahead.group.bytes",
        aliases: &[],
        topic: None,
        kind: Int,
        default: "32768",
        bounds: Between(0, 1 << 20),
        doc: "Partitions whose writes are this large on average, or larger, get no zeros ahead of them, unless each is synced. Where the device writes zeros without a transfer (Linux 6.17, NVMe), 1048576 is better.",
        access: integer!(Server write_ahead_group_bytes),
    },
    OptionSpec {
        name: "corelane.write.max.bytes",
        aliases: &[],
        topic: None,
        kind: Int,
        default: "524288",
        bounds: Between(65_536, MIB),
        doc: "Largest write to a segment, a multiple of 4096; batches that wait together leave together up to it.",
        access: Access::Server {
            set: |config, value| match usize::try_from(value.integer()) {
                Ok(bytes) if bytes % 4096 == 0 => {
                    config.write_max_bytes = bytes;
                    Ok(())
                }
                _ => Err("is not a multiple of 4096".into()),
            },
            get: |config| config.write_max_bytes.to_string(),
        },
    },
    OptionSpec {
        name: "corelane.write.queue.depth",
        aliases: &[],
        topic: None,
        kind: Int,
        default: "4",
        bounds: Between(1, 64),
        doc: "Writes of one partition on their way to the device together; all but the last are full.",
        access: integer!(Server write_queue_depth),
    },
    OptionSpec {
        name: "corelane.append.linger.us",
        aliases: &[],
        topic: None,
        kind: Int,
        default: "0",
        bounds: Between(0, 100_000),
        doc: "How long a batch that finds no write of its partition under way waits for others to be written with, unless a write is full; microseconds.",
        access: integer!(Server append_linger_us),
    },
    OptionSpec {
        name: "corelane.idle.spin.us",
        aliases: &[],
        topic: None,
        kind: Int,
        default: "100",
        bounds: Between(0, 10_000_000),
        doc: "How long a shard that has run out of work spins, at most, before it sleeps; microseconds. It spins only where that gets more done: its pauses are shorter than this on average, clients wait for its answers before they ask for more (it tries out both ways twice a second, less often where that was in vain), and no other thread wants its CPU. 0, or `corelane.gather.us`: it never spins.",
        access: integer!(Server idle_spin_us),
    },
    OptionSpec {
        name: "corelane.flush.delay.ms",
        aliases: &[],
        topic: None,
        kind: Int,
        default: "0",
        bounds: Between(0, 1000),
        doc: "How long a sync that acknowledgements wait for (flush.messages, flush.ms=0) is put off, so that one covers more.",
        access: integer!(Server flush_delay_ms),
    },
    OptionSpec {
        name: "corelane.internal.topics.delete",
        aliases: &[],
        topic: None,
        kind: Boolean,
        default: "false",
        bounds: Any,
        doc: "Whether clients may delete Kafka's own topics, such as __consumer_offsets with the offsets of every group. Kafka lets them.",
        access: boolean!(Server internal_topics_delete),
    },
    OptionSpec {
        name: "corelane.log.level",
        aliases: &[],
        topic: None,
        kind: Text,
        default: "info",
        bounds: NotEmpty,
        doc: "What is logged: error, warn, info, debug, trace, or per module (info,corelane::storage=debug). The environment variable CORELANE_LOG wins.",
        access: Access::Server {
            set: |c, v| {
                c.log_level = v.text().to_owned();
                Ok(())
            },
            get: |c| c.log_level.clone(),
        },
    },
];

fn set_log_dirs(config: &mut ServerConfig, value: &Value) -> Result<(), String> {
    let dirs: Vec<PathBuf> = value.list().iter().map(PathBuf::from).collect();
    if let Some(twice) = dirs.iter().enumerate().find(|(i, dir)| dirs[..*i].contains(dir)) {
        return Err(format!("names {} twice", twice.1.display()));
    }
    config.log_dirs = dirs;
    Ok(())
}

fn get_log_dirs(config: &ServerConfig) -> String {
    let dirs: Vec<_> = config.log_dirs.iter().map(|dir| dir.to_string_lossy()).collect();
    dirs.join(",")
}

fn set_cleanup_policy(config: &mut TopicConfig, value: &Value) -> Result<(), String> {
    let has = |policy: &str| value.list().iter().any(|item| item == policy);
    config.cleanup_delete = has("delete");
    config.cleanup_compact = has("compact");
    Ok(())
}

fn get_cleanup_policy(config: &TopicConfig) -> String {
    match (config.cleanup_delete, config.cleanup_compact) {
        (true, true) => "delete,compact",
        (false, true) => "compact",
        (true, false) => "delete",
        (false, false) => "",
    }
    .to_owned()
}

#[cfg(test)]
mod tests;
