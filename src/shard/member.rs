//! This broker as one of a cluster, on the controller's shard: its node is polled whenever the
//! store has news, and every image that comes of it is shown to all shards, one after the other.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::SyncSender;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use super::state::Shard;
use crate::cluster::node::{Images, News, Node, Settled, Ticket};
use crate::cluster::rules::Found;
use crate::cluster::store::zookeeper::ZooKeeper;
use crate::cluster::store::{Commit, Key, Outcome, Revision, Session};
use crate::cluster::{MetadataImage, Stray};
use crate::model::{BrokerId, ShardId};
use crate::runtime::bell::Bell;
use crate::runtime::process::StopFlag;
use crate::runtime::sync::{Notify, OneshotReceiver, OneshotSender, oneshot};
use crate::runtime::{clock, spawn_local};
use crate::storage::put_away;

/// Longest wait for the session to be closed at the end.
const CLOSING: Duration = Duration::from_secs(3);
/// Partitions named in one log line.
const NAMED: usize = 8;
/// Time between two log lines about a registration that is refused.
const REMINDER: Duration = Duration::from_secs(10);
/// Time that a registration of a broker that has died may outlast its session timeout:
/// its server notices late.
const OUTLASTING: Duration = Duration::from_secs(5);

/// Requests of the main thread to a member, and what it tells.
#[derive(Clone, Default)]
pub struct Leave {
    /// Leaderships are to move away.
    drain: Arc<AtomicBool>,
    may_mark_clean: Arc<AtomicBool>,
    /// The reason for which this broker is not let in.
    refusal: Arc<OnceLock<String>>,
    /// Set with the refusal.
    asked: StopFlag,
}

impl Leave {
    pub fn begin(&self, bell: &Bell) {
        self.drain.store(true, Ordering::Release);
        bell.ring();
    }

    /// A stop in good order says that nothing was lost.
    pub fn may_mark_clean(&self) -> bool {
        self.may_mark_clean.load(Ordering::Acquire)
    }

    /// Set when the broker has to stop for a [`refusal`](Self::refusal).
    pub fn asked(&self) -> &StopFlag {
        &self.asked
    }

    pub fn refusal(&self) -> Option<&str> {
        self.refusal.get().map(String::as_str)
    }

    fn refuse(&self, why: String) {
        let _ = self.refusal.set(why);
        self.asked.set();
    }
}

/// A membership as it begins, made on the main thread.
pub struct Joining {
    pub node: Node<ZooKeeper>,
    pub images: Images,
    /// Rung when the store has news.
    pub bell: Bell,
    /// The node's time begins here.
    pub begun: Instant,
    /// Directories of replicas that this broker has no longer, as of the start.
    pub strays: Vec<Stray>,
    /// Its replicas are noted once they are open.
    pub found: Found,
    pub leave: Leave,
    /// Told once when no leadership is left after [`Leave::begin`].
    pub left: SyncSender<()>,
}

/// The membership of a broker that runs.
pub(super) struct Member {
    pub node: RefCell<Node<ZooKeeper>>,
    pub(super) images: RefCell<Images>,
    bell: Bell,
    begun: Instant,
    strays: RefCell<Vec<Stray>>,
    leave: Leave,
    left: RefCell<Option<SyncSender<()>>>,
    /// Callers that wait for the end of their requests.
    waiting: RefCell<BTreeMap<Ticket, OneshotSender<Settled>>>,
    /// There may be a new image.
    has_news: Cell<bool>,
    news: Notify,
    /// Every shard shows what the store has at this revision.
    shown: Cell<Revision>,
    moved: Notify,
    /// The first refusal since this broker was registered, and the last one told.
    refused: Cell<Option<(Instant, Instant)>>,
    /// ZooKeeper is away since then.
    away: Cell<Option<Instant>>,
    /// Leaders know that it has been away for a session's time.
    apart: Cell<bool>,
    /// Shards that refuse records for want of room.
    short: RefCell<BTreeSet<ShardId>>,
    closing: Cell<bool>,
    ended: Cell<bool>,
}

impl Member {
    pub fn has_ended(&self) -> bool {
        self.ended.get()
    }

    /// A shard refuses records for want of room, or takes them again.
    pub fn note_room(&self, shard: ShardId, short: bool) {
        let any = {
            let mut shards = self.short.borrow_mut();
            let _ = if short { shards.insert(shard) } else { shards.remove(&shard) };
            !shards.is_empty()
        };
        self.node.borrow_mut().set_short_of_room(any);
        self.bell.ring();
    }

