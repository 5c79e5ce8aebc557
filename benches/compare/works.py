"""What one measurement of an axis is, by kind of work. Each answers a sample: metric -> figure, and what the report tells of it."""

import os
import time
from signal import SIGCONT, SIGSTOP
from threading import Timer

from . import client, disk, isolate
from .compat import librdkafka, perf_consumer, perf_producer
from .stats import parse_hgrm


WRITE_BEHIND = 0.2  # seconds after which what was acknowledged from memory is on its way: several times corelane.write.behind.max.ms


def sample_of(result, window):
    latency = result.get("latency_ms") or {}
    cpu = window.seconds()
    sample = {name: latency.get(name) for name in ("p50", "p99", "p99_9", "p99_99", "max")}
    sample |= {
        "mb_per_s": result["mb_per_s"],
        "requests_per_s": result["requests_per_s"],
        "records_per_s": result["records_per_s"],
        "void": bool(result["void"]),
        "cpu_s": cpu,
        "cpu_parts": window.parts(),
        "window_mb": result["window_mb"],
        "client_mb_per_s": result["mb_per_s"],
        "errors": result["errors"],
        "command": result["command"],
        "client_cpu_s": result["client_cpu_s"],
        "client_seconds": result["seconds"],
        "send_lag_p99": (result.get("send_lag_ms") or {}).get("p99"),
        "wall_s": window.wall,
        "others_s": window.others(result["client_cpu_s"]),
        "stolen_s": window.stolen,
    }
    if window.ticks:  # what was acknowledged in the window; the generator's own figure leaves out what was due before it
        sample["mb_per_s"] = result["window_mb"] / window.ticks
    if result["window_mb"]:
        sample["cpu_s_per_gb"] = cpu / result["window_mb"] * 1000
    if result.get("window_records"):
        sample["cpu_us_per_request"] = cpu / result["window_records"] * 1e6
    if window.wall:
        sample["cpu_percent"] = cpu / window.wall * 100
    return sample


def place(broker, topic):
    return ["--bootstrap", broker.bootstrap, "--topic", topic]


def length(lab, axis):
    return ["--duration", str(lab.seconds(axis)), "--warmup", str(lab.warmup(axis))]


def measured_bytes(lab, axis, result):
    return result["bytes"] * (1 + lab.warmup(axis) / lab.seconds(axis))


def distribution(lab, tag):
    path = lab.folder / f"{tag}.hgrm"
    return parse_hgrm(path.read_text()) if path.exists() else []


def bench(lab, axis, broker, tag):
    """One run of one `corelane bench` command on the axis' topic."""
    topic = lab.topic(broker, axis)
    args = [*place(broker, topic), "--partitions", str(axis.partitions), *length(lab, axis), *axis.args]
    window = broker.window()
    before, written = isolate.thread_times(broker.pid), lab.disk_writes(axis)
    result = client.timed_run(lab.binary, axis.kind, args, lab.folder, tag, lab.client_cpus(axis), window)
    sample = sample_of(result, window)
    lab.check_pin(axis, broker, before, sample)
    time.sleep(WRITE_BEHIND)
    isolate.syncfs(broker.data)
    sample["mean_write_kib"] = disk.mean_write_kib(written, lab.disk_writes(axis))
    window.tick()
    if sample["window_mb"]:
        sample["cpu_s_per_gb_written"] = window.seconds() / sample["window_mb"] * 1000
    sample |= broker.memory()
    sample["hgrm"] = distribution(lab, tag)
    lab.written(broker, axis, measured_bytes(lab, axis, result))
    return sample


