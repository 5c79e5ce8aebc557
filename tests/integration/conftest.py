"""Fixtures of the integration suites: brokers that clean up after themselves, the length of a run, the figures."""

import json
import os
import re
import shutil
import subprocess
import time
from fnmatch import fnmatch
from pathlib import Path

import pytest

from support import broker as brokers
from support import cluster as clusters
from support import groups, load, proc, wire

_figures = []
_ran = set()
_log_tails = pytest.StashKey()


def pytest_configure(config):
    """Each process of a run by several has a part of the ports."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker:
        low, high = brokers.ports()
        count = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        share, number = (high - low + 1) // count, int(worker.removeprefix("gw")) % count
        os.environ["CORELANE_TEST_PORTS"] = f"{low + share * number}-{low + share * (number + 1) - 1}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    from support import schedule

    return schedule.Scheduling(config, log)


def pytest_addoption(parser):
    parser.addoption("--full", action="store_true", help="acceptance length: 100 kill cycles, 5,000,000 records, ...")
    parser.addoption("--keep", action="store_true", help="leave the brokers' folders in place")


def pytest_collection_modifyitems(config, items):
    """A module's `CI` has patterns of the tests' names that are run at CI length, where that is not all of them."""
    if config.getoption("--full"):
        return
    kept = [i for i in items if any(fnmatch(i.name, pattern) for pattern in getattr(i.module, "CI", "*"))]
    config.hook.pytest_deselected(items=[i for i in items if i not in kept])
    items[:] = kept


def pytest_runtest_logreport(report):
    """In a run by several processes, as the first of them sees it."""
    _ran.add(report.nodeid)
    if report.when == "teardown":
        _figures.extend(value for name, value in report.user_properties if name == "figure")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session, exitstatus):
    """A test that is collected and never runs fails the run. `CORELANE_TEST_END` names a file that says that the run came to its end:
    code under test that exits the process with 0 would pass for a run without failures."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        return
    whole = f"{len(_ran)} of {session.testscollected} tests ran"
    if exitstatus == 0 and len(_ran) != session.testscollected and not session.config.option.collectonly:
        session.config.get_terminal_writer().line(f"\n{whole}", red=True)
        session.exitstatus = pytest.ExitCode.INTERNAL_ERROR
    if end := os.environ.get("CORELANE_TEST_END"):
        Path(end).write_text(f"{whole}\n")


def pytest_terminal_summary(terminalreporter):
    if not _figures:
        return
    terminalreporter.section(f"figures ({brokers.target()})")
    for test, name, value in _figures:
        terminalreporter.write_line(f"{test}: {name}: {value}")
    out = data_root() / f"figures-{brokers.target()}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps([{"test": t, "name": n, "value": v} for t, n, v in _figures], indent=1))


def data_root():
    return Path(os.environ.get("CORELANE_TEST_DATA", brokers.REPO / "target/it"))


@pytest.fixture(scope="session")
def root(request):
    """Where brokers keep their data: a real disk, as O_DIRECT wants one."""
    path = data_root() / f"run-{os.getpid()}"
    path.mkdir(parents=True)
    kind = proc.filesystem(path)
    assert kind not in ("tmpfs", "ramfs"), f"{path} is on {kind}; set CORELANE_TEST_DATA to a folder on a real disk"
    if brokers.target() == "corelane":
        assert brokers.binary().exists(), f"{brokers.binary()} is missing: cargo build --release, or set CORELANE_BIN"
    yield path
    if not request.config.getoption("--keep"):
        shutil.rmtree(path, ignore_errors=True)


class Length:
    def __init__(self, full):
        self.full = full

    def pick(self, ci, full):
        return full if self.full else ci


@pytest.fixture(scope="session")
def length(request):
    return Length(request.config.getoption("--full"))


@pytest.fixture
def figure(request):
    """`figure(name, value)` prints a measured figure at the end of the run."""
    return lambda name, value: request.node.user_properties.append(("figure", (request.node.name, name, value)))


@pytest.fixture
def corelane_only():
    if brokers.target() != "corelane":
        pytest.skip("checks what only Corelane has")


def check_log(b):
    """No broker that a test used may have panicked or stalled, whatever the test itself saw."""
    if b.kind != "corelane":
        return
    bad = [s for s in b.log_text().splitlines() if re.search(r"panicked at|without progress|SIGSEGV|AddressSanitizer", s)]
    assert not bad, "the broker's log:\n" + "\n".join(bad[:20])


def slug(text):
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-")[:80]


def _watch(request, b):
    request.node.stash.setdefault(_log_tails, []).append(b)


def _shorten(report):
    """In CI pytest's summary has each message whole: its first lines tell which failure it was."""
    if crash := getattr(report.longrepr, "reprcrash", None):
        crash.message = "\n".join(line[:300] for line in crash.message.splitlines()[:6])


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed:
        _shorten(report)
        for b in item.stash.get(_log_tails, []):
            report.sections.append((f"end of the log of the broker in {b.folder}", b.log_tail()))


