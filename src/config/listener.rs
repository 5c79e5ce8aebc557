//! `listeners` and the options about them: NAME://host:port, where to listen
//! and what clients are told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};

use super::ServerConfig;
use super::value::split_list;

/// One of `listeners`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerConfig {
    /// Upper case.
    pub name: String,
    pub address: SocketAddr,
    /// Told to clients that come by this listener; `None`: `advertised.listeners` leaves it out.
    pub advertised: Option<Advertised>,
}

/// A host, without the brackets of an IPv6 address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertised {
    pub host: String,
    pub port: u16,
}

impl ListenerConfig {
    pub fn url(&self) -> String {
        format!("{}://{}", self.name, self.address)
    }

    pub fn advertised_url(&self) -> Option<String> {
        let Advertised { host, port } = self.advertised.as_ref()?;
        let is_v6 = host.parse::<Ipv6Addr>().is_ok();
        Some(if is_v6 { format!("{}://[{host}]:{port}", self.name) } else { format!("{}://{host}:{port}", self.name) })
    }
}

pub(super) fn urls(config: &ServerConfig) -> String {
    let urls: Vec<_> = config.listeners.iter().map(ListenerConfig::url).collect();
    urls.join(",")
}

pub(super) fn advertised_urls(config: &ServerConfig) -> String {
    let urls: Vec<_> = config.listeners.iter().filter_map(ListenerConfig::advertised_url).collect();
    urls.join(",")
}

/// One element, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Endpoint {
    /// Upper case.
    name: String,
    /// Without the brackets of an IPv6 address; empty: none given.
    host: String,
    port: u16,
}

/// NAME://host:port, the host possibly empty or an IPv6 address in brackets.
fn parse(text: &str) -> Result<Endpoint, String> {
    let wrong = |what: &str| format!("{what} in {text}; it must read NAME://host:port, such as PLAINTEXT://host:port");
    let (name, address) = text.split_once("://").ok_or_else(|| wrong("has no ://"))?;
    if name.trim().is_empty() {
        return Err(wrong("has no name"));
    }
    let (host, port) = address.rsplit_once(':').ok_or_else(|| wrong("has no port"))?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(|| wrong("has no port from 1 to 65535"))?;
    let inner = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let valid = match inner {
        Some(inner) => inner.parse::<Ipv6Addr>().is_ok(),
        None => host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)),
    };
    if !valid {
        return Err(wrong("has a malformed host"));
    }
    Ok(Endpoint { name: normalized(name), host: inner.unwrap_or(host).to_owned(), port })
}

/// Kafka compares names of listeners and protocols in upper case.
fn normalized(name: &str) -> String {
    name.trim().to_ascii_uppercase()
}

const PLAINTEXT: &str = "PLAINTEXT";
/// Kafka's protocols that this version does not have.
const SECURED: [&str; 3] = ["SSL", "SASL_PLAINTEXT", "SASL_SSL"];

/// `listener.security.protocol.map`: protocols by listener; of a name that is repeated the
/// last one holds, as in Kafka.
pub(super) fn parse_map(text: &str) -> Result<BTreeMap<String, String>, String> {
    let mut map = BTreeMap::new();
    for entry in split_list(text) {
        let Some((name, protocol)) = entry.rsplit_once(':').map(|(name, it)| (normalized(name), normalized(it))) else {
            return Err(format!("has no protocol in {entry}; each element must read NAME:PROTOCOL"));
        };
        if name.is_empty() {
            return Err(format!("has no listener name in {entry}; each element must read NAME:PROTOCOL"));
        }
        if protocol != PLAINTEXT && !SECURED.contains(&protocol.as_str()) {
            return Err(format!("names the unknown security protocol {protocol} in {entry}; it must be PLAINTEXT"));
        }
        map.insert(name, protocol);
    }
    Ok(map)
}

/// Why listeners cannot be used; both are the end of a sentence about the option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Unfit {
    Invalid(String),
    /// Going on without the listener's protocol would be unsafe.
    Refused(String),
}

/// Other options that bear on listeners.
pub(super) struct Roles {
    /// `listener.security.protocol.map`; `None`: not given.
    protocols: Option<BTreeMap<String, String>>,
    /// `controller.listener.names`.
    controllers: BTreeSet<String>,
}

impl Roles {
    /// A map that cannot be read counts as not given: it has been refused before.
    pub fn new(map: Option<&str>, controllers: &str) -> Roles {
        let controllers = split_list(controllers).iter().map(|name| normalized(name)).collect();
        Roles { protocols: map.and_then(|text| parse_map(text).ok()), controllers }
    }

    /// `listeners` without Kafka's controller listeners, checked as a whole as Kafka does.
    pub fn select(&self, list: &[String]) -> Result<Vec<String>, Unfit> {
        let endpoints = parse_all(list).map_err(Unfit::Invalid)?;
        check_ports(&endpoints).map_err(Unfit::Invalid)?;
        for Endpoint { name, .. } in &endpoints {
            let protocol = match &self.protocols {
                Some(map) => map.get(name).map(String::as_str),
                None if self.controllers.contains(name) => Some(PLAINTEXT),
                None => std::iter::once(PLAINTEXT).chain(SECURED).find(|protocol| protocol == name),
            };
            let Some(protocol) = protocol else {
                let text = format!(
                    "has no security protocol for listener {name}; add {name}:PLAINTEXT to listener.security.protocol.map"
                );
                return Err(Unfit::Invalid(text));
            };
            if protocol != PLAINTEXT && !self.controllers.contains(name) {
                return Err(Unfit::Refused(format!(
                    "listener {name} is to use {protocol}, but this version of Corelane has neither encryption nor \
                     authentication, and starting without them would be unsafe; make it PLAINTEXT on a network that you \
                     trust, or leave it out"
                )));
            }
        }
        self.without_controllers(list, endpoints)
    }

