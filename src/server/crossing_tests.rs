//! Connections that go from shard to shard, over real sockets. A request says which shard owns what
//! it asks for; its answer says which shard has answered.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use bytes::Bytes;

use super::*;
use crate::model::ShardId;
use crate::protocol::Malformed;
use crate::runtime::PATIENCE;
use crate::runtime::executor::{ShardSpec, run_shards};
use crate::runtime::sync::Permit;
use crate::server::crossing::Crossing;
use crate::server::peer::Client;
use crate::server::pipeline::{Answer, Reply};
use crate::shard::AnswerMemory;

/// Requests: the owner, the kind, the rest.
const ECHO: u8 = b'e';
/// Answered after the milliseconds in the third byte times ten.
const SLOW: u8 = b's';
/// Needs no answer.
const SILENT: u8 = b'n';

/// Requests that make a connection move, some more than a window.
const MANY: usize = 100;
const PLACES: u32 = 2000;

fn framed(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_be_bytes()[..], body].concat()
}

fn request(owner: u8, kind: u8, rest: &[u8]) -> Vec<u8> {
    [&[owner, kind][..], rest].concat()
}

/// Several shards with a listener each, and a mailbox between them.
struct Servers {
    addresses: Vec<SocketAddr>,
    stop: StopFlag,
    admission: Arc<Admission>,
    /// Connections on each shard, as of a moment ago.
    open: Arc<Vec<AtomicUsize>>,
    moves: Arc<AtomicUsize>,
}

impl Servers {
    /// Waits until no connection is left, and every place has been given back.
    fn await_empty(&self) {
        let open = || self.open.iter().map(|open| open.load(Ordering::SeqCst)).sum::<usize>();
        wait_for("every connection has ended", || open() == 0);
        let taken =
            || (0..PLACES).map_while(|_| self.admission.admit([127, 0, 0, 1].into(), clock::now()).ok()).count();
        wait_for("every place is free", || taken() == PLACES as usize);
    }
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = clock::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn answer(own: u8, frame: &Bytes, permit: Permit) -> Result<Answer, Malformed> {
    let echo = Reply::Frame(framed(&[&[own], &frame[..]].concat()).into());
    match frame.get(1) {
        Some(&ECHO) => Ok(Answer::Now(echo)),
        Some(&SILENT) => Ok(Answer::Now(Reply::Nothing)),
        Some(&SLOW) => {
            let time = Duration::from_millis(10 * u64::from(frame[2]));
            Ok(Answer::Later(Box::pin(async move {
                clock::sleep(time).await;
                drop(permit);
                echo
            })))
        }
        _ => Err(Malformed("a bad frame".into())),
    }
}

/// Runs servers on so many shards for as long as `test` takes. Their ticks are of a millisecond.
fn with_servers(shards: u16, test: impl FnOnce(&Servers)) {
    let config = ServerConfig {
        shards,
        receive_memory_bytes: 64 << 20,
        max_connections: PLACES,
        max_connections_per_ip: PLACES,
        local_connections: 0,
        connection_pipeline: 8,
        ..ServerConfig::default()
    };
    let (stop, loads, admission) = (StopFlag::default(), Loads::new(shards), admission(&config));
    let posts: Arc<Vec<Mutex<Vec<Traveller>>>> = Arc::new((0..shards).map(|_| Mutex::default()).collect());
    let open: Arc<Vec<AtomicUsize>> = Arc::new((0..shards).map(|_| AtomicUsize::new(0)).collect());
    let moves = Arc::new(AtomicUsize::new(0));
    let (tell, told) = mpsc::channel();
    let specs = (0..shards).map(|index| ShardSpec { index, cpu: None, io_memory_bytes: 1 << 20 }).collect();
    let shared = (stop.clone(), loads, admission.clone(), posts.clone(), open.clone(), moves.clone());
    let threads = run_shards(specs, move |spec| {
        let ((stop, loads, admission, posts, open, moves), config, tell) =
            (shared.clone(), config.clone(), tell.clone());
        async move {
            let own = usize::from(spec.index);
            let listeners = Listeners::bind([SocketAddr::from(([127, 0, 0, 1], 0))]).unwrap();
            tell.send((spec.index, listeners.local_addrs().unwrap()[0])).unwrap();
            let (sending, counted) = (posts.clone(), moves.clone());
            let stopping = stop.clone();
            let crossing = Crossing::new(ShardId(spec.index), loads, move |_, to: ShardId, traveller| {
                counted.fetch_add(1, Ordering::SeqCst);
                let mut post = sending[usize::from(to.0)].lock().unwrap();
                // Once the shards stop no one would take it in, and its client would wait.
                if !stopping.is_set() {
                    post.push(traveller);
                }
            });
            let answers = AnswerMemory::new(config.response_memory_bytes);
            let link = Link::new(&config, answers, |head| head.get(1) == Some(&SLOW), Some(crossing.clone()));
            let arriving = stop.clone();
            spawn_local(async move {
                while !arriving.is_set() {
                    let arrived = std::mem::take(&mut *posts[own].lock().unwrap());
                    arrived.into_iter().for_each(|traveller| crossing.arrive(traveller));
                    clock::sleep(Duration::from_millis(1)).await;
                }
                posts[own].lock().unwrap().clear();
            });
            let handle = async move |frame: Bytes, permit, client: Rc<Client>, _: Moment| {
                client.tally.note(&frame[..1], |owner| ShardId(u16::from(*owner)));
                answer(own as u8, &frame, permit)
            };
            let counting = (link.clone(), open.clone());
            let next_tick = async || {
                counting.1[own].store(counting.0.connections.get(), Ordering::SeqCst);
                clock::sleep(Duration::from_millis(1)).await;
            };
            let door = Door { listeners, admission, rate: Rc::new(|_| Ok(())) };
            run(link.clone(), &stop, door, vec![Rc::new(handle)], next_tick).await;
            open[own].store(link.connections.get(), Ordering::SeqCst);
        }
    })
    .unwrap();
    let mut addresses: Vec<(u16, SocketAddr)> = (0..shards).map(|_| told.recv().unwrap()).collect();
    addresses.sort();
    let addresses = addresses.into_iter().map(|(_, address)| address).collect();
    let servers = Servers { addresses, stop: stop.clone(), admission, open, moves };
    test(&servers);
    stop.set();
    threads.join();
    servers.await_empty();
}

struct Asking(TcpStream);

impl Asking {
    fn connect(address: SocketAddr) -> Asking {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_nodelay(true).unwrap();
        Asking(stream)
    }

