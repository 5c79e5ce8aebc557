//! One simulated broker: a session with the metadata store, its copy of the metadata, and a role
//! for each partition. Everything that decides is the broker's own code; this only carries it out.

use std::rc::Rc;

use super::checker::Mark;
use super::disk::{Acknowledge, Crash};
use super::endings::Ending;
use super::identity::Identity;
use super::net::{Address, Io, Payload};
use super::place::{TRANSACTIONS, id_of, number_of, partition_at, place_of, topic_of};
use super::replica::{Replica, Role};
use super::setup::{LAG_MS, SESSION_MS};
use crate::cluster::node::{Node, Purpose, Settled};
use crate::cluster::rules::{Found, Kept, Terms, Versioned};
use crate::cluster::store::{Assignment, ClientId, Model, ModelClient, Outcome, PartitionState, Session, Store};
use crate::model::{BrokerId, LeaderEpoch};
use crate::partition::{Decision, PartitionView, ProducerPool, ReplicaView};

pub struct Broker {
    pub index: usize,
    pub identity: Identity,
    /// Counts the starts of its process.
    pub life: u32,
    pub running: bool,
    /// Its host runs, though its process may not.
    pub powered: bool,
    pub paused_until: i64,
    /// Connected to the metadata store, as the network is.
    pub linked: bool,
    /// The store is away, as far as the process knows, since then.
    away_since: Option<i64>,
    /// A clean stop under way: its deadline, and how long the broker is down then.
    pub stopping: Option<(i64, i64)>,
    pub replicas: Vec<Replica>,
    /// Setting of the next process.
    pub configured: Acknowledge,
    /// Markers that its transaction coordinator has written.
    pub endings: Vec<Ending>,
    /// Its part in the cluster.
    pub node: Node<ModelClient>,
}

impl Broker {
    pub fn new(index: usize, partitions: usize, acknowledge: Acknowledge, model: &Model) -> Broker {
        let pool = ProducerPool::new(usize::MAX);
        let identity = Identity { index, boot: 1, directory: 1, clean: false };
        Broker {
            index,
            identity,
            life: 0,
            running: false,
            powered: true,
            paused_until: 0,
            linked: false,
            away_since: None,
            stopping: None,
            replicas: (0..partitions).map(|at| Replica::new(index, at, acknowledge, &pool)).collect(),
            configured: acknowledge,
            endings: Vec::new(),
            node: identity.node(model, 0),
        }
    }

    pub fn id(&self) -> BrokerId {
        BrokerId(self.index as i32)
    }

    /// Its end of the metadata store.
    pub fn client(&self) -> ClientId {
        self.node.store().id()
    }

    /// The process ends.
    pub fn end(&mut self, crash: Crash, clean: bool, io: &mut Io) -> Vec<usize> {
        self.running = false;
        self.linked = false;
        self.stopping = None;
        self.endings.clear();
        match crash {
            Crash::Kill => {}
            Crash::Power => (self.identity.boot, self.powered) = (self.identity.boot + 1, false),
            Crash::Wipe => self.identity.directory += 1,
        }
        self.identity.clean = clean && self.node.may_mark_clean();
        let mut damaged = Vec::new();
        for (at, replica) in self.replicas.iter_mut().enumerate() {
            if replica.crash(crash, clean, &mut io.rng) {
                damaged.push(at);
            }
        }
        damaged
    }

    /// A new process on the same data.
    pub fn start(&mut self, model: &Model, now: i64) {
        self.life += 1;
        (self.running, self.powered) = (true, true);
        self.paused_until = 0;
        self.away_since = None;
        self.node = self.identity.node(model, now);
        self.node.note_found(self.found());
        let pool: Rc<ProducerPool> = ProducerPool::new(usize::MAX);
        for replica in &mut self.replicas {
            replica.disk.configure(self.configured);
            replica.open(&pool);
        }
    }

