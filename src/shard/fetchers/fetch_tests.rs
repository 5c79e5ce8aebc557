//! Fetchers with logs on disk, against a leader on loopback that answers as scripted.

use std::cell::Cell;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use uuid::Uuid;

use super::plan::Limits;
use super::{Fetchers, Host, Settings};
use crate::client::leader::leaders_end::{read_request, write_answer};
use crate::client::leader::{PartitionAnswer, ReplicaAnswer, ReplicaFetch, ReplicaPlace};
use crate::config::TopicConfig;
use crate::model::record_batch::{BatchHeader, CRC_START};
use crate::model::{BrokerId, ErrorCode, LeaderEpoch, PartitionId, testing};
use crate::partition::{EpochHistory, Membership, ProducerPool, Replica, Shared, Start};
use crate::runtime::{clock, disk, eventually, on_shard, scratch};
use crate::storage::{StorageContext, StorageLimits};

const ME: BrokerId = BrokerId(2);
const LEADER: BrokerId = BrokerId(1);
const BROKER_EPOCH: i64 = 77;
const PARTITIONS: i32 = 3;

fn id(index: i32) -> PartitionId {
    PartitionId::new(Uuid::from_u128(5), index)
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 8) % bound
    }
}

#[derive(Clone)]
struct Batch {
    base: i64,
    next: i64,
    epoch: i32,
    bytes: Bytes,
}

fn batch(base: i64, count: i32, epoch: i32, payload: usize) -> Batch {
    let mut header = testing::header(count, 0);
    header.base_offset.set(base);
    header.partition_leader_epoch.set(epoch);
    header.producer_epoch.set(-1);
    header.base_sequence.set(-1);
    let records: Vec<u8> = (0..payload).map(|i| (i as i64 * 31 + base + i64::from(epoch)) as u8).collect();
    Batch { base, next: base + i64::from(count), epoch, bytes: testing::batch(header, &records) }
}

/// The leader's log of one partition.
#[derive(Clone, Default)]
struct Led {
    epoch: i32,
    start: i64,
    end: i64,
    batches: Vec<Batch>,
    /// As the follower has acknowledged.
    acknowledged: i64,
    high_watermark: i64,
}

impl Led {
    fn append(&mut self, count: i32, gap: i64, payload: usize) {
        let batch = batch(self.end + gap, count, self.epoch, payload);
        self.end = batch.next;
        self.batches.push(batch);
    }

    fn bytes_from(&self, offset: i64) -> Vec<u8> {
        self.batches.iter().filter(|batch| batch.next > offset).flat_map(|batch| batch.bytes.to_vec()).collect()
    }

    fn history(&self) -> EpochHistory {
        let mut history = EpochHistory::default();
        for batch in &self.batches {
            history.begin(batch.epoch, batch.base);
        }
        history.begin(self.epoch, self.end);
        history
    }

