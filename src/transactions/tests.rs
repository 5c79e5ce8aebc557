//! A coordinator with a clock and a log of its own. What it promises is asserted on the way:
//! records say what is meant, and read again they make the same state.

use std::collections::BTreeSet;

use super::api::*;
use super::record::Record;
use super::*;
use crate::config::TransactionConfig;
use crate::coordinator::Ticket;
use crate::model::ErrorCode;

const WALL_MS: i64 = 1_700_000_000_000;
const LAST_EPOCH_OF_CLIENTS: i16 = i16::MAX - 1;

struct World {
    coordinator: Coordinator,
    config: TransactionConfig,
    room: usize,
    now_ms: u64,
    log: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    deeds: Vec<Deed>,
    fresh_id: i64,
}

impl World {
    fn new() -> World {
        let mut world = World {
            coordinator: Coordinator::default(),
            config: TransactionConfig::default(),
            room: usize::MAX,
            now_ms: 0,
            log: Vec::new(),
            deeds: Vec::new(),
            fresh_id: 1000,
        };
        world.act(|coordinator, env| coordinator.loaded(env));
        world
    }

    fn act(&mut self, act: impl FnOnce(&mut Coordinator, &mut Env)) -> Vec<(Ticket, Reply)> {
        let mut env = Env {
            wall_ms: WALL_MS + self.now_ms as i64,
            mono_ms: self.now_ms,
            config: &self.config,
            room: self.room,
            room_for_new: self.room,
            out: Effects::default(),
        };
        act(&mut self.coordinator, &mut env);
        let out = env.out;
        self.coordinator.assert_counted();
        for record in &out.records {
            let (key, value) = record.encode();
            let mut meant = record.clone();
            if let Some(value) = &mut meant.value {
                // Not written, as in Kafka.
                value.last_epoch = -1;
            }
            assert_eq!(Record::decode(&key, value.as_deref()), Ok(Some(meant)));
            self.log.push((key, value));
        }
        self.deeds.extend(out.deeds);
        out.replies
    }

    fn ask(&mut self, request: Request) -> Reply {
        let mut replies = self.act(|coordinator, env| coordinator.handle(Ticket(7), request, env));
        assert_eq!((replies.len(), replies[0].0), (1, Ticket(7)));
        replies.remove(0).1
    }

    fn producer(&mut self, request: impl Fn(Option<i64>) -> Request) -> Result<Producer, ErrorCode> {
        let ask = |world: &mut World, fresh_id| match world.ask(request(fresh_id)) {
            Reply::Producer(reply) => reply,
            other => panic!("{other:?}"),
        };
        let reply = match ask(self, None) {
            Err(Refusal::NeedsProducerId) => {
                self.fresh_id += 1;
                let fresh_id = self.fresh_id;
                ask(self, Some(fresh_id))
            }
            reply => reply,
        };
        reply.map_err(|refusal| match refusal {
            Refusal::Error(code) => code,
            Refusal::NeedsProducerId => panic!("asked for an id again"),
        })
    }

    fn init(&mut self, id: &str, expected: Option<Producer>) -> Result<Producer, ErrorCode> {
        self.producer(|fresh_id| {
            Request::Initialize(InitializeRequest { id: id.into(), timeout_ms: 60_000, expected, fresh_id })
        })
    }

    fn add(&mut self, id: &str, producer: Producer, partitions: &[(&str, i32)], version: i16) -> Result<(), ErrorCode> {
        let partitions = set(partitions);
        let request = AddPartitionsRequest { id: id.into(), producer, partitions, verify_only: false, version };
        match self.ask(Request::AddPartitions(request)) {
            Reply::Partitions(reply) => reply.map(|_| ()),
            other => panic!("{other:?}"),
        }
    }

    fn end(&mut self, id: &str, producer: Producer, commit: bool, version: i16) -> Result<Producer, ErrorCode> {
        self.producer(|fresh_id| Request::End(EndRequest { id: id.into(), producer, commit, version, fresh_id }))
    }

