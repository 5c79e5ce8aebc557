//! The listener and its connections over real sockets, with requests of these tests' own instead of
//! Kafka's: the first byte of a frame says what to do with it.

use std::cell::Cell;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc;

use bytes::Bytes;
use socket2::{Domain, Socket, Type};

use super::*;
use crate::protocol::Malformed;
use crate::runtime::executor::{ShardSpec, run_shards};
use crate::runtime::sync::Permit;
use crate::runtime::{PATIENCE, SendRoom, on_shard};
use crate::server::context::TICK_MS;
use crate::server::peer::Client;
use crate::server::pipeline::{Answer, Reply};
use crate::shard::AnswerMemory;

/// Answered with itself, at once.
const ECHO: u8 = b'e';
/// Answered with itself, after the milliseconds in the second byte times ten.
const SLOW: u8 = b's';
/// Answered never.
const HANG: u8 = b'h';
/// Closes the connection with the answers before it.
const BAD: u8 = b'b';
/// Answered with as many MiB as the second byte says, charged, when all answers
/// before have been sent.
const LARGE: u8 = b'l';
/// Needs no answer.
const SILENT: u8 = b'n';

/// Requests that hang, or are slow, now.
type Hanging = Arc<AtomicUsize>;

struct Hang(Hanging);

impl Hang {
    fn new(hanging: &Hanging) -> Hang {
        hanging.fetch_add(1, Ordering::SeqCst);
        Hang(hanging.clone())
    }
}

impl Drop for Hang {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes()[..], body].concat()
}

/// Bytes of all LARGE requests.
async fn large_answer(frame: &Bytes, answers: &AnswerMemory, room: &SendRoom, begun: &Hanging) -> Answer {
    begun.fetch_add(1, Ordering::SeqCst);
    let body = vec![frame[0]; usize::from(frame[1]) << 20];
    let share = answers.share(body.len(), room).await;
    Answer::Now(Reply::Held(vec![framed(&body).into()], vec![share]))
}

