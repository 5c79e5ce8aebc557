//! Rules of the cluster, pure: the transitions of one partition's state, and what the controller
//! makes of the whole.

mod balance;
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
pub use isr_commit::isr_commit;
pub use plan::{Batch, Plan, RiskyElection, Step};
pub use reassign::{
    Partition, ReassignError, Reassigned, begin_reassignment, cancel_reassignment, complete_reassignment, is_under_way,
};
pub use reconcile::{Moment, Options, Timers, reconcile, reconcile_changed};
pub use registration::{
    RegisterError, Start, Suspect, activation, become_controller, drain, evict, is_trusted, leads_nothing, register,
};
pub use transition::{
    Broken, Election, Terms, Transition, check, effective_min, elect, expand, gone, initial, lower_minimum, prefer,
    resign, shrink, untrusted,
};
pub use view::{Dirty, PartitionKey, Registration, Standing, TopicDefaults, TopicView, Versioned, View};
