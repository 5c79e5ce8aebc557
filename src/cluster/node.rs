//! A broker's part in the cluster: its copy of the metadata, its own registration, the controller's
//! duty where it has the office, and the commits that others of this broker ask for. Pure: events
//! of the store, requests and the time go in; commits go to the store, and news comes out.
//!
//! A registration counts as this broker's own once a commit of its present session that made it
//! is done and shown. One that the metadata shows from before is of an earlier life; it goes
//! with the next registration. So does one whose commit has an unknown outcome: whether it took
//! effect need not be known.

mod images;
mod office;
mod proposals;
mod suspects;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use uuid::Uuid;

use super::rules::{self, Found, Options, PartitionKey, RegisterError, RiskyElection, Start, TopicDefaults, View};
use super::store::{
    BrokerRecord, Commit, CommitId, Event, Key, Mirror, OfflineReplicas, Outcome, Phase, Record, Revision, Session,
    Store, Write,
};
use crate::model::BrokerId;
use crate::model::planted::{Planted, planted};
use crate::partition::Decision;
use office::Office;
use proposals::Proposed;
use suspects::Suspects;

pub use images::{Images, first_image};

/// Time between two tries to register.
const AGAIN_MS: i64 = 300;
/// Of the offline replicas in a registration, in bytes: ZooKeeper takes 1 MiB for a znode.
const OFFLINE_MAX_BYTES: usize = 256 << 10;
/// A partition there: its digits and the comma.
const OFFLINE_ENTRY_BYTES: usize = 8;

/// Identity and settings of a broker.
#[derive(Clone, Debug)]
pub struct Settings {
    pub me: BrokerId,
    /// The cluster that the data directories belong to; `None`: any.
    pub cluster_id: Option<String>,
    pub record: BrokerRecord,
    pub start: Start,
    pub options: Options,
    pub defaults: TopicDefaults,
}

/// Purpose of a commit under way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    Register,
    /// Says which records are lost, before it registers.
    Confess,
    /// Deletes a registration that counts for nothing.
    Withdraw,
    /// Says if it is short of room, if all its data directories are cordoned, and which of its
    /// replicas are offline.
    Tell,
    Claim,
    Control,
    Drain,
    /// Of a partition's leader, based on this version.
    Isr {
        partition: PartitionKey,
        based_on: i32,
    },
    /// Of a follower whose log has failed.
    Resign {
        partition: PartitionKey,
    },
    /// Of a broker whose process is dead.
    Evict,
    /// Of an admin request.
    Request,
}

/// Number of what was asked of a node; its end is told by it. Several may share a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// The end of what was asked of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    pub ticket: Ticket,
    pub purpose: Purpose,
    pub outcome: Outcome,
    /// Revision whose nodes show the outcome, where it is known.
    pub revision: Option<Revision>,
}

impl Settled {
    /// The outcome as a leader understands it.
    pub fn decision(&self) -> Decision {
        match self.outcome {
            Outcome::Done => Decision::Committed,
            Outcome::Conflict(_) | Outcome::Failed(_) => Decision::Refused,
            Outcome::Unknown => Decision::Unknown,
        }
    }
}

/// Outcome of the store's events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Nodes that are not as before.
    pub changed: BTreeSet<Key>,
    /// Changes of the session, in their order.
    pub sessions: Vec<Session>,
    pub settled: Vec<Settled>,
    /// The broker takes part from here on, or no longer.
    pub part: Option<bool>,
    /// There was an event.
    pub any: bool,
}

/// Steps that were begun, for the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acted {
    pub risky: Vec<RiskyElection>,
    pub refused: Option<RegisterError>,
    /// Partitions whose records this broker has lost, and that wait for another replica.
    pub emptied: Vec<PartitionKey>,
    pub registers: bool,
    pub claims: bool,
}

/// The broker's registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Own {
    None,
    /// Done; this revision shows it.
    Made(Revision),
    /// Shown, with this broker epoch.
    Shown(i64),
}

pub struct Node<S> {
    store: S,
    settings: Settings,
    /// Until the first registration.
    found: Option<Found>,
    mirror: Mirror,
    view: View,
    office: Office,
    suspects: Suspects,
    own: Own,
    /// Broker epoch of the last registration that was this process's own; `None`: it has had none.
    last_epoch: Option<i64>,
    ask_at_ms: i64,
    tickets: u64,
    /// On their way: a commit has one purpose, or the proposals of several partitions.
    commits: BTreeMap<CommitId, Vec<(Ticket, Purpose)>>,
    /// The steps of a commit that has several.
    singles: BTreeMap<CommitId, Vec<Commit>>,
    /// Wait for the next commit.
    proposed: Vec<Proposed>,
    /// This process has taken part.
    let_in: bool,
    was_active: bool,
    draining: bool,
    closing: bool,
}

