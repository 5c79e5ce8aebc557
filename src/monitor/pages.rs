//! The pages.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use axum::extract::State;
use axum::http::header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::Mutex;

use super::census;
use super::changes;
use super::console;
use super::exposition::{Format, write};
use super::gather::{VERSION, gather};
use super::process;
use super::slow_page;
use super::start::Sources;
use crate::runtime::clock;
use crate::shard::Survey;

/// Content of the pages.
#[derive(Clone)]
pub(super) struct Pages {
    pub sources: Arc<Sources>,
    /// When the process started, in seconds since 1970.
    pub started: Option<f64>,
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

    /// Asks the shards. Scrapes that wait at the same time share an answer, if it
    /// was begun after they came.
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
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .route("/version", get(version))
            .route(slow_page::PATH, get(slow_page::slow_requests))
            .merge(console::router())
            .merge(changes::router())
            .fallback(|| async { (StatusCode::NOT_FOUND, PATHS) })
            .layer(middleware::from_fn_with_state(self.clone(), console::guarded))
            .with_state(self)
    }
}

const PATHS: &str =
    "Corelane serves /metrics, /api/slow-requests, /healthz, /readyz, /version and, for people, / here.\n";

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
