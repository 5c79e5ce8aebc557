//! Corelane: a message broker that speaks the Apache Kafka wire protocol, one
//! io_uring event loop per core.
//!
//! Reading order: [`model`] (the words), [`runtime`] (the only place that touches the operating
//! system), [`storage`] (one partition's bytes), [`partition`] (one replica's rules), [`shard`]
//! (one core), [`server`] (sockets to handlers). `docs/ARCHITECTURE.md` is the map with its
//! invariants; `tests/tidy.rs` holds the layers to it.

pub mod bench;
pub mod cli;
pub mod client;
pub mod cluster;
pub mod config;
pub mod console;
pub mod coordinator;
pub mod groups;
pub mod model;
pub mod monitor;
pub mod observe;
pub mod partition;
pub mod protocol;
pub mod runtime;
pub mod server;
pub mod shard;
#[cfg(any(test, feature = "simulator"))]
pub mod simulator;
pub mod storage;
pub mod transactions;
pub mod tune;
