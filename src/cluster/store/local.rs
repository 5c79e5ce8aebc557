//! The store of a broker that is alone: the files of
//! [`metadata_store`](crate::cluster::metadata_store).
//!
//! All nodes are in memory. A topic, its partitions, their data directories and its options are one
//! file, so a commit changes what lasts of one topic at most, and leaves it whole: each assignment
//! has a state. The options that are set while the broker runs are two more files, client quotas
//! are another, and the first producer id not given away is another, in two copies. Registrations,
//! incarnations and who is controller are in memory only: there is nobody else, and the lock on the
//! data directory proves it. What one broker never has, such as an ELR or a reassignment, has no
//! place in the files and is refused, not dropped.
//!
//! Versions and revisions are those of this process. Nothing that was read in an earlier
//! one is used as a condition.
//!
//! [`Store::poll`] does the work, and blocks. Commits that were begun before it, and touch nothing
//! that another of them writes, are carried out together: their files are written side by side and
//! the directory is synced once. Each has its own outcome.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;

use uuid::Uuid;

use super::commit::{Check, Commit, Node, Outcome, Write};
use super::engine::{Changes, CommitId, Event, Revision, Session, Snapshot, Store};
use super::nodes::{Changed, Nodes, Refused, SessionId};
use super::records::{Key, PartitionState, Record};
use crate::cluster::group_store::StoredGroups;
use crate::cluster::image::{MetadataImage, TopicImage};
use crate::cluster::metadata_store::{LocalStore, OptionsOf};
use crate::cluster::quota_store::StoredQuotas;
use crate::cluster::quotas::QuotaEntity;
use crate::cluster::topic_nodes::{nodes_of, topic_of};
use crate::config::{DynamicOptions, TopicConfig};
use crate::model::BrokerId;

/// The client of a store that has but one.
#[derive(Debug)]
pub struct LocalEngine {
    files: LocalStore,
    defaults: TopicConfig,
    nodes: Nodes,
    /// Topics whose files are damaged, and why: their names stay taken.
    withheld: BTreeMap<String, String>,
    revision: Revision,
    session: Option<SessionId>,
    sessions: u64,
    /// As of the last event polled.
    told: Session,
    requests: VecDeque<Request>,
    events: VecDeque<Event>,
    last_commit: u64,
    /// Topics whose file is kept as it was before they grew.
    grown: Vec<TopicImage>,
}

#[derive(Debug)]
enum Request {
    Load,
    Commit(CommitId, Commit),
    Close,
    Renew,
}

/// A commit that holds, and its change of the files.
struct Planned {
    id: CommitId,
    revision: Revision,
    changed: Vec<Changed>,
    file: Option<FileChange>,
    outcome: Outcome,
}

/// Change of one file.
enum FileChange {
    Put(Box<TopicImage>),
    /// The topic gets more partitions.
    Grow(Box<TopicImage>),
    Remove(Arc<str>, Uuid),
    ProducerIds(i64),
    Options(OptionsOf, BTreeMap<String, String>),
    Quotas(StoredQuotas),
    Groups(StoredGroups),
}

/// The node that stands for all those in the same file.
fn unit(key: &Key) -> Key {
    if let Key::Quota(_) = key {
        return Key::Quota(QuotaEntity::FIRST);
    }
    if let Key::Group(_) = key {
        return Key::Group("".into());
    }
    key.topic().map_or_else(|| key.clone(), |name| Key::Topic(name.clone()))
}

fn is_in_memory(key: &Key) -> bool {
    matches!(key, Key::Controller | Key::ControllerEpoch | Key::Broker(_) | Key::Incarnation(_))
}

fn write_key(write: &Write) -> &Key {
    match write {
        Write::Create(key, ..) | Write::Set(key, ..) | Write::Delete(key, _) => key,
    }
}

fn check_key(check: &Check) -> &Key {
    match check {
        Check::Exists(key) | Check::Absent(key) | Check::Version(key, _) => key,
    }
}

