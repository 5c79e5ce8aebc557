//! One connection: a task that reads and dispatches requests in order, and one that sends
//! their answers in that order.

use std::cell::Cell;
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use futures_lite::future::or;
use tracing::debug;

use crate::model::ShardId;
use crate::observe::client_line;
use crate::observe::metrics::{Cause, Software};
use crate::protocol::Malformed;
use crate::runtime::admission::Place;
use crate::runtime::clock::{self, Moment};
use crate::runtime::executor::spawn_local;
use crate::runtime::last_news;
use crate::runtime::net::{Reader, Writer};
use crate::runtime::sync::Permit;
use crate::runtime::waits::{self, Notes};
use crate::shard::{Share, Shortage};

use super::context::{Charge, Link, TICK_MS};
use super::crossing::{Crossing, Traveller};
use super::listener::Connections;
use super::peer::{Client, Peer};
use super::pipeline::{Answer, Asked, Collected, Outgoing, Pipeline, Reply};
use super::receive::{BadLength, Begun, FrameReceiver, SMALL_BYTES};
use super::slow;
use super::traffic::{AGAIN_TICKS, Tally, Traffic};

/// While others wait for receive memory, a frame may take so long (10 s) before
/// its speed is looked at,
const SLOW_FRAME_TICKS: u64 = if cfg!(test) { 1000 } else { 10_000 } / TICK_MS;
/// and must then have come in at this rate at least.
const SLOW_FRAME_BYTES_PER_TICK: u64 = 16 * 1024 * TICK_MS / 1000;
/// A frame that was given room to finish while others stay stuck has less time (2 s),
const SLOW_FINISH_TICKS: u64 = if cfg!(test) { 1000 } else { 2000 } / TICK_MS;
/// and this rate: the room is the last there is, and what the client had to hold back
/// meanwhile comes at once.
const SLOW_FINISH_BYTES_PER_TICK: u64 = 1024 * 1024 * TICK_MS / 1000;

/// While others wait for the memory of answers, a client may take nothing for so long:
/// consumers pause now and then,
const STALLED: Duration = Duration::from_millis(1000);
/// or, while many wait for answers other than records, for so long.
const STALLED_IN_A_FLOOD: Duration = Duration::from_millis(100);
const MANY: usize = 8;
/// How long requests of a client that has gone may wait for the answers before them.
const GONE_GRACE: Duration = Duration::from_millis(HALF_CLOSED_TICKS * TICK_MS);
/// So long reading may be held up for answers under way, before the connection moves.
const HELD_UP: Duration = Duration::from_millis(50);
/// A request that comes within this time after a mute was there before it ended.
const THERE_BEFORE: Duration = Duration::from_millis(1);
/// Answers up to this size are sent without a share of memory.
const FREE_ANSWER_BYTES: usize = 4096;

/// Answers that hold memory until the client takes them.
#[derive(Clone, Copy)]
struct Unsent {
    /// When the client last took something.
    since: Moment,
    /// Memory of fetches is among what is held.
    fetches: bool,
    /// Memory of other answers may be.
    others: bool,
    /// Memory of answers that were to leave at once.
    at_once: bool,
}

impl Unsent {
    /// The client has taken nothing for too long while so many wait; `more`: answers wait
    /// behind what is being sent.
    fn gives_way(&self, now: Moment, short: Shortage, more: bool) -> bool {
        let stalled = now.since(self.since);
        let grace_of = |waiting: usize| if waiting >= MANY { STALLED_IN_A_FLOOD } else { STALLED };
        let any = short.fetches + short.others;
        (short.fetches > 0 && self.fetches && stalled > STALLED)
            || (short.others > 0 && (self.others || more) && stalled > grace_of(short.others))
            || (any > 0 && self.at_once && stalled > grace_of(any))
    }
}

/// How the frame that is arriving gets on.
#[derive(Clone, Copy)]
struct FrameClock {
    /// The tick of its first byte, or of the room to finish; later by the time that
    /// it waited for the broker.
    since: u64,
    /// Bytes that have arrived since then, as far as they count.
    arrived: u64,
    /// True if it holds request bytes, that is, anything that others could be waiting for.
    holds: bool,
    finishing: bool,
}

impl FrameClock {
    fn is_too_slow(&self, now: u64) -> bool {
        let (grace, rate) = self.grace_and_rate();
        let ticks = now.saturating_sub(self.since);
        self.holds && ticks > grace && self.arrived < ticks * rate
    }

