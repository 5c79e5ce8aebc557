"""What producing costs on several shards against one, and how often requests are passed on: scripts/measure-shards."""

import argparse
import os
import re
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

from compare import client, isolate
from compare.brokers import Corelane

ROOT = Path(__file__).resolve().parents[2]
COUNTERS = re.compile(
    r"connections between shards shard=(\d+) connections=\d+ requests=(\d+) calls=(\d+) moved_away=(\d+)"
)
TICKS = os.sysconf("SC_CLK_TCK")


def arguments(given):
    parser = argparse.ArgumentParser(prog="scripts/measure-shards", description=__doc__)
    parser.add_argument("--shards", default="1,2", help="of the two sides, or of one (default 1,2)")
    parser.add_argument("--against", help="another binary for the first side")
    parser.add_argument("--pairs", type=int, default=5, help="runs of each side, interleaved (default 5)")
    parser.add_argument("--seconds", type=int, default=8, help="of each run (default 8)")
    parser.add_argument("--warmup", type=int, default=2, help="seconds before that (default 2)")
    parser.add_argument("--rate", type=float, default=100, help="MB/s over all connections; 0: no limit (default 100)")
    parser.add_argument("--batch-bytes", type=int, default=16384, help="default 16384")
    parser.add_argument("--record-size", type=int, default=1024, help="default 1024")
    parser.add_argument("--connections", type=int, default=4, help="and partitions (default 4)")
    parser.add_argument("--threads", type=int, default=1, help="of the client (default 1)")
    parser.add_argument("--cpus", type=int, help="the brokers have only the first so many CPUs (default: all)")
    parser.add_argument(
        "--pin",
        metavar="CPUS",
        help="of the client's threads, with a comma between (default: any); several such lists with a slash between are "
        "taken in turn, one a pair",
    )
    parser.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="of both brokers")
    parser.add_argument(
        "--first-option", action="append", default=[], metavar="NAME=VALUE", help="of the first broker only"
    )
    parser.add_argument("--port", type=int, default=9092, help="and the next; in a network of its own if possible")
    parser.add_argument("--dir", help="where the data goes (default: a new folder in the system's)")
    parser.add_argument("--check-arguments", action="store_true", help=argparse.SUPPRESS)
    parsed = parser.parse_args(given)
    try:
        parsed.shards = [int(number) for number in parsed.shards.split(",")]
        parsed.option = dict(option.split("=", 1) for option in parsed.option)
        parsed.first_option = dict(option.split("=", 1) for option in parsed.first_option)
        parsed.pins = [[int(cpu) for cpu in pin.split(",")] for pin in parsed.pin.split("/")] if parsed.pin else []
        if any(len(pin) < parsed.threads for pin in parsed.pins):
            parser.error("--pin: a CPU for each of --threads is wanted")
    except ValueError:
        parser.error("--shards: one or two numbers are wanted; --pin: numbers; options: NAME=VALUE")
    if parsed.pairs % max(1, len(parsed.pins)):
        parser.error(f"--pairs: a multiple of {len(parsed.pins)} is wanted, so that each of --pin has as many")
    if parsed.first_option and len(parsed.shards) != 2:
        parser.error("--first-option: two numbers of --shards are wanted")
    if len(parsed.shards) not in (1, 2) or min(parsed.pairs, parsed.seconds, parsed.connections, *parsed.shards) < 1:
        parser.error("one or two numbers of shards; at least 1 run, second and connection")
    return parsed


def threads_of(pid):
    """name -> (user s, system s, sleeps) of a process' threads, those of one name together."""
    sums = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            stat = (task / "stat").read_text()
            status = (task / "status").read_text()
        except OSError:
            continue
        name, fields = stat[stat.index("(") + 1 : stat.rindex(")")], stat[stat.rindex(")") + 2 :].split()
        sleeps = int(re.search(r"^voluntary_ctxt_switches:\s*(\d+)", status, re.M).group(1))
        user, system, slept = sums.get(name, (0, 0, 0))
        sums[name] = (user + int(fields[11]) / TICKS, system + int(fields[12]) / TICKS, slept + sleeps)
    return sums


