//! One coordinator over its partition, and all those of a shard.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use crate::cluster::{MetadataImage, TopicImage};
use crate::config::GroupConfig;
use crate::groups::{
    Coordinator, Effects, Env, Reply, Request, Room, Stage, SurveyedGroup, Tenure, Ticket, TopicFacts, Topics,
};
use crate::model::{ErrorCode, PartitionId, records};
use crate::partition::{AckWait, Replica, Term};
use crate::runtime::sync::{OneshotSender, oneshot};
use crate::runtime::{clock, spawn_local};
use crate::shard::groups::ListedGroup;
use crate::shard::groups::deadlines::Deadlines;

/// Records of one call go into batches of about so many bytes: most calls into one.
const BATCH_BYTES: usize = 256 << 10;

/// The coordinators of a shard, by their partition.
#[derive(Default)]
pub struct Coordinators {
    by_partition: RefCell<HashMap<PartitionId, Rc<Hosted>>>,
    /// Counts the images this shard has had.
    pub topics_version: Cell<u64>,
    pub deadlines: Rc<Deadlines>,
    pub memory: Rc<GroupMemory>,
}

/// Memory that the groups of a shard may take, and take.
#[derive(Debug, Default)]
pub struct GroupMemory {
    limit: usize,
    used: Cell<usize>,
}

impl GroupMemory {
    /// Bytes taken, and the bound.
    pub fn bytes(&self) -> (usize, usize) {
        (self.used.get(), self.limit)
    }

    fn room(&self) -> Room {
        Room::of(self.limit, self.used.get())
    }

    /// One coordinator's use changes.
    fn replace(&self, before: usize, after: usize) {
        self.used.set(self.used.get() + after - before);
    }
}

impl Coordinators {
    /// `memory_bytes`: this shard's share of `corelane.group.memory.bytes`.
    pub fn new(memory_bytes: usize) -> Coordinators {
        let memory = Rc::new(GroupMemory { limit: memory_bytes, ..GroupMemory::default() });
        Coordinators { memory, ..Coordinators::default() }
    }

    /// A coordinator over a partition of this shard; it is not served until it is inserted.
    pub fn host(&self, replica: Rc<Replica>) -> Rc<Hosted> {
        Hosted::new(replica, self.deadlines.clone(), self.memory.clone())
    }

    pub fn get(&self, partition: PartitionId) -> Option<Rc<Hosted>> {
        self.by_partition.borrow().get(&partition).cloned()
    }

    pub fn insert(&self, partition: PartitionId, hosted: Rc<Hosted>) {
        self.by_partition.borrow_mut().insert(partition, hosted);
    }

    pub fn remove(&self, partition: PartitionId) -> Option<Rc<Hosted>> {
        self.by_partition.borrow_mut().remove(&partition)
    }

    pub fn all(&self) -> Vec<Rc<Hosted>> {
        self.by_partition.borrow().values().cloned().collect()
    }
}

/// What a call needs besides the coordinator.
pub struct World<'a> {
    pub config: &'a GroupConfig,
    pub image: &'a MetadataImage,
    pub topics_version: u64,
}

/// A reply and the way to whoever waits for it; dropped, it says that this is not the coordinator.
type Held = (OneshotSender<Reply>, Reply);

/// A coordinator over its partition.
pub struct Hosted {
    pub replica: Rc<Replica>,
    core: RefCell<Coordinator>,
    /// Those of all coordinators of the shard.
    deadlines: Rc<Deadlines>,
    memory: Rc<GroupMemory>,
    /// Bytes that `core` is charged with in `memory`.
    charged: Cell<usize>,
    /// The leadership that it belongs to.
    term: Term,
    /// Its stage, and the replies that wait until everything before them is acknowledged.
    tenure: RefCell<Tenure<Held>>,
    next_ticket: Cell<u64>,
    /// Topics that were removed while it was loading.
    removed: RefCell<Vec<Arc<str>>>,
    /// Whose reply the core still owes.
    owed: RefCell<HashMap<Ticket, OneshotSender<Reply>>>,
    releasing: Cell<bool>,
}

