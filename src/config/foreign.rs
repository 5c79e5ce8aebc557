//! Options Kafka has and Corelane does not honour. None is swallowed: each is warned about by name,
//! or refused where going on without it would be unsafe or break what the user was promised.

use super::value;
use super::{Bounds, Kind};
use Bounds::{Any, AtLeast};
use Verdict::{Ignored, Only, Refused};

/// What happens to an option that is not honoured. The text says why, and what to use instead.
#[derive(Clone, Copy, Debug)]
pub(super) enum Verdict {
    /// Warned about; the broker starts.
    Ignored(&'static str),
    /// Fine with this value (which changes nothing), refused with any other.
    Only(&'static str, &'static str),
    /// The broker does not start.
    Refused(&'static str),
}

const LOOPS: &str = "not needed: one event loop per core (corelane.shards)";
const NO_SECURITY: &str = "this version of Corelane has neither encryption nor authentication nor authorization; \
                           starting without them would leave open what you mean to protect";
const ONE_FETCHER: &str = "each shard has one fetcher for each broker that leads partitions of it (corelane.shards)";
const NO_ZOOKEEPER_SECURITY: &str = "this version of Corelane has neither encryption nor authentication towards ZooKeeper; \
                                     starting without them would leave open what you mean to protect";
const OWN_SHARD: &str = "groups live on the shards that own their partitions of __consumer_offsets";
const NO_ASSIGNMENT_INTERVAL: &str =
    "it bounds settings of single groups that have no effect: targets are computed at once";
const NO_SHARE: &str = "this version of Corelane has no share or streams coordinator";
const NO_CLUSTER: &str = "this version of Corelane has no such setting of replication";
const NO_RETRIES: &str = "a stop waits for at most 30 s until its leaderships have moved";
const NO_QUORUM: &str = "Corelane keeps its metadata itself; there is no controller quorum";
const REPLICATION_RATE: &str = "replication is held to its rate (leader.replication.throttled.rate) over a second";
const NO_OTHERS: &str = "Corelane keeps its metadata itself (refused when several nodes are named)";
const NO_TIERS: &str = "this version of Corelane has no tiered storage";
const NO_POLICY: &str = "this version of Corelane does not run policies; starting would let through what they forbid";
const NO_JITTER: &str = "segments roll without jitter";
const NO_METRICS: &str = "Corelane has no JMX metrics and no reporters";
const NO_LIMIT: &str =
    "this version of Corelane has no such limit; starting would leave the broker less protected than asked";

/// By name; a name that ends in `*` stands for all that begin so, and earlier entries win.
pub(super) static BROKER: &[(&str, Verdict)] = &[
    ("zookeeper.set.acl", Only("false", NO_ZOOKEEPER_SECURITY)),
    ("zookeeper.ssl.client.enable", Only("false", NO_ZOOKEEPER_SECURITY)),
    ("zookeeper.ssl.*", Refused(NO_ZOOKEEPER_SECURITY)),
    ("zookeeper.clientCnxnSocket", Refused(NO_ZOOKEEPER_SECURITY)),
    ("zookeeper.metadata.migration.enable", Only("false", "the metadata of a cluster stays in ZooKeeper")),
    ("zookeeper.sync.time.ms", Ignored("Kafka 3 removed it")),
    ("process.roles", Ignored("every Corelane node does both jobs (refused when broker is not among them)")),
    ("controller.quorum.voters", Ignored(NO_OTHERS)),
    ("controller.quorum.bootstrap.servers", Ignored(NO_OTHERS)),
    ("controller.quorum.*", Ignored(NO_QUORUM)),
    ("controller.listener.names", Ignored("there is no controller listener; the listeners named here are left out")),
    ("controller.performance.*", Ignored(NO_QUORUM)),
    ("controller.socket.timeout.ms", Ignored(NO_QUORUM)),
    ("metadata.*", Ignored(NO_QUORUM)),
    ("control.plane.listener.name", Ignored("Kafka 4 removed it; the listener is served like any other")),
    ("security.inter.broker.protocol", Only("PLAINTEXT", NO_SECURITY)),
    ("authorizer.class.name", Only("", NO_SECURITY)),
    ("early.start.listeners", Ignored("the listener opens when every partition is recovered")),
    ("allow.everyone.if.no.acl.found", Only("true", NO_SECURITY)),
    ("super.users", Only("", NO_SECURITY)),
    ("principal.builder.class", Refused(NO_SECURITY)),
    ("connections.max.reauth.ms", Only("0", NO_SECURITY)),
    ("ssl.*", Refused(NO_SECURITY)),
    ("sasl.*", Refused(NO_SECURITY)),
    ("security.*", Refused(NO_SECURITY)),
    ("delegation.token.*", Refused(NO_SECURITY)),
    ("listener.name.*", Refused("options of a single listener do not exist; most of them protect it")),
    ("password.encoder.*", Ignored("there are no passwords to encode")),
    ("config.providers*", Refused("values from config providers are not resolved; write the values themselves")),
    ("connection.failed.authentication.delay.ms", Ignored("there is no authentication")),
    ("create.topic.policy.class.name", Refused(NO_POLICY)),
    ("alter.config.policy.class.name", Refused(NO_POLICY)),
    ("client.quota.callback.class", Refused(NO_LIMIT)),
    ("quota.producer.default", Refused(NO_LIMIT)),
    ("quota.consumer.default", Refused(NO_LIMIT)),
    ("replication.quota.*", Ignored(REPLICATION_RATE)),
    ("alter.log.dirs.replication.quota.*", Ignored(REPLICATION_RATE)),
    ("queued.max.request.bytes", Ignored("corelane.receive.memory.bytes bounds the bytes held")),
    ("queued.max.requests", Ignored("corelane.connection.pipeline bounds the requests of each connection")),
    ("max.request.partition.size.limit", Ignored("an answer to DescribeTopicPartitions has at most 2000 partitions")),
    ("unclean.leader.election.interval.ms", Ignored("the controller elects whenever something changes")),
    (
        "log.preallocate",
        Only("false", "segments are always extended ahead of their writes, in steps (corelane.preallocate.max.bytes)"),
    ),
    ("log.roll.jitter.ms", Only("0", NO_JITTER)),
    ("log.roll.jitter.hours", Only("0", NO_JITTER)),
    (
        "log.message.timestamp.difference.max.ms",
        Refused("Kafka 4 removed it; use log.message.timestamp.before.max.ms and log.message.timestamp.after.max.ms"),
    ),
    ("log.message.format.version", Ignored("Kafka 4 removed it; only format 2 exists")),
    ("log.message.downconversion.enable", Ignored("Kafka 4 removed it; nothing is converted down")),
    ("log.cleaner.threads", Ignored("each shard cleans the logs it owns, one at a time, on its helper threads")),
    ("log.local.retention.*", Ignored(NO_TIERS)),
    (
        "log.flush.start.offset.checkpoint.interval.ms",
        Ignored("log start offsets are recorded together with the recovery points"),
    ),
    ("log.dir.failure.timeout.ms", Ignored(NO_CLUSTER)),
    ("log.initial.task.delay.ms", Ignored("background tasks wait for their own interval only")),
    ("remote.log.storage.system.enable", Only("false", NO_TIERS)),
    ("remote.*", Ignored(NO_TIERS)),
    ("inter.broker.protocol.version", Ignored("Kafka 4 removed it")),
    ("host.name", Refused("Kafka 3 removed it; use listeners")),
    ("port", Refused("Kafka 3 removed it; use listeners")),
    ("advertised.host.name", Refused("Kafka 3 removed it; use advertised.listeners")),
    ("advertised.port", Refused("Kafka 3 removed it; use advertised.listeners")),
    ("broker.id.generation.enable", Ignored("ids are not generated; set node.id")),
    ("reserved.broker.max.id", Ignored("ids are not generated; set node.id")),
    ("broker.heartbeat.interval.ms", Ignored(NO_CLUSTER)),
    ("broker.session.timeout.ms", Ignored(NO_CLUSTER)),
    ("initial.broker.registration.timeout.ms", Ignored(NO_CLUSTER)),
    ("server.max.startup.time.ms", Ignored("start-up waits for recovery, however long it takes")),
    ("controlled.shutdown.max.retries", Ignored(NO_RETRIES)),
    ("controlled.shutdown.retry.backoff.ms", Ignored(NO_RETRIES)),
    ("replica.socket.receive.buffer.bytes", Ignored("the kernel sizes the buffers of connections between brokers")),
    ("num.replica.fetchers", Ignored(ONE_FETCHER)),
    ("follower.fetch.*", Ignored(NO_TIERS)),
    ("offsets.topic.compression.codec", Only("0", "what group coordinators write is not compressed")),
    ("offsets.commit.timeout.ms", Ignored("a commit is answered when the disk has it")),
    ("offsets.commit.required.acks", Ignored("Kafka 4 removed it")),
    ("group.coordinator.threads", Ignored(OWN_SHARD)),
    ("group.coordinator.background.threads", Ignored(OWN_SHARD)),
    ("group.coordinator.append.linger.ms", Ignored("what waits for a write leaves with the next one")),
    ("group.coordinator.cached.buffer.max.bytes", Ignored("no buffer is kept between writes")),
    ("group.consumer.assignment.interval.ms", Ignored("targets are computed at once")),
    ("group.consumer.min.assignment.interval.ms", Ignored(NO_ASSIGNMENT_INTERVAL)),
    ("group.consumer.max.assignment.interval.ms", Ignored(NO_ASSIGNMENT_INTERVAL)),
    ("group.consumer.regex.refresh.interval.ms", Ignored("regular expressions are resolved whenever topics change")),
    ("group.share.*", Ignored(NO_SHARE)),
    ("group.streams.*", Ignored(NO_SHARE)),
    ("share.*", Ignored(NO_SHARE)),
    ("streams.*", Ignored(NO_SHARE)),
    ("transaction.two.phase.commit.enable", Only("false", "this version of Corelane has no two-phase commit")),
    ("add.partitions.to.txn.*", Ignored("producers try again")),
    ("fetch.purgatory.purge.interval.requests", Ignored("waiting requests are dropped at once")),
    ("producer.purgatory.purge.interval.requests", Ignored("waiting requests are dropped at once")),
    ("delete.records.purgatory.purge.interval.requests", Ignored("waiting requests are dropped at once")),
    ("num.io.threads", Ignored(LOOPS)),
    ("num.network.threads", Ignored(LOOPS)),
    ("num.recovery.threads.per.data.dir", Ignored(LOOPS)),
    ("num.replica.alter.log.dirs.threads", Ignored(LOOPS)),
    ("background.threads", Ignored(LOOPS)),
    ("socket.listen.backlog.size", Ignored("the kernel's net.core.somaxconn bounds it")),
    ("socket.connection.setup.*", Ignored(NO_CLUSTER)),
    ("request.timeout.ms", Ignored(NO_CLUSTER)),
    ("metric.reporters", Ignored(NO_METRICS)),
    ("metrics.*", Ignored(NO_METRICS)),
    ("kafka.metrics.*", Ignored(NO_METRICS)),
    ("auto.include.jmx.reporter", Ignored(NO_METRICS)),
    ("telemetry.*", Ignored(NO_METRICS)),
    ("jmx.*", Ignored(NO_METRICS)),
    ("confluent.*", Ignored("an option of Confluent's own broker")),
    ("unstable.*", Ignored("there are no unstable API versions or features to switch on")),
];

/// The verdict on a broker option Kafka has; `None`: nobody knows the name.
pub(super) fn broker(name: &str) -> Option<Verdict> {
    BROKER.iter().find(|(pattern, _)| matches(pattern, name)).map(|(_, verdict)| *verdict)
}

fn matches(pattern: &str, name: &str) -> bool {
    match (pattern.strip_prefix('*'), pattern.strip_suffix('*')) {
        (Some(inner), _) => name.contains(inner.trim_end_matches('*')),
        (None, Some(prefix)) => name.starts_with(prefix),
        (None, None) => pattern == name,
    }
}

/// A topic option Kafka has and Corelane does not honour.
pub(super) struct TopicOption {
    pub name: &'static str,
    pub kind: Kind,
    pub default: &'static str,
    pub bounds: Bounds,
    /// Why only the default is accepted; `None`: any valid value is, because it has no effect while
    /// another option has its only accepted value.
    only_default: Option<&'static str>,
    /// Kafka 4 does not know it any more: accepted at its old default for older tools, not listed.
    pub removed: bool,
}

const fn harmless(name: &'static str, kind: Kind, default: &'static str, bounds: Bounds) -> TopicOption {
    TopicOption { name, kind, default, bounds, only_default: None, removed: false }
}

const fn fixed(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    bounds: Bounds,
    why: &'static str,
) -> TopicOption {
    TopicOption { name, kind, default, bounds, only_default: Some(why), removed: false }
}

const fn removed(name: &'static str, default: &'static str) -> TopicOption {
    TopicOption {
        name,
        kind: Kind::String,
        default,
        bounds: Any,
        only_default: Some("Kafka 4 removed it"),
        removed: true,
    }
}

/// Defaults and bounds are Kafka's (`LogConfig`).
pub(super) static TOPIC: &[TopicOption] = &[
    fixed("segment.jitter.ms", Kind::Long, "0", AtLeast(0), NO_JITTER),
    fixed("preallocate", Kind::Boolean, "false", Any, "segments are always extended ahead of their writes, in steps"),
    fixed("remote.storage.enable", Kind::Boolean, "false", Any, NO_TIERS),
    harmless("remote.log.copy.disable", Kind::Boolean, "false", Any),
    harmless("remote.log.delete.on.disable", Kind::Boolean, "false", Any),
    harmless("local.retention.ms", Kind::Long, "-2", AtLeast(-2)),
    harmless("local.retention.bytes", Kind::Long, "-2", AtLeast(-2)),
    removed("message.format.version", "3.0-IV1"),
    removed("message.downconversion.enable", "true"),
];

pub(super) fn topic(name: &str) -> Option<&'static TopicOption> {
    TOPIC.iter().find(|option| option.name == name)
}

impl TopicOption {
    /// Whether `text` can be stored; the error is the end of a sentence that begins with the value.
    pub fn check(&self, text: &str) -> Result<(), String> {
        let value = value::parse(self.kind, self.bounds, text)?;
        match self.only_default {
            Some(why) if Ok(value) != value::parse(self.kind, self.bounds, self.default) => {
                let default = if self.default.is_empty() { "empty" } else { self.default };
                Err(format!("is not honoured ({why}); it must be {default}"))
            }
            _ => Ok(()),
        }
    }

