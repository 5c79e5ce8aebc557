//! One simulated broker: a session with the metadata store, its copy of the metadata, and a role for each
//! partition. Everything that decides is the broker's own code; this only carries it out.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::checker::Mark;
use super::disk::{Acknowledge, Crash};
use super::net::Io;
use super::place::{number_of, place_of, topic_of};
use super::replica::{Replica, Role};
use super::setup::LAG_MS;
use crate::cluster::rules::{self, Options, Terms, Timers, TopicDefaults, Versioned, View};
use crate::cluster::store::{
    Assignment, Commit, CommitId, Event, Mirror, Model, ModelClient, Outcome, PartitionState, Phase, Session, Store,
};
use crate::model::planted::{Planted, planted};
use crate::model::{BrokerId, LeaderEpoch};
use crate::partition::{Change, Decision, PartitionView, ProducerPool, Proposal, ReplicaView};

/// Purpose of a commit under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    Register,
    Claim,
    Control,
    /// Of a partition's leader, based on this version.
    Isr {
        partition: usize,
        based_on: i32,
    },
    Resign {
        partition: usize,
    },
    Drain,
}

pub struct Broker {
    pub index: usize,
    /// Counts the starts of its process.
    pub life: u32,
    pub running: bool,
    pub paused_until: i64,
    /// Connected to the metadata store, as the network is.
    pub linked: bool,
    /// Boots of its host, and data directories that it has had.
    pub boot: u32,
    pub directory: u32,
    /// The last process closed its logs. Of one that was never let in this says nothing of what was lost
    /// before it: then it is true only if it was true before.
    pub clean: bool,
    let_in: bool,
    /// A clean stop under way: its deadline, and how long the broker is down then.
    pub stopping: Option<(i64, i64)>,
    pub replicas: Vec<Replica>,
    pub client: ModelClient,
    pub mirror: Mirror,
    /// The mirror's nodes, as the rules see them.
    pub view: View,
    pub timers: Timers,
    pub options: Options,
    /// Commits for single steps, by the one that has them together.
    pub singles: BTreeMap<CommitId, Vec<Commit>>,
    pub commits: BTreeMap<CommitId, Purpose>,
    /// Registrations of all its lives.
    pub registrations: u16,
    /// Number of the registration that it has asked for in its present session; 0: none yet. One that the
    /// metadata shows from before is not its own any more.
    pub asked: u16,
    /// The next one is not asked for before this.
    pub ask_at: i64,
    /// Broker epoch of the registration that is its own.
    pub registered: Option<i64>,
    was_active: bool,
    pub acknowledge: Acknowledge,
}

impl Broker {
    pub fn new(index: usize, partitions: usize, acknowledge: Acknowledge, model: &Model) -> Broker {
        let pool = ProducerPool::new(usize::MAX);
        Broker {
            index,
            life: 0,
            running: false,
            paused_until: 0,
            linked: false,
            boot: 1,
            directory: 1,
            clean: false,
            let_in: false,
            stopping: None,
            replicas: (0..partitions).map(|at| Replica::new(index, at, acknowledge, &pool)).collect(),
            client: model.client(),
            mirror: Mirror::default(),
            view: no_view(),
            timers: Timers::new(options(), 0),
            options: options(),
            singles: BTreeMap::new(),
            commits: BTreeMap::new(),
            registrations: 0,
            asked: 0,
            ask_at: 0,
            registered: None,
            was_active: false,
            acknowledge,
        }
    }

    pub fn id(&self) -> BrokerId {
        BrokerId(self.index as i32)
    }

    /// The process ends.
    pub fn end(&mut self, crash: Crash, clean: bool, io: &mut Io) -> Vec<usize> {
        self.running = false;
        self.linked = false;
        self.registered = None;
        self.was_active = false;
        self.stopping = None;
        match crash {
            Crash::Kill => {}
            Crash::Power => self.boot += 1,
            Crash::Wipe => self.directory += 1,
        }
        self.clean = clean && (self.let_in || self.clean);
        self.let_in = false;
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
        self.running = true;
        self.paused_until = 0;
        self.client = model.client();
        self.mirror = Mirror::default();
        self.view = no_view();
        self.timers = Timers::new(self.options, now);
        self.commits.clear();
        self.singles.clear();
        self.ask_at = 0;
        // A registration that stands is of an earlier life.
        self.asked = 0;
        let pool: Rc<ProducerPool> = ProducerPool::new(usize::MAX);
        for replica in &mut self.replicas {
            replica.open(&pool);
        }
    }

