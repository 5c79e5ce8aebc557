//! A client's address, as log lines show it, and the way back to it.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use crate::observe::metrics::{Software, Target};
use crate::runtime::SendRoom;

use super::pipeline::Course;
use super::principal::Principal;
use super::quotas::Mute;
use super::traffic::Tally;

/// The address of a connection's other end; `None`: the system did not tell it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub Option<SocketAddr>);

/// A connection's other end. Made once a connection; each of its requests has a reference.
#[derive(Debug)]
pub struct Client {
    /// The name of the listener that it came by.
    pub listener: Rc<str>,
    pub peer: Peer,
    /// The user of its requests.
    pub principal: Principal,
    /// For answers to it.
    pub room: SendRoom,
    /// Of the connection's requests.
    pub tally: Tally,
    /// The client that the connection counts for; empty once it has left.
    pub software: RefCell<Option<Software>>,
    /// For as long as it has used too much of its quotas.
    pub mute: Rc<Mute>,
    /// Of the request that is being begun.
    pub begun: Cell<(Course, Target)>,
    /// The log has said who it is.
    introduced: Cell<bool>,
    /// The client id of the last request.
    last_id: RefCell<Option<Rc<str>>>,
}

impl Client {
    pub fn new(listener: Rc<str>, peer: Peer, room: SendRoom, tally: Tally, software: Option<Software>) -> Client {
        let (software, mute, last_id) = (RefCell::new(software), Rc::default(), RefCell::default());
        Client {
            listener,
            peer,
            principal: Principal::ANONYMOUS,
            room,
            tally,
            software,
            mute,
            begun: Cell::default(),
            introduced: Cell::new(false),
            last_id,
        }
    }

    pub fn is_introduced(&self) -> bool {
        self.introduced.get()
    }

    /// Another shard's log has said so.
    pub fn note_introduced(&self) {
        self.introduced.set(true);
    }

    /// Says who it is, where nobody has.
    #[cold]
    pub fn introduce(&self) {
        if self.introduced.replace(true) {
            return;
        }
        let kind =
            self.software.borrow().as_ref().map(|software| software.kind().clone()).filter(|kind| kind.is_told());
        tracing::debug!(
            peer = %self.peer,
            listener = &*self.listener,
            client_id = self.last_id.borrow().as_deref(),
            software = kind.as_ref().map(|kind| &*kind.name),
            version = kind.as_ref().map(|kind| &*kind.version),
            "a client has connected"
        );
    }

    /// The client id of the newest request that had one.
    pub fn last_id(&self) -> Option<Rc<str>> {
        self.last_id.borrow().clone()
    }

    /// The client id of a request as text. It hardly ever differs from that of the request
    /// before. As in Kafka, bytes that are not UTF-8 become replacement characters: a name in
    /// logs is no reason to refuse.
    pub fn id(&self, bytes: Option<&[u8]>) -> Option<Rc<str>> {
        let bytes = bytes?;
        let mut last = self.last_id.borrow_mut();
        match &*last {
            Some(id) if id.as_bytes() == bytes => Some(id.clone()),
            _ => {
                let id = Rc::<str>::from(String::from_utf8_lossy(bytes));
                *last = Some(id.clone());
                Some(id)
            }
        }
    }
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
    fn a_client_id_is_made_of_the_bytes_of_each_request() {
        let client = Client::new("X".into(), Peer(None), SendRoom::default(), Tally::default(), None);
        for (bytes, text) in
            [(Some(&b"me"[..]), Some("me")), (Some(b"me"), Some("me")), (None, None), (Some(b"you"), Some("you"))]
        {
            assert_eq!(client.id(bytes).as_deref(), text);
        }
        assert_eq!(client.id(Some(&[0xff, b'a'])).as_deref(), Some("\u{fffd}a"));
        assert_eq!(client.id(Some(&[0xff, b'a'])).as_deref(), Some("\u{fffd}a"));
        assert_eq!(client.id(Some(b"")).as_deref(), Some(""));
    }

    #[test]
    fn peers_are_shown_as_addresses() {
        let shown = |address: &str| Peer(address.parse().ok()).to_string();
        assert_eq!(shown("127.0.0.1:9092"), "127.0.0.1:9092");
        assert_eq!(shown("[::1]:9092"), "[::1]:9092");
        assert_eq!(shown("[::ffff:10.0.0.1]:9092"), "10.0.0.1:9092");
        assert_eq!(shown(""), "unknown");
    }
}