    /// Tells the other brokers which replicas are offline here.
    pub fn tell_offline(&self, image: &MetadataImage) {
        self.node.borrow_mut().set_offline(image.offline_replicas());
        self.bell.ring();
    }

    /// Resolves at the first change of the metadata after this call, or when the membership ends.
    pub fn moved(&self) -> impl Future<Output = ()> + '_ {
        self.moved.notified()
    }

    /// The other broker is to be watched for its end.
    pub fn watches(&self, broker: BrokerId) -> bool {
        !self.ended.get() && self.node.borrow().watches(broker).is_some()
    }

    pub fn now_ms(&self) -> i64 {
        i64::try_from(clock::now().saturating_duration_since(self.begun).as_millis()).unwrap_or(i64::MAX)
    }

    /// Asks the node for a commit; its end comes through the receiver.
    pub fn begin(
        &self,
        begin: impl FnOnce(&mut Node<ZooKeeper>) -> Option<Ticket>,
    ) -> Option<OneshotReceiver<Settled>> {
        let ticket = begin(&mut self.node.borrow_mut())?;
        let (sender, receiver) = oneshot();
        self.waiting.borrow_mut().insert(ticket, sender);
        // It may leave with others, once the node acts.
        self.bell.ring();
        Some(receiver)
    }

    /// Carries out a commit of a request.
    pub async fn commit(&self, commit: Commit) -> Settled {
        let unknown = || Settled {
            ticket: Ticket(0),
            purpose: crate::cluster::node::Purpose::Request,
            outcome: Outcome::Unknown,
            revision: None,
        };
        match self.begin(|node| Some(node.request(commit))) {
            Some(settled) => settled.recv().await.unwrap_or_else(unknown),
            None => unknown(),
        }
    }

    /// Waits until every shard shows what the store has at `revision`; `false`: not by then.
    pub async fn until_shown(&self, revision: Revision, deadline: Instant) -> bool {
        while self.shown.get() < revision {
            if self.ended.get() || clock::until(deadline, self.moved.notified()).await.is_none() {
                return self.shown.get() >= revision;
            }
        }
        true
    }

    /// Waits until every shard shows what this broker knows, and that is whole;
    /// `false`: not by then.
    pub async fn until_current(&self, deadline: Instant) -> bool {
        loop {
            let (whole, known) = {
                let node = self.node.borrow();
                (node.mirror().is_whole(), node.mirror().revision())
            };
            if whole && self.shown.get() >= known {
                return true;
            }
            if !self.until_moved(deadline).await {
                return false;
            }
        }
    }

    /// As [`until_current`](Self::until_current), and until this broker takes part in the cluster.
    pub async fn until_taking_part(&self, deadline: Instant) -> bool {
        while self.until_current(deadline).await {
            if self.node.borrow().is_active() {
                return true;
            }
            if !self.until_moved(deadline).await {
                break;
            }
        }
        false
    }

    /// Waits for the next image; `false`: none by then.
    pub async fn until_moved(&self, deadline: Instant) -> bool {
        !self.ended.get() && clock::until(deadline, self.moved.notified()).await.is_some()
    }
}

impl Shard {
    /// The membership, on the controller's shard of a broker that is one of a cluster.
    pub(super) fn member(&self) -> Option<Rc<Member>> {
        self.member.borrow().clone()
    }

    /// Registers, and takes part from then on. After all shards have opened what the start found.
    pub(super) fn join(self: &Rc<Self>, joining: Joining) {
        let Joining { node, images, bell, begun, strays, found: _, leave, left } = joining;
        let shown = Cell::new(node.mirror().revision());
        let member = Rc::new(Member {
            node: RefCell::new(node),
            images: RefCell::new(images),
            bell,
            begun,
            strays: RefCell::new(strays),
            leave,
            left: RefCell::new(Some(left)),
            waiting: RefCell::default(),
            has_news: Cell::new(true),
            news: Notify::new(),
            shown,
            moved: Notify::new(),
            refused: Cell::new(None),
            away: Cell::new(None),
            apart: Cell::new(false),
            short: RefCell::default(),
            closing: Cell::new(false),
            ended: Cell::new(false),
        });
        member.tell_offline(&self.image());
        if let Err(error) = member.bell.hang() {
            tracing::error!("news of ZooKeeper are looked for four times a second only: {error}");
        }
        *self.member.borrow_mut() = Some(member.clone());
        spawn_local(self.clone().keep_part(member.clone()));
        spawn_local(self.clone().keep_watch(member.clone()));
        spawn_local(self.clone().keep_images(member));
    }

