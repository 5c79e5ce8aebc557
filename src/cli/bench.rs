//! `corelane bench`: the load generator.

use std::fmt::Display;
use std::fs::{self, File};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::progress::Progress;
use crate::bench::{self, LogFile, Options, Report, Work};
use crate::model::record_batch;

/// Exit code of a run that did not carry its rate.
const VOID: u8 = 3;

const DEFAULT_DURATION: Duration = Duration::from_secs(10);

#[derive(Subcommand)]
pub(super) enum BenchCommand {
    /// Send ready-made batches, as fast as possible or at a rate
    Produce(ProduceArguments),
    /// Read a topic, by default from its beginning to the end it has at the start
    Consume(ConsumeArguments),
    /// Records at a fixed rate, each timed from when it was due until a consumer has it
    E2e(E2eArguments),
    /// Requests of one record each, as fast as possible
    Requests(RequestsArguments),
    /// Hold connections that say nothing
    Idle(IdleArguments),
    /// Be a broker that keeps nothing and answers at once, to see what a client can do at best
    Null(NullArguments),
}

#[derive(Args)]
pub(super) struct IdleArguments {
    /// A broker
    #[arg(long = "bootstrap-server", alias = "bootstrap", value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    bootstrap: String,
    /// How many
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    connections: u32,
    /// Hold them so long once all are open, seconds
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    duration: Duration,
    /// The result, on stdout
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Say nothing but the result
    #[arg(long)]
    quiet: bool,
}

impl IdleArguments {
    fn main(self) -> ExitCode {
        let options =
            bench::Idle { bootstrap: self.bootstrap, connections: self.connections as usize, duration: self.duration };
        let progress = Progress::new(self.quiet, None);
        let mut second = 0;
        let outcome = bench::run_idle(&options, |open| {
            second += 1;
            progress.second(second, &format!("{open} connections open"));
        });
        progress.end();
        let report = match outcome {
            Ok(report) => report,
            Err(error) => return fail(&error),
        };
        let text = match self.format {
            Format::Text => report.table(),
            Format::Json => format!("{}\n", report.json(&options)),
        };
        match print(&text) {
            Ok(()) if !report.is_short() => ExitCode::SUCCESS,
            Ok(()) => ExitCode::FAILURE,
            Err(message) => fail(&message),
        }
    }
}

fn say(text: &str) {
    let _ = writeln!(io::stderr(), "corelane: {text}");
}

fn fail(error: &dyn Display) -> ExitCode {
    say(&error.to_string());
    ExitCode::FAILURE
}

fn print(text: &str) -> Result<(), String> {
    io::stdout().write_all(text.as_bytes()).map_err(|e| format!("cannot write to stdout: {e}"))
}

#[derive(Args)]
pub(super) struct NullArguments {
    /// Where to listen; clients are told this address too
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9092")]
    listen: SocketAddr,
    /// Pin to this CPU
    #[arg(long, value_name = "CPU")]
    cpu: Option<usize>,
    /// Of every topic; every topic is there
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..=100_000))]
    partitions: i32,
    /// Value bytes of the records that a consumer is given, without end
    #[arg(long, value_name = "BYTES", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(..=RECORD_LIMIT))]
    record_size: u32,
    /// They fill batches up to this; one record at least
    #[arg(long, value_name = "BYTES", default_value_t = 65536, value_parser = clap::value_parser!(u32).range(..=RECORD_LIMIT))]
    batch_bytes: u32,
    /// Receive the batches into memory, as any broker has to; otherwise the kernel drops them
    #[arg(long)]
    receive: bool,
    /// Receive them, take their checksum and write them to this file, made new, in groups of 1 MiB
    /// behind the acknowledgement
    #[arg(long, value_name = "FILE")]
    write_behind: Option<PathBuf>,
    /// Spoil one batch in a hundred, to see a verifying consumer fail
    #[arg(long, value_enum)]
    spoil: Option<Spoil>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Spoil {
    /// A byte that the checksum does not know of
    Crc,
    /// One left out
    Gap,
    /// One twice
    Repeat,
}

