//! Kafka clients. The cores (`core`, `api`) do no I/O; `connection` drives them on
//! [`runtime`](crate::runtime), `admin` is what is asked about topics on one connection,
//! `cluster_client` asks a whole cluster for the command line, `leader` is a follower's connection.
//! `producer`, `consumer` and `group_member` stand on the same parts.

pub mod admin;
pub mod api;
pub mod cluster_client;
pub mod connection;
pub mod consumer;
mod consumer_protocol;
pub mod core;
pub mod error;
pub mod group_member;
mod inbox;
pub mod leader;
mod partitioner;
pub mod producer;
pub mod transactions;

pub use cluster_client::ClusterClient;
pub use connection::{Connection, Idle, Receiver, Sender};
pub use error::{ClientError, Refusal, error_constant, error_name};
pub use leader::{LeaderConnection, Received, Receiving};
