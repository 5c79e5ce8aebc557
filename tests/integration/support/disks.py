"""File systems of a test's own, in a file behind a loop device, that can lose power."""

import fcntl
import os
import struct
import subprocess
import time

from . import clock

# EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN are one: _IOR('X', 125, __u32).
SHUTDOWN = 0x8004587D
WITHOUT_LOG_FLUSH = 2
MKFS = {"ext4": ["mkfs.ext4", "-q", "-b", "4096", "-m", "0"], "xfs": ["mkfs.xfs", "-q"]}


class Unavailable(Exception):
    """This machine cannot make such a disk."""


class Disk:
    """`kind`: ext4 or xfs. Mounted at `<folder>/<kind>` until `remove`."""

    def __init__(self, folder, kind, mib=512):
        self.image, self.point = folder / f"{kind}.img", folder / kind
        self.point.mkdir(parents=True)
        with open(self.image, "wb") as f:
            f.truncate(mib << 20)
        try:
            self._run([*MKFS[kind], str(self.image)])
            self.mount()
        except (Unavailable, FileNotFoundError) as e:
            self.image.unlink()
            self.point.rmdir()
            raise Unavailable(f"no {kind} can be mounted here: {e}") from None

    @staticmethod
    def _run(command):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise Unavailable(f"{command[0]}: {done.stderr.strip()}")

    def mount(self):
        self._run(["mount", "-o", "loop", str(self.image), str(self.point)])

    def unmount(self, timeout=60):
        """The kernel may still take a killed process's rings apart, which hold files open."""
        until = clock.running() + timeout
        while True:
            done = subprocess.run(["umount", str(self.point)], capture_output=True, text=True)
            if done.returncode == 0:
                return
            assert clock.running() < until, f"{self.point} cannot be unmounted: {done.stderr.strip()}"
            time.sleep(0.1)

    def cut_power(self):
        """The file system stops at once: what its journal has not written to the device is gone."""
        fd = os.open(self.point, os.O_RDONLY)
        try:
            fcntl.ioctl(fd, SHUTDOWN, struct.pack("I", WITHOUT_LOG_FLUSH))
        finally:
            os.close(fd)

    def remove(self):
        self.unmount()
        self.image.unlink()
        self.point.rmdir()
