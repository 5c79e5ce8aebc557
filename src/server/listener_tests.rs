//! The listener and its connections over real sockets, with requests of these tests' own instead of Kafka's:
//! the first byte of a frame says what to do with it.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use bytes::Bytes;

use super::*;
use crate::config::ServerConfig;
use crate::protocol::Malformed;
use crate::runtime::PATIENCE;
use crate::runtime::executor::{ShardSpec, run_shards};
use crate::runtime::sync::Permit;
use crate::server::pipeline::{Answer, Reply};

/// Answered with itself, at once.
const ECHO: u8 = b'e';
/// Answered with itself, after the milliseconds in the second byte times ten.
const SLOW: u8 = b's';
/// Answered never.
const HANG: u8 = b'h';
/// Closes the connection with the answers before it.
const BAD: u8 = b'b';
/// Needs no answer.
const SILENT: u8 = b'n';

/// Requests that hang now.
type Hanging = Arc<AtomicUsize>;

struct Hang(Hanging);

impl Drop for Hang {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes()[..], body].concat()
}

fn answer(frame: Bytes, permit: Permit, hanging: &Hanging) -> Result<Answer, Malformed> {
    let echo = Reply::Frame(framed(&frame).into());
    Ok(match frame.first().copied() {
        Some(ECHO) => Answer::Now(echo),
        Some(SLOW) => Answer::Later(Box::pin(async move {
            clock::sleep(Duration::from_millis(10 * u64::from(frame[1]))).await;
            drop(permit);
            echo
        })),
        Some(HANG) => {
            hanging.fetch_add(1, Ordering::SeqCst);
            let hang = Hang(hanging.clone());
            Answer::Later(Box::pin(async move {
                std::future::pending::<()>().await;
                drop((hang, permit));
                Reply::Nothing
            }))
        }
        Some(SILENT) => Answer::Now(Reply::Nothing),
        _ => return Err(Malformed("a bad frame".into())),
    })
}

/// Runs a server for as long as `test` takes.
fn with_server(config: ServerConfig, test: impl FnOnce(SocketAddr, Hanging)) {
    let stop = StopFlag::default();
    let hanging = Hanging::default();
    let (tell, told) = mpsc::channel();
    let (server_stop, server_hanging) = (stop.clone(), hanging.clone());
    let threads = run_shards(vec![ShardSpec { index: 0, cpu: None, io_memory_bytes: 1 << 20 }], move |_| {
        let (config, stop, hanging, tell) = (config.clone(), server_stop.clone(), server_hanging.clone(), tell.clone());
        async move {
            let listener = Listener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            let handle = async move |frame, permit, _| answer(frame, permit, &hanging);
            run(Link::new(&config), &stop, listener, Rc::new(handle)).await;
        }
    })
    .unwrap();
    test(told.recv().unwrap(), hanging);
    stop.set();
    threads.join();
}

