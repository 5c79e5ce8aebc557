"""The report's words and rows, for the page and for Markdown alike."""

from .axes import METRICS

RATIOS = "Ratios are Corelane/Kafka: the median of the pairs' ratios, with the least and the most of them."
METHOD = (
    "Medians over the runs. Each pair is one run of either side, directly after one another, the other side frozen, with the broker on one "
    "core and the client on another, swapped from pair to pair. Broker CPU is all that its own threads took and what the kernel's workers "
    "(kworker, jbd2, ksoftirqd) took in the same window, whoever they worked for; interrupts and softirqs that the kernel charges to "
    "whatever thread they hit are not told apart and cannot be seen. A figure is client-limited where the client was within 15 % of "
    "what it reaches against a broker that keeps nothing. A run below 99 % of its rate gives no latency ratio."
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
            "pairs": figure["pairs"], "notes": "; ".join(notes), "outcome": "" if same else "win" if better else "loss",
        })  # fmt: skip
    return out


def aim(aim):
    bound = f"{'>=' if aim['at_least'] else '<='} {aim['bound']:g}"
    if aim["of"] == "absolute":
        return bound
    return bound + ("x" if aim["of"] == "ratio" else f"x own {aim['against']}")


def ceiling(axis):
    if axis["kind"] == "requests":
        return f"{number(axis['ceiling']['requests_per_s'], 0)} requests/s"
    return f"{number(axis['ceiling']['mb_per_s'], 0)} MB/s"


def summary(d):
    count = {v: sum(a["verdict"] == v for a in d["aims"]) for v in ("held", "missed", "not measured")}
    missed = [a["what"] for a in d["aims"] if a["verdict"] == "missed"]
    words = f"{count['held']} aims held, {count['missed']} missed, {count['not measured']} not measured in this run."
    return words + (f" Missed: {'; '.join(missed)}." if missed else "")


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


def markdown(d):
    out = [f"# Corelane and Apache Kafka, {d['started']}", ""]
    out += [f"{d['profile']} profile, {d['minutes']:.1f} minutes; ended: {d['ended']}. `{' '.join(d['command'])}`", "", summary(d), ""]
    out += ["## Aims", "", RATIOS, "", "| what | aim | found | spread | |", "| --- | ---: | ---: | ---: | --- |"]
    for a in d["aims"]:
        spread = f"{a['spread'][0]:.2f}-{a['spread'][1]:.2f}" if a["spread"] else ""
        remark = f" ({a['remark']})" if a.get("remark") else ""
        out.append(f"| {a['what']} | {aim(a)} | {number(a['value'], 2)} | {spread} | {a['verdict']}{remark} |")
    out += ["", "## Figures", "", METHOD, "", "| work | figure | Corelane | Kafka | ratio | spread | pairs | |"]
    out += ["| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |"]
    for axis in d["axes"]:
        for row in rows(axis):
            cells = [axis["title"], *(row[k] for k in ("heading", "corelane", "kafka", "ratio", "spread")), str(row["pairs"]), row["notes"]]
            out.append("| " + " | ".join(cells) + " |")
    for heading, lines in lists(d):
        if lines:
            out += ["", f"## {heading}", "", *("- " + line.replace("\n", " / ") for line in lines)]
    out += ["", "## Warm-up", "", *("- " + line for line in warm_up(d)), "", "## Host", "", *(f"- {k}: {v}" for k, v in host(d))]
    out += ["", "## Brokers", "", *(f"- {label}: {version}" for label, version in d["versions"].items())]
    for label, config in d["configs"].items():
        out += ["", f"### {label}", "", "```", " ".join(map(str, d["broker_commands"][label])), "", config.rstrip(), "```"]
    return "\n".join(out) + "\n"
