//! Coordinators of a simulated broker: the broker's own rules over the log of their partition.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use super::checker::{Checker, Mark};
use super::disk::{Batch, Disk};
use super::net::{Address, Io, Payload};
use super::place::{OFFSETS, TRANSACTIONS};
use super::replica::{Replica, Role};
use crate::coordinator::wire::BadRecord;
use crate::coordinator::{Stage, Tenure, Ticket};
use crate::model::planted::{Planted, planted};
use crate::model::{ErrorCode, LeaderEpoch, MarkerKind};
use crate::{groups, transactions};

/// Ids of the batches that coordinators write; producers' are smaller.
const OWN_BATCH: u64 = 1 << 60;

/// Records of one batch as they are written.
pub type OwnRecords = Arc<[(Vec<u8>, Option<Vec<u8>>)]>;

/// Place to which a reply goes: the client and the number of its request.
pub type Asker = (Address, u64);

/// The rules of a coordinator, and what the observer is told of them.
pub trait Core: Default + Sized {
    type Request;
    type Reply: Debug;
    type Record: Debug;
    /// Work outside, due once everything before it is committed.
    type Deed: Debug;
    const PARTITION: usize;

    fn seat(replica: &mut Replica) -> &mut Option<Box<Hosted<Self>>>;

    /// `producer_id`: of the transaction that the record was written in.
    fn replay(&mut self, producer_id: Option<i64>, key: &[u8], value: Option<&[u8]>) -> Result<(), BadRecord>;

    /// The end of a transaction, in order with the records.
    fn replay_marker(&mut self, producer_id: i64, commit: bool);

    /// When a tick is due next.
    fn next_deadline(&self) -> Option<u64>;

    fn call(&mut self, call: Call<Self>, io: &mut Io) -> Outcome<Self>;

    fn encode(record: &Self::Record) -> (Vec<u8>, Option<Vec<u8>>);

    /// `records` were appended.
    fn written(batch: &Batch, records: &[Self::Record], checker: &mut Checker);

    /// Everything that depends on the batch `id` is acknowledged.
    fn acked(id: u64, checker: &mut Checker);

    /// A coordinator of `epoch` says this.
    fn shown(epoch: LeaderEpoch, reply: &Self::Reply, checker: &mut Checker);

    fn payload(result: Result<Self::Reply, ErrorCode>, epoch: LeaderEpoch) -> Payload;
}

/// Reason for a call of a core.
pub enum Call<'a, C: Core> {
    /// All of the log has been replayed.
    Loaded,
    Handle(Ticket, C::Request),
    Tick,
    /// News from outside.
    Tell(&'a C::Deed),
}

/// Result of a call.
#[derive(Debug)]
pub struct Outcome<C: Core> {
    pub records: Vec<C::Record>,
    /// Producer (id and epoch) in whose transaction they are written.
    pub producer: Option<(i64, i16)>,
    pub replies: Vec<(Ticket, C::Reply)>,
    pub deeds: Vec<C::Deed>,
}

/// Replies and deeds that wait until everything before them is committed.
enum Held<C: Core> {
    /// With the batch that its request wrote: id and base offset.
    Reply(Asker, C::Reply, Option<(u64, i64)>),
    Deed(C::Deed),
}

pub struct Hosted<C: Core> {
    core: C,
    tenure: Tenure<Held<C>>,
    /// Everything before this has been replayed.
    loaded: i64,
    owed: BTreeMap<Ticket, Asker>,
    tickets: u64,
    /// To be done now.
    pub deeds: Vec<C::Deed>,
}

impl<C: Core> Hosted<C> {
    fn begin(epoch: LeaderEpoch, disk: &Disk) -> Hosted<C> {
        Hosted {
            core: C::default(),
            tenure: Tenure::begin(epoch, disk.ends.appended),
            loaded: disk.ends.start,
            owed: BTreeMap::new(),
            tickets: 0,
            deeds: Vec::new(),
        }
    }

    pub fn epoch(&self) -> LeaderEpoch {
        self.tenure.epoch()
    }

