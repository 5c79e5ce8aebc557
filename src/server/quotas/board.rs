//! Use of their quotas by clients, over all shards of the broker.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use super::bucket::TokenBucket;
use super::registry::{Idle, Registry};
use super::window::{SampledRate, Windows};
use crate::cluster::quotas::{Limit, QuotaKind, Shared};
use crate::config::ServerConfig;
use crate::runtime::clock;

/// Clients of each kind of quota that are told apart. Names are theirs to choose; those beyond
/// share what one of them may use.
const MOST_CLIENTS: usize = 10_000;

/// Bytes of a client id that count.
pub const LONGEST_CLIENT_ID: usize = 256;

/// The clients that share a quota: its kind, and the user and client id, each empty
/// where it makes no difference.
type Sharers = (QuotaKind, Arc<str>, Arc<str>);

/// Shared by all shards. Looked up when a client is new to a shard.
pub struct QuotaBoard {
    windows: Windows,
    mutation_windows: Windows,
    rates: Registry<Sharers, SampledRate>,
    mutations: Registry<Sharers, Mutations>,
    addresses: Registry<IpAddr, SampledRate>,
}

/// Tokens for creations and deletions. Those take far longer than the lock.
#[derive(Debug)]
pub struct Mutations {
    tokens: Mutex<TokenBucket>,
    burst_ms: u64,
}

impl Idle for SampledRate {
    fn is_idle(&self, now_ms: u64) -> bool {
        SampledRate::is_idle(self, now_ms)
    }
}

impl Idle for Mutations {
    fn is_idle(&self, now_ms: u64) -> bool {
        self.with(|tokens, burst_ms| tokens.is_idle(now_ms, burst_ms))
    }
}

impl Mutations {
    fn with<R>(&self, work: impl FnOnce(&mut TokenBucket, u64) -> R) -> R {
        work(&mut self.tokens.lock().unwrap_or_else(PoisonError::into_inner), self.burst_ms)
    }

    pub fn take_strictly(&self, now_ms: u64, partitions: f64, per_second: f64) -> Result<(), u64> {
        self.with(|tokens, burst_ms| tokens.take_strictly(now_ms, partitions, per_second, burst_ms))
    }

    pub fn take(&self, now_ms: u64, partitions: f64, per_second: f64) -> u64 {
        self.with(|tokens, burst_ms| tokens.take(now_ms, partitions, per_second, burst_ms))
    }
}

/// The client that a limit is looked up for. Client ids with the same beginning
/// are told apart up to here.
fn sharers(kind: QuotaKind, limit: &Limit, user: &str, client: &str) -> Sharers {
    let client = &client[..client.floor_char_boundary(LONGEST_CLIENT_ID)];
    let (user, client) = match limit.shared {
        Shared::User => (user, ""),
        Shared::Client => ("", client),
        Shared::UserClient => (user, client),
    };
    (kind, user.into(), client.into())
}

impl QuotaBoard {
    pub fn new(config: &ServerConfig) -> Arc<QuotaBoard> {
        let seconds = |seconds: u32| u64::from(seconds).saturating_mul(1000);
        let windows = Windows { count: config.quota_window_num, length_ms: seconds(config.quota_window_size_seconds) };
        let mutation_windows = Windows {
            count: config.controller_quota_window_num,
            length_ms: seconds(config.controller_quota_window_size_seconds),
        };
        Arc::new(QuotaBoard {
            windows,
            mutation_windows,
            rates: Registry::new(MOST_CLIENTS, || SampledRate::new(windows)),
            mutations: Registry::new(MOST_CLIENTS, || Mutations::new(mutation_windows)),
            addresses: Registry::new(MOST_CLIENTS, || SampledRate::new(windows)),
        })
    }

    pub fn windows(&self) -> Windows {
        self.windows
    }

    pub fn rate(&self, kind: QuotaKind, limit: &Limit, user: &str, client: &str) -> Arc<SampledRate> {
        self.rates.of(sharers(kind, limit, user, client), clock::mono_ms(), || SampledRate::new(self.windows))
    }

    pub fn mutations(&self, limit: &Limit, user: &str, client: &str) -> Arc<Mutations> {
        let key = sharers(QuotaKind::Mutation, limit, user, client);
        self.mutations.of(key, clock::mono_ms(), || Mutations::new(self.mutation_windows))
    }

    /// Counts a connection from `address`, unless there have been too many: the time until there
    /// may be another, ms, a window at most.
    pub fn connect(&self, address: IpAddr, per_second: f64) -> Result<(), u64> {
        let now_ms = clock::mono_ms();
        let rate = self.addresses.of(address.to_canonical(), now_ms, || SampledRate::new(self.windows));
        match rate.excess_ms(now_ms, 1, per_second) {
            0 => {
                rate.add(now_ms, 1);
                Ok(())
            }
            excess_ms => Err(excess_ms.min(self.windows.length_ms)),
        }
    }
}

impl Mutations {
    fn new(windows: Windows) -> Mutations {
        Mutations { tokens: Mutex::default(), burst_ms: windows.all_ms() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::quotas::QuotaEntity;

    #[test]
    fn clients_share_what_their_quota_is_of() {
        let board = QuotaBoard::new(&ServerConfig::default());
        let rate = |shared, user: &str, client: &str| {
            let limit = Limit { rate: 1.0, shared, entity: QuotaEntity::User(None) };
            Arc::as_ptr(&board.rate(QuotaKind::Fetch, &limit, user, client))
        };
        assert_eq!(rate(Shared::User, "u", "a"), rate(Shared::User, "u", "b"));
        assert_ne!(rate(Shared::User, "u", "a"), rate(Shared::User, "v", "a"));
        assert_eq!(rate(Shared::Client, "u", "a"), rate(Shared::Client, "v", "a"));
        assert_ne!(rate(Shared::Client, "u", "a"), rate(Shared::Client, "u", "b"));
        assert_ne!(rate(Shared::UserClient, "u", "a"), rate(Shared::UserClient, "u", "b"));
        assert_ne!(rate(Shared::UserClient, "u", "a"), rate(Shared::Client, "u", "a"));
        let limit = Limit { rate: 1.0, shared: Shared::User, entity: QuotaEntity::User(None) };
        let produce = Arc::as_ptr(&board.rate(QuotaKind::Produce, &limit, "u", "a"));
        assert_ne!(produce, rate(Shared::User, "u", "a"));
    }

    #[test]
    fn connections_beyond_the_rate_wait_a_window_at_most() {
        let board = QuotaBoard::new(&ServerConfig::default());
        let (one, other) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let taken = (0..50).take_while(|_| board.connect(one, 2.0).is_ok()).count();
        assert!((20..24).contains(&taken), "{taken}: ten seconds' worth at once");
        assert!(board.connect(one, 2.0).is_err_and(|wait| (1..=1000).contains(&wait)));
        assert_eq!(board.connect(other, 2.0), Ok(()));
        assert_eq!(board.connect(one, 1000.0), Ok(()));
    }
}
