//! One option at length, by any of its names.

use super::foreign::{self, Verdict};
use super::{OPTIONS, OptionSpec, group_options};

/// What there is to say of an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// As it was asked for.
    pub name: String,
    /// The name that the broker has for it, if it has one.
    pub broker: Option<&'static str>,
    /// The name that topics have for it, if one topic can have a value of its own.
    pub topic: Option<&'static str>,
    /// The name that groups have for it, if one group can have a value of its own.
    pub group: Option<&'static str>,
    /// Further names for the broker's.
    pub aliases: Vec<&'static str>,
    pub kind: String,
    pub unit: Option<&'static str>,
    /// In the unit of the name that was asked for; `None`: there is none, or another name tells it.
    pub default: Option<&'static str>,
    /// Empty: every value of its type.
    pub accepted: String,
    /// It does what Kafka's does; otherwise `doc` says why not.
    pub honoured: bool,
    pub doc: &'static str,
}

/// `None`: neither Corelane's nor one of Kafka's that Corelane knows of.
pub fn explain(name: &str) -> Option<Explanation> {
    own(name).or_else(|| group_options::explain(name)).or_else(|| foreign_topic(name)).or_else(|| foreign_broker(name))
}

/// Every name that [`explain`] knows, but for patterns.
pub fn option_names() -> impl Iterator<Item = &'static str> {
    let own = OPTIONS.iter().flat_map(|spec| {
        let aliases = spec.aliases.iter().map(|alias| alias.name);
        std::iter::once(spec.name).chain(spec.topic.map(|(name, _)| name)).chain(aliases)
    });
    let topics = foreign::TOPIC.iter().map(|option| option.name);
    let broker = foreign::BROKER.iter().map(|(name, _)| *name).filter(|name| !name.contains('*'));
    own.chain(group_options::names()).chain(topics).chain(broker)
}

fn own(name: &str) -> Option<Explanation> {
    let by = |holds: &dyn Fn(&OptionSpec) -> bool| OPTIONS.iter().find(|spec| holds(spec));
    let spec = by(&|spec| spec.name == name)
        .or_else(|| by(&|spec| spec.topic.is_some_and(|(topic, _)| topic == name)))
        .or_else(|| by(&|spec| spec.aliases.iter().any(|alias| alias.name == name)))?;
    // A name in another unit has the default of its own, and bounds in the other unit.
    let alias = spec.aliases.iter().find(|alias| alias.name == name && spec.name != name);
    let bounds = match spec.topic {
        Some((topic, bounds)) if topic == name => bounds,
        _ => spec.bounds,
    };
    Some(Explanation {
        name: name.to_owned(),
        broker: Some(spec.name),
        topic: spec.topic.map(|(topic, _)| topic),
        group: group_options::of_broker(spec.name),
        aliases: spec.aliases.iter().map(|alias| alias.name).collect(),
        kind: spec.kind.to_string(),
        unit: unit(name),
        default: match alias {
            Some(alias) if alias.factor != 1 => alias.default,
            _ => Some(spec.default).filter(|default| !default.is_empty()),
        },
        accepted: match alias {
            Some(alias) if alias.factor != 1 => String::new(),
            _ => bounds.told(spec.kind),
        },
        honoured: true,
        doc: spec.doc,
    })
}

fn foreign_topic(name: &str) -> Option<Explanation> {
    let option = foreign::topic(name)?;
    Some(Explanation {
        name: name.to_owned(),
        broker: None,
        topic: Some(option.name),
        group: None,
        aliases: Vec::new(),
        kind: option.kind.to_string(),
        unit: unit(name),
        default: Some(option.default).filter(|default| !default.is_empty()),
        accepted: option.bounds.told(option.kind),
        honoured: false,
        doc: option.remark(),
    })
}

