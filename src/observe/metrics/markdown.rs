//! The table of metrics for people: `docs/METRICS.md` (`corelane metrics --markdown`) and the terminal.

use std::fmt::Write;

use super::table::{ALL, Kind};

const INTRODUCTION: &str = "\
# Metrics

This page is generated from the table in `src/observe/metrics/table.rs` by `corelane metrics --markdown`; a test compares the two.

The broker serves HTTP at `corelane.http.listener` (127.0.0.1:9644 unless set otherwise, empty for none):

| Path | Answer |
|---|---|
| `/metrics` | every metric below, in Prometheus' text format; as OpenMetrics, or as Prometheus' protobuf messages with native histograms, where the request's `Accept` asks for it |
| `/healthz` | 200 as long as the process answers |
| `/readyz` | 200 once the broker has recovered its partitions, listens and, in a cluster, is registered; 503 and the reason before that, and from the beginning of a stop on |
| `/version` | name and version, as JSON |
| `/slow` | the slowest requests of this minute and the last one of each shard, with their stages, as JSON; not those that wait by design (Fetch, JoinGroup, SyncGroup) |

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

/// The whole page.
pub fn markdown() -> String {
    let mut page = INTRODUCTION.to_owned();
    page.push_str("| Metric | Type | Labels | Meaning |\n|---|---|---|---|\n");
    for metric in ALL {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let _ =
            writeln!(page, "| `{}` | {} | {} | {} |", metric.name, word(metric.kind), labels.join(", "), metric.help);
    }
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
