//! DescribeClientQuotas: there are none; filters that make no sense are refused as by Kafka.

use std::collections::HashSet;
use std::rc::Rc;

use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use kafka_protocol::messages::{ApiKey, DescribeClientQuotasRequest, DescribeClientQuotasResponse};

use crate::cluster::controller::ControlError;
use crate::model::ErrorCode;
use crate::protocol::ApiSpec;
use crate::server::context::ServerContext;

use super::shared::{control_error, error_message};

pub const API: ApiSpec = ApiSpec::new(ApiKey::DescribeClientQuotas, 0, 1);

const EXACT: i8 = 0;
const DEFAULT: i8 = 1;
const ANY: i8 = 2;

pub async fn handle(
    _: &Rc<ServerContext>,
    _: i16,
    request: DescribeClientQuotasRequest,
) -> DescribeClientQuotasResponse {
    match check(&request.components) {
        Ok(()) => DescribeClientQuotasResponse::default().with_error_message(None).with_entries(Some(Vec::new())),
        Err(error) => DescribeClientQuotasResponse::default()
            .with_error_code(error.code.code())
            .with_error_message(error_message(error.message))
            .with_entries(None),
    }
}

fn check(components: &[ComponentData]) -> Result<(), ControlError> {
    let invalid = |message: String| Err(control_error(ErrorCode::InvalidRequest, message));
    let mut types = HashSet::new();
    for component in components {
        let kind: &str = &component.entity_type;
        match (component.match_type, &component._match) {
            _ if kind.is_empty() => return invalid("the entity type is empty".into()),
            (EXACT, Some(_)) | (DEFAULT | ANY, None) => {}
            (EXACT | DEFAULT | ANY, _) => {
                return invalid("a name goes with the exact match, and only with that".into());
            }
            (other, _) => return invalid(format!("there is no match type {other}")),
        }
        if !types.insert(kind) {
            return invalid(format!("the entity type {kind} is named twice"));
        }
        if !["user", "client-id", "ip"].contains(&kind) {
            return Err(control_error(ErrorCode::UnsupportedVersion, format!("there is no entity type {kind}")));
        }
    }
    if types.contains("ip") && types.len() > 1 {
        return invalid("the entity type ip goes with no other".into());
    }
    Ok(())
}
