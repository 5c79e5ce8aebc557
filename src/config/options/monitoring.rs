//! Metrics over HTTP.

use std::net::ToSocketAddrs;

use super::{Access, OptionSpec, broker};
use crate::config::ServerConfig;
use crate::config::value::{Bounds, Kind, Value};
use crate::observe::LogFormat;
use Bounds::{Any, AtLeast, Between, OneOf};
use Kind::{Boolean, Int, Long, String as Text};

pub(super) const MONITORING: &[OptionSpec] = &[
    broker(
        "corelane.http.listener",
        Text,
        "127.0.0.1:9644",
        Any,
        Access::Server { set: |c, v| set_listener(c, v.text()), get: |c| c.http_listener.0.clone() },
        "Where to serve /metrics (Prometheus), /healthz, /readyz, /version and the console (/): host:port; an empty host means all IPv4 interfaces, nothing at all no such \
     listener. It knows no authentication. With several brokers on a machine each needs a port of its own: one that finds the default taken serves \
     without metrics and warns, one that finds taken what it was told does not start.",
    ),
    broker(
        "corelane.console.remote",
        Boolean,
        "false",
        Any,
        boolean!(Server console_remote),
        "Whether the console answers browsers on other hosts. It shows records and clients and knows no authentication, so only loopback addresses are answered \
     unless this is true (and corelane.http.listener an address that others reach).",
    ),
    broker(
        "corelane.console.admin",
        Boolean,
        "false",
        Any,
        boolean!(Server console_admin),
        "Whether the console may create and delete topics, add partitions, change options of topics and move groups. Whoever may read it (corelane.console.remote) may then do so; each change is a line in the log.",
    ),
    broker(
        "corelane.log.format",
        Text,
        "text",
        OneOf(&["text", "json"]),
        Access::Server { set: set_format, get: |c| format_name(c.log_format).to_owned() },
        "Form of a log line. text: for people. json: one object with timestamp, level, target (the module), message, and the line's other fields beside them.",
    ),
    broker(
        "corelane.slow.request.ms",
        Long,
        "2000",
        AtLeast(0),
        integer!(Server slow_request_ms),
        "A request that took longer, from its last byte to its answer, is logged with its stages, a few of them a second; 0: none is. Time that a fetch waits for records does not count, and JoinGroup and SyncGroup, which wait for others, are left out.",
    ),
    broker(
        "corelane.slow.request.threshold.ms",
        Long,
        "0",
        AtLeast(0),
        integer!(Server slow_request_threshold_ms),
        "The slowest requests of this minute and of the 14 before, 16 of each minute and shard, are at /api/slow-requests and in the console with their stages and what they waited for. A request that took less than this is none of them; 0: the slowest are, however short they took. Time counts as for corelane.slow.request.ms.",
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

fn set_format(config: &mut ServerConfig, value: &Value) -> Result<(), String> {
    config.log_format = if value.text() == "json" { LogFormat::Json } else { LogFormat::Text };
    Ok(())
}

fn format_name(format: LogFormat) -> &'static str {
    match format {
        LogFormat::Text => "text",
        LogFormat::Json => "json",
    }
}

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
