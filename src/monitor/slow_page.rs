//! `/api/slow-requests`: the slowest requests of the last minutes.

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::gather::api_name;
use super::pages::Pages;
use super::start::Sources;
use crate::observe::metrics::{KEPT, Minute, SlowRequest};
use crate::runtime::clock;

pub(super) const PATH: &str = "/api/slow-requests";

pub(super) async fn slow_requests(State(pages): State<Pages>) -> Response {
    let body = page(&pages.sources, clock::wall_ms()).to_string() + "\n";
    ([(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")], body).into_response()
}

fn page(sources: &Sources, now_ms: i64) -> Value {
    let shards: Vec<Vec<Minute>> = sources.metrics.shards.iter().map(|shard| shard.slow.minutes(now_ms)).collect();
    let count = shards.first().map_or(0, Vec::len);
    let thresholds = sources.metrics.shards.first().map(|shard| shard.slow.thresholds()).unwrap_or_default();
    let minutes: Vec<Value> = (0..count).map(|back| minute(&shards, back)).collect();
    json!({
        "now_ms": now_ms,
        "broker_id": sources.broker_id,
        "log_above_ms": thresholds.logged_ms(),
        "threshold_ms": ms(thresholds.kept),
        "requests_per_minute_and_shard": KEPT,
        "minutes": minutes,
    })
}

/// One minute, so many before this one, of all shards.
fn minute(shards: &[Vec<Minute>], back: usize) -> Value {
    let of_shards = (0u16..).zip(shards.iter().filter_map(|minutes| minutes.get(back)));
    let mut requests: Vec<(u16, &SlowRequest)> =
        of_shards.flat_map(|(shard, minute)| minute.requests().map(move |request| (shard, request))).collect();
    requests.sort_by_key(|(_, request)| std::cmp::Reverse(request.slow()));
    let begin_ms = shards.first().and_then(|minutes| minutes.get(back)).map_or(0, Minute::begin_ms);
    let shown: Vec<Value> = requests.into_iter().map(|(shard, request)| show(shard, request)).collect();
    json!({ "begin_ms": begin_ms, "complete": back > 0, "requests": shown })
}

fn ms(time: std::time::Duration) -> f64 {
    // Microseconds are as fine as it gets.
    time.as_micros() as f64 / 1e3
}

fn show(shard: u16, request: &SlowRequest) -> Value {
    let client = request.client.as_ref();
    let stages = request.steps.iter().map(|(step, time)| json!({ "stage": step.name(), "ms": ms(*time) }));
    let waits = request.waited().into_iter().map(|(name, _, time)| json!({ "for": name, "ms": ms(time) }));
    json!({
        "sent_at_ms": request.at_ms,
        "shard": shard,
        "api": api_name(request.key),
        "api_key": request.key,
        "version": request.version,
        "client_id": request.client_id,
        "client_software_name": client.map(|kind| &kind.name),
        "client_software_version": client.map(|kind| &kind.version),
        "listener": request.listener,
        "peer": request.peer.map(|peer| peer.to_string()),
        "partitions": request.target.partitions,
        "topic": request.topic.as_deref(),
        "partition": request.target.first().map(|(_, index)| index),
        "request_bytes": request.request_bytes,
        "response_bytes": request.response_bytes,
        "total_ms": ms(request.total()),
        "slow_ms": ms(request.slow()),
        "stages": stages.collect::<Vec<_>>(),
        "waits": waits.collect::<Vec<_>>(),
        "waited_for": request.waited_for().0,
        "in_words": request.waits_in_words(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ServerConfig;
    use crate::observe::metrics::SlowThresholds;
    use crate::observe::metrics::{Cause, Step, Target, Waits};
    use std::time::Duration;

    const NOW_MS: i64 = 1_764_000_000_500;

    fn took(ms: u64, at_ms: i64) -> SlowRequest {
        let mut waits = Waits::default();
        waits.add(Cause::Device, (ms - 1) * 1_000_000);
        SlowRequest {
            at_ms,
            key: 0,
            version: 13,
            client_id: Some("app".into()),
            client: None,
            listener: "PLAINTEXT".into(),
            peer: "10.0.0.1:5".parse().ok(),
            target: Target::new(2, Some((1, 3))),
            topic: Some("orders".into()),
            request_bytes: 100,
            response_bytes: 50,
            steps: vec![(Step::Append, Duration::from_millis(1)), (Step::Acknowledge, Duration::from_millis(ms - 1))],
            waits,
        }
    }

    #[test]
    fn requests_of_all_shards_are_shown_by_minute() {
        let config = ServerConfig { shards: 2, broker_id: 7, ..ServerConfig::default() };
        let sources = Sources::of(&config);
        sources.metrics.shards[0].slow.set_thresholds(SlowThresholds::of_ms(3, 9));
        sources.metrics.shards[0].slow.note(took(20, NOW_MS - 60_000));
        sources.metrics.shards[0].slow.note(took(10, NOW_MS));
        sources.metrics.shards[1].slow.note(took(30, NOW_MS));
        let page = page(&sources, NOW_MS);
        assert_eq!(
            (&page["broker_id"], &page["log_above_ms"], &page["threshold_ms"]),
            (&7.into(), &9.into(), &3.0.into())
        );
        let minutes = page["minutes"].as_array().unwrap();
        let times = |minute: &Value| -> Vec<f64> {
            minute["requests"].as_array().unwrap().iter().map(|request| request["slow_ms"].as_f64().unwrap()).collect()
        };
        assert_eq!((times(&minutes[0]), times(&minutes[1])), (vec![30.0, 10.0], vec![20.0]));
        assert_eq!((&minutes[0]["complete"], &minutes[1]["complete"]), (&false.into(), &true.into()));
        assert_eq!(minutes[0]["begin_ms"], 1_764_000_000_000i64);
        assert_eq!(minutes[2]["begin_ms"], 1_764_000_000_000i64 - 120_000);
        let first = &minutes[0]["requests"][0];
        let expected = json!({
            "sent_at_ms": NOW_MS, "shard": 1, "api": "Produce", "api_key": 0, "version": 13, "client_id": "app",
            "client_software_name": null, "client_software_version": null, "listener": "PLAINTEXT",
            "peer": "10.0.0.1:5", "partitions": 2, "topic": "orders", "partition": 3, "request_bytes": 100,
            "response_bytes": 50, "total_ms": 30.0, "slow_ms": 30.0,
            "stages": [{"stage": "append", "ms": 1.0}, {"stage": "acknowledge", "ms": 29.0}],
            "waits": [{"for": "device", "ms": 29.0}], "waited_for": "device", "in_words": "29.0 ms for the disk",
        });
        assert_eq!(*first, expected);
    }
}
