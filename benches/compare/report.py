"""The report's data, made of what was measured, and the files it becomes: data.json, report.md, index.html."""

import json
from statistics import median

from . import page, stats, text
from .axes import METRICS
from .levels import PROMISES

SIDES = ("corelane", "kafka")
# Where the client reached that share of its ceiling, the figure is the client's.
NEAR_CEILING = 0.85
# CPU seconds of others per second that spoil a run.
DISTURBED = 0.1


def carried(sample):
    return not sample.get("void")


def client_limited(axis, samples, ceiling):
    """The client's share of its ceiling where it was near it, else None. At a fixed rate the floor tells whether it was."""
    if axis.rate:
        return None
    metric = "requests_per_s" if axis.kind == "requests" else "mb_per_s"
    reached, most = [s[metric] for s in samples if s and s.get(metric)], (ceiling or {}).get(metric)
    if not reached or not most:
        return None
    share = median(reached) / most
    return share if share >= NEAR_CEILING else None


def warnings(samples):
    """What disturbed the runs of an axis."""
    out = []
    for name, words in (("others_s", "something else took more than a tenth of a core"), ("stolen_s", "the host took more than a tenth of a core away")):
        count = sum(1 for s in samples if s.get("wall_s") and (s.get(name) or 0) / s["wall_s"] > DISTURBED)
        if count:
            most = max((s.get(name) or 0) / s["wall_s"] for s in samples if s.get("wall_s"))
            out.append(f"disturbed: {words} in {count} of {len(samples)} runs (up to {most:.2f})")
    errors = {}
    for sample in samples:
        for what, count in (sample.get("errors") or {}).items():
            errors[what] = errors.get(what, 0) + count
    return out + [f"errors: {count} x {what}" for what, count in errors.items()]


def axis_result(axis, outcome, ceiling):
    """One axis as the report wants it."""
    by_side = {side: [p.get(side) for p in outcome["pairs"]] for side in SIDES}
    pairs = list(zip(*by_side.values()))
    floors, writing = ([p[side] for p in outcome["pairs"] if p.get(side)] for side in ("null", "writing"))
    figures = {}
    for metric in axis.metrics:
        figure = stats.compare(pairs, metric, carried if METRICS[metric][4] else lambda sample: True)
        figures[metric] = stats.against_floor(figure, pairs, floors, metric, writing)
    if floors and not ceiling:
        ceiling = {m: median([s[m] for s in floors]) for m in ("mb_per_s", "requests_per_s")} | {"command": floors[0]["command"]}
    plots, commands = {}, {}
    by_side |= {"null": floors, "writing": writing}
    for side, samples in by_side.items():
        merged = stats.merged([s["hgrm"] for s in samples if s and s.get("hgrm")])
        if merged:
            plots[side] = merged
        commands[side] = next((s["command"] for s in samples if s and s.get("command")), None)
    kept = [{side: {k: v for k, v in (p.get(side) or {}).items() if k != "hgrm"} for side in (*SIDES, "null", "writing")} | {"swapped": p["swapped"]} for p in outcome["pairs"]]
    told = warnings([s for side in SIDES for s in by_side[side] if s])
    if any(s.get("void") for s in floors):
        told.append("the client did not carry this rate against the null broker either: what is missing is its own")
    level = outcome.get("level", axis.level)
    return {
        "id": axis.id, "title": axis.title, "kind": axis.kind or axis.work, "partitions": axis.partitions, "level": level,
        "promise": PROMISES[level], "metrics": axis.metrics, "rate": axis.rate,
        "lanes": axis.lanes, "why": axis.why, "figures": figures, "plots": plots,
        "client_limited": {side: client_limited(axis, by_side[side], ceiling) for side in SIDES},
        "commands": commands, "pairs": kept, "wanted": outcome.get("wanted", 0), "problems": outcome["problems"],
        "warnings": told,
        "ceiling": {k: ceiling[k] for k in ("mb_per_s", "requests_per_s", "command")} if ceiling else None,
    }  # fmt: skip


