//! A picture as text.

use serde_json::Value;

use super::look::slow_ms;
use super::picture::{Picture, unavailable, under_replicated};
use crate::cli::moment::time_of_day;
use crate::cli::report::{or_dash, table};

/// Lines of a list beside its rows: its name, its heads and the gap.
const LINES_BESIDE: usize = 3;
const LISTS: usize = 5;
/// Lines above the lists.
const HEAD: usize = 2;
/// Rows that each list has at least.
const LEAST: usize = 3;

/// Rows of each list on a terminal with so many lines.
pub(super) fn rows_for(lines: usize) -> usize {
    (lines.saturating_sub(HEAD + LISTS * LINES_BESIDE) / LISTS).max(LEAST)
}

/// A number with three digits or so: `12.3k`.
fn short(value: f64) -> String {
    let size = value.abs();
    let units = [(999.5, 1.0, ""), (999_500.0, 1e3, "k"), (999_500_000.0, 1e6, "M"), (f64::INFINITY, 1e9, "G")];
    let (_, by, unit) = units.into_iter().find(|(below, ..)| size < *below).unwrap_or((0.0, 1e9, "G"));
    let value = value / by;
    let digits =
        [(9.995, 2), (99.95, 1)].into_iter().find(|(below, _)| value.abs() < *below).map_or(0, |(_, digits)| digits);
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

pub(super) fn text(picture: &Picture, most: usize, interval: f64) -> String {
    let now = picture.now();
    let sum = |of: fn(&crate::client::cluster_client::Topic) -> usize| now.topics.iter().map(of).sum::<usize>();
    let mut text = format!(
        "cluster {}   {} brokers   {} topics   {} partitions, {} under-replicated, {} unavailable   {} groups   {} UTC, each {} s\n",
        or_dash(now.cluster_id.clone()),
        now.brokers.len(),
        now.topics.len(),
        sum(|topic| topic.partitions.len()),
        sum(under_replicated),
        sum(unavailable),
        {
            let mut names: Vec<&str> = now.groups.iter().map(|sum| sum.group.as_str()).collect();
            names.dedup();
            names.len()
        },
        time_of_day(now.at_ms),
        short(interval),
    );
    let mut list = |name: &str, heads: &[&str], rows: Vec<Vec<String>>, none: &str| {
        let all = rows.len();
        let more = if all > most { format!(" ({most} of {all})") } else { String::new() };
        text.push_str(&format!("\n{name}{more}\n"));
        match all {
            0 => text.push_str(&format!("  {none}\n")),
            _ => text.push_str(&table(heads, rows.into_iter().take(most).collect())),
        }
    };
    let without = now.brokers.iter().all(|broker| broker.scrape.is_none());
    let unseen = "not known: no broker's metrics are in reach (--metrics HOST:PORT)";
    let shards = picture.shards().into_iter().map(|row| {
        vec![
            row.broker.to_string(),
            row.shard.to_string(),
            format!("{:.0}%", row.busy * 100.0),
            short(row.now.connections),
            short(row.received),
            short(row.sent),
            short(row.now.io_in_flight),
            short(row.now.waiting_messages),
        ]
    });
    let heads = ["BROKER", "SHARD", "BUSY", "CONNECTIONS", "BYTES-IN/S", "BYTES-OUT/S", "IO-IN-FLIGHT", "WAITING"];
    list("Shards", &heads, shards.collect(), unseen);
    let topics = picture.topics().into_iter().map(|row| {
        vec![
            row.topic.name.clone(),
            row.topic.partitions.len().to_string(),
            or_dash(row.records_in.map(short)),
            or_dash(row.bytes_in.map(short)),
            or_dash(row.bytes_out.map(short)),
        ]
    });
    let heads = ["TOPIC", "PARTITIONS", "RECORDS-IN/S", "BYTES-IN/S", "BYTES-OUT/S"];
    list("Topics", &heads, topics.collect(), "there are none");
    let groups = picture.groups().into_iter().map(|row| {
        vec![
            row.group.to_owned(),
            row.topic.to_owned(),
            row.state.to_owned(),
            row.lag.to_string(),
            row.worst.to_string(),
            or_dash(row.rise.map(short)),
        ]
    });
    let heads = ["GROUP", "TOPIC", "STATE", "LAG", "MAX-LAG", "LAG-RISE/S"];
    list("Groups by lag", &heads, groups.collect(), "there are none that have read anything");
    let clients = picture
        .clients()
        .into_iter()
        .map(|row| vec![name(&row.software), name(&row.version), short(row.connections)])
        .collect();
    list("Clients", &["SOFTWARE", "VERSION", "CONNECTIONS"], clients, if without { unseen } else { "there are none" });
    let slow = picture.slow().iter().map(|request| slow_row(request, now.at_ms)).collect();
    let heads = ["AGO", "BROKER", "API", "CLIENT", "PARTITION", "TOOK", "WAITED"];
    list("Slowest requests of the last minute", &heads, slow, if without { unseen } else { "there are none" });
    now.notes.iter().for_each(|note| text.push_str(&format!("\n{note}")));
    if !now.notes.is_empty() {
        text.push('\n');
    }
    text
}

fn name(text: &str) -> String {
    or_dash(Some(text.to_owned()).filter(|text| !text.is_empty()))
}

fn slow_row(request: &Value, now_ms: i64) -> Vec<String> {
    let text = |field: &str| or_dash(request[field].as_str().map(str::to_owned));
    let partition = match (request["topic"].as_str(), request["partition"].as_i64()) {
        (Some(topic), Some(partition)) => format!("{topic}-{partition}"),
        _ => "-".to_owned(),
    };
    let ago = request["sent_at_ms"].as_i64().map(|at| format!("{}s", ((now_ms - at) / 1000).max(0)));
    vec![
        or_dash(ago),
        or_dash(request["broker"].as_i64()),
        text("api"),
        text("client_id"),
        partition,
        format!("{:.1}ms", slow_ms(request)),
        text("in_words"),
    ]
}

/// As much of each line as the terminal is wide, and of the lines as it is high.
pub(super) fn cut(text: &str, width: usize, height: usize) -> String {
    let line = |line: &str| line.chars().take(width).collect::<String>();
    text.lines().take(height).map(line).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::super::picture::tests::look;
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 1.0, 0.256, 12.34, 999.0, 999.6, 1000.0, 12_345.0, 1_234_567.0, 5e9, -20.0].map(short);
        assert_eq!(shown, ["0", "1", "0.26", "12.3", "999", "1k", "1k", "12.3k", "1.23M", "5G", "-20"]);
    }

    #[test]
    fn a_picture_has_all_lists() {
        let (before, now) = (look(10.0, true), look(12.0, true));
        let shown = text(&Picture::new(&before, &now), 2, 2.0);
        for part in
            ["cluster abc", "3 partitions, 3 under-replicated", "25%", "Topics (2 of 3)", "5k", "librdkafka", "7.5ms"]
        {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        let (before, now) = (look(10.0, false), look(12.0, false));
        let shown = text(&Picture::new(&before, &now), 2, 2.0);
        assert_eq!(shown.matches("--metrics HOST:PORT").count(), 2, "{shown}");
    }

    #[test]
    fn lines_are_cut_to_the_terminal() {
        assert_eq!(cut("äbc\nde\nf\n", 2, 2), "äb\nde");
        assert_eq!([rows_for(24), rows_for(0), rows_for(67)], [3, 3, 10]);
    }
}
