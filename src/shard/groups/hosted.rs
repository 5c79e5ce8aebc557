//! Group coordinators as they are hosted.

use std::convert::Infallible;
use std::rc::Rc;
use std::sync::Arc;

use uuid::Uuid;

use crate::cluster::controller::OFFSETS_TOPIC;
use crate::cluster::{MetadataImage, TopicImage};
use crate::config::GroupConfig;
use crate::coordinator::Stage;
use crate::coordinator::wire::BadRecord;
use crate::groups::api::{CommitRequest, ListedGroup, Reply, Request};
use crate::groups::{Coordinator, Effects, Env, Room, SurveyedGroup, TopicFacts, Topics};
use crate::model::ErrorCode;
use crate::partition::Verified;
use crate::runtime::clock;
use crate::shard::coordinators::{Asked, Core, Hosted, Outcome};

impl Core for Coordinator {
    type Reply = Reply;
    type Deed = Infallible;
    const TOPIC: &'static str = OFFSETS_TOPIC;
    const KEEPS: &'static str = "groups";

    fn replay(&mut self, producer_id: Option<i64>, key: &[u8], value: Option<&[u8]>) -> Result<(), BadRecord> {
        Coordinator::replay_of(self, producer_id, key, value)
    }

    fn replay_marker(&mut self, producer_id: i64, commit: bool) {
        self.end_transaction(producer_id, commit);
    }

    fn next_deadline(&self) -> Option<u64> {
        Coordinator::next_deadline(self)
    }

    fn bytes(&self) -> usize {
        Coordinator::bytes(self)
    }
}

/// Inputs of a call besides the coordinator.
pub struct World<'a> {
    pub config: &'a GroupConfig,
    pub image: &'a MetadataImage,
    pub topics_version: u64,
    /// Memory for all groups of the shard: taken, and the bound.
    pub memory: (usize, usize),
}

impl World<'_> {
    fn call(&self, core: &mut Coordinator, call: impl FnOnce(&mut Coordinator, &mut Env)) -> Outcome<Coordinator> {
        let (used, limit) = self.memory;
        let mut env = Env {
            wall_ms: clock::wall_ms(),
            mono_ms: clock::mono_ms(),
            config: self.config,
            own: &self.image.groups,
            room: Room::of(limit, used),
            topics: &ImageTopics { image: self.image, version: self.topics_version },
            new_id: &mut Uuid::new_v4,
            out: Effects::default(),
        };
        call(core, &mut env);
        let Effects { records, producer, replies } = env.out;
        let records = records.iter().map(|record| record.encode()).collect();
        Outcome { records, producer, replies, deeds: Vec::new() }
    }
}

impl Hosted<Coordinator> {
    /// All of the log has been replayed.
    pub fn begin(self: &Rc<Self>, world: &World<'_>) {
        if self.serve() {
            let removed = self.removed.take();
            self.run(|core| {
                world.call(core, |core, env| {
                    core.loaded(env);
                    core.topics_changed(&removed, env);
                })
            });
        }
    }

    pub fn request(self: &Rc<Self>, request: Request, world: &World<'_>) -> Asked<Reply> {
        self.ask(|core, ticket| world.call(core, |core, env| core.handle(ticket, request, env)))
    }

    /// A commit in a transaction. `verified`: what its coordinator has said of it.
    pub fn commit(self: &Rc<Self>, commit: CommitRequest, verified: Verified, world: &World<'_>) -> Asked<Reply> {
        // A commit that would not be appended must not be decided.
        if let Some((id, epoch)) = commit.producer {
            self.replica.check_own(id, epoch, verified).map_err(told)?;
        }
        self.request(commit.into(), world)
    }

    /// The verification that a commit in a transaction needs.
    pub fn begin_commit(&self, producer_id: i64, producer_epoch: i16) -> Result<Verified, ErrorCode> {
        self.admit()?;
        self.replica.begin_own(producer_id, producer_epoch, clock::wall_ms()).map_err(told)
    }

    /// Its groups; none while it is loading.
    pub fn survey(&self) -> Vec<SurveyedGroup> {
        self.look(Coordinator::survey).unwrap_or_default()
    }

    pub fn list(&self) -> Result<Vec<ListedGroup>, ErrorCode> {
        self.admit()?;
        self.look(Coordinator::list).ok_or(ErrorCode::NotCoordinator)
    }

    /// Does what is due.
    pub fn tick(self: &Rc<Self>, world: &World<'_>) {
        if self.is_due() {
            self.run(|core| world.call(core, |core, env| core.tick(env)));
        }
    }

    /// Topics were made, removed (these) or grown.
    pub fn topics_changed(self: &Rc<Self>, removed: &[Arc<str>], world: &World<'_>) {
        match self.stage() {
            Stage::Loading => self.removed.borrow_mut().extend_from_slice(removed),
            Stage::Serving => self.run(|core| world.call(core, |core, env| core.topics_changed(removed, env))),
            Stage::Ended => {}
        }
    }
}

/// The client's error for a commit that its partition refuses.
fn told(code: ErrorCode) -> ErrorCode {
    match code {
        ErrorCode::InvalidProducerEpoch | ErrorCode::InvalidTxnState => code,
        _ => ErrorCode::CoordinatorNotAvailable,
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
