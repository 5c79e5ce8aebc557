//! The simulated world: brokers, clients, a network and the metadata store, and one queue of what
//! happens next. No clock and no thread: the same setup gives the same run.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::broker::Broker;
use super::checker::{Checker, Mark, Violation};
use super::clients::Producer;
use super::consumer::Consumer;
use super::contact::Contacts;
use super::net::{Address, Io, Message, Payload, Trace};
use super::place::{FIRST, TRANSACTIONS, partition_at, place_of};
use super::rng::{Rng, fold};
use super::setup::{LoseAnswers, SESSION_MS, Setup};
use super::transactor::Transactor;
use crate::cluster::store::{
    ClientId, Event as StoreEvent, Key, Model, ModelClient, Phase, Record, Revision, Step, Store, TopicRecord,
};
use crate::model::ErrorCode;
use crate::transactions::Reply;
use crate::{groups, transactions};

/// Time between two looks of a broker at what is due, ms.
pub const TICK_MS: i64 = 50;
/// Time between two looks of a client, ms.
const CLIENT_MS: i64 = 10;
/// The administrator asks for leaders so long after it is healed, ms.
const ASKS_MS: i64 = 6_000;
/// The cluster converges within this time once it is healed, ms.
const CONVERGE_MS: i64 = 30_000;

#[derive(Debug)]
enum Event {
    Deliver(Box<Message>),
    /// Of a broker's life.
    Tick(usize, u32),
    Disk(usize, u32),
    Store,
    Clients,
    /// Sessions end, connections are made.
    Servers,
    Fault(usize),
    /// A fault's end.
    Restart(usize, u32),
    Heal,
}

pub struct World {
    pub setup: Setup,
    pub io: Io,
    pub model: Model,
    pub brokers: Vec<Broker>,
    producers: Vec<Producer>,
    consumers: Vec<Consumer>,
    transactors: Vec<Transactor>,
    queue: BinaryHeap<Reverse<(i64, u64)>>,
    events: BTreeMap<u64, Event>,
    numbers: u64,
    pub hash: u64,
    pub healed: bool,
    /// Pairs of brokers that cannot be reached one way, and until when.
    pub cuts: BTreeMap<(usize, usize), i64>,
    pub slow_until: i64,
    /// By broker: the store is out of reach, events are late, answers are lost.
    pub store_cut_until: Vec<i64>,
    pub late_until: Vec<i64>,
    pub lose_answers: Vec<Option<LoseAnswers>>,
    pub store_away_until: i64,
    /// By partition: it is being reassigned.
    moving: Vec<bool>,
    /// Last sign of each session: client and time.
    pub sessions: BTreeMap<ClientId, i64>,
    pub contacts: Contacts,
    store_due: bool,
    disk_due: Vec<bool>,
    /// The observer's and the administrator's way to the store.
    pub observer: ModelClient,
}

impl World {
    pub fn new(setup: Setup, trace: Trace) -> World {
        let model = Model::new();
        let mut rng = Rng::new(setup.seed.wrapping_mul(31));
        let mut io = Io::new(rng.branch(), Checker::new(setup.partitions), trace);
        let brokers =
            (0..setup.brokers).map(|at| Broker::new(at, setup.partitions, setup.acknowledge, &model)).collect();
        let producers = (0..setup.producers).map(|at| Producer::new(at, &mut io)).collect();
        let committed = io.rng.chance(70);
        let consumers = (0..setup.consumers).map(|at| Consumer::new(at, setup.partitions, (at == 0) == committed));
        let consumers = consumers.collect();
        let transactors = (0..setup.transactors).map(|at| Transactor::new(at, &mut io)).collect();
        let count = setup.brokers;
        let observer = model.client();
        model.connect(observer.id(), Revision(0));
        let mut world = World {
            io,
            model,
            brokers,
            producers,
            consumers,
            transactors,
            queue: BinaryHeap::new(),
            events: BTreeMap::new(),
            numbers: 0,
            hash: setup.seed,
            healed: false,
            cuts: BTreeMap::new(),
            slow_until: 0,
            store_cut_until: vec![0; count],
            late_until: vec![0; count],
            lose_answers: vec![None; count],
            store_away_until: 0,
            moving: vec![false; setup.partitions],
            sessions: BTreeMap::new(),
            contacts: Contacts::default(),
            store_due: false,
            disk_due: vec![false; count],
            observer,
            setup,
        };
        world.found(&mut rng);
        world
    }

