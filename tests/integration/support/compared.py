"""What Kafka's own tools print of two brokers: a list of commands, run on both, and the lines in which they differ."""

import difflib
import json
import re
from dataclasses import dataclass, field

from . import broker as brokers
from . import java, load, wire

START = 1_700_000_000_000


@dataclass
class Step:
    name: str
    tool: str
    args: list
    # Lines whose order says nothing.
    ordered: bool = True

    @property
    def reads(self):
        """It changes nothing."""
        return any(word in self.args for word in ("--describe", "--list", "describe", "list"))


@dataclass
class Side:
    """One broker, and what its words are replaced by."""

    broker: brokers.Broker
    said: dict = field(default_factory=dict)

    def run(self, step):
        args = [str(arg).format(folder=self.broker.folder) for arg in step.args]
        where = "--bootstrap-controller" if "--bootstrap-controller" in args else "--bootstrap-server"
        # The transactions' and cluster's tools want it before or after their own word, all others anywhere.
        at = 1 if step.tool == java.CLUSTER else 0
        done = java.run(step.tool, *args[:at], where, self.broker.bootstrap, *args[at:], check=False)
        lines = self.plain(done.out)
        lines += [line for line in self.plain(done.log) if not re.match(r"(at |\[main\]|Caused by|\.\.\. \d+)", line)][:1]
        if not step.ordered:
            lines.sort()
        return [f"exit {done.code}", *lines]

    def plain(self, text):
        """Lines without what is another at every run: addresses, folders, ids, times, the width of columns."""
        text = text.replace(self.broker.bootstrap, "ADDRESS").replace(f"/{self.broker.host}:{self.broker.port}", "/ADDRESS")
        text = text.replace(str(self.broker.data_dir), "DIR").replace(str(self.broker.folder), "FOLDER")
        text = re.sub(rf"\b{self.broker.port}\b", "PORT", text)
        text = re.sub(r"(TopicId: |Cluster ID: |topic id |ID: )[A-Za-z0-9_-]{22}", r"\1ID", text)
        text = re.sub(r"\b1[6-9]\d{11}\b", "TIME", text)
        text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "UUID", text)
        # What an error says after its name is each broker's own; the name is not.
        text = re.sub(r"((?:org\.apache\.kafka|java)\.[\w.$]+(?:Exception|Error)): .*", r"\1: ...", text)
        text = re.sub(r"(?im)^(.*\berror\b[^:.]*[:.]).*", r"\1 ...", text)
        text = re.sub(r"adminclient-\d+", "adminclient", text)
        lines = (re.sub(r"\s+", " ", line).strip() for line in text.splitlines())
        return [line for line in lines if line and not re.match(r"at [\w.$/]+\(", line)]


def differences(kafka, corelane):
    """Lines that only one of them has: `-` Kafka's, `+` Corelane's."""
    return [line for line in difflib.ndiff(kafka, corelane) if line[:2] in ("- ", "+ ")]


def prepare(broker):
    """Topics with records, a group with committed offsets, and the files that the commands name."""
    for name, partitions in (("plain", 2), ("spare", 1)):
        # The records are older than Kafka keeps them: its first look is 30 s after its start, the next minutes later.
        load.create_topic(broker, name, partitions, retention_ms=-1)
    with wire.Conn(broker, timeout=60) as conn:
        for n in range(10):
            for p in range(2):
                assert wire.produce(conn, "plain", p, wire.batch([b"x" * 100], timestamp=START + n * 1000))[0] == 0
    from .groups import commit, wait_ready

    for group in ("readers", "leavers"):
        wait_ready(broker, group)
        with wire.Conn(broker, timeout=60) as conn:
            commit(conn, group, {("plain", 0): 4, ("plain", 1): 6})
    load.produce_lines(broker, "spare", 10, 1, enable_idempotence=True)

    def put(name, value):
        (broker.folder / f"{name}.json").write_text(json.dumps({"version": 1, **value}))

    def offsets(*of):
        return {"partitions": [{"topic": t, "partition": p, "offset": o} for t, p, o in of]}

    def plan(*of):
        return {"partitions": [{"topic": t, "partition": p, "replicas": r} for t, p, r in of]}

    put("cut", offsets(("plain", 0, 3), ("plain", 1, -1)))
    put("cut-wrong", offsets(("plain", 0, 1000), ("no-such-topic", 0, 1), ("plain", 9, 1)))
    put("elect", {"partitions": [{"topic": "plain", "partition": 1}]})
    put("elect-wrong", {"partitions": [{"topic": "no-such-topic", "partition": 0}]})
    put("stay", plan(("plain", 0, [0])))
    put("move-wrong", plan(("plain", 0, [7])))
    put("move-absent", plan(("no-such-topic", 0, [0])))
    put("move", {"topics": [{"topic": "plain"}]})


