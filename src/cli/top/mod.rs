//! `corelane top`: what a cluster is busy with, again and again.

mod http;
mod look;
mod picture;
mod run;
mod scrape;
mod show;

pub(super) use run::{TopArguments, main};
