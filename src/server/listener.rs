//! One shard's listeners: accepts, keeps the list of its connections, ends the idle and the
//! stalled ones, and all on stop.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_lite::future::or;
use tracing::{debug, info};

use crate::config::ServerConfig;
use crate::observe::{client_line, note_second};
use crate::runtime::admission::{Admission, AdmissionLimits, Place, Refused};
use crate::runtime::clock::{self, Moment};
use crate::runtime::executor::spawn_local;
use crate::runtime::net::{Listeners, Reader, Writer};
use crate::runtime::process::StopFlag;
use crate::runtime::sync::Notify;
use crate::shard::Shard;

use super::connection::{self, Connection, Dispatch, Newcomer};
use super::context::{Link, ServerContext, TICK_MS};
use super::crossing::{Loads, Traveller};
use super::dispatch::dispatch;
use super::peer::Peer;
use super::quotas::QuotaBoard;
use super::receive::Begun;

/// How long answers under way may take once the broker stops.
const STOP_GRACE: Duration = Duration::from_millis(if cfg!(test) { 4000 } else { 1000 });
/// How long ended connections get to close.
const CLOSE_GRACE: Duration = Duration::from_millis(500);
/// The list of connections is looked through so often, in ticks.
const SWEEP_TICKS: u64 = 4;
/// Counters go to the log so often (10 s), where there are any.
const REPORT_TICKS: u64 = 10_000 / TICK_MS;
/// Between two looks for a place while there is none.
const FULL_PAUSE: Duration = Duration::from_millis(20);
/// Connections of addresses with too many that wait to be closed, at a time.
const MOST_TURNED_AWAY: u32 = 256;
/// A pause after a failed accept (out of descriptors, mostly), which would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Between two looks for connections that hold the memory of answers which others wait for.
const STALLED_PAUSE: Duration = Duration::from_millis(20);

/// A shard's open connections, by number.
pub type Connections = RefCell<HashMap<u64, Rc<Connection>>>;

/// Connection limits shared by all shards' listeners.
pub fn admission(config: &ServerConfig) -> Arc<Admission> {
    Admission::new(limits(config))
}

fn limits(config: &ServerConfig) -> AdmissionLimits {
    AdmissionLimits {
        total: config.max_connections.min(config.connection_room).max(1),
        local_reserve: config.local_connections,
        per_ip: config.max_connections_per_ip,
        per_ip_overrides: config.max_connections_per_ip_overrides.1.clone(),
        per_second: match config.max_connection_creation_rate {
            rate if rate >= i32::MAX as u32 => u32::MAX,
            rate => rate,
        },
    }
}

/// Accepts and serves connections on this shard until `shard.stop` is set, then ends the
/// connections: answers under way get [`STOP_GRACE`]. As in Kafka, a broker of a cluster serves
/// nobody before it takes part; until then the kernel holds the connections.
pub async fn serve(
    shard: Rc<Shard>,
    listeners: Listeners,
    (admission, loads, board): (Arc<Admission>, Arc<Loads>, Arc<QuotaBoard>),
) {
    if !shard.until_let_in().await {
        return;
    }
    let context = ServerContext::new(shard.clone(), &loads, board);
    let link = context.link.clone();
    let handled = context.clone();
    let handle = Rc::new(async move |frame, permit, client, received| {
        dispatch(&handled, frame, permit, (client, received)).await
    });
    let handles = vec![handle; shard.config.listeners.len()];
    link.follow(&shard.settings());
    let (shared, followed) = (admission.clone(), RefCell::new(shard.config.clone()));
    let next_tick = async || {
        clock::next_tick().await;
        let settings = shard.settings();
        if !Arc::ptr_eq(&settings, &followed.replace(settings.clone())) {
            shared.set_limits(limits(&settings));
            context.link.follow(&settings);
        }
        context.link.publish();
        if context.link.tick.get().is_multiple_of(REPORT_TICKS) {
            context.link.report(shard.messages());
        }
    };
    let limited = context.clone();
    let rate = Rc::new(move |address| limited.quotas.connect(address));
    run(link, &shard.stop, Door { listeners, admission, rate }, handles, next_tick).await;
    context.link.report(shard.messages());
}

