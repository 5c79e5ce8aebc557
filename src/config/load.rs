//! From a file and overrides to the settings, or to one clear error.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use super::foreign::{self, Verdict};
use super::listener::Unfit;
use super::options::{Access, Alias, OPTIONS, OptionSpec};
use super::value::{self, Value};
use super::{ServerConfig, TopicConfig, cordoned, listener, properties};

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    File {
        path: PathBuf,
        /// 1-based
        line: usize,
    },
    /// On the command line.
    Override,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Override => f.write_str("--override"),
        }
    }
}

/// Why the broker cannot start with these options.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path}: {source}", path = path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{origin}: {message}")]
    Syntax { origin: Origin, message: String },
    #[error("{origin}: {option} = {value} {reason}")]
    Invalid { origin: Origin, option: String, value: String, reason: String },
    #[error("{origin}: {option} = {value} is refused: {reason}")]
    Refused { origin: Origin, option: String, value: String, reason: String },
}

/// An option that does not do what its writer may think.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    pub origin: Origin,
    pub option: String,
    pub message: String,
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: {}", self.origin, self.option, self.message)
    }
}

struct Given {
    value: String,
    origin: Origin,
}

impl Given {
    fn invalid(&self, option: &str, reason: String) -> ConfigError {
        let value = if self.value.is_empty() { "(nothing)".to_owned() } else { self.value.clone() };
        ConfigError::Invalid { origin: self.origin.clone(), option: option.to_owned(), value, reason }
    }

    fn refused(&self, option: &str, reason: &str) -> ConfigError {
        // The error is printed and logged; secrets are not.
        let secret = ["password", "secret", "jaas", "credential", ".key"].iter().any(|word| option.contains(word));
        let value = if secret { "(hidden)".to_owned() } else { self.value.clone() };
        let origin = self.origin.clone();
        ConfigError::Refused { origin, option: option.to_owned(), value, reason: reason.to_owned() }
    }
}

type AllGiven = BTreeMap<String, Given>;

impl ServerConfig {
    /// The settings from `file` (Java's `.properties` syntax) with `overrides` on
    /// top, and what to warn about.
    pub fn load(
        file: Option<&Path>,
        overrides: &[(String, String)],
    ) -> Result<(ServerConfig, Vec<Warning>), ConfigError> {
        let text = match file {
            Some(path) => {
                Some(std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?)
            }
            None => None,
        };
        load_text(file.zip(text.as_deref()), overrides)
    }
}

fn load_text(
    file: Option<(&Path, &str)>,
    overrides: &[(String, String)],
) -> Result<(ServerConfig, Vec<Warning>), ConfigError> {
    let mut warnings = Vec::new();
    let mut given = AllGiven::new();
    if let Some((path, text)) = file {
        let at = |line| Origin::File { path: path.to_owned(), line };
        let parsed = properties::parse(text)
            .map_err(|error| ConfigError::Syntax { origin: at(error.line), message: error.message })?;
        for property in parsed {
            let origin = at(property.line);
            if let Some(earlier) =
                given.insert(property.key.clone(), Given { value: property.value, origin: origin.clone() })
            {
                let message = format!("given again; the value at {} is not used", earlier.origin);
                warnings.push(Warning { origin, option: property.key, message });
            }
        }
    }
    for (name, value) in overrides {
        given.insert(name.trim().to_owned(), Given { value: value.clone(), origin: Origin::Override });
    }

    judge_foreign(&given, &mut warnings)?;
    let mut config = ServerConfig::default();
    for spec in OPTIONS {
        apply(spec, &given, &mut config, &mut warnings)?;
    }
    cross_check(&config, &given, &mut warnings)?;
    config.given = given.into_iter().map(|(name, given)| (name, given.value)).collect();
    Ok((config, warnings))
}

