//! Bounds of what clients have the broker remember, over all clients.

use super::{Access, MIB, OptionSpec, TIB, broker};
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
        "corelane.fetch.session.memory.bytes",
        Long,
        "33554432",
        Between(65_536, TIB),
        integer!(Server fetch_session_memory_bytes),
        "Memory for fetch sessions, of all clients together; each shard has its share. Past it further clients fetch without a session, which costs them \
         longer requests and answers. Kafka bounds only the number of sessions.",
    ),
    broker(
        "corelane.cache.bytes",
        Long,
        "-1",
        Between(-1, TIB),
        integer!(Server cache_bytes),
        "With corelane.acknowledge=held, memory of all shards together for what consumers that lag have before them: a batch whose place in the arena is wanted is copied \
              for a consumer, or a follower, of its partition that has not read it and was there within two minutes, so that it is not read from the device. Without such a consumer nothing is copied. \
              -1: an eighth of the host's memory, or of the limit of its control group, if a data directory is on a hard disk, else none: a consumer that lags costs an SSD less than the copies cost. \
              It takes no more than is available, and gives memory back when that runs short. 0: none.",
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
    broker(
        "corelane.max.partitions",
        Int,
        "0",
        Between(0, 10_000_000),
        integer!(Server max_partitions),
        "Most partitions of all topics together; whoever asks for more is told POLICY_VIOLATION. Those that exist are served in any case, and __consumer_offsets is \
         made in any case. 0: three eighths of the file descriptors that the process may have, at most 100000. Kafka has no such bound.",
    ),
    broker(
        "corelane.max.segments",
        Int,
        "100000",
        Between(100, 10_000_000),
        integer!(Server max_segments),
        "Segments of all partitions together past which a segment ends only when segment.bytes are reached, not by age or by the size of its index; each \
         shard has its share. Without it, clients that choose their timestamps could begin a segment with each batch. Kafka has no such bound.",
    ),
    broker(
        "corelane.group.memory.bytes",
        Long,
        "134217728",
        Between(MIB, TIB),
        integer!(Server group_memory_bytes),
        "Memory for groups of all kinds, their committed offsets, and transactional ids, of all together; each shard has its share. When three quarters are used, no \
         further group is taken; when all is, no further member, larger subscription or offset of another partition: GROUP_MAX_SIZE_REACHED. Transactional ids are taken while any is left: COORDINATOR_NOT_AVAILABLE then. What is there is served on. Kafka has no such bound.",
    ),
];
