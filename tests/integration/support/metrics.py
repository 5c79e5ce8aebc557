"""A broker's metrics over HTTP, and a real Prometheus that scrapes them."""

import http.client
import json
import os
import re
import subprocess
import time
import urllib.parse
from pathlib import Path

import pytest

from . import broker as brokers
from . import clock

LISTENER = "corelane.http.listener"
# name{labels} value
SAMPLE = re.compile(r"^([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)$")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"')


def programs():
    """The folder with Debian's prometheus and promtool."""
    path = os.environ.get("CORELANE_PROMETHEUS")
    if not path or not (Path(path) / "promtool").exists():
        pytest.fail("CORELANE_PROMETHEUS names no folder with promtool; run the suites through scripts/test")
    return Path(path)


def serve(b):
    """Has a broker that is not started serve metrics at a port of its own."""
    b.http_port = brokers.free_port()
    b.props[LISTENER] = f"{brokers.HOST}:{b.http_port}"
    return b


def get(b, path="/metrics", timeout=30, **headers):
    """(status, content type, body)"""
    connection = http.client.HTTPConnection(brokers.HOST, b.http_port, timeout=timeout)
    try:
        connection.request("GET", path, headers=headers)
        response = connection.getresponse()
        return response.status, response.getheader("Content-Type"), response.read()
    finally:
        connection.close()


def text(b):
    status, kind, body = get(b)
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")
    return body.decode()


class Samples:
    """Of one scrape."""

    def __init__(self, text):
        self.by_name = {}
        for line in text.splitlines():
            if line.startswith("#"):
                continue
            name, labels, value = SAMPLE.match(line).groups()
            self.by_name.setdefault(name, []).append((dict(LABEL.findall(labels or "")), float(value)))

    def all(self, name, **labels):
        """[(labels, value)] of those that have `labels`."""
        return [(own, value) for own, value in self.by_name.get(name, []) if labels.items() <= own.items()]

    def sum(self, name, **labels):
        return sum(value for _, value in self.all(name, **labels))

    def one(self, name, **labels):
        found = self.all(name, **labels)
        assert len(found) == 1, f"{name} {labels}: {found}"
        return found[0][1]


def samples(b):
    return Samples(text(b))


def rise(b, act, name, **labels):
    """How much `act()` makes a counter rise."""
    before = samples(b).sum(name, **labels)
    act()
    return samples(b).sum(name, **labels) - before


def slow_requests(b, **wanted):
    """Those of all minutes that have these values, the newest minute's first."""
    status, kind, body = get(b, "/api/slow-requests")
    assert (status, kind) == (200, "application/json"), (status, kind)
    every = [request for minute in json.loads(body)["minutes"] for request in minute["requests"]]
    return [request for request in every if wanted.items() <= request.items()]


def promtool(*args, stdin=None, timeout=60):
    return subprocess.run([programs() / "promtool", *map(str, args)], input=stdin, capture_output=True, text=True, timeout=timeout)


class Prometheus:
    """A server of its own that scrapes brokers each second."""

    def __init__(self, folder, targets, native=False, rules=()):
        self.folder, self.port = folder, brokers.free_port()
        folder.mkdir(parents=True)
        config = {
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(path) for path in rules],
            "scrape_configs": [{"job_name": "corelane", "static_configs": [{"targets": [f"{brokers.HOST}:{b.http_port}" for b in targets]}]}],
        }
        # JSON is YAML.
        (folder / "prometheus.yml").write_text(json.dumps(config))
        command = [
            programs() / "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address={brokers.HOST}:{self.port}",
        ]  # fmt: skip
        if native:
            command.append("--enable-feature=native-histograms")
        self.log = open(folder / "log", "w+")
        self.process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], stdout=self.log, stderr=self.log)

    def __enter__(self):
        self.until(lambda: self.query("up"), "it answers")
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(30)
        self.log.close()

    def api(self, path, **query):
        connection = http.client.HTTPConnection(brokers.HOST, self.port, timeout=30)
        try:
            connection.request("GET", f"/api/v1/{path}?{urllib.parse.urlencode(query)}")
            answer = json.loads(connection.getresponse().read())
        finally:
            connection.close()
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression):
        """{labels without the scrape's own: value}; None while the server does not answer yet."""
        try:
            data = self.api("query", query=expression)
        except (OSError, http.client.HTTPException, ValueError):
            return None
        own = ("__name__", "instance", "job")
        return {
            tuple(sorted((k, v) for k, v in each["metric"].items() if k not in own)): float(each["value"][1])
            for each in data["result"]
            if "value" in each
        }

    def value(self, expression):
        found = self.query(expression)
        return next(iter(found.values())) if found and len(found) == 1 else None

    def until(self, holds, what, timeout=60):
        end = clock.running() + timeout
        while not holds():
            assert self.process.poll() is None, Path(self.log.name).read_text()[-3000:]
            assert clock.running() < end, f"not within {timeout} s: {what}\n{Path(self.log.name).read_text()[-3000:]}"
            time.sleep(0.2)
