//! TCP. Reads fill a caller's buffer; writes send many slices in one `sendmsg` without copying
//! them. The shard's ring says when to try; the calls themselves never wait.

use std::cell::Cell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::clock;
use super::executor::{Yielder, spawn_blocking};
use super::port_holder::{self, Holder};
use super::ring::{Interest, Watch};
use super::send_room::SendRoom;

/// Connections the kernel holds for a shard until it accepts them.
const BACKLOG: i32 = 4096;

/// Slices per `sendmsg` (the kernel's UIO_MAXIOV).
const MAX_SLICES: usize = 1024;

/// How long accepting rests when the process or the system has no descriptors left.
const NO_DESCRIPTORS_REST: Duration = Duration::from_millis(100);

fn listening_socket(address: SocketAddr, share: bool) -> io::Result<Socket> {
    let named = |what: &'static str| {
        move |cause: io::Error| io::Error::new(cause.kind(), format!("cannot {what} {address}: {cause}"))
    };
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))
        .map_err(named("make a socket for"))?;
    socket.set_reuse_address(true).map_err(named("set SO_REUSEADDR for"))?;
    if share {
        socket.set_reuse_port(true).map_err(named("set SO_REUSEPORT for"))?;
    }
    socket.bind(&address.into()).map_err(named("bind"))?;
    socket.listen(BACKLOG).map_err(named("listen on"))?;
    Ok(socket)
}

/// How long a killed broker's sockets may outlive it: the kernel takes its rings apart in the
/// background, and they hold on.
const LINGERING: Duration = Duration::from_secs(3);

/// A process that holds the address for so long is not on its way out.
const HELD: Duration = Duration::from_millis(300);

