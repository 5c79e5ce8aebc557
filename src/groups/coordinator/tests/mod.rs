//! A coordinator driven by hand, one file per concern.

mod admin;
mod commits;
mod expiry;
mod fixture;
mod interleavings;
mod join;
mod limits;
mod load;
mod rebalance;
mod session;
mod static_members;
mod transactions;
