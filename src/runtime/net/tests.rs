use super::*;
use crate::runtime::executor::tests::{PATIENCE, eventually, on_shard, on_shards};
use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

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
        // A read here and there finds its byte without a sleep, the more of
        // them the busier the machine.
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
fn a_shard_ends_while_a_loop_yields() {
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        on_shard(|| async {
            crate::runtime::executor::spawn_local(async {
                let mut yielder = Yielder;
                loop {
                    yielder.pass().await;
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
                                let _ = writer.send_all(&mut VecDeque::from([Bytes::copy_from_slice(&buf[..n])])).await;
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

/// A stream of numbers, one byte each, that a client sends and gets back, while its server's
/// connection goes from shard to shard at every chance: nothing is lost, nothing is there twice.
#[test]
fn a_connection_goes_from_shard_to_shard_with_what_the_kernel_holds() {
    const BYTES: usize = 2_000_000;
    const SHARDS: usize = 3;
    let posts: Vec<_> = (0..SHARDS).map(|_| std::sync::mpsc::channel::<Loose>()).collect();
    let (senders, receivers): (Vec<_>, Vec<_>) = posts.into_iter().unzip();
    let receivers = Arc::new(Mutex::new(receivers.into_iter().map(Some).collect::<Vec<_>>()));
    let (stop, moves) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let listener = std::net::TcpListener::bind(any_port()).unwrap();
    let address = listener.local_addr().unwrap();
    let first = senders[0].clone();
    let client = {
        let stop = stop.clone();
        std::thread::spawn(move || {
            let mut stream = std::net::TcpStream::connect(address).unwrap();
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let (socket, peer) = listener.accept().unwrap();
            socket.set_nonblocking(true).unwrap();
            first.send(Loose { socket: socket.into(), peer: Some(peer) }).unwrap();
            let sent = pattern(BYTES, 5);
            let (mut sending, bytes) = (stream.try_clone().unwrap(), sent.clone());
            let sender =
                std::thread::spawn(move || bytes.chunks(777).for_each(|part| sending.write_all(part).unwrap()));
            let mut got = vec![0; BYTES];
            stream.read_exact(&mut got).unwrap();
            assert!(got == sent, "the echo differs");
            sender.join().unwrap();
            stream.shutdown(std::net::Shutdown::Both).unwrap();
            stop.store(true, Ordering::SeqCst);
        })
    };
    let (counted, ended) = (moves.clone(), stop.clone());
    on_shards(SHARDS as u16, move |spec| {
        let (senders, stop, moves) = (senders.clone(), ended.clone(), counted.clone());
        let mine = receivers.lock().unwrap()[usize::from(spec.index)].take().unwrap();
        async move {
            let before = super::super::ring::slots();
            let next = &senders[(usize::from(spec.index) + 1) % SHARDS];
            while !stop.load(Ordering::SeqCst) {
                let Ok(loose) = mine.try_recv() else {
                    clock::sleep(Duration::from_micros(200)).await;
                    continue;
                };
                assert_eq!(loose.peer.map(|peer| peer.ip()), Some(Ipv4Addr::LOCALHOST.into()));
                let (mut reader, mut writer) = loose.settle().unwrap();
                let mut buf = vec![0; 4000];
                // Sometimes after a read that took all there was, sometimes
                // with more in the kernel.
                for _ in 0..1 + moves.fetch_add(1, Ordering::SeqCst) % 3 {
                    let n = reader.read(&mut buf).await.unwrap();
                    writer.send_all(&mut VecDeque::from([Bytes::copy_from_slice(&buf[..n])])).await.unwrap();
                }
                if next.send(reader.loosen().unwrap()).is_err() {
                    eventually("only the end ends a shard", || stop.load(Ordering::SeqCst)).await;
                }
            }
            eventually("no slot is left", || super::super::ring::slots() == before).await;
        }
    });
    client.join().unwrap();
    assert!(moves.load(Ordering::SeqCst) > 100, "{moves:?}");
}
