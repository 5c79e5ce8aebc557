//! Options of transaction coordinators and of the topic they keep their transactions in.

use super::{Access, OptionSpec, broker};
use crate::config::value::{Bounds, Kind};
use Bounds::{Any, AtLeast, Between};
use Kind::{Boolean, Int};

/// An integer of the transaction settings.
macro_rules! transaction {
    ($field:ident) => {
        Access::Server {
            set: |config, value| {
                config.transaction.$field = value.integer().try_into().map_err(|_| "does not fit".to_owned())?;
                Ok(())
            },
            get: |config| config.transaction.$field.to_string(),
        }
    };
}

pub(super) const TRANSACTIONS: &[OptionSpec] = &[
    broker(
        "transaction.state.log.num.partitions",
        Int,
        "50",
        Between(1, 10_000),
        integer!(Server transaction_topic_num_partitions),
        "Partitions of __transaction_state, which is made when the first transactional producer looks for its coordinator. Without effect once it is there: the topic keeps its number.",
    ),
    broker(
        "transaction.state.log.replication.factor",
        Int,
        "3",
        Between(1, 32_767),
        integer!(Server transaction_topic_replication_factor),
        "Replicas of __transaction_state when it is made; with fewer brokers than that it is not made, and transactions are not served. A broker that is alone makes it with one.",
    ),
    broker(
        "transaction.state.log.min.isr",
        Int,
        "2",
        AtLeast(1),
        integer!(Server transaction_topic_min_isr),
        "min.insync.replicas of __transaction_state when it is made. A broker that is alone makes it with one.",
    ),
    broker(
        "transaction.state.log.segment.bytes",
        Int,
        "104857600",
        Between(1 << 20, i32::MAX as i64),
        integer!(Server transaction_topic_segment_bytes),
        "Largest segment of __transaction_state when it is made: what a restart reads beyond the compacted transactions.",
    ),
    broker(
        "transaction.state.log.load.buffer.size",
        Int,
        "5242880",
        Between(65_536, 1 << 28),
        integer!(Server transaction_load_buffer_size),
        "Bytes read at a time while transactions are loaded.",
    ),
    broker(
        "transaction.partition.verification.enable",
        Boolean,
        "true",
        Any,
        boolean!(Server transaction_verification),
        "Whether a partition takes the first records of a transaction only once its coordinator has said that the partition takes part (KIP-890). Without it, records that come late may open a transaction that nobody ends. Clients of transaction.version 2 are always verified.",
    ),
    broker(
        "transaction.max.timeout.ms",
        Int,
        "900000",
        AtLeast(1),
        transaction!(max_timeout_ms),
        "Longest transaction timeout that a producer may ask for; its transactions are aborted after that time.",
    ),
    broker(
        "transaction.abort.timed.out.transaction.cleanup.interval.ms",
        Int,
        "10000",
        AtLeast(1),
        transaction!(time_out_interval_ms),
        "Time between two searches for transactions that are to be aborted because they took too long.",
    ),
    broker(
        "transactional.id.expiration.ms",
        Int,
        "604800000",
        AtLeast(1),
        transaction!(id_expiration_ms),
        "How long a transactional id is kept after its last transaction.",
    ),
    broker(
        "transaction.remove.expired.transaction.cleanup.interval.ms",
        Int,
        "3600000",
        AtLeast(1),
        transaction!(expiry_interval_ms),
        "Time between two searches for transactional ids to remove.",
    ),
];
