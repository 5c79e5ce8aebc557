//! Client quotas (KIP-13, KIP-124, KIP-546, KIP-599, KIP-612): whom they are set for, and which of
//! them holds for a client. Pure.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

/// Name of a user, client id or address. `None`: the default of those that have no quota by name.
pub type EntityName = Option<Arc<str>>;

/// Whom quotas are set for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QuotaEntity {
    User(EntityName),
    Client(EntityName),
    UserClient(EntityName, EntityName),
    /// An address as it was written.
    Ip(EntityName),
}

pub const USER: &str = "user";
pub const CLIENT_ID: &str = "client-id";
pub const IP: &str = "ip";

impl QuotaEntity {
    /// The first of all in order.
    pub const FIRST: QuotaEntity = QuotaEntity::User(None);

    /// Entity types by Kafka's name, with the name in each.
    pub fn parts(&self) -> Vec<(&'static str, EntityName)> {
        match self {
            QuotaEntity::User(user) => vec![(USER, user.clone())],
            QuotaEntity::Client(client) => vec![(CLIENT_ID, client.clone())],
            QuotaEntity::UserClient(user, client) => vec![(USER, user.clone()), (CLIENT_ID, client.clone())],
            QuotaEntity::Ip(ip) => vec![(IP, ip.clone())],
        }
    }

    /// The entity of these types, which are of those that [`parts`](Self::parts) gives; `None`:
    /// nothing is of all of them.
    pub fn of(parts: &BTreeMap<String, EntityName>) -> Option<QuotaEntity> {
        let part = |kind| parts.get(kind).cloned();
        match (part(USER), part(CLIENT_ID), part(IP)) {
            (Some(user), None, None) => Some(QuotaEntity::User(user)),
            (None, Some(client), None) => Some(QuotaEntity::Client(client)),
            (Some(user), Some(client), None) => Some(QuotaEntity::UserClient(user, client)),
            (None, None, Some(ip)) => Some(QuotaEntity::Ip(ip)),
            _ => None,
        }
    }
}

/// As labels show it: `user=a,client-id=<default>`.
impl std::fmt::Display for QuotaEntity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (at, (kind, name)) in self.parts().iter().enumerate() {
            let comma = if at > 0 { "," } else { "" };
            write!(f, "{comma}{kind}={}", name.as_deref().unwrap_or("<default>"))?;
        }
        Ok(())
    }
}

/// A quantity that is limited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QuotaKind {
    /// Bytes of Produce requests a second.
    Produce,
    /// Bytes of Fetch answers a second.
    Fetch,
    /// Time of shards that requests take, in percent of one shard.
    Request,
    /// Partitions created and deleted a second.
    Mutation,
    /// Connections of an address a second.
    Connection,
}

impl QuotaKind {
    /// Those of users and client ids.
    pub const OF_CLIENTS: [QuotaKind; 4] =
        [QuotaKind::Produce, QuotaKind::Fetch, QuotaKind::Request, QuotaKind::Mutation];
    const ALL: [QuotaKind; 5] =
        [QuotaKind::Produce, QuotaKind::Fetch, QuotaKind::Request, QuotaKind::Mutation, QuotaKind::Connection];

    /// Kafka's quota key.
    pub fn key(self) -> &'static str {
        match self {
            QuotaKind::Produce => "producer_byte_rate",
            QuotaKind::Fetch => "consumer_byte_rate",
            QuotaKind::Request => "request_percentage",
            QuotaKind::Mutation => "controller_mutation_rate",
            QuotaKind::Connection => "connection_creation_rate",
        }
    }

    pub fn by_key(key: &str) -> Option<QuotaKind> {
        QuotaKind::ALL.into_iter().find(|kind| kind.key() == key)
    }

    /// An entity of this type can have it.
    pub fn is_of(self, entity: &QuotaEntity) -> bool {
        matches!(entity, QuotaEntity::Ip(_)) == (self == QuotaKind::Connection)
    }

    /// The largest value; `None`: fractions are fine, and there is none.
    pub fn largest(self) -> Option<(f64, &'static str)> {
        match self {
            QuotaKind::Produce | QuotaKind::Fetch => Some((i64::MAX as f64, "a LONG")),
            QuotaKind::Connection => Some((f64::from(i32::MAX), "an INT")),
            QuotaKind::Request | QuotaKind::Mutation => None,
        }
    }
}

