"""kafka-dump-log reads a log whose batches were appended as another replica has them: with gaps, cuts and epochs of their own."""

import os
import re
import subprocess

from support import broker, java

WRITER = "shard::replica_log_tests::a_log_for_kafkas_tools"


def test_kafka_reads_a_log_that_was_appended_as_it_is(root):
    folder = root / "replica-log"
    folder.mkdir()
    args = ["cargo", "test", "--locked", "--features", "simulator", "--lib", WRITER, "--", "--exact", "--ignored"]
    done = subprocess.run(args, cwd=broker.REPO, env={**os.environ, "CORELANE_AS_IS_LOG": str(folder)}, capture_output=True, text=True, timeout=1800)
    assert done.returncode == 0 and "1 passed" in done.stdout, done.stdout + done.stderr
    logs = sorted((folder / "run-0" / "t-0").glob("*.log"))
    assert len(logs) > 3, logs
    got = java.run(java.DUMP, "--files", ",".join(map(str, logs)), "--deep-iteration", heap="512m")
    complaints = re.sub(r"Non-consecutive offsets in .*\n(  -?\d+ is followed by \d+\n?)+", "", got.log)
    bad = [line for line in complaints.splitlines() if line.strip() and not line.startswith(("SLF4J", "[main] INFO"))]
    bad += [line for line in got.out.splitlines() if re.search(r"isvalid: false|invalid bytes at the end", line)]
    assert not bad, "\n".join(bad[:10])
    batches = re.findall(r"^baseOffset: (\d+) lastOffset: (\d+) .*partitionLeaderEpoch: (\d+)", got.out, re.M)
    expected = [tuple(line.split()) for line in (folder / "expected").read_text().splitlines()]
    assert batches == expected
    for index in [*logs[0].parent.glob("*.index"), *logs[0].parent.glob("*.timeindex")]:
        checked = java.run(java.DUMP, "--files", index, "--index-sanity-check", heap="512m")
        # A short segment has no entry yet.
        assert "passed sanity check" in checked.out or (f"{index} is empty" in checked.out and index.stat().st_size == 0), str(checked)
