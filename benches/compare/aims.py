"""What has to show: for each figure of an axis a bound that must hold and one to aim for."""

from dataclasses import dataclass
from typing import Optional

from .axes import AXES


@dataclass(frozen=True)
class Bound:
    """`of`: "ratio" Corelane/Kafka; "own" Corelane's figure against its own on `against`; "absolute"; "above" what Corelane takes above
    the null broker against what Kafka takes above it; "null" Corelane/null broker; "writing" Corelane/null broker that writes behind."""

    value: float
    of: str = "ratio"
    at_least: bool = False
    against: str = ""


@dataclass(frozen=True)
class Aim:
    id: str
    what: str
    axis: str
    metric: str
    must: Optional[Bound] = None
    aim: Optional[Bound] = None


def most(value, of="ratio", against=""):
    return Bound(value, of, False, against)


def least(value, of="ratio"):
    return Bound(value, of, True)


CPU_MUST = {"64k-25": 0.25, "64k-100": 0.45, "64k-400": 0.5, "16k-25": 0.5, "16k-100": 0.5, "16k-100b": 0.5}
CPU = "CPU per GB"

FIXED = [
    *(
        Aim(f"{axis}-cpu", CPU, axis, "cpu_s_per_gb", most(bound), most(0.1, "above") if axis.startswith("16k") else most(1.25, "writing"))
        for axis, bound in CPU_MUST.items()
    ),
    Aim("gather-cpu", CPU, "16k-100-gather", "cpu_s_per_gb", most(0.2), most(0.15)),
    Aim("gather-p50", "p50, ms", "16k-100-gather", "p50", most(1, "absolute")),
    Aim("1000p-cpu", CPU, "16k-1000p", "cpu_s_per_gb", most(0.6), most(1.5, "own", "16k-100")),
    Aim("1000p-p99", "p99", "16k-1000p", "p99", most(0.1)),
    Aim("10000p-cpu", CPU, "16k-10000p", "cpu_s_per_gb", most(0.6), most(1.5, "own", "16k-50")),
    Aim("10000p-p99", "p99", "16k-10000p", "p99", most(0.1)),
    Aim("64k-sat", "throughput", "64k-sat", "mb_per_s", least(3.5), least(5)),
    Aim("16k-sat", "throughput", "16k-sat", "mb_per_s", least(3.5), least(5)),
    *(
        Aim(f"requests-{load}", "requests a second", f"requests-{load}", "requests_per_s", least(bound), least(0.9, "null"))
        for load, bound in (("1x5", 2.5), ("4x5", 5), ("8x32", 10))
    ),
    Aim("e2e-1k-p50", "p50", "e2e-1k", "p50", most(0.75), most(0.6)),
    Aim("recent-1m-cpu", CPU, "recent-1m", "cpu_s_per_gb", most(1.0), most(0.8)),
    Aim("recent-16k-cpu", CPU, "recent-16k", "cpu_s_per_gb", most(0.25), most(0.15)),
    Aim("memory", "resident and page cache", "recent-1m", "total_mb", most(1.0)),
    Aim("cold-mb", "throughput", "cold", "mb_per_s", least(1.05)),
    Aim("cold-cpu", CPU, "cold", "cpu_s_per_gb", most(1.1), most(0.8)),
    *(Aim(f"{codec}-cpu", CPU, f"64k-{codec}-50", "cpu_s_per_gb", most(0.6), most(0.3)) for codec in ("lz4", "zstd")),
    Aim("hdd-carried", "rate carried, MB/s", "hdd-200p", "mb_per_s", least(0.99 * 60, "absolute")),
    Aim("hdd-p99", "p99, ms", "hdd-200p", "p99", most(20, "absolute")),
    Aim("hdd-write", "mean device write, KiB", "hdd-200p", "mean_write_kib", least(256, "absolute")),
    Aim("synced-cpu", CPU, "64k-synced", "cpu_s_per_gb", most(0.4)),
    Aim("synced-p99", "p99", "64k-synced", "p99", most(0.1)),
    Aim("synced-e2e-cpu", "CPU", "e2e-1k-synced", "cpu_percent", most(0.4)),
    Aim("synced-e2e-p99", "p99", "e2e-1k-synced", "p99", most(0.1)),
    *(Aim(f"cluster-{rate}-cpu", CPU, f"cluster-64k-{rate}", "cpu_s_per_gb", most(0.5)) for rate in (25, 50)),
    *(Aim(f"cluster-{rate}-p50", "p50", f"cluster-64k-{rate}", "p50", most(1.0)) for rate in (25, 50)),
    Aim("idle", "resident", "idle", "rss_mb", most(0.15)),
    Aim("start", "time", "start", "seconds", most(0.1)),
]


def latency_aims(axes=AXES, named=FIXED):
    """p50 and p99 of every produce row at a fixed rate and level held, a cold reader beside it included."""
    taken = {(aim.axis, aim.metric) for aim in named}
    bounds = {"p50": (most(0.75), most(0.6)), "p99": (most(0.5), most(0.1))}
    return [
        Aim(f"{axis.id}-{metric}", metric, axis.id, metric, *bounds[metric])
        for axis in axes
        for metric in bounds
        if axis.kind == "produce" and axis.rate and axis.level == "held" and not axis.options and not axis.disk and axis.brokers == 1
        if metric in axis.metrics and (axis.id, metric) not in taken
    ]


def aims(axes=AXES):
    """All of them, by axis in the order of the table. An axis of 60 s has those of the short one."""
    order = {axis.id: at for at, axis in enumerate(axes)}
    return sorted([*FIXED, *latency_aims(axes)], key=lambda aim: order.get(aim.axis, len(order)))