impl<S: Store> Node<S> {
    pub fn new(store: S, settings: Settings, now_ms: i64) -> Node<S> {
        Node::with(store, Mirror::default(), settings, now_ms)
    }

    /// A node that goes on with what was read before.
    pub fn with(store: S, mirror: Mirror, settings: Settings, now_ms: i64) -> Node<S> {
        let view = View::of(mirror.nodes(), settings.defaults);
        let office = Office::new(settings.options, now_ms);
        Node {
            store,
            settings,
            found: None,
            mirror,
            view,
            office,
            suspects: Suspects::default(),
            own: Own::None,
            last_epoch: None,
            ask_at_ms: 0,
            tickets: 0,
            commits: BTreeMap::new(),
            singles: BTreeMap::new(),
            proposed: Vec::new(),
            let_in: false,
            was_active: false,
            draining: false,
            closing: false,
        }
    }

    pub fn me(&self) -> BrokerId {
        self.settings.me
    }

    pub fn store(&self) -> &S {
        &self.store
    }

    pub fn mirror(&self) -> &Mirror {
        &self.mirror
    }

    /// The mirror's nodes, as the rules see them.
    pub fn view(&self) -> &View {
        &self.view
    }

    /// Broker epoch of the registration that is this broker's own.
    pub fn broker_epoch(&self) -> Option<i64> {
        match self.own {
            Own::Shown(epoch) => Some(epoch),
            Own::None | Own::Made(_) => None,
        }
    }

    /// Broker epoch to fetch by, also after the session has ended: a leader's own metadata says if
    /// it counts still. `None`: no replica may follow yet, since before the first own registration
    /// is in it the metadata may be older than what an earlier life saw.
    pub fn follower_epoch(&self) -> Option<i64> {
        self.last_epoch
    }

    /// Takes part in the cluster, as far as it knows.
    pub fn is_active(&self) -> bool {
        if planted(Planted::OldEpochAfterRestart) {
            return self.mirror.revision().0 > 0 && self.store.session() != Session::Expired;
        }
        let phase = self.view.incarnation(self.me()).map(|incarnation| incarnation.value.phase);
        self.broker_epoch().is_some() && phase.is_some_and(|phase| phase != Phase::Joining)
    }

    /// A clean stop now says that nothing was lost. It does not for a process that was never let
    /// in, unless the one before had stopped so too.
    pub fn may_mark_clean(&self) -> bool {
        self.let_in || self.settings.start.clean_stop
    }

    /// Logs were found damaged at this start: it is like one on another `boot`, which no
    /// registration was made on.
    pub fn distrust_start(&mut self, boot: Uuid) {
        (self.settings.start.clean_stop, self.settings.start.boot) = (false, boot);
    }

    /// Tells how this start has found its replicas.
    pub fn note_found(&mut self, found: Found) {
        self.found = Some(found);
    }

    pub fn is_waiting_for(&self, purpose: &Purpose) -> bool {
        self.purposes().any(|waits| waits == purpose)
    }

    /// Purposes of the commits under way.
    pub fn purposes(&self) -> impl Iterator<Item = &Purpose> {
        self.commits.values().flatten().map(|(_, purpose)| purpose)
    }

    // ---- events

    /// Takes all news of the store in.
    pub fn poll(&mut self, now_ms: i64) -> News {
        let mut news = News::default();
        while let Some(event) = self.store.poll() {
            news.any = true;
            let keeps = planted(Planted::NoReloadAfterReconnect) && self.mirror.is_whole();
            match &event {
                Event::Session(session) => {
                    news.sessions.push(*session);
                    match session {
                        Session::Connected if !keeps => self.store.load(),
                        Session::Expired => self.expired(&mut news),
                        Session::Connected | Session::Suspended => {}
                    }
                }
                Event::Settled { id, outcome, revision } => self.settled(*id, outcome, *revision, now_ms, &mut news),
                Event::Loaded(_) | Event::Changed(_) => {}
            }
            if !(keeps && matches!(event, Event::Session(_))) {
                let changed = self.mirror.take(&event);
                let dirty = self.view.update(self.mirror.nodes(), &changed);
                self.office.note(!changed.is_empty(), dirty);
                news.changed.extend(changed);
            }
        }
        if news.any {
            self.recognise(&mut news);
        }
        news
    }

