"""One network namespace for everything the run starts, and children that die with it.

The process itself moves into a new namespace, so every child is in it, and it vanishes with the last of them however the run ends.
"""

import ctypes
import fcntl
import os
import resource
import signal
import socket
import struct
from pathlib import Path

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
PR_SET_PDEATHSIG = 1
FILES = 100_000  # open files a broker or client may have: 1,000 partitions, 10,000 connections
SIOCGIFFLAGS, SIOCSIFFLAGS, IFF_UP = 0x8913, 0x8914, 0x1
CONGESTION = Path("/proc/sys/net/ipv4/tcp_congestion_control")

# What this process may use; it pins itself to the client's CPU later on.
ALL_CPUS = os.sched_getaffinity(0)

_libc = ctypes.CDLL(None, use_errno=True)


def _unshare(flags):
    if _libc.unshare(flags) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _loopback_up():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        request = struct.pack("16sh22x", b"lo", 0)
        flags = struct.unpack("16sh22x", fcntl.ioctl(s, SIOCGIFFLAGS, request))[1]
        fcntl.ioctl(s, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | IFF_UP))


def own_network(congestion="reno"):
    """Moves this process into a network namespace of its own. Answers what was reached, in words, for the report."""
    host = CONGESTION.read_text().strip()
    try:
        if os.geteuid() == 0:
            _unshare(CLONE_NEWNET)
        else:
            uid, gid = os.getuid(), os.getgid()
            _unshare(CLONE_NEWUSER | CLONE_NEWNET)
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
            Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    except OSError as e:
        return {"namespace": f"none ({e.strerror}): the host's loopback", "congestion_control": host, "host_congestion_control": host}
    _loopback_up()
    try:
        CONGESTION.write_text(congestion)
    except OSError:
        pass  # the report says what is in force
    now = CONGESTION.read_text().strip()
    return {"namespace": "one of its own", "congestion_control": now, "host_congestion_control": host}


def child_setup(cpus=None, groups=()):
    """What a child does before exec: dies with us, joins its control groups, takes its CPUs."""
    parent = os.getpid()

    def setup():
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        for group in groups:
            group.join(0)
        if cpus:
            os.sched_setaffinity(0, cpus)
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (max(most, FILES), max(most, FILES)))
        except (OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))

    return setup


def syncfs(path):
    """Writes out everything dirty on the file system that holds `path`."""
    fd = os.open(path, os.O_RDONLY)
    try:
        if _libc.syncfs(fd) != 0:
            os.sync()
    finally:
        os.close(fd)


def forget_pages(folder):
    """Drops the page cache of every file under `folder`, so that the next reader finds it cold. Touches nobody else's pages."""
    syncfs(folder)
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                fd = os.open(os.path.join(root, name), os.O_RDONLY)
            except OSError:
                continue
            try:
                os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            finally:
                os.close(fd)


def pin(pid, cpus):
    """Moves all threads of a process. Answers the names of threads that may not be moved (the kernel forbids it for some)."""
    refused = set()
    for _ in range(2):  # a thread may be born while the first pass goes on; the second finds it
        for task in Path(f"/proc/{pid}/task").iterdir():
            try:
                os.sched_setaffinity(int(task.name), cpus)
            except ProcessLookupError:
                continue
            except OSError:
                refused.add((task / "comm").read_text().strip())
    return sorted(refused)


def strays(pid, cpus, since):
    """Threads that ran since `since` (thread -> ns, of `thread_times`) and whose last CPU is not one of `cpus`."""
    found = {}
    for task, now in thread_times(pid).items():
        if now <= since.get(task, 0):
            continue
        try:
            stat = Path(f"/proc/{pid}/task/{task}/stat").read_text()
        except OSError:
            continue
        name, rest = stat[stat.index("(") + 1 : stat.rindex(")")], stat[stat.rindex(")") + 2 :].split()
        processor = int(rest[39 - 3])
        if processor not in cpus:
            found[name] = processor
    return found


def thread_times(pid):
    """Thread id -> CPU time in ns."""
    out = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            out[int(task.name)] = int((task / "schedstat").read_text().split()[0])
        except OSError:
            pass  # ended meanwhile
    return out
