//! Connections by which this broker notices at once that another's process is gone, on the
//! controller's shard of a member. The node says whom to watch and what follows
//! (`cluster/node/suspects.rs`); here are the sockets.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future::or;

use super::member::Member;
use super::state::Shard;
use crate::cluster::rules::{REFUSALS, REFUSALS_WITHIN_MS};
use crate::model::BrokerId;
use crate::runtime::{clock, net, spawn_local};

/// Longest wait for a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// Between the first tries after a connection has broken, so that they fall within the
/// time that the rule allows.
const SOON: Duration = Duration::from_millis(50);
const QUICK_TRIES: u32 = 6;
const _: () = assert!(QUICK_TRIES as usize >= REFUSALS);
const _: () = assert!(SOON.as_millis() * (REFUSALS as u128) < REFUSALS_WITHIN_MS as u128);
/// Between later ones.
const LATER: Duration = Duration::from_secs(1);

/// Brokers with a task that watches them.
pub(super) type Watched = Rc<RefCell<BTreeSet<BrokerId>>>;

/// Outcome of a try to connect.
enum Tried {
    Open(net::Reader, net::Writer),
    /// By every address: the host is there, and nobody listens.
    Refused,
    /// Says nothing of the process.
    Other,
}

impl Shard {
    /// Has every broker that is to be watched watched by one task.
    pub(super) async fn keep_watch(self: Rc<Self>, member: Rc<Member>) {
        let watched = Watched::default();
        while !member.has_ended() {
            let moved = member.moved();
            let wanted = member.node.borrow().watched();
            for broker in wanted {
                if watched.borrow_mut().insert(broker) {
                    spawn_local(self.clone().watch_broker(member.clone(), broker, watched.clone()));
                }
            }
            moved.await;
        }
    }

    async fn watch_broker(self: Rc<Self>, member: Rc<Member>, broker: BrokerId, watched: Watched) {
        let mut tries = 0_u32;
        while member.watches(broker) {
            match self.try_to_reach(broker).await {
                Tried::Open(reader, _writer) => {
                    member.node.borrow_mut().connected(broker);
                    hold(&member, broker, reader).await;
                    if !member.watches(broker) {
                        break;
                    }
                    member.node.borrow_mut().disconnected(broker);
                    tries = 0;
                    continue;
                }
                Tried::Refused => {
                    let evicted = member.node.borrow_mut().refused(broker, member.now_ms());
                    if evicted {
                        tracing::warn!(
                            %broker,
                            "the broker's process is gone: its connection broke and new ones are refused. Its registration is \
                             deleted before its session ends"
                        );
                    }
                }
                Tried::Other => {}
            }
            tries = tries.saturating_add(1);
            clock::sleep(if tries < QUICK_TRIES { SOON } else { LATER }).await;
        }
        watched.borrow_mut().remove(&broker);
    }

    /// Where other brokers reach this one of them; `None`: it is not known.
    pub(super) fn address_of(&self, broker: BrokerId) -> Option<(String, u16)> {
        let image = self.image();
        let known = image.brokers.iter().find(|known| known.id == broker)?;
        let endpoint = known.endpoint(self.config.inter_broker_listener())?;
        Some((endpoint.host.clone(), endpoint.port))
    }

    async fn try_to_reach(&self, broker: BrokerId) -> Tried {
        let Some((host, port)) = self.address_of(broker) else { return Tried::Other };
        let Ok(addresses) = net::resolve(&host, port).await else { return Tried::Other };
        let mut refused = !addresses.is_empty();
        for address in addresses {
            match net::connect(address, CONNECT_WITHIN).await {
                Ok((reader, writer)) => return Tried::Open(reader, writer),
                Err(error) => refused &= error.kind() == io::ErrorKind::ConnectionRefused,
            }
        }
        if refused { Tried::Refused } else { Tried::Other }
    }
}

/// Returns when the connection has broken, or the broker is watched no more.
async fn hold(member: &Member, broker: BrokerId, mut reader: net::Reader) {
    let mut nothing = [0; 64];
    loop {
        let moved = member.moved();
        if !member.watches(broker) {
            return;
        }
        let read = async { Some(reader.read(&mut nothing).await) };
        let moves = async {
            moved.await;
            None
        };
        // Nothing was asked, so nothing is to be read.
        if let Some(Ok(0) | Err(_)) = or(read, moves).await {
            return;
        }
    }
}
