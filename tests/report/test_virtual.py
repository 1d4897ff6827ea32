"""How figures of the virtual clock are told: by name, apart from others, and as instructions."""

from __future__ import annotations

import dataclasses

import pytest

from tests.support.documents import ROOT
from tests.support.records import sample
from xlab.errors import UsageError
from xlab.record import comparisons
from xlab.record.comparisons import Pair, Verdict
from xlab.record.record import RunRecord, VirtualMachine
from xlab.report import clocks, costs, prose, tables, virtual

GUEST = VirtualMachine("0123456789abcdef", "max", "10.0", {"libc6": "2.41"}, {})


def by_virtual_clock(record: RunRecord, *, factor: float = 1.0) -> RunRecord:
    def slowed(name: str, median: float | None) -> float | None:
        return median * factor if median and name == "tcp_rr_latency_ms" else median

    return dataclasses.replace(
        record,
        environment=dataclasses.replace(record.environment, clock="virtual", virtual=GUEST),
        measurements=tuple(
            dataclasses.replace(m, median=slowed(m.metric, m.median)) for m in record.measurements
        ),
    )


BRIDGE = by_virtual_clock(sample("bridge"))


def test_the_two_clocks_are_never_in_one_ranking() -> None:
    real = sample("bridge")
    assert [kind for kind, _ in tables.groups([real, BRIDGE])] == [
        "kernel datapath",
        "kernel datapath, virtual time",
    ]
    assert any("clock (real | virtual)" in said for said in tables.cautions([real, BRIDGE]))


def test_a_report_says_what_the_figures_mean_and_of_which_guest() -> None:
    assert virtual.MEANING in prose.verdict([BRIDGE]).answers[-1].said
    assert virtual.MEANING in prose.measured([BRIDGE])
    told = dict(prose.environment([BRIDGE], ["bridge"]))
    assert "guest 0123456789abcdef: processor max, QEMU 10.0, 1 package" in told["clock"][0]
    assert virtual.MEANING not in prose.verdict([sample("bridge")]).answers[-1].said


def test_a_guest_of_other_parts_than_those_pinned_is_marked() -> None:
    other = dataclasses.replace(GUEST, differences=("libc6 2.42, not 2.41",))
    record = dataclasses.replace(
        BRIDGE, environment=dataclasses.replace(BRIDGE.environment, virtual=other)
    )
    assert "not as pinned: libc6 2.42, not 2.41" in virtual.clock(record)


def test_a_byte_and_a_packet_are_counted_in_instructions() -> None:
    table = virtual.instructions([("bridge", BRIDGE), ("real", sample("bridge"))])
    assert table is not None
    ((name, byte, _, packet, _),) = table.rows
    found = {m.metric: m.median for m in BRIDGE.measurements if (m.route, m.round) == ("method", 2)}
    assert name == "bridge"
    # A second for 10^9 bytes is a nanosecond a byte.
    cost, trip_ms = found["cpu_seconds_per_gigabyte"], found["tcp_rr_latency_ms"]
    assert cost is not None
    assert trip_ms is not None
    assert float(byte) == pytest.approx(cost, rel=0.2)
    assert float(packet.replace(",", "")) == pytest.approx(trip_ms * 1e6 / 2, rel=0.2)
    assert virtual.instructions([("real", sample("bridge"))]) is None


def test_a_packet_is_taken_apart_by_paths_that_lack_a_part() -> None:
    gre = sample("ovs-gre-kernel")
    subjects = [
        ("ovs-gre", by_virtual_clock(gre, factor=3.0)),
        ("ovs-gre:routes=underlay", by_virtual_clock(gre, factor=2.0)),
    ]
    drawn = costs.parts_of_a_packet(subjects)
    assert drawn is not None
    (stack,) = drawn.stacks
    assert [part.words for part in stack.parts] == [
        "plain hosts",
        "+ bridges, routing, netfilter",
        "+ Open vSwitch and GRE",
    ]
    # The bar is the dearest variant's, and within it stands where each ends.
    assert stack.name == "ovs-gre"
    assert [part.ends for part in stack.parts] == ["", "ovs-gre:routes=underlay", "ovs-gre"]
    (alone,) = (costs.parts_of_a_packet(subjects[1:]) or drawn).stacks
    assert alone.name == "ovs-gre:routes=underlay"
    assert not any(part.ends for part in alone.parts)
    dearest = virtual.a_packet(subjects[0][1])
    assert dearest is not None
    assert stack.total == pytest.approx(dearest)
    assert "Open vSwitch and GRE" in drawn.in_words()
    assert costs.parts_of_a_packet([("ovs-gre", gre)]) is None


# -- both clocks -----------------------------------------------------------------------------------

SAMPLE = comparisons.load(ROOT / "results/sample")
BY_INSTRUCTIONS = comparisons.load(ROOT / "results/sample/virtual")


def test_both_clocks_stand_side_by_side_where_both_have_a_method() -> None:
    drawn = clocks.side_by_side(SAMPLE, BY_INSTRUCTIONS)
    tcp = drawn["tcp_bits_per_second-by-both-clocks"]
    (panel,) = tcp.panels
    # What was GRE in user space by the real clock is the variant of that name by the other.
    assert [group.heading for group in panel.groups] == [
        "bridge",
        "ovs-gre:datapath=userspace",
        "weave",
        "weave:datapath=fastdp",
    ]
    assert {bar.route for group in panel.groups for bar in group.bars} == {"method", "control"}
    assert ("method", "virtual time") in tcp.key()
    assert ("control", "real clock") in tcp.key()
    assert drawn.keys() == clocks.side_by_side(BY_INSTRUCTIONS, SAMPLE).keys()


def test_two_of_one_clock_are_not_set_side_by_side() -> None:
    with pytest.raises(UsageError, match="both comparisons are of the real clock"):
        clocks.side_by_side(SAMPLE, SAMPLE)


def test_where_the_clocks_say_the_opposite_the_page_says_so() -> None:
    def opposed(pair: Pair) -> Pair:
        said: Verdict = "slower" if pair.ratio.verdict == "faster" else "faster"
        return dataclasses.replace(pair, ratio=dataclasses.replace(pair.ratio, verdict=said))

    pair = next(
        each
        for each in BY_INSTRUCTIONS.pairs
        if (each.metric, {each.method, each.other})
        == ("tcp_bits_per_second", {"bridge", "weave:datapath=fastdp"})
    )
    agreed = dataclasses.replace(SAMPLE, pairs=(pair,))
    assert clocks.disagreements(BY_INSTRUCTIONS, agreed) == []
    (said,) = clocks.disagreements(
        BY_INSTRUCTIONS, dataclasses.replace(SAMPLE, pairs=(opposed(pair),))
    )
    assert said.startswith("TCP 1 stream: in virtual time bridge is faster than weave:datapath")
