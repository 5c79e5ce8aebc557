//! Committed offsets of the groups of one coordinator.
