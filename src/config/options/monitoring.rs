//! Metrics over HTTP.

use std::net::ToSocketAddrs;

use super::{Access, OptionSpec, broker};
use crate::config::ServerConfig;
use crate::config::value::{Bounds, Kind};
use Bounds::{Any, AtLeast, Between};
use Kind::{Boolean, Int, Long, String as Text};

pub(super) const MONITORING: &[OptionSpec] = &[
    broker(
        "corelane.http.listener",
        Text,
        "127.0.0.1:9644",
        Any,
        Access::Server { set: |c, v| set_listener(c, v.text()), get: |c| c.http_listener.0.clone() },
        "Where to serve /metrics (Prometheus), /healthz, /readyz and /version: host:port; an empty host means all IPv4 interfaces, nothing at all no such \
     listener. It knows no authentication. With several brokers on a machine each needs a port of its own: one that finds the default taken serves \
     without metrics and warns, one that finds taken what it was told does not start.",
    ),
    broker(
        "corelane.slow.request.ms",
        Long,
        "2000",
        AtLeast(0),
        integer!(Server slow_request_ms),
        "A request that took longer, from its last byte to its answer, is logged with its stages, a few of them a second; 0: none is. Not those that wait by design: Fetch, JoinGroup, SyncGroup. The slowest of this minute and the last one are at /slow.",
    ),
    broker(
        "corelane.metrics.partitions",
        Boolean,
        "false",
        Any,
        boolean!(Server metrics_partitions),
        "Whether /metrics has series of single partitions too: sizes, offsets and the lag of groups. There are as many as this broker has partitions, several times over.",
    ),
    broker(
        "corelane.metrics.max.names",
        Int,
        "2000",
        Between(0, 1_000_000),
        integer!(Server metrics_max_names),
        "Topics that have series of their own in /metrics, and as many groups, by name. Those behind them are told of together, as (others).",
    ),
];

fn set_listener(config: &mut ServerConfig, text: &str) -> Result<(), String> {
    let text = text.trim();
    config.http_listener = (text.to_owned(), None);
    if text.is_empty() {
        return Ok(());
    }
    let wrong = || "must be host:port, such as 127.0.0.1:9644, or empty for none".to_owned();
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let port: u16 = port.parse().map_err(|_| wrong())?;
    let host = if host.is_empty() { "0.0.0.0" } else { host.trim_start_matches('[').trim_end_matches(']') };
    let found = (host, port).to_socket_addrs().map_err(|error| format!("{host:?} cannot be resolved: {error}"))?;
    config.http_listener.1 = found.into_iter().next();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_an_address_a_host_or_nothing() {
        let set = |text: &str| {
            let mut config = ServerConfig::default();
            set_listener(&mut config, text).map(|()| config.http_listener.1.map(|address| address.to_string()))
        };
        let some = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(set("127.0.0.1:1"), some("127.0.0.1:1"));
        assert_eq!(set("[::1]:9644"), some("[::1]:9644"));
        assert_eq!(set(":9644"), some("0.0.0.0:9644"));
        assert!(set("localhost:9644").is_ok_and(|address| address.is_some_and(|text| text.ends_with(":9644"))));
        assert_eq!(set(" "), Ok(None));
        for wrong in ["9644", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:99999"] {
            assert!(set(wrong).unwrap_err().contains("host:port"), "{wrong}");
        }
        assert_eq!(ServerConfig::default().http_listener.1.map(|a| a.to_string()), Some("127.0.0.1:9644".to_owned()));
    }
}