    /// Counts `n` bytes, but lets a frame be ahead by no more than the grace: who sends a lot
    /// and stops is stalled, too.
    fn count(&mut self, now: u64, n: usize) {
        let (grace, rate) = self.grace_and_rate();
        let most = (now.saturating_sub(self.since) + grace) * rate;
        self.arrived = (self.arrived + n as u64).min(most);
    }

    fn grace_and_rate(&self) -> (u64, u64) {
        if self.finishing {
            (SLOW_FINISH_TICKS, SLOW_FINISH_BYTES_PER_TICK)
        } else {
            (SLOW_FRAME_TICKS, SLOW_FRAME_BYTES_PER_TICK)
        }
    }
}

/// A connection as the listener sees it.
pub struct Connection {
    pub pipeline: Pipeline,
    client: Rc<Client>,
    /// When bytes last moved, in the context's ticks.
    active: Cell<u64>,
    /// Of the frame that is arriving; stopped (`None`) while the frame waits for the broker.
    frame: Cell<Option<FrameClock>>,
    /// True while it waits for request bytes; a connection whose answers are awaited is not idle.
    waiting: Cell<bool>,
    unsent: Cell<Option<Unsent>>,
    /// Its listener's place among all.
    listener: usize,
    /// `None`: it has left.
    place: Cell<Option<Place>>,
    /// `None` where there is one shard.
    traffic: Option<Rc<Traffic>>,
    /// The tick from which on reading may be held up once more, so that it falls quiet.
    hold_up: Cell<u64>,
}

impl Connection {
    /// Since when it holds memory of answers that its client does not take, if that is too long
    /// while others wait for it.
    pub fn stalled_since(&self, now: Moment, short: Shortage) -> Option<Moment> {
        let unsent = self.unsent.get()?;
        // A busy broker takes its time to send, too.
        let stalls = unsent.gives_way(now, short, self.pipeline.has_more()) && !self.client.room.is_writable();
        stalls.then_some(unsent.since)
    }

    /// Ends the connection for [`stalled_since`](Self::stalled_since).
    pub fn close_stalled(&self) {
        client_line!(
            warn,
            peer = %self.client.peer,
            "closing a connection that does not take its answers while others wait for memory \
             (corelane.response.memory.bytes)"
        );
        self.pipeline.abort();
    }

    /// Waits until the request that begins with `head` may be answered.
    async fn may_begin(&self, link: &Link, head: &[u8], reader: &Reader) -> Result<(), End> {
        let ending = |begins: bool| if begins { Ok(()) } else { Err(End::Ending) };
        if !(link.waits_for_answers)(head) {
            if let Some(room) = self.pipeline.room() {
                return ending(room);
            }
            return ending(waits::waiting(Cause::AnswersBefore, self.pipeline.has_room()).await);
        }
        if let Some(idle) = self.pipeline.idle() {
            return ending(idle);
        }
        // Nothing is read meanwhile, so that a client that has gone shows only so. What it sent
        // before it went is still taken, unless an answer is waited for that may take minutes.
        let idle = or(async { ending(self.pipeline.is_idle().await) }, gone(reader));
        waits::waiting(Cause::AnswersBefore, idle).await
    }

    /// True if the connection has to go: idle, or, while others starve, stalled
    /// inside a large frame.
    pub fn is_overdue(&self, now: u64, idle_ticks: u64, starved: bool) -> bool {
        if !self.waiting.get() && now.saturating_sub(self.active.get()) > idle_ticks {
            debug!(peer = %self.client.peer, "closing an idle connection (connections.max.idle.ms)");
            return true;
        }
        let slow = self.frame.get().is_some_and(|frame| frame.is_too_slow(now));
        if starved && slow {
            client_line!(warn, peer = %self.client.peer, "closing a connection whose request arrives too slowly while others wait for memory");
        }
        starved && slow
    }

    /// Waits for request bytes; that time counts neither as idle nor against the frame.
    async fn charged(&self, link: &Link, charge: impl Future<Output = Charge>) -> Charge {
        self.waiting.set(true);
        let charge = charge.await;
        self.waiting.set(false);
        self.active.set(link.tick.get());
        charge
    }

