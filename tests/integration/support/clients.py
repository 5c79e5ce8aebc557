"""The programs of tests/clients, one a client library, all under one contract; tests/clients/README.md tells it."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from . import clock

SOURCES = Path(__file__).resolve().parents[2] / "clients"
ALL = ("none", "gzip", "snappy", "lz4", "zstd")


class Client:
    """A client library. `codecs`: those it has without a library in C. `nulls`: it tells a null key or value
    from an empty one when it reads."""

    def __init__(self, name, command, codecs=ALL, idempotent=True, nulls=True):
        self.name, self._command = name, command
        self.codecs, self.idempotent, self.nulls = codecs, idempotent, nulls

    def spawn(self, broker, scenario, **args):
        """Its process; standard error goes to a file that its failures show."""
        pairs = [f"{k}={str(v).lower() if isinstance(v, bool) else v}" for k, v in args.items()]
        return Process([*self._command(), scenario, f"bootstrap={broker.bootstrap}", *pairs])

    def run(self, broker, scenario, records=(), timeout=90, **args):
        """What one prints that ends by itself, line by line."""
        with self.spawn(broker, scenario, **args) as process:
            return process.finish([json.dumps(r) for r in records], timeout)


class Process:
    """A program of tests/clients. `told`: the lines that it has printed so far."""

    def __init__(self, command):
        self.command, self.told = list(map(str, command)), []
        self.errors = tempfile.TemporaryFile("w+")
        # It dies with the test run, however that ends.
        self.popen = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *self.command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors,
            text=True, bufsize=1, env={**os.environ, "NODE_PATH": os.environ.get("CORELANE_NODE_MODULES", "")},
        )  # fmt: skip
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.popen.stdout:
            self.told.append(json.loads(line))

    def __str__(self):
        self.errors.seek(0)
        return f"{' '.join(self.command)}: last lines {self.told[-5:]}, exit code {self.popen.poll()}\n{self.errors.read()[-4000:]}"

    def say(self, line):
        try:
            self.popen.stdin.write(line + "\n")
            self.popen.stdin.flush()
        except BrokenPipeError:
            raise AssertionError(f"it ended early: {self}") from None

    def finish(self, lines=(), timeout=60):
        """Ends its input after `lines` and waits for it to end in good order."""
        for line in lines:
            self.say(line)
        self.popen.stdin.close()
        try:
            code = self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {timeout} s: {self}") from None
        self.reader.join()
        assert code == 0, str(self)
        return self.told

    def until(self, there, timeout=60):
        """Waits until `there()` is true."""
        end = clock.running() + timeout
        while not there():
            if self.popen.poll() is not None:
                # Its last lines may not be read yet.
                self.reader.join()
                assert there(), f"it ended early: {self}"
                return
            assert clock.running() < end, f"not within {timeout} s: {self}"
            time.sleep(0.02)

    def ask(self, *words):
        """One command of `admin` and its answer."""
        before = len(self.told)
        self.say(" ".join(map(str, words)))
        self.until(lambda: len(self.told) > before)
        return self.told[before]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.popen.kill()
        self.popen.wait()
        self.reader.join()


def go(name):
    def command():
        if "CORELANE_GO_CLIENTS" not in os.environ:
            pytest.fail("CORELANE_GO_CLIENTS is not set; run the suites through scripts/test")
        if not os.environ["CORELANE_GO_CLIENTS"]:
            pytest.skip("no Go that is new enough")
        return [Path(os.environ["CORELANE_GO_CLIENTS"]) / name]

    return command


def node():
    if not os.environ.get("CORELANE_NODE_MODULES"):
        pytest.fail("CORELANE_NODE_MODULES is not set; run the suites through scripts/test")
    return ["node", SOURCES / "node/client.js"]


def rust():
    if not os.environ.get("CORELANE_RUST_CLIENT"):
        pytest.fail("CORELANE_RUST_CLIENT is not set; run the suites through scripts/test")
    return [os.environ["CORELANE_RUST_CLIENT"]]


CLIENTS = [
    Client("franz-go", go("franz")),
    Client("sarama", go("sarama")),
    Client("sarama-1.45.0", go("sarama-1.45.0")),
    Client("kafka-go", go("segmentio"), idempotent=False, nulls=False),
    Client("kafkajs", node, codecs=("none", "gzip", "snappy")),
    Client("aiokafka", lambda: [sys.executable, SOURCES / "aio.py"]),
    Client("rust-rdkafka", rust),
]
