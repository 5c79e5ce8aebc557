//! One shard's listener: accepts, keeps the list of its connections, ends the idle and the stalled ones, and all on stop.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future::or;
use tracing::{info, warn};

use crate::runtime::clock;
use crate::runtime::executor::spawn_local;
use crate::runtime::net::Listener;
use crate::runtime::sync::{Budget, Notify};
use crate::shard::Shard;

use super::connection::{self, Connection};
use super::context::{ServerContext, TICK_MS, share};

/// How long answers under way may take once the broker stops.
const STOP_GRACE: Duration = Duration::from_millis(1000);
/// How long ended connections get to close.
const CLOSE_GRACE: Duration = Duration::from_millis(500);
/// The list of connections is looked through so often, in ticks.
const SWEEP_TICKS: u64 = 10;
/// A pause after a failed accept (out of descriptors, mostly), which would fail again at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A shard's open connections, by number.
pub type Connections = RefCell<HashMap<u64, Rc<Connection>>>;

/// Accepts and serves connections on this shard until `shard.stop` is set, then ends the connections: answers under way get
/// [`STOP_GRACE`]. `max.connections` is shared out evenly among the shards; past its share a shard stops accepting until a
/// connection ends, as Kafka does.
pub async fn serve(shard: Rc<Shard>, listener: Listener) {
    let context = ServerContext::new(shard.clone());
    let connections = Rc::new(Connections::default());
    let stopped = Rc::new(Notify::new());
    let (accept_context, accept_connections, accept_stopped) = (context.clone(), connections.clone(), stopped.clone());
    spawn_local(async move {
        let stop = accept_stopped.notified();
        if accept_context.shard.stop.is_set() {
            return;
        }
        or(accept_all(&accept_context, &accept_connections, listener), stop).await;
    });

    while !shard.stop.is_set() {
        clock::sleep(Duration::from_millis(TICK_MS)).await;
        let tick = context.tick.get() + 1;
        context.tick.set(tick);
        if tick.is_multiple_of(SWEEP_TICKS) {
            sweep(&context, &connections);
        }
    }
    stopped.notify_all();
    end_all(&connections).await;
}

/// Ends never; dropped on stop, and the listening socket with it.
async fn accept_all(context: &Rc<ServerContext>, connections: &Rc<Connections>, listener: Listener) {
    let config = &context.shard.config;
    let places = Budget::new(share(config.max_connections, config.shards).max(1) as usize);
    let mut next_number = 0;
    loop {
        let place = match places.try_acquire(1) {
            Some(place) => place,
            None => {
                warn!(
                    limit = places.total(),
                    "this shard's share of max.connections is reached; not accepting until a connection ends"
                );
                places.acquire(1).await
            }
        };
        let (reader, writer) = match listener.accept().await {
            Ok(halves) => halves,
            Err(error) => {
                if let Some(held_back) = context.complaints.may_log(context.tick.get()) {
                    warn!(%error, held_back, "a connection could not be accepted");
                }
                clock::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        next_number += 1;
        connection::start(context.clone(), connections.clone(), next_number, place, reader, writer);
    }
}

/// Ends connections that were idle for `connections.max.idle.ms`, and those that hold back others by a frame that does not
/// come on.
fn sweep(context: &ServerContext, connections: &Connections) {
    let idle_ticks = context.shard.config.connections_max_idle_ms.div_ceil(TICK_MS).max(1);
    let now = context.tick.get();
    let starved = context.starved.get() > 0;
    // Ended below, outside the borrow: ending one drops futures that may do anything.
    let ended: Vec<Rc<Connection>> =
        connections.borrow().values().filter(|c| c.is_overdue(now, idle_ticks, starved)).cloned().collect();
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
