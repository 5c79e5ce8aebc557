//! An idempotent producer (KIP-98) as brokers tell of it.

/// A producer as a partition knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownProducer {
    pub id: i64,
    pub epoch: i16,
    /// Of the last record of its newest batch; -1: it has written none in this epoch.
    pub last_sequence: i32,
    /// Wall time of its newest batch or marker, ms.
    pub last_ms: i64,
    /// Of the coordinator that had its newest marker written; -1: there is none.
    pub coordinator_epoch: i32,
    /// The first record of its open transaction; -1: none is open.
    pub txn_start_offset: i64,
}
