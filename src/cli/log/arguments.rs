//! Arguments of `corelane log`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{dump, verify};
use crate::cli::connect::Format;

#[derive(Args)]
pub(in crate::cli) struct LogArguments {
    #[command(subcommand)]
    command: LogCommand,
    /// Text for people, or JSON for programs (its fields are in docs/CLI.md)
    #[arg(long, value_enum, default_value_t = Format::Text, global = true)]
    format: Format,
}

#[derive(Subcommand)]
enum LogCommand {
    /// Print the batches of segments, or their records
    #[command(after_help = "Examples:
  corelane log dump data/orders-0/00000000000000000000.log
  corelane log dump data/orders-0 --from 1000 --max 20 --records")]
    Dump(Dump),
    /// Check every batch and every index entry, and name what is damaged; nothing is changed
    #[command(after_help = "Examples:
  corelane log verify data
  corelane log verify data/orders-0 --deep --format json

Exit code 1: something is damaged, could not be read, or is no log. Of a running broker the newest batches may be half written: end it first.")]
    Verify(Verify),
}

#[derive(Args)]
pub(super) struct Dump {
    /// A segment's .log file, or a partition's directory
    pub path: PathBuf,
    /// Begin with the batch that holds this offset, or the next one
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    pub from: i64,
    /// Print so many batches, or records, at the most
    #[arg(long, value_name = "COUNT")]
    pub max: Option<u64>,
    /// The records instead of the batches
    #[arg(long)]
    pub records: bool,
}

#[derive(Args)]
pub(super) struct Verify {
    /// Segments' .log files, directories of partitions, or whole data directories (of log.dirs)
    #[arg(required = true)]
    pub paths: Vec<PathBuf>,
    /// Decompress the batches and read every record, too
    #[arg(long)]
    pub deep: bool,
}

pub(in crate::cli) fn main(arguments: LogArguments) -> ExitCode {
    match arguments.command {
        LogCommand::Dump(dump) => dump::main(&dump, arguments.format),
        LogCommand::Verify(verify) => verify::main(&verify, arguments.format),
    }
}
