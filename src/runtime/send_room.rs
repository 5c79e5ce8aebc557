//! Room in a connection's send queue.

use std::cell::Cell;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::clock;

/// Bytes that the kernel takes for a connection at once, whether or not the client reads. Does not
/// keep the socket open. Clones are of the same connection, and know of each other's promises.
#[derive(Clone, Debug, Default)]
pub struct SendRoom {
    socket: Weak<OwnedFd>,
    /// Room that answers not yet sent will take.
    promised: Rc<Cell<usize>>,
    #[cfg(test)]
    fixed: Option<Rc<Cell<usize>>>,
}

impl SendRoom {
    pub(super) fn of(socket: &Rc<OwnedFd>) -> SendRoom {
        SendRoom {
            socket: Rc::downgrade(socket),
            promised: Rc::default(),
            #[cfg(test)]
            fixed: None,
        }
    }

    /// Room as a test sets it.
    #[cfg(test)]
    pub fn fixed(bytes: Rc<Cell<usize>>) -> SendRoom {
        SendRoom { fixed: Some(bytes), ..SendRoom::default() }
    }

    /// True if an answer of `bytes` leaves as soon as it is sent. False of a
    /// connection that has ended.
    pub fn takes(&self, bytes: usize) -> bool {
        let bytes = bytes.saturating_add(self.promised.get());
        #[cfg(test)]
        if let Some(fixed) = &self.fixed {
            return fixed.get() >= bytes;
        }
        // The kernel charges some for each of its buffers, on top of what is in them.
        let charged = bytes + bytes / 16 + 4096;
        self.socket.upgrade().is_some_and(|socket| {
            let (limit, queued) = limit_and_queued(&socket);
            limit.saturating_sub(queued) >= charged
        })
    }

    /// Keeps room for an answer of `bytes` until the promise is dropped, when the answer has been
    /// sent: requests that a client pipelines must not each count on the same room.
    pub fn promise(&self, bytes: usize) -> Promise {
        self.promised.set(self.promised.get() + bytes);
        Promise { promised: self.promised.clone(), bytes }
    }

    /// True if the kernel calls for more, so that a sender who does not get on waits for the broker
    /// and not for the client. A client that reads just a little does not make it so.
    pub fn is_writable(&self) -> bool {
        self.socket.upgrade().is_some_and(|socket| {
            let (limit, queued) = limit_and_queued(&socket);
            // The kernel's own condition.
            limit.saturating_sub(queued) >= queued / 2 && limit > 0
        })
    }

    /// Waits until the first of `sizes` that there is room for, and gives it;
    /// for ever if there are none.
    pub async fn first_of(&self, sizes: &[usize]) -> usize {
        if sizes.is_empty() {
            return std::future::pending().await;
        }
        loop {
            if let Some(bytes) = sizes.iter().find(|bytes| self.takes(**bytes)) {
                return *bytes;
            }
            clock::sleep(PAUSE).await;
        }
    }
}

/// Room kept for one answer.
#[derive(Debug)]
pub struct Promise {
    promised: Rc<Cell<usize>>,
    bytes: usize,
}

impl Promise {
    /// Keeps no more than `bytes` from now on.
    pub fn shrink(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes);
        self.promised.set(self.promised.get() - less);
        self.bytes -= less;
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.promised.set(self.promised.get() - self.bytes);
    }
}

/// Between two looks for room.
const PAUSE: Duration = Duration::from_millis(25);

/// The send buffer's limit and what is queued, sent but not acknowledged included; zeros if
/// the kernel does not tell.
fn limit_and_queued(socket: &OwnedFd) -> (usize, usize) {
    const WORDS: usize = 9;
    let mut info = [0u32; WORDS];
    let mut length = size_of_val(&info) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `info`, which outlives the
    // call; the descriptor is open.
    #[allow(unsafe_code)]
    let outcome = unsafe {
        libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_MEMINFO, info.as_mut_ptr().cast(), &mut length)
    };
    if outcome != 0 || (length as usize) < size_of_val(&info) {
        return (0, 0);
    }
    (info[libc::SK_MEMINFO_SNDBUF as usize] as usize, info[libc::SK_MEMINFO_WMEM_QUEUED as usize] as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::on_shard;
    use socket2::{Domain, SockRef, Socket, Type};
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_queue_has_room_until_its_client_stops_reading_and_again_once_it_reads() {
        on_shard(|| async {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let client = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            client.set_recv_buffer_size(4096).unwrap();
            client.connect(&listener.local_addr().unwrap().into()).unwrap();
            let mut client = TcpStream::from(client);
            let (stream, _) = listener.accept().unwrap();
            stream.set_nonblocking(true).unwrap();
            SockRef::from(&stream).set_send_buffer_size(100 << 10).unwrap();
            let socket = Rc::new(OwnedFd::from(stream.try_clone().unwrap()));
            let room = SendRoom::of(&socket);
            assert!(room.takes(64 << 10) && !room.takes(1 << 20));
            let answer = vec![7; 64 << 10];
            let mut sent = 0;
            while room.takes(answer.len()) {
                assert_eq!((&stream).write(&answer).unwrap(), answer.len(), "what there is room for leaves at once");
                sent += answer.len();
            }
            assert!((64 << 10..1 << 20).contains(&sent), "{sent}");
            while let Ok(more) = (&stream).write(&answer) {
                sent += more;
            }
            assert!(!room.is_writable(), "full");
            client.read_exact(&mut [0; 64]).unwrap();
            sent -= 64;
            assert!(!room.is_writable(), "a few bytes make no difference");
            client.read_exact(&mut vec![0; sent]).unwrap();
            crate::runtime::eventually("it is writable again", || room.is_writable()).await;
            crate::runtime::eventually("there is room again", || room.takes(answer.len())).await;
            drop(socket);
            assert!(!room.takes(1), "a connection that has ended takes nothing");
        });
    }
}
