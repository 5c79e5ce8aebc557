//! AlterClientQuotas (KIP-546): sets and removes client quotas.

use kafka_protocol::messages::alter_client_quotas_request::EntryData;
use kafka_protocol::messages::alter_client_quotas_response::{EntityData, EntryData as Altered};
use kafka_protocol::messages::{AlterClientQuotasRequest, AlterClientQuotasResponse, ApiKey};

use crate::cluster::controller::ControlError;
use crate::cluster::quota_requests::{AlterQuotas, NamedEntity};
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};

use super::shared::{error_message, text};

pub const API: ApiSpec = ApiSpec::new(ApiKey::AlterClientQuotas, 0, 1);

pub async fn handle(
    session: &Session,
    Call { request, .. }: Call<AlterClientQuotasRequest>,
) -> AlterClientQuotasResponse {
    let wanted: Vec<AlterQuotas> = request.entries.into_iter().map(alteration).collect();
    let outcomes = match session.shard().alter_quotas(wanted.clone(), request.validate_only).await {
        Ok(outcomes) => outcomes,
        Err(error) => wanted.into_iter().map(|quotas| (quotas.entity, Err(error.clone()))).collect(),
    };
    let entries = outcomes.into_iter().map(|(entity, outcome)| answered(entity, outcome));
    AlterClientQuotasResponse::default().with_entries(entries.collect())
}

/// Of an entity type named twice the last name counts, as in Kafka.
fn alteration(entry: EntryData) -> AlterQuotas {
    let name = |part: kafka_protocol::messages::alter_client_quotas_request::EntityData| {
        (part.entity_type.to_string(), part.entity_name.map(|name| name.to_string()))
    };
    let op = |op: kafka_protocol::messages::alter_client_quotas_request::OpData| {
        (op.key.to_string(), (!op.remove).then_some(op.value))
    };
    AlterQuotas { entity: entry.entity.into_iter().map(name).collect(), ops: entry.ops.into_iter().map(op).collect() }
}

fn answered(entity: NamedEntity, outcome: Result<(), ControlError>) -> Altered {
    let part = |(kind, name): (String, Option<String>)| {
        EntityData::default().with_entity_type(text(&kind)).with_entity_name(name.as_deref().map(text))
    };
    let altered = Altered::default().with_entity(entity.into_iter().map(part).collect());
    match outcome {
        Ok(()) => altered.with_error_message(None),
        Err(error) => altered.with_error_code(error.code.code()).with_error_message(error_message(error.message)),
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::alter_client_quotas_request::{EntityData as Named, OpData};

    use super::super::shared::control_error;
    use super::super::shared::testing::through_the_wire;
    use super::*;
    use crate::model::ErrorCode;

    #[test]
    fn removals_have_no_value_and_the_last_name_counts() {
        let named =
            |name: Option<&str>| Named::default().with_entity_type(text("user")).with_entity_name(name.map(text));
        let op = |key: &str, remove| OpData::default().with_key(text(key)).with_value(5.0).with_remove(remove);
        let entry = EntryData::default()
            .with_entity(vec![named(Some("a")), named(None)])
            .with_ops(vec![op("x", false), op("y", true)]);
        let asked = alteration(entry);
        assert_eq!(asked.entity, NamedEntity::from([("user".to_owned(), None)]));
        assert_eq!(asked.ops, [("x".to_owned(), Some(5.0)), ("y".to_owned(), None)]);
    }

    #[test]
    fn answers_are_read_in_every_version() {
        let entity = NamedEntity::from([("client-id".to_owned(), Some("c".to_owned())), ("user".to_owned(), None)]);
        let rows = vec![
            answered(entity.clone(), Ok(())),
            answered(entity, Err(control_error(ErrorCode::InvalidRequest, "no"))),
        ];
        let sent = AlterClientQuotasResponse::default().with_entries(rows);
        for version in API.min..=API.max {
            assert_eq!(through_the_wire(ApiKey::AlterClientQuotas, version, &sent), sent, "v{version}");
        }
    }
}
