use super::*;
use std::collections::BTreeSet;

#[test]
fn every_default_is_within_its_bounds_and_comes_back_as_written() {
    let config = ServerConfig::default();
    for spec in OPTIONS {
        let parsed = spec.default_value();
        assert!(parsed.is_ok(), "{}: {parsed:?}", spec.name);
        if spec.name == "advertised.listeners" {
            continue;
        }
        assert_eq!(spec.value(&config).unwrap_or_default(), spec.default, "{}", spec.name);
    }
    assert_eq!(config.topic_defaults, TopicConfig::default());
}

#[test]
fn the_defaults_are_kafkas() {
    let topic = TopicConfig::default();
    assert_eq!((topic.segment_bytes, topic.segment_ms, topic.retention_ms), (1 << 30, 604_800_000, Some(604_800_000)));
    assert_eq!((topic.retention_bytes, topic.flush_messages, topic.flush_ms), (None, u64::MAX, None));
    assert_eq!((topic.max_message_bytes, topic.timestamp_after_max_ms), (1_048_588, 3_600_000));
    let server = ServerConfig::default();
    assert_eq!((server.socket_request_max_bytes, server.fetch_max_bytes), (100 << 20, 55 << 20));
    assert_eq!((server.connections_max_idle_ms, server.log_flush_scheduler_interval_ms), (600_000, u64::MAX));
    assert_eq!(server.listeners[0].advertised_url().as_deref(), Some("PLAINTEXT://127.0.0.1:9092"));
}

#[test]
fn names_are_unique() {
    let mut names = BTreeSet::new();
    let mut topic_names = BTreeSet::new();
    for spec in OPTIONS {
        assert!(names.insert(spec.name), "{} twice", spec.name);
        assert!(!spec.doc.is_empty());
        if let Some((topic, _)) = spec.topic {
            assert!(topic_names.insert(topic), "{topic} twice");
            assert!(matches!(spec.access, Access::Topic { .. }), "{}", spec.name);
        } else {
            assert!(matches!(spec.access, Access::Server { .. }), "{}", spec.name);
        }
    }
}
