//! The follower's side between brokers: one fetcher for each broker that leads
//! partitions of this shard.

mod all;
mod fetcher;
mod host;
mod plan;

pub use all::{Fetchers, Host, Settings};
pub(super) use host::host;

#[cfg(test)]
mod fetch_tests;
#[cfg(test)]
mod plan_tests;