    /// Refuses what it cannot take at its stage.
    pub fn admit(&self) -> Result<(), ErrorCode> {
        self.tenure.admit()
    }

    /// A transaction has ended in its partition, with a marker that ends at `next_offset`.
    pub fn marked(&mut self, next_offset: i64, producer_id: i64, commit: bool) {
        self.tenure.appended(next_offset);
        self.core.replay_marker(producer_id, commit);
    }

    /// Replays a few batches. True once it serves.
    fn load(&mut self, disk: &Disk, io: &mut Io) -> bool {
        let most = io.rng.between(1, 60) as usize;
        for batch in disk.read(self.loaded, self.tenure.load_end(), most) {
            let producer_id = batch.producer.map(|(id, ..)| id);
            if let (Some(end), Some(producer_id)) = (batch.marker, producer_id) {
                self.core.replay_marker(producer_id, end.kind == MarkerKind::Commit);
            }
            let records = io.own_records.get(&batch.id).cloned().unwrap_or_default();
            for (key, value) in records.iter() {
                if let Err(error) = self.core.replay(producer_id, key, value.as_deref()) {
                    io.checker.broken("a coordinator cannot read what one wrote", format!("{batch:?}: {error}"));
                }
            }
            self.loaded = batch.next();
        }
        self.loaded == self.tenure.load_end() && self.tenure.serve()
    }

