"""Hosts of a test's own on one machine: network namespaces around a bridge, and cuts between any two of them, each way apart.

The bridge lies in a namespace too, so nothing of this machine's own network is touched. Each namespace lasts as long as the process
that holds it, which dies with the test run: nothing is left behind, however the run ends.
"""

import ctypes
import os
import shutil
import subprocess
from contextlib import contextmanager

import pytest

# Whom frames go to that are to be lost: no host has it. Nothing tells the sender, as with a cable that is cut.
NOWHERE = "02:c0:00:00:00:ff"
_NEWNET = 0x40000000


def _run(*command, lines=()):
    given = "".join(f"{line}\n" for line in lines)
    done = subprocess.run([str(word) for word in command], input=given, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(map(str, command))} {given!r}: {done.stderr.strip()}"


class Host:
    """One namespace. `inside` is what a command begins with to run there."""

    def __init__(self, name, number):
        self.name, self.number = name, number
        self.address, self.hardware = f"10.99.0.{number}", f"02:c0:00:00:00:{number:02x}"
        hold = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "sh", "-c", "echo there; exec sleep infinity"]
        self.popen = subprocess.Popen(hold, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if self.popen.stdout.readline() != "there\n":
            why = self.popen.stderr.read().strip()
            self.end()
            raise PermissionError(f"no network namespace can be made here: {why}")
        self.file = f"/proc/{self.popen.pid}/ns/net"
        self.inside = ["nsenter", f"--net={self.file}"]

    def ip(self, *lines):
        _run(*self.inside, "ip", "-batch", "-", lines=lines)

    def end(self):
        self.popen.kill()
        self.popen.wait()
        self.popen.stdout.close()
        self.popen.stderr.close()


class Network:
    """Hosts by name, all of which reach each other."""

    def __init__(self, names):
        if missing := [tool for tool in ("ip", "nsenter", "unshare", "setpriv") if not shutil.which(tool)]:
            pytest.skip(f"network namespaces need {', '.join(missing)}")
        self.bridge, self.hosts = None, {}
        try:
            self.bridge = Host("bridge", 254)
            self.bridge.ip("link add bridge type bridge", "link set bridge up")
            for number, name in enumerate(names, 1):
                self.hosts[name] = Host(name, number)
            for host in self.hosts.values():
                self._connect(host)
        except (PermissionError, AssertionError) as error:
            self.close()
            pytest.skip(str(error))

    def _connect(self, host):
        end = f"end{host.number}"
        peer = f"peer name eth0 address {host.hardware} netns {host.popen.pid}"
        self.bridge.ip(f"link add {end} type veth {peer}", f"link set {end} master bridge up")
        host.ip("link set lo up", f"address add {host.address}/24 dev eth0", "link set eth0 up")
        # Everybody's hardware address is known from the start: a cut is another one in its place.
        host.ip(*(self._way(other, other.hardware) for other in self.hosts.values() if other is not host))

    @staticmethod
    def _way(to, hardware):
        return f"neighbour replace {to.address} lladdr {hardware} dev eth0 nud permanent"

    def __getitem__(self, name):
        return self.hosts[name]

    def cut(self, senders, receivers):
        """What `senders` send to `receivers` is lost; what comes back arrives. Names of hosts."""
        for sender in senders:
            lost = [self.hosts[name] for name in receivers if name != sender]
            self.hosts[sender].ip(*(self._way(to, NOWHERE) for to in lost))

    def part(self, some, others):
        """Nothing passes between `some` and `others`."""
        self.cut(some, others)
        self.cut(others, some)

    def heal(self):
        for host in self.hosts.values():
            host.ip(*(self._way(to, to.hardware) for to in self.hosts.values() if to is not host))

    @contextmanager
    def entered(self, name):
        """The caller's thread is on that host, and so are threads and processes that it starts."""
        before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            inside = os.open(self.hosts[name].file, os.O_RDONLY)
            try:
                _enter(inside)
                yield
            finally:
                os.close(inside)
                _enter(before)
        finally:
            os.close(before)

    def close(self):
        for host in [*self.hosts.values(), *([self.bridge] if self.bridge else [])]:
            host.end()


def _enter(namespace):
    # os.setns came with Python 3.12.
    if ctypes.CDLL(None, use_errno=True).setns(namespace, _NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")