impl NullArguments {
    fn main(self) -> ExitCode {
        let spoil = self.spoil.map(|spoil| match spoil {
            Spoil::Crc => bench::Spoil::Crc,
            Spoil::Gap => bench::Spoil::Gap,
            Spoil::Repeat => bench::Spoil::Repeat,
        });
        let options = bench::Null {
            listen: self.listen,
            cpu: self.cpu,
            partitions: self.partitions,
            record_size: self.record_size as usize,
            batch_bytes: self.batch_bytes as usize,
            spoil,
            receive: self.receive,
            write_behind: self.write_behind,
        };
        let ready = |address| say(&format!("the null broker listens on {address}"));
        match bench::serve(&options, ready, move |why| say(&format!("a connection was ended: {why}"))) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        }
    }
}

#[derive(Args)]
struct Common {
    /// A broker
    #[arg(long = "bootstrap-server", alias = "bootstrap", value_name = "HOST:PORT", default_value = "127.0.0.1:9092")]
    bootstrap: String,
    /// Made if it is not there (not by consume)
    #[arg(long, default_value = "corelane-bench")]
    topic: String,
    /// Use the first N partitions [default: all; 1 for a topic that is made]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..))]
    partitions: Option<i32>,
    /// Partitions are shared out among them; those in excess share partitions
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    connections: u16,
    /// Threads, among which the connections are shared out
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
    /// Pin to this CPU; one for each thread, separated by commas
    #[arg(long, value_name = "CPU", value_delimiter = ',')]
    cpu: Vec<usize>,
    /// What is measured, seconds [default: 10; consume from earliest: until the end]
    #[arg(long, value_name = "S", value_parser = seconds)]
    duration: Option<Duration>,
    /// Run so long before that, and discard it, seconds
    #[arg(long, value_name = "S", default_value = "0", value_parser = seconds)]
    warmup: Duration,
    /// The result, on stdout
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Write the latencies' percentile distribution here
    #[arg(long, value_name = "FILE")]
    hgrm: Option<PathBuf>,
    /// Write a latency histogram a second here, in HdrHistogram's log format
    #[arg(long, value_name = "FILE")]
    interval_log: Option<PathBuf>,
    /// Say nothing but the result: no progress bar, no line a second
    #[arg(long)]
    quiet: bool,
    /// Go on after errors and do not fail for them; they are counted all the same
    #[arg(long)]
    tolerate: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Format {
    Text,
    Json,
}

#[derive(Args)]
struct Producing {
    /// Answers wanted: 0 (none: timed until the kernel has the request), 1 or all
    #[arg(long, default_value = "all", value_parser = acks)]
    acks: i16,
    /// Requests under way on each connection
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
    in_flight: u16,
}

#[derive(Args)]
pub(super) struct ProduceArguments {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    producing: Producing,
    /// Bytes of a record's value
    #[arg(long, value_name = "BYTES", default_value_t = 1024, value_parser = clap::value_parser!(u32).range(..=RECORD_LIMIT))]
    record_size: u32,
    /// Records fill a batch up to this, before compression; one record at least
    #[arg(long, value_name = "BYTES", default_value_t = 65536, value_parser = clap::value_parser!(u32).range(..=RECORD_LIMIT))]
    batch_bytes: u32,
    /// Compression of the batches, done once before the run
    #[arg(long, value_enum, default_value_t = Codec::None)]
    codec: Codec,
    /// How much of each value compresses well; the rest does not at all [default:
    /// 50 with a codec, else 0]
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(..=100))]
    compressible: Option<u8>,
    /// Megabytes (10^6) of batches as they are on the wire a second, timed from when each was
    /// due; 0: as fast as possible
    #[arg(long, value_name = "MB/S", default_value_t = 0.0, value_parser = rate)]
    rate: f64,
}

const RECORD_LIMIT: i64 = 64 << 20;

#[derive(Clone, Copy, ValueEnum)]
enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    fn model(self) -> record_batch::Codec {
        match self {
            Codec::None => record_batch::Codec::None,
            Codec::Gzip => record_batch::Codec::Gzip,
            Codec::Snappy => record_batch::Codec::Snappy,
            Codec::Lz4 => record_batch::Codec::Lz4,
            Codec::Zstd => record_batch::Codec::Zstd,
        }
    }
}

