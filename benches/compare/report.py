"""The report's data, and the files it becomes: data.json, report.md, index.html."""

import json
import sys

from . import page, stats
from .axes import METRICS


def carried(sample):
    return not sample.get("void")


def axis_result(axis, outcome, ceiling, client_limited):
    """One axis as the report wants it."""
    pairs = [(p.get("corelane"), p.get("kafka")) for p in outcome["pairs"]]
    figures = {}
    for metric in axis.metrics:
        wants_rate = METRICS[metric][4]
        figures[metric] = stats.compare(pairs, metric, carried if wants_rate else lambda sample: True)
    plots = {}
    for side, samples in (("corelane", [a for a, _ in pairs]), ("kafka", [b for _, b in pairs])):
        merged = stats.merged([s["hgrm"] for s in samples if s and s.get("hgrm")])
        if merged:
            plots[side] = merged
    limited = {
        side: client_limited(axis, samples, ceiling)
        for side, samples in (("corelane", [a for a, _ in pairs]), ("kafka", [b for _, b in pairs]))
    }
    commands = {
        side: next((p[side]["command"] for p in outcome["pairs"] if p.get(side) and p[side].get("command")), None)
        for side in ("corelane", "kafka")
    }
    kept = [
        {side: {k: v for k, v in (p.get(side) or {}).items() if k != "hgrm"} for side in ("corelane", "kafka")} | {"swapped": p["swapped"]}
        for p in outcome["pairs"]
    ]
    return {
        "id": axis.id, "title": axis.title, "kind": axis.kind or axis.work, "partitions": axis.partitions, "flush": axis.flush,
        "lanes": axis.lanes, "figures": figures, "plots": plots, "client_limited": limited, "commands": commands,
        "pairs": kept, "wanted": outcome.get("wanted", 0), "problems": outcome["problems"],
        "ceiling": {k: ceiling[k] for k in ("mb_per_s", "requests_per_s")} if ceiling else None,
    }  # fmt: skip


def document(chosen, started, seconds, ended, facts, network, lab, results, aims, left_out):
    brokers = {b.label: b for b in lab.started.values()}
    return {
        "profile": "full" if chosen.full else ("chosen axes" if chosen.only else "short"),
        "command": ["scripts/compare-kafka", *sys.argv[1:]],
        "started": f"{started:%Y-%m-%d %H:%M:%S}",
        "minutes": seconds / 60,
        "ended": ended,
        "length": {"seconds": chosen.seconds, "warmup": chosen.warmup, "pairs": chosen.pairs},
        "host": facts,
        "network": network,
        "interrupts": lab.irqs.words(),
        "pins": f"CPU {lab.cpus[0]} and CPU {lab.cpus[1]}, swapped from pair to pair" if lab.cpus else "one CPU only: no pins",
        "cpu_source": {label: b.group.cpu_source() if b.group else "schedstat" for label, b in brokers.items()},
        "versions": {label: b.version() for label, b in brokers.items()},
        "configs": {label: b.config_text() for label, b in brokers.items()},
        "broker_commands": {label: b.command() for label, b in brokers.items()},
        "warm_up": lab.warm,
        "axes": results,
        "aims": aims,
        "left_out": [{"id": a.id, "title": a.title} for a in left_out],
        "problems": lab.problems,
        "notes": lab.notes + lab.groups.notes,
    }


def number(value, digits):
    return "-" if value is None else f"{value:,.{digits}f}"


def rows(axis):
    """[(heading, ours, theirs, ratio, spread, note)] of an axis, as text."""
    out = []
    for metric, figure in axis["figures"].items():
        heading, unit, digits, less_is_better, wants_rate = METRICS[metric]
        ours, theirs, ratio = figure["corelane"], figure["kafka"], figure["ratio"]
        if not ours and not theirs:
            continue
        notes = []
        if wants_rate:
            notes += [f"{side} did not carry its rate in {n} of {len(axis['pairs'])}" for side, n in zip(("Corelane", "Kafka"), figure["void"]) if n]
        if metric in ("mb_per_s", "requests_per_s"):
            notes += [f"{side.capitalize()} client-limited ({share:.0%} of the client's ceiling)" for side, share in axis["client_limited"].items() if share]
        better = ratio and (ratio[0] < 1) == less_is_better
        out.append({
            "heading": f"{heading}, {unit}",
            "corelane": number(ours and ours[0], digits), "kafka": number(theirs and theirs[0], digits),
            "ratio": f"{ratio[0]:.2f}x" if ratio else "-", "spread": f"{ratio[1]:.2f}-{ratio[2]:.2f}" if ratio else "",
            "pairs": figure["pairs"], "notes": "; ".join(notes), "outcome": "" if not ratio else ("win" if better else "loss"),
        })  # fmt: skip
    return out


def aim_text(aim):
    bound = f"{'>=' if aim['at_least'] else '<='} {aim['bound']:g}"
    if aim["of"] == "absolute":
        return bound
    return bound + ("x" if aim["of"] == "ratio" else f"x its own figure of {aim['against']}")


def markdown(d):
    out = [f"# Corelane and Apache Kafka, {d['started']}", ""]
    out += [f"{d['profile']} profile, {d['minutes']:.1f} minutes, ended: {d['ended']}. `{' '.join(d['command'])}`", ""]
    out += ["## Aims", "", "| what | aim | found | spread | |", "| --- | --- | --- | --- | --- |"]
    for aim in d["aims"]:
        value = number(aim["value"], 2)
        spread = f"{aim['spread'][0]:.2f}-{aim['spread'][1]:.2f}" if aim["spread"] else ""
        out.append(f"| {aim['what']} | {aim_text(aim)} | {value} | {spread} | {aim['verdict']} |")
    out += ["", "## Figures", "", "Medians; the ratio is Corelane/Kafka: the median of the pairs' ratios, with the least and the most.", ""]
    out += ["| work | figure | Corelane | Kafka | ratio | spread | pairs | |", "| --- | --- | --- | --- | --- | --- | --- | --- |"]
    for axis in d["axes"]:
        for row in rows(axis):
            out.append("| " + " | ".join([axis["title"], row["heading"], row["corelane"], row["kafka"], row["ratio"], row["spread"],
                                           str(row["pairs"]), row["notes"]]) + " |")  # fmt: skip
    for heading, lines in (
        ("Not run in this profile", [f"{a['id']}: {a['title']}" for a in d["left_out"]]),
        ("Problems", d["problems"] + [f"{a['id']}: {p}" for a in d["axes"] for p in a["problems"]]),
        ("Notes", d["notes"]),
    ):
        if lines:
            out += ["", f"## {heading}", "", *("- " + line.replace("\n", " / ") for line in lines)]
    out += ["", "## Host", "", *(f"- {k}: {v}" for k, v in d["host"].items()), *(f"- {k}: {v}" for k, v in d["network"].items())]
    out += [f"- disk interrupts: {d['interrupts']}", f"- pins: {d['pins']}", *(f"- {k}: {v}" for k, v in d["versions"].items())]
    for side, warm in d["warm_up"].items():
        curve = ", ".join(f"{v:.2f}" for v in warm["curve_cpu_s_per_gb"])
        state = "settled" if warm["settled"] else "NOT settled"
        out.append(f"- warm-up of {side}: {warm['seconds']:.0f} s, {state}; CPU-s/GB in steps of 5 s: {curve}")
    return "\n".join(out) + "\n"


def write(folder, d):
    (folder / "data.json").write_text(json.dumps(d, indent=1, default=str))
    (folder / "report.md").write_text(markdown(d))
    (folder / "index.html").write_text(page.html(d))
