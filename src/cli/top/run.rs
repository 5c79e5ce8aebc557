//! One look after the other.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::look::{Monitors, look};
use super::picture::Picture;
use super::show;
use crate::cli::connect::{Connect, Format, seconds};
use crate::cli::group::CLEAR;
use crate::cli::report::{Report, out, say};
use crate::client::ClusterClient;
use crate::runtime::clock;

/// Rows of each list where there is no terminal.
const ROWS: usize = 10;

#[derive(Args)]
pub(in crate::cli) struct TopArguments {
    #[command(flatten)]
    connect: Connect,
    #[command(flatten)]
    what: What,
}

#[derive(Args, Clone)]
struct What {
    /// Time between two looks; rates are of it
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
    interval: Duration,
    /// Print once, after one interval, and end
    #[arg(long)]
    once: bool,
    /// End after so many pictures
    #[arg(long, value_name = "N", conflicts_with = "once", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Rows of each list [default: what the terminal has room for; all
    /// with --format json, otherwise 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    rows: Option<u16>,
    /// Where brokers serve metrics (corelane.http.listener) [default: port 9644 of each
    /// broker's host, if there is any]
    #[arg(long, value_name = "HOST:PORT[,HOST:PORT...]", value_delimiter = ',', value_parser = monitor)]
    metrics: Vec<String>,
    #[arg(skip = Format::Text)]
    format: Format,
}

/// The address, also of a URL.
fn monitor(text: &str) -> Result<String, String> {
    let address = text.trim().strip_prefix("http://").unwrap_or(text.trim());
    let address = address.split('/').next().unwrap_or_default();
    match address.rsplit_once(':') {
        Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => Ok(address.to_owned()),
        _ => Err("it must read HOST:PORT or http://HOST:PORT".into()),
    }
}

pub(in crate::cli) fn main(arguments: TopArguments) -> ExitCode {
    let TopArguments { connect, what } = arguments;
    let what = What { format: connect.format, ..what };
    connect.run(what, top)
}

async fn top(mut client: ClusterClient, what: What) -> Result<Report, String> {
    let mut monitors = Monitors::new(what.metrics.clone());
    let mut before = look(&mut client, &mut monitors).await?;
    let mut done = 0;
    loop {
        clock::sleep(what.interval).await;
        match look(&mut client, &mut monitors).await {
            Ok(now) => {
                let picture = Picture::new(&before, &now);
                if what.once {
                    let text = show::text(&picture, what.rows_without_terminal(), what.interval.as_secs_f64());
                    return Ok(Report { text, json: picture.item(what.most()), failed: Vec::new() });
                }
                out(&what.shown(&picture))?;
                before = now;
            }
            // The cluster may be back at the next look.
            Err(error) => say(&error),
        }
        done += 1;
        if what.count.is_some_and(|count| done >= count) {
            return Ok(Report { json: Value::Null, ..Report::default() });
        }
    }
}

impl What {
    fn most(&self) -> usize {
        self.rows.map_or(usize::MAX, usize::from)
    }

    fn rows_without_terminal(&self) -> usize {
        self.rows.map_or(ROWS, usize::from)
    }

    /// A picture of several.
    fn shown(&self, picture: &Picture<'_>) -> String {
        if self.format == Format::Json {
            return format!("{}\n", picture.item(self.most()));
        }
        let interval = self.interval.as_secs_f64();
        let size = io::stdout().is_terminal().then(terminal_size::terminal_size).flatten();
        match size {
            None => format!("{}\n", show::text(picture, self.rows_without_terminal(), interval)),
            Some((width, height)) => {
                let (width, height) = (usize::from(width.0), usize::from(height.0));
                let rows = self.rows.map_or(show::rows_for(height), usize::from);
                // The last line stays empty, so that nothing scrolls.
                format!("{CLEAR}{}\n", show::cut(&show::text(picture, rows, interval), width, height.saturating_sub(1)))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn monitors_are_addresses_or_urls() {
        assert_eq!(monitor("h:1"), Ok("h:1".into()));
        assert_eq!(monitor(" http://[::1]:9644/metrics"), Ok("[::1]:9644".into()));
        for wrong in ["", "h", ":1", "h:x", "https://h"] {
            assert!(monitor(wrong).is_err(), "{wrong}");
        }
    }
}
