//! `corelane tune`: what is off on this host, and the options that fit its device.

use std::fs::OpenOptions;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};

use crate::runtime::probe;
use crate::runtime::process::{self, StopFlag};
use crate::tune::{self, Host, MeasureError, Measured, Profile, Report, Step};

/// Exit code of `--check` when something is off.
const OFF: u8 = 3;
/// Exit code after SIGINT or SIGTERM.
const INTERRUPTED: u8 = 130;

const SMALLEST_IO_MEMORY: usize = 1 << 20;

#[derive(Args)]
#[command(
    after_help = "Measures the disk for some seconds (up to 1 GiB of direct I/O) and changes nothing of the system without --apply.\n\n\
    Exit codes: 0 done (with --check: nothing is off); 1 it could not be done, or a change failed; 3 with --check: something is \
    off; 130 interrupted"
)]
pub(super) struct TuneArguments {
    /// The data directory (log.dirs) whose disk is meant; where it does not exist yet, the
    /// directory above it that does
    #[arg(long, value_name = "DIR", default_value = "./data")]
    data: PathBuf,
    /// Only look: measures nothing, writes nothing; exit code 3 when something is off
    #[arg(long, conflicts_with_all = ["apply", "force", "profile"])]
    check: bool,
    /// Also make the changes below /proc/sys and /sys that are listed; they last until the
    /// next start of the machine
    #[arg(long)]
    apply: bool,
    /// The report, on stdout
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Where to write the options, for `corelane server FILE`
    #[arg(long, value_name = "FILE", default_value = "./corelane-tuned.properties")]
    profile: PathBuf,
    /// Overwrite that file
    #[arg(long)]
    force: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Format {
    Text,
    Json,
}

/// Why the command ends without having done its work.
enum Failure {
    Message(String),
    Interrupted,
}

impl From<String> for Failure {
    fn from(message: String) -> Failure {
        Failure::Message(message)
    }
}

pub(super) fn main(arguments: TuneArguments) -> ExitCode {
    match run(&arguments) {
        Ok(code) => code,
        Err(Failure::Interrupted) => {
            let _ = writeln!(io::stderr(), "corelane: {}", MeasureError::Interrupted);
            ExitCode::from(INTERRUPTED)
        }
        Err(Failure::Message(message)) => {
            let _ = writeln!(io::stderr(), "corelane: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &TuneArguments) -> Result<ExitCode, Failure> {
    let directory = existing(&arguments.data)?;
    if !arguments.check && !arguments.force && arguments.profile.exists() {
        return Err(exists(&arguments.profile).into());
    }
    let mut host = Host::read(Path::new("/"), &directory);
    host.io_uring_refused = refusal();
    let measured = if arguments.check || !can_measure(&host) { None } else { Some(measure(&directory)?) };
    let fit = tune::fit(&host, measured.as_ref());
    let findings = tune::findings(&host, fit.class);
    let profile = Profile::fitted(fit.class, measured.as_ref());
    let directory = directory.display().to_string();
    let report = Report { directory, host, measured, fit, findings, profile };
    if arguments.check {
        show(arguments, &report, None, &[])?;
        return Ok(if report.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(OFF) });
    }
    write_profile(arguments, &report)?;
    let applied = if arguments.apply { apply(&report) } else { Vec::new() };
    show(arguments, &report, Some(&arguments.profile.display().to_string()), &applied)?;
    let failed = applied.iter().any(|(_, error)| error.is_some());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The directory itself, or the nearest one above it; absolute, links resolved.
fn existing(data: &Path) -> Result<PathBuf, String> {
    let absolute = std::path::absolute(data).map_err(|e| format!("--data {}: {e}", data.display()))?;
    let found = absolute.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let found = found.canonicalize().map_err(|e| format!("--data {}: {e}", found.display()))?;
    if !found.is_dir() {
        return Err(format!("--data {}: {} is not a directory", data.display(), found.display()));
    }
    Ok(found)
}

/// Why this kernel refuses a ring. The limit of locked memory is a finding of its own.
fn refusal() -> Option<String> {
    let io_memory = probe::fitting_io_memory(1, SMALLEST_IO_MEMORY);
    probe::check_io_uring(1, io_memory).err().map(|error| error.to_string())
}

/// False of a host that cannot be measured, which is a finding already.
fn can_measure(host: &Host) -> bool {
    host.io_uring_refused.is_none() && !host.mount.as_ref().is_some_and(tune::Mount::is_memory)
}

fn measure(directory: &Path) -> Result<Measured, Failure> {
    let stop = StopFlag::default();
    let waiting = stop.clone();
    // Ends with the process.
    std::thread::Builder::new()
        .name("signals".to_owned())
        .spawn(move || process::wait_for_stop(&waiting).ok())
        .map_err(|e| format!("signals cannot be waited for: {e}"))?;
    let bar = progress_bar();
    let outcome = tune::measure(directory, &stop, |Step { done, of, what }| {
        bar.set_length(*of);
        bar.set_position(*done);
        bar.set_message(what.clone());
    });
    bar.finish_and_clear();
    // Ends the waiting thread.
    stop.set();
    outcome.map_err(|error| match error {
        MeasureError::Interrupted => Failure::Interrupted,
        other => Failure::Message(other.to_string()),
    })
}

/// On a terminal only.
fn progress_bar() -> ProgressBar {
    if !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(1);
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} {wide_msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn exists(path: &Path) -> String {
    format!("{} exists already; --force overwrites it, --profile FILE writes another", path.display())
}

fn write_profile(arguments: &TuneArguments, report: &Report) -> Result<(), String> {
    let path = &arguments.profile;
    let text = report.profile.text(&report.fit, &report.directory, report.measured.as_ref());
    let mut options = OpenOptions::new();
    options.write(true);
    if arguments.force {
        options.create(true).truncate(true)
    } else {
        options.create_new(true)
    };
    let written = options.open(path).and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        _ => format!("cannot write {}: {error}", path.display()),
    })
}

/// Makes the listed changes, each shown on stderr with its outcome: (command, error).
fn apply(report: &Report) -> Vec<(String, Option<String>)> {
    let mut applied = Vec::new();
    for finding in &report.findings {
        let Some(outcome) = finding.mend.apply(Path::new("/")) else { continue };
        let error = outcome.err().map(|error| error.to_string());
        let command = finding.mend.to_string();
        let _ = match &error {
            None => writeln!(io::stderr(), "done: {command}"),
            Some(error) => writeln!(io::stderr(), "failed: {command}: {error}"),
        };
        applied.push((command, error));
    }
    applied
}

fn show(
    arguments: &TuneArguments,
    report: &Report,
    written: Option<&str>,
    applied: &[(String, Option<String>)],
) -> Result<(), String> {
    let text = match arguments.format {
        Format::Json => format!("{:#}\n", tune::json(report, written, applied)),
        Format::Text => match written {
            Some(path) => format!("{}\nWritten: {path}, for `corelane server {path}`\n", report.text()),
            None => report.text(),
        },
    };
    io::stdout().write_all(text.as_bytes()).map_err(|e| format!("cannot write to stdout: {e}"))
}
