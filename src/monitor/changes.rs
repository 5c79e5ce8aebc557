//! Changes by way of the console (`corelane.console.admin`). Beside what guards `/api`
//! ([`console`](super::console)) a change needs an `Origin` of this page and the token that the
//! page was given, which nobody else can read.

use std::sync::OnceLock;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Extension, State};
use axum::http::header::{CONTENT_TYPE, ORIGIN};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::{get, post};
use serde_json::json;

use super::console::{answer, put, told};
use super::http::Peer;
use super::pages::Pages;
use crate::console::{Change, Question};

/// Options of a new topic are the longest.
const MOST_BYTES: usize = 64 << 10;
const TOKEN: &str = "x-corelane-token";

/// Permission to make changes, and the token for it.
pub(super) struct Admin {
    /// `corelane.console.admin`
    pub enabled: bool,
    token: OnceLock<String>,
}

impl Admin {
    pub fn new(enabled: bool) -> Admin {
        Admin { enabled, token: OnceLock::new() }
    }

    /// Of this process. `None`: the system has no randomness to make it of.
    fn token(&self) -> Option<&str> {
        if let Some(token) = self.token.get() {
            return Some(token);
        }
        let mut bytes = [0; 16];
        getrandom::fill(&mut bytes).ok()?;
        let token = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Some(self.token.get_or_init(|| token))
    }

    /// `Err`: why a change is refused. The origin is known to be this page's where there is one.
    fn check(&self, headers: &HeaderMap) -> Result<(), &'static str> {
        if !self.enabled {
            return Err("this console changes nothing; corelane.console.admin=true would let it");
        }
        if !headers.contains_key(ORIGIN) {
            return Err("a change must say by Origin which page it comes from");
        }
        let json = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == b"application/json");
        if !json {
            return Err("a change is application/json");
        }
        let given = headers.get(TOKEN).map(HeaderValue::as_bytes);
        // The time that it takes must not tell how much of a guess is right.
        let equal = |own: &str, given: &[u8]| {
            own.len() == given.len() && own.bytes().zip(given).fold(0, |all, (one, other)| all | (one ^ other)) == 0
        };
        match (self.token(), given) {
            (Some(own), Some(given)) if equal(own, given) => Ok(()),
            _ => Err("this page was made for another start of the broker: load it anew"),
        }
    }
}

pub(super) fn router() -> Router<Pages> {
    Router::new()
        .route("/api/admin", get(admin))
        .route("/api/change", post(change))
        .layer(DefaultBodyLimit::max(MOST_BYTES))
}

/// Tells the page whether changes may be made, and the token for them.
async fn admin(State(pages): State<Pages>) -> Response {
    let admin = &pages.sources.admin;
    let token = admin.enabled.then(|| admin.token()).flatten();
    answer(StatusCode::OK, &json!({ "enabled": token.is_some(), "token": token }))
}

async fn change(
    State(pages): State<Pages>,
    peer: Option<Extension<Peer>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    if let Err(why) = pages.sources.admin.check(&headers) {
        return answer(StatusCode::FORBIDDEN, &json!({ "error": why }));
    }
    let outcome = match Change::parse(&body) {
        Ok(change) => {
            let outcome = put(&pages.sources, Question::Change(change.clone())).await;
            let peer = peer.map_or_else(|| "?".to_owned(), |Extension(Peer(peer))| peer.to_string());
            match &outcome {
                Ok(_) => tracing::info!(%peer, "by the console: {change}"),
                Err(problem) => tracing::info!(%peer, "by the console, in vain: {change}: {}", problem.why()),
            }
            outcome
        }
        Err(problem) => Err(problem),
    };
    told(outcome)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(given: &[(&'static str, &str)]) -> HeaderMap {
        let header = |(name, value): &(&'static str, &str)| {
            (axum::http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        given.iter().map(header).collect()
    }

    #[test]
    fn only_the_page_itself_makes_changes() {
        let (admin, other) = (Admin::new(true), Admin::new(true));
        let (token, strange) = (admin.token().unwrap().to_owned(), other.token().unwrap().to_owned());
        assert!(token.len() == 32 && token != strange && admin.token() == Some(&token));
        let (origin, json) = (("origin", "http://127.0.0.1:9644"), ("content-type", "application/json"));
        assert_eq!(admin.check(&headers(&[origin, json, (TOKEN, &token)])), Ok(()));
        for wrong in [
            &[origin, json][..],
            &[origin, json, (TOKEN, &strange)],
            &[origin, json, (TOKEN, &token[1..])],
            &[origin, json, (TOKEN, "")],
            &[json, (TOKEN, &token)],
            &[origin, (TOKEN, &token)],
            &[origin, ("content-type", "text/plain"), (TOKEN, &token)],
        ] {
            assert!(admin.check(&headers(wrong)).is_err(), "{wrong:?}");
        }
        let off = Admin::new(false);
        let token = off.token().unwrap().to_owned();
        assert!(off.check(&headers(&[origin, json, (TOKEN, &token)])).is_err());
    }
}