    /// The topics are there from the beginning; the brokers start one after the other.
    fn found(&mut self, rng: &mut Rng) {
        self.write_topics();
        for broker in 0..self.setup.brokers {
            let at = rng.between(0, 500);
            self.at(at, Event::Restart(broker, 0));
        }
        for fault in 0..self.setup.faults.len() {
            self.at(self.setup.faults[fault].at_ms, Event::Fault(fault));
        }
        self.at(self.setup.heal_at_ms, Event::Heal);
        self.at(0, Event::Clients);
        self.at(0, Event::Servers);
    }

    // ---- the queue

    fn at(&mut self, at: i64, event: Event) {
        self.numbers += 1;
        self.queue.push(Reverse((at, self.numbers)));
        self.events.insert(self.numbers, event);
    }

    pub fn restart_at(&mut self, at: i64, broker: usize) {
        let life = self.brokers[broker].life;
        self.at(at, Event::Restart(broker, life));
    }

    /// Runs until a promise is broken, or to the end: converged. `Ok`: digest of the run.
    pub fn run(&mut self) -> Result<u64, Violation> {
        let deadline = self.setup.heal_at_ms + CONVERGE_MS;
        while let Some(Reverse((at, number))) = self.queue.pop() {
            let Some(event) = self.events.remove(&number) else { continue };
            self.io.now = at;
            self.io.checker.at(at);
            self.step(event);
            if let Some(violation) = self.io.checker.violation() {
                return Err(violation.clone());
            }
            if self.healed && at % 100 == 0 && at > self.setup.heal_at_ms + 1_000 && self.missing().is_none() {
                self.io.checker.finish();
                return match self.io.checker.violation() {
                    Some(violation) => Err(violation.clone()),
                    None => Ok(self.hash),
                };
            }
            if at > deadline {
                let what = self.missing().unwrap_or_default();
                return Err(Violation { at_ms: at, rule: "the cluster does not converge", what });
            }
        }
        Err(Violation { at_ms: self.io.now, rule: "nothing happens any more", what: String::new() })
    }

    fn step(&mut self, event: Event) {
        let now = self.io.now;
        self.hash = fold(self.hash, now.unsigned_abs());
        match event {
            Event::Deliver(message) => self.deliver(*message),
            Event::Tick(broker, life) => self.tick(broker, life),
            Event::Disk(broker, life) => self.disk(broker, life),
            Event::Store => self.store(),
            Event::Clients => self.clients(),
            Event::Servers => self.servers(),
            Event::Fault(fault) => self.fault(fault),
            Event::Restart(broker, life) => self.restart(broker, life),
            Event::Heal => self.heal(),
        }
        self.flush();
        self.observe();
    }

    /// Effects of the step are put on their way.
    fn flush(&mut self) {
        for message in std::mem::take(&mut self.io.out) {
            self.hash = fold(self.hash, message.number);
            if let Some(at) = self.arrival(&message) {
                self.at(at, Event::Deliver(Box::new(message)));
            }
        }
        for broker in 0..self.brokers.len() {
            let running = &self.brokers[broker];
            let unsettled = running.running && running.replicas.iter().any(|replica| !replica.disk.is_settled());
            if unsettled && !self.disk_due[broker] {
                self.disk_due[broker] = true;
                let at = self.io.now + self.io.rng.between(1, 6);
                let life = self.brokers[broker].life;
                self.at(at, Event::Disk(broker, life));
            }
        }
        if !self.store_due && !self.model.steps().is_empty() {
            self.store_due = true;
            let at = self.io.now + self.io.rng.between(1, 5);
            self.at(at, Event::Store);
        }
    }

