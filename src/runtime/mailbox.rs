//! Calls between shards. Each pair of shards has a bounded channel in each direction; calls from
//! one shard to another arrive in the order they were posted.
//!
//! A call travels as a closure, its answer comes back through the channel of the other direction.
//! The receiving side never waits while it empties a channel (it starts work, it does not await
//! it), and answers are never held back by the bound on calls: so two shards that call each other
//! cannot block each other.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam_queue::ArrayQueue;

use super::doorbell::Doorbell;
use super::executor::{Yielder, at_shard_end, spawn_local};
use super::sync::{Budget, OneshotReceiver, OneshotSender, Permit, oneshot};
use super::waits::{self, Notes};
use super::{clock, turn};
use crate::model::ShardId;

/// How long the pump waits before it tries a full channel again.
const RETRY: Duration = Duration::from_micros(50);

type Answer = Box<dyn Any + Send>;
type Work<S> = Box<dyn FnOnce(&Rc<Mesh<S>>, &Rc<S>, Origin) + Send>;

enum Message<S: 'static> {
    Work(Origin, Work<S>),
    Answer(u64, Answer),
}

/// Where an answer goes: the calling shard and its number for the call.
#[derive(Clone, Copy)]
struct Origin {
    shard: ShardId,
    token: u64,
}

/// One direction between two shards.
struct Channel<S: 'static> {
    queue: ArrayQueue<Message<S>>,
    /// One of the two has stopped.
    closed: AtomicBool,
}

/// One shard's ends of the channels between it and another, whose bell tells it to look.
struct Ends<S: 'static> {
    to: Arc<Channel<S>>,
    from: Arc<Channel<S>>,
    bell: Arc<Doorbell>,
}

/// The unconnected ends for one shard, made before the threads start.
pub struct MeshSeat<S: 'static> {
    own: ShardId,
    capacity: usize,
    bell: Arc<Doorbell>,
    /// By the other shard's index; `None` at the own one.
    ends: Vec<Option<Ends<S>>>,
}

/// One seat per shard. `capacity`: messages per pair and direction. Fails when there
/// are no descriptors left.
pub fn mesh<S: 'static>(shards: u16, capacity: usize) -> io::Result<Vec<MeshSeat<S>>> {
    let capacity = capacity.max(1);
    let count = usize::from(shards);
    let bells = (0..count).map(|_| Doorbell::new().map(Arc::new)).collect::<io::Result<Vec<_>>>()?;
    let channel = |_| Arc::new(Channel { queue: ArrayQueue::new(capacity), closed: AtomicBool::new(false) });
    // By the sender's index, then by the receiver's.
    let channels: Vec<Vec<Arc<Channel<S>>>> = (0..count).map(|_| (0..count).map(channel).collect()).collect();
    let ends = |own: usize, other: usize| Ends {
        to: channels[own][other].clone(),
        from: channels[other][own].clone(),
        bell: bells[other].clone(),
    };
    let seats = (0..shards).zip(&bells).map(|(own, bell)| MeshSeat {
        own: ShardId(own),
        capacity,
        bell: bell.clone(),
        ends: (0..shards).map(|other| (other != own).then(|| ends(own.into(), other.into()))).collect(),
    });
    Ok(seats.collect())
}

impl<S: 'static> MeshSeat<S> {
    /// Counts, on any thread, the messages that wait for this seat's shard.
    pub fn waiting(&self) -> impl Fn() -> usize + Send + Sync + use<S> {
        let from: Vec<_> = self.ends.iter().flatten().map(|ends| ends.from.clone()).collect();
        move || from.iter().map(|channel| channel.queue.len()).sum()
    }
}

/// This shard's ends of the channels to another shard, and the calls under way.
struct Peer<S: 'static> {
    ends: Ends<S>,
    /// Messages that the channel had no room for, oldest first. Calls hold a permit of `room` while
    /// they wait here.
    outbox: RefCell<VecDeque<(Message<S>, Option<Permit>)>>,
    room: Rc<Budget>,
    pumping: Cell<bool>,
    /// Calls without an answer yet.
    waiting: RefCell<HashMap<u64, OneshotSender<Answer>>>,
    stopped: Cell<bool>,
}

/// This shard's connected mailbox. `S` is the shard's state: calls run on it.
pub struct Mesh<S: 'static> {
    own: ShardId,
    bell: Arc<Doorbell>,
    peers: Vec<Option<Rc<Peer<S>>>>,
    state: RefCell<Option<Rc<S>>>,
    next_token: Cell<u64>,
    messages: Cell<u64>,
    closed: Cell<bool>,
}

