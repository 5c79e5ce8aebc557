//! `corelane topic`.

mod alter;
mod arguments;
mod create;
mod plan;
mod show;
mod trim;

pub(super) use alter::waits_for;
pub(super) use arguments::{TopicArguments, main};
pub(super) use plan::Place;
pub(super) use show::{known, one_to_use, unknown_topic};
pub(super) use trim::at_spot;
