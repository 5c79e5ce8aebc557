//! The options that fit a device: the shipped profile of its class, with what was measured in
//! place of what was assumed.

use std::fmt::Write;

use serde::Serialize;

use super::class::{Class, Fit};
use super::measure::{Measured, WRITE_DEPTHS, WRITE_SIZES};
use super::shipped;
use crate::config::{OPTIONS, properties};

/// One option with its reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Setting {
    pub key: String,
    pub value: String,
    pub why: String,
    pub measured: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Profile {
    pub class: Class,
    pub settings: Vec<Setting>,
    /// Options that producers should use, by Kafka's names.
    pub producer: Vec<(String, String)>,
}

/// Marks a producer's option among a profile's comments.
const PRODUCER: &str = "# producer: ";

const MAX_BYTES: &str = "corelane.write.max.bytes";
const DEPTH: &str = "corelane.write.queue.depth";
const DELAY: &str = "corelane.flush.delay.ms";

/// True if the broker has the option; what it has not is written as a comment.
pub(super) fn is_known(key: &str) -> bool {
    OPTIONS.iter().any(|option| option.name == key)
}

impl Profile {
    /// As shipped.
    pub fn shipped(class: Class) -> Profile {
        parse(class, shipped::text(class))
    }

    pub fn fitted(class: Class, measured: Option<&Measured>) -> Profile {
        let mut profile = Profile::shipped(class);
        let Some(measured) = measured else { return profile };
        let size = profile.number(MAX_BYTES).and_then(|shipped| write_size(measured, shipped));
        let small = size.as_ref().is_some_and(|(bytes, _)| *bytes == WRITE_SIZES[0] as u64);
        if let Some((bytes, why)) = size {
            profile.set(MAX_BYTES, bytes.to_string(), why);
        }
        if let Some((depth, why)) = queue_depth(measured, WRITE_SIZES[usize::from(!small)]) {
            profile.set(DEPTH, depth.to_string(), why);
        }
        if let Some((delay, why)) = flush_delay(measured) {
            profile.set(DELAY, delay.to_string(), why);
        }
        profile
    }

    fn number(&self, key: &str) -> Option<u64> {
        self.settings.iter().find(|setting| setting.key == key)?.value.parse().ok()
    }

    fn set(&mut self, key: &str, value: String, why: String) {
        if let Some(setting) = self.settings.iter_mut().find(|setting| setting.key == key) {
            *setting = Setting { key: key.to_owned(), value, why, measured: true };
        }
    }

    /// As a file for `corelane server`. `directory` is what was looked at.
    pub fn text(&self, fit: &Fit, directory: &str, measured: Option<&Measured>) -> String {
        let mut out = String::new();
        let mut line = |text: &str| {
            let _ = writeln!(out, "{}", text.trim_end());
        };
        line(&format!("# Written by corelane tune {} for {}", env!("CARGO_PKG_VERSION"), one_line(directory)));
        line(&format!("# Profile {}: {}", self.class.name(), one_line(&fit.why)));
        line("#");
        line("# corelane server FILE reads one file. To add these values to yours:");
        line("#   cat THIS-FILE my.properties > server.properties       (of a key given twice, the last counts)");
        for measurement in measured.map(super::report::measured_lines).unwrap_or_default() {
            line(&format!("# {measurement}"));
        }
        for setting in &self.settings {
            line("");
            for part in setting.why.lines() {
                line(&format!("# {part}"));
            }
            let known = is_known(&setting.key);
            if !known {
                line("# This version does not know the option yet.");
            }
            line(&format!("{}{}={}", if known { "" } else { "#" }, setting.key, setting.value));
        }
        line("");
        line("# For producers:");
        for (key, value) in &self.producer {
            line(&format!("{PRODUCER}{key}={value}"));
        }
        out
    }
}

/// A line break in a directory's name must not begin a line of options.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