/// Warns about, or refuses, every given option that is not in the table.
fn judge_foreign(given: &AllGiven, warnings: &mut Vec<Warning>) -> Result<(), ConfigError> {
    for (name, one) in given {
        if is_known(name) {
            continue;
        }
        refuse_other_roles(name, one)?;
        let message = match foreign::broker(name) {
            Some(Verdict::Refused(reason)) => return Err(one.refused(name, reason)),
            Some(Verdict::Only(value, _)) if one.value.trim().eq_ignore_ascii_case(value) => continue,
            Some(Verdict::Only(value, reason)) => {
                let must = if value.is_empty() { "leave it out".to_owned() } else { format!("it must be {value}") };
                return Err(one.refused(name, &format!("{reason}; {must}")));
            }
            Some(Verdict::Ignored(reason)) => format!("ignored; {reason}"),
            None => match nearest(name) {
                Some(near) => format!("unknown option, ignored; did you mean {near}?"),
                None => "unknown option, ignored".to_owned(),
            },
        };
        warnings.push(Warning { origin: one.origin.clone(), option: name.clone(), message });
    }
    Ok(())
}

/// A node that is to be a controller only, or one of several voters, would be
/// something else than asked for.
fn refuse_other_roles(name: &str, given: &Given) -> Result<(), ConfigError> {
    let items = value::split_list(&given.value);
    match name {
        "process.roles" if !items.is_empty() && !items.iter().any(|role| role == "broker") => {
            Err(given.refused(name, "there are no separate controllers; every Corelane node is a broker"))
        }
        "controller.quorum.voters" | "controller.quorum.bootstrap.servers" if items.len() > 1 => Err(given
            .refused(name, "Corelane has no controller quorum; several brokers are a cluster by zookeeper.connect")),
        _ => Ok(()),
    }
}

fn names_of(spec: &OptionSpec) -> impl Iterator<Item = &'static str> + use<> {
    std::iter::once(spec.name).chain(spec.aliases.iter().map(|alias| alias.name))
}

fn is_known(name: &str) -> bool {
    OPTIONS.iter().any(|spec| names_of(spec).any(|known| known == name))
}

/// The option the given ones decide: by its name, else by its aliases in their order.
fn apply(
    spec: &'static OptionSpec,
    given: &AllGiven,
    config: &mut ServerConfig,
    warnings: &mut Vec<Warning>,
) -> Result<(), ConfigError> {
    let own = Alias { name: spec.name, factor: 1, default: None, must_agree: false };
    let mut winner: Option<(&str, Value)> = None;
    for alias in std::iter::once(&own).chain(spec.aliases) {
        let Some(one) = given.get(alias.name) else { continue };
        let value = read(spec, alias, &select_listeners(spec, one, given)?)
            .map_err(|reason| one.invalid(alias.name, reason))?;
        let Some((name, winning)) = &winner else {
            winner = Some((alias.name, value));
            continue;
        };
        if alias.must_agree && *winning != value {
            return Err(one.invalid(alias.name, format!("contradicts {name}; they are two names for one option")));
        }
        // An alias that is an option in its own right has its own effect.
        let separate = OPTIONS.iter().any(|other| other.name == alias.name);
        if !alias.must_agree && !separate {
            let message = format!("not used, because {name} is given too");
            warnings.push(Warning { origin: one.origin.clone(), option: alias.name.to_owned(), message });
        }
    }
    let Some((name, value)) = winner else { return Ok(()) };
    let set = match &spec.access {
        Access::Server { set, .. } => set(config, &value),
        Access::Topic { set, .. } => set(&mut config.topic_defaults, &value),
    };
    match (set, given.get(name)) {
        (Err(reason), Some(one)) => Err(one.invalid(name, reason)),
        _ => Ok(()),
    }
}

/// The value under one of the option's names, in the option's own unit.
fn read(spec: &OptionSpec, alias: &Alias, text: &str) -> Result<Value, String> {
    if alias.factor == 1 {
        return value::parse(spec.kind, spec.bounds, text);
    }
    let number = value::parse(super::Kind::Int, super::Bounds::Any, text)?.integer();
    // Any negative number of hours or minutes means no limit, as in Kafka.
    let scaled = if number < 0 { -1 } else { number.saturating_mul(alias.factor) };
    value::parse(spec.kind, spec.bounds, &scaled.to_string())
        .map_err(|reason| format!("({scaled} as {}) {reason}", spec.name))
}

