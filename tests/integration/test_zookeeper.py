"""The metadata store's engine over ZooKeeper against servers of each line of versions: the unit tests that start them."""

import os
import pathlib
import re
import shutil
import subprocess

import pytest

ROOT = pathlib.Path(__file__).parents[2]
LIBS = [path for path in os.environ.get("CORELANE_ZOOKEEPER_LIBS", "").split(":") if path]
TESTS = "cluster::store::zookeeper::tests"


def name(libs):
    return "-".join(pathlib.Path(libs).name.split("-")[:2]) if libs else "none"


# Sessions of a few seconds end where servers have to wait for a CPU.
@pytest.mark.alone
@pytest.mark.parametrize("libs", LIBS or [None], ids=name)
def test_the_engine_over_zookeeper(libs):
    if libs is None:
        pytest.skip("CORELANE_ZOOKEEPER_LIBS names no jars of ZooKeeper: scripts/test puts them in place")
    for program in ("java", "cargo"):
        if not shutil.which(program):
            pytest.skip(f"{program} is missing")
    command = ["cargo", "test", "--locked", "--features", "simulator", "--lib", TESTS, "--", "--test-threads=2", "--show-output"]
    env = {**os.environ, "CORELANE_ZOOKEEPER": libs}
    run = subprocess.run(command, cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert run.returncode == 0, run.stdout
    # The harness may write other lines between a test's name and its "ok".
    passed = re.search(r"^test result: ok\. (\d+) passed; 0 failed; 0 ignored", run.stdout, re.MULTILINE)
    assert passed and int(passed[1]) >= 20 and "three_servers_pass_the_suite" in run.stdout, run.stdout
    assert "left out:" not in run.stdout, run.stdout
