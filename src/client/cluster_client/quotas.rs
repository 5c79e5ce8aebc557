//! Client quotas.

use std::collections::BTreeMap;

use kafka_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use kafka_protocol::messages::{
    AlterClientQuotasRequest, AlterClientQuotasResponse, DescribeClientQuotasRequest, DescribeClientQuotasResponse,
};

use super::route::{ClusterClient, To, will_pass};
use super::topics::{silent, text};
use crate::client::error::{ClientError, Refusal};

/// Name of an entity by its type. `None`: the default.
pub type QuotaEntity = BTreeMap<String, Option<String>>;

/// Quotas of one entity, by quota key.
#[derive(Clone, Debug, PartialEq)]
pub struct Quotas {
    pub entity: QuotaEntity,
    pub values: BTreeMap<String, f64>,
}

impl ClusterClient {
    /// Quotas of all entities that have these names, whatever other types they have, in order.
    pub async fn quotas(&mut self, named: &QuotaEntity) -> Result<Result<Vec<Quotas>, Refusal>, ClientError> {
        let make = |_| {
            let components = named.iter().map(|(kind, name)| {
                let component = ComponentData::default().with_entity_type(text(kind));
                component.with_match_type(i8::from(name.is_none())).with_match(name.as_deref().map(text))
            });
            DescribeClientQuotasRequest::default().with_components(components.collect())
        };
        let passes = |answer: &DescribeClientQuotasResponse| will_pass(answer.error_code);
        let answer = self.ask(To::Any, make, passes).await?;
        let outcome = Refusal::check(answer.error_code, answer.error_message.as_deref());
        Ok(outcome.map(|()| {
            let quotas = answer.entries.unwrap_or_default().into_iter().map(|entry| Quotas {
                entity: entry
                    .entity
                    .iter()
                    .map(|part| (part.entity_type.to_string(), part.entity_name.as_ref().map(|name| name.to_string())))
                    .collect(),
                values: entry.values.iter().map(|value| (value.key.to_string(), value.value)).collect(),
            });
            let mut quotas: Vec<Quotas> = quotas.collect();
            quotas.sort_by(|a, b| a.entity.cmp(&b.entity));
            quotas
        }))
    }

    /// Sets quotas of an entity, all or none; `None` removes one.
    pub async fn alter_quotas(
        &mut self,
        entity: &QuotaEntity,
        changes: &[(String, Option<f64>)],
        validate_only: bool,
    ) -> Result<Result<(), Refusal>, ClientError> {
        let make = |_| {
            let parts = entity.iter().map(|(kind, name)| {
                EntityData::default().with_entity_type(text(kind)).with_entity_name(name.as_deref().map(text))
            });
            let ops = changes.iter().map(|(key, value)| {
                OpData::default().with_key(text(key)).with_value(value.unwrap_or(0.0)).with_remove(value.is_none())
            });
            let entry = EntryData::default().with_entity(parts.collect()).with_ops(ops.collect());
            AlterClientQuotasRequest::default().with_entries(vec![entry]).with_validate_only(validate_only)
        };
        let passes =
            |answer: &AlterClientQuotasResponse| answer.entries.iter().all(|entry| will_pass(entry.error_code));
        let answer = self.ask(To::Controller, make, passes).await?;
        let told = answer.entries.first().ok_or_else(|| silent("AlterClientQuotas", "the entity"))?;
        Ok(Refusal::check(told.error_code, told.error_message.as_deref()))
    }
}
