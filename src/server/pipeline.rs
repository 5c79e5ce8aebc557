//! One connection's answers, in request order. Pure waiting: no socket, no clock.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;

use crate::observe::metrics::Target;
use crate::runtime::clock::Moment;
use crate::runtime::waits::Notes;
use crate::shard::Share;

/// Outcome of one request, as the writer sends it.
pub enum Reply {
    /// A whole response in one piece.
    Frame(Bytes),
    /// A whole response in slices, sent in this order, with the memory that it is charged.
    Held(Vec<Bytes>, Vec<Share>),
    /// The request asks for no response (Produce with acks=0).
    Nothing,
    /// End the connection once everything before has been sent.
    Close,
}

impl Reply {
    /// The reply with the memory that was charged for it before it was made.
    pub fn held(self, share: Option<Share>) -> Reply {
        match (self, share) {
            (Reply::Frame(frame), Some(mut share)) => {
                // The rest was underestimated, and stays charged.
                share.resize(frame.len());
                Reply::Held(vec![frame], vec![share])
            }
            (reply, _) => reply,
        }
    }
}

/// A request's answer: at hand, or still being worked on.
pub enum Answer {
    Now(Reply),
    Later(Pin<Box<dyn Future<Output = Reply>>>),
}

/// A request whose answer is on its way.
#[derive(Debug)]
pub struct Asked {
    /// Of its API.
    pub key: i16,
    pub version: i16,
    pub bytes: u32,
    /// Of its answer.
    pub answer_bytes: u32,
    /// When its last byte had come, and nothing held it back any more.
    pub received: Moment,
    pub course: Course,
    pub target: Target,
    pub notes: Notes,
}

// Each request's is moved several times. What is larger is moved by a call of memcpy.
const _: () = assert!(size_of::<(Option<Asked>, Answer)>() <= 128);

/// The stages of a request between its last byte and its answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Course {
    /// Its batches had their places in the logs then.
    Produce(Moment),
    /// It began to read then, or to wait for something to read.
    Fetch { begun: Moment, by_follower: bool },
    #[default]
    Other,
}

/// Outcome of the writer's collecting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Collected {
    /// Something to send was added.
    More,
    /// As `More` (possibly nothing was added), and nothing follows.
    Last,
    /// Send nothing more, not even what was added.
    Aborted,
    /// Nothing is left to send, and the connection goes on elsewhere.
    Left,
}

/// Answers on their way to the client: what is left to send, and its memory.
#[derive(Default)]
pub struct Outgoing {
    pub queue: VecDeque<Bytes>,
    pub shares: Vec<Share>,
    /// Bytes without a share.
    pub uncharged: usize,
    /// Requests whose answers these are.
    pub asked: Vec<Asked>,
    /// Bytes of all that was queued so far.
    pub bytes: u64,
    /// When the last of these answers was at hand, of those of which that is known
    /// without a look at the clock.
    known: Option<Moment>,
    /// Of one of them it is not.
    looks: bool,
}

impl Outgoing {
    /// When the last of these answers was at hand. `None`: just now; only of batches that had
    /// nothing to wait for but their places it is known.
    pub fn at_hand(&mut self) -> Option<Moment> {
        let (known, looks) = (self.known.take(), std::mem::take(&mut self.looks));
        known.filter(|_| !looks)
    }

    /// Notes the request that was answered with so many bytes. `waited`: not at once.
    fn answers(&mut self, asked: Option<Asked>, waited: bool, bytes: usize) -> usize {
        match asked.as_ref().map(|asked| asked.course) {
            Some(Course::Produce(appended)) if !waited => self.known = self.known.max(Some(appended)),
            _ => self.looks = true,
        }
        if let Some(mut asked) = asked {
            asked.answer_bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
            self.asked.push(asked);
        }
        bytes
    }

    /// Takes a response; answers its size.
    fn add(&mut self, slices: impl IntoIterator<Item = Bytes>) -> usize {
        let before = self.queue.len();
        self.queue.extend(slices.into_iter().filter(|slice| !slice.is_empty()));
        let bytes = self.queue.range(before..).map(Bytes::len).sum();
        self.bytes += bytes as u64;
        bytes
    }
}

/// The bounded queue between a connection's reader and its writer. An answer is polled only
/// when all before it are done.
pub struct Pipeline {
    slots: RefCell<VecDeque<(Option<Asked>, Answer)>>,
    capacity: usize,
    /// Once so many bytes are gathered they are sent before further answers are looked at.
    gather_bytes: usize,
    /// Answers that were collected are being sent.
    sending: Cell<bool>,
    finishing: Cell<bool>,
    aborted: Cell<bool>,
    left: Cell<bool>,
    writer: RefCell<Option<Waker>>,
    sender: RefCell<Option<Waker>>,
    reader: RefCell<Option<Waker>>,
}

