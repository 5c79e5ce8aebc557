"""What one measurement of an axis is, by kind of work. Each answers a sample: metric -> figure, and what the report tells of it."""

import time

from . import client, isolate
from .stats import parse_hgrm


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
        "errors": result["errors"],
        "command": result["command"],
        "client_cpu_s": result["client_cpu_s"],
        "client_seconds": result["seconds"],
        "send_lag_p99": (result.get("send_lag_ms") or {}).get("p99"),
    }
    if result["window_mb"]:
        sample["cpu_s_per_gb"] = cpu / result["window_mb"] * 1000
    if result.get("window_records"):
        sample["cpu_us_per_request"] = cpu / result["window_records"] * 1e6
    if window.wall:
        sample["cpu_percent"] = cpu / window.wall * 100
    return sample


def common_args(lab, axis, broker, topic):
    length = ["--duration", lab.options.seconds, "--warmup", lab.options.warmup]
    place = ["--bootstrap", broker.bootstrap, "--topic", topic]
    spread = [] if "--partitions" in axis.args else ["--partitions", axis.partitions]
    return [*map(str, [*place, *spread, *length])]


def bench(lab, axis, broker, tag):
    """One run of one `corelane bench` command on the axis' topic."""
    topic = lab.topic(broker, axis)
    args = common_args(lab, axis, broker, topic) + axis.args
    window = broker.window()
    before = isolate.thread_times(broker.pid)
    result = client.timed_run(lab.binary, axis.kind, args, lab.folder, tag, lab.client_cpus(axis), window)
    sample = sample_of(result, window)
    lab.check_pin(axis, broker, before, sample)
    isolate.syncfs(broker.data)
    window.tick()
    if sample["window_mb"]:
        sample["cpu_s_per_gb_written"] = window.seconds() / sample["window_mb"] * 1000
    sample |= broker.memory()
    path = lab.folder / f"{tag}.hgrm"
    sample["hgrm"] = parse_hgrm(path.read_text()) if path.exists() else []
    lab.written(broker, axis, result["bytes"] * (1 + lab.options.warmup / lab.options.seconds))
    return sample


def start(lab, axis, broker, tag):
    """A broker of its own, empty and formatted, from process start to its first acknowledged record, on one core."""
    broker.freeze()
    fresh = lab.another(broker, "start")
    try:
        seconds = fresh.start(lab.broker_cpus(axis))
        return {"seconds": seconds, "command": fresh.command(), **fresh.memory()}
    finally:
        fresh.kill()
        fresh.wipe()


def idle(lab, axis, broker, tag):
    """As it is after its start, with nothing connected."""
    time.sleep(3)
    window = broker.window()
    window.start()
    for _ in range(4):
        time.sleep(1)
        window.tick()
    return {"cpu_percent": window.seconds() / window.wall * 100, "cpu_parts": window.parts(), **broker.memory()}


WORKS = {"bench": bench, "start": start, "idle": idle}