    /// Writes the markers that wait.
    fn write_markers(&mut self) -> Vec<Markers> {
        let markers: Vec<Markers> = std::mem::take(&mut self.deeds)
            .into_iter()
            .map(|deed| match deed {
                Deed::Write(markers) => markers,
                Deed::TimeOut(id) => panic!("{id} waits for a producer id"),
            })
            .collect();
        for Markers { id, producer, .. } in &markers {
            self.act(|coordinator, env| coordinator.complete(id, *producer, env));
        }
        markers
    }

    fn pass(&mut self, ms: u64) {
        self.now_ms += ms;
        self.act(|coordinator, env| coordinator.tick(env));
    }

    fn state(&self, id: &str) -> State {
        self.coordinator.get(id).unwrap().state
    }

    /// Another broker takes over.
    fn reload(&mut self) {
        let mut coordinator = Coordinator::default();
        for (key, value) in &self.log {
            coordinator.replay(key, value.as_deref()).unwrap();
        }
        self.coordinator = coordinator;
        self.deeds.clear();
        self.act(|coordinator, env| coordinator.loaded(env));
    }
}

fn set(partitions: &[(&str, i32)]) -> BTreeSet<TopicPartition> {
    partitions.iter().map(|(topic, index)| ((*topic).into(), *index)).collect()
}

fn producer(id: i64, epoch: i16) -> Producer {
    Producer { id, epoch }
}

const PARTITIONS: &[(&str, i32)] = &[("a", 0), ("a", 3), ("b", 1)];

#[test]
fn records_are_written_as_kafka_does() {
    // By TransactionLogKey.json and TransactionLogValue.json, version 1.
    let mut transaction = Transaction::new(0x0102, 60_000, 9);
    transaction.producer.epoch = 3;
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let empty = Record { id: "t".into(), value: Some(transaction.clone()) };
    let (key, value) = empty.encode();
    assert_eq!(hex(&key), "0000000174");
    let id = "0000000000000102";
    assert_eq!(hex(&value.unwrap()), format!("0001{id}0003{:08x}0000{:016x}ffffffffffffffff00", 60_000, 9));
    transaction.state = State::Ongoing;
    transaction.partitions = set(PARTITIONS);
    transaction.previous_id = 0x0102;
    transaction.version = 2;
    transaction.started_ms = 8;
    let (_, value) = Record { id: "t".into(), value: Some(transaction) }.encode();
    let partitions = "030261030000000000000003000262020000000100";
    let tags = format!("020008{id}02020002");
    assert_eq!(
        hex(&value.unwrap()),
        format!("0001{id}0003{:08x}01{partitions}00000000000000090000000000000008{tags}", 60_000)
    );
    assert_eq!(Record { id: "t".into(), value: None }.encode().1, None);
    assert_eq!(Record::decode(&[0, 7, 1], None), Ok(None), "another kind");
    for bad in [&[0u8][..], &[0, 9], &[0, 1, 0]] {
        assert!(Record::decode(&[0, 0, 0, 1, 116], Some(bad)).is_err());
    }
}

/// Version 0, as Kafka wrote it before `transaction.version` 1.
#[test]
fn records_of_version_0_are_read() {
    let value = [
        &0i16.to_be_bytes()[..],
        &5i64.to_be_bytes(),
        &2i16.to_be_bytes(),
        &1000i32.to_be_bytes(),
        &[4],
        &(-1i32).to_be_bytes(),
        &9i64.to_be_bytes(),
        &8i64.to_be_bytes(),
    ]
    .concat();
    let read = Record::decode(&[0, 0, 0, 1, 116], Some(&value)).unwrap().unwrap().value.unwrap();
    assert_eq!((read.producer, read.state, read.timeout_ms), (producer(5, 2), State::CompleteCommit, 1000));
    assert_eq!((read.updated_ms, read.started_ms, read.previous_id, read.version), (9, 8, -1, 0));
}

