//! What DescribeConfigs answers.

use std::collections::BTreeMap;

use super::foreign;
use super::options::{Alias, OPTIONS, OptionSpec};
use super::{Kind, ServerConfig};

/// Where a value comes from, by Kafka's numbers (`ConfigSource`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum ConfigSource {
    DynamicTopic = 1,
    DynamicBroker = 2,
    /// The default of all brokers, set while they run.
    DynamicDefaultBroker = 3,
    StaticBroker = 4,
    Default = 5,
    /// A group's own.
    DynamicGroup = 8,
}

/// One of the places an option's value could come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigSynonym {
    pub name: String,
    pub value: Option<String>,
    pub source: ConfigSource,
}

/// One option as DescribeConfigs reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    pub name: &'static str,
    pub value: Option<String>,
    /// What holds when nothing is given.
    pub default: Option<String>,
    pub source: ConfigSource,
    /// Cannot be changed while the broker runs.
    pub read_only: bool,
    pub sensitive: bool,
    pub kind: Kind,
    pub doc: &'static str,
    /// From the one in force to the default.
    pub synonyms: Vec<ConfigSynonym>,
}

/// Every topic option of a topic with these overrides, in name order.
pub fn describe_topic(server: &ServerConfig, overrides: &BTreeMap<String, String>) -> Vec<ConfigEntry> {
    let mut entries = Vec::new();
    for spec in OPTIONS {
        let Some((name, _)) = spec.topic else { continue };
        let broker_source = source(spec, server);
        let own = overrides.get(name);
        let mut synonyms = synonyms(spec, server);
        if let Some(value) = own {
            let value = Some(value.clone());
            synonyms.insert(0, ConfigSynonym { name: name.into(), value, source: ConfigSource::DynamicTopic });
        }
        entries.push(ConfigEntry {
            name,
            // Kafka tells a list that nothing stands in as the empty one.
            value: own.cloned().or_else(|| spec.value(server)).or((spec.kind == Kind::List).then(String::new)),
            default: default_of(spec),
            source: if own.is_some() { ConfigSource::DynamicTopic } else { broker_source },
            read_only: false,
            sensitive: false,
            kind: spec.kind,
            doc: spec.doc,
            synonyms,
        });
    }
    for option in foreign::TOPIC.iter() {
        let own = overrides.get(option.name);
        if option.removed && own.is_none() {
            continue;
        }
        let source = if own.is_some() { ConfigSource::DynamicTopic } else { ConfigSource::Default };
        let default = Some(option.default.to_owned());
        let value = own.cloned().or_else(|| default.clone());
        entries.push(ConfigEntry {
            name: option.name,
            synonyms: vec![ConfigSynonym { name: option.name.into(), value: value.clone(), source }],
            value,
            default,
            source,
            read_only: false,
            sensitive: false,
            kind: option.kind,
            doc: option.remark(),
        });
    }
    entries.sort_by_key(|entry| entry.name);
    entries
}

/// Every broker option, and its other names as Kafka reports them, in name order.
pub fn describe_broker(server: &ServerConfig) -> Vec<ConfigEntry> {
    let mut entries = Vec::new();
    for spec in OPTIONS {
        let entry = ConfigEntry {
            name: spec.name,
            value: spec.value(server),
            default: default_of(spec),
            source: source(spec, server),
            read_only: !spec.is_dynamic(),
            sensitive: false,
            kind: spec.kind,
            doc: spec.doc,
            synonyms: synonyms(spec, server),
        };
        for alias in spec.aliases.iter().filter(|alias| OPTIONS.iter().all(|other| other.name != alias.name)) {
            entries.push(alias_entry(&entry, alias, server));
        }
        entries.push(entry);
    }
    entries.sort_by_key(|entry| entry.name);
    entries
}

/// The options that were set for all brokers at once, in name order.
pub fn describe_default(server: &ServerConfig) -> Vec<ConfigEntry> {
    let mut entries = describe_broker(server);
    let source = ConfigSource::DynamicDefaultBroker;
    entries.retain_mut(|entry| {
        let Some(value) = server.dynamic.cluster.get(entry.name) else { return false };
        (entry.value, entry.source) = (Some(value.clone()), source);
        entry.synonyms.retain(|synonym| synonym.source == source);
        true
    });
    entries
}

fn alias_entry(entry: &ConfigEntry, alias: &Alias, server: &ServerConfig) -> ConfigEntry {
    let given = server.given.get(alias.name).cloned();
    let source = if given.is_some() { ConfigSource::StaticBroker } else { ConfigSource::Default };
    let read_only = true;
    let default = alias.default.map(str::to_owned);
    let same_unit = if alias.factor == 1 { entry.value.clone() } else { default.clone() };
    ConfigEntry { name: alias.name, value: given.or(same_unit), default, source, read_only, ..entry.clone() }
}

