//! One look at the cluster: over the wire protocol, and at what brokers serve over HTTP.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use serde_json::Value;

use super::http;
use super::scrape::Scrape;
use crate::cli::group::{Sum, lag_of};
use crate::client::ClusterClient;
use crate::client::admin::Node;
use crate::client::cluster_client::{Place, Spot, Topic};
use crate::runtime::{clock, spawn_blocking};

/// Where a broker serves metrics unless it is told otherwise.
const PORT: i32 = 9644;
const SLOW_REQUESTS: &str = "/api/slow-requests";
/// Slow requests are shown for this long.
const RECENT_MS: i64 = 60_000;

/// Pages asked for over HTTP.
#[derive(Clone, Debug, Default)]
pub(super) struct Monitors {
    /// As they were given; empty: they are to be found.
    given: Vec<String>,
    /// `None`: nobody has looked yet.
    found: Option<Vec<String>>,
}

/// State of the cluster at a moment.
pub(super) struct Look {
    pub at: Instant,
    pub at_ms: i64,
    pub cluster_id: Option<String>,
    pub brokers: Vec<Broker>,
    pub topics: Vec<Topic>,
    /// Where the partitions of each topic end, together; `None`: a leader does not answer.
    pub ends: BTreeMap<String, Option<i64>>,
    pub groups: Vec<Sum>,
    /// The slowest of the last minute first, each with its broker's id.
    pub slow: Vec<Value>,
    /// Figures that are not known, and why.
    pub notes: Vec<String>,
}

pub(super) struct Broker {
    pub id: i32,
    pub address: String,
    pub is_controller: bool,
    /// Where it serves metrics, and what they say; `None`: nowhere that is known.
    pub scrape: Option<(String, Scrape)>,
}

/// Answers over HTTP from one address.
struct Told {
    address: String,
    scrape: Result<Scrape, String>,
    slow: Result<Value, String>,
}

impl Monitors {
    pub fn new(given: Vec<String>) -> Monitors {
        Monitors { given, found: None }
    }

    /// Asks all that are known. Nothing that was only guessed is asked twice in vain.
    async fn ask(&mut self, hosts: &BTreeSet<String>) -> Vec<Told> {
        let guess = || hosts.iter().map(|host| address(host, PORT)).collect();
        let (addresses, guessed) = match (&self.found, self.given.is_empty()) {
            (_, false) => (self.given.clone(), false),
            (Some(found), true) => (found.clone(), false),
            (None, true) => (guess(), true),
        };
        let mut told = spawn_blocking(move || addresses.into_iter().map(ask).collect::<Vec<_>>()).await;
        if guessed {
            told.retain(|told| told.scrape.as_ref().is_ok_and(|scrape| scrape.broker.is_some()));
            self.found = Some(told.iter().map(|told| told.address.clone()).collect());
        }
        told
    }
}

fn address(host: &str, port: i32) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn ask(address: String) -> Told {
    let scrape = http::get(&address, "/metrics").map(|text| Scrape::read(&text));
    let slow = match &scrape {
        Ok(_) => http::get(&address, SLOW_REQUESTS)
            .and_then(|text| serde_json::from_str(&text).map_err(|error| format!("{SLOW_REQUESTS}: {error}"))),
        Err(_) => Ok(Value::Null),
    };
    Told { address, scrape, slow }
}

pub(super) async fn look(client: &mut ClusterClient, monitors: &mut Monitors) -> Result<Look, String> {
    client.restart();
    let mut topics = client.topics(None).await.map_err(|e| e.to_string())?;
    topics.retain(|topic| topic.refusal.is_none());
    let cluster_id = client.cluster_id().map(str::to_owned);
    let controller = client.controller();
    let hosts: BTreeSet<String> = client.nodes().map(|node| node.host.clone()).collect();
    let broker = |node: &Node| Broker {
        id: node.id,
        address: address(&node.host, node.port),
        is_controller: controller == Some(node.id),
        scrape: None,
    };
    let mut brokers: Vec<Broker> = client.nodes().map(broker).collect();
    let (mut slow, mut notes) = (Vec::new(), Vec::new());
    for told in monitors.ask(&hosts).await {
        let scrape = match told.scrape {
            Ok(scrape) => scrape,
            Err(why) => {
                notes.push(why);
                continue;
            }
        };
        let ours = cluster_id.is_none() || scrape.cluster == cluster_id;
        let Some(broker) = brokers.iter_mut().find(|broker| ours && Some(broker.id) == scrape.broker) else {
            notes.push(format!("http://{} is of no broker of this cluster", told.address));
            continue;
        };
        match told.slow {
            Ok(page) => slow.extend(recent(&page, broker.id)),
            Err(why) => notes.push(why),
        }
        broker.scrape = Some((told.address, scrape));
    }
    slow.sort_by(|one, other| slow_ms(other).total_cmp(&slow_ms(one)));
    // Taken where the rates are: right behind the scrapes.
    let (at, at_ms) = (clock::now(), clock::wall_ms());
    let ends = match brokers.iter().all(|broker| broker.scrape.is_some()) {
        true => BTreeMap::new(),
        false => ends(client, &topics).await?,
    };
    let (groups, failed) = lag_of(client, &[]).await?;
    notes.extend(failed);
    Ok(Look { at, at_ms, cluster_id, brokers, topics, ends, groups, slow, notes })
}

/// The sum of the ends of each topic's partitions.
async fn ends(client: &mut ClusterClient, topics: &[Topic]) -> Result<BTreeMap<String, Option<i64>>, String> {
    let places = topics.iter().flat_map(|topic| topic.partitions.iter().map(|part| (topic.name.clone(), part.index)));
    let wanted: Vec<(Place, Spot)> = places.map(|place| (place, Spot::Latest)).collect();
    let mut ends = BTreeMap::new();
    for ((topic, _), end) in client.offsets(&wanted, false).await.map_err(|e| e.to_string())? {
        let sum = ends.entry(topic).or_insert(Some(0));
        *sum = sum.zip(end.ok()).map(|(sum, end): (i64, i64)| sum + end);
    }
    Ok(ends)
}

pub(super) fn slow_ms(request: &Value) -> f64 {
    request["slow_ms"].as_f64().unwrap_or_default()
}

/// The requests of the last minute.
fn recent(page: &Value, broker: i32) -> Vec<Value> {
    let since = page["now_ms"].as_i64().unwrap_or_default() - RECENT_MS;
    let minutes = page["minutes"].as_array().into_iter().flatten();
    let all = minutes.flat_map(|minute| minute["requests"].as_array().into_iter().flatten());
    let recent = all.filter(|request| request["sent_at_ms"].as_i64().is_some_and(|at| at >= since));
    let mut recent: Vec<Value> = recent.cloned().collect();
    recent.iter_mut().for_each(|request| request["broker"] = broker.into());
    recent
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn requests_of_the_last_minute_are_recent() {
        let page = json!({ "now_ms": 100_000, "minutes": [
            { "requests": [{ "sent_at_ms": 99_000 }] }, { "requests": [{ "sent_at_ms": 40_000 }, { "sent_at_ms": 39_999 }] },
        ] });
        let recent = recent(&page, 7);
        let expected = [json!({ "sent_at_ms": 99_000, "broker": 7 }), json!({ "sent_at_ms": 40_000, "broker": 7 })];
        assert_eq!(recent, expected);
        assert_eq!([address("::1", 5), address("a", 5)], ["[::1]:5", "a:5"]);
    }
}
