//! Rules of the cluster, pure: the transitions of one partition's state.

#[cfg(test)]
mod random;
mod reassign;
mod transition;

pub use reassign::{
    Partition, ReassignError, Reassigned, begin_reassignment, cancel_reassignment, complete_reassignment, is_under_way,
};
pub use transition::{
    Broken, Election, Terms, Transition, check, effective_min, elect, expand, gone, initial, lower_minimum, prefer,
    resign, shrink, untrusted,
};
