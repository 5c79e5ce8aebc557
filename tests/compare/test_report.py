"""From samples to the report's figures, aims and files."""

import re
from html.parser import HTMLParser

import pytest
from compare import axes, main, page, plots, report, text, wire


def sample(cpu=1.0, mb=100.0, p99=2.0, **more):
    return {
        "cpu_s_per_gb": cpu, "cpu_s_per_gb_written": cpu, "mb_per_s": mb, "p50": 1.0, "p99": p99, "p99_9": p99, "p99_99": p99, "max": p99,
        "void": False, "errors": {}, "wall_s": 3.0, "others_s": 0.0, "stolen_s": 0.0, "command": ["corelane", "bench", "<produce>"],
        "hgrm": [(1.0, 900), (p99, 100)], **more,
    }  # fmt: skip


def outcome(*pairs, problems=()):
    made = [{"swapped": bool(i % 2)} | {k: v for k, v in zip(("corelane", "kafka"), p) if v} for i, p in enumerate(pairs)]
    return {"pairs": made, "problems": list(problems), "wanted": len(made)}


def result(*pairs, axis="64k-100", ceiling=None, **kwargs):
    return report.axis_result(axes.by_id()[axis], outcome(*pairs, **kwargs), ceiling)


def document(results):
    return {
        "profile": "short", "command": ["scripts/compare-kafka"], "started": "2026-01-02 03:04:05", "minutes": 9.5, "ended": "to its end",
        "host": {"kernel": "Linux <6>"}, "network": {"congestion_control": "reno"}, "interrupts": "left", "pins": "0 and 1",
        "cpu_source": {"corelane": "x"}, "versions": {"kafka": "4.3.1"}, "configs": {"kafka": "a=b\n"}, "broker_commands": {"kafka": ["java"]},
        "warm_up": {"kafka": {"seconds": 60, "steps": [{"lanes": "free", "cpu_s_per_gb": [9, 5]}], "settled": False}},
        "axes": results, "aims": report.judged(axes.AIMS, results), "left_out": [{"id": "cold", "title": "consume from the disk"}],
        "problems": ["a broker <died>"], "notes": [],
    }  # fmt: skip


def aim_of(results, name):
    return next(a for a in report.judged(axes.AIMS, results) if a["id"] == name)


def test_every_aim_names_an_axis_and_a_figure_of_it():
    known = axes.by_id()
    assert len(known) == len(axes.AXES)
    for aim in axes.AIMS:
        assert aim.metric in known[aim.axis].metrics, aim.id
        assert aim.of != "own" or aim.metric in known[aim.against].metrics
    for axis in axes.AXES:
        assert set(axis.metrics) <= set(axes.METRICS), axis.id


def test_aims_held_missed_and_not_measured():
    results = [result((sample(cpu=1), sample(cpu=10)), (sample(cpu=3), sample(cpu=10)))]
    found = aim_of(results, "cpu-64k")
    assert (found["value"], found["spread"], found["verdict"]) == (0.2, [0.1, 0.3], "held")
    assert aim_of([result((sample(cpu=3), sample(cpu=10)))], "cpu-64k")["verdict"] == "missed"
    assert aim_of([], "cpu-64k")["verdict"] == "not measured"
    assert aim_of([result((sample(), None))], "cpu-64k")["verdict"] == "not measured"


def test_an_own_figure_is_held_against_corelane_alone():
    results = [result((sample(cpu=2), sample(cpu=1)), axis="16k-100"), result((sample(cpu=2.2), None), axis="16k-1000p")]
    assert aim_of(results, "partitions")["value"] == pytest.approx(1.1)


def test_an_absolute_aim_wants_the_rate_carried():
    good, void = sample(p99=3), sample(p99=3, void=True)
    assert aim_of([result((good, None), axis="e2e-10k")], "e2e-10k")["verdict"] == "held"
    assert aim_of([result((void, None), axis="e2e-10k")], "e2e-10k")["verdict"] == "missed"


def test_latency_of_a_void_run_is_no_ratio_but_its_cpu_is():
    made = result((sample(cpu=1, p99=1), sample(cpu=4, p99=9000, void=True)))
    assert made["figures"]["p99"]["ratio"] is None
    assert made["figures"]["cpu_s_per_gb"]["ratio"] == (0.25, 0.25, 0.25)
    rows = {row["heading"]: row for row in text.rows(made)}
    assert "Kafka did not carry its rate in 1 of 1" in rows["p99, ms"]["notes"]