/// Fails when anybody, also with SO_REUSEPORT, listens on `address` (a second broker would silently
/// share it), and names the process. Where none is found, it says so and blocks for up to three
/// seconds; not for shards.
pub fn check_address_free(address: SocketAddr) -> io::Result<()> {
    if address.port() == 0 {
        return Ok(());
    }
    let begun = Instant::now();
    let mut said = false;
    loop {
        let error = match listening_socket(address, false) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => error,
            Err(error) => return Err(error),
        };
        let holder = port_holder::holder(address);
        if let Some(Holder { pid, name }) = &holder
            && begun.elapsed() > HELD
        {
            let text = format!("{error}: process {pid} ({name}) listens there; stop it, or change the port");
            return Err(io::Error::new(error.kind(), text));
        }
        if begun.elapsed() > LINGERING {
            return Err(error);
        }
        if holder.is_none() && !said {
            said = true;
            tracing::info!(
                "{address} is taken, but by no process that can be seen: waiting up to {} s for the kernel to free it",
                LINGERING.as_secs()
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// One shard's listening socket; all shards bind the same address (SO_REUSEPORT).
pub struct Listener {
    socket: Rc<OwnedFd>,
    watch: Watch,
    /// Said already that there are no descriptors; reset by the next success.
    warned: Cell<bool>,
}

impl Listener {
    /// Call on a shard.
    pub fn bind(address: SocketAddr) -> io::Result<Listener> {
        let socket = listening_socket(address, true)?;
        socket.set_nonblocking(true)?;
        let socket = Rc::new(OwnedFd::from(socket));
        let watch = Watch::new(socket.clone(), Interest::Readable)?;
        Ok(Listener { socket, watch, warned: Cell::new(false) })
    }

    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        internet_address(SockRef::from(&*self.socket).local_addr()?)
    }

    /// The next connection, with TCP_NODELAY set. Connections that ended before they were taken are
    /// passed over; without free descriptors it waits for some. An error says that the listener
    /// itself is of no use any more.
    pub async fn accept(&self) -> io::Result<(Reader, Writer)> {
        let mut yielder = Yielder;
        loop {
            yielder.pass().await;
            self.watch.ready().await;
            self.watch.begin();
            let error = match SockRef::from(&*self.socket).accept() {
                Ok((socket, peer)) => {
                    // There may be more of them; only a failed attempt says that there are none.
                    self.watch.more();
                    self.warned.set(false);
                    match split(socket, internet_address(peer).ok()) {
                        Ok(halves) => return Ok(halves),
                        // The peer has gone already.
                        Err(_) => continue,
                    }
                }
                Err(error) => error,
            };
            match error.raw_os_error() {
                Some(libc::EAGAIN) => self.watch.nothing()?,
                Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM) => {
                    self.watch.more();
                    if !self.warned.replace(true) {
                        tracing::warn!(
                            "cannot accept connections: {error}; raise the limit of open files (`ulimit -n`)"
                        );
                    }
                    clock::sleep(NO_DESCRIPTORS_REST).await;
                }
                // accept(2): errors of the new connection, not of the listener.
                Some(
                    libc::ECONNABORTED
                    | libc::EINTR
                    | libc::EPROTO
                    | libc::EPERM
                    | libc::ENETDOWN
                    | libc::ENETUNREACH
                    | libc::EHOSTDOWN
                    | libc::EHOSTUNREACH
                    | libc::ENONET
                    | libc::ENOPROTOOPT
                    | libc::EOPNOTSUPP
                    | libc::ETIMEDOUT,
                ) => self.watch.more(),
                _ => {
                    self.watch.more();
                    return Err(error);
                }
            }
        }
    }
}

/// All listening sockets of a shard.
pub struct Listeners {
    all: Vec<Listener>,
    /// Whose turn it is to be looked at first.
    next: Cell<usize>,
}

impl Listeners {
    /// Call on a shard.
    pub fn bind(addresses: impl IntoIterator<Item = SocketAddr>) -> io::Result<Listeners> {
        let all = addresses.into_iter().map(Listener::bind).collect::<io::Result<_>>()?;
        Ok(Listeners { all, next: Cell::new(0) })
    }

    pub fn local_addrs(&self) -> io::Result<Vec<SocketAddr>> {
        self.all.iter().map(Listener::local_addr).collect()
    }

    /// The next connection to any of the sockets, as [`Listener::accept`], and the socket's place
    /// among the addresses. Sockets take turns, so that a flood of connections to one does not shut
    /// out those to the others. Dropping the future loses no connection.
    pub async fn accept(&self) -> io::Result<(usize, Reader, Writer)> {
        let (count, first) = (self.all.len(), self.next.get());
        let mut turns: Vec<_> = (0..count)
            .map(|turn| {
                let place = (first + turn) % count;
                Box::pin(async move { (place, self.all[place].accept().await) })
            })
            .collect();
        let accepted = poll_fn(|cx| {
            let mut ready = turns.iter_mut().filter_map(|turn| match turn.as_mut().poll(cx) {
                Poll::Ready(accepted) => Some(accepted),
                Poll::Pending => None,
            });
            ready.next().map_or(Poll::Pending, Poll::Ready)
        });
        let (place, halves) = accepted.await;
        self.next.set((place + 1) % count);
        halves.map(|(reader, writer)| (place, reader, writer))
    }
}

impl Drop for Listener {
    /// The ring holds the socket for a while yet; nobody shall connect to it meanwhile,
    /// nor find the address taken.
    fn drop(&mut self) {
        let _ = SockRef::from(&*self.socket).shutdown(std::net::Shutdown::Both);
    }
}

fn internet_address(address: SockAddr) -> io::Result<SocketAddr> {
    address.as_socket().ok_or_else(|| io::Error::other("a socket without an internet address"))
}

/// The addresses of `host`, looked up on a helper thread; a literal address is
/// its own. Call on a shard.
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let name = host.to_owned();
    let found = spawn_blocking(move || Ok((name.as_str(), port).to_socket_addrs()?.collect()));
    found.await.map_err(|cause: io::Error| io::Error::new(cause.kind(), format!("cannot resolve {host}: {cause}")))
}

