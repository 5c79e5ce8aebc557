//! Results of a run, for people, for programs and for plotting.

use std::fmt::Write;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::options::{Options, Work};
use super::run::is_open_loop;
use super::setup::Plan;
use super::stats::{Errors, Interval, Totals};

const PERCENTILES: [(&str, f64); 6] =
    [("p50", 50.0), ("p90", 90.0), ("p95", 95.0), ("p99", 99.0), ("p99_9", 99.9), ("p99_99", 99.99)];

/// A run that carries less of its rate says nothing about that rate.
const CARRIED: f64 = 0.99;

/// Steps per halving of the distance to 100 %.
const TICKS_PER_HALF: u32 = 5;

#[derive(Clone, Debug, PartialEq)]
pub struct Rate {
    pub asked: Option<f64>,
    pub achieved: f64,
    pub unit: &'static str,
}

/// One run's result.
pub struct Report {
    mode: &'static str,
    settings: Value,
    rate: Rate,
    totals: Totals,
    seconds: f64,
    void: bool,
    interrupted: bool,
}

impl Report {
    pub(super) fn new(options: &Options, plan: &Plan, totals: Totals, interrupted: bool) -> Report {
        let seconds = totals.window_ns as f64 / 1e9;
        let rate = rate(&options.work, &totals, seconds);
        // Things due just before the end may be sent just after it: that many are no sign.
        let done = if matches!(options.work, Work::E2e(_)) { totals.records } else { totals.requests };
        let void = is_void(&rate, done, plan.lanes.len());
        let mode = options.work.name();
        Report { mode, settings: settings(options, plan), rate, totals, seconds, void, interrupted }
    }

    pub fn errors(&self) -> &Errors {
        &self.totals.errors
    }

    /// Below its rate.
    pub fn is_void(&self) -> bool {
        self.void
    }

    pub fn latency(&self) -> &Histogram<u64> {
        &self.totals.latency
    }

    fn per_second(&self, count: f64) -> f64 {
        if self.seconds > 0.0 { count / self.seconds } else { 0.0 }
    }

    pub fn json(&self) -> Value {
        let t = &self.totals;
        json!({
            "mode": self.mode,
            "settings": self.settings,
            "seconds": self.seconds,
            "requests": t.requests,
            "records": t.records,
            "bytes": t.bytes,
            "bytes_per_request": (t.requests > 0).then(|| t.bytes as f64 / t.requests as f64),
            "uncompressed_bytes": (t.raw_bytes > 0).then_some(t.raw_bytes),
            "uncompressed_mb_per_s": (t.raw_bytes > 0).then(|| self.per_second(t.raw_bytes as f64 / 1e6)),
            "requests_per_s": self.per_second(t.requests as f64),
            "records_per_s": self.per_second(t.records as f64),
            "mb_per_s": self.per_second(t.bytes as f64 / 1e6),
            "rate": { "asked": self.rate.asked, "achieved": self.rate.achieved, "unit": self.rate.unit },
            "latency_ms": latency_json(&t.latency),
            "acknowledged_ms": latency_json(&t.acknowledged),
            "send_lag_ms": latency_json(&t.send_lag),
            "wake_late_ms": latency_json(&t.wake_late),
            "client_cpu_s": t.client_cpu_seconds,
            "client_cpu_s_per_gb": (t.bytes > 0).then(|| t.client_cpu_seconds / (t.bytes as f64 / 1e9)),
            "errors": t.errors,
            "void": self.void,
            "interrupted": self.interrupted,
        })
    }

    pub fn table(&self) -> String {
        let t = &self.totals;
        let mut out = String::new();
        let mut line = |name: &str, value: String| {
            let _ = writeln!(out, "{name:<22} {value}");
        };
        line("mode", self.mode.to_owned());
        let early = if self.interrupted { " (interrupted)" } else { "" };
        line("measured", format!("{:.3} s{early}", self.seconds));
        let requests = if self.mode == "consume" { "fetches" } else { "requests" };
        line(requests, format!("{} ({:.1}/s)", t.requests, self.per_second(t.requests as f64)));
        line("records", format!("{} ({:.1}/s)", t.records, self.per_second(t.records as f64)));
        line("bytes", format!("{} ({:.3} MB/s)", t.bytes, self.per_second(t.bytes as f64 / 1e6)));
        if t.raw_bytes > 0 && t.raw_bytes != t.bytes {
            let share = t.bytes as f64 / t.raw_bytes as f64;
            let rate = self.per_second(t.raw_bytes as f64 / 1e6);
            line("uncompressed", format!("{} ({rate:.3} MB/s), compressed to {:.1} %", t.raw_bytes, share * 100.0));
        }
        if t.requests > 0 {
            line("bytes in each", format!("{:.0}", t.bytes as f64 / t.requests as f64));
        }
        let Rate { asked, achieved, unit } = &self.rate;
        if let Some(asked) = asked {
            let void = if self.void { "  VOID: below 99 % of the rate asked for" } else { "" };
            line("rate", format!("{achieved:.3} of {asked:.3} {unit} asked{void}"));
        }
        let per_gb = match t.bytes {
            0 => String::new(),
            bytes => format!(", {:.3} s per GB", t.client_cpu_seconds / (bytes as f64 / 1e9)),
        };
        line("client CPU", format!("{:.3} s{per_gb}", t.client_cpu_seconds));
        for (name, histogram) in [
            ("latency ms", &t.latency),
            ("acknowledged ms", &t.acknowledged),
            ("sent late by, ms", &t.send_lag),
            ("of it the timer, ms", &t.wake_late),
        ] {
            if !histogram.is_empty() {
                line(name, latency_line(histogram));
            }
        }
        for (what, count) in &t.errors {
            line("ERROR", format!("{count} x {what}"));
        }
        out
    }
}

