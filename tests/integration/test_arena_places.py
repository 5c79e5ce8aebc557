"""`corelane.arena.dir`: what was acknowledged from memory is taken over wherever it is, and what is lost is never passed over
in silence."""

import subprocess
import time

import pytest

from support import broker as brokers
from support import load
from support.held import HELD, RECORDS, consume, produce, values


@pytest.fixture
def tmpfs(root):
    """`tmpfs(name)`: a tmpfs of this test's own."""
    made = []

    def mount(name, size="64m"):
        point = root / f"tmpfs-{name}-{time.time_ns()}"
        point.mkdir()
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(point)], capture_output=True, text=True)
        if done.returncode != 0:
            point.rmdir()
            pytest.skip(f"no tmpfs can be mounted here: {done.stderr.strip()}")
        made.append(point)
        return point

    yield mount
    for point in made:
        subprocess.run(["umount", "-l", str(point)], capture_output=True)
        point.rmdir()


def note(b):
    return b.data_dir / "corelane-arena/places.json"


def show(directory):
    done = subprocess.run([str(brokers.binary()), "arena", "show", str(directory)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def set_dir(b, place):
    b.props.pop("corelane.arena.dir", None)
    if place:
        b.props["corelane.arena.dir"] = place


def test_held_records_are_taken_over_wherever_the_option_points_then(make_broker, corelane_only, tmpfs):
    one, two = tmpfs("one"), tmpfs("two")
    b = make_broker(HELD)
    written = []
    for run, place in enumerate([None, one, two, one, None]):
        set_dir(b, place)
        b.start(topics=["t"] if run else ())
        if run == 0:
            load.create_topic(b, "t", 1)
        else:
            assert len(b.taken_over()) == run, "what the kill before has left was not needed"
        assert consume(b) == written
        assert note(b).exists() == (place is not None)
        produce(b, values(run))
        written += values(run)
        b.kill()
        listed = show(place or b.data_dir)
        assert "0 chunk(s)" not in listed and "chunk(s)" in listed
        assert show(b.data_dir) == listed, "the note is followed"
    b.start(topics=["t"])
    assert consume(b) == written and len(b.taken_over()) == 5
    b.stop()
    assert not note(b).exists() and not list(one.iterdir()) and not list(two.iterdir()), "a clean stop leaves nothing"


def test_two_brokers_with_two_directories_each_share_a_place(make_broker, corelane_only, tmpfs):
    place, made = tmpfs("shared", "256m"), []
    for n in range(2):
        b = make_broker({**HELD, "corelane.arena.dir": place})
        b.props["log.dirs"] = f"{b.folder}/x,{b.folder}/y"
        b.start()
        load.create_topic(b, "t", 1)
        made.append(b)
    assert len(list(place.iterdir())) == 4
    for n, b in enumerate(made):
        produce(b, values(n))
        b.kill()
    for n, b in enumerate(made):
        b.start(topics=["t"])
        assert consume(b) == values(n) and len(b.taken_over()) == 1
    for b in made:
        b.stop()
    assert not list(place.iterdir())


def test_a_place_that_is_lost_is_said_and_ends_the_start(make_broker, corelane_only, tmpfs):
    place = tmpfs("lost")
    b = make_broker({**HELD, "corelane.arena.dir": place})
    b.start()
    load.create_topic(b, "t", 1)
    produce(b, values(0))
    b.kill()
    # As when a directory below /run goes with its service.
    subprocess.run(["umount", "-l", str(place)], check=True)
    for now in (place, None):
        set_dir(b, now)
        with pytest.raises(brokers.StartFailed) as refused:
            b.start()
        assert str(place) in str(refused.value) and "mount that directory" in str(refused.value)
        assert "ERROR" in b.log_text()
    assert note(b).exists()
    # The way on without it is an act of the operator's.
    note(b).unlink()
    b.start(topics=["t"])
    assert len(consume(b)) < RECORDS
    produce(b, ["again"])
    b.stop()


@pytest.mark.parametrize("what", ["too small", "a file", "read-only"])
def test_where_no_place_can_be_made_batches_are_acknowledged_when_written(make_broker, corelane_only, tmpfs, what):
    place = tmpfs("bad", "4m")
    if what == "a file":
        place = place / "file"
        place.touch()
    elif what == "read-only":
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    b = make_broker({**HELD, "corelane.arena.dir": place, "corelane.shards": 2})
    b.start()
    told = [line for line in b.log_text().splitlines() if "no arena is made there" in line]
    assert len(told) == 1 and str(place) in told[0], b.log_tail()
    load.create_topic(b, "t", 1)
    produce(b, values(0))
    assert not note(b).exists()
    b.kill()
    b.start(topics=["t"])
    assert consume(b) == values(0) and not b.taken_over()
    b.stop()
