//! Options that are set while brokers run (KIP-226): of one broker, or the default of
//! all. A broker's own wins over the default, and both over the file; a topic's
//! override wins over all three.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::options::{Access, OPTIONS, OptionSpec};
use super::{ServerConfig, cordoned, foreign, value};

/// Of the broker alone; those that topics have too can all be set.
const DYNAMIC: &[&str] = &[
    cordoned::OPTION,
    "corelane.slow.request.ms",
    "corelane.slow.request.threshold.ms",
    "follower.replication.throttled.rate",
    "leader.replication.throttled.rate",
    "log.cleaner.backoff.ms",
    "log.cleaner.dedupe.buffer.size",
    "log.cleaner.io.buffer.load.factor",
    "log.cleaner.io.buffer.size",
    "log.cleaner.io.max.bytes.per.second",
    "max.connections",
    "max.connections.per.ip",
    "max.connections.per.ip.overrides",
    "max.connection.creation.rate",
    "replica.alter.log.dirs.io.max.bytes.per.second",
];

/// Of each broker for itself: there is no default of all.
const PER_BROKER: &[&str] = &[cordoned::OPTION];

/// Options set while brokers run, by Kafka's name, as one broker goes by them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DynamicOptions {
    /// The default of all brokers.
    pub cluster: BTreeMap<String, String>,
    /// This broker's own.
    pub broker: BTreeMap<String, String>,
}

impl DynamicOptions {
    pub fn is_empty(&self) -> bool {
        self.cluster.is_empty() && self.broker.is_empty()
    }
}

impl OptionSpec {
    /// It can be set while the broker runs.
    pub fn is_dynamic(&self) -> bool {
        self.topic.is_some() || DYNAMIC.contains(&self.name)
    }
}

/// Sets one option; the error says what is wrong with it.
fn set(config: &mut ServerConfig, name: &str, text: &str) -> Result<(), String> {
    let Some(spec) = OPTIONS.iter().find(|spec| spec.name == name) else {
        return Err(match OPTIONS.iter().find(|spec| spec.aliases.iter().any(|alias| alias.name == name)) {
            Some(spec) if spec.is_dynamic() => format!("Cannot update {name} dynamically: set {} instead.", spec.name),
            Some(_) => fixed(name),
            None if foreign::broker(name).is_some() => {
                format!("{name} has no effect here (`corelane options explain {name}` says why).")
            }
            None => format!("Unknown broker config name: {name}"),
        });
    };
    if !spec.is_dynamic() {
        return Err(fixed(name));
    }
    let wrong = |reason: String| format!("Invalid value {text} for configuration {name}: {reason}");
    let value = value::parse(spec.kind, spec.bounds, text).map_err(wrong)?;
    let done = match &spec.access {
        Access::Server { set, .. } => set(config, &value),
        Access::Topic { set, .. } => set(&mut config.topic_defaults, &value),
    };
    done.map_err(wrong)
}

fn of_one(name: &str) -> String {
    format!("Cannot update these configs at default cluster level, broker id must be specified: [{name}]")
}

fn fixed(name: &str) -> String {
    format!("Cannot update these configs dynamically: [{name}]. Set them in the file and restart.")
}

impl ServerConfig {
    /// These settings, as the broker was started with them, with dynamic options on top. Also what
    /// is wrong with those that have no effect: another release may have set them.
    pub fn with_dynamic(&self, dynamic: DynamicOptions) -> (ServerConfig, Vec<String>) {
        let mut config = self.clone();
        let (single, shared) =
            dynamic.cluster.iter().partition::<Vec<_>, _>(|(name, _)| PER_BROKER.contains(&name.as_str()));
        let all = shared.into_iter().chain(&dynamic.broker);
        let mut wrong: Vec<String> = all.filter_map(|(name, text)| set(&mut config, name, text).err()).collect();
        wrong.extend(single.into_iter().map(|(name, _)| of_one(name)));
        // Of names without a directory the others have their effect.
        if let (Some(text), Err(reason)) = (dynamic.broker.get(cordoned::OPTION), config.check_cordoned()) {
            wrong.push(format!("Invalid value {text} for configuration {}: it {reason}", cordoned::OPTION));
        }
        config.dynamic = dynamic;
        (config, wrong)
    }

    /// As [`with_dynamic`](Self::with_dynamic); what is wrong goes to the log.
    pub fn following(&self, dynamic: DynamicOptions) -> Arc<ServerConfig> {
        let (config, wrong) = self.with_dynamic(dynamic);
        wrong.iter().for_each(|why| tracing::warn!("a dynamic option without effect: {why}"));
        Arc::new(config)
    }

