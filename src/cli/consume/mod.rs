//! `corelane consume`: the records of a topic to standard output.

mod arguments;
mod begin;
mod printer;
mod run;
mod shape;

pub(super) use arguments::{ConsumeArguments, main};
