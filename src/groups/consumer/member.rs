//! One member of a consumer group, as the log has it.

use uuid::Uuid;

pub(super) use crate::groups::api::{LEAVES, LEAVES_FOR_A_WHILE};
use crate::groups::classic::cost_of;
use crate::groups::record::{CurrentValue, MemberId, MemberValue, OwnedPartitions};

/// Memory charged for a member besides its own bytes: its entries in maps and its timers.
const OVERHEAD_BYTES: usize = 256;

#[derive(Clone, Debug, PartialEq)]
pub(in crate::groups) struct Member {
    pub id: MemberId,
    pub said: MemberValue,
    pub current: CurrentValue,
}

/// How far a member is from what it is to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MemberState {
    /// It has what it can be given at its epoch.
    Stable,
    /// It was told to let go of partitions and has not said yet that it did.
    UnrevokedPartitions,
    /// It waits for partitions that others still have.
    UnreleasedPartitions,
    /// Of a newer broker's making.
    Unknown,
}

impl MemberState {
    pub(super) fn of(number: i8) -> MemberState {
        match number {
            0 => MemberState::Stable,
            1 => MemberState::UnrevokedPartitions,
            2 => MemberState::UnreleasedPartitions,
            _ => MemberState::Unknown,
        }
    }

    pub(super) fn number(self) -> i8 {
        match self {
            MemberState::Stable => 0,
            MemberState::UnrevokedPartitions => 1,
            MemberState::UnreleasedPartitions => 2,
            MemberState::Unknown => 127,
        }
    }
}

impl Member {
    /// One that was never heard of.
    pub(super) fn new(id: MemberId) -> Member {
        Member { id, said: MemberValue::default(), current: CurrentValue::default() }
    }

    pub(super) fn state(&self) -> MemberState {
        MemberState::of(self.current.state)
    }

    pub(super) fn is_reconciled_to(&self, target_epoch: i32) -> bool {
        self.state() == MemberState::Stable && self.current.epoch == target_epoch
    }

    pub(super) fn is_classic(&self) -> bool {
        self.said.classic.is_some()
    }

    /// The epoch at which the member was given a partition that it has or is to let go of.
    pub(super) fn assignment_epoch(&self, topic: Uuid, partition: i32) -> Option<i32> {
        let epoch = |owned: &OwnedPartitions| owned.get(&topic)?.get(&partition).copied();
        epoch(&self.current.assigned).or_else(|| epoch(&self.current.revoking))
    }

    /// Every partition that is the member's, also those that it is to let go of.
    pub(super) fn held(&self) -> impl Iterator<Item = (Uuid, i32)> + '_ {
        [&self.current.assigned, &self.current.revoking]
            .into_iter()
            .flatten()
            .flat_map(|(topic, partitions)| partitions.keys().map(|partition| (*topic, *partition)))
    }

    /// Bytes of the member's facts that the coordinator keeps.
    pub(super) fn bytes(&self) -> usize {
        said_bytes(&self.id, &self.said)
    }
}

impl MemberValue {
    /// The regular expression, if the member subscribes by one.
    pub(super) fn regex(&self) -> Option<&str> {
        self.regex.as_deref().filter(|regex| !regex.is_empty())
    }
}

/// Memory charged for a subscribed name besides its bytes: it stands with the member and, with a
/// count, with the group.
const NAME_OVERHEAD_BYTES: usize = 128;

pub(super) fn said_bytes(id: &str, said: &MemberValue) -> usize {
    let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let classic = said.classic.as_ref().map_or(0, |classic| cost_of(&classic.protocols));
    OVERHEAD_BYTES
        + id.len()
        + [&said.instance_id, &said.rack_id, &said.regex, &said.assignor].into_iter().map(text).sum::<usize>()
        + said.client_id.len()
        + said.client_host.len()
        + said.topics.iter().map(|topic| topic.len() + NAME_OVERHEAD_BYTES).sum::<usize>()
        + classic
}