    /// As [`with_dynamic`](Self::with_dynamic), where all of them must be good, together too.
    pub fn with_checked(&self, dynamic: DynamicOptions) -> Result<ServerConfig, String> {
        let (config, wrong) = self.with_dynamic(dynamic);
        if let Some(why) = wrong.into_iter().next() {
            return Err(why);
        }
        config.topic_defaults.check_together()?;
        if config.admits_nobody() {
            return Err("max.connections.per.ip (0) lets nobody connect; it can be 0 only beside \
                        max.connections.per.ip.overrides"
                .to_owned());
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    }

    #[test]
    fn the_brokers_own_wins_over_the_default_and_both_over_the_file() {
        let file = [("log.retention.hours".to_owned(), "1".to_owned())];
        let started = ServerConfig::load(None, &file).unwrap().0;
        assert_eq!(started.topic_defaults.retention_ms, Some(3_600_000));
        let cluster = options(&[("log.retention.ms", "5000"), ("max.connections.per.ip", "7")]);
        let broker = options(&[("log.retention.ms", "6000")]);
        let settled = |cluster: &BTreeMap<_, _>, broker: &BTreeMap<_, _>| {
            let dynamic = DynamicOptions { cluster: cluster.clone(), broker: broker.clone() };
            let config = started.with_checked(dynamic).unwrap();
            (config.topic_defaults.retention_ms, config.max_connections_per_ip)
        };
        let none = BTreeMap::new();
        assert_eq!(settled(&cluster, &broker), (Some(6000), 7));
        assert_eq!(settled(&cluster, &none), (Some(5000), 7));
        assert_eq!(settled(&none, &broker), (Some(6000), i32::MAX as u32));
        assert_eq!(settled(&none, &none), (Some(3_600_000), i32::MAX as u32));
    }

    #[test]
    fn what_cannot_be_set_is_told_and_has_no_effect() {
        let started = ServerConfig::default();
        for (name, value, part) in [
            ("num.partitions", "3", "Cannot update these configs dynamically: [num.partitions]"),
            ("log.retention.hours", "3", "set log.retention.ms instead"),
            ("num.io.threads", "3", "no effect here"),
            ("log.retenton.ms", "3", "Unknown broker config name: log.retenton.ms"),
            ("log.segment.bytes", "1000", "Invalid value 1000 for configuration log.segment.bytes"),
            ("max.connections.per.ip", "0", "lets nobody connect"),
            ("log.cleaner.min.compaction.lag.ms", "9223372036854775807", ""),
        ] {
            let dynamic = DynamicOptions { cluster: options(&[(name, value)]), ..DynamicOptions::default() };
            match started.with_checked(dynamic.clone()) {
                Ok(_) => assert_eq!(part, "", "{name}"),
                Err(why) => assert!(!part.is_empty() && why.contains(part), "{name}: {why}"),
            }
            let beside = DynamicOptions { broker: options(&[("log.retention.ms", "6000")]), ..dynamic };
            assert_eq!(started.with_dynamic(beside).0.topic_defaults.retention_ms, Some(6000), "{name}");
        }
        let one = DynamicOptions { cluster: options(&[("cordoned.log.dirs", "./data")]), ..DynamicOptions::default() };
        assert!(started.with_checked(one.clone()).unwrap_err().contains("broker id must be specified"));
        assert!(started.with_dynamic(one).0.cordoned_log_dirs.is_empty());
        let cordoned = |dirs: &str| DynamicOptions {
            broker: options(&[("cordoned.log.dirs", dirs)]),
            ..DynamicOptions::default()
        };
        assert!(started.with_checked(cordoned("./data")).unwrap().is_cordoned("./data".as_ref()));
        assert!(started.with_checked(cordoned("./data,/gone")).unwrap_err().contains("/gone, which is not one of"));
        assert!(started.with_dynamic(cordoned("./data,/gone")).0.is_cordoned("./data".as_ref()));
        let lags = [("log.cleaner.min.compaction.lag.ms", "9"), ("log.cleaner.max.compaction.lag.ms", "8")];
        let dynamic = DynamicOptions { cluster: options(&lags), ..DynamicOptions::default() };
        assert!(started.with_checked(dynamic).unwrap_err().contains("min.compaction.lag.ms (9)"));
    }
}
