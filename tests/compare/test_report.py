"""From samples to the report's figures, aims and files."""

import re
from html.parser import HTMLParser

import pytest
from compare import aims, axes, main, page, plots, report, text, wire


def sample(cpu=1.0, mb=100.0, p99=2.0, **more):
    return {
        "cpu_s_per_gb": cpu, "cpu_s_per_gb_written": cpu, "mb_per_s": mb, "requests_per_s": mb, "p50": 1.0, "p99": p99, "p99_9": p99, "p99_99": p99, "max": p99,
        "void": False, "errors": {}, "wall_s": 3.0, "others_s": 0.0, "stolen_s": 0.0, "command": ["corelane", "bench", "<produce>"],
        "hgrm": [(1.0, 900), (p99, 100)], **more,
    }  # fmt: skip


def outcome(*pairs, problems=()):
    """Pairs of samples of Corelane, Kafka and, where there are more, the null broker and the one that writes behind."""
    made = [{"swapped": bool(i % 2)} | {k: v for k, v in zip(("corelane", "kafka", "null", "writing"), p) if v} for i, p in enumerate(pairs)]
    return {"pairs": made, "problems": list(problems), "wanted": len(made)}


def result(*pairs, axis="64k-100", ceiling=None, **kwargs):
    return report.axis_result(axes.by_id()[axis], outcome(*pairs, **kwargs), ceiling)


def document(results):
    return {
        "profile": "short", "command": ["scripts/compare-kafka"], "started": "2026-01-02 03:04:05", "minutes": 9.5, "ended": "to its end",
        "host": {"kernel": "Linux <6>"}, "network": {"congestion_control": "reno"}, "interrupts": "left", "pins": "0 and 1",
        "cpu_source": {"corelane": "x"}, "versions": {"kafka": "4.3.1"}, "configs": {"kafka": "a=b\n"}, "broker_commands": {"kafka": ["java"]},
        "warm_up": {"kafka": {"seconds": 60, "steps": [{"lanes": "free", "cpu_s_per_gb": [9, 5]}], "settled": False}},
        "axes": results, "aims": report.judged(aims.aims(), results), "left_out": [{"id": "cold", "title": "consume from the disk"}],
        "problems": ["a broker <died>"], "notes": [], "promises": {},
    }  # fmt: skip


def aim_of(results, name):
    return next((a for a in report.judged(aims.aims(), results) if a["id"] == name), None)


def test_every_aim_names_an_axis_and_a_figure_of_it():
    known = axes.by_id()
    assert len(known) == len(axes.AXES) + sum(a.long for a in axes.AXES)
    every = aims.aims()
    assert len({a.id for a in every}) == len(every)
    for aim in every:
        assert aim.metric in known[aim.axis].metrics, aim.id
        assert aim.must or aim.aim, aim.id
        for bound in filter(None, (aim.must, aim.aim)):
            assert bound.of != "own" or aim.metric in known[bound.against].metrics
            assert bound.of not in ("above", "null") or known[aim.axis].has_floor, aim.id
            assert bound.of != "writing" or known[aim.axis].writing_floor, aim.id
    for axis in axes.AXES:
        assert set(axis.metrics) <= set(axes.METRICS), axis.id


def test_every_produce_row_at_a_fixed_rate_has_bounds_of_p50_and_p99():
    every = {(a.axis, a.metric): a for a in aims.aims()}
    assert every["cold-beside", "p99"].must.value == 0.5 and every["cold-beside", "p50"].must.value == 0.75
    assert every["16k-1000p", "p99"].must.value == 0.1  # its own, not the general one
    assert ("64k-sat", "p99") not in every and ("64k-written", "p99") not in every


def test_bounds_held_missed_and_left_out():
    results = [result((sample(cpu=1), sample(cpu=10)), (sample(cpu=3), sample(cpu=10)), axis="16k-100")]
    found = aim_of(results, "16k-100-cpu")
    assert (found["must"]["found"], found["must"]["spread"], found["must"]["verdict"]) == (0.2, [0.1, 0.3], "held")
    assert found["aim"]["verdict"] == "not measured"  # there was no null broker
    assert aim_of([result((sample(cpu=6), sample(cpu=10)), axis="16k-100")], "16k-100-cpu")["must"]["verdict"] == "missed"
    assert aim_of([], "16k-100-cpu") is None
    told = {aim["id"]: told for aim, told in text.told_aims(document(results))}
    assert told["16k-100-cpu"] == {"must": ("<= 0.5x", "0.20", "held")}
    assert text.told_aims(document([result((sample(), None))])) == []


