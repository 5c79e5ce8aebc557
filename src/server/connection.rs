//! One connection: a task that reads and dispatches requests in order, and one that sends their answers in that order.

use std::cell::Cell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use bytes::Bytes;
use futures_lite::future::or;
use tracing::{debug, warn};

use crate::protocol::Malformed;
use crate::runtime::executor::spawn_local;
use crate::runtime::net::{Reader, Writer};
use crate::runtime::sync::Permit;

use super::context::{Link, TICK_MS};
use super::listener::Connections;
use super::pipeline::{Answer, Collected, Pipeline, Reply};
use super::receive::{BadLength, FrameReceiver, SMALL_BYTES};

/// While others wait for receive memory, a frame may take so long (10 s) before its speed is looked at,
const SLOW_FRAME_TICKS: u64 = if cfg!(test) { 1000 } else { 10_000 } / TICK_MS;
/// and must then have come in at this rate at least.
const SLOW_FRAME_BYTES_PER_TICK: u64 = 16 * 1024 * TICK_MS / 1000;

/// What the listener sees of a connection.
pub struct Connection {
    pub pipeline: Pipeline,
    peer: Option<SocketAddr>,
    /// When bytes last moved, in the context's ticks.
    active: Cell<u64>,
    /// When the frame that holds receive memory began, and what has arrived of it since.
    frame_since: Cell<Option<(u64, u64)>>,
    _place: Permit,
}

impl Connection {
    /// Whether the connection has to go: idle, or, while others starve, stalled inside a large frame.
    pub fn is_overdue(&self, now: u64, idle_ticks: u64, starved: bool) -> bool {
        if now.saturating_sub(self.active.get()) > idle_ticks {
            debug!(peer = ?self.peer, "closing an idle connection (connections.max.idle.ms)");
            return true;
        }
        let slow =
            self.frame_since.get().is_some_and(|(since, arrived)| is_too_slow(now.saturating_sub(since), arrived));
        if starved && slow {
            warn!(peer = ?self.peer, "closing a connection whose request arrives too slowly while others wait for memory");
        }
        starved && slow
    }
}

fn is_too_slow(ticks: u64, arrived: u64) -> bool {
    ticks > SLOW_FRAME_TICKS && arrived < ticks * SLOW_FRAME_BYTES_PER_TICK
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

/// What a request's bytes are handed to, with their share of receive memory.
pub trait Dispatch: AsyncFn(Bytes, Permit) -> Result<Answer, Malformed> + 'static {}

impl<D: AsyncFn(Bytes, Permit) -> Result<Answer, Malformed> + 'static> Dispatch for D {}

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
        frame_since: Cell::new(None),
        _place: place,
    });
    connections.borrow_mut().insert(number, connection.clone());
    let (reading_link, reading) = (link.clone(), connection.clone());
    spawn_local(async move {
        let end = read_requests(&reading_link, &*dispatch, &reading, reader).await;
        close_after(&reading_link, &reading, end);
    });
    spawn_local(async move {
        write_answers(&link, &connection, writer).await;
        connection.pipeline.abort();
        connections.borrow_mut().remove(&number);
    });
}

/// A peer that has gone gets nothing more; one that broke the protocol still gets the answers to what it asked before.
fn close_after(link: &Link, connection: &Connection, end: End) {
    let peer = connection.peer;
    match end {
        End::Peer | End::Broken(_) => {
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
    // The share of the request budget of a large frame that is arriving, and of a buffer to wait in.
    let mut arriving: Option<Permit> = None;
    let mut lookahead: Option<Permit> = None;
    loop {
        if let Err(end) = take_frames(link, dispatch, connection, &mut frames, &mut arriving).await {
            return end;
        }
        match frames.begun_frame() {
            Some(size) if size > SMALL_BYTES && arriving.is_none() => {
                connection.frame_since.set(None);
                arriving = Some(link.take_request_bytes(size).await);
                connection.frame_since.set(Some((link.tick.get(), 0)));
                lookahead = None;
            }
            Some(_) => {}
            None if frames.is_inside_frame() => {}
            None => {
                let wanted = frames.wanted_lookahead();
                lookahead = None;
                if wanted > 0 {
                    lookahead = link.lookahead.try_acquire(wanted);
                }
            }
        }
        let space = frames.space(lookahead.as_ref().map_or(0, Permit::amount));
        let n = match reader.read(space).await {
            Ok(0) => return End::Peer,
            Ok(n) => n,
            Err(error) => return End::Broken(error),
        };
        frames.advance(n);
        connection.active.set(link.tick.get());
        if let Some((since, arrived)) = connection.frame_since.get() {
            connection.frame_since.set(Some((since, arrived + n as u64)));
        }
    }
}

/// Dispatches every request that is wholly there.
async fn take_frames<D: Dispatch>(
    link: &Link,
    dispatch: &D,
    connection: &Connection,
    frames: &mut FrameReceiver,
    arriving: &mut Option<Permit>,
) -> Result<(), End> {
    while let Some(frame) = frames.next_frame()? {
        connection.frame_since.set(None);
        let permit = match arriving.take() {
            Some(permit) => permit,
            None => link.take_request_bytes(frame.len()).await,
        };
        if !connection.pipeline.has_room().await {
            return Err(End::Ending);
        }
        let answer = dispatch(frame, permit).await?;
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
        assert!(!is_too_slow(SLOW_FRAME_TICKS, 0));
        assert!(is_too_slow(SLOW_FRAME_TICKS + 1, 0));
        assert!(is_too_slow(200, 200 * SLOW_FRAME_BYTES_PER_TICK - 1));
        assert!(!is_too_slow(200, 200 * SLOW_FRAME_BYTES_PER_TICK));
    }
}