impl LocalEngine {
    /// The engine over the files that `image` was loaded from, as the start has left it. `run`:
    /// number of the broker's run, by which revisions rise over restarts.
    pub fn new(files: LocalStore, image: &MetadataImage, defaults: TopicConfig, run: u64) -> LocalEngine {
        let mut engine = LocalEngine {
            files,
            defaults,
            nodes: Nodes::default(),
            withheld: image.all_withheld().clone(),
            revision: Revision(i64::try_from(run).unwrap_or(0) << 32),
            session: Some(SessionId(1)),
            sessions: 1,
            told: Session::Suspended,
            requests: VecDeque::new(),
            events: VecDeque::from([Event::Session(Session::Connected)]),
            last_commit: 0,
            grown: Vec::new(),
        };
        engine.restore(vec![(Key::ClusterId, Record::ClusterId(image.cluster_id.clone()))]);
        if let Some(next) = engine.files.stored_producer_ids() {
            engine.restore(vec![(Key::ProducerIds, Record::ProducerIds(next))]);
        }
        if let Some(settings) = &image.settings {
            let DynamicOptions { cluster, broker } = settings.dynamic.clone();
            let own = Key::BrokerConfig(BrokerId(settings.broker_id));
            let nodes = [(Key::DefaultConfig, cluster), (own, broker)];
            let set = nodes.into_iter().filter(|(_, options)| !options.is_empty());
            engine.restore(set.map(|(key, options)| (key, Record::Config(options))).collect());
        }
        match engine.files.stored_quotas() {
            Ok(quotas) => {
                let nodes = quotas.into_iter().map(|(entity, options)| (Key::Quota(entity), Record::Config(options)));
                engine.restore(nodes.collect());
            }
            // The start has read it.
            Err(error) => tracing::error!("client quotas are as if there were none: {error}"),
        }
        match engine.files.stored_groups() {
            Ok(groups) => {
                let node = |(group, options): (String, _)| (Key::Group(group.into()), Record::Config(options));
                engine.restore(groups.into_iter().map(node).collect());
            }
            Err(error) => tracing::error!("options of groups are as if there were none: {error}"),
        }
        image.topics().for_each(|topic| engine.restore(nodes_of(topic)));
        engine
    }

    fn restore(&mut self, nodes: Vec<(Key, Record)>) {
        self.revision.0 += 1;
        let created = self.revision.0;
        let node = |(key, record)| (key, Some((Node { record, version: 0, created }, None)));
        self.nodes.apply(&nodes.into_iter().map(node).collect::<Vec<Changed>>());
    }

    /// Works off what was begun. Blocks.
    fn work(&mut self) {
        while let Some(request) = self.requests.pop_front() {
            match request {
                Request::Load if self.session.is_none() => {}
                Request::Load => {
                    let snapshot = Snapshot { revision: self.revision, nodes: self.nodes.all().clone() };
                    self.events.push_back(Event::Loaded(snapshot));
                }
                Request::Commit(id, commit) => self.carry_out(id, commit),
                Request::Close => self.end_session(),
                Request::Renew => {
                    self.sessions += 1;
                    self.session = Some(SessionId(self.sessions));
                    self.events.push_back(Event::Session(Session::Connected));
                }
            }
        }
    }

    fn end_session(&mut self) {
        let Some(session) = self.session.take() else { return };
        let gone = self.nodes.plan_end(session);
        if !gone.is_empty() {
            self.revision.0 += 1;
            self.nodes.apply(&gone);
        }
        self.events.push_back(Event::Session(Session::Expired));
    }

    /// Carries out a commit together with those behind it that it has nothing to do with.
    fn carry_out(&mut self, id: CommitId, commit: Commit) {
        let Some(session) = self.session else {
            self.events.push_back(Event::Settled { id, outcome: Outcome::Unknown, revision: None });
            return;
        };
        let (mut written, mut group) = (BTreeSet::new(), Vec::new());
        let mut next = Some((id, commit));
        while let Some((id, commit)) = next.take() {
            let revision = Revision(self.revision.0 + 1 + group.len() as i64);
            written.extend(commit.writes.iter().map(|write| unit(write_key(write))));
            group.push(self.plan(id, &commit, revision, session));
            if let Some(Request::Commit(_, commit)) = self.requests.front()
                && is_apart(commit, &written)
                && let Some(Request::Commit(id, commit)) = self.requests.pop_front()
            {
                next = Some((id, commit));
            }
        }
        self.write(&mut group);
        self.settle(group);
    }

