//! `corelane produce`: records from standard input to a topic.

mod arguments;
mod input;
mod run;

pub(super) use arguments::{ProduceArguments, main};