fn settings(options: &Options, plan: &Plan) -> Value {
    let work = match &options.work {
        Work::Produce(p) => json!({
            "record_size": p.record_size, "batch_bytes": p.batch_bytes, "single": p.single, "acks": p.acks,
            "codec": format!("{:?}", p.codec).to_lowercase(), "compressible_percent": p.compressible, "in_flight": p.in_flight, "rate_mb_per_s": p.rate,
        }),
        Work::E2e(e) => json!({
            "record_size": e.record_size, "batch_bytes": e.batch_bytes, "acks": e.acks, "in_flight": e.in_flight,
            "rate_records_per_s": e.rate,
        }),
        Work::Consume(c) => json!({
            "from": format!("{:?}", c.from).to_lowercase(), "verify": c.verify, "fan_out": c.fan_out,
            "min_bytes": c.min_bytes, "max_wait_ms": c.max_wait_ms, "max_bytes": c.max_bytes, "partition_max_bytes": c.partition_max_bytes,
        }),
    };
    json!({
        "bootstrap": options.bootstrap, "topic": options.topic, "partitions": plan.partitions,
        "connections": plan.lanes.len(), "threads": options.threads, "cpus": options.cpus,
        "warmup_s": options.warmup.as_secs_f64(), "duration_s": options.duration.map(|d| d.as_secs_f64()),
        "open_loop": is_open_loop(&options.work), "work": work,
    })
}

fn rate(work: &Work, totals: &Totals, seconds: f64) -> Rate {
    let per_second = |count: f64| if seconds > 0.0 { count / seconds } else { 0.0 };
    let megabytes = per_second(totals.bytes as f64 / 1e6);
    match work {
        Work::Produce(p) if p.single => {
            Rate { asked: None, achieved: per_second(totals.requests as f64), unit: "requests/s" }
        }
        Work::Produce(p) => Rate { asked: p.rate, achieved: megabytes, unit: "MB/s" },
        Work::E2e(e) => Rate { asked: Some(e.rate), achieved: per_second(totals.records as f64), unit: "records/s" },
        Work::Consume(_) => Rate { asked: None, achieved: megabytes, unit: "MB/s" },
    }
}

/// `done`: how many things (requests, or records where they are due one by one)
/// made up the achieved rate.
fn is_void(rate: &Rate, done: u64, lanes: usize) -> bool {
    let Some(asked) = rate.asked else { return false };
    if done == 0 {
        return true;
    }
    let share = rate.achieved / asked;
    let missing = done as f64 / share.max(f64::MIN_POSITIVE) - done as f64;
    share < CARRIED && missing > lanes as f64
}

fn milliseconds(ns: u64) -> f64 {
    ns as f64 / 1e6
}

fn latency_json(histogram: &Histogram<u64>) -> Value {
    if histogram.is_empty() {
        return Value::Null;
    }
    let mut all = serde_json::Map::new();
    all.insert("count".into(), json!(histogram.len()));
    all.insert("mean".into(), json!(histogram.mean() / 1e6));
    all.insert("min".into(), json!(milliseconds(histogram.min())));
    for (name, percentile) in PERCENTILES {
        all.insert(name.into(), json!(milliseconds(histogram.value_at_percentile(percentile))));
    }
    all.insert("max".into(), json!(milliseconds(histogram.max())));
    Value::Object(all)
}