impl Hosted {
    fn new(replica: Rc<Replica>, deadlines: Rc<Deadlines>, memory: Rc<GroupMemory>) -> Rc<Hosted> {
        Rc::new(Hosted {
            term: replica.term(),
            tenure: RefCell::new(Tenure::begin(replica.leader_epoch(), replica.log().next_offset())),
            replica,
            core: RefCell::default(),
            deadlines,
            memory,
            charged: Cell::new(0),
            next_ticket: Cell::new(0),
            removed: RefCell::default(),
            owed: RefCell::default(),
            releasing: Cell::new(false),
        })
    }

    pub fn stage(&self) -> Stage {
        self.tenure.borrow().stage()
    }

    /// The leadership that it belongs to goes on.
    pub fn is_in_office(&self) -> bool {
        self.replica.is_alone() || self.tenure.borrow().belongs_to(self.replica.led_epoch())
    }

    /// Every record before this is to be replayed.
    pub fn load_end(&self) -> i64 {
        self.tenure.borrow().load_end()
    }

    /// A record of the log, in order, while loading.
    pub fn replay(&self, key: &[u8], value: Option<&[u8]>) -> Result<(), crate::groups::record::BadRecord> {
        self.core.borrow_mut().replay(key, value)
    }

    /// All of the log has been replayed.
    pub fn begin(self: &Rc<Self>, world: &World<'_>) {
        if self.tenure.borrow_mut().serve() {
            let removed = self.removed.take();
            self.run(world, |core, env| {
                core.loaded(env);
                core.topics_changed(&removed, env);
            });
        }
    }

    /// Resolves to the reply, once everything that it rests on is written. Dropping the future forgoes the reply, not the work.
    pub fn ask(
        self: &Rc<Self>,
        request: Request,
        world: &World<'_>,
    ) -> impl Future<Output = Result<Reply, ErrorCode>> + use<> {
        let admitted = self.tenure.borrow().admit();
        let asked = admitted.map(|()| {
            let ticket = Ticket(self.next_ticket.get());
            self.next_ticket.set(ticket.0 + 1);
            let (sender, receiver) = oneshot();
            self.owed.borrow_mut().insert(ticket, sender);
            self.run(world, |core, env| core.handle(ticket, request, env));
            receiver
        });
        async move { asked?.recv().await.ok_or(ErrorCode::NotCoordinator) }
    }

    /// Its groups; none while it is loading.
    pub fn survey(&self) -> Vec<SurveyedGroup> {
        if self.stage() == Stage::Serving { self.core.borrow().survey() } else { Vec::new() }
    }

    pub fn list(&self) -> Result<Vec<ListedGroup>, ErrorCode> {
        self.tenure.borrow().admit().map(|()| self.core.borrow().list())
    }

    /// Does what is due.
    pub fn tick(self: &Rc<Self>, world: &World<'_>) {
        let due = self.core.borrow().next_deadline().is_some_and(|at| at <= clock::mono_ms());
        if due && self.stage() == Stage::Serving {
            self.run(world, |core, env| core.tick(env));
        } else {
            self.note_deadline();
        }
    }

    /// Topics were made, removed (these) or grown.
    pub fn topics_changed(self: &Rc<Self>, removed: &[Arc<str>], world: &World<'_>) {
        match self.stage() {
            Stage::Loading => self.removed.borrow_mut().extend_from_slice(removed),
            Stage::Serving => self.run(world, |core, env| core.topics_changed(removed, env)),
            Stage::Ended => {}
        }
    }

    /// Takes the coordinator out of service; whoever waits is told that it is not the coordinator.
    pub fn end(&self) {
        drop(self.tenure.borrow_mut().end());
        self.owed.take();
        self.core.take();
        self.note_deadline();
        self.charge();
    }

    fn charge(&self) {
        let bytes = self.core.borrow().bytes();
        self.memory.replace(self.charged.replace(bytes), bytes);
    }

    fn note_deadline(&self) {
        let next = match self.stage() {
            Stage::Serving => self.core.borrow().next_deadline(),
            Stage::Loading | Stage::Ended => None,
        };
        self.deadlines.set(self.replica.id, next);
    }

