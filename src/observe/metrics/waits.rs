//! Time that requests wait, by what they wait for.

use std::time::Duration;

/// Causes of a request's waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// Reads and writes of logs.
    Device,
    /// `fdatasync` of a log.
    Sync,
    /// A log's file to be made, or blocks to be reserved for it.
    Blocks,
    /// Room in the arena, which batches take until they are written.
    Arena,
    /// Memory of requests or of answers.
    Memory,
    /// Another shard, without what it says to have waited for itself.
    OtherShard,
    /// The high watermark, which replicas in sync move.
    Followers,
    /// The end of a mute for a client quota.
    Quota,
    /// A commit of metadata, until all shards show it.
    Metadata,
    /// A helper thread.
    Helper,
    /// Records of a group to be written and committed.
    Group,
    /// Records: a fetch whose `min.bytes` were not there.
    Records,
    /// Answers to earlier requests of the connection.
    AnswersBefore,
}

impl Cause {
    pub const ALL: [Cause; 13] = [
        Cause::Device,
        Cause::Sync,
        Cause::Blocks,
        Cause::Arena,
        Cause::Memory,
        Cause::OtherShard,
        Cause::Followers,
        Cause::Quota,
        Cause::Metadata,
        Cause::Helper,
        Cause::Group,
        Cause::Records,
        Cause::AnswersBefore,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Cause::Device => "device",
            Cause::Sync => "sync",
            Cause::Blocks => "blocks",
            Cause::Arena => "arena",
            Cause::Memory => "memory",
            Cause::OtherShard => "other_shard",
            Cause::Followers => "followers",
            Cause::Quota => "quota",
            Cause::Metadata => "metadata",
            Cause::Helper => "helper",
            Cause::Group => "group",
            Cause::Records => "records",
            Cause::AnswersBefore => "answers_before",
        }
    }

    /// For people: "... ms for ...".
    pub fn in_words(self) -> &'static str {
        match self {
            Cause::Device => "the disk",
            Cause::Sync => "a sync of the disk",
            Cause::Blocks => "blocks of a log's file",
            Cause::Arena => "room in the arena: the disk takes batches too slowly",
            Cause::Memory => "memory of requests or answers",
            Cause::OtherShard => "another shard",
            Cause::Followers => "replicas in sync to follow",
            Cause::Quota => "its client's quota",
            Cause::Metadata => "a metadata commit",
            Cause::Helper => "a helper thread",
            Cause::Group => "records of its group to be committed",
            Cause::Records => "records to be there",
            Cause::AnswersBefore => "the answers before it",
        }
    }

    /// The request asked for the wait, or shares it with one that is told of itself.
    pub fn is_expected(self) -> bool {
        matches!(self, Cause::Records | Cause::AnswersBefore)
    }
}

/// Of one request, ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    by_cause: [u64; Cause::ALL.len()],
    held_back: u64,
}

impl Waits {
    pub fn add(&mut self, cause: Cause, ns: u64) {
        let sum = &mut self.by_cause[cause as usize];
        *sum = sum.saturating_add(ns);
    }

    pub fn add_all(&mut self, other: &Waits) {
        Cause::ALL.iter().for_each(|cause| self.add(*cause, other.of(*cause)));
    }

    pub fn of(&self, cause: Cause) -> u64 {
        self.by_cause[cause as usize]
    }

    pub fn total(&self) -> u64 {
        self.by_cause.iter().fold(0, |sum, ns| sum.saturating_add(*ns))
    }

    /// The request is begun after these.
    pub fn begin(&mut self) {
        self.held_back = self.total();
    }

    /// Those before the request was begun, together.
    pub fn held_back(&self) -> u64 {
        self.held_back
    }

    /// Makes them last so long together at the most, each by its part; the time that is left.
    pub fn limit(&mut self, most: u64) -> u64 {
        let total = self.total();
        if total > most {
            let part = |ns: u64| u64::try_from(u128::from(ns) * u128::from(most) / u128::from(total)).unwrap_or(most);
            self.by_cause.iter_mut().for_each(|ns| *ns = part(*ns));
        }
        most.saturating_sub(total)
    }

    /// Waits that are no slowness.
    pub fn expected(&self) -> u64 {
        let expected = Cause::ALL.into_iter().filter(|cause| cause.is_expected());
        expected.fold(0, |sum, cause| sum.saturating_add(self.of(cause)))
    }

    /// The longest first; those of none are left out.
    pub fn longest_first(&self) -> Vec<(Cause, Duration)> {
        let all = Cause::ALL.into_iter().map(|cause| (cause, Duration::from_nanos(self.of(cause))));
        let mut waits: Vec<_> = all.filter(|(_, time)| !time.is_zero()).collect();
        waits.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
        waits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_have_places_and_names_of_their_own() {
        for (place, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, place);
            assert!(Cause::ALL[..place].iter().all(|other| other.name() != cause.name()));
        }
    }

    #[test]
    fn waits_add_up_by_cause() {
        let mut waits = Waits::default();
        waits.add(Cause::Device, 5);
        waits.add(Cause::Records, 100);
        waits.add_all(&Waits { by_cause: [1; Cause::ALL.len()], held_back: 0 });
        assert_eq!((waits.of(Cause::Device), waits.of(Cause::Sync)), (6, 1));
        assert_eq!((waits.total(), waits.expected()), (118, 102));
        let first: Vec<_> =
            waits.longest_first().into_iter().take(2).map(|(cause, time)| (cause, time.as_nanos())).collect();
        assert_eq!(first, [(Cause::Records, 101), (Cause::Device, 6)]);
        waits.add(Cause::Device, u64::MAX);
        assert_eq!(waits.total(), u64::MAX);
    }

    #[test]
    fn waits_last_no_longer_than_they_are_limited_to() {
        let mut waits = Waits::default();
        waits.add(Cause::Device, 60);
        waits.add(Cause::Sync, 30);
        assert_eq!((waits.limit(100), waits.total()), (10, 90));
        assert_eq!((waits.limit(30), waits.of(Cause::Device), waits.of(Cause::Sync)), (0, 20, 10));
        waits.begin();
        waits.add(Cause::Memory, 5);
        assert_eq!((waits.held_back(), waits.total()), (30, 35));
        assert_eq!((waits.limit(0), waits.total()), (0, 0));
    }
}