    /// When a message arrives; `None`: it is lost.
    fn arrival(&mut self, message: &Message) -> Option<i64> {
        let rng = &mut self.io.rng;
        let fate = rng.below(1_000);
        let delay = match fate {
            _ if self.healed => rng.between(1, 4),
            0..2 => return None,
            2..5 => rng.between(500, 2_500),
            5..25 => rng.between(10, 200),
            _ if self.io.now < self.slow_until => rng.between(20, 400),
            _ => rng.between(1, 6),
        };
        if let (Address::Broker(from), Address::Broker(to)) = (message.from, message.to)
            && from != to
            && self.cuts.get(&(from, to)).is_some_and(|until| self.io.now < *until)
        {
            return None;
        }
        Some(self.io.now + delay)
    }

    fn deliver(&mut self, message: Message) {
        let Message { from, to, partition, number, payload } = message;
        match (to, payload) {
            (Address::Broker(at), payload) => {
                let broker = &mut self.brokers[at];
                if !broker.running {
                    return;
                }
                if broker.paused_until > self.io.now {
                    let until = broker.paused_until;
                    return self.at(until, Event::Deliver(Box::new(Message { from, to, partition, number, payload })));
                }
                if let Payload::Transacted(reply) = payload {
                    return self.verified(at, number, &reply);
                }
                if let Payload::MarkerWritten(result) = payload {
                    return broker.marker_written(partition, number, result, &mut self.io);
                }
                let (replica, io) = (&mut broker.replicas[partition], &mut self.io);
                match payload {
                    Payload::Fetch(fetch) => {
                        self.contacts.fetched(at, partition, fetch.broker.0 as usize, io.now);
                        replica.fetch(from, number, fetch, io);
                    }
                    Payload::Fetched { epoch, answer, batches, origin } => {
                        replica.fetched(number, epoch, answer, &batches, origin, io);
                    }
                    Payload::Produce(produce) => {
                        let apart = self.contacts.is_apart(at, partition, io.now);
                        replica.produce(from, number, produce, apart, io);
                    }
                    Payload::Consume(consume) => replica.consume(from, number, consume, io),
                    Payload::Group(request) => replica.ask::<groups::Coordinator>(from, number, *request, io),
                    Payload::GroupInTransaction(request, transactor) => {
                        replica.commit_offsets(from, number, request, transactor, io);
                    }
                    Payload::Transact(request) => {
                        replica.ask::<transactions::Coordinator>(from, number, *request, io);
                    }
                    Payload::WriteMarker(marker) => replica.write_marker(from, number, marker, io),
                    _ => {}
                }
                broker.next(partition, io);
            }
            (Address::Producer(at), Payload::Produced(result, epoch)) => {
                self.producers[at].answered(number, result, epoch, &mut self.io);
            }
            (Address::Consumer(at), Payload::Consumed(result)) => {
                self.consumers[at].answered(partition, number, result, &mut self.io);
            }
            (Address::Consumer(at), Payload::Grouped(result, epoch)) => {
                self.consumers[at].told(number, epoch, *result, &mut self.io);
            }
            (Address::Transactor(at), Payload::Produced(result, _)) => {
                self.transactors[at].answered(number, result, &mut self.io);
            }
            (Address::Transactor(at), Payload::Grouped(result, epoch)) => {
                self.transactors[at].grouped(number, epoch, *result, &mut self.io);
            }
            (Address::Transactor(at), Payload::Transacted(result)) => {
                self.transactors[at].told(number, *result, &mut self.io);
            }
            _ => {}
        }
    }

    /// A transaction coordinator answers a broker that holds records of the transaction.
    fn verified(&mut self, at: usize, number: u64, reply: &Result<Reply, ErrorCode>) {
        let (broker, io) = (&mut self.brokers[at], &mut self.io);
        if let Some(partition) = broker.replicas.iter().position(|replica| replica.has_asked(number)) {
            let apart = self.contacts.is_apart(at, partition, io.now);
            broker.replicas[partition].verified(number, reply, apart, io);
            broker.next(partition, io);
        }
    }

