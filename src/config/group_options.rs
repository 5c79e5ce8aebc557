//! Options of single groups (`ConfigResource` type GROUP, KIP-848): what Kafka 4.3 takes, and the
//! values that a group follows.

use std::collections::BTreeMap;

use super::GroupConfig;
use super::ServerConfig;
use super::describe::{ConfigEntry, ConfigSource, ConfigSynonym};
use super::explain::{Explanation, unit};
use super::options::OPTIONS;
use super::value::{self, Bounds, Kind, Value};
use Bounds::{Any, AtLeast, OneOf};

/// An option of a group.
struct Spec {
    name: &'static str,
    kind: Kind,
    default: &'static str,
    bounds: Bounds,
    doc: &'static str,
}

/// Options that no broker has for all groups.
const ALONE: [&str; 3] = ["share.auto.offset.reset", "share.isolation.level", "share.renew.acknowledge.enable"];

const SESSION: &str = "consumer.session.timeout.ms";
const HEARTBEAT: &str = "consumer.heartbeat.interval.ms";
const NO_SHARE: &str = "Taken and without effect: there are no share groups.";
const NO_STREAMS: &str = "Taken and without effect: there are no streams groups.";

const fn spec(name: &'static str, kind: Kind, default: &'static str, bounds: Bounds, doc: &'static str) -> Spec {
    Spec { name, kind, default, bounds, doc }
}

/// In name order.
static SPECS: &[Spec] = &[
    spec(
        "consumer.assignment.interval.ms",
        Kind::Int,
        "1000",
        AtLeast(0),
        "Taken and without effect: assignments are computed at once.",
    ),
    spec(
        HEARTBEAT,
        Kind::Int,
        "5000",
        AtLeast(1),
        "How often members of the consumer group are told to send heartbeats. Within group.consumer.min.heartbeat.interval.ms and \
         group.consumer.max.heartbeat.interval.ms, and less than the session timeout.",
    ),
    spec(
        SESSION,
        Kind::Int,
        "45000",
        AtLeast(1),
        "How long a member of the consumer group may send no heartbeat before it is put out of the group. Within \
         group.consumer.min.session.timeout.ms and group.consumer.max.session.timeout.ms.",
    ),
    spec("share.assignment.interval.ms", Kind::Int, "1000", AtLeast(0), NO_SHARE),
    spec("share.auto.offset.reset", Kind::String, "latest", Any, NO_SHARE),
    spec("share.delivery.count.limit", Kind::Int, "5", AtLeast(2), NO_SHARE),
    spec("share.heartbeat.interval.ms", Kind::Int, "5000", AtLeast(1), NO_SHARE),
    spec(
        "share.isolation.level",
        Kind::String,
        "read_uncommitted",
        OneOf(&["read_committed", "read_uncommitted"]),
        NO_SHARE,
    ),
    spec("share.partition.max.record.locks", Kind::Int, "2000", AtLeast(100), NO_SHARE),
    spec("share.record.lock.duration.ms", Kind::Int, "30000", AtLeast(1000), NO_SHARE),
    spec("share.renew.acknowledge.enable", Kind::Boolean, "true", Any, NO_SHARE),
    spec("share.session.timeout.ms", Kind::Int, "45000", AtLeast(1), NO_SHARE),
    spec("streams.assignment.interval.ms", Kind::Int, "1000", AtLeast(0), NO_STREAMS),
    spec("streams.heartbeat.interval.ms", Kind::Int, "5000", AtLeast(1), NO_STREAMS),
    spec("streams.initial.rebalance.delay.ms", Kind::Int, "3000", AtLeast(0), NO_STREAMS),
    spec("streams.num.standby.replicas", Kind::Int, "0", AtLeast(0), NO_STREAMS),
    spec("streams.session.timeout.ms", Kind::Int, "45000", AtLeast(1), NO_STREAMS),
];

/// Options of one group, by Kafka's name, as they are stored.
pub type Options = BTreeMap<String, String>;

/// Options of all groups that have any, with the values that coordinators follow.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupOptions {
    set: BTreeMap<String, Options>,
}

impl GroupOptions {
    pub fn new(set: BTreeMap<String, Options>) -> GroupOptions {
        GroupOptions { set }
    }

