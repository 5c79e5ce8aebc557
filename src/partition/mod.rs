//! One replica's rules: what a produced batch must satisfy, which sequences a producer may
//! send, what a reader may see.

mod cleaning;
mod epochs;
mod follower;
mod following;
mod high_watermarks;
mod leader;
#[cfg(test)]
mod leader_tests;
mod offsets;
mod producer_pool;
mod producer_state;
mod replica;
mod role;
mod stable;
mod standing;
mod transactions;
mod truncate;
mod validate;
mod verification;
mod waiters;
mod watermarks;

pub use epochs::EpochHistory;
pub use follower::{Follower, LeaderAnswer, NextFetch, Step};
pub use following::Followed;
pub use high_watermarks::HighWatermarks;
pub use leader::{
    AckAll, Change, Decision, FetchAnswer, FollowerFetch, Leader, PartitionView, Proposal, RETRY_MS, RefusedLead,
    ReplicaView,
};
pub use offsets::TimedOffset;
pub use producer_pool::ProducerPool;
pub use producer_state::{Damaged, ProducerStates, SequenceCheck};
pub use replica::{Accepted, Opened, Rejected, Replica, Shared};
pub use role::{Membership, Moving, Start, Term};
pub use transactions::{Transactions, last_stable_offset};
pub use validate::{CheckedBatch, Limits, Refusal, Rules, validate};
pub use verification::{Guard, Verifications, Verified, is_final};
pub use waiters::{AckWait, DataWaiter, DataWaiters};
pub use watermarks::{BrokenEnds, Cuts, Ends, Moved, Watermarks};