    /// True if the event belongs to a process that runs; a paused one gets it later.
    fn runs(&mut self, broker: usize, life: u32, event: fn(usize, u32) -> Event) -> bool {
        let of = &self.brokers[broker];
        if !of.running || of.life != life {
            return false;
        }
        let paused_until = of.paused_until;
        if paused_until > self.io.now {
            self.contacts.woken(broker, paused_until);
            self.at(paused_until, event(broker, life));
            return false;
        }
        true
    }

    fn tick(&mut self, at: usize, life: u32) {
        if !self.runs(at, life, Event::Tick) {
            return;
        }
        self.at(self.io.now + TICK_MS, Event::Tick(at, life));
        let (broker, io) = (&mut self.brokers[at], &mut self.io);
        broker.poll(io);
        broker.act(io);
        broker.tick(io);
        self.watch(at);
        self.stop_if_done(at);
    }

    pub fn begin_ticks(&mut self, broker: usize) {
        let life = self.brokers[broker].life;
        self.at(self.io.now, Event::Tick(broker, life));
    }

    fn disk(&mut self, broker: usize, life: u32) {
        self.disk_due[broker] = false;
        if !self.runs(broker, life, Event::Disk) {
            self.disk_due[broker] = self.brokers[broker].running && self.brokers[broker].life == life;
            return;
        }
        let (broker, io) = (&mut self.brokers[broker], &mut self.io);
        for partition in 0..broker.replicas.len() {
            broker.replicas[partition].progress(io);
            broker.next(partition, io);
        }
    }

    // ---- the metadata store

    fn store(&mut self) {
        self.store_due = false;
        for step in self.model.steps() {
            let (Step::Serve(client) | Step::Answer(client) | Step::Show(client) | Step::Land(client)) = step;
            let broker = (0..self.brokers.len()).find(|at| self.brokers[*at].client() == client);
            let is_late = broker.is_some_and(|at| self.io.now < self.late_until[at]);
            let odds = match step {
                _ if self.healed => 90,
                Step::Serve(_) => 60,
                Step::Answer(_) => 60,
                Step::Show(_) if is_late => 1,
                Step::Show(_) => 50,
                Step::Land(_) => 2,
            };
            if !self.io.rng.chance(odds) {
                continue;
            }
            if matches!(step, Step::Land(_)) && !self.healed {
                match self.io.rng.below(10) {
                    0..6 => continue,
                    6 => self.model.lose(client),
                    _ => {}
                }
            }
            self.take(step, broker);
            self.observe();
        }
    }

    fn take(&mut self, step: Step, broker: Option<usize>) {
        match step {
            Step::Serve(client) => {
                let loses = broker.filter(|at| self.loses_answer(*at));
                // Carried out, or on its way still: the broker does not learn it.
                if loses.is_none() || self.io.rng.chance(50) {
                    let newest = self.model.revision();
                    let behind = Revision(newest.0 - self.io.rng.between(0, 4));
                    self.model.serve(client, behind);
                }
                if let Some(at) = loses {
                    self.lose_answer(at);
                }
            }
            Step::Land(client) => {
                if self.model.land(client) {
                    self.io.checker.mark(Mark::LateCommit);
                }
            }
            Step::Answer(_) | Step::Show(_) => {
                self.model.take(step);
            }
        }
        let news = broker.filter(|at| self.brokers[*at].running && self.brokers[*at].paused_until <= self.io.now);
        if let Some(at) = news {
            self.brokers[at].poll(&mut self.io);
        }
    }

    /// Breaks the connection of a broker to the store.
    pub fn unlink(&mut self, broker: usize) {
        self.model.disconnect(self.brokers[broker].client());
        self.brokers[broker].linked = false;
    }

