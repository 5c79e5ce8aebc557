//! Bugs that the simulator plants to show that it would find them. The broker as shipped has none
//! of this: without the feature `simulator` (or in tests) [`planted`] is the constant `false`.

/// One deliberate fault, consulted where the rule it breaks is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Planted {
    /// The high watermark moves while the ISR is below `min.insync.replicas`.
    HighWatermarkBelowMinimum,
    /// A follower acknowledges what a crash can take from it.
    HighWatermarkCountsSent,
    /// A shrunk ISR counts before its commit.
    ShrinkBeforeCommit,
    /// The ISR is expanded by an incarnation that is over.
    ExpandWithoutIncarnation,
    /// A broker becomes active before the partitions that it led have a new epoch.
    ActiveBeforeEpoch,
    /// A broker that may have lost acknowledged records stays in the ISR.
    UntrustedStaysInIsr,
    /// A restarted leader goes on in its old epoch.
    OldEpochAfterRestart,
    /// A diverging log is cut where another epoch of the leader's ends.
    CutByWrongEpoch,
    /// Events that a reconnect has lost are never read.
    NoReloadAfterReconnect,
    /// A commit whose outcome is unknown is taken for refused.
    UnknownTakenAsRefused,
    /// The ELR stays when the minimum falls below the bound it was made under.
    ElrKeptWhenMinimumFalls,
    /// Producers' sequences outlive the records that were cut.
    ProducersNotCut,
    /// A produce is acknowledged although leadership was lost.
    AckWithoutLeadership,
    /// A group coordinator answers before its answer is committed.
    CoordinatorAnswersEarly,
    /// A leader that is cut off from everybody takes records.
    AppendsApart,
    /// One refused connection counts as the death of a process.
    EvictsAtFirstRefusal,
    /// A broker whose registration was deleted does not notice it.
    EvictedGoesOn,
    /// A leader that was told of a higher epoch is not confirmed by the metadata store.
    DeposedForGood,
    /// A leader that has led on after a restart goes on in that epoch after the next one.
    RenewedOnce,
    /// A broker whose data directory was emptied does not say so, and leads again what it led last.
    EmptiedIsElected,
    /// A batch that was cut off counts as committed once the high watermark passes its place.
    AcksWhatWasCut,
    /// The marker of a transaction is acknowledged before it is committed.
    MarkerAckedEarly,
    /// Markers of a transaction leave before its outcome is committed.
    DeedsBeforeCommit,
    /// A producer that takes a transactional id over gets the epoch of the one before.
    EpochKeptAtTakeover,
    /// Records begin a transaction without a word of its coordinator.
    TransactionUnverified,
    /// A cut of the log forgets which transactions are open.
    OpenForgottenByCut,
    /// Offsets that are committed in a transaction count at once.
    PendingOffsetsCount,
}

impl Planted {
    pub const ALL: [Planted; 27] = [
        Planted::HighWatermarkBelowMinimum,
        Planted::HighWatermarkCountsSent,
        Planted::ShrinkBeforeCommit,
        Planted::ExpandWithoutIncarnation,
        Planted::ActiveBeforeEpoch,
        Planted::UntrustedStaysInIsr,
        Planted::OldEpochAfterRestart,
        Planted::CutByWrongEpoch,
        Planted::NoReloadAfterReconnect,
        Planted::UnknownTakenAsRefused,
        Planted::ElrKeptWhenMinimumFalls,
        Planted::ProducersNotCut,
        Planted::AckWithoutLeadership,
        Planted::CoordinatorAnswersEarly,
        Planted::AppendsApart,
        Planted::EvictsAtFirstRefusal,
        Planted::EvictedGoesOn,
        Planted::DeposedForGood,
        Planted::RenewedOnce,
        Planted::EmptiedIsElected,
        Planted::AcksWhatWasCut,
        Planted::MarkerAckedEarly,
        Planted::DeedsBeforeCommit,
        Planted::EpochKeptAtTakeover,
        Planted::TransactionUnverified,
        Planted::OpenForgottenByCut,
        Planted::PendingOffsetsCount,
    ];
}

#[cfg(any(test, feature = "simulator"))]
mod switch {
    use std::cell::Cell;

    use super::Planted;

    thread_local! {
        static PLANTED: Cell<Option<Planted>> = const { Cell::new(None) };
    }

    /// Plants one bug, or none, for this thread.
    pub fn plant(bug: Option<Planted>) {
        PLANTED.set(bug);
    }

    pub fn planted(bug: Planted) -> bool {
        PLANTED.get() == Some(bug)
    }
}

#[cfg(any(test, feature = "simulator"))]
pub use switch::{plant, planted};

/// True if `bug` is planted.
#[cfg(not(any(test, feature = "simulator")))]
#[inline(always)]
pub const fn planted(_bug: Planted) -> bool {
    false
}
