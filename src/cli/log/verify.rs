//! `corelane log verify`.

use std::fmt::Write;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use serde_json::{Value, json};

use super::arguments::Verify;
use crate::cli::connect::Format;
use crate::cli::report::{Report, finish};
use crate::storage::{ARENA_FOLDER, Damage, PartitionFiles, SegmentReport, find_partitions, list_arenas};

#[derive(Default)]
struct Sums {
    partitions: u64,
    segments: u64,
    batches: u64,
    records: u64,
    bytes: u64,
}

/// Findings so far.
#[derive(Default)]
struct Findings {
    sums: Sums,
    damage: Vec<Damage>,
    failed: Vec<String>,
    notes: Vec<String>,
}

pub(super) fn main(arguments: &Verify, format: Format) -> ExitCode {
    let mut findings = Findings::default();
    for path in &arguments.paths {
        if let Err(error) = findings.look_at(path, arguments.deep) {
            findings.failed.push(format!("{}: {error}", path.display()));
        }
    }
    finish(findings.report(), format)
}

impl Findings {
    fn look_at(&mut self, path: &Path, deep: bool) -> io::Result<()> {
        let partitions = find_partitions(path)?;
        if partitions.is_empty() {
            let why = "it holds no partition: name a data directory (of log.dirs), a partition's, or a segment";
            self.failed.push(format!("{}: {why}", path.display()));
        }
        self.note_arenas(path)?;
        for partition in partitions {
            self.sums.partitions += 1;
            self.look_at_partition(&partition, deep);
        }
        Ok(())
    }

    /// Records that a killed broker has left in an arena are in no segment yet.
    fn note_arenas(&mut self, path: &Path) -> io::Result<()> {
        if !path.join(ARENA_FOLDER).is_dir() {
            return Ok(());
        }
        let held = list_arenas(path)?.arenas.iter().filter(|arena| !arena.held.is_empty()).count();
        if held > 0 {
            self.notes.push(format!(
                "{} arena(s) of {} hold records that the next start writes to the segments (corelane arena show)",
                held,
                path.display()
            ));
        }
        Ok(())
    }

    fn look_at_partition(&mut self, partition: &PartitionFiles, deep: bool) {
        if let Some(why) = &partition.unread {
            self.failed.push(format!("{}: {why}", partition.dir.display()));
        }
        for base in &partition.segments {
            match partition.verify(*base, deep) {
                Ok(report) => self.add(report),
                Err(error) => {
                    self.failed.push(format!("{}, segment {base}: {error}", partition.dir.display()));
                }
            }
        }
        for path in &partition.set_aside {
            self.notes.push(format!("{}: damaged bytes that an earlier start has set aside", path.display()));
        }
    }

    fn add(&mut self, report: SegmentReport) {
        self.sums.segments += 1;
        self.sums.batches += report.batches;
        self.sums.records += report.records;
        self.sums.bytes += report.file_bytes;
        self.damage.extend(report.damage);
    }

    fn report(self) -> Report {
        let Sums { partitions, segments, batches, records, bytes } = self.sums;
        let mut text = String::new();
        for damage in &self.damage {
            let _ = writeln!(text, "{}", line(damage));
        }
        for note in &self.notes {
            let _ = writeln!(text, "note: {note}");
        }
        let verdict = match self.damage.len() {
            0 if self.failed.is_empty() => "sound".to_owned(),
            0 => "not all could be looked at".to_owned(),
            damaged => format!("damaged at {damaged} place(s)"),
        };
        let _ = writeln!(
            text,
            "{partitions} partition(s), {segments} segment(s), {bytes} bytes, {batches} batches, {records} records: {verdict}"
        );
        let mut failed = self.failed;
        let json = json!({
            "partitions": partitions, "segments": segments, "bytes": bytes, "batches": batches, "records": records,
            "damage": self.damage.iter().map(object).collect::<Vec<_>>(), "notes": self.notes, "failed": failed,
        });
        if !self.damage.is_empty() {
            failed.push(format!("{} damaged place(s) found", self.damage.len()));
        }
        Report { text, json, failed }
    }
}

fn line(damage: &Damage) -> String {
    let Damage { path, bytes, offsets, why, rebuilt } = damage;
    let missing = match offsets.end - offsets.start {
        _ if *rebuilt => "; the next start makes it anew from the log".to_owned(),
        1.. => format!("; offsets {} to {}", offsets.start, offsets.end - 1),
        _ => String::new(),
    };
    format!("{}: bytes {} to {}: {why}{missing}", path.display(), bytes.start, bytes.end.saturating_sub(1))
}

fn object(damage: &Damage) -> Value {
    json!({
        "file": damage.path, "first_byte": damage.bytes.start, "end_byte": damage.bytes.end, "reason": damage.why,
        "first_offset": (!damage.offsets.is_empty()).then_some(damage.offsets.start),
        "end_offset": (!damage.offsets.is_empty()).then_some(damage.offsets.end),
        "rebuilt": damage.rebuilt,
    })
}