/// The comment block right above an option is its reason.
fn parse(class: Class, text: &str) -> Profile {
    let mut profile = Profile { class, settings: Vec::new(), producer: Vec::new() };
    let mut why: Vec<&str> = Vec::new();
    for line in text.lines() {
        if let Some((key, value)) = line.strip_prefix(PRODUCER).and_then(|option| option.split_once('=')) {
            profile.producer.push((key.to_owned(), value.to_owned()));
        } else if let Some(comment) = line.strip_prefix('#') {
            why.push(comment.trim());
        } else if line.trim().is_empty() {
            why.clear();
        } else if let Some(property) = properties::parse(line).ok().and_then(|mut all| all.pop()) {
            let (key, value) = (property.key, property.value);
            profile.settings.push(Setting { key, value, why: why.join("\n"), measured: false });
            why.clear();
        }
    }
    profile
}

/// A throughput this close to the best is the best: short probes vary by as much.
const NEAR: f64 = 0.9;

/// The best of all depths for writes of a size into reserved blocks, which is how a log writes.
fn best(measured: &Measured, size: usize) -> Option<f64> {
    let all = WRITE_DEPTHS.iter().filter_map(|depth| measured.write(size, *depth, false));
    all.reduce(f64::max)
}

/// Large writes cost less CPU, so the shipped size stays unless the device is
/// clearly slower with them.
fn write_size(measured: &Measured, shipped: u64) -> Option<(u64, String)> {
    let [small, large] = WRITE_SIZES;
    let (with_small, with_large) = (best(measured, small)?, best(measured, large)?);
    let figures =
        format!("{} KiB writes {with_large:.0} MB/s, {} KiB writes {with_small:.0} MB/s", large >> 10, small >> 10);
    let (bytes, what) = if with_large >= NEAR * with_small {
        (shipped, "large writes are not slower, and cost less CPU a byte")
    } else {
        (small as u64, "large writes are slower here")
    };
    Some((bytes, format!("Largest single write of a log. Measured: {figures};\n{what}.")))
}

/// With one, the device would have nothing to do while the next write is gathered.
const LEAST_DEPTH: usize = 2;

/// Where the throughput stops growing. Of a log's writes only full ones are in flight
/// together, so their size counts.
fn queue_depth(measured: &Measured, size: usize) -> Option<(usize, String)> {
    let best = best(measured, size)?;
    let is_enough = |depth: &&usize| measured.write(size, **depth, false).is_some_and(|mb| mb >= NEAR * best);
    let enough = (*WRITE_DEPTHS.iter().find(is_enough)?).max(LEAST_DEPTH);
    let figure = |depth: &usize| Some(format!("{:.0} at {depth}", measured.write(size, *depth, false)?));
    let figures: Vec<String> = WRITE_DEPTHS.iter().filter_map(figure).collect();
    let more = match WRITE_DEPTHS.last() {
        Some(deepest) if enough == *deepest => format!("{enough} is the deepest that was tried"),
        _ => format!("more than {enough} gain less than a tenth and hold up other partitions"),
    };
    let why = format!(
        "Writes of one log in flight. Measured with {} KiB writes into reserved blocks: {} MB/s;\n{more}, fewer than {LEAST_DEPTH} leave \
         the device idle between writes.",
        size >> 10,
        figures.join(", ")
    );
    Some((enough, why))
}

const LONGEST_DELAY_MS: u64 = 10;

/// Half a sync, where a sync is worth saving.
fn flush_delay(measured: &Measured) -> Option<(u64, String)> {
    let sync = measured.sync_p50_us?;
    let delay = if sync < 1000 { 0 } else { sync.div_ceil(2000).min(LONGEST_DELAY_MS) };
    let why = format!(
        "How long a needed sync waits so that one covers more, milliseconds.\nMeasured: a sync takes {:.2} ms (median); {}.",
        sync as f64 / 1e3,
        if delay == 0 {
            "not worth waiting for company"
        } else {
            "half of it, at most 10, gathers more partitions under each"
        }
    );
    Some((delay, why))
}
