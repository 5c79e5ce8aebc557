//! The table: every metric once. `docs/METRICS.md` is generated from here, and a test compares.

/// The kind of a metric's values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
}

/// One metric.
#[derive(Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub labels: &'static [&'static str],
    pub help: &'static str,
}

/// Declares constants, and all of them in one list.
macro_rules! metrics {
    ($($constant:ident: $kind:ident $name:literal [$($label:literal),*] $help:literal;)*) => {
        /// Each metric by name.
        pub mod metric {
            use super::{Kind, Metric};
            $(pub static $constant: Metric =
                Metric { name: $name, kind: Kind::$kind, labels: &[$($label),*], help: $help };)*
        }

        /// All of them, in the order of the documentation.
        pub static ALL: &[&Metric] = &[$(&metric::$constant),*];
    };
}

metrics! {
    BUILD: Gauge "corelane_build_info" ["version"] "1, with the broker's version.";
    BROKER: Gauge "corelane_broker_info" ["broker", "cluster"] "1, with the broker's id and its cluster's.";
    READY: Gauge "corelane_ready" [] "1 where /readyz says that the broker is ready.";
    REQUESTS: Counter "corelane_requests_total" ["api", "version"] "Requests, by API and version (Kafka: RequestsPerSec).";
    REQUEST_BYTES: Counter "corelane_request_bytes_total" ["api"] "Bytes of requests, without the length before each (Kafka: RequestBytes).";
    REQUEST_ERRORS: Counter "corelane_request_errors_total" ["api", "error"] "Errors in answers, by Kafka's name: an answer for several partitions may have several (Kafka: ErrorsPerSec, without NONE).";
    REQUEST_STAGES: Histogram "corelane_request_stage_seconds" ["api", "stage"] "Time from the last byte of a request until its batches were appended (Produce), acknowledged (Produce), and its answer was sent. A fetch's time includes its wait for records, see corelane_fetch_stage_seconds (Kafka: TotalTimeMs).";
    FETCH_STAGES: Histogram "corelane_fetch_stage_seconds" ["reader", "stage"] "Time that fetches of consumers and of followers spent: look_up (until a fetch began to read), wait (for records: fetch.min.bytes were not there, which is no slowness), read (from memory or the disk), send. They make up its time from the last byte of the request until its answer was sent.";
    CONNECTIONS: Gauge "corelane_connections" ["shard"] "Open connections (Kafka: connection-count).";
    CONNECTIONS_ACCEPTED: Counter "corelane_connections_accepted_total" ["shard"] "Connections taken up (Kafka: connection-creation-total).";
    CONNECTIONS_REFUSED: Counter "corelane_connections_refused_total" ["shard"] "Connections closed at once for a limit: max.connections.per.ip, or the places for other machines.";
    CONNECTIONS_MALFORMED: Counter "corelane_connections_malformed_total" ["shard"] "Connections closed for bytes that are no request, or one that is not served.";
    CONNECTIONS_MOVED: Counter "corelane_connections_moved_total" ["shard"] "Connections that came here from another shard, for most of their requests were for this one.";
    CLIENT_CONNECTIONS: Gauge "corelane_client_connections" ["software", "version"] "Open connections by what their clients say they are (KIP-511). The first 100 kinds are told apart.";
    THROTTLES: Counter "corelane_quota_throttles_total" ["quota", "entity"] "Times that a client was told to wait, by the quota that it had used too much of and whom that was set for; a connection closed for its address's rate counts as one. The first 100 are told apart.";
    THROTTLE_TIME: Counter "corelane_quota_throttle_seconds_total" ["quota", "entity"] "Time that they were told to wait (Kafka: throttle-time).";
    RECEIVED_BYTES: Counter "corelane_network_received_bytes_total" ["shard"] "Bytes from clients and followers.";
    SENT_BYTES: Counter "corelane_network_sent_bytes_total" ["shard"] "Bytes to clients and followers.";
    SHARD_TURNS: Histogram "corelane_shard_turn_seconds" ["shard"] "Time that tasks took between two questions to the kernel: the time that others had to wait. The sum is the time that the shard was busy.";
    SHARD_STALLS: Counter "corelane_shard_stalls_total" ["shard"] "Times that the shard made no progress for a second.";
    SHARD_IO: Gauge "corelane_shard_io_in_flight" ["shard"] "Reads, writes and syncs of logs that the kernel works on.";
    SHARD_MAILBOX: Gauge "corelane_shard_mailbox_messages" ["shard"] "Messages of other shards that wait.";
    SHARD_MESSAGES: Counter "corelane_shard_messages_total" ["shard"] "Messages to other shards.";
    MEMORY_USED: Gauge "corelane_memory_used_bytes" ["shard", "memory"] "In use of each bounded memory: arena (batches not yet written), tail_cache, cache (copies for consumers that lag), cold_cache, receive (requests), response (answers), groups, producers.";
    MEMORY_CAPACITY: Gauge "corelane_memory_capacity_bytes" ["shard", "memory"] "The bound of each.";
    CACHE_READS: Counter "corelane_cache_reads_total" ["shard", "cache", "outcome"] "Reads of records, outcome hit or miss: tail is the memory of what was just written, cold that of chunks read back from the disk.";
    UNSYNCED: Gauge "corelane_unsynced_bytes" ["shard"] "Written since the last syncs, at most.";
    SEGMENTS: Gauge "corelane_segments" ["shard"] "Segments of all logs.";
    STORAGE_FAILURES: Counter "corelane_storage_failures_total" ["shard"] "Times that a log failed or found no room on its disk.";
    TOPIC_RECEIVED: Counter "corelane_topic_received_bytes_total" ["topic"] "Bytes of batches from producers (Kafka: BytesInPerSec).";
    TOPIC_RECORDS: Counter "corelane_topic_received_records_total" ["topic"] "Records from producers (Kafka: MessagesInPerSec).";
    TOPIC_SENT: Counter "corelane_topic_sent_bytes_total" ["topic"] "Bytes of batches to consumers (Kafka: BytesOutPerSec).";
    TOPIC_REPLICATED_IN: Counter "corelane_topic_replication_received_bytes_total" ["topic"] "Bytes that followers here took from leaders elsewhere (Kafka: ReplicationBytesInPerSec).";
    TOPIC_REPLICATED_OUT: Counter "corelane_topic_replication_sent_bytes_total" ["topic"] "Bytes that followers elsewhere took from leaders here (Kafka: ReplicationBytesOutPerSec).";
    TOPIC_BYTES: Gauge "corelane_topic_log_bytes" ["topic"] "Bytes of the logs of the topic's replicas here (Kafka: Log Size).";
    TOPIC_PARTITIONS: Gauge "corelane_topic_partitions" ["topic"] "Partitions of the topic, wherever they are.";
    TOPIC_TRANSACTIONS: Gauge "corelane_topic_open_transactions" ["topic"] "Transactions that have not ended in partitions of the topic that are led here; one in several partitions counts in each.";
    TOPIC_STABLE_LAG: Gauge "corelane_topic_last_stable_lag_records" ["topic"] "Offsets between the last stable offset and the high watermark: what readers of committed records do not get yet for transactions that have not ended. Of the partition led here that has most (Kafka: LastStableOffsetLag).";
    PARTITION_BYTES: Gauge "corelane_partition_log_bytes" ["topic", "partition"] "Bytes of a replica's log here. With corelane.metrics.partitions.";
    PARTITION_START: Gauge "corelane_partition_log_start_offset" ["topic", "partition"] "First offset of a replica here. With corelane.metrics.partitions.";
    PARTITION_HIGH: Gauge "corelane_partition_high_watermark" ["topic", "partition"] "Offset up to which consumers may read a replica here. With corelane.metrics.partitions.";
    REPLICAS: Gauge "corelane_partition_replicas" [] "Replicas on this broker (Kafka: PartitionCount).";
    LEADERS: Gauge "corelane_partition_leaders" [] "Partitions that this broker leads (Kafka: LeaderCount).";
    UNDER_REPLICATED: Gauge "corelane_under_replicated_partitions" [] "Partitions led here with replicas that are not in sync (Kafka: UnderReplicatedPartitions).";
    UNDER_MIN_ISR: Gauge "corelane_under_min_isr_partitions" [] "Partitions led here with fewer replicas in sync than min.insync.replicas: acks=all is refused (Kafka: UnderMinIsrPartitionCount).";
    OFFLINE: Gauge "corelane_offline_partitions" [] "Partitions without a leader, of the whole cluster: each broker tells the same (Kafka: OfflinePartitionsCount).";
    ISR_SHRINKS: Counter "corelane_isr_shrinks_total" [] "Times that a leader here put replicas out of the ISR (Kafka: IsrShrinksPerSec).";
    ISR_EXPANDS: Counter "corelane_isr_expands_total" [] "Times that a leader here took replicas into the ISR (Kafka: IsrExpandsPerSec).";
    CONTROLLER: Gauge "corelane_active_controller" [] "1 on the broker that is the controller: of a cluster the sum is 1 (Kafka: ActiveControllerCount).";
    BROKERS: Gauge "corelane_brokers" [] "Brokers that are registered.";
    TOPICS: Gauge "corelane_topics" [] "Topics (Kafka: GlobalTopicCount).";
    GROUPS: Gauge "corelane_groups" ["state"] "Groups that this broker coordinates, by Kafka's word for their state.";
    GROUP_MEMBERS: Gauge "corelane_group_members" ["group"] "Members of a group that this broker coordinates.";
    GROUP_LAG: Gauge "corelane_group_lag_records" ["group", "topic"] "Records between what a group has committed and what its consumers may read, over all partitions with a committed offset (kafka-consumer-groups: LAG). Of a cluster only partitions with a replica here; that of a follower may be a little behind.";
    GROUP_PARTITION_LAG: Gauge "corelane_group_partition_lag_records" ["group", "topic", "partition"] "The same of one partition. With corelane.metrics.partitions.";
    DIR_FREE: Gauge "corelane_log_dir_free_bytes" ["dir"] "Bytes that may still be written on the file system of a data directory.";
    DIR_SIZE: Gauge "corelane_log_dir_size_bytes" ["dir"] "Size of that file system.";
    RESIDENT: Gauge "process_resident_memory_bytes" [] "Resident memory of the process.";
    VIRTUAL: Gauge "process_virtual_memory_bytes" [] "Virtual memory of the process.";
    CPU: Counter "process_cpu_seconds_total" [] "CPU time of the process, user and system.";
    OPEN_FDS: Gauge "process_open_fds" [] "Open file descriptors.";
    MAX_FDS: Gauge "process_max_fds" [] "The most there may be.";
    THREADS: Gauge "process_threads" [] "Threads of the process.";
    START_TIME: Gauge "process_start_time_seconds" [] "When the process started, in seconds since 1970.";
    MONITOR_CPU: Counter "corelane_monitor_cpu_seconds_total" [] "CPU time of the thread that serves this.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_as_prometheus_wants_them() {
        for (at, metric) in ALL.iter().enumerate() {
            let Metric { name, kind, labels, help } = metric;
            assert!(ALL[..at].iter().all(|other| other.name != *name), "{name} twice");
            assert_eq!(*kind == Kind::Counter, name.ends_with("_total"), "{name}");
            assert!(name.starts_with("corelane_") || name.starts_with("process_"), "{name}");
            assert!(help.ends_with('.') && !help.contains(['|', '\n']), "{name}: {help}");
            let sound = |word: &str| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            assert!(sound(name) && labels.iter().all(|label| sound(label)), "{name} {labels:?}");
            let units = ["ms", "us", "kb", "mib", "milliseconds", "percent"];
            assert!(name.split('_').all(|word| !units.contains(&word)), "{name} is in no base unit");
        }
    }
}