    fn run(self: &Rc<Self>, world: &World<'_>, call: impl FnOnce(&mut Coordinator, &mut Env)) {
        let mut env = Env {
            wall_ms: clock::wall_ms(),
            mono_ms: clock::mono_ms(),
            config: world.config,
            room: self.memory.room(),
            topics: &ImageTopics { image: world.image, version: world.topics_version },
            new_id: &mut Uuid::new_v4,
            out: Effects::default(),
        };
        call(&mut self.core.borrow_mut(), &mut env);
        let (now_ms, effects) = (env.wall_ms, env.out);
        self.note_deadline();
        self.charge();
        self.carry_out(effects, now_ms);
    }

    fn carry_out(self: &Rc<Self>, effects: Effects, now_ms: i64) {
        if let Err(error) = self.append(&effects, now_ms) {
            if !self.is_in_office() {
                return self.end();
            }
            tracing::error!(
                partition = %self.replica.id.index, %error,
                "the group coordinator cannot write to its partition and ends: its groups are served again with the partition"
            );
            self.end();
            return;
        }
        for (ticket, reply) in effects.replies {
            if let Some(sender) = self.owed.borrow_mut().remove(&ticket) {
                self.tenure.borrow_mut().hold((sender, reply));
            }
        }
        self.release();
    }

    fn append(&self, effects: &Effects, now_ms: i64) -> Result<(), crate::partition::Rejected> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        for record in &effects.records {
            let (key, value) = record.encode();
            bytes += key.len() + value.as_ref().map_or(0, Vec::len);
            batch.push((key, value));
            if bytes >= BATCH_BYTES {
                self.append_batch(&batch, now_ms)?;
                batch.clear();
                bytes = 0;
            }
        }
        if batch.is_empty() { Ok(()) } else { self.append_batch(&batch, now_ms) }
    }

    fn append_batch(
        &self,
        batch: &[(Vec<u8>, Option<Vec<u8>>)],
        now_ms: i64,
    ) -> Result<(), crate::partition::Rejected> {
        let bytes = Bytes::from(records::build(batch, now_ms));
        let next_offset = self.replica.append_own(bytes, now_ms)?.next_offset;
        self.tenure.borrow_mut().appended(next_offset);
        Ok(())
    }

    /// Sends the replies whose time has come; a task sees to the others.
    fn release(self: &Rc<Self>) {
        self.send_acknowledged();
        if self.waits_for().is_none() || self.releasing.replace(true) {
            return;
        }
        let hosted = self.clone();
        spawn_local(async move {
            hosted.release_all().await;
            hosted.releasing.set(false);
        });
    }

    async fn release_all(&self) {
        loop {
            let Some(offset) = self.waits_for() else { return };
            let wait = Rc::new(AckWait::default());
            self.replica.expect_commit(offset, self.term, &wait);
            wait.settled().await;
            // What is committed is answered for, however few replicas are in sync by now.
            let committed = self.replica.high_watermark() >= offset;
            if !self.is_in_office() {
                return self.end();
            }
            if let Some(error) = self.replica.commit_outcome(offset, self.term).err().filter(|_| !committed) {
                tracing::error!(
                    partition = %self.replica.id.index, %error,
                    "what the group coordinator wrote is not on disk: it ends, and its groups are served again with the partition"
                );
                return self.end();
            }
            self.send_acknowledged();
        }
    }

    fn waits_for(&self) -> Option<i64> {
        self.tenure.borrow().waits_for()
    }

    fn send_acknowledged(&self) {
        let high_watermark = self.replica.high_watermark();
        let mut tenure = self.tenure.borrow_mut();
        while let Some((sender, reply)) = tenure.release(high_watermark) {
            sender.send(reply);
        }
    }
}

struct ImageTopics<'a> {
    image: &'a MetadataImage,
    version: u64,
}

fn facts(topic: &Arc<TopicImage>) -> TopicFacts {
    TopicFacts {
        name: topic.name.clone(),
        id: topic.id,
        partitions: i32::try_from(topic.partitions.len()).unwrap_or(i32::MAX),
    }
}

impl Topics for ImageTopics<'_> {
    fn by_name(&self, name: &str) -> Option<TopicFacts> {
        self.image.topic(name).map(facts)
    }

    fn by_id(&self, id: Uuid) -> Option<TopicFacts> {
        self.image.topic_by_id(id).map(facts)
    }

    fn all(&self) -> Vec<TopicFacts> {
        self.image.topics().map(facts).collect()
    }

    fn version(&self) -> u64 {
        self.version
    }
}