def test_what_is_taken_above_the_floor():
    results = [result((sample(cpu=1.1), sample(cpu=3), sample(cpu=1)), (sample(cpu=1.05), sample(cpu=2), sample(cpu=1)), axis="16k-100")]
    above = aim_of(results, "16k-100-cpu")["aim"]
    assert above["found"] == pytest.approx(0.05) and above["verdict"] == "held"
    assert results[0]["figures"]["cpu_s_per_gb"]["null"] == (1, 1, 1)
    # A Kafka at the floor leaves nothing to compare with.
    flat = result((sample(cpu=1.2), sample(cpu=1), sample(cpu=1)))
    assert flat["figures"]["cpu_s_per_gb"]["above"] is None
    most = [result((sample(requests_per_s=90), sample(requests_per_s=10), sample(requests_per_s=100)), axis="requests-1x5")]
    assert aim_of(most, "requests-1x5")["aim"]["found"] == pytest.approx(0.9)
    assert aim_of(most, "requests-1x5")["must"]["verdict"] == "held"


def test_the_floor_that_writes_is_a_bound_and_no_side_of_the_bars():
    made = [result((sample(cpu=1.2), sample(cpu=3), sample(cpu=0.5), sample(cpu=1)))]
    assert aim_of(made, "64k-100-cpu")["aim"]["found"] == pytest.approx(1.2) and aim_of(made, "64k-100-cpu")["aim"]["verdict"] == "held"
    assert "broker CPU 1.00 s/GB" in text.writing(made[0]) and text.writing(made[0]) in text.markdown(document(made))
    assert text.writing(result((sample(), sample(), sample()))) == ""
    assert "broker CPU: 1.20 : 3.00 s/GB" in page.html(document(made))


def test_an_own_figure_is_held_against_corelane_alone():
    results = [result((sample(cpu=2), sample(cpu=1)), axis="16k-100"), result((sample(cpu=2.2), None), axis="16k-1000p")]
    assert aim_of(results, "1000p-cpu")["aim"]["found"] == pytest.approx(1.1)


def test_an_absolute_bound_wants_the_rate_carried():
    good, void = sample(p99=3), sample(p99=3, void=True)
    assert aim_of([result((good, None), axis="hdd-200p")], "hdd-p99")["must"]["verdict"] == "held"
    assert aim_of([result((good, None), (void, None), axis="hdd-200p")], "hdd-p99")["must"]["verdict"] == "missed"


def test_what_corelane_never_carried_is_missed():
    void = sample(void=True)
    assert aim_of([result((void, sample()))], "64k-100-p99")["must"]["verdict"] == "missed"
    assert aim_of([result((sample(), void))], "64k-100-p99")["must"]["verdict"] == "not measured"
    assert text.not_carried(document([result((sample(), void))])) == ["Kafka did not carry in any run: 64 KB batches at 100 MB/s."]


def test_a_row_of_60_seconds_has_the_bounds_of_the_short_one():
    made = [result((sample(cpu=1), sample(cpu=4)), axis="64k-100-60s")]
    assert aim_of(made, "64k-100-cpu")["axis"] == "64k-100-60s"


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
    # The null broker under the same load is the ceiling of a producer.
    assert result((sample(mb=900), sample(mb=300), sample(mb=1000)), axis="64k-sat")["client_limited"]["corelane"] == 0.9
    rated = result((sample(mb=100), sample(mb=100), sample(mb=100)))
    assert rated["client_limited"] == {"corelane": None, "kafka": None} and rated["warnings"] == []
    assert "against the null broker" in result((sample(), sample(), sample(void=True)))["warnings"][0]


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
    assert "| 64 KB batches at 100 MB/s | broker CPU, s/GB | 1.00 | 10.00 | - | 0.10x | 0.10-0.10 | 1 |" in md
    assert "cold: consume from the disk" in md and "a broker <died>" in md and "reno" in md
    assert "| 64 KB batches at 100 MB/s | CPU per GB | <= 0.45x | 0.10 | held |" in md
    assert md.index("## At a glance") < md.index("## Figures") < md.index("## Aims")