fn small() -> ServerConfig {
    ServerConfig {
        shards: 1,
        socket_request_max_bytes: 1 << 20,
        receive_memory_bytes: 256 << 10,
        connection_pipeline: 8,
        ..ServerConfig::default()
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

fn read_frame(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length) {
        Ok(()) => {}
        Err(error) if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => return None,
        Err(error) => panic!("{error}"),
    }
    let mut body = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut body).unwrap();
    Some(body)
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let start = clock::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn answers_come_in_request_order_whatever_takes_longer() {
    with_server(small(), |address, _| {
        let mut stream = connect(address);
        let bodies: Vec<Vec<u8>> = (0..40u8)
            .map(|n| match n % 4 {
                0 => vec![SLOW, 3, n],
                1 => [&[ECHO, n][..], &vec![n; 100_000]].concat(),
                2 => [&[ECHO, n][..], &vec![n; 5000]].concat(),
                _ => vec![ECHO, n],
            })
            .collect();
        let mut writing = stream.try_clone().unwrap();
        let sent = bodies.clone();
        let writer = std::thread::spawn(move || {
            for body in sent {
                writing.write_all(&framed(&[SILENT])).unwrap();
                writing.write_all(&framed(&body)).unwrap();
            }
        });
        for (n, body) in bodies.iter().enumerate() {
            assert!(read_frame(&mut stream).as_ref() == Some(body), "answer {n}");
        }
        writer.join().unwrap();
    });
}

#[test]
fn a_waiting_answer_is_dropped_when_the_peer_goes() {
    with_server(small(), |address, hanging| {
        let mut stream = connect(address);
        stream.write_all(&framed(&[HANG])).unwrap();
        wait_for("it hangs", || hanging.load(Ordering::SeqCst) == 1);
        drop(stream);
        wait_for("it is let go", || hanging.load(Ordering::SeqCst) == 0);
    });
}

#[test]
fn a_bad_frame_ends_its_own_connection_after_the_answers_before_it() {
    with_server(small(), |address, _| {
        let mut good = connect(address);
        for bad in
            [framed(&[BAD]), (-1i32).to_be_bytes().to_vec(), ((1 << 20) + 1i32).to_be_bytes().to_vec(), framed(&[])]
        {
            let mut stream = connect(address);
            stream.write_all(&[framed(&[SLOW, 5]), bad].concat()).unwrap();
            assert_eq!(read_frame(&mut stream), Some(vec![SLOW, 5]));
            assert_eq!(read_frame(&mut stream), None);
        }
        good.write_all(&framed(&[ECHO])).unwrap();
        assert_eq!(read_frame(&mut good), Some(vec![ECHO]));
    });
}

#[test]
fn a_full_budget_holds_reading_back_until_it_is_given_back() {
    with_server(small(), |address, _| {
        // Each takes most of the 256 KiB less the reserves; one takes more than all of it, beside the others.
        let sizes = [190 << 10, 150 << 10, 900 << 10, 180 << 10];
        let clients: Vec<_> = sizes
            .into_iter()
            .map(|size| {
                std::thread::spawn(move || {
                    let mut stream = connect(address);
                    for _ in 0..3 {
                        let body = [&[SLOW, 5][..], &vec![7; size]].concat();
                        stream.write_all(&framed(&body)).unwrap();
                        assert!(read_frame(&mut stream) == Some(body), "{size} bytes");
                    }
                })
            })
            .collect();
        let start = clock::now();
        clients.into_iter().for_each(|client| client.join().unwrap());
        assert!(start.elapsed() >= Duration::from_millis(9 * 50), "they went one after the other");
    });
}

#[test]
fn a_frame_that_stalls_gives_way_to_those_it_starves() {
    with_server(small(), |address, _| {
        // One has nearly all of the budget, the other the room in which stuck frames finish.
        let mut stalled = stalling(address, 180 << 10, 170 << 10);
        let _finishing = stalling(address, 1 << 20, 900 << 10);
        let mut other = connect(address);
        let body = vec![ECHO; 100 << 10];
        let start = clock::now();
        other.write_all(&framed(&body)).unwrap();
        assert!(read_frame(&mut other) == Some(body), "served once another is ended");
        assert!(start.elapsed() >= Duration::from_millis(300), "it had to wait");
        assert_eq!(read_frame(&mut stalled), None);
    });
}

#[test]
fn small_requests_do_not_wait_for_stalled_large_ones() {
    with_server(small(), |address, _| {
        let _stalled = [stalling(address, 180 << 10, 170 << 10), stalling(address, 1 << 20, 900 << 10)];
        let mut large = connect(address);
        large.write_all(&framed(&vec![ECHO; 100 << 10])).unwrap();
        let mut small = connect(address);
        let start = clock::now();
        for size in [10, 20 << 10, 3 << 10] {
            let body = vec![ECHO; size];
            small.write_all(&framed(&body)).unwrap();
            assert!(read_frame(&mut small) == Some(body));
        }
        assert!(start.elapsed() < Duration::from_millis(400), "{:?}", start.elapsed());
    });
}

/// A connection that announces a frame of `size` bytes and sends `sent` of them.
fn stalling(address: SocketAddr, size: usize, sent: usize) -> TcpStream {
    let mut stream = connect(address);
    stream.write_all(&(size as u32).to_be_bytes()).unwrap();
    stream.write_all(&vec![ECHO; sent]).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    stream
}

fn large() -> ServerConfig {
    ServerConfig { socket_request_max_bytes: 100 << 20, receive_memory_bytes: 64 << 20, ..small() }
}

#[test]
fn announcing_large_frames_costs_others_nothing() {
    with_server(large(), |address, _| {
        let announcing: Vec<_> = (0..100)
            .map(|_| {
                let mut stream = connect(address);
                stream.write_all(&[&(100i32 << 20).to_be_bytes()[..], &[ECHO; 14]].concat()).unwrap();
                stream
            })
            .collect();
        std::thread::sleep(Duration::from_millis(100));
        let start = clock::now();
        for size in [10, 50 << 10, 1 << 20, 3 << 20] {
            let mut other = connect(address);
            let body = vec![ECHO; size];
            other.write_all(&framed(&body)).unwrap();
            assert!(read_frame(&mut other) == Some(body));
        }
        // One who held all of the budget would be ended after a second, one after the other.
        assert!(start.elapsed() < Duration::from_secs(3), "{:?}", start.elapsed());
        drop(announcing);
    });
}

#[test]
fn large_frames_that_together_exceed_the_budget_all_get_through() {
    with_server(large(), |address, _| {
        // The last is larger than the whole budget.
        for sizes in [vec![40 << 20, 40 << 20], vec![20 << 20; 5], vec![90 << 20]] {
            let clients: Vec<_> = sizes
                .into_iter()
                .map(|size| {
                    std::thread::spawn(move || {
                        let mut stream = connect(address);
                        let body = vec![ECHO; size];
                        stream.write_all(&(size as u32).to_be_bytes()).unwrap();
                        for part in body.chunks(1 << 20) {
                            stream.write_all(part).unwrap();
                            std::thread::sleep(Duration::from_millis(1));
                        }
                        assert!(read_frame(&mut stream) == Some(body), "{size} bytes");
                    })
                })
                .collect();
            clients.into_iter().for_each(|client| client.join().unwrap());
        }
    });
}

#[test]
fn idle_connections_are_ended_and_busy_ones_are_not() {
    let config = ServerConfig { connections_max_idle_ms: 1500, ..small() };
    with_server(config, |address, _| {
        let mut idle = connect(address);
        let mut busy = connect(address);
        let start = clock::now();
        while start.elapsed() < Duration::from_secs(4) {
            busy.write_all(&framed(&[ECHO])).unwrap();
            assert_eq!(read_frame(&mut busy), Some(vec![ECHO]));
            std::thread::sleep(Duration::from_millis(100));
        }
        idle.set_read_timeout(Some(Duration::from_millis(10))).unwrap();
        assert_eq!(read_frame(&mut idle), None);
    });
}

#[test]
fn past_max_connections_the_next_waits_for_one_to_end() {
    let config = ServerConfig { max_connections: 1, ..small() };
    with_server(config, |address, _| {
        let mut first = connect(address);
        first.write_all(&framed(&[ECHO, 1])).unwrap();
        assert_eq!(read_frame(&mut first), Some(vec![ECHO, 1]));
        let mut second = connect(address);
        second.write_all(&framed(&[ECHO, 2])).unwrap();
        second.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        assert!(second.read(&mut [0]).is_err(), "not served yet");
        drop(first);
        second.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(read_frame(&mut second), Some(vec![ECHO, 2]));
    });
}

#[test]
fn a_stop_lets_answers_under_way_out_and_ends_the_rest() {
    let mut streams = Vec::new();
    let start = clock::now();
    with_server(small(), |address, hanging| {
        for body in [vec![SLOW, 30], vec![HANG], vec![SILENT]] {
            let mut stream = connect(address);
            stream.write_all(&framed(&body)).unwrap();
            streams.push(stream);
        }
        wait_for("it hangs", || hanging.load(Ordering::SeqCst) == 1);
        std::thread::sleep(Duration::from_millis(50));
    });
    assert!(start.elapsed() < Duration::from_secs(5), "a hanging answer does not hold up the stop");
    let answers: Vec<_> = streams.iter_mut().map(read_frame).collect();
    assert_eq!(answers, [Some(vec![SLOW, 30]), None, None]);
}

#[test]
fn a_peer_that_does_not_read_harms_nobody() {
    with_server(small(), |address, _| {
        let mut deaf = connect(address);
        deaf.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        let body = vec![ECHO; 100 << 10];
        // Until both directions are full.
        while deaf.write_all(&framed(&body)).is_ok() {}
        let mut other = connect(address);
        for _ in 0..20 {
            let body = vec![ECHO; 1 << 10];
            other.write_all(&framed(&body)).unwrap();
            assert!(read_frame(&mut other) == Some(body));
        }
    });
}