/// Where connections come from, and which are let in.
struct Door {
    listeners: Listeners,
    admission: Arc<Admission>,
    /// Counts a connection from an address, unless its address has had too many: the time
    /// until it is to be closed, ms.
    rate: Rc<dyn Fn(IpAddr) -> Result<(), u64>>,
}

/// `dispatch`: for the connections of each listener of `door`, in their order. `next_tick` waits
/// for the next tick of [`Link::tick`].
async fn run<D: Dispatch>(
    link: Rc<Link>,
    stop: &StopFlag,
    door: Door,
    dispatch: Vec<Rc<D>>,
    next_tick: impl AsyncFn(),
) {
    let connections = Rc::new(Connections::default());
    if let Some(crossing) = &link.crossing {
        crossing.open(landing(&link, &connections, &dispatch));
    }
    let stopped = Rc::new(Notify::new());
    let (accepting, accepted, until) = (link.clone(), connections.clone(), stopped.clone());
    let stop_now = stop.clone();
    spawn_local(async move {
        let until = until.notified();
        if !stop_now.is_set() {
            let accept = accept_all(&accepting, &accepted, &door, &dispatch);
            or(or(accept, close_stalled(&accepting, &accepted)), until).await;
        }
    });

    while !stop.is_set() {
        next_tick().await;
        let tick = link.tick.get() + 1;
        link.tick.set(tick);
        note_second(tick * TICK_MS / 1000);
        if let Some(crossing) = &link.crossing {
            crossing.tick();
        }
        if tick.is_multiple_of(SWEEP_TICKS) {
            sweep(&link, &connections);
        }
    }
    stopped.notify_all();
    if let Some(crossing) = &link.crossing {
        crossing.close();
    }
    end_all(&connections).await;
}

/// Takes up connections that come from other shards.
fn landing<D: Dispatch>(
    link: &Rc<Link>,
    connections: &Rc<Connections>,
    dispatch: &[Rc<D>],
) -> impl Fn(Traveller) + use<D> {
    let (link, connections, dispatch) = (Rc::downgrade(link), connections.clone(), dispatch.to_vec());
    move |traveller| {
        let Traveller { socket, place, listener, begun, moves, software, .. } = traveller;
        let Some((link, dispatch)) = link.upgrade().zip(dispatch.get(listener).cloned()) else { return };
        match socket.settle() {
            Ok(halves) => {
                link.metrics.moved_here.add(1);
                let newcomer = Newcomer { listener, place, halves, begun, moves, software };
                connection::start(link, dispatch, connections.clone(), newcomer);
            }
            Err(error) => debug!(%error, "a connection from another shard could not be taken up"),
        }
    }
}

/// Ends never; dropped on stop, and the listening socket with it.
async fn accept_all<D: Dispatch>(link: &Rc<Link>, connections: &Rc<Connections>, door: &Door, dispatch: &[Rc<D>]) {
    let Door { listeners, admission, rate } = door;
    let turned_away = Rc::new(Cell::new(0));
    loop {
        until_admissible(admission).await;
        let (listener, reader, writer) = match listeners.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                client_line!(warn, %error, "a connection could not be accepted");
                clock::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(dispatch) = dispatch.get(listener).cloned() else { continue };
        if let Err(wait_ms) = Peer(reader.peer_addr()).ip().map_or(Ok(()), |address| rate(address)) {
            link.metrics.refused.add(1);
            turn_away((reader, writer), wait_ms, &turned_away);
            continue;
        }
        let Some(place) = place_for(admission, Peer(reader.peer_addr())).await else {
            link.metrics.refused.add(1);
            continue;
        };
        if let Err(error) = reader.set_buffers(link.buffers.0, link.buffers.1) {
            debug!(peer = %Peer(reader.peer_addr()), %error, "the socket's buffers keep the kernel's sizes");
        }
        let halves = (reader, writer);
        link.metrics.accepted.add(1);
        let software = link.metrics.clients.untold();
        let newcomer = Newcomer { listener, place, halves, begun: Begun::default(), moves: 0, software };
        connection::start(link.clone(), dispatch, connections.clone(), newcomer);
    }
}

