//! The broker's word of itself: its log, and its metrics.

mod client_lines;
mod logging;
pub mod metrics;

pub(crate) use client_lines::client_line;
pub use client_lines::{Place, note_second};
pub use logging::{LogFormat, init_logging};