#[test]
fn a_transaction_is_begun_ended_and_completed() {
    for (version, commit) in [(0, true), (0, false), (2, true), (2, false)] {
        let mut world = World::new();
        let first = world.init("t", None).unwrap();
        assert_eq!(first.epoch, 0);
        world.add("t", first, PARTITIONS, version).unwrap();
        let records = world.log.len();
        world.add("t", first, &PARTITIONS[1..], version).unwrap();
        assert_eq!(world.log.len(), records, "nothing new is not written");
        let next = world.end("t", first, commit, version).unwrap();
        let epoch = if version == 2 { 1 } else { 0 };
        assert_eq!(next, producer(first.id, epoch));
        let markers = world.write_markers();
        let expected = Markers { id: "t".into(), producer: next, commit, version, partitions: set(PARTITIONS) };
        assert_eq!(markers, [expected]);
        assert_eq!(world.state("t"), if commit { State::CompleteCommit } else { State::CompleteAbort });
        world.add("t", next, &[("c", 0)], version).unwrap();
        assert_eq!(world.coordinator.get("t").unwrap().partitions, set(&[("c", 0)]));
    }
}

#[test]
fn while_markers_are_written_nothing_else_is_begun() {
    for version in [0, 2] {
        let mut world = World::new();
        let first = world.init("t", None).unwrap();
        world.add("t", first, PARTITIONS, version).unwrap();
        let next = world.end("t", first, true, version).unwrap();
        let concurrent = Err(ErrorCode::ConcurrentTransactions);
        assert_eq!(world.add("t", next, PARTITIONS, version), concurrent);
        assert_eq!(world.init("t", None).map(|_| ()), concurrent);
        assert_eq!(world.end("t", first, true, version).map(|_| ()), concurrent, "a repeated request");
        assert_eq!(world.end("t", first, false, version), Err(ErrorCode::InvalidTxnState));
        world.write_markers();
        assert_eq!(world.end("t", first, true, version), Ok(next), "a repeated request");
        assert_eq!(world.end("t", first, false, version), Err(ErrorCode::InvalidTxnState));
    }
}

#[test]
fn each_end_of_an_earlier_epoch_is_refused() {
    let mut world = World::new();
    let first = world.init("t", None).unwrap();
    world.add("t", first, PARTITIONS, 2).unwrap();
    let second = world.end("t", first, true, 2).unwrap();
    world.write_markers();
    world.add("t", second, PARTITIONS, 2).unwrap();
    for commit in [true, false] {
        assert_eq!(world.end("t", first, commit, 2), Err(ErrorCode::ProducerFenced));
    }
    assert_eq!(world.add("t", first, PARTITIONS, 2), Err(ErrorCode::ProducerFenced));
    assert_eq!(world.state("t"), State::Ongoing);
    let third = world.end("t", second, false, 2).unwrap();
    world.write_markers();
    // The table of KIP-890: (state, abort or commit, of the last epoch or of this one).
    assert_eq!(world.end("t", second, false, 2), Ok(third));
    assert_eq!(world.end("t", second, true, 2), Err(ErrorCode::InvalidTxnState));
    assert_eq!(world.end("t", third, true, 2), Err(ErrorCode::InvalidTxnState));
    let fourth = world.end("t", third, false, 2).unwrap();
    assert_eq!(fourth, producer(first.id, third.epoch + 1), "an abort of nothing");
    assert_eq!(world.write_markers()[0].partitions, BTreeSet::new());
    assert_eq!(world.end("t", first, false, 2), Err(ErrorCode::ProducerFenced));
    let wrong = producer(fourth.id + 1, fourth.epoch);
    assert_eq!(world.end("t", wrong, false, 2), Err(ErrorCode::InvalidProducerIdMapping));
    assert_eq!(world.end("unknown", fourth, false, 2), Err(ErrorCode::InvalidProducerIdMapping));
}

#[test]
fn a_new_producer_fences_the_one_before() {
    for version in [0, 2] {
        let mut world = World::new();
        let zombie = world.init("t", None).unwrap();
        world.add("t", zombie, PARTITIONS, version).unwrap();
        assert_eq!(world.init("t", None), Err(ErrorCode::ConcurrentTransactions), "until the other's are aborted");
        let markers = world.write_markers();
        assert_eq!((markers[0].commit, markers[0].producer), (false, producer(zombie.id, 1)));
        let new = world.init("t", None).unwrap();
        assert_eq!(new, producer(zombie.id, 2));
        assert_eq!(world.add("t", zombie, PARTITIONS, version), Err(ErrorCode::ProducerFenced));
        assert_eq!(world.end("t", zombie, true, version), Err(ErrorCode::ProducerFenced));
        assert_eq!(world.init("t", Some(zombie)), Err(ErrorCode::ProducerFenced));
        world.add("t", new, PARTITIONS, version).unwrap();
        assert_eq!(world.end("t", zombie, true, version), Err(ErrorCode::ProducerFenced));
    }
}

