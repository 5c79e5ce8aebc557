//! A simulated twin of this folder: shards on one thread in an order by seed, virtual time, and
//! disks in memory with kills, power cuts and errors at any operation. In tests and with the
//! feature `simulator` only.
//!
//! The code above runs in it as it is: [`spawn_local`](super::spawn_local),
//! [`spawn_blocking`](super::spawn_blocking), [`clock`](super::clock), [`disk`](super::disk),
//! [`fs`](super::fs) and [`mapping`](super::mapping) ask the shard's context which world it is in.
//! Sockets and mailboxes are not simulated.
//!
//! Reading order: `shard` (the executor), `tree` (what survives), `disk` (numbers and faults),
//! `file`, `fs` and `memory` (its faces).

mod disk;
mod file;
pub mod fs;
mod memory;
mod names;
mod random;
mod shard;
mod tree;

pub(super) use {
    file::{DirectFile, space},
    memory::MappedFile,
    shard::{Home, is_current, later, spawn, time, wall_ms},
};

pub use disk::{Disk, Fault};
pub use shard::{Shard, Simulation, Stopped};
pub use tree::Journal;

#[cfg(test)]
mod tests;
