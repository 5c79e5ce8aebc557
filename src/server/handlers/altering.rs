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

/// A resource's change, or the reason for its refusal.
pub type Planned = Result<AlterTopic, ControlError>;

/// The changes that `resources` ask for, in their order. A resource named twice is refused in every place, as in Kafka.
pub fn plan<T>(
    resources: Vec<T>,
    id: impl Fn(&T) -> (i8, StrBytes),
    change: impl Fn(T) -> Result<AlterTopic, ControlError>,
) -> Vec<Planned> {
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
pub async fn carry_out(
    context: &Rc<ServerContext>,
    planned: Vec<Planned>,
    validate_only: bool,
) -> Vec<Result<(), ControlError>> {
    let (changes, places) = split(planned);
    if changes.is_empty() {
        return places;
    }
    fill(places, context.shard.alter_topics(changes, validate_only).await)
}

/// The changes, and the places for their outcomes: those without an error, in the same order.
fn split(planned: Vec<Planned>) -> (Vec<AlterTopic>, Vec<Result<(), ControlError>>) {
    let mut changes = Vec::new();
    let places = planned.into_iter().map(|planned| planned.map(|change| changes.push(change))).collect();
    (changes, places)
}

fn fill(
    mut places: Vec<Result<(), ControlError>>,
    outcomes: Vec<Result<(), ControlError>>,
) -> Vec<Result<(), ControlError>> {
    let mut outcomes = outcomes.into_iter();
    for place in places.iter_mut().filter(|place| place.is_ok()) {
        *place = outcomes.next().unwrap_or_else(|| {
            Err(control_error(ErrorCode::UnknownServerError, "the broker gave no outcome for this resource"))
        });
    }
    places
}

/// Refuses resources that have no options to alter. `options`: those that are to be altered.
pub fn check_resource(broker: BrokerId, (kind, name): (i8, &str), options: &[&str]) -> Result<(), ControlError> {
    match kind {
        TOPIC if name.is_empty() => refuse("Default topic resources are not allowed."),
        TOPIC => Ok(()),
        // The empty name stands for all brokers.
        BROKER if !name.is_empty() && name.parse::<i32>().is_err() => {
            refuse(format!("Node id must be an integer, but it is: {name}"))
        }
        BROKER if !name.is_empty() && name.parse() != Ok(broker.0) => {
            refuse(format!("Unexpected broker id, expected {}, but received {name}", broker.0))
        }
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
        let resources = vec![(BROKER, "0"), (TOPIC, "a"), (TOPIC, "twice"), (TOPIC, "b"), (TOPIC, "twice"), (99, "a")];
        let planned = plan(
            resources,
            |(kind, name)| (*kind, text(name)),
            |(kind, name)| {
                check_resource(BrokerId(7), (kind, name), &[])
                    .map(|()| AlterTopic { name: name.to_owned(), ..AlterTopic::default() })
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
        assert_eq!(codes, [42, 0, 42, 40, 42, 42]);
    }

    #[test]
    fn an_outcome_that_is_missing_is_an_error() {
        let filled = fill(vec![Ok(()), Ok(())], vec![Ok(())]);
        assert_eq!(filled[1].as_ref().err().map(|e| e.code), Some(ErrorCode::UnknownServerError));
    }
}
