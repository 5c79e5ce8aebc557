"""The report's words and rows, for the page and for Markdown alike."""

from statistics import median

from .axes import METRICS

RATIOS = "Ratios are Corelane/Kafka: the median of the pairs' ratios, with the least and the most of them."
METHOD = (
    "Medians over the runs. Each pair is one run of either side, directly after one another, the other side frozen, with the broker on one "
    "core and the client on another, swapped from pair to pair. Broker CPU is all that its own threads took and what the kernel's workers "
    "(kworker, jbd2, ksoftirqd) took in the same window, whoever they worked for; interrupts and softirqs that the kernel charges to "
    "whatever thread they hit are not told apart and cannot be seen. A figure is client-limited where the client was within 15 % of "
    "what it reaches against a broker that keeps nothing. A run below 99 % of its rate gives no latency ratio. The floor is the null broker "
    "under the same load in the same run, measured the same way: it receives, parses, acknowledges at once and keeps nothing."
)
WRITING = ("cpu_s_per_gb", "p50", "p99")
BARS = (
    "One bar an axis: how many times better Corelane is than Kafka in the axis' first figure (less CPU or time, or more carried), the median "
    "of the pairs with their spread; below its name that figure, Corelane : Kafka. At 1.0 they are alike; to its left Kafka is ahead."
)


def number(value, digits):
    return "-" if value is None else f"{value:,.{digits}f}"


def rows(axis):
    """One dict of texts per figure of an axis."""
    out = []
    for metric, figure in axis["figures"].items():
        heading, unit, digits, less_is_better, wants_rate = METRICS[metric]
        ours, theirs, ratio = figure["corelane"], figure["kafka"], figure["ratio"]
        if not ours and not theirs:
            continue
        notes = []
        if wants_rate:
            sides = zip(("Corelane", "Kafka"), figure["void"])
            notes += [f"{side} did not carry its rate in {n} of {len(axis['pairs'])} runs" for side, n in sides if n]
        if metric in ("mb_per_s", "requests_per_s"):
            near = axis["client_limited"].items()
            notes += [f"{side.capitalize()} client-limited ({share:.0%} of the client's ceiling)" for side, share in near if share]
        same = not ratio or abs(ratio[0] - 1) < 0.01
        better = ratio and (ratio[0] < 1) == less_is_better
        out.append({
            "heading": f"{heading}, {unit}", "corelane": number(ours and ours[0], digits), "kafka": number(theirs and theirs[0], digits),
            "ratio": f"{ratio[0]:.2f}x" if ratio else "-", "spread": f"{ratio[1]:.2f}-{ratio[2]:.2f}" if ratio else "",
            "floor": number(figure["null"] and figure["null"][0], digits), "pairs": figure["pairs"], "notes": "; ".join(notes), "outcome": "" if same else "win" if better else "loss",
        })  # fmt: skip
    return out


def writing(axis):
    """The figures of the null broker that writes behind, where there was one."""
    found = [(METRICS[metric], figure["writing"]) for metric, figure in axis["figures"].items() if figure["writing"] and metric in WRITING]
    if not found:
        return ""
    told = ", ".join(f"{heading} {number(value[0], digits)} {unit}" for (heading, unit, digits, *_), value in found)
    return f"The null broker that takes a checksum and writes groups of 1 MiB behind its acknowledgements, under the same load: {told}."


BOUND_UNITS = {"ratio": "x", "absolute": "", "above": "x above the floor", "null": " of the floor", "writing": "x the floor that writes"}


def bound(b):
    words = f"{'>=' if b['at_least'] else '<='} {b['value']:g}"
    return words + (f"x own {b['against']}" if b["of"] == "own" else BOUND_UNITS[b["of"]])


def told_aims(d):
    """The aims of which at least one bound was measured, each bound as (wanted, found, verdict); one without a figure is left out."""
    out = []
    for aim in d["aims"]:
        told = {kind: (bound(aim[kind]), number(aim[kind]["found"], 2), aim[kind]["verdict"])
                for kind in ("must", "aim") if aim.get(kind) and aim[kind]["verdict"] != "not measured"}  # fmt: skip
        if told:
            out.append((aim, told))
    return out


def counted(d):
    """Verdicts of all that was measured."""
    verdicts = [(kind, told[kind][2]) for _, told in told_aims(d) for kind in told]
    words = []
    for kind, name in (("must", "that must hold"), ("aim", "aimed for")):
        all_of = [v for k, v in verdicts if k == kind]
        if all_of:
            words.append(f"{sum(v == 'held' for v in all_of)} of {len(all_of)} bounds {name} are held")
    return f"{'; '.join(words)}." if words else ""


