"""CPU time of a broker over a window: its own threads and the kernel's workers, in nanoseconds.

Not seen: interrupts and softirqs that run in whatever thread they hit; where the kernel does not count them apart they are charged
to that thread, the client's included.
"""

import os
import time
from pathlib import Path

from .isolate import thread_times

TICKS = os.sysconf("SC_CLK_TCK")
WORKERS = ("kworker", "jbd2", "ksoftirqd")


def kernel_workers(proc=Path("/proc")):
    """(kind, pid) -> ns of the kernel threads that work for the broker."""
    out = {}
    for folder in proc.iterdir():
        if not folder.name.isdigit():
            continue
        try:
            name = (folder / "comm").read_text()
            kind = next((w for w in WORKERS if name.startswith(w)), None)
            if kind:
                out[kind, int(folder.name)] = int((folder / "schedstat").read_text().split()[0])
        except (OSError, IndexError):
            pass  # ended meanwhile
    return out


def gained(before, after):
    """Time by kind between two readings. A worker born in between brings all its time; one that ended is lost, so read often."""
    out = dict.fromkeys(WORKERS, 0)
    for (kind, pid), now in after.items():
        out[kind] += max(0, now - before.get((kind, pid), 0))
    return out


def busy_seconds(text=None):
    """(busy, stolen) seconds of all CPUs, from the first line of /proc/stat, in clock ticks: only good to tell who else ran."""
    words = (text or Path("/proc/stat").read_text()).split("\n", 1)[0].split()[1:]
    user, nice, system, idle, iowait, irq, softirq, steal = (int(w) / TICKS for w in words[:8])
    return user + nice + system + irq + softirq, steal


class ThreadSum:
    """Sum over a process' threads that keeps what ended threads were last seen with."""

    def __init__(self, times):
        self.times, self.seen = times, {}

    def __call__(self):
        for task, ns in self.times().items():
            self.seen[task] = max(ns, self.seen.get(task, 0))
        return sum(self.seen.values())


class Window:
    """start, tick (about each second), end; then `result`."""

    def __init__(self, broker_ns, workers=kernel_workers):
        self.broker_ns, self.workers = broker_ns, workers
        self.started = False
        self.kernel = dict.fromkeys(WORKERS, 0)
        self.broker = 0
        self.ticks = 0  # whole seconds of the generator's lines; 0 where the window is none of these

    def start(self):
        self.first, self.last_workers = self.broker_ns(), self.workers()
        self.started, self.begun = True, time.monotonic()
        self.wall, self.busy_first = 0.0, busy_seconds()
        self.busy = self.stolen = 0.0

    def tick(self):
        self.broker = self.broker_ns() - self.first
        self.wall = time.monotonic() - self.begun
        busy, stolen = busy_seconds()
        self.busy, self.stolen = busy - self.busy_first[0], stolen - self.busy_first[1]
        now = self.workers()
        for kind, ns in gained(self.last_workers, now).items():
            self.kernel[kind] += ns
        self.last_workers = now

    def seconds(self):
        return (self.broker + sum(self.kernel.values())) / 1e9

    def others(self, client_seconds):
        """CPU seconds of everything that is neither broker, kernel worker nor client; about right."""
        return max(0.0, self.busy - self.seconds() - client_seconds)

    def parts(self):
        return {"broker_s": self.broker / 1e9, **{f"{k}_s": v / 1e9 for k, v in self.kernel.items()}}


def broker_clock(group, pid):
    """How a broker's own CPU time is read: its control group, else the sum over its threads."""
    if group is not None and group.cpu_ns() is not None:
        return group.cpu_ns
    return ThreadSum(lambda: thread_times(pid))
