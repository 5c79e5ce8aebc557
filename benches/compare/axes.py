"""The axes: kinds of work, from which both the run and the report are made. What is aimed at is in aims.py."""

from dataclasses import dataclass, field, replace
from typing import Optional


@dataclass
class Axis:
    """A kind of work. `args` go to `corelane bench` besides what the lab adds (broker, topic, pin, length)."""

    id: str
    title: str
    kind: str
    args: list = field(default_factory=list)
    partitions: int = 1
    level: str = "held"  # what an acknowledgement of Corelane waits for: see levels.py
    options: dict = field(default_factory=dict)  # of Corelane; without one of them in the binary the axis is left out
    wanted: dict = field(default_factory=dict)  # of Corelane; passed where the binary has them
    topic: dict = field(default_factory=dict)  # options of the axis' topic, on both sides
    disk: str = ""  # or "hdd": both on a device throttled to a hard disk
    work: str = "bench"  # the function in works.py
    lanes: str = "pinned"  # or "free": both cores for both sides
    brokers: int = 1  # or 3: a cluster a side, each partition on all of them
    short: bool = False
    short_pairs: Optional[int] = None  # fewer than the short profile's four
    full_pairs: Optional[int] = None
    ceiling: bool = True  # measured against the null broker too
    writing_floor: bool = False  # measured against the null broker that writes behind, too
    seconds: Optional[int] = None  # of a run, whatever --seconds says
    warmup: Optional[int] = None
    long: bool = False  # has a row of 60 s beside it with --long
    cold_gb: float = 0  # size of what is read cold or recovered
    reader: list = field(default_factory=list)  # arguments of the consumer beside the producer
    pause: float = 0  # seconds for which that consumer stands still
    fill_batch: int = 65536
    why: str = ""  # what a reader of the report should know of the method
    metrics: list = field(default_factory=list)


    @property
    def flush(self):
        """A flush before every acknowledgement, on both sides."""
        return self.level == "synced"

    @property
    def rate(self):
        """The fixed rate asked for, 0 at saturation."""
        return float(self.args[self.args.index("--rate") + 1]) if "--rate" in self.args else 0.0

    @property
    def floors(self):
        """The sides besides the two brokers."""
        return (["null"] if self.has_floor else []) + (["writing"] if self.writing_floor else [])

    @property
    def has_floor(self):
        """The null broker gets the same load, as the floor of what any broker can take."""
        served = self.work == "bench" and self.kind in ("produce", "requests") or self.work == "recent"
        return self.ceiling and served and not self.disk


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
    "device_read_mb": ("read from the device", "MB", 1, True, False),
    "seconds": ("time", "s", 3, True, False),
    "rss_mb": ("resident", "MB", 1, True, False),
    "page_cache_mb": ("page cache", "MB", 1, True, False),
    "total_mb": ("resident + page cache", "MB", 1, True, False),
    "cpu_percent": ("broker CPU", "% of a core", 2, True, False),
    "mean_write_kib": ("mean device write", "KiB", 0, False, False),
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
BESIDE = ["p99", "p50", "p99_9", "max", "cpu_s_per_gb", "mb_per_s", "reader_mb_per_s"]
TOOLS = ["mb_per_s", "records_per_s", "cpu_s_per_gb", "p50", "p99", "p99_9"]
MEMORY_WHY = (
    "16 MB just written, which both sides hold in memory, read from its start by many consumers at once. Truer than produce-and-consume "
    "less produce alone: at the tail a fetch brings what has come since the last one, not 1 MiB, and the difference of two large figures "
    "has the noise of both."
)
SATURATED = ["mb_per_s", "cpu_s_per_gb", "p50", "p99"]

