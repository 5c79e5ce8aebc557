//! Arguments of `corelane consume`.

use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::begin::{From, from};
use super::run;
use super::shape::{Shape, shape};
use crate::cli::connect::Reach;
use crate::cli::parse::{Indexes, indexes};
use crate::client::consumer::Isolation;

#[derive(Args)]
pub(in crate::cli) struct ConsumeArguments {
    #[arg(value_name = "TOPIC")]
    topic: String,
    #[command(flatten)]
    reach: Reach,
    /// Where to begin: `beginning` (the default), `end`, an offset, -N for the last N of each
    /// partition, a time (YYYY-MM-DDTHH:mm:SS, in UTC), or @MS for milliseconds since 1970; for a
    /// group only where it has committed nothing
    #[arg(long, value_name = "WHERE", value_parser = from, allow_hyphen_values = true)]
    from: Option<From>,
    /// Only these partitions
    #[arg(long, value_name = "N[,N-N...]", value_parser = indexes, conflicts_with = "group")]
    partition: Option<Indexes>,
    /// End after so many records
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// End where each partition ended at the start; without it new records are waited for
    #[arg(long)]
    until_end: bool,
    /// Begin at the end, unless --from says otherwise, and wait for new records
    #[arg(long, conflicts_with = "until_end")]
    tail: bool,
    /// Read as a member of this group, and commit what was printed
    #[arg(long, value_name = "GROUP")]
    group: Option<String>,
    /// `text` (the value and a new line), `json` (an object a line), `hex` (partition, offset,
    /// key and value on a line), or a template: %v or %s value, %k key, %h headers, %t topic, %p
    /// partition, %o offset, %T timestamp in ms, %V or %S and %K lengths (-1: null), %% a
    /// percent sign, \n \t \0 \xHH
    #[arg(long, value_name = "FORMAT", value_parser = shape, default_value = "text")]
    format: Shape,
    /// With `read-committed`, records of transactions that are open or were aborted are left out
    #[arg(long, alias = "isolation-level", value_enum, default_value_t = Level::ReadUncommitted)]
    isolation: Level,
}

#[derive(Clone, Copy, ValueEnum)]
enum Level {
    // The names with `_` are those of Kafka's tools.
    #[value(alias = "read_committed")]
    ReadCommitted,
    #[value(alias = "read_uncommitted")]
    ReadUncommitted,
}

pub(in crate::cli) fn main(arguments: ConsumeArguments) -> ExitCode {
    let start = if arguments.tail { From::End } else { From::Beginning };
    let command = run::Command {
        topic: arguments.topic,
        from: arguments.from.unwrap_or(start),
        partitions: arguments.partition,
        count: arguments.count,
        until_end: arguments.until_end,
        group: arguments.group,
        shape: arguments.format,
        isolation: match arguments.isolation {
            Level::ReadCommitted => Isolation::ReadCommitted,
            Level::ReadUncommitted => Isolation::ReadUncommitted,
        },
        timeout: arguments.reach.timeout,
    };
    run::main(&arguments.reach, command)
}