impl Pipeline {
    /// `capacity`: requests worked on at the same time, at least 1. `gather_bytes`: of
    /// answers sent together, about.
    pub fn new(capacity: usize, gather_bytes: usize) -> Pipeline {
        Pipeline {
            slots: RefCell::new(VecDeque::new()),
            capacity: capacity.max(1),
            gather_bytes,
            sending: Cell::new(false),
            finishing: Cell::new(false),
            aborted: Cell::new(false),
            left: Cell::new(false),
            writer: RefCell::new(None),
            sender: RefCell::new(None),
            reader: RefCell::new(None),
        }
    }

    /// `true`: there is a free slot; `None`: not yet; `false`: the connection is ending, take no
    /// further request.
    pub fn room(&self) -> Option<bool> {
        if self.is_ending() {
            return Some(false);
        }
        (self.slots.borrow().len() < self.capacity).then_some(true)
    }

    /// Waits for [`room`](Self::room).
    pub async fn has_room(&self) -> bool {
        poll_fn(|cx| match self.room() {
            Some(room) => Poll::Ready(room),
            None => {
                keep(&self.reader, cx);
                Poll::Pending
            }
        })
        .await
    }

    /// `true`: every answer so far has been sent, or handed to the kernel at least; `None`: not
    /// yet; `false`: the connection is ending.
    pub fn idle(&self) -> Option<bool> {
        if self.is_ending() {
            return Some(false);
        }
        (self.slots.borrow().is_empty() && !self.sending.get()).then_some(true)
    }

    /// Waits for [`idle`](Self::idle).
    pub async fn is_idle(&self) -> bool {
        poll_fn(|cx| match self.idle() {
            Some(idle) => Poll::Ready(idle),
            None => {
                keep(&self.reader, cx);
                Poll::Pending
            }
        })
        .await
    }

    /// As [`is_idle`](Self::is_idle), for ever while the connection is ending.
    pub async fn is_quiet(&self) {
        if !self.is_idle().await {
            std::future::pending().await
        }
    }

    /// The answers collected last have been sent.
    pub fn note_sent(&self) {
        self.sending.set(false);
        wake(&self.reader);
    }

    /// Adds an answer to no request.
    pub fn push(&self, answer: Answer) {
        self.push_for(None, answer);
    }

    /// Adds the answer of the newest request. The caller has seen
    /// [`has_room`](Self::has_room) say yes.
    pub fn push_for(&self, asked: Option<Asked>, answer: Answer) {
        if self.aborted.get() {
            return;
        }
        self.slots.borrow_mut().push_back((asked, answer));
        wake(&self.writer);
    }

    /// Answers are waiting behind what is being sent.
    pub fn has_more(&self) -> bool {
        !self.slots.borrow().is_empty()
    }

    pub fn is_ending(&self) -> bool {
        self.finishing.get() || self.aborted.get() || self.left.get()
    }

    /// Everything has been sent, or nothing will be any more.
    pub fn is_aborted(&self) -> bool {
        self.aborted.get()
    }

    /// No further requests; the answers under way are still sent.
    pub fn finish(&self) {
        self.finishing.set(true);
        wake(&self.writer);
        wake(&self.reader);
    }

    /// Ends the work here and leaves the connection open. The caller has seen
    /// [`is_idle`](Self::is_idle) say yes, without a wait since. Whatever would end the connection
    /// comes too late from here on.
    pub fn leave(&self) {
        self.left.set(true);
        wake(&self.writer);
    }

    /// Ends at once: answers under way are dropped (a waiting fetch with them).
    pub fn abort(&self) {
        if self.left.get() || self.aborted.replace(true) {
            return;
        }
        let dropped = self.slots.take();
        drop(dropped);
        wake(&self.writer);
        wake(&self.sender);
        wake(&self.reader);
    }

    /// Resolves once [`abort`](Self::abort) was called.
    pub async fn aborted(&self) {
        poll_fn(|cx| {
            if self.aborted.get() {
                return Poll::Ready(());
            }
            keep(&self.sender, cx);
            Poll::Pending
        })
        .await;
    }

    /// Waits for the oldest answer and moves it to `out`, with those behind it that are ready too.
    pub async fn collect(&self, out: &mut Outgoing) -> Collected {
        poll_fn(|cx| self.poll_collect(cx, out)).await
    }

