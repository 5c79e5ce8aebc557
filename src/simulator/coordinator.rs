//! The group coordinator of a simulated broker: the broker's own `groups` over the log of
//! `__consumer_offsets`.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;

use uuid::Uuid;

use super::checker::Mark;
use super::disk::{Batch, Disk};
use super::net::{Address, Io, Payload};
use super::place::OFFSETS;
use super::replica::{Replica, Role};
use crate::config::GroupConfig;
use crate::groups::{Coordinator, Effects, Env, Reply, Request, Room, Stage, Tenure, Ticket, TopicFacts, Topics};
use crate::model::{ErrorCode, LeaderEpoch};

/// Ids of the batches that coordinators write; producers' are smaller.
const OWN_BATCH: u64 = 1 << 60;

/// Place to which a reply goes: the client and the number of its request.
type Asker = (Address, u64);

/// A reply that waits, and the batch that its request wrote: id and base offset.
struct Held {
    to: Asker,
    reply: Reply,
    wrote: Option<(u64, i64)>,
}

pub struct Hosted {
    core: Coordinator,
    tenure: Tenure<Held>,
    /// Everything before this has been replayed.
    loaded: i64,
    owed: BTreeMap<Ticket, Asker>,
    tickets: u64,
    config: Rc<GroupConfig>,
}

impl Hosted {
    fn begin(epoch: LeaderEpoch, disk: &Disk) -> Hosted {
        Hosted {
            core: Coordinator::default(),
            tenure: Tenure::begin(epoch, disk.ends.appended),
            loaded: disk.ends.start,
            owed: BTreeMap::new(),
            tickets: 0,
            config: Rc::default(),
        }
    }

    /// Replays a few batches; serves once all are.
    fn load(&mut self, disk: &Disk, io: &mut Io) {
        let most = io.rng.between(1, 60) as usize;
        for batch in disk.read(self.loaded, self.tenure.load_end(), most) {
            let records = io.group_records.get(&batch.id).cloned().unwrap_or_default();
            for (key, value) in records.iter() {
                if let Err(error) = self.core.replay(key, value.as_deref()) {
                    io.checker.broken("a coordinator cannot read what one wrote", format!("{batch:?}: {error}"));
                }
            }
            self.loaded = batch.next();
        }
        if self.loaded == self.tenure.load_end() && self.tenure.serve() {
            let effects = self.call(io, |core, env| core.loaded(env));
            if !effects.records.is_empty() || !effects.replies.is_empty() {
                io.checker.broken("a coordinator writes or answers as it begins", format!("{effects:?}"));
            }
        }
    }

    fn call(&mut self, io: &mut Io, call: impl FnOnce(&mut Coordinator, &mut Env)) -> Effects {
        let mut env = Env {
            wall_ms: io.now,
            mono_ms: io.now.unsigned_abs(),
            config: &self.config,
            room: Room::UNLIMITED,
            topics: &NoTopics,
            new_id: &mut || Uuid::from_u128(u128::from(io.rng.number())),
            out: Effects::default(),
        };
        call(&mut self.core, &mut env);
        env.out
    }

    fn handle(&mut self, from: Asker, request: Request, io: &mut Io) -> Effects {
        let ticket = Ticket(self.tickets);
        self.tickets += 1;
        self.owed.insert(ticket, from);
        self.call(io, |core, env| core.handle(ticket, request, env))
    }

    fn hold(&mut self, effects: Effects, wrote: Option<(u64, i64)>) {
        for (ticket, reply) in effects.replies {
            if let Some(to) = self.owed.remove(&ticket) {
                self.tenure.hold(Held { to, reply, wrote });
            }
        }
    }
}

impl Replica {
    /// Epoch that this broker leads in, as far as it knows.
    fn led(&self) -> Option<LeaderEpoch> {
        match &self.role {
            Role::Leader(leader) if !leader.is_deposed() && !self.disk.failed => Some(leader.epoch()),
            _ => None,
        }
    }

