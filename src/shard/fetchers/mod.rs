//! The follower's side between brokers: one fetcher for each broker that leads partitions of this shard.

mod plan;

pub use plan::{FetchPlan, Limits, Mismatch, PATIENCE_MS, Taken};

#[cfg(test)]
mod plan_tests;