HALF_HOUR_WHY = "Retention keeps 4 GB in segments of 512 MiB; it is looked after every five minutes, as shipped, so up to 34 GB are there at a time."
PAUSED_WHY = (
    "The consumer reads at the tail, is stopped (SIGSTOP) when the measured window begins, goes on, far behind, and catches up as fast as it "
    "can on the client's core. What the broker reads from the device meanwhile is from /proc/PID/io."
)
RECENT_WHY = (
    "2 GB, written directly before each run, read once from its start by one consumer: more than small caches hold, less than the host's "
    "memory. Memory is taken after that load."
)
WRITTEN_WHY = (
    "Corelane acknowledges what its device has written. Kafka has no such level: as shipped, which is what stands beside it here, it "
    "promises less (its page cache); with a flush before every acknowledgement, more."
)
CODEC_WHY = "Half of each record compresses well; batches of 128 KB become 64 KB on the wire. The rate is that of the wire."
# Of tuning/hdd.properties, what concerns producers.
HDD_OPTIONS = {"corelane.write.behind.max.ms": "4000", "corelane.arena.bytes": str(1 << 30), "corelane.write.queue.depth": "2", "corelane.checkpoint.bytes": str(256 << 20), "corelane.cache.bytes": str(2 << 30)}
HDD_WHY = (
    "A file behind a loop device that the block control group holds to 150 MB/s and 120 requests a second, for everything that reaches it, "
    "the kernel's write-back included. Kafka there is a JVM of its own, warmed up by the ten seconds before the window only."
)


def codec(name):
    return produce(f"64k-{name}-50", f"64 KB batches of {name} at 50 MB/s", 2 * K64, 50, "--codec", name, "--compressible", 50, short=True, why=CODEC_WHY)


def requests(connections, in_flight, **kwargs):
    args = ["--record-size", "100", "--connections", str(connections), "--in-flight", str(in_flight)]
    title = f"requests of one 100-byte record, {connections} x {in_flight} in flight"
    return Axis(f"requests-{connections}x{in_flight}", title, "requests", args, partitions=connections, metrics=REQUESTS, **kwargs)


def recent(id, title, bytes, batch, **kwargs):
    args = ["--partition-max-bytes", str(bytes)]
    return Axis(id, title, "consume", args, work="recent", cold_gb=2, fill_batch=batch, short=True, short_pairs=3, full_pairs=3, why=RECENT_WHY, **kwargs)


