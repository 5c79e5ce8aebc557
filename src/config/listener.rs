//! `listeners` and `advertised.listeners`: PLAINTEXT://host:port.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use super::ServerConfig;

/// One element, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    /// Upper case.
    pub name: String,
    /// Without the brackets of an IPv6 address; empty: none given.
    pub host: String,
    pub port: u16,
}

/// NAME://host:port, the host possibly empty or an IPv6 address in brackets.
pub(super) fn parse(text: &str) -> Result<Endpoint, String> {
    let wrong = |what: &str| format!("{what} in {text}; it must read PLAINTEXT://host:port");
    let (name, address) = text.split_once("://").ok_or_else(|| wrong("has no ://"))?;
    let (host, port) = address.rsplit_once(':').ok_or_else(|| wrong("has no port"))?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(|| wrong("has no port from 1 to 65535"))?;
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let valid = match inner {
        Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok(),
        None => host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
    };
    if !valid {
        return Err(wrong("has a malformed host"));
    }
    Ok(Endpoint { name: name.trim().to_ascii_uppercase(), host: inner.unwrap_or(host).to_owned(), port })
}

/// `address` with the scheme before it.
pub(super) fn url(address: &str) -> String {
    format!("PLAINTEXT://{address}")
}

pub(super) fn advertised_url(config: &ServerConfig) -> String {
    match config.advertised_host.parse::<std::net::Ipv6Addr>() {
        Ok(address) => url(&format!("[{address}]:{}", config.advertised_port)),
        Err(_) => url(&format!("{}:{}", config.advertised_host, config.advertised_port)),
    }
}

fn exactly_one(list: &[String]) -> Result<Endpoint, String> {
    let [one] = list else {
        return Err(format!("names {} listeners; this version of Corelane has exactly one", list.len()));
    };
    parse(one)
}

/// Sets the listener, and the advertised address that follows from it.
pub(super) fn set(config: &mut ServerConfig, list: &[String]) -> Result<(), String> {
    let endpoint = exactly_one(list)?;
    let address = resolve(&endpoint)?;
    config.listener = address;
    config.advertised_host = if !address.ip().is_unspecified() {
        endpoint.host
    } else {
        machine_name().unwrap_or_else(|| "localhost".into())
    };
    config.advertised_port = endpoint.port;
    Ok(())
}

/// Sets the advertised address; nothing given: keeps the one that follows from the listener.
pub(super) fn set_advertised(config: &mut ServerConfig, list: &[String]) -> Result<(), String> {
    if list.is_empty() {
        return Ok(());
    }
    let endpoint = exactly_one(list)?;
    let unspecified = endpoint.host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified());
    if endpoint.host.is_empty() || unspecified {
        return Err("has no address that a client could connect to; name the host".into());
    }
    config.advertised_host = endpoint.host;
    config.advertised_port = endpoint.port;
    Ok(())
}

fn resolve(endpoint: &Endpoint) -> Result<SocketAddr, String> {
    if endpoint.host.is_empty() {
        return Ok((Ipv4Addr::UNSPECIFIED, endpoint.port).into());
    }
    let found = (endpoint.host.as_str(), endpoint.port).to_socket_addrs();
    let addresses: Vec<_> =
        found.map_err(|e| format!("names host {}, which does not resolve: {e}", endpoint.host))?.collect();
    let first = addresses.iter().find(|address| address.is_ipv4()).or_else(|| addresses.first());
    first.copied().ok_or_else(|| format!("names host {}, which has no address", endpoint.host))
}

/// The kernel's host name.
fn machine_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let name = name.trim();
    (!name.is_empty() && name != "(none)").then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set_one(text: &str) -> Result<ServerConfig, String> {
        let mut config = ServerConfig::default();
        set(&mut config, &[text.to_owned()]).map(|()| config)
    }

    #[test]
    fn hosts_ports_and_their_advertised_default() {
        let config = set_one("PLAINTEXT://127.0.0.2:19092").unwrap();
        assert_eq!(
            (config.listener.to_string().as_str(), config.advertised_host.as_str()),
            ("127.0.0.2:19092", "127.0.0.2")
        );
        let config = set_one("plaintext://[::1]:9093").unwrap();
        assert_eq!(
            (config.listener.to_string(), advertised_url(&config)),
            ("[::1]:9093".into(), "PLAINTEXT://[::1]:9093".into())
        );
        let config = set_one("PLAINTEXT://:9092").unwrap();
        assert_eq!(config.listener.to_string(), "0.0.0.0:9092");
        assert!(!config.advertised_host.is_empty() && config.advertised_host != "0.0.0.0");
        assert_eq!(set_one("PLAINTEXT://localhost:9092").unwrap().advertised_host, "localhost");
    }

    #[test]
    fn what_is_wrong_is_said() {
        for bad in [
            "localhost:9092",
            "PLAINTEXT://a",
            "PLAINTEXT://a:0",
            "PLAINTEXT://a:70000",
            "PLAINTEXT://a/b:1",
            "PLAINTEXT://[x]:1",
        ] {
            let error = set_one(bad).unwrap_err();
            assert!(error.contains(bad) && error.contains("PLAINTEXT://host:port"), "{error}");
        }
        assert!(set(&mut ServerConfig::default(), &["PLAINTEXT://:1".into(), "B://:2".into()]).is_err());
        let mut config = ServerConfig::default();
        assert!(set_advertised(&mut config, &["PLAINTEXT://0.0.0.0:9092".into()]).is_err());
        assert!(set_advertised(&mut config, &["PLAINTEXT://:9092".into()]).is_err());
        set_advertised(&mut config, &["PLAINTEXT://broker.example.org:9".into()]).unwrap();
        assert_eq!((config.advertised_host.as_str(), config.advertised_port), ("broker.example.org", 9));
    }
}
