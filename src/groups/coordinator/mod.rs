//! The groups of one partition of `__consumer_offsets`: from a request to the group it is for.

mod admin;
mod classic;
mod dispatch;
mod load;
#[cfg(test)]
mod tests;

pub use admin::SurveyedGroup;
pub use dispatch::{Coordinator, Group, Timer};
