//! What can be set per topic; the broker's options give the defaults.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::options::{Access, OPTIONS};
use super::{foreign, value};

/// How a topic's batches are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CompressionType {
    /// As the producer did it.
    Producer,
    Uncompressed,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// The settings in force for one topic. Kafka's names with `.` as `_`, units
/// where Kafka's name has them.
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
    /// `unclean.leader.election.enable`
    pub unclean_leader_election: bool,
    /// `file.delete.delay.ms`
    pub file_delete_delay_ms: u64,
    /// `cleanup.policy` contains delete.
    pub cleanup_delete: bool,
    /// `cleanup.policy` contains compact.
    pub cleanup_compact: bool,
    /// `min.cleanable.dirty.ratio`
    pub min_cleanable_dirty_ratio: f64,
    /// `min.compaction.lag.ms`
    pub min_compaction_lag_ms: i64,
    /// `max.compaction.lag.ms`; `i64::MAX`: none.
    pub max_compaction_lag_ms: i64,
    /// `compression.type`
    pub compression: CompressionType,
    /// `compression.gzip.level`; -1: the default.
    pub compression_gzip_level: i32,
    /// `compression.lz4.level`
    pub compression_lz4_level: i32,
    /// `compression.zstd.level`
    pub compression_zstd_level: i32,
    /// `delete.retention.ms`: how long tombstones outlast what they delete.
    pub delete_retention_ms: i64,
    /// `leader.replication.throttled.replicas`
    pub leader_throttled: ThrottledReplicas,
    /// `follower.replication.throttled.replicas`
    pub follower_throttled: ThrottledReplicas,
}

/// Replicas of a topic to which the throttle of replication applies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ThrottledReplicas {
    #[default]
    None,
    All,
    /// Partition and broker.
    Some(Arc<[(i32, i32)]>),
}

impl ThrottledReplicas {
    pub fn contains(&self, partition: i32, broker: i32) -> bool {
        match self {
            ThrottledReplicas::None => false,
            ThrottledReplicas::All => true,
            ThrottledReplicas::Some(replicas) => replicas.contains(&(partition, broker)),
        }
    }

    pub(super) fn parse(list: &[String]) -> Result<ThrottledReplicas, String> {
        if list == ["*"] {
            return Ok(ThrottledReplicas::All);
        }
        let number = |text: &str| text.parse().ok().filter(|number| *number >= 0);
        let replica = |text: &String| {
            let parts =
                text.split_once(':').and_then(|(partition, broker)| Some((number(partition)?, number(broker)?)));
            parts.ok_or_else(|| "must be *, or PARTITION:BROKER,...".to_owned())
        };
        let replicas = list.iter().filter(|text| !text.is_empty()).map(replica).collect::<Result<Vec<_>, _>>()?;
        Ok(if replicas.is_empty() { ThrottledReplicas::None } else { ThrottledReplicas::Some(replicas.into()) })
    }
}

impl fmt::Display for ThrottledReplicas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ThrottledReplicas::None => Ok(()),
            ThrottledReplicas::All => f.write_str("*"),
            ThrottledReplicas::Some(replicas) => {
                let texts: Vec<String> =
                    replicas.iter().map(|(partition, broker)| format!("{partition}:{broker}")).collect();
                f.write_str(&texts.join(","))
            }
        }
    }
}

impl TopicConfig {
    /// These settings with a topic's own on top; the error names the option, the
    /// value and what it must be.
    pub fn with_overrides<'a>(
        &self,
        overrides: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<TopicConfig, String> {
        let mut config = self.clone();
        for (name, text) in overrides {
            let wrong = |reason: String| format!("Invalid value {text} for configuration {name}: {reason}");
            let spec = OPTIONS.iter().find_map(|spec| spec.topic.filter(|t| t.0 == name).map(|t| (spec, t.1)));
            if let Some((spec, bounds)) = spec {
                let value = value::parse(spec.kind, bounds, text).map_err(wrong)?;
                if let Access::Topic { set, .. } = &spec.access {
                    set(&mut config, &value).map_err(wrong)?;
                }
            } else if let Some(foreign) = foreign::topic(name) {
                foreign.check(text).map_err(wrong)?;
            } else {
                return Err(format!("Unknown topic config name: {name}"));
            }
        }
        Ok(config)
    }

    /// These settings with a topic's own on top, as far as they are known and good:
    /// others may write them too.
    pub fn with_known(&self, overrides: &BTreeMap<String, String>) -> TopicConfig {
        let set = |config: TopicConfig, (option, value): (&String, &String)| {
            let pair = std::iter::once((option.as_str(), value.as_str()));
            config.with_overrides(pair).unwrap_or(config)
        };
        overrides.iter().fold(self.clone(), set)
    }

