//! The pages.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::Mutex;

use super::census;
use super::exposition::{Format, write};
use super::gather::{VERSION, api_name, gather};
use super::process;
use super::start::Sources;
use crate::observe::metrics::SlowRequest;
use crate::runtime::clock;
use crate::shard::Survey;

/// Content of the pages.
#[derive(Clone)]
pub(super) struct Pages {
    sources: Arc<Sources>,
    /// When the process started, in seconds since 1970.
    started: Option<f64>,
    /// Answers of the shards when they were last asked, and when that began.
    surveys: Arc<Mutex<Option<Surveyed>>>,
}

#[derive(Clone)]
struct Surveyed {
    begun: Instant,
    surveys: Option<Arc<Vec<Survey>>>,
}

impl Pages {
    pub fn new(sources: Arc<Sources>) -> Pages {
        Pages { sources, started: process::started(), surveys: Arc::default() }
    }

    /// Asks the shards. Scrapes that wait at the same time share an answer, if it was begun after they came.
    async fn survey(&self) -> Option<Arc<Vec<Survey>>> {
        // Before that nobody is there to answer.
        self.sources.metrics.is_recovered().then_some(())?;
        let came = clock::now();
        let mut last = self.surveys.lock().await;
        if let Some(surveyed) = last.as_ref().filter(|surveyed| surveyed.begun >= came) {
            return surveyed.surveys.clone();
        }
        let begun = clock::now();
        let surveys = census::ask(&self.sources).await.map(Arc::new);
        *last = Some(Surveyed { begun, surveys: surveys.clone() });
        surveys
    }

    pub fn router(self) -> Router {
        Router::new()
            .route("/", get(|| async { PATHS }))
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .route("/version", get(version))
            .route("/slow", get(slow))
            .fallback(|| async { (StatusCode::NOT_FOUND, PATHS) })
            .with_state(self)
    }
}

const PATHS: &str = "Corelane serves /metrics, /slow, /healthz, /readyz and /version here.\n";

async fn metrics(State(pages): State<Pages>, headers: HeaderMap) -> Response {
    let accept = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok()).collect::<Vec<_>>().join(",");
    let format = Format::accepted(&accept);
    let surveys = pages.survey().await;
    match write(gather(&pages.sources, pages.started, surveys.as_ref().map(|all| all.as_slice())), format) {
        Ok(body) => ([(CONTENT_TYPE, format.content_type()), (CACHE_CONTROL, "no-store")], body).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn ready(State(pages): State<Pages>) -> Response {
    match pages.sources.metrics.readiness() {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

async fn version() -> Response {
    let body = serde_json::json!({ "name": "corelane", "version": VERSION }).to_string();
    ([(CONTENT_TYPE, "application/json")], body + "\n").into_response()
}

/// The slowest first.
async fn slow(State(pages): State<Pages>) -> Response {
    let shards = (0..).zip(&pages.sources.metrics.shards);
    let mut all: Vec<(u16, SlowRequest)> =
        shards.flat_map(|(index, shard)| shard.slow.all().into_iter().map(move |request| (index, request))).collect();
    all.sort_by_key(|(_, request)| std::cmp::Reverse(request.sent));
    let shown: Vec<serde_json::Value> = all.iter().map(|(shard, request)| show(*shard, request)).collect();
    ([(CONTENT_TYPE, "application/json")], serde_json::Value::from(shown).to_string() + "\n").into_response()
}

fn show(shard: u16, request: &SlowRequest) -> serde_json::Value {
    let seconds = |time: Duration| time.as_secs_f64();
    serde_json::json!({
        "at_ms": request.at_ms,
        "shard": shard,
        "api": api_name(request.key),
        "client": request.peer.map(|peer| peer.to_string()),
        "appended_seconds": request.marks.appended.map(seconds),
        "acknowledged_seconds": request.marks.acknowledged.map(seconds),
        "sent_seconds": seconds(request.sent),
        "waited_for": request.waited_for(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::metrics::Marks;

    #[test]
    fn a_slow_request_is_shown_with_its_stages() {
        let marks = Marks { appended: Some(Duration::from_millis(5)), acknowledged: Some(Duration::from_millis(1500)) };
        let request =
            SlowRequest { at_ms: 9, key: 0, peer: "10.0.0.1:5".parse().ok(), marks, sent: Duration::from_secs(2) };
        let shown = show(3, &request);
        assert_eq!(
            (&shown["api"], &shown["client"], &shown["shard"]),
            (&"Produce".into(), &"10.0.0.1:5".into(), &3.into())
        );
        assert_eq!((&shown["acknowledged_seconds"], &shown["sent_seconds"]), (&1.5.into(), &2.0.into()));
        assert!(shown["waited_for"].as_str().is_some_and(|what| what.contains("disk")), "{shown}");
    }
}
