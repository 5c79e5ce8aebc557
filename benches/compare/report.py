"""The report's data, made of what was measured, and the files it becomes: data.json, report.md, index.html."""

import json
from statistics import median

from . import page, stats, text
from .axes import METRICS

SIDES = ("corelane", "kafka")
# Where the client reached that share of its ceiling, the figure is the client's.
NEAR_CEILING = 0.85
# CPU seconds of others per second that spoil a run.
DISTURBED = 0.1


def carried(sample):
    return not sample.get("void")


def client_limited(axis, samples, ceiling):
    """The client's share of its ceiling where it was near it, else None."""
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
    figures = {m: stats.compare(pairs, m, carried if METRICS[m][4] else lambda sample: True) for m in axis.metrics}
    plots, commands = {}, {}
    for side, samples in by_side.items():
        merged = stats.merged([s["hgrm"] for s in samples if s and s.get("hgrm")])
        if merged:
            plots[side] = merged
        commands[side] = next((s["command"] for s in samples if s and s.get("command")), None)
    kept = [{side: {k: v for k, v in (p.get(side) or {}).items() if k != "hgrm"} for side in SIDES} | {"swapped": p["swapped"]} for p in outcome["pairs"]]
    return {
        "id": axis.id, "title": axis.title, "kind": axis.kind or axis.work, "partitions": axis.partitions, "flush": axis.flush,
        "lanes": axis.lanes, "why": axis.why, "figures": figures, "plots": plots,
        "client_limited": {side: client_limited(axis, samples, ceiling) for side, samples in by_side.items()},
        "commands": commands, "pairs": kept, "wanted": outcome.get("wanted", 0), "problems": outcome["problems"],
        "warnings": warnings([s for samples in by_side.values() for s in samples if s]),
        "ceiling": {k: ceiling[k] for k in ("mb_per_s", "requests_per_s", "command")} if ceiling else None,
    }  # fmt: skip


def judged(aims, results):
    """Each aim with its figure and whether it is held."""
    found = {r["id"]: r for r in results}
    out = []
    for aim in aims:
        axis, value, spread, remark = found.get(aim.axis), None, None, ""
        figure = axis["figures"].get(aim.metric) if axis else None
        if figure and aim.of == "ratio":
            if figure["ratio"]:
                value, *spread = figure["ratio"]
            elif any(figure["void"]):
                remark = void_words(figure, axis)
            limited = axis["client_limited"].get("corelane")
            if limited and aim.metric in ("mb_per_s", "requests_per_s"):
                remark = "client-limited: it may be more"
        elif figure and aim.of == "absolute" and figure["corelane"]:
            value, *spread = figure["corelane"]
            if figure["void"][0]:
                remark = void_words(figure, axis)
        elif figure and aim.of == "own" and aim.against in found:
            other = found[aim.against]["figures"].get(aim.metric)
            if other and figure["corelane"] and other["corelane"] and other["corelane"][0]:
                value = figure["corelane"][0] / other["corelane"][0]
        for start, words in (("disturbed", "in a disturbed run"), ("errors", "with errors")):
            if value is not None and any(w.startswith(start) for w in axis["warnings"]):
                remark = "; ".join(filter(None, [remark, words]))
        verdict = stats.verdict(value, aim.bound, aim.at_least)
        if aim.of == "absolute" and verdict == "held" and figure["void"][0]:
            verdict = "missed"
        out.append({**vars(aim), "value": value, "spread": spread, "verdict": verdict, "remark": remark})
    return out


def void_words(figure, axis):
    sides = zip(("Corelane", "Kafka"), figure["void"])
    return "; ".join(f"{side} did not carry the rate in {n} of {len(axis['pairs'])} runs" for side, n in sides if n)


def document(chosen, command, started, seconds, ended, facts, network, lab, results, aims, left_out):
    brokers = {b.label: b for b in lab.started.values()}
    return {
        "profile": "full" if chosen.full else ("chosen axes" if chosen.only else "short"),
        "command": command,
        "started": f"{started:%Y-%m-%d %H:%M:%S}",
        "minutes": seconds / 60,
        "ended": ended,
        "length": {"seconds": chosen.seconds, "warmup": chosen.warmup, "pairs": chosen.pairs},
        "host": facts,
        "network": network,
        "interrupts": lab.irqs.words(),
        "pins": f"CPU {lab.cpus[0]} and CPU {lab.cpus[1]}, swapped from pair to pair" if lab.cpus else "one CPU only: no pins",
        "cpu_source": {label: b.group.cpu_source for label, b in brokers.items()},
        "versions": {label: b.version() for label, b in brokers.items()},
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