/// Closes a connection after a time, so that its client does not try again at once (KIP-612); where
/// many wait for that, at once.
fn turn_away(halves: (Reader, Writer), wait_ms: u64, waiting: &Rc<Cell<u32>>) {
    debug!(peer = %Peer(halves.0.peer_addr()), wait_ms, "closing a new connection: connection_creation_rate of its address");
    if waiting.get() >= MOST_TURNED_AWAY {
        return;
    }
    waiting.set(waiting.get() + 1);
    let waiting = waiting.clone();
    spawn_local(async move {
        clock::sleep(Duration::from_millis(wait_ms)).await;
        drop(halves);
        waiting.set(waiting.get() - 1);
    });
}

/// Waits while there are as many connections as there may be, and for the rate at which they may
/// come. Both are looked at now and then: other shards' connections end without a word to this one.
async fn until_admissible(admission: &Admission) {
    let mut told = false;
    loop {
        let pause = match admission.is_full() {
            false => admission.pause(clock::now()),
            true if told => FULL_PAUSE,
            true => {
                told = true;
                client_line!(
                    warn,
                    limit = admission.total(),
                    "there are as many connections as there may be (max.connections, or half of the open files that the \
                     process may have, `ulimit -Hn`); not accepting until one ends"
                );
                FULL_PAUSE
            }
        };
        if pause.is_zero() {
            return;
        }
        clock::sleep(pause).await;
    }
}

/// A place for a connection that was accepted; `None`: it is to be closed. Other shards
/// may have taken the last one since there was one; then it waits, as connections that
/// are not accepted yet do.
async fn place_for(admission: &Arc<Admission>, peer: Peer) -> Option<Place> {
    let ip = peer.ip().unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    loop {
        match admission.admit(ip, clock::now()) {
            Ok(place) => return Some(place),
            Err(Refused::Full) => clock::sleep(FULL_PAUSE).await,
            Err(Refused::Address(limit)) => {
                client_line!(
                    warn,
                    %peer,
                    limit,
                    "closing a new connection: its address has as many as it may (max.connections.per.ip and its overrides)"
                );
                return None;
            }
            Err(Refused::Reserved) => {
                client_line!(
                    warn,
                    %peer,
                    "closing a new connection: what is left of max.connections is for clients on this machine \
                     (corelane.local.connections)"
                );
                return None;
            }
        }
    }
}

/// While requests wait for the memory of answers, ends connections whose clients take nothing,
/// those first that have not for longest, and looks again.
async fn close_stalled(link: &Link, connections: &Connections) {
    loop {
        let short = link.answers.shortage().await;
        let now = Moment::now();
        let mut stalled: Vec<(Moment, Rc<Connection>)> = connections
            .borrow()
            .values()
            .filter_map(|connection| Some((connection.stalled_since(now, short)?, connection.clone())))
            .collect();
        stalled.sort_by_key(|(since, _)| *since);
        stalled.truncate(stalled.len().div_ceil(2));
        stalled.iter().for_each(|(_, connection)| connection.close_stalled());
        drop(stalled);
        clock::sleep(STALLED_PAUSE).await;
    }
}

/// Ends connections that were idle for `connections.max.idle.ms`, and those that hold back others
/// by a frame that does not come on.
fn sweep(link: &Link, connections: &Connections) {
    let now = link.tick.get();
    let starved = link.starved.get() > 0;
    // Ended below, outside the borrow: ending one drops futures that may do anything.
    let ended: Vec<Rc<Connection>> =
        connections.borrow().values().filter(|c| c.is_overdue(now, link.idle_ticks, starved)).cloned().collect();
    for connection in ended {
        connection.pipeline.abort();
    }
}

async fn end_all(connections: &Connections) {
    let all = || -> Vec<Rc<Connection>> { connections.borrow().values().cloned().collect() };
    let open = all();
    if !open.is_empty() {
        info!(connections = open.len(), "ending connections");
    }
    open.iter().for_each(|c| c.pipeline.finish());
    drop(open);
    wait_until_empty(connections, STOP_GRACE).await;
    all().iter().for_each(|c| c.pipeline.abort());
    wait_until_empty(connections, CLOSE_GRACE).await;
}

async fn wait_until_empty(connections: &Connections, grace: Duration) {
    let deadline = clock::now() + grace;
    while !connections.borrow().is_empty() && clock::now() < deadline {
        clock::sleep(Duration::from_millis(5)).await;
    }
}

#[cfg(test)]
#[path = "listener_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "crossing_tests.rs"]
mod crossing_tests;
