//! AlterClientQuotas and DescribeClientQuotas, pure: what is set and a request give what is to
//! be set, or Kafka's error.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use super::controller::ControlError;
use super::quotas::{CLIENT_ID, ClientQuotas, EntityName, IP, QuotaEntity, QuotaKind, USER};
use crate::model::ErrorCode;

/// Most entities with quotas. Kafka has no such bound.
const MAX_ENTITIES: usize = 10_000;
/// Longest name in an entity, bytes. Kafka has no such bound.
const MAX_NAME_BYTES: usize = 1024;

/// Entity as a request names it, by type. `None`: the default.
pub type NamedEntity = BTreeMap<String, Option<String>>;

/// One entry of an AlterClientQuotas request.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AlterQuotas {
    pub entity: NamedEntity,
    /// By quota key; `None` removes it.
    pub ops: Vec<(String, Option<f64>)>,
}

/// Options of one entity as they are stored, quotas and what else stands there.
type Options = BTreeMap<String, String>;

/// Outcome of a request.
#[derive(Debug, Default)]
pub struct Planned {
    /// Each entity of the request once, in its order.
    pub outcomes: Vec<(NamedEntity, Result<(), ControlError>)>,
    /// Entities whose options are others then.
    pub writes: BTreeMap<QuotaEntity, Options>,
}

fn invalid<T>(message: impl Into<String>) -> Result<T, ControlError> {
    Err(ControlError::new(ErrorCode::InvalidRequest, message))
}

/// Plans a request. `stored`: an entity's options, empty where there are none. `set`: quotas so
/// far. What is wrong with one entity is no matter of the others.
pub fn plan(requests: &[AlterQuotas], set: &ClientQuotas, stored: impl Fn(&QuotaEntity) -> Options) -> Planned {
    let mut planned = Planned::default();
    let mut places: BTreeMap<&NamedEntity, usize> = BTreeMap::new();
    let mut entities: BTreeSet<QuotaEntity> = set.all().map(|(entity, _)| entity.clone()).collect();
    for request in requests {
        if let Some(known) = places.get(&request.entity) {
            // As in Kafka, the first of them is carried out.
            planned.outcomes[*known].1 = invalid(format!("Ignoring duplicate entity {}", shown(&request.entity)));
            continue;
        }
        let outcome = altered(request, &stored, &mut entities).map(|change| planned.writes.extend(change));
        places.insert(&request.entity, planned.outcomes.len());
        planned.outcomes.push((request.entity.clone(), outcome));
    }
    planned
}

/// The options that an entity is to have, if they are others than before.
fn altered(
    request: &AlterQuotas,
    stored: impl Fn(&QuotaEntity) -> Options,
    entities: &mut BTreeSet<QuotaEntity>,
) -> Result<Option<(QuotaEntity, Options)>, ControlError> {
    let mut ops: BTreeMap<&str, Option<f64>> = BTreeMap::new();
    for (key, value) in &request.ops {
        if ops.insert(key, *value).is_some() {
            let entity = shown(&request.entity);
            return invalid(format!("Duplicate quota key {key} not updating quota for this entity {entity}"));
        }
    }
    let entity = entity_of(&request.entity)?;
    let before = stored(&entity);
    let mut after = before.clone();
    for (key, value) in ops {
        match value {
            // A quota that is not set can be removed, whatever it is.
            None => {
                if QuotaKind::by_key(key).is_some() {
                    after.remove(key);
                }
            }
            Some(value) => {
                let text = check(&entity, key, value)?;
                if before.get(key).and_then(|text| text.parse().ok()) != Some(value) {
                    after.insert(key.to_owned(), text);
                }
            }
        }
    }
    if after.keys().any(|key| QuotaKind::by_key(key).is_some()) {
        if entities.len() >= MAX_ENTITIES && !entities.contains(&entity) {
            let message = format!("There are quotas for {MAX_ENTITIES} entities, which is the most.");
            return Err(ControlError::new(ErrorCode::PolicyViolation, message));
        }
        entities.insert(entity.clone());
    } else {
        entities.remove(&entity);
    }
    Ok((after != before).then_some((entity, after)))
}

fn shown(entity: &NamedEntity) -> String {
    let parts = entity.iter().map(|(kind, name)| format!("{kind}={}", name.as_deref().unwrap_or("<default>")));
    parts.collect::<Vec<_>>().join(",")
}

