//! The console over HTTP: its page, and `/api`, which the page reads.
//!
//! A browser that shows other pages too is what `/api` is guarded against: a page from
//! elsewhere must not read it, neither by asking (no other origin is let in) nor under a name
//! of its own that it has resolved to this host (DNS rebinding: only names that are known to be
//! this host's are answered).

use std::net::{IpAddr, SocketAddr};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{CONTENT_TYPE, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::gather::{VERSION, api_name, spread_of, stage_name};
use super::http::Peer;
use super::pages::Pages;
use super::process;
use super::start::Sources;
use crate::config::ServerConfig;
use crate::console::{FILES, Problem, Query, Question};
use crate::observe::metrics::{Resource, ShardMetrics, Spread, Stage};
use crate::runtime::clock;

/// Scripts and styles of this host only, nothing from elsewhere, nothing within the page's text,
/// and no text that becomes markup.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; \
                      form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

const HEADERS: [(&str, &str); 5] = [
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("cross-origin-resource-policy", "same-origin"),
    ("referrer-policy", "no-referrer"),
    ("cache-control", "no-store"),
];

/// Kafka's number for Produce.
const PRODUCE: i16 = 0;

/// Check of a request to `/api`: from where it may come.
pub(super) struct Guard {
    /// Names of this host, in lower case.
    names: Vec<String>,
    /// `corelane.console.remote`
    remote: bool,
}

impl Guard {
    pub fn of(config: &ServerConfig) -> Guard {
        let own = config.http_listener.0.rsplit_once(':').map(|(host, _)| host.to_owned());
        let advertised = config.listeners.iter().filter_map(|listener| listener.advertised.as_ref());
        let names = own.into_iter().chain(advertised.map(|advertised| advertised.host.clone()));
        Guard { names: names.map(|name| name.to_ascii_lowercase()).collect(), remote: config.console_remote }
    }

    /// `Err`: why a request is refused.
    fn check(&self, peer: Option<SocketAddr>, headers: &HeaderMap) -> Result<(), String> {
        let is_near = peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback());
        if !is_near && !self.remote {
            return Err(
                "the console answers browsers that reach it by a loopback address; corelane.console.remote=true lets in all who \
                        reach this address"
                    .into(),
            );
        }
        let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let host = text(&HOST).unwrap_or_default();
        if !self.is_own(host) {
            return Err(format!(
                "{host:?} is not known as a name of this host; use its address, localhost, or a name from advertised.listeners or \
                 corelane.http.listener"
            ));
        }
        let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
        let origin = text(&ORIGIN).map(|origin| origin.split_once("://").map_or("", |(_, host)| host));
        if site.is_some_and(|site| !matches!(site, b"same-origin" | b"none")) || origin.is_some_and(|own| own != host) {
            return Err("pages of other sites may not read this".into());
        }
        Ok(())
    }

    /// An address cannot be made to mean another host; a name can.
    fn is_own(&self, host: &str) -> bool {
        let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((address, port)) => (address, port.strip_prefix(':').unwrap_or("0")),
            None => host.split_once(':').unwrap_or((host, "0")),
        };
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        let known = name == "localhost" || name.parse::<IpAddr>().is_ok() || self.names.contains(&name);
        known && !name.is_empty() && port.parse::<u16>().is_ok()
    }
}

/// The page and what it reads.
pub(super) fn router() -> Router<Pages> {
    FILES
        .iter()
        .fold(Router::new(), |router, (path, kind, text)| router.route(path, file(text, kind)))
        .route("/api/overview", get(overview))
        .route("/api/shards", get(shards))
        .route("/api/latency", get(latency))
        .route("/api/cluster", asking(Question::cluster))
        .route("/api/topics", asking(Question::topics))
        .route("/api/topic", asking(Question::topic))
        .route("/api/groups", asking(Question::groups))
        .route("/api/group", asking(Question::group))
        .route("/api/log-dirs", asking(Question::log_dirs))
        .route("/api/messages", asking(Question::messages))
}

/// Before every path below `/api`.
pub(super) async fn guarded(State(pages): State<Pages>, request: Request, next: Next) -> Response {
    if !request.uri().path().starts_with("/api/") {
        return next.run(request).await;
    }
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    match pages.sources.guard.check(peer, request.headers()) {
        Ok(()) => next.run(request).await,
        Err(why) => answer(StatusCode::FORBIDDEN, &json!({ "error": why })),
    }
}

fn file(text: &'static str, kind: &'static str) -> MethodRouter<Pages> {
    get(move || async move { (HEADERS, [(CONTENT_TYPE, kind)], text) })
}

pub(super) fn answer(status: StatusCode, body: &Value) -> Response {
    (status, HEADERS, [(CONTENT_TYPE, "application/json")], format!("{body}\n")).into_response()
}

