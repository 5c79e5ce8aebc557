"""A device throttled to a hard disk: a file behind a loop device, held by the block control group to so many bytes and requests a second.

Version 1 limits the root group's own requests too, so everything that reaches the device counts, the kernel's write-back included.
Version 2 limits groups other than the root: each broker's, whose write-back it attributes to them.
"""

import os
import subprocess
from pathlib import Path

from . import cgroup, host

BYTES_A_SECOND, REQUESTS_A_SECOND = 150_000_000, 120


class DiskError(Exception):
    """This machine cannot make such a disk."""


def limits(version, number, bps=BYTES_A_SECOND, iops=REQUESTS_A_SECOND):
    """[(file within a group, what to write)]; 0 bytes or requests: none any more."""
    if version == 1:
        rates = (("bps", bps), ("iops", iops))
        return [(f"blkio.throttle.{way}_{unit}_device", f"{number} {rate}") for way in ("read", "write") for unit, rate in rates]
    words = {f"{way}{unit}": rate or "max" for unit, rate in (("bps", bps), ("iops", iops)) for way in ("r", "w")}
    return [("io.max", f"{number} " + " ".join(f"{k}={v}" for k, v in words.items()))]


def writes_in(stat):
    """(writes completed, bytes written) of /sys/block/*/stat."""
    words = stat.split()
    return int(words[4]), int(words[6]) * 512


def mean_write_kib(before, after):
    if not before or not after or after[0] <= before[0]:
        return None
    return (after[1] - before[1]) / (after[0] - before[0]) / 1024


def _run(*command):
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise DiskError(f"{command[0]}: {done.stderr.strip() or done.returncode}")
    return done.stdout.strip()


class HardDisk:
    """Mounted at `folder`/hdd until `remove`."""

    def __init__(self, folder, gigabytes=12):
        self.image, self.point = Path(folder) / "hdd.img", Path(folder) / "hdd"
        self.loop, self.mounted, self.limited = None, False, []
        self.point.mkdir(parents=True)
        try:
            self._make(gigabytes)
        except (DiskError, OSError) as e:
            self.remove()
            raise DiskError(f"no throttled device can be made here: {e}") from None

    def _make(self, gigabytes):
        with open(self.image, "wb") as f:
            os.posix_fallocate(f.fileno(), 0, int(gigabytes * 1e9) // 4096 * 4096)
        self.loop = _run("losetup", "--find", "--show", "--direct-io=on", str(self.image))
        _run("mkfs.ext4", "-q", "-b", "4096", "-m", "0", "-E", "lazy_itable_init=0,lazy_journal_init=0", self.loop)
        _run("mount", self.loop, str(self.point))
        self.mounted = True
        _run("losetup", "--detach", self.loop)  # takes place when it is unmounted, however the run ends
        number = os.stat(self.loop).st_rdev
        self.number = f"{os.major(number)}:{os.minor(number)}"
        host.Setting(self.block / "queue/rotational").set(1)
        v1, _ = cgroup.mounts()
        if "blkio" in v1:
            self.limit(v1["blkio"], 1)

    @property
    def block(self):
        return Path("/sys/block") / Path(self.loop).name

    def limit(self, group, version):
        for name, line in limits(version, self.number):
            try:
                (Path(group) / name).write_text(line)
            except OSError as e:
                raise DiskError(f"{group}/{name}: {e.strerror}") from None
        self.limited.append((Path(group), version))

    def limit_group(self, group):
        """A broker's group, where groups are what is limited."""
        if any(version == 1 for _, version in self.limited):
            return
        folder = next((f for f in group.folders() if (f / "io.max").exists()), None)
        if folder is None:
            raise DiskError("no control group here has the controller `io`")
        self.limit(folder, 2)

    def writes(self):
        return writes_in((self.block / "stat").read_text())

    def remove(self):
        for group, version in self.limited:
            for name, line in limits(version, self.number, 0, 0):
                try:
                    (group / name).write_text(line)
                except OSError:
                    pass  # gone with its group
        if self.mounted:
            subprocess.run(["umount", str(self.point)], capture_output=True)
        elif self.loop:
            subprocess.run(["losetup", "--detach", self.loop], capture_output=True)
        self.image.unlink(missing_ok=True)


def remove_stale(folder, table="/proc/mounts"):
    """Unmounts what a killed run left under `folder`."""
    for line in Path(table).read_text().splitlines():
        point = line.split()[1].replace("\\040", " ")
        if point.startswith(f"{Path(folder).resolve()}/run-"):
            subprocess.run(["umount", point], capture_output=True)