def beside(lab, axis, broker, tag):
    """A producer at its rate, and a consumer that joins before the measured window: at the tail, or of a cold topic."""
    topic, cpus = lab.topic(broker, axis), lab.client_cpus(axis)
    warmup, seconds = lab.warmup(axis), lab.seconds(axis)
    args = [*place(broker, topic), "--partitions", str(axis.partitions), *length(lab, axis), *axis.args]
    if axis.cold_gb:
        source = cold_topic(lab, axis, broker)
        isolate.forget_pages(broker.data)
    else:
        source = topic
    where = ["--from", "earliest" if axis.cold_gb else "end", "--tolerate", "--duration", str(warmup + seconds)]
    window, read_before = broker.window(), broker.read_bytes()
    reader = client.Client(lab.binary, "consume", [*place(broker, source), *where, *axis.reader], lab.folder, f"{tag}-reader", cpus)
    pause = [Timer(after, reader.popen.send_signal, [what]) for after, what in ((warmup, SIGSTOP), (warmup + axis.pause, SIGCONT)) if axis.pause]
    try:
        for step in pause:
            step.start()
        result = client.timed_run(lab.binary, axis.kind, args, lab.folder, tag, cpus, window)
        reader.interrupt()
        read = reader.finish()
    finally:
        for step in pause:
            step.cancel()
        reader.kill()
    sample = sample_of(result, window) | {"device_read_mb": (broker.read_bytes() - read_before) / 1e6}
    sample |= {"reader_mb_per_s": read["mb_per_s"], "reader_command": read["command"], "hgrm": distribution(lab, tag)}
    if sample["window_mb"] and read["errors"]:
        sample["errors"] = {**sample["errors"], **read["errors"]}
    isolate.syncfs(broker.data)
    lab.written(broker, axis, measured_bytes(lab, axis, result))
    return sample


def fill(lab, broker, topic, megabytes, batch, cpus, rate=400):
    """Writes about so much into a topic, at a rate the slower side can follow or as fast as it goes."""
    done = 0.0
    while done < megabytes * 0.98:
        # The rate is rounded up to a whole second's work.
        seconds = max(1, round((megabytes - done) / rate))
        pace = min(rate, (megabytes - done) / seconds)
        args = [*place(broker, topic), "--batch-bytes", str(batch), "--rate", f"{pace:.3f}", "--duration", str(seconds), "--tolerate"]
        run = client.Client(lab.binary, "produce", args, lab.folder, "fill", cpus)
        try:
            result = run.finish()
        finally:
            run.kill()
        if not result["bytes"]:
            raise client.ClientError(f"nothing could be written into {topic}: {result['errors']}")
        done += result["bytes"] / 1e6


def cold_topic(lab, axis, broker):
    """Filled once per broker, and kept for every axis that reads cold data."""
    key = (broker.label, "to be read cold")  # no axis' name: it outlives them
    if key not in lab.topics:
        lab.progress.say(f"filling {lab.gigabytes(axis):g} GB to be read cold: {broker.label}")
        broker.make_topic("cold", 1)
        fill(lab, broker, "cold", lab.gigabytes(axis) * 1000, 65536, lab.client_cpus(axis))
        lab.topics[key] = "cold"
        isolate.syncfs(broker.data)
    return "cold"


def cold(lab, axis, broker, tag):
    """Everything read from the disk: the page cache of the broker's files is dropped first."""
    topic = cold_topic(lab, axis, broker)
    isolate.forget_pages(broker.data)
    return consume(lab, axis, broker, tag, topic)


def memory(lab, axis, broker, tag):
    """Recent data that both sides hold in memory, read by many consumers that each begin at its start."""
    key, fresh = (broker.label, axis.id), (broker.label, axis.id) not in lab.topics
    topic = lab.topic(broker, axis)
    if fresh:
        try:
            fill(lab, broker, topic, 16, axis.fill_batch, lab.client_cpus(axis), rate=16)
        except Exception:
            lab.topics.pop(key, None)
            raise
    return consume(lab, axis, broker, tag, topic)


def recent(lab, axis, broker, tag):
    """Just written, more than small caches hold: written anew before each run, read once by one consumer. The null broker's log has no end."""
    if broker.keeps_nothing:
        return consume(lab, axis, broker, tag, lab.topic(broker, axis), ["--duration", str(lab.options.seconds)])
    lab.drop(broker, axis)
    topic, megabytes = lab.topic(broker, axis), lab.gigabytes(axis) * 1000
    fill(lab, broker, topic, megabytes, axis.fill_batch, lab.client_cpus(axis))
    lab.written(broker, axis, megabytes * 1e6)
    return consume(lab, axis, broker, tag, topic) | broker.memory()


