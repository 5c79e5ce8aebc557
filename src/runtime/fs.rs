//! Blocking work on small files, as `std::fs` has it. Where the simulator is built in, files of a simulated shard are those of
//! its disk.

#[cfg(any(test, feature = "simulator"))]
pub use super::sim::fs::*;
#[cfg(not(any(test, feature = "simulator")))]
pub use std::fs::*;
