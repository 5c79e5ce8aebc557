//! The defaults, taken from the table so that they stand in one place.

use super::options::{Access, OPTIONS};
use super::{GroupConfig, ServerConfig, TopicConfig, TransactionConfig, value};
use crate::observe::LogFormat;

impl Default for TopicConfig {
    fn default() -> Self {
        let mut config = TopicConfig::blank();
        for spec in OPTIONS {
            if let (Access::Topic { set, .. }, Ok(value)) = (&spec.access, spec.default_value()) {
                let set = set(&mut config, &value);
                debug_assert_eq!(set, Ok(()), "the default of {}", spec.name);
            }
        }
        config
    }
}

impl Default for ServerConfig {
    fn default() -> Self {
        let mut config = ServerConfig::blank();
        for spec in OPTIONS {
            if let (Access::Server { set, .. }, Ok(value)) = (&spec.access, spec.default_value()) {
                let set = set(&mut config, &value);
                debug_assert_eq!(set, Ok(()), "the default of {}", spec.name);
            }
        }
        config
    }
}

impl super::OptionSpec {
    pub(super) fn default_value(&self) -> Result<value::Value, String> {
        value::parse(self.kind, self.bounds, self.default)
    }
}

impl TopicConfig {
    fn blank() -> TopicConfig {
        TopicConfig {
            segment_bytes: 0,
            segment_ms: 0,
            retention_ms: None,
            retention_bytes: None,
            max_message_bytes: 0,
            flush_messages: 0,
            flush_ms: None,
            index_interval_bytes: 0,
            segment_index_bytes: 0,
            log_append_time: false,
            timestamp_before_max_ms: 0,
            timestamp_after_max_ms: 0,
            min_insync_replicas: 0,
            unclean_leader_election: false,
            file_delete_delay_ms: 0,
            cleanup_delete: false,
            cleanup_compact: false,
            min_cleanable_dirty_ratio: 0.0,
            min_compaction_lag_ms: 0,
            max_compaction_lag_ms: 0,
            compression: super::CompressionType::Producer,
            compression_gzip_level: 0,
            compression_lz4_level: 0,
            compression_zstd_level: 0,
            delete_retention_ms: 0,
            leader_throttled: super::ThrottledReplicas::default(),
            follower_throttled: super::ThrottledReplicas::default(),
        }
    }
}

impl ServerConfig {
    fn blank() -> ServerConfig {
        ServerConfig {
            broker_id: 0,
            listeners: Vec::new(),
            listener_security_protocol_map: String::new(),
            inter_broker_listener_name: String::new(),
            broker_rack: None,
            log_dirs: Vec::new(),
            cordoned_log_dirs: Vec::new(),
            num_partitions: 0,
            zookeeper_connect: String::new(),
            zookeeper_session_timeout_ms: 0,
            zookeeper_connection_timeout_ms: 0,
            zookeeper_max_in_flight_requests: 0,
            auto_leader_rebalance_enable: false,
            leader_imbalance_check_interval_seconds: 0,
            leader_imbalance_per_broker_percentage: 0,
            controlled_shutdown_enable: false,
            default_replication_factor: 0,
            auto_create_topics_enable: false,
            delete_topic_enable: false,
            log_retention_check_interval_ms: 0,
            log_flush_offset_checkpoint_interval_ms: 0,
            log_flush_scheduler_interval_ms: 0,
            socket_request_max_bytes: 0,
            max_connections: 0,
            local_connections: 0,
            max_connections_per_ip: 0,
            max_connections_per_ip_overrides: Default::default(),
            max_connection_creation_rate: 0,
            quota_window_num: 0,
            quota_window_size_seconds: 0,
            controller_quota_window_num: 0,
            controller_quota_window_size_seconds: 0,
            socket_send_buffer_bytes: 0,
            socket_receive_buffer_bytes: 0,
            connections_max_idle_ms: 0,
            fetch_max_bytes: 0,
            max_incremental_fetch_session_cache_slots: 0,
            fetch_session_memory_bytes: 0,
            replica_selector: super::ReplicaSelector::Leader,
            replica_fetch_max_bytes: 0,
            replica_fetch_response_max_bytes: 0,
            replica_fetch_min_bytes: 0,
            replica_fetch_wait_max_ms: 0,
            replica_fetch_backoff_ms: 0,
            replica_high_watermark_checkpoint_interval_ms: 0,
            replica_socket_timeout_ms: 0,
            leader_replication_throttled_rate: 0,
            follower_replication_throttled_rate: 0,
            replica_alter_log_dirs_io_max_bytes_per_second: 0,
            producer_id_expiration_ms: 0,
            producer_id_expiration_check_interval_ms: 0,
            producer_state_max_bytes: 0,
            topic_defaults: TopicConfig::default(),
            log_cleaner_enable: false,
            log_cleaner_backoff_ms: 0,
            log_cleaner_dedupe_buffer_size: 0,
            log_cleaner_io_buffer_load_factor: 0.0,
            log_cleaner_io_buffer_size: 0,
            log_cleaner_io_max_bytes_per_second: 0.0,
            offsets_topic_num_partitions: 0,
            offsets_topic_segment_bytes: 0,
            offsets_topic_replication_factor: 0,
            offsets_load_buffer_size: 0,
            max_partitions: 0,
            max_segments: 0,
            group_memory_bytes: 0,
            group: GroupConfig::default(),
            transaction_topic_num_partitions: 0,
            transaction_topic_segment_bytes: 0,
            transaction_topic_replication_factor: 0,
            transaction_topic_min_isr: 0,
            transaction_load_buffer_size: 0,
            transaction_verification: true,
            transaction: TransactionConfig::default(),
            shards: 0,
            io_memory_bytes: 0,
            receive_memory_bytes: 0,
            tail_cache_bytes: 0,
            cache_bytes: 0,
            cold_cache_bytes: 0,
            connection_pipeline: 0,
            index_cache_bytes: 0,
            response_memory_bytes: 0,
            connection_response_bytes: 0,
            mailbox_capacity: 0,
            checkpoint_bytes: 0,
            preallocate_max_bytes: 0,
            write_ahead_bytes: 0,
            write_ahead_group_bytes: 32 << 10,
            write_max_bytes: 0,
            write_queue_depth: 0,
            append_linger_us: 0,
            idle_spin_us: 100,
            gather_us: 0,
            flush_delay_ms: 0,
            acknowledge: super::Acknowledge::Held,
            replica_lag_time_max_ms: 0,
            arena_bytes: 0,
            arena_dir: Default::default(),
            write_behind_max_ms: 0,
            produce_validation: super::ProduceValidation::Full,
            internal_topics_delete: false,
            disk_reserve_bytes: 0,
            shutdown_timeout_ms: 0,
            log_level: String::new(),
            log_format: LogFormat::Text,
            http_listener: (String::new(), None),
            slow_request_ms: 0,
            slow_request_threshold_ms: 0,
            console_remote: false,
            console_admin: false,
            metrics_partitions: false,
            metrics_max_names: 0,
            clean_dirs: Vec::new(),
            connection_room: u32::MAX,
            arena_folders: Default::default(),
            not_taken_over: Vec::new(),
            given: Default::default(),
            dynamic: Default::default(),
        }
    }
}