    // ---- the metadata store

    /// Takes all news of the store in.
    pub fn poll(&mut self, io: &mut Io) {
        let mut news = false;
        while let Some(event) = self.client.poll() {
            news = true;
            let keeps = planted(Planted::NoReloadAfterReconnect) && self.mirror.is_whole();
            match &event {
                Event::Session(Session::Connected) if !keeps => self.client.load(),
                Event::Session(Session::Expired) => {
                    io.checker.mark(Mark::SessionExpired);
                    io.note(|| format!("broker {}: session expired", self.index));
                    self.linked = false;
                    self.registered = None;
                    self.asked = 0;
                    self.commits.clear();
                    self.singles.clear();
                    self.clean = false;
                    self.client.renew();
                }
                Event::Settled { id, outcome, .. } => self.settled(*id, outcome, io),
                _ => {}
            }
            if !(keeps && matches!(event, Event::Session(_))) {
                let changed = self.mirror.take(&event);
                self.view.update(self.mirror.nodes(), &changed);
            }
        }
        if news {
            self.recognise(io);
            self.apply(io);
        }
    }

    /// Finds its own registration in the metadata.
    fn recognise(&mut self, io: &mut Io) {
        if self.client.session() == Session::Expired {
            return;
        }
        let own = self.view.registrations().get(&self.id()).filter(|own| {
            let port = own.record.endpoints.first().map(|endpoint| endpoint.port);
            self.asked > 0 && port == Some(self.asked)
        });
        self.registered = own.map(|own| own.broker_epoch);
        let active = self.is_active();
        if active && !self.was_active {
            // From here on it is this process that may lose records.
            self.clean = false;
            self.let_in = true;
            io.note(|| format!("broker {}: active, broker epoch {:?}", self.index, self.registered));
        }
        self.was_active = active;
    }

    pub fn commit(&mut self, commit: Commit, purpose: Purpose) -> CommitId {
        let id = self.client.commit(commit);
        self.commits.insert(id, purpose);
        id
    }

    fn settled(&mut self, id: CommitId, outcome: &Outcome, io: &mut Io) {
        let Some(purpose) = self.commits.remove(&id) else { return };
        io.note(|| format!("broker {}: {purpose:?} is {outcome:?}", self.index));
        self.separate(id, outcome);
        if *outcome == Outcome::Unknown {
            io.checker.mark(Mark::UnknownCommit);
        }
        let decision = match outcome {
            Outcome::Done => Decision::Committed,
            Outcome::Conflict(_) | Outcome::Failed(_) => Decision::Refused,
            Outcome::Unknown => Decision::Unknown,
        };
        if let Purpose::Isr { partition, based_on } = purpose
            && let Role::Leader(leader) = &mut self.replicas[partition].role
        {
            leader.decided(based_on, decision, io.now);
            self.replicas[partition].moved(io);
        }
    }

    pub fn is_waiting_for(&self, purpose: Purpose) -> bool {
        self.commits.values().any(|waits| *waits == purpose)
    }

    /// Takes part in the cluster, as far as it knows.
    pub fn is_active(&self) -> bool {
        if planted(Planted::OldEpochAfterRestart) {
            return self.mirror.revision().0 > 0 && self.client.session() != Session::Expired;
        }
        let phase = self.view.incarnation(self.id()).map(|incarnation| incarnation.value.phase);
        self.registered.is_some() && phase.is_some_and(|phase| phase != Phase::Joining)
    }

    // ---- roles

    fn assignment(&self, partition: usize) -> Option<&Assignment> {
        self.view.topic(topic_of(partition))?.assignment(number_of(partition))
    }

    fn state(&self, partition: usize) -> Option<&Versioned<PartitionState>> {
        self.view.state(topic_of(partition), number_of(partition))
    }

