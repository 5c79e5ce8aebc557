//! Arguments of `corelane topic`.

use std::process::ExitCode;

use clap::{ArgGroup, Args, Subcommand};

use super::{alter, create, show, trim};
use crate::cli::connect::Connect;
use crate::cli::moment::{duration, moment};
use crate::cli::parse::{Assignment, Indexes, assignment, indexes, option};

#[derive(Args)]
pub(in crate::cli) struct TopicArguments {
    #[command(flatten)]
    connect: Connect,
    #[command(subcommand)]
    command: TopicCommand,
}

#[derive(Subcommand, Clone)]
enum TopicCommand {
    /// Make topics
    #[command(after_help = "Examples:
  corelane topic create orders --partitions 3 --replication-factor 3
  corelane topic create clicks views --config retention.ms=3600000 --config cleanup.policy=compact
  corelane topic create placed --replica-assignment 1:2,2:3    (0 on brokers 1 and 2, 1 on 2 and 3)")]
    Create(Create),
    /// Show which topics there are
    #[command(after_help = "Examples:
  corelane topic list
  corelane topic list --exclude-internal --format json")]
    List(List),
    /// Show where the partitions of topics are, and the options that topics have for themselves
    #[command(after_help = "Examples:
  corelane topic describe orders --offsets
  corelane topic describe --under-replicated-partitions")]
    Describe(Describe),
    /// Change the options of a topic, or the brokers that have its replicas
    #[command(after_help = "Examples:
  corelane topic alter orders --config retention.ms=86400000 --delete-config segment.ms
  corelane topic alter orders --replication-factor 3 --dry-run
  corelane topic alter orders --replication-factor 3 --wait
  corelane topic alter orders --replica-assignment 1:2,2:3")]
    Alter(Alter),
    /// Give a topic more partitions (it cannot have fewer)
    #[command(after_help = "Example:
  corelane topic add-partitions orders --partitions 12         (twelve in all)")]
    AddPartitions(AddPartitions),
    /// Delete topics with all their records
    #[command(after_help = "Example:
  corelane topic delete orders clicks --if-exists")]
    Delete(Delete),
    /// Delete the oldest records of a topic
    #[command(after_help = "Examples:
  corelane topic trim orders --to-offset 1000 --partition 0
  corelane topic trim orders --to-datetime 2026-01-31T00:00:00 --dry-run
  corelane topic trim orders --by-duration P7D                 (what is older than a week)
  corelane topic trim orders --to-latest                       (everything)")]
    Trim(Trim),
}

#[derive(Args, Clone)]
pub(super) struct Create {
    #[arg(value_name = "TOPIC", required = true)]
    pub topics: Vec<String>,
    /// How many; the broker's num.partitions if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    pub partitions: Option<i32>,
    /// Replicas of each partition; the broker's default.replication.factor if not given
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i16).range(1..))]
    pub replication_factor: Option<i16>,
    /// An option of the topic; may be given several times
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = option)]
    pub configs: Vec<(String, String)>,
    /// The brokers of each partition, in Kafka's writing: brokers with colons,
    /// partitions with commas
    #[arg(long, value_name = "B:B,B:B", value_parser = assignment)]
    #[arg(conflicts_with_all = ["partitions", "replication_factor"])]
    pub replica_assignment: Option<Assignment>,
    /// Topics that exist are no failure
    #[arg(long)]
    pub if_not_exists: bool,
    /// Only ask the broker whether it would
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Args, Clone)]
pub(super) struct List {
    /// Leave out topics that brokers keep for themselves
    #[arg(long)]
    pub exclude_internal: bool,
}

#[derive(Args, Clone)]
pub(super) struct Describe {
    /// All if none is given
    #[arg(value_name = "TOPIC")]
    pub topics: Vec<String>,
    /// With the first and the next offset of each partition
    #[arg(long)]
    pub offsets: bool,
    /// Only partitions of which a replica is not in sync
    #[arg(long)]
    pub under_replicated_partitions: bool,
    /// Only partitions without a leader
    #[arg(long)]
    pub unavailable_partitions: bool,
    /// Only partitions with fewer replicas in sync than min.insync.replicas
    #[arg(long)]
    pub under_min_isr_partitions: bool,
    /// Only topics with options of their own
    #[arg(long)]
    pub topics_with_overrides: bool,
    /// Leave out topics that brokers keep for themselves
    #[arg(long)]
    pub exclude_internal: bool,
}

