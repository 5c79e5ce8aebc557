//! `corelane log dump`: a line a batch, or a record.

use std::io::{self, ErrorKind, Write};
use std::ops::ControlFlow;
use std::process::ExitCode;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::arguments::Dump;
use crate::cli::connect::Format;
use crate::cli::content::content;
use crate::cli::report::say;
use crate::model::record_batch::BatchHeader;
use crate::model::records::{self, RecordView};
use crate::model::{EndMarker, MarkerKind};
use crate::storage::{Piece, find_partitions};

/// Bytes of a key or value that a line shows.
const SHOWN_BYTES: usize = 80;

struct Printer<'a, W> {
    out: W,
    arguments: &'a Dump,
    format: Format,
    printed: u64,
    /// Damage that was met, and batches whose records cannot be read.
    complaints: Vec<String>,
    failed: io::Result<()>,
}

pub(super) fn main(arguments: &Dump, format: Format) -> ExitCode {
    let mut printer = Printer {
        out: io::BufWriter::new(io::stdout().lock()),
        arguments,
        format,
        printed: 0,
        complaints: Vec::new(),
        failed: Ok(()),
    };
    let outcome = printer.run().and_then(|()| printer.out.flush());
    printer.complaints.iter().for_each(|line| say(line));
    match outcome {
        // A pager that has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("{}: {error}", arguments.path.display()));
            ExitCode::FAILURE
        }
        Ok(()) if printer.complaints.is_empty() => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
    }
}