    /// Its replicas, as a start finds them.
    fn found(&self) -> Found {
        let kept = |replica: &Replica| if replica.disk.ends.appended > 0 { Kept::Some } else { Kept::None };
        let replicas = self.replicas.iter().map(|replica| (id_of(replica.partition), kept(replica))).collect();
        Found { replicas, ..Found::default() }
    }

    // ---- the metadata store

    /// Takes all news of the store in.
    pub fn poll(&mut self, io: &mut Io) {
        let news = self.node.poll(io.now);
        for _ in news.sessions.iter().filter(|session| **session == Session::Expired) {
            io.checker.mark(Mark::SessionExpired);
            io.note(|| format!("broker {}: session expired", self.index));
            self.linked = false;
        }
        for settled in &news.settled {
            self.settled(settled, io);
        }
        if let Some(part) = news.part {
            let epoch = self.node.broker_epoch();
            io.note(|| format!("broker {}: active {part}, broker epoch {epoch:?}", self.index));
        }
        if news.any {
            self.apply(io);
        }
    }

    fn settled(&mut self, settled: &Settled, io: &mut Io) {
        io.note(|| format!("broker {}: {:?} is {:?}", self.index, settled.purpose, settled.outcome));
        if settled.outcome == Outcome::Unknown {
            io.checker.mark(Mark::UnknownCommit);
        }
        let Purpose::Isr { partition, based_on } = &settled.purpose else { return };
        let replica = self.replicas.get_mut(partition_at(&partition.0, partition.1));
        if let Some(replica) = replica
            && let Role::Leader(leader) = &mut replica.role
        {
            let deposed = leader.is_deposed();
            leader.decided(*based_on, settled.decision(), io.now);
            if deposed && !leader.is_deposed() {
                io.checker.mark(Mark::Confirmed);
            }
            replica.moved(io);
        }
    }

    // ---- roles

    fn assignment(&self, partition: usize) -> Option<&Assignment> {
        self.node.view().topic(topic_of(partition))?.assignment(number_of(partition))
    }

    fn state(&self, partition: usize) -> Option<&Versioned<PartitionState>> {
        self.node.view().state(topic_of(partition), number_of(partition))
    }

