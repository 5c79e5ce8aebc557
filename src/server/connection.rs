//! One connection: a task that reads and dispatches requests in order, and one that sends their answers in that order.

use std::cell::Cell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use futures_lite::future::or;
use tracing::{debug, warn};

use crate::observe::client_line;
use crate::protocol::Malformed;
use crate::runtime::clock;
use crate::runtime::executor::spawn_local;
use crate::runtime::net::{Reader, Writer};
use crate::runtime::sync::Permit;

use super::context::{Charge, Link, TICK_MS};
use super::listener::Connections;
use super::pipeline::{Answer, Collected, Pipeline, Reply};
use super::receive::{BadLength, FrameReceiver};

/// While others wait for receive memory, a frame may take so long (10 s) before its speed is looked at,
const SLOW_FRAME_TICKS: u64 = if cfg!(test) { 1000 } else { 10_000 } / TICK_MS;
/// and must then have come in at this rate at least.
const SLOW_FRAME_BYTES_PER_TICK: u64 = 16 * 1024 * TICK_MS / 1000;
/// A frame that was given room to finish while others stay stuck has less time (2 s),
const SLOW_FINISH_TICKS: u64 = if cfg!(test) { 1000 } else { 2000 } / TICK_MS;
/// and this rate: the room is the last there is, and what the client had to hold back meanwhile comes at once.
const SLOW_FINISH_BYTES_PER_TICK: u64 = 1024 * 1024 * TICK_MS / 1000;

/// How the frame that is arriving gets on.
#[derive(Clone, Copy)]
struct FrameClock {
    /// The tick of its first byte, or of the room to finish; later by the time that it waited for the broker.
    since: u64,
    /// What has arrived since then, as far as it counts.
    arrived: u64,
    /// Whether it holds request bytes, that is, anything that others could be waiting for.
    holds: bool,
    finishing: bool,
}

impl FrameClock {
    fn is_too_slow(&self, now: u64) -> bool {
        let (grace, rate) = self.grace_and_rate();
        let ticks = now.saturating_sub(self.since);
        self.holds && ticks > grace && self.arrived < ticks * rate
    }