@pytest.fixture
def small_disk(root, request):
    """A file system of 64 MiB of its own, in a file."""
    image, point = root / "disk.img", root / "disk"
    point.mkdir()
    with open(image, "wb") as f:
        f.truncate(64 << 20)
    try:
        made = subprocess.run(["mkfs.ext4", "-q", "-b", "4096", "-m", "0", str(image)], capture_output=True, text=True)
        assert made.returncode == 0, made.stderr
        mounted = subprocess.run(["mount", "-o", "loop", str(image), str(point)], capture_output=True, text=True)
    except FileNotFoundError as e:
        image.unlink()
        point.rmdir()
        pytest.skip(f"no full disk can be made here: {e}")
    if mounted.returncode != 0:
        image.unlink()
        point.rmdir()
        pytest.skip(f"no full disk can be made here: {mounted.stderr.strip()}")
    yield point
    for _ in range(50):
        if subprocess.run(["umount", str(point)], capture_output=True).returncode == 0:
            break
        time.sleep(0.2)
    image.unlink()
    point.rmdir()


@pytest.fixture
def make_broker(request, root):
    """`make_broker(props, ...)`: a broker of this test's own, not started. Ended, checked and removed after the test."""
    made = []

    def make(props=None, **kwargs):
        b = brokers.broker_class()(root / f"{slug(request.node.name)}-{len(made)}", props, **kwargs)
        made.append(b)
        _watch(request, b)
        return b

    yield make
    for b in made:
        b.kill()
    try:
        for b in made:
            check_log(b)
    finally:
        if not request.config.getoption("--keep"):
            for b in made:
                shutil.rmtree(b.folder, ignore_errors=True)


@pytest.fixture
def watch(request):
    """`watch(broker)`: the end of its log is shown if the test fails."""
    return lambda b: _watch(request, b)


@pytest.fixture
def make_cluster(request, root, watch):
    """`make_cluster(...)`: a cluster of this test's own, started. Ended, checked and removed after the test. `prepare` is given the
    cluster before it starts."""
    made = []

    def make(prepare=lambda cluster: None, **options):
        c = clusters.Cluster(root / f"{slug(request.node.name)}-cluster-{len(made)}", **options)
        made.append(c)
        for b in c.brokers.values():
            watch(b)
        prepare(c)
        return c.start()

    yield make
    for c in made:
        c.kill()
    try:
        for c in made:
            for b in c.brokers.values():
                check_log(b)
    finally:
        if not request.config.getoption("--keep"):
            for c in made:
                shutil.rmtree(c.folder, ignore_errors=True)


def _serving(folder, options):
    """A broker for the whole session, started and, at its end, stopped."""
    b = brokers.broker_class()(folder, options)
    b.start()
    yield b
    b.stop()
    check_log(b)


def _lent(request, b):
    """The session's broker for one test, which must leave it alive."""
    _watch(request, b)
    if not b.alive():
        b.start()
    yield b
    assert b.alive(), f"the broker died during this test:\n{b.log_tail()}"
    check_log(b)


@pytest.fixture(scope="session")
def shared_broker(root):
    yield from _serving(root / "shared", {"num.partitions": 1})


@pytest.fixture
def broker(request, shared_broker):
    """One broker with default options for all tests that do not stop it; still alive after each."""
    yield from _lent(request, shared_broker)


@pytest.fixture(scope="session")
def shared_group_broker(root):
    yield from _serving(root / "shared-groups", brokers.QUICK_GROUPS)


@pytest.fixture
def group_broker(request, shared_group_broker):
    """One broker for all tests of groups that do not stop it, with shorter times than the defaults; still alive after each."""
    yield from _lent(request, shared_group_broker)


@pytest.fixture(scope="session")
def shared_transaction_broker(root):
    yield from _serving(root / "shared-transactions", brokers.QUICK_TRANSACTIONS)


@pytest.fixture
def transaction_broker(request, shared_transaction_broker):
    """One broker for all tests of transactions that do not stop it; still alive after each."""
    yield from _lent(request, shared_transaction_broker)


@pytest.fixture(scope="session")
def group_topic(shared_group_broker):
    """Four partitions that tests by hand commit offsets of."""
    return load.create_topic(shared_group_broker, f"by-hand-{time.time_ns()}", 4)


@pytest.fixture
def conn(group_broker):
    with wire.Conn(group_broker, timeout=30) as c:
        yield c


@pytest.fixture
def group(group_broker):
    """A name that no other test uses; its coordinator serves."""
    name = f"group-{time.time_ns()}"
    groups.wait_ready(group_broker, name)
    return name


def _members(kind, group_broker, group):
    made = []

    def make(**options):
        made.append(kind(group_broker, options.pop("group", group), **options))
        return made[-1]

    yield make
    for m in made:
        m.conn.close()


@pytest.fixture
def classic(group_broker, group):
    """`classic(...)`: a member by hand of the test's group."""
    yield from _members(groups.ClassicMember, group_broker, group)


@pytest.fixture
def consumer(group_broker, group):
    """`consumer(...)`: the same for the newer protocol."""
    yield from _members(groups.ConsumerMember, group_broker, group)


@pytest.fixture
def topic(request, broker):
    """`topic(partitions, **configs)` creates a topic in the shared broker; its folder is emptied by deletion afterwards."""
    made = []

    def make(partitions=1, **configs):
        name = f"{slug(request.node.name)}-{len(made)}"
        made.append(load.create_topic(broker, name, partitions, **configs))
        return name

    yield make
    if made and broker.alive():
        from confluent_kafka.admin import AdminClient

        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        for f in admin.delete_topics(made).values():
            f.result(60)