    /// As the rules of a leader have it.
    fn answer(&mut self, place: &ReplicaPlace) -> PartitionAnswer {
        let mut answer = PartitionAnswer {
            partition: place.partition,
            error: ErrorCode::None,
            high_watermark: self.high_watermark,
            log_start: self.start,
            diverging: None,
            current_leader: None,
            records: Bytes::new(),
        };
        let diverging = place.last_epoch.and_then(|last| match self.history().end_of(last, self.end) {
            Some((epoch, end)) if epoch < last || end < place.offset => Some((epoch, end)),
            _ => None,
        });
        if place.leader_epoch < self.epoch {
            answer.error = ErrorCode::FencedLeaderEpoch;
        } else if place.leader_epoch > self.epoch {
            answer.error = ErrorCode::UnknownLeaderEpoch;
        } else if place.offset < self.start || place.offset > self.end && diverging.is_none() {
            answer.error = ErrorCode::OffsetOutOfRange;
        } else if diverging.is_some() {
            answer.diverging = diverging;
        } else {
            self.acknowledged = place.offset;
            self.high_watermark = self.high_watermark.max(place.offset);
            answer.high_watermark = self.high_watermark;
            let mut records = BytesMut::new();
            for batch in self.batches.iter().filter(|batch| batch.base >= place.offset) {
                if !records.is_empty() && records.len() + batch.bytes.len() > place.max_bytes as usize {
                    break;
                }
                records.extend_from_slice(&batch.bytes);
            }
            answer.records = records.freeze();
        }
        answer
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// The connection ends before the answer, or inside it.
    Silence,
    CutAnswer,
    WrongLength,
    WrongCorrelation,
    WrongSession,
    NotAsked,
    WrongCrc,
    HalfBatch,
    OldRecords,
    NotLeader,
    Fenced,
    StorageError,
    SessionLost,
    WholeRefused,
    Slow,
}

const FAULTS: [Fault; 15] = [
    Fault::Silence,
    Fault::CutAnswer,
    Fault::WrongLength,
    Fault::WrongCorrelation,
    Fault::WrongSession,
    Fault::NotAsked,
    Fault::WrongCrc,
    Fault::HalfBatch,
    Fault::OldRecords,
    Fault::NotLeader,
    Fault::Fenced,
    Fault::StorageError,
    Fault::SessionLost,
    Fault::WholeRefused,
    Fault::Slow,
];

/// A leader, and what its follower did.
struct Script {
    led: Vec<Led>,
    random: Random,
    /// One fault in so many requests; 0: none.
    faults: u64,
    /// The next request gets this one.
    next_fault: Option<Fault>,
    requests: Vec<ReplicaFetch>,
    connections: usize,
    stop: bool,
    session: (i32, i32),
    places: Vec<Option<ReplicaPlace>>,
    /// High watermark and start, as last told in the session.
    told: Vec<(i64, i64)>,
}

type Shared_ = Arc<Mutex<Script>>;

fn locked(script: &Shared_) -> MutexGuard<'_, Script> {
    script.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Script {
    fn fault(&mut self) -> Option<Fault> {
        if let Some(fault) = self.next_fault.take() {
            return Some(fault);
        }
        let hits = self.faults > 0 && self.random.below(self.faults) == 0;
        hits.then(|| FAULTS[self.random.below(FAULTS.len() as u64) as usize])
    }

    /// The session after a request; `false`: it is not known.
    fn open(&mut self, request: &ReplicaFetch) -> bool {
        if request.session_epoch == 0 {
            self.session = (self.session.0 + 1, 0);
            self.places = vec![None; PARTITIONS as usize];
            self.told = vec![(-1, -1); PARTITIONS as usize];
        } else if self.session != (request.session_id, request.session_epoch) {
            return false;
        }
        self.session.1 += 1;
        for place in &request.partitions {
            self.places[place.partition.index.0 as usize] = Some(*place);
        }
        for gone in &request.forgotten {
            self.places[gone.index.0 as usize] = None;
        }
        true
    }

    fn answer(&mut self) -> ReplicaAnswer {
        let places: Vec<_> = self.places.iter().flatten().copied().collect();
        let parts = places.iter().map(|place| self.led[place.partition.index.0 as usize].answer(place));
        let parts: Vec<_> = parts.collect();
        let told = &mut self.told;
        let mut news = |part: &PartitionAnswer| {
            let state = (part.high_watermark, part.log_start);
            let told = std::mem::replace(&mut told[part.partition.index.0 as usize], state);
            told != state || part.error != ErrorCode::None || part.diverging.is_some() || !part.records.is_empty()
        };
        let partitions = parts.into_iter().filter(|part| news(part)).collect();
        ReplicaAnswer { error: ErrorCode::None, session_id: self.session.0, partitions }
    }

    /// An answer with the fault in it; `None`: the connection ends.
    fn spoil(&mut self, fault: Fault, id: i32, mut answer: ReplicaAnswer) -> Option<Bytes> {
        let at = self.random.below(answer.partitions.len().max(1) as u64) as usize;
        let part = answer.partitions.get_mut(at);
        if let Some(part) = &part {
            // Of a part that is of no use the follower believes nothing.
            self.told[part.partition.index.0 as usize] = (-1, -1);
        }
        match fault {
            Fault::Silence => return None,
            Fault::WrongLength => return Some(Bytes::copy_from_slice(&i32::MAX.to_be_bytes())),
            Fault::WrongCorrelation => return Some(write_answer(id + 1, &answer)),
            Fault::CutAnswer => {
                let whole = write_answer(id, &answer);
                return Some(whole.slice(..self.random.below(whole.len() as u64) as usize));
            }
            Fault::WrongSession => answer.session_id += 1,
            Fault::NotAsked => {
                let part = PartitionAnswer {
                    partition: self::id(9),
                    error: ErrorCode::None,
                    high_watermark: 0,
                    log_start: 0,
                    diverging: None,
                    current_leader: None,
                    records: Bytes::new(),
                };
                answer.partitions.push(part);
            }
            Fault::WrongCrc => {
                if let Some(part) = part.filter(|part| !part.records.is_empty()) {
                    let mut records = BytesMut::from(&part.records[..]);
                    // Anything behind the lengths.
                    let at = CRC_START + self.random.below((records.len() - CRC_START) as u64) as usize;
                    records[at] ^= 1;
                    part.records = records.freeze();
                }
            }
            Fault::HalfBatch => {
                if let Some(part) = part.filter(|part| !part.records.is_empty()) {
                    part.records.truncate(part.records.len() - 1);
                }
            }
            Fault::OldRecords => {
                if let Some(part) = part.filter(|part| part.error == ErrorCode::None) {
                    let led = &self.led[part.partition.index.0 as usize];
                    part.records = led.batches.first().map_or(Bytes::new(), |batch| batch.bytes.clone());
                }
            }
            Fault::NotLeader | Fault::Fenced | Fault::StorageError => {
                if let Some(part) = part {
                    part.error = match fault {
                        Fault::NotLeader => ErrorCode::NotLeaderOrFollower,
                        Fault::Fenced => ErrorCode::FencedLeaderEpoch,
                        _ => ErrorCode::KafkaStorageError,
                    };
                    (part.diverging, part.records) = (None, Bytes::new());
                }
            }
            Fault::SessionLost => {
                answer.error = ErrorCode::FetchSessionIdNotFound;
                answer.partitions.clear();
            }
            Fault::WholeRefused => answer.error = ErrorCode::UnknownServerError,
            Fault::Slow => std::thread::sleep(Duration::from_millis(3)),
        }
        Some(write_answer(id, &answer))
    }
}

/// Serves one connection; ends with it.
fn serve(script: &Shared_, mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    loop {
        let mut length = [0; 4];
        stream.read_exact(&mut length)?;
        let mut frame = vec![0; i32::from_be_bytes(length) as usize];
        stream.read_exact(&mut frame)?;
        let (id, request) = read_request(&frame.into());
        assert_eq!((request.replica, request.broker_epoch), (ME, BROKER_EPOCH));
        let (known, session) = {
            let mut script = locked(script);
            (script.open(&request), script.session)
        };
        locked(script).requests.push(request.clone());
        let mut waited = 0;
        let frame = loop {
            let mut script = locked(script);
            // A later request, on another connection, has ended this one's wait: what it
            // would be told is the other's.
            if script.stop || script.session != session {
                return Ok(());
            }
            let answer = match known {
                true => script.answer(),
                false => {
                    ReplicaAnswer { error: ErrorCode::InvalidFetchSessionEpoch, session_id: 0, partitions: Vec::new() }
                }
            };
            let fault = script.fault();
            // A long poll.
            if known && fault.is_none() && answer.partitions.is_empty() && waited < request.max_wait_ms {
                drop(script);
                std::thread::sleep(Duration::from_millis(1));
                waited += 1;
                continue;
            }
            break match fault {
                None => (Some(write_answer(id, &answer)), false),
                Some(fault) => (script.spoil(fault, id, answer), fault == Fault::CutAnswer),
            };
        };
        match frame {
            (Some(frame), ends) => {
                stream.write_all(&frame)?;
                if ends {
                    return Ok(());
                }
            }
            (None, _) => return Ok(()),
        }
    }
}

struct Follows {
    replicas: Vec<Rc<Replica>>,
    port: Cell<Option<u16>>,
    stopping: Cell<bool>,
}

impl Host for Follows {
    fn replica(&self, id: PartitionId) -> Option<Rc<Replica>> {
        self.replicas.get(id.index.0 as usize).cloned()
    }

