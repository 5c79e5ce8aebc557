//! The broker's options, as parsed from `server.properties` and overrides.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use uuid::Uuid;

use super::{DynamicOptions, GroupConfig, ListenerConfig, TopicConfig, TransactionConfig};
use crate::observe::LogFormat;

/// Most event loops of a broker.
pub const MAX_SHARDS: i64 = 1024;

/// The failure that a batch survives once it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acknowledge {
    /// The end of the process.
    Held,
    /// The end of the kernel.
    Written,
}

/// The replica that a consumer reads from (KIP-392).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplicaSelector {
    Leader,
    /// One in the consumer's rack.
    RackAware,
}

/// How much of a produced batch is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProduceValidation {
    /// Every record, as Kafka does.
    Full,
    /// The header and the CRC; records only for the keys that a compacted topic needs.
    Header,
}

/// The settings in force for this process. Field names are Kafka's with `.` as `_`; `corelane.*`
/// options lose the prefix.
#[derive(Clone, Debug)]
pub struct ServerConfig {
    /// `broker.id` / `node.id`
    pub broker_id: i32,
    /// `listeners` and `advertised.listeners`, without controller listeners; at least one
    pub listeners: Vec<ListenerConfig>,
    /// `listener.security.protocol.map`, as written
    pub listener_security_protocol_map: String,
    /// `inter.broker.listener.name`, in upper case; empty: not given
    pub inter_broker_listener_name: String,
    /// `broker.rack`
    pub broker_rack: Option<String>,
    /// `log.dirs` / `log.dir`
    pub log_dirs: Vec<PathBuf>,
    /// `cordoned.log.dirs`
    pub cordoned_log_dirs: Vec<String>,
    /// `zookeeper.connect`; empty: this broker is alone
    pub zookeeper_connect: String,
    /// `zookeeper.session.timeout.ms`
    pub zookeeper_session_timeout_ms: u64,
    /// `zookeeper.connection.timeout.ms`
    pub zookeeper_connection_timeout_ms: u64,
    /// `zookeeper.max.in.flight.requests`
    pub zookeeper_max_in_flight_requests: usize,
    /// `auto.leader.rebalance.enable`
    pub auto_leader_rebalance_enable: bool,
    /// `leader.imbalance.check.interval.seconds`
    pub leader_imbalance_check_interval_seconds: i64,
    /// `leader.imbalance.per.broker.percentage`
    pub leader_imbalance_per_broker_percentage: i64,
    /// `controlled.shutdown.enable`
    pub controlled_shutdown_enable: bool,
    /// `replica.lag.time.max.ms`: a follower that lags for longer leaves the ISR
    pub replica_lag_time_max_ms: i64,
    /// `num.partitions`
    pub num_partitions: i32,
    /// `default.replication.factor`
    pub default_replication_factor: i16,
    /// `auto.create.topics.enable`
    pub auto_create_topics_enable: bool,
    /// `delete.topic.enable`
    pub delete_topic_enable: bool,
    /// `log.retention.check.interval.ms`
    pub log_retention_check_interval_ms: u64,
    /// `log.flush.offset.checkpoint.interval.ms`
    pub log_flush_offset_checkpoint_interval_ms: u64,
    /// `log.flush.scheduler.interval.ms`
    pub log_flush_scheduler_interval_ms: u64,
    /// `socket.request.max.bytes`: largest frame
    pub socket_request_max_bytes: u32,
    /// `max.connections`
    pub max_connections: u32,
    /// `corelane.local.connections`: of `max.connections`, for clients on this machine
    pub local_connections: u32,
    /// `max.connections.per.ip`
    pub max_connections_per_ip: u32,
    /// `max.connections.per.ip.overrides`: as written, and resolved
    pub max_connections_per_ip_overrides: (String, HashMap<IpAddr, u32>),
    /// `max.connection.creation.rate`: per second
    pub max_connection_creation_rate: u32,
    /// `quota.window.num`
    pub quota_window_num: usize,
    /// `quota.window.size.seconds`
    pub quota_window_size_seconds: u32,
    /// `controller.quota.window.num`
    pub controller_quota_window_num: usize,
    /// `controller.quota.window.size.seconds`
    pub controller_quota_window_size_seconds: u32,
    /// `socket.send.buffer.bytes`; negative: the kernel's choice
    pub socket_send_buffer_bytes: i32,
    /// `socket.receive.buffer.bytes`; negative: the kernel's choice
    pub socket_receive_buffer_bytes: i32,
    /// `connections.max.idle.ms`
    pub connections_max_idle_ms: u64,
    /// `fetch.max.bytes`: largest fetch response
    pub fetch_max_bytes: u32,
    /// `max.incremental.fetch.session.cache.slots`
    pub max_incremental_fetch_session_cache_slots: u32,
    /// `corelane.fetch.session.memory.bytes`, over all shards
    pub fetch_session_memory_bytes: usize,
    /// `replica.selector.class`
    pub replica_selector: ReplicaSelector,
    /// `replica.fetch.max.bytes`: of one partition
    pub replica_fetch_max_bytes: u32,
    /// `replica.fetch.response.max.bytes`
    pub replica_fetch_response_max_bytes: u32,
    /// `replica.fetch.min.bytes`
    pub replica_fetch_min_bytes: u32,
    /// `replica.fetch.wait.max.ms`
    pub replica_fetch_wait_max_ms: u32,
    /// `replica.fetch.backoff.ms`
    pub replica_fetch_backoff_ms: u32,
    /// `replica.high.watermark.checkpoint.interval.ms`
    pub replica_high_watermark_checkpoint_interval_ms: u64,
    /// `replica.socket.timeout.ms`
    pub replica_socket_timeout_ms: u32,
    /// `leader.replication.throttled.rate`, bytes a second
    pub leader_replication_throttled_rate: u64,
    /// `follower.replication.throttled.rate`, bytes a second
    pub follower_replication_throttled_rate: u64,
    /// `replica.alter.log.dirs.io.max.bytes.per.second`
    pub replica_alter_log_dirs_io_max_bytes_per_second: u64,
    /// `producer.id.expiration.ms`
    pub producer_id_expiration_ms: i64,
    /// `producer.id.expiration.check.interval.ms`
    pub producer_id_expiration_check_interval_ms: u64,
    /// `corelane.producer.state.max.bytes`: idempotent producers of all partitions, over all shards
    pub producer_state_max_bytes: usize,
    /// Defaults for topics (`log.segment.bytes`, `log.retention.*`, ...).
    pub topic_defaults: TopicConfig,
    /// `log.cleaner.enable`
    pub log_cleaner_enable: bool,
    /// `log.cleaner.backoff.ms`
    pub log_cleaner_backoff_ms: u64,
    /// `log.cleaner.dedupe.buffer.size`, for all shards
    pub log_cleaner_dedupe_buffer_size: usize,
    /// `log.cleaner.io.buffer.load.factor`
    pub log_cleaner_io_buffer_load_factor: f64,
    /// `log.cleaner.io.buffer.size`, per shard
    pub log_cleaner_io_buffer_size: usize,
    /// `log.cleaner.io.max.bytes.per.second`, for all shards; `f64::MAX`: no limit
    pub log_cleaner_io_max_bytes_per_second: f64,
    /// `offsets.topic.num.partitions`
    pub offsets_topic_num_partitions: i32,
    /// `offsets.topic.segment.bytes`
    pub offsets_topic_segment_bytes: u64,
    /// `offsets.topic.replication.factor`
    pub offsets_topic_replication_factor: i16,
    /// `offsets.load.buffer.size`: bytes read at a time while groups are loaded
    pub offsets_load_buffer_size: usize,
    /// `corelane.max.partitions`: of all topics; 0: no limit
    pub max_partitions: u32,
    /// `corelane.max.segments`, over all shards
    pub max_segments: usize,
    /// `corelane.group.memory.bytes`: groups and committed offsets, over all shards
    pub group_memory_bytes: usize,
    /// What group coordinators go by (`group.*`, `offsets.retention.*`, ...).
    pub group: GroupConfig,
    /// `transaction.state.log.num.partitions`
    pub transaction_topic_num_partitions: i32,
    /// `transaction.state.log.segment.bytes`
    pub transaction_topic_segment_bytes: u64,
    /// `transaction.state.log.replication.factor`
    pub transaction_topic_replication_factor: i16,
    /// `transaction.state.log.min.isr`
    pub transaction_topic_min_isr: i32,
    /// `transaction.state.log.load.buffer.size`: bytes read at a time while transactions are loaded
    pub transaction_load_buffer_size: usize,
    /// `transaction.partition.verification.enable`
    pub transaction_verification: bool,
    /// Settings of transaction coordinators (`transaction.max.timeout.ms`,
    /// `transactional.id.expiration.ms`, ...).
    pub transaction: TransactionConfig,
    /// `corelane.shards`; 0: one per usable CPU.
    pub shards: u16,
    /// `corelane.io.memory.bytes`: registered with the ring, per shard
    pub io_memory_bytes: usize,
    /// `corelane.receive.memory.bytes`: request bytes held, per shard
    pub receive_memory_bytes: usize,
    /// `corelane.tail.cache.bytes`: written batches kept for consumers at the tail, per shard
    pub tail_cache_bytes: usize,
    /// `corelane.cache.bytes`: what consumers that lag have before them, of all shards; below 0 as
    /// loaded: by the devices
    pub cache_bytes: i64,
    /// `corelane.cold.cache.bytes`: read-ahead for consumers behind the tail, per shard
    pub cold_cache_bytes: usize,
    /// `corelane.connection.pipeline`: requests of one connection worked on at the same time
    pub connection_pipeline: usize,
    /// `corelane.index.cache.bytes`: indexes of older segments, per shard
    pub index_cache_bytes: usize,
    /// `corelane.response.memory.bytes`: in answers not yet sent, per shard
    pub response_memory_bytes: usize,
    /// `corelane.connection.response.bytes`: answers gathered for one
    /// connection before they are sent
    pub connection_response_bytes: usize,
    /// `corelane.mailbox.capacity`: calls under way from one shard to another
    pub mailbox_capacity: usize,
    /// `corelane.checkpoint.bytes`: bytes per shard since the last checkpoints that start new
    /// ones, so recovery after a crash scans no more
    pub checkpoint_bytes: u64,
    /// `corelane.preallocate.max.bytes`: largest step in which a segment is extended
    pub preallocate_max_bytes: u64,
    /// `corelane.write.ahead.bytes`: largest step of zeros ahead of small writes; 0: none
    pub write_ahead_bytes: u64,
    /// `corelane.write.ahead.group.bytes`: writes of this mean size or more get
    /// no zeros ahead of them
    pub write_ahead_group_bytes: u64,
    /// `corelane.write.max.bytes`: largest write to a segment; aligned
    pub write_max_bytes: usize,
    /// `corelane.write.queue.depth`: writes of one partition in flight together
    pub write_queue_depth: usize,
    /// `corelane.append.linger.us`: how long a lone batch waits for company
    pub append_linger_us: u64,
    /// `corelane.idle.spin.us`: how long a shard that has run out of work spins,
    /// at most, before it sleeps
    pub idle_spin_us: u64,
    /// `corelane.gather.us`: how long a shard that sleeps lets requests gather
    pub gather_us: u64,
    /// `corelane.flush.delay.ms`: how long a sync before acknowledgements is put off
    pub flush_delay_ms: u64,
    /// `corelane.acknowledge`
    pub acknowledge: Acknowledge,
    /// `corelane.arena.bytes`: per shard and data directory
    pub arena_bytes: usize,
    /// `corelane.arena.dir`; empty: in each data directory
    pub arena_dir: PathBuf,
    /// `corelane.write.behind.max.ms`
    pub write_behind_max_ms: u64,
    /// `corelane.produce.validate`
    pub produce_validation: ProduceValidation,
    /// `corelane.internal.topics.delete`
    pub internal_topics_delete: bool,
    /// `corelane.disk.reserve.bytes`: free space that records of ordinary topics leave alone
    pub disk_reserve_bytes: u64,
    /// `corelane.shutdown.timeout.ms`: how long the logs may take to be closed on SIGTERM
    pub shutdown_timeout_ms: u64,
    /// `corelane.log.level`: tracing filter
    pub log_level: String,
    /// `corelane.log.format`
    pub log_format: LogFormat,
    /// `corelane.http.listener`: as written, and resolved; `None`: no metrics are served
    pub http_listener: (String, Option<SocketAddr>),
    /// `corelane.console.remote`
    pub console_remote: bool,
    /// `corelane.console.admin`
    pub console_admin: bool,
    /// `corelane.slow.request.ms`; 0: no line is logged
    pub slow_request_ms: u64,
    /// `corelane.slow.request.threshold.ms`
    pub slow_request_threshold_ms: u64,
    /// `corelane.metrics.partitions`
    pub metrics_partitions: bool,
    /// `corelane.metrics.max.names`: topics, and groups, with series of their own
    pub metrics_max_names: usize,
    /// Data directories in which the last broker stopped cleanly; found at the
    /// start, not an option.
    pub clean_dirs: Vec<PathBuf>,
    /// With `corelane.arena.dir`, the folder for the arenas of each data directory that has one
    /// there; found at the start, not an option.
    pub arena_folders: BTreeMap<PathBuf, PathBuf>,
    /// Connections that the limit of open files has room for; found at the start, not an option.
    pub connection_room: u32,
    /// Partitions whose acknowledged records an arena still holds; found at the
    /// start, not an option.
    pub not_taken_over: Vec<Untaken>,
    /// Options given by the user, by name, as written (DescribeConfigs tells them from defaults).
    pub given: BTreeMap<String, String>,
    /// Options set while the broker runs, which these settings follow.
    pub dynamic: DynamicOptions,
}

/// The listener of brokers among each other where none is named.
const INTER_BROKER: &str = "PLAINTEXT";

impl ServerConfig {
    /// The broker is one of a cluster.
    pub fn in_cluster(&self) -> bool {
        !self.zookeeper_connect.is_empty()
    }

    /// Every connection would be one too many.
    pub fn admits_nobody(&self) -> bool {
        self.max_connections_per_ip == 0 && self.max_connections_per_ip_overrides.1.is_empty()
    }

    /// Name of the listener by which brokers reach each other.
    pub fn inter_broker_listener(&self) -> &str {
        match self.inter_broker_listener_name.as_str() {
            "" => INTER_BROKER,
            name => name,
        }
    }
}

/// Acknowledged records of a killed broker that could not be written into their segments,
/// for want of room perhaps. They are tried again when the partition is opened, and must
/// not be appended to before.
#[derive(Clone, Debug)]
pub struct Untaken {
    /// The partition's directory.
    pub dir: PathBuf,
    pub topic: Uuid,
    pub partition: i32,
    /// The file that holds them.
    pub arena: PathBuf,
    pub why: String,
}