    /// `advertised.listeners` without Kafka's controller listeners. Several may share a port.
    pub fn select_advertised(&self, list: &[String]) -> Result<Vec<String>, Unfit> {
        if list.is_empty() {
            return Ok(Vec::new());
        }
        let endpoints = parse_all(list).map_err(Unfit::Invalid)?;
        self.without_controllers(list, endpoints)
    }

    fn without_controllers(&self, list: &[String], endpoints: Vec<Endpoint>) -> Result<Vec<String>, Unfit> {
        let kept = list.iter().zip(endpoints).filter(|(_, endpoint)| !self.controllers.contains(&endpoint.name));
        let kept: Vec<String> = kept.map(|(text, _)| text.clone()).collect();
        if kept.is_empty() && !list.is_empty() {
            let text = "has no listener for clients: all of them are among controller.listener.names, and Corelane has no \
                        controller listener; add PLAINTEXT://host:port";
            return Err(Unfit::Invalid(text.into()));
        }
        Ok(kept)
    }
}

/// All elements, whose names differ.
fn parse_all(list: &[String]) -> Result<Vec<Endpoint>, String> {
    let endpoints = list.iter().map(|item| parse(item)).collect::<Result<Vec<_>, _>>()?;
    let mut names = BTreeSet::new();
    match endpoints.iter().find(|endpoint| !names.insert(endpoint.name.as_str())) {
        Some(twice) => Err(format!("has two listeners called {}; each must have a name of its own", twice.name)),
        None => Ok(endpoints),
    }
}

/// Kafka's rule: two listeners share a port only if one has an IPv4 and the other an IPv6 address.
fn check_ports(endpoints: &[Endpoint]) -> Result<(), String> {
    let mut by_port = BTreeMap::<u16, Vec<&Endpoint>>::new();
    for endpoint in endpoints {
        by_port.entry(endpoint.port).or_default().push(endpoint);
    }
    for (port, sharing) in by_port {
        let family = |endpoint: &Endpoint| endpoint.host.parse::<IpAddr>().ok().map(|ip| ip.is_ipv4());
        let fits = match sharing[..] {
            [_] => true,
            [a, b] => matches!((family(a), family(b)), (Some(x), Some(y)) if x != y),
            _ => false,
        };
        if !fits {
            let names: Vec<_> = sharing.iter().map(|endpoint| endpoint.name.as_str()).collect();
            return Err(format!(
                "has several listeners on port {port} ({}); each must have a port of its own, unless one has an IPv4 and \
                 the other an IPv6 address",
                names.join(", ")
            ));
        }
    }
    Ok(())
}

/// Sets the listeners, and the advertised addresses that follow from them.
pub(super) fn set(config: &mut ServerConfig, list: &[String]) -> Result<(), String> {
    let mut listeners = Vec::with_capacity(list.len());
    for endpoint in parse_all(list)? {
        let address = resolve(&endpoint)?;
        let host = if address.ip().is_unspecified() { machine_name() } else { endpoint.host };
        let advertised = Some(Advertised { host, port: endpoint.port });
        listeners.push(ListenerConfig { name: endpoint.name, address, advertised });
    }
    config.listeners = listeners;
    Ok(())
}

/// Sets the advertised addresses; nothing given: keeps those that follow from the listeners.
pub(super) fn set_advertised(config: &mut ServerConfig, list: &[String]) -> Result<(), String> {
    if list.is_empty() {
        return Ok(());
    }
    let mut advertised = BTreeMap::new();
    for Endpoint { name, host, port } in parse_all(list)? {
        if host.parse::<IpAddr>().is_ok_and(|ip| ip.is_unspecified()) {
            return Err(format!("has no address that a client could connect to for {name}; name the host"));
        }
        let host = if host.is_empty() { machine_name() } else { host };
        advertised.insert(name, Advertised { host, port });
    }
    if let Some(stranger) = advertised.keys().find(|name| config.listeners.iter().all(|one| one.name != **name)) {
        let names: Vec<_> = config.listeners.iter().map(|listener| listener.name.as_str()).collect();
        return Err(format!("has {stranger}, which listeners does not have; there are {}", names.join(", ")));
    }
    for listener in &mut config.listeners {
        listener.advertised = advertised.remove(&listener.name);
    }
    Ok(())
}

/// Sets the listener that other brokers are to use.
pub(super) fn set_inter_broker(config: &mut ServerConfig, name: &str) -> Result<(), String> {
    let name = normalized(name);
    let advertised = || config.listeners.iter().filter(|listener| listener.advertised.is_some());
    if !name.is_empty() && advertised().all(|listener| listener.name != name) {
        let names: Vec<_> = advertised().map(|listener| listener.name.as_str()).collect();
        return Err(format!("is not among advertised.listeners; there are {}", names.join(", ")));
    }
    config.inter_broker_listener_name = name;
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
fn machine_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() || name == "(none)" { "localhost".to_owned() } else { name.to_owned() }
}

#[cfg(test)]
mod tests;
