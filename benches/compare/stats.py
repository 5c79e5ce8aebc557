"""Pairs to medians, ratios and spread; percentile distributions merged over repeats."""

from statistics import median


def spread(values):
    """(median, least, most) of what is there; None without any."""
    values = [v for v in values if v is not None]
    return (median(values), min(values), max(values)) if values else None


def ratios(pairs, metric):
    """Ours by theirs, one of each pair that has both."""
    out = []
    for ours, theirs in pairs:
        a, b = (ours or {}).get(metric), (theirs or {}).get(metric)
        if a is not None and b:
            out.append(a / b)
    return out


def compare(pairs, metric, valid=lambda sample: True):
    """One metric over all pairs. A side whose samples are not valid keeps its figures and gives no ratio."""
    kept = [(a if a and valid(a) else None, b if b and valid(b) else None) for a, b in pairs]
    found = ratios(kept, metric)
    return {
        "corelane": spread([(a or {}).get(metric) for a, _ in pairs]),
        "kafka": spread([(b or {}).get(metric) for _, b in pairs]),
        "ratio": spread(found),
        "pairs": len(found),
        "void": [sum(1 for s in side if s and not valid(s)) for side in zip(*pairs)] if pairs else [0, 0],
    }


def against_floor(figure, pairs, floors, metric, writing=()):
    """The figure with the null broker's beside it, and where that costs something: what Corelane takes above it by what Kafka does.
    `writing`: samples of the null broker that writes behind."""
    null = spread([s.get(metric) for s in floors if s])
    above = []
    if null:
        for ours, theirs in pairs:
            a, b = (ours or {}).get(metric), (theirs or {}).get(metric)
            if a is not None and b is not None and b > null[0]:
                above.append((a - null[0]) / (b - null[0]))
    behind = spread([s.get(metric) for s in writing if s])
    shares = {name: tuple(v / floor[0] for v in figure["corelane"]) if figure["corelane"] and floor and floor[0] else None
              for name, floor in (("of_null", null), ("of_writing", behind))}  # fmt: skip
    return {**figure, "null": null, "writing": behind, "above": spread(above), **shares}


def settled(curve, tolerance=0.05):
    """CPU per GB has stopped falling: the median of the last three is not lower than that of the three before by more than 5 %."""
    if len(curve) < 6:
        return False
    return median(curve[-3:]) >= median(curve[-6:-3]) * (1 - tolerance)


def parse_hgrm(text):
    """[(value, count)] of a percentile distribution."""
    out, before = [], 0
    for line in text.splitlines():
        words = line.split()
        if len(words) < 3 or line.startswith("#"):
            continue
        try:
            value, total = float(words[0]), int(words[2])
        except ValueError:
            continue
        if total > before:
            out.append((value, total - before))
            before = total
    return out


def merged(distributions):
    """[(quantile, value)] over the values of several distributions, rising; the last quantile is 1."""
    counts = {}
    for distribution in distributions:
        for value, count in distribution:
            counts[value] = counts.get(value, 0) + count
    total, seen, out = sum(counts.values()), 0, []
    for value in sorted(counts):
        seen += counts[value]
        out.append((seen / total, value))
    return out


def verdict(value, aim, at_least):
    if value is None:
        return "not measured"
    return "held" if (value >= aim if at_least else value <= aim) else "missed"
