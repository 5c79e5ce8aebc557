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
    full_pairs: Optional[int] = None
    ceiling: bool = True  # measured against the null broker too
    cold_gb: float = 0  # size of what is read cold or recovered
    reader: list = field(default_factory=list)  # arguments of the consumer beside the producer
    fill_batch: int = 65536
    why: str = ""  # what a reader of the report should know of the method
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
    "reader_mb_per_s": ("the consumer beside it", "MB/s", 1, False, False),
    "seconds": ("time", "s", 3, True, False),
    "rss_mb": ("resident", "MB", 1, True, False),
    "page_cache_mb": ("page cache", "MB", 1, True, False),
    "total_mb": ("resident + page cache", "MB", 1, True, False),
    "cpu_percent": ("broker CPU", "% of a core", 2, True, False),
    "kb_per_connection": ("memory a connection", "kB", 2, True, False),
}

MEMORY = ["rss_mb", "page_cache_mb", "total_mb"]
LATENCY = ["p50", "p99", "p99_9", "p99_99", "max"]
PRODUCE = ["cpu_s_per_gb", "cpu_s_per_gb_written", "mb_per_s", *LATENCY]


def produce(id, title, batch, rate, *more, **kwargs):
    args = ["--batch-bytes", str(batch), "--rate", str(rate), *map(str, more)]
    if "--record-size" not in args:
        args += ["--record-size", "1024"]
    kwargs.setdefault("metrics", PRODUCE)
    return Axis(id, title, "produce", args, **kwargs)


K16, K64, M1 = 16384, 65536, 1048576
BIG = 1_000_000  # as large a batch as max.message.bytes lets through by default
REQUESTS = ["requests_per_s", "cpu_us_per_request", "p50", "p99"]
E2E = [*LATENCY, "cpu_percent"]
CONSUME = ["cpu_s_per_gb", "mb_per_s"]
BESIDE = ["p50", "p99", "p99_9", "max", "reader_mb_per_s", "cpu_s_per_gb", "mb_per_s"]
TOOLS = ["mb_per_s", "records_per_s", "cpu_s_per_gb", "p50", "p99", "p99_9"]
MEMORY_WHY = (
    "16 MB just written, which both sides hold in memory, read from its start by many consumers at once. Truer than produce-and-consume "
    "less produce alone: at the tail a fetch brings what has come since the last one, not 1 MiB, and the difference of two large figures "
    "has the noise of both."
)
SATURATED = ["mb_per_s", "cpu_s_per_gb", "p50", "p99"]

