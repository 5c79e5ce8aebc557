//! Sockets to handlers. A connection is two tasks on one shard: the reader cuts frames out of the stream and hands each to
//! [`dispatch`] in order, the writer sends the answers in that same order. Reading order: [`listener`], [`connection`],
//! [`receive`] and [`pipeline`] (its two halves), [`dispatch`], then one file per API in [`handlers`]; [`group_call`] is how those
//! for groups ask coordinators. Where there are several shards, [`traffic`] says which of them a connection had better be on, and
//! [`crossing`] is the way there. [`quotas`] holds clients to what they may use.
//!
//! Invariants: answers leave in request order; a peer's declared lengths and counts allocate nothing before the bytes are
//! there; every queue here is bounded by an option; bad input ends its own connection and nothing else.

mod connection;
mod context;
mod crossing;
mod dispatch;
mod errors;
mod fetch_session;
mod group_call;
mod handlers;
mod listener;
mod peer;
mod pipeline;
mod quotas;
mod receive;
mod traffic;

pub use crossing::Loads;
pub use listener::{admission, serve};
pub use quotas::QuotaBoard;