    fn hold(&mut self, outcome: Outcome<C>, wrote: Option<(u64, i64)>) {
        for (ticket, reply) in outcome.replies {
            if let Some(to) = self.owed.remove(&ticket) {
                self.tenure.hold(Held::Reply(to, reply, wrote));
            }
        }
        for deed in outcome.deeds {
            match planted(Planted::DeedsBeforeCommit) {
                true => self.deeds.push(deed),
                false => self.tenure.hold(Held::Deed(deed)),
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

    /// A coordinator begins and ends with the leadership; what may leave leaves.
    pub fn coordinate(&mut self, io: &mut Io) {
        match self.partition {
            OFFSETS => self.host::<groups::Coordinator>(io),
            TRANSACTIONS => self.host::<transactions::Coordinator>(io),
            _ => {}
        }
    }

    /// Periodic work.
    pub fn tick_coordinators(&mut self, io: &mut Io) {
        match self.partition {
            OFFSETS => self.tick_coordinator::<groups::Coordinator>(io),
            TRANSACTIONS => self.tick_coordinator::<transactions::Coordinator>(io),
            _ => {}
        }
    }

    fn host<C: Core>(&mut self, io: &mut Io) {
        let led = self.led();
        let over = C::seat(self).take_if(|hosted| !hosted.tenure.belongs_to(led));
        if let Some(over) = over {
            self.end_coordinator(*over, io);
        }
        if let Some(epoch) = led.filter(|_| C::seat(self).is_none()) {
            let end = self.disk.ends.appended;
            io.note(|| {
                format!("broker {}: coordinates {} in epoch {epoch}, loads up to {end}", self.broker, self.partition)
            });
            if end > self.disk.ends.start {
                io.checker.mark(Mark::CoordinatorLoads);
            }
            if self.marks.high_watermark() < end {
                io.checker.mark(Mark::LoadsUncommitted);
            }
            let hosted = Hosted::begin(epoch, &self.disk);
            *C::seat(self) = Some(Box::new(hosted));
        }
        self.release::<C>(io);
    }

    fn end_coordinator<C: Core>(&self, mut over: Hosted<C>, io: &mut Io) {
        io.note(|| format!("broker {}: coordinates {} no longer", self.broker, self.partition));
        let asker = |held: Held<C>| match held {
            Held::Reply(to, ..) => Some(to),
            Held::Deed(_) => None,
        };
        let held: Vec<Asker> = over.tenure.end().filter_map(asker).collect();
        if !held.is_empty() {
            io.checker.mark(Mark::NotCoordinator);
        }
        for (client, number) in held.into_iter().chain(over.owed.into_values()) {
            self.refuse::<C>(client, number, ErrorCode::NotCoordinator, io);
        }
    }

    pub fn refuse<C: Core>(&self, client: Address, number: u64, code: ErrorCode, io: &mut Io) {
        io.send(self.me(), client, C::PARTITION, number, C::payload(Err(code), LeaderEpoch(-1)));
    }

    fn release<C: Core>(&mut self, io: &mut Io) {
        let (hw, me) = (self.marks.high_watermark(), self.me());
        let Some(hosted) = C::seat(self) else { return };
        let epoch = hosted.tenure.epoch();
        while let Some(held) = hosted.tenure.release(hw) {
            let ((client, number), reply, wrote) = match held {
                Held::Reply(to, reply, wrote) => (to, reply, wrote),
                Held::Deed(deed) => {
                    hosted.deeds.push(deed);
                    continue;
                }
            };
            if let Some((id, base)) = wrote {
                io.checker.acked(C::PARTITION, epoch.0, id, base);
                C::acked(id, &mut io.checker);
            }
            C::shown(epoch, &reply, &mut io.checker);
            io.send(me, client, C::PARTITION, number, C::payload(Ok(reply), epoch));
        }
    }

    /// A request for the coordinator.
    pub fn ask<C: Core>(&mut self, from: Address, number: u64, request: C::Request, io: &mut Io) {
        let admitted = match C::seat(self) {
            Some(hosted) => hosted.tenure.admit(),
            None => Err(ErrorCode::NotCoordinator),
        };
        if let Err(code) = admitted {
            return self.refuse::<C>(from, number, code, io);
        }
        let Some(hosted) = C::seat(self) else { return };
        let ticket = Ticket(hosted.tickets);
        hosted.tickets += 1;
        hosted.owed.insert(ticket, (from, number));
        self.run::<C>(Call::Handle(ticket, request), io);
        self.moved(io);
    }

    /// Tells the coordinator that serves of something outside.
    pub fn tell<C: Core>(&mut self, news: &C::Deed, io: &mut Io) {
        if C::seat(self).as_ref().is_some_and(|hosted| hosted.tenure.stage() == Stage::Serving) {
            self.run::<C>(Call::Tell(news), io);
            self.moved(io);
        }
    }

    fn run<C: Core>(&mut self, call: Call<C>, io: &mut Io) {
        let Some(hosted) = C::seat(self) else { return };
        let outcome = hosted.core.call(call, io);
        let wrote = self.write_own(&outcome, io);
        if let Some(hosted) = C::seat(self) {
            hosted.hold(outcome, wrote);
        }
    }

    /// Appends the records of one call as one batch.
    fn write_own<C: Core>(&mut self, outcome: &Outcome<C>, io: &mut Io) -> Option<(u64, i64)> {
        let hosted = C::seat(self).as_ref().filter(|_| !outcome.records.is_empty())?;
        let epoch = hosted.tenure.epoch().0;
        let (base, id) = (self.disk.ends.appended, OWN_BATCH | io.number());
        let count = outcome.records.len() as i32;
        let producer = outcome.producer.map(|(id, epoch)| (id, epoch, -1));
        let batch =
            self.append(Batch { base, count, epoch, id, producer, in_txn: producer.is_some(), ..Batch::default() }, io);
        io.note(|| format!("broker {}: the coordinator writes {:?}", self.broker, outcome.records));
        C::written(&batch, &outcome.records, &mut io.checker);
        io.own_records.insert(id, outcome.records.iter().map(C::encode).collect());
        if let Some(hosted) = C::seat(self) {
            hosted.tenure.appended(batch.next());
        }
        Some((id, base))
    }

    fn tick_coordinator<C: Core>(&mut self, io: &mut Io) {
        let Some(mut hosted) = C::seat(self).take() else { return };
        let (stage, now) = (hosted.tenure.stage(), io.now.unsigned_abs());
        let call = match stage {
            Stage::Loading => hosted.load(&self.disk, io).then_some(Call::Loaded),
            Stage::Serving => hosted.core.next_deadline().is_some_and(|at| at <= now).then_some(Call::Tick),
            Stage::Ended => None,
        };
        *C::seat(self) = Some(hosted);
        if let Some(call) = call {
            self.run::<C>(call, io);
        }
    }
}
