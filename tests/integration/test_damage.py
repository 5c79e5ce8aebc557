"""Damage to the files of the data directory: flipped bits, cuts, zeros, missing and foreign files, after a clean stop and after
kill -9. The broker starts, serves what is left, and says what is not.

Damage to one partition says nothing about another's, so one start has a case in each partition of a topic. CI runs a sample;
`--full` runs all of `FULL_CASES`. A failure names the case and the seed of its round: `DAMAGE_SEED=n` runs that round alone.

To add cases: a function in `PARTITION_DAMAGE` gets the partition's directory and a `random.Random`, does its damage and
returns words for it, or `None` where it does not apply. A function in `DATA_DIR_DAMAGE` does the same to a whole data
directory, and gets a start of its own.
"""

import os
import random
import re
import shutil
import time

import pytest

from support import load, wire

TOPIC = "damaged"
RECORDS = 40
FULL_CASES = 1400
PARTITIONS = 70


# --- damage to one partition's files ----------------------------------------------------------------------------------------


def data_end(path):
    """Without the zeros that are reserved ahead while the broker runs."""
    return len(path.read_bytes().rstrip(b"\0"))


def pick(directory, rng, pattern):
    found = sorted(directory.glob(pattern))
    return rng.choice(found) if found else None


def flip(path, rng, end=None):
    data = bytearray(path.read_bytes())
    end = len(data) if end is None else end
    if not end:
        return None
    place, bit = rng.randrange(end), rng.randrange(8)
    data[place] ^= 1 << bit
    path.write_bytes(data)
    return f"bit {bit} of byte {place} of {path.name} flipped"


def flip_one(pattern):
    def damage(directory, rng):
        path = pick(directory, rng, pattern)
        return path and flip(path, rng, data_end(path) if path.suffix == ".log" else None)

    return damage


def cut(pattern):
    def damage(directory, rng):
        path = pick(directory, rng, pattern)
        if not path or not path.stat().st_size:
            return None
        at = rng.randrange(max(data_end(path), 1))
        os.truncate(path, at)
        return f"{path.name} cut at {at}"

    return damage


def zero(pattern):
    def damage(directory, rng):
        path = pick(directory, rng, pattern)
        if not path or not path.stat().st_size:
            return None
        data = bytearray(path.read_bytes())
        at = rng.randrange(max(data_end(path), 1))
        length = min(rng.choice([1, 16, 512, 4096]), len(data) - at)
        data[at : at + length] = bytes(length)
        path.write_bytes(data)
        return f"{length} bytes of {path.name} zeroed at {at}"

    return damage


def remove(pattern):
    def damage(directory, rng):
        path = pick(directory, rng, pattern)
        if not path:
            return None
        path.unlink()
        return f"{path.name} removed"

    return damage


def noise(pattern):
    def damage(directory, rng):
        path = pick(directory, rng, pattern)
        if not path or not path.stat().st_size:
            return None
        data = bytearray(path.read_bytes())
        end = max(data_end(path), 1)
        at = rng.randrange(end)
        length = min(rng.choice([3, 40, 300]), len(data) - at)
        data[at : at + length] = rng.randbytes(length)
        path.write_bytes(data)
        return f"{length} bytes of {path.name} at {at} are noise"

    return damage


def append_noise(pattern):
    def damage(directory, rng):
        path = pick(directory, rng, pattern)
        if not path:
            return None
        with open(path, "ab") as file:
            file.write(rng.randbytes(50))
        return f"noise behind {path.name}"

    return damage


def segment_twice(directory, rng):
    path = pick(directory, rng, "*.log")
    to = directory / f"{int(path.stem) + 1:020}.log"
    if to.exists():
        return None
    shutil.copy(path, to)
    return f"{path.name} copied to {to.name}"


def empty_segment_between(directory, rng):
    path = pick(directory, rng, "*.log")
    to = directory / f"{int(path.stem) + 1:020}.log"
    if to.exists():
        return None
    to.touch()
    return f"an empty {to.name}"


def leftovers(directory, rng):
    path = pick(directory, rng, "*.log")
    ending = rng.choice([".swap", ".cleaned", ".deleted"])
    (directory / f"{path.name}{ending}").write_bytes(rng.randbytes(100))
    return f"noise in {path.name}{ending}"


def segment_and_checkpoint(directory, rng):
    what = flip_one("*.log")(directory, rng)
    return f"{what}, {flip_one('checkpoint')(directory, rng)}"


def two_segments(directory, rng):
    return f"{flip_one('*.log')(directory, rng)}, {flip_one('*.log')(directory, rng)}"


PARTITION_DAMAGE = [
    *[flip_one("*.log")] * 6,
    *[op("*.log") for op in (cut, zero, remove, noise, append_noise)],
    *[op(f"*.{name}") for name in ("index", "timeindex") for op in (flip_one, cut, zero, remove, append_noise)],
    *[
        op(name)
        for name in ("checkpoint", "leader-epoch-checkpoint", "partition.metadata")
        for op in (flip_one, cut, zero, remove, noise)
    ],
    segment_twice,
    empty_segment_between,
    leftovers,
    segment_and_checkpoint,
    two_segments,
]