#[test]
fn a_producer_goes_on_with_the_next_epoch() {
    let mut world = World::new();
    let first = world.init("t", None).unwrap();
    let second = world.init("t", Some(first)).unwrap();
    assert_eq!(second, producer(first.id, 1));
    assert_eq!(world.init("t", Some(first)), Ok(second), "a repeated request");
    let third = world.init("t", None).unwrap();
    assert_eq!(third, producer(first.id, 2));
    assert_eq!(world.init("t", Some(first)), Err(ErrorCode::ProducerFenced));
    assert_eq!(world.init("t", Some(second)), Err(ErrorCode::ProducerFenced));
    let unknown = world.init("new", Some(producer(5, 3))).unwrap();
    assert_eq!(unknown.epoch, 0, "what was forgotten begins anew");
}

#[test]
fn an_exhausted_producer_id_is_replaced() {
    for (version, expected) in [(0, false), (0, true), (2, false)] {
        let mut world = World::new();
        let first = world.init("t", None).unwrap();
        while world.coordinator.get("t").unwrap().producer.epoch < LAST_EPOCH_OF_CLIENTS {
            world.init("t", None).unwrap();
        }
        let last = producer(first.id, LAST_EPOCH_OF_CLIENTS);
        world.add("t", last, PARTITIONS, version).unwrap();
        let next = world.end("t", last, true, version).unwrap();
        let markers = world.write_markers();
        if version == 2 {
            assert_eq!(markers[0].producer, producer(first.id, i16::MAX));
            assert!(next.id != first.id && next.epoch == 0);
            assert_eq!(world.end("t", last, true, version), Ok(next), "a repeated request");
            world.add("t", next, PARTITIONS, version).unwrap();
            assert_eq!(world.end("t", last, true, version), Err(ErrorCode::InvalidProducerIdMapping));
        } else {
            assert_eq!((markers[0].producer, next), (last, last));
            let asked = expected.then_some(last);
            let next = world.init("t", asked).unwrap();
            assert!(next.id != first.id && next.epoch == 0);
            assert_eq!(world.init("t", asked).is_ok_and(|again| again == next), expected, "a repeated request");
        }
    }
}

#[test]
fn a_transaction_that_takes_too_long_is_aborted() {
    let mut world = World::new();
    let late = world.init("t", None).unwrap();
    world.add("t", late, PARTITIONS, 2).unwrap();
    world.pass(60_000);
    assert_eq!(world.state("t"), State::Ongoing);
    world.pass(10_000);
    assert_eq!(world.state("t"), State::PrepareAbort);
    assert_eq!(world.write_markers().len(), 1);
    assert_eq!(world.add("t", late, PARTITIONS, 2), Err(ErrorCode::ProducerFenced));
    assert_eq!(world.end("t", late, true, 2), Err(ErrorCode::InvalidTxnState));
    assert_eq!(world.end("t", late, false, 2), Ok(producer(late.id, 1)), "its own abort finds it done");
    world.pass(1_000_000);
    assert!(world.deeds.is_empty());
}

#[test]
fn a_late_transaction_of_an_exhausted_producer_waits_for_an_id() {
    let mut world = World::new();
    world.init("t", None).unwrap();
    while world.coordinator.get("t").unwrap().producer.epoch < LAST_EPOCH_OF_CLIENTS {
        world.init("t", None).unwrap();
    }
    let last = world.coordinator.get("t").unwrap().producer;
    world.add("t", last, PARTITIONS, 2).unwrap();
    world.pass(70_000);
    assert_eq!(std::mem::take(&mut world.deeds), [Deed::TimeOut("t".into())]);
    world.act(|coordinator, env| coordinator.time_out(&"t".into(), Some(5000), env));
    assert_eq!(world.write_markers()[0].producer, producer(last.id, i16::MAX));
    assert_eq!(world.coordinator.get("t").unwrap().producer, producer(5000, 0));
}