impl<W: Write> Printer<'_, W> {
    fn run(&mut self) -> io::Result<()> {
        let found = find_partitions(&self.arguments.path)?;
        let [partition] = found.as_slice() else {
            let why = format!("it holds {} partitions: name one of them, or a segment", found.len());
            return Err(io::Error::new(ErrorKind::InvalidInput, why));
        };
        self.heads()?;
        let from = self.arguments.from;
        let first = partition.segments.iter().rposition(|base| *base <= from).unwrap_or(0);
        for base in &partition.segments[first..] {
            if self.is_full() {
                break;
            }
            partition.walk(*base, &mut |piece| self.piece(piece))?;
            std::mem::replace(&mut self.failed, Ok(()))?;
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.arguments.max.is_some_and(|max| self.printed >= max)
    }

    fn heads(&mut self) -> io::Result<()> {
        match (self.format, self.arguments.records) {
            (Format::Json, _) => Ok(()),
            (Format::Text, false) => writeln!(
                self.out,
                "{:>12} {:>12} {:>10} {:>8} {:>7} {:<6} {:<24} {:>6} {:>12} {:>6} {:>10} FLAGS",
                "FIRST",
                "LAST",
                "POSITION",
                "BYTES",
                "RECORDS",
                "CODEC",
                "MAX-TIMESTAMP",
                "LEADER",
                "PRODUCER",
                "EPOCH",
                "SEQUENCE"
            ),
            (Format::Text, true) => writeln!(self.out, "{:>12} {:<24} KEY VALUE", "OFFSET", "TIMESTAMP"),
        }
    }

    fn piece(&mut self, piece: Piece<'_>) -> ControlFlow<()> {
        if self.is_full() {
            return ControlFlow::Break(());
        }
        match piece {
            Piece::Damage { bytes, why, .. } => {
                self.complaints.push(format!("bytes {} to {} are damaged: {why}", bytes.start, bytes.end - 1));
            }
            Piece::Batch { header, .. } if header.next_offset() <= self.arguments.from => {}
            Piece::Batch { header, bytes, .. } if self.arguments.records => return self.records(header, bytes),
            Piece::Batch { position, header, bytes } => {
                self.failed = self.batch(position, header, bytes);
                self.printed += 1;
            }
        }
        if self.failed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    fn batch(&mut self, position: u64, header: &BatchHeader, bytes: &[u8]) -> io::Result<()> {
        let flags = flags(header, bytes);
        if self.format == Format::Json {
            return writeln!(self.out, "{}", batch_object(position, header, &flags));
        }
        let (epoch, sequence, producer) = match header.is_idempotent() {
            true => (
                header.producer_epoch.get().to_string(),
                header.base_sequence.get().to_string(),
                header.producer_id.get().to_string(),
            ),
            false => ("-".to_owned(), "-".to_owned(), "-".to_owned()),
        };
        let line = format!(
            "{:>12} {:>12} {:>10} {:>8} {:>7} {:<6} {:<24} {:>6} {:>12} {:>6} {:>10} {}",
            header.base(),
            header.next_offset() - 1,
            position,
            header.total_bytes(),
            header.record_count.get(),
            codec(header),
            time(header.max_timestamp.get()),
            header.partition_leader_epoch.get(),
            producer,
            epoch,
            sequence,
            flags.join(",")
        );
        writeln!(self.out, "{}", line.trim_end())
    }

    fn records(&mut self, header: &BatchHeader, bytes: &[u8]) -> ControlFlow<()> {
        let outcome = records::read(bytes, &mut |record| {
            if self.is_full() {
                return ControlFlow::Break(());
            }
            if record.meta.offset >= self.arguments.from {
                self.failed = self.record(record);
                self.printed += 1;
            }
            if self.failed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        if let Err(error) = outcome {
            self.complaints.push(format!("the batch of offset {}: {error}", header.base()));
        }
        if self.failed.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    }

    fn record(&mut self, record: &RecordView<'_>) -> io::Result<()> {
        let (offset, timestamp) = (record.meta.offset, record.meta.timestamp_ms);
        if self.format == Format::Json {
            let object = json!({
                "offset": offset, "timestamp_ms": timestamp, "key": content(record.key), "value": content(record.value),
            });
            return writeln!(self.out, "{object}");
        }
        writeln!(self.out, "{offset:>12} {:<24} {} {}", time(timestamp), shown(record.key), shown(record.value))
    }
}

fn batch_object(position: u64, header: &BatchHeader, flags: &[&str]) -> Value {
    let idempotent = header.is_idempotent();
    json!({
        "first_offset": header.base(), "last_offset": header.next_offset() - 1, "position": position,
        "bytes": header.total_bytes(), "records": header.record_count.get(), "codec": codec(header),
        "base_timestamp_ms": header.base_timestamp.get(), "max_timestamp_ms": header.max_timestamp.get(),
        "leader_epoch": header.partition_leader_epoch.get(),
        "producer_id": idempotent.then(|| header.producer_id.get()),
        "producer_epoch": idempotent.then(|| header.producer_epoch.get()),
        "base_sequence": idempotent.then(|| header.base_sequence.get()),
        "flags": flags,
    })
}

fn codec(header: &BatchHeader) -> String {
    header.codec().map_or_else(|| "?".to_owned(), |codec| format!("{codec:?}").to_lowercase())
}

fn flags(header: &BatchHeader, bytes: &[u8]) -> Vec<&'static str> {
    let end = EndMarker::of(bytes).map(|end| end.kind);
    let flags = [
        (header.is_transactional(), "transactional"),
        (header.is_control(), "control"),
        (end == Some(MarkerKind::Commit), "commit"),
        (end == Some(MarkerKind::Abort), "abort"),
        (header.is_log_append_time(), "append-time"),
        (header.delete_horizon_ms().is_some(), "delete-horizon"),
    ];
    flags.into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect()
}

/// In UTC; `-` for none.
fn time(ms: i64) -> String {
    if ms < 0 {
        return "-".to_owned();
    }
    Timestamp::from_millisecond(ms).map_or_else(|_| ms.to_string(), |at| format!("{at:.3}"))
}

/// On one line, cut where it is long.
fn shown(bytes: Option<&[u8]>) -> String {
    let Some(bytes) = bytes else { return "null".to_owned() };
    let text = bytes[..bytes.len().min(SHOWN_BYTES)].escape_ascii().to_string();
    if bytes.len() > SHOWN_BYTES { format!("\"{text}\"... ({} bytes)", bytes.len()) } else { format!("\"{text}\"") }
}