    /// Waits while the client is muted; that time counts neither as idle nor against a frame that
    /// is arriving. An error: it has gone meanwhile.
    async fn unmuted(&self, link: &Link, reader: &Reader) -> Result<(), End> {
        if !self.client.mute.is_set() {
            return Ok(());
        }
        let (frame, stopped) = (self.frame.take(), link.tick.get());
        self.waiting.set(true);
        let over = async {
            self.client.mute.over(|| self.pipeline.is_ending()).await;
            Ok(())
        };
        let outcome = or(over, gone(reader)).await;
        self.waiting.set(false);
        let now = link.tick.get();
        self.active.set(now);
        self.frame.set(frame.map(|frame| FrameClock { since: frame.since + (now - stopped), ..frame }));
        outcome
    }

    /// Gets room for the frame to grow.
    ///
    /// Room in the pipeline comes first, and stays, as only the reader uses it up: so a whole frame
    /// never holds request bytes until its client reads answers.
    async fn grow(
        &self,
        link: &Link,
        reader: &Reader,
        head: &[u8],
        (size, bytes): (usize, usize),
        held: Option<Charge>,
    ) -> Result<Charge, End> {
        let frame = self.frame.take();
        let stopped = link.tick.get();
        self.may_begin(link, head, reader).await?;
        let charge = self.charged(link, link.charge_arriving(size, bytes, held)).await;
        let now = link.tick.get();
        let fresh = FrameClock { since: now, arrived: 0, holds: true, finishing: charge.finishing };
        self.frame.set(Some(match frame {
            Some(frame) if !charge.finishing => {
                FrameClock { since: frame.since + (now - stopped), holds: true, ..frame }
            }
            _ => fresh,
        }));
        Ok(charge)
    }

    /// The shard that it had better be on, if it may go there now.
    fn destination(&self, link: &Link) -> Option<ShardId> {
        let (traffic, crossing) = (self.traffic.as_ref()?, link.crossing.as_ref()?);
        if self.client.mute.is_set() {
            return None;
        }
        let to = traffic.wish(link.tick.get())?;
        if !crossing.allows(to) {
            traffic.put_off(link.tick.get());
            return None;
        }
        Some(to)
    }

    /// True if all answers have been sent, some time after no more is read: a client that
    /// pipelines its requests leaves no gap between them. Now and then only, and not for long: an
    /// answer may wait for minutes.
    async fn falls_quiet(&self, link: &Link) -> bool {
        let now = link.tick.get();
        if now < self.hold_up.get() {
            return false;
        }
        self.hold_up.set(now + AGAIN_TICKS);
        clock::until(clock::now() + HELD_UP, self.pipeline.is_quiet()).await.is_some()
    }

    /// Sends the connection to another shard, which nothing is left to do for here; `false`: it
    /// stays after all, for a while.
    fn leave(&self, link: &Link, reader: &Reader, frames: &FrameReceiver, to: ShardId) -> bool {
        let (Some(traffic), Some(crossing)) = (&self.traffic, &link.crossing) else { return false };
        // There it would not be.
        if self.client.mute.is_set() {
            return false;
        }
        let socket = if crossing.book(to) { reader.loosen().ok() } else { None };
        let taken = socket.and_then(|socket| Some((socket, self.place.take()?, self.client.software.take()?)));
        let Some((socket, place, software)) = taken else {
            traffic.put_off(link.tick.get());
            return false;
        };
        debug!(peer = %self.client.peer, %to, "the connection moves to the shard of most of its requests");
        self.pipeline.leave();
        let (begun, moves) = (frames.begun(), traffic.moves().saturating_add(1));
        let (listener, session_id) = (self.listener, traffic.session());
        crossing.leave(to, Traveller { socket, place, listener, begun, moves, software, session_id, session: None });
        true
    }

    /// Notes that bytes came, of a frame that may have begun with them.
    fn note_arrival(&self, now: u64, n: usize) {
        self.active.set(now);
        let begun = FrameClock { since: now, arrived: 0, holds: false, finishing: false };
        let mut frame = self.frame.get().unwrap_or(begun);
        frame.count(now, n);
        self.frame.set(Some(frame));
    }
}

/// A client that nothing is read from has gone, some time ago.
async fn gone(reader: &Reader) -> Result<(), End> {
    reader.ended().await;
    clock::sleep(GONE_GRACE).await;
    Err(End::Peer)
}