def consume(lab, axis, broker, tag, topic, until=()):
    window = broker.window()
    args = [*place(broker, topic), "--from", "earliest", *axis.args, *until]
    result = client.whole_run(lab.binary, "consume", args, lab.folder, tag, lab.client_cpus(axis), window)
    sample = sample_of(result, window)
    sample["hgrm"] = []  # of fetches, which differ in size between the brokers
    return sample


def start(lab, axis, broker, tag):
    """A broker of its own, empty and formatted, from process start to its first acknowledged record, on one core."""
    broker.freeze()
    fresh = lab.another(broker, "start")
    try:
        seconds = fresh.start(lab.broker_cpus(axis))
        return {"seconds": seconds, "command": fresh.command()}
    finally:
        fresh.kill()
        fresh.wipe()


def recovery(lab, axis, broker, tag):
    """kill -9 of a broker of its own that holds so much in one partition, until it acknowledges a record there again."""
    broker.freeze()
    fresh = lab.another(broker, "recovery")
    try:
        fresh.start(lab.broker_cpus(axis))
        fresh.make_topic("kept", 1)
        fill(lab, fresh, "kept", lab.gigabytes(axis) * 1000, 65536, lab.client_cpus(axis))
        fresh.kill()
        seconds = fresh.start(lab.broker_cpus(axis), timeout=600, topic="kept")
        return {"seconds": seconds, "command": fresh.command()}
    finally:
        fresh.kill()
        fresh.wipe()


def idle(lab, axis, broker, tag):
    """As it is after its start, with nothing connected."""
    time.sleep(2 * lab.options.seconds)  # Kafka goes on compiling for a while
    return resting(broker) | broker.memory()


def resting(broker, seconds=4):
    window = broker.window()
    window.start()
    for _ in range(seconds):
        time.sleep(1)
        window.tick()
    return {"cpu_percent": window.seconds() / window.wall * 100, "cpu_parts": window.parts(), "others_s": window.others(0), "wall_s": window.wall}


def open_files(broker):
    return len(os.listdir(f"/proc/{broker.pid}/fd"))


def settled_files(broker, seconds=30):
    """Open files once no more are being closed: a broker that was frozen still has the connections of the run before."""
    until, files = time.monotonic() + seconds, open_files(broker)
    while time.monotonic() < until:
        time.sleep(1)
        before, files = files, open_files(broker)
        if files == before:
            break
    return files


def idle_connections(lab, axis, broker, tag):
    """Connections that are open and say nothing."""
    count, files, before = int(axis.args[0]), settled_files(broker), broker.rss_bytes()
    args = ["--bootstrap", broker.bootstrap, "--connections", str(count), "--duration", "120"]
    run = client.Client(lab.binary, "idle", [*args, "--quiet"], lab.folder, tag, lab.client_cpus(axis))
    try:
        since = time.monotonic()
        while open_files(broker) - files < count * 0.999:
            if run.popen.poll() is not None or time.monotonic() - since > 60:
                raise client.ClientError(f"{open_files(broker) - files} of {count} connections are open:\n" + run.popen.stderr.read()[-500:])
            time.sleep(0.05)
        time.sleep(1)
        sample = resting(broker) | {"rss_mb": broker.rss_bytes() / 1e6, "command": run.command}
        sample["kb_per_connection"] = max(0, broker.rss_bytes() - before) / count / 1e3
        run.interrupt()
        run.popen.wait(30)
        return sample
    finally:
        run.kill()


WORKS = {
    "bench": bench, "beside": beside, "cold": cold, "memory": memory, "recent": recent, "start": start, "recovery": recovery, "idle": idle,
    "idle_connections": idle_connections, "perf_producer": perf_producer, "perf_consumer": perf_consumer, "librdkafka": librdkafka,
}  # fmt: skip
