"""The command line: what is run, the progress, and that a report is written and everything cleaned up however it ends."""

import argparse
import contextlib
import datetime
import fcntl
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from . import aims, disk, host, isolate, report
from . import axes as table
from .lab import FAILURES, Lab

REPO = Path(__file__).resolve().parents[2]
FLOORS = {"null": "the floor", "writing": "the floor that writes"}
SHORT_MOST = 24.75 * 60  # seconds by which an axis of the short profile must be able to end, or it is not begun


class Progress:
    """A line that says what runs and how long is left."""

    def __init__(self, seconds):
        self.since, self.left = time.monotonic(), seconds

    def seconds(self):
        return time.monotonic() - self.since

    def say(self, text):
        spent = self.seconds()
        clock = f"{int(spent) // 60}:{int(spent) % 60:02d}"
        print(f"[{clock}, about {round(max(0, self.left) / 60)} min left] {text}", file=sys.stderr, flush=True)

    def step(self, axis, number, pairs, side):
        self.say(f"{axis.title}: pair {number + 1} of {pairs}, {FLOORS.get(side, side)}")

    def ended(self, expected):
        """An axis is over, of which so much was expected."""
        self.left -= expected


def options(argv):
    cache = Path(os.environ.get("CORELANE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "corelane")
    parser = argparse.ArgumentParser(
        prog="scripts/compare-kafka", description="Corelane and Apache Kafka on the same work in one run.", allow_abbrev=False
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--short", action="store_true", help="the short list, within 25 minutes (the default)")
    length.add_argument("--full", action="store_true", help="every axis, hours")
    length.add_argument("--cluster", action="store_true", help="the axes of three brokers a side, replication factor 3, acks=all")
    parser.add_argument("--long", action="store_true", help="rows of 60 s beside the short ones, where such a row is telling")
    parser.add_argument("--only", metavar="AXIS,...", help="these axes; --list names them")
    parser.add_argument("--list", action="store_true", help="name the axes and end")
    parser.add_argument("--pairs", type=int, metavar="N", help="pairs of an axis [default: 4; full: 7]")
    parser.add_argument("--seconds", type=int, metavar="S", help="measured seconds of a run [default: 3; full: 10]")
    parser.add_argument("--warmup", type=int, metavar="S", help="discarded seconds before them [default: 1; full: 2]")
    parser.add_argument("--warm", type=float, metavar="S", help="most seconds of warming a broker up [default: 90; full: 300]")
    parser.add_argument("--patient", action="store_true", help="before each run wait until nothing else keeps the machine busy, a minute at most")
    parser.add_argument("--most-gb", type=float, metavar="GB", help="less to read: cold (4 GB; 2 GB in the short list), just written (2 GB), and to recover (10 GB)")
    parser.add_argument("--data", type=Path, default=cache / "compare", help="folder for both brokers' data [default: %(default)s]")
    parser.add_argument("--report", type=Path, default=REPO / "report", help="folder for the report [default: %(default)s]")
    parser.add_argument("--keep", action="store_true", help="leave the brokers' folders (logs, data) in place")
    parser.add_argument("--check-arguments", action="store_true", help=argparse.SUPPRESS)  # of scripts/compare-kafka, before it builds
    chosen = parser.parse_args(argv)
    for name, short, full in (("pairs", 4, 7), ("seconds", 3, 10), ("warmup", 1, 2), ("warm", 90, 300)):
        if getattr(chosen, name) is None:
            setattr(chosen, name, full if chosen.full else short)
        if getattr(chosen, name) < (1 if name != "warm" else 0):
            parser.error(f"--{name} must be 1 or more")
    return parser, chosen


def choose(parser, chosen):
    """(axes to run, axes left out)."""
    known = table.by_id()
    if chosen.only:
        unknown = [n for n in chosen.only.split(",") if n not in known]
        if unknown:
            parser.error(f"no such axis: {', '.join(unknown)}; there are {', '.join(known)}")
        run = [known[n] for n in chosen.only.split(",")]
    else:
        run = [a for a in table.AXES if (a.brokers > 1 if chosen.cluster else chosen.full or a.short)]
    if chosen.long:
        run = [b for a in run for b in ([a, table.long_of(a)] if a.long else [a])]
    return run, [] if chosen.only or chosen.cluster else [{"id": a.id, "title": a.title} for a in table.AXES if a not in run]


def pairs_of(axis, chosen):
    fewer = axis.full_pairs if chosen.full else axis.short_pairs
    return min(chosen.pairs, fewer) if fewer else chosen.pairs


def expected_seconds(axis, chosen):
    """About what an axis takes, both sides and the floor together."""
    whole = {"start": 4, "idle": 14, "recovery": 60}  # whatever --seconds says
    run = whole.get(axis.work) or (axis.seconds or chosen.seconds) + (axis.warmup or chosen.warmup) + 1.5 + axis.partitions / 300
    pairs, apart = pairs_of(axis, chosen), {"recent": 9, "beside": 3}
    once = 40 if axis.work == "cold" else 25 if axis.disk else 0
    return once + pairs * 2 * (run + apart.get(axis.work, 0)) + min(pairs, 2) * run * len(axis.floors)


class Ceilings:
    """What consumers can read at best, one measurement for all axes on which they do the same. Of producers the floor tells it."""

    def __init__(self, lab):
        self.lab, self.found = lab, {}

    def of(self, axis):
        if not axis.ceiling or axis.kind != "consume":
            return None
        signature = json.dumps([axis.args, axis.partitions, axis.fill_batch, axis.lanes])
        if signature not in self.found:
            self.lab.progress.say(f"the client's own ceiling: {axis.title}")
            try:
                self.found[signature] = self.lab.ceiling(axis)
            except FAILURES as e:
                self.found[signature] = None
                self.lab.note(f"no client ceiling for {axis.id}: {str(e).splitlines()[0]}")
        return self.found[signature]


def run(lab, run_axes, chosen, results, left_out):
    ceilings, warmed = Ceilings(lab), False
    bounded = not (chosen.full or chosen.only or chosen.cluster or chosen.long or chosen.patient)
    for axis in run_axes:
        expected, terms = expected_seconds(axis, chosen), lab.terms_of(axis)
        because = terms.left_out
        if not because and bounded and lab.progress.seconds() + expected > SHORT_MOST:
            because = "its time was over"
        if because:
            left_out.append({"id": axis.id, "title": axis.title, "because": f" ({because})"})
            lab.progress.ended(expected)
            continue
        if axis.work not in ("start", "idle", "recovery") and axis.brokers == 1 and not warmed:
            lab.warm_up(table.by_id()["16k-100"], chosen.warm)
            warmed = True
        outcome, ceiling = {"pairs": [], "problems": [], "level": terms.level}, None
        try:
            ceiling = ceilings.of(axis)
            lab.run_axis(axis, pairs_of(axis, chosen), outcome)
        finally:  # with what there is, also after Ctrl-C
            lab.progress.ended(expected)
            if "left_out" in outcome:
                left_out.append({"id": axis.id, "title": axis.title, "because": f" ({outcome['left_out']})"})
            else:
                results.append(report.axis_result(axis, outcome, ceiling))


def main(argv=None):
    parser, chosen = options(argv)
    if chosen.list:
        for axis in table.by_id().values():
            lists = "short, full" if axis.short else "full"
            print(f"{axis.id:<20} {'long' if axis.seconds == table.LONG_SECONDS else lists:<12} {axis.level:<8} {axis.title}")
        return 0
    run_axes, left_out = choose(parser, chosen)
    if chosen.check_arguments:
        return 0
    binary = Path(os.environ.get("CORELANE_BIN", REPO / "target/release/corelane")).resolve()
    if not binary.exists():
        parser.error(f"{binary} is missing: cargo build --release")
    started = datetime.datetime.now()
    chosen.data.mkdir(parents=True, exist_ok=True)
    lock = open(chosen.data / "lock", "w")  # held until the process ends
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        parser.error(f"another comparison runs on {chosen.data}")
    disk.remove_stale(chosen.data)
    for left in chosen.data.glob("run-*"):  # of a run that was killed
        shutil.rmtree(left, ignore_errors=True)
    data = chosen.data.resolve() / f"run-{os.getpid()}"
    data.mkdir()
    out = chosen.report.resolve() / f"compare-{started:%Y-%m-%d-%H%M%S}"
    (out / "raw").mkdir(parents=True)
    for number in (signal.SIGINT, signal.SIGTERM):  # also where the shell had it ignored
        signal.signal(number, signal.default_int_handler)
    try:
        return measured(chosen, run_axes, left_out, binary, started, data, out)
    finally:
        if not chosen.keep:
            shutil.rmtree(data, ignore_errors=True)


@contextlib.contextmanager
def closing(lab, read_ahead_setting):
    """Ends all that runs in the lab, and takes the disk's setting back, however the measuring ends."""
    try:
        yield
    finally:
        # A second Ctrl-C must not keep the clean-up from happening.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        lab.close()
        if read_ahead_setting:
            read_ahead_setting.restore()


def measured(chosen, run_axes, left_out, binary, started, data, out):
    progress = Progress(chosen.warm + sum(expected_seconds(a, chosen) for a in run_axes))
    read_ahead, read_ahead_setting = host.read_ahead(data)
    facts = host.facts(data) | {"disk: read-ahead": read_ahead}
    network = isolate.own_network()
    libs = os.environ.get("CORELANE_KAFKA_LIBS") if shutil.which("java") else None
    zookeeper = os.environ.get("CORELANE_ZOOKEEPER_LIBS", "").split(":")[-1] if shutil.which("java") else None
    lab = Lab(chosen, out / "raw", data, binary, libs, progress, zookeeper)
    if not libs:
        lab.problem("Apache Kafka is missing (no JDK, or its artefacts could not be fetched): only Corelane was measured")
    results, ended = [], "to its end"
    try:
        with closing(lab, read_ahead_setting):
            run(lab, run_axes, chosen, results, left_out)
    except KeyboardInterrupt:
        ended = "interrupted, with what was measured by then"
    except Exception as e:  # whatever it is, what was measured is not lost
        ended = "early, by a failure, with what was measured by then"
        lab.problem(f"{type(e).__name__}: {e}")
        if not isinstance(e, FAILURES):
            raise
    finally:
        command = ["scripts/compare-kafka", *sys.argv[1:]]
        report.write(out, report.document(
            chosen, command, started, progress.seconds(), ended, facts, network, lab, results, aims.aims(), left_out,
        ))  # fmt: skip
    print((out / "report.md").read_text())
    print(f"The report: {out / 'index.html'}")
    failed = ended != "to its end" or lab.problems or any(r["problems"] for r in results)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
