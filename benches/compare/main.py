"""The command line: what is run, the progress, and that a report is written and everything cleaned up however it ends."""

import argparse
import datetime
import fcntl
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

from . import axes as table
from . import host, isolate, report
from .lab import FAILURES, Lab

REPO = Path(__file__).resolve().parents[2]
SHORT_MOST = 9.75 * 60  # seconds by which an axis of the short profile must be able to end, or it is not begun


class Progress:
    """A line that says what runs and how long is left."""

    def __init__(self, steps, each):
        self.since, self.total, self.done, self.each, self.recent = time.monotonic(), steps, 0, each, []

    def seconds(self):
        return time.monotonic() - self.since

    def say(self, text):
        spent, left = self.seconds(), max(0, self.total - self.done) * self.each
        clock = f"{int(spent) // 60}:{int(spent) % 60:02d}"
        print(f"[{clock}, about {round(left / 60)} min left] {text}", file=sys.stderr, flush=True)

    def step(self, axis, number, pairs, side):
        self.say(f"{axis.title}: pair {number + 1} of {pairs}, {side}")

    def stepped(self, seconds):
        """Once some runs are done they say how long the next will take."""
        self.done += 1
        self.recent = [*self.recent[-9:], seconds]
        if len(self.recent) == 10:
            self.each = sum(self.recent) / 10


def options(argv):
    cache = Path(os.environ.get("CORELANE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "corelane")
    parser = argparse.ArgumentParser(
        prog="scripts/compare-kafka", description="Corelane and Apache Kafka on the same work in one run.", allow_abbrev=False
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--short", action="store_true", help="the short list, under 10 minutes (the default)")
    length.add_argument("--full", action="store_true", help="every axis, hours")
    parser.add_argument("--only", metavar="AXIS,...", help="these axes; --list names them")
    parser.add_argument("--list", action="store_true", help="name the axes and end")
    parser.add_argument("--pairs", type=int, metavar="N", help="pairs of an axis [default: 5; full: 7]")
    parser.add_argument("--seconds", type=int, metavar="S", help="measured seconds of a run [default: 3; full: 10]")
    parser.add_argument("--warmup", type=int, metavar="S", help="discarded seconds before them [default: 1; full: 2]")
    parser.add_argument("--warm", type=float, metavar="S", help="most seconds of warming a broker up [default: 90; full: 300]")
    parser.add_argument("--patient", action="store_true", help="before each run wait until nothing else keeps the machine busy, a minute at most")
    parser.add_argument("--most-gb", type=float, metavar="GB", help="less to read cold (4 GB) and to recover (10 GB)")
    parser.add_argument("--data", type=Path, default=cache / "compare", help="folder for both brokers' data [default: %(default)s]")
    parser.add_argument("--report", type=Path, default=REPO / "report", help="folder for the report [default: %(default)s]")
    parser.add_argument("--keep", action="store_true", help="leave the brokers' folders (logs, data) in place")
    parser.add_argument("--check-arguments", action="store_true", help=argparse.SUPPRESS)  # of scripts/compare-kafka, before it builds
    chosen = parser.parse_args(argv)
    for name, short, full in (("pairs", 5, 7), ("seconds", 3, 10), ("warmup", 1, 2), ("warm", 90, 300)):
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
        return [known[n] for n in chosen.only.split(",")], []
    run = [a for a in table.AXES if chosen.full or a.short]
    return run, [{"id": a.id, "title": a.title} for a in table.AXES if a not in run]


def pairs_of(axis, chosen):
    fewer = axis.full_pairs if chosen.full else axis.short_pairs
    return min(chosen.pairs, fewer) if fewer else chosen.pairs


class Ceilings:
    """One measurement for all axes on which the client does the same."""

    def __init__(self, lab):
        self.lab, self.found = lab, {}

    def of(self, axis):
        if not axis.ceiling:
            return None
        args = list(axis.args)
        if "--rate" in args:
            args[args.index("--rate") + 1] = "0"
        signature = json.dumps([axis.kind, args, axis.partitions, axis.lanes])
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
    for axis in run_axes:
        needs = pairs_of(axis, chosen) * 2 * lab.progress.each
        if not (chosen.full or chosen.only or chosen.patient) and lab.progress.seconds() + needs > SHORT_MOST:
            left_out.append({"id": axis.id, "title": axis.title, "because": " (the ten minutes were over)"})
            continue
        if axis.work not in ("start", "idle", "recovery") and not warmed:
            lab.warm_up(table.by_id()["16k-100"], chosen.warm)
            warmed = True
        outcome, ceiling = {"pairs": [], "problems": []}, None
        try:
            ceiling = ceilings.of(axis)
            lab.run_axis(axis, pairs_of(axis, chosen), outcome)
        finally:  # with what there is, also after Ctrl-C
            results.append(report.axis_result(axis, outcome, ceiling))


def main(argv=None):
    parser, chosen = options(argv)
    if chosen.list:
        for axis in table.AXES:
            print(f"{axis.id:<20} {'short, full' if axis.short else 'full':<12} {axis.title}")
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


def measured(chosen, run_axes, left_out, binary, started, data, out):
    progress = Progress(sum(pairs_of(a, chosen) * 2 for a in run_axes), chosen.seconds + chosen.warmup + 1.5)
    read_ahead, read_ahead_setting = host.read_ahead(data)
    facts = host.facts(data) | {"disk: read-ahead": read_ahead}
    network = isolate.own_network()
    libs = os.environ.get("CORELANE_KAFKA_LIBS") if shutil.which("java") else None
    lab = Lab(chosen, out / "raw", data, binary, libs, progress)
    if not libs:
        lab.problem("Apache Kafka is missing (no JDK, or its artefacts could not be fetched): only Corelane was measured")
    results, ended = [], "to its end"
    try:
        run(lab, run_axes, chosen, results, left_out)
    except KeyboardInterrupt:
        ended = "interrupted, with what was measured by then"
    except Exception as e:  # whatever it is, what was measured is not lost
        ended = "early, by a failure, with what was measured by then"
        lab.problem(f"{type(e).__name__}: {e}")
        if not isinstance(e, FAILURES):
            raise
    finally:
        # A second Ctrl-C must not keep the clean-up from happening.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        lab.close()
        if read_ahead_setting:
            read_ahead_setting.restore()
        command = ["scripts/compare-kafka", *sys.argv[1:]]
        report.write(out, report.document(
            chosen, command, started, progress.seconds(), ended, facts, network, lab, results, table.AIMS, left_out,
        ))  # fmt: skip
    print((out / "report.md").read_text())
    print(f"The report: {out / 'index.html'}")
    failed = ended != "to its end" or lab.problems or any(r["problems"] for r in results)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
