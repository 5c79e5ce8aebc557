//! A simulated twin of this folder: shards on one thread in an order by seed, virtual time, and disks in memory with
//! kills, power cuts and errors at any operation. In tests and with the feature `simulator` only.
//!
//! The code above runs in it as it is: [`spawn_local`](super::spawn_local), [`spawn_blocking`](super::spawn_blocking),
//! [`clock`](super::clock), [`disk`](super::disk) and [`fs`](super::fs) ask the shard's context which world it is in. Sockets,
//! mailboxes and mapped files are not simulated.
//!
//! Reading order: `shard` (the executor), `tree` (what survives), `disk` (numbers and faults), `file` and `fs` (its faces).

mod disk;
mod file;
pub mod fs;
mod names;
mod random;
mod shard;
mod tree;

pub(super) use {
    file::{DirectFile, space},
    shard::{Home, is_current, later, spawn, time, wall_ms},
};

pub use disk::{Disk, Fault};
pub use shard::{Shard, Simulation, Stopped};
pub use tree::Journal;

#[cfg(test)]
mod tests;
