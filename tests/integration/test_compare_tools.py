"""What Kafka's own tools print of Corelane and of Apache Kafka: each line that differs is listed here with its reason
(`scripts/compare-tools`)."""

import re
import time

import pytest

from support import broker as brokers
from support import compared
from support.compared import Side, differences, prepare, steps

from conftest import data_root

PROPS = {"offsets.topic.num.partitions": 4, "offsets.topic.replication.factor": 1, "group.initial.rebalance.delay.ms": 0}
# (command, line, reason): patterns of the whole; a line begins with - if only Kafka has it, with + if only Corelane has.
OTHER_GROUPS = r"\w*Share\w*|StreamsGroup\w+"
QUORUM = "AddRaftVoter|RemoveRaftVoter|UpdateRaftVoter|DescribeQuorum|UnregisterBroker"
SECURITY = r"\w+DelegationToken|AlterUserScramCredentials|SaslAuthenticate"
EXPECTED = [
    ("topics describe.*", ".*Configs:.*|- Topic: .*", "Kafka stores min.insync.replicas for all brokers where it has eligible leader replicas"),
    ("configs (brokers?|default|default shown)", "- min.insync.replicas=1 .*DYNAMIC_DEFAULT_BROKER_CONFIG.*", "the same"),
    ("configs topic all", "[-+] min.insync.replicas=1 .*", "the same"),
    ("configs (topics|topic (shown|all))", r"[-+] (retention|segment|flush)\.ms=.*", "Kafka knows no default of options that others stand for: log.retention.hours, log.roll.hours"),
    ("configs broker shown", "[-+] log.retention.ms=.*", "the same"),
    ("configs topic all", r"[-+] ((remote\.log|remote\.storage|local\.retention)\..*|preallocate=.*|segment.jitter.ms=.*)", "options without effect have no broker's option beside them"),
    ("configs broker all", ".*", "each broker has options of its own; test_options.py compares those that both have"),
    ("configs broker unknown", ".*", "Kafka takes any name for an option of a plugin"),
    ("configs (brokers?|broker shown)", r"- no\.such\.option=.*", "and shows it"),
    ("features describe", "[-+] Feature: .*", "features of KRaft and of share and streams groups are not there, group.version is always 1 and transaction.version 2"),
    ("features (downgrade|disable)", ".*", "group.version is always 1, transaction.version 2"),
    ("cluster unregister", ".*", "registrations are ephemeral: a broker that is gone has none"),
    ("broker-api-versions versions", rf"[-+] ({OTHER_GROUPS})\(.*", "there are neither share nor streams groups"),
    ("broker-api-versions versions", rf"[-+] ({QUORUM})\(.*", "there is no quorum of controllers"),
    ("broker-api-versions versions", rf"[-+] ({SECURITY})\(.*", "there is no authentication"),
]  # fmt: skip


def expected(step, line):
    """Which of the table's rows says so."""
    return [n for n, (name, pattern, _) in enumerate(EXPECTED) if re.fullmatch(name, step) and re.fullmatch(pattern, line)]


def compare(step, sides):
    """Lines that differ. Kafka answers reads from an image that comes after its controller's: they are asked again."""
    found = differences(*(side.run(step) for side in sides))
    for _ in range(3):
        if not step.reads or all(expected(step.name, line) for line in found):
            break
        time.sleep(1)
        found = differences(*(side.run(step) for side in sides))
    return found


@pytest.mark.timeout(1200)
@pytest.mark.skipif(brokers.target() != "corelane", reason="starts both")
def test_the_tools_print_the_same(root, watch):
    sides = [Side(kind(root / f"tools-{kind.kind}", PROPS)) for kind in (brokers.KafkaBroker, brokers.Broker)]
    try:
        for side in sides:
            watch(side.broker)
            side.broker.start()
            prepare(side.broker)
        report, wrong, used = [], [], set()
        for step in steps():
            found = compare(step, sides)
            if not found:
                report.append(f"{step.name}: the same")
                continue
            report.append(f"{step.name}: {' '.join(map(str, step.args))}")
            for line in found:
                rows = expected(step.name, line)
                used.update(rows)
                report.append(f"  {line}" + (f"    [{EXPECTED[rows[0]][2]}]" if rows else "    [UNEXPECTED]"))
                if not rows:
                    wrong.append(f"{step.name}: {line}")
    finally:
        for side in sides:
            side.broker.kill()
    out = data_root() / "compare-tools.txt"
    report += [f"no longer so: {row}" for n, row in enumerate(EXPECTED) if n not in used]
    out.write_text("".join(f"{line}\n" for line in report))
    assert not wrong, f"{len(wrong)} differences without a reason, see {out}:\n" + "\n".join(wrong)
