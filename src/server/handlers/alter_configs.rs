//! AlterConfigs: the options of topics, brokers and groups, all of a resource's own at once. What a
//! request does not name is no longer set.

use kafka_protocol::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::{AlterConfigsRequest, AlterConfigsResponse, ApiKey};
use kafka_protocol::protocol::StrBytes;

use crate::cluster::controller::ConfigOp;
use crate::model::BrokerId;
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};

use super::altering::{self, check_names, refuse};
use super::shared::error_message;

pub const API: ApiSpec = ApiSpec::new(ApiKey::AlterConfigs, 0, 2);

pub async fn handle(session: &Session, Call { request, .. }: Call<AlterConfigsRequest>) -> AlterConfigsResponse {
    let AlterConfigsRequest { resources, validate_only, .. } = request;
    let responses = altering::answer(session, resources, validate_only, id, change, response).await;
    AlterConfigsResponse::default().with_responses(responses)
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
    let nulls: Vec<&str> = resource.configs.iter().filter(|c| c.value.is_none()).map(|c| &*c.name).collect();
    if !nulls.is_empty() {
        return refuse(format!("Null value not supported for : {}", nulls.join(", ")));
    }
    let set = |AlterableConfig { name, value, .. }| (name, value);
    let name = resource.resource_name.clone();
    let set = resource.configs.into_iter().map(set);
    let set = set.filter_map(|(name, value)| Some((name.to_string(), ConfigOp::Set(value?.to_string()))));
    altering::change(broker, (resource.resource_type, &name), true, set.collect())
}

#[cfg(test)]
mod tests {
    use super::super::shared::testing::through_the_wire;
    use super::super::shared::{control_error, text};
    use super::*;
    use crate::model::ErrorCode;

    fn resource(kind: i8, configs: &[(&str, Option<&str>)]) -> AlterConfigsResource {
        let configs = configs
            .iter()
            .map(|(name, value)| AlterableConfig::default().with_name(text(name)).with_value(value.map(text)));
        AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(text("a"))
            .with_configs(configs.collect())
    }

    #[test]
    fn a_topic_gets_exactly_what_is_named() {
        let wanted = resource(2, &[("x", Some("1")), ("y", Some(""))]);
        let altering::Change::Topic(change) = change(BrokerId(7), wanted).unwrap() else { panic!() };
        assert!(change.replace);
        let expected = [("x", "1"), ("y", "")].map(|(name, value)| (name.to_owned(), ConfigOp::Set(value.to_owned())));
        assert_eq!((change.name.as_str(), &change.set[..]), ("a", &expected[..]));
    }

    #[test]
    fn what_cannot_be_carried_out_is_refused() {
        for (kind, configs, part) in [
            (2, &[("x", None), ("y", Some("1")), ("z", None)][..], "for : x, z"),
            (2, &[("x", Some("1")), ("x", Some("1"))], "duplicate"),
            (4, &[("x", Some("1"))], "must be an integer"),
            (8, &[("root", Some("INFO"))], "logger"),
            (0, &[], "type 0"),
        ] {
            let error = change(BrokerId(7), resource(kind, configs)).unwrap_err();
            assert!(error.code == ErrorCode::InvalidRequest && error.message.contains(part), "{error}");
        }
    }

    #[test]
    fn answers_are_read_in_every_version() {
        let rows = vec![
            response((2, text("a")), Ok(())),
            response((4, text("0")), Err(control_error(ErrorCode::InvalidRequest, "no"))),
        ];
        let sent = AlterConfigsResponse::default().with_responses(rows);
        for version in API.min..=API.max {
            assert_eq!(through_the_wire(ApiKey::AlterConfigs, version, &sent), sent, "v{version}");
        }
    }
}
