//! Rules of the cluster, pure: the transitions of one partition's state, and what the controller
//! makes of the whole.

mod balance;
mod confession;
mod isr_commit;
mod plan;
#[cfg(test)]
mod random;
mod reassign;
mod reconcile;
mod registration;
#[cfg(test)]
mod test_store;
mod transition;
mod view;

pub use balance::{Rebalanced, balance};
pub use confession::{Confession, Found, Kept, confess};
pub use isr_commit::isr_commit;
pub use plan::{Batch, Plan, RiskyElection, Step};
pub use reassign::{
    Partition, ReassignError, Reassigned, begin_reassignment, cancel_reassignment, complete_reassignment, is_under_way,
    keeps_factor,
};
pub use reconcile::{Moment, Options, Timers, reconcile, reconcile_changed};
pub use registration::{
    REFUSALS, REFUSALS_WITHIN_MS, RegisterError, Start, Suspect, activation, become_controller, drain, evict,
    is_trusted, leads_nothing, register,
};
pub use transition::{
    Broken, Election, Terms, Transition, check, effective_min, elect, elect_asked, emptied, expand, gone, hand_over,
    initial, lower_minimum, prefer, refilled, renew, resign, shrink, untrusted,
};
pub use view::{Dirty, PartitionKey, Registration, Standing, TopicDefaults, TopicView, Versioned, View};
