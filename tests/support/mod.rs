//! What tests need that run the broker as its users do: a process, and a socket to it.

pub mod broker;
pub mod client;
pub mod newer;
pub mod world;
