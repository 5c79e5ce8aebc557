//! The command line: one file per noun.

mod arena;
mod balance;
mod bench;
mod broker;
mod cluster;
mod command;
mod config;
mod connect;
mod consume;
mod content;
mod group;
mod log;
mod membership;
mod moment;
mod nearest;
mod options;
mod parse;
mod produce;
mod progress;
mod quota;
mod report;
mod server;
mod session;
mod shell;
mod take_over;
mod top;
mod topic;
mod tune;

pub use command::main;