AXES = [
    Axis("start", "start to first acknowledged record", "", work="start", short=True, short_pairs=2, ceiling=False,
         metrics=["seconds"], why="One core, an empty broker whose storage is formatted; the process' start is included."),
    Axis("idle", "idle, nothing connected", "", work="idle", short=True, short_pairs=1, ceiling=False,
         metrics=[*MEMORY, "cpu_percent"], why="After its start, before any load."),
    produce("64k-100", "64 KB batches at 100 MB/s", K64, 100, short=True, metrics=[*PRODUCE, *MEMORY]),
    produce("16k-100", "16 KB batches at 100 MB/s", K16, 100, short=True),
    Axis("e2e-1k", "end to end, 1,000 records/s", "e2e", ["--rate", "1000"], short=True, metrics=E2E),
    Axis("requests", "requests of one 100-byte record", "requests", ["--record-size", "100"], short=True, metrics=REQUESTS),
    produce("64k-sat", "64 KB batches, as many as go", K64, 0, short=True, metrics=SATURATED),
    produce("64k-flush", "64 KB batches at 100 MB/s, flush before every ack", K64, 100, short=True, flush=True),
    Axis("memory-1m", "consume from memory, 1 MiB fetches", "consume", ["--partition-max-bytes", str(M1), "--fan-out", "128"],
         work="memory", short=True, metrics=CONSUME, why=MEMORY_WHY),
    Axis("memory-16k", "consume from memory, 16 KiB fetches", "consume", ["--partition-max-bytes", str(K16), "--fan-out", "32"],
         work="memory", short=True, fill_batch=K16, metrics=CONSUME, why=MEMORY_WHY),
    produce("64k-100-free", "64 KB batches at 100 MB/s, both cores for everyone", K64, 100, short=True, short_pairs=3, lanes="free"),
    produce("16k-sat", "16 KB batches, as many as go", K16, 0, metrics=SATURATED),
    produce("64k-25", "64 KB batches at 25 MB/s", K64, 25),
    produce("64k-400", "64 KB batches at 400 MB/s", K64, 400),
    produce("16k-25", "16 KB batches at 25 MB/s", K16, 25),
    produce("16k-400", "16 KB batches at 400 MB/s", K16, 400),
    produce("1m-100", "1 MB batches at 100 MB/s", BIG, 100),
    produce("1m-400", "1 MB batches at 400 MB/s", BIG, 400),
    produce("1m-sat", "1 MB batches, as many as go", BIG, 0, metrics=SATURATED),
    produce("64k-100b", "64 KB batches of 100-byte records at 100 MB/s", K64, 100, "--record-size", 100),
    produce("16k-100b", "16 KB batches of 100-byte records at 100 MB/s", K16, 100, "--record-size", 100),
    produce("64k-acks1", "64 KB batches at 100 MB/s, acks=1", K64, 100, "--acks", 1),
    produce("16k-100p", "16 KB batches at 100 MB/s on 100 partitions", K16, 100, partitions=100),
    produce("16k-1000p", "16 KB batches at 100 MB/s on 1,000 partitions", K16, 100, partitions=1000),
    produce("64k-4c", "64 KB batches at 100 MB/s from 4 producers", K64, 100, "--connections", 4, partitions=4),
    produce("64k-50c", "64 KB batches at 100 MB/s from 50 producers", K64, 100, "--connections", 50, partitions=50),
    produce("16k-50c", "16 KB batches at 100 MB/s from 50 producers", K16, 100, "--connections", 50, partitions=50),
    Axis("requests-1k", "requests of one 1 KB record", "requests", ["--record-size", "1024"], metrics=REQUESTS),
    Axis("requests-acks1", "requests of one record, acks=1", "requests", ["--acks", "1"], metrics=REQUESTS),
    Axis("requests-4c", "requests of one record from 4 producers", "requests", ["--connections", "4"], partitions=4, metrics=REQUESTS),
    Axis("requests-50c", "requests of one record from 50 producers", "requests", ["--connections", "50"], partitions=50, metrics=REQUESTS),
    Axis("requests-flush", "requests of one record, flush before every ack", "requests", flush=True, metrics=REQUESTS),
    Axis("e2e-10k", "end to end, 10,000 records/s", "e2e", ["--rate", "10000"], metrics=E2E),
    Axis("e2e-1k-flush", "end to end, 1,000 records/s, flush before every ack", "e2e", ["--rate", "1000"], flush=True, metrics=E2E),
    produce("tail-1", "64 KB batches at 100 MB/s with a consumer at the tail", K64, 100, work="beside", metrics=BESIDE),
    produce("tail-4", "64 KB batches at 100 MB/s with 4 consumers at the tail", K64, 100, work="beside", reader=["--fan-out", "4"], metrics=BESIDE),
    Axis("cold", "consume from the disk", "consume", work="cold", cold_gb=4, metrics=CONSUME,
         why="4 GB unless --most-gb is less; the page cache of the broker's files is dropped before each run."),
    produce("cold-beside", "64 KB batches at 100 MB/s beside a consumer of cold data", K64, 100, work="beside", cold_gb=4, metrics=BESIDE,
            why="The consumer starts with the warm-up and reads as fast as it can, on the client's core."),
    Axis("idle-10k", "10,000 idle connections", "", ["10000"], work="idle_connections", ceiling=False,
         metrics=["rss_mb", "kb_per_connection", "cpu_percent"]),
    Axis("recovery", "kill -9 with 10 GB (or --most-gb) in one partition, until a record is acknowledged there", "", work="recovery", cold_gb=10,
         ceiling=False, full_pairs=3, metrics=["seconds"]),
    produce("16k-100-free", "16 KB batches at 100 MB/s, both cores for everyone", K16, 100, lanes="free"),
    produce("64k-sat-free", "64 KB batches, as many as go, both cores for everyone", K64, 0, lanes="free", metrics=SATURATED),
    Axis("requests-free", "requests of one record, both cores for everyone", "requests", lanes="free", metrics=REQUESTS),
    Axis("e2e-1k-free", "end to end, 1,000 records/s, both cores for everyone", "e2e", ["--rate", "1000"], lanes="free", metrics=E2E),
    Axis("perf-producer", "kafka-producer-perf-test, 64 KB batches", "", ["batch.size=65536", "linger.ms=5"], work="perf_producer",
         ceiling=False, metrics=TOOLS, why="300,000 records of 1 KB; the tool's JVM starts on the client's core, its warm-up is in the figure."),
    Axis("perf-consumer", "kafka-consumer-perf-test", "", work="perf_consumer", ceiling=False, metrics=["mb_per_s", "cpu_s_per_gb"],
         why="It joins a consumer group."),
    Axis("librdkafka-produce", "librdkafka (confluent-kafka) producer", "", ["produce"], work="librdkafka", ceiling=False,
         metrics=["mb_per_s", "records_per_s", "cpu_s_per_gb"], why="300,000 records of 1 KB, linger.ms=5."),
    Axis("librdkafka-consume", "librdkafka (confluent-kafka) consumer, assigned", "", ["consume"], work="librdkafka", ceiling=False,
         metrics=["mb_per_s", "records_per_s", "cpu_s_per_gb"], why="300,000 records of 1 KB."),
]  # fmt: skip

