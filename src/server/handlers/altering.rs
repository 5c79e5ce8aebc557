//! AlterConfigs and IncrementalAlterConfigs: the steps that both have.

use std::hash::Hash;

use kafka_protocol::protocol::StrBytes;

use crate::cluster::controller::{AlterBroker, AlterGroup, AlterTopic, ConfigOp, ControlError};
use crate::model::{BrokerId, ErrorCode};
use crate::server::session::Session;

use super::shared::{control_error, repeated};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;
const GROUP: i8 = 32;
/// Longest name of a group with options of its own, bytes. Kafka has no such bound.
const MAX_GROUP_NAME_BYTES: usize = 1024;

/// Change that a request asks for of one resource.
#[derive(Debug)]
pub enum Change {
    Topic(AlterTopic),
    Broker(AlterBroker),
    Group(AlterGroup),
}

/// A resource's change, or the reason for its refusal.
pub type Planned = Result<Change, ControlError>;
pub type Outcome = Result<(), ControlError>;

/// Plans and carries out the changes of `resources`; the responses in their order.
pub async fn answer<T, R>(
    session: &Session,
    resources: Vec<T>,
    validate_only: bool,
    id: impl Fn(&T) -> (i8, StrBytes),
    change: impl Fn(BrokerId, T) -> Planned,
    response: impl Fn((i8, StrBytes), Outcome) -> R,
) -> Vec<R> {
    let broker = BrokerId(session.shard().config.broker_id);
    let ids: Vec<_> = resources.iter().map(&id).collect();
    let planned = plan(resources, id, |resource| change(broker, resource));
    let outcomes = carry_out(session, planned, validate_only).await;
    ids.into_iter().zip(outcomes).map(|(id, outcome)| response(id, outcome)).collect()
}

/// The changes that `resources` ask for, in their order. A resource named twice is refused in
/// every place, as in Kafka.
fn plan<T>(resources: Vec<T>, id: impl Fn(&T) -> (i8, StrBytes), change: impl Fn(T) -> Planned) -> Vec<Planned> {
    let twice = repeated(resources.iter().map(&id));
    let planned = resources.into_iter().map(|resource| {
        if twice.contains(&id(&resource)) {
            return refuse("Each resource must appear at most once.");
        }
        change(resource)
    });
    planned.collect()
}

/// Carries out what was not refused; the outcomes in the order of `planned`.
async fn carry_out(session: &Session, planned: Vec<Planned>, validate_only: bool) -> Vec<Outcome> {
    let Split { topics, brokers, groups, places } = split(planned);
    let topics = if topics.is_empty() { Vec::new() } else { session.shard().alter_topics(topics, validate_only).await };
    let brokers =
        if brokers.is_empty() { Vec::new() } else { session.shard().alter_brokers(brokers, validate_only).await };
    let groups = if groups.is_empty() { Vec::new() } else { session.shard().alter_groups(groups, validate_only).await };
    merge_outcomes(places, topics, brokers, groups)
}

/// Where a resource's outcome comes from.
#[derive(Debug)]
enum Place {
    Topics,
    Brokers,
    Groups,
    Refused(ControlError),
}

/// The changes by kind, and the place of each resource's outcome: those of a
/// kind come in the same order.
#[derive(Debug, Default)]
struct Split {
    topics: Vec<AlterTopic>,
    brokers: Vec<AlterBroker>,
    groups: Vec<AlterGroup>,
    places: Vec<Place>,
}

fn split(planned: Vec<Planned>) -> Split {
    let mut split = Split::default();
    for planned in planned {
        let place = match planned {
            Ok(Change::Topic(change)) => {
                split.topics.push(change);
                Place::Topics
            }
            Ok(Change::Broker(change)) => {
                split.brokers.push(change);
                Place::Brokers
            }
            Ok(Change::Group(change)) => {
                split.groups.push(change);
                Place::Groups
            }
            Err(error) => Place::Refused(error),
        };
        split.places.push(place);
    }
    split
}

fn merge_outcomes(
    places: Vec<Place>,
    topics: Vec<Outcome>,
    brokers: Vec<Outcome>,
    groups: Vec<Outcome>,
) -> Vec<Outcome> {
    let (mut topics, mut brokers, mut groups) = (topics.into_iter(), brokers.into_iter(), groups.into_iter());
    let missing = || Err(control_error(ErrorCode::UnknownServerError, "the broker gave no outcome for this resource"));
    let outcome = |place| match place {
        Place::Topics => topics.next().unwrap_or_else(missing),
        Place::Brokers => brokers.next().unwrap_or_else(missing),
        Place::Groups => groups.next().unwrap_or_else(missing),
        Place::Refused(error) => Err(error),
    };
    places.into_iter().map(outcome).collect()
}

