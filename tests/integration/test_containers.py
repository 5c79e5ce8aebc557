"""Brokers that end and begin in other namespaces, as containers do: the boot of the kernel is the same, and so is the data
directory where it is a volume."""

import os
import signal
import subprocess
from pathlib import Path

import pytest

from support import load
from support.held import HELD, consume, produce, values

UNSHARE = ["unshare", "--pid", "--fork", "--kill-child=KILL", "--mount", "--mount-proc", "--propagation", "private"]


def in_new_namespaces(b):
    """Has the broker be the first process of PID and mount namespaces of its own from now on, as a container's is."""
    own = b.command
    b.command = lambda config: [*UNSHARE, *own(config)]


def kill_first_process(b):
    """Its end ends the namespace; `unshare` waits for that."""
    children = Path(f"/proc/{b.pid}/task/{b.pid}/children").read_text().split()
    assert len(children) == 1, children
    os.kill(int(children[0]), signal.SIGKILL)
    b.popen.wait(60)


def test_a_container_that_is_killed_and_made_anew_keeps_its_arena(make_broker, corelane_only):
    tried = subprocess.run([*UNSHARE, "true"], capture_output=True, text=True)
    if tried.returncode != 0:
        pytest.skip(f"namespaces are refused here: {tried.stderr.strip()}")
    b = make_broker(HELD)
    in_new_namespaces(b)
    written = []
    for run in range(3):
        b.start(topics=["t"] if run else ())
        if run == 0:
            load.create_topic(b, "t", 1)
        assert consume(b) == written and len(b.taken_over()) == run
        produce(b, values(run))
        written += values(run)
        # The locks of the data directory end with the namespace.
        kill_first_process(b)
    # Outside of any.
    del b.command
    b.start(topics=["t"])
    assert consume(b) == written and len(b.taken_over()) == 3
    b.stop()