/// Opens a connection, with TCP_NODELAY set; `TimedOut` after `timeout`. Call on a shard.
pub async fn connect(address: SocketAddr, timeout: Duration) -> io::Result<(Reader, Writer)> {
    let named = |cause: io::Error| io::Error::new(cause.kind(), format!("cannot connect to {address}: {cause}"));
    let late = || named(io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {timeout:?}")));
    let deadline = clock::now() + timeout.max(Duration::from_millis(1));
    clock::until(deadline, try_connect(address)).await.ok_or_else(late)?.map_err(named)
}

async fn try_connect(address: SocketAddr) -> io::Result<(Reader, Writer)> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    match socket.connect(&address.into()) {
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => {
            let descriptor = Rc::new(OwnedFd::from(socket.try_clone()?));
            Watch::new(descriptor, Interest::Writable)?.ready().await;
            if let Some(error) = socket.take_error()? {
                return Err(error);
            }
        }
        outcome => outcome?,
    }
    split(socket, Some(address))
}

fn split(socket: Socket, peer: Option<SocketAddr>) -> io::Result<(Reader, Writer)> {
    socket.set_tcp_nodelay(true)?;
    Loose { socket: socket.into(), peer }.settle()
}

/// A connection that belongs to no shard: it may go to another thread.
#[derive(Debug)]
pub struct Loose {
    socket: OwnedFd,
    peer: Option<SocketAddr>,
}

impl Loose {
    /// Makes it the current shard's.
    pub fn settle(self) -> io::Result<(Reader, Writer)> {
        let socket = Rc::new(self.socket);
        let watch = Watch::new(socket.clone(), Interest::Readable)?;
        let reader = Reader { socket: socket.clone(), watch, peer: self.peer, yielder: Yielder };
        Ok((reader, Writer { socket, slices: Slices::default(), yielder: Yielder }))
    }
}

/// The receiving half.
pub struct Reader {
    socket: Rc<OwnedFd>,
    watch: Watch,
    peer: Option<SocketAddr>,
    yielder: Yielder,
}

impl Reader {
    /// Waits until something has arrived and fills the front of `buf` with it; returns how much. 0:
    /// the peer has ended, or `buf` is empty.
    pub async fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        self.yielder.pass().await;
        loop {
            self.watch.ready().await;
            self.watch.begin();
            match receive(self.socket.as_raw_fd(), buf) {
                Ok(received) => {
                    // Less than there was room for: nothing is left, and what
                    // comes next is an edge.
                    if received == buf.len() {
                        self.watch.more();
                    }
                    return Ok(received);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock => self.watch.nothing()?,
                    io::ErrorKind::Interrupted => self.watch.more(),
                    _ => return Err(error),
                },
            }
        }
    }

    /// Resolves once the peer sends no more, also while bytes that it sent
    /// before are still to be read.
    pub async fn ended(&self) {
        self.watch.ended().await;
    }

    /// Throws away up to `limit` bytes of what has arrived, without copying them; returns how many.
    /// `None`: nothing is there; 0: the peer has ended, or `limit` is 0.
    pub fn skip(&mut self, limit: usize) -> io::Result<Option<usize>> {
        // SAFETY: with MSG_TRUNC a TCP socket writes nothing, so there needs to
        // be no buffer (tcp(7)).
        #[allow(unsafe_code)]
        let skipped = unsafe {
            let flags = libc::MSG_TRUNC | libc::MSG_DONTWAIT;
            libc::recv(self.socket.as_raw_fd(), std::ptr::null_mut(), limit, flags)
        };
        if usize::try_from(skipped).is_ok_and(|skipped| skipped == limit) {
            self.watch.more();
        }
        usize::try_from(skipped).map(Some).or_else(|_| match io::Error::last_os_error() {
            error if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
            error => Err(error),
        })
    }

    /// The connection by another descriptor, for another shard. Nobody reads or sends here from now
    /// on: both halves are to be dropped, and what the kernel has or gets meanwhile is the other
    /// shard's to read. An error: no descriptor is left, and everything is as it was.
    pub fn loosen(&self) -> io::Result<Loose> {
        Ok(Loose { socket: self.socket.try_clone()?, peer: self.peer })
    }

    /// Sets how much the kernel keeps of what is sent and of what arrives; `None`: its own choice.
    pub fn set_buffers(&self, send: Option<usize>, receive: Option<usize>) -> io::Result<()> {
        let socket = SockRef::from(&*self.socket);
        send.map_or(Ok(()), |bytes| socket.set_send_buffer_size(bytes))?;
        receive.map_or(Ok(()), |bytes| socket.set_recv_buffer_size(bytes))
    }

    pub fn peer_addr(&self) -> Option<SocketAddr> {
        self.peer
    }
}

