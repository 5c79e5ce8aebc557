"""Damage to the files of the data directory: flipped bits, cuts, zeros, missing and foreign files, after a clean stop and after
kill -9. The broker starts, serves what is left, and says what is not.

Damage to one partition says nothing about another's, so one start has a case in each partition of a topic. CI runs a sample;
`--full` runs all of `FULL_CASES`. A failure names the case and the seed of its round: `DAMAGE_SEED=n` runs that round alone.

To add cases: a function in `PARTITION_DAMAGE` gets the partition's directory and a `random.Random`, does its damage and
returns words for it, or `None` where it does not apply. A function in `DATA_DIR_DAMAGE` does the same to a whole data
directory, and gets a start of its own.
"""

import itertools
import os
import random
import re
import shutil
import time

import pytest

from support import clock, load, wire

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
        if path.suffix == ".log":
            # Zeros from a batch's first byte to the end are what was never written, to anybody. Its base offset stays.
            starts = itertools.accumulate((len(b.data) for b in wire.batches(bytes(data[: data_end(path)]))), initial=0)
            at = max(at, 8 + max((start for start in starts if start <= at), default=0))
        length = max(0, min(rng.choice([1, 16, 512, 4096]), len(data) - at))
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


def emptied(pattern):
    def damage(directory, rng):
        path = pick(directory, rng, pattern)
        if not path or not path.stat().st_size:
            return None
        os.truncate(path, 0)
        return f"{path.name} emptied"

    return damage


def of_another(pattern):
    """The file of another partition in its place, sound in itself."""

    def damage(directory, rng):
        path = pick(directory, rng, pattern)
        others = sorted(p for p in directory.parent.glob(f"{TOPIC}-*") if p != directory and path and (p / path.name).is_file())
        if not others:
            return None
        other = rng.choice(others)
        shutil.copy(other / path.name, path)
        return f"{path.name} of {other.name}"

    return damage


def as_directory(pattern):
    def damage(directory, rng):
        path = pick(directory, rng, pattern)
        if not path:
            return None
        path.unlink()
        (path / "inner").mkdir(parents=True)
        return f"{path.name} is a directory"

    return damage


def dangling(pattern):
    def damage(directory, rng):
        path = pick(directory, rng, pattern)
        if not path:
            return None
        path.unlink()
        path.symlink_to("nowhere")
        return f"{path.name} is a link to nowhere"

    return damage


def mode_0(pattern):
    """Nothing to a broker that runs as root."""

    def damage(directory, rng):
        path = pick(directory, rng, pattern)
        if not path or not os.geteuid():
            return None
        path.chmod(0)
        return f"{path.name} has mode 0"

    return damage


def two_files(directory, rng):
    """Damage to two files of any kind."""
    done = [op(directory, rng) for op in rng.sample(FILE_DAMAGE, 2)]
    return ", ".join(filter(None, done)) or None


SMALL_FILES = ("checkpoint", "leader-epoch-checkpoint", "partition.metadata")
FILES = ("*.log", "*.index", "*.timeindex", *SMALL_FILES)
FILE_DAMAGE = [op(name) for name in FILES for op in (flip_one, cut, zero, remove, emptied)]
# Kinds after which a partition may stay offline, as long as the log says which file is in the way.
OFFLINE_KINDS = (" is a directory", " is a link to nowhere", " has mode 0")

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
    *[op(name) for name in FILES for op in (emptied, as_directory, dangling, mode_0)],
    # A segment says nothing of its partition.
    *[of_another(name) for name in FILES if name != "*.log"],
    *[two_files] * 4,
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


def stays_offline(conn, partition, told, log_text):
    """True for a partition that cannot be served for what is in a file's place, which is named."""
    if not told or not any(kind in told for kind in OFFLINE_KINDS):
        return False
    if wire.list_offsets(conn, TOPIC, [partition], -1)[partition][0] != 56:
        return False
    directory = re.escape(f"/{TOPIC}-{partition}") + "(?![0-9])"
    said = [s for s in log_text.splitlines() if re.search(directory, s) and "offline" in s]
    names = [name for kind in OFFLINE_KINDS for name in re.findall(r"(\S+)" + kind, told)]
    assert any(name in s for s in said for name in names), f"offline, and no line names the file: {said}"
    return True


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
                if not stays_offline(conn, p, told[p], b.log_text()[before:]):
                    held[p] = check(conn, p, lambda: b.log_text()[before:], clean, epochs[p])
            except AssertionError as error:
                # A file's place may be wanted only when the segment rolls.
                if not stays_offline(conn, p, told[p], b.log_text()[before:]):
                    failures.append(f"partition {p}: {told[p]}: {error}")
    b.stop()
    b.start()
    with wire.Conn(b, timeout=60) as conn:
        for p in held:
            try:
                again = read_back(conn, p)[0]
                assert again == held[p], f"other records after one more restart: {sorted(set(again) ^ set(held[p]))}"
            except AssertionError as error:
                if not stays_offline(conn, p, told[p], b.log_text()[before:]):
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


