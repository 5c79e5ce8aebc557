//! The user that a connection's requests are made by.

use std::borrow::Cow;

/// A `KafkaPrincipal` of the type User: whose quotas hold, and who will be asked about by an
/// authorizer. It stands for `User:NAME` in Kafka's ACLs and logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub name: Cow<'static, str>,
}

impl Principal {
    /// Of a connection that has not been authenticated: `User:ANONYMOUS`. As long as all listeners
    /// are PLAINTEXT, that is each.
    pub const ANONYMOUS: Principal = Principal { name: Cow::Borrowed("ANONYMOUS") };
}
