"""The report as one HTML page that needs nothing else."""

from html import escape

from . import plots, text

STYLE = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--dim:#5a636d;--line:#dde2e7;--soft:#f4f6f8;--ours:#1768c4;--theirs:#c2571a;
--good:#1a7f37;--bad:#b42318;--warn:#8a6100}
@media(prefers-color-scheme:dark){:root{--bg:#14171b;--fg:#e4e8ec;--dim:#98a2ad;--line:#31373e;--soft:#1c2025;--ours:#6cb0ff;
--theirs:#ff9d5c;--good:#57c96f;--bad:#ff8a7d;--warn:#e2b340}}
*{box-sizing:border-box}
body{margin:0 auto;padding:24px 20px 64px;max-width:1040px;background:var(--bg);color:var(--fg);font:15px/1.5 system-ui,sans-serif}
h1{font-size:24px;margin:0 0 4px}h2{font-size:19px;margin:36px 0 8px;padding-top:12px;border-top:1px solid var(--line)}
h3{font-size:16px;margin:26px 0 6px}p{margin:6px 0}.dim{color:var(--dim)}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:14px}
th,td{padding:5px 10px 5px 0;text-align:left;border-bottom:1px solid var(--line);vertical-align:top}
th{font-weight:600;color:var(--dim)}td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.held,.missed,.not{white-space:nowrap}.held,.win{color:var(--good);font-weight:600}.missed,.loss{color:var(--bad);font-weight:600}.not{color:var(--dim)}
.warn{color:var(--warn)}
td:first-child{min-width:150px}h1+p.lead{font-size:18px;line-height:1.45;margin:10px 0 14px}
svg.bars{max-width:1000px}.bar.win{fill:var(--good)}.bar.loss{fill:var(--bad)}.bar.same{fill:var(--dim)}.whisker{stroke:var(--fg);stroke-width:1.2;opacity:.55}
.one{stroke:var(--fg);stroke-width:1.5}.name{fill:var(--fg);font-size:12.5px}.value{fill:var(--fg);font-size:12px;font-weight:600}.detail{fill:var(--dim);font-size:11px}
.dot.corelane{fill:var(--ours)}.dot.kafka{fill:var(--theirs)}.dot.null{fill:var(--dim)}.mark,.value{paint-order:stroke;stroke:var(--bg);stroke-width:4px}.mark{font-size:11px}.mark.corelane{fill:var(--ours)}
.mark.kafka{fill:var(--theirs)}.p50{stroke:var(--dim);stroke-dasharray:3 3}.line.null{stroke:var(--dim);stroke-dasharray:5 4;stroke-width:1.5}
.label.null,.label.writing{fill:var(--dim)}.line.writing{stroke:var(--dim);stroke-width:1.2}.dot.writing{fill:var(--dim)}
.badge{font-size:12px;font-weight:600;border:1px solid var(--line);border-radius:9px;padding:1px 8px;color:var(--dim)}
svg{width:100%;max-width:700px;height:auto;display:block;margin:8px 0}
.grid{stroke:var(--line)}.tick{fill:var(--dim);font-size:11px}.label{font-size:12px;font-weight:600}
.line{fill:none;stroke-width:2}.line.corelane{stroke:var(--ours)}.line.kafka{stroke:var(--theirs)}
.label.corelane{fill:var(--ours)}.label.kafka{fill:var(--theirs)}
pre{background:var(--soft);padding:10px;overflow-x:auto;font-size:12.5px;line-height:1.45;white-space:pre-wrap;word-break:break-all}
details{margin:6px 0}summary{cursor:pointer;color:var(--dim)}li{margin:3px 0}
"""


def table(headings, lines):
    """`headings`: (text, is a number). Cells are HTML already."""
    head = "".join(f'<th{" class=n" if n else ""}>{escape(t)}</th>' for t, n in headings)
    body = "".join(
        "<tr>" + "".join(f'<td{" class=n" if n else ""}>{cell}</td>' for cell, (_, n) in zip(line, headings)) + "</tr>" for line in lines
    )
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def verdict(words):
    return f'<span class="{words.split()[0]}">{words}</span>' if words else ""


def aims(d):
    lines = []
    for aim, told in text.told_aims(d):
        cells = []
        for kind in ("must", "aim"):
            wanted, found, word = told.get(kind, ("", "", ""))
            cells += [escape(wanted), found, verdict(word)]
        lines.append([escape(aim["title"]), escape(aim["what"]), *cells, f'<span class="dim">{escape(aim["remark"])}</span>'])
    return table([("work", 0), ("figure", 0), ("must", 1), ("found", 1), ("", 0), ("aim", 1), ("found", 1), ("", 0), ("", 0)], lines)


def figures(axis):
    lines, before = [], ""
    for row in text.rows(axis):
        notes = "the same" if row["notes"] and row["notes"] == before else row["notes"]
        before = row["notes"]
        lines.append([
            escape(row["heading"]), row["corelane"], row["kafka"], row["floor"], f'<span class="{row["outcome"]}">{row["ratio"]}</span>', row["spread"],
            str(row["pairs"]), f'<span class="warn">{escape(notes)}</span>',
        ])  # fmt: skip
    headings = [("", 0), ("Corelane", 1), ("Kafka", 1), ("floor", 1), ("ratio", 1), ("spread", 1), ("pairs", 1), ("", 0)]
    return table(headings, lines)


def commands(axis):
    found = [f"{side}: {' '.join(map(str, command))}" for side, command in axis["commands"].items() if command]
    return f"<details><summary>commands</summary><pre>{escape(chr(10).join(found))}</pre></details>" if found else ""


def section(axis):
    badge = f'<span class="badge" title="{escape(axis["promise"])}">{text.level(axis)}</span>' if text.level(axis) else ""
    out = [f'<h3 id="{axis["id"]}">{escape(axis["title"])} <span class="dim">({axis["id"]})</span> {badge}</h3>']
    if axis["why"]:
        out.append(f'<p class="dim">{escape(axis["why"])}</p>')
    out.append(figures(axis))
    out += [f'<p class="missed">{escape(p)}</p>' for p in axis["problems"]]
    out += [f'<p class="warn">{escape(w)}</p>' for w in axis["warnings"]]
    out.append(plots.percentiles(axis["plots"], axis["title"]))
    if text.writing(axis):
        out.append(f'<p class="dim">{escape(text.writing(axis))}</p>')
    if axis["ceiling"] and not axis["rate"]:
        most = text.ceiling(axis)
        out.append(f'<p class="dim">The same client against a broker that keeps nothing: {most}.</p>')
    out.append(commands(axis))
    return "".join(out)


def items(lines):
    return "<ul>" + "".join(f"<li>{escape(line)}</li>" for line in lines) + "</ul>"


def facts(pairs):
    return table([("", 0), ("", 0)], [[escape(str(k)), escape(str(v))] for k, v in pairs])


def html(d):
    out = [
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>Corelane and Apache Kafka, {d['started']}</title><style>{STYLE}</style><body>",
        "<h1>Corelane and Apache Kafka</h1>",
        f'<p class="lead">{escape(text.summary(d))}</p>',
        *(f"<p>{escape(line)}</p>" for line in text.not_carried(d)),
        f'<p class="dim">{d["started"]}, {d["profile"]} profile, {d["minutes"]:.1f} minutes; ended: {escape(d["ended"])}</p>',
        plots.bars(text.bars(d)),
        f'<p class="dim">{text.BARS}</p>',
        "<h2>Figures</h2>",
        f'<p class="dim">{text.METHOD} {text.RATIOS}</p>',
        *(section(axis) for axis in d["axes"]),
    ]
    for heading, lines in text.lists(d):
        if lines:
            out += [f"<h2>{heading}</h2>", items(lines)]
    out += ["<h2>Warm-up</h2>", items(text.warm_up(d)), plots.warm_up(text.warm_curves(d))]
    out += ["<h2>Host</h2>", facts(text.host(d)), "<h2>Brokers</h2>", facts(d["versions"].items())]
    for label, config in d["configs"].items():
        command = " ".join(map(str, d["broker_commands"][label]))
        out.append(f"<h3>{escape(label)}</h3><pre>{escape(command)}\n\n{escape(config)}</pre>")
    if text.told_aims(d):
        out += ["<h2>Aims</h2>", f"<p>{text.counted(d)}</p>", aims(d)]
    return "\n".join(out) + "</body></html>\n"