def test_a_plot_rises_and_stays_inside():
    svg = plots.percentiles({"corelane": [(0.5, 1.0), (0.999, 2.0), (1.0, 80.0)], "kafka": [(0.9, 5.0), (1.0, 5.0)]}, "t")
    for points in re.findall(r'points="([^"]+)"', svg):
        xs, ys = zip(*(tuple(map(float, p.split(","))) for p in points.split()))
        assert list(xs) == sorted(xs) and list(ys) == sorted(ys, reverse=True)
        assert all(plots.LEFT <= x <= plots.WIDTH for x in xs) and all(0 <= y <= plots.HEIGHT for y in ys)
    assert plots.percentiles({}, "t") == ""


def test_the_bars_are_better_to_the_right_whatever_the_figure():
    made = [result((sample(cpu=1), sample(cpu=4)), (sample(cpu=2), sample(cpu=4))), result((sample(mb=50), sample(mb=100)), axis="64k-sat")]
    less, more = text.bars(document(made))
    assert (less["times"], less["least"], less["most"]) == (pytest.approx(1 / 0.375), 2, 4)
    assert (more["times"], more["figure"]) == (0.5, "throughput: 50.0 : 100.0 MB/s")
    svg = plots.bars([less, more])
    one = float(re.search(r'class="one" x1="([0-9.]+)"', svg)[1])
    kinds = re.findall(r'class="bar (\w+)" x="([0-9.]+)" y="[0-9.]+" width="([0-9.]+)"', svg)
    assert [kind for kind, *_ in kinds] == ["win", "loss"]
    assert float(kinds[0][1]) == pytest.approx(one, abs=0.11)
    assert sum(map(float, kinds[1][1:])) == pytest.approx(one, abs=0.21)
    assert plots.bars([]) == ""
    slow = text.bars(document([result((sample(cpu=1, void=True), sample(cpu=4)))]))
    assert slow[0]["remarks"] == ["Corelane below its rate"] and "Corelane below its rate" in plots.bars(slow) and less["remarks"] == []


def test_the_sentence_tells_losses_too():
    made = [result((sample(cpu=1), sample(cpu=4))), result((sample(mb=50), sample(mb=100)), axis="64k-sat")]
    said = text.summary(document(made))
    assert "takes 0.25x of its CPU for producers at fixed rates" in said and "carries 0.50x of its MB/s at saturation" in said
    assert said.endswith("is behind in 1 of 2 axes (64k-sat).") and said.count(".  ") == 0
    assert text.summary(document([])) == "Nothing was measured on both sides."


def test_p50_is_marked():
    svg = plots.percentiles({"corelane": [(0.4, 1.0), (0.6, 2.5), (1.0, 9.0)], "kafka": [(0.9, 5.0), (1.0, 5.0)], "null": [(1.0, 0.5)]}, "t")
    assert "p50 1,234 ms" in plots.percentiles({"kafka": [(1.0, 1234.0)]}, "t")
    assert "p50 2.5 ms" in svg and "p50 5 ms" in svg and svg.count("<circle") == 3 and ">floor<" in svg


def test_rows_of_60_seconds_stand_beside_the_short_ones():
    parser, chosen = main.options(["--only", "64k-100,64k-25", "--long"])
    run, _ = main.choose(parser, chosen)
    assert [(a.id, a.seconds) for a in run] == [("64k-100", None), ("64k-100-60s", 60), ("64k-25", None)]
    assert main.expected_seconds(run[1], chosen) > 120


def test_the_short_list_fits_its_time():
    parser, chosen = main.options([])
    run, _ = main.choose(parser, chosen)
    assert chosen.warm + sum(main.expected_seconds(a, chosen) for a in run) < 25 * 60


def test_profiles():
    parser, chosen = main.options([])
    run, left = main.choose(parser, chosen)
    assert chosen.pairs >= 4 and {a.id for a in run}.isdisjoint(a["id"] for a in left) and len(run) + len(left) == len(axes.AXES)
    parser, chosen = main.options(["--full"])
    assert main.choose(parser, chosen)[1] == []
    parser, chosen = main.options(["--only", "nothing"])
    with pytest.raises(SystemExit):
        main.choose(parser, chosen)


def test_a_topic_of_many_partitions_grows_in_steps():
    assert [wire.steps(n, 5000) for n in (1, 5000, 5001, 10_000, 12_000)] == [[], [], [5001], [10_000], [10_000, 12_000]]


def test_the_batch_of_the_small_client():
    assert wire.crc32c(b"123456789") == 0xE3069283
    batch = wire.one_record_batch(b"x", 5)
    assert int.from_bytes(batch[8:12], "big") == len(batch) - 12
    assert wire.crc32c(batch[21:]) == int.from_bytes(batch[17:21], "big")