#[derive(Args, Clone)]
#[command(group = ArgGroup::new("change").multiple(true).required(true)
    .args(["configs", "delete_configs", "replication_factor", "replica_assignment"]))]
pub(super) struct Alter {
    #[arg(value_name = "TOPIC")]
    pub topic: String,
    /// An option to set; may be given several times
    #[arg(long = "config", value_name = "KEY=VALUE", value_parser = option)]
    pub configs: Vec<(String, String)>,
    /// An option to go back to the broker's value; may be given several times
    #[arg(long = "delete-config", value_name = "KEY")]
    pub delete_configs: Vec<String>,
    /// Replicas of each partition: brokers are chosen, or left out
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub replication_factor: Option<u16>,
    /// The brokers of each partition, in Kafka's writing: brokers with colons,
    /// partitions with commas
    #[arg(long, value_name = "B:B,B:B", value_parser = assignment, conflicts_with = "replication_factor")]
    pub replica_assignment: Option<Assignment>,
    /// Only show what would be done
    #[arg(long)]
    pub dry_run: bool,
    /// Wait until the replicas have moved, however long it takes
    #[arg(long)]
    pub wait: bool,
}

#[derive(Args, Clone)]
pub(super) struct AddPartitions {
    #[arg(value_name = "TOPIC")]
    pub topic: String,
    /// How many there shall be in all
    #[arg(long, value_name = "TOTAL", value_parser = clap::value_parser!(i32).range(1..))]
    pub partitions: i32,
    /// The brokers of the new partitions, in Kafka's writing: brokers with
    /// colons, partitions with commas
    #[arg(long, value_name = "B:B,B:B", value_parser = assignment)]
    pub replica_assignment: Option<Assignment>,
    /// Only ask the broker whether it would
    #[arg(long)]
    pub dry_run: bool,
}

#[derive(Args, Clone)]
pub(super) struct Delete {
    #[arg(value_name = "TOPIC", required = true)]
    pub topics: Vec<String>,
    /// Topics that there are not are no failure
    #[arg(long)]
    pub if_exists: bool,
}

#[derive(Args, Clone)]
#[command(group = ArgGroup::new("until").required(true)
    .args(["to_offset", "to_datetime", "by_duration", "to_latest"]))]
pub(super) struct Trim {
    #[arg(value_name = "TOPIC")]
    pub topic: String,
    /// Only these partitions
    #[arg(long, value_name = "N[,N-N...]", value_parser = indexes)]
    pub partition: Option<Indexes>,
    /// Delete what is before this offset
    #[arg(long, value_name = "OFFSET", value_parser = clap::value_parser!(i64).range(0..))]
    pub to_offset: Option<i64>,
    /// Delete what is before the first record of this time or later
    #[arg(long, value_name = "TIME", value_parser = moment)]
    pub to_datetime: Option<i64>,
    /// The same, for a time so long ago
    #[arg(long, value_name = "PnDTnHnMnS", value_parser = duration)]
    pub by_duration: Option<i64>,
    /// Delete everything
    #[arg(long)]
    pub to_latest: bool,
    /// Only show what would be deleted
    #[arg(long)]
    pub dry_run: bool,
}

pub(in crate::cli) fn main(arguments: TopicArguments) -> ExitCode {
    let TopicArguments { connect, command } = arguments;
    match command {
        TopicCommand::Create(command) => connect.run(command, create::create),
        TopicCommand::List(command) => connect.run(command, show::list),
        TopicCommand::Describe(command) => connect.run(command, show::describe),
        TopicCommand::Alter(command) => connect.run(command, alter::alter),
        TopicCommand::AddPartitions(command) => connect.run(command, create::add_partitions),
        TopicCommand::Delete(command) => connect.run(command, create::delete),
        TopicCommand::Trim(command) => connect.run(command, trim::trim),
    }
}