fn receive(socket: RawFd, buf: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the kernel writes at most `len` bytes to `buf`, which is borrowed for the
    // call; the descriptor is open.
    #[allow(unsafe_code)]
    let received = unsafe { libc::recv(socket, buf.as_mut_ptr().cast(), buf.len(), libc::MSG_DONTWAIT) };
    usize::try_from(received).map_err(|_| io::Error::last_os_error())
}

/// The memory for a `sendmsg`'s list, reused. Holds addresses during one call only.
#[derive(Default)]
struct Slices(Vec<libc::iovec>);

impl Slices {
    /// One `sendmsg` of as much of `queue` as fits into one; how many bytes went.
    fn send(&mut self, socket: RawFd, queue: &VecDeque<Bytes>) -> io::Result<usize> {
        self.0.clear();
        self.0.extend(
            queue
                .iter()
                .take(MAX_SLICES)
                .map(|bytes| libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }),
        );
        // SAFETY: all-zero is a valid `msghdr`; its list points to `queue`'s bytes, which outlive
        // the call, and the kernel only reads them.
        #[allow(unsafe_code)]
        let sent = unsafe {
            let mut message: libc::msghdr = std::mem::zeroed();
            message.msg_iov = self.0.as_mut_ptr();
            message.msg_iovlen = self.0.len();
            libc::sendmsg(socket, &message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
        };
        self.0.clear();
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

/// The sending half. Dropping both halves closes the socket.
pub struct Writer {
    socket: Rc<OwnedFd>,
    slices: Slices,
    yielder: Yielder,
}

impl Writer {
    /// Sends every slice, in order, leaving `queue` empty. One `sendmsg` takes as many
    /// slices as the kernel allows. After an error, or when dropped before its end, `queue`
    /// holds what was not sent.
    pub async fn send_all(&mut self, queue: &mut VecDeque<Bytes>) -> io::Result<()> {
        while self.send_some(queue).await? {}
        Ok(())
    }

    /// Sends as much of `queue` as one call takes, once there is room for anything;
    /// false: `queue` is empty.
    pub async fn send_some(&mut self, queue: &mut VecDeque<Bytes>) -> io::Result<bool> {
        loop {
            while queue.front().is_some_and(Bytes::is_empty) {
                queue.pop_front();
            }
            if queue.is_empty() {
                return Ok(false);
            }
            self.yielder.pass().await;
            match self.slices.send(self.socket.as_raw_fd(), queue) {
                Ok(sent) => {
                    advance(queue, sent);
                    return Ok(true);
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted => {}
                    // Watched only now: most sockets never fill up.
                    io::ErrorKind::WouldBlock => {
                        Watch::new(self.socket.clone(), Interest::Writable)?.ready().await;
                    }
                    _ => return Err(error),
                },
            }
        }
    }

    /// Room for what is sent.
    pub fn room(&self) -> SendRoom {
        SendRoom::of(&self.socket)
    }

    /// Ends both directions; a pending read on the other half ends.
    pub fn shutdown(&self) {
        // Failing says that the connection has ended already.
        let _ = SockRef::from(&*self.socket).shutdown(std::net::Shutdown::Both);
    }
}

fn advance(queue: &mut VecDeque<Bytes>, mut sent: usize) {
    while let Some(front) = queue.front_mut() {
        if sent < front.len() {
            front.advance(sent);
            return;
        }
        sent -= front.len();
        queue.pop_front();
    }
}

#[cfg(test)]
mod tests;