def ceiling(axis):
    if axis["kind"] == "requests":
        return f"{number(axis['ceiling']['requests_per_s'], 0)} requests/s"
    return f"{number(axis['ceiling']['mb_per_s'], 0)} MB/s"


def headline(axis):
    """The figure that stands for an axis: its first that has a ratio."""
    for metric in axis["metrics"]:
        figure = axis["figures"].get(metric)
        if figure and figure["ratio"]:
            return metric, figure
    return None, None


def level(axis):
    """What acknowledgements waited for, where the axis has any."""
    return axis["level"] if axis["kind"] in ("produce", "requests", "e2e") else ""


def rate_missed(axis):
    """Who did not carry the rate in most runs: a figure of another amount of work."""
    missed = [max((f["void"][at] for f in axis["figures"].values()), default=0) for at in (0, 1)]
    sides = [side for side, count in zip(("Corelane", "Kafka"), missed) if count * 2 > len(axis["pairs"])]
    return ["both below their rate"] if len(sides) == 2 else [f"{side} below its rate" for side in sides]


def bars(d):
    """One for each axis with a ratio: how many times better Corelane is, with the spread, and the two figures."""
    out = []
    for axis in d["axes"]:
        metric, figure = headline(axis)
        if not figure or min(figure["ratio"]) <= 0:
            continue
        heading, unit, digits, less_is_better, _ = METRICS[metric]
        times = [1 / v for v in figure["ratio"]] if less_is_better else list(figure["ratio"])
        ours, theirs = (number(figure[side][0], digits) for side in ("corelane", "kafka"))
        out.append({
            "id": axis["id"], "title": axis["title"], "level": level(axis), "times": times[0], "least": min(times), "most": max(times),
            "figure": f"{heading}: {ours} : {theirs} {unit}", "remarks": rate_missed(axis),
        })  # fmt: skip
    return out


def _ratios(axes, metric):
    found = [a["figures"][metric]["ratio"][0] for a in axes if a["figures"].get(metric) and a["figures"][metric]["ratio"]]
    return (median(found), min(found), max(found)) if found else None


def _times(found):
    middle, low, high = found
    return f"{middle:.2f}x" + (f" ({low:.2f} to {high:.2f})" if f"{low:.2f}" != f"{high:.2f}" else "")


def summary(d):
    """Corelane against Kafka in one sentence, losses counted."""
    axes = [a for a in d["axes"] if a["level"] != "synced"]
    rated = [a for a in axes if a["kind"] == "produce" and a["rate"]]
    full = [a for a in axes if a["kind"] in ("produce", "requests") and not a["rate"]]
    parts = []
    cpu, *latency = (_ratios(rated, metric) for metric in ("cpu_s_per_gb", "p50", "p99"))
    if cpu:
        told = ", ".join(f"{name} {_times(found)}" for name, found in zip(("p50", "p99"), latency) if found)
        parts.append(f"takes {_times(cpu)} of its CPU for producers at fixed rates" + (f" with {told}" if told else ""))
    for kind, metric, words in (("produce", "mb_per_s", "MB/s at saturation"), ("requests", "requests_per_s", "requests of one record")):
        found = _ratios([a for a in full if a["kind"] == kind], metric)
        if found:
            parts.append(f"carries {_times(found)} of its {words}")
    read = _ratios([a for a in axes if a["kind"] == "consume"], "cpu_s_per_gb")
    if read:
        parts.append(f"takes {_times(read)} of its CPU for consumers")
    found = bars(d)
    behind = [b["id"] for b in found if b["times"] < 0.99]
    if found:
        parts.append(f"is behind in {len(behind)} of {len(found)} axes" + (f" ({', '.join(behind)})" if behind else ""))
    if not parts:
        return "Nothing was measured on both sides."
    joined = parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + ", and " + parts[-1]
    return f"Against Kafka in the same run, Corelane {joined}."


def not_carried(d):
    """Rates that a side did not carry in any run: there is no ratio of latencies to tell it."""
    out = []
    for side, at in (("Corelane", 0), ("Kafka", 1)):
        axes = [a["title"] for a in d["axes"] if a["rate"] and a["pairs"] and any(f["void"][at] == len(a["pairs"]) for f in a["figures"].values())]
        if axes:
            out.append(f"{side} did not carry in any run: {'; '.join(axes)}.")
    return out


