//! Sockets to handlers: listener, connection (bounded, responses in request order), dispatch, one handler per API.

use std::rc::Rc;

use crate::runtime::net::Listener;
use crate::shard::Shard;

/// Accepts and serves connections on this shard until `shard.stop` is set, then ends the connections.
pub async fn serve(shard: Rc<Shard>, listener: Listener) {
    let _ = (shard, listener);
}
