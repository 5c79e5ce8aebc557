//! The command line: one file per noun.

mod arena;
mod bench;
mod cluster;
mod command;
mod membership;
mod options;
mod progress;
mod server;
mod session;
mod take_over;
mod tune;

pub use command::main;
