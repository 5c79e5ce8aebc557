//! Settings of the transaction coordinator.

/// Kafka's options for transactions; defaults are Kafka's.
#[derive(Clone, Debug, PartialEq)]
pub struct TransactionConfig {
    /// `transaction.max.timeout.ms`
    pub max_timeout_ms: i32,
    /// `transaction.abort.timed.out.transaction.cleanup.interval.ms`
    pub time_out_interval_ms: u64,
    /// `transactional.id.expiration.ms`
    pub id_expiration_ms: i64,
    /// `transaction.remove.expired.transaction.cleanup.interval.ms`
    pub expiry_interval_ms: u64,
}

impl Default for TransactionConfig {
    fn default() -> TransactionConfig {
        TransactionConfig {
            max_timeout_ms: 15 * 60 * 1000,
            time_out_interval_ms: 10_000,
            id_expiration_ms: 7 * 24 * 60 * 60 * 1000,
            expiry_interval_ms: 60 * 60 * 1000,
        }
    }
}