    fn plan(&self, id: CommitId, commit: &Commit, revision: Revision, session: SessionId) -> Planned {
        let refused = |outcome| Planned { id, revision, changed: Vec::new(), file: None, outcome };
        let changed = match self.nodes.plan(commit, revision, session) {
            Ok(changed) => changed,
            Err(Refused::Conflict(key)) => return refused(Outcome::Conflict(key)),
            Err(Refused::Kind(key)) => return refused(Outcome::Failed(format!("{key:?} holds other records"))),
        };
        match self.file_change(&changed) {
            Ok(file) => Planned { id, revision, changed, file, outcome: Outcome::Done },
            Err(why) => refused(Outcome::Failed(why)),
        }
    }

    /// The change of a file that `changed` asks for, or why there can be none.
    fn file_change(&self, changed: &[Changed]) -> Result<Option<FileChange>, String> {
        let lasting = changed.iter().filter(|(key, _)| !is_in_memory(key));
        let units: BTreeSet<Key> = lasting.clone().map(|(key, _)| unit(key)).collect();
        let Some(only) = units.first() else { return Ok(None) };
        if units.len() > 1 {
            return Err(format!("a broker without ZooKeeper changes one of {units:?} at a time"));
        }
        if let Some((key, _)) = lasting.clone().find(|(_, node)| node.as_ref().is_some_and(|(_, of)| of.is_some())) {
            return Err(format!("{key:?} outlives a session"));
        }
        match only {
            Key::Topic(name) => self.topic_change(name, changed).map(Some),
            Key::ProducerIds => match changed.iter().find(|(key, _)| key == only) {
                Some((_, Some((Node { record: Record::ProducerIds(next), .. }, _)))) => {
                    Ok(Some(FileChange::ProducerIds(*next)))
                }
                _ => Err("the count of producer ids goes on for ever".to_owned()),
            },
            Key::DefaultConfig => self.options_change(OptionsOf::AllBrokers, only, changed).map(Some),
            Key::BrokerConfig(_) => self.options_change(OptionsOf::Broker, only, changed).map(Some),
            Key::Quota(_) => Ok(Some(FileChange::Quotas(self.changed_quotas(changed)))),
            Key::Group(_) => Ok(Some(FileChange::Groups(self.changed_groups(changed)))),
            other => Err(format!("a broker without ZooKeeper keeps no {other:?}")),
        }
    }

    fn options_change(&self, of: OptionsOf, key: &Key, changed: &[Changed]) -> Result<FileChange, String> {
        let node = changed.iter().find(|(changed, _)| changed == key).and_then(|(_, node)| node.as_ref());
        match node.map(|(node, _)| &node.record) {
            Some(Record::Config(options)) => Ok(FileChange::Options(of, options.clone())),
            _ => Ok(FileChange::Options(of, BTreeMap::new())),
        }
    }

    /// All quotas as the change leaves them.
    fn changed_quotas(&self, changed: &[Changed]) -> StoredQuotas {
        let before = self.nodes.all().range(Key::Quota(QuotaEntity::FIRST)..).map(|(key, node)| (key, Some(node)));
        let after = changed.iter().map(|(key, node)| (key, node.as_ref().map(|(node, _)| node)));
        let mut quotas = StoredQuotas::new();
        for (key, node) in before.chain(after) {
            match (key, node.map(|node| &node.record)) {
                (Key::Quota(entity), Some(Record::Config(options))) if !options.is_empty() => {
                    quotas.insert(entity.clone(), options.clone());
                }
                (Key::Quota(entity), _) => drop(quotas.remove(entity)),
                _ => {}
            }
        }
        quotas
    }

    /// Options of all groups as the change leaves them.
    fn changed_groups(&self, changed: &[Changed]) -> StoredGroups {
        let before = self.nodes.all().range(Key::Group("".into())..).map(|(key, node)| (key, Some(node)));
        let after = changed.iter().map(|(key, node)| (key, node.as_ref().map(|(node, _)| node)));
        let mut groups = StoredGroups::new();
        for (key, node) in before.chain(after) {
            match (key, node.map(|node| &node.record)) {
                (Key::Group(group), Some(Record::Config(options))) if !options.is_empty() => {
                    groups.insert(group.to_string(), options.clone());
                }
                (Key::Group(group), _) => drop(groups.remove(&**group)),
                _ => {}
            }
        }
        groups
    }

