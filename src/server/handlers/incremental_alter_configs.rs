//! IncrementalAlterConfigs: the options of topics, one by one (KIP-339).

use std::collections::HashSet;
use std::rc::Rc;

use kafka_protocol::messages::incremental_alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{ApiKey, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use crate::cluster::controller::{AlterTopic, ConfigOp, ControlError};
use crate::model::ErrorCode;
use crate::protocol::ApiSpec;
use crate::server::context::ServerContext;

use super::shared::{control_error, error_message, repeated};

pub const API: ApiSpec = ApiSpec::new(ApiKey::IncrementalAlterConfigs, 0, 1);

const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const BROKER_LOGGER: i8 = 8;

pub async fn handle(
    context: &Rc<ServerContext>,
    _: i16,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let (mut responses, changes) = sort_out(request.resources);
    if !changes.is_empty() {
        fill(&mut responses, context.shard.alter_topics(changes, request.validate_only).await);
    }
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

/// What goes to the controller, and the response with places for the outcomes: those without an error, in the same order.
/// A resource named twice is refused in every place, as in Kafka.
fn sort_out(resources: Vec<AlterConfigsResource>) -> (Vec<AlterConfigsResourceResponse>, Vec<AlterTopic>) {
    let twice: HashSet<(i8, StrBytes)> = repeated(resources.iter().map(|r| (r.resource_type, r.resource_name.clone())));
    let mut changes = Vec::new();
    let mut responses = Vec::with_capacity(resources.len());
    for AlterConfigsResource { resource_type, resource_name, configs, .. } in resources {
        let place = AlterConfigsResourceResponse::default()
            .with_resource_type(resource_type)
            .with_resource_name(resource_name.clone())
            .with_error_message(None);
        let change = if twice.contains(&(resource_type, resource_name.clone())) {
            Err(control_error(ErrorCode::InvalidRequest, "Each resource must appear at most once."))
        } else {
            change(resource_type, &resource_name, configs)
        };
        responses.push(match change {
            Ok(change) => {
                changes.push(change);
                place
            }
            Err(error) => failed(place, error),
        });
    }
    (responses, changes)
}

fn change(resource_type: i8, name: &str, configs: Vec<AlterableConfig>) -> Result<AlterTopic, ControlError> {
    let refuse = |message: String| Err(control_error(ErrorCode::InvalidRequest, message));
    if !repeated(configs.iter().map(|config| &config.name)).is_empty() {
        return refuse("Error due to duplicate config keys".to_owned());
    }
    match resource_type {
        TOPIC => {}
        BROKER | BROKER_LOGGER => {
            return refuse("Broker configs cannot be altered yet: set them in the file and restart.".to_owned());
        }
        other => return refuse(format!("Resource type {other} is not supported: topics (2) are.")),
    }
    let mut set = Vec::with_capacity(configs.len());
    for config in configs {
        let value = config.value.map(|value| value.to_string());
        let op = match (config.config_operation, value) {
            (0, Some(value)) => ConfigOp::Set(value),
            (1, _) => ConfigOp::Delete,
            (2, Some(value)) => ConfigOp::Append(value),
            (3, Some(value)) => ConfigOp::Subtract(value),
            (0 | 2 | 3, None) => return refuse(format!("Null value not supported for : {}", &*config.name)),
            (other, _) => return refuse(format!("Unknown operations type {other}")),
        };
        set.push((config.name.to_string(), op));
    }
    Ok(AlterTopic { name: name.to_owned(), set })
}

fn failed(place: AlterConfigsResourceResponse, error: ControlError) -> AlterConfigsResourceResponse {
    place.with_error_code(error.code.code()).with_error_message(error_message(error.message))
}

fn fill(responses: &mut [AlterConfigsResourceResponse], outcomes: Vec<Result<(), ControlError>>) {
    let mut outcomes = outcomes.into_iter();
    for place in responses.iter_mut().filter(|place| place.error_code == 0) {
        let outcome = outcomes.next().unwrap_or_else(|| {
            Err(control_error(ErrorCode::UnknownServerError, "the broker gave no outcome for this resource"))
        });
        if let Err(error) = outcome {
            *place = failed(std::mem::take(place), error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::shared::text;
    use super::*;
    use crate::protocol::respond::encode;

    fn config(name: &str, operation: i8, value: Option<&str>) -> AlterableConfig {
        AlterableConfig::default().with_name(text(name)).with_config_operation(operation).with_value(value.map(text))
    }

    fn resource(kind: i8, name: &str, configs: Vec<AlterableConfig>) -> AlterConfigsResource {
        AlterConfigsResource::default().with_resource_type(kind).with_resource_name(text(name)).with_configs(configs)
    }

    #[test]
    fn outcomes_find_their_places_among_refusals() {
        let (mut responses, changes) = sort_out(vec![
            resource(BROKER, "0", vec![]),
            resource(TOPIC, "a", vec![config("x", 0, Some("1")), config("y", 1, None), config("z", 1, Some("2"))]),
            resource(TOPIC, "twice", vec![]),
            resource(TOPIC, "b", vec![config("x", 2, Some("1")), config("y", 3, Some("2"))]),
            resource(TOPIC, "twice", vec![]),
            resource(99, "a", vec![]),
        ]);
        assert_eq!(changes.iter().map(|change| change.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        let ops: Vec<_> = changes.iter().flat_map(|change| &change.set).map(|(_, op)| op.clone()).collect();
        let [one, two] = ["1", "2"].map(str::to_owned);
        let expected = [
            ConfigOp::Set(one.clone()),
            ConfigOp::Delete,
            ConfigOp::Delete,
            ConfigOp::Append(one),
            ConfigOp::Subtract(two),
        ];
        assert_eq!(ops, expected);
        fill(&mut responses, vec![Ok(()), Err(control_error(ErrorCode::InvalidConfig, "no"))]);
        let rows: Vec<_> = responses.iter().map(|r| (r.resource_type, &*r.resource_name, r.error_code)).collect();
        let expected = [(4, "0", 42), (2, "a", 0), (2, "twice", 42), (2, "b", 40), (2, "twice", 42), (99, "a", 42)];
        assert_eq!(rows, expected);
        assert!(responses.iter().all(|r| r.error_message.is_some() == (r.error_code != 0)));
        for version in API.min..=API.max {
            let response = IncrementalAlterConfigsResponse::default().with_responses(responses.clone());
            assert!(encode(ApiKey::IncrementalAlterConfigs, version, 1, &response).is_ok(), "v{version}");
        }
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused_by_its_resource() {
        for configs in [
            vec![config("x", 0, None)],
            vec![config("x", 2, None)],
            vec![config("x", 4, Some("1"))],
            vec![config("x", -1, None)],
            vec![config("x", 0, Some("1")), config("x", 1, None)],
        ] {
            let (responses, changes) = sort_out(vec![resource(TOPIC, "a", configs), resource(TOPIC, "b", vec![])]);
            let codes: Vec<_> = responses.iter().map(|r| r.error_code).collect();
            assert_eq!((codes, changes.len()), (vec![42, 0], 1));
        }
    }
}