/// The other shard has stopped: the broker is shutting down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the shard has stopped")]
pub struct ShardStopped;

impl<S: 'static> Mesh<S> {
    /// Takes the seat, on its shard's thread.
    pub fn connect(seat: MeshSeat<S>) -> io::Result<Rc<Mesh<S>>> {
        turn::listen(seat.bell.clone())?;
        let peers = seat.ends.into_iter().map(|ends| {
            ends.map(|ends| {
                Rc::new(Peer {
                    ends,
                    outbox: RefCell::default(),
                    room: Budget::new(seat.capacity),
                    pumping: Cell::new(false),
                    waiting: RefCell::default(),
                    stopped: Cell::new(false),
                })
            })
        });
        let mesh = Rc::new(Mesh {
            own: seat.own,
            bell: seat.bell,
            peers: peers.collect(),
            state: RefCell::default(),
            next_token: Cell::new(0),
            messages: Cell::new(0),
            closed: Cell::new(false),
        });
        // Tasks that an ended executor still holds are never dropped, so the peers would wait for
        // them for ever.
        let at_end = mesh.clone();
        at_shard_end(move || at_end.close());
        Ok(mesh)
    }

    /// Starts answering calls on `state`. Call it once, before the first [`call`](Self::call):
    /// answers, too, arrive only from then on.
    pub fn serve(self: &Rc<Self>, state: Rc<S>) {
        *self.state.borrow_mut() = Some(state.clone());
        if self.peers.iter().any(Option::is_some) {
            spawn_local(self.clone().receive(state));
        }
    }

    /// Works off what the others send, whenever the bell rings.
    async fn receive(self: Rc<Self>, state: Rc<S>) {
        let mut yielder = Yielder;
        let mut left = false;
        while !self.closed.get() {
            if !left {
                poll_fn(|cx| self.bell.poll_rung(cx)).await;
            }
            left = false;
            for (from, peer) in (0u16..).zip(&self.peers) {
                let Some(peer) = peer else { continue };
                // Looked at before the queue: what was sent before the end is still taken.
                let ended = peer.ends.from.closed.load(Ordering::Acquire);
                for _ in 0..peer.ends.from.queue.len() {
                    let Some(message) = peer.ends.from.queue.pop() else { break };
                    if self.closed.get() {
                        break;
                    }
                    self.take(ShardId(from), message, &state);
                    yielder.pass().await;
                }
                left |= !peer.ends.from.queue.is_empty();
                if ended {
                    peer.stop();
                }
            }
        }
    }

    fn take(self: &Rc<Self>, from: ShardId, message: Message<S>, state: &Rc<S>) {
        match message {
            Message::Work(origin, work) => work(self, state, origin),
            Message::Answer(token, answer) => {
                let waiting = self.peer(from).and_then(|peer| peer.waiting.borrow_mut().remove(&token));
                if let Some(sender) = waiting {
                    sender.send(answer);
                }
            }
        }
    }

    fn peer(&self, shard: ShardId) -> Option<&Rc<Peer<S>>> {
        self.peers.get(usize::from(shard.0))?.as_ref()
    }

    /// Posts `work` to run on `target`. The outer future resolves once the call is queued (waiting
    /// while `target`'s queue is full); calls to one target start in the order they were queued.
    /// The inner future resolves to the result. On the own shard `work` is started at once.
    /// Dropping the inner future leaves the work running.
    pub async fn call<R, W, F>(
        self: &Rc<Self>,
        target: ShardId,
        work: W,
    ) -> Result<impl Future<Output = Result<R, ShardStopped>> + use<S, R, W, F>, ShardStopped>
    where
        W: FnOnce(Rc<S>) -> F + Send + 'static,
        F: Future<Output = R> + 'static,
        R: Send + 'static,
    {
        if target == self.own {
            let state = self.state.borrow().clone().ok_or(ShardStopped)?;
            let (sender, receiver) = oneshot();
            let running = work(state);
            spawn_local(async move { sender.send(waits::traced(running).await) });
            return Ok(Pending::<R>::Own(receiver).result());
        }
        let peer = self.peer(target).ok_or(ShardStopped)?.clone();
        let permit = if peer.outbox.borrow().is_empty() { None } else { Some(peer.room.acquire(1).await) };
        if peer.stopped.get() {
            return Err(ShardStopped);
        }
        let token = self.next_token.get();
        self.next_token.set(token + 1);
        let origin = Origin { shard: self.own, token };
        let work: Work<S> = Box::new(move |mesh, state, origin| {
            let running = work(state.clone());
            let mesh = mesh.clone();
            spawn_local(async move {
                let answer: Answer = Box::new(waits::traced(running).await);
                mesh.post(origin.shard, Message::Answer(origin.token, answer), None);
            });
        });
        let (sender, receiver) = oneshot();
        peer.waiting.borrow_mut().insert(token, sender);
        self.post(target, Message::Work(origin, work), permit);
        Ok(Pending::<R>::Peer(receiver).result())
    }

    /// Posts `work` without an answer; dropped when `target` has stopped. Not held back by the
    /// bound on calls: meant for news, not for bulk.
    pub fn tell<W>(self: &Rc<Self>, target: ShardId, work: W)
    where
        W: FnOnce(&Rc<S>) + Send + 'static,
    {
        if target == self.own {
            let state = self.state.borrow().clone();
            if let Some(state) = state {
                work(&state);
            }
            return;
        }
        let origin = Origin { shard: self.own, token: 0 };
        self.post(target, Message::Work(origin, Box::new(move |_, state, _| work(state))), None);
    }

    /// Leaves the mesh: peers' calls to this shard, and this shard's to them, end with
    /// [`ShardStopped`]. Happens by itself when the shard's body ends.
    pub fn close(&self) {
        self.closed.set(true);
        for peer in self.peers.iter().flatten() {
            peer.ends.to.closed.store(true, Ordering::Release);
            peer.ends.from.closed.store(true, Ordering::Release);
            peer.ends.bell.ring();
            peer.stop();
        }
        // Ends `receive`.
        self.bell.ring();
        let state = self.state.take();
        drop(state);
    }

    /// Calls and news to other shards so far; answers do not count.
    pub fn messages(&self) -> u64 {
        self.messages.get()
    }

    /// Sends now if nothing waits already, else queues behind what waits.
    fn post(&self, target: ShardId, message: Message<S>, permit: Option<Permit>) {
        if matches!(message, Message::Work(..)) {
            self.messages.set(self.messages.get() + 1);
        }
        let Some(peer) = self.peer(target).filter(|peer| !peer.stopped.get()) else { return };
        if !peer.outbox.borrow().is_empty() {
            peer.outbox.borrow_mut().push_back((message, permit));
            return;
        }
        if let Some(message) = peer.offer(message) {
            peer.outbox.borrow_mut().push_back((message, permit));
            if !peer.pumping.replace(true) {
                spawn_local(pump(peer.clone()));
            }
        }
    }
}