def judged(aims, results):
    """Each aim with its figure and whether its bounds hold; of axes that this run has."""
    found = {r["id"]: r for r in results}
    out = []
    for aim in aims:
        for axis in (found.get(aim.axis), found.get(f"{aim.axis}-60s")):
            figure = axis["figures"].get(aim.metric) if axis else None
            if not figure or not (figure["corelane"] or figure["kafka"]):
                continue
            bounds = {kind: bound_held(getattr(aim, kind), figure, axis, found, aim.metric) for kind in ("must", "aim") if getattr(aim, kind)}
            out.append({
                "id": aim.id, "axis": axis["id"], "title": axis["title"], "what": aim.what, "metric": aim.metric, **bounds,
                "remark": remark(figure, axis, aim.metric),
            })  # fmt: skip
    return out


def bound_held(bound, figure, axis, found, metric):
    """A bound with what was found for it. What Corelane did not carry in any run is missed, whatever else there is."""
    value, spread = None, None
    if bound.of == "own":
        other = (found.get(bound.against) or {"figures": {}})["figures"].get(metric)
        if other and figure["corelane"] and other["corelane"] and other["corelane"][0]:
            value = figure["corelane"][0] / other["corelane"][0]
    else:
        key = {"ratio": "ratio", "absolute": "corelane", "above": "above", "null": "of_null", "writing": "of_writing"}[bound.of]
        if figure[key]:
            value, *spread = figure[key]
    verdict, missing = stats.verdict(value, bound.value, bound.at_least), figure["void"][0]
    if METRICS[metric][4] and missing and (missing == len(axis["pairs"]) or bound.of == "absolute"):
        verdict = "missed"
    return {**vars(bound), "found": value, "spread": spread, "verdict": verdict}


def remark(figure, axis, metric):
    words = [void_words(figure, axis)] if METRICS[metric][4] and any(figure["void"]) else []
    if axis["client_limited"].get("corelane") and metric in ("mb_per_s", "requests_per_s"):
        words.append("client-limited: it may be more")
    for start, said in (("disturbed", "in a disturbed run"), ("errors", "with errors")):
        if any(w.startswith(start) for w in axis["warnings"]):
            words.append(said)
    return "; ".join(words)


def void_words(figure, axis):
    sides = zip(("Corelane", "Kafka"), figure["void"])
    return "; ".join(f"{side} did not carry the rate in {n} of {len(axis['pairs'])} runs" for side, n in sides if n)


def document(chosen, command, started, seconds, ended, facts, network, lab, results, aims, left_out):
    brokers = {b.label: b for b in lab.started.values()}
    return {
        "profile": "full" if chosen.full else "cluster" if chosen.cluster else "chosen axes" if chosen.only else "short",
        "command": command,
        "started": f"{started:%Y-%m-%d %H:%M:%S}",
        "minutes": seconds / 60,
        "ended": ended,
        "length": {"seconds": chosen.seconds, "warmup": chosen.warmup, "pairs": chosen.pairs, "long": chosen.long},
        "host": facts,
        "network": network,
        "interrupts": lab.irqs.words(),
        "pins": f"CPU {lab.cpus[0]} and CPU {lab.cpus[1]}, swapped from pair to pair" if lab.cpus else "one CPU only: no pins",
        "cpu_source": {label: b.group.cpu_source for label, b in brokers.items()},
        "versions": {label: b.version() for label, b in brokers.items()},
        "promises": {label: b.promise() for label, b in brokers.items() if hasattr(b, "promise") and b.promise()},
        "configs": {label: b.config_text() for label, b in brokers.items()},
        "broker_commands": {label: b.command() for label, b in brokers.items()},
        "warm_up": lab.warm,
        "axes": results,
        "aims": judged(aims, results),
        "left_out": left_out,
        "problems": lab.problems,
        "notes": lab.notes + lab.groups.notes,
    }


def write(folder, d):
    (folder / "data.json").write_text(json.dumps(d, indent=1, default=str))
    (folder / "report.md").write_text(text.markdown(d))
    (folder / "index.html").write_text(page.html(d))
