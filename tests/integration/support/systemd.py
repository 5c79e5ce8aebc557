"""A systemd of a test's own, the first process of new PID, mount, cgroup, UTS and IPC namespaces, with `tuning/corelane.service`
and nothing else. It sees the machine's /usr; /run, /etc, /dev, /tmp and /var/lib are its own, /sys and /proc/sys cannot be
written, and of control groups it has one below the test's."""

import os
import pty
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

from . import broker as brokers

UNIT = brokers.REPO / "tuning/corelane.service"
PROGRAMS = [Path("/usr/lib/systemd/systemd"), Path("/lib/systemd/systemd")]
# What units depend on by default, and what ours names.
TARGETS = ["sysinit", "basic", "shutdown", "multi-user", "local-fs", "network-online", "network", "umount", "final"]
# $1: the test's folder, $2: systemd, $3: the pseudo-terminal for its messages.
INSIDE = r"""
set -e
mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs /run
mkdir /run/test /run/etc /run/dev && mount --bind "$1" /run/test
cp -a /etc/. /run/etc && cp -a /run/test/etc/. /run/etc && mount --bind /run/etc /etc
grep -q ^corelane: /etc/group || echo corelane:x:61234: >> /etc/group
grep -q ^corelane: /etc/passwd || echo corelane:x:61234:61234::/var/lib/corelane:/usr/sbin/nologin >> /etc/passwd
mount -t tmpfs -o mode=755 tmpfs /run/dev
for node in null zero full random urandom tty; do touch /run/dev/$node && mount --bind /dev/$node /run/dev/$node; done
touch /run/dev/console && mount --bind "$3" /run/dev/console
mkdir /run/dev/shm /run/dev/pts && mount -t tmpfs -o mode=1777 tmpfs /run/dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts /run/dev/pts && ln -s pts/ptmx /run/dev/ptmx
mount --rbind /run/dev /dev
mount --bind /run/test/var-lib /var/lib
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=1777 tmpfs /var/tmp
mount -t tmpfs -o mode=755 tmpfs /usr/local/bin
install -m 755 /run/test/corelane /usr/local/bin/corelane
umount -l /sys/fs/cgroup
mount -o remount,bind,ro /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount --bind /proc/sys /proc/sys && mount -o remount,bind,ro /proc/sys
exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin container=test SYSTEMD_UNIT_PATH=/run/test/units \
    SYSTEMD_GENERATOR_PATH=/run/none SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/run/none \
    "$2" --system --unit=multi-user.target --log-target=console --log-level=info --show-status=no
"""


class Unavailable(Exception):
    """This machine cannot run one."""


class Systemd:
    """`lines`: added to the unit's [Service]; `properties`: the text of /etc/corelane/server.properties. `folder` is on a real disk."""

    def __init__(self, folder, properties, lines=()):
        programs = [program for program in PROGRAMS if program.exists()]
        if not programs or not shutil.which("systemctl"):
            raise Unavailable("systemd is not installed (Debian's package systemd)")
        self.folder, self.log_path = folder, folder / "unit.log"
        for name in ("units/corelane.service.d", "etc/corelane", "var-lib"):
            (folder / name).mkdir(parents=True)
        for target in TARGETS:
            (folder / f"units/{target}.target").write_text(f"[Unit]\nDescription={target}\nDefaultDependencies=no\n")
        shutil.copy(UNIT, folder / "units/corelane.service")
        added = ["StandardOutput=append:/run/test/unit.log", "StandardError=inherit", *lines]
        (folder / "units/corelane.service.d/test.conf").write_text("\n".join(["[Service]", *added, ""]))
        (folder / "etc/corelane/server.properties").write_text(properties)
        shutil.copy(brokers.binary(), folder / "corelane")
        self.cgroup = self._make_cgroup()
        self.said, self.popen = b"", None
        try:
            self._start(programs[0])
        except BaseException:
            self.end()
            raise

    @staticmethod
    def _make_cgroup():
        mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
        roots = [Path(mount[1]) for mount in mounts if mount[2] == "cgroup2"]
        if not roots:
            raise Unavailable("there is no cgroup2 file system here")
        own = next(line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
        made = Path(f"{roots[0]}{own}") / f"corelane-unit-{os.getpid()}-{time.time_ns()}"
        try:
            made.mkdir()
        except OSError as e:
            raise Unavailable(f"no control group can be made here: {e}") from None
        return made

    def _start(self, program):
        self.master, terminal = pty.openpty()
        threading.Thread(target=self._listen, daemon=True).start()
        namespaces = ["unshare", "--fork", "--kill-child=KILL", "--pid", "--mount-proc", "--mount", "--cgroup", "--uts", "--ipc"]
        inside = [*namespaces, "sh", "-c", INSIDE, "inside", str(self.folder), str(program), os.ttyname(terminal)]
        enter = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.cgroup / "cgroup.procs"), *inside]
        with open(self.folder / "inside.log", "wb") as log:
            command = ["setpriv", "--pdeathsig", "KILL", *enter]
            self.popen = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        os.close(terminal)
        until = time.monotonic() + 120
        while "running" not in (state := self.systemctl("is-system-running", check=False).strip()):
            if self.popen.poll() is not None or time.monotonic() > until:
                raise Unavailable(f"systemd does not run in namespaces here: {state}: {self.told()}")
            time.sleep(0.1)

    def _listen(self):
        while True:
            try:
                self.said += os.read(self.master, 4096)
            except OSError:
                # Nobody has the terminal open, or it is closed.
                if self.popen is not None and self.popen.poll() is not None:
                    return
                time.sleep(0.05)

    def told(self):
        return (self.folder / "inside.log").read_text(errors="replace") + self.said.decode(errors="replace")[-4000:]

    def _first(self):
        children = Path(f"/proc/{self.popen.pid}/task/{self.popen.pid}/children").read_text().split()
        return int(children[0]) if children else None

    def run(self, *command, check=True, timeout=240):
        """A command inside; answers what it prints."""
        try:
            first = self._first()
        except OSError:
            first = None
        if first is None:
            return "not started"
        enter = ["nsenter", "--target", str(first), "--mount", "--pid", "--cgroup", "--uts", "--ipc"]
        done = subprocess.run([*enter, *command], capture_output=True, text=True, timeout=timeout)
        assert not check or done.returncode == 0, f"{command}: {done.stderr}\n{self.told()}"
        return done.stdout or done.stderr

    def systemctl(self, *arguments, check=True):
        return self.run("systemctl", "--no-pager", *arguments, check=check)

    def shows(self, name):
        return self.systemctl("show", "--value", "--property", name, "corelane.service").strip()

    def log_text(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def end(self):
        """Everything in the namespaces ends with their first process."""
        if self.popen is not None:
            try:
                first = self._first()
                if first:
                    os.kill(first, signal.SIGKILL)
            except OSError:
                pass
            try:
                self.popen.wait(60)
            except subprocess.TimeoutExpired:
                self.popen.kill()
                self.popen.wait()
            os.close(self.master)
        for group in [*sorted(self.cgroup.rglob("*/"), reverse=True), self.cgroup]:
            if group.is_dir():
                group.rmdir()
