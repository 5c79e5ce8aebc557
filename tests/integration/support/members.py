"""Members of consumer groups in processes that can be killed, and what they saw.

A host is a process with some members: `group_member.py` (librdkafka or kafka-python) or `tests/kafka/GroupMember.java`. It takes
lines of words between tabs, `start NAME TOPICS COMMIT EVERY_MS key=value...` and `stop NAME`, and ends all members in good order when
its input ends. It answers with a JSON line for each event, with the machine's monotonic time in ns:

    joining | closed | error          the member's life
    assigned | revoked | lost         "p": [[topic, partition], ...]
    batch                             "r": [[topic, partition, first, last], ...], delivered; told before any of it is committed
    committed                         "o": [[topic, partition, offset], ...], told once the broker acknowledged it
    commit_failed | warning           "error"
"""

import bisect
import json
import subprocess
import sys
import time
from pathlib import Path

from . import java, proc

class Host:
    def __init__(self, kind, name, folder):
        self.kind, self.name = kind, name
        self.out, self.log = Path(folder) / f"{name}.events", Path(folder) / f"{name}.log"
        if kind == "java":
            options = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error")
            command = java.command("GroupMember", heap="384m", options=options)
            command[command.index("-cp") + 1] = java.compiled("GroupMember")
        else:
            command = [sys.executable, str(Path(__file__).with_name("group_member.py")), kind]
        with open(self.out, "ab") as out, open(self.log, "ab") as log:
            self.popen = subprocess.Popen(
                ["setpriv", "--pdeathsig", "KILL", *command], stdin=subprocess.PIPE, stdout=out, stderr=log, text=True, bufsize=1
            )
        self.read = 0

    def say(self, *words):
        self.popen.stdin.write("\t".join(map(str, words)) + "\n")
        self.popen.stdin.flush()

    def signal(self, number):
        self.popen.send_signal(number)

    def kill(self):
        self.popen.kill()
        self.popen.wait()

    def finish(self, timeout=30):
        """Ends its members in good order, and itself."""
        if self.popen.poll() is None:
            self.popen.stdin.close()
            try:
                self.popen.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()
                raise AssertionError(f"host {self.name}: members not closed within {timeout} s") from None

    def events(self):
        """The new ones."""
        with open(self.out, "rb") as f:
            f.seek(self.read)
            data = f.read()
        data = data[: data.rfind(b"\n") + 1]
        self.read += len(data)
        return [json.loads(s) for s in data.splitlines()]


class Member:
    """What the test knows of one member. `own`: the partitions it has now."""

    def __init__(self, host, name, group):
        self.host, self.name, self.group = host, name, group
        self.own, self.joined, self.ended, self.error = set(), None, None, None
        self.events, self.batches, self.leaving = [], [], False

    @property
    def there(self):
        return not self.leaving and self.ended is None


class Coverage:
    """Which offsets of one partition were delivered to anybody, as sorted ranges that do not touch."""

    def __init__(self):
        self.ranges = []

    def add(self, first, last):
        end = last + 1
        low = bisect.bisect_left(self.ranges, (first,))
        if low and self.ranges[low - 1][1] >= first:
            low -= 1
        high = low
        while high < len(self.ranges) and self.ranges[high][0] <= end:
            first, end = min(first, self.ranges[high][0]), max(end, self.ranges[high][1])
            high += 1
        self.ranges[low:high] = [(first, end)]

    def whole_to(self, start=0):
        """The first offset at or after `start` that nobody was given."""
        for first, end in self.ranges:
            if first <= start < end:
                return end
        return start


class Group:
    def __init__(self, name, partitions):
        self.name, self.partitions, self.members = name, partitions, {}
        self.delivered, self.commits = {}, {}

    def live(self):
        return [m for m in self.members.values() if m.there]

    def settled(self):
        """Every partition has one owner, and the members' shares differ by one at most."""
        live = self.live()
        if not live:
            return False
        shares = [len(m.own) for m in live]
        owned = set().union(*(m.own for m in live))
        return len(owned) == sum(shares) == self.partitions and max(shares) - min(shares) <= 1

    def read_to(self, ends):
        """{(topic, partition): end}: everything before was delivered."""
        return all(self.delivered.get(tp, Coverage()).whole_to() >= end for tp, end in ends.items())

    def committed_to(self, ends):
        return all(self.commits.get(tp, 0) >= end for tp, end in ends.items() if end)

    def __str__(self):
        lines = []
        for m in self.members.values():
            last = [f"{e['e']} {e.get('error', '')}".strip() for e in m.events[-4:]]
            state = "killed or closed" if m.ended else "leaving" if m.leaving else "there"
            lines.append(f"  {m.name} ({state}): {len(m.own)} partitions {sorted(m.own)[:6]}, last events {last}")
        return f"group {self.name}, {self.partitions} partitions are due:\n" + "\n".join(lines)