impl<S: 'static> Peer<S> {
    /// Puts `message` into the channel; gives it back when the channel is full.
    fn offer(&self, message: Message<S>) -> Option<Message<S>> {
        if self.ends.to.closed.load(Ordering::Acquire) {
            self.stop();
            return None;
        }
        let left = self.ends.to.queue.push(message).err();
        self.ends.bell.ring();
        left
    }

    /// The other side has gone: everybody who waits for it hears so.
    fn stop(&self) {
        if !self.stopped.replace(true) {
            let (waiting, outbox) = (self.waiting.take(), self.outbox.take());
            drop((waiting, outbox));
        }
    }
}

/// Moves what waits into the channel.
async fn pump<S: 'static>(peer: Rc<Peer<S>>) {
    let mut yielder = Yielder;
    loop {
        let Some((message, permit)) = peer.outbox.borrow_mut().pop_front() else { break };
        if let Some(message) = peer.offer(message) {
            peer.outbox.borrow_mut().push_front((message, permit));
            clock::sleep(RETRY).await;
        } else {
            drop(permit);
            yielder.pass().await;
        }
    }
    peer.pumping.set(false);
}

/// A result, and what it has waited for.
type Traced<R> = (R, Notes);

/// A call's way to its result.
enum Pending<R> {
    Own(OneshotReceiver<Traced<R>>),
    Peer(OneshotReceiver<Answer>),
}

impl<R: 'static> Pending<R> {
    async fn result(self) -> Result<R, ShardStopped> {
        let answer = async {
            match self {
                Pending::Own(receiver) => receiver.recv().await.ok_or(ShardStopped),
                Pending::Peer(receiver) => {
                    let answer = receiver.recv().await.ok_or(ShardStopped)?;
                    // The closure that made the answer boxed one of these: any
                    // other type is impossible.
                    answer.downcast::<Traced<R>>().map(|answer| *answer).map_err(|_| ShardStopped)
                }
            }
        };
        waits::called(answer).await
    }
}

#[cfg(test)]
mod tests;