    /// Takes the store's news, and does what is due.
    async fn keep_part(self: Rc<Self>, member: Rc<Member>) {
        while !member.ended.get() {
            self.poll_node(&member);
            self.tell_apart(&member).await;
            let tick = clock::now() + clock::TICK;
            let due = member.node.borrow().due_ms().and_then(|due| u64::try_from(due).ok());
            let due = due.and_then(|due| member.begun.checked_add(Duration::from_millis(due)));
            // A step that is due and cannot be done yet is looked at a little later.
            let soonest = clock::now() + Duration::from_millis(10);
            let at = due.map_or(tick, |due| due.clamp(soonest, tick));
            clock::until(at, member.bell.rung()).await;
        }
    }

    fn poll_node(self: &Rc<Self>, member: &Rc<Member>) {
        let now_ms = member.now_ms();
        let (news, acted, drained) = {
            let mut node = member.node.borrow_mut();
            if member.leave.drain.load(Ordering::Acquire) {
                node.begin_drain();
            }
            node.set_cordoned(self.all_cordoned());
            let news = node.poll(now_ms);
            let acted = node.act(now_ms);
            member.leave.may_mark_clean.store(node.may_mark_clean(), Ordering::Release);
            (news, acted, member.leave.drain.load(Ordering::Acquire) && node.may_stop())
        };
        for risky in &acted.risky {
            let ((topic, partition), leader) = (&risky.partition, risky.leader);
            tracing::error!(%topic, partition, %leader, election = ?risky.election, "a leader is elected that may lack committed records");
        }
        if !acted.emptied.is_empty() {
            let named: Vec<_> =
                acted.emptied.iter().take(NAMED).map(|(topic, index)| format!("{topic}-{index}")).collect();
            let more = if acted.emptied.len() > NAMED { ", ..." } else { "" };
            tracing::error!(
                "{} partition(s) ({}{more}) had their last records in data directories that this broker has no longer, and no other \
                 replica is in sync: they have no leader until those directories are back, or until \
                 kafka-leader-election.sh --election-type UNCLEAN has another replica lead with what it has. Start the brokers \
                 that have one before that",
                acted.emptied.len(),
                named.join(", ")
            );
        }
        match acted.refused {
            Some(why) => self.note_refused(member, &why.to_string()),
            None if member.node.borrow().broker_epoch().is_some() => member.refused.set(None),
            None => {}
        }
        self.take_news(member, news);
        if drained && let Some(left) = member.left.take() {
            let _ = left.send(());
        }
    }

    /// A broker that has died is registered until its session ends; one that lives stays,
    /// and this one has to stop.
    fn note_refused(&self, member: &Member, why: &str) {
        let (now, noted) = (clock::now(), member.refused.get());
        let (since, told) = noted.unwrap_or((now, now));
        if noted.is_none() || now >= told + REMINDER {
            tracing::error!("not registered: {why}");
            member.refused.set(Some((since, now)));
        }
        let session = Duration::from_millis(self.config.zookeeper_session_timeout_ms);
        if now >= since + session.saturating_add(OUTLASTING) {
            member.leave.refuse(why.to_owned());
        }
    }

    /// Tells the leaders of all shards once ZooKeeper has been away for a session's
    /// time, and when it is back.
    async fn tell_apart(self: &Rc<Self>, member: &Member) {
        let timeout_ms = self.config.zookeeper_session_timeout_ms;
        let apart = member.away.get().is_some_and(|since| clock::now() >= since + Duration::from_millis(timeout_ms));
        if member.apart.replace(apart) == apart {
            return;
        }
        let apart_ms = apart.then(|| i64::try_from(timeout_ms).unwrap_or(i64::MAX));
        for shard in self.all_shards() {
            let told = self.on_shard(shard, move |shard| async move {
                shard.all_replicas().iter().for_each(|replica| replica.set_apart(apart_ms));
            });
            // A shard that has stopped leads nothing.
            let _ = told.await;
        }
    }