/// Why a reader stopped.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the peer closed the connection")]
    Peer,
    #[error("the connection failed: {0}")]
    Broken(#[from] std::io::Error),
    #[error(transparent)]
    Length(#[from] BadLength),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error("the connection is ending")]
    Ending,
    #[error("the connection has moved to another shard")]
    Moved,
}

/// The taker of a request's bytes, with their share of receive memory, the client that they came
/// from, and when the last of them had come.
pub trait Dispatch: AsyncFn(Bytes, Permit, Rc<Client>, Moment) -> Result<Answer, Malformed> + 'static {}

impl<D: AsyncFn(Bytes, Permit, Rc<Client>, Moment) -> Result<Answer, Malformed> + 'static> Dispatch for D {}

/// A connection that begins on this shard: a new one, or one that comes from another.
pub struct Newcomer {
    pub listener: usize,
    pub place: Place,
    pub halves: (Reader, Writer),
    pub begun: Begun,
    pub moves: u32,
    pub software: Software,
}

/// Starts both tasks. The connection is in `connections` until its writer has
/// ended, which ends the reader.
pub fn start<D: Dispatch>(
    link: Rc<Link>,
    dispatch: Rc<D>,
    connections: Rc<Connections>,
    Newcomer { listener, place, halves: (reader, writer), begun, moves, software }: Newcomer,
) {
    let number = link.next_number.replace(link.next_number.get() + 1);
    let traffic = |crossing: &Rc<Crossing>| Rc::new(Traffic::new(crossing.own(), moves, link.tick.get()));
    let traffic = link.crossing.as_ref().map(traffic);
    let (peer, tally) = (Peer(reader.peer_addr()), Tally::of(&traffic));
    let client = Client::new(link.listener(listener), peer, writer.room(), tally, Some(software));
    if moves > 0 {
        client.note_introduced();
    }
    let connection = Rc::new(Connection {
        pipeline: Pipeline::new(link.pipeline, link.gather_bytes),
        client: Rc::new(client),
        active: Cell::new(link.tick.get()),
        frame: Cell::new(None),
        waiting: Cell::new(false),
        unsent: Cell::new(None),
        listener,
        place: Cell::new(Some(place)),
        traffic,
        hold_up: Cell::new(0),
    });
    connections.borrow_mut().insert(number, connection.clone());
    link.connections.set(link.connections.get() + 1);
    let (reading_link, reading) = (link.clone(), connection.clone());
    spawn_local(async move {
        // The causes of a wait are noted before the request is known that they hold back.
        let mut notes = Notes::default();
        let mut requests = pin!(read_requests(&reading_link, &*dispatch, &reading, reader, begun));
        let end = poll_fn(|cx| notes.within(|| requests.as_mut().poll(cx))).await;
        let half_closed = matches!(end, End::Peer);
        if matches!(end, End::Length(_) | End::Malformed(_)) {
            reading_link.metrics.malformed.add(1);
        }
        close_after(&reading, end);
        if half_closed {
            let_answers_out(&reading.pipeline).await;
        }
    });
    spawn_local(async move {
        write_answers(&link, &connection, writer).await;
        connection.pipeline.abort();
        connections.borrow_mut().remove(&number);
        link.connections.set(link.connections.get() - 1);
    });
}

/// Answers under way to a peer that sends no more may take this long (5 s).
const HALF_CLOSED_TICKS: u64 = if cfg!(test) { 1000 } else { 5000 } / TICK_MS;

/// A peer that sends no more may still read (`shutdown(SHUT_WR)`); one that has gone altogether
/// looks the same until something is sent to it. So the answers under way are sent, and what takes
/// long, such as a waiting fetch, is given up.
async fn let_answers_out(pipeline: &Pipeline) {
    for _ in 0..HALF_CLOSED_TICKS {
        if pipeline.is_aborted() {
            return;
        }
        clock::next_tick().await;
    }
    pipeline.abort();
}

/// A peer whose connection failed gets nothing more; one that ended it or broke the protocol still
/// gets the answers to what it asked before.
fn close_after(connection: &Connection, end: End) {
    let peer = connection.client.peer;
    match end {
        End::Peer => {
            debug!(%peer, "{end}");
            connection.pipeline.finish();
        }
        End::Broken(_) => {
            debug!(%peer, "{end}");
            connection.pipeline.abort();
        }
        End::Length(_) | End::Malformed(_) => {
            client_line!(warn, %peer, "closing the connection: {end}");
            connection.pipeline.push(Answer::Now(Reply::Close));
        }
        End::Ending | End::Moved => {}
    }
}

async fn read_requests<D: Dispatch>(
    link: &Link,
    dispatch: &D,
    connection: &Connection,
    mut reader: Reader,
    begun: Begun,
) -> End {
    let mut frames = FrameReceiver::new(link.max_frame_bytes, begun);
    // The share of request bytes of a frame that is arriving, and of a buffer to wait in for one.
    let mut held: Option<Charge> = None;
    let mut lookahead: Option<Permit> = None;
    loop {
        if let Err(end) = take_frames(link, dispatch, connection, &reader, &mut frames, &mut held).await {
            return end;
        }
        // Nothing of the next request is held meanwhile.
        let muted = connection.client.mute.is_set();
        if let Err(end) = connection.unmuted(link, &reader).await {
            return end;
        }
        let unmuted = muted.then(Moment::now);
        // Between two requests, and what has arrived of the next is no more than
        // any connection may have.
        let destination = match frames.arrived_bytes() {
            ..=SMALL_BYTES if held.is_none() => connection.destination(link),
            _ => None,
        };
        if let Some(to) = destination
            && connection.falls_quiet(link).await
            && connection.leave(link, &reader, &frames, to)
        {
            return End::Moved;
        }
        let mut growing = None;
        if let Some((size, bytes)) = frames.growth() {
            let growth = (size, bytes);
            let charge = match connection.grow(link, &reader, frames.body_head(), growth, held.take()).await {
                Ok(charge) => charge,
                Err(end) => return end,
            };
            growing = Some(if charge.finishing { size } else { bytes });
            held = Some(charge);
        } else if frames.arrived_bytes() == 0 {
            let wanted = frames.wanted_lookahead();
            lookahead = None;
            if wanted > 0 {
                lookahead = link.lookahead.try_acquire(wanted);
            }
        }
        let granted = growing.unwrap_or_else(|| lookahead.as_ref().map_or(0, Permit::amount));
        let space = frames.space(granted);
        if growing.is_some() {
            // The frame has left the buffer that this was for.
            lookahead = None;
        }
        let read = match destination {
            None => reader.read(space).await,
            Some(to) => {
                let quiet = async {
                    connection.pipeline.is_quiet().await;
                    None
                };
                match or(async { Some(reader.read(space).await) }, quiet).await {
                    Some(read) => read,
                    None if connection.leave(link, &reader, &frames, to) => return End::Moved,
                    None => continue,
                }
            }
        };
        let n = match read {
            Ok(0) => return End::Peer,
            Ok(n) => n,
            Err(error) => return End::Broken(error),
        };
        if unmuted.is_some_and(|since| Moment::now().since(since) > THERE_BEFORE) {
            // No request has waited for that.
            drop(waits::take());
        }
        frames.advance(n);
        link.metrics.received_bytes.add(n as u64);
        connection.note_arrival(link.tick.get(), n);
    }
}

/// Dispatches every request that is wholly there.
async fn take_frames<D: Dispatch>(
    link: &Link,
    dispatch: &D,
    connection: &Connection,
    reader: &Reader,
    frames: &mut FrameReceiver,
    held: &mut Option<Charge>,
) -> Result<(), End> {
    while let Some(frame) = frames.next_frame()? {
        connection.frame.set(None);
        connection.may_begin(link, &frame, reader).await?;
        connection.unmuted(link, reader).await?;
        let charge = match held.take() {
            Some(charge) => charge,
            None => connection.charged(link, link.charge_whole(frame.len())).await,
        };
        link.begun_requests.set(link.begun_requests.get() + 1);
        let (received, mut notes, bytes) = (last_news(), waits::take(), frame.len());
        notes.begin();
        let head = frame.first_chunk().map(|[k0, k1, v0, v1]| [[*k0, *k1], [*v0, *v1]].map(i16::from_be_bytes));
        let answer = dispatch(frame, charge.permit, connection.client.clone(), received).await?;
        notes.add_all(waits::take());
        let (course, target) = connection.client.begun.take();
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let asked =
            head.map(|[key, version]| Asked { key, version, bytes, answer_bytes: 0, received, course, target, notes });
        connection.pipeline.push_for(asked, answer);
    }
    Ok(())
}

async fn write_answers(link: &Link, connection: &Connection, mut writer: Writer) {
    let pipeline = &connection.pipeline;
    let mut out = Outgoing::default();
    loop {
        let collected = pipeline.collect(&mut out).await;
        match collected {
            Collected::Aborted => break,
            Collected::Left => return,
            Collected::More | Collected::Last => {}
        }
        if !out.queue.is_empty() {
            let collected = out.at_hand().unwrap_or_else(Moment::now);
            let aborted = async {
                pipeline.aborted().await;
                Err(std::io::ErrorKind::ConnectionAborted.into())
            };
            // A reply that had to wait for those before it goes to the kernel from
            // just now on, as those do.
            let since = collected.max(last_news());
            let sent = match or(send(link, connection, &mut writer, &mut out, since), aborted).await {
                Ok(sent) => sent,
                Err(error) => {
                    debug!(peer = %connection.client.peer, "answers could not be sent: {error}");
                    break;
                }
            };
            for asked in &out.asked {
                slow::note_answered(link, &connection.client, asked, (collected, sent));
            }
            out.asked.clear();
            link.metrics.sent_bytes.add(std::mem::take(&mut out.bytes));
            connection.unsent.set(None);
            out.shares.clear();
            pipeline.note_sent();
        }
        if collected == Collected::Last {
            break;
        }
    }
    // Also ends the reader's pending read.
    writer.shutdown();
}

/// Sends all of `out`, which is so since just now, and charges what of it is not charged yet.
/// Returns when the last of it went to the kernel.
async fn send(
    link: &Link,
    connection: &Connection,
    writer: &mut Writer,
    out: &mut Outgoing,
    mut since: Moment,
) -> std::io::Result<Moment> {
    if out.uncharged > FREE_ANSWER_BYTES {
        out.shares.push(link.answers.share(out.uncharged, &connection.client.room).await);
        since = Moment::now();
    }
    out.uncharged = 0;
    let fetches = out.shares.iter().any(Share::is_fetch);
    let others = out.shares.is_empty() || !out.shares.iter().all(Share::is_fetch);
    let at_once = out.shares.iter().any(Share::is_at_once);
    loop {
        connection.unsent.set(Some(Unsent { since, fetches, others, at_once }));
        let more = writer.send_some(&mut out.queue).await?;
        connection.active.set(link.tick.get());
        if more {
            since = Moment::now();
        }
        if !more || out.queue.is_empty() {
            return Ok(since);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_takes_nothing_gives_way_to_those_that_wait_for_the_same() {
        let since = Moment::now();
        let unsent = |fetches, others, at_once| Unsent { since, fetches, others, at_once };
        let gives_way = |unsent: Unsent, ms, fetches, others| {
            unsent.gives_way(since.after(Duration::from_millis(ms)), Shortage { fetches, others }, false)
        };
        let (records, other, small) =
            (unsent(true, false, false), unsent(false, true, false), unsent(true, false, true));
        assert!(!gives_way(records, 60_000, 0, 100) && !gives_way(other, 60_000, 100, 0), "nobody waits for that");
        assert!(!gives_way(records, 900, 100, 0) && gives_way(records, 1100, 1, 0));
        assert!(!gives_way(other, 900, 0, 1) && gives_way(other, 1100, 0, 1) && gives_way(other, 110, 0, MANY));
        assert!(!gives_way(small, 110, 0, 1) && gives_way(small, 110, 0, MANY) && gives_way(small, 110, MANY, 0));
        assert!(!gives_way(small, 60_000, 0, 0));
    }

    #[test]
    fn a_slow_frame_gets_some_time_and_then_must_keep_up_a_rate() {
        let frame = |arrived, holds, finishing| FrameClock { since: 10, arrived, holds, finishing };
        assert!(!frame(0, true, false).is_too_slow(10 + SLOW_FRAME_TICKS));
        assert!(frame(0, true, false).is_too_slow(11 + SLOW_FRAME_TICKS));
        assert!(!frame(0, false, false).is_too_slow(11 + SLOW_FRAME_TICKS), "it keeps nobody from anything");
        assert!(frame(200 * SLOW_FRAME_BYTES_PER_TICK - 1, true, false).is_too_slow(210));
        assert!(!frame(200 * SLOW_FRAME_BYTES_PER_TICK, true, false).is_too_slow(210));
        assert!(frame(200 * SLOW_FRAME_BYTES_PER_TICK, true, true).is_too_slow(210));
        assert!(!frame(200 * SLOW_FINISH_BYTES_PER_TICK, true, true).is_too_slow(210));
        let mut stopped = frame(0, true, false);
        stopped.count(20, 1 << 30);
        assert!(!stopped.is_too_slow(20 + SLOW_FRAME_TICKS));
        assert!(stopped.is_too_slow(21 + SLOW_FRAME_TICKS), "what came early buys no time");
    }
}
