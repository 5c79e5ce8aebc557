//! Options of a cluster: its metadata store, its controller, and how replicas are held.

use super::{Access, Any, AtLeast, Between, Boolean, Int, Long, OptionSpec, Text, broker};

pub(super) const CLUSTER: &[OptionSpec] = &[
    broker(
        "zookeeper.connect",
        Text,
        "",
        Any,
        Access::Server {
            set: |config, value| {
                config.zookeeper_connect = value.text().to_owned();
                Ok(())
            },
            get: |config| config.zookeeper_connect.clone(),
        },
        "The ZooKeeper servers that keep the cluster's metadata, and the path below which they keep it: HOST:PORT,HOST:PORT/CHROOT. A chroot that is missing is made. \
         Not given: the broker is alone and keeps its metadata in its data directory.",
    ),
    broker(
        "zookeeper.session.timeout.ms",
        Int,
        "18000",
        AtLeast(1),
        integer!(Server zookeeper_session_timeout_ms),
        "A broker that ZooKeeper has not heard of for so long counts as dead. ZooKeeper has bounds of its own for it (minSessionTimeout, maxSessionTimeout).",
    ),
    broker(
        "zookeeper.connection.timeout.ms",
        Int,
        "18000",
        AtLeast(1),
        integer!(Server zookeeper_connection_timeout_ms),
        "Longest wait for ZooKeeper at the start. Not given: zookeeper.session.timeout.ms.",
    ),
    broker(
        "zookeeper.max.in.flight.requests",
        Int,
        "256",
        AtLeast(1),
        integer!(Server zookeeper_max_in_flight_requests),
        "Changes of metadata sent to ZooKeeper before the first of them is answered. Kafka's default is 10.",
    ),
    OptionSpec {
        name: "unclean.leader.election.enable",
        aliases: &[],
        topic: Some(("unclean.leader.election.enable", Any)),
        kind: Boolean,
        default: "false",
        bounds: Any,
        doc: "A replica that may lack committed records leads where no other one is left. Without effect on a broker that is alone.",
        access: boolean!(Topic unclean_leader_election),
    },
    broker(
        "auto.leader.rebalance.enable",
        Boolean,
        "true",
        Any,
        boolean!(Server auto_leader_rebalance_enable),
        "Leaderships move back to the partitions' first replicas. Without effect on a broker that is alone, like the other options of the controller.",
    ),
    broker(
        "leader.imbalance.check.interval.seconds",
        Long,
        "300",
        AtLeast(1),
        integer!(Server leader_imbalance_check_interval_seconds),
        "Time between two looks at where leaderships are (auto.leader.rebalance.enable).",
    ),
    broker(
        "leader.imbalance.per.broker.percentage",
        Int,
        "10",
        Between(0, 100),
        integer!(Server leader_imbalance_per_broker_percentage),
        "Leaderships move back to a broker once it leads so many percent too few of the partitions that have it as their first replica.",
    ),
    broker(
        "controlled.shutdown.enable",
        Boolean,
        "true",
        Any,
        boolean!(Server controlled_shutdown_enable),
        "On SIGTERM, leaderships move to other brokers before this one stops.",
    ),
];
