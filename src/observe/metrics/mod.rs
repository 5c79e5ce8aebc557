//! Counters for operators. A shard writes its own, without a lock or an atomic addition; one other thread reads them.

mod clients;
mod counters;
mod durations;
mod markdown;
mod shard;
mod slow;
mod table;
mod throttling;
mod topics;

pub use clients::{Clients, Software};
pub use counters::{Count, Level};
pub use durations::{Durations, Spell, Spread};
pub use markdown::{markdown, plain};
pub use shard::{ApiMetrics, Metrics, Resource, Resources, ShardMetrics, Stage};
pub use slow::{Marks, SlowRequest, SlowRequests};
#[doc(hidden)]
pub use table::metric;
pub use table::{ALL, Kind, Metric};
pub use throttling::{Throttling, ThrottlingOf};
pub use topics::{Topics, Traffic};