def test_client_limited():
    ceiling = {"mb_per_s": 1000.0, "requests_per_s": 1.0, "command": []}
    made = result((sample(mb=900), sample(mb=300)), axis="64k-sat", ceiling=ceiling)
    assert made["client_limited"] == {"corelane": 0.9, "kafka": None}
    assert "client-limited" in text.rows(made)[0]["notes"]
    assert result((sample(mb=840), sample(mb=300)), axis="64k-sat", ceiling=ceiling)["client_limited"]["corelane"] is None


def test_wins_and_losses_by_the_sense_of_the_figure():
    rows = {r["heading"]: r for r in text.rows(result((sample(cpu=5, mb=200), sample(cpu=4, mb=100))))}
    assert rows["broker CPU, s/GB"]["outcome"] == "loss"
    assert rows["throughput, MB/s"]["outcome"] == "win"


def test_disturbances_are_told():
    made = result((sample(others_s=1.5), sample()))
    assert any("1 of 2 runs" in w for w in made["warnings"])
    assert result((sample(), sample()))["warnings"] == []
    assert result((sample(errors={"timeout": 3}), sample()))["warnings"] == ["errors: 3 x timeout"]


class Seen(HTMLParser):
    def __init__(self):
        super().__init__()
        self.outside, self.tags = [], set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.outside += [v for k, v in attrs if k in ("src", "href", "xlink:href") and not (v or "").startswith("#")]


def test_the_page_needs_nothing_else_and_escapes_what_it_shows():
    html = page.html(document([result((sample(), sample(p99=30)), problems=["pair 2, kafka: <b>gone</b>"])]))
    seen = Seen()
    seen.feed(html)
    assert seen.outside == [] and not {"script", "link", "img", "b"} & seen.tags and "svg" in seen.tags
    assert "url(" not in html and "@import" not in html
    assert "&lt;died&gt;" in html and "&lt;produce&gt;" in html and "&lt;b&gt;gone" in html
    assert "STILL FALLING" in html


def test_markdown_has_every_figure_and_what_was_left_out():
    md = text.markdown(document([result((sample(cpu=1), sample(cpu=10)))]))
    assert "| 64 KB batches at 100 MB/s | broker CPU, s/GB | 1.00 | 10.00 | 0.10x | 0.10-0.10 | 1 |" in md
    assert "cold: consume from the disk" in md and "a broker <died>" in md and "reno" in md
    assert re.search(r"CPU per GB in 64 KB batches at 100 MB/s \| <= 0.2x \| 0.10 .* held", md)


def test_a_plot_rises_and_stays_inside():
    svg = plots.percentiles({"corelane": [(0.5, 1.0), (0.999, 2.0), (1.0, 80.0)], "kafka": [(0.9, 5.0), (1.0, 5.0)]}, "t")
    for points in re.findall(r'points="([^"]+)"', svg):
        xs, ys = zip(*(tuple(map(float, p.split(","))) for p in points.split()))
        assert list(xs) == sorted(xs) and list(ys) == sorted(ys, reverse=True)
        assert all(plots.LEFT <= x <= plots.WIDTH for x in xs) and all(0 <= y <= plots.HEIGHT for y in ys)
    assert plots.percentiles({}, "t") == ""


def test_profiles():
    parser, chosen = main.options([])
    run, left = main.choose(parser, chosen)
    assert chosen.pairs >= 5 and {a.id for a in run}.isdisjoint(a["id"] for a in left) and len(run) + len(left) == len(axes.AXES)
    parser, chosen = main.options(["--full"])
    assert main.choose(parser, chosen)[1] == []
    parser, chosen = main.options(["--only", "nothing"])
    with pytest.raises(SystemExit):
        main.choose(parser, chosen)


def test_the_batch_of_the_small_client():
    assert wire.crc32c(b"123456789") == 0xE3069283
    batch = wire.one_record_batch(b"x", 5)
    assert int.from_bytes(batch[8:12], "big") == len(batch) - 12
    assert wire.crc32c(batch[21:]) == int.from_bytes(batch[17:21], "big")