class Side:
    def __init__(self, label, binary, shards, given, folder, port, own_options):
        options = {
            "corelane.shards": str(shards),
            "corelane.http.listener": "",
            "corelane.log.level": "info,corelane::server::crossing=debug",
            "corelane.arena.bytes": str((64 << 20) // max(1, shards // 2)),
            **given.option,
            **own_options,
        }
        self.label, self.binary, self.shards, self.given = label, binary, shards, given
        self.broker = Corelane(binary, folder, port, extra=options, label=label)
        self.costs, self.rates, self.sleeps, self.user, self.system, self.void = [], [], [], [], [], 0

    def run(self, number):
        given, topic, cpus = self.given, f"t{number}", None
        self.broker.thaw()
        self.broker.make_topic(topic, given.connections)
        args = [
            "--bootstrap", self.broker.bootstrap, "--topic", topic, "--partitions", given.connections,
            "--connections", given.connections, "--threads", given.threads, "--batch-bytes", given.batch_bytes,
            "--record-size", given.record_size, "--rate", given.rate,
            "--warmup", given.warmup, "--duration", given.seconds,
        ]  # fmt: skip
        if given.pins:
            pin = given.pins[number % len(given.pins)]
            cpus = set(pin)
            args += ["--cpu", ",".join(map(str, pin))]
        window, before = self.broker.window(), threads_of(self.broker.pid)
        result = client.timed_run(self.binary, "produce", args, self.broker.folder, topic, cpus, window)
        after = threads_of(self.broker.pid)
        self.broker.drop_topics([topic])
        self.broker.freeze()
        if result["errors"]:
            raise SystemExit(f"{self.label}: {result['error_text']}")
        self.void += result["exit"] == client.VOID
        gained = {name: [now - then for now, then in zip(after[name], before.get(name, (0, 0, 0)))] for name in after}
        megabytes = result["bytes"] / 1e6
        self.rates.append(megabytes / given.seconds)
        self.costs.append(window.seconds() / (result["window_mb"] / 1e3))
        # Of the whole run, the warm-up and the topic's end included: to compare the sides by, no more.
        self.user.append(sum(part[0] for part in gained.values()))
        self.system.append(sum(part[1] for part in gained.values()))
        self.sleeps.append({name: part[2] for name, part in sorted(gained.items()) if part[2] > 100})
        return f"{self.label}: {self.costs[-1]:.2f} CPU s/GB, {self.rates[-1]:.1f} MB/s, {window.parts()}"

    def counters(self):
        """(requests, calls to other shards, moves) of all shards, from the broker's last words."""
        last = {}
        for found in COUNTERS.finditer(self.broker.log_path.read_text(errors="replace")):
            last[found.group(1)] = [int(number) for number in found.groups()[1:]]
        return [sum(column) for column in zip(*last.values())] or [0, 0, 0]


def median(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def measure(given, root):
    binary = os.environ["CORELANE_BIN"]
    binaries = [given.against or binary, binary][-len(given.shards) :]
    names = [f"{shards} shard{'s' * (shards > 1)}" for shards in given.shards]
    if given.first_option:
        names[0] += " with " + ", ".join(f"{name}={value}" for name, value in given.first_option.items())
    if given.against:
        names = [f"{names[0]} ({Path(given.against).name} given)", *names[1:]]
    elif len(set(names)) < len(names):
        names = [f"{name}, {side}" for name, side in zip(names, "AB")]
    options = [given.first_option, {}] if len(given.shards) == 2 else [{}]
    sides = [
        Side(name, binaries[at], given.shards[at], given, root / f"side-{at}", given.port + at, options[at])
        for at, name in enumerate(names)
    ]
    try:
        for side in sides:
            side.broker.start(set(sorted(isolate.ALL_CPUS)[: given.cpus]))
            side.broker.freeze()
        for number in range(given.pairs):
            for side in sides if number % 2 == 0 else sides[::-1]:
                print(side.run(number), flush=True)
        for side in sides:
            side.broker.thaw()
            side.broker.stop()
        for side in sides:
            requests, calls, moves = side.counters()
            hops = f"{calls / requests:.4f} calls to other shards a request, {moves} moves" if requests else "one shard"
            print(
                f"{side.label}: {median(side.costs)} CPU s/GB; user {median(side.user)} s, "
                f"system {median(side.system)} s a run; {hops}; "
                f"{statistics.median(side.rates):.1f} MB/s, {side.void} of {given.pairs} runs below 99 % of the rate\n"
                f"  sleeps of the last run: {side.sleeps[-1]}",
                flush=True,
            )
        if len(sides) == 2:
            ratios = [second / first for first, second in zip(sides[0].costs, sides[1].costs)]
            print(f"{sides[1].label} against {sides[0].label}: {median(ratios)}x the CPU")
            if not given.rate:
                carried = [second / first for first, second in zip(sides[0].rates, sides[1].rates)]
                print(f"  {median(carried)}x the MB/s")
            for at, pin in enumerate(given.pins if len(given.pins) > 1 else []):
                print(f"  with the client on {','.join(map(str, pin))}: {median(ratios[at :: len(given.pins)])}x")
            if len(given.pins) > 1:
                first, second = (sum(side.costs) for side in sides)
                print(f"  all runs together: {second / first:.2f}x")
    finally:
        for side in sides:
            side.broker.kill()


def main():
    given = arguments(sys.argv[1:])
    if given.check_arguments:
        return
    isolate.own_network()
    root = Path(tempfile.mkdtemp(prefix="corelane-shards-", dir=given.dir))
    try:
        measure(given, root)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