AXES = [
    # the short list, most telling first: what does not fit into its time is left out from the end
    Axis("start", "start to first acknowledged record", "", work="start", short=True, short_pairs=2, ceiling=False,
         metrics=["seconds"], why="One core, an empty broker whose storage is formatted; the process' start is included."),
    Axis("idle", "idle, nothing connected", "", work="idle", short=True, short_pairs=1, ceiling=False,
         metrics=["rss_mb", "cpu_percent", "page_cache_mb", "total_mb"], why="After its start, before any load."),
    produce("64k-100", "64 KB batches at 100 MB/s", K64, 100, short=True, long=True, writing_floor=True),
    produce("16k-100", "16 KB batches at 100 MB/s", K16, 100, short=True, long=True),
    Axis("e2e-1k", "end to end, 1,000 records/s", "e2e", ["--rate", "1000"], short=True, long=True, metrics=E2E),
    produce("64k-sat", "64 KB batches, at saturation", K64, 0, short=True, metrics=SATURATED),
    produce("16k-sat", "16 KB batches, at saturation", K16, 0, short=True, metrics=SATURATED),
    requests(1, 5, short=True),
    requests(4, 5, short=True),
    requests(8, 32, short=True),
    recent("recent-1m", "consume 2 GB just written, 1 MiB fetches", M1, K64, metrics=[*CONSUME, *MEMORY]),
    recent("recent-16k", "consume 2 GB just written, 16 KiB fetches", K16, K16, metrics=CONSUME),
    produce("16k-1000p", "16 KB batches at 100 MB/s on 1,000 partitions", K16, 100, partitions=1000, short=True, long=True),
    produce("64k-synced", "64 KB batches at 100 MB/s, flush before every ack", K64, 100, short=True, level="synced", long=True),
    produce("64k-written", "64 KB batches at 100 MB/s, acknowledged when written", K64, 100, short=True, level="written", why=WRITTEN_WHY),
    produce("64k-25", "64 KB batches at 25 MB/s", K64, 25, short=True, writing_floor=True),
    produce("64k-400", "64 KB batches at 400 MB/s", K64, 400, short=True, writing_floor=True),
    produce("16k-25", "16 KB batches at 25 MB/s", K16, 25, short=True),
    produce("16k-100b", "16 KB batches of 100-byte records at 50 MB/s", K16, 50, "--record-size", 100, short=True),
    Axis("e2e-10k", "end to end, 10,000 records/s", "e2e", ["--rate", "10000"], short=True, metrics=E2E),
    codec("lz4"),
    codec("zstd"),
    Axis("cold", "consume from the disk", "consume", work="cold", cold_gb=4, short=True, short_pairs=3, metrics=CONSUME,
         why="4 GB (2 GB in the short list) unless --most-gb is less; the page cache of the broker's files is dropped before each run."),
    produce("cold-beside", "64 KB batches at 100 MB/s beside a consumer of cold data", K64, 100, work="beside", cold_gb=4, short=True,
            short_pairs=3, metrics=BESIDE, why="The consumer starts with the warm-up and reads as fast as it can, on the client's core."),
    # by name or --full
    produce("16k-10000p", "16 KB batches at 50 MB/s on 10,000 partitions", K16, 50, partitions=10_000, seconds=40, warmup=3, full_pairs=3, short_pairs=2,
            wanted={"corelane.max.partitions": "20000"}, why="2 GB a run. Corelane's limit of partitions, which follows the open files it may have, is raised for it."),
    produce("hdd-200p", "16 KB batches at 60 MB/s on 200 partitions, hard disk", K16, 60, partitions=200, disk="hdd", wanted=HDD_OPTIONS,
            seconds=30, warmup=10, short_pairs=2, full_pairs=3, metrics=[*PRODUCE, "mean_write_kib"], why=HDD_WHY),
    produce("16k-100-gather", "16 KB batches at 100 MB/s, gathering for 800 us", K16, 100, options={"corelane.gather.us": "800"}),
    produce("16k-written", "16 KB batches at 100 MB/s, acknowledged when written", K16, 100, level="written", why=WRITTEN_WHY),
    Axis("e2e-1k-written", "end to end, 1,000 records/s, acknowledged when written", "e2e", ["--rate", "1000"], level="written", metrics=E2E, why=WRITTEN_WHY),
    Axis("requests-1x5-written", "requests of one record, 1 x 5 in flight, acknowledged when written", "requests", ["--record-size", "100"],
         level="written", metrics=REQUESTS, why=WRITTEN_WHY),
    Axis("requests-synced", "requests of one record, 1 x 5 in flight, flush before every ack", "requests", level="synced", metrics=REQUESTS),
    Axis("e2e-1k-synced", "end to end, 1,000 records/s, flush before every ack", "e2e", ["--rate", "1000"], level="synced", metrics=E2E),
    Axis("memory-1m", "consume 16 MB just written, 1 MiB fetches", "consume", ["--partition-max-bytes", str(M1), "--fan-out", "128"],
         work="memory", metrics=CONSUME, why=MEMORY_WHY),
    Axis("memory-16k", "consume 16 MB just written, 16 KiB fetches", "consume", ["--partition-max-bytes", str(K16), "--fan-out", "32"],
         work="memory", fill_batch=K16, metrics=CONSUME, why=MEMORY_WHY),
    produce("16k-50", "16 KB batches at 50 MB/s", K16, 50),
    produce("16k-400", "16 KB batches at 400 MB/s", K16, 400),
    produce("1m-100", "1 MB batches at 100 MB/s", BIG, 100),
    produce("1m-400", "1 MB batches at 400 MB/s", BIG, 400),
    produce("1m-sat", "1 MB batches, at saturation", BIG, 0, metrics=SATURATED),
    produce("64k-100b", "64 KB batches of 100-byte records at 100 MB/s", K64, 100, "--record-size", 100),
    produce("64k-acks1", "64 KB batches at 100 MB/s, acks=1", K64, 100, "--acks", 1),
    produce("16k-100p", "16 KB batches at 100 MB/s on 100 partitions", K16, 100, partitions=100),
    produce("64k-4c", "64 KB batches at 100 MB/s from 4 producers", K64, 100, "--connections", 4, partitions=4),
    produce("64k-50c", "64 KB batches at 100 MB/s from 50 producers", K64, 100, "--connections", 50, partitions=50),
    produce("16k-50c", "16 KB batches at 100 MB/s from 50 producers", K16, 100, "--connections", 50, partitions=50),
    Axis("requests-1k", "requests of one 1 KB record, 1 x 5 in flight", "requests", ["--record-size", "1024"], metrics=REQUESTS),
    Axis("requests-acks1", "requests of one record, 1 x 5 in flight, acks=1", "requests", ["--acks", "1"], metrics=REQUESTS),
    requests(50, 5),
    produce("tail-1", "64 KB batches at 100 MB/s with a consumer at the tail", K64, 100, work="beside", metrics=BESIDE),
    produce("tail-4", "64 KB batches at 100 MB/s with 4 consumers at the tail", K64, 100, work="beside", reader=["--fan-out", "4"], metrics=BESIDE),
    produce("paused-64k-100", "64 KB batches at 100 MB/s with a consumer that stands still for 5 s", K64, 100, work="beside", pause=5, seconds=10, warmup=2,
            short_pairs=3, full_pairs=3, metrics=["device_read_mb", *BESIDE], why=PAUSED_WHY),
    produce("paused-hdd", "64 KB batches at 60 MB/s with a consumer that stands still for 30 s, hard disk", K64, 60, work="beside", pause=30, disk="hdd",
            wanted=HDD_OPTIONS, seconds=50, warmup=5, short_pairs=1, full_pairs=2, metrics=["device_read_mb", *BESIDE], why=f"{PAUSED_WHY} {HDD_WHY}"),
    produce("64k-100-30m", "64 KB batches at 100 MB/s for 30 minutes", K64, 100, seconds=1800, warmup=5, short_pairs=1, full_pairs=1, ceiling=False,
            topic={"retention.bytes": 4 << 30, "segment.bytes": 1 << 29}, why=HALF_HOUR_WHY),
    Axis("idle-10k", "10,000 idle connections", "", ["10000"], work="idle_connections", ceiling=False,
         metrics=["rss_mb", "kb_per_connection", "cpu_percent"]),
    Axis("recovery", "from kill -9 to an acknowledged record, one large partition", "", work="recovery", cold_gb=10,
         ceiling=False, full_pairs=3, metrics=["seconds"], why="10 GB in it unless --most-gb is less."),
    produce("64k-100-free", "64 KB batches at 100 MB/s, both cores for everyone", K64, 100, lanes="free"),
    produce("16k-100-free", "16 KB batches at 100 MB/s, both cores for everyone", K16, 100, lanes="free"),
    produce("64k-sat-free", "64 KB batches at saturation, both cores for everyone", K64, 0, lanes="free", metrics=SATURATED),
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


def cluster(rate):
    """Replication factor 3, acks=all."""
    return produce(f"cluster-64k-{rate}", f"64 KB batches at {rate} MB/s, three brokers, acks=all", K64, rate, brokers=3, lanes="free", ceiling=False,
                   seconds=10, warmup=3, short_pairs=3, full_pairs=3, why=CLUSTER_WHY)  # fmt: skip


CLUSTER_WHY = (
    "Three brokers a side on the same two cores as the client, each partition on all three (min.insync.replicas=2). CPU is that of all brokers, and of "
    "Corelane's ZooKeeper server, for each GB that clients produced. Each side is warmed up with this load before its first pair."
)
AXES += [cluster(25), cluster(50)]

LONG_SECONDS = 60


def long_of(axis):
    """The same work for a minute: what a short run cannot meet (journal commits, rolled segments, the kernel's write-back)."""
    return replace(axis, id=f"{axis.id}-60s", title=f"{axis.title}, 60 s", seconds=LONG_SECONDS, warmup=2, short_pairs=2, full_pairs=3, long=False)


def by_id(axes=None):
    """The axes by name, those of 60 s included."""
    return {axis.id: axis for axis in axes or [*AXES, *(long_of(a) for a in AXES if a.long)]}
