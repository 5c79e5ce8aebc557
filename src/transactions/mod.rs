//! The transaction coordinator without I/O (KIP-98, KIP-890): which producer a transactional id
//! belongs to, and how far its transaction has come.
//!
//! One [`Coordinator`] keeps the transactional ids of one partition of `__transaction_state`. It
//! takes requests and passing time, and gives records to append, replies, and markers to be
//! written ([`Effects`]); replies may leave and markers may be written once everything the
//! coordinator gave to append before them is committed. A transaction is decided by the record
//! of its state PrepareCommit or PrepareAbort; a coordinator that finds one there as it loads
//! goes on with the markers.
//!
//! Reading order: [`api`] (the words), [`Transaction`] (the states of one transactional id and its
//! rules), [`record`] (what is written), [`Coordinator`].

pub mod api;
mod coordinator;
mod ending;
mod env;
pub mod record;
mod state;
#[cfg(test)]
mod tests;
mod transaction;

pub use api::{Reply, Request};
pub use coordinator::Coordinator;
pub use ending::Written;
pub use env::{Deed, Effects, Env, Markers};
pub use state::State;
pub use transaction::{Transaction, VERSION};
