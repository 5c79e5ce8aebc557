//! Arguments of `corelane produce`.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::input::{Reading, Separators, Syntax};
use super::run;
use crate::cli::connect::Reach;
use crate::cli::parse::{Escaped, escaped, separator};
use crate::client::producer::Settings;
use crate::model::record_batch::Codec;

#[derive(Args)]
pub(in crate::cli) struct ProduceArguments {
    #[arg(value_name = "TOPIC")]
    topic: String,
    #[command(flatten)]
    reach: Reach,
    /// Format of a line of the input: a value, or a JSON object with `value` and perhaps `key`,
    /// `headers`, `partition`, `timestamp_ms`
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Separator of a line's key and its value, such as ':' or '\t'
    #[arg(long, value_name = "TEXT", value_parser = separator, conflicts_with = "key")]
    key_separator: Option<Escaped>,
    /// Separator of a line's headers (NAME:VALUE,NAME:VALUE) and the rest of it
    #[arg(long, value_name = "TEXT", value_parser = separator)]
    headers_separator: Option<Escaped>,
    /// Records end with a zero byte instead of a new line, so that they may have several lines
    #[arg(long)]
    null_separated: bool,
    /// Empty values are null, which deletes the key from a compacted topic
    #[arg(long)]
    tombstones: bool,
    /// The key of records that have none of their own
    #[arg(long, value_name = "TEXT", value_parser = escaped)]
    key: Option<Escaped>,
    /// A header of every record; may be given several times
    #[arg(long = "header", value_name = "NAME=VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// The partition of records that name none; else it is chosen by the key, as
    /// Kafka's producer chooses
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    partition: Option<i32>,
    /// How batches are compressed
    #[arg(long, value_enum, default_value_t = Compression::None)]
    compression: Compression,
    /// Replicas that must have a record before it is acknowledged: none, the leader, or all that
    /// are in sync (then no retry writes a record twice)
    #[arg(long, value_enum, default_value_t = Acks::All)]
    acks: Acks,
    /// A batch is sent once it has so many bytes and the one before it is acknowledged
    #[arg(long, value_name = "BYTES", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=1 << 30))]
    batch_size: u32,
    /// A smaller batch is sent after so many milliseconds
    #[arg(long, value_name = "MS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=60_000))]
    linger: u32,
    /// Say nothing of records that were acknowledged
    #[arg(long)]
    quiet: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Clone, Copy, ValueEnum)]
enum Compression {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

#[derive(Clone, Copy, ValueEnum)]
enum Acks {
    #[value(name = "0")]
    None,
    #[value(name = "1")]
    Leader,
    #[value(name = "all", alias = "-1")]
    All,
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it must read NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

pub(in crate::cli) fn main(arguments: ProduceArguments) -> ExitCode {
    let bytes = |text: Option<Escaped>| text.map(|Escaped(bytes)| bytes);
    let separators = Separators {
        record: if arguments.null_separated { 0 } else { b'\n' },
        key: bytes(arguments.key_separator),
        headers: bytes(arguments.headers_separator),
    };
    let syntax = match arguments.format {
        Format::Text => Syntax::Text,
        Format::Json => Syntax::Json,
    };
    if syntax == Syntax::Json && (separators.key.is_some() || separators.headers.is_some()) {
        let clash = "--format json has the key and the headers in the object: leave out the separators";
        crate::cli::report::say(clash);
        return ExitCode::from(2);
    }
    let headers = arguments.headers.into_iter();
    let reading = Reading {
        syntax,
        separators,
        tombstones: arguments.tombstones,
        key: bytes(arguments.key),
        headers: headers.map(|(name, value)| (name.into_bytes(), Some(value.into_bytes()))).collect(),
        partition: arguments.partition,
    };
    let settings = Settings {
        topic: arguments.topic,
        acks: match arguments.acks {
            Acks::None => 0,
            Acks::Leader => 1,
            Acks::All => -1,
        },
        codec: match arguments.compression {
            Compression::None => Codec::None,
            Compression::Gzip => Codec::Gzip,
            Compression::Snappy => Codec::Snappy,
            Compression::Lz4 => Codec::Lz4,
            Compression::Zstd => Codec::Zstd,
        },
        batch_bytes: arguments.batch_size as usize,
        linger: Duration::from_millis(u64::from(arguments.linger)),
        timeout: arguments.reach.timeout,
    };
    run::main(&arguments.reach, run::Command { reading, settings, quiet: arguments.quiet })
}
