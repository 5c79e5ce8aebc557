//! The classic protocol: members elect one of them, who assigns.
//!
//! Reading order: [`group`] (who is in it), [`join`], [`rebalance`], [`session`] (sync,
//! heartbeat, leave, commit).

mod group;
mod join;
mod member;
mod rebalance;
mod restore;
mod session;
mod subscription;
mod turn;

pub(in crate::groups) use group::CONSUMERS;
pub use group::{ClassicGroup, State};
pub use member::{Member, MemberId};
pub(in crate::groups) use member::{cost_of, own_protocols};
pub(in crate::groups) use subscription::read_topics;
pub(in crate::groups) use turn::Turn;
