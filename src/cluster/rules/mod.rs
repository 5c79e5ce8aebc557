//! Rules of the cluster, pure: the transitions of one partition's state, and the view of the whole.

mod isr_commit;
#[cfg(test)]
mod random;
mod reassign;
#[cfg(test)]
mod test_store;
mod transition;
mod view;

pub use isr_commit::isr_commit;
pub use reassign::{
    Partition, ReassignError, Reassigned, begin_reassignment, cancel_reassignment, complete_reassignment, is_under_way,
};
pub use transition::{
    Broken, Election, Terms, Transition, check, effective_min, elect, expand, gone, initial, lower_minimum, prefer,
    resign, shrink, untrusted,
};
pub use view::{Dirty, PartitionKey, Registration, Standing, TopicDefaults, TopicView, Versioned, View};