    /// The error: two settings that contradict each other. Apart from
    /// [`with_overrides`](Self::with_overrides), because a stored topic must stay readable when the
    /// broker's defaults change under it.
    pub fn check_together(&self) -> Result<(), String> {
        let (min, max) = (self.min_compaction_lag_ms, self.max_compaction_lag_ms);
        if min > max {
            return Err(format!("min.compaction.lag.ms ({min}) is above max.compaction.lag.ms ({max})"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Result<TopicConfig, String> {
        TopicConfig::default().with_overrides(pairs.iter().copied())
    }

    #[test]
    fn overrides_change_what_they_name_only() {
        let config = with(&[("retention.ms", "-1"), ("segment.bytes", "1048576"), ("flush.messages", "1")]).unwrap();
        let expected =
            TopicConfig { retention_ms: None, segment_bytes: 1 << 20, flush_messages: 1, ..TopicConfig::default() };
        assert_eq!(config, expected);
        assert_eq!(with(&[("retention.ms", "0")]).unwrap().retention_ms, Some(0));
        assert_eq!(with(&[("retention.bytes", "-5")]).unwrap().retention_bytes, None);
        assert!(with(&[("message.timestamp.type", "LogAppendTime")]).unwrap().log_append_time);
    }

    #[test]
    fn cleanup_policies_and_what_the_cleaner_goes_by() {
        let policy =
            |text| with(&[("cleanup.policy", text)]).map(|config| (config.cleanup_delete, config.cleanup_compact));
        assert_eq!(policy("delete"), Ok((true, false)));
        assert_eq!(policy("compact"), Ok((false, true)));
        assert_eq!(policy("compact, delete"), Ok((true, true)));
        assert_eq!(policy(""), Ok((false, false)), "everything is kept, as in Kafka");
        assert!(policy("delete,").is_err() && policy(",").is_err());
        let config = with(&[
            ("min.cleanable.dirty.ratio", "0.01"),
            ("min.compaction.lag.ms", "7"),
            ("max.compaction.lag.ms", "8"),
            ("delete.retention.ms", "9"),
        ])
        .unwrap();
        assert_eq!((config.min_cleanable_dirty_ratio, config.min_compaction_lag_ms), (0.01, 7));
        assert_eq!((config.max_compaction_lag_ms, config.delete_retention_ms), (8, 9));
        let default = TopicConfig::default();
        assert_eq!((default.min_cleanable_dirty_ratio, default.min_compaction_lag_ms), (0.5, 0));
        assert_eq!((default.max_compaction_lag_ms, default.delete_retention_ms), (i64::MAX, 86_400_000));
    }

    #[test]
    fn a_topic_has_a_codec_and_levels() {
        let default = TopicConfig::default();
        assert_eq!(default.compression, CompressionType::Producer);
        let levels = |c: &TopicConfig| (c.compression_gzip_level, c.compression_lz4_level, c.compression_zstd_level);
        assert_eq!(levels(&default), (-1, 9, 3));
        let config = with(&[
            ("compression.type", "lz4"),
            ("compression.gzip.level", "9"),
            ("compression.lz4.level", "17"),
            ("compression.zstd.level", "-131072"),
        ])
        .unwrap();
        assert_eq!((config.compression, levels(&config)), (CompressionType::Lz4, (9, 17, -131_072)));
    }

    #[test]
    fn throttled_replicas() {
        let of = |text| with(&[("follower.replication.throttled.replicas", text)]).unwrap().follower_throttled;
        assert_eq!((of(""), of("*")), (ThrottledReplicas::None, ThrottledReplicas::All));
        let some = of("0:1, 7:2");
        assert_eq!(some.to_string(), "0:1,7:2");
        assert!(some.contains(7, 2) && !some.contains(7, 1) && !some.contains(2, 7));
        assert!(of("*").contains(3, 3) && !of("").contains(0, 0));
        assert_eq!(with(&[("leader.replication.throttled.replicas", "")]), Ok(TopicConfig::default()));
    }

    #[test]
    fn lags_that_contradict_each_other_are_told() {
        let lags = |min, max| {
            let pairs = [("min.compaction.lag.ms", min), ("max.compaction.lag.ms", max)];
            with(&pairs).unwrap().check_together()
        };
        assert_eq!(lags("5", "5"), Ok(()));
        let error = lags("6", "5").unwrap_err();
        assert!(error.contains("min.compaction.lag.ms (6)") && error.contains("max.compaction.lag.ms (5)"), "{error}");
        assert_eq!(TopicConfig::default().check_together(), Ok(()));
    }

    #[test]
    fn wrong_values_are_refused_with_name_value_and_bounds() {
        let error = with(&[("segment.bytes", "1000")]).unwrap_err();
        assert!(error.contains("segment.bytes") && error.contains("1000") && error.contains("1048576"), "{error}");
        assert!(with(&[("retention.ms", "-2")]).is_err());
        assert!(
            with(&[("max.message.bytes", "268435456")]).is_ok() && with(&[("max.message.bytes", "268435457")]).is_err()
        );
        assert!(with(&[("min.insync.replicas", "0")]).is_err());
        assert_eq!(with(&[("segment.byte", "1")]).unwrap_err(), "Unknown topic config name: segment.byte");
        assert!(with(&[("log.segment.bytes", "2000000")]).is_err(), "the broker's name is no topic option");
    }

    #[test]
    fn what_is_not_honoured_is_accepted_only_where_it_changes_nothing() {
        let default = TopicConfig::default();
        for harmless in [("preallocate", "false"), ("remote.storage.enable", "false"), ("cleanup.policy", "delete")] {
            assert_eq!(with(&[harmless]), Ok(default.clone()), "{harmless:?}");
        }
        for (name, value) in [
            ("compression.type", "nonsense"),
            ("compression.type", "none"),
            ("compression.gzip.level", "0"),
            ("compression.gzip.level", "10"),
            ("compression.lz4.level", "0"),
            ("compression.lz4.level", "18"),
            ("compression.zstd.level", "23"),
            ("compression.zstd.level", "-131073"),
            ("delete.retention.ms", "-5"),
            ("unclean.leader.election.enable", "perhaps"),
            ("preallocate", "true"),
            ("remote.storage.enable", "true"),
            ("min.cleanable.dirty.ratio", "1.5"),
            ("max.compaction.lag.ms", "0"),
            ("segment.jitter.ms", "1"),
            ("message.format.version", "0.10.0"),
            ("leader.replication.throttled.replicas", "*,0:1"),
            ("follower.replication.throttled.replicas", "0:1,-1:2"),
            ("follower.replication.throttled.replicas", "0"),
        ] {
            let error = with(&[(name, value)]).unwrap_err();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
    }
}