# --- damage to the data directory: name -> function -------------------------------------------------------------------------

def empty(name):
    def damage(directory, rng):
        (directory / name).write_bytes(b"")
        return f"{name} is empty"

    return damage


def linked(name):
    """The file moved, and a symbolic link to it in its place."""

    def damage(directory, rng):
        path = directory / name
        aside = path.with_name(path.name + "-aside")
        path.rename(aside)
        path.symlink_to(aside.name)
        return f"{name} is a symbolic link"

    return damage


def unreadable(name):
    """Mode 0: nothing to a broker that runs as root, as the tests may."""

    def damage(directory, rng):
        (directory / name).chmod(0)
        return f"{name} has mode 0"

    return damage


def both(one, other):
    def damage(directory, rng):
        return f"{one(directory, rng)}, {other(directory, rng)}"

    return damage


def leftover(name):
    def damage(directory, rng):
        (directory / name).write_bytes(rng.randbytes(100))
        return f"noise in {name}"

    return damage


def clean_mark_noise(directory, rng):
    path = directory / ".kafka_cleanshutdown"
    if path.exists():
        path.write_bytes(rng.randbytes(100))
    return "noise in the mark of a clean stop, if there is one"


def producer_ids(op):
    return both(*(op(f"corelane-metadata/producer-ids{copy}.json") for copy in ("", ".copy")))


METADATA = ("cluster", "directories", "leader-epochs", "producer-ids", "producer-ids.copy")
NAMES = ("meta.properties", *(f"corelane-metadata/{name}.json" for name in METADATA))
OPS = {"flipped": flip_one, "missing": remove, "cut": cut, "noise": noise, "appended": append_noise, "empty": empty,
       "linked": linked, "unreadable": unreadable}
DATA_DIR_DAMAGE = {
    **{f"{file.rpartition('/')[2]}-{kind}": op(file) for file in NAMES for kind, op in OPS.items()},
    "clean-mark-noise": clean_mark_noise,
    "lock-noise": leftover(".lock"),
    "metadata-lock-noise": leftover("corelane-metadata/lock"),
    "metadata-tmp": leftover("corelane-metadata/cluster.tmp"),
    "topics-tmp": leftover("corelane-metadata/topics/x.tmp"),
    "deleted-topic-noise": leftover("corelane-metadata/topics/00000000-0000-0000-0000-00000000002a.deleted"),
    "meta.properties-tmp": leftover("meta.properties.tmp"),
    "producer-ids-both-flipped": producer_ids(flip_one),
    "producer-ids-both-missing": producer_ids(remove),
    "producer-ids-both-empty": producer_ids(empty),
    "epochs-and-cluster-flipped": both(
        flip_one("corelane-metadata/leader-epochs.json"), flip_one("corelane-metadata/cluster.json")
    ),
    "identity-and-directories-missing": both(remove("meta.properties"), remove("corelane-metadata/directories.json")),
}


# --- the oracle -------------------------------------------------------------------------------------------------------------


def value(partition, offset):
    return b"%d/%d/" % (partition, offset) + b"x" * (offset * 7 % 200)


def write(broker, partitions, first, last):
    """Records of offsets [first, last), so old that segments roll by time every few of them."""
    began = int(time.time() * 1000) - 100_000
    with wire.Conn(broker, timeout=60) as conn:
        for offset in range(first, last):
            parts = {p: wire.batch([value(p, offset)], timestamp=began + offset * 400) for p in partitions}
            r = conn.call(wire.PRODUCE, 7, wire.produce_body({TOPIC: parts}))
            for (_, p), answer in wire.read_produce(r).items():
                assert answer == (0, offset), f"partition {p}: {answer}"


def named(log_text, partition):
    """Offsets that the log calls lost or cut off, as ranges."""
    out = []
    for line in log_text.splitlines():
        if not re.search(rf"/{TOPIC}-{partition}(?![0-9])", line):
            continue
        out += [(int(a), int(b)) for a, b in re.findall(r"offsets \[(\d+), (\d+)\)", line)]
        out += [(int(a), 1 << 60) for a in re.findall(r"the log ends at offset (\d+)", line)]
        out += [(int(a), 1 << 60) for a in re.findall(r"from offset (\d+) on", line)]
    return out


def read_back(conn, partition):
    """-> (records by offset, end)"""
    (error, _, start) = wire.list_offsets(conn, TOPIC, [partition], -2)[partition]
    (_, _, end) = wire.list_offsets(conn, TOPIC, [partition], -1)[partition]
    assert error == 0, f"the partition is not served: error {error}"
    found, at = {}, start
    while at < end:
        part = wire.fetch(conn, TOPIC, partition, at, max_wait=0)
        assert part["error"] == 0, f"reading at {at}: error {part['error']}"
        got = wire.batches(part["data"])
        if not got:
            break
        for b in got:
            assert b.crc_ok(), f"a batch with a wrong CRC is served, at offset {b.base}"
            assert b.last >= at, f"a batch that ends at {b.last} for a read at {at}"
            assert b.base >= at or at == start or b.last >= at
            for i, record in enumerate(b.values()):
                found[b.base + i] = record
            at = b.last + 1
    return found, end