/// Quotas of one entity.
pub type QuotaValues = BTreeMap<QuotaKind, f64>;

/// The clients that share what a quota gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Shared {
    /// All clients of the user.
    User,
    /// All with the client id, of whatever user.
    Client,
    /// Those of the user with the client id.
    UserClient,
}

/// The quota that holds for a client.
#[derive(Clone, Debug, PartialEq)]
pub struct Limit {
    pub rate: f64,
    pub shared: Shared,
    /// Whom it was set for.
    pub entity: QuotaEntity,
}

/// All quotas. Entities without any are not in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ClientQuotas {
    entities: BTreeMap<QuotaEntity, QuotaValues>,
    addresses: BTreeMap<IpAddr, f64>,
}

impl ClientQuotas {
    /// Quotas as they are stored. What is no quota, such as a user's credentials, is left out.
    pub fn new<'a>(stored: impl IntoIterator<Item = (&'a QuotaEntity, &'a BTreeMap<String, String>)>) -> ClientQuotas {
        let mut quotas = ClientQuotas::default();
        for (entity, options) in stored {
            let values: QuotaValues = options.iter().filter_map(|(key, text)| value(entity, key, text)).collect();
            if values.is_empty() {
                continue;
            }
            if let (QuotaEntity::Ip(Some(name)), Some(rate)) = (entity, values.get(&QuotaKind::Connection)) {
                match name.parse::<IpAddr>() {
                    Ok(address) => drop(quotas.addresses.insert(address.to_canonical(), *rate)),
                    Err(_) => tracing::warn!("a quota without effect: {entity} is no address"),
                }
            }
            quotas.entities.insert(entity.clone(), values);
        }
        quotas
    }

    pub fn is_empty(&self) -> bool {
        self.entities.is_empty()
    }

    pub fn len(&self) -> usize {
        self.entities.len()
    }

    pub fn all(&self) -> impl Iterator<Item = (&QuotaEntity, &QuotaValues)> {
        self.entities.iter()
    }

    pub fn of(&self, entity: &QuotaEntity) -> Option<&QuotaValues> {
        self.entities.get(entity)
    }

    /// The quota of a client of `user`, by Kafka's precedence: from the most specific entity to the
    /// least, users before client ids. A client without an id has none by client id.
    pub fn limit(&self, kind: QuotaKind, user: &str, client: &str) -> Option<Limit> {
        let user = || Some(Arc::<str>::from(user));
        let client = (!client.is_empty()).then(|| Some(Arc::<str>::from(client)));
        let both = |user: EntityName, client: &Option<EntityName>, named: bool| {
            let client = client.clone()?;
            Some((QuotaEntity::UserClient(user, client.filter(|_| named)), Shared::UserClient))
        };
        let one = |client: &Option<EntityName>, named: bool| {
            let client = client.clone()?;
            Some((QuotaEntity::Client(client.filter(|_| named)), Shared::Client))
        };
        let in_order = [
            both(user(), &client, true),
            both(user(), &client, false),
            Some((QuotaEntity::User(user()), Shared::User)),
            both(None, &client, true),
            both(None, &client, false),
            Some((QuotaEntity::User(None), Shared::User)),
            one(&client, true),
            one(&client, false),
        ];
        in_order.into_iter().flatten().find_map(|(entity, shared)| {
            let rate = *self.of(&entity)?.get(&kind)?;
            Some(Limit { rate, shared, entity })
        })
    }

    /// Connections a second from this address; `None`: as many as come.
    pub fn connection_rate(&self, address: IpAddr) -> Option<f64> {
        let default = || self.of(&QuotaEntity::Ip(None))?.get(&QuotaKind::Connection);
        self.addresses.get(&address.to_canonical()).or_else(default).copied()
    }
}

