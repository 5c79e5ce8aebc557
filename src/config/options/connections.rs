//! Options of connections: how many, from where, how quickly.

use std::collections::HashMap;
use std::net::{IpAddr, ToSocketAddrs};

use super::super::ServerConfig;
use super::super::value::Value;
use super::{Access, Any, AtLeast, AtLeastOrNegative, Int, Long, NO_LIMIT, OptionSpec, Text, broker};

pub(super) const CONNECTIONS: &[OptionSpec] = &[
    broker(
        "max.connections",
        Int,
        "2147483647",
        AtLeast(0),
        integer!(Server max_connections),
        "Most connections open at a time, over all shards; at most half of the open files that the process may have. Where none is left, further ones \
         are accepted when one ends.",
    ),
    broker(
        "corelane.local.connections",
        Int,
        "8",
        AtLeast(0),
        integer!(Server local_connections),
        "Of max.connections, those kept for clients on the broker's own machine (loopback addresses), at most a quarter of it: when only these are left, \
         connections from elsewhere are closed at once. 0: none are kept.",
    ),
    broker(
        "max.connections.per.ip",
        Int,
        "2147483647",
        AtLeast(0),
        integer!(Server max_connections_per_ip),
        "Most connections open at a time from one address, over all shards; further ones are closed at once. 0 only beside max.connections.per.ip.overrides.",
    ),
    broker(
        "max.connections.per.ip.overrides",
        Text,
        "",
        Any,
        Access::Server { set: set_overrides, get: |config| config.max_connections_per_ip_overrides.0.clone() },
        "Addresses or host names with another limit than max.connections.per.ip, as host:number,host:number. Names are resolved at the start.",
    ),
    broker(
        "max.connection.creation.rate",
        Int,
        "2147483647",
        AtLeast(0),
        integer!(Server max_connection_creation_rate),
        "Most connections accepted per second, over all shards and after a second's worth at once; further ones wait to be accepted.",
    ),
    broker(
        "socket.send.buffer.bytes",
        Int,
        "-1",
        AtLeast(-1),
        integer!(Server socket_send_buffer_bytes),
        "SO_SNDBUF of connections: what the kernel keeps of answers that a client has not taken. -1: the kernel's choice (net.ipv4.tcp_wmem), which follows the \
         connection. Kafka's default is 102400, which is slow over long distances.",
    ),
    broker(
        "socket.receive.buffer.bytes",
        Int,
        "-1",
        AtLeast(-1),
        integer!(Server socket_receive_buffer_bytes),
        "SO_RCVBUF of connections: what the kernel keeps of requests that the broker has not taken. -1: the kernel's choice (net.ipv4.tcp_rmem). Kafka's \
         default is 102400.",
    ),
    broker(
        "connections.max.idle.ms",
        Long,
        "600000",
        AtLeastOrNegative(1),
        unlimited!(Server connections_max_idle_ms, NO_LIMIT),
        "Connections idle for longer are closed; -1: never.",
    ),
];

/// "host:number,[address]:number", each host resolved.
fn set_overrides(config: &mut ServerConfig, value: &Value) -> Result<(), String> {
    let mut limits = HashMap::new();
    for item in value.text().split(',').map(str::trim).filter(|item| !item.is_empty()) {
        let wrong = || format!("holds {item:?}; it must read host:number,host:number");
        let (host, limit) = item.rsplit_once(':').ok_or_else(wrong)?;
        let limit: u32 = limit.trim().parse().ok().filter(|n| *n <= i32::MAX as u32).ok_or_else(wrong)?;
        let host = host.trim().trim_start_matches('[').trim_end_matches(']');
        for ip in resolve(host).map_err(|reason| format!("holds {item:?}, and {reason}"))? {
            limits.insert(ip.to_canonical(), limit);
        }
    }
    config.max_connections_per_ip_overrides = (value.text().to_owned(), limits);
    Ok(())
}

fn resolve(host: &str) -> Result<Vec<IpAddr>, String> {
    if let Ok(ip) = host.parse() {
        return Ok(vec![ip]);
    }
    let found = (host, 0).to_socket_addrs().map_err(|error| format!("{host:?} cannot be resolved: {error}"))?;
    let found: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    if found.is_empty() { Err(format!("{host:?} has no address")) } else { Ok(found) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_name_addresses_and_hosts() {
        let mut config = ServerConfig::default();
        let text = "10.0.0.1:100, ::1:5,[fe80::1]:7,127.0.0.2:0,";
        assert_eq!(set_overrides(&mut config, &Value::Text(text.into())), Ok(()));
        let (shown, limits) = &config.max_connections_per_ip_overrides;
        assert_eq!(shown, text);
        let of = |ip: &str| limits.get(&ip.parse::<IpAddr>().unwrap()).copied();
        assert_eq!((of("10.0.0.1"), of("::1"), of("fe80::1"), of("127.0.0.2")), (Some(100), Some(5), Some(7), Some(0)));
        assert_eq!(set_overrides(&mut config, &Value::Text("localhost:3".into())), Ok(()));
        assert!(config.max_connections_per_ip_overrides.1.values().all(|limit| *limit == 3));
        for wrong in ["10.0.0.1", "10.0.0.1:x", "10.0.0.1:-1", "10.0.0.1:2147483648"] {
            let error = set_overrides(&mut config, &Value::Text(wrong.into())).unwrap_err();
            assert!(error.contains("host:number"), "{error}");
        }
    }
}
