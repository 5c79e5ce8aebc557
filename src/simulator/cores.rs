//! The broker's coordinators of groups and of transactions, as the simulator hosts them.

use std::rc::Rc;

use uuid::Uuid;

use super::checker::{Checker, Mark};
use super::coordinator::{Call, Core, Hosted, Outcome};
use super::disk::Batch;
use super::net::{Io, Payload};
use super::place::{OFFSETS, TRANSACTIONS};
use super::replica::Replica;
use crate::config::{GroupConfig, GroupOptions, TransactionConfig};
use crate::coordinator::wire::BadRecord;
use crate::groups::{self, Room, TopicFacts, Topics};
use crate::model::{ErrorCode, LeaderEpoch};
use crate::transactions::{self, Deed, State};

/// Time between two looks for transactions that take too long, ms.
const TIME_OUT_INTERVAL_MS: u64 = 300;
/// Ids above those of the producers that are idempotent only.
const FIRST_PRODUCER_ID: i64 = 1 << 20;

impl Core for groups::Coordinator {
    type Request = groups::Request;
    type Reply = groups::Reply;
    type Record = groups::record::Record;
    type Deed = ();
    const PARTITION: usize = OFFSETS;

    fn seat(replica: &mut Replica) -> &mut Option<Box<Hosted<Self>>> {
        &mut replica.groups
    }

    fn replay(&mut self, producer_id: Option<i64>, key: &[u8], value: Option<&[u8]>) -> Result<(), BadRecord> {
        self.replay_of(producer_id, key, value)
    }

    fn replay_marker(&mut self, producer_id: i64, commit: bool) {
        self.end_transaction(producer_id, commit);
    }

    /// Nothing is due within a run.
    fn next_deadline(&self) -> Option<u64> {
        None
    }

    fn call(&mut self, call: Call<Self>, io: &mut Io) -> Outcome<Self> {
        let config: Rc<GroupConfig> = Rc::default();
        let mut env = groups::Env {
            wall_ms: io.now,
            mono_ms: io.now.unsigned_abs(),
            config: &config,
            own: &GroupOptions::default(),
            room: Room::UNLIMITED,
            topics: &NoTopics,
            new_id: &mut || Uuid::from_u128(u128::from(io.rng.number())),
            out: groups::Effects::default(),
        };
        let begins = matches!(call, Call::Loaded);
        match call {
            Call::Loaded => self.loaded(&mut env),
            Call::Handle(ticket, request) => self.handle(ticket, request, &mut env),
            Call::Tick | Call::Tell(()) => {}
        }
        let groups::Effects { records, producer, replies } = env.out;
        if begins && !(records.is_empty() && replies.is_empty()) {
            io.checker.broken("a coordinator writes or answers as it begins", format!("{records:?} {replies:?}"));
        }
        Outcome { records, producer, replies, deeds: Vec::new() }
    }

    fn encode(record: &Self::Record) -> (Vec<u8>, Option<Vec<u8>>) {
        record.encode()
    }

    fn written(batch: &Batch, records: &[Self::Record], checker: &mut Checker) {
        checker.offsets_written(batch, records);
    }

    fn acked(id: u64, checker: &mut Checker) {
        checker.offsets_acked(id);
    }

    fn shown(epoch: LeaderEpoch, reply: &Self::Reply, checker: &mut Checker) {
        if let groups::Reply::FetchOffsets(reply) = reply {
            let shown = reply.topics.iter().flat_map(|(_, partitions)| partitions);
            for shown in shown.filter(|shown| shown.offset >= 0) {
                checker.offset_shown(epoch.0, &shown.metadata, shown.offset);
            }
        }
    }

    fn payload(result: Result<Self::Reply, ErrorCode>, epoch: LeaderEpoch) -> Payload {
        Payload::Grouped(Box::new(result), epoch)
    }
}

/// Groups without members need no topics.
struct NoTopics;

impl Topics for NoTopics {
    fn by_name(&self, _name: &str) -> Option<TopicFacts> {
        None
    }

