//! Options of group coordinators and of the topic they keep their groups in.

use super::{Access, OptionSpec, broker};
use crate::config::ServerConfig;
use crate::config::value::{Bounds, Kind, Value};
use Bounds::{AtLeast, Between, NotEmpty, OneOf};
use Kind::{Int, List, Long, String as Text};

/// An integer of the group settings.
macro_rules! group {
    ($field:ident) => {
        Access::Server {
            set: |config, value| {
                config.group.$field = value.integer().try_into().map_err(|_| "does not fit".to_owned())?;
                Ok(())
            },
            get: |config| config.group.$field.to_string(),
        }
    };
}

pub(super) const GROUPS: &[OptionSpec] = &[
    broker(
        "offsets.topic.num.partitions",
        Int,
        "50",
        Between(1, 10_000),
        integer!(Server offsets_topic_num_partitions),
        "Partitions of __consumer_offsets, which is made when the first group looks for its coordinator. Without effect once it is there: the topic keeps its number.",
    ),
    broker(
        "offsets.topic.replication.factor",
        Int,
        "3",
        Between(1, 32_767),
        integer!(Server offsets_topic_replication_factor),
        "Replicas of __consumer_offsets when it is made; with fewer brokers than that it is not made, and groups are not served. A broker that is alone makes it with one.",
    ),
    broker(
        "offsets.topic.segment.bytes",
        Int,
        "104857600",
        Between(1 << 20, i32::MAX as i64),
        integer!(Server offsets_topic_segment_bytes),
        "Largest segment of __consumer_offsets when it is made: what a restart reads beyond the compacted groups.",
    ),
    broker(
        "offsets.load.buffer.size",
        Int,
        "5242880",
        Between(65_536, 1 << 28),
        integer!(Server offsets_load_buffer_size),
        "Bytes read at a time while groups are loaded.",
    ),
    broker(
        "offsets.retention.minutes",
        Int,
        "10080",
        AtLeast(1),
        Access::Server {
            set: |config, value| {
                config.group.offsets_retention_ms = value.integer() * 60_000;
                Ok(())
            },
            get: |config| (config.group.offsets_retention_ms / 60_000).to_string(),
        },
        "How long the offsets of a group are kept after its last member has gone, and those of a group without members after their commit.",
    ),
    broker(
        "offsets.retention.check.interval.ms",
        Long,
        "600000",
        AtLeast(1),
        group!(offsets_retention_check_interval_ms),
        "Time between two searches for offsets to remove.",
    ),
    broker(
        "offset.metadata.max.bytes",
        Int,
        "4096",
        Between(0, 32_767),
        group!(offset_metadata_max_bytes),
        "Longest text that a consumer may commit with an offset.",
    ),
    broker(
        "group.min.session.timeout.ms",
        Int,
        "6000",
        AtLeast(1),
        group!(min_session_timeout_ms),
        "Shortest session timeout that a member of a classic group may ask for.",
    ),
    broker(
        "group.max.session.timeout.ms",
        Int,
        "1800000",
        AtLeast(1),
        group!(max_session_timeout_ms),
        "Longest session timeout that a member of a classic group may ask for.",
    ),
    broker(
        "group.initial.rebalance.delay.ms",
        Int,
        "3000",
        AtLeast(0),
        group!(initial_rebalance_delay_ms),
        "How long an empty classic group waits for more members before its first rebalance.",
    ),
    broker("group.max.size", Int, "2147483647", AtLeast(1), group!(max_size), "Most members of a classic group."),
    broker(
        "group.coordinator.rebalance.protocols",
        List,
        "classic,consumer",
        OneOf(&["classic", "consumer", "share", "streams"]),
        Access::Server { set: set_protocols, get: get_protocols },
        "Group protocols served: classic always, consumer (KIP-848) unless it is left out. share and streams, which Kafka has too, are taken and not served.",
    ),
    broker(
        "group.consumer.session.timeout.ms",
        Int,
        "45000",
        AtLeast(1),
        group!(consumer_session_timeout_ms),
        "How long a member of a consumer group (KIP-848) may be silent.",
    ),
    broker(
        "group.consumer.heartbeat.interval.ms",
        Int,
        "5000",
        AtLeast(1),
        group!(consumer_heartbeat_interval_ms),
        "How often members of consumer groups are told to send heartbeats; less than the session timeout.",
    ),
    broker(
        "group.consumer.min.session.timeout.ms",
        Int,
        "45000",
        AtLeast(1),
        group!(consumer_min_session_timeout_ms),
        "Shortest session timeout that a consumer group may have of its own (consumer.session.timeout.ms of the group).",
    ),
    broker(
        "group.consumer.max.session.timeout.ms",
        Int,
        "60000",
        AtLeast(1),
        group!(consumer_max_session_timeout_ms),
        "Longest session timeout that a consumer group may have of its own.",
    ),
    broker(
        "group.consumer.min.heartbeat.interval.ms",
        Int,
        "5000",
        AtLeast(1),
        group!(consumer_min_heartbeat_interval_ms),
        "Shortest interval between heartbeats that a consumer group may have of its own (consumer.heartbeat.interval.ms of the group).",
    ),
    broker(
        "group.consumer.max.heartbeat.interval.ms",
        Int,
        "15000",
        AtLeast(1),
        group!(consumer_max_heartbeat_interval_ms),
        "Longest interval between heartbeats that a consumer group may have of its own.",
    ),
    broker(
        "group.consumer.max.size",
        Int,
        "2147483647",
        AtLeast(1),
        group!(consumer_max_size),
        "Most members of a consumer group.",
    ),
    broker(
        "group.consumer.assignors",
        List,
        "uniform,range",
        NotEmpty,
        Access::Server { set: set_assignors, get: |config| config.group.consumer_assignors.join(",") },
        "Server-side assignors (uniform, range, or Kafka's class names for them); the first is the default.",
    ),
    broker(
        "group.consumer.migration.policy",
        Text,
        "bidirectional",
        OneOf(&["bidirectional", "upgrade", "downgrade", "disabled"]),
        Access::Server { set: set_migration, get: get_migration },
        "Whether a classic group becomes a consumer group when a member of the new protocol joins it (upgrade), and the reverse when the last of them leaves (downgrade).",
    ),
    broker(
        "corelane.group.max.bytes",
        Int,
        "16777216",
        Between(65_536, 1 << 28),
        group!(max_group_bytes),
        "What the members of one group may have the coordinator keep: subscriptions and assignments. Kafka has no such bound. One request (a leader's assignments, say) has at most 4 MiB.",
    ),
];

