"""`corelane tune`: the report, the profile it writes, and that nothing else changes."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from support import broker as brokers
from support import load

pytestmark = pytest.mark.usefixtures("corelane_only")

WATCHED = [
    "/proc/sys/vm/swappiness",
    "/proc/sys/net/core/somaxconn",
    "/proc/sys/net/ipv4/tcp_congestion_control",
    "/proc/sys/net/ipv4/tcp_slow_start_after_idle",
    "/sys/kernel/mm/transparent_hugepage/enabled",
]


def system():
    queues = sorted(map(str, Path("/sys/block").glob("*/queue/scheduler")))
    return {path: Path(path).read_text() for path in [*WATCHED, *queues] if os.access(path, os.R_OK)}


@pytest.fixture
def folder(root, request):
    """An empty folder to work in, with a data directory in it; what the system was like is compared after the test."""
    path = root / request.node.name
    (path / "data").mkdir(parents=True)
    before = system()
    yield path
    assert system() == before, "tune changed the system"


def tune(folder, *args, data="data", timeout=120):
    command = [str(brokers.binary()), "tune", "--data", str(data), *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout)


def files(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def wait_for_probe(popen, timeout=30):
    """Until the process has its unnamed file open."""
    end = time.monotonic() + timeout
    while time.monotonic() < end and popen.poll() is None:
        for fd in Path(f"/proc/{popen.pid}/fd").iterdir():
            try:
                if ".corelane-tune-" in os.readlink(fd) and "(deleted)" in os.readlink(fd):
                    return
            except OSError:
                continue
        time.sleep(0.005)
    raise AssertionError(f"no probe file was opened; exit code {popen.poll()}")


def test_check_agrees_with_its_report(folder):
    """Exit code 3 exactly when something is off; measures nothing and writes nothing."""
    done = tune(folder, "--check", "--format", "json")
    report = json.loads(done.stdout)
    assert done.returncode == (3 if report["findings"] else 0), done
    assert report["measured"] is None and report["profile"]["file"] is None and report["applied"] == []
    assert files(folder) == []
    text = tune(folder, "--check")
    assert text.returncode == done.returncode
    for finding in report["findings"]:
        assert finding["id"] in text.stdout and finding["command"] in text.stdout


def test_check_excludes_changes(folder):
    assert tune(folder, "--check", "--apply").returncode == 2


def test_report_and_profile(folder, make_broker, figure):
    """The JSON report is whole, the profile loads without a warning into a broker that then serves."""
    began = time.monotonic()
    done = tune(folder, "--format", "json")
    took = time.monotonic() - began
    assert done.returncode == 0, done
    assert files(folder) == ["corelane-tuned.properties"], "the probe left something"
    report = json.loads(done.stdout)
    assert set(report) == {"version", "data", "host", "measured", "profile", "findings", "applied"}
    assert report["version"] == 1 and report["data"] == str((folder / "data").resolve()) and report["applied"] == []
    assert report["profile"]["class"] in ("nvme", "sata-ssd", "hdd") and report["profile"]["why"]
    assert set(report["profile"]["producer"]) == {"batch.size", "linger.ms", "compression.type"}
    for finding in report["findings"]:
        assert set(finding) == {"id", "is", "should", "why", "command", "applicable"}
        assert all(finding[key] for key in ("id", "is", "should", "why", "command"))
    measured = report["measured"]
    kinds = {(w["size"], w["depth"], w["rewritten"]) for w in measured["writes"]}
    assert kinds == {(s, d, r) for s in (65536, 524288) for d in (1, 4, 16) for r in (False, True)}
    assert all(w["mb_per_s"] > 0 for w in measured["writes"]) and measured["read_mb_per_s"] > 0
    assert 0 < measured["sync_p50_us"] <= measured["sync_p99_us"]
    figure("tune", f"{took:.1f} s, profile {report['profile']['class']}")

    profile = folder / "corelane-tuned.properties"
    b = make_broker()
    plain = b.prepare
    b.prepare = lambda config: (plain(config), config.write_text(profile.read_text() + config.read_text()))
    b.start()
    load.create_topic(b, "tuned", 2)
    load.produce_lines(b, "tuned", 2000, 2)
    load.check_lines(b, "tuned", 2000, 2)
    log = b.log_text()
    for setting in report["profile"]["settings"]:
        assert f"{setting['key']}: unknown" not in log, log


def test_a_profile_is_not_overwritten(folder):
    kept = folder / "mine.properties"
    kept.write_text("node.id=5\n")
    done = tune(folder, "--profile", "mine.properties")
    assert done.returncode == 1 and "--force" in done.stderr and "mine.properties" in done.stderr
    assert kept.read_text() == "node.id=5\n"
    assert tune(folder, "--profile", "mine.properties", "--force").returncode == 0
    assert "corelane.tail.cache.bytes" in kept.read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_interrupted(folder, number):
    """However it ends, neither the probe file nor a profile is left."""
    command = [str(brokers.binary()), "tune", "--data", "data"]
    popen = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for_probe(popen)
    popen.send_signal(number)
    out, err = popen.communicate(timeout=30)
    if number == signal.SIGKILL:
        assert popen.returncode == -signal.SIGKILL
    else:
        assert popen.returncode == 130 and "interrupted" in err and out == "", (popen.returncode, out, err)
    assert files(folder) == []


def test_data_directory_that_is_not_there_yet(folder):
    done = tune(folder, "--check", "--format", "json", data="data/a/b")
    assert json.loads(done.stdout)["data"] == str((folder / "data").resolve())
    assert not (folder / "data/a").exists()


def test_apply(folder):
    """In a network namespace of its own, where the rest of the system can only be read: what can be changed is, what cannot
    is named, and the exit code tells."""
    script = """
        mount -t sysfs -o ro sys /sys && mount --bind /proc/sys/vm /proc/sys/vm && mount -o remount,bind,ro /proc/sys/vm || exit 77
        echo 1 > /proc/sys/net/ipv4/tcp_slow_start_after_idle
        "$0" tune --data data --apply --format json; echo "exit $?"; "$0" tune --data data --check --format json
    """
    command = ["unshare", "-n", "-m", "sh", "-c", script, str(brokers.binary())]
    try:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    except FileNotFoundError:
        pytest.skip("there is no unshare")
    if done.returncode == 77 or "unshare failed" in done.stderr:
        pytest.skip(f"no namespace can be made here: {done.stderr.strip()}")
    before, rest = done.stdout.split("\nexit ")
    code, after = rest.split("\n", 1)
    before, after = json.loads(before), json.loads(after)
    listed = [finding["command"] for finding in before["findings"] if finding["applicable"]]
    assert [one["command"] for one in before["applied"]] == listed
    assert "sudo sysctl -w net.ipv4.tcp_slow_start_after_idle=0" in listed
    for one in before["applied"]:
        assert f"{'failed' if one['error'] else 'done'}: {one['command']}" in done.stderr
        if not one["command"].startswith("sudo sysctl -w net."):
            assert one["error"], one
    failed = [one["command"] for one in before["applied"] if one["error"]]
    # cubic may be refused to a namespace.
    assert not [command for command in failed if "slow_start" in command]
    assert code == ("1" if failed else "0")
    assert [finding["command"] for finding in after["findings"] if finding["applicable"]] == failed


def test_beside_a_running_broker(folder, make_broker):
    """Its data directory is locked by the broker, which goes on."""
    b = make_broker()
    b.start()
    before = files(b.data_dir)
    done = tune(folder, "--profile", "p.properties", data=b.data_dir)
    assert done.returncode == 0, done
    assert files(b.data_dir) == before and b.serves()


def test_full_disk(folder, root):
    """Too little space is one line that says how much is needed; nothing is left behind."""
    image, point = root / "tune.img", root / "tune-disk"
    point.mkdir()
    with open(image, "wb") as f:
        f.truncate(64 << 20)
    try:
        subprocess.run(["mkfs.ext4", "-q", "-b", "4096", "-m", "0", str(image)], check=True, capture_output=True)
        subprocess.run(["mount", "-o", "loop", str(image), str(point)], check=True, capture_output=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as e:
        image.unlink()
        point.rmdir()
        pytest.skip(f"no full disk can be made here: {e}")
    try:
        before = files(point)
        done = tune(folder, data=point)
        assert done.returncode == 1 and "too little space" in done.stderr and "384 MiB" in done.stderr, done
        assert files(point) == before and files(folder) == []
    finally:
        subprocess.run(["umount", str(point)], check=True)
        image.unlink()
        point.rmdir()
