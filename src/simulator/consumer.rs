//! Consumers: each reads all partitions, commits its offsets through its group's coordinator, and
//! begins where it has committed when it starts again.

use std::collections::BTreeSet;
use std::sync::Arc;

use uuid::Uuid;

use super::clients::{Leaders, TIMEOUT_MS};
use super::net::{Address, Consume, Io, Payload, Records};
use super::place::{FIRST, OFFSETS, TOPIC, number_of, partition_at};
use crate::groups::Reply;
use crate::groups::api::{
    CommitPartition, CommitRequest, CommitTopic, FetchOffsetsReply, FetchOffsetsRequest, GroupId,
};
use crate::model::{ErrorCode, LeaderEpoch, MarkerKind};

/// A request to the coordinator.
struct Asking {
    number: u64,
    /// Given up then.
    until: i64,
    what: Ask,
}

enum Ask {
    /// Offsets by partition.
    Commit(Vec<(usize, i64)>),
    /// By partition: acknowledgements that the answer may not miss.
    Fetch(Vec<usize>),
    Pause,
}

pub struct Consumer {
    index: usize,
    /// `read_committed`
    committed: bool,
    group: GroupId,
    /// By partition; `None`: it has to ask where it was.
    positions: Vec<Option<i64>>,
    /// Partitions whose position is to be committed.
    due: BTreeSet<usize>,
    asking: Option<Asking>,
    /// Newest leader epoch heard of.
    epochs: Vec<LeaderEpoch>,
    /// By partition: number of the fetch and when it is given up.
    fetching: Vec<Option<(u64, i64)>>,
    /// It has started for the last time.
    last: bool,
}

impl Consumer {
    pub fn new(index: usize, partitions: usize, committed: bool) -> Consumer {
        Consumer {
            index,
            committed,
            group: Arc::from(format!("g{index}")),
            positions: vec![None; partitions],
            due: BTreeSet::new(),
            asking: None,
            epochs: vec![LeaderEpoch(-1); partitions],
            fetching: vec![None; partitions],
            last: false,
        }
    }

    pub fn is_committed(&self) -> bool {
        self.committed
    }

    pub fn position(&self, partition: usize) -> Option<i64> {
        self.positions[partition]
    }

    /// Nothing is left to commit or to ask.
    pub fn is_idle(&self) -> bool {
        self.last && self.asking.is_none() && self.due.is_empty()
    }

    fn me(&self) -> Address {
        Address::Consumer(self.index)
    }

    fn partitions(&self) -> std::ops::Range<usize> {
        FIRST..self.positions.len()
    }

    /// It forgets everything but what it has committed.
    fn restart(&mut self) {
        self.positions.fill(None);
        self.due.clear();
        self.asking = None;
        self.fetching.fill(None);
    }

    /// `more`: it may start again. Once it may not, it does so for the last time.
    pub fn tick(&mut self, leaders: &Leaders, more: bool, io: &mut Io) {
        if (more && io.rng.chance(1)) || (!more && !self.last) {
            self.last = !more;
            self.restart();
        }
        self.ask(leaders, io);
        for partition in self.partitions() {
            let waits = self.fetching[partition].is_some_and(|(_, until)| io.now < until);
            let (known, position) = (self.epochs[partition], self.positions[partition]);
            if let Some((leader, epoch)) = leaders[partition].filter(|(_, epoch)| !waits && *epoch >= known)
                && let Some(offset) = position
            {
                self.epochs[partition] = epoch;
                let number = io.number();
                self.fetching[partition] = Some((number, io.now + TIMEOUT_MS));
                let consume = Consume { offset, epoch, committed: self.committed };
                io.send(self.me(), Address::Broker(leader), partition, number, Payload::Consume(consume));
            }
        }
    }

    /// Asks its coordinator where it was, or commits.
    fn ask(&mut self, leaders: &Leaders, io: &mut Io) {
        if self.asking.as_ref().is_some_and(|asking| io.now < asking.until) {
            return;
        }
        self.asking = None;
        let Some((coordinator, _)) = leaders[OFFSETS] else { return };
        let (number, unknown) = (io.number(), self.partitions().any(|at| self.positions[at].is_none()));
        let (request, what) = match (unknown, self.due.is_empty()) {
            (true, _) => {
                let seen = self.partitions().map(|at| io.checker.offsets_acknowledged(&self.key(at)));
                let what = Ask::Fetch(seen.collect());
                (self.fetch_request().into(), what)
            }
            (false, true) => return,
            (false, false) => {
                let at = |partition: &usize| Some((*partition, self.positions[*partition]?));
                let offsets: Vec<_> = self.due.iter().filter_map(at).collect();
                (self.commit_request(&offsets, number).into(), Ask::Commit(offsets))
            }
        };
        self.asking = Some(Asking { number, until: io.now + TIMEOUT_MS, what });
        io.send(self.me(), Address::Broker(coordinator), OFFSETS, number, Payload::Group(Box::new(request)));
    }

    fn key(&self, partition: usize) -> (String, i32) {
        (self.group.to_string(), number_of(partition))
    }

