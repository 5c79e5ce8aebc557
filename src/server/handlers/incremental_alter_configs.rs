//! IncrementalAlterConfigs: the options of topics, brokers and groups, one by one (KIP-339).

use kafka_protocol::messages::incremental_alter_configs_request::AlterConfigsResource;
use kafka_protocol::messages::incremental_alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{ApiKey, IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse};
use kafka_protocol::protocol::StrBytes;

use crate::cluster::controller::ConfigOp;
use crate::model::BrokerId;
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};

use super::altering::{self, check_names, refuse};
use super::shared::error_message;

pub const API: ApiSpec = ApiSpec::new(ApiKey::IncrementalAlterConfigs, 0, 1);

pub async fn handle(
    session: &Session,
    Call { request, .. }: Call<IncrementalAlterConfigsRequest>,
) -> IncrementalAlterConfigsResponse {
    let IncrementalAlterConfigsRequest { resources, validate_only, .. } = request;
    let responses = altering::answer(session, resources, validate_only, id, change, response).await;
    IncrementalAlterConfigsResponse::default().with_responses(responses)
}

fn id(resource: &AlterConfigsResource) -> (i8, StrBytes) {
    (resource.resource_type, resource.resource_name.clone())
}

fn response((kind, name): (i8, StrBytes), outcome: altering::Outcome) -> AlterConfigsResourceResponse {
    let place = AlterConfigsResourceResponse::default().with_resource_type(kind).with_resource_name(name);
    match outcome {
        Ok(()) => place.with_error_message(None),
        Err(error) => place.with_error_code(error.code.code()).with_error_message(error_message(error.message)),
    }
}

fn change(broker: BrokerId, resource: AlterConfigsResource) -> altering::Planned {
    check_names(resource.configs.iter().map(|config| &config.name))?;
    let mut set = Vec::with_capacity(resource.configs.len());
    for config in resource.configs {
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
    altering::change(broker, (resource.resource_type, &resource.resource_name), false, set)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::incremental_alter_configs_request::AlterableConfig;

    use super::super::shared::testing::through_the_wire;
    use super::super::shared::{control_error, text};
    use super::*;
    use crate::model::ErrorCode;

    fn config(name: &str, operation: i8, value: Option<&str>) -> AlterableConfig {
        AlterableConfig::default().with_name(text(name)).with_config_operation(operation).with_value(value.map(text))
    }

    fn resource(kind: i8, configs: Vec<AlterableConfig>) -> AlterConfigsResource {
        AlterConfigsResource::default().with_resource_type(kind).with_resource_name(text("a")).with_configs(configs)
    }

    #[test]
    fn operations_come_through_in_their_order() {
        let configs = vec![
            config("u", 0, Some("1")),
            config("v", 1, None),
            config("w", 1, Some("2")),
            config("x", 2, Some("1")),
            config("y", 3, Some("2")),
        ];
        let altering::Change::Topic(change) = change(BrokerId(7), resource(2, configs)).unwrap() else { panic!() };
        let [one, two] = ["1", "2"].map(str::to_owned);
        let expected = [
            ConfigOp::Set(one.clone()),
            ConfigOp::Delete,
            ConfigOp::Delete,
            ConfigOp::Append(one),
            ConfigOp::Subtract(two),
        ];
        assert_eq!((change.name.as_str(), change.replace), ("a", false));
        assert_eq!(change.set.into_iter().map(|(_, op)| op).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused() {
        for (kind, configs) in [
            (2, vec![config("x", 0, None)]),
            (2, vec![config("x", 2, None)]),
            (2, vec![config("x", 4, Some("1"))]),
            (2, vec![config("x", -1, None)]),
            (2, vec![config("x", 0, Some("1")), config("x", 1, None)]),
            (4, vec![config("x", 0, Some("1"))]),
            (99, vec![]),
        ] {
            let refused = change(BrokerId(7), resource(kind, configs)).unwrap_err();
            assert_eq!(refused.code, ErrorCode::InvalidRequest, "{refused}");
        }
    }

    #[test]
    fn answers_are_read_in_every_version() {
        let rows = vec![
            response((2, text("a")), Ok(())),
            response((4, text("0")), Err(control_error(ErrorCode::InvalidRequest, "no"))),
        ];
        let sent = IncrementalAlterConfigsResponse::default().with_responses(rows);
        for version in API.min..=API.max {
            assert_eq!(through_the_wire(ApiKey::IncrementalAlterConfigs, version, &sent), sent, "v{version}");
        }
    }
}