    /// Counts `n` bytes, but lets a frame be ahead by no more than the grace: who sends a lot and stops is stalled, too.
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

/// What the listener sees of a connection.
pub struct Connection {
    pub pipeline: Pipeline,
    peer: Option<SocketAddr>,
    /// When bytes last moved, in the context's ticks.
    active: Cell<u64>,
    /// Of the frame that is arriving; stopped (`None`) while the frame waits for the broker.
    frame: Cell<Option<FrameClock>>,
    /// Whether it waits for request bytes: nobody is idle by that.
    waiting: Cell<bool>,
    _place: Permit,
}

impl Connection {
    /// Whether the connection has to go: idle, or, while others starve, stalled inside a large frame.
    pub fn is_overdue(&self, now: u64, idle_ticks: u64, starved: bool) -> bool {
        if !self.waiting.get() && now.saturating_sub(self.active.get()) > idle_ticks {
            debug!(peer = ?self.peer, "closing an idle connection (connections.max.idle.ms)");
            return true;
        }
        let slow = self.frame.get().is_some_and(|frame| frame.is_too_slow(now));
        if starved && slow {
            client_line!(warn, peer = ?self.peer, "closing a connection whose request arrives too slowly while others wait for memory");
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

    /// Gets room for the frame to grow; `None`: the connection is ending.
    ///
    /// Room in the pipeline comes first, and stays, as only the reader uses it up: so a whole frame never holds request
    /// bytes until its client reads answers.
    async fn grow(&self, link: &Link, size: usize, bytes: usize, held: Option<Charge>) -> Option<Charge> {
        let frame = self.frame.take();
        let stopped = link.tick.get();
        if !self.pipeline.has_room().await {
            return None;
        }
        let charge = self.charged(link, link.charge_arriving(size, bytes, held)).await;
        let now = link.tick.get();
        let fresh = FrameClock { since: now, arrived: 0, holds: true, finishing: charge.finishing };
        self.frame.set(Some(match frame {
            Some(frame) if !charge.finishing => {
                FrameClock { since: frame.since + (now - stopped), holds: true, ..frame }
            }
            _ => fresh,
        }));
        Some(charge)
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
}

/// What a request's bytes are handed to, with their share of receive memory and the address that they came from.
pub trait Dispatch: AsyncFn(Bytes, Permit, Option<SocketAddr>) -> Result<Answer, Malformed> + 'static {}

impl<D: AsyncFn(Bytes, Permit, Option<SocketAddr>) -> Result<Answer, Malformed> + 'static> Dispatch for D {}

/// Starts both tasks. The connection is in `connections` until its writer has ended, which ends the reader.
pub fn start<D: Dispatch>(
    link: Rc<Link>,
    dispatch: Rc<D>,
    connections: Rc<Connections>,
    number: u64,
    place: Permit,
    reader: Reader,
    writer: Writer,
) {
    let connection = Rc::new(Connection {
        pipeline: Pipeline::new(link.pipeline),
        peer: reader.peer_addr(),
        active: Cell::new(link.tick.get()),
        frame: Cell::new(None),
        waiting: Cell::new(false),
        _place: place,
    });
    connections.borrow_mut().insert(number, connection.clone());
    let (reading_link, reading) = (link.clone(), connection.clone());
    spawn_local(async move {
        let end = read_requests(&reading_link, &*dispatch, &reading, reader).await;
        let half_closed = matches!(end, End::Peer);
        close_after(&reading_link, &reading, end);
        if half_closed {
            let_answers_out(&reading.pipeline).await;
        }
    });
    spawn_local(async move {
        write_answers(&link, &connection, writer).await;
        connection.pipeline.abort();
        connections.borrow_mut().remove(&number);
    });
}

/// Answers under way to a peer that sends no more may take this long (5 s).
const HALF_CLOSED_TICKS: u64 = if cfg!(test) { 1000 } else { 5000 } / TICK_MS;

/// A peer that sends no more may still read (`shutdown(SHUT_WR)`); one that has gone altogether looks the same until
/// something is sent to it. So the answers under way are sent, and what takes long, such as a waiting fetch, is given up.
async fn let_answers_out(pipeline: &Pipeline) {
    for _ in 0..HALF_CLOSED_TICKS {
        if pipeline.is_aborted() {
            return;
        }
        clock::next_tick().await;
    }
    pipeline.abort();
}

/// A peer whose connection failed gets nothing more; one that ended it or broke the protocol still gets the answers to what
/// it asked before.
fn close_after(link: &Link, connection: &Connection, end: End) {
    let peer = connection.peer;
    match end {
        End::Peer => {
            debug!(?peer, "{end}");
            connection.pipeline.finish();
        }
        End::Broken(_) => {
            debug!(?peer, "{end}");
            connection.pipeline.abort();
        }
        End::Length(_) | End::Malformed(_) => {
            if let Some(held_back) = link.may_complain() {
                warn!(?peer, held_back, "closing the connection: {end}");
            }
            connection.pipeline.push(Answer::Now(Reply::Close));
        }
        End::Ending => {}
    }
}

async fn read_requests<D: Dispatch>(link: &Link, dispatch: &D, connection: &Connection, mut reader: Reader) -> End {
    let mut frames = FrameReceiver::new(link.max_frame_bytes);
    // The share of request bytes of a frame that is arriving, and of a buffer to wait in for one.
    let mut held: Option<Charge> = None;
    let mut lookahead: Option<Permit> = None;
    loop {
        if let Err(end) = take_frames(link, dispatch, connection, &mut frames, &mut held).await {
            return end;
        }
        let mut growing = None;
        if let Some((size, bytes)) = frames.growth() {
            let Some(charge) = connection.grow(link, size, bytes, held.take()).await else { return End::Ending };
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
        let n = match reader.read(space).await {
            Ok(0) => return End::Peer,
            Ok(n) => n,
            Err(error) => return End::Broken(error),
        };
        frames.advance(n);
        connection.note_arrival(link.tick.get(), n);
    }
}

/// Dispatches every request that is wholly there.
async fn take_frames<D: Dispatch>(
    link: &Link,
    dispatch: &D,
    connection: &Connection,
    frames: &mut FrameReceiver,
    held: &mut Option<Charge>,
) -> Result<(), End> {
    while let Some(frame) = frames.next_frame()? {
        connection.frame.set(None);
        if !connection.pipeline.has_room().await {
            return Err(End::Ending);
        }
        let charge = match held.take() {
            Some(charge) => charge,
            None => connection.charged(link, link.charge_whole(frame.len())).await,
        };
        let answer = dispatch(frame, charge.permit, connection.peer).await?;
        connection.pipeline.push(answer);
    }
    Ok(())
}

async fn write_answers(link: &Link, connection: &Connection, mut writer: Writer) {
    let pipeline = &connection.pipeline;
    let mut queue = VecDeque::new();
    loop {
        let collected = pipeline.collect(&mut queue).await;
        if collected == Collected::Aborted {
            break;
        }
        if !queue.is_empty() {
            let aborted = async {
                pipeline.aborted().await;
                Err(std::io::ErrorKind::ConnectionAborted.into())
            };
            if let Err(error) = or(writer.send_all(&mut queue), aborted).await {
                debug!(peer = ?connection.peer, "answers could not be sent: {error}");
                break;
            }
            connection.active.set(link.tick.get());
        }
        if collected == Collected::Last {
            break;
        }
    }
    // Also ends the reader's pending read.
    writer.shutdown();
}

#[cfg(test)]
mod tests {
    use super::*;

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
