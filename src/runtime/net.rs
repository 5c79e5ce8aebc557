//! TCP. Reads fill a caller's buffer; writes send many slices in one `sendmsg` without copying them. The shard's ring says
//! when to try; the calls themselves never wait.

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
use super::executor::{Breather, spawn_blocking};
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

/// How long a killed broker's sockets may outlive it: the kernel takes its rings apart in the background, and they hold on.
const LINGERING: Duration = Duration::from_secs(3);

/// A process that holds the address for so long is not on its way out.
const HELD: Duration = Duration::from_millis(300);

/// Fails when anybody, also with SO_REUSEPORT, listens on `address` (a second broker would silently share it), and names the
/// process. Where none is found, it says so and blocks for up to three seconds; not for shards.
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

    /// The next connection, with TCP_NODELAY set. Connections that ended before they were taken are passed over; without
    /// free descriptors it waits for some. An error says that the listener itself is of no use any more.
    pub async fn accept(&self) -> io::Result<(Reader, Writer)> {
        let mut breather = Breather;
        loop {
            breather.pass().await;
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

    /// The next connection to any of the sockets, as [`Listener::accept`], and the socket's place among the addresses.
    /// Sockets take turns, so that a flood of connections to one does not shut out those to the others. Dropping the
    /// future loses no connection.
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
    /// The ring holds the socket for a while yet; nobody shall connect to it meanwhile, nor find the address taken.
    fn drop(&mut self) {
        let _ = SockRef::from(&*self.socket).shutdown(std::net::Shutdown::Both);
    }
}

fn internet_address(address: SockAddr) -> io::Result<SocketAddr> {
    address.as_socket().ok_or_else(|| io::Error::other("a socket without an internet address"))
}

/// The addresses of `host`, looked up on a helper thread; a literal address is its own. Call on a shard.
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
    let socket = Rc::new(OwnedFd::from(socket));
    let watch = Watch::new(socket.clone(), Interest::Readable)?;
    let reader = Reader { socket: socket.clone(), watch, peer, breather: Breather };
    Ok((reader, Writer { socket, slices: Slices::default(), breather: Breather }))
}

/// The receiving half.
pub struct Reader {
    socket: Rc<OwnedFd>,
    watch: Watch,
    peer: Option<SocketAddr>,
    breather: Breather,
}