    fn fetch_request(&self) -> FetchOffsetsRequest {
        let numbers = self.partitions().map(number_of).collect();
        FetchOffsetsRequest {
            group: self.group.clone(),
            member: None,
            topics: Some(vec![(Arc::from(TOPIC), numbers)]),
            require_stable: false,
        }
    }

    fn commit_request(&self, offsets: &[(usize, i64)], number: u64) -> CommitRequest {
        let partitions = offsets.iter().map(|(partition, offset)| CommitPartition {
            index: number_of(*partition),
            offset: *offset,
            leader_epoch: -1,
            metadata: number.to_string(),
        });
        CommitRequest {
            group: self.group.clone(),
            generation: -1,
            member_id: String::new(),
            instance_id: None,
            retention_ms: None,
            knows_member_epochs: true,
            producer: None,
            topics: vec![CommitTopic { name: Arc::from(TOPIC), id: Uuid::nil(), partitions: partitions.collect() }],
        }
    }

    /// The coordinator of `epoch` answers.
    pub fn told(&mut self, number: u64, epoch: LeaderEpoch, result: Result<Reply, ErrorCode>, io: &mut Io) {
        let Some(asking) = self.asking.take_if(|asking| asking.number == number) else { return };
        match (asking.what, result) {
            (Ask::Commit(offsets), Ok(Reply::CommitOffsets(reply))) => {
                let errors = reply.topics.iter().flat_map(|topic| &topic.partitions);
                if let Some((partition, code)) = errors.clone().find(|(_, code)| *code != ErrorCode::None) {
                    io.checker.broken("a commit is refused", format!("{} {partition}: {code:?}", self.group));
                }
                for (partition, offset) in offsets {
                    if self.positions[partition] == Some(offset) {
                        self.due.remove(&partition);
                    }
                }
            }
            (Ask::Fetch(seen), Ok(Reply::FetchOffsets(reply))) => self.begin_at(&reply, epoch, &seen, io),
            (_, Err(_)) => {
                let until = io.now + io.rng.between(20, 150);
                self.asking = Some(Asking { number: 0, until, what: Ask::Pause });
            }
            (_, Ok(other)) => io.checker.broken("a coordinator answers something else", format!("{other:?}")),
        }
    }

    fn begin_at(&mut self, reply: &FetchOffsetsReply, epoch: LeaderEpoch, seen: &[usize], io: &mut Io) {
        let fetched: Vec<_> =
            reply.topics.iter().flat_map(|(topic, of)| of.iter().map(move |at| (topic, at))).collect();
        if reply.error != ErrorCode::None || fetched.len() != seen.len() {
            return io.checker.broken("a fetch of offsets is refused", format!("{reply:?}"));
        }
        for ((topic, fetched), seen) in fetched.into_iter().zip(seen) {
            let partition = partition_at(topic, fetched.index);
            io.checker.offset_read(&self.key(partition), epoch.0, *seen, &fetched.metadata, fetched.offset);
            if let Some(position) = self.positions.get_mut(partition) {
                *position = Some(fetched.offset.max(0));
            }
        }
    }

    pub fn answered(&mut self, partition: usize, number: u64, result: Result<Records, ErrorCode>, io: &mut Io) {
        if self.fetching[partition].map(|(number, _)| number) != Some(number) {
            return;
        }
        self.fetching[partition] = Some((0, io.now + 40));
        let Some(position) = &mut self.positions[partition] else { return };
        let excused = io.checker.has_lost(partition) || io.checker.is_trimmed(partition, *position);
        match result {
            Ok(records) => {
                if self.committed {
                    sift(partition, &records, io);
                }
                let batches = &records.batches;
                for batch in batches {
                    if batch.base != *position && !excused {
                        let what = format!("partition {partition} at {position}: {batch:?}");
                        io.checker.broken("a consumer misses records, or sees them twice", what);
                    }
                    *position = batch.next();
                }
                if !batches.is_empty() && io.rng.chance(30) {
                    self.due.insert(partition);
                }
            }
            Err(ErrorCode::OffsetOutOfRange) => {
                if !excused {
                    let what = format!("partition {partition}: nothing at {position}");
                    io.checker.broken("a consumer has read what is gone", what);
                }
                let start = io.checker.start(partition);
                *position = (*position).max(start).min(io.checker.canonical_end(partition));
            }
            Err(_) => {}
        }
    }
}

/// Tells records of aborted transactions from others, as Kafka's consumer does.
fn sift(partition: usize, records: &Records, io: &mut Io) {
    let mut later = records.aborted.clone();
    later.sort_by_key(|(_, first)| *first);
    let (mut later, mut aborted) = (later.into_iter().peekable(), BTreeSet::new());
    for batch in &records.batches {
        while let Some((producer, _)) = later.next_if(|(_, first)| *first < batch.next()) {
            aborted.insert(producer);
        }
        let Some((producer, ..)) = batch.producer else { continue };
        match batch.marker {
            Some(end) if end.kind == MarkerKind::Abort => {
                aborted.remove(&producer);
            }
            _ => io.checker.read_committed(partition, batch, !aborted.contains(&producer)),
        }
    }
}