    fn poll_collect(&self, cx: &mut Context<'_>, out: &mut Outgoing) -> Poll<Collected> {
        let mut gathered = 0;
        let mut freed = false;
        let verdict = loop {
            if self.aborted.get() {
                break Poll::Ready(Collected::Aborted);
            }
            if self.left.get() {
                break Poll::Ready(Collected::Left);
            }
            if gathered >= self.gather_bytes {
                break Poll::Ready(Collected::More);
            }
            // Out of the queue while it is polled: an answer may come to
            // nothing but the queue's end.
            let Some((mut asked, answer)) = self.slots.borrow_mut().pop_front() else {
                if self.finishing.get() {
                    break Poll::Ready(Collected::Last);
                }
                break self.pause(cx, out);
            };
            let waited = matches!(answer, Answer::Later(_));
            let reply = match answer {
                Answer::Now(reply) => reply,
                Answer::Later(mut future) => {
                    let polled = match &mut asked {
                        Some(asked) => asked.notes.within(|| future.as_mut().poll(cx)),
                        None => future.as_mut().poll(cx),
                    };
                    match polled {
                        Poll::Ready(reply) => reply,
                        Poll::Pending => {
                            self.slots.borrow_mut().push_front((asked, Answer::Later(future)));
                            break self.pause(cx, out);
                        }
                    }
                }
            };
            freed = true;
            match reply {
                Reply::Frame(frame) => {
                    let bytes = out.add([frame]);
                    out.uncharged += bytes;
                    gathered += out.answers(asked, waited, bytes);
                }
                Reply::Held(slices, shares) => {
                    let bytes = out.add(slices);
                    out.shares.extend(shares);
                    gathered += out.answers(asked, waited, bytes);
                }
                Reply::Nothing => {}
                Reply::Close => {
                    self.finishing.set(true);
                    break Poll::Ready(Collected::Last);
                }
            }
        };
        self.sending.set(!out.queue.is_empty());
        if freed {
            wake(&self.reader);
        }
        verdict
    }

    fn pause(&self, cx: &mut Context<'_>, out: &Outgoing) -> Poll<Collected> {
        if out.queue.is_empty() {
            keep(&self.writer, cx);
            Poll::Pending
        } else {
            Poll::Ready(Collected::More)
        }
    }
}

fn keep(place: &RefCell<Option<Waker>>, cx: &Context<'_>) {
    let mut place = place.borrow_mut();
    if !place.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
        *place = Some(cx.waker().clone());
    }
}

