//! What can be set per topic; the broker's options give the defaults.

/// The settings in force for one topic. Kafka's names with `.` as `_`, units where Kafka's name has them.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicConfig {
    /// `segment.bytes`
    pub segment_bytes: u64,
    /// `segment.ms`: a segment older than this rolls at the next append.
    pub segment_ms: i64,
    /// `retention.ms`; `None`: for ever.
    pub retention_ms: Option<i64>,
    /// `retention.bytes` per partition; `None`: no limit.
    pub retention_bytes: Option<u64>,
    /// `max.message.bytes`: largest batch.
    pub max_message_bytes: u32,
    /// `flush.messages`: sync before the ack once so many records are unsynced; `u64::MAX`: never.
    pub flush_messages: u64,
    /// `flush.ms`: sync at the latest so long after an append; `None`: never.
    pub flush_ms: Option<i64>,
    /// `index.interval.bytes`
    pub index_interval_bytes: u32,
    /// `segment.index.bytes`: largest index file.
    pub segment_index_bytes: u32,
    /// `message.timestamp.type` is LogAppendTime.
    pub log_append_time: bool,
    /// `message.timestamp.before.max.ms`
    pub timestamp_before_max_ms: i64,
    /// `message.timestamp.after.max.ms`
    pub timestamp_after_max_ms: i64,
    /// `min.insync.replicas`
    pub min_insync_replicas: u32,
    /// `file.delete.delay.ms`
    pub file_delete_delay_ms: u64,
    /// `cleanup.policy` contains delete.
    pub cleanup_delete: bool,
    /// `cleanup.policy` contains compact.
    pub cleanup_compact: bool,
}

impl Default for TopicConfig {
    fn default() -> Self {
        TopicConfig {
            segment_bytes: 1 << 30,
            segment_ms: 168 * 3_600_000,
            retention_ms: Some(168 * 3_600_000),
            retention_bytes: None,
            max_message_bytes: 1_048_588,
            flush_messages: u64::MAX,
            flush_ms: None,
            index_interval_bytes: 4096,
            segment_index_bytes: 10 << 20,
            log_append_time: false,
            timestamp_before_max_ms: i64::MAX,
            timestamp_after_max_ms: 3_600_000,
            min_insync_replicas: 1,
            file_delete_delay_ms: 60_000,
            cleanup_delete: true,
            cleanup_compact: false,
        }
    }
}
