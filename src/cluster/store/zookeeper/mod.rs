//! The engine over a ZooKeeper ensemble: a client on a thread of its own, which keeps a copy of
//! what the store has there.

mod client;
mod connect;
mod control;
mod pipeline;
mod plan;
mod settings;
mod tree;

#[cfg(test)]
mod tests;

pub use client::{Bell, RoundTrips, ZooKeeper};
pub use settings::{ConnectString, OpenError, Settings};