def check(conn, partition, log, clean, epoch):
    """What a partition holds after its damage; returns that. `log()` is what the broker has said since its start."""
    found, end = read_back(conn, partition)
    log_text = log()
    lost = named(log_text, partition)
    for offset in range(RECORDS):
        if offset in found:
            assert found[offset] == value(partition, offset), f"another record at offset {offset}"
        else:
            assert any(a <= offset < b for a, b in lost), f"offset {offset} is gone without a word; named: {lost}"
    assert set(found) <= set(range(RECORDS)), f"records that were never written: {sorted(set(found))[-3:]}"
    error, base = wire.produce(conn, TOPIC, partition, wire.batch([b"new"]))
    assert error == 0, f"a new record is refused with {error}"
    if clean:
        # A log without its checkpoint tells its end by its own records only.
        told = "the checkpoint is damaged" in log_text or any(b > RECORDS for _, b in lost)
        assert base >= RECORDS or (told and epoch > 0), f"offset {base} is given twice"
    else:
        assert base >= RECORDS or (epoch > 0 and any(a <= base < b for a, b in lost)), f"offset {base} is given twice"
    return {**found, base: b"new"}


def one_round(make_broker, clean, seed, cases):
    rng = random.Random(seed)
    partitions = range(cases)
    b = make_broker({"log.index.interval.bytes": 200, "log.roll.ms": 2000})
    b.start()
    load.create_topic(b, TOPIC, cases)
    write(b, partitions, 0, RECORDS // 2)
    # So that the checkpoint of the second part is not of the end.
    b.stop()
    b.start(topics=[TOPIC])
    write(b, partitions, RECORDS // 2, RECORDS)
    if clean:
        b.stop()
    else:
        b.kill()
    told = {}
    kinds = rng.sample(PARTITION_DAMAGE * (1 + cases // len(PARTITION_DAMAGE)), cases)
    for p, damage in zip(partitions, kinds):
        told[p] = damage(b.partition_dir(TOPIC, p), rng)
    before = len(b.log_text())
    b.start()
    failures, held = [], {}
    with wire.Conn(b, timeout=60) as conn:
        epochs = {i: p["epoch"] for i, p in wire.metadata(conn, [TOPIC])["topics"][TOPIC]["partitions"].items()}
        for p in partitions:
            try:
                held[p] = check(conn, p, lambda: b.log_text()[before:], clean, epochs[p])
            except AssertionError as error:
                failures.append(f"partition {p}: {told[p]}: {error}")
    b.stop()
    b.start(topics=[TOPIC])
    with wire.Conn(b, timeout=60) as conn:
        for p in held:
            try:
                again = read_back(conn, p)[0]
                assert again == held[p], f"other records after one more restart: {sorted(set(again) ^ set(held[p]))}"
            except AssertionError as error:
                failures.append(f"partition {p}: {told[p]}: {error}")
    b.stop()
    assert not failures, f"seed {seed}, clean stop {clean}: {len(failures)} of {cases}:\n" + "\n".join(failures)


@pytest.mark.parametrize("clean", [True, False], ids=["clean", "killed"])
def test_partition_files(make_broker, corelane_only, length, clean):
    seed = os.environ.get("DAMAGE_SEED")
    rounds = length.pick(1, FULL_CASES // 2 // PARTITIONS)
    for seed in [int(seed)] if seed else range(rounds):
        one_round(make_broker, clean, seed, PARTITIONS)


@pytest.mark.parametrize("what", sorted(DATA_DIR_DAMAGE))
@pytest.mark.parametrize("clean", [True, False], ids=["clean", "killed"])
def test_data_dir_files(make_broker, corelane_only, length, clean, what):
    if clean and not length.full and not what.endswith(("-flipped", "-missing", "-noise")):
        pytest.skip("after kill -9 only at CI length")
    b = make_broker({"log.roll.ms": 2000})
    b.start()
    if "epochs" in what:
        # Written by the first start after a crash.
        b.kill()
        b.start()
    if what.endswith("unreadable") and os.geteuid():
        pytest.skip("root reads a file of mode 0; another user's start ends with a line that names it")
    load.create_topic(b, TOPIC, 2)
    write(b, range(2), 0, RECORDS)
    with wire.Conn(b) as conn:
        given = wire.init_producer_id(conn)[0]
        cluster = wire.metadata(conn)["cluster"]
    b.stop() if clean else b.kill()
    done = DATA_DIR_DAMAGE[what](b.data_dir, random.Random(1))
    before = len(b.log_text())
    b.start()
    with wire.Conn(b, timeout=60) as conn:
        for p in range(2):
            check(conn, p, lambda: b.log_text()[before:], clean, 0 if clean else 1)
        assert wire.init_producer_id(conn)[0] > given, "a producer id was given twice"
        assert wire.metadata(conn)["cluster"] == cluster
    assert done and b.alive()
