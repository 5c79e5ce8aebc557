"""A ZooKeeper ensemble as processes, from the jars that scripts/test put in place."""

import os
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from . import clock
from .broker import HOST, free_port


def libs():
    """The newest version's jars; skips the test where there are none."""
    found = [path for path in os.environ.get("CORELANE_ZOOKEEPER_LIBS", "").split(":") if path]
    if not found:
        pytest.skip("CORELANE_ZOOKEEPER_LIBS names no jars of ZooKeeper: scripts/test puts them in place")
    return found[-1]


class Server:
    """One server. It can be killed and started again on its data, or paused."""

    def __init__(self, folder, number, ports, on=None):
        self.folder, self.number, self.ports = Path(folder), number, ports
        # On a host of a test's own network, or on this machine itself.
        self.host, self.inside = (on.address, on.inside) if on else (HOST, [])
        self.popen = None

    @property
    def address(self):
        return f"{self.host}:{self.ports[0]}"

    def configure(self, servers):
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "myid").write_text(f"{self.number}\n")
        lines = [
            "tickTime=500",
            "initLimit=20",
            # A leader without followers gives up after 2.5 s: before a session of 3 s ends by its word alone.
            "syncLimit=5",
            f"dataDir={self.folder}",
            f"clientPort={self.ports[0]}",
            f"clientPortAddress={self.host}",
            "admin.enableServer=false",
            "4lw.commands.whitelist=*",
        ]
        if len(servers) > 1:
            lines += [f"server.{s.number}={s.host}:{s.ports[1]}:{s.ports[2]}" for s in servers]
        (self.folder / "zoo.cfg").write_text("\n".join(lines) + "\n")

    def start(self):
        quiet = ["-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dzookeeper.forceSync=no"]
        main = "org.apache.zookeeper.server.quorum.QuorumPeerMain"
        command = ["java", *quiet, "-cp", f"{libs()}/*", main, str(self.folder / "zoo.cfg")]
        with open(self.folder / "log", "ab") as log:
            # It dies with the test run, however that ends.
            self.popen = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *self.inside, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def ask(self, word):
        """Answer to one of its four-letter words; empty if there is none."""
        try:
            with socket.create_connection((self.host, self.ports[0]), timeout=5) as s:
                s.sendall(word.encode())
                answer = b""
                while more := s.recv(4096):
                    answer += more
            return answer.decode()
        except OSError:
            return ""

    def serves(self):
        return "Mode: " in self.ask("srvr")

    def wait(self, timeout=60):
        end = clock.running() + timeout
        while not self.serves():
            assert self.popen.poll() is None, f"ZooKeeper has ended:\n{(self.folder / 'log').read_text()[-3000:]}"
            assert clock.running() < end, f"ZooKeeper does not serve:\n{(self.folder / 'log').read_text()[-3000:]}"
            time.sleep(0.05)

    def pause(self):
        self.popen.send_signal(signal.SIGSTOP)

    def resume(self):
        self.popen.send_signal(signal.SIGCONT)

    def kill(self):
        if self.popen:
            self.popen.kill()
            self.popen.wait()


class Ensemble:
    def __init__(self, folder, count=1, network=None):
        self.servers = []
        for n in range(1, count + 1):
            name = f"zookeeper-{n}"
            ports = [2181, 2888, 3888] if network else [free_port() for _ in range(3)]
            self.servers.append(Server(Path(folder) / name, n, ports, network and network[name]))

    @property
    def connect(self):
        return ",".join(server.address for server in self.servers)

    def start(self):
        for server in self.servers:
            server.configure(self.servers)
            server.start()
        for server in self.servers:
            server.wait()
        return self

    def pause(self):
        for server in self.servers:
            server.pause()

    def resume(self):
        for server in self.servers:
            server.resume()

    def kill(self):
        for server in self.servers:
            server.kill()

    def shell(self, *commands, chroot=""):
        """Output of ZooKeeper's own shell."""
        command = ["java", "-cp", f"{libs()}/*", "org.apache.zookeeper.ZooKeeperMain", "-server", self.servers[0].address + chroot]
        done = subprocess.run(command, input="\n".join([*commands, "quit", ""]), capture_output=True, text=True, timeout=60)
        return done.stdout