    /// In name order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.set.keys().map(String::as_str)
    }

    pub fn len(&self) -> usize {
        self.set.len()
    }

    pub fn is_empty(&self) -> bool {
        self.set.is_empty()
    }

    /// Empty for a group without options.
    pub fn of(&self, group: &str) -> Options {
        self.set.get(group).cloned().unwrap_or_default()
    }

    /// Session timeout of members by the consumer protocol, ms. A value that the broker's bounds no
    /// longer allow is the nearest that they do.
    pub fn session_timeout_ms(&self, group: &str, broker: &GroupConfig) -> i32 {
        let (min, max) = (broker.consumer_min_session_timeout_ms, broker.consumer_max_session_timeout_ms);
        self.integer(group, SESSION).map_or(broker.consumer_session_timeout_ms, |own| own.min(max).max(min))
    }

    /// Interval between heartbeats of members by the consumer protocol, ms; bounded
    /// as the session timeout is.
    pub fn heartbeat_interval_ms(&self, group: &str, broker: &GroupConfig) -> i32 {
        let (min, max) = (broker.consumer_min_heartbeat_interval_ms, broker.consumer_max_heartbeat_interval_ms);
        self.integer(group, HEARTBEAT).map_or(broker.consumer_heartbeat_interval_ms, |own| own.min(max).max(min))
    }

    fn integer(&self, group: &str, name: &str) -> Option<i32> {
        self.set.get(group)?.get(name)?.trim().parse().ok()
    }
}

/// Checks options that a group is to have; the error says what is wrong with them.
pub fn check(options: &Options, broker: &GroupConfig) -> Result<(), String> {
    for (name, text) in options {
        let Some(spec) = SPECS.iter().find(|spec| spec.name == name) else {
            return Err(format!("Unknown group config name: {name}"));
        };
        let wrong = |reason: String| format!("Invalid value {text} for configuration {name}: {reason}");
        value::parse(spec.kind, spec.bounds, text).map_err(wrong)?;
    }
    let integer = |name: &str, default: i32| match options.get(name).map(|text| value::parse(Kind::Int, Any, text)) {
        Some(Ok(Value::Integer(value))) => value,
        _ => i64::from(default),
    };
    let session = integer(SESSION, broker.consumer_session_timeout_ms);
    let heartbeat = integer(HEARTBEAT, broker.consumer_heartbeat_interval_ms);
    let bounds = [
        (SESSION, session, broker.consumer_min_session_timeout_ms, "min.session.timeout.ms", true),
        (SESSION, session, broker.consumer_max_session_timeout_ms, "max.session.timeout.ms", false),
        (HEARTBEAT, heartbeat, broker.consumer_min_heartbeat_interval_ms, "min.heartbeat.interval.ms", true),
        (HEARTBEAT, heartbeat, broker.consumer_max_heartbeat_interval_ms, "max.heartbeat.interval.ms", false),
    ];
    for (name, value, bound, of, is_least) in bounds {
        let (is_kept, than) =
            if is_least { (value >= bound.into(), "greater") } else { (value <= bound.into(), "less") };
        // The broker's own options are not the group's fault.
        if !is_kept && options.contains_key(name) {
            return Err(format!("{name} must be {than} than or equal to group.consumer.{of} ({bound})"));
        }
    }
    if session <= heartbeat && (options.contains_key(SESSION) || options.contains_key(HEARTBEAT)) {
        return Err(format!("{SESSION} ({session}) must be greater than {HEARTBEAT} ({heartbeat})"));
    }
    Ok(())
}

/// The broker's option of the same meaning; it can be given where it has effect.
fn broker_option(spec: &Spec) -> Option<&'static str> {
    let name = format!("group.{}", spec.name);
    OPTIONS.iter().map(|option| option.name).find(|known| *known == name)
}

/// The option of groups that overrides a broker's.
pub(super) fn of_broker(name: &str) -> Option<&'static str> {
    known(name.strip_prefix("group.")?)
}

/// Names of all options of groups.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    SPECS.iter().map(|spec| spec.name)
}

/// An option of groups by its name.
fn known(name: &str) -> Option<&'static str> {
    names().find(|known| *known == name)
}

pub(super) fn explain(name: &str) -> Option<Explanation> {
    let spec = SPECS.iter().find(|spec| spec.name == name)?;
    Some(Explanation {
        name: name.to_owned(),
        broker: broker_option(spec),
        topic: None,
        group: Some(spec.name),
        aliases: Vec::new(),
        kind: spec.kind.to_string(),
        unit: unit(name),
        default: Some(spec.default),
        accepted: spec.bounds.to_string(),
        honoured: matches!(spec.name, SESSION | HEARTBEAT),
        doc: spec.doc,
    })
}