fn default_of(spec: &OptionSpec) -> Option<String> {
    (!spec.default.is_empty()).then(|| spec.default.to_owned())
}

fn given_names<'a>(
    spec: &'static OptionSpec,
    server: &'a ServerConfig,
) -> impl Iterator<Item = (&'static str, &'a String)> {
    let names = std::iter::once(spec.name).chain(spec.aliases.iter().map(|alias| alias.name));
    names.filter_map(|name| server.given.get(name).map(|value| (name, value)))
}

fn source(spec: &'static OptionSpec, server: &ServerConfig) -> ConfigSource {
    synonyms(spec, server).first().map_or(ConfigSource::Default, |in_force| in_force.source)
}

fn synonyms(spec: &'static OptionSpec, server: &ServerConfig) -> Vec<ConfigSynonym> {
    let given = given_names(spec, server).map(|(name, value)| ConfigSynonym {
        name: name.to_owned(),
        value: Some(value.clone()),
        source: ConfigSource::StaticBroker,
    });
    let dynamic = |options: &BTreeMap<String, String>, source| {
        let value = Some(options.get(spec.name)?.clone());
        Some(ConfigSynonym { name: spec.name.to_owned(), value, source })
    };
    let broker = dynamic(&server.dynamic.broker, ConfigSource::DynamicBroker);
    let cluster = dynamic(&server.dynamic.cluster, ConfigSource::DynamicDefaultBroker);
    let default = default_of(spec).map(|value| ConfigSynonym {
        name: spec.name.to_owned(),
        value: Some(value),
        source: ConfigSource::Default,
    });
    broker.into_iter().chain(cluster).chain(given).chain(default).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find<'a>(entries: &'a [ConfigEntry], name: &str) -> &'a ConfigEntry {
        entries.iter().find(|entry| entry.name == name).unwrap()
    }

    fn server(pairs: &[(&str, &str)]) -> ServerConfig {
        let overrides: Vec<_> = pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        ServerConfig::load(None, &overrides).unwrap().0
    }

    #[test]
    fn a_topic_entry_tells_override_from_broker_setting_from_default() {
        let server = server(&[("log.retention.hours", "1"), ("log.segment.bytes", "2097152")]);
        let overrides = BTreeMap::from([("segment.bytes".to_owned(), "4194304".to_owned())]);
        let entries = describe_topic(&server, &overrides);
        let segment = find(&entries, "segment.bytes");
        assert_eq!((segment.value.as_deref(), segment.source), (Some("4194304"), ConfigSource::DynamicTopic));
        let sources: Vec<_> = segment.synonyms.iter().map(|s| (s.name.as_str(), s.value.as_deref().unwrap())).collect();
        let expected =
            [("segment.bytes", "4194304"), ("log.segment.bytes", "2097152"), ("log.segment.bytes", "1073741824")];
        assert_eq!(sources, expected);
        let retention = find(&entries, "retention.ms");
        assert_eq!((retention.value.as_deref(), retention.source), (Some("3600000"), ConfigSource::StaticBroker));
        let flush = find(&entries, "flush.messages");
        assert_eq!((flush.value.as_deref(), flush.source), (Some("9223372036854775807"), ConfigSource::Default));
        assert_eq!(find(&entries, "compression.type").value.as_deref(), Some("producer"));
        assert!(entries.iter().all(|entry| entry.name != "message.format.version"));
        assert!(entries.windows(2).all(|pair| pair[0].name < pair[1].name), "sorted, each once");
    }

    #[test]
    fn the_broker_lists_every_name_once() {
        let server = server(&[("broker.id", "7"), ("log.retention.minutes", "10")]);
        let entries = describe_broker(&server);
        assert!(entries.windows(2).all(|pair| pair[0].name < pair[1].name), "sorted, each once");
        assert_eq!(find(&entries, "node.id").value.as_deref(), Some("7"));
        assert_eq!(find(&entries, "broker.id").source, ConfigSource::StaticBroker);
        assert_eq!(find(&entries, "log.retention.hours").value.as_deref(), Some("168"));
        assert_eq!(find(&entries, "log.retention.minutes").value.as_deref(), Some("10"));
        assert_eq!(find(&entries, "log.retention.ms").value.as_deref(), Some("600000"));
        assert_eq!(find(&entries, "broker.rack").value, None);
        assert_eq!(find(&entries, "advertised.listeners").value.as_deref(), Some("PLAINTEXT://127.0.0.1:9092"));
        assert_eq!(find(&entries, "log.segment.bytes").kind as i8, 3);
    }
}
