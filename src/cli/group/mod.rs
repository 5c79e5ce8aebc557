//! `corelane group`.

mod arguments;
mod lag;
mod reset;
mod show;

pub(super) use arguments::{GroupArguments, main};
pub(super) use lag::{CLEAR, Sum, lag_of};
