//! Deadlines of members.

use crate::groups::api::GroupId;
use crate::groups::record::MemberId;

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumerTimer {
    pub(super) group: GroupId,
    pub(super) member: MemberId,
    pub(super) what: What,
}

impl ConsumerTimer {
    pub fn group(&self) -> &GroupId {
        &self.group
    }
}

/// The deed whose deadline a member missed, for which it is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum What {
    /// To be heard of.
    Session,
    /// To let go of partitions.
    Rebalance,
    /// To join again, of a member that uses the classic protocol.
    Join,
    /// To sync after joining, of such a member.
    Sync,
}

impl What {
    pub(super) fn name(self) -> &'static str {
        match self {
            What::Session => "to be heard of",
            What::Rebalance => "to let go of partitions",
            What::Join => "to join again",
            What::Sync => "to sync",
        }
    }

    pub(super) const ALL: [What; 4] = [What::Session, What::Rebalance, What::Join, What::Sync];
}
