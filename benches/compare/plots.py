"""SVG pictures for the report: latency by percentile, and the warm-up's curve. Colours come from the page's style."""

from html import escape
from math import ceil, floor, log10

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 300, 58, 78, 14, 40
TICKS = [(0, "0 %"), (0.9, "90 %"), (0.99, "99 %"), (0.999, "99.9 %"), (0.9999, "99.99 %"), (0.99999, "99.999 %")]
NAMES = {"corelane": "Corelane", "kafka": "Kafka"}


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
    ends = {}
    for side, curve in curves.items():
        points, previous = [], None
        for quantile, value in thinned(curve):
            # A value holds from the quantile before it: steps, so that nothing is made up between them.
            if previous is not None:
                points.append(f"{x(previous):.1f},{y(value):.1f}")
            points.append(f"{x(quantile):.1f},{y(value):.1f}")
            previous = quantile
        out.append(f'<polyline class="line {side}" points="{" ".join(points)}"/>')
        ends[side] = y(curve[-1][1])
    order = sorted(ends, key=ends.get)
    for at, side in enumerate(order):
        place = ends[side] + 4
        if at and place - (ends[order[0]] + 4) < 14:
            place = ends[order[0]] + 18
        out.append(f'<text class="label {side}" x="{WIDTH - RIGHT + 6}" y="{min(place, HEIGHT - BOTTOM):.1f}">{NAMES[side]}</text>')
    return "".join(out) + "</svg>"


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