/// The entity that a request names.
fn entity_of(named: &NamedEntity) -> Result<QuotaEntity, ControlError> {
    if named.is_empty() {
        return invalid("Invalid empty client quota entity");
    }
    let mut parts: BTreeMap<String, EntityName> = BTreeMap::new();
    for (kind, name) in named {
        if ![USER, CLIENT_ID, IP].contains(&kind.as_str()) {
            return invalid(format!("Unhandled client quota entity type: {kind}"));
        }
        match name {
            Some(name) if name.is_empty() => return invalid(format!("Empty {kind} not supported")),
            Some(name) if name.len() > MAX_NAME_BYTES => {
                return invalid(format!("The {kind} has {} bytes; at most {MAX_NAME_BYTES} are taken", name.len()));
            }
            name => drop(parts.insert(kind.clone(), name.as_deref().map(Into::into))),
        }
    }
    let Some(entity) = QuotaEntity::of(&parts) else {
        return invalid(
            "Invalid quota entity combination, IP entity should not be combined with User or ClientId".to_owned(),
        );
    };
    match &entity {
        QuotaEntity::Ip(Some(name)) if name.parse::<IpAddr>().is_err() => {
            invalid(format!("{name} is not a valid IP or resolvable host."))
        }
        _ => Ok(entity),
    }
}

/// The text of a value that the entity can have.
fn check(entity: &QuotaEntity, key: &str, value: f64) -> Result<String, ControlError> {
    let Some(kind) = QuotaKind::by_key(key).filter(|kind| kind.is_of(entity)) else {
        return invalid(format!("Invalid configuration key {key}"));
    };
    if value.is_nan() || value <= 0.0 {
        return invalid(format!("Quota {key} must be greater than 0"));
    }
    match kind.largest() {
        Some((largest, what)) if value > largest => {
            invalid(format!("Proposed value for {key} is too large for {what}."))
        }
        Some(_) if value % 1.0 > 1e-6 => invalid(format!("{key} cannot be a fractional value.")),
        Some(_) => Ok((value as i64).to_string()),
        // As Java writes it.
        None if value.is_infinite() => Ok("Infinity".to_owned()),
        None => Ok(format!("{value:?}")),
    }
}

/// How a filter matches the name in one entity type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    Exact(String),
    Default,
    /// Any name, and the default.
    Specified,
}

/// One component of a DescribeClientQuotas request as it came: entity type, match type, name.
pub type Component = (String, i8, Option<String>);

/// Filter of a DescribeClientQuotas request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuotaFilter {
    by_type: BTreeMap<String, Match>,
    /// Entities have no other types than those.
    strict: bool,
}

impl QuotaFilter {
    pub fn new(components: Vec<Component>, strict: bool) -> Result<QuotaFilter, ControlError> {
        let mut by_type = BTreeMap::new();
        for (kind, match_type, name) in components {
            if kind.is_empty() {
                return invalid("Invalid empty entity type.");
            }
            if by_type.contains_key(&kind) {
                return invalid(format!("Entity type {kind} cannot appear more than once in the filter."));
            }
            if ![USER, CLIENT_ID, IP].contains(&kind.as_str()) {
                let message = format!("Unsupported entity type {kind}");
                return Err(ControlError::new(ErrorCode::UnsupportedVersion, message));
            }
            let matched = match (match_type, name) {
                (0, Some(name)) => Match::Exact(name),
                (0, None) => return invalid("Request specified MATCH_TYPE_EXACT, but set match string to null."),
                (1, None) => Match::Default,
                (1, Some(_)) => {
                    return invalid("Request specified MATCH_TYPE_DEFAULT, but also specified a match string.");
                }
                (2, None) => Match::Specified,
                (2, Some(_)) => {
                    return invalid("Request specified MATCH_TYPE_SPECIFIED, but also specified a match string.");
                }
                (other, _) => return invalid(format!("Unknown match type {other}")),
            };
            by_type.insert(kind, matched);
        }
        if by_type.contains_key(IP) && by_type.len() > 1 {
            return invalid(
                "Invalid entity filter component combination. IP filter component should not be used with user or clientId \
                 filter component.",
            );
        }
        Ok(QuotaFilter { by_type, strict })
    }

    pub fn matches(&self, entity: &QuotaEntity) -> bool {
        let parts = entity.parts();
        if self.strict && parts.len() != self.by_type.len() {
            return false;
        }
        self.by_type.iter().all(|(kind, matched)| {
            let part = parts.iter().find(|(own, _)| own == kind);
            part.is_some_and(|(_, name)| match matched {
                Match::Exact(wanted) => name.as_deref() == Some(wanted.as_str()),
                Match::Default => name.is_none(),
                Match::Specified => true,
            })
        })
    }
}

#[cfg(test)]
#[path = "quota_requests_tests.rs"]
mod tests;
