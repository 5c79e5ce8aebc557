//! What the broker says of itself: its log.

mod logging;

pub use logging::init_logging;