AIMS = [
    Aim("cpu-64k", "CPU per GB in 64 KB batches at 100 MB/s", "64k-100", "cpu_s_per_gb", 0.2, before="4.4 s/GB"),
    Aim("cpu-64k-400", "CPU per GB in 64 KB batches at 400 MB/s", "64k-400", "cpu_s_per_gb", 0.2, before="2.5 s/GB"),
    Aim("cpu-16k", "CPU per GB in 16 KB batches at 100 MB/s", "16k-100", "cpu_s_per_gb", 0.2, before="8.5 s/GB"),
    Aim("sat-64k", "saturation in 64 KB batches", "64k-sat", "mb_per_s", 4, True, before="450 MB/s"),
    Aim("sat-16k", "saturation in 16 KB batches", "16k-sat", "mb_per_s", 4, True, before="182 MB/s"),
    Aim("requests", "requests of one record a second", "requests", "requests_per_s", 3, True, before="14,000-31,000/s"),
    Aim("partitions", "CPU per GB on 1,000 partitions", "16k-1000p", "cpu_s_per_gb", 1.2, of="own", against="16k-100",
        before="8.7 s/GB, of one 8.4"),
    Aim("e2e-1k-p50", "end to end p50 at 1,000/s", "e2e-1k", "p50", 0.5, before="0.35 ms"),
    Aim("e2e-1k-p99", "end to end p99 at 1,000/s", "e2e-1k", "p99", 0.2, before="3-105 ms"),
    Aim("e2e-10k", "10,000 records/s carried, end to end p99 in ms", "e2e-10k", "p99", 5, of="absolute", before="its queue grew without end"),
    Aim("consume-1m", "CPU per GB consumed in 1 MiB fetches", "memory-1m", "cpu_s_per_gb", 1.0, before="0.28 s/GB"),
    Aim("consume-16k", "CPU per GB consumed in 16 KiB fetches", "memory-16k", "cpu_s_per_gb", 0.2, before="5.3 s/GB"),
    Aim("cold", "cold read", "cold", "mb_per_s", 0.95, True, before="890 MB/s"),
    Aim("cold-beside", "the producer's p99 beside a cold reader", "cold-beside", "p99", 0.2, before="39-361 ms"),
    Aim("flush-cpu", "CPU per GB at 100 MB/s, flush before every ack", "64k-flush", "cpu_s_per_gb", 0.2, before="9.0 s/GB"),
    Aim("flush-p99", "p99 at 100 MB/s, flush before every ack", "64k-flush", "p99", 0.2, before="50-506 ms"),
    Aim("idle", "resident when idle", "idle", "rss_mb", 0.15, before="395 MB"),
    Aim("start", "start to first acknowledged record", "start", "seconds", 0.1, before="6.2 s"),
]  # fmt: skip


def by_id(axes=None):
    return {axis.id: axis for axis in axes or AXES}