# --- the files of topics ----------------------------------------------------------------------------------------------------

TOPIC_FILE = f"corelane-metadata/topics/{TOPIC}.json"
OTHER_FILE = "corelane-metadata/topics/other.json"


def other_topics(directory, rng):
    shutil.copy(directory / OTHER_FILE, directory / TOPIC_FILE)
    return "the file of another topic"


def twice(directory, rng):
    shutil.copy(directory / TOPIC_FILE, directory / TOPIC_FILE.replace(TOPIC, "twice"))
    (directory / TOPIC_FILE).unlink()
    return "under another name"


TOPIC_FILE_DAMAGE = {
    **{kind: op(TOPIC_FILE) for kind, op in OPS.items() if kind != "linked"},
    "zeroed": zero(TOPIC_FILE),
    "another-topics": other_topics,
    "renamed": twice,
    "directory": as_directory(TOPIC_FILE),
    "dangling": dangling(TOPIC_FILE),
}


def end_direct_writes(directory):
    """Those of a process that was killed may end after it; cutting a file waits for them."""
    for path in directory.glob("*.log"):
        size = path.stat().st_size
        os.truncate(path, size + 4096)
        os.truncate(path, size)


def everything(directory):
    return {path.name: path.read_bytes() for path in sorted(directory.iterdir())}


@pytest.mark.parametrize("what", sorted(TOPIC_FILE_DAMAGE))
@pytest.mark.parametrize("clean", [True, False], ids=["clean", "killed"])
def test_the_file_of_a_topic(make_broker, corelane_only, clean, what):
    """Its topic is withheld, and is served again with its file; the others are served, and no topic takes the name."""
    if what == "unreadable" and not os.geteuid():
        pytest.skip("root reads a file of mode 0")
    b = make_broker({"log.roll.ms": 2000})
    b.start()
    load.create_topic(b, TOPIC, 2)
    load.create_topic(b, "other", 1)
    write(b, range(2), 0, RECORDS)
    b.stop() if clean else b.kill()
    sound = (b.data_dir / TOPIC_FILE).read_bytes()
    for p in range(2):
        end_direct_writes(b.partition_dir(TOPIC, p))
    records = [everything(b.partition_dir(TOPIC, p)) for p in range(2)]
    done = TOPIC_FILE_DAMAGE[what](b.data_dir, random.Random(1))
    assert done
    before = len(b.log_text())
    b.start(topics=["other"])
    said = b.log_text()[before:]
    assert re.search(rf"(withheld|no topic of this broker claims).*{TOPIC}|{TOPIC}.* is withheld", said), said
    with wire.Conn(b) as conn:
        assert wire.produce(conn, "other", 0, wire.batch([b"x"])) == (0, 0)
        assert wire.metadata(conn, [TOPIC])["topics"][TOPIC]["error"] == 56
        assert wire.produce(conn, TOPIC, 0, wire.batch([b"x"]))[0] in (3, 56)
        assert wire.create_topics(conn, {TOPIC: (2, {})})[TOPIC] != 0
    b.stop()
    assert [everything(b.partition_dir(TOPIC, p)) for p in range(2)] == records
    path = b.data_dir / TOPIC_FILE
    if path.is_dir():
        shutil.rmtree(path)
    path.unlink(missing_ok=True)
    (b.data_dir / TOPIC_FILE.replace(TOPIC, "twice")).unlink(missing_ok=True)
    path.write_bytes(sound)
    b.start(topics=[TOPIC, "other"])
    with wire.Conn(b) as conn:
        for p in range(2):
            assert read_back(conn, p)[0] == {offset: value(p, offset) for offset in range(RECORDS)}


