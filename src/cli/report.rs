//! Outcome of a command: a text for people, the same as JSON, and what went wrong.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Value, json};

use super::connect::Format;
use crate::client::{Refusal, error_constant};

#[derive(Default)]
pub(super) struct Report {
    pub text: String,
    /// Null: there is nothing to print.
    pub json: Value,
    /// Failures, one line each.
    pub failed: Vec<String>,
}

/// Prints it: the result to stdout, what failed to stderr.
pub(super) fn print(report: &Report, format: Format) -> Result<ExitCode, String> {
    let text = match format {
        Format::Text => report.text.clone(),
        // It has been printed while the command ran.
        Format::Json if report.json.is_null() => String::new(),
        Format::Json => format!("{:#}\n", report.json),
    };
    out(&text)?;
    report.failed.iter().for_each(|line| say(line));
    Ok(if report.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// [`print`] for a command that asks nobody.
pub(super) fn finish(report: Report, format: Format) -> ExitCode {
    print(&report, format).unwrap_or_else(|message| {
        say(&message);
        ExitCode::FAILURE
    })
}

/// To stdout. A reader (a pager) that has seen enough is no failure.
pub(super) fn out(text: &str) -> Result<(), String> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => Err(format!("cannot write to stdout: {e}")),
        _ => Ok(()),
    }
}

pub(super) fn say(line: &str) {
    let _ = writeln!(io::stderr(), "corelane: {line}");
}

/// Columns under their heads, two spaces apart; those that hold only numbers are aligned to the
/// right. Empty without rows.
pub(super) fn table(heads: &[&str], rows: Vec<Vec<String>>) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(heads);
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        let numeric = |cell: &String| matches!(cell.as_str(), "-" | "") || cell.parse::<f64>().is_ok();
        if rows.iter().all(|row| row.get(index).is_none_or(numeric)) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.add_rows(rows);
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// `1 partition`, `2 partitions`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// `1 partition has`, `2 partitions have`.
pub(super) fn have(count: usize, noun: &str) -> String {
    format!("{} {}", counted(count, noun), if count == 1 { "has" } else { "have" })
}

/// `1 partition is`, `2 partitions are`.
pub(super) fn are(count: usize, noun: &str) -> String {
    format!("{} {}", counted(count, noun), if count == 1 { "is" } else { "are" })
}

/// `1,2,3`; `-` for none.
pub(super) fn list<T: Display>(items: &[T]) -> String {
    if items.is_empty() {
        return "-".into();
    }
    items.iter().map(T::to_string).collect::<Vec<_>>().join(",")
}

/// The number, or `-`.
pub(super) fn or_dash<T: Display>(value: Option<T>) -> String {
    value.map_or_else(|| "-".into(), |value| value.to_string())
}

/// `item`, an object, with `error` and `message`: null, or Kafka's constant and the broker's words.
pub(super) fn with_outcome(mut item: Value, refusal: Option<&Refusal>) -> Value {
    item["error"] = refusal.map_or(Value::Null, |refusal| json!(error_constant(refusal.code)));
    item["message"] = refusal.map_or(Value::Null, |refusal| json!(refusal.to_string()));
    item
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_lines_end_without_spaces() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let text = table(&["TOPIC", "LAG", "HOST"], vec![row(["a", "7", "x"]), row(["long-name", "1234", "-"])]);
        assert_eq!(text, "TOPIC       LAG  HOST\na             7  x\nlong-name  1234  -\n");
        assert_eq!(table(&["TOPIC"], Vec::new()), "");
    }

    #[test]
    fn an_outcome_is_null_or_named() {
        let fine = with_outcome(json!({ "topic": "a" }), None);
        assert_eq!(fine, json!({ "topic": "a", "error": null, "message": null }));
        let refusal = Refusal { code: 36, message: Some("there".into()) };
        let refused = with_outcome(json!({ "topic": "a" }), Some(&refusal));
        assert_eq!(refused["error"], "TOPIC_ALREADY_EXISTS");
        assert_eq!(refused["message"], "there (TOPIC_ALREADY_EXISTS)");
    }
}