    fn topic_change(&self, name: &Arc<str>, changed: &[Changed]) -> Result<FileChange, String> {
        if let Some(why) = self.withheld.get(&**name) {
            return Err(why.clone());
        }
        let changes: BTreeMap<&Key, Option<&Node>> =
            changed.iter().map(|(key, node)| (key, node.as_ref().map(|(node, _)| node))).collect();
        let before = |key: &Key| self.nodes.all().get(key);
        let after = |key: &Key| changes.get(key).copied().unwrap_or_else(|| before(key));
        let key = Key::Topic(name.clone());
        let (then, now) = (topic_of(name, before, &self.defaults)?, topic_of(name, after, &self.defaults)?);
        self.check_whole(&key, now.as_ref(), &changes)?;
        match (then, now) {
            (Some(then), None) => Ok(FileChange::Remove(name.clone(), then.id)),
            (Some(then), Some(now)) if then.id != now.id => {
                Err(format!("topic {name} is deleted by one commit and made anew by another"))
            }
            (Some(then), Some(now)) if then.partitions.len() < now.partitions.len() => {
                Ok(FileChange::Grow(Box::new(now)))
            }
            (_, Some(now)) => Ok(FileChange::Put(Box::new(now))),
            (None, None) => Err(format!("there is no topic {name}")),
        }
    }

    /// A file can hold the topic, with nothing left over.
    fn check_whole(
        &self,
        key: &Key,
        topic: Option<&TopicImage>,
        changes: &BTreeMap<&Key, Option<&Node>>,
    ) -> Result<(), String> {
        let Key::Topic(name) = key else { return Ok(()) };
        let partitions = topic.map_or(0, |topic| topic.partitions.len());
        if topic.is_some_and(|topic| topic.partitions.is_empty()) {
            return Err(format!("topic {name} would have no partitions"));
        }
        let after = |key: &Key| match changes.get(key) {
            Some(change) => change.is_some(),
            None => self.nodes.all().contains_key(key),
        };
        let is_beyond = |key: &Key| match key {
            Key::Partition(_, index) | Key::Home(_, index) => {
                usize::try_from(*index).map_or(true, |index| index >= partitions)
            }
            Key::TopicConfig(_) => topic.is_none(),
            _ => false,
        };
        let kinds = key.children().into_iter().flatten();
        let known = kinds.flat_map(|range| self.nodes.all().range(range)).map(|(key, _)| key);
        let config = Key::TopicConfig(name.clone());
        if let Some(key) =
            known.chain(changes.keys().copied()).chain([&config]).find(|key| is_beyond(key) && after(key))
        {
            return Err(format!("{key:?} belongs to no partition of its topic"));
        }
        let odd = changes.values().flatten().find_map(|node| match &node.record {
            Record::Partition(state) if !is_plain(state) => Some("an ELR, a last leader or a controller's epoch"),
            Record::Topic(topic)
                if topic.assignments.iter().any(|a| !a.adding.is_empty() || !a.removing.is_empty()) =>
            {
                Some("a reassignment under way")
            }
            _ => None,
        });
        odd.map_or(Ok(()), |what| Err(format!("a broker without ZooKeeper keeps no {what} (topic {name})")))
    }