#[derive(Args)]
pub(super) struct E2eArguments {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    producing: Producing,
    /// Bytes of a record's value
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(24..=RECORD_LIMIT))]
    record_size: u32,
    /// Records that become due while no request can leave go together, up to this
    #[arg(long, value_name = "BYTES", default_value_t = 65536, value_parser = clap::value_parser!(u32).range(..=RECORD_LIMIT))]
    batch_bytes: u32,
    /// Records a second, over all connections
    #[arg(long, value_name = "N", default_value_t = 1000.0, value_parser = positive_rate)]
    rate: f64,
}

#[derive(Args)]
pub(super) struct ConsumeArguments {
    #[command(flatten)]
    common: Common,
    /// Where to begin; from the end, records yet to come are read
    #[arg(long, value_enum, default_value_t = From::Earliest)]
    from: From,
    /// Check every batch's CRC, and that no record is missing, twice there or out of order
    /// (not for compacted topics)
    #[arg(long)]
    verify: bool,
    /// Read every partition so many times, each time by other connections
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    fan_out: u16,
    /// The broker waits for so much before it answers a fetch
    #[arg(long, value_name = "BYTES", default_value_t = 1, value_parser = clap::value_parser!(i32).range(0..=256 << 20))]
    fetch_min_bytes: i32,
    /// But no longer than this
    #[arg(long, value_name = "MS", default_value_t = 500, value_parser = clap::value_parser!(i32).range(0..=60_000))]
    fetch_max_wait_ms: i32,
    /// Per fetch
    #[arg(long, value_name = "BYTES", default_value_t = 50 << 20, value_parser = clap::value_parser!(i32).range(1..=256 << 20))]
    max_bytes: i32,
    /// Per fetch and partition
    #[arg(long, value_name = "BYTES", default_value_t = 1 << 20, value_parser = clap::value_parser!(i32).range(1..=256 << 20))]
    partition_max_bytes: i32,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum From {
    Earliest,
    End,
}

#[derive(Args)]
pub(super) struct RequestsArguments {
    #[command(flatten)]
    common: Common,
    #[command(flatten)]
    producing: Producing,
    /// Bytes of the record's value, incompressible
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = clap::value_parser!(u32).range(..=RECORD_LIMIT))]
    record_size: u32,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let number: f64 = text.trim_end_matches('s').parse().map_err(|_| "it must be a number of seconds")?;
    Duration::try_from_secs_f64(number).map_err(|e| e.to_string())
}

