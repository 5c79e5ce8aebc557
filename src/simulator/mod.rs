//! A simulated cluster: brokers on a model of disk, network and metadata store, faults by seed, and
//! an observer that holds every promise against what happens. The rules that run in it are the
//! broker's own: `partition::{watermarks, leader, follower}`, its producers and transactions,
//! `cluster::rules`, `cluster::store`, `groups` and `transactions`.

mod broker;
mod checker;
mod clients;
mod consumer;
mod contact;
mod coordinator;
mod cores;
mod disk;
mod endings;
mod faults;
mod identity;
mod net;
mod offsets;
mod outcomes;
mod place;
mod replica;
mod rng;
mod run;
mod setup;
mod stable;
#[cfg(test)]
mod tests;
mod transactor;
mod world;

pub use run::{LINES, explain, find, run, simulate, simulate_planted};
pub use setup::Setup;