    fn address(&self, broker: BrokerId) -> Option<(String, u16)> {
        assert_eq!(broker, LEADER);
        Some(("127.0.0.1".into(), self.port.get()?))
    }

    fn broker_epoch(&self) -> i64 {
        BROKER_EPOCH
    }

    fn is_stopping(&self) -> bool {
        self.stopping.get()
    }
}

fn settings() -> Settings {
    let limits =
        Limits { max_wait_ms: 100, min_bytes: 1, max_bytes: 1 << 20, partition_max_bytes: 20_000, backoff_ms: 20 };
    Settings {
        this: ME,
        client_id: "follower".into(),
        limits,
        timeout: Duration::from_secs(30),
        backoff: Duration::from_millis(20),
        memory: 1 << 20,
    }
}

async fn open(root: &Path) -> Vec<Rc<Replica>> {
    disk::prime_device(root).await.unwrap();
    let limits = StorageLimits { tail_cache_bytes: 1 << 20, cold_cache_bytes: 1 << 20, ..StorageLimits::default() };
    let shared = Shared {
        storage: StorageContext::new(limits),
        producers: ProducerPool::new(1 << 20),
        metrics: crate::runtime::metrics(),
    };
    let membership =
        Membership { me: ME, lag_time_max_ms: 10_000, followers_serve: false, clock: || clock::mono_ms() as i64 };
    let mut replicas = Vec::new();
    for index in 0..PARTITIONS {
        let config = Arc::new(TopicConfig { segment_bytes: 30_000, retention_ms: None, ..TopicConfig::default() });
        let (dir, start) = (root.join(format!("t-{index}")), Start::Member { membership, high_watermark: 0 });
        std::fs::create_dir(&dir).unwrap();
        let opened = Replica::open(shared.clone(), &dir, id(index), "t".into(), start, config, 0).await.unwrap();
        replicas.push(opened.replica);
    }
    replicas
}

/// A follower of a scripted leader.
struct Case {
    script: Shared_,
    host: Rc<Follows>,
    fetchers: Rc<Fetchers>,
}

impl Case {
    /// Each partition's log begins in epoch 1.
    async fn begin(root: &Path, seed: u64) -> Case {
        let script = Arc::new(Mutex::new(Script {
            led: vec![Led { epoch: 1, ..Led::default() }; PARTITIONS as usize],
            random: Random(seed),
            faults: 0,
            next_fault: None,
            requests: Vec::new(),
            connections: 0,
            stop: false,
            session: (0, 0),
            places: Vec::new(),
            told: Vec::new(),
        }));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let serves = script.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if locked(&serves).stop {
                    break;
                }
                locked(&serves).connections += 1;
                let _ = serve(&serves, stream.unwrap());
            }
        });
        let replicas = open(root).await;
        let host = Rc::new(Follows { replicas, port: Cell::new(Some(port)), stopping: Cell::new(false) });
        let fetchers = Fetchers::new(host.clone(), settings());
        Case { script, host, fetchers }
    }

    fn led<R>(&self, index: i32, change: impl FnOnce(&mut Led) -> R) -> R {
        change(&mut locked(&self.script).led[index as usize])
    }

    fn replica(&self, index: i32) -> &Rc<Replica> {
        &self.host.replicas[index as usize]
    }

    /// The replica takes the role, once its log is not being moved.
    async fn follow(&self, index: i32, epoch: i32) {
        let replica = self.replica(index);
        replica.leave();
        while let Some(moves) = replica.moves_end() {
            moves.await;
        }
        replica.follow(LEADER, LeaderEpoch(epoch));
        self.fetchers.look_at(replica);
    }

    async fn caught_up(&self, index: i32) {
        let replica = self.replica(index);
        let what = format!("partition {index} is as its leader has it");
        eventually(&what, || {
            let (start, end, hw) = self.led(index, |led| (led.start, led.end, led.high_watermark));
            let own = (replica.start_offset(), replica.log().next_offset());
            own.1 == end && own.0 == start && hw == end && replica.high_watermark() == end
        })
        .await;
        let (start, end) = (replica.start_offset(), replica.log().next_offset());
        let mut found = Vec::new();
        let mut offset = start;
        while offset < end {
            let read = replica.log().read(offset, end, 1 << 20, true).await.unwrap();
            let bytes = read.records.concat();
            assert!(!bytes.is_empty(), "nothing at {offset} of {end}");
            let mut rest = &bytes[..];
            while let Some(header) = BatchHeader::peek(rest) {
                offset = header.next_offset();
                rest = &rest[header.total_bytes() as usize..];
            }
            found.extend(bytes);
        }
        assert!(found == self.led(index, |led| led.bytes_from(start)), "partition {index}: other bytes");
        let history = self.led(index, |led| led.history());
        for offset in start..end {
            let own = replica.known_epochs().epoch_of(offset);
            assert_eq!(own, history.epoch_of(offset), "partition {index}: the epoch of {offset}");
        }
    }

    async fn end(self) {
        self.host.stopping.set(true);
        let listening = self.host.port.get();
        locked(&self.script).stop = true;
        (0..PARTITIONS).for_each(|index| self.fetchers.remove(id(index)));
        // The last connection ends the listener.
        drop(listening.map(|port| TcpStream::connect(("127.0.0.1", port))));
        for replica in &self.host.replicas {
            replica.close().await.unwrap();
        }
    }
}

