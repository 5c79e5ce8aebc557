"""The same brokers under clients that were not made for this: Kafka's own perf tools and librdkafka."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from . import isolate
from .client import ClientError

RECORDS, SIZE = 300_000, 1024
PERF_LINE = re.compile(
    r"(\d+) records sent, ([0-9.]+) records/sec .*?([0-9.]+) ms avg latency, ([0-9.]+) ms max latency, "
    r"(\d+) ms 50th, (\d+) ms 95th, (\d+) ms 99th, (\d+) ms 99.9th"
)


def run(lab, axis, broker, command, timeout=120):
    """(stdout, sample with the broker's CPU over the whole run)."""
    window = broker.window()
    window.start()
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, cwd=lab.folder,
        start_new_session=True, preexec_fn=isolate.child_setup(lab.client_cpus(axis)), env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    window.tick()
    if done.returncode != 0:
        raise ClientError(f"{' '.join(command[-12:])}: exit {done.returncode}\n{done.stdout[-500:]}\n{done.stderr[-1500:]}")
    return done.stdout, {"command": command, "cpu_s": window.seconds(), "cpu_parts": window.parts()}


def java(lab, main, *args):
    if not lab.libs:
        raise ClientError("Kafka's tools are missing")
    return ["java", "-Xmx512M", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", f"{lab.libs}/*", main, *map(str, args)]


def per_gb(sample, records):
    sample["cpu_s_per_gb"] = sample["cpu_s"] / (records * SIZE) * 1e9


def perf_producer(lab, axis, broker, tag):
    topic = lab.topic(broker, axis)
    command = java(lab, "org.apache.kafka.tools.ProducerPerformance", "--topic", topic, "--num-records", RECORDS, "--record-size", SIZE,
                   "--throughput", "-1", "--producer-props", f"bootstrap.servers={broker.bootstrap}", *axis.args)  # fmt: skip
    out, sample = run(lab, axis, broker, command)
    last = [m for m in map(PERF_LINE.search, out.splitlines()) if m]
    if not last:
        raise ClientError(f"no result line: {out[-500:]}")
    found = last[-1]
    sample |= {"records_per_s": float(found[2]), "mb_per_s": float(found[2]) * SIZE / 1e6, "max": float(found[4])}
    sample |= {"p50": float(found[5]), "p99": float(found[7]), "p99_9": float(found[8])}
    per_gb(sample, int(found[1]))
    lab.written(broker, axis, RECORDS * SIZE)
    return sample


def perf_consumer(lab, axis, broker, tag):
    """Joins a consumer group, so a broker without groups cannot serve it."""
    topic = lab.topic(broker, axis)
    produce = java(lab, "org.apache.kafka.tools.ProducerPerformance", "--topic", topic, "--num-records", RECORDS, "--record-size", SIZE,
                   "--throughput", "-1", "--producer-props", f"bootstrap.servers={broker.bootstrap}")  # fmt: skip
    run(lab, axis, broker, produce)
    command = java(lab, "org.apache.kafka.tools.ConsumerPerformance", "--bootstrap-server", broker.bootstrap, "--topic", topic,
                   "--messages", RECORDS, "--timeout", "8000", "--hide-header", "--group", tag)  # fmt: skip
    try:
        out, sample = run(lab, axis, broker, command, timeout=40)
    except (ClientError, subprocess.TimeoutExpired) as e:
        raise ClientError(f"kafka-consumer-perf-test needs consumer groups: {str(e).strip().splitlines()[-1][:200]}") from None
    rows = [line.split(", ") for line in out.splitlines() if line.count(",") >= 9]
    read = int(rows[-1][4]) if rows else 0
    if read < RECORDS:
        raise ClientError(f"kafka-consumer-perf-test read {read} of {RECORDS} records: it needs consumer groups")
    fetch_ms = float(rows[-1][7])
    sample |= {"records_per_s": read / fetch_ms * 1000, "mb_per_s": read * SIZE / fetch_ms / 1000}
    per_gb(sample, read)
    lab.drop(broker, axis)
    return sample


def librdkafka(lab, axis, broker, tag):
    topic = lab.topic(broker, axis)
    script = Path(__file__).with_name("rdkafka_client.py")
    command = [sys.executable, str(script), axis.args[0], broker.bootstrap, topic, str(RECORDS), str(SIZE)]
    if axis.args[0] == "consume":
        # Reads from the start of the partition: what the first run wrote is there for all of them.
        _, ends = (lab.sizes.get((broker.label, axis.id)), RECORDS * SIZE)
        if lab.sizes[broker.label, axis.id] < ends:
            run(lab, axis, broker, [sys.executable, str(script), "produce", broker.bootstrap, topic, str(RECORDS), str(SIZE)])
            lab.written(broker, axis, ends)
    out, sample = run(lab, axis, broker, command)
    found = json.loads(out)
    sample |= {"records_per_s": found["records"] / found["seconds"], "mb_per_s": found["records"] * SIZE / found["seconds"] / 1e6}
    per_gb(sample, found["records"])
    if axis.args[0] == "produce":
        lab.written(broker, axis, RECORDS * SIZE)
    return sample