    /// Why it is listed although it is not honoured.
    pub fn remark(&self) -> &'static str {
        self.only_default.unwrap_or("stored, but without effect here")
    }
}

#[cfg(test)]
mod tests {
    use super::super::OPTIONS;
    use super::*;

    #[test]
    fn verdicts_are_found_by_name_and_by_pattern() {
        assert!(matches!(broker("num.io.threads"), Some(Ignored(_))));
        assert!(matches!(broker("ssl.keystore.location"), Some(Refused(_))));
        assert!(broker("compression.type").is_none());
        assert!(matches!(broker("leader.replication.quota.window.num"), Some(Ignored(_)) | None));
        assert!(matches!(broker("zookeeper.ssl.truststore.location"), Some(Refused(_))));
        assert!(matches!(broker("zookeeper.sync.time.ms"), Some(Ignored(_))));
        assert!(broker("log.segment.byte").is_none());
    }

    #[test]
    fn no_option_is_both_honoured_and_not() {
        for spec in OPTIONS {
            assert!(broker(spec.name).is_none(), "{}", spec.name);
            assert!(spec.aliases.iter().all(|alias| broker(alias.name).is_none()), "{}", spec.name);
            assert!(spec.topic.is_none_or(|(name, _)| topic(name).is_none()), "{}", spec.name);
        }
    }

    #[test]
    fn the_defaults_of_topic_options_pass() {
        for option in TOPIC {
            assert_eq!(option.check(option.default), Ok(()), "{}", option.name);
        }
    }
}
