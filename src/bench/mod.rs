//! The load generator behind `corelane bench`: it works against any Kafka broker and
//! costs little CPU itself.
//!
//! Figures are true because open-loop work is due by a [`schedule`] that no answer can hold back,
//! and latency counts from the moment a thing was due; what came late because the broker stalled,
//! or because the generator did, is late. What was lost, out of order, refused or never answered is
//! an error, and a run that did not carry its rate is void.

mod batch;
mod consume;
mod context;
mod e2e;
mod idle;
mod interval_log;
mod null;
mod options;
mod pipeline;
mod produce;
mod report;
mod run;
mod schedule;
mod setup;
mod stats;

pub use idle::{Idle, IdleReport, run_idle};
pub use interval_log::{IntervalLog, LogFile};
pub use null::{Null, Spoil, serve};
pub use options::{Consume, E2e, From, Options, Produce, Work};
pub use report::{Report, hgrm, interval_line};
pub use run::{RunError, run};
pub use stats::Interval;
