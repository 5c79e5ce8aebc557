//! The console: a page that shows a broker and its cluster to a person, and the
//! answers that it is made of.
//!
//! The page asks the cluster as a Kafka client ([`ClusterClient`](crate::client::ClusterClient))
//! over the broker's own listener, so that it shows what Kafka's tools show, and shards see one
//! more client. [`desk`] takes questions from the thread
//! that serves HTTP to a thread of their own; [`question`] has them all, with their bounds. The
//! other files have the answers, by what they are about. What is counted on this broker is
//! [`monitor`](crate::monitor)'s, which also serves all of it.

mod brokers;
mod cache;
mod change;
mod desk;
mod groups;
mod messages;
mod query;
mod question;
mod topics;
mod web;

pub use change::Change;
pub use desk::Desk;
pub use query::Query;
pub use question::{Problem, Question};
pub use web::FILES;