fn wake(place: &RefCell<Option<Waker>>) {
    let waker = place.borrow_mut().take();
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::sync::oneshot;
    use futures_lite::future::{block_on, poll_once, zip};
    use std::rc::Rc;

    fn frame(byte: u8) -> Answer {
        Answer::Now(Reply::Frame(Bytes::copy_from_slice(&[byte])))
    }

    const GATHER_BYTES: usize = 1 << 20;

    fn sent(out: &mut Outgoing) -> Vec<u8> {
        out.queue.drain(..).flatten().collect()
    }

    fn asked(course: Course) -> Option<Asked> {
        let (received, target, notes) = (Moment::FIRST, Target::default(), Notes::default());
        Some(Asked { key: 0, version: 13, bytes: 1, answer_bytes: 0, received, course, target, notes })
    }

    #[test]
    fn batches_that_have_their_places_are_acknowledged_then() {
        let (before, after) = (Moment::FIRST, Moment::FIRST.after(std::time::Duration::from_nanos(7)));
        let at_hand = |slots: Vec<(Option<Asked>, Answer)>| {
            let (pipeline, mut out) = (Pipeline::new(8, GATHER_BYTES), Outgoing::default());
            slots.into_iter().for_each(|(asked, answer)| pipeline.push_for(asked, answer));
            assert_eq!(block_on(pipeline.collect(&mut out)), Collected::More);
            out.at_hand()
        };
        let later = |byte| Answer::Later(Box::pin(async move { Reply::Frame(Bytes::copy_from_slice(&[byte])) }));
        let produced = |appended| (asked(Course::Produce(appended)), frame(1));
        assert_eq!(at_hand(vec![produced(before), produced(after), produced(before)]), Some(after));
        for other in [(asked(Course::Other), frame(2)), (None, frame(2)), (asked(Course::Produce(after)), later(2))] {
            assert_eq!(at_hand(vec![produced(after), other]), None);
        }
        // The next ones are asked for themselves.
        let (pipeline, mut out) = (Pipeline::new(8, GATHER_BYTES), Outgoing::default());
        for (slot, known) in [(produced(before), true), ((None, frame(2)), false), (produced(before), true)] {
            pipeline.push_for(slot.0, slot.1);
            assert_eq!(block_on(pipeline.collect(&mut out)), Collected::More);
            assert_eq!(out.at_hand().is_some(), known);
        }
    }

    #[test]
    fn answers_keep_request_order_and_ready_ones_leave_together() {
        let pipeline = Pipeline::new(8, GATHER_BYTES);
        let (sender, receiver) = oneshot::<u8>();
        pipeline.push(frame(1));
        pipeline.push(Answer::Later(Box::pin(async move {
            Reply::Frame(Bytes::copy_from_slice(&[receiver.recv().await.unwrap_or(0)]))
        })));
        pipeline.push(frame(3));
        let mut out = Outgoing::default();
        assert_eq!(block_on(pipeline.collect(&mut out)), Collected::More);
        assert_eq!(sent(&mut out), [1], "3 is ready, but 2 is not");
        let (collected, ()) = block_on(zip(pipeline.collect(&mut out), async { sender.send(2) }));
        assert_eq!(collected, Collected::More);
        assert_eq!(sent(&mut out), [2, 3]);
    }

    #[test]
    fn the_reader_waits_while_every_slot_is_taken() {
        let pipeline = Pipeline::new(1, GATHER_BYTES);
        assert!(block_on(pipeline.has_room()));
        pipeline.push(frame(1));
        assert_eq!(block_on(poll_once(pipeline.has_room())), None);
        let mut out = Outgoing::default();
        let (room, _) = block_on(zip(pipeline.has_room(), pipeline.collect(&mut out)));
        assert!(room);
    }

    #[test]
    fn abort_drops_a_waiting_answer_and_wakes_everybody() {
        let pipeline = Pipeline::new(4, GATHER_BYTES);
        let held = Rc::new(());
        let inner = held.clone();
        pipeline.push(Answer::Later(Box::pin(async move {
            std::future::pending::<()>().await;
            drop(inner);
            Reply::Nothing
        })));
        let mut out = Outgoing::default();
        let (collected, ()) = block_on(zip(pipeline.collect(&mut out), async { pipeline.abort() }));
        assert_eq!(collected, Collected::Aborted);
        assert_eq!(Rc::strong_count(&held), 1, "the answer under way is gone");
        block_on(pipeline.aborted());
        assert!(!block_on(pipeline.has_room()));
    }

    #[test]
    fn close_comes_after_what_was_asked_before_and_ends_the_queue() {
        let pipeline = Pipeline::new(4, GATHER_BYTES);
        pipeline.push(frame(1));
        pipeline.push(Answer::Now(Reply::Nothing));
        pipeline.push(Answer::Now(Reply::Close));
        pipeline.push(frame(9));
        let mut out = Outgoing::default();
        assert_eq!(block_on(pipeline.collect(&mut out)), Collected::Last);
        assert_eq!(sent(&mut out), [1]);
        assert!(pipeline.is_ending());
    }

    #[test]
    fn finish_lets_answers_under_way_out() {
        let pipeline = Pipeline::new(4, GATHER_BYTES);
        pipeline.push(frame(1));
        pipeline.finish();
        let mut out = Outgoing::default();
        assert_eq!(block_on(pipeline.collect(&mut out)), Collected::Last);
        assert_eq!(sent(&mut out), [1]);
    }

    #[test]
    fn a_connection_that_has_left_is_ended_by_nothing() {
        let pipeline = Pipeline::new(4, GATHER_BYTES);
        let mut out = Outgoing::default();
        let (collected, ()) = block_on(zip(pipeline.collect(&mut out), async { pipeline.leave() }));
        assert_eq!(collected, Collected::Left);
        pipeline.finish();
        pipeline.abort();
        assert_eq!(block_on(pipeline.collect(&mut out)), Collected::Left);
        assert!(!block_on(pipeline.has_room()) && !block_on(pipeline.is_idle()));
    }

    #[test]
    fn a_large_answer_is_sent_before_the_next_is_looked_at() {
        let pipeline = Pipeline::new(4, GATHER_BYTES);
        pipeline.push(Answer::Now(Reply::Held(vec![Bytes::from(vec![0; GATHER_BYTES]), Bytes::new()], Vec::new())));
        pipeline.push(frame(2));
        let mut out = Outgoing::default();
        assert_eq!(block_on(pipeline.collect(&mut out)), Collected::More);
        assert_eq!(out.queue.len(), 1);
    }

    #[test]
    fn a_pipeline_is_idle_once_all_that_was_collected_has_been_sent() {
        let pipeline = Pipeline::new(4, GATHER_BYTES);
        assert_eq!(block_on(poll_once(pipeline.is_idle())), Some(true));
        pipeline.push(frame(1));
        assert_eq!(block_on(poll_once(pipeline.is_idle())), None, "not collected");
        let mut out = Outgoing::default();
        block_on(pipeline.collect(&mut out));
        assert_eq!(block_on(poll_once(pipeline.is_idle())), None, "not sent");
        let (idle, ()) = block_on(zip(pipeline.is_idle(), async { pipeline.note_sent() }));
        assert!(idle);
        pipeline.finish();
        assert_eq!(block_on(poll_once(pipeline.is_idle())), Some(false));
    }
}