class Members:
    """All hosts of a test and the groups whose members they run. `spare`: seconds that every change may take longer than it must,
    where other tests have the CPUs too."""

    def __init__(self, broker, folder, spare=0):
        self.broker, self.folder = broker, Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.hosts, self.groups, self.members, self.seen = {}, {}, {}, []
        self.names, self.spare, self.stalls = 0, spare, proc.Stalls(broker.folder)

    def host(self, kind):
        name = f"{kind}-{len(self.hosts)}"
        self.hosts[name] = Host(kind, name, self.folder)
        return self.hosts[name]

    def group(self, name, partitions):
        self.groups[name] = Group(name, partitions)
        return self.groups[name]

    def start(self, host, group, topics, commit="sync", every_ms=200, **config):
        """A new member of `group` in `host`. Config names with `_` for `.`"""
        group = self.groups[group] if isinstance(group, str) else group
        self.names += 1
        name = f"{group.name}/{self.names}"
        pairs = {
            "bootstrap.servers": self.broker.bootstrap, "group.id": group.name, "client.id": name.replace("/", "-"),
            "auto.offset.reset": "earliest", "metadata.max.age.ms": 1000, **{k.replace("_", "."): v for k, v in config.items()},
        }  # fmt: skip
        if host.kind == "confluent":
            pairs |= {"topic.metadata.refresh.interval.ms": 1000, "fetch.wait.max.ms": 100}
        elif host.kind == "java":
            pairs |= {"fetch.max.wait.ms": 200}
        host.say("start", name, topics, commit, every_ms, *(f"{k}={v}" for k, v in pairs.items()))
        member = Member(host, name, group)
        group.members[name] = self.members[name] = member
        return member

    def stop(self, member):
        """Closes the member in good order."""
        member.leaving = True
        member.host.say("stop", member.name)

    def kill(self, host):
        host.kill()
        self.look()
        for m in self.members.values():
            if m.host is host and m.ended is None:
                m.ended, m.own = time.monotonic_ns(), set()

    def look(self):
        """Takes in the new events of all hosts."""
        new = [e for h in self.hosts.values() for e in h.events()]
        new.sort(key=lambda e: e["t"])
        self.seen += new
        for e in new:
            self._take(self.members[e["m"]], e)
        return new

    def _take(self, m, e):
        kind = e["e"]
        if kind == "batch":
            for t, p, first, last in e["r"]:
                m.batches.append((t, p, first, last))
                m.group.delivered.setdefault((t, p), Coverage()).add(first, last)
        elif kind == "committed":
            for t, p, at in e["o"]:
                m.group.commits[t, p] = max(at, m.group.commits.get((t, p), 0))
        else:
            m.events.append(e)
        if kind == "assigned":
            m.own |= {tuple(tp) for tp in e["p"]}
        elif kind in ("revoked", "lost"):
            m.own -= {tuple(tp) for tp in e["p"]}
        elif kind == "joining":
            m.joined = e["t"]
        elif kind in ("closed", "error"):
            m.ended, m.own = e["t"], set()
            m.error = e.get("error")

    def until(self, check, what, timeout=20, began=None):
        """Looks until `check()`; answers the seconds it took. `timeout` may be a function that answers it."""
        began = began or time.monotonic()
        while True:
            self.look()
            if check():
                return time.monotonic() - began
            limit = timeout() if callable(timeout) else timeout
            if time.monotonic() - began > limit:
                raise AssertionError(f"{what}: not within {limit:.1f} s\n" + "\n".join(map(str, self.groups.values())) + self.logs())
            time.sleep(0.02)

    def logs(self):
        tails = [(h.name, h.log.read_text(errors="replace")[-600:]) for h in self.hosts.values()]
        return "".join(f"\nlog of {name}: {tail}" for name, tail in tails if tail)

    def settle(self, since, within, groups=None, what="rebalance"):
        """Until each group is settled; `since` (monotonic ns) is when the last change was. Answers the seconds from there."""
        groups = groups or list(self.groups.values())
        began = time.monotonic()
        left = within + self.spare - (time.monotonic_ns() - since) / 1e9
        self.until(lambda: all(g.settled() for g in groups), what, lambda: max(left, 0.1) + self.stalls.since(since), began)
        return (time.monotonic_ns() - since) / 1e9

    def joined(self, members, timeout=60):
        """Until these members are about to join; answers when the last was. Leaves out how long a client takes to start."""
        self.until(lambda: all(m.joined for m in members), "start of the members", timeout)
        return max(m.joined for m in members)

    def check_history(self):
        """No partition had two owners at once, nothing was committed before everything below was delivered to somebody, and no
        member ended by itself."""
        self.look()
        delivered, owner, dead = {}, {}, {m.name: m for m in self.members.values()}
        for e in sorted(self.seen, key=lambda e: e["t"]):
            name, kind = e["m"], e["e"]
            group = self.members[name].group.name
            if kind == "assigned":
                for tp in e["p"]:
                    key = (group, *tp)
                    before = owner.get(key)
                    gone = before is None or before == name or (dead[before].ended or 1 << 62) <= e["t"]
                    assert gone, f"{key} was given to {name} while {before} had it"
                    owner[key] = name
            elif kind in ("revoked", "lost"):
                for tp in e["p"]:
                    if owner.get((group, *tp)) == name:
                        del owner[group, *tp]
            elif kind == "closed":
                owner = {k: v for k, v in owner.items() if v != name}
            elif kind == "batch":
                for t, p, first, last in e["r"]:
                    delivered.setdefault((group, t, p), Coverage()).add(first, last)
            elif kind == "committed":
                for t, p, at in e["o"]:
                    whole = delivered.get((group, t, p), Coverage()).whole_to()
                    assert whole >= at, f"{name} committed {at} of {t}-{p} in {group}, but nobody was given {whole}"
            elif kind == "error":
                raise AssertionError(f"{name} ended: {e['error']}")

    def close(self):
        """Ends all hosts, come what may."""
        self.stalls.close()
        for h in self.hosts.values():
            if h.popen.poll() is None:
                h.popen.kill()
        for h in self.hosts.values():
            h.popen.wait()
            if not h.popen.stdin.closed:
                try:
                    h.popen.stdin.close()
                except OSError:
                    pass

    def finish(self):
        """Ends all members in good order."""
        for h in self.hosts.values():
            if h.popen.poll() is None:
                h.popen.stdin.close()
        for h in self.hosts.values():
            h.finish()
        self.look()