#[test]
fn what_the_leader_appends_comes_as_it_is_and_is_acknowledged() {
    const ROUNDS: i32 = 20;
    let root = scratch();
    let path = root.path().to_path_buf();
    on_shard(move || {
        let path = path.clone();
        async move {
            let case = Case::begin(&path, 1).await;
            case.led(0, |led| (0..50).for_each(|i| led.append(1 + i % 3, 0, 100 * i as usize)));
            // Larger than all limits.
            case.led(1, |led| led.append(5, 7, 2 << 20));
            for index in 0..PARTITIONS {
                case.follow(index, 1).await;
            }
            for index in 0..PARTITIONS {
                case.caught_up(index).await;
            }
            for round in 0..ROUNDS {
                case.led(round % PARTITIONS, |led| led.append(1, 0, 10));
                case.caught_up(round % PARTITIONS).await;
            }
            // Anew for one that joins, or whose records are written late, while a request
            // waits; not for each fetch.
            let connections = locked(&case.script).connections;
            assert!(connections < ROUNDS as usize / 2, "{connections} connections");
            // Quiet: requests are empty, and few.
            let before = locked(&case.script).requests.len();
            clock::sleep(Duration::from_millis(350)).await;
            let quiet: Vec<_> = locked(&case.script).requests.split_off(before);
            assert!(quiet.len() <= 5, "{} requests", quiet.len());
            assert!(quiet.iter().skip(1).all(|request| request.partitions.is_empty()), "{quiet:?}");
            assert_eq!(case.fetchers.committed_cuts(), 0);
            case.end().await;
        }
    });
}