fn value(entity: &QuotaEntity, key: &str, text: &str) -> Option<(QuotaKind, f64)> {
    let kind = QuotaKind::by_key(key).filter(|kind| kind.is_of(entity))?;
    match text.trim().parse::<f64>() {
        Ok(value) if value > 0.0 => Some((kind, value)),
        _ => {
            tracing::warn!("a quota without effect: {key}={text} of {entity}");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub fn name(text: &str) -> EntityName {
        (text != "*").then(|| text.into())
    }

    fn quotas(of: &[(QuotaEntity, &str, &str)]) -> ClientQuotas {
        let mut stored: BTreeMap<QuotaEntity, BTreeMap<String, String>> = BTreeMap::new();
        for (entity, key, value) in of {
            stored.entry(entity.clone()).or_default().insert(key.to_string(), value.to_string());
        }
        ClientQuotas::new(&stored)
    }

    #[test]
    fn the_most_specific_quota_holds() {
        let of = [
            QuotaEntity::UserClient(name("u"), name("c")),
            QuotaEntity::UserClient(name("u"), None),
            QuotaEntity::User(name("u")),
            QuotaEntity::UserClient(None, name("c")),
            QuotaEntity::UserClient(None, None),
            QuotaEntity::User(None),
            QuotaEntity::Client(name("c")),
            QuotaEntity::Client(None),
        ];
        let rates: Vec<String> = (1..=of.len()).map(|rate| rate.to_string()).collect();
        for first in 0..=of.len() {
            let set: Vec<_> = of[first..].iter().zip(&rates[first..]).collect();
            let set: Vec<_> = set.into_iter().map(|(of, rate)| (of.clone(), "producer_byte_rate", &**rate)).collect();
            let limit = quotas(&set).limit(QuotaKind::Produce, "u", "c");
            assert_eq!(limit.as_ref().map(|limit| &limit.entity), of.get(first));
            assert_eq!(limit.map(|limit| limit.rate), of.get(first).map(|_| (first + 1) as f64));
            assert_eq!(quotas(&set).limit(QuotaKind::Fetch, "u", "c"), None, "another kind");
        }
        let all: Vec<_> = of.iter().zip(&rates).map(|(of, rate)| (of.clone(), "request_percentage", &**rate)).collect();
        let rate = |user: &str, client: &str| {
            quotas(&all).limit(QuotaKind::Request, user, client).map(|limit| (limit.rate, limit.shared))
        };
        assert_eq!(rate("u", "other"), Some((2.0, Shared::UserClient)));
        assert_eq!(rate("other", "c"), Some((4.0, Shared::UserClient)));
        assert_eq!(rate("other", "other"), Some((5.0, Shared::UserClient)));
        assert_eq!(rate("u", ""), Some((3.0, Shared::User)), "without a client id");
        assert_eq!(rate("other", ""), Some((6.0, Shared::User)));
        let clients = quotas(&[(QuotaEntity::Client(None), "request_percentage", "5")]);
        assert_eq!(clients.limit(QuotaKind::Request, "u", ""), None);
        assert_eq!(clients.limit(QuotaKind::Request, "u", "c").map(|limit| limit.shared), Some(Shared::Client));
    }

    #[test]
    fn addresses_have_their_own_rate_or_the_default() {
        let key = "connection_creation_rate";
        let of = |ip: &str| QuotaEntity::Ip(name(ip));
        let quotas = quotas(&[(of("10.0.0.1"), key, "5"), (of("0:0::1"), key, "6"), (of("a.host"), key, "9")]);
        let rate = |quotas: &ClientQuotas, ip: &str| quotas.connection_rate(ip.parse().unwrap());
        assert_eq!(rate(&quotas, "::ffff:10.0.0.1"), Some(5.0));
        assert_eq!((rate(&quotas, "::1"), rate(&quotas, "10.0.0.2")), (Some(6.0), None));
        let with_default = self::quotas(&[(of("10.0.0.1"), key, "5"), (of("*"), key, "7")]);
        assert_eq!((rate(&with_default, "10.0.0.1"), rate(&with_default, "10.0.0.2")), (Some(5.0), Some(7.0)));
    }

    #[test]
    fn what_is_no_quota_is_left_out() {
        let user = QuotaEntity::User(name("u"));
        let stored = [
            (user.clone(), "SCRAM-SHA-256", "salt=x"),
            (user.clone(), "connection_creation_rate", "5"),
            (user.clone(), "producer_byte_rate", "fast"),
            (user.clone(), "consumer_byte_rate", "-1"),
        ];
        assert!(quotas(&stored).is_empty());
        let quotas = quotas(&[(user.clone(), "request_percentage", "1.5E2"), (user.clone(), "x", "1")]);
        assert_eq!(quotas.of(&user), Some(&QuotaValues::from([(QuotaKind::Request, 150.0)])));
    }
}
