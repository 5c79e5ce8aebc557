//! Arguments of `corelane group`.

use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgGroup, Args, Subcommand};

use super::{lag, reset, show};
use crate::cli::connect::{Connect, Format, seconds};
use crate::cli::moment::{duration, moment};
use crate::cli::parse::{Indexes, topic_partitions};

#[derive(Args)]
pub(in crate::cli) struct GroupArguments {
    #[command(flatten)]
    connect: Connect,
    #[command(subcommand)]
    command: GroupCommand,
}

#[derive(Subcommand, Clone)]
enum GroupCommand {
    /// Show which groups there are
    #[command(after_help = "Examples:
  corelane group list
  corelane group list --state Empty --format json")]
    List(List),
    /// Show members, what they are assigned, and how far the group has read
    #[command(after_help = "Examples:
  corelane group describe billing
  corelane group describe billing --members")]
    Describe(Describe),
    /// Have a group without members go on from other offsets
    ///
    /// Shows what would be committed; commits it with --execute.
    #[command(after_help = "Examples:
  corelane group reset-offsets billing --all-topics --to-earliest
  corelane group reset-offsets billing --topic orders:0,1 --shift-by -100 --execute
  corelane group reset-offsets billing --topic orders --by-duration PT1H --execute
  corelane group reset-offsets billing --topic orders --to-datetime 2026-01-31T12:00:00 --execute")]
    ResetOffsets(Reset),
    /// Delete groups without members, with the offsets that they have committed
    #[command(after_help = "Example:
  corelane group delete billing old-billing")]
    Delete(Delete),
    /// Show how many records groups have yet to read
    #[command(after_help = "Examples:
  corelane group lag
  corelane group lag billing --watch --interval 5
  corelane group lag billing --watch --format json             (one object a line)")]
    Lag(Lag),
}

#[derive(Args, Clone)]
pub(super) struct List {
    /// Only groups in these states (Stable, Empty, PreparingRebalance,
    /// CompletingRebalance, Assigning, Reconciling)
    #[arg(long, value_name = "STATE", value_delimiter = ',')]
    pub state: Vec<String>,
    /// Only groups of these types (Classic, Consumer)
    #[arg(long = "type", value_name = "TYPE", value_delimiter = ',')]
    pub kind: Vec<String>,
}

#[derive(Args, Clone)]
pub(super) struct Describe {
    #[arg(value_name = "GROUP", required = true)]
    pub groups: Vec<String>,
    /// Only the members
    #[arg(long, conflicts_with = "offsets")]
    pub members: bool,
    /// Only the offsets
    #[arg(long)]
    pub offsets: bool,
}

#[derive(Args, Clone)]
#[command(
    group = ArgGroup::new("which").required(true).args(["topics", "all_topics"]),
    group = ArgGroup::new("where").required(true).args([
        "to_earliest", "to_latest", "to_offset", "shift_by", "to_datetime", "by_duration", "to_current"
    ]),
)]
pub(super) struct Reset {
    #[arg(value_name = "GROUP")]
    pub group: String,
    /// A topic, or some of its partitions; may be given several times
    #[arg(long = "topic", value_name = "TOPIC[:N,N-N...]", value_parser = topic_partitions)]
    pub topics: Vec<(String, Option<Indexes>)>,
    /// All topics that the group has committed offsets of
    #[arg(long)]
    pub all_topics: bool,
    /// To the first record that is there
    #[arg(long)]
    pub to_earliest: bool,
    /// To the end
    #[arg(long)]
    pub to_latest: bool,
    /// To this offset
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    pub to_offset: Option<i64>,
    /// So many records on from the committed offset, or back
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub shift_by: Option<i64>,
    /// To the first record of this time or later
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub to_datetime: Option<i64>,
    /// The same, for a time so long ago
    #[arg(long, value_name = "PnDTnHnMnS", value_parser = duration)]
    pub by_duration: Option<i64>,
    /// To what is committed (the end, where nothing is)
    #[arg(long)]
    pub to_current: bool,
    /// Only show it, which is the default
    #[arg(long, conflicts_with = "execute")]
    pub dry_run: bool,
    /// Commit it
    #[arg(long)]
    pub execute: bool,
}

#[derive(Args, Clone)]
pub(super) struct Delete {
    #[arg(value_name = "GROUP", required = true)]
    pub groups: Vec<String>,
}

#[derive(Args, Clone)]
pub(super) struct Lag {
    /// All if none is given
    #[arg(value_name = "GROUP")]
    pub groups: Vec<String>,
    /// Again and again, until Ctrl-C
    #[arg(long)]
    pub watch: bool,
    /// Time between two looks, with --watch
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    pub interval: Duration,
    /// End after so many looks, with --watch
    #[arg(long, value_name = "N", requires = "watch", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    #[arg(skip = Format::Text)]
    pub format: Format,
}

pub(in crate::cli) fn main(arguments: GroupArguments) -> ExitCode {
    let GroupArguments { connect, command } = arguments;
    match command {
        GroupCommand::List(command) => connect.run(command, show::list),
        GroupCommand::Describe(command) => connect.run(command, show::describe),
        GroupCommand::ResetOffsets(command) => connect.run(command, reset::reset),
        GroupCommand::Delete(command) => connect.run(command, show::delete),
        GroupCommand::Lag(command) => {
            let format = connect.format;
            connect.run(Lag { format, ..command }, lag::lag)
        }
    }
}
