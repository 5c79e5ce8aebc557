//! One core: its replicas, its mailbox, and the routing of work to the shard that owns a partition.

mod answer_memory;
mod api;
mod apply;
mod changes;
mod check;
mod cleaning;
mod closing;
mod control;
mod coordinators;
mod dir_sync;
mod directories;
mod failed_dirs;
mod fetch;
pub mod fetchers;
pub mod groups;
mod hand_over;
mod high_watermarks;
mod hosting;
mod isr;
mod leadership;
mod log_dirs;
mod markers;
mod member;
mod move_pace;
mod moving;
mod nearby;
mod offline;
mod partition_file;
mod produce;
mod queries;
mod quotas;
mod remote_tails;
mod reopen;
mod replica_reads;
mod requests;
mod settings;
mod start;
mod state;
mod survey;
mod throttle;
pub mod transactions;
mod trim;
mod upkeep;
mod verify;
mod watch;

#[cfg(test)]
mod replica_log_tests;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod transaction_tests;

pub use answer_memory::{AnswerMemory, SMALL_ANSWER_BYTES, Share, Shortage};
pub use api::*;
pub use hand_over::Parcel;
pub use markers::MarkerPart;
pub use member::{Joining, Leave};
pub use produce::{ProduceWrites, Written};
pub use quotas::QuotaFlag;
pub use requests::{LeaderElection, PATIENCE, Reassignment};
pub use start::{ShardReady, ShardStart, run};
pub use state::Shard;
pub use survey::{Survey, SurveyDesk, SurveyedPartition};
pub use throttle::Throttles;
pub use verify::{RequestTransaction, Verifier, Verify};
