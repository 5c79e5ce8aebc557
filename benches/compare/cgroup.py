"""A control group per broker, in whatever hierarchies this host has: version 1, version 2 or both, or none at all."""

import os
import time
from pathlib import Path


def mounts(table="/proc/mounts"):
    """Controller name -> mount point of its version 1 hierarchy; under "2" the version 2 mounts, best first."""
    v1, v2 = {}, []
    for line in Path(table).read_text().splitlines():
        _, point, kind, options = line.split()[:4]
        if kind == "cgroup":
            for option in options.split(","):
                v1.setdefault(option, Path(point))
        elif kind == "cgroup2":
            v2.append(Path(point))
    v2.sort(key=lambda p: -len(_words(p / "cgroup.controllers")))
    return v1, v2


def _words(path):
    try:
        return path.read_text().split()
    except OSError:
        return []


def _own_v2_path():
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        if line.startswith("0::"):
            return line[3:].lstrip("/")
    return ""


class Group:
    """The folders that make up one group; a property is read from whichever hierarchy has it."""

    def __init__(self, name, cpu=None, cpuset=None, memory=None, io=None):
        self.name, self.cpu, self.cpuset, self.memory, self.io = name, cpu, cpuset, memory, io
        self.cpu_source = self._cpu_source()  # asked for after the group is gone, too

    def folders(self):
        return [p for p in dict.fromkeys((self.cpu, self.cpuset, self.memory, self.io)) if p]

    def join(self, pid):
        """What cannot be joined is found by `check`: a child before its exec can tell nobody."""
        for folder in self.folders():
            try:
                (folder / "cgroup.procs").write_text(str(pid))
            except OSError:
                pass

    def check(self, pid):
        """Gives up hierarchies that do not hold `pid`, so that nothing is read from an empty group. Answers their names."""
        lost = [what for what in ("cpu", "cpuset", "memory") if getattr(self, what) and str(pid) not in _words(getattr(self, what) / "cgroup.procs")]
        for what in lost:
            setattr(self, what, None)
        self.cpu_source = self._cpu_source()
        return lost

    def cpu_ns(self):
        """CPU time of all that ever ran in the group, ended threads included; None without a CPU hierarchy."""
        if self.cpu is None:
            return None
        usage = self.cpu / "cpuacct.usage"
        if usage.exists():
            return int(usage.read_text())
        for line in (self.cpu / "cpu.stat").read_text().splitlines():
            if line.startswith("usage_usec "):
                return int(line.split()[1]) * 1000
        return None

    def _cpu_source(self):
        if self.cpu is None:
            return "sum of /proc/PID/task/*/schedstat (ns): no control group could be made"
        name = "cpuacct.usage (ns)" if (self.cpu / "cpuacct.usage").exists() else "usage_usec in cpu.stat"
        return f"{name} of its control group"

    def set_cpus(self, cpus):
        """Also moves threads that refuse sched_setaffinity. False where there is no cpuset."""
        if self.cpuset is None:
            return False
        try:
            (self.cpuset / "cpuset.cpus").write_text(",".join(map(str, sorted(cpus))))
            return True
        except OSError:
            return False

    def memory_stat(self):
        """Bytes: {"rss", "cache"} charged to the group; None where it is not counted."""
        if self.memory is None:
            return None
        stat = dict(line.split()[:2] for line in (self.memory / "memory.stat").read_text().splitlines())
        if "total_cache" in stat:  # version 1
            return {"rss": int(stat["total_rss"]), "cache": int(stat["total_cache"])}
        if "file" in stat:
            return {"rss": int(stat["anon"]), "cache": int(stat["file"])}
        return None

    def remove(self):
        for folder in self.folders():
            for _ in range(50):
                try:
                    folder.rmdir()
                    break
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.1)  # the last process is still being reaped


def remove_stale(mount):
    """Groups that a killed run left behind."""
    for folder in mount.glob("corelane-compare-*"):
        if not Path(f"/proc/{folder.name.rpartition('-')[2]}").exists():
            for part in [*folder.glob("*/"), folder]:
                try:
                    part.rmdir()
                except OSError:
                    pass


class Groups:
    """Makes groups under one parent per hierarchy and takes them away again."""

    def __init__(self, label=None, table="/proc/mounts"):
        self.label = label or f"corelane-compare-{os.getpid()}"
        self.parents, self.made, self.notes = {}, [], []
        v1, v2 = mounts(table)
        for mount in {v1.get("cpuacct"), v1.get("cpuset"), v1.get("memory"), *v2} - {None}:
            remove_stale(mount)
        for what, controller in (("cpu", "cpuacct"), ("cpuset", "cpuset"), ("memory", "memory")):
            folder = self._v1(v1.get(controller), what) or self._v2(v2, what)
            if folder:
                self.parents[what] = folder
            else:
                self.notes.append(f"no {what} control group could be made")
        folder = self._v2(v2, "io")  # version 1 limits a device in the root group: see disk.py
        if folder:
            self.parents["io"] = folder

    def _v1(self, mount, what):
        if mount is None:
            return None
        folder = mount / self.label
        try:
            folder.mkdir(exist_ok=True)
            if what == "cpuset":
                for name in ("cpuset.mems", "cpuset.cpus"):
                    (folder / name).write_text((mount / name).read_text())
            return folder
        except OSError:
            return None

    def _v2(self, mounts_found, what):
        """In the root (as root) or in the group we are in (a delegated one)."""
        for mount in mounts_found:
            for base in dict.fromkeys((mount, mount / _own_v2_path())):
                folder = base / self.label
                # CPU time is counted in every group; the others want their controller.
                if what != "cpu" and what not in _words(base / "cgroup.controllers"):
                    continue
                try:
                    if what != "cpu" and what not in _words(base / "cgroup.subtree_control"):
                        (base / "cgroup.subtree_control").write_text(f"+{what}")
                    folder.mkdir(exist_ok=True)
                    if what != "cpu":
                        (folder / "cgroup.subtree_control").write_text(f"+{what}")
                    return folder
                except OSError:
                    continue
        return None

    def make(self, name):
        folders = {}
        for what, parent in self.parents.items():
            folder = parent / name
            try:
                folder.mkdir(exist_ok=True)
                if what == "cpuset" and (parent / "cgroup.clone_children").exists():  # version 1 starts them empty
                    for file in ("cpuset.mems", "cpuset.cpus"):
                        (folder / file).write_text((parent / file).read_text())
                folders[what] = folder
            except OSError as e:
                self.notes.append(f"no {what} control group for {name}: {e.strerror}")
        group = Group(name, **folders)
        self.made.append(group)
        return group

    def remove(self):
        for group in self.made:
            group.remove()
        for folder in dict.fromkeys(self.parents.values()):
            try:
                folder.rmdir()
            except OSError:
                pass