    /// Makes the files what the group says; what fails gets its outcome.
    fn write(&mut self, group: &mut [Planned]) {
        let (mut put, mut grow, mut remove) = (Vec::new(), Vec::new(), Vec::new());
        for (at, planned) in group.iter().enumerate() {
            match &planned.file {
                Some(FileChange::Put(topic)) => put.push((at, &**topic)),
                Some(FileChange::Grow(topic)) => grow.push((at, &**topic)),
                Some(FileChange::Remove(name, id)) => remove.push((at, (&**name, *id))),
                Some(
                    FileChange::ProducerIds(_)
                    | FileChange::Options(..)
                    | FileChange::Quotas(_)
                    | FileChange::Groups(_),
                )
                | None => {}
            }
        }
        let mut outcomes: Vec<(usize, io::Result<()>)> = Vec::new();
        let settles = !put.is_empty() || !grow.is_empty() || !remove.is_empty();
        let (back, put): (Vec<_>, Vec<_>) = put.into_iter().partition(|(_, topic)| self.is_kept(topic));
        if settles && !self.grown.is_empty() {
            // The files of those that stay grown are no longer needed.
            let topics: Vec<&TopicImage> = back.iter().map(|(_, topic)| *topic).collect();
            let grown = std::mem::take(&mut self.grown);
            let taken = self.files.settle_grown(&grown.iter().collect::<Vec<_>>(), &topics);
            outcomes.extend(back.iter().map(|(at, _)| *at).zip(taken));
        }
        let topics: Vec<&TopicImage> = put.iter().map(|(_, topic)| *topic).collect();
        outcomes.extend(put.iter().map(|(at, _)| *at).zip(self.files.put_topics(&topics)));
        let names: Vec<(&str, Uuid)> = remove.iter().map(|(_, topic)| *topic).collect();
        outcomes.extend(remove.iter().map(|(at, _)| *at).zip(self.files.remove_topics(&names)));
        let topics: Vec<&TopicImage> = grow.iter().map(|(_, topic)| *topic).collect();
        outcomes.extend(grow.iter().map(|(at, _)| *at).zip(self.files.grow_topics(&topics)));
        let before =
            |topic: &&TopicImage| topic_of(&topic.name, |key| self.nodes.all().get(key), &self.defaults).ok()?;
        self.grown.extend(topics.iter().filter_map(before));
        for (at, planned) in group.iter().enumerate() {
            match &planned.file {
                Some(FileChange::ProducerIds(next)) => outcomes.push((at, self.files.put_producer_ids(*next))),
                Some(FileChange::Options(of, options)) => outcomes.push((at, self.files.put_options(*of, options))),
                Some(FileChange::Quotas(quotas)) => outcomes.push((at, self.files.put_quotas(quotas))),
                Some(FileChange::Groups(groups)) => outcomes.push((at, self.files.put_groups(groups))),
                _ => {}
            }
        }
        for (at, outcome) in outcomes {
            if let (Some(planned), Err(error)) = (group.get_mut(at), outcome) {
                planned.outcome = Outcome::Failed(format!("writing metadata: {error}"));
            }
        }
    }

    /// The topic is as it was before it grew, and its file of then is still there.
    fn is_kept(&self, topic: &TopicImage) -> bool {
        let same = |kept: &&TopicImage| kept.id == topic.id;
        let kept = self.grown.iter().find(same);
        kept.is_some_and(|kept| kept.partitions == topic.partitions && kept.overrides == topic.overrides)
    }

    /// Carries the commits over into the nodes and tells their outcomes.
    fn settle(&mut self, group: Vec<Planned>) {
        let (mut nodes, mut settled) = (BTreeMap::new(), Vec::new());
        for planned in group {
            if planned.outcome == Outcome::Done && !planned.changed.is_empty() {
                self.nodes.apply(&planned.changed);
                self.revision = planned.revision;
                nodes.extend(planned.changed.into_iter().map(|(key, node)| (key, node.map(|(node, _)| node))));
            }
            let revision = (!matches!(planned.outcome, Outcome::Failed(_))).then_some(self.revision);
            settled.push(Event::Settled { id: planned.id, outcome: planned.outcome, revision });
        }
        if !nodes.is_empty() {
            let changes = Changes { revision: self.revision, nodes: nodes.into_iter().collect() };
            self.events.push_back(Event::Changed(changes));
        }
        self.events.extend(settled);
    }
}

/// The commit neither writes nor asks for what `written` names.
fn is_apart(commit: &Commit, written: &BTreeSet<Key>) -> bool {
    let keys = commit.checks.iter().map(check_key).chain(commit.writes.iter().map(write_key));
    keys.map(unit).all(|unit| !written.contains(&unit))
}

/// A topic's file has room for it.
fn is_plain(state: &PartitionState) -> bool {
    let is_alone =
        state.elr.is_empty() && state.elr_min == 0 && state.last_leader.is_none() && state.emptied.is_empty();
    is_alone && state.controller_epoch == 0 && state.leader_broker_epoch.is_none()
}

impl Store for LocalEngine {
    fn session(&self) -> Session {
        self.told
    }

    fn load(&mut self) {
        self.requests.push_back(Request::Load);
    }

    fn commit(&mut self, commit: Commit) -> CommitId {
        self.last_commit += 1;
        let id = CommitId(self.last_commit);
        self.requests.push_back(Request::Commit(id, commit));
        id
    }

    fn poll(&mut self) -> Option<Event> {
        if self.events.is_empty() {
            self.work();
        }
        let event = self.events.pop_front()?;
        if let Event::Session(session) = &event {
            self.told = *session;
        }
        Some(event)
    }

    fn renew(&mut self) {
        if self.told == Session::Expired {
            self.told = Session::Suspended;
            self.requests.push_back(Request::Renew);
        }
    }

    fn close(&mut self) {
        self.requests.push_back(Request::Close);
    }
}

#[cfg(test)]
mod tests;
