"""Two builds of Corelane on the axes of the lab: what a change costs or brings. One generator drives both."""

import argparse
import math
import os
import shutil
import signal
import sys
from dataclasses import replace
from pathlib import Path
from statistics import median

from . import axes as table
from . import host, isolate, stats
from .lab import Lab
from .main import REPO, Progress, closing, expected_seconds
from .report import carried

SIDES = ("new", "old")
WORKS = ("bench", "recent", "cold", "memory", "beside", "start", "idle")


class Builds(Lab):
    """The older build stands in Kafka's place."""

    def __init__(self, options, folder, data, binary, old, progress):
        super().__init__(options, folder, data, binary, None, progress)
        self.binaries = {"new": binary, "old": old}

    def sides(self):
        return SIDES


def options(argv):
    parser = argparse.ArgumentParser(prog="scripts/compare-builds", description=__doc__, allow_abbrev=False)
    parser.add_argument("old", type=Path, help="the build to compare with: an executable")
    parser.add_argument("--only", metavar="AXIS,...", help="these axes [default: the lab's short list]; scripts/compare-kafka --list names them")
    parser.add_argument("--pairs", type=int, default=8, metavar="N", help="pairs of an axis [default: %(default)s]")
    parser.add_argument("--seconds", type=int, default=3, metavar="S", help="measured seconds of a run [default: %(default)s]")
    parser.add_argument("--warmup", type=int, default=1, metavar="S", help="discarded seconds before them [default: %(default)s]")
    parser.add_argument("--data", type=Path, default=REPO / "target/builds", help="folder for the brokers' data [default: %(default)s]")
    parser.add_argument("--check-arguments", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args(argv)
    chosen.patient, chosen.full, chosen.warm, chosen.most_gb = False, False, 15, None
    known = table.by_id()
    wanted = chosen.only.split(",") if chosen.only else [a.id for a in table.AXES if a.short and a.brokers == 1]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        parser.error(f"no such axis: {', '.join(unknown)}; there are {', '.join(known)}")
    if not os.access(chosen.old, os.X_OK):
        parser.error(f"{chosen.old} is not an executable")
    # Neither floor: both builds are measured alike.
    left_out = [name for name in wanted if known[name].work not in WORKS]
    if chosen.only and left_out:
        parser.error(f"scripts/compare-builds does not measure {', '.join(left_out)}")
    return chosen, [replace(known[name], ceiling=False, writing_floor=False) for name in wanted if known[name].work in WORKS]


def spread_of_median(ratios):
    """About the standard error of their median, relative: pairs that differ by a tenth tell no difference of a hundredth."""
    if len(ratios) < 3:
        return None
    logs = sorted(map(math.log, ratios))
    middle = median(logs)
    return 1.2533 * 1.4826 * median(abs(v - middle) for v in logs) / math.sqrt(len(logs))


def rows(axis, outcome):
    pairs = [tuple(pair.get(side) for side in SIDES) for pair in outcome["pairs"]]
    for metric in axis.metrics:
        heading, unit, digits, _, needs_rate = table.METRICS[metric]
        valid = carried if needs_rate else lambda sample: True
        figure = stats.compare(pairs, metric, valid)
        if not figure["ratio"]:
            continue
        error = spread_of_median(stats.ratios([p for p in pairs if all(s and valid(s) for s in p)], metric))
        middle, least, most = figure["ratio"]
        doubt = f"{100 * error:.1f} %" if error is not None else "too few pairs"
        told = [f"{figure[side][0]:,.{digits}f}" for side in ("corelane", "kafka")]
        yield f"| {axis.id} | {heading}, {unit} | {told[1]} | {told[0]} | {middle:.3f} | {least:.2f}-{most:.2f} | {doubt} |"


def main(argv=None):
    chosen, axes = options(argv)
    if chosen.check_arguments:
        return 0
    binary = Path(os.environ.get("CORELANE_BIN", REPO / "target/release/corelane")).resolve()
    data = chosen.data.resolve() / f"run-{os.getpid()}"
    (data / "raw").mkdir(parents=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    progress = Progress(2 * chosen.warm + sum(expected_seconds(a, chosen) for a in axes))
    isolate.own_network()
    lab, out, code = Builds(chosen, data / "raw", data, binary, chosen.old.resolve(), progress), [], 0
    read_ahead, read_ahead_setting = host.read_ahead(data)
    try:
        with closing(lab, read_ahead_setting):
            lab.warm_up(table.by_id()["16k-100"], chosen.warm)
            for axis in axes:
                outcome = {"pairs": [], "problems": []}
                lab.run_axis(axis, chosen.pairs, outcome)
                progress.ended(expected_seconds(axis, chosen))
                out += rows(axis, outcome)
                out += [f"| {axis.id} | {problem.splitlines()[0]} | | | | | |" for problem in outcome["problems"]]
                code = 1 if outcome["problems"] else code
    except KeyboardInterrupt:
        code = 1
    finally:
        shutil.rmtree(data, ignore_errors=True)
    print("| axis | figure | old | new | new/old | spread | error of the median, about |\n| --- | --- | ---: | ---: | ---: | --- | ---: |")
    print("\n".join(out))
    return 1 if code or lab.problems else 0


if __name__ == "__main__":
    sys.exit(main())
