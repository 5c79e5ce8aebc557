//! AlterConfigs and IncrementalAlterConfigs: the steps that both have.

use std::hash::Hash;
use std::rc::Rc;

use kafka_protocol::protocol::StrBytes;

use crate::cluster::controller::{AlterBroker, AlterTopic, ConfigOp, ControlError};
use crate::model::{BrokerId, ErrorCode};
use crate::server::context::ServerContext;

use super::shared::{control_error, repeated};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;

/// Change that a request asks for of one resource.
#[derive(Debug)]
pub enum Change {
    Topic(AlterTopic),
    Broker(AlterBroker),
}

/// A resource's change, or the reason for its refusal.
pub type Planned = Result<Change, ControlError>;
pub type Outcome = Result<(), ControlError>;

/// Plans and carries out the changes of `resources`; the responses in their order.
pub async fn answer<T, R>(
    context: &Rc<ServerContext>,
    resources: Vec<T>,
    validate_only: bool,
    id: impl Fn(&T) -> (i8, StrBytes),
    change: impl Fn(BrokerId, T) -> Planned,
    response: impl Fn((i8, StrBytes), Outcome) -> R,
) -> Vec<R> {
    let broker = BrokerId(context.shard.config.broker_id);
    let ids: Vec<_> = resources.iter().map(&id).collect();
    let planned = plan(resources, id, |resource| change(broker, resource));
    let outcomes = carry_out(context, planned, validate_only).await;
    ids.into_iter().zip(outcomes).map(|(id, outcome)| response(id, outcome)).collect()
}

/// The changes that `resources` ask for, in their order. A resource named twice is refused in every place, as in Kafka.
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
async fn carry_out(context: &Rc<ServerContext>, planned: Vec<Planned>, validate_only: bool) -> Vec<Outcome> {
    let (topics, brokers, places) = split(planned);
    let topics = if topics.is_empty() { Vec::new() } else { context.shard.alter_topics(topics, validate_only).await };
    let brokers =
        if brokers.is_empty() { Vec::new() } else { context.shard.alter_brokers(brokers, validate_only).await };
    fill(places, topics, brokers)
}

/// Where a resource's outcome comes from.
#[derive(Debug)]
enum Place {
    Topics,
    Brokers,
    Refused(ControlError),
}

/// The changes by kind, and the place of each resource's outcome: those of a kind come in the same order.
fn split(planned: Vec<Planned>) -> (Vec<AlterTopic>, Vec<AlterBroker>, Vec<Place>) {
    let (mut topics, mut brokers) = (Vec::new(), Vec::new());
    let places = planned.into_iter().map(|planned| match planned {
        Ok(Change::Topic(change)) => {
            topics.push(change);
            Place::Topics
        }
        Ok(Change::Broker(change)) => {
            brokers.push(change);
            Place::Brokers
        }
        Err(error) => Place::Refused(error),
    });
    let places = places.collect();
    (topics, brokers, places)
}

fn fill(places: Vec<Place>, topics: Vec<Outcome>, brokers: Vec<Outcome>) -> Vec<Outcome> {
    let (mut topics, mut brokers) = (topics.into_iter(), brokers.into_iter());
    let missing = || Err(control_error(ErrorCode::UnknownServerError, "the broker gave no outcome for this resource"));
    let outcome = |place| match place {
        Place::Topics => topics.next().unwrap_or_else(missing),
        Place::Brokers => brokers.next().unwrap_or_else(missing),
        Place::Refused(error) => Err(error),
    };
    places.into_iter().map(outcome).collect()
}

/// The change of a resource, unless it has no options to alter here. `replace`: what `set` does not name is no longer set.
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
        other => refuse(format!("Unknown resource type {other}: topics (2) and brokers (4) can be altered.")),
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
        ];
        let planned = plan(
            resources,
            |(kind, name)| (*kind, text(name)),
            |resource| change(BrokerId(7), resource, false, Vec::new()),
        );
        let (topics, brokers, places) = split(planned);
        assert_eq!(topics.iter().map(|change| change.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(brokers.iter().map(|change| change.broker).collect::<Vec<_>>(), [Some(BrokerId(7)), None]);
        let error = |code| Err(control_error(code, "no"));
        let topics = vec![Ok(()), error(ErrorCode::InvalidConfig)];
        let filled = fill(places, topics, vec![error(ErrorCode::KafkaStorageError), Ok(())]);
        let codes: Vec<_> = filled.iter().map(|outcome| outcome.as_ref().err().map_or(0, |e| e.code.code())).collect();
        assert_eq!(codes, [56, 0, 42, 42, 0, 40, 42, 42]);
        for (resource, part) in [
            ((TOPIC, ""), "Default topic"),
            ((BROKER, "x"), "must be an integer"),
            ((BROKER, "8"), "expected 7, but received 8"),
            ((BROKER_LOGGER, "7"), "by logger"),
        ] {
            let error = change(BrokerId(7), resource, false, Vec::new()).unwrap_err();
            assert!(error.message.contains(part), "{resource:?}: {error}");
        }
    }

    #[test]
    fn an_outcome_that_is_missing_is_an_error() {
        let refused = Place::Refused(control_error(ErrorCode::InvalidRequest, "no"));
        let filled = fill(vec![Place::Brokers, refused, Place::Topics], vec![Ok(())], Vec::new());
        let codes: Vec<_> = filled.iter().map(|outcome| outcome.as_ref().err().map(|e| e.code)).collect();
        assert_eq!(codes, [Some(ErrorCode::UnknownServerError), Some(ErrorCode::InvalidRequest), None]);
    }
}
