//! One shard's view of client quotas: which holds for a client, kept by client id until the quotas change.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::board::{LONGEST_CLIENT_ID, Mutations, QuotaBoard};
use super::call::QuotaCall;
use super::mute::Mute;
use super::window::SampledRate;
use crate::cluster::quotas::{ClientQuotas, Limit, QuotaKind};
use crate::observe::metrics::{Throttling, ThrottlingOf};
use crate::shard::{QuotaFlag, Shard};

/// The user of every connection, as Kafka names one that was not authenticated.
const ANONYMOUS: &str = "ANONYMOUS";
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
    /// Its id.
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
    by_client: HashMap<String, Rc<ClientLimits>>,
}

impl Quotas {
    pub fn new(shard: Rc<Shard>, board: Arc<QuotaBoard>) -> Quotas {
        Quotas { shard, board, kept: RefCell::default() }
    }

    pub fn flag(&self) -> &Rc<QuotaFlag> {
        self.shard.quota_flag()
    }

    /// A request's part; `None`: no quota holds for its client.
    pub fn call(&self, client_id: Option<&str>, mute: &Rc<Mute>) -> Option<Rc<QuotaCall>> {
        if !self.flag().is_set() {
            return None;
        }
        let limits = self.limits(client_id.unwrap_or_default())?;
        Some(Rc::new(QuotaCall::new(limits, self.board.windows(), (mute.clone(), self.shard.clone()))))
    }

    fn limits(&self, client: &str) -> Option<Rc<ClientLimits>> {
        let image = self.shard.image();
        let kept = &mut *self.kept.borrow_mut();
        if !Arc::ptr_eq(&kept.quotas, &image.quotas) || kept.by_client.len() >= MOST_KEPT {
            kept.by_client.clear();
            kept.quotas = image.quotas.clone();
        }
        let limits = match kept.by_client.get(client) {
            Some(limits) => limits.clone(),
            None => {
                let limits = Rc::new(look_up(&kept.quotas, &self.board, &self.shard.metrics().throttling, client));
                if client.len() <= LONGEST_CLIENT_ID {
                    kept.by_client.insert(client.to_owned(), limits.clone());
                }
                limits
            }
        };
        let any = limits.produce.is_some() || limits.fetch.is_some() || limits.request.is_some();
        (any || limits.mutation.is_some()).then_some(limits)
    }

    /// Counts a connection; an error is the time after which it is to be closed instead, ms (KIP-612).
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

/// What a client may use of it now; `None`: as much as it likes.
pub fn rate(shard: &Shard, kind: QuotaKind, client: &str) -> Option<f64> {
    shard.image().quotas.limit(kind, ANONYMOUS, client).map(|limit| limit.rate)
}

fn look_up(quotas: &ClientQuotas, board: &QuotaBoard, throttling: &Throttling, client: &str) -> ClientLimits {
    let limit = |kind| quotas.limit(kind, ANONYMOUS, client);
    let told = |kind: QuotaKind, limit: &Limit| throttling.of(kind.key(), &limit.entity.to_string());
    let rate = |kind| {
        limit(kind).map(|limit| Held {
            per_second: limit.rate,
            used: board.rate(kind, &limit, ANONYMOUS, client),
            throttling: told(kind, &limit),
        })
    };
    ClientLimits {
        client: client.into(),
        produce: rate(QuotaKind::Produce),
        fetch: rate(QuotaKind::Fetch),
        request: rate(QuotaKind::Request),
        mutation: limit(QuotaKind::Mutation).map(|limit| Held {
            per_second: limit.rate,
            used: board.mutations(&limit, ANONYMOUS, client),
            throttling: told(QuotaKind::Mutation, &limit),
        }),
    }
}
