//! A simulated cluster: brokers on a model of disk, network and metadata store, faults by seed, and
//! an observer that holds every promise against what happens. The rules that run in it are the
//! broker's own: `partition::{watermarks, leader, follower}`, `cluster::rules`, `cluster::store`
//! and `groups`.

mod broker;
mod checker;
mod clients;
mod consumer;
mod contact;
mod coordinator;
mod disk;
mod faults;
mod identity;
mod net;
mod offsets;
mod place;
mod replica;
mod rng;
mod run;
mod setup;
#[cfg(test)]
mod tests;
mod world;

pub use run::{LINES, explain, find, run, simulate, simulate_planted};
pub use setup::Setup;