fn foreign_broker(name: &str) -> Option<Explanation> {
    let (accepted, doc) = match foreign::broker(name)? {
        Verdict::Ignored(why) => (String::new(), why),
        Verdict::Only("", why) => ("empty".to_owned(), why),
        Verdict::Only(value, why) => (value.to_owned(), why),
        Verdict::Refused(why) => ("none: a broker with it does not start".to_owned(), why),
    };
    Some(Explanation {
        name: name.to_owned(),
        broker: None,
        topic: None,
        group: None,
        aliases: Vec::new(),
        kind: String::new(),
        unit: None,
        default: None,
        accepted,
        honoured: false,
        doc,
    })
}

/// What a number counts, as Kafka's names tell.
pub(super) fn unit(name: &str) -> Option<&'static str> {
    const UNITS: &[(&str, &str)] = &[
        (".ms", "milliseconds"),
        (".us", "microseconds"),
        (".seconds", "seconds"),
        (".minutes", "minutes"),
        (".hours", "hours"),
        (".bytes", "bytes"),
        (".buffer.size", "bytes"),
        (".percentage", "percent"),
        (".bytes.per.second", "bytes per second"),
        (".throttled.rate", "bytes per second"),
        (".creation.rate", "connections per second"),
    ];
    UNITS.iter().find(|(suffix, _)| name.ends_with(suffix)).map(|(_, unit)| *unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_explained_by_each_of_its_names() {
        let broker = explain("log.retention.ms").unwrap();
        assert_eq!((broker.broker, broker.topic), (Some("log.retention.ms"), Some("retention.ms")));
        let topic = explain("retention.ms").unwrap();
        assert_eq!((topic.broker, topic.topic, topic.unit), (broker.broker, broker.topic, Some("milliseconds")));
        let hours = explain("log.retention.hours").unwrap();
        assert_eq!((hours.default, hours.unit), (Some("168"), Some("hours")));
        assert_eq!(hours.broker, Some("log.retention.ms"));
        assert!(hours.honoured && hours.aliases.contains(&"log.retention.hours"));
        assert_eq!(explain("segment.bytes").unwrap().unit, Some("bytes"));
        assert_eq!(explain("log.cleaner.io.max.bytes.per.second").unwrap().unit, Some("bytes per second"));
        let policy = explain("cleanup.policy").unwrap();
        assert_eq!((policy.unit, &*policy.accepted), (None, "any of compact, delete"));
        assert_eq!(explain("log.cleanup.policy").unwrap().accepted, policy.accepted);
        assert_eq!(explain("message.timestamp.type").unwrap().accepted, "one of CreateTime, LogAppendTime");
    }

    #[test]
    fn options_of_groups_are_explained() {
        let group = explain("consumer.session.timeout.ms").unwrap();
        let broker = explain("group.consumer.session.timeout.ms").unwrap();
        for told in [&group, &broker] {
            assert_eq!((told.group, told.topic), (Some("consumer.session.timeout.ms"), None));
            assert_eq!(told.broker, Some("group.consumer.session.timeout.ms"));
            assert_eq!((told.unit, told.default, told.honoured), (Some("milliseconds"), Some("45000"), true));
        }
        let share = explain("share.delivery.count.limit").unwrap();
        assert!(share.broker.is_none() && share.group.is_some() && !share.honoured);
        assert_eq!(explain("retention.ms").unwrap().group, None);
    }

    #[test]
    fn what_is_not_honoured_says_why() {
        let jitter = explain("segment.jitter.ms").unwrap();
        assert!(!jitter.honoured && jitter.topic == Some("segment.jitter.ms") && !jitter.doc.is_empty());
        let tls = explain("ssl.keystore.location").unwrap();
        assert!(!tls.honoured && tls.accepted.contains("does not start"));
        assert_eq!(explain("no.such.option"), None);
    }

    #[test]
    fn every_name_is_known() {
        assert!(option_names().count() > 100);
        for name in option_names() {
            assert!(explain(name).is_some(), "{name}");
        }
    }
}