    fn servers(&mut self) {
        let now = self.io.now;
        self.at(now + 40, Event::Servers);
        if self.healed && now > self.setup.heal_at_ms + ASKS_MS {
            self.ask_for_leaders();
        }
        for at in 0..self.brokers.len() {
            let broker = &mut self.brokers[at];
            let (client, awake) = (broker.client(), broker.running && broker.paused_until <= now);
            if awake && !broker.linked && now >= self.store_cut_until[at] {
                // Some servers lag far behind; a client is never shown less than it has seen.
                let most = if self.io.rng.chance(20) { 30 } else { 4 };
                let place = Revision((self.model.revision().0 - self.io.rng.between(0, most)).max(0));
                self.model.connect(client, place);
                broker.linked = true;
                broker.poll(&mut self.io);
            }
            if self.brokers[at].linked && awake {
                self.contacts.linked(at, now);
                self.sessions.insert(client, now);
            }
        }
        if now < self.store_away_until {
            // Servers without a quorum end no session.
            self.sessions.values_mut().for_each(|seen| *seen = now);
            return;
        }
        let over: Vec<ClientId> =
            self.sessions.iter().filter(|(_, seen)| now - **seen > SESSION_MS).map(|(client, _)| *client).collect();
        for client in over {
            self.sessions.remove(&client);
            self.model.expire(client);
            if let Some(broker) = self.brokers.iter_mut().find(|broker| broker.client() == client) {
                broker.linked = false;
            }
        }
    }

    /// Shows the observer what the store has, and what has changed on disks.
    fn observe(&mut self) {
        while self.model.show(self.observer.id(), 1) {}
        while let Some(event) = self.observer.poll() {
            let StoreEvent::Changed(changes) = event else { continue };
            for (key, node) in &changes.nodes {
                self.observe_node(key, node.as_ref().map(|node| &node.record));
            }
        }
        for partition in std::mem::take(&mut self.io.touched) {
            let brokers = &self.brokers;
            self.io.checker.members(partition, |broker| &brokers[broker].replicas[partition].disk);
        }
    }

    pub fn observe_node(&mut self, key: &Key, record: Option<&Record>) {
        match (key, record) {
            (Key::Partition(topic, number), record) => {
                let partition = partition_at(topic, *number);
                let state = match record {
                    Some(Record::Partition(state)) => Some(state),
                    _ => None,
                };
                let now = self.io.now;
                self.io.note(|| format!("store {now}: partition {partition} is {state:?}"));
                let brokers = &self.brokers;
                self.io.checker.changed(partition, state, |broker| &brokers[broker].replicas[partition].disk);
                self.io.touch(partition);
            }
            (Key::Incarnation(broker), Some(Record::Incarnation(incarnation))) => {
                self.io.note(|| format!("store: broker {broker} is {incarnation:?}"));
                let at = broker.0 as usize;
                match incarnation.phase {
                    Phase::Joining if self.brokers[at].identity.has_made(incarnation) => {
                        self.io.checker.registered(at);
                    }
                    Phase::Active => self.io.checker.activated(at),
                    Phase::Joining | Phase::Draining => {}
                }
            }
            (Key::Topic(topic), Some(Record::Topic(record))) => self.observe_topic(topic, record),
            (key, record) => self.io.note(|| format!("store: {key:?} is {record:?}")),
        }
    }

    fn observe_topic(&mut self, topic: &str, record: &TopicRecord) {
        self.io.note(|| format!("store: topic {topic} is {:?}", record.assignments));
        for (number, assignment) in record.assignments.iter().enumerate() {
            let partition = partition_at(topic, number as i32);
            let replicas = assignment.replicas.iter().map(|broker| broker.0 as usize).collect();
            self.io.checker.assigned(partition, replicas);
            let moves = !assignment.adding.is_empty() || !assignment.removing.is_empty();
            if std::mem::replace(&mut self.moving[partition], moves) && !moves {
                self.io.checker.mark(Mark::Reassigned);
            }
        }
    }

    // ---- clients