/// Each fault by itself: the log ends as the leader's.
#[test]
fn one_fault_of_each_kind_is_survived() {
    let root = scratch();
    let path = root.path().to_path_buf();
    on_shard(move || {
        let path = path.clone();
        async move {
            let case = Case::begin(&path, 2).await;
            for index in 0..PARTITIONS {
                case.led(index, |led| led.append(3, 0, 50));
                case.follow(index, 1).await;
                case.caught_up(index).await;
            }
            for fault in FAULTS {
                locked(&case.script).next_fault = Some(fault);
                for index in 0..PARTITIONS {
                    case.led(index, |led| led.append(2, 0, 700));
                }
                for index in 0..PARTITIONS {
                    case.caught_up(index).await;
                }
                assert_eq!(locked(&case.script).next_fault, None, "{fault:?}");
            }
            case.end().await;
        }
    });
}

#[test]
fn another_history_is_cut_off_and_a_log_behind_the_leaders_start_begins_anew() {
    let root = scratch();
    let path = root.path().to_path_buf();
    on_shard(move || {
        let path = path.clone();
        async move {
            let case = Case::begin(&path, 3).await;
            case.led(0, |led| (0..10).for_each(|_| led.append(2, 0, 900)));
            case.follow(0, 1).await;
            case.caught_up(0).await;
            // A new leader has the first four batches only: an unclean election.
            case.led(0, |led| {
                led.batches.truncate(4);
                (led.end, led.epoch, led.high_watermark) = (8, 2, 8);
                led.append(1, 0, 40);
            });
            case.follow(0, 2).await;
            case.caught_up(0).await;
            assert_eq!((case.replica(0).log().next_offset(), case.fetchers.committed_cuts()), (9, 1));
            // The leader's log begins behind all of that.
            case.led(0, |led| {
                *led = Led { epoch: 3, start: 500, end: 500, high_watermark: 500, ..Led::default() };
                led.append(4, 0, 40);
            });
            case.follow(0, 3).await;
            case.caught_up(0).await;
            assert_eq!((case.replica(0).start_offset(), case.replica(0).log().next_offset()), (500, 504));
            // Retention at the leader is followed.
            case.led(0, |led| {
                (0..3).for_each(|_| led.append(1, 0, 40_000));
                led.start = 505;
                led.batches.remove(0);
                led.batches.remove(0);
            });
            eventually("the start is the leader's", || case.replica(0).start_offset() == 505).await;
            case.end().await;
        }
    });
}