# --- something else in a file's place ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("op", [as_directory, dangling])
def test_something_else_in_the_place_of_a_file(make_broker, corelane_only, name, op):
    """The start goes on without it as without a missing file, or ends with a line that names it and changes nothing."""
    b = make_broker()
    b.start()
    b.kill()
    b.start()
    load.create_topic(b, TOPIC, 1)
    write(b, range(1), 0, RECORDS)
    with wire.Conn(b) as conn:
        given = wire.init_producer_id(conn)[0]
    b.stop()
    path = b.data_dir / name
    sound = path.read_bytes()
    assert op(name)(b.data_dir, random.Random(1))
    b.spawn()
    try:
        b.wait(time.monotonic(), topics=[TOPIC])
        ended = False
    except AssertionError:
        ended = True
    if ended:
        assert b.popen.wait(60) == 1
        last = b.log_text().strip().splitlines()[-1]
        assert path.name in last and str(b.data_dir) in last, last
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.write_bytes(sound)
        b.start(topics=[TOPIC])
    with wire.Conn(b) as conn:
        assert read_back(conn, 0)[0] == {offset: value(0, offset) for offset in range(RECORDS)}
        assert wire.init_producer_id(conn)[0] > given


# --- compacted partitions ---------------------------------------------------------------------------------------------------

KEYS = 7
COMPACTED_DAMAGE = [
    *[flip_one("*.log")] * 4,
    *[op("*.log") for op in (cut, zero, remove, noise)],
    *[op("cleaner-offset-checkpoint") for op in (flip_one, cut, remove, noise, emptied, of_another, dangling)],
    *[op("checkpoint") for op in (flip_one, remove, of_another)],
    *[flip_one("*.index"), remove("*.timeindex"), leftovers, segment_and_checkpoint, two_segments],
]


@pytest.mark.parametrize("clean", [True, False], ids=["clean", "killed"])
def test_compacted_partition_files(make_broker, corelane_only, length, clean):
    """The newest record of each key is there, or its offset is named; cleaning goes on."""
    cases, rng = len(COMPACTED_DAMAGE), random.Random(os.environ.get("DAMAGE_SEED", "1"))
    b = make_broker(
        {"log.index.interval.bytes": 200, "log.roll.ms": 2000, "log.cleaner.backoff.ms": 50,
         "log.flush.offset.checkpoint.interval.ms": 300}
    )
    b.start()
    load.create_topic(b, TOPIC, cases, cleanup_policy="compact", min_cleanable_dirty_ratio="0.01")
    began = int(time.time() * 1000) - 100_000

    def put(conn, offset, partitions):
        key = b"%d" % (offset % KEYS)
        parts = {p: wire.batch([value(p, offset)], timestamp=began + offset * 400, keys=[key]) for p in partitions}
        answers = wire.read_produce(conn.call(wire.PRODUCE, 7, wire.produce_body({TOPIC: parts})))
        return [answers[(TOPIC, p)] for p in partitions]

    with wire.Conn(b, timeout=60) as conn:
        for offset in range(RECORDS):
            assert put(conn, offset, range(cases)) == [(0, offset)] * cases
    end = clock.running() + 60
    while not all((b.partition_dir(TOPIC, p) / "cleaner-offset-checkpoint").exists() for p in range(cases)):
        assert clock.running() < end, b.log_tail()
        time.sleep(0.1)
    b.stop() if clean else b.kill()
    told = {p: damage(b.partition_dir(TOPIC, p), rng) for p, damage in enumerate(COMPACTED_DAMAGE)}
    before = len(b.log_text())
    b.start(topics=[TOPIC])
    failures = []
    with wire.Conn(b, timeout=60) as conn:
        for p in range(cases):
            try:
                found, log_end = read_back(conn, p)
                lost = named(b.log_text()[before:], p)
                assert all(record == value(p, offset) for offset, record in found.items()), "another record"
                for offset in range(RECORDS - KEYS, RECORDS):
                    told_of = any(a <= offset < z for a, z in lost)
                    assert offset in found or told_of, f"offset {offset} is gone without a word; named: {lost}"
                (error, base) = put(conn, RECORDS, [p])[0]
                assert error == 0 and (base >= RECORDS or any(a <= base < z for a, z in lost)), f"({error}, {base})"
                assert base == log_end
            except AssertionError as error:
                failures.append(f"partition {p}: {told[p]}: {error}")
    b.stop()
    assert not failures, "\n".join(failures)
