"""`corelane log`: the files that Corelane or, with CORELANE_TEST_TARGET=kafka, Apache Kafka has written, without a broker."""

import json

import pytest

from support import load
from support.cli import run

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
RECORDS = 400


@pytest.fixture
def written(make_broker):
    """The data directory of a broker that has stopped; what each codec's topic holds, as (key, value)."""
    b = make_broker({"log.segment.bytes": 1 << 20, "log.index.interval.bytes": 1024})
    b.start()
    held = {}
    for codec in CODECS:
        load.create_topic(b, f"log-{codec}", 1)
        p = load.producer(b, **{"compression.type": codec, "enable.idempotence": True, "linger.ms": 5, "batch.num.messages": 40})
        held[codec] = [(None if n % 7 == 0 else f"k{n}", None if n % 11 == 0 else f"value {n} " * 400) for n in range(RECORDS)]
        for key, value in held[codec]:
            p.produce(f"log-{codec}", value, key)
        assert p.flush(60) == 0
    b.stop()
    return b, held


def dump(path, *words, code=0):
    """The objects that it prints."""
    done = run("log", "dump", path, "--format", "json", *words)
    assert done.code == code, done
    return [json.loads(line) for line in done.out.splitlines()]


def test_what_a_broker_has_written_is_sound(written):
    b, held = written
    report = run("log", "verify", b.data_dir, "--deep", "--format", "json")
    assert report.code == 0 and not report.err, report
    found = report.json
    assert found["damage"] == found["failed"] == [] and found["records"] >= RECORDS * len(CODECS)
    for codec in CODECS:
        one = run("log", "verify", b.partition_dir(f"log-{codec}"), "--format", "json").json
        assert (one["partitions"], one["records"]) == (1, RECORDS) and one["segments"] > (1 if codec == "none" else 0)
    text = run("log", "verify", b.data_dir)
    assert text.code == 0 and text.out.rstrip().endswith("records: sound"), text


def test_batches_and_records_are_printed(written):
    b, held = written
    for codec in CODECS:
        path = b.partition_dir(f"log-{codec}")
        records = dump(path, "--records")
        assert [r["offset"] for r in records] == list(range(RECORDS))
        assert [(r["key"], r["value"]) for r in records] == held[codec]
        batches = dump(path)
        assert {r["codec"] for r in batches} == {codec} and all(r["producer_id"] >= 0 for r in batches)
        assert sum(r["records"] for r in batches) == RECORDS
        assert [r["base_sequence"] for r in batches] == [r["first_offset"] for r in batches]
        some = dump(path, "--records", "--from", 123, "--max", 7)
        assert [r["offset"] for r in some] == list(range(123, 130))
        [batch] = dump(path, "--from", 123, "--max", 1)
        assert batch["first_offset"] <= 123 <= batch["last_offset"]
    text = run("log", "dump", b.partition_dir("log-zstd"), "--records", "--max", 2)
    assert '"k1" "value 1 value 1' in text.out and "null" in text.out and "(3200 bytes)" in text.out, text
    assert run("log", "dump", b.partition_dir("log-none")).out.splitlines()[0].split()[:3] == ["FIRST", "LAST", "POSITION"]


def test_damage_is_named_by_file_and_bytes(written):
    b, _ = written
    folder = b.partition_dir("log-lz4")
    path = sorted(folder.glob("*.log"))[0]
    batches = dump(path)
    second = batches[1]
    at = second["position"] + 70
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)
    done = run("log", "verify", b.data_dir, "--format", "json")
    assert done.code == 1 and "1 damaged place(s) found" in done.err, done
    [damage] = done.json["damage"]
    assert damage["file"] == str(path) and "CRC" in damage["reason"] and not damage["rebuilt"]
    assert (damage["first_byte"], damage["end_byte"]) == (second["position"], second["position"] + second["bytes"])
    assert (damage["first_offset"], damage["end_offset"]) == (second["first_offset"], second["last_offset"] + 1)
    text = run("log", "verify", path)
    assert f"bytes {damage['first_byte']} to {damage['end_byte'] - 1}" in text.out and "damaged at 1 place(s)" in text.out
    # What is sound is printed, and what is not is told.
    done = run("log", "dump", path, "--format", "json")
    assert done.code == 1 and "are damaged" in done.err
    assert len(done.out.splitlines()) == len(batches) - 1


def test_a_wrong_index_is_told_apart(written):
    b, _ = written
    path = next(p for p in sorted(b.partition_dir("log-none").glob("*.index")) if any(p.read_bytes()))
    content = bytearray(path.read_bytes())
    content[7] ^= 1
    path.write_bytes(content)
    done = run("log", "verify", b.partition_dir("log-none"), "--format", "json")
    assert done.code == 1
    [damage] = done.json["damage"]
    assert damage["file"] == str(path) and damage["rebuilt"] and damage["first_offset"] is None
    assert "makes it anew" in run("log", "verify", path.with_suffix(".log")).out


def test_wrong_paths_are_refused(written, tmp_path):
    b, _ = written
    for words, what in [
        (["verify", tmp_path / "none"], "No such file"),
        (["verify", next(b.partition_dir("log-none").glob("*.index"))], "named by its base offset"),
        (["dump", b.data_dir], "name one of them"),
        (["dump", tmp_path], "holds 0 partitions"),
    ]:
        done = run("log", *words)
        assert done.code == 1 and what in done.err and str(words[1]) in done.err and "panicked" not in done.err, done
    (tmp_path / "broker-1").mkdir()
    for folder in (tmp_path, tmp_path / "broker-1"):
        done = run("log", "verify", folder)
        assert done.code == 1 and "holds no partition" in done.err and "sound" not in done.out, done
    (tmp_path / "00000000000000000000.log").write_bytes(b"nothing of a log" * 100)
    done = run("log", "verify", tmp_path)
    assert done.code == 1 and "bytes 0 to 1599" in done.out, done


def test_a_killed_brokers_log_is_sound_and_its_arena_is_mentioned(make_broker, corelane_only):
    b = make_broker({"corelane.write.behind.max.ms": 10_000})
    b.start()
    load.create_topic(b, "killed", 1)
    p = load.producer(b, acks="all")
    for n in range(50):
        p.produce("killed", b"x" * 100)
    assert p.flush(30) == 0
    b.kill()
    done = run("log", "verify", b.data_dir)
    assert done.code == 0 and "hold records that the next start writes" in done.out, done
    b.start()
    b.stop()
    assert run("log", "verify", b.data_dir, "--format", "json").json["records"] >= 50
