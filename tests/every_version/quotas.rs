//! DescribeClientQuotas, AlterClientQuotas.

use kafka_protocol::messages::alter_client_quotas_request::{EntityData, EntryData, OpData};
use kafka_protocol::messages::describe_client_quotas_request::ComponentData;
use kafka_protocol::messages::{AlterClientQuotasRequest, DescribeClientQuotasRequest};
use kafka_protocol::protocol::StrBytes;

use crate::support::world::World;

const UNSUPPORTED_VERSION: i16 = 35;
const INVALID_REQUEST: i16 = 42;

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

/// Sets a quota of a client id that nobody has, or removes it.
fn entry(client_id: &'static str, remove: bool) -> EntryData {
    let part = EntityData::default().with_entity_type(text("client-id")).with_entity_name(Some(text(client_id)));
    let op = OpData::default().with_key(text("producer_byte_rate")).with_value(1e6).with_remove(remove);
    EntryData::default().with_entity(vec![part]).with_ops(vec![op])
}

pub fn alter_client_quotas(world: &mut World, version: i16) {
    let (good, wrong) = ("nobody", "");
    for (only, remove) in [(true, false), (false, false), (false, false), (false, true), (false, true)] {
        let request = AlterClientQuotasRequest::default()
            .with_entries(vec![entry(good, remove), entry(wrong, remove)])
            .with_validate_only(only);
        let response = world.client.call(version, &request);
        let told: Vec<_> = response
            .entries
            .iter()
            .map(|entry| (entry.entity[0].entity_name.as_deref(), entry.error_code, entry.error_message.is_some()))
            .collect();
        assert_eq!(told, [(Some(good), 0, false), (Some(wrong), INVALID_REQUEST, true)]);
        let set = world.client.call(0, &DescribeClientQuotasRequest::default()).entries.unwrap_or_default();
        assert_eq!(set.len(), usize::from(!only && !remove));
    }
}

pub fn describe_client_quotas(world: &mut World, version: i16) {
    let component = |entity_type, match_type, name: Option<&'static str>| {
        let component = ComponentData::default().with_entity_type(text(entity_type)).with_match_type(match_type);
        component.with_match(name.map(text))
    };
    let set = |world: &mut World, remove| {
        let request = AlterClientQuotasRequest::default().with_entries(vec![entry("nobody", remove)]);
        assert_eq!(world.client.call(1, &request).entries[0].error_code, 0);
    };
    set(world, false);
    let cases = [
        (vec![], 0, 1),
        (vec![component("client-id", 2, None)], 0, 1),
        (vec![component("client-id", 0, Some("nobody"))], 0, 1),
        (vec![component("client-id", 1, None)], 0, 0),
        (vec![component("user", 2, None), component("client-id", 1, None)], 0, 0),
        (vec![component("ip", 0, Some("10.0.0.1"))], 0, 0),
        (vec![component("", 2, None)], INVALID_REQUEST, 0),
        (vec![component("user", 9, None)], INVALID_REQUEST, 0),
        (vec![component("user", 0, None)], INVALID_REQUEST, 0),
        (vec![component("user", 1, Some("a"))], INVALID_REQUEST, 0),
        (vec![component("user", 0, Some("a")), component("user", 0, Some("b"))], INVALID_REQUEST, 0),
        (vec![component("user", 0, Some("a")), component("ip", 2, None)], INVALID_REQUEST, 0),
        (vec![component("host", 2, None)], UNSUPPORTED_VERSION, 0),
    ];
    for (components, code, count) in cases {
        let request = DescribeClientQuotasRequest::default().with_components(components.clone());
        let response = world.client.call(version, &request);
        assert_eq!(response.error_code, code, "{components:?}");
        assert_eq!(response.entries.map(|entries| entries.len()), (code == 0).then_some(count), "{components:?}");
    }
    set(world, true);
}