fn set_protocols(config: &mut ServerConfig, value: &Value) -> Result<(), String> {
    let has = |protocol: &str| value.list().iter().any(|item| item == protocol);
    if !has("classic") {
        return Err("does not name classic, which is always served".into());
    }
    config.group.consumer_protocol = has("consumer");
    Ok(())
}

fn get_protocols(config: &ServerConfig) -> String {
    if config.group.consumer_protocol { "classic,consumer" } else { "classic" }.to_owned()
}

fn set_assignors(config: &mut ServerConfig, value: &Value) -> Result<(), String> {
    let mut names = Vec::new();
    for item in value.list() {
        let name = match item.as_str() {
            "uniform" | "org.apache.kafka.coordinator.group.assignor.UniformAssignor" => "uniform",
            "range" | "org.apache.kafka.coordinator.group.assignor.RangeAssignor" => "range",
            _ => return Err(format!("names the assignor {item}; there are uniform and range")),
        };
        if names.iter().any(|known| known == name) {
            return Err(format!("names {name} twice"));
        }
        names.push(name.to_owned());
    }
    config.group.consumer_assignors = names;
    Ok(())
}

fn set_migration(config: &mut ServerConfig, value: &Value) -> Result<(), String> {
    config.group.consumer_upgrade = matches!(value.text(), "bidirectional" | "upgrade");
    config.group.consumer_downgrade = matches!(value.text(), "bidirectional" | "downgrade");
    Ok(())
}

fn get_migration(config: &ServerConfig) -> String {
    match (config.group.consumer_upgrade, config.group.consumer_downgrade) {
        (true, true) => "bidirectional",
        (true, false) => "upgrade",
        (false, true) => "downgrade",
        (false, false) => "disabled",
    }
    .to_owned()
}
