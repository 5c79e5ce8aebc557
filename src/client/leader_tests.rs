use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use super::*;
use crate::model::{BrokerId, ErrorCode, PartitionId};
use crate::runtime::{PATIENCE, on_shard};
use leaders_end::{read_request, write_answer};
use uuid::Uuid;

const TOPIC: Uuid = Uuid::from_u128(1);

fn request() -> ReplicaFetch {
    let place = ReplicaPlace {
        partition: PartitionId::new(TOPIC, 0),
        leader_epoch: 1,
        offset: 7,
        last_epoch: None,
        log_start: 0,
        max_bytes: 1 << 20,
    };
    ReplicaFetch {
        replica: BrokerId(2),
        broker_epoch: 5,
        max_wait_ms: 100,
        min_bytes: 1,
        max_bytes: 1 << 20,
        session_id: 0,
        session_epoch: 0,
        partitions: vec![place],
        forgotten: Vec::new(),
    }
}

/// A leader's answer, with so many bytes of records.
fn answer(record_bytes: usize) -> ReplicaAnswer {
    let partition = PartitionAnswer {
        partition: PartitionId::new(TOPIC, 0),
        error: ErrorCode::None,
        high_watermark: 9,
        log_start: 3,
        diverging: None,
        current_leader: None,
        records: (0..record_bytes).map(|i| (i * 31 % 251) as u8).collect::<Vec<u8>>().into(),
    };
    ReplicaAnswer { error: ErrorCode::None, session_id: 77, partitions: vec![partition] }
}

/// Reads one request; its correlation id comes with it.
fn take_request(stream: &mut TcpStream) -> (i32, ReplicaFetch) {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut frame = vec![0; i32::from_be_bytes(length) as usize];
    stream.read_exact(&mut frame).unwrap();
    read_request(&frame.into())
}

/// Runs `leader` with the one connection that it accepts, and `follower` with a connection to it.
fn with_leader<F>(
    leader: impl FnOnce(TcpStream) + Send + 'static,
    follower: impl Fn(LeaderConnection) -> F + Clone + Send + 'static,
) where
    F: Future<Output = ()> + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let leads = std::thread::spawn(move || leader(listener.accept().unwrap().0));
    on_shard(move || {
        let follower = follower.clone();
        async move {
            let connection = LeaderConnection::open(("localhost", port), "me".into(), PATIENCE).await.unwrap();
            follower(connection).await;
        }
    });
    leads.join().unwrap();
}

fn receiving(bytes: usize) -> Receiving {
    Receiving { max_frame: 64 << 20, memory: Budget::new(bytes), begun: Rc::default() }
}

#[test]
fn answers_of_all_sizes_come_whole_however_they_are_cut() {
    const SIZES: [usize; 8] = [0, 10, 3_900, 4_096, 70_000, 70_000, 3 << 20, 5];
    let leader = |mut stream: TcpStream| {
        for (turn, size) in SIZES.into_iter().enumerate() {
            let (id, asked) = take_request(&mut stream);
            assert_eq!(asked, request());
            let frame = write_answer(id, &answer(size));
            let step = [frame.len(), 1 + frame.len() / 3, 7][turn % 3].max(frame.len() / 1000 + 1);
            frame.chunks(step).for_each(|part| stream.write_all(part).unwrap());
        }
    };
    with_leader(leader, |mut connection| async move {
        let receiving = receiving(1 << 20);
        for size in SIZES {
            let received = connection.fetch(&request(), &receiving, clock::now() + PATIENCE).await.unwrap();
            assert_eq!(received.answer, answer(size));
            let charged = received.memory.amount();
            assert!(charged >= size.min(1 << 20) && charged <= size + 200, "{charged} for {size}");
            assert_eq!(receiving.memory.available(), (1 << 20) - charged);
        }
    });
}

#[test]
fn an_answer_waits_for_memory() {
    let leader = |mut stream: TcpStream| {
        let (id, _) = take_request(&mut stream);
        stream.write_all(&write_answer(id, &answer(100_000))).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
    };
    with_leader(leader, |mut connection| async move {
        let receiving = receiving(120_000);
        let others = receiving.memory.acquire(50_000).await;
        let deadline = clock::now() + PATIENCE;
        let asked = request();
        let mut fetch = Box::pin(connection.fetch(&asked, &receiving, deadline));
        assert!(clock::until(clock::now() + Duration::from_millis(50), &mut fetch).await.is_none());
        while !receiving.begun.get() {
            assert!(clock::until(clock::now() + Duration::from_millis(5), &mut fetch).await.is_none());
        }
        drop(others);
        assert_eq!(fetch.await.unwrap().answer, answer(100_000));
    });
}

/// The error of a fetch that `leader` answers with these bytes and then ends; it is
/// given the correlation id.
fn refused(bytes: impl FnOnce(i32) -> Vec<u8> + Send + 'static) -> String {
    let (told, heard) = std::sync::mpsc::channel();
    let leader = |mut stream: TcpStream| {
        let (id, _) = take_request(&mut stream);
        stream.write_all(&bytes(id)).unwrap();
    };
    with_leader(leader, move |mut connection| {
        let told = told.clone();
        async move {
            let fetched = connection.fetch(&request(), &receiving(1 << 20), clock::now() + PATIENCE).await;
            told.send(fetched.err().map(|error| error.to_string())).unwrap();
        }
    });
    heard.recv().unwrap().expect("an error")
}

#[test]
fn what_is_no_answer_is_named() {
    let whole = |id| write_answer(id, &answer(70_000)).to_vec();
    for cut in [0, 3, 4, 100, 5_000, 60_000] {
        assert_eq!(refused(move |id| whole(id)[..cut].to_vec()), "the broker ended the connection", "cut at {cut}");
    }
    let other = refused(move |id| whole(id + 1));
    assert_eq!(other, "the broker answered request 1 where Some(0) was the next");
    for length in [-1, 3, (64 << 20) + 1] {
        let long = refused(move |_| i32::to_be_bytes(length).to_vec());
        assert_eq!(long, format!("the broker announces a response of {length} bytes, more than is taken here"));
    }
    let malformed = refused(move |id| {
        let mut frame = whole(id);
        // The number of topics.
        frame[19] = 0xff;
        frame
    });
    assert!(malformed.starts_with("Fetch v17 response, at byte "), "{malformed}");
    let twice = refused(|id| [write_answer(id, &answer(5)), write_answer(id, &answer(5))].concat());
    assert_eq!(twice, "the broker sent more than the answer to the one request");
}

#[test]
fn a_silent_leader_and_one_that_is_not_there_are_given_up() {
    let leader = |mut stream: TcpStream| {
        take_request(&mut stream);
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
    };
    with_leader(leader, |mut connection| async move {
        let deadline = clock::now() + Duration::from_millis(20);
        let fetched = connection.fetch(&request(), &receiving(1 << 20), deadline).await;
        assert!(matches!(fetched.err(), Some(ClientError::NoAnswer { .. })));
        let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let opened = LeaderConnection::open(("127.0.0.1", unused), "me".into(), PATIENCE).await;
        let error = opened.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.starts_with(&format!("cannot connect to 127.0.0.1:{unused}: ")), "{error}");
        let opened = LeaderConnection::open(("no.such.host.invalid", 1), "me".into(), PATIENCE).await;
        let error = opened.err().map(|error| error.to_string()).unwrap_or_default();
        assert!(error.starts_with("cannot resolve no.such.host.invalid: "), "{error}");
    });
}