#[test]
fn timeouts_have_bounds() {
    let mut world = World::new();
    for (timeout_ms, good) in [(0, false), (1, true), (900_000, true), (900_001, false), (-1, false)] {
        let request =
            |fresh_id| Request::Initialize(InitializeRequest { id: "t".into(), timeout_ms, expected: None, fresh_id });
        let outcome = world.producer(request).map(|_| ());
        assert_eq!(outcome, if good { Ok(()) } else { Err(ErrorCode::InvalidTransactionTimeout) }, "{timeout_ms}");
    }
}

#[test]
fn ids_expire_unless_a_transaction_is_open() {
    let mut world = World::new();
    world.config.id_expiration_ms = 5 * 60 * 60 * 1000;
    for id in ["idle", "open"] {
        world.init(id, None).unwrap();
    }
    let open = world.coordinator.get("open").unwrap().producer;
    world.add("open", open, PARTITIONS, 0).unwrap();
    world.end("open", open, true, 0).unwrap();
    for _ in 0..6 {
        world.pass(60 * 60 * 1000);
    }
    assert!(world.coordinator.get("idle").is_none() && world.coordinator.get("open").is_some());
    world.reload();
    assert!(world.coordinator.get("idle").is_none());
    assert_eq!(world.write_markers().len(), 1);
}

#[test]
fn what_was_decided_is_ended_after_a_reload() {
    for decided in [false, true] {
        let mut world = World::new();
        let first = world.init("t", None).unwrap();
        world.add("t", first, PARTITIONS, 2).unwrap();
        if decided {
            world.end("t", first, true, 2).unwrap();
        }
        world.reload();
        assert_eq!(world.deeds.len(), usize::from(decided));
        if decided {
            let markers = world.write_markers();
            assert!(markers[0].commit && markers[0].partitions == set(PARTITIONS));
            assert_eq!(world.end("t", first, true, 2), Ok(producer(first.id, 1)));
            return;
        }
        assert_eq!(world.state("t"), State::Ongoing);
        world.pass(80_000);
        assert_eq!(world.state("t"), State::PrepareAbort, "deadlines are kept");
    }
}

#[test]
fn markers_that_are_no_longer_wanted_complete_nothing() {
    let mut world = World::new();
    let first = world.init("t", None).unwrap();
    world.add("t", first, PARTITIONS, 0).unwrap();
    world.act(|coordinator, env| coordinator.complete(&"t".into(), first, env));
    assert_eq!(world.state("t"), State::Ongoing);
    world.end("t", first, true, 0).unwrap();
    world.act(|coordinator, env| coordinator.complete(&"t".into(), producer(first.id, 9), env));
    assert_eq!(world.state("t"), State::PrepareCommit);
}

#[test]
fn partitions_are_verified() {
    let mut world = World::new();
    let first = world.init("t", None).unwrap();
    world.add("t", first, &[("a", 0)], 0).unwrap();
    let mut verify = |producer| {
        let partitions = set(&[("a", 0), ("a", 1)]);
        let request = AddPartitionsRequest { id: "t".into(), producer, partitions, verify_only: true, version: 2 };
        match world.ask(Request::AddPartitions(request)) {
            Reply::Partitions(reply) => reply.map(|each| each.into_iter().map(|(_, code)| code).collect::<Vec<_>>()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(verify(first), Ok(vec![ErrorCode::None, ErrorCode::TransactionAbortable]));
    assert_eq!(verify(producer(first.id, 1)), Err(ErrorCode::ProducerFenced));
    assert_eq!(verify(producer(1, 0)), Err(ErrorCode::InvalidProducerIdMapping));
}

#[test]
fn memory_has_a_bound() {
    let mut world = World::new();
    let first = world.init("t", None).unwrap();
    world.room = 100;
    assert_eq!(world.init("u", None), Err(ErrorCode::CoordinatorNotAvailable));
    assert_eq!(world.add("t", first, PARTITIONS, 0), Err(ErrorCode::CoordinatorNotAvailable));
    world.add("t", first, &PARTITIONS[..1], 0).unwrap();
    assert!(world.init("t", None).is_err_and(|code| code == ErrorCode::ConcurrentTransactions));
}