/// `listeners` and `advertised.listeners` without Kafka's controller listeners, and only if
/// what remains is PLAINTEXT.
fn select_listeners(spec: &OptionSpec, one: &Given, given: &AllGiven) -> Result<String, ConfigError> {
    let text_of = |name: &str| given.get(name).map(|given| given.value.as_str());
    let roles = || {
        let controllers = text_of("controller.listener.names").unwrap_or_default();
        listener::Roles::new(text_of("listener.security.protocol.map"), controllers)
    };
    let list = value::split_list(&one.value);
    let selected = match spec.name {
        "listeners" => roles().select(&list),
        "advertised.listeners" => roles().select_advertised(&list),
        _ => return Ok(one.value.clone()),
    };
    match selected {
        Ok(kept) => Ok(kept.join(",")),
        Err(Unfit::Invalid(reason)) => Err(one.invalid(spec.name, reason)),
        Err(Unfit::Refused(reason)) => Err(one.refused(spec.name, &reason)),
    }
}

/// What no single option shows.
fn cross_check(config: &ServerConfig, given: &AllGiven, warnings: &mut Vec<Warning>) -> Result<(), ConfigError> {
    let TopicConfig { max_message_bytes, min_insync_replicas, .. } = config.topic_defaults;
    if let Some(one) = given.get("message.max.bytes")
        && max_message_bytes > config.socket_request_max_bytes
    {
        let limit = config.socket_request_max_bytes;
        let message = format!("no larger batch can arrive than socket.request.max.bytes ({limit}) lets in");
        warnings.push(Warning { origin: one.origin.clone(), option: "message.max.bytes".into(), message });
    }
    if let (Some(one), Err(reason)) = (given.get(cordoned::OPTION), config.check_cordoned()) {
        return Err(one.invalid(cordoned::OPTION, reason));
    }
    if let Some(one) = given.get("default.replication.factor")
        && config.default_replication_factor > 1
        && !config.in_cluster()
    {
        return Err(one.invalid(
            "default.replication.factor",
            "is more than the brokers there are: without zookeeper.connect there is one, and topics could not be created".into(),
        ));
    }
    if let Some(one) = given.get("min.insync.replicas")
        && i64::from(min_insync_replicas) > i64::from(config.default_replication_factor)
    {
        let message = format!(
            "with the default replication factor ({0}) it counts as {0}: no partition needs more in-sync replicas than it has",
            config.default_replication_factor
        );
        warnings.push(Warning { origin: one.origin.clone(), option: "min.insync.replicas".into(), message });
    }
    if let Some(one) = given.get("zookeeper.connect").filter(|_| config.in_cluster()) {
        check_inter_broker(config, given, one)?;
    }
    if let Some(one) = given.get("inter.broker.listener.name").filter(|one| !one.value.is_empty())
        && given.contains_key("security.inter.broker.protocol")
    {
        let reason = "contradicts security.inter.broker.protocol; only one of the two may be given";
        return Err(one.invalid("inter.broker.listener.name", reason.into()));
    }
    if let Some(one) = given.get("max.connections.per.ip")
        && config.admits_nobody()
    {
        return Err(one.invalid(
            "max.connections.per.ip",
            "lets nobody connect; it can be 0 only beside max.connections.per.ip.overrides".into(),
        ));
    }
    let lags = ["log.cleaner.min.compaction.lag.ms", "log.cleaner.max.compaction.lag.ms"];
    if let (Err(reason), Some((name, one))) =
        (config.topic_defaults.check_together(), lags.into_iter().find_map(|name| Some((name, given.get(name)?))))
    {
        return Err(one.invalid(name, format!("contradicts another option: {reason}")));
    }
    cross_check_groups(config, given, warnings)
}

