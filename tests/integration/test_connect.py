"""A source of Connect with exactly-once support: each of its records is there once, whatever is killed meanwhile."""

import collections
import json
import random
import time
import urllib.error
import urllib.request

import pytest

from support import java, load
from support.applications import Application, Follower, committed, through_kills
from support.broker import HOST, QUICK_TRANSACTIONS, free_port

TOPIC, NAME, TASKS = "numbers", "numbers", 2


class Worker(Application):
    """One of a distributed Connect cluster."""

    def __init__(self, broker, folder):
        self.port = free_port()
        plugin, config = folder / "plugin", folder / "worker.properties"
        manifest = plugin / "META-INF/services/org.apache.kafka.connect.source.SourceConnector"
        manifest.parent.mkdir(parents=True)
        manifest.write_text("Numbers\n")
        options = {
            "bootstrap.servers": broker.bootstrap,
            "group.id": "connect",
            "exactly.once.source.support": "enabled",
            "listeners": f"http://{HOST}:{self.port}",
            "key.converter": "org.apache.kafka.connect.storage.StringConverter",
            "value.converter": "org.apache.kafka.connect.storage.StringConverter",
            "plugin.discovery": "service_load",
            "config.storage.topic": "connect-configs",
            "offset.storage.topic": "connect-offsets",
            "status.storage.topic": "connect-status",
            "config.storage.replication.factor": 1,
            "offset.storage.replication.factor": 1,
            "status.storage.replication.factor": 1,
            "offset.storage.partitions": 5,
            "status.storage.partitions": 2,
            "session.timeout.ms": 3000,
            "heartbeat.interval.ms": 500,
            # Tasks of a worker that is away go to another that soon.
            "scheduled.rebalance.max.delay.ms": 500,
            "reconnect.backoff.max.ms": 200,
        }
        config.write_text("".join(f"{k}={v}\n" for k, v in options.items()))
        super().__init__(folder, f"{java.compiled('Numbers')}:{plugin}", "org.apache.kafka.connect.cli.ConnectDistributed", config, heap="384m")

    def ask(self, method, path, body=None):
        """The answer, or None while there is none."""
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(f"http://{HOST}:{self.port}{path}", data, headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=20) as response:
                return json.loads(response.read() or b"{}")
        except urllib.error.HTTPError as e:
            assert e.code in (404, 409, 500, 503), f"{method} {path}: {e.code} {e.read()}"
        except OSError:
            pass


def restart_failed(workers):
    """What an operator does: a task stays failed where the worker that should have fenced its producers was killed. -> whether one was"""
    status = next(filter(None, (w.ask("GET", f"/connectors/{NAME}/status") for w in workers)), {"tasks": []})
    if any(task["state"] == "FAILED" for task in status["tasks"]):
        return any(w.ask("POST", f"/connectors/{NAME}/restart?includeTasks=true&onlyFailed=true") for w in workers)
    return False


class Numbers:
    """Each partition's are 0, 1, 2, ..."""

    def __init__(self):
        self.next = dict.fromkeys(range(TASKS), 0)

    def __call__(self, partition, key, value):
        assert int(value) == self.next[partition], f"partition {partition}: {value} where {self.next[partition]} is due"
        self.next[partition] += 1


@pytest.mark.timeout(3600)
def test_source_records_are_there_once_through_kills(make_broker, length, figure):
    rounds, dice = length.pick(2, 30), random.Random(16)
    b = make_broker(QUICK_TRANSACTIONS)
    b.start()
    load.create_topic(b, TOPIC, TASKS)
    workers = [Worker(b, b.folder / f"worker-{n}") for n in range(2)]
    numbers, waits, restarts = Numbers(), [], collections.Counter()
    follower = Follower(b, TOPIC, TASKS, numbers)
    try:
        for w in workers:
            w.start()
        connector = {"connector.class": "Numbers", "topic": TOPIC, "tasks.max": TASKS, "exactly.once.support": "required"}
        follower.until(lambda: workers[0].ask("PUT", f"/connectors/{NAME}/config", connector), "a connector", workers)

        def go_on(what):
            """Until records come that were written after now."""
            began, ends = time.monotonic(), {p: load.end(b, TOPIC, p) for p in range(TASKS)}

            def gone_on():
                if time.monotonic() - began > 10:
                    restarts["tasks"] += restart_failed(workers)
                return all(follower.at[p] > end + 100 for p, end in ends.items())

            follower.until(gone_on, what, workers)
            waits.append(time.monotonic() - began)

        go_on("the first records")
        kills = through_kills(b, workers, "worker", dice, rounds, lambda kill: go_on(f"records after {kill}"), topics=[TOPIC])
        status = next(filter(None, (w.ask("GET", f"/connectors/{NAME}/status") for w in workers)))
        assert [t["state"] for t in status["tasks"]] == ["RUNNING"] * TASKS, status
        for w in workers:
            w.stop()
    finally:
        for w in workers:
            w.kill()
        follower.close()
    again = Numbers()
    for partition, records in committed(b, TOPIC, TASKS).items():
        for record in records:
            again(partition, *record)
    assert all(again.next[p] >= n for p, n in numbers.next.items()), (again.next, numbers.next)
    waits.sort()
    figure(
        f"{sum(again.next.values())} records, kills: {dict(kills)}, failed tasks restarted {restarts['tasks']} times",
        f"records went on after {waits[len(waits) // 2]:.1f} s (median), {waits[-1]:.1f} s at most",
    )