/// Any sequence of faults, appends, elections and roles: in the end the
/// follower's logs are the leader's.
#[test]
fn whatever_happens_the_logs_end_equal() {
    for seed in 1..=6_u64 {
        let root = scratch();
        let path = root.path().to_path_buf();
        on_shard(move || {
            let path = path.clone();
            async move {
                let mut random = Random(seed * 7_919);
                let case = Case::begin(&path, seed).await;
                locked(&case.script).faults = 4;
                for index in 0..PARTITIONS {
                    case.follow(index, 1).await;
                }
                for _ in 0..120 {
                    let index = random.below(PARTITIONS as u64) as i32;
                    match random.below(10) {
                        0..6 => case.led(index, |led| {
                            let gap = [0, 0, 0, 5][random.below(4) as usize];
                            led.append(1 + random.below(4) as i32, gap, random.below(3_000) as usize);
                        }),
                        6 => case.led(index, |led| {
                            let at = led.batches.partition_point(|batch| batch.next <= led.high_watermark);
                            if at > 3 {
                                led.start = led.batches[at - 2].base;
                                led.batches.drain(..at - 2);
                            }
                        }),
                        7 => {
                            // Another leader: of what nobody else has acknowledged it has less.
                            let epoch = case.led(index, |led| {
                                let keep = led.batches.partition_point(|batch| batch.next <= led.high_watermark);
                                let left = led.batches.len() - keep;
                                led.batches.truncate(keep + random.below(left as u64 + 1) as usize);
                                led.end = led.batches.last().map_or(led.start, |batch| batch.next);
                                led.epoch += 1;
                                led.append(1, 0, 30);
                                led.epoch
                            });
                            case.follow(index, epoch).await;
                        }
                        8 => clock::sleep(Duration::from_millis(random.below(8))).await,
                        _ => {
                            case.replica(index).leave();
                            case.fetchers.look_at(case.replica(index));
                            let epoch = case.led(index, |led| led.epoch);
                            case.follow(index, epoch).await;
                        }
                    }
                }
                locked(&case.script).faults = 0;
                for index in 0..PARTITIONS {
                    case.led(index, |led| led.append(1, 0, 30));
                    case.caught_up(index).await;
                }
                assert_eq!(case.fetchers.committed_cuts(), 0, "seed {seed}");
                case.end().await;
            }
        });
    }
}
