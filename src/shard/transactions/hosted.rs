//! Transaction coordinators as they are hosted.

use std::rc::Rc;

use crate::cluster::controller::TRANSACTION_TOPIC;
use crate::config::TransactionConfig;
use crate::coordinator::wire::BadRecord;
use crate::model::ErrorCode;
use crate::runtime::clock;
use crate::shard::coordinators::{Asked, Core, Hosted, Outcome};
use crate::transactions::api::{Description, Reply, Request};
use crate::transactions::{Coordinator, Deed, Effects, Env};

impl Core for Coordinator {
    type Reply = Reply;
    type Deed = Deed;
    const TOPIC: &'static str = TRANSACTION_TOPIC;
    const KEEPS: &'static str = "transactions";

    fn replay(&mut self, _: Option<i64>, key: &[u8], value: Option<&[u8]>) -> Result<(), BadRecord> {
        Coordinator::replay(self, key, value)
    }

    fn replay_marker(&mut self, _: i64, _: bool) {}

    fn next_deadline(&self) -> Option<u64> {
        Coordinator::next_deadline(self)
    }

    fn bytes(&self) -> usize {
        Coordinator::bytes(self)
    }
}

/// Inputs of a call besides the coordinator.
pub struct World<'a> {
    pub config: &'a TransactionConfig,
    /// Memory for all coordinators of the shard: taken, and the bound.
    pub memory: (usize, usize),
}

impl World<'_> {
    fn call(&self, core: &mut Coordinator, call: impl FnOnce(&mut Coordinator, &mut Env)) -> Outcome<Coordinator> {
        let (used, limit) = self.memory;
        let mut env = Env {
            wall_ms: clock::wall_ms(),
            mono_ms: clock::mono_ms(),
            config: self.config,
            room: limit.saturating_sub(used),
            // Ids stay for days: the rest is for groups, and for the partitions
            // of ids that are there.
            room_for_new: (limit / 2).saturating_sub(used),
            out: Effects::default(),
        };
        call(core, &mut env);
        let Effects { records, replies, deeds } = env.out;
        let records = records.iter().map(|record| record.encode()).collect();
        Outcome { records, producer: None, replies, deeds }
    }
}

impl Hosted<Coordinator> {
    /// All of the log has been replayed.
    pub fn begin(self: &Rc<Self>, world: &World<'_>) {
        if self.serve() {
            self.act(world, |core, env| core.loaded(env));
        }
    }

    pub fn request(self: &Rc<Self>, request: Request, world: &World<'_>) -> Asked<Reply> {
        self.ask(|core, ticket| world.call(core, |core, env| core.handle(ticket, request, env)))
    }

    pub fn list(&self) -> Result<Vec<Description>, ErrorCode> {
        self.admit()?;
        self.look(Coordinator::list).ok_or(ErrorCode::NotCoordinator)
    }

    /// Does what is due.
    pub fn tick(self: &Rc<Self>, world: &World<'_>) {
        if self.is_due() {
            self.act(world, |core, env| core.tick(env));
        }
    }

    /// Tells a coordinator that serves of something outside.
    pub fn tell(self: &Rc<Self>, world: &World<'_>, tell: impl FnOnce(&mut Coordinator, &mut Env)) {
        if self.admit().is_ok() {
            self.act(world, tell);
        }
    }

    fn act(self: &Rc<Self>, world: &World<'_>, act: impl FnOnce(&mut Coordinator, &mut Env)) {
        self.run(|core| world.call(core, act));
    }
}
