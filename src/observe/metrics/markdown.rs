//! The table of metrics for people: `docs/METRICS.md`
//! (`corelane metrics --markdown`) and the terminal.

use std::fmt::Write;

use super::slow::{KEPT, MINUTES};
use super::table::{ALL, Kind};
use super::waits::Cause;

const INTRODUCTION: &str = "\
# Metrics

This page is generated from the table in `src/observe/metrics/table.rs` by `corelane metrics --markdown`; a test compares the two.

The broker serves HTTP at `corelane.http.listener` (127.0.0.1:9644 unless set otherwise, empty for none):

| Path | Answer |
|---|---|
| `/metrics` | every metric below, in Prometheus' text format; as OpenMetrics, or as Prometheus' protobuf messages with native histograms, where the request's `Accept` asks for it |
| `/` | the console, for a browser ([OPERATIONS.md](OPERATIONS.md#console)); what it shows is below `/api` |
| `/healthz` | 200 as long as the process answers |
| `/readyz` | 200 once the broker has recovered its partitions, listens and, in a cluster, is registered; 503 and the reason before that, and from the beginning of a stop on |
| `/version` | name and version, as JSON |
| `/api/slow-requests` | the slowest requests of this minute and the 14 before it, with their stages and what they waited for, as JSON, see below |

There is no authentication: other addresses than loopback are for networks where everybody may read this. In Prometheus:

```yaml
scrape_configs:
  - job_name: corelane
    static_configs:
      - targets: ['127.0.0.1:9644']
```

Counters begin at zero when the broker starts, those of a topic also when it is made. What is told per shard is at most a quarter of a second old; everything
else is as of the scrape. A series without a value is left out: an API that nobody has asked for, an error that nobody has met. A scrape takes up to a quarter
of a second, since the shards are asked for sizes, offsets and groups and answer at their next tick. Histograms have the bounds 0.00003125, 0.0000625, 0.000125, ... 0.016, 0.064, ... 65.536 seconds; native ones are of schema 3.

";

/// The answer of `/api/slow-requests`.
const SLOW_REQUESTS: &str = "\
## Slow requests

`GET /api/slow-requests` answers with one JSON object: `now_ms` (the broker's clock, in ms since 1970, as all that end in `at_ms` and `begin_ms`), `broker_id`,
`threshold_ms` (`corelane.slow.request.threshold.ms`: what took less is not kept), `log_above_ms` (`corelane.slow.request.ms`; slower requests are logged as well, a few lines a second, each with how many were left out: `held_back`),
`requests_per_minute_and_shard`, and `minutes`, the newest first. A minute has `begin_ms`, `complete` (false for the current one), and `requests`: the slowest
first, of all shards. JoinGroup and SyncGroup, which wait for others of their group, are not among them.

| Field of a request | Meaning |
|---|---|
| `sent_at_ms` | when its answer was given to the kernel |
| `shard` | of its connection |
| `api`, `api_key`, `version` | by Kafka's name and number |
| `client_id` | of the connection's newest request, cut after 100 bytes; null: none |
| `client_software_name`, `client_software_version` | as the client says (KIP-511); null: it does not |
| `listener`, `peer` | name of the listener, address and port of the client |
| `partitions` | asked for (Produce, Fetch); 0 for other APIs |
| `topic`, `partition` | of the first of them; null: none, or deleted |
| `request_bytes`, `response_bytes` | without the length before each |
| `total_ms` | from its last byte until the kernel had its answer, and the time before that for which it was held back |
| `slow_ms` | the same without waits that are no slowness: for records (a fetch whose `fetch.min.bytes` were not there), and for the answers to earlier requests of its connection, which stand for themselves. Requests are ranked by this |
| `stages` | list of `stage` and `ms`, in their order, which make up `total_ms`. `held_back`: not read to its end, or not begun, since its client was muted, memory was short, or answers before it were due. Produce: `append` (its batches have their places), `acknowledge`, `send`. Fetch: `look_up`, `wait` (for records), `read`, `send`. Others: `handle`, `send` |
| `waits` | list of `for` and `ms`, the longest first: what the request waited for within these stages, see below. What is in none of them it took itself, or others that had its shard's CPU |
| `waited_for` | reason for most of `slow_ms`: one of `waits`, or `cpu` |
| `in_words` | the same for people |

| Reason | A wait for |
|---|---|
";

/// The whole page.
pub fn markdown() -> String {
    let mut page = INTRODUCTION.to_owned();
    page.push_str("| Metric | Type | Labels | Meaning |\n|---|---|---|---|\n");
    for metric in ALL {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let _ =
            writeln!(page, "| `{}` | {} | {} | {} |", metric.name, word(metric.kind), labels.join(", "), metric.help);
    }
    let _ = write!(page, "\n{SLOW_REQUESTS}");
    for cause in Cause::ALL {
        let _ = writeln!(page, "| `{}` | {} |", cause.name(), cause.in_words());
    }
    let _ = writeln!(
        page,
        "| `client` | the client to take the answer |\n| `cpu` | nothing: work, its own or that of others on its shard |"
    );
    let _ = writeln!(
        page,
        "\nA shard keeps {KEPT} requests of each minute, for {MINUTES} minutes. What another shard says to have waited for counts under that reason."
    );
    page
}

/// One paragraph each.
pub fn plain() -> String {
    let mut text = String::new();
    for metric in ALL {
        let labels = match metric.labels {
            [] => String::new(),
            labels => format!("; by {}", labels.join(", ")),
        };
        let _ = writeln!(text, "{}\n    {}{labels}\n    {}", metric.name, word(metric.kind), metric.help);
    }
    text
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_page_in_docs_is_the_generated_one() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/METRICS.md");
        let page = std::fs::read_to_string(path).unwrap_or_default();
        let fresh = super::markdown();
        let first = page.lines().zip(fresh.lines()).find(|(old, new)| old != new);
        assert!(page == fresh, "run `corelane metrics --markdown > docs/METRICS.md`; first difference: {first:?}");
    }
}