    fn take_news(self: &Rc<Self>, member: &Rc<Member>, news: News) {
        if let Some(session) = news.sessions.last() {
            let away = *session != Session::Connected;
            member.away.set(away.then(|| member.away.get().unwrap_or_else(clock::now)));
        }
        for session in news.sessions.iter().filter(|_| !member.closing.get()) {
            match session {
                Session::Connected => tracing::info!("connected to ZooKeeper"),
                Session::Suspended => tracing::warn!("the connection to ZooKeeper is lost; serving on meanwhile"),
                Session::Expired => {
                    tracing::error!("the ZooKeeper session has expired: leading nothing until registered anew")
                }
            }
        }
        if let Some(part) = news.part {
            let epoch = member.node.borrow().broker_epoch();
            self.metrics.takes_part.set(u64::from(part && !member.closing.get()));
            if member.closing.get() {
                tracing::debug!("left the cluster");
            } else if part {
                tracing::info!(broker_epoch = epoch, "this broker takes part in the cluster");
            } else {
                tracing::warn!("this broker takes no part in the cluster");
            }
            member.images.borrow_mut().note_part(&self.image(), &member.node.borrow());
        }
        if news.changed.contains(&Key::Controller)
            && let Some(controller) = member.node.borrow().view().controller()
        {
            tracing::info!("broker {} is the controller", controller.value);
        }
        member.images.borrow_mut().note(&news.changed);
        for settled in news.settled {
            let waiting = member.waiting.borrow_mut().remove(&settled.ticket);
            if let Some(waiting) = waiting {
                waiting.send(settled);
            }
        }
        if news.any {
            member.has_news.set(true);
            member.news.notify_all();
        }
    }

    /// Shows every shard what has changed.
    async fn keep_images(self: Rc<Self>, member: Rc<Member>) {
        while !member.ended.get() {
            if !member.has_news.replace(false) {
                member.news.notified().await;
                continue;
            }
            let (revision, active) = {
                let _one = self.control.acquire(1).await;
                loop {
                    let (update, revision, active) = {
                        let node = member.node.borrow();
                        let update = member.images.borrow_mut().next(&self.image(), &node, &self.placement());
                        (update, node.mirror().revision(), node.is_active())
                    };
                    match update {
                        Some(update) => drop(self.publish(update).await),
                        None => break (revision, active),
                    }
                }
            };
            member.shown.set(revision);
            member.moved.notify_all();
            if active {
                self.remove_strays(&member).await;
            }
        }
    }

    /// Removes the directories that a start found of replicas that are elsewhere now, or
    /// of topics that are gone.
    async fn remove_strays(&self, member: &Member) {
        let strays = member.strays.take();
        if strays.is_empty() {
            return;
        }
        let (image, placement) = (self.image(), self.placement());
        // Of a topic that is withheld nothing is known, nor that it is gone.
        let is_kept = |stray: &Stray| image.withheld(&stray.topic).is_some();
        let (kept, strays) = strays.into_iter().partition::<Vec<_>, _>(is_kept);
        *member.strays.borrow_mut() = kept;
        if strays.is_empty() {
            return;
        }
        let places = image.topics().flat_map(|topic| {
            (0..).take(topic.partitions.len()).filter_map(|index| placement.dir(topic, index)).collect::<Vec<_>>()
        });
        let used: BTreeSet<PathBuf> = places.collect();
        for dir in strays.into_iter().map(|stray| stray.path).filter(|dir| !used.contains(dir)) {
            match put_away(&dir, &uuid::Uuid::new_v4().simple().to_string()).await {
                Ok(put_away) => {
                    tracing::info!("{}: this broker has no such replica: to be removed", dir.display());
                    put_away.into_iter().for_each(|dir| self.remove_later(dir));
                }
                Err(error) => {
                    tracing::warn!("{}: of no replica here, but it cannot be removed: {error}", dir.display())
                }
            }
        }
    }

    /// Ends the membership: the session is closed, and the registration goes with it.
    pub(super) async fn leave(self: &Rc<Self>) {
        let Some(member) = self.member() else { return };
        member.closing.set(true);
        member.node.borrow_mut().close();
        let deadline = clock::now() + CLOSING;
        let closed = async {
            loop {
                let session = {
                    use crate::cluster::store::Store;
                    member.node.borrow().store().session()
                };
                if session == Session::Expired {
                    return;
                }
                clock::sleep(Duration::from_millis(5)).await;
            }
        };
        if clock::until(deadline, closed).await.is_none() {
            tracing::warn!("the ZooKeeper session could not be closed in time; it expires by itself");
        }
        member.ended.set(true);
        member.bell.ring();
        member.news.notify_all();
        member.moved.notify_all();
    }
}
