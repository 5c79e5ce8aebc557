//! From the input to the brokers, and what became of it.

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use futures_lite::future::or;

use super::input::{self, Batch, Reading};
use crate::cli::connect::Reach;
use crate::cli::report::{say, table};
use crate::cli::topic::one_to_use;
use crate::client::ClusterClient;
use crate::client::producer::{Acknowledged, Producer, Settings, Tally};
use crate::runtime::bell::Bell;
use crate::runtime::clock;
use crate::runtime::process::{self, StopFlag};

/// Partitions that are told in one line.
const IN_A_LINE: usize = 4;
/// Looks at the input that are taken before batches are sent.
const READS_AT_ONCE: usize = 8;

#[derive(Clone)]
pub(super) struct Command {
    pub reading: Reading,
    pub settings: Settings,
    pub quiet: bool,
}

/// How it ended.
struct Outcome {
    tally: Tally,
    /// Records that were taken from the input.
    taken: u64,
    /// Why it ended before the input did, and what else went wrong.
    failed: Vec<String>,
}

pub(super) fn main(reach: &Reach, command: Command) -> ExitCode {
    let stop = StopFlag::default();
    if let Err(error) = process::stop_in_background(&stop) {
        say(&format!("signals cannot be watched: {error}"));
        return ExitCode::FAILURE;
    }
    let (quiet, settings) = (command.quiet, command.settings.clone());
    match reach.ask((command, stop), produce) {
        Ok(outcome) => outcome.tell(&settings, quiet),
        Err(message) => {
            say(&message);
            ExitCode::FAILURE
        }
    }
}

async fn produce(mut client: ClusterClient, (command, stop): (Command, StopFlag)) -> Result<Outcome, String> {
    let topic = one_to_use(&mut client, &command.settings.topic).await?;
    let fails = |error: io::Error| format!("standard input cannot be read: {error}");
    let bell = Bell::new().map_err(fails)?;
    bell.hang().map_err(fails)?;
    if io::stdin().is_terminal() && !command.quiet {
        say("a record a line; Ctrl-D ends");
    }
    let mut input = Some(input::start(command.reading, bell.clone()).map_err(fails)?);
    let mut producer = Producer::new(client, command.settings, &topic);
    let (mut taken, mut failed) = (0, Vec::new());
    loop {
        if stop.is_set() || producer.gave_up() {
            input = None;
        }
        let mut more_at_once = false;
        if let Some(receiver) = &input {
            match take(receiver, &mut producer, &mut taken) {
                Ok(more) => more_at_once = more,
                Err(end) => {
                    failed.extend(end);
                    input = None;
                }
            }
        }
        if let Err(error) = producer.turn(input.is_none()).await {
            failed.push(error);
            break;
        }
        if input.is_none() && producer.is_idle() {
            failed.extend(producer.settle().await);
            break;
        }
        if more_at_once {
            // Requests that were just sent get their turn.
            clock::sleep(Duration::ZERO).await;
            continue;
        }
        // Without room for more the bell has nothing to say.
        let more = async {
            match producer.has_room() {
                true => bell.rung().await,
                false => std::future::pending().await,
            }
        };
        or(or(more, producer.changed()), clock::sleep(StopFlag::POLL)).await;
    }
    Ok(Outcome { tally: producer.tally().clone(), taken, failed })
}

/// Takes what was read; whether there may be more at once. The error: the input has ended,
/// and perhaps why too early.
fn take(input: &Receiver<Batch>, producer: &mut Producer, taken: &mut u64) -> Result<bool, Option<String>> {
    for _ in 0..READS_AT_ONCE {
        if !producer.has_room() {
            return Ok(false);
        }
        let records = match input.try_recv() {
            Ok(read) => read.map_err(Some)?,
            Err(TryRecvError::Empty) => return Ok(false),
            Err(TryRecvError::Disconnected) => return Err(None),
        };
        for record in records {
            producer.push(&record).map_err(|why| Some(format!("record {}: {why}", *taken + 1)))?;
            *taken += 1;
        }
    }
    Ok(true)
}

impl Outcome {
    fn tell(&self, settings: &Settings, quiet: bool) -> ExitCode {
        let topic = &settings.topic;
        let acknowledged: u64 = self.tally.acknowledged.values().map(|partition| partition.records).sum();
        if !quiet {
            say(&told(topic, acknowledged, settings, &self.tally));
        }
        self.failed.iter().for_each(|line| say(line));
        let lost = self.taken.saturating_sub(acknowledged);
        if lost > 0 {
            say(&format!("not acknowledged: {lost} of {}", records(self.taken)));
            let named: u64 = self.tally.failed.values().sum();
            for ((partition, why), count) in &self.tally.failed {
                say(&format!("  {topic}-{partition}: {}: {why}", records(*count)));
            }
            if lost > named {
                say(&format!("  {}: they were still under way", records(lost - named)));
            }
        }
        if lost > 0 || !self.failed.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}

fn records(count: u64) -> String {
    format!("{count} record{}", if count == 1 { "" } else { "s" })
}

/// Where the records are.
fn told(topic: &str, all: u64, settings: &Settings, tally: &Tally) -> String {
    let how = if settings.acks == 0 { "sent" } else { "acknowledged" };
    let offsets = |partition: &Acknowledged| match partition.offsets {
        None => String::new(),
        Some((first, last)) if first == last => format!(" (offset {first})"),
        Some((first, last)) => format!(" (offsets {first} to {last})"),
    };
    let mut text = format!("{topic}: {} {how}", records(all));
    if tally.acknowledged.len() > IN_A_LINE {
        let rows = tally.acknowledged.iter().map(|(index, partition)| {
            let (first, last) =
                partition.offsets.map_or(("-".into(), "-".into()), |(a, b)| (a.to_string(), b.to_string()));
            vec![index.to_string(), partition.records.to_string(), first, last]
        });
        let table = table(&["PARTITION", "RECORDS", "FIRST-OFFSET", "LAST-OFFSET"], rows.collect());
        return format!("{text}\n{}", table.trim_end());
    }
    for (place, (index, partition)) in tally.acknowledged.iter().enumerate() {
        let gap = if place == 0 { ": " } else { ", " };
        text.push_str(&format!("{gap}{} in partition {index}{}", partition.records, offsets(partition)));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::record_batch::Codec;

    #[test]
    fn it_is_told_where_records_are() {
        let settings = |acks| Settings {
            topic: "t".into(),
            acks,
            codec: Codec::None,
            batch_bytes: 1,
            linger: Duration::ZERO,
            timeout: Duration::ZERO,
        };
        let mut tally = Tally::default();
        assert_eq!(told("t", 0, &settings(1), &tally), "t: 0 records acknowledged");
        let some = |records, offsets| Acknowledged { records, offsets };
        tally.acknowledged.insert(0, some(1, Some((7, 7))));
        tally.acknowledged.insert(2, some(3, Some((0, 4))));
        let text = told("t", 4, &settings(-1), &tally);
        assert_eq!(text, "t: 4 records acknowledged: 1 in partition 0 (offset 7), 3 in partition 2 (offsets 0 to 4)");
        tally.acknowledged = (0..5).map(|index| (index, some(2, None))).collect();
        let text = told("t", 10, &settings(0), &tally);
        assert!(text.starts_with("t: 10 records sent\nPARTITION  RECORDS") && text.lines().count() == 7, "{text}");
    }
}
