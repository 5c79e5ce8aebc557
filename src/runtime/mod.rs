//! The operating system, and nothing else: executor, files, sockets, mailboxes, clock. The only
//! place that names glommio or libc, and the only place with `unsafe`. Everything above sees these
//! types only, so that a simulated twin (`sim`) can stand in for them.
//!
//! The discipline that glommio 0.9 needs (see `docs/internals/runtime.md`) is kept here: no
//! preemption timer, no latency queues, and [`Yielder`] in every loop that can stay runnable.

pub mod admission;
pub mod bell;
pub mod buffers;
pub mod clock;
mod context;
mod device;
pub mod direct;
pub mod disk;
mod dma;
mod doorbell;
pub mod executor;
#[doc(hidden)]
pub mod faults;
pub mod file_systems;
pub mod fs;
mod gather;
pub mod mailbox;
pub mod mapping;
pub mod memory;
pub mod net;
pub mod pieces;
mod port_holder;
pub mod probe;
pub mod process;
mod ring;
mod send_room;
mod side_by_side;
#[cfg(any(test, feature = "simulator"))]
pub mod sim;
pub mod sparse;
mod spin;
pub mod sync;
mod turn;
pub mod waits;
pub mod watchdog;

pub use context::{count_in, metrics};
pub use executor::{Yielder, spawn_blocking, spawn_local};
pub use send_room::{Promise, SendRoom};
pub use side_by_side::side_by_side;
pub use turn::{gather_before_waking, last_news, spin_before_sleep, time_spun};

#[cfg(test)]
pub(crate) use disk::tests::scratch;
#[cfg(test)]
pub(crate) use executor::tests::{PATIENCE, eventually, on_shard, on_shards};
