"""What /proc and the cgroup file systems say of a process."""

import mmap
import os
import threading
import time
from pathlib import Path


def rss_bytes(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    return 0


def cpu_seconds(pid):
    """CPU time of all threads, io_uring's workers among them, as the scheduler counts it (in ns; /proc/PID/stat counts clock
    ticks, which short wake-ups are charged by chance). A thread that ends takes its time along."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            total += int((task / "schedstat").read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            pass  # ended meanwhile
    return total / 1e9


def disk_bytes(path):
    """Blocks taken under `path`, so preallocated space counts and holes do not."""
    total = 0
    for root, _, files in os.walk(path):
        for name in files:
            try:
                total += os.lstat(os.path.join(root, name)).st_blocks * 512
            except FileNotFoundError:
                pass  # deleted by the broker meanwhile
    return total


def filesystem(path):
    """The type of the file system that holds `path`."""
    path, best = str(Path(path).resolve()), ("", "")
    for line in Path("/proc/mounts").read_text().splitlines():
        _, point, kind = line.split()[:3]
        point = point.replace("\\040", " ")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best[0]):
            best = (point, kind)
    return best[1]


class PeakRss:
    """Samples a process' resident memory until closed."""

    def __init__(self, pid, every=0.05):
        self.pid, self.every, self.peak = pid, every, 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        while not self._stop.is_set():
            try:
                self.peak = max(self.peak, rss_bytes(self.pid))
            except (FileNotFoundError, ProcessLookupError):
                return
            self._stop.wait(self.every)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()


class Stalls:
    """How long this machine stood still: turns of 20 ms and a direct write that took over 100 ms more. A time limit of a test is
    put off by that long, as neither the broker nor its clients can help it."""

    def __init__(self, folder):
        self._fd = os.open(Path(folder) / "stalls", os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o600)
        self._block = mmap.mmap(-1, 4096)
        self._over, self.seen = threading.Event(), []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        last = time.monotonic_ns()
        while not self._over.wait(0.02):
            os.pwrite(self._fd, self._block, 0)
            now = time.monotonic_ns()
            if now - last > 120_000_000:
                self.seen.append((last, now))
            last = now

    def since(self, began):
        """Seconds stood still since `began` (monotonic ns), which is not counted where it lasted under 0.1 s."""
        return sum((end - max(start, began)) / 1e9 for start, end in list(self.seen) if end > began)

    def close(self):
        self._over.set()
        self._thread.join()
        os.close(self._fd)


class MemoryCap:
    """A memory control group with a hard limit, v2 or v1. `MemoryCap.make` answers None where none can be made."""

    def __init__(self, path, limit_file):
        self.path, self.limit_file = path, limit_file

    @staticmethod
    def make(name, limit):
        for root, limit_file in (("/sys/fs/cgroup", "memory.max"), ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")):
            path = Path(root) / name
            try:
                path.mkdir()
            except OSError:
                continue
            if not (path / limit_file).exists():
                # No control group: the directory that holds those of version 1.
                path.rmdir()
                continue
            cap = MemoryCap(path, limit_file)
            try:
                (path / limit_file).write_text(str(limit))
                if int((path / limit_file).read_text()) <= limit:
                    return cap
            except (OSError, ValueError):
                pass
            cap.remove()
        return None

    def procs(self):
        return self.path / "cgroup.procs"

    def peak(self):
        for name in ("memory.peak", "memory.max_usage_in_bytes"):
            try:
                return int((self.path / name).read_text())
            except OSError:
                continue
        return None

    def remove(self):
        for _ in range(50):
            try:
                return self.path.rmdir()
            except OSError:
                time.sleep(0.1)  # the last process is still being reaped


def threads(pid):
    """The names of a process's threads."""
    names = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            names.append((task / "comm").read_text().strip())
        except OSError:
            pass  # It has ended.
    return names