    fn terms(&self, partition: usize) -> Option<Terms<'_>> {
        let topic = self.view.topic(topic_of(partition))?;
        Some(self.view.terms(topic, topic.assignment(number_of(partition))?))
    }

    fn partition_view(&self, partition: usize) -> Option<PartitionView> {
        let (state, terms) = (self.state(partition)?, self.terms(partition)?);
        let replica = |broker: &BrokerId| ReplicaView {
            broker: *broker,
            broker_epoch: self.view.registrations().get(broker).map(|registration| registration.broker_epoch),
            active: self.view.is_active(*broker),
            incarnation: self.view.incarnation(*broker).map_or(-1, |incarnation| incarnation.version),
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
        let active = self.is_active();
        let assigned = self.assignment(partition).map(|assignment| assignment.replicas.contains(&me));
        let led_by = self.state(partition).map(|state| (state.value.leader, state.value.leader_epoch));
        let view = self.partition_view(partition);
        let replica = &mut self.replicas[partition];
        // Before its own registration is in it, the metadata may be older than what an earlier life saw.
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
            (Some((Some(leader), epoch)), _) if active && assigned == Some(true) => {
                replica.follow(leader, epoch, io);
            }
            _ => replica.leave(io),
        }
    }

    // ---- duties

    /// Periodic work: roles move on, proposals leave.
    pub fn tick(&mut self, io: &mut Io) {
        let broker_epoch = self.registered.unwrap_or(-1);
        for partition in 0..self.replicas.len() {
            self.replicas[partition].tick(broker_epoch, io);
            self.propose(partition, io);
            self.resign(partition, io);
        }
        self.drain(io);
    }

    /// After anything has happened to a partition: what may leave at once leaves.
    pub fn next(&mut self, partition: usize, io: &mut Io) {
        let broker_epoch = self.registered.unwrap_or(-1);
        self.replicas[partition].try_fetch(broker_epoch, io);
        self.propose(partition, io);
    }

    /// Hands the leader's proposal to the store.
    pub fn propose(&mut self, partition: usize, io: &mut Io) {
        let replica = &mut self.replicas[partition];
        let Role::Leader(leader) = &mut replica.role else { return };
        let Some(proposal) = leader.propose(&replica.marks, io.now) else { return };
        io.note(|| format!("broker {}: partition {partition} proposes {proposal:?}", self.index));
        let based_on = proposal.based_on;
        match self.proposed(partition, &proposal) {
            Some(commit) => {
                self.commit(commit, Purpose::Isr { partition, based_on });
            }
            // Nothing changes: it has been overtaken.
            None => {
                if let Role::Leader(leader) = &mut self.replicas[partition].role {
                    leader.decided(based_on, Decision::Refused, io.now);
                }
            }
        }
    }

    fn proposed(&self, partition: usize, proposal: &Proposal) -> Option<Commit> {
        let (state, terms) = (self.state(partition)?, self.terms(partition)?);
        if state.version != proposal.based_on {
            return None;
        }
        let mut checked: &[(BrokerId, i32)] = &[];
        let after = match &proposal.change {
            Change::Expand(joining) => {
                if !planted(Planted::ExpandWithoutIncarnation) {
                    checked = joining;
                }
                let brokers: Vec<BrokerId> = joining.iter().map(|(broker, _)| *broker).collect();
                rules::expand(&state.value, &terms, &brokers)?
            }
            Change::Shrink(leaving) => rules::shrink(&state.value, &terms, leaving)?,
            Change::Confirm => state.value.clone(),
            Change::Resign => rules::resign(&state.value, &terms, self.id(), |broker| self.view.is_active(broker))?,
        };
        rules::isr_commit(&self.view, self.id(), &place_of(partition), state.version, after, checked)
    }

    /// A follower whose disk has failed gives up its places.
    fn resign(&mut self, partition: usize, io: &mut Io) {
        let replica = &self.replicas[partition];
        let purpose = Purpose::Resign { partition };
        if !replica.disk.failed || matches!(replica.role, Role::Leader(_)) || self.is_waiting_for(purpose) {
            return;
        }
        if self.registered.is_none() {
            // The registration in the metadata is that of an earlier life.
            return;
        }
        let Some(based_on) = self.state(partition).map(|state| state.version) else { return };
        if let Some(commit) = self.proposed(partition, &Proposal { based_on, change: Change::Resign }) {
            io.checker.mark(Mark::Resignation);
            self.commit(commit, purpose);
        }
    }

    /// Leader and epoch of a partition, for clients.
    pub fn leader_of(&self, partition: usize) -> Option<(BrokerId, LeaderEpoch)> {
        let state = &self.state(partition)?.value;
        Some((state.leader?, state.leader_epoch))
    }
}

fn no_view() -> View {
    View::of(&BTreeMap::new(), TopicDefaults { min_insync_replicas: 1, unclean_election: false })
}

/// Preferred leaders are looked after often, so that it matters.
fn options() -> Options {
    Options { imbalance_interval_ms: Some(7_000), ..Options::default() }
}
