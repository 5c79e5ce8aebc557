//! AlterConfigs and IncrementalAlterConfigs: the steps that both have.

use std::hash::Hash;
use std::rc::Rc;

use kafka_protocol::protocol::StrBytes;

use crate::cluster::controller::{AlterTopic, ControlError};
use crate::model::{BrokerId, ErrorCode};
use crate::server::context::ServerContext;

use super::shared::{control_error, repeated};

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;

/// A resource's change (`None`: it is as it is to be), or the reason for its refusal.
pub type Planned = Result<Option<AlterTopic>, ControlError>;
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
    let (changes, places) = split(planned);
    let outcomes =
        if changes.is_empty() { Vec::new() } else { context.shard.alter_topics(changes, validate_only).await };
    fill(places, outcomes)
}

/// The changes, and a place for each resource's outcome: empty for those of the changes, in the same order.
fn split(planned: Vec<Planned>) -> (Vec<AlterTopic>, Vec<Option<Outcome>>) {
    let mut changes = Vec::new();
    let places = planned.into_iter().map(|planned| match planned {
        Ok(Some(change)) => {
            changes.push(change);
            None
        }
        Ok(None) => Some(Ok(())),
        Err(error) => Some(Err(error)),
    });
    let places = places.collect();
    (changes, places)
}

fn fill(places: Vec<Option<Outcome>>, outcomes: Vec<Outcome>) -> Vec<Outcome> {
    let mut outcomes = outcomes.into_iter();
    let missing = || Err(control_error(ErrorCode::UnknownServerError, "the broker gave no outcome for this resource"));
    places.into_iter().map(|place| place.or_else(|| outcomes.next()).unwrap_or_else(missing)).collect()
}

/// Refuses resources that have no options to alter; `true`: it is a topic. `options`: those that are to be set. A broker has no
/// dynamic options, so to take them away changes nothing.
pub fn check_resource(broker: BrokerId, (kind, name): (i8, &str), options: &[&str]) -> Result<bool, ControlError> {
    match kind {
        TOPIC if name.is_empty() => refuse("Default topic resources are not allowed."),
        TOPIC => Ok(true),
        // The empty name stands for all brokers.
        BROKER if !name.is_empty() && name.parse::<i32>().is_err() => {
            refuse(format!("Node id must be an integer, but it is: {name}"))
        }
        BROKER if !name.is_empty() && name.parse() != Ok(broker.0) => {
            refuse(format!("Unexpected broker id, expected {}, but received {name}", broker.0))
        }
        BROKER if options.is_empty() => Ok(false),
        BROKER => refuse(format!(
            "Cannot update these configs dynamically: [{}]. Set them in the file and restart.",
            options.join(", ")
        )),
        BROKER_LOGGER => refuse("There are no levels by logger: set corelane.log.level in the file and restart."),
        other => refuse(format!("Unknown resource type {other}: topics (2) can be altered.")),
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
            (BROKER, "0"),
            (TOPIC, "a"),
            (BROKER, "7"),
            (TOPIC, "twice"),
            (TOPIC, "b"),
            (TOPIC, "twice"),
            (99, "a"),
        ];
        let planned = plan(
            resources,
            |(kind, name)| (*kind, text(name)),
            |(kind, name)| {
                let is_topic = check_resource(BrokerId(7), (kind, name), &[])?;
                Ok(is_topic.then(|| AlterTopic { name: name.to_owned(), ..AlterTopic::default() }))
            },
        );
        let (changes, places) = split(planned);
        assert_eq!(changes.iter().map(|change| change.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let filled = fill(places, vec![Ok(()), Err(control_error(ErrorCode::InvalidConfig, "no"))]);
        for (resource, part) in [
            ((TOPIC, ""), "Default topic"),
            ((BROKER, "x"), "must be an integer"),
            ((BROKER, "8"), "expected 7, but received 8"),
            ((BROKER, "7"), "dynamically: [a, b]"),
            ((BROKER, ""), "dynamically: [a, b]"),
        ] {
            let error = check_resource(BrokerId(7), resource, &["a", "b"]).unwrap_err();
            assert!(error.message.contains(part), "{resource:?}: {error}");
        }
        let codes: Vec<_> = filled.iter().map(|outcome| outcome.as_ref().err().map_or(0, |e| e.code.code())).collect();
        assert_eq!(codes, [42, 0, 0, 42, 40, 42, 42]);
    }

    #[test]
    fn an_outcome_that_is_missing_is_an_error() {
        let filled = fill(vec![None, Some(Ok(())), None], vec![Ok(())]);
        assert!(filled[0].is_ok() && filled[1].is_ok());
        assert_eq!(filled[2].as_ref().err().map(|e| e.code), Some(ErrorCode::UnknownServerError));
    }
}
