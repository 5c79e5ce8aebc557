"""Runs of the suites themselves: by several processes, and what a run that ends early says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
TOY = """
import os, time, pathlib, pytest
from support import broker

def note(what):
    with open({log!r}, "a") as log:
        log.write(f"{{time.time_ns()}} {{what}}\\n")

{tests}
"""
ORDINARY = """
@pytest.mark.parametrize("n", range(4))
def test_{file}(n, figure):
    note("{file} begins")
    time.sleep(0.1)
    figure("ports", broker.ports()[0])
    note("{file} ends")
"""
LONELY = """
@pytest.mark.alone
@pytest.mark.parametrize("n", range(2))
def test_{file}_alone(n):
    note("alone begins")
    time.sleep(0.1)
    note("alone ends")
"""


@pytest.fixture
def run(tmp_path):
    def run(files, *args):
        for name, tests in files.items():
            (tmp_path / f"test_{name}.py").write_text(TOY.format(log=str(tmp_path / "log"), tests=tests.format(file=name)))
        env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTEST_", "CORELANE_TEST_"))}
        env |= {"CORELANE_TEST_END": str(tmp_path / "end"), "CORELANE_TEST_DATA": str(tmp_path), "PYTHONPATH": str(HERE)}
        command = [sys.executable, "-m", "pytest", "-c", HERE.parent / "pytest.ini", "-p", "conftest", f"--rootdir={tmp_path}", tmp_path]
        done = subprocess.run([*map(str, command), *args], env=env, cwd=HERE, capture_output=True, text=True, timeout=40)
        end = tmp_path / "end"
        return done.returncode, done.stdout + done.stderr, end.read_text() if end.exists() else ""

    return run


SEVERAL = ("-n", "2", "--dist", "loadfile")


def test_what_runs_alone_runs_last_and_alone(run, tmp_path):
    code, said, end = run({name: ORDINARY + LONELY for name in "abc"}, *SEVERAL)
    assert code == 0 and end == "18 of 18 tests ran\n", said
    notes = [line.split(" ", 1)[1] for line in sorted((tmp_path / "log").read_text().splitlines())]
    assert all(note.startswith("alone") for note in notes[-12:]) and not any(note.startswith("alone") for note in notes[:-12]), notes
    assert notes[-12:] == ["alone begins", "alone ends"] * 6
    assert any(a.endswith("begins") and b.endswith("begins") for a, b in zip(notes, notes[1:])), "side by side"
    ports = dict(re.findall(r"^test_(\w)\[0\]: ports: (\d+)$", said, re.M))
    assert set(ports) == set("abc") and len(set(ports.values())) == 2, said


def test_only_tests_that_run_alone(run):
    code, said, end = run({"a": LONELY}, *SEVERAL)
    assert code == 0 and end == "2 of 2 tests ran\n", said


def test_a_failure_in_any_process_fails_the_run(run):
    code, said, _ = run({"a": ORDINARY, "b": ORDINARY, "c": ORDINARY + "def test_wrong(): assert False\n"}, *SEVERAL)
    assert code == 1 and "FAILED" in said.splitlines()[-2] and "test_c.py::test_wrong" in said.splitlines()[-2], said


EXITS = "def test_exits(): os._exit(0)\n"


def test_a_process_that_exits_early_with_0_fails_the_run(run):
    code, said, _ = run({"a": ORDINARY, "b": EXITS + ORDINARY, "c": ORDINARY + LONELY}, *SEVERAL)
    assert code == 1 and "crashed while running" in said and "test_exits" in said, said
    # By one process nothing is left to tell of it but that the end was not written.
    code, said, end = run({"b": EXITS}, "-n", "0")
    assert code == 0 and not end.startswith("1 of"), said
