//! `corelane topic`.

mod alter;
mod arguments;
mod create;
mod plan;
mod show;
mod trim;

pub(super) use arguments::{TopicArguments, main};
pub(super) use show::known;
pub(super) use trim::at_spot;