fn latency_line(histogram: &Histogram<u64>) -> String {
    let mut out = String::new();
    for (name, percentile) in PERCENTILES {
        let value = milliseconds(histogram.value_at_percentile(percentile));
        let _ = write!(out, "{} {value:.3}  ", name.replace('_', "."));
    }
    let _ = write!(out, "max {:.3}", milliseconds(histogram.max()));
    out
}

/// One second's line.
pub fn interval_line(warming_up: bool, interval: &Interval) -> String {
    let at = |percentile| milliseconds(interval.latency.value_at_percentile(percentile));
    let note = if warming_up { "  warm-up" } else { "" };
    format!(
        "{:>9} records/s  {:>9.3} MB/s  p50 {:.3} ms  p99 {:.3} ms  max {:.3} ms{note}",
        interval.records,
        interval.bytes as f64 / 1e6,
        at(50.0),
        at(99.0),
        milliseconds(interval.latency.max()),
    )
}

/// HdrHistogram's percentile distribution in milliseconds, as its plotters read it (`.hgrm`).
pub fn hgrm(histogram: &Histogram<u64>) -> String {
    let mut out = format!("{:>12} {:>14} {:>10} {:>14}\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)");
    let mut total = 0;
    for step in histogram.iter_quantiles(TICKS_PER_HALF) {
        total += step.count_since_last_iteration();
        let value = milliseconds(histogram.highest_equivalent(step.value_iterated_to()));
        let quantile = step.quantile_iterated_to();
        let _ = write!(out, "{value:>12.6} {quantile:>14.12} {total:>10}");
        // The last line has no inverse.
        let _ = if quantile < 1.0 { writeln!(out, " {:>14.2}", 1.0 / (1.0 - quantile)) } else { writeln!(out) };
    }
    let (mean, deviation) = (histogram.mean() / 1e6, histogram.stdev() / 1e6);
    let _ = writeln!(out, "#[Mean    = {mean:>12.6}, StdDeviation   = {deviation:>12.6}]");
    let _ =
        writeln!(out, "#[Max     = {:>12.6}, Total count    = {:>12}]", milliseconds(histogram.max()), histogram.len());
    let buckets = histogram.buckets();
    let sub_buckets = 2048; // of three significant digits
    let _ = writeln!(out, "#[Buckets = {buckets:>12}, SubBuckets     = {sub_buckets:>12}]");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::stats::histogram;

    #[test]
    fn the_distribution_rises_to_the_maximum_and_counts_everything() {
        let mut values = histogram().unwrap();
        (1..=10_000u64).for_each(|n| values.record(n * 1000).unwrap());
        let text = hgrm(&values);
        let lines: Vec<Vec<f64>> = text
            .lines()
            .skip(2)
            .filter(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|word| word.parse().unwrap()).collect())
            .collect();
        assert!(lines.len() > 20);
        for pair in lines.windows(2) {
            assert!(pair[0][..3].iter().zip(&pair[1][..3]).all(|(a, b)| a <= b), "{pair:?}");
        }
        let last = lines.last().unwrap();
        assert_eq!((last.len(), last[1], last[2]), (3, 1.0, 10_000.0));
        assert!((last[0] - 10.0).abs() < 0.01);
        let median = lines.iter().find(|line| line[1] == 0.5).unwrap();
        assert!((median[0] - 5.0).abs() < 0.01 && median[3] == 2.0, "{median:?}");
        assert!(text.contains("Total count    =        10000]"), "{text}");
        // An empty one must not divide by nothing.
        assert!(hgrm(&histogram().unwrap()).contains("Total count    =            0]"));
    }

    #[test]
    fn percentiles_are_those_of_the_values() {
        let mut values = histogram().unwrap();
        (0..9999).for_each(|_| values.record(1_000_000).unwrap());
        values.record(1_000_000_000).unwrap();
        let json = latency_json(&values);
        let about = |name: &str, wanted: f64| {
            let found = json[name].as_f64().unwrap();
            assert!((found / wanted - 1.0).abs() < 0.002, "{name}: {found}");
        };
        about("p50", 1.0);
        about("p99_99", 1.0);
        about("max", 1000.0);
        assert_eq!(latency_json(&histogram().unwrap()), Value::Null);
    }

    #[test]
    fn a_run_below_its_rate_is_void() {
        let rate = |asked, achieved| Rate { asked, achieved, unit: "x" };
        assert!(!is_void(&rate(None, 1.0), 10, 1));
        assert!(!is_void(&rate(Some(100.0), 99.1), 9910, 1));
        assert!(is_void(&rate(Some(100.0), 98.9), 9890, 1));
        assert!(is_void(&rate(Some(100.0), 0.0), 0, 1));
        // One of 50 may be on the way when a short run ends.
        assert!(!is_void(&rate(Some(10.0), 9.8), 49, 1));
    }
}