/// The change of a resource, unless it has no options to alter here. `replace`: what `set` does
/// not name is no longer set.
pub fn change(me: BrokerId, (kind, name): (i8, &str), replace: bool, set: Vec<(String, ConfigOp)>) -> Planned {
    match kind {
        TOPIC if name.is_empty() => refuse("Default topic resources are not allowed."),
        TOPIC => Ok(Change::Topic(AlterTopic { name: name.to_owned(), replace, set })),
        // The empty name stands for all brokers.
        BROKER if name.is_empty() => Ok(Change::Broker(AlterBroker { broker: None, replace, set })),
        BROKER => match name.parse::<i32>() {
            Err(_) => refuse(format!("Node id must be an integer, but it is: {name}")),
            Ok(id) if id != me.0 => refuse(format!("Unexpected broker id, expected {}, but received {name}", me.0)),
            Ok(_) => Ok(Change::Broker(AlterBroker { broker: Some(me), replace, set })),
        },
        BROKER_LOGGER => refuse("There are no levels by logger: set corelane.log.level in the file and restart."),
        GROUP if name.is_empty() => refuse("Default group resources are not allowed."),
        GROUP if name.len() > MAX_GROUP_NAME_BYTES => {
            refuse(format!("The group's name is longer than {MAX_GROUP_NAME_BYTES} bytes."))
        }
        GROUP => Ok(Change::Group(AlterGroup { name: name.to_owned(), replace, set })),
        other => {
            refuse(format!("Unknown resource type {other}: topics (2), brokers (4) and groups (32) can be altered."))
        }
    }
}

/// Refuses a resource that names an option twice.
pub fn check_names<K: Eq + Hash>(names: impl Iterator<Item = K>) -> Result<(), ControlError> {
    if repeated(names).is_empty() { Ok(()) } else { refuse("Error due to duplicate config keys") }
}

pub fn refuse<T>(message: impl Into<String>) -> Result<T, ControlError> {
    Err(control_error(ErrorCode::InvalidRequest, message))
}

#[cfg(test)]
mod tests {
    use super::super::shared::text;
    use super::*;

    #[test]
    fn outcomes_find_their_places_among_refusals() {
        let resources = vec![
            (BROKER, "7"),
            (TOPIC, "a"),
            (BROKER, "8"),
            (TOPIC, "twice"),
            (BROKER, ""),
            (TOPIC, "b"),
            (TOPIC, "twice"),
            (99, "a"),
            (GROUP, "g"),
        ];
        let planned = plan(
            resources,
            |(kind, name)| (*kind, text(name)),
            |resource| change(BrokerId(7), resource, false, Vec::new()),
        );
        let Split { topics, brokers, groups, places } = split(planned);
        assert_eq!(groups.iter().map(|change| change.name.as_str()).collect::<Vec<_>>(), ["g"]);
        assert_eq!(topics.iter().map(|change| change.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(brokers.iter().map(|change| change.broker).collect::<Vec<_>>(), [Some(BrokerId(7)), None]);
        let error = |code| Err(control_error(code, "no"));
        let topics = vec![Ok(()), error(ErrorCode::InvalidConfig)];
        let brokers = vec![error(ErrorCode::KafkaStorageError), Ok(())];
        let filled = merge_outcomes(places, topics, brokers, vec![error(ErrorCode::PolicyViolation)]);
        let codes: Vec<_> = filled.iter().map(|outcome| outcome.as_ref().err().map_or(0, |e| e.code.code())).collect();
        assert_eq!(codes, [56, 0, 42, 42, 0, 40, 42, 42, 44]);
        for (resource, part) in [
            ((TOPIC, ""), "Default topic"),
            ((BROKER, "x"), "must be an integer"),
            ((BROKER, "8"), "expected 7, but received 8"),
            ((BROKER_LOGGER, "7"), "by logger"),
            ((GROUP, ""), "Default group"),
        ] {
            let error = change(BrokerId(7), resource, false, Vec::new()).unwrap_err();
            assert!(error.message.contains(part), "{resource:?}: {error}");
        }
    }

    #[test]
    fn an_outcome_that_is_missing_is_an_error() {
        let refused = Place::Refused(control_error(ErrorCode::InvalidRequest, "no"));
        let filled = merge_outcomes(vec![Place::Brokers, refused, Place::Topics], vec![Ok(())], Vec::new(), Vec::new());
        let codes: Vec<_> = filled.iter().map(|outcome| outcome.as_ref().err().map(|e| e.code)).collect();
        assert_eq!(codes, [Some(ErrorCode::UnknownServerError), Some(ErrorCode::InvalidRequest), None]);
    }
}
