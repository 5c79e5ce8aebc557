//! The group coordinator without I/O: who is in a group, what each member was given, how
//! far each group has read.
//!
//! One [`Coordinator`] keeps the groups of one partition of `__consumer_offsets`. It takes requests
//! and passing time, and gives records to append and replies ([`Effects`]); a reply may leave once
//! everything the coordinator gave to append before it is written. What it gave to append, read
//! again in order ([`Coordinator::replay`]), makes the same state.
//!
//! Time, randomness and topics come with each call ([`Env`]). Reading order: [`api`] (the words),
//! [`record`] (what is written), [`coordinator`] (which group a request is for), [`classic`] and
//! [`consumer`] (the two protocols), [`offsets`].

pub mod api;
pub mod classic;
pub mod consumer;
pub mod coordinator;
mod env;
pub mod offsets;
pub mod record;

pub use api::{Call, Reply, Request};
pub use coordinator::{Coordinator, SurveyedGroup};
pub use env::{Effects, Env, Room, TopicFacts, Topics};