/// Every option of a group with these of its own, in name order.
pub fn describe_group(server: &ServerConfig, own: &Options) -> Vec<ConfigEntry> {
    let entry = |spec: &'static Spec| {
        let broker = format!("group.{}", spec.name);
        let broker = if ALONE.contains(&spec.name) { spec.name } else { &*broker };
        let given = broker_option(spec).and_then(|name| server.given.get(name));
        let default = Some(spec.default.to_owned());
        let synonym =
            |name: &str, value: &str, source| ConfigSynonym { name: name.into(), value: Some(value.into()), source };
        let own = own.get(spec.name).map(|value| synonym(spec.name, value, ConfigSource::DynamicGroup));
        let given = given.map(|value| synonym(broker, value, ConfigSource::StaticBroker));
        let last = synonym(broker, spec.default, ConfigSource::Default);
        let synonyms: Vec<ConfigSynonym> = own.into_iter().chain(given).chain([last]).collect();
        let first = synonyms.first();
        ConfigEntry {
            name: spec.name,
            value: first.and_then(|first| first.value.clone()),
            default,
            source: first.map_or(ConfigSource::Default, |first| first.source),
            read_only: false,
            sensitive: false,
            kind: spec.kind,
            doc: spec.doc,
            synonyms,
        }
    };
    SPECS.iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> Options {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn specs_are_in_order_and_their_defaults_allowed() {
        assert!(SPECS.windows(2).all(|pair| pair[0].name < pair[1].name));
        for spec in SPECS {
            assert!(value::parse(spec.kind, spec.bounds, spec.default).is_ok(), "{}", spec.name);
        }
    }

    #[test]
    fn values_are_checked_alone_and_together() {
        let broker = GroupConfig::default();
        let good: [&[(&str, &str)]; 4] = [
            &[(SESSION, "50000"), (HEARTBEAT, "6000")],
            &[(SESSION, "45000")],
            &[("share.isolation.level", "read_committed"), ("streams.num.standby.replicas", "1")],
            &[],
        ];
        for pairs in good {
            assert_eq!(check(&options(pairs), &broker), Ok(()), "{pairs:?}");
        }
        for (pairs, part) in [
            (&[(SESSION, "44999")][..], "greater than or equal to group.consumer.min.session.timeout.ms (45000)"),
            (&[(SESSION, "60001")], "less than or equal to group.consumer.max.session.timeout.ms"),
            (&[(HEARTBEAT, "4999")], "greater than or equal to group.consumer.min.heartbeat"),
            (&[(HEARTBEAT, "15001")], "less than or equal to group.consumer.max.heartbeat"),
            (&[(HEARTBEAT, "soon")], "Invalid value soon"),
            (&[(SESSION, "0")], "Invalid value 0"),
            (&[("no.such.option", "1")], "Unknown group config name"),
            (&[("share.delivery.count.limit", "1")], "Invalid value 1"),
        ] {
            let error = check(&options(pairs), &broker).unwrap_err();
            assert!(error.contains(part), "{pairs:?}: {error}");
        }
        let wide = GroupConfig {
            consumer_min_session_timeout_ms: 1000,
            consumer_max_heartbeat_interval_ms: 60_000,
            ..GroupConfig::default()
        };
        let error = check(&options(&[(SESSION, "5000")]), &wide).unwrap_err();
        assert!(error.contains("must be greater than consumer.heartbeat.interval.ms (5000)"), "{error}");
    }

    #[test]
    fn a_group_follows_its_own_values_within_the_brokers_bounds() {
        let own = options(&[(SESSION, "50000"), (HEARTBEAT, "1")]);
        let all = GroupOptions::new(BTreeMap::from([("g".to_owned(), own)]));
        let broker = GroupConfig::default();
        assert_eq!((all.session_timeout_ms("g", &broker), all.heartbeat_interval_ms("g", &broker)), (50_000, 5000));
        assert_eq!((all.session_timeout_ms("h", &broker), all.heartbeat_interval_ms("h", &broker)), (45_000, 5000));
        assert_eq!(all.names().collect::<Vec<_>>(), ["g"]);
    }

    #[test]
    fn a_described_value_tells_where_it_comes_from() {
        let overrides = [("group.consumer.heartbeat.interval.ms".to_owned(), "7000".to_owned())];
        let server = ServerConfig::load(None, &overrides).unwrap().0;
        let entries = describe_group(&server, &options(&[(SESSION, "50000")]));
        let told = |name: &str| {
            let entry = entries.iter().find(|entry| entry.name == name).unwrap();
            (entry.value.clone().unwrap(), entry.source, entry.synonyms.len())
        };
        assert_eq!(told(SESSION), ("50000".to_owned(), ConfigSource::DynamicGroup, 2));
        assert_eq!(told(HEARTBEAT), ("7000".to_owned(), ConfigSource::StaticBroker, 2));
        assert_eq!(told("streams.num.standby.replicas"), ("0".to_owned(), ConfigSource::Default, 1));
    }
}
