//! One shard's listeners: accepts, keeps the list of its connections, ends the idle and the stalled ones, and all on stop.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future::or;
use tracing::{info, warn};

use crate::observe::note_second;
use crate::runtime::clock;
use crate::runtime::executor::spawn_local;
use crate::runtime::net::Listeners;
use crate::runtime::process::StopFlag;
use crate::runtime::sync::{Budget, Notify};
use crate::shard::Shard;

use super::connection::{self, Connection, Dispatch};
use super::context::{Link, ServerContext, TICK_MS};
use super::dispatch::dispatch;

/// How long answers under way may take once the broker stops.
const STOP_GRACE: Duration = Duration::from_millis(if cfg!(test) { 4000 } else { 1000 });
/// How long ended connections get to close.
const CLOSE_GRACE: Duration = Duration::from_millis(500);
/// The list of connections is looked through so often, in ticks.
const SWEEP_TICKS: u64 = 4;
/// A pause after a failed accept (out of descriptors, mostly), which would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A shard's open connections, by number.
pub type Connections = RefCell<HashMap<u64, Rc<Connection>>>;

/// Accepts and serves connections on this shard until `shard.stop` is set, then ends the connections: answers under way get
/// [`STOP_GRACE`]. `max.connections` is shared out evenly among the shards; past its share a shard stops accepting until a
/// connection ends, as Kafka does.
pub async fn serve(shard: Rc<Shard>, listeners: Listeners) {
    let context = ServerContext::new(shard.clone());
    let link = context.link.clone();
    let handle = |name: &str| {
        let (context, name) = (context.clone(), Rc::<str>::from(name));
        Rc::new(async move |frame, permit, peer| dispatch(&context, frame, permit, (name.clone(), peer)).await)
    };
    let handles = shard.config.listeners.iter().map(|listener| handle(&listener.name)).collect();
    run(link, &shard.stop, listeners, handles, clock::next_tick).await;
}

/// `dispatch`: for the connections of each of `listeners`, in their order. `next_tick` waits for the next tick of
/// [`Link::tick`].
async fn run<D: Dispatch>(
    link: Rc<Link>,
    stop: &StopFlag,
    listeners: Listeners,
    dispatch: Vec<Rc<D>>,
    next_tick: impl AsyncFn(),
) {
    let connections = Rc::new(Connections::default());
    let stopped = Rc::new(Notify::new());
    let (accepting, accepted, until) = (link.clone(), connections.clone(), stopped.clone());
    let stop_now = stop.clone();
    spawn_local(async move {
        let until = until.notified();
        if !stop_now.is_set() {
            or(accept_all(&accepting, &accepted, &listeners, &dispatch), until).await;
        }
    });

    while !stop.is_set() {
        next_tick().await;
        let tick = link.tick.get() + 1;
        link.tick.set(tick);
        note_second(tick * TICK_MS / 1000);
        if tick.is_multiple_of(SWEEP_TICKS) {
            sweep(&link, &connections);
        }
    }
    stopped.notify_all();
    end_all(&connections).await;
}

/// Ends never; dropped on stop, and the listening socket with it.
async fn accept_all<D: Dispatch>(
    link: &Rc<Link>,
    connections: &Rc<Connections>,
    listeners: &Listeners,
    dispatch: &[Rc<D>],
) {
    let places = Budget::new(link.max_connections);
    let mut next_number = 0;
    loop {
        let place = match places.try_acquire(1) {
            Some(place) => place,
            None => {
                if let Some(held_back) = link.may_complain() {
                    warn!(
                        limit = places.total(),
                        held_back,
                        "this shard has as many connections as it may (its share of max.connections and of half of the \
                         descriptors, `ulimit -Hn`); not accepting until one ends"
                    );
                }
                places.acquire(1).await
            }
        };
        let (listener, reader, writer) = match listeners.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if let Some(held_back) = link.may_complain() {
                    warn!(%error, held_back, "a connection could not be accepted");
                }
                clock::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(dispatch) = dispatch.get(listener).cloned() else { continue };
        next_number += 1;
        connection::start(link.clone(), dispatch, connections.clone(), next_number, place, reader, writer);
    }
}

/// Ends connections that were idle for `connections.max.idle.ms`, and those that hold back others by a frame that does not
/// come on.
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
