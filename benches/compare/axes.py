"""What is run and what is aimed at: the one table from which both the run and the report are made."""

from dataclasses import dataclass, field
from typing import Optional


@dataclass
class Axis:
    """A kind of work. `args` go to `corelane bench` besides what the lab adds (broker, topic, pin, length)."""

    id: str
    title: str
    kind: str
    args: list = field(default_factory=list)
    partitions: int = 1
    flush: bool = False  # flush before every ack on both sides
    work: str = "bench"  # the function in works.py
    lanes: str = "pinned"  # or "free": both cores for both sides
    short: bool = False
    short_pairs: Optional[int] = None  # fewer than the short profile's five
    ceiling: bool = True
    metrics: list = field(default_factory=list)


@dataclass
class Aim:
    """What has to show. `of`: "ratio" Corelane/Kafka, "own" Corelane's figure against its own on `against`, "absolute"."""

    id: str
    what: str
    axis: str
    metric: str
    bound: float
    at_least: bool = False
    of: str = "ratio"
    against: str = ""
    before: str = ""  # Kafka's figure in earlier runs of an independent generator


METRICS = {
    # name: (heading, unit, digits, whether less is better, needs a run that carried its rate)
    "cpu_s_per_gb": ("broker CPU", "s/GB", 2, True, False),
    "cpu_s_per_gb_written": ("... with what was left dirty written out", "s/GB", 2, True, False),
    "mb_per_s": ("throughput", "MB/s", 1, False, False),
    "requests_per_s": ("requests", "/s", 0, False, False),
    "records_per_s": ("records", "/s", 0, False, False),
    "cpu_us_per_request": ("broker CPU", "us/request", 1, True, False),
    "p50": ("p50", "ms", 3, True, True),
    "p99": ("p99", "ms", 3, True, True),
    "p99_9": ("p99.9", "ms", 3, True, True),
    "p99_99": ("p99.99", "ms", 3, True, True),
    "max": ("max", "ms", 2, True, True),
    "seconds": ("time", "s", 3, True, False),
    "rss_mb": ("resident", "MB", 1, True, False),
    "page_cache_mb": ("page cache", "MB", 1, True, False),
    "total_mb": ("resident + page cache", "MB", 1, True, False),
    "cpu_percent": ("broker CPU", "% of a core", 2, True, False),
    "kb_per_connection": ("memory a connection", "kB", 2, True, False),
}

LATENCY = ["p50", "p99", "p99_9", "p99_99", "max"]
PRODUCE = ["cpu_s_per_gb", "cpu_s_per_gb_written", "mb_per_s", *LATENCY]


def produce(id, title, batch, rate, *more, **kwargs):
    args = ["--batch-bytes", str(batch), "--rate", str(rate), *map(str, more)]
    if "--record-size" not in args:
        args += ["--record-size", "1024"]
    kwargs.setdefault("metrics", PRODUCE)
    return Axis(id, title, "produce", args, **kwargs)


K16, K64, M1 = 16384, 65536, 1048576
SATURATED = ["mb_per_s", "cpu_s_per_gb", "p50", "p99"]

AXES = [
    Axis("start", "start to first acknowledged record", "", work="start", short=True, short_pairs=2, ceiling=False, metrics=["seconds"]),
    Axis("idle", "idle, nothing connected", "", work="idle", short=True, short_pairs=1, ceiling=False, metrics=["rss_mb", "page_cache_mb", "cpu_percent"]),
    produce("64k-100", "64 KB batches at 100 MB/s", K64, 100, short=True),
    produce("16k-100", "16 KB batches at 100 MB/s", K16, 100, short=True),
    produce("64k-sat", "64 KB batches, as many as go", K64, 0, short=True, metrics=SATURATED),
    produce("16k-sat", "16 KB batches, as many as go", K16, 0, short=True, metrics=SATURATED),
    Axis("requests", "requests of one record", "requests", ["--record-size", "100"], short=True,
         metrics=["requests_per_s", "cpu_us_per_request", "p50", "p99"]),
    Axis("e2e-1k", "end to end, 1,000 records/s", "e2e", ["--rate", "1000"], short=True, metrics=[*LATENCY, "cpu_percent"]),
    produce("64k-25", "64 KB batches at 25 MB/s", K64, 25),
    produce("16k-25", "16 KB batches at 25 MB/s", K16, 25),
]  # fmt: skip

AIMS = [
    Aim("cpu-64k", "CPU per GB in 64 KB batches at 100 MB/s", "64k-100", "cpu_s_per_gb", 0.2, before="4.4 s/GB"),
    Aim("cpu-16k", "CPU per GB in 16 KB batches at 100 MB/s", "16k-100", "cpu_s_per_gb", 0.2, before="8.5 s/GB"),
    Aim("sat-64k", "saturation in 64 KB batches", "64k-sat", "mb_per_s", 4, True, before="450 MB/s"),
    Aim("sat-16k", "saturation in 16 KB batches", "16k-sat", "mb_per_s", 4, True, before="182 MB/s"),
    Aim("requests", "requests of one record a second", "requests", "requests_per_s", 3, True, before="14,000-31,000/s"),
    Aim("e2e-1k-p50", "end to end p50 at 1,000/s", "e2e-1k", "p50", 0.5, before="0.35 ms"),
    Aim("e2e-1k-p99", "end to end p99 at 1,000/s", "e2e-1k", "p99", 0.2, before="3-105 ms"),
]


def by_id(axes=None):
    return {axis.id: axis for axis in axes or AXES}
