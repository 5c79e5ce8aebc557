//! The command line: one file per noun.

mod arena;
mod bench;
mod broker;
mod cluster;
mod command;
mod config;
mod connect;
mod group;
mod log;
mod membership;
mod moment;
mod nearest;
mod options;
mod parse;
mod progress;
mod quota;
mod report;
mod server;
mod session;
mod shell;
mod take_over;
mod topic;
mod tune;

pub use command::main;
