"""Which options a binary is given for an acknowledgement level, and what is left out without them."""

from dataclasses import replace

from compare import axes, lab, levels

LISTING = """node.id, broker.id
    int; default 0; at least 0
    This broker's id, also of corelane.gather.us in this text.
corelane.acknowledge
    string; default held; one of held, written
"""


def test_the_options_a_binary_lists():
    assert levels.names_in(LISTING) == {"node.id", "broker.id", "corelane.acknowledge"}


def test_a_binary_with_levels_is_told_each():
    known = {levels.OPTION}
    for name, option in (("64k-100", "held"), ("64k-written", "written"), ("64k-synced", "held")):
        axis = axes.by_id()[name]
        found = levels.terms(axis, known)
        assert (found.level, found.options, found.left_out, found.note) == (axis.level, {levels.OPTION: option}, "", "")


def test_a_binary_without_levels_acknowledges_what_is_written():
    known = axes.by_id()
    held = levels.terms(known["64k-100"], set())
    assert (held.level, held.options, held.left_out) == ("written", {}, "") and "left out" in held.note
    assert "corelane.acknowledge" in levels.terms(known["64k-written"], set()).left_out
    synced = levels.terms(known["64k-synced"], set())
    assert (synced.level, synced.left_out, synced.note) == ("synced", "", "")


def test_an_axis_is_left_out_without_an_option_it_needs_and_runs_without_one_it_wants():
    axis = axes.by_id()["16k-100-gather"]
    assert "corelane.gather.us" in levels.terms(axis, {levels.OPTION}).left_out
    assert levels.terms(axis, {levels.OPTION, "corelane.gather.us"}).options == {"corelane.gather.us": "800", levels.OPTION: "held"}
    disk = axes.by_id()["hdd-200p"]
    found = levels.terms(disk, {levels.OPTION})
    assert not found.left_out and "corelane.arena.bytes" in found.note
    assert levels.terms(disk, {levels.OPTION, "corelane.arena.bytes"}).options["corelane.arena.bytes"] == str(1 << 30)


def test_brokers_that_differ_have_names_of_their_own():
    axis = axes.by_id()["64k-100"]
    name = lab.broker_label
    assert name("corelane", axis, {}) == name("corelane", axis, {levels.OPTION: "held"}) == "corelane"
    assert name("corelane", axis, {levels.OPTION: "written"}) == "corelane-written"
    assert name("corelane", replace(axis, lanes="free"), {}) == "corelane-free"
    assert name("kafka", replace(axis, lanes="free"), {}) == "kafka"
    assert name("kafka", replace(axis, disk="hdd"), {}) == "kafka-hdd"
    assert name("corelane", axis, {"corelane.gather.us": "400", levels.OPTION: "held"}) == "corelane-gather.us-400"
