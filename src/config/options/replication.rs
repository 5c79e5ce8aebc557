//! Options of followers: how they fetch from leaders.

use super::{Access, OptionSpec, broker};
use crate::config::value::{Bounds, Kind};
use crate::config::{ReplicaSelector, ThrottledReplicas};
use Bounds::{Any, AtLeast, Between, OneOf};
use Kind::{Int, List, Long, String as Text};

const UNLIMITED: &str = "9223372036854775807";
const LEADER_SELECTOR: &str = "org.apache.kafka.common.replica.LeaderSelector";
const RACK_AWARE_SELECTOR: &str = "org.apache.kafka.common.replica.RackAwareReplicaSelector";

pub(super) const REPLICATION: &[OptionSpec] = &[
    broker(
        "replica.selector.class",
        Text,
        "",
        OneOf(&["", LEADER_SELECTOR, RACK_AWARE_SELECTOR]),
        Access::Server {
            set: |config, value| {
                config.replica_selector = match value.text() {
                    RACK_AWARE_SELECTOR => ReplicaSelector::RackAware,
                    _ => ReplicaSelector::Leader,
                };
                Ok(())
            },
            get: |config| match config.replica_selector {
                ReplicaSelector::Leader => String::new(),
                ReplicaSelector::RackAware => RACK_AWARE_SELECTOR.to_owned(),
            },
        },
        "The replica that a consumer reads from: the leader, or with RackAwareReplicaSelector one whose broker.rack is the consumer's \
         client.rack, where one is in sync (KIP-392). Followers are then told of committed records at once, which costs a fetch more for each.",
    ),
    broker(
        "replica.fetch.max.bytes",
        Int,
        "1048576",
        AtLeast(0),
        integer!(Server replica_fetch_max_bytes),
        "Records of one partition in an answer to a follower, at most; a larger first batch comes all the same.",
    ),
    broker(
        "replica.fetch.response.max.bytes",
        Int,
        "10485760",
        AtLeast(0),
        integer!(Server replica_fetch_response_max_bytes),
        "Records of an answer to a follower, at most; a larger first batch comes all the same. A shard asks no leader for more than half of \
         corelane.receive.memory.bytes or 128 MiB, and receives the answers of all of them in as much memory as that option says, beside requests.",
    ),
    broker(
        "replica.fetch.min.bytes",
        Int,
        "1",
        AtLeast(0),
        integer!(Server replica_fetch_min_bytes),
        "Records for which a leader answers a follower before replica.fetch.wait.max.ms have passed.",
    ),
    broker(
        "replica.fetch.wait.max.ms",
        Int,
        "500",
        AtLeast(0),
        integer!(Server replica_fetch_wait_max_ms),
        "Longest wait of a follower's fetch for records. It should be less than replica.lag.time.max.ms.",
    ),
    broker(
        "replica.fetch.backoff.ms",
        Int,
        "1000",
        AtLeast(0),
        integer!(Server replica_fetch_backoff_ms),
        "Longest pause between two tries to reach a leader, and before a partition is fetched again that its leader refused. The first tries follow sooner.",
    ),
    broker(
        "replica.high.watermark.checkpoint.interval.ms",
        Long,
        "5000",
        AtLeast(1),
        integer!(Server replica_high_watermark_checkpoint_interval_ms),
        "Time between two notes of the partitions' high watermarks, from which a start goes on; one more is made at a stop.",
    ),
    broker(
        "replica.socket.timeout.ms",
        Int,
        "30000",
        Between(1, 3_600_000),
        integer!(Server replica_socket_timeout_ms),
        "Time after which a leader that does not answer is given up, on top of what a fetch waits for records; also for connecting.",
    ),
    broker(
        "leader.replication.throttled.rate",
        Long,
        UNLIMITED,
        AtLeast(0),
        integer!(Server leader_replication_throttled_rate),
        "Bytes a second that this broker sends to replicas which leader.replication.throttled.replicas of their topic names and which are \
         not in sync (KIP-73). Records of those that are in sync count too, but are not held back.",
    ),
    broker(
        "follower.replication.throttled.rate",
        Long,
        UNLIMITED,
        AtLeast(0),
        integer!(Server follower_replication_throttled_rate),
        "Bytes a second that this broker fetches for replicas of its own which follower.replication.throttled.replicas of their topic names \
         and which are not in sync (KIP-73). Records of those that are in sync count too, but are not held back.",
    ),
    broker(
        "replica.alter.log.dirs.io.max.bytes.per.second",
        Long,
        UNLIMITED,
        AtLeast(0),
        integer!(Server replica_alter_log_dirs_io_max_bytes_per_second),
        "Bytes a second that moves of replicas between the data directories of this broker copy, all together (KIP-113). What is left when a \
         replica is exchanged for its copy, 16 MiB or less, is not held back: it is not served meanwhile.",
    ),
    throttled(
        "leader.replication.throttled.replicas",
        Access::Topic {
            set: |config, value| {
                config.leader_throttled = ThrottledReplicas::parse(value.list())?;
                Ok(())
            },
            get: |config| config.leader_throttled.to_string(),
        },
        "Replicas that leader.replication.throttled.rate of their leader holds back: PARTITION:BROKER,... with the leader's id, or * for all. \
         An option of topics; Kafka has no default of the broker's for it.",
    ),
    throttled(
        "follower.replication.throttled.replicas",
        Access::Topic {
            set: |config, value| {
                config.follower_throttled = ThrottledReplicas::parse(value.list())?;
                Ok(())
            },
            get: |config| config.follower_throttled.to_string(),
        },
        "Replicas that follower.replication.throttled.rate of their own broker holds back: PARTITION:BROKER,... with that broker's id, or * for \
         all. An option of topics; Kafka has no default of the broker's for it.",
    ),
];

const fn throttled(name: &'static str, access: Access, doc: &'static str) -> OptionSpec {
    OptionSpec { name, aliases: &[], topic: Some((name, Any)), kind: List, default: "", bounds: Any, doc, access }
}
