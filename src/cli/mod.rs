//! The command line: one file per noun.

mod bench;
mod command;
mod options;
mod progress;
mod server;

pub use command::main;
