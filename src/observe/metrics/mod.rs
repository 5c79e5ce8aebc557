//! Counters for operators. A shard writes its own, without a lock or an atomic addition; one
//! other thread reads them.

mod clients;
mod counters;
mod durations;
mod markdown;
mod shard;
mod slow;
mod table;
mod throttling;
mod topics;
mod waits;

pub use clients::{ClientKind, Clients, Software};
pub use counters::{Count, Level};
pub use durations::{Durations, Spell, Spread};
pub use markdown::{markdown, plain};
pub use shard::{ApiMetrics, FetchStage, FetchStages, Metrics, Resource, Resources, ShardMetrics, Stage};
pub use slow::{KEPT, MINUTES, Minute, SlowRequest, SlowRequests, SlowThresholds, Step, Target};
#[doc(hidden)]
pub use table::metric;
pub use table::{ALL, Kind, Metric};
pub use throttling::{Throttling, ThrottlingOf};
pub use topics::{Topics, Traffic};
pub use waits::{Cause, Waits};
