"""The command line: what is run, the progress, and that a report is written and everything cleaned up however it ends."""

import argparse
import datetime
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
from .stats import verdict

REPO = Path(__file__).resolve().parents[2]


class Progress:
    """A line that says what runs and how long is left."""

    def __init__(self, steps, each):
        self.since, self.total, self.done, self.each = time.monotonic(), steps, 0, each

    def say(self, text):
        spent = time.monotonic() - self.since
        left = max(0, self.total - self.done) * self.each
        print(f"[{spent // 60:.0f}:{spent % 60:02.0f}, about {left // 60:.0f}:{left % 60:02.0f} left] {text}", file=sys.stderr, flush=True)

    def step(self, axis, number, pairs, side):
        # The longer it goes on, the better the estimate.
        if self.done > 10:
            self.each = (time.monotonic() - self.step_since) / self.done
        elif self.done == 0:
            self.step_since = time.monotonic()
        self.say(f"{axis.title}: pair {number + 1} of {pairs}, {side}")
        self.done += 1


def options(argv):
    cache = Path(os.environ.get("CORELANE_CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "corelane")
    parser = argparse.ArgumentParser(prog="scripts/compare-kafka", description="Corelane and Apache Kafka on the same work in one run.")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--short", action="store_true", help="the short list, under 10 minutes (the default)")
    length.add_argument("--full", action="store_true", help="every axis, hours")
    parser.add_argument("--only", metavar="AXIS,...", help="these axes; --list names them")
    parser.add_argument("--list", action="store_true", help="name the axes and end")
    parser.add_argument("--pairs", type=int, metavar="N", help="pairs of an axis [default: 5; full: 7]")
    parser.add_argument("--seconds", type=int, metavar="S", help="measured seconds of a run [default: 3; full: 10]")
    parser.add_argument("--warmup", type=int, metavar="S", help="discarded seconds before them [default: 1; full: 2]")
    parser.add_argument("--warm", type=float, metavar="S", help="most seconds of warming a broker up [default: 90; full: 300]")
    parser.add_argument("--data", type=Path, default=cache / "compare", help="folder for both brokers' data [default: %(default)s]")
    parser.add_argument("--report", type=Path, default=REPO / "report", help="folder for the report [default: %(default)s]")
    parser.add_argument("--keep", action="store_true", help="leave the brokers' folders (logs, data) in place")
    chosen = parser.parse_args(argv)
    for name, short, full in (("pairs", 5, 7), ("seconds", 3, 10), ("warmup", 1, 2), ("warm", 90, 300)):
        if getattr(chosen, name) is None:
            setattr(chosen, name, full if chosen.full else short)
    return parser, chosen


def choose(parser, chosen):
    """(axes to run, axes left out)."""
    known = table.by_id()
    if chosen.only:
        names = chosen.only.split(",")
        unknown = [n for n in names if n not in known]
        if unknown:
            parser.error(f"no such axis: {', '.join(unknown)}; there are {', '.join(known)}")
        return [known[n] for n in names], []
    run = [a for a in table.AXES if chosen.full or a.short]
    return run, [a for a in table.AXES if a not in run]


def pairs_of(axis, chosen):
    fewer = axis.short_pairs and not chosen.full
    return min(chosen.pairs, axis.short_pairs) if fewer else chosen.pairs


def client_limited(axis, samples, ceiling):
    """The client's share of its ceiling, where it is so near to it that the figure is the client's."""
    if not ceiling:
        return None
    metric = "requests_per_s" if axis.kind == "requests" else "mb_per_s"
    reached = [s[metric] for s in samples if s and s.get(metric)]
    most = ceiling.get(metric)
    if not reached or not most:
        return None
    share = sorted(reached)[len(reached) // 2] / most
    return share if share >= 0.85 else None


def aims(results):
    """Each aim with its figure and whether it is held."""
    found = {r["id"]: r for r in results}
    out = []
    for aim in table.AIMS:
        axis = found.get(aim.axis)
        figure = axis and axis["figures"].get(aim.metric)
        value = spread = None
        if figure and aim.of == "ratio" and figure["ratio"]:
            value, *spread = figure["ratio"]
        elif figure and aim.of == "absolute" and figure["corelane"]:
            value, *spread = figure["corelane"]
        elif figure and aim.of == "own" and aim.against in found:
            other = found[aim.against]["figures"].get(aim.metric)
            if other and figure["corelane"] and other["corelane"] and other["corelane"][0]:
                value = figure["corelane"][0] / other["corelane"][0]
        out.append({
            "id": aim.id, "what": aim.what, "axis": aim.axis, "metric": aim.metric, "bound": aim.bound,
            "at_least": aim.at_least, "of": aim.of, "against": aim.against, "before": aim.before, "value": value,
            "spread": spread, "verdict": verdict(value, aim.bound, aim.at_least),
        })  # fmt: skip
    return out


def run(lab, run_axes, chosen, results):
    warm_with = table.by_id()["16k-100"]
    warmed = False
    ceilings = {}
    for axis in run_axes:
        if axis.work == "bench" and not warmed:
            lab.warm_up(warm_with, chosen.warm)
            warmed = True
        ceiling = None
        if axis.ceiling and axis.kind:
            signature = json.dumps([axis.kind, [a for a in axis.args], axis.partitions, axis.lanes])
            if signature not in ceilings:
                try:
                    ceilings[signature] = lab.ceiling(axis)
                except FAILURES as e:
                    ceilings[signature] = None
                    lab.note(f"no client ceiling for {axis.id}: {str(e).splitlines()[0]}")
            ceiling = ceilings[signature]
        outcome = {"id": axis.id, "pairs": [], "problems": []}
        results.append(report.axis_result(axis, outcome, ceiling, client_limited))
        outcome |= lab.run_axis(axis, pairs_of(axis, chosen))
        results[-1] = report.axis_result(axis, outcome, ceiling, client_limited)


def main(argv=None):
    parser, chosen = options(argv)
    if chosen.list:
        for axis in table.AXES:
            print(f"{axis.id:<18} {'short, full' if axis.short else 'full':<12} {axis.title}")
        return 0
    run_axes, left_out = choose(parser, chosen)
    binary = Path(os.environ.get("CORELANE_BIN", REPO / "target/release/corelane")).resolve()
    if not binary.exists():
        parser.error(f"{binary} is missing: cargo build --release")
    libs = os.environ.get("CORELANE_KAFKA_LIBS")
    started = datetime.datetime.now()
    data = chosen.data.resolve() / f"run-{os.getpid()}"
    data.mkdir(parents=True)
    out = chosen.report.resolve() / f"compare-{started:%Y-%m-%d-%H%M%S}"
    raw = out / "raw"
    raw.mkdir(parents=True)
    steps = sum(pairs_of(a, chosen) * 2 for a in run_axes)
    progress = Progress(steps, chosen.seconds + chosen.warmup + 1.5)
    read_ahead, read_ahead_setting = host.read_ahead(data)
    facts = host.facts(data)
    network = isolate.own_network()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    lab = Lab(chosen, raw, data, binary, libs, progress)
    results, ended = [], "to its end"
    if not libs:
        lab.problem("Apache Kafka is missing (no JDK, or its artefacts could not be fetched): only Corelane was measured")
    try:
        run(lab, run_axes, chosen, results)
    except KeyboardInterrupt:
        ended = "interrupted: what was measured by then"
    except FAILURES as e:
        ended = "ended early by a failure: what was measured by then"
        lab.problem(f"{type(e).__name__}: {e}")
    finally:
        # A second Ctrl-C must not keep the clean-up from happening.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        document = report.document(
            chosen, started, time.monotonic() - progress.since, ended, facts | {"disk: read-ahead": read_ahead}, network, lab,
            results, aims(results), left_out,
        )  # fmt: skip
        lab.close()
        if read_ahead_setting:
            read_ahead_setting.restore()
        if not chosen.keep:
            shutil.rmtree(data, ignore_errors=True)
        report.write(out, document)
    print(out / "index.html")
    print((out / "report.md").read_text())
    return 0 if ended == "to its end" and not lab.problems else 1


if __name__ == "__main__":
    sys.exit(main())