def lists(d):
    """(heading, lines) of what else there is to know."""
    return (
        ("Left out", [f"{a['id']}: {a['title']}{a.get('because', '')}" for a in d["left_out"]]),
        ("Problems", d["problems"] + [f"{a['id']}: {p}" for a in d["axes"] for p in a["problems"]]),
        ("Disturbances and errors", [f"{a['id']}: {w}" for a in d["axes"] for w in a["warnings"]]),
        ("Notes", d["notes"]),
    )


def warm_up(d):
    out = []
    states = {
        True: "its CPU per GB had stopped falling",
        False: "its CPU per GB was STILL FALLING when the time was up",
        None: "memory touched; nothing is compiled as it runs",
    }
    for side, warm in d["warm_up"].items():
        if not any(s["cpu_s_per_gb"] for s in warm["steps"]):
            out.append(f"{side.capitalize()}: none")
            continue
        words = {"free": "on all cores", "pinned": "on one core"}
        steps = "; ".join(f"{words[s['lanes']]}: {', '.join(f'{v:.2f}' for v in s['cpu_s_per_gb'])}" for s in warm["steps"])
        out.append(f"{side.capitalize()}: {warm['seconds']:.0f} s, {states[warm['settled']]}. CPU-s/GB in steps of 5 s, {steps}")
    return out or ["none: no axis of this run wanted one"]


def warm_curves(d):
    return {side: [v for s in warm["steps"] for v in s["cpu_s_per_gb"]] for side, warm in d["warm_up"].items()}


def host(d):
    yield from d["host"].items()
    yield from (("network " + k.replace("_", " "), v) for k, v in d["network"].items())
    yield "disk: interrupts placed", d["interrupts"]
    yield "pins", d["pins"]
    for label, source in d["cpu_source"].items():
        yield f"CPU time of {label}", source
    for label, promise in d["promises"].items():
        yield f"{label} says", promise


def markdown(d):
    out = [f"# Corelane and Apache Kafka, {d['started']}", ""]
    out += [summary(d), "", *not_carried(d), *([""] if not_carried(d) else [])]
    out += [f"{d['profile']} profile, {d['minutes']:.1f} minutes; ended: {d['ended']}. `{' '.join(d['command'])}`", ""]
    if bars(d):
        out += ["## At a glance", "", BARS, "", "| work | level | Corelane is better by | spread | Corelane : Kafka |", "| --- | --- | ---: | ---: | --- |"]
    for bar in bars(d):
        out.append(f"| {bar['title']} | {bar['level']} | {bar['times']:.2f}x | {bar['least']:.2f}-{bar['most']:.2f} | {'; '.join([bar['figure'], *bar['remarks']])} |")
    out += ["", "## Figures", "", METHOD, "", RATIOS, "", "| work | figure | Corelane | Kafka | floor | ratio | spread | pairs | |"]
    out += ["| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |"]
    for axis in d["axes"]:
        for row in rows(axis):
            cells = [axis["title"], *(row[k] for k in ("heading", "corelane", "kafka", "floor", "ratio", "spread")), str(row["pairs"]), row["notes"]]
            out.append("| " + " | ".join(cells) + " |")
    behind = [f"{axis['title']}: {writing(axis)}" for axis in d["axes"] if writing(axis)]
    if behind:
        out += ["", *("- " + line for line in behind)]
    for heading, lines in lists(d):
        if lines:
            out += ["", f"## {heading}", "", *("- " + line.replace("\n", " / ") for line in lines)]
    out += ["", "## Warm-up", "", *("- " + line for line in warm_up(d)), "", "## Host", "", *(f"- {k}: {v}" for k, v in host(d))]
    out += ["", "## Brokers", "", *(f"- {label}: {version}" for label, version in d["versions"].items())]
    for label, config in d["configs"].items():
        out += ["", f"### {label}", "", "```", " ".join(map(str, d["broker_commands"][label])), "", config.rstrip(), "```"]
    if told_aims(d):
        out += ["", "## Aims", "", counted(d), "", "| work | figure | must | found | | aim | found | | |", "| --- | --- | ---: | ---: | --- | ---: | ---: | --- | --- |"]
    for aim, told in told_aims(d):
        cells = [cell for kind in ("must", "aim") for cell in told.get(kind, ("", "", ""))]
        out.append(f"| {aim['title']} | {aim['what']} | {' | '.join(cells)} | {aim['remark']} |")
    return "\n".join(out) + "\n"