impl Reader {
    /// Waits until something has arrived and fills the front of `buf` with it; returns how much. 0: the peer has ended,
    /// or `buf` is empty.
    pub async fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        self.breather.pass().await;
        loop {
            self.watch.ready().await;
            self.watch.begin();
            match receive(self.socket.as_raw_fd(), buf) {
                Ok(received) => {
                    // Less than there was room for: nothing is left, and what comes next is an edge.
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

    /// Resolves once the peer sends no more, also while bytes that it sent before are still to be read.
    pub async fn ended(&self) {
        self.watch.ended().await;
    }

    /// Throws away up to `limit` bytes of what has arrived, without copying them; returns how many. `None`: nothing is there;
    /// 0: the peer has ended, or `limit` is 0.
    pub fn skip(&mut self, limit: usize) -> io::Result<Option<usize>> {
        // SAFETY: with MSG_TRUNC a TCP socket writes nothing, so there needs to be no buffer (tcp(7)).
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
    // SAFETY: the kernel writes at most `len` bytes to `buf`, which is borrowed for the call; the descriptor is open.
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
        // SAFETY: all-zero is a valid `msghdr`; its list points to `queue`'s bytes, which outlive the call, and the kernel
        // only reads them.
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
    breather: Breather,
}

impl Writer {
    /// Sends every slice, in order, leaving `queue` empty. One `sendmsg` takes as many slices as the kernel allows.
    /// After an error, or when dropped before its end, `queue` holds what was not sent.
    pub async fn send_all(&mut self, queue: &mut VecDeque<Bytes>) -> io::Result<()> {
        while self.send_some(queue).await? {}
        Ok(())
    }

    /// Sends as much of `queue` as one call takes, once there is room for anything; false: `queue` is empty.
    pub async fn send_some(&mut self, queue: &mut VecDeque<Bytes>) -> io::Result<bool> {
        loop {
            while queue.front().is_some_and(Bytes::is_empty) {
                queue.pop_front();
            }
            if queue.is_empty() {
                return Ok(false);
            }
            self.breather.pass().await;
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
mod tests {
    use super::*;
    use crate::runtime::executor::tests::{PATIENCE, eventually, on_shard};
    use std::io::Write;
    use std::net::Ipv4Addr;

    fn any_port() -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 0).into()
    }

    fn pattern(len: usize, seed: usize) -> Vec<u8> {
        (0..len).map(|i| ((i * 31 + seed * 7) % 251) as u8).collect()
    }

    #[test]
    fn a_sleep_lets_what_arrives_gather() {
        on_shard(|| async {
            const GATHER: Duration = Duration::from_millis(10);
            if !crate::runtime::gather_before_waking(GATHER).unwrap() {
                return;
            }
            let listener = Listener::bind(any_port()).unwrap();
            let address = listener.local_addr().unwrap();
            let client = std::thread::spawn(move || {
                let mut stream = std::net::TcpStream::connect(address).unwrap();
                for _ in 0..100 {
                    stream.write_all(b"x").unwrap();
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            let (mut reader, _writer) = listener.accept().await.unwrap();
            let (mut last, mut buf, mut gaps, mut bytes) = (clock::now(), [0; 64], Vec::new(), 0);
            while bytes < 100 {
                bytes += reader.read(&mut buf).await.unwrap();
                gaps.push(clock::now() - std::mem::replace(&mut last, clock::now()));
            }
            // A read here and there finds its byte without a sleep, the more of them the busier the machine.
            gaps.sort();
            assert!(gaps[gaps.len() / 2] >= GATHER * 9 / 10, "{gaps:?}");
            client.join().unwrap();
        });
    }

    #[test]
    fn many_slices_go_both_ways_with_a_slow_reader() {
        on_shard(|| async {
            const SLICES: usize = 5000;
            let listener = Listener::bind(any_port()).unwrap();
            let address = listener.local_addr().unwrap();
            let echo = crate::runtime::executor::spawn_joined(async move {
                let (mut reader, mut writer) = listener.accept().await.unwrap();
                let mut buf = vec![0; 65536];
                let mut reads = 0;
                loop {
                    let n = reader.read(&mut buf).await.unwrap();
                    if n == 0 {
                        break;
                    }
                    reads += 1;
                    if reads % 50 == 0 {
                        clock::sleep(Duration::from_millis(2)).await;
                    }
                    writer.send_all(&mut VecDeque::from([Bytes::copy_from_slice(&buf[..n])])).await.unwrap();
                }
            });
            let (mut reader, mut writer) = connect(address, PATIENCE).await.unwrap();
            let mut queue: VecDeque<Bytes> =
                (0..SLICES).map(|i| Bytes::from(pattern(if i % 7 == 0 { 0 } else { 1 + i * 3 % 9000 }, i))).collect();
            let wanted: Vec<u8> = queue.iter().flat_map(|bytes| bytes.iter().copied()).collect();
            let sending = crate::runtime::executor::spawn_joined(async move {
                writer.send_all(&mut queue).await.unwrap();
                assert!(queue.is_empty());
                writer
            });
            let mut got = Vec::new();
            let mut buf = vec![0; 100_000];
            clock::sleep(Duration::from_millis(50)).await;
            while got.len() < wanted.len() {
                let n = reader.read(&mut buf).await.unwrap();
                assert_ne!(n, 0, "ended early");
                got.extend_from_slice(&buf[..n]);
            }
            assert!(got == wanted, "the echo differs");
            let writer = sending.await;
            // A shutdown ends a pending read of the other half, and the peer.
            crate::runtime::executor::spawn_joined(async move {
                clock::sleep(Duration::from_millis(10)).await;
                writer.shutdown();
            })
            .detach();
            assert_eq!(reader.read(&mut buf).await.unwrap(), 0);
            echo.await;
        });
    }

    #[test]
    fn what_is_skipped_is_gone_and_the_rest_is_read() {
        on_shard(|| async {
            let listener = Listener::bind(any_port()).unwrap();
            let (_to, mut writer) = connect(listener.local_addr().unwrap(), PATIENCE).await.unwrap();
            let (mut reader, _) = listener.accept().await.unwrap();
            assert_eq!(reader.skip(1000).unwrap(), None);
            let sent = pattern(300_000, 3);
            let queued = Bytes::from(sent.clone());
            let sending = crate::runtime::executor::spawn_joined(async move {
                writer.send_all(&mut VecDeque::from([queued])).await.unwrap();
                writer.shutdown();
            });
            let mut buf = [0; 100];
            let mut at = 0;
            for _ in 0..1000 {
                let n = reader.read(&mut buf).await.unwrap();
                assert_eq!(&buf[..n], &sent[at..at + n]);
                at += n;
                at += reader.skip(777).unwrap().unwrap_or(0);
            }
            assert!(at > 100_000, "{at}");
            while at < sent.len() {
                let n = reader.read(&mut buf).await.unwrap();
                assert!(n > 0);
                at += n;
                at += reader.skip(usize::MAX >> 1).unwrap().unwrap_or(0);
            }
            assert_eq!((at, reader.read(&mut buf).await.unwrap(), reader.skip(1).unwrap()), (sent.len(), 0, Some(0)));
            sending.await;
        });
    }

    #[test]
    fn dropping_both_halves_closes_and_a_late_send_fails() {
        on_shard(|| async {
            let listener = Listener::bind(any_port()).unwrap();
            let address = listener.local_addr().unwrap();
            let (mut reader, mut writer) = connect(address, PATIENCE).await.unwrap();
            assert_eq!(reader.peer_addr(), Some(address));
            let accepted = listener.accept().await.unwrap();
            drop(accepted);
            assert_eq!(reader.read(&mut [0; 10]).await.unwrap(), 0);
            let data = Bytes::from(vec![1; 1 << 20]);
            let mut failed = false;
            for _ in 0..100 {
                failed |= writer.send_all(&mut VecDeque::from([data.clone()])).await.is_err();
                if failed {
                    break;
                }
            }
            assert!(failed, "sending to a closed peer never failed");
        });
    }

    #[test]
    fn an_address_in_use_is_noticed_despite_reuse_port() {
        on_shard(|| async {
            let listener = Listener::bind(any_port()).unwrap();
            let address = listener.local_addr().unwrap();
            let second = Listener::bind(address).unwrap();
            let error = check_address_free(address).err().unwrap();
            assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
            assert!(error.to_string().contains(&address.to_string()), "{error}");
            drop((listener, second));
            check_address_free(address).unwrap();
        });
    }

    #[test]
    fn connecting_reports_refusal_and_timeout() {
        on_shard(|| async {
            let listener = Listener::bind(any_port()).unwrap();
            let address = listener.local_addr().unwrap();
            drop(listener);
            let refused = connect(address, PATIENCE).await.err().unwrap();
            assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
            assert!(refused.to_string().contains(&address.to_string()), "{refused}");
            // A full backlog of one makes the next connection wait.
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
            socket.bind(&any_port().into()).unwrap();
            socket.listen(0).unwrap();
            let full = socket.local_addr().unwrap().as_socket().unwrap();
            let mut held = Vec::new();
            let error = loop {
                match connect(full, Duration::from_millis(200)).await {
                    Ok(halves) => held.push(halves),
                    Err(error) => break error,
                }
                assert!(held.len() < 10, "the backlog never filled");
            };
            assert_eq!(error.kind(), io::ErrorKind::TimedOut, "{error}");
        });
    }

    #[test]
    fn closed_connections_give_their_descriptors_back() {
        on_shard(|| async {
            let listener = Listener::bind(any_port()).unwrap();
            let address = listener.local_addr().unwrap();
            clock::sleep(Duration::from_millis(20)).await;
            let before = super::super::ring::slots();
            for _ in 0..50 {
                let client = std::net::TcpStream::connect(address).unwrap();
                let (mut reader, writer) = listener.accept().await.unwrap();
                drop(client);
                assert_eq!(reader.read(&mut [0; 16]).await.unwrap(), 0);
                drop(reader);
                // As the writing task does once the reader has ended.
                writer.shutdown();
                drop(writer);
            }
            eventually("no descriptor is left", || super::super::ring::slots() == before).await;
        });
    }

    #[test]
    fn waits_for_room_leave_no_polls_behind() {
        on_shard(|| async {
            let listener = Listener::bind(any_port()).unwrap();
            let address = listener.local_addr().unwrap();
            let client = std::net::TcpStream::connect(address).unwrap();
            let (_reader, mut writer) = listener.accept().await.unwrap();
            let before = super::super::ring::slots();
            std::thread::spawn(move || {
                use std::io::Read;
                let mut client = client;
                let mut buf = vec![0; 3000];
                while client.read(&mut buf).unwrap_or(0) > 0 {}
            });
            for _ in 0..200 {
                let block = Bytes::from(vec![1; 1 << 20]);
                writer.send_all(&mut VecDeque::from([block])).await.unwrap();
            }
            eventually("no slot is left", || super::super::ring::slots() == before).await;
        });
    }

    #[test]
    fn a_shard_ends_while_a_loop_breathes() {
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            on_shard(|| async {
                crate::runtime::executor::spawn_local(async {
                    let mut breather = Breather;
                    loop {
                        breather.pass().await;
                    }
                });
                clock::sleep(Duration::from_millis(20)).await;
            });
            let _ = sender.send(());
        });
        assert!(receiver.recv_timeout(PATIENCE).is_ok(), "the shard does not end");
    }

    #[test]
    fn many_connections_at_once() {
        const COUNT: usize = 400;
        on_shard(|| async {
            let listener = Rc::new(Listener::bind(any_port()).unwrap());
            let address = listener.local_addr().unwrap();
            let before = super::super::ring::slots();
            let accepting = listener.clone();
            let open = Rc::new(Cell::new(0));
            let (opened, ends) = (open.clone(), Rc::new(Cell::new(0)));
            let ended = ends.clone();
            crate::runtime::executor::spawn_local(async move {
                loop {
                    let (mut reader, mut writer) = accepting.accept().await.unwrap();
                    opened.set(opened.get() + 1);
                    let ended = ended.clone();
                    crate::runtime::executor::spawn_local(async move {
                        let mut buf = [0; 64];
                        loop {
                            match reader.read(&mut buf).await {
                                Ok(0) | Err(_) => break,
                                Ok(n) => {
                                    let _ =
                                        writer.send_all(&mut VecDeque::from([Bytes::copy_from_slice(&buf[..n])])).await;
                                }
                            }
                        }
                        writer.shutdown();
                        ended.set(ended.get() + 1);
                    });
                }
            });
            let (go, gate) = std::sync::mpsc::channel::<()>();
            std::thread::spawn(move || {
                use std::io::{Read, Write};
                let mut clients = Vec::new();
                for _ in 0..COUNT {
                    clients.push(std::net::TcpStream::connect(address).unwrap());
                }
                gate.recv().unwrap();
                for _ in 0..3 {
                    for client in &mut clients {
                        client.write_all(b"hello").unwrap();
                    }
                    for client in &mut clients {
                        client.set_read_timeout(Some(PATIENCE)).unwrap();
                        client.read_exact(&mut [0; 5]).unwrap();
                    }
                }
                drop(clients);
            });
            while open.get() < COUNT {
                clock::sleep(Duration::from_millis(5)).await;
            }
            go.send(()).unwrap();
            // Nothing is reaped while all of them send: more polls than the completion queue holds.
            std::thread::sleep(Duration::from_millis(800));
            eventually("all of them end", || ends.get() == COUNT).await;
            eventually("no slot is left", || super::super::ring::slots() == before).await;
        });
    }
}
