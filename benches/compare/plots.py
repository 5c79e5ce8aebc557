"""SVG pictures for the report: a bar an axis, latency by percentile, the warm-up's curve. Colours come from the page's style."""

from html import escape
from math import ceil, floor, log10

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 300, 58, 78, 14, 40
TICKS = [(0, "0"), (0.5, "p50"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %"), (0.9999, "99.99 %"), (0.99999, "99.999 %")]
NAMES = {"corelane": "Corelane", "kafka": "Kafka", "null": "floor", "writing": "writing"}
BAR_WIDTH, BAR_ROW, BAR_LEFT, BAR_RIGHT, BAR_TOP = 1000, 34, 330, 60, 34
RATIO_TICKS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


def _times(value):
    return f"{value:.2f}x" if value < 10 else f"{value:.0f}x"


def bars(rows):
    """One bar a row from 1.0, to the right where Corelane is ahead; the scale is logarithmic."""
    if not rows:
        return ""
    low = min(0.5, min(r["least"] for r in rows)) / 1.15
    high = max(2.0, max(r["most"] for r in rows)) * 1.15
    height = BAR_TOP + BAR_ROW * len(rows) + 12

    def x(value):
        return BAR_LEFT + log10(value / low) / log10(high / low) * (BAR_WIDTH - BAR_LEFT - BAR_RIGHT)

    out = [f'<svg class="bars" viewBox="0 0 {BAR_WIDTH} {height}" role="img" aria-label="Corelane against Kafka, one bar an axis">']
    for tick in RATIO_TICKS:
        if low <= tick <= high:
            out.append(f'<line class="{"one" if tick == 1 else "grid"}" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{BAR_TOP - 6}" y2="{height - 8}"/>')
            name = "1.0: alike" if tick == 1 else f"{tick:g}x"
            out.append(f'<text class="tick" x="{x(tick):.1f}" y="{BAR_TOP - 12}" text-anchor="middle">{name}</text>')
    for at, row in enumerate(rows):
        y, (left, right) = BAR_TOP + at * BAR_ROW, sorted((x(1), x(row["times"])))
        told = [row["figure"], *([row["level"]] if row["level"] not in ("", "held") else []), *row["remarks"]]
        kind = "same" if abs(row["times"] - 1) < 0.01 else "win" if row["times"] > 1 else "loss"
        out.append(f'<a href="#{escape(row["id"])}"><text class="name" x="0" y="{y + 12}">{escape(shortened(row["title"]))}</text>'
                   f'<text class="detail" x="0" y="{y + 25}">{escape(", ".join(told))}</text></a>')  # fmt: skip
        out.append(f'<rect class="bar {kind}" x="{left:.1f}" y="{y + 4}" width="{max(right - left, 1.5):.1f}" height="16" rx="2"/>')
        out.append(f'<line class="whisker" x1="{x(row["least"]):.1f}" x2="{x(row["most"]):.1f}" y1="{y + 12}" y2="{y + 12}"/>')
        end = max(x(row["most"]), right) + 6
        out.append(f'<text class="value" x="{end:.1f}" y="{y + 16}">{_times(row["times"])}</text>')
    return "".join(out) + "</svg>"


def shortened(title, most=50):
    return title if len(title) <= most else title[: most - 1].rstrip(" ,(") + "\u2026"


def _nines(quantile, most):
    return min(-log10(max(1 - quantile, 10 ** -most)), most)


def _figure(value):
    return f"{value:g}" if value >= 0.001 else f"{value:.0e}"


def percentiles(curves, title):
    """`curves`: side -> [(quantile, ms)] rising. Both axes are logarithmic: percentiles by their nines, and the time."""
    curves = {side: [(q, v) for q, v in curve if v > 0] for side, curve in curves.items() if curve}
    curves = {side: curve for side, curve in curves.items() if curve}
    if not curves:
        return ""
    # The last nine is the one that the smallest distribution can tell: beyond it stands its maximum.
    most = max(1.0, min(5.0, max(-log10(max(1 - q, 1e-9)) for c in curves.values() for q, _ in c[:-1] or c)))
    values = [v for c in curves.values() for _, v in c]
    low, high = floor(log10(min(values))), ceil(log10(max(values)))
    high = max(high, low + 1)

    def x(quantile):
        return LEFT + _nines(quantile, most) / most * (WIDTH - LEFT - RIGHT)

    def y(value):
        return HEIGHT - BOTTOM - (log10(value) - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    out = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}: latency by percentile">']
    for exponent in range(low, high + 1):
        at = y(10.0**exponent)
        out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        out.append(f'<text class="tick" x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{_figure(10.0**exponent)}</text>')
    for quantile, label in TICKS:
        if -log10(1 - quantile) > most + 1e-9:
            break
        at = x(quantile)
        out.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
        out.append(f'<text class="tick" x="{at:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">{label}</text>')
    out.append(f'<text class="tick" x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{HEIGHT - 6}" text-anchor="middle">percentile</text>')
    out.append(f'<text class="tick" x="14" y="{(TOP + HEIGHT - BOTTOM) / 2:.0f}" text-anchor="middle" '
               f'transform="rotate(-90 14 {(TOP + HEIGHT - BOTTOM) / 2:.0f})">ms</text>')  # fmt: skip
    ends, marks = {}, {}
    out.append(f'<line class="p50" x1="{x(0.5):.1f}" x2="{x(0.5):.1f}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>')
    for side, curve in curves.items():
        middle = at_quantile(curve, 0.5)
        out.append(f'<circle class="dot {side}" cx="{x(0.5):.1f}" cy="{y(middle):.1f}" r="3.5"/>')
        if side not in ("null", "writing"):
            marks[side] = (y(middle), middle)
        points, previous = [], None
        for quantile, value in thinned(curve):
            # A value holds from the quantile before it: steps, so that nothing is made up between them.
            if previous is not None:
                points.append(f"{x(previous):.1f},{y(value):.1f}")
            points.append(f"{x(quantile):.1f},{y(value):.1f}")
            previous = quantile
        out.append(f'<polyline class="line {side}" points="{" ".join(points)}"/>')
        ends[side] = y(curve[-1][1])
    for at, (side, (place, middle)) in enumerate(sorted(marks.items(), key=lambda m: m[1])):
        place += -7 if at == 0 and len(marks) > 1 else 15
        out.append(f'<text class="mark {side}" x="{x(0.5) + 7:.1f}" y="{place:.1f}">p50 {_short(middle)} ms</text>')
    order = sorted(ends, key=ends.get)
    above = -14.0
    for side in order:
        above = max(ends[side] + 4, above + 14)
        out.append(f'<text class="label {side}" x="{WIDTH - RIGHT + 6}" y="{above:.1f}">{NAMES[side]}</text>')
    return "".join(out) + "</svg>"


def _short(value):
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def at_quantile(curve, quantile):
    return next((v for q, v in curve if q >= quantile), curve[-1][1])


def thinned(curve, most=400):
    if len(curve) <= most:
        return curve
    step = len(curve) / most
    return [curve[int(i * step)] for i in range(most)] + [curve[-1]]


def warm_up(curves, step=5):
    """CPU per GB in steps of the warm-up, both sides."""
    curves = {side: curve for side, curve in curves.items() if curve}
    if not curves:
        return ""
    height, longest = 200, max(len(c) for c in curves.values())
    top = max(max(c) for c in curves.values()) * 1.05 or 1

    def point(index, value):
        return (LEFT + index / max(longest - 1, 1) * (WIDTH - LEFT - RIGHT), height - BOTTOM - value / top * (height - TOP - BOTTOM))

    out = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="CPU seconds per GB while warming up">']
    for share in (0, 0.5, 1):
        _, at = point(0, top * share)
        out.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>')
        out.append(f'<text class="tick" x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{top * share:.3g}</text>')
    for side, curve in curves.items():
        points = [point(i, v) for i, v in enumerate(curve)]
        out.append(f'<polyline class="line {side}" points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in points)}"/>')
        out.append(f'<text class="label {side}" x="{points[-1][0] + 6:.1f}" y="{points[-1][1] + 4:.1f}">{NAMES[side]}</text>')
    out.append(f'<text class="tick" x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{height - 8}" text-anchor="middle">steps of {step} s; CPU-s/GB</text>')
    return "".join(out) + "</svg>"