/// A path whose answer is asked of the cluster.
fn asking(question: fn(&Query) -> Result<Question, Problem>) -> MethodRouter<Pages> {
    get(move |State(pages): State<Pages>, uri: Uri| async move {
        told(ask(&pages.sources, question, uri.query().unwrap_or_default()).await)
    })
}

pub(super) fn told(outcome: Result<Value, Problem>) -> Response {
    let problem = match outcome {
        Ok(body) => return answer(StatusCode::OK, &body),
        Err(problem) => problem,
    };
    let status = match problem {
        Problem::Wrong(_) => StatusCode::BAD_REQUEST,
        Problem::NotFound(_) => StatusCode::NOT_FOUND,
        Problem::Refused(_) => StatusCode::CONFLICT,
        Problem::Failed(_) => StatusCode::BAD_GATEWAY,
        Problem::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    answer(status, &json!({ "error": problem.why() }))
}

async fn ask(
    sources: &Sources,
    question: fn(&Query) -> Result<Question, Problem>,
    query: &str,
) -> Result<Value, Problem> {
    put(sources, question(&Query::parse(query)?)?).await
}

/// Puts a question to the cluster.
pub(super) async fn put(sources: &Sources, question: Question) -> Result<Value, Problem> {
    sources.metrics.readiness().map_err(|why| Problem::Busy(why.to_string()))?;
    let (sender, outcome) = oneshot::channel();
    sources.console.ask(question, move |outcome| _ = sender.send(outcome));
    outcome.await.unwrap_or_else(|_| Err(Problem::Failed("the question was given up".into())))
}

/// Facts of this broker, and sums over its shards.
async fn overview(State(pages): State<Pages>) -> Response {
    let sources = &pages.sources;
    let shards = &sources.metrics.shards;
    let sum = |of: fn(&ShardMetrics) -> u64| shards.iter().map(|shard| of(shard)).sum::<u64>();
    let (mut records, mut record_bytes, mut read_bytes) = (0, 0, 0);
    for shard in shards {
        shard.topics.each(
            |_, _| true,
            |_, traffic| {
                records += traffic.received_records.get();
                record_bytes += traffic.received_bytes.get();
                read_bytes += traffic.sent_bytes.get();
            },
        );
    }
    let requests: u64 =
        shards.iter().flat_map(|shard| shard.apis()).flat_map(|(_, api)| api.requests()).map(|(_, n)| n).sum();
    let errors: u64 =
        shards.iter().flat_map(|shard| shard.apis()).flat_map(|(_, api)| api.errors()).map(|(_, n)| n).sum();
    let facts = process::look(pages.started);
    answer(
        StatusCode::OK,
        &json!({
            "broker_id": sources.broker_id,
            "cluster_id": sources.late.get().map(|late| &late.cluster_id),
            "version": VERSION,
            "now_ms": clock::wall_ms(),
            "started_ms": pages.started.map(|seconds| (seconds * 1000.0) as i64),
            "not_ready": sources.metrics.readiness().err().map(|why| why.to_string()),
            "shards": shards.len(),
            "connections": sum(|shard| shard.connections.get()),
            "network_received_bytes": sum(|shard| shard.received_bytes.get()),
            "network_sent_bytes": sum(|shard| shard.sent_bytes.get()),
            "produced_records": records,
            "produced_bytes": record_bytes,
            "consumed_bytes": read_bytes,
            "requests": requests,
            "request_errors": errors,
            "cpu_seconds": facts.cpu_seconds,
            "resident_bytes": facts.resident_bytes,
            "open_files": facts.open_fds,
            "most_open_files": facts.max_fds,
        }),
    )
}

async fn shards(State(pages): State<Pages>) -> Response {
    let late = pages.sources.late.get();
    let row = |(index, shard): (u16, &std::sync::Arc<ShardMetrics>)| {
        let memory = Resource::ALL.map(|resource| {
            let (used, capacity) = shard.resources.get(resource);
            json!({ "memory": resource.name(), "used_bytes": used, "capacity_bytes": capacity })
        });
        json!({
            "shard": index,
            "busy_seconds": spread_of(std::iter::once(&shard.turns)).sum_seconds(),
            "connections": shard.connections.get(),
            "received_bytes": shard.received_bytes.get(),
            "sent_bytes": shard.sent_bytes.get(),
            "io_in_flight": shard.io_in_flight.get(),
            "waiting_messages": late.and_then(|late| late.mailboxes.get(usize::from(index))).map(|waiting| waiting()),
            "stalls": late.and_then(|late| late.stalls.as_ref()).map(|stalls| stalls.of(index)),
            "unsynced_bytes": shard.unsynced_bytes.get(),
            "segments": shard.segments.get(),
            "storage_failures": shard.storage_failures.get(),
            "memory": memory,
            "tail_hits": shard.tail_hits.get(),
            "tail_misses": shard.tail_misses.get(),
            "cold_hits": shard.cold_hits.get(),
            "cold_misses": shard.cold_misses.get(),
        })
    };
    let rows: Vec<Value> = (0..).zip(&pages.sources.metrics.shards).map(row).collect();
    answer(StatusCode::OK, &json!({ "now_ms": clock::wall_ms(), "shards": rows }))
}

/// Of all shards together since the broker's start: the page takes differences.
async fn latency(State(pages): State<Pages>) -> Response {
    let shards = &pages.sources.metrics.shards;
    let mut series = Vec::new();
    let mut told = |key: i16, stage: Stage, spread: &Spread| {
        if spread.count() == 0 {
            return;
        }
        let buckets: Vec<Value> =
            spread.fine().map(|(upper_us, count)| json!([(upper_us * 100.0).round() / 100.0, count])).collect();
        series.push(json!({
            "api": api_name(key), "stage": stage_name(stage), "count": spread.count(),
            "sum_seconds": spread.sum_seconds(), "buckets": buckets,
        }));
    };
    let mut keys: Vec<i16> = shards.iter().flat_map(|shard| shard.apis().map(|(key, _)| key)).collect();
    keys.sort_unstable();
    keys.dedup();
    for key in keys {
        if key == PRODUCE {
            told(key, Stage::Appended, &spread_of(shards.iter().map(|shard| &shard.appended)));
            told(key, Stage::Acknowledged, &spread_of(shards.iter().map(|shard| &shard.acknowledged)));
        }
        let own = shards.iter().filter_map(|shard| shard.apis().find(|(own, _)| *own == key));
        told(key, Stage::Sent, &spread_of(own.map(|(_, api)| &api.sent)));
    }
    answer(StatusCode::OK, &json!({ "now_ms": clock::wall_ms(), "series": series }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Advertised, ListenerConfig};

    fn guard(remote: bool) -> Guard {
        let advertised = Some(Advertised { host: "Broker-1.example".into(), port: 9092 });
        let address = "0.0.0.0:9092".parse().unwrap();
        let config = ServerConfig {
            http_listener: ("monitor.example:9644".into(), None),
            listeners: vec![ListenerConfig { name: "PLAINTEXT".into(), address, advertised }],
            console_remote: remote,
            ..ServerConfig::default()
        };
        Guard::of(&config)
    }

    fn headers(host: &str, others: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        for (name, value) in others {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn only_names_of_this_host_are_answered() {
        let near: Option<SocketAddr> = Some("127.0.0.1:5".parse().unwrap());
        let check = |host: &str| guard(false).check(near, &headers(host, &[])).is_ok();
        for own in [
            "127.0.0.1:9644",
            "localhost:9644",
            "LOCALHOST",
            "localhost.:1",
            "10.1.2.3",
            "[::1]:9644",
            "[::1]",
            "broker-1.example:80",
            "MONITOR.example:9644",
        ] {
            assert!(check(own), "{own}");
        }
        for other in [
            "",
            "evil.example",
            "evil.example:9644",
            "localhost.evil.example",
            "127.0.0.1.evil.example:9644",
            "127.0.0.1:x",
            "[::1",
            "[evil.example]:1",
            "broker-1.example.evil",
            ":9644",
            "a@localhost",
        ] {
            assert!(!check(other), "{other}");
        }
        assert!(guard(false).check(near, &HeaderMap::new()).is_err());
    }

    #[test]
    fn pages_of_other_sites_are_refused() {
        let near: Option<SocketAddr> = Some("[::ffff:127.0.0.1]:5".parse().unwrap());
        let check = |others: &[(&'static str, &'static str)]| {
            guard(false).check(near, &headers("localhost:9644", others)).is_ok()
        };
        assert!(check(&[("sec-fetch-site", "same-origin")]) && check(&[("sec-fetch-site", "none")]));
        assert!(check(&[("origin", "http://localhost:9644")]));
        for site in ["cross-site", "same-site", ""] {
            assert!(!check(&[("sec-fetch-site", site)]), "{site}");
        }
        for origin in ["null", "http://evil.example", "http://localhost:8080", "http://localhost:96440"] {
            assert!(!check(&[("origin", origin)]), "{origin}");
        }
    }

    #[test]
    fn other_hosts_are_let_in_by_the_option_only() {
        let far: Option<SocketAddr> = Some("10.0.0.9:5".parse().unwrap());
        let check = |remote, peer| guard(remote).check(peer, &headers("10.0.0.1:9644", &[])).is_ok();
        assert!(!check(false, far) && check(true, far));
        assert!(!check(false, None));
        assert!(guard(true).check(far, &headers("evil.example", &[])).is_err());
    }
}
