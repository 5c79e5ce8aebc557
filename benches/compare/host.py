"""Facts about the host, and what is set for the run and put back after it (read-ahead, the disk's interrupt)."""

import os
import platform
import re
from pathlib import Path


def text(path, default=""):
    try:
        return Path(path).read_text().strip()
    except OSError:
        return default


def cpu_model():
    for line in text("/proc/cpuinfo").splitlines():
        if line.startswith(("model name", "Model")):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def two_cpus():
    """One for the broker, one for the client, not siblings of one core where there is a choice; None with only one CPU."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        return None
    first = allowed[0]
    siblings = text(f"/sys/devices/system/cpu/cpu{first}/topology/thread_siblings_list", str(first))
    same = set()
    for part in siblings.split(","):
        low, _, high = part.partition("-")
        same |= set(range(int(low), int(high or low) + 1))
    second = next((c for c in allowed if c not in same), allowed[1])
    return first, second


def mount_of(path):
    """(device, mount point, type, options) of the file system that holds `path`."""
    path, best = str(Path(path).resolve()), None
    for line in Path("/proc/mounts").read_text().splitlines():
        device, point, kind, options = line.split()[:4]
        point = point.replace("\\040", " ")
        if path == point or path.startswith(point.rstrip("/") + "/"):
            if best is None or len(point) >= len(best[1]):
                best = (device, point, kind, options)
    return best


def block_device(path):
    """Folder under /sys/block of the disk that holds `path`, or None."""
    number = os.stat(path).st_dev
    link = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}")
    if not link.exists():
        return None
    found = link.resolve()
    return found.parent if (found / "partition").exists() else found


def disk_facts(path):
    device, point, kind, options = mount_of(path)
    facts = {"file system": kind, "mount options": options, "device": device}
    block = block_device(path)
    if block is None:
        return facts
    queue = block / "queue"
    facts |= {
        "disk": block.name,
        "model": text(block / "device/model") or text(block / "device/vendor") or "unknown",
        "rotational": text(queue / "rotational"),
        "scheduler": text(queue / "scheduler"),
        "write cache": text(queue / "write_cache"),
        "nr_requests": text(queue / "nr_requests"),
        "read_ahead_kb": text(queue / "read_ahead_kb"),
    }
    return facts


def disk_interrupts(path):
    """[(number, name, counts per CPU, affinity, effective affinity)] of the data disk's interrupts."""
    block = block_device(path)
    if block is None:
        return []
    names = {block.name}
    device = (block / "device").resolve().name  # virtio1, nvme0, 0:0:0:0
    names.add(device)
    for part in (block / "device").resolve().parts:
        if re.fullmatch(r"virtio\d+|nvme\d+", part):
            names.add(part)
    wanted = re.compile("|".join(rf"\b{re.escape(n)}(?!\d)" for n in names))
    out = []
    for line in text("/proc/interrupts").splitlines()[1:]:
        number, _, rest = line.strip().partition(":")
        if not number.isdigit() or not wanted.search(rest):
            continue
        words = rest.split()
        counts = [int(w) for w in words[: os.cpu_count()] if w.isdigit()]
        if sum(counts) == 0:
            continue
        base = f"/proc/irq/{number}"
        out.append({
            "irq": int(number), "name": words[-1], "counts": counts, "affinity": text(f"{base}/smp_affinity_list"),
            "effective": text(f"{base}/effective_affinity_list"),
        })  # fmt: skip
    return out


def facts(data):
    memory = dict(line.split(":", 1) for line in text("/proc/meminfo").splitlines())
    uname = platform.uname()
    return {
        "kernel": f"{uname.system} {uname.release} {uname.machine}",
        "CPU": f"{len(os.sched_getaffinity(0))} x {cpu_model()}",
        "memory": f"{int(memory['MemTotal'].split()[0]) / 1e6:.1f} GB, swap {int(memory['SwapTotal'].split()[0]) / 1e6:.1f} GB",
        "transparent huge pages": text("/sys/kernel/mm/transparent_hugepage/enabled"),
        "dirty_ratio / dirty_background_ratio": f"{text('/proc/sys/vm/dirty_ratio')} / {text('/proc/sys/vm/dirty_background_ratio')}",
        "governor": text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor", "none (virtual machine or fixed clock)"),
        "load when started": text("/proc/loadavg"),
        **{f"disk: {k}": v for k, v in disk_facts(data).items()},
        "disk: interrupts": "; ".join(
            f"{i['irq']} {i['name']} on CPU {i['effective'] or i['affinity']}" for i in disk_interrupts(data)
        ) or "none found",
    }  # fmt: skip


class Setting:
    """A file in /sys or /proc set for the run and put back after it."""

    def __init__(self, path):
        self.path, self.before = Path(path), text(path)

    def set(self, value):
        try:
            self.path.write_text(str(value))
        except OSError:
            return False
        return text(self.path) == str(value)

    def restore(self):
        if text(self.path) != self.before:
            try:
                self.path.write_text(self.before)
            except OSError:
                pass


def read_ahead(data, most=128):
    """(what was done, in words; the setting to restore or None)."""
    block = block_device(data)
    path = block / "queue/read_ahead_kb" if block else None
    if path is None or not path.exists():
        return "unknown", None
    setting = Setting(path)
    if int(setting.before or 0) <= most:
        return f"{setting.before} kB, left as it was", None
    if setting.set(most):
        return f"{most} kB for the run, {setting.before} kB before and after", setting
    return f"{setting.before} kB, and it could not be set to {most}: a reader of cold data and Kafka suffer from that", None


class DiskInterrupts:
    """Keeps the disk's interrupts on the broker's CPU where the kernel allows it."""

    def __init__(self, data):
        self.settings = [Setting(f"/proc/irq/{i['irq']}/smp_affinity_list") for i in disk_interrupts(data)]
        self.moved, self.fixed = 0, 0

    def place(self, cpu):
        for setting in self.settings:
            if setting.set(cpu):
                self.moved += 1
            else:
                self.fixed += 1

    def restore(self):
        for setting in self.settings:
            setting.restore()

    def words(self):
        if not self.settings:
            return "not found"
        if self.fixed and not self.moved:
            return "left where it is (the kernel does not let it be moved); as the pins are swapped it is beside either side equally often"
        return "moved to the broker's CPU with every swap of the pins" if self.moved else "left where it is"