/// A broker of a cluster that the others cannot reach would hold no replicas.
fn check_inter_broker(config: &ServerConfig, given: &AllGiven, connect: &Given) -> Result<(), ConfigError> {
    let name = config.inter_broker_listener();
    if config.listeners.iter().any(|one| one.name == name && one.advertised.is_some()) {
        return Ok(());
    }
    let reason = format!(
        "needs a listener for other brokers: {name} is not among advertised.listeners; name one of them in \
         inter.broker.listener.name"
    );
    let (option, one) = match given.get("inter.broker.listener.name") {
        Some(one) => ("inter.broker.listener.name", one),
        None => ("zookeeper.connect", connect),
    };
    Err(one.invalid(option, reason))
}

/// Timeouts of groups that contradict each other: every member would be refused, or put
/// out between two heartbeats.
fn cross_check_groups(config: &ServerConfig, given: &AllGiven, warnings: &mut Vec<Warning>) -> Result<(), ConfigError> {
    let group = &config.group;
    let min_session = ("group.consumer.min.session.timeout.ms", group.consumer_min_session_timeout_ms);
    let session = ("group.consumer.session.timeout.ms", group.consumer_session_timeout_ms);
    let max_session = ("group.consumer.max.session.timeout.ms", group.consumer_max_session_timeout_ms);
    let min_heartbeat = ("group.consumer.min.heartbeat.interval.ms", group.consumer_min_heartbeat_interval_ms);
    let heartbeat = ("group.consumer.heartbeat.interval.ms", group.consumer_heartbeat_interval_ms);
    let max_heartbeat = ("group.consumer.max.heartbeat.interval.ms", group.consumer_max_heartbeat_interval_ms);
    // The second is never less than the first, or is greater.
    let (least, less) = ("less than or equal to", "less than");
    let pairs = [
        (
            ("group.min.session.timeout.ms", group.min_session_timeout_ms),
            least,
            ("group.max.session.timeout.ms", group.max_session_timeout_ms),
        ),
        (min_heartbeat, least, max_heartbeat),
        (min_heartbeat, least, heartbeat),
        (heartbeat, least, max_heartbeat),
        (min_session, least, max_session),
        (min_session, least, session),
        (session, least, max_session),
        (heartbeat, less, session),
    ];
    for ((smaller, value), relation, (larger, bound)) in pairs {
        let is_kept = if relation == less { value < bound } else { value <= bound };
        let either = [smaller, larger].into_iter().find_map(|name| Some((name, given.get(name)?)));
        if let Some((name, one)) = either.filter(|_| !is_kept) {
            let reason =
                format!("contradicts another option: {smaller} ({value}) must be {relation} {larger} ({bound})");
            return Err(one.invalid(name, reason));
        }
    }
    if let Some(one) = given.get("group.coordinator.rebalance.protocols") {
        for unserved in
            value::split_list(&one.value).into_iter().filter(|name| matches!(name.as_str(), "share" | "streams"))
        {
            let message = format!("{unserved} groups are not served by this version; the others are");
            let option = "group.coordinator.rebalance.protocols".into();
            warnings.push(Warning { origin: one.origin.clone(), option, message });
        }
    }
    Ok(())
}

/// The known name that is only a slip away.
fn nearest(name: &str) -> Option<&'static str> {
    let exact = foreign::BROKER.iter().map(|(pattern, _)| *pattern).filter(|pattern| !pattern.contains('*'));
    let known = OPTIONS.iter().flat_map(names_of).chain(exact);
    let close = known.map(|known| (distance(name, known), known)).min_by_key(|(distance, _)| *distance)?;
    (close.0 <= 3.min(name.len() / 3)).then_some(close.1)
}

/// Levenshtein's distance in bytes.
fn distance(a: &str, b: &str) -> usize {
    if a.len().abs_diff(b.len()) > 3 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests;
