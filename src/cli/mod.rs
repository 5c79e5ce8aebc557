//! The command line: one file per noun.

mod arena;
mod bench;
mod command;
mod options;
mod progress;
mod server;
mod tune;

pub use command::main;