    fn clients(&mut self) {
        self.at(self.io.now + CLIENT_MS, Event::Clients);
        let awake: Vec<usize> = (0..self.brokers.len()).filter(|at| self.brokers[*at].running).collect();
        let asked = self.io.rng.pick(&awake).copied();
        let leaders: Vec<_> = (0..self.setup.partitions)
            .map(|partition| {
                let known = asked.and_then(|at| self.brokers[at].leader_of(partition));
                known.map(|(leader, epoch)| (leader.0 as usize, epoch))
            })
            .collect();
        let more = !self.healed || self.io.now < self.setup.heal_at_ms + 1_000;
        for producer in &mut self.producers {
            producer.tick(&leaders, more, &mut self.io);
        }
        for consumer in &mut self.consumers {
            consumer.tick(&leaders, more, &mut self.io);
        }
        for transactor in &mut self.transactors {
            transactor.tick(&leaders, more, &mut self.io);
        }
    }

    // ---- the end

    /// Why the healed cluster has not converged; `None`: it has.
    fn missing(&self) -> Option<String> {
        if let Some(busy) = self.producers.iter().position(|producer| !producer.is_idle()) {
            return Some(format!("producer {busy} waits"));
        }
        if let Some(busy) = self.consumers.iter().position(|consumer| !consumer.is_idle()) {
            return Some(format!("consumer {busy} waits for its coordinator"));
        }
        if let Some(busy) = self.transactors.iter().position(|transactor| !transactor.is_idle()) {
            return Some(format!("transactor {busy} waits"));
        }
        (0..self.setup.partitions).find_map(|partition| self.missing_of(partition))
    }

    fn missing_of(&self, partition: usize) -> Option<String> {
        let (topic, number) = place_of(partition);
        let Some(Record::Topic(record)) = self.model.node(&Key::Topic(topic.clone())).map(|node| node.record) else {
            return Some("no topic".to_owned());
        };
        let assignment = record.assignments.get(number as usize)?;
        let node = self.model.node(&Key::Partition(topic, number));
        let Some(Record::Partition(state)) = node.map(|node| node.record) else {
            return Some(format!("partition {partition} has no state"));
        };
        let in_sync: BTreeSet<_> = state.isr.iter().collect();
        let all: BTreeSet<_> = assignment.replicas.iter().collect();
        let moving = !assignment.adding.is_empty() || !assignment.removing.is_empty();
        let leader = state.leader.map(|leader| leader.0 as usize);
        let (Some(leader), true, false) = (leader, in_sync == all && state.elr.is_empty(), moving) else {
            return Some(format!("partition {partition}: {state:?} of {assignment:?}"));
        };
        let end = self.io.checker.canonical_end(partition);
        for broker in all {
            let replica = &self.brokers[broker.0 as usize].replicas[partition];
            let (ends, chain) = (replica.disk.ends, replica.disk.chain());
            let led = &self.brokers[leader].replicas[partition];
            if chain != led.disk.chain() || ends.acknowledged != end || replica.marks.high_watermark() != end {
                return Some(format!("partition {partition}: broker {broker} has {:?}, not {end}", replica.marks));
            }
        }
        if partition < FIRST {
            return None;
        }
        // The record that ended a transaction may be lost; its outcome is not known then.
        let stable = self.brokers[leader].replicas[partition].last_stable();
        let may_stay_open = self.io.checker.has_lost(partition) || self.io.checker.has_lost(TRANSACTIONS);
        if stable != end && !may_stay_open {
            return Some(format!("partition {partition}: the last stable offset is {stable}, not {end}"));
        }
        // A consumer may have been further before that loss.
        let has_read = |consumer: &Consumer| match consumer.is_committed() && stable != end {
            true => consumer.position(partition) >= Some(stable),
            false => consumer.position(partition) == Some(end),
        };
        let behind = self.consumers.iter().position(|consumer| !has_read(consumer));
        behind.map(|at| format!("partition {partition}: consumer {at} has not read up to {end}"))
    }
}
