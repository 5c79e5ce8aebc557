//! Metrics, health, version and the console over HTTP (`corelane.http.listener`), on one thread of
//! its own beside the shards.
//!
//! A scrape costs a shard no more than cache lines that the reader takes a look at: shards count
//! in memory of their own ([`observe::metrics`](crate::observe::metrics)), and this thread
//! reads. [`http`] takes connections and bounds them, [`pages`] answers, [`gather`] makes the
//! metrics' values from what was counted, [`census`] those of topics and groups, for which
//! shards are asked, and [`exposition`] writes them in the format that was asked for.
//! [`console`] has the page for people.

mod census;
mod changes;
mod console;
mod exposition;
mod gather;
mod http;
mod pages;
mod process;
mod slow_page;
mod start;

pub use start::{Bound, Late, Sources, bind, start};