fn acks(text: &str) -> Result<i16, String> {
    match text {
        "0" => Ok(0),
        "1" => Ok(1),
        "all" | "-1" => Ok(-1),
        _ => Err("it must be 0, 1 or all".into()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number >= 0.0 => Ok(number),
        _ => Err("it must be a number, 0 or more".into()),
    }
}

fn positive_rate(text: &str) -> Result<f64, String> {
    rate(text).and_then(|number| if number > 0.0 { Ok(number) } else { Err("it must be more than 0".into()) })
}

/// 0: done; 1: it could not be done, or there were errors; 3: the rate was not carried.
pub(super) fn main(command: BenchCommand) -> ExitCode {
    let (common, work) = match command {
        BenchCommand::Idle(arguments) => return arguments.main(),
        BenchCommand::Null(arguments) => return arguments.main(),
        BenchCommand::Produce(arguments) => arguments.split(),
        BenchCommand::Requests(arguments) => arguments.split(),
        BenchCommand::E2e(arguments) => arguments.split(),
        BenchCommand::Consume(arguments) => arguments.split(),
    };
    let options = options(&common, work);
    let report = match measure(&common, &options) {
        Ok(report) => report,
        Err(message) => return fail(&message),
    };
    if let Err(message) = write(&common, &report) {
        return fail(&message);
    }
    if !report.errors().is_empty() && !common.tolerate {
        ExitCode::FAILURE
    } else if report.is_void() {
        ExitCode::from(VOID)
    } else {
        ExitCode::SUCCESS
    }
}

fn measure(common: &Common, options: &Options) -> Result<Report, String> {
    let named = |path: &Path, e: &dyn Display| format!("cannot write {}: {e}", path.display());
    let mut file = None;
    if let Some(path) = &common.interval_log {
        file = Some(LogFile::new(File::create(path).map_err(|e| named(path, &e))?));
    }
    let mut file = file.as_mut();
    let (mut log, mut failed) = (None, None);
    let progress = Progress::new(common.quiet, options.duration.map(|duration| options.warmup + duration));
    let report = bench::run(options, |second, interval| {
        let warming_up = Duration::from_secs(second) <= options.warmup;
        progress.second(second, &bench::interval_line(warming_up, interval));
        if let Some(file) = file.take() {
            match file.begin(Duration::from_secs(second)) {
                Ok(begun) => log = Some(begun),
                Err(error) => failed = Some(error),
            }
        }
        if let Some(Err(error)) = log.as_mut().map(|log| log.write(second, warming_up, interval)) {
            (log, failed) = (None, Some(error));
        }
    });
    progress.end();
    // The result is worth more than its log.
    if let (Some(error), Some(path)) = (failed, &common.interval_log) {
        say(&named(path, &error));
    }
    report.map_err(|e| e.to_string())
}

fn write(common: &Common, report: &Report) -> Result<(), String> {
    let text = match common.format {
        Format::Text => report.table(),
        Format::Json => format!("{}\n", report.json()),
    };
    print(&text)?;
    let Some(path) = &common.hgrm else { return Ok(()) };
    fs::write(path, bench::hgrm(report.latency())).map_err(|e| format!("cannot write {}: {e}", path.display()))
}

impl ProduceArguments {
    fn split(self) -> (Common, Work) {
        let codec = self.codec.model();
        let text_percent = if codec == record_batch::Codec::None { 0 } else { 50 };
        let work = Work::Produce(bench::Produce {
            single: false,
            record_size: self.record_size as usize,
            batch_bytes: self.batch_bytes as usize,
            codec,
            compressible: self.compressible.unwrap_or(text_percent),
            acks: self.producing.acks,
            in_flight: usize::from(self.producing.in_flight),
            rate: (self.rate > 0.0).then_some(self.rate),
        });
        (self.common, work)
    }
}

impl RequestsArguments {
    fn split(self) -> (Common, Work) {
        let work = Work::Produce(bench::Produce {
            single: true,
            record_size: self.record_size as usize,
            batch_bytes: 0,
            codec: record_batch::Codec::None,
            compressible: 0,
            acks: self.producing.acks,
            in_flight: usize::from(self.producing.in_flight),
            rate: None,
        });
        (self.common, work)
    }
}

impl E2eArguments {
    fn split(self) -> (Common, Work) {
        let work = Work::E2e(bench::E2e {
            rate: self.rate,
            record_size: self.record_size as usize,
            batch_bytes: self.batch_bytes as usize,
            acks: self.producing.acks,
            in_flight: usize::from(self.producing.in_flight),
        });
        (self.common, work)
    }
}

impl ConsumeArguments {
    fn split(self) -> (Common, Work) {
        let work = Work::Consume(bench::Consume {
            from: match self.from {
                From::Earliest => bench::From::Earliest,
                From::End => bench::From::End,
            },
            verify: self.verify,
            fan_out: usize::from(self.fan_out),
            min_bytes: self.fetch_min_bytes,
            max_wait_ms: self.fetch_max_wait_ms,
            max_bytes: self.max_bytes,
            partition_max_bytes: self.partition_max_bytes,
        });
        (self.common, work)
    }
}

fn options(common: &Common, work: Work) -> Options {
    let to_the_end = matches!(&work, Work::Consume(consume) if consume.from == bench::From::Earliest);
    Options {
        bootstrap: common.bootstrap.clone(),
        topic: common.topic.clone(),
        partitions: common.partitions,
        connections: usize::from(common.connections),
        threads: common.threads,
        cpus: common.cpu.clone(),
        duration: common.duration.or((!to_the_end).then_some(DEFAULT_DURATION)),
        warmup: common.warmup,
        tolerate: common.tolerate,
        work,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_held_to_their_bounds() {
        assert_eq!(seconds("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(seconds("2s"), Ok(Duration::from_secs(2)));
        assert!(seconds("-1").is_err() && seconds("x").is_err() && seconds("nan").is_err());
        assert_eq!((acks("all"), acks("0")), (Ok(-1), Ok(0)));
        assert!(acks("2").is_err());
        assert!(rate("inf").is_err() && rate("-1").is_err() && positive_rate("0").is_err());
    }
}
