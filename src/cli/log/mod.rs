//! `corelane log`: the files of a log, without a broker.

mod arguments;
mod dump;
mod verify;

pub(super) use arguments::{LogArguments, main};