    fn by_id(&self, _id: Uuid) -> Option<TopicFacts> {
        None
    }

    fn all(&self) -> Vec<TopicFacts> {
        Vec::new()
    }

    fn version(&self) -> u64 {
        0
    }
}

impl Core for transactions::Coordinator {
    type Request = transactions::Request;
    type Reply = transactions::Reply;
    type Record = transactions::record::Record;
    type Deed = Deed;
    const PARTITION: usize = TRANSACTIONS;

    fn seat(replica: &mut Replica) -> &mut Option<Box<Hosted<Self>>> {
        &mut replica.transactions
    }

    fn replay(&mut self, _: Option<i64>, key: &[u8], value: Option<&[u8]>) -> Result<(), BadRecord> {
        transactions::Coordinator::replay(self, key, value)
    }

    fn replay_marker(&mut self, _: i64, _: bool) {}

    fn next_deadline(&self) -> Option<u64> {
        transactions::Coordinator::next_deadline(self)
    }

    fn call(&mut self, call: Call<Self>, io: &mut Io) -> Outcome<Self> {
        let config = TransactionConfig { time_out_interval_ms: TIME_OUT_INTERVAL_MS, ..TransactionConfig::default() };
        let mut env = transactions::Env {
            wall_ms: io.now,
            mono_ms: io.now.unsigned_abs(),
            config: &config,
            room: usize::MAX,
            room_for_new: usize::MAX,
            out: transactions::Effects::default(),
        };
        let (begins, ticks) = (matches!(call, Call::Loaded), matches!(call, Call::Tick));
        match call {
            Call::Loaded => self.loaded(&mut env),
            Call::Handle(ticket, request) => self.handle(ticket, with_id(request, io), &mut env),
            Call::Tick => self.tick(&mut env),
            // All of them are written.
            Call::Tell(Deed::Write(markers)) => self.complete(&markers.id, markers.producer, &mut env),
            Call::Tell(Deed::TimeOut(id)) => self.time_out(id, Some(fresh_id(io)), &mut env),
        }
        let transactions::Effects { records, replies, mut deeds } = env.out;
        if begins {
            // They come out of a table without an order.
            deeds.sort_by(|one, other| id_of(one).cmp(id_of(other)));
            if !deeds.is_empty() {
                io.checker.mark(Mark::EndsTakenOver);
            }
        }
        if ticks && !records.is_empty() {
            io.checker.mark(Mark::TransactionTimedOut);
        }
        Outcome { records, producer: None, replies, deeds }
    }

    fn encode(record: &Self::Record) -> (Vec<u8>, Option<Vec<u8>>) {
        record.encode()
    }

    fn written(batch: &Batch, records: &[Self::Record], checker: &mut Checker) {
        for record in records {
            let state = record.value.as_ref().map(|transaction| transaction.state);
            match state {
                Some(State::PrepareCommit) => checker.mark(Mark::Committed),
                Some(State::PrepareAbort) => checker.mark(Mark::Aborted),
                _ => {}
            }
        }
        checker.transactions_written(batch, records);
    }

    fn acked(_id: u64, _checker: &mut Checker) {}

    fn shown(_epoch: LeaderEpoch, _reply: &Self::Reply, _checker: &mut Checker) {}

    fn payload(result: Result<Self::Reply, ErrorCode>, _epoch: LeaderEpoch) -> Payload {
        Payload::Transacted(Box::new(result))
    }
}

fn id_of(deed: &Deed) -> &str {
    match deed {
        Deed::Write(markers) => &markers.id,
        Deed::TimeOut(id) => id,
    }
}

fn fresh_id(io: &mut Io) -> i64 {
    FIRST_PRODUCER_ID + io.number() as i64
}

/// Gives the request a producer id that nobody had, in case it takes one.
fn with_id(mut request: transactions::Request, io: &mut Io) -> transactions::Request {
    match &mut request {
        transactions::Request::Initialize(request) => request.fresh_id = Some(fresh_id(io)),
        transactions::Request::End(request) => request.fresh_id = Some(fresh_id(io)),
        _ => {}
    }
    request
}
