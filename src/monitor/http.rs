//! Connections to the HTTP listener: so many at most, so long without a request, so large a header.
//! When there are as many as there may be, the oldest makes way.

use std::collections::VecDeque;
use std::net::{self, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// Connections at a time. A scraper needs one.
const MOST_CONNECTIONS: usize = 64;
/// A request's header has to be there within this time; between two requests a connection
/// may be idle for as long.
const HEADER_TIME: Duration = Duration::from_secs(if cfg!(test) { 1 } else { 75 });
/// Largest header.
const HEADER_BYTES: usize = 16 << 10;
const HEADERS: usize = 64;
/// A pause after a failed accept (out of descriptors, mostly), which would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The other end of a request's connection.
#[derive(Clone, Copy)]
pub(super) struct Peer(pub SocketAddr);

/// Open connections, oldest first.
#[derive(Clone, Default)]
struct Open(Arc<Mutex<VecDeque<(u64, AbortHandle)>>>);

impl Open {
    fn add(&self, number: u64, connection: AbortHandle) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() >= MOST_CONNECTIONS
            && let Some((_, oldest)) = open.pop_front()
        {
            oldest.abort();
        }
        open.push_back((number, connection));
    }

    fn remove(&self, number: u64) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|(other, _)| *other != number);
    }
}

/// Serves until the process ends.
pub(super) async fn serve(listener: net::TcpListener, router: Router) -> std::io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let open = Open::default();
    for number in 0.. {
        let (stream, peer) = loop {
            match listener.accept().await {
                Ok(accepted) => break accepted,
                Err(error) => {
                    tracing::debug!(%error, "a connection for metrics could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        };
        let (router, ended) = (router.clone().layer(Extension(Peer(peer))), open.clone());
        let connection = tokio::spawn(async move {
            answer(stream, router).await;
            ended.remove(number);
        });
        open.add(number, connection.abort_handle());
    }
    Ok(())
}

async fn answer(stream: TcpStream, router: Router) {
    // Answers are written at once; waiting for more to send would only hold up a client
    // that waits for the rest.
    let _ = stream.set_nodelay(true);
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEADER_TIME).max_buf_size(HEADER_BYTES).max_headers(HEADERS);
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router)).await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection for metrics has ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use std::io::{Read, Write};
    use std::net::TcpStream;

    fn serving() -> SocketAddr {
        let listener = net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(serve(listener, Router::new().route("/", get(|| async { "hello" })))).unwrap();
        });
        address
    }

    fn connect(address: SocketAddr) -> TcpStream {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream
    }

    /// All that comes of `request` until the connection is closed.
    fn answer_to(address: SocketAddr, request: &[u8]) -> String {
        let mut stream = connect(address);
        // The server may close before it has read everything.
        let _ = stream.write_all(request);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";

    #[test]
    fn idle_connections_keep_nobody_out() {
        let address = serving();
        let idle: Vec<TcpStream> = (0..3 * MOST_CONNECTIONS).map(|_| connect(address)).collect();
        assert!(answer_to(address, REQUEST).ends_with("hello"));
        for mut stream in idle {
            // Closed for the newer ones, or for having sent nothing.
            assert_eq!(stream.read(&mut [0; 1000]).unwrap_or(0), 0);
        }
    }

    #[test]
    fn a_header_is_bounded_in_size_and_time() {
        let address = serving();
        let long = [b"GET /".as_slice(), &vec![b'x'; 4 * HEADER_BYTES], b" HTTP/1.1\r\n\r\n"].concat();
        let answer = answer_to(address, &long);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        let many: String = (0..2 * HEADERS).map(|n| format!("H{n}: x\r\n")).collect();
        let answer = answer_to(address, format!("GET / HTTP/1.1\r\n{many}\r\n").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
        // Without an end it is given up.
        let answer = answer_to(address, b"GET / HTTP/1.1\r\nHost:");
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408"), "{answer}");
        assert!(answer_to(address, b"\x00\x01\x02\xff\r\n\r\n").starts_with("HTTP/1.1 400"));
        assert!(answer_to(address, REQUEST).ends_with("hello"));
    }
}