    /// The shard that answered, and the request.
    fn read(&mut self) -> (u8, Vec<u8>) {
        let mut length = [0; 4];
        self.0.read_exact(&mut length).unwrap();
        let mut body = vec![0; u32::from_be_bytes(length) as usize];
        self.0.read_exact(&mut body).unwrap();
        (body[0], body.split_off(1))
    }

    fn ask(&mut self, body: &[u8]) -> u8 {
        self.0.write_all(&framed(body)).unwrap();
        let (shard, asked) = self.read();
        assert_eq!(asked, body);
        shard
    }

    /// Asks for things of `owner` until it answers by itself.
    fn ask_until_there(&mut self, owner: u8) {
        wait_for("the owner answers", || self.ask(&request(owner, ECHO, b"")) == owner);
    }
}

#[test]
fn a_connection_moves_to_the_owner_of_what_it_asks_for_and_stays() {
    with_servers(3, |servers| {
        let mut asking = Asking::connect(servers.addresses[0]);
        asking.ask_until_there(2);
        (0..10 * MANY).for_each(|_| assert_eq!(asking.ask(&request(2, ECHO, b"x")), 2));
        assert_eq!(servers.moves.load(Ordering::SeqCst), 1);
        let open = || servers.open.iter().map(|open| open.load(Ordering::SeqCst)).collect::<Vec<_>>();
        wait_for("it is counted where it is", || open() == [0, 0, 1]);
        // Mixed requests are nobody's.
        for n in 0..10 * MANY {
            assert_eq!(asking.ask(&request((n % 3) as u8, ECHO, b"x")), 2);
        }
        asking.ask_until_there(1);
        assert_eq!(servers.moves.load(Ordering::SeqCst), 2);
    });
}

/// Requests of all sizes, pipelined, in pieces, some of which need no answer; what they ask
/// for moves on all the time.
#[test]
fn pipelined_requests_are_answered_in_order_across_moves() {
    with_servers(3, |servers| {
        let body = |n: usize| {
            let kind = if n.is_multiple_of(5) { SILENT } else { ECHO };
            let size = [0, 7, 300, 4090, 4100, 20_000][n % 6];
            let mut rest = (n as u32).to_be_bytes().to_vec();
            rest.resize(4 + size, n as u8);
            request((n / 3000 % 3) as u8, kind, &rest)
        };
        let mut asking = Asking::connect(servers.addresses[1]);
        const ALL: usize = 12_000;
        let mut writing = asking.0.try_clone().unwrap();
        let writer = std::thread::spawn(move || {
            let mut piece = Vec::new();
            for n in 0..ALL {
                piece.extend(framed(&body(n)));
                if piece.len() > 10_000 + n % 6000 {
                    let rest = piece.split_off(piece.len() - n % 50);
                    writing.write_all(&piece).unwrap();
                    piece = rest;
                }
                if n.is_multiple_of(1500) {
                    // Time for a pause between two moves to pass.
                    std::thread::sleep(Duration::from_millis(60));
                }
            }
            writing.write_all(&piece).unwrap();
        });
        let mut last_shard = Vec::new();
        for n in (0..ALL).filter(|n| !n.is_multiple_of(5)) {
            let (shard, asked) = asking.read();
            assert!(asked == body(n), "answer {n}");
            if last_shard.last() != Some(&shard) {
                last_shard.push(shard);
            }
        }
        writer.join().unwrap();
        assert!(servers.moves.load(Ordering::SeqCst) >= 2, "{last_shard:?}");
        assert_eq!(last_shard.len(), servers.moves.load(Ordering::SeqCst) + 1, "{last_shard:?}");
    });
}

#[test]
fn a_connection_whose_answer_waits_moves_when_it_has_it() {
    with_servers(2, |servers| {
        let mut asking = Asking::connect(servers.addresses[0]);
        // From the 64th on it would go. A shard that is busy for a moment takes it later.
        (0..62).for_each(|_| assert_eq!(asking.ask(&request(1, ECHO, &[0])), 0));
        wait_for("it moves between answers that wait", || asking.ask(&request(1, SLOW, &[2])) == 1);
        assert_eq!(servers.moves.load(Ordering::SeqCst), 1);
        // Half closed afterwards: what was asked before is still answered.
        asking.0.write_all(&[framed(&request(1, SLOW, &[5])), framed(&request(1, ECHO, b""))].concat()).unwrap();
        asking.0.shutdown(std::net::Shutdown::Write).unwrap();
        assert_eq!([asking.read(), asking.read()].map(|(shard, asked)| (shard, asked[1])), [(1, SLOW), (1, ECHO)]);
        assert_eq!(asking.0.read(&mut [0; 8]).unwrap(), 0);
    });
}

#[test]
fn a_crowd_moves_and_those_that_end_meanwhile_leave_nothing_behind() {
    with_servers(2, |servers| {
        const CROWD: usize = 400;
        let bytes: Vec<u8> = (0..MANY).flat_map(|n| framed(&request(1, ECHO, &(n as u32).to_be_bytes()))).collect();
        let mut crowd: Vec<Asking> = (0..CROWD).map(|_| Asking::connect(servers.addresses[0])).collect();
        for (n, asking) in crowd.iter_mut().enumerate() {
            asking.0.write_all(&bytes).unwrap();
            if n.is_multiple_of(4) {
                // Gone, by a reset mostly, since there are answers that it has not read.
                asking.0.shutdown(std::net::Shutdown::Both).unwrap();
            }
        }
        let mut staying: Vec<Asking> =
            crowd.into_iter().enumerate().filter(|(n, _)| !n.is_multiple_of(4)).map(|(_, a)| a).collect();
        for asking in &mut staying {
            for n in 0..MANY {
                assert_eq!(asking.read().1, request(1, ECHO, &(n as u32).to_be_bytes()));
            }
        }
        staying.iter_mut().for_each(|asking| asking.ask_until_there(1));
        assert!(servers.moves.load(Ordering::SeqCst) >= staying.len());
        let on = |shard: usize| servers.open[shard].load(Ordering::SeqCst);
        wait_for("only those that stay are there", || (on(0), on(1)) == (0, staying.len()));
    });
}

/// Connections that move while the broker stops end with it; none is left, wherever it was.
#[test]
fn a_stop_ends_those_on_their_way() {
    for pause_ms in [0, 2, 10] {
        with_servers(3, |servers| {
            let threads: Vec<_> = (0..12u8)
                .map(|n| {
                    let mut asking = Asking::connect(servers.addresses[usize::from(n) % 3]);
                    std::thread::spawn(move || {
                        let bytes: Vec<u8> =
                            (0..MANY).flat_map(|_| framed(&request((n + 1) % 3, ECHO, &[n]))).collect();
                        // Until the broker ends the connection.
                        let mut buf = [0; 4096];
                        while asking.0.write_all(&bytes).is_ok() && asking.0.read(&mut buf).is_ok_and(|n| n > 0) {}
                    })
                })
                .collect();
            std::thread::sleep(Duration::from_millis(pause_ms));
            servers.stop.set();
            threads.into_iter().for_each(|thread| thread.join().unwrap());
        });
    }
}

#[test]
fn a_connection_that_nobody_takes_stays() {
    with_servers(2, |servers| {
        let mut asking = Asking::connect(servers.addresses[0]);
        (0..3 * MANY).for_each(|n| assert_eq!(asking.ask(&request(7, ECHO, &[n as u8])), 0));
        assert_eq!(servers.moves.load(Ordering::SeqCst), 0, "there is no shard 7");
        asking.ask_until_there(1);
    });
}
