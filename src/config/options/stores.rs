//! Bounds of what clients have the broker remember, over all clients.

use super::{Access, MIB, OptionSpec, broker};
use crate::config::value::{Bounds, Kind};
use Bounds::{AtLeast, Between};
use Kind::{Int, Long};

pub(super) const STORES: &[OptionSpec] = &[
    broker(
        "max.incremental.fetch.session.cache.slots",
        Int,
        "1000",
        AtLeast(0),
        integer!(Server max_incremental_fetch_session_cache_slots),
        "Fetch sessions kept at a time (KIP-227).",
    ),
    broker(
        "producer.id.expiration.ms",
        Int,
        "86400000",
        AtLeast(1),
        integer!(Server producer_id_expiration_ms),
        "Time after which an idle producer's sequence numbers are forgotten.",
    ),
    broker(
        "producer.id.expiration.check.interval.ms",
        Int,
        "600000",
        AtLeast(1),
        integer!(Server producer_id_expiration_check_interval_ms),
        "Time between two searches for idle producers to forget.",
    ),
    broker(
        "corelane.producer.state.max.bytes",
        Long,
        "33554432",
        Between(MIB / 4, 1024 * MIB),
        integer!(Server producer_state_max_bytes),
        "Memory for the sequence numbers of idempotent producers, of all partitions together; each shard has its share. 104 bytes for each producer \
         of a partition, 184 once it has sent two batches. Past it the longest idle ones are forgotten, as after producer.id.expiration.ms. Kafka has no such bound.",
    ),
];
