"""`tuning/corelane.service`: systemd finds nothing wrong with it, and starts, restarts and stops the broker by it."""

import re
import shutil
import subprocess
import time

import pytest

from support import clock, load, systemd
from support.held import HELD, RECORDS, consume, produce, values

# Ten times the overall exposure level that `systemd-analyze security` may find; 1.5 with systemd 252.
EXPOSURE = 20


def analyze(*arguments):
    if not shutil.which("systemd-analyze"):
        pytest.skip("systemd-analyze is not installed (Debian's package systemd)")
    return subprocess.run(["systemd-analyze", "--no-pager", *map(str, arguments)], capture_output=True, text=True)


def test_systemd_finds_nothing_wrong_with_the_unit(root, corelane_only):
    folder = root / "unit-verify"
    folder.mkdir()
    unit = folder / "corelane.service"
    # The program must be there; true is, wherever the broker is.
    unit.write_text(systemd.UNIT.read_text().replace("/usr/local/bin/corelane", shutil.which("true")))
    done = analyze("verify", "--man=no", "--recursive-errors=no", unit)
    assert done.returncode == 0 and not done.stdout + done.stderr, done.stdout + done.stderr


def test_the_units_exposure_is_small(root, corelane_only, figure):
    done = analyze("security", "--offline=yes", f"--threshold={EXPOSURE}", systemd.UNIT)
    found = re.search(r"Overall exposure level.*: (\S+)", done.stdout)
    assert done.returncode == 0 and found, done.stdout[-2000:] + done.stderr
    figure("systemd-analyze security", found[1])


def wait_for(b, unit, restarts):
    until = clock.running() + 120
    while unit.shows("NRestarts") != str(restarts) or not b.serves():
        assert clock.running() < until, f"not serving:\n{unit.log_text()[-4000:]}\n{unit.told()}"
        time.sleep(0.1)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("place", ["data directory", "runtime directory"])
def test_systemd_restarts_a_killed_broker_that_takes_its_arena_over(make_broker, root, corelane_only, request, figure, place):
    # Only its port and its clients' helpers are used: systemd starts the process.
    b = make_broker()
    options, lines = {**HELD, "listeners": f"PLAINTEXT://{b.host}:{b.port}", "log.dirs": "/var/lib/corelane"}, []
    if place == "runtime directory":
        options["corelane.arena.dir"] = "/run/corelane"
        lines = ["RuntimeDirectory=corelane", "RuntimeDirectoryPreserve=yes"]
    try:
        unit = systemd.Systemd(b.folder / "unit", "".join(f"{k}={v}\n" for k, v in options.items()), lines)
    except systemd.Unavailable as e:
        pytest.skip(str(e))
    request.addfinalizer(unit.end)
    b.log_path = unit.log_path

    unit.systemctl("start", "corelane.service")
    wait_for(b, unit, 0)
    load.create_topic(b, "t", 1)
    produce(b, values(0))
    pid = unit.shows("MainPID")
    unit.run("kill", "-KILL", pid)
    wait_for(b, unit, 1)
    assert unit.shows("MainPID") != pid
    assert consume(b) == values(0)
    assert len(b.taken_over()) == 1, "what stood in the arena alone was not needed"
    if place == "runtime directory":
        assert "from its arena in /run/corelane/" in unit.log_text()
    assert "no arena" not in unit.log_text(), "the sandbox has let it make its arenas"
    status = unit.run("cat", f"/proc/{unit.shows('MainPID')}/status")
    assert re.search(r"^Uid:\s+61234", status, re.M) and re.search(r"^NoNewPrivs:\s+1", status, re.M)
    assert re.search(r"^CapEff:\s+0+$", status, re.M) and re.search(r"^Seccomp:\s+2", status, re.M)

    produce(b, values(1))
    since = time.monotonic()
    unit.systemctl("stop", "corelane.service")
    figure(f"systemctl stop, {place}", f"{time.monotonic() - since:.1f} s")
    assert (unit.shows("Result"), unit.shows("ActiveState")) == ("success", "inactive"), unit.told()
    assert "stopped in good order" in unit.log_text()
    unit.systemctl("start", "corelane.service")
    wait_for(b, unit, 0)
    assert "/var/lib/corelane: the last stop was clean" in unit.log_text()
    assert len(consume(b)) == 2 * RECORDS and len(b.taken_over()) == 1
    unit.systemctl("stop", "corelane.service")
