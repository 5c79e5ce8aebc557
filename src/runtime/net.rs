//! TCP. Reads fill a caller's buffer; writes send many slices in one `sendmsg` without copying them.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;

/// Fails when anybody, also with SO_REUSEPORT, listens on `address` (a second broker would silently share it).
pub fn check_address_free(address: SocketAddr) -> io::Result<()> {
    let _ = address;
    todo!()
}

/// One shard's listening socket; all shards bind the same address (SO_REUSEPORT).
pub struct Listener {
    pub(crate) _private: (),
}

impl Listener {
    pub fn bind(address: SocketAddr) -> io::Result<Listener> {
        let _ = address;
        todo!()
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        todo!()
    }

    /// The next connection, with TCP_NODELAY set.
    pub async fn accept(&self) -> io::Result<(Reader, Writer)> {
        todo!()
    }
}

/// The receiving half.
pub struct Reader {
    pub(crate) _shared: Rc<()>,
}

impl Reader {
    /// Appends what has arrived to `buf` without growing past its `limit` bytes of capacity; 0: the peer ended.
    pub async fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let _ = buf;
        todo!()
    }

    pub fn peer_addr(&self) -> Option<SocketAddr> {
        todo!()
    }
}

/// The sending half. Dropping both halves closes the socket.
pub struct Writer {
    pub(crate) _shared: Rc<()>,
}

impl Writer {
    /// Sends every slice, in order, leaving `queue` empty. One `sendmsg` takes as many slices as the kernel allows.
    pub async fn send_all(&mut self, queue: &mut VecDeque<Bytes>) -> io::Result<()> {
        let _ = queue;
        todo!()
    }

    /// Ends both directions; a pending read on the other half ends.
    pub fn shutdown(&self) {
        todo!()
    }
}