    fn expired(&mut self, news: &mut News) {
        self.own = Own::None;
        // From here on it is this process that may lose records.
        self.settings.start.clean_stop = false;
        self.singles.clear();
        for (ticket, purpose) in std::mem::take(&mut self.commits).into_values().flatten() {
            news.settled.push(Settled { ticket, purpose, outcome: Outcome::Unknown, revision: None });
        }
        // They never left.
        let outcome = || Outcome::Failed("the session has ended".to_owned());
        for Proposed { ticket, purpose, .. } in std::mem::take(&mut self.proposed) {
            news.settled.push(Settled { ticket, purpose, outcome: outcome(), revision: None });
        }
        if !self.closing {
            self.store.renew();
        }
    }

    fn settled(&mut self, id: CommitId, outcome: &Outcome, revision: Option<Revision>, now_ms: i64, news: &mut News) {
        let Some(asked) = self.commits.remove(&id) else { return };
        let singles = self.singles.remove(&id).unwrap_or_default();
        let is_conflict = matches!(outcome, Outcome::Conflict(_));
        match asked.first().map(|(_, purpose)| purpose) {
            Some(Purpose::Register) => {
                let made = revision.filter(|_| *outcome == Outcome::Done);
                self.own = made.map_or(Own::None, Own::Made);
            }
            Some(Purpose::Control) => {
                self.office.settled(outcome, revision, now_ms);
                // Steps that shared a commit with one that met a conflict are
                // sent again, each for itself.
                if is_conflict {
                    singles.into_iter().for_each(|commit| _ = self.commit(commit, Purpose::Control));
                }
            }
            Some(Purpose::Isr { .. }) if is_conflict && !singles.is_empty() => {
                // So are proposals, and told of then.
                for (asked, commit) in asked.into_iter().zip(singles) {
                    self.send(commit, vec![asked]);
                }
                return;
            }
            _ => {}
        }
        for (ticket, purpose) in asked {
            news.settled.push(Settled { ticket, purpose, outcome: outcome.clone(), revision });
        }
    }

    /// Finds its own registration in the metadata.
    fn recognise(&mut self, news: &mut News) {
        if self.store.session() != Session::Expired {
            let shown = self.view.registrations().get(&self.me()).map(|own| own.broker_epoch);
            let directories = self.view.incarnation(self.me()).map(|incarnation| &incarnation.value.directories);
            let is_ours = directories == Some(&self.settings.start.directories);
            self.own = match (self.own, shown) {
                (Own::Made(revision), _) if self.mirror.revision() < revision => self.own,
                (Own::Made(_), Some(epoch)) if is_ours => Own::Shown(epoch),
                (Own::Shown(epoch), Some(shown)) if epoch == shown => self.own,
                (Own::Shown(_), None) if planted(Planted::EvictedGoesOn) => self.own,
                _ => Own::None,
            };
        }
        self.last_epoch = self.broker_epoch().or(self.last_epoch);
        if self.last_epoch.is_some() {
            self.found = None;
        }
        let active = self.is_active();
        if active && !self.was_active {
            self.settings.start.clean_stop = false;
            self.let_in = true;
        }
        if active != std::mem::replace(&mut self.was_active, active) {
            news.part = Some(active);
        }
    }

    // ---- duties

    /// Does what is due: registers, becomes controller, does the controller's
    /// work, gives leaderships away.
    pub fn act(&mut self, now_ms: i64) -> Acted {
        let mut acted = Acted::default();
        self.withdraw();
        self.tell_state();
        self.register(now_ms, &mut acted);
        self.control(now_ms, &mut acted);
        self.drain();
        self.send_proposals();
        acted
    }

    /// The time at which something is due even without news.
    pub fn due_ms(&self) -> Option<i64> {
        if !self.mirror.is_whole() {
            return None;
        }
        let registers = self.own == Own::None && !self.draining && !self.is_registering();
        let rules = self.holds_office() && !self.is_waiting_for(&Purpose::Control);
        let register = registers.then_some(self.ask_at_ms);
        let office = if rules { self.office.due_ms() } else { None };
        register.into_iter().chain(office).min()
    }

    fn is_registering(&self) -> bool {
        self.is_waiting_for(&Purpose::Register) || self.is_waiting_for(&Purpose::Confess)
    }

    fn register(&mut self, now_ms: i64, acted: &mut Acted) {
        let waits = self.own != Own::None || self.is_registering();
        if waits || !self.mirror.is_whole() || now_ms < self.ask_at_ms || self.draining {
            return;
        }
        self.ask_at_ms = now_ms.saturating_add(AGAIN_MS);
        if let Some(why) = self.other_cluster() {
            acted.refused = Some(why);
            return;
        }
        match rules::register(&self.view, self.me(), self.settings.record.clone(), &self.settings.start) {
            Ok(_) if self.confess(acted) => {}
            Ok(commit) => {
                acted.registers = true;
                self.commit(commit, Purpose::Register);
            }
            Err(why) => acted.refused = Some(why),
        }
    }

