"""kill -9 of the broker amid commits: no committed offset goes back, and the members go on."""

import asyncio
import random
import struct
import time

import pytest

from support import load, schema, wire
from support.broker import QUICK_GROUPS
from support.groups import commit_values, fetch_offsets, name_of, wait_ready
from support.members import Members
from support.sequences import Committer

COMMITTERS, PARTITIONS = 6, 4


@pytest.mark.timeout(3600)
def test_kill_amid_commits(make_broker, length, figure, tmp_path):
    cycles = length.pick(8, 50)
    dice = random.Random(9)
    b = make_broker(QUICK_GROUPS)
    b.start()
    topic = load.create_topic(b, "crash", PARTITIONS)
    names = [f"simple-{n}" for n in range(COMMITTERS)]
    wait_ready(b, names[0])
    committers = [Committer(b, name, topic, PARTITIONS) for name in names]
    for c in committers:
        c.start()
    crowd = Members(b, tmp_path / "members")
    served, groups = [], {}
    try:
        quick = {"reconnect_backoff_ms": 10, "reconnect_backoff_max_ms": 200}
        for way, config in {
            "classic": {"partition_assignment_strategy": "cooperative-sticky", "session_timeout_ms": 6000, "heartbeat_interval_ms": 500},
            "consumer": {"group_protocol": "consumer"},
        }.items():
            groups[way] = crowd.group(way, PARTITIONS)
            host = crowd.host("confluent")
            for _ in range(2):
                crowd.start(host, groups[way], topic, every_ms=20, **config, **quick)
        crowd.settle(crowd.joined(crowd.members.values()), 20)
        written = 0
        for cycle in range(cycles):
            load.produce_lines(b, topic, 400, PARTITIONS)
            written += 400
            before = [c.acked for c in committers]
            crowd.until(lambda before=before: all(c.error or c.acked > n + 5 for c, n in zip(committers, before, strict=True)), f"cycle {cycle}: commits", 30)
            assert not any(c.error for c in committers), [c.error for c in committers if c.error]
            time.sleep(dice.uniform(0.05, 0.5))
            b.kill()
            acked, members = [c.acked for c in committers], {}
            crowd.look()
            for way, g in groups.items():
                members[way] = dict(g.commits)
            b.start(topics=[topic])
            took = max(wait_ready(b, name, 30) for name in (*names, *groups))
            served.append(took)
            with wire.Conn(b, timeout=30) as conn:
                for c, name, n in zip(committers, names, acked, strict=True):
                    # Read in this order: what is sent meanwhile may be there too, and nothing beyond.
                    _, found = fetch_offsets(conn, name)
                    told, sent = {p: found[topic, p].CommittedOffset for p in range(PARTITIONS)}, c.sent
                    assert all(n <= at <= sent for at in told.values()), f"cycle {cycle}, {name}: {n} was acknowledged, now {told}, sent {sent}"
                    assert len(set(told.values())) == 1 or c.sent > n, f"{name}: half a commit: {told}"
                for way, offsets in members.items():
                    _, found = fetch_offsets(conn, way)
                    for tp, at in offsets.items():
                        assert found[tp].CommittedOffset >= at, f"cycle {cycle}, {way} {tp}: {at} was acknowledged, now {found[tp].CommittedOffset}"
            ends = {(topic, p): written // PARTITIONS for p in range(PARTITIONS)}
            crowd.until(lambda ends=ends: all(g.committed_to(ends) for g in groups.values()), f"cycle {cycle}: the members go on", 30)
        for c in committers:
            c.done.set()
        for c in committers:
            c.join(30)
            assert c.error is None, c.error
        assert all(g.read_to(ends) for g in groups.values())
        crowd.finish()
    finally:
        for c in committers:
            c.done.set()
        crowd.close()
    total = sum(c.acked for c in committers)
    served.sort()
    figure(f"kill -9 amid commits, {cycles} cycles, {total} commits: the groups are served after the broker by", f"{served[-1] * 1000:.0f} ms at most")
    b.stop()
    b.start(topics=[topic])
    wait_ready(b, names[0])
    with wire.Conn(b) as conn:
        for c in committers:
            wait_ready(b, c.group)
            assert all(c.acked <= p.CommittedOffset <= c.sent for p in fetch_offsets(conn, c.group)[1].values()), "a clean stop changed offsets"


# --- many groups --------------------------------------------------------------------------------------------------------


class Swarm:
    """Many simple groups (no members), each committing four partitions once a second, over a few connections."""

    CONNECTIONS = 8

    def __init__(self, broker, groups, topic):
        self.broker, self.names, self.topic = broker, [f"swarm-{n:05d}" for n in range(groups)], topic
        self.delays, self.errors, self.round = [], {}, 0

    def body(self, name, offset):
        request = schema.message("OffsetCommitRequest")
        return request.encode(8, commit_values(name, {(self.topic, p): offset for p in range(4)}))

    async def _connection(self, names, seconds):
        reader, writer = await asyncio.open_connection(self.broker.host, self.broker.port)
        marker = 0x0102030405060708
        frames = []
        for n, name in enumerate(names):
            frame = bytearray(wire.frame(wire_commit(), 8, self.body(name, marker), n))
            at, spots = -1, []
            while (at := frame.find(struct.pack(">q", marker), at + 1)) >= 0:
                spots.append(at)
            assert len(spots) == 4
            frames.append((frame, spots))
        sent_at, left = {}, asyncio.Semaphore(256)
        response = schema.message("OffsetCommitResponse")
        total = len(names) * seconds

        async def receive():
            for _ in range(total):
                size = struct.unpack(">i", await reader.readexactly(4))[0]
                data = await reader.readexactly(size)
                correlation = struct.unpack_from(">i", data)[0]
                self.delays.append(time.monotonic() - sent_at.pop(correlation))
                left.release()
                # All of an answer's errors are 0, which its bytes tell without decoding it: only a new form is decoded.
                if data[4:] not in self.good:
                    got = response.decode(8, wire.Reader(data[5:], True))
                    for code in {p.ErrorCode for t in got.Topics for p in t.Partitions}:
                        self.errors[name_of(code)] = self.errors.get(name_of(code), 0) + (code != 0)
                    if not any(p.ErrorCode for t in got.Topics for p in t.Partitions):
                        self.good.add(data[4:])

        receiving = asyncio.create_task(receive())
        began = time.monotonic()
        for second in range(seconds):
            offset = struct.pack(">q", self.round + second + 1)
            for n, (frame, spots) in enumerate(frames):
                due = began + second + n / len(frames)
                if (wait := due - time.monotonic()) > 0.002:
                    await asyncio.sleep(wait)
                for at in spots:
                    frame[at : at + 8] = offset
                await left.acquire()
                correlation = second * len(frames) + n
                struct.pack_into(">i", frame, 8, correlation)
                sent_at[correlation] = time.monotonic()
                writer.write(bytes(frame))
            await writer.drain()
        await receiving
        writer.close()

    async def _all(self, seconds):
        await asyncio.gather(*(self._connection(self.names[n :: self.CONNECTIONS], seconds) for n in range(self.CONNECTIONS)))

    def run(self, seconds):
        self.good, self.delays = set(), []
        began = time.monotonic()
        asyncio.run(self._all(seconds))
        self.round += seconds
        return time.monotonic() - began

    def check(self, conn, offset):
        """Every group's offsets are `offset`, read a hundred groups at a time."""
        for at in range(0, len(self.names), 100):
            some = self.names[at : at + 100]
            got = schema.call(conn, "OffsetFetch", 8, Groups=[{"GroupId": name, "Topics": None} for name in some])
            for g in got.Groups:
                told = {p.PartitionIndex: p.CommittedOffset for t in g.Topics for p in t.Partitions}
                assert g.ErrorCode == 0 and told == dict.fromkeys(range(4), offset), f"{g.GroupId}: {name_of(g.ErrorCode)} {told}"


def wire_commit():
    return schema.message("OffsetCommitRequest").api


@pytest.mark.timeout(1800)
def test_many_groups(make_broker, length, figure):
    """CPU and memory of groups that commit once a second, and the time to load them after kill -9."""
    count, seconds = length.pick((500, 6), (5000, 60))
    b = make_broker({"group.initial.rebalance.delay.ms": 0})
    b.start()
    topic = load.create_topic(b, "many", 4)
    wait_ready(b, "swarm-00000")
    idle = b.rss()
    swarm = Swarm(b, count, topic)
    swarm.run(2)  # the groups come to be
    assert not any(swarm.errors.values()), swarm.errors
    cpu, took = b.cpu(), swarm.run(seconds)
    cpu = (b.cpu() - cpu) / took
    assert not any(swarm.errors.values()), swarm.errors
    delays = sorted(swarm.delays)
    assert len(delays) == count * seconds
    rss = b.rss()
    figure(
        f"{count} groups x 4 partitions, a commit a second each for {seconds} s (took {took:.1f} s)",
        f"{cpu * 100:.1f} % of a core ({cpu * took / len(delays) * 1e6:.0f} us a commit), {rss >> 20} MiB resident ({(rss - idle) / count / 1024:.1f} KiB a group), "
        f"commit p50 {delays[len(delays) // 2] * 1000:.2f} ms, p99 {delays[len(delays) * 99 // 100] * 1000:.2f} ms",
    )
    with wire.Conn(b, timeout=60) as conn:
        swarm.check(conn, swarm.round)
    size = sum(f.stat().st_size for f in b.data_dir.glob("__consumer_offsets-*/*.log")) >> 20
    b.kill()
    up, began = b.start(topics=[topic]), time.monotonic()
    for name in swarm.names[:: max(1, count // 200)]:
        wait_ready(b, name, 60)
    loaded = time.monotonic() - began
    with wire.Conn(b, timeout=60) as conn:
        swarm.check(conn, swarm.round)
    figure(f"{count} groups after kill -9 ({size} MiB of __consumer_offsets files)", f"the broker serves in {up:.2f} s, all groups {loaded:.2f} s later")
