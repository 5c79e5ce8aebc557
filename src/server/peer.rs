//! A client's address, as log lines show it, and the way back to it.

use std::cell::RefCell;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Instant;

use crate::observe::metrics::Software;
use crate::runtime::SendRoom;

use super::traffic::Tally;

/// The address of a connection's other end; `None`: the system did not tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub Option<SocketAddr>);

/// The client that a connection counts for; empty once it has left.
pub type SoftwareSlot = Rc<RefCell<Option<Software>>>;

/// A connection's other end, the room for answers to it, and where its requests are counted.
#[derive(Clone, Debug)]
pub struct Client {
    pub peer: Peer,
    pub room: SendRoom,
    pub tally: Tally,
    pub software: SoftwareSlot,
    /// When the request's last byte had come.
    pub received: Instant,
}

impl Peer {
    pub fn ip(self) -> Option<IpAddr> {
        self.0.map(|address| address.ip().to_canonical())
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(address) => SocketAddr::new(address.ip().to_canonical(), address.port()).fmt(f),
            None => f.write_str("unknown"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peers_are_shown_as_addresses() {
        let shown = |address: &str| Peer(address.parse().ok()).to_string();
        assert_eq!(shown("127.0.0.1:9092"), "127.0.0.1:9092");
        assert_eq!(shown("[::1]:9092"), "[::1]:9092");
        assert_eq!(shown("[::ffff:10.0.0.1]:9092"), "10.0.0.1:9092");
        assert_eq!(shown(""), "unknown");
    }
}