    fn terms(&self, partition: usize) -> Option<Terms<'_>> {
        let view = self.node.view();
        let topic = view.topic(topic_of(partition))?;
        Some(view.terms(topic, topic.assignment(number_of(partition))?))
    }

    fn partition_view(&self, partition: usize) -> Option<PartitionView> {
        let (state, terms, view) = (self.state(partition)?, self.terms(partition)?, self.node.view());
        let replica = |broker: &BrokerId| ReplicaView {
            broker: *broker,
            broker_epoch: view.registrations().get(broker).map(|registration| registration.broker_epoch),
            active: view.is_active(*broker),
            incarnation: view.incarnation(*broker).map_or(-1, |incarnation| incarnation.version),
        };
        Some(PartitionView {
            version: state.version,
            leader_epoch: state.value.leader_epoch,
            isr: state.value.isr.clone(),
            elr_min: state.value.elr_min,
            replicas: terms.replicas.iter().map(replica).collect(),
            min_isr: terms.min_isr,
        })
    }

    /// Gives every partition the role that the metadata says.
    fn apply(&mut self, io: &mut Io) {
        for partition in 0..self.replicas.len() {
            self.apply_one(partition, io);
        }
    }

    fn apply_one(&mut self, partition: usize, io: &mut Io) {
        let (me, life) = (self.id(), self.life);
        let active = self.node.is_active();
        let follows = active || self.node.follower_epoch().is_some();
        let assigned = self.assignment(partition).map(|assignment| assignment.replicas.contains(&me));
        let led_by = self.state(partition).map(|state| (state.value.leader, state.value.leader_epoch));
        let view = self.partition_view(partition);
        let replica = &mut self.replicas[partition];
        // Before its own registration is in it, the metadata may be older than
        // what an earlier life saw.
        if assigned == Some(false) && active && replica.disk.ends.appended > 0 {
            io.note(|| format!("broker {}: partition {partition} is no longer here", me.0));
            replica.leave(io);
            replica.remove();
            return;
        }
        match (led_by, view) {
            (Some((Some(leader), _)), Some(view)) if active && assigned == Some(true) && leader == me => {
                replica.lead(me, life, view, LAG_MS, io);
            }
            (Some((Some(leader), epoch)), _) if follows && assigned == Some(true) && leader != me => {
                if !active {
                    io.checker.mark(Mark::FollowsApart);
                }
                replica.follow(leader, epoch, io);
            }
            _ => replica.leave(io),
        }
    }

    // ---- duties

    /// Duties in the cluster: a registration, the controller's work, a clean stop.
    pub fn act(&mut self, io: &mut Io) {
        if self.stopping.is_some() {
            self.node.begin_drain();
        }
        let acted = self.node.act(io.now);
        if acted != Default::default() {
            io.note(|| format!("broker {}: {acted:?}", self.index));
        }
    }

    /// Periodic work: roles move on, proposals leave.
    pub fn tick(&mut self, io: &mut Io) {
        let broker_epoch = self.fetches_by();
        let away = self.node.store().session() != Session::Connected;
        self.away_since = away.then(|| self.away_since.unwrap_or(io.now));
        let apart = self.away_since.is_some_and(|since| io.now - since >= SESSION_MS);
        for partition in 0..self.replicas.len() {
            self.replicas[partition].set_apart(apart.then_some(SESSION_MS));
            self.replicas[partition].tick(broker_epoch, io);
            self.propose(partition, io);
            self.resign(partition, io);
        }
        self.end_transactions(io);
    }

    fn fetches_by(&self) -> i64 {
        self.node.follower_epoch().unwrap_or(-1)
    }

    /// After anything has happened to a partition: what may leave at once leaves.
    pub fn next(&mut self, partition: usize, io: &mut Io) {
        let broker_epoch = self.fetches_by();
        self.replicas[partition].try_fetch(broker_epoch, io);
        self.propose(partition, io);
        if partition == TRANSACTIONS {
            self.end_transactions(io);
        }
        self.verify(partition, io);
    }

    /// Asks the transaction coordinator about batches that wait for its word.
    fn verify(&mut self, partition: usize, io: &mut Io) {
        let coordinator = self.leader_of(TRANSACTIONS);
        for (number, request) in self.replicas[partition].questions(io) {
            if let Some((leader, _)) = coordinator {
                let (from, to) = (Address::Broker(self.index), Address::Broker(leader.0 as usize));
                io.send(from, to, TRANSACTIONS, number, Payload::Transact(Box::new(request.into())));
            }
        }
    }

    /// Hands the leader's proposal to the store.
    pub fn propose(&mut self, partition: usize, io: &mut Io) {
        let replica = &mut self.replicas[partition];
        let Role::Leader(leader) = &mut replica.role else { return };
        let Some(proposal) = leader.propose(&replica.marks, io.now) else { return };
        io.note(|| format!("broker {}: partition {partition} proposes {proposal:?}", self.index));
        if self.node.propose(&place_of(partition), &proposal).is_none() {
            // Nothing changes: it has been overtaken.
            leader.decided(proposal.based_on, Decision::Refused, io.now);
        }
    }

    /// A follower whose disk has failed gives up its places.
    fn resign(&mut self, partition: usize, io: &mut Io) {
        let replica = &self.replicas[partition];
        let resigns = replica.disk.failed && !matches!(replica.role, Role::Leader(_));
        if resigns && self.node.resign(&place_of(partition)).is_some() {
            io.checker.mark(Mark::Resignation);
        }
    }

    /// Leader and epoch of a partition, for clients.
    pub fn leader_of(&self, partition: usize) -> Option<(BrokerId, LeaderEpoch)> {
        let state = &self.state(partition)?.value;
        Some((state.leader?, state.leader_epoch))
    }
}