    /// Begins to say which records are lost; `false`: all is said.
    fn confess(&mut self, acted: &mut Acted) -> bool {
        let Some(found) = &self.found else { return false };
        let confession = rules::confess(&self.view, self.me(), &self.settings.start, found);
        acted.emptied = confession.waiting;
        let any = !confession.commits.is_empty();
        confession.commits.into_iter().for_each(|commit| _ = self.commit(commit, Purpose::Confess));
        any
    }

    /// The store has another cluster's metadata than this broker's, or none. By those it would have
    /// no replica, and would delete all that it holds.
    fn other_cluster(&self) -> Option<RegisterError> {
        let own = self.settings.cluster_id.as_ref()?;
        let found = match self.mirror.node(&Key::ClusterId).map(|node| &node.record) {
            Some(Record::ClusterId(found)) => Some(found),
            _ => None,
        };
        (found != Some(own)).then(|| RegisterError::OtherCluster { own: own.clone(), found: found.cloned() })
    }

    /// A registration without an incarnation is let in by nobody: somebody has deleted that. It
    /// goes, and another follows.
    fn withdraw(&mut self) {
        let Own::Shown(_) = self.own else { return };
        if self.view.incarnation(self.me()).is_some() || self.is_waiting_for(&Purpose::Withdraw) {
            return;
        }
        if let Some(own) = self.view.registrations().get(&self.me()) {
            let writes = vec![Write::Delete(Key::Broker(self.me()), Some(own.version))];
            self.commit(Commit { checks: Vec::new(), writes }, Purpose::Withdraw);
        }
    }

    /// Tells the others whether this broker refuses records for want of room.
    pub fn set_short_of_room(&mut self, short: bool) {
        self.settings.record.short_of_room = short;
    }

    /// Tells the others whether all data directories of this broker are cordoned.
    pub fn set_cordoned(&mut self, cordoned: bool) {
        self.settings.record.cordoned = cordoned;
    }

    /// Tells the others which replicas of this broker cannot be served. Of very many, those that
    /// the registration has room for.
    pub fn set_offline(&mut self, mut offline: OfflineReplicas) {
        let mut room = OFFLINE_MAX_BYTES;
        offline.retain(|topic, partitions| {
            room = room.saturating_sub(topic.len() + OFFLINE_ENTRY_BYTES * (1 + partitions.len()));
            room > 0
        });
        if *self.settings.record.offline != offline {
            self.settings.record.offline = Arc::new(offline);
        }
    }

    fn tell_state(&mut self) {
        let Some(own) = self.view.registrations().get(&self.me()).filter(|_| self.broker_epoch().is_some()) else {
            return;
        };
        let BrokerRecord { short_of_room, cordoned, ref offline, .. } = self.settings.record;
        let record = BrokerRecord { short_of_room, cordoned, offline: offline.clone(), ..own.record.clone() };
        if record == own.record || self.is_waiting_for(&Purpose::Tell) {
            return;
        }
        let writes = vec![Write::Set(Key::Broker(self.me()), Record::Broker(record), own.version)];
        self.commit(Commit { checks: Vec::new(), writes }, Purpose::Tell);
    }

    /// A clean stop begins: from here on the broker is to lead nothing.
    pub fn begin_drain(&mut self) {
        self.draining = true;
    }

    fn drain(&mut self) {
        if !self.draining || self.broker_epoch().is_none() || self.is_waiting_for(&Purpose::Drain) {
            return;
        }
        if let Some(commit) = rules::drain(&self.view, self.me()) {
            self.commit(commit, Purpose::Drain);
        }
    }

    /// A clean stop may end the process.
    pub fn may_stop(&self) -> bool {
        !self.view.is_active(self.me()) && rules::leads_nothing(&self.view, self.me())
    }

    /// Ends the session, and with it the registration.
    pub fn close(&mut self) {
        (self.draining, self.closing) = (true, true);
        self.store.close();
    }

    fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    fn send(&mut self, commit: Commit, asked: Vec<(Ticket, Purpose)>) -> CommitId {
        let id = self.store.commit(commit);
        self.commits.insert(id, asked);
        id
    }

    fn commit(&mut self, commit: Commit, purpose: Purpose) -> Ticket {
        let ticket = self.ticket();
        self.send(commit, vec![(ticket, purpose)]);
        ticket
    }

    /// Begins a commit of an admin request.
    pub fn request(&mut self, commit: Commit) -> Ticket {
        self.commit(commit, Purpose::Request)
    }
}

#[cfg(test)]
mod tests;