fn answer(frame: Bytes, permit: Permit, hanging: &Hanging) -> Result<Answer, Malformed> {
    let echo = Reply::Frame(framed(&frame).into());
    Ok(match frame.first().copied() {
        Some(ECHO) => Answer::Now(echo),
        Some(SLOW) => {
            let working = Hang::new(hanging);
            Answer::Later(Box::pin(async move {
                clock::sleep(Duration::from_millis(10 * u64::from(frame[1]))).await;
                drop((working, permit));
                echo
            }))
        }
        Some(HANG) => {
            let hang = Hang::new(hanging);
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

/// Time as the server sees it: as it goes, or only as far as a test lets it.
#[derive(Clone)]
enum Time {
    Runs,
    /// Ticks that the server may count. It has no deadline but those: nothing is idle or too
    /// slow until a test says so.
    Stands(Arc<AtomicU64>),
}

impl Time {
    async fn next_tick(&self, seen: &Cell<u64>, stop: &StopFlag) {
        let Time::Stands(ticks) = self else { return clock::next_tick().await };
        while seen.get() >= ticks.load(Ordering::SeqCst) && !stop.is_set() {
            clock::sleep(Duration::from_millis(1)).await;
        }
        seen.set(seen.get() + 1);
    }
}

/// Lets time pass, four ticks every few milliseconds, until `future` ends.
fn while_time_passes<T>(ticks: &Arc<AtomicU64>, run: impl FnOnce() -> T) -> T {
    let (ticks, done) = (ticks.clone(), Arc::new(AtomicBool::new(false)));
    let ended = done.clone();
    let passing = std::thread::spawn(move || {
        while !ended.load(Ordering::SeqCst) {
            ticks.fetch_add(SWEEP_TICKS, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let outcome = run();
    done.store(true, Ordering::SeqCst);
    passing.join().unwrap();
    outcome
}

/// The server as a test sees it.
struct Server {
    address: SocketAddr,
    /// Requests that hang now.
    hanging: Hanging,
    /// Request bytes that connections hold, as of a moment ago.
    held: Arc<AtomicUsize>,
    /// Ticks that the server has counted and, where due, looked at its connections after.
    ticks: Arc<AtomicU64>,
}

/// Runs a server for as long as `test` takes.
fn with_server(config: ServerConfig, test: impl FnOnce(SocketAddr, Hanging)) {
    with_server_in(Time::Runs, config, |server| test(server.address, server.hanging));
}

fn with_server_in(time: Time, config: ServerConfig, test: impl FnOnce(Server)) {
    let stop = StopFlag::default();
    let hanging = Hanging::default();
    let (tell, told) = mpsc::channel();
    let (server_stop, server_hanging) = (stop.clone(), hanging.clone());
    let held = Arc::new(AtomicUsize::new(0));
    let ticks = Arc::new(AtomicU64::new(0));
    let (holding, ticking) = (held.clone(), ticks.clone());
    let threads = run_shards(vec![ShardSpec { index: 0, cpu: None, io_memory_bytes: 1 << 20 }], move |_| {
        let (config, stop, hanging, tell) = (config.clone(), server_stop.clone(), server_hanging.clone(), tell.clone());
        let (time, held, ticks) = (time.clone(), holding.clone(), ticking.clone());
        async move {
            let listeners = Listeners::bind([SocketAddr::from(([127, 0, 0, 1], 0))]).unwrap();
            tell.send(listeners.local_addrs().unwrap()[0]).unwrap();
            let answers = AnswerMemory::new(config.response_memory_bytes);
            let link = Link::new(&config, answers.clone(), |head| head.first() == Some(&LARGE), None);
            let handle = async move |frame: Bytes, permit, client: Rc<Client>, _: Moment| match frame.first() {
                Some(&LARGE) => Ok(large_answer(&frame, &answers, &client.room, &hanging).await),
                _ => answer(frame, permit, &hanging),
            };
            let watched = link.clone();
            spawn_local(async move {
                loop {
                    held.store(watched.held_bytes(), Ordering::SeqCst);
                    ticks.store(watched.tick.get(), Ordering::SeqCst);
                    clock::sleep(Duration::from_millis(1)).await;
                }
            });
            let seen = Cell::new(0);
            let door = Door { listeners, admission: admission(&config), rate: Rc::new(|_| Ok(())) };
            run(link, &stop, door, vec![Rc::new(handle)], async || time.next_tick(&seen, &stop).await).await;
        }
    })
    .unwrap();
    test(Server { address: told.recv().unwrap(), hanging, held, ticks });
    stop.set();
    threads.join();
}

fn small() -> ServerConfig {
    ServerConfig {
        shards: 1,
        socket_request_max_bytes: 1 << 20,
        receive_memory_bytes: 256 << 10,
        // Enough for all tests but those that set it: a client that this machine keeps
        // from reading is not stalled.
        response_memory_bytes: 1 << 30,
        connection_pipeline: 8,
        ..ServerConfig::default()
    }
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
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
fn a_peer_that_half_closes_gets_the_answers_to_what_it_asked() {
    with_server(small(), |address, _| {
        let half_closed = |requests: &[u8]| {
            let mut stream = connect(address);
            stream.write_all(requests).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            stream
        };
        let asked = [framed(&[ECHO, 1]), framed(&[SLOW, 20]), framed(&[ECHO, 2])].concat();
        let mut stream = half_closed(&asked);
        for expected in [[ECHO, 1], [SLOW, 20], [ECHO, 2]] {
            assert_eq!(read_frame(&mut stream), Some(expected.to_vec()));
        }
        assert_eq!(read_frame(&mut stream), None, "the connection ends behind them");
        // Half a request behind a whole one, and nothing at all.
        let mut stream = half_closed(&[&framed(&[SLOW, 5]), &framed(&[ECHO; 9])[..6]].concat());
        assert_eq!(read_frame(&mut stream), Some(vec![SLOW, 5]));
        assert_eq!(read_frame(&mut stream), None);
        assert_eq!(read_frame(&mut half_closed(&[])), None);
    });
}

#[test]
fn an_answer_that_takes_long_is_given_up_when_the_peer_sends_no_more() {
    with_server(small(), |address, hanging| {
        let mut stream = connect(address);
        stream.write_all(&[framed(&[ECHO]), framed(&[HANG])].concat()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!(read_frame(&mut stream), Some(vec![ECHO]));
        assert_eq!(read_frame(&mut stream), None);
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
        // Each takes most of the 256 KiB less the reserves; one takes more than all
        // of it, beside the others.
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
    let ticks = Arc::new(AtomicU64::new(0));
    with_server_in(Time::Stands(ticks.clone()), small(), |server| {
        // One has nearly all of the budget, the other the room in which stuck frames finish.
        let mut stalled = stalling(&server, 150 << 10, 140 << 10);
        let _finishing = stalling(&server, 1 << 20, 900 << 10);
        let mut other = connect(server.address);
        let body = vec![ECHO; 100 << 10];
        other.write_all(&framed(&body)).unwrap();
        assert!(hears_nothing(&mut other, Duration::from_millis(700)), "it has to wait");
        let answer = while_time_passes(&ticks, || read_frame(&mut other));
        assert!(answer == Some(body), "served once another is ended");
        assert_eq!(read_frame(&mut stalled), None);
    });
}

#[test]
fn small_requests_do_not_wait_for_stalled_large_ones() {
    // The stalled ones are never ended: who waits for them waits for ever.
    with_server_in(Time::Stands(Arc::default()), small(), |server| {
        let _stalled = [stalling(&server, 150 << 10, 140 << 10), stalling(&server, 1 << 20, 900 << 10)];
        let mut large = connect(server.address);
        large.write_all(&framed(&vec![ECHO; 100 << 10])).unwrap();
        let mut small = connect(server.address);
        for size in [10, 20 << 10, 3 << 10] {
            let body = vec![ECHO; size];
            small.write_all(&framed(&body)).unwrap();
            assert!(read_frame(&mut small) == Some(body));
        }
        assert!(hears_nothing(&mut large, Duration::from_millis(10)), "the large one does");
    });
}

/// Request bytes that one frame of `small()` may hold: all of the budget, or the room to finish in.
const MOST_OF_SMALL: usize = 160 << 10;
const FINISHING_OF_SMALL: usize = 32 << 10;

/// A connection that announces a frame of `size` bytes and sends `sent` of them; the server
/// has charged it for them.
fn stalling(server: &Server, size: usize, sent: usize) -> TcpStream {
    let before = server.held.load(Ordering::SeqCst);
    let mut stream = connect(server.address);
    stream.write_all(&(size as u32).to_be_bytes()).unwrap();
    stream.write_all(&vec![ECHO; sent]).unwrap();
    let charged = if size > MOST_OF_SMALL { FINISHING_OF_SMALL } else { sent };
    wait_for("it holds request bytes", || server.held.load(Ordering::SeqCst) >= before + charged);
    stream
}

fn hears_nothing(stream: &mut TcpStream, wait: Duration) -> bool {
    stream.set_read_timeout(Some(wait)).unwrap();
    let silent = stream.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    silent
}

fn large() -> ServerConfig {
    ServerConfig { socket_request_max_bytes: 100 << 20, receive_memory_bytes: 64 << 20, ..small() }
}

#[test]
fn announcing_large_frames_costs_others_nothing() {
    // Time stands still, so nobody who holds back others is ended for it.
    with_server_in(Time::Stands(Arc::default()), large(), |server| {
        let address = server.address;
        let announcing: Vec<_> = (0..100)
            .map(|_| {
                let mut stream = connect(address);
                stream.write_all(&[&(100i32 << 20).to_be_bytes()[..], &[ECHO; 14]].concat()).unwrap();
                stream
            })
            .collect();
        std::thread::sleep(Duration::from_millis(100));
        for size in [10, 50 << 10, 1 << 20, 3 << 20] {
            let mut other = connect(address);
            let body = vec![ECHO; size];
            other.write_all(&framed(&body)).unwrap();
            assert!(read_frame(&mut other) == Some(body));
        }
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
    let config = ServerConfig { connections_max_idle_ms: 8 * SWEEP_TICKS * TICK_MS, ..small() };
    let ticks = Arc::new(AtomicU64::new(0));
    with_server_in(Time::Stands(ticks.clone()), config, |server| {
        let mut idle = connect(server.address);
        let mut busy = connect(server.address);
        for round in 0..24 {
            busy.write_all(&framed(&[ECHO])).unwrap();
            assert_eq!(read_frame(&mut busy), Some(vec![ECHO]), "round {round}");
            if round == 4 {
                assert!(hears_nothing(&mut idle, Duration::from_millis(10)), "not idle for long enough");
            }
            ticks.fetch_add(SWEEP_TICKS, Ordering::SeqCst);
            wait_for("the sweep", || server.ticks.load(Ordering::SeqCst) >= ticks.load(Ordering::SeqCst));
        }
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
        assert!(hears_nothing(&mut second, Duration::from_millis(300)), "not served yet");
        drop(first);
        assert_eq!(read_frame(&mut second), Some(vec![ECHO, 2]));
    });
}

#[test]
fn a_connection_whose_place_another_shard_took_waits_for_one() {
    on_shard(|| async {
        let limits =
            AdmissionLimits { total: 4, local_reserve: 1, per_ip: 9, per_second: u32::MAX, ..Default::default() };
        let admission = Admission::new(limits);
        let address = SocketAddr::from(([127, 0, 0, 1], 9));
        let mut held: Vec<Place> = (0..4).map(|_| admission.admit(address.ip(), clock::now()).ok().unwrap()).collect();
        let mut late = Box::pin(place_for(&admission, Peer(Some(address))));
        assert!(
            clock::until(clock::now() + FULL_PAUSE * 3, late.as_mut()).await.is_none(),
            "it is neither served nor closed"
        );
        held.pop();
        assert!(late.await.is_some());
    });
}

/// True if the broker answers on this connection, false if it closed it.
fn is_served(mut stream: &TcpStream) -> bool {
    let sent = stream.write_all(&framed(&[ECHO]));
    let mut answer = [0; 5];
    sent.is_ok() && stream.read_exact(&mut answer).is_ok()
}

#[test]
fn connections_beyond_the_limit_of_their_address_are_closed() {
    let limits = HashMap::from([(IpAddr::from([127, 0, 0, 2]), 1)]);
    let config = ServerConfig {
        max_connections_per_ip: 2,
        max_connections_per_ip_overrides: (String::new(), limits),
        ..small()
    };
    with_server(config, |address, _| {
        let from = |last: u8| {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.bind(&SocketAddr::from(([127, 0, 0, last], 0)).into()).unwrap();
            socket.connect(&address.into()).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            TcpStream::from(socket)
        };
        let open = [from(1), from(1), from(2), from(3)];
        assert!(open.iter().all(is_served));
        assert!(!is_served(&from(1)) && !is_served(&from(2)));
        drop(open);
        wait_for("the places are given back", || is_served(&from(2)));
    });
}

#[test]
fn a_stop_lets_answers_under_way_out_and_ends_the_rest() {
    let mut streams = Vec::new();
    let start = clock::now();
    with_server(small(), |address, hanging| {
        for body in [vec![SLOW, 100], vec![HANG], vec![SILENT]] {
            let mut stream = connect(address);
            stream.write_all(&framed(&body)).unwrap();
            streams.push(stream);
        }
        wait_for("both are under way", || hanging.load(Ordering::SeqCst) == 2);
    });
    assert!(start.elapsed() < PATIENCE, "a hanging answer does not hold up the stop");
    let answers: Vec<_> = streams.iter_mut().map(read_frame).collect();
    assert_eq!(answers, [Some(vec![SLOW, 100]), None, None]);
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

/// A client that sends requests for answers of 16 MiB, more than the kernel takes, and reads none.
fn deaf(address: SocketAddr, requests: usize) -> TcpStream {
    let mut stream = connect(address);
    stream.write_all(&framed(&[LARGE, 16]).repeat(requests)).unwrap();
    stream
}

#[test]
fn a_request_is_not_begun_while_answers_before_it_are_not_taken() {
    with_server(small(), |address, begun| {
        let mut stream = deaf(address, 8);
        wait_for("the first is begun", || begun.load(Ordering::SeqCst) == 1);
        let mut other = connect(address);
        for _ in 0..100 {
            other.write_all(&framed(&[ECHO])).unwrap();
            assert_eq!(read_frame(&mut other), Some(vec![ECHO]));
        }
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        for _ in 0..8 {
            assert_eq!(read_frame(&mut stream).map(|body| body.len()), Some(16 << 20));
        }
        assert_eq!(begun.load(Ordering::SeqCst), 8);
    });
}

#[test]
fn clients_that_take_nothing_give_way_to_those_that_wait_for_memory() {
    let config = ServerConfig { response_memory_bytes: 4 << 20, ..small() };
    with_server(config, |address, begun| {
        let mut held = deaf(address, 1);
        wait_for("it holds all the memory", || begun.load(Ordering::SeqCst) == 1);
        let mut small_one = connect(address);
        small_one.write_all(&framed(&[LARGE, 0])).unwrap();
        assert_eq!(read_frame(&mut small_one), Some(vec![]), "small answers have memory of their own");
        let mut other = connect(address);
        other.write_all(&framed(&[LARGE, 1])).unwrap();
        assert_eq!(read_frame(&mut other).map(|body| body.len()), Some(1 << 20));
        let mut rest = Vec::new();
        let ended = held.read_to_end(&mut rest);
        assert!(ended.is_err() || rest.len() < 16 << 20, "the deaf one was closed");
    });
}

#[test]
fn a_client_that_goes_while_its_next_request_waits_is_let_go() {
    with_server(small(), |address, hanging| {
        let mut stream = connect(address);
        stream.write_all(&[framed(&[HANG]), framed(&[LARGE, 0])].concat()).unwrap();
        wait_for("it hangs", || hanging.load(Ordering::SeqCst) == 1);
        drop(stream);
        wait_for("it is let go", || hanging.load(Ordering::SeqCst) == 0);
    });
}