    /// A coordinator begins and ends with the leadership; replies leave that may.
    pub fn coordinate(&mut self, io: &mut Io) {
        if self.partition != OFFSETS {
            return;
        }
        let led = self.led();
        if let Some(over) = self.coordinator.take_if(|hosted| !hosted.tenure.belongs_to(led)) {
            self.end_coordinator(*over, io);
        }
        if let Some(epoch) = led.filter(|_| self.coordinator.is_none()) {
            let end = self.disk.ends.appended;
            io.note(|| format!("broker {}: coordinates in epoch {epoch}, loads up to {end}", self.broker));
            if end > self.disk.ends.start {
                io.checker.mark(Mark::CoordinatorLoads);
            }
            if self.marks.high_watermark() < end {
                io.checker.mark(Mark::LoadsUncommitted);
            }
            self.coordinator = Some(Box::new(Hosted::begin(epoch, &self.disk)));
        }
        self.release(io);
    }

    fn end_coordinator(&self, mut over: Hosted, io: &mut Io) {
        io.note(|| format!("broker {}: coordinates no longer", self.broker));
        let held: Vec<Asker> = over.tenure.end().map(|held| held.to).collect();
        if !held.is_empty() {
            io.checker.mark(Mark::NotCoordinator);
        }
        for (client, number) in held.into_iter().chain(over.owed.into_values()) {
            self.refuse(client, number, ErrorCode::NotCoordinator, io);
        }
    }

    fn refuse(&self, client: Address, number: u64, code: ErrorCode, io: &mut Io) {
        let payload = Payload::Grouped(Box::new(Err(code)), LeaderEpoch(-1));
        io.send(Address::Broker(self.broker), client, OFFSETS, number, payload);
    }

    fn release(&mut self, io: &mut Io) {
        let Some(hosted) = &mut self.coordinator else { return };
        let epoch = hosted.tenure.epoch();
        while let Some(held) = hosted.tenure.release(self.marks.high_watermark()) {
            if let Some((id, base)) = held.wrote {
                io.checker.acked(OFFSETS, epoch.0, id, base);
                io.checker.offsets_acked(id);
            }
            if let Reply::FetchOffsets(reply) = &held.reply {
                let shown = reply.topics.iter().flat_map(|(_, partitions)| partitions);
                for shown in shown.filter(|shown| shown.offset >= 0) {
                    io.checker.offset_shown(epoch.0, &shown.metadata, shown.offset);
                }
            }
            let (client, number) = held.to;
            let payload = Payload::Grouped(Box::new(Ok(held.reply)), epoch);
            io.send(Address::Broker(self.broker), client, OFFSETS, number, payload);
        }
    }

    /// A request for the coordinator.
    pub fn ask(&mut self, from: Address, number: u64, request: Request, io: &mut Io) {
        let admitted = match &self.coordinator {
            Some(hosted) => hosted.tenure.admit(),
            None => Err(ErrorCode::NotCoordinator),
        };
        if let Err(code) = admitted {
            return self.refuse(from, number, code, io);
        }
        let Some(hosted) = &mut self.coordinator else { return };
        let effects = hosted.handle((from, number), request, io);
        let wrote = self.write_groups(&effects, io);
        if let Some(hosted) = &mut self.coordinator {
            hosted.hold(effects, wrote);
        }
        self.moved(io);
    }

    /// Appends the records of one call as one batch.
    fn write_groups(&mut self, effects: &Effects, io: &mut Io) -> Option<(u64, i64)> {
        let hosted = self.coordinator.as_mut().filter(|_| !effects.records.is_empty())?;
        let epoch = hosted.tenure.epoch().0;
        let (base, id) = (self.disk.ends.appended, OWN_BATCH | io.number());
        let count = effects.records.len() as i32;
        let batch = self.disk.append(Batch { base, count, epoch, id, producer: None, chain: 0 });
        io.note(|| format!("broker {}: the coordinator appends {batch:?}", self.broker));
        io.checker.wrote(OFFSETS, self.broker, self.life, epoch);
        io.checker.appended(OFFSETS, self.broker, &batch);
        io.checker.offsets_written(&batch, &effects.records);
        io.group_records.insert(id, effects.records.iter().map(|record| record.encode()).collect());
        hosted.tenure.appended(batch.next());
        Some((id, base))
    }

    /// Periodic work.
    pub fn tick_coordinator(&mut self, io: &mut Io) {
        if let Some(hosted) = &mut self.coordinator
            && hosted.tenure.stage() == Stage::Loading
        {
            hosted.load(&self.disk, io);
        }
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

/// Records of one batch as they are written.
pub type GroupRecords = Arc<[(Vec<u8>, Option<Vec<u8>>)]>;
