//! One member of a classic group.

use std::collections::HashSet;

use bytes::Bytes;

use crate::coordinator::Ticket;
use crate::groups::api::{Caller, JoinRequest};

pub use crate::groups::record::MemberId;

/// Memory charged for a member besides its own bytes: its entries in maps and its timer.
pub(super) const OVERHEAD_BYTES: usize = 256;
/// The same of one protocol, however short its name.
const PROTOCOL_OVERHEAD_BYTES: usize = 128;

#[derive(Debug)]
pub struct Member {
    pub instance_id: Option<String>,
    pub caller: Caller,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    /// By preference, each name once: name and metadata.
    pub protocols: Vec<(String, Bytes)>,
    pub assignment: Bytes,
    /// The join that waits for the others.
    pub(super) join: Option<Ticket>,
    /// The sync that waits for the leader's.
    pub(super) sync: Option<Ticket>,
    /// It has never seen a generation begin: it does not know its id and cannot send heartbeats.
    pub(super) is_new: bool,
}

impl Member {
    /// The member as it was before any request of this coordinator's time.
    pub(super) fn restored(instance_id: Option<String>, caller: Caller, protocols: Vec<(String, Bytes)>) -> Member {
        Member {
            instance_id,
            caller,
            rebalance_timeout_ms: 0,
            session_timeout_ms: 0,
            protocols,
            assignment: Bytes::new(),
            join: None,
            sync: None,
            is_new: false,
        }
    }

    pub(super) fn joining(request: &JoinRequest) -> Member {
        Member {
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            session_timeout_ms: request.session_timeout_ms,
            is_new: true,
            ..Member::restored(request.instance_id.clone(), request.caller.clone(), own_protocols(&request.protocols))
        }
    }

    /// A member that comes from a consumer group; nothing of it waits.
    pub fn migrated(
        instance_id: Option<String>,
        caller: Caller,
        protocols: Vec<(String, Bytes)>,
        rebalance_timeout_ms: i32,
        session_timeout_ms: i32,
    ) -> Member {
        Member { rebalance_timeout_ms, session_timeout_ms, ..Member::restored(instance_id, caller, protocols) }
    }

    pub fn is_static(&self) -> bool {
        self.instance_id.is_some()
    }

    /// Its metadata for a protocol; empty where it did not offer that.
    pub fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols
            .iter()
            .find(|(name, _)| name == protocol)
            .map(|(_, metadata)| metadata.clone())
            .unwrap_or_default()
    }

    /// A waiting request stands for heartbeats, but a new member's join does not: its client may be
    /// gone and have come back as another one.
    pub(super) fn is_alive(&self) -> bool {
        !self.is_new && (self.join.is_some() || self.sync.is_some())
    }

    /// Memory charged for it.
    pub(super) fn cost(&self, id: &str) -> usize {
        let names = id.len() + self.caller.client_id.len() + self.caller.client_host.len();
        OVERHEAD_BYTES
            + names
            + self.instance_id.as_ref().map_or(0, String::len)
            + cost_of(&self.protocols)
            + self.assignment.len()
    }
}

/// Memory charged for protocols.
pub(in crate::groups) fn cost_of(protocols: &[(String, Bytes)]) -> usize {
    protocols.iter().map(|(name, metadata)| PROTOCOL_OVERHEAD_BYTES + name.len() + metadata.len()).sum()
}

/// A copy that does not keep the whole request in memory, each name once.
pub(in crate::groups) fn own_protocols(protocols: &[(String, Bytes)]) -> Vec<(String, Bytes)> {
    let mut seen = HashSet::with_capacity(protocols.len());
    let each_once = protocols.iter().filter(|(name, _)| seen.insert(name.as_str()));
    each_once.map(|(name, metadata)| (name.clone(), Bytes::copy_from_slice(metadata))).collect()
}
