//! DescribeClientQuotas (KIP-546): client quotas as they are set, by a filter
//! on whom they are set for.

use kafka_protocol::messages::describe_client_quotas_response::{EntityData, EntryData, ValueData};
use kafka_protocol::messages::{ApiKey, DescribeClientQuotasRequest, DescribeClientQuotasResponse};

use crate::cluster::controller::ControlError;
use crate::cluster::quota_requests::QuotaFilter;
use crate::cluster::quotas::{ClientQuotas, QuotaEntity, QuotaValues};
use crate::protocol::ApiSpec;
use crate::server::session::{Call, Session};

use super::shared::{error_message, text};

pub const API: ApiSpec = ApiSpec::new(ApiKey::DescribeClientQuotas, 0, 1);

pub async fn handle(
    session: &Session,
    Call { request, .. }: Call<DescribeClientQuotasRequest>,
) -> DescribeClientQuotasResponse {
    respond(&session.shard().image().quotas, request)
}

fn respond(quotas: &ClientQuotas, request: DescribeClientQuotasRequest) -> DescribeClientQuotasResponse {
    let component = |component: kafka_protocol::messages::describe_client_quotas_request::ComponentData| {
        let name = component._match.map(|name| name.to_string());
        (component.entity_type.to_string(), component.match_type, name)
    };
    let components = request.components.into_iter().map(component).collect();
    match QuotaFilter::new(components, request.strict) {
        Ok(filter) => {
            let found = quotas.all().filter(|(entity, _)| filter.matches(entity));
            let entries = found.map(|(entity, values)| entry(entity, values)).collect();
            DescribeClientQuotasResponse::default().with_error_message(None).with_entries(Some(entries))
        }
        Err(ControlError { code, message }) => DescribeClientQuotasResponse::default()
            .with_error_code(code.code())
            .with_error_message(error_message(message))
            .with_entries(None),
    }
}

fn entry(entity: &QuotaEntity, values: &QuotaValues) -> EntryData {
    let part = |(kind, name): (&str, Option<std::sync::Arc<str>>)| {
        EntityData::default().with_entity_type(text(kind)).with_entity_name(name.as_deref().map(text))
    };
    let values = values.iter().map(|(kind, value)| ValueData::default().with_key(text(kind.key())).with_value(*value));
    EntryData::default().with_entity(entity.parts().into_iter().map(part).collect()).with_values(values.collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::shared::testing::through_the_wire;
    use super::*;

    #[test]
    fn answers_are_read_in_every_version() {
        let entity = QuotaEntity::UserClient(Some("u".into()), None);
        let options = BTreeMap::from([("request_percentage".to_owned(), "12.5".to_owned())]);
        let quotas = ClientQuotas::new([(&entity, &options)]);
        let sent = respond(&quotas, DescribeClientQuotasRequest::default());
        let [entry] = &sent.entries.clone().unwrap()[..] else { panic!("{sent:?}") };
        let parts: Vec<_> = entry.entity.iter().map(|part| (&*part.entity_type, part.entity_name.as_deref())).collect();
        assert_eq!(parts, [("user", Some("u")), ("client-id", None)]);
        assert_eq!((&*entry.values[0].key, entry.values[0].value), ("request_percentage", 12.5));
        let wrong = DescribeClientQuotasRequest::default().with_components(vec![Default::default()]);
        let refused = respond(&quotas, wrong);
        assert_eq!((refused.error_code, refused.entries.clone()), (42, None));
        for version in API.min..=API.max {
            for sent in [&sent, &refused] {
                assert_eq!(through_the_wire(ApiKey::DescribeClientQuotas, version, sent), *sent, "v{version}");
            }
        }
    }
}