def steps():
    def each(tool, ordered, **named):
        return [Step(f"{tool} {name.replace('_', ' ')}", TOOLS[tool], args.split() if isinstance(args, str) else args, ordered) for name, args in named.items()]

    configs = "--entity-type topics --entity-name made"
    broker = "--entity-type brokers --entity-name 0"
    every_broker = "--entity-type brokers --entity-default"
    group = "--entity-type groups --entity-name readers"
    return [
        *each(
            "topics", True,
            create="--create --topic made --partitions 3 --replication-factor 1 --config segment.bytes=1048576",
            create_again="--create --topic made --partitions 3",
            create_if_not_there="--create --if-not-exists --topic made --partitions 3",
            create_bad_name="--create --topic bad/name --partitions 1",
            create_with_dots="--create --topic with.dots --partitions 1",
            create_in_collision="--create --topic with_dots --partitions 1",
            create_without_partitions="--create --topic none --partitions 0",
            create_with_three_replicas="--create --topic three --partitions 1 --replication-factor 3",
            create_with_a_bad_option="--create --topic bad --config retention.ms=soon",
            create_with_an_unknown_option="--create --topic bad --config retention.msec=1",
            create_assigned="--create --topic assigned --replica-assignment 0,0",
            create_assigned_elsewhere="--create --topic elsewhere --replica-assignment 7",
            create_with_defaults="--create --topic defaults",
            describe="--describe --topic made",
            describe_pattern="--describe --topic ma.*|plain",
            describe_overrides="--describe --topics-with-overrides --exclude-internal",
            describe_under_replicated="--describe --under-replicated-partitions",
            describe_unavailable="--describe --unavailable-partitions",
            describe_at_minimum="--describe --at-min-isr-partitions --topic plain",
            describe_below_minimum="--describe --under-min-isr-partitions",
            describe_absent="--describe --topic no-such-topic",
            describe_absent_if_there="--describe --if-exists --topic no-such-topic",
            describe_offsets="--describe --topic __consumer_offsets",
            grow="--alter --topic made --partitions 5",
            grow_not="--alter --topic made --partitions 5",
            shrink="--alter --topic made --partitions 2",
            grow_absent="--alter --topic no-such-topic --partitions 5",
            grow_assigned="--alter --topic assigned --partitions 3 --replica-assignment 0,0,0",
            delete="--delete --topic assigned",
            delete_absent="--delete --topic no-such-topic",
            delete_absent_if_there="--delete --if-exists --topic no-such-topic",
        ),
        *each("topics", False, list="--list", list_own="--list --exclude-internal", list_pattern="--list --topic ma.*"),
        *each(
            "configs", False,
            topic="--describe " + configs,
            topic_set=f"--alter {configs} --add-config retention.ms=123456,cleanup.policy=[compact,delete]",
            topic_shown="--describe " + configs,
            topic_all=f"--describe --all {configs}",
            topic_bad=f"--alter {configs} --add-config retention.ms=soon",
            topic_unknown=f"--alter {configs} --add-config retention.msec=1",
            topic_unset=f"--alter {configs} --delete-config retention.ms",
            topic_unset_unknown=f"--alter {configs} --delete-config retention.msec",
            topic_absent="--describe --entity-type topics --entity-name no-such-topic",
            topic_set_absent="--alter --entity-type topics --entity-name no-such-topic --add-config retention.ms=1",
            topics="--describe --entity-type topics",
            broker="--describe " + broker,
            broker_set=f"--alter {broker} --add-config log.retention.ms=3600000",
            broker_static=f"--alter {broker} --add-config num.partitions=3",
            broker_unknown=f"--alter {broker} --add-config no.such.option=3",
            broker_shown="--describe " + broker,
            broker_all=f"--describe --all {broker}",
            broker_unset=f"--alter {broker} --delete-config log.retention.ms",
            broker_absent="--describe --entity-type brokers --entity-name 7",
            brokers="--describe --entity-type brokers",
            default=f"--describe {every_broker}",
            default_set=f"--alter {every_broker} --add-config log.retention.ms=7200000,message.max.bytes=2000000",
            default_shown=f"--describe {every_broker}",
            default_bad=f"--alter {every_broker} --add-config log.retention.ms=soon",
            default_unset=f"--alter {every_broker} --delete-config log.retention.ms,message.max.bytes",
            loggers="--describe --entity-type broker-loggers --entity-name 7",
            client="--alter --entity-type clients --entity-name app --add-config producer_byte_rate=1000,consumer_byte_rate=2000.5",
            client_shown="--describe --entity-type clients --entity-name app",
            clients_shown="--describe --entity-type clients",
            client_unset="--alter --entity-type clients --entity-name app --delete-config producer_byte_rate,consumer_byte_rate",
            client_unknown="--alter --entity-type clients --entity-name app --add-config producer_rate=1000",
            client_bad="--alter --entity-type clients --entity-name app --add-config producer_byte_rate=fast",
            user_client="--alter --entity-type users --entity-name alice --entity-type clients --entity-default --add-config request_percentage=50",
            users_clients="--describe --entity-type users --entity-type clients",
            user_client_unset="--alter --entity-type users --entity-name alice --entity-type clients --entity-default --delete-config request_percentage",
            address="--alter --entity-type ips --entity-name 192.0.2.1 --add-config connection_creation_rate=100",
            address_shown="--describe --entity-type ips",
            address_unset="--alter --entity-type ips --entity-name 192.0.2.1 --delete-config connection_creation_rate",
            group="--describe " + group,
            group_set=f"--alter {group} --add-config consumer.session.timeout.ms=50000,consumer.heartbeat.interval.ms=6000",
            group_shown="--describe " + group,
            group_all=f"--describe --all {group}",
            groups="--describe --entity-type groups",
            group_below="--alter " + group + " --add-config consumer.session.timeout.ms=1",
            group_unknown=f"--alter {group} --add-config no.such.option=1",
            group_bad=f"--alter {group} --add-config consumer.heartbeat.interval.ms=soon",
            group_unset=f"--alter {group} --delete-config consumer.session.timeout.ms,consumer.heartbeat.interval.ms",
            group_absent="--describe --entity-type groups --entity-name no-such-group",
        ),
        *each(
            "consumer-groups", False,
            list="--list",
            list_states="--list --state",
            list_types="--list --type",
            list_stable="--list --state Stable",
            list_consumer="--list --type consumer",
            list_bad_state="--list --state Sleeping",
            describe="--describe --group readers",
            describe_members="--describe --group readers --members",
            describe_members_verbose="--describe --group readers --members --verbose",
            describe_state="--describe --group readers --state",
            describe_offsets_verbose="--describe --group readers --offsets --verbose",
            describe_all="--describe --all-groups",
            describe_absent="--describe --group no-such-group",
            describe_absent_state="--describe --group no-such-group --state",
            reset_shown="--reset-offsets --group readers --topic plain --to-earliest --dry-run",
            reset="--reset-offsets --group readers --topic plain:1 --to-offset 2 --execute",
            reset_by_time="--reset-offsets --group readers --all-topics --to-datetime 2023-11-14T22:13:25.000Z --execute",
            reset_beyond="--reset-offsets --group readers --topic plain --shift-by 1000 --execute",
            reset_exported="--reset-offsets --group readers --topic plain --to-latest --export",
            reset_absent_topic="--reset-offsets --group readers --topic no-such-topic --to-latest --execute",
            reset_new_group="--reset-offsets --group newcomers --topic plain --to-latest --execute",
            delete_offsets="--delete-offsets --group readers --topic plain:0",
            delete_offsets_absent="--delete-offsets --group readers --topic no-such-topic",
            described_again="--describe --group readers",
            delete="--delete --group leavers",
            delete_absent="--delete --group no-such-group",
            delete_two="--delete --group newcomers --group no-such-group",
            validate_regex=["--validate-regex", "made.*"],
        ),
        *each("groups", False, list="--list", list_classic="--list --group-type classic", list_consumer="--list --consumer", list_share="--list --share",
              list_protocol="--list --protocol consumer"),
        *each("share-groups", False, list="--list", describe_absent="--describe --group no-such-group"),
        *each("streams-groups", False, list="--list", describe_absent="--describe --group no-such-group"),
        *each("log-dirs", True, describe="--describe --topic-list plain,spare,made", describe_absent="--describe --topic-list no-such-topic",
              describe_absent_broker="--describe --broker-list 7"),
        *each(
            "get-offsets", False,
            all="", all_own="--exclude-internal-topics", latest="--topic plain --time latest", earliest="--topic plain --time earliest",
            by_time="--topic plain --time 1700000004500", of_largest_time="--topic plain --time max-timestamp",
            earliest_local="--topic plain --time earliest-local", latest_tiered="--topic plain --time latest-tiered",
            pattern="--topic-partitions ma.*:0-2,plain:1", absent="--topic no-such-topic", partitions="--topic plain --partitions 0,9",
        ),
        *each("delete-records", False, delete="--offset-json-file {folder}/cut.json", delete_wrong="--offset-json-file {folder}/cut-wrong.json"),
        *each("get-offsets", False, after_deletion="--topic plain --time earliest"),
        *each(
            "features", False,
            describe="describe", upgrade_unknown="upgrade --feature no.such.feature=1", upgrade_beyond="upgrade --feature group.version=9",
            upgrade_same="upgrade --feature group.version=1", downgrade="downgrade --feature group.version=0 --dry-run", disable="disable --feature group.version --dry-run",
        ),
        *each(
            "leader-election", False,
            preferred="--election-type preferred --topic plain --partition 1", preferred_file="--election-type preferred --path-to-json-file {folder}/elect.json",
            preferred_all="--election-type preferred --all-topic-partitions", unclean="--election-type unclean --topic plain --partition 1",
            absent="--election-type preferred --path-to-json-file {folder}/elect-wrong.json", absent_partition="--election-type preferred --topic plain --partition 9",
        ),
        *each(
            "reassign-partitions", False,
            list="--list", execute="--reassignment-json-file {folder}/stay.json --execute", verify="--reassignment-json-file {folder}/stay.json --verify",
            cancel="--reassignment-json-file {folder}/stay.json --cancel", execute_elsewhere="--reassignment-json-file {folder}/move-wrong.json --execute",
            execute_absent="--reassignment-json-file {folder}/move-absent.json --execute",
            verify_absent="--reassignment-json-file {folder}/move-absent.json --verify",
            generate="--topics-to-move-json-file {folder}/move.json --broker-list 0 --generate",
            throttled="--reassignment-json-file {folder}/stay.json --execute --throttle 1000000", verify_throttled="--reassignment-json-file {folder}/stay.json --verify",
        ),
        *each("cluster", False, id="cluster-id", endpoints="list-endpoints", unregister="unregister --id 7"),
        *each(
            "transactions", False,
            list="list", describe_producers="describe-producers --topic spare --partition 0", hanging="find-hanging --broker-id 0",
        ),
        *each("client-metrics", False, list="--list", describe="--describe"),
        *each("broker-api-versions", False, versions=""),
    ]  # fmt: skip


TOOLS = {
    "topics": java.TOPICS,
    "configs": java.CONFIGS,
    "consumer-groups": java.GROUPS,
    "groups": java.ALL_GROUPS,
    "share-groups": java.SHARE_GROUPS,
    "streams-groups": java.STREAMS_GROUPS,
    "log-dirs": java.LOG_DIRS,
    "get-offsets": java.OFFSETS,
    "delete-records": java.DELETE_RECORDS,
    "features": java.FEATURES,
    "leader-election": java.ELECTION,
    "reassign-partitions": java.REASSIGN,
    "cluster": java.CLUSTER,
    "transactions": java.TRANSACTIONS,
    "client-metrics": java.CLIENT_METRICS,
    "broker-api-versions": java.VERSIONS,
}
