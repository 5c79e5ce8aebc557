//! One shard's view of client quotas: which holds for a client, kept by user and client id
//! until the quotas change.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::board::{LONGEST_CLIENT_ID, Mutations, QuotaBoard};
use super::call::QuotaCall;
use super::window::SampledRate;
use crate::cluster::quotas::{ClientQuotas, Limit, QuotaKind};
use crate::observe::metrics::{Throttling, ThrottlingOf};
use crate::server::peer::Client;
use crate::server::principal::Principal;
use crate::shard::{QuotaFlag, Shard};

/// Clients kept, of those whose ids are not very long; then all are looked up again.
const MOST_KEPT: usize = 1000;

/// One quota of a client: what it may use, and what it has used.
pub struct Held<S> {
    pub per_second: f64,
    pub used: Arc<S>,
    /// Of the metrics.
    pub throttling: Arc<ThrottlingOf>,
}

/// All quotas of a client.
pub struct ClientLimits {
    pub user: Box<str>,
    /// Its client id.
    pub client: Box<str>,
    pub produce: Option<Held<SampledRate>>,
    pub fetch: Option<Held<SampledRate>>,
    pub request: Option<Held<SampledRate>>,
    pub mutation: Option<Held<Mutations>>,
}

pub struct Quotas {
    shard: Rc<Shard>,
    board: Arc<QuotaBoard>,
    kept: RefCell<Kept>,
}

#[derive(Default)]
struct Kept {
    quotas: Arc<ClientQuotas>,
    by_user: HashMap<String, HashMap<String, Rc<ClientLimits>>>,
    /// Clients of all users.
    clients: usize,
}

impl Kept {
    /// The limits of a client as long as these quotas hold; those of one that is not known are
    /// looked up.
    fn limits(
        &mut self,
        quotas: &Arc<ClientQuotas>,
        (user, client): (&str, &str),
        look_up: impl FnOnce() -> ClientLimits,
    ) -> Rc<ClientLimits> {
        if !Arc::ptr_eq(&self.quotas, quotas) || self.clients >= MOST_KEPT {
            *self = Kept { quotas: quotas.clone(), ..Kept::default() };
        }
        if let Some(limits) = self.by_user.get(user).and_then(|clients| clients.get(client)) {
            return limits.clone();
        }
        let limits = Rc::new(look_up());
        if client.len() <= LONGEST_CLIENT_ID {
            let clients = self.by_user.entry(user.to_owned()).or_default();
            clients.insert(client.to_owned(), limits.clone());
            self.clients += 1;
        }
        limits
    }
}

impl Quotas {
    pub fn new(shard: Rc<Shard>, board: Arc<QuotaBoard>) -> Quotas {
        Quotas { shard, board, kept: RefCell::default() }
    }

    pub fn flag(&self) -> &Rc<QuotaFlag> {
        self.shard.quota_flag()
    }

    /// A request's part; `None`: no quota holds for its client.
    pub fn call(&self, client: &Client, client_id: Option<&str>) -> Option<Rc<QuotaCall>> {
        if !self.flag().is_set() {
            return None;
        }
        let limits = self.limits(&client.principal, client_id.unwrap_or_default())?;
        Some(Rc::new(QuotaCall::new(limits, self.board.windows(), (client.mute.clone(), self.shard.clone()))))
    }

    fn limits(&self, principal: &Principal, client: &str) -> Option<Rc<ClientLimits>> {
        let image = self.shard.image();
        let throttling = &self.shard.metrics().throttling;
        let of = (&*principal.name, client);
        let look_up = || look_up(&image.quotas, &self.board, throttling, of);
        let limits = self.kept.borrow_mut().limits(&image.quotas, of, look_up);
        let any = limits.produce.is_some() || limits.fetch.is_some() || limits.request.is_some();
        (any || limits.mutation.is_some()).then_some(limits)
    }

    /// Counts a connection; an error is the time after which it is to be closed
    /// instead, ms (KIP-612).
    pub fn connect(&self, address: IpAddr) -> Result<(), u64> {
        if !self.flag().is_set() {
            return Ok(());
        }
        match self.shard.image().quotas.connection_rate(address) {
            None => Ok(()),
            Some(per_second) => self.board.connect(address, per_second).inspect_err(|wait_ms| {
                let throttling = &self.shard.metrics().throttling;
                throttling.of(QuotaKind::Connection.key(), "ip").note(*wait_ms);
            }),
        }
    }
}

/// Rate that a client may use now; `None`: no limit.
pub fn rate(shard: &Shard, kind: QuotaKind, client: &ClientLimits) -> Option<f64> {
    shard.image().quotas.limit(kind, &client.user, &client.client).map(|limit| limit.rate)
}

fn look_up(
    quotas: &ClientQuotas,
    board: &QuotaBoard,
    throttling: &Throttling,
    (user, client): (&str, &str),
) -> ClientLimits {
    let limit = |kind| quotas.limit(kind, user, client);
    let told = |kind: QuotaKind, limit: &Limit| throttling.of(kind.key(), &limit.entity.to_string());
    let rate = |kind| {
        limit(kind).map(|limit| Held {
            per_second: limit.rate,
            used: board.rate(kind, &limit, user, client),
            throttling: told(kind, &limit),
        })
    };
    ClientLimits {
        user: user.into(),
        client: client.into(),
        produce: rate(QuotaKind::Produce),
        fetch: rate(QuotaKind::Fetch),
        request: rate(QuotaKind::Request),
        mutation: limit(QuotaKind::Mutation).map(|limit| Held {
            per_second: limit.rate,
            used: board.mutations(&limit, user, client),
            throttling: told(QuotaKind::Mutation, &limit),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(user: &str, client: &str) -> ClientLimits {
        let (user, client) = (user.into(), client.into());
        ClientLimits { user, client, produce: None, fetch: None, request: None, mutation: None }
    }

    #[test]
    fn limits_are_kept_by_user_and_client_until_the_quotas_change() {
        let (mut kept, first, second) = (Kept::default(), Arc::default(), Arc::default());
        let mut looked_up = |quotas: &Arc<ClientQuotas>, user: &str, client: &str| {
            let mut looked_up = false;
            let found = kept.limits(quotas, (user, client), || {
                looked_up = true;
                limits(user, client)
            });
            assert_eq!((&*found.user, &*found.client), (user, client));
            looked_up
        };
        assert!(looked_up(&first, "ANONYMOUS", "app") && !looked_up(&first, "ANONYMOUS", "app"));
        assert!(looked_up(&first, "alice", "app"), "another user with the same client id");
        assert!(!looked_up(&first, "ANONYMOUS", "app") && !looked_up(&first, "alice", "app"));
        assert!(looked_up(&second, "alice", "app"), "other quotas");
        let long = "x".repeat(LONGEST_CLIENT_ID + 1);
        assert!(looked_up(&second, "alice", &long) && looked_up(&second, "alice", &long), "not kept");
        for other in 0..MOST_KEPT {
            assert!(looked_up(&second, if other % 2 == 0 { "alice" } else { "bob" }, &other.to_string()));
        }
        assert!(looked_up(&second, "alice", "app"), "too many: all are looked up again");
    }
}
